/* SPDX-License-Identifier: Apache-2.0 */
/* The API of a daemon: every route, who may use it, what it says when it refuses, tasks, events, repetitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sock.h"
#include "cluster/state.h"
#include "node/api-int.h"
#include "node/http-api.h"
#include "tests/unit/node/api-world.h"
#include "tests/unit/node/server.h"

#define SOON (10 * NS_PER_S)
#define KEY_A "aaaaaaaa-0000-4000-8000-000000000001"
#define KEY_A_LARGE "AAAAAAAA-0000-4000-8000-000000000001"
#define KEY_B "aaaaaaaa-0000-4000-8000-000000000002"

/* Ask, expect, forget. */
static void expect(int status, const char *method, const char *target, json_t *body)
{
	json_decref(api_world_expect(status, method, target, body));
}

/* The id of the task that an answer tells of; in a static buffer. */
static const char *task_of(const json_t *answer)
{
	static char id[64];

	snprintf(id, sizeof(id), "%s", api_world_text(answer, "task.id"));
	assert_int_equal(strlen(id), 36);
	return id;
}

/* Create a guest on @node, let it run there. */
static void make_running(const char *name, int mib, const char *node)
{
	json_t *answer =
		api_world_expect(202, "POST", "/v1/vms",
				 json_pack("{s:o, s:b, s:{s:s}}", "definition", api_world_definition(name, mib),
					   "start", 1, "placement", "node", node));

	api_world_observe(name, node, 1, "running", NULL);
	json_decref(api_world_await(task_of(answer), "done"));
	json_decref(answer);
}

/* ---- the table ---- */

static void every_route_is_bound_and_in_the_document(void **state)
{
	json_t *doc = api_world_expect(200, "GET", "/openapi.json", NULL), *paths = json_object_get(doc, "paths"),
	       *path;
	const char *key, *method;
	size_t in_document = 0;
	json_t *op;

	(void)state;
	assert_null(http_unbound(api_world_daemon()->http));
	for (size_t i = 0; i < http_api_n_routes; i++) {
		const struct http_route *r = &http_api_routes[i];
		char small[8] = "";

		for (size_t k = 0; r->method[k]; k++)
			small[k] = (char)(r->method[k] | 32);
		op = json_object_get(json_object_get(paths, r->path), small);
		if (!op || strcmp(json_string_value(json_object_get(op, "operationId")), r->operation) != 0)
			fail_msg("%s %s is not in the document", r->method, r->path);
	}
	json_object_foreach (paths, key, path)
		json_object_foreach (path, method, op)
			in_document += strcmp(method, "parameters") != 0;
	assert_int_equal(in_document, http_api_n_routes);
	json_decref(doc);
}

/* A route's path with something in the place of its parameters. */
static void fill_path(const char *pattern, char *ret, size_t size)
{
	size_t n = 0;

	for (; *pattern && n + 3 < size; pattern++) {
		if (*pattern != '{') {
			ret[n++] = *pattern;
			continue;
		}
		ret[n++] = 'x';
		pattern = strchr(pattern, '}');
	}
	ret[n] = 0;
}

static void a_role_that_is_too_low_is_refused_on_every_route(void **state)
{
	(void)state;
	for (size_t i = 0; i < http_api_n_routes; i++) {
		const struct http_route *r = &http_api_routes[i];
		char target[128];
		json_t *answer;
		int status = 0;

		fill_path(r->path, target, sizeof(target));
		if (r->role == HTTP_ROLE_NONE)
			continue;
		answer = api_world_ask("gwu_nobody", r->method, target, NULL, NULL, &status);
		assert_int_equal(status, 401);
		assert_string_equal(api_world_text(answer, "error.code"), "auth");
		json_decref(answer);
		if (r->role == HTTP_ROLE_VIEWER)
			continue;
		answer = api_world_ask(api_world_token(r->role - 1), r->method, target, NULL, NULL, &status);
		if (status != 403)
			fail_msg("%s %s: %d", r->method, target, status);
		assert_string_equal(api_world_text(answer, "error.code"), "forbidden");
		assert_non_null(strstr(api_world_text(answer, "error.message"), http_role_names[r->role]));
		json_decref(answer);
	}
}

static void roles_do_what_they_may(void **state)
{
	json_t *body = json_pack("{s:o, s:b}", "definition", api_world_definition("r1", 64), "dry_run", 1);
	int status = 0;

	(void)state;
	json_decref(api_world_ask(api_world_token(HTTP_ROLE_VIEWER), "GET", "/v1/vms", NULL, NULL, &status));
	assert_int_equal(status, 200);
	json_decref(api_world_ask(api_world_token(HTTP_ROLE_OPERATOR), "POST", "/v1/vms", body, NULL, &status));
	assert_int_equal(status, 200);
	json_decref(api_world_ask(api_world_token(HTTP_ROLE_ADMIN), "GET", "/v1/users", NULL, NULL, &status));
	assert_int_equal(status, 200);
}

/* Ask over TLS with the certificates of @dir. */
static json_t *ask_tls(const char *dir, const char *method, const char *target, int *ret_status)
{
	struct http_client_options o = {.address = api_world_daemon()->opt.listen, .tls_dir = server_path(dir)};
	struct err e = ERR_INIT;
	struct http_client *c = http_client_new(&o, &e);
	struct http_answer a = {0};
	json_t *answer;

	if (!c || http_client_call(c, method, target, NULL, NULL, clock_now_ns() + SOON, &a, &e) < 0)
		fail_msg("%s", e.text);
	*ret_status = a.status;
	answer = json_incref(a.json);
	http_answer_done(&a);
	http_client_free(c);
	return answer;
}

