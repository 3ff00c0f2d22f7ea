/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the named networks in the replicated state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "tests/unit/cluster/state-fixture.h"

#define NET(name, bridge, more) "{'name': '" name "', 'bridge': '" bridge "'" more "}"

static struct world *with_a_lan(void)
{
	struct world *w = world_new();

	world_node(w, "n1", 1, GIB);
	world_must(w, "network.create", NET("lan", "br0", ", 'uplink': 'eth0', 'mtu': 9000"), "{'name': 'lan'}");
	return w;
}

static void a_network_is_a_bridge_and_a_vlan_on_every_host(void **state)
{
	struct world *w = with_a_lan();

	(void)state;
	world_is(state_network_get(w->db, "lan", &w->e),
		 "{'name': 'lan', 'bridge': 'br0', 'vlan': 0, 'uplink': 'eth0', 'mtu': 9000, 'created': 1700000003000, "
		 "'vms': []}");
	world_must(w, "network.create", NET("dmz", "br0", ", 'vlan': 5"), NULL);
	world_is(world_item(state_network_list(w->db, &w->e), 0),
		 "{'name': 'dmz', 'bridge': 'br0', 'vlan': 5, 'uplink': null, 'mtu': null, 'created': 1700000004000, "
		 "'vms': []}");
	world_free(w);
}

static void what_is_refused_says_why(void **state)
{
	static const struct refusal rows[] = {
		{"network.create", NET("lan", "br1", ""), ERR_CONFLICT,
		 "network lan: exists already; choose another name"},
		{"network.create", NET("other", "br0", ""), ERR_CONFLICT,
		 "network other: bridge br0 with vlan 0 is network lan already; choose another bridge or vlan"},
		{"network.create", NET("other", "a-name-that-is-too-long", ""), ERR_INPUT,
		 "network other: bridge must be a text of 1 to 15 bytes without control characters"},
		{"network.create", NET("other", "br1", ", 'vlan': 4095"), ERR_INPUT,
		 "network other: vlan must be a whole number from 0 to 4094"},
		{"network.create", NET("other", "br1", ", 'mtu': 1"), ERR_INPUT,
		 "network other: mtu must be a whole number from 68 to 65535"},
		{"network.create", "{'name': 'other'}", ERR_INPUT, "network other: bridge is missing"},
		{"network.delete", "{'name': 'other'}", ERR_NOTFOUND,
		 "network other: there is no such network; `network list` shows those that are there"},
		{"network.delete", "{'name': 'lan'}", ERR_CONFLICT,
		 "network lan: vm web uses it; edit or delete the guests that do first"},
	};
	struct world *w = with_a_lan();

	(void)state;
	world_must(w, "vm.create",
		   "{'node': 'n1', 'definition': {'name': 'web', 'uuid': '" UUID(1) "', 'memory': 64, 'vcpus': 1, "
										    "'nics': [{'network': 'lan'}]}}",
		   NULL);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_is(world_field(state_network_get(w->db, "lan", &w->e), "vms"), "['web']");
	world_must(w, "vm.delete", "{'name': 'web'}", NULL);
	world_must(w, "network.delete", "{'name': 'lan'}", "{'name': 'lan'}");
	assert_null(state_network_get(w->db, "lan", &w->e));
	assert_string_equal(w->e.text, "network lan: there is no such network");
	world_free(w);
}

static void a_guest_that_names_the_bridge_uses_the_network(void **state)
{
	static const struct refusal rows[] = {
		{"network.delete", "{'name': 'lan'}", ERR_CONFLICT,
		 "network lan: vm web uses it; edit or delete the guests that do first"},
	};
	struct world *w = with_a_lan();

	(void)state;
	world_must(w, "vm.create",
		   "{'node': 'n1', 'definition': {'name': 'web', 'uuid': '" UUID(
			   1) "', 'memory': 64, 'vcpus': 1, "
			      "'nics': [{'bridge': 'br0'}, {'bridge': 'br0'}]}}",
		   NULL);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_is(world_field(state_network_get(w->db, "lan", &w->e), "vms"), "['web']");
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_network_is_a_bridge_and_a_vlan_on_every_host),
		cmocka_unit_test(what_is_refused_says_why),
		cmocka_unit_test(a_guest_that_names_the_bridge_uses_the_network),
	};

	return cmocka_run_group_tests_name("cluster/state-network", tests, NULL, NULL);
}
