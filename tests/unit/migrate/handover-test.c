/* SPDX-License-Identifier: Apache-2.0 */
/* check: waits */
/* Tests of the hand-over: which steps may follow which, and how two sides settle a move whose engines have died. */
#include "tests/unit/hv/fake-qemu.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "base/log.h"
#include "migrate/handover.h"

#define RUNNING "\"return\": {\"status\": \"running\", \"running\": true}"
#define PAUSED "\"return\": {\"status\": \"paused\", \"running\": false}"
#define POSTMIGRATE "\"return\": {\"status\": \"postmigrate\", \"running\": false}"
#define FINISHING "\"return\": {\"status\": \"finish-migrate\", \"running\": false}"
#define OK "\"return\": {}"
#define RESUME "{\"event\": \"RESUME\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\r\n"

/* ---- a monitor that can be opened by its path ---- */

/* Plays one script to whoever connects, once. Nobody connecting is told apart from a script that went wrong. */
struct monitor {
	char path[64];
	int fd;
	struct fake fake;
	pthread_t thread;
	bool used;
};

static void *monitor_main(void *arg)
{
	struct monitor *m = arg;

	m->fake.fd = accept(m->fd, NULL, NULL);
	if (m->fake.fd < 0)
		return NULL;
	m->used = true;
	return fake_main(&m->fake);
}

static void monitor_start(struct monitor *m, const struct fake_step *script)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	*m = (struct monitor){.fake = {.script = script}};
	strcpy(m->path, "/tmp/godwit-handover-XXXXXX");
	m->fd = mkstemp(m->path);
	assert_true(m->fd >= 0);
	close(m->fd);
	unlink(m->path);
	strcpy(a.sun_path, m->path);
	m->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(m->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(m->fd, 1), 0);
	assert_int_equal(pthread_create(&m->thread, NULL, monitor_main, m), 0);
}

/* @used: somebody must have connected, and said what the script says; else nobody may have. */
static void monitor_finish(struct monitor *m, bool used)
{
	shutdown(m->fd, SHUT_RDWR);
	pthread_join(m->thread, NULL);
	close(m->fd);
	unlink(m->path);
	assert_string_equal(m->fake.wrong, "");
	assert_int_equal(m->used, used);
}

/* ---- two sides ---- */

struct sides {
	struct conn_secret secret;
	struct settle_src src;
	struct settle_dst dst;
	char src_why[400], dst_why[400];
	enum settle_result dst_result;
	pthread_t dst_thread;
	int dead_pidfd;
};

/* A pidfd of a process that is gone. */
static int dead_process(void)
{
	pid_t pid = fork();
	int fd;

	if (pid == 0)
		_exit(0);
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	assert_true(fd >= 0);
	waitpid(pid, NULL, 0);
	return fd;
}

static int setup(void **state)
{
	struct sides *s = xcalloc(1, sizeof(*s));
	struct sock_addr any = {.host = "127.0.0.1", .port = "0"};
	struct err e = ERR_INIT;

	log_set_level(LOG_LEVEL_ERROR);
	memset(s->secret.token, 7, sizeof(s->secret.token));
	s->dst.listen_fd = sock_tcp_listen(&any, 8, &e);
	assert_true(s->dst.listen_fd >= 0);
	s->src.h = handover_new(-1);
	s->dst.h = handover_new(-1);
	s->src.h->was_running = true;
	s->src.to = any;
	snprintf(s->src.to.port, sizeof(s->src.to.port), "%d", sock_tcp_port(s->dst.listen_fd));
	s->src.secret = s->dst.secret = &s->secret;
	memset(s->src.session, 3, sizeof(s->src.session));
	memset(s->dst.session, 3, sizeof(s->dst.session));
	s->src.qemu_pidfd = s->dst.qemu_pidfd = -1;
	s->src.qmp_path = s->dst.qmp_path = "/nonexistent";
	s->src.patience_ns = s->dst.patience_ns = 5 * NS_PER_S;
	s->dead_pidfd = dead_process();
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct sides *s = *state;

	close(s->dead_pidfd);
	if (s->dst.listen_fd >= 0)
		close(s->dst.listen_fd);
	munmap(s->src.h, sizeof(*s->src.h));
	munmap(s->dst.h, sizeof(*s->dst.h));
	free(s);
	return 0;
}