static void a_node_is_known_by_its_certificate(void **state)
{
	json_t *answer;
	int status;

	(void)state;
	answer = ask_tls("good", "GET", "/v1/users", &status);
	assert_int_equal(status, 200);
	json_decref(answer);
	answer = ask_tls("client", "GET", "/v1/vms", &status);
	assert_int_equal(status, 401);
	assert_non_null(strstr(api_world_text(answer, "error.message"), "no such node or user"));
	json_decref(answer);
	answer = ask_tls("good", "POST", "/v1/cluster/init", &status);
	assert_int_equal(status, 403);
	json_decref(answer);
}

/* ---- reading ---- */

static void every_answer_says_how_old_it_is(void **state)
{
	struct err e = ERR_INIT;
	int fd = sock_unix_connect(api_world_path("sock"), &e);
	_free_ char *text = NULL;

	(void)state;
	assert_int_equal(send(fd, "GET /v1/vms HTTP/1.1\r\nConnection: close\r\n\r\n", 43, 0), 43);
	text = server_read(fd, NULL, SOON);
	assert_non_null(strstr(text, "\r\nGodwit-State-Age-Ms: "));
	assert_non_null(strstr(text, "\r\nGodwit-State-Index: "));
	close(fd);
}

static void the_cluster_and_its_nodes_are_told(void **state)
{
	json_t *o = api_world_expect(200, "GET", "/v1/cluster", NULL);

	(void)state;
	assert_string_equal(api_world_text(o, "name"), "test");
	assert_string_equal(api_world_text(o, "state"), "synced");
	assert_string_equal(api_world_text(o, "members.0"), "n1");
	assert_string_equal(api_world_text(o, "manager"), "n1");
	json_decref(o);
	o = api_world_expect(200, "GET", "/v1/nodes", NULL);
	assert_int_equal(json_array_size(o), 2);
	assert_string_equal(api_world_text(o, "1.state"), "online");
	assert_int_equal(json_integer_value(api_world_at(o, "1.memory")), 8LL << 30);
	json_decref(o);
	expect(200, "GET", "/v1/nodes/n2", NULL);
	api_world_refused(404, "GET", "/v1/nodes/n9", NULL, "notfound", "n9",
			  "node n9: there is no such node; `godwit node list` shows those that are there");
}

static void lists_are_there_from_the_beginning(void **state)
{
	static const char *const targets[] = {
		"/v1/vms",   "/v1/networks", "/v1/migrations", "/v1/migrations?active=true", "/v1/tasks?active=true",
		"/v1/users", "/v1/audit",    "/v1/settings",   "/v1/networks/lan",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(targets); i++)
		expect(200, "GET", targets[i], NULL);
	api_world_refused(400, "GET", "/v1/audit?limit=100000", NULL, "input", NULL, "from 1 to 1000");
	api_world_refused(404, "GET", "/v1/tasks/x", NULL, "notfound", "x", "no such task; `godwit task list` shows");
	api_world_refused(404, "GET", "/v1/migrations/x", NULL, "notfound", "x", "no such migration");
	api_world_refused(404, "GET", "/v1/networks/x", NULL, "notfound", "x", "no such network");
}

static void set_catalogue(void *arg)
{
	(void)arg;
	api_world_daemon()->catalogue = json_pack("{s:{s:s, s:[]}}", "x86-64-v2", "vendor", "any", "features");
}

static void drop_catalogue(void *arg)
{
	(void)arg;
	json_decref(api_world_daemon()->catalogue);
	api_world_daemon()->catalogue = NULL;
}

static void the_best_cpu_of_all_nodes_is_told(void **state)
{
	json_t *o;

	(void)state;
	api_world_refused(503, "GET", "/v1/baseline", NULL, "unavailable", NULL, "ask again");
	api_world_do(set_catalogue, NULL);
	o = api_world_expect(200, "GET", "/v1/baseline?nodes=n1,n2", NULL);
	assert_string_equal(api_world_text(o, "model"), "x86-64-v2");
	json_decref(o);
	api_world_refused(404, "GET", "/v1/baseline?nodes=n7", NULL, "notfound", NULL, "n7");
	api_world_do(drop_catalogue, NULL);
}

/* ---- guests ---- */

static void a_guest_lives_from_create_to_delete(void **state)
{
	json_t *o, *task;

	(void)state;
	o = api_world_expect(202, "POST", "/v1/vms",
			     json_pack("{s:o, s:b}", "definition", api_world_definition("web1", 512), "start", 1));
	assert_string_equal(api_world_text(o, "placement.choice"), api_world_text(o, "task.node"));
	assert_string_equal(api_world_text(o, "task.state"), "queued");
	assert_string_equal(api_world_text(o, "task.object"), "web1");
	api_world_observe("web1", api_world_text(o, "placement.choice"), 1, "running", NULL);
	task = api_world_await(task_of(o), "done");
	assert_string_equal(api_world_text(task, "result.node"), api_world_text(o, "placement.choice"));
	json_decref(task);
	json_decref(o);

	o = api_world_expect(200, "GET", "/v1/vms/web1", NULL);
	assert_string_equal(api_world_text(o, "status"), "running");
	assert_string_equal(api_world_text(o, "definition.nics.0.network"), "lan");
	assert_null(api_world_at(o, "definition.nics.0.bridge"));
	assert_string_equal(api_world_text(o, "definition.cpu"), "x86-64-v2");
	api_world_refused(409, "DELETE", "/v1/vms/web1", NULL, "conflict", "web1", "stop it first");

	{
		_free_ char *owner = xstrdup(api_world_text(o, "owner"));
		json_t *stop = api_world_expect(202, "POST", "/v1/vms/web1/stop", json_pack("{s:i}", "timeout_s", 5));

		api_world_observe("web1", owner, 1, "stopped", NULL);
		json_decref(api_world_await(task_of(stop), "done"));
		json_decref(stop);
	}
	json_decref(o);
	o = api_world_expect(200, "GET", "/v1/vms/web1", NULL);
	assert_int_equal(json_integer_value(api_world_at(o, "stop_s")), 5);
	json_decref(o);
	expect(200, "DELETE", "/v1/vms/web1", NULL);
	api_world_refused(404, "GET", "/v1/vms/web1", NULL, "notfound", "web1", "no such vm");
}

