/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of fence devices and levels in the replicated state: what is refused, and that secrets stay inside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "tests/unit/cluster/state-fixture.h"

#define IPMI                                                                                                           \
	"{'name': 'ipmi', 'agent': 'fence_ipmilan', 'options': {'ip': '10.0.0.9', 'passwd': 'geheim'}, 'secret': "     \
	"['passwd'], 'nodes': {'n1': null, 'n2': 'port 2'}}"

static struct world *two_nodes(void)
{
	struct world *w = world_new();

	world_node(w, "n1", 1, GIB);
	world_node(w, "n2", 2, GIB);
	world_must(w, "fence.device", IPMI,
		   "{'name': 'ipmi', 'agent': 'fence_ipmilan', 'nodes': {'n1': null, 'n2': 'port 2'}}");
	world_must(w, "fence.device", "{'name': 'outlet', 'agent': 'fence_apc', 'nodes': {'n1': '7'}}", NULL);
	return w;
}

static void a_device_is_kept_with_its_secrets_and_shown_without_them(void **state)
{
	struct world *w = two_nodes();

	(void)state;
	world_is(state_fence_device_get(w->db, "ipmi", false, &w->e),
		 "{'name': 'ipmi', 'agent': 'fence_ipmilan', 'options': {'ip': '10.0.0.9', 'passwd': null}, 'secret': "
		 "['passwd'], 'plug_option': null, 'priority': 0, 'timeout_ms': 20000, 'attempts': 2, 'delay_ms': 0, "
		 "'by': 'anna', 'changed': 1700000005000, 'nodes': {'n1': null, 'n2': 'port 2'}}");
	world_must(
		w, "fence.device",
		"{'name': 'outlet', 'agent': 'fence_apc', 'nodes': {'n1': '7'}, 'plug_option': 'plug', 'priority': 5, "
		"'timeout_ms': 3000, 'attempts': 1, 'delay_ms': 500}",
		NULL);
	world_is(state_fence_device_get(w->db, "outlet", false, &w->e),
		 "{'name': 'outlet', 'agent': 'fence_apc', 'options': {}, 'secret': [], 'plug_option': 'plug', "
		 "'priority': 5, 'timeout_ms': 3000, 'attempts': 1, 'delay_ms': 500, 'by': 'anna', 'changed': "
		 "1700000007000, 'nodes': {'n1': '7'}}");
	world_is(world_field(state_fence_device_get(w->db, "ipmi", true, &w->e), "options"),
		 "{'ip': '10.0.0.9', 'passwd': 'geheim'}");
	world_is(world_field(world_item(state_fence_device_list(w->db, false, &w->e), 0), "options"),
		 "{'ip': '10.0.0.9', 'passwd': null}");
	world_is(world_field(world_item(state_fence_device_list(w->db, true, &w->e), 0), "options"),
		 "{'ip': '10.0.0.9', 'passwd': 'geheim'}");
	assert_null(state_fence_device_get(w->db, "pdu", false, &w->e));
	assert_string_equal(w->e.text, "fence device pdu: there is no such fence device");
	world_free(w);
}

static void no_event_and_no_audit_log_has_a_secret(void **state)
{
	struct world *w = two_nodes();
	json_t *lists[2];

	(void)state;
	world_must(w, "fence.level", "{'node': 'n1', 'level': 1, 'devices': ['ipmi']}", NULL);
	lists[0] = state_event_list(w->db, 0, 100, &w->e);
	lists[1] = state_audit_list(w->db, 0, 100, &w->e);
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		_free_ char *text = json_dumps(lists[i], JSON_COMPACT);

		assert_non_null(strstr(text, "fence_ipmilan"));
		assert_null(strstr(text, "geheim"));
		json_decref(lists[i]);
	}
	world_free(w);
}

