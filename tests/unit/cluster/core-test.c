/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol's core, one member at a time: rounds, promises, the log, digests. */

/* tests/sim attacks the rules all at once and by chance; here each has its name. The test plays the bus, the disk and
 * the other members (core-world.h). */
#include "tests/unit/cluster/core-world.h"

static void a_host_alone_acknowledges_what_its_disk_has(void **state)
{
	struct core_status s;
	struct member x;

	(void)state;
	member_begin(&x, &fresh_disk);
	member_view(&x, 1, 1, 1);
	for (int i = 0; i < 6; i++) {
		member_echo(&x);
		member_disk_done(&x);
	}
	core_status(x.core, &s);
	assert_int_equal(s.state, CORE_SYNCED);
	assert_int_equal(s.applied, 1);
	assert_int_equal(member_propose(&x, 1), 0);
	for (int i = 0; i < 4; i++)
		member_echo(&x);
	core_status(x.core, &s);
	assert_int_equal(s.pending, 1); /* the disk has said nothing */
	for (int i = 0; i < 4; i++) {
		member_disk_done(&x);
		member_echo(&x);
	}
	core_status(x.core, &s);
	assert_int_equal(s.pending, 0);
	assert_int_equal(s.applied, 2);
	member_end(&x);
}

static void without_quorum_a_proposal_is_refused_at_once(void **state)
{
	struct member x;

	(void)state;
	member_begin(&x, &fresh_disk);
	assert_int_equal(member_propose(&x, 1), -1);
	assert_int_equal(x.why, CORE_REFUSED_NO_QUORUM);
	member_view(&x, 1, 1, 3);
	assert_int_equal(member_propose(&x, 1), -1);
	assert_int_equal(x.why, CORE_REFUSED_NO_QUORUM);
	assert_null(member_said(&x, MSG_SYNC));
	member_end(&x);
}

static void a_ghost_costs_one_second(void **state)
{
	struct member x;

	(void)state;
	member_begin(&x, &fresh_disk);
	member_view(&x, 1, 3, 3); /* host 1 is never heard */
	member_hear(&x, 3, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1}, NULL);
	member_echo(&x);
	assert_null(member_said(&x, MSG_CLAIM));
	assert_int_equal(core_deadline(x.core), x.now + CORE_SYNC_LIMIT);
	x.now = core_deadline(x.core);
	core_tick(x.core, x.now);
	member_flush(&x);
	assert_non_null(member_said(&x, MSG_CLAIM));
	assert_int_equal(member_said(&x, MSG_CLAIM)->epoch, 1);
	member_end(&x);
}

/* This member's log ends at entry 9 of epoch 3, those of 1 and 3 where @index says. */
static bool claims(uint64_t index1, uint64_t index3)
{
	struct core_disk disk = {.history = HISTORY, .applied = 9, .applied_epoch = 3};
	struct msg sync = {.type = MSG_SYNC, .ring = {1, 1}, .round = 1, .last_epoch = 3};
	struct member x;
	bool claimed;

	member_begin(&x, &disk);
	member_view(&x, 1, 3, 3);
	sync.last_index = index1;
	member_hear(&x, 1, sync, NULL);
	sync.last_index = index3;
	member_hear(&x, 3, sync, NULL);
	member_echo(&x);
	claimed = member_said(&x, MSG_CLAIM);
	member_end(&x);
	return claimed;
}

static void the_longest_log_claims_and_on_ties_whoever_has_the_token_first(void **state)
{
	(void)state;
	assert_true(claims(8, 8));
	assert_true(claims(9, 8)); /* the token rests at 1, and comes to 2 next */
	assert_true(claims(9, 9));
	assert_false(claims(10, 8));
	assert_false(claims(8, 10));
}

