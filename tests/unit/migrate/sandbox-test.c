/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's sandbox: what still works inside and what does not, each in a child process of its own. */
#include "migrate/sandbox.h"

#include <fcntl.h>
#include <netdb.h>
#include <openssl/rand.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NO_FILTER 1 /* as sandbox.h says */
#else
#define NO_FILTER 0
#endif

#define NOBODY 65534
#define CHILD_FAILED_TO_ENTER 99

static const struct sandbox_options plain;

/* Run @body inside the sandbox in a child; its return value is the exit status. Returns the wait status. */
static int in_sandbox(const struct sandbox_options *opt, int (*body)(void))
{
	pid_t pid = fork();
	int status = -1;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct err e = ERR_INIT;

		if (sandbox_enter(opt, &e) < 0) {
			fprintf(stderr, "%s\n", e.text);
			_exit(CHILD_FAILED_TO_ENTER);
		}
		_exit(body());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void assert_exits_0(int (*body)(void))
{
	int status = in_sandbox(&plain, body);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* Leave a test that is about the filter of system calls where there is none. */
static void need_filter(void)
{
	if (!NO_FILTER)
		return;
	print_message("# skipped: builds with a sanitizer have no filter\n");
	skip();
}

static void assert_killed(int (*body)(void))
{
	int status = in_sandbox(&plain, body);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

/* ---- what the engine does all day ---- */

static void *thread_main(void *arg)
{
	*(int *)arg = 7;
	return NULL;
}

static int use_threads(void)
{
	pthread_t t[3];
	int got[3] = {0};

	for (int i = 0; i < 3; i++) {
		if (pthread_create(&t[i], NULL, thread_main, &got[i]))
			return 1;
	}
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	return got[0] + got[1] + got[2] != 21;
}

static int use_sockets(void)
{
	struct pollfd p = {.events = POLLIN};
	int pair[2], tcp;
	char c = 'x';

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || send(pair[0], &c, 1, MSG_NOSIGNAL) != 1)
		return 1;
	p.fd = pair[1];
	if (poll(&p, 1, 1000) != 1 || recv(pair[1], &c, 1, 0) != 1)
		return 2;
	tcp = socket(AF_INET, SOCK_STREAM, 0);
	return tcp < 0 || listen(tcp, 1) < 0 ? 3 : 0;
}

static int use_names(void)
{
	struct addrinfo *list = NULL;

	if (getaddrinfo("localhost", "1", NULL, &list))
		return 1;
	freeaddrinfo(list);
	return 0;
}

static int use_memory_and_time(void)
{
	size_t n = 64U << 20;
	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct timespec t = {.tv_nsec = 1000};
	unsigned char random[32];
	_free_ char *heap = malloc(3U << 20);

	if (p == MAP_FAILED || !heap)
		return 1;
	p[n - 1] = 1;
	if (madvise(p, n, MADV_DONTNEED) || mprotect(p, n, PROT_READ) || munmap(p, n))
		return 2;
	if (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL))
		return 3;
	return RAND_bytes(random, sizeof(random)) == 1 ? 0 : 4;
}

static int read_a_file(void)
{
	char text[64];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

	return fd < 0 || read(fd, text, sizeof(text)) <= 0;
}

static int raise_a_signal(void)
{
	signal(SIGUSR1, SIG_IGN);
	return raise(SIGUSR1) || kill(getpid(), SIGUSR1);
}

static void everything_the_engine_needs_works_inside(void **state)
{
	(void)state;
	assert_exits_0(use_threads);
	assert_exits_0(use_sockets);
	assert_exits_0(use_names);
	assert_exits_0(use_memory_and_time);
	assert_exits_0(read_a_file);
	assert_exits_0(raise_a_signal);
}

static int open_file = -1;

static int write_open_file(void)
{
	return pwrite(open_file, "abc", 3, 0) != 3 || ftruncate(open_file, 2) || fsync(open_file) ||
	       lseek(open_file, 0, SEEK_END) != 2;
}

static void a_file_opened_before_can_be_written(void **state)
{
	char path[] = "/tmp/godwit-sandbox-test.XXXXXX";

	(void)state;
	open_file = mkstemp(path);
	assert_true(open_file >= 0);
	unlink(path);
	assert_exits_0(write_open_file);
	close(open_file);
}

/* ---- what it must not ---- */

static int run_a_program(void)
{
	char *argv[] = {(char *)"/bin/true", NULL};

	execv(argv[0], argv);
	return 1;
}

static int trace(void)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	return 1;
}

static int make_a_child(void)
{
	if (fork() == 0)
		_exit(0);
	return 1;
}

static int open_for_writing(void)
{
	open("/dev/null", O_WRONLY);
	return 1;
}

static int create_a_file(void)
{
	open("/tmp/godwit-sandbox-test-made", O_RDONLY | O_CREAT, 0600);
	return 1;
}

static int kill_the_parent(void)
{
	kill(getppid(), 0);
	return 1;
}

static int open_a_packet_socket(void)
{
	socket(AF_PACKET, SOCK_RAW, 0);
	return 1;
}

static int raise_a_limit(void)
{
	struct rlimit l = {RLIM_INFINITY, RLIM_INFINITY};

	setrlimit(RLIMIT_NOFILE, &l);
	return 1;
}

static int move_a_file(void)
{
	rename("/nonexistent/a", "/nonexistent/b");
	return 0;
}

