/* SPDX-License-Identifier: Apache-2.0 */
/* One guest on this host, after its start.
 *
 * A guest's QEMU outlives whoever started it, so everything known about it is in state.json, and whoever comes next
 * finds the process by three things that must agree: the pid, the start time of that pid (a pidfd is opened first, so
 * the process cannot change under us), and the process at the other end of the monitor's socket. No signal is ever sent
 * by number.
 *
 * The ladder of vm_stop():   ACPI power button --timeout--> QMP quit --5 s--> SIGKILL through the pidfd.
 * QEMU runs with -no-shutdown, so a guest that powered itself off is still a process in state "shutdown", which the
 * second step collects; a QEMU that is gone without us crashed.
 */
#include "hv/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "hv/rundir.h"

#define RESUME_SECONDS 10
#define STATUS_MS 1000
#define QUIT_MS 5000
#define KILL_MS 10000
#define LAST_WORDS_MAX 4096 /* bytes of the log's end that are looked at */

const char *const vm_status_names[VM_STATUS_MAX] = {
	"running", "paused", "incoming", "migrated", "shutdown", "failed", "silent", "gone",
};
const char *const vm_stop_names[VM_STOP_MAX] = {"gone", "acpi", "quit", "kill"};

/* QEMU's runstate (qapi/run-state.json) as a status of ours. */
static const struct {
	const char *runstate;
	enum vm_status status;
} runstates[] = {
	{"running", VM_STATUS_RUNNING},       {"inmigrate", VM_STATUS_INCOMING},    {"postmigrate", VM_STATUS_MIGRATED},
	{"shutdown", VM_STATUS_SHUTDOWN},     {"internal-error", VM_STATUS_FAILED}, {"io-error", VM_STATUS_FAILED},
	{"guest-panicked", VM_STATUS_FAILED},
};

static int vm_adopt(struct vm *vm, struct err *e)
{
	json_int_t pid = json_integer_value(json_object_get(vm->state, "pid"));
	json_int_t start = json_integer_value(json_object_get(vm->state, "start_time"));
	const char *uuid = json_string_value(json_object_get(vm->state, "uuid"));
	struct err gone = ERR_INIT;

	if (pid <= 0 || pid > 0x7fffffff || start <= 0 || !uuid || strlen(uuid) != 36)
		return err_set(e, ERR_PROTOCOL, "%s/state.json names no process", vm->dir);
	snprintf(vm->uuid, sizeof(vm->uuid), "%s", uuid);
	if (child_adopt((pid_t)pid, (uint64_t)start, &vm->proc, &gone) < 0 && gone.code != ERR_INPUT) {
		*e = gone;
		return -1;
	}
	return 0;
}

int vm_open(const char *run_dir, const char *name, struct vm **ret, struct err *e)
{
	struct vm *vm;

	if (!def_name_valid(name))
		return err_set(e, ERR_INPUT, "\"%s\" is no guest name", name);
	if (rundir_check(run_dir, e) < 0)
		return -1;
	vm = xcalloc(1, sizeof(*vm));
	vm->proc = CHILD_INIT;
	vm->run_dir = xstrdup(run_dir);
	vm->dir = xasprintf("%s/%s", run_dir, name);
	snprintf(vm->name, sizeof(vm->name), "%s", name);
	vm->state = rundir_state_read(run_dir, name, e);
	if (!vm->state || vm_adopt(vm, e) < 0) {
		vm_close(vm);
		return -1;
	}
	*ret = vm;
	return 0;
}

void vm_close(struct vm *vm)
{
	if (!vm)
		return;
	child_done(&vm->proc);
	json_decref(vm->state);
	free(vm->run_dir);
	free(vm->dir);
	free(vm);
}

int vm_monitor(const struct vm *vm, const char *sock, int64_t deadline_ns, struct qmp **ret, struct err *e)
{
	_free_ char *path = xasprintf("%s/%s", vm->dir, sock);
	struct qmp *q;

	if (vm->proc.pidfd < 0)
		return err_set(e, ERR_INPUT, "guest %s: its QEMU is gone", vm->name);
	if (qmp_open(path, deadline_ns, &q, e) < 0)
		return err_wrap(e, "guest %s", vm->name);
	if (qmp_peer_pid(q) != vm->proc.pid) {
		err_set(e, ERR_UNSUPPORTED, "guest %s: %s answers from process %d, but its QEMU is process %d",
			vm->name, path, (int)qmp_peer_pid(q), (int)vm->proc.pid);
		qmp_close(q);
		return -1;
	}
	*ret = q;
	return 0;
}

