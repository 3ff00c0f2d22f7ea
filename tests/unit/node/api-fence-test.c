/* SPDX-License-Identifier: Apache-2.0 */
/* The API of fencing: devices with real agents, secrets that nobody is told, levels, tests, a person's word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cluster/state.h"
#include "node/api-int.h"
#include "tests/unit/node/api-world.h"
#include "tests/unit/node/server.h"

#define SECRET "hush-9f2c"
#define MASK "********"
#define DEVICES "/v1/fence-devices"

/* The agents of Debian, and ours of the tests. */
static const char *agent_dirs(void)
{
	static char dirs[PATH_MAX + 16];
	char cwd[PATH_MAX];

	assert_non_null(getcwd(cwd, sizeof(cwd)));
	snprintf(dirs, sizeof(dirs), "/usr/sbin:%.4000s/tests/tools", cwd);
	return dirs;
}

static json_t *lab(const char *name, const char *password)
{
	return json_pack("{s:s, s:s, s:{s:s, s:s}, s:{s:s, s:s}, s:i}", "name", name, "agent", "fence_lab", "options",
			 "folder", "/nowhere", "password", password, "nodes", "n1", "outlet 1", "n2", "outlet 2",
			 "timeout_ms", 1500);
}

static void expect(int status, const char *method, const char *target, json_t *body)
{
	json_decref(api_world_expect(status, method, target, body));
}

static void assert_without_secret(const char *target)
{
	json_t *answer = api_world_expect(200, "GET", target, NULL);
	_free_ char *text = json_dumps(answer, 0);

	assert_non_null(text);
	if (strstr(text, SECRET))
		fail_msg("GET %s: %s", target, text);
	json_decref(answer);
}

/* What the state keeps as the password of device "switch". */
static void read_password(void *arg)
{
	json_t *row = state_fence_device_get(replica_db(api_world_daemon()->replica), "switch", true, NULL);

	snprintf(arg, 64, "%s", api_world_text(row, "options.password"));
	json_decref(row);
}

static void assert_password(const char *wanted)
{
	char password[64];

	api_world_do(read_password, password);
	assert_string_equal(password, wanted);
}

static void a_devices_secret_is_kept_and_told_to_nobody(void **state)
{
	json_t *answer = api_world_expect(201, "POST", DEVICES, lab("switch", SECRET));

	(void)state;
	assert_string_equal(api_world_text(answer, "options.password"), MASK);
	assert_string_equal(api_world_text(answer, "options.folder"), "/nowhere");
	assert_string_equal(api_world_text(answer, "plug_option"), "plug");
	assert_string_equal(api_world_text(answer, "nodes.n2"), "outlet 2");
	assert_int_equal(json_integer_value(api_world_at(answer, "timeout_ms")), 1500);
	json_decref(answer);
	assert_password(SECRET);
	assert_without_secret(DEVICES);
	assert_without_secret(DEVICES "/switch");
	assert_without_secret("/v1/audit");
	assert_without_secret("/v1/tasks");
	expect(200, "DELETE", DEVICES "/switch", NULL);
	expect(404, "GET", DEVICES "/switch", NULL);
}

static void the_mask_sent_back_keeps_the_secret_and_anything_else_replaces_it(void **state)
{
	json_t *edit = lab("switch", MASK), *answer;

	(void)state;
	expect(201, "POST", DEVICES, lab("switch", SECRET));
	json_object_del(edit, "name");
	json_object_set_new(json_object_get(edit, "options"), "folder", json_string("/elsewhere"));
	answer = api_world_expect(200, "PUT", DEVICES "/switch", json_deep_copy(edit));
	assert_string_equal(api_world_text(answer, "options.folder"), "/elsewhere");
	assert_string_equal(api_world_text(answer, "options.password"), MASK);
	json_decref(answer);
	assert_password(SECRET);
	json_object_set_new(json_object_get(edit, "options"), "password", json_string("another"));
	expect(200, "PUT", DEVICES "/switch", edit);
	assert_password("another");
	expect(200, "DELETE", DEVICES "/switch", NULL);
}

/* Refused, by a sentence that says what of it is wrong. */
static void refused(json_t *device, int status, const char *code, const char *words)
{
	api_world_refused(status, "POST", DEVICES, device, code, "x", words);
}

static json_t *with(json_t *device, const char *key, json_t *value)
{
	json_object_set_new(device, key, value);
	return device;
}

