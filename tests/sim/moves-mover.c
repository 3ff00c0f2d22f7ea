/* SPDX-License-Identifier: Apache-2.0 */
/* In the simulator of moves: the mover of node/mover.h with both engines and their guards, by the tables of
 * docs/migration.md, and QEMU.
 *
 * Theory of operation
 * -------------------
 * A side is what the mover's folder, the engine and the guard know of one move on one host. Messages between the two
 * engines take a moment and are lost where the wire is cut; whoever is connected notices the other's end. An engine
 * that dies leaves the rest to its guard, which acts by the record; where both are dead, the mover does, once its
 * daemon is there. The source asks what became of its GO; the destination answers as long as one of its processes is
 * there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "tests/sim/moves-sim.h"

#define PATIENCE_MIN 1000 /* ms, of --settle */
#define PATIENCE_MAX 20000
#define ASK_EVERY (200 * NS_PER_MS)
#define AGREE_PATIENCE (300 * NS_PER_MS) /* with the guest stopped */

struct mover {
	struct host *h;
	struct mover_calls calls;
	void *arg;
};

static const char *const step_names[] = {"starting", "opening", "copying", "ending", "ended"};

static struct side *side_find(struct host *h, const char *id)
{
	for (size_t i = 0; i < SIDES; i++)
		if (h->sides[i].used && !strcmp(h->sides[i].id, id))
			return &h->sides[i];
	return NULL;
}

static struct side *side_of_event(const struct event *ev)
{
	struct side *s = &ev->h->sides[ev->k % SIDES];

	return s->used && s->gen == ev->k / SIDES ? s : NULL;
}

static void side_at(int64_t delay_ns, void (*fn)(struct event *ev), struct host *h, struct side *s)
{
	msim_at(delay_ns, fn, h, false, s->gen * SIDES + (unsigned)(s - h->sides), NULL);
}

static struct side *peer_of(struct host *h, struct side *s, struct host **ret)
{
	(void)h;
	*ret = &msim->hosts[s->peer];
	return (*ret)->power ? side_find(*ret, s->id) : NULL;
}

/* ---- QEMU ---- */

static void qemu_runs(struct host *h, const char *why)
{
	struct qemu *q = &h->qemu;

	msim_trace(h, "the guest runs (%s)", why);
	if (!q->exists || q->status == VM_STATUS_GONE)
		msim_fail("%s: a QEMU that is not there was told to run", h->d.identity.node);
	q->runs = true;
	q->status = VM_STATUS_RUNNING;
	q->seen = ++msim->ran;
	msim_point();
}

/* Continue memory that is here: nobody may have run the guest since. */
static void qemu_resume(struct host *h, const char *why)
{
	if (h->qemu.seen != msim->ran)
		msim_fail("%s resumes memory that is older than the disks", h->d.identity.node);
	qemu_runs(h, why);
}

void msim_qemu_start(struct host *h, int64_t epoch)
{
	h->qemu = (struct qemu){.exists = true, .epoch = epoch, .pid = ++msim->pids};
	msim->starts++;
	qemu_runs(h, "started from its disks");
}

void msim_qemu_remove(struct host *h)
{
	msim_trace(h, "QEMU is ended");
	h->qemu = (struct qemu){0};
}

static void qemu_stop(struct host *h)
{
	h->qemu.runs = false;
	h->qemu.status = VM_STATUS_PAUSED;
	msim_point();
}

/* ---- what the mover tells ---- */

static void tell(struct event *ev)
{
	struct mover *m = ev->h->d.mover;
	struct side *s = side_of_event(ev);

	if (!s || !m)
		return;
	if (s->tell_listening) {
		s->tell_listening = false;
		m->calls.listening(m->arg, s->id, "10.0.0.1:1", "token");
	} else if (s->tell_agree) {
		s->tell_agree = false;
		m->calls.agree(m->arg, s->id);
	} else if (s->tell_answer) {
		s->tell_answer = false;
		m->calls.answer(m->arg, s->id, s->role, s->answer);
	} else if (s->tell_ended) {
		s->tell_ended = false;
		m->calls.ended(m->arg, s->id, s->role, s->end, "it ended", NULL);
	}
	s = side_of_event(ev);
	if (s && (s->tell_listening || s->tell_agree || s->tell_answer || s->tell_ended))
		msim_at(0, tell, ev->h, true, ev->k, NULL);
}

