/* SPDX-License-Identifier: Apache-2.0 */
/* check: waits */
/* godwit-watchdog as a program: the ends of guests, the device, crashes, upgrades, orderly ends. The guests are
 * processes with records as godwit-vm writes them; the device is a double. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/file.h"
#include "tests/unit/watchdog/host.h"

/* An extension of the lease by @ns; returns the deadline. */
static int64_t extend(struct keeper_client *k, int64_t ns)
{
	int64_t until = clock_boot_ns() + ns;
	struct keeper_status st;

	assert_int_equal(keeper_ask_until(k, until, NULL), 0);
	st = host_answer(k);
	if (st.code)
		fail_msg("%s", st.text);
	assert_int_equal(st.state, KEEPER_ARMED);
	return until;
}

static void kill_now(struct child *c)
{
	child_signal(c, SIGKILL, NULL);
	child_wait(c, IN_S(10), NULL, NULL);
	child_done(c);
}

static void at_the_deadline_guests_end_in_order_and_the_stubborn_are_killed(void **state)
{
	struct child polite, stubborn, foreign, by_hand;
	struct keeper_status st;
	struct keeper_client k;
	int64_t until, killed, ended;

	(void)state;
	host_watchdog(NULL, NULL);
	k = host_client(&st);
	assert_int_equal(st.device, KEEPER_DEVICE_ARMED);
	assert_int_equal(st.watchdog_s, 2);
	polite = host_guest("polite", MARK "1", false);
	stubborn = host_guest("stubborn", MARK "2", true);
	foreign = host_guest("foreign", "godwit:c2:1", false);
	by_hand = host_guest("by-hand", NULL, false);
	until = extend(&k, NS_PER_S);
	ended = host_end_ns(&polite, 10);
	assert_false(child_ended(&stubborn));
	killed = host_end_ns(&stubborn, 10);
	/* TERM from the deadline on, KILL a budget later, and the polite one was not waited for with it. */
	assert_true(host_term_ns("polite") >= until && host_term_ns("stubborn") >= until);
	assert_true(ended < until + BUDGET);
	assert_true(killed >= until + BUDGET);
	st = host_state(&k, KEEPER_STOPPED);
	assert_int_equal(st.report.guests, 2);
	assert_int_equal(st.report.cause, KEEPER_EXPIRED);
	assert_int_equal(st.report.at_ns, until);
	assert_false(child_ended(&foreign) || child_ended(&by_hand));
	/* No petting from the deadline on before both were dead; then again, and the host lives. */
	assert_int_equal(host_device_did("pet", until) - host_device_did("pet", killed - NS_PER_MS * 100), 0);
	assert_false(host_file("expired", 3));
	assert_true(host_device_did("pet", killed) > 0);
	keeper_close(&k);
	/* The report comes back until somebody has seen it. */
	k = host_client(&st);
	assert_int_equal(st.report.guests, 2);
	assert_false(st.report.seen);
	keeper_ask_seen(&k, st.report.serial, NULL);
	assert_true(host_answer(&k).report.seen);
	kill_now(&foreign);
	kill_now(&by_hand);
	child_done(&polite);
	child_done(&stubborn);
	keeper_close(&k);
}

static void a_renewed_lease_keeps_guests_and_a_lost_daemon_does_not_end_them_before_the_deadline(void **state)
{
	struct keeper_client k;
	struct child g;
	int64_t until = 0, ended;

	(void)state;
	host_watchdog(NULL, NULL);
	k = host_client(NULL);
	g = host_guest("g", MARK "1", false);
	for (int i = 0; i < 16; i++) {
		until = extend(&k, 1500 * NS_PER_MS);
		usleep(250000);
	}
	assert_int_equal(host_term_ns("g"), 0);
	keeper_close(&k);
	ended = host_end_ns(&g, 10);
	assert_true(host_term_ns("g") >= until && ended < until + BUDGET);
	assert_false(host_file("expired", 0));
	child_done(&g);
}

static void die_now_ends_all_guests_and_is_answered_when_they_are_dead(void **state)
{
	struct keeper_status st;
	struct keeper_client k;
	struct child a, b;
	int64_t told;

	(void)state;
	host_watchdog(NULL, NULL);
	k = host_client(NULL);
	a = host_guest("a", MARK "1", false);
	b = host_guest("b", MARK "1", true);
	extend(&k, LEASE);
	told = clock_boot_ns();
	assert_int_equal(keeper_ask_die(&k, NULL), 0);
	st = host_answer(&k);
	assert_int_equal(st.code, ERR_NONE);
	while (st.report.serial == 0)
		assert_int_equal(keeper_wait(&k, IN_S(10), &st, NULL), 0);
	assert_true(child_ended(&a) && child_ended(&b));
	assert_int_equal(st.state, KEEPER_STOPPED);
	assert_int_equal(st.report.cause, KEEPER_TOLD);
	assert_int_equal(st.report.guests, 2);
	assert_true(host_term_ns("a") < told + LEASE);
	assert_true(st.report.took_ns >= BUDGET);
	child_wait(&a, IN_S(1), NULL, NULL);
	child_wait(&b, IN_S(1), NULL, NULL);
	child_done(&a);
	child_done(&b);
	keeper_close(&k);
}

