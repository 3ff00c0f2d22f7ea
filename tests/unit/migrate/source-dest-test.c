/* SPDX-License-Identifier: Apache-2.0 */
/* The two data paths back to back: QEMU's stream in at the source, guest memory and QEMU's stream out at the
 * destination; and the destination alone against frames that no source sends. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/byteorder.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/tls.h"
#include "hv/stream.h"
#include "migrate/dest.h"
#include "migrate/source.h"
#include "tests/unit/base/certs.h"

#define PATIENCE (20 * NS_PER_S)
#define STREAM_MAX (32U << 20)
#define RAM "ram0"
#define ROM "pc.bios"
#define RAM_PAGES 8192U /* 32 MiB: sixteen regions */
#define ROM_PAGES 16U
#define DEVICE_STATE "\4device state of a guest, opaque to the engine, up to its end"

/* ---- a QEMU stream in the making ---- */

struct bytes {
	uint8_t *at;
	size_t n;
};

static void bytes_init(struct bytes *b)
{
	*b = (struct bytes){.at = malloc(STREAM_MAX)};
	assert_non_null(b->at);
}

static void bytes_done(struct bytes *b)
{
	free(b->at);
}
#define _bytes_ __attribute__((cleanup(bytes_done))) struct bytes

static void put(struct bytes *b, const void *data, size_t n)
{
	assert_true(b->n + n <= STREAM_MAX);
	memcpy(b->at + b->n, data, n);
	b->n += n;
}

static void put8(struct bytes *b, uint8_t v)
{
	put(b, &v, 1);
}

static void put64(struct bytes *b, uint64_t v)
{
	v = htobe64(v);
	put(b, &v, 8);
}

static void put_name(struct bytes *b, const char *name)
{
	put8(b, (uint8_t)strlen(name));
	put(b, name, strlen(name));
}

static void put_record(struct bytes *b, const char *block, uint64_t page, uint64_t flags)
{
	put64(b, page * STREAM_PAGE_SIZE | flags);
	put_name(b, block);
}

/* What a page holds: it says where it belongs and which version it is. */
static void page_fill(uint8_t *out, uint64_t page, unsigned version)
{
	for (size_t i = 0; i < STREAM_PAGE_SIZE; i += 16) {
		put_be64(out + i, page << 16 | version);
		put_be64(out + i + 8, i * 0x9e3779b97f4a7c15 + page + version);
	}
}

static void put_page(struct bytes *b, const char *block, uint64_t page, unsigned version)
{
	put_record(b, block, page, 0x08);
	page_fill(b->at + b->n, page, version);
	b->n += STREAM_PAGE_SIZE;
}

static void put_zero(struct bytes *b, const char *block, uint64_t page)
{
	put_record(b, block, page, 0x02);
	put8(b, 0);
}

/* Header, and RAM's START section with two blocks. */
static void put_setup(struct bytes *b)
{
	put(b, "QEVM\0\0\0\3\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4", 25);
	put64(b, (RAM_PAGES + ROM_PAGES) * STREAM_PAGE_SIZE | 0x04);
	put_name(b, RAM);
	put64(b, RAM_PAGES * STREAM_PAGE_SIZE);
	put_name(b, ROM);
	put64(b, ROM_PAGES * STREAM_PAGE_SIZE);
	put64(b, 0x10);
	put(b, "\x7e\0\0\0\2", 5);
}

static void put_section(struct bytes *b, uint8_t kind)
{
	put8(b, kind);
	put(b, "\0\0\0\2", 4);
}

static void put_section_end(struct bytes *b)
{
	put64(b, 0x10);
	put(b, "\x7e\0\0\0\2", 5);
}

static void put_end(struct bytes *b)
{
	put_section(b, 3);
	put_section_end(b);
	put(b, DEVICE_STATE, sizeof(DEVICE_STATE) - 1);
}

/* ---- what a stream says about memory ---- */

#define BLOCKS 16

/* The newest bytes of every page of a stream; one zero byte stands for a zero page. */
struct image {
	size_t n_blocks;
	struct stream_block blocks[BLOCKS];
	uint8_t *mem[BLOCKS];
	uint8_t *named[BLOCKS]; /* per page: 1 the stream has it */
	struct bytes device;
	unsigned pages, zeros;
};

static void image_done(struct image *m)
{
	for (size_t i = 0; i < m->n_blocks; i++) {
		munmap(m->mem[i], m->blocks[i].used_length);
		free(m->named[i]);
	}
	bytes_done(&m->device);
}
#define _image_ __attribute__((cleanup(image_done))) struct image

