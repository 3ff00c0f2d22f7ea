/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the guests in the replicated state: definitions, intents, what their owners saw, other owners. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "tests/unit/cluster/state-fixture.h"

#define DEF(name, n, more) "{'name': '" name "', 'uuid': '" UUID(n) "', 'memory': 512, 'vcpus': 2" more "}"
#define CREATE(name, n, more) "{'node': 'n1', 'definition': " DEF(name, n, more) "}"

/* Three nodes: n1 with 4 GiB, n2 with 1 GiB, n3 that has not reported; web runs on n1. */
static struct world *three_nodes(void)
{
	struct world *w = world_new();

	world_node(w, "n1", 1, 4 * GIB);
	world_node(w, "n2", 2, 1 * GIB);
	world_must(w, "node.join", "{'name': 'n3', 'id': 3, 'addresses': [], 'fingerprint': '" HASH("a3") "'}", NULL);
	world_guest(w, "web", 1, 512, "n1");
	return w;
}

static void a_guest_is_created_with_its_first_version_and_owner(void **state)
{
	struct world *w = three_nodes();

	(void)state;
	world_must(
		w, "vm.create", CREATE("db", 2, ", 'disks': [{'file': '/d/db.img'}]"),
		"{'name': 'db', 'uuid': '" UUID(2) "', 'owner': 'n1', 'epoch': 1, 'version': 1, 'intent': 'stopped'}");
	world_is(state_vm_get(w->db, "db", &w->e),
		 "{'name': 'db', 'uuid': '" UUID(
			 2) "', 'version': 1, 'memory': 536870912, 'vcpus': 2,"
			    "'intent': 'stopped', 'stop_s': null, 'owner': 'n1', 'epoch': 1, 'created': 1700000008000,"
			    "'changed': 1700000008000, 'status': null, 'since': null, 'observed': null, 'pid': null, "
			    "'note': null,"
			    "'detail': null, 'migration': null, 'definition': " DEF(
				    "db", 2, ", 'disks': [{'file': '/d/db.img'}]") "}");
	assert_int_equal(json_array_size(w->result), 0);
	world_free(w);
}

static void creating_is_refused_with_the_reason(void **state)
{
	static const struct refusal rows[] = {
		{"vm.create", CREATE("web", 2, ""), ERR_CONFLICT,
		 "vm web: exists already; choose another name, or edit it"},
		{"vm.create", CREATE("db", 1, ""), ERR_CONFLICT,
		 "vm db: its uuid is that of vm web; leave uuid out, then it gets a new one"},
		{"vm.create", "{'node': 'n9', 'definition': " DEF("db", 2, "") "}", ERR_NOTFOUND,
		 "vm db: there is no node n9; `node list` shows those that are there"},
		{"vm.create", "{'node': 'n3', 'start': true, 'definition': " DEF("db", 2, "") "}", ERR_UNAVAILABLE,
		 "vm db: node n3 has not reported its memory yet; try again in a moment"},
		{"vm.create",
		 "{'node': 'n2', 'start': true, 'definition': {'name': 'db', 'uuid': '" UUID(
			 2) "', 'memory': 1025, 'vcpus': 1}}",
		 ERR_CONFLICT,
		 "vm db: 1025 MiB are needed, and of the 1024 MiB of node n2 0 MiB are promised; choose another node, "
		 "or "
		 "stop a guest there"},
		{"vm.create", "{'definition': " DEF("db", 2, "") "}", ERR_INPUT, "vm: node is missing"},
		{"vm.create", "{'node': 'n1', 'definition': 5}", ERR_INPUT, "vm: definition must be an object {...}"},
		{"vm.create", "{'node': 'n1', 'definition': {}}", ERR_INPUT,
		 "vm: definition.name must be letters, digits, '_', '.' and '-', at most 63, beginning with a letter "
		 "or digit"},
		{"vm.create", "{'node': 'n1', 'definition': {'name': '-db'}}", ERR_INPUT,
		 "vm: definition.name must be letters, digits, '_', '.' and '-', at most 63, beginning with a letter "
		 "or digit"},
		{"vm.create", "{'node': 'n1', 'definition': {'name': 'db', 'uuid': 'X'}}", ERR_INPUT,
		 "vm db: definition.uuid must be a UUID in lower case"},
		{"vm.create",
		 "{'node': 'n1', 'definition': {'name': 'db', 'uuid': '" UUID(2) "', 'memory': 15, 'vcpus': 1}}",
		 ERR_INPUT, "vm db: definition.memory must be a whole number of MiB from 16 to 8388608"},
		{"vm.create",
		 "{'node': 'n1', 'definition': {'name': 'db', 'uuid': '" UUID(2) "', 'memory': 64, 'vcpus': 0}}",
		 ERR_INPUT, "vm db: definition.vcpus must be a whole number from 1 to 255"},
		{"vm.create", CREATE("db", 2, ", 'disks': {}"), ERR_INPUT,
		 "vm db: definition.disks must be a list of at most 16"},
		{"vm.create", CREATE("db", 2, ", 'disks': [{'file': 'relative'}]"), ERR_INPUT,
		 "vm db: definition.disks[0].file must be an absolute path of at most 4095 bytes"},
		{"vm.create", CREATE("db", 2, ", 'nics': [1]"), ERR_INPUT,
		 "vm db: definition.nics[0] must be an object {...}"},
		{"vm.create", CREATE("db", 2, ", 'nics': [{'mac': 5}]"), ERR_INPUT,
		 "vm db: definition.nics[0].mac must be a short text"},
		{"vm.create", CREATE("db", 2, ", 'nics': [{'network': 'lan'}]"), ERR_NOTFOUND,
		 "vm db: definition.nics[0].network: there is no network lan; create it first"},
		{"vm.create", "{'node': 'n1', 'color': 'red', 'definition': " DEF("db", 2, "") "}", ERR_INPUT,
		 "vm: there is no field \"color\"; the fields are definition, node, start"},
	};
	struct world *w = three_nodes();

	(void)state;
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_free(w);
}