static void a_deadline_too_far_ahead_is_refused(void **state)
{
	struct keeper_status st;
	struct keeper_client k;

	(void)state;
	host_watchdog(NULL, NULL);
	k = host_client(NULL);
	keeper_ask_until(&k, clock_boot_ns() + LEASE + NS_PER_S, NULL);
	st = host_answer(&k);
	assert_int_equal(st.code, ERR_INPUT);
	assert_non_null(strstr(st.text, "the longest lease is 2000 ms"));
	assert_int_equal(st.state, KEEPER_WAITING);
	keeper_close(&k);
}

static void a_guest_that_cannot_be_killed_has_the_host_reset(void **state)
{
	struct keeper_status st;
	struct keeper_client k;
	struct child g;
	int64_t until;

	(void)state;
	host_watchdog(NULL, NULL);
	k = host_client(NULL);
	g = host_stuck_guest("stuck");
	until = extend(&k, NS_PER_S);
	assert_true(host_file("expired", 10));
	/* The promise: not later than the watchdog's time after the deadline (and what a busy machine is late). */
	assert_true(clock_boot_ns() >= until);
	assert_int_equal(host_device_did("pet", until), 0);
	assert_int_equal(host_device_did("set", until), 0);
	assert_int_equal(host_device_did("expired", until + 2 * NS_PER_S + NS_PER_S / 2), 0);
	assert_false(child_ended(&g));
	keeper_ask_look(&k, NULL);
	st = host_answer(&k);
	assert_int_equal(st.state, KEEPER_STOPPING);
	assert_int_equal(st.alive, 1);
	host_unstick();
	host_end_ns(&g, 10);
	child_done(&g);
	keeper_close(&k);
}

static void a_record_that_cannot_be_read_counts_as_a_guest_that_lives(void **state)
{
	_free_ char *folder = xasprintf("%s/run/odd", host_dir);
	_free_ char *record = xasprintf("%s/state.json", folder);
	struct keeper_client k;

	(void)state;
	host_watchdog(NULL, NULL);
	k = host_client(NULL);
	assert_int_equal(mkdir(folder, 0700), 0);
	assert_int_equal(file_write_atomic(record, "{", 1, 0600, (gid_t)-1, NULL), 0);
	extend(&k, NS_PER_S / 2);
	assert_true(host_file("expired", 10));
	assert_true(host_said("event=record_unreadable counts_as=alive"));
	keeper_close(&k);
}

static void a_petting_that_was_held_up_past_the_deadline_does_not_buy_time(void **state)
{
	_free_ char *stall = xasprintf("%s.stall", host_device);
	struct keeper_client k;
	struct child g;
	int64_t until;

	(void)state;
	host_watchdog(NULL, NULL);
	k = host_client(NULL);
	g = host_stuck_guest("stuck");
	until = extend(&k, NS_PER_S);
	usleep(400000);
	/* The next petting begins before the deadline, and is done 900 ms later at the earliest. */
	assert_int_equal(file_write_atomic(stall, "1500", 4, 0600, (gid_t)-1, NULL), 0);
	assert_true(host_file("expired", 10));
	assert_true(host_said("event=petted_late"));
	assert_int_equal(host_device_did("expired", until + 3 * NS_PER_S), 0);
	host_unstick();
	host_end_ns(&g, 10);
	child_done(&g);
	keeper_close(&k);
}

static void released_guests_run_on_and_the_device_is_closed_properly(void **state)
{
	struct keeper_status st;
	struct keeper_client k;
	struct child g;

	(void)state;
	host_watchdog(NULL, NULL);
	k = host_client(NULL);
	g = host_guest("g", MARK "1", false);
	extend(&k, NS_PER_S / 2);
	keeper_ask_release(&k, NULL);
	st = host_answer(&k);
	assert_int_equal(st.state, KEEPER_FREE);
	assert_int_equal(st.device, KEEPER_DEVICE_NONE);
	assert_false(host_file("expired", 4));
	assert_int_equal(host_term_ns("g"), 0);
	assert_int_equal(host_device_did("close", 0), 1);
	/* Told to end, it does so at once. */
	child_signal(&host_dog, SIGTERM, NULL);
	host_end_ns(&host_dog, 10);
	assert_int_equal(host_term_ns("g"), 0);
	kill_now(&g);
	keeper_close(&k);
}

