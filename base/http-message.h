/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 messages (RFC 9112): heads, targets and bodies, taken apart strictly and within limits. Pure. */
#ifndef GODWIT_BASE_HTTP_MESSAGE_H
#define GODWIT_BASE_HTTP_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define HTTP_HEAD_MAX (16U << 10) /* bytes of a head, its empty line included */
#define HTTP_HEADERS_MAX 64

struct http_header {
	const char *name;
	const char *value;
};

/* What follows the head. */
enum http_framing {
	HTTP_FRAMING_NONE,
	HTTP_FRAMING_LENGTH,
	HTTP_FRAMING_CHUNKED,
	HTTP_FRAMING_UNTIL_CLOSE, /* responses only */
	HTTP_FRAMING_MAX
};

/* A head in pieces. All strings point into @text. */
struct http_head {
	char *text;         /* owned */
	const char *method; /* of a request, or NULL */
	const char *target; /* of a request, or NULL */
	int status;         /* of a response, or 0 */
	bool keep_alive;    /* another message may follow on this connection */
	bool upgrade;       /* Connection: upgrade */
	enum http_framing framing;
	uint64_t length; /* of the body, with HTTP_FRAMING_LENGTH */
	struct http_header headers[HTTP_HEADERS_MAX];
	size_t n_headers;
};

/* The length of the head that @data begins with, its empty line included; 0 when its end is not there yet. *scanned
 * (starts as 0) remembers between calls what has been looked at. */
size_t http_head_length(const char *data, size_t size, size_t *scanned);

/* Take the head of @size bytes (of http_head_length()) apart. Refused: HTTP versions other than 1.0 and 1.1, control
 * characters, folded lines, space before a colon, a body that is framed in two ways or by an unknown coding.
 * 0; -1 with @e (ERR_PROTOCOL), *ret untouched. Free with http_head_done(). */
int http_head_parse_request(const char *data, size_t size, struct http_head *ret, struct err *e);
int http_head_parse_response(const char *data, size_t size, struct http_head *ret, struct err *e);
void http_head_done(struct http_head *h);

/* The first header called @name (any case), or NULL. */
const char *http_head_get(const struct http_head *h, const char *name);

/* ---- bodies ---- */

struct http_body {
	enum http_framing framing;
	unsigned state;    /* of the chunked coding */
	uint64_t left;     /* bytes of this chunk, or of the body */
	size_t line_bytes; /* of a chunk's or a trailer's line so far; of all trailers */
	unsigned digits;
	bool done;
};

/* Begin the body that @h announces. */
void http_body_start(struct http_body *b, const struct http_head *h);

/* Look at @size bytes: *ret_used of them are dealt with, the *ret_size at *ret_piece (within them) belong to the body.
 * Call it until b->done or nothing is left. 0 or -1 with @e (ERR_PROTOCOL). */
int http_body_feed(struct http_body *b, const char *data, size_t size, size_t *ret_used, const char **ret_piece,
		   size_t *ret_size, struct err *e);

/* ---- targets ---- */

#define HTTP_QUERY_MAX 16

/* "/v1/vms/a%2Fb?x=1" in pieces: the path still percent-encoded (a slash in a name is no separator), the query decoded.
 * All strings point into @text. */
struct http_target {
	char *text; /* owned */
	const char *path;
	struct http_header query[HTTP_QUERY_MAX];
	size_t n_query;
};

int http_target_parse(const char *target, struct http_target *ret, struct err *e);
void http_target_done(struct http_target *t);

/* Decode %XX in place. -1 for a bad code, a NUL or a control character. */
int http_percent_decode(char *s);

/* @s with everything but unreserved characters as %XX. Caller frees. */
char *http_percent_encode(const char *s);

/* ---- words ---- */

/* "Not Found" for 404; "Status" for what we do not know. Static. */
const char *http_status_text(int status);

#endif