static void an_edit_makes_a_version_and_keeps_the_uuid(void **state)
{
	json_t *o, *d;

	(void)state;
	make_running("ed1", 256, "n1");
	d = api_world_definition("ed1", 512);
	o = api_world_expect(200, "PUT", "/v1/vms/ed1", json_pack("{s:o, s:i}", "definition", d, "if_version", 1));
	assert_int_equal(json_integer_value(api_world_at(o, "version")), 2);
	json_decref(o);
	d = api_world_definition("ed1", 1024);
	api_world_refused(409, "PUT", "/v1/vms/ed1", json_pack("{s:o, s:i}", "definition", d, "if_version", 1),
			  "conflict", "ed1", "somebody else edited it");
	d = api_world_definition("ed2", 1024);
	api_world_refused(400, "PUT", "/v1/vms/ed1", json_pack("{s:o}", "definition", d), "input", "ed1",
			  "cannot be changed");
	o = api_world_expect(200, "GET", "/v1/vms/ed1/versions", NULL);
	assert_int_equal(json_array_size(o), 2);
	json_decref(o);
	o = api_world_expect(200, "GET", "/v1/vms/ed1/definition?version=1", NULL);
	assert_int_equal(json_integer_value(api_world_at(o, "definition.memory")), 256);
	json_decref(o);
	api_world_refused(404, "GET", "/v1/vms/ed1/definition?version=9", NULL, "notfound", "ed1",
			  "`godwit vm versions` shows those that are kept");
}

static void a_dry_run_explains_every_node_and_changes_nothing(void **state)
{
	json_t *o = api_world_expect(
		200, "POST", "/v1/vms",
		json_pack("{s:o, s:b}", "definition", api_world_definition("big", 100000), "dry_run", 1));

	(void)state;
	assert_true(json_is_null(api_world_at(o, "placement.choice")));
	assert_int_equal(json_array_size(api_world_at(o, "placement.nodes")), 2);
	assert_non_null(strstr(api_world_text(o, "placement.nodes.0.reasons.0"), "needs 100000 MiB"));
	json_decref(o);
	api_world_refused(409, "POST", "/v1/vms", json_pack("{s:o}", "definition", api_world_definition("big", 100000)),
			  "conflict", "big", "no node fits");
	api_world_refused(404, "GET", "/v1/vms/big", NULL, "notfound", "big", "no such vm");
}

static void a_wish_for_a_place_is_kept_or_refused(void **state)
{
	json_t *o;

	(void)state;
	make_running("near1", 64, "n2");
	o = api_world_expect(200, "POST", "/v1/vms",
			     json_pack("{s:o, s:b, s:{s:[s]}}", "definition", api_world_definition("w", 64), "dry_run",
				       1, "placement", "near", "near1"));
	assert_string_equal(api_world_text(o, "placement.choice"), "n2");
	json_decref(o);
	o = api_world_expect(200, "POST", "/v1/vms",
			     json_pack("{s:o, s:b, s:{s:[s]}}", "definition", api_world_definition("w", 64), "dry_run",
				       1, "placement", "apart", "near1"));
	assert_string_equal(api_world_text(o, "placement.choice"), "n1");
	json_decref(o);
	api_world_refused(
		404, "POST", "/v1/vms",
		json_pack("{s:o, s:{s:s}}", "definition", api_world_definition("w", 64), "placement", "node", "n9"),
		"notfound", "w", "there is no node n9");
}

static void a_wrong_definition_is_refused_by_field(void **state)
{
	json_t *d = api_world_definition("bad", 64);

	(void)state;
	json_object_set_new(api_world_at(d, "nics.0"), "network", json_string("nowhere"));
	api_world_refused(404, "POST", "/v1/vms", json_pack("{s:o}", "definition", d), "notfound", "bad",
			  "nics[0].network: there is no network nowhere; create it first");
	d = api_world_definition("bad", 64);
	json_object_set_new(api_world_at(d, "disks.0"), "file", json_string("disk.img"));
	api_world_refused(400, "POST", "/v1/vms", json_pack("{s:o}", "definition", d), "input", "bad",
			  "disks[0].file: \"disk.img\" is not absolute");
	d = api_world_definition("bad", 64);
	json_object_set_new(d, "seed", json_pack("{s:s}", "user-data-file", "/etc/shadow"));
	api_world_refused(400, "POST", "/v1/vms", json_pack("{s:o}", "definition", d), "input", "bad",
			  "seed.user-data-file: files are not read here");
	d = api_world_definition("bad", 64);
	json_object_set_new(d, "cores", json_integer(1));
	api_world_refused(400, "POST", "/v1/vms", json_pack("{s:o}", "definition", d), "input", NULL, "cores");
}

static void a_start_that_fails_fails_its_task_with_the_nodes_words(void **state)
{
	json_t *o = api_world_expect(202, "POST", "/v1/vms",
				     json_pack("{s:o, s:{s:s}}", "definition", api_world_definition("f1", 64),
					       "placement", "node", "n1")),
	       *task;

	(void)state;
	json_decref(api_world_await(task_of(o), "done")); /* created, not to be started */
	json_decref(o);
	api_world_observe("f1", "n1", 1, "stopped", "from an earlier life: no disk");
	o = api_world_expect(202, "POST", "/v1/vms/f1/start", NULL);
	usleep(50000);
	task = api_world_expect(200, "GET", "/v1/tasks?active=true", NULL);
	assert_int_equal(json_array_size(task), 1); /* yesterday's failure is not today's */
	json_decref(task);
	api_world_observe("f1", "n1", 1, "stopped", "disk /disks/f1: No such file or directory");
	task = api_world_await(task_of(o), "failed");
	assert_non_null(strstr(api_world_text(task, "error"), "No such file"));
	json_decref(task);
	json_decref(o);
	o = api_world_expect(202, "POST", "/v1/vms/f1/start", NULL);
	expect(202, "POST", "/v1/vms/f1/kill", NULL);
	json_decref(api_world_await(task_of(o), "cancelled"));
	json_decref(o);
}

