/* SPDX-License-Identifier: Apache-2.0 */
/* State: what HA is to do for each guest, what guests wait for, how often HA has started them, and where they belong.
 *
 * A guest that failed (status failed) while it shall run is never started again by its agent alone: the manager lets it
 * start where it is by vm.restart, or elsewhere by vm.place. Both name the epoch that they were decided for and make it
 * one higher, so of two that cross each other the second is refused, and no two hosts start one guest.
 *
 * A guest waits for others ("after") when HA starts it. A ring of guests that wait for each other would never start, so
 * it is refused, and so is deleting a guest that others wait for: whoever deletes it should say what they are to do.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state-int.h"
#include "cluster/state-vm.h"
#include "cluster/state.h"

#define AFTER_MAX 16
#define PRIORITY 100   /* of a guest for which nobody has said one */
#define RESTARTS 3     /* likewise, in an hour */
#define BEARS_MAX 4096 /* bytes of JSON */

static const char *const modes[] = {"restart", "none", "default", NULL};
static const char *const failbacks[] = {"never", "when-idle", NULL};
static const char *const untils[] = {"running", "delay", "port", NULL};
static const char *const restart_kinds[] = {"crash", "failed", "host", "asked", NULL};

/* ---- what a guest waits for ---- */

static const struct arg after_args[] = {
	NEEDED("vm", ARG_NAME),
	NEEDED_OF("until", untils),
	ALLOWED_IN("seconds", ARG_INT, 1, 86400), /* with delay: it has run for so long */
	ALLOWED_IN("address", ARG_TEXT, 3, 255),  /* with port: ADDRESS:PORT accepts connections */
	{0},
};

/* "10.0.0.5:80", "[fd00::5]:80", "db.example:80": what can be connected to is not for the state to find out. */
static bool text_is_port(const char *s)
{
	const char *colon = strrchr(s, ':');
	char *end;
	long port;

	if (!colon || colon == s || colon[1] < '0' || colon[1] > '9')
		return false;
	port = strtol(colon + 1, &end, 10);
	return !*end && port >= 1 && port <= 65535;
}

static int after_check(struct change *c, const json_t *item)
{
	const char *until = json_string_value(json_object_get(item, "until"));
	const char *other = json_string_value(json_object_get(item, "vm"));
	const char *address = json_string_value(json_object_get(item, "address"));
	bool seconds = json_is_integer(json_object_get(item, "seconds"));

	if (!strcmp(other, c->name))
		return refuse(c, ERR_INPUT, "cannot wait for itself");
	if (seconds != !strcmp(until, "delay"))
		return refuse(c, ERR_INPUT, "after: seconds go with until delay, and with nothing else (vm %s)", other);
	if ((address != NULL) != !strcmp(until, "port"))
		return refuse(c, ERR_INPUT, "after: an address goes with until port, and with nothing else (vm %s)",
			      other);
	if (address && !text_is_port(address))
		return refuse(c, ERR_INPUT, "after: address must be ADDRESS:PORT, such as 10.0.0.5:80 (vm %s)", other);
	return 0;
}

static int after_add(struct change *c, size_t place, const json_t *item)
{
	const char *other = json_string_value(json_object_get(item, "vm"));
	const json_t *seconds = json_object_get(item, "seconds");
	struct vm_row vm;
	int64_t there;
	int r;

	if (vm_read(c, other, &vm) < 0)
		return -1;
	r = sql_number(c->db, c->e, &there, "SELECT 1 FROM vm_after WHERE vm = ? AND other = ?", sql_text(c->name),
		       sql_text(other));
	if (r > 0)
		return refuse(c, ERR_INPUT, "after: vm %s is given twice", other);
	if (r < 0)
		return -1;
	return sql_run(c->db, c->e,
		       "INSERT INTO vm_after (vm, other, place, until, seconds, address) VALUES (?, ?, ?, ?, ?, ?)",
		       sql_text(c->name), sql_text(other), sql_int((int64_t)place),
		       sql_text(json_string_value(json_object_get(item, "until"))),
		       json_is_integer(seconds) ? sql_int(json_integer_value(seconds)) : sql_null(),
		       sql_text(json_string_value(json_object_get(item, "address"))));
}

