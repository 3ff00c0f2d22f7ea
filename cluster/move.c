/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of a migration, the rule for every death, and the queue.
 *
 * Theory of operation
 * -------------------
 * A migration is a row of the replicated state; its step is changed by migration.step commands only, in the total order
 * of the cluster. The sides look at the row and do their part, so a manager that dies takes nothing with it:
 *
 *   queued       the manager starts it (checking) as soon as the limits allow
 *   checking     the source checks that the guest fits the destination, and forecasts; then says preparing
 *   preparing    the destination reserves memory, opens disks inactive, starts QEMU, listens; then says copying
 *   copying      memory is copied. The source says agreed once what is unsent fits the pause; the guest still runs
 *   agreed       only when the source sees *agreed* come back in the order does it stop the guest, and may then send
 *                GO on the wire. Nothing ordered sits inside the pause: the steps below are written down afterwards
 *   handed-over  GO was sent (the source says so when it gets round to it; the destination may be faster)
 *   committed    the destination got GO and runs the guest. Owner and epoch change with this step
 *   cleaning     the source ends its stopped QEMU; then done
 *
 * GO is the point of no return, in the hands of the two sides (migrate/handover.h): before it leaves the source, the
 * source alone has the guest, whatever the row says; after it was received, the destination has it. In between, it
 * is the source's promise that it never runs the guest again unless the destination says that it did not get GO and
 * never will run it. That is why *agreed* is in the order: a move whose row is at copying or before has no GO, even if
 * its source is silent, so its destination can be forgotten.
 *
 * A manager decides by the row as it has heard of it, and others may be faster: what it found at copying may be agreed
 * when its command comes round in the order, and "there is no agreement, so the guest never left the source" is wrong
 * then. So its commands say which step they were decided for, and are refused at any other.
 *
 * When a side dies in between ("dead" means fenced, nothing less), the question is who may run the guest:
 *
 *   - The destination received GO: it owns the guest, and if it is alive it runs it. If it was fenced after that, the
 *     guest may have written to the disks there, so the source's copy of memory is older than they are: it must not be
 *     resumed, and HA starts the guest afresh.
 *   - GO was not sent, as a living source says: the source goes on. It need not ask anybody.
 *   - GO was sent, and a living destination says that it did not receive it, which is its promise: the source goes on.
 *   - GO was sent, and the destination was fenced before it could be asked: it may have run, so the source's memory
 *     may be older than the disks. A living source is never restarted elsewhere, as nobody but itself can end its QEMU:
 *     it stays the owner and the row tells it, by failed with restart. It ends the stopped QEMU and starts the guest
 *     afresh. If the destination had told it "never" while it still lived, the source goes on with its memory, which is
 *     good then.
 *   - The source was fenced: what it held is gone. A destination that received GO runs the guest. One that did not
 *     forgets it, complete or not, and HA starts the guest afresh.
 *   - A host that was started anew since, by whomever, has nothing of the move any more. It is dead to it as one that
 *     was fenced is, and is taken for that; it must not be asked, as it can neither promise nor deny.
 *   - Whoever may have it is out of reach and not fenced: nobody decides. The move is undecided until that changes.
 *
 * That a source which says "GO was sent" does not run the guest rests on its record (migrate/handover.h): a step is
 * written down before it is taken, so the yes comes from a source that already holds the guest still, whether GO has
 * left it or not.
 *
 * Two of these are stricter than the first design, which let the source go on whenever the destination was dead, and
 * let a destination that has loaded everything run the guest whenever the source was dead. Both would resume memory
 * that is older than the disks. The second one looks harmless and is the ordinary case of a cut cable: the source loses
 * its connection in the pause, before GO, and rightly goes on; seconds later it is fenced, as it has no quorum; the
 * destination still holds the guest of before those seconds. What it costs is a restart instead of a move if a source
 * dies within the few milliseconds between *loaded* and GO.
 *
 * tests/unit/cluster/move-test.c goes through every combination against the set of worlds that fit what is known, and
 * docs/moves.md has the table.
 *
 * The queue. Moves start in order of priority and arrival. One that has to wait because a host is full keeps its place
 * on the other host, so that it cannot be overtaken for ever; but only the first that waits for a host does so, or else
 * an evacuation would block the whole cluster.
 */
