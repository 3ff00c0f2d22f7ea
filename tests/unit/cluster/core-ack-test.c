/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol's core, one member at a time: what is acknowledged, to whom, and what a leader makes of it. */
#include "tests/unit/cluster/core-world.h"

/* Host 1 leads, and its first entry is on the disk of this member. */
static void followed(struct member *x, bool has_direct)
{
	member_begin(x, &fresh_disk);
	x->has_direct = has_direct;
	member_view(x, 1, 3, 3);
	member_follow(x, 0, 0);
	member_disk_done(x);
}

/* An entry of host 1 behind entry @before. */
static void one_more(struct member *x, uint64_t before)
{
	struct entry *e = member_entry(5, ENTRY_COMMAND);

	member_hear(x, 1, (struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = before, .last_epoch = 5}, e);
	member_disk_done(x);
	entry_unref(e);
}

static void an_entry_is_acknowledged_once_the_disk_has_it(void **state)
{
	struct member x;

	(void)state;
	member_begin(&x, &fresh_disk);
	member_view(&x, 1, 3, 3);
	member_follow(&x, 0, 0);
	assert_null(member_said(&x, MSG_ACK));
	assert_int_equal(x.written.n_append, 1);
	assert_int_equal(x.written.n_apply, 0);
	member_disk_done(&x);
	assert_int_equal(member_said(&x, MSG_ACK)->index, 1);
	member_hear(&x, 3, (struct msg){.type = MSG_ACK, .epoch = 5, .index = 1}, NULL);
	member_echo(&x);
	assert_int_equal(x.written.n_apply, 0); /* the leader counts, not this member */
	member_committed(&x, 1);
	assert_int_equal(x.written.n_apply, 1);
	member_end(&x);
}

static void an_acknowledgement_goes_to_the_leader_alone_and_to_all_if_that_is_lost(void **state)
{
	struct member x;

	(void)state;
	followed(&x, true);
	assert_int_equal(x.direct_to, 1);
	assert_int_equal(x.direct.type, MSG_ACK);
	assert_int_equal(x.direct.index, 1);
	assert_null(member_said(&x, MSG_ACK));
	assert_int_equal(core_deadline(x.core), x.now + CORE_ACK_AGAIN);
	x.now = core_deadline(x.core);
	core_tick(x.core, x.now);
	member_flush(&x);
	assert_int_equal(member_said(&x, MSG_ACK)->index, 1);
	member_forget_sent(&x);
	x.now += CORE_ACK_AGAIN;
	core_tick(x.core, x.now);
	member_flush(&x);
	assert_null(member_said(&x, MSG_ACK));
	assert_int_equal(core_deadline(x.core), x.now + CORE_NEED_AGAIN - CORE_ACK_AGAIN);
	x.now = core_deadline(x.core);
	core_tick(x.core, x.now); /* as long as there is no commit */
	assert_int_equal(member_said(&x, MSG_ACK)->index, 1);
	member_end(&x);
}

static void newer_acknowledgements_do_not_put_off_the_word_to_all(void **state)
{
	struct member x;
	int64_t began;

	(void)state;
	followed(&x, true);
	began = x.now;
	x.now += CORE_ACK_AGAIN - 1;
	one_more(&x, 1);
	assert_int_equal(x.direct.index, 2);
	assert_int_equal(core_deadline(x.core), began + CORE_ACK_AGAIN);
	x.now = core_deadline(x.core);
	core_tick(x.core, x.now);
	assert_int_equal(member_said(&x, MSG_ACK)->index, 2);
	member_end(&x);
}

static void a_commit_of_older_entries_is_followed_by_a_wait_for_newer_ones(void **state)
{
	struct member x;

	(void)state;
	followed(&x, true);
	one_more(&x, 1);
	x.now += CORE_ACK_AGAIN / 2;
	member_committed(&x, 1);
	assert_int_equal(core_deadline(x.core), x.now + CORE_ACK_AGAIN);
	member_end(&x);
}

