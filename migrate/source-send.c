/* SPDX-License-Identifier: Apache-2.0 */
/* The source's senders: one thread per channel empties its queue onto the wire (theory: source.c). */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "migrate/source-int.h"

static void pace(struct channel *c, size_t bytes)
{
	int64_t now = clock_now_ns(), step;
	struct timespec t;

	if (!c->s->opt.bandwidth || c->s->final)
		return;
	step = (int64_t)((double)bytes * 1e9 * c->s->opt.channels / (double)c->s->opt.bandwidth);
	if (c->pace_ns < now - 50 * NS_PER_MS)
		c->pace_ns = now;
	c->pace_ns += step;
	if (c->pace_ns <= now)
		return;
	t = (struct timespec){c->pace_ns / NS_PER_S, c->pace_ns % NS_PER_S};
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static int frame_write(struct channel *c, struct iovec *iov, int n, struct err *e)
{
	size_t total = 0;

	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	c->s->wire_bytes += total;
	if (conn_writev(c->conn, iov, n, SOCK_FOREVER, e) < 0)
		return -1;
	pace(c, total);
	return 0;
}

/*
 * Send one frame. @stable: nobody writes to the bytes of @iov any more. TLS wants one large write and a sum must be
 * of the bytes that travel, so bytes that a guest may still change, and everything under TLS, are gathered first.
 */
static int frame_send(struct channel *c, struct wire_header *h, const struct wire_run *runs, const struct iovec *iov,
		      uint32_t n_iov, bool stable, struct err *e)
{
	struct iovec out[WIRE_PAGES_MAX + 1];
	uint8_t *data = c->gather + WIRE_HEADER_SIZE + h->runs * WIRE_RUN_SIZE;
	uint8_t *index = c->gather + WIRE_HEADER_SIZE;
	bool gather = c->conn->tls || !stable;

	for (uint32_t i = 0; i < h->runs; i++)
		wire_encode_run(index + i * WIRE_RUN_SIZE, runs[i]);
	h->length = 0;
	for (uint32_t i = 0; i < n_iov; i++) {
		if (gather)
			memcpy(data + h->length, iov[i].iov_base, iov[i].iov_len);
		h->length += (uint32_t)iov[i].iov_len;
	}
	if (!c->conn->tls) {
		h->flags |= WIRE_FLAG_SUM;
		XXH3_64bits_reset(c->sum);
		if (gather)
			XXH3_64bits_update(c->sum, data, h->length);
		for (uint32_t i = 0; !gather && i < n_iov; i++)
			XXH3_64bits_update(c->sum, iov[i].iov_base, iov[i].iov_len);
		h->sum = XXH3_64bits_digest(c->sum);
	}
	wire_encode_header(c->gather, h, index);
	out[0] = (struct iovec){c->gather, WIRE_HEADER_SIZE + h->runs * WIRE_RUN_SIZE + (gather ? h->length : 0)};
	if (!gather && n_iov)
		memcpy(out + 1, iov, n_iov * sizeof(*iov));
	return frame_write(c, out, gather ? 1 : (int)n_iov + 1, e);
}

static uint64_t runs_pages(const struct wire_run *runs, uint32_t n)
{
	uint64_t pages = 0;

	for (uint32_t i = 0; i < n; i++)
		pages += runs[i].count;
	return pages;
}

static void count_sent(struct source *s, uint8_t type, uint64_t pages, bool again)
{
	if (type == WIRE_PAGES)
		s->pages += pages;
	else if (type == WIRE_ZEROS)
		s->zero_pages += pages;
	if (again)
		s->resent += pages;
}

static int batch_send(struct channel *c, struct batch *b, struct err *e)
{
	struct wire_header h = {
		.type = b->type, .flags = b->flags, .block = b->block, .runs = b->n_runs, .base = b->base};
	int r = frame_send(c, &h, b->runs, b->iov, b->n_iov, true, e);

	count_sent(c->s, b->type, runs_pages(b->runs, b->n_runs), false);
	window_release(c->s, b->chunk, b->cost, batch_counts(b));
	free(b);
	return r;
}

/* A frame's worth of notices, taken off the ring. */
struct notices {
	uint16_t block;
	bool zero;
	uint64_t base, last;
	uint32_t n_runs, n;
	struct wire_run runs[WIRE_PAGES_MAX];
};

/* Take the notices at the head of the ring that fit one frame. Clears their bits: from now on a new notice counts
 * again. Lock held. */
static void notices_take(struct channel *c, struct notices *t)
{
	*t = (struct notices){.n = 0};
	while (c->ring_count && t->n < WIRE_PAGES_MAX) {
		uint64_t entry = c->ring[c->ring_head];
		uint16_t block = (uint16_t)(entry >> 48);
		uint64_t page = entry & ((1ULL << 48) - 1);
		struct block *b = &c->s->blocks[block];
		bool zero = bit_test(b->zero, page);

		if (!t->n) {
			t->block = block;
			t->zero = zero;
			t->base = page;
		} else if (block != t->block || zero != t->zero || page <= t->last ||
			   page - t->base >= WIRE_REACH - 1) {
			break;
		}
		if (t->n && page == t->last + 1)
			t->runs[t->n_runs - 1].count++;
		else
			t->runs[t->n_runs++] = (struct wire_run){(uint16_t)(page - t->base), 1};
		t->last = page;
		t->n++;
		bit_write(b->pending, page, false);
		c->ring_head = (c->ring_head + 1) % RING_ENTRIES;
		c->ring_count--;
	}
	pthread_cond_signal(&c->room);
}

static int notices_send(struct channel *c, const struct notices *t, struct err *e)
{
	struct wire_header h = {
		.type = t->zero ? WIRE_ZEROS : WIRE_PAGES, .block = t->block, .runs = t->n_runs, .base = t->base};
	const uint8_t *mem = c->s->blocks[t->block].mem + t->base * STREAM_PAGE_SIZE;
	struct iovec iov[WIRE_PAGES_MAX];
	uint32_t n = t->zero ? 0 : t->n_runs;
	int r;

	for (uint32_t i = 0; i < n; i++)
		iov[i] = (struct iovec){(void *)(mem + (size_t)t->runs[i].first * STREAM_PAGE_SIZE),
					(size_t)t->runs[i].count * STREAM_PAGE_SIZE};
	r = frame_send(c, &h, t->runs, iov, n, false, e);
	count_sent(c->s, h.type, t->n, true);
	window_release(c->s, NULL, (uint64_t)t->n * STREAM_PAGE_SIZE, 0);
	return r;
}

static int end_send(struct channel *c, struct err *e)
{
	struct wire_header h = {.type = WIRE_END};
	struct iovec none;
	struct source *s = c->s;
	int r = frame_send(c, &h, NULL, &none, 0, true, e);

	pthread_mutex_lock(&s->lock);
	if (++s->ended == s->opt.channels)
		s->drained_ns = clock_now_ns();
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* What a sender does next, decided under its lock. */
enum job { JOB_BATCH, JOB_NOTICES, JOB_END, JOB_AFTER, JOB_STOP };

static enum job job_next(struct channel *c, struct batch **ret_batch, struct notices *ret_notices)
{
	enum job job = JOB_STOP;

	pthread_mutex_lock(&c->lock);
	for (;;) {
		if (c->s->abort)
			break;
		if ((*ret_batch = queue_pop(&c->queue))) {
			job = JOB_BATCH;
		} else if (c->ring_count) {
			notices_take(c, ret_notices);
			job = JOB_NOTICES;
		} else if (c->ending && !c->ended) {
			c->ended = true;
			job = JOB_END;
		} else if (c->ended && c->index) {
			job = JOB_STOP;
		} else if (c->ended && (*ret_batch = queue_pop(&c->after))) {
			job = JOB_AFTER;
		} else {
			pthread_cond_wait(&c->work, &c->lock);
			continue;
		}
		break;
	}
	pthread_mutex_unlock(&c->lock);
	return job;
}

void *source_sender_run(void *arg)
{
	struct channel *c = arg;
	struct notices *t = xcalloc(1, sizeof(*t));
	struct err e = ERR_INIT;
	struct batch *b;
	int r = 0;

	while (r == 0) {
		enum job job = job_next(c, &b, t);

		if (job == JOB_STOP)
			break;
		if (job == JOB_NOTICES)
			r = notices_send(c, t, &e);
		else if (job == JOB_END)
			r = end_send(c, &e);
		else
			r = batch_send(c, b, &e);
	}
	if (r < 0) {
		if (!c->conn->file_digest)
			err_wrap(&e, "channel %u to the destination", c->index);
		source_fail(c->s, &e);
	}
	free(t);
	return NULL;
}
