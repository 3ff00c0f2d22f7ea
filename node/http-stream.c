/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that go on: server-sent events, raw streams, and a feed of the same events for many readers.
 *
 * A stream of events is sent in chunks, one per event, so that its end can be told from a cut. A reader who does not
 * keep up is cut off when stream_backlog bytes wait for him: he comes back with Last-Event-ID and misses nothing that
 * the feed still keeps.
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "node/http-int.h"

struct http_stream {
	struct http_conn *conn;
	bool raw;
	bool cut;
	bool paused;
	struct http_stream_ops ops;
	void *arg;
};

/* ---- what the connection calls ---- */

void stream_data(struct http_stream *st, struct http_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);

	while (c->stream == st && st->raw && !st->paused && evbuffer_get_length(in)) {
		size_t n = evbuffer_get_contiguous_space(in);
		_free_ char *copy = xcalloc(n, 1); /* the callback may end the stream, and with it the buffer */

		evbuffer_remove(in, copy, n);
		st->ops.data(st->arg, copy, n);
		if (c->dead)
			return;
	}
	if (c->stream == st && !st->raw)
		evbuffer_drain(in, evbuffer_get_length(in));
}

void stream_drained(struct http_stream *st)
{
	if (st && st->ops.drained)
		st->ops.drained(st->arg);
}

void stream_closed(struct http_stream *st)
{
	if (st->ops.closed)
		st->ops.closed(st->arg);
	free(st);
}

/* ---- both kinds ---- */

static struct http_stream *stream_new(struct http_call *call, int status, const char *head)
{
	struct http_conn *c = call_end(call, status);
	struct http_stream *st;

	if (!c)
		return NULL;
	st = xcalloc(1, sizeof(*st));
	st->conn = c;
	c->stream = st;
	http_conn_start_stream(c, head);
	return st;
}

static void send_bounded(struct http_stream *st, const void *buf, size_t n)
{
	struct http_conn *c = st->conn;

	if (st->cut)
		return;
	if (http_conn_backlog(c) + n > c->server->o.limits.stream_backlog) {
		st->cut = true;
		server_refused(c->server, "backlog");
		http_conn_cut(c);
		return;
	}
	http_conn_output(c, buf, n);
}

void http_stream_end(struct http_stream *st)
{
	struct http_conn *c;

	if (!st)
		return;
	c = st->conn;
	c->stream = NULL;
	c->keep = false;
	if (!st->cut && !st->raw)
		http_conn_output(c, "0\r\n\r\n", 5);
	free(st);
	if (c->state != CONN_CUT)
		http_conn_finish(c);
}

size_t http_stream_backlog(const struct http_stream *st)
{
	return http_conn_backlog(st->conn);
}

/* ---- server-sent events ---- */

struct http_stream *http_stream_events(struct http_call *call, loop_fn *closed, void *arg)
{
	struct http_stream *st = stream_new(call, 200,
					    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
					    "Transfer-Encoding: chunked\r\nCache-Control: no-store\r\n\r\n");

	if (!st)
		return NULL;
	st->ops.closed = closed;
	st->arg = arg;
	http_conn_deadline(st->conn, st->conn->server->o.limits.alive_ns);
	return st;
}

/* One event as a chunk. Caller frees. */
static char *event_text(uint64_t id, const char *name, const json_t *data)
{
	_free_ char *json = json_dumps(data, JSON_COMPACT | JSON_ENCODE_ANY);
	_free_ char *line = id ? xasprintf("id: %llu\n", (unsigned long long)id) : xstrdup("");
	_free_ char *event = xasprintf("%sevent: %s\ndata: %s\n\n", line, name, json ? json : "null");

	return xasprintf("%zx\r\n%s\r\n", strlen(event), event);
}

void http_stream_event(struct http_stream *st, uint64_t id, const char *name, const json_t *data)
{
	_free_ char *text = event_text(id, name, data);

	send_bounded(st, text, strlen(text));
}

void stream_keep_alive(struct http_stream *st)
{
	static const char comment[] = "3\r\n:\n\n\r\n";

	if (!st || st->raw)
		return;
	http_conn_deadline(st->conn, st->conn->server->o.limits.alive_ns);
	send_bounded(st, comment, sizeof(comment) - 1);
}

