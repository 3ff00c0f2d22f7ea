/* SPDX-License-Identifier: Apache-2.0 */
/* The hand-over of a move as a model for spin: two engines, two guards, two QEMUs, a wire, and everything that can die. */

/*
 * What is modelled, how to read it and what is left out: README.md beside this file.
 *
 * Every statement is one thing that happens at once; a process can be killed, and the wire cut, between any two of them.
 * A comment at the end of a transition names the function of the code that it stands for. Time is not modelled: a
 * deadline may pass at any moment (`late`), except that the patience of a settlement (--settle) ends only while the wire
 * is cut or when nobody is left on the other side.
 *
 * Without CLUSTER: the two sides alone. Of an engine and its guard at most one is killed, and the guest may be lost with
 * its QEMU. With CLUSTER: anything may be killed, whole hosts too, and a manager fences, asks and restarts (design: "source
 * confirmed dead: a loaded destination runs it; destination confirmed dead: the source goes on; both: restart").
 *
 * MUTATION_* switch on one mistake each; model-test checks that spin finds every one of them.
 */

/* enum src_step, enum dst_step: migrate/handover.h */
#define SRC_COPY 0
#define SRC_STOPPED 1
#define SRC_SHUT 2
#define SRC_RELEASED 3
#define SRC_GO 4
#define SRC_MOVED 5
#define SRC_KEPT 6

#define DST_PREPARE 0
#define DST_LOADED 1
#define DST_GO 2
#define DST_RUNNING 3
#define DST_NEVER 4

/* What a QEMU does with the guest. */
#define Q_RUN 0       /* its vCPUs run */
#define Q_STOP 1      /* source: stopped for the switchover, resumes by itself when the migration fails */
#define Q_COMPLETED 2 /* source: postmigrate, resumes only when told */
#define Q_INCOMING 3  /* destination: waits for the rest of the guest */
#define Q_LOADED 4    /* destination: complete and stopped */
#define Q_DEAD 5      /* killed */
#define Q_ENDED 6     /* source: ended after the move, by us */

/* Words on the control connection. */
#define W_LOADED 1
#define W_RUNNING 2
#define W_FAIL 3
#define W_GO 4
#define W_DONE 5

/* A question (WIRE_RESOLVE) and its answer (WIRE_RESOLVED). */
#define ASK_GIVE_UP 1
#define ASK_GO 2
#define ASK_TAKEN 3
#define SAY_RUNNING 1
#define SAY_NEVER 2

/* The records that engine and guard share. */
byte src_step = SRC_COPY;
byte dst_step = DST_PREPARE;
bool src_settled, dst_settled; /* the engine, or the guard in its place, has finished */

/* The QEMUs. */
byte sq = Q_RUN;
byte dq = Q_INCOMING;
bool migrating = true;   /* the source QEMU's migration is neither completed nor failed */
bool sent;               /* the source QEMU has written everything */
bool shut;               /* SHUT(0) lies in its return path */
bool stream_closed;      /* the engine's end of its socketpair is closed */

/* The wire. */
bool wire = true;        /* false: cut; what was sent waits */
bool conn = true;        /* the control connection; false: closed by an end, or lost with what was in it */
chan to_dst = [2] of { byte };
chan to_src = [3] of { byte };
byte question, answer;   /* of the newest connection to the destination's port */

/* Who was killed. */
bool se_dead, sg_dead, de_dead, dg_dead; /* sg, dg: guards */
bool calm;               /* nothing more is killed, and the wire stays whole */

/* What excuses a guest that does not run. With a cluster nothing does, so it is not kept. */
#ifdef CLUSTER
#define excuse hidden byte
#else
#define excuse byte
#endif
excuse other;              /* something besides the death of the source's QEMU went wrong, or somebody cancelled */
excuse sq_early;           /* the source's QEMU was killed before the destination had all of the guest */
excuse dq_home;            /* the destination's QEMU was killed while it ran the guest */
excuse too_long;           /* the wire stayed cut for longer than --settle */
excuse go_said;            /* the source's record has reached GO */

