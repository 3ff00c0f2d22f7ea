/* SPDX-License-Identifier: Apache-2.0 */
/* The view out of process group, quorum service and configuration. */
#include "cluster/bus-view.h"

#include <stdlib.h>
#include <string.h>

static bool contains(const uint32_t *ids, size_t n, uint32_t id)
{
	for (size_t i = 0; i < n; i++)
		if (ids[i] == id)
			return true;
	return false;
}

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

enum bus_view_verdict bus_view_make(const struct bus_group *g, const struct bus_quorum *q,
				    const struct bus_nodes *nodes, uint32_t self, struct bus_view *ret)
{
	struct bus_view v = {.ring = g->ring, .expected = (unsigned)nodes->n, .needed = (unsigned)nodes->n / 2 + 1};

	if (g->moving)
		return BUS_VIEW_GROUP_BEHIND;
	if (!bus_ring_equal(g->ring, q->ring))
		return g->ring.seq < q->ring.seq ? BUS_VIEW_GROUP_BEHIND : BUS_VIEW_QUORUM_BEHIND;
	for (size_t i = 0; i < g->n; i++)
		/* A host's old process may be leaving while its new one is there already. */
		if (contains(q->members, q->n, g->members[i]) && contains(nodes->ids, nodes->n, g->members[i]) &&
		    !contains(v.members, v.n, g->members[i]))
			v.members[v.n++] = g->members[i];
	for (size_t i = 0; i < q->n; i++)
		if (contains(nodes->ids, nodes->n, q->members[i]))
			v.reached[v.n_reached++] = q->members[i];
	qsort(v.members, v.n, sizeof(v.members[0]), ascending);
	memcpy(v.configured, nodes->ids, nodes->n * sizeof(nodes->ids[0]));
	qsort(v.configured, nodes->n, sizeof(v.configured[0]), ascending);
	v.quorate = q->quorate && nodes->n > 0 && v.n >= v.needed && contains(v.members, v.n, self);
	v.service_quorate = q->quorate && contains(v.members, v.n, self);
	*ret = v;
	return BUS_VIEW_READY;
}

bool bus_view_equal(const struct bus_view *a, const struct bus_view *b)
{
	return bus_ring_equal(a->ring, b->ring) && a->n == b->n && a->quorate == b->quorate &&
	       a->service_quorate == b->service_quorate && a->needed == b->needed && a->expected == b->expected &&
	       !memcmp(a->members, b->members, a->n * sizeof(a->members[0])) &&
	       !memcmp(a->configured, b->configured, a->expected * sizeof(a->configured[0]));
}
