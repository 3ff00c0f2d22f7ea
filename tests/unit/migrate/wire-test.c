/* SPDX-License-Identifier: Apache-2.0 */
/* The wire format: golden bytes of every kind of frame, every bound, and damage that is found. */
#include "migrate/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/byteorder.h"
#include "base/mem.h"
#include "hv/stream.h"

#define FRAME_MAX (WIRE_HEADER_SIZE + 4 * WIRE_RUN_SIZE)

/* ---- golden bytes ---- */

static const uint8_t token[WIRE_TOKEN_SIZE] = "0123456789abcdef0123456789ABCDEF";
static const uint8_t nonce[WIRE_NONCE_SIZE] = "nonce-nonce-nonce-nonce-nonce-no";

/* A frame, its index and the bytes that both must become. The check is the low half of an XXH3-64. */
struct golden {
	struct wire_header h;
	struct wire_run runs[4];
	const char *hex;
};

/* clang-format off */
static const struct golden goldens[] = {
	{{WIRE_PAGES, WIRE_FLAG_SUM, 3, 2, 3 * 4096, 0x123456789a, 0x1122334455667788}, {{0, 2}, {5, 1}},
	 "01010003" "00000002" "00003000" "4edd7973" "000000123456789a" "1122334455667788" "00000002" "00050001"},
	{{WIRE_ZEROS, 0, 0, 2, 0, 512, 0}, {{0, 65535}, {65535, 1}},
	 "02000000" "00000002" "00000000" "a7af3b33" "0000000000000200" "0000000000000000" "0000ffff" "ffff0001"},
	{{WIRE_STREAM, WIRE_FLAG_SUM | WIRE_FLAG_TAIL, 0, 0, 0x40000, 0, 0x0102030405060708}, {{0, 0}},
	 "03030000" "00000000" "00040000" "2e0539a5" "0000000000000000" "0102030405060708"},
	{{WIRE_END, 0, 0, 0, 0, 0, 0}, {{0, 0}},
	 "04000000" "00000000" "00000000" "de8ec074" "0000000000000000" "0000000000000000"},
	{{WIRE_INFO, WIRE_FLAG_SUM, 0, 0, 2, 0, 1}, {{0, 0}},
	 "10010000" "00000000" "00000002" "1918fb19" "0000000000000000" "0000000000000001"},
	{{WIRE_READY, WIRE_FLAG_SUM, 0, 0, 2, 0, 1}, {{0, 0}},
	 "11010000" "00000000" "00000002" "c4730d29" "0000000000000000" "0000000000000001"},
	{{WIRE_LOADED, WIRE_FLAG_SUM, 0, 0, 0, 0, 1}, {{0, 0}},
	 "12010000" "00000000" "00000000" "afcdc98c" "0000000000000000" "0000000000000001"},
	{{WIRE_GO, WIRE_FLAG_SUM, 0, 0, 0, 0, 1}, {{0, 0}},
	 "13010000" "00000000" "00000000" "0adcf483" "0000000000000000" "0000000000000001"},
	{{WIRE_RUNNING, WIRE_FLAG_SUM, 0, 0, 2, 0, 1}, {{0, 0}},
	 "14010000" "00000000" "00000002" "00bb5118" "0000000000000000" "0000000000000001"},
	{{WIRE_FAIL, WIRE_FLAG_SUM, 0, 0, 2, 0, 1}, {{0, 0}},
	 "15010000" "00000000" "00000002" "5c956d0f" "0000000000000000" "0000000000000001"},
	{{WIRE_PROBE, WIRE_FLAG_SUM, 0, 0, 0x40000, 0, 1}, {{0, 0}},
	 "16010000" "00000000" "00040000" "00b1bafc" "0000000000000000" "0000000000000001"},
	{{WIRE_RESOLVE, WIRE_FLAG_SUM | WIRE_FLAG_GO, 0, 0, 0, 0, 1}, {{0, 0}},
	 "17050000" "00000000" "00000000" "a5551bda" "0000000000000000" "0000000000000001"},
	{{WIRE_RESOLVED, WIRE_FLAG_SUM, 0, 0, 2, 0, 1}, {{0, 0}},
	 "18010000" "00000000" "00000002" "6776d3a3" "0000000000000000" "0000000000000001"},
	{{WIRE_DONE, WIRE_FLAG_SUM, 0, 0, 0, 0, 1}, {{0, 0}},
	 "19010000" "00000000" "00000000" "4e0f9686" "0000000000000000" "0000000000000001"},
	{{WIRE_FILE_HEAD, WIRE_FLAG_SUM, 0, 0, 2, 0, 1}, {{0, 0}},
	 "20010000" "00000000" "00000002" "558a81e6" "0000000000000000" "0000000000000001"},
	{{WIRE_FILE_TAIL, WIRE_FLAG_SUM, 0, 0, 32, 0, 1}, {{0, 0}},
	 "21010000" "00000000" "00000020" "71e18890" "0000000000000000" "0000000000000001"},
};
/* clang-format on */

