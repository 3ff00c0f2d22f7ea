/* SPDX-License-Identifier: Apache-2.0 */
/* State: the hosts of the cluster, what their agents report of them, the memory that is promised on each. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state-int.h"
#include "cluster/state.h"

#define NODES_MAX 32 /* what corosync forms in seconds */
#define ADDRESSES_MAX 4
#define REPORT_MAX (64U << 10) /* bytes of JSON */
#define NODE_MEMORY_MAX (1LL << 50)

/* ---- membership ---- */

static int node_find(struct change *c, const char *name)
{
	int64_t there;

	return sql_number(c->db, c->e, &there, "SELECT 1 FROM node WHERE name = ?", sql_text(name));
}

int node_need(struct change *c, const char *name)
{
	int r = node_find(c, name);

	if (r == 0)
		return refuse(c, ERR_NOTFOUND, "there is no node %s; `node list` shows those that are there", name);
	return r;
}

/* Refuse what another node has: id, certificate, addresses. */
static int node_unique(struct change *c, int64_t id, const char *fingerprint, const json_t *addresses)
{
	_free_ char *other = NULL;
	json_t *a;
	size_t i;
	int r = sql_string(c->db, c->e, &other, "SELECT name FROM node WHERE id = ? AND name <> ?", sql_int(id),
			   sql_text(c->name));

	if (r > 0)
		return refuse(c, ERR_CONFLICT, "id %" PRId64 " is that of node %s; choose another", id, other);
	if (r == 0)
		r = sql_string(c->db, c->e, &other, "SELECT name FROM node WHERE fingerprint = ? AND name <> ?",
			       sql_text(fingerprint), sql_text(c->name));
	if (r > 0)
		return refuse(c, ERR_CONFLICT, "its certificate is that of node %s; each host needs its own", other);
	json_array_foreach (addresses, i, a) {
		if (r == 0)
			r = sql_string(c->db, c->e, &other,
				       "SELECT node FROM node_address WHERE address = ? AND node <> ?",
				       sql_text(json_string_value(a)), sql_text(c->name));
		if (r > 0)
			return refuse(c, ERR_CONFLICT, "address %s is that of node %s; give each host its own",
				      json_string_value(a), other);
	}
	return r;
}

static int addresses_write(struct change *c, const json_t *addresses)
{
	json_t *a;
	size_t i;

	if (sql_run(c->db, c->e, "DELETE FROM node_address WHERE node = ?", sql_text(c->name)) < 0)
		return -1;
	json_array_foreach (addresses, i, a)
		for (size_t j = 0; j < i; j++)
			if (json_equal(a, json_array_get(addresses, j)))
				return refuse(c, ERR_INPUT, "address %s is given twice", json_string_value(a));
	json_array_foreach (addresses, i, a)
		if (sql_run(c->db, c->e, "INSERT INTO node_address (address, node, place) VALUES (?, ?, ?)",
			    sql_text(json_string_value(a)), sql_text(c->name), sql_int((int64_t)i)) < 0)
			return -1;
	return 0;
}

static const struct arg node_join_args[] = {
	NEEDED("name", ARG_NAME),
	NEEDED_IN("id", ARG_INT, 1, INT32_MAX),
	NEEDED_IN("addresses", ARG_TEXTS, 0, ADDRESSES_MAX), /* one per link; a host alone needs none */
	NEEDED("fingerprint", ARG_HASH),
	ALLOWED("token", ARG_HASH), /* used up by this: not at all if the join is refused */
	{0},
};

/* The setting STATE_SETTING_RING grows with every change of the list of nodes. */
static int ring_changed(struct change *c, int64_t last_id)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, last_id);
	return sql_run(
		c->db, c->e,
		"INSERT INTO setting (key, value, version, changed, by) VALUES (?1, ?2, 1, ?3, ?4) ON CONFLICT (key) "
		"DO UPDATE SET value = ?2, version = version + 1, changed = ?3, by = ?4",
		sql_text(STATE_SETTING_RING), sql_text(text), sql_int(c->time), sql_text(c->by));
}

