/* SPDX-License-Identifier: Apache-2.0 */
/* The destination alone, against frames that no source sends. */
#include "tests/unit/migrate/path-rig.h"

/* Pages go to the destination's QEMU, or into the guest's memory. */
static const struct rig_options through_qemu = {.channels = 3}, in_memory = {.channels = 3, .dst_mapped = true};

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
	sock_write_full(r->pairs[c][0], head, WIRE_HEADER_SIZE + h.runs * WIRE_RUN_SIZE, rig_patience(), NULL);
	sock_write_full(r->pairs[c][0], copy, h.length, rig_patience(), NULL);
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
	int64_t deadline = rig_patience();
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
	rig_init(&r, through_qemu, RAM, 0);
	frame_setup(&r);
	frame_page(&r, 0, 0, 0, false);
	frame_end(&r, 0);
	frame_stream(&r, 0, WIRE_FLAG_TAIL, device, sizeof(device));
	frame_end(&r, 2);
	usleep(100000);
	before = rig_out_size(&r);
	/* Channel 1 is late: its page must be in front of the device state. */
	frame_page(&r, 1, 0, WIRE_REGION_PAGES, false);
	usleep(100000);
	pthread_mutex_lock(&r.lock);
	assert_null(memmem(r.out.at, r.out.n, device, sizeof(device)));
	assert_true(r.out.n > before);
	pthread_mutex_unlock(&r.lock);
	frame_end(&r, 1);
	for (int64_t deadline = rig_patience(); clock_now_ns() < deadline; usleep(1000)) {
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
	rig_init(&r, through_qemu, RAM, 0);
	frame_page(&r, 1, 0, WIRE_REGION_PAGES, false);
	/* Everything but the record and the footer that end RAM's START section: QEMU is in the middle of it. */
	frame_stream(&r, 0, 0, b.at, b.n - 13);
	usleep(100000);
	assert_int_equal(rig_out_size(&r), b.n - 13);
	frame_stream(&r, 0, 0, b.at + b.n - 13, 8);
	usleep(20000);
	assert_int_equal(rig_out_size(&r), b.n - 5);
	frame_stream(&r, 0, 0, b.at + b.n - 5, 5);
	for (int64_t deadline = rig_patience(); rig_out_size(&r) <= b.n && clock_now_ns() < deadline;)
		usleep(1000);
	assert_true(rig_out_size(&r) > b.n);
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
	sock_write_full(r->pairs[1][0], "\1\1\0\0\0", 5, rig_patience(), NULL);
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
	sock_write_full(r->pairs[1][0], noise, sizeof(noise), rig_patience(), NULL);
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

			rig_init(&r, mapped ? in_memory : through_qemu, RAM, RAM_PAGES * STREAM_PAGE_SIZE);
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
	rig_init(&r, through_qemu, RAM, 0);
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
	rig_init(&r, through_qemu, RAM, 0);
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
	rig_init(&r, through_qemu, RAM, 0);
	shutdown(r.dst_qemu[0], SHUT_RDWR);
	frame_setup(&r);
	dest_error(&r, &e);
	assert_non_null(strstr(e.text, "the destination's QEMU stopped reading"));
	rig_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(device_state_waits_for_the_end_of_every_channel),
		cmocka_unit_test(pages_wait_until_the_setup_is_whole),
		cmocka_unit_test(every_wrong_frame_ends_the_move_with_a_reason),
		cmocka_unit_test(a_setup_that_is_no_stream_ends_the_move),
		cmocka_unit_test(a_setup_without_end_is_bounded),
		cmocka_unit_test(a_destination_whose_qemu_is_gone_fails),
	};

	return cmocka_run_group_tests_name("dest", tests, NULL, NULL);
}
