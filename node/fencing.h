/* SPDX-License-Identifier: Apache-2.0 */
/* Fencing at work: the leading daemon finds out whether a host that left is dead. */
#ifndef GODWIT_NODE_FENCING_H
#define GODWIT_NODE_FENCING_H

#include "base/err.h"
#include "fencing/power.h"

struct daemon;

/* Loop thread, all of them. */
struct fencing;

struct fencing *fencing_new(struct daemon *d);
void fencing_free(struct fencing *f); /* agents at work are killed */

/* The state, the view or the time has changed. */
void fencing_look(struct fencing *f);

/* How a request ended; borrowed during the call. */
typedef void fencing_done_fn(void *arg, const struct power_end *end);

/* Switch the power of @node as somebody has asked, from this host: @done follows, once, at the latest after a minute
 * and a half. -1 with @e: it is this host, the cluster would lose its quorum, there is no device, or one is at it
 * already. */
int fencing_request(struct fencing *f, const char *node, enum power_action action, fencing_done_fn *done, void *arg,
		    struct err *e);

#endif
