/* SPDX-License-Identifier: Apache-2.0 */
/* The clients of the simulated cluster: what they ask, what they are promised, and whether it is kept. */
#include <string.h>

#include "base/byteorder.h"
#include "tests/sim/sim.h"

static uint64_t mix_entry(const struct entry *e)
{
	uint64_t h = e->epoch * 0x9e3779b97f4a7c15ULL ^ ((uint64_t)e->kind << 56);

	return e->size ? h * 31 + get_be32(e->data) : h;
}

static void propose(struct sim_node *n, size_t command)
{
	struct sim_command *k = &sim->commands[command];
	enum core_refusal why;
	uint8_t data[64] = {0};
	uint32_t version;

	put_be32(data, (uint32_t)command);
	if (core_propose(n->core, sim->now, 1, data, 4 + sim_below(60), (void *)(uintptr_t)(command + 1), &why,
			 &version) < 0)
		k->refused = true;
	else
		k->proposals++;
	sim_after(n);
}

/* Some client asks some member; now and then for a command that was asked for before, perhaps elsewhere. */
static void on_client(struct sim_event *ev)
{
	struct sim_node *n = &sim->nodes[1 + sim_below(sim->configured)];
	size_t burst = sim_chance(500) ? 20 : 1;

	(void)ev;
	for (size_t i = 0; i < burst && n->alive && n->paused_until <= sim->now && sim->n_commands < SIM_COMMANDS_MAX;
	     i++) {
		if (sim->n_commands && sim_chance(1000))
			propose(n, sim->n_commands - 1 - sim_below(sim->n_commands < 10 ? sim->n_commands : 10));
		else
			propose(n, sim->n_commands++);
	}
	if (!sim->healing || sim_chance(9000))
		sim_at((int64_t)sim_below(150 * NS_PER_MS), on_client, NULL, 0, 0, NULL);
}

void sim_client_begin(void)
{
	for (int i = 0; i < 3; i++)
		sim_at((int64_t)sim_below(2 * NS_PER_S), on_client, NULL, 0, 0, NULL);
}

/* Promise S3, looked at on the disks themselves. */
void sim_client_acked(struct sim_node *n, size_t command, uint64_t index)
{
	struct sim_command *k = &sim->commands[command];
	uint32_t configured = sim->configured_at[index], have = 0, alone = 0;
	bool has;

	k->proposals--;
	sim->acks++;
	for (uint32_t id = 1; id <= sim->configured; id++) {
		const struct sim_disk *d = &sim->nodes[id].disk;

		if (sim->nodes[id].stranger)
			continue;
		has = d->applied >= index || (index >= d->first && index < d->first + d->n &&
					      mix_entry(d->log[index - d->first]) == sim->entry_at[index]);
		have += has || sim->nodes[id].lost_upto >= index;
		alone += d->alone;
		if (d->alone && !has)
			sim_fail("command %zu is acknowledged by node %u and not on the disk of node %u, which goes on "
				 "alone",
				 command, n->id, id);
	}
	if (!alone && have <= configured / 2)
		sim_fail("command %zu is acknowledged by node %u and is on %u of %u disks", command, n->id, have,
			 configured);
	if (!n->disk.done[command])
		sim_fail("command %zu is acknowledged by node %u, which has not applied it", command, n->id);
	k->acked = true;
}

void sim_client_refused(struct sim_node *n, size_t command, enum core_refusal why)
{
	struct sim_command *k = &sim->commands[command];

	(void)n;
	k->proposals--;
	if (why == CORE_REFUSED_LOST)
		k->maybe = true;
	else
		k->refused = true;
}

/* The log is one: whoever applies an index applies the same entry as everybody else, to the same effect. */
void sim_client_applied(struct sim_node *n, const struct entry *e, uint64_t chain)
{
	if (n->stranger || e->index >= SIM_INDEX_MAX)
		return;
	if (e->index > sim->highest) {
		sim->highest = e->index;
		sim->entry_at[e->index] = mix_entry(e);
		sim->chain_at[e->index] = chain;
		if (e->kind == ENTRY_COMMAND && !sim->commands[get_be32(e->data)].index)
			sim->commands[get_be32(e->data)].index = e->index;
	}
	if (sim->entry_at[e->index] != mix_entry(e))
		sim_fail("node %u applies another entry %lu than those before it", n->id, (unsigned long)e->index);
	else if (sim->chain_at[e->index] != chain && !sim->corrupted)
		sim_fail("node %u has another state at entry %lu than those before it", n->id, (unsigned long)e->index);
}

bool sim_same_state(const struct sim_disk *a, const struct sim_disk *b)
{
	return a->chain == b->chain && a->state == b->state;
}

bool sim_undecided(void)
{
	bool alarm = false;

	for (uint32_t a = 1; a <= sim->configured; a++) {
		uint32_t agree = 0;

		alarm = alarm || (sim->nodes[a].alive && sim->nodes[a].alarms[CORE_ALARM_DIGEST]);
		for (uint32_t b = 1; b <= sim->configured; b++)
			agree += sim_same_state(&sim->nodes[a].disk, &sim->nodes[b].disk);
		if (agree > sim->configured / 2)
			return false;
	}
	return sim->configured > 2 && sim->corrupted && alarm; /* of two the leader is believed */
}

void sim_check_end(void)
{
	const struct sim_disk *first = NULL;

	for (uint32_t id = 1; id <= sim->configured; id++) {
		const struct sim_disk *d = &sim->nodes[id].disk;

		if (sim->nodes[id].stranger)
			continue;
		if (first && (d->applied != first->applied || (!sim_same_state(d, first) && !sim_undecided())))
			sim_fail("at the end the states of the nodes differ");
		if (d->applied < sim->highest)
			sim_fail("entry %lu was applied and node %u ends at %lu", (unsigned long)sim->highest, id,
				 (unsigned long)d->applied);
		for (size_t i = 0; i < sim->n_commands; i++) {
			const struct sim_command *k = &sim->commands[i];

			if (k->acked && d->done[i] != k->index)
				sim_fail("command %zu was acknowledged and node %u does not have it", i, id);
			if (k->refused && !k->acked && !k->maybe && d->done[i])
				sim_fail("command %zu was refused and node %u has applied it", i, id);
		}
		first = d;
	}
}
