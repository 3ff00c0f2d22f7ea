/* SPDX-License-Identifier: Apache-2.0 */
/* The source's data path: tap QEMU's stream, hold what is unsent in one window, send it over the channels. */
#ifndef GODWIT_MIGRATE_SOURCE_H
#define GODWIT_MIGRATE_SOURCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "migrate/conn.h"
#include "migrate/mapping.h"

struct source;

struct source_options {
	unsigned channels;
	uint64_t bandwidth; /* bytes/s for all channels together, 0: no limit; not kept to once the guest is stopped */
	struct mappings *mappings; /* borrowed; blocks found there are read late, from memory */
	int qemu_fd;               /* our end of the socketpair that QEMU writes its stream to; borrowed */
	int wake_fd;               /* eventfd, written when something that source_state() shows has changed; borrowed */
};

/* Counters; a snapshot. */
struct source_state {
	uint64_t pages;        /* pages sent with their bytes, each time counted */
	uint64_t zero_pages;   /* pages sent as zero, likewise */
	uint64_t resent_pages; /* of those, sent after the first pass */
	uint64_t coalesced;    /* notices that found their page still waiting: bytes that never had to travel */
	uint64_t wire_bytes;   /* bytes given to the channels */
	uint64_t unsent;       /* bytes in the window now */
	uint64_t device_bytes; /* device state after the RAM */
	uint64_t ram_bytes;    /* sum of all blocks, 0 until the block list was read */
	int64_t ram_end_ns;    /* when QEMU's stream reached the end of RAM (clock_now_ns), 0 before */
	int64_t drained_ns;    /* when every channel had sent its last page, 0 before */
	bool failed;
};

/* Start the tap and one sender per connection of @conns (borrowed until source_join, then the caller's again). */
struct source *source_start(const struct source_options *opt, struct conn *conns);

/* How many bytes may be unsent before the tap stops reading (and QEMU feels it), and as many, at most CONN_UNSENT_MAX,
 * in the kernel behind what the network has in flight. Any thread. */
void source_set_window(struct source *s, uint64_t bytes);
#define SOURCE_WINDOW_MIN (64UL << 10)
#define SOURCE_WINDOW_MAX (16UL << 20)

/* Read no more of QEMU's stream while @hold, so that QEMU blocks and cannot come to the end of its pass. Any thread. */
void source_hold(struct source *s, bool hold);

void source_get_state(struct source *s, struct source_state *ret);

/* The first failure of any thread. */
void source_get_error(struct source *s, struct err *ret);

/* Stop everything: closes the tap, so QEMU's migration fails and its guest runs on. Idempotent, main thread. */
void source_abort(struct source *s);

/* Wait for the threads (after QEMU closed its stream, or after source_abort) and free. NULL is fine. */
void source_join(struct source *s);

#endif
