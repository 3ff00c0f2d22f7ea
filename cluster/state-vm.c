/* SPDX-License-Identifier: Apache-2.0 */
/* State: guests: their definitions and versions, what they should do, who may run them, what their owner saw.
 *
 * Theory of operation
 * -------------------
 * Intent and observation are kept apart. intent (running, stopped, killed) is what somebody asked for; the agent of the
 * owner closes the difference and reports what it sees as observed.status. Nothing here waits for it.
 *
 * Ownership. Exactly one node owns a guest, with an epoch that grows by one at every change of owner. Only the owner
 * runs it, and only reports of the owner with the current epoch count: a report that was on its way when the owner
 * changed, or of a host that came back from the dead, is refused. The owner changes in two places: migration.step
 * committed (cluster/state-migration.c), and vm.place, which moves a guest that does not run and that its owner will
 * not start, or whose owner is confirmed dead. That a caller says so is not enough: node.fenced must have come before
 * it in the order (cluster/state-life.c). An owner may be starting whatever shall run and is stopped; what has failed
 * it starts only under a new epoch (cluster/state-ha.c).
 *
 * Memory. A guest that shall run has its memory promised on its owner, and while it moves on its destination too; a
 * command that would promise more than the node has is refused. Placement looks closer, but two placements may be made
 * at the same time; this check is in the total order.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state-int.h"
#include "cluster/state-vm.h"
#include "cluster/state.h"

#define DETAIL_MAX (16U << 10) /* bytes of JSON */

static const char *const intents[] = {"running", "stopped", "killed", NULL};
static const char *const statuses[] = {"starting", "running", "paused", "stopping", "stopped", "failed", NULL};

int vm_read(struct change *c, const char *name, struct vm_row *ret)
{
	_sql_ sqlite3_stmt *s =
		sql_begin(c->db, c->e,
			  "SELECT v.uuid, v.version, v.memory, v.intent, v.owner, v.epoch, o.status, "
			  "v.changed, json_extract(o.detail, '$.as_of'), json_extract(o.detail, '$.cause') "
			  "FROM vm v LEFT JOIN observed o ON o.vm = v.name WHERE v.name = ?",
			  sql_text(name));
	int r = s ? sql_next(s, c->e) : -1;

	if (r < 0)
		return -1;
	if (r == 0)
		return refuse(c, ERR_NOTFOUND, "there is no vm %s; `vm list` shows those that are there", name);
	*ret = (struct vm_row){.version = sqlite3_column_int64(s, 1),
			       .memory = sqlite3_column_int64(s, 2),
			       .epoch = sqlite3_column_int64(s, 5),
			       .changed = sqlite3_column_int64(s, 7),
			       .as_of = sqlite3_column_int64(s, 8)};
	snprintf(ret->uuid, sizeof(ret->uuid), "%s", sql_column_text(s, 0));
	snprintf(ret->intent, sizeof(ret->intent), "%s", sql_column_text(s, 3));
	snprintf(ret->owner, sizeof(ret->owner), "%s", sql_column_text(s, 4));
	snprintf(ret->status, sizeof(ret->status), "%s", sql_column_text(s, 6));
	snprintf(ret->cause, sizeof(ret->cause), "%s", sql_column_text(s, 9));
	return 0;
}

/* A guest that is down gets the memory of its definition at its next start; until then a smaller one is not believed.
 */
static int vm_memory_refresh(struct change *c, struct vm_row *vm)
{
	if (sql_run(c->db, c->e, "UPDATE vm SET memory = json_extract(definition, '$.memory') << 20 WHERE name = ?",
		    sql_text(c->name)) < 0)
		return -1;
	return sql_number(c->db, c->e, &vm->memory, "SELECT memory FROM vm WHERE name = ?", sql_text(c->name));
}

/* Whether its owner has said that it does not run. Nothing heard is not enough. */
static bool vm_is_down(const struct vm_row *vm)
{
	return !strcmp(vm->status, "stopped") || !strcmp(vm->status, "failed");
}

