/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP server in a thread of its own, with a small table of routes and certificates of every kind, for tests. */
#ifndef GODWIT_TESTS_NODE_SERVER_H
#define GODWIT_TESTS_NODE_SERVER_H

#include <stdatomic.h>

#include "base/clock.h"
#include "base/http-client.h"
#include "node/http.h"

#define SERVER_TOKEN_ALICE "alice-token" /* viewer */
#define SERVER_TOKEN_BOB "bob-token"     /* operator */

/* What the handlers and callbacks have counted. */
extern atomic_int server_closed; /* streams that ended from the other side */
extern atomic_int server_gone;   /* calls whose client went away */

/* Names of the certificate sets below server_dir(): good (of our CA, "localhost" and 127.0.0.1), alien (of another CA),
 * forged (of a CA with our CA's name and another key), client (its name is "carol"), expired (a client's). */
int server_make_certs(void **state);
int server_drop_certs(void **state);
const char *server_path(const char *name); /* below the test's directory; a few at a time */
const uint8_t *server_ca_digest(void);

/* Start with these limits, or the usual ones. Over TLS at 127.0.0.1:server_port(), and at server_path("sock"). */
void server_start(const struct http_limits *limits);
void server_stop(void);
int server_port(void);
struct metrics *server_metrics(void);

/* Run @fn in the server's thread and wait for it. */
void server_do(loop_fn *fn, void *arg);

/* Publish an event in the feed. */
void server_publish(uint64_t id, const char *name, const char *text);

/* Clients. Never NULL. @dir: a set of certificates, or NULL; then the server's CA is trusted. */
struct http_client *server_client_local(void);
struct http_client *server_client_tls(const char *dir, const char *token);

/* A raw connection: to the unix socket, or a TCP one to the TLS port from source address @from (or NULL). */
int server_connect_raw(void);
int server_connect_tcp(const char *from);

/* Everything that comes until the end or until @until has been seen; at most @ns. Caller frees. */
char *server_read(int fd, const char *until, int64_t ns);

/* Has the other side closed within @ns? */
bool server_closed_by(int fd, int64_t ns);

/* Until *value >= want, or 5 s. */
bool server_wait(const atomic_int *value, int want);

/* The routes of this server, for tests of the document. */
const struct http_options *server_options(void);

#endif