static size_t unhex(const char *text, uint8_t *out)
{
	size_t n = strlen(text) / 2;

	for (size_t i = 0; i < n; i++) {
		char pair[3] = {text[2 * i], text[2 * i + 1], 0};
		char *end;

		out[i] = (uint8_t)strtoul(pair, &end, 16);
		assert_int_equal(*end, 0);
	}
	return n;
}

/* Header and index of @g into @out. Their length. */
static size_t encode(const struct golden *g, uint8_t *out)
{
	for (uint32_t i = 0; i < g->h.runs; i++)
		wire_encode_run(out + WIRE_HEADER_SIZE + i * WIRE_RUN_SIZE, g->runs[i]);
	wire_encode_header(out, &g->h, out + WIRE_HEADER_SIZE);
	return WIRE_HEADER_SIZE + g->h.runs * WIRE_RUN_SIZE;
}

/* As a receiver reads it: 0 when header and index are right. */
static int decode(const uint8_t *in, struct wire_header *ret, uint64_t *ret_pages, struct err *e)
{
	return wire_decode_header(in, ret, e) < 0 ? -1 : wire_check_index(in, ret, in + WIRE_HEADER_SIZE, ret_pages, e);
}

static void every_kind_of_frame_has_its_golden_bytes(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(goldens); i++) {
		uint8_t got[FRAME_MAX] = {0}, want[FRAME_MAX] = {0};
		size_t n = unhex(goldens[i].hex, want);

		assert_int_equal(encode(&goldens[i], got), n);
		for (size_t k = 0; k < n; k++)
			if (got[k] != want[k])
				fail_msg("%s: byte %zu is %02x, not %02x", wire_type_name(goldens[i].h.type), k, got[k],
					 want[k]);
	}
}

static void every_kind_of_frame_is_read_as_it_was_written(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(goldens); i++) {
		const struct golden *g = &goldens[i];
		struct wire_header h;
		uint8_t raw[FRAME_MAX];
		uint64_t pages = 0, want = 0;
		struct err e = ERR_INIT;

		encode(g, raw);
		if (decode(raw, &h, &pages, &e) < 0)
			fail_msg("%s: %s", wire_type_name(g->h.type), e.text);
		assert_int_equal(h.type, g->h.type);
		assert_int_equal(h.flags, g->h.flags);
		assert_int_equal(h.block, g->h.block);
		assert_int_equal(h.runs, g->h.runs);
		assert_int_equal(h.length, g->h.length);
		assert_int_equal(h.base, g->h.base);
		assert_int_equal(h.sum, g->h.sum);
		for (uint32_t r = 0; r < h.runs; r++) {
			struct wire_run run = wire_decode_run(raw + WIRE_HEADER_SIZE + r * WIRE_RUN_SIZE);

			assert_int_equal(run.first, g->runs[r].first);
			assert_int_equal(run.count, g->runs[r].count);
			want += run.count;
		}
		assert_int_equal(pages, want);
	}
}