static void tell_soon(struct host *h, struct side *s)
{
	if (h->up)
		msim_at(msim_between(0, 5), tell, h, true, s->gen * SIDES + (unsigned)(s - h->sides), NULL);
}

/* ---- the end of a side ---- */

static void consider(struct host *h, struct side *s);

static void act(struct event *ev)
{
	struct host *h = ev->h;
	struct side *s = side_of_event(ev);
	bool ours;

	if (!s || s->step != ENDING)
		return;
	ours = h->qemu.exists && h->qemu.pid == s->pid;
	if (ours && s->kill)
		msim_qemu_remove(h);
	if (ours && s->resume && h->qemu.status != VM_STATUS_GONE && !h->qemu.runs)
		qemu_resume(h, "by the mover");
	s->step = ENDED;
	s->tell_ended = true;
	msim_trace(h, "%s ended: %s", mover_role_names[s->role], mover_end_names[s->end]);
	if (s->asked)
		consider(h, s);
	tell_soon(h, s);
}

static void finish(struct host *h, struct side *s, enum mover_end end, bool kill, bool resume)
{
	s->step = ENDING;
	s->end = end;
	s->kill = kill;
	s->resume = resume;
	side_at(kill || resume ? msim_between(5, 80) : 0, act, h, s);
}

static void conclude_src(struct host *h, struct side *s)
{
	bool between = s->record == SRC_SHUT || s->record == SRC_RELEASED;

	if (s->result == 'm' || s->record == SRC_MOVED)
		finish(h, s, MOVER_MOVED, true, false);
	else if (s->result == 'u' || (s->record == SRC_GO && s->result == 0))
		finish(h, s, MOVER_UNDECIDED, false, false);
	else
		finish(h, s, s->result == 'c' || (!s->result && s->cancelled) ? MOVER_CANCELLED : MOVER_FAILED, false,
		       between);
}

static void conclude_dst(struct host *h, struct side *s)
{
	if (s->result == 'm' || s->record == DST_RUNNING)
		finish(h, s, MOVER_MOVED, false, false);
	else if (s->result == 0 && s->record == DST_GO)
		finish(h, s, MOVER_MOVED, false, true);
	else
		finish(h, s, s->result == 'c' || (!s->result && s->cancelled) ? MOVER_CANCELLED : MOVER_FAILED, true,
		       false);
}

void msim_mover_look(struct host *h)
{
	for (size_t i = 0; h->up && i < SIDES; i++) {
		struct side *s = &h->sides[i];

		if (s->used && !s->engine && !s->guard && (s->step == OPENING || s->step == COPYING)) {
			if (s->role == MOVER_SRC)
				conclude_src(h, s);
			else
				conclude_dst(h, s);
		}
		if (s->used && s->asked && s->step != ENDED)
			consider(h, s);
	}
}

/* The engine (or its guard) says its result and ends. */
static void result(struct host *h, struct side *s, char r)
{
	s->result = r;
	s->engine = s->guard = s->connected = false;
	msim_wire_changed();
	msim_mover_look(h);
}

/* ---- messages ---- */

static bool wire_open(const struct host *a, unsigned b)
{
	return a->power && msim->hosts[b].power && !msim->wire_cut[a->n][b];
}

static void record(struct host *h, struct side *s, int step)
{
	s->record = step;
	msim_trace(h, "%s record: %s", mover_role_names[s->role],
		   s->role == MOVER_SRC ? src_step_name((enum src_step)step) : dst_step_name((enum dst_step)step));
	msim_point();
}

/* Deliver to the other side of @s by calling @fn there. */
static void send(struct host *h, struct side *s, void (*fn)(struct event *ev))
{
	struct host *to;
	struct side *other = peer_of(h, s, &to);

	if (other && wire_open(h, s->peer))
		side_at(msim_between(0, msim_below(10) ? 3 : 200), fn, to, other);
}

/* Of a message: the side it is for, if it can still come through. */
static struct side *received(struct event *ev)
{
	struct side *s = side_of_event(ev);

	return s && (s->engine || s->guard) && wire_open(ev->h, s->peer) ? s : NULL;
}

