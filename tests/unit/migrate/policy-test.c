/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the policy: rules one by one, then whole moves against a model of QEMU and of the guest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "migrate/policy.h"
#include "tests/unit/migrate/sim-guest.h"

#define MB 1000000ULL
#define GBIT (125 * MB)
#define MEMORY_BUS (2500 * MB)

static struct policy fresh(unsigned max_pause_ms)
{
	struct policy_options opt = {.max_pause_ms = max_pause_ms};
	struct policy p;

	policy_init(&p, &opt);
	return p;
}

/* One look at @ms: pass @pass with @set bytes left, on a wire of 100 MB/s. */
static struct policy_decision look(struct policy *p, int64_t ms, unsigned pass, uint64_t set)
{
	struct policy_sample s = {.elapsed_ns = ms * NS_PER_MS,
				  .pass = pass,
				  .remaining = set,
				  .dirty_rate = 140 * MB,
				  .wire_rate = 100 * MB};

	return policy_step(p, &s);
}

static struct sim_end run(struct sim_setup set)
{
	struct sim_end end;

	if (set.tick_ns == 0)
		set.tick_ns = NS_PER_MS;
	if (set.opt.max_pause_ms == 0)
		set.opt.max_pause_ms = 300;
	end = sim_run(&set, 7, 200 * NS_PER_S);
	free(end.looks);
	end.looks = NULL;
	return end;
}

static void the_limit_starts_at_one_and_stays_there_in_the_first_pass(void **state)
{
	struct policy p = fresh(300);

	(void)state;
	for (int64_t ms = 0; ms < 60000; ms += 50) {
		struct policy_decision d = look(&p, ms, 1, 6000 * MB - (uint64_t)ms * MB / 10);

		assert_int_equal(d.verdict, POLICY_GO_ON);
		assert_int_equal(d.downtime_limit_ms, 1);
		assert_string_equal(d.why, "");
	}
}

static void a_maximum_of_zero_counts_as_one(void **state)
{
	struct policy p = fresh(0);

	(void)state;
	for (unsigned pass = 1; pass < 100; pass++)
		assert_int_equal(look(&p, pass * 300, pass, 30 * MB).downtime_limit_ms, 1);
}

static void two_long_passes_that_do_not_shrink_raise_the_limit_to_what_the_smallest_needs(void **state)
{
	struct policy p = fresh(300);
	struct policy_decision d;

	(void)state;
	look(&p, 0, 1, 1000 * MB);
	assert_int_equal(look(&p, 10000, 2, 20 * MB).downtime_limit_ms, 1);
	assert_int_equal(look(&p, 10210, 3, 19 * MB).downtime_limit_ms, 1);
	d = look(&p, 10420, 4, 20 * MB);
	/* 19 MB x 1.1 at 100 MB/s are 209 ms. */
	assert_in_range(d.downtime_limit_ms, 209, 210);
	assert_non_null(strstr(d.why, "downtime limit 210 ms"));
	assert_int_equal(look(&p, 10430, 4, 20 * MB).downtime_limit_ms, d.downtime_limit_ms);
}

static void sets_that_only_wobble_do_not_count_as_shrinking(void **state)
{
	struct policy p = fresh(300);

	(void)state;
	look(&p, 0, 1, 1000 * MB);
	look(&p, 10000, 2, 20 * MB);
	look(&p, 10300, 3, 18 * MB);
	/* 16.5 MB, the smallest, need 182 ms. */
	assert_int_equal(look(&p, 10600, 4, 16500000).downtime_limit_ms, 182);
}

