/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the hosts in the replicated state: who joins, what is reported, what memory is promised. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "tests/unit/cluster/state-fixture.h"

#define JOIN(name, id, address, hash)                                                                                  \
	"{'name': '" name "', 'id': " #id ", 'addresses': ['" address "'], 'fingerprint': '" HASH(hash) "'}"
#define REPORT(node, total, free) "{'node': '" node "', 'memory': {'total': " #total ", 'free': " #free "}, 'cpus': 4}"

static void a_node_joins_with_an_id_addresses_and_a_certificate(void **state)
{
	struct world *w = world_new();

	(void)state;
	world_must(w, "node.join",
		   "{'name': 'n1', 'id': 7, 'addresses': ['10.0.0.1', '10.1.0.1'], 'fingerprint': '" HASH("a1") "'}",
		   "{'name': 'n1', 'id': 7}");
	world_is(state_node_get(w->db, "n1", &w->e),
		 "{'name': 'n1', 'id': 7, 'fingerprint': '" HASH(
			 "a1") "', 'joined': 1700000001000, 'reported': null,"
			       "'report': null, 'memory_promised': 0, 'vms': 0, 'addresses': ['10.0.0.1', '10.1.0.1'], "
			       "'life': 'up', 'life_since': null, 'fencing': null, 'frozen': false, 'aside': null, "
			       "'aside_since': null, 'incarnation': null}");
	world_is(state_node_lives(w->db, &w->e), "[{'name': 'n1', 'id': 7, 'life': 'up'}]");
	assert_string_equal(world_text(state_node_by_fingerprint(w->db, HASH("a1"), &w->e), "name"), "n1");
	assert_null(state_node_by_fingerprint(w->db, HASH("b1"), &w->e));
	assert_int_equal(w->e.code, ERR_NOTFOUND);
	assert_null(state_node_get(w->db, "n2", &w->e));
	assert_string_equal(w->e.text, "node n2: there is no such node");
	world_free(w);
}

static void joining_is_refused_with_the_reason(void **state)
{
	static const struct refusal rows[] = {
		{"node.join", JOIN("n1", 9, "10.0.0.9", "a9"), ERR_CONFLICT,
		 "node n1: is a member already; remove it first, or choose another name"},
		{"node.join", JOIN("n9", 1, "10.0.0.9", "a9"), ERR_CONFLICT,
		 "node n9: id 1 is that of node n1; choose another"},
		{"node.join", JOIN("n9", 2, "10.0.0.9", "a9"), ERR_CONFLICT,
		 "node n9: id 2 was given before, and none is given twice; take 4"},
		{"node.join", JOIN("n9", 9, "10.0.0.1", "a9"), ERR_CONFLICT,
		 "node n9: address 10.0.0.1 is that of node n1; give each host its own"},
		{"node.join", JOIN("n9", 9, "10.0.0.9", "a1"), ERR_CONFLICT,
		 "node n9: its certificate is that of node n1; each host needs its own"},
		{"node.join", JOIN("n9", 0, "10.0.0.9", "a9"), ERR_INPUT,
		 "node n9: id must be a whole number from 1 to 2147483647"},
		{"node.join", JOIN("n 9", 9, "10.0.0.9", "a9"), ERR_INPUT,
		 "node: name must be a name: letters, digits, '_', '.' and '-', at most 63, beginning with a letter or "
		 "digit"},
		{"node.join", "{'name': 'n9', 'id': 9, 'addresses': ['a', 'a'], 'fingerprint': '" HASH("a9") "'}",
		 ERR_INPUT, "node n9: address a is given twice"},
		{"node.join",
		 "{'name': 'n9', 'id': 9, 'addresses': ['1', '2', '3', '4', '5'], 'fingerprint': '" HASH("a9") "'}",
		 ERR_INPUT, "node n9: addresses must be a list of 0 to 4 texts of 1 to 255 bytes"},
		{"node.join", "{'name': 'n9', 'id': 9, 'addresses': [], 'fingerprint': 'A1'}", ERR_INPUT,
		 "node n9: fingerprint must be a SHA-256: 64 hexadecimal digits in lower case"},
		{"node.join",
		 "{'name': 'n9', 'id': 9, 'addresses': [], 'fingerprint': '" HASH("a9") "', 'token': '" HASH("99") "'}",
		 ERR_AUTH, "node n9: the token is unknown, or was revoked; make a new one"},
	};
	struct world *w = world_new();

	(void)state;
	world_must(w, "node.join", JOIN("n1", 1, "10.0.0.1", "a1"), NULL);
	world_must(w, "node.join", JOIN("n3", 3, "10.0.0.3", "a3"), NULL);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_free(w);
}