static void an_edit_without_the_secret_keeps_it(void **state)
{
	static const struct refusal gone[] = {
		{"fence.device",
		 "{'name': 'ipmi', 'agent': 'fence_ipmilan', 'options': {'user': null}, 'nodes': {'n1': null}}",
		 ERR_INPUT, "fence device ipmi: options.user has no value to keep; give one"},
	};
	struct world *w = two_nodes();

	(void)state;
	world_must(w, "fence.device",
		   "{'name': 'ipmi', 'agent': 'fence_ipmilan', 'options': {'ip': '10.0.0.8', 'passwd': null}, "
		   "'secret': ['passwd'], 'nodes': {'n1': null}}",
		   NULL);
	world_is(world_field(state_fence_device_get(w->db, "ipmi", true, &w->e), "options"),
		 "{'ip': '10.0.0.8', 'passwd': 'geheim'}");
	world_refuses(w, gone, ARRAY_SIZE(gone));
	world_free(w);
}

static void a_device_is_refused_with_the_reason(void **state)
{
	static const struct refusal rows[] = {
		{"fence.device", "{'name': 'x', 'agent': '/bin/sh', 'nodes': {'n1': null}}", ERR_INPUT,
		 "fence device x: agent must be a name: letters, digits, '_', '.' and '-', at most 63, beginning with "
		 "a letter or digit"},
		{"fence.device", "{'name': 'x', 'agent': 'fence_x', 'nodes': {}}", ERR_INPUT,
		 "fence device x: nodes must be an object of 1 to 32: {\"NODE\": \"PLUG\"}"},
		{"fence.device", "{'name': 'x', 'agent': 'fence_x', 'nodes': {'n1': 7}}", ERR_INPUT,
		 "fence device x: nodes.n1 must be a text of 1 to 255 bytes, or null"},
		{"fence.device", "{'name': 'x', 'agent': 'fence_x', 'nodes': {'n 1': null}}", ERR_INPUT,
		 "fence device x: nodes: \"n 1\" is not the name of a node"},
		{"fence.device", "{'name': 'x', 'agent': 'fence_x', 'nodes': {'n9': null}}", ERR_NOTFOUND,
		 "fence device x: there is no node n9; `node list` shows those that are there"},
		{"fence.device", "{'name': 'x', 'agent': 'fence_x', 'nodes': {'n1': null}, 'options': {'a=b': 'c'}}",
		 ERR_INPUT, "fence device x: options: \"a=b\" is not the name of an option"},
		{"fence.device", "{'name': 'x', 'agent': 'fence_x', 'nodes': {'n1': null}, 'options': {'a': 5}}",
		 ERR_INPUT,
		 "fence device x: options.a must be a text of at most 1024 bytes without control characters"},
		{"fence.device", "{'name': 'x', 'agent': 'fence_x', 'nodes': {'n1': null}, 'options': {'a': 'b\\nc'}}",
		 ERR_INPUT,
		 "fence device x: options.a must be a text of at most 1024 bytes without control characters"},
		{"fence.device", "{'name': 'x', 'agent': 'fence_x', 'nodes': {'n1': null}, 'secret': ['passwd']}",
		 ERR_INPUT, "fence device x: secret: there is no option passwd"},
		{"fence.device", "{'name': 'ipmi', 'agent': 'fence_ipmilan', 'nodes': {'n2': null}}", ERR_CONFLICT,
		 "fence device ipmi: a level of node n1 uses it; keep that node, or change its levels first"},
		{"fence.device-delete", "{'name': 'ipmi'}", ERR_CONFLICT,
		 "fence device ipmi: a level of node n1 uses it; change its levels first"},
		{"fence.device-delete", "{'name': 'x'}", ERR_NOTFOUND,
		 "fence device x: there is no such fence device; `fence list` shows those that are there"},
		{"fence.level", "{'node': 'n9', 'level': 1, 'devices': []}", ERR_NOTFOUND,
		 "node n9: there is no node n9; `node list` shows those that are there"},
		{"fence.level", "{'node': 'n1', 'level': 10, 'devices': []}", ERR_INPUT,
		 "node n1: level must be a whole number from 1 to 9"},
		{"fence.level", "{'node': 'n1', 'level': 1, 'devices': ['x']}", ERR_NOTFOUND,
		 "node n1: there is no fence device x; `fence list` shows those that are there"},
		{"fence.level", "{'node': 'n2', 'level': 1, 'devices': ['outlet']}", ERR_CONFLICT,
		 "node n2: fence device outlet does not know it; add it to the nodes of that device"},
		{"fence.level", "{'node': 'n1', 'level': 1, 'devices': ['ipmi', 'ipmi']}", ERR_INPUT,
		 "node n1: fence device ipmi is given twice"},
	};
	struct world *w = two_nodes();

	(void)state;
	world_must(w, "fence.level", "{'node': 'n1', 'level': 2, 'devices': ['ipmi']}", NULL);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_must(w, "fence.level", "{'node': 'n1', 'level': 2, 'devices': []}", NULL);
	world_must(w, "fence.device-delete", "{'name': 'ipmi'}", NULL);
	world_is(state_fence_plan(w->db, "n2", &w->e), "[]");
	world_free(w);
}

