/* SPDX-License-Identifier: Apache-2.0 */
/* The source's data path: its theory, its window, its life. */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "migrate/source-int.h"

/*
 * Theory of operation
 *
 * One *tap* thread reads QEMU's migration stream into chunks of memory and parses it. What it finds goes to the queue
 * of the channel that owns the page (wire_channel_of), in order. One *sender* thread per channel empties its queue onto
 * the wire.
 *
 * First pass, and blocks that we cannot map: the bytes come from the stream. Pages of a chunk are gathered into
 * batches that point into it; the chunk is used again when its last batch is sent.
 *
 * Later passes of mapped blocks: a record in the stream is only a notice that its page is dirty. The page waits in the
 * channel's ring of notices, longest waiting first, with one bit in `pending`; a second notice finds the bit set and
 * adds nothing (coalesced). The sender clears the bit *before* it reads the bytes from guest memory, so a write that
 * comes later is in QEMU's log and will be noticed again: reading late never loses one.
 *
 * The change from the first way to the second happens when a mapped page shows up again (QEMU's first pass walks each
 * block upwards once). The tap then waits until every batch is sent, so an old version from a chunk can never be sent
 * after a newer one from memory.
 *
 * The *window* is what was read from QEMU and not yet sent. When it is full the tap stops reading; QEMU's socket fills,
 * QEMU's own estimate of the bandwidth becomes the wire's, and whenever it stops the guest the rest is at most the
 * window.
 *
 * End: after RAM's END section each sender empties queue and ring and sends WIRE_END. Bytes after that point (the END
 * section itself, device state) travel behind channel 0's END as WIRE_STREAM frames with WIRE_FLAG_TAIL.
 */

void source_wake(struct source *s)
{
	uint64_t one = 1;

	(void)!write(s->opt.wake_fd, &one, sizeof(one));
}

/* Make every thread of ours, and QEMU's migration, come to its end. */
static void stop_all(struct source *s)
{
	s->abort = true;
	pthread_mutex_lock(&s->lock);
	pthread_cond_broadcast(&s->change);
	pthread_mutex_unlock(&s->lock);
	shutdown(s->opt.qemu_fd, SHUT_RDWR);
	for (unsigned i = 0; i < s->opt.channels; i++) {
		struct channel *c = &s->channels[i];

		shutdown(c->conn->fd, SHUT_RDWR);
		pthread_mutex_lock(&c->lock);
		pthread_cond_broadcast(&c->work);
		pthread_cond_broadcast(&c->room);
		pthread_mutex_unlock(&c->lock);
	}
}

/* Any thread: remember the first failure and end the move. */
void source_fail(struct source *s, const struct err *e)
{
	pthread_mutex_lock(&s->lock);
	if (!s->error.code && !s->abort)
		s->error = *e;
	pthread_mutex_unlock(&s->lock);
	stop_all(s);
	source_wake(s);
}

/* ---- the window ---- */

/* Take @bytes out of the window, and @chunk's reference with them. */
void window_release(struct source *s, struct chunk *chunk, uint64_t bytes, unsigned batches)
{
	pthread_mutex_lock(&s->lock);
	s->unsent -= bytes;
	s->queued_batches -= batches;
	if (chunk)
		chunk->refs--;
	pthread_cond_broadcast(&s->change);
	pthread_mutex_unlock(&s->lock);
}

void window_add(struct source *s, struct chunk *chunk, uint64_t bytes, unsigned batches)
{
	pthread_mutex_lock(&s->lock);
	s->unsent += bytes;
	s->queued_batches += batches;
	if (chunk)
		chunk->refs++;
	pthread_mutex_unlock(&s->lock);
}

void queue_push(struct queue *q, struct batch *b)
{
	b->next = NULL;
	*q->tail = b;
	q->tail = &b->next;
}

struct batch *queue_pop(struct queue *q)
{
	struct batch *b = q->head;

	if (b) {
		q->head = b->next;
		if (!q->head)
			q->tail = &q->head;
	}
	return b;
}

/* ---- life ---- */