/* The first of those that @vm waits for which waits, at some distance, for c->name, or is it: 1, 0 none, -1. */
static int ring_next(struct change *c, const char *vm, char **ret)
{
	return sql_string(
		c->db, c->e, ret,
		"WITH RECURSIVE before(vm) AS (SELECT ?1 UNION SELECT a.vm FROM vm_after a JOIN before b ON "
		"a.other = b.vm) SELECT other FROM vm_after WHERE vm = ?2 AND other IN (SELECT vm FROM before) "
		"ORDER BY other LIMIT 1",
		sql_text(c->name), sql_text(vm));
}

/* Refuse a ring, by the names in it. There was none before this command, so one goes through c->name. */
static int ring_check(struct change *c)
{
	char text[512] = "";
	_free_ char *at = xstrdup(c->name);

	for (;;) {
		_free_ char *next = NULL;
		int r = ring_next(c, at, &next);
		size_t used = strlen(text);

		if (r <= 0)
			return r; /* only at the first step: further on there is always a next one */
		snprintf(text + used, sizeof(text) - used, "%s waits for %s, ", at, next);
		if (!strcmp(next, c->name))
			break;
		free(at);
		at = steal_ptr(next);
	}
	return refuse(c, ERR_CONFLICT, "would wait for itself: %sso none of them would ever start", text);
}

static int after_write(struct change *c, const json_t *list)
{
	struct change inner = *c;
	json_t *item;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > AFTER_MAX)
		return refuse(c, ERR_INPUT, "after must be a list of at most %d", AFTER_MAX);
	if (sql_run(c->db, c->e, "DELETE FROM vm_after WHERE vm = ?", sql_text(c->name)) < 0)
		return -1;
	json_array_foreach (list, i, item) {
		if (!json_is_object(item))
			return refuse(c, ERR_INPUT, "after[%zu] must be an object {...}", i);
		inner.args = item;
		if (args_check(&inner, after_args, NULL) < 0)
			return -1;
		if (after_check(c, item) < 0 || after_add(c, i, item) < 0)
			return -1;
	}
	return ring_check(c);
}

/* ---- vm.ha ---- */

static const struct arg vm_ha_args[] = {
	NEEDED("name", ARG_NAME),                                   /* what is left out stays as it is */
	ALLOWED_OF("mode", modes),                                  /* default: as the setting ha.default says */
	ALLOWED_IN("priority", ARG_INT, 0, 1000),                   /* higher first */
	ALLOWED_IN("max_restarts", ARG_INT, 0, STATE_RESTARTS_MAX), /* in an hour */
	ALLOWED_OF("failback", failbacks),
	ALLOWED("after", ARG_ANY), /* [{vm, until, seconds, address}] */
	{0},
};

static int vm_ha(struct change *c)
{
	const char *mode = arg_text(c, "mode"), *failback = arg_text(c, "failback");
	const json_t *after = arg_json(c, "after");
	struct vm_row vm;

	if (vm_read(c, c->name, &vm) < 0 ||
	    sql_run(c->db, c->e,
		    "INSERT OR IGNORE INTO vm_ha (vm, priority, max_restarts, failback) VALUES (?, ?, ?, 'never')",
		    sql_text(c->name), sql_int(PRIORITY), sql_int(RESTARTS)) < 0 ||
	    sql_run(c->db, c->e,
		    "UPDATE vm_ha SET mode = iif(?2 IS NULL, mode, nullif(?2, 'default')), "
		    "priority = iif(?3 < 0, priority, ?3), max_restarts = iif(?4 < 0, max_restarts, ?4), "
		    "failback = coalesce(?5, failback) WHERE vm = ?1",
		    sql_text(c->name), sql_text(mode), sql_int(arg_int(c, "priority", -1)),
		    sql_int(arg_int(c, "max_restarts", -1)), sql_text(failback)) < 0)
		return -1;
	if (after && after_write(c, after) < 0)
		return -1;
	json_object_update(c->result, (json_t *)c->args);
	return 0;
}

int vm_forget_ha(struct change *c)
{
	_free_ char *other = NULL;
	int r = sql_string(c->db, c->e, &other, "SELECT vm FROM vm_after WHERE other = ? ORDER BY vm LIMIT 1",
			   sql_text(c->name));

	if (r > 0)
		return refuse(c, ERR_CONFLICT, "vm %s waits for it to start; take it out of what that one waits for",
			      other);
	if (r < 0 || sql_run(c->db, c->e, "DELETE FROM vm_after WHERE vm = ?", sql_text(c->name)) < 0 ||
	    sql_run(c->db, c->e, "DELETE FROM vm_ha WHERE vm = ?", sql_text(c->name)) < 0 ||
	    sql_run(c->db, c->e, "DELETE FROM vm_home WHERE vm = ?", sql_text(c->name)) < 0)
		return -1;
	return restarts_forget(c, c->name);
}

