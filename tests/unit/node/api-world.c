/* SPDX-License-Identifier: Apache-2.0 */
/* A daemon of one host in this process, for tests of the API. */
#include "tests/unit/node/api-world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/state.h"
#include "node/api-int.h"
#include "node/http-api.h"
#include "node/http-schema.h"
#include "node/pki-dir.h"
#include "node/pki.h"
#include "tests/unit/node/server.h"

#define SOON (10 * NS_PER_S)
#define MEMORY (8LL << 30)

static struct {
	struct daemon d;
	struct http_options options;
	struct http_schemas *schemas;
	pthread_t thread;
	char root[64];
	int port;
	char tokens[HTTP_ROLE_MAX][128];
	unsigned commands;
} w;

struct daemon *api_world_daemon(void)
{
	return &w.d;
}

const char *api_world_path(const char *name)
{
	static char path[4][256];
	static unsigned turn;

	turn++;
	snprintf(path[turn % 4], sizeof(path[0]), "%s/%s", w.root, name);
	return path[turn % 4];
}

/* ---- the daemon's thread ---- */

static void on_applied(void *arg, uint64_t index, const json_t *command, const json_t *result, const struct err *e)
{
	(void)e;
	api_applied(arg, index, command, result);
}

static void *run(void *arg)
{
	loop_run(arg);
	return NULL;
}

static void end_loop(void *arg)
{
	loop_stop(arg);
}

struct errand {
	void (*fn)(void *arg);
	void *arg;
	sem_t done;
};

static void errand_run(void *arg)
{
	struct errand *er = arg;

	er->fn(er->arg);
	sem_post(&er->done);
}

void api_world_do(void (*fn)(void *arg), void *arg)
{
	struct errand er = {.fn = fn, .arg = arg};

	sem_init(&er.done, 0, 0);
	loop_call(w.d.loop, errand_run, &er);
	while (sem_wait(&er.done) < 0)
		;
	sem_destroy(&er.done);
}

/* ---- commands ---- */

struct proposal {
	json_t *command;
	struct err e;
	sem_t done;
};

static void proposed(void *arg, const json_t *result, const struct err *e)
{
	struct proposal *p = arg;

	(void)result;
	if (e)
		p->e = *e;
	sem_post(&p->done);
}

static void propose(void *arg)
{
	struct proposal *p = arg;

	if (replica_propose(w.d.replica, p->command, proposed, p, &p->e) < 0)
		sem_post(&p->done);
}

void api_world_command(const char *op, json_t *args)
{
	struct proposal p = {0};
	char id[48];

	assert_non_null(args);
	snprintf(id, sizeof(id), "10000000-0000-4000-8000-%012x", ++w.commands);
	p.command = json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:o}", "op", op, "v", 1, "id", id, "time",
			      (json_int_t)clock_wall_ms(), "by", "node n2", "from", "local", "args", args);
	sem_init(&p.done, 0, 0);
	loop_call(w.d.loop, propose, &p);
	while (sem_wait(&p.done) < 0)
		;
	sem_destroy(&p.done);
	json_decref(p.command);
	if (p.e.code)
		fail_msg("%s: %s", op, p.e.text);
}

void api_world_observe(const char *vm, const char *node, int epoch, const char *status, const char *note)
{
	json_t *args = json_pack("{s:s, s:s, s:i, s:s}", "vm", vm, "node", node, "epoch", epoch, "status", status);

	if (note)
		json_object_set_new(args, "note", json_string(note));
	api_world_command("vm.observed", args);
}

static void make_node(const char *name, int id, const char *fingerprint)
{
	static const char cpu[] =
		"{\"accel\": \"kvm\", \"vendor\": \"GenuineIntel\", \"qemu\": 70222, \"features\": [], "
		"\"models\": [\"x86-64-v2\"]}";
	char address[16];

	snprintf(address, sizeof(address), "127.0.0.%d", id);
	api_world_command("node.join", json_pack("{s:s, s:i, s:[s], s:s}", "name", name, "id", id, "addresses", address,
						 "fingerprint", fingerprint));
	api_world_command("node.report", json_pack("{s:s, s:{s:I, s:I}, s:i, s:[s], s:o}", "node", name, "memory",
						   "total", (json_int_t)MEMORY, "free", (json_int_t)MEMORY - (1 << 30),
						   "cpus", 4, "networks", "lan", "cpu", json_loads(cpu, 0, NULL)));
}

/* ---- life ---- */

static bool everybody_is_present(const void *replica, uint32_t node)
{
	(void)replica;
	(void)node;
	return true;
}

static void look_synced(void *arg)
{
	*(bool *)arg = replica_synced(w.d.replica);
}