static void a_device_that_would_not_fence_is_refused(void **state)
{
	(void)state;
	refused(with(lab("x", "y"), "agent", json_string("fence_no_such")), 404, "notfound", "fence_no_such");
	refused(with(lab("x", "y"), "options", json_pack("{s:s, s:s}", "folder", "/f", "pasword", "y")), 400, "input",
		"did you mean \"password\"?");
	refused(with(lab("x", "y"), "options", json_object()), 400, "input", "folder");
	refused(with(lab("x", "y"), "nodes", json_pack("{s:n}", "n1")), 400, "input", "which plug is that of node n1");
	refused(with(lab("x", "y"), "nodes", json_pack("{s:s}", "n9", "3")), 404, "notfound", "no node n9");
	refused(with(lab("x", "y"), "nodes", json_pack("{s:s, s:s}", "n1", "3", "n2", "3")), 400, "input",
		"would switch off both");
	refused(with(with(lab("x", "y"), "agent", json_string("fence_scsi")), "options", json_object()), 422,
		"unsupported", "leaves it running");
	expect(400, "POST", DEVICES, with(lab("x", "y"), "agent", json_string("../../bin/sh")));
	expect(404, "PUT", DEVICES "/x", json_pack("{s:s, s:{s:n}}", "agent", "fence_dummy", "nodes", "n1"));
	expect(404, "GET", DEVICES "/x", NULL);
}

/* As docs/fencing.md writes them. */
static void the_devices_of_the_page_are_taken(void **state)
{
	static const char *const devices[] = {
		"{\"name\": \"bmc-n1\", \"agent\": \"fence_ipmilan\", \"options\": {\"ip\": \"10.0.9.1\", "
		"\"username\": "
		"\"fence\", \"lanplus\": \"1\", \"privlvl\": \"operator\", \"password\": \"" SECRET "\"}, \"nodes\": "
		"{\"n1\": null}}",
		"{\"name\": \"bmc-n2\", \"agent\": \"fence_redfish\", \"options\": {\"ip\": \"10.0.9.1\", "
		"\"username\": "
		"\"fence\", \"ssl\": \"1\", \"password\": \"" SECRET "\"}, \"nodes\": {\"n1\": null}}",
		"{\"name\": \"pdu\", \"agent\": \"fence_apc_snmp\", \"options\": {\"ip\": \"10.0.9.20\", "
		"\"community\": "
		"\"" SECRET "\"}, \"nodes\": {\"n1\": \"3\", \"n2\": \"4\"}}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		json_t *device = json_loads(devices[i], 0, NULL), *answer;
		char target[64];

		assert_non_null(device);
		snprintf(target, sizeof(target), DEVICES "/%s", api_world_text(device, "name"));
		answer = api_world_expect(201, "POST", DEVICES, device);
		assert_int_equal(json_array_size(api_world_at(answer, "secret")), 1);
		json_decref(answer);
		assert_without_secret(target);
		expect(200, "DELETE", target, NULL);
	}
}

static void a_name_is_given_once_and_a_repeated_request_gets_its_answer_again(void **state)
{
	static const char key[] = "aaaaaaaa-0000-4000-8000-00000000f001";
	int status[2];
	json_t *first = api_world_ask(NULL, "POST", DEVICES, lab("switch", SECRET), key, &status[0]);
	json_t *again = api_world_ask(NULL, "POST", DEVICES, lab("switch", SECRET), key, &status[1]);

	(void)state;
	assert_int_equal(status[0], 201);
	assert_int_equal(status[1], 201);
	assert_true(json_equal(first, again));
	json_decref(first);
	json_decref(again);
	api_world_refused(409, "POST", DEVICES, lab("switch", "other"), "conflict", "switch", "is there already");
	assert_password(SECRET);
	expect(200, "DELETE", DEVICES "/switch", NULL);
}