#ifdef CLUSTER
/* The replicated state: who owns the guest, and the epoch, which grows by one at each change. */
#define OWNER_SRC 0
#define OWNER_DST 1
#define OWNER_OTHER 2
byte owner = OWNER_SRC;
byte epoch = 1;

byte reports;    /* of the destination that it runs the guest, applied so far; a second one is a repeated one */
bool keep;       /* command: the destination is dead, the source goes on */
byte restart_in; /* a command to restart the guest on a third host is on its way, proposed in this epoch; 0: none */
byte hq = Q_DEAD;        /* the QEMU on that host */
bool src_down, dst_down; /* the host is dead and known to be: it lost power, or it was fenced */
#define OTHER_RUNS (hq == Q_RUN)
#else
#define OTHER_RUNS false
#define src_down false
#define keep false
#endif

#define src_gone (src_settled || (se_dead && sg_dead))
#define dst_gone (dst_settled || (de_dead && dg_dead))

/* S1, checked at every transition that starts vCPUs. */
#define only_src (dq != Q_RUN && !OTHER_RUNS)
#define only_dst (sq != Q_RUN && !OTHER_RUNS)

/* ---- steps: the tables src_next and dst_next of migrate/handover.c ---- */

inline src_move(next)
{
	d_step {
		assert((src_step == SRC_COPY && (next == SRC_STOPPED || next == SRC_KEPT)) ||
		       (src_step == SRC_STOPPED && (next == SRC_SHUT || next == SRC_KEPT || next == SRC_GO)) ||
		       (src_step == SRC_SHUT && (next == SRC_RELEASED || next == SRC_KEPT || next == SRC_GO)) ||
		       (src_step == SRC_RELEASED && (next == SRC_GO || next == SRC_KEPT)) ||
		       (src_step == SRC_GO && (next == SRC_MOVED || next == SRC_KEPT)));
		src_step = next;
		go_said = go_said || next == SRC_GO;
	}
}

inline dst_move(next)
{
	d_step {
		assert((dst_step == DST_PREPARE && (next == DST_LOADED || next == DST_NEVER)) ||
		       (dst_step == DST_LOADED && (next == DST_GO || next == DST_NEVER)) ||
		       (dst_step == DST_GO && (next == DST_RUNNING || next == DST_NEVER)));
		dst_step = next;
	}
}

/* Something took too long, or a person cancelled. */
#define late() other = true

inline say_src(word) /* conn_send(), destination to source */
{
	atomic {
		if
		:: conn -> to_src!word
		:: else
		fi
	}
}

inline say_dst(word) /* conn_send(), source to destination */
{
	atomic {
		if
		:: conn -> to_dst!word
		:: else
		fi
	}
}

/* Nobody will read what is still on the way to this side. */
inline src_deaf()
{
	do
	:: to_src?_
	:: empty(to_src) -> break
	od
}

inline dst_deaf()
{
	do
	:: to_dst?_
	:: empty(to_dst) -> break
	od
}

/* Who had taken a question is dead, and its connection with it. */
inline question_reset()
{
	question = (question == ASK_TAKEN -> 0 : question)
}

/* ---- the source's settlement ---- */

/* resolve_ask(): one connection, one question. `said` is 0 when no answer came. */
inline ask(kind)
{
	said = 0;
	if
	:: atomic { wire && !dst_gone -> question = kind; answer = 0 };
		if
		:: atomic { wire && answer != 0 -> said = answer; answer = 0; question = 0 }
		:: atomic { question == 0 && answer == 0 -> skip }    /* who had taken it is dead */
		:: atomic { dst_gone && answer == 0 -> question = 0 } /* nobody is left behind the socket */
		:: atomic { !wire -> question = 0; answer = 0 }       /* ANSWER_PATIENCE */
		:: kind == ASK_GIVE_UP                                /* GIVE_UP_PATIENCE: the question may still arrive */
		fi
	:: !wire || dst_gone
	fi
}

/* src_keep(): true in `here` when the guest runs at the source again. */
inline src_keep()
{
	do
#ifdef MUTATION_GUARD_LEAVES
	:: sq == Q_COMPLETED && se_dead -> here = true; break
	:: atomic { sq == Q_COMPLETED && !se_dead -> sq = Q_RUN; assert(only_src) }
#else
	:: atomic { sq == Q_COMPLETED -> sq = Q_RUN; assert(only_src) } /* src_resumed(): `cont` */
#endif
	:: sq == Q_RUN ->
		src_move(SRC_KEPT);
		here = true;
		break
	:: sq == Q_DEAD -> here = false; break
	od
}