static void a_promise_is_given_once_the_disk_has_it(void **state)
{
	struct msg claim = {.type = MSG_CLAIM, .ring = {1, 1}, .round = 1, .epoch = 4};
	struct member x;

	(void)state;
	member_begin(&x, &fresh_disk);
	member_view(&x, 1, 3, 3);
	member_hear(&x, 1, claim, NULL);
	assert_null(member_said(&x, MSG_PROMISE));
	assert_true(x.written.meta);
	assert_int_equal(x.written.promised, 4);
	assert_int_equal(x.written.promised_to, 1);
	member_disk_done(&x);
	assert_non_null(member_said(&x, MSG_PROMISE));
	assert_true(member_said(&x, MSG_PROMISE)->flags & MSG_GRANTED);
	member_forget_sent(&x);
	member_hear(&x, 3, claim, NULL); /* the same epoch for somebody else */
	assert_false(member_said(&x, MSG_PROMISE)->flags & MSG_GRANTED);
	member_end(&x);
}

static void a_claimant_with_an_older_log_is_refused(void **state)
{
	struct core_disk disk = {.history = HISTORY, .applied = 9, .applied_epoch = 3};
	struct member x;

	(void)state;
	member_begin(&x, &disk);
	member_view(&x, 1, 3, 3);
	member_hear(
		&x, 1,
		(struct msg){
			.type = MSG_CLAIM, .ring = {1, 1}, .round = 1, .epoch = 4, .last_epoch = 2, .last_index = 50},
		NULL);
	assert_false(member_said(&x, MSG_PROMISE)->flags & MSG_GRANTED);
	member_end(&x);
}

/* The answer of a member whose log ends at entry 9 of epoch 3 to a claimant whose log ends at @index. */
static uint8_t promise_of(struct core_disk disk, uint64_t index)
{
	struct msg claim = {.type = MSG_CLAIM, .ring = {1, 1}, .round = 1, .epoch = 4, .last_epoch = 3};
	struct member x;
	uint8_t flags;

	disk.history = HISTORY;
	disk.applied = 9;
	disk.applied_epoch = 3;
	claim.last_index = index;
	member_begin(&x, &disk);
	member_view(&x, 1, 3, 3);
	member_hear(&x, 1, claim, NULL);
	member_disk_done(&x);
	flags = member_said(&x, MSG_PROMISE)->flags & (MSG_GRANTED | MSG_LEARNER);
	member_end(&x);
	return flags;
}

static void whoever_may_not_lead_stands_in_nobodys_way_and_vouches_for_what_the_claimant_has(void **state)
{
	(void)state;
	assert_int_equal(promise_of((struct core_disk){.diverged = false}, 8), 0);
	assert_int_equal(promise_of((struct core_disk){.diverged = true}, 9), MSG_GRANTED);
	assert_int_equal(promise_of((struct core_disk){.diverged = true}, 8), MSG_GRANTED | MSG_LEARNER);
	assert_int_equal(promise_of((struct core_disk){.learner = true}, 8), MSG_GRANTED | MSG_LEARNER);
	assert_int_equal(promise_of((struct core_disk){.learner = true}, 9), MSG_GRANTED | MSG_LEARNER);
}

static bool leading(const struct member *x)
{
	struct core_status s;

	core_status(x->core, &s);
	return s.leading;
}

/* Does this member lead with a majority of three, one of whose promises came with @flags? */
static bool leads_with(uint8_t flags)
{
	struct member x;
	bool leads;

	member_begin(&x, &fresh_disk);
	member_view(&x, 1, 3, 3);
	member_hear(&x, 1, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1}, NULL);
	member_hear(&x, 3, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1}, NULL);
	for (int i = 0; i < 3; i++) {
		member_echo(&x);
		member_disk_done(&x);
	}
	member_hear(&x, 1, (struct msg){.type = MSG_PROMISE, .to = SELF, .epoch = 1, .flags = flags}, NULL);
	leads = leading(&x);
	member_end(&x);
	return leads;
}

