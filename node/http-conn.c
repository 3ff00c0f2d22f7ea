/* SPDX-License-Identifier: Apache-2.0 */
/* One connection: requests in, answers out, and a deadline on everything that the client can make slow.
 *
 * Theory of operation
 *
 * A connection is a libevent bufferevent, over TLS or over the unix socket, and a state (enum conn_state). conn_run()
 * takes what has arrived and makes steps until nothing can be done without more input: it is called when bytes come,
 * when the output has drained, and when an answer comes that was not given at once. One request is worked on at a time;
 * others that the client has sent already wait in the input buffer, which is bounded by its high watermark, so that TCP
 * holds the client back.
 *
 * libevent's own HTTP server is not used. It has no cap on connections, keeps a request whose client has left for as
 * long as its stream is not ended, serves plaintext on the port of HTTPS when the callback that should make the TLS
 * bufferevent fails, and bounds no time but one. Here a connection that cannot have TLS is closed; a stream ends with
 * its connection; and each state has a deadline, one timer per connection.
 *
 * Callbacks of bufferevents are deferred (BEV_OPT_DEFER_CALLBACKS): writing never calls back into us, so a connection
 * only disappears in http_conn_close(), and while conn_run() is at work (busy) only its memory's end is put off.
 */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <netdb.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/tls-cert.h"
#include "node/http-int.h"

#define IN_HIGH (64U << 10)   /* more than a head, so that a whole one fits */
#define OUT_HIGH (256U << 10) /* answers to pipelined requests that may wait for a slow reader */
#define LINGER_NS (2 * NS_PER_S)

static void conn_run(struct http_conn *c);

/* ---- closing ---- */

static void conn_free(struct http_conn *c)
{
	free(c->text);
	free(c);
}

static void bev_free(struct bufferevent *bev)
{
	SSL *ssl = bufferevent_openssl_get_ssl(bev);

	if (ssl && SSL_is_init_finished(ssl) && !(SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN)) {
		SSL_shutdown(ssl); /* close_notify, if the socket takes it; the answer is not waited for */
		ERR_clear_error();
	}
	bufferevent_free(bev);
}

void http_conn_close(struct http_conn *c)
{
	struct http_server *s = c->server;
	struct http_stream *st = steal_ptr(c->stream);

	if (c->dead)
		return;
	c->dead = true;
	c->busy++;
	if (c->call)
		call_detach(steal_ptr(c->call));
	if (st)
		stream_closed(st);
	c->busy--;
	bev_free(c->bev);
	loop_timer_free(c->timer);
	http_peers_leave(c->peer);
	TAILQ_REMOVE(&s->conns, c, of_all);
	if (!c->proven)
		TAILQ_REMOVE(&s->unproven, c, of_unproven);
	*(c->local ? &s->n_local : &s->n_tls) -= 1;
	if (!c->busy)
		conn_free(c);
}

void http_conn_proven(struct http_conn *c)
{
	if (!c->proven)
		TAILQ_REMOVE(&c->server->unproven, c, of_unproven);
	c->proven = true;
}

void http_conn_cut(struct http_conn *c)
{
	c->state = CONN_CUT;
	http_conn_deadline(c, 0);
}

void http_conn_finish(struct http_conn *c)
{
	c->state = CONN_CLOSING;
	http_conn_deadline(c, c->server->o.limits.write_ns);
	if (!c->eof)
		bufferevent_enable(c->bev, EV_READ);
	if (!c->busy)
		conn_run(c);
}

/* The last answer is out. */
static void linger(struct http_conn *c)
{
	SSL *ssl = bufferevent_openssl_get_ssl(c->bev);

	if (c->eof) {
		http_conn_close(c);
		return;
	}
	c->state = CONN_LINGER;
	http_conn_deadline(c, LINGER_NS);
	if (ssl)
		SSL_shutdown(ssl);
	ERR_clear_error();
	shutdown(bufferevent_getfd(c->bev), SHUT_WR);
}

/* ---- output ---- */

void http_conn_deadline(struct http_conn *c, int64_t after_ns)
{
	loop_timer_set(c->timer, after_ns);
}

size_t http_conn_backlog(const struct http_conn *c)
{
	return evbuffer_get_length(bufferevent_get_output(c->bev));
}

void http_conn_output(struct http_conn *c, const void *buf, size_t n)
{
	if (bufferevent_write(c->bev, buf, n) < 0)
		abort();
}

void http_conn_pause(struct http_conn *c, bool pause)
{
	if (pause) {
		bufferevent_disable(c->bev, EV_READ);
		return;
	}
	bufferevent_enable(c->bev, EV_READ);
	bufferevent_trigger(c->bev, EV_READ, 0); /* what came before the pause */
}

/* Wait for the next request. */
static void enter_head(struct http_conn *c)
{
	const struct http_limits *l = &c->server->o.limits;

	c->state = CONN_HEAD;
	c->scanned = 0;
	free(steal_ptr(c->text));
	c->text_size = c->text_room = 0;
	http_conn_deadline(c, http_conn_backlog(c) ? l->write_ns : l->idle_ns);
}