static int last_id_read(struct change *c, int64_t *ret)
{
	return sql_number(c->db, c->e, ret, "SELECT CAST(value AS INTEGER) FROM setting WHERE key = ?",
			  sql_text(STATE_SETTING_RING));
}

/* Ids are never given twice (node/membership.h says why). */
static int id_take(struct change *c, int64_t id)
{
	int64_t last = 0;

	if (last_id_read(c, &last) < 0)
		return -1;
	if (id <= last)
		return refuse(c, ERR_CONFLICT,
			      "id %" PRId64 " was given before, and none is given twice; take %" PRId64, id, last + 1);
	return ring_changed(c, id);
}

static int node_join(struct change *c)
{
	const char *fingerprint = arg_text(c, "fingerprint"), *token = arg_text(c, "token");
	const json_t *addresses = arg_json(c, "addresses");
	int64_t id = arg_int(c, "id", 0), nodes = 0;
	int r = node_find(c, c->name);

	if (r > 0)
		return refuse(c, ERR_CONFLICT, "is a member already; remove it first, or choose another name");
	if (r < 0 || sql_number(c->db, c->e, &nodes, "SELECT count(*) FROM node") < 0)
		return -1;
	if (nodes >= NODES_MAX)
		return refuse(c, ERR_CONFLICT,
			      "the cluster has %d nodes, which is the most it can have; remove one first", NODES_MAX);
	if (node_unique(c, id, fingerprint, addresses) < 0 || id_take(c, id) < 0 ||
	    (token && token_take(c, token, c->name) < 0))
		return -1;
	if (sql_run(c->db, c->e, "INSERT INTO node (name, id, fingerprint, joined) VALUES (?, ?, ?, ?)",
		    sql_text(c->name), sql_int(id), sql_text(fingerprint), sql_int(c->time)) < 0)
		return -1;
	json_object_set_new(c->result, "name", json_string(c->name));
	json_object_set_new(c->result, "id", json_integer(id));
	return addresses_write(c, addresses);
}

static const struct arg node_edit_args[] = {
	NEEDED("name", ARG_NAME),
	ALLOWED_IN("addresses", ARG_TEXTS, 1, ADDRESSES_MAX),
	ALLOWED("fingerprint", ARG_HASH), /* a renewed certificate */
	{0},
};

static int node_edit(struct change *c)
{
	const char *fingerprint = arg_text(c, "fingerprint");
	const json_t *addresses = arg_json(c, "addresses");
	int64_t last = 0;

	if (node_need(c, c->name) < 0 || node_unique(c, 0, fingerprint, addresses) < 0)
		return -1;
	if (fingerprint && sql_run(c->db, c->e, "UPDATE node SET fingerprint = ? WHERE name = ?", sql_text(fingerprint),
				   sql_text(c->name)) < 0)
		return -1;
	json_object_set_new(c->result, "name", json_string(c->name));
	if (!addresses)
		return 0;
	if (last_id_read(c, &last) < 0 || ring_changed(c, last) < 0)
		return -1;
	return addresses_write(c, addresses);
}

/* ---- what a host's CPU costs ---- */

static const struct arg node_baseline_args[] = {
	NEEDED("node", ARG_NAME),
	NEEDED_IN("lost", ARG_TEXTS, 1, 1024), /* features that guests on any host cannot have because of it */
	ALLOWED_IN("model", ARG_TEXT, 1, 128), /* the best model for all hosts without it, and with it */
	ALLOWED_IN("with", ARG_TEXT, 1, 128),
	NEEDED_IN("text", ARG_TEXT, 1, 1024), /* all of it in a sentence */
	{0},
};

