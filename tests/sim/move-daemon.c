/* SPDX-License-Identifier: Apache-2.0 */
/* What a daemon does for the move: its side, the manager where it leads, the agent. After node/moves.c.
 *
 * The manager here does all that cluster/move.c asks for: it asks both sides, fences who is away for too long, and
 * takes a host that was started anew since for what it is to this move: confirmed dead. Such a host cannot answer: "GO
 * may have been received" would make the manager commit a move that never was, while a living source runs the guest.
 */
#include <string.h>

#include "tests/sim/move-sim.h"

#define AWAY 15000 /* ms */
#define FENCE 25000
#define SLOW 20000
#define PROPOSE_AGAIN 2000
#define ASK_AGAIN 3000

enum said { SAID_NO, SAID_YES, SAID_ANEW, SAID_LATER };

/* ---- the mover ---- */

static bool side_runs(const struct side *s)
{
	return s->engine || s->guard;
}

/* Was GO sent, or received? NO is a promise, which is brought about where it is open. */
static enum said mover_ask(struct host *h)
{
	struct side *s = &h->side;

	if (!s->exists)
		return SAID_ANEW;
	switch (s->rec) {
	case REC_GO:
	case REC_MOVED:
	case REC_GOT:
	case REC_RUNNING:
		return SAID_YES;
	case REC_KEPT:
	case REC_NEVER:
		return SAID_NO;
	case REC_COPY:
		if (s->agree != AGREE_YES) {
			s->agree = AGREE_NO;
			return SAID_NO;
		}
		break;
	default:
		break;
	}
	if (sim->o.broken[RULE_PROMISE])
		return SAID_NO;
	s->cancel = true;
	return SAID_LATER;
}

static void mover_settle(struct host *h, bool here)
{
	struct side *s = &h->side;

	s->rec = here ? REC_KEPT : REC_MOVED;
	s->end = here ? END_FAILED : END_MOVED;
	if (h->qemu == QEMU_STOPPED)
		qemu_set(h, here ? QEMU_RUNS : QEMU_NONE, "settled");
}

/* What is left on the side that does not have the guest goes. */
static void mover_forget(struct host *h)
{
	bool src = host_number(h) == SRC, moved = h->side.end == END_MOVED;

	if (src == moved && h->qemu != QEMU_NONE && h->qemu != QEMU_RUNS)
		qemu_set(h, QEMU_NONE, "forgotten");
	h->side.exists = false;
}

/* The move has taken the step of @r: whether nothing of it is left here. */
static bool tidied(struct host *h, const struct row *r)
{
	struct side *s = &h->side;
	bool moved = move_step_dst_owns(r->step) || (r->restart && !sim->o.broken[RULE_RESTART]);

	if (!s->exists)
		return true;
	if (s->end == END_UNDECIDED)
		mover_settle(h, !moved);
	else if (s->end == END_NONE && !move_step_dst_owns(r->step))
		s->cancel = true;
	if (s->end == END_NONE)
		return false;
	mover_forget(h);
	return true;
}

/* ---- proposals ---- */

static void step(struct host *h, enum move_step to, enum move_role role, bool restart)
{
	if (h->proposed == to && sim->now - h->proposed_at < PROPOSE_AGAIN)
		return;
	h->proposed = to;
	h->proposed_at = sim->now;
	order_propose(h, to, role, restart);
}

void daemon_acked(struct host *h, enum move_step s, bool refused)
{
	if (refused && s == MOVE_AGREED && h->side.exists && h->side.agree == AGREE_NONE)
		h->side.agree = AGREE_NO;
}

/* ---- the source ---- */

static void src_ended(struct host *h, const struct row *r)
{
	switch (h->side.end) {
	case END_MOVED:
		if (r->step == MOVE_AGREED)
			step(h, MOVE_HANDED_OVER, MOVE_SRC, false);
		break;
	case END_CANCELLED:
		step(h, move_step_cancels(r->step) ? MOVE_CANCELLED : MOVE_FAILED, MOVE_SRC, false);
		break;
	case END_FAILED:
		step(h, MOVE_FAILED, MOVE_SRC, false);
		break;
	default:
		if (r->step != MOVE_UNDECIDED)
			step(h, MOVE_UNDECIDED, MOVE_SRC, false);
		break;
	}
}

