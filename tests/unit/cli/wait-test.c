/* SPDX-License-Identifier: Apache-2.0 */
/* Following long actions: progress, ends, Ctrl-C, a daemon that goes away and comes back. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tests/unit/cli/fake.h"

#define QUEUED "{\"task\":{\"id\":\"t1\",\"kind\":\"vm.migrate\",\"object\":\"web1\",\"state\":\"queued\"}}"
#define RUNNING(progress)                                                                                              \
	"{\"id\":\"t1\",\"kind\":\"vm.migrate\",\"object\":\"web1\",\"state\":\"running\",\"progress\":" progress      \
	",\"eta_ms\":4000,\"note\":\"copying\"}"
#define DONE                                                                                                           \
	"{\"id\":\"t1\",\"kind\":\"vm.migrate\",\"object\":\"web1\",\"state\":\"done\",\"progress\":1,\"created\":"    \
	"1000,"                                                                                                        \
	"\"finished\":9930,\"result\":{\"src\":\"n1\",\"dst\":\"n2\",\"detail\":{\"pause_ms\":12.3,\"wire_bytes\":"    \
	"1070000000}}}"
#define ENDED(state, error)                                                                                            \
	"{\"id\":\"t1\",\"kind\":\"vm.migrate\",\"object\":\"web1\",\"state\":\"" state "\",\"error\":" error "}"

static void a_move_ends_with_where_to_how_long_and_how_much(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/vms/web1/migrate", 202, QUEUED);
	fake_answer("GET", "/v1/tasks/t1", 200, RUNNING("0.3"));
	fake_answer("GET", "/v1/tasks/t1", 200, DONE);
	FAKE_RUN(&run, "vm", "migrate", "web1");
	assert_int_equal(run.status, 0);
	assert_string_equal(run.out, "vm web1: moved to n2, pause 12.3 ms, after 8.93 s, 1.07 GB on the wire\n");
	assert_string_equal(run.err, "web1: copying\n");
	fake_run_done(&run);
}

static void json_is_the_task_at_its_end_and_nothing_else(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/vms/web1/migrate", 202, QUEUED);
	fake_answer("GET", "/v1/tasks/t1", 200, RUNNING("0.3"));
	fake_answer("GET", "/v1/tasks/t1", 200, DONE);
	fake_io.err_tty = true;
	FAKE_RUN(&run, "vm", "migrate", "web1", "--json");
	assert_int_equal(run.status, 0);
	fake_assert_json(run.out, DONE);
	assert_string_equal(run.err, "");
	fake_run_done(&run);
}

static void a_terminal_gets_a_bar_that_is_gone_at_the_end(void **state)
{
	struct fake_run run;
	char *last;

	(void)state;
	fake_answer("POST", "/v1/vms/web1/migrate", 202, QUEUED);
	fake_answer("GET", "/v1/tasks/t1", 200, RUNNING("0.5"));
	fake_answer("GET", "/v1/tasks/t1", 200, DONE);
	fake_io.err_tty = true;
	FAKE_RUN(&run, "vm", "migrate", "web1");
	assert_int_equal(run.status, 0);
	assert_non_null(strstr(run.err, "\rweb1  [###############---------------]   50 %  copying  ETA 0:04"));
	assert_null(strchr(run.err, '\n'));
	/* The last thing that is drawn are blanks, from edge to edge. */
	assert_int_equal(run.err[strlen(run.err) - 1], '\r');
	run.err[strlen(run.err) - 1] = 0;
	last = strrchr(run.err, '\r');
	assert_int_equal(strspn(last + 1, " "), strlen(last + 1));
	fake_run_done(&run);
}

static void a_task_that_counts_nothing_shows_how_long_it_takes(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/vms/web1/stop", 202,
		    "{\"task\":{\"id\":\"t1\",\"kind\":\"vm.stop\",\"object\":\"web1\",\"state\":\"queued\"}}");
	fake_answer("GET", "/v1/tasks/t1", 200,
		    "{\"id\":\"t1\",\"state\":\"running\",\"progress\":0.0,\"eta_ms\":null}");
	fake_answer("GET", "/v1/tasks/t1", 200, "{\"id\":\"t1\",\"state\":\"done\",\"progress\":1.0}");
	fake_io.err_tty = true;
	FAKE_RUN(&run, "vm", "stop", "web1");
	assert_int_equal(run.status, 0);
	assert_non_null(strstr(run.err, "\rweb1  0:01"));
	assert_null(strstr(run.err, "0 %"));
	fake_run_done(&run);
}