static void *dst_main(void *arg)
{
	struct sides *s = arg;

	s->dst_result = handover_dst_settle(&s->dst, s->dst_why, sizeof(s->dst_why));
	return NULL;
}

static void dst_start(struct sides *s)
{
	assert_int_equal(pthread_create(&s->dst_thread, NULL, dst_main, s), 0);
}

static void dst_ends(struct sides *s, enum settle_result result, enum dst_step step)
{
	pthread_join(s->dst_thread, NULL);
	assert_int_equal(s->dst_result, result);
	assert_int_equal(s->dst.h->step, step);
}

static void src_ends(struct sides *s, enum settle_result result, enum src_step step)
{
	assert_int_equal(handover_src_settle(&s->src, s->src_why, sizeof(s->src_why)), result);
	assert_int_equal(s->src.h->step, step);
	assert_string_not_equal(s->src_why, "");
}

/* Nobody listens at the destination. */
static void dst_is_gone(struct sides *s)
{
	close(steal_fd(&s->dst.listen_fd));
}

/* ---- the table ---- */

/* Does the move from @from to @to abort the process? */
static bool move_aborts(bool src, int from, int to)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct handover *h = handover_new(-1);

		signal(SIGABRT, SIG_DFL);
		if (freopen("/dev/null", "w", stderr) == NULL)
			_exit(1);
		h->step = from;
		if (src)
			handover_src_move(h, (enum src_step)to);
		else
			handover_dst_move(h, (enum dst_step)to);
		_exit(h->step == to ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void the_source_moves_as_its_table_says_and_no_other_way(void **state)
{
	/* Rows: from; columns: to, in the order copy stopped shut released go moved kept. */
	static const char allowed[SRC_STEP_MAX][SRC_STEP_MAX + 1] = {
		[SRC_COPY] = ".x....x", [SRC_STOPPED] = "..x.x.x", [SRC_SHUT] = "...xx.x", [SRC_RELEASED] = "....x.x",
		[SRC_GO] = ".....xx",   [SRC_MOVED] = ".......",   [SRC_KEPT] = ".......",
	};

	(void)state;
	for (int from = 0; from < SRC_STEP_MAX; from++)
		for (int to = 0; to < SRC_STEP_MAX; to++)
			if (move_aborts(true, from, to) != (allowed[from][to] == '.'))
				fail_msg("from %s to %s", src_step_name((enum src_step)from),
					 src_step_name((enum src_step)to));
}

static void the_destination_moves_as_its_table_says_and_no_other_way(void **state)
{
	/* prepare loaded go running never */
	static const char allowed[DST_STEP_MAX][DST_STEP_MAX + 1] = {
		[DST_PREPARE] = ".x..x", [DST_LOADED] = "..x.x", [DST_GO] = "...xx",
		[DST_RUNNING] = ".....", [DST_NEVER] = ".....",
	};

	(void)state;
	for (int from = 0; from < DST_STEP_MAX; from++)
		for (int to = 0; to < DST_STEP_MAX; to++)
			if (move_aborts(false, from, to) != (allowed[from][to] == '.'))
				fail_msg("from %s to %s", dst_step_name((enum dst_step)from),
					 dst_step_name((enum dst_step)to));
}

/* ---- the source alone ---- */

static void before_the_stop_the_guest_just_runs_on(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO,
						  {FAKE_HEAR, "query-status", 0},
						  {FAKE_ANSWER, RUNNING, 0},
						  {FAKE_HEAR, "announce-self", 0},
						  {FAKE_ANSWER, OK, 0},
						  {FAKE_END, NULL, 0}};
	struct sides *s = *state;
	struct monitor m;

	dst_is_gone(s);
	monitor_start(&m, script);
	s->src.qmp_path = m.path;
	src_ends(s, SETTLE_HERE, SRC_KEPT);
	monitor_finish(&m, true);
}