static void an_id_is_never_given_twice_and_every_change_of_the_list_is_counted(void **state)
{
	static const struct refusal rows[] = {
		{"node.join", JOIN("n3", 2, "10.0.0.2", "a2"), ERR_CONFLICT,
		 "node n3: id 2 was given before, and none is given twice; take 3"},
	};
	struct world *w = world_new();

	(void)state;
	world_must(w, "node.join", JOIN("n1", 1, "10.0.0.1", "a1"), NULL);
	world_must(w, "node.join", JOIN("n2", 2, "10.0.0.2", "a2"), NULL);
	world_must(w, "node.remove", "{'name': 'n2'}", "{'name': 'n2'}");
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_must(w, "node.join", JOIN("n2", 3, "10.0.0.2", "a2"), NULL);
	assert_int_equal(world_int(state_setting_get(w->db, STATE_SETTING_RING, &w->e), "value"), 3);
	assert_int_equal(world_int(state_setting_get(w->db, STATE_SETTING_RING, &w->e), "version"), 4);
	world_free(w);
}

static void a_full_cluster_takes_no_other_node(void **state)
{
	static const struct refusal rows[] = {
		{"node.join", JOIN("n99", 99, "10.0.0.99", "a9"), ERR_CONFLICT,
		 "node n99: the cluster has 32 nodes, which is the most it can have; remove one first"},
	};
	struct world *w = world_new();
	char name[16];

	(void)state;
	for (int i = 1; i <= 32; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		world_node(w, name, i, GIB);
	}
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_free(w);
}

static void a_node_gets_other_addresses_and_a_renewed_certificate(void **state)
{
	static const struct refusal rows[] = {
		{"node.edit", "{'name': 'n1', 'addresses': ['10.0.0.2']}", ERR_CONFLICT,
		 "node n1: address 10.0.0.2 is that of node n2; give each host its own"},
		{"node.edit", "{'name': 'n9', 'addresses': ['10.0.0.9']}", ERR_NOTFOUND,
		 "node n9: there is no node n9; `node list` shows those that are there"},
	};
	struct world *w = world_new();

	(void)state;
	world_node(w, "n1", 1, GIB);
	world_node(w, "n2", 2, GIB);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_must(w, "node.edit", "{'name': 'n1', 'addresses': ['10.0.0.8'], 'fingerprint': '" HASH("c1") "'}",
		   "{'name': 'n1'}");
	world_is(world_field(state_node_by_fingerprint(w->db, HASH("c1"), &w->e), "addresses"), "['10.0.0.8']");
	world_free(w);
}