static bool nobody_is_present(const void *replica, uint32_t node)
{
	(void)replica;
	(void)node;
	return false;
}

static bool (*present_before)(const void *replica, uint32_t node);

static void hide_nodes(void *arg)
{
	(void)arg;
	present_before = api_world_daemon()->api->present;
	api_world_daemon()->api->present = nobody_is_present;
}

static void show_nodes(void *arg)
{
	(void)arg;
	api_world_daemon()->api->present = present_before;
}

static void a_task_of_a_node_that_is_away_says_so(void **state)
{
	json_t *o;

	(void)state;
	expect(202, "POST", "/v1/vms", json_pack("{s:o}", "definition", api_world_definition("away1", 64)));
	api_world_do(hide_nodes, NULL);
	o = api_world_expect(202, "POST", "/v1/vms/away1/start", NULL);
	assert_non_null(strstr(api_world_text(o, "task.note"), "out of reach"));
	json_decref(o);
	o = api_world_expect(200, "GET", "/v1/nodes/n2", NULL);
	assert_string_equal(api_world_text(o, "state"), "offline");
	json_decref(o);
	api_world_refused(409, "POST", "/v1/vms", json_pack("{s:o}", "definition", api_world_definition("away2", 64)),
			  "conflict", "away2", "is not up");
	api_world_do(show_nodes, NULL);
}

/* ---- moves ---- */

static void step(const char *id, const char *name, const char *role, const char *node)
{
	json_t *args =
		json_pack("{s:s, s:s, s:s, s:s, s:i}", "id", id, "step", name, "role", role, "node", node, "epoch", 1);

	if (!strcmp(role, "manager"))
		json_object_set_new(args, "from", json_string("queued"));
	api_world_command("migration.step", args);
}

static void a_move_goes_where_the_guest_fits_and_its_task_ends_with_it(void **state)
{
	static const char *const steps[][3] = {
		{"checking", "manager", "n1"}, {"preparing", "src", "n1"},   {"copying", "dst", "n2"},
		{"agreed", "src", "n1"},       {"handed-over", "src", "n1"}, {"committed", "dst", "n2"},
		{"cleaning", "src", "n1"},     {"done", "src", "n1"},
	};
	json_t *o, *m, *task;
	const char *id;
	char target[128];

	(void)state;
	make_running("mv1", 64, "n1");
	o = api_world_expect(202, "POST", "/v1/vms/mv1/migrate", json_pack("{s:i}", "max_pause_ms", 50));
	id = task_of(o);
	assert_string_equal(api_world_text(o, "placement.choice"), "n2");
	snprintf(target, sizeof(target), "/v1/migrations/%s", id);
	m = api_world_expect(200, "GET", target, NULL);
	assert_string_equal(api_world_text(m, "dst"), "n2");
	assert_int_equal(json_integer_value(api_world_at(m, "options.max_pause_ms")), 50);
	json_decref(m);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
		step(id, steps[i][0], steps[i][1], steps[i][2]);
	task = api_world_await(id, "done");
	assert_string_equal(api_world_text(task, "result.dst"), "n2");
	assert_string_equal(api_world_text(task, "kind"), "vm.migrate");
	json_decref(task);
	json_decref(o);
	m = api_world_expect(200, "GET", "/v1/vms/mv1", NULL);
	assert_string_equal(api_world_text(m, "owner"), "n2");
	json_decref(m);
}

static void a_move_that_is_cancelled_cancels_its_task(void **state)
{
	json_t *o;
	char target[128];

	(void)state;
	make_running("mv2", 64, "n1");
	api_world_refused(409, "POST", "/v1/vms/mv2/migrate", json_pack("{s:s}", "to", "n1"), "conflict", "mv2",
			  "has it already");
	expect(202, "POST", "/v1/vms", json_pack("{s:o}", "definition", api_world_definition("mv9", 64)));
	api_world_refused(409, "POST", "/v1/vms/mv9/migrate", NULL, "conflict", "mv9", "start it first");
	api_world_refused(404, "POST", "/v1/vms/nobody/migrate", NULL, "notfound", "nobody", "no such vm");
	o = api_world_expect(202, "POST", "/v1/vms/mv2/migrate", json_pack("{s:s}", "to", "n2"));
	api_world_refused(409, "POST", "/v1/vms/mv2/migrate", json_pack("{s:s}", "to", "n2"), "conflict", "mv2",
			  "is being moved already");
	api_world_refused(409, "GET", "/v1/vms/mv2/forecast?to=n2", NULL, "conflict", "mv2", "is being moved already");
	snprintf(target, sizeof(target), "/v1/migrations/%s/cancel", task_of(o));
	expect(202, "POST", target, NULL);
	json_decref(api_world_await(task_of(o), "cancelled"));
	api_world_refused(409, "POST", target, NULL, "conflict", task_of(o), "has ended already");
	json_decref(o);
}

