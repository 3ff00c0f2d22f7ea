/* SPDX-License-Identifier: Apache-2.0 */
/* check: waits */
/* The agent with real QEMUs (TCG): it makes what runs what is wanted, and survives being killed at any moment. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/child.h"
#include "tests/unit/node/host.h"

static char run_dir[64];
static char *program;

/* What the agent said last. */
static struct {
	char status[32], note[256], cause[16], result[256];
	pid_t pid;
	bool foreign, done;
	int64_t epoch;
	unsigned statuses, results;
	enum agent_act act;
} heard;

static int set_up(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	snprintf(run_dir, sizeof(run_dir), "/tmp/agent-test-XXXXXX");
	memset(&heard, 0, sizeof(heard));
	return mkdtemp(run_dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	host_clean(run_dir);
	free(steal_ptr(program));
	return rmdir(run_dir);
}

static void on_status(void *arg, const struct agent_status *s)
{
	(void)arg;
	snprintf(heard.status, sizeof(heard.status), "%s", s->status);
	snprintf(heard.note, sizeof(heard.note), "%s", s->note ? s->note : "");
	snprintf(heard.cause, sizeof(heard.cause), "%s", s->cause ? s->cause : "");
	heard.pid = s->pid;
	heard.epoch = s->epoch;
	heard.foreign = s->foreign;
	heard.statuses++;
}

static void on_result(void *arg, const struct agent_result *r)
{
	(void)arg;
	snprintf(heard.result, sizeof(heard.result), "%s", r->text);
	heard.done = r->done;
	heard.act = r->act;
	heard.results++;
}

static struct agent *new_agent_every(const char *vm_program, int64_t interval_ns)
{
	struct agent_options opt = {.run_dir = run_dir,
				    .vm_program = vm_program,
				    .cluster = HOST_CLUSTER,
				    .accel = "tcg",
				    .stop_s = 1,
				    .interval_ns = interval_ns};
	struct agent_calls calls = {.status = on_status, .result = on_result};
	struct agent *a = NULL;
	struct err e = ERR_INIT;

	if (agent_new(&opt, &calls, NULL, &a, &e) < 0)
		fail_msg("%s", e.text);
	agent_allow(a, true);
	return a;
}

static struct agent *new_agent(const char *vm_program)
{
	return new_agent_every(vm_program, NS_PER_S);
}

static void want_as(struct agent *a, int64_t epoch, enum agent_intent intent, json_t *d)
{
	struct agent_guest g = {
		.name = "t1", .uuid = host_uuid, .epoch = epoch, .intent = intent, .stop_s = -1, .definition = d};

	agent_set(a, &g, 1);
	json_decref(d);
}

static void want(struct agent *a, int64_t epoch, enum agent_intent intent, const char *more)
{
	want_as(a, epoch, intent, host_definition("t1", host_uuid, more));
}

/* The same by agent_update(). */
static void update(struct agent *a, int64_t epoch, enum agent_intent intent)
{
	json_t *d = host_definition("t1", host_uuid, "");
	struct agent_guest g = {
		.name = "t1", .uuid = host_uuid, .epoch = epoch, .intent = intent, .stop_s = -1, .definition = d};

	agent_update(a, &g);
	json_decref(d);
}

/* Run the agent until @status (and @note, a part of it) is heard. The loop's thread is never held up for long. */
static void run_until(struct agent *a, const char *status, const char *note)
{
	int64_t deadline = IN_S(60);

	while (strcmp(heard.status, status) != 0 || !strstr(heard.note, note)) {
		struct pollfd p = {.fd = agent_fd(a), .events = POLLIN};
		int64_t before;

		if (clock_now_ns() > deadline)
			fail_msg("\"%s\" (%s) was not heard; the last was \"%s\" (%s), result %s", status, note,
				 heard.status, heard.note, heard.result);
		poll(&p, 1, 1000);
		before = clock_now_ns();
		agent_dispatch(a);
		assert_true(clock_now_ns() - before < NS_PER_S);
	}
}

static void guest_is_started_kept_and_stopped(void **state)
{
	struct agent *a;
	pid_t pid;

	(void)state;
	program = host_program("godwit-vm");
	a = new_agent(program);
	want(a, 1, AGENT_RUNNING, "");
	run_until(a, "stopped", "");
	run_until(a, "running", "");
	pid = heard.pid;
	assert_true(heard.done && heard.act == AGENT_START);
	assert_int_equal(host_pid(run_dir, "t1", NULL), pid);
	/* A daemon that is replaced finds it again, and leaves it as it is. */
	agent_free(a);
	memset(&heard, 0, sizeof(heard));
	a = new_agent(program);
	want(a, 1, AGENT_RUNNING, "");
	run_until(a, "running", "");
	assert_int_equal(heard.pid, pid);
	assert_int_equal(heard.results, 0);
	want(a, 1, AGENT_STOPPED, "");
	run_until(a, "stopped", "");
	assert_int_equal(heard.act, AGENT_STOP);
	assert_int_equal(host_qemus(host_uuid), 0);
	agent_free(a);
}

static void guest_that_crashes_is_started_again_under_a_new_epoch_only(void **state)
{
	json_t *wrong = host_definition("t1", host_uuid, "");
	struct agent *a;
	struct vm *vm = NULL;
	pid_t pid;

	(void)state;
	program = host_program("godwit-vm");
	a = new_agent(program);
	want(a, 1, AGENT_RUNNING, "");
	run_until(a, "running", "");
	pid = heard.pid;
	assert_int_equal(vm_open(run_dir, "t1", &vm, NULL), 0);
	child_signal(&vm->proc, SIGSEGV, NULL);
	vm_close(vm);
	run_until(a, "failed", "its QEMU ended without being told to");
	assert_string_equal(heard.cause, "crash");
	assert_int_equal(heard.pid, -1);
	/* Another daemon starts it no more than this one. */
	agent_free(a);
	memset(&heard, 0, sizeof(heard));
	a = new_agent(program);
	want(a, 1, AGENT_RUNNING, "");
	run_until(a, "failed", "its QEMU ended without being told to");
	assert_int_equal(heard.results, 0);
	assert_int_equal(host_qemus(host_uuid), 0);
	/* A start that fails before it comes to remove what lies there has failed under its own epoch. */
	json_object_set_new(wrong, "nonsense", json_true());
	want_as(a, 2, AGENT_RUNNING, wrong);
	run_until(a, "failed", "nonsense");
	assert_int_equal(heard.epoch, 2);
	want(a, 3, AGENT_RUNNING, "");
	run_until(a, "running", "");
	assert_int_not_equal(heard.pid, pid);
	want(a, 3, AGENT_KILLED, "");
	run_until(a, "stopped", "");
	assert_int_equal(heard.act, AGENT_KILL);
	agent_free(a);
}

static void failing_start_says_why_and_is_not_tried_again_under_its_epoch(void **state)
{
	struct agent *a;

	(void)state;
	program = host_program("godwit-vm");
	a = new_agent(program);
	want(a, 1, AGENT_RUNNING, ",\"kernel\":\"/no/kernel\"");
	run_until(a, "failed", "/no/kernel");
	assert_false(heard.done);
	assert_non_null(strstr(heard.result, "could not open kernel file"));
	for (int64_t end = IN_S(2); clock_now_ns() < end;) {
		struct pollfd p = {.fd = agent_fd(a), .events = POLLIN};

		poll(&p, 1, 100);
		agent_dispatch(a);
	}
	assert_int_equal(heard.results, 1);
	want(a, 2, AGENT_RUNNING, "");
	run_until(a, "running", "");
	assert_int_equal(heard.results, 2);
	agent_free(a);
}

static void guest_of_an_older_ownership_is_killed_and_started_afresh(void **state)
{
	struct agent *a;
	pid_t pid;

	(void)state;
	program = host_program("godwit-vm");
	a = new_agent(program);
	want(a, 1, AGENT_RUNNING, "");
	run_until(a, "running", "");
	pid = heard.pid;
	want(a, 3, AGENT_RUNNING, "");
	run_until(a, "stopped", "");
	assert_int_equal(heard.act, AGENT_KILL);
	run_until(a, "running", "");
	assert_int_not_equal(heard.pid, pid);
	/* It is another node's now. */
	want(a, 4, AGENT_ELSEWHERE, "");
	while (host_qemus(host_uuid) > 0 || host_pid(run_dir, "t1", NULL) >= 0) {
		struct pollfd p = {.fd = agent_fd(a), .events = POLLIN};

		poll(&p, 1, 100);
		agent_dispatch(a);
	}
	agent_free(a);
}

/* How many looks the agent takes within @ms; each is a child whose end makes its descriptor readable. */
static int looks_within(struct agent *a, int64_t ms)
{
	int n = 0;

	for (int64_t end = clock_now_ns() + ms * NS_PER_MS; clock_now_ns() < end;) {
		struct pollfd p = {.fd = agent_fd(a), .events = POLLIN};

		n += poll(&p, 1, 10) > 0;
		agent_dispatch(a);
	}
	return n;
}

static void guest_that_changes_alone_is_followed_and_what_is_known_costs_no_look(void **state)
{
	struct agent_guest other = {.name = "t2",
				    .uuid = "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
				    .epoch = 1,
				    .intent = AGENT_STOPPED,
				    .stop_s = -1};
	struct agent *a;
	pid_t pid;

	(void)state;
	program = host_program("godwit-vm");
	a = new_agent_every(program, 3600 * NS_PER_S);
	update(a, 1, AGENT_RUNNING);
	run_until(a, "running", "");
	pid = heard.pid;
	looks_within(a, 2000);
	update(a, 1, AGENT_RUNNING);
	assert_int_equal(looks_within(a, 1000), 0);
	/* Another one: it is told of, and this one stays as it is. */
	agent_update(a, &other);
	run_until(a, "stopped", "");
	assert_int_equal(host_pid(run_dir, "t1", NULL), pid);
	agent_forget(a, "t2");
	assert_true(looks_within(a, 1000) > 0);
	agent_forget(a, "t2");
	assert_int_equal(looks_within(a, 1000), 0);
	update(a, 1, AGENT_KILLED);
	memset(&heard, 0, sizeof(heard));
	run_until(a, "stopped", "");
	assert_int_equal(heard.act, AGENT_KILL);
	assert_int_equal(host_qemus(host_uuid), 0);
	/* What was told is told again for the asking. */
	memset(&heard, 0, sizeof(heard));
	agent_tell(a, "t1");
	run_until(a, "stopped", "");
	agent_free(a);
}

static void guest_in_a_move_is_left_alone(void **state)
{
	struct agent *a;
	pid_t pid;

	(void)state;
	program = host_program("godwit-vm");
	a = new_agent(program);
	want(a, 1, AGENT_RUNNING, "");
	run_until(a, "running", "");
	pid = heard.pid;
	want(a, 7, AGENT_MOVING, "");
	for (int64_t end = IN_S(2); clock_now_ns() < end;) {
		struct pollfd p = {.fd = agent_fd(a), .events = POLLIN};

		poll(&p, 1, 100);
		agent_dispatch(a);
	}
	assert_int_equal(host_pid(run_dir, "t1", NULL), pid);
	assert_int_equal(heard.results, 1);
	agent_free(a);
}

/* Start t1 without the agent. */
static struct vm *start_by_hand(const char *mark)
{
	json_t *definition = host_definition("t1", host_uuid, "");
	_free_ char *text = json_dumps(definition, 0);
	struct vm_options opt = {.run_dir = run_dir, .accel = ACCEL_TCG, .mark = mark};
	struct def d = {0};
	struct vm *vm = NULL;
	struct err e = ERR_INIT;

	json_decref(definition);
	assert_int_equal(def_parse(text, strlen(text), "t", "/", &d, &e), 0);
	if (vm_start(&d, &opt, &vm, &e) < 0)
		fail_msg("%s", e.text);
	def_done(&d);
	return vm;
}

static void what_others_started_is_reported_and_never_touched(void **state)
{
	static const struct {
		const char *mark, *note;
	} rows[] = {{NULL, "was started by hand"}, {"godwit:another:1", "belongs to another cluster"}};

	(void)state;
	program = host_program("godwit-vm");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct vm *vm = start_by_hand(rows[i].mark);
		struct agent *a = new_agent(program);

		want(a, 9, AGENT_KILLED, "");
		run_until(a, "running", rows[i].note);
		assert_true(heard.foreign);
		want(a, 9, AGENT_RUNNING, "");
		for (int64_t end = IN_S(2); clock_now_ns() < end;) {
			struct pollfd p = {.fd = agent_fd(a), .events = POLLIN};

			poll(&p, 1, 100);
			agent_dispatch(a);
		}
		assert_false(child_ended(&vm->proc));
		assert_int_equal(heard.results, 0);
		agent_free(a);
		assert_int_equal(vm_kill(vm, NULL), 0);
		vm_close(vm);
	}
}

