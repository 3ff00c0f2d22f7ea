/* SPDX-License-Identifier: Apache-2.0 */
/* check: waits */
/* Tests of the guard: it settles once, in place of a dead engine, and ends an engine that hangs where that is a danger.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above it. */
#include <cmocka.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrate/guard.h"

/* What the fake settlement leaves for the test to see. */
struct seen {
	atomic_int settled;       /* how often */
	atomic_int detached;      /* likewise */
	atomic_bool engine_lives; /* the engine could still be signalled when the guard settled */
	atomic_int step;          /* that the guard found */
	atomic_int engine;        /* its pid */
	atomic_bool ready;        /* the guard stands */
};

static struct seen *seen;
static struct handover *record;

static void fake_detach(void *arg)
{
	assert_ptr_equal(arg, seen);
	seen->detached++;
}

/* Neither gone nor a zombie. */
static bool engine_lives(pid_t pid)
{
	char path[64], state = 'X';
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	/* Reaped between the two calls: the entry opens, and has no content any more. */
	if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		state = 'X';
	if (f)
		fclose(f);
	return state != 'X' && state != 'Z';
}

static const char *fake_settle(void *arg)
{
	assert_ptr_equal(arg, seen);
	seen->engine_lives = engine_lives(seen->engine);
	seen->step = record->step;
	seen->settled++;
	return NULL;
}

static int setup(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	/* Guards of dead engines become children of this program, which can then wait for them. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(seen, MAP_FAILED);
	record = handover_new(-1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	munmap(seen, sizeof(*seen));
	munmap(record, sizeof(*record));
	return 0;
}

/* An engine with a guard (dangerous steps: stopped to go) that comes to @step and then does @then. */
static pid_t engine_start(enum src_step step, void (*then)(struct guard *g))
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct err e = ERR_INIT;
		struct guard g;

		seen->engine = getpid();
		if (guard_start(&g, record, SRC_STOPPED, SRC_GO, fake_detach, fake_settle, seen, &e) < 0)
			_exit(99);
		for (int s = SRC_STOPPED; s <= (int)step; s++)
			handover_src_move(record, (enum src_step)s);
		seen->ready = true;
		then(&g);
		_exit(0);
	}
	for (int i = 0; i < 500 && !seen->ready; i++)
		poll(NULL, 0, 10);
	assert_true(seen->ready);
	return pid;
}

static void hang(struct guard *g)
{
	(void)g;
	for (;;)
		pause();
}

static void live_a_while(struct guard *g)
{
	(void)g;
	for (int i = 0; i < 40; i++) {
		record->beat_ns = clock_now_ns();
		poll(NULL, 0, 100);
	}
	guard_end(g, record);
}

static void end_well(struct guard *g)
{
	guard_end(g, record);
}

static void be_busy(struct guard *g)
{
	handover_busy(record, GUARD_STALL + NS_PER_S);
	poll(NULL, 0, (int)((GUARD_STALL + NS_PER_S / 2) / NS_PER_MS));
	guard_end(g, record);
}

/* Reap every child; the status of @pid. */
static int reap_all(pid_t pid)
{
	int status, ret = -1;
	pid_t got;

	while ((got = waitpid(-1, &status, 0)) > 0)
		if (got == pid)
			ret = status;
	return ret;
}

static void a_move_that_ends_well_leaves_nothing_to_settle(void **state)
{
	int status;

	(void)state;
	status = reap_all(engine_start(SRC_MOVED - 1, end_well));
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(seen->settled, 0);
}

static void a_killed_engine_is_settled_once_from_its_step(void **state)
{
	pid_t pid = engine_start(SRC_RELEASED, hang);

	(void)state;
	assert_int_equal(seen->settled, 0);
	kill(pid, SIGKILL);
	reap_all(pid);
	assert_int_equal(seen->settled, 1);
	assert_int_equal(seen->detached, 1);
	assert_int_equal(seen->step, SRC_RELEASED);
	assert_false(seen->engine_lives);
}

static void a_killed_engine_is_settled_in_a_step_without_danger_too(void **state)
{
	pid_t pid = engine_start(SRC_COPY, hang);

	(void)state;
	kill(pid, SIGKILL);
	reap_all(pid);
	assert_int_equal(seen->settled, 1);
	assert_int_equal(seen->step, SRC_COPY);
}

static void a_stopped_engine_is_killed_before_its_move_is_settled(void **state)
{
	pid_t pid = engine_start(SRC_GO, hang);
	int64_t start = clock_now_ns();
	int status;

	(void)state;
	kill(pid, SIGSTOP);
	status = reap_all(pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(seen->settled, 1);
	assert_false(seen->engine_lives);
	assert_in_range((clock_now_ns() - start) / NS_PER_MS, GUARD_STALL / NS_PER_MS - 200,
			GUARD_STALL / NS_PER_MS + 3000);
}

static void an_engine_that_hangs_while_the_guest_runs_is_left_alone(void **state)
{
	pid_t pid = engine_start(SRC_COPY, hang);

	(void)state;
	kill(pid, SIGSTOP);
	poll(NULL, 0, (int)(GUARD_STALL / NS_PER_MS) + 700);
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
	assert_int_equal(seen->settled, 0);
	kill(pid, SIGKILL);
	reap_all(pid);
	assert_int_equal(seen->settled, 1);
}

static void signs_of_life_keep_an_engine_alive(void **state)
{
	int status;

	(void)state;
	status = reap_all(engine_start(SRC_RELEASED, live_a_while));
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(seen->settled, 0);
}

static void an_engine_that_said_how_long_it_waits_is_not_taken_for_hanging(void **state)
{
	int status;

	(void)state;
	status = reap_all(engine_start(SRC_RELEASED, be_busy));
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(seen->settled, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_move_that_ends_well_leaves_nothing_to_settle),
		T(a_killed_engine_is_settled_once_from_its_step),
		T(a_killed_engine_is_settled_in_a_step_without_danger_too),
		T(a_stopped_engine_is_killed_before_its_move_is_settled),
		T(an_engine_that_hangs_while_the_guest_runs_is_left_alone),
		T(signs_of_life_keep_an_engine_alive),
		T(an_engine_that_said_how_long_it_waits_is_not_taken_for_hanging),
	};

	return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
