/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server: its tables, its listeners and its certificates. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/tls-cert.h"
#include "node/http-int.h"

#define BACKLOG 512
#define ACCEPTS_PER_TURN 64
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)
#define TLS_CIPHERS "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

const char *const http_role_names[HTTP_ROLE_MAX] = {
	[HTTP_ROLE_NONE] = "none",
	[HTTP_ROLE_VIEWER] = "viewer",
	[HTTP_ROLE_OPERATOR] = "operator",
	[HTTP_ROLE_ADMIN] = "admin",
};

struct http_listener {
	struct http_listener *next;
	struct http_server *server;
	int fd;
	bool local;
	char *path; /* to be unlinked, or NULL */
	struct loop_io *io;
	struct loop_timer *pause;
};

/* ---- accepting ---- */

/* Out of descriptors or memory: look away for a moment, or the loop would spin. */
static void accept_pause(struct http_listener *l)
{
	log_warning("event=http_accept_failed error=\"%s\"", strerror(errno));
	loop_io_set(l->io, 0);
	loop_timer_set(l->pause, ACCEPT_PAUSE_NS);
}

static void accept_resume(void *arg)
{
	struct http_listener *l = arg;

	loop_io_set(l->io, LOOP_READ);
}

static void on_accept(void *arg, unsigned ready)
{
	struct http_listener *l = arg;

	(void)ready;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		struct sockaddr_storage sa = {0};
		socklen_t size = sizeof(sa);
		int fd = accept4(l->fd, (struct sockaddr *)&sa, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS))
			accept_pause(l);
		if (fd < 0)
			return;
		if (!l->local)
			sock_tcp_tune(fd);
		http_conn_accept(l->server, fd, l->local ? NULL : (struct sockaddr *)&sa);
	}
}

/* Takes @fd and @path. */
static void listener_add(struct http_server *s, int fd, bool local, char *path)
{
	struct http_listener *l = xcalloc(1, sizeof(*l));

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	l->server = s;
	l->fd = fd;
	l->local = local;
	l->path = path;
	l->io = loop_io_add(s->o.loop, fd, LOOP_READ, on_accept, l);
	l->pause = loop_timer_add(s->o.loop, -1, 0, accept_resume, l);
	l->next = s->listeners;
	s->listeners = l;
}

static void listener_free(struct http_listener *l)
{
	loop_io_free(l->io);
	loop_timer_free(l->pause);
	close(l->fd);
	if (l->path)
		unlink(l->path);
	free(l->path);
	free(l);
}

/* ---- TLS ---- */

static SSL_CTX *ctx_load(const char *dir, struct err *e)
{
	_free_ char *ca = xasprintf("%s/ca.pem", dir);
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

	if (!ctx || !SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
	    !SSL_CTX_set_ciphersuites(ctx, TLS_CIPHERS) || !SSL_CTX_set_num_tickets(ctx, 0)) {
		SSL_CTX_free(ctx);
		ERR_clear_error();
		err_set(e, ERR_SYSTEM, "OpenSSL cannot set up TLS 1.3");
		return NULL;
	}
	/* No resumption: every connection proves its certificate. The chain that is sent includes the CA, so that a new
	 * host can compare it with the digest in its token. */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	/* A client certificate is optional (a token will do), but one that is shown must be right. */
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	if (cert_load_dir(ctx, dir, e) < 0) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(ca));
	ERR_clear_error();
	return ctx;
}

int http_reload_tls(struct http_server *s, const char *tls_dir, struct err *e)
{
	SSL_CTX *ctx = ctx_load(tls_dir, e);

	if (!ctx)
		return -1;
	SSL_CTX_free(s->ssl_ctx); /* connections keep theirs */
	s->ssl_ctx = ctx;
	return 0;
}

int http_listen_tls(struct http_server *s, const char *address, const char *tls_dir, struct err *e)
{
	struct sock_addr addr;
	int fd;

	if (sock_addr_parse(address, &addr, e) < 0 || http_reload_tls(s, tls_dir, e) < 0)
		return -1;
	fd = sock_tcp_listen(&addr, BACKLOG, e);
	if (fd < 0)
		return -1;
	listener_add(s, fd, false, NULL);
	return sock_tcp_port(fd);
}

/* ---- the unix socket ---- */

/* A socket that a killed daemon left behind goes; one that somebody listens on stays. */
static int unlink_stale(const char *path, struct err *e)
{
	struct stat st;
	int fd;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_sys(e, "%s", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, ERR_INPUT, "%s: something else than a socket is there already", path);
	fd = sock_unix_connect(path, NULL);
	if (fd >= 0) {
		close(fd);
		return err_set(e, ERR_INPUT, "%s: another daemon listens there already", path);
	}
	return unlink(path) < 0 ? err_sys(e, "%s", path) : 0;
}

int http_listen_unix(struct http_server *s, const char *path, mode_t mode, gid_t gid, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_closefd_ int fd = -1;
	mode_t old;
	int r;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, ERR_INPUT, "socket path \"%s\" is longer than %zu bytes: use a shorter directory",
			       path, sizeof(a.sun_path) - 1);
	memcpy(a.sun_path, path, strlen(path) + 1);
	if (unlink_stale(path, e) < 0)
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(e, "socket");
	old = umask(0177); /* nobody else before it has its owner and mode */
	r = bind(fd, (struct sockaddr *)&a, sizeof(a));
	umask(old);
	if (r < 0 || (gid && chown(path, (uid_t)-1, gid) < 0) || chmod(path, mode) < 0 || listen(fd, BACKLOG) < 0)
		return err_sys(e, "listen on %s", path);
	listener_add(s, steal_fd(&fd), true, xstrdup(path));
	return 0;
}

