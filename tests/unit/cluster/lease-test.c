/* SPDX-License-Identifier: Apache-2.0 */
/* Leases: whom an echo serves, what a silence proves, and what neither does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cluster/lease.h"

#define MS NS_PER_MS
#define START (1000 * NS_PER_S)
#define MAX 6

/* Hosts 1 to MAX, all with the same clock. What one sends is kept until it is handed on. */
struct world {
	int64_t now;
	struct timing t;
	struct lease *l[MAX + 1];
	uint64_t lives;
	uint8_t said[MAX + 1][BEAT_SIZE_MAX];
	size_t size[MAX + 1];
};

static void start(struct world *w, uint32_t id)
{
	struct lease_options o = {.self = id, .incarnation = ++w->lives, .timing = w->t};

	lease_free(w->l[id]);
	w->l[id] = lease_new(&o, w->now);
}

/* Give @id a view of @members out of @configured; both are strings of digits. */
static void view(struct world *w, uint32_t id, const char *members, const char *configured)
{
	struct bus_view v = {.n = strlen(members), .expected = (unsigned)strlen(configured)};

	for (size_t i = 0; i < v.n; i++)
		v.members[i] = (uint32_t)(members[i] - '0');
	for (size_t i = 0; i < v.expected; i++)
		v.configured[i] = (uint32_t)(configured[i] - '0');
	v.needed = v.expected / 2 + 1;
	v.quorate = v.n >= v.needed;
	lease_view(w->l[id], w->now, &v);
}

static void begin(struct world *w, const char *hosts)
{
	*w = (struct world){.now = START};
	timing_make(1000, &w->t);
	for (const char *h = hosts; *h; h++)
		start(w, (uint32_t)(*h - '0'));
	for (const char *h = hosts; *h; h++)
		view(w, (uint32_t)(*h - '0'), hosts, hosts);
}

static void end(struct world *w)
{
	for (int i = 1; i <= MAX; i++)
		lease_free(w->l[i]);
}

static void wait(struct world *w, int64_t ns)
{
	w->now += ns;
}

/* @from makes its beat, which is due. */
static void say(struct world *w, uint32_t from)
{
	w->size[from] = lease_beat(w->l[from], w->now, w->said[from]);
	assert_true(w->size[from] > 0);
}

static void hear(struct world *w, uint32_t to, uint32_t from)
{
	struct err e = ERR_INIT;

	if (lease_heard(w->l[to], w->now, from, w->said[from], w->size[from], &e) < 0)
		fail_msg("%s", e.text);
}

/* All of @hosts beat in turn for so long, and all of them hear it at once. */
static void run(struct world *w, const char *hosts, int64_t ns)
{
	int64_t until = w->now + ns;

	while (w->now < until) {
		wait(w, w->t.beat_ns);
		for (const char *f = hosts; *f; f++)
			say(w, (uint32_t)(*f - '0'));
		for (const char *f = hosts; *f; f++)
			for (const char *to = hosts; *to; to++)
				hear(w, (uint32_t)(*to - '0'), (uint32_t)(*f - '0'));
	}
}

static void a_lease_counts_from_the_sending_of_the_beat_that_a_majority_has_echoed(void **state)
{
	struct world w;
	int64_t sent;

	(void)state;
	begin(&w, "12345");
	say(&w, 1);
	sent = w.now;
	wait(&w, 100 * MS);
	for (uint32_t to = 2; to <= 3; to++)
		hear(&w, to, 1);
	say(&w, 2);
	hear(&w, 1, 2);
	assert_int_equal(lease_until(w.l[1]), 0); /* two of five */
	wait(&w, 100 * MS);
	say(&w, 3);
	wait(&w, 100 * MS);
	hear(&w, 1, 3);
	assert_int_equal(lease_until(w.l[1]), sent + w.t.lease_ns);
	hear(&w, 1, 3); /* again: nothing new */
	hear(&w, 1, 1);
	assert_int_equal(lease_until(w.l[1]), sent + w.t.lease_ns);
	end(&w);
}

static void two_echoes_of_the_same_host_are_one(void **state)
{
	struct world w;

	(void)state;
	begin(&w, "12345");
	for (int i = 0; i < 3; i++) {
		wait(&w, w.t.beat_ns);
		say(&w, 1);
		hear(&w, 2, 1);
		say(&w, 2);
		hear(&w, 1, 2);
	}
	assert_int_equal(lease_until(w.l[1]), 0);
	end(&w);
}