/* src_resolve(): ask until there is an answer or nobody can give one. */
inline src_resolve()
{
	said = 0;
	do
	:: said == SAY_RUNNING -> src_move(SRC_MOVED); break
	:: said == SAY_NEVER || keep -> src_keep(); ask(ASK_GIVE_UP); break
	:: said == 0 && wire && !dst_gone -> ask(ASK_GO)
	:: said == 0 && dst_gone && !(keep) -> break
	:: said == 0 && !wire -> too_long = true; break
	od
}

inline src_before_go()
{
	src_keep();
	if
	:: !here && src_step != SRC_COPY ->
		src_move(SRC_GO);
		src_resolve() /* DEAD_QEMU_PATIENCE */
	:: else -> ask(ASK_GIVE_UP)
	fi
}

inline src_settle() /* handover_src_settle() */
{
	if
#ifdef MUTATION_GUARD_RESUMES
	:: src_step <= SRC_GO && (src_step < SRC_GO || se_dead) -> src_before_go()
	:: src_step == SRC_GO && !se_dead ->
#else
	:: src_step < SRC_GO -> src_before_go()
	:: src_step == SRC_GO ->
#endif
		if
		:: denied -> src_keep(); ask(ASK_GIVE_UP)
		:: else -> src_resolve()
		fi
	:: src_step == SRC_MOVED -> ask(ASK_GO)
	:: src_step == SRC_KEPT
	fi;
	if
	:: atomic { src_step == SRC_MOVED -> sq = (sq == Q_DEAD -> Q_DEAD : Q_ENDED); src_settled = true } /* tidy(), guard_settle() */
	:: atomic { src_step != SRC_MOVED -> src_settled = true }
	fi
}

/* ---- the source's engine and, once that is dead, its guard ---- */

active proctype source()
{
	bool denied, here, noticed; /* `denied` is the engine's own: the guard was forked before */
	byte said;

	{
		/* copy_run() of send.c */
		do
		:: sq == Q_STOP && src_step == SRC_COPY -> src_move(SRC_STOPPED) /* events_take(): STOP */
		:: sq == Q_DEAD && !noticed ->
			noticed = true;
			if
			:: sent && src_step == SRC_COPY -> src_move(SRC_STOPPED)
			:: sent && src_step == SRC_STOPPED
			:: !sent -> goto settle /* the destination cannot have all of it */
			fi
		:: atomic { wire && to_src?[W_LOADED] -> to_src?W_LOADED };
			break
		:: atomic { wire && to_src?[W_FAIL] -> to_src?W_FAIL };
			goto settle
		:: !conn -> goto settle
		:: atomic { late() -> goto settle } /* SIGINT, deadline, STALL_PATIENCE, SWITCH_PATIENCE */
		od;
		/* step_loaded() */
		if
		:: src_step == SRC_COPY -> src_move(SRC_STOPPED)
		:: else
		fi;
		src_move(SRC_SHUT);
		shut = true; /* qemu_let_complete() */
		if
#ifdef MUTATION_NO_SHUT
		:: goto go
#endif
		:: sq == Q_COMPLETED -> src_move(SRC_RELEASED)
		:: sq == Q_DEAD -> goto go /* qemu_dead(): nobody here can run it */
		:: atomic { late() -> goto settle }
		fi;
		if
		:: !conn -> goto settle /* POLLRDHUP */
		:: skip                 /* not known yet */
		fi;
go:		/* say_go() */
#ifdef MUTATION_GO_FIRST
		say_dst(W_GO);
		src_move(SRC_GO);
#else
		src_move(SRC_GO);
		say_dst(W_GO);
#endif
		if
		:: atomic { wire && to_src?[W_RUNNING] -> to_src?W_RUNNING };
			src_move(SRC_MOVED); /* step_running() */
			say_dst(W_DONE);
			atomic { sq = (sq == Q_DEAD -> Q_DEAD : Q_ENDED); src_settled = true }; /* tidy() */
			goto done
		:: atomic { wire && to_src?[W_FAIL] -> to_src?W_FAIL };
			denied = true
		:: !conn
		:: late()
		fi;
settle:		/* settle() of send.c */
		if
		:: src_step < SRC_SHUT -> say_dst(W_FAIL)
		:: else
		fi;
		atomic { stream_closed = true; conn = false; src_deaf() }; /* source_abort(), conn_abort() */
		src_settle();
done:		skip
	} unless { se_dead };
	denied = false;
	/* guard_run(): acts only once the engine is gone */
	if
	:: src_settled
	:: else -> { src_settle() } unless { sg_dead }
	fi
}

