/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of migrations in the replicated state: who may take which step, what each does to the guest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "tests/unit/cluster/state-fixture.h"

#define ID "'id': '" UUID(5) "'"
#define STEP(step, role, node, more)                                                                                   \
	"{" ID ", 'step': '" step "', 'role': '" role "', 'node': '" node "', 'epoch': 1" more "}"

/* web runs on n1; n2 has room, n3 has not. */
static struct world *with_a_guest(void)
{
	struct world *w = world_new();

	world_node(w, "n1", 1, GIB);
	world_node(w, "n2", 2, GIB);
	world_node(w, "n3", 3, 128 * MIB);
	world_guest(w, "web", 1, 512, "n1");
	return w;
}

/* And its move to n2 is at @last. */
static struct world *with_a_move(const char *last)
{
	static const struct {
		const char *step, *role, *node;
	} path[] = {
		{"checking", "manager", "n3"}, {"preparing", "src", "n1"},   {"copying", "dst", "n2"},
		{"agreed", "src", "n1"},       {"handed-over", "src", "n1"}, {"committed", "dst", "n2"},
		{"cleaning", "src", "n1"},     {"done", "src", "n1"},
	};
	struct world *w = with_a_guest();
	const char *at = "queued";

	assert_int_equal(world_move(w, 5, "web", "n2"), 0);
	for (size_t i = 0; strcmp(at, last) != 0; at = path[i++].step)
		if (world_step(w, 5, path[i].step, path[i].role, path[i].node, 1) < 0)
			fail_msg("%s: %s", path[i].step, w->e.text);
	return w;
}

static void a_move_is_queued_with_owner_epoch_and_options(void **state)
{
	struct world *w = with_a_guest();

	(void)state;
	world_must(w, "migration.create",
		   "{" ID
		   ", 'vm': 'web', 'to': 'n2', 'options': {'max_pause_ms': 5, 'bandwidth': 1000000, 'priority': -1}}",
		   "{" ID ", 'vm': 'web', 'src': 'n1', 'dst': 'n2', 'step': 'queued', 'epoch': 1}");
	world_is(state_migration_get(w->db, UUID(5), &w->e),
		 "{" ID ", 'number': 9, 'vm': 'web', 'src': 'n1', 'dst': 'n2', 'step': 'queued', 'epoch': 1, "
		 "'options': {'max_pause_ms': 5, 'bandwidth': 1000000, 'priority': -1}, 'cancel': false, "
		 "'restart': false, 'note': null, 'error': null, 'detail': null, 'by': 'anna', 'created': "
		 "1700000009000, 'changed': 1700000009000, 'finished': null}");
	assert_string_equal(world_text(state_vm_get(w->db, "web", &w->e), "migration"), UUID(5));
	assert_null(state_migration_get(w->db, UUID(6), &w->e));
	assert_string_equal(w->e.text, "migration " UUID(6) ": there is no such migration");
	world_free(w);
}

