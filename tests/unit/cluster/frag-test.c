/* SPDX-License-Identifier: Apache-2.0 */
/* Splitting and joining of messages: golden bytes, and what becomes of pieces that are lost, mixed or lies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cluster/bus.h"
#include "cluster/frag.h"

#define LIMIT 1000

static void the_bytes_of_a_piece_are_these(void **state)
{
	static const uint8_t golden[FRAG_HEADER_SIZE] = {'F', 1, 0, 0, 0, 0, 1, 2, 0, 3, 4, 5, 0, 0, 6, 7};
	uint8_t header[FRAG_HEADER_SIZE];

	(void)state;
	frag_header(header, 0x102, 0x30405, 0x607);
	assert_memory_equal(header, golden, sizeof(golden));
}

/* A piece of message @number: its @total bytes are 0, 1, 2, ... */
struct piece {
	uint32_t node, number, total, offset, size;
	int result;
};

static int take(struct frag_joiner *j, const struct piece *p, const uint8_t **ret, size_t *ret_size)
{
	uint8_t data[FRAG_HEADER_SIZE + LIMIT];
	struct err e = ERR_INIT;
	int r;

	frag_header(data, p->number, p->total, p->offset);
	for (uint32_t i = 0; i < p->size; i++)
		data[FRAG_HEADER_SIZE + i] = (uint8_t)(p->offset + i);
	r = frag_joiner_take(j, p->node, data, FRAG_HEADER_SIZE + p->size, ret, ret_size, &e);
	assert_true((r < 0) == (e.code == ERR_PROTOCOL));
	for (size_t i = 0; r == 1 && i < *ret_size; i++)
		assert_int_equal(r == 1 && *ret_size == p->total ? (*ret)[i] : -1, (uint8_t)i);
	return r;
}

/* Each row: pieces as they come, and what is said to each. */
static const struct {
	const char *what;
	struct piece pieces[6];
} rows[] = {
	{"a message of one piece", {{1, 1, 10, 0, 10, 1}}},
	{"a message of three", {{1, 1, 30, 0, 10, 0}, {1, 1, 30, 10, 10, 0}, {1, 1, 30, 20, 10, 1}}},
	{"two senders in turn",
	 {{1, 7, 20, 0, 10, 0}, {2, 7, 20, 0, 15, 0}, {1, 7, 20, 10, 10, 1}, {2, 7, 20, 15, 5, 1}}},
	{"the middle is lost, the next message is whole",
	 {{1, 1, 30, 0, 10, 0}, {1, 1, 30, 20, 10, -1}, {1, 2, 20, 0, 10, 0}, {1, 2, 20, 10, 10, 1}}},
	{"the beginning is lost", {{1, 1, 30, 10, 10, -1}, {1, 1, 30, 20, 10, -1}, {1, 2, 5, 0, 5, 1}}},
	{"the end is lost", {{1, 1, 30, 0, 10, 0}, {1, 2, 20, 0, 10, 0}, {1, 2, 20, 10, 10, 1}}},
	{"messages of one piece between the pieces of another",
	 {{1, 1, 30, 0, 10, 0}, {1, 2, 5, 0, 5, 1}, {1, 1, 30, 10, 10, 0}, {1, 3, 5, 0, 5, 1}, {1, 1, 30, 20, 10, 1}}},
	{"the end is lost, the next is of one piece",
	 {{1, 1, 30, 0, 10, 0}, {1, 2, 5, 0, 5, 1}, {1, 3, 30, 10, 10, -1}}},
	{"a piece comes twice",
	 {{1, 1, 30, 0, 10, 0}, {1, 1, 30, 10, 10, 0}, {1, 1, 30, 10, 10, -1}, {1, 1, 30, 20, 10, -1}}},
	{"the size changes its mind", {{1, 1, 30, 0, 10, 0}, {1, 1, 40, 10, 10, -1}}},
	{"larger than the limit", {{1, 1, LIMIT + 1, 0, 10, -1}}},
	{"a piece that leaves its message", {{1, 1, 30, 25, 10, -1}, {1, 1, 30, 31, 0, -1}, {1, 1, 30, 0, 31, -1}}},
	{"a piece of nothing", {{1, 1, 30, 0, 0, -1}}},
};

static void pieces_are_joined_in_order_or_dropped(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct frag_joiner *j = frag_joiner_new(LIMIT);

		for (const struct piece *p = rows[i].pieces; p->node; p++) {
			const uint8_t *data = NULL;
			size_t size = 0;

			if (take(j, p, &data, &size) != p->result)
				fail_msg("%s: piece %d", rows[i].what, (int)(p - rows[i].pieces));
			if (p->result == 1)
				assert_int_equal(size, p->total);
		}
		frag_joiner_free(j);
	}
}

static void bytes_that_are_no_piece_are_refused(void **state)
{
	struct frag_joiner *j = frag_joiner_new(LIMIT);
	uint8_t bytes[FRAG_HEADER_SIZE + 1] = {0};
	const uint8_t *data;
	struct err e = ERR_INIT;
	size_t size;

	(void)state;
	assert_int_equal(frag_joiner_take(j, 1, bytes, sizeof(bytes), &data, &size, &e), -1);
	frag_header(bytes, 1, 1, 0);
	assert_int_equal(frag_joiner_take(j, 1, bytes, FRAG_HEADER_SIZE - 1, &data, &size, &e), -1);
	bytes[1] = FRAG_VERSION + 1;
	assert_int_equal(frag_joiner_take(j, 1, bytes, sizeof(bytes), &data, &size, &e), -1);
	assert_non_null(strstr(e.text, "format 2"));
	frag_joiner_free(j);
}

static void what_a_sender_that_left_had_begun_is_forgotten(void **state)
{
	struct frag_joiner *j = frag_joiner_new(LIMIT);
	struct piece first = {1, 1, 20, 0, 10, 0}, last = {1, 1, 20, 10, 10, 0};
	const uint8_t *data;
	size_t size;

	(void)state;
	assert_int_equal(take(j, &first, &data, &size), 0);
	frag_joiner_forget(j, 1);
	frag_joiner_forget(j, 2);
	assert_int_equal(take(j, &last, &data, &size), -1);
	frag_joiner_free(j);
}

static void more_senders_than_nodes_are_not_kept(void **state)
{
	struct frag_joiner *j = frag_joiner_new(LIMIT);
	const uint8_t *data;
	size_t size;

	(void)state;
	for (uint32_t i = 0; i <= BUS_NODES_MAX; i++) {
		struct piece p = {i + 1, 1, 20, 0, 10, 0};

		assert_int_equal(take(j, &p, &data, &size), i < BUS_NODES_MAX ? 0 : -1);
	}
	frag_joiner_free(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_bytes_of_a_piece_are_these),
		cmocka_unit_test(pieces_are_joined_in_order_or_dropped),
		cmocka_unit_test(bytes_that_are_no_piece_are_refused),
		cmocka_unit_test(what_a_sender_that_left_had_begun_is_forgotten),
		cmocka_unit_test(more_senders_than_nodes_are_not_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
