/* SPDX-License-Identifier: Apache-2.0 */
/* The stream parser and encoder against streams that QEMU 7.2 wrote (tests/golden/stream) and against hostile ones. */
#include "hv/stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/byteorder.h"
#include "base/mem.h"

#define GOLDEN_MAX (64U << 10)
#define GOLDEN_TAIL 256 /* record.py keeps so many bytes of device state */

/* A golden stream: how to read it and what it holds. */
struct golden {
	const char *name;
	struct stream_options opt;
	unsigned int sections, commands, parts, pages, zeros;
};

#define FOOTERS .section_footers = true

static const struct golden goldens[] = {
	{"i440fx", {FOOTERS}, 12, 0, 1, 4, 20},
	{"i440fx-shared", {FOOTERS}, 12, 0, 1, 4, 20},
	{"i440fx-ignore-shared", {FOOTERS, .ignore_shared = true}, 13, 0, 1, 4, 15},
	{"i440fx-return-path", {FOOTERS}, 12, 2, 1, 4, 20},
	{"i440fx-postcopy", {FOOTERS, .postcopy_ram = true}, 12, 3, 1, 4, 20},
	{"i440fx-2.12", {FOOTERS}, 12, 0, 1, 4, 20},
	{"i440fx-uuid", {FOOTERS}, 13, 0, 1, 4, 20},
	{"no-footer", {.section_footers = false}, 9, 0, 1, 4, 20},
	{"no-configuration", {FOOTERS}, 11, 0, 1, 4, 20},
	{"no-vmdesc", {FOOTERS}, 12, 0, 1, 4, 20},
	{"q35", {FOOTERS}, 12, 0, 1, 4, 20},
	{"microvm", {FOOTERS}, 12, 0, 1, 4, 10},
	{"vga", {FOOTERS}, 12, 0, 1, 5, 30},
	{"running", {FOOTERS}, 18, 0, 3, 7, 20},
};

/* A stream in the making, or read from a file. */
struct bytes {
	uint8_t *at;
	size_t n;
	size_t room;
};

static void bytes_done(struct bytes *b)
{
	free(b->at);
}
#define _bytes_ __attribute__((cleanup(bytes_done))) struct bytes

static void parser_done(struct stream_parser **p)
{
	stream_parser_free(*p);
}
#define _parser_ __attribute__((cleanup(parser_done))) struct stream_parser

static void put(struct bytes *b, const void *data, size_t n)
{
	if (b->n + n > b->room) {
		b->room = (b->n + n) * 2;
		b->at = realloc(b->at, b->room);
		assert_non_null(b->at);
	}
	if (n > 0)
		memcpy(b->at + b->n, data, n);
	b->n += n;
}

static void put8(struct bytes *b, uint8_t v)
{
	put(b, &v, 1);
}