/* ---- the destination's settlement ---- */

/* dst_run_settled(), handover_dst_run(): `cont`, wait for RESUME, write it down. */
inline dst_run()
{
	if
	:: atomic { dq == Q_LOADED -> dq = Q_RUN; assert(only_dst) }
	:: atomic { dq == Q_LOADED -> dq = Q_DEAD; other = true } /* it does not start: its QEMU is ended */
	:: dq == Q_RUN
	:: dq == Q_DEAD
	fi;
	if
	:: dq == Q_RUN -> dst_move(DST_RUNNING)
	:: dq == Q_DEAD -> dst_move(DST_NEVER)
	fi
}

inline dst_end() /* handover_end_qemu() */
{
	dq = Q_DEAD
}

inline dst_settle() /* handover_dst_settle() */
{
	if
	:: dst_step == DST_PREPARE ->
		dst_end();
		dst_move(DST_NEVER) /* dst_give_up() */
	:: else ->
		if
		:: dst_step == DST_GO -> dst_run()
		:: else
		fi;
		do
		:: atomic { wire && (question == ASK_GO || question == ASK_GIVE_UP) ->
				asked = question; question = ASK_TAKEN }; /* resolve_answer() */
			if
			:: dst_step == DST_LOADED && asked == ASK_GO -> dst_move(DST_GO); dst_run()
			:: dst_step == DST_LOADED && asked == ASK_GIVE_UP -> dst_end(); dst_move(DST_NEVER)
			:: else
			fi;
			if
			:: atomic { question == ASK_TAKEN ->
					answer = (dst_step == DST_RUNNING -> SAY_RUNNING : SAY_NEVER) }
			:: question != ASK_TAKEN /* into a connection that nobody reads any more */
			:: question != ASK_TAKEN -> asked = 0 /* and that is known: the next one */
			fi;
#ifndef MUTATION_ANSWER_ONCE
			if
			:: asked != 0 && (dst_step == DST_RUNNING || asked == ASK_GIVE_UP) -> break
			:: else /* "never" was said: the source may ask again until it says that it goes on */
			fi
#else
			break
#endif
		:: dst_step == DST_LOADED && dq == Q_DEAD -> dst_move(DST_NEVER)
		:: src_gone -> break /* patience ends; nobody would ask */
		:: !wire -> too_long = true; break
		od
	fi;
	dst_settled = true
}

/* ---- the destination's engine and, once that is dead, its guard ---- */

active proctype destination()
{
	byte asked;

	{
		/* copy_run() of receive.c */
		do
		:: dst_step == DST_PREPARE && dq == Q_LOADED ->
			dst_move(DST_LOADED); /* events_take() */
			say_src(W_LOADED)
		:: dq == Q_DEAD -> goto fail
		:: atomic { wire && to_dst?[W_GO] -> to_dst?W_GO };
			break
		:: atomic { wire && to_dst?[W_FAIL] -> to_dst?W_FAIL };
			goto fail
		:: !conn -> goto settle
		:: dst_step == DST_LOADED && question != 0 && wire -> goto settle /* ENGINE_LISTEN after ASKED_AFTER */
		:: atomic { late() -> goto fail } /* SIGINT; before LOADED also a failed stream */
#ifdef MUTATION_RUN_WITHOUT_GO
		:: dst_step == DST_LOADED && !conn -> break
#endif
		od;
		/* step_go() */
		dst_move(DST_GO);
		dst_run();
		if
		:: dst_step == DST_RUNNING ->
			say_src(W_RUNNING);
			if
			:: atomic { wire && to_dst?[W_DONE] -> to_dst?W_DONE; dst_settled = true };
				goto done
			:: !conn
			:: late() /* TELL_PATIENCE */
			fi
		:: else
		fi;
fail:		/* settle() of receive.c: a failure before GO ends our QEMU first, so that "failed" is a certainty */
		if
		:: dst_step == DST_LOADED ->
			dst_end();
			dst_move(DST_NEVER)
		:: else
		fi;
		if
		:: dst_step == DST_PREPARE || dst_step == DST_NEVER -> say_src(W_FAIL)
		:: else
		fi;
settle:		atomic { conn = false; dst_deaf() }; /* conn_abort() */
		dst_settle();
done:		skip
	} unless { de_dead };
	if
	:: dst_settled
	:: else -> { dst_settle() } unless { dg_dead }
	fi
}

