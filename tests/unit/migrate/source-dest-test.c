/* SPDX-License-Identifier: Apache-2.0 */
/* The two data paths back to back: QEMU's stream in at the source, guest memory and QEMU's stream out at the
 * destination. */
#include "tests/unit/migrate/path-rig.h"

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
	rig_src_memory(&r, &want);
	rig_source(&r);
	rig_feed(&r, b, 0, b->n);
	rig_wait(&r, &want.device);
	rig_check_arrived(&r, &want);
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
	rig_check_arrived(&r, &want);
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
	rig_src_memory(&r, &want);
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
	rig_check_arrived(&r, &want);
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
	rig_check_arrived(&r, &want);
	rig_done(&r);
}

static void source_error(struct rig *r, struct err *e)
{
	int64_t deadline = rig_patience();
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
	bytes_put(&b, "this is not QEMU", 16);
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
	sock_write_full(r.src_qemu[0], b.at, b.n, rig_patience(), NULL);
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
	assert_int_equal(sock_wait(r.src_qemu[0], POLLIN, rig_patience(), NULL), 1);
	assert_int_equal(read(r.src_qemu[0], &byte, 1), 0);
	rig_done(&r);
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
	};

	return cmocka_run_group_tests_name("source and dest", tests, rig_certs_make, rig_certs_remove);
}