static void a_test_asks_the_agent_and_switches_nothing(void **state)
{
	_free_ char *file = xstrdup(api_world_path("dummy"));
	char now[8] = "";
	json_t *report;
	FILE *f = fopen(file, "w");

	(void)state;
	assert_non_null(f);
	fputs("on", f);
	fclose(f);
	expect(201, "POST", DEVICES,
	       json_pack("{s:s, s:s, s:{s:s}, s:{s:n}}", "name", "dummy", "agent", "fence_dummy", "options",
			 "status_file", file, "nodes", "n2"));
	expect(201, "POST", DEVICES, lab("switch", SECRET));
	report = api_world_expect(200, "POST", DEVICES "/dummy/test", json_object());
	assert_true(json_is_true(api_world_at(report, "ok")));
	assert_string_equal(api_world_text(report, "from"), "n1");
	assert_string_equal(api_world_text(report, "nodes.0.node"), "n2");
	assert_string_equal(api_world_text(report, "nodes.0.state"), "on");
	json_decref(report);
	f = fopen(file, "r");
	assert_non_null(f);
	assert_non_null(fgets(now, sizeof(now), f));
	fclose(f);
	assert_string_equal(now, "on");
	report = api_world_expect(200, "POST", DEVICES "/switch/test", json_pack("{s:b}", "list", 1));
	assert_true(json_is_false(api_world_at(report, "ok"))); /* its folder is not there */
	assert_string_equal(api_world_text(report, "nodes.0.state"), "unknown");
	assert_non_null(strstr(api_world_text(report, "monitor.text"), "/nowhere"));
	json_decref(report);
	expect(404, "POST", DEVICES "/none/test", NULL);
	expect(200, "DELETE", DEVICES "/dummy", NULL);
	expect(200, "DELETE", DEVICES "/switch", NULL);
	unlink(file);
}

static void levels_are_set_and_taken_away(void **state)
{
	json_t *levels;

	(void)state;
	expect(201, "POST", DEVICES, lab("switch", SECRET));
	expect(200, "PUT", "/v1/fence-levels/n2/1", json_pack("{s:[s]}", "devices", "switch"));
	levels = api_world_expect(200, "GET", "/v1/fence-levels", NULL);
	assert_int_equal(json_array_size(levels), 1);
	assert_string_equal(api_world_text(levels, "0.node"), "n2");
	assert_string_equal(api_world_text(levels, "0.devices.0"), "switch");
	json_decref(levels);
	api_world_refused(409, "DELETE", DEVICES "/switch", NULL, "conflict", "switch", "a level of node n2 uses it");
	api_world_refused(404, "PUT", "/v1/fence-levels/n2/2", json_pack("{s:[s]}", "devices", "none"), "notfound",
			  "n2", "no fence device none");
	api_world_refused(400, "PUT", "/v1/fence-levels/n2/first", json_pack("{s:[s]}", "devices", "switch"), "input",
			  "n2", "from 1 to 9");
	expect(200, "DELETE", "/v1/fence-levels/n2/1", NULL);
	levels = api_world_expect(200, "GET", "/v1/fence-levels", NULL);
	assert_int_equal(json_array_size(levels), 0);
	json_decref(levels);
	expect(200, "DELETE", DEVICES "/switch", NULL);
}

/* ---- a person's word ---- */

static bool n2_is_away(const void *replica, uint32_t node)
{
	(void)replica;
	return node != 2;
}

static void leave(void *arg)
{
	(void)arg;
	api_world_daemon()->api->present = n2_is_away;
}

static json_t *word(void)
{
	return json_pack("{s:b}", "i_have_checked", 1);
}

static void only_a_host_that_is_away_can_be_called_dead(void **state)
{
	int status;
	json_t *answer, *history;

	(void)state;
	api_world_refused(409, "POST", "/v1/nodes/n2/confirm-dead", word(), "conflict", "n2", "is a member");
	api_world_refused(409, "POST", "/v1/nodes/n1/confirm-dead", word(), "conflict", "n1", "answers you");
	expect(404, "POST", "/v1/nodes/n9/confirm-dead", word());
	api_world_do(leave, NULL);
	expect(400, "POST", "/v1/nodes/n2/confirm-dead", json_object());
	expect(400, "POST", "/v1/nodes/n2/confirm-dead", json_pack("{s:b}", "i_have_checked", 0));
	answer = api_world_ask(api_world_token(HTTP_ROLE_OPERATOR), "POST", "/v1/nodes/n2/confirm-dead", word(), NULL,
			       &status);
	assert_int_equal(status, 403);
	json_decref(answer);
	answer = api_world_ask(api_world_token(HTTP_ROLE_ADMIN), "POST", "/v1/nodes/n2/confirm-dead", word(), NULL,
			       &status);
	assert_int_equal(status, 200);
	assert_string_equal(api_world_text(answer, "life"), "fenced");
	json_decref(answer);
	answer = api_world_expect(200, "GET", "/v1/nodes/n2", NULL);
	assert_string_equal(api_world_text(answer, "state"), "fenced");
	json_decref(answer);
	history = api_world_expect(200, "GET", "/v1/fencings?node=n2", NULL);
	assert_int_equal(json_array_size(history), 1);
	assert_string_equal(api_world_text(history, "0.proof"), "manual");
	assert_string_equal(api_world_text(history, "0.fenced_by"), "admin");
	assert_string_equal(api_world_text(history, "0.steps.0.kind"), "manual");
	assert_non_null(strstr(api_world_text(history, "0.text"), "admin has looked"));
	json_decref(history);
	answer = api_world_expect(200, "POST", "/v1/nodes/n2/confirm-dead", word()); /* it is already */
	assert_string_equal(api_world_text(answer, "life"), "fenced");
	json_decref(answer);
}

