/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's plan: every intent against everything that can be here, with every relation of the epochs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "node/agent-plan.h"

#define UUID "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
#define OURS "c1"
#define NOTHING_HERE VM_STATUS_MAX

/* One letter per act: "." nothing, s(t)art, s(T)op, kill, report, refuse. */
static const char letters[AGENT_ACT_MAX] = {
	[AGENT_NOTHING] = '.', [AGENT_WAIT] = 'w',   [AGENT_START] = 's',  [AGENT_STOP] = 'p',
	[AGENT_KILL] = 'k',    [AGENT_REPORT] = 'r', [AGENT_REFUSE] = 'x',
};

/* Columns: running paused incoming migrated shutdown failed silent gone (the order of enum vm_status), nothing here. */
struct row {
	enum agent_intent intent;
	int64_t epoch; /* of what is here; the cluster is at 5 */
	const char *acts;
};

static const struct row rows[] = {
	{AGENT_RUNNING, 5, ".rkrrrrrs"},
	{AGENT_STOPPED, 5, "pppppppp."},
	{AGENT_KILLED, 5, "kkkkkkkk."},
	{AGENT_ELSEWHERE, 5, "kkkkkkkk."},
	{AGENT_MOVING, 5, "........."},
	/* From before somebody else owned it. */
	{AGENT_RUNNING, 4, "kkkkkkkss"},
	{AGENT_STOPPED, 4, "kkkkkkkp."},
	{AGENT_KILLED, 4, "kkkkkkkk."},
	{AGENT_ELSEWHERE, 4, "kkkkkkkk."},
	{AGENT_MOVING, 4, "........."},
	/* Has come by a move of which the cluster has not seen the end. */
	{AGENT_RUNNING, 6, "rrkrrrrrs"},
	{AGENT_STOPPED, 6, "rrkrrrrp."},
	{AGENT_KILLED, 6, "rrkrrrrk."},
	{AGENT_ELSEWHERE, 6, "rrkrrrrk."},
	{AGENT_MOVING, 6, "........."},
};

static void every_intent_meets_everything_that_can_be_here(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		for (int s = 0; s <= VM_STATUS_MAX; s++) {
			struct agent_want want = {.uuid = UUID, .epoch = 5, .intent = rows[i].intent};
			struct agent_have have = {
				.uuid = UUID, .cluster = OURS, .epoch = rows[i].epoch, .status = (enum vm_status)s};
			struct agent_action a = agent_plan(OURS, &want, s == NOTHING_HERE ? NULL : &have);

			if (letters[a.act] != rows[i].acts[s])
				fail_msg("row %zu, status %s: %s (%s), not %c", i,
					 s == NOTHING_HERE ? "none" : vm_status_names[s], agent_act_names[a.act], a.why,
					 rows[i].acts[s]);
			assert_non_null(a.why);
			assert_true((a.act == AGENT_NOTHING) == (a.why[0] == 0));
		}
}

