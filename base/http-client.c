/* SPDX-License-Identifier: Apache-2.0 */
/* A blocking client of Godwit's API.
 *
 * One connection at a time, kept from one request to the next. What the server says is foreign: heads are bounded by
 * base/http-message.h, bodies by HTTP_ANSWER_MAX, events by HTTP_EVENT_MAX.
 */
#include "base/http-client.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/http-message.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/tls.h"

#define IN_SIZE (64U << 10)
#define TEXT_FIRST (4U << 10)

/* Bytes that grow up to a limit; always a NUL behind them. */
struct text {
	char *data;
	size_t size;
	size_t room;
	size_t limit;
};

struct http_client {
	char *unix_path; /* or NULL */
	struct sock_addr addr;
	char *host; /* header */
	char *token;
	struct tls_ctx *tls_ctx;
	int fd; /* -1: not connected */
	struct tls *tls;
	bool used;  /* an answer has come over this connection */
	bool stale; /* it turned out closed before the answer began */
	size_t in_size, in_done;
	char in[IN_SIZE];
	struct http_body body; /* of the events */
	struct text lines;     /* of the events: decoded, not yet looked at */
};

static void text_done(struct text *t)
{
	free(t->data);
	*t = (struct text){.limit = t->limit};
}

static int text_add(struct text *t, const char *data, size_t size, const char *what, struct err *e)
{
	if (size > t->limit - t->size)
		return err_set(e, ERR_PROTOCOL, "%s of more than %zu bytes", what, t->limit);
	if (!t->data || t->size + size >= t->room) {
		size_t room = t->room ? t->room : TEXT_FIRST;
		char *grown;

		while (room <= t->size + size)
			room *= 2;
		grown = realloc(t->data, room);
		if (!grown)
			return err_set(e, ERR_SYSTEM, "%s: out of memory", what);
		t->data = grown;
		t->room = room;
	}
	memcpy(t->data + t->size, data, size);
	t->size += size;
	t->data[t->size] = 0;
	return 0;
}

/* ---- the connection ---- */

static void disconnect(struct http_client *c)
{
	tls_close(steal_ptr(c->tls));
	if (c->fd >= 0)
		close(steal_fd(&c->fd));
	c->used = false;
	c->in_size = c->in_done = 0;
	text_done(&c->lines);
}

static int connect_server(struct http_client *c, int64_t deadline_ns, struct err *e)
{
	if (c->fd >= 0)
		return 0;
	c->fd = c->unix_path ? sock_unix_connect(c->unix_path, e) : sock_tcp_connect(&c->addr, deadline_ns, e);
	if (c->fd < 0)
		return -1;
	if (!c->tls_ctx || tls_connect(c->tls_ctx, c->fd, c->addr.host, deadline_ns, &c->tls, e) == 0)
		return 0;
	disconnect(c);
	return err_wrap(e, "%s", c->host);
}

static int conn_write(struct http_client *c, const void *buf, size_t n, int64_t deadline_ns, struct err *e)
{
	if (c->tls)
		return tls_write_full(c->tls, buf, n, deadline_ns, e);
	return sock_write_full(c->fd, buf, n, deadline_ns, e);
}

/* What is there: bytes, 0 at the end, -1 with @e. */
static ssize_t conn_read(struct http_client *c, void *buf, size_t n, int64_t deadline_ns, struct err *e)
{
	ssize_t r;
	int ready;

	if (c->tls)
		return tls_read_some(c->tls, buf, n, deadline_ns, e);
	ready = sock_wait(c->fd, POLLIN, deadline_ns, e);
	if (ready == 0)
		return err_set(e, ERR_TIMEOUT, "the server did not answer in time");
	if (ready < 0)
		return -1;
	do
		r = recv(c->fd, buf, n, 0);
	while (r < 0 && errno == EINTR);
	return r < 0 ? err_sys(e, "connection to the server") : r;
}

/* More bytes into c->in. 1, 0 at the end, -1 with @e. */
static int fill(struct http_client *c, int64_t deadline_ns, struct err *e)
{
	ssize_t r;

	if (c->in_done == c->in_size)
		c->in_done = c->in_size = 0;
	if (c->in_done && c->in_size == sizeof(c->in)) {
		memmove(c->in, c->in + c->in_done, c->in_size - c->in_done);
		c->in_size -= c->in_done;
		c->in_done = 0;
	}
	if (c->in_size == sizeof(c->in))
		return err_set(e, ERR_PROTOCOL, "the server's answer has a head of more than %u bytes", IN_SIZE);
	r = conn_read(c, c->in + c->in_size, sizeof(c->in) - c->in_size, deadline_ns, e);
	if (r < 0)
		return -1;
	c->in_size += (size_t)r;
	return r > 0;
}

/* ---- requests ---- */