static void put32(struct bytes *b, uint32_t v)
{
	v = htobe32(v);
	put(b, &v, 4);
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

static void put_start(struct bytes *b)
{
	put(b, "QEVM\0\0\0\3\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4", 25);
}

static void put_footer(struct bytes *b)
{
	put(b, "\x7e\0\0\0\2", 5);
}

/* One block of 16 pages, "mem", and then a PART section up to its first record. */
static void put_part(struct bytes *b)
{
	put_start(b);
	put64(b, 16 * STREAM_PAGE_SIZE | 0x04);
	put_name(b, "mem");
	put64(b, 16 * STREAM_PAGE_SIZE);
	put64(b, 0x10);
	put_footer(b);
	put(b, "\2\0\0\0\2", 5);
}

static void read_golden(const char *name, struct bytes *b)
{
	char path[256];
	_closefile_ FILE *f = NULL;
	size_t n;

	snprintf(path, sizeof(path), "tests/golden/stream/%s.bin", name);
	f = fopen(path, "rb");
	if (!f)
		fail_msg("%s cannot be opened: run the test from the top of the tree", path);
	b->at = malloc(GOLDEN_MAX);
	assert_non_null(b->at);
	n = fread(b->at, 1, GOLDEN_MAX, f);
	assert_in_range(n, 1, GOLDEN_MAX - 1);
	b->n = n;
	b->room = GOLDEN_MAX;
}

/* Everything a stream gave, in a form that two readings can be compared by. */
struct trace {
	unsigned int count[STREAM_ITEM_RAM_END + 1];
	unsigned int parts;
	size_t n_items;
	size_t consumed;
	bool ended;
	struct bytes log;   /* type, block, page, command, section type, size, bytes of each item */
	struct bytes again; /* the stream again: sections as they are, records from the encoder */
	struct err e;
	int result;
};

static void trace_done(struct trace *t)
{
	bytes_done(&t->log);
	bytes_done(&t->again);
}
#define _trace_ __attribute__((cleanup(trace_done))) struct trace

static void trace_item(struct trace *t, const struct stream_item *item)
{
	t->count[item->type]++;
	t->parts += item->type == STREAM_ITEM_PASS && item->section_type == 2;
	put8(&t->log, (uint8_t)item->type);
	put8(&t->log, item->section_type);
	put32(&t->log, item->block);
	put32(&t->log, item->command);
	put64(&t->log, item->page);
	put64(&t->log, item->size);
	put(&t->log, item->data, item->size);
}

static void trace_encode(struct trace *t, struct stream_encoder *enc, const struct stream_item *item)
{
	uint8_t head[STREAM_PAGE_HEADER_MAX];

	if (item->type == STREAM_ITEM_PAGE || item->type == STREAM_ITEM_ZERO)
		put(&t->again, head,
		    stream_encode_page(enc, item->block, item->page, item->type == STREAM_ITEM_ZERO, head));
	put(&t->again, item->data, item->size);
}

/* Read @b in feeds that each bring @step bytes more than the parser has used. Each feed is a copy of its own size, so
 * that the address sanitizer sees a read beyond it. */
static void trace_stream(const struct stream_options *opt, const struct bytes *b, size_t step, struct trace *t)
{
	_parser_ *p = stream_parser_new(opt);
	struct stream_encoder enc = {0};
	size_t used = 0;

	for (size_t have = step < b->n ? step : b->n; !t->result; have = have + step < b->n ? have + step : b->n) {
		_free_ uint8_t *feed = malloc(have - used + 1);
		struct stream_item item = {0};

		memcpy(feed + 1, b->at + used, have - used);
		stream_parser_feed(p, feed + 1, have - used);
		while ((t->result = stream_parser_next(p, &item, &t->e)) == 0 && item.type != STREAM_ITEM_NONE) {
			trace_item(t, &item);
			if (item.type == STREAM_ITEM_BLOCKS) {
				size_t n;
				const struct stream_block *blocks = stream_parser_blocks(p, &n);

				stream_encoder_init(&enc, blocks, n);
			}
			trace_encode(t, &enc, &item);
		}
		used += stream_parser_consumed(p);
		if (have == b->n)
			break;
	}
	t->consumed = used;
	t->ended = stream_parser_ram_ended(p);
}

static const struct stream_options plain = {FOOTERS};

static void golden_streams_hold_what_qemu_wrote(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(goldens); i++) {
		const struct golden *g = &goldens[i];
		_bytes_ b = {0};
		_trace_ t = {0};

		read_golden(g->name, &b);
		trace_stream(&g->opt, &b, b.n, &t);
		if (t.result)
			fail_msg("%s: %s", g->name, t.e.text);
		assert_int_equal(t.count[STREAM_ITEM_SECTION], g->sections);
		assert_int_equal(t.count[STREAM_ITEM_COMMAND], g->commands);
		assert_int_equal(t.count[STREAM_ITEM_PAGE], g->pages);
		assert_int_equal(t.count[STREAM_ITEM_ZERO], g->zeros);
		assert_int_equal(t.count[STREAM_ITEM_BLOCKS], 1);
		assert_int_equal(t.parts, g->parts);
		assert_int_equal(t.count[STREAM_ITEM_PASS], g->parts + 1);
		assert_true(t.ended);
		assert_int_equal(t.consumed, b.n - GOLDEN_TAIL);
		assert_int_equal(t.count[STREAM_ITEM_RAM_END], 1);
	}
}

static void a_reencoded_stream_is_the_same_to_the_byte(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(goldens); i++) {
		_bytes_ b = {0};
		_trace_ t = {0};

		read_golden(goldens[i].name, &b);
		trace_stream(&goldens[i].opt, &b, b.n, &t);
		assert_int_equal(t.again.n, t.consumed);
		assert_memory_equal(t.again.at, b.at, t.consumed);
	}
}

static void how_the_bytes_are_cut_into_feeds_does_not_matter(void **state)
{
	static const size_t steps[] = {1, 7, 4096, 4105};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(goldens); i++) {
		_bytes_ b = {0};
		_trace_ whole = {0};

		read_golden(goldens[i].name, &b);
		trace_stream(&goldens[i].opt, &b, b.n, &whole);
		for (size_t s = 0; s < ARRAY_SIZE(steps); s++) {
			_trace_ t = {0};

			trace_stream(&goldens[i].opt, &b, steps[s], &t);
			assert_int_equal(t.result, 0);
			assert_int_equal(t.consumed, whole.consumed);
			assert_int_equal(t.log.n, whole.log.n);
			assert_memory_equal(t.log.at, whole.log.at, whole.log.n);
		}
	}
}