static void image_blocks(struct image *m, struct stream_parser *p)
{
	const struct stream_block *list = stream_parser_blocks(p, &m->n_blocks);

	assert_in_range(m->n_blocks, 1, BLOCKS);
	for (size_t i = 0; i < m->n_blocks; i++) {
		m->blocks[i] = list[i];
		m->mem[i] = mmap(NULL, list[i].used_length, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		assert_ptr_not_equal(m->mem[i], MAP_FAILED);
		m->named[i] = xcalloc(list[i].used_length / STREAM_PAGE_SIZE, 1);
	}
}

static void image_page(struct image *m, const struct stream_item *item)
{
	uint8_t *at = m->mem[item->block] + item->page * STREAM_PAGE_SIZE;

	m->named[item->block][item->page] = 1;
	if (item->type == STREAM_ITEM_ZERO)
		memset(at, 0, STREAM_PAGE_SIZE);
	else
		memcpy(at, item->data, STREAM_PAGE_SIZE);
	m->pages += item->type == STREAM_ITEM_PAGE;
	m->zeros += item->type == STREAM_ITEM_ZERO;
}

/* Read a whole stream; everything behind RAM's end is device state. */
static void image_read(struct image *m, const struct bytes *b)
{
	struct stream_options so = {.section_footers = true};
	struct stream_parser *p = stream_parser_new(&so);
	struct stream_item item;
	struct err e = ERR_INIT;

	*m = (struct image){0};
	bytes_init(&m->device);
	stream_parser_feed(p, b->at, b->n);
	do {
		if (stream_parser_next(p, &item, &e) < 0)
			fail_msg("%s", e.text);
		if (item.type == STREAM_ITEM_BLOCKS)
			image_blocks(m, p);
		if (item.type == STREAM_ITEM_PAGE || item.type == STREAM_ITEM_ZERO)
			image_page(m, &item);
	} while (item.type != STREAM_ITEM_NONE && item.type != STREAM_ITEM_RAM_END);
	assert_true(stream_parser_ram_ended(p));
	put(&m->device, b->at + stream_parser_consumed(p), b->n - stream_parser_consumed(p));
	stream_parser_free(p);
}

/* ---- the rig: fake QEMU, source, channels, destination, fake QEMU ---- */

struct rig_options {
	bool src_mapped, dst_mapped, tls;
	unsigned channels;
};

struct rig {
	struct rig_options o;
	int src_qemu[2], dst_qemu[2]; /* ours, the engine's */
	int pairs[WIRE_CHANNELS_MAX][2];
	struct conn src_conns[WIRE_CHANNELS_MAX], dst_conns[WIRE_CHANNELS_MAX];
	struct mappings src_maps, dst_maps;
	int src_wake, dst_wake;
	struct source *source;
	struct dest *dest;
	pthread_t reader;
	pthread_mutex_t lock;
	struct bytes out; /* what the destination's QEMU was given; under lock */
};

static char certs_dir[] = "/tmp/godwit-source-dest-test.XXXXXX";
static struct tls_ctx *tls;

static int64_t soon(void)
{
	return clock_now_ns() + PATIENCE;
}

static void *reader_run(void *arg)
{
	struct rig *r = arg;
	uint8_t buf[65536];
	ssize_t n;

	while ((n = read(r->dst_qemu[0], buf, sizeof(buf))) > 0) {
		pthread_mutex_lock(&r->lock);
		put(&r->out, buf, (size_t)n);
		pthread_mutex_unlock(&r->lock);
	}
	return NULL;
}

static size_t out_size(struct rig *r)
{
	size_t n;

	pthread_mutex_lock(&r->lock);
	n = r->out.n;
	pthread_mutex_unlock(&r->lock);
	return n;
}

/* A memory file as a guest's RAM. */
static void map_ram(struct mappings *m, const char *name, uint64_t size)
{
	struct mapping *map = &m->list[m->n++];

	*map = (struct mapping){.size = size, .fd = memfd_create("test-ram", MFD_CLOEXEC)};
	snprintf(map->name, sizeof(map->name), "%s", name);
	assert_int_equal(ftruncate(map->fd, (off_t)size), 0);
	map->mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, map->fd, 0);
	assert_ptr_not_equal(map->mem, MAP_FAILED);
}

struct tls_half {
	int fd;
	struct tls *ret;
};

static void *tls_half_run(void *arg)
{
	struct tls_half *h = arg;

	tls_accept(tls, h->fd, soon(), &h->ret, NULL);
	return NULL;
}

static void channels_init(struct rig *r)
{
	for (unsigned i = 0; i < r->o.channels; i++) {
		struct tls_half half;
		pthread_t thread;
		struct err e = ERR_INIT;

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, r->pairs[i]), 0);
		r->src_conns[i] = r->dst_conns[i] = CONN_INIT;
		r->src_conns[i].fd = r->pairs[i][0];
		r->dst_conns[i].fd = r->pairs[i][1];
		if (!r->o.tls)
			continue;
		half = (struct tls_half){.fd = r->pairs[i][1]};
		pthread_create(&thread, NULL, tls_half_run, &half);
		if (tls_connect(tls, r->pairs[i][0], "dst.example", soon(), &r->src_conns[i].tls, &e) < 0)
			fail_msg("%s", e.text);
		pthread_join(thread, NULL);
		r->dst_conns[i].tls = half.ret;
		assert_non_null(half.ret);
	}
}