/* ---- source ---- */

static void src_settle(struct host *h, struct side *s);

static bool src_qemu_lives(const struct host *h, const struct side *s)
{
	return h->qemu.exists && h->qemu.status != VM_STATUS_GONE && h->qemu.pid == s->pid;
}

static void dst_given_up(struct event *ev);

/* The guest stays: nothing was sent, or the destination promised. */
static void src_keep(struct host *h, struct side *s, char why)
{
	if (src_qemu_lives(h, s) && !h->qemu.runs)
		qemu_resume(h, "the source goes on");
	record(h, s, SRC_KEPT);
	send(h, s, dst_given_up);
	result(h, s, why);
}

/* DONE: it need not stay to be asked. */
static void dst_done(struct event *ev)
{
	struct side *s = received(ev);

	if (s && s->role == MOVER_DST && s->record == DST_RUNNING)
		result(ev->h, s, 'm');
}

static void src_moved(struct event *ev)
{
	struct side *s = received(ev);

	if (!s || s->role != MOVER_SRC || s->record != SRC_GO)
		return;
	record(ev->h, s, SRC_MOVED);
	send(ev->h, s, dst_done);
	result(ev->h, s, 'm');
}

static void src_denied(struct event *ev)
{
	struct side *s = received(ev);

	if (s && s->role == MOVER_SRC && s->record == SRC_GO)
		src_keep(ev->h, s, 'f');
}

static void dst_asked(struct event *ev);

static void src_ask(struct event *ev)
{
	struct side *s = side_of_event(ev);

	if (!s || s->record != SRC_GO || (!s->engine && !s->guard))
		return;
	if (msim->o.broken == BREAK_GO) {
		src_keep(ev->h, s, 'f');
	} else if (msim->now > s->patience) {
		result(ev->h, s, 'u');
	} else {
		send(ev->h, s, dst_asked);
		side_at(ASK_EVERY, src_ask, ev->h, s);
	}
}

/* The connection is gone, or our engine: end it by the record. */
static void src_settle(struct host *h, struct side *s)
{
	s->connected = false;
	if (s->settling || s->record >= SRC_MOVED)
		return;
	if (s->record < SRC_GO) {
		src_keep(h, s, s->cancelled ? 'c' : 'f');
		return;
	}
	s->settling = true;
	s->patience = msim->now + msim_between(PATIENCE_MIN, PATIENCE_MAX);
	src_ask(&(struct event){.h = h, .k = s->gen * SIDES + (unsigned)(s - h->sides)});
}

static void dst_go(struct event *ev);

static void src_go(struct event *ev)
{
	struct side *s = side_of_event(ev);

	if (!s || s->record != SRC_RELEASED || !s->engine)
		return;
	if (s->agree != 'y' && msim->o.broken != BREAK_AGREE) {
		if (s->agree == 'n' || msim->now > s->patience)
			src_keep(ev->h, s, s->agree == 'n' ? 'c' : 'f');
		else
			side_at(5 * NS_PER_MS, src_go, ev->h, s);
		return;
	}
	record(ev->h, s, SRC_GO);
	send(ev->h, s, dst_go);
}

static void src_released(struct event *ev)
{
	struct side *s = side_of_event(ev);

	if (!s || s->record != SRC_SHUT || !s->engine)
		return;
	record(ev->h, s, SRC_RELEASED);
	if (src_qemu_lives(ev->h, s))
		ev->h->qemu.status = VM_STATUS_MIGRATED;
	s->patience = msim->now + AGREE_PATIENCE;
	side_at(msim_between(0, 2), src_go, ev->h, s);
}

static void src_loaded(struct event *ev)
{
	struct side *s = received(ev);

	if (!s || s->record != SRC_STOPPED || !s->engine || !s->connected)
		return;
	record(ev->h, s, SRC_SHUT);
	side_at(msim_between(0, 2), src_released, ev->h, s);
}

static void dst_state(struct event *ev);

