/* SPDX-License-Identifier: Apache-2.0 */
/* godwit-watchdog with real guests that godwit-vm started: running, paused, waiting for a move, and just being started.
 * WATCHDOG_TEST_GUESTS=N in the environment: with N running ones, for measuring. */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "hv/vm.h"
#include "tests/unit/watchdog/host.h"

#define STARTERS 4
#define GUESTS_MAX 64

static const char *vm_program(void)
{
	static char path[4200];

	snprintf(path, sizeof(path), "%s/godwit-vm", host_build());
	if (access("/usr/bin/qemu-system-x86_64", X_OK) < 0) {
		print_message("# skipped: needs /usr/bin/qemu-system-x86_64\n");
		skip();
	}
	return path;
}

/* All guests of this run of the test have it in their uuid, which is on QEMU's command line. */
static char *uuid_part(void)
{
	return xasprintf("4848-80b4-%06x", (unsigned)getpid());
}

static char *definition(int i)
{
	_free_ char *part = uuid_part();
	char *path = xasprintf("%s/g%d.json", host_dir, i);
	_free_ char *text =
		xasprintf("{\"name\":\"g%d\",\"uuid\":\"6ba7b810-9dad-%s%06x\",\"vcpus\":1,\"memory\":64}", i, part, i);

	assert_int_equal(file_write_atomic(path, text, strlen(text), 0600, (gid_t)-1, NULL), 0);
	return path;
}

static int start(int i, bool incoming, struct err *e)
{
	_free_ char *path = definition(i);
	_free_ char *dir = xasprintf("%s/run", host_dir);
	const char *mark = MARK "1";
	const char *argv[] = {vm_program(), "start", path,      "--run-dir", dir,
			      "--mark",     mark,    "--accel", "tcg",       incoming ? "--incoming" : NULL,
			      NULL};

	return child_run(argv, IN_S(90), 1 << 16, NULL, e);
}

static struct vm *find(int i)
{
	_free_ char *dir = xasprintf("%s/run", host_dir);
	_free_ char *name = xasprintf("g%d", i);
	struct vm *vm = NULL;
	struct err e = ERR_INIT;

	if (vm_open(dir, name, &vm, &e) < 0)
		fail_msg("%s", e.text);
	return vm;
}

/* QEMUs of this run of the test that are there. */
static int qemus(void)
{
	_free_ char *part = uuid_part();
	DIR *d = opendir("/proc");
	struct dirent *entry;
	int n = 0;

	while (d && (entry = readdir(d))) {
		_free_ char *path = xasprintf("/proc/%s/cmdline", entry->d_name);
		_free_ char *line = NULL;
		size_t size = 0;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		line = file_read(path, 1 << 16, &size, NULL);
		n += line && memmem(line, size, part, strlen(part)) != NULL;
	}
	if (d)
		closedir(d);
	return n;
}

static struct keeper_status answer_ok(struct keeper_client *k)
{
	struct keeper_status st = host_answer(k);

	if (st.code)
		fail_msg("%s", st.text);
	return st;
}

