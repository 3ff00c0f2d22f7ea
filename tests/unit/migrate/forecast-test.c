/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the forecast and the ETA: against arithmetic, and against moves of a model of QEMU and of the guest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "migrate/forecast.h"
#include "tests/unit/migrate/sim-guest.h"

#define MB 1000000ULL
#define GBIT (125 * MB)
#define LONG_NS (4 * NS_PER_S)
#define ETA_TOLERANCE 0.2

/* A guest of 1 GiB on a 1 Gbit/s wire. */
static struct sim_setup guest(uint64_t hot_mib, uint64_t rate, bool sweep)
{
	return (struct sim_setup){.ram = 1024 * SIM_MIB,
				  .hot = hot_mib * SIM_MIB,
				  .rate = rate,
				  .sweep = sweep,
				  .wire = GBIT,
				  .tick_ns = NS_PER_MS,
				  .opt = {.max_pause_ms = 300}};
}

/* What the two measurements before its move give. */
static struct forecast_input measured(const struct sim_setup *set)
{
	return (struct forecast_input){.ram_bytes = set->ram,
				       .dirty_rate = sim_measure(set, NS_PER_S),
				       .dirty_period_ns = NS_PER_S,
				       .long_rate = sim_measure(set, LONG_NS),
				       .long_period_ns = LONG_NS,
				       .wire_rate = set->wire,
				       .max_pause_ms = set->opt.max_pause_ms,
				       .fixed_pause_ns = 2 * NS_PER_MS};
}

static void assert_near(double value, double truth, double tolerance)
{
	if (value < truth * (1 - tolerance) || value > truth * (1 + tolerance))
		fail_msg("%g is not within %g %% of %g", value, tolerance * 100, truth);
}

/* Forecast the move of @set, run it, and compare. */
static struct forecast assert_foretold(const struct sim_setup *set, double tolerance)
{
	struct forecast_input in = measured(set);
	struct forecast f = forecast_run(&in);
	struct sim_end end = sim_run(set, 3, 300 * NS_PER_S);

	free(end.looks);
	assert_true(end.stopped);
	assert_true(f.converges);
	assert_string_equal(f.why, "");
	assert_near((double)f.total_ns, (double)(end.time_ns + end.pause_ns), tolerance);
	assert_near((double)f.bytes, (double)end.sent, tolerance);
	return f;
}

/* Follow the move of @set with the ETA: progress never goes back, what is predicted is right from a quarter on. */
static void assert_eta(const struct sim_setup *set)
{
	struct forecast_input in = measured(set);
	struct sim_end end = sim_run(set, 3, 300 * NS_PER_S);
	double total = (double)(end.time_ns + end.pause_ns), before = 0;
	struct eta t;

	assert_true(end.stopped);
	eta_init(&t);
	eta_hint(&t, &in);
	for (size_t i = 0; i < end.n_looks; i++) {
		const struct sim_look *l = &end.looks[i];
		struct eta_sample s = {.elapsed_ns = l->s.elapsed_ns,
				       .pass = l->s.pass,
				       .total_bytes = set->ram,
				       .sent_bytes = l->sent,
				       .remaining = l->s.remaining,
				       .dirty_rate = l->s.dirty_rate,
				       .max_pause_ms = set->opt.max_pause_ms};
		double progress;
		int64_t eta;

		eta_update(&t, &s, &progress, &eta);
		assert_true(progress >= before && progress < 1);
		before = progress;
		if ((double)s.elapsed_ns < total / 4)
			continue;
		assert_true(eta >= 0);
		assert_near((double)(s.elapsed_ns + eta), total, ETA_TOLERANCE);
	}
	assert_true(before > 0.9);
	free(end.looks);
}

static void an_idle_guest_takes_one_pass_and_the_fixed_pause(void **state)
{
	struct sim_setup set = guest(0, 0, false);
	struct forecast f = assert_foretold(&set, 0.01);

	(void)state;
	assert_int_equal(f.passes, 1);
	assert_int_equal(f.bytes, 1024 * SIM_MIB);
	assert_int_equal(f.pause_ns, 2 * NS_PER_MS);
}