static void not_here(struct http_call *call, void *arg)
{
	struct err e = ERR_INIT;

	(void)arg;
	err_set(&e, ERR_UNSUPPORTED, "not in this test");
	http_reply_err(call, &e, NULL);
}

static void start_http(void)
{
	static const char *const others[] = {"cluster_init", "cluster_join", "join", "node_remove"};
	struct err e = ERR_INIT;

	w.options = (struct http_options){
		.loop = w.d.loop,
		.routes = http_api_routes,
		.n_routes = http_api_n_routes,
		.schemas = http_api_schemas,
		.n_schemas = http_api_n_schemas,
		.title = "Godwit",
		.version = "test",
		.identify = api_identify,
		.identify_arg = &w.d,
		.metrics = w.d.metrics,
		.limits = {.first_ns = 300 * NS_PER_S}, /* a connection that only waits is a test's */
	};
	w.d.http = http_server_new(&w.options);
	w.d.feed = http_feed_new(64);
	api_bind(&w.d);
	w.d.api->present = everybody_is_present;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		http_bind(w.d.http, others[i], not_here, NULL);
	w.port = http_listen_tls(w.d.http, "127.0.0.1:0", api_world_path("pki"), &e);
	if (w.port < 0 || http_listen_unix(w.d.http, api_world_path("sock"), 0666, 0, &e) < 0)
		fail_msg("%s", e.text);
	w.d.opt.listen = xasprintf("127.0.0.1:%d", w.port);
}

static void start_replica(void)
{
	struct replica_options o = {.bus = bus_local_new(1),
				    .machine = &state_machine,
				    .path = api_world_path("state.db"),
				    .history = 7,
				    .applied = on_applied,
				    .arg = &w.d};
	struct err e = ERR_INIT;

	if (replica_new(w.d.loop, &o, &w.d.replica, &e) < 0)
		fail_msg("%s", e.text);
}

static void await_synced(void)
{
	bool synced = false;

	for (int i = 0; i < 5000 && !synced; i++) {
		usleep(1000);
		api_world_do(look_synced, &synced);
	}
	assert_true(synced);
}

static void fingerprint_of_n1(char ret[2 * PKI_FINGERPRINT_SIZE + 1])
{
	_free_ char *pem = file_read(server_path("good/cert.pem"), PKI_PEM_MAX, NULL, NULL);
	uint8_t digest[PKI_FINGERPRINT_SIZE];

	assert_non_null(pem);
	assert_int_equal(pki_fingerprint(pem, digest, NULL), 0);
	hex_text(digest, sizeof(digest), ret);
}

void api_world_start(void)
{
	char fingerprint[2 * PKI_FINGERPRINT_SIZE + 1];

	memset(&w, 0, sizeof(w));
	strcpy(w.root, "/tmp/godwit-api-test.XXXXXX");
	assert_non_null(mkdtemp(w.root));
	assert_int_equal(symlink(server_path("good"), api_world_path("pki")), 0);
	assert_int_equal(pki_ca_key_write(api_world_path("pki"), "not a key, but as secret as one\n", NULL), 0);
	w.d.opt.config_dir = w.root;
	w.d.opt.run_dir = w.root;
	strcpy(w.d.identity.cluster, "test");
	strcpy(w.d.identity.node, "n1");
	w.d.identity.id = 1;
	strcpy(w.d.identity.addresses[0], "127.0.0.1");
	w.d.identity.n_addresses = 1;
	w.d.loop = loop_new();
	w.d.metrics = metrics_new();
	w.schemas = http_schemas_new(http_api_schemas, http_api_n_schemas);
	start_http();
	start_replica();
	pthread_create(&w.thread, NULL, run, w.d.loop);
	await_synced();
	fingerprint_of_n1(fingerprint);
	make_node("n1", 1, fingerprint);
	make_node("n2", 2, "2222222222222222222222222222222222222222222222222222222222222222");
	api_world_command("network.create", json_pack("{s:s, s:s}", "name", "lan", "bridge", "br0"));
}

void api_world_stop(void)
{
	static const char *const files[] = {"pki/ca-key.pem", "pki",           "state.db", "state.db-wal",
					    "state.db-shm",   "state.db.lock", "sock"};

	loop_call(w.d.loop, end_loop, w.d.loop);
	pthread_join(w.thread, NULL);
	replica_free(w.d.replica);
	http_server_free(w.d.http);
	http_feed_free(w.d.feed);
	api_done(&w.d);
	metrics_free(w.d.metrics);
	loop_free(w.d.loop);
	http_schemas_free(w.schemas);
	json_decref(w.d.catalogue);
	free((char *)w.d.opt.listen);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		unlink(api_world_path(files[i]));
	assert_int_equal(rmdir(w.root), 0);
}

/* ---- asking ---- */