#include "cluster/move.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

const char *const move_step_names[MOVE_STEP_MAX + 1] = {
	[MOVE_QUEUED] = "queued",       [MOVE_CHECKING] = "checking",   [MOVE_PREPARING] = "preparing",
	[MOVE_COPYING] = "copying",     [MOVE_AGREED] = "agreed",       [MOVE_HANDED_OVER] = "handed-over",
	[MOVE_COMMITTED] = "committed", [MOVE_CLEANING] = "cleaning",   [MOVE_DONE] = "done",
	[MOVE_FAILED] = "failed",       [MOVE_CANCELLED] = "cancelled", [MOVE_UNDECIDED] = "undecided",
};
const char *const move_role_names[MOVE_ROLE_MAX + 1] = {
	[MOVE_MANAGER] = "manager", [MOVE_SRC] = "src", [MOVE_DST] = "dst"};
const char *const move_life_names[MOVE_LIFE_MAX] = {
	[MOVE_ALIVE] = "alive", [MOVE_FENCED] = "fenced", [MOVE_UNKNOWN] = "unknown"};
const char *const move_answer_names[MOVE_ANSWER_MAX] = {
	[MOVE_NO] = "no", [MOVE_YES] = "yes", [MOVE_NOT_ASKED] = "not asked"};
const char *const move_decision_names[MOVE_DECISION_MAX] = {
	[MOVE_WAIT] = "wait",
	[MOVE_SRC_GOES_ON] = "source goes on",
	[MOVE_DST_RUNS] = "destination runs",
	[MOVE_HA_RESTARTS] = "HA restarts",
	[MOVE_NOBODY] = "nobody",
};

static int name_find(const char *const *names, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(names[i], name))
			return i;
	return n;
}

enum move_step move_step_find(const char *name)
{
	return (enum move_step)name_find(move_step_names, MOVE_STEP_MAX, name);
}

enum move_role move_role_find(const char *name)
{
	return (enum move_role)name_find(move_role_names, MOVE_ROLE_MAX, name);
}

/* ---- steps ---- */

#define M (1U << MOVE_MANAGER)
#define S (1U << MOVE_SRC)
#define D (1U << MOVE_DST)

/* Who may take a move from one step (row) to another. What is not here is not allowed. */
static const unsigned char successors[MOVE_STEP_MAX][MOVE_STEP_MAX] = {
	[MOVE_QUEUED] = {[MOVE_CHECKING] = M, [MOVE_FAILED] = M, [MOVE_CANCELLED] = M},
	[MOVE_CHECKING] = {[MOVE_PREPARING] = S, [MOVE_FAILED] = M | S, [MOVE_CANCELLED] = M | S},
	[MOVE_PREPARING] = {[MOVE_COPYING] = D, [MOVE_FAILED] = M | S | D, [MOVE_CANCELLED] = M | S},
	[MOVE_COPYING] = {[MOVE_AGREED] = S, [MOVE_FAILED] = M | S | D, [MOVE_CANCELLED] = M | S},
	[MOVE_AGREED] = {[MOVE_HANDED_OVER] = S,
			 [MOVE_COMMITTED] = M | D,
			 [MOVE_FAILED] = M | S | D,
			 [MOVE_UNDECIDED] = M | S | D},
	[MOVE_HANDED_OVER] = {[MOVE_COMMITTED] = M | D, [MOVE_FAILED] = M | S | D, [MOVE_UNDECIDED] = M | S | D},
	[MOVE_UNDECIDED] = {[MOVE_COMMITTED] = M | D, [MOVE_FAILED] = M | S | D},
	[MOVE_COMMITTED] = {[MOVE_CLEANING] = M | S},
	[MOVE_CLEANING] = {[MOVE_DONE] = M | S},
};