static void a_truncated_stream_waits_for_more(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(goldens); i++) {
		_bytes_ b = {0};
		size_t end;

		read_golden(goldens[i].name, &b);
		end = b.n - GOLDEN_TAIL;
		for (size_t n = 0; n < end; n += n < 600 || n + 100 > end ? 1 : 97) {
			_trace_ t = {0};
			struct bytes cut = {.at = b.at, .n = n};

			trace_stream(&goldens[i].opt, &cut, n, &t);
			if (t.result)
				fail_msg("%s cut at %zu: %s", goldens[i].name, n, t.e.text);
			assert_false(t.ended);
			assert_true(t.consumed <= n);
		}
	}
}

/* xorshift: the same flips on every run. */
static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void a_flipped_bit_never_yields_a_page_outside_of_its_block(void **state)
{
	uint64_t seed = 0x676f64776974ULL;
	unsigned int refused = 0;

	(void)state;
	for (unsigned int round = 0; round < 3000; round++) {
		const struct golden *g = &goldens[round % ARRAY_SIZE(goldens)];
		_bytes_ b = {0};
		_trace_ t = {0};
		size_t at;

		read_golden(g->name, &b);
		/* Mostly in the headers: the pages' bytes are nobody's business. */
		at = next_random(&seed) % (round % 4 ? 400 : b.n);
		b.at[at] ^= (uint8_t)(1U << next_random(&seed) % 8);
		trace_stream(&g->opt, &b, b.n, &t); /* the encoder asserts that block and page exist */
		assert_true(t.consumed <= b.n);
		if (t.result) {
			refused++;
			assert_int_not_equal(t.e.code, ERR_NONE);
			assert_non_null(strstr(t.e.text, "QEMU's migration stream at byte "));
		}
	}
	assert_in_range(refused, 100, 2999);
}

/* What a hostile row's bytes follow. */
enum after { NOTHING, HEADER, CONFIG, START, FILLED, PART, PAGE_SENT, LIST_END };

static void put_before(struct bytes *b, enum after after)
{
	static const uint8_t page[STREAM_PAGE_SIZE];

	switch (after) {
	case NOTHING:
		return;
	case HEADER:
		put(b, "QEVM\0\0\0\3", 8);
		return;
	case CONFIG:
		put(b, "QEVM\0\0\0\3\7\0\0\0\2pc", 15);
		return;
	case START:
		put_start(b);
		return;
	case FILLED: /* behind the MEM_SIZE list */
		put_part(b);
		b->n -= 8 + 5 + 5;
		return;
	case PART:
		put_part(b);
		return;
	case PAGE_SENT:
		put_part(b);
		put64(b, 0x08);
		put_name(b, "mem");
		put(b, page, sizeof(page));
		return;
	case LIST_END: /* behind the EOS of a PART section */
		put_part(b);
		put64(b, 0x10);
		return;
	}
}

