/* SPDX-License-Identifier: Apache-2.0 */
/* A guest's life with a real QEMU (TCG), and everything that is not ours and must not be adopted or signalled. */
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
#include <unistd.h>

#include <cmocka.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "hv/cmdline.h"
#include "hv/ram.h"
#include "hv/rundir.h"
#include "hv/vm.h"

static char run_dir[64];

static int make_run_dir(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	snprintf(run_dir, sizeof(run_dir), "/tmp/vm-test-XXXXXX");
	return mkdtemp(run_dir) ? 0 : -1;
}

/* Fails when a test left a guest's folder behind. */
static int remove_run_dir(void **state)
{
	(void)state;
	return rmdir(run_dir);
}

static struct vm *start(bool incoming)
{
	static const char text[] = "{\"name\":\"t1\",\"vcpus\":1,\"memory\":64}";
	struct vm_options opt = {.run_dir = run_dir, .accel = ACCEL_TCG, .incoming = incoming};
	struct def d = {0};
	struct vm *vm = NULL;
	struct err e = ERR_INIT;

	assert_int_equal(def_parse(text, strlen(text), "t", "/", &d, &e), 0);
	if (vm_start(&d, &opt, &vm, &e) < 0)
		fail_msg("%s", e.text);
	def_done(&d);
	return vm;
}

static struct vm *find(void)
{
	struct vm *vm = NULL;
	struct err e = ERR_INIT;

	if (vm_open(run_dir, "t1", &vm, &e) < 0)
		fail_msg("%s", e.text);
	return vm;
}

