/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts in and out: the API's cluster_init, cluster_join, join and node_remove. */
#ifndef GODWIT_NODE_MEMBERS_H
#define GODWIT_NODE_MEMBERS_H

#include "node/daemon.h"

/* Bind the handlers. Loop thread. */
void members_bind(struct daemon *d);

/* The founder's first commands, once it leads a log without nodes. */
void members_found(struct daemon *d);

/* Renew this host's certificate when it is time to; once a day is enough. */
void members_renew(struct daemon *d);

#endif