static void channel_init(struct source *s, unsigned i, struct conn *conn)
{
	struct channel *c = &s->channels[i];

	c->s = s;
	c->index = i;
	c->conn = conn;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->work, NULL);
	pthread_cond_init(&c->room, NULL);
	c->queue.tail = &c->queue.head;
	c->after.tail = &c->after.head;
	c->ring = xcalloc(RING_ENTRIES, sizeof(*c->ring));
	c->gather = xcalloc(1, WIRE_HEADER_SIZE + WIRE_INDEX_MAX + WIRE_DATA_MAX);
	c->sum = XXH3_createState();
}

struct source *source_start(const struct source_options *opt, struct conn *conns)
{
	struct stream_options so = {.section_footers = true};
	struct source *s = xcalloc(1, sizeof(*s));

	s->opt = *opt;
	s->window = SOURCE_WINDOW_MAX / 4;
	s->parser = stream_parser_new(&so);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->change, NULL);
	for (unsigned i = 0; i < CHUNKS; i++)
		s->chunks[i].buf = xcalloc(1, STREAM_RECORD_MAX + CHUNK_READ);
	for (unsigned i = 0; i < opt->channels; i++)
		channel_init(s, i, &conns[i]);
	for (unsigned i = 0; i < opt->channels; i++)
		pthread_create(&s->channels[i].thread, NULL, source_sender_run, &s->channels[i]);
	pthread_create(&s->tap, NULL, source_tap_run, s);
	return s;
}

void source_set_window(struct source *s, uint64_t bytes)
{
	if (bytes < SOURCE_WINDOW_MIN)
		bytes = SOURCE_WINDOW_MIN;
	if (bytes > SOURCE_WINDOW_MAX)
		bytes = SOURCE_WINDOW_MAX;
	pthread_mutex_lock(&s->lock);
	s->window = bytes;
	pthread_cond_broadcast(&s->change);
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < s->opt.channels; i++)
		conn_bound_unsent(s->channels[i].conn, bytes);
}

void source_hold(struct source *s, bool hold)
{
	pthread_mutex_lock(&s->lock);
	s->hold = hold;
	pthread_cond_broadcast(&s->change);
	pthread_mutex_unlock(&s->lock);
}

void source_get_state(struct source *s, struct source_state *ret)
{
	*ret = (struct source_state){
		.pages = s->pages,
		.zero_pages = s->zero_pages,
		.resent_pages = s->resent,
		.coalesced = s->coalesced,
		.wire_bytes = s->wire_bytes,
		.device_bytes = s->device_bytes,
		.ram_bytes = s->ram_bytes,
		.ram_end_ns = s->ram_end_ns,
		.drained_ns = s->drained_ns,
	};
	pthread_mutex_lock(&s->lock);
	ret->unsent = s->unsent;
	ret->failed = s->error.code != ERR_NONE;
	pthread_mutex_unlock(&s->lock);
}

void source_get_error(struct source *s, struct err *ret)
{
	pthread_mutex_lock(&s->lock);
	*ret = s->error;
	pthread_mutex_unlock(&s->lock);
}

void source_abort(struct source *s)
{
	stop_all(s);
}

static void channel_done(struct channel *c)
{
	struct batch *b;

	while ((b = queue_pop(&c->queue)) || (b = queue_pop(&c->after)))
		free(b);
	free(c->open);
	free(c->ring);
	free(c->gather);
	XXH3_freeState(c->sum);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->work);
	pthread_cond_destroy(&c->room);
}

void source_join(struct source *s)
{
	if (!s)
		return;
	stop_all(s);
	pthread_join(s->tap, NULL);
	for (unsigned i = 0; i < s->opt.channels; i++) {
		pthread_join(s->channels[i].thread, NULL);
		channel_done(&s->channels[i]);
	}
	for (unsigned i = 0; i < CHUNKS; i++)
		free(s->chunks[i].buf);
	for (size_t i = 0; i < s->n_blocks; i++) {
		if (s->blocks[i].pending)
			munmap(s->blocks[i].pending, s->blocks[i].bitmap_size);
		if (s->blocks[i].zero)
			munmap(s->blocks[i].zero, s->blocks[i].bitmap_size);
	}
	stream_parser_free(s->parser);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->change);
	free(s);
}
