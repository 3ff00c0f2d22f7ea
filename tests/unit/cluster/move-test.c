/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of a move's steps and of the rule for every death: all combinations, each against the worlds that fit what is
 * known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/move.h"

/* ---- steps ---- */

static void a_good_move_takes_its_steps_in_order_and_each_by_who_does_the_work(void **state)
{
	static const struct {
		enum move_step to;
		enum move_role role;
	} path[] = {
		{MOVE_CHECKING, MOVE_MANAGER}, {MOVE_PREPARING, MOVE_SRC},   {MOVE_COPYING, MOVE_DST},
		{MOVE_AGREED, MOVE_SRC},       {MOVE_HANDED_OVER, MOVE_SRC}, {MOVE_COMMITTED, MOVE_DST},
		{MOVE_CLEANING, MOVE_SRC},     {MOVE_DONE, MOVE_SRC},
	};
	enum move_step at = MOVE_QUEUED;
	struct err e = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(path); at = path[i++].to)
		assert_int_equal(move_step_check(at, path[i].to, path[i].role, &e), 0);
	assert_true(move_step_ended(at));
}

static void no_step_follows_an_end_and_no_step_goes_back(void **state)
{
	(void)state;
	for (int from = 0; from < MOVE_STEP_MAX; from++)
		for (int to = 0; to < MOVE_STEP_MAX; to++)
			for (int role = 0; role < MOVE_ROLE_MAX; role++) {
				if (move_step_check((enum move_step)from, (enum move_step)to, (enum move_role)role,
						    NULL))
					continue;
				assert_false(move_step_ended((enum move_step)from));
				assert_int_not_equal(from, to);
				assert_true(to > from || from == MOVE_UNDECIDED);
				/* What the destination owns stays its own, and what it may own is never cancelled. */
				if (move_step_dst_owns((enum move_step)from))
					assert_true(move_step_dst_owns((enum move_step)to));
				if (move_step_may_hang((enum move_step)from))
					assert_int_not_equal(to, MOVE_CANCELLED);
				/* Only the source lets go of the guest. */
				if (to == MOVE_AGREED || to == MOVE_HANDED_OVER)
					assert_int_equal(role, MOVE_SRC);
				/* The source never says that the destination runs it. */
				if (to == MOVE_COMMITTED)
					assert_int_not_equal(role, MOVE_SRC);
			}
}

static void every_step_but_an_end_has_a_way_to_an_end(void **state)
{
	bool ends[MOVE_STEP_MAX] = {[MOVE_DONE] = true, [MOVE_FAILED] = true, [MOVE_CANCELLED] = true};

	(void)state;
	for (int round = 0; round < MOVE_STEP_MAX; round++)
		for (int from = 0; from < MOVE_STEP_MAX; from++)
			for (int to = 0; to < MOVE_STEP_MAX; to++)
				if (ends[to] &&
				    !move_step_check((enum move_step)from, (enum move_step)to, MOVE_MANAGER, NULL))
					ends[from] = true;
	/* The manager alone cannot take these further, and need not: the sides do, or it goes to failed. */
	for (int s = 0; s < MOVE_STEP_MAX; s++)
		assert_true(ends[s]);
}

