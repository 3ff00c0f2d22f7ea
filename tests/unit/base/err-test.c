/* SPDX-License-Identifier: Apache-2.0 */
/* The error object: what it says after filling, wrapping and overflowing. */
#include "base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void an_error_has_a_code_and_a_sentence(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	e.errnum = 5;
	assert_int_equal(err_set(&e, ERR_INPUT, "disk %d: too small", 3), -1);
	assert_int_equal(e.code, ERR_INPUT);
	assert_int_equal(e.errnum, 0);
	assert_string_equal(e.text, "disk 3: too small");
}

static void a_failed_system_call_keeps_its_errno_and_says_it(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	errno = ENOENT;
	assert_int_equal(err_sys(&e, "open %s", "web1.json"), -1);
	assert_int_equal(e.code, ERR_SYSTEM);
	assert_int_equal(e.errnum, ENOENT);
	assert_string_equal(e.text, "open web1.json: No such file or directory");
}

static void wrapping_puts_context_in_front_and_keeps_code_and_errno(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	errno = EACCES;
	err_sys(&e, "open a");
	assert_int_equal(err_wrap(&e, "guest %s", "web1"), -1);
	assert_int_equal(err_wrap(&e, "migrate"), -1);
	assert_int_equal(e.code, ERR_SYSTEM);
	assert_int_equal(e.errnum, EACCES);
	assert_string_equal(e.text, "migrate: guest web1: open a: Permission denied");
}

static void a_sentence_that_is_too_long_is_cut_and_still_ends(void **state)
{
	char longer[2 * ERR_TEXT_MAX];
	struct {
		struct err e;
		char guard[8];
	} box = {ERR_INIT, "guarded"};

	(void)state;
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	err_set(&box.e, ERR_PEER, "%s", longer);
	assert_int_equal(strlen(box.e.text), ERR_TEXT_MAX - 1);
	err_wrap(&box.e, "%s", longer);
	assert_int_equal(strlen(box.e.text), ERR_TEXT_MAX - 1);
	errno = EIO;
	err_sys(&box.e, "%s", longer);
	assert_int_equal(strlen(box.e.text), ERR_TEXT_MAX - 1);
	assert_string_equal(box.guard, "guarded");
}

static void no_error_object_is_fine(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, ERR_PEER, "x"), -1);
	assert_int_equal(err_sys(NULL, "x"), -1);
	assert_int_equal(err_wrap(NULL, "x"), -1);
}

static void every_code_has_a_name_of_its_own(void **state)
{
	(void)state;
	for (int i = 0; i < ERR_CODE_MAX; i++) {
		assert_non_null(err_code_name((enum err_code)i));
		for (int j = 0; j < i; j++)
			assert_string_not_equal(err_code_name((enum err_code)i), err_code_name((enum err_code)j));
	}
	assert_string_equal(err_code_name(ERR_CODE_MAX), "unknown");
}

static void every_failure_has_an_http_status_and_an_exit_status_of_a_failure(void **state)
{
	(void)state;
	for (int i = ERR_NONE + 1; i < ERR_CODE_MAX; i++) {
		assert_in_range(err_http_status((enum err_code)i), 400, 599);
		assert_in_range(err_exit_status((enum err_code)i), 1, 8);
	}
	assert_int_equal(err_http_status(ERR_NONE), 200);
	assert_int_equal(err_exit_status(ERR_NONE), 0);
	assert_int_equal(err_http_status(ERR_NOTFOUND), 404);
	assert_int_equal(err_http_status(ERR_UNAVAILABLE), 503);
	assert_int_equal(err_exit_status(ERR_CONFLICT), 5);
	assert_int_equal(err_http_status(ERR_CODE_MAX), 500);
	assert_int_equal(err_exit_status(ERR_CODE_MAX), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_error_has_a_code_and_a_sentence),
		cmocka_unit_test(a_failed_system_call_keeps_its_errno_and_says_it),
		cmocka_unit_test(wrapping_puts_context_in_front_and_keeps_code_and_errno),
		cmocka_unit_test(a_sentence_that_is_too_long_is_cut_and_still_ends),
		cmocka_unit_test(no_error_object_is_fine),
		cmocka_unit_test(every_code_has_a_name_of_its_own),
		cmocka_unit_test(every_failure_has_an_http_status_and_an_exit_status_of_a_failure),
	};

	return cmocka_run_group_tests_name("base/err", tests, NULL, NULL);
}