static void a_commit_ends_the_wait_of_an_acknowledgement(void **state)
{
	struct member x;

	(void)state;
	followed(&x, true);
	member_committed(&x, 1);
	member_disk_done(&x);
	assert_true(core_deadline(x.core) > x.now + CORE_ACK_AGAIN);
	x.now += CORE_ACK_AGAIN;
	core_tick(x.core, x.now);
	member_flush(&x);
	assert_null(member_said(&x, MSG_ACK));
	member_end(&x);
}

static void a_learner_vouches_once_it_has_all_again_that_it_acknowledged(void **state)
{
	struct core_disk disk = {
		.history = HISTORY, .promised = 5, .promised_to = 1, .learner = true, .applied = 1, .applied_epoch = 5};
	struct member x;

	(void)state;
	followed(&x, true);
	one_more(&x, 1);
	one_more(&x, 2);
	assert_int_equal(x.direct.index, 3);
	member_committed(&x, 1); /* from now on the ACK of entry 3 is watched */
	member_disk_done(&x);
	core_fetch_installed(x.core, x.now, &disk);
	x.now += CORE_ACK_AGAIN;
	core_tick(x.core, x.now);
	assert_null(member_said(&x, MSG_ACK)); /* it is true no more, and not repeated */
	one_more(&x, 1);
	assert_false(x.written.meta);
	one_more(&x, 2);
	assert_true(x.written.meta);
	assert_false(x.written.learner);
	member_end(&x);
}

static void a_follower_takes_a_few_entries_before_it_applies_older_ones(void **state)
{
	struct entry *e = member_entry(5, ENTRY_COMMAND);
	struct member x;

	(void)state;
	followed(&x, false);
	member_hear(&x, 1, (struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = 1, .last_epoch = 5, .commit = 1},
		    e);
	assert_int_equal(x.written.n_append, 1);
	assert_int_equal(x.written.n_apply, 0);
	member_disk_done(&x);
	assert_int_equal(x.written.n_append, 0);
	assert_int_equal(x.written.n_apply, 1);
	/* But not for ever: the disk is busy, entries come one by one, and what may be applied grows. */
	for (uint64_t i = 2; i < 20 && x.n_apply < 2; i++)
		member_hear(
			&x, 1,
			(struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = i, .last_epoch = 5, .commit = i},
			e);
	assert_true(x.n_apply > 1);
	entry_unref(e);
	member_end(&x);
}

static uint64_t commit_of(const struct member *x)
{
	struct core_status s;

	core_status(x->core, &s);
	return s.commit;
}

static void the_leader_counts_its_own_disk_and_what_comes_to_it_alone(void **state)
{
	struct member x;

	(void)state;
	member_lead(&x);
	assert_int_equal(commit_of(&x), 9);
	member_hear_direct(&x, 1, (struct msg){.type = MSG_ACK, .epoch = 1, .index = 10});
	assert_int_equal(commit_of(&x), 10);
	member_end(&x);
}

static void an_acknowledgement_of_an_older_epoch_is_not_counted(void **state)
{
	struct member x;

	(void)state;
	member_lead(&x);
	member_hear_direct(&x, 1, (struct msg){.type = MSG_ACK, .epoch = 0, .index = 10});
	member_hear(&x, 3, (struct msg){.type = MSG_ACK, .epoch = 0, .index = 10}, NULL);
	assert_int_equal(commit_of(&x), 9);
	member_end(&x);
}

static void past_the_order_nothing_but_acknowledgements_is_taken(void **state)
{
	struct core_status s;
	struct member x;

	(void)state;
	member_lead(&x);
	member_hear_direct(&x, 3, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 9});
	core_direct(x.core, x.now, 1, (const uint8_t *)"G", 1);
	core_status(x.core, &s);
	assert_true(s.leading);
	assert_int_equal(s.commit, 9);
	member_end(&x);
}

