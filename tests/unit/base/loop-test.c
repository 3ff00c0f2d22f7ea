/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: order, threads, timers, children, and handles freed by their own callbacks. */
#include "base/loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/child.h"
#include "base/clock.h"

#define CALLS 10000

static struct loop *loop;

static int make_loop(void **state)
{
	(void)state;
	loop = loop_new();
	return 0;
}

static int drop_loop(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

static void stop(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

/* ---- calls ---- */

static char order[8];

static void note(void *arg)
{
	strncat(order, arg, 1);
}

static void defer_b_and_note_a(void *arg)
{
	loop_defer(loop, note, "b");
	loop_defer(loop, stop, NULL);
	note(arg);
}

static void deferred_calls_run_in_order_and_not_at_once(void **state)
{
	(void)state;
	order[0] = 0;
	loop_defer(loop, defer_b_and_note_a, "a");
	loop_defer(loop, note, "c");
	assert_string_equal(order, "");
	loop_run(loop);
	assert_string_equal(order, "acb");
}

static void count_up(void *arg)
{
	if (++*(int *)arg == CALLS)
		loop_stop(loop);
}

static void *call_many(void *arg)
{
	for (int i = 0; i < CALLS; i++)
		loop_call(loop, count_up, arg);
	return NULL;
}

static void calls_of_another_thread_all_arrive(void **state)
{
	pthread_t thread;
	int count = 0;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, call_many, &count), 0);
	loop_run(loop);
	pthread_join(thread, NULL);
	assert_int_equal(count, CALLS);
}

static void a_loop_is_freed_with_calls_that_nobody_made(void **state)
{
	struct loop *l = loop_new();

	(void)state;
	loop_defer(l, stop, NULL);
	loop_free(l);
}

/* ---- descriptors ---- */

struct reader {
	struct loop_io *io;
	int fd;
	char got[8];
};

static void read_and_free(void *arg, unsigned ready)
{
	struct reader *r = arg;

	assert_int_equal(ready, LOOP_READ);
	assert_int_equal(read(r->fd, r->got, sizeof(r->got)), 2);
	loop_io_free(r->io);
	loop_stop(loop);
}

static void a_callback_may_free_its_own_descriptor(void **state)
{
	struct reader r = {0};
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	r.fd = pair[0];
	r.io = loop_io_add(loop, pair[0], LOOP_READ, read_and_free, &r);
	assert_int_equal(write(pair[1], "hi", 2), 2);
	loop_run(loop);
	assert_string_equal(r.got, "hi");
	close(pair[0]);
	close(pair[1]);
}

static void fail_io(void *arg, unsigned ready)
{
	(void)arg;
	(void)ready;
	fail();
}

static void a_descriptor_at_rest_is_not_looked_at(void **state)
{
	struct loop_timer *t;
	struct loop_io *io;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	io = loop_io_add(loop, pair[0], LOOP_READ | LOOP_WRITE, fail_io, NULL);
	loop_io_set(io, 0);
	t = loop_timer_add(loop, 5 * NS_PER_MS, 0, stop, NULL);
	loop_run(loop);
	loop_timer_free(t);
	loop_io_free(io);
	close(pair[0]);
	close(pair[1]);
}

/* ---- timers ---- */

struct ticker {
	struct loop_timer *timer;
	int ticks;
};

static void tick_three_times(void *arg)
{
	struct ticker *t = arg;

	if (++t->ticks < 3)
		return;
	loop_timer_free(t->timer);
	loop_stop(loop);
}

static void a_timer_repeats_until_its_callback_frees_it(void **state)
{
	struct ticker t = {0};
	int64_t begin = clock_now_ns();

	(void)state;
	t.timer = loop_timer_add(loop, 2 * NS_PER_MS, 3 * NS_PER_MS, tick_three_times, &t);
	loop_run(loop);
	assert_int_equal(t.ticks, 3);
	assert_true(clock_now_ns() - begin >= 8 * NS_PER_MS);
}

static void fail_timer(void *arg)
{
	(void)arg;
	fail();
}

static void a_timer_that_was_called_off_does_not_fire(void **state)
{
	struct loop_timer *off = loop_timer_add(loop, NS_PER_MS, 0, fail_timer, NULL);
	struct loop_timer *end = loop_timer_add(loop, 5 * NS_PER_MS, 0, stop, NULL);

	(void)state;
	loop_timer_set(off, -1);
	loop_run(loop);
	loop_timer_free(off);
	loop_timer_free(end);
}

/* ---- signals and children ---- */

static void a_signal_reaches_the_loop(void **state)
{
	struct loop_signal *s = loop_signal_add(loop, SIGUSR1, stop, NULL);

	(void)state;
	kill(getpid(), SIGUSR1);
	loop_run(loop);
	loop_signal_free(s);
}

static void the_end_of_a_child_is_told_once(void **state)
{
	const char *argv[] = {"true", NULL};
	struct child_spec spec = {.argv = argv};
	struct child c = CHILD_INIT;
	struct err e = ERR_INIT;
	struct loop_child *lc;
	int status = -1;

	(void)state;
	assert_int_equal(child_spawn(&spec, &c, &e), 0);
	lc = loop_child_add(loop, c.pidfd, stop, NULL);
	loop_run(loop);
	assert_true(child_ended(&c));
	assert_int_equal(child_wait(&c, clock_now_ns() + NS_PER_S, &status, &e), 1);
	assert_int_equal(status, 0);
	loop_child_free(lc);
	child_done(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(deferred_calls_run_in_order_and_not_at_once, make_loop, drop_loop),
		cmocka_unit_test_setup_teardown(calls_of_another_thread_all_arrive, make_loop, drop_loop),
		cmocka_unit_test(a_loop_is_freed_with_calls_that_nobody_made),
		cmocka_unit_test_setup_teardown(a_callback_may_free_its_own_descriptor, make_loop, drop_loop),
		cmocka_unit_test_setup_teardown(a_descriptor_at_rest_is_not_looked_at, make_loop, drop_loop),
		cmocka_unit_test_setup_teardown(a_timer_repeats_until_its_callback_frees_it, make_loop, drop_loop),
		cmocka_unit_test_setup_teardown(a_timer_that_was_called_off_does_not_fire, make_loop, drop_loop),
		cmocka_unit_test_setup_teardown(a_signal_reaches_the_loop, make_loop, drop_loop),
		cmocka_unit_test_setup_teardown(the_end_of_a_child_is_told_once, make_loop, drop_loop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