static void each_further_pair_of_passes_raises_it_by_half_up_to_the_maximum(void **state)
{
	struct policy p = fresh(400);

	(void)state;
	look(&p, 0, 1, 1000 * MB);
	look(&p, 10000, 2, 20 * MB);
	look(&p, 10300, 3, 20 * MB);
	assert_int_equal(look(&p, 10600, 4, 20 * MB).downtime_limit_ms, 221);
	assert_int_equal(look(&p, 10900, 5, 20 * MB).downtime_limit_ms, 221);
	assert_int_equal(look(&p, 11200, 6, 20 * MB).downtime_limit_ms, 332);
	assert_int_equal(look(&p, 11500, 7, 20 * MB).downtime_limit_ms, 332);
	assert_int_equal(look(&p, 11800, 8, 20 * MB).downtime_limit_ms, 400);
	assert_int_equal(look(&p, 12100, 9, 20 * MB).downtime_limit_ms, 400);
}

static void short_passes_are_given_four_hundred_milliseconds(void **state)
{
	struct policy p = fresh(300);
	unsigned pass = 1;

	(void)state;
	look(&p, 0, pass, 1000 * MB);
	/* This one also counts bytes of the first pass, the next one sets the reference. */
	look(&p, 1000, pass += 7, 700000);
	for (int64_t ms = 1050; ms < 1450; ms += 50)
		assert_int_equal(look(&p, ms, pass += 7, 700000).downtime_limit_ms, 1);
	assert_true(look(&p, 1450, pass += 7, 700000).downtime_limit_ms > 1);
}

static void a_jump_over_several_passes_counts_each_of_them(void **state)
{
	struct policy p = fresh(300);

	(void)state;
	look(&p, 0, 1, 1000 * MB);
	look(&p, 10000, 2, 20 * MB);
	/* Three passes within 660 ms sent 22 MB each at 100 MB/s, whatever is left of the newest now. */
	assert_true(look(&p, 10660, 5, 1 * MB).downtime_limit_ms >= 200);
}

static void a_set_that_shrinks_by_a_sixth_in_each_pass_is_left_alone(void **state)
{
	struct policy p = fresh(300);
	uint64_t set = 1000 * MB;
	int64_t ms = 0;

	(void)state;
	for (unsigned pass = 1; set > MB / 10; pass++) {
		struct policy_decision d = look(&p, ms, pass, set);

		assert_int_equal(d.verdict, POLICY_GO_ON);
		assert_int_equal(d.downtime_limit_ms, 1);
		ms += (int64_t)(set / (100 * MB / 1000)) + 1;
		set = set * 5 / 6;
	}
}

static void a_guest_that_calms_down_gets_the_short_limit_back(void **state)
{
	struct policy p = fresh(1000);
	struct policy_decision d;

	(void)state;
	look(&p, 0, 1, 1000 * MB);
	look(&p, 10000, 2, 50 * MB);
	look(&p, 10600, 3, 50 * MB);
	assert_int_equal(look(&p, 11200, 4, 50 * MB).downtime_limit_ms, 551);
	d = look(&p, 11800, 5, 10 * MB);
	assert_int_equal(d.downtime_limit_ms, 1);
	assert_string_equal(d.why, "the dirty sets shrink again (10 MiB): downtime limit 1 ms");
}

static void while_the_rate_of_the_wire_is_unknown_nothing_is_raised(void **state)
{
	struct policy p = fresh(300);

	(void)state;
	for (unsigned pass = 1; pass < 50; pass++) {
		struct policy_sample s = {.elapsed_ns = pass * NS_PER_S, .pass = pass, .remaining = 20 * MB};

		assert_int_equal(policy_step(&p, &s).downtime_limit_ms, 1);
	}
}

static void it_gives_up_after_four_passes_at_the_maximum_and_names_both_rates(void **state)
{
	struct policy p = fresh(100);
	struct policy_decision d = {0};
	unsigned pass = 1;

	(void)state;
	look(&p, 0, pass, 1000 * MB);
	do {
		pass++;
		d = look(&p, 10000 + pass * 1000, pass, 100 * MB);
	} while (d.verdict == POLICY_GO_ON && pass < 100);
	assert_int_equal(d.verdict, POLICY_NO_CONVERGE);
	assert_int_equal(pass, 8); /* 2 is the first, 4 raises, four more */
	assert_string_equal(d.why,
			    "does not converge: writes 140 MB/s, wire carries 100 MB/s; 96 MiB are left after each "
			    "pass and need a pause of 1101 ms, allowed are 100 ms");
}