static void no_two_guests_write_one_disk_or_share_a_mac(void **state)
{
	static const struct refusal rows[] = {
		{"vm.create", CREATE("b", 3, ", 'disks': [{'file': '/d/rw'}]"), ERR_CONFLICT,
		 "vm b: definition.disks[0].file: /d/rw is a disk of vm a already; use another file, or make both "
		 "read-only"},
		{"vm.create", CREATE("b", 3, ", 'disks': [{'file': '/d/rw', 'readonly': true}]"), ERR_CONFLICT,
		 "vm b: definition.disks[0].file: /d/rw is a disk of vm a already; use another file, or make both "
		 "read-only"},
		{"vm.create", CREATE("b", 3, ", 'disks': [{'file': '/d/ro'}]"), ERR_CONFLICT,
		 "vm b: definition.disks[0].file: /d/ro is a disk of vm a already; use another file, or make both "
		 "read-only"},
		{"vm.create", CREATE("b", 3, ", 'uefi-vars': '/d/vars'"), ERR_CONFLICT,
		 "vm b: definition.uefi-vars: /d/vars is a disk of vm a already; use another file, or make both "
		 "read-only"},
		{"vm.create", CREATE("b", 3, ", 'disks': [{'file': '/d/x'}, {'file': '/d/x'}]"), ERR_CONFLICT,
		 "vm b: definition.disks[1].file: /d/x is a disk of vm b already; use another file, or make both "
		 "read-only"},
		{"vm.create", CREATE("b", 3, ", 'nics': [{'mac': '52:54:00:00:00:01'}]"), ERR_CONFLICT,
		 "vm b: definition.nics[0].mac: 52:54:00:00:00:01 is that of vm a already; give another, or another "
		 "uuid"},
		{"vm.edit", "{'name': 'web', 'definition': " DEF("web", 1, ", 'disks': [{'file': '/d/rw'}]") "}",
		 ERR_CONFLICT,
		 "vm web: definition.disks[0].file: /d/rw is a disk of vm a already; use another file, or make both "
		 "read-only"},
	};
	struct world *w = three_nodes();

	(void)state;
	world_must(
		w, "vm.create",
		CREATE("a", 2,
		       ", 'disks': [{'file': '/d/rw'}, {'file': '/d/ro', 'readonly': true}], 'uefi-vars': '/d/vars', "
		       "'nics': [{'mac': '52:54:00:00:00:01'}]"),
		NULL);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_must(w, "vm.create", CREATE("b", 3, ", 'disks': [{'file': '/d/ro', 'readonly': true}]"), NULL);
	/* Its own files are no conflict, and a deleted guest holds none. */
	world_must(w, "vm.edit", "{'name': 'a', 'definition': " DEF("a", 2, ", 'disks': [{'file': '/d/rw'}]") "}",
		   NULL);
	world_must(w, "vm.delete", "{'name': 'a'}", NULL);
	world_must(w, "vm.create", CREATE("c", 4, ", 'disks': [{'file': '/d/rw'}]"), NULL);
	world_free(w);
}