#define BYTES(s) .bytes = (s), .n = sizeof(s) - 1
static const struct {
	enum after after;
	const char *bytes;
	size_t n;
	enum err_code code;
	const char *sentence;
} hostile[] = {
	{NOTHING, BYTES("HTTP/1.1"), ERR_PROTOCOL, "at byte 0: it does not begin with \"QEVM\""},
	{NOTHING, BYTES("QEVM\0\0\0\4"), ERR_UNSUPPORTED, "version 4 is unknown"},
	{HEADER, BYTES("\0"), ERR_PROTOCOL, "at byte 8: it ends before RAM does"},
	{HEADER, BYTES("\x06"), ERR_PROTOCOL, "section type 0x06 is unknown"},
	{HEADER, BYTES("\x2a"), ERR_PROTOCOL, "section type 0x2a is unknown"},
	{HEADER, BYTES("\x7e\0\0\0\2"), ERR_PROTOCOL, "a footer where none was expected"},
	{HEADER, BYTES("\5\1x\0\0\0\1"), ERR_PROTOCOL, "a subsection outside of the configuration"},
	{HEADER, BYTES("\7\0\0\0\0"), ERR_PROTOCOL, "name of 0 bytes"},
	{HEADER, BYTES("\7\0\0\1\0"), ERR_PROTOCOL, "name of 256 bytes"},
	{HEADER, BYTES("\7\xff\xff\xff\xff"), ERR_PROTOCOL, "name of 4294967295 bytes"},
	{CONFIG, BYTES("\7\0\0\0\1x"), ERR_PROTOCOL, "CONFIGURATION does not come first"},
	{CONFIG, BYTES("\5\6future\0\0\0\1"), ERR_UNSUPPORTED, "subsection 'future' is unknown"},
	{CONFIG,
	 BYTES("\5\x12"
	       "configuration/uuid\0\0\0\2"),
	 ERR_UNSUPPORTED, "configuration/uuid has version 2"},
	{CONFIG,
	 BYTES("\5\x1e"
	       "configuration/target-page-bits\0\0\0\1\0\0\0\xe"),
	 ERR_UNSUPPORTED, "pages have 14 bits"},
	{CONFIG,
	 BYTES("\5\x1a"
	       "configuration/capabilities\0\0\0\1\0\0\0\1\xfx-ignore-shared"),
	 ERR_UNSUPPORTED, "the capability x-ignore-shared on: switch it off"},
	{CONFIG,
	 BYTES("\5\x1a"
	       "configuration/capabilities\0\0\0\1\0\0\0\1\nmapped-ram"),
	 ERR_UNSUPPORTED, "the capability mapped-ram on: switch it off"},
	{CONFIG,
	 BYTES("\5\x1a"
	       "configuration/capabilities\0\0\0\1\xff\0\0\0"),
	 ERR_PROTOCOL, "4278190080 capabilities"},
	{CONFIG, BYTES("\x8\0\1\0\0\5\6future\0\0\0\1"), ERR_PROTOCOL, "a subsection outside of the configuration"},
	{HEADER, BYTES("\x8\0\0\0\0"), ERR_UNSUPPORTED, "command 0 is unknown"},
	{HEADER, BYTES("\x8\0\xc\0\0"), ERR_UNSUPPORTED, "command 12 is unknown"},
	{HEADER, BYTES("\x8\0\1\0\1"), ERR_PROTOCOL, "command OPEN_RETURN_PATH with 1 bytes"},
	{HEADER, BYTES("\x8\0\2\xff\xff"), ERR_PROTOCOL, "command PING with 65535 bytes"},
	{HEADER, BYTES("\x8\0\3\0\x8"), ERR_PROTOCOL, "command POSTCOPY_ADVISE with 8 bytes"},
	{HEADER, BYTES("\x8\0\7\0\4"), ERR_UNSUPPORTED,
	 "PACKAGED cannot be followed: switch the capability postcopy-ram"},
	{HEADER, BYTES("\x8\0\x8\0\0"), ERR_UNSUPPORTED,
	 "ENABLE_COLO cannot be followed: switch the capability x-colo"},
	{HEADER,
	 BYTES("\1\0\0\0\1\xc"
	       "dirty-bitmap\0\0\0\0\0\0\0\1"),
	 ERR_UNSUPPORTED, "the section 'dirty-bitmap': switch the capability dirty-bitmaps off"},
	{HEADER,
	 BYTES("\1\0\0\0\1\5"
	       "block\0\0\0\0\0\0\0\1"),
	 ERR_UNSUPPORTED, "the section 'block': switch"},
	{HEADER,
	 BYTES("\1\0\0\0\1\x11"
	       "0000:00:04.0/vfio\0\0\0\0\0\0\0\1"),
	 ERR_UNSUPPORTED, "'0000:00:04.0/vfio' sends its own data beside RAM"},
	{HEADER,
	 BYTES("\4\0\0\0\1\6"
	       "vmem-x\0\0\0\0\0\0\0\1"),
	 ERR_UNSUPPORTED, "the device 'vmem-x' saves its state before RAM ends"},
	{HEADER,
	 BYTES("\1\0\0\0\1\3"
	       "r\33m\0\0\0\0\0\0\0\1"),
	 ERR_UNSUPPORTED, "'r?m' sends its own data"},
	{HEADER, BYTES("\1\0\0\0\2\3ram\0\0\0\0\0\0\0\5"), ERR_UNSUPPORTED, "the ram section has version 5"},
	{HEADER, BYTES("\2\0\0\0\2"), ERR_PROTOCOL, "a PART or END of section 2, which was not started"},
	{START, BYTES("\0\0\0\0\0\0\0\x10"), ERR_PROTOCOL, "ends without a list of RAM blocks"},
	{START, BYTES("\0\0\0\0\0\0\0\4"), ERR_PROTOCOL, "the list of RAM blocks is empty"},
	{START, BYTES("\0\0\0\0\0\0\x10\4\0\0\0\0\0\0\0\x10\0"), ERR_PROTOCOL, "a RAM block without a name"},
	{START, BYTES("\0\0\0\0\0\0\x10\4\1\n\0\0\0\0\0\0\x10\0"), ERR_PROTOCOL,
	 "'?' has unprintable bytes in its name"},
	{START, BYTES("\0\0\0\0\0\0\x10\4\1a\0\0\0\0\0\0\x10\1"), ERR_PROTOCOL, "'a' has 4097 bytes, not a multiple"},
	{START, BYTES("\0\0\0\0\0\0\x10\4\1a\0\0\0\0\0\0\x20\0"), ERR_PROTOCOL,
	 "'a' has 8192 bytes, but only 4096 are left of the total"},
	{START, BYTES("\xff\xff\xff\xff\xff\xff\xf0\4\1a\xff\xff\xff\xff\xff\xff\xf0\0\0\0\0\0\0\0\0\x10\1\0\0\0\2"),
	 ERR_PROTOCOL, "0x01 where the ram section's footer must be"},
	{START, BYTES("\0\0\0\0\0\0\x20\4\1a\0\0\0\0\0\0\x10\0\1a\0\0\0\0\0\0\x10\0"), ERR_PROTOCOL,
	 "two RAM blocks are named 'a'"},
	{START, BYTES("\0\0\0\0\0\0\0\x8\3mem"), ERR_PROTOCOL, "a page in the START section"},
	{FILLED, BYTES("\0\0\0\0\0\0\x10\4\1a"), ERR_PROTOCOL, "a second list of RAM blocks"},
	{FILLED, BYTES("\0\0\0\0\0\0\0\x28\0"), ERR_PROTOCOL, "a page in the START section"},
	{PART, BYTES("\0\0\0\0\0\0\x10\4\1a"), ERR_PROTOCOL, "a second list of RAM blocks"},
	{PART, BYTES("\0\0\0\0\0\0\0\x22\0"), ERR_PROTOCOL, "a page that continues a RAM block, but none was named"},
	{PART, BYTES("\0\0\0\0\0\0\0\2\3mum\0"), ERR_PROTOCOL, "a page of RAM block 'mum', which is not in the list"},
	{PART, BYTES("\0\0\0\0\0\0\0\2\0\0"), ERR_PROTOCOL, "a page of RAM block '', which is not in the list"},
	{PART, BYTES("\0\0\0\0\0\1\0\2\3mem\0"), ERR_PROTOCOL, "page 16 of RAM block 'mem', which has 16 pages"},
	{PAGE_SENT, BYTES("\0\0\0\0\0\1\0\x22\0"), ERR_PROTOCOL, "page 16 of RAM block 'mem', which has 16 pages"},
	{PAGE_SENT, BYTES("\xff\xff\xff\xff\xff\xff\xf0\x22\0"), ERR_PROTOCOL, "page 4503599627370495 of RAM block"},
	{PAGE_SENT, BYTES("\0\0\0\0\0\0\0\x22\1"), ERR_PROTOCOL, "a page filled with 0x01"},
	{PAGE_SENT, BYTES("\0\0\0\0\0\0\0\x2a\0"), ERR_PROTOCOL, "record flags 0x02a are unknown"},
	{PAGE_SENT, BYTES("\0\0\0\0\0\0\0\x20"), ERR_PROTOCOL, "record flags 0x020 are unknown"},
	{PAGE_SENT, BYTES("\0\0\0\0\0\0\0\0"), ERR_PROTOCOL, "record flags 0x000 are unknown"},
	{PAGE_SENT, BYTES("\0\0\0\0\0\0\x4\0"), ERR_PROTOCOL, "record flags 0x400 are unknown"},
	{PAGE_SENT, BYTES("\0\0\0\0\0\0\0\x60"), ERR_UNSUPPORTED, "switch the capability xbzrle off"},
	{PAGE_SENT, BYTES("\0\0\0\0\0\0\1\x20"), ERR_UNSUPPORTED, "switch the capability compress off"},
	{PAGE_SENT, BYTES("\0\0\0\0\0\0\2\0"), ERR_UNSUPPORTED, "switch the capability multifd off"},
	{PAGE_SENT, BYTES("\0\0\0\0\0\0\0\x80"), ERR_UNSUPPORTED, "an RDMA record"},
	{PAGE_SENT, BYTES("\0\0\0\0\0\0\0\1"), ERR_UNSUPPORTED, "the flag FULL"},
	{LIST_END, BYTES("\2\0\0\0\2"), ERR_PROTOCOL, "0x02 where the ram section's footer must be"},
	{LIST_END, BYTES("\x7e\0\0\0\3"), ERR_PROTOCOL, "the footer of section 3 ends section 2"},
	{LIST_END, BYTES("\x7e\0\0\0\2\3\0\0\0\3"), ERR_PROTOCOL, "a PART or END of section 3, which was not started"},
	{LIST_END, BYTES("\x7e\0\0\0\2\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4"), ERR_PROTOCOL, "a second START of ram"},
	{LIST_END, BYTES("\x7e\0\0\0\2\4\0\0\0\3\3rtc\0\0\0\0\0\0\0\4"), ERR_UNSUPPORTED,
	 "the device 'rtc' saves its state before RAM ends"},
};