#undef M
#undef S
#undef D

bool move_step_ended(enum move_step s)
{
	return s == MOVE_DONE || s == MOVE_FAILED || s == MOVE_CANCELLED;
}

bool move_step_cancels(enum move_step s)
{
	return s < MOVE_STEP_MAX && successors[s][MOVE_CANCELLED];
}

bool move_step_dst_owns(enum move_step s)
{
	return s == MOVE_COMMITTED || s == MOVE_CLEANING || s == MOVE_DONE;
}

bool move_step_may_hang(enum move_step s)
{
	return s == MOVE_AGREED || s == MOVE_HANDED_OVER || s == MOVE_UNDECIDED;
}

int move_step_check(enum move_step from, enum move_step to, enum move_role role, struct err *e)
{
	if (from >= MOVE_STEP_MAX || to >= MOVE_STEP_MAX || role >= MOVE_ROLE_MAX)
		return err_set(e, ERR_INPUT, "no such step or role");
	if (!successors[from][to])
		return err_set(e, ERR_CONFLICT, "is %s; %s does not follow that", move_step_names[from],
			       move_step_names[to]);
	if (!(successors[from][to] & 1U << role))
		return err_set(e, ERR_FORBIDDEN, "is %s; the %s may not take it to %s", move_step_names[from],
			       move_role_names[role], move_step_names[to]);
	return 0;
}

int move_invariant(const struct move_facts *f, struct err *e)
{
	bool dst_owns = move_step_dst_owns(f->step);

	/* Later on the guest may have gone elsewhere (HA); never back to an older epoch. */
	if (f->step == MOVE_CLEANING || f->step == MOVE_DONE)
		return f->epoch_now > f->epoch_then ? 0 : err_set(e, ERR_CONFLICT, "the epoch went back");
	if (dst_owns ? !f->owner_is_dst : !f->owner_is_src)
		return err_set(e, ERR_CONFLICT, "is %s, and the guest does not belong to the %s",
			       move_step_names[f->step], dst_owns ? "destination" : "source");
	if (f->epoch_now != f->epoch_then + dst_owns)
		return err_set(e, ERR_CONFLICT, "is %s, and the guest's epoch is %lld instead of %lld",
			       move_step_names[f->step], (long long)f->epoch_now, (long long)f->epoch_then + dst_owns);
	return 0;
}

/* ---- deaths ---- */

static struct move_resolution resolution(enum move_decision d, unsigned ask, const char *why)
{
	return (struct move_resolution){.decision = d, .ask = ask, .why = why};
}

/* Only one side can have the guest at this step. */
static struct move_resolution resolve_owner(enum move_life life, enum move_decision alive, const char *why)
{
	switch (life) {
	case MOVE_ALIVE:
		return resolution(alive, 0, why);
	case MOVE_FENCED:
		return resolution(MOVE_HA_RESTARTS, 0, "the only host that had the guest is confirmed dead");
	default:
		return resolution(MOVE_NOBODY, 0, "the only host that has the guest is out of reach");
	}
}

/* Before the agreement there is no GO: the source has the guest. */
static struct move_resolution resolve_before(const struct move_view *v)
{
	if (v->src == MOVE_ALIVE && v->dst != MOVE_FENCED && !v->stuck)
		return resolution(MOVE_WAIT, 0, "the move goes on");
	return resolve_owner(v->src, MOVE_SRC_GOES_ON, "there is no agreement, so the guest never left the source");
}

