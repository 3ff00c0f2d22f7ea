/* SPDX-License-Identifier: Apache-2.0 */
/* What is started again, where and when.
 *
 * Theory of operation
 * -------------------
 * The plan is made anew from the whole state each time that something changes, and has no memory of its own: what was
 * done is seen in the state, so a manager that takes over goes on.
 *
 * A guest that shall run and is to be restarted needs help when
 *
 *   its owner is fenced        it is placed elsewhere (HA_PLACE)
 *   it failed, its owner lives it is started again where it is (HA_RESTART); after limits.in_place failures in an hour
 *                              on that host elsewhere, if it fits anywhere; the host may be the reason. After the
 *                              first one there if only one restart is left. Where the host does not reach its
 *                              files it is not started, as that would fail and use up a restart: it is placed like
 *                              that of a fenced owner, and waits if it fits nowhere
 *   its owner is lost          nothing can be done yet
 *
 * Room is given in the order of priority, where a guest that others wait for has at least theirs, and then of the name.
 * Places are chosen as for any guest (cluster/placement.h). If that leaves somebody without one, room is searched for
 * exactly (cluster/ha-room.c): guest by guest in the same order, each is kept if all that were kept still find a place
 * with it. So a guest waits for room only if there is none, whoever is below it, and what cluster/ha-bears.c promises
 * is kept. A guest that has a place but must wait for something else keeps the place: a lesser one does not take it.
 *
 * What holds a start up, in this order: too many restarts in this hour, back-off after a failure (10 s, doubled each
 * time, at most 5 minutes; a host's death is not the guest's failure), guests that it waits for, and the number of
 * guests that may start at a time, so that twenty guests do not all read their disks at once on one host.
 *
 * Nothing goes back home unless all is quiet: nothing starts, nothing moves, no host is lost. Then one at a time.
 */
#include "cluster/ha.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/ha-int.h"

#define BACKOFF_FIRST_MS 10000
#define BACKOFF_MAX_MS 300000
#define IDLE_PERMILLE 500 /* of its cores: a host that is busier is not idle */

const char *const ha_act_names[HA_ACT_MAX] = {
	[HA_PLACE] = "place", [HA_RESTART] = "restart", [HA_WAIT] = "wait", [HA_FAILBACK] = "failback"};

enum need { NEED_NOTHING, NEED_PLACE, NEED_RESTART, NEED_SETTLED };

struct candidate {
	size_t guest;
	enum need need;
	int priority; /* with that of those that wait for it */
	size_t node;  /* where; HA_NONE: nowhere */
	char *no_room;
};

struct planner {
	const struct ha_input *in;
	size_t *owner; /* of each guest: index of a node */
	int *priority;
	struct placement_node *nodes; /* as they are once the plan is done */
	struct placement_vm *vms;
	struct candidate *candidates;
	size_t n_candidates;
	unsigned starting[HA_NODES_MAX], starting_all;
	bool quiet;
	struct ha_plan plan;
};

/* ---- history ---- */

static unsigned restarts_since(const struct ha_guest *g, int64_t from_ms)
{
	unsigned n = 0;

	for (size_t i = 0; i < g->n_restarts; i++)
		n += g->restarts[i].time_ms > from_ms;
	return n;
}

/* Failures of the guest itself; @node NULL: anywhere. *ret_last: the time of the newest. */
static unsigned failures_since(const struct ha_guest *g, int64_t from_ms, const char *node, int64_t *ret_last)
{
	unsigned n = 0;

	*ret_last = 0;
	for (size_t i = 0; i < g->n_restarts; i++) {
		const struct ha_restart *r = &g->restarts[i];

		if (r->kind == HA_HOST_DIED || r->time_ms <= from_ms || (node && strcmp(r->node, node) != 0))
			continue;
		n++;
		if (r->time_ms > *ret_last)
			*ret_last = r->time_ms;
	}
	return n;
}

