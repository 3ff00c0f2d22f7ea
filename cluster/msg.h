/* SPDX-License-Identifier: Apache-2.0 */
/* The messages that members of the cluster send each other over the bus. */
#ifndef GODWIT_CLUSTER_MSG_H
#define GODWIT_CLUSTER_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/bus.h"
#include "cluster/entry.h"

/* Who sends what to whom, and when, is told in cluster/core.h. All numbers are big-endian. A message begins with
 *
 *   0  'G'   1  version of the format   2  type   3  flags   4  history (8 bytes)
 *
 * then come the fields of its type in the order of the table in msg.c, then, for PROPOSE and ENTRIES, its items: a
 * count (4 bytes) and for each item kind (1), epoch (8), node (4), seq (8), version (4), size (4) and the bytes; for
 * SNAP_DATA the bytes to the end. */

#define MSG_MAGIC 'G'
#define MSG_VERSION 1
#define MSG_ITEMS_MAX 65536U

enum msg_type {
	MSG_SYNC = 1,   /* this is where my log ends, for the round of the view */
	MSG_CLAIM,      /* I ask to lead this epoch */
	MSG_PROMISE,    /* answer to a claim */
	MSG_PROPOSE,    /* commands for the leader to put into the log */
	MSG_REFUSE,     /* the leader will not take this command */
	MSG_ENTRIES,    /* the leader's log from prev on; without items it is a sign of life */
	MSG_ACK,        /* my disk has the leader's log up to here */
	MSG_NEED,       /* send me what comes after index */
	MSG_SNAP_BEGIN, /* take this snapshot instead */
	MSG_SNAP_GET,   /* send me these bytes of it */
	MSG_SNAP_DATA,
	MSG_CHECK, /* the digests of my state at index */
	MSG_TYPE_MAX
};

/* flags */
#define MSG_LEARNER 0x01  /* the sender's disk may lack what it acknowledged; PROMISE: it does not vouch */
#define MSG_FAILED 0x02   /* the sender's disk takes nothing */
#define MSG_DIVERGED 0x04 /* the sender's state is known to be wrong; in NEED: only a snapshot will do */
#define MSG_GRANTED 0x08  /* PROMISE: yes */
#define MSG_DOUBTED 0x10  /* PROMISE: no, because a majority's digests contradicted yours */
#define MSG_ALONE 0x20    /* the sender goes on alone, one of two: its log is the cluster's */
#define MSG_TWO 0x40      /* the sender counts two hosts */

struct msg {
	enum msg_type type;
	uint8_t flags;
	uint64_t history; /* which cluster's log; 0 from a member that has none yet */
	struct bus_ring ring;
	uint32_t round;
	uint32_t to; /* whom it is for; ENTRIES: 0 is everyone */
	uint64_t epoch;
	uint64_t promised;
	uint64_t last_epoch,
		last_index; /* SYNC, CLAIM: where the sender's log ends. ENTRIES: the entry before the items */
	uint64_t index;     /* ACK, NEED, CHECK, SNAP_BEGIN */
	uint64_t commit;    /* ENTRIES */
	uint32_t version;   /* SYNC: newest command version known. REFUSE: newest that all know */
	uint64_t seq;       /* REFUSE: which proposal */
	uint64_t snapshot;  /* which snapshot */
	uint64_t offset, size;
	uint8_t chain[32], state[32];
	uint32_t count;       /* items */
	const uint8_t *items; /* borrowed from the message's bytes: items, or the bytes of SNAP_DATA */
	size_t items_size;
};

/* A growing buffer for a message to send. Starts zeroed; free(data) ends it. */
struct msg_buf {
	uint8_t *data;
	size_t len, cap;
	size_t count_at; /* where the count of items stands */
};

/* Begin a message: everything up to the items. */
void msg_begin(struct msg_buf *b, const struct msg *m);

/* PROPOSE, ENTRIES: one item more. SNAP_DATA: room for @size bytes, to be filled by the caller. */
void msg_item(struct msg_buf *b, const struct entry *e);
uint8_t *msg_room(struct msg_buf *b, size_t size);

/* Decode up to the items and check that they are whole; @ret borrows from @data. -1 with @e (ERR_PROTOCOL). */
int msg_decode(const void *data, size_t size, struct msg *ret, struct err *e);

/* The next item of a decoded message, whose index is not known here. Caller unrefs. NULL behind the last. */
struct entry *msg_next(struct msg *m);

const char *msg_type_name(enum msg_type type);

#endif