static void guest_is_found_again_and_stopped(void **state)
{
	struct vm *vm = start(false), *again = find();
	enum vm_stop_step step = VM_STOP_MAX;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(again->proc.pid, vm->proc.pid);
	assert_int_equal(vm_status(again), VM_STATUS_RUNNING);
	assert_int_equal(vm_stop(again, 300, &step, &e), 0);
	assert_int_equal(step, VM_STOP_QUIT); /* the BIOS does not listen to the power button */
	assert_true(child_ended(&vm->proc));
	assert_int_equal(vm_open(run_dir, "t1", &again, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	vm_close(vm);
	vm_close(again);
}

static void guest_ram_is_found_through_the_monitor(void **state)
{
	struct def d = {.memory = 64U << 20};
	struct vm *vm = start(true);
	struct err e = ERR_INIT;
	struct qmp *q = NULL;
	json_t *path = NULL;
	uint64_t size = 0;
	int fd;

	(void)state;
	assert_int_equal(vm_status(vm), VM_STATUS_INCOMING);
	assert_int_equal(vm_monitor(vm, VM_ENGINE_SOCK, clock_now_ns() + 5 * NS_PER_S, &q, &e), 0);
	assert_int_equal(qmp_callf(q, clock_now_ns() + 5 * NS_PER_S, &path, &e, "qom-get", "{s:s, s:s}", "path",
				   "/objects/" RAM_OBJECT_ID, "property", "mem-path"),
			 0);
	fd = ram_open(vm->proc.pid, json_string_value(path), &size, &e);
	assert_true(fd >= 0);
	assert_int_equal(size, cmdline_ram_size(&d, "tcg"));
	close(fd);
	json_decref(path);
	qmp_close(q);
	assert_int_equal(vm_kill(vm, &e), 0);
	vm_close(vm);
}

static void second_start_is_refused(void **state)
{
	struct vm *vm = start(true), *second = NULL;
	struct vm_options opt = {.run_dir = run_dir, .accel = ACCEL_TCG};
	struct def d = {.name = "t1", .vcpus = 1, .memory = 64U << 20};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(vm_start(&d, &opt, &second, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	assert_non_null(strstr(e.text, "guest t1 is there already"));
	assert_false(child_ended(&vm->proc));
	assert_int_equal(vm_kill(vm, &e), 0);
	vm_close(vm);
}

static void crash_is_seen_and_the_name_is_free_again(void **state)
{
	struct vm *vm = start(false), *again;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(child_signal(&vm->proc, SIGSEGV, &e), 0);
	assert_int_equal(child_wait(&vm->proc, clock_now_ns() + 10 * NS_PER_S, NULL, NULL), 1);
	assert_int_equal(vm_status(vm), VM_STATUS_GONE);
	vm_close(vm);
	again = find();
	assert_int_equal(again->proc.pidfd, -1);
	assert_int_equal(vm_status(again), VM_STATUS_GONE);
	vm_close(again);
	vm = start(false);
	assert_int_equal(vm_status(vm), VM_STATUS_RUNNING);
	assert_int_equal(vm_kill(vm, &e), 0);
	vm_close(vm);
}

/* A stopped process answers nothing: the last step of the ladder. */
static void qemu_that_hangs_is_killed(void **state)
{
	struct vm *vm = start(false);
	enum vm_stop_step step = VM_STOP_MAX;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(child_signal(&vm->proc, SIGSTOP, &e), 0);
	assert_int_equal(vm_status(vm), VM_STATUS_SILENT);
	assert_int_equal(vm_stop(vm, 300, &step, &e), 0);
	assert_int_equal(step, VM_STOP_KILL);
	vm_close(vm);
}

/* Somebody sits on the manager's monitor: the ladder takes the other one instead of the axe. */
static void busy_monitor_does_not_mean_kill(void **state)
{
	struct vm *vm = start(false);
	enum vm_stop_step step = VM_STOP_MAX;
	struct qmp *q = NULL;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(vm_monitor(vm, VM_QMP_SOCK, clock_now_ns() + 5 * NS_PER_S, &q, &e), 0);
	assert_int_equal(vm_stop(vm, 300, &step, &e), 0);
	assert_int_equal(step, VM_STOP_QUIT);
	qmp_close(q);
	vm_close(vm);
}

static void fake_state(json_int_t pid, json_int_t start_time)
{
	json_t *o = json_pack("{s:s, s:s, s:I, s:I}", "name", "t1", "uuid", "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
			      "pid", pid, "start_time", start_time);
	_free_ char *dir = xasprintf("%s/t1", run_dir);
	struct err e = ERR_INIT;

	assert_int_equal(mkdir(dir, 0700), 0);
	assert_int_equal(rundir_state_write(run_dir, "t1", o, &e), 0);
	json_decref(o);
}

static void process_with_a_reused_pid_is_never_signalled(void **state)
{
	const char *argv[] = {"sleep", "1000", NULL};
	struct child_spec spec = {.argv = argv};
	struct child stranger = CHILD_INIT;
	enum vm_stop_step step = VM_STOP_MAX;
	struct err e = ERR_INIT;
	struct vm *vm;

	(void)state;
	assert_int_equal(child_spawn(&spec, &stranger, &e), 0);
	fake_state(stranger.pid, (json_int_t)stranger.start_time - 1);
	vm = find();
	assert_int_equal(vm->proc.pidfd, -1);
	assert_int_equal(vm_stop(vm, 100, &step, &e), 0);
	assert_int_equal(step, VM_STOP_GONE);
	assert_false(child_ended(&stranger));
	vm_close(vm);
	child_signal(&stranger, SIGKILL, &e);
	child_wait(&stranger, clock_now_ns() + 10 * NS_PER_S, NULL, NULL);
	child_done(&stranger);
}

static void state_that_names_no_process_is_refused(void **state)
{
	static const json_int_t pids[] = {0, -1, 1LL << 40};
	struct err e = ERR_INIT;
	struct vm *vm = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		fake_state(pids[i], 7);
		assert_int_equal(vm_open(run_dir, "t1", &vm, &e), -1);
		assert_int_equal(e.code, ERR_PROTOCOL);
		assert_int_equal(rundir_remove(run_dir, "t1", &e), 0);
	}
}

static void run_directory_of_others_is_refused(void **state)
{
	struct err e = ERR_INIT;
	struct vm *vm = NULL;

	(void)state;
	assert_int_equal(chmod(run_dir, 0777), 0);
	assert_int_equal(vm_open(run_dir, "t1", &vm, &e), -1);
	assert_non_null(strstr(e.text, "can be written by others"));
	assert_int_equal(chmod(run_dir, 0700), 0);
	if (geteuid() == 0) {
		assert_int_equal(chown(run_dir, 12345, 12345), 0);
		assert_int_equal(vm_open(run_dir, "t1", &vm, &e), -1);
		assert_non_null(strstr(e.text, "belongs to user 12345"));
		assert_int_equal(chown(run_dir, 0, 0), 0);
	}
}

static void failed_start_leaves_nothing_and_says_why(void **state)
{
	static const struct {
		const char *more;
		const char *words;
	} rows[] = {
		{",\"cpu\":\"nosuch\"",
		 "guest t1: QEMU exited with status 1: qemu-system-x86_64: unable to find CPU model"},
		{",\"machine\":\"pc-q35-1.0\"", "this QEMU has no machine type pc-q35-1.0"},
		{",\"kernel\":\"/no/kernel\"", "could not open kernel file '/no/kernel'"},
		{",\"disks\":[{\"file\":\"/no/disk\",\"format\":\"raw\"}]", "disks[0].file /no/disk: No such file"},
		{",\"disks\":[{\"file\":\"/dev/null\",\"format\":\"raw\"}]", "neither a file nor a block device"},
		{",\"nics\":[{\"type\":\"tap\",\"bridge\":\"nobridge7\"}]", "nics[0]: "},
		{",\"hugepages\":true,\"memory\":\"4T\"", "huge pages"},
	};
	struct vm_options opt = {.run_dir = run_dir, .accel = ACCEL_TCG};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *memory = strstr(rows[i].more, "memory") ? "" : ",\"memory\":64";
		_free_ char *text = xasprintf("{\"name\":\"t1\",\"vcpus\":1%s%s}", memory, rows[i].more);
		_free_ char *folder = xasprintf("%s/t1", run_dir);
		struct def d = {0};
		struct vm *vm = NULL;
		struct err e = ERR_INIT;

		assert_int_equal(def_parse(text, strlen(text), "t", "/", &d, &e), 0);
		assert_int_equal(vm_start(&d, &opt, &vm, &e), -1);
		if (!strstr(e.text, rows[i].words))
			fail_msg("\"%s\" lacks \"%s\"", e.text, rows[i].words);
		assert_int_equal(access(folder, F_OK), -1);
		def_done(&d);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_run_dir, remove_run_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(guest_is_found_again_and_stopped),
		TEST(guest_ram_is_found_through_the_monitor),
		TEST(second_start_is_refused),
		TEST(crash_is_seen_and_the_name_is_free_again),
		TEST(qemu_that_hangs_is_killed),
		TEST(busy_monitor_does_not_mean_kill),
		TEST(process_with_a_reused_pid_is_never_signalled),
		TEST(state_that_names_no_process_is_refused),
		TEST(run_directory_of_others_is_refused),
		TEST(failed_start_leaves_nothing_and_says_why),
	};

	return cmocka_run_group_tests_name("hv/vm", tests, NULL, NULL);
}
