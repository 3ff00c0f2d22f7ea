/* SPDX-License-Identifier: Apache-2.0 */
/* A host for tests of godwit-watchdog. */
#include "tests/unit/watchdog/host.h"

#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "hv/rundir.h"

char host_dir[64], host_device[96], host_log[96];
int host_stderr = -1;
struct child host_dog = CHILD_INIT;
static char run_dir[96];
static pid_t traced = -1;

const char *host_build(void)
{
	static char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	assert_true(n > 0);
	path[n] = 0;
	for (int i = 0; i < 3; i++)
		*strrchr(path, '/') = 0;
	return path;
}

int host_setup(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	strcpy(host_dir, "/tmp/godwit-dog-XXXXXX");
	if (!mkdtemp(host_dir))
		return -1;
	snprintf(host_device, sizeof(host_device), "%s/device", host_dir);
	snprintf(host_log, sizeof(host_log), "%s/log", host_dir);
	snprintf(run_dir, sizeof(run_dir), "%s/run", host_dir);
	return 0;
}

int host_teardown(void **state)
{
	_free_ char *said = file_read(host_log, 1 << 20, NULL, NULL);
	_free_ char *command = xasprintf("rm -rf %s", host_dir);
	int status = 0;

	(void)state;
	host_unstick();
	host_stderr = -1;
	if (host_dog.pidfd >= 0 && !child_ended(&host_dog))
		child_signal(&host_dog, SIGKILL, NULL);
	else if (host_dog.pidfd >= 0 && child_wait(&host_dog, IN_S(1), &status, NULL) == 1 && status > 0)
		print_message("godwit-watchdog ended with status %d:\n%s", status, said ? said : "");
	if (host_dog.pidfd >= 0)
		child_wait(&host_dog, IN_S(10), NULL, NULL);
	child_done(&host_dog);
	/* The double's timer, too: a device that is armed with nobody left. */
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return system(command) || (status > 0 && WIFSIGNALED(status));
}