/* ---- the QEMUs ---- */

active proctype source_qemu()
{
end:	do
	:: atomic { sq == Q_RUN && migrating && !stream_closed -> sq = Q_STOP }
	:: atomic { sq == Q_STOP && migrating && !sent && !stream_closed -> sent = true }
	:: atomic { sq == Q_STOP && migrating && sent && shut -> sq = Q_COMPLETED; migrating = false }
	:: atomic { (sq == Q_STOP || sq == Q_RUN) && migrating && stream_closed ->
			migrating = false; /* it fails, and the guest runs on by itself */
			if
			:: sq == Q_STOP -> sq = Q_RUN; assert(only_src)
			:: else
			fi }
	od
}

active proctype destination_qemu()
{
end:	do
	:: atomic { dq == Q_INCOMING && sent && wire -> dq = Q_LOADED }
	od
}

/* ---- what goes wrong ---- */

/* A guard acts only when its engine is dead; killing it before is the same as killing it then, at once. Without a cluster one
 * of the two survives. */
#ifdef CLUSTER
#define DEATHS 2 /* of processes and hosts: three would take 3 GB */
byte deaths;
#define die(what) deaths < DEATHS && what -> deaths++
#define over OTHER_RUNS
#define may_kill_guard true
#else
#define die(what) what
#define over (src_gone && dst_gone) /* nobody would act on it */
#define may_kill_guard false
#endif

active proctype faults()
{
	do
	:: atomic { die(!se_dead && !src_settled);
			se_dead = true; stream_closed = true; conn = false; other = true; src_deaf() }
	:: atomic { die(may_kill_guard && se_dead && !sg_dead && !src_settled); sg_dead = true }
	:: atomic { die(!de_dead && !dst_settled);
			de_dead = true; conn = false; other = true; dst_deaf(); question_reset() }
	:: atomic { die(may_kill_guard && de_dead && !dg_dead && !dst_settled); dg_dead = true }
	:: atomic { die(sq != Q_DEAD && sq != Q_ENDED && !over);
			sq = Q_DEAD; sq_early = src_step == SRC_COPY || dst_step == DST_PREPARE }
	:: atomic { die(dq != Q_DEAD && !over); dq_home = dq == Q_RUN; dq = Q_DEAD; other = true }
	:: atomic { wire && !over -> wire = false; other = true }
	:: atomic { !wire -> wire = true }
	:: atomic { conn && !over -> conn = false; other = true } /* reset, with what was in it */
#ifdef CLUSTER
	:: atomic { die(!src_down && !over);
			src_down = true; se_dead = true; sg_dead = true; sq = Q_DEAD; stream_closed = true; conn = false;
			src_deaf() }
	:: atomic { die(!dst_down && !over);
			dst_down = true; de_dead = true; dg_dead = true; dq = Q_DEAD; conn = false;
			dst_deaf(); question_reset() }
#endif
	:: break
	od;
	atomic { wire = true; calm = true }
}

/* ---- the cluster ---- */

#ifdef CLUSTER
/* Nobody is left at the source to decide, and its QEMU does not resume by itself. */
#define src_stands (src_gone && sq == Q_COMPLETED)