/* The source is gone for good: the destination has the guest if it received GO, otherwise nobody has. */
static struct move_resolution resolve_src_fenced(const struct move_view *v)
{
	if (v->dst == MOVE_FENCED)
		return resolution(MOVE_HA_RESTARTS, 0, "both hosts are confirmed dead");
	if (v->go_received == MOVE_NO)
		return resolution(MOVE_HA_RESTARTS, 0,
				  "the source is confirmed dead and the destination did not receive GO");
	if (v->dst == MOVE_UNKNOWN)
		return resolution(MOVE_NOBODY, 0, "the destination may have received GO and is out of reach");
	if (v->go_received == MOVE_YES)
		return resolution(MOVE_DST_RUNS, 0, "the destination received GO");
	return resolution(MOVE_WAIT, MOVE_ASK_DST, "the destination must say whether it received GO");
}

/* The source is alive: before GO left it, it decides alone. */
static struct move_resolution resolve_src_alive(const struct move_view *v)
{
	bool sent = v->go_sent == MOVE_YES || v->step == MOVE_HANDED_OVER;

	if (v->go_received == MOVE_NO)
		return resolution(MOVE_SRC_GOES_ON, 0, "the destination promised never to run it");
	if (!sent && v->go_sent == MOVE_NO)
		return resolution(MOVE_SRC_GOES_ON, 0, "GO was not sent");
	if (v->dst == MOVE_ALIVE)
		return resolution(MOVE_WAIT, MOVE_ASK_DST, "the destination must say whether it received GO");
	if (!sent)
		return resolution(MOVE_WAIT, MOVE_ASK_SRC, "the source must say whether it sent GO");
	if (v->dst == MOVE_FENCED)
		return resolution(MOVE_HA_RESTARTS, 0,
				  "the guest may have run, and written, at the destination, which is confirmed dead");
	return resolution(MOVE_NOBODY, 0, "GO was sent and the destination is out of reach");
}

/* The source is out of reach: only a destination that has GO settles it. */
static struct move_resolution resolve_src_unknown(const struct move_view *v)
{
	if (v->dst == MOVE_ALIVE && v->go_received == MOVE_NOT_ASKED)
		return resolution(MOVE_WAIT, MOVE_ASK_DST, "the destination must say whether it received GO");
	return resolution(MOVE_NOBODY, 0, "the source may have the guest and is out of reach");
}

static struct move_resolution resolve_agreed(const struct move_view *v)
{
	if (v->src == MOVE_ALIVE && v->dst == MOVE_ALIVE && !v->stuck)
		return resolution(MOVE_WAIT, 0, "the move goes on");
	if (v->src == MOVE_FENCED)
		return resolve_src_fenced(v);
	if (v->go_received == MOVE_YES)
		return resolve_owner(v->dst, MOVE_DST_RUNS, "the destination received GO");
	return v->src == MOVE_ALIVE ? resolve_src_alive(v) : resolve_src_unknown(v);
}

struct move_resolution move_resolve(const struct move_view *v)
{
	if (move_step_may_hang(v->step))
		return resolve_agreed(v);
	if (move_step_dst_owns(v->step))
		return resolve_owner(v->dst, MOVE_DST_RUNS, "it is committed: the guest is the destination's");
	if (move_step_ended(v->step))
		return resolve_owner(v->src, MOVE_SRC_GOES_ON, "it has ended: the guest stayed at the source");
	return resolve_before(v);
}

/* ---- the manager ---- */

static struct move_plan plan(enum move_step propose, bool restart, const char *why)
{
	return (struct move_plan){.propose = propose, .restart = restart, .why = why};
}

/* Committed: the source tidies up, or whoever speaks for it once it is dead. */
static struct move_plan next_committed(const struct move_view *v)
{
	bool restart = v->dst == MOVE_FENCED;

	if (v->src == MOVE_FENCED)
		return plan(v->step == MOVE_COMMITTED ? MOVE_CLEANING : MOVE_DONE, restart,
			    "the source is confirmed dead: nothing is left there to tidy up");
	return plan(MOVE_STEP_MAX, restart, "the source tidies up");
}

