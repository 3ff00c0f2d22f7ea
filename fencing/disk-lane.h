/* SPDX-License-Identifier: Apache-2.0 */
/* One fencing disk and the thread that alone touches it: a loop that must not wait gives orders and gets reports. */
#ifndef GODWIT_FENCING_DISK_LANE_H
#define GODWIT_FENCING_DISK_LANE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "fencing/disk-format.h"
#include "fencing/disk-io.h"

struct disk_lane;

/* Who we are, and where. Copied, but for @sys. */
struct disk_lane_config {
	const char *path, *cluster, *name;
	uint32_t node, token_ms;
	int64_t poll_ns;
	const struct disk_sys *sys; /* borrowed for ever: a thread that hangs may outlive everything */
};

/* A pill that is to be on the disk. */
struct disk_order {
	uint32_t to;
	struct disk_life life;
	uint64_t request;
};

/* What the thread is to write with each round, from now on. */
struct disk_orders {
	struct disk_life life;
	enum disk_state state;
	uint64_t acks[DISK_SLOTS]; /* requests that may be acknowledged */
	size_t n_acks;
	struct disk_order pills[DISK_SLOTS];
	size_t n_pills;
	uint32_t members[DISK_SLOTS]; /* whose slots are nobody else's; none known: every slot that is in use */
	size_t n_members;
};

/* What came out of the newest round. */
struct disk_report {
	int64_t began_ns, ended_ns;
	bool read, done; /* what was read is here; everything was written, too */
	struct err err;  /* when not done */
	struct disk_header header;
	int slot;  /* ours, -1 while there is none */
	bool full; /* and there is none to be had */
	bool beats_good[DISK_SLOTS];
	struct disk_beat beats[DISK_SLOTS]; /* by slot, where good */
	bool pills_good[DISK_SLOTS];
	struct disk_pill pills[DISK_SLOTS]; /* for our slot, by the slot of the sender, where good */
	uint64_t written[DISK_SLOTS]; /* requests that are on the disk now, by the slot of the receiver; 0: none */
};

/* Start the thread. @fn is called in the loop's thread when there is a report to take. */
struct disk_lane *disk_lane_new(struct loop *l, const struct disk_lane_config *c, const struct disk_orders *o,
				loop_fn *fn, void *arg);

/* End it; waits for a thread that is in a system call for 200 ms at most. One that hangs in its storage frees what is
 * its own when it comes back. NULL is fine. */
void disk_lane_free(struct disk_lane *lane);

/* New orders, and a round now. Loop. */
void disk_lane_order(struct disk_lane *lane, const struct disk_orders *o);

/* The newest report, false when it has been taken already. Loop. */
bool disk_lane_take(struct disk_lane *lane, struct disk_report *ret);

#endif
