/* SPDX-License-Identifier: Apache-2.0 */
/* godwit events and godwit vm console: streams. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tests/unit/cli/fake.h"

#define EVENT1                                                                                                         \
	"id: 41\nevent: vm.create\ndata: {\"seq\":41,\"time\":1764115200000,\"by\":\"root\",\"from\":\"unix\",\"op\":" \
	"\"vm.create\",\"object\":\"web1\",\"data\":{\"name\":\"web1\",\"owner\":\"n1\",\"epoch\":1,\"note\":null,"    \
	"\"more\":{}}}\n\n"
#define EVENT2                                                                                                         \
	"id: 42\nevent: vm.observed\ndata: "                                                                           \
	"{\"seq\":42,\"time\":1764115201000,\"op\":\"vm.observed\",\"object\":\"web1\","                               \
	"\"data\":{\"status\":\"run\\u001bning\",\"note\":\"at last\",\"vm\":\"web1\"}}\n\n"
#define UPDATE                                                                                                         \
	"id: 43\nevent: task.update\ndata: "                                                                           \
	"{\"seq\":43,\"time\":1764115202000,\"op\":\"task.update\",\"object\":\"t1\",\"data\":"                        \
	"{\"id\":\"t1\",\"progress\":0.25}}\n\n"
#define PROGRESS "event: progress\ndata: {\"vm\":\"web1\",\"progress\":0.5}\n\n"

static void what_is_remembered_is_told_and_then_it_ends(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("GET", "/v1/events?since=0", FAKE_STREAM, EVENT1 ":\n\n" PROGRESS UPDATE EVENT2);
	FAKE_RUN(&run, "events");
	assert_int_equal(run.status, 0);
	assert_string_equal(run.out, "2025-11-26 00:00:00  vm.create web1 owner=n1 epoch=1  by root\n"
				     "2025-11-26 00:00:01  vm.observed web1 status=run?ning note=\"at last\"\n");
	assert_string_equal(run.err, "");
	fake_run_done(&run);
}

static void since_and_progress_are_asked_for(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("GET", "/v1/events?since=41", FAKE_STREAM, "event: gap\ndata: {\"since\":41}\n\n" PROGRESS UPDATE);
	FAKE_RUN(&run, "events", "--since", "41", "--progress");
	assert_int_equal(run.status, 0);
	assert_string_equal(run.out, "-  progress vm=web1 progress=0.5\n"
				     "2025-11-26 00:00:02  task.update t1 progress=0.25\n");
	assert_string_equal(run.err, "godwit: events are missing here: they are not remembered for so long\n");
	fake_run_done(&run);
}

static void json_is_a_line_for_each_event(void **state)
{
	struct fake_run run;
	char *second;

	(void)state;
	fake_answer("GET", "/v1/events?since=0", FAKE_STREAM, EVENT1 EVENT2);
	FAKE_RUN(&run, "events", "--json");
	assert_int_equal(run.status, 0);
	second = strchr(run.out, '\n');
	*second++ = 0;
	fake_assert_json(run.out,
			 "{\"seq\":41,\"time\":1764115200000,\"by\":\"root\",\"from\":\"unix\",\"op\":\"vm.create\","
			 "\"object\":\"web1\",\"event\":\"vm.create\",\"data\":{\"name\":\"web1\",\"owner\":\"n1\","
			 "\"epoch\":1,\"note\":null,\"more\":{}}}");
	assert_non_null(strstr(second, "\"seq\":42"));
	fake_run_done(&run);
}

/* A stream whose third part is refused, so that following ends. */
static void following_goes_on_after_the_last_event_when_the_daemon_restarts(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("GET", "/v1/events", FAKE_ENDING, EVENT1);
	fake_answer("GET", "/v1/events?since=41", FAKE_CUT, "");
	fake_answer("GET", "/v1/events?since=41", FAKE_ENDING, EVENT2);
	fake_answer("GET", "/v1/events?since=42", 403,
		    "{\"error\":{\"code\":\"forbidden\",\"message\":\"the role viewer was taken away\"}}");
	FAKE_RUN(&run, "events", "-f");
	assert_int_equal(run.status, 6);
	assert_string_equal(run.out, "2025-11-26 00:00:00  vm.create web1 owner=n1 epoch=1  by root\n"
				     "2025-11-26 00:00:01  vm.observed web1 status=run?ning note=\"at last\"\n");
	assert_int_equal(fake_count_of("GET", "/v1/events?since=41"), 2);
	fake_run_done(&run);
}

static void events_that_are_refused_say_why(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("GET", "/v1/events?since=0", 503,
		    "{\"error\":{\"code\":\"unavailable\",\"message\":\"still starting\"}}");
	FAKE_RUN(&run, "events");
	assert_int_equal(run.status, 7);
	assert_non_null(strstr(run.err, "godwit: still starting\n"));
	fake_run_done(&run);
}

/* ---- the console ---- */

/* Run the console with @typed as input; what it printed is in @out (of 256 bytes). */
static void console(struct fake_run *run, const char *typed, char *out)
{
	int in[2], screen[2];
	ssize_t n;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, in), 0);
	assert_int_equal(pipe(screen), 0);
	assert_int_equal(write(in[1], typed, strlen(typed)), strlen(typed));
	fake_io.in_fd = in[0];
	fake_io.out_fd = screen[1];
	FAKE_RUN(run, "vm", "console", "web1");
	close(in[0]);
	close(in[1]);
	close(screen[1]);
	n = read(screen[0], out, 255);
	out[n > 0 ? n : 0] = 0;
	close(screen[0]);
}

static void the_console_carries_both_ways_until_the_guest_closes_it(void **state)
{
	struct fake_run run;
	char out[256];

	(void)state;
	fake_answer("GET", "/v1/vms/web1/console", FAKE_RAW, "");
	fake_io.in_tty = true;
	console(&run, "root.", out);
	assert_int_equal(run.status, 0);
	assert_string_equal(fake_find("GET", "/v1/vms/web1/console")->upgrade, "godwit-console");
	assert_string_equal(out, "login: ROOT");
	assert_non_null(strstr(run.err, "console of web1; Ctrl-] leaves\n"));
	assert_non_null(strstr(run.err, "console of web1: closed by QEMU"));
	fake_run_done(&run);
}

static void the_escape_key_leaves_the_console(void **state)
{
	struct fake_run run;
	char out[256];

	(void)state;
	fake_answer("GET", "/v1/vms/web1/console", FAKE_RAW, "");
	console(&run, "\035", out);
	assert_int_equal(run.status, 0);
	assert_string_equal(run.err, "");
	fake_run_done(&run);
}

static void a_console_that_is_refused_says_why(void **state)
{
	struct fake_run run;
	char out[256];

	(void)state;
	fake_answer("GET", "/v1/vms/web1/console", 409,
		    "{\"error\":{\"code\":\"conflict\",\"message\":\"vm web1 is stopped\"}}");
	console(&run, "", out);
	assert_int_equal(run.status, 5);
	assert_string_equal(run.err, "godwit: vm web1 is stopped\n");
	assert_string_equal(out, "");
	fake_run_done(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_remembered_is_told_and_then_it_ends, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(since_and_progress_are_asked_for, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(json_is_a_line_for_each_event, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(following_goes_on_after_the_last_event_when_the_daemon_restarts,
						fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(events_that_are_refused_say_why, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(the_console_carries_both_ways_until_the_guest_closes_it, fake_start,
						fake_stop),
		cmocka_unit_test_setup_teardown(the_escape_key_leaves_the_console, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_console_that_is_refused_says_why, fake_start, fake_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