int vm_own(struct change *c, const char *name, const char *node, int64_t epoch, bool runs)
{
	if (sql_run(c->db, c->e, "DELETE FROM observed WHERE vm = ?", sql_text(name)) < 0)
		return -1;
	if (runs && sql_run(c->db, c->e,
			    "INSERT INTO observed (vm, node, epoch, status, since, time) VALUES (?1, ?2, ?3, "
			    "'running', ?4, ?4)",
			    sql_text(name), sql_text(node), sql_int(epoch), sql_int(c->time)) < 0)
		return -1;
	return sql_run(c->db, c->e, "UPDATE vm SET owner = ?, epoch = ?, changed = ? WHERE name = ?", sql_text(node),
		       sql_int(epoch), sql_int(c->time), sql_text(name));
}

int refuse_while_moving(struct change *c, const char *what)
{
	_free_ char *id = NULL;
	int r = migration_of(c, c->name, &id);

	if (r > 0)
		return refuse(c, ERR_CONFLICT, "is being moved (migration %s); cancel that, or %s afterwards", id,
			      what);
	return r;
}

static void answer(struct change *c, const struct vm_row *vm)
{
	json_object_set_new(c->result, "name", json_string(c->name));
	json_object_set_new(c->result, "owner", json_string(vm->owner));
	json_object_set_new(c->result, "epoch", json_integer(vm->epoch));
	json_object_set_new(c->result, "version", json_integer(vm->version));
	json_object_set_new(c->result, "intent", json_string(vm->intent));
}

/* ---- create, edit, delete ---- */

static const struct arg vm_create_args[] = {
	NEEDED("definition", ARG_OBJECT),
	NEEDED("node", ARG_NAME),
	ALLOWED("start", ARG_BOOL),
	{0},
};

static int vm_create(struct change *c)
{
	struct vm_row vm = {.version = 1, .epoch = 1};
	const char *node = arg_text(c, "node");
	_free_ char *other = NULL;
	struct vm_def d;
	int r = vm_def_read(c, arg_json(c, "definition"), &d);

	if (r < 0)
		return -1;
	r = sql_string(c->db, c->e, &other, "SELECT uuid FROM vm WHERE name = ?", sql_text(d.name));
	if (r > 0)
		return refuse(c, ERR_CONFLICT, "exists already; choose another name, or edit it");
	if (r == 0)
		r = sql_string(c->db, c->e, &other, "SELECT name FROM vm WHERE uuid = ?", sql_text(d.uuid));
	if (r > 0)
		return refuse(c, ERR_CONFLICT, "its uuid is that of vm %s; leave uuid out, then it gets a new one",
			      other);
	if (r < 0 || node_need(c, node) < 0 || node_takes(c, node) < 0)
		return -1;
	if (arg_true(c, "start") && node_memory_check(c, node, d.memory) < 0)
		return -1;
	vm.memory = d.memory;
	snprintf(vm.owner, sizeof(vm.owner), "%s", node);
	snprintf(vm.intent, sizeof(vm.intent), "%s", arg_true(c, "start") ? "running" : "stopped");
	if (sql_run(c->db, c->e,
		    "INSERT INTO vm (name, uuid, version, definition, memory, vcpus, intent, owner, epoch, created, "
		    "changed) VALUES (?1, ?2, 1, '', ?3, 0, ?4, ?5, 1, ?6, ?6)",
		    sql_text(d.name), sql_text(d.uuid), sql_int(d.memory), sql_text(vm.intent), sql_text(node),
		    sql_int(c->time)) < 0)
		return -1;
	answer(c, &vm);
	json_object_set_new(c->result, "uuid", json_string(d.uuid));
	return vm_def_write(c, &d, 1);
}

static const struct arg vm_edit_args[] = {
	NEEDED("name", ARG_NAME),
	NEEDED("definition", ARG_OBJECT),
	ALLOWED_IN("if-version", ARG_INT, 1, INT64_MAX),
	{0},
};

/* The definition that counts from the next start on; what runs is not touched. */
static int vm_edit(struct change *c)
{
	const char *name = c->name;
	struct vm_row vm;
	struct vm_def d;

	if (vm_read(c, name, &vm) < 0 || vm_def_read(c, arg_json(c, "definition"), &d) < 0)
		return -1;
	c->name = name;
	if (strcmp(d.name, name) != 0)
		return refuse(c, ERR_INPUT, "its definition says name %s; a name cannot be changed", d.name);
	if (strcmp(d.uuid, vm.uuid) != 0)
		return refuse(c, ERR_INPUT, "its definition says uuid %s; a uuid cannot be changed from %s", d.uuid,
			      vm.uuid);
	if (arg_int(c, "if-version", vm.version) != vm.version)
		return refuse(c, ERR_CONFLICT,
			      "is at version %" PRId64 ", not %" PRId64 "; somebody else edited it: look at it again",
			      vm.version, arg_int(c, "if-version", 0));
	if (refuse_while_moving(c, "edit it") < 0)
		return -1;
	if (!strcmp(vm.intent, "running") && d.memory > vm.memory &&
	    node_memory_check(c, vm.owner, d.memory - vm.memory) < 0)
		return -1;
	if (d.memory < vm.memory && !vm_is_down(&vm))
		d.memory = vm.memory; /* what runs still has it */
	vm.version++;
	answer(c, &vm);
	return vm_def_write(c, &d, vm.version);
}