static void a_set_that_should_fit_is_waited_for_four_times_as_long(void **state)
{
	struct policy p = fresh(100);
	struct policy_decision d = look(&p, 0, 1, 1000 * MB);
	unsigned pass = 1;

	(void)state;
	while (d.verdict == POLICY_GO_ON && pass < 100) {
		pass++;
		d = look(&p, 10000 + pass * 1000, pass, pass == 2 ? 9 * MB : 30 * MB);
	}
	assert_int_equal(d.verdict, POLICY_NO_CONVERGE);
	assert_int_equal(pass, 20); /* 4 raises, sixteen more */
	assert_non_null(strstr(d.why, "what a pass leaves varies and never fitted a pause of 100 ms"));
}

static void where_qemu_has_no_dirty_rate_the_sets_tell_it(void **state)
{
	struct policy p = fresh(100);
	struct policy_decision d = {0};

	(void)state;
	for (unsigned pass = 1; pass < 100 && d.verdict == POLICY_GO_ON; pass++) {
		struct policy_sample s = {
			.elapsed_ns = pass * NS_PER_S, .pass = pass, .remaining = 120 * MB, .wire_rate = 100 * MB};

		d = policy_step(&p, &s);
	}
	assert_int_equal(d.verdict, POLICY_NO_CONVERGE);
	assert_non_null(strstr(d.why, "writes 120 MB/s, wire carries 100 MB/s"));
}

static void the_deadline_ends_it_in_any_pass(void **state)
{
	struct policy_options opt = {.max_pause_ms = 300, .deadline_ns = 20 * NS_PER_S, .auto_converge = true};
	struct policy p;
	struct policy_decision d;

	(void)state;
	policy_init(&p, &opt);
	assert_int_equal(look(&p, 19999, 1, 1000 * MB).verdict, POLICY_GO_ON);
	d = look(&p, 20000, 1, 1000 * MB);
	assert_int_equal(d.verdict, POLICY_DEADLINE);
	assert_string_equal(d.why, "not done within 20 s: writes 0 MB/s, wire carries 100 MB/s");
}

static void absurd_numbers_do_not_upset_it(void **state)
{
	struct policy p = fresh(UINT32_MAX);
	struct policy_sample s = {.elapsed_ns = INT64_MAX / 2,
				  .pass = UINT32_MAX,
				  .remaining = UINT64_MAX,
				  .dirty_rate = UINT64_MAX,
				  .wire_rate = 1};

	(void)state;
	assert_int_equal(policy_step(&p, &s).verdict, POLICY_GO_ON);
	s.pass = 1;
	s.remaining = 0;
	assert_int_equal(policy_step(&p, &s).downtime_limit_ms, 1);
}

static void an_idle_guest_moves_with_a_limit_of_one(void **state)
{
	struct sim_end end = run((struct sim_setup){.ram = 1024 * SIM_MIB, .wire = GBIT});

	(void)state;
	assert_true(end.stopped);
	assert_int_equal(end.max_limit_ms, 1);
	assert_int_equal(end.passes, 2);
	assert_true(end.pause_ns <= NS_PER_MS);
}

static void a_guest_that_writes_less_than_the_wire_carries_moves_with_a_limit_of_one(void **state)
{
	static const uint64_t rates[] = {20 * MB, 100 * MB};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct sim_end end = run((struct sim_setup){
			.ram = 1024 * SIM_MIB, .hot = 1024 * SIM_MIB, .rate = rates[i], .sweep = true, .wire = GBIT});

		assert_true(end.stopped);
		assert_int_equal(end.max_limit_ms, 1);
		assert_true(end.pause_ns <= NS_PER_MS);
	}
}