/* Everything but the source: the destination stands and waits for frames. */
static void rig_init(struct rig *r, struct rig_options o, const char *ram, uint64_t size)
{
	struct dest_options d = {.channels = o.channels};

	*r = (struct rig){.o = o};
	pthread_mutex_init(&r->lock, NULL);
	bytes_init(&r->out);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, r->src_qemu), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, r->dst_qemu), 0);
	r->src_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->dst_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (o.src_mapped)
		map_ram(&r->src_maps, ram, size);
	if (o.dst_mapped)
		map_ram(&r->dst_maps, ram, size);
	channels_init(r);
	d.mappings = &r->dst_maps;
	d.qemu_fd = r->dst_qemu[1];
	d.wake_fd = r->dst_wake;
	r->dest = dest_start(&d, r->dst_conns);
	pthread_create(&r->reader, NULL, reader_run, r);
}

static void rig_source(struct rig *r)
{
	struct source_options s = {
		.channels = r->o.channels, .mappings = &r->src_maps, .qemu_fd = r->src_qemu[1], .wake_fd = r->src_wake};

	r->source = source_start(&s, r->src_conns);
}

static void rig_done(struct rig *r)
{
	source_join(r->source);
	dest_join(r->dest);
	pthread_join(r->reader, NULL);
	for (unsigned i = 0; i < r->o.channels; i++) {
		conn_abort(&r->src_conns[i]);
		conn_abort(&r->dst_conns[i]);
	}
	for (int i = 0; i < 2; i++) {
		close(r->src_qemu[i]);
		close(r->dst_qemu[i]);
	}
	close(r->src_wake);
	close(r->dst_wake);
	mappings_done(&r->src_maps);
	mappings_done(&r->dst_maps);
	bytes_done(&r->out);
	pthread_mutex_destroy(&r->lock);
}

static void rig_feed(struct rig *r, const struct bytes *b, size_t from, size_t n)
{
	struct err e = ERR_INIT;

	if (sock_write_full(r->src_qemu[0], b->at + from, n, soon(), &e) < 0)
		fail_msg("feed the source: %s", e.text);
}

/* Wait until the destination's QEMU has the @device state that ends the stream. */
static void rig_wait(struct rig *r, const struct bytes *device)
{
	int64_t deadline = soon();

	for (;;) {
		struct dest_state d;
		struct source_state s;
		struct err e = ERR_INIT;
		bool done;

		pthread_mutex_lock(&r->lock);
		done = r->out.n >= device->n && memcmp(r->out.at + r->out.n - device->n, device->at, device->n) == 0;
		pthread_mutex_unlock(&r->lock);
		if (done)
			return;
		dest_get_state(r->dest, &d);
		source_get_state(r->source, &s);
		if (d.failed)
			dest_get_error(r->dest, &e);
		else if (s.failed)
			source_get_error(r->source, &e);
		else if (clock_now_ns() > deadline)
			err_set(&e, ERR_TIMEOUT, "the device state does not arrive");
		if (e.code)
			fail_msg("%s", e.text);
		usleep(2000);
	}
}

/* The guest's memory at the source as it is in the end, for what is read late. */
static void src_memory(struct rig *r, const struct image *want)
{
	for (size_t i = 0; i < want->n_blocks && r->src_maps.n; i++)
		if (!strcmp(want->blocks[i].name, r->src_maps.list[0].name))
			memcpy(r->src_maps.list[0].mem, want->mem[i], want->blocks[i].used_length);
}

/* Every page of @want is in the destination: placed in memory, or in its QEMU's stream. */
static void check_arrived(struct rig *r, const struct image *want)
{
	_image_ got;

	pthread_mutex_lock(&r->lock);
	image_read(&got, &r->out);
	pthread_mutex_unlock(&r->lock);
	assert_int_equal(got.n_blocks, want->n_blocks);
	assert_int_equal(got.device.n, want->device.n);
	assert_memory_equal(got.device.at, want->device.at, want->device.n);
	for (size_t i = 0; i < want->n_blocks; i++) {
		struct mapping *m = mappings_get(&r->dst_maps, want->blocks[i].name);

		assert_string_equal(got.blocks[i].name, want->blocks[i].name);
		for (uint64_t p = 0; p < want->blocks[i].used_length / STREAM_PAGE_SIZE; p++) {
			const uint8_t *at = (m ? m->mem : got.mem[i]) + p * STREAM_PAGE_SIZE;

			if (m && got.named[i][p])
				fail_msg("page %llu of %s went through QEMU", (unsigned long long)p, m->name);
			if (!m && got.named[i][p] != want->named[i][p])
				fail_msg("page %llu of %s is missing or too much", (unsigned long long)p,
					 want->blocks[i].name);
			if (memcmp(at, want->mem[i] + p * STREAM_PAGE_SIZE, STREAM_PAGE_SIZE) != 0)
				fail_msg("page %llu of %s is not what it was", (unsigned long long)p,
					 want->blocks[i].name);
		}
	}
}

/* One whole move of @b. @o.channels and so on; the counters of the source in @ret (may be NULL). */
static void move(const struct bytes *b, struct rig_options o, const char *ram, struct source_state *ret)
{
	_image_ want;
	struct rig r;
	uint64_t size = 0;

	image_read(&want, b);
	for (size_t i = 0; i < want.n_blocks; i++)
		if (!strcmp(want.blocks[i].name, ram))
			size = want.blocks[i].used_length;
	rig_init(&r, o, ram, size);
	src_memory(&r, &want);
	rig_source(&r);
	rig_feed(&r, b, 0, b->n);
	rig_wait(&r, &want.device);
	check_arrived(&r, &want);
	if (ret)
		source_get_state(r.source, ret);
	rig_done(&r);
}