static void src_look(struct host *h, const struct row *r)
{
	struct side *s = &h->side;
	bool cancel = r->cancel && move_step_cancels(r->step);

	if (cancel && s->exists)
		s->cancel = true;
	else if (cancel)
		step(h, MOVE_CANCELLED, MOVE_SRC, false);
	else if (r->step == MOVE_CHECKING)
		step(h, h->qemu == QEMU_RUNS ? MOVE_PREPARING : MOVE_FAILED, MOVE_SRC, false);
	else if (r->step == MOVE_COPYING && !s->exists && h->qemu == QEMU_RUNS)
		engine_start(h, true);
	else if (r->step == MOVE_COPYING && !s->exists)
		step(h, MOVE_FAILED, MOVE_SRC, false);
	else if (r->step == MOVE_AGREED && s->exists && s->agree == AGREE_NONE)
		s->agree = AGREE_YES;
	else if (r->step == MOVE_COMMITTED)
		step(h, MOVE_CLEANING, MOVE_SRC, false);
	else if (r->step == MOVE_CLEANING && tidied(h, r))
		step(h, MOVE_DONE, MOVE_SRC, false);
	if (!s->exists)
		return;
	if (r->step == MOVE_COPYING && !cancel && s->wants && s->end == END_NONE)
		step(h, MOVE_AGREED, MOVE_SRC, false);
	if (s->end != END_NONE && (r->step == MOVE_COPYING || move_step_may_hang(r->step)))
		src_ended(h, r);
}

/* ---- the destination ---- */

static void dst_look(struct host *h, const struct row *r)
{
	struct side *s = &h->side;

	if (r->step == MOVE_PREPARING && !r->cancel && !s->exists && h->qemu == QEMU_NONE)
		engine_start(h, false);
	if (r->step == MOVE_PREPARING && s->exists && s->end == END_NONE)
		step(h, MOVE_COPYING, MOVE_DST, false);
	if (s->exists && s->end != END_NONE && r->step >= MOVE_PREPARING && !move_step_dst_owns(r->step))
		step(h, s->end == END_MOVED ? MOVE_COMMITTED : MOVE_FAILED, MOVE_DST, false);
}

/* ---- the manager ---- */

static enum move_life life(struct host *m, int host)
{
	const struct host *h = &sim->hosts[host];

	if (sim->fenced[host] || m->anew[host])
		return MOVE_FENCED;
	if (h == m || (host_reachable(h) && h->daemon))
		m->seen_at[host] = sim->now;
	return sim->now - m->seen_at[host] < AWAY ? MOVE_ALIVE : MOVE_UNKNOWN;
}

/* Agreed, and the other side is out of reach: what this side knows of GO may settle it. */
static void ask_here(struct host *h, const struct row *r, enum move_role role, int other)
{
	if (!move_step_may_hang(r->step) || life(h, other) == MOVE_ALIVE || !h->side.exists ||
	    sim->now - h->asked_here_at < ASK_AGAIN)
		return;
	h->asked_here_at = sim->now;
	if (mover_ask(h) == SAID_NO)
		step(h, MOVE_FAILED, role, false);
}

static void answered(struct event *ev)
{
	struct host *m = &sim->hosts[ev->host];
	int side = (int)ev->a;

	if (!m->daemon || !host_quorate(m))
		return;
	sim_trace("n%d: n%d answered %s", ev->host + 1, side + 1,
		  ev->b == SAID_NO    ? "no"
		  : ev->b == SAID_YES ? "yes"
				      : "that it was started anew");
	if (ev->b == SAID_ANEW && !sim->o.broken[RULE_ANEW])
		m->anew[side] = true;
	else
		m->answers[side] = ev->b == SAID_NO ? MOVE_NO : MOVE_YES;
	daemon_look(m);
}

static void asked(struct event *ev)
{
	struct host *h = &sim->hosts[ev->host];
	enum said said;

	if (!h->daemon || !host_quorate(h))
		return;
	said = mover_ask(h);
	if (said != SAID_LATER)
		sim_at(1 + (int64_t)sim_below(300), answered, (int)ev->a, sim->hosts[ev->a].life, ev->host, said, NULL);
}