/* When one more restart is allowed: once the oldest of the newest max_restarts is an hour old. 0: never. */
static int64_t allowed_at(const struct ha_guest *g)
{
	int64_t at = 0;

	if (!g->max_restarts)
		return 0;

	for (size_t i = 0; i < g->n_restarts; i++) {
		int64_t time = g->restarts[i].time_ms;
		unsigned newer = restarts_since(g, time - 1);

		if (newer >= g->max_restarts && time > at)
			at = time;
	}
	return at ? at + HA_HOUR_MS : 0;
}

static bool too_often(const struct ha_input *in, const struct ha_guest *g)
{
	return restarts_since(g, in->now_ms - HA_HOUR_MS) >= g->max_restarts;
}

/* Until when it is left alone after failures. 0: it need not be. */
static int64_t backoff_until(const struct ha_input *in, const struct ha_guest *g)
{
	int64_t last, wait = BACKOFF_FIRST_MS;
	unsigned n = failures_since(g, in->now_ms - HA_HOUR_MS, NULL, &last);

	if (n == 0)
		return 0;
	for (unsigned i = 1; i < n && wait < BACKOFF_MAX_MS; i++)
		wait *= 2;
	return last + (wait < BACKOFF_MAX_MS ? wait : BACKOFF_MAX_MS);
}

/* ---- what each guest needs ---- */

static enum need need_of(const struct ha_input *in, const struct ha_guest *g, size_t owner)
{
	if (!g->wanted || !g->restart || owner == HA_NONE)
		return NEED_NOTHING;
	if (in->nodes[owner].life != HA_UP)
		return in->nodes[owner].life == HA_LOST || g->moving ? NEED_SETTLED : NEED_PLACE;
	return g->seen == HA_FAILED && !g->moving ? NEED_RESTART : NEED_NOTHING;
}

static size_t guest_find(const struct ha_input *in, const char *name)
{
	for (size_t i = 0; i < in->n_guests; i++)
		if (!strcmp(in->guests[i].place.name, name))
			return i;
	return HA_NONE;
}

/* Raise those that are waited for. There is no ring (cluster/state-ha.c), so it ends; the bound is against a bad input.
 */
static void priorities_make(struct planner *p)
{
	const struct ha_input *in = p->in;
	bool changed = true;

	for (size_t g = 0; g < in->n_guests; g++)
		p->priority[g] = in->guests[g].priority;
	for (size_t round = 0; changed && round < in->n_guests; round++) {
		changed = false;
		for (size_t g = 0; g < in->n_guests; g++) {
			for (size_t k = 0; k < in->guests[g].n_after; k++) {
				size_t other = guest_find(in, in->guests[g].after[k].vm);

				if (other == HA_NONE || p->priority[other] >= p->priority[g])
					continue;
				p->priority[other] = p->priority[g];
				changed = true;
			}
		}
	}
}

static int candidate_order(const void *a, const void *b, void *input)
{
	const struct candidate *x = a, *y = b;
	const struct ha_input *in = input;

	if (x->priority != y->priority)
		return x->priority > y->priority ? -1 : 1;
	return strcmp(in->guests[x->guest].place.name, in->guests[y->guest].place.name);
}

static void planner_begin(struct planner *p, const struct ha_input *in)
{
	*p = (struct planner){.in = in, .quiet = true};
	p->owner = xcalloc(in->n_guests + 1, sizeof(*p->owner));
	p->priority = xcalloc(in->n_guests + 1, sizeof(*p->priority));
	p->nodes = xcalloc(in->n_nodes + 1, sizeof(*p->nodes));
	p->vms = xcalloc(in->n_guests + 1, sizeof(*p->vms));
	p->candidates = xcalloc(in->n_guests + 1, sizeof(*p->candidates));
	p->plan.actions = xcalloc(in->n_guests + 1, sizeof(*p->plan.actions));
	priorities_make(p);
	for (size_t i = 0; i < in->n_nodes; i++)
		p->quiet = p->quiet && in->nodes[i].life != HA_LOST;
	for (size_t g = 0; g < in->n_guests; g++) {
		const struct ha_guest *guest = &in->guests[g];
		size_t owner = p->owner[g] = ha_node_find(in, guest->place.owner);
		enum need need = need_of(in, guest, owner);

		if (need != NEED_NOTHING)
			p->candidates[p->n_candidates++] = (struct candidate){
				.guest = g, .need = need, .priority = p->priority[g], .node = HA_NONE};
		p->quiet = p->quiet && !guest->moving;
		if (!guest->wanted || owner == HA_NONE || in->nodes[owner].life != HA_UP || guest->seen > HA_STARTING)
			continue;
		p->starting[owner]++;
		p->starting_all++;
		p->quiet = false;
	}
	qsort_r(p->candidates, p->n_candidates, sizeof(*p->candidates), candidate_order, (void *)in);
}

