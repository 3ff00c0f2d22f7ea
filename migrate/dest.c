/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's data path. */
#include "migrate/dest.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxh_x86dispatch.h>

#include "base/byteorder.h"
#include "base/clock.h"
#include "base/mem.h"
#include "hv/stream.h"

/*
 * Theory of operation
 *
 * One thread per channel reads frames. Pages of a block that we have mapped are read straight into guest memory; pages
 * of other blocks (firmware, video memory, or all RAM where it is private) become RAM records in PART sections that we
 * write into the stream of the destination's QEMU. That QEMU does not miss pages that it was not sent.
 *
 * Channel 0 also carries the stream's own bytes. What comes before the pages (header, configuration, RAM's START
 * section with the block list) goes to QEMU at once, and is parsed on the way because the list gives the block numbers
 * their meaning; the other channels wait for it. What comes behind the pages (flag TAIL: RAM's END section and the
 * device state) waits until every channel has said END, so QEMU never loads a device before the last page is in place.
 *
 * A page that is zero costs nothing if nobody has written to it here: `filled` has a bit for every page that holds
 * something.
 */

#define GIVE_BACK_PAGES 64U
#define TAIL_MAX (512UL << 20)
#define SECTION_FOOTER 0x7e

struct dest_block {
	uint8_t *mem; /* NULL: not mapped */
	const struct mapping *mapping;
	uint64_t pages;
	uint64_t *filled; /* mapped: bit per page that may be other than zero; a word belongs to one channel */
	size_t bitmap_size;
};

struct receiver {
	struct dest *d;
	struct conn *conn;
	pthread_t thread;
	unsigned index;
	uint8_t *buf; /* data of a frame that is not placed directly */
	uint8_t *out; /* a PART section being built */
	XXH3_state_t *sum;
	bool ended;
};

struct dest {
	struct dest_options opt;
	struct receiver receivers[WIRE_CHANNELS_MAX];
	struct stream_parser *parser; /* channel 0 only, until the block list is known */
	uint8_t *setup;               /* channel 0 only: bytes the parser has not used yet */
	size_t setup_len;
	bool setup_blocks, setup_whole; /* channel 0 only: the block list was read; the section that holds it, too */

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t change;
	bool blocks_known;
	unsigned ended;
	struct err error;
	uint8_t *tail;
	size_t tail_len, tail_size;
	bool file_end;

	pthread_mutex_t stream_lock; /* writes to qemu_fd, and the encoder */
	struct stream_encoder encoder;
	uint32_t ram_section;

	struct dest_block blocks[STREAM_BLOCKS_MAX]; /* constant once blocks_known */
	size_t n_blocks;
	atomic_bool abort;
	atomic_ullong pages, zero_pages, wire_bytes;
	atomic_llong drained_ns;
};

static void stop_all(struct dest *d)
{
	d->abort = true;
	if (d->opt.qemu_fd >= 0)
		shutdown(d->opt.qemu_fd, SHUT_RDWR);
	for (unsigned i = 0; i < d->opt.channels; i++)
		shutdown(d->receivers[i].conn->fd, SHUT_RDWR);
	pthread_mutex_lock(&d->lock);
	pthread_cond_broadcast(&d->change);
	pthread_mutex_unlock(&d->lock);
}

static void wake_main(struct dest *d)
{
	uint64_t one = 1;

	(void)!write(d->opt.wake_fd, &one, sizeof(one));
}

static void dest_fail(struct dest *d, const struct err *e)
{
	pthread_mutex_lock(&d->lock);
	if (!d->error.code && !d->abort)
		d->error = *e;
	pthread_mutex_unlock(&d->lock);
	stop_all(d);
	wake_main(d);
}

/* ---- the stream of the destination's QEMU ---- */

static int qemu_write(struct dest *d, struct iovec *iov, int n, struct err *e)
{
	int r;

	pthread_mutex_lock(&d->stream_lock);
	r = sock_writev_full(d->opt.qemu_fd, iov, n, SOCK_FOREVER, e);
	pthread_mutex_unlock(&d->stream_lock);
	return r < 0 ? err_wrap(e, "the destination's QEMU stopped reading its stream") : 0;
}