/* ---- restarts ---- */

const char *failure_kind(const char *cause)
{
	static const char *const kinds[] = {"crash", "host", "failed"};

	for (size_t i = 0; cause && i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i], cause))
			return kinds[i];
	return "failed";
}

const char *state_failure_kind(const json_t *detail)
{
	return failure_kind(json_string_value(json_object_get(detail, "cause")));
}

int restart_write(struct change *c, const char *name, const char *kind, const char *node, const char *reason)
{
	if (sql_run(c->db, c->e,
		    "INSERT INTO vm_restart (vm, number, kind, node, reason, time) VALUES (?, ?, ?, ?, ?, ?)",
		    sql_text(name), sql_int((int64_t)c->index), sql_text(kind), sql_text(node), sql_text(reason),
		    sql_int(c->time)) < 0)
		return -1;
	return sql_run(
		c->db, c->e,
		"DELETE FROM vm_restart WHERE vm = ?1 AND number <= (SELECT number FROM vm_restart WHERE vm = ?1 "
		"ORDER BY number DESC LIMIT 1 OFFSET ?2)",
		sql_text(name), sql_int(STATE_RESTARTS_MAX));
}

int restarts_forget(struct change *c, const char *name)
{
	return sql_run(c->db, c->e, "DELETE FROM vm_restart WHERE vm = ?", sql_text(name));
}

int home_write(struct change *c, const char *name, const char *node)
{
	if (!node)
		return sql_run(c->db, c->e, "DELETE FROM vm_home WHERE vm = ?", sql_text(name));
	/* The one that it has stays: a guest whose hosts die one after the other belongs to the first. */
	return sql_run(c->db, c->e, "INSERT OR IGNORE INTO vm_home (vm, node, since) VALUES (?, ?, ?)", sql_text(name),
		       sql_text(node), sql_int(c->time));
}

static const struct arg vm_restart_args[] = {
	NEEDED("name", ARG_NAME),
	NEEDED_IN("epoch", ARG_INT, 1, INT64_MAX), /* the one that the decision was made for */
	NEEDED_OF("kind", restart_kinds),          /* asked: by a user; what was before is forgotten */
	ALLOWED_IN("reason", ARG_TEXT, 1, 255),
	{0},
};

static int restart_check(struct change *c, const struct vm_row *vm)
{
	const char *life;
	int r;

	if (vm->epoch != arg_int(c, "epoch", 0))
		return refuse(c, ERR_CONFLICT, "is at epoch %" PRId64 ", not %" PRId64 "; look at it again", vm->epoch,
			      arg_int(c, "epoch", 0));
	if (strcmp(vm->intent, "running") != 0)
		return refuse(c, ERR_CONFLICT, "shall not run; start it");
	if (strcmp(vm->status, "failed") != 0)
		return refuse(c, ERR_CONFLICT, "has not failed (%s); there is nothing to restart",
			      vm->status[0] ? vm->status : "no report yet");
	r = node_is_fenced(c, vm->owner, &life);
	if (r >= 0 && strcmp(life, "up") != 0)
		return refuse(c, ERR_CONFLICT, "its node %s is %s; it cannot start there", vm->owner,
			      r ? "confirmed dead" : life);
	return r < 0 ? -1 : 0;
}

/* Where it is. */
static int vm_restart(struct change *c)
{
	const char *kind = arg_text(c, "kind"), *reason = arg_text(c, "reason");
	struct vm_row vm;
	int r;

	if (vm_read(c, c->name, &vm) < 0 || refuse_while_moving(c, "restart it") < 0 || restart_check(c, &vm) < 0)
		return -1;
	r = strcmp(kind, "asked") != 0 ? restart_write(c, c->name, kind, vm.owner, reason)
				       : restarts_forget(c, c->name);
	if (r < 0)
		return -1;
	vm.epoch++;
	json_object_set_new(c->result, "name", json_string(c->name));
	json_object_set_new(c->result, "owner", json_string(vm.owner));
	json_object_set_new(c->result, "epoch", json_integer(vm.epoch));
	json_object_set_new(c->result, "kind", json_string(kind));
	if (reason)
		json_object_set_new(c->result, "reason", json_string(reason));
	return vm_own(c, c->name, vm.owner, vm.epoch, false);
}

/* ---- whether it bears what it shall ---- */

