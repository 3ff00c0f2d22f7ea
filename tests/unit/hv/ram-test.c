/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM: its seals, that it costs nothing untouched, and finding it in another process. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "hv/ram.h"

#define SIZE (64ULL << 20)

static void size_is_sealed_and_no_page_is_touched(void **state)
{
	struct err e = ERR_INIT;
	int fd = ram_create("t", SIZE, false, &e);
	struct stat st;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, SIZE);
	assert_int_equal(st.st_blocks, 0);
	assert_int_equal(ftruncate(fd, 4096), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, SIZE * 2), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1); /* nobody can make it unwritable either */
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	close(fd);
}

static void huge_pages_that_are_not_there_are_a_sentence(void **state)
{
	struct err e = ERR_INIT;
	int fd = ram_create("t", 1ULL << 42, true, &e); /* 4 TiB: more than any test host has reserved */

	(void)state;
	assert_int_equal(fd, -1);
	assert_non_null(strstr(e.text, "huge pages"));
}

static void opened_through_proc_it_is_the_same_memory(void **state)
{
	struct err e = ERR_INIT;
	int fd = ram_create("t", SIZE, false, &e), again;
	_free_ char *path = xasprintf("/proc/self/fd/%d", fd);
	uint64_t size = 0;
	char c = 'x', back = 0;

	(void)state;
	again = ram_open(getpid(), path, &size, &e);
	assert_true(again >= 0);
	assert_int_equal(size, SIZE);
	assert_int_equal(pwrite(fd, &c, 1, 12345), 1);
	assert_int_equal(pread(again, &back, 1, 12345), 1);
	assert_int_equal(back, 'x');
	close(fd);
	close(again);
}

static void what_is_not_ours_is_refused(void **state)
{
	static const char *const paths[] = {"/dev/shm/guest",     "/proc/self/fd/",        "/proc/self/fd/7x",
					    "/proc/self/fd/../1", "/proc/self/fd/-1",      "",
					    "/proc/1/fd/3",       "/proc/self/fd/99999999"};
	struct err e = ERR_INIT;
	uint64_t size = 7;
	int plain = memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	_free_ char *path = xasprintf("/proc/self/fd/%d", plain);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		assert_int_equal(ram_open(getpid(), paths[i], &size, &e), -1);
	assert_int_equal(ram_open(getpid(), path, &size, &e), -1);
	assert_non_null(strstr(e.text, "can change its size"));
	assert_int_equal(size, 7);
	close(plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(size_is_sealed_and_no_page_is_touched),
		cmocka_unit_test(huge_pages_that_are_not_there_are_a_sentence),
		cmocka_unit_test(opened_through_proc_it_is_the_same_memory),
		cmocka_unit_test(what_is_not_ours_is_refused),
	};

	return cmocka_run_group_tests_name("hv/ram", tests, NULL, NULL);
}
