/* SPDX-License-Identifier: Apache-2.0 */
/* check: waits */
/* The watchdog device, against the double of tests/tools/watchdog-preload.c: this program runs itself again with it. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "fencing/watchdog.h"

static char folder[64], device[96], log_path[112], expired[96];

static int setup(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/watchdog-test-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(device, sizeof(device), "%s/watchdog", folder);
	snprintf(log_path, sizeof(log_path), "%s.log", device);
	snprintf(expired, sizeof(expired), "%s/expired", folder);
	setenv("WATCHDOG_DOUBLE", device, 1);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	unsetenv("WATCHDOG_DOUBLE_MIN");
	unsetenv("WATCHDOG_DOUBLE_MAX");
	unsetenv("WATCHDOG_DOUBLE_FIXED");
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static bool wait_for(const char *path, int seconds)
{
	for (int i = 0; i < seconds * 100; i++) {
		if (access(path, F_OK) == 0)
			return true;
		usleep(10000);
	}
	return false;
}

static void expiry_makes(const char *path)
{
	char command[128];

	snprintf(command, sizeof(command), "touch %s", path);
	setenv("WATCHDOG_DOUBLE_EXPIRED", command, 1);
}

static bool logged(const char *what)
{
	_free_ char *text = file_read(log_path, 1 << 20, NULL, NULL);

	return text && strstr(text, what);
}

static void it_is_armed_petted_and_disarmed(void **state)
{
	struct watchdog w = WATCHDOG_INIT;
	struct err e = ERR_INIT;

	(void)state;
	expiry_makes(expired);
	if (watchdog_open(device, 2, &w, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(w.timeout_s, 2);
	assert_string_equal(w.identity, "watchdog double");
	for (int i = 0; i < 7; i++) {
		usleep(500000);
		assert_int_equal(watchdog_pet(&w, &e), 0);
	}
	watchdog_close(&w);
	assert_int_equal(w.fd, -1);
	assert_false(wait_for(expired, 3));
	assert_true(logged(" close 1\n"));
}

/* What everything else counts on: the double does expire. */
static void it_expires_when_it_is_not_petted(void **state)
{
	struct watchdog w = WATCHDOG_INIT;
	int64_t from = clock_now_ns();

	(void)state;
	expiry_makes(expired);
	assert_int_equal(watchdog_open(device, 1, &w, NULL), 0);
	assert_true(wait_for(expired, 10));
	assert_true(clock_now_ns() - from >= NS_PER_S);
	watchdog_close(&w);
}

static void a_longer_time_out_is_told_and_a_shorter_one_refused(void **state)
{
	struct watchdog w = WATCHDOG_INIT;
	struct err e = ERR_INIT;

	(void)state;
	setenv("WATCHDOG_DOUBLE_MIN", "30", 1);
	assert_int_equal(watchdog_open(device, 3, &w, &e), 0);
	assert_int_equal(w.timeout_s, 30);
	watchdog_close(&w);
	setenv("WATCHDOG_DOUBLE_MIN", "1", 1);
	setenv("WATCHDOG_DOUBLE_MAX", "2", 1);
	assert_int_equal(watchdog_open(device, 3, &w, &e), -1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "made its time-out 2 seconds instead of 3"));
	/* It was closed properly: it may be opened again, and does not expire. */
	assert_int_equal(w.fd, -1);
	assert_true(logged(" close 1\n"));
	assert_int_equal(watchdog_open(device, 2, &w, &e), 0);
	/* A change that fails leaves it open. */
	assert_int_equal(watchdog_set(&w, device, 5, &e), -1);
	assert_true(w.fd >= 0);
	assert_int_equal(watchdog_set(&w, device, 1, &e), 0);
	assert_int_equal(w.timeout_s, 1);
	watchdog_close(&w);
}