/* Until then its disk may be about to take a state that it fetched. */
static void nobody_leads_before_its_own_promise_is_on_its_disk(void **state)
{
	struct msg sync = {.type = MSG_SYNC, .ring = {1, 1}, .round = 1};
	struct msg promise = {.type = MSG_PROMISE, .to = SELF, .epoch = 1, .flags = MSG_GRANTED};
	struct member x;

	(void)state;
	member_begin(&x, &fresh_disk);
	member_view(&x, 1, 3, 3);
	member_hear(&x, 1, sync, NULL);
	member_hear(&x, 3, sync, NULL);
	member_echo(&x);
	member_echo(&x);
	member_hear(&x, 1, promise, NULL);
	member_hear(&x, 3, promise, NULL);
	assert_false(leading(&x));
	member_disk_done(&x);
	member_echo(&x);
	assert_true(leading(&x));
	member_end(&x);
}

/* Host 3 missed the digests that contradict its own. It may refuse others, so it must hear why it is refused. */
static void a_member_that_does_not_know_of_its_wrong_state_is_told_whatever_else_it_is_refused_for(void **state)
{
	struct msg check = {.type = MSG_CHECK, .epoch = 5, .index = 1};
	struct core_disk disk = {.history = HISTORY, .promised = 9, .promised_to = 1};
	static const uint8_t none[32] = {0};
	struct member x;

	(void)state;
	member_begin(&x, &disk);
	member_view(&x, 1, 3, 3);
	core_checked(x.core, 1, none, none);
	member_flush(&x);
	member_echo(&x);
	member_hear(&x, 1, check, NULL);
	check.chain[0] = 1;
	member_hear(&x, 3, check, NULL);
	assert_true(x.alarms[CORE_ALARM_DIGEST]);
	member_hear(&x, 3, (struct msg){.type = MSG_CLAIM, .ring = {1, 1}, .round = 1, .epoch = 9}, NULL);
	assert_int_equal(member_said(&x, MSG_PROMISE)->flags, MSG_DOUBTED);
	member_end(&x);
}

/* What it acknowledged in an epoch that it knew before it began, it does not know. */
static void a_learner_does_not_vouch_in_an_epoch_that_is_older_than_its_process(void **state)
{
	struct core_disk disk = {.history = HISTORY, .learner = true, .promised = 5, .promised_to = 1};
	struct member x;

	(void)state;
	for (uint64_t promised = 4; promised <= 5; promised++) {
		disk.promised = promised;
		member_begin(&x, &disk);
		member_view(&x, 1, 3, 3);
		member_follow(&x, 0, 0);
		assert_int_equal(x.written.n_append, 1);
		assert_int_equal(x.written.learner, promised == 5);
		member_end(&x);
	}
}

static void nobody_leads_with_a_majority_that_does_not_vouch(void **state)
{
	(void)state;
	assert_true(leads_with(MSG_GRANTED));
	assert_false(leads_with(MSG_GRANTED | MSG_LEARNER));
	assert_false(leads_with(0));
}

static void a_minoritys_tail_is_cut_off(void **state)
{
	struct entry **tail = xcalloc(2, sizeof(struct entry *));
	struct core_disk disk = {.history = HISTORY,
				 .promised = 3,
				 .promised_to = 2,
				 .applied = 4,
				 .applied_epoch = 2,
				 .tail = tail,
				 .n = 2};
	struct core_status s;
	struct member x;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		tail[i] = member_entry(3, ENTRY_COMMAND);
		tail[i]->index = 5 + i;
	}
	member_begin(&x, &disk);
	free(tail);
	member_view(&x, 1, 3, 3);
	member_follow(&x, 4, 2); /* in the place of entry 5 */
	core_status(x.core, &s);
	assert_int_equal(s.last, 5);
	assert_int_equal(x.written.cut_from, 5);
	assert_int_equal(x.written.n_append, 1);
	member_end(&x);
}

