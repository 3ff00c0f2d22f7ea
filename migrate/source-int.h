/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the source's data path: what source.c, source-tap.c and source-send.c share. */
#ifndef GODWIT_MIGRATE_SOURCE_INT_H
#define GODWIT_MIGRATE_SOURCE_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <xxh_x86dispatch.h>

#include "hv/stream.h"
#include "migrate/source.h"

#define CHUNK_READ (256UL << 10)
#define CHUNKS 16U
#define RING_ENTRIES 65536U

struct chunk {
	uint8_t *buf; /* STREAM_RECORD_MAX for what the last chunk left over, then CHUNK_READ */
	int refs;     /* batches that point into it, plus one while the tap fills it; under source.lock */
};

/* One frame to be. */
struct batch {
	struct batch *next;
	struct chunk *chunk; /* holds the bytes; NULL: none needed */
	uint64_t base;
	uint64_t cost; /* bytes it takes in the window */
	uint16_t block;
	uint8_t type;
	uint8_t flags;
	uint32_t n_runs;
	uint32_t n_iov;
	struct iovec iov[WIRE_PAGES_MAX];
	struct wire_run runs[WIRE_RUNS_MAX];
};

struct queue {
	struct batch *head, **tail;
};

struct channel {
	struct source *s;
	struct conn *conn;
	pthread_t thread;
	unsigned index;
	pthread_mutex_t lock; /* guards everything below, and the bitmap words of this channel's regions */
	pthread_cond_t work;  /* something to send, or the end */
	pthread_cond_t room;  /* the ring has room again */
	struct queue queue;   /* batches, in order */
	struct queue after;   /* channel 0: what follows its END */
	uint64_t *ring;       /* notices: block << 48 | page */
	uint32_t ring_head, ring_count;
	bool ending, ended;
	struct batch *open; /* tap only: the batch being filled */
	uint8_t *gather;    /* sender only: header, index and data side by side */
	XXH3_state_t *sum;
	int64_t pace_ns; /* when the next frame may leave */
};

/* One RAM block as the tap sees it. */
struct block {
	const uint8_t *mem; /* NULL: not mapped */
	uint64_t pages;
	uint64_t next;      /* tap only: the first pass goes upwards; a page below was seen before */
	uint64_t *pending;  /* bit per page: a notice waits; under the channel's lock */
	uint64_t *zero;     /* bit per page: the newest notice said zero; likewise */
	size_t bitmap_size; /* bytes of each */
};

struct source {
	struct source_options opt;
	struct channel channels[WIRE_CHANNELS_MAX];
	struct stream_parser *parser;
	struct block blocks[STREAM_BLOCKS_MAX];
	size_t n_blocks;
	bool live;  /* tap only: mapped blocks are past their first pass */
	bool tail;  /* tap only: SECTION bytes now belong behind the END */
	bool parts; /* tap only: the first PART was seen */
	pthread_t tap;

	pthread_mutex_t lock; /* guards what follows, and chunk refs */
	pthread_cond_t change;
	struct chunk chunks[CHUNKS];
	uint64_t unsent, window;
	bool hold; /* the tap reads no more */
	uint64_t queued_batches;
	struct err error;
	unsigned ended;
	atomic_bool abort, final;

	atomic_ullong pages, zero_pages, resent, coalesced, wire_bytes, device_bytes, ram_bytes;
	atomic_llong ram_end_ns, drained_ns;
};

/* Any thread: remember the first failure and end the move. */
void source_fail(struct source *s, const struct err *e);
/* Tell the main thread that source_get_state() has news. */
void source_wake(struct source *s);

/* Put @bytes into the window, with a reference to @chunk (may be NULL) and @batches queued; take them out again. Any
 * thread. */
void window_add(struct source *s, struct chunk *chunk, uint64_t bytes, unsigned batches);
void window_release(struct source *s, struct chunk *chunk, uint64_t bytes, unsigned batches);

/* Under the channel's lock. */
void queue_push(struct queue *q, struct batch *b);
struct batch *queue_pop(struct queue *q);

/* What travels behind the END of the pages is not waited for before a block goes live: the pages that make it live may
 * come after it, inside RAM's own END section. */
static inline unsigned batch_counts(const struct batch *b)
{
	return b->flags & WIRE_FLAG_TAIL ? 0 : 1;
}

static inline bool bit_test(const uint64_t *map, uint64_t page)
{
	return map[page / 64] >> (page % 64) & 1;
}

static inline void bit_write(uint64_t *map, uint64_t page, bool on)
{
	if (on)
		map[page / 64] |= 1ULL << (page % 64);
	else
		map[page / 64] &= ~(1ULL << (page % 64));
}

/* Thread bodies: @arg is the struct source, or the struct channel. */
void *source_tap_run(void *arg);
void *source_sender_run(void *arg);

#endif
