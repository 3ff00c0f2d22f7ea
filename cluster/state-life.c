/* SPDX-License-Identifier: Apache-2.0 */
/* State: whether hosts live: lost, confirmed dead, back; what was done to find out; hosts that are put aside.
 *
 * Theory of operation
 * -------------------
 * A node is up, lost or fenced:
 *
 *   up      no row, or nothing known against it
 *   lost    it left the members in no good order (node.lost). It may be alive, so its guests are still its own
 *   fenced  a proof came that none of its guests runs (node.fenced). Only now its guests are free: vm.place takes them
 *           away from it. Nothing that it says counts until node.alive
 *
 * node.lost begins a fencing: a row with a number, which every later command about it must name. So a proof that was
 * found for an older loss, or a "it is back" that was decided before it was lost again, is refused. fence.step tells
 * what was tried, and how it ended; the proof itself is node.fenced. Which proof comes first does not matter, and those
 * that come later are steps like others.
 *
 * Two proofs by expiry are refused here, as they would be none: of a node whose last report did not say that its
 * watchdog is armed, and of one whose daemon was stopped in order (frozen): its guests run on without a lease.
 *
 * A proof by a shared disk is about one life of the node: its boot, and an incarnation that is new with each of its
 * node.alive. It is refused when the node has come back in another one: guests that it has started since are no
 * concern of that proof. A node starts none before its node.alive is here.
 *
 * Its guests are down from node.fenced on ("failed", and why), whatever it saw last. A node that was fenced comes back
 * empty, and says so. Guests that found no place elsewhere are its own still, and are started there by HA.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state-int.h"
#include "cluster/state.h"

#define FENCINGS_MAX 1000 /* of all nodes; the newest are kept */
#define STEPS_MAX 1000

static const char *const kinds[] = {"power", "disk", "expiry", "manual", NULL};
static const char *const results[] = {"started", "confirmed", "failed", "unknown", NULL};

struct life_row {
	const char *life; /* static */
	int64_t fencing;  /* number of the newest; 0: there was none */
	bool frozen;
	char aside[256]; /* why; "": it is not */
};

/* Of a node without a row: up. */
static int life_read(struct change *c, const char *node, struct life_row *ret)
{
	_sql_ sqlite3_stmt *s = sql_begin(
		c->db, c->e, "SELECT life, fencing, frozen, aside FROM node_life WHERE node = ?", sql_text(node));
	int r = s ? sql_next(s, c->e) : -1;

	if (r < 0)
		return -1;
	*ret = (struct life_row){.life = "up"};
	if (r == 0)
		return 0;
	if (!strcmp(sql_column_text(s, 0), "lost"))
		ret->life = "lost";
	if (!strcmp(sql_column_text(s, 0), "fenced"))
		ret->life = "fenced";
	ret->fencing = sqlite3_column_int64(s, 1);
	ret->frozen = sqlite3_column_int(s, 2);
	snprintf(ret->aside, sizeof(ret->aside), "%s", sql_column_text(s, 3));
	return 0;
}

/* node_need() of the command's node, and its life. */
static int life_need(struct change *c, struct life_row *ret)
{
	return node_need(c, c->name) < 0 ? -1 : life_read(c, c->name, ret);
}

static bool is(const struct life_row *l, const char *life)
{
	return !strcmp(l->life, life);
}

static int life_write(struct change *c, const char *life, int64_t fencing)
{
	return sql_run(c->db, c->e,
		       "INSERT INTO node_life (node, life, since, fencing, frozen) VALUES (?1, ?2, ?3, ?4, 0) "
		       "ON CONFLICT (node) DO UPDATE SET life = ?2, since = ?3, fencing = ?4",
		       sql_text(c->name), sql_text(life), sql_int(c->time), fencing ? sql_int(fencing) : sql_null());
}

static void answer(struct change *c, const char *life, int64_t number)
{
	json_object_set_new(c->result, "node", json_string(c->name));
	json_object_set_new(c->result, "life", json_string(life));
	if (number)
		json_object_set_new(c->result, "number", json_integer(number));
}

static void answer_text(struct change *c, const char *key)
{
	if (arg_text(c, key))
		json_object_set_new(c->result, key, json_string(arg_text(c, key)));
}

/* ---- what other parts ask ---- */

