/* SPDX-License-Identifier: Apache-2.0 */
/* The schemas of requests and answers: kept once, used for checking bodies and for the OpenAPI document. Pure. */
#ifndef GODWIT_NODE_HTTP_SCHEMA_H
#define GODWIT_NODE_HTTP_SCHEMA_H

#include <jansson.h>

#include "base/err.h"
#include "node/http.h"

struct http_schemas;

/* Read the table. A text that is no JSON object, a keyword that the checker does not know or a $ref to nowhere aborts.
 */
struct http_schemas *http_schemas_new(const struct http_schema *table, size_t n);
void http_schemas_free(struct http_schemas *s);

/* All of them, by name. Borrowed. */
json_t *http_schemas_all(const struct http_schemas *s);

/* 0 when @value is what the schema @name says; -1 with @e (ERR_INPUT), "field: reason". */
int http_schema_check(const struct http_schemas *s, const char *name, json_t *value, struct err *e);

#endif