static void zero_memory_costs_next_to_nothing(void **state)
{
	struct forecast_input in = {.zero_bytes = 4096 * SIM_MIB, .wire_rate = GBIT, .max_pause_ms = 300};
	struct forecast f = forecast_run(&in);

	(void)state;
	assert_true(f.converges);
	assert_int_equal(f.bytes, 0);
	assert_true(f.total_ns < 2 * NS_PER_S);
}

static void the_series_is_the_geometric_one_for_a_guest_that_walks_through_its_memory(void **state)
{
	struct forecast_input in = {.ram_bytes = 1000 * MB,
				    .dirty_rate = 50 * MB,
				    .dirty_period_ns = NS_PER_S,
				    .wire_rate = 100 * MB,
				    .max_pause_ms = 300};
	struct forecast f = forecast_run(&in);

	(void)state;
	/* 1000 + 500 + 250 + ... MB until 1 ms holds the rest: 1000 MB / 2^14 = 61 kB. */
	assert_true(f.converges);
	assert_int_equal(f.passes, 14);
	assert_near((double)f.bytes, 2e9, 0.001);
	assert_near((double)f.total_ns, 20e9, 0.001);
	assert_true(f.pause_ns < NS_PER_MS);
}

static void guests_that_write_less_than_the_wire_carries_are_foretold(void **state)
{
	struct sim_setup slow = guest(1024, 20 * MB, false), walk = guest(1024, 20 * MB, true),
			 fast = guest(1024, 100 * MB, false), fast_walk = guest(1024, 100 * MB, true),
			 part = guest(256, 100 * MB, true);

	(void)state;
	assert_foretold(&slow, 0.05);
	assert_foretold(&walk, 0.05);
	assert_foretold(&fast, 0.10);
	assert_foretold(&fast_walk, 0.05);
	assert_foretold(&part, 0.15);
}

static void a_hot_set_foretells_the_pause_that_it_needs(void **state)
{
	struct sim_setup set = guest(32, 1000 * MB, false);
	struct forecast f = assert_foretold(&set, 0.05);

	(void)state;
	/* 32 MiB at 125 MB/s are 268 ms. */
	assert_near((double)f.pause_ns, 270e6, 0.02);
}

static void a_hot_set_beyond_the_pause_does_not_converge_and_both_rates_are_named(void **state)
{
	struct sim_setup set = guest(256, 1000 * MB, false);
	struct forecast_input in = measured(&set);
	struct forecast f = forecast_run(&in);

	(void)state;
	assert_false(f.converges);
	assert_int_equal(f.total_ns, -1);
	assert_non_null(strstr(f.why, "does not converge: writes 262 MB/s, wire carries 125 MB/s"));
	assert_non_null(strstr(f.why, "allowed are 300 ms"));
	in.max_pause_ms = 3000;
	f = forecast_run(&in);
	assert_true(f.converges);
	assert_in_range(f.pause_ns, 2000 * NS_PER_MS, 2200 * NS_PER_MS);
}

static void without_a_rate_of_the_wire_there_is_no_forecast(void **state)
{
	struct forecast_input in = {.ram_bytes = 1, .max_pause_ms = 300};
	struct forecast f = forecast_run(&in);

	(void)state;
	assert_false(f.converges);
	assert_string_equal(f.why, "no forecast: the rate of the wire is not known");
}

static void measurements_that_contradict_each_other_still_give_a_forecast(void **state)
{
	struct forecast_input in = {.ram_bytes = 1000 * MB,
				    .dirty_rate = 10 * MB,
				    .dirty_period_ns = NS_PER_S,
				    .long_rate = 90 * MB,
				    .long_period_ns = LONG_NS,
				    .wire_rate = 100 * MB,
				    .max_pause_ms = 300};
	struct forecast f = forecast_run(&in);

	(void)state;
	/* More per second over a longer time cannot be: the shorter one is continued. */
	assert_true(f.converges);
	assert_near((double)f.bytes, 1000e6 / 0.9, 0.01);
}

