/* SPDX-License-Identifier: Apache-2.0 */
/* When tasks end: a table of every kind against what the state may say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/mem.h"
#include "node/tasks.h"

static json_t *parse(const char *text)
{
	json_error_t e;
	json_t *o = text ? json_loads(text, 0, &e) : NULL;

	if (text && !o)
		fail_msg("%s: %s", text, e.text);
	return o;
}

struct row {
	const char *kind;
	const char *vm, *migration; /* NULL: there is none */
	bool fresh;
	const char *state; /* NULL: it goes on */
	const char *words; /* of the error, or of the result */
};

#define RUN "\"intent\": \"running\", \"owner\": \"n1\""
#define STOP "\"intent\": \"stopped\", \"owner\": \"n1\""

static const struct row rows[] = {
	/* start */
	{"vm.start", "{" RUN ", \"status\": null}", NULL, false, NULL, NULL},
	{"vm.start", "{" RUN ", \"status\": \"starting\"}", NULL, true, NULL, NULL},
	{"vm.start", "{" RUN ", \"status\": \"running\"}", NULL, false, "done", "n1"},
	{"vm.start", "{" RUN ", \"status\": \"paused\"}", NULL, false, "done", "paused"},
	{"vm.start", "{" RUN ", \"status\": \"stopped\"}", NULL, true, NULL, NULL},
	{"vm.start", "{" RUN ", \"status\": \"stopped\", \"note\": \"no disk\"}", NULL, false, NULL, NULL},
	{"vm.start", "{" RUN ", \"status\": \"stopped\", \"note\": \"no disk\"}", NULL, true, "failed", "no disk"},
	{"vm.start", "{" RUN ", \"status\": \"failed\", \"note\": \"ended\"}", NULL, true, "failed", "ended"},
	{"vm.start", "{" RUN ", \"status\": \"running\", \"note\": \"silent\"}", NULL, true, "done", "running"},
	{"vm.start", "{" STOP ", \"status\": \"stopped\"}", NULL, false, "cancelled", "stopped"},
	{"vm.start", NULL, NULL, false, "failed", "deleted"},
	/* create */
	{"vm.create", "{" STOP ", \"status\": null}", NULL, false, "done", "n1"},
	{"vm.create", "{" RUN ", \"status\": null}", NULL, false, NULL, NULL},
	{"vm.create", "{" RUN ", \"status\": \"running\"}", NULL, false, "done", "n1"},
	{"vm.create", "{" RUN ", \"status\": \"stopped\", \"note\": \"no disk\"}", NULL, true, "failed", "no disk"},
	/* stop and kill */
	{"vm.stop", "{" STOP ", \"status\": \"running\"}", NULL, true, NULL, NULL},
	{"vm.stop", "{" STOP ", \"status\": \"stopping\"}", NULL, true, NULL, NULL},
	{"vm.stop", "{" STOP ", \"status\": null}", NULL, true, NULL, NULL},
	{"vm.stop", "{" STOP ", \"status\": \"stopped\"}", NULL, false, "done", "stopped"},
	{"vm.stop", "{" STOP ", \"status\": \"failed\"}", NULL, false, "done", "failed"},
	{"vm.stop", "{" RUN ", \"status\": \"stopped\"}", NULL, false, "cancelled", "running"},
	{"vm.stop", NULL, NULL, false, "done", ""},
	{"vm.kill", "{\"intent\": \"killed\", \"owner\": \"n1\", \"status\": \"stopped\"}", NULL, false, "done", "n1"},
	{"vm.kill", "{\"intent\": \"killed\", \"owner\": \"n1\", \"status\": \"running\"}", NULL, true, NULL, NULL},
	/* migrate */
	{"vm.migrate", "{" RUN "}", "{\"step\": \"copying\"}", false, NULL, NULL},
	{"vm.migrate", "{" RUN "}", "{\"step\": \"undecided\"}", false, NULL, NULL},
	{"vm.migrate", "{" RUN "}", "{\"step\": \"committed\"}", false, NULL, NULL},
	{"vm.migrate", "{" RUN "}", "{\"step\": \"done\", \"src\": \"n1\", \"dst\": \"n2\"}", false, "done", "n2"},
	{"vm.migrate", NULL, "{\"step\": \"failed\", \"error\": \"cut\"}", false, "failed", "cut"},
	{"vm.migrate", NULL, "{\"step\": \"failed\", \"note\": \"fenced\"}", false, "failed", "fenced"},
	{"vm.migrate", NULL, "{\"step\": \"cancelled\"}", false, "cancelled", "somebody"},
	{"vm.migrate", NULL, NULL, false, "failed", "does not remember"},
	/* others */
	{"disk.copy", "{" RUN ", \"status\": \"running\"}", NULL, true, NULL, NULL},
};