static void planner_end(struct planner *p)
{
	for (size_t i = 0; i < p->n_candidates; i++)
		free(p->candidates[i].no_room);
	free(p->owner);
	free(p->priority);
	free(p->nodes);
	free(p->vms);
	free(p->candidates);
}

/* ---- room ---- */

/* Hosts and guests as they are now: what dead hosts ran has no memory anywhere. */
static void world_begin(struct planner *p)
{
	const struct ha_input *in = p->in;

	for (size_t i = 0; i < in->n_nodes; i++) {
		const struct ha_node *n = &in->nodes[i];

		p->nodes[i] = n->place;
		p->nodes[i].up = n->place.up && n->life == HA_UP;
		p->nodes[i].memory_free = ha_node_free(in, i);
		if (n->frozen && !n->place.aside)
			p->nodes[i].aside = "its daemon is being stopped";
	}
	for (size_t g = 0; g < in->n_guests; g++) {
		const struct ha_guest *guest = &in->guests[g];
		bool alive = p->owner[g] != HA_NONE && in->nodes[p->owner[g]].life == HA_UP;

		p->vms[g] = (struct placement_vm){.name = guest->place.name,
						  .owner = guest->place.owner,
						  .to = guest->to,
						  .running = ha_guest_runs(guest) && (alive || guest->to),
						  .memory = guest->place.memory,
						  .vcpus = guest->place.vcpus,
						  .dirty_rate = guest->place.dirty_rate};
	}
}

static void world_give(struct planner *p, size_t g, size_t node)
{
	uint64_t memory = p->vms[g].memory, *left = &p->nodes[node].memory_free;

	p->vms[g].owner = p->nodes[node].name;
	p->vms[g].running = true;
	*left = *left > memory ? *left - memory : 0;
}

/* The best of @n nodes from @first on for a guest; HA_NONE, and why, for the caller to free. @afresh: it starts there,
 * and need not meet the CPU that it had; otherwise it is moved. */
static size_t choose(struct planner *p, size_t g, size_t first, size_t n, bool afresh, char **ret_why)
{
	const struct ha_input *in = p->in;
	struct placement_input pi = {.nodes = p->nodes + first,
				     .n_nodes = n,
				     .vms = p->vms,
				     .n_vms = in->n_guests,
				     .rules = in->rules,
				     .n_rules = in->n_rules,
				     .guest = in->guests[g].place,
				     .limits = in->limits.place};
	struct err e = ERR_INIT;
	struct placement_result r;
	size_t chosen = 0;
	int found;

	if (afresh)
		pi.guest.owner = NULL;
	placement_run(&pi, &r);
	found = placement_chosen(&pi, &r, &chosen, &e);
	if (found < 0 && ret_why)
		*ret_why = xstrdup(e.text);
	placement_done(&r);
	return found < 0 ? HA_NONE : first + chosen;
}

/* Another host for a guest that fails where it is; HA_NONE. */
static size_t choose_other(struct planner *p, size_t g)
{
	struct placement_node *here = &p->nodes[p->owner[g]];
	bool up = here->up;
	size_t node;

	here->up = false;
	node = choose(p, g, 0, p->in->n_nodes, true, NULL);
	here->up = up;
	return node;
}