static void events_move_the_bar_between_two_questions(void **state)
{
	struct fake_run run;
	int64_t began = clock_now_ns();

	(void)state;
	fake_answer("POST", "/v1/vms/web1/migrate", 202, QUEUED);
	fake_answer(
		"GET", "/v1/events", FAKE_STREAM,
		"id: 6\nevent: task.update\ndata: {\"op\":\"task.update\",\"object\":\"t0\",\"data\":{\"id\":\"t0\","
		"\"progress\":0.1,\"state\":\"done\"}}\n\n"
		"id: 7\nevent: migration.step\ndata: "
		"{\"op\":\"migration.step\",\"object\":\"t1\",\"data\":{\"id\":\"t1\","
		"\"vm\":\"web1\",\"step\":\"copying\"}}\n\n"
		"event: progress\ndata: {\"vm\":\"web1\",\"progress\":0.6,\"wire_rate\":112000000}\n\n"
		":\n\n"
		"id: 8\nevent: task.update\ndata: {\"op\":\"task.update\",\"object\":\"t1\",\"data\":{\"id\":\"t1\","
		"\"progress\":0.7,\"eta_ms\":2000,\"state\":\"running\",\"wire_rate\":98000000,\"dirty_rate\":12500000}"
		"}\n\n"
		"id: 9\nevent: task.finish\ndata: {\"op\":\"task.finish\",\"object\":\"t1\",\"data\":{\"id\":\"t1\","
		"\"state\":\"done\"}}\n\n");
	fake_answer("GET", "/v1/tasks/t1", 200, "{\"id\":\"t1\",\"state\":\"queued\",\"progress\":0.0}");
	fake_answer("GET", "/v1/tasks/t1", 200, DONE);
	fake_io.err_tty = true;
	FAKE_RUN(&run, "vm", "migrate", "web1");
	assert_int_equal(run.status, 0);
	assert_non_null(strstr(run.err, "  70 %  copying  sends 98.0 MB/s  writes 12.5 MB/s  ETA 0:02"));
	assert_null(strstr(run.err, "  10 %"));
	/* The event that tells of the end is not waited out. */
	assert_true(clock_now_ns() - began < NS_PER_S);
	assert_int_equal(fake_count_of("GET", "/v1/tasks/t1"), 2);
	fake_run_done(&run);
}

static void a_failed_task_says_why_and_is_a_failure(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/vms/web1/start", 202,
		    "{\"task\":{\"id\":\"t1\",\"kind\":\"vm.start\",\"state\":\"queued\"}}");
	fake_answer("GET", "/v1/tasks/t1", 200, ENDED("failed", "\"no space left for its log\""));
	FAKE_RUN(&run, "vm", "start", "web1");
	assert_int_equal(run.status, 1);
	assert_string_equal(run.out, "");
	assert_string_equal(run.err, "godwit: vm web1: no space left for its log\n");
	fake_run_done(&run);

	fake_answer("POST", "/v1/vms/web2/start", 202,
		    "{\"task\":{\"id\":\"t1\",\"kind\":\"vm.start\",\"state\":\"queued\"}}");
	fake_answer("GET", "/v1/tasks/t1", 200, ENDED("failed", "\"vm web2: its image is gone\""));
	FAKE_RUN(&run, "vm", "start", "web2", "--json");
	assert_int_equal(run.status, 1);
	fake_assert_json(run.out,
			 "{\"error\":{\"code\":\"peer\",\"message\":\"vm web2: its image is gone\",\"exit\":1}}");
	fake_run_done(&run);
}