int node_takes(struct change *c, const char *name)
{
	struct life_row l;

	if (life_read(c, name, &l) < 0)
		return -1;
	if (is(&l, "lost"))
		return refuse(c, ERR_CONFLICT, "node %s is lost; choose another node", name);
	if (is(&l, "fenced"))
		return refuse(c, ERR_CONFLICT, "node %s is confirmed dead; choose another node", name);
	if (l.aside[0])
		return refuse(c, ERR_CONFLICT,
			      "node %s is put aside (%s); choose another node, or take it back with `node activate %s`",
			      name, l.aside, name);
	if (l.frozen)
		return refuse(c, ERR_CONFLICT, "the daemon of node %s is being stopped; choose another node", name);
	return 0;
}

int node_speaks(struct change *c, const char *name, const char *what)
{
	struct life_row l;

	if (life_read(c, name, &l) < 0)
		return -1;
	if (is(&l, "fenced"))
		return refuse(c, ERR_FORBIDDEN,
			      "node %s is confirmed dead (fencing %" PRId64
			      "); %s does not count until it is back and empty",
			      name, l.fencing, what);
	return 0;
}

int node_is_fenced(struct change *c, const char *name, const char **ret_life)
{
	struct life_row l;

	if (life_read(c, name, &l) < 0)
		return -1;
	*ret_life = l.life;
	return is(&l, "fenced");
}

static int incarnation_forget(struct change *c, const char *name)
{
	_free_ char *key = xasprintf(STATE_SETTING_LIFE "%s", name);

	return sql_run(c->db, c->e, "DELETE FROM setting WHERE key = ?", sql_text(key));
}

int node_forget_life(struct change *c, const char *name)
{
	if (incarnation_forget(c, name) < 0)
		return -1;
	if (sql_run(c->db, c->e, "DELETE FROM node_life WHERE node = ?", sql_text(name)) < 0)
		return -1;
	return sql_run(c->db, c->e, "DELETE FROM vm_home WHERE node = ?", sql_text(name));
}

/* ---- lost ---- */

static const struct arg node_lost_args[] = {
	NEEDED("node", ARG_NAME),
	ALLOWED_IN("incarnation", ARG_TEXT, 1, 64), /* of its daemon, as it was heard of last */
	ALLOWED_IN("reason", ARG_TEXT, 1, 255),
	{0},
};

static int node_lost(struct change *c)
{
	int64_t number = (int64_t)c->index;
	struct life_row l;

	if (life_need(c, &l) < 0)
		return -1;
	if (is(&l, "fenced"))
		return refuse(c, ERR_CONFLICT, "is confirmed dead already (fencing %" PRId64 ")", l.fencing);
	if (is(&l, "lost")) {
		c->unchanged = true;
		answer(c, l.life, l.fencing);
		return 0;
	}
	answer(c, "lost", number);
	answer_text(c, "reason");
	if (sql_run(c->db, c->e,
		    "INSERT INTO fencing (number, node, incarnation, reason, by, began) VALUES (?, ?, ?, ?, ?, ?)",
		    sql_int(number), sql_text(c->name), sql_text(arg_text(c, "incarnation")),
		    sql_text(arg_text(c, "reason")), sql_text(c->by), sql_int(c->time)) < 0 ||
	    sql_run(c->db, c->e,
		    "DELETE FROM fencing WHERE number <= (SELECT number FROM fencing ORDER BY number DESC LIMIT 1 "
		    "OFFSET ?)",
		    sql_int(FENCINGS_MAX)) < 0)
		return -1;
	return life_write(c, "lost", number);
}

/* ---- steps ---- */

/* Whether @number is the fencing that goes on, or went on last, for the node. */
static int number_check(struct change *c, const struct life_row *l, int64_t number)
{
	if (is(l, "up"))
		return refuse(c, ERR_CONFLICT,
			      "is up; there is nothing to fence, unless somebody says that it is lost");
	if (l->fencing != number)
		return refuse(c, ERR_CONFLICT, "its fencing is number %" PRId64 ", not %" PRId64 "; look at it again",
			      l->fencing, number);
	return 0;
}

