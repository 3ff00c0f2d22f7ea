/* SPDX-License-Identifier: Apache-2.0 */
/* QEMUs, engines and guards of both sides, and the wire between them.
 *
 * The record is written before a step is taken, and what is written and what is done are different events, so that
 * something can die in between. The runner of a side is its engine, or its guard once the engine is dead.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/move-sim.h"

#define PATIENCE 120 /* turns that a side waits for the other */

/* Write a step down. */
static void record(struct side *s, enum rec r)
{
	s->rec = r;
	sim->go_got |= r == REC_GOT;
	faults_rec(r);
}

enum word { W_REST, W_LOADED, W_GO, W_RUNNING, W_NEVER, W_ASK_GO, W_GIVE_UP };
static const char *const word_names[] = {"the rest", "LOADED",         "GO",          "RUNNING",
					 "NEVER",    "ask: GO stands", "ask: give up"};

/* ---- QEMUs ---- */

void qemu_set(struct host *h, enum qemu q, const char *why)
{
	static const char *const names[] = {"is gone", "runs", "is stopped", "waits", "is complete"};

	if (h->qemu == q)
		return;
	sim_trace("n%d: its QEMU %s (%s)", host_number(h) + 1, names[q], why);
	/* A guest that ran has written to its disks since it was started. */
	if (h->qemu == QEMU_RUNS)
		h->stamp = ++sim->disk;
	if (q == QEMU_RUNS && h->stamp != sim->disk)
		sim_fail("n%d resumes memory that is older than the disks", host_number(h) + 1);
	h->qemu = q;
}

void qemu_start_afresh(struct host *h)
{
	h->stamp = ++sim->disk;
	h->qemu_life++;
	qemu_set(h, QEMU_RUNS, "started afresh");
}

/* ---- the wire ---- */

void wire_break(void)
{
	sim->conn = 0;
}

static void deliver(struct event *ev);

static void say(struct host *from, enum word w)
{
	int to = host_number(from) == SRC ? DST : SRC;
	int copies = 1 + sim_chance(5);

	sim_trace("n%d: says %s", host_number(from) + 1, word_names[w]);
	/* What was sent is on its way, even if the host dies; conn 0 is a connection of its own, for questions. */
	while (copies--)
		sim_at(1 + (int64_t)sim_below(sim_chance(90) ? 5 : 2000), deliver, to, -1, w,
		       w == W_ASK_GO || w == W_GIVE_UP || w == W_NEVER || w == W_RUNNING ? 0 : from->side.conn, NULL);
}

static bool wire_works(void)
{
	return sim->wire && sim->hosts[SRC].up && sim->hosts[DST].up;
}

static bool runs(const struct side *s)
{
	return s->engine || s->guard;
}

/* ---- the destination ---- */

static void dst_never(struct host *h, enum end end)
{
	if (h->qemu == QEMU_INCOMING || h->qemu == QEMU_LOADED)
		qemu_set(h, QEMU_NONE, "the destination gives up");
	record(&h->side, REC_NEVER);
	h->side.end = end;
}

static void dst_hears(struct host *h, enum word w)
{
	struct side *s = &h->side;

	switch (w) {
	case W_REST:
		if (s->rec == REC_PREPARE && s->engine && h->qemu == QEMU_INCOMING && !s->cancel) {
			h->stamp = sim->hosts[SRC].stamp;
			qemu_set(h, QEMU_LOADED, "complete");
			record(s, REC_LOADED);
			say(h, W_LOADED);
		}
		break;
	case W_GO:
	case W_ASK_GO:
		if (s->rec == REC_LOADED && (w == W_ASK_GO || s->engine))
			record(s, REC_GOT);
		else if (s->rec == REC_PREPARE && w == W_ASK_GO)
			dst_never(h, END_FAILED);
		break;
	case W_GIVE_UP:
		if (s->rec == REC_PREPARE || s->rec == REC_LOADED)
			dst_never(h, END_FAILED);
		break;
	default:
		break;
	}
	if (w != W_ASK_GO && w != W_GIVE_UP)
		return;
	if (s->rec == REC_NEVER)
		say(h, W_NEVER);
	else if (s->rec == REC_RUNNING)
		say(h, W_RUNNING);
}

static void dst_turn(struct host *h)
{
	struct side *s = &h->side;

	switch (s->rec) {
	case REC_PREPARE:
	case REC_LOADED:
		if (s->cancel || h->qemu == QEMU_NONE || (!s->engine && s->rec == REC_PREPARE) ||
		    s->patience++ > 3 * PATIENCE || (s->conn && s->conn != sim->conn && s->rec == REC_PREPARE))
			dst_never(h, s->cancel ? END_CANCELLED : END_FAILED);
		break;
	case REC_GOT:
		if (h->qemu == QEMU_LOADED)
			qemu_set(h, QEMU_RUNS, "GO was received");
		record(s, REC_RUNNING);
		s->end = END_MOVED;
		say(h, W_RUNNING);
		break;
	default: /* it stays a while to be asked */
		if (s->patience++ > 4 * PATIENCE)
			s->engine = s->guard = false;
		break;
	}
}

/* ---- the source ---- */

