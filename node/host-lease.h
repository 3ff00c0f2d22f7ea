/* SPDX-License-Identifier: Apache-2.0 */
/* The lease of this host: its beats, godwit-watchdog, and what becomes of the guests at its end. */
#ifndef GODWIT_NODE_HOST_LEASE_H
#define GODWIT_NODE_HOST_LEASE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/bus.h"
#include "fencing/timing.h"

struct daemon;

/* Loop thread, all of them. */
struct host_lease;

/* Once the daemon has agent and loop, before the replica speaks. Caller frees; what godwit-watchdog was told stays. */
struct host_lease *host_lease_new(struct daemon *d);
void host_lease_free(struct host_lease *h);

/* What the replica hears beside the log, and its views. */
void host_lease_heard(struct host_lease *h, uint32_t node, const uint8_t *data, size_t size);
void host_lease_view(struct host_lease *h, const struct bus_view *v);

/* The state may have changed, or a second has passed: the token's time, this host's life. */
void host_lease_look(struct host_lease *h);

/* This host is told to die (node/disks.h): disks_dead() follows, from the loop. */
void host_lease_told(struct host_lease *h);

/* This daemon is being stopped in order, its guests are to run on: @done follows, once. What counts on the lease is
 * told so first. Where that is not possible @done follows all the same, and the guests end with the lease. */
void host_lease_freeze(struct host_lease *h, void (*done)(void *arg), void *arg);

/* {"held", "left_ms" (null: for ever), "starts" (guests may start), "why" (a sentence why they may not; absent where
 * they may), "watchdog": {"mode", "state" (null: none is spoken to), "device", "timeout_s", "text"}}. New reference. */
json_t *host_lease_json(const struct host_lease *h);

/* For node.report: {"armed", "timeout_s", "token_ms"}. New reference. */
json_t *host_lease_report(const struct host_lease *h);

/* The newest time (clock_boot_ns()) up to which @node is proved to run none of the guests that it had before, and when
 * that may be next, by its last report's "watchdog" @said (cluster/lease.h). -1: nothing is proved, or ever will be. */
int64_t host_lease_dead_upto(const struct host_lease *h, uint32_t node, const json_t *said);
int64_t host_lease_dead_at(const struct host_lease *h, uint32_t node, const json_t *said);

/* Since when @node is no member (clock_boot_ns()), -1: it is one; whether its host answers all the same; whether all
 * are members; how many may leave without an end of quorum here. By the last view. */
int64_t host_lease_gone_since(const struct host_lease *h, uint32_t node);
bool host_lease_reaches(const struct host_lease *h, uint32_t node);
bool host_lease_seen(const struct host_lease *h, uint32_t node); /* it has been a member since this daemon started */
bool host_lease_all_here(const struct host_lease *h);
unsigned host_lease_spare(const struct host_lease *h);

/* Whether it is one of two, whose guests go on without the other one. */
bool host_lease_goes_on(const struct host_lease *h);

/* The times that this host goes by. Borrowed. */
const struct timing *host_lease_timing(const struct host_lease *h);

#endif
