/* SPDX-License-Identifier: Apache-2.0 */
/* Who may join and who may leave, by tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "node/membership.h"

#define NOW 1800000000000LL

/* Nodes n1.. with ids 1.., one link, addresses 10.0.0.ID, all online. */
struct cluster {
	struct membership m;
	struct member members[COROSYNC_NODES_MAX];
	const char *lists[COROSYNC_NODES_MAX][2];
	char names[COROSYNC_NODES_MAX][16];
	char addresses[COROSYNC_NODES_MAX][ADDRESS_TEXT_MAX];
};

static struct cluster c;

static void cluster_of(unsigned n)
{
	memset(&c, 0, sizeof(c));
	c.m = (struct membership){.members = c.members, .n = n, .n_links = 1, .highest_id = n, .command = 3};
	for (unsigned i = 0; i < n; i++) {
		snprintf(c.names[i], sizeof(c.names[i]), "n%u", i + 1);
		snprintf(c.addresses[i], sizeof(c.addresses[i]), "10.0.0.%u", i + 1);
		c.lists[i][0] = c.addresses[i];
		c.members[i] =
			(struct member){.id = i + 1, .name = c.names[i], .addresses = c.lists[i], .online = true};
	}
}

static struct join_request asks(const char *name, const char *address)
{
	struct join_request r = {.n_addresses = 1, .command = 3, .clock_ms = NOW, .godwit = "0.3"};

	snprintf(r.name, sizeof(r.name), "%s", name);
	snprintf(r.addresses[0], sizeof(r.addresses[0]), "%s", address);
	return r;
}

