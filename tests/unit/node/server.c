/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP server for tests. */
#include "tests/unit/node/server.h"

#include <arpa/inet.h>
#include <openssl/sha.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/tls-cert.h"
#include "tests/unit/base/certs.h"

#define CALL_NS (10 * NS_PER_S)

atomic_int server_closed, server_gone;

static char root[] = "/tmp/godwit-http-test.XXXXXX";
static struct certs_ca our_ca, other_ca, twin_ca;

static struct {
	struct loop *loop;
	struct http_server *server;
	struct http_feed *feed;
	struct metrics *metrics;
	pthread_t thread;
	int port;
} s;

/* ---- certificates ---- */

const char *server_path(const char *name)
{
	static char path[4][256];
	static unsigned turn;

	turn++;
	snprintf(path[turn % 4], sizeof(path[0]), "%s/%s", root, name);
	return path[turn % 4];
}

int server_make_certs(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	if (!mkdtemp(root))
		abort();
	chmod(root, 0755);
	certs_ca_init(&our_ca, "our CA");
	certs_ca_init(&other_ca, "other CA");
	certs_ca_init(&twin_ca, "our CA");
	certs_write(server_path("good"), &our_ca, &our_ca, "localhost,127.0.0.1", 0);
	certs_write(server_path("alien"), &other_ca, &other_ca, "localhost,127.0.0.1", 0);
	certs_write(server_path("alien-client"), &our_ca, &other_ca, "carol", 0);
	certs_write(server_path("forged"), &our_ca, &twin_ca, "localhost,127.0.0.1", 0);
	certs_write(server_path("client"), &our_ca, &our_ca, "carol", 0);
	certs_write(server_path("expired"), &our_ca, &our_ca, "carol", CERTS_EXPIRED);
	return 0;
}

int server_drop_certs(void **state)
{
	static const char *const sets[] = {"good", "alien", "alien-client", "forged", "client", "expired"};
	static const char *const files[] = {"ca.pem", "cert.pem", "key.pem"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(files); k++) {
			_free_ char *path = xasprintf("%s/%s/%s", root, sets[i], files[k]);

			unlink(path);
		}
		rmdir(server_path(sets[i]));
	}
	rmdir(root);
	certs_ca_done(&our_ca);
	certs_ca_done(&other_ca);
	certs_ca_done(&twin_ca);
	return 0;
}

const uint8_t *server_ca_digest(void)
{
	static uint8_t digest[CERT_DIGEST_SIZE];

	cert_digest(our_ca.cert, digest);
	return digest;
}

/* ---- who is who ---- */

static bool is_token(const struct http_credential *c, const char *token)
{
	uint8_t digest[HTTP_DIGEST_SIZE];

	SHA256((const unsigned char *)token, strlen(token), digest);
	return c->kind == HTTP_CREDENTIAL_TOKEN && memcmp(digest, c->digest, sizeof(digest)) == 0;
}

static int identify(void *arg, const struct http_credential *c, char *ret_name, enum http_role *ret_role, struct err *e)
{
	(void)arg;
	*ret_role = HTTP_ROLE_VIEWER;
	if (is_token(c, SERVER_TOKEN_ALICE)) {
		strcpy(ret_name, "alice");
	} else if (is_token(c, SERVER_TOKEN_BOB)) {
		strcpy(ret_name, "bob");
		*ret_role = HTTP_ROLE_OPERATOR;
	} else if (c->kind == HTTP_CREDENTIAL_CERTIFICATE && strcmp(c->name, "carol") == 0) {
		strcpy(ret_name, "carol");
		*ret_role = HTTP_ROLE_ADMIN;
	} else if (c->kind == HTTP_CREDENTIAL_UNIX && c->uid == 65534) {
		strcpy(ret_name, "nobody");
	} else {
		return err_set(e, ERR_AUTH, "nobody here knows you");
	}
	return 0;
}

/* ---- handlers ---- */

static void on_hello(struct http_call *call, void *arg)
{
	const struct http_identity *id = http_call_identity(call);

	(void)arg;
	http_reply(call, 200,
		   json_pack("{s:s, s:s, s:s}", "name", id->name, "role", http_role_names[id->role], "from", id->from));
}