static void a_qemu_that_fails_its_migration_is_waited_for(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO,
						  {FAKE_HEAR, "query-status", 0},
						  {FAKE_ANSWER, FINISHING, 0},
						  {FAKE_HEAR, "query-status", 0},
						  {FAKE_ANSWER, RUNNING, 0},
						  {FAKE_HEAR, "announce-self", 0},
						  {FAKE_ANSWER, OK, 0},
						  {FAKE_END, NULL, 0}};
	struct sides *s = *state;
	struct monitor m;

	dst_is_gone(s);
	monitor_start(&m, script);
	s->src.qmp_path = m.path;
	s->src.h->step = SRC_SHUT;
	src_ends(s, SETTLE_HERE, SRC_KEPT);
	monitor_finish(&m, true);
}

static const struct fake_step script_cont[] = {FAKE_HELLO,
					       {FAKE_HEAR, "query-status", 0},
					       {FAKE_ANSWER, POSTMIGRATE, 0},
					       {FAKE_HEAR, "cont", 0},
					       {FAKE_ANSWER, OK, 0},
					       {FAKE_HEAR, "query-status", 0},
					       {FAKE_ANSWER, RUNNING, 0},
					       {FAKE_HEAR, "announce-self", 0},
					       {FAKE_ANSWER, OK, 0},
					       {FAKE_END, NULL, 0}};

static void a_completed_qemu_is_continued_while_go_was_not_sent(void **state)
{
	struct sides *s = *state;
	struct monitor m;

	dst_is_gone(s);
	monitor_start(&m, script_cont);
	s->src.qmp_path = m.path;
	s->src.h->step = SRC_RELEASED;
	src_ends(s, SETTLE_HERE, SRC_KEPT);
	monitor_finish(&m, true);
}

static void a_guest_that_was_paused_stays_paused(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO,
						  {FAKE_HEAR, "query-status", 0},
						  {FAKE_ANSWER, POSTMIGRATE, 0},
						  {FAKE_HEAR, "announce-self", 0},
						  {FAKE_ANSWER, OK, 0},
						  {FAKE_END, NULL, 0}};
	struct sides *s = *state;
	struct monitor m;

	dst_is_gone(s);
	monitor_start(&m, script);
	s->src.qmp_path = m.path;
	s->src.h->was_running = false;
	s->src.h->step = SRC_RELEASED;
	src_ends(s, SETTLE_HERE, SRC_KEPT);
	monitor_finish(&m, true);
}

static void after_go_a_silent_destination_leaves_the_guest_stopped(void **state)
{
	struct sides *s = *state;
	struct monitor m;

	dst_is_gone(s);
	monitor_start(&m, script_cont);
	s->src.qmp_path = m.path;
	s->src.h->step = SRC_GO;
	s->src.patience_ns = NS_PER_S / 2;
	src_ends(s, SETTLE_UNDECIDED, SRC_GO);
	monitor_finish(&m, false);
}

static void after_go_a_destination_that_denied_gives_the_guest_back(void **state)
{
	struct sides *s = *state;
	struct monitor m;

	dst_is_gone(s);
	monitor_start(&m, script_cont);
	s->src.qmp_path = m.path;
	s->src.h->step = SRC_GO;
	s->src.denied = true;
	src_ends(s, SETTLE_HERE, SRC_KEPT);
	monitor_finish(&m, true);
}

static void a_dead_qemu_during_the_copy_is_a_lost_guest(void **state)
{
	struct sides *s = *state;

	dst_is_gone(s);
	s->src.qemu_pidfd = s->dead_pidfd;
	src_ends(s, SETTLE_NOWHERE, SRC_COPY);
}

/* ---- both ---- */

static const struct fake_step script_dst_run[] = {
	FAKE_HELLO,           {FAKE_HEAR, "query-status", 0}, {FAKE_ANSWER, PAUSED, 0}, {FAKE_HEAR, "cont", 0},
	{FAKE_ANSWER, OK, 0}, {FAKE_SAY, RESUME, 0},          {FAKE_HOLD, NULL, 0},     {FAKE_END, NULL, 0}};
