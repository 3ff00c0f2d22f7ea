/* SPDX-License-Identifier: Apache-2.0 */
/* check: waits */
/* Looking at folders, with godwit-vm itself and with a double of it that hangs, ends early or babbles; and on a file
 * system that is frozen, where a child does not even die. */
#include "node/reach.h"

#include <sys/stat.h>

#include "base/loop.h"
#include "hv/reach.h"
#include "tests/unit/node/host.h"

#define LATE NS_PER_S
#define EVERY (LATE + LATE / 5)
#define WAIT_S 20
#define SILENT "does not answer within 1 s"

static char dir[] = "/tmp/reach-test-XXXXXX";

static struct {
	struct loop *loop;
	struct reach *reach;
	unsigned changes;
	bool (*until)(const void *arg);
	const void *until_arg;
	int64_t end;
	bool late;
} w;

/* ---- the double ---- */

static void write_text(const char *name, const char *text, mode_t mode)
{
	_free_ char *path = xasprintf("%s/%s", dir, name), *temp = xasprintf("%s~", path);
	FILE *f = fopen(temp, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fchmod(fileno(f), mode), 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(rename(temp, path), 0);
}

/* What the next children do after they have noted what they are asked. */
static void act(const char *text)
{
	write_text("act", text, 0600);
}

/* One object for each child so far. */
static json_t *asked(void)
{
	_free_ char *path = xasprintf("%s/asked", dir);
	FILE *f = fopen(path, "r");
	json_t *list = json_array(), *one;

	while (f && (one = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL)))
		json_array_append_new(list, one);
	if (f)
		fclose(f);
	return list;
}

static size_t asked_times(void)
{
	json_t *list = asked();
	size_t n = json_array_size(list);

	json_decref(list);
	return n;
}

/* Whether the @i-th was asked for @folder. */
static bool asked_for(size_t i, const char *folder)
{
	json_t *list = asked();
	bool found = json_object_get(json_array_get(list, i), folder) != NULL;

	assert_true(i < json_array_size(list));
	json_decref(list);
	return found;
}

/* ---- the world ---- */

static void changed(void *arg)
{
	(void)arg;
	w.changes++;
}

static void on_poll(void *arg)
{
	(void)arg;
	w.late = clock_now_ns() > w.end;
	if (w.late || w.until(w.until_arg))
		loop_stop(w.loop);
}

static void run_until(bool (*until)(const void *arg), const void *arg)
{
	struct loop_timer *t = loop_timer_add(w.loop, 0, 10 * NS_PER_MS, on_poll, NULL);

	w.until = until;
	w.until_arg = arg;
	w.end = IN_S(WAIT_S);
	assert_int_equal(loop_run(w.loop), 0);
	loop_timer_free(t);
	if (w.late) {
		json_t *known = reach_json(w.reach), *list = asked();
		_free_ char *text = json_dumps(known, 0), *texts = json_dumps(list, 0);

		fail_msg("known at last: %s; asked: %s", text, texts);
	}
}

/* @arg: what is not reached, with ' for ". */
static bool is_known(const void *arg)
{
	_free_ char *text = xstrdup(arg);
	json_t *known = reach_json(w.reach), *want;
	bool same;

	for (char *p = text; *p; p++)
		if (*p == '\'')
			*p = '"';
	want = json_loads(text, 0, NULL);
	assert_non_null(want);
	same = json_equal(known, want);
	json_decref(known);
	json_decref(want);
	return same;
}

static void wait_known(const char *want)
{
	run_until(is_known, want);
}

static bool is_asked(const void *arg)
{
	return asked_times() >= *(const size_t *)arg;
}

static void wait_asked(size_t n)
{
	run_until(is_asked, &n);
}

static bool is_over(const void *arg)
{
	return clock_now_ns() >= *(const int64_t *)arg;
}

static void wait_ns(int64_t ns)
{
	int64_t end = clock_now_ns() + ns;

	run_until(is_over, &end);
}

/* @folders: names separated by blanks, each with a file in it. */
static void look_at(const char *folders)
{
	_free_ char *text = xstrdup(folders);
	json_t *set = json_object();
	char *save = NULL;

	for (char *name = strtok_r(text, " ", &save); name; name = strtok_r(NULL, " ", &save)) {
		_free_ char *file = xasprintf("%s/file", name);

		json_object_set_new(set, name, json_pack("[s]", file));
	}
	reach_set(w.reach, set);
	json_decref(set);
}

