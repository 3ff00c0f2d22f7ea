/* SPDX-License-Identifier: Apache-2.0 */
/* Beats: their bytes, and bytes that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cluster/beat.h"

static const struct beat example = {.incarnation = 0x0102030405060708,
				    .number = 0x1112131415161718,
				    .n = 2,
				    .entries = {{1, 0x0102030405060708, 0x1112131415161718, 0},
						{0x21222324, 0x3132333435363738, 0x4142434445464748, 0x51525354}}};

static const uint8_t golden[] = {'B',  1,    0,    2,    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x11, 0x12,
				 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0,    0,    0,    1,    0x01, 0x02, 0x03, 0x04,
				 0x05, 0x06, 0x07, 0x08, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0,    0,
				 0,    0,    0x21, 0x22, 0x23, 0x24, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38,
				 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x51, 0x52, 0x53, 0x54};

static void the_bytes_of_a_beat_are_these(void **state)
{
	uint8_t buf[BEAT_SIZE_MAX];
	struct beat b;

	(void)state;
	assert_int_equal(beat_encode(&example, buf), sizeof(golden));
	assert_memory_equal(buf, golden, sizeof(golden));
	assert_int_equal(beat_decode(golden, sizeof(golden), &b, NULL), 0);
	assert_true(b.incarnation == example.incarnation && b.number == example.number && b.n == 2);
	assert_true(b.entries[1].node == 0x21222324 && b.entries[1].age_ms == 0x51525354);
}

/* One byte of the golden ones changed. */
static const struct {
	size_t at;
	uint8_t value;
	enum err_code code;
} rows[] = {
	{0, 'G', ERR_PROTOCOL}, {1, 2, ERR_UNSUPPORTED}, {2, 1, ERR_PROTOCOL},  {3, 1, ERR_PROTOCOL},
	{3, 3, ERR_PROTOCOL},   {3, 0, ERR_PROTOCOL},    {23, 0, ERR_PROTOCOL}, /* id 0 */
};

static void bytes_that_are_no_beat_are_refused(void **state)
{
	uint8_t bytes[sizeof(golden)];
	struct err e = ERR_INIT;
	struct beat b;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		memcpy(bytes, golden, sizeof(bytes));
		bytes[rows[i].at] = rows[i].value;
		assert_int_equal(beat_decode(bytes, sizeof(bytes), &b, &e), -1);
		assert_int_equal(e.code, rows[i].code);
	}
	for (size_t n = 0; n < sizeof(golden); n++)
		assert_int_equal(beat_decode(golden, n, &b, &e), -1);
	memcpy(bytes, golden, sizeof(bytes));
	memset(bytes + 44, 0, 4); /* ids out of order */
	assert_int_equal(beat_decode(bytes, sizeof(bytes), &b, &e), -1);
	memcpy(bytes, golden, sizeof(bytes));
	memset(bytes + 12, 0, 8); /* no number */
	assert_int_equal(beat_decode(bytes, sizeof(bytes), &b, &e), -1);
	memcpy(bytes, golden, sizeof(bytes));
	memset(bytes + 48, 0, 8); /* an entry with a number and no incarnation */
	assert_int_equal(beat_decode(bytes, sizeof(bytes), &b, &e), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_bytes_of_a_beat_are_these),
		cmocka_unit_test(bytes_that_are_no_beat_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
