/* SPDX-License-Identifier: Apache-2.0 */
/* Asking a daemon: where it is, what to do when it does not answer, requests made of the table. */
#ifndef GODWIT_CLI_REQUEST_H
#define GODWIT_CLI_REQUEST_H

#include <jansson.h>

#include "base/err.h"
#include "base/http-client.h"
#include "cli/command.h"

/* A client of the daemon that the options name. Connects to nobody yet. Caller frees. -1 with @e. */
int request_client(const struct cli *c, struct http_client **ret, struct err *e);

/* Ask. @body borrowed, or NULL. 0 with the answer in *ret (new reference); -1 with @e, also when it was refused.
 * A change carries a key of its own, and is asked for a second time, with that key, when the connection was lost before
 * the answer: the daemon does it once. */
int request(struct cli *c, const char *method, const char *target, const json_t *body, json_t **ret, struct err *e);

/* The command's request as the table says it. */
int request_command(struct cli *c, json_t **ret, struct err *e);

/* The path of the table with its {OPERANDS} filled in. Caller frees. */
char *request_target(const struct cli *c, const char *path);

/* What was given and has a field, into @o. -1 with @e. */
int request_fields(const struct cli *c, json_t *o, struct err *e);

/* Say in @e what to do about it, where its text does not. @e came from a client of ours that could not connect, or
 * listen. Returns -1. */
int request_failed(const struct cli *c, struct err *e);

/* Whether the same question may be answered a little later: the daemon restarts, or has no quorum for a while. */
bool request_may_pass(const struct err *e);

/* What to do next about this kind of failure, or NULL. Static until the next call. */
const char *request_hint(const struct cli *c, const struct err *e);

#endif
