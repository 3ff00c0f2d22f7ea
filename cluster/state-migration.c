/* SPDX-License-Identifier: Apache-2.0 */
/* State: migrations: created, taken from step to step by those who may (cluster/move.h), cancelled, remembered. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/move.h"
#include "cluster/state-int.h"
#include "cluster/state-vm.h"
#include "cluster/state.h"

#define ENDED_MAX 1000 /* migrations that are remembered after their end */
#define UNDER_WAY_MAX 4096
#define DETAIL_MAX (DEFINITION_MAX + (16U << 10)) /* bytes of JSON: what the source runs is in it */

struct migration_row {
	char vm[64];
	char src[64];
	char dst[64];
	enum move_step step;
	int64_t epoch;
	bool cancel;
};

static int migration_read(struct change *c, struct migration_row *ret)
{
	_sql_ sqlite3_stmt *s = sql_begin(
		c->db, c->e, "SELECT vm, src, dst, step, epoch, cancel FROM migration WHERE id = ?", sql_text(c->name));
	int r = s ? sql_next(s, c->e) : -1;

	if (r < 0)
		return -1;
	if (r == 0)
		return refuse(c, ERR_NOTFOUND,
			      "there is no such migration; `migration list` shows those that are there");
	*ret = (struct migration_row){.step = move_step_find(sql_column_text(s, 3)),
				      .epoch = sqlite3_column_int64(s, 4),
				      .cancel = sqlite3_column_int(s, 5)};
	snprintf(ret->vm, sizeof(ret->vm), "%s", sql_column_text(s, 0));
	snprintf(ret->src, sizeof(ret->src), "%s", sql_column_text(s, 1));
	snprintf(ret->dst, sizeof(ret->dst), "%s", sql_column_text(s, 2));
	return 0;
}

int migration_of(struct change *c, const char *vm, char **ret)
{
	return sql_string(c->db, c->e, ret, "SELECT id FROM migration WHERE vm = ? AND finished IS NULL", sql_text(vm));
}

static void answer(struct change *c, const struct migration_row *m)
{
	json_object_set_new(c->result, "id", json_string(c->name));
	json_object_set_new(c->result, "vm", json_string(m->vm));
	json_object_set_new(c->result, "src", json_string(m->src));
	json_object_set_new(c->result, "dst", json_string(m->dst));
	json_object_set_new(c->result, "step", json_string(move_step_names[m->step]));
	json_object_set_new(c->result, "epoch", json_integer(m->epoch));
}

/* ---- create ---- */

static const struct arg migration_create_args[] = {
	NEEDED("id", ARG_UUID), NEEDED("vm", ARG_NAME), NEEDED("to", ARG_NAME), ALLOWED("options", ARG_OBJECT), {0},
};

/* Options of the move, in the API's words. */
static const struct arg option_args[] = {
	ALLOWED_IN("max_pause_ms", ARG_INT, 1, 3600000),
	ALLOWED_IN("deadline_s", ARG_INT, 1, 604800),
	ALLOWED("auto_converge", ARG_BOOL),
	ALLOWED_IN("bandwidth", ARG_INT, 1, INT64_MAX), /* bytes/s */
	ALLOWED_IN("priority", ARG_INT, -1000, 1000),
	{0},
};

static int options_check(struct change *c, const json_t *options)
{
	struct change inner = *c;

	inner.args = options;
	return args_check(&inner, option_args, NULL);
}

/* Whether guest and destination let a move be created now. */
static int create_check(struct change *c, const struct vm_row *vm, const char *name, const char *to)
{
	_free_ char *other = NULL;
	int64_t n = 0;
	int r = sql_number(c->db, c->e, &n, "SELECT 1 FROM migration WHERE id = ?", sql_text(c->name));

	if (r > 0)
		return refuse(c, ERR_CONFLICT, "exists already; use a new id for each migration");
	if (r < 0 || node_need(c, to) < 0 || node_takes(c, to) < 0)
		return -1;
	if (!strcmp(vm->owner, to))
		return refuse(c, ERR_CONFLICT, "vm %s is on node %s already; choose another node", name, to);
	r = migration_of(c, name, &other);
	if (r > 0)
		return refuse(c, ERR_CONFLICT, "vm %s is being moved already (migration %s); cancel that first", name,
			      other);
	if (r < 0)
		return -1;
	if (strcmp(vm->status, "running") != 0 && strcmp(vm->status, "paused") != 0)
		return refuse(c, ERR_CONFLICT, "vm %s is not known to run on node %s (%s); start it first", name,
			      vm->owner, vm->status[0] ? vm->status : "no report yet");
	if (sql_number(c->db, c->e, &n, "SELECT count(*) FROM migration WHERE finished IS NULL") < 0)
		return -1;
	if (n >= UNDER_WAY_MAX)
		return refuse(c, ERR_UNAVAILABLE, "%d migrations wait or go on already; try again later",
			      UNDER_WAY_MAX);
	return node_memory_check(c, to, vm->memory);
}

