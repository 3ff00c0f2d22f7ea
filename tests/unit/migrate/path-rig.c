/* SPDX-License-Identifier: Apache-2.0 */
/* The rig of both data paths. */
#include "tests/unit/migrate/path-rig.h"

/* ---- a QEMU stream in the making ---- */

void bytes_init(struct bytes *b)
{
	*b = (struct bytes){.at = malloc(STREAM_MAX)};
	assert_non_null(b->at);
}

void bytes_done(struct bytes *b)
{
	free(b->at);
}

void bytes_put(struct bytes *b, const void *data, size_t n)
{
	assert_true(b->n + n <= STREAM_MAX);
	memcpy(b->at + b->n, data, n);
	b->n += n;
}

static void bytes_put8(struct bytes *b, uint8_t v)
{
	bytes_put(b, &v, 1);
}

static void bytes_put64(struct bytes *b, uint64_t v)
{
	v = htobe64(v);
	bytes_put(b, &v, 8);
}

static void put_name(struct bytes *b, const char *name)
{
	bytes_put8(b, (uint8_t)strlen(name));
	bytes_put(b, name, strlen(name));
}

static void put_record(struct bytes *b, const char *block, uint64_t page, uint64_t flags)
{
	bytes_put64(b, page * STREAM_PAGE_SIZE | flags);
	put_name(b, block);
}

void page_fill(uint8_t *out, uint64_t page, unsigned version)
{
	for (size_t i = 0; i < STREAM_PAGE_SIZE; i += 16) {
		put_be64(out + i, page << 16 | version);
		put_be64(out + i + 8, i * 0x9e3779b97f4a7c15 + page + version);
	}
}

void put_page(struct bytes *b, const char *block, uint64_t page, unsigned version)
{
	put_record(b, block, page, 0x08);
	page_fill(b->at + b->n, page, version);
	b->n += STREAM_PAGE_SIZE;
}

void put_zero(struct bytes *b, const char *block, uint64_t page)
{
	put_record(b, block, page, 0x02);
	bytes_put8(b, 0);
}

void put_setup(struct bytes *b)
{
	bytes_put(b, "QEVM\0\0\0\3\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4", 25);
	bytes_put64(b, (RAM_PAGES + ROM_PAGES) * STREAM_PAGE_SIZE | 0x04);
	put_name(b, RAM);
	bytes_put64(b, RAM_PAGES * STREAM_PAGE_SIZE);
	put_name(b, ROM);
	bytes_put64(b, ROM_PAGES * STREAM_PAGE_SIZE);
	bytes_put64(b, 0x10);
	bytes_put(b, "\x7e\0\0\0\2", 5);
}

void put_section(struct bytes *b, uint8_t kind)
{
	bytes_put8(b, kind);
	bytes_put(b, "\0\0\0\2", 4);
}

void put_section_end(struct bytes *b)
{
	bytes_put64(b, 0x10);
	bytes_put(b, "\x7e\0\0\0\2", 5);
}

void put_end(struct bytes *b)
{
	put_section(b, 3);
	put_section_end(b);
	bytes_put(b, DEVICE_STATE, sizeof(DEVICE_STATE) - 1);
}

/* ---- what a stream says about memory ---- */

void image_done(struct image *m)
{
	for (size_t i = 0; i < m->n_blocks; i++) {
		munmap(m->mem[i], m->blocks[i].used_length);
		free(m->named[i]);
	}
	bytes_done(&m->device);
}

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

void image_read(struct image *m, const struct bytes *b)
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
	bytes_put(&m->device, b->at + stream_parser_consumed(p), b->n - stream_parser_consumed(p));
	stream_parser_free(p);
}

/* ---- the rig: fake QEMU, source, channels, destination, fake QEMU ---- */

static char certs_dir[] = "/tmp/godwit-source-dest-test.XXXXXX";
static struct tls_ctx *tls;

int64_t rig_patience(void)
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
		bytes_put(&r->out, buf, (size_t)n);
		pthread_mutex_unlock(&r->lock);
	}
	return NULL;
}

size_t rig_out_size(struct rig *r)
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

	tls_accept(tls, h->fd, rig_patience(), &h->ret, NULL);
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
		if (tls_connect(tls, r->pairs[i][0], "dst.example", rig_patience(), &r->src_conns[i].tls, &e) < 0)
			fail_msg("%s", e.text);
		pthread_join(thread, NULL);
		r->dst_conns[i].tls = half.ret;
		assert_non_null(half.ret);
	}
}

void rig_init(struct rig *r, struct rig_options o, const char *ram, uint64_t size)
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

void rig_source(struct rig *r)
{
	struct source_options s = {
		.channels = r->o.channels, .mappings = &r->src_maps, .qemu_fd = r->src_qemu[1], .wake_fd = r->src_wake};

	r->source = source_start(&s, r->src_conns);
}

void rig_done(struct rig *r)
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

void rig_feed(struct rig *r, const struct bytes *b, size_t from, size_t n)
{
	struct err e = ERR_INIT;

	if (sock_write_full(r->src_qemu[0], b->at + from, n, rig_patience(), &e) < 0)
		fail_msg("feed the source: %s", e.text);
}

void rig_wait(struct rig *r, const struct bytes *device)
{
	int64_t deadline = rig_patience();

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

void rig_src_memory(struct rig *r, const struct image *want)
{
	for (size_t i = 0; i < want->n_blocks && r->src_maps.n; i++)
		if (!strcmp(want->blocks[i].name, r->src_maps.list[0].name))
			memcpy(r->src_maps.list[0].mem, want->mem[i], want->blocks[i].used_length);
}

void rig_check_arrived(struct rig *r, const struct image *want)
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
		const uint8_t *named = got.named[i], *mem = m ? m->mem : got.mem[i];

		if (!named || !mem) {
			fail_msg("%s was never described", want->blocks[i].name);
			return;
		}
		assert_string_equal(got.blocks[i].name, want->blocks[i].name);
		for (uint64_t p = 0; p < want->blocks[i].used_length / STREAM_PAGE_SIZE; p++) {
			const uint8_t *at = mem + p * STREAM_PAGE_SIZE;

			if (m && named[p])
				fail_msg("page %llu of %s went through QEMU", (unsigned long long)p, m->name);
			if (!m && named[p] != want->named[i][p])
				fail_msg("page %llu of %s is missing or too much", (unsigned long long)p,
					 want->blocks[i].name);
			if (memcmp(at, want->mem[i] + p * STREAM_PAGE_SIZE, STREAM_PAGE_SIZE) != 0)
				fail_msg("page %llu of %s is not what it was", (unsigned long long)p,
					 want->blocks[i].name);
		}
	}
}

/* ---- certificates ---- */

int rig_certs_make(void **state)
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

int rig_certs_remove(void **state)
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