static void told_to_end_it_guards_on_until_the_last_guest_has_ended(void **state)
{
	struct keeper_status st;
	struct keeper_client k;
	struct child g;

	(void)state;
	host_watchdog(NULL, NULL);
	k = host_client(NULL);
	g = host_guest("g", MARK "1", false);
	extend(&k, LEASE);
	child_signal(&host_dog, SIGTERM, NULL);
	usleep(500000);
	extend(&k, LEASE);
	keeper_ask_look(&k, NULL);
	st = host_answer(&k);
	assert_true(st.leaving);
	assert_false(child_ended(&host_dog));
	kill_now(&g);
	host_end_ns(&host_dog, 10);
	assert_false(host_file("expired", 3));
	keeper_close(&k);
}

static void after_a_crash_the_next_one_goes_on(void **state)
{
	struct keeper_status st;
	struct keeper_client k;
	struct child g;
	int64_t until;

	(void)state;
	host_watchdog(NULL, NULL);
	k = host_client(NULL);
	g = host_guest("g", MARK "1", false);
	until = extend(&k, LEASE);
	kill_now(&host_dog);
	keeper_close(&k);
	host_watchdog(NULL, NULL);
	assert_true(host_said("event=resumed state=armed"));
	host_end_ns(&g, 10);
	assert_true(host_term_ns("g") >= until);
	k = host_client(&st);
	while (st.state != KEEPER_STOPPED)
		assert_int_equal(keeper_wait(&k, IN_S(10), &st, NULL), 0);
	assert_int_equal(st.report.guests, 1);
	assert_false(host_file("expired", 3));
	child_done(&g);
	keeper_close(&k);
}

static void a_crash_that_nobody_mends_has_the_host_reset(void **state)
{
	struct keeper_client k;

	(void)state;
	host_watchdog(NULL, NULL);
	k = host_client(NULL);
	extend(&k, LEASE);
	kill_now(&host_dog);
	assert_true(host_file("expired", 10));
	keeper_close(&k);
}

static void copy(const char *from, const char *to)
{
	_free_ char *command = xasprintf("cp %s %s.new && mv %s.new %s", from, to, to, to);

	assert_int_equal(system(command), 0);
}

static void an_upgrade_keeps_the_device_open_and_the_deadline(void **state)
{
	_free_ char *built = xasprintf("%s/godwit-watchdog", host_build());
	_free_ char *program = xasprintf("%s/godwit-watchdog", host_dir);
	struct keeper_status st;
	struct keeper_client k;
	struct child g;
	int64_t until, deadline = IN_S(20);

	(void)state;
	copy(built, program);
	host_watchdog(program, NULL);
	k = host_client(NULL);
	g = host_guest("g", MARK "1", false);
	/* One that does not run is not become. */
	copy("/bin/false", program);
	child_signal(&host_dog, SIGHUP, NULL);
	while (!host_said("event=upgrade_refused") && clock_now_ns() < deadline)
		extend(&k, LEASE);
	assert_true(host_said("the old version goes on"));
	copy(built, program);
	until = extend(&k, LEASE);
	child_signal(&host_dog, SIGHUP, NULL);
	while (!host_said("event=resumed state=armed") && clock_now_ns() < deadline)
		usleep(10000);
	assert_true(host_said("device=inherited"));
	assert_false(child_ended(&host_dog));
	keeper_close(&k);
	k = host_client(&st);
	assert_int_equal(st.device, KEEPER_DEVICE_ARMED);
	host_end_ns(&g, 10);
	assert_true(host_term_ns("g") >= until);
	assert_int_equal(host_device_did("open", 0), 1);
	assert_int_equal(host_device_did("close", 0), 0);
	assert_false(host_file("expired", 0));
	/* The descriptor is its own now: an orderly end disarms it. */
	child_signal(&host_dog, SIGTERM, NULL);
	host_end_ns(&host_dog, 10);
	assert_int_equal(host_device_did("close", 0), 1);
	assert_false(host_file("expired", 3));
	child_done(&g);
	keeper_close(&k);
}

static void without_a_device_guests_are_guarded_all_the_same(void **state)
{
	_free_ char *missing = xasprintf("%s/missing", host_dir);
	struct keeper_status st;
	struct keeper_client k;
	struct child g;
	int64_t until;

	(void)state;
	host_watchdog(NULL, missing);
	k = host_client(&st);
	assert_int_equal(st.device, KEEPER_DEVICE_FAILED);
	assert_int_equal(st.watchdog_s, 0);
	assert_non_null(strstr(st.device_text, "modprobe softdog"));
	g = host_guest("g", MARK "1", false);
	until = extend(&k, NS_PER_S / 2);
	host_end_ns(&g, 10);
	assert_true(host_term_ns("g") >= until);
	child_done(&g);
	keeper_close(&k);
}