static void check(const struct row *r)
{
	json_t *task = json_pack("{s:s, s:s, s:s}", "id", "t", "kind", r->kind, "object", "web1");
	json_t *vm = parse(r->vm), *migration = parse(r->migration);
	json_t *end = task_judge(task, vm, migration, r->fresh);
	_free_ char *text = end ? json_dumps(end, JSON_SORT_KEYS) : NULL;

	if (!r->state != !end)
		fail_msg("%s %s %s: %s", r->kind, r->vm ? r->vm : "-", r->migration ? r->migration : "-",
			 text ? text : "on");
	if (end) {
		assert_string_equal(json_string_value(json_object_get(end, "state")), r->state);
		assert_string_equal(json_string_value(json_object_get(end, "id")), "t");
		if (!strstr(text, r->words))
			fail_msg("%s: %s", r->words, text);
		assert_true(!!json_object_get(end, "error") == !!strcmp(r->state, "done"));
	}
	json_decref(end);
	json_decref(task);
	json_decref(vm);
	json_decref(migration);
}

static void every_kind_ends_when_the_state_says_so(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		check(&rows[i]);
}

static void a_result_has_no_token(void **state)
{
	json_t *task = parse("{\"id\": \"t\", \"kind\": \"vm.migrate\"}");
	json_t *m = parse(
		"{\"step\": \"done\", \"src\": \"a\", \"dst\": \"b\", \"detail\": {\"token\": \"x\", \"ms\": 3}}");
	json_t *end = task_judge(task, NULL, m, false),
	       *detail = json_object_get(json_object_get(end, "result"), "detail");

	(void)state;
	assert_int_equal(json_integer_value(json_object_get(detail, "ms")), 3);
	assert_null(json_object_get(detail, "token"));
	assert_non_null(json_object_get(json_object_get(m, "detail"), "token"));
	json_decref(end);
	json_decref(task);
	json_decref(m);
}

static void a_long_reason_fits_the_command(void **state)
{
	_free_ char *note = xcalloc(1025, 1);
	json_t *task = parse("{\"id\": \"t\", \"kind\": \"vm.start\"}"), *vm, *end;

	(void)state;
	memset(note, 'x', 1024);
	vm = json_pack("{s:s, s:s, s:s}", "intent", "running", "status", "failed", "note", note);
	end = task_judge(task, vm, NULL, true);
	assert_in_range(json_string_length(json_object_get(end, "error")), 800, 1024);
	json_decref(end);
	json_decref(task);
	json_decref(vm);
}

static const struct {
	const char *command;
	bool touched;
} commands[] = {
	{"{\"op\": \"task.create\", \"args\": {\"id\": \"t\"}}", true},
	{"{\"op\": \"task.create\", \"args\": {\"id\": \"u\"}}", false},
	{"{\"op\": \"vm.observed\", \"args\": {\"vm\": \"web1\"}}", true},
	{"{\"op\": \"vm.observed\", \"args\": {\"vm\": \"web2\"}}", false},
	{"{\"op\": \"vm.intent\", \"args\": {\"name\": \"web1\"}}", true},
	{"{\"op\": \"vm.delete\", \"args\": {\"name\": \"web1\"}}", true},
	{"{\"op\": \"migration.step\", \"args\": {\"id\": \"t\"}}", true},
	{"{\"op\": \"node.report\", \"args\": {\"node\": \"web1\"}}", false},
};

static void a_command_touches_the_tasks_that_it_is_about(void **state)
{
	json_t *task = parse("{\"id\": \"t\", \"kind\": \"vm.start\", \"object\": \"web1\"}");

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		json_t *c = parse(commands[i].command);

		if (task_touched(task, c) != commands[i].touched)
			fail_msg("%s", commands[i].command);
		json_decref(c);
	}
	json_decref(task);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_ends_when_the_state_says_so),
		cmocka_unit_test(a_result_has_no_token),
		cmocka_unit_test(a_long_reason_fits_the_command),
		cmocka_unit_test(a_command_touches_the_tasks_that_it_is_about),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