static void files_of_all_guests_are_listed_once(void **state)
{
	struct world *w = world_new();

	(void)state;
	world_node(w, "n1", 1, 4 * GIB);
	world_is(state_vm_files(w->db, &w->e), "[]");
	world_must(w, "vm.create",
		   CREATE("a", 1,
			  ", 'kernel': '/k/vmlinuz', 'initrd': 7, 'uefi-vars': '/vars/a', 'disks': [{'file': '/d/2'}, "
			  "{'file': '/d/ro', 'readonly': true}]"),
		   NULL);
	world_must(w, "vm.create",
		   CREATE("b", 2,
			  ", 'kernel': '/k/vmlinuz', 'initrd': '/k/initrd', 'disks': [{'file': '/d/1'}, "
			  "{'file': '/d/ro', 'readonly': true}]"),
		   NULL);
	world_is(
		state_vm_files(w->db, &w->e),
		"[{'file': '/d/1', 'made': 0}, {'file': '/d/2', 'made': 0}, {'file': '/d/ro', 'made': 0}, "
		"{'file': '/k/initrd', 'made': 0}, {'file': '/k/vmlinuz', 'made': 0}, {'file': '/vars/a', 'made': 1}]");
	world_free(w);
}

static void an_edit_makes_a_version_and_keeps_the_old_ones(void **state)
{
	struct world *w = three_nodes();

	(void)state;
	world_must(w, "vm.edit", "{'name': 'web', 'if-version': 1, 'definition': " DEF("web", 1, ", 'x': 1") "}",
		   "{'name': 'web', 'owner': 'n1', 'epoch': 1, 'version': 2, 'intent': 'running'}");
	world_is(state_vm_versions(w->db, "web", &w->e), "[{'version': 2, 'time': 1700000008000, 'by': 'anna'}, "
							 "{'version': 1, 'time': 1700000006000, 'by': 'anna'}]");
	world_is(state_vm_definition(w->db, "web", 0, &w->e),
		 "{'version': 2, 'time': 1700000008000, 'by': 'anna', 'definition': " DEF("web", 1, ", 'x': 1") "}");
	world_is(world_field(state_vm_definition(w->db, "web", 1, &w->e), "version"), "1");
	assert_null(state_vm_definition(w->db, "web", 3, &w->e));
	assert_string_equal(w->e.text, "vm version web: there is no such vm version");
	assert_null(state_vm_versions(w->db, "wob", &w->e));
	assert_int_equal(w->e.code, ERR_NOTFOUND);
	world_free(w);
}

static void only_the_newest_versions_are_kept(void **state)
{
	struct world *w = three_nodes();
	json_t *list;

	(void)state;
	for (int i = 0; i < 70; i++)
		world_must(w, "vm.edit", "{'name': 'web', 'definition': " DEF("web", 1, "") "}", NULL);
	list = state_vm_versions(w->db, "web", &w->e);
	assert_int_equal(json_array_size(list), 64);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 63), "version")), 8);
	json_decref(list);
	world_free(w);
}