static const struct arg vm_delete_args[] = {NEEDED("name", ARG_NAME), {0}};

static int vm_delete(struct change *c)
{
	struct vm_row vm;

	if (vm_read(c, c->name, &vm) < 0 || refuse_while_moving(c, "delete it") < 0)
		return -1;
	if (!strcmp(vm.intent, "running"))
		return refuse(c, ERR_CONFLICT, "shall run; stop it first");
	if (vm.status[0] && !vm_is_down(&vm))
		return refuse(c, ERR_CONFLICT, "is still %s on node %s; wait until it is stopped, or kill it",
			      vm.status, vm.owner);
	answer(c, &vm);
	if (vm_forget_ha(c) < 0 || vm_def_delete(c) < 0 ||
	    sql_run(c->db, c->e, "DELETE FROM observed WHERE vm = ?", sql_text(c->name)) < 0)
		return -1;
	return sql_run(c->db, c->e, "DELETE FROM vm WHERE name = ?", sql_text(c->name));
}

/* ---- intent and observation ---- */

static const struct arg vm_intent_args[] = {
	NEEDED("name", ARG_NAME),
	NEEDED_OF("intent", intents),
	ALLOWED_IN("timeout_s", ARG_INT, 0, 86400), /* with stopped: how long it has to power itself off */
	{0},
};

static int vm_intent(struct change *c)
{
	const char *intent = arg_text(c, "intent");
	int64_t stop_s = arg_int(c, "timeout_s", -1);
	struct vm_row vm;

	if (vm_read(c, c->name, &vm) < 0)
		return -1;
	c->unchanged = !strcmp(vm.intent, intent);
	/* Somebody looks after it now. */
	if (!c->unchanged && !strcmp(intent, "running") && restarts_forget(c, c->name) < 0)
		return -1;
	/* A guest that still runs has its memory promised already. */
	if (!c->unchanged && !strcmp(intent, "running") && (!vm.status[0] || vm_is_down(&vm)) &&
	    (vm_memory_refresh(c, &vm) < 0 || node_memory_check(c, vm.owner, vm.memory) < 0))
		return -1;
	snprintf(vm.intent, sizeof(vm.intent), "%s", intent);
	answer(c, &vm);
	return sql_run(c->db, c->e, "UPDATE vm SET intent = ?, stop_s = ?, changed = ? WHERE name = ?",
		       sql_text(intent), stop_s < 0 ? sql_null() : sql_int(stop_s), sql_int(c->time),
		       sql_text(c->name));
}

static const struct arg vm_observed_args[] = {
	NEEDED("vm", ARG_NAME),
	NEEDED("node", ARG_NAME),
	NEEDED_IN("epoch", ARG_INT, 1, INT64_MAX),
	NEEDED_OF("status", statuses),
	ALLOWED_IN("pid", ARG_INT, 1, INT32_MAX),
	ALLOWED_IN("note", ARG_TEXT, 1, 1024),
	ALLOWED("detail", ARG_OBJECT),
	ALLOWED_IN("as_of", ARG_INT, 1,
		   INT64_MAX), /* of a guest that is down and shall be: the change of it that is known */
	{0},
};

/* What is kept of a report beside its columns: NULL without an error where that is nothing. Caller frees. */
static int observed_detail(struct change *c, char **ret)
{
	json_t *detail = json_deep_copy(arg_json(c, "detail"));

	if (arg_int(c, "as_of", 0)) {
		detail = detail ? detail : json_object();
		json_object_set_new(detail, "as_of", json_integer(arg_int(c, "as_of", 0)));
	} else if (detail) {
		json_object_del(detail, "as_of");
	}
	*ret = detail ? change_dump(c, detail, DETAIL_MAX, "detail") : NULL;
	json_decref(detail);
	return detail && !*ret ? -1 : 0;
}