/* ---- high availability of guests ---- */

static json_t *guest(const char *name)
{
	return json_pack("{s:o, s:b, s:{s:s}}", "definition", api_world_definition(name, 128), "start", 0, "placement",
			 "node", "n1");
}

static void a_guest_says_what_is_done_when_it_dies(void **state)
{
	json_t *body = guest("web1"), *vm, *list;

	(void)state;
	json_object_set_new(body, "ha", json_string("none"));
	expect(202, "POST", "/v1/vms", guest("db1"));
	expect(202, "POST", "/v1/vms", body);
	vm = api_world_expect(200, "GET", "/v1/vms/web1", NULL);
	assert_string_equal(api_world_text(vm, "ha.mode"), "none");
	assert_true(json_is_true(api_world_at(vm, "ha.own_mode")));
	assert_null(api_world_at(vm, "ha.vm"));
	json_decref(vm);
	vm = api_world_expect(200, "PUT", "/v1/vms/web1/ha",
			      json_pack("{s:s, s:i, s:[{s:s, s:s}]}", "mode", "default", "priority", 500, "after", "vm",
					"db1", "until", "running"));
	assert_string_equal(api_world_text(vm, "mode"), "restart");
	assert_string_equal(api_world_text(vm, "after.0.vm"), "db1");
	json_decref(vm);
	list = api_world_expect(200, "GET", "/v1/vms", NULL);
	assert_string_equal(api_world_text(list, "0.name"), "db1");
	assert_int_equal(json_integer_value(api_world_at(list, "0.ha.priority")), 100);
	assert_int_equal(json_integer_value(api_world_at(list, "1.ha.priority")), 500);
	json_decref(list);
	api_world_refused(409, "PUT", "/v1/vms/db1/ha",
			  json_pack("{s:[{s:s, s:s}]}", "after", "vm", "web1", "until", "running"), "conflict", "db1",
			  "would wait for itself");
	api_world_refused(400, "PUT", "/v1/vms/web1/ha",
			  json_pack("{s:[{s:s, s:s}]}", "after", "vm", "db1", "until", "delay"), "input", "web1",
			  "seconds go with until delay");
	expect(400, "PUT", "/v1/vms/web1/ha", json_pack("{s:s}", "mode", "maybe"));
	expect(404, "PUT", "/v1/vms/none/ha", json_pack("{s:s}", "mode", "none"));
	expect(200, "PUT", "/v1/settings/ha.default", json_pack("{s:s}", "value", "none"));
	vm = api_world_expect(200, "GET", "/v1/vms/web1/ha", NULL);
	assert_string_equal(api_world_text(vm, "mode"), "none");
	json_decref(vm);
	expect(200, "PUT", "/v1/settings/ha.default", json_pack("{s:n}", "value"));
}

static void manage(void *arg)
{
	struct daemon *d = api_world_daemon();

	(void)arg;
	d->ha = ha_manager_new(d);
}

static void manage_no_more(void *arg)
{
	struct daemon *d = api_world_daemon();

	(void)arg;
	ha_manager_free(d->ha);
	d->ha = NULL;
}

static json_t *large(const char *name, const char *node, int gib, bool start)
{
	return json_pack("{s:o, s:b, s:{s:s}}", "definition", api_world_definition(name, gib << 10), "start", start,
			 "placement", "node", node);
}

static void tick(void *arg)
{
	(void)arg;
	for (int i = 0; i < 10; i++) /* what is not urgent is looked at each tenth time */
		ha_manager_tick(api_world_daemon()->ha);
}