static void a_node_is_removed_only_when_nothing_needs_it(void **state)
{
	static const struct refusal rows[] = {
		{"node.remove", "{'name': 'n1'}", ERR_CONFLICT,
		 "node n1: vm web belongs to it; move or delete its guests first"},
		{"node.remove", "{'name': 'n2'}", ERR_CONFLICT,
		 "node n2: vm web is on its way from or to it; wait for that, or cancel it"},
		{"node.remove", "{'name': 'n9'}", ERR_NOTFOUND,
		 "node n9: there is no node n9; `node list` shows those that are there"},
	};
	static const struct refusal last[] = {
		{"node.remove", "{'name': 'n1'}", ERR_CONFLICT,
		 "node n1: is the only node; a cluster without any has no state"},
	};
	struct world *w = world_new();

	(void)state;
	world_node(w, "n1", 1, GIB);
	world_node(w, "n2", 2, GIB);
	world_guest(w, "web", 1, 64, "n1");
	assert_int_equal(world_move(w, 2, "web", "n2"), 0);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_must(w, "migration.cancel", "{'id': '" UUID(2) "'}", NULL);
	world_must(w, "node.remove", "{'name': 'n2'}", NULL);
	world_refuses(w, last, ARRAY_SIZE(last));
	world_free(w);
}

#define UNREACHED(what) "{'node': 'n1', 'memory': {'total': 5, 'free': 1}, 'cpus': 1, 'unreached': " what "}"
#define UNREACHED_BAD "node n1: unreached must name folders, each with a text of 1 to 255 bytes"

static void a_report_is_kept_whole_and_checked(void **state)
{
	static const struct refusal rows[] = {
		{"node.report", REPORT("n9", 10, 5), ERR_NOTFOUND,
		 "node n9: there is no node n9; `node list` shows those that are there"},
		{"node.report", REPORT("n1", 10, 11), ERR_INPUT,
		 "node n1: memory must be {total, free} in bytes, with free at most total"},
		{"node.report", REPORT("n1", 0, 0), ERR_INPUT,
		 "node n1: memory must be {total, free} in bytes, with free at most total"},
		{"node.report", REPORT("n1", 1.5, 0), ERR_INPUT,
		 "node n1: memory must be {total, free} in bytes, with free at most total"},
		{"node.report", "{'node': 'n1', 'memory': {'total': 5, 'free': 1}}", ERR_INPUT,
		 "node n1: cpus is missing"},
		{"node.report", "{'node': 'n1', 'memory': {'total': 5, 'free': 1}, 'cpus': 1, 'load': -0.5}", ERR_INPUT,
		 "node n1: load must be a number from 0 to 65536"},
		{"node.report", "{'node': 'n1', 'memory': {'total': 5, 'free': 1}, 'cpus': 1, 'networks': ['']}",
		 ERR_INPUT, "node n1: networks must be a list of 0 to 1024 texts of 1 to 255 bytes"},
		{"node.report", UNREACHED("['/a']"), ERR_INPUT, "node n1: unreached must be an object {...}"},
		{"node.report", UNREACHED("{'a': 'is gone'}"), ERR_INPUT, UNREACHED_BAD},
		{"node.report", UNREACHED("{'': 'is gone'}"), ERR_INPUT, UNREACHED_BAD},
		{"node.report", UNREACHED("{'/a': 'is gone', '/b': ''}"), ERR_INPUT, UNREACHED_BAD},
		{"node.report", UNREACHED("{'/a': null}"), ERR_INPUT, UNREACHED_BAD},
		{"node.report", UNREACHED("{'/a': 'a\\u0007bell'}"), ERR_INPUT, UNREACHED_BAD},
	};
	struct world *w = world_new();
	json_t *n;

	(void)state;
	world_node(w, "n1", 1, GIB);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_must(w, "node.report",
		   "{'node': 'n1', 'memory': {'total': 100, 'free': 5}, 'cpus': 4, 'load': 0.5, 'networks': ['lan'], "
		   "'boot_id': 'b', 'clock': {'unix_ms': 1}, 'unreached': {'/disks': 'is gone'}}",
		   NULL);
	n = state_node_get(w->db, "n1", &w->e);
	world_is(json_incref(json_object_get(n, "report")),
		 "{'node': 'n1', 'memory': {'total': 100, 'free': 5}, 'cpus': 4, 'load': 0.5, 'networks': ['lan'], "
		 "'boot_id': 'b', 'clock': {'unix_ms': 1}, 'unreached': {'/disks': 'is gone'}}");
	json_decref(n);
	/* Every ten seconds from each host: nobody's event. */
	n = state_event_list(w->db, 0, 100, &w->e);
	assert_int_equal(json_array_size(n), 1);
	json_decref(n);
	world_free(w);
}