/* @full: a log whose reader does not read; else one whose reader is gone. */
static void guests_end_in_time(bool full)
{
	struct keeper_client k;
	struct child g;
	int ends[2];
	int64_t until;

	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	while (full && write(ends[1], "x", 1) == 1)
		;
	/* As anybody's pipe is. */
	assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0);
	if (!full)
		close(ends[0]);
	host_stderr = ends[1];
	host_watchdog(NULL, NULL);
	k = host_client(NULL);
	g = host_guest("g", MARK "1", true);
	until = extend(&k, NS_PER_S / 2);
	host_end_ns(&g, 10);
	assert_true(host_term_ns("g") >= until);
	host_state(&k, KEEPER_STOPPED);
	assert_false(host_file("expired", 3));
	/* Whoever shares the pipe has it as it was. */
	assert_int_equal(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0);
	close(ends[1]);
	if (full)
		close(ends[0]);
	child_done(&g);
	keeper_close(&k);
}

static void a_log_that_nobody_reads_stops_nothing(void **state)
{
	(void)state;
	guests_end_in_time(true);
}

static void a_log_that_is_closed_ends_nothing(void **state)
{
	(void)state;
	guests_end_in_time(false);
}

static void a_second_one_is_refused(void **state)
{
	_free_ char *program = xasprintf("%s/godwit-watchdog", host_build());
	_free_ char *dir = xasprintf("%s/run", host_dir);
	const char *argv[] = {program, "--run-dir", dir, "--device", "none", NULL};
	struct err e = ERR_INIT;

	(void)state;
	host_watchdog(NULL, NULL);
	assert_int_equal(child_run(argv, IN_S(20), 4096, NULL, &e), -1);
	assert_non_null(strstr(e.text, "one is enough for a host"));
	assert_false(child_ended(&host_dog));
}

static void one_that_is_missing_stopped_or_of_another_version_is_told_apart(void **state)
{
	_free_ char *dir = xasprintf("%s/run", host_dir);
	struct keeper_client k = KEEPER_CLIENT_INIT;
	unsigned char other[KEEPER_REQUEST_SIZE] = {'G', 'W', 'D', 'K', 99, KEEPER_LOOK};
	struct keeper_status st;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(keeper_connect(dir, IN_S(1), &k, &st, &e), -1);
	assert_int_equal(e.code, ERR_NOTFOUND);
	host_watchdog(NULL, "none");
	child_signal(&host_dog, SIGSTOP, NULL);
	assert_int_equal(keeper_connect(dir, clock_now_ns() + 300 * NS_PER_MS, &k, &st, &e), -1);
	assert_int_equal(e.code, ERR_TIMEOUT);
	child_signal(&host_dog, SIGCONT, NULL);
	assert_int_equal(keeper_connect(dir, IN_S(10), &k, &st, &e), 0);
	assert_int_equal(st.device, KEEPER_DEVICE_NONE);
	assert_int_equal(send(k.fd, other, sizeof(other), 0), sizeof(other));
	assert_int_equal(keeper_wait(&k, IN_S(10), &st, &e), 0);
	assert_int_equal(st.code, ERR_UNSUPPORTED);
	assert_non_null(strstr(st.text, "speaks version 99"));
	/* And it is let go; others are served. */
	assert_int_equal(keeper_wait(&k, IN_S(10), &st, &e), -1);
	assert_int_equal(e.code, ERR_UNAVAILABLE);
	keeper_close(&k);
	k = host_client(&st);
	keeper_close(&k);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, host_setup, host_teardown)
	const struct CMUnitTest tests[] = {
		TEST(at_the_deadline_guests_end_in_order_and_the_stubborn_are_killed),
		TEST(a_renewed_lease_keeps_guests_and_a_lost_daemon_does_not_end_them_before_the_deadline),
		TEST(die_now_ends_all_guests_and_is_answered_when_they_are_dead),
		TEST(a_deadline_too_far_ahead_is_refused),
		TEST(a_guest_that_cannot_be_killed_has_the_host_reset),
		TEST(a_record_that_cannot_be_read_counts_as_a_guest_that_lives),
		TEST(a_petting_that_was_held_up_past_the_deadline_does_not_buy_time),
		TEST(released_guests_run_on_and_the_device_is_closed_properly),
		TEST(told_to_end_it_guards_on_until_the_last_guest_has_ended),
		TEST(after_a_crash_the_next_one_goes_on),
		TEST(a_crash_that_nobody_mends_has_the_host_reset),
		TEST(an_upgrade_keeps_the_device_open_and_the_deadline),
		TEST(without_a_device_guests_are_guarded_all_the_same),
		TEST(a_log_that_nobody_reads_stops_nothing),
		TEST(a_log_that_is_closed_ends_nothing),
		TEST(a_second_one_is_refused),
		TEST(one_that_is_missing_stopped_or_of_another_version_is_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