static int send_request(struct http_client *c, const char *method, const char *target, const char *headers,
			const char *body, int64_t deadline_ns, struct err *e)
{
	_free_ char *auth = c->token ? xasprintf("Authorization: Bearer %s\r\n", c->token) : xstrdup("");
	_free_ char *length =
		body ? xasprintf("Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body))
		     : xstrdup("");
	_free_ char *text = xasprintf("%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: godwit\r\n%s%s%s\r\n%s", method,
				      target, c->host, auth, length, headers, body ? body : "");
	struct err local = ERR_INIT;

	c->stale = false;
	if (connect_server(c, deadline_ns, e) < 0)
		return -1;
	if (conn_write(c, text, strlen(text), deadline_ns, &local) == 0)
		return 0;
	/* A server that refuses early closes while we write: what it said is still to be read. */
	if (local.code == ERR_TIMEOUT || local.code == ERR_CANCELLED) {
		*e = local;
		return -1;
	}
	return 0;
}

static int read_head(struct http_client *c, int64_t deadline_ns, struct http_head *ret, struct err *e)
{
	size_t scanned = 0, n;

	for (;;) {
		int r;

		n = http_head_length(c->in + c->in_done, c->in_size - c->in_done, &scanned);
		if (n && http_head_parse_response(c->in + c->in_done, n, ret, e) < 0)
			return -1;
		c->in_done += n;
		if (n && ret->status != 100)
			return 0;
		if (n) {
			http_head_done(ret);
			scanned = 0;
			continue;
		}
		if (c->in_size - c->in_done > HTTP_HEAD_MAX)
			return err_set(e, ERR_PROTOCOL, "the server's answer has a head of more than %u bytes",
				       HTTP_HEAD_MAX);
		r = fill(c, deadline_ns, e);
		if (r <= 0 && c->in_size == c->in_done && c->used && e->code != ERR_TIMEOUT && e->code != ERR_CANCELLED)
			c->stale = true;
		if (r < 0)
			return -1;
		if (r == 0)
			return err_set(e, ERR_PROTOCOL, "the server closed the connection without an answer");
	}
}

/* The next piece of @b into @to. 1, 0 when the body is over, -1 with @e. */
static int read_piece(struct http_client *c, struct http_body *b, struct text *to, const char *what,
		      int64_t deadline_ns, struct err *e)
{
	const char *piece = NULL;
	size_t used = 0, size = 0;
	int r = 1;

	if (b->done)
		return 0;
	if (c->in_done == c->in_size)
		r = fill(c, deadline_ns, e);
	if (r < 0)
		return -1;
	if (r == 0) {
		b->done = b->framing == HTTP_FRAMING_UNTIL_CLOSE;
		return b->done ? 0 : err_set(e, ERR_PROTOCOL, "the server's answer was cut");
	}
	if (http_body_feed(b, c->in + c->in_done, c->in_size - c->in_done, &used, &piece, &size, e) < 0)
		return -1;
	c->in_done += used;
	return text_add(to, piece, size, what, e) < 0 ? -1 : 1;
}

/* Does the Content-Type say @type, with or without parameters? */
static bool is_type(const struct http_head *h, const char *type)
{
	const char *s = http_head_get(h, "Content-Type");
	size_t n = strlen(type);

	return s && strncasecmp(s, type, n) == 0 && (!s[n] || strchr("; \t", s[n]));
}

static int64_t age_of(const struct http_head *h)
{
	const char *text = http_head_get(h, "Godwit-State-Age-Ms");
	size_t n = text ? strlen(text) : 0;

	return n && n <= 18 && strspn(text, "0123456789") == n ? strtoll(text, NULL, 10) : -1;
}

static int read_answer(struct http_client *c, const struct http_head *h, int64_t deadline_ns, struct http_answer *ret,
		       struct err *e)
{
	struct text text = {.limit = HTTP_ANSWER_MAX};
	struct http_body body;
	int r;

	http_body_start(&body, h);
	do
		r = read_piece(c, &body, &text, "an answer", deadline_ns, e);
	while (r > 0);
	if (r == 0 && !text.data)
		r = text_add(&text, "", 0, "an answer", e);
	if (r < 0) {
		text_done(&text);
		return -1;
	}
	ret->status = h->status;
	ret->text = text.data;
	ret->size = text.size;
	ret->age_ms = age_of(h);
	ret->json = NULL;
	if (is_type(h, "application/json"))
		ret->json = json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
	return 0;
}

/* One request over one connection. */
static int call_once(struct http_client *c, const char *method, const char *target, const char *headers,
		     const char *body, int64_t deadline_ns, struct http_answer *ret, struct err *e)
{
	struct http_head head = {0};
	bool keep;
	int r;

	if (send_request(c, method, target, headers, body, deadline_ns, e) < 0 ||
	    read_head(c, deadline_ns, &head, e) < 0) {
		disconnect(c);
		return -1;
	}
	keep = head.keep_alive;
	r = read_answer(c, &head, deadline_ns, ret, e);
	http_head_done(&head);
	c->used = true;
	if (r < 0 || !keep)
		disconnect(c);
	return r;
}

int http_client_call(struct http_client *c, const char *method, const char *target, const json_t *body, const char *key,
		     int64_t deadline_ns, struct http_answer *ret, struct err *e)
{
	_free_ char *headers = key ? xasprintf("Idempotency-Key: %s\r\n", key) : xstrdup("");
	_free_ char *text = body ? json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
	struct err local = ERR_INIT;
	int r = call_once(c, method, target, headers, text, deadline_ns, ret, &local);

	if (r < 0 && c->stale && (key || strcmp(method, "GET") == 0)) {
		local = ERR_INIT;
		r = call_once(c, method, target, headers, text, deadline_ns, ret, &local);
	}
	if (r < 0 && e)
		*e = local;
	return r;
}

void http_answer_done(struct http_answer *a)
{
	free(a->text);
	json_decref(a->json);
	*a = (struct http_answer){0};
}

static enum err_code code_named(const char *name)
{
	for (int i = ERR_NONE + 1; i < ERR_CODE_MAX; i++)
		if (name && strcmp(err_code_name((enum err_code)i), name) == 0)
			return (enum err_code)i;
	return ERR_PEER;
}

int http_answer_error(const struct http_answer *a, struct err *e)
{
	json_t *error = json_object_get(a->json, "error");
	const char *message = json_string_value(json_object_get(error, "message"));

	if (!message)
		return err_set(e, ERR_PEER, "the server answered %d %s", a->status, http_status_text(a->status));
	return err_set(e, code_named(json_string_value(json_object_get(error, "code"))), "%s", message);
}

/* ---- server-sent events ---- */

int http_client_listen(struct http_client *c, const char *target, int64_t deadline_ns, struct err *e)
{
	struct http_head head = {0};
	struct http_answer a = {0};
	int r = -1;

	disconnect(c);
	if (send_request(c, "GET", target, "Accept: text/event-stream\r\n", NULL, deadline_ns, e) < 0 ||
	    read_head(c, deadline_ns, &head, e) < 0) {
		disconnect(c);
		return -1;
	}
	if (head.status == 200 && is_type(&head, "text/event-stream")) {
		http_body_start(&c->body, &head);
		c->lines.limit = HTTP_EVENT_MAX;
		r = 0;
	} else if (read_answer(c, &head, deadline_ns, &a, e) == 0) {
		r = a.status == 200 ? err_set(e, ERR_PROTOCOL, "the server sends no events at %s", target)
				    : http_answer_error(&a, e);
		http_answer_done(&a);
	}
	http_head_done(&head);
	if (r < 0)
		disconnect(c);
	return r;
}

void http_event_done(struct http_event *ev)
{
	free(ev->id);
	free(ev->name);
	free(ev->data);
	*ev = (struct http_event){0};
}

static void replace(char **field, char *value)
{
	free(*field);
	*field = value;
}

/* One line of an event's block (the event stream of the HTML standard, section 9.2.6). */
static void event_line(struct http_event *ev, char *line)
{
	char *value = strchr(line, ':');

	if (value == line)
		return; /* a comment */
	if (value)
		*value++ = 0;
	else
		value = line + strlen(line);
	value += *value == ' ';
	if (strcmp(line, "data") == 0)
		replace(&ev->data, ev->data ? xasprintf("%s\n%s", ev->data, value) : xstrdup(value));
	else if (strcmp(line, "event") == 0)
		replace(&ev->name, xstrdup(value));
	else if (strcmp(line, "id") == 0)
		replace(&ev->id, xstrdup(value));
}

/* The end of the first block of lines (behind its empty line), or NULL when it is not there yet. */
static char *block_end(const struct text *t)
{
	char *p = t->data;

	while (p && *p) {
		char *end = strchr(p, '\n');

		if (!end)
			return NULL;
		if (end == p || (end == p + 1 && *p == '\r'))
			return end + 1;
		p = end + 1;
	}
	return NULL;
}

/* Take the first block out of @t. True when it was an event. */
static bool take_event(struct text *t, char *end, struct http_event *ret)
{
	struct http_event ev = {0};
	size_t n = (size_t)(end - t->data);

	for (char *p = t->data; p < end;) {
		char *newline = strchr(p, '\n');

		*newline = 0;
		if (newline > p && newline[-1] == '\r')
			newline[-1] = 0;
		event_line(&ev, p);
		p = newline + 1;
	}
	memmove(t->data, end, t->size - n + 1);
	t->size -= n;
	if (!ev.data) {
		http_event_done(&ev);
		return false;
	}
	if (!ev.id)
		ev.id = xstrdup("");
	if (!ev.name)
		ev.name = xstrdup("message");
	*ret = ev;
	return true;
}

int http_client_event(struct http_client *c, int64_t deadline_ns, struct http_event *ret, bool *ret_ended,
		      struct err *e)
{
	struct err local = ERR_INIT;

	*ret_ended = false;
	for (;;) {
		char *end = block_end(&c->lines);
		int r;

		if (end && take_event(&c->lines, end, ret))
			return 1;
		if (end)
			continue;
		if (c->tls && c->in_done == c->in_size) {
			r = tls_wait(c->tls, deadline_ns, e);
			if (r <= 0)
				return r;
		}
		r = read_piece(c, &c->body, &c->lines, "an event", deadline_ns, &local);
		if (r > 0 && memchr(c->lines.data, 0, c->lines.size))
			r = err_set(&local, ERR_PROTOCOL, "an event with a NUL in it");
		if (r < 0 && local.code == ERR_TIMEOUT)
			return 0;
		if (r < 0 && e)
			*e = local;
		*ret_ended = r == 0;
		if (r <= 0)
			return r;
	}
}

/* ---- raw streams ---- */

static bool raw_pending(void *arg)
{
	struct http_client *c = arg;
	struct pollfd p = {.fd = c->fd, .events = POLLIN};

	if (c->in_done < c->in_size)
		return true;
	return c->tls ? tls_pending(c->tls) : poll(&p, 1, 0) > 0;
}

static ssize_t raw_read(void *arg, void *buf, size_t n, struct err *e)
{
	struct http_client *c = arg;
	size_t left = c->in_size - c->in_done;

	if (!left)
		return conn_read(c, buf, n, SOCK_FOREVER, e);
	left = left < n ? left : n;
	memcpy(buf, c->in + c->in_done, left);
	c->in_done += left;
	return (ssize_t)left;
}

static int raw_write(void *arg, const void *buf, size_t n, struct err *e)
{
	return conn_write(arg, buf, n, SOCK_FOREVER, e);
}

int http_client_upgrade(struct http_client *c, const char *target, const char *protocol, int64_t deadline_ns,
			struct terminal_peer *ret, struct err *e)
{
	_free_ char *headers = xasprintf("Connection: Upgrade\r\nUpgrade: %s\r\n", protocol);
	struct http_head head = {0};
	struct http_answer a = {0};
	int r = -1;

	disconnect(c);
	if (send_request(c, "GET", target, headers, NULL, deadline_ns, e) < 0 ||
	    read_head(c, deadline_ns, &head, e) < 0) {
		disconnect(c);
		return -1;
	}
	if (head.status == 101) {
		*ret = (struct terminal_peer){c->fd, raw_pending, raw_read, raw_write, c};
		r = 0;
	} else if (read_answer(c, &head, deadline_ns, &a, e) == 0) {
		r = a.status < 400 ? err_set(e, ERR_PROTOCOL, "the server makes no stream of %s", target)
				   : http_answer_error(&a, e);
		http_answer_done(&a);
	}
	http_head_done(&head);
	if (r < 0)
		disconnect(c);
	return r;
}

/* ---- making one ---- */

static int load_tls(struct http_client *c, const struct http_client_options *o, struct err *e)
{
	if (!o->tls_dir && !o->ca_path && !o->ca_digest)
		return err_set(e, ERR_USAGE, "%s: which CA vouches for the server? Give a directory of certificates",
			       o->address);
	c->tls_ctx = o->tls_dir ? tls_ctx_load(o->tls_dir, e) : tls_ctx_new_client(o->ca_path, o->ca_digest, e);
	if (!c->tls_ctx)
		return -1;
	tls_ctx_set_https(c->tls_ctx);
	return 0;
}

struct http_client *http_client_new(const struct http_client_options *o, struct err *e)
{
	struct http_client *c = xcalloc(1, sizeof(*c));

	c->fd = -1;
	c->host = xstrdup(o->address ? o->address : "localhost");
	if (o->token)
		c->token = xstrdup(o->token);
	if (o->unix_path)
		c->unix_path = xstrdup(o->unix_path);
	if (!o->unix_path && (sock_addr_parse(o->address, &c->addr, e) < 0 || load_tls(c, o, e) < 0)) {
		http_client_free(c);
		return NULL;
	}
	return c;
}

struct http_client *http_client_new_fd(int fd)
{
	struct http_client *c = xcalloc(1, sizeof(*c));

	c->fd = fd;
	c->host = xstrdup("localhost");
	c->unix_path = xstrdup("/dev/null/nobody-there");
	return c;
}

void http_client_free(struct http_client *c)
{
	if (!c)
		return;
	disconnect(c);
	tls_ctx_free(c->tls_ctx);
	free(c->unix_path);
	free(c->host);
	free(c->token);
	free(c);
}