static int observed_write(struct change *c, const char *detail)
{
	int64_t pid = arg_int(c, "pid", 0);

	return sql_run(c->db, c->e,
		       "INSERT INTO observed (vm, node, epoch, status, since, time, pid, note, detail) "
		       "VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8) ON CONFLICT (vm) DO UPDATE SET "
		       "since = iif(status = ?4, since, ?5), status = ?4, node = ?2, epoch = ?3, time = ?5, pid = ?6, "
		       "note = ?7, detail = ?8",
		       sql_text(c->name), sql_text(arg_text(c, "node")), sql_int(arg_int(c, "epoch", 0)),
		       sql_text(arg_text(c, "status")), sql_int(c->time), pid ? sql_int(pid) : sql_null(),
		       sql_text(arg_text(c, "note")), sql_text(detail));
}

static int vm_observed(struct change *c)
{
	const char *node = arg_text(c, "node"), *status = arg_text(c, "status");
	_free_ char *detail = NULL;
	struct vm_row vm;

	if (vm_read(c, c->name, &vm) < 0)
		return -1;
	if (strcmp(vm.owner, node) != 0 || vm.epoch != arg_int(c, "epoch", 0))
		return refuse(c, ERR_FORBIDDEN,
			      "belongs to node %s with epoch %" PRId64 "; what node %s saw with epoch %" PRId64
			      " does not count",
			      vm.owner, vm.epoch, node, arg_int(c, "epoch", 0));
	if (node_speaks(c, node, "what it saw") < 0 || observed_detail(c, &detail) < 0)
		return -1;
	c->unchanged = !strcmp(vm.status, status);
	json_object_set_new(c->result, "vm", json_string(c->name));
	json_object_set_new(c->result, "node", json_string(node));
	json_object_set_new(c->result, "status", json_string(status));
	if (arg_text(c, "note"))
		json_object_set_new(c->result, "note", json_string(arg_text(c, "note")));
	return observed_write(c, detail);
}

/* ---- another owner without a migration ---- */

#define VM_PLACE_ARGS                                                                                                  \
	NEEDED("name", ARG_NAME), NEEDED("node", ARG_NAME),                                                            \
		NEEDED_IN("epoch", ARG_INT, 1, INT64_MAX), /* the one that the decision was made for */                \
		ALLOWED("fenced", ARG_BOOL)                /* because the owner is confirmed dead */

static const struct arg vm_place_args_1[] = {VM_PLACE_ARGS, {0}};
static const struct arg vm_place_args[] = {VM_PLACE_ARGS, ALLOWED_IN("reason", ARG_TEXT, 1, 255), {0}};

/* Whether its owner can be passed over: it does not run the guest and will not, whatever is on its way to it. Without
 * its death it has said so itself, knowing what is wanted now: a report from before the guest was last wanted running
 * says nothing, as the owner may have started it since and be out of reach. */
static int place_check(struct change *c, const struct vm_row *vm)
{
	bool wanted = !strcmp(vm->intent, "running");
	const char *life;
	int r = node_is_fenced(c, vm->owner, &life);

	if (r < 0)
		return -1;
	if (arg_true(c, "fenced") && r == 0)
		return refuse(c, ERR_CONFLICT,
			      "node %s is not confirmed dead (%s), so its guests are not free; wait until it is fenced",
			      vm->owner, life);
	if (r > 0)
		return 0;
	if (!vm_is_down(vm))
		return refuse(c, ERR_CONFLICT, "may run on node %s; migrate it, or stop it first", vm->owner);
	if (wanted && strcmp(vm->status, "failed") != 0)
		return refuse(c, ERR_CONFLICT, "shall run on node %s, which may be starting it; stop it first",
			      vm->owner);
	if (vm->as_of != vm->changed)
		return refuse(c, ERR_CONFLICT,
			      "node %s has not said since the last change of it that it is down; wait until it does",
			      vm->owner);
	return 0;
}

/* What HA needs to know of a guest that shall run and got another host. */
static int place_remember(struct change *c, const struct vm_row *vm, bool fenced)
{
	if (strcmp(vm->intent, "running") != 0)
		return 0;
	if (fenced && home_write(c, c->name, vm->owner) < 0)
		return -1;
	return restart_write(c, c->name, fenced ? "host" : failure_kind(vm->cause), arg_text(c, "node"),
			     arg_text(c, "reason"));
}