/* A command of host @node goes through the leader; host 1 acknowledges it. */
static void through_the_leader(struct member *x, uint32_t node)
{
	struct entry *e = member_entry(1, ENTRY_COMMAND);

	member_hear_direct(x, 1, (struct msg){.type = MSG_ACK, .epoch = 1, .index = 10});
	x->now += CORE_COMMIT_LAZY;
	core_tick(x->core, x->now);
	member_disk_done(x);
	member_echo(x);
	x->now += NS_PER_S;
	if (node == SELF)
		assert_int_equal(member_propose(x, 1), 0);
	else
		member_hear(x, node, (struct msg){.type = MSG_PROPOSE, .epoch = 1}, e);
	member_echo(x);
	member_disk_done(x);
	member_forget_sent(x);
	member_hear_direct(x, 1, (struct msg){.type = MSG_ACK, .epoch = 1, .index = 11});
	assert_int_equal(commit_of(x), 11);
	entry_unref(e);
}

static void a_commit_that_another_host_waits_for_is_told_at_once(void **state)
{
	struct member x;

	(void)state;
	member_lead(&x);
	through_the_leader(&x, 3);
	assert_int_equal(member_said(&x, MSG_ENTRIES)->commit, 11);
	member_end(&x);
}

static void a_commit_that_nobody_else_waits_for_is_told_soon_after(void **state)
{
	struct member x;

	(void)state;
	member_lead(&x);
	through_the_leader(&x, SELF);
	assert_null(member_said(&x, MSG_ENTRIES));
	assert_int_equal(core_deadline(x.core), x.now + CORE_COMMIT_LAZY);
	x.now = core_deadline(x.core);
	core_tick(x.core, x.now);
	assert_int_equal(member_said(&x, MSG_ENTRIES)->commit, 11);
	assert_int_equal(member_said(&x, MSG_ENTRIES)->count, 0);
	member_end(&x);
}

static void a_commit_waits_for_the_next_entries_while_they_come_anyway(void **state)
{
	struct member x;

	(void)state;
	member_lead(&x);
	through_the_leader(&x, SELF);
	x.now += 10 * NS_PER_MS;
	assert_int_equal(member_propose(&x, 1), 0);
	member_echo(&x);
	member_disk_done(&x);
	member_hear_direct(&x, 1, (struct msg){.type = MSG_ACK, .epoch = 1, .index = 12});
	assert_int_equal(commit_of(&x), 12);
	assert_int_equal(core_deadline(x.core), x.now + 20 * NS_PER_MS);
	member_end(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_entry_is_acknowledged_once_the_disk_has_it),
		cmocka_unit_test(an_acknowledgement_goes_to_the_leader_alone_and_to_all_if_that_is_lost),
		cmocka_unit_test(a_commit_ends_the_wait_of_an_acknowledgement),
		cmocka_unit_test(a_follower_takes_a_few_entries_before_it_applies_older_ones),
		cmocka_unit_test(a_learner_vouches_once_it_has_all_again_that_it_acknowledged),
		cmocka_unit_test(the_leader_counts_its_own_disk_and_what_comes_to_it_alone),
		cmocka_unit_test(an_acknowledgement_of_an_older_epoch_is_not_counted),
		cmocka_unit_test(past_the_order_nothing_but_acknowledgements_is_taken),
		cmocka_unit_test(a_commit_that_another_host_waits_for_is_told_at_once),
		cmocka_unit_test(a_commit_that_nobody_else_waits_for_is_told_soon_after),
		cmocka_unit_test(a_commit_waits_for_the_next_entries_while_they_come_anyway),
		cmocka_unit_test(newer_acknowledgements_do_not_put_off_the_word_to_all),
		cmocka_unit_test(a_commit_of_older_entries_is_followed_by_a_wait_for_newer_ones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