static void a_hostile_stream_is_refused_with_its_reason(void **state)
{
	static const size_t steps[] = {1, 1U << 20};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hostile) * 2; i++) {
		_bytes_ b = {0};
		_trace_ t = {0};

		put_before(&b, hostile[i / 2].after);
		put(&b, hostile[i / 2].bytes, hostile[i / 2].n);
		trace_stream(&plain, &b, steps[i % 2], &t);
		if (t.result == 0)
			fail_msg("row %zu was accepted instead of: %s", i / 2, hostile[i / 2].sentence);
		if (!strstr(t.e.text, hostile[i / 2].sentence))
			fail_msg("row %zu says '%s' instead of '%s'", i / 2, t.e.text, hostile[i / 2].sentence);
		assert_int_equal(t.e.code, hostile[i / 2].code);
	}
}

static void a_refusal_is_final(void **state)
{
	_parser_ *p = stream_parser_new(&plain);
	struct stream_item item;
	struct err first = ERR_INIT;
	struct err second = ERR_INIT;

	(void)state;
	stream_parser_feed(p, (const uint8_t *)"QEVM\0\0\0\2", 8);
	assert_int_equal(stream_parser_next(p, &item, &first), -1);
	stream_parser_feed(p, (const uint8_t *)"QEVM\0\0\0\3", 8);
	assert_int_equal(stream_parser_next(p, &item, &second), -1);
	assert_string_equal(first.text, second.text);
	assert_int_equal(stream_parser_consumed(p), 0);
}