static void the_token_of_a_move_is_told_to_nobody(void **state)
{
	json_t *o, *m;
	char target[128];

	(void)state;
	make_running("mv3", 64, "n1");
	o = api_world_expect(202, "POST", "/v1/vms/mv3/migrate", json_pack("{s:s}", "to", "n2"));
	step(task_of(o), "checking", "manager", "n1");
	step(task_of(o), "preparing", "src", "n1");
	api_world_command("migration.step", json_pack("{s:s, s:s, s:s, s:s, s:i, s:{s:s, s:s}}", "id", task_of(o),
						      "step", "copying", "role", "dst", "node", "n2", "epoch", 1,
						      "detail", "address", "127.0.0.2:1", "token", "secret"));
	snprintf(target, sizeof(target), "/v1/migrations/%s", task_of(o));
	m = api_world_expect(200, "GET", target, NULL);
	assert_string_equal(api_world_text(m, "detail.address"), "127.0.0.2:1");
	assert_null(api_world_at(m, "detail.token"));
	json_decref(m);
	api_world_command("migration.step",
			  json_pack("{s:s, s:s, s:s, s:s, s:i, s:s}", "id", task_of(o), "step", "failed", "role", "src",
				    "node", "n1", "epoch", 1, "error", "the wire was cut"));
	m = api_world_await(task_of(o), "failed");
	assert_string_equal(api_world_text(m, "error"), "the wire was cut");
	json_decref(m);
	json_decref(o);
}

static void a_forecast_that_cannot_be_measured_says_why(void **state)
{
	json_t *o;

	(void)state;
	o = api_world_expect(202, "POST", "/v1/vms", json_pack("{s:o}", "definition", api_world_definition("fc1", 64)));
	json_decref(o);
	api_world_refused(409, "GET", "/v1/vms/fc1/forecast", NULL, "conflict", "fc1", "start it first");
	make_running("fc2", 64, "n1");
	api_world_refused(400, "GET", "/v1/vms/fc2/forecast?to=n2", NULL, "input", "fc2", "measure how fast it writes");
	make_running("fc3", 64, "n2"); /* whose API nobody serves */
	api_world_refused(500, "POST", "/v1/vms/fc3/migrate", json_pack("{s:b}", "dry_run", 1), "system", "fc3",
			  "where vm fc3 is");
}

/* ---- consoles ---- */

/* A guest's console, its two ends in the hands of a test. */
struct console {
	struct http_client *client;
	struct terminal_peer peer;
	int listener, guest;
};

static void console_listen(struct console *c, const char *name)
{
	_free_ char *sock = xasprintf("%s/console.sock", name);
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	mkdir(api_world_path(name), 0700);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", api_world_path(sock));
	c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(c->listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(c->listener, 1), 0);
}

static void console_attach(struct console *c, const char *name)
{
	struct http_client_options o = {.unix_path = api_world_path("sock")};
	_free_ char *target = xasprintf("/v1/vms/%s/console", name);
	struct err e = ERR_INIT;

	c->client = http_client_new(&o, NULL);
	if (http_client_upgrade(c->client, target, "godwit-console", clock_now_ns() + SOON, &c->peer, &e) < 0)
		fail_msg("%s", e.text);
	c->guest = accept(c->listener, NULL, NULL);
	assert_true(c->guest >= 0);
}

static void console_done(struct console *c, const char *name)
{
	_free_ char *sock = xasprintf("%s/console.sock", name);

	http_client_free(c->client);
	close(c->guest);
	close(c->listener);
	unlink(api_world_path(sock));
	rmdir(api_world_path(name));
}

static void the_console_is_a_stream_to_the_guests_socket(void **state)
{
	struct console c;
	struct err e = ERR_INIT;
	char buf[8] = "";

	(void)state;
	make_running("con1", 64, "n1");
	api_world_refused(500, "GET", "/v1/vms/con1/console", NULL, "system", "con1", "its console does not answer");
	console_listen(&c, "con1");
	console_attach(&c, "con1");
	assert_int_equal(write(c.guest, "login:", 6), 6);
	assert_int_equal(c.peer.read(c.peer.arg, buf, sizeof(buf), &e), 6);
	assert_memory_equal(buf, "login:", 6);
	assert_int_equal(c.peer.write(c.peer.arg, "root\n", 5, &e), 0);
	assert_int_equal(recv(c.guest, buf, 5, MSG_WAITALL), 5);
	assert_memory_equal(buf, "root\n", 5);
	shutdown(c.guest, SHUT_RDWR); /* the guest ends */
	assert_int_equal(c.peer.read(c.peer.arg, buf, sizeof(buf), &e), 0);
	console_done(&c, "con1");
}

#define FLOOD (4U << 20)

/* Write FLOOD bytes that tell their places, as fast as they are taken. */
static void *flood(void *arg)
{
	int fd = *(int *)arg;
	char piece[4096];

	for (size_t at = 0; at < FLOOD; at += sizeof(piece)) {
		for (size_t i = 0; i < sizeof(piece); i++)
			piece[i] = (char)((at + i) % 251);
		if (sock_write_full(fd, piece, sizeof(piece), clock_now_ns() + SOON, NULL) < 0)
			break;
	}
	return NULL;
}

static void a_side_that_takes_nothing_makes_the_other_wait(void **state)
{
	struct console c;
	struct err e = ERR_INIT;
	pthread_t writer;
	char piece[4096];
	size_t at = 0;
	int fd;

	(void)state;
	make_running("con4", 64, "n1");
	console_listen(&c, "con4");
	console_attach(&c, "con4");
	fd = c.guest;
	pthread_create(&writer, NULL, flood, &fd); /* the guest talks, nobody listens */
	usleep(200000);
	while (at < FLOOD) {
		ssize_t n = c.peer.read(c.peer.arg, piece, sizeof(piece), &e);

		if (n <= 0)
			fail_msg("after %zu: %s", at, e.text);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal((unsigned char)piece[i], (at + (size_t)i) % 251);
		at += (size_t)n;
	}
	pthread_join(writer, NULL);
	fd = c.peer.fd;
	pthread_create(&writer, NULL, flood, &fd); /* the client types, the guest is busy */
	usleep(200000);
	for (at = 0; at < FLOOD; at += sizeof(piece)) {
		assert_int_equal(recv(c.guest, piece, sizeof(piece), MSG_WAITALL), sizeof(piece));
		for (size_t i = 0; i < sizeof(piece); i++)
			assert_int_equal((unsigned char)piece[i], (at + i) % 251);
	}
	pthread_join(writer, NULL);
	console_done(&c, "con4");
}