static void editing_and_deleting_are_refused_with_the_reason(void **state)
{
	static const struct refusal rows[] = {
		{"vm.edit", "{'name': 'wob', 'definition': " DEF("wob", 9, "") "}", ERR_NOTFOUND,
		 "vm wob: there is no vm wob; `vm list` shows those that are there"},
		{"vm.edit", "{'name': 'web', 'definition': " DEF("wob", 1, "") "}", ERR_INPUT,
		 "vm web: its definition says name wob; a name cannot be changed"},
		{"vm.edit", "{'name': 'web', 'definition': " DEF("web", 9, "") "}", ERR_INPUT,
		 "vm web: its definition says uuid 00000000-0000-4000-8000-000000000009; a uuid cannot be changed from "
		 "00000000-0000-4000-8000-000000000001"},
		{"vm.edit", "{'name': 'web', 'if-version': 2, 'definition': " DEF("web", 1, "") "}", ERR_CONFLICT,
		 "vm web: is at version 1, not 2; somebody else edited it: look at it again"},
		{"vm.edit",
		 "{'name': 'web', 'definition': {'name': 'web', 'uuid': '" UUID(1) "', 'memory': 5000, 'vcpus': 1}}",
		 ERR_CONFLICT,
		 "vm web: 4488 MiB are needed, and of the 4096 MiB of node n1 640 MiB are promised; choose another "
		 "node, or "
		 "stop a guest there"},
		{"vm.delete", "{'name': 'wob'}", ERR_NOTFOUND,
		 "vm wob: there is no vm wob; `vm list` shows those that are there"},
		{"vm.delete", "{'name': 'web'}", ERR_CONFLICT, "vm web: shall run; stop it first"},
		{"vm.delete", "{'name': 'still'}", ERR_CONFLICT,
		 "vm still: is still running on node n1; wait until it is stopped, or kill it"},
		{"vm.edit", "{'name': 'moves', 'definition': " DEF("moves", 3, "") "}", ERR_CONFLICT,
		 "vm moves: is being moved (migration 00000000-0000-4000-8000-000000000004); cancel that, or edit it "
		 "afterwards"},
		{"vm.delete", "{'name': 'moves'}", ERR_CONFLICT,
		 "vm moves: is being moved (migration 00000000-0000-4000-8000-000000000004); cancel that, or delete it "
		 "afterwards"},
		{"vm.place", "{'name': 'moves', 'node': 'n3', 'epoch': 1}", ERR_CONFLICT,
		 "vm moves: is being moved (migration 00000000-0000-4000-8000-000000000004); cancel that, or place it "
		 "afterwards"},
	};
	struct world *w = three_nodes();

	(void)state;
	world_guest(w, "still", 2, 64, "n1");
	world_must(w, "vm.intent", "{'name': 'still', 'intent': 'stopped'}", NULL);
	world_guest(w, "moves", 3, 64, "n1");
	assert_int_equal(world_move(w, 4, "moves", "n2"), 0);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_free(w);
}

static void what_runs_keeps_its_memory_until_it_is_down(void **state)
{
	struct world *w = three_nodes();

	(void)state;
	world_must(w, "vm.edit",
		   "{'name': 'web', 'definition': {'name': 'web', 'uuid': '" UUID(1) "', 'memory': 64, 'vcpus': 1}}",
		   NULL);
	assert_int_equal(world_int(state_vm_get(w->db, "web", &w->e), "memory"), 512 * MIB);
	world_must(w, "vm.intent", "{'name': 'web', 'intent': 'stopped'}", NULL);
	world_must(w, "vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 1, 'status': 'stopped'}", NULL);
	world_must(w, "vm.intent", "{'name': 'web', 'intent': 'running'}", NULL);
	assert_int_equal(world_int(state_vm_get(w->db, "web", &w->e), "memory"), 64 * MIB);
	world_free(w);
}

static void intent_is_what_somebody_asked_for_and_is_refused_where_it_cannot_be(void **state)
{
	static const struct refusal rows[] = {
		{"vm.intent", "{'name': 'wob', 'intent': 'running'}", ERR_NOTFOUND,
		 "vm wob: there is no vm wob; `vm list` shows those that are there"},
		{"vm.intent", "{'name': 'web', 'intent': 'flying'}", ERR_INPUT,
		 "vm web: intent must be one of running, stopped, killed"},
		{"vm.intent", "{'name': 'web'}", ERR_INPUT, "vm web: intent is missing"},
		{"vm.intent", "{'name': 'big', 'intent': 'running'}", ERR_CONFLICT,
		 "vm big: 2048 MiB are needed, and of the 1024 MiB of node n2 0 MiB are promised; choose another node, "
		 "or "
		 "stop a guest there"},
	};
	struct world *w = three_nodes();

	(void)state;
	world_must(w, "vm.create",
		   "{'node': 'n2', 'definition': {'name': 'big', 'uuid': '" UUID(2) "', 'memory': 2048, 'vcpus': 1}}",
		   NULL);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_must(w, "vm.intent", "{'name': 'web', 'intent': 'stopped', 'timeout_s': 5}",
		   "{'name': 'web', 'owner': 'n1', 'epoch': 1, 'version': 1, 'intent': 'stopped'}");
	assert_int_equal(world_int(state_vm_get(w->db, "web", &w->e), "stop_s"), 5);
	world_must(w, "vm.intent", "{'name': 'web', 'intent': 'killed'}", NULL);
	assert_string_equal(world_text(state_vm_get(w->db, "web", &w->e), "intent"), "killed");
	world_free(w);
}

