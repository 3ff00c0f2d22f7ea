/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing requests and answers of HTTP: heads, targets, bodies in any pieces, and the API's checks of what is in them.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/http-message.h"
#include "base/mem.h"
#include "node/define.h"
#include "node/http-api.h"
#include "node/http-schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What comes in pieces has the same end as what comes at once. */
static size_t head_length(const char *data, size_t size)
{
	size_t at_once = 0, scanned = 0, n = http_head_length(data, size, &at_once), pieces = 0;

	for (size_t i = 1; i <= size && !pieces; i++)
		pieces = http_head_length(data, i, &scanned);
	if (pieces != n || n > size)
		abort();
	return n;
}

/* Feed a body in pieces of @step bytes; what belongs to it in *ret (caller frees). 0 or -1; *ret_used bytes were dealt
 * with. */
static int feed(const struct http_head *h, const char *data, size_t size, size_t step, struct http_body *b, char **ret,
		size_t *ret_size, size_t *ret_used)
{
	char *body = xcalloc(size + 1, 1);
	size_t n = 0, at = 0;

	http_body_start(b, h);
	*ret = body;
	while (!b->done && at < size) {
		size_t have = size - at < step ? size - at : step, used = 0, piece_size = 0;
		const char *piece = NULL;
		struct err e = ERR_INIT;

		if (http_body_feed(b, data + at, have, &used, &piece, &piece_size, &e) < 0) {
			if (e.code != ERR_PROTOCOL || !e.text[0])
				abort();
			return -1;
		}
		if (used > have || piece_size > used || (!used && !b->done))
			abort();
		memcpy(body + n, piece, piece_size);
		n += piece_size;
		at += used;
	}
	*ret_size = n;
	*ret_used = at;
	return 0;
}

/* What the API makes of a body. */
static void check_body(const char *text, size_t size)
{
	static struct http_schemas *schemas;
	json_t *o = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL), *definition;
	struct err e = ERR_INIT;

	if (!o)
		return;
	if (!schemas)
		schemas = http_schemas_new(http_api_schemas, http_api_n_schemas);
	for (size_t i = 0; i < http_api_n_routes; i++)
		if (http_api_routes[i].request)
			http_schema_check(schemas, http_api_routes[i].request, o, NULL);
	definition = json_object_get(o, "definition");
	if (http_schema_check(schemas, "VMCreate", o, &e) == 0)
		json_decref(define_guest(definition, NULL, "6ba7b810-9dad-41d1-80b4-00c04fd430c8", &e));
	json_decref(o);
}

static void check_bodies(const struct http_head *h, const char *data, size_t size)
{
	_free_ char *whole = NULL, *pieces = NULL;
	size_t whole_size = 0, pieces_size = 0, whole_used = 0, pieces_used = 0;
	struct http_body a, b;
	int r = feed(h, data, size, size + 1, &a, &whole, &whole_size, &whole_used);

	if (feed(h, data, size, 1, &b, &pieces, &pieces_size, &pieces_used) != r)
		abort();
	if (r < 0)
		return;
	if (whole_size != pieces_size || whole_used != pieces_used || a.done != b.done ||
	    memcmp(whole, pieces, whole_size) != 0)
		abort();
	if (a.done)
		check_body(whole, whole_size);
}

static void check_target(const char *target)
{
	struct http_target t;

	if (http_target_parse(target, &t, NULL) < 0)
		return;
	for (size_t i = 0; i < t.n_query; i++) {
		_free_ char *text = http_percent_encode(t.query[i].value);

		if (http_percent_decode(text) < 0 || strcmp(text, t.query[i].value) != 0)
			abort();
	}
	http_target_done(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	size_t n = head_length(text, size);
	struct err e = ERR_INIT;
	struct http_head h;

	if (!n || n > HTTP_HEAD_MAX)
		return 0;
	if (http_head_parse_request(text, n, &h, &e) == 0) {
		if (!h.method || !h.target || h.framing == HTTP_FRAMING_UNTIL_CLOSE)
			abort();
		check_target(h.target);
		check_bodies(&h, text + n, size - n);
		http_head_done(&h);
	} else if (e.code != ERR_PROTOCOL) {
		abort();
	}
	if (http_head_parse_response(text, n, &h, NULL) == 0) {
		check_bodies(&h, text + n, size - n);
		http_head_done(&h);
	}
	return 0;
}