static void a_new_daemon_has_nothing_of_the_echoes_of_its_predecessor(void **state)
{
	struct world w;

	(void)state;
	begin(&w, "123");
	say(&w, 1);
	hear(&w, 2, 1);
	say(&w, 2);
	start(&w, 1);
	view(&w, 1, "123", "123");
	say(&w, 1);
	hear(&w, 1, 2);
	assert_int_equal(lease_until(w.l[1]), 0);
	wait(&w, w.t.beat_ns);
	hear(&w, 2, 1);
	say(&w, 2);
	hear(&w, 1, 2);
	assert_int_equal(lease_until(w.l[1]), w.now - w.t.beat_ns + w.t.lease_ns);
	end(&w);
}

static void without_quorum_a_lease_is_not_extended_and_no_beat_is_sent(void **state)
{
	struct world w;
	int64_t until;

	(void)state;
	begin(&w, "123");
	run(&w, "123", NS_PER_S);
	until = lease_until(w.l[1]);
	wait(&w, w.t.beat_ns);
	say(&w, 1);
	hear(&w, 2, 1);
	say(&w, 2);
	view(&w, 1, "1", "123");
	hear(&w, 1, 2);
	assert_int_equal(lease_until(w.l[1]), until);
	wait(&w, w.t.beat_ns);
	assert_int_equal(lease_due(w.l[1]), -1);
	assert_int_equal(lease_beat(w.l[1], w.now, w.said[1]), 0);
	end(&w);
}

static void a_late_beat_and_one_that_overtook_change_nothing(void **state)
{
	uint8_t old[BEAT_SIZE_MAX];
	struct world w;
	int64_t until;
	size_t size;

	(void)state;
	begin(&w, "123");
	run(&w, "123", NS_PER_S);
	memcpy(old, w.said[2], sizeof(old));
	size = w.size[2];
	run(&w, "123", NS_PER_S);
	until = lease_until(w.l[1]);
	assert_int_equal(lease_heard(w.l[1], w.now, 2, old, size, NULL), 0);
	assert_int_equal(lease_until(w.l[1]), until);
	end(&w);
}

static void a_host_is_dead_once_a_majority_heard_nothing_of_it_for_long_enough(void **state)
{
	struct world w;
	int64_t since;

	(void)state;
	begin(&w, "123");
	run(&w, "123", NS_PER_S);
	since = w.now;
	assert_int_equal(lease_gone_since(w.l[1], 3), -1);
	assert_true(lease_dead_at(w.l[1], 3, &w.t) <= since + w.t.expire_ns);
	wait(&w, 100 * MS);
	view(&w, 1, "12", "123");
	view(&w, 2, "12", "123");
	assert_int_equal(lease_gone_since(w.l[1], 3), w.now);
	run(&w, "12", since + w.t.expire_ns - w.now - w.t.beat_ns);
	assert_int_equal(lease_dead_upto(w.l[1], w.now, 3, &w.t), -1);
	/* Ages are told in milliseconds, and the clock of 2 may be the slower one. */
	assert_in_range(lease_dead_at(w.l[1], 3, &w.t), since + w.t.expire_ns, since + w.t.expire_ns + 2 * MS);
	run(&w, "12", 3 * w.t.beat_ns);
	assert_true(lease_dead_upto(w.l[1], w.now, 3, &w.t) >= since + w.t.expire_ns);
	assert_true(lease_until(w.l[3]) + w.t.watchdog_ns < lease_dead_upto(w.l[1], w.now, 3, &w.t));
	/* Longer times of that host: not yet. */
	w.t.expire_ns *= 2;
	assert_int_equal(lease_dead_upto(w.l[1], w.now, 3, &w.t), -1);
	w.t.expire_ns /= 2;
	/* Heard again: the proof is over. */
	view(&w, 3, "123", "123");
	wait(&w, w.t.beat_ns);
	say(&w, 3);
	hear(&w, 1, 3);
	assert_int_equal(lease_dead_upto(w.l[1], w.now, 3, &w.t), -1);
	end(&w);
}

static void one_host_that_still_hears_it_is_enough_to_keep_it_alive(void **state)
{
	struct world w;

	(void)state;
	begin(&w, "123");
	run(&w, "123", NS_PER_S);
	view(&w, 1, "12", "123");
	for (int i = 0; i < 60; i++) { /* 3 reaches 2 only */
		wait(&w, w.t.beat_ns);
		say(&w, 3);
		hear(&w, 2, 3);
		say(&w, 2);
		hear(&w, 1, 2);
		hear(&w, 3, 2);
		say(&w, 1);
		hear(&w, 2, 1);
	}
	assert_true(lease_until(w.l[3]) > w.now);
	assert_int_equal(lease_dead_upto(w.l[1], w.now, 3, &w.t), -1);
	end(&w);
}

static void one_host_alone_proves_nothing(void **state)
{
	struct world w;

	(void)state;
	begin(&w, "123");
	run(&w, "123", NS_PER_S);
	wait(&w, NS_PER_S * 100);
	assert_int_equal(lease_dead_upto(w.l[1], w.now, 3, &w.t), -1);
	end(&w);
}