static void only_the_owner_with_the_current_epoch_is_believed(void **state)
{
	static const struct refusal rows[] = {
		{"vm.observed", "{'vm': 'web', 'node': 'n2', 'epoch': 1, 'status': 'running'}", ERR_FORBIDDEN,
		 "vm web: belongs to node n1 with epoch 1; what node n2 saw with epoch 1 does not count"},
		{"vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 2, 'status': 'running'}", ERR_FORBIDDEN,
		 "vm web: belongs to node n1 with epoch 1; what node n1 saw with epoch 2 does not count"},
		{"vm.observed", "{'vm': 'wob', 'node': 'n1', 'epoch': 1, 'status': 'running'}", ERR_NOTFOUND,
		 "vm wob: there is no vm wob; `vm list` shows those that are there"},
		{"vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 1, 'status': 'dreaming'}", ERR_INPUT,
		 "vm web: status must be one of starting, running, paused, stopping, stopped, failed"},
		{"vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 0, 'status': 'running'}", ERR_INPUT,
		 "vm web: epoch must be a whole number from 1 to 9223372036854775807"},
		{"vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 1, 'status': 'running', 'pid': -1}", ERR_INPUT,
		 "vm web: pid must be a whole number from 1 to 2147483647"},
	};
	struct world *w = three_nodes();

	(void)state;
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_must(w, "vm.observed",
		   "{'vm': 'web', 'node': 'n1', 'epoch': 1, 'status': 'failed', 'note': 'disk full', 'detail': "
		   "{'code': 3}}",
		   "{'vm': 'web', 'node': 'n1', 'status': 'failed', 'note': 'disk full'}");
	assert_string_equal(world_text(state_vm_get(w->db, "web", &w->e), "note"), "disk full");
	/* since is of the status, not of the report. */
	world_must(w, "vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 1, 'status': 'failed'}", NULL);
	assert_int_equal(world_int(state_vm_get(w->db, "web", &w->e), "since"), w->time - 1000);
	assert_int_equal(world_int(state_vm_get(w->db, "web", &w->e), "observed"), w->time);
	world_free(w);
}