/* Whether a guest that failed has had its chances where it is, or its host is to be left. */
static bool wants_other(const struct planner *p, size_t g)
{
	const struct ha_guest *guest = &p->in->guests[g];
	const struct ha_node *n = &p->in->nodes[p->owner[g]];
	int64_t last, from = p->in->now_ms - HA_HOUR_MS;
	unsigned failures = failures_since(guest, from, n->place.name, &last);

	if (n->place.maintenance || n->place.aside || failures >= p->in->limits.in_place)
		return true;
	/* The last restart that is allowed is not for a host where it has failed before: it would stay down beside
	 * hosts that have not been tried. */
	return failures && restarts_since(guest, from) + 1 >= guest->max_restarts;
}

/* What keeps a guest from its files where it is; NULL: nothing that is known. */
static const struct placement_unreached *unreached_here(const struct planner *p, size_t g)
{
	return placement_unreached(&p->in->guests[g].place, &p->in->nodes[p->owner[g]].place);
}

/* A place for each candidate, in order; @given: those that are settled already (per guest; HA_NONE: not). True: none is
 * without. */
static bool places_choose(struct planner *p, const size_t *given)
{
	bool all = true;

	world_begin(p);
	for (size_t i = 0; given && i < p->n_candidates; i++)
		if (given[p->candidates[i].guest] != HA_NONE)
			world_give(p, p->candidates[i].guest, given[p->candidates[i].guest]);
	for (size_t i = 0; i < p->n_candidates; i++) {
		struct candidate *c = &p->candidates[i];
		size_t g = c->guest;

		free(c->no_room);
		c->no_room = NULL;
		c->node = given ? given[g] : HA_NONE;
		if (c->node != HA_NONE || c->need == NEED_SETTLED || too_often(p->in, &p->in->guests[g]))
			continue;
		if (c->need == NEED_RESTART && !unreached_here(p, g)) {
			c->node = wants_other(p, g) ? choose_other(p, g) : HA_NONE;
			if (c->node == HA_NONE) {
				c->node = p->owner[g];
				continue;
			}
		} else {
			c->node = choose(p, g, 0, p->in->n_nodes, true, &c->no_room);
		}
		if (c->node != HA_NONE)
			world_give(p, g, c->node);
		all = all && c->node != HA_NONE;
	}
	return all;
}

/* Search exactly: keep each candidate, in order, with which all that are kept find a place. */
static void places_search(struct planner *p)
{
	const struct ha_input *in = p->in;
	struct ha_room *room = ha_room_new(in);
	_free_ size_t *node = xcalloc(in->n_guests + 1, sizeof(*node));
	uint64_t work = in->limits.work ? in->limits.work : HA_WORK;

	for (size_t g = 0; g < in->n_guests; g++) {
		node[g] = HA_NONE;
		ha_room_count(room, g, false);
	}
	for (size_t i = 0; i < p->n_candidates; i++) {
		const struct candidate *c = &p->candidates[i];
		uint64_t part = work / 8, left = part;

		if (c->need != NEED_PLACE || too_often(in, &in->guests[c->guest]))
			continue;
		ha_room_count(room, c->guest, true);
		if (ha_room_find(room, 0, &left, node) != PACK_FITS)
			ha_room_count(room, c->guest, false);
		work -= part - left;
	}
	ha_room_free(room);
	places_choose(p, node);
}

/* ---- what holds it up ---- */

/* Whether what a guest waits for is there. If not: why, for the caller to free, and when to look again. */
static bool after_holds(const struct planner *p, const struct ha_after *a, char **ret_why, int64_t *ret_until)
{
	size_t other = guest_find(p->in, a->vm);
	const struct ha_guest *o = other == HA_NONE ? NULL : &p->in->guests[other];
	bool runs =
		o && o->seen == HA_RUNNING && p->owner[other] != HA_NONE && p->in->nodes[p->owner[other]].life == HA_UP;
	int64_t since = runs ? o->since_ms : 0;

	*ret_until = 0;
	if (!o)
		return true; /* it was deleted */
	if (!runs) {
		*ret_why = xasprintf("waits for vm %s, which %s", a->vm,
				     o->wanted ? "does not run yet" : "shall not run; start it");
		return false;
	}
	if (a->until == HA_UNTIL_DELAY && p->in->now_ms < since + a->seconds * 1000) {
		*ret_until = since + a->seconds * 1000;
		*ret_why = xasprintf("waits until vm %s has run for %" PRId64 " s", a->vm, a->seconds);
		return false;
	}
	if (a->until == HA_UNTIL_PORT && !a->answers) {
		*ret_why = xasprintf("waits until %s of vm %s answers", a->address, a->vm);
		return false;
	}
	return true;
}