/* How often @text has been told, and the metric as a line. */
static void bears_are_told(size_t times, const char *text, const char *line)
{
	struct http_client_options o = {.unix_path = api_world_path("sock")};
	struct http_client *c = http_client_new(&o, NULL);
	struct http_answer a = {0};
	struct err e = ERR_INIT;
	json_t *list, *ev;
	size_t i, n = 0;

	for (i = 0; i < 2; i++) {
		api_world_do(tick, NULL);
		/* What was proposed comes before this. */
		api_world_command("setting.set", json_pack("{s:s, s:i}", "key", "placement.wire-mbs", "value", 117));
	}
	list = state_event_list(replica_db(api_world_daemon()->replica), 0, 10000, &e);
	json_array_foreach (list, i, ev)
		if (!strcmp(api_world_text(ev, "op"), "ha.bears"))
			n += strstr(api_world_text(ev, "data.text"), text) != NULL;
	json_decref(list);
	assert_int_equal(n, times);
	assert_int_equal(http_client_call(c, "GET", "/metrics", NULL, NULL, clock_now_ns() + 10 * NS_PER_S, &a, &e), 0);
	if (!strstr(a.text, line))
		fail_msg("no line \"%s\" in %s", line, a.text);
	http_answer_done(&a);
	http_client_free(c);
}

/* Two hosts of 8 GiB: with 6 GiB of guests on either the other can take them, and 2 GiB more are too much. */
static void a_start_that_makes_the_cluster_bear_less_is_refused_unless_forced(void **state)
{
	json_t *cluster;

	(void)state;
	api_world_do(manage, NULL);
	expect(202, "POST", "/v1/vms", large("big1", "n1", 3, true));
	expect(202, "POST", "/v1/vms", large("big2", "n1", 3, true));
	cluster = api_world_expect(200, "GET", "/v1/cluster", NULL);
	assert_int_equal(json_integer_value(api_world_at(cluster, "ha.bears")), 1);
	assert_int_equal(json_integer_value(api_world_at(cluster, "ha.wish")), 1);
	json_decref(cluster);
	api_world_refused(409, "POST", "/v1/vms", large("big3", "n2", 2, true), "conflict", "big3",
			  "the cluster would bear the loss of 0 hosts instead of 1");
	expect(404, "GET", "/v1/vms/big3", NULL);
	expect(202, "POST", "/v1/vms", large("big3", "n2", 2, false));
	api_world_observe("big3", "n2", 1, "stopped", NULL);
	api_world_refused(409, "POST", "/v1/vms/big3/start", json_object(), "conflict", "big3", "--force");
	expect(200, "PUT", "/v1/settings/ha.wish", json_pack("{s:i}", "value", 0));
	expect(202, "POST", "/v1/vms/big3/start", json_object());
	expect(200, "PUT", "/v1/settings/ha.wish", json_pack("{s:n}", "value"));
	/* It bears nothing now, so nothing is refused any more; that is told, once. */
	bears_are_told(1, "the cluster bears the loss of 0 hosts, and shall bear 1: if node n", "\ngodwit_ha_wish 1\n");
	expect(202, "POST", "/v1/vms/big3/kill", json_object());
	api_world_observe("big3", "n2", 1, "stopped", NULL);
	api_world_refused(409, "POST", "/v1/vms/big3/start", json_object(), "conflict", "big3", "--force");
	bears_are_told(1, "the cluster bears the loss of 1 host, as it shall", "\ngodwit_ha_bears ");
	expect(202, "POST", "/v1/vms/big3/start", json_pack("{s:b}", "force", 1));
	bears_are_told(2, "the cluster bears the loss of 0 hosts, and shall bear 1: if node n",
		       "\ngodwit_ha_waiting{for=\"room\"} 0\n");
	api_world_do(manage_no_more, NULL);
}

static int start(void **state)
{
	server_make_certs(state);
	api_world_start();
	api_world_daemon()->opt.fence_agents = agent_dirs();
	return 0;
}

static int stop(void **state)
{
	api_world_stop();
	return server_drop_certs(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_devices_secret_is_kept_and_told_to_nobody),
		cmocka_unit_test(the_mask_sent_back_keeps_the_secret_and_anything_else_replaces_it),
		cmocka_unit_test(a_device_that_would_not_fence_is_refused),
		cmocka_unit_test(the_devices_of_the_page_are_taken),
		cmocka_unit_test(a_name_is_given_once_and_a_repeated_request_gets_its_answer_again),
		cmocka_unit_test(a_test_asks_the_agent_and_switches_nothing),
		cmocka_unit_test(levels_are_set_and_taken_away),
		cmocka_unit_test(a_guest_says_what_is_done_when_it_dies),
		cmocka_unit_test(a_start_that_makes_the_cluster_bear_less_is_refused_unless_forced),
		cmocka_unit_test(only_a_host_that_is_away_can_be_called_dead),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