static void next_type(struct stream_parser *p, enum stream_item_type type, size_t size)
{
	struct stream_item item;
	struct err e = ERR_INIT;

	if (stream_parser_next(p, &item, &e))
		fail_msg("%s", e.text);
	assert_int_equal(item.type, type);
	assert_int_equal(item.size, size);
}

static void items_come_in_the_order_that_the_engine_needs(void **state)
{
	for (int footers = 0; footers < 2; footers++) {
		_parser_ *p = stream_parser_new(&(struct stream_options){.section_footers = footers});
		_bytes_ b = {0};

		(void)state;
		put_start(&b);
		put64(&b, 16 * STREAM_PAGE_SIZE | 0x04);
		put_name(&b, "mem");
		put64(&b, 16 * STREAM_PAGE_SIZE);
		put64(&b, 0x10);
		put(&b, "\x7e\0\0\0\2", footers ? 5 : 0);
		put(&b, "\x8\0\xb\0\0", 5);
		put(&b, "\3\0\0\0\2", 5);
		put64(&b, 15 * STREAM_PAGE_SIZE | 0x02);
		put_name(&b, "mem");
		put8(&b, 0);
		put64(&b, 0x10);
		put(&b, "\x7e\0\0\0\2", footers ? 5 : 0);
		put(&b, "\4device state", 13);
		stream_parser_feed(p, b.at, b.n);
		next_type(p, STREAM_ITEM_SECTION, 8);
		next_type(p, STREAM_ITEM_SECTION, 17);
		next_type(p, STREAM_ITEM_SECTION, 8 + 4 + 8);
		next_type(p, STREAM_ITEM_BLOCKS, 0);
		next_type(p, STREAM_ITEM_SECTION, 8);
		if (footers)
			next_type(p, STREAM_ITEM_SECTION, 5);
		next_type(p, STREAM_ITEM_COMMAND, 5);
		next_type(p, STREAM_ITEM_PASS, 0);
		next_type(p, STREAM_ITEM_SECTION, 5);
		next_type(p, STREAM_ITEM_ZERO, 0);
		next_type(p, STREAM_ITEM_SECTION, 8);
		if (footers)
			next_type(p, STREAM_ITEM_SECTION, 5);
		assert_false(stream_parser_ram_ended(p));
		next_type(p, STREAM_ITEM_RAM_END, 0);
		assert_true(stream_parser_ram_ended(p));
		next_type(p, STREAM_ITEM_NONE, 0);
		assert_int_equal(stream_parser_consumed(p), b.n - 13);
	}
}