static int step_write(struct change *c, int64_t fencing, const char *kind, const char *result)
{
	int64_t level = arg_int(c, "level", 0);

	if (sql_run(c->db, c->e,
		    "INSERT INTO fence_step (number, fencing, kind, device, level, result, text, by, time) "
		    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		    sql_int((int64_t)c->index), sql_int(fencing), sql_text(kind), sql_text(arg_text(c, "device")),
		    level ? sql_int(level) : sql_null(), sql_text(result), sql_text(arg_text(c, "text")),
		    sql_text(c->by), sql_int(c->time)) < 0)
		return -1;
	return sql_run(c->db, c->e,
		       "DELETE FROM fence_step WHERE number <= (SELECT number FROM fence_step ORDER BY number DESC "
		       "LIMIT 1 OFFSET ?)",
		       sql_int(STEPS_MAX));
}

static const struct arg fence_step_args[] = {
	NEEDED("node", ARG_NAME),
	NEEDED_IN("number", ARG_INT, 1, INT64_MAX), /* the answer of node.lost */
	NEEDED_OF("kind", kinds),
	NEEDED_OF("result", results),
	ALLOWED("device", ARG_NAME),
	ALLOWED_IN("level", ARG_INT, 1, 9),
	ALLOWED_IN("text", ARG_TEXT, 1, 1024),
	{0},
};

static int fence_step(struct change *c)
{
	int64_t number = arg_int(c, "number", 0);
	struct life_row l;

	if (life_need(c, &l) < 0 || number_check(c, &l, number) < 0)
		return -1;
	answer(c, l.life, number);
	answer_text(c, "kind");
	answer_text(c, "device");
	answer_text(c, "result");
	answer_text(c, "text");
	return step_write(c, number, arg_text(c, "kind"), arg_text(c, "result"));
}

/* ---- confirmed dead ---- */

#define NODE_FENCED_ARGS                                                                                               \
	NEEDED("node", ARG_NAME), NEEDED_IN("number", ARG_INT, 1, INT64_MAX), NEEDED_OF("proof", kinds),               \
		ALLOWED("device", ARG_NAME), ALLOWED_IN("level", ARG_INT, 1, 9), ALLOWED_IN("text", ARG_TEXT, 1, 1024)

static const struct arg node_fenced_args_2[] = {NODE_FENCED_ARGS, {0}};
static const struct arg node_fenced_args[] = {
	NODE_FENCED_ARGS,
	ALLOWED_IN("incarnation", ARG_TEXT, 1, 64), /* disk: the life that was told to die */
	{0},
};

/* The life that was told must be the one that the node had last, by its own word. */
static int disk_check(struct change *c)
{
	_free_ char *key = xasprintf(STATE_SETTING_LIFE "%s", c->name), *now = NULL;
	const char *told = arg_text(c, "incarnation");

	if (!told)
		return refuse(c, ERR_INPUT, "a proof by disk must say which life was told to die: incarnation");
	switch (sql_string(c->db, c->e, &now, "SELECT json_extract(value, '$') FROM setting WHERE key = ?",
			   sql_text(key))) {
	case 0:
		return refuse(c, ERR_CONFLICT,
			      "it has not said which life it has, so what a shared disk says about one proves "
			      "nothing; fence it by power, or confirm by hand that it is dead");
	case 1:
		break;
	default:
		return -1;
	}
	if (strcmp(now, told) != 0)
		return refuse(c, ERR_CONFLICT,
			      "a shared disk says that its life %s is dead, and it has come back in another one "
			      "since: %s; look at it again",
			      told, now);
	return 0;
}

/* That its lease is over says that its guests are dead only if they had a lease, and a watchdog behind it. */
static int expiry_check(struct change *c, const struct life_row *l)
{
	int64_t armed = 0;

	if (l->frozen)
		return refuse(c, ERR_CONFLICT,
			      "its daemon was stopped in order, so its guests run on without a lease, and time proves "
			      "nothing; fence it by power or disk, or confirm by hand that it is dead");
	if (sql_number(c->db, c->e, &armed,
		       "SELECT json_extract(report, '$.watchdog.armed') = 1 FROM node WHERE name = ?",
		       sql_text(c->name)) < 0)
		return -1;
	if (!armed)
		return refuse(
			c, ERR_CONFLICT,
			"its last report did not say that its watchdog is armed, so time proves nothing; fence it "
			"by power or disk, or confirm by hand that it is dead");
	return 0;
}

