/* SPDX-License-Identifier: Apache-2.0 */
/* Named networks: the rules, and real bridges and VLANs in a network namespace of the test's own. */
#include <errno.h>
#include <net/if.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "hv/tap.h"
#include "node/network.h"

static struct nl_sock *sock;
static bool can_bridge, can_vlan;

static const struct network plain = {.name = "web", .bridge = "br-web"};
static const struct network tagged = {.name = "web", .bridge = "br-web", .uplink = "up0", .vlan = 100};

/* A namespace for the whole program, with up0 (one end of a veth pair), up. */
static int enter_namespace(void **state)
{
	struct err e = ERR_INIT;
	struct rtnl_link *change;

	(void)state;
	if (unshare(CLONE_NEWNET) < 0) {
		print_message("no namespace (%s): the tests with real bridges are skipped\n", strerror(errno));
		return 0;
	}
	sock = nl_socket_alloc();
	if (!sock || nl_connect(sock, NETLINK_ROUTE) < 0 || rtnl_link_veth_add(sock, "up0", "up0-peer", getpid()) < 0) {
		print_message("this kernel has no veth: the tests with real bridges are skipped\n");
		return 0;
	}
	change = rtnl_link_alloc();
	rtnl_link_set_ifindex(change, (int)if_nametoindex("up0"));
	rtnl_link_set_flags(change, IFF_UP);
	if (rtnl_link_change(sock, change, change, 0) < 0)
		return -1;
	rtnl_link_put(change);
	can_bridge = network_create(&plain, &e) == 0;
	can_vlan = can_bridge && network_create(&tagged, &e) == 0;
	if (!can_vlan)
		print_message("%s: the tests that need it are skipped\n", e.text);
	return can_bridge ? network_delete(&tagged, &e) : 0;
}

static int leave_namespace(void **state)
{
	(void)state;
	nl_socket_free(sock);
	return 0;
}

static void need_bridges(void)
{
	if (can_bridge)
		return;
	print_message("# skipped: needs root, and a kernel with bridges\n");
	skip();
}

static void need_vlans(void)
{
	if (can_vlan)
		return;
	print_message("# skipped: needs root, and a kernel with 802.1q\n");
	skip();
}

/* With all that this kernel can. */
static struct network widest(void)
{
	need_bridges();
	return can_vlan ? tagged : plain;
}

static struct rtnl_link *get(const char *name)
{
	struct rtnl_link *link = NULL;

	assert_int_equal(rtnl_link_get_kernel(sock, 0, name, &link), 0);
	return link;
}

static void add_bridge_by_hand(const char *name, bool up)
{
	struct rtnl_link *link = rtnl_link_alloc();

	rtnl_link_set_type(link, "bridge");
	rtnl_link_set_name(link, name);
	if (up)
		rtnl_link_set_flags(link, IFF_UP);
	assert_int_equal(rtnl_link_add(sock, link, NLM_F_CREATE), 0);
	rtnl_link_put(link);
}

static void remove_by_hand(const char *name)
{
	struct rtnl_link *link = get(name);

	assert_int_equal(rtnl_link_delete(sock, link), 0);
	rtnl_link_put(link);
}

static void refused(int r, const struct err *e, const char *words)
{
	assert_int_equal(r, -1);
	if (!strstr(e->text, words))
		fail_msg("\"%s\" lacks \"%s\"", e->text, words);
}

