/* SPDX-License-Identifier: Apache-2.0 */
/* State: fence devices, which node each can switch off, and in what order they are tried.
 *
 * Options go to the fence agent as they are. Those that the command lists as secret are kept like the others, as every
 * host may have to fence, but no event, no audit log and no list has them: an answer holds names only.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state-int.h"
#include "cluster/state.h"

#define DEVICES_MAX 128
#define OPTIONS_MAX 64
#define SECRETS_MAX OPTIONS_MAX
#define LEVEL_DEVICES_MAX 8
#define NODES_MAX 32

/* ---- devices ---- */

static const struct arg fence_device_args[] = {
	NEEDED("name", ARG_NAME),
	NEEDED("agent", ARG_NAME),      /* "fence_ipmilan" */
	ALLOWED("options", ARG_OBJECT), /* name: text; null keeps the value that it has */
	NEEDED("nodes", ARG_OBJECT),    /* node: how the device calls it (its plug); null: it knows one only */
	ALLOWED_IN("secret", ARG_TEXTS, 0, SECRETS_MAX),
	ALLOWED_IN("plug_option", ARG_TEXT, 1, 63), /* the option that takes the plug; none: the agent has none */
	ALLOWED_IN("priority", ARG_INT, 0, 1000),
	ALLOWED_IN("timeout_ms", ARG_INT, 1, 3600000), /* of one call of the agent */
	ALLOWED_IN("attempts", ARG_INT, 1, 100),
	ALLOWED_IN("delay_ms", ARG_INT, 0, 3600000), /* before it is switched */
	ALLOWED("new", ARG_BOOL),                    /* it must not be there yet */
	{0},
};

/* The agent reads lines "name=value". */
static bool option_is_name(const char *s)
{
	return text_is_name(s) && !strchr(s, '.');
}

/* The options with kept values filled in. NULL: refused. */
static json_t *options_make(struct change *c, const json_t *former)
{
	json_t *given = (json_t *)arg_json(c, "options"), *ret = json_object(), *v;
	const char *key;

	if (json_object_size(given) > OPTIONS_MAX) {
		refuse(c, ERR_INPUT, "options must be at most %d", OPTIONS_MAX);
		json_decref(ret);
		return NULL;
	}
	json_object_foreach (given, key, v) {
		json_t *value = json_is_null(v) ? json_object_get(former, key) : v;

		if (!option_is_name(key))
			refuse(c, ERR_INPUT, "options: \"%.64s\" is not the name of an option", key);
		else if (!value)
			refuse(c, ERR_INPUT, "options.%s has no value to keep; give one", key);
		else if (!text_is_plain(value, 0, 1024))
			refuse(c, ERR_INPUT,
			       "options.%s must be a text of at most 1024 bytes without control characters", key);
		else {
			json_object_set(ret, key, value);
			continue;
		}
		json_decref(ret);
		return NULL;
	}
	return ret;
}

static int secret_check(struct change *c, const json_t *options)
{
	json_t *name;
	size_t i;

	json_array_foreach (arg_json(c, "secret"), i, name)
		if (!json_object_get(options, json_string_value(name)))
			return refuse(c, ERR_INPUT, "secret: there is no option %.64s", json_string_value(name));
	return 0;
}

static int nodes_write(struct change *c, const json_t *nodes)
{
	_free_ char *used = NULL;
	const char *node;
	json_t *plug;

	if (json_object_size(nodes) < 1 || json_object_size(nodes) > NODES_MAX)
		return refuse(c, ERR_INPUT, "nodes must be an object of 1 to %d: {\"NODE\": \"PLUG\"}", NODES_MAX);
	if (sql_run(c->db, c->e, "DELETE FROM fence_device_node WHERE device = ?", sql_text(c->name)) < 0)
		return -1;
	json_object_foreach ((json_t *)nodes, node, plug) {
		if (!json_is_null(plug) && !text_is_plain(plug, 1, 255))
			return refuse(c, ERR_INPUT, "nodes.%.63s must be a text of 1 to 255 bytes, or null", node);
		if (!text_is_name(node))
			return refuse(c, ERR_INPUT, "nodes: \"%.64s\" is not the name of a node", node);
		if (node_need(c, node) < 0 ||
		    sql_run(c->db, c->e, "INSERT INTO fence_device_node (device, node, plug) VALUES (?, ?, ?)",
			    sql_text(c->name), sql_text(node), sql_text(json_string_value(plug))) < 0)
			return -1;
	}
	switch (sql_string(c->db, c->e, &used,
			   "SELECT l.node FROM fence_level l LEFT JOIN fence_device_node n ON n.device = l.device AND "
			   "n.node = l.node WHERE l.device = ? AND n.node IS NULL ORDER BY l.node LIMIT 1",
			   sql_text(c->name))) {
	case 0:
		return 0;
	case 1:
		return refuse(c, ERR_CONFLICT, "a level of node %s uses it; keep that node, or change its levels first",
			      used);
	default:
		return -1;
	}
}