static int migration_create(struct change *c)
{
	const char *name = arg_text(c, "vm"), *to = arg_text(c, "to");
	const json_t *options = arg_json(c, "options");
	_free_ char *text = NULL;
	struct migration_row m = {.step = MOVE_QUEUED};
	struct vm_row vm;

	if (options && options_check(c, options) < 0)
		return -1;
	text = options ? change_dump(c, options, DETAIL_MAX, "options") : xstrdup("{}");
	if (!text || vm_read(c, name, &vm) < 0 || create_check(c, &vm, name, to) < 0)
		return -1;
	m.epoch = vm.epoch;
	snprintf(m.vm, sizeof(m.vm), "%s", name);
	snprintf(m.src, sizeof(m.src), "%s", vm.owner);
	snprintf(m.dst, sizeof(m.dst), "%s", to);
	answer(c, &m);
	return sql_run(c->db, c->e,
		       "INSERT INTO migration (id, number, vm, src, dst, step, epoch, options, cancel, restart, by, "
		       "created, changed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, ?9, ?10, ?10)",
		       sql_text(c->name), sql_int((int64_t)c->index), sql_text(name), sql_text(m.src), sql_text(to),
		       sql_text(move_step_names[m.step]), sql_int(m.epoch), sql_text(text), sql_text(c->by),
		       sql_int(c->time));
}

/* ---- steps ---- */

/* Forget the oldest of those that have ended. */
static int ended_prune(struct change *c)
{
	return sql_run(c->db, c->e,
		       "DELETE FROM migration WHERE finished IS NOT NULL AND number <= (SELECT number FROM migration "
		       "WHERE finished IS NOT NULL ORDER BY number DESC LIMIT 1 OFFSET ?)",
		       sql_int(ENDED_MAX));
}

/* The destination owns the guest from here on. */
static int commit(struct change *c, const struct migration_row *m)
{
	json_t *data = json_pack("{s:s, s:s, s:I, s:s}", "name", m->vm, "owner", m->dst, "epoch",
				 (json_int_t)m->epoch + 1, "from", m->src);

	/* Where a move takes it, it is at home. */
	if (vm_own(c, m->vm, m->dst, m->epoch + 1, true) < 0 || home_write(c, m->vm, NULL) < 0) {
		json_decref(data);
		return -1;
	}
	return change_event(c, "vm.moved", m->vm, data);
}

/* The invariant of the new step against the guest as it is now. */
static int invariant_check(struct change *c, const struct migration_row *m)
{
	struct move_facts f = {.step = m->step, .epoch_then = m->epoch};
	struct err e = ERR_INIT;
	struct vm_row vm;

	if (vm_read(c, m->vm, &vm) < 0)
		return -1;
	f.owner_is_src = !strcmp(vm.owner, m->src);
	f.owner_is_dst = !strcmp(vm.owner, m->dst);
	f.epoch_now = vm.epoch;
	return move_invariant(&f, &e) < 0 ? refuse(c, e.code, "%s", e.text) : 0;
}

static const struct arg migration_step_args[] = {
	NEEDED("id", ARG_UUID),
	NEEDED_OF("step", move_step_names),
	NEEDED_OF("role", move_role_names),
	NEEDED("node", ARG_NAME),
	NEEDED_IN("epoch", ARG_INT, 1, INT64_MAX), /* that of the migration */
	ALLOWED_OF("from", move_step_names),       /* the step that it was decided for; a manager must say it */
	ALLOWED("restart", ARG_BOOL),              /* with failed: see the schema */
	ALLOWED_IN("note", ARG_TEXT, 1, 1024),
	ALLOWED_IN("error", ARG_TEXT, 1, 1024),
	ALLOWED("detail", ARG_OBJECT),
	{0},
};

/* Whether who asks may take this step now. Sets c->unchanged when it is taken already. */
static int step_check(struct change *c, const struct migration_row *m, enum move_step to)
{
	enum move_role role = move_role_find(arg_text(c, "role"));
	const char *node = arg_text(c, "node"), *from = arg_text(c, "from");
	struct err e = ERR_INIT;

	if (arg_int(c, "epoch", 0) != m->epoch)
		return refuse(c, ERR_CONFLICT, "has epoch %" PRId64 ", not %" PRId64 "; look at it again", m->epoch,
			      arg_int(c, "epoch", 0));
	if (role != MOVE_MANAGER && strcmp(node, role == MOVE_SRC ? m->src : m->dst) != 0)
		return refuse(c, ERR_FORBIDDEN, "node %s is not its %s, which is node %s", node,
			      role == MOVE_SRC ? "source" : "destination", role == MOVE_SRC ? m->src : m->dst);
	if (role != MOVE_MANAGER && node_speaks(c, node, "what it says of a move") < 0)
		return -1;
	if (to == m->step) {
		c->unchanged = true;
		return 0;
	}
	if (role == MOVE_MANAGER && !from)
		return refuse(c, ERR_INPUT, "from is missing: a manager must say which step it decided for");
	if (from && move_step_find(from) != m->step)
		return refuse(c, ERR_CONFLICT, "is %s, and this was decided while it was %s; look at it again",
			      move_step_names[m->step], from);
	if (move_step_check(m->step, to, role, &e) < 0)
		return refuse(c, e.code, "%s", e.text);
	if (m->cancel && to <= MOVE_AGREED)
		return refuse(c, ERR_CANCELLED, "somebody asked to cancel it; take it to cancelled");
	if (arg_true(c, "restart") && to != MOVE_FAILED)
		return refuse(c, ERR_INPUT, "restart goes with step failed only");
	return 0;
}

