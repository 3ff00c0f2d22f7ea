/* SPDX-License-Identifier: Apache-2.0 */
/* The faults of the simulated world: crashes, cuts, stops, full disks, lost disks, rotten states, growth. */
#include "tests/sim/sim.h"

static struct sim_node *random_node(void)
{
	return &sim->nodes[1 + sim_below(sim->configured)];
}

static void on_restart(struct sim_event *ev)
{
	struct sim_node *n = &sim->nodes[ev->a];

	if (!n->alive)
		sim_node_start(n);
}

static void restart_later(struct sim_node *n, int64_t within_ns)
{
	sim_at((int64_t)sim_below((uint64_t)within_ns), on_restart, NULL, n->id, 0, NULL);
}

static void cut(void)
{
	sim_trace("the network is cut");
	for (uint32_t id = 1; id <= sim->n_nodes; id++)
		sim->nodes[id].component = (int)sim_below(sim_chance(2000) ? 3 : 2);
	sim_bus_reform_soon(2 * NS_PER_S);
}

static void join(void)
{
	sim_trace("the network is whole");
	for (uint32_t id = 1; id <= sim->n_nodes; id++)
		sim->nodes[id].component = 0;
	sim_bus_reform_soon(1 * NS_PER_S);
}

/* All members up, in sync, and no learners: one disk may be lost now. */
static bool all_well(void)
{
	for (uint32_t id = 1; id <= sim->configured; id++) {
		const struct sim_node *n = &sim->nodes[id];
		struct core_status s;

		if (!n->alive || n->disk.learner || n->disk.diverged || n->disk.corrupt)
			return false;
		core_status(n->core, &s);
		if (s.state != CORE_SYNCED || s.fetching)
			return false;
	}
	return true;
}

static void lose_disk(struct sim_node *n)
{
	bool other_alone = sim->o.duo && sim->nodes[3 - n->id].disk.alone;

	if (!other_alone && (sim->configured < 3 || !all_well()))
		return;
	sim_trace("node %u loses its disk", n->id);
	sim_node_crash(n, true);
	n->lost_upto = n->disk.first + n->disk.n - 1;
	sim_disk_bootstrap(n, 0);
	restart_later(n, 2 * NS_PER_S);
}

static void rot(struct sim_node *n)
{
	if (sim->configured < 2 || sim->corrupted || !sim_chance(500) || !all_well())
		return;
	sim_trace("the state of node %u rots", n->id);
	sim->corrupted = true;
	n->disk.state ^= 0x100;
}

static void grow(void)
{
	if (sim->configured == sim->n_nodes || !all_well())
		return;
	sim->configured++;
	sim_trace("the cluster grows to %u", sim->configured);
	for (uint32_t id = 1; id < sim->configured; id++)
		sim->nodes[sim->configured].component = sim->nodes[id].component;
	sim_node_start(&sim->nodes[sim->configured]);
}

/* What was put off until then stays put off, or it would overtake itself. */
static void stand_still(struct sim_node *n)
{
	int64_t until = sim->now + (int64_t)sim_below(6 * NS_PER_S);

	sim_trace("node %u stands still", n->id);
	if (until > n->paused_until)
		n->paused_until = until;
}

static void power_off(void)
{
	sim_trace("the power fails everywhere");
	for (uint32_t id = 1; id <= sim->configured; id++) {
		sim_node_crash(&sim->nodes[id], true);
		restart_later(&sim->nodes[id], 3 * NS_PER_S);
	}
}

static void on_fault(struct sim_event *ev)
{
	struct sim_node *n = random_node();

	(void)ev;
	if (sim->healing)
		return;
	switch (sim_below(12)) {
	case 0:
	case 1:
		sim_node_crash(n, sim_chance(5000));
		restart_later(n, 4 * NS_PER_S);
		break;
	case 2:
	case 3:
		cut();
		break;
	case 4:
	case 5:
		join();
		break;
	case 6:
		stand_still(n);
		break;
	case 7:
		sim_trace("the disk of node %u is full", n->id);
		n->full_until = sim->now + (int64_t)sim_below(6 * NS_PER_S);
		break;
	case 8:
		lose_disk(n);
		break;
	case 9:
		rot(n);
		break;
	case 10:
		if (sim_chance(3000))
			power_off();
		break;
	default:
		grow();
	}
	for (uint32_t id = 1; id <= sim->configured; id++)
		if (!sim->nodes[id].alive)
			restart_later(&sim->nodes[id], 6 * NS_PER_S);
	sim_at((int64_t)sim_below(3 * NS_PER_S), on_fault, NULL, 0, 0, NULL);
}

/* ---- two hosts that shoot each other ---- */

/* The shooter hears of the death, if it still lives. */
static void on_told(struct sim_event *ev)
{
	struct sim_node *n = &sim->nodes[ev->node];

	core_dead(n->core, (uint32_t)ev->a, ev->b);
	sim_after(n);
}

/* A shot hits although its shooter may be dead by now. Its victim may be up again before the shooter is told. */
static void on_shot(struct sim_event *ev)
{
	struct sim_node *n = &sim->nodes[ev->a], *victim = &sim->nodes[3 - n->id];
	struct core_status s;

	if (sim->healing)
		return;
	sim_trace("node %u shoots node %u", n->id, victim->id);
	sim->shots++;
	sim_node_crash(victim, true);
	restart_later(victim, sim_chance(5000) ? 300 * NS_PER_MS : 5 * NS_PER_S);
	if (!n->alive || n->life != ev->b)
		return;
	core_status(n->core, &s);
	sim_at((int64_t)sim_below(sim_chance(5000) ? 200 * NS_PER_MS : 4 * NS_PER_S), on_told, n, victim->id,
	       s.by_itself, NULL);
}

static void on_duel(struct sim_event *ev)
{
	(void)ev;
	for (uint32_t id = 1; id <= sim->n_nodes; id++) {
		const struct sim_node *n = &sim->nodes[id];
		struct core_status s;

		if (!n->alive || n->paused_until > sim->now || sim->configured != 2)
			continue;
		core_status(n->core, &s);
		if (s.by_itself && sim_chance(3000))
			sim_at((int64_t)sim_below(1 * NS_PER_S), on_shot, NULL, id, n->life, NULL);
	}
	if (!sim->healing)
		sim_at((int64_t)sim_below(600 * NS_PER_MS), on_duel, NULL, 0, 0, NULL);
}

void sim_fault_duo(void)
{
	sim_at(NS_PER_S, on_duel, NULL, 0, 0, NULL);
}

void sim_fault_begin(void)
{
	sim_at(2 * NS_PER_S + (int64_t)sim_below(2 * NS_PER_S), on_fault, NULL, 0, 0, NULL);
}

void sim_fault_heal(void)
{
	sim->healing = true;
	if (sim->chaos)
		sim_bus_break(); /* a message may be lost that nobody misses before the next view */
	sim->chaos = false;
	sim->slow_disks = false; /* or what has piled up takes longer than the limit */
	for (uint32_t id = 1; id <= sim->configured; id++) {
		sim->nodes[id].full_until = 0;
		if (!sim->nodes[id].alive)
			sim_node_start(&sim->nodes[id]);
	}
	join();
}
