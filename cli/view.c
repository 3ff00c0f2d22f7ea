/* SPDX-License-Identifier: Apache-2.0 */
/* Answers as people read them. */
#include "cli/view.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"

#define COLUMNS_MAX 12

json_t *view_get(const json_t *o, const char *field)
{
	_free_ char *copy = xstrdup(field);
	char *rest = copy;
	json_t *v = (json_t *)o;

	for (char *name; v && (name = strsep(&rest, "."));)
		v = json_object_get(v, name);
	return json_is_null(v) ? NULL : v;
}

/* ---- cells ---- */

static char *scalar_text(const json_t *v)
{
	_free_ char *dump = NULL;

	if (json_is_string(v))
		return text_clean(json_string_value(v));
	if (json_is_boolean(v))
		return xstrdup(json_is_true(v) ? "yes" : "no");
	dump = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
	return text_clean(dump);
}

static char *time_text(const json_t *v)
{
	time_t t = (time_t)(json_integer_value(v) / 1000);
	struct tm tm;
	char buf[64];

	if (!json_is_integer(v) || !localtime_r(&t, &tm) || !strftime(buf, sizeof(buf), "%Y-%m-%d %H:%M:%S", &tm))
		return scalar_text(v);
	return xstrdup(buf);
}

static char *list_text(const json_t *v)
{
	char *text = xstrdup("");
	json_t *item;
	size_t i;

	json_array_foreach (v, i, item) {
		_free_ char *one = scalar_text(item);
		char *longer = xasprintf("%s%s%s", text, i ? ", " : "", one);

		free(text);
		text = longer;
	}
	return text;
}

static char *number_text(const json_t *v, enum view_format format)
{
	double n = json_number_value(v);
	char buf[TEXT_CELL];

	if (!json_is_number(v) || n < 0 || n > 1e18)
		return scalar_text(v);
	if (format == VIEW_PERCENT)
		return xasprintf("%d %%", (int)(n > 1 ? 100 : n * 100));
	if (format == VIEW_BYTES)
		text_memory(buf, (uint64_t)n);
	else
		text_duration(buf, n < 1e12 ? (int64_t)(n * NS_PER_MS) : INT64_MAX);
	return xstrdup(buf);
}

char *view_cell(const json_t *o, const struct view_column *c)
{
	const json_t *v = view_get(o, c->field);

	if (!v || (json_is_array(v) && !json_array_size(v)))
		return xstrdup("-");
	switch (c->format) {
	case VIEW_TIME:
		return time_text(v);
	case VIEW_LIST:
		return json_is_array(v) ? list_text(v) : scalar_text(v);
	case VIEW_JSON: {
		char *text = json_dumps(v, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

		return text ? text : xstrdup("-");
	}
	case VIEW_BYTES:
	case VIEW_MS:
	case VIEW_PERCENT:
		return number_text(v, c->format);
	default:
		return scalar_text(v);
	}
}

/* ---- tables ---- */

static bool is_right(enum view_format format)
{
	return format == VIEW_BYTES || format == VIEW_PERCENT || format == VIEW_MS;
}

/* Characters, not bytes: a cell is UTF-8. */
static int width_of(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

/* One cell, padded; the last of a line is not. */
static void cell_print(FILE *out, const char *text, int width, bool right, bool last)
{
	int pad = width - width_of(text);

	if (pad < 0 || (last && !right))
		pad = 0;
	fprintf(out, "%*s%s%*s%s", right ? pad : 0, "", text, right ? 0 : pad, "", last ? "\n" : "  ");
}

static void table_print(FILE *out, const json_t *rows, const struct view_column *columns)
{
	size_t n = 0, n_rows = json_array_size(rows);
	int width[COLUMNS_MAX];
	char **cells;

	while (columns[n].title && n < COLUMNS_MAX)
		n++;
	cells = xcalloc(n * (n_rows + 1), sizeof(*cells));
	for (size_t k = 0; k < n; k++) {
		width[k] = width_of(columns[k].title);
		for (size_t i = 0; i < n_rows; i++) {
			char *cell = view_cell(json_array_get(rows, i), &columns[k]);

			cells[i * n + k] = cell;
			if (width_of(cell) > width[k])
				width[k] = width_of(cell);
		}
		cell_print(out, columns[k].title, width[k], is_right(columns[k].format), k == n - 1);
	}
	for (size_t i = 0; i < n * n_rows; i++) {
		cell_print(out, cells[i], width[i % n], is_right(columns[i % n].format), i % n == n - 1);
		free(cells[i]);
	}
	free(cells);
}

/* Whether a record has something to say about @c. */
static bool has(const json_t *o, const struct view_column *c)
{
	const json_t *v = view_get(o, c->field);

	return v && !(json_is_array(v) && !json_array_size(v)) && !(json_is_string(v) && !json_string_length(v));
}

static void record_print(FILE *out, const json_t *o, const struct view_column *columns)
{
	int width = 0;

	for (const struct view_column *c = columns; c->title; c++)
		if (has(o, c) && (int)strlen(c->title) > width)
			width = (int)strlen(c->title);
	for (const struct view_column *c = columns; c->title; c++) {
		_free_ char *cell = has(o, c) ? view_cell(o, c) : NULL;

		if (cell)
			fprintf(out, "%-*s  %s\n", width, c->title, cell);
	}
}

void view_print(FILE *out, const json_t *answer, const struct view_column *columns)
{
	if (json_is_array(answer))
		table_print(out, answer, columns);
	else
		record_print(out, answer, columns);
}

void view_print_field(FILE *out, const json_t *list, const char *field)
{
	const struct view_column c = {field, field, VIEW_TEXT};
	json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		_free_ char *cell = view_cell(item, &c);

		fprintf(out, "%s\n", cell);
	}
}

void view_print_json(FILE *out, const json_t *v)
{
	json_dumpf(v, out, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
	fputc('\n', out);
}