static void a_console_that_is_not_there_is_refused(void **state)
{
	(void)state;
	api_world_refused(404, "GET", "/v1/vms/con9/console", NULL, "notfound", "con9", "no such vm");
	expect(202, "POST", "/v1/vms", json_pack("{s:o}", "definition", api_world_definition("con2", 64)));
	api_world_refused(409, "GET", "/v1/vms/con2/console", NULL, "conflict", "con2", "start it first");
	make_running("con3", 64, "n2"); /* whose API nobody serves */
	api_world_refused(500, "GET", "/v1/vms/con3/console", NULL, "system", "con3", "where vm con3 is");
}

/* ---- networks, users, tokens, settings ---- */

static void networks_are_made_and_removed(void **state)
{
	json_t *o = api_world_expect(201, "POST", "/v1/networks",
				     json_pack("{s:s, s:i, s:s}", "name", "storage", "vlan", 7, "uplink", "eth1"));

	(void)state;
	assert_string_equal(api_world_text(o, "bridge"), "gw-storage");
	json_decref(o);
	api_world_refused(400, "POST", "/v1/networks", json_pack("{s:s, s:i}", "name", "n", "vlan", 8), "input", "n",
			  "Give an uplink");
	api_world_refused(409, "POST", "/v1/networks", json_pack("{s:s}", "name", "lan"), "conflict", "lan",
			  "exists already");
	expect(200, "DELETE", "/v1/networks/storage", NULL);
	api_world_refused(404, "DELETE", "/v1/networks/storage", NULL, "notfound", "storage", "no such network");
}

static void a_users_token_works_until_the_user_is_deleted(void **state)
{
	json_t *o =
		api_world_expect(201, "POST", "/v1/users", json_pack("{s:s, s:s}", "name", "eve", "role", "viewer"));
	_free_ char *token = xstrdup(api_world_text(o, "token"));
	int status = 0;

	(void)state;
	json_decref(o);
	json_decref(api_world_ask(token, "GET", "/v1/vms", NULL, NULL, &status));
	assert_int_equal(status, 200);
	o = api_world_expect(200, "GET", "/v1/users", NULL);
	{
		_free_ char *text = json_dumps(o, 0);

		assert_null(strstr(text, token));
		assert_null(strstr(text, "hash"));
	}
	json_decref(o);
	expect(200, "DELETE", "/v1/users/eve", NULL);
	json_decref(api_world_ask(token, "GET", "/v1/vms", NULL, NULL, &status));
	assert_int_equal(status, 401);
	api_world_refused(404, "DELETE", "/v1/users/eve", NULL, "notfound", "eve", "no such user");
}

static void a_join_token_names_this_host_and_ends(void **state)
{
	json_t *o = api_world_expect(201, "POST", "/v1/cluster/tokens", json_pack("{s:i}", "ttl_s", 60));

	(void)state;
	assert_true(strlen(api_world_text(o, "token")) > 40);
	assert_true(json_integer_value(api_world_at(o, "expires")) > clock_wall_ms());
	assert_true(json_integer_value(api_world_at(o, "expires")) < clock_wall_ms() + 61000);
	json_decref(o);
	api_world_refused(400, "POST", "/v1/cluster/tokens", json_pack("{s:i}", "ttl_s", 1), "input", NULL, "ttl_s");
}

static void settings_are_set_and_taken_away(void **state)
{
	json_t *o;

	(void)state;
	expect(200, "PUT", "/v1/settings/placement.vcpu-ratio", json_pack("{s:i}", "value", 1));
	o = api_world_expect(200, "GET", "/v1/settings", NULL);
	assert_true(json_array_size(o) > 0);
	json_decref(o);
	o = api_world_definition("wide", 64);
	json_object_set_new(o, "vcpus", json_integer(5));
	api_world_refused(409, "POST", "/v1/vms", json_pack("{s:o}", "definition", o), "conflict", "wide",
			  "are allowed");
	expect(200, "PUT", "/v1/settings/placement.vcpu-ratio", json_pack("{s:n}", "value"));
	api_world_refused(400, "PUT", "/v1/settings/node.ring", json_pack("{s:i}", "value", 1), "input", "node.ring",
			  "no such setting");
}

/* ---- repetitions ---- */

static void a_request_that_comes_twice_is_carried_out_once(void **state)
{
	json_t *first, *second, *list;
	int status = 0;

	(void)state;
	first = api_world_ask(NULL, "POST", "/v1/vms",
			      json_pack("{s:o, s:b}", "definition", api_world_definition("once", 64), "start", 1),
			      KEY_A, &status);
	assert_int_equal(status, 202);
	second = api_world_ask(NULL, "POST", "/v1/vms",
			       json_pack("{s:o, s:b}", "definition", api_world_definition("once", 64), "start", 1),
			       KEY_A_LARGE, &status);
	assert_int_equal(status, 202);
	assert_string_equal(api_world_text(first, "task.id"), KEY_A);
	assert_string_equal(api_world_text(second, "task.id"), KEY_A);
	json_decref(first);
	json_decref(second);
	list = api_world_expect(200, "GET", "/v1/audit?limit=1", NULL);
	first = json_incref(api_world_at(list, "0.seq"));
	json_decref(list);
	json_decref(api_world_ask(NULL, "POST", "/v1/vms/once/stop", NULL, KEY_B, &status));
	json_decref(api_world_ask(NULL, "POST", "/v1/vms/once/stop", NULL, KEY_B, &status));
	assert_int_equal(status, 202);
	list = api_world_expect(200, "GET", "/v1/audit?limit=1", NULL);
	second = api_world_at(list, "0.seq");
	assert_in_range(json_integer_value(second) - json_integer_value(first), 1, 3); /* and not twice as many */
	json_decref(first);
	json_decref(list);
}

