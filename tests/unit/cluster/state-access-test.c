/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of users, tokens and settings in the replicated state, of the audit log, and of requests that arrive twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "tests/unit/cluster/state-fixture.h"

static void users_have_roles_and_never_show_their_hash(void **state)
{
	struct world *w = world_new();

	(void)state;
	world_must(w, "user.create", "{'name': 'eve', 'role': 'viewer', 'token_hash': '" HASH("e1") "'}",
		   "{'name': 'eve', 'role': 'viewer'}");
	world_must(w, "user.create", "{'name': 'bob', 'role': 'admin'}", NULL);
	world_is(state_user_get(w->db, "eve", &w->e),
		 "{'name': 'eve', 'role': 'viewer', 'created': 1700000001000, 'by': 'anna'}");
	world_is(state_user_by_token_hash(w->db, HASH("e1"), &w->e),
		 "{'name': 'eve', 'role': 'viewer', 'created': 1700000001000, 'by': 'anna'}");
	world_is(world_item(state_user_list(w->db, &w->e), 0),
		 "{'name': 'bob', 'role': 'admin', 'created': 1700000002000, 'by': 'anna'}");
	assert_null(state_user_by_token_hash(w->db, HASH("e2"), &w->e));
	assert_int_equal(w->e.code, ERR_NOTFOUND);
	world_must(w, "user.delete", "{'name': 'eve'}", "{'name': 'eve'}");
	assert_null(state_user_by_token_hash(w->db, HASH("e1"), &w->e));
	world_free(w);
}

static void what_is_refused_about_users_says_why(void **state)
{
	static const struct refusal rows[] = {
		{"user.create", "{'name': 'eve', 'role': 'admin'}", ERR_CONFLICT,
		 "user eve: exists already; delete it first, or choose another name"},
		{"user.create", "{'name': 'bob', 'role': 'admin', 'token_hash': '" HASH("e1") "'}", ERR_CONFLICT,
		 "user bob: somebody has this token already; make a new one"},
		{"user.create", "{'name': 'bob', 'role': 'king'}", ERR_INPUT,
		 "user bob: role must be one of viewer, operator, admin"},
		{"user.create", "{'name': 'bob', 'role': 'admin', 'token_hash': '" HASH("E1") "'}", ERR_INPUT,
		 "user bob: token_hash must be a SHA-256: 64 hexadecimal digits in lower case"},
		{"user.delete", "{'name': 'bob'}", ERR_NOTFOUND,
		 "user bob: there is no such user; `user list` shows those that are there"},
	};
	struct world *w = world_new();

	(void)state;
	world_must(w, "user.create", "{'name': 'eve', 'role': 'viewer', 'token_hash': '" HASH("e1") "'}", NULL);
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_free(w);
}

