/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of what HA is to do for guests: settings, dependencies, restarts that are counted, homes. */
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

/* web, db and app run on n1. */
static struct world *three_guests(void)
{
	struct world *w = world_new();

	world_node(w, "n1", 1, 4 * GIB);
	world_node(w, "n2", 2, 4 * GIB);
	world_guest(w, "web", 1, 64, "n1");
	world_guest(w, "db", 2, 64, "n1");
	world_guest(w, "app", 3, 64, "n1");
	return w;
}

static void a_guest_without_settings_is_restarted_unless_the_cluster_says_otherwise(void **state)
{
	static const char *const values[][2] = {
		{"'none'", "none"}, {"'restart'", "restart"}, {"'perhaps'", "restart"},
		{"5", "restart"},   {"null", "restart"},
	};
	struct world *w = three_guests();

	(void)state;
	world_is(state_ha_get(w->db, "web", &w->e),
		 "{'vm': 'web', 'mode': 'restart', 'own_mode': false, 'priority': 100, 'max_restarts': 3, 'failback': "
		 "'never', 'home': null, 'after': [], 'restarts': []}");
	world_must(w, "vm.ha", "{'name': 'db', 'mode': 'restart'}", "{'name': 'db', 'mode': 'restart'}");
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		_free_ char *args = xasprintf("{'key': 'ha.default', 'value': %s}", values[i][0]);

		world_must(w, "setting.set", args, NULL);
		assert_string_equal(world_text(state_ha_get(w->db, "web", &w->e), "mode"), values[i][1]);
		assert_string_equal(world_text(state_ha_get(w->db, "db", &w->e), "mode"), "restart");
	}
	world_must(w, "setting.set", "{'key': 'ha.default', 'value': 'none'}", NULL);
	world_must(w, "vm.ha", "{'name': 'db', 'mode': 'default'}", NULL);
	assert_string_equal(world_text(state_ha_get(w->db, "db", &w->e), "mode"), "none");
	assert_null(state_ha_get(w->db, "none", &w->e));
	assert_int_equal(w->e.code, ERR_NOTFOUND);
	world_free(w);
}

static void what_a_command_leaves_out_stays(void **state)
{
	struct world *w = three_guests();
	json_t *list;

	(void)state;
	world_must(
		w, "vm.ha",
		"{'name': 'web', 'mode': 'none', 'priority': 0, 'max_restarts': 0, 'failback': 'when-idle', 'after': "
		"[{'vm': 'db', 'until': 'port', 'address': '[fd00::5]:5432'}, {'vm': 'app', 'until': 'delay', "
		"'seconds': 30}]}",
		NULL);
	world_must(w, "vm.ha", "{'name': 'web', 'priority': 7}", "{'name': 'web', 'priority': 7}");
	world_is(
		state_ha_get(w->db, "web", &w->e),
		"{'vm': 'web', 'mode': 'none', 'own_mode': true, 'priority': 7, 'max_restarts': 0, 'failback': "
		"'when-idle', 'home': null, 'after': [{'vm': 'db', 'until': 'port', 'seconds': null, 'address': "
		"'[fd00::5]:5432'}, {'vm': 'app', 'until': 'delay', 'seconds': 30, 'address': null}], 'restarts': []}");
	list = state_ha_list(w->db, &w->e);
	assert_int_equal(json_array_size(list), 3);
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "vm")), "app");
	json_decref(list);
	world_must(w, "vm.ha", "{'name': 'web', 'after': []}", NULL);
	world_is(world_field(state_ha_get(w->db, "web", &w->e), "after"), "[]");
	world_free(w);
}