static const struct fake_step script_dst_quit[] = {
	FAKE_HELLO, {FAKE_HEAR, "quit", 0}, {FAKE_ANSWER, OK, 0}, {FAKE_END, NULL, 0}};

static void go_that_was_lost_is_said_again_and_the_destination_runs_the_guest(void **state)
{
	struct sides *s = *state;
	struct monitor src, dst;

	monitor_start(&src, script_cont);
	monitor_start(&dst, script_dst_run);
	s->src.qmp_path = src.path;
	s->dst.qmp_path = dst.path;
	s->src.h->step = SRC_GO;
	s->dst.h->step = DST_LOADED;
	dst_start(s);
	src_ends(s, SETTLE_THERE, SRC_MOVED);
	dst_ends(s, SETTLE_HERE, DST_RUNNING);
	monitor_finish(&src, false);
	monitor_finish(&dst, true);
}

static void without_go_the_source_goes_on_and_the_destination_ends_its_qemu(void **state)
{
	struct sides *s = *state;
	struct monitor src, dst;

	monitor_start(&src, script_cont);
	monitor_start(&dst, script_dst_quit);
	s->src.qmp_path = src.path;
	s->dst.qmp_path = dst.path;
	s->src.h->step = SRC_RELEASED;
	s->dst.h->step = DST_LOADED;
	dst_start(s);
	src_ends(s, SETTLE_HERE, SRC_KEPT);
	dst_ends(s, SETTLE_THERE, DST_NEVER);
	monitor_finish(&src, true);
	monitor_finish(&dst, true);
}

static void a_destination_whose_qemu_died_after_go_says_never_and_the_source_goes_on(void **state)
{
	struct sides *s = *state;
	struct monitor src;

	monitor_start(&src, script_cont);
	s->src.qmp_path = src.path;
	s->dst.qemu_pidfd = s->dead_pidfd;
	s->src.h->step = SRC_GO;
	s->dst.h->step = DST_GO;
	dst_start(s);
	src_ends(s, SETTLE_HERE, SRC_KEPT);
	dst_ends(s, SETTLE_THERE, DST_NEVER);
	monitor_finish(&src, true);
}

/* "GO stands", asked by an engine that dies with the answer in its hands. */
static void ask_and_die(struct sides *s, const char *answer)
{
	struct wire_hello hello = {.role = WIRE_ROLE_RESOLVE, .channels = 1};
	int64_t deadline = clock_now_ns() + 5 * NS_PER_S;
	struct conn c = CONN_INIT;
	struct err e = ERR_INIT;
	json_t *o = NULL;

	memcpy(hello.session, s->src.session, sizeof(hello.session));
	assert_int_equal(conn_connect(&c, &s->src.to, &s->secret, &hello, deadline, &e), 0);
	assert_int_equal(conn_send(&c, WIRE_RESOLVE, WIRE_FLAG_GO, NULL, 0, deadline, &e), 0);
	assert_int_equal(conn_expect(&c, WIRE_RESOLVED, &o, deadline, &e), 0);
	assert_string_equal(json_string_value(json_object_get(o, "state")), answer);
	json_decref(o);
	conn_abort(&c);
}

static void a_destination_that_said_never_says_it_again_until_the_source_goes_on(void **state)
{
	struct sides *s = *state;
	struct monitor src;

	monitor_start(&src, script_cont);
	s->src.qmp_path = src.path;
	s->dst.qemu_pidfd = s->dead_pidfd;
	s->src.h->step = SRC_GO;
	s->dst.h->step = DST_GO;
	dst_start(s);
	ask_and_die(s, "never");
	src_ends(s, SETTLE_HERE, SRC_KEPT);
	dst_ends(s, SETTLE_THERE, DST_NEVER);
	monitor_finish(&src, true);
}

