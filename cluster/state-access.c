/* SPDX-License-Identifier: Apache-2.0 */
/* State: users and their roles, one-time tokens for joining, settings. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state-int.h"
#include "cluster/state.h"

#define SETTING_MAX (64U << 10)        /* bytes of JSON */
#define TOKEN_TTL_MAX_S 604800         /* a week */
#define TOKEN_KEPT_MS (86400LL * 1000) /* after its end, so that "expired" and "used" can be said */

static const char *const roles[] = {"viewer", "operator", "admin", NULL};

/* ---- users ---- */

static const struct arg user_create_args[] = {
	NEEDED("name", ARG_NAME),
	NEEDED_OF("role", roles),
	ALLOWED("token_hash", ARG_HASH), /* none: known by a client certificate */
	{0},
};

static int user_create(struct change *c)
{
	const char *hash = arg_text(c, "token_hash");
	int64_t there;
	int r = sql_number(c->db, c->e, &there, "SELECT 1 FROM user WHERE name = ?", sql_text(c->name));

	if (r > 0)
		return refuse(c, ERR_CONFLICT, "exists already; delete it first, or choose another name");
	if (r == 0 && hash)
		r = sql_number(c->db, c->e, &there, "SELECT 1 FROM user WHERE token_hash = ?", sql_text(hash));
	if (r > 0)
		return refuse(c, ERR_CONFLICT, "somebody has this token already; make a new one");
	if (r < 0)
		return -1;
	json_object_set_new(c->result, "name", json_string(c->name));
	json_object_set_new(c->result, "role", json_string(arg_text(c, "role")));
	return sql_run(c->db, c->e, "INSERT INTO user (name, role, token_hash, created, by) VALUES (?, ?, ?, ?, ?)",
		       sql_text(c->name), sql_text(arg_text(c, "role")), sql_text(hash), sql_int(c->time),
		       sql_text(c->by));
}

static const struct arg user_delete_args[] = {NEEDED("name", ARG_NAME), {0}};

static int user_delete(struct change *c)
{
	if (sql_run(c->db, c->e, "DELETE FROM user WHERE name = ?", sql_text(c->name)) < 0)
		return -1;
	if (sqlite3_changes(c->db) == 0)
		return refuse(c, ERR_NOTFOUND, "there is no such user; `user list` shows those that are there");
	json_object_set_new(c->result, "name", json_string(c->name));
	return 0;
}

#define USER_COLUMNS "name role created by"

json_t *state_user_get(sqlite3 *db, const char *name, struct err *e)
{
	_sql_ sqlite3_stmt *s =
		sql_begin(db, e, "SELECT name, role, created, by FROM user WHERE name = ?", sql_text(name));

	return first_json(s, USER_COLUMNS, "user", name, e);
}

json_t *state_user_by_token_hash(sqlite3 *db, const char *hash, struct err *e)
{
	_sql_ sqlite3_stmt *s =
		sql_begin(db, e, "SELECT name, role, created, by FROM user WHERE token_hash = ?", sql_text(hash));

	return first_json(s, USER_COLUMNS, "user", "with this token", e);
}

json_t *state_user_list(sqlite3 *db, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, "SELECT name, role, created, by FROM user ORDER BY name");

	return rows_json(s, USER_COLUMNS, e);
}

/* ---- tokens ---- */

static const struct arg token_create_args[] = {
	NEEDED("hash", ARG_HASH),
	NEEDED_IN("ttl_s", ARG_INT, 1, TOKEN_TTL_MAX_S),
	{0},
};

static int token_create(struct change *c)
{
	int64_t expires = c->time + arg_int(c, "ttl_s", 0) * 1000, there;
	int r = sql_number(c->db, c->e, &there, "SELECT 1 FROM token WHERE hash = ?", sql_text(c->name));

	if (r > 0)
		return refuse(c, ERR_CONFLICT, "exists already; make a new one");
	if (r < 0 || sql_run(c->db, c->e, "DELETE FROM token WHERE expires < ?", sql_int(c->time - TOKEN_KEPT_MS)) < 0)
		return -1;
	json_object_set_new(c->result, "expires", json_integer(expires));
	return sql_run(c->db, c->e, "INSERT INTO token (hash, created, expires, by) VALUES (?, ?, ?, ?)",
		       sql_text(c->name), sql_int(c->time), sql_int(expires), sql_text(c->by));
}

