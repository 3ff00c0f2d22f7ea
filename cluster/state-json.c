/* SPDX-License-Identifier: Apache-2.0 */
/* JSON out of rows of the state. */
#include <string.h>

#include "cluster/state-int.h"

json_t *column_json(sqlite3_stmt *s, int i)
{
	const char *text = (const char *)sqlite3_column_text(s, i);
	json_t *v = text ? json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;

	return v ? v : json_null();
}

json_t *column_text(sqlite3_stmt *s, int i)
{
	const char *text = (const char *)sqlite3_column_text(s, i);

	return text ? json_string(text) : json_null();
}

json_t *column_int(sqlite3_stmt *s, int i)
{
	return sqlite3_column_type(s, i) == SQLITE_NULL ? json_null() : json_integer(sqlite3_column_int64(s, i));
}

static json_t *column_any(sqlite3_stmt *s, int i, char mark)
{
	if (mark == '*')
		return column_json(s, i);
	if (mark == '?')
		return json_boolean(sqlite3_column_int(s, i));
	switch (sqlite3_column_type(s, i)) {
	case SQLITE_INTEGER:
		return column_int(s, i);
	case SQLITE_FLOAT:
		return json_real(sqlite3_column_double(s, i));
	default:
		return column_text(s, i);
	}
}

json_t *row_json(sqlite3_stmt *s, const char *names)
{
	json_t *o = json_object();

	for (int i = 0; *names; i++) {
		size_t n = strcspn(names, " ");
		char mark = names[n - 1];
		size_t bare = mark == '*' || mark == '?' ? n - 1 : n;

		json_object_setn_new_nocheck(o, names, bare, column_any(s, i, mark));
		names += n + (names[n] == ' ');
	}
	return o;
}

json_t *rows_json(sqlite3_stmt *s, const char *names, struct err *e)
{
	json_t *list = json_array();
	int r = -1;

	while (s && (r = sql_next(s, e)) > 0)
		json_array_append_new(list, row_json(s, names));
	if (r == 0)
		return list;
	json_decref(list);
	return NULL;
}

json_t *first_json(sqlite3_stmt *s, const char *names, const char *kind, const char *name, struct err *e)
{
	int r = s ? sql_next(s, e) : -1;

	if (r > 0)
		return row_json(s, names);
	if (r == 0)
		err_set(e, ERR_NOTFOUND, "%s %s: there is no such %s", kind, name, kind);
	return NULL;
}
