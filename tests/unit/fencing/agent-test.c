/* SPDX-License-Identifier: Apache-2.0 */
/* Fence agents, real ones and wrong ones: where they may be, how a call ends, what of it may be seen; metadata and
 * options. */
#include "fencing/agent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "tests/unit/fencing/agents.h"

#define PATIENCE (20 * NS_PER_S)

static struct loop *loop;

/* What a call ended with. */
struct got {
	int exit_status;
	bool late, out_cut;
	enum agent_state state;
	char *out, *words;
	struct agent_call *call;
};

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

static void on_end(void *arg, const struct agent_end *end)
{
	struct got *g = arg;

	assert_null(g->words); /* once only */
	*g = (struct got){
		.exit_status = end->exit_status, .late = end->late, .out_cut = end->out_cut, .state = end->state};
	g->out = xstrdup(end->out);
	g->words = xstrdup(end->words);
	assert_int_equal(strlen(end->out), end->out_size);
	loop_stop(loop);
}

static void got_done(struct got *g)
{
	free(g->out);
	free(g->words);
}

/* fence_test with a plug; *ret is to be released with got_done(). */
static void call_of(const char *agent, enum agent_action action, const char *plug, int64_t timeout_ns, struct got *ret)
{
	json_t *options = json_pack("{s:s, s:s}", "folder", agents_state, "password", "hunter2;rm");
	struct agent_call_spec spec = {.dirs = agents_dir, .agent = agent, .action = action, .options = options};
	struct agent_call *c;
	struct err e = ERR_INIT;

	spec.plug_option = "plug";
	spec.plug = plug;
	spec.timeout_ns = timeout_ns;
	*ret = (struct got){0};
	c = agent_call_start(loop, &spec, on_end, ret, &e);
	json_decref(options);
	assert_string_equal(e.text, "");
	assert_non_null(c);
	loop_run(loop);
	agent_call_free(c);
}

/* ---- where ---- */

static void refused_path(const char *dirs, const char *name, const char *words)
{
	struct err e = ERR_INIT;

	assert_null(agent_path(dirs, name, &e));
	if (!strstr(e.text, words))
		fail_msg("%s: %s", name, e.text);
}

static void an_agent_is_run_from_a_folder_that_only_its_owner_can_write(void **state)
{
	_free_ char *path = agent_path(agents_dir, "fence_test", NULL);
	_free_ char *later = xasprintf("/nonexistent:%s", agents_dir);
	_free_ char *second = agent_path(later, "fence_test", NULL);
	_free_ char *folder = xasprintf("%s/fence_folder", agents_dir);

	(void)state;
	assert_non_null(path);
	assert_string_equal(path, second);
	refused_path(agents_dir, "fence_none", "is not installed on this host (looked in /tmp/godwit-agents-");
	refused_path(agents_dir, "fence_", "no name of a fence agent");
	refused_path(agents_dir, "sh", "no name of a fence agent");
	refused_path(agents_dir, "fence_../sh", "no name of a fence agent");
	refused_path(agents_dir, "fence_test\n", "no name of a fence agent");

	agents_write("fence_open", "#!/bin/sh\n");
	_free_ char *open = xasprintf("%s/fence_open", agents_dir);
	assert_int_equal(chmod(open, 0757), 0);
	refused_path(agents_dir, "fence_open", "can be written by others");
	assert_int_equal(chmod(open, 0644), 0);
	refused_path(agents_dir, "fence_open", "not a program that can be run");
	assert_int_equal(mkdir(folder, 0755), 0);
	refused_path(agents_dir, "fence_folder", "not a program that can be run");
	rmdir(folder);
	assert_int_equal(chmod(agents_dir, 0777), 0);
	refused_path(agents_dir, "fence_test", "can be written by others");
	assert_int_equal(chmod(agents_dir, 0700), 0);
}