static enum move_step settled_step(enum move_decision d)
{
	switch (d) {
	case MOVE_SRC_GOES_ON:
	case MOVE_HA_RESTARTS:
		return MOVE_FAILED;
	case MOVE_DST_RUNS:
		return MOVE_COMMITTED;
	default:
		return MOVE_STEP_MAX;
	}
}

struct move_plan move_next(const struct move_view *v)
{
	struct move_resolution r = move_resolve(v);
	struct move_plan p;

	if (move_step_ended(v->step))
		return plan(MOVE_STEP_MAX, false, "it has ended");
	if (move_step_dst_owns(v->step))
		return next_committed(v);
	if (v->cancel && v->step == MOVE_QUEUED)
		return plan(MOVE_CANCELLED, false, "somebody asked for it");
	p = plan(settled_step(r.decision), r.decision == MOVE_HA_RESTARTS, r.why);
	p.ask = r.ask;
	if (p.propose == MOVE_FAILED && !p.restart && v->cancel && move_step_cancels(v->step))
		p.propose = MOVE_CANCELLED;
	if (r.decision == MOVE_NOBODY && move_step_may_hang(v->step) && v->step != MOVE_UNDECIDED)
		p.propose = MOVE_UNDECIDED;
	return p;
}

/* ---- the queue ---- */

/* What a host and a link carry, found by walking: there are tens of hosts, and the state bounds the moves. */
struct load {
	const char *src, *dst; /* dst NULL: the host src */
	unsigned used;
	bool waited_for;
};

static struct load *load_of(struct load *loads, size_t *n, const char *src, const char *dst)
{
	for (size_t i = 0; i < *n; i++)
		if (!strcmp(loads[i].src, src) && (dst ? loads[i].dst && !strcmp(loads[i].dst, dst) : !loads[i].dst))
			return &loads[i];
	loads[*n] = (struct load){.src = src, .dst = dst};
	return &loads[(*n)++];
}

static bool under_way(enum move_step s)
{
	return s != MOVE_QUEUED && !move_step_ended(s);
}

struct turn {
	const struct move_item *item;
};

static int turn_order(const void *a, const void *b)
{
	const struct move_item *x = ((const struct turn *)a)->item, *y = ((const struct turn *)b)->item;

	if (x->priority != y->priority)
		return x->priority > y->priority ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* Start @it if there is room for it; otherwise let it keep its place. */
static bool queue_try(const struct move_item *it, const struct move_limits *limits, struct load *loads, size_t *n)
{
	struct load *src = load_of(loads, n, it->src, NULL), *dst = load_of(loads, n, it->dst, NULL);
	struct load *link = load_of(loads, n, it->src, it->dst);
	struct load *full = src->used >= limits->per_node    ? src
			    : dst->used >= limits->per_node  ? dst
			    : link->used >= limits->per_link ? link
							     : NULL;

	if (!full) {
		src->used++, dst->used++, link->used++;
		return true;
	}
	if (full != link && !full->waited_for) {
		struct load *other = full == src ? dst : src;

		full->waited_for = true;
		other->used++;
	}
	return false;
}

void move_queue(const struct move_item *items, size_t n, const struct move_limits *limits, bool *ret_start)
{
	struct load *loads = xcalloc(3 * n, sizeof(*loads));
	struct turn *turns = xcalloc(n, sizeof(*turns));
	size_t n_loads = 0;

	for (size_t i = 0; i < n; i++) {
		ret_start[i] = false;
		turns[i].item = &items[i];
		if (!under_way(items[i].step))
			continue;
		load_of(loads, &n_loads, items[i].src, NULL)->used++;
		load_of(loads, &n_loads, items[i].dst, NULL)->used++;
		load_of(loads, &n_loads, items[i].src, items[i].dst)->used++;
	}
	qsort(turns, n, sizeof(*turns), turn_order);
	for (size_t i = 0; i < n; i++)
		if (turns[i].item->step == MOVE_QUEUED)
			ret_start[turns[i].item - items] = queue_try(turns[i].item, limits, loads, &n_loads);
	free(turns);
	free(loads);
}
