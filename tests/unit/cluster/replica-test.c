/* SPDX-License-Identifier: Apache-2.0 */
/* The replica on one host: what it answers, what it keeps, and what it refuses. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cluster/core.h"
#include "cluster/replica.h"
#include "tests/unit/cluster/kv-machine.h"

#define WAIT (60 * NS_PER_S)

/* A replica with its loop, and what it has told. */
struct box {
	char dir[64], path[128];
	struct loop *loop;
	struct loop_timer *watch, *limit;
	struct replica *r;
	bool (*until)(struct box *b);
	size_t asked, done, failed;
	enum err_code code; /* of the newest answer */
	char text[ERR_TEXT_MAX];
	json_t *result;
	uint64_t applied; /* index */
	size_t n_applied, n_refused, changed, views;
	char heard[64]; /* all of it */
};

static void on_applied(void *arg, uint64_t index, const json_t *command, const json_t *result, const struct err *e)
{
	struct box *b = arg;

	assert_true(index > b->applied);
	assert_true(json_is_object(command));
	assert_true(!result != !e);
	b->applied = index;
	b->n_applied += !!result;
	b->n_refused += !!e;
}

static void on_changed(void *arg)
{
	((struct box *)arg)->changed++;
}

static void on_heard(void *arg, uint32_t node, const uint8_t *data, size_t size)
{
	struct box *b = arg;

	assert_int_equal(node, 1);
	strncat(b->heard, (const char *)data, size);
}

static void on_view(void *arg, const struct bus_view *view)
{
	struct box *b = arg;

	assert_true(view->quorate && view->n == 1 && view->expected == 1 && view->configured[0] == 1);
	b->views++;
}

static int try_open(struct box *b, struct err *e)
{
	struct replica_options o = {.bus = bus_local_new(1),
				    .machine = &kv_machine,
				    .path = b->path,
				    .history = 4711,
				    .applied = on_applied,
				    .changed = on_changed,
				    .heard = on_heard,
				    .view = on_view,
				    .arg = b};

	b->applied = 0;
	return replica_new(b->loop, &o, &b->r, e);
}

static void open_box(struct box *b)
{
	struct err e = ERR_INIT;

	if (try_open(b, &e) < 0)
		fail_msg("%s", e.text);
}

static void begin(struct box *b)
{
	*b = (struct box){.dir = "/tmp/godwit-replica-XXXXXX"};
	assert_non_null(mkdtemp(b->dir));
	snprintf(b->path, sizeof(b->path), "%s/state.db", b->dir);
	b->loop = loop_new();
}

static void end(struct box *b)
{
	static const char *const files[] = {"", "-wal", "-shm", ".lock"};

	replica_free(b->r);
	loop_free(b->loop);
	json_decref(b->result);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_free_ char *path = xasprintf("%s%s", b->path, files[i]);

		unlink(path);
	}
	rmdir(b->dir);
}

static void on_watch(void *arg)
{
	struct box *b = arg;

	if (b->until(b))
		loop_stop(b->loop);
}

static void on_limit(void *arg)
{
	loop_stop(((struct box *)arg)->loop);
}

static void run_until(struct box *b, bool (*until)(struct box *b))
{
	b->until = until;
	b->watch = loop_timer_add(b->loop, 0, NS_PER_MS, on_watch, b);
	b->limit = loop_timer_add(b->loop, WAIT, 0, on_limit, b);
	assert_int_equal(loop_run(b->loop), 0);
	loop_timer_free(b->watch);
	loop_timer_free(b->limit);
	assert_true(until(b));
}

static bool synced(struct box *b)
{
	return replica_synced(b->r);
}

static bool not_synced(struct box *b)
{
	return !replica_synced(b->r);
}

static bool answered(struct box *b)
{
	return b->done == b->asked;
}

static void on_done(void *arg, const json_t *result, const struct err *e)
{
	struct box *b = arg;

	assert_true(!result != !e);
	b->done++;
	b->failed += !!e;
	b->code = e ? e->code : ERR_NONE;
	snprintf(b->text, sizeof(b->text), "%s", e ? e->text : "");
	json_decref(b->result);
	b->result = json_incref((json_t *)result);
}

