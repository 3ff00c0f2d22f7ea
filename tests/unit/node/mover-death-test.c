/* SPDX-License-Identifier: Apache-2.0 */
/* The mover when something dies: daemons at any moment, engines alone and together with their guards, QEMUs. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/child.h"
#include "base/file.h"
#include "tests/unit/node/movers.h"

/* ---- daemons that die ---- */

static void both_again(void)
{
	mover_again(&host_src);
	mover_again(&host_dst);
}

static void new_daemons_at_every_step_lose_nothing(void **state)
{
	(void)state;
	guest_start(&host_src);
	receive_now();
	both_again(); /* godwit-vm is starting the QEMU */
	run_until(dst_listens);
	both_again(); /* the receiver listens */
	run_until(dst_listens);
	send_now(40);
	mover_again(&host_src);
	run_until(src_asks);
	both_again(); /* the agreement is waited for */
	run_until(src_asks);
	run_ms(300);
	mover_agree(host_src.m, ID, true);
	both_again(); /* it was agreed to */
	run_until(both_ended);
	both_again(); /* it ended, and nobody has written that down */
	run_until(both_ended);
	assert_int_equal(host_src.end, MOVER_MOVED);
	assert_int_equal(host_dst.end, MOVER_MOVED);
	assert_true(host_src.figures && host_src.pause_ms > 0);
	assert_guest_on(&host_dst);
	forget_both();
	both_again();
	run_ms(100);
	assert_int_equal(host_src.ends + host_dst.ends, 0);
	assert_guest_on(&host_dst);
}

static void ends_while_no_daemon_runs_are_found(void **state)
{
	(void)state;
	move_begin(40);
	run_until(src_asks);
	mover_agree(host_src.m, ID, true);
	mover_free(steal_ptr(host_src.m));
	mover_free(steal_ptr(host_dst.m));
	for (int64_t deadline = IN_S(20); status_on(&host_dst) != VM_STATUS_RUNNING && clock_now_ns() < deadline;)
		usleep(20000);
	/* Both engines have said their last. */
	usleep(500000);
	both_again();
	run_until(both_ended);
	assert_int_equal(host_src.end, MOVER_MOVED);
	assert_int_equal(host_dst.end, MOVER_MOVED);
	assert_guest_on(&host_dst);
}

/* A process that begins a side as a daemon does; killed by whoever started it. */
static pid_t daemon_start(struct host *h)
{
	pid_t pid;

	mover_free(steal_ptr(h->m));
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		host_loop = loop_new();
		mover_up(h, NULL);
		if (h == &host_dst)
			receive_now();
		else
			send_now(40);
		loop_run(host_loop);
		_exit(1);
	}
	return pid;
}