static int blocks_setup(struct dest *d, struct err *e)
{
	const struct stream_block *list = stream_parser_blocks(d->parser, &d->n_blocks);

	for (size_t i = 0; i < d->n_blocks; i++) {
		struct mapping *m = mappings_get(d->opt.mappings, list[i].name);
		struct dest_block *b = &d->blocks[i];
		struct extent ext[64];
		size_t n;

		b->pages = list[i].used_length / STREAM_PAGE_SIZE;
		if (!m || m->size < list[i].used_length)
			continue;
		b->bitmap_size = (b->pages + 63) / 64 * 8;
		b->filled = mmap(NULL, b->bitmap_size, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (b->filled == MAP_FAILED) {
			b->filled = NULL;
			return err_sys(e, "bitmap of %s", list[i].name);
		}
		b->mem = m->mem;
		b->mapping = m;
		/* Memory that was populated before we began may hold anything. Our own prefault made zero pages only.
		 */
		n = m->was_empty ? 0 : mapping_extents(m, ext, ARRAY_SIZE(ext));
		for (size_t x = 0; x < n; x++)
			for (uint64_t p = ext[x].page; p < ext[x].page + ext[x].count && p < b->pages; p++)
				b->filled[p / 64] |= 1ULL << (p % 64);
	}
	stream_encoder_init(&d->encoder, list, d->n_blocks);
	return 0;
}

/* The setup is in QEMU's hands: pages may follow, on every channel. */
static void blocks_publish(struct dest *d)
{
	pthread_mutex_lock(&d->lock);
	d->blocks_known = true;
	pthread_cond_broadcast(&d->change);
	pthread_mutex_unlock(&d->lock);
}

/* Parse what channel 0 has brought so far, up to the footer of RAM's START section: a faster channel must not write its
 * pages into the middle of that section. */
static int setup_parse(struct dest *d, const uint8_t *data, size_t n, struct err *e)
{
	struct stream_item item;

	if (d->blocks_known)
		return 0;
	if (d->setup_len + n > STREAM_RECORD_MAX)
		return err_set(e, ERR_PROTOCOL, "the stream's header is larger than %u bytes", STREAM_RECORD_MAX);
	memcpy(d->setup + d->setup_len, data, n);
	d->setup_len += n;
	stream_parser_feed(d->parser, d->setup, d->setup_len);
	for (;;) {
		if (stream_parser_next(d->parser, &item, e) < 0)
			return -1;
		if (item.type == STREAM_ITEM_NONE)
			break;
		if (item.type == STREAM_ITEM_SECTION && item.size >= 5 && item.data[0] == 0x01)
			d->ram_section = get_be32(item.data + 1);
		if (item.type == STREAM_ITEM_BLOCKS) {
			if (blocks_setup(d, e) < 0)
				return -1;
			d->setup_blocks = true;
		}
		if (d->setup_blocks && item.type == STREAM_ITEM_SECTION && item.data[0] == SECTION_FOOTER) {
			d->setup_whole = true;
			return 0;
		}
		if (item.type == STREAM_ITEM_PAGE || item.type == STREAM_ITEM_ZERO)
			return err_set(e, ERR_PROTOCOL, "the stream has pages before its block list");
	}
	n = stream_parser_consumed(d->parser);
	d->setup_len -= n;
	memmove(d->setup, d->setup + n, d->setup_len);
	return 0;
}

/* Device state waits for the last page of every channel. */
static int wait_for_ends(struct dest *d, struct err *e)
{
	pthread_mutex_lock(&d->lock);
	while (d->ended < d->opt.channels && !d->abort)
		pthread_cond_wait(&d->change, &d->lock);
	pthread_mutex_unlock(&d->lock);
	return d->abort ? err_set(e, ERR_CANCELLED, "the move was ended") : 0;
}

static int tail_keep(struct dest *d, const uint8_t *data, size_t n, struct err *e)
{
	if (d->tail_len + n > d->tail_size) {
		size_t size = (d->tail_len + n) * 2;
		uint8_t *grown = mem_bounded(size, TAIL_MAX, "device state", e);

		if (!grown)
			return -1;
		memcpy(grown, d->tail, d->tail_len);
		free(d->tail);
		d->tail = grown;
		d->tail_size = size;
	}
	memcpy(d->tail + d->tail_len, data, n);
	d->tail_len += n;
	return 0;
}

static int stream_place(struct receiver *r, const struct wire_header *h, struct err *e)
{
	struct iovec iov = {r->buf, h->length};
	struct dest *d = r->d;

	if (r->index)
		return err_set(e, ERR_PROTOCOL, "stream bytes on channel %u", r->index);
	if (h->flags & WIRE_FLAG_TAIL) {
		if (!r->ended || !d->blocks_known)
			return err_set(e, ERR_PROTOCOL, "device state before the end of the pages");
		if (wait_for_ends(d, e) < 0)
			return -1;
		if (d->opt.hold_tail)
			return tail_keep(d, r->buf, h->length, e);
	} else if (setup_parse(d, r->buf, h->length, e) < 0) {
		return -1;
	}
	if (qemu_write(d, &iov, 1, e) < 0)
		return -1;
	if (d->setup_whole && !d->blocks_known)
		blocks_publish(d);
	return 0;
}

int dest_release_tail(struct dest *d, struct err *e)
{
	struct iovec iov = {d->tail, d->tail_len};

	return qemu_write(d, &iov, 1, e);
}

/* ---- pages ---- */

/* The block that a frame names, once the list is known; NULL with @e. */
static struct dest_block *block_of(struct receiver *r, const struct wire_header *h, struct err *e)
{
	struct dest *d = r->d;
	bool known;

	pthread_mutex_lock(&d->lock);
	while (!d->blocks_known && !d->abort && r->index)
		pthread_cond_wait(&d->change, &d->lock);
	known = d->blocks_known;
	pthread_mutex_unlock(&d->lock);
	if (!known || h->block >= d->n_blocks) {
		err_set(e, ERR_PROTOCOL, "pages of RAM block %u, which the guest does not have", h->block);
		return NULL;
	}
	return &d->blocks[h->block];
}

static int run_check(struct receiver *r, const struct dest_block *b, uint64_t page, uint64_t count, struct err *e)
{
	if (page >= b->pages || count > b->pages - page)
		return err_set(e, ERR_PROTOCOL, "page %llu is outside its RAM block", (unsigned long long)page);
	for (uint64_t p = page; p < page + count; p = (p / WIRE_REGION_PAGES + 1) * WIRE_REGION_PAGES)
		if (wire_channel_of(p, r->d->opt.channels) != r->index)
			return err_set(e, ERR_PROTOCOL, "page %llu came on channel %u, which is not its own",
				       (unsigned long long)p, r->index);
	return 0;
}

static void filled_set(struct dest_block *b, uint64_t page, uint64_t count)
{
	for (uint64_t p = page; p < page + count; p++)
		b->filled[p / 64] |= 1ULL << (p % 64);
}

/* Read the pages of a frame straight into guest memory. */
static int pages_place(struct receiver *r, const struct wire_header *h, const uint8_t *index, struct dest_block *b,
		       struct err *e)
{
	XXH3_64bits_reset(r->sum);
	for (uint32_t i = 0; i < h->runs; i++) {
		struct wire_run run = wire_decode_run(index + i * WIRE_RUN_SIZE);
		uint64_t page = h->base + run.first;
		size_t n = (size_t)run.count * STREAM_PAGE_SIZE;
		uint8_t *at;

		if (run_check(r, b, page, run.count, e) < 0)
			return -1;
		at = b->mem + page * STREAM_PAGE_SIZE;
		/* Ahead of the background: one call instead of a fault per page. */
		if (!mapping_prefault_done(b->mapping) && !(b->filled[page / 64] >> (page % 64) & 1))
			madvise(at, n, MADV_POPULATE_WRITE);
		if (conn_read_full(r->conn, at, n, SOCK_FOREVER, e) < 0)
			return -1;
		filled_set(b, page, run.count);
		if (h->flags & WIRE_FLAG_SUM)
			XXH3_64bits_update(r->sum, at, n);
	}
	if (h->flags & WIRE_FLAG_SUM && XXH3_64bits_digest(r->sum) != h->sum)
		return err_set(e, ERR_PROTOCOL, "pages were damaged on the way (their sum does not fit)");
	return 0;
}

static bool any_filled(const struct dest_block *b, uint64_t page, uint64_t count)
{
	for (uint64_t p = page; p < page + count; p++)
		if (b->filled[p / 64] >> (p % 64) & 1)
			return true;
	return false;
}

static void zeros_place(struct dest_block *b, uint64_t page, uint64_t count)
{
	if (!any_filled(b, page, count)) {
		/* Nothing to do but to give back what QEMU populated only because it populates everything. */
		if (b->mapping->preallocated && count >= GIVE_BACK_PAGES)
			fallocate(b->mapping->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  (off_t)(page * STREAM_PAGE_SIZE), (off_t)(count * STREAM_PAGE_SIZE));
		return;
	}
	for (uint64_t p = page; p < page + count; p++)
		if (b->filled[p / 64] >> (p % 64) & 1) {
			memset(b->mem + p * STREAM_PAGE_SIZE, 0, STREAM_PAGE_SIZE);
			b->filled[p / 64] &= ~(1ULL << (p % 64));
		}
}

/* Write one frame's pages into QEMU's stream: a PART section of their own. */
static int section_write(struct receiver *r, const struct wire_header *h, const uint8_t *index, struct err *e)
{
	uint8_t head[5] = {0x02}, tail[8 + 5] = {0};
	struct iovec iov[2 * WIRE_PAGES_MAX + 2];
	struct dest *d = r->d;
	const uint8_t *data = r->buf;
	uint8_t *out = r->out;
	int n = 0, result = 0;

	put_be32(head + 1, d->ram_section);
	put_be64(tail, 0x10); /* EOS */
	tail[8] = 0x7e;
	put_be32(tail + 9, d->ram_section);
	pthread_mutex_lock(&d->stream_lock);
	iov[n++] = (struct iovec){head, sizeof(head)};
	for (uint32_t i = 0; i < h->runs && result == 0; i++) {
		struct wire_run run = wire_decode_run(index + i * WIRE_RUN_SIZE);

		for (uint32_t p = 0; p < run.count && result == 0; p++) {
			size_t len = stream_encode_page(&d->encoder, h->block, h->base + run.first + p,
							h->type == WIRE_ZEROS, out);

			iov[n++] = (struct iovec){out, len};
			out += len;
			if (h->type == WIRE_PAGES) {
				iov[n++] = (struct iovec){(void *)data, STREAM_PAGE_SIZE};
				data += STREAM_PAGE_SIZE;
			}
			/* Zero frames may hold more records than fit here at once. */
			if (n >= (int)ARRAY_SIZE(iov) - 2) {
				result = sock_writev_full(d->opt.qemu_fd, iov, n, SOCK_FOREVER, e);
				out = r->out;
				n = 0;
			}
		}
	}
	iov[n++] = (struct iovec){tail, sizeof(tail)};
	if (result == 0)
		result = sock_writev_full(d->opt.qemu_fd, iov, n, SOCK_FOREVER, e);
	pthread_mutex_unlock(&d->stream_lock);
	return result < 0 ? err_wrap(e, "the destination's QEMU stopped reading its stream") : 0;
}

static int pages_frame(struct receiver *r, const struct wire_header *h, const uint8_t *index, uint64_t pages,
		       struct err *e)
{
	struct dest_block *b = block_of(r, h, e);
	struct dest *d = r->d;

	if (!b)
		return -1;
	if (h->type == WIRE_PAGES)
		d->pages += pages;
	else
		d->zero_pages += pages;
	if (b->mem && h->type == WIRE_PAGES)
		return pages_place(r, h, index, b, e);
	for (uint32_t i = 0; i < h->runs; i++) {
		struct wire_run run = wire_decode_run(index + i * WIRE_RUN_SIZE);

		if (run_check(r, b, h->base + run.first, run.count, e) < 0)
			return -1;
		if (b->mem)
			zeros_place(b, h->base + run.first, run.count);
	}
	if (b->mem)
		return 0;
	if (conn_read_full(r->conn, r->buf, h->length, SOCK_FOREVER, e) < 0)
		return -1;
	if (h->flags & WIRE_FLAG_SUM && h->length && wire_sum(r->buf, h->length) != h->sum)
		return err_set(e, ERR_PROTOCOL, "pages were damaged on the way (their sum does not fit)");
	return section_write(r, h, index, e);
}

/* ---- receivers ---- */

static void channel_ended(struct receiver *r)
{
	struct dest *d = r->d;

	r->ended = true;
	pthread_mutex_lock(&d->lock);
	if (++d->ended == d->opt.channels)
		d->drained_ns = clock_now_ns();
	pthread_cond_broadcast(&d->change);
	pthread_mutex_unlock(&d->lock);
}

/* One frame. 0 go on, 1 this channel has nothing more, -1. */
static int frame_take(struct receiver *r, struct err *e)
{
	uint8_t header[WIRE_HEADER_SIZE], index[WIRE_INDEX_MAX];
	struct dest *d = r->d;
	struct wire_header h;
	uint64_t pages;

	if (conn_read_full(r->conn, header, sizeof(header), SOCK_FOREVER, e) < 0 ||
	    wire_decode_header(header, &h, e) < 0 ||
	    conn_read_full(r->conn, index, h.runs * WIRE_RUN_SIZE, SOCK_FOREVER, e) < 0 ||
	    wire_check_index(header, &h, index, &pages, e) < 0)
		return -1;
	d->wire_bytes += WIRE_HEADER_SIZE + h.runs * WIRE_RUN_SIZE + h.length;
	if (r->ended && (h.type == WIRE_PAGES || h.type == WIRE_ZEROS || h.type == WIRE_END))
		return err_set(e, ERR_PROTOCOL, "a %s frame after the end of its channel", wire_type_name(h.type));
	switch (h.type) {
	case WIRE_PAGES:
	case WIRE_ZEROS:
		return pages_frame(r, &h, index, pages, e);
	case WIRE_END:
		channel_ended(r);
		return r->index ? 1 : 0;
	case WIRE_STREAM:
		if (conn_read_full(r->conn, r->buf, h.length, SOCK_FOREVER, e) < 0)
			return -1;
		if (h.flags & WIRE_FLAG_SUM && wire_sum(r->buf, h.length) != h.sum)
			return err_set(e, ERR_PROTOCOL, "the stream was damaged on the way (its sum does not fit)");
		return stream_place(r, &h, e);
	case WIRE_FILE_TAIL:
		if (!d->opt.hold_tail || !r->ended)
			break;
		d->file_end = true;
		wake_main(d);
		return 1;
	default:
		break;
	}
	return err_set(e, ERR_PROTOCOL, "a %s frame on data channel %u", wire_type_name(h.type), r->index);
}

static void *receiver_run(void *arg)
{
	struct receiver *r = arg;
	struct err e = ERR_INIT;
	int more;

	do
		more = frame_take(r, &e);
	while (more == 0);
	/* Channel 0 stays open after the device state until the source closes it: that is no failure any more. */
	if (more < 0 && !r->d->abort) {
		err_wrap(&e, "channel %u", r->index);
		dest_fail(r->d, &e);
	}
	return NULL;
}

struct dest *dest_start(const struct dest_options *opt, struct conn *conns)
{
	struct stream_options so = {.section_footers = true};
	struct dest *d = xcalloc(1, sizeof(*d));

	d->opt = *opt;
	d->parser = stream_parser_new(&so);
	d->setup = xcalloc(1, STREAM_RECORD_MAX);
	pthread_mutex_init(&d->lock, NULL);
	pthread_mutex_init(&d->stream_lock, NULL);
	pthread_cond_init(&d->change, NULL);
	for (unsigned i = 0; i < opt->channels; i++) {
		struct receiver *r = &d->receivers[i];

		r->d = d;
		r->index = i;
		r->conn = &conns[i];
		r->buf = xcalloc(1, WIRE_DATA_MAX);
		r->out = xcalloc(2 * WIRE_PAGES_MAX + 2, STREAM_PAGE_HEADER_MAX);
		r->sum = XXH3_createState();
	}
	for (unsigned i = 0; i < opt->channels; i++)
		pthread_create(&d->receivers[i].thread, NULL, receiver_run, &d->receivers[i]);
	return d;
}

void dest_get_state(struct dest *d, struct dest_state *ret)
{
	pthread_mutex_lock(&d->lock);
	*ret = (struct dest_state){
		.pages = d->pages,
		.zero_pages = d->zero_pages,
		.wire_bytes = d->wire_bytes,
		.drained_ns = d->drained_ns,
		.failed = d->error.code != ERR_NONE,
		.file_end = d->file_end,
	};
	pthread_mutex_unlock(&d->lock);
}

void dest_get_error(struct dest *d, struct err *ret)
{
	pthread_mutex_lock(&d->lock);
	*ret = d->error;
	pthread_mutex_unlock(&d->lock);
}

void dest_abort(struct dest *d)
{
	stop_all(d);
}

void dest_join(struct dest *d)
{
	if (!d)
		return;
	stop_all(d);
	for (unsigned i = 0; i < d->opt.channels; i++) {
		struct receiver *r = &d->receivers[i];

		pthread_join(r->thread, NULL);
		free(r->buf);
		free(r->out);
		XXH3_freeState(r->sum);
	}
	for (size_t i = 0; i < d->n_blocks; i++)
		if (d->blocks[i].filled)
			munmap(d->blocks[i].filled, d->blocks[i].bitmap_size);
	stream_parser_free(d->parser);
	free(d->setup);
	free(d->tail);
	pthread_mutex_destroy(&d->lock);
	pthread_mutex_destroy(&d->stream_lock);
	pthread_cond_destroy(&d->change);
	free(d);
}