/* The guest does not run there and never will: the host is fenced, or its QEMU is gone and nobody there can start it. */
#ifdef MUTATION_SILENCE_IS_DEATH
#define src_out (src_down || !wire)
#else
#define src_out (src_down || sq == Q_DEAD || sq == Q_ENDED || (src_stands && owner == OWNER_DST))
#endif
#ifdef MUTATION_NOT_ASKED
#define dst_out true
#else
#define dst_out (dst_down || (dq == Q_DEAD && (dst_step == DST_NEVER || dst_step == DST_RUNNING || dst_gone)))
#endif

/* A command that was proposed in an older epoch is refused by every member. */
#ifdef MUTATION_EPOCH_UNCHECKED
#define in_epoch(e) true
#else
#define in_epoch(e) (epoch == e)
#endif

#ifdef MUTATION_KEEP_UNORDERED
#define may_commit true
#else
#define may_commit !keep
#endif

inline owner_change(who)
{
	assert(owner != who);
	owner = who;
	epoch++
}

/* The manager and the agents of both hosts: they keep nothing between two steps, so their own death is only a delay. */
active proctype manager()
{
end:	do
	/* Nobody at the destination can be asked any more: the agent looks at its QEMU, which nobody else touches. */
	:: atomic { dst_gone && !dst_down && dq == Q_RUN && dst_step == DST_GO -> dst_step = DST_RUNNING }
	/* Source dead: a loaded destination runs it. */
	:: atomic { src_out && dst_gone && !dst_down && dq == Q_LOADED ->
			dq = Q_RUN; assert(only_dst); dst_step = DST_RUNNING }
	/* Both alive, GO not received: the destination promises never to run it ... */
	:: atomic { src_stands && owner == OWNER_SRC && dst_gone && !dst_down && dq == Q_LOADED ->
			dq = Q_DEAD; dst_step = DST_NEVER }
	:: atomic { dst_gone && !dst_down && dq == Q_INCOMING -> dq = Q_DEAD; dst_step = DST_NEVER }
	/* ... and the source goes on; so it does when the destination is dead. That is a command: a report that comes after it
	 * is refused, and after the report it is. */
	:: atomic { dst_out && owner == OWNER_SRC && !keep -> keep = true }
	:: atomic { src_stands && keep -> sq = Q_RUN; assert(only_src); src_step = SRC_KEPT }
	/* The destination's report, a command that may be applied at any time after it was sent, and twice. */
	:: atomic { dst_step == DST_RUNNING && reports < 2 ->
			reports++;
			if
			:: in_epoch(1) && may_commit -> owner_change(OWNER_DST)
			:: else
			fi }
	/* Both dead: HA proposes a restart, and every member applies that. */
	:: src_out && dst_out && restart_in == 0 && !OTHER_RUNS -> restart_in = epoch
	:: atomic { restart_in != 0 ->
			if
			:: in_epoch(restart_in) ->
				owner_change(OWNER_OTHER);
				hq = Q_RUN;
				assert(sq != Q_RUN && dq != Q_RUN)
			:: else
			fi;
			restart_in = 0 }
	od
}
#endif

/* ---- what must be ---- */

#ifdef CLUSTER
#define ONE ((sq == Q_RUN && dq != Q_RUN && hq != Q_RUN) || (dq == Q_RUN && sq != Q_RUN && hq != Q_RUN) || \
	     (hq == Q_RUN && sq != Q_RUN && dq != Q_RUN))
/* And the replicated state says so. */
#define HOME (ONE && (sq != Q_RUN || owner == OWNER_SRC) && (dq != Q_RUN || owner == OWNER_DST))
#else
#define ONE ((sq == Q_RUN) != (dq == Q_RUN))
/* The guest may be lost with the QEMU that had the only complete copy; it waits for a person after a long cut. */
#define EXCUSED ((sq == Q_DEAD && (other || sq_early)) || dq_home || too_long)
/* A move that never came to GO leaves the guest at its source. */
#define HOME ((ONE || EXCUSED) && (go_said || sq == Q_DEAD || sq == Q_RUN))
#endif

/* Never none for ever: once nothing more is killed and the wire is whole, the guest is where it must be and stays. */
ltl never_none { <> [] calm -> <> [] HOME }