static int ask(struct box *b, const char *id, const char *key, const char *value, struct err *e)
{
	json_t *c = json_pack("{s:s, s:i, s:s, s:s}", "id", id, "v", 1, "key", key, "value", value);
	int r;

	if (!strcmp(key, "refuse"))
		json_object_set_new(c, "refuse", json_true());
	r = replica_propose(b->r, c, on_done, b, e);
	json_decref(c);
	b->asked += r == 0;
	return r;
}

static void put(struct box *b, const char *id, const char *key, const char *value)
{
	struct err e = ERR_INIT;

	if (ask(b, id, key, value, &e) < 0)
		fail_msg("%s", e.text);
}

static void check_value(struct box *b, const char *key, const char *value)
{
	_free_ char *is = kv_get(replica_db(b->r), key);

	assert_string_equal(is, value);
}

static const char *status_text(struct box *b, const char *key)
{
	static char text[256];
	json_t *o = replica_status(b->r);

	snprintf(text, sizeof(text), "%s", json_string_value(json_object_get(o, key)));
	json_decref(o);
	return text;
}

static void a_command_is_acknowledged_with_its_result_and_can_be_read(void **state)
{
	struct box b;
	json_t *o;

	(void)state;
	begin(&b);
	open_box(&b);
	run_until(&b, synced);
	put(&b, "1", "colour", "red");
	put(&b, "2", "colour", "blue");
	assert_int_equal(b.done, 0); /* never before the loop */
	run_until(&b, answered);
	assert_int_equal(b.failed, 0);
	assert_string_equal(json_string_value(json_object_get(b.result, "old")), "red");
	assert_int_equal(json_integer_value(json_object_get(b.result, "index")), b.applied);
	assert_int_equal(b.n_applied, 2);
	check_value(&b, "colour", "blue");
	assert_true(replica_leads(b.r));
	assert_true(replica_member(b.r, 1));
	assert_false(replica_member(b.r, 2));
	assert_true(b.changed >= 1);

	o = replica_status(b.r);
	assert_string_equal(json_string_value(json_object_get(o, "state")), "synced");
	assert_true(json_is_true(json_object_get(o, "quorate")));
	assert_int_equal(json_integer_value(json_object_get(o, "leader")), 1);
	assert_int_equal(json_integer_value(json_object_get(o, "index")), b.applied);
	assert_int_equal(json_array_size(json_object_get(o, "members")), 1);
	assert_int_equal(json_array_size(json_object_get(o, "alarms")), 0);
	assert_true(json_integer_value(json_object_get(o, "age_ms")) < 5000);
	json_decref(o);
	end(&b);
}

static void a_refusal_by_the_machine_is_an_error_and_changes_nothing(void **state)
{
	struct box b;

	(void)state;
	begin(&b);
	open_box(&b);
	run_until(&b, synced);
	put(&b, "1", "refuse", "x");
	run_until(&b, answered);
	assert_int_equal(b.code, ERR_INPUT);
	assert_string_equal(b.text, "refuse is refused");
	assert_int_equal(b.n_refused, 1);
	check_value(&b, "refuse", "");
	end(&b);
}

static void a_command_that_comes_again_is_answered_as_the_first_time(void **state)
{
	struct box b;

	(void)state;
	begin(&b);
	open_box(&b);
	run_until(&b, synced);
	put(&b, "1", "n", "one");
	put(&b, "2", "n", "two");
	put(&b, "1", "n", "one");
	run_until(&b, answered);
	assert_string_equal(json_string_value(json_object_get(b.result, "old")), "");
	assert_int_equal(b.n_applied, 2); /* the hook is told once */
	check_value(&b, "n", "two");
	end(&b);
}

static void nothing_is_taken_before_the_bus_has_a_view(void **state)
{
	struct err e = ERR_INIT;
	struct box b;

	(void)state;
	begin(&b);
	open_box(&b);
	assert_int_equal(ask(&b, "1", "k", "v", &e), -1);
	assert_int_equal(e.code, ERR_UNAVAILABLE);
	assert_false(replica_synced(b.r));
	assert_string_equal(status_text(&b, "state"), "starting");
	run_until(&b, synced);
	put(&b, "1", "k", "v");
	run_until(&b, answered);
	end(&b);
}

