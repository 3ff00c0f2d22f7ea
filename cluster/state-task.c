/* SPDX-License-Identifier: Apache-2.0 */
/* State: tasks: what a long action is doing, so that any host can tell whoever asked for it. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state-int.h"
#include "cluster/state.h"

#define ENDED_MAX 1000         /* tasks that are remembered after their end */
#define RESULT_MAX (16U << 10) /* bytes of JSON */

static const char *const states_open[] = {"queued", "running", NULL};
static const char *const states_ended[] = {"done", "failed", "cancelled", NULL};

/* Refuse what is not there or has ended. */
static int task_need_open(struct change *c)
{
	_free_ char *state = NULL;
	int64_t finished;
	int r = sql_string(c->db, c->e, &state, "SELECT state FROM task WHERE id = ?", sql_text(c->name));

	if (r == 0)
		return refuse(c, ERR_NOTFOUND, "there is no such task");
	if (r > 0)
		r = sql_number(c->db, c->e, &finished, "SELECT finished FROM task WHERE id = ?", sql_text(c->name));
	if (r > 0)
		return refuse(c, ERR_CONFLICT, "has ended already (%s)", state);
	return r;
}

static const struct arg task_create_args[] = {
	NEEDED("id", ARG_UUID),
	NEEDED_IN("kind", ARG_TEXT, 1, 64), /* "vm.start" */
	ALLOWED_IN("object", ARG_TEXT, 1, 255),
	ALLOWED("node", ARG_NAME), /* who works on it: if that host dies, somebody must end the task */
	ALLOWED_IN("note", ARG_TEXT, 1, 1024),
	{0},
};

static int task_create(struct change *c)
{
	int64_t there;
	int r = sql_number(c->db, c->e, &there, "SELECT 1 FROM task WHERE id = ?", sql_text(c->name));

	if (r > 0)
		return refuse(c, ERR_CONFLICT, "exists already; use a new id for each task");
	if (r < 0)
		return -1;
	json_object_set_new(c->result, "id", json_string(c->name));
	json_object_set_new(c->result, "kind", json_string(arg_text(c, "kind")));
	json_object_set_new(c->result, "state", json_string("queued"));
	if (arg_text(c, "object"))
		json_object_set_new(c->result, "object", json_string(arg_text(c, "object")));
	return sql_run(c->db, c->e,
		       "INSERT INTO task (id, number, kind, object, node, state, progress, note, by, created, changed) "
		       "VALUES (?1, ?2, ?3, ?4, ?5, 'queued', 0.0, ?6, ?7, ?8, ?8)",
		       sql_text(c->name), sql_int((int64_t)c->index), sql_text(arg_text(c, "kind")),
		       sql_text(arg_text(c, "object")), sql_text(arg_text(c, "node")), sql_text(arg_text(c, "note")),
		       sql_text(c->by), sql_int(c->time));
}

static const struct arg task_update_args[] = {
	NEEDED("id", ARG_UUID),
	ALLOWED_OF("state", states_open),
	ALLOWED_IN("progress", ARG_NUMBER, 0, 1),
	ALLOWED_IN("eta_ms", ARG_INT, 0, INT64_MAX),
	ALLOWED_IN("wire_rate", ARG_INT, 0, INT64_MAX), /* of a move, for whoever watches: in the event only. Bytes/s */
	ALLOWED_IN("dirty_rate", ARG_INT, 0, INT64_MAX), /* that the guest writes */
	ALLOWED_IN("remaining", ARG_INT, 0, INT64_MAX),  /* bytes of this pass */
	ALLOWED("node", ARG_NAME),
	ALLOWED_IN("note", ARG_TEXT, 1, 1024),
	{0},
};

static int task_update(struct change *c)
{
	const json_t *progress = arg_json(c, "progress"), *eta = arg_json(c, "eta_ms");

	if (task_need_open(c) < 0)
		return -1;
	json_object_update_missing(c->result, (json_t *)c->args);
	return sql_run(c->db, c->e,
		       "UPDATE task SET state = coalesce(?1, state), progress = coalesce(?2, progress), eta_ms = ?3, "
		       "node = coalesce(?4, node), note = coalesce(?5, note), changed = ?6 WHERE id = ?7",
		       sql_text(arg_text(c, "state")), progress ? sql_real(json_number_value(progress)) : sql_null(),
		       eta ? sql_int(json_integer_value(eta)) : sql_null(), sql_text(arg_text(c, "node")),
		       sql_text(arg_text(c, "note")), sql_int(c->time), sql_text(c->name));
}

static const struct arg task_finish_args[] = {
	NEEDED("id", ARG_UUID),
	NEEDED_OF("state", states_ended),
	ALLOWED_IN("error", ARG_TEXT, 1, 1024),
	ALLOWED("result", ARG_ANY),
	{0},
};

static int task_finish(struct change *c)
{
	const char *state = arg_text(c, "state"), *error = arg_text(c, "error");
	const json_t *result = arg_json(c, "result");
	_free_ char *text = result ? change_dump(c, result, RESULT_MAX, "result") : NULL;

	if ((result && !text) || task_need_open(c) < 0)
		return -1;
	json_object_set_new(c->result, "id", json_string(c->name));
	json_object_set_new(c->result, "state", json_string(state));
	if (error)
		json_object_set_new(c->result, "error", json_string(error));
	if (sql_run(c->db, c->e,
		    "UPDATE task SET state = ?1, error = ?2, result = ?3, progress = iif(?1 = 'done', 1.0, progress), "
		    "eta_ms = NULL, changed = ?4, finished = ?4 WHERE id = ?5",
		    sql_text(state), sql_text(error), sql_text(text), sql_int(c->time), sql_text(c->name)) < 0)
		return -1;
	return sql_run(c->db, c->e,
		       "DELETE FROM task WHERE finished IS NOT NULL AND number <= (SELECT number FROM task "
		       "WHERE finished IS NOT NULL ORDER BY number DESC LIMIT 1 OFFSET ?)",
		       sql_int(ENDED_MAX));
}

#define TASK_COLUMNS "id number kind object node state progress eta_ms note error result* by created changed finished"
#define TASK_SELECT                                                                                                    \
	"SELECT id, number, kind, object, node, state, progress, eta_ms, note, error, result, by, created, changed, "  \
	"finished FROM task "

json_t *state_task_get(sqlite3 *db, const char *id, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, TASK_SELECT "WHERE id = ?", sql_text(id));

	return first_json(s, TASK_COLUMNS, "task", id, e);
}

json_t *state_task_list(sqlite3 *db, bool active, struct err *e)
{
	_sql_ sqlite3_stmt *s =
		sql_begin(db, e, TASK_SELECT "WHERE finished IS NULL OR NOT ? ORDER BY number", sql_int(active));

	return rows_json(s, TASK_COLUMNS, e);
}

const struct op task_ops[] = {
	{"task.update", "task", "id", task_update_args, task_update, EVENT_REPORT, 1},
	{"task.create", "task", "id", task_create_args, task_create, EVENT_REPORT, 1},
	{"task.finish", "task", "id", task_finish_args, task_finish, EVENT_REPORT, 1},
	{0},
};