static void there_are_not_too_many_devices(void **state)
{
	struct world *w = two_nodes();

	(void)state;
	for (int i = 0; i < 126; i++) {
		_free_ char *name = xasprintf("d%d", i);

		assert_int_equal(
			DO(w, "fence.device", "{s:s, s:s, s:{s:n}}", "name", name, "agent", "fence_x", "nodes", "n1"),
			0);
	}
	assert_int_equal(world_say(w, "fence.device", "{'name': 'x', 'agent': 'fence_x', 'nodes': {'n1': null}}"), -1);
	assert_string_equal(w->e.text,
			    "fence device x: there are 128 fence devices, which is the most; delete one first");
	world_must(w, "fence.device", "{'name': 'd5', 'agent': 'fence_y', 'nodes': {'n1': null}}", NULL);
	world_free(w);
}

static void the_plan_of_a_node_has_its_levels_in_order_or_each_device_by_itself(void **state)
{
	struct world *w = two_nodes();

	(void)state;
	world_is(state_fence_plan(w->db, "n1", &w->e),
		 "[{'level': 1, 'devices': [{'name': 'ipmi', 'agent': 'fence_ipmilan', 'options': {'ip': '10.0.0.9', "
		 "'passwd': 'geheim'}, 'plug': null}]},"
		 "{'level': 2, 'devices': [{'name': 'outlet', 'agent': 'fence_apc', 'options': {}, 'plug': '7'}]}]");
	world_must(w, "fence.level", "{'node': 'n1', 'level': 3, 'devices': ['outlet', 'ipmi']}",
		   "{'node': 'n1', 'level': 3, 'devices': ['outlet', 'ipmi']}");
	world_must(w, "fence.level", "{'node': 'n2', 'level': 1, 'devices': ['ipmi']}", NULL);
	world_is(state_fence_plan(w->db, "n1", &w->e),
		 "[{'level': 3, 'devices': [{'name': 'outlet', 'agent': 'fence_apc', 'options': {}, 'plug': '7'},"
		 "{'name': 'ipmi', 'agent': 'fence_ipmilan', 'options': {'ip': '10.0.0.9', 'passwd': 'geheim'}, "
		 "'plug': null}]}]");
	world_is(state_fence_level_list(w->db, &w->e),
		 "[{'node': 'n1', 'level': 3, 'devices': ['outlet', 'ipmi']}, {'node': 'n2', 'level': 1, 'devices': "
		 "['ipmi']}]");
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_device_is_kept_with_its_secrets_and_shown_without_them),
		cmocka_unit_test(no_event_and_no_audit_log_has_a_secret),
		cmocka_unit_test(an_edit_without_the_secret_keeps_it),
		cmocka_unit_test(a_device_is_refused_with_the_reason),
		cmocka_unit_test(there_are_not_too_many_devices),
		cmocka_unit_test(the_plan_of_a_node_has_its_levels_in_order_or_each_device_by_itself),
	};

	return cmocka_run_group_tests_name("cluster/state-fence", tests, NULL, NULL);
}