static void an_agent_of_another_user_is_not_run(void **state)
{
	_free_ char *path = xasprintf("%s/fence_foreign", agents_dir);

	(void)state;
	if (geteuid() != 0) {
		print_message("# skipped: only root can give a file away\n");
		skip();
	}
	agents_write("fence_foreign", "#!/bin/sh\n");
	assert_int_equal(chown(path, 65534, 65534), 0);
	refused_path(agents_dir, "fence_foreign", "belongs to user 65534");
}

/* ---- calls ---- */

static void the_exit_status_says_what_happened(void **state)
{
	struct got g;

	(void)state;
	call_of("fence_test", AGENT_STATUS, "1", PATIENCE, &g);
	assert_int_equal(g.state, AGENT_STATE_ON);
	assert_string_equal(g.words, "status says on");
	got_done(&g);
	call_of("fence_test", AGENT_OFF, "1", PATIENCE, &g);
	assert_int_equal(g.exit_status, 0);
	assert_int_equal(g.state, AGENT_STATE_UNKNOWN);
	assert_string_equal(g.words, "off succeeded");
	got_done(&g);
	call_of("fence_test", AGENT_STATUS, "1", PATIENCE, &g);
	assert_int_equal(g.exit_status, 2);
	assert_int_equal(g.state, AGENT_STATE_OFF);
	got_done(&g);
	agents_fault("1", "fail");
	call_of("fence_test", AGENT_STATUS, "1", PATIENCE, &g);
	assert_int_equal(g.exit_status, 1);
	assert_int_equal(g.state, AGENT_STATE_UNKNOWN);
	assert_string_equal(g.words, "status exited with status 1: the device does not answer");
	got_done(&g);
}

static void an_agent_that_never_ends_is_killed_with_what_it_runs(void **state)
{
	int64_t began = clock_now_ns();
	struct got g;

	(void)state;
	agents_fault("1", "hang");
	call_of("fence_test", AGENT_OFF, "1", 300 * NS_PER_MS, &g);
	assert_true(g.late);
	assert_int_equal(g.exit_status, -1);
	assert_string_equal(g.words, "off did not end within 300 ms and was killed");
	assert_in_range(clock_now_ns() - began, 300 * NS_PER_MS, PATIENCE / 2);
	assert_true(agents_nobody_runs("98765"));
	got_done(&g);
	agents_fault("1", "away"); /* in a session of its own */
	call_of("fence_test", AGENT_OFF, "1", 300 * NS_PER_MS, &g);
	assert_true(g.late);
	assert_true(agents_nobody_runs("98763"));
	got_done(&g);
}

static void what_an_agent_leaves_behind_neither_delays_its_end_nor_outlives_it(void **state)
{
	int64_t began = clock_now_ns();
	struct got g;

	(void)state;
	agents_fault("1", "leave");
	call_of("fence_test", AGENT_OFF, "1", PATIENCE, &g);
	assert_int_equal(g.exit_status, 0);
	assert_true(clock_now_ns() - began < PATIENCE / 2);
	assert_true(agents_nobody_runs("98764"));
	assert_true(agents_is_off("1"));
	got_done(&g);
}