static const struct rig_options ways[] = {
	{.channels = 1},
	{.channels = 3},
	{.channels = 1, .dst_mapped = true},
	{.channels = 3, .dst_mapped = true},
	{.channels = 1, .src_mapped = true},
	{.channels = 3, .src_mapped = true},
	{.channels = 1, .src_mapped = true, .dst_mapped = true},
	{.channels = 3, .src_mapped = true, .dst_mapped = true},
	{.channels = 1, .tls = true},
	{.channels = 3, .tls = true, .src_mapped = true, .dst_mapped = true},
};

/* ---- whole moves ---- */

static void read_golden(const char *name, struct bytes *b)
{
	char path[256];
	_closefile_ FILE *f = NULL;

	snprintf(path, sizeof(path), "tests/golden/stream/%s.bin", name);
	f = fopen(path, "re");
	if (!f)
		fail_msg("%s: run the tests from the top of the tree", path);
	bytes_init(b);
	b->n = fread(b->at, 1, STREAM_MAX, f);
	assert_true(b->n > 0);
}

static void streams_of_real_qemu_arrive_in_every_way(void **state)
{
	static const struct {
		const char *name, *ram;
	} goldens[] = {{"i440fx", "pc.ram"},    {"i440fx-shared", "ram0"}, {"i440fx-uuid", "pc.ram"},
		       {"vga", "pc.ram"},       {"q35", "pc.ram"},         {"microvm", "microvm.ram"},
		       {"no-vmdesc", "pc.ram"}, {"running", "pc.ram"}};

	(void)state;
	for (size_t g = 0; g < ARRAY_SIZE(goldens); g++) {
		_bytes_ b;

		read_golden(goldens[g].name, &b);
		for (size_t w = 0; w < ARRAY_SIZE(ways); w++)
			move(&b, ways[w], goldens[g].ram, NULL);
	}
}

static void the_return_path_ends_at_the_source(void **state)
{
	static const uint8_t command[] = {0x08, 0, 1, 0, 0}; /* OPEN_RETURN_PATH */
	_image_ want;
	_bytes_ b;
	struct rig r;

	(void)state;
	read_golden("i440fx-return-path", &b);
	assert_non_null(memmem(b.at, b.n, command, sizeof(command)));
	image_read(&want, &b);
	rig_init(&r, ways[0], "pc.ram", 1 << 20);
	rig_source(&r);
	rig_feed(&r, &b, 0, b.n);
	rig_wait(&r, &want.device);
	pthread_mutex_lock(&r.lock);
	assert_null(memmem(r.out.at, r.out.n, command, sizeof(command)));
	pthread_mutex_unlock(&r.lock);
	check_arrived(&r, &want);
	rig_done(&r);
}

/* Three passes over all of memory: full, parts of it again, zeros among them. */
static void build_passes(struct bytes *b)
{
	bytes_init(b);
	put_setup(b);
	put_section(b, 2);
	for (uint64_t p = 0; p < RAM_PAGES; p++) {
		if (p % 7 < 4)
			put_zero(b, RAM, p);
		else if (p % 7 < 6)
			put_page(b, RAM, p, 1);
	}
	for (uint64_t p = 0; p < ROM_PAGES; p++)
		put_page(b, ROM, p, 1);
	put_section_end(b);
	for (unsigned version = 2; version < 4; version++) {
		put_section(b, 2);
		for (uint64_t p = version; p < RAM_PAGES; p += 5 * version) {
			if (p % 3)
				put_page(b, RAM, p, version);
			else
				put_zero(b, RAM, p);
		}
		put_page(b, ROM, version, version);
		put_section_end(b);
	}
	put_end(b);
}

static void several_passes_leave_the_newest_bytes(void **state)
{
	_bytes_ b;

	(void)state;
	build_passes(&b);
	for (size_t w = 0; w < ARRAY_SIZE(ways); w++)
		move(&b, ways[w], RAM, NULL);
}

static void a_page_that_comes_again_is_read_from_memory(void **state)
{
	_bytes_ b;
	_image_ want;
	struct rig r;
	uint8_t newest[STREAM_PAGE_SIZE];

	(void)state;
	bytes_init(&b);
	put_setup(&b);
	put_section(&b, 2);
	put_page(&b, RAM, 5, 1);
	put_page(&b, RAM, 6, 1);
	put_page(&b, RAM, 5, 2);
	put_section_end(&b);
	put_end(&b);
	image_read(&want, &b);
	rig_init(&r, ways[6], RAM, RAM_PAGES * STREAM_PAGE_SIZE);
	/* The guest has written since QEMU read the page: version 3 is what must arrive. */
	page_fill(newest, 5, 3);
	src_memory(&r, &want);
	memcpy(r.src_maps.list[0].mem + 5 * STREAM_PAGE_SIZE, newest, sizeof(newest));
	rig_source(&r);
	rig_feed(&r, &b, 0, b.n);
	rig_wait(&r, &want.device);
	assert_memory_equal(r.dst_maps.list[0].mem + 5 * STREAM_PAGE_SIZE, newest, sizeof(newest));
	assert_memory_equal(r.dst_maps.list[0].mem + 6 * STREAM_PAGE_SIZE, want.mem[0] + 6 * STREAM_PAGE_SIZE,
			    STREAM_PAGE_SIZE);
	rig_done(&r);
}

