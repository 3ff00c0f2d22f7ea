/* SPDX-License-Identifier: Apache-2.0 */
/* The permit: who may start a guest when, and a start that was under way when it was taken back. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "hv/permit.h"
#include "hv/vm.h"

#define MARK "godwit:c1:7"

static char dir[64];

static int setup(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	strcpy(dir, "/tmp/permit-test-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void without_a_permit_everything_may_start(void **state)
{
	(void)state;
	assert_int_equal(permit_check(dir, MARK, 1, NULL), 0);
	assert_int_equal(permit_check(dir, NULL, 1, NULL), 0);
}

static void only_guests_of_the_cluster_need_it(void **state)
{
	struct permit p = PERMIT_INIT;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(permit_open(dir, -1, &p, &e), 0);
	permit_set_mark(&p, "godwit:c1:");
	assert_int_equal(permit_check(dir, MARK, 1000, NULL), 0);
	permit_set_until(&p, 500);
	assert_int_equal(permit_check(dir, MARK, 499, &e), 0);
	assert_int_equal(permit_check(dir, MARK, 500, &e), -1);
	assert_int_equal(e.code, ERR_UNAVAILABLE);
	assert_non_null(strstr(e.text, "may not run guests of its cluster now"));
	assert_int_equal(permit_check(dir, "godwit:c2:7", 500, NULL), 0);
	assert_int_equal(permit_check(dir, "by hand", 500, NULL), 0);
	assert_int_equal(permit_check(dir, NULL, 500, NULL), 0);
	permit_set_until(&p, PERMIT_FREE);
	assert_int_equal(permit_check(dir, MARK, 500, NULL), 0);
	permit_close(&p);
}

static void one_process_at_a_time_has_it_and_its_successor_finds_what_was_kept(void **state)
{
	struct permit p = PERMIT_INIT, q = PERMIT_INIT;
	struct err e = ERR_INIT;
	char buf[PERMIT_KEPT_MAX] = "";

	(void)state;
	assert_int_equal(permit_open(dir, -1, &p, &e), 0);
	assert_int_equal(permit_kept(&p, buf, sizeof(buf)), 0);
	assert_int_equal(permit_open(dir, -1, &q, &e), -1);
	assert_int_equal(e.code, ERR_CONFLICT);
	permit_set_mark(&p, "godwit:c1:");
	permit_set_until(&p, 500);
	permit_keep(&p, "first", 6);
	permit_keep(&p, "second", 7);
	permit_close(&p);
	assert_int_equal(permit_open(dir, -1, &q, &e), 0);
	assert_int_equal(permit_kept(&q, buf, 6), 0);
	assert_int_equal(permit_kept(&q, buf, sizeof(buf)), 7);
	assert_string_equal(buf, "second");
	assert_int_equal(permit_check(dir, MARK, 500, NULL), -1);
	permit_close(&q);
}

static void a_page_that_is_none_lets_nothing_start(void **state)
{
	_free_ char *path = xasprintf("%s/" PERMIT_FILE, dir);
	struct permit p = PERMIT_INIT;
	struct err e = ERR_INIT;
	char junk[4096];

	(void)state;
	memset(junk, 'x', sizeof(junk));
	assert_int_equal(file_write_atomic(path, junk, 10, 0600, (gid_t)-1, NULL), 0);
	assert_int_equal(permit_check(dir, MARK, 500, &e), -1);
	assert_int_equal(e.code, ERR_UNAVAILABLE);
	assert_int_equal(file_write_atomic(path, junk, sizeof(junk), 0600, (gid_t)-1, NULL), 0);
	assert_int_equal(permit_check(dir, MARK, 500, &e), -1);
	assert_int_equal(permit_check(dir, NULL, 500, &e), 0);
	/* The next godwit-watchdog makes one of it. */
	assert_int_equal(permit_open(dir, -1, &p, &e), 0);
	assert_int_equal(permit_check(dir, MARK, 500, &e), 0);
	permit_close(&p);
}

static struct permit taken;

/* Waits until QEMU is asked for its machines, which is after the first look at the permit; then takes it back. */
static void *take_back(void *arg)
{
	_free_ char *asked = xasprintf("%s/asked", (const char *)arg);
	_free_ char *go = xasprintf("%s/go", (const char *)arg);

	while (access(asked, F_OK) < 0)
		usleep(1000);
	permit_set_until(&taken, 0);
	close(open(go, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	return NULL;
}

static void a_start_under_way_when_it_is_taken_back_comes_to_nothing(void **state)
{
	_free_ char *qemu = xasprintf("%s/qemu", dir);
	_free_ char *ran = xasprintf("%s/ran", dir);
	_free_ char *run_dir = xasprintf("%s/run", dir);
	_free_ char *folder = xasprintf("%s/g", run_dir);
	_free_ char *script = xasprintf("#!/bin/sh\n"
					"if [ \"$2\" = help ]; then\n"
					"	touch %s/asked\n"
					"	while [ ! -e %s/go ]; do sleep 0.01; done\n"
					"	exec qemu-system-x86_64 -machine help\n"
					"fi\n"
					"touch %s\n",
					dir, dir, ran);
	struct vm_options opt = {.run_dir = run_dir, .qemu = qemu, .mark = MARK, .accel = ACCEL_TCG};
	static const char text[] = "{\"name\":\"g\",\"vcpus\":1,\"memory\":64}";
	struct def d = {0};
	struct err e = ERR_INIT;
	struct vm *vm = NULL;
	pthread_t t;

	(void)state;
	if (access("/usr/bin/qemu-system-x86_64", X_OK) < 0) {
		print_message("# skipped: needs /usr/bin/qemu-system-x86_64\n");
		skip();
	}
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_equal(mkdir(run_dir, 0700), 0);
	assert_int_equal(file_write_atomic(qemu, script, strlen(script), 0755, (gid_t)-1, NULL), 0);
	assert_int_equal(def_parse(text, strlen(text), "t", "/", &d, &e), 0);
	assert_int_equal(permit_open(run_dir, -1, &taken, &e), 0);
	permit_set_mark(&taken, "godwit:c1:");
	permit_set_until(&taken, clock_boot_ns() + 3600 * NS_PER_S);
	assert_int_equal(pthread_create(&t, NULL, take_back, dir), 0);
	assert_int_equal(vm_start(&d, &opt, &vm, &e), -1);
	pthread_join(t, NULL);
	assert_int_equal(e.code, ERR_UNAVAILABLE);
	assert_non_null(strstr(e.text, "guest g: this host may not run"));
	/* QEMU was never run, and nothing of the guest is left. */
	assert_int_equal(access(ran, F_OK), -1);
	assert_int_equal(access(folder, F_OK), -1);
	permit_close(&taken);
	def_done(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(without_a_permit_everything_may_start, setup, teardown),
		cmocka_unit_test_setup_teardown(only_guests_of_the_cluster_need_it, setup, teardown),
		cmocka_unit_test_setup_teardown(one_process_at_a_time_has_it_and_its_successor_finds_what_was_kept,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_page_that_is_none_lets_nothing_start, setup, teardown),
		cmocka_unit_test_setup_teardown(a_start_under_way_when_it_is_taken_back_comes_to_nothing, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
