/* SPDX-License-Identifier: Apache-2.0 */
/* Values of the command line: sizes, rates, times, choices; and "FILE,key=value" specifications. */
#ifndef GODWIT_CLI_VALUE_H
#define GODWIT_CLI_VALUE_H

#include <jansson.h>
#include <stddef.h>

#include "base/err.h"
#include "cli/command.h"

/* Whether @text is one of "a|b|c". */
bool value_is_word(const char *words, const char *text);

/* Read @text as @p wants it; *ret is set for the kinds that are numbers. -1 with @e (ERR_USAGE): how it should look,
 * without the name of the option. */
int value_read(const struct cli_param *p, const char *text, int64_t *ret, struct err *e);

/* What it becomes in a request; @number as value_read() gave it. A CLI_PATH is made absolute from the current folder;
 * -1 with @e when it cannot be. New reference. */
int value_json(const struct cli_param *p, const char *text, int64_t number, json_t **ret, struct err *e);

/* The text of a file that the user named, at most @limit bytes. Caller frees. NULL with @e (ERR_INPUT). */
char *value_file(const char *path, size_t limit, struct err *e);

/* "FIRST,key=value,flag": the piece before the first comma, then keys. */
#define SPEC_PARTS_MAX 24

struct spec {
	char *text; /* owned */
	const char *first;
	struct {
		const char *key;
		const char *value; /* NULL: a flag */
	} parts[SPEC_PARTS_MAX];
	size_t n_parts;
};

/* @keys: those that are possible, "format=" with a value, "readonly" without; ends with NULL. Start as (struct
 * spec){0}, end with spec_done(). */
int spec_read(const char *text, const char *const *keys, struct spec *ret, struct err *e);
void spec_done(struct spec *s);
const char *spec_get(const struct spec *s, const char *key); /* "" for a flag; NULL when not given */

#endif