static void src_stop(struct event *ev)
{
	struct side *s = side_of_event(ev);

	if (!s || s->record != SRC_COPY || !s->engine || !s->connected)
		return;
	/* QEMU alone says when; mostly after the agreement. */
	if (s->agree != 'y' && msim_below(20)) {
		side_at(20 * NS_PER_MS, src_stop, ev->h, s);
		return;
	}
	if (!src_qemu_lives(ev->h, s)) {
		src_keep(ev->h, s, 'f');
		return;
	}
	record(ev->h, s, SRC_STOPPED);
	qemu_stop(ev->h);
	send(ev->h, s, dst_state);
}

static void src_ready(struct event *ev)
{
	struct side *s = side_of_event(ev);

	if (!s || !s->engine || !s->connected || s->record != SRC_COPY)
		return;
	msim_trace(ev->h, "engine asks for the agreement");
	s->ready = true;
	s->tell_agree = !s->agree;
	tell_soon(ev->h, s);
	side_at(msim_between(0, 40), src_stop, ev->h, s);
	msim_point();
}

static void src_connect(struct event *ev)
{
	struct side *s = side_of_event(ev), *other;
	struct host *to;

	if (!s || !s->engine || s->record != SRC_COPY)
		return;
	if (!ev->h->qemu.runs) { /* QEMU refuses: it is stopped after an earlier move whose end nobody knows yet */
		result(ev->h, s, 'f');
		return;
	}
	other = peer_of(ev->h, s, &to);
	if (!other || !other->engine || !other->listening || other->record != DST_PREPARE ||
	    !wire_open(ev->h, s->peer)) {
		src_keep(ev->h, s, 'f');
		return;
	}
	s->connected = other->connected = true;
	side_at(msim_between(10, 3000), src_ready, ev->h, s);
}

/* ---- destination ---- */

static void dst_never(struct host *h, struct side *s, char why)
{
	record(h, s, DST_NEVER);
	if (h->qemu.exists && h->qemu.pid == s->pid)
		msim_qemu_remove(h);
	send(h, s, src_denied);
	/* It stays to be asked until the source goes on, or patience ends. */
	s->result = why;
}

static void dst_take(struct host *h, struct side *s);

/* Patience is over: whoever did not ask by now gets no answer. */
static void dst_over(struct event *ev)
{
	struct side *s = side_of_event(ev);

	if (!s || (!s->engine && !s->guard) || s->step > COPYING)
		return;
	if (s->record == DST_LOADED && msim->o.broken == BREAK_LOADED) {
		dst_take(ev->h, s);
		return;
	}
	if (s->record < DST_GO)
		dst_never(ev->h, s, 'f');
	result(ev->h, s, s->record == DST_RUNNING ? 'm' : s->result);
}

static void dst_stay(struct host *h, struct side *s)
{
	side_at(msim_between(PATIENCE_MIN, PATIENCE_MAX), dst_over, h, s);
}

static void dst_run(struct event *ev)
{
	struct host *h = ev->h;
	struct side *s = side_of_event(ev);

	if (!s || s->record != DST_GO || (!s->engine && !s->guard))
		return;
	if (!h->qemu.exists || h->qemu.pid != s->pid || h->qemu.status == VM_STATUS_GONE) {
		dst_never(h, s, 'f');
		dst_stay(h, s);
		return;
	}
	qemu_resume(h, "GO");
	record(h, s, DST_RUNNING);
	send(h, s, src_moved);
	dst_stay(h, s);
}

static void dst_take(struct host *h, struct side *s)
{
	record(h, s, DST_GO);
	side_at(msim_between(0, 1), dst_run, h, s);
}

static void dst_go(struct event *ev)
{
	struct side *s = received(ev);

	if (!s || s->role != MOVER_DST || !s->connected || !s->engine)
		return;
	if (s->record == DST_LOADED)
		dst_take(ev->h, s);
}

/* "GO stands", on a connection of its own. */
static void dst_asked(struct event *ev)
{
	struct side *s = received(ev);

	if (!s || s->role != MOVER_DST)
		return;
	if (s->record == DST_LOADED)
		dst_take(ev->h, s);
	else if (s->record == DST_RUNNING)
		send(ev->h, s, src_moved);
	else if (s->record == DST_NEVER)
		send(ev->h, s, src_denied);
}

/* "Give up", or: the source goes on. */
static void dst_given_up(struct event *ev)
{
	struct side *s = received(ev);

	if (!s || s->role != MOVER_DST || s->record == DST_GO || s->record == DST_RUNNING)
		return;
	if (s->record != DST_NEVER)
		dst_never(ev->h, s, 'f');
	result(ev->h, s, s->result);
}