static void settings_are_refused_with_the_reason(void **state)
{
	static const struct refusal rows[] = {
		{"vm.ha", "{'name': 'none'}", ERR_NOTFOUND,
		 "vm none: there is no vm none; `vm list` shows those that are there"},
		{"vm.ha", "{'name': 'web', 'mode': 'always'}", ERR_INPUT,
		 "vm web: mode must be one of restart, none, default"},
		{"vm.ha", "{'name': 'web', 'priority': 1001}", ERR_INPUT,
		 "vm web: priority must be a whole number from 0 to 1000"},
		{"vm.ha", "{'name': 'web', 'max_restarts': 33}", ERR_INPUT,
		 "vm web: max_restarts must be a whole number from 0 to 32"},
		{"vm.ha", "{'name': 'web', 'failback': 'now'}", ERR_INPUT,
		 "vm web: failback must be one of never, when-idle"},
		{"vm.ha", "{'name': 'web', 'after': {}}", ERR_INPUT, "vm web: after must be a list of at most 16"},
		{"vm.ha", "{'name': 'web', 'after': ['db']}", ERR_INPUT, "vm web: after[0] must be an object {...}"},
		{"vm.ha", "{'name': 'web', 'after': [{'vm': 'db'}]}", ERR_INPUT, "vm web: until is missing"},
		{"vm.ha", "{'name': 'web', 'after': [{'vm': 'none', 'until': 'running'}]}", ERR_NOTFOUND,
		 "vm web: there is no vm none; `vm list` shows those that are there"},
		{"vm.ha", "{'name': 'web', 'after': [{'vm': 'web', 'until': 'running'}]}", ERR_INPUT,
		 "vm web: cannot wait for itself"},
		{"vm.ha", "{'name': 'web', 'after': [{'vm': 'db', 'until': 'delay'}]}", ERR_INPUT,
		 "vm web: after: seconds go with until delay, and with nothing else (vm db)"},
		{"vm.ha", "{'name': 'web', 'after': [{'vm': 'db', 'until': 'running', 'seconds': 5}]}", ERR_INPUT,
		 "vm web: after: seconds go with until delay, and with nothing else (vm db)"},
		{"vm.ha", "{'name': 'web', 'after': [{'vm': 'db', 'until': 'port'}]}", ERR_INPUT,
		 "vm web: after: an address goes with until port, and with nothing else (vm db)"},
		{"vm.ha", "{'name': 'web', 'after': [{'vm': 'db', 'until': 'port', 'address': '10.0.0.5'}]}", ERR_INPUT,
		 "vm web: after: address must be ADDRESS:PORT, such as 10.0.0.5:80 (vm db)"},
		{"vm.ha", "{'name': 'web', 'after': [{'vm': 'db', 'until': 'port', 'address': 'db:99999'}]}", ERR_INPUT,
		 "vm web: after: address must be ADDRESS:PORT, such as 10.0.0.5:80 (vm db)"},
		{"vm.ha",
		 "{'name': 'web', 'after': [{'vm': 'db', 'until': 'running'}, {'vm': 'db', 'until': 'running'}]}",
		 ERR_INPUT, "vm web: after: vm db is given twice"},
	};
	struct world *w = three_guests();

	(void)state;
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_free(w);
}