static void commands_carry_their_number_and_bytes(void **state)
{
	_parser_ *p = stream_parser_new(&plain);
	_bytes_ b = {0};
	struct stream_item item;
	struct err e = ERR_INIT;

	(void)state;
	put_before(&b, CONFIG);
	put(&b, "\x8\0\1\0\0\x8\0\2\0\4\0\0\0\1", 14);
	stream_parser_feed(p, b.at, b.n);
	next_type(p, STREAM_ITEM_SECTION, 8);
	next_type(p, STREAM_ITEM_SECTION, 7);
	assert_int_equal(stream_parser_next(p, &item, &e), 0);
	assert_int_equal(item.command, 1);
	assert_int_equal(stream_parser_next(p, &item, &e), 0);
	assert_int_equal(item.command, 2);
	assert_int_equal(item.size, 9);
	assert_int_equal(get_be32(item.data + 5), 1);
}

/* A list of three blocks as QEMU writes it with postcopy-ram or x-ignore-shared, hugepages where @page_size says. */
static void list_is_read(const struct stream_options *opt, const uint64_t page_size[3])
{
	_bytes_ b = {0};
	_trace_ t = {0};

	put_start(&b);
	put64(&b, 6 * STREAM_PAGE_SIZE | 0x04);
	for (int i = 0; i < 3; i++) {
		put_name(&b, i == 0 ? "a" : i == 1 ? "bb" : "ccc");
		put64(&b, (uint64_t)(i + 1) * STREAM_PAGE_SIZE);
		if (page_size[i])
			put64(&b, page_size[i]);
		if (opt->ignore_shared)
			put64(&b, i == 2 ? 0xfffc0000 : 0);
	}
	put64(&b, 0x10);
	put_footer(&b);
	trace_stream(opt, &b, 1, &t);
	if (t.result)
		fail_msg("%s", t.e.text);
	assert_int_equal(t.consumed, b.n);
	assert_int_equal(t.count[STREAM_ITEM_BLOCKS], 1);
	assert_int_equal(t.count[STREAM_ITEM_SECTION], 5);
}

static void the_lists_optional_fields_are_found_in_any_combination(void **state)
{
	(void)state;
	for (unsigned int huge = 0; huge < 8; huge++) {
		const uint64_t size[3] = {huge & 1 ? 2U << 20 : 0, huge & 2 ? 1U << 30 : 0, huge & 4 ? 2U << 20 : 0};

		list_is_read(&(struct stream_options){FOOTERS, .postcopy_ram = true}, size);
		list_is_read(&(struct stream_options){FOOTERS, .postcopy_ram = true, .ignore_shared = true}, size);
	}
	list_is_read(&(struct stream_options){FOOTERS, .ignore_shared = true}, (const uint64_t[3]){0});
	list_is_read(&plain, (const uint64_t[3]){0});
}

static void a_page_size_that_is_no_power_of_two_is_refused(void **state)
{
	const struct stream_options opt = {FOOTERS, .postcopy_ram = true};
	_bytes_ b = {0};
	_trace_ t = {0};

	(void)state;
	put_start(&b);
	put64(&b, 2 * STREAM_PAGE_SIZE | 0x04);
	put_name(&b, "a");
	put64(&b, 2 * STREAM_PAGE_SIZE);
	put64(&b, 3 * STREAM_PAGE_SIZE);
	put64(&b, 0x10);
	trace_stream(&opt, &b, b.n, &t);
	assert_int_equal(t.result, -1);
	assert_non_null(strstr(t.e.text, "RAM block 'a' with pages of 12288 bytes"));
}

static void put_many_blocks(struct bytes *b, unsigned int n)
{
	char name[STREAM_BLOCK_NAME_MAX];

	put_start(b);
	put64(b, n * (uint64_t)STREAM_PAGE_SIZE | 0x04);
	for (unsigned int i = 0; i < n; i++) {
		memset(name, 'x', sizeof(name));
		snprintf(name + STREAM_BLOCK_NAME_MAX - 6, 6, "%05u", i % 100000);
		put_name(b, name);
		put64(b, STREAM_PAGE_SIZE);
	}
	put64(b, 0x10);
}

static void the_longest_list_is_accepted_and_one_more_block_is_not(void **state)
{
	_bytes_ most = {0};
	_bytes_ more = {0};
	_trace_ t = {0};
	_trace_ u = {0};

	(void)state;
	put_many_blocks(&most, STREAM_BLOCKS_MAX);
	assert_in_range(most.n, 1, STREAM_RECORD_MAX);
	trace_stream(&plain, &most, most.n, &t);
	assert_int_equal(t.result, 0);
	assert_int_equal(t.count[STREAM_ITEM_BLOCKS], 1);
	assert_int_equal(t.consumed, most.n);
	put_many_blocks(&more, STREAM_BLOCKS_MAX + 1);
	trace_stream(&plain, &more, more.n, &u);
	assert_int_equal(u.result, -1);
	assert_non_null(strstr(u.e.text, "more than 256 RAM blocks"));
}

