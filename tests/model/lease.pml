/* SPDX-License-Identifier: Apache-2.0 */
/* Leases and fencing as a model for spin: may a guest run twice, and is it restarted when its host is gone? */

/*
 * Three hosts: V runs the guest, A manages the cluster, B is the third. V's lease is given by A and B, one of whom makes a
 * majority with V. What is modelled, how to read it and what is left out: README.md beside this file.
 *
 * Time is ticks. Nothing is kept as a date: everything is an age, which a tick makes greater by one, up to where it makes no
 * difference any more. Any number of other things may happen within one tick, in any order. Until `calm`, a message may be
 * delivered at any time, or never: that is loss, delay, a cut in either direction, a stopped daemon and a hung host alike.
 * After it nothing is late any more: a tick waits for what is due.
 *
 * MUTATION_* switch on one mistake each; model-test checks that spin finds every one of them.
 */

#define LEASE 2 /* from the sending of a beat */
#define DOG 1   /* from the end of the lease to the watchdog's bite, at the latest */
#ifdef MUTATION_NO_MARGIN
#define EXPIRE (LEASE + DOG)
#else
#define EXPIRE (LEASE + DOG + 1)
#endif
#define STALE 2 /* a statement of that age is not looked at any more */
#define NONE 15

/* V */
bool guest_v = true; /* its vCPUs run */
byte base = 0;       /* age of the newest beat that was echoed; the lease is over at LEASE. NONE: no lease yet */
bool given = true;   /* V may start guests: the log says so since its last lease ended (node.alive) */
bool beaten;         /* in this tick */
bool off;            /* it has no power */

/* Messages under way. */
byte echo_a = NONE, echo_b = NONE; /* A's and B's echoes of V's beats: the ages of the beats. These are heard at once, or lost */
byte told = NONE; /* B's statement "I have heard nothing of V for EXPIRE": the age of that beat of A which it echoes */

/* What A and B know. */
byte silent_a, silent_b; /* for how long nothing was heard of V */
byte stated = NONE;      /* B's statement, as A has it: the age of its end */
bool stating;            /* in this tick */

/* The replicated state. */
bool owner_b;     /* the guest is B's */
bool guest_b;     /* its vCPUs run there */
byte lost = NONE; /* age of the entry that V is lost; NONE: it is not */

/* The other proofs. */
bool pill, ack; /* on the disk */
bool tried;     /* the power agent, for this entry: it may work, fail, or have died with V */

bool calm;
bool cut; /* with calm: for good. V reaches nobody, and nobody V */

#define leased (base != NONE && base < LEASE)

/* What A can prove: up to some time D, the end of B's statement, both had heard nothing for long enough; and D is later than
 * the entry that V is lost. */
#if defined(MUTATION_ALONE)
#define silence (silent_a >= EXPIRE)
#elif defined(MUTATION_D_UNCHECKED)
#define silence (stated != NONE && silent_a >= EXPIRE + stated)
#else
#define silence (stated != NONE && silent_a >= EXPIRE + stated && lost > stated)
#endif

/* One line each, and the mistake that can be made there. */
#ifdef MUTATION_ARRIVAL
#define COUNTED(echo) 0
#define LATE LEASE /* counts for as much as any */
#else
#define COUNTED(echo) echo
#define LATE NONE /* counts for nothing */
#endif
/* Nothing saves a guest whose lease has ended: keeper_until(). */
#define HEARD(echo) base = (COUNTED(echo) < base && !(guest_v && base >= LEASE) -> COUNTED(echo) : base); echo = NONE
#ifdef MUTATION_STALE
#define END 0
#else
#define END told
#endif
#ifdef MUTATION_GIVEN_KEPT
#define KEPT (!guest_v)
#else
#define KEPT false
#endif
#ifdef MUTATION_NOT_GIVEN
#define MAY_START true
#else
#define MAY_START given
#endif
#ifdef MUTATION_POWER_BELIEVED
#define POWER_FAILED fenced()
#else
#define POWER_FAILED skip
#endif
#ifdef MUTATION_PILL_BELIEVED
#define PILL_WRITTEN ack = true
#else
#define PILL_WRITTEN skip
#endif

/* What must not wait when calm. */
#define returns (!off && !cut && leased && !owner_b && !(given && guest_v))
#define due ((!off && (echo_a != NONE || echo_b != NONE)) || told != NONE || (!off && !cut && !beaten) || returns || (!stating && silent_b >= EXPIRE) || \
	     (!owner_b && lost == NONE && silent_a >= 2) || (lost != NONE && (silence || ack)) || (owner_b && !guest_b))

inline guest_dies()
{
	guest_v = false;
	given = false
}

