/* SPDX-License-Identifier: Apache-2.0 */
/* Children: what they inherit, how they are held, waited for and found again. */
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

#include "base/child.h"
#include "base/clock.h"
#include "base/mem.h"

#define SOON (clock_now_ns() + 20 * NS_PER_S)

static struct child spawn(struct child_spec spec)
{
	struct child c = CHILD_INIT;
	struct err e = ERR_INIT;

	if (child_spawn(&spec, &c, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

static void kill_and_reap(struct child *c)
{
	assert_int_equal(child_signal(c, SIGKILL, NULL), 0);
	assert_int_equal(child_wait(c, SOON, NULL, NULL), 1);
	child_done(c);
}

static void output_comes_back(void **state)
{
	const char *argv[] = {"echo", "a b", "$HOME;`x`", NULL};
	_free_ char *out = NULL;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(child_run(argv, SOON, 1000, &out, &e), 0);
	assert_string_equal(out, "a b $HOME;`x`\n"); /* no shell has seen it */
}

static void failure_is_told_with_the_last_line_of_stderr(void **state)
{
	const char *argv[] = {"ls", "/no/such/thing", NULL};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(child_run(argv, SOON, 1000, NULL, &e), -1);
	assert_non_null(strstr(e.text, "program ls exited with status 2"));
	assert_non_null(strstr(e.text, "/no/such/thing"));
}

static void too_much_output_is_an_error_and_the_child_is_gone(void **state)
{
	const char *argv[] = {"yes", NULL};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(child_run(argv, SOON, 1000, NULL, &e), -1);
	assert_non_null(strstr(e.text, "more than 1000 bytes"));
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child left */
}

static void late_child_is_killed(void **state)
{
	const char *argv[] = {"sleep", "1000", NULL};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(child_run(argv, clock_now_ns() + 100 * NS_PER_MS, 1000, NULL, &e), -1);
	assert_int_equal(e.code, ERR_TIMEOUT);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void missing_program_is_a_sentence(void **state)
{
	const char *argv[] = {"no-such-program-here", NULL};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(child_run(argv, SOON, 10, NULL, &e), -1);
	assert_non_null(strstr(e.text, "no-such-program-here is not installed"));
}

static void exec_that_fails_names_the_step(void **state)
{
	char path[] = "/tmp/child-test-XXXXXX";
	const char *argv[] = {path, NULL};
	int fd = mkstemp(path);
	struct err e = ERR_INIT;

	(void)state;
	assert_true(fd >= 0 && fchmod(fd, 0700) == 0);
	assert_int_equal(write(fd, "\177ELF", 4), 4);
	close(fd);
	assert_int_equal(child_run(argv, SOON, 10, NULL, &e), -1);
	assert_non_null(strstr(e.text, "exec: Exec format error"));
	unlink(path);
}

static void only_listed_descriptors_are_inherited(void **state)
{
	const char *argv[] = {"ls", "/proc/self/fd", NULL};
	int stray = open("/dev/null", O_RDWR); /* deliberately not close-on-exec */
	int listed = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	int p[2];
	char buf[256] = "";

	(void)state;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	struct child_fd fds[] = {{p[1], 1}, {listed, 77}};
	struct child c = spawn((struct child_spec){.argv = argv, .fds = fds, .n_fds = 2});

	close(p[1]);
	assert_int_equal(child_wait(&c, SOON, NULL, NULL), 1);
	assert_true(read(p[0], buf, sizeof(buf) - 1) > 0);
	assert_string_equal(buf, "0\n1\n2\n3\n77\n"); /* 3 is ls's own, the folder */
	child_done(&c);
	close(p[0]);
	close(stray);
	close(listed);
}

static void swapped_descriptors_do_not_overwrite_each_other(void **state)
{
	const char *argv[] = {"sh", "-c", "readlink /proc/self/fd/20; readlink /proc/self/fd/21", NULL};
	int a = fcntl(open("/dev/zero", O_RDONLY | O_CLOEXEC), F_DUPFD_CLOEXEC, 21);
	int b = fcntl(open("/dev/full", O_RDONLY | O_CLOEXEC), F_DUPFD_CLOEXEC, 20);
	char buf[256] = "";
	int p[2];

	(void)state;
	assert_int_equal(a, 21);
	assert_int_equal(b, 20);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	struct child_fd fds[] = {{p[1], 1}, {a, 20}, {b, 21}};
	struct child c = spawn((struct child_spec){.argv = argv, .fds = fds, .n_fds = 3});

	close(p[1]);
	assert_int_equal(child_wait(&c, SOON, NULL, NULL), 1);
	assert_true(read(p[0], buf, sizeof(buf) - 1) > 0);
	assert_string_equal(buf, "/dev/zero\n/dev/full\n");
	child_done(&c);
	close(p[0]);
	close(a);
	close(b);
}

static void held_child_waits_for_its_release(void **state)
{
	const char *argv[] = {"true", NULL};
	struct child c = spawn((struct child_spec){.argv = argv, .hold = true});
	struct err e = ERR_INIT;
	int status = -1;

	(void)state;
	assert_int_equal(child_wait(&c, clock_now_ns() + 100 * NS_PER_MS, NULL, NULL), 0);
	assert_int_equal(child_release(&c, &e), 0);
	assert_int_equal(child_wait(&c, SOON, &status, NULL), 1);
	assert_int_equal(status, 0);
	child_done(&c);
}

static void held_child_ends_when_its_keeper_dies(void **state)
{
	const char *argv[] = {"sleep", "1000", NULL};
	struct child c = spawn((struct child_spec){.argv = argv, .hold = true});
	/* A second held child must not keep the first one's gate open. */
	struct child other = spawn((struct child_spec){.argv = argv, .hold = true});
	int status = 0;

	(void)state;
	close(steal_fd(&c.hold_fd)); /* what the kernel does when the keeper dies */
	assert_int_equal(child_wait(&c, SOON, &status, NULL), 1);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 127);
	child_done(&c);
	kill_and_reap(&other);
}

static void release_of_a_dead_child_fails_without_a_signal(void **state)
{
	const char *argv[] = {"true", NULL};
	struct child c = spawn((struct child_spec){.argv = argv, .hold = true});
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(child_signal(&c, SIGKILL, &e), 0);
	assert_int_equal(child_wait(&c, SOON, NULL, NULL), 1);
	assert_int_equal(child_release(&c, &e), -1);
	child_done(&c);
}

static void adopted_by_pid_and_start_time(void **state)
{
	const char *argv[] = {"sleep", "1000", NULL};
	struct child c = spawn((struct child_spec){.argv = argv, .session = true});
	struct child again = CHILD_INIT;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(child_adopt(c.pid, c.start_time, &again, &e), 0);
	assert_false(child_ended(&again));
	kill_and_reap(&c);
	assert_true(child_ended(&again));
	child_done(&again);
}

static void another_process_with_that_pid_is_not_adopted(void **state)
{
	struct child c = CHILD_INIT;
	struct err e = ERR_INIT;
	uint64_t ours = child_start_time(getpid());

	(void)state;
	assert_true(ours > 0);
	assert_int_equal(child_adopt(getpid(), ours - 1, &c, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	assert_int_equal(c.pidfd, -1);
	assert_int_equal(child_adopt(0, 1, &c, &e), -1);
	assert_int_equal(child_adopt(-5, 1, &c, &e), -1);
}

static void zombie_is_not_adopted(void **state)
{
	const char *argv[] = {"true", NULL};
	struct child c = spawn((struct child_spec){.argv = argv});
	struct child again = CHILD_INIT;
	struct err e = ERR_INIT;

	(void)state;
	while (!child_ended(&c))
		usleep(1000);
	assert_int_equal(child_adopt(c.pid, c.start_time, &again, &e), -1);
	assert_int_equal(child_wait(&c, SOON, NULL, NULL), 1);
	child_done(&c);
}

static void dropped_child_is_another_user_without_groups(void **state)
{
	const char *argv[] = {"id", NULL};
	char buf[256] = "";
	int p[2];

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	struct child_fd fds[] = {{p[1], 1}};
	struct child c = spawn(
		(struct child_spec){.argv = argv, .fds = fds, .n_fds = 1, .drop = true, .uid = 54321, .gid = 54322});

	close(p[1]);
	assert_int_equal(child_wait(&c, SOON, NULL, NULL), 1);
	assert_true(read(p[0], buf, sizeof(buf) - 1) > 0);
	assert_string_equal(buf, "uid=54321 gid=54322 groups=54322\n");
	child_done(&c);
	close(p[0]);
}

static void last_line_skips_what_is_blank(void **state)
{
	char text[] = "one\ntwo words\n\n \n";
	char none[] = "\n";

	(void)state;
	assert_string_equal(child_last_line(text), "two words");
	assert_string_equal(child_last_line(none), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(output_comes_back),
		cmocka_unit_test(failure_is_told_with_the_last_line_of_stderr),
		cmocka_unit_test(too_much_output_is_an_error_and_the_child_is_gone),
		cmocka_unit_test(late_child_is_killed),
		cmocka_unit_test(missing_program_is_a_sentence),
		cmocka_unit_test(exec_that_fails_names_the_step),
		cmocka_unit_test(only_listed_descriptors_are_inherited),
		cmocka_unit_test(swapped_descriptors_do_not_overwrite_each_other),
		cmocka_unit_test(held_child_waits_for_its_release),
		cmocka_unit_test(held_child_ends_when_its_keeper_dies),
		cmocka_unit_test(release_of_a_dead_child_fails_without_a_signal),
		cmocka_unit_test(adopted_by_pid_and_start_time),
		cmocka_unit_test(another_process_with_that_pid_is_not_adopted),
		cmocka_unit_test(zombie_is_not_adopted),
		cmocka_unit_test(dropped_child_is_another_user_without_groups),
		cmocka_unit_test(last_line_skips_what_is_blank),
	};

	return cmocka_run_group_tests_name("base/child", tests, NULL, NULL);
}