void http_conn_answer(struct http_conn *c, int status, const char *type, const char *headers, const char *body,
		      size_t size)
{
	bool whole = c->state == CONN_HANDLER || c->body.done; /* nothing of the request is still to come */
	_free_ char *head = NULL;

	c->keep = c->keep && whole && !c->eof;
	head = xasprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
			 "X-Content-Type-Options: nosniff\r\nConnection: %s\r\n%s\r\n",
			 status, http_status_text(status), type, size, c->keep ? "keep-alive" : "close",
			 headers ? headers : "");
	http_conn_output(c, head, strlen(head));
	http_conn_output(c, body, size);
	if (!c->keep) {
		http_conn_finish(c);
		return;
	}
	enter_head(c);
	if (!c->busy)
		conn_run(c);
}

void http_conn_start_stream(struct http_conn *c, const char *head)
{
	http_conn_output(c, head, strlen(head));
	c->state = CONN_STREAM;
	http_conn_deadline(c, -1);
}

/* ---- input ---- */

/* An answer to something that is no request. */
static void refuse(struct http_conn *c, int status, const char *message)
{
	json_t *error = error_json(status == 408 ? "timeout" : "protocol", message, NULL);
	_free_ char *text = json_dumps(error, JSON_COMPACT);

	json_decref(error);
	c->keep = false;
	http_conn_answer(c, status, "application/json", NULL, text, strlen(text));
}

static bool step_head(struct http_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	size_t size = evbuffer_get_length(in), n;
	struct http_head head = {0};
	struct err e = ERR_INIT;
	const char *data;

	if (!size || http_conn_backlog(c) > OUT_HIGH)
		return false;
	if (!c->scanned && c->asked) /* the first head's time runs from accept */
		http_conn_deadline(c, c->server->o.limits.first_ns);
	size = size < HTTP_HEAD_MAX ? size : HTTP_HEAD_MAX;
	data = (const char *)evbuffer_pullup(in, (ev_ssize_t)size);
	n = http_head_length(data, size, &c->scanned);
	if (!n && size == HTTP_HEAD_MAX)
		refuse(c, 431, "the request's head is larger than 16 KiB");
	if (!n)
		return false;
	if (http_head_parse_request(data, n, &head, &e) < 0) {
		refuse(c, 400, e.text);
		return false;
	}
	evbuffer_drain(in, n);
	http_body_start(&c->body, &head);
	c->keep = head.keep_alive;
	c->asked = true;
	call_begin(c, &head);
	return true;
}

/* Room for @more bytes of a body whose bound was checked. */
static void text_grow(struct http_conn *c, size_t more)
{
	size_t room = c->text_room ? c->text_room : 1024;
	char *grown;

	while (room < c->text_size + more + 1)
		room *= 2;
	if (room == c->text_room)
		return;
	grown = realloc(c->text, room);
	if (!grown)
		abort();
	c->text = grown;
	c->text_room = room;
}

static bool step_body(struct http_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	size_t size = evbuffer_get_contiguous_space(in), used = 0, piece_size = 0;
	const char *piece = NULL;
	struct err e = ERR_INIT;

	if (c->body.done) {
		c->state = CONN_HANDLER;
		http_conn_deadline(c, -1);
		call_dispatch(c->call, c->text ? c->text : "", c->text_size);
		return true;
	}
	if (!size)
		return false;
	if (http_body_feed(&c->body, (const char *)evbuffer_pullup(in, (ev_ssize_t)size), size, &used, &piece,
			   &piece_size, &e) < 0) {
		call_refuse(c->call, 400, NULL, "%s", e.text);
		return true;
	}
	if (piece_size > c->server->o.limits.body - c->text_size) {
		call_refuse(c->call, 413, NULL, "the body is larger than %zu bytes", c->server->o.limits.body);
		return true;
	}
	if (piece_size) {
		text_grow(c, piece_size);
		memcpy(c->text + c->text_size, piece, piece_size);
		c->text_size += piece_size;
	}
	evbuffer_drain(in, used);
	return true;
}

/* One step. True when another may follow at once. */
static bool step(struct http_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);

	switch (c->state) {
	case CONN_HEAD:
		return step_head(c);
	case CONN_BODY:
		return step_body(c);
	case CONN_STREAM:
		stream_data(c->stream, c);
		return c->state != CONN_STREAM; /* the owner has ended it */
	case CONN_CLOSING:
		evbuffer_drain(in, evbuffer_get_length(in));
		if (!http_conn_backlog(c))
			linger(c);
		return false;
	case CONN_CUT:
	case CONN_LINGER:
		evbuffer_drain(in, evbuffer_get_length(in));
		return false;
	case CONN_HANDLER:
		return false;
	}
	return false;
}

static void conn_run(struct http_conn *c)
{
	c->busy++;
	while (!c->dead && step(c))
		;
	c->busy--;
	if (c->dead && !c->busy)
		conn_free(c);
}

