/* SPDX-License-Identifier: Apache-2.0 */
/* The view that is made of process group, quorum service and configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cluster/bus-view.h"

/* Lists end with 0. Members expected: those of the view. */
static const struct {
	const char *what;
	uint64_t group_ring, quorum_ring;
	bool moving, quorate;
	uint32_t group[6], hosts[6], nodes[8];
	enum bus_view_verdict verdict;
	uint32_t members[6];
	bool view_quorate;
	unsigned needed;
} rows[] = {
	{"all are here", 8, 8, false, true, {3, 1, 2}, {1, 2, 3}, {1, 2, 3}, BUS_VIEW_READY, {1, 2, 3}, true, 2},
	{"a ghost in the group does not count",
	 8,
	 8,
	 false,
	 true,
	 {1, 2, 3},
	 {1, 2},
	 {1, 2, 3},
	 BUS_VIEW_READY,
	 {1, 2},
	 true,
	 2},
	{"a ghost does not make a majority", 8, 8, false, false, {1, 2}, {1}, {1, 2, 3}, BUS_VIEW_READY, {1}, false, 2},
	{"a host without a daemon does not count",
	 8,
	 8,
	 false,
	 true,
	 {1, 2},
	 {1, 2, 3},
	 {1, 2, 3},
	 BUS_VIEW_READY,
	 {1, 2},
	 true,
	 2},
	{"two hosts without daemons leave no majority",
	 8,
	 8,
	 false,
	 true,
	 {1},
	 {1, 2, 3},
	 {1, 2, 3},
	 BUS_VIEW_READY,
	 {1},
	 false,
	 2},
	{"a quorum device is no disk", 8, 8, false, true, {1}, {1}, {1, 2}, BUS_VIEW_READY, {1}, false, 2},
	{"the quorum service has the last word",
	 8,
	 8,
	 false,
	 false,
	 {1, 2, 3},
	 {1, 2, 3},
	 {1, 2, 3},
	 BUS_VIEW_READY,
	 {1, 2, 3},
	 false,
	 2},
	{"a host that was removed is left out",
	 8,
	 8,
	 false,
	 true,
	 {1, 2, 3},
	 {1, 2, 3},
	 {1, 2},
	 BUS_VIEW_READY,
	 {1, 2},
	 true,
	 2},
	{"two processes of one host are one member",
	 8,
	 8,
	 false,
	 true,
	 {1, 1, 2},
	 {1, 2},
	 {1, 2, 3},
	 BUS_VIEW_READY,
	 {1, 2},
	 true,
	 2},
	{"without our own process there is nothing to do",
	 8,
	 8,
	 false,
	 true,
	 {2, 3},
	 {1, 2, 3},
	 {1, 2, 3},
	 BUS_VIEW_READY,
	 {2, 3},
	 false,
	 2},
	{"without a list of nodes too", 8, 8, false, true, {1, 2}, {1, 2}, {0}, BUS_VIEW_READY, {0}, false, 1},
	{"five hosts need three", 8, 8, false, true, {1, 2}, {1, 2}, {1, 2, 3, 4, 5}, BUS_VIEW_READY, {1, 2}, false, 3},
	{"one host alone", 8, 8, false, true, {1}, {1}, {1}, BUS_VIEW_READY, {1}, true, 1},
	{"the quorum service is behind",
	 12,
	 8,
	 false,
	 true,
	 {1, 2},
	 {1, 2, 3},
	 {1, 2, 3},
	 BUS_VIEW_QUORUM_BEHIND,
	 {0},
	 false,
	 0},
	{"the group is behind", 8, 12, false, true, {1, 2, 3}, {1, 2}, {1, 2, 3}, BUS_VIEW_GROUP_BEHIND, {0}, false, 0},
	{"the group is between two rings",
	 8,
	 8,
	 true,
	 true,
	 {1, 2},
	 {1, 2, 3},
	 {1, 2, 3},
	 BUS_VIEW_GROUP_BEHIND,
	 {0},
	 false,
	 0},
};

static size_t copy(uint32_t *to, const uint32_t *from)
{
	size_t n = 0;

	while (from[n]) {
		to[n] = from[n];
		n++;
	}
	return n;
}

static void a_view_names_those_whom_all_three_services_name(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct bus_group g = {.ring = {1, rows[i].group_ring}, .moving = rows[i].moving};
		struct bus_quorum q = {.ring = {1, rows[i].quorum_ring}, .quorate = rows[i].quorate};
		struct bus_nodes nodes = {0};
		struct bus_view v = {0};
		uint32_t members[6];
		enum bus_view_verdict verdict;

		g.n = copy(g.members, rows[i].group);
		q.n = copy(q.members, rows[i].hosts);
		nodes.n = copy(nodes.ids, rows[i].nodes);
		verdict = bus_view_make(&g, &q, &nodes, 1, &v);
		if (verdict != rows[i].verdict || v.n != copy(members, rows[i].members) ||
		    memcmp(v.members, rows[i].members, v.n * sizeof(uint32_t)) != 0 ||
		    v.quorate != rows[i].view_quorate || v.needed != rows[i].needed)
			fail_msg("%s: verdict %d, %zu members, quorate %d, needed %u", rows[i].what, (int)verdict, v.n,
				 v.quorate, v.needed);
	}
}

static void a_view_names_the_configured_hosts_in_order(void **state)
{
	struct bus_group g = {.ring = {1, 8}, .members = {5}, .n = 1};
	struct bus_quorum q = {.ring = {1, 8}, .members = {5}, .n = 1};
	struct bus_nodes nodes = {.ids = {7, 5, 6}, .n = 3};
	struct bus_view v;

	(void)state;
	assert_int_equal(bus_view_make(&g, &q, &nodes, 5, &v), BUS_VIEW_READY);
	assert_int_equal(v.expected, 3);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(v.configured[i], 5 + i);
}

static void rings_of_the_same_number_are_not_the_same(void **state)
{
	struct bus_group g = {.ring = {1, 8}, .members = {1}, .n = 1};
	struct bus_quorum q = {.ring = {2, 8}, .members = {1}, .n = 1, .quorate = true};
	struct bus_nodes nodes = {.ids = {1}, .n = 1};
	struct bus_view v;

	(void)state;
	assert_int_equal(bus_view_make(&g, &q, &nodes, 1, &v), BUS_VIEW_QUORUM_BEHIND);
}

static void views_that_differ_in_anything_are_different(void **state)
{
	struct bus_view a = {.ring = {1, 8}, .members = {1, 2}, .n = 2, .quorate = true, .needed = 2, .expected = 3}, b;

	(void)state;
	b = a;
	assert_true(bus_view_equal(&a, &b));
	b.members[1] = 3;
	assert_false(bus_view_equal(&a, &b));
	b = a;
	b.expected = 4;
	assert_false(bus_view_equal(&a, &b));
	b = a;
	b.configured[2] = 4;
	assert_false(bus_view_equal(&a, &b));
	b = a;
	b.quorate = false;
	assert_false(bus_view_equal(&a, &b));
	b = a;
	b.ring.seq = 12;
	assert_false(bus_view_equal(&a, &b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_view_names_those_whom_all_three_services_name),
		cmocka_unit_test(a_view_names_the_configured_hosts_in_order),
		cmocka_unit_test(rings_of_the_same_number_are_not_the_same),
		cmocka_unit_test(views_that_differ_in_anything_are_different),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