void host_watchdog(const char *program, const char *device)
{
	_free_ char *path = program ? xstrdup(program) : xasprintf("%s/godwit-watchdog", host_build());
	_free_ char *preload = xasprintf("LD_PRELOAD=%s/tools/watchdog-preload.so", host_build());
	_free_ char *dbl = xasprintf("WATCHDOG_DOUBLE=%s", host_device);
	_free_ char *expired = xasprintf("WATCHDOG_DOUBLE_EXPIRED=touch %s/expired", host_dir);
	const char *argv[] = {path, "--run-dir", run_dir, "--device", device ? device : host_device, NULL};
	const char *envp[] = {preload, dbl, expired, "ASAN_OPTIONS=verify_asan_link_order=0", "PATH=/usr/bin:/bin",
			      NULL};
	_closefd_ int log = open(host_log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	struct child_fd fds[] = {{host_stderr >= 0 ? host_stderr : log, STDERR_FILENO}};
	struct child_spec spec = {.argv = argv, .envp = envp, .fds = fds, .n_fds = 1};
	struct keeper_client k = KEEPER_CLIENT_INIT;
	struct keeper_status st;
	struct err e = ERR_INIT;
	int64_t deadline = IN_S(30);

	child_done(&host_dog);
	if (child_spawn(&spec, &host_dog, &e) < 0)
		fail_msg("%s", e.text);
	while (keeper_connect(run_dir, IN_S(10), &k, &st, &e) < 0) {
		if (clock_now_ns() > deadline || child_ended(&host_dog))
			fail_msg("%s", e.text);
		usleep(10000);
	}
	keeper_close(&k);
}

struct keeper_status host_answer(struct keeper_client *k)
{
	struct keeper_status st;
	struct err e = ERR_INIT;

	do {
		if (keeper_wait(k, IN_S(10), &st, &e) < 0)
			fail_msg("%s", e.text);
	} while (st.answer_to == KEEPER_STATUS);
	return st;
}

struct keeper_status host_state(struct keeper_client *k, enum keeper_state state)
{
	int64_t deadline = IN_S(10);
	struct keeper_status st;
	struct err e = ERR_INIT;

	do {
		if (keeper_wait(k, deadline, &st, &e) < 0)
			fail_msg("%s", e.text);
	} while (st.state != state);
	return st;
}

struct keeper_client host_client(struct keeper_status *ret)
{
	struct keeper_config c = {.mark = MARK, .lease_ns = LEASE, .budget_ns = BUDGET, .watchdog_s = 2};
	struct keeper_client k = KEEPER_CLIENT_INIT;
	struct keeper_status st;
	struct err e = ERR_INIT;

	if (keeper_connect(run_dir, IN_S(10), &k, &st, &e) < 0 || keeper_ask_configure(&k, &c, &e) < 0)
		fail_msg("%s", e.text);
	st = host_answer(&k);
	if (st.code)
		fail_msg("%s", st.text);
	if (ret)
		*ret = st;
	return k;
}

void host_record(const char *name, const char *mark, const struct child *c)
{
	json_t *o =
		json_pack("{s:s, s:s, s:i, s:I, s:s?}", "name", name, "uuid", "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
			  "pid", (int)c->pid, "start_time", (json_int_t)c->start_time, "mark", mark);
	_free_ char *folder = xasprintf("%s/%s", run_dir, name);
	struct err e = ERR_INIT;

	assert_non_null(o);
	mkdir(folder, 0700);
	if (rundir_state_write(run_dir, name, o, &e) < 0)
		fail_msg("%s", e.text);
	json_decref(o);
}

/* A guest's life: SIGTERM, which is blocked, is taken from the queue. */
static _Noreturn void guest_main(const char *note, const sigset_t *term, bool stubborn)
{
	char text[32];

	/* Also when a test fails before it has ended it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		if (sigwaitinfo(term, NULL) != SIGTERM)
			continue;
		snprintf(text, sizeof(text), "%" PRId64, clock_boot_ns());
		file_write_atomic(note, text, strlen(text), 0600, (gid_t)-1, NULL);
		if (!stubborn)
			_exit(0);
	}
}

static struct child forked(pid_t pid)
{
	struct child c = CHILD_INIT;
	struct err e = ERR_INIT;

	assert_true(pid > 0);
	if (child_adopt(pid, child_start_time(pid), &c, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

struct child host_guest(const char *name, const char *mark, bool stubborn)
{
	_free_ char *note = xasprintf("%s/term-%s", host_dir, name);
	sigset_t term, old;
	struct child c;
	pid_t pid;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, &old);
	pid = fork();
	if (pid == 0)
		guest_main(note, &term, stubborn);
	sigprocmask(SIG_SETMASK, &old, NULL);
	c = forked(pid);
	host_record(name, mark, &c);
	return c;
}

int64_t host_term_ns(const char *name)
{
	_free_ char *note = xasprintf("%s/term-%s", host_dir, name);
	_free_ char *text = file_read(note, 64, NULL, NULL);

	return text ? strtoll(text, NULL, 10) : 0;
}

static _Noreturn int namespace_main(void *arg)
{
	(void)arg;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (fork() == 0)
		for (;;)
			pause();
	for (;;)
		pause();
}

struct child host_stuck_guest(const char *name)
{
	static char stack[64 << 10] __attribute__((aligned(16)));
	pid_t pid = clone(namespace_main, stack + sizeof(stack), CLONE_NEWPID | SIGCHLD, NULL);
	_free_ char *children = NULL;
	struct child c;

	if (pid < 0) {
		print_message("# skipped: needs root, for a process namespace\n");
		skip();
	}
	c = forked(pid);
	children = xasprintf("/proc/%d/task/%d/children", (int)pid, (int)pid);
	for (int i = 0; i < 500 && traced < 0; i++) {
		_closefile_ FILE *f = fopen(children, "re");

		if (!f || fscanf(f, "%d", &traced) != 1)
			usleep(10000);
	}
	assert_int_equal(ptrace(PTRACE_SEIZE, traced, NULL, NULL), 0);
	host_record(name, MARK "1", &c);
	return c;
}

void host_unstick(void)
{
	if (traced > 0) {
		kill(traced, SIGKILL);
		while (waitpid(traced, NULL, __WALL) == traced)
			;
	}
	traced = -1;
}

int64_t host_end_ns(struct child *c, int seconds)
{
	assert_int_equal(child_wait(c, IN_S(seconds), NULL, NULL), 1);
	return clock_boot_ns();
}

bool host_file(const char *name, int seconds)
{
	_free_ char *path = xasprintf("%s/%s", host_dir, name);
	int64_t deadline = IN_S(seconds);

	while (access(path, F_OK) < 0) {
		if (clock_now_ns() >= deadline)
			return false;
		usleep(10000);
	}
	return true;
}

bool host_said(const char *text)
{
	_free_ char *said = file_read(host_log, 1 << 20, NULL, NULL);

	return said && strstr(said, text);
}

unsigned host_device_did(const char *what, int64_t since_ns)
{
	_free_ char *path = xasprintf("%s.log", host_device);
	_closefile_ FILE *f = fopen(path, "re");
	char word[16];
	int64_t at;
	long number;
	unsigned n = 0;

	while (f && fscanf(f, "%" SCNd64 " %15s %ld\n", &at, word, &number) == 3)
		n += strcmp(word, what) == 0 && at >= since_ns;
	return n;
}