int token_take(struct change *c, const char *hash, const char *node)
{
	_sql_ sqlite3_stmt *s =
		sql_begin(c->db, c->e, "SELECT expires, used_by FROM token WHERE hash = ?", sql_text(hash));
	int r = s ? sql_next(s, c->e) : -1;

	if (r < 0)
		return -1;
	if (r == 0)
		return refuse(c, ERR_AUTH, "the token is unknown, or was revoked; make a new one");
	if (sqlite3_column_type(s, 1) != SQLITE_NULL)
		return refuse(c, ERR_AUTH, "the token was used by %s; each is good for one host: make a new one",
			      sql_column_text(s, 1));
	if (sqlite3_column_int64(s, 0) <= c->time)
		return refuse(c, ERR_AUTH, "the token has expired; make a new one");
	return sql_run(c->db, c->e, "UPDATE token SET used = ?, used_by = ? WHERE hash = ?", sql_int(c->time),
		       sql_text(node), sql_text(hash));
}

static const struct arg token_use_args[] = {NEEDED("hash", ARG_HASH), NEEDED("node", ARG_NAME), {0}};

static int token_use(struct change *c)
{
	json_object_set_new(c->result, "node", json_string(arg_text(c, "node")));
	return token_take(c, c->name, arg_text(c, "node"));
}

static const struct arg token_revoke_args[] = {NEEDED("hash", ARG_HASH), {0}};

static int token_revoke(struct change *c)
{
	if (sql_run(c->db, c->e, "DELETE FROM token WHERE hash = ?", sql_text(c->name)) < 0)
		return -1;
	return sqlite3_changes(c->db) ? 0 : refuse(c, ERR_NOTFOUND, "there is no such token");
}

json_t *state_token_get(sqlite3 *db, const char *hash, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, "SELECT created, expires, by, used, used_by FROM token WHERE hash = ?",
					  sql_text(hash));

	return first_json(s, "created expires by used used_by", "token", "with this hash", e);
}

/* ---- settings ---- */

static const struct arg setting_set_args[] = {
	NEEDED_IN("key", ARG_TEXT, 1, 128),
	NEEDED("value", ARG_ANY), /* null takes the setting away */
	{0},
};

static int setting_delete(struct change *c)
{
	if (sql_run(c->db, c->e, "DELETE FROM setting WHERE key = ?", sql_text(c->name)) < 0)
		return -1;
	if (sqlite3_changes(c->db) == 0)
		return refuse(c, ERR_NOTFOUND, "there is no such setting");
	json_object_set_new(c->result, "version", json_integer(0));
	return 0;
}

static int setting_set(struct change *c)
{
	const json_t *value = arg_json(c, "value");
	_free_ char *text = NULL;
	int64_t version = 0;

	if (!value)
		return setting_delete(c);
	text = change_dump(c, value, SETTING_MAX, "value");
	if (!text ||
	    sql_number(c->db, c->e, &version, "SELECT version FROM setting WHERE key = ?", sql_text(c->name)) < 0)
		return -1;
	json_object_set_new(c->result, "version", json_integer(version + 1));
	return sql_run(c->db, c->e,
		       "INSERT INTO setting (key, value, version, changed, by) VALUES (?1, ?2, ?3, ?4, ?5) "
		       "ON CONFLICT (key) DO UPDATE SET value = ?2, version = ?3, changed = ?4, by = ?5",
		       sql_text(c->name), sql_text(text), sql_int(version + 1), sql_int(c->time), sql_text(c->by));
}

#define SETTING_COLUMNS "key value* version changed by"

json_t *state_setting_get(sqlite3 *db, const char *key, struct err *e)
{
	_sql_ sqlite3_stmt *s =
		sql_begin(db, e, "SELECT key, value, version, changed, by FROM setting WHERE key = ?", sql_text(key));

	return first_json(s, SETTING_COLUMNS, "setting", key, e);
}

json_t *state_setting_list(sqlite3 *db, const char *prefix, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e,
					  "SELECT key, value, version, changed, by FROM setting "
					  "WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key",
					  sql_text(prefix));

	return rows_json(s, SETTING_COLUMNS, e);
}

const struct op access_ops[] = {
	{"setting.set", "setting", "key", setting_set_args, setting_set, EVENT_AUDIT, 1},
	{"token.create", "token", "hash", token_create_args, token_create, EVENT_AUDIT, 1},
	{"token.use", "token", "hash", token_use_args, token_use, EVENT_AUDIT, 1},
	{"token.revoke", "token", "hash", token_revoke_args, token_revoke, EVENT_AUDIT, 1},
	{"user.create", "user", "name", user_create_args, user_create, EVENT_AUDIT, 1},
	{"user.delete", "user", "name", user_delete_args, user_delete, EVENT_AUDIT, 1},
	{0},
};
