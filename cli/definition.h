/* SPDX-License-Identifier: Apache-2.0 */
/* Guest definitions on their way to the cluster (docs/guest.md): read from a file, so that they mean the same there. */
#ifndef GODWIT_CLI_DEFINITION_H
#define GODWIT_CLI_DEFINITION_H

#include <jansson.h>

#include "base/err.h"

#define DEFINITION_FILE_MAX (1U << 20)
#define DEFINITION_TEXT_MAX (256U << 10) /* bytes of one seed file */

/* The object in the JSON file at @path ("-": read from @in_fd): the texts of files that its seed names are put in, and
 * relative paths start at its folder. New reference; NULL with @e (ERR_INPUT). */
json_t *definition_load(const char *path, int in_fd, struct err *e);

/* The same out of @text; @name is for messages, @dir where relative paths start (NULL: leave them). */
json_t *definition_parse(const char *text, const char *name, const char *dir, struct err *e);

/* The file at @path as the text of seed field @field of @definition. -1 with @e. */
int definition_seed_file(json_t *definition, const char *field, const char *path, struct err *e);

/* The object @field of @o, made when it is not there; borrowed. */
json_t *definition_object(json_t *o, const char *field);
json_t *definition_array(json_t *o, const char *field);

#endif
