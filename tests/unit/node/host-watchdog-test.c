/* SPDX-License-Identifier: Apache-2.0 */
/* check: waits */
/* What godwitd makes of a godwit-watchdog that refuses to guard its guests: the real program, which guards another
 * cluster's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <unistd.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/mem.h"
#include "fencing/keeper-client.h"
#include "node/daemon.h"
#include "node/host-watchdog.h"

#define FEED_EVERY (20 * NS_PER_MS)

struct host {
	char dir[64];
	struct child program;
	struct daemon d;
	struct timing timing;
	struct host_watchdog *w;
	struct loop_timer *feed, *limit;
	bool (*wanted)(const struct host *h); /* until then the loop runs */
	bool ask_again, late;
};

/* As node/host-lease.c does, more often. */
static void on_feed(void *arg)
{
	struct host *h = arg;

	if (h->ask_again)
		host_watchdog_ask_again(h->w);
	host_watchdog_feed(h->w, clock_boot_ns() + h->timing.lease_ns);
	if (h->wanted(h))
		loop_stop(h->d.loop);
}

static void on_changed(void *arg)
{
	(void)arg;
}

static void on_limit(void *arg)
{
	struct host *h = arg;

	h->late = true;
	loop_stop(h->d.loop);
}

static void run_until(struct host *h, bool (*wanted)(const struct host *h))
{
	h->wanted = wanted;
	loop_timer_set(h->limit, 20 * NS_PER_S);
	loop_run(h->d.loop);
	assert_false(h->late);
}

static void start_program(struct host *h)
{
	char self[PATH_MAX] = "";
	_free_ char *path = NULL;
	const char *argv[] = {NULL, "--run-dir", h->dir, "--device", "none", NULL};
	struct child_spec spec = {.argv = argv};
	struct err e = ERR_INIT;

	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	path = xasprintf("%s/godwit-watchdog", dirname(dirname(dirname(self))));
	argv[0] = path;
	if (child_spawn(&spec, &h->program, &e) < 0)
		fail_msg("%s", e.text);
}

/* The one who asks first: guests of another cluster run on this host. */
static struct keeper_client other_cluster(const struct host *h)
{
	struct keeper_config c = {
		.mark = "godwit:other:", .lease_ns = h->timing.lease_ns, .budget_ns = h->timing.stop_ns};
	struct keeper_client k = KEEPER_CLIENT_INIT;
	int64_t deadline = clock_now_ns() + 30 * NS_PER_S;
	struct keeper_status st;
	struct err e = ERR_INIT;

	c.watchdog_s = (unsigned)(h->timing.watchdog_ns / NS_PER_S);
	while (keeper_connect(h->dir, deadline, &k, &st, &e) < 0) {
		assert_true(clock_now_ns() < deadline);
		usleep(10000);
	}
	assert_int_equal(keeper_ask_configure(&k, &c, &e), 0);
	do
		assert_int_equal(keeper_wait(&k, deadline, &st, &e), 0);
	while (st.answer_to != KEEPER_CONFIGURE);
	assert_int_equal(st.code, ERR_NONE);
	return k;
}

static void begin(struct host *h)
{
	*h = (struct host){.dir = "/tmp/godwit-host-watchdog-XXXXXX", .program = CHILD_INIT};
	assert_non_null(mkdtemp(h->dir));
	timing_make(1000, &h->timing);
	start_program(h);
	h->d.loop = loop_new();
	h->d.cluster_id = "ours";
	h->d.opt.run_dir = h->dir;
	h->d.opt.watchdog = WATCHDOG_AUTO;
	h->feed = loop_timer_add(h->d.loop, FEED_EVERY, FEED_EVERY, on_feed, h);
	h->limit = loop_timer_add(h->d.loop, -1, 0, on_limit, h);
}

static void end(struct host *h)
{
	_free_ char *command = xasprintf("rm -r %s", h->dir);

	host_watchdog_free(h->w);
	loop_timer_free(h->feed);
	loop_timer_free(h->limit);
	loop_free(h->d.loop);
	child_signal(&h->program, SIGKILL, NULL);
	child_wait(&h->program, clock_now_ns() + 10 * NS_PER_S, NULL, NULL);
	child_done(&h->program);
	assert_int_equal(system(command), 0);
}

static bool refuses(const struct host *h)
{
	return host_watchdog_refuses(h->w);
}

static bool guards(const struct host *h)
{
	return host_watchdog_guards(h->w);
}

static void one_that_refuses_guards_nothing_and_is_asked_again(void **state)
{
	struct keeper_client other;
	struct host h;

	(void)state;
	begin(&h);
	other = other_cluster(&h);
	h.w = host_watchdog_new(&h.d, on_changed, &h);
	host_watchdog_times(h.w, &h.timing);
	run_until(&h, refuses);
	assert_false(host_watchdog_guards(h.w));
	assert_int_equal(host_watchdog_bites_s(h.w), 0);
	assert_non_null(strstr(host_watchdog_why_not(h.w), "refuses to guard"));
	/* Asked again it refuses again, as long as the other cluster's guests are its business. */
	host_watchdog_ask_again(h.w);
	assert_false(host_watchdog_refuses(h.w));
	run_until(&h, refuses);
	assert_int_equal(keeper_ask_release(&other, NULL), 0);
	h.ask_again = true;
	run_until(&h, guards);
	assert_null(host_watchdog_why_not(h.w));
	assert_false(host_watchdog_refuses(h.w));
	keeper_close(&other);
	end(&h);
}

static void one_that_takes_other_times_guards_from_then_on(void **state)
{
	struct host h;

	(void)state;
	begin(&h);
	h.w = host_watchdog_new(&h.d, on_changed, &h);
	host_watchdog_times(h.w, &h.timing);
	run_until(&h, guards);
	timing_make(2000, &h.timing);
	host_watchdog_times(h.w, &h.timing);
	assert_false(host_watchdog_guards(h.w));
	run_until(&h, guards);
	end(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_refuses_guards_nothing_and_is_asked_again),
		cmocka_unit_test(one_that_takes_other_times_guards_from_then_on),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