static void every_type_has_a_golden_frame_and_a_name(void **state)
{
	(void)state;
	for (unsigned type = 0; type < 256; type++) {
		bool golden = false;

		for (size_t i = 0; i < ARRAY_SIZE(goldens); i++)
			golden |= goldens[i].h.type == type;
		assert_int_equal(golden, strcmp(wire_type_name((uint8_t)type), "unknown") != 0);
	}
}

static void the_greeting_has_its_golden_bytes(void **state)
{
	uint8_t got[WIRE_GREETING_SIZE], back[WIRE_NONCE_SIZE];

	(void)state;
	wire_encode_greeting(got, nonce);
	assert_memory_equal(got, "GDWTd\n\0\1", 8);
	assert_memory_equal(got + 8, nonce, WIRE_NONCE_SIZE);
	assert_int_equal(wire_decode_greeting(got, back, NULL), 0);
	assert_memory_equal(back, nonce, WIRE_NONCE_SIZE);
}

static const struct wire_hello hello = {
	.role = WIRE_ROLE_DATA, .channel = 2, .channels = 4, .session = "0123456789abcde"};

/* The proof was computed with another implementation of HMAC-SHA-256 (Python's hmac). */
static const char golden_hello[] = "47445754730a0001"
				   "02020400"
				   "30313233343536373839616263646500"
				   "d154842e3a515dc04aacffa009f177eccbe766ba0cd5bed7441066e76a4e7cf4";

static void the_hello_has_its_golden_bytes(void **state)
{
	uint8_t got[WIRE_HELLO_SIZE], want[WIRE_HELLO_SIZE];
	struct wire_hello back;

	(void)state;
	assert_int_equal(unhex(golden_hello, want), sizeof(want));
	wire_encode_hello(got, &hello, token, nonce);
	assert_memory_equal(got, want, sizeof(want));
	assert_int_equal(wire_decode_hello(got, token, nonce, &back, NULL), 0);
	assert_int_equal(back.role, WIRE_ROLE_DATA);
	assert_int_equal(back.channel, 2);
	assert_int_equal(back.channels, 4);
	assert_memory_equal(back.session, hello.session, WIRE_SESSION_SIZE);
}

/* ---- damage ---- */

/* Every other value of every byte. */
static void any_changed_byte_of_header_or_index_is_found(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(goldens); i++) {
		uint8_t raw[FRAME_MAX + WIRE_INDEX_MAX] = {0};
		size_t n = encode(&goldens[i], raw);

		for (size_t at = 0; at < n; at++) {
			uint8_t was = raw[at];

			for (unsigned v = 0; v < 256; v++) {
				struct err e = ERR_INIT;
				struct wire_header h;
				uint64_t pages;

				raw[at] = (uint8_t)v;
				if (v == was)
					continue;
				if (decode(raw, &h, &pages, &e) == 0)
					fail_msg("%s: byte %zu as %02x is taken", wire_type_name(goldens[i].h.type), at,
						 v);
				assert_int_equal(e.code, ERR_PROTOCOL);
			}
			raw[at] = was;
		}
	}
}

static void any_changed_byte_of_a_hello_is_found(void **state)
{
	uint8_t raw[WIRE_HELLO_SIZE];
	struct wire_hello back;

	(void)state;
	wire_encode_hello(raw, &hello, token, nonce);
	for (size_t at = 0; at < sizeof(raw); at++) {
		raw[at] ^= 1;
		assert_int_equal(wire_decode_hello(raw, token, nonce, &back, NULL), -1);
		raw[at] ^= 1;
	}
	assert_int_equal(wire_decode_hello(raw, token, nonce, &back, NULL), 0);
}

/* ---- who is at the other end ---- */