inline back() /* node.alive: what was begun against V is void */
{
	given = true;
	lost = NONE;
	pill = false;
	ack = false
}

inline fenced() /* node.fenced, and the guest is placed anew */
{
	owner_b = true;
	lost = NONE;
	pill = false;
	ack = false
}

inline lapse() /* the power is gone, or the host is reset */
{
	guest_dies();
	off = true;
	base = NONE;
	echo_a = NONE;
	echo_b = NONE
}

active proctype world()
{
	do
	/* ---- time. The watchdog lets no guest live for longer than that ---- */
	:: d_step { !(guest_v && base >= LEASE + DOG) && !(calm && due) ->
		base = (base < LEASE + DOG -> base + 1 : base);
		given = given && (base < LEASE || KEPT);
		echo_a = (echo_a < LEASE - 1 -> echo_a + 1 : (echo_a == NONE -> NONE : LATE));
		echo_b = (echo_b < LEASE - 1 -> echo_b + 1 : (echo_b == NONE -> NONE : LATE));
		told = (told < STALE -> told + 1 : NONE);
		stated = (stated < STALE -> stated + 1 : NONE);
		silent_a = (silent_a < EXPIRE + STALE -> silent_a + 1 : silent_a);
		silent_b = (silent_b < EXPIRE -> silent_b + 1 : silent_b);
		lost = (lost < STALE + 1 -> lost + 1 : lost);
		beaten = false;
		stating = false }

	/* ---- V beats; both, one or none of the others hears it: lease_beat(), lease_heard() ---- */
	:: d_step { !off && !cut && !beaten -> beaten = true; silent_a = 0; echo_a = 0; silent_b = 0; echo_b = 0 }
	:: d_step { !calm && !off && !beaten -> beaten = true; silent_a = 0; echo_a = 0 }
	:: d_step { !calm && !off && !beaten -> beaten = true; silent_b = 0; echo_b = 0 }

	/* ---- V hears their echoes, or does not ---- */
	:: d_step { !cut && !off && echo_a != NONE -> HEARD(echo_a) }
	:: d_step { !cut && !off && echo_b != NONE -> HEARD(echo_b) }
	:: d_step { (!calm || cut) && echo_a != NONE -> echo_a = NONE }
	:: d_step { (!calm || cut) && echo_b != NONE -> echo_b = NONE }

	/* ---- keeper_advance(): the lease is over, and the guest has ended or was killed ---- */
	:: d_step { guest_v && base >= LEASE -> guest_dies() }

	/* ---- V comes back: first in the log, then its guests ---- */
	:: d_step { !off && !cut && leased && !owner_b && !given -> back() }
	:: d_step { !off && leased && !owner_b && !guest_v && MAY_START -> assert(!guest_b); guest_v = true }

	/* ---- V's power ---- */
	:: d_step { !calm && !off -> lapse() }
	:: d_step { !calm && off -> off = false }

	/* ---- B states, A hears it: silence_take() ---- */
	:: d_step { !stating && silent_b >= EXPIRE -> stating = true; told = 0 }
	:: d_step { told != NONE -> stated = END; told = NONE }
	:: d_step { !calm && told != NONE -> told = NONE }

	/* ---- the daemons of A and B start anew: lease_new() ---- */
	:: d_step { !calm && silent_a > 0 -> silent_a = 0; stated = NONE; told = NONE }
	:: d_step { !calm && silent_b > 0 -> silent_b = 0 }

	/* ---- the manager: node.lost, then the race of the proofs ---- */
	:: d_step { !owner_b && lost == NONE && silent_a > 0 -> lost = 0; tried = false }
#ifndef MUTATION_WAIT_FOR_POWER
	:: d_step { lost != NONE && silence -> fenced() }
	:: d_step { lost != NONE && ack -> fenced() }
#endif
	:: d_step { !calm && lost != NONE && !tried -> tried = true; lapse(); fenced() } /* it worked */
	:: d_step { lost != NONE && !tried -> tried = true; POWER_FAILED }
	:: d_step { !calm && lost != NONE && !pill -> pill = true; PILL_WRITTEN }
	:: d_step { pill && !ack && !off -> guest_dies(); ack = true }

	/* ---- the agent of B ---- */
	:: d_step { owner_b && !guest_b -> assert(!guest_v); guest_b = true }

	/* ---- the faults end ---- */
	:: d_step { !calm -> calm = true }
	:: d_step { !calm -> calm = true; cut = true }
	od
}

/* Once nothing more goes wrong the guest runs, and goes on. */
ltl never_none { (<> calm) -> (<> [] (guest_v || guest_b)) }
