/* SPDX-License-Identifier: Apache-2.0 */
/* The replicated state machine: takes one command apart, finds its operation, writes down what it did.
 *
 * Theory of operation
 * -------------------
 * Every member applies the same commands in the same order to its own database and must end with the same rows. So an
 * operation depends on the command and on the rows, and on nothing else: times, ids and random values travel in the
 * command; no query whose order matters goes without ORDER BY; JSON is stored with sorted keys. state_digest() over two
 * databases tells whether that held.
 *
 * The caller opens a savepoint around state_apply() and rolls back when it answers -1, so an operation may find out
 * late that it must refuse. Two kinds of -1 must be told apart by the caller:
 *
 *   any code but ERR_SYSTEM   a refusal: the same on every member, an answer like any other
 *   ERR_SYSTEM                this member's disk, memory or file failed; the others may well have applied the command.
 *                             It must stop applying and be repaired (resync), never go on with the next command.
 *
 * Written down. Each applied command leaves a row in the table event: number, id of the request, time, who, from where,
 * operation, object, answer. It serves three readers, by its level: whoever applies the same command again (all of
 * them), `events -f` (reports and decisions), and the audit log (decisions of somebody). Reports are kept for EVENT_MAX
 * events, decisions for AUDIT_MAX: otherwise a guest that crashes once a second would push out who deleted the other
 * one.
 *
 * Applied twice. A caller whose request may or may not have been applied sends it again with the same id. Among the
 * newest RECENT_MAX events it is found (cluster/state-recent.h) and gets the answer of the first time. A refused
 * command has changed nothing, so its id is not kept: it is judged afresh when it comes again.
 */
#include "cluster/state.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/machine.h"
#include "cluster/state-int.h"
#include "cluster/state-recent.h"

#define EVENT_MAX 16384 /* at least RECENT_MAX */
#define AUDIT_MAX 65536
#define PRUNE_EVERY 256            /* events */
#define ANSWER_MAX (64U << 10)     /* bytes of JSON */
#define TIME_MAX 253402300799000LL /* ms: the end of the year 9999 */

static const struct op *const op_tables[] = {access_ops,  vm_ops,   node_ops,  migration_ops, task_ops,
					     network_ops, life_ops, fence_ops, ha_ops};

/* As it is in commands of @version: the newest row up to that. NULL: it is not in them. */
static const struct op *op_find(const char *name, unsigned version)
{
	const struct op *found = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(op_tables); i++)
		for (const struct op *op = op_tables[i]; op->name; op++)
			if (!strcmp(op->name, name) && op->since <= version && (!found || op->since > found->since))
				found = op;
	return found;
}

static bool op_has_args(const struct op *op, const json_t *args)
{
	const char *key;
	json_t *v;

	json_object_foreach ((json_t *)args, key, v) {
		const struct arg *a = op->args;

		while (a->name && strcmp(a->name, key) != 0)
			a++;
		if (!a->name)
			return false;
	}
	return true;
}

unsigned state_command_version(const char *op, const json_t *args)
{
	for (unsigned v = 1; v < STATE_COMMAND_VERSION; v++) {
		const struct op *found = op_find(op, v);

		if (found && op_has_args(found, args))
			return v;
	}
	return STATE_COMMAND_VERSION;
}

/* ---- the envelope ---- */

static const char *envelope_text(const json_t *command, const char *field, size_t max, struct err *e)
{
	const json_t *v = json_object_get(command, field);

	if (text_is_plain(v, 1, max))
		return json_string_value(v);
	err_set(e, ERR_INPUT, "command: %s must be a text of 1 to %zu bytes", field, max);
	return NULL;
}

static int hex_value(char ch)
{
	return ch <= '9' ? ch - '0' : ch - 'a' + 10;
}