static int step_write(struct change *c, enum move_step to)
{
	const json_t *detail = arg_json(c, "detail");
	_free_ char *text = detail ? change_dump(c, detail, DETAIL_MAX, "detail") : NULL;

	if (detail && !text)
		return -1;
	return sql_run(c->db, c->e,
		       "UPDATE migration SET step = ?1, restart = ?2, note = coalesce(?3, note), "
		       "error = coalesce(?4, error), detail = coalesce(?5, detail), changed = ?6, "
		       "finished = iif(?7, ?6, NULL) WHERE id = ?8",
		       sql_text(move_step_names[to]), sql_int(arg_true(c, "restart")), sql_text(arg_text(c, "note")),
		       sql_text(arg_text(c, "error")), sql_text(text), sql_int(c->time), sql_int(move_step_ended(to)),
		       sql_text(c->name));
}

static int migration_step(struct change *c)
{
	enum move_step to = move_step_find(arg_text(c, "step"));
	struct migration_row m;

	if (migration_read(c, &m) < 0 || step_check(c, &m, to) < 0)
		return -1;
	m.step = to;
	answer(c, &m);
	if (c->unchanged)
		return 0;
	if (arg_text(c, "error"))
		json_object_set_new(c->result, "error", json_string(arg_text(c, "error")));
	if (to == MOVE_COMMITTED && commit(c, &m) < 0)
		return -1;
	if (invariant_check(c, &m) < 0 || step_write(c, to) < 0)
		return -1;
	return move_step_ended(to) ? ended_prune(c) : 0;
}

/* ---- cancel ---- */

static const struct arg migration_cancel_args[] = {NEEDED("id", ARG_UUID), {0}};

static int migration_cancel(struct change *c)
{
	struct migration_row m;

	if (migration_read(c, &m) < 0)
		return -1;
	if (move_step_ended(m.step))
		return refuse(c, ERR_CONFLICT, "has ended already (%s); there is nothing left to cancel",
			      move_step_names[m.step]);
	if (!move_step_cancels(m.step))
		return refuse(c, ERR_CONFLICT,
			      "is %s: the guest is being handed over, which cannot be called back; wait for its end",
			      move_step_names[m.step]);
	c->unchanged = m.cancel;
	if (m.step == MOVE_QUEUED)
		m.step = MOVE_CANCELLED;
	answer(c, &m);
	json_object_set_new(c->result, "cancel", json_true());
	if (sql_run(c->db, c->e,
		    "UPDATE migration SET cancel = 1, step = ?1, changed = ?2, finished = iif(?3, ?2, NULL) WHERE id = "
		    "?4",
		    sql_text(move_step_names[m.step]), sql_int(c->time), sql_int(move_step_ended(m.step)),
		    sql_text(c->name)) < 0)
		return -1;
	return ended_prune(c);
}

/* ---- questions ---- */

#define MIGRATION_COLUMNS                                                                                              \
	"id number vm src dst step epoch options* cancel? restart? note error detail* by created changed finished"
#define MIGRATION_SELECT                                                                                               \
	"SELECT id, number, vm, src, dst, step, epoch, options, cancel, restart, note, error, detail, by, created, "   \
	"changed, finished FROM migration "

json_t *state_migration_get(sqlite3 *db, const char *id, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, MIGRATION_SELECT "WHERE id = ?", sql_text(id));

	return first_json(s, MIGRATION_COLUMNS, "migration", id, e);
}

json_t *state_migration_list(sqlite3 *db, bool active, struct err *e)
{
	_sql_ sqlite3_stmt *s =
		sql_begin(db, e, MIGRATION_SELECT "WHERE finished IS NULL OR NOT ? ORDER BY number", sql_int(active));

	return rows_json(s, MIGRATION_COLUMNS, e);
}

const struct op migration_ops[] = {
	{"migration.step", "migration", "id", migration_step_args, migration_step, EVENT_REPORT, 1},
	{"migration.create", "migration", "id", migration_create_args, migration_create, EVENT_AUDIT, 1},
	{"migration.cancel", "migration", "id", migration_cancel_args, migration_cancel, EVENT_AUDIT, 1},
	{0},
};