static void memory_of_guests_is_counted(void **state)
{
	struct facts_guest list[4];
	struct agent *a;

	(void)state;
	program = host_program("godwit-vm");
	a = new_agent(program);
	want(a, 1, AGENT_RUNNING, "");
	run_until(a, "running", "");
	assert_int_equal(agent_memory(a, list, 4), 1);
	assert_int_equal(list[0].memory, 64U << 20);
	assert_true(list[0].resident < list[0].memory);
	assert_int_equal(agent_memory(a, list, 0), 0);
	agent_free(a);
}

/* A guest that the look shows counts, although its process could not be got hold of. */
static void host_is_not_empty_while_a_look_shows_a_guest(void **state)
{
	_free_ char *script = xasprintf("%s.list", run_dir);
	struct agent *a;
	FILE *f = fopen(script, "we");

	(void)state;
	assert_non_null(f);
	fprintf(f,
		"#!/bin/sh\necho '[{\"name\": \"t1\", \"uuid\": \"%s\", \"mark\": \"godwit:%s:1\", \"status\": "
		"\"running\", \"pid\": 1, \"start_time\": 1}]'\n",
		host_uuid, HOST_CLUSTER);
	assert_int_equal(fchmod(fileno(f), 0700), 0);
	assert_int_equal(fclose(f), 0);
	a = new_agent(script);
	assert_false(agent_empty(a, 0));
	want(a, 1, AGENT_RUNNING, "");
	run_until(a, "running", "");
	assert_false(agent_empty(a, 0));
	agent_free(a);
	unlink(script);
}