static int device_read(struct change *c, const char *name, json_t **ret_options)
{
	_free_ char *text = NULL;
	int r = sql_string(c->db, c->e, &text, "SELECT options FROM fence_device WHERE name = ?", sql_text(name));

	if (r > 0)
		*ret_options = json_loads(text, 0, NULL);
	return r;
}

static int device_write(struct change *c, const json_t *options)
{
	const json_t *secret = arg_json(c, "secret");
	_free_ char *text = change_dump(c, options, 64U << 10, "options");
	_free_ char *names = secret ? change_dump(c, secret, 64U << 10, "secret") : xstrdup("[]");

	if (!text || !names)
		return -1;
	return sql_run(
		c->db, c->e,
		"INSERT INTO fence_device (name, agent, options, secret, plug_option, priority, timeout_ms, attempts, "
		"delay_ms, by, changed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (name) DO "
		"UPDATE SET agent = ?2, options = ?3, secret = ?4, plug_option = ?5, priority = ?6, timeout_ms = ?7, "
		"attempts = ?8, delay_ms = ?9, by = ?10, changed = ?11",
		sql_text(c->name), sql_text(arg_text(c, "agent")), sql_text(text), sql_text(names),
		sql_text(arg_text(c, "plug_option")), sql_int(arg_int(c, "priority", 0)),
		sql_int(arg_int(c, "timeout_ms", STATE_FENCE_TIMEOUT_MS)),
		sql_int(arg_int(c, "attempts", STATE_FENCE_ATTEMPTS)), sql_int(arg_int(c, "delay_ms", 0)),
		sql_text(c->by), sql_int(c->time));
}

static int fence_device(struct change *c)
{
	json_t *former = NULL, *options;
	int64_t n = 0;
	int r = device_read(c, c->name, &former);

	if (r < 0 || sql_number(c->db, c->e, &n, "SELECT count(*) FROM fence_device") < 0)
		return -1;
	if (r > 0 && arg_true(c, "new")) {
		json_decref(former);
		return refuse(c, ERR_CONFLICT, "is there already; `fence edit` changes it, or choose another name");
	}
	if (r == 0 && n >= DEVICES_MAX)
		return refuse(c, ERR_CONFLICT, "there are %d fence devices, which is the most; delete one first",
			      DEVICES_MAX);
	options = options_make(c, former);
	json_decref(former);
	r = options && secret_check(c, options) == 0 ? device_write(c, options) : -1;
	json_decref(options);
	if (r < 0 || nodes_write(c, arg_json(c, "nodes")) < 0)
		return -1;
	json_object_set_new(c->result, "name", json_string(c->name));
	json_object_set_new(c->result, "agent", json_string(arg_text(c, "agent")));
	json_object_set(c->result, "nodes", json_object_get(c->args, "nodes"));
	return 0;
}

static const struct arg fence_device_delete_args[] = {NEEDED("name", ARG_NAME), {0}};

static int fence_device_delete(struct change *c)
{
	_free_ char *used = NULL;
	int r = sql_string(c->db, c->e, &used, "SELECT node FROM fence_level WHERE device = ? ORDER BY node LIMIT 1",
			   sql_text(c->name));

	if (r > 0)
		return refuse(c, ERR_CONFLICT, "a level of node %s uses it; change its levels first", used);
	if (r < 0 || sql_run(c->db, c->e, "DELETE FROM fence_device_node WHERE device = ?", sql_text(c->name)) < 0 ||
	    sql_run(c->db, c->e, "DELETE FROM fence_device WHERE name = ?", sql_text(c->name)) < 0)
		return -1;
	if (sqlite3_changes(c->db) == 0)
		return refuse(c, ERR_NOTFOUND,
			      "there is no such fence device; `fence list` shows those that are there");
	json_object_set_new(c->result, "name", json_string(c->name));
	return 0;
}

/* ---- levels ---- */

static const struct arg fence_level_args[] = {
	NEEDED("node", ARG_NAME),
	NEEDED_IN("level", ARG_INT, 1, 9),
	NEEDED_IN("devices", ARG_TEXTS, 0, LEVEL_DEVICES_MAX), /* all of them must succeed; none: no such level */
	{0},
};

static int level_add(struct change *c, int64_t level, size_t place, const char *device)
{
	int64_t there;
	int r = sql_number(c->db, c->e, &there, "SELECT 1 FROM fence_device WHERE name = ?", sql_text(device));

	if (r == 0)
		return refuse(c, ERR_NOTFOUND, "there is no fence device %s; `fence list` shows those that are there",
			      device);
	if (r > 0)
		r = sql_number(c->db, c->e, &there, "SELECT 1 FROM fence_device_node WHERE device = ? AND node = ?",
			       sql_text(device), sql_text(c->name));
	if (r == 0)
		return refuse(c, ERR_CONFLICT, "fence device %s does not know it; add it to the nodes of that device",
			      device);
	if (r > 0)
		r = sql_number(c->db, c->e, &there,
			       "SELECT 1 FROM fence_level WHERE node = ? AND level = ? AND device = ?",
			       sql_text(c->name), sql_int(level), sql_text(device));
	if (r > 0)
		return refuse(c, ERR_INPUT, "fence device %s is given twice", device);
	if (r < 0)
		return -1;
	return sql_run(c->db, c->e, "INSERT INTO fence_level (node, level, place, device) VALUES (?, ?, ?, ?)",
		       sql_text(c->name), sql_int(level), sql_int((int64_t)place), sql_text(device));
}