/* ---- raw streams ---- */

struct http_stream *http_stream_raw(struct http_call *call, const struct http_stream_ops *ops, void *arg)
{
	const char *protocol = call->route->response;
	const char *asked = http_call_header(call, "Upgrade");
	_free_ char *head =
		xasprintf("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol);
	struct http_stream *st;

	if (!call->head.upgrade || !asked || strcasecmp(asked, protocol) != 0) {
		_free_ char *header = xasprintf("Upgrade: %s\r\n", protocol);

		call_refuse(call, 426, header, "this is a stream: ask for it with Connection: Upgrade and Upgrade: %s",
			    protocol);
		return NULL;
	}
	st = stream_new(call, 101, head);
	if (!st)
		return NULL;
	st->raw = true;
	st->ops = *ops;
	st->arg = arg;
	return st;
}

void http_stream_write(struct http_stream *st, const void *buf, size_t n)
{
	send_bounded(st, buf, n);
}

void http_stream_pause(struct http_stream *st, bool pause)
{
	st->paused = pause;
	http_conn_pause(st->conn, pause);
}

/* ---- a feed ---- */

struct kept {
	uint64_t id;
	char *text;
};

struct reader {
	TAILQ_ENTRY(reader) link;
	struct http_feed *feed;
	struct http_stream *stream;
};

struct http_feed {
	struct kept *ring;
	size_t size, next; /* places; the one that is written next */
	TAILQ_HEAD(, reader) readers;
};

struct http_feed *http_feed_new(size_t keep)
{
	struct http_feed *f = xcalloc(1, sizeof(*f));

	f->size = keep;
	f->ring = xcalloc(keep, sizeof(*f->ring));
	TAILQ_INIT(&f->readers);
	return f;
}

static void reader_free(struct reader *r)
{
	TAILQ_REMOVE(&r->feed->readers, r, link);
	free(r);
}

void http_feed_free(struct http_feed *f)
{
	if (!f)
		return;
	for (struct reader *r = TAILQ_FIRST(&f->readers), *next; r; r = next) {
		next = TAILQ_NEXT(r, link);
		http_stream_end(r->stream);
		free(r);
	}
	for (size_t i = 0; i < f->size; i++)
		free(f->ring[i].text);
	free(f->ring);
	free(f);
}

void http_feed_publish(struct http_feed *f, uint64_t id, const char *name, const json_t *data)
{
	char *text = event_text(id, name, data);
	struct reader *r;

	TAILQ_FOREACH(r, &f->readers, link)
	send_bounded(r->stream, text, strlen(text));
	if (!id) {
		free(text);
		return;
	}
	free(f->ring[f->next].text);
	f->ring[f->next] = (struct kept){id, text};
	f->next = (f->next + 1) % f->size;
}

static void reader_closed(void *arg)
{
	reader_free(arg);
}

/* Everything after @since, oldest first. */
static void replay(const struct http_feed *f, struct http_stream *st, uint64_t since)
{
	bool missing = since != 0;

	for (size_t i = 0; i < f->size; i++)
		if (f->ring[i].text && f->ring[i].id <= since + 1)
			missing = false;
	if (missing) {
		json_t *data = json_pack("{s:I}", "since", (json_int_t)since);

		http_stream_event(st, 0, "gap", data);
		json_decref(data);
	}
	for (size_t i = 0; i < f->size; i++) {
		const struct kept *k = &f->ring[(f->next + i) % f->size];

		if (k->text && k->id > since)
			send_bounded(st, k->text, strlen(k->text));
	}
}

void http_feed_subscribe(struct http_feed *f, struct http_call *call)
{
	bool asked = http_call_query(call, "since") || http_call_header(call, "Last-Event-ID");
	uint64_t since = http_call_since(call);
	struct reader *r = xcalloc(1, sizeof(*r));

	r->feed = f;
	r->stream = http_stream_events(call, reader_closed, r);
	if (!r->stream) {
		free(r);
		return;
	}
	TAILQ_INSERT_TAIL(&f->readers, r, link);
	if (asked)
		replay(f, r->stream, since);
}
