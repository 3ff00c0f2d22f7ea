/* SPDX-License-Identifier: Apache-2.0 */
/* Asking a daemon: refusals and their exit status, what to do next, lost connections, no daemon, other hosts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tests/unit/base/certs.h"
#include "tests/unit/cli/fake.h"

#define REFUSAL(code, message) "{\"error\":{\"code\":\"" code "\",\"message\":\"" message "\"}}"

static void a_refusal_has_its_reason_its_status_and_what_to_do_next(void **state)
{
	static const struct {
		int http;
		const char *answer;
		int status;
		const char *err;
	} rows[] = {
		{404, REFUSAL("notfound", "vm web9: there is no such vm"), 4,
		 "godwit: vm web9: there is no such vm\ngodwit: `godwit vm list` shows what is there\n"},
		{409, REFUSAL("conflict", "vm web1 is running; stop it first"), 5,
		 "godwit: vm web1 is running; stop it first\n"},
		{403, REFUSAL("forbidden", "DELETE needs the role operator"), 6,
		 "godwit: DELETE needs the role operator\ngodwit: root of a host may do everything; others use --host "
		 "with "
		 "a token\n"},
		{401, REFUSAL("auth", "nobody here knows you"), 6,
		 "godwit: nobody here knows you\ngodwit: root of a host may do everything; others use --host with a "
		 "token\n"},
		{503, REFUSAL("unavailable", "no quorum: 1 of 3 hosts"), 7,
		 "godwit: no quorum: 1 of 3 hosts\ngodwit: `godwit cluster status` says how the cluster is; the same "
		 "command may succeed later\n"},
		{400, REFUSAL("input", "name: too long"), 3, "godwit: name: too long\n"},
		{504, REFUSAL("timeout", "node n2 did not answer"), 7,
		 "godwit: node n2 did not answer\ngodwit: `godwit task list --active` shows what is still being "
		 "done\n"},
		{500, REFUSAL("system", "disk full"), 1, "godwit: disk full\n"},
		{500, "<html>", 1, "godwit: the server answered 500 Internal Server Error\n"},
		{404, REFUSAL("notfound", "there is none; `godwit vm list` lists them"), 4,
		 "godwit: there is none; `godwit vm list` lists them\n"},
		{400, "{\"error\":{\"code\":\"input\",\"message\":\"too long\",\"object\":\"web1\"}}", 3,
		 "godwit: web1: too long\n"},
		{400, "{\"error\":{\"code\":\"input\",\"message\":\"vm web1: too long\",\"object\":\"web1\"}}", 3,
		 "godwit: vm web1: too long\n"},
		{400, REFUSAL("input", "a\\u001b[31mb"), 3, "godwit: a?[31mb\n"},
		{200, "half a {", 1, "godwit: DELETE /v1/vms/web1: the answer is not JSON\n"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct fake_run run;

		fake_answer("DELETE", "/v1/vms/web1", rows[i].http, rows[i].answer);
		FAKE_RUN(&run, "vm", "delete", "web1");
		assert_string_equal(run.err, rows[i].err);
		assert_string_equal(run.out, "");
		assert_int_equal(run.status, rows[i].status);
		fake_run_done(&run);
		fake_stop(state);
		fake_start(state);
	}
}

static void with_json_a_failure_is_an_object_too(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("GET", "/v1/vms/web9", 404, REFUSAL("notfound", "vm web9: there is no such vm"));
	FAKE_RUN(&run, "vm", "show", "web9", "--json");
	assert_int_equal(run.status, 4);
	fake_assert_json(run.out,
			 "{\"error\":{\"code\":\"notfound\",\"message\":\"vm web9: there is no such vm\",\"exit\":4}}");
	fake_run_done(&run);
}

static void a_change_is_asked_for_once_more_with_the_same_key_when_the_connection_is_lost(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("DELETE", "/v1/vms/web1", FAKE_CUT, "");
	fake_answer("DELETE", "/v1/vms/web1", 200, "{}");
	FAKE_RUN(&run, "vm", "delete", "web1");
	assert_int_equal(run.status, 0);
	assert_int_equal(fake_count(), 2);
	assert_string_equal(fake_request(0)->key, fake_request(1)->key);
	fake_run_done(&run);
}

static void two_changes_have_two_keys(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("DELETE", "/v1/vms/web1", 200, "{}");
	for (int i = 0; i < 2; i++) {
		FAKE_RUN(&run, "vm", "delete", "web1");
		assert_int_equal(run.status, 0);
		fake_run_done(&run);
	}
	assert_string_not_equal(fake_request(0)->key, fake_request(1)->key);
}

static void a_change_that_is_lost_twice_may_or_may_not_be_done(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("DELETE", "/v1/vms/web1", FAKE_CUT, "");
	FAKE_RUN(&run, "vm", "delete", "web1");
	assert_int_equal(run.status, 1);
	assert_int_equal(fake_count(), 2);
	assert_non_null(strstr(run.err, "the connection was lost before the answer, so it may or may not be done"));
	fake_run_done(&run);
}

static void a_host_that_is_cut_off_says_how_old_its_knowledge_is(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("GET", "/v1/vms", 200, "[{\"name\":\"web1\"}]");
	fake_age(9999);
	FAKE_RUN(&run, "vm", "list", "--names");
	assert_string_equal(run.err, "");
	fake_run_done(&run);
	fake_age(125000);
	FAKE_RUN(&run, "vm", "list", "--names");
	assert_int_equal(run.status, 0);
	assert_string_equal(run.out, "web1\n");
	assert_string_equal(run.err, "godwit: this host is cut off; what it knows of the cluster is 2:05 min old\n");
	fake_run_done(&run);
}

/* ---- no daemon ---- */