static void dst_state(struct event *ev)
{
	struct host *h = ev->h, *from;
	struct side *s = received(ev), *other;

	if (!s || s->role != MOVER_DST || !s->connected || !s->engine || s->record != DST_PREPARE)
		return;
	other = peer_of(h, s, &from);
	if (!other || h->qemu.status != VM_STATUS_INCOMING || h->qemu.pid != s->pid)
		return;
	h->qemu.seen = from->qemu.seen;
	record(h, s, DST_LOADED);
	send(h, s, src_loaded);
}

static void dst_settle(struct host *h, struct side *s)
{
	s->connected = false;
	if (s->settling || s->record >= DST_RUNNING)
		return;
	if (s->record == DST_PREPARE) {
		dst_never(h, s, s->cancelled ? 'c' : 'f');
		result(h, s, s->result);
	} else if (s->record == DST_LOADED) {
		s->settling = true;
		dst_stay(h, s);
	} else {
		dst_run(&(struct event){.h = h, .k = s->gen * SIDES + (unsigned)(s - h->sides)});
	}
}

/* ---- deaths ---- */

static void settle(struct event *ev)
{
	struct side *s = side_of_event(ev);

	if (!s || (!s->engine && !s->guard))
		return;
	if (s->role == MOVER_SRC)
		src_settle(ev->h, s);
	else
		dst_settle(ev->h, s);
}

void msim_engine_kill(struct host *h, struct side *s, bool guard)
{
	s->engine = s->connected = false;
	s->guard = s->guard && !guard;
	msim_trace(h, "the %s's engine is dead%s", mover_role_names[s->role], guard ? ", its guard too" : "");
	/* QEMU fails its migration and goes on by itself. */
	if (s->role == MOVER_SRC && s->record == SRC_STOPPED && src_qemu_lives(h, s))
		qemu_resume(h, "QEMU by itself");
	if (s->guard)
		side_at(msim_between(5, 100), settle, h, s);
	else
		msim_mover_look(h);
	msim_wire_changed();
}

/* Whoever is connected to somebody who is not there any more notices it, after a while. */
void msim_wire_changed(void)
{
	for (unsigned i = 1; i <= HOSTS; i++)
		for (size_t k = 0; k < SIDES; k++) {
			struct host *h = &msim->hosts[i], *to;
			struct side *s = &h->sides[k], *other;

			if (!s->used || !s->connected)
				continue;
			other = peer_of(h, s, &to);
			if (wire_open(h, s->peer) && other && other->connected)
				continue;
			s->connected = false;
			side_at(wire_open(h, s->peer) ? msim_between(0, 20) : msim_between(500, 3000), settle, h, s);
		}
}

void msim_qemu_die(struct host *h)
{
	if (!h->qemu.exists || h->qemu.status == VM_STATUS_GONE)
		return;
	msim->losses++;
	h->qemu.runs = false;
	h->qemu.status = VM_STATUS_GONE;
	for (size_t i = 0; i < SIDES; i++) {
		struct side *s = &h->sides[i];

		if (!s->used || !s->engine || s->pid != h->qemu.pid)
			continue;
		/* Nobody else can run it now: a destination that is complete gets it. */
		if (s->role == MOVER_SRC && s->record > SRC_COPY && s->record < SRC_GO && s->agree == 'y' &&
		    s->connected) {
			record(h, s, SRC_GO);
			send(h, s, dst_go);
		} else {
			side_at(msim_between(0, 50), settle, h, s);
		}
	}
	msim_agent_soon(h);
}

/* ---- the mover ---- */

int mover_new(struct loop *l, const struct mover_options *opt, const struct mover_calls *calls, void *arg,
	      struct mover **ret, struct err *e)
{
	struct mover *m = xcalloc(1, sizeof(*m));
	struct host *h = (void *)l;