/* The 16 bytes of a UUID. */
static void uuid_bytes(const char *s, uint8_t ret[16])
{
	for (int i = 0; i < 16; i++) {
		s += *s == '-';
		ret[i] = (uint8_t)(hex_value(s[0]) << 4 | hex_value(s[1]));
		s += 2;
	}
}

static int envelope_read(const json_t *command, struct change *c, const struct op **ret_op, uint8_t id[16])
{
	const json_t *v = json_object_get(command, "v"), *time = json_object_get(command, "time");
	const char *op = envelope_text(command, "op", 64, c->e);
	const char *uuid = envelope_text(command, "id", 36, c->e);

	c->by = envelope_text(command, "by", 255, c->e);
	c->from = envelope_text(command, "from", 255, c->e);
	c->args = json_object_get(command, "args");
	c->time = json_integer_value(time);
	if (!op || !uuid || !c->by || !c->from)
		return -1;
	if (!text_is_uuid(uuid))
		return err_set(c->e, ERR_INPUT, "command: id must be a UUID in lower case");
	if (!json_is_integer(time) || c->time < 0 || c->time > TIME_MAX)
		return err_set(c->e, ERR_INPUT, "command: time must be milliseconds since 1970");
	if (!json_is_object(c->args))
		return err_set(c->e, ERR_INPUT, "command: args must be an object {...}");
	if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > state_machine.version)
		return err_set(c->e, ERR_UNSUPPORTED,
			       "command %s: its version is not one of 1 to %u that this godwitd knows; upgrade it", op,
			       state_machine.version);
	*ret_op = op_find(op, (unsigned)json_integer_value(v));
	if (!*ret_op && op_find(op, state_machine.version))
		return err_set(c->e, ERR_UNSUPPORTED,
			       "command %s: version %d has no such command; send it as version %u", op,
			       (int)json_integer_value(v), state_command_version(op, NULL));
	if (!*ret_op)
		return err_set(c->e, ERR_UNSUPPORTED, "command %s: this godwitd does not know it; upgrade it", op);
	uuid_bytes(uuid, id);
	return 0;
}

/* ---- events ---- */

static int events_prune(struct change *c, int64_t newest)
{
	/* What is older than a window of PRUNE_EVERY went the last time, so only that window is looked at. */
	int64_t reports_to = newest - EVENT_MAX;

	if (newest % PRUNE_EVERY != 0)
		return 0;
	if (sql_run(c->db, c->e, "DELETE FROM event WHERE seq > ? AND seq <= ? AND level < ?",
		    sql_int(reports_to - PRUNE_EVERY), sql_int(reports_to), sql_int(EVENT_AUDIT)) < 0)
		return -1;
	return sql_run(c->db, c->e, "DELETE FROM event WHERE seq <= ?", sql_int(newest - AUDIT_MAX));
}

static int event_write(struct change *c, enum event_level level, const uint8_t *id, const char *op, const char *object,
		       const char *data)
{
	int64_t seq = recent_newest(c->recent) + 1;

	if (sql_run(c->db, c->e,
		    "INSERT INTO event (seq, level, id, chain, time, by, origin, op, object, data) "
		    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		    sql_int(seq), sql_int(level), id ? sql_blob(id, 16) : sql_null(),
		    sql_int(recent_chain(c->recent, id)), sql_int(c->time), sql_text(c->by), sql_text(c->from),
		    sql_text(op), sql_text(object), sql_text(data)) < 0)
		return -1;
	recent_add(c->recent, seq, id);
	return events_prune(c, seq);
}

int change_event(struct change *c, const char *op, const char *object, json_t *data)
{
	_free_ char *text = change_dump(c, data, ANSWER_MAX, "the event");

	json_decref(data);
	return text ? event_write(c, EVENT_REPORT, NULL, op, object, text) : -1;
}

