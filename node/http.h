/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's HTTP server: a table of routes, who may use them, replies now or later, and streams. */
#ifndef GODWIT_NODE_HTTP_H
#define GODWIT_NODE_HTTP_H

#include <jansson.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/loop.h"
#include "node/metrics.h"

/* Everything here runs in the loop's thread. */

enum http_role {
	HTTP_ROLE_NONE, /* of a route: for everybody; of an identity: nobody */
	HTTP_ROLE_VIEWER,
	HTTP_ROLE_OPERATOR,
	HTTP_ROLE_ADMIN,
	HTTP_ROLE_MAX
};
extern const char *const http_role_names[HTTP_ROLE_MAX];

/* ---- who asks ---- */

#define HTTP_NAME_MAX 128
#define HTTP_FROM_MAX 64
#define HTTP_DIGEST_SIZE 32

/* What a request proves about its sender. */
struct http_credential {
	enum { HTTP_CREDENTIAL_UNIX, HTTP_CREDENTIAL_CERTIFICATE, HTTP_CREDENTIAL_TOKEN } kind;
	uid_t uid;        /* unix: neither root nor in the admin group */
	const char *name; /* certificate, verified against our CA: its first alternative name, or its CN */
	X509 *cert;       /* certificate: all of it */
	uint8_t digest[HTTP_DIGEST_SIZE]; /* SHA-256 of the certificate or of the token's text */
};

/* Who that is: 0 with a name (HTTP_NAME_MAX) and a role; -1 with @e (ERR_AUTH) for a stranger. Must not block. */
typedef int http_identify_fn(void *arg, const struct http_credential *c, char *ret_name, enum http_role *ret_role,
			     struct err *e);

struct http_identity {
	char name[HTTP_NAME_MAX];
	enum http_role role;
	char from[HTTP_FROM_MAX]; /* an address, or "unix" */
};

/* ---- routes ---- */

struct http_query {
	const char *name;
	const char *type; /* "string", "integer", "boolean" */
	const char *summary;
};

enum http_kind {
	HTTP_KIND_JSON,
	HTTP_KIND_TEXT,
	HTTP_KIND_EVENTS, /* server-sent events; the response's schema is that of an event's data */
	HTTP_KIND_RAW     /* the connection becomes a stream */
};

/* One row of the table: all that routing, checking and the OpenAPI document need. */
struct http_route {
	const char *method;
	const char *path;      /* "/v1/vms/{name}" */
	const char *operation; /* "vm_get": its handler is bound by this name, and OpenAPI's operationId */
	enum http_role role;   /* the least that may */
	bool local;            /* over the unix socket only */
	enum http_kind kind;
	int status;           /* of success */
	const char *request;  /* schema of the body, or NULL: none is taken */
	const char *response; /* schema of the answer; for HTTP_KIND_TEXT its type, for HTTP_KIND_RAW the protocol */
	const char *summary;
	const struct http_query *queries; /* up to one without a name; NULL: none */
};

/* A schema by name (NULL: an object of several, by their names): JSON Schema as text, in which {"$ref":
 * "#/components/schemas/NAME"} names another. Understood for checking: type, enum, properties, required,
 * additionalProperties, items, minItems, maxItems, minimum, maximum, minLength, maxLength, pattern, oneOf. */
struct http_schema {
	const char *name;
	const char *text;
	const char *more; /* merged into it, or NULL */
};

/* ---- the server ---- */

/* Zero means the default beside it. */
struct http_limits {
	unsigned connections;  /* over TLS, all together (1024) */
	unsigned per_address;  /* over TLS, of one address, an IPv6 /64 counts as one (64) */
	unsigned local;        /* over the unix socket (512) */
	size_t body;           /* bytes of a request's body (1 MiB) */
	int64_t first_ns;      /* from accept to a whole head; from a head's first byte to its end (10 s) */
	int64_t body_ns;       /* from the head to the end of the body (30 s) */
	int64_t idle_ns;       /* between requests (60 s) */
	int64_t write_ns;      /* for taking a whole answer (120 s) */
	int64_t alive_ns;      /* between the comments that keep a stream of events alive (15 s) */
	size_t stream_backlog; /* bytes that a reader of a stream may be behind (1 MiB) */
	double rate;           /* requests/s of one address over TLS in the long run (500) */
	double burst;          /* and at once (1000); a connection costs 2 of them, a wrong token 20 */
};

struct http_options {
	struct loop *loop;
	const struct http_route *routes;
	size_t n_routes;
	const struct http_schema *schemas;
	size_t n_schemas;
	const char *title, *version; /* for the OpenAPI document */
	http_identify_fn *identify;
	void *identify_arg;
	gid_t admin_gid;         /* members are admins on the unix socket, like root; 0: root alone */
	struct metrics *metrics; /* borrowed; or NULL */
	struct http_limits limits;
};

struct http_server;
struct http_call;
struct http_stream;

