/* SPDX-License-Identifier: Apache-2.0 */
/* One entry of the replicated log, shared by the protocol, the store's writer thread and the wire. */
#ifndef GODWIT_CLUSTER_ENTRY_H
#define GODWIT_CLUSTER_ENTRY_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum entry_kind {
	ENTRY_EPOCH,   /* an epoch begins; no command */
	ENTRY_COMMAND, /* for the state machine */
	ENTRY_CHECK,   /* every member digests its state here; no command */
	ENTRY_KIND_MAX
};

#define ENTRY_DATA_MAX (4U << 20)

/* (epoch, index) names an entry: no two different entries of a history have both the same. Constant once it is in a
 * log. */
struct entry {
	atomic_int refs;
	enum entry_kind kind;
	uint64_t epoch;
	uint64_t index;   /* 1 is the first */
	uint32_t node;    /* who proposed it ... */
	uint64_t seq;     /* ... and its number there, never used twice by that host */
	uint32_t version; /* of the command */
	uint64_t serial;  /* loop thread: the write that took it to the disk, 0 when none has yet */
	size_t size;
	uint8_t data[];
};

/* @size is at most ENTRY_DATA_MAX. One reference, the caller's. */
struct entry *entry_new(enum entry_kind kind, const void *data, size_t size);
struct entry *entry_ref(struct entry *e);

/* @e may be NULL. Any thread. */
void entry_unref(struct entry *e);

#endif