static void a_task_that_somebody_cancelled_has_its_own_status(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/vms/web1/migrate", 202, QUEUED);
	fake_answer("GET", "/v1/tasks/t1", 200, ENDED("cancelled", "null"));
	fake_answer("GET", "/v1/tasks/t1", 200, ENDED("cancelled", "\"cancelled\""));
	fake_answer("GET", "/v1/tasks/t1", 200, ENDED("cancelled", "\"amy asked for it\""));
	for (int i = 0; i < 3; i++) {
		FAKE_RUN(&run, "vm", "migrate", "web1");
		assert_int_equal(run.status, 8);
		assert_string_equal(run.err, i < 2 ? "godwit: vm web1: cancelled\n"
						   : "godwit: vm web1: cancelled: amy asked for it\n");
		fake_run_done(&run);
	}
}

static void a_daemon_that_restarts_meanwhile_is_asked_again(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/vms/web1/migrate", 202, QUEUED);
	fake_answer("GET", "/v1/tasks/t1", FAKE_CUT, "");
	fake_answer("GET", "/v1/tasks/t1", FAKE_CUT, "");
	fake_answer("GET", "/v1/tasks/t1", FAKE_CUT, "");
	fake_answer("GET", "/v1/tasks/t1", 404,
		    "{\"error\":{\"code\":\"notfound\",\"message\":\"task t1: there is none\"}}");
	fake_answer("GET", "/v1/tasks/t1", 503,
		    "{\"error\":{\"code\":\"unavailable\",\"message\":\"still starting\"}}");
	fake_answer("GET", "/v1/tasks/t1", 200, DONE);
	FAKE_RUN(&run, "vm", "migrate", "web1");
	assert_int_equal(run.status, 0);
	fake_run_done(&run);
}

static void a_token_that_is_taken_away_meanwhile_ends_the_waiting(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/vms/web1/migrate", 202, QUEUED);
	fake_answer("GET", "/v1/tasks/t1", 401,
		    "{\"error\":{\"code\":\"auth\",\"message\":\"nobody has this token\"}}");
	FAKE_RUN(&run, "vm", "migrate", "web1");
	assert_int_equal(run.status, 6);
	assert_non_null(strstr(run.err, "godwit: task t1 goes on, but cannot be asked for: nobody has this token\n"));
	assert_int_equal(fake_count_of("GET", "/v1/tasks/t1"), 1);
	fake_run_done(&run);
}

/* ---- Ctrl-C ---- */

/* Sends SIGINT to the process when a request has come so often. */
static struct interrupt {
	const char *method, *target;
	size_t n;
} interrupts[2];

static void *interrupt(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < ARRAY_SIZE(interrupts) && interrupts[i].method; i++) {
		fake_wait(interrupts[i].method, interrupts[i].target, interrupts[i].n);
		kill(getpid(), SIGINT);
	}
	return NULL;
}

static void run_interrupted(struct fake_run *run, const char *line)
{
	sigset_t set, before;
	pthread_t t;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, &before);
	assert_int_equal(pthread_create(&t, NULL, interrupt, NULL), 0);
	fake_run_line(run, line);
	pthread_join(t, NULL);
	sigtimedwait(&set, NULL, &(struct timespec){0});
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	memset(interrupts, 0, sizeof(interrupts));
}

static void ctrl_c_cancels_the_move_and_waits_for_its_end(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/vms/web1/migrate", 202, QUEUED);
	fake_answer("GET", "/v1/vms/web1", 200, "{\"name\":\"web1\",\"migration\":\"m-7\"}");
	fake_answer("POST", "/v1/migrations/m-7/cancel", 202, "{\"id\":\"m-7\",\"vm\":\"web1\",\"step\":\"copying\"}");
	fake_answer("GET", "/v1/tasks/t1", 200, RUNNING("0.2"));
	fake_answer("GET", "/v1/tasks/t1", 200, RUNNING("0.3"));
	fake_answer("GET", "/v1/tasks/t1", 200, ENDED("cancelled", "null"));
	interrupts[0] = (struct interrupt){"GET", "/v1/tasks/t1", 1};
	run_interrupted(&run, "vm migrate web1");
	assert_int_equal(run.status, 8);
	assert_int_equal(fake_count_of("POST", "/v1/migrations/m-7/cancel"), 1);
	assert_non_null(strstr(run.err, "cancelling: the guest runs on where it is; Ctrl-C again leaves\n"));
	assert_non_null(strstr(run.err, "godwit: vm web1: cancelled\n"));
	fake_run_done(&run);
}

