/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated bus: rings with a total order that form and break, and everything that goes wrong when they do. */

/* Worse than corosync on purpose. While a ring stands, its members get its messages in one order, each at its own pace;
 * with `chaos` some are lost, doubled or late even then. When a ring breaks, a member may get what is left of the old
 * one, nothing of it, or parts of it with gaps. Members learn of the new ring at different times; some are first given
 * a view that nobody shares, and some views name a ghost. What goes to one member alone is lost, late (by seconds, into
 * whatever view there is then) or doubled now and then. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tests/sim/sim.h"

struct message {
	uint32_t from;
	size_t size;
	uint8_t *data;
};

struct sim_ring {
	struct sim_ring *next;
	struct bus_ring id;
	uint32_t members[SIM_NODES_MAX];
	size_t n_members;
	bool closed, gapless; /* gapless: its members get all of the ring before */
	struct message *messages;
	size_t n, cap;
};

struct sent {
	size_t size;
	uint8_t data[];
};

/* ---- messages ---- */

static void deliver_one(struct sim_node *n, const struct sim_ring *ring, size_t i)
{
	const struct message *m = &ring->messages[i];

	core_deliver(n->core, sim->now, m->from, m->data, m->size);
}

static void on_deliver(struct sim_event *ev)
{
	struct sim_node *n = &sim->nodes[ev->node];
	struct sim_ring *ring = (struct sim_ring *)(uintptr_t)ev->b;

	if (n->ring != ring || ev->a < n->delivered)
		return;
	if (!sim->chaos || !sim_chance(30))
		n->delivered = ev->a + 1; /* otherwise it may come again */
	if (sim->chaos && sim_chance(30))
		return;
	deliver_one(n, ring, ev->a);
	if (sim_chance(9000)) /* several messages may be handled before a flush */
		sim_after(n);
}

static void deliver_later(struct sim_node *n, struct sim_ring *ring, size_t i)
{
	int64_t at = sim->now + (int64_t)sim_below(400000);

	if (at < n->last_deliver && !(sim->chaos && sim_chance(100)))
		at = n->last_deliver;
	n->last_deliver = at;
	sim_at(at - sim->now, on_deliver, n, i, (uintptr_t)ring, NULL);
}

static void ring_append(struct sim_ring *ring, uint32_t from, const struct sent *s)
{
	struct message *m;

	if (ring->n == ring->cap) {
		ring->cap = ring->cap ? ring->cap * 2 : 32;
		ring->messages = realloc(ring->messages, ring->cap * sizeof(*ring->messages));
		if (!ring->messages)
			abort();
	}
	m = &ring->messages[ring->n++];
	m->from = from;
	m->size = s->size;
	m->data = xcalloc(1, s->size);
	memcpy(m->data, s->data, s->size);
	for (size_t i = 0; i < ring->n_members; i++) {
		struct sim_node *n = &sim->nodes[ring->members[i]];

		if (n->alive && n->ring == ring)
			deliver_later(n, ring, ring->n - 1);
	}
}

static void on_send(struct sim_event *ev)
{
	struct sim_node *n = &sim->nodes[ev->node];

	if (!n->ring || n->ring->closed) { /* it waits for the next ring, as in corosync */
		sim_at(3 * NS_PER_MS, on_send, n, 0, 0, ev->p);
		return;
	}
	ring_append(n->ring, n->id, ev->p);
	free(ev->p);
}

void sim_bus_send(struct sim_node *n, const void *data, size_t size)
{
	struct sent *s = xcalloc(1, sizeof(*s) + size);
	int64_t at = sim->now + 50000 + (int64_t)sim_below(300000);

	s->size = size;
	memcpy(s->data, data, size);
	if (at <= n->last_send)
		at = n->last_send + 1;
	n->last_send = at;
	sim_at(at - sim->now, on_send, n, 0, 0, s);
}

/* ---- to one member ---- */

static void on_direct(struct sim_event *ev)
{
	struct sim_node *n = &sim->nodes[ev->node];
	const struct sent *s = ev->p;

	core_direct(n->core, sim->now, (uint32_t)ev->a, s->data, s->size);
	free(ev->p);
	if (sim_chance(9000))
		sim_after(n);
}

bool sim_bus_send_to(struct sim_node *n, uint32_t to, const void *data, size_t size)
{
	struct sim_node *other = to <= sim->n_nodes ? &sim->nodes[to] : NULL;
	int copies = sim_chance(300) ? 2 : 1;

	if (!sim->direct || !other || sim_chance(300))
		return false;
	if (!other->alive || other->component != n->component || sim_chance(sim->chaos ? 1000 : 200))
		return true; /* lost */
	while (copies-- > 0) {
		struct sent *s = xcalloc(1, sizeof(*s) + size);
		int64_t delay = 10000 + (int64_t)sim_below(sim_chance(sim->late_per_10000) ? 5 * NS_PER_S : 150000);

		s->size = size;
		memcpy(s->data, data, size);
		sim_at(delay, on_direct, other, n->id, 0, s);
	}
	return true;
}

/* ---- rings ---- */

/* What the old ring still holds for @n, before it sees the new one. */
static void old_ring_end(struct sim_node *n, bool gapless)
{
	uint64_t kind = sim_below(10);

	for (size_t i = n->delivered; n->ring && i < n->ring->n; i++)
		if (gapless || kind < 3 || (kind < 7 && sim_chance(5000)))
			deliver_one(n, n->ring, i);
	sim_after(n);
}