static struct ha_action *add(struct planner *p, enum ha_act act, const struct candidate *c, char *why)
{
	struct ha_action *a = &p->plan.actions[p->plan.n++];

	*a = (struct ha_action){.act = act, .guest = c->guest, .node = c->node, .why = why};
	p->quiet = p->quiet && act == HA_WAIT;
	return a;
}

static void wait_until(struct planner *p, const struct candidate *c, int64_t until_ms, char *why)
{
	add(p, HA_WAIT, c, why)->until_ms = until_ms;
}

/* True: a sentence about it is in the plan. */
static bool held_up(struct planner *p, const struct candidate *c)
{
	const struct ha_input *in = p->in;
	const struct ha_guest *g = &in->guests[c->guest];
	const struct ha_node *owner = &in->nodes[p->owner[c->guest]];
	int64_t until = c->need == NEED_RESTART ? backoff_until(in, g) : 0;
	char *why = NULL;

	if (c->need == NEED_SETTLED) {
		wait_until(p, c, 0,
			   owner->life == HA_LOST
				   ? xasprintf("node %s is lost, and not confirmed dead yet", owner->place.name)
				   : xasprintf("node %s is dead, and the move of it is not settled yet",
					       owner->place.name));
		return true;
	}
	if (too_often(in, g)) {
		wait_until(
			p, c, allowed_at(g),
			xasprintf("was started again %u times in the last hour, and it may %u times; look at it, then "
				  "start it by hand",
				  restarts_since(g, in->now_ms - HA_HOUR_MS), g->max_restarts));
		return true;
	}
	if (c->no_room) {
		add(p, HA_WAIT, c, xstrdup(c->no_room))->no_room = true;
		p->quiet = false;
		return true;
	}
	if (in->now_ms < until) {
		wait_until(p, c, until, xasprintf("failed before, and is left alone for a while"));
		return true;
	}
	if (c->node == p->owner[c->guest] && owner->frozen) {
		wait_until(p, c, 0, xasprintf("the daemon of node %s is being stopped", owner->place.name));
		return true;
	}
	for (size_t i = 0; i < g->n_after; i++)
		if (!after_holds(p, &g->after[i], &why, &until)) {
			wait_until(p, c, until, why);
			return true;
		}
	return false;
}

static bool waits_for_turn(struct planner *p, const struct candidate *c)
{
	const struct ha_limits *l = &p->in->limits;

	if (l->starts_per_node && p->starting[c->node] >= l->starts_per_node) {
		wait_until(p, c, 0,
			   xasprintf("waits for its turn: %u guests start on node %s already", p->starting[c->node],
				     p->nodes[c->node].name));
		return true;
	}
	if (l->starts && p->starting_all >= l->starts) {
		wait_until(p, c, 0, xasprintf("waits for its turn: %u guests start already", p->starting_all));
		return true;
	}
	p->starting[c->node]++;
	p->starting_all++;
	return false;
}

/* Why a guest that failed leaves its host, for the caller to free. */
static char *moved_why(const struct planner *p, const struct candidate *c, const char *owner)
{
	const struct placement_unreached *u = unreached_here(p, c->guest);

	return u ? xasprintf("node %s does not reach its folder %s: %s", owner, u->folder, u->why)
		 : xasprintf("it fails on node %s", owner);
}

