/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's decisions under a clock that the test turns: when guests end, when the device is petted, what is
 * refused. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "fencing/keeper.h"

#define MS NS_PER_MS
#define S NS_PER_S
#define T0 (1000 * S)

static const struct keeper_config config = {.mark = "godwit:c1:", .lease_ns = 4 * S, .budget_ns = S, .watchdog_s = 3};

static struct keeper fresh(void)
{
	struct keeper k;

	keeper_init(&k);
	assert_int_equal(keeper_configure(&k, &config, T0, NULL), 0);
	return k;
}

static struct keeper armed(int64_t until)
{
	struct keeper k = fresh();

	assert_int_equal(keeper_until(&k, until, T0, NULL), 0);
	return k;
}

/* One turn of the loop. */
static struct keeper_act turn(struct keeper *k, int64_t now, unsigned alive)
{
	keeper_advance(k, now);
	return keeper_next(k, now, keeper_counts(k) ? alive : 0, alive);
}

static void nothing_is_done_before_it_is_configured(void **state)
{
	struct err e = ERR_INIT;
	struct keeper k;
	struct keeper_act a;

	(void)state;
	keeper_init(&k);
	a = turn(&k, T0, 5);
	assert_false(a.pet || a.end || a.signal || keeper_wants_device(&k));
	assert_int_equal(a.wake_ns, INT64_MAX);
	assert_int_equal(keeper_permit(&k), INT64_MAX);
	assert_int_equal(keeper_until(&k, T0 + S, T0, &e), -1);
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_int_equal(keeper_die(&k, T0, &e), -1);
	assert_int_equal(e.code, ERR_CONFLICT);
}

static void before_the_first_deadline_guests_go_on_and_none_is_started(void **state)
{
	struct keeper k = fresh();
	struct keeper_act a = turn(&k, T0 + 100 * S, 3);

	(void)state;
	assert_int_equal(k.state, KEEPER_WAITING);
	assert_true(a.pet && keeper_wants_device(&k));
	assert_int_equal(a.signal, 0);
	assert_int_equal(keeper_permit(&k), 0);
}

static void guests_end_at_the_deadline_in_order_and_are_killed_after_the_budget(void **state)
{
	struct keeper k = armed(T0 + 2 * S);
	struct keeper_act a = turn(&k, T0 + 2 * S - 1, 2);

	(void)state;
	assert_int_equal(k.state, KEEPER_ARMED);
	assert_int_equal(keeper_permit(&k), T0 + 2 * S);
	assert_int_equal(a.wake_ns, T0 + 2 * S);
	a = turn(&k, T0 + 2 * S, 2);
	assert_int_equal(k.state, KEEPER_STOPPING);
	assert_int_equal(keeper_permit(&k), 0);
	assert_int_equal(a.signal, SIGTERM);
	assert_int_equal(turn(&k, T0 + 3 * S - 1, 1).signal, SIGTERM);
	assert_int_equal(turn(&k, T0 + 3 * S, 1).signal, SIGKILL);
	a = turn(&k, T0 + 3 * S + 50 * MS, 0);
	assert_int_equal(k.state, KEEPER_STOPPED);
	assert_int_equal(a.signal, 0);
	assert_true(a.pet);
}

/* The budget counts from the deadline, not from when we came to see it. */
static void a_late_awakening_leaves_no_time_to_end_in_order(void **state)
{
	struct keeper k = armed(T0 + 2 * S);

	(void)state;
	assert_int_equal(turn(&k, T0 + 60 * S, 2).signal, SIGKILL);
}

static void nothing_is_petted_from_the_deadline_on_while_a_guest_lives(void **state)
{
	struct keeper k = armed(T0 + 2 * S);
	int64_t last = 0;

	(void)state;
	for (int64_t now = T0; now < T0 + 30 * S; now += MS)
		if (turn(&k, now, 1).pet)
			last = now;
	assert_in_range(last, T0 + 2 * S - 3 * S / 8, T0 + 2 * S - 1);
	/* It dies at last: the host is harmless. */
	assert_true(turn(&k, T0 + 30 * S, 0).pet);
	assert_true(turn(&k, T0 + 30 * S + 375 * MS, 0).pet);
}