static void on_echo(struct http_call *call, void *arg)
{
	const char *x = http_call_query(call, "x");

	(void)arg;
	http_reply(call, 200,
		   json_pack("{s:s, s:s*, s:O, s:s}", "thing", http_call_param(call, "thing"), "x", x, "body",
			     http_call_body(call), "id", http_call_id(call)));
}

struct late {
	struct http_call *call;
	struct loop_timer *timer;
};

static void late_answer(void *arg)
{
	struct late *l = arg;

	http_reply(l->call, 200, json_pack("{s:b}", "late", 1));
	loop_timer_free(l->timer);
	free(l);
}

static void late_gone(void *arg)
{
	(void)arg;
	server_gone++;
}

static void on_later(struct http_call *call, void *arg)
{
	struct late *l = xcalloc(1, sizeof(*l));
	const char *ms = http_call_query(call, "ms");

	(void)arg;
	l->call = call;
	http_call_on_gone(call, late_gone, l);
	l->timer = loop_timer_add(s.loop, (ms ? atoi(ms) : 30) * NS_PER_MS, 0, late_answer, l);
}

static void on_fail(struct http_call *call, void *arg)
{
	struct err e = ERR_INIT;

	(void)arg;
	err_set(&e, ERR_UNSUPPORTED, "the thing cannot do that");
	http_reply_err(call, &e, http_call_param(call, "thing"));
}

static void on_large(struct http_call *call, void *arg)
{
	_free_ char *text = xcalloc((8U << 20) + 1, 1);

	(void)arg;
	memset(text, 'x', 8U << 20);
	http_reply_text(call, 200, "text/plain", text);
}

static void on_events(struct http_call *call, void *arg)
{
	(void)arg;
	http_feed_subscribe(s.feed, call);
}

static void stream_gone(void *arg)
{
	(void)arg;
	server_closed++;
}

static void on_flood(struct http_call *call, void *arg)
{
	struct http_stream *st = http_stream_events(call, stream_gone, NULL);
	_free_ char *text = xcalloc(60001, 1);
	json_t *data;

	(void)arg;
	memset(text, 'y', 60000);
	data = json_string(text);
	for (uint64_t i = 1; st && i <= 200; i++)
		http_stream_event(st, i, "flood", data);
	json_decref(data);
}

static void echo_data(void *arg, const void *buf, size_t n)
{
	struct http_stream *st = *(struct http_stream **)arg;

	if (n >= 3 && memcmp(buf, "bye", 3) == 0) {
		http_stream_end(st);
		free(arg);
		return;
	}
	http_stream_write(st, buf, n);
	if (http_stream_backlog(st) > 200000)
		http_stream_pause(st, true);
}

static void echo_drained(void *arg)
{
	http_stream_pause(*(struct http_stream **)arg, false);
}

static void echo_closed(void *arg)
{
	server_closed++;
	free(arg);
}

static void on_raw(struct http_call *call, void *arg)
{
	static const struct http_stream_ops ops = {echo_data, echo_drained, echo_closed};
	struct http_stream **st = xcalloc(1, sizeof(struct http_stream *));

	(void)arg;
	*st = http_stream_raw(call, &ops, st);
	if (!*st)
		free(st);
}

/* ---- the table ---- */

static const struct http_schema schemas[] = {
	{"Any", "{\"type\": \"object\"}", NULL},
	{"Thing",
	 "{\"type\": \"object\", \"additionalProperties\": false, \"properties\": {\"size\": {\"type\": \"integer\", "
	 "\"minimum\": 1}, \"color\": {\"enum\": [\"red\", \"blue\"]}, \"parts\": {\"type\": \"array\", \"items\": "
	 "{\"$ref\": \"#/components/schemas/Part\"}}, \"text\": {\"type\": \"string\"}}}",
	 NULL},
	{"Part", "{\"type\": \"object\", \"required\": [\"id\"], \"properties\": {\"id\": {\"type\": \"integer\"}}}",
	 NULL},
};