static const struct arg ha_bears_args[] = {
	NEEDED_IN("bears", ARG_INT, 0, 64), /* host failures; as many as it shall, where it bears at least so many */
	NEEDED_IN("wish", ARG_INT, 0, 64),
	NEEDED_IN("text", ARG_TEXT, 1, 1024), /* in a sentence, with what to do */
	{0},
};

static int bears_forget(struct change *c)
{
	return sql_run(c->db, c->e, "DELETE FROM setting WHERE key = ?", sql_text(STATE_SETTING_HA_BEARS));
}

static int bears_write(struct change *c)
{
	_free_ char *text = change_dump(c, c->args, BEARS_MAX, "what the cluster bears");

	if (!text)
		return -1;
	return sql_run(c->db, c->e,
		       "INSERT INTO setting (key, value, version, changed, by) VALUES (?1, ?2, 1, ?3, ?4) "
		       "ON CONFLICT (key) DO UPDATE SET value = ?2, version = version + 1, changed = ?3, by = ?4",
		       sql_text(STATE_SETTING_HA_BEARS), sql_text(text), sql_int(c->time), sql_text(c->by));
}

/* An event when it falls below the wish, and one when it is enough again: a new manager, which judges afresh, makes no
 * second one of the same. Only what is too little is remembered. */
static int ha_bears(struct change *c)
{
	bool enough = arg_int(c, "bears", 0) >= arg_int(c, "wish", 0);
	int64_t there;
	int r;

	c->name = STATE_SETTING_HA_WISH;
	if (said_by_member(c, "what the cluster bears") < 0)
		return -1;
	r = sql_number(c->db, c->e, &there, "SELECT 1 FROM setting WHERE key = ?", sql_text(STATE_SETTING_HA_BEARS));
	if (r < 0)
		return -1;
	json_object_update(c->result, (json_t *)c->args);
	c->unchanged = enough == (r == 0);
	if (c->unchanged)
		return 0;
	return enough ? bears_forget(c) : bears_write(c);
}

/* ---- questions ---- */

#define HA_COLUMNS "vm mode own_mode? priority max_restarts failback home after* restarts*"
#define HA_SELECT                                                                                                      \
	"SELECT v.name, coalesce(h.mode, (SELECT json_extract(value, '$') FROM setting WHERE key = "                   \
	"'" STATE_SETTING_HA_DEFAULT "' AND value IN ('\"restart\"', '\"none\"')), 'restart'), "                       \
	"h.mode IS NOT NULL, coalesce(h.priority, 100), coalesce(h.max_restarts, 3), "                                 \
	"coalesce(h.failback, 'never'), m.node, "                                                                      \
	"(SELECT json_group_array(json_object('vm', other, 'until', until, 'seconds', seconds, 'address', address)) "  \
	"FROM (SELECT * FROM vm_after WHERE vm = v.name ORDER BY place)), "                                            \
	"(SELECT json_group_array(json_object('time', time, 'kind', kind, 'node', node, 'reason', reason)) "           \
	"FROM (SELECT * FROM vm_restart WHERE vm = v.name ORDER BY number DESC)) "                                     \
	"FROM vm v LEFT JOIN vm_ha h ON h.vm = v.name LEFT JOIN vm_home m ON m.vm = v.name "

_Static_assert(PRIORITY == 100 && RESTARTS == 3, "as in HA_SELECT");

json_t *state_ha_get(sqlite3 *db, const char *vm, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, HA_SELECT "WHERE v.name = ?", sql_text(vm));

	return first_json(s, HA_COLUMNS, "vm", vm, e);
}

json_t *state_ha_list(sqlite3 *db, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin_n(db, e, HA_SELECT "ORDER BY v.name", NULL, 0);

	return rows_json(s, HA_COLUMNS, e);
}

int state_ha_needed(sqlite3 *db, struct err *e)
{
	int64_t there;

	return sql_number(
		db, e, &there,
		"SELECT 1 FROM vm v LEFT JOIN observed o ON o.vm = v.name LEFT JOIN node_life l ON l.node = "
		"v.owner WHERE v.intent = 'running' AND (o.status = 'failed' OR coalesce(l.life, 'up') != 'up') "
		"LIMIT 1");
}

const struct op ha_ops[] = {
	{"vm.ha", "vm", "name", vm_ha_args, vm_ha, EVENT_AUDIT, 2},
	{"vm.restart", "vm", "name", vm_restart_args, vm_restart, EVENT_REPORT, 2},
	{"ha.bears", "setting", NULL, ha_bears_args, ha_bears, EVENT_REPORT, 2},
	{0},
};