/* Does the path of @target fit @pattern? */
static bool fits(const char *pattern, const char *target)
{
	while (*pattern && *target && *target != '?') {
		if (*pattern == '{') {
			pattern = strchr(pattern, '}') + 1;
			target += strcspn(target, "/?");
		} else if (*pattern++ != *target++) {
			return false;
		}
	}
	return !*pattern && (!*target || *target == '?');
}

static const struct http_route *route_of(const char *method, const char *target)
{
	for (size_t i = 0; i < http_api_n_routes; i++)
		if (!strcmp(http_api_routes[i].method, method) && fits(http_api_routes[i].path, target))
			return &http_api_routes[i];
	return NULL;
}

static void check_answer(const char *method, const char *target, const struct http_answer *a)
{
	const struct http_route *r = route_of(method, target);
	struct err e = ERR_INIT;

	if (!r || r->kind != HTTP_KIND_JSON || a->status >= 300)
		return;
	assert_non_null(a->json);
	if (http_schema_check(w.schemas, r->response, a->json, &e) < 0)
		fail_msg("%s %s: the answer is not as promised: %s\n%s", method, target, e.text, a->text);
}

json_t *api_world_ask(const char *token, const char *method, const char *target, json_t *body, const char *key,
		      int *ret_status)
{
	struct http_client_options o = {.unix_path = api_world_path("sock"), .token = token};
	struct err e = ERR_INIT;
	struct http_client *c = http_client_new(&o, &e);
	struct http_answer a = {0};
	json_t *answer;

	if (!c || http_client_call(c, method, target, body, key, clock_now_ns() + SOON, &a, &e) < 0)
		fail_msg("%s %s: %s", method, target, e.text);
	check_answer(method, target, &a);
	if (ret_status)
		*ret_status = a.status;
	answer = json_incref(a.json);
	http_answer_done(&a);
	http_client_free(c);
	json_decref(body);
	return answer;
}

json_t *api_world_expect(int status, const char *method, const char *target, json_t *body)
{
	int got = 0;
	json_t *answer = api_world_ask(NULL, method, target, body, NULL, &got);

	if (got != status) {
		_free_ char *text = json_dumps(answer, JSON_COMPACT);

		fail_msg("%s %s: %d, not %d: %s", method, target, got, status, text ? text : "");
	}
	return answer;
}

void api_world_refused(int status, const char *method, const char *target, json_t *body, const char *code,
		       const char *object, const char *words)
{
	json_t *answer = api_world_expect(status, method, target, body);

	if (!strstr(api_world_text(answer, "error.message"), words))
		fail_msg("%s %s: %s", method, target, api_world_text(answer, "error.message"));
	assert_string_equal(api_world_text(answer, "error.code"), code);
	assert_string_equal(api_world_text(answer, "error.object"), object ? object : "");
	json_decref(answer);
}

const char *api_world_token(enum http_role role)
{
	json_t *answer;

	if (!w.tokens[role][0]) {
		answer = api_world_expect(
			201, "POST", "/v1/users",
			json_pack("{s:s, s:s}", "name", http_role_names[role], "role", http_role_names[role]));
		snprintf(w.tokens[role], sizeof(w.tokens[role]), "%s", api_world_text(answer, "token"));
		json_decref(answer);
	}
	return w.tokens[role];
}

json_t *api_world_definition(const char *name, int mib)
{
	return json_pack("{s:s, s:i, s:i, s:[{s:s, s:s}], s:[{s:s, s:s+}]}", "name", name, "vcpus", 1, "memory", mib,
			 "nics", "type", "tap", "network", "lan", "disks", "format", "raw", "file", "/disks/", name);
}

json_t *api_world_at(const json_t *o, const char *path)
{
	json_t *v = (json_t *)o;

	while (*path && v) {
		char key[64];
		size_t n = strcspn(path, ".");

		snprintf(key, sizeof(key), "%.*s", (int)n, path);
		v = json_is_array(v) ? json_array_get(v, strtoul(key, NULL, 10)) : json_object_get(v, key);
		path += n + (path[n] == '.');
	}
	return v;
}

const char *api_world_text(const json_t *o, const char *path)
{
	const char *s = json_string_value(api_world_at(o, path));

	return s ? s : "";
}

json_t *api_world_await(const char *task, const char *state)
{
	char target[128];
	json_t *t;

	snprintf(target, sizeof(target), "/v1/tasks/%s", task);
	for (int i = 0;; i++) {
		t = api_world_expect(200, "GET", target, NULL);
		if (!strcmp(api_world_text(t, "state"), state))
			return t;
		if (i == 500)
			fail_msg("task %s is %s, not %s: %s", task, api_world_text(t, "state"), state,
				 api_world_text(t, "error"));
		json_decref(t);
		usleep(10000);
	}
}