static void the_eta_of_moves_that_converge_is_right_from_a_quarter_on(void **state)
{
	const struct sim_setup sets[] = {
		guest(0, 0, false),           guest(1024, 20 * MB, false), guest(1024, 20 * MB, true),
		guest(1024, 100 * MB, false), guest(1024, 100 * MB, true), guest(256, 100 * MB, true),
		guest(32, 1000 * MB, false),
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
		assert_eta(&sets[i]);
}

/* A look for the tests that build their own. */
static int64_t look(struct eta *t, int64_t ms, unsigned pass, uint64_t sent, uint64_t remaining, double *ret_progress)
{
	struct eta_sample s = {.elapsed_ns = ms * NS_PER_MS,
			       .pass = pass,
			       .total_bytes = 1000 * MB,
			       .sent_bytes = sent,
			       .remaining = remaining,
			       .max_pause_ms = 300};
	int64_t eta;

	eta_update(t, &s, ret_progress, &eta);
	return eta;
}

static void before_the_first_bytes_the_eta_is_unknown(void **state)
{
	struct eta t;
	double progress = 1;

	(void)state;
	eta_init(&t);
	assert_true(look(&t, 0, 1, 0, 1000 * MB, &progress) < 0);
	assert_true(look(&t, 1000, 1, 0, 1000 * MB, &progress) < 0);
	assert_true(progress == 0);
}

static void zero_pages_do_not_count_as_bytes_to_send(void **state)
{
	struct eta t;
	double progress;

	(void)state;
	eta_init(&t);
	/* Half of what was walked was zero: 500 MB left are 250 MB on a wire of 250 MB/s. */
	assert_near((double)look(&t, 1000, 1, 250 * MB, 500 * MB, &progress), 1e9, 0.01);
	assert_true(progress > 0.49 && progress < 0.51);
}

static void before_the_first_pass_nothing_is_done_yet(void **state)
{
	struct eta t;
	double progress;

	(void)state;
	eta_init(&t);
	for (int64_t ms = 20; ms <= 300; ms += 20)
		assert_int_equal(look(&t, ms, 0, 90, 0, &progress), -1);
	assert_true(progress == 0);
	look(&t, 1300, 1, 10000000, 990000000, &progress);
	assert_true(progress < 0.1);
}

static void progress_holds_when_the_wire_gets_slower(void **state)
{
	struct eta t;
	double progress, before = 0;
	uint64_t sent = 0;

	(void)state;
	eta_init(&t);
	for (int64_t ms = 50; sent < 900 * MB; ms += 50) {
		sent += ms < 2000 ? 15 * MB : 1 * MB;
		look(&t, ms, 1, sent, 1000 * MB - sent, &progress);
		assert_true(progress >= before);
		before = progress;
	}
	assert_true(before < 1);
}

static void while_no_end_is_in_sight_progress_stops_at_a_half(void **state)
{
	struct forecast_input in = {.dirty_rate = 110 * MB, .dirty_period_ns = NS_PER_S};
	struct eta t;
	double progress = 0;

	(void)state;
	eta_init(&t);
	eta_hint(&t, &in);
	for (int64_t ms = 50; ms < 60000; ms += 50) {
		unsigned pass = (unsigned)(ms / 10000) + 1;
		uint64_t left = 1000 * MB - (uint64_t)(ms % 10000) * MB / 10;

		assert_true(look(&t, ms, pass, (uint64_t)ms * MB / 10, left, &progress) < 0);
		if (ms == 5000)
			assert_near(progress, 0.25, 0.02);
	}
	assert_near(progress, 0.5, 0.02);
}

static void the_last_step_of_the_bar_is_left_to_the_caller(void **state)
{
	struct eta t;
	double progress;

	(void)state;
	eta_init(&t);
	look(&t, 0, 1, 0, 1000 * MB, &progress);
	look(&t, 10000, 1, 1000 * MB, 0, &progress);
	assert_true(progress > 0.99 && progress < 1);
}

static void the_eta_follows_the_rate_of_the_wire_within_seconds(void **state)
{
	struct eta t;
	double progress;
	uint64_t sent = 0;
	int64_t eta = -1;

	(void)state;
	eta_init(&t);
	for (int64_t ms = 50; ms <= 8000; ms += 50) {
		sent += ms <= 4000 ? 5 * MB : 5 * MB / 2;
		eta = look(&t, ms, 1, sent, 1000 * MB - sent, &progress);
	}
	assert_near((double)eta, (double)(1000 * MB - sent) / 50e6 * 1e9, 0.1);
}

static void passes_between_two_looks_are_measured_by_what_they_sent(void **state)
{
	struct eta t;
	double progress;

	(void)state;
	eta_init(&t);
	look(&t, 0, 1, 0, 1000 * MB, &progress);
	look(&t, 500, 2, 1000 * MB, 20 * MB, &progress);
	/* Five passes in 50 ms at 2 GB/s sent 20 MB each, even when the newest is seen at its very end. */
	look(&t, 550, 7, 1100 * MB, 0, &progress);
	assert_near(t.dirty.points[0].t, 0.01, 0.01);
	assert_near(t.dirty.points[0].d, 20e6, 0.01);
}

static void a_guest_that_calms_down_is_followed(void **state)
{
	struct eta t;
	double progress;

	(void)state;
	eta_init(&t);
	look(&t, 0, 1, 0, 1000 * MB, &progress);
	look(&t, 9900, 1, 990 * MB, 10 * MB, &progress);
	assert_true(look(&t, 10000, 2, 1000 * MB, 950 * MB, &progress) < 0 || progress < 0.6);
	/* The second pass of nearly the same length leaves only 1 MB: the end is a moment away. */
	assert_in_range(look(&t, 19500, 3, 1950 * MB, 1 * MB, &progress), 1, 30 * NS_PER_MS);
}

static void many_passes_at_once_do_not_overflow_what_is_remembered(void **state)
{
	struct eta t;
	double progress;
	uint64_t random = 1, sent = 0;
	int64_t ms = 0;

	(void)state;
	eta_init(&t);
	for (unsigned pass = 1; pass < 5000; pass += 1 + random % 9) {
		random = random * 6364136223846793005ULL + 1442695040888963407ULL;
		ms += 1 + (int64_t)(random >> 60 << (random >> 40 & 7));
		sent += random >> 40;
		look(&t, ms, pass, sent, random >> 36, &progress);
		assert_true(t.dirty.n <= DIRTY_POINTS_MAX);
		for (unsigned i = 1; i < t.dirty.n; i++) {
			assert_true(t.dirty.points[i].t > t.dirty.points[i - 1].t);
			assert_true(t.dirty.points[i].d >= t.dirty.points[i - 1].d);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_idle_guest_takes_one_pass_and_the_fixed_pause),
		cmocka_unit_test(zero_memory_costs_next_to_nothing),
		cmocka_unit_test(the_series_is_the_geometric_one_for_a_guest_that_walks_through_its_memory),
		cmocka_unit_test(guests_that_write_less_than_the_wire_carries_are_foretold),
		cmocka_unit_test(a_hot_set_foretells_the_pause_that_it_needs),
		cmocka_unit_test(a_hot_set_beyond_the_pause_does_not_converge_and_both_rates_are_named),
		cmocka_unit_test(without_a_rate_of_the_wire_there_is_no_forecast),
		cmocka_unit_test(measurements_that_contradict_each_other_still_give_a_forecast),
		cmocka_unit_test(the_eta_of_moves_that_converge_is_right_from_a_quarter_on),
		cmocka_unit_test(before_the_first_bytes_the_eta_is_unknown),
		cmocka_unit_test(zero_pages_do_not_count_as_bytes_to_send),
		cmocka_unit_test(before_the_first_pass_nothing_is_done_yet),
		cmocka_unit_test(progress_holds_when_the_wire_gets_slower),
		cmocka_unit_test(while_no_end_is_in_sight_progress_stops_at_a_half),
		cmocka_unit_test(the_last_step_of_the_bar_is_left_to_the_caller),
		cmocka_unit_test(the_eta_follows_the_rate_of_the_wire_within_seconds),
		cmocka_unit_test(passes_between_two_looks_are_measured_by_what_they_sent),
		cmocka_unit_test(a_guest_that_calms_down_is_followed),
		cmocka_unit_test(many_passes_at_once_do_not_overflow_what_is_remembered),
	};

	return cmocka_run_group_tests_name("migrate/forecast", tests, NULL, NULL);
}