static json_t *make_user(const char *name, const char *key, int *ret_status)
{
	return api_world_ask(NULL, "POST", "/v1/users", json_pack("{s:s, s:s}", "name", name, "role", "viewer"), key,
			     ret_status);
}

static void a_token_is_the_same_when_its_request_comes_again(void **state)
{
	static const char key[] = "aaaaaaaa-0000-4000-8000-000000000003",
			  other[] = "aaaaaaaa-0000-4000-8000-000000000004";
	json_t *first, *again;
	int status = 0;

	(void)state;
	first = make_user("tim", key, &status);
	assert_int_equal(status, 201);
	again = make_user("tim", key, &status);
	assert_int_equal(status, 201);
	assert_true(json_equal(first, again));
	json_decref(first);
	json_decref(again);
	first = make_user("tom", key, &status); /* a key that was another request's */
	assert_int_equal(status, 409);
	assert_non_null(strstr(api_world_text(first, "error.message"), "use a new one"));
	json_decref(first);
	first = api_world_ask(NULL, "POST", "/v1/cluster/tokens", NULL, other, &status);
	again = api_world_ask(NULL, "POST", "/v1/cluster/tokens", NULL, other, &status);
	assert_int_equal(status, 201);
	assert_true(json_equal(first, again));
	json_decref(first);
	json_decref(again);
	first = api_world_expect(201, "POST", "/v1/cluster/tokens", NULL);
	again = api_world_expect(201, "POST", "/v1/cluster/tokens", NULL);
	assert_string_not_equal(api_world_text(first, "token"), api_world_text(again, "token"));
	json_decref(first);
	json_decref(again);
}

/* ---- audit and events ---- */

static void the_audit_log_says_who_and_from_where(void **state)
{
	json_t *o, *body = json_pack("{s:o}", "definition", api_world_definition("aud", 64));
	int status = 0;

	(void)state;
	json_decref(api_world_ask(api_world_token(HTTP_ROLE_OPERATOR), "POST", "/v1/vms", body, NULL, &status));
	assert_int_equal(status, 202);
	o = api_world_expect(200, "GET", "/v1/audit?limit=1", NULL);
	assert_string_equal(api_world_text(o, "0.by"), "operator");
	assert_string_equal(api_world_text(o, "0.from"), "unix");
	assert_string_equal(api_world_text(o, "0.op"), "vm.create");
	assert_string_equal(api_world_text(o, "0.object"), "aud");
	json_decref(o);
}

/* Read events until one named @name comes; its id and data. */
static json_t *await_event(struct http_client *c, const char *name, char *ret_id, size_t size)
{
	struct http_event ev;
	struct err e = ERR_INIT;
	bool ended = false;
	json_t *data;

	for (;;) {
		if (http_client_event(c, clock_now_ns() + SOON, &ev, &ended, &e) != 1)
			fail_msg("no event %s: %s", name, e.text);
		if (!strcmp(ev.name, name))
			break;
		http_event_done(&ev);
	}
	snprintf(ret_id, size, "%s", ev.id);
	data = json_loads(ev.data, 0, NULL);
	http_event_done(&ev);
	return data;
}

static void events_tell_what_happens_and_go_on_after_a_cut(void **state)
{
	struct http_client_options o = {.unix_path = api_world_path("sock")};
	struct http_client *c = http_client_new(&o, NULL);
	struct err e = ERR_INIT;
	char id[32], target[64], again[32];
	json_t *data;

	(void)state;
	if (http_client_listen(c, "/v1/events", clock_now_ns() + SOON, &e) < 0)
		fail_msg("%s", e.text);
	expect(202, "POST", "/v1/vms", json_pack("{s:o}", "definition", api_world_definition("ev1", 64)));
	data = await_event(c, "vm.create", id, sizeof(id));
	assert_string_equal(api_world_text(data, "object"), "ev1");
	assert_string_equal(api_world_text(data, "by"), "root");
	json_decref(data);
	http_client_free(c); /* the cut */

	expect(200, "DELETE", "/v1/vms/ev1", NULL);
	snprintf(target, sizeof(target), "/v1/events?since=%s", id);
	c = http_client_new(&o, NULL);
	assert_int_equal(http_client_listen(c, target, clock_now_ns() + SOON, &e), 0);
	data = await_event(c, "vm.delete", again, sizeof(again));
	assert_true(atoll(again) > atoll(id));
	json_decref(data);
	http_client_free(c);
}

static void metrics_tell_of_the_cluster(void **state)
{
	struct http_client_options o = {.unix_path = api_world_path("sock")};
	struct http_client *c = http_client_new(&o, NULL);
	struct http_answer a = {0};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(http_client_call(c, "GET", "/metrics", NULL, NULL, clock_now_ns() + SOON, &a, &e), 0);
	assert_non_null(strstr(a.text, "\ngodwit_state_synced 1\n"));
	assert_non_null(strstr(a.text, "\ngodwit_members 1\n"));
	assert_non_null(strstr(a.text, "godwit_http_requests_total{operation=\"vm_create\""));
	http_answer_done(&a);
	http_client_free(c);
}

/* ---- trouble ---- */

static struct replica *away;

static void take_replica(void *arg)
{
	(void)arg;
	away = steal_ptr(api_world_daemon()->replica);
}

static void bring_replica(void *arg)
{
	(void)arg;
	api_world_daemon()->replica = steal_ptr(away);
}