/* "node NAME" is what a member's certificate makes of it. */
int said_by_member(struct change *c, const char *what)
{
	const char *prefix = "node ";
	int64_t there;
	int r = strncmp(c->by, prefix, strlen(prefix)) != 0
			? 0
			: sql_number(c->db, c->e, &there, "SELECT 1 FROM node WHERE name = ?",
				     sql_text(c->by + strlen(prefix)));

	if (r == 0)
		return refuse(c, ERR_FORBIDDEN, "%s is said by a node of the cluster, and %s is none", what, c->by);
	return r;
}

static int baseline_forget(struct change *c)
{
	_free_ char *key = xasprintf(STATE_SETTING_BASELINE "%s", c->name);

	return sql_run(c->db, c->e, "DELETE FROM setting WHERE key = ?", sql_text(key));
}

/* Announced once for what it costs: a new manager, which judges afresh, makes no second event of the same. */
static int node_baseline(struct change *c)
{
	_free_ char *key = xasprintf(STATE_SETTING_BASELINE "%s", c->name), *text = NULL, *before = NULL;
	int r;

	/* Only a member can have compared the hosts. */
	if (node_need(c, c->name) < 0 || said_by_member(c, "what its CPU costs") < 0)
		return -1;
	json_object_update(c->result, (json_t *)c->args);
	text = change_dump(c, c->args, REPORT_MAX, "what it costs");
	if (!text)
		return -1;
	r = sql_string(c->db, c->e, &before, "SELECT value FROM setting WHERE key = ?", sql_text(key));
	if (r < 0)
		return -1;
	c->unchanged = r > 0 && !strcmp(before, text);
	if (c->unchanged)
		return 0;
	return sql_run(c->db, c->e,
		       "INSERT INTO setting (key, value, version, changed, by) VALUES (?1, ?2, 1, ?3, ?4) "
		       "ON CONFLICT (key) DO UPDATE SET value = ?2, version = version + 1, changed = ?3, by = ?4",
		       sql_text(key), sql_text(text), sql_int(c->time), sql_text(c->by));
}

/* ---- leaving ---- */

static const struct arg node_remove_args[] = {NEEDED("name", ARG_NAME), {0}};

static int node_remove(struct change *c)
{
	_free_ char *other = NULL;
	int64_t nodes = 0, last = 0;
	int r;

	if (node_need(c, c->name) < 0 || sql_number(c->db, c->e, &nodes, "SELECT count(*) FROM node") < 0)
		return -1;
	if (nodes == 1)
		return refuse(c, ERR_CONFLICT, "is the only node; a cluster without any has no state");
	r = sql_string(c->db, c->e, &other, "SELECT name FROM vm WHERE owner = ? ORDER BY name LIMIT 1",
		       sql_text(c->name));
	if (r > 0)
		return refuse(c, ERR_CONFLICT, "vm %s belongs to it; move or delete its guests first", other);
	if (r == 0)
		r = sql_string(
			c->db, c->e, &other,
			"SELECT vm FROM migration WHERE finished IS NULL AND (src = ?1 OR dst = ?1) ORDER BY number "
			"LIMIT 1",
			sql_text(c->name));
	if (r > 0)
		return refuse(c, ERR_CONFLICT, "vm %s is on its way from or to it; wait for that, or cancel it", other);
	if (r < 0 || last_id_read(c, &last) < 0 || ring_changed(c, last) < 0 || baseline_forget(c) < 0 ||
	    sql_run(c->db, c->e, "DELETE FROM node_address WHERE node = ?", sql_text(c->name)) < 0)
		return -1;
	if (node_forget_life(c, c->name) < 0 || node_forget_fencing(c, c->name) < 0)
		return -1;
	json_object_set_new(c->result, "name", json_string(c->name));
	return sql_run(c->db, c->e, "DELETE FROM node WHERE name = ?", sql_text(c->name));
}

/* ---- reports ---- */