static void creating_is_refused_with_the_reason(void **state)
{
	static const struct refusal rows[] = {
		{"migration.create", "{" ID ", 'vm': 'web', 'to': 'n2'}", ERR_CONFLICT,
		 "migration 00000000-0000-4000-8000-000000000005: exists already; use a new id for each migration"},
		{"migration.create", "{'id': '" UUID(6) "', 'vm': 'web', 'to': 'n3'}", ERR_CONFLICT,
		 "migration 00000000-0000-4000-8000-000000000006: vm web is being moved already (migration "
		 "00000000-0000-4000-8000-000000000005); cancel that first"},
		{"migration.create", "{'id': '" UUID(6) "', 'vm': 'wob', 'to': 'n2'}", ERR_NOTFOUND,
		 "migration 00000000-0000-4000-8000-000000000006: there is no vm wob; `vm list` shows those that are "
		 "there"},
		{"migration.create", "{'id': '" UUID(6) "', 'vm': 'db', 'to': 'n9'}", ERR_NOTFOUND,
		 "migration 00000000-0000-4000-8000-000000000006: there is no node n9; `node list` shows those that "
		 "are there"},
		{"migration.create", "{'id': '" UUID(6) "', 'vm': 'db', 'to': 'n1'}", ERR_CONFLICT,
		 "migration 00000000-0000-4000-8000-000000000006: vm db is on node n1 already; choose another node"},
		{"migration.create", "{'id': '" UUID(6) "', 'vm': 'down', 'to': 'n2'}", ERR_CONFLICT,
		 "migration 00000000-0000-4000-8000-000000000006: vm down is not known to run on node n1 (no report "
		 "yet); start it first"},
		{"migration.create", "{'id': '" UUID(6) "', 'vm': 'db', 'to': 'n3'}", ERR_CONFLICT,
		 "migration 00000000-0000-4000-8000-000000000006: 256 MiB are needed, and of the 128 MiB of node n3 0 "
		 "MiB are promised; choose another node, or stop a guest there"},
		{"migration.create", "{'id': '" UUID(6) "', 'vm': 'db', 'to': 'n2', 'options': {'speed': 1}}",
		 ERR_INPUT,
		 "migration 00000000-0000-4000-8000-000000000006: there is no field \"speed\"; the fields are "
		 "max_pause_ms, deadline_s, auto_converge, bandwidth, priority"},
		{"migration.create", "{'id': '" UUID(6) "', 'vm': 'db', 'to': 'n2', 'options': {'max_pause_ms': 0}}",
		 ERR_INPUT,
		 "migration 00000000-0000-4000-8000-000000000006: max_pause_ms must be a whole number from 1 to "
		 "3600000"},
	};
	struct world *w = with_a_move("queued");

	(void)state;
	world_guest(w, "db", 2, 256, "n1");
	world_must(w, "vm.create",
		   "{'node': 'n1', 'definition': {'name': 'down', 'uuid': '" UUID(3) "', 'memory': 64, 'vcpus': 1}}",
		   NULL);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_free(w);
}

static void a_good_move_changes_owner_and_epoch_with_the_step_committed(void **state)
{
	struct world *w = with_a_move("handed-over");
	json_t *list;

	(void)state;
	assert_string_equal(world_text(state_vm_get(w->db, "web", &w->e), "owner"), "n1");
	world_must(w, "migration.step", STEP("committed", "dst", "n2", ", 'note': 'runs', 'detail': {'pause_ms': 4}"),
		   "{" ID ", 'vm': 'web', 'src': 'n1', 'dst': 'n2', 'step': 'committed', 'epoch': 1}");
	assert_string_equal(world_text(state_vm_get(w->db, "web", &w->e), "owner"), "n2");
	assert_int_equal(world_int(state_vm_get(w->db, "web", &w->e), "epoch"), 2);
	/* The guest runs there, as this step says; a late report of the source does not count. */
	assert_string_equal(world_text(state_vm_get(w->db, "web", &w->e), "status"), "running");
	assert_int_equal(world_say(w, "vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 1, 'status': 'stopped'}"),
			 -1);
	world_must(w, "vm.observed", "{'vm': 'web', 'node': 'n2', 'epoch': 2, 'status': 'running'}", NULL);
	assert_int_equal(world_int(state_node_get(w->db, "n1", &w->e), "memory_promised"), 512 * MIB);
	world_must(w, "migration.step", STEP("cleaning", "src", "n1", ""), NULL);
	world_must(w, "migration.step", STEP("done", "src", "n1", ""), NULL);
	assert_int_equal(world_int(state_node_get(w->db, "n1", &w->e), "memory_promised"), 0);
	assert_int_equal(world_int(state_migration_get(w->db, UUID(5), &w->e), "finished"), w->time);
	world_is(world_field(state_migration_get(w->db, UUID(5), &w->e), "detail"), "{'pause_ms': 4}");
	list = state_migration_list(w->db, true, &w->e);
	assert_int_equal(json_array_size(list), 0);
	json_decref(list);
	list = state_event_list(w->db, 0, 100, &w->e);
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, json_array_size(list) - 4), "op")),
			    "vm.moved");
	world_is(json_incref(json_object_get(json_array_get(list, json_array_size(list) - 4), "data")),
		 "{'name': 'web', 'owner': 'n2', 'epoch': 2, 'from': 'n1'}");
	json_decref(list);
	world_free(w);
}