/* ---- a daemon that is killed ---- */

/* A process that does what a daemon does with its agent, until it is killed. */
static pid_t daemon_start(const char *vm_program, enum agent_intent intent)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct agent *a;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		a = new_agent(vm_program);
		want(a, 1, intent, "");
		for (;;) {
			struct pollfd p = {.fd = agent_fd(a), .events = POLLIN};

			poll(&p, 1, -1);
			agent_dispatch(a);
		}
	}
	return pid;
}

static void daemon_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* Wait until the guest is as wanted; never are there two of it. */
static pid_t wait_for(enum agent_intent intent)
{
	int64_t deadline = IN_S(60);

	for (;;) {
		enum vm_status s = VM_STATUS_GONE;
		pid_t pid = host_pid(run_dir, "t1", &s);

		assert_in_range(host_qemus(host_uuid), 0, 1);
		if (intent == AGENT_RUNNING && pid > 0 && s == VM_STATUS_RUNNING)
			return pid;
		if (intent == AGENT_STOPPED && pid < 0 && host_qemus(host_uuid) == 0)
			return -1;
		if (clock_now_ns() > deadline)
			fail_msg("pid %d status %s", (int)pid, vm_status_names[s]);
		usleep(20000);
	}
}

/* kill -9 in the middle of a start and of a stop, at moments from "nothing done" to "all done"; once with godwit-vm
 * held up before its first step. */