static void whatever_state_they_are_in_all_are_gone_soon_after_the_deadline(void **state)
{
	int n = getenv("WATCHDOG_TEST_GUESTS") ? atoi(getenv("WATCHDOG_TEST_GUESTS")) : 3;
	struct vm *vms[GUESTS_MAX] = {0};
	struct keeper_client k;
	struct keeper_status st;
	struct err e = ERR_INIT;
	struct qmp *q = NULL;
	int64_t until, ended = 0;

	(void)state;
	vm_program();
	assert_in_range(n, 1, GUESTS_MAX);
	host_watchdog(NULL, NULL);
	/* Before it is configured it is nobody's business. */
	for (int i = 0; i < n; i++) {
		if (start(i, n == 3 && i == 2, &e) < 0)
			fail_msg("%s", e.text);
		vms[i] = find(i);
	}
	assert_int_equal(qemus(), n);
	if (n == 3) {
		assert_int_equal(vm_monitor(vms[1], VM_QMP_SOCK, IN_S(30), &q, &e), 0);
		assert_int_equal(qmp_call(q, "stop", NULL, IN_S(30), NULL, &e), 0);
		qmp_close(q);
		assert_int_equal(vm_status(vms[1]), VM_STATUS_PAUSED);
		assert_int_equal(vm_status(vms[2]), VM_STATUS_INCOMING);
	}
	k = host_client(NULL);
	until = clock_boot_ns() + NS_PER_S;
	keeper_ask_until(&k, until, NULL);
	answer_ok(&k);
	for (int i = 0; i < n; i++)
		ended = host_end_ns(&vms[i]->proc, 10);
	st = host_state(&k, KEEPER_STOPPED);
	assert_true(ended >= until);
	assert_int_equal(st.report.guests, n);
	assert_int_equal(qemus(), 0);
	/* In time: the device, which was not petted meanwhile, has nothing to do. */
	assert_true(ended < until + 2 * NS_PER_S);
	assert_false(host_file("expired", 3));
	print_message("# %d guests: the last one ended %lld ms after the deadline, killed were %s\n", n,
		      (long long)(st.report.took_ns / NS_PER_MS), host_said("signal=KILL") ? "some" : "none");
	/* None of them, and no other, is started on this host now. */
	assert_int_equal(start(0, false, &e), -1);
	assert_non_null(strstr(e.text, "exited with status 7"));
	assert_non_null(strstr(e.text, "may not run guests of its cluster now"));
	/* With a new lease they are. */
	keeper_ask_until(&k, clock_boot_ns() + LEASE, NULL);
	answer_ok(&k);
	if (start(0, true, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(qemus(), 1);
	keeper_ask_die(&k, NULL);
	answer_ok(&k);
	do
		assert_int_equal(keeper_wait(&k, IN_S(20), &st, &e), 0);
	while (st.report.serial != 2);
	assert_int_equal(qemus(), 0);
	for (int i = 0; i < n; i++)
		vm_close(vms[i]);
	keeper_close(&k);
}

/* Starts guests one after the other until it is told to go; each under a name of its own. */
static struct child starter(int which)
{
	_free_ char *dir = xasprintf("%s/run", host_dir);
	_free_ char *script = xasprintf("i=0; while [ -e %s/go ]; do i=$((i+1)); "
					"sed \"s/g%d/s%d-$i/\" %s/g%d.json > %s/s%d.json; "
					"%s start %s/s%d.json --run-dir %s --mark " MARK "1 --accel tcg --incoming "
					">>%s/starts 2>&1; sleep 0.02; done",
					host_dir, which, which, host_dir, which, host_dir, which, vm_program(),
					host_dir, which, dir, host_dir);
	const char *argv[] = {"/bin/sh", "-c", script, NULL};
	_free_ char *path = definition(which);
	struct child_spec spec = {.argv = argv, .die_with_parent = true};
	struct child c = CHILD_INIT;
	struct err e = ERR_INIT;

	if (child_spawn(&spec, &c, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

static void guests_that_are_just_being_started_do_not_slip_through(void **state)
{
	_free_ char *go = xasprintf("%s/go", host_dir);
	_free_ char *starts = xasprintf("%s/starts", host_dir);
	struct child c[STARTERS];
	struct keeper_client k;
	struct keeper_status st;
	struct err e = ERR_INIT;
	unsigned stopped = 0;

	(void)state;
	vm_program();
	host_watchdog(NULL, NULL);
	k = host_client(NULL);
	keeper_ask_until(&k, clock_boot_ns() + LEASE, NULL);
	answer_ok(&k);
	close(open(go, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	for (int i = 0; i < STARTERS; i++)
		c[i] = starter(i);
	/* Each time the deadline falls into a storm of starts; afterwards not one QEMU may be there, now or later. */
	for (int round = 0; round < 4; round++) {
		st = host_state(&k, KEEPER_STOPPED);
		stopped += st.report.guests;
		for (int i = 0; i < 10; i++) {
			assert_int_equal(qemus(), 0);
			usleep(20000);
		}
		keeper_ask_until(&k, clock_boot_ns() + LEASE / 2 + round * NS_PER_MS * 37, NULL);
		answer_ok(&k);
	}
	unlink(go);
	keeper_ask_die(&k, NULL);
	for (int i = 0; i < STARTERS; i++) {
		assert_int_equal(child_wait(&c[i], IN_S(90), NULL, &e), 1);
		child_done(&c[i]);
	}
	assert_int_equal(qemus(), 0);
	assert_true(stopped > 0);
	{
		_free_ char *said = file_read(starts, 4 << 20, NULL, NULL);

		assert_non_null(said);
		assert_non_null(strstr(said, "may not run guests of its cluster now"));
		assert_non_null(strstr(said, "waits for a migration"));
	}
	keeper_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(whatever_state_they_are_in_all_are_gone_soon_after_the_deadline,
						host_setup, host_teardown),
		cmocka_unit_test_setup_teardown(guests_that_are_just_being_started_do_not_slip_through, host_setup,
						host_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