/* The runstate as QEMU says it on @q. */
static int monitor_status(struct qmp *q, int64_t deadline_ns, enum vm_status *ret, struct err *e)
{
	json_t *reply = NULL;
	const char *s;

	if (qmp_call(q, "query-status", NULL, deadline_ns, &reply, e) < 0)
		return -1;
	s = json_string_value(json_object_get(reply, "status"));
	*ret = VM_STATUS_PAUSED;
	for (size_t i = 0; s && i < ARRAY_SIZE(runstates); i++)
		if (strcmp(s, runstates[i].runstate) == 0)
			*ret = runstates[i].status;
	json_decref(reply);
	return 0;
}

enum vm_status vm_status(const struct vm *vm)
{
	int64_t deadline = clock_now_ns() + STATUS_MS * NS_PER_MS;
	enum vm_status s = VM_STATUS_SILENT;
	struct qmp *q;

	if (vm->proc.pidfd < 0 || child_ended(&vm->proc))
		return VM_STATUS_GONE;
	if (vm_monitor(vm, VM_QMP_SOCK, deadline, &q, NULL) < 0)
		return child_ended(&vm->proc) ? VM_STATUS_GONE : VM_STATUS_SILENT;
	if (monitor_status(q, deadline, &s, NULL) < 0)
		s = VM_STATUS_SILENT;
	qmp_close(q);
	return s;
}

int vm_resume(struct vm *vm, struct err *e)
{
	int64_t deadline = clock_now_ns() + RESUME_SECONDS * NS_PER_S;
	enum vm_status s = VM_STATUS_PAUSED;
	struct qmp *q;
	int r;

	if (vm_monitor(vm, VM_QMP_SOCK, deadline, &q, e) < 0)
		return -1;
	r = monitor_status(q, deadline, &s, e);
	if (r == 0 && s != VM_STATUS_RUNNING && s != VM_STATUS_PAUSED && s != VM_STATUS_MIGRATED)
		r = err_set(e, ERR_CONFLICT, "guest %s: its status is %s; only a paused guest can be resumed", vm->name,
			    vm_status_names[s]);
	if (r == 0 && s != VM_STATUS_RUNNING)
		r = qmp_call(q, "cont", NULL, deadline, NULL, e);
	while (r == 0 && s != VM_STATUS_RUNNING) {
		r = monitor_status(q, deadline, &s, e);
		if (r == 0 && s != VM_STATUS_RUNNING && clock_now_ns() > deadline)
			r = err_set(e, ERR_TIMEOUT, "guest %s: QEMU took `cont` and did not resume it", vm->name);
		usleep(2000);
	}
	qmp_close(q);
	return r;
}

/* What follows "2026-01-31T12:34:56.123456Z " of -msg timestamp=on. */
static const char *skip_timestamp(const char *line)
{
	size_t n = strspn(line, "0123456789-T:.");

	return n >= 20 && line[n] == 'Z' && line[n + 1] == ' ' ? line + n + 2 : line;
}

char *vm_last_words(const struct vm *vm)
{
	_free_ char *path = xasprintf("%s/" VM_QEMU_LOG, vm->dir);
	_closefd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char buf[LAST_WORDS_MAX + 1];
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	ssize_t n = size < 0 ? -1 : pread(fd, buf, LAST_WORDS_MAX, size > LAST_WORDS_MAX ? size - LAST_WORDS_MAX : 0);

	buf[n < 0 ? 0 : n] = 0;
	return xstrdup(skip_timestamp(child_last_line(buf)));
}

/* The guest is no more: take its cgroup and its folder away. */
static int vm_forget(struct vm *vm, struct err *e)
{
	const char *cgroup = json_string_value(json_object_get(vm->state, "cgroup"));

	/* A cgroup can be busy for a moment after its last process has ended. */
	for (int i = 0; cgroup && rmdir(cgroup) < 0 && errno == EBUSY && i < 50; i++)
		usleep(10000);
	child_done(&vm->proc);
	return rundir_remove(vm->run_dir, vm->name, e);
}

/* First step: press the power button and wait until the guest has powered itself off or @deadline_ns. */
static bool stop_by_acpi(const struct vm *vm, struct qmp *q, int64_t deadline_ns)
{
	enum vm_status s = VM_STATUS_PAUSED;

	if (monitor_status(q, deadline_ns, &s, NULL) < 0)
		return false;
	if (s != VM_STATUS_RUNNING)
		return s == VM_STATUS_SHUTDOWN;
	if (qmp_call(q, "system_powerdown", NULL, deadline_ns, NULL, NULL) < 0)
		return false;
	while (clock_now_ns() < deadline_ns) {
		struct qmp_event ev;
		/* Waking now and then covers a QEMU that ends by itself. */
		int64_t wake = clock_now_ns() + 200 * NS_PER_MS;
		bool off = false;
		int r = qmp_event_next(q, wake < deadline_ns ? wake : deadline_ns, &ev, NULL);

		if (r < 0)
			return child_ended(&vm->proc);
		if (r > 0) {
			off = strcmp(ev.name, "SHUTDOWN") == 0;
			qmp_event_done(&ev);
		}
		if (off)
			return true;
	}
	return false;
}

