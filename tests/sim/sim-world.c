/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated world: virtual time, chance from a seed, members that start and crash, and the run of one seed. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tests/sim/sim.h"

#define HEAL_LIMIT (60 * NS_PER_S) /* after the last fault everybody is in sync within that */
#define QUIET (2 * NS_PER_S)

struct sim_world *sim;

/* ---- chance (splitmix64) ---- */

uint64_t sim_random(void)
{
	uint64_t z = (sim->random += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

uint64_t sim_below(uint64_t n)
{
	return n ? sim_random() % n : 0;
}

bool sim_chance(uint32_t per_10000)
{
	return sim_below(10000) < per_10000;
}

/* ---- telling ---- */

void sim_trace(const char *fmt, ...)
{
	va_list ap;

	if (!sim->o.trace)
		return;
	printf("%9.3f ms  ", (double)sim->now / NS_PER_MS);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* What every member thinks, for a trace that ends badly. */
static void trace_members(void)
{
	for (uint32_t id = 1; id <= sim->n_nodes; id++) {
		const struct sim_node *n = &sim->nodes[id];
		struct core_status s = {0};

		if (n->alive)
			core_status(n->core, &s);
		sim_trace("node %u: %s state %d, leader %u of epoch %lu, applied %lu, commit %lu, last %lu, %zu "
			  "pending, state %lx%s%s%s",
			  id, n->alive ? "up" : "down", s.state, s.leader, (unsigned long)s.epoch,
			  (unsigned long)s.applied, (unsigned long)s.commit, (unsigned long)s.last, s.pending,
			  (unsigned long)n->disk.state, s.fetching ? ", fetching" : "",
			  n->disk.learner ? ", learner" : "",
			  n->disk.alone      ? ", alone"
			  : n->disk.diverged ? ", diverged"
					     : "");
	}
}

void sim_fail(const char *fmt, ...)
{
	va_list ap;

	if (sim->failure[0])
		return;
	va_start(ap, fmt);
	vsnprintf(sim->failure, sizeof(sim->failure), fmt, ap);
	va_end(ap);
	sim_trace("FAILURE %s", sim->failure);
	trace_members();
}

/* ---- time: a binary heap by (at, order) ---- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void heap_push(struct sim_event ev)
{
	size_t i = sim->heap_n++;

	if (sim->heap_n > sim->heap_cap) {
		sim->heap_cap = sim->heap_cap ? sim->heap_cap * 2 : 256;
		sim->heap = realloc(sim->heap, sim->heap_cap * sizeof(ev));
		if (!sim->heap)
			abort();
	}
	for (; i > 0 && before(&ev, &sim->heap[(i - 1) / 2]); i = (i - 1) / 2)
		sim->heap[i] = sim->heap[(i - 1) / 2];
	sim->heap[i] = ev;
}

static struct sim_event heap_pop(void)
{
	struct sim_event top = sim->heap[0], last = sim->heap[--sim->heap_n];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < sim->heap_n) {
		if (child + 1 < sim->heap_n && before(&sim->heap[child + 1], &sim->heap[child]))
			child++;
		if (!before(&sim->heap[child], &last))
			break;
		sim->heap[i] = sim->heap[child];
		i = child;
	}
	sim->heap[i] = last;
	return top;
}

void sim_at(int64_t delay_ns, void (*fn)(struct sim_event *ev), const struct sim_node *n, uint64_t a, uint64_t b,
	    void *p)
{
	struct sim_event ev = {.at = sim->now + delay_ns, .order = ++sim->order, .fn = fn, .a = a, .b = b, .p = p};

	if (n) {
		ev.node = n->id;
		ev.life = n->life;
	}
	heap_push(ev);
}

/* ---- members ---- */

static void on_tick(struct sim_event *ev)
{
	struct sim_node *n = &sim->nodes[ev->node];

	if (ev->at != n->tick_at)
		return; /* another one is due earlier */
	n->tick_at = 0;
	core_tick(n->core, sim->now);
	sim_after(n);
}

/* Rules that hold after every event. */
static void check_rules(struct sim_node *n)
{
	struct core_status s;

	core_status(n->core, &s);
	if (s.epoch < n->epoch_seen)
		sim_fail("node %u went back from epoch %lu to %lu", n->id, (unsigned long)n->epoch_seen,
			 (unsigned long)s.epoch);
	n->epoch_seen = s.epoch;
	for (; n->commit_seen < s.commit && n->commit_seen + 1 < SIM_INDEX_MAX; n->commit_seen++)
		if (!n->stranger && !sim->configured_at[n->commit_seen + 1])
			sim->configured_at[n->commit_seen + 1] = n->expected;
	if (s.leading && n->disk.alone && s.commit > n->disk.first + n->disk.n - 1)
		sim_fail("node %u goes on alone, and entry %lu is committed without its disk", n->id,
			 (unsigned long)s.commit);
	if (s.leading && s.epoch < SIM_INDEX_MAX && !n->stranger) {
		if (sim->leader_of[s.epoch] && sim->leader_of[s.epoch] != n->id)
			sim_fail("epoch %lu is led by node %u and by node %u", (unsigned long)s.epoch,
				 sim->leader_of[s.epoch], n->id);
		sim->leader_of[s.epoch] = n->id;
	}
}

void sim_after(struct sim_node *n)
{
	int64_t deadline;

	core_flush(n->core, sim->now);
	check_rules(n);
	deadline = core_deadline(n->core);
	if (deadline > 0 && (n->tick_at == 0 || deadline < n->tick_at)) {
		if (deadline <= sim->now)
			deadline = sim->now + 1;
		n->tick_at = deadline;
		sim_at(deadline - sim->now, on_tick, n, 0, 0, NULL);
	}
}

void sim_node_start(struct sim_node *n)
{
	struct core_options o = {.self = n->id,
				 .version = 1,
				 .first_seq = sim_random() >> 1,
				 .check_every_ns = 3 * NS_PER_S,
				 .break_ack_early = sim->o.break_ack_early,
				 .break_epoch_reuse = sim->o.break_epoch_reuse,
				 .break_minority = sim->o.break_minority,
				 .break_proof = sim->o.break_proof,
				 .break_late = sim->o.break_late,
				 .break_whole = sim->o.break_whole,
				 .break_alone_acks = sim->o.break_alone_acks,
				 .io = &sim_io,
				 .arg = n};
	struct core_disk disk;

	n->alive = n->started = true;
	n->life++;
	n->epoch_seen = n->commit_seen = 0;
	n->tick_at = 0;
	n->paused_until = 0;
	n->snapshot = n->fetch = -1;
	memset(n->alarms, 0, sizeof(n->alarms));
	sim_disk_load(n, &disk);
	n->core = core_new(&o, &disk);
	free(disk.tail);
	sim_trace("node %u starts: log to (%lu), applied %lu, promised %lu%s", n->id,
		  (unsigned long)(n->disk.first + n->disk.n - 1), (unsigned long)n->disk.applied,
		  (unsigned long)n->disk.promised, n->disk.learner ? ", a learner" : "");
	sim_bus_join(n);
}

/* @host: the whole host; otherwise its process only. Nothing but the disk survives. */
void sim_node_crash(struct sim_node *n, bool host)
{
	if (!n->alive)
		return;
	sim_trace("node %u crashes (%s)", n->id, host ? "host" : "process");
	n->alive = false;
	core_free(n->core);
	n->core = NULL;
	sim_disk_crash(n, host);
	n->life++;
	if (host)
		sim_bus_reform_soon(1500 * NS_PER_MS);
	else
		sim_bus_leave(n);
}

/* ---- one seed ---- */

static void world_begin(void)
{
	uint64_t history = sim_random() | 1;

	sim->n_nodes = (uint32_t)(sim_chance(6000) ? 3 : 1 + sim_below(5));
	if (sim_chance(1000))
		sim->n_nodes = SIM_NODES_MAX;
	if (sim->o.duo)
		sim->n_nodes = 2;
	sim->configured = sim_chance(1500) ? 1 : sim->n_nodes; /* 1: grows */
	sim->chaos = sim_chance(2000);
	sim->direct = sim_chance(8000);
	sim->late_per_10000 = sim_chance(2000) ? 5000 : 300;
	sim->slow_disks = sim_chance(2000);
	sim->retention = sim_chance(5000) ? 5 + sim_below(40) : 100000;
	sim->snapshot_pad = sim_chance(1000) ? 3U << 20 : sim_below(50000);
	sim->crash_per_10000 = sim_chance(5000) ? 0 : (uint32_t)sim_below(60);
	for (uint32_t id = 1; id <= sim->n_nodes; id++) {
		struct sim_node *n = &sim->nodes[id];

		n->id = id;
		n->ops_tail = &n->ops;
		n->snapshot = n->fetch = -1;
		sim_disk_bootstrap(n, id <= sim->configured ? history : 0);
	}
	if (sim->configured >= 3 && sim_chance(500)) {
		sim->nodes[sim->configured].stranger = true;
		sim_disk_bootstrap(&sim->nodes[sim->configured], history ^ 0xff0);
		sim->nodes[sim->configured].disk.promised = sim_below(50);
	}
	for (uint32_t id = 1; id <= sim->configured; id++)
		sim_node_start(&sim->nodes[id]);
	sim_client_begin();
	sim_fault_begin();
	if (sim->o.duo)
		sim_fault_duo();
}

/* Are all members in sync, at the same entry, with nothing left to do? */
static bool all_quiet(void)
{
	const struct sim_disk *first = NULL;

	for (uint32_t id = 1; id <= sim->configured; id++) {
		struct sim_node *n = &sim->nodes[id];
		struct core_status s;

		if (n->stranger)
			continue;
		if (!n->alive)
			return false;
		core_status(n->core, &s);
		if (s.state != CORE_SYNCED || s.pending || s.applied != s.last || n->disk.learner || n->disk.diverged ||
		    n->disk.alone || n->disk.applied != s.applied || (first && first->applied != s.applied))
			return false;
		if (sim->corrupted && first && !sim_same_state(first, &n->disk) && !sim_undecided())
			return false; /* the next check will show it */
		first = &n->disk;
	}
	return true;
}

static void step(void)
{
	struct sim_event ev = heap_pop();
	struct sim_node *n = ev.node ? &sim->nodes[ev.node] : NULL;

	if (n && n->paused_until > ev.at && n->alive && n->life == ev.life) {
		ev.at = n->paused_until; /* a stopped process does everything later, in the same order */
		if (ev.fn == on_tick)
			n->tick_at = ev.at;
		heap_push(ev);
		return;
	}
	sim->now = ev.at;
	sim->events++;
	if (!n || n->life == ev.life)
		ev.fn(&ev);
	else if (ev.p)
		free(ev.p); /* of an earlier life */
	if (n && n->alive && !sim->healing && sim_chance(sim->crash_per_10000))
		sim_node_crash(n, sim_chance(5000));
}

static void world_run(void)
{
	int64_t quiet_since = 0;

	while (sim->heap_n && sim->now < sim->o.length_ns && !sim->failure[0])
		step();
	sim_fault_heal();
	while (sim->heap_n && !sim->failure[0]) {
		step();
		if (!all_quiet())
			quiet_since = 0;
		else if (!quiet_since)
			quiet_since = sim->now;
		else if (sim->now > quiet_since + QUIET)
			break;
		if (sim->now > sim->o.length_ns + HEAL_LIMIT)
			sim_fail("everything is healed since %lld s and the members are not in sync",
				 (long long)(HEAL_LIMIT / NS_PER_S));
	}
	if (!sim->failure[0])
		sim_check_end();
}

bool sim_run(struct sim_world *w, const struct sim_options *o)
{
	memset(w, 0, sizeof(*w));
	sim = w;
	w->o = *o;
	w->random = o->seed;
	world_begin();
	world_run();
	return !w->failure[0];
}

void sim_done(struct sim_world *w)
{
	for (uint32_t id = 1; id <= w->n_nodes; id++) {
		struct sim_node *n = &w->nodes[id];

		if (n->alive) {
			n->alive = false;
			core_free(n->core);
			sim_disk_crash(n, false);
		}
		sim_disk_free(&n->disk);
	}
	for (size_t i = 0; i < w->heap_n; i++)
		free(w->heap[i].p);
	free(w->heap);
	for (int i = 0; i < w->n_snapshots; i++) {
		sim_disk_free(w->snapshots[i]);
		free(w->snapshots[i]);
	}
	sim_bus_done();
}