static void a_guest_that_its_owner_will_not_run_gets_another_owner_and_epoch(void **state)
{
	static const struct refusal running[] = {
		{"vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 1}", ERR_CONFLICT,
		 "vm web: may run on node n1; migrate it, or stop it first"},
		{"vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 2}", ERR_CONFLICT,
		 "vm web: is at epoch 1, not 2; look at it again"},
		{"vm.place", "{'name': 'web', 'node': 'n1', 'epoch': 1}", ERR_CONFLICT,
		 "vm web: belongs to node n1 already; choose another node"},
		{"vm.place", "{'name': 'web', 'node': 'n9', 'epoch': 1}", ERR_NOTFOUND,
		 "vm web: there is no node n9; `node list` shows those that are there"},
		{"vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 1, 'fenced': true}", ERR_CONFLICT,
		 "vm web: node n1 is not confirmed dead (up), so its guests are not free; wait until it is fenced"},
	};
	static const struct refusal down[] = {
		{"vm.place", "{'name': 'big', 'node': 'n2', 'epoch': 1}", ERR_CONFLICT,
		 "vm big: 2048 MiB are needed, and of the 1024 MiB of node n2 0 MiB are promised; choose another node, "
		 "or "
		 "stop a guest there"},
	};
	static const struct refusal starting[] = {
		{"vm.place", "{'name': 'web', 'node': 'n1', 'epoch': 2}", ERR_CONFLICT,
		 "vm web: shall run on node n2, which may be starting it; stop it first"},
	};
	static const struct refusal stale[] = {
		{"vm.place", "{'name': 'web', 'node': 'n1', 'epoch': 2}", ERR_CONFLICT,
		 "vm web: node n2 has not said since the last change of it that it is down; wait until it does"},
	};
	struct world *w = three_nodes();

	(void)state;
	world_guest(w, "big", 2, 2048, "n1");
	world_refuses(w, running, ARRAY_SIZE(running));
	world_fails(w, "big", "n1", 1);
	world_refuses(w, down, ARRAY_SIZE(down));
	world_fails(w, "web", "n1", 1);
	world_must(w, "vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 1, 'reason': 'it crashed twice'}",
		   "{'name': 'web', 'owner': 'n2', 'epoch': 2, 'version': 1, 'intent': 'running', 'reason': 'it "
		   "crashed twice'}");
	/* What the old owner says counts no more, and its last word is forgotten. */
	world_is(world_field(state_vm_get(w->db, "web", &w->e), "status"), "null");
	assert_int_equal(world_say(w, "vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 1, 'status': 'stopped'}"),
			 -1);
	/* Down, but it shall run: n2 may be starting it at this moment. */
	world_must(w, "vm.observed", "{'vm': 'web', 'node': 'n2', 'epoch': 2, 'status': 'stopped'}", NULL);
	world_refuses(w, starting, ARRAY_SIZE(starting));
	world_rests(w, "web", "n2", 2);
	world_refuses(w, starting, ARRAY_SIZE(starting));
	/* Not any more; that it was down before it was wanted running says nothing. */
	world_must(w, "vm.intent", "{'name': 'web', 'intent': 'stopped'}", NULL);
	world_refuses(w, stale, ARRAY_SIZE(stale));
	world_must(w, "vm.observed", "{'vm': 'web', 'node': 'n2', 'epoch': 2, 'status': 'stopped'}", NULL);
	world_refuses(w, stale, ARRAY_SIZE(stale));
	world_rests(w, "web", "n2", 2);
	world_must(w, "vm.place", "{'name': 'web', 'node': 'n1', 'epoch': 2}", NULL);
	world_is(world_field(state_vm_get(w->db, "web", &w->e), "epoch"), "3");
	world_free(w);
}

static void lists_are_by_name_and_by_owner(void **state)
{
	struct world *w = three_nodes();
	json_t *all, *of;

	(void)state;
	world_guest(w, "app", 2, 64, "n2");
	all = state_vm_list(w->db, &w->e);
	of = state_vm_list_of(w->db, "n1", &w->e);
	assert_int_equal(json_array_size(all), 2);
	assert_string_equal(json_string_value(json_object_get(json_array_get(all, 0), "name")), "app");
	assert_int_equal(json_array_size(of), 1);
	assert_string_equal(json_string_value(json_object_get(json_array_get(of, 0), "name")), "web");
	assert_null(state_vm_get(w->db, "wob", &w->e));
	assert_string_equal(w->e.text, "vm wob: there is no such vm");
	json_decref(all);
	json_decref(of);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_guest_is_created_with_its_first_version_and_owner),
		cmocka_unit_test(creating_is_refused_with_the_reason),
		cmocka_unit_test(no_two_guests_write_one_disk_or_share_a_mac),
		cmocka_unit_test(files_of_all_guests_are_listed_once),
		cmocka_unit_test(an_edit_makes_a_version_and_keeps_the_old_ones),
		cmocka_unit_test(only_the_newest_versions_are_kept),
		cmocka_unit_test(editing_and_deleting_are_refused_with_the_reason),
		cmocka_unit_test(what_runs_keeps_its_memory_until_it_is_down),
		cmocka_unit_test(intent_is_what_somebody_asked_for_and_is_refused_where_it_cannot_be),
		cmocka_unit_test(only_the_owner_with_the_current_epoch_is_believed),
		cmocka_unit_test(a_guest_that_its_owner_will_not_run_gets_another_owner_and_epoch),
		cmocka_unit_test(lists_are_by_name_and_by_owner),
	};

	return cmocka_run_group_tests_name("cluster/state-vm", tests, NULL, NULL);
}
