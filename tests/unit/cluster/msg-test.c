/* SPDX-License-Identifier: Apache-2.0 */
/* The members' messages: golden bytes, a round trip of every type, and bytes that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cluster/msg.h"

static void entries_are_encoded_to_these_bytes(void **state)
{
	static const uint8_t golden[] = {
		'G', 1, MSG_ENTRIES, MSG_FAILED, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, /* history */
		0,   0, 0,           3,                                                          /* to */
		0,   0, 0,           0,          0,    0,    0,    7,                            /* epoch */
		0,   0, 0,           0,          0,    0,    0,    6,       /* epoch of the entry before */
		0,   0, 0,           0,          0,    0,    1,    0,       /* its index */
		0,   0, 0,           0,          0,    0,    0,    255,     /* commit */
		0,   0, 0,           1,                                     /* count */
		1,   0, 0,           0,          0,    0,    0,    0,    7, /* kind, epoch */
		0,   0, 0,           2,                                     /* node */
		0,   0, 0,           0,          0,    0,    0,    9,       /* seq */
		0,   0, 0,           1,                                     /* version */
		0,   0, 0,           2,          'h',  'i',                 /* size, data */
	};
	struct msg m = {.type = MSG_ENTRIES,
			.flags = MSG_FAILED,
			.history = 0x0123456789abcdef,
			.to = 3,
			.epoch = 7,
			.last_epoch = 6,
			.last_index = 256,
			.commit = 255};
	struct entry *e = entry_new(ENTRY_COMMAND, "hi", 2);
	struct msg_buf b = {0};

	(void)state;
	e->epoch = 7;
	e->node = 2;
	e->seq = 9;
	e->version = 1;
	msg_begin(&b, &m);
	msg_item(&b, e);
	assert_int_equal(b.len, sizeof(golden));
	assert_memory_equal(b.data, golden, sizeof(golden));
	entry_unref(e);
	free(b.data);
}

static struct msg every_field(enum msg_type type)
{
	struct msg m = {.type = type,
			.flags = MSG_LEARNER,
			.history = 1,
			.ring = {2, 3},
			.round = 4,
			.to = 5,
			.epoch = 6,
			.promised = 7,
			.last_epoch = 8,
			.last_index = 9,
			.index = 10,
			.commit = 11,
			.version = 12,
			.seq = 13,
			.snapshot = 14,
			.offset = 15,
			.size = 16};

	memset(m.chain, 17, sizeof(m.chain));
	memset(m.state, 18, sizeof(m.state));
	return m;
}

static void every_type_survives_the_way_and_no_shorter_message_does(void **state)
{
	struct entry *e = entry_new(ENTRY_CHECK, "abc", 3), *back;
	struct msg_buf b = {0}, again = {0};

	(void)state;
	for (int type = 1; type < MSG_TYPE_MAX; type++) {
		struct msg m = every_field((enum msg_type)type), out;

		msg_begin(&b, &m);
		if (type == MSG_PROPOSE || type == MSG_ENTRIES)
			msg_item(&b, e);
		assert_int_equal(msg_decode(b.data, b.len, &out, NULL), 0);
		for (size_t n = 0; n < b.len; n++) {
			struct err err = ERR_INIT;
			struct msg none;

			assert_int_equal(msg_decode(b.data, n, &none, &err), -1);
			assert_int_equal(err.code, ERR_PROTOCOL);
		}
		msg_begin(&again, &out);
		if ((back = msg_next(&out))) {
			msg_item(&again, back);
			entry_unref(back);
		}
		assert_null(msg_next(&out));
		assert_int_equal(again.len, b.len);
		assert_memory_equal(again.data, b.data, b.len);
	}
	entry_unref(e);
	free(b.data);
	free(again.data);
}

static void a_count_or_a_size_that_lies_is_refused(void **state)
{
	struct msg m = every_field(MSG_PROPOSE), out;
	struct entry *e = entry_new(ENTRY_COMMAND, "abc", 3);
	struct msg_buf b = {0};

	(void)state;
	msg_begin(&b, &m);
	msg_item(&b, e);
	b.data[b.count_at + 3] = 2;
	assert_int_equal(msg_decode(b.data, b.len, &out, NULL), -1);
	b.data[b.count_at] = 0xff;
	assert_int_equal(msg_decode(b.data, b.len, &out, NULL), -1);
	b.data[b.count_at] = 0;
	b.data[b.count_at + 3] = 1;
	assert_int_equal(msg_decode(b.data, b.len, &out, NULL), 0);
	memset(b.data + b.count_at + 4 + 25, 0xff, 4);
	assert_int_equal(msg_decode(b.data, b.len, &out, NULL), -1);
	entry_unref(e);
	free(b.data);
}

static void another_format_is_refused_by_name(void **state)
{
	struct msg m = every_field(MSG_ACK), out;
	struct err err = ERR_INIT;
	struct msg_buf b = {0};

	(void)state;
	msg_begin(&b, &m);
	b.data[1] = 9;
	assert_int_equal(msg_decode(b.data, b.len, &out, &err), -1);
	assert_non_null(strstr(err.text, "format 9"));
	assert_non_null(strstr(err.text, "same release"));
	b.data[1] = MSG_VERSION;
	b.data[2] = MSG_TYPE_MAX;
	assert_int_equal(msg_decode(b.data, b.len, &out, &err), -1);
	free(b.data);
}

static void an_entry_lives_as_long_as_its_last_reference(void **state)
{
	struct entry *e = entry_new(ENTRY_COMMAND, "x", 1), *other = entry_ref(e);

	(void)state;
	entry_unref(e);
	assert_int_equal(other->data[0], 'x');
	entry_unref(other);
	entry_unref(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entries_are_encoded_to_these_bytes),
		cmocka_unit_test(every_type_survives_the_way_and_no_shorter_message_does),
		cmocka_unit_test(a_count_or_a_size_that_lies_is_refused),
		cmocka_unit_test(another_format_is_refused_by_name),
		cmocka_unit_test(an_entry_lives_as_long_as_its_last_reference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