static void a_wrong_token_is_an_authentication_failure_with_the_way_out(void **state)
{
	uint8_t raw[WIRE_HELLO_SIZE], other[WIRE_TOKEN_SIZE];
	struct err e = ERR_INIT;
	struct wire_hello back;

	(void)state;
	memcpy(other, token, sizeof(other));
	other[31] ^= 1;
	wire_encode_hello(raw, &hello, other, nonce);
	assert_int_equal(wire_decode_hello(raw, token, nonce, &back, &e), -1);
	assert_int_equal(e.code, ERR_AUTH);
	assert_non_null(strstr(e.text, "--token-file"));
}

static void a_hello_for_another_nonce_is_refused(void **state)
{
	uint8_t raw[WIRE_HELLO_SIZE], other[WIRE_NONCE_SIZE] = {0};
	struct err e = ERR_INIT;
	struct wire_hello back;

	(void)state;
	wire_encode_hello(raw, &hello, token, nonce);
	assert_int_equal(wire_decode_hello(raw, token, other, &back, &e), -1);
	assert_int_equal(e.code, ERR_AUTH);
}

static void another_version_is_named_on_both_sides(void **state)
{
	uint8_t greeting[WIRE_GREETING_SIZE], raw[WIRE_HELLO_SIZE], back[WIRE_NONCE_SIZE];
	struct err e = ERR_INIT;
	struct wire_hello h;

	(void)state;
	wire_encode_greeting(greeting, nonce);
	put_be16(greeting + 6, WIRE_VERSION + 1);
	assert_int_equal(wire_decode_greeting(greeting, back, &e), -1);
	assert_non_null(strstr(e.text, "receiver speaks wire version 2 and this one 1: install the same version"));
	wire_encode_hello(raw, &hello, token, nonce);
	put_be16(raw + 6, WIRE_VERSION + 1);
	assert_int_equal(wire_decode_hello(raw, token, nonce, &h, &e), -1);
	assert_non_null(strstr(e.text, "sender speaks wire version 2 and this one 1: install the same version"));
}

static void a_foreign_program_is_named_as_one(void **state)
{
	uint8_t greeting[WIRE_GREETING_SIZE] = "SSH-2.0-OpenSSH_9.2p1 Debian-2", back[WIRE_NONCE_SIZE];
	uint8_t raw[WIRE_HELLO_SIZE] = "GET / HTTP/1.1\r\n";
	struct err e = ERR_INIT;
	struct wire_hello h;

	(void)state;
	assert_int_equal(wire_decode_greeting(greeting, back, &e), -1);
	assert_non_null(strstr(e.text, "not a godwit-migrate receiver"));
	assert_int_equal(wire_decode_hello(raw, token, nonce, &h, &e), -1);
	assert_non_null(strstr(e.text, "not a godwit-migrate sender"));
	/* Two senders, or two receivers, are not a pair either. */
	wire_encode_greeting(greeting, nonce);
	memcpy(raw, greeting, sizeof(greeting));
	assert_int_equal(wire_decode_hello(raw, token, nonce, &h, &e), -1);
}

static void roles_and_channels_out_of_range_are_refused_though_the_proof_fits(void **state)
{
	static const struct wire_hello bad[] = {
		{.role = 0, .channel = 0, .channels = 1},
		{.role = WIRE_ROLE_MAX, .channel = 0, .channels = 1},
		{.role = WIRE_ROLE_DATA, .channel = 0, .channels = 0},
		{.role = WIRE_ROLE_DATA, .channel = 1, .channels = 1},
		{.role = WIRE_ROLE_DATA, .channel = 0, .channels = WIRE_CHANNELS_MAX + 1},
		{.role = WIRE_ROLE_DATA, .channel = 255, .channels = 255},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t raw[WIRE_HELLO_SIZE];
		struct err e = ERR_INIT;
		struct wire_hello back;

		wire_encode_hello(raw, &bad[i], token, nonce);
		assert_int_equal(wire_decode_hello(raw, token, nonce, &back, &e), -1);
		assert_int_equal(e.code, ERR_PROTOCOL);
	}
}