static void a_second_ctrl_c_leaves(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/vms/web1/migrate", 202, QUEUED);
	fake_answer("GET", "/v1/vms/web1", 200, "{\"name\":\"web1\",\"migration\":\"m-7\"}");
	fake_answer("POST", "/v1/migrations/m-7/cancel", 202, "{\"id\":\"m-7\",\"vm\":\"web1\",\"step\":\"agreed\"}");
	fake_answer("GET", "/v1/tasks/t1", 200, RUNNING("0.2"));
	interrupts[0] = (struct interrupt){"GET", "/v1/tasks/t1", 1};
	interrupts[1] = (struct interrupt){"GET", "/v1/tasks/t1", 3};
	run_interrupted(&run, "vm migrate web1");
	assert_int_equal(run.status, 8);
	assert_non_null(strstr(run.err, "godwit: not waited for any longer; `godwit task show t1` says how it ends\n"));
	fake_run_done(&run);
}

static void a_move_that_cannot_be_cancelled_any_more_goes_on(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/vms/web1/migrate", 202, QUEUED);
	fake_answer("GET", "/v1/vms/web1", 200, "{\"name\":\"web1\",\"migration\":\"m-7\"}");
	fake_answer("POST", "/v1/migrations/m-7/cancel", 409,
		    "{\"error\":{\"code\":\"conflict\",\"message\":\"migration m-7: is past the hand-over\"}}");
	fake_answer("GET", "/v1/tasks/t1", 200, RUNNING("0.9"));
	fake_answer("GET", "/v1/tasks/t1", 200, RUNNING("0.9"));
	fake_answer("GET", "/v1/tasks/t1", 200, DONE);
	interrupts[0] = (struct interrupt){"GET", "/v1/tasks/t1", 1};
	run_interrupted(&run, "vm migrate web1");
	assert_int_equal(run.status, 0);
	assert_non_null(strstr(run.err, "migration m-7: is past the hand-over\n"));
	assert_non_null(strstr(run.out, "vm web1: moved to n2"));
	fake_run_done(&run);
}

static void ctrl_c_leaves_any_other_task_to_itself(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/vms/web1/stop", 202,
		    "{\"task\":{\"id\":\"t1\",\"kind\":\"vm.stop\",\"state\":\"queued\"}}");
	fake_answer("GET", "/v1/tasks/t1", 200, RUNNING("0.2"));
	interrupts[0] = (struct interrupt){"GET", "/v1/tasks/t1", 1};
	run_interrupted(&run, "vm stop web1");
	assert_int_equal(run.status, 8);
	assert_non_null(strstr(run.err, "godwit: not waited for; it goes on: `godwit task show t1` follows it\n"));
	assert_int_equal(fake_count_of("GET", "/v1/vms/web1"), 0);
	fake_run_done(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_move_ends_with_where_to_how_long_and_how_much, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(json_is_the_task_at_its_end_and_nothing_else, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_terminal_gets_a_bar_that_is_gone_at_the_end, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_task_that_counts_nothing_shows_how_long_it_takes, fake_start,
						fake_stop),
		cmocka_unit_test_setup_teardown(events_move_the_bar_between_two_questions, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_failed_task_says_why_and_is_a_failure, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_task_that_somebody_cancelled_has_its_own_status, fake_start,
						fake_stop),
		cmocka_unit_test_setup_teardown(a_daemon_that_restarts_meanwhile_is_asked_again, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_token_that_is_taken_away_meanwhile_ends_the_waiting, fake_start,
						fake_stop),
		cmocka_unit_test_setup_teardown(ctrl_c_cancels_the_move_and_waits_for_its_end, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_second_ctrl_c_leaves, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_move_that_cannot_be_cancelled_any_more_goes_on, fake_start,
						fake_stop),
		cmocka_unit_test_setup_teardown(ctrl_c_leaves_any_other_task_to_itself, fake_start, fake_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