static void a_ring_of_guests_that_wait_for_each_other_is_refused_by_name(void **state)
{
	static const struct refusal rows[] = {
		{"vm.ha", "{'name': 'app', 'after': [{'vm': 'web', 'until': 'running'}]}", ERR_CONFLICT,
		 "vm app: would wait for itself: app waits for web, web waits for db, db waits for app, so none of "
		 "them "
		 "would ever start"},
		{"vm.ha", "{'name': 'db', 'after': [{'vm': 'web', 'until': 'running'}]}", ERR_CONFLICT,
		 "vm db: would wait for itself: db waits for web, web waits for db, so none of them would ever start"},
		{"vm.delete", "{'name': 'app'}", ERR_CONFLICT,
		 "vm app: vm db waits for it to start; take it out of what that one waits for"},
	};
	struct world *w = three_guests();

	(void)state;
	world_must(w, "vm.ha", "{'name': 'web', 'after': [{'vm': 'db', 'until': 'running'}]}", NULL);
	world_must(w, "vm.ha", "{'name': 'db', 'after': [{'vm': 'app', 'until': 'running'}]}", NULL);
	world_must(w, "vm.intent", "{'name': 'app', 'intent': 'stopped'}", NULL);
	world_must(w, "vm.observed", "{'vm': 'app', 'node': 'n1', 'epoch': 1, 'status': 'stopped'}", NULL);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	/* Two ways to one guest are no ring. */
	world_must(w, "vm.ha",
		   "{'name': 'web', 'after': [{'vm': 'db', 'until': 'running'}, {'vm': 'app', 'until': 'running'}]}",
		   NULL);
	world_must(w, "vm.ha", "{'name': 'db', 'after': []}", NULL);
	world_must(w, "vm.ha", "{'name': 'web', 'after': []}", NULL);
	world_must(w, "vm.delete", "{'name': 'app'}", NULL);
	world_free(w);
}

static void a_long_chain_is_checked_and_a_long_ring_told_as_far_as_it_goes(void **state)
{
	struct world *w = world_new();
	char name[16], before[16] = "";

	(void)state;
	world_node(w, "n1", 1, 64 * GIB);
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "g%03d", i);
		assert_int_equal(
			DO(w, "vm.create", "{s:o, s:s}", "definition", world_definition(name, i, 16), "node", "n1"), 0);
		if (i)
			assert_int_equal(DO(w, "vm.ha", "{s:s, s:[{s:s, s:s}]}", "name", name, "after", "vm", before,
					    "until", "running"),
					 0);
		snprintf(before, sizeof(before), "%s", name);
	}
	assert_int_equal(world_say(w, "vm.ha", "{'name': 'g000', 'after': [{'vm': 'g299', 'until': 'running'}]}"), -1);
	assert_int_equal(w->e.code, ERR_CONFLICT);
	assert_non_null(strstr(w->e.text, "g000 waits for g299, g299 waits for g298, "));
	world_free(w);
}

static void a_guest_that_failed_starts_again_under_a_new_epoch_only(void **state)
{
	static const struct refusal early[] = {
		{"vm.restart", "{'name': 'web', 'epoch': 1, 'kind': 'crash'}", ERR_CONFLICT,
		 "vm web: has not failed (running); there is nothing to restart"},
		{"vm.restart", "{'name': 'none', 'epoch': 1, 'kind': 'crash'}", ERR_NOTFOUND,
		 "vm none: there is no vm none; `vm list` shows those that are there"},
		{"vm.restart", "{'name': 'web', 'epoch': 1, 'kind': 'mood'}", ERR_INPUT,
		 "vm web: kind must be one of crash, failed, host, asked"},
	};
	static const struct refusal late[] = {
		{"vm.restart", "{'name': 'web', 'epoch': 1, 'kind': 'crash'}", ERR_CONFLICT,
		 "vm web: is at epoch 2, not 1; look at it again"},
		{"vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 1}", ERR_CONFLICT,
		 "vm web: is at epoch 2, not 1; look at it again"},
		{"vm.restart", "{'name': 'web', 'epoch': 2, 'kind': 'crash'}", ERR_CONFLICT,
		 "vm web: has not failed (no report yet); there is nothing to restart"},
		{"vm.restart", "{'name': 'db', 'epoch': 1, 'kind': 'crash'}", ERR_CONFLICT,
		 "vm db: shall not run; start it"},
	};
	struct world *w = three_guests();

	(void)state;
	world_must(w, "vm.intent", "{'name': 'db', 'intent': 'stopped'}", NULL);
	world_refuses(w, early, ARRAY_SIZE(early));
	world_must(w, "vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 1, 'status': 'failed'}", NULL);
	world_must(w, "vm.restart", "{'name': 'web', 'epoch': 1, 'kind': 'crash', 'reason': 'its QEMU is gone'}",
		   "{'name': 'web', 'owner': 'n1', 'epoch': 2, 'kind': 'crash', 'reason': 'its QEMU is gone'}");
	world_refuses(w, late, ARRAY_SIZE(late));
	world_is(world_field(state_ha_get(w->db, "web", &w->e), "restarts"),
		 "[{'time': 1700000016000, 'kind': 'crash', 'node': 'n1', 'reason': 'its QEMU is gone'}]");
	world_free(w);
}

