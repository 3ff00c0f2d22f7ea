/* SPDX-License-Identifier: Apache-2.0 */
/* The beat: the message by which hosts give each other leases. Pure. */
#ifndef GODWIT_CLUSTER_BEAT_H
#define GODWIT_CLUSTER_BEAT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/bus.h"

/* Big-endian like all:
 *
 *   0  'B'   1  version of the format   2  number of entries (2 bytes)   4  incarnation (8)   12  number (8)
 *
 * and for each host that the sender's configuration names, itself included, ascending by id
 *
 *   0  id (4)   4  incarnation (8)   12  number (8)   20  age (4)
 *
 * of the newest beat that the sender has heard of it. Incarnation and number are 0 while it has heard none. What they
 * mean is told in cluster/lease.h. */

#define BEAT_MAGIC 'B'
#define BEAT_VERSION 1
#define BEAT_HEADER_SIZE 20U
#define BEAT_ENTRY_SIZE 24U
#define BEAT_SIZE_MAX (BEAT_HEADER_SIZE + BUS_NODES_MAX * BEAT_ENTRY_SIZE)

struct beat_entry {
	uint32_t node;
	uint64_t incarnation, number;
	uint32_t age_ms; /* since it was heard, rounded down */
};

struct beat {
	uint64_t incarnation, number; /* of the sender and its beat */
	size_t n;
	struct beat_entry entries[BUS_NODES_MAX];
};

/* The size of the message in @buf. */
size_t beat_encode(const struct beat *b, uint8_t buf[BEAT_SIZE_MAX]);

/* 0, or -1 with @e: ERR_UNSUPPORTED for another version, ERR_PROTOCOL for anything else. */
int beat_decode(const void *data, size_t size, struct beat *ret, struct err *e);

#endif
