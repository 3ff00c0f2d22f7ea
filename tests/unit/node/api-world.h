/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the API: a daemon of one host in this process, over a unix socket and TLS, whose agents are the test. */
#ifndef GODWIT_TESTS_NODE_API_WORLD_H
#define GODWIT_TESTS_NODE_API_WORLD_H

#include "base/http-client.h"
#include "node/daemon.h"

/* Nodes n1 (this host, id 1) and n2 (id 2), 8 GiB each, both counted as present; the network "lan". The certificates
 * are those of tests/unit/node/server.h: "good" is node n1's, "client" says carol. */
void api_world_start(void);
void api_world_stop(void);
struct daemon *api_world_daemon(void);
const char *api_world_path(const char *name); /* below the test's directory; a few at a time */

/* Run @fn in the daemon's thread and wait for it. */
void api_world_do(void (*fn)(void *arg), void *arg);

/* Have @op (args taken) applied, as an agent or a mover would; fails the test when it is refused. */
void api_world_command(const char *op, json_t *args);

/* The owner of a guest reports. @note may be NULL. */
void api_world_observe(const char *vm, const char *node, int epoch, const char *status, const char *note);

/* Ask over the unix socket (@token NULL: as root, without one). An answer of success is checked against its route's
 * schema. @body is taken, or NULL; @key: Idempotency-Key or NULL. New reference; *ret_status may be NULL. */
json_t *api_world_ask(const char *token, const char *method, const char *target, json_t *body, const char *key,
		      int *ret_status);

/* The same as root, with the status that it must have. */
json_t *api_world_expect(int status, const char *method, const char *target, json_t *body);

/* The same, and the answer must be an error with @code that names @object (NULL: none) and says @words. */
void api_world_refused(int status, const char *method, const char *target, json_t *body, const char *code,
		       const char *object, const char *words);

/* A user's token. In a static buffer for each role. */
const char *api_world_token(enum http_role role);

/* A definition as one would send it. */
json_t *api_world_definition(const char *name, int mib);

/* The value at a path such as "task.id" or "0.name"; borrowed, NULL when it is not there. */
json_t *api_world_at(const json_t *o, const char *path);
const char *api_world_text(const json_t *o, const char *path); /* "" */

/* Until a task is in @state, at most 5 s; the task. */
json_t *api_world_await(const char *task, const char *state);

#endif