static const struct http_query x_query[] = {{"x", "string", "anything"}, {"n", "integer", "a number"}, {0}};
static const struct http_query ms_query[] = {{"ms", "integer", "milliseconds"}, {0}};
static const struct http_query since_query[] = {{"since", "integer", "an id"}, {0}};

static const struct http_route routes[] = {
	{"GET", "/hello", "hello", HTTP_ROLE_VIEWER, false, HTTP_KIND_JSON, 200, NULL, "Any", "Who am I", NULL},
	{"GET", "/public", "public", HTTP_ROLE_NONE, false, HTTP_KIND_JSON, 200, NULL, "Any", "Open", NULL},
	{"POST", "/things/{thing}", "thing_post", HTTP_ROLE_OPERATOR, false, HTTP_KIND_JSON, 200, "Thing", "Any",
	 "Echo", x_query},
	{"DELETE", "/things/{thing}", "thing_delete", HTTP_ROLE_ADMIN, false, HTTP_KIND_JSON, 200, NULL, "Any", "Fails",
	 NULL},
	{"POST", "/local", "local", HTTP_ROLE_ADMIN, true, HTTP_KIND_JSON, 200, "Any", "Any", "Local", NULL},
	{"GET", "/later", "later", HTTP_ROLE_VIEWER, false, HTTP_KIND_JSON, 200, NULL, "Any", "Later", ms_query},
	{"GET", "/large", "large", HTTP_ROLE_VIEWER, false, HTTP_KIND_TEXT, 200, NULL, "text/plain", "Large", NULL},
	{"GET", "/unbound", "unbound", HTTP_ROLE_VIEWER, false, HTTP_KIND_JSON, 200, NULL, "Any", "Nobody", NULL},
	{"GET", "/events", "events", HTTP_ROLE_VIEWER, false, HTTP_KIND_EVENTS, 200, NULL, "Any", "Events",
	 since_query},
	{"GET", "/flood", "flood", HTTP_ROLE_VIEWER, false, HTTP_KIND_EVENTS, 200, NULL, "Any", "Flood", NULL},
	{"GET", "/things/{thing}/raw", "raw", HTTP_ROLE_VIEWER, false, HTTP_KIND_RAW, 101, NULL, "echo", "Raw", NULL},
	{"GET", "/metrics", "metrics", HTTP_ROLE_VIEWER, false, HTTP_KIND_TEXT, 200, NULL, METRICS_TEXT_TYPE, "Metrics",
	 NULL},
	{"GET", "/openapi.json", "openapi", HTTP_ROLE_VIEWER, false, HTTP_KIND_JSON, 200, NULL, "Any", "This", NULL},
};

static struct http_options options = {
	.routes = routes,
	.n_routes = ARRAY_SIZE(routes),
	.schemas = schemas,
	.n_schemas = ARRAY_SIZE(schemas),
	.title = "test",
	.version = "1",
	.identify = identify,
};

const struct http_options *server_options(void)
{
	return &options;
}

/* ---- the thread ---- */

static void *run(void *arg)
{
	loop_run(arg);
	return NULL;
}