static void memory_is_promised_to_what_runs_shall_run_or_is_on_its_way(void **state)
{
	static const struct {
		const char *what, *op, *args;
		int64_t n1, n2; /* MiB promised afterwards */
	} rows[] = {
		{"a stopped guest has none", "vm.create",
		 "{'node': 'n1', 'definition': {'name': 'b', 'uuid': '" UUID(2) "', 'memory': 100, 'vcpus': 1}}", 300,
		 0},
		{"one that shall run has", "vm.intent", "{'name': 'b', 'intent': 'running'}", 400, 0},
		{"one that shall stop and runs still has", "vm.intent", "{'name': 'a', 'intent': 'stopped'}", 400, 0},
		{"until it is down", "vm.observed", "{'vm': 'a', 'node': 'n1', 'epoch': 1, 'status': 'stopped'}", 100,
		 0},
		{"start it again", "vm.intent", "{'name': 'a', 'intent': 'running'}", 400, 0},
		{"it starts", "vm.observed", "{'vm': 'b', 'node': 'n1', 'epoch': 1, 'status': 'running'}", 400, 0},
		{"one that moves has it on both", "migration.create", "{'id': '" UUID(5) "', 'vm': 'b', 'to': 'n2'}",
		 400, 100},
		{"until that has ended", "migration.cancel", "{'id': '" UUID(5) "'}", 400, 0},
	};
	struct world *w = world_new();

	(void)state;
	world_node(w, "n1", 1, GIB);
	world_node(w, "n2", 2, GIB);
	world_guest(w, "a", 1, 300, "n1");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		world_must(w, rows[i].op, rows[i].args, NULL);
		if (world_int(state_node_get(w->db, "n1", &w->e), "memory_promised") != rows[i].n1 * MIB ||
		    world_int(state_node_get(w->db, "n2", &w->e), "memory_promised") != rows[i].n2 * MIB)
			fail_msg("%s", rows[i].what);
	}
	world_free(w);
}

static void two_placements_at_once_cannot_promise_the_same_memory(void **state)
{
	static const struct refusal rows[] = {
		{"vm.create",
		 "{'node': 'n1', 'start': true, 'definition': {'name': 'b', 'uuid': '" UUID(
			 2) "', 'memory': 600, 'vcpus': 1}}",
		 ERR_CONFLICT,
		 "vm b: 600 MiB are needed, and of the 1024 MiB of node n1 600 MiB are promised; choose another node, "
		 "or stop a guest there"},
		{"migration.create", "{'id': '" UUID(5) "', 'vm': 'c', 'to': 'n1'}", ERR_CONFLICT,
		 "migration 00000000-0000-4000-8000-000000000005: 600 MiB are needed, and of the 1024 MiB of node n1 "
		 "600 MiB are promised; choose another node, or stop a guest there"},
	};
	struct world *w = world_new();

	(void)state;
	world_node(w, "n1", 1, GIB);
	world_node(w, "n2", 2, GIB);
	world_guest(w, "c", 3, 600, "n2");
	world_guest(w, "a", 1, 600, "n1");
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_free(w);
}

#define COST(node, lost)                                                                                               \
	"{'node': '" node "', 'lost': [" lost "], 'model': 'x86-64-v3', 'with': 'x86-64-v2', 'text': 'it costs'}"

static size_t baseline_events(struct world *w)
{
	json_t *list = state_event_list(w->db, 0, 1000, &w->e), *ev;
	size_t i, n = 0;

	json_array_foreach (list, i, ev)
		n += !strcmp(json_string_value(json_object_get(ev, "op")), "node.baseline") &&
		     !strcmp(json_string_value(json_object_get(ev, "object")), "n2");
	json_decref(list);
	return n;
}

