/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's data path: pages into the guest's memory, the rest into the destination QEMU's stream. */
#ifndef GODWIT_MIGRATE_DEST_H
#define GODWIT_MIGRATE_DEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "migrate/conn.h"
#include "migrate/mapping.h"

struct dest;

struct dest_options {
	unsigned channels;
	struct mappings *mappings; /* borrowed; pages of blocks found there are placed directly */
	int qemu_fd;               /* our end of the socketpair that QEMU reads its stream from; borrowed */
	int wake_fd;               /* eventfd, written when a thread failed or everything arrived; borrowed */
	bool hold_tail;            /* keep the device state until dest_release_tail (a file's digest comes last) */
};

struct dest_state {
	uint64_t pages, zero_pages; /* placed */
	uint64_t wire_bytes;        /* read from the channels */
	int64_t drained_ns;         /* when the last channel said END, 0 before */
	bool failed;
	bool file_end; /* a file's trailer was reached: conn is where its digest lies */
};

/* One receiver thread per connection of @conns (borrowed until dest_join). */
struct dest *dest_start(const struct dest_options *opt, struct conn *conns);
void dest_get_state(struct dest *d, struct dest_state *ret);
void dest_get_error(struct dest *d, struct err *ret);
int dest_release_tail(struct dest *d, struct err *e);

/* Stop everything: closes QEMU's stream and the channels. Idempotent, main thread. */
void dest_abort(struct dest *d);
void dest_join(struct dest *d);

#endif