void server_start(const struct http_limits *limits)
{
	struct err e = ERR_INIT;

	server_closed = server_gone = 0;
	options.limits = limits ? *limits : (struct http_limits){0};
	s.loop = options.loop = loop_new();
	s.metrics = options.metrics = metrics_new();
	s.feed = http_feed_new(4);
	s.server = http_server_new(&options);
	http_bind(s.server, "hello", on_hello, NULL);
	http_bind(s.server, "public", on_hello, NULL);
	http_bind(s.server, "thing_post", on_echo, NULL);
	http_bind(s.server, "thing_delete", on_fail, NULL);
	http_bind(s.server, "local", on_hello, NULL);
	http_bind(s.server, "later", on_later, NULL);
	http_bind(s.server, "large", on_large, NULL);
	http_bind(s.server, "events", on_events, NULL);
	http_bind(s.server, "flood", on_flood, NULL);
	http_bind(s.server, "raw", on_raw, NULL);
	if (strcmp(http_unbound(s.server), "unbound") != 0)
		abort();
	s.port = http_listen_tls(s.server, "127.0.0.1:0", server_path("good"), &e);
	if (s.port < 0 || http_listen_unix(s.server, server_path("sock"), 0666, 0, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		abort();
	}
	pthread_create(&s.thread, NULL, run, s.loop);
}

static void end_loop(void *arg)
{
	loop_stop(arg);
}

void server_stop(void)
{
	loop_call(s.loop, end_loop, s.loop);
	pthread_join(s.thread, NULL);
	http_feed_free(s.feed);
	http_server_free(s.server);
	metrics_free(s.metrics);
	loop_free(s.loop);
}

int server_port(void)
{
	return s.port;
}

struct metrics *server_metrics(void)
{
	return s.metrics;
}

struct errand {
	loop_fn *fn;
	void *arg;
	atomic_int done;
};

static void errand_run(void *arg)
{
	struct errand *er = arg;

	er->fn(er->arg);
	er->done = 1;
}

void server_do(loop_fn *fn, void *arg)
{
	struct errand er = {.fn = fn, .arg = arg};

	loop_call(s.loop, errand_run, &er);
	while (!er.done)
		usleep(1000);
}

struct publication {
	uint64_t id;
	const char *name, *text;
};

static void publish(void *arg)
{
	const struct publication *p = arg;
	json_t *data = json_pack("{s:s}", "text", p->text);

	http_feed_publish(s.feed, p->id, p->name, data);
	json_decref(data);
}

void server_publish(uint64_t id, const char *name, const char *text)
{
	struct publication p = {id, name, text};

	server_do(publish, &p);
}

/* ---- clients ---- */

struct http_client *server_client_local(void)
{
	struct http_client_options o = {.unix_path = server_path("sock")};
	struct err e = ERR_INIT;
	struct http_client *c = http_client_new(&o, &e);

	if (!c)
		abort();
	return c;
}

struct http_client *server_client_tls(const char *dir, const char *token)
{
	_free_ char *address = xasprintf("127.0.0.1:%d", s.port);
	struct http_client_options o = {.address = address, .token = token};
	struct err e = ERR_INIT;
	struct http_client *c;

	if (dir)
		o.tls_dir = server_path(dir);
	else
		o.ca_path = server_path("good/ca.pem");
	c = http_client_new(&o, &e);
	if (!c) {
		fprintf(stderr, "%s\n", e.text);
		abort();
	}
	return c;
}

int server_connect_raw(void)
{
	struct err e = ERR_INIT;
	int fd = sock_unix_connect(server_path("sock"), &e);

	if (fd < 0)
		abort();
	return fd;
}

int server_connect_tcp(const char *from)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		abort();
	if (from && (inet_pton(AF_INET, from, &a.sin_addr) != 1 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0))
		abort();
	a.sin_port = htons((uint16_t)s.port);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		abort();
	return fd;
}

char *server_read(int fd, const char *until, int64_t ns)
{
	int64_t deadline = clock_now_ns() + ns;
	size_t size = 0, room = 1U << 16;
	char *text = xcalloc(room, 1);

	for (;;) {
		ssize_t r = 0;

		if (size && until && strstr(text, until))
			return text;
		if (sock_wait(fd, POLLIN, deadline, NULL) > 0)
			r = recv(fd, text + size, room - size - 1, 0);
		if (r <= 0)
			return text;
		size += (size_t)r;
		text[size] = 0;
		if (size + 1 == room) {
			room *= 2;
			text = realloc(text, room);
			if (!text)
				abort();
		}
	}
}

bool server_closed_by(int fd, int64_t ns)
{
	int64_t deadline = clock_now_ns() + ns;
	char buf[4096];

	while (sock_wait(fd, POLLIN, deadline, NULL) > 0)
		if (recv(fd, buf, sizeof(buf), 0) <= 0)
			return true;
	return false;
}

bool server_wait(const atomic_int *value, int want)
{
	for (int i = 0; i < 5000 && *value < want; i++)
		usleep(1000);
	return *value >= want;
}