static void what_cannot_be_a_command_is_refused(void **state)
{
	json_t *list = json_array(), *newer = json_pack("{s:s, s:i}", "id", "1", "v", 2), *large;
	_free_ char *text = xcalloc(1, ENTRY_DATA_MAX + 1);
	struct err e = ERR_INIT;
	struct box b;

	(void)state;
	memset(text, 'x', ENTRY_DATA_MAX);
	large = json_pack("{s:s}", "key", text);
	begin(&b);
	open_box(&b);
	run_until(&b, synced);
	assert_int_equal(replica_propose(b.r, list, on_done, &b, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	assert_int_equal(replica_propose(b.r, large, on_done, &b, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	assert_int_equal(replica_propose(b.r, newer, on_done, &b, &e), -1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "version 1"));
	json_decref(list);
	json_decref(newer);
	json_decref(large);
	end(&b);
}

static void a_restart_keeps_everything(void **state)
{
	char digest[256];
	struct box b;

	(void)state;
	begin(&b);
	open_box(&b);
	run_until(&b, synced);
	for (int i = 0; i < 300; i++) {
		_free_ char *key = xasprintf("k%d", i);

		put(&b, key, key, "v");
	}
	run_until(&b, answered);
	snprintf(digest, sizeof(digest), "%s", status_text(&b, "digest"));
	replica_free(b.r);

	open_box(&b);
	assert_string_equal(status_text(&b, "digest"), digest);
	assert_int_equal(kv_count(replica_db(b.r)), 300);
	run_until(&b, synced);
	put(&b, "k7", "k7", "again");
	run_until(&b, answered);
	check_value(&b, "k7", "v"); /* its id is known */
	end(&b);
}

static void a_replica_that_ends_answers_those_who_wait(void **state)
{
	struct box b;

	(void)state;
	begin(&b);
	open_box(&b);
	run_until(&b, synced);
	put(&b, "1", "k", "v");
	put(&b, "2", "k", "v");
	replica_free(steal_ptr(b.r));
	assert_int_equal(b.done, 2);
	assert_int_equal(b.code, ERR_TIMEOUT);
	end(&b);
}

static void a_damaged_state_is_refused_and_says_how_to_fetch_it_from_the_others(void **state)
{
	static const char junk[4096] = "junk";
	struct err e = ERR_INIT;
	struct box b;
	int fd;

	(void)state;
	begin(&b);
	open_box(&b);
	run_until(&b, synced);
	put(&b, "1", "k", "v");
	run_until(&b, answered);
	replica_free(steal_ptr(b.r));
	fd = open(b.path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, junk, sizeof(junk), 0), sizeof(junk));
	close(fd);
	assert_int_equal(try_open(&b, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	assert_non_null(strstr(e.text, b.path));
	assert_non_null(strstr(e.text, "damaged"));
	assert_non_null(strstr(e.text, "move it"));
	assert_non_null(strstr(e.text, "fetches the state from the others"));
	end(&b);
}

static void a_full_disk_raises_an_alarm_and_refuses_until_there_is_room(void **state)
{
	struct rlimit before, small;
	struct err e = ERR_INIT;
	json_t *o;
	struct box b;

	(void)state;
	begin(&b);
	signal(SIGXFSZ, SIG_IGN);
	open_box(&b);
	run_until(&b, synced);
	getrlimit(RLIMIT_FSIZE, &before);
	small = before;
	small.rlim_cur = 4096;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	put(&b, "1", "k", "v"); /* is on its way when the disk turns out to be full */
	run_until(&b, not_synced);
	assert_int_equal(ask(&b, "2", "k", "w", &e), -1);
	assert_int_equal(e.code, ERR_UNAVAILABLE);
	assert_non_null(strstr(e.text, "disk"));
	assert_non_null(strstr(e.text, b.path));
	o = replica_status(b.r);
	assert_int_equal(json_array_size(json_object_get(o, "alarms")), 1);
	assert_non_null(strstr(json_string_value(json_array_get(json_object_get(o, "alarms"), 0)), "disk"));
	json_decref(o);
	assert_int_equal(b.done, 0);
	check_value(&b, "k", "");

	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	run_until(&b, synced);
	run_until(&b, answered);
	assert_int_equal(b.failed, 0);
	check_value(&b, "k", "v");
	o = replica_status(b.r);
	assert_int_equal(json_array_size(json_object_get(o, "alarms")), 0);
	json_decref(o);
	end(&b);
}

static void a_full_queue_refuses_and_loses_nothing_of_what_it_has_taken(void **state)
{
	struct err e = ERR_INIT;
	struct box b;
	int taken = 0;

	(void)state;
	begin(&b);
	open_box(&b);
	run_until(&b, synced);
	for (int i = 0; i < (int)CORE_PENDING_MAX + 10; i++) {
		_free_ char *id = xasprintf("%d", i);

		taken += ask(&b, id, id, "v", &e) == 0;
	}
	assert_int_equal(taken, CORE_PENDING_MAX);
	assert_int_equal(e.code, ERR_UNAVAILABLE);
	assert_non_null(strstr(e.text, "try again"));
	run_until(&b, answered);
	assert_int_equal(b.failed, 0);
	assert_int_equal(kv_count(replica_db(b.r)), CORE_PENDING_MAX);
	put(&b, "more", "k", "v");
	run_until(&b, answered);
	end(&b);
}

static void bytes_that_wait_are_limited_too(void **state)
{
	_free_ char *value = xcalloc(1, (4U << 20) - 100);
	struct err e = ERR_INIT;
	struct box b;
	int taken = 0;

	(void)state;
	memset(value, 'x', (4U << 20) - 101);
	begin(&b);
	open_box(&b);
	run_until(&b, synced);
	for (int i = 0; i < 20; i++) {
		_free_ char *id = xasprintf("%d", i);

		taken += ask(&b, id, id, value, &e) == 0;
	}
	assert_int_equal(taken, CORE_PENDING_BYTES / (4U << 20));
	assert_int_equal(e.code, ERR_UNAVAILABLE);
	run_until(&b, answered);
	assert_int_equal(b.failed, 0);
	assert_int_equal(kv_count(replica_db(b.r)), taken);
	end(&b);
}

static bool heard_twice(struct box *b)
{
	return strlen(b->heard) == strlen("BoneBtwo");
}

static void what_is_said_beside_the_log_is_heard_in_order_and_not_kept(void **state)
{
	struct box b;

	(void)state;
	begin(&b);
	open_box(&b);
	run_until(&b, synced);
	assert_int_equal(b.views, 1);
	put(&b, "1", "colour", "red");
	replica_say(b.r, "Bone", 4);
	replica_say(b.r, "Btwo", 4);
	run_until(&b, heard_twice);
	assert_string_equal(b.heard, "BoneBtwo");
	run_until(&b, answered);
	assert_int_equal(b.n_applied, 1);
	end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_command_is_acknowledged_with_its_result_and_can_be_read),
		cmocka_unit_test(a_refusal_by_the_machine_is_an_error_and_changes_nothing),
		cmocka_unit_test(a_command_that_comes_again_is_answered_as_the_first_time),
		cmocka_unit_test(nothing_is_taken_before_the_bus_has_a_view),
		cmocka_unit_test(what_cannot_be_a_command_is_refused),
		cmocka_unit_test(a_restart_keeps_everything),
		cmocka_unit_test(a_replica_that_ends_answers_those_who_wait),
		cmocka_unit_test(a_damaged_state_is_refused_and_says_how_to_fetch_it_from_the_others),
		cmocka_unit_test(a_full_disk_raises_an_alarm_and_refuses_until_there_is_room),
		cmocka_unit_test(a_full_queue_refuses_and_loses_nothing_of_what_it_has_taken),
		cmocka_unit_test(bytes_that_wait_are_limited_too),
		cmocka_unit_test(what_is_said_beside_the_log_is_heard_in_order_and_not_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