/* Whatever it saw of its guests last: they are down now. */
static int guests_fail(struct change *c)
{
	return sql_run(
		c->db, c->e,
		"INSERT INTO observed (vm, node, epoch, status, since, time, note, detail) "
		"SELECT name, owner, epoch, 'failed', ?2, ?2, 'its host is confirmed dead', "
		"'{\"cause\":\"host\"}' FROM vm "
		"WHERE owner = ?1 AND name NOT IN (SELECT vm FROM observed WHERE status IN ('stopped', 'failed')) "
		"ORDER BY name ON CONFLICT (vm) DO UPDATE SET node = excluded.node, epoch = excluded.epoch, "
		"status = excluded.status, since = excluded.since, time = excluded.time, pid = NULL, "
		"note = excluded.note, detail = excluded.detail",
		sql_text(c->name), sql_int(c->time));
}

static int node_fenced(struct change *c)
{
	const char *proof = arg_text(c, "proof");
	int64_t number = arg_int(c, "number", 0), guests = 0;
	struct life_row l;

	if (life_need(c, &l) < 0 || number_check(c, &l, number) < 0)
		return -1;
	answer(c, "fenced", number);
	if (is(&l, "fenced")) {
		c->unchanged = true;
		return 0;
	}
	if ((!strcmp(proof, "expiry") && expiry_check(c, &l) < 0) || (!strcmp(proof, "disk") && disk_check(c) < 0) ||
	    guests_fail(c) < 0 ||
	    sql_number(c->db, c->e, &guests, "SELECT count(*) FROM vm WHERE owner = ?", sql_text(c->name)) < 0)
		return -1;
	answer_text(c, "proof");
	answer_text(c, "incarnation");
	answer_text(c, "device");
	answer_text(c, "text");
	json_object_set_new(c->result, "vms", json_integer(guests));
	if (sql_run(c->db, c->e,
		    "UPDATE fencing SET proof = ?, device = ?, text = ?, fenced_by = ?, fenced = ? WHERE number = ?",
		    sql_text(proof), sql_text(arg_text(c, "device")), sql_text(arg_text(c, "text")), sql_text(c->by),
		    sql_int(c->time), sql_int(number)) < 0 ||
	    step_write(c, number, proof, "confirmed") < 0)
		return -1;
	return life_write(c, "fenced", number);
}

/* ---- back ---- */

#define NODE_ALIVE_ARGS                                                                                                \
	NEEDED("node", ARG_NAME), ALLOWED_IN("number", ARG_INT, 1, INT64_MAX), /* the fencing that this ends */        \
		ALLOWED("empty", ARG_BOOL) /* it has looked: no guest of the cluster is left on it */

static const struct arg node_alive_args_2[] = {NODE_ALIVE_ARGS, {0}};
static const struct arg node_alive_args[] = {
	NODE_ALIVE_ARGS,
	ALLOWED_IN("incarnation", ARG_TEXT, 1, 64), /* its boot and incarnation from here on, for shared disks */
	{0},
};

/* One that says none has none: nothing that a shared disk says is a proof about it. */
static int incarnation_write(struct change *c)
{
	_free_ char *key = xasprintf(STATE_SETTING_LIFE "%s", c->name);
	const char *said = arg_text(c, "incarnation");

	if (!said)
		return incarnation_forget(c, c->name);
	return sql_run(c->db, c->e,
		       "INSERT INTO setting (key, value, version, changed, by) VALUES (?1, json_quote(?2), 1, ?3, ?4) "
		       "ON CONFLICT (key) DO UPDATE SET value = json_quote(?2), version = version + 1, changed = ?3, "
		       "by = ?4",
		       sql_text(key), sql_text(said), sql_int(c->time), sql_text(c->by));
}

static int node_alive(struct change *c)
{
	int64_t number = arg_int(c, "number", 0);
	struct life_row l;

	if (life_need(c, &l) < 0)
		return -1;
	if (is(&l, "up")) {
		c->unchanged = true; /* a new incarnation is no news for people */
		answer(c, l.life, 0);
		return incarnation_write(c);
	}
	if (number_check(c, &l, number) < 0)
		return -1;
	if (is(&l, "fenced") && !arg_true(c, "empty"))
		return refuse(
			c, ERR_CONFLICT,
			"is confirmed dead, and has not said that it is empty; it must end the guests that it ran "
			"before");
	answer(c, "up", number);
	if (incarnation_write(c) < 0 || sql_run(c->db, c->e, "UPDATE fencing SET alive = ? WHERE number = ?",
						sql_int(c->time), sql_int(number)) < 0)
		return -1;
	return life_write(c, "up", number);
}

/* ---- its daemon is being stopped; put aside ---- */