static void begin(const char *program)
{
	_free_ char *log = xasprintf("%s/asked", dir);
	struct reach_config c = {.program = program, .every_ns = EVERY, .late_ns = LATE, .changed = changed};

	unlink(log);
	w.loop = loop_new();
	w.changes = 0;
	w.reach = reach_new(w.loop, &c);
}

static void begin_double(void)
{
	_free_ char *path = xasprintf("%s/double", dir);
	_free_ char *text = xasprintf(
		"#!/bin/sh\ntest \"$1\" = reach || exit 9\n{ cat \"$2\"; echo; } >> %s/asked\n. %s/act\n", dir, dir);

	write_text("double", text, 0700);
	begin(path);
}

static void end(void)
{
	reach_free(w.reach);
	loop_free(w.loop);
}

/* ---- tests ---- */

static void folders_are_looked_at_again_and_again(void **state)
{
	_free_ char *program = host_program("godwit-vm");
	_free_ char *a = xasprintf("%s/a", dir), *b = xasprintf("%s/b", dir), *both = xasprintf("%s %s", a, b);
	_free_ char *file = xasprintf("%s/file", a);
	_free_ char *b_gone = xasprintf("{'%s': 'No such file or directory'}", b);
	_free_ char *a_empty = xasprintf(
		"{'%s': 'No such file or directory', '%s': 'the folder is there, and none of the guests\\u0027 files "
		"in it (1)'}",
		b, a);

	(void)state;
	assert_int_equal(mkdir(a, 0700), 0);
	write_text("a/file", "x", 0600);
	begin(program);
	look_at(both);
	assert_true(is_known("{}")); /* nobody has looked yet */
	wait_known(b_gone);
	assert_int_equal(w.changes, 1);
	unlink(file);
	wait_known(a_empty);
	assert_int_equal(mkdir(b, 0700), 0);
	write_text("b/file", "x", 0600);
	write_text("a/file", "x", 0600);
	wait_known("{}");
	end();
}

static void what_hangs_is_not_reached_and_what_was_told_counts(void **state)
{
	(void)state;
	begin_double();
	act("echo '{\"folder\": \"/a\", \"why\": \"is gone\"}'; echo '{\"folder\": \"/c\"}'; exec sleep 1000\n");
	look_at("/a /b /c");
	wait_known("{'/a': 'is gone', '/b': '" SILENT "'}");
	assert_int_equal(asked_times(), 1); /* and no second child beside the first */
	act("echo '{\"folder\": \"/a\"}'; echo '{\"folder\": \"/b\"}'; echo '{\"folder\": \"/c\"}'\n");
	wait_known("{}");
	assert_int_equal(w.changes, 2);
	end();
}

static void garbage_is_not_known(void **state)
{
	(void)state;
	begin_double();
	act("echo garbage; echo '[]'; echo '{\"folder\": 7}'; echo '{\"folder\": \"/else\", \"why\": \"is gone\"}'\n"
	    "echo '{\"folder\": \"/a\", \"why\": \"\"}'; echo '{\"folder\": \"/a\", \"why\": 5}'\n"
	    "echo '{\"folder\": \"/a\", \"why\": \"a\\u0007bell\"}'\n"
	    "printf '{\"folder\": \"/a\", \"why\": \"%0200d\"}\\n' 1\n"
	    "head -c 100000 /dev/urandom; echo\n"
	    "echo '{\"folder\": \"/b\", \"why\": \"is gone\"}'; printf '{\"folder\": \"/a\", \"why\": \"half a "
	    "line\"}'\n");
	look_at("/a /b");
	wait_known("{'/b': 'is gone'}");
	wait_asked(3);
	assert_true(is_known("{'/b': 'is gone'}"));
	assert_int_equal(w.changes, 1);
	end();
}

static void a_child_that_ends_early_leaves_what_was_known(void **state)
{
	(void)state;
	begin_double();
	act("echo '{\"folder\": \"/a\", \"why\": \"is gone\"}'; echo '{\"folder\": \"/b\", \"why\": \"is gone\"}'\n");
	look_at("/a /b");
	wait_known("{'/a': 'is gone', '/b': 'is gone'}");
	act("echo '{\"folder\": \"/a\"}'; kill -9 $$\n");
	wait_known("{'/b': 'is gone'}");
	wait_asked(asked_times() + 2);
	assert_true(is_known("{'/b': 'is gone'}"));
	end();
	begin("/nowhere/godwit-vm");
	look_at("/a");
	wait_ns(EVERY + LATE);
	assert_true(is_known("{}"));
	end();
}