static void a_driver_without_a_settable_time_out_is_refused(void **state)
{
	struct watchdog w = WATCHDOG_INIT;
	struct err e = ERR_INIT;

	(void)state;
	setenv("WATCHDOG_DOUBLE_FIXED", "1", 1);
	assert_int_equal(watchdog_open(device, 3, &w, &e), -1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "cannot be set"));
}

static void who_holds_it_is_said(void **state)
{
	struct watchdog w = WATCHDOG_INIT, second = WATCHDOG_INIT;
	struct err e = ERR_INIT;
	char words[64], who[128];

	(void)state;
	assert_int_equal(watchdog_open(device, 3, &w, &e), 0);
	assert_int_equal(watchdog_open(device, 3, &second, &e), -1);
	assert_int_equal(e.code, ERR_CONFLICT);
	snprintf(words, sizeof(words), "watchdog-test (process %d)", (int)getpid());
	assert_non_null(strstr(e.text, words));
	assert_non_null(strstr(e.text, "--device"));
	watchdog_close(&w);
	assert_false(watchdog_holder(device, who, sizeof(who)));
	assert_string_equal(who, "");
}

static void a_device_that_is_none_is_refused_and_left_as_it_is(void **state)
{
	struct watchdog w = WATCHDOG_INIT;
	struct err e = ERR_INIT;
	char path[112];
	_free_ char *text = NULL;

	(void)state;
	snprintf(path, sizeof(path), "%s/missing", folder);
	assert_int_equal(watchdog_open(path, 3, &w, &e), -1);
	assert_int_equal(e.code, ERR_NOTFOUND);
	assert_non_null(strstr(e.text, "modprobe softdog"));
	snprintf(path, sizeof(path), "%s/diary", folder);
	assert_int_equal(file_write_atomic(path, "dear", 4, 0600, (gid_t)-1, NULL), 0);
	assert_int_equal(watchdog_open(path, 3, &w, &e), -1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
	text = file_read(path, 100, NULL, NULL);
	assert_string_equal(text, "dear");
	assert_int_equal(watchdog_open(folder, 3, &w, &e), -1);
	assert_int_equal(watchdog_open("/dev/null", 3, &w, &e), -1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
}

static void a_driver_that_fails_is_told(void **state)
{
	struct watchdog w = WATCHDOG_INIT;
	struct err e = ERR_INIT;
	char path[112];

	(void)state;
	assert_int_equal(watchdog_open(device, 3, &w, &e), 0);
	snprintf(path, sizeof(path), "%s.broken", device);
	assert_int_equal(file_write_atomic(path, "", 0, 0600, (gid_t)-1, NULL), 0);
	assert_int_equal(watchdog_pet(&w, &e), -1);
	assert_int_equal(e.code, ERR_SYSTEM);
	watchdog_close(&w);
}

/* With the double in front of libc; the sanitizer's own order is not needed for it. */
static void run_with_double(char **argv)
{
	char self[4096], program[4096], preload[4200];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n <= 0 || getenv("WATCHDOG_TEST_AGAIN"))
		return;
	self[n] = 0;
	strcpy(program, self);
	for (int i = 0; i < 3; i++)
		*strrchr(self, '/') = 0;
	snprintf(preload, sizeof(preload), "%s/tools/watchdog-preload.so", self);
	setenv("LD_PRELOAD", preload, 1);
	setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
	setenv("WATCHDOG_TEST_AGAIN", "1", 1);
	execv(program, argv);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_is_armed_petted_and_disarmed, setup, teardown),
		cmocka_unit_test_setup_teardown(it_expires_when_it_is_not_petted, setup, teardown),
		cmocka_unit_test_setup_teardown(a_longer_time_out_is_told_and_a_shorter_one_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_driver_without_a_settable_time_out_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(who_holds_it_is_said, setup, teardown),
		cmocka_unit_test_setup_teardown(a_device_that_is_none_is_refused_and_left_as_it_is, setup, teardown),
		cmocka_unit_test_setup_teardown(a_driver_that_fails_is_told, setup, teardown),
	};

	(void)argc;
	run_with_double(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