#define NODE_REPORT_ARGS                                                                                               \
	NEEDED("node", ARG_NAME),                                                                                      \
		NEEDED("memory", ARG_OBJECT), /* {total, free}: bytes; free is what new guests could really have */    \
		NEEDED_IN("cpus", ARG_INT, 1, 65536),                                                                  \
		ALLOWED_IN("load", ARG_NUMBER, 0, 65536), /* runnable tasks, averaged over a minute */                 \
		ALLOWED("cpu", ARG_OBJECT),               /* {kind, models[], features[]} */                           \
		ALLOWED_IN("networks", ARG_TEXTS, 0, 1024),                                                            \
		ALLOWED_IN("paths", ARG_TEXTS, 0, 1024), /* nobody says it; "unreached" does */                        \
		ALLOWED("versions", ARG_OBJECT), ALLOWED_IN("boot_id", ARG_TEXT, 1, 64),                               \
		ALLOWED("clock", ARG_OBJECT) /* {unix_ms, synchronized, error_ms} */

static const struct arg node_report_args_1[] = {NODE_REPORT_ARGS, {0}};
static const struct arg node_report_args_2[] = {
	NODE_REPORT_ARGS,
	ALLOWED("watchdog", ARG_OBJECT), /* {armed: bool, ...}: only such a node can be proved dead by expiry */
	{0},
};
static const struct arg node_report_args_3[] = {
	NODE_REPORT_ARGS,
	ALLOWED("watchdog", ARG_OBJECT),
	ALLOWED("disks", ARG_OBJECT), /* path of a fencing disk: {link, why} */
	{0},
};
static const struct arg node_report_args[] = {
	NODE_REPORT_ARGS,
	ALLOWED("watchdog", ARG_OBJECT),
	ALLOWED("disks", ARG_OBJECT),
	ALLOWED("unreached", ARG_OBJECT), /* folder with files of guests that it does not reach: why */
	{0},
};

/* json_extract() must find a truth value or nothing. */
static int watchdog_check(struct change *c)
{
	const json_t *watchdog = arg_json(c, "watchdog");

	if (watchdog && !json_is_boolean(json_object_get(watchdog, "armed")))
		return refuse(c, ERR_INPUT, "watchdog.armed must be true or false");
	return 0;
}

static int unreached_check(struct change *c)
{
	const char *folder;
	json_t *why;

	json_object_foreach ((json_t *)arg_json(c, "unreached"), folder, why)
		if (folder[0] != '/' || !text_is_plain(why, 1, 255))
			return refuse(c, ERR_INPUT, "unreached must name folders, each with a text of 1 to 255 bytes");
	return 0;
}

static int node_report(struct change *c)
{
	const json_t *memory = arg_json(c, "memory");
	const json_t *total = json_object_get(memory, "total"), *free_now = json_object_get(memory, "free");
	_free_ char *text = NULL;

	if (!json_is_integer(total) || json_integer_value(total) < 1 || json_integer_value(total) > NODE_MEMORY_MAX ||
	    !json_is_integer(free_now) || json_integer_value(free_now) < 0 ||
	    json_integer_value(free_now) > json_integer_value(total))
		return refuse(c, ERR_INPUT, "memory must be {total, free} in bytes, with free at most total");
	text = change_dump(c, c->args, REPORT_MAX, "the report");
	if (!text || watchdog_check(c) < 0 || unreached_check(c) < 0 || node_need(c, c->name) < 0 ||
	    node_speaks(c, c->name, "its report") < 0)
		return -1;
	return sql_run(c->db, c->e, "UPDATE node SET memory = ?, report = ?, reported = ? WHERE name = ?",
		       sql_int(json_integer_value(total)), sql_text(text), sql_int(c->time), sql_text(c->name));
}

/* ---- memory ---- */

/* Promised on a node: the guests that it owns and that run or shall run, and those of unfinished moves that it does not
 * own (on their way to it, or not yet tidied away). */
#define PROMISED(node)                                                                                                 \
	"(SELECT coalesce(sum(v.memory), 0) FROM vm v LEFT JOIN observed o ON o.vm = v.name WHERE v.owner = " node     \
	" AND (v.intent = 'running' OR o.status NOT IN ('stopped', 'failed')))"                                        \
	" + (SELECT coalesce(sum(v.memory), 0) FROM migration m JOIN vm v ON v.name = m.vm WHERE m.finished IS NULL"   \
	" AND (m.src = " node " OR m.dst = " node ") AND v.owner <> " node ")"