static void a_destination_that_runs_it_says_so_and_nothing_is_done_twice(void **state)
{
	struct sides *s = *state;
	struct monitor src, dst;

	monitor_start(&src, script_cont);
	monitor_start(&dst, script_dst_run);
	s->src.qmp_path = src.path;
	s->dst.qmp_path = dst.path;
	s->src.h->step = SRC_GO;
	s->dst.h->step = DST_RUNNING;
	dst_start(s);
	src_ends(s, SETTLE_THERE, SRC_MOVED);
	dst_ends(s, SETTLE_HERE, DST_RUNNING);
	monitor_finish(&src, false);
	monitor_finish(&dst, false);
}

static void a_complete_destination_has_the_guest_of_a_dead_source_qemu(void **state)
{
	struct sides *s = *state;
	struct monitor dst;

	monitor_start(&dst, script_dst_run);
	s->dst.qmp_path = dst.path;
	s->src.qemu_pidfd = s->dead_pidfd;
	s->src.h->step = SRC_RELEASED;
	s->dst.h->step = DST_LOADED;
	dst_start(s);
	src_ends(s, SETTLE_THERE, SRC_MOVED);
	dst_ends(s, SETTLE_HERE, DST_RUNNING);
	monitor_finish(&dst, true);
}

static void a_stranger_at_the_port_decides_nothing(void **state)
{
	struct sides *s = *state;
	struct conn_secret wrong = {.token = {1}};
	struct settle_src stranger = s->src;
	struct monitor dst;

	monitor_start(&dst, script_dst_run);
	s->dst.qmp_path = dst.path;
	s->dst.h->step = DST_LOADED;
	s->dst.patience_ns = 2 * NS_PER_S;
	dst_start(s);
	stranger.secret = &wrong;
	stranger.h = s->src.h;
	stranger.h->step = SRC_GO;
	stranger.patience_ns = NS_PER_S;
	assert_int_equal(handover_src_settle(&stranger, s->src_why, sizeof(s->src_why)), SETTLE_UNDECIDED);
	dst_ends(s, SETTLE_UNDECIDED, DST_LOADED);
	monitor_finish(&dst, false);
}

static void a_question_of_another_move_is_not_answered(void **state)
{
	struct sides *s = *state;
	struct monitor dst;

	monitor_start(&dst, script_dst_run);
	s->dst.qmp_path = dst.path;
	s->dst.h->step = DST_LOADED;
	s->dst.patience_ns = 2 * NS_PER_S;
	dst_start(s);
	s->src.session[0]++;
	s->src.h->step = SRC_GO;
	s->src.patience_ns = NS_PER_S;
	src_ends(s, SETTLE_UNDECIDED, SRC_GO);
	dst_ends(s, SETTLE_UNDECIDED, DST_LOADED);
	monitor_finish(&dst, false);
}

static void a_destination_that_has_not_everything_gives_up_at_once(void **state)
{
	struct sides *s = *state;
	struct monitor dst;

	monitor_start(&dst, script_dst_quit);
	s->dst.qmp_path = dst.path;
	assert_int_equal(handover_dst_settle(&s->dst, s->dst_why, sizeof(s->dst_why)), SETTLE_THERE);
	assert_int_equal(s->dst.h->step, DST_NEVER);
	monitor_finish(&dst, true);
}

/* The connection that an engine has when it begins to settle. */
static struct qmp *connected(const struct monitor *m)
{
	struct err e = ERR_INIT;
	struct qmp *q = NULL;

	if (qmp_open(m->path, clock_now_ns() + 5 * NS_PER_S, &q, &e) < 0)
		fail_msg("%s", e.text);
	return q;
}

/* An engine that has become the user of its QEMU cannot open the monitor again (qmp_path leads nowhere here). */
static void what_the_engine_has_open_is_enough_for_both_sides(void **state)
{
	struct sides *s = *state;
	struct monitor src, dst;

	monitor_start(&src, script_cont);
	monitor_start(&dst, script_dst_quit);
	s->src.kept = connected(&src);
	s->dst.kept = connected(&dst);
	s->src.h->step = SRC_RELEASED;
	s->dst.h->step = DST_LOADED;
	dst_start(s);
	src_ends(s, SETTLE_HERE, SRC_KEPT);
	dst_ends(s, SETTLE_THERE, DST_NEVER);
	assert_null(s->src.kept);
	assert_null(s->dst.kept);
	monitor_finish(&src, true);
	monitor_finish(&dst, true);
}