static void a_member_that_missed_entries_asks_for_them(void **state)
{
	struct member x;

	(void)state;
	member_begin(&x, &fresh_disk);
	member_view(&x, 1, 3, 3);
	member_follow(&x, 30, 4);
	assert_int_equal(member_said(&x, MSG_NEED)->to, 1);
	assert_int_equal(member_said(&x, MSG_NEED)->index, 0);
	member_hear(
		&x, 1,
		(struct msg){.type = MSG_SNAP_BEGIN, .to = SELF, .epoch = 5, .snapshot = 1, .size = 100, .index = 30},
		NULL);
	assert_int_equal(x.fetches, 1);
	assert_int_equal(member_said(&x, MSG_SNAP_GET)->size, 100);
	member_end(&x);
}

static void a_command_that_some_member_does_not_know_is_refused(void **state)
{
	struct entry *e = member_entry(5, ENTRY_COMMAND);
	struct member x;

	(void)state;
	member_begin(&x, &fresh_disk);
	member_view(&x, 1, 3, 3);
	member_hear(&x, 3, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1, .version = 2}, NULL);
	member_follow(&x, 0, 0);
	member_disk_done(&x);
	member_committed(&x, 1);
	member_disk_done(&x);
	assert_true(core_writable(x.core));
	assert_int_equal(member_propose(&x, 3), -1);
	assert_int_equal(x.why, CORE_REFUSED_VERSION);
	assert_int_equal(member_propose(&x, 2), 0);

	e->version = 4; /* all knew it when it was written, this build does not */
	member_hear(&x, 1, (struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = 1, .last_epoch = 5, .commit = 2},
		    e);
	assert_int_equal(x.written.n_append, 1);
	assert_int_equal(x.written.n_apply, 0);
	assert_true(x.alarms[CORE_ALARM_VERSION]);
	entry_unref(e);
	member_end(&x);
}

static void a_member_of_another_cluster_is_left_out_by_name(void **state)
{
	struct member x;

	(void)state;
	member_begin(&x, &fresh_disk);
	member_view(&x, 1, 2, 3);
	member_hear(&x, 1,
		    (struct msg){.type = MSG_SYNC,
				 .ring = {1, 1},
				 .round = 1,
				 .history = 78,
				 .last_epoch = 9,
				 .last_index = 900},
		    NULL);
	assert_true(x.alarms[CORE_ALARM_HISTORY]);
	member_hear(&x, 1,
		    (struct msg){
			    .type = MSG_CLAIM, .ring = {1, 1}, .round = 1, .history = 78, .epoch = 10, .last_epoch = 9},
		    NULL);
	assert_null(member_said(&x, MSG_PROMISE));
	assert_int_equal(x.written.promised, 0);
	member_end(&x);
}

static void a_digest_that_a_majority_contradicts_makes_a_member_fetch_the_state(void **state)
{
	struct msg check = {.type = MSG_CHECK, .epoch = 5, .index = 1, .chain = {1}};
	static const uint8_t mine[32] = {2}, none[32] = {0};
	struct core_status s;
	struct member x;

	(void)state;
	member_begin(&x, &fresh_disk);
	member_view(&x, 1, 3, 3);
	member_hear(&x, 3, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1, .version = 3}, NULL);
	member_follow(&x, 0, 0);
	member_disk_done(&x);
	member_committed(&x, 1);
	member_disk_done(&x);
	core_checked(x.core, 1, mine, none);
	member_flush(&x);
	member_echo(&x);
	member_hear(&x, 1, check, NULL);
	assert_false(x.alarms[CORE_ALARM_DIGEST]);
	member_hear(&x, 3, check, NULL);
	assert_true(x.alarms[CORE_ALARM_DIGEST]);
	assert_true(x.written.diverged);
	assert_true(member_said(&x, MSG_NEED)->flags & MSG_DIVERGED);
	core_status(x.core, &s);
	assert_int_equal(s.state, CORE_SYNCING);
	member_end(&x);
}

/* Host 3 gets a snapshot from nobody who has found out that its state is wrong: neither one that is ready nor one that
 * is being made. */