static void assert_add(const struct join_request *r, unsigned expect_id)
{
	struct err e = ERR_INIT;
	unsigned id = 0;

	if (membership_add(&c.m, r, NOW, &id, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(id, expect_id);
}

static void assert_add_refused(const struct join_request *r, const char *expect)
{
	struct err e = ERR_INIT;
	unsigned id = 4711;

	assert_int_equal(membership_add(&c.m, r, NOW, &id, &e), -1);
	assert_int_equal(id, 4711);
	if (!strstr(e.text, expect))
		fail_msg("\"%s\" is not in: %s", expect, e.text);
}

static void assert_remove(const char *name, bool force, const char *refusal)
{
	struct err e = ERR_INIT;
	int r = membership_remove(&c.m, name, force, &e);

	if (!refusal && r < 0)
		fail_msg("%s", e.text);
	assert_int_equal(r, refusal ? -1 : 0);
	if (refusal && !strstr(e.text, refusal))
		fail_msg("\"%s\" is not in: %s", refusal, e.text);
}

static void host_joins_with_the_next_id(void **state)
{
	struct join_request r = asks("new", "10.0.0.77");

	(void)state;
	for (unsigned n = 1; n < COROSYNC_NODES_MAX; n++) {
		cluster_of(n);
		assert_add(&r, n + 1);
	}
}

static void ids_are_never_reused(void **state)
{
	struct join_request r = asks("new", "10.0.0.77");

	(void)state;
	cluster_of(3);
	c.m.highest_id = 9; /* 4 to 9 have left */
	assert_add(&r, 10);
	c.m.highest_id = COROSYNC_ID_MAX;
	assert_add_refused(&r, "all 65535 ids have been used");
}

static void name_or_address_that_is_taken_is_refused(void **state)
{
	struct join_request r;

	(void)state;
	cluster_of(3);
	r = asks("n2", "10.0.0.77");
	assert_add_refused(&r, "node \"n2\" is in the cluster already, with id 2");
	r = asks("new", "10.0.0.3");
	assert_add_refused(&r, "node \"new\" cannot join with the address 10.0.0.3: node \"n3\" has it");
}

static void addresses_that_do_not_fit_the_links_are_refused(void **state)
{
	struct join_request r = asks("new", "10.0.0.77");

	(void)state;
	cluster_of(3);
	strcpy(r.addresses[1], "10.1.0.77");
	r.n_addresses = 2;
	assert_add_refused(&r, "2 address(es): the cluster has 1 link(s)");
	r = asks("new", "fd00::77");
	assert_add_refused(&r, "the cluster's link 0 uses IPv4");
	r = asks("new", "127.0.1.1");
	assert_add_refused(&r, "cannot reach each other");
	for (int i = 0; i < 3; i++)
		snprintf(c.addresses[i], sizeof(c.addresses[i]), "127.0.0.%d", i + 1);
	assert_add(&r, 4);
	r = asks("new", "10.0.0.77");
	assert_add_refused(&r, "cannot reach each other");
}

static void clock_more_than_30_seconds_off_is_refused_either_way(void **state)
{
	struct join_request r = asks("new", "10.0.0.77");

	(void)state;
	cluster_of(3);
	r.clock_ms = NOW + 30000;
	assert_add(&r, 4);
	r.clock_ms = NOW - 30000;
	assert_add(&r, 4);
	r.clock_ms = NOW + 30001;
	assert_add_refused(&r, "the clock of node \"new\" is 30 s ahead of that of the cluster");
	r.clock_ms = NOW - 3600000;
	assert_add_refused(&r, "the clock of node \"new\" is 3600 s behind that of the cluster");
}

static void host_with_older_commands_is_refused(void **state)
{
	struct join_request r = asks("new", "10.0.0.77");

	(void)state;
	cluster_of(3);
	r.command = 2;
	assert_add_refused(&r,
			   "node \"new\" runs Godwit 0.3, which knows the cluster's commands up to version 2, and the "
			   "cluster uses version 3");
	r.command = 4;
	assert_add(&r, 4);
}

static void full_cluster_is_refused(void **state)
{
	struct join_request r = asks("new", "10.0.0.77");

	(void)state;
	cluster_of(COROSYNC_NODES_MAX);
	assert_add_refused(&r, "the cluster has 32 nodes, and 32 is the limit");
}

static void join_that_would_cost_quorum_is_refused(void **state)
{
	struct join_request r = asks("new", "10.0.0.77");

	(void)state;
	/* 4 nodes need 3 votes, and 2 are there. */
	cluster_of(3);
	c.members[2].online = false;
	assert_add_refused(&r,
			   "with it the cluster needs 3 of 4 votes, and until it is up only 2 would be there: bring");
	/* 5 nodes need 3 as well, and 3 are there. */
	cluster_of(4);
	c.members[3].online = false;
	assert_add(&r, 5);
	/* Two nodes: one is enough. */
	cluster_of(1);
	assert_add(&r, 2);
	/* With a qdevice that does not vote yet, it is not. */
	c.m.qdevice = true;
	assert_add_refused(&r,
			   "needs 2 of 3 votes, and until it is up only 1 would be there: join without the qdevice");
	/* Three nodes need two, and the qdevice of two is no longer asked. */
	cluster_of(2);
	c.m.qdevice = c.m.qdevice_online = true;
	assert_add(&r, 3);
	c.members[1].online = false;
	assert_add_refused(&r, "needs 2 of 3 votes");
}

static void node_leaves(void **state)
{
	(void)state;
	cluster_of(3);
	assert_remove("n3", false, NULL);
	c.members[2].online = false;
	assert_remove("n3", false, NULL);
	cluster_of(2);
	assert_remove("n1", false, NULL);
}

static void unknown_last_or_occupied_node_does_not_leave(void **state)
{
	(void)state;
	cluster_of(3);
	assert_remove("n4", false, "there is no node \"n4\"");
	assert_remove("", true, "there is no node");
	c.members[1].guests = 2;
	assert_remove("n2", false, "still has 2 guest(s)");
	assert_remove("n2", true, "still has 2 guest(s)");
	cluster_of(1);
	assert_remove("n1", true, "is the last one");
}

static void removal_that_would_cost_quorum_needs_force(void **state)
{
	(void)state;
	/* Four with one down: three that are left need two, and two are there. */
	cluster_of(4);
	c.members[3].online = false;
	assert_remove("n1", false, NULL);
	/* Five with two down: four that are left need three. */
	cluster_of(5);
	c.members[3].online = c.members[4].online = false;
	assert_remove("n1", false, "3 of 4 votes would be needed then, and only 2 would be there");
	assert_remove("n1", true, NULL);
	assert_remove("n4", false, NULL);
	/* Two with the other one down. */
	cluster_of(2);
	c.members[1].online = false;
	assert_remove("n1", false, "1 of 1 votes would be needed then, and only 0");
	assert_remove("n2", false, NULL);
	/* Three with a qdevice become two with its vote. */
	cluster_of(3);
	c.members[1].online = false;
	c.m.qdevice = true;
	assert_remove("n3", false, "2 of 3 votes would be needed then, and only 1");
	c.m.qdevice_online = true;
	assert_remove("n3", false, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(host_joins_with_the_next_id),
		cmocka_unit_test(ids_are_never_reused),
		cmocka_unit_test(name_or_address_that_is_taken_is_refused),
		cmocka_unit_test(addresses_that_do_not_fit_the_links_are_refused),
		cmocka_unit_test(clock_more_than_30_seconds_off_is_refused_either_way),
		cmocka_unit_test(host_with_older_commands_is_refused),
		cmocka_unit_test(full_cluster_is_refused),
		cmocka_unit_test(join_that_would_cost_quorum_is_refused),
		cmocka_unit_test(node_leaves),
		cmocka_unit_test(unknown_last_or_occupied_node_does_not_leave),
		cmocka_unit_test(removal_that_would_cost_quorum_needs_force),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