static void a_step_is_refused_with_the_reason(void **state)
{
	static const struct {
		const char *at;
		struct refusal r;
	} rows[] = {
		{"queued",
		 {"migration.step", STEP("copying", "dst", "n2", ""), ERR_CONFLICT,
		  "migration 00000000-0000-4000-8000-000000000005: is queued; copying does not follow that"}},
		{"queued",
		 {"migration.step", STEP("checking", "src", "n1", ""), ERR_FORBIDDEN,
		  "migration 00000000-0000-4000-8000-000000000005: is queued; the src may not take it to checking"}},
		{"checking",
		 {"migration.step", STEP("preparing", "src", "n2", ""), ERR_FORBIDDEN,
		  "migration 00000000-0000-4000-8000-000000000005: node n2 is not its source, which is node n1"}},
		{"checking",
		 {"migration.step", STEP("preparing", "dst", "n1", ""), ERR_FORBIDDEN,
		  "migration 00000000-0000-4000-8000-000000000005: node n1 is not its destination, which is node n2"}},
		{"checking",
		 {"migration.step", STEP("gone", "src", "n1", ""), ERR_INPUT,
		  "migration 00000000-0000-4000-8000-000000000005: step must be one of queued, checking, preparing, "
		  "copying, agreed, handed-over, committed, cleaning, done, failed, cancelled, undecided"}},
		{"checking",
		 {"migration.step", STEP("preparing", "king", "n1", ""), ERR_INPUT,
		  "migration 00000000-0000-4000-8000-000000000005: role must be one of manager, src, dst"}},
		{"checking",
		 {"migration.step", "{" ID ", 'step': 'preparing', 'role': 'src', 'node': 'n1', 'epoch': 2}",
		  ERR_CONFLICT,
		  "migration 00000000-0000-4000-8000-000000000005: has epoch 1, not 2; look at it again"}},
		{"checking",
		 {"migration.step",
		  "{'id': '" UUID(6) "', 'step': 'preparing', 'role': 'src', 'node': 'n1', 'epoch': 1}", ERR_NOTFOUND,
		  "migration 00000000-0000-4000-8000-000000000006: there is no such migration; `migration list` shows "
		  "those that are there"}},
		{"agreed",
		 {"migration.step", STEP("failed", "manager", "n3", ""), ERR_INPUT,
		  "migration 00000000-0000-4000-8000-000000000005: from is missing: a manager must say which step it "
		  "decided for"}},
		{"agreed",
		 {"migration.step", STEP("failed", "manager", "n3", ", 'from': 'copying'"), ERR_CONFLICT,
		  "migration 00000000-0000-4000-8000-000000000005: is agreed, and this was decided while it was "
		  "copying; look at it again"}},
		{"copying",
		 {"migration.step", STEP("agreed", "dst", "n2", ""), ERR_FORBIDDEN,
		  "migration 00000000-0000-4000-8000-000000000005: is copying; the dst may not take it to agreed"}},
		{"copying",
		 {"migration.step", STEP("agreed", "src", "n1", ", 'restart': true"), ERR_INPUT,
		  "migration 00000000-0000-4000-8000-000000000005: restart goes with step failed only"}},
		{"agreed",
		 {"migration.step", STEP("cancelled", "src", "n1", ""), ERR_CONFLICT,
		  "migration 00000000-0000-4000-8000-000000000005: is agreed; cancelled does not follow that"}},
		{"agreed",
		 {"migration.cancel", "{" ID "}", ERR_CONFLICT,
		  "migration 00000000-0000-4000-8000-000000000005: is agreed: the guest is being handed over, which "
		  "cannot be called back; wait for its end"}},
		{"handed-over",
		 {"migration.step", STEP("committed", "src", "n1", ""), ERR_FORBIDDEN,
		  "migration 00000000-0000-4000-8000-000000000005: is handed-over; the src may not take it to "
		  "committed"}},
		{"committed",
		 {"migration.step", STEP("failed", "src", "n1", ""), ERR_CONFLICT,
		  "migration 00000000-0000-4000-8000-000000000005: is committed; failed does not follow that"}},
		{"committed",
		 {"migration.cancel", "{" ID "}", ERR_CONFLICT,
		  "migration 00000000-0000-4000-8000-000000000005: is committed: the guest is being handed over, which "
		  "cannot be called back; wait for its end"}},
		{"done",
		 {"migration.step", STEP("cleaning", "src", "n1", ""), ERR_CONFLICT,
		  "migration 00000000-0000-4000-8000-000000000005: is done; cleaning does not follow that"}},
		{"done",
		 {"migration.cancel", "{" ID "}", ERR_CONFLICT,
		  "migration 00000000-0000-4000-8000-000000000005: has ended already (done); there is nothing left to "
		  "cancel"}},
		{"done",
		 {"migration.cancel", "{'id': '" UUID(6) "'}", ERR_NOTFOUND,
		  "migration 00000000-0000-4000-8000-000000000006: there is no such migration; `migration list` shows "
		  "those that are there"}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct world *w = with_a_move(rows[i].at);

		world_refuses(w, &rows[i].r, 1);
		world_free(w);
	}
}

static void a_step_that_is_taken_already_is_no_failure_and_no_news(void **state)
{
	struct world *w = with_a_move("agreed");
	int64_t before = 0, after = 0;

	(void)state;
	state_event_newest(w->db, &before, &w->e);
	world_must(w, "migration.step", STEP("agreed", "src", "n1", ", 'note': 'again'"), NULL);
	state_event_newest(w->db, &after, &w->e);
	assert_int_equal(after, before + 1); /* known by its id, and quiet */
	world_is(state_event_list(w->db, before, 10, &w->e), "[]");
	assert_null(world_text(state_migration_get(w->db, UUID(5), &w->e), "note"));
	world_free(w);
}

static void a_cancel_ends_a_queued_move_and_is_a_wish_later(void **state)
{
	static const struct refusal rows[] = {
		{"migration.step", STEP("agreed", "src", "n1", ""), ERR_CANCELLED,
		 "migration 00000000-0000-4000-8000-000000000005: somebody asked to cancel it; take it to cancelled"},
	};
	struct world *w = with_a_move("queued");

	(void)state;
	world_must(w, "migration.cancel", "{" ID "}",
		   "{" ID ", 'vm': 'web', 'src': 'n1', 'dst': 'n2', 'step': 'cancelled', 'epoch': 1, 'cancel': true}");
	assert_null(world_text(state_vm_get(w->db, "web", &w->e), "migration"));
	world_free(w);
	w = with_a_move("copying");
	world_must(w, "migration.cancel", "{" ID "}", NULL);
	assert_string_equal(world_text(state_migration_get(w->db, UUID(5), &w->e), "step"), "copying");
	/* The order decides between the two: the source will not see agreed. */
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_must(w, "migration.cancel", "{" ID "}", NULL);
	world_must(w, "migration.step", STEP("cancelled", "src", "n1", ""), NULL);
	assert_string_equal(world_text(state_vm_get(w->db, "web", &w->e), "owner"), "n1");
	world_free(w);
}

static void a_failed_move_leaves_the_guest_with_its_owner_and_epoch(void **state)
{
	static const char *const steps[] = {"preparing", "copying", "agreed", "handed-over"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		struct world *w = with_a_move(steps[i]);

		world_must(w, "migration.step", STEP("failed", "dst", "n2", ", 'error': 'out of reach'"),
			   "{" ID ", 'vm': 'web', 'src': 'n1', 'dst': 'n2', 'step': 'failed', 'epoch': 1, 'error': "
			   "'out of reach'}");
		assert_string_equal(world_text(state_vm_get(w->db, "web", &w->e), "owner"), "n1");
		assert_int_equal(world_int(state_vm_get(w->db, "web", &w->e), "epoch"), 1);
		assert_string_equal(world_text(state_vm_get(w->db, "web", &w->e), "status"), "running");
		world_free(w);
	}
}

static void what_must_be_started_afresh_says_so(void **state)
{
	struct world *w = with_a_move("agreed");

	(void)state;
	world_must(w, "migration.step",
		   STEP("undecided", "manager", "n3", ", 'from': 'agreed', 'note': 'n2 is out of reach'"), NULL);
	world_must(w, "migration.step", STEP("failed", "manager", "n3", ", 'from': 'undecided', 'restart': true"),
		   NULL);
	world_is(world_field(state_migration_get(w->db, UUID(5), &w->e), "restart"), "true");
	world_free(w);
}

static void after_failed_with_restart_a_living_source_stays_the_owner_until_it_has_ended_the_guest(void **state)
{
	static const struct refusal rows[] = {
		{"vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 1}", ERR_CONFLICT,
		 "vm web: may run on node n1; migrate it, or stop it first"},
	};
	struct world *w = with_a_move("handed-over");

	(void)state;
	world_must(w, "migration.step",
		   STEP("failed", "manager", "n3", ", 'from': 'handed-over', 'restart': true, 'error': 'n2 is dead'"),
		   NULL);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_must(w, "vm.intent", "{'name': 'web', 'intent': 'killed'}", NULL);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_rests(w, "web", "n1", 1);
	world_must(w, "vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 1}", NULL);
	assert_int_equal(world_int(state_vm_get(w->db, "web", &w->e), "epoch"), 2);
	world_free(w);
}

static void ended_moves_are_remembered_for_a_while(void **state)
{
	struct world *w = with_a_guest();
	json_t *list;

	(void)state;
	for (int i = 0; i < 1005; i++) {
		char id[48];

		snprintf(id, sizeof(id), "20000000-0000-4000-8000-%012d", i);
		assert_int_equal(DO(w, "migration.create", "{s:s, s:s, s:s}", "id", id, "vm", "web", "to", "n2"), 0);
		assert_int_equal(DO(w, "migration.cancel", "{s:s}", "id", id), 0);
	}
	list = state_migration_list(w->db, false, &w->e);
	assert_int_equal(json_array_size(list), 1000);
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "id")),
			    "20000000-0000-4000-8000-000000000005");
	json_decref(list);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_move_is_queued_with_owner_epoch_and_options),
		cmocka_unit_test(creating_is_refused_with_the_reason),
		cmocka_unit_test(a_good_move_changes_owner_and_epoch_with_the_step_committed),
		cmocka_unit_test(a_step_is_refused_with_the_reason),
		cmocka_unit_test(a_step_that_is_taken_already_is_no_failure_and_no_news),
		cmocka_unit_test(a_cancel_ends_a_queued_move_and_is_a_wish_later),
		cmocka_unit_test(a_failed_move_leaves_the_guest_with_its_owner_and_epoch),
		cmocka_unit_test(what_must_be_started_afresh_says_so),
		cmocka_unit_test(
			after_failed_with_restart_a_living_source_stays_the_owner_until_it_has_ended_the_guest),
		cmocka_unit_test(ended_moves_are_remembered_for_a_while),
	};

	return cmocka_run_group_tests_name("cluster/state-migration", tests, NULL, NULL);
}