static void a_step_that_does_not_follow_and_one_of_another_side_are_told_apart(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(move_step_check(MOVE_QUEUED, MOVE_COMMITTED, MOVE_DST, &e), -1);
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_string_equal(e.text, "is queued; committed does not follow that");
	assert_int_equal(move_step_check(MOVE_COPYING, MOVE_AGREED, MOVE_DST, &e), -1);
	assert_int_equal(e.code, ERR_FORBIDDEN);
	assert_string_equal(e.text, "is copying; the dst may not take it to agreed");
	assert_int_equal(move_step_check(MOVE_STEP_MAX, MOVE_AGREED, MOVE_DST, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
}

static void names_are_found_again(void **state)
{
	(void)state;
	for (int s = 0; s < MOVE_STEP_MAX; s++)
		assert_int_equal(move_step_find(move_step_names[s]), s);
	for (int r = 0; r < MOVE_ROLE_MAX; r++)
		assert_int_equal(move_role_find(move_role_names[r]), r);
	assert_int_equal(move_step_find("gone"), MOVE_STEP_MAX);
	assert_null(move_step_names[MOVE_STEP_MAX]);
	assert_null(move_role_names[MOVE_ROLE_MAX]);
}

static void owner_and_epoch_must_fit_the_step(void **state)
{
	static const struct {
		struct move_facts f;
		bool good;
	} rows[] = {
		{{MOVE_QUEUED, true, false, 7, 7}, true},     {{MOVE_COPYING, true, false, 7, 7}, true},
		{{MOVE_AGREED, true, false, 7, 7}, true},     {{MOVE_UNDECIDED, true, false, 7, 7}, true},
		{{MOVE_COMMITTED, false, true, 7, 8}, true},  {{MOVE_CLEANING, false, true, 7, 8}, true},
		{{MOVE_CLEANING, false, false, 7, 9}, true},  {{MOVE_DONE, false, true, 7, 8}, true},
		{{MOVE_FAILED, true, false, 7, 7}, true},     {{MOVE_CANCELLED, true, false, 7, 7}, true},
		{{MOVE_COPYING, false, true, 7, 7}, false},   {{MOVE_COPYING, true, false, 7, 8}, false},
		{{MOVE_AGREED, false, false, 7, 7}, false},   {{MOVE_COMMITTED, true, false, 7, 8}, false},
		{{MOVE_COMMITTED, false, true, 7, 7}, false}, {{MOVE_COMMITTED, false, true, 7, 9}, false},
		{{MOVE_DONE, false, true, 7, 7}, false},      {{MOVE_FAILED, false, true, 7, 8}, false},
	};
	struct err e = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_int_equal(move_invariant(&rows[i].f, &e), rows[i].good ? 0 : -1);
}

/* ---- deaths: every combination against every world ---- */

/* What may be true while the manager knows a view only. */
struct truth {
	bool go_left;  /* the source has written down that it sends GO: from there on it holds the guest still */
	bool go_got;   /* the destination has received it, so it runs the guest or has run it */
	bool promised; /* the destination has said that it never will, to the source or to the manager */
};

/* Whether @t can be so, as far as @v tells. */
static bool world_possible(const struct move_view *v, const struct truth *t)
{
	bool before = v->step < MOVE_AGREED;
	bool kept = v->step == MOVE_FAILED || v->step == MOVE_CANCELLED;

	if ((t->go_got && !t->go_left) || (t->go_got && t->promised))
		return false;
	if (before && (t->go_left || t->promised))
		return false;
	if (v->step == MOVE_HANDED_OVER && !t->go_left)
		return false;
	if (move_step_dst_owns(v->step) && !t->go_got)
		return false;
	if (kept && t->go_got)
		return false;
	/* A YES of the source is its record, which is written before GO leaves: it does not run the guest then. */
	if (v->go_sent != MOVE_NOT_ASKED && t->go_left != (v->go_sent == MOVE_YES))
		return false;
	if (v->go_received == MOVE_YES && !t->go_got)
		return false;
	/* A promise to the source alone may not have been heard of yet. */
	return v->go_received != MOVE_NO || t->promised;
}

/* The source's guest may run: it is not dead, and GO was not sent, or was promised away, as it may know by itself. */
static bool src_may_run(const struct move_view *v, const struct truth *t)
{
	return v->src != MOVE_FENCED && (!t->go_left || t->promised);
}

static bool dst_may_run(const struct move_view *v, const struct truth *t)
{
	return v->dst != MOVE_FENCED && !t->promised && (t->go_got || t->go_left);
}

/* What a decision may never do, in one world. */
static void decision_is_safe_in(const struct move_view *v, const struct truth *t, enum move_decision d)
{
	switch (d) {
	case MOVE_SRC_GOES_ON:
		assert_int_equal(v->src, MOVE_ALIVE);
		assert_false(dst_may_run(v, t));
		assert_false(t->go_got); /* it never ran there: the disks are as the source's memory knows them */
		break;
	case MOVE_DST_RUNS:
		assert_int_equal(v->dst, MOVE_ALIVE);
		assert_false(src_may_run(v, t));
		assert_true(t->go_got); /* so the source has not gone on since */
		break;
	case MOVE_HA_RESTARTS:
		/* Out of reach, it reads the row when it is back: it must stand still until then. */
		assert_true(v->src != MOVE_UNKNOWN || t->go_got);
		/* A living source stays the owner and does it itself, so it may even run: with memory that the
		 * destination has promised never to have touched. */
		assert_true(!src_may_run(v, t) || t->promised);
		assert_false(dst_may_run(v, t) && t->go_got);
		/* GO that is still on its way must not start it later. */
		assert_true(v->dst == MOVE_FENCED || t->promised || v->step < MOVE_AGREED);
		break;
	default:
		break;
	}
}

static const enum move_life lives[] = {MOVE_ALIVE, MOVE_FENCED, MOVE_UNKNOWN};

/* Call @fn with every view there is, except answers that contradict the step. */
static unsigned each_view(void (*fn)(const struct move_view *v))
{
	unsigned n = 0;

	for (int step = 0; step < MOVE_STEP_MAX; step++)
		for (unsigned k = 0; k < 3 * 3 * 3 * 3 * 2 * 2; k++) {
			struct move_view v = {.step = (enum move_step)step,
					      .src = lives[k % 3],
					      .dst = lives[k / 3 % 3],
					      .go_sent = (enum move_answer)(k / 9 % 3),
					      .go_received = (enum move_answer)(k / 27 % 3),
					      .stuck = k / 81 % 2,
					      .cancel = k / 162 % 2};
			bool possible = false;

			for (int w = 0; w < 8; w++)
				possible |= world_possible(&v, &(struct truth){w & 1, w & 2, w & 4});
			if (possible)
				fn(&v), n++;
		}
	return n;
}

static void check_safety(const struct move_view *v)
{
	struct move_resolution r = move_resolve(v);

	/* An end is an end: whoever has the guest then is the business of HA, which asks by owner and epoch. */
	if (move_step_ended(v->step) || move_step_dst_owns(v->step))
		return;
	for (int w = 0; w < 8; w++) {
		struct truth t = {w & 1, w & 2, w & 4};

		if (world_possible(v, &t))
			decision_is_safe_in(v, &t, r.decision);
	}
}

static void in_no_world_does_a_decision_make_two_owners_or_resume_old_memory(void **state)
{
	(void)state;
	assert_true(each_view(check_safety) > 1500);
}

static void check_memory_is_not_thrown_away(const struct move_view *v)
{
	bool may_be_old = false;

	if (move_resolve(v).decision != MOVE_HA_RESTARTS || v->src != MOVE_ALIVE || move_step_dst_owns(v->step))
		return;
	for (int w = 0; w < 8; w++) {
		struct truth t = {w & 1, w & 2, w & 4};

		may_be_old |= world_possible(v, &t) && t.go_got;
	}
	assert_true(may_be_old);
	assert_int_equal(v->dst, MOVE_FENCED);
	assert_true(v->go_sent == MOVE_YES || v->go_received == MOVE_YES || v->step == MOVE_HANDED_OVER);
}

static void a_living_source_gives_its_memory_up_only_where_the_disks_may_be_newer(void **state)
{
	(void)state;
	each_view(check_memory_is_not_thrown_away);
}

static void a_living_source_that_has_to_give_its_memory_up_is_told_by_the_row(void **state)
{
	struct move_view v = {.step = MOVE_AGREED,
			      .src = MOVE_ALIVE,
			      .dst = MOVE_FENCED,
			      .go_sent = MOVE_NOT_ASKED,
			      .go_received = MOVE_NOT_ASKED};

	(void)state;
	assert_int_equal(move_next(&v).ask, MOVE_ASK_SRC);
	assert_int_equal(move_next(&v).propose, MOVE_STEP_MAX);
	v.go_sent = MOVE_NO;
	assert_int_equal(move_next(&v).propose, MOVE_FAILED);
	assert_false(move_next(&v).restart);
	v.go_sent = MOVE_YES;
	assert_int_equal(move_next(&v).propose, MOVE_FAILED);
	assert_true(move_next(&v).restart);
	/* Out of reach it can be neither asked nor told. */
	v.src = MOVE_UNKNOWN;
	v.go_sent = MOVE_NOT_ASKED;
	assert_int_equal(move_next(&v).propose, MOVE_UNDECIDED);
	assert_false(move_next(&v).restart);
}

static void check_reason(const struct move_view *v)
{
	struct move_resolution r = move_resolve(v);

	assert_true(r.why && strlen(r.why) > 10);
	/* Nobody: only because somebody is out of reach. */
	if (r.decision == MOVE_NOBODY)
		assert_true(v->src == MOVE_UNKNOWN || v->dst == MOVE_UNKNOWN);
	/* Waiting: for the move itself, or for an answer that is missing and that a living side can give. */
	if (r.decision != MOVE_WAIT) {
		assert_int_equal(r.ask, 0);
	} else if (r.ask == 0) {
		assert_false(v->stuck);
		assert_int_equal(v->src, MOVE_ALIVE);
	}
	if (r.ask & MOVE_ASK_SRC)
		assert_true(v->src == MOVE_ALIVE && v->go_sent == MOVE_NOT_ASKED);
	if (r.ask & MOVE_ASK_DST)
		assert_true(v->dst == MOVE_ALIVE && v->go_received == MOVE_NOT_ASKED);
}

static void nobody_and_waiting_always_have_their_reason(void **state)
{
	(void)state;
	each_view(check_reason);
}

static void check_answers_settle_it(const struct move_view *v)
{
	struct move_resolution r = move_resolve(v);

	if (r.decision != MOVE_WAIT || r.ask == 0)
		return;
	for (int answer = MOVE_NO; answer <= MOVE_YES; answer++) {
		struct move_view next = *v;

		if (r.ask & MOVE_ASK_SRC)
			next.go_sent = (enum move_answer)answer;
		if (r.ask & MOVE_ASK_DST)
			next.go_received = (enum move_answer)answer;
		assert_int_not_equal(move_resolve(&next).decision, MOVE_WAIT);
	}
}

static void one_answer_is_enough_whatever_it_is(void **state)
{
	(void)state;
	each_view(check_answers_settle_it);
}

static void check_settles_when_all_is_known(const struct move_view *v)
{
	enum move_decision d = move_resolve(v).decision;

	if (v->src == MOVE_UNKNOWN || v->dst == MOVE_UNKNOWN || v->go_sent == MOVE_NOT_ASKED ||
	    v->go_received == MOVE_NOT_ASKED)
		return;
	if (v->stuck || v->src == MOVE_FENCED || v->dst == MOVE_FENCED)
		assert_true(d == MOVE_SRC_GOES_ON || d == MOVE_DST_RUNS || d == MOVE_HA_RESTARTS);
}

static void fencing_and_asking_everybody_always_ends_it(void **state)
{
	(void)state;
	each_view(check_settles_when_all_is_known);
}

/* The rows of docs/moves.md. */
static void the_table_of_the_documentation_holds(void **state)
{
	static const struct {
		enum move_step step;
		enum move_life src, dst;
		enum move_answer sent, received;
		enum move_decision want;
	} rows[] = {
		/* before the agreement */
		{MOVE_COPYING, MOVE_ALIVE, MOVE_ALIVE, MOVE_NO, MOVE_NO, MOVE_SRC_GOES_ON},
		{MOVE_COPYING, MOVE_ALIVE, MOVE_FENCED, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_SRC_GOES_ON},
		{MOVE_COPYING, MOVE_ALIVE, MOVE_UNKNOWN, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_SRC_GOES_ON},
		{MOVE_COPYING, MOVE_FENCED, MOVE_ALIVE, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_HA_RESTARTS},
		{MOVE_COPYING, MOVE_FENCED, MOVE_UNKNOWN, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_HA_RESTARTS},
		{MOVE_COPYING, MOVE_UNKNOWN, MOVE_ALIVE, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_NOBODY},
		/* agreed, both alive */
		{MOVE_AGREED, MOVE_ALIVE, MOVE_ALIVE, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_WAIT},
		{MOVE_AGREED, MOVE_ALIVE, MOVE_ALIVE, MOVE_NO, MOVE_NOT_ASKED, MOVE_SRC_GOES_ON},
		{MOVE_AGREED, MOVE_ALIVE, MOVE_ALIVE, MOVE_YES, MOVE_NO, MOVE_SRC_GOES_ON},
		{MOVE_AGREED, MOVE_ALIVE, MOVE_ALIVE, MOVE_YES, MOVE_YES, MOVE_DST_RUNS},
		/* agreed, the destination is dead or gone */
		{MOVE_AGREED, MOVE_ALIVE, MOVE_FENCED, MOVE_NO, MOVE_NOT_ASKED, MOVE_SRC_GOES_ON},
		{MOVE_AGREED, MOVE_ALIVE, MOVE_FENCED, MOVE_YES, MOVE_NOT_ASKED, MOVE_HA_RESTARTS},
		{MOVE_AGREED, MOVE_ALIVE, MOVE_FENCED, MOVE_YES, MOVE_NO, MOVE_SRC_GOES_ON},
		{MOVE_AGREED, MOVE_ALIVE, MOVE_UNKNOWN, MOVE_NO, MOVE_NOT_ASKED, MOVE_SRC_GOES_ON},
		{MOVE_AGREED, MOVE_ALIVE, MOVE_UNKNOWN, MOVE_YES, MOVE_NOT_ASKED, MOVE_NOBODY},
		{MOVE_AGREED, MOVE_ALIVE, MOVE_UNKNOWN, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_WAIT},
		/* agreed, the source is dead or gone */
		{MOVE_AGREED, MOVE_FENCED, MOVE_ALIVE, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_WAIT},
		{MOVE_AGREED, MOVE_FENCED, MOVE_ALIVE, MOVE_NOT_ASKED, MOVE_YES, MOVE_DST_RUNS},
		{MOVE_AGREED, MOVE_FENCED, MOVE_ALIVE, MOVE_NOT_ASKED, MOVE_NO, MOVE_HA_RESTARTS},
		{MOVE_AGREED, MOVE_FENCED, MOVE_UNKNOWN, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_NOBODY},
		{MOVE_AGREED, MOVE_FENCED, MOVE_FENCED, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_HA_RESTARTS},
		{MOVE_AGREED, MOVE_UNKNOWN, MOVE_ALIVE, MOVE_NOT_ASKED, MOVE_YES, MOVE_DST_RUNS},
		{MOVE_AGREED, MOVE_UNKNOWN, MOVE_ALIVE, MOVE_NOT_ASKED, MOVE_NO, MOVE_NOBODY},
		{MOVE_AGREED, MOVE_UNKNOWN, MOVE_UNKNOWN, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_NOBODY},
		/* handed over: GO was sent, whatever else */
		{MOVE_HANDED_OVER, MOVE_ALIVE, MOVE_FENCED, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_HA_RESTARTS},
		{MOVE_HANDED_OVER, MOVE_ALIVE, MOVE_ALIVE, MOVE_YES, MOVE_NO, MOVE_SRC_GOES_ON},
		{MOVE_HANDED_OVER, MOVE_ALIVE, MOVE_UNKNOWN, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_NOBODY},
		/* undecided is as agreed */
		{MOVE_UNDECIDED, MOVE_ALIVE, MOVE_ALIVE, MOVE_YES, MOVE_YES, MOVE_DST_RUNS},
		{MOVE_UNDECIDED, MOVE_FENCED, MOVE_FENCED, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_HA_RESTARTS},
		/* committed */
		{MOVE_COMMITTED, MOVE_FENCED, MOVE_ALIVE, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_DST_RUNS},
		{MOVE_COMMITTED, MOVE_ALIVE, MOVE_FENCED, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_HA_RESTARTS},
		{MOVE_CLEANING, MOVE_ALIVE, MOVE_UNKNOWN, MOVE_NOT_ASKED, MOVE_NOT_ASKED, MOVE_NOBODY},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct move_view v = {.step = rows[i].step,
				      .src = rows[i].src,
				      .dst = rows[i].dst,
				      .go_sent = rows[i].sent,
				      .go_received = rows[i].received,
				      .stuck = true};

		if (move_resolve(&v).decision != rows[i].want)
			fail_msg("row %zu: %s, want %s", i, move_decision_names[move_resolve(&v).decision],
				 move_decision_names[rows[i].want]);
	}
}

/* ---- the manager ---- */

static void check_plan(const struct move_view *v)
{
	struct move_plan p = move_next(v);
	enum move_decision d = move_resolve(v).decision;

	assert_non_null(p.why);
	if (p.propose == MOVE_STEP_MAX)
		return;
	/* Whatever it proposes, the state machine will take from a manager. */
	assert_int_equal(move_step_check(v->step, p.propose, MOVE_MANAGER, NULL), 0);
	if (p.propose == MOVE_COMMITTED)
		assert_int_equal(d, MOVE_DST_RUNS);
	if (p.propose == MOVE_FAILED)
		assert_true(d == (p.restart ? MOVE_HA_RESTARTS : MOVE_SRC_GOES_ON));
	if (p.propose == MOVE_CANCELLED)
		assert_true(v->cancel && move_step_cancels(v->step));
}

static void a_manager_only_proposes_what_it_may_and_what_was_decided(void **state)
{
	(void)state;
	each_view(check_plan);
}

static void a_new_manager_finds_work_only_where_something_is_wrong(void **state)
{
	(void)state;
	for (int s = 0; s < MOVE_STEP_MAX; s++) {
		struct move_view v = {
			.step = (enum move_step)s, .go_sent = MOVE_NOT_ASKED, .go_received = MOVE_NOT_ASKED};

		assert_int_equal(move_next(&v).propose, MOVE_STEP_MAX);
		assert_int_equal(move_next(&v).ask, 0);
	}
}

static void a_manager_that_is_followed_brings_every_move_to_an_end_once_both_hosts_are_dead(void **state)
{
	(void)state;
	for (int s = 0; s < MOVE_STEP_MAX; s++) {
		struct move_view v = {.step = (enum move_step)s,
				      .src = MOVE_FENCED,
				      .dst = MOVE_FENCED,
				      .go_sent = MOVE_NOT_ASKED,
				      .go_received = MOVE_NOT_ASKED};
		bool restart = move_step_ended(v.step);

		for (int i = 0; i < 4 && !move_step_ended(v.step); i++) {
			struct move_plan p = move_next(&v);

			assert_int_not_equal(p.propose, MOVE_STEP_MAX);
			restart |= p.restart;
			v.step = p.propose;
		}
		assert_true(move_step_ended(v.step));
		assert_true(restart);
	}
}

static void what_nobody_may_decide_becomes_undecided_once(void **state)
{
	struct move_view v = {
		.step = MOVE_HANDED_OVER, .dst = MOVE_UNKNOWN, .go_sent = MOVE_YES, .go_received = MOVE_NOT_ASKED};

	(void)state;
	assert_int_equal(move_next(&v).propose, MOVE_UNDECIDED);
	v.step = MOVE_UNDECIDED;
	assert_int_equal(move_next(&v).propose, MOVE_STEP_MAX);
	v.dst = MOVE_ALIVE;
	v.stuck = true;
	assert_int_equal(move_next(&v).ask, MOVE_ASK_DST);
	v.go_received = MOVE_YES;
	assert_int_equal(move_next(&v).propose, MOVE_COMMITTED);
}

/* ---- the queue ---- */

#define Q MOVE_QUEUED
#define C MOVE_COPYING

static void the_queue_starts_what_the_limits_allow(void **state)
{
	static const struct {
		const char *what;
		struct move_limits limits;
		struct move_item items[6];
		size_t n;
		const char *start; /* one letter for each: y or n */
	} rows[] = {
		{"nothing", {2, 1}, {{0}}, 0, ""},
		{"one", {2, 1}, {{"a", "b", Q, 0, 1}}, 1, "y"},
		{"ended ones do not count",
		 {1, 1},
		 {{"a", "b", MOVE_DONE, 0, 1}, {"a", "b", MOVE_FAILED, 0, 2}, {"a", "b", Q, 0, 3}},
		 3,
		 "nny"},
		{"undecided ones do", {1, 1}, {{"a", "b", MOVE_UNDECIDED, 0, 1}, {"a", "b", Q, 0, 2}}, 2, "nn"},
		{"per link", {4, 1}, {{"a", "b", Q, 0, 1}, {"a", "b", Q, 0, 2}, {"a", "c", Q, 0, 3}}, 3, "yny"},
		{"the two directions are two links", {4, 1}, {{"a", "b", Q, 0, 1}, {"b", "a", Q, 0, 2}}, 2, "yy"},
		{"per node", {2, 2}, {{"a", "b", Q, 0, 1}, {"a", "c", Q, 0, 2}, {"a", "d", Q, 0, 3}}, 3, "yyn"},
		{"a node counts as source and as destination",
		 {1, 1},
		 {{"a", "b", C, 0, 1}, {"b", "c", Q, 0, 2}},
		 2,
		 "nn"},
		{"order of arrival, not of the list", {1, 1}, {{"a", "b", Q, 0, 9}, {"a", "c", Q, 0, 3}}, 2, "ny"},
		{"priority goes first", {1, 1}, {{"a", "b", Q, 0, 1}, {"a", "c", Q, 5, 3}}, 2, "ny"},
		{"what waits for a full node keeps its place on the other",
		 {1, 1},
		 {{"a", "x", C, 0, 1}, {"a", "b", Q, 0, 2}, {"c", "b", Q, 0, 3}},
		 3,
		 "nnn"},
		{"but only the first that waits does so",
		 {1, 1},
		 {{"a", "x", C, 0, 1}, {"a", "b", Q, 0, 2}, {"a", "d", Q, 0, 3}, {"c", "d", Q, 0, 4}},
		 4,
		 "nnny"},
		{"no limit of zero starts anything", {0, 0}, {{"a", "b", Q, 0, 1}}, 1, "n"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		bool start[6];
		char got[7] = "";

		move_queue(rows[i].items, rows[i].n, &rows[i].limits, start);
		for (size_t k = 0; k < rows[i].n; k++)
			got[k] = start[k] ? 'y' : 'n';
		if (strcmp(got, rows[i].start) != 0)
			fail_msg("%s: %s, want %s", rows[i].what, got, rows[i].start);
	}
}

/* A stream of small moves b->c that never ends must not keep a->b waiting. */
static void a_waiting_move_is_not_overtaken_for_ever(void **state)
{
	struct move_limits limits = {1, 1};
	struct move_item items[2] = {{"a", "b", Q, 0, 1}, {"c", "b", C, 0, 0}};
	bool start[2];

	(void)state;
	for (uint64_t round = 2; round < 10; round++) {
		move_queue(items, 2, &limits, start);
		if (start[0])
			return;
		items[1] = (struct move_item){"c", "b", Q, 0, round}; /* the next of the stream arrives */
	}
	fail_msg("it never started");
}

static void limits_hold_whatever_is_in_the_queue(void **state)
{
	static const char *const names[] = {"a", "b", "c", "d", "e"};
	uint64_t seed = 1;

	(void)state;
	for (int round = 0; round < 2000; round++) {
		struct move_item items[24];
		struct move_limits limits = {1 + round % 4, 1 + round / 4 % 3};
		unsigned node[5] = {0}, link[5][5] = {{0}}, before[5] = {0};
		bool start[24];

		for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
			unsigned s, d;

			seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
			s = (unsigned)(seed >> 33) % 5;
			d = (s + 1 + (unsigned)(seed >> 40) % 4) % 5;
			items[i] = (struct move_item){names[s], names[d], i < 3 ? C : Q, (int)(seed >> 50) % 3, i};
			before[s] += i < 3;
			before[d] += i < 3;
		}
		move_queue(items, ARRAY_SIZE(items), &limits, start);
		for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
			unsigned s = (unsigned)(items[i].src[0] - 'a'), d = (unsigned)(items[i].dst[0] - 'a');

			node[s] += start[i];
			node[d] += start[i];
			link[s][d] += start[i];
			assert_true(!start[i] || items[i].step == Q);
		}
		for (int a = 0; a < 5; a++) {
			assert_true(node[a] == 0 || node[a] + before[a] <= limits.per_node);
			for (int b = 0; b < 5; b++)
				assert_true(link[a][b] <= limits.per_link);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_move_takes_its_steps_in_order_and_each_by_who_does_the_work),
		cmocka_unit_test(no_step_follows_an_end_and_no_step_goes_back),
		cmocka_unit_test(every_step_but_an_end_has_a_way_to_an_end),
		cmocka_unit_test(a_step_that_does_not_follow_and_one_of_another_side_are_told_apart),
		cmocka_unit_test(names_are_found_again),
		cmocka_unit_test(owner_and_epoch_must_fit_the_step),
		cmocka_unit_test(in_no_world_does_a_decision_make_two_owners_or_resume_old_memory),
		cmocka_unit_test(a_living_source_gives_its_memory_up_only_where_the_disks_may_be_newer),
		cmocka_unit_test(a_living_source_that_has_to_give_its_memory_up_is_told_by_the_row),
		cmocka_unit_test(nobody_and_waiting_always_have_their_reason),
		cmocka_unit_test(one_answer_is_enough_whatever_it_is),
		cmocka_unit_test(fencing_and_asking_everybody_always_ends_it),
		cmocka_unit_test(the_table_of_the_documentation_holds),
		cmocka_unit_test(a_manager_only_proposes_what_it_may_and_what_was_decided),
		cmocka_unit_test(a_new_manager_finds_work_only_where_something_is_wrong),
		cmocka_unit_test(a_manager_that_is_followed_brings_every_move_to_an_end_once_both_hosts_are_dead),
		cmocka_unit_test(what_nobody_may_decide_becomes_undecided_once),
		cmocka_unit_test(the_queue_starts_what_the_limits_allow),
		cmocka_unit_test(a_waiting_move_is_not_overtaken_for_ever),
		cmocka_unit_test(limits_hold_whatever_is_in_the_queue),
	};

	return cmocka_run_group_tests_name("cluster/move", tests, NULL, NULL);
}