static void a_hot_set_that_fits_the_pause_gets_a_limit_just_large_enough(void **state)
{
	struct sim_end end = run((struct sim_setup){
		.ram = 1024 * SIM_MIB, .hot = 24 * SIM_MIB, .rate = 1000 * MB, .wire = GBIT, .sweep = true});

	(void)state;
	/* 24 MiB at 125 MB/s are 201 ms, and up to 1 ms is left of the pass before. */
	assert_true(end.stopped);
	assert_in_range(end.max_limit_ms, 180, 300);
	assert_true(end.passes <= 8);
	assert_true(end.pause_ns <= 203 * NS_PER_MS);
}

static void a_hot_set_that_the_wire_cannot_carry_ends_within_a_bounded_number_of_passes(void **state)
{
	struct sim_end end =
		run((struct sim_setup){.ram = 1024 * SIM_MIB, .hot = 256 * SIM_MIB, .rate = 1000 * MB, .wire = GBIT});

	(void)state;
	assert_false(end.stopped);
	assert_int_equal(end.last.verdict, POLICY_NO_CONVERGE);
	assert_true(end.passes <= 9);
	assert_non_null(strstr(end.last.why, "does not converge: writes "));
	assert_non_null(strstr(end.last.why, "wire carries 125 MB/s"));
}

static void auto_converge_carries_on_where_it_would_be_given_up(void **state)
{
	struct sim_end end = run((struct sim_setup){.ram = 1024 * SIM_MIB,
						    .hot = 256 * SIM_MIB,
						    .rate = 1000 * MB,
						    .wire = GBIT,
						    .opt = {.max_pause_ms = 300, .auto_converge = true}});

	(void)state;
	assert_true(end.stopped);
	assert_true(end.pause_ns <= 301 * NS_PER_MS);
	assert_true(end.passes > 9);
}

static void auto_converge_gives_up_when_even_the_slowest_guest_is_too_fast(void **state)
{
	struct sim_end end = run((struct sim_setup){.ram = 1024 * SIM_MIB,
						    .hot = 512 * SIM_MIB,
						    .rate = 100000 * MB,
						    .sweep = true,
						    .wire = GBIT,
						    .opt = {.max_pause_ms = 300, .auto_converge = true}});

	(void)state;
	assert_false(end.stopped);
	assert_int_equal(end.last.verdict, POLICY_NO_CONVERGE);
	assert_non_null(strstr(end.last.why, "even with the guest slowed down"));
}

static void on_a_fast_wire_bursts_of_writing_are_waited_out_with_a_limit_of_one(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct sim_setup set = {.ram = 544 * SIM_MIB,
					.hot = 32 * SIM_MIB,
					.rate = 3000 * MB,
					.sweep = true,
					.busy_ns = 20 * NS_PER_MS,
					.away_ns = 6 * NS_PER_MS,
					.tick_ns = NS_PER_MS / 10,
					.wire = MEMORY_BUS,
					.opt = {.max_pause_ms = 300}};
		struct sim_end end = sim_run(&set, seed, 20 * NS_PER_S);

		free(end.looks);
		assert_true(end.stopped);
		assert_int_equal(end.max_limit_ms, 1);
		assert_true(end.pause_ns <= NS_PER_MS + NS_PER_MS / 10);
	}
}

static void on_a_fast_wire_a_guest_that_never_rests_is_stopped_soon_after(void **state)
{
	struct sim_end end = run((struct sim_setup){.ram = 544 * SIM_MIB,
						    .hot = 32 * SIM_MIB,
						    .rate = 3000 * MB,
						    .sweep = true,
						    .tick_ns = NS_PER_MS / 10,
						    .wire = MEMORY_BUS});

	(void)state;
	assert_true(end.stopped);
	assert_in_range(end.time_ns, 500 * NS_PER_MS, 1000 * NS_PER_MS);
	assert_true(end.pause_ns <= 20 * NS_PER_MS);
}