static void a_host_that_slept_proves_nothing_about_the_time_after_its_last_word_from_others(void **state)
{
	struct world w;
	int64_t asleep;

	(void)state;
	begin(&w, "123");
	run(&w, "123", NS_PER_S);
	run(&w, "12", 5 * NS_PER_S);
	asleep = w.now;
	wait(&w, 100 * NS_PER_S); /* meanwhile 3 may be back with 2 */
	assert_int_equal(lease_dead_upto(w.l[1], w.now, 3, &w.t), -1);
	w.t.expire_ns = NS_PER_S;
	assert_true(lease_dead_upto(w.l[1], w.now, 3, &w.t) <= asleep);
	end(&w);
}

static void a_host_that_has_just_started_counts_silence_from_its_start(void **state)
{
	struct world w;
	int64_t restarted;

	(void)state;
	begin(&w, "123");
	run(&w, "123", NS_PER_S);
	run(&w, "12", 5 * NS_PER_S);
	start(&w, 2);
	view(&w, 2, "12", "123");
	restarted = w.now;
	assert_int_equal(lease_gone_since(w.l[2], 3), restarted);
	run(&w, "12", w.t.expire_ns - NS_PER_S);
	assert_int_equal(lease_dead_upto(w.l[2], w.now, 3, &w.t), -1);
	run(&w, "12", 2 * NS_PER_S);
	assert_true(lease_dead_upto(w.l[2], w.now, 3, &w.t) >= restarted + w.t.expire_ns);
	/* What 2 stated before its restart and after it does not meet: the gap may have held an echo. */
	assert_true(lease_dead_upto(w.l[1], w.now, 3, &w.t) >= restarted + w.t.expire_ns);
	end(&w);
}

static void a_lease_by_an_old_list_of_hosts_needs_the_majority_of_the_new_one_too(void **state)
{
	struct world w;
	int64_t until;

	(void)state;
	begin(&w, "123");
	run(&w, "123", NS_PER_S);
	assert_true(lease_settled(w.l[1]));
	until = lease_until(w.l[1]);
	/* 2 counts with five; 1 has not been told. One echo of 2 was enough before. */
	view(&w, 2, "12345", "12345");
	wait(&w, w.t.beat_ns);
	for (int i = 0; i < 4; i++) {
		wait(&w, w.t.beat_ns);
		say(&w, 1);
		hear(&w, 2, 1);
		say(&w, 2);
		hear(&w, 1, 2);
	}
	assert_int_equal(lease_until(w.l[1]), until);
	assert_false(lease_settled(w.l[2]));
	/* With 3, which also counts with three, there are two of three for 1 and 3, but 2 is not needed for that. */
	wait(&w, w.t.beat_ns);
	say(&w, 1);
	hear(&w, 3, 1);
	say(&w, 3);
	hear(&w, 1, 3);
	assert_int_equal(lease_until(w.l[1]), w.now + w.t.lease_ns);
	end(&w);
}

static void a_new_list_of_hosts_begins_every_silence_anew(void **state)
{
	struct world w;
	int64_t taken;

	(void)state;
	begin(&w, "123");
	run(&w, "123", NS_PER_S);
	run(&w, "12", w.t.expire_ns);
	start(&w, 4);
	taken = w.now;
	for (uint32_t i = 1; i <= 4; i++)
		if (i != 3)
			view(&w, i, "124", "1234");
	assert_int_equal(lease_dead_upto(w.l[1], w.now, 3, &w.t), -1);
	run(&w, "124", w.t.expire_ns - NS_PER_S);
	assert_int_equal(lease_dead_upto(w.l[1], w.now, 3, &w.t), -1);
	assert_true(lease_gone_since(w.l[1], 3) < taken + NS_PER_S);
	run(&w, "124", 2 * NS_PER_S);
	assert_true(lease_dead_upto(w.l[1], w.now, 3, &w.t) >= taken + w.t.expire_ns);
	assert_true(lease_settled(w.l[1]));
	end(&w);
}