static void a_record_behind_left_out_ones_names_its_block_again(void **state)
{
	static const struct stream_block blocks[] = {{"ram0", 1U << 20}, {"bios", 1U << 16}};
	struct stream_encoder enc;
	uint8_t out[STREAM_PAGE_HEADER_MAX];

	(void)state;
	stream_encoder_init(&enc, blocks, 2);
	assert_int_equal(stream_encode_page(&enc, 1, 3, false, out), 8 + 1 + 4);
	assert_memory_equal(out, "\0\0\0\0\0\0\x30\x08\4bios", 13);
	/* Pages of ram0 were placed directly: the next record of bios goes on where the destination's QEMU is. */
	assert_int_equal(stream_encode_page(&enc, 1, 4, true, out), 8 + 1);
	assert_memory_equal(out, "\0\0\0\0\0\0\x40\x22\0", 9);
	assert_int_equal(stream_encode_page(&enc, 0, 255, true, out), 8 + 1 + 4 + 1);
	assert_memory_equal(out, "\0\0\0\0\0\x0f\xf0\x02\4ram0\0", 14);
	assert_int_equal(stream_encode_page(&enc, 1, 0, false, out), 8 + 1 + 4);
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

#define SPEED_PAGES 4096U

static int64_t time_parse(const struct bytes *b)
{
	_parser_ *p = stream_parser_new(&plain);
	struct stream_item item;
	struct err e = ERR_INIT;
	unsigned int pages = 0;
	int64_t start = now_ns();

	stream_parser_feed(p, b->at, b->n);
	do {
		assert_int_equal(stream_parser_next(p, &item, &e), 0);
		pages += item.type == STREAM_ITEM_PAGE;
	} while (item.type != STREAM_ITEM_NONE);
	start = now_ns() - start;
	assert_int_equal(pages, SPEED_PAGES);
	return start;
}

static int64_t time_copy(const struct bytes *b, uint8_t *to)
{
	int64_t start = now_ns();

	memcpy(to, b->at, b->n);
	start = now_ns() - start;
	assert_int_equal(to[b->n - 1], b->at[b->n - 1]);
	return start;
}

/* The best of several rounds each, taken in turn, so that neither a busy host nor a cold cache decides. */
static void parsing_takes_at_most_half_the_time_of_copying(void **state)
{
	uint8_t page[STREAM_PAGE_SIZE];
	_free_ uint8_t *copy = NULL;
	_bytes_ b = {0};
	int64_t parse = INT64_MAX;
	int64_t memory = INT64_MAX;

	(void)state;
	memset(page, 0x5a, sizeof(page));
	put_part(&b);
	for (unsigned int i = 0; i < SPEED_PAGES; i++) {
		put64(&b, (uint64_t)(i % 16) * STREAM_PAGE_SIZE | (i ? 0x28 : 0x08));
		if (i == 0)
			put_name(&b, "mem");
		put(&b, page, sizeof(page));
	}
	copy = calloc(1, b.n);
	assert_non_null(copy);
	for (int round = 0; round < 15; round++) {
		int64_t t = time_parse(&b);
		int64_t m = time_copy(&b, copy);

		parse = t < parse ? t : parse;
		memory = m < memory ? m : memory;
	}
	print_message("parsed at %.0f GB/s, copied at %.1f GB/s\n", (double)b.n / (double)parse,
		      (double)b.n / (double)memory);
	assert_true(parse * 2 <= memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_streams_hold_what_qemu_wrote),
		cmocka_unit_test(a_reencoded_stream_is_the_same_to_the_byte),
		cmocka_unit_test(how_the_bytes_are_cut_into_feeds_does_not_matter),
		cmocka_unit_test(a_truncated_stream_waits_for_more),
		cmocka_unit_test(a_flipped_bit_never_yields_a_page_outside_of_its_block),
		cmocka_unit_test(a_hostile_stream_is_refused_with_its_reason),
		cmocka_unit_test(a_refusal_is_final),
		cmocka_unit_test(items_come_in_the_order_that_the_engine_needs),
		cmocka_unit_test(commands_carry_their_number_and_bytes),
		cmocka_unit_test(the_lists_optional_fields_are_found_in_any_combination),
		cmocka_unit_test(a_page_size_that_is_no_power_of_two_is_refused),
		cmocka_unit_test(the_longest_list_is_accepted_and_one_more_block_is_not),
		cmocka_unit_test(a_record_behind_left_out_ones_names_its_block_again),
		cmocka_unit_test(parsing_takes_at_most_half_the_time_of_copying),
	};

	return cmocka_run_group_tests_name("hv/stream", tests, NULL, NULL);
}