static void act(struct planner *p, const struct candidate *c)
{
	const char *owner = p->in->nodes[p->owner[c->guest]].place.name, *node;

	if (held_up(p, c) || waits_for_turn(p, c))
		return;
	node = p->nodes[c->node].name;
	if (c->need == NEED_PLACE)
		add(p, HA_PLACE, c, xasprintf("node %s is confirmed dead", owner));
	else if (c->node == p->owner[c->guest])
		add(p, HA_RESTART, c, xasprintf("it failed on node %s", node));
	else
		add(p, HA_PLACE, c, moved_why(p, c, owner));
}

/* ---- going home ---- */

/* Where a guest would go back to; HA_NONE. */
static size_t home_of(const struct planner *p, size_t g)
{
	const struct ha_guest *guest = &p->in->guests[g];
	size_t home = guest->failback ? ha_node_find(p->in, guest->home) : HA_NONE;
	const struct ha_node *n;

	if (home == HA_NONE || home == p->owner[g] || !guest->wanted || guest->seen != HA_RUNNING)
		return HA_NONE;
	n = &p->in->nodes[home];
	if (!ha_node_takes(n) || n->place.load_permille >= IDLE_PERMILLE ||
	    (n->since_ms && p->in->now_ms < n->since_ms + p->in->limits.settle_ms))
		return HA_NONE;
	return home;
}

/* The first, in the order of all, that fits where it belongs. */
static void one_goes_home(struct planner *p)
{
	size_t n = 0;
	struct candidate *all = xcalloc(p->in->n_guests + 1, sizeof(*all));

	for (size_t g = 0; g < p->in->n_guests; g++) {
		size_t home = home_of(p, g);

		if (home != HA_NONE)
			all[n++] = (struct candidate){.guest = g, .priority = p->in->guests[g].priority, .node = home};
	}
	qsort_r(all, n, sizeof(*all), candidate_order, (void *)p->in);
	for (size_t i = 0; i < n; i++)
		if (choose(p, all[i].guest, all[i].node, 1, false, NULL) != HA_NONE) {
			add(p, HA_FAILBACK, &all[i],
			    xasprintf("node %s, where it belongs, is back and idle", p->nodes[all[i].node].name));
			break;
		}
	free(all);
}

/* ---- all of it ---- */

void ha_plan(const struct ha_input *in, struct ha_plan *ret)
{
	struct planner p;

	planner_begin(&p, in);
	if (!places_choose(&p, NULL))
		places_search(&p);
	for (size_t i = 0; i < p.n_candidates; i++)
		act(&p, &p.candidates[i]);
	if (p.quiet)
		one_goes_home(&p);
	*ret = p.plan;
	planner_end(&p);
}

void ha_plan_done(struct ha_plan *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->actions[i].why);
	free(p->actions);
	*p = (struct ha_plan){0};
}

#define HA_NEXT_ROOM "it starts as soon as one fits: free or add what is missing, or change what it needs"

json_t *ha_plan_json(const struct ha_input *in, const struct ha_plan *p)
{
	json_t *list = json_array();

	for (size_t i = 0; i < p->n; i++) {
		const struct ha_action *a = &p->actions[i];
		_free_ char *why = a->no_room ? xasprintf("%s; " HA_NEXT_ROOM, a->why) : xstrdup(a->why);

		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:s?, s:o, s:s}", "vm", in->guests[a->guest].place.name,
						"action", ha_act_names[a->act], "node",
						a->node == HA_NONE ? NULL : in->nodes[a->node].place.name, "until",
						a->until_ms ? json_integer(a->until_ms) : json_null(), "why", why));
	}
	return list;
}

bool ha_flaps(const int64_t *lost_ms, size_t n, int64_t now_ms, char *why, size_t size)
{
	unsigned lately = 0;

	for (size_t i = 0; i < n; i++)
		lately += lost_ms[i] > now_ms - HA_HOUR_MS && lost_ms[i] <= now_ms;
	if (lately < HA_FLAPS)
		return false;
	snprintf(why, size, "was lost %u times in the last hour; find out why, then take it back", lately);
	return true;
}
