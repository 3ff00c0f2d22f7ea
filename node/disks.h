/* SPDX-License-Identifier: Apache-2.0 */
/* The shared fencing disks of this daemon: opened as the setting fence.disks says, and the life that it has on them. */
#ifndef GODWIT_NODE_DISKS_H
#define GODWIT_NODE_DISKS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "fencing/disk.h"

struct daemon;

#define DISKS_SETTING "fence.disks" /* a list of 1 to DISK_PATHS_MAX paths; null: none */
#define DISKS_LIFE_TEXT 64          /* a life as commands have it: 32 digits of the boot, ':', 16 of the incarnation */

/* Loop thread, all of them. Never NULL in a daemon that belongs to a cluster, also where there are no disks. */
struct disks;

struct disks *disks_new(struct daemon *d);
void disks_free(struct disks *s); /* requests end without a call */

/* The state may have changed: the setting, the token's time, the hosts. */
void disks_look(struct disks *s);

/* A list of paths, as the setting takes it. 0, or -1 with @e. */
int disks_check(const json_t *value, struct err *e);

/* {"PATH": {"link", "why"}} for node.report; NULL: there are no disks. New reference. */
json_t *disks_json(const struct disks *s);

/* ---- the victim ---- */

/* This host was told to die, and has no new life yet: nothing may start. */
bool disks_told(const struct disks *s);

/* All guests that this host had in the life that was told are dead, and none can start (node/host-lease.c): say so. */
void disks_dead(struct disks *s);
bool disks_are_dead(const struct disks *s);

/* The life to be said with a node.alive that is proposed now, a new one with each call; borrowed until the next call.
 * NULL: none is to be said. */
const char *disks_next_life(struct disks *s);
/* That node.alive is in the log, and this host knows the log up to there: it is the life from here on. */
void disks_live(struct disks *s);
/* A member does not know lives yet: none is to be said for a minute. False: none was said. */
bool disks_refused(struct disks *s);
/* Whether the log lacks the life that the disks have; @said: what it has, or NULL. */
bool disks_unsaid(const struct disks *s, const char *said);

/* ---- the others ---- */

struct disks_request;

/* @why: borrowed. The request is gone when this is called. */
typedef void disks_done_fn(void *arg, enum disk_result r, const char *why);

/* As disk_pill(), for @life as a node.alive had it; it also ends (DISK_NOT_TOLD) when the setting changes. NULL with
 * @e: ERR_UNAVAILABLE, there are no disks. */
struct disks_request *disks_pill(struct disks *s, uint32_t node, const char *life, int64_t within_ns, disks_done_fn *fn,
				 void *arg, struct err *e);
void disks_pill_cancel(struct disks_request *r); /* NULL is fine; no call */
bool disks_open_here(const struct disks *s);

#endif
