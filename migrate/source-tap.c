/* SPDX-License-Identifier: Apache-2.0 */
/* The source's tap: reads QEMU's migration stream and puts what it finds into the channels' queues (theory: source.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "migrate/source-int.h"

#define COMMAND_OPEN_RETURN_PATH 1
#define COMMAND_PING 2
#define SECTION_END 0x03

/* Tap: wait for room in the window and take a free chunk; NULL when the move is over. */
static struct chunk *chunk_take(struct source *s)
{
	struct chunk *found = NULL;

	pthread_mutex_lock(&s->lock);
	while (!s->abort && !found) {
		for (unsigned i = 0; i < CHUNKS && !found && !s->hold && (s->unsent < s->window || s->final); i++)
			if (!s->chunks[i].refs)
				found = &s->chunks[i];
		if (found)
			found->refs = 1;
		else
			pthread_cond_wait(&s->change, &s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

static void channel_push(struct channel *c, struct queue *q, struct batch *b)
{
	window_add(c->s, b->chunk, b->cost, batch_counts(b));
	pthread_mutex_lock(&c->lock);
	queue_push(q, b);
	pthread_cond_signal(&c->work);
	pthread_mutex_unlock(&c->lock);
}

static void channel_flush(struct channel *c)
{
	if (c->open)
		channel_push(c, &c->queue, steal_ptr(c->open));
}

/* The open batch of @c if a page of this kind fits into it, else a new one. */
static struct batch *batch_for(struct channel *c, struct chunk *chunk, uint8_t type, uint16_t block, uint64_t page)
{
	struct batch *b = c->open;

	if (b && (b->type != type || b->block != block || (type == WIRE_PAGES && b->n_iov == WIRE_PAGES_MAX) ||
		  b->n_runs == WIRE_RUNS_MAX ||
		  page < b->base + b->runs[b->n_runs - 1].first + b->runs[b->n_runs - 1].count ||
		  page - b->base >= WIRE_REACH - 1)) {
		channel_flush(c);
		b = NULL;
	}
	if (!b) {
		b = malloc(sizeof(*b));
		if (!b)
			abort();
		b->type = type;
		b->flags = 0;
		b->block = block;
		b->base = page;
		b->cost = 0;
		b->n_runs = b->n_iov = 0;
		b->chunk = type == WIRE_PAGES ? chunk : NULL;
		c->open = b;
	}
	return b;
}

static void batch_add_page(struct batch *b, uint64_t page, const uint8_t *data)
{
	uint32_t at = (uint32_t)(page - b->base);
	struct wire_run *last = &b->runs[b->n_runs - 1];

	if (b->n_runs && last->first + last->count == at)
		last->count++;
	else
		b->runs[b->n_runs++] = (struct wire_run){(uint16_t)at, 1};
	b->cost += data ? STREAM_PAGE_SIZE : 1;
	if (data)
		b->iov[b->n_iov++] = (struct iovec){(void *)data, STREAM_PAGE_SIZE};
}

/* Later passes: the page waits for its turn; its bytes are read when it is sent. */
static void notice_add(struct source *s, uint16_t block, uint64_t page, bool zero)
{
	struct channel *c = &s->channels[wire_channel_of(page, s->opt.channels)];
	struct block *b = &s->blocks[block];

	pthread_mutex_lock(&c->lock);
	while (c->ring_count == RING_ENTRIES && !s->abort)
		pthread_cond_wait(&c->room, &c->lock);
	bit_write(b->zero, page, zero);
	if (bit_test(b->pending, page)) {
		s->coalesced++;
	} else if (!s->abort) {
		bit_write(b->pending, page, true);
		window_add(s, NULL, STREAM_PAGE_SIZE, 0);
		c->ring[(c->ring_head + c->ring_count++) % RING_ENTRIES] = (uint64_t)block << 48 | page;
		if (c->ring_count == 1 || c->ring_count == WIRE_PAGES_MAX)
			pthread_cond_signal(&c->work);
	}
	pthread_mutex_unlock(&c->lock);
}

/* A mapped page came back: from here on its block is read from memory, once everything from chunks is out. */
static void go_live(struct source *s)
{
	for (unsigned i = 0; i < s->opt.channels; i++)
		channel_flush(&s->channels[i]);
	pthread_mutex_lock(&s->lock);
	while (s->queued_batches && !s->abort)
		pthread_cond_wait(&s->change, &s->lock);
	pthread_mutex_unlock(&s->lock);
	s->live = true;
}

static int tap_page(struct source *s, struct chunk *chunk, const struct stream_item *item, struct err *e)
{
	struct channel *c = &s->channels[wire_channel_of(item->page, s->opt.channels)];
	bool zero = item->type == STREAM_ITEM_ZERO;
	struct block *b = &s->blocks[item->block];

	if (item->block >= s->n_blocks || item->page >= b->pages)
		return err_set(e, ERR_PROTOCOL, "QEMU's stream names a page that the guest does not have");
	if (b->mem && !s->live && item->page < b->next)
		go_live(s);
	if (b->mem && s->live) {
		notice_add(s, item->block, item->page, zero);
		return 0;
	}
	b->next = item->page + 1;
	batch_add_page(batch_for(c, chunk, zero ? WIRE_ZEROS : WIRE_PAGES, item->block, item->page), item->page,
		       zero ? NULL : item->data);
	return 0;
}

static void *bitmap_new(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* The block list is known: find the mapped ones. */
static int tap_blocks(struct source *s, struct err *e)
{
	const struct stream_block *list = stream_parser_blocks(s->parser, &s->n_blocks);
	uint64_t total = 0;

	for (size_t i = 0; i < s->n_blocks; i++) {
		struct mapping *m = mappings_get(s->opt.mappings, list[i].name);
		struct block *b = &s->blocks[i];

		b->pages = list[i].used_length / STREAM_PAGE_SIZE;
		total += list[i].used_length;
		if (!m || m->size < list[i].used_length)
			continue;
		b->bitmap_size = (b->pages + 63) / 64 * 8;
		b->pending = bitmap_new(b->bitmap_size);
		b->zero = bitmap_new(b->bitmap_size);
		if (!b->pending || !b->zero)
			return err_sys(e, "dirty bitmaps of %s", list[i].name);
		b->mem = m->mem;
	}
	s->ram_bytes = total;
	return 0;
}

/* Bytes for the destination's QEMU: before RAM's first PART they travel at once, from the end on behind channel 0's
 * END. */
static void tap_stream(struct source *s, struct chunk *chunk, const uint8_t *data, size_t n, bool tail)
{
	struct channel *c = &s->channels[0];

	channel_flush(c);
	while (n) {
		struct batch *b = xcalloc(1, sizeof(*b));
		size_t part = n < WIRE_DATA_MAX ? n : WIRE_DATA_MAX;

		b->type = WIRE_STREAM;
		b->flags = tail ? WIRE_FLAG_TAIL : 0;
		b->chunk = chunk;
		b->cost = part;
		b->iov[b->n_iov++] = (struct iovec){(void *)data, part};
		channel_push(c, tail ? &c->after : &c->queue, b);
		data += part;
		n -= part;
	}
}

/* The last page was read: let the channels run dry and say END. */
static void tap_ram_end(struct source *s)
{
	s->ram_end_ns = clock_now_ns();
	s->final = true;
	for (unsigned i = 0; i < s->opt.channels; i++) {
		struct channel *c = &s->channels[i];

		channel_flush(c);
		pthread_mutex_lock(&c->lock);
		c->ending = true;
		pthread_cond_signal(&c->work);
		pthread_mutex_unlock(&c->lock);
	}
	source_wake(s);
}

static int tap_item(struct source *s, struct chunk *chunk, const struct stream_item *item, struct err *e)
{
	switch (item->type) {
	case STREAM_ITEM_PAGE:
	case STREAM_ITEM_ZERO:
		return tap_page(s, chunk, item, e);
	case STREAM_ITEM_BLOCKS:
		return tap_blocks(s, e);
	case STREAM_ITEM_PASS:
		s->parts = true;
		s->tail = item->section_type == SECTION_END;
		return 0;
	case STREAM_ITEM_SECTION:
		/* The frames of PART sections stay here: the destination makes its own where it needs them. */
		if (!s->parts || s->tail)
			tap_stream(s, chunk, item->data, item->size, s->tail);
		return 0;
	case STREAM_ITEM_COMMAND:
		/* The return path ends here: we answer QEMU, the destination's QEMU has none. */
		if (item->command != COMMAND_OPEN_RETURN_PATH && item->command != COMMAND_PING)
			tap_stream(s, chunk, item->data, item->size, s->parts);
		return 0;
	case STREAM_ITEM_RAM_END:
		tap_ram_end(s);
		return 0;
	case STREAM_ITEM_NONE:
		break;
	}
	return 0;
}

/* Parse what lies in @chunk; returns how many bytes were used, or -1. */
static ssize_t tap_parse(struct source *s, struct chunk *chunk, const uint8_t *data, size_t n, struct err *e)
{
	struct stream_item item;
	size_t used;

	if (!stream_parser_ram_ended(s->parser)) {
		stream_parser_feed(s->parser, data, n);
		do {
			if (stream_parser_next(s->parser, &item, e) < 0 || tap_item(s, chunk, &item, e) < 0)
				return -1;
		} while (item.type != STREAM_ITEM_NONE && item.type != STREAM_ITEM_RAM_END);
		used = stream_parser_consumed(s->parser);
	} else {
		used = 0;
	}
	if (stream_parser_ram_ended(s->parser) && used < n) {
		s->device_bytes += n - used;
		tap_stream(s, chunk, data + used, n - used, true);
		used = n;
	}
	for (unsigned i = 0; i < s->opt.channels; i++)
		channel_flush(&s->channels[i]);
	return (ssize_t)used;
}

/* On a slow wire the window is smaller than a chunk: do not read past it. */
static size_t read_size(struct source *s)
{
	size_t n;

	pthread_mutex_lock(&s->lock);
	n = s->window < CHUNK_READ ? s->window : CHUNK_READ;
	pthread_mutex_unlock(&s->lock);
	return n;
}

void *source_tap_run(void *arg)
{
	struct source *s = arg;
	const uint8_t *left = NULL;
	struct chunk *chunk = NULL, *last = NULL;
	size_t n_left = 0;
	struct err e = ERR_INIT;

	while ((chunk = chunk_take(s))) {
		uint8_t *start = chunk->buf + STREAM_RECORD_MAX - n_left;
		ssize_t n, used;

		/* What the last parse could not use goes in front of what is read now. */
		if (n_left)
			memcpy(start, left, n_left);
		if (last)
			window_release(s, last, 0, 0);
		last = chunk;
		do
			n = read(s->opt.qemu_fd, chunk->buf + STREAM_RECORD_MAX, read_size(s));
		while (n < 0 && errno == EINTR);
		if (n <= 0) {
			if (!stream_parser_ram_ended(s->parser))
				err_set(&e, ERR_QMP, "QEMU ended its migration stream");
			break;
		}
		used = tap_parse(s, chunk, start, n_left + (size_t)n, &e);
		if (used < 0)
			break;
		left = start + used;
		n_left = n_left + (size_t)n - (size_t)used;
		if (n_left > STREAM_RECORD_MAX) {
			err_set(&e, ERR_PROTOCOL, "QEMU's stream has a record of more than %u bytes",
				STREAM_RECORD_MAX);
			break;
		}
	}
	if (last)
		window_release(s, last, 0, 0);
	if (e.code)
		source_fail(s, &e);
	return NULL;
}