static int vm_place(struct change *c)
{
	const char *node = arg_text(c, "node"), *reason = arg_text(c, "reason");
	struct vm_row vm;

	if (vm_read(c, c->name, &vm) < 0 || node_need(c, node) < 0 || refuse_while_moving(c, "place it") < 0)
		return -1;
	if (vm.epoch != arg_int(c, "epoch", 0))
		return refuse(c, ERR_CONFLICT, "is at epoch %" PRId64 ", not %" PRId64 "; look at it again", vm.epoch,
			      arg_int(c, "epoch", 0));
	if (!strcmp(vm.owner, node))
		return refuse(c, ERR_CONFLICT, "belongs to node %s already; choose another node", node);
	if (place_check(c, &vm) < 0 || node_takes(c, node) < 0 || vm_memory_refresh(c, &vm) < 0 ||
	    (!strcmp(vm.intent, "running") && node_memory_check(c, node, vm.memory) < 0) ||
	    place_remember(c, &vm, arg_true(c, "fenced")) < 0)
		return -1;
	vm.epoch++;
	snprintf(vm.owner, sizeof(vm.owner), "%s", node);
	answer(c, &vm);
	if (reason)
		json_object_set_new(c->result, "reason", json_string(reason));
	return vm_own(c, c->name, node, vm.epoch, false);
}

/* ---- questions ---- */

#define VM_COLUMNS                                                                                                     \
	"name uuid version memory vcpus intent stop_s owner epoch created changed status since observed pid note "     \
	"detail* migration"
#define VM_SELECT                                                                                                      \
	"SELECT v.name, v.uuid, v.version, v.memory, v.vcpus, v.intent, v.stop_s, v.owner, v.epoch, v.created, "       \
	"v.changed, "                                                                                                  \
	"o.status, o.since, o.time, o.pid, o.note, o.detail, m.id "
#define VM_FROM                                                                                                        \
	"FROM vm v LEFT JOIN observed o ON o.vm = v.name LEFT JOIN migration m ON m.vm = v.name AND m.finished IS "    \
	"NULL "

json_t *state_vm_get(sqlite3 *db, const char *name, struct err *e)
{
	_sql_ sqlite3_stmt *s =
		sql_begin(db, e, VM_SELECT ", v.definition " VM_FROM "WHERE v.name = ?", sql_text(name));

	return first_json(s, VM_COLUMNS " definition*", "vm", name, e);
}

json_t *state_vm_list(sqlite3 *db, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, VM_SELECT VM_FROM "ORDER BY v.name");

	return rows_json(s, VM_COLUMNS, e);
}

json_t *state_vm_list_of(sqlite3 *db, const char *node, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, VM_SELECT VM_FROM "WHERE v.owner = ? ORDER BY v.name", sql_text(node));

	return rows_json(s, VM_COLUMNS, e);
}

/* vm_disk has no kernels, which any number of guests may share. */
json_t *state_vm_files(sqlite3 *db, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(
		db, e,
		"SELECT file, min(made) FROM ("
		"SELECT value AS file, key = 'uefi-vars' AS made FROM vm, json_each(vm.definition) "
		"WHERE key IN ('kernel', 'initrd', 'uefi-vars') "
		"UNION ALL SELECT json_extract(value, '$.file'), 0 FROM vm, json_each(vm.definition, '$.disks')) "
		"WHERE typeof(file) = 'text' GROUP BY file ORDER BY file");

	return rows_json(s, "file made", e);
}

const struct op vm_ops[] = {
	{"vm.observed", "vm", "vm", vm_observed_args, vm_observed, EVENT_REPORT, 1},
	{"vm.intent", "vm", "name", vm_intent_args, vm_intent, EVENT_AUDIT, 1},
	{"vm.create", "vm", NULL, vm_create_args, vm_create, EVENT_AUDIT, 1},
	{"vm.edit", "vm", "name", vm_edit_args, vm_edit, EVENT_AUDIT, 1},
	{"vm.delete", "vm", "name", vm_delete_args, vm_delete, EVENT_AUDIT, 1},
	{"vm.place", "vm", "name", vm_place_args_1, vm_place, EVENT_AUDIT, 1},
	{"vm.place", "vm", "name", vm_place_args, vm_place, EVENT_AUDIT, 2},
	{0},
};