	(void)opt, (void)e;
	*m = (struct mover){.h = h, .calls = *calls, .arg = arg};
	*ret = m;
	h->d.mover = m;
	for (size_t i = 0; i < SIDES; i++) {
		struct side *s = &h->sides[i];

		if (!s->used)
			continue;
		s->tell_listening = s->listening && s->step == COPYING;
		s->tell_agree = s->ready && !s->agree && s->step == COPYING;
		s->tell_ended = s->step == ENDED;
		s->asked = s->tell_answer = false;
		tell_soon(h, s);
	}
	msim_mover_look(h);
	return 0;
}

void mover_free(struct mover *m)
{
	free(m);
}

static struct side *side_new(struct host *h, const char *id, enum mover_role role, unsigned peer, int64_t epoch,
			     struct err *e)
{
	struct side *s = NULL;
	uint32_t gen;

	if (side_find(h, id)) {
		err_set(e, ERR_CONFLICT, "migration %s is known here already", id);
		return NULL;
	}
	for (size_t i = 0; i < SIDES && !s; i++)
		s = h->sides[i].used ? NULL : &h->sides[i];
	if (!s) {
		msim_fail("%s has too many moves", h->d.identity.node);
		return NULL;
	}
	gen = s->gen + 1;
	*s = (struct side){.used = true, .gen = gen, .role = role, .peer = peer, .epoch = epoch};
	snprintf(s->id, sizeof(s->id), "%s", id);
	return s;
}

static void dst_listen(struct event *ev)
{
	struct side *s = side_of_event(ev);

	if (!s || !s->engine || s->step != OPENING)
		return;
	s->listening = true;
	s->step = COPYING;
	s->tell_listening = true;
	tell_soon(ev->h, s);
	/* A source that never comes. */
	dst_stay(ev->h, s);
}

static void dst_started(struct event *ev)
{
	struct host *h = ev->h;
	struct side *s = side_of_event(ev);

	if (!s || s->step != STARTING)
		return;
	if (!h->up) { /* the next daemon finds that godwit-vm has ended */
		side_at(200 * NS_PER_MS, dst_started, h, s);
		return;
	}
	if (s->cancelled || h->qemu.exists) {
		finish(h, s, s->cancelled ? MOVER_CANCELLED : MOVER_FAILED, false, false);
		return;
	}
	s->pid = ++msim->pids;
	h->qemu = (struct qemu){.exists = true, .epoch = s->epoch, .pid = s->pid, .status = VM_STATUS_INCOMING};
	s->engine = s->guard = true;
	s->step = OPENING;
	s->record = DST_PREPARE;
	side_at(msim_between(1, 20), dst_listen, h, s);
}

static unsigned other_side(struct host *h, const char *id, const char *field)
{
	json_t *o = state_migration_get(h->db, id, NULL);
	const char *node = json_string_value(json_object_get(o, field));
	unsigned n = node ? (unsigned)(node[1] - '0') : h->n;

	json_decref(o);
	return n;
}

int mover_receive(struct mover *m, const struct mover_receive_options *o, struct err *e)
{
	struct side *s = side_new(m->h, o->id, MOVER_DST, other_side(m->h, o->id, "src"), o->epoch, e);

	if (!s)
		return -1;
	side_at(msim_between(20, 300), dst_started, m->h, s);
	return 0;
}

int mover_send(struct mover *m, const struct mover_send_options *o, struct err *e)
{
	struct host *h = m->h;
	struct side *s;

	if (!h->qemu.exists || h->qemu.status == VM_STATUS_GONE)
		return err_set(e, ERR_NOTFOUND, "the guest is not here");
	s = side_new(h, o->id, MOVER_SRC, other_side(h, o->id, "dst"), h->qemu.epoch, e);
	if (!s)
		return -1;
	s->step = COPYING;
	s->pid = h->qemu.pid;
	s->record = SRC_COPY;
	s->engine = s->guard = true;
	side_at(msim_between(1, 20), src_connect, h, s);
	return 0;
}

static void cancel(struct host *h, struct side *s)
{
	if (s->step > COPYING || s->cancelled)
		return;
	s->cancelled = true;
	if (!s->engine)
		return;
	if (s->role == MOVER_SRC ? s->record < SRC_SHUT : s->record == DST_PREPARE)
		side_at(msim_between(0, 20), settle, h, s);
}

void mover_cancel(struct mover *m, const char *id)
{
	struct side *s = side_find(m->h, id);

	if (s)
		cancel(m->h, s);
}