#define JOIN(id)                                                                                                       \
	"{'name': 'n" #id "', 'id': " #id                                                                              \
	", 'addresses': [], 'fingerprint': '" HASH("0" #id) "', "                                                      \
							    "'token': '" HASH("77") "'}"

static void a_join_token_is_good_once_and_for_its_time(void **state)
{
	static const struct refusal used[] = {
		{"node.join", JOIN(2), ERR_AUTH,
		 "node n2: the token was used by n1; each is good for one host: make a new one"},
		{"token.use", "{'hash': '" HASH("77") "', 'node': 'n2'}", ERR_AUTH,
		 "token 7777777777777777777777777777777777777777777777777777777777777777: the token was used by n1; "
		 "each is good for one host: make a new one"},
		{"token.create", "{'hash': '" HASH("77") "', 'ttl_s': 60}", ERR_CONFLICT,
		 "token 7777777777777777777777777777777777777777777777777777777777777777: exists already; make a new "
		 "one"},
		{"token.create", "{'hash': '" HASH("78") "', 'ttl_s': 0}", ERR_INPUT,
		 "token 7878787878787878787878787878787878787878787878787878787878787878: ttl_s must be a whole number "
		 "from 1 to 604800"},
		{"token.revoke", "{'hash': '" HASH("78") "'}", ERR_NOTFOUND,
		 "token 7878787878787878787878787878787878787878787878787878787878787878: there is no such token"},
	};
	static const struct refusal late[] = {
		{"token.use", "{'hash': '" HASH("79") "', 'node': 'n3'}", ERR_AUTH,
		 "token 7979797979797979797979797979797979797979797979797979797979797979: the token has expired; make "
		 "a new one"},
	};
	struct world *w = world_new();

	(void)state;
	world_must(w, "token.create", "{'hash': '" HASH("77") "', 'ttl_s': 60}", "{'expires': 1700000061000}");
	world_must(w, "node.join", JOIN(1), NULL);
	world_is(state_token_get(w->db, HASH("77"), &w->e), "{'created': 1700000001000, 'expires': 1700000061000, "
							    "'by': 'anna', 'used': 1700000002000, 'used_by': 'n1'}");
	world_refuses(w, used, ARRAY_SIZE(used));
	world_must(w, "token.create", "{'hash': '" HASH("79") "', 'ttl_s': 5}", NULL);
	w->time += 5000;
	world_refuses(w, late, ARRAY_SIZE(late));
	world_must(w, "token.revoke", "{'hash': '" HASH("79") "'}", NULL);
	world_free(w);
}

/* The refused join must not have used the token up. */
static void a_refused_join_leaves_its_token(void **state)
{
	struct world *w = world_new();

	(void)state;
	world_node(w, "n1", 1, GIB);
	world_must(w, "token.create", "{'hash': '" HASH("77") "', 'ttl_s': 60}", NULL);
	assert_int_equal(world_say(w, "node.join", JOIN(1)), -1);
	world_must(w, "node.join", JOIN(2), NULL);
	world_free(w);
}

static void old_tokens_are_forgotten_a_day_after_their_end(void **state)
{
	struct world *w = world_new();

	(void)state;
	world_must(w, "token.create", "{'hash': '" HASH("77") "', 'ttl_s': 60}", NULL);
	w->time += 2LL * 86400 * 1000;
	world_must(w, "token.create", "{'hash': '" HASH("78") "', 'ttl_s': 60}", NULL);
	assert_null(state_token_get(w->db, HASH("77"), &w->e));
	assert_string_equal(w->e.text, "token with this hash: there is no such token");
	world_free(w);
}

static void settings_are_any_json_with_a_version(void **state)
{
	static const struct refusal rows[] = {
		{"setting.set", "{'key': 'x'}", ERR_INPUT, "setting x: value is missing"},
		{"setting.set", "{'key': '', 'value': 1}", ERR_INPUT,
		 "setting: key must be a text of 1 to 128 bytes without control characters"},
		{"setting.set", "{'key': 'x', 'value': null}", ERR_NOTFOUND, "setting x: there is no such setting"},
	};
	struct world *w = world_new();

	(void)state;
	world_must(w, "setting.set", "{'key': 'a.b', 'value': {'z': [1, 'two']}}", "{'version': 1}");
	world_must(w, "setting.set", "{'key': 'a.b', 'value': 5}", "{'version': 2}");
	world_must(w, "setting.set", "{'key': 'a.a', 'value': 'text'}", NULL);
	world_must(w, "setting.set", "{'key': 'b', 'value': false}", NULL);
	world_is(state_setting_get(w->db, "a.b", &w->e),
		 "{'key': 'a.b', 'value': 5, 'version': 2, 'changed': 1700000002000, 'by': 'anna'}");
	world_is(state_setting_list(w->db, "a.", &w->e),
		 "[{'key': 'a.a', 'value': 'text', 'version': 1, 'changed': 1700000003000, 'by': 'anna'},"
		 "{'key': 'a.b', 'value': 5, 'version': 2, 'changed': 1700000002000, 'by': 'anna'}]");
	world_must(w, "setting.set", "{'key': 'a.b', 'value': null}", "{'version': 0}");
	world_refuses(w, rows, ARRAY_SIZE(rows));
	assert_null(state_setting_get(w->db, "a.b", &w->e));
	world_free(w);
}

static void the_audit_log_says_who_from_where_what_and_with_which_result(void **state)
{
	struct world *w = world_new();

	(void)state;
	world_must(w, "user.create", "{'name': 'eve', 'role': 'viewer'}", NULL);
	w->by = "bob";
	world_must(w, "setting.set", "{'key': 'x', 'value': 1}", NULL);
	assert_int_equal(world_say(w, "user.delete", "{'name': 'nobody'}"), -1);
	world_must(w, "task.create", "{'id': '" UUID(1) "', 'kind': 'k'}", NULL);
	world_is(state_audit_list(w->db, 0, 10, &w->e), "[{'seq': 2, 'time': 1700000002000, 'by': 'bob', 'from': "
							"'10.0.0.9', 'op': 'setting.set', 'object': 'x', "
							"'data': {'version': 1}},"
							"{'seq': 1, 'time': 1700000001000, 'by': 'anna', 'from': "
							"'10.0.0.9', 'op': 'user.create', 'object': 'eve', "
							"'data': {'name': 'eve', 'role': 'viewer'}}]");
	/* In pages. */
	world_is(world_field(world_item(state_audit_list(w->db, 2, 1, &w->e), 0), "seq"), "1");
	world_is(state_audit_list(w->db, 1, 10, &w->e), "[]");
	world_free(w);
}

static void events_are_decisions_and_reports_but_not_what_changed_nothing(void **state)
{
	struct world *w = world_new();
	json_t *list;
	int64_t newest = 0;

	(void)state;
	world_node(w, "n1", 1, GIB);
	world_guest(w, "web", 1, 64, "n1");
	world_must(w, "vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 1, 'status': 'running'}", NULL);
	world_must(w, "vm.intent", "{'name': 'web', 'intent': 'running'}", NULL);
	world_must(w, "vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 1, 'status': 'failed'}", NULL);
	assert_int_equal(state_event_newest(w->db, &newest, &w->e), 0);
	assert_int_equal(newest, 7);
	list = state_event_list(w->db, 1, 10, &w->e);
	assert_int_equal(json_array_size(list), 3);
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "op")), "vm.create");
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 2), "op")), "vm.observed");
	json_decref(list);
	list = state_event_list(w->db, 7, 10, &w->e);
	assert_int_equal(json_array_size(list), 0);
	json_decref(list);
	world_free(w);
}