static void the_petting_interval_is_an_eighth_of_the_time_out(void **state)
{
	struct keeper k = fresh();
	unsigned pets = 0;

	(void)state;
	for (int64_t now = T0; now < T0 + 30 * S; now += MS)
		pets += turn(&k, now, 1).pet;
	assert_int_equal(pets, 80);
}

static void a_deadline_that_passes_between_advance_and_next_is_not_petted(void **state)
{
	struct keeper k = armed(T0 + 2 * S);
	struct keeper_act a;

	(void)state;
	keeper_advance(&k, T0 + 2 * S - 1);
	a = keeper_next(&k, T0 + 2 * S, 0, 0);
	assert_int_equal(k.state, KEEPER_ARMED);
	assert_false(a.pet);
	assert_true(a.wake_ns <= T0 + 2 * S);
}

static void a_petting_that_was_late_cuts_the_time_out_to_what_is_left(void **state)
{
	struct keeper k = armed(T0 + 2 * S);

	(void)state;
	assert_int_equal(keeper_late(&k, T0 + 2 * S), 0);
	assert_int_equal(keeper_late(&k, T0 + 2 * S + 375 * MS), 2);
	assert_int_equal(keeper_late(&k, T0 + 4 * S + 1), 1);
	assert_int_equal(keeper_late(&k, T0 + 9 * S), 1);
}

static void a_renewed_lease_keeps_guests_running(void **state)
{
	struct keeper k = armed(T0 + 2 * S);

	(void)state;
	for (int64_t now = T0; now < T0 + 60 * S; now += 250 * MS) {
		assert_int_equal(keeper_until(&k, now + 2 * S, now, NULL), 0);
		assert_int_equal(turn(&k, now, 2).signal, 0);
	}
	assert_int_equal(k.until_ns, T0 + 59750 * MS + 2 * S);
	/* An older one changes nothing. */
	assert_int_equal(keeper_until(&k, T0 + 60 * S, T0 + 59800 * MS, NULL), 0);
	assert_int_equal(k.until_ns, T0 + 59750 * MS + 2 * S);
}

