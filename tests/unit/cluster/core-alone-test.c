/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol's core, one member at a time: one of two goes on alone. */
#include "tests/unit/cluster/core-world.h"

/* Host 1 leads epoch 5 of both, and its first entry is applied. @flags: what it says of itself. */
static void whole_with_host_1(struct member *x, uint8_t flags)
{
	struct entry *e = member_entry(5, ENTRY_EPOCH);

	member_begin(x, &fresh_disk);
	member_view(x, 1, 2, 2);
	member_hear(x, 1, (struct msg){.type = MSG_SYNC, .flags = flags, .ring = {1, 1}, .round = 1, .last_index = 1},
		    NULL);
	member_hear(x, 1, (struct msg){.type = MSG_ENTRIES, .flags = flags, .epoch = 5}, e);
	member_disk_done(x);
	member_hear(
		x, 1,
		(struct msg){
			.type = MSG_ENTRIES, .flags = flags, .epoch = 5, .last_index = 1, .last_epoch = 5, .commit = 1},
		NULL);
	member_disk_done(x);
	entry_unref(e);
}

/* Nobody else is here, and the third party has given its vote. The number for a proof. */
static uint64_t by_itself(struct member *x, uint64_t seq)
{
	struct bus_view v = {
		.ring = {2, seq}, .members = {SELF}, .n = 1, .expected = 2, .needed = 2, .service_quorate = true};
	struct core_status s;

	member_forget_sent(x);
	core_view(x->core, x->now, &v);
	member_flush(x);
	core_status(x->core, &s);
	return s.by_itself;
}

static void dead(struct member *x, uint64_t number)
{
	core_dead(x->core, 1, number);
	member_flush(x);
}

static void one_of_two_goes_on_alone_once_its_disk_says_so(void **state)
{
	struct core_status s;
	struct member x;

	(void)state;
	whole_with_host_1(&x, MSG_TWO);
	core_status(x.core, &s);
	assert_int_equal(s.whole, 1);
	dead(&x, by_itself(&x, 2));
	assert_true(x.written.alone);
	core_status(x.core, &s);
	assert_false(s.alone);
	assert_null(member_said(&x, MSG_CLAIM));
	for (int i = 0; i < 8; i++) {
		member_disk_done(&x);
		member_echo(&x);
	}
	core_status(x.core, &s);
	assert_true(s.alone && s.leading && core_writable(x.core));
	assert_int_equal(member_propose(&x, 1), 0);
	member_end(&x);
}

/* Whatever is missing, the mark is not taken. */
static void without_each_of_its_grounds_nobody_goes_on_alone(void **state)
{
	struct entry *e = member_entry(5, ENTRY_COMMAND);
	struct member x;
	uint64_t number;

	(void)state;
	whole_with_host_1(&x, MSG_TWO); /* no proof */
	by_itself(&x, 2);
	assert_false(x.written.alone);
	number = by_itself(&x, 3); /* one of before the other one was here again */
	member_view(&x, 4, 2, 2);
	by_itself(&x, 5);
	dead(&x, number);
	assert_false(x.written.alone);
	member_end(&x);
	whole_with_host_1(&x, 0); /* the other one does not count two hosts */
	dead(&x, by_itself(&x, 2));
	assert_false(x.written.alone);
	member_end(&x);
	whole_with_host_1(&x, MSG_TWO | MSG_ALONE); /* or is alone */
	dead(&x, by_itself(&x, 2));
	assert_false(x.written.alone);
	member_end(&x);
	whole_with_host_1(&x, MSG_TWO); /* the state has a third host that corosync does not know yet */
	x.hosts = 3;
	dead(&x, by_itself(&x, 2));
	assert_false(x.written.alone);
	member_end(&x);
	whole_with_host_1(&x, MSG_TWO); /* the log brings one */
	member_hear(&x, 1, (struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = 1, .last_epoch = 5}, e);
	x.hosts_change = 1;
	dead(&x, by_itself(&x, 2));
	assert_false(x.written.alone);
	member_end(&x);
	member_begin(&x, &fresh_disk); /* its process is a new one */
	dead(&x, by_itself(&x, 2));
	assert_false(x.written.alone);
	member_end(&x);
	entry_unref(e);
}