static void agree(struct host *h, struct side *s, bool yes)
{
	if (s->agree)
		return;
	s->agree = yes ? 'y' : 'n';
	if (!yes)
		cancel(h, s);
}

void mover_agree(struct mover *m, const char *id, bool yes)
{
	struct side *s = side_find(m->h, id);

	if (s && s->role == MOVER_SRC && s->step == COPYING)
		agree(m->h, s, yes);
}

/* What the side answers to the question whether GO was sent, or received. A promise that is not true yet is made true
 * first. */
static void consider(struct host *h, struct side *s)
{
	enum move_answer a = MOVE_NOT_ASKED;

	if (s->role == MOVER_SRC && s->step == COPYING)
		agree(h, s, false);
	if (s->step == ENDED)
		a = s->end == MOVER_MOVED || s->end == MOVER_UNDECIDED ? MOVE_YES : MOVE_NO;
	else if (s->step == STARTING || (s->role == MOVER_SRC && s->agree == 'n'))
		a = MOVE_NO;
	else if (s->role == MOVER_SRC)
		a = s->record == SRC_GO || s->record == SRC_MOVED ? MOVE_YES
		    : s->record == SRC_KEPT                       ? MOVE_NO
								  : MOVE_NOT_ASKED;
	else
		a = s->record == DST_GO || s->record == DST_RUNNING ? MOVE_YES
		    : s->record == DST_NEVER                        ? MOVE_NO
								    : MOVE_NOT_ASKED;
	if (a == MOVE_NOT_ASKED) {
		/* It is asked to end; one that stands still is killed, and its guard settles. */
		if (!s->cancelled)
			cancel(h, s);
		else if (s->engine)
			msim_engine_kill(h, s, false);
		return;
	}
	if (a == MOVE_NO)
		cancel(h, s);
	s->asked = false;
	s->answer = a;
	s->tell_answer = true;
	tell_soon(h, s);
}

static void tell_unknown(struct event *ev)
{
	struct mover *m = ev->h->d.mover;

	if (m)
		m->calls.answer(m->arg, ev->p, (enum mover_role)ev->k, MOVE_YES);
}

void mover_ask(struct mover *m, const char *id, enum mover_role role)
{
	struct side *s = side_find(m->h, id);

	if (s && s->role == role) {
		s->asked = true;
		consider(m->h, s);
		return;
	}
	msim_at(0, tell_unknown, m->h, true, role, xstrdup(id));
}

int mover_settle(struct mover *m, const char *id, bool here, struct err *e)
{
	struct side *s = side_find(m->h, id);

	if (!s || s->step != ENDED || s->end != MOVER_UNDECIDED)
		return err_set(e, ERR_CONFLICT, "migration %s is not undecided here", id);
	msim_trace(m->h, "settled: %s", here ? "the guest is here" : "it is not");
	finish(m->h, s, here ? MOVER_FAILED : MOVER_MOVED, !here, here);
	return 0;
}

int mover_forget(struct mover *m, const char *id, struct err *e)
{
	struct side *s = side_find(m->h, id);

	if (!s)
		return 0;
	if (s->step != ENDED)
		return err_set(e, ERR_CONFLICT, "migration %s has not ended here", id);
	s->used = false;
	return 0;
}

json_t *mover_list(const struct mover *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < SIDES; i++) {
		const struct side *s = &m->h->sides[i];

		if (s->used)
			json_array_append_new(list,
					      json_pack("{s:s, s:s, s:s, s:s?}", "id", s->id, "role",
							mover_role_names[s->role], "step", step_names[s->step], "end",
							s->step == ENDED ? mover_end_names[s->end] : NULL));
	}
	return list;
}

json_t *mover_definition(const struct mover *m, const char *vm, struct err *e)
{
	if (m->h->qemu.exists && m->h->qemu.status != VM_STATUS_GONE)
		return json_pack("{s:s}", "name", vm);
	err_set(e, ERR_NOTFOUND, "guest %s is not here", vm);
	return NULL;
}

const char *const mover_role_names[MOVER_ROLE_MAX] = {"src", "dst"};
const char *const mover_end_names[MOVER_END_MAX] = {"moved", "failed", "cancelled", "undecided"};