static void two_hosts_need_each_other_unless_the_state_says_that_quorum_is_enough(void **state)
{
	struct world w;
	struct bus_view v = {.n = 1, .members = {1}, .expected = 2, .configured = {1, 2}, .needed = 2, .quorate = true};

	(void)state;
	begin(&w, "12");
	run(&w, "12", NS_PER_S);
	assert_true(lease_until(w.l[1]) > w.now);
	lease_view(w.l[1], w.now, &v); /* two_node, or a quorum device */
	wait(&w, 10 * NS_PER_S);
	say(&w, 1);
	assert_true(lease_until(w.l[1]) < w.now);
	lease_alone(w.l[1], true);
	wait(&w, w.t.beat_ns);
	say(&w, 1);
	assert_int_equal(lease_until(w.l[1]), w.now + w.t.lease_ns);
	assert_int_equal(lease_dead_upto(w.l[1], w.now, 2, &w.t), -1);
	assert_int_equal(lease_dead_at(w.l[1], 2, &w.t), -1);
	v.quorate = false;
	lease_view(w.l[1], w.now, &v);
	wait(&w, w.t.lease_ns);
	assert_int_equal(lease_beat(w.l[1], w.now, w.said[1]), 0);
	assert_true(lease_until(w.l[1]) <= w.now);
	end(&w);
}

static void a_single_host_has_its_lease_for_ever_until_there_is_another(void **state)
{
	struct world w;

	(void)state;
	begin(&w, "1");
	assert_int_equal(lease_until(w.l[1]), LEASE_FOREVER);
	assert_int_equal(lease_due(w.l[1]), -1);
	wait(&w, NS_PER_S);
	view(&w, 1, "1", "12");
	assert_int_equal(lease_until(w.l[1]), w.now + w.t.lease_ns);
	end(&w);
}

static void a_host_that_was_suspended_finds_its_lease_over(void **state)
{
	struct world w;

	(void)state;
	begin(&w, "123");
	run(&w, "123", NS_PER_S);
	wait(&w, w.t.beat_ns);
	say(&w, 2);
	wait(&w, 100 * NS_PER_S); /* CLOCK_BOOTTIME goes on */
	hear(&w, 1, 2);
	assert_true(lease_until(w.l[1]) < w.now);
	end(&w);
}

static void strangers_and_nonsense_are_not_heard(void **state)
{
	struct world w;
	uint8_t none[BEAT_SIZE_MAX] = {0};
	struct err e = ERR_INIT;

	(void)state;
	begin(&w, "123");
	say(&w, 1);
	hear(&w, 2, 1);
	say(&w, 2);
	assert_int_equal(lease_heard(w.l[1], w.now, 9, w.said[2], w.size[2], &e), 0);
	assert_int_equal(lease_until(w.l[1]), 0);
	assert_int_equal(lease_heard(w.l[1], w.now, 2, none, sizeof(none), &e), -1);
	assert_int_equal(e.code, ERR_PROTOCOL);
	assert_int_equal(lease_dead_at(w.l[1], 9, &w.t), -1);
	assert_int_equal(lease_dead_at(w.l[1], 1, &w.t), -1);
	end(&w);
}

static void a_view_brings_a_beat_at_once_but_not_a_shower(void **state)
{
	struct world w;

	(void)state;
	begin(&w, "123");
	say(&w, 1);
	assert_int_equal(lease_due(w.l[1]), w.now + w.t.beat_ns);
	wait(&w, w.t.beat_ns / 2);
	view(&w, 1, "12", "123");
	say(&w, 1);
	view(&w, 1, "123", "123");
	assert_int_equal(lease_due(w.l[1]), w.now + w.t.beat_ns / 8);
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lease_counts_from_the_sending_of_the_beat_that_a_majority_has_echoed),
		cmocka_unit_test(two_echoes_of_the_same_host_are_one),
		cmocka_unit_test(a_new_daemon_has_nothing_of_the_echoes_of_its_predecessor),
		cmocka_unit_test(without_quorum_a_lease_is_not_extended_and_no_beat_is_sent),
		cmocka_unit_test(a_late_beat_and_one_that_overtook_change_nothing),
		cmocka_unit_test(a_host_is_dead_once_a_majority_heard_nothing_of_it_for_long_enough),
		cmocka_unit_test(one_host_that_still_hears_it_is_enough_to_keep_it_alive),
		cmocka_unit_test(one_host_alone_proves_nothing),
		cmocka_unit_test(a_host_that_slept_proves_nothing_about_the_time_after_its_last_word_from_others),
		cmocka_unit_test(a_host_that_has_just_started_counts_silence_from_its_start),
		cmocka_unit_test(a_lease_by_an_old_list_of_hosts_needs_the_majority_of_the_new_one_too),
		cmocka_unit_test(a_new_list_of_hosts_begins_every_silence_anew),
		cmocka_unit_test(two_hosts_need_each_other_unless_the_state_says_that_quorum_is_enough),
		cmocka_unit_test(a_single_host_has_its_lease_for_ever_until_there_is_another),
		cmocka_unit_test(a_host_that_was_suspended_finds_its_lease_over),
		cmocka_unit_test(strangers_and_nonsense_are_not_heard),
		cmocka_unit_test(a_view_brings_a_beat_at_once_but_not_a_shower),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
