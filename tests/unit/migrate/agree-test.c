/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the agreement: what is an answer, and when it is asked and waited for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above it. */
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "migrate/agree.h"

#define MIB (1ULL << 20)

static void without_a_descriptor_nobody_is_asked(void **state)
{
	struct agree a = {.fd = -1};

	(void)state;
	assert_true(agree_given(&a));
	assert_int_equal(agree_look(&a, NULL), 0);
}

static void first_byte_in_a_pipe_is_the_answer_and_stands(void **state)
{
	static const struct {
		const char *bytes;
		enum agree_answer answer;
	} rows[] = {{"y", AGREE_YES}, {"yn", AGREE_YES}, {"n", AGREE_NO}, {"ny", AGREE_NO}, {"\n", AGREE_NO}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct err e = ERR_INIT;
		struct agree a = {0};
		int fds[2];

		assert_int_equal(pipe(fds), 0);
		a.fd = fds[0];
		assert_int_equal(agree_look(&a, &e), 0);
		assert_int_equal(a.answer, AGREE_NOT_YET);
		assert_false(agree_given(&a));
		assert_int_equal(write(fds[1], rows[i].bytes, strlen(rows[i].bytes)), strlen(rows[i].bytes));
		for (int again = 0; again < 2; again++) {
			assert_int_equal(agree_look(&a, &e), rows[i].answer == AGREE_YES ? 0 : -1);
			assert_int_equal(a.answer, rows[i].answer);
		}
		assert_int_equal(agree_given(&a), rows[i].answer == AGREE_YES);
		assert_int_equal(e.code, rows[i].answer == AGREE_YES ? ERR_NONE : ERR_CANCELLED);
		close(fds[0]);
		close(fds[1]);
	}
}

static void pipe_that_nobody_can_write_to_any_more_is_a_no(void **state)
{
	struct err e = ERR_INIT;
	struct agree a = {0};
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	a.fd = fds[0];
	close(fds[1]);
	assert_int_equal(agree_look(&a, &e), -1);
	assert_string_equal(e.text, "the hand-over was not agreed to: nobody is left who could");
	assert_false(agree_given(&a));
	close(fds[0]);
}

static void yes_that_was_written_before_the_pipe_closed_counts(void **state)
{
	struct agree a = {0};
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	a.fd = fds[0];
	assert_int_equal(write(fds[1], "y", 1), 1);
	close(fds[1]);
	assert_int_equal(agree_look(&a, NULL), 0);
	assert_true(agree_given(&a));
	close(fds[0]);
}

static void empty_file_is_no_answer_until_somebody_appends_to_it(void **state)
{
	_closefd_ int fd = memfd_create("agree", MFD_CLOEXEC);
	struct agree a = {.fd = fd};

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(agree_look(&a, NULL), 0);
	assert_int_equal(a.answer, AGREE_NOT_YET);
	assert_int_equal(pwrite(fd, "y", 1, 0), 1);
	assert_int_equal(agree_look(&a, NULL), 0);
	assert_true(agree_given(&a));
}

/* Asked before it is waited for, on every wire; never before the first pass, always after it. */
static void asking_comes_before_holding(void **state)
{
	static const uint64_t rates[] = {0, 10 * MIB, 100 * MIB, 1000 * MIB, 10000 * MIB};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		uint64_t ask = 0, hold = 0;

		for (uint64_t left = 0; left < 64ULL << 30; left += MIB) {
			ask = agree_due(1, left, rates[i]) ? left : ask;
			hold = agree_must_hold(1, left, rates[i]) ? left : hold;
		}
		/* A fifth of a second of the wire in between, or where it is slow, much more. */
		assert_true(ask >= hold + rates[i] / 5 && hold >= 15 * MIB && hold >= rates[i] / 17);
		assert_false(agree_due(0, 0, rates[i]));
		assert_false(agree_must_hold(0, 0, rates[i]));
		assert_true(agree_due(2, 64ULL << 30, rates[i]));
		assert_true(agree_must_hold(2, 64ULL << 30, rates[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_descriptor_nobody_is_asked),
		cmocka_unit_test(first_byte_in_a_pipe_is_the_answer_and_stands),
		cmocka_unit_test(pipe_that_nobody_can_write_to_any_more_is_a_no),
		cmocka_unit_test(yes_that_was_written_before_the_pipe_closed_counts),
		cmocka_unit_test(empty_file_is_no_answer_until_somebody_appends_to_it),
		cmocka_unit_test(asking_comes_before_holding),
	};

	return cmocka_run_group_tests_name("migrate/agree", tests, NULL, NULL);
}