/* ---- bounds ---- */

/* A frame that a peer that knows the format, but not its limits, could send. */
struct bound {
	const char *what;
	struct wire_header h;
	struct wire_run runs[4];
	bool right;
};

#define FAR (UINT64_MAX / STREAM_PAGE_SIZE - WIRE_REACH)

/* clang-format off */
static const struct bound bounds[] = {
	{"type 0", {.type = 0}, {{0}}, false},
	{"a type between the groups", {.type = WIRE_END + 1}, {{0}}, false},
	{"a type behind the control group", {.type = WIRE_DONE + 1}, {{0}}, false},
	{"a type behind the last", {.type = WIRE_TYPE_MAX}, {{0}}, false},
	{"type 255", {.type = 255}, {{0}}, false},
	{"the most data", {.type = WIRE_STREAM, .length = WIRE_DATA_MAX}, {{0}}, true},
	{"one byte more", {.type = WIRE_STREAM, .length = WIRE_DATA_MAX + 1}, {{0}}, false},
	{"4 GiB of data", {.type = WIRE_INFO, .length = UINT32_MAX}, {{0}}, false},
	{"an index on a stream frame", {.type = WIRE_STREAM, .runs = 1}, {{0, 1}}, false},
	{"an index on a control frame", {.type = WIRE_GO, .runs = 1}, {{0, 1}}, false},
	{"pages without an index", {.type = WIRE_PAGES, .length = 0}, {{0}}, false},
	{"zeros without an index", {.type = WIRE_ZEROS}, {{0}}, false},
	{"64 pages in one run", {.type = WIRE_PAGES, .runs = 1, .length = 64 * 4096}, {{0, 64}}, true},
	{"65 pages", {.type = WIRE_PAGES, .runs = 1, .length = 64 * 4096}, {{0, 65}}, false},
	{"more index entries than pages fit", {.type = WIRE_PAGES, .runs = 65, .length = 4096}, {{0}}, false},
	{"fewer bytes than pages", {.type = WIRE_PAGES, .runs = 1, .length = 4096}, {{0, 2}}, false},
	{"more bytes than pages", {.type = WIRE_PAGES, .runs = 1, .length = 8192}, {{0, 1}}, false},
	{"half a page", {.type = WIRE_PAGES, .runs = 1, .length = 2048}, {{0, 1}}, false},
	{"zeros with bytes", {.type = WIRE_ZEROS, .runs = 1, .length = 1}, {{0, 1}}, false},
	{"more runs than allowed", {.type = WIRE_ZEROS, .runs = WIRE_RUNS_MAX + 1}, {{0}}, false},
	{"four billion runs", {.type = WIRE_ZEROS, .runs = UINT32_MAX}, {{0}}, false},
	{"an empty run", {.type = WIRE_ZEROS, .runs = 2}, {{0, 1}, {1, 0}}, false},
	{"runs that touch", {.type = WIRE_ZEROS, .runs = 2}, {{0, 1}, {1, 1}}, true},
	{"runs that overlap", {.type = WIRE_ZEROS, .runs = 2}, {{0, 2}, {1, 1}}, false},
	{"runs that go back", {.type = WIRE_ZEROS, .runs = 2}, {{4, 1}, {0, 1}}, false},
	{"the same run twice", {.type = WIRE_ZEROS, .runs = 2}, {{0, 1}, {0, 1}}, false},
	{"the last page in reach", {.type = WIRE_ZEROS, .runs = 1}, {{65535, 1}}, true},
	{"one page further", {.type = WIRE_ZEROS, .runs = 1}, {{65535, 2}}, false},
	{"the highest base", {.type = WIRE_ZEROS, .runs = 1, .base = FAR}, {{0, 1}}, true},
	{"a base above it", {.type = WIRE_ZEROS, .runs = 1, .base = FAR + 1}, {{0, 1}}, false},
	{"a base that would wrap", {.type = WIRE_ZEROS, .runs = 1, .base = UINT64_MAX}, {{0, 1}}, false},
};
/* clang-format on */