static void a_destination_runs_the_guest_over_what_is_open(void **state)
{
	struct sides *s = *state;
	struct monitor dst;

	monitor_start(&dst, script_dst_run);
	s->dst.kept = connected(&dst);
	s->src.h->step = SRC_GO;
	s->dst.h->step = DST_LOADED;
	dst_start(s);
	src_ends(s, SETTLE_THERE, SRC_MOVED);
	dst_ends(s, SETTLE_HERE, DST_RUNNING);
	monitor_finish(&dst, true);
}

static void without_the_agreement_a_dead_source_qemu_hands_nothing_over(void **state)
{
	struct sides *s = *state;
	struct monitor dst;

	monitor_start(&dst, script_dst_quit);
	s->dst.qmp_path = dst.path;
	s->src.qemu_pidfd = s->dead_pidfd;
	s->src.h->step = SRC_STOPPED;
	s->src.h->unagreed = true;
	s->dst.h->step = DST_LOADED;
	dst_start(s);
	src_ends(s, SETTLE_NOWHERE, SRC_STOPPED);
	dst_ends(s, SETTLE_THERE, DST_NEVER);
	monitor_finish(&dst, true);
}

static void record_in_a_file_says_what_was_done_when_nobody_is_left(void **state)
{
	_closefd_ int fd = memfd_create("record", MFD_CLOEXEC);
	bool was_running = false;
	pid_t pid;

	(void)state;
	assert_int_equal(handover_look(fd, &was_running), -1);
	assert_int_equal(handover_reserve(fd, NULL), 0);
	assert_int_equal(handover_look(fd, &was_running), -1);
	pid = fork();
	if (pid == 0) {
		struct handover *h = handover_new(fd);

		handover_src_move(h, SRC_STOPPED);
		handover_src_move(h, SRC_SHUT);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(handover_look(fd, &was_running), SRC_SHUT);
	assert_true(was_running);
	/* Of a newer engine. */
	assert_int_equal(pwrite(fd, &(unsigned){HANDOVER_VERSION + 1}, sizeof(unsigned), 0), sizeof(unsigned));
	assert_int_equal(handover_look(fd, &was_running), -2);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(the_source_moves_as_its_table_says_and_no_other_way),
		T(the_destination_moves_as_its_table_says_and_no_other_way),
		T(before_the_stop_the_guest_just_runs_on),
		T(a_qemu_that_fails_its_migration_is_waited_for),
		T(a_completed_qemu_is_continued_while_go_was_not_sent),
		T(a_guest_that_was_paused_stays_paused),
		T(after_go_a_silent_destination_leaves_the_guest_stopped),
		T(after_go_a_destination_that_denied_gives_the_guest_back),
		T(a_dead_qemu_during_the_copy_is_a_lost_guest),
		T(go_that_was_lost_is_said_again_and_the_destination_runs_the_guest),
		T(without_go_the_source_goes_on_and_the_destination_ends_its_qemu),
		T(a_destination_whose_qemu_died_after_go_says_never_and_the_source_goes_on),
		T(a_destination_that_said_never_says_it_again_until_the_source_goes_on),
		T(a_destination_that_runs_it_says_so_and_nothing_is_done_twice),
		T(a_complete_destination_has_the_guest_of_a_dead_source_qemu),
		T(a_stranger_at_the_port_decides_nothing),
		T(a_question_of_another_move_is_not_answered),
		T(a_destination_that_has_not_everything_gives_up_at_once),
		T(what_the_engine_has_open_is_enough_for_both_sides),
		T(a_destination_runs_the_guest_over_what_is_open),
		T(without_the_agreement_a_dead_source_qemu_hands_nothing_over),
		T(record_in_a_file_says_what_was_done_when_nobody_is_left),
	};

	return cmocka_run_group_tests_name("handover", tests, NULL, NULL);
}