/* @o and what it points to is borrowed for the server's life. Mistakes in the tables abort. */
struct http_server *http_server_new(const struct http_options *o);

/* Closes everything; closed callbacks of streams are called. Calls that handlers still hold stay valid until they are
 * answered. */
void http_server_free(struct http_server *s);

/* Listen on ADDRESS:PORT with ca.pem, cert.pem and key.pem of @tls_dir: TLS 1.3 only. Returns the port, or -1 with @e.
 */
int http_listen_tls(struct http_server *s, const char *address, const char *tls_dir, struct err *e);

/* New connections get the certificates that are in @tls_dir now. On failure (-1 with @e) the old ones stay. */
int http_reload_tls(struct http_server *s, const char *tls_dir, struct err *e);

/* Listen on a unix socket, which replaces one that nobody listens on. @gid owns it when not 0. -1 with @e. */
int http_listen_unix(struct http_server *s, const char *path, mode_t mode, gid_t gid, struct err *e);

/* @fn answers the route with this operation. */
typedef void http_handler_fn(struct http_call *call, void *arg);
void http_bind(struct http_server *s, const char *operation, http_handler_fn *fn, void *arg);

/* The first operation of the table that nobody has bound, or NULL. Such a route answers 501. */
const char *http_unbound(const struct http_server *s);

/* ---- calls: one request ---- */

/* A handler is called once per request and answers exactly once, at once or later, with one of http_reply*() or
 * http_stream_*(): that ends the call. The client may be gone by then; answering is right all the same. */

const struct http_identity *http_call_identity(const struct http_call *c);
const char *http_call_param(const struct http_call *c, const char *name); /* of the path; NULL when there is none */
const char *http_call_query(const struct http_call *c, const char *name); /* checked against its type; or NULL */
json_t *http_call_body(const struct http_call *c);                        /* borrowed; checked; NULL without a body */
const char *http_call_header(const struct http_call *c, const char *name);

/* The uuid of the request: the client's Idempotency-Key, or made up. A command that carries it is applied once. */
const char *http_call_id(const struct http_call *c);

/* Last-Event-ID or ?since=, whichever is there; 0 without. */
uint64_t http_call_since(const struct http_call *c);

/* @fn is called if the client goes away before the answer, to stop work that is for it alone. */
void http_call_on_gone(struct http_call *c, loop_fn *fn, void *arg);

/* One more header of the answer, whatever that will be. @value has no line breaks. */
void http_call_add_header(struct http_call *c, const char *name, const char *value);

void http_reply(struct http_call *c, int status, json_t *body); /* takes @body */
void http_reply_text(struct http_call *c, int status, const char *type, const char *text);

/* Answer with what @e says; @object (or NULL) is the name of what it is about. */
void http_reply_err(struct http_call *c, const struct err *e, const char *object);

/* ---- streams ---- */

/* A stream ends with http_stream_end() by its owner, or from the other side; then, and only then, @closed is called,
 * once, and the handle is no more. */

/* Begin to send events. NULL when the client is gone already (then @closed is not called). */
struct http_stream *http_stream_events(struct http_call *c, loop_fn *closed, void *arg);

/* Send one event. A reader that is too far behind is cut off (@closed is called soon, not from here). @id 0: none. */
void http_stream_event(struct http_stream *st, uint64_t id, const char *name, const json_t *data);

struct http_stream_ops {
	void (*data)(void *arg, const void *buf, size_t n); /* from the client */
	void (*drained)(void *arg);                         /* all that was written is on its way; may be NULL */
	void (*closed)(void *arg);
};

/* Turn the connection into a raw stream of the route's protocol. NULL when the client is gone, or did not ask for that
 * protocol (it has its answer then). */
struct http_stream *http_stream_raw(struct http_call *c, const struct http_stream_ops *ops, void *arg);
void http_stream_write(struct http_stream *st, const void *buf, size_t n); /* cut off when too far behind */
size_t http_stream_backlog(const struct http_stream *st);                  /* bytes not on their way yet */
void http_stream_pause(struct http_stream *st, bool pause);                /* no more data for now */

void http_stream_end(struct http_stream *st); /* what was written still goes out; NULL is fine */

/* ---- a feed: the same events for many readers ---- */

struct http_feed;

/* Keeps the newest @keep events that have an id, for readers who come with ?since=. */
struct http_feed *http_feed_new(size_t keep);
void http_feed_free(struct http_feed *f);

/* @id: grows from event to event; 0: an event that nobody needs to be told later. */
void http_feed_publish(struct http_feed *f, uint64_t id, const char *name, const json_t *data);

/* Answer @c with the events after http_call_since(), then with those to come. A reader whose events are kept no longer
 * is told so by a first event "gap". */
void http_feed_subscribe(struct http_feed *f, struct http_call *c);

/* ---- what the table says, for machines ---- */

/* The OpenAPI 3.1 document. New reference. */
json_t *http_openapi(const struct http_options *o);

#endif