static void on_a_fast_wire_a_set_beyond_the_pause_ends_within_seconds(void **state)
{
	struct sim_end end = run((struct sim_setup){.ram = 544 * SIM_MIB,
						    .hot = 256 * SIM_MIB,
						    .rate = 20000 * MB,
						    .tick_ns = NS_PER_MS / 10,
						    .wire = MEMORY_BUS,
						    .opt = {.max_pause_ms = 20}});

	(void)state;
	assert_int_equal(end.last.verdict, POLICY_NO_CONVERGE);
	assert_true(end.time_ns <= 15 * NS_PER_S);
}

static void a_burst_does_not_end_a_move_that_a_calm_moment_would(void **state)
{
	struct sim_end end = run((struct sim_setup){.ram = 1024 * SIM_MIB,
						    .hot = 64 * SIM_MIB,
						    .rate = 1000 * MB,
						    .wire = GBIT,
						    .calm_from = 10 * NS_PER_S,
						    .calm_for = 2 * NS_PER_S});

	(void)state;
	assert_true(end.stopped);
	assert_true(end.time_ns < 13 * NS_PER_S);
	assert_true(end.pause_ns <= 300 * NS_PER_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_limit_starts_at_one_and_stays_there_in_the_first_pass),
		cmocka_unit_test(a_maximum_of_zero_counts_as_one),
		cmocka_unit_test(two_long_passes_that_do_not_shrink_raise_the_limit_to_what_the_smallest_needs),
		cmocka_unit_test(sets_that_only_wobble_do_not_count_as_shrinking),
		cmocka_unit_test(each_further_pair_of_passes_raises_it_by_half_up_to_the_maximum),
		cmocka_unit_test(short_passes_are_given_four_hundred_milliseconds),
		cmocka_unit_test(a_jump_over_several_passes_counts_each_of_them),
		cmocka_unit_test(a_set_that_shrinks_by_a_sixth_in_each_pass_is_left_alone),
		cmocka_unit_test(a_guest_that_calms_down_gets_the_short_limit_back),
		cmocka_unit_test(while_the_rate_of_the_wire_is_unknown_nothing_is_raised),
		cmocka_unit_test(it_gives_up_after_four_passes_at_the_maximum_and_names_both_rates),
		cmocka_unit_test(a_set_that_should_fit_is_waited_for_four_times_as_long),
		cmocka_unit_test(where_qemu_has_no_dirty_rate_the_sets_tell_it),
		cmocka_unit_test(the_deadline_ends_it_in_any_pass),
		cmocka_unit_test(absurd_numbers_do_not_upset_it),
		cmocka_unit_test(an_idle_guest_moves_with_a_limit_of_one),
		cmocka_unit_test(a_guest_that_writes_less_than_the_wire_carries_moves_with_a_limit_of_one),
		cmocka_unit_test(a_hot_set_that_fits_the_pause_gets_a_limit_just_large_enough),
		cmocka_unit_test(a_hot_set_that_the_wire_cannot_carry_ends_within_a_bounded_number_of_passes),
		cmocka_unit_test(auto_converge_carries_on_where_it_would_be_given_up),
		cmocka_unit_test(auto_converge_gives_up_when_even_the_slowest_guest_is_too_fast),
		cmocka_unit_test(on_a_fast_wire_bursts_of_writing_are_waited_out_with_a_limit_of_one),
		cmocka_unit_test(on_a_fast_wire_a_guest_that_never_rests_is_stopped_soon_after),
		cmocka_unit_test(on_a_fast_wire_a_set_beyond_the_pause_ends_within_seconds),
		cmocka_unit_test(a_burst_does_not_end_a_move_that_a_calm_moment_would),
	};

	return cmocka_run_group_tests_name("migrate/policy", tests, NULL, NULL);
}