static const struct arg node_frozen_args[] = {NEEDED("node", ARG_NAME), NEEDED("on", ARG_BOOL), {0}};

static int node_frozen(struct change *c)
{
	bool on = arg_true(c, "on");
	struct life_row l;

	if (life_need(c, &l) < 0)
		return -1;
	if (!is(&l, "up"))
		return refuse(c, ERR_CONFLICT, "is %s; only what is up can be frozen, or thawed",
			      is(&l, "lost") ? "lost" : "confirmed dead");
	c->unchanged = l.frozen == on;
	json_object_set_new(c->result, "node", json_string(c->name));
	json_object_set_new(c->result, "frozen", json_boolean(on));
	if (c->unchanged)
		return 0;
	if (!l.fencing &&
	    sql_run(c->db, c->e, "INSERT OR IGNORE INTO node_life (node, life, since, frozen) VALUES (?, 'up', ?, 0)",
		    sql_text(c->name), sql_int(c->time)) < 0)
		return -1;
	return sql_run(c->db, c->e, "UPDATE node_life SET frozen = ? WHERE node = ?", sql_int(on), sql_text(c->name));
}

static const struct arg node_aside_args[] = {
	NEEDED("node", ARG_NAME),
	NEEDED_IN("reason", ARG_TEXT, 1, 255),
	{0},
};

static int node_aside(struct change *c)
{
	struct life_row l;

	if (life_need(c, &l) < 0)
		return -1;
	c->unchanged = !strcmp(l.aside, arg_text(c, "reason"));
	json_object_set_new(c->result, "node", json_string(c->name));
	answer_text(c, "reason");
	return sql_run(c->db, c->e,
		       "INSERT INTO node_life (node, life, since, frozen, aside, aside_since) VALUES (?1, 'up', ?3, 0, "
		       "?2, ?3) ON CONFLICT (node) DO UPDATE SET aside = ?2, aside_since = coalesce(aside_since, ?3)",
		       sql_text(c->name), sql_text(arg_text(c, "reason")), sql_int(c->time));
}

static const struct arg node_aside_clear_args[] = {NEEDED("node", ARG_NAME), {0}};

static int node_aside_clear(struct change *c)
{
	struct life_row l;

	if (life_need(c, &l) < 0)
		return -1;
	c->unchanged = !l.aside[0];
	json_object_set_new(c->result, "node", json_string(c->name));
	return sql_run(c->db, c->e, "UPDATE node_life SET aside = NULL, aside_since = NULL WHERE node = ?",
		       sql_text(c->name));
}

/* ---- questions ---- */

#define FENCING_COLUMNS "number node incarnation reason by began proof device text fenced_by fenced alive steps*"

json_t *state_fencing_list(sqlite3 *db, const char *node, int64_t limit, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(
		db, e,
		"SELECT number, node, incarnation, reason, by, began, proof, device, text, fenced_by, fenced, alive, "
		"(SELECT json_group_array(json_object('number', number, 'kind', kind, 'device', device, 'level', "
		"level, "
		"'result', result, 'text', text, 'by', by, 'time', time)) FROM (SELECT * FROM fence_step WHERE "
		"fencing = f.number ORDER BY number)) FROM fencing f WHERE ?1 IS NULL OR node = ?1 "
		"ORDER BY number DESC LIMIT ?2",
		sql_text(node), sql_int(limit));

	return rows_json(s, FENCING_COLUMNS, e);
}

const struct op life_ops[] = {
	{"node.lost", "node", "node", node_lost_args, node_lost, EVENT_AUDIT, 2},
	{"fence.step", "node", "node", fence_step_args, fence_step, EVENT_REPORT, 2},
	{"node.fenced", "node", "node", node_fenced_args_2, node_fenced, EVENT_AUDIT, 2},
	{"node.fenced", "node", "node", node_fenced_args, node_fenced, EVENT_AUDIT, 3},
	{"node.alive", "node", "node", node_alive_args_2, node_alive, EVENT_AUDIT, 2},
	{"node.alive", "node", "node", node_alive_args, node_alive, EVENT_AUDIT, 3},
	{"node.frozen", "node", "node", node_frozen_args, node_frozen, EVENT_REPORT, 2},
	{"node.aside", "node", "node", node_aside_args, node_aside, EVENT_AUDIT, 2},
	{"node.aside-clear", "node", "node", node_aside_clear_args, node_aside_clear, EVENT_AUDIT, 2},
	{0},
};