static void wrong_fields_are_refused_with_the_reason(void **state)
{
	static const struct {
		struct network n;
		const char *words;
	} rows[] = {
		{{.name = "", .bridge = "br0"}, "network \"\": a name is"},
		{{.name = "a/b", .bridge = "br0"}, "a name is letters"},
		{{.name = "a", .bridge = ""}, "bridge \"\""},
		{{.name = "a", .bridge = "br/0"}, "bridge \"br/0\""},
		{{.name = "a", .bridge = ".."}, "bridge \"..\""},
		{{.name = "a", .bridge = "br0", .uplink = "eth0", .vlan = 4095}, "vlan 4095: must be from 1 to 4094"},
		{{.name = "a", .bridge = "br0", .vlan = 5}, "Give an uplink"},
		{{.name = "a", .bridge = "br0", .uplink = "eth0"}, "uplink eth0 needs a vlan"},
		{{.name = "a", .bridge = "br0", .uplink = "br0", .vlan = 5}, "both br0"},
		{{.name = "a", .bridge = "br0", .uplink = "e 0", .vlan = 5}, "no interface name"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct err e = ERR_INIT;

		refused(network_valid(&rows[i].n, &e), &e, rows[i].words);
		assert_int_equal(e.code, ERR_INPUT);
	}
	assert_int_equal(network_valid(&plain, NULL), 0);
	assert_int_equal(network_valid(&tagged, NULL), 0);
}

static void check_names_what_is_missing_and_the_next_step(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	need_bridges();
	refused(network_check(&plain, &e), &e,
		"network web: bridge br-web does not exist on this host; godwit network");
	add_bridge_by_hand("br-web", false);
	refused(network_check(&plain, &e), &e, "bridge br-web is down; ip link set br-web up");
	refused(network_check(&(struct network){.name = "x", .bridge = "up0"}, &e), &e,
		"network x: up0 is no bridge on this host but a veth");
	remove_by_hand("br-web");
}

static void create_is_idempotent_and_delete_leaves_nothing(void **state)
{
	struct network n = widest();
	struct rtnl_link *bridge, *vlan;
	struct err e = ERR_INIT;
	int index;

	(void)state;
	assert_int_equal(network_create(&n, &e), 0);
	bridge = get("br-web");
	index = rtnl_link_get_ifindex(bridge);
	assert_string_equal(rtnl_link_get_ifalias(bridge), "godwit:web");
	rtnl_link_put(bridge);
	if (can_vlan) {
		vlan = get("up0.100");
		assert_string_equal(rtnl_link_get_ifalias(vlan), "godwit:web");
		assert_int_equal(rtnl_link_get_master(vlan), index);
		rtnl_link_put(vlan);
	}
	if (network_check(&n, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(network_create(&n, &e), 0);
	assert_int_equal(if_nametoindex("br-web"), index);
	assert_int_equal(network_delete(&n, &e), 0);
	assert_int_equal(if_nametoindex("br-web"), 0);
	assert_int_equal(if_nametoindex("up0.100"), 0);
	assert_int_equal(network_delete(&n, &e), 0);
}

static void half_made_network_is_completed(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	need_vlans();
	assert_int_equal(network_create(&plain, &e), 0);
	refused(network_check(&tagged, &e), &e,
		"VLAN 100 of up0 is not on bridge br-web; godwit network create joins it");
	assert_int_equal(network_create(&tagged, &e), 0);
	assert_int_equal(network_check(&tagged, &e), 0);
	assert_int_equal(network_delete(&tagged, &e), 0);
}

static void bridge_of_the_administrator_is_used_and_never_removed(void **state)
{
	struct network n = widest();
	struct err e = ERR_INIT;

	(void)state;
	add_bridge_by_hand("br-web", true);
	assert_int_equal(network_create(&n, &e), 0);
	assert_int_equal(network_check(&n, &e), 0);
	assert_int_equal(network_delete(&n, &e), 0);
	assert_int_equal(if_nametoindex("up0.100"), 0);
	assert_int_not_equal(if_nametoindex("br-web"), 0);
	remove_by_hand("br-web");
}

static void bridge_of_another_network_is_refused(void **state)
{
	struct network other = {.name = "db", .bridge = "br-web"};
	struct err e = ERR_INIT;

	(void)state;
	need_bridges();
	assert_int_equal(network_create(&plain, &e), 0);
	refused(network_create(&other, &e), &e, "network db: bridge br-web belongs to network web");
	refused(network_check(&other, &e), &e, "belongs to network web");
	assert_int_equal(network_delete(&other, &e), 0);
	assert_int_not_equal(if_nametoindex("br-web"), 0);
	assert_int_equal(network_delete(&plain, &e), 0);
}

static void vlan_that_is_in_use_is_refused_and_nothing_half_made_stays(void **state)
{
	struct network second = {.name = "db", .bridge = "br-db", .uplink = "up0", .vlan = 100};
	struct network lost = {.name = "db", .bridge = "br-db", .uplink = "nosuch0", .vlan = 100};
	struct network down = {.name = "db", .bridge = "br-db", .uplink = "up0-peer", .vlan = 100};
	struct err e = ERR_INIT;

	(void)state;
	need_vlans();
	assert_int_equal(network_create(&tagged, &e), 0);
	refused(network_create(&second, &e), &e, "network db: VLAN 100 of up0 (up0.100) is joined to br-web already");
	assert_int_equal(if_nametoindex("br-db"), 0);
	refused(network_create(&lost, &e), &e, "network db: uplink nosuch0 does not exist on this host");
	refused(network_create(&down, &e), &e, "network db: uplink up0-peer is down; ip link set up0-peer up");
	assert_int_equal(if_nametoindex("br-db"), 0);
	assert_int_equal(network_delete(&tagged, &e), 0);
}

static void bridge_with_guests_on_it_is_not_removed(void **state)
{
	struct network n = widest();
	char tap[IFNAMSIZ];
	struct err e = ERR_INIT;
	json_t *list = NULL, *o;
	int fd;

	(void)state;
	assert_int_equal(network_create(&n, &e), 0);
	fd = tap_create("br-web", tap, &e);
	if (fd < 0)
		fail_msg("%s", e.text);
	refused(network_delete(&n, &e), &e, "network web: bridge br-web still has 1 ports");
	assert_non_null(strstr(e.text, tap));
	assert_int_equal(network_check(&n, &e), 0);
	assert_int_equal(network_list(&list, &e), 0);
	assert_int_equal(json_array_size(list), 1);
	o = json_array_get(list, 0);
	assert_string_equal(json_string_value(json_object_get(o, "network")), "web");
	assert_int_equal(json_integer_value(json_object_get(o, "vlan")), n.vlan);
	assert_int_equal(json_array_size(json_object_get(o, "ports")), can_vlan ? 2 : 1);
	if (can_vlan)
		assert_string_equal(json_string_value(json_object_get(o, "uplink")), "up0");
	json_decref(list);
	close(fd);
	assert_int_equal(network_delete(&n, &e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wrong_fields_are_refused_with_the_reason),
		cmocka_unit_test(check_names_what_is_missing_and_the_next_step),
		cmocka_unit_test(create_is_idempotent_and_delete_leaves_nothing),
		cmocka_unit_test(half_made_network_is_completed),
		cmocka_unit_test(bridge_of_the_administrator_is_used_and_never_removed),
		cmocka_unit_test(bridge_of_another_network_is_refused),
		cmocka_unit_test(vlan_that_is_in_use_is_refused_and_nothing_half_made_stays),
		cmocka_unit_test(bridge_with_guests_on_it_is_not_removed),
	};

	return cmocka_run_group_tests_name("node/network", tests, enter_namespace, leave_namespace);
}