static int fence_level(struct change *c)
{
	int64_t level = arg_int(c, "level", 0);
	const json_t *devices = arg_json(c, "devices");
	json_t *d;
	size_t i;

	if (node_need(c, c->name) < 0 || sql_run(c->db, c->e, "DELETE FROM fence_level WHERE node = ? AND level = ?",
						 sql_text(c->name), sql_int(level)) < 0)
		return -1;
	json_array_foreach (devices, i, d)
		if (level_add(c, level, i, json_string_value(d)) < 0)
			return -1;
	json_object_set_new(c->result, "node", json_string(c->name));
	json_object_set_new(c->result, "level", json_integer(level));
	json_object_set(c->result, "devices", (json_t *)devices);
	return 0;
}

int node_forget_fencing(struct change *c, const char *name)
{
	if (sql_run(c->db, c->e, "DELETE FROM fence_level WHERE node = ?", sql_text(name)) < 0)
		return -1;
	return sql_run(c->db, c->e, "DELETE FROM fence_device_node WHERE node = ?", sql_text(name));
}

/* ---- questions ---- */

#define DEVICE_COLUMNS "name agent options* secret* plug_option priority timeout_ms attempts delay_ms by changed nodes*"
#define DEVICE_SELECT                                                                                                  \
	"SELECT name, agent, options, secret, plug_option, priority, timeout_ms, attempts, delay_ms, by, changed, "    \
	"(SELECT json_group_object(node, plug) FROM (SELECT * FROM fence_device_node WHERE device = d.name ORDER BY "  \
	"node)) FROM fence_device d "

static void mask(json_t *device, bool secrets)
{
	json_t *options = json_object_get(device, "options"), *name;
	size_t i;

	if (secrets)
		return;
	json_array_foreach (json_object_get(device, "secret"), i, name)
		json_object_set_new(options, json_string_value(name), json_null());
}

json_t *state_fence_device_get(sqlite3 *db, const char *name, bool secrets, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, DEVICE_SELECT "WHERE name = ?", sql_text(name));
	json_t *ret = first_json(s, DEVICE_COLUMNS, "fence device", name, e);

	mask(ret, secrets);
	return ret;
}

json_t *state_fence_device_list(sqlite3 *db, bool secrets, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin_n(db, e, DEVICE_SELECT "ORDER BY name", NULL, 0);
	json_t *ret = rows_json(s, DEVICE_COLUMNS, e), *d;
	size_t i;

	json_array_foreach (ret, i, d)
		mask(d, secrets);
	return ret;
}

json_t *state_fence_level_list(sqlite3 *db, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin_n(
		db, e,
		"SELECT node, level, (SELECT json_group_array(device) FROM (SELECT device FROM fence_level WHERE node "
		"= "
		"l.node AND level = l.level ORDER BY place)) FROM fence_level l WHERE place = 0 ORDER BY node, level",
		NULL, 0);

	return rows_json(s, "node level devices*", e);
}

json_t *state_fence_plan(sqlite3 *db, const char *node, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(
		db, e,
		"SELECT l.level, d.name, d.agent, d.options, n.plug FROM (SELECT level, place, device FROM "
		"fence_level WHERE node = ?1 UNION ALL SELECT row_number() OVER (ORDER BY device), 0, device "
		"FROM fence_device_node WHERE node = ?1 AND NOT EXISTS (SELECT 1 FROM fence_level WHERE node = "
		"?1)) l JOIN fence_device d ON d.name = l.device JOIN fence_device_node n ON n.device = d.name "
		"AND n.node = ?1 ORDER BY l.level, l.place",
		sql_text(node));
	json_t *levels = json_array(), *devices = NULL;
	int64_t last = 0;
	int r = -1;

	while (s && (r = sql_next(s, e)) > 0) {
		int64_t level = sqlite3_column_int64(s, 0);

		if (!devices || level != last) {
			devices = json_array();
			json_array_append_new(levels,
					      json_pack("{s:I, s:o}", "level", (json_int_t)level, "devices", devices));
			last = level;
		}
		json_array_append_new(devices, json_pack("{s:o, s:o, s:o, s:o}", "name", column_text(s, 1), "agent",
							 column_text(s, 2), "options", column_json(s, 3), "plug",
							 column_text(s, 4)));
	}
	if (r == 0)
		return levels;
	json_decref(levels);
	return NULL;
}

const struct op fence_ops[] = {
	{"fence.device", "fence device", "name", fence_device_args, fence_device, EVENT_AUDIT, 2},
	{"fence.device-delete", "fence device", "name", fence_device_delete_args, fence_device_delete, EVENT_AUDIT, 2},
	{"fence.level", "node", "node", fence_level_args, fence_level, EVENT_AUDIT, 2},
	{0},
};