static void what_an_older_host_costs_is_an_event_once_and_goes_with_it(void **state)
{
	struct world *w = world_new();
	char before[80];

	(void)state;
	world_node(w, "n1", 1, GIB);
	world_node(w, "n2", 2, GIB);
	w->by = "node n1";
	world_must(w, "node.baseline", COST("n2", "'avx2'"), COST("n2", "'avx2'"));
	assert_int_equal(baseline_events(w), 1);
	world_is(world_field(state_setting_get(w->db, STATE_SETTING_BASELINE "n2", &w->e), "value"),
		 COST("n2", "'avx2'"));
	/* Another manager finds the same. */
	w->by = "node n2";
	world_must(w, "node.baseline", COST("n2", "'avx2'"), NULL);
	assert_int_equal(baseline_events(w), 1);
	world_must(w, "node.baseline", COST("n2", "'avx2', 'bmi1'"), NULL);
	assert_int_equal(baseline_events(w), 2);
	snprintf(before, sizeof(before), "%s", world_digest(w));
	w->by = "anna";
	world_must(w, "node.remove", "{'name': 'n2'}", NULL);
	assert_null(state_setting_get(w->db, STATE_SETTING_BASELINE "n2", &w->e));
	assert_int_equal(w->e.code, ERR_NOTFOUND);
	assert_string_not_equal(world_digest(w), before);
	world_free(w);
}

static void what_a_host_costs_is_said_by_members_only(void **state)
{
	static const struct refusal strangers[] = {
		{"node.baseline", COST("n2", "'avx2'"), ERR_FORBIDDEN,
		 "node n2: what its CPU costs is said by a node of the cluster, and anna is none"},
	};
	static const struct refusal gone[] = {
		{"node.baseline", COST("n2", "'avx2'"), ERR_FORBIDDEN,
		 "node n2: what its CPU costs is said by a node of the cluster, and node n9 is none"},
	};
	static const struct refusal rows[] = {
		{"node.baseline", COST("n9", "'avx2'"), ERR_NOTFOUND,
		 "node n9: there is no node n9; `node list` shows those that are there"},
		{"node.baseline", COST("n2", ""), ERR_INPUT,
		 "node n2: lost must be a list of 1 to 1024 texts of 1 to 255 bytes"},
		{"node.baseline", "{'node': 'n2', 'lost': ['a']}", ERR_INPUT, "node n2: text is missing"},
	};
	struct world *w = world_new();

	(void)state;
	world_node(w, "n1", 1, GIB);
	world_node(w, "n2", 2, GIB);
	w->by = "anna";
	world_refuses(w, strangers, ARRAY_SIZE(strangers));
	w->by = "node n9";
	world_refuses(w, gone, ARRAY_SIZE(gone));
	w->by = "node n1";
	world_refuses(w, rows, ARRAY_SIZE(rows));
	assert_int_equal(baseline_events(w), 0);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_node_joins_with_an_id_addresses_and_a_certificate),
		cmocka_unit_test(joining_is_refused_with_the_reason),
		cmocka_unit_test(an_id_is_never_given_twice_and_every_change_of_the_list_is_counted),
		cmocka_unit_test(a_full_cluster_takes_no_other_node),
		cmocka_unit_test(a_node_gets_other_addresses_and_a_renewed_certificate),
		cmocka_unit_test(a_node_is_removed_only_when_nothing_needs_it),
		cmocka_unit_test(a_report_is_kept_whole_and_checked),
		cmocka_unit_test(memory_is_promised_to_what_runs_shall_run_or_is_on_its_way),
		cmocka_unit_test(two_placements_at_once_cannot_promise_the_same_memory),
		cmocka_unit_test(what_an_older_host_costs_is_an_event_once_and_goes_with_it),
		cmocka_unit_test(what_a_host_costs_is_said_by_members_only),
	};

	return cmocka_run_group_tests_name("cluster/state-node", tests, NULL, NULL);
}
