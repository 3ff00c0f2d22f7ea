/* SPDX-License-Identifier: Apache-2.0 */
/* The cache of prepared statements, and typed binding. */
#include "cluster/sql.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/mem.h"

#define SLOTS 512 /* a power of two, well above the number of different statements */

/* The statements of one connection: open addressing by the address of the text. */
struct sql_cache {
	sqlite3 *db;
	struct sql_cache *next;
	void *attachment;
	size_t used;
	struct {
		const char *text;
		sqlite3_stmt *s;
	} slots[SLOTS];
};

/* All caches of the process: a handful, so a list. The lock covers the list; a cache belongs to its connection's
 * thread. */
static struct sql_cache *caches;
static pthread_mutex_t caches_lock = PTHREAD_MUTEX_INITIALIZER;

/* SQLITE_TRACE_CLOSE comes before sqlite3_close() looks for statements that are still there. */
static int connection_closes(unsigned event, void *cache, void *db, void *unused)
{
	struct sql_cache *c = cache;

	(void)event, (void)db, (void)unused;
	pthread_mutex_lock(&caches_lock);
	for (struct sql_cache **p = &caches; *p; p = &(*p)->next)
		if (*p == c) {
			*p = c->next;
			break;
		}
	pthread_mutex_unlock(&caches_lock);
	for (size_t i = 0; i < SLOTS; i++)
		sqlite3_finalize(c->slots[i].s);
	free(c->attachment);
	free(c);
	return 0;
}

static struct sql_cache *cache_of(sqlite3 *db)
{
	struct sql_cache *c;

	pthread_mutex_lock(&caches_lock);
	for (c = caches; c && c->db != db; c = c->next)
		;
	if (!c) {
		c = xcalloc(1, sizeof(*c));
		c->db = db;
		c->next = caches;
		caches = c;
		sqlite3_trace_v2(db, SQLITE_TRACE_CLOSE, connection_closes, c);
	}
	pthread_mutex_unlock(&caches_lock);
	return c;
}

static int sql_error(sqlite3 *db, struct err *e)
{
	int code = sqlite3_errcode(db);

	if (code == SQLITE_CONSTRAINT)
		return err_set(e, ERR_CONFLICT, "the state refuses it: %s", sqlite3_errmsg(db));
	if (code == SQLITE_TOOBIG)
		return err_set(e, ERR_INPUT, "the state refuses it: %s", sqlite3_errmsg(db));
	return err_set(e, ERR_SYSTEM, "state database: %s", sqlite3_errmsg(db));
}

/* The prepared statement of @text, made at its first use. */
static sqlite3_stmt *prepared(sqlite3 *db, const char *text, struct err *e)
{
	struct sql_cache *c = cache_of(db);
	size_t i = ((uintptr_t)text * 0x9e3779b97f4a7c15ULL) >> 55;

	while (c->slots[i].text && c->slots[i].text != text)
		i = (i + 1) % SLOTS;
	if (c->slots[i].text)
		return c->slots[i].s;
	assert(c->used < SLOTS / 2);
	if (sqlite3_prepare_v3(db, text, -1, SQLITE_PREPARE_PERSISTENT, &c->slots[i].s, NULL) != SQLITE_OK) {
		sql_error(db, e);
		return NULL;
	}
	c->slots[i].text = text;
	c->used++;
	return c->slots[i].s;
}

static int bind(sqlite3_stmt *s, int i, const struct sql_value *v)
{
	switch (v->type) {
	case SQL_NULL:
		return sqlite3_bind_null(s, i);
	case SQL_TEXT:
		return sqlite3_bind_text(s, i, v->text, -1, SQLITE_STATIC);
	case SQL_INT:
		return sqlite3_bind_int64(s, i, v->n);
	case SQL_REAL:
		return sqlite3_bind_double(s, i, v->real);
	case SQL_BLOB:
		return sqlite3_bind_blob64(s, i, v->blob.data, v->blob.size, SQLITE_STATIC);
	}
	return SQLITE_MISUSE;
}

sqlite3_stmt *sql_begin_n(sqlite3 *db, struct err *e, const char *text, const struct sql_value *values, size_t n)
{
	sqlite3_stmt *s = prepared(db, text, e);

	if (!s)
		return NULL;
	assert(!sqlite3_stmt_busy(s) && sqlite3_bind_parameter_count(s) == (int)n);
	for (size_t i = 0; i < n; i++)
		if (bind(s, (int)i + 1, &values[i]) != SQLITE_OK) {
			sql_error(db, e);
			sql_end(s);
			return NULL;
		}
	return s;
}

int sql_next(sqlite3_stmt *s, struct err *e)
{
	switch (sqlite3_step(s)) {
	case SQLITE_ROW:
		return 1;
	case SQLITE_DONE:
		return 0;
	default:
		return sql_error(sqlite3_db_handle(s), e);
	}
}

void sql_end(sqlite3_stmt *s)
{
	if (!s)
		return;
	sqlite3_reset(s);
	sqlite3_clear_bindings(s);
}

void sql_endp(sqlite3_stmt **s)
{
	sql_end(*s);
}

int sql_run_n(sqlite3 *db, struct err *e, const char *text, const struct sql_value *values, size_t n)
{
	_sql_ sqlite3_stmt *s = sql_begin_n(db, e, text, values, n);

	return s ? sql_next(s, e) : -1;
}

int sql_number_n(sqlite3 *db, struct err *e, int64_t *ret, const char *text, const struct sql_value *values, size_t n)
{
	_sql_ sqlite3_stmt *s = sql_begin_n(db, e, text, values, n);
	int r = s ? sql_next(s, e) : -1;

	if (r <= 0)
		return r;
	if (sqlite3_column_type(s, 0) == SQLITE_NULL)
		return 0;
	*ret = sqlite3_column_int64(s, 0);
	return 1;
}

int sql_string_n(sqlite3 *db, struct err *e, char **ret, const char *text, const struct sql_value *values, size_t n)
{
	_sql_ sqlite3_stmt *s = sql_begin_n(db, e, text, values, n);
	int r = s ? sql_next(s, e) : -1;

	if (r <= 0)
		return r;
	if (sqlite3_column_type(s, 0) == SQLITE_NULL)
		return 0;
	*ret = xstrdup(sql_column_text(s, 0));
	return 1;
}

void **sql_attachment(sqlite3 *db)
{
	return &cache_of(db)->attachment;
}

int sql_script(sqlite3 *db, const char *text, struct err *e)
{
	return sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK ? 0 : sql_error(db, e);
}

const char *sql_column_text(sqlite3_stmt *s, int i)
{
	const unsigned char *t = sqlite3_column_text(s, i);

	return t ? (const char *)t : "";
}