/* The answer that the same command got before: 1, 0 if it is new, -1. */
static int applied_before(struct change *c, const struct op *op, const uint8_t id[16], json_t **ret)
{
	int64_t seq = recent_find(c->recent, id);
	_sql_ sqlite3_stmt *s = NULL;
	int r;

	if (seq == 0)
		return 0;
	s = sql_begin(c->db, c->e, "SELECT op, data FROM event WHERE seq = ? AND id = ?", sql_int(seq),
		      sql_blob(id, 16));
	r = s ? sql_next(s, c->e) : -1;
	if (r < 0)
		return -1;
	if (r == 0)
		return err_set(c->e, ERR_SYSTEM, "state database: event %lld is not there", (long long)seq);
	if (strcmp(sql_column_text(s, 0), op->name) != 0)
		return err_set(c->e, ERR_INPUT, "command: its id was that of a %s; use a new one for each request",
			       sql_column_text(s, 0));
	*ret = column_json(s, 1);
	return 1;
}

/* ---- applying ---- */

static int op_run(struct change *c, const struct op *op, const uint8_t id[16])
{
	_free_ char *answer = NULL;

	c->kind = op->kind;
	if (args_check(c, op->args, op->object) < 0 || op->apply(c) < 0)
		return -1;
	answer = change_dump(c, c->result, ANSWER_MAX, "the answer");
	if (!answer)
		return -1;
	return event_write(c, c->unchanged ? EVENT_QUIET : op->level, id, op->name, c->name, answer);
}

static int state_apply(sqlite3 *db, uint64_t index, const json_t *command, json_t **ret_result, struct err *e)
{
	struct change c = {.db = db, .index = index, .e = e};
	const struct op *op;
	uint8_t id[16];
	int r;

	if (envelope_read(command, &c, &op, id) < 0)
		return -1;
	c.recent = recent_get(db, e);
	if (!c.recent)
		return -1;
	r = applied_before(&c, op, id, ret_result);
	if (r != 0)
		return r < 0 ? -1 : 0;
	c.result = json_object();
	if (op_run(&c, op, id) < 0) {
		json_decref(c.result);
		return -1;
	}
	*ret_result = c.result;
	return 0;
}

/* ---- hosts ---- */

static unsigned state_hosts(sqlite3 *db)
{
	json_t *nodes = state_node_list(db, NULL);
	unsigned n = (unsigned)json_array_size(nodes);

	json_decref(nodes);
	return n;
}

static int state_hosts_change(const json_t *command)
{
	const char *op = json_string_value(json_object_get(command, "op"));

	return !op ? 0 : !strcmp(op, "node.join") ? 1 : !strcmp(op, "node.remove") ? -1 : 0;
}

const struct machine state_machine = {
	.hosts = state_hosts,
	.hosts_change = state_hosts_change,
	.version = STATE_COMMAND_VERSION,
	.schema = state_schema,
	.apply = state_apply,
	.digest = state_digest,
};

/* ---- questions ---- */

#define EVENT_COLUMNS "seq time by from op object data*"

json_t *state_event_list(sqlite3 *db, int64_t since, int64_t limit, struct err *e)
{
	_sql_ sqlite3_stmt *s =
		sql_begin(db, e,
			  "SELECT seq, time, by, origin, op, object, data FROM event WHERE level > 0 AND seq > ? "
			  "ORDER BY seq LIMIT ?",
			  sql_int(since), sql_int(limit));

	return rows_json(s, EVENT_COLUMNS, e);
}

int state_event_newest(sqlite3 *db, int64_t *ret, struct err *e)
{
	int64_t seq = 0;

	if (sql_number(db, e, &seq, "SELECT max(seq) FROM event") < 0)
		return -1;
	*ret = seq;
	return 0;
}

json_t *state_audit_list(sqlite3 *db, int64_t before, int64_t limit, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e,
					  "SELECT seq, time, by, origin, op, object, data FROM event "
					  "WHERE level = 2 AND seq < ? ORDER BY seq DESC LIMIT ?",
					  sql_int(before > 0 ? before : INT64_MAX), sql_int(limit));

	return rows_json(s, EVENT_COLUMNS, e);
}