int node_memory_check(struct change *c, const char *name, int64_t need)
{
	_sql_ sqlite3_stmt *s =
		sql_begin(c->db, c->e, "SELECT memory, " PROMISED("?1") " FROM node WHERE name = ?1", sql_text(name));
	int r = s ? sql_next(s, c->e) : -1;
	int64_t total, promised;

	if (r <= 0)
		return r < 0 ? -1 : node_need(c, name);
	total = sqlite3_column_int64(s, 0);
	promised = sqlite3_column_int64(s, 1);
	if (total == 0)
		return refuse(c, ERR_UNAVAILABLE, "node %s has not reported its memory yet; try again in a moment",
			      name);
	if (need > total - promised)
		return refuse(c, ERR_CONFLICT,
			      "%" PRId64 " MiB are needed, and of the %" PRId64 " MiB of node %s %" PRId64
			      " MiB are promised; choose another node, or stop a guest there",
			      need >> 20, total >> 20, name, promised >> 20);
	return 0;
}

/* ---- questions ---- */

#define NODE_COLUMNS                                                                                                   \
	"name id fingerprint joined reported report* memory_promised vms addresses* life life_since fencing frozen? "  \
	"aside aside_since incarnation"
#define NODE_SELECT                                                                                                    \
	"SELECT n.name, n.id, n.fingerprint, n.joined, n.reported, n.report, " PROMISED(                               \
		"n.name") ", (SELECT count(*) FROM vm WHERE owner = n.name), (SELECT json_group_array(address) FROM "  \
			  "(SELECT address FROM node_address WHERE node = n.name ORDER BY place)), "                   \
			  "coalesce(l.life, 'up'), l.since, l.fencing, coalesce(l.frozen, 0), l.aside, "               \
			  "l.aside_since, "                                                                            \
			  "(SELECT json_extract(value, '$') FROM setting WHERE key = '" STATE_SETTING_LIFE             \
			  "' || n.name) FROM node n LEFT JOIN node_life l ON l.node = n.name "

json_t *state_node_get(sqlite3 *db, const char *name, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, NODE_SELECT "WHERE n.name = ?", sql_text(name));

	return first_json(s, NODE_COLUMNS, "node", name, e);
}

json_t *state_node_by_fingerprint(sqlite3 *db, const char *fingerprint, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, NODE_SELECT "WHERE n.fingerprint = ?", sql_text(fingerprint));

	return first_json(s, NODE_COLUMNS, "node", "with this certificate", e);
}

json_t *state_node_list(sqlite3 *db, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, NODE_SELECT "ORDER BY n.name");

	return rows_json(s, NODE_COLUMNS, e);
}

json_t *state_node_lives(sqlite3 *db, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e,
					  "SELECT n.name, n.id, coalesce(l.life, 'up') FROM node n "
					  "LEFT JOIN node_life l ON l.node = n.name ORDER BY n.name");

	return rows_json(s, "name id life", e);
}

const struct op node_ops[] = {
	{"node.report", "node", "node", node_report_args_1, node_report, EVENT_QUIET, 1},
	{"node.report", "node", "node", node_report_args_2, node_report, EVENT_QUIET, 2},
	{"node.report", "node", "node", node_report_args_3, node_report, EVENT_QUIET, 3},
	{"node.report", "node", "node", node_report_args, node_report, EVENT_QUIET, 4},
	{"node.join", "node", "name", node_join_args, node_join, EVENT_AUDIT, 1},
	{"node.baseline", "node", "node", node_baseline_args, node_baseline, EVENT_REPORT, 1},
	{"node.edit", "node", "name", node_edit_args, node_edit, EVENT_AUDIT, 1},
	{"node.remove", "node", "name", node_remove_args, node_remove, EVENT_AUDIT, 1},
	{0},
};