static void daemon_killed_at_any_moment_loses_no_guest_and_starts_none_twice(void **state)
{
	static const int moments_ms[] = {10, 40, 70, 100, 130, 160, 200, 300, 1100};
	_free_ char *slow = xasprintf("%s/slow", run_dir);
	FILE *f;

	(void)state;
	program = host_program("godwit-vm");
	f = fopen(slow, "we");
	fprintf(f, "#!/bin/sh\nsleep 0.1\nexec %s \"$@\"\n", program);
	fclose(f);
	assert_int_equal(chmod(slow, 0700), 0);
	for (size_t i = 0; i < ARRAY_SIZE(moments_ms); i++) {
		const char *which = i % 2 ? slow : program;
		pid_t daemon = daemon_start(which, AGENT_RUNNING), guest;

		usleep((unsigned)moments_ms[i] * 1000);
		daemon_kill(daemon);
		daemon = daemon_start(program, AGENT_RUNNING);
		guest = wait_for(AGENT_RUNNING);
		/* Once it runs, neither deaths nor successors of daemons touch it. */
		daemon_kill(daemon);
		daemon = daemon_start(program, AGENT_RUNNING);
		usleep(500000);
		assert_int_equal(wait_for(AGENT_RUNNING), guest);
		daemon_kill(daemon);
		daemon = daemon_start(which, AGENT_STOPPED);
		usleep((unsigned)moments_ms[i] * 1000);
		daemon_kill(daemon);
		daemon = daemon_start(program, AGENT_STOPPED);
		wait_for(AGENT_STOPPED);
		daemon_kill(daemon);
	}
	unlink(slow);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(guest_is_started_kept_and_stopped),
		TEST(guest_that_crashes_is_started_again_under_a_new_epoch_only),
		TEST(failing_start_says_why_and_is_not_tried_again_under_its_epoch),
		TEST(guest_of_an_older_ownership_is_killed_and_started_afresh),
		TEST(guest_in_a_move_is_left_alone),
		TEST(guest_that_changes_alone_is_followed_and_what_is_known_costs_no_look),
		TEST(what_others_started_is_reported_and_never_touched),
		TEST(memory_of_guests_is_counted),
		TEST(host_is_not_empty_while_a_look_shows_a_guest),
		TEST(daemon_killed_at_any_moment_loses_no_guest_and_starts_none_twice),
	};

	host_init();
	return cmocka_run_group_tests_name("node/agent", tests, NULL, NULL);
}