static void restarts_are_remembered_until_somebody_starts_the_guest(void **state)
{
	struct world *w = three_guests();
	json_t *list;

	(void)state;
	for (int i = 1; i <= 40; i++) {
		assert_int_equal(DO(w, "vm.observed", "{s:s, s:s, s:i, s:s}", "vm", "web", "node", "n1", "epoch", i,
				    "status", "failed"),
				 0);
		assert_int_equal(DO(w, "vm.restart", "{s:s, s:i, s:s}", "name", "web", "epoch", i, "kind",
				    i % 2 ? "crash" : "failed"),
				 0);
	}
	list = world_field(state_ha_get(w->db, "web", &w->e), "restarts");
	assert_int_equal(json_array_size(list), STATE_RESTARTS_MAX);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "time")), w->time);
	json_decref(list);
	world_must(w, "vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 41, 'status': 'failed'}", NULL);
	world_must(w, "vm.restart", "{'name': 'web', 'epoch': 41, 'kind': 'asked'}", NULL);
	world_is(world_field(state_ha_get(w->db, "web", &w->e), "restarts"), "[]");

	world_must(w, "vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 42, 'status': 'failed'}", NULL);
	world_must(w, "vm.restart", "{'name': 'web', 'epoch': 42, 'kind': 'crash'}", NULL);
	world_must(w, "vm.intent", "{'name': 'web', 'intent': 'stopped'}", NULL);
	world_must(w, "vm.intent", "{'name': 'web', 'intent': 'running'}", NULL);
	world_is(world_field(state_ha_get(w->db, "web", &w->e), "restarts"), "[]");
	/* Asking again for what is asked already changes nothing. */
	world_fails(w, "web", "n1", 43);
	world_must(w, "vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 43, 'reason': 'it crashes on n1'}", NULL);
	world_must(w, "vm.intent", "{'name': 'web', 'intent': 'running'}", NULL);
	world_is(world_field(world_item(world_field(state_ha_get(w->db, "web", &w->e), "restarts"), 0), "kind"),
		 "'failed'");
	/* A crash makes no home to go back to. */
	world_is(world_field(state_ha_get(w->db, "web", &w->e), "home"), "null");
	world_free(w);
}

static void a_failure_is_called_what_its_owner_called_it(void **state)
{
	static const struct {
		const char *cause, *kind;
	} rows[] = {
		{"crash", "crash"}, {"host", "host"}, {"failed", "failed"}, {"asked", "failed"}, {NULL, "failed"},
	};
	struct world *w = three_guests();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *from = i % 2 ? "n2" : "n1", *to = i % 2 ? "n1" : "n2";
		json_int_t changed = world_int(state_vm_get(w->db, "web", &w->e), "changed");
		json_t *detail = json_pack("{s:s?}", "cause", rows[i].cause), *vm;

		assert_int_equal(DO(w, "vm.observed", "{s:s, s:s, s:i, s:s, s:I, s:o}", "vm", "web", "node", from,
				    "epoch", (int)i + 1, "status", "failed", "as_of", changed, "detail", detail),
				 0);
		vm = state_vm_get(w->db, "web", &w->e);
		assert_string_equal(state_failure_kind(json_object_get(vm, "detail")), rows[i].kind);
		json_decref(vm);
		assert_int_equal(DO(w, "vm.place", "{s:s, s:s, s:i}", "name", "web", "node", to, "epoch", (int)i + 1),
				 0);
		assert_string_equal(
			world_text(world_item(world_field(state_ha_get(w->db, "web", &w->e), "restarts"), 0), "kind"),
			rows[i].kind);
	}
	assert_string_equal(state_failure_kind(NULL), "failed");
	world_free(w);
}

