/* SPDX-License-Identifier: Apache-2.0 */
/* Files replaced whole: contents, modes, what is left behind when it fails. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

static char dir[] = "/tmp/godwit-file-XXXXXX";

static char *in_dir(const char *name)
{
	return xasprintf("%s/%s", dir, name);
}

static int count_files(void)
{
	DIR *d = opendir(dir);
	int n = 0;

	assert_non_null(d);
	for (struct dirent *entry; (entry = readdir(d));)
		n += entry->d_name[0] != '.';
	closedir(d);
	return n;
}

static void what_is_written_is_read_back_with_the_mode_asked_for(void **state)
{
	_free_ char *path = in_dir("a");
	_free_ char *back = NULL;
	struct err e = ERR_INIT;
	struct stat st;
	size_t size;

	(void)state;
	umask(077);
	assert_int_equal(file_write_atomic(path, "one\0two", 7, 0644, (gid_t)-1, &e), 0);
	assert_int_equal(file_write_atomic(path, "three\0four", 10, 0640, getgid(), &e), 0);
	back = file_read(path, 10, &size, &e);
	assert_non_null(back);
	assert_int_equal(size, 10);
	assert_memory_equal(back, "three\0four", 11);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(count_files(), 1);
	unlink(path);
}

static void empty_file_is_read_as_an_empty_text(void **state)
{
	_free_ char *path = in_dir("empty");
	_free_ char *back = NULL;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(file_write_atomic(path, "", 0, 0600, (gid_t)-1, &e), 0);
	back = file_read(path, 10, NULL, &e);
	assert_string_equal(back, "");
	unlink(path);
}

static void file_over_the_limit_is_refused(void **state)
{
	_free_ char *path = in_dir("big");
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(file_write_atomic(path, "123456", 6, 0600, (gid_t)-1, &e), 0);
	assert_null(file_read(path, 5, NULL, &e));
	assert_int_equal(e.code, ERR_INPUT);
	assert_non_null(strstr(e.text, "larger than 5 bytes"));
	unlink(path);
}

static void missing_file_is_named(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_null(file_read("/no/such/file", 10, NULL, &e));
	assert_int_equal(e.errnum, ENOENT);
	assert_non_null(strstr(e.text, "/no/such/file"));
	assert_int_equal(file_write_atomic("/no/such/file", "a", 1, 0600, (gid_t)-1, &e), -1);
	assert_int_equal(e.errnum, ENOENT);
}

static void failed_replacement_leaves_the_old_file_and_nothing_else(void **state)
{
	_free_ char *path = in_dir("full");
	_free_ char *inside = in_dir("full/inside");
	struct err e = ERR_INIT;

	(void)state;
	/* A folder that is not empty cannot be replaced by a file: the last step fails. */
	assert_int_equal(mkdir(path, 0755), 0);
	assert_int_equal(mkdir(inside, 0755), 0);
	assert_int_equal(file_write_atomic(path, "a", 1, 0600, (gid_t)-1, &e), -1);
	assert_int_equal(count_files(), 1);
	rmdir(inside);
	rmdir(path);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read_back_with_the_mode_asked_for),
		cmocka_unit_test(empty_file_is_read_as_an_empty_text),
		cmocka_unit_test(file_over_the_limit_is_refused),
		cmocka_unit_test(missing_file_is_named),
		cmocka_unit_test(failed_replacement_leaves_the_old_file_and_nothing_else),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