static void a_deadline_too_far_ahead_or_over_is_refused(void **state)
{
	struct keeper k = armed(T0 + 2 * S);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(keeper_until(&k, T0 + 4 * S + 1, T0, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	assert_non_null(strstr(e.text, "the longest lease is 4000 ms"));
	assert_int_equal(keeper_until(&k, INT64_MAX, T0, &e), -1);
	assert_int_equal(keeper_until(&k, -1, T0, &e), -1);
	assert_int_equal(keeper_until(&k, T0, T0, &e), -1);
	assert_int_equal(k.until_ns, T0 + 2 * S);
	assert_int_equal(keeper_until(&k, T0 + 4 * S, T0, &e), 0);
}

/* Others may have counted on the deadline. */
static void a_new_lease_that_comes_too_late_saves_nobody(void **state)
{
	struct keeper k = armed(T0 + 2 * S);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(keeper_until(&k, T0 + 4 * S, T0 + 2 * S, &e), -1);
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_int_equal(k.state, KEEPER_STOPPING);
	assert_int_equal(keeper_release(&k, T0 + 2 * S, &e), -1);
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_int_equal(turn(&k, T0 + 2 * S, 1).signal, SIGTERM);
	turn(&k, T0 + 2500 * MS, 0);
	/* Once all are dead the host may run guests again. */
	assert_int_equal(keeper_until(&k, T0 + 5 * S, T0 + 3 * S, &e), 0);
	assert_int_equal(k.state, KEEPER_ARMED);
}

static void die_now_ends_guests_before_the_deadline_and_is_reported(void **state)
{
	struct keeper k = armed(T0 + 4 * S);

	(void)state;
	assert_int_equal(keeper_die(&k, T0 + S, NULL), 0);
	assert_int_equal(keeper_permit(&k), 0);
	assert_int_equal(turn(&k, T0 + S, 2).signal, SIGTERM);
	assert_int_equal(k.report.serial, 0);
	keeper_advance(&k, T0 + 1200 * MS);
	keeper_next(&k, T0 + 1200 * MS, 0, 2);
	assert_int_equal(k.report.serial, 1);
	assert_int_equal(k.report.cause, KEEPER_TOLD);
	assert_int_equal(k.report.guests, 2);
	assert_int_equal(k.report.at_ns, T0 + S);
	assert_int_equal(k.report.took_ns, 200 * MS);
	/* Without guests it is answered, too. */
	assert_int_equal(keeper_die(&k, T0 + 2 * S, NULL), 0);
	turn(&k, T0 + 2 * S, 0);
	assert_int_equal(k.report.serial, 2);
	assert_int_equal(k.report.guests, 0);
	assert_false(k.report.seen);
	keeper_seen(&k, 1);
	assert_false(k.report.seen);
	keeper_seen(&k, 2);
	assert_true(k.report.seen);
}

static void a_deadline_that_passes_without_guests_is_no_news(void **state)
{
	struct keeper k = armed(T0 + 2 * S);

	(void)state;
	turn(&k, T0 + 2 * S, 0);
	assert_int_equal(k.state, KEEPER_STOPPED);
	assert_int_equal(k.report.serial, 0);
	assert_int_equal(keeper_permit(&k), 0);
}

static void released_guests_run_without_a_deadline_and_the_device_is_closed(void **state)
{
	struct keeper k = armed(T0 + 2 * S);

	(void)state;
	assert_int_equal(keeper_release(&k, T0 + S, NULL), 0);
	assert_int_equal(turn(&k, T0 + 100 * S, 3).signal, 0);
	assert_false(keeper_wants_device(&k));
	assert_int_equal(keeper_permit(&k), INT64_MAX);
}

static void it_leaves_only_when_no_guest_is_left_or_it_is_released(void **state)
{
	struct keeper k = armed(T0 + 4 * S), free;

	(void)state;
	keeper_leave(&k);
	free = k;
	assert_false(turn(&k, T0 + S, 1).end);
	assert_int_equal(keeper_permit(&k), 0);
	assert_true(turn(&k, T0 + S, 1).wake_ns <= T0 + S + 250 * MS);
	/* It guards on. */
	assert_int_equal(turn(&k, T0 + 4 * S, 1).signal, SIGTERM);
	assert_true(turn(&k, T0 + 4 * S + 100 * MS, 0).end);
	assert_int_equal(keeper_release(&free, T0 + S, NULL), 0);
	assert_true(turn(&free, T0 + S, 1).end);
}

static void impossible_times_are_refused(void **state)
{
	static const struct {
		int64_t lease, budget;
		unsigned watchdog;
		const char *words;
	} bad[] = {
		{0, S, 3, "a lease of 0 ms"},
		{7200 * S, S, 3, "a lease of 7200000 ms"},
		{4 * S, S, 0, "a watchdog of 0 seconds"},
		{4 * S, S, 100000, "a watchdog of 100000 seconds"},
		{4 * S, 2625 * MS, 3, "do not fit into a watchdog of 3 seconds"},
		{4 * S, -1, 3, "do not fit"},
		{4 * S, INT64_MAX - 1, 3, "do not fit"},
	};
	struct keeper k;

	(void)state;
	keeper_init(&k);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct keeper_config c = {.mark = "m", .lease_ns = bad[i].lease, .budget_ns = bad[i].budget};
		struct err e = ERR_INIT;

		c.watchdog_s = bad[i].watchdog;
		assert_int_equal(keeper_configure(&k, &c, T0, &e), -1);
		assert_int_equal(e.code, ERR_INPUT);
		assert_non_null(strstr(e.text, bad[i].words));
		assert_int_equal(k.state, KEEPER_FREE);
	}
}

static void another_clusters_guests_are_not_taken_over(void **state)
{
	struct keeper k = armed(T0 + 2 * S);
	struct keeper_config other = config, longer = config;
	struct err e = ERR_INIT;

	(void)state;
	strcpy(other.mark, "godwit:c2:");
	assert_int_equal(keeper_configure(&k, &other, T0, &e), -1);
	assert_int_equal(e.code, ERR_CONFLICT);
	/* godwitd that comes again changes its times; the deadline stays. */
	longer.lease_ns = 8 * S;
	assert_int_equal(keeper_configure(&k, &longer, T0, &e), 0);
	assert_int_equal(k.state, KEEPER_ARMED);
	assert_int_equal(k.until_ns, T0 + 2 * S);
	assert_int_equal(keeper_until(&k, T0 + 7 * S, T0, &e), 0);
	assert_int_equal(keeper_release(&k, T0, &e), 0);
	assert_int_equal(keeper_configure(&k, &other, T0, &e), 0);
}

static void a_successor_goes_on_from_what_was_saved(void **state)
{
	unsigned char saved[KEEPER_SAVED];
	struct keeper k = armed(T0 + 2 * S), next;

	(void)state;
	keeper_save(&k, saved);
	keeper_init(&next);
	assert_int_equal(keeper_load(&next, saved, sizeof(saved)), 0);
	next.next_pet_ns = k.next_pet_ns; /* the one thing that is not kept */
	assert_memory_equal(&next, &k, sizeof(k));
	assert_int_equal(turn(&next, T0 + 3 * S, 1).signal, SIGKILL);
	keeper_save(&next, saved);
	assert_int_equal(keeper_load(&k, saved, sizeof(saved)), 0);
	assert_int_equal(k.state, KEEPER_STOPPING);
	/* Damaged, or another version's. */
	assert_int_equal(keeper_load(&k, saved, sizeof(saved) - 1), -1);
	saved[3] ^= 3;
	assert_int_equal(keeper_load(&k, saved, sizeof(saved)), -1);
	saved[3] ^= 3;
	saved[4] = KEEPER_STATE_MAX;
	assert_int_equal(keeper_load(&k, saved, sizeof(saved)), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_done_before_it_is_configured),
		cmocka_unit_test(before_the_first_deadline_guests_go_on_and_none_is_started),
		cmocka_unit_test(guests_end_at_the_deadline_in_order_and_are_killed_after_the_budget),
		cmocka_unit_test(a_late_awakening_leaves_no_time_to_end_in_order),
		cmocka_unit_test(nothing_is_petted_from_the_deadline_on_while_a_guest_lives),
		cmocka_unit_test(the_petting_interval_is_an_eighth_of_the_time_out),
		cmocka_unit_test(a_deadline_that_passes_between_advance_and_next_is_not_petted),
		cmocka_unit_test(a_petting_that_was_late_cuts_the_time_out_to_what_is_left),
		cmocka_unit_test(a_renewed_lease_keeps_guests_running),
		cmocka_unit_test(a_deadline_too_far_ahead_or_over_is_refused),
		cmocka_unit_test(a_new_lease_that_comes_too_late_saves_nobody),
		cmocka_unit_test(die_now_ends_guests_before_the_deadline_and_is_reported),
		cmocka_unit_test(a_deadline_that_passes_without_guests_is_no_news),
		cmocka_unit_test(released_guests_run_without_a_deadline_and_the_device_is_closed),
		cmocka_unit_test(it_leaves_only_when_no_guest_is_left_or_it_is_released),
		cmocka_unit_test(impossible_times_are_refused),
		cmocka_unit_test(another_clusters_guests_are_not_taken_over),
		cmocka_unit_test(a_successor_goes_on_from_what_was_saved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