static void forbidden_calls_kill_the_process(void **state)
{
	(void)state;
	need_filter();
	assert_killed(run_a_program);
	assert_killed(trace);
	assert_killed(make_a_child);
	assert_killed(open_for_writing);
	assert_killed(create_a_file);
	assert_killed(kill_the_parent);
	assert_killed(open_a_packet_socket);
	assert_killed(raise_a_limit);
	assert_killed(move_a_file);
}

static void renaming_works_where_it_was_asked_for(void **state)
{
	struct sandbox_options opt = {.rename_files = true};
	int status = in_sandbox(&opt, move_a_file);

	(void)state;
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int make_memory_executable(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return 1;
	return mprotect(p, 4096, PROT_READ | PROT_EXEC) == 0 ? 2 : 0;
}

static void no_memory_becomes_executable(void **state)
{
	(void)state;
	need_filter();
	assert_exits_0(make_memory_executable);
}

/* The line of /proc/self/status that begins with @key says @value. */
static bool status_says(const char *key, const char *value)
{
	_closefile_ FILE *f = fopen("/proc/self/status", "re");
	char line[256];

	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, strlen(key)))
			return strstr(line, value) != NULL;
	}
	return false;
}

static int look_at_privileges(void)
{
	struct rlimit l;

	if (!status_says("CapEff:", "0000000000000000") || !status_says("CapPrm:", "0000000000000000") ||
	    !status_says("CapInh:", "0000000000000000"))
		return 1;
	if (!status_says("NoNewPrivs:", "1"))
		return 2;
	if (getrlimit(RLIMIT_CORE, &l) || l.rlim_cur || l.rlim_max)
		return 3;
	return prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) ? 4 : 0;
}

static void no_privilege_is_left(void **state)
{
	(void)state;
	assert_exits_0(look_at_privileges);
}

static int look_at_user(void)
{
	uid_t r, eff, saved;

	if (getresuid(&r, &eff, &saved) || r != NOBODY || eff != NOBODY || saved != NOBODY)
		return 1;
	if (getegid() != NOBODY || getgroups(0, NULL) != 0)
		return 2;
	return look_at_privileges();
}

static void root_becomes_the_user_of_the_qemu_it_serves(void **state)
{
	struct sandbox_options opt = {0};
	int ready[2], status;
	char c;

	(void)state;
	if (geteuid() != 0) {
		print_message("# skipped: needs root: changing the user\n");
		skip();
	}
	assert_int_equal(pipe(ready), 0);
	opt.qemu_pid = fork();
	if (opt.qemu_pid == 0) {
		if (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY))
			_exit(1);
		(void)!write(ready[1], "x", 1);
		pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	status = in_sandbox(&opt, look_at_user);
	kill(opt.qemu_pid, SIGKILL);
	waitpid(opt.qemu_pid, NULL, 0);
	close(ready[0]);
	close(ready[1]);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_qemu_that_is_gone_is_an_error_for_root(void **state)
{
	struct sandbox_options opt = {.qemu_pid = 0x3fffffff}; /* above the kernel's PID_MAX_LIMIT */
	int status;

	(void)state;
	if (geteuid() != 0) {
		print_message("# skipped: needs root: only root changes the user\n");
		skip();
	}
	status = in_sandbox(&opt, look_at_privileges);
	assert_int_equal(WEXITSTATUS(status), CHILD_FAILED_TO_ENTER);
}

static void the_forbidden_call_is_named_on_request(void **state)
{
	char text[256] = "";
	int out[2], saved, status;

	(void)state;
	need_filter();
	assert_int_equal(pipe(out), 0);
	saved = dup(STDERR_FILENO);
	dup2(out[1], STDERR_FILENO);
	setenv("GODWIT_SANDBOX", "log", 1);
	status = in_sandbox(&plain, run_a_program);
	unsetenv("GODWIT_SANDBOX");
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(out[1]);
	assert_true(read(out[0], text, sizeof(text) - 1) > 0);
	close(out[0]);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
	assert_non_null(strstr(text, "name=execve"));
}

static void *wait_for_ever(void *arg)
{
	(void)arg;
	pause();
	return NULL;
}

static void a_process_with_threads_is_refused(void **state)
{
	pid_t pid = fork();
	int status;

	(void)state;
	if (pid == 0) {
		struct err e = ERR_INIT;
		pthread_t t;

		if (pthread_create(&t, NULL, wait_for_ever, NULL))
			_exit(3);
		_exit(NO_FILTER || (sandbox_enter(&plain, &e) < 0 && strstr(e.text, "2 threads")) ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_the_engine_needs_works_inside),
		cmocka_unit_test(a_file_opened_before_can_be_written),
		cmocka_unit_test(forbidden_calls_kill_the_process),
		cmocka_unit_test(renaming_works_where_it_was_asked_for),
		cmocka_unit_test(no_memory_becomes_executable),
		cmocka_unit_test(no_privilege_is_left),
		cmocka_unit_test(root_becomes_the_user_of_the_qemu_it_serves),
		cmocka_unit_test(a_qemu_that_is_gone_is_an_error_for_root),
		cmocka_unit_test(the_forbidden_call_is_named_on_request),
		cmocka_unit_test(a_process_with_threads_is_refused),
	};

	return cmocka_run_group_tests_name("migrate/sandbox", tests, NULL, NULL);
}
