/* SPDX-License-Identifier: Apache-2.0 */
/* check: waits */
/* The topology of power: devices and levels judged, hosts switched by them, with agents that fail, hang and lie. */
#include "fencing/power.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "fencing/agent.h"
#include "tests/unit/fencing/agents.h"

#define PATIENCE (30 * NS_PER_S)

static struct loop *loop;

static int setup(void **state)
{
	(void)state;
	loop = loop_new();
	agents_reset();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

/* ---- configuration ---- */

/* @plug: attributes of the parameter plug, NULL: the agent has none. Caller decrefs. */
static json_t *metadata_of(const char *agent, const char *plug)
{
	_free_ char *parameter = plug ? xasprintf("<parameter name='plug' %s/>", plug) : xstrdup("");
	_free_ char *xml = xasprintf(
		"<resource-agent><parameters>%s<parameter name='folder'/><parameter name='password'/></parameters>"
		"<actions><action name='off'/><action name='status'/></actions></resource-agent>",
		parameter);
	json_t *m = agent_metadata_parse(xml, strlen(xml), NULL);

	assert_non_null(m);
	json_object_set_new(m, "name", json_string(agent));
	return m;
}

/* A device of agent fence_test: caller decrefs. */
static json_t *device_with(const char *name, json_t *nodes, int attempts, int timeout_ms)
{
	json_t *m = metadata_of("fence_test", "required='1'");
	json_t *given = json_pack("{s:s, s:s, s:{s:s, s:s}, s:o, s:i, s:i}", "name", name, "agent", "fence_test",
				  "options", "folder", agents_state, "password", "hunter2", "nodes", nodes, "attempts",
				  attempts, "timeout_ms", timeout_ms);
	struct err e = ERR_INIT;
	json_t *device = power_device_check(given, m, &e);

	assert_string_equal(e.text, "");
	assert_non_null(device);
	json_decref(given);
	json_decref(m);
	return device;
}

/* One that has n1 at @plug. */
static json_t *device_of(const char *name, const char *plug)
{
	return device_with(name, json_pack("{s:s}", "n1", plug), 2, 10000);
}

static void devices_are_refused_in_one_sentence(void **state)
{
	static const struct {
		const char *plug, *device, *words;
	} rows[] = {
		{"", "{}", "a fence device needs a name"},
		{"", "{\"name\":\"a b\"}", "a fence device needs a name"},
		{"", "{\"name\":\"d\"}", "fence device d: nodes must be an object"},
		{"", "{\"name\":\"d\",\"nodes\":{}}", "nodes must be an object"},
		{"", "{\"name\":\"d\",\"node\":{}}",
		 "fence device d: a fence device has no field \"node\"; did you mean \"nodes\"?"},
		{"", "{\"name\":\"d\",\"nodes\":{\"n1\":7}}", "the plug of node n1 must be text"},
		{"", "{\"name\":\"d\",\"nodes\":{\"n1\":\"1\\naction=on\"}}",
		 "the plug of node n1 must be 1 to 256 bytes in one line"},
		{"", "{\"name\":\"d\",\"nodes\":{\"n1\":\"\"}}", "the plug of node n1 must be 1 to 256 bytes"},
		{"", "{\"name\":\"d\",\"nodes\":{\"n1\":{\"plugs\":\"1\"}}}", "did you mean \"plug\"?"},
		{"required='1'", "{\"name\":\"d\",\"nodes\":{\"n1\":null}}",
		 "fence_x must be told which plug is that of node n1"},
		{"", "{\"name\":\"d\",\"nodes\":{\"n1\":\"3\",\"n2\":\"3\"}}", "plug 3 is that of n1 and of n2"},
		{"", "{\"name\":\"d\",\"nodes\":{\"n1\":null,\"n2\":null}}",
		 "without plugs this device switches one node, not both n1 and n2"},
		{"", "{\"name\":\"d\",\"nodes\":{\"n1\":\"3\",\"n2\":null}}",
		 "without plugs this device switches one node"},
		{NULL, "{\"name\":\"d\",\"nodes\":{\"n1\":\"3\"}}", "fence_x has no plugs, so node n1 must have none"},
		{"", "{\"name\":\"d\",\"nodes\":{\"n1\":\"3\"},\"attempts\":0}",
		 "attempts must be a whole number from 1 to 5"},
		{"", "{\"name\":\"d\",\"nodes\":{\"n1\":\"3\"},\"timeout_ms\":1e9}",
		 "timeout_ms must be a whole number"},
		{"", "{\"name\":\"d\",\"nodes\":{\"n1\":{\"plug\":\"3\",\"delay_ms\":-1}}}",
		 "node n1: delay_ms must be a whole number"},
		{"", "{\"name\":\"d\",\"nodes\":{\"n1\":\"3\"},\"options\":{\"foldr\":1}}",
		 "fence_x has no option \"foldr\"; did you mean"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		json_t *m = metadata_of("fence_x", rows[i].plug), *given = json_loads(rows[i].device, 0, NULL);
		struct err e = ERR_INIT;

		assert_non_null(given);
		if (power_device_check(given, m, &e) || !strstr(e.text, rows[i].words))
			fail_msg("%s: %s", rows[i].device, e.text);
		json_decref(given);
		json_decref(m);
	}
}

static void a_device_has_a_normal_form_that_is_its_own(void **state)
{
	json_t *m = metadata_of("fence_x", ""), *given, *device, *again, *masked;

	(void)state;
	given = json_pack("{s:s, s:s, s:{s:s, s:s}, s:{s:s, s:{s:s, s:i}}, s:i}", "name", "pdu", "agent", "fence_x",
			  "options", "folder", "f", "password", "hunter2", "nodes", "n1", "1", "n2", "plug", "2",
			  "delay_ms", 0, "delay_ms", 1500);
	device = power_device_check(given, m, NULL);
	assert_non_null(device);
	assert_int_equal(json_integer_value(
				 json_object_get(json_object_get(json_object_get(device, "nodes"), "n1"), "delay_ms")),
			 1500);
	assert_int_equal(json_integer_value(
				 json_object_get(json_object_get(json_object_get(device, "nodes"), "n2"), "delay_ms")),
			 0);
	assert_string_equal(json_string_value(json_object_get(device, "plug_option")), "plug");
	again = power_device_check(device, m, NULL);
	assert_true(json_equal(device, again));
	masked = power_device_mask(device);
	assert_string_equal(json_string_value(json_object_get(json_object_get(masked, "options"), "password")),
			    AGENT_MASK);
	assert_string_equal(json_string_value(json_object_get(json_object_get(device, "options"), "password")),
			    "hunter2");
	json_decref(masked);
	json_decref(again);
	json_decref(device);
	json_decref(given);
	json_decref(m);
}

static void levels_are_refused_in_one_sentence(void **state)
{
	static const struct {
		const char *levels, *node, *words;
	} rows[] = {
		{"null", "n9", "no fence device switches node n9"},
		{"[]", "n1", "there must be 1 to 8 levels"},
		{"{}", "n1", "there must be 1 to 8 levels"},
		{"[[]]", "n1", "node n1, level 1: must be a list of 1 to 8 devices"},
		{"[[\"a\"],\"b\"]", "n1", "node n1, level 2: must be a list"},
		{"[[\"c\"]]", "n1", "node n1, level 1: there is no fence device \"c\""},
		{"[[7]]", "n1", "there is no fence device"},
		{"[[\"a\",\"a\"]]", "n1", "fence device a is there twice"},
		{"[[\"a\"],[\"other\"]]", "n1", "node n1, level 2: fence device other does not switch it"},
	};
	json_t *devices = json_pack("[o, o, o]", device_of("a", "1"), device_of("b", "2"),
				    device_with("other", json_pack("{s:s}", "n2", "9"), 1, 1000));

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		json_t *levels = json_loads(rows[i].levels, JSON_DECODE_ANY, NULL);
		struct err e = ERR_INIT;

		if (power_plan_new(devices, levels, rows[i].node, &e) || !strstr(e.text, rows[i].words))
			fail_msg("%s: %s", rows[i].levels, e.text);
		json_decref(levels);
	}
	json_decref(devices);
}

/* ---- switching ---- */

struct got {
	enum power_result result;
	unsigned level;
	bool powered_on;
	char *text;
	char events[1024]; /* "a/off/1:confirmed " */
	int64_t off_ns;    /* when the proof came */
	struct power_job *job;
};

static void on_event(void *arg, const struct power_event *event)
{
	struct got *g = arg;
	size_t n = strlen(g->events);

	assert_string_equal(event->node, "n1");
	assert_null(strstr(event->text, "hunter2"));
	snprintf(g->events + n, sizeof(g->events) - n, "%s%s/%s/%u:%s", n ? " " : "",
		 event->device ? event->device : "*", event->action, event->attempt, power_result_names[event->result]);
	if (!event->device && !strcmp(event->action, "off") && event->result == POWER_CONFIRMED)
		g->off_ns = clock_now_ns();
}

static void on_end(void *arg, const struct power_end *end)
{
	struct got *g = arg;

	assert_null(g->text); /* once only */
	g->result = end->result;
	g->level = end->level;
	g->powered_on = end->powered_on;
	g->text = xstrdup(end->text);
	power_free(steal_ptr(g->job)); /* allowed here */
	loop_stop(loop);
}

/* Takes @devices and @levels (may be NULL). *ret->text is to be freed. */
static void run(enum power_action action, json_t *devices, json_t *levels, int64_t delay_ns, int64_t timeout_ns,
		struct got *ret)
{
	struct err e = ERR_INIT;
	struct power_plan *plan = power_plan_new(devices, levels, "n1", &e);
	struct power_spec spec = {.action = action, .dirs = agents_dir, .delay_ns = delay_ns, .timeout_ns = timeout_ns};

	assert_string_equal(e.text, "");
	json_decref(devices);
	json_decref(levels);
	*ret = (struct got){0};
	spec.on_event = on_event;
	spec.on_end = on_end;
	spec.arg = ret;
	ret->job = power_start(loop, plan, &spec);
	assert_string_equal(ret->events, "");
	loop_run(loop);
}

static void a_host_is_off_when_the_device_says_so_after_it_was_told(void **state)
{
	_free_ char *log = NULL;
	struct got g;

	(void)state;
	run(POWER_OFF, json_pack("[o]", device_of("a", "1")), NULL, 0, PATIENCE, &g);
	assert_int_equal(g.result, POWER_CONFIRMED);
	assert_int_equal(g.level, 1);
	assert_string_equal(g.text, "n1 is off: a (fence_test) says so");
	assert_string_equal(g.events, "a/off/1:confirmed a/status/1:confirmed */off/0:confirmed");
	assert_true(agents_is_off("1"));
	log = agents_log();
	assert_string_equal(log, "off 1,status 1");
	free(g.text);
}

static void a_device_that_lies_is_not_believed(void **state)
{
	struct got g;

	(void)state;
	agents_fault("1", "lie");
	run(POWER_OFF, json_pack("[o]", device_of("a", "1")), NULL, 0, PATIENCE, &g);
	assert_int_equal(g.result, POWER_FAILED); /* it says itself that the host is on */
	assert_int_equal(g.level, 0);
	assert_string_equal(
		g.text, "nothing proves that n1 is off: level 1: a (fence_test): off succeeded, but status says on");
	assert_string_equal(g.events,
			    "a/off/1:confirmed a/status/1:failed a/off/2:confirmed a/status/2:failed */off/0:failed");
	free(g.text);
}

static void a_device_that_fails_hangs_or_is_mute_proves_nothing(void **state)
{
	static const struct {
		const char *fault;
		enum power_result result;
		const char *words;
	} rows[] = {
		{"fail", POWER_FAILED, "a (fence_test): off exited with status 1: the device does not answer"},
		{"hang", POWER_UNKNOWN, "a (fence_test): off did not end within 500 ms and was killed"},
		{"mute", POWER_UNKNOWN, "a (fence_test): off succeeded, but status exited with status 1"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct got g;

		agents_reset();
		agents_fault("1", rows[i].fault);
		run(POWER_OFF, json_pack("[o]", device_with("a", json_pack("{s:s}", "n1", "1"), 2, 500)), NULL, 0,
		    PATIENCE, &g);
		if (g.result != rows[i].result || !strstr(g.text, rows[i].words))
			fail_msg("%s: %d, %s", rows[i].fault, g.result, g.text);
		free(g.text);
	}
	assert_true(agents_nobody_runs("98765"));
}

static void what_fails_once_is_tried_again(void **state)
{
	struct got g;

	(void)state;
	agents_fault("1", "once");
	run(POWER_OFF, json_pack("[o]", device_of("a", "1")), NULL, 0, PATIENCE, &g);
	assert_int_equal(g.result, POWER_CONFIRMED);
	assert_string_equal(g.events, "a/off/1:failed a/off/2:confirmed a/status/2:confirmed */off/0:confirmed");
	free(g.text);
}

static void after_a_level_that_fails_comes_the_next(void **state)
{
	struct got g;

	(void)state;
	agents_fault("1", "hang"); /* not waited for twice, as there is another way */
	run(POWER_OFF,
	    json_pack("[o, o]", device_with("a", json_pack("{s:s}", "n1", "1"), 2, 500), device_of("b", "2")),
	    json_pack("[[s], [s]]", "a", "b"), 0, PATIENCE, &g);
	assert_int_equal(g.result, POWER_CONFIRMED);
	assert_int_equal(g.level, 2);
	assert_string_equal(g.events,
			    "a/off/1:unknown */off/0:failed b/off/1:confirmed b/status/1:confirmed */off/0:confirmed");
	free(g.text);
	agents_reset();
	agents_fault("1", "fail");
	agents_fault("2", "lie");
	run(POWER_OFF, json_pack("[o, o]", device_of("a", "1"), device_of("b", "2")), NULL, 0, PATIENCE, &g);
	assert_int_equal(g.result, POWER_FAILED);
	assert_string_equal(
		g.text,
		"nothing proves that n1 is off: level 1: a (fence_test): off exited with status 1: the device does not "
		"answer; level 2: b (fence_test): off succeeded, but status says on");
	free(g.text);
}

static void without_levels_the_highest_priority_is_first(void **state)
{
	json_t *low = device_of("a", "1"), *high = device_of("b", "2");
	struct got g;

	(void)state;
	json_object_set_new(high, "priority", json_integer(5));
	run(POWER_OFF, json_pack("[o, o]", low, high), NULL, 0, PATIENCE, &g);
	assert_int_equal(g.result, POWER_CONFIRMED);
	assert_true(agents_is_off("2"));
	assert_false(agents_is_off("1"));
	free(g.text);
}

static void two_power_supplies_are_off_together_before_one_goes_on_again(void **state)
{
	_free_ char *log = NULL;
	struct got g;

	(void)state;
	agents_fault("1", "slow"); /* the other one is ready long before */
	run(POWER_REBOOT, json_pack("[o, o]", device_of("a", "1"), device_of("b", "2")),
	    json_pack("[[s, s]]", "a", "b"), 0, PATIENCE, &g);
	assert_int_equal(g.result, POWER_CONFIRMED);
	assert_true(g.powered_on);
	assert_string_equal(g.text, "n1 is on: a (fence_test) and b (fence_test) say so");
	assert_true(g.off_ns > 0);
	log = agents_log();
	assert_non_null(strstr(log, "status 1"));
	assert_true(strstr(log, "status 1") < strstr(log, "on 1"));
	assert_true(strstr(log, "status 1") < strstr(log, "on 2"));
	assert_false(agents_is_off("1"));
	assert_false(agents_is_off("2"));
	free(g.text);
}

static void half_a_level_is_no_proof(void **state)
{
	struct got g;

	(void)state;
	agents_fault("2", "fail");
	run(POWER_OFF, json_pack("[o, o]", device_of("a", "1"), device_of("b", "2")), json_pack("[[s, s]]", "a", "b"),
	    0, PATIENCE, &g);
	assert_true(agents_is_off("1"));
	assert_int_equal(g.result, POWER_FAILED); /* the other supply feeds it */
	free(g.text);
}

static void a_host_that_does_not_come_back_is_off_all_the_same(void **state)
{
	struct got g;

	(void)state;
	agents_write("fence_stayoff",
		     "#!/bin/sh\nwhile read -r l; do case $l in action=*) a=${l#*=};; esac; done\n"
		     "case $a in off) exit 0;; status) exit 2;; *) echo 'no fuse' >&2; exit 1;; esac\n");
	json_t *d = device_of("a", "1");
	json_object_set_new(d, "agent", json_string("fence_stayoff"));
	run(POWER_REBOOT, json_pack("[o]", d), NULL, 0, PATIENCE, &g);
	assert_int_equal(g.result, POWER_CONFIRMED);
	assert_int_equal(g.level, 1);
	assert_false(g.powered_on);
	assert_string_equal(g.text, "n1 is off, and could not be switched on again: level 1: a (fence_stayoff): on "
				    "exited with status 1: no fuse");
	free(g.text);
}

static void a_host_can_be_switched_on(void **state)
{
	struct got g;

	(void)state;
	run(POWER_OFF, json_pack("[o]", device_of("a", "1")), NULL, 0, PATIENCE, &g);
	free(g.text);
	run(POWER_ON, json_pack("[o]", device_of("a", "1")), NULL, PATIENCE, PATIENCE,
	    &g); /* nobody waits to switch on */
	assert_int_equal(g.result, POWER_CONFIRMED);
	assert_string_equal(g.text, "n1 is on: a (fence_test) says so");
	assert_false(agents_is_off("1"));
	free(g.text);
}

static void an_agent_that_is_not_there_is_told(void **state)
{
	json_t *d = device_of("a", "1");
	struct got g;

	(void)state;
	json_object_set_new(d, "agent", json_string("fence_gone"));
	run(POWER_OFF, json_pack("[o]", d), NULL, 0, PATIENCE, &g);
	assert_int_equal(g.result, POWER_FAILED);
	assert_non_null(strstr(g.text, "a (fence_gone): fence agent fence_gone is not installed on this host"));
	assert_string_equal(g.events, "a/off/1:failed */off/0:failed");
	free(g.text);
}

static void all_levels_together_have_a_time_limit(void **state)
{
	int64_t began = clock_now_ns();
	struct got g;

	(void)state;
	agents_fault("1", "hang");
	run(POWER_OFF, json_pack("[o]", device_of("a", "1")), NULL, 0, 700 * NS_PER_MS, &g);
	assert_int_equal(g.result, POWER_UNKNOWN);
	assert_true(clock_now_ns() - began < 9 * NS_PER_S); /* before the device's own */
	assert_non_null(strstr(g.text, "700 ms"));
	assert_true(agents_nobody_runs("98765"));
	free(g.text);
}

static void the_delays_of_caller_and_device_come_first(void **state)
{
	json_t *d = device_with("a", json_pack("{s:{s:s, s:i}}", "n1", "plug", "1", "delay_ms", 300), 1, 10000);
	int64_t began = clock_now_ns();
	struct got g;

	(void)state;
	run(POWER_OFF, json_pack("[o]", d), NULL, 200 * NS_PER_MS, PATIENCE, &g);
	assert_int_equal(g.result, POWER_CONFIRMED);
	assert_true(clock_now_ns() - began >= 500 * NS_PER_MS);
	assert_string_equal(g.events, "*/delay/0:unknown a/off/1:confirmed a/status/1:confirmed */off/0:confirmed");
	free(g.text);
}

static void stop_loop(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

static void a_job_that_is_forgotten_ends_its_agents_and_says_nothing(void **state)
{
	json_t *devices = json_pack("[o]", device_of("a", "1"));
	struct got g = {0};
	struct power_spec spec = {
		.action = POWER_OFF, .dirs = agents_dir, .timeout_ns = PATIENCE, .on_end = on_end, .arg = &g};
	struct power_job *job = power_start(loop, power_plan_new(devices, NULL, "n1", NULL), &spec);
	struct loop_timer *t;

	(void)state;
	agents_fault("1", "hang");
	t = loop_timer_add(loop, 300 * NS_PER_MS, 0, stop_loop, NULL);
	loop_run(loop);
	assert_false(agents_nobody_runs("98765"));
	power_free(job);
	assert_true(agents_nobody_runs("98765"));
	loop_timer_set(t, 50 * NS_PER_MS);
	loop_run(loop);
	assert_null(g.text);
	loop_timer_free(t);
	json_decref(devices);
	power_free(NULL);
}

/* ---- looking ---- */

static void on_look(void *arg, const json_t *report)
{
	json_t **ret = arg;

	*ret = json_deep_copy(report);
	loop_stop(loop);
}

static json_t *look(json_t *device, const char *dirs, bool list)
{
	json_t *report = NULL;
	struct power_look *k = power_look_start(loop, device, dirs, list, on_look, &report);

	json_decref(device);
	loop_run(loop);
	power_look_free(k);
	return report;
}

static void a_test_asks_for_everything_and_switches_nothing(void **state)
{
	json_t *report, *nodes;
	_free_ char *log = NULL;

	(void)state;
	agents_fault("2", "mute");
	report = look(device_with("pdu", json_pack("{s:s, s:s}", "n1", "1", "n2", "2"), 1, 10000), agents_dir, true);
	nodes = json_object_get(report, "nodes");
	assert_true(json_is_false(json_object_get(report, "ok")));
	assert_true(json_is_true(json_object_get(json_object_get(report, "monitor"), "ok")));
	assert_string_equal(json_string_value(json_object_get(json_array_get(nodes, 0), "state")), "on");
	assert_string_equal(json_string_value(json_object_get(json_array_get(nodes, 1), "state")), "unknown");
	assert_string_equal(json_string_value(json_object_get(json_array_get(nodes, 1), "text")),
			    "status exited with status 1");
	assert_string_equal(
		json_string_value(json_object_get(json_array_get(json_object_get(report, "plugs"), 0), "alias")),
		"rack one");
	assert_int_equal(json_array_size(json_object_get(report, "plugs")), 2);
	log = agents_log();
	assert_string_equal(log, "monitor ,list ,status 1,status 2");
	json_decref(report);

	report = look(device_of("a", "1"), agents_dir, false);
	assert_true(json_is_true(json_object_get(report, "ok")));
	assert_true(json_is_null(json_object_get(report, "plugs")));
	json_decref(report);

	report = look(device_of("a", "1"), "/nonexistent", true);
	assert_true(json_is_false(json_object_get(report, "ok")));
	assert_non_null(strstr(json_string_value(json_object_get(json_object_get(report, "monitor"), "text")),
			       "is not installed on this host"));
	json_decref(report);
}

/* ---- a real agent ---- */

static void keep_metadata(void *arg, json_t *metadata, const struct err *e)
{
	(void)e;
	*(json_t **)arg = json_incref(metadata);
	loop_stop(loop);
}

static void an_agent_of_debian_switches_a_host(void **state)
{
	_free_ char *file = xasprintf("%s/dummy", agents_state);
	json_t *metadata = NULL, *given, *device;
	struct agent_call *c;
	struct err e = ERR_INIT;
	struct got g;

	(void)state;
	if (access("/usr/sbin/fence_dummy", X_OK) != 0) {
		print_message("# skipped: Debian's fence-agents is not installed\n");
		skip();
	}
	c = agent_metadata_start(loop, NULL, "fence_dummy", PATIENCE, keep_metadata, &metadata, &e);
	loop_run(loop);
	agent_call_free(c);
	given = json_pack("{s:s, s:s, s:{s:s}, s:{s:n}}", "name", "dummy", "agent", "fence_dummy", "options",
			  "status_file", file, "nodes", "n1");
	device = power_device_check(given, metadata, &e);
	assert_string_equal(e.text, "");
	json_decref(given);
	json_decref(metadata);

	struct power_spec spec = {
		.action = POWER_REBOOT, .timeout_ns = PATIENCE, .on_event = on_event, .on_end = on_end, .arg = &g};
	json_t *devices = json_pack("[O]", device);
	g = (struct got){0};
	g.job = power_start(loop, power_plan_new(devices, NULL, "n1", NULL), &spec);
	loop_run(loop);
	assert_string_equal(g.text, "n1 is on: dummy (fence_dummy) says so");
	assert_int_equal(g.result, POWER_CONFIRMED);
	assert_true(g.powered_on);
	assert_true(g.off_ns > 0);
	free(g.text);
	json_decref(devices);

	json_t *report = look(device, NULL, false);
	assert_true(json_is_true(json_object_get(report, "ok")));
	json_decref(report);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(devices_are_refused_in_one_sentence),
		cmocka_unit_test(a_device_has_a_normal_form_that_is_its_own),
		cmocka_unit_test_setup_teardown(levels_are_refused_in_one_sentence, setup, teardown),
		cmocka_unit_test_setup_teardown(a_host_is_off_when_the_device_says_so_after_it_was_told, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_device_that_lies_is_not_believed, setup, teardown),
		cmocka_unit_test_setup_teardown(a_device_that_fails_hangs_or_is_mute_proves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(what_fails_once_is_tried_again, setup, teardown),
		cmocka_unit_test_setup_teardown(after_a_level_that_fails_comes_the_next, setup, teardown),
		cmocka_unit_test_setup_teardown(without_levels_the_highest_priority_is_first, setup, teardown),
		cmocka_unit_test_setup_teardown(two_power_supplies_are_off_together_before_one_goes_on_again, setup,
						teardown),
		cmocka_unit_test_setup_teardown(half_a_level_is_no_proof, setup, teardown),
		cmocka_unit_test_setup_teardown(a_host_that_does_not_come_back_is_off_all_the_same, setup, teardown),
		cmocka_unit_test_setup_teardown(a_host_can_be_switched_on, setup, teardown),
		cmocka_unit_test_setup_teardown(an_agent_that_is_not_there_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(all_levels_together_have_a_time_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(the_delays_of_caller_and_device_come_first, setup, teardown),
		cmocka_unit_test_setup_teardown(a_job_that_is_forgotten_ends_its_agents_and_says_nothing, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_test_asks_for_everything_and_switches_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(an_agent_of_debian_switches_a_host, setup, teardown),
	};

	return cmocka_run_group_tests(tests, agents_setup, agents_teardown);
}
