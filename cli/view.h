/* SPDX-License-Identifier: Apache-2.0 */
/* Answers as people read them: tables of lists, lines of one object. What others said cannot disturb the terminal. */
#ifndef GODWIT_CLI_VIEW_H
#define GODWIT_CLI_VIEW_H

#include <jansson.h>
#include <stdio.h>

enum view_format {
	VIEW_TEXT, /* texts, numbers, yes and no, as they are */
	VIEW_BYTES,
	VIEW_TIME, /* milliseconds since 1970: local date and time */
	VIEW_MS,   /* a duration */
	VIEW_PERCENT,
	VIEW_LIST, /* an array: "a, b" */
	VIEW_JSON, /* indented */
};

/* A list of them ends with one without a title. */
struct view_column {
	const char *title;
	const char *field; /* "report.cpus": a member of a member */
	enum view_format format;
};

/* A member by its path, borrowed; NULL when it is not there or null. */
json_t *view_get(const json_t *o, const char *field);

/* One value as text, "-" when it is not there. Caller frees. */
char *view_cell(const json_t *o, const struct view_column *c);

/* An array: one line each below a line of titles. An object: a line each of what is there. */
void view_print(FILE *out, const json_t *answer, const struct view_column *columns);

/* A member of each, one a line: for scripts. */
void view_print_field(FILE *out, const json_t *list, const char *field);

/* One line of JSON. */
void view_print_json(FILE *out, const json_t *v);

#endif
