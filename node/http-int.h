/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the HTTP server know of each other. */
#ifndef GODWIT_NODE_HTTP_INT_H
#define GODWIT_NODE_HTTP_INT_H

#include <openssl/ssl.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "base/http-message.h"
#include "node/http-peers.h"
#include "node/http-schema.h"
#include "node/http.h"

#define ROUTE_PARAMS_MAX 4

struct http_listener;

struct http_binding {
	http_handler_fn *fn;
	void *arg;
};

TAILQ_HEAD(http_conns, http_conn);

struct http_server {
	struct http_options o; /* with every limit filled in */
	struct http_schemas *schemas;
	struct http_binding *bindings; /* one per route */
	struct http_listener *listeners;
	struct http_peers *peers;
	SSL_CTX *ssl_ctx;
	struct http_conns conns;
	struct http_conns unproven; /* TLS, no request of theirs has been let through; oldest first */
	unsigned n_tls, n_local;
	struct metric *requests, *seconds, *refused, *open;
};

/* A connection's life. Deadlines are those of struct http_limits. */
enum conn_state {
	CONN_HEAD,    /* handshake, waiting for a request, reading its head: first_ns, idle_ns, write_ns */
	CONN_BODY,    /* body_ns */
	CONN_HANDLER, /* the handler's time */
	CONN_STREAM,  /* alive_ns between comments */
	CONN_CUT,     /* a reader too far behind: closed at the next turn of the loop */
	CONN_CLOSING, /* the last answer goes out: write_ns */
	CONN_LINGER   /* what the client still sends is thrown away, so that it reads our answer and not a reset */
};

struct http_conn {
	TAILQ_ENTRY(http_conn) of_all;
	TAILQ_ENTRY(http_conn) of_unproven;
	struct http_server *server;
	struct bufferevent *bev;
	struct loop_timer *timer;
	enum conn_state state;
	bool local;
	bool proven; /* a request of it was let through, so it is not on the list of the unproven */
	bool dead;   /* freed when @busy is 0 */
	bool asked;  /* it has sent a request before */
	bool keep;   /* another request may follow */
	bool eof;    /* the client has said all it will say */
	unsigned busy;
	struct http_peer *peer; /* TLS */
	struct ucred cred;      /* unix */
	bool in_admin_group;    /* unix */
	char from[HTTP_FROM_MAX];
	size_t scanned; /* of the head */
	struct http_body body;
	char *text; /* of the body */
	size_t text_size, text_room;
	struct http_call *call;
	struct http_stream *stream;
};

struct http_call {
	struct http_conn *conn; /* NULL: the client is gone */
	struct http_server *server;
	const struct http_route *route;
	struct http_head head;
	struct http_target target;
	struct http_header params[ROUTE_PARAMS_MAX];
	size_t n_params;
	char *path;    /* owns the params */
	char *headers; /* more of them for the answer, each with CRLF; or NULL */
	json_t *body;
	struct http_identity identity;
	char id[37];
	int64_t begun_ns;
	loop_fn *gone;
	void *gone_arg;
};

/* ---- http-conn.c ---- */

/* Takes @fd. @sa: the address of a TLS client, NULL for the unix socket. */
void http_conn_accept(struct http_server *s, int fd, const struct sockaddr *sa);

/* Write an answer and go on to the next request, or close. @headers: more of them, each with CRLF. */
void http_conn_answer(struct http_conn *c, int status, const char *type, const char *headers, const char *body,
		      size_t size);

/* The head of an answer that is a stream. */
void http_conn_start_stream(struct http_conn *c, const char *head);

void http_conn_output(struct http_conn *c, const void *buf, size_t n);
size_t http_conn_backlog(const struct http_conn *c);
void http_conn_deadline(struct http_conn *c, int64_t after_ns);
void http_conn_pause(struct http_conn *c, bool pause);

/* A request of it was let through. */
void http_conn_proven(struct http_conn *c);

/* Send what is left, then close. */
void http_conn_finish(struct http_conn *c);

/* Close at the next turn of the loop. */
void http_conn_cut(struct http_conn *c);

/* Close now. */
void http_conn_close(struct http_conn *c);

void server_refused(struct http_server *s, const char *reason);

/* ---- http-call.c ---- */

/* A head has come: find the route, check who asks, start with the body or answer. Takes @head. */
void call_begin(struct http_conn *c, struct http_head *head);

/* The body has come: check it and call the handler. */
void call_dispatch(struct http_call *call, const char *text, size_t size);

/* The client is gone. */
void call_detach(struct http_call *call);

/* An error that comes from the server itself. */
void call_refuse(struct http_call *call, int status, const char *headers, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* The call is over: count it and free it. Returns its connection, or NULL. */
struct http_conn *call_end(struct http_call *call, int status);

/* {"error": {...}}. New reference. */
json_t *error_json(const char *code, const char *message, const char *object);

/* ---- http-auth.c ---- */

/* Find out who asks into call->identity and whether the route may be used. 0; -1 with the HTTP status and @e. */
int auth_check(struct http_call *call, int *ret_status, struct err *e);

void auth_read_peer(struct http_conn *c, int fd);

/* ---- http-stream.c ---- */

void stream_data(struct http_stream *st, struct http_conn *c);
void stream_drained(struct http_stream *st);
void stream_keep_alive(struct http_stream *st);
void stream_closed(struct http_stream *st);

#endif