static void what_is_not_ours_is_never_touched(void **state)
{
	static const struct {
		const char *uuid, *cluster;
		bool known;
	} strangers[] = {
		{UUID, "", true},
		{UUID, "c2", true},
		{UUID, OURS, false},
		{UUID, "", false},
		{"00000000-0000-4000-8000-000000000000", OURS, true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(strangers); i++)
		for (int intent = 0; intent < AGENT_INTENT_MAX; intent++)
			for (int s = 0; s < VM_STATUS_MAX; s++)
				for (int64_t epoch = 4; epoch <= 6; epoch++) {
					struct agent_want want = {
						.uuid = UUID, .epoch = 5, .intent = (enum agent_intent)intent};
					struct agent_have have = {.uuid = strangers[i].uuid,
								  .cluster = strangers[i].cluster,
								  .epoch = epoch,
								  .status = (enum vm_status)s};
					struct agent_action a =
						agent_plan(OURS, strangers[i].known ? &want : NULL, &have);

					assert_int_equal(a.act, AGENT_REFUSE);
					assert_true(a.why[0]);
				}
}

/* S1: whatever is left of an older ownership, or of a guest that is another node's, never goes on running. */
static void older_ownership_never_goes_on(void **state)
{
	(void)state;
	for (int intent = 0; intent < AGENT_INTENT_MAX; intent++)
		for (int s = 0; s < VM_STATUS_MAX; s++) {
			struct agent_want want = {.uuid = UUID, .epoch = 5, .intent = (enum agent_intent)intent};
			struct agent_have have = {
				.uuid = UUID, .cluster = OURS, .epoch = 4, .status = (enum vm_status)s};
			struct agent_action a = agent_plan(OURS, &want, &have);

			if (intent != AGENT_MOVING && s != VM_STATUS_GONE)
				assert_int_equal(a.act, AGENT_KILL);
		}
}

/* S1: under one epoch it is started once. Another host may have been given it after it failed here. */
static void what_has_run_or_could_not_start_is_reported_until_there_is_a_new_epoch(void **state)
{
	struct agent_want want = {.uuid = UUID, .epoch = 2, .intent = AGENT_RUNNING, .ran = true};
	struct agent_have gone = {.uuid = UUID, .cluster = OURS, .epoch = 2, .status = VM_STATUS_GONE};

	(void)state;
	assert_int_equal(agent_plan(OURS, &want, NULL).act, AGENT_REPORT);
	assert_int_equal(agent_plan(OURS, &want, &gone).act, AGENT_REPORT);
	want.ran = false;
	want.failure = "there is no such disk";
	assert_int_equal(agent_plan(OURS, &want, NULL).act, AGENT_REPORT);
	assert_string_equal(agent_plan(OURS, &want, NULL).why, want.failure);
	want = (struct agent_want){.uuid = UUID, .epoch = 3, .intent = AGENT_RUNNING};
	assert_int_equal(agent_plan(OURS, &want, NULL).act, AGENT_START);
	assert_int_equal(agent_plan(OURS, &want, &gone).act, AGENT_START);
}

/* By what it is, not by what its sentence says: HA leaves a guest alone for longer when it is its own fault. */
static void why_a_guest_does_not_run_is_said_in_a_word(void **state)
{
	struct agent_want want = {.uuid = UUID, .epoch = 2, .intent = AGENT_RUNNING, .ran = true};
	struct agent_have have = {.uuid = UUID, .cluster = OURS, .epoch = 2, .status = VM_STATUS_GONE};

	(void)state;
	assert_string_equal(agent_cause_names[agent_plan(OURS, &want, &have).cause], "crash");
	assert_string_equal(agent_cause_names[agent_plan(OURS, &want, NULL).cause], "host");
	have.status = VM_STATUS_FAILED;
	assert_string_equal(agent_cause_names[agent_plan(OURS, &want, &have).cause], "crash");
	want.failure = "QEMU found no disk while this host or its daemon was away";
	assert_string_equal(agent_cause_names[agent_plan(OURS, &want, NULL).cause], "failed");
	have.status = VM_STATUS_RUNNING;
	assert_null(agent_cause_names[agent_plan(OURS, &want, &have).cause]);
	have.status = VM_STATUS_SHUTDOWN;
	assert_null(agent_cause_names[agent_plan(OURS, &want, &have).cause]);
	want.intent = AGENT_STOPPED;
	assert_null(agent_cause_names[agent_plan(OURS, &want, &have).cause]);
}

static void mark_is_read_back_and_others_are_not_ours(void **state)
{
	static const char *const bad[] = {"",
					  "godwit",
					  "godwit:",
					  "godwit::1",
					  "godwit:c1",
					  "godwit:c1:",
					  "godwit:c1:x",
					  "godwit:c1:1x",
					  "godwit:c1:-1",
					  "other:c1:1",
					  "godwit:0123456789012345678901234567890123456789012345678901234567890123:1"};
	char cluster[AGENT_CLUSTER_MAX + 1];
	_free_ char *mark = agent_mark("6ba7b810-9dad-41d1-80b4-00c04fd430c8", 42);
	int64_t epoch = 0;

	(void)state;
	assert_true(agent_mark_parse(mark, cluster, &epoch));
	assert_string_equal(cluster, "6ba7b810-9dad-41d1-80b4-00c04fd430c8");
	assert_int_equal(epoch, 42);
	assert_false(agent_mark_parse(NULL, cluster, &epoch));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(agent_mark_parse(bad[i], cluster, &epoch));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_intent_meets_everything_that_can_be_here),
		cmocka_unit_test(what_is_not_ours_is_never_touched),
		cmocka_unit_test(older_ownership_never_goes_on),
		cmocka_unit_test(what_has_run_or_could_not_start_is_reported_until_there_is_a_new_epoch),
		cmocka_unit_test(why_a_guest_does_not_run_is_said_in_a_word),
		cmocka_unit_test(mark_is_read_back_and_others_are_not_ours),
	};

	return cmocka_run_group_tests_name("node/agent-plan", tests, NULL, NULL);
}