/* ---- what every server answers itself ---- */

static void on_openapi(struct http_call *call, void *arg)
{
	struct http_server *s = arg;

	http_reply(call, 200, http_openapi(&s->o));
}

static void on_metrics(struct http_call *call, void *arg)
{
	struct http_server *s = arg;
	_free_ char *text = metrics_text(s->o.metrics);

	http_reply_text(call, 200, METRICS_TEXT_TYPE, text);
}

static void collect(void *arg)
{
	static const char *const tls[] = {"tls"}, *const local[] = {"unix"};
	struct http_server *s = arg;

	metric_set(metric_with(s->open, tls), s->n_tls);
	metric_set(metric_with(s->open, local), s->n_local);
}

static void add_metrics(struct http_server *s)
{
	static const double buckets[] = {0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60};
	struct metrics *m = s->o.metrics;

	s->requests = metrics_counter(m, "godwit_http_requests_total", "Requests by operation and status.",
				      "operation,status");
	s->seconds = metrics_histogram(m, "godwit_http_request_seconds", "Time from a request's head to its answer.",
				       "operation", buckets, ARRAY_SIZE(buckets));
	s->refused = metrics_counter(m, "godwit_http_refused_total",
				     "Connections closed and requests refused by a limit.", "reason");
	s->open = metrics_gauge(m, "godwit_http_connections", "Connections that are open.", "over");
	metrics_collect(m, collect, s);
}

void server_refused(struct http_server *s, const char *reason)
{
	if (s->refused)
		metric_add(metric_with(s->refused, &reason), 1);
}

/* ---- the server ---- */

static void fill_limits(struct http_limits *l)
{
	l->connections = l->connections ? l->connections : 1024;
	l->per_address = l->per_address ? l->per_address : 64;
	l->local = l->local ? l->local : 512;
	l->body = l->body ? l->body : 1U << 20;
	l->first_ns = l->first_ns ? l->first_ns : 10 * NS_PER_S;
	l->body_ns = l->body_ns ? l->body_ns : 30 * NS_PER_S;
	l->idle_ns = l->idle_ns ? l->idle_ns : 60 * NS_PER_S;
	l->write_ns = l->write_ns ? l->write_ns : 120 * NS_PER_S;
	l->alive_ns = l->alive_ns ? l->alive_ns : 15 * NS_PER_S;
	l->stream_backlog = l->stream_backlog ? l->stream_backlog : 1U << 20;
	l->rate = l->rate > 0 ? l->rate : 500;
	l->burst = l->burst > 0 ? l->burst : 1000;
}

static bool has_schema(const struct http_server *s, const char *name)
{
	return json_object_get(http_schemas_all(s->schemas), name) != NULL;
}

static void check_routes(const struct http_server *s)
{
	for (size_t i = 0; i < s->o.n_routes; i++) {
		const struct http_route *r = &s->o.routes[i];
		bool schema = r->kind == HTTP_KIND_JSON || r->kind == HTTP_KIND_EVENTS;

		assert(r->path[0] == '/' && r->operation && r->summary && r->status && r->response);
		assert(!schema || has_schema(s, r->response));
		assert(!r->request || has_schema(s, r->request));
		for (size_t k = 0; k < i; k++)
			assert(strcmp(s->o.routes[k].operation, r->operation) != 0);
	}
}

static struct http_binding *binding_of(const struct http_server *s, const char *operation)
{
	for (size_t i = 0; i < s->o.n_routes; i++)
		if (strcmp(s->o.routes[i].operation, operation) == 0)
			return &s->bindings[i];
	return NULL;
}

void http_bind(struct http_server *s, const char *operation, http_handler_fn *fn, void *arg)
{
	struct http_binding *b = binding_of(s, operation);

	assert(b);
	*b = (struct http_binding){fn, arg};
}

const char *http_unbound(const struct http_server *s)
{
	for (size_t i = 0; i < s->o.n_routes; i++)
		if (!s->bindings[i].fn)
			return s->o.routes[i].operation;
	return NULL;
}

struct http_server *http_server_new(const struct http_options *o)
{
	struct http_server *s = xcalloc(1, sizeof(*s));

	signal(SIGPIPE, SIG_IGN); /* libevent and OpenSSL write to sockets that may be gone */
	s->o = *o;
	fill_limits(&s->o.limits);
	s->schemas = http_schemas_new(o->schemas, o->n_schemas);
	s->bindings = xcalloc(o->n_routes, sizeof(*s->bindings));
	s->peers = http_peers_new(s->o.limits.per_address, s->o.limits.rate, s->o.limits.burst);
	TAILQ_INIT(&s->conns);
	TAILQ_INIT(&s->unproven);
	check_routes(s);
	if (binding_of(s, "openapi"))
		http_bind(s, "openapi", on_openapi, s);
	if (o->metrics)
		add_metrics(s);
	if (o->metrics && binding_of(s, "metrics"))
		http_bind(s, "metrics", on_metrics, s);
	return s;
}

void http_server_free(struct http_server *s)
{
	if (!s)
		return;
	for (struct http_listener *l = s->listeners, *next; l; l = next) {
		next = l->next;
		listener_free(l);
	}
	while (!TAILQ_EMPTY(&s->conns))
		http_conn_close(TAILQ_FIRST(&s->conns));
	http_schemas_free(s->schemas);
	http_peers_free(s->peers);
	SSL_CTX_free(s->ssl_ctx);
	free(s->bindings);
	free(s);
}
