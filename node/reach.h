/* SPDX-License-Identifier: Apache-2.0 */
/* Which folders this host reaches: looked at again and again by a child process, never by the daemon's thread. */
#ifndef GODWIT_NODE_REACH_H
#define GODWIT_NODE_REACH_H

#include <jansson.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/loop.h"

#define REACH_EVERY (10 * NS_PER_S)
#define REACH_LATE (5 * NS_PER_S) /* a folder that has not answered by then is not reached */

struct reach_config {
	const char *program; /* godwit-vm, absolute; borrowed during reach_new() */
	int64_t every_ns;    /* from the begin of a look to that of the next */
	int64_t late_ns;     /* shorter than every_ns */
	loop_fn *changed;    /* reach_json() says something else than before */
	void *arg;
};

/* Loop thread, all of it. */
struct reach;

struct reach *reach_new(struct loop *l, const struct reach_config *c);

/* Ends a look that goes on. NULL is fine. */
void reach_free(struct reach *r);

/* The folders to look at, with files of guests in them: {"/folder": ["/folder/file", ...]}, at most REACH_FOLDERS_MAX.
 * Looked at soon when it is not the same as before. @folders is borrowed, and kept. */
void reach_set(struct reach *r, json_t *folders);

/* The folders that were looked at and not reached: {"/folder": "why"}; what has not been looked at yet is not in it.
 * New reference, never NULL. */
json_t *reach_json(const struct reach *r);

#endif