static void src_keeps(struct host *h, enum end end, const char *why)
{
	record(&h->side, REC_KEPT);
	h->side.end = end;
	if (h->qemu == QEMU_STOPPED)
		qemu_set(h, QEMU_RUNS, why);
	say(h, W_GIVE_UP);
}

static void src_hears(struct host *h, enum word w)
{
	struct side *s = &h->side;

	if (w == W_LOADED)
		s->loaded_heard = true;
	if (s->rec != REC_GO)
		return;
	if (w == W_RUNNING) {
		record(s, REC_MOVED);
		s->end = END_MOVED;
	} else if (w == W_NEVER) {
		src_keeps(h, END_FAILED, "the destination never runs it");
	}
}

static void src_copy(struct host *h)
{
	struct side *s = &h->side;
	bool agreed = s->agree == AGREE_YES || sim->o.broken[RULE_AGREE];

	if (s->cancel || s->agree == AGREE_NO)
		src_keeps(h, END_CANCELLED, "cancelled");
	else if (!s->engine || h->qemu != QEMU_RUNS || s->conn != sim->conn)
		src_keeps(h, END_FAILED, "the copy failed");
	else if (s->work < sim->work)
		s->work++;
	else if (!agreed)
		s->wants = true;
	else
		record(s, REC_STOPPED);
}

static void src_stopped(struct host *h)
{
	struct side *s = &h->side;

	if (h->qemu == QEMU_RUNS) {
		qemu_set(h, QEMU_STOPPED, "switchover");
		say(h, W_REST);
	} else if (s->cancel || !s->engine || h->qemu == QEMU_NONE || s->conn != sim->conn ||
		   s->patience++ > PATIENCE) {
		src_keeps(h, s->cancel ? END_CANCELLED : END_FAILED, "before GO");
	} else if (s->loaded_heard) {
		record(s, REC_GO);
		s->patience = 0;
	}
}

static void src_turn(struct host *h)
{
	struct side *s = &h->side;

	switch (s->rec) {
	case REC_COPY:
		src_copy(h);
		break;
	case REC_STOPPED:
		src_stopped(h);
		break;
	case REC_GO:
		if (s->engine && !s->go_out && s->conn == sim->conn)
			say(h, W_GO);
		else if (s->patience % 8 == 0)
			say(h, W_ASK_GO);
		s->go_out = true;
		if (s->patience++ > PATIENCE) {
			s->end = END_UNDECIDED;
			s->engine = s->guard = false;
		}
		break;
	default:
		s->engine = s->guard = false;
		break;
	}
}

/* ---- both ---- */

static void deliver(struct event *ev)
{
	struct host *h = &sim->hosts[ev->host];

	if (!wire_works()) {
		if (ev->b ? ev->b == sim->conn : sim_chance(50)) /* it waits, or is lost */
			sim_at(1000, deliver, ev->host, -1, ev->a, ev->b, NULL);
		return;
	}
	if (ev->b && ev->b != sim->conn)
		return;
	if (!h->side.exists || !runs(&h->side))
		return;
	sim_trace("n%d: hears %s", ev->host + 1, word_names[ev->a]);
	if (ev->host == SRC)
		src_hears(h, (enum word)ev->a);
	else
		dst_hears(h, (enum word)ev->a);
}

static void turn(struct event *ev)
{
	struct host *h = &sim->hosts[ev->host];
	enum end before = h->side.end;

	if (!h->side.exists || !runs(&h->side))
		return;
	if (ev->host == SRC)
		src_turn(h);
	else
		dst_turn(h);
	if (before != h->side.end || h->side.wants)
		daemon_look(h);
	sim_at(20 + (int64_t)sim_below(100), turn, ev->host, h->life, 0, 0, NULL);
}

void engine_start(struct host *h, bool src)
{
	h->side = (struct side){.exists = true, .rec = src ? REC_COPY : REC_PREPARE, .engine = true, .guard = true};
	if (src) {
		if (wire_works() && sim->hosts[DST].side.exists && sim->hosts[DST].side.engine) {
			sim->conn = (int64_t)sim->order++;
			sim->hosts[DST].side.conn = sim->conn;
		}
		h->side.conn = sim->conn ? sim->conn : -1;
	} else {
		qemu_set(h, QEMU_INCOMING, "prepared");
	}
	sim_trace("n%d: an engine begins", host_number(h) + 1);
	faults_rec(h->side.rec);
	sim_at(20, turn, host_number(h), h->life, 0, 0, NULL);
}

void engine_lost(struct host *h)
{
	struct side *s = &h->side;

	switch (s->rec) {
	case REC_COPY:
	case REC_STOPPED:
		record(s, REC_KEPT);
		s->end = END_FAILED;
		if (h->qemu == QEMU_STOPPED)
			qemu_set(h, QEMU_RUNS, "continued by the mover");
		break;
	case REC_GO:
		s->end = END_UNDECIDED;
		break;
	case REC_PREPARE:
	case REC_LOADED:
		dst_never(h, END_FAILED);
		break;
	case REC_GOT:
		if (h->qemu == QEMU_LOADED)
			qemu_set(h, QEMU_RUNS, "continued by the mover");
		record(s, REC_RUNNING);
		s->end = END_MOVED;
		break;
	default:
		s->end = s->rec == REC_MOVED || s->rec == REC_RUNNING ? END_MOVED : END_FAILED;
		break;
	}
}