static void a_host_without_a_cluster_says_what_to_do(void **state)
{
	json_t *o;
	int status = 0;

	(void)state;
	api_world_do(take_replica, NULL);
	o = api_world_ask(NULL, "GET", "/v1/vms/web1", NULL, NULL, &status);
	json_decref(api_world_ask(NULL, "GET", "/metrics", NULL, NULL, NULL));
	api_world_do(bring_replica, NULL);
	assert_int_equal(status, 503);
	assert_non_null(strstr(api_world_text(o, "error.message"), "godwit cluster init"));
	json_decref(o);
}

static void look_again(void *arg)
{
	api_world_daemon()->api->led = false;
	api_tick(api_world_daemon());
	(void)arg;
}

static void a_new_leader_ends_what_the_old_one_left_open(void **state)
{
	static const char id[] = "bbbbbbbb-0000-4000-8000-000000000001";

	(void)state;
	make_running("led1", 64, "n1");
	/* A task that was made when its end could not be proposed: of a kind judged by the state alone. */
	api_world_command("task.create", json_pack("{s:s, s:s, s:s}", "id", id, "kind", "vm.start", "object", "led1"));
	api_world_do(look_again, NULL);
	json_decref(api_world_await(id, "done"));
}

static void half_a_request_is_closed_and_the_rest_is_served(void **state)
{
	struct err e = ERR_INIT;
	int fd = sock_unix_connect(api_world_path("sock"), &e);

	(void)state;
	assert_int_equal(
		send(fd, "POST /v1/vms HTTP/1.1\r\nContent-Length: 100\r\nContent-Type: application/json\r\n\r\n{\"de",
		     83, 0),
		83);
	expect(200, "GET", "/v1/vms", NULL);
	shutdown(fd, SHUT_WR);
	assert_true(server_closed_by(fd, SOON));
	close(fd);
	expect(200, "GET", "/v1/vms", NULL);
}

#define CONNECTIONS 10000
#define KEPT 200

/* Of one address that opens 10,000 and lets go of none that it need not: it has its 64, and others are served. */
static void ten_thousand_connections_do_not_keep_others_out(void **state)
{
	struct sock_addr to;
	struct err e = ERR_INIT;
	int fds[KEPT], refused = 0;

	(void)state;
	assert_int_equal(sock_addr_parse(api_world_daemon()->opt.listen, &to, &e), 0);
	for (int i = 0; i < CONNECTIONS; i++) {
		int fd = sock_tcp_connect(&to, clock_now_ns() + SOON, &e);

		if (fd < 0)
			fail_msg("%d: %s", i, e.text);
		if (i < KEPT)
			fds[i] = fd;
		else
			close(fd);
	}
	expect(200, "GET", "/v1/vms", NULL);
	for (int i = 0; i < KEPT; i++) {
		refused += server_closed_by(fds[i], 0);
		close(fds[i]);
	}
	assert_int_equal(refused, KEPT - 64);
}

/* ---- all of them ---- */

static int start(void **state)
{
	server_make_certs(state);
	api_world_start();
	return 0;
}

static int stop(void **state)
{
	api_world_stop();
	return server_drop_certs(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_route_is_bound_and_in_the_document),
		cmocka_unit_test(a_role_that_is_too_low_is_refused_on_every_route),
		cmocka_unit_test(roles_do_what_they_may),
		cmocka_unit_test(a_node_is_known_by_its_certificate),
		cmocka_unit_test(every_answer_says_how_old_it_is),
		cmocka_unit_test(the_cluster_and_its_nodes_are_told),
		cmocka_unit_test(lists_are_there_from_the_beginning),
		cmocka_unit_test(the_best_cpu_of_all_nodes_is_told),
		cmocka_unit_test(a_guest_lives_from_create_to_delete),
		cmocka_unit_test(an_edit_makes_a_version_and_keeps_the_uuid),
		cmocka_unit_test(a_dry_run_explains_every_node_and_changes_nothing),
		cmocka_unit_test(a_wish_for_a_place_is_kept_or_refused),
		cmocka_unit_test(a_wrong_definition_is_refused_by_field),
		cmocka_unit_test(a_start_that_fails_fails_its_task_with_the_nodes_words),
		cmocka_unit_test(a_task_of_a_node_that_is_away_says_so),
		cmocka_unit_test(a_move_goes_where_the_guest_fits_and_its_task_ends_with_it),
		cmocka_unit_test(a_move_that_is_cancelled_cancels_its_task),
		cmocka_unit_test(the_token_of_a_move_is_told_to_nobody),
		cmocka_unit_test(a_forecast_that_cannot_be_measured_says_why),
		cmocka_unit_test(the_console_is_a_stream_to_the_guests_socket),
		cmocka_unit_test(a_side_that_takes_nothing_makes_the_other_wait),
		cmocka_unit_test(a_console_that_is_not_there_is_refused),
		cmocka_unit_test(networks_are_made_and_removed),
		cmocka_unit_test(a_users_token_works_until_the_user_is_deleted),
		cmocka_unit_test(a_join_token_names_this_host_and_ends),
		cmocka_unit_test(settings_are_set_and_taken_away),
		cmocka_unit_test(a_request_that_comes_twice_is_carried_out_once),
		cmocka_unit_test(a_token_is_the_same_when_its_request_comes_again),
		cmocka_unit_test(the_audit_log_says_who_and_from_where),
		cmocka_unit_test(events_tell_what_happens_and_go_on_after_a_cut),
		cmocka_unit_test(metrics_tell_of_the_cluster),
		cmocka_unit_test(a_host_without_a_cluster_says_what_to_do),
		cmocka_unit_test(a_new_leader_ends_what_the_old_one_left_open),
		cmocka_unit_test(half_a_request_is_closed_and_the_rest_is_served),
		cmocka_unit_test(ten_thousand_connections_do_not_keep_others_out),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