/* ---- events ---- */

static void on_read(struct bufferevent *bev, void *arg)
{
	(void)bev;
	conn_run(arg);
}

static void on_drained(struct bufferevent *bev, void *arg)
{
	struct http_conn *c = arg;

	(void)bev;
	if (http_conn_backlog(c))
		return; /* libevent calls back later: what it says was so before the newest answer */
	if (c->state == CONN_HEAD && !c->scanned)
		http_conn_deadline(c, c->server->o.limits.idle_ns);
	if (c->state == CONN_STREAM)
		stream_drained(c->stream);
	else
		conn_run(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct http_conn *c = arg;

	(void)bev;
	if (what & BEV_EVENT_CONNECTED)
		return; /* the handshake is done; the deadline for the first head goes on */
	if (c->peer && !SSL_is_init_finished(bufferevent_openssl_get_ssl(c->bev)))
		server_refused(c->server, "handshake");
	ERR_clear_error();
	/* The client has said all it will say: it still gets the answers that are on their way. */
	if ((what & BEV_EVENT_EOF) && !c->eof && (c->state == CONN_HEAD || c->state == CONN_CLOSING) &&
	    http_conn_backlog(c)) {
		c->eof = true;
		http_conn_finish(c);
		return;
	}
	http_conn_close(c);
}

static void on_timeout(void *arg)
{
	struct http_conn *c = arg;

	if (c->state == CONN_STREAM) {
		stream_keep_alive(c->stream);
		return;
	}
	if (c->state == CONN_BODY) {
		server_refused(c->server, "slow");
		call_refuse(c->call, 408, NULL, "the request's body did not come in time");
		return;
	}
	if (c->state == CONN_HEAD && (c->scanned || !c->proven))
		server_refused(c->server, "slow");
	http_conn_close(c);
}

/* ---- accepting ---- */

/* Make room for one more connection: by the oldest that has not shown yet that it may be here, or by one that is idle.
 */
static bool make_room(struct http_server *s)
{
	struct http_conn *c;

	TAILQ_FOREACH(c, &s->unproven, of_unproven)
	if (c->state != CONN_HANDLER)
		break;
	if (!c)
		TAILQ_FOREACH(c, &s->conns, of_all)
	if (!c->local && c->state == CONN_HEAD && !c->scanned && !http_conn_backlog(c))
		break;
	if (!c)
		return false;
	server_refused(s, "evicted");
	http_conn_close(c);
	return true;
}

/* The bufferevent of a new connection; NULL when there is none to be had. Never one without TLS for the port of TLS. */
static struct bufferevent *bev_new(struct http_server *s, int fd, bool tls)
{
	int options = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS;
	SSL *ssl;

	if (!tls)
		return bufferevent_socket_new(loop_base(s->o.loop), fd, options);
	ssl = SSL_new(s->ssl_ctx);
	if (!ssl)
		return NULL;
	return bufferevent_openssl_socket_new(loop_base(s->o.loop), fd, ssl, BUFFEREVENT_SSL_ACCEPTING, options);
}

static struct http_conn *conn_new(struct http_server *s, struct bufferevent *bev, bool local)
{
	struct http_conn *c = xcalloc(1, sizeof(*c));

	c->server = s;
	c->bev = bev;
	c->local = local;
	c->proven = local;
	c->timer = loop_timer_add(s->o.loop, s->o.limits.first_ns, 0, on_timeout, c);
	TAILQ_INSERT_TAIL(&s->conns, c, of_all);
	if (!local)
		TAILQ_INSERT_TAIL(&s->unproven, c, of_unproven);
	*(local ? &s->n_local : &s->n_tls) += 1;
	bufferevent_setcb(bev, on_read, on_drained, on_event, c);
	bufferevent_setwatermark(bev, EV_READ, 0, IN_HIGH);
	return c;
}

static void name_peer(struct http_conn *c, const struct sockaddr *sa)
{
	socklen_t size = sa->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);

	if (getnameinfo(sa, size, c->from, sizeof(c->from), NULL, 0, NI_NUMERICHOST) != 0)
		snprintf(c->from, sizeof(c->from), "unknown");
}

void http_conn_accept(struct http_server *s, int fd, const struct sockaddr *sa)
{
	struct http_peer *peer = sa ? http_peers_enter(s->peers, sa, clock_now_ns()) : NULL;
	struct bufferevent *bev = NULL;
	struct http_conn *c;

	if (sa && !peer)
		server_refused(s, "address");
	else if (sa ? s->n_tls >= s->o.limits.connections && !make_room(s) : s->n_local >= s->o.limits.local)
		server_refused(s, "cap");
	else if (!(bev = bev_new(s, fd, sa != NULL)))
		server_refused(s, "memory");
	if (!bev) {
		http_peers_leave(peer);
		ERR_clear_error();
		close(fd);
		return;
	}
	c = conn_new(s, bev, !sa);
	c->peer = peer;
	if (sa)
		name_peer(c, sa);
	else
		auth_read_peer(c, fd);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
}