/* Second step: ask QEMU to end. */
static bool stop_by_quit(struct vm *vm, struct qmp *q)
{
	int64_t deadline = clock_now_ns() + QUIT_MS * NS_PER_MS;

	/* QEMU may be gone before its answer is read: the process, not the answer, decides. */
	(void)qmp_call(q, "quit", NULL, deadline, NULL, NULL);
	return child_wait(&vm->proc, deadline, NULL, NULL) == 1;
}

static int stop_by_kill(struct vm *vm, struct err *e)
{
	int r;

	if (child_signal(&vm->proc, SIGKILL, e) < 0)
		return -1;
	r = child_wait(&vm->proc, clock_now_ns() + KILL_MS * NS_PER_MS, NULL, e);
	if (r == 0)
		return err_set(
			e, ERR_TIMEOUT,
			"guest %s: process %d does not end although it was killed; it hangs in the kernel (a disk "
			"that does not answer?)",
			vm->name, (int)vm->proc.pid);
	return r < 0 ? -1 : 0;
}

/* A monitor for the ladder: the manager's, or the engine's where somebody sits on the first. */
static int stop_monitor(const struct vm *vm, struct qmp **ret)
{
	if (vm_monitor(vm, VM_QMP_SOCK, clock_now_ns() + STATUS_MS * NS_PER_MS, ret, NULL) == 0)
		return 0;
	return vm_monitor(vm, VM_ENGINE_SOCK, clock_now_ns() + STATUS_MS * NS_PER_MS, ret, NULL);
}

static int stop_ladder(struct vm *vm, int64_t timeout_ms, enum vm_stop_step *ret, struct err *e)
{
	int64_t deadline = clock_now_ns() + timeout_ms * NS_PER_MS;
	struct qmp *q = NULL;
	bool done = false;

	*ret = VM_STOP_GONE;
	if (vm->proc.pidfd < 0 || child_ended(&vm->proc))
		return 0;
	if (stop_monitor(vm, &q) == 0) {
		*ret = stop_by_acpi(vm, q, deadline) ? VM_STOP_ACPI : VM_STOP_QUIT;
		if (!child_ended(&vm->proc)) {
			/* A monitor that timed out in the first step is dead: take a new one. */
			qmp_close(steal_ptr(q));
			done = stop_monitor(vm, &q) == 0 && stop_by_quit(vm, q);
		} else {
			done = true;
		}
	}
	qmp_close(q);
	if (done)
		return 0;
	*ret = VM_STOP_KILL;
	return stop_by_kill(vm, e);
}

/* Lock the guest's folder, and make sure that it still speaks of the process that @vm holds: in between, somebody may
 * have stopped this guest and started another of the same name. Returns the lock, or -1 with @e. */
static int vm_lock(struct vm *vm, struct err *e)
{
	_closefd_ int lock = rundir_lock(vm->run_dir, vm->name, false, e);
	json_t *now = lock < 0 ? NULL : rundir_state_read(vm->run_dir, vm->name, e);
	bool same = now && json_equal(json_object_get(now, "pid"), json_object_get(vm->state, "pid")) &&
		    json_equal(json_object_get(now, "start_time"), json_object_get(vm->state, "start_time"));

	if (now && !same)
		err_set(e, ERR_INPUT, "guest %s was stopped and started by somebody else just now", vm->name);
	json_decref(now);
	return same ? steal_fd(&lock) : -1;
}

int vm_stop(struct vm *vm, int64_t timeout_ms, enum vm_stop_step *ret, struct err *e)
{
	_closefd_ int lock = vm_lock(vm, e);

	if (lock < 0 || stop_ladder(vm, timeout_ms, ret, e) < 0)
		return -1;
	log_info("event=vm_stopped name=%s uuid=%s step=%s", vm->name, vm->uuid, vm_stop_names[*ret]);
	return vm_forget(vm, e);
}

int vm_kill(struct vm *vm, struct err *e)
{
	_closefd_ int lock = vm_lock(vm, e);

	if (lock < 0 || (vm->proc.pidfd >= 0 && stop_by_kill(vm, e) < 0))
		return -1;
	log_info("event=vm_killed name=%s uuid=%s", vm->name, vm->uuid);
	return vm_forget(vm, e);
}
