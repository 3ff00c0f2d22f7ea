/* SPDX-License-Identifier: Apache-2.0 */
/* A blocking client of Godwit's API: JSON requests, server-sent events and raw streams, over a unix socket or HTTPS. */
#ifndef GODWIT_BASE_HTTP_CLIENT_H
#define GODWIT_BASE_HTTP_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/terminal.h"

#define HTTP_ANSWER_MAX (64U << 20) /* bytes of a response's body */
#define HTTP_EVENT_MAX (1U << 20)   /* bytes of one server-sent event */

/* Where the server is and who we are. Either @unix_path, or @address with one of @tls_dir (ca.pem, cert.pem, key.pem),
 * @ca_path or @ca_digest (32 bytes; see tls_ctx_new_client()). Borrowed during http_client_new(). */
struct http_client_options {
	const char *unix_path;
	const char *address; /* HOST:PORT */
	const char *tls_dir;
	const char *ca_path;
	const uint8_t *ca_digest;
	const char *token; /* sent as "Authorization: Bearer", or NULL */
};

/* Not thread-safe. It connects when there is something to ask, keeps the connection, and makes a new one when the
 * server has closed it meanwhile. */
struct http_client;

/* Checks the options and loads certificates, connects to nobody. NULL with @e. Caller frees. */
struct http_client *http_client_new(const struct http_client_options *o, struct err *e);
void http_client_free(struct http_client *c);

/* A client on a connected socket, which it takes and never replaces. */
struct http_client *http_client_new_fd(int fd);

/* What the server answered. */
struct http_answer {
	int status;
	char *text;     /* the body, NUL-terminated */
	size_t size;    /* of the body */
	json_t *json;   /* the body if it is JSON, or NULL */
	int64_t age_ms; /* how old the state is that it was read from; -1: not said */
};

void http_answer_done(struct http_answer *a);

/* Ask. @body (borrowed, or NULL) is sent as JSON. @key: an identifier of this request (a uuid) by which the server
 * knows a repetition, or NULL. Any status is an answer: 0 and *ret (http_answer_done()). -1 with @e: ERR_TIMEOUT,
 * ERR_AUTH, ERR_PROTOCOL, ERR_SYSTEM. A request is sent a second time only when an old connection turned out closed
 * before a byte of the answer, and it is a GET or has a @key. */
int http_client_call(struct http_client *c, const char *method, const char *target, const json_t *body, const char *key,
		     int64_t deadline_ns, struct http_answer *ret, struct err *e);

/* The error that an answer with a status >= 400 tells of, as @e: its message, and the kind that its code names. -1. */
int http_answer_error(const struct http_answer *a, struct err *e);

/* ---- server-sent events ---- */

struct http_event {
	char *id;   /* "" when it has none */
	char *name; /* "message" when it has none */
	char *data; /* lines joined by newlines */
};

void http_event_done(struct http_event *ev);

/* Begin to listen. The connection belongs to the events from then on. 0; -1 with @e, and also for a refusal. */
int http_client_listen(struct http_client *c, const char *target, int64_t deadline_ns, struct err *e);

/* The next event. 1 and *ret (http_event_done()); 0 when the deadline has passed or the server has ended the stream
 * (*ret_ended says so); -1 with @e. Keep-alive comments are not events. */
int http_client_event(struct http_client *c, int64_t deadline_ns, struct http_event *ret, bool *ret_ended,
		      struct err *e);

/* ---- raw streams ---- */

/* Ask for @target and turn the connection into a stream of @protocol. 0 and *ret, which is the client's and ends with
 * it; -1 with @e, and also for a refusal. */
int http_client_upgrade(struct http_client *c, const char *target, const char *protocol, int64_t deadline_ns,
			struct terminal_peer *ret, struct err *e);

#endif