static size_t bears_events(struct world *w)
{
	json_t *list = state_event_list(w->db, 0, 1000, &w->e), *ev;
	size_t i, n = 0;

	json_array_foreach (list, i, ev)
		n += !strcmp(json_string_value(json_object_get(ev, "op")), "ha.bears") &&
		     !strcmp(json_string_value(json_object_get(ev, "object")), "ha.wish");
	json_decref(list);
	return n;
}

#define BEARS(n, text) "{'bears': " #n ", 'wish': 1, 'text': '" text "'}"

static void bearing_less_than_the_wish_is_an_event_and_enough_again_is_one(void **state)
{
	static const struct refusal strangers[] = {
		{"ha.bears", BEARS(0, "too little"), ERR_FORBIDDEN,
		 "setting ha.wish: what the cluster bears is said by a node of the cluster, and anna is none"},
		{"ha.bears", "{'bears': 0, 'wish': 1}", ERR_INPUT, "setting: text is missing"},
		{"ha.bears", BEARS(-1, "x"), ERR_INPUT, "setting: bears must be a whole number from 0 to 64"},
	};
	struct world *w = three_guests();

	(void)state;
	world_refuses(w, strangers, ARRAY_SIZE(strangers));
	w->by = "node n1";
	world_must(w, "ha.bears", BEARS(1, "enough"), NULL);
	assert_int_equal(bears_events(w), 0);
	assert_null(state_setting_get(w->db, STATE_SETTING_HA_BEARS, &w->e));
	world_must(w, "ha.bears", BEARS(0, "too little"), BEARS(0, "too little"));
	assert_int_equal(bears_events(w), 1);
	world_is(world_field(state_setting_get(w->db, STATE_SETTING_HA_BEARS, &w->e), "value"), BEARS(0, "too little"));
	/* Another manager finds the same. */
	w->by = "node n2";
	world_must(w, "ha.bears", BEARS(0, "too little, in other words"), NULL);
	assert_int_equal(bears_events(w), 1);
	world_must(w, "ha.bears", BEARS(2, "enough"), NULL);
	world_must(w, "ha.bears", BEARS(1, "enough"), NULL);
	assert_int_equal(bears_events(w), 2);
	assert_null(state_setting_get(w->db, STATE_SETTING_HA_BEARS, &w->e));
	world_must(w, "ha.bears", BEARS(0, "too little"), NULL);
	assert_int_equal(bears_events(w), 3);
	assert_int_equal(state_command_version("ha.bears", NULL), 2);
	world_free(w);
}

static void a_guest_belongs_to_the_first_host_that_died_until_a_move_takes_it_somewhere(void **state)
{
	struct world *w = three_guests();

	(void)state;
	world_node(w, "n3", 3, 4 * GIB);
	for (int i = 1; i <= 2; i++) {
		const char *node = i == 1 ? "n1" : "n2", *to = i == 1 ? "n2" : "n3";

		assert_int_equal(DO(w, "node.lost", "{s:s}", "node", node), 0);
		assert_int_equal(DO(w, "node.fenced", "{s:s, s:I, s:s}", "node", node, "number", (json_int_t)w->index,
				    "proof", "power"),
				 0);
		assert_int_equal(
			DO(w, "vm.place", "{s:s, s:s, s:i, s:b}", "name", "web", "node", to, "epoch", i, "fenced", 1),
			0);
		world_is(world_field(state_ha_get(w->db, "web", &w->e), "home"), "'n1'");
		assert_int_equal(DO(w, "node.alive", "{s:s, s:I, s:b}", "node", node, "number",
				    (json_int_t)w->index - 2, "empty", 1),
				 0);
	}
	world_must(w, "vm.observed", "{'vm': 'web', 'node': 'n3', 'epoch': 3, 'status': 'running'}", NULL);
	assert_int_equal(world_move(w, 5, "web", "n1"), 0);
	assert_int_equal(world_step(w, 5, "checking", "manager", "n1", 3), 0);
	assert_int_equal(world_step(w, 5, "preparing", "src", "n3", 3), 0);
	assert_int_equal(world_step(w, 5, "copying", "dst", "n1", 3), 0);
	assert_int_equal(world_step(w, 5, "agreed", "src", "n3", 3), 0);
	world_is(world_field(state_ha_get(w->db, "web", &w->e), "home"), "'n1'");
	assert_int_equal(world_step(w, 5, "committed", "dst", "n1", 3), 0);
	world_is(world_field(state_ha_get(w->db, "web", &w->e), "home"), "null");
	world_free(w);
}