static void daemon_kill(pid_t pid, int after_ms)
{
	usleep((unsigned)after_ms * 1000);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static bool begun_on(const struct host *h)
{
	json_t *list = mover_list(h->m);
	bool begun = json_array_size(list) == 1;

	json_decref(list);
	return begun;
}

static bool dst_listens_or_ended(void)
{
	return host_dst.listened > 0 || host_dst.ends > 0;
}

static bool src_asks_or_ended(void)
{
	return host_src.agrees > 0 || host_src.ends > 0;
}

/* kill -9 while the destination's side begins, and a new daemon: it was begun and goes on, or nothing is there. */
static void killed_while_receiving(int after_ms)
{
	daemon_kill(daemon_start(&host_dst), after_ms);
	mover_again(&host_dst);
	if (begun_on(&host_dst)) {
		run_until(dst_listens_or_ended);
		if (!host_dst.ends)
			return;
		assert_int_equal(host_dst.end, MOVER_FAILED);
		host_dst.ends = 0;
		assert_int_equal(mover_forget(host_dst.m, ID, NULL), 0);
	}
	usleep(100000);
	assert_int_equal(status_on(&host_dst), VM_STATUS_MAX);
	receive_now();
	run_until(dst_listens);
}

static void killed_while_sending(int after_ms)
{
	daemon_kill(daemon_start(&host_src), after_ms);
	mover_again(&host_src);
	if (begun_on(&host_src)) {
		run_until(src_asks_or_ended);
		if (!host_src.ends)
			return;
		assert_int_equal(host_src.end, MOVER_FAILED);
		host_src.ends = 0;
		assert_int_equal(mover_forget(host_src.m, ID, NULL), 0);
	}
	send_now(40);
	run_until(src_asks);
}

static void daemon_killed_while_a_side_begins(void **state)
{
	static const int moments_ms[] = {0, 2, 4, 8, 60};

	(void)state;
	guest_start(&host_src);
	for (size_t i = 0; i < ARRAY_SIZE(moments_ms); i++) {
		killed_while_receiving(moments_ms[i]);
		killed_while_sending(moments_ms[i]);
		mover_agree(host_src.m, ID, false);
		run_until(both_ended);
		assert_guest_on(&host_src);
		forget_both();
		both_again();
	}
}

/* ---- engines that die together with their guards ---- */

/* An engine that stops itself at @step. Caller frees. */
static char *engine_stopping_at(const char *step)
{
	char *path = xasprintf("%s/engine-%s", host_src.dir, step);
	FILE *f = fopen(path, "we");

	fprintf(f, "#!/bin/sh\nGODWIT_FAULT_STEP=%s exec %s \"$@\"\n", step, migrate_program);
	fclose(f);
	assert_int_equal(chmod(path, 0700), 0);
	return path;
}

/* The engine of @h as its state has it. */
static pid_t engine_pid(const struct host *h)
{
	_free_ char *path = xasprintf("%s/.moves/" ID "/state.json", h->dir);
	_free_ char *text = file_read(path, 1 << 20, NULL, NULL);
	json_t *o = text ? json_loads(text, 0, NULL) : NULL;
	pid_t pid = (pid_t)json_integer_value(json_object_get(json_object_get(o, "child"), "pid"));

	json_decref(o);
	return pid;
}

static char process_state(pid_t pid, pid_t *ret_parent)
{
	_free_ char *path = xasprintf("/proc/%d/stat", (int)pid);
	_free_ char *text = file_read(path, 4096, NULL, NULL);
	const char *rest = text ? strrchr(text, ')') : NULL;
	int parent = -1;
	char state = 0;

	if (rest)
		sscanf(rest, ") %c %d", &state, &parent);
	*ret_parent = (pid_t)parent;
	return state;
}

static struct host *stopped_host;
static bool engine_stopped(void)
{
	pid_t parent;

	return process_state(engine_pid(stopped_host), &parent) == 'T';
}

/* SIGKILL to the engine of @h and to its guard, the guard first: it must not settle. */
static void engine_and_guard_kill(const struct host *h)
{
	pid_t engine = engine_pid(h), parent;
	DIR *d = opendir("/proc");
	struct dirent *entry;

	while ((entry = readdir(d)))
		if (isdigit((unsigned char)entry->d_name[0]) && process_state(atoi(entry->d_name), &parent) &&
		    parent == engine)
			kill(atoi(entry->d_name), SIGKILL);
	closedir(d);
	kill(engine, SIGKILL);
}

/* Its guard, or where there is none yet QEMU, does what is to be done. */
static void engine_alone_killed_while_it_copies(void **state)
{
	struct host *victims[] = {&host_src, &host_dst};

	(void)state;
	guest_start(&host_src);
	for (size_t i = 0; i < 2; i++) {
		host_src.ends = host_dst.ends = host_src.progressed = host_dst.listened = 0;
		receive_now();
		run_until(dst_listens);
		send_now(4);
		run_until(src_progresses);
		kill(engine_pid(victims[i]), SIGKILL);
		run_until(both_ended);
		assert_int_equal(host_src.end, MOVER_FAILED);
		assert_int_equal(host_dst.end, MOVER_FAILED);
		assert_string_equal(victims[i]->words, i ? "godwit-migrate died; the guest was not complete here"
							 : "godwit-migrate died; the guest is running at the source");
		assert_guest_on(&host_src);
		forget_both();
	}
}

/* A move of which @victim's engine and guard are killed at @step; the daemons die, too. */
static void kill_all_at(struct host *victim, const char *step)
{
	_free_ char *engine = engine_stopping_at(step);

	guest_start(&host_src);
	mover_free(victim->m);
	mover_up(victim, engine);
	receive_now();
	run_until(dst_listens);
	send_now(40);
	mover_agree(host_src.m, ID, true);
	stopped_host = victim;
	run_until(engine_stopped);
	mover_free(steal_ptr(host_src.m));
	mover_free(steal_ptr(host_dst.m));
	engine_and_guard_kill(victim);
	both_again();
	run_until(both_ended);
	unlink(engine);
}

static void ask_both(void)
{
	mover_ask(host_src.m, ID, MOVER_SRC);
	mover_ask(host_dst.m, ID, MOVER_DST);
	run_until(src_answered);
	run_until(dst_answered);
}

static void source_killed_before_go_keeps_the_guest(void **state)
{
	(void)state;
	kill_all_at(&host_src, "released");
	assert_int_equal(host_src.end, MOVER_FAILED);
	assert_int_equal(host_dst.end, MOVER_FAILED);
	assert_guest_on(&host_src);
	ask_both();
	assert_int_equal(host_src.answer, MOVE_NO);
	assert_int_equal(host_dst.answer, MOVE_NO);
}

static void source_killed_at_go_leaves_it_to_the_cluster(void **state)
{
	(void)state;
	kill_all_at(&host_src, "go");
	assert_int_equal(host_src.end, MOVER_UNDECIDED);
	assert_int_equal(host_dst.end, MOVER_FAILED);
	assert_int_not_equal(status_on(&host_src), VM_STATUS_RUNNING);
	ask_both();
	assert_int_equal(host_src.answer, MOVE_YES);
	assert_int_equal(host_dst.answer, MOVE_NO);
	/* cluster/move.c: the destination promised never to run it, so the source goes on. */
	host_src.ends = 0;
	assert_int_equal(mover_settle(host_src.m, ID, true, NULL), 0);
	run_until(src_ended);
	assert_int_equal(host_src.end, MOVER_FAILED);
	assert_guest_on(&host_src);
	forget_both();
}

static void destination_killed_before_go_gives_the_guest_back(void **state)
{
	(void)state;
	kill_all_at(&host_dst, "loaded");
	assert_int_equal(host_src.end, MOVER_FAILED);
	assert_int_equal(host_dst.end, MOVER_FAILED);
	assert_guest_on(&host_src);
	ask_both();
	assert_int_equal(host_src.answer, MOVE_NO);
	assert_int_equal(host_dst.answer, MOVE_NO);
}

static void destination_killed_after_go_has_the_guest(void **state)
{
	(void)state;
	kill_all_at(&host_dst, "go");
	assert_int_equal(host_src.end, MOVER_UNDECIDED);
	assert_int_equal(host_dst.end, MOVER_MOVED);
	ask_both();
	assert_int_equal(host_src.answer, MOVE_YES);
	assert_int_equal(host_dst.answer, MOVE_YES);
	host_src.ends = 0;
	assert_int_equal(mover_settle(host_src.m, ID, false, NULL), 0);
	run_until(src_ended);
	assert_int_equal(host_src.end, MOVER_MOVED);
	assert_guest_on(&host_dst);
	forget_both();
}

static void source_whose_qemu_dies_while_it_copies_has_failed(void **state)
{
	struct vm *vm = NULL;

	(void)state;
	move_begin(4);
	run_until(src_progresses);
	assert_int_equal(vm_open(host_src.dir, "t1", &vm, NULL), 0);
	child_signal(&vm->proc, SIGKILL, NULL);
	vm_close(vm);
	run_until(both_ended);
	assert_int_equal(host_src.end, MOVER_FAILED);
	assert_int_equal(host_dst.end, MOVER_FAILED);
	assert_int_equal(status_on(&host_src), VM_STATUS_GONE);
	assert_int_equal(status_on(&host_dst), VM_STATUS_MAX);
	assert_int_equal(host_qemus(host_uuid), 0);
}
#define TEST(f) cmocka_unit_test_setup_teardown(f, movers_set_up, movers_tear_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(new_daemons_at_every_step_lose_nothing),
		TEST(ends_while_no_daemon_runs_are_found),
		TEST(daemon_killed_while_a_side_begins),
		TEST(engine_alone_killed_while_it_copies),
		TEST(source_killed_before_go_keeps_the_guest),
		TEST(source_killed_at_go_leaves_it_to_the_cluster),
		TEST(destination_killed_before_go_gives_the_guest_back),
		TEST(destination_killed_after_go_has_the_guest),
		TEST(source_whose_qemu_dies_while_it_copies_has_failed),
	};

	host_init();
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("node/mover-death", tests, NULL, NULL);
}
