/* SPDX-License-Identifier: Apache-2.0 */
/* The view, made of what three services of corosync say at different moments. Pure. */
#ifndef GODWIT_CLUSTER_BUS_VIEW_H
#define GODWIT_CLUSTER_BUS_VIEW_H

#include "cluster/bus.h"

/*
 * The process group knows which processes get messages, the quorum service which hosts are there and whether they may
 * go on, and the configuration how many there are. None of the three is enough:
 *
 *   - a host whose corosync died while it joined stays a member of the process group for ever (corosync issue 828), so
 *     that only those count that the quorum service names as well;
 *   - the two services tell on different descriptors, so that what they say belongs together only when both name the
 *     same ring; whoever named the older one is behind;
 *   - a quorum device and a lowered number of expected votes make a side quorate that does not hold a majority of
 * disks. The log needs that majority, so that the view is quorate only with it.
 */

/* What the process group says. */
struct bus_group {
	struct bus_ring ring; /* of its last configuration change */
	bool moving; /* members came or went with their hosts, and the ring that says so has not been told yet */
	uint32_t members[BUS_NODES_MAX];
	size_t n;
};

/* What the quorum service says. */
struct bus_quorum {
	struct bus_ring ring; /* node 0: nothing yet */
	bool quorate;
	uint32_t members[BUS_NODES_MAX];
	size_t n;
};

/* The hosts that the configuration names. */
struct bus_nodes {
	uint32_t ids[BUS_NODES_MAX];
	size_t n;
};

enum bus_view_verdict {
	BUS_VIEW_READY,         /* the view is made */
	BUS_VIEW_GROUP_BEHIND,  /* hear the process group first: its messages are still of an older ring */
	BUS_VIEW_QUORUM_BEHIND, /* hear the quorum service first: messages of the new ring must wait */
};

enum bus_view_verdict bus_view_make(const struct bus_group *g, const struct bus_quorum *q,
				    const struct bus_nodes *nodes, uint32_t self, struct bus_view *ret);

bool bus_view_equal(const struct bus_view *a, const struct bus_view *b);

#endif