/* ---- requests that arrive twice ---- */

static void the_same_request_gets_the_first_answer_again_and_changes_nothing(void **state)
{
	struct world *w = world_new();
	json_t *command, *later;
	const char *before;

	(void)state;
	command = world_command(w, "setting.set", json_pack("{s:s, s:i}", "key", "x", "value", 1));
	later = world_command(w, "setting.set", json_pack("{s:s, s:i}", "key", "x", "value", 2));
	json_object_set_new(later, "id", json_string("30000000-0000-4000-8000-000000000000"));
	assert_int_equal(world_apply(w, command), 0);
	assert_int_equal(world_apply(w, later), 0);
	before = world_digest(w);
	assert_int_equal(world_apply(w, command), 0);
	world_is(json_incref(w->result), "{'version': 1}");
	assert_string_equal(world_digest(w), before);
	assert_int_equal(world_int(state_setting_get(w->db, "x", &w->e), "value"), 2);
	json_decref(command);
	json_decref(later);
	world_free(w);
}

static void an_id_of_another_operation_is_refused_and_a_refused_one_is_judged_afresh(void **state)
{
	struct world *w = world_new();
	json_t *command = world_command(w, "user.delete", json_pack("{s:s}", "name", "eve"));

	(void)state;
	assert_int_equal(world_apply(w, command), -1);
	world_must(w, "user.create", "{'name': 'eve', 'role': 'viewer'}", NULL);
	assert_int_equal(world_apply(w, command), 0);
	json_object_set_new(command, "op", json_string("user.create"));
	assert_int_equal(world_apply(w, command), -1);
	assert_int_equal(w->e.code, ERR_INPUT);
	assert_string_equal(w->e.text, "command: its id was that of a user.delete; use a new one for each request");
	json_decref(command);
	world_free(w);
}

/* A request of long ago is not known any more: its id may be used up, its effect is judged anew. */
static void the_newest_requests_are_remembered_over_a_rollback_and_a_new_connection(void **state)
{
	struct world *w = world_new();
	json_t *first = world_command(w, "setting.set", json_pack("{s:s, s:i}", "key", "first", "value", 1));
	json_t *lost, *result = NULL;

	(void)state;
	assert_int_equal(world_apply(w, first), 0);
	/* Applied and rolled back by the caller: as if it had never been. */
	lost = world_command(w, "setting.set", json_pack("{s:s, s:i}", "key", "lost", "value", 1));
	sqlite3_exec(w->db, "SAVEPOINT outer", NULL, NULL, NULL);
	assert_int_equal(state_machine.apply(w->db, 2, lost, &result, &w->e), 0);
	json_decref(result);
	sqlite3_exec(w->db, "ROLLBACK TO outer; RELEASE outer", NULL, NULL, NULL);
	assert_int_equal(world_apply(w, lost), 0);
	assert_int_equal(world_int(state_setting_get(w->db, "lost", &w->e), "version"), 1);
	/* 8,000 requests later the first one is still known. */
	for (int i = 0; i < 8000; i++)
		assert_int_equal(DO(w, "setting.set", "{s:s, s:i}", "key", "x", "value", i), 0);
	assert_int_equal(world_apply(w, first), 0);
	assert_int_equal(world_int(state_setting_get(w->db, "first", &w->e), "version"), 1);
	for (int i = 0; i < 200; i++)
		assert_int_equal(DO(w, "setting.set", "{s:s, s:i}", "key", "x", "value", i), 0);
	assert_int_equal(world_apply(w, first), 0);
	assert_int_equal(world_int(state_setting_get(w->db, "first", &w->e), "version"), 2);
	json_decref(first);
	json_decref(lost);
	world_free(w);
}