static void folders_that_change_during_a_look_are_looked_at_after_it(void **state)
{
	(void)state;
	begin_double();
	act("sleep 0.5; echo '{\"folder\": \"/a\", \"why\": \"is gone\"}'; echo '{\"folder\": \"/b\", \"why\": \"is "
	    "gone\"}'\n");
	look_at("/a /b");
	wait_asked(1);
	act("sleep 0.5; echo '{\"folder\": \"/b\", \"why\": \"is gone\"}'; echo '{\"folder\": \"/c\", \"why\": \"is "
	    "gone\"}'\n");
	look_at("/b /c");
	wait_ns(200 * NS_PER_MS);
	assert_int_equal(asked_times(), 1); /* not beside it */
	wait_known("{'/b': 'is gone'}");    /* the first one's, and nothing of /a, which nobody wants to know */
	wait_known("{'/b': 'is gone', '/c': 'is gone'}");
	assert_false(asked_for(1, "/a"));
	assert_true(asked_for(1, "/b") && asked_for(1, "/c"));
	look_at("/c"); /* what is not looked at any more is not said */
	assert_true(is_known("{'/c': 'is gone'}"));
	end();
}

static int shell(const char *format, const char *a)
{
	_free_ char *line = xasprintf("exec 2>/dev/null; cd %s && %s %s", dir, format, a);

	return system(line); /* NOLINT(cert-env33-c): of a test */
}

static void no_child_follows_to_a_folder_whose_child_does_not_die(void **state)
{
	int64_t began;
	size_t n;

	(void)state;
	if (shell("truncate -s 8M img && mkfs.ext4 -q img && mkdir -p ice && mount -o loop img", "ice") != 0) {
		print_message("# skipped: needs root, mkfs.ext4 and a loop device\n");
		skip();
	}
	begin_double();
	act("echo '{\"folder\": \"/ok\"}'; case $(cat \"$2\") in *stuck*) exec touch \"${0%/*}/ice/x\" ;; esac\n");
	assert_int_equal(shell("fsfreeze -f", "ice"), 0);
	look_at("/ok /stuck1");
	wait_known("{'/stuck1': '" SILENT "'}");
	wait_asked(4); /* the other one is looked at without it */
	for (size_t i = 1; i < 4; i++)
		assert_true(asked_for(i, "/ok") && !asked_for(i, "/stuck1"));
	look_at("/ok /stuck1 /stuck2");
	wait_known("{'/stuck1': '" SILENT "', '/stuck2': '" SILENT "'}");
	look_at("/stuck1 /stuck2 /stuck3");
	wait_known("{'/stuck1': '" SILENT "', '/stuck2': '" SILENT "', '/stuck3': '" SILENT "'}");
	look_at("/stuck1 /stuck2 /stuck3 /stuck4");
	wait_known("{'/stuck1': '" SILENT "', '/stuck2': '" SILENT "', '/stuck3': '" SILENT "', '/stuck4': '" SILENT
		   "'}");
	n = asked_times();
	look_at("/ok /stuck1 /stuck2 /stuck3 /stuck4"); /* four are enough */
	wait_ns(2 * EVERY);
	assert_int_equal(asked_times(), n);
	act("for i in ok stuck1 stuck2 stuck3 stuck4; do echo \"{\\\"folder\\\": \\\"/$i\\\"}\"; done\n");
	assert_int_equal(shell("fsfreeze -u", "ice"), 0);
	wait_known("{}");
	act("exec touch \"${0%/*}/ice/x\"\n");
	assert_int_equal(shell("fsfreeze -f", "ice"), 0);
	look_at("/stuck1");
	wait_known("{'/stuck1': '" SILENT "'}");
	began = clock_now_ns();
	end(); /* does not wait for it */
	assert_true(clock_now_ns() - began < NS_PER_S);
	assert_int_equal(shell("fsfreeze -u", "ice"), 0);
	for (int i = 0; i < 100 && shell("umount", "ice") != 0; i++)
		usleep(50000);
}

static int tear_down(void **state)
{
	(void)state;
	shell("fsfreeze -u", "ice");
	shell("umount", "ice");
	shell("cd / && rm -rf", dir);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(folders_are_looked_at_again_and_again),
		cmocka_unit_test(what_hangs_is_not_reached_and_what_was_told_counts),
		cmocka_unit_test(garbage_is_not_known),
		cmocka_unit_test(a_child_that_ends_early_leaves_what_was_known),
		cmocka_unit_test(folders_that_change_during_a_look_are_looked_at_after_it),
		cmocka_unit_test(no_child_follows_to_a_folder_whose_child_does_not_die),
	};

	if (!mkdtemp(dir))
		return 1;
	return cmocka_run_group_tests(tests, NULL, tear_down);
}