static void ask(struct host *m, unsigned whom)
{
	if (!whom || sim->now - m->asked_at < ASK_AGAIN)
		return;
	m->asked_at = sim->now;
	if (whom & MOVE_ASK_SRC)
		sim_at(1 + (int64_t)sim_below(300), asked, SRC, sim->hosts[SRC].life, host_number(m), 0, NULL);
	if (whom & MOVE_ASK_DST)
		sim_at(1 + (int64_t)sim_below(300), asked, DST, sim->hosts[DST].life, host_number(m), 0, NULL);
}

static void fence(struct host *m)
{
	for (int i = 0; i < HOSTS; i++) {
		struct host *h = &sim->hosts[i];

		if (sim->fenced[i] || host_reachable(h) || sim->now - m->seen_at[i] < FENCE || sim->healed)
			continue;
		sim->fenced[i] = true;
		if (!sim->o.broken[RULE_FENCE])
			host_down(h, "fenced");
	}
}

static void manage(struct host *m, const struct row *r)
{
	struct move_view v = {
		.step = r->step,
		.src = life(m, SRC),
		.dst = life(m, DST),
		.go_sent = m->answers[SRC],
		.go_received = m->answers[DST],
		.cancel = r->cancel,
	};
	struct move_plan p;

	v.stuck = v.src != MOVE_ALIVE || v.dst != MOVE_ALIVE ||
		  (r->step != MOVE_COPYING && sim->now - m->step_since > SLOW);
	p = move_next(&v);
	ask(m, p.ask);
	if (p.propose != MOVE_STEP_MAX && p.propose != r->step) {
		sim_trace("n%d: manager: %s", host_number(m) + 1, p.why);
		step(m, p.propose, MOVE_MANAGER, p.restart && p.propose == MOVE_FAILED);
	} else if (r->step == MOVE_QUEUED && !r->cancel) {
		step(m, MOVE_CHECKING, MOVE_MANAGER, false);
	}
	if (sim->fencing)
		fence(m);
}

/* ---- the agent ---- */

static void agent(struct host *h, const struct row *r)
{
	int me = host_number(h);

	if (!move_step_ended(r->step) && r->step >= MOVE_PREPARING && me <= DST)
		return; /* the move has it in hand */
	if (r->owner == me && h->qemu == QEMU_NONE)
		qemu_start_afresh(h);
	else if (r->owner != me && h->qemu != QEMU_NONE)
		qemu_set(h, QEMU_NONE, "belongs elsewhere");
}

/* ---- looks ---- */

void daemon_look(struct host *h)
{
	const struct row *r;

	if (!h->up || !h->daemon)
		return;
	if (h->side.exists && h->side.end == END_NONE && !side_runs(&h->side))
		engine_lost(h);
	if (!host_quorate(h))
		return;
	r = row_of(h);
	if (r->step != h->step_seen) {
		h->step_seen = r->step;
		h->step_since = sim->now;
	}
	for (int i = 0; i < HOSTS; i++)
		life(h, i);
	if (move_step_ended(r->step)) {
		tidied(h, r);
	} else if (host_number(h) == SRC) {
		src_look(h, r);
		ask_here(h, r, MOVE_SRC, DST);
	} else if (host_number(h) == DST) {
		dst_look(h, r);
		ask_here(h, r, MOVE_DST, SRC);
	}
	if (h->leads && !move_step_ended(r->step))
		manage(h, r);
	agent(h, r);
}

static void tick(struct event *ev)
{
	struct host *h = &sim->hosts[ev->host];

	if (!h->daemon || h->daemon_life != (int)ev->a)
		return;
	daemon_look(h);
	sim_at(300 + (int64_t)sim_below(700), tick, ev->host, h->life, ev->a, 0, NULL);
}

void daemon_start(struct host *h)
{
	h->daemon = true;
	h->daemon_life++;
	h->seen = sim->n_history;
	h->proposed = h->step_seen = MOVE_STEP_MAX;
	h->proposed_at = h->asked_at = h->asked_here_at = h->step_since = sim->now;
	for (int i = 0; i < HOSTS; i++) {
		h->seen_at[i] = sim->now;
		h->anew[i] = false;
	}
	h->answers[SRC] = h->answers[DST] = MOVE_NOT_ASKED;
	sim_at(10 + (int64_t)sim_below(200), tick, host_number(h), h->life, h->daemon_life, 0, NULL);
}
