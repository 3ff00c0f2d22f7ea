/* SPDX-License-Identifier: Apache-2.0 */
/* SQLite with few words: statements that are prepared once per connection, typed values, errors as sentences. */
#ifndef GODWIT_CLUSTER_SQL_H
#define GODWIT_CLUSTER_SQL_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * A statement is known by the address of its text, so the text must be a string literal; it is prepared at its first
 * use on a connection and kept until that connection is closed. For that the cache takes the connection's trace
 * callback (SQLITE_TRACE_CLOSE): sqlite3_close() finds no statement of ours left. Nobody else may set one on such a
 * connection.
 *
 * A connection belongs to one thread at a time, as SQLite wants it anyway; different connections may be used by
 * different threads.
 *
 * Errors: ERR_CONFLICT for a violated constraint, ERR_INPUT for a value that is too big (both depend on nothing but the
 * data), ERR_SYSTEM for everything else: disk, memory, a damaged file.
 */

enum sql_type { SQL_NULL, SQL_TEXT, SQL_INT, SQL_REAL, SQL_BLOB };

/* One value to bind. Text and blobs are borrowed until the statement ends. */
struct sql_value {
	enum sql_type type;
	union {
		const char *text;
		int64_t n;
		double real;
		struct {
			const void *data;
			size_t size;
		} blob;
	};
};

static inline struct sql_value sql_text(const char *s)
{
	return (struct sql_value){.type = s ? SQL_TEXT : SQL_NULL, .text = s};
}

static inline struct sql_value sql_int(int64_t n)
{
	return (struct sql_value){.type = SQL_INT, .n = n};
}

static inline struct sql_value sql_real(double d)
{
	return (struct sql_value){.type = SQL_REAL, .real = d};
}

static inline struct sql_value sql_blob(const void *data, size_t size)
{
	return (struct sql_value){.type = SQL_BLOB, .blob = {data, size}};
}

static inline struct sql_value sql_null(void)
{
	return (struct sql_value){.type = SQL_NULL};
}

/* Begin a statement: bound, not yet stepped. NULL with @e. End it with sql_end(), or declare it `_sql_`. */
sqlite3_stmt *sql_begin_n(sqlite3 *db, struct err *e, const char *text, const struct sql_value *values, size_t n);

/* 1: a row is there, 0: no more rows, -1 with @e. */
int sql_next(sqlite3_stmt *s, struct err *e);

/* Give the statement back to the cache. NULL is fine. */
void sql_end(sqlite3_stmt *s);

/* A whole statement that answers no rows. */
int sql_run_n(sqlite3 *db, struct err *e, const char *text, const struct sql_value *values, size_t n);

/* The first column of the first row as a number. 1 found, 0 no row or NULL (*ret untouched), -1 with @e. */
int sql_number_n(sqlite3 *db, struct err *e, int64_t *ret, const char *text, const struct sql_value *values, size_t n);

/* The first column of the first row as text: 1 found (caller frees *ret), 0 no row or NULL, -1 with @e. */
int sql_string_n(sqlite3 *db, struct err *e, char **ret, const char *text, const struct sql_value *values, size_t n);

#define SQL_VALUES(...)                                                                                                \
	(const struct sql_value[]){__VA_ARGS__}, (sizeof((struct sql_value[]){__VA_ARGS__}) / sizeof(struct sql_value))
#define sql_begin(db, e, text, ...) sql_begin_n(db, e, "" text, SQL_VALUES(__VA_ARGS__))
#define sql_run(db, e, text, ...) sql_run_n(db, e, "" text, SQL_VALUES(__VA_ARGS__))
#define sql_number(db, e, ret, text, ...) sql_number_n(db, e, ret, "" text, SQL_VALUES(__VA_ARGS__))
#define sql_string(db, e, ret, text, ...) sql_string_n(db, e, ret, "" text, SQL_VALUES(__VA_ARGS__))

/* A pointer for the caller's own use with this connection: NULL at first, given to free() when the connection closes.
 */
void **sql_attachment(sqlite3 *db);

/* Run a script of several statements, uncached. */
int sql_script(sqlite3 *db, const char *text, struct err *e);

/* Column @i of the current row. Text is borrowed until the next step; "" for NULL. */
const char *sql_column_text(sqlite3_stmt *s, int i);

void sql_endp(sqlite3_stmt **s);
#define _sql_ __attribute__((cleanup(sql_endp)))

#endif
