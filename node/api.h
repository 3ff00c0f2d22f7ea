/* SPDX-License-Identifier: Apache-2.0 */
/* What godwitd answers over HTTP: the handlers of all routes but those of node/members.h, tasks and events. */
#ifndef GODWIT_NODE_API_H
#define GODWIT_NODE_API_H

#include "node/daemon.h"

/* Loop thread. api_bind() before requests come, api_done() after the server and the replica have been freed. */
void api_bind(struct daemon *d);
void api_done(struct daemon *d);

/* The port that this host's API has, and others' as well. The bus's datagrams go to the UDP port of the same number. */
int api_port(const struct daemon *d);

/* A command was applied and is on this disk; @result NULL: it was refused. Publishes events, ends tasks. */
void api_applied(struct daemon *d, uint64_t index, const json_t *command, const json_t *result);

/* Once a second: what was applied without api_applied() (a snapshot), tasks of a leader that is gone. */
void api_tick(struct daemon *d);

/* Who shows a certificate or token: nodes are admins, users have the role that the state gives them. @arg: the daemon.
 */
http_identify_fn api_identify;

#endif