/* Its mark is on the disk, and it leads. */
static void alone(struct member *x)
{
	whole_with_host_1(x, MSG_TWO);
	dead(x, by_itself(x, 2));
	for (int i = 0; i < 8; i++) {
		member_disk_done(x);
		member_echo(x);
	}
	assert_true(core_writable(x->core));
}

static void what_comes_late_past_the_order_is_no_sign_of_life(void **state)
{
	struct core_status s;
	struct member x;
	uint64_t number;

	(void)state;
	whole_with_host_1(&x, MSG_TWO);
	number = by_itself(&x, 2);
	assert_true(number > 0);
	member_hear_direct(&x, 1, (struct msg){.type = MSG_ACK, .epoch = 5, .index = 1});
	core_status(x.core, &s);
	assert_int_equal(s.by_itself, number);
	member_end(&x);
}

static void while_one_of_two_is_alone_nobody_joins(void **state)
{
	struct entry *e = member_entry(0, ENTRY_COMMAND);
	struct core_status s;
	struct member x;

	(void)state;
	alone(&x);
	core_status(x.core, &s);
	x.hosts_change = 1;
	assert_int_equal(member_propose(&x, 1), 0);
	assert_int_equal(x.refused, 1);
	assert_int_equal(x.why, CORE_REFUSED_ALONE);
	member_hear(&x, 1, (struct msg){.type = MSG_PROPOSE, .epoch = s.epoch}, e);
	assert_non_null(member_said(&x, MSG_REFUSE));
	assert_int_equal(member_said(&x, MSG_REFUSE)->to, 1);
	x.hosts_change = -1; /* the other one may be removed */
	member_forget_sent(&x);
	assert_int_equal(member_propose(&x, 1), 0);
	assert_int_equal(x.refused, 1);
	assert_non_null(member_said(&x, MSG_ENTRIES));
	member_end(&x);
	entry_unref(e);
}

static void one_whose_other_was_removed_is_alone_no_more(void **state)
{
	struct core_status s;
	struct member x;

	(void)state;
	alone(&x);
	member_view(&x, 3, 1, 1); /* corosync knows it before the state does */
	member_disk_done(&x);
	core_status(x.core, &s);
	assert_true(s.alone);
	x.hosts = 1;
	for (int i = 0; i < 8; i++) {
		member_disk_done(&x);
		member_echo(&x);
	}
	core_status(x.core, &s);
	assert_false(s.alone);
	assert_false(x.written.alone);
	assert_true(core_writable(x.core));
	member_end(&x);
}

static void two_that_are_alone_refuse_each_other(void **state)
{
	struct core_disk disk = {.history = HISTORY, .alone = true};
	struct member x;

	(void)state;
	member_begin(&x, &disk);
	by_itself(&x, 1);
	for (int i = 0; i < 8; i++) {
		member_echo(&x);
		member_disk_done(&x);
	}
	assert_true(core_writable(x.core)); /* a restart asks nobody */
	member_hear(&x, 1, (struct msg){.type = MSG_CLAIM, .flags = MSG_ALONE, .ring = {2, 1}, .round = 1, .epoch = 9},
		    NULL);
	assert_true(x.alarms[CORE_ALARM_ALONE]);
	assert_false(core_writable(x.core));
	member_end(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_of_two_goes_on_alone_once_its_disk_says_so),
		cmocka_unit_test(without_each_of_its_grounds_nobody_goes_on_alone),
		cmocka_unit_test(what_comes_late_past_the_order_is_no_sign_of_life),
		cmocka_unit_test(while_one_of_two_is_alone_nobody_joins),
		cmocka_unit_test(one_whose_other_was_removed_is_alone_no_more),
		cmocka_unit_test(two_that_are_alone_refuse_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