static void view_of(const struct sim_ring *ring, struct bus_view *v)
{
	*v = (struct bus_view){.ring = ring->id, .expected = sim->configured, .needed = sim->configured / 2 + 1};
	for (size_t i = 0; i < ring->n_members; i++)
		v->members[v->n++] = ring->members[i];
	if (!sim->healing && sim_chance(800) && v->n < sim->configured) { /* a ghost */
		uint32_t ghost = 1 + (uint32_t)sim_below(sim->configured);
		bool there = false;

		for (size_t i = 0; i < v->n; i++)
			there = there || v->members[i] == ghost;
		if (!there)
			v->members[v->n++] = ghost;
	}
	v->quorate = v->n > sim->configured / 2;
	v->service_quorate = v->quorate || (sim->o.duo && (sim->healing || sim_chance(9000)));
}

static void on_view(struct sim_event *ev)
{
	struct sim_node *n = &sim->nodes[ev->node];
	struct sim_ring *ring = (struct sim_ring *)(uintptr_t)ev->b;
	struct bus_view v;

	if (ring->closed || ring != n->ring_next)
		return; /* the next one has come first */
	old_ring_end(n, ring->gapless);
	view_of(ring, &v);
	if (!sim->healing && sim_chance(600)) { /* first a view that nobody shares */
		struct bus_view odd = v;

		odd.ring.seq += 1000000 + sim_below(1000);
		if (odd.n > 1 && odd.members[0] != n->id)
			odd.n--, memmove(odd.members, odd.members + 1, odd.n * sizeof(odd.members[0]));
		odd.quorate = sim_chance(5000);
		core_view(n->core, sim->now, &odd);
		sim_after(n);
	}
	n->ring = ring;
	n->delivered = 0;
	n->expected = v.expected;
	sim_trace("node %u sees ring %lu of %zu members, %squorate", n->id, (unsigned long)v.ring.seq, v.n,
		  v.quorate ? "" : "not ");
	core_view(n->core, sim->now, &v);
	sim_after(n);
	for (size_t i = 0; i < ring->n; i++)
		deliver_later(n, ring, i);
}

static void ring_form(struct sim_node *const *members, size_t n, bool gapless)
{
	struct sim_ring *ring = xcalloc(1, sizeof(*ring));

	ring->next = sim->rings;
	sim->rings = ring;
	ring->id = (struct bus_ring){members[0]->id, gapless ? sim->ring_seq : ++sim->ring_seq};
	ring->gapless = gapless;
	for (size_t i = 0; i < n; i++)
		ring->members[ring->n_members++] = members[i]->id;
	for (size_t i = 0; i < n; i++) {
		if (members[i]->ring)
			members[i]->ring->closed = true;
		members[i]->ring_next = ring;
		sim_at((int64_t)sim_below(30 * NS_PER_MS), on_view, members[i], 0, (uintptr_t)ring, NULL);
	}
}

static bool ring_is(const struct sim_ring *ring, struct sim_node *const *members, size_t n)
{
	if (!ring || ring->closed || ring->n_members != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (ring->members[i] != members[i]->id || members[i]->ring != ring)
			return false;
	return true;
}

static void on_reform(struct sim_event *ev)
{
	(void)ev;
	for (int component = 0; component < SIM_NODES_MAX; component++) {
		struct sim_node *members[SIM_NODES_MAX];
		size_t n = 0;

		for (uint32_t id = 1; id <= sim->n_nodes; id++)
			if (sim->nodes[id].alive && sim->nodes[id].component == component)
				members[n++] = &sim->nodes[id];
		if (n && !ring_is(members[0]->ring, members, n))
			ring_form(members, n, false);
	}
}

void sim_bus_reform_soon(int64_t within_ns)
{
	sim_at(1 + (int64_t)sim_below((uint64_t)within_ns), on_reform, NULL, 0, 0, NULL);
}

void sim_bus_leave(struct sim_node *n)
{
	struct sim_node *members[SIM_NODES_MAX];
	struct sim_ring *ring = n->ring;
	size_t left = 0;

	n->ring = NULL;
	if (!ring || ring->closed) {
		sim_bus_reform_soon(500 * NS_PER_MS);
		return;
	}
	for (size_t i = 0; i < ring->n_members; i++)
		if (sim->nodes[ring->members[i]].alive && sim->nodes[ring->members[i]].ring == ring)
			members[left++] = &sim->nodes[ring->members[i]];
	if (left)
		ring_form(members, left, true);
	ring->closed = true;
}

void sim_bus_join(struct sim_node *n)
{
	n->ring = NULL;
	n->last_send = n->last_deliver = 0;
	sim_bus_reform_soon(100 * NS_PER_MS);
}

void sim_bus_break(void)
{
	for (struct sim_ring *ring = sim->rings; ring; ring = ring->next)
		ring->closed = true;
}

void sim_bus_done(void)
{
	while (sim->rings) {
		struct sim_ring *ring = sim->rings;

		sim->rings = ring->next;
		for (size_t i = 0; i < ring->n; i++)
			free(ring->messages[i].data);
		free(ring->messages);
		free(ring);
	}
}
