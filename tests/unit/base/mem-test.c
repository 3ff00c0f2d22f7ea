/* SPDX-License-Identifier: Apache-2.0 */
/* Memory helpers: bounds, clean-up at the end of a scope, handing over. */
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void memory_starts_as_zeros_and_empty_requests_work(void **state)
{
	_free_ unsigned char *p = xcalloc(100, 3);
	_free_ void *none = xcalloc(0, 0);

	(void)state;
	assert_non_null(none);
	for (int i = 0; i < 300; i++)
		assert_int_equal(p[i], 0);
}

static void a_size_beyond_its_limit_is_refused_by_name(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_null(mem_bounded(101, 100, "reply", &e));
	assert_int_equal(e.code, ERR_PROTOCOL);
	assert_string_equal(e.text, "reply of 101 bytes is larger than the limit of 100");
}

static void a_size_up_to_its_limit_is_given_zeroed(void **state)
{
	struct err e = ERR_INIT;
	_free_ unsigned char *p = mem_bounded(100, 100, "reply", &e);
	_free_ void *none = mem_bounded(0, 100, "reply", &e);

	(void)state;
	assert_non_null(p);
	assert_non_null(none);
	assert_int_equal(p[0] | p[99], 0);
	assert_int_equal(e.code, ERR_NONE);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void a_descriptor_is_closed_where_its_scope_ends_and_errno_stays(void **state)
{
	int copy;

	(void)state;
	{
		_closefd_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

		copy = fd;
		assert_true(is_open(copy));
		errno = ENOTUNIQ;
	}
	assert_int_equal(errno, ENOTUNIQ);
	assert_false(is_open(copy));
}

static void what_is_stolen_survives_its_scope(void **state)
{
	char *text;
	int fd;

	(void)state;
	{
		_free_ char *mine = xasprintf("%s-%d", "a", 7);
		_closefd_ int mine_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

		text = steal_ptr(mine);
		fd = steal_fd(&mine_fd);
		assert_null(mine);
		assert_int_equal(mine_fd, -1);
	}
	assert_string_equal(text, "a-7");
	assert_true(is_open(fd));
	free(text);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_starts_as_zeros_and_empty_requests_work),
		cmocka_unit_test(a_size_beyond_its_limit_is_refused_by_name),
		cmocka_unit_test(a_size_up_to_its_limit_is_given_zeroed),
		cmocka_unit_test(a_descriptor_is_closed_where_its_scope_ends_and_errno_stays),
		cmocka_unit_test(what_is_stolen_survives_its_scope),
	};

	return cmocka_run_group_tests_name("base/mem", tests, NULL, NULL);
}