/* ---- the envelope ---- */

static void a_command_that_is_not_one_is_refused_with_the_field(void **state)
{
	static const struct {
		const char *field, *value; /* NULL: taken away */
		enum err_code code;
		const char *text;
	} rows[] = {
		{"op", NULL, ERR_INPUT, "command: op must be a text of 1 to 64 bytes"},
		{"op", "5", ERR_INPUT, "command: op must be a text of 1 to 64 bytes"},
		{"op", "\"vm.fly\"", ERR_UNSUPPORTED, "command vm.fly: this godwitd does not know it; upgrade it"},
		{"op", "\"vm.ha\"", ERR_UNSUPPORTED,
		 "command vm.ha: version 1 has no such command; send it as version 2"},
		{"v", "5", ERR_UNSUPPORTED,
		 "command setting.set: its version is not one of 1 to 4 that this godwitd knows; upgrade it"},
		{"v", "0", ERR_UNSUPPORTED,
		 "command setting.set: its version is not one of 1 to 4 that this godwitd knows; upgrade it"},
		{"id", "\"6BA7B810-9DAD-41D1-80B4-00C04FD430C8\"", ERR_INPUT,
		 "command: id must be a UUID in lower case"},
		{"id", "\"x\"", ERR_INPUT, "command: id must be a UUID in lower case"},
		{"time", "-1", ERR_INPUT, "command: time must be milliseconds since 1970"},
		{"time", "1.5", ERR_INPUT, "command: time must be milliseconds since 1970"},
		{"by", "\"\"", ERR_INPUT, "command: by must be a text of 1 to 255 bytes"},
		{"from", "\"a\\nb\"", ERR_INPUT, "command: from must be a text of 1 to 255 bytes"},
		{"args", "[]", ERR_INPUT, "command: args must be an object {...}"},
		{"args", NULL, ERR_INPUT, "command: args must be an object {...}"},
	};
	struct world *w = world_new();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		json_t *c = world_command(w, "setting.set", json_pack("{s:s, s:i}", "key", "x", "value", 1));

		if (rows[i].value)
			json_object_set_new(c, rows[i].field, json_loads(rows[i].value, JSON_DECODE_ANY, NULL));
		else
			json_object_del(c, rows[i].field);
		assert_int_equal(world_apply(w, c), -1);
		assert_string_equal(w->e.text, rows[i].text);
		assert_int_equal(w->e.code, rows[i].code);
		json_decref(c);
	}
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(users_have_roles_and_never_show_their_hash),
		cmocka_unit_test(what_is_refused_about_users_says_why),
		cmocka_unit_test(a_join_token_is_good_once_and_for_its_time),
		cmocka_unit_test(a_refused_join_leaves_its_token),
		cmocka_unit_test(old_tokens_are_forgotten_a_day_after_their_end),
		cmocka_unit_test(settings_are_any_json_with_a_version),
		cmocka_unit_test(the_audit_log_says_who_from_where_what_and_with_which_result),
		cmocka_unit_test(events_are_decisions_and_reports_but_not_what_changed_nothing),
		cmocka_unit_test(the_same_request_gets_the_first_answer_again_and_changes_nothing),
		cmocka_unit_test(an_id_of_another_operation_is_refused_and_a_refused_one_is_judged_afresh),
		cmocka_unit_test(the_newest_requests_are_remembered_over_a_rollback_and_a_new_connection),
		cmocka_unit_test(a_command_that_is_not_one_is_refused_with_the_field),
	};

	return cmocka_run_group_tests_name("cluster/state-access", tests, NULL, NULL);
}