static void a_snapshot_of_a_state_that_is_wrong_is_not_given(void **state)
{
	struct msg need = {.type = MSG_NEED, .to = SELF, .epoch = 1, .index = 1};
	struct msg check = {.type = MSG_CHECK, .epoch = 1, .index = 10, .chain = {1}};
	static const uint8_t none[32] = {0};
	struct member x;

	(void)state;
	for (int ready = 0; ready < 2; ready++) {
		member_lead(&x);
		member_hear(&x, 3, need, NULL);
		if (ready) {
			core_snapshot_made(x.core, x.now, true, 4096, 10);
			assert_non_null(member_said(&x, MSG_SNAP_BEGIN));
		}
		core_checked(x.core, 10, none, none);
		member_flush(&x);
		member_echo(&x);
		member_hear(&x, 1, check, NULL);
		member_hear(&x, 3, check, NULL);
		assert_false(leading(&x));
		if (!ready)
			core_snapshot_made(x.core, x.now, true, 4096, 10);
		assert_int_equal(x.snapshot_drops, 1);
		assert_null(member_said(&x, MSG_SNAP_BEGIN));
		member_end(&x);
	}
}

static void a_leader_whose_disk_is_full_steps_down(void **state)
{
	struct core_status s;
	struct member x;

	(void)state;
	member_begin(&x, &fresh_disk);
	member_view(&x, 1, 1, 1);
	for (int i = 0; i < 6; i++) {
		member_echo(&x);
		member_disk_done(&x);
	}
	assert_true(core_writable(x.core));
	core_write_failed(x.core, x.now);
	member_flush(&x);
	assert_true(x.alarms[CORE_ALARM_DISK]);
	assert_int_equal(member_propose(&x, 1), -1);
	assert_int_equal(x.why, CORE_REFUSED_DISK);
	core_status(x.core, &s);
	assert_false(s.leading);
	member_end(&x);
}

static void bytes_that_are_no_message_change_nothing(void **state)
{
	struct member x;

	(void)state;
	member_begin(&x, &fresh_disk);
	member_view(&x, 1, 3, 3);
	member_forget_sent(&x);
	core_deliver(x.core, x.now, 1, (const uint8_t *)"not a message", 13);
	member_flush(&x);
	assert_int_equal(x.n_sent, 0);
	member_end(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_host_alone_acknowledges_what_its_disk_has),
		cmocka_unit_test(without_quorum_a_proposal_is_refused_at_once),
		cmocka_unit_test(a_ghost_costs_one_second),
		cmocka_unit_test(the_longest_log_claims_and_on_ties_whoever_has_the_token_first),
		cmocka_unit_test(a_promise_is_given_once_the_disk_has_it),
		cmocka_unit_test(a_claimant_with_an_older_log_is_refused),
		cmocka_unit_test(whoever_may_not_lead_stands_in_nobodys_way_and_vouches_for_what_the_claimant_has),
		cmocka_unit_test(nobody_leads_with_a_majority_that_does_not_vouch),
		cmocka_unit_test(nobody_leads_before_its_own_promise_is_on_its_disk),
		cmocka_unit_test(
			a_member_that_does_not_know_of_its_wrong_state_is_told_whatever_else_it_is_refused_for),
		cmocka_unit_test(a_learner_does_not_vouch_in_an_epoch_that_is_older_than_its_process),
		cmocka_unit_test(a_minoritys_tail_is_cut_off),
		cmocka_unit_test(a_member_that_missed_entries_asks_for_them),
		cmocka_unit_test(a_command_that_some_member_does_not_know_is_refused),
		cmocka_unit_test(a_member_of_another_cluster_is_left_out_by_name),
		cmocka_unit_test(a_digest_that_a_majority_contradicts_makes_a_member_fetch_the_state),
		cmocka_unit_test(a_snapshot_of_a_state_that_is_wrong_is_not_given),
		cmocka_unit_test(a_leader_whose_disk_is_full_steps_down),
		cmocka_unit_test(bytes_that_are_no_message_change_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
