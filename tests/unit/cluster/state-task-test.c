/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the tasks in the replicated state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "tests/unit/cluster/state-fixture.h"

#define ID "'id': '" UUID(1) "'"

static struct world *with_a_task(void)
{
	struct world *w = world_new();

	world_must(w, "task.create", "{" ID ", 'kind': 'vm.start', 'object': 'web', 'node': 'n1', 'note': 'waits'}",
		   "{" ID ", 'kind': 'vm.start', 'object': 'web', 'state': 'queued'}");
	return w;
}

static void a_task_goes_from_queued_to_its_end(void **state)
{
	struct world *w = with_a_task();

	(void)state;
	world_must(w, "task.update", "{" ID ", 'state': 'running', 'progress': 0.25, 'eta_ms': 900, 'note': 'copies'}",
		   NULL);
	world_is(state_task_get(w->db, UUID(1), &w->e),
		 "{" ID ", 'number': 1, 'kind': 'vm.start', 'object': 'web', 'node': 'n1', 'state': 'running', "
		 "'progress': 0.25, 'eta_ms': 900, 'note': 'copies', 'error': null, 'result': null, 'by': 'anna', "
		 "'created': 1700000001000, 'changed': 1700000002000, 'finished': null}");
	/* What only the moment is about is told to whoever watches, and not kept. */
	world_must(w, "task.update",
		   "{" ID ", 'progress': 0.25, 'eta_ms': 900, 'wire_rate': 5, 'dirty_rate': 3, 'remaining': 2}",
		   "{" ID ", 'progress': 0.25, 'eta_ms': 900, 'wire_rate': 5, 'dirty_rate': 3, 'remaining': 2}");
	assert_int_equal(json_object_size(w->result), 6);
	assert_null(world_text(state_task_get(w->db, UUID(1), &w->e), "wire_rate"));
	assert_int_equal(world_int(state_task_get(w->db, UUID(1), &w->e), "eta_ms"), 900);
	/* What is not said stays, but for a guess of the time, which is stale. */
	world_must(w, "task.update", "{" ID ", 'progress': 1}", NULL);
	world_is(world_field(state_task_get(w->db, UUID(1), &w->e), "eta_ms"), "null");
	assert_string_equal(world_text(state_task_get(w->db, UUID(1), &w->e), "note"), "copies");
	world_must(w, "task.finish", "{" ID ", 'state': 'done', 'result': {'pid': 5}}", "{" ID ", 'state': 'done'}");
	world_is(world_field(state_task_get(w->db, UUID(1), &w->e), "result"), "{'pid': 5}");
	assert_int_equal(world_int(state_task_get(w->db, UUID(1), &w->e), "finished"), w->time);
	world_free(w);
}

static void a_failed_task_keeps_its_progress_and_says_why(void **state)
{
	struct world *w = with_a_task();

	(void)state;
	world_must(w, "task.update", "{" ID ", 'progress': 0.5}", NULL);
	world_must(w, "task.finish", "{" ID ", 'state': 'failed', 'error': 'disk full'}",
		   "{" ID ", 'state': 'failed', 'error': 'disk full'}");
	world_is(world_field(state_task_get(w->db, UUID(1), &w->e), "progress"), "0.5");
	world_free(w);
}

static void what_is_refused_says_why(void **state)
{
	static const struct refusal rows[] = {
		{"task.create", "{" ID ", 'kind': 'vm.stop'}", ERR_CONFLICT,
		 "task 00000000-0000-4000-8000-000000000001: exists already; use a new id for each task"},
		{"task.create", "{'id': 'x', 'kind': 'vm.stop'}", ERR_INPUT,
		 "task: id must be a UUID in lower case such as 6ba7b810-9dad-41d1-80b4-00c04fd430c8"},
		{"task.create", "{'id': '" UUID(2) "', 'kind': ''}", ERR_INPUT,
		 "task 00000000-0000-4000-8000-000000000002: kind must be a text of 1 to 64 bytes without control "
		 "characters"},
		{"task.update", "{'id': '" UUID(2) "'}", ERR_NOTFOUND,
		 "task 00000000-0000-4000-8000-000000000002: there is no such task"},
		{"task.update", "{" ID ", 'progress': 1.5}", ERR_INPUT,
		 "task 00000000-0000-4000-8000-000000000001: progress must be a number from 0 to 1"},
		{"task.update", "{" ID ", 'state': 'done'}", ERR_INPUT,
		 "task 00000000-0000-4000-8000-000000000001: state must be one of queued, running"},
		{"task.finish", "{" ID ", 'state': 'running'}", ERR_INPUT,
		 "task 00000000-0000-4000-8000-000000000001: state must be one of done, failed, cancelled"},
		{"task.finish", "{'id': '" UUID(2) "', 'state': 'done'}", ERR_NOTFOUND,
		 "task 00000000-0000-4000-8000-000000000002: there is no such task"},
	};
	static const struct refusal ended[] = {
		{"task.update", "{" ID ", 'progress': 0.5}", ERR_CONFLICT,
		 "task 00000000-0000-4000-8000-000000000001: has ended already (cancelled)"},
		{"task.finish", "{" ID ", 'state': 'done'}", ERR_CONFLICT,
		 "task 00000000-0000-4000-8000-000000000001: has ended already (cancelled)"},
	};
	struct world *w = with_a_task();

	(void)state;
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_must(w, "task.finish", "{" ID ", 'state': 'cancelled'}", NULL);
	world_refuses(w, ended, ARRAY_SIZE(ended));
	assert_null(state_task_get(w->db, UUID(2), &w->e));
	assert_string_equal(w->e.text, "task " UUID(2) ": there is no such task");
	world_free(w);
}

static void ended_tasks_are_remembered_for_a_while_and_open_ones_for_ever(void **state)
{
	struct world *w = with_a_task();
	json_t *all, *open;

	(void)state;
	for (int i = 0; i < 1010; i++) {
		char id[48];

		snprintf(id, sizeof(id), "20000000-0000-4000-8000-%012d", i);
		assert_int_equal(DO(w, "task.create", "{s:s, s:s}", "id", id, "kind", "k"), 0);
		assert_int_equal(DO(w, "task.finish", "{s:s, s:s}", "id", id, "state", "done"), 0);
	}
	all = state_task_list(w->db, false, &w->e);
	open = state_task_list(w->db, true, &w->e);
	assert_int_equal(json_array_size(all), 1001);
	assert_int_equal(json_array_size(open), 1);
	assert_string_equal(json_string_value(json_object_get(json_array_get(all, 0), "id")), UUID(1));
	json_decref(all);
	json_decref(open);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_task_goes_from_queued_to_its_end),
		cmocka_unit_test(a_failed_task_keeps_its_progress_and_says_why),
		cmocka_unit_test(what_is_refused_says_why),
		cmocka_unit_test(ended_tasks_are_remembered_for_a_while_and_open_ones_for_ever),
	};

	return cmocka_run_group_tests_name("cluster/state-task", tests, NULL, NULL);
}