static void stop_loop(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

static void a_call_that_is_forgotten_is_killed_and_says_nothing(void **state)
{
	json_t *options = json_pack("{s:s}", "folder", agents_state);
	struct agent_call_spec spec = {
		.dirs = agents_dir, .agent = "fence_test", .action = AGENT_OFF, .options = options};
	struct got g = {0};
	struct agent_call *c;
	struct loop_timer *t;

	(void)state;
	agents_fault("1", "hang");
	spec.plug_option = "plug";
	spec.plug = "1";
	spec.timeout_ns = PATIENCE;
	c = agent_call_start(loop, &spec, on_end, &g, NULL);
	assert_non_null(c);
	t = loop_timer_add(loop, 200 * NS_PER_MS, 0, stop_loop, NULL);
	loop_run(loop);
	assert_false(agents_nobody_runs("98765"));
	agent_call_free(c);
	assert_true(agents_nobody_runs("98765"));
	loop_timer_set(t, 100 * NS_PER_MS);
	loop_run(loop);
	assert_null(g.words);
	loop_timer_free(t);
	json_decref(options);
}

static void a_secret_is_neither_in_the_process_nor_in_what_is_told(void **state)
{
	struct got g;

	(void)state;
	agents_fault("1", "spy");
	call_of("fence_test", AGENT_OFF, "1", PATIENCE, &g);
	assert_string_equal(g.words, "off exited with status 1: login with ******** refused");
	assert_string_equal(g.out, "******** is what ******** says\n");
	_free_ char *seen = agents_file("seen");
	assert_non_null(strstr(seen, "fence_test"));
	assert_non_null(strstr(seen, "PATH="));
	assert_null(strstr(seen, "hunter2"));
	got_done(&g);
}

static void of_much_output_the_beginning_is_kept_and_the_last_words(void **state)
{
	struct got g;

	(void)state;
	agents_write("fence_loud",
		     "#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' 'x'\n"
		     "head -c 3000000 /dev/zero | tr '\\0' 'y' >&2\nprintf '\\nthe end\\n' >&2\nexit 1\n");
	call_of("fence_loud", AGENT_LIST, NULL, PATIENCE, &g);
	assert_true(g.out_cut);
	assert_string_equal(g.out, ""); /* one line that was cut through: half of a secret could be in it */
	assert_string_equal(g.words, "list exited with status 1: the end");
	got_done(&g);
	/* A password at the very place of the cut. */
	agents_write("fence_edge", "#!/bin/sh\nhead -c 262140 /dev/zero | tr '\\0' '\\n'\necho 'hunter2;rm'\n"
				   "echo 'hunter2;rm' >&2\nhead -c 16379 /dev/zero | tr '\\0' 'y' >&2\nexit 1\n");
	call_of("fence_edge", AGENT_LIST, NULL, PATIENCE, &g);
	assert_null(strstr(g.out, "hunt"));
	assert_null(strstr(g.words, "er2"));
	got_done(&g);
}

static void words_of_an_agent_cannot_disturb_a_terminal(void **state)
{
	struct got g;

	(void)state;
	agents_write("fence_rude", "#!/bin/sh\nprintf 'a\\033[2Jb\\377\\n' >&2\nkill -TERM $$\n");
	call_of("fence_rude", AGENT_MONITOR, NULL, PATIENCE, &g);
	assert_int_equal(g.exit_status, -1);
	assert_false(g.late);
	assert_string_equal(g.words, "monitor was killed by signal 15 (Terminated): a?[2Jb?");
	got_done(&g);
}

/* ---- metadata ---- */

struct read_metadata {
	json_t *metadata;
	struct err e;
};

static void on_metadata(void *arg, json_t *metadata, const struct err *e)
{
	struct read_metadata *r = arg;

	r->metadata = json_incref(metadata);
	r->e = *e;
	loop_stop(loop);
}

static json_t *metadata_of(const char *dirs, const char *agent, int64_t timeout_ns, struct err *ret)
{
	struct read_metadata r = {0};
	struct agent_call *c = agent_metadata_start(loop, dirs, agent, timeout_ns, on_metadata, &r, ret);

	if (!c)
		return NULL;
	loop_run(loop);
	agent_call_free(c);
	*ret = r.e;
	return r.metadata;
}

static void metadata_is_read_or_refused_in_one_sentence(void **state)
{
	static const struct {
		const char *script, *words;
	} rows[] = {
		{"#!/bin/sh\necho 'Usage: me'\n",
		 "fence agent fence_bad: what it prints as its metadata is not XML: line 1"},
		{"#!/bin/sh\n", "is not XML: line 1: no element found"},
		{"#!/bin/sh\necho 'no idea' >&2; exit 3\n",
		 "fence agent fence_bad: metadata exited with status 3: no idea"},
		{"#!/bin/sh\nsleep 98762\n",
		 "fence agent fence_bad: metadata did not end within 500 ms and was killed"},
		{"#!/bin/sh\necho '<html><body/></html>'\n", "the first element is not resource-agent"},
		{"#!/bin/sh\necho '<resource-agent name=\"x\"/>'\n", "its metadata has no actions"},
		{"#!/bin/sh\necho '<!DOCTYPE r [<!ENTITY a \"b\">]><resource-agent/>'\n", "it has a document type"},
		{"#!/bin/sh\necho '<resource-agent><parameters><parameter name=\"a b\"/>'\n", "without a proper name"},
		{"#!/bin/sh\necho '<resource-agent><parameters><parameter name=\"a\"/><parameter name=\"a\"/>'\n",
		 "the same parameter twice"},
		{"#!/bin/sh\nyes '<a>' | head -c 300000\n", "its metadata is longer than"},
		{"#!/bin/sh\necho '<resource-agent>'; yes '<a>' | head -n 100\n", "elements within elements"},
		{"#!/nonexistent\n", "fence agent fence_bad: program"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct err e = ERR_INIT;

		agents_write("fence_bad", rows[i].script);
		assert_null(metadata_of(agents_dir, "fence_bad", i == 3 ? 500 * NS_PER_MS : PATIENCE, &e));
		if (!strstr(e.text, rows[i].words))
			fail_msg("%s: %s", rows[i].script, e.text);
	}
	assert_true(agents_nobody_runs("98762"));
}

static json_t *parameter(const json_t *metadata, const char *name)
{
	size_t i;
	json_t *p;

	json_array_foreach (json_object_get(metadata, "parameters"), i, p)
		if (!strcmp(json_string_value(json_object_get(p, "name")), name))
			return p;
	fail_msg("no parameter %s", name);
	return NULL;
}

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static void have_fence_agents(void)
{
	if (access("/usr/sbin/fence_ipmilan", X_OK) == 0)
		return;
	print_message("# skipped: Debian's fence-agents is not installed\n");
	skip();
}

static void metadata_of_a_real_agent_is_understood(void **state)
{
	struct err e = ERR_INIT;
	json_t *m, *secrets;
	bool required;

	(void)state;
	have_fence_agents();
	m = metadata_of(NULL, "fence_ipmilan", PATIENCE, &e);
	assert_string_equal(e.text, "");
	assert_string_equal(text_of(m, "name"), "fence_ipmilan");
	assert_int_equal(agent_metadata_usable(m, &e), 0);
	assert_string_equal(agent_metadata_plug(m, &required), "plug");
	assert_string_equal(text_of(parameter(m, "ipport"), "type"), "integer");
	assert_string_equal(text_of(parameter(m, "power_timeout"), "type"), "second");
	assert_string_equal(text_of(parameter(m, "method"), "type"), "select");
	assert_int_equal(json_array_size(json_object_get(parameter(m, "method"), "values")), 2);
	assert_string_equal(text_of(parameter(m, "ip"), "obsoletes"), "ipaddr");
	assert_true(json_is_true(json_object_get(parameter(m, "ipaddr"), "deprecated")));
	secrets = agent_metadata_secrets(m);
	assert_true(json_array_size(secrets) >= 4);
	assert_true(json_is_true(json_object_get(parameter(m, "password_script"), "secret")));
	assert_false(json_is_true(json_object_get(parameter(m, "username"), "secret")));
	json_decref(secrets);
	json_decref(m);
}

static void the_agent_of_the_lab_is_like_any_other(void **state)
{
	_free_ char *script = file_read("tests/tools/fence_lab", 1 << 20, NULL, NULL);
	struct err e = ERR_INIT;
	json_t *m, *given = json_pack("{s:s, s:i}", "folder", "/run/lab/power", "power_timeout", 3), *options;
	bool required;

	(void)state;
	assert_non_null(script);
	agents_write("fence_lab", script);
	m = metadata_of(agents_dir, "fence_lab", PATIENCE, &e);
	assert_string_equal(e.text, "");
	assert_int_equal(agent_metadata_usable(m, &e), 0);
	assert_string_equal(agent_metadata_plug(m, &required), "plug");
	assert_true(required);
	options = agent_options_check(m, given, &e);
	assert_string_equal(e.text, "");
	assert_string_equal(text_of(options, "power_timeout"), "3");
	json_decref(options);
	json_decref(given);
	json_decref(m);
}

static void agents_that_prove_nothing_are_refused(void **state)
{
	static const struct {
		const char *agent, *words;
	} rows[] = {
		{"fence_scsi", "fence_scsi cuts a host off storage or network and leaves it running"},
		{"fence_kdump", "fence_kdump cannot prove that a host is off"},
		{"fence_sbd", "fence_sbd cannot prove that a host is off"},
		{"fence_rcd_serial", "fence_rcd_serial has no action off"},
		{"fence_heuristics_ping", "fence_heuristics_ping cannot prove"},
		{"fence_ovh", "fence_ovh has no action status"},
	};

	(void)state;
	have_fence_agents();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct err e = ERR_INIT;
		json_t *m = metadata_of(NULL, rows[i].agent, PATIENCE, &e);

		if (!m || agent_metadata_usable(m, &e) == 0 || !strstr(e.text, rows[i].words))
			fail_msg("%s: %s", rows[i].agent, e.text);
		json_decref(m);
	}
}

static void a_secret_makes_the_option_that_it_replaces_one_too(void **state)
{
	static const char xml[] =
		"<resource-agent name='fence_x'><parameters>"
		"<parameter name='pin' obsoletes='code'><content type='password'/></parameter>"
		"<parameter name='code' deprecated='1'><content type='string'/></parameter>"
		"<parameter name='user'><content type='string'/><shortdesc>Who\n\033[0m</shortdesc></parameter>"
		"</parameters><actions><action name='off'/></actions></resource-agent>";
	static const char clean[] =
		"<resource-agent name='fence_x'><parameters>"
		"<parameter name='user'><content type='string'/><shortdesc>Who\nis it</shortdesc></parameter>"
		"<parameter name='code' deprecated='1'/><parameter name='pin' obsoletes='code'>"
		"<content type='password'/></parameter>"
		"</parameters><actions><action name='off'/></actions></resource-agent>";
	struct err e = ERR_INIT;
	json_t *m;

	(void)state;
	assert_null(agent_metadata_parse(xml, strlen(xml), &e)); /* a control character is no XML */
	m = agent_metadata_parse(clean, strlen(clean), &e);
	assert_non_null(m);
	assert_true(json_is_true(json_object_get(parameter(m, "pin"), "secret")));
	assert_true(json_is_true(json_object_get(parameter(m, "code"), "secret")));
	assert_false(json_is_true(json_object_get(parameter(m, "user"), "secret")));
	assert_string_equal(text_of(parameter(m, "user"), "description"), "Who is it");
	json_decref(m);
}

/* ---- options ---- */

static const char switch_xml[] =
	"<resource-agent name='fence_switch'><parameters>"
	"<parameter name='action' required='1'><content type='string'/></parameter>"
	"<parameter name='plug' required='1' obsoletes='port'><content type='string'/></parameter>"
	"<parameter name='port' required='1' deprecated='1'><content type='string'/></parameter>"
	"<parameter name='ip' required='1' obsoletes='ipaddr'><content type='string'/><shortdesc>Address of the "
	"device</shortdesc></parameter>"
	"<parameter name='ipaddr' required='1' deprecated='1'><content type='string'/></parameter>"
	"<parameter name='password'><content type='string'/></parameter>"
	"<parameter name='ssl'><content type='boolean'/></parameter>"
	"<parameter name='tries'><content type='integer' default='1'/></parameter>"
	"<parameter name='pin_token'><content type='integer'/></parameter>"
	"<parameter name='power_wait' required='1'><content type='second' default='0'/></parameter>"
	"<parameter name='method'><content type='select'><option value='onoff'/><option "
	"value='cycle'/></content></parameter>"
	"<parameter name='missing_as_off'><content type='boolean'/></parameter>"
	"<parameter name='port_as_ip'><content type='boolean'/></parameter>"
	"</parameters><actions><action name='off'/><action name='status'/></actions></resource-agent>";

static json_t *check_options(const char *options, struct err *e)
{
	json_t *m = agent_metadata_parse(switch_xml, strlen(switch_xml), NULL);
	json_t *o = json_loads(options, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL), *normal;

	assert_non_null(m);
	assert_non_null(o);
	normal = agent_options_check(m, o, e);
	json_decref(o);
	json_decref(m);
	return normal;
}

static void options_are_refused_in_one_sentence(void **state)
{
	static const struct {
		const char *options, *words;
	} rows[] = {
		{"{}", "fence_switch needs the option ip (Address of the device)"},
		{"[]", "must be an object"},
		{"{\"ip\":\"a\",\"pasword\":\"x\"}",
		 "fence_switch has no option \"pasword\"; did you mean \"password\"?"},
		{"{\"ip\":\"a\",\"elephant\":\"x\"}",
		 "fence_switch has no option \"elephant\"; its metadata lists them"},
		{"{\"ip\":\"a\",\"ipaddr\":\"b\"}",
		 "options ip and ipaddr of fence_switch are the same thing: give ip only"},
		{"{\"ip\":\"a\",\"ssl\":\"maybe\"}", "option ssl of fence_switch must be true or false, not \"maybe\""},
		{"{\"ip\":\"a\",\"tries\":\"1.5\"}",
		 "option tries of fence_switch must be a whole number, not \"1.5\""},
		{"{\"ip\":\"a\",\"tries\":1.5}", "option tries of fence_switch is neither text nor a whole number"},
		{"{\"ip\":\"a\",\"power_wait\":-1}", "must be a whole number of seconds, not \"-1\""},
		{"{\"ip\":\"a\",\"method\":\"off\"}",
		 "option method of fence_switch must be onoff or cycle, not \"off\""},
		{"{\"ip\":\"a\",\"pin_token\":\"s3cret\"}", "must be a whole number, not \"********\""},
		{"{\"ip\":\"a\\naction=on\"}", "option ip of fence_switch has a line end in it"},
		{"{\"ip\":\"a\\u0000b\"}", "option ip of fence_switch has a zero byte in it"},
		{"{\"ip\":\" a\"}", "begins or ends with a blank"},
		{"{\"ip\":{}}", "is neither text"},
		{"{\"ip\":\"a\",\"action\":\"on\"}", "option action of fence_switch cannot be set here"},
		{"{\"ip\":\"a\",\"plug\":\"1\"}", "give it as the plug of a node"},
		{"{\"ip\":\"a\",\"missing_as_off\":true}",
		 "it would count a plug that does not exist as a host that is off"},
		{"{\"ip\":\"a\",\"help\":\"1\"}", "succeed, and switch nothing"},
		{"{\"ip\":\"a\",\"debug_file\":\"/tmp/x\"}", "passwords among it"},
		{"{\"ip\":\"a\",\"password\":\"********\"}", "is the mask that is shown for secrets"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct err e = ERR_INIT;

		assert_null(check_options(rows[i].options, &e));
		if (!strstr(e.text, rows[i].words) || strstr(e.text, "s3cret"))
			fail_msg("%s: %s", rows[i].options, e.text);
	}
}

static void options_become_lines(void **state)
{
	json_t *o = check_options(
		"{\"ipaddr\":\"a\",\"ssl\":true,\"tries\":-3,\"power_wait\":\"7\",\"password\":\"a=b #c\"}", NULL);
	json_t *as_ip = check_options("{\"port_as_ip\":\"yes\"}", NULL);

	(void)state;
	assert_string_equal(text_of(o, "ipaddr"), "a");
	assert_string_equal(text_of(o, "ssl"), "1");
	assert_string_equal(text_of(o, "tries"), "-3");
	assert_string_equal(text_of(o, "power_wait"), "7");
	assert_string_equal(text_of(o, "password"), "a=b #c");
	assert_string_equal(text_of(as_ip, "port_as_ip"), "1");
	json_decref(o);
	json_decref(as_ip);
}

static void secrets_are_masked_and_come_back_unharmed(void **state)
{
	json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "ip", "10.0.0.1", "passwd_script", "/root/pw", "snmp_priv_passwd",
			      "p", "pin", "1234");
	json_t *more = json_pack("[s, s]", "pin", "not_there");
	json_t *masked = agent_options_mask(o, more), *back;

	(void)state;
	assert_string_equal(text_of(masked, "ip"), "10.0.0.1");
	assert_string_equal(text_of(masked, "passwd_script"), AGENT_MASK);
	assert_string_equal(text_of(masked, "snmp_priv_passwd"), AGENT_MASK);
	assert_string_equal(text_of(masked, "pin"), AGENT_MASK);
	assert_int_equal(json_object_size(masked), 4);
	json_object_set_new(masked, "ip", json_string("10.0.0.2"));
	json_object_set_new(masked, "pin", json_string("5678"));
	back = agent_options_unmask(masked, o);
	assert_string_equal(text_of(back, "ip"), "10.0.0.2");
	assert_string_equal(text_of(back, "passwd_script"), "/root/pw");
	assert_string_equal(text_of(back, "pin"), "5678");
	json_decref(o);
	json_decref(more);
	json_decref(masked);
	json_decref(back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_agent_is_run_from_a_folder_that_only_its_owner_can_write, setup,
						teardown),
		cmocka_unit_test_setup_teardown(an_agent_of_another_user_is_not_run, setup, teardown),
		cmocka_unit_test_setup_teardown(the_exit_status_says_what_happened, setup, teardown),
		cmocka_unit_test_setup_teardown(an_agent_that_never_ends_is_killed_with_what_it_runs, setup, teardown),
		cmocka_unit_test_setup_teardown(what_an_agent_leaves_behind_neither_delays_its_end_nor_outlives_it,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_call_that_is_forgotten_is_killed_and_says_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(a_secret_is_neither_in_the_process_nor_in_what_is_told, setup,
						teardown),
		cmocka_unit_test_setup_teardown(of_much_output_the_beginning_is_kept_and_the_last_words, setup,
						teardown),
		cmocka_unit_test_setup_teardown(words_of_an_agent_cannot_disturb_a_terminal, setup, teardown),
		cmocka_unit_test_setup_teardown(metadata_is_read_or_refused_in_one_sentence, setup, teardown),
		cmocka_unit_test_setup_teardown(metadata_of_a_real_agent_is_understood, setup, teardown),
		cmocka_unit_test_setup_teardown(the_agent_of_the_lab_is_like_any_other, setup, teardown),
		cmocka_unit_test_setup_teardown(agents_that_prove_nothing_are_refused, setup, teardown),
		cmocka_unit_test(a_secret_makes_the_option_that_it_replaces_one_too),
		cmocka_unit_test(options_are_refused_in_one_sentence),
		cmocka_unit_test(options_become_lines),
		cmocka_unit_test(secrets_are_masked_and_come_back_unharmed),
	};

	return cmocka_run_group_tests(tests, agents_setup, agents_teardown);
}