static void no_daemon_is_said_with_how_to_start_it(void **state)
{
	struct fake_run run;
	_free_ char *expected = xasprintf("godwit: no godwitd answers at %s: start it on this host (`systemctl start "
					  "godwitd`), or name another host with --host\n",
					  fake_path("nobody"));

	(void)state;
	FAKE_RUN(&run, "vm", "list", "--socket", fake_path("nobody"));
	assert_int_equal(run.status, 7);
	assert_string_equal(run.err, expected);
	fake_run_done(&run);
	/* A console and events say the same. */
	FAKE_RUN(&run, "events", "--socket", fake_path("nobody"));
	assert_int_equal(run.status, 7);
	assert_string_equal(run.err, expected);
	fake_run_done(&run);
	FAKE_RUN(&run, "vm", "console", "web1", "--socket", fake_path("nobody"));
	assert_int_equal(run.status, 7);
	assert_string_equal(run.err, expected);
	fake_run_done(&run);
}

static void a_socket_that_is_not_ours_to_use_says_who_may(void **state)
{
	struct fake_run run;

	(void)state;
	if (geteuid() == 0) {
		if (seteuid(65534) < 0)
			skip();
	}
	chmod(fake_path("."), 0700);
	FAKE_RUN(&run, "vm", "list");
	if (getuid() == 0)
		assert_int_equal(seteuid(0), 0);
	else
		skip();
	assert_int_equal(run.status, 6);
	assert_non_null(strstr(run.err, "you may not use "));
	fake_run_done(&run);
}

static void another_host_that_does_not_answer_is_named(void **state)
{
	static const char *const files[] = {"ca.pem", "cert.pem", "key.pem"};
	char dir[] = "/tmp/godwit-cli-certs.XXXXXX";
	struct certs_ca ca;
	struct fake_run run;

	(void)state;
	assert_non_null(mkdtemp(dir));
	certs_ca_init(&ca, "a CA");
	certs_write(dir, &ca, &ca, "amy", 0);
	FAKE_RUN(&run, "vm", "list", "--host", "127.0.0.1:1", "--cert-dir", dir);
	assert_int_equal(run.status, 7);
	assert_non_null(strstr(run.err, "godwit: no godwitd answers at 127.0.0.1:1: "));
	fake_run_done(&run);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_free_ char *path = xasprintf("%s/%s", dir, files[i]);

		unlink(path);
	}
	rmdir(dir);
	certs_ca_done(&ca);
}

static void another_host_needs_to_know_who_asks(void **state)
{
	static const struct {
		const char *line, *err;
	} rows[] = {
		{"vm list --host n1:7443", "godwit: --host n1:7443 needs --cert-dir DIR, or both --ca FILE and "
					   "--token-file FILE: who vouches for "
					   "that host, and who are you?\n"},
		{"vm list --host n1:7443 --ca x", "godwit: --host n1:7443 needs --cert-dir DIR, or both --ca FILE and "
						  "--token-file FILE: who vouches for "
						  "that host, and who are you?\n"},
		{"vm list --ca x", "godwit: --ca belongs to --host\n"},
		{"vm list --host n1:1 --socket x", "godwit: --host and --socket exclude each other\n"},
		{"vm list --host n1:1 --cert-dir x --ca y", "godwit: --cert-dir and --ca exclude each other\n"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct fake_run run;

		fake_run_line(&run, rows[i].line);
		assert_int_equal(run.status, 2);
		assert_string_equal(run.err, rows[i].err);
		fake_run_done(&run);
	}
	assert_int_equal(fake_count(), 0);
}

static void a_token_file_must_be_there_and_hold_one(void **state)
{
	struct fake_run run;

	(void)state;
	FAKE_RUN(&run, "vm", "list", "--host", "n1:1", "--ca", "x", "--token-file", fake_file("token", "\n"));
	assert_int_equal(run.status, 3);
	assert_non_null(strstr(run.err, "is empty"));
	fake_run_done(&run);
	FAKE_RUN(&run, "vm", "list", "--host", "n1:1", "--ca", "x", "--token-file", fake_path("none"));
	assert_int_equal(run.status, 3);
	assert_non_null(strstr(run.err, "--token-file: "));
	fake_run_done(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_refusal_has_its_reason_its_status_and_what_to_do_next, fake_start,
						fake_stop),
		cmocka_unit_test_setup_teardown(with_json_a_failure_is_an_object_too, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(
			a_change_is_asked_for_once_more_with_the_same_key_when_the_connection_is_lost, fake_start,
			fake_stop),
		cmocka_unit_test_setup_teardown(two_changes_have_two_keys, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_change_that_is_lost_twice_may_or_may_not_be_done, fake_start,
						fake_stop),
		cmocka_unit_test_setup_teardown(a_host_that_is_cut_off_says_how_old_its_knowledge_is, fake_start,
						fake_stop),
		cmocka_unit_test_setup_teardown(no_daemon_is_said_with_how_to_start_it, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_socket_that_is_not_ours_to_use_says_who_may, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(another_host_that_does_not_answer_is_named, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(another_host_needs_to_know_who_asks, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_token_file_must_be_there_and_hold_one, fake_start, fake_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
