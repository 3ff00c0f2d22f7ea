/* SPDX-License-Identifier: Apache-2.0 */
/* A small state machine for tests: a table of keys and values, and commands that fail in every way. */
#include "tests/unit/cluster/kv-machine.h"

#include <openssl/evp.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/sql.h"

#define OLD_MAX 16

int kv_disk_failures;

static int kv_schema(sqlite3 *db, struct err *e)
{
	if (sqlite3_exec(db, "CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value TEXT NOT NULL)", NULL, NULL,
			 NULL) != SQLITE_OK)
		return err_set(e, ERR_SYSTEM, "%s", sqlite3_errmsg(db));
	return 0;
}

char *kv_get(sqlite3 *db, const char *key)
{
	char *value = NULL;

	if (sql_string(db, NULL, &value, "SELECT value FROM kv WHERE key = ?", sql_text(key)) < 0)
		abort();
	return value ? value : xstrdup("");
}

int64_t kv_count(sqlite3 *db)
{
	int64_t n = 0;

	if (sql_number(db, NULL, &n, "SELECT count(*) FROM kv") < 0)
		abort();
	return n;
}

static int kv_apply(sqlite3 *db, uint64_t index, const json_t *command, json_t **ret_result, struct err *e)
{
	const char *key = json_string_value(json_object_get(command, "key"));
	const char *value = json_string_value(json_object_get(command, "value"));
	_free_ char *old = NULL;

	if (!key || !value)
		return err_set(e, ERR_INPUT, "a command needs key and value");
	old = kv_get(db, key);
	if (sql_run(db, e, "INSERT OR REPLACE INTO kv VALUES (?, ?)", sql_text(key), sql_text(value)) < 0)
		return -1;
	if (kv_disk_failures > 0 && kv_disk_failures--)
		return err_set(e, ERR_SYSTEM, "the disk failed");
	if (json_object_get(command, "refuse"))
		return err_set(e, ERR_INPUT, "%s is refused", key);
	*ret_result = json_pack("{s:I, s:s%}", "index", (json_int_t)index, "old", old, strnlen(old, OLD_MAX));
	return 0;
}

static int kv_digest(sqlite3 *db, uint8_t out[32], struct err *e)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	sqlite3_stmt *q = NULL;
	int r;

	if (!md || !EVP_DigestInit_ex(md, EVP_sha256(), NULL))
		abort();
	if (sqlite3_prepare_v2(db, "SELECT key || char(0) || value FROM kv ORDER BY key", -1, &q, NULL) != SQLITE_OK)
		abort();
	while ((r = sqlite3_step(q)) == SQLITE_ROW)
		EVP_DigestUpdate(md, sqlite3_column_blob(q, 0), (size_t)sqlite3_column_bytes(q, 0));
	sqlite3_finalize(q);
	EVP_DigestFinal_ex(md, out, NULL);
	EVP_MD_CTX_free(md);
	return r == SQLITE_DONE ? 0 : err_set(e, ERR_SYSTEM, "%s", sqlite3_errmsg(db));
}

const struct machine kv_machine = {.version = 1, .schema = kv_schema, .apply = kv_apply, .digest = kv_digest};