static void a_command_is_sent_as_the_oldest_version_that_has_it(void **state)
{
	static const struct {
		const char *op, *args;
		unsigned version;
	} rows[] = {
		{"vm.intent", "{'name': 'web', 'intent': 'running'}", 1},
		{"vm.ha", "{'name': 'web'}", 2},
		{"vm.place", "{'name': 'web', 'node': 'n1', 'epoch': 1, 'fenced': true}", 1},
		{"vm.place", "{'name': 'web', 'node': 'n1', 'epoch': 1, 'reason': 'x'}", 2},
		{"node.report", "{'node': 'n1'}", 1},
		{"node.report", "{'node': 'n1', 'watchdog': {}}", 2},
		{"node.report", "{'node': 'n1', 'watchdog': {}, 'disks': {}}", 3},
		{"node.report", "{'node': 'n1', 'unreached': {}}", 4},
		{"node.alive", "{'node': 'n1', 'number': 1, 'empty': true}", 2},
		{"node.alive", "{'node': 'n1', 'incarnation': 'x'}", 3},
		{"node.fenced", "{'node': 'n1', 'number': 1, 'proof': 'power'}", 2},
		{"node.fenced", "{'node': 'n1', 'number': 1, 'proof': 'disk', 'incarnation': 'x'}", 3},
		{"vm.intent", "{'color': 'red'}", 4},
		{"nobody.knows", "{}", 4},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		_free_ char *text = xstrdup(rows[i].args);
		json_t *args;

		for (char *p = text; *p; p++)
			*p = *p == '\'' ? '"' : *p;
		args = json_loads(text, 0, NULL);
		assert_non_null(args);
		assert_int_equal(state_command_version(rows[i].op, args), rows[i].version);
		json_decref(args);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_guest_without_settings_is_restarted_unless_the_cluster_says_otherwise),
		cmocka_unit_test(what_a_command_leaves_out_stays),
		cmocka_unit_test(settings_are_refused_with_the_reason),
		cmocka_unit_test(a_ring_of_guests_that_wait_for_each_other_is_refused_by_name),
		cmocka_unit_test(a_long_chain_is_checked_and_a_long_ring_told_as_far_as_it_goes),
		cmocka_unit_test(a_guest_that_failed_starts_again_under_a_new_epoch_only),
		cmocka_unit_test(restarts_are_remembered_until_somebody_starts_the_guest),
		cmocka_unit_test(bearing_less_than_the_wish_is_an_event_and_enough_again_is_one),
		cmocka_unit_test(a_failure_is_called_what_its_owner_called_it),
		cmocka_unit_test(a_guest_belongs_to_the_first_host_that_died_until_a_move_takes_it_somewhere),
		cmocka_unit_test(a_command_is_sent_as_the_oldest_version_that_has_it),
	};

	return cmocka_run_group_tests_name("cluster/state-ha", tests, NULL, NULL);
}