static void every_size_is_bounded(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bounds); i++) {
		const struct bound *b = &bounds[i];
		uint8_t raw[WIRE_HEADER_SIZE + WIRE_INDEX_MAX + WIRE_RUN_SIZE] = {0};
		struct golden g = {.h = b->h};
		struct err e = ERR_INIT;
		struct wire_header h;
		uint64_t pages;

		memcpy(g.runs, b->runs, sizeof(g.runs));
		if (g.h.runs > ARRAY_SIZE(g.runs)) {
			/* The index is not looked at before its size is. */
			g.h.runs = 0;
			encode(&g, raw);
			put_be32(raw + 4, b->h.runs);
		} else {
			encode(&g, raw);
		}
		if ((decode(raw, &h, &pages, &e) == 0) != b->right)
			fail_msg("%s: %s", b->what, b->right ? e.text : "was taken");
		assert_int_equal(e.code, b->right ? ERR_NONE : ERR_PROTOCOL);
	}
}

static void a_page_is_always_on_one_channel_and_regions_take_turns(void **state)
{
	unsigned long long count[WIRE_CHANNELS_MAX] = {0};

	(void)state;
	for (unsigned n = 1; n <= WIRE_CHANNELS_MAX; n++)
		for (uint64_t page = 0; page < 4 * WIRE_REGION_PAGES; page++) {
			assert_true(wire_channel_of(page, n) < n);
			assert_int_equal(wire_channel_of(page, n), wire_channel_of(page - page % WIRE_REGION_PAGES, n));
		}
	for (uint64_t page = 0; page < 30 * WIRE_REGION_PAGES; page++)
		count[wire_channel_of(page, 3)]++;
	assert_int_equal(count[0], 10 * WIRE_REGION_PAGES);
	assert_int_equal(count[1], count[0]);
	assert_int_equal(count[2], count[0]);
}

static void the_sum_tells_pages_apart(void **state)
{
	uint8_t page[4096] = {0};
	uint64_t zero = wire_sum(page, sizeof(page));

	(void)state;
	/* XXH3-64 of nothing, as its specification has it. */
	assert_int_equal(wire_sum("", 0), 0x2d06800538d394c2);
	for (size_t i = 0; i < sizeof(page); i += 97) {
		page[i] = 1;
		assert_true(wire_sum(page, sizeof(page)) != zero);
		page[i] = 0;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_frame_has_its_golden_bytes),
		cmocka_unit_test(every_kind_of_frame_is_read_as_it_was_written),
		cmocka_unit_test(every_type_has_a_golden_frame_and_a_name),
		cmocka_unit_test(the_greeting_has_its_golden_bytes),
		cmocka_unit_test(the_hello_has_its_golden_bytes),
		cmocka_unit_test(any_changed_byte_of_header_or_index_is_found),
		cmocka_unit_test(any_changed_byte_of_a_hello_is_found),
		cmocka_unit_test(a_wrong_token_is_an_authentication_failure_with_the_way_out),
		cmocka_unit_test(a_hello_for_another_nonce_is_refused),
		cmocka_unit_test(another_version_is_named_on_both_sides),
		cmocka_unit_test(a_foreign_program_is_named_as_one),
		cmocka_unit_test(roles_and_channels_out_of_range_are_refused_though_the_proof_fits),
		cmocka_unit_test(every_size_is_bounded),
		cmocka_unit_test(a_page_is_always_on_one_channel_and_regions_take_turns),
		cmocka_unit_test(the_sum_tells_pages_apart),
	};

	return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