static void runs_of_zeros_cost_few_bytes(void **state)
{
	struct source_state st;
	_bytes_ b;

	(void)state;
	bytes_init(&b);
	put_setup(&b);
	put_section(&b, 2);
	for (uint64_t p = 0; p < RAM_PAGES; p++)
		put_zero(&b, RAM, p);
	put_section_end(&b);
	put_end(&b);
	/* 8192 zero pages: 262144 bytes of stream, and frames of a header and a run or so per chunk of it. */
	move(&b, ways[2], RAM, &st);
	assert_int_equal(st.zero_pages, RAM_PAGES);
	assert_int_equal(st.pages, 0);
	assert_in_range(st.wire_bytes, 1, 1024);
	move(&b, ways[3], RAM, &st);
	assert_in_range(st.wire_bytes, 1, 2048);
}

static uint64_t allocated(const struct mapping *m)
{
	struct stat st;

	assert_int_equal(fstat(m->fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void zero_pages_stay_holes_at_the_destination(void **state)
{
	_bytes_ b;
	_image_ want;
	struct rig r;

	(void)state;
	bytes_init(&b);
	put_setup(&b);
	put_section(&b, 2);
	for (uint64_t p = 0; p < RAM_PAGES; p++)
		if (p == 4711)
			put_page(&b, RAM, p, 1);
		else
			put_zero(&b, RAM, p);
	put_section_end(&b);
	put_end(&b);
	image_read(&want, &b);
	rig_init(&r, ways[3], RAM, RAM_PAGES * STREAM_PAGE_SIZE);
	rig_source(&r);
	rig_feed(&r, &b, 0, b.n);
	rig_wait(&r, &want.device);
	assert_int_equal(allocated(&r.dst_maps.list[0]), STREAM_PAGE_SIZE);
	check_arrived(&r, &want);
	rig_done(&r);
}

static void a_page_that_becomes_zero_is_cleared(void **state)
{
	_bytes_ b;
	_image_ want;
	struct rig r;

	(void)state;
	bytes_init(&b);
	put_setup(&b);
	put_section(&b, 2);
	put_page(&b, RAM, 9, 1);
	put_section_end(&b);
	put_section(&b, 2);
	put_zero(&b, RAM, 9);
	put_zero(&b, RAM, 10);
	put_section_end(&b);
	put_end(&b);
	image_read(&want, &b);
	rig_init(&r, ways[2], RAM, RAM_PAGES * STREAM_PAGE_SIZE);
	/* Page 10 holds what somebody left there: that it is zero must be made true, not assumed. */
	memset(r.dst_maps.list[0].mem + 10 * STREAM_PAGE_SIZE, 0x5a, STREAM_PAGE_SIZE);
	rig_source(&r);
	rig_feed(&r, &b, 0, b.n);
	rig_wait(&r, &want.device);
	check_arrived(&r, &want);
	rig_done(&r);
}

static void source_error(struct rig *r, struct err *e)
{
	int64_t deadline = soon();
	struct source_state st;

	do {
		usleep(1000);
		source_get_state(r->source, &st);
	} while (!st.failed && clock_now_ns() < deadline);
	*e = ERR_INIT;
	source_get_error(r->source, e);
}

static void a_stream_that_ends_early_fails_the_source(void **state)
{
	struct rig r;
	struct err e;
	_bytes_ b;

	(void)state;
	bytes_init(&b);
	put_setup(&b);
	put_section(&b, 2);
	put_page(&b, RAM, 1, 1);
	rig_init(&r, ways[1], RAM, 0);
	rig_source(&r);
	rig_feed(&r, &b, 0, b.n - 100);
	shutdown(r.src_qemu[0], SHUT_WR);
	source_error(&r, &e);
	assert_int_equal(e.code, ERR_QMP);
	assert_non_null(strstr(e.text, "ended its migration stream"));
	rig_done(&r);
}

static void a_stream_that_is_none_fails_the_source(void **state)
{
	struct rig r;
	struct err e;
	_bytes_ b;

	(void)state;
	bytes_init(&b);
	put(&b, "this is not QEMU", 16);
	rig_init(&r, ways[0], RAM, 0);
	rig_source(&r);
	rig_feed(&r, &b, 0, b.n);
	source_error(&r, &e);
	assert_int_equal(e.code, ERR_PROTOCOL);
	rig_done(&r);
}

static void a_destination_that_is_cut_off_fails_the_source(void **state)
{
	struct rig r;
	struct err e;
	_bytes_ b;

	(void)state;
	build_passes(&b);
	rig_init(&r, ways[1], RAM, 0);
	dest_abort(r.dest);
	rig_source(&r);
	/* The source stops reading when it fails: the rest of the stream has nowhere to go. */
	sock_write_full(r.src_qemu[0], b.at, b.n, soon(), NULL);
	source_error(&r, &e);
	assert_int_not_equal(e.code, ERR_NONE);
	assert_non_null(strstr(e.text, "to the destination"));
	rig_done(&r);
}

static void an_aborted_source_lets_go_of_qemu(void **state)
{
	struct rig r;
	uint8_t byte;
	_bytes_ b;

	(void)state;
	build_passes(&b);
	rig_init(&r, ways[8], RAM, 0);
	rig_source(&r);
	rig_feed(&r, &b, 0, 4096);
	source_abort(r.source);
	source_abort(r.source);
	/* QEMU sees the end of its return path: that is how it learns that it must let the guest run on. */
	assert_int_equal(sock_wait(r.src_qemu[0], POLLIN, soon(), NULL), 1);
	assert_int_equal(read(r.src_qemu[0], &byte, 1), 0);
	rig_done(&r);
}

/* ---- the destination alone ---- */

/* Send one frame to channel @c as a source would; @flip: change a bit of the data after the sum was made. */
static void frame(struct rig *r, unsigned c, struct wire_header h, struct wire_run run, const void *data, bool flip)
{
	uint8_t head[WIRE_HEADER_SIZE + WIRE_RUN_SIZE];
	_free_ uint8_t *copy = xcalloc(1, h.length + 1);

	if (h.length)
		memcpy(copy, data, h.length);
	h.flags |= WIRE_FLAG_SUM;
	h.sum = wire_sum(copy, h.length);
	copy[h.length / 2] ^= flip ? 0x10 : 0;
	wire_encode_run(head + WIRE_HEADER_SIZE, run);
	wire_encode_header(head, &h, head + WIRE_HEADER_SIZE);
	sock_write_full(r->pairs[c][0], head, WIRE_HEADER_SIZE + h.runs * WIRE_RUN_SIZE, soon(), NULL);
	sock_write_full(r->pairs[c][0], copy, h.length, soon(), NULL);
}

static void frame_stream(struct rig *r, unsigned c, uint8_t flags, const void *data, size_t n)
{
	frame(r, c, (struct wire_header){.type = WIRE_STREAM, .flags = flags, .length = (uint32_t)n},
	      (struct wire_run){0, 0}, data, false);
}

static void frame_setup(struct rig *r)
{
	_bytes_ b;

	bytes_init(&b);
	put_setup(&b);
	frame_stream(r, 0, 0, b.at, b.n);
}

static void frame_page(struct rig *r, unsigned c, uint16_t block, uint64_t page, bool flip)
{
	uint8_t data[STREAM_PAGE_SIZE];

	page_fill(data, page, 1);
	frame(r, c, (struct wire_header){.type = WIRE_PAGES, .block = block, .runs = 1, .length = 4096, .base = page},
	      (struct wire_run){0, 1}, data, flip);
}

static void frame_zeros(struct rig *r, unsigned c, uint16_t block, uint64_t page, uint16_t count)
{
	frame(r, c, (struct wire_header){.type = WIRE_ZEROS, .block = block, .runs = 1, .base = page},
	      (struct wire_run){0, count}, NULL, false);
}

static void frame_end(struct rig *r, unsigned c)
{
	frame(r, c, (struct wire_header){.type = WIRE_END}, (struct wire_run){0, 0}, NULL, false);
}

static void dest_error(struct rig *r, struct err *e)
{
	int64_t deadline = soon();
	struct dest_state st;

	do {
		usleep(1000);
		dest_get_state(r->dest, &st);
	} while (!st.failed && clock_now_ns() < deadline);
	*e = ERR_INIT;
	dest_get_error(r->dest, e);
}

static void device_state_waits_for_the_end_of_every_channel(void **state)
{
	static const char device[] = "\3device state";
	uint64_t before;
	struct rig r;

	(void)state;
	rig_init(&r, ways[1], RAM, 0);
	frame_setup(&r);
	frame_page(&r, 0, 0, 0, false);
	frame_end(&r, 0);
	frame_stream(&r, 0, WIRE_FLAG_TAIL, device, sizeof(device));
	frame_end(&r, 2);
	usleep(100000);
	before = out_size(&r);
	/* Channel 1 is late: its page must be in front of the device state. */
	frame_page(&r, 1, 0, WIRE_REGION_PAGES, false);
	usleep(100000);
	pthread_mutex_lock(&r.lock);
	assert_null(memmem(r.out.at, r.out.n, device, sizeof(device)));
	assert_true(r.out.n > before);
	pthread_mutex_unlock(&r.lock);
	frame_end(&r, 1);
	for (int64_t deadline = soon(); clock_now_ns() < deadline; usleep(1000)) {
		pthread_mutex_lock(&r.lock);
		before = r.out.n >= sizeof(device) &&
			 !memcmp(r.out.at + r.out.n - sizeof(device), device, sizeof(device));
		pthread_mutex_unlock(&r.lock);
		if (before)
			break;
	}
	assert_int_equal(before, 1);
	rig_done(&r);
}

/* A channel that is faster than channel 0 must not write pages into the middle of the stream's setup. */
static void pages_wait_until_the_setup_is_whole(void **state)
{
	struct rig r;
	_bytes_ b;

	(void)state;
	bytes_init(&b);
	put_setup(&b);
	rig_init(&r, ways[1], RAM, 0);
	frame_page(&r, 1, 0, WIRE_REGION_PAGES, false);
	/* Everything but the record and the footer that end RAM's START section: QEMU is in the middle of it. */
	frame_stream(&r, 0, 0, b.at, b.n - 13);
	usleep(100000);
	assert_int_equal(out_size(&r), b.n - 13);
	frame_stream(&r, 0, 0, b.at + b.n - 13, 8);
	usleep(20000);
	assert_int_equal(out_size(&r), b.n - 5);
	frame_stream(&r, 0, 0, b.at + b.n - 5, 5);
	for (int64_t deadline = soon(); out_size(&r) <= b.n && clock_now_ns() < deadline;)
		usleep(1000);
	assert_true(out_size(&r) > b.n);
	pthread_mutex_lock(&r.lock);
	assert_memory_equal(r.out.at, b.at, b.n);
	pthread_mutex_unlock(&r.lock);
	rig_done(&r);
}

/* What a hostile or broken source sends, and a word of the refusal. */
static void bad_damaged_page(struct rig *r)
{
	frame_page(r, 0, 0, 3, true);
}

static void bad_damaged_stream(struct rig *r)
{
	frame(r, 0, (struct wire_header){.type = WIRE_STREAM, .length = 5}, (struct wire_run){0, 0}, "\x7e\0\0\0\2",
	      true);
}

static void bad_page_outside(struct rig *r)
{
	frame_page(r, 0, 1, ROM_PAGES, false);
}

static void bad_run_over_the_end(struct rig *r)
{
	frame_zeros(r, 0, 1, ROM_PAGES - 1, 2);
}

static void bad_page_far_outside(struct rig *r)
{
	frame_page(r, 0, 0, (UINT64_MAX >> 12) - WIRE_REACH, false);
}

static void bad_block(struct rig *r)
{
	frame_page(r, 0, 2, 0, false);
}

static void bad_block_highest(struct rig *r)
{
	frame_zeros(r, 0, 65535, 0, 1);
}

static void bad_channel(struct rig *r)
{
	frame_page(r, 1, 0, 0, false);
}

static void bad_run_into_the_next_region(struct rig *r)
{
	frame_zeros(r, 0, 0, WIRE_REGION_PAGES - 1, 2);
}

static void bad_stream_on_channel_1(struct rig *r)
{
	frame_stream(r, 1, 0, "x", 1);
}

static void bad_tail_before_end(struct rig *r)
{
	frame_stream(r, 0, WIRE_FLAG_TAIL, "x", 1);
}

static void bad_page_after_end(struct rig *r)
{
	frame_end(r, 0);
	frame_page(r, 0, 0, 0, false);
}

static void bad_second_end(struct rig *r)
{
	frame_end(r, 0);
	frame_end(r, 0);
}

static void bad_control_frame(struct rig *r)
{
	frame(r, 1, (struct wire_header){.type = WIRE_GO}, (struct wire_run){0, 0}, NULL, false);
}

static void bad_file_trailer(struct rig *r)
{
	frame(r, 0, (struct wire_header){.type = WIRE_FILE_TAIL}, (struct wire_run){0, 0}, NULL, false);
}

static void bad_cut_in_a_header(struct rig *r)
{
	sock_write_full(r->pairs[1][0], "\1\1\0\0\0", 5, soon(), NULL);
	shutdown(r->pairs[1][0], SHUT_WR);
}

static void bad_cut_between_frames(struct rig *r)
{
	shutdown(r->pairs[2][0], SHUT_WR);
}

static void bad_garbage(struct rig *r)
{
	static uint8_t noise[4096];

	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)(i * 73 + 11);
	sock_write_full(r->pairs[1][0], noise, sizeof(noise), soon(), NULL);
}

static const struct {
	const char *what;
	void (*send)(struct rig *r);
	const char *words;
} bads[] = {
	{"a damaged page", bad_damaged_page, "damaged"},
	{"damaged stream bytes", bad_damaged_stream, "damaged"},
	{"a page outside its block", bad_page_outside, "outside"},
	{"a run over the end of its block", bad_run_over_the_end, "outside"},
	{"a page far outside", bad_page_far_outside, "outside"},
	{"a block that is not there", bad_block, "RAM block 2"},
	{"the highest block number", bad_block_highest, "RAM block 65535"},
	{"a page on another channel", bad_channel, "channel 1, which is not its own"},
	{"a run into another channel's region", bad_run_into_the_next_region, "not its own"},
	{"stream bytes on channel 1", bad_stream_on_channel_1, "stream bytes on channel 1"},
	{"device state before the end", bad_tail_before_end, "before the end of the pages"},
	{"a page after the end", bad_page_after_end, "after the end"},
	{"a second end", bad_second_end, "after the end"},
	{"a control frame", bad_control_frame, "go frame on data channel 1"},
	{"a file's trailer", bad_file_trailer, "file trailer frame on data channel 0"},
	{"a cut in a header", bad_cut_in_a_header, "closed by the other side"},
	{"a cut between frames", bad_cut_between_frames, "closed by the other side"},
	{"garbage", bad_garbage, "channel 1"},
};

static void every_wrong_frame_ends_the_move_with_a_reason(void **state)
{
	(void)state;
	for (unsigned mapped = 0; mapped < 2; mapped++)
		for (size_t i = 0; i < ARRAY_SIZE(bads); i++) {
			struct rig r;
			struct err e;

			rig_init(&r, ways[mapped ? 3 : 1], RAM, RAM_PAGES * STREAM_PAGE_SIZE);
			frame_setup(&r);
			frame_page(&r, 0, 0, 1, false);
			bads[i].send(&r);
			dest_error(&r, &e);
			if (!strstr(e.text, bads[i].words))
				fail_msg("%s: \"%s\"", bads[i].what, e.text);
			rig_done(&r);
		}
}

static void a_setup_that_is_no_stream_ends_the_move(void **state)
{
	struct rig r;
	struct err e;

	(void)state;
	rig_init(&r, ways[1], RAM, 0);
	frame_stream(&r, 0, 0, "GET / HTTP/1.1\r\n", 16);
	dest_error(&r, &e);
	assert_int_equal(e.code, ERR_PROTOCOL);
	rig_done(&r);
}

static void a_setup_without_end_is_bounded(void **state)
{
	static const uint8_t head[] = {'Q', 'E', 'V', 'M', 0, 0, 0, 3, 7, 0, 2, 0, 0};
	_free_ uint8_t *name = xcalloc(1, WIRE_DATA_MAX);
	struct rig r;
	struct err e;

	(void)state;
	/* A configuration section that says it is 128 KiB long and then goes on for ever. */
	memcpy(name, head, sizeof(head));
	memset(name + sizeof(head), 'x', WIRE_DATA_MAX - sizeof(head));
	rig_init(&r, ways[1], RAM, 0);
	frame_stream(&r, 0, 0, name, WIRE_DATA_MAX);
	dest_error(&r, &e);
	assert_int_equal(e.code, ERR_PROTOCOL);
	rig_done(&r);
}

static void a_destination_whose_qemu_is_gone_fails(void **state)
{
	struct rig r;
	struct err e;

	(void)state;
	rig_init(&r, ways[1], RAM, 0);
	shutdown(r.dst_qemu[0], SHUT_RDWR);
	frame_setup(&r);
	dest_error(&r, &e);
	assert_non_null(strstr(e.text, "the destination's QEMU stopped reading"));
	rig_done(&r);
}

/* ---- */

static int make_certs(void **state)
{
	struct certs_ca ca;
	char path[256];
	struct err e = ERR_INIT;

	(void)state;
	if (!mkdtemp(certs_dir))
		return -1;
	certs_ca_init(&ca, "test CA");
	snprintf(path, sizeof(path), "%s/set", certs_dir);
	certs_write(path, &ca, &ca, "dst.example", 0);
	certs_ca_done(&ca);
	tls = tls_ctx_load(path, &e);
	if (!tls)
		fprintf(stderr, "%s\n", e.text);
	return tls ? 0 : -1;
}

static int remove_certs(void **state)
{
	static const char *const names[] = {"set/ca.pem", "set/cert.pem", "set/key.pem", "set", ""};
	char path[256];

	(void)state;
	tls_ctx_free(tls);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", certs_dir, names[i]);
		if (remove(path) < 0)
			return -1;
	}
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(streams_of_real_qemu_arrive_in_every_way),
		cmocka_unit_test(the_return_path_ends_at_the_source),
		cmocka_unit_test(several_passes_leave_the_newest_bytes),
		cmocka_unit_test(a_page_that_comes_again_is_read_from_memory),
		cmocka_unit_test(runs_of_zeros_cost_few_bytes),
		cmocka_unit_test(zero_pages_stay_holes_at_the_destination),
		cmocka_unit_test(a_page_that_becomes_zero_is_cleared),
		cmocka_unit_test(a_stream_that_ends_early_fails_the_source),
		cmocka_unit_test(a_stream_that_is_none_fails_the_source),
		cmocka_unit_test(a_destination_that_is_cut_off_fails_the_source),
		cmocka_unit_test(an_aborted_source_lets_go_of_qemu),
		cmocka_unit_test(device_state_waits_for_the_end_of_every_channel),
		cmocka_unit_test(pages_wait_until_the_setup_is_whole),
		cmocka_unit_test(every_wrong_frame_ends_the_move_with_a_reason),
		cmocka_unit_test(a_setup_that_is_no_stream_ends_the_move),
		cmocka_unit_test(a_setup_without_end_is_bounded),
		cmocka_unit_test(a_destination_whose_qemu_is_gone_fails),
	};

	return cmocka_run_group_tests_name("source and dest", tests, make_certs, remove_certs);
}
