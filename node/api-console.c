/* SPDX-License-Identifier: Apache-2.0 */
/* A guest's serial console over the API: here from its socket, elsewhere through the API of the host that has it.
 *
 * Both ways end in a stream socket that the loop copies to and from the client. For a guest of another host a thread
 * asks that host for the same route and copies between the TLS connection and the other end of a socket pair; it ends
 * when either side does. A side that takes nothing keeps the other one from being read, so neither fills our memory.
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/util.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/http-client.h"
#include "base/mem.h"
#include "base/sock.h"
#include "cluster/state.h"
#include "hv/vm.h"
#include "node/api-int.h"

#define PROTOCOL "godwit-console"
#define PIECE 16384
#define BACKLOG_HIGH (256U << 10) /* bytes on their way to one side; then the other one waits */
#define PATIENCE (10 * NS_PER_S)

/* ---- the client and a socket ---- */

struct console {
	struct http_stream *stream;
	struct bufferevent *socket;
};

static void console_free(struct console *c)
{
	if (c->socket)
		bufferevent_free(c->socket);
	free(c);
}

static void client_data(void *arg, const void *buf, size_t n)
{
	struct console *c = arg;

	bufferevent_write(c->socket, buf, n);
	if (evbuffer_get_length(bufferevent_get_output(c->socket)) > BACKLOG_HIGH)
		http_stream_pause(c->stream, true);
}

static void client_drained(void *arg)
{
	struct console *c = arg;

	bufferevent_enable(c->socket, EV_READ);
}

static void client_closed(void *arg)
{
	console_free(arg);
}

static void socket_data(struct bufferevent *bev, void *arg)
{
	struct console *c = arg;
	struct evbuffer *in = bufferevent_get_input(bev);
	char piece[PIECE];
	int n;

	while ((n = evbuffer_remove(in, piece, sizeof(piece))) > 0)
		http_stream_write(c->stream, piece, (size_t)n);
	if (http_stream_backlog(c->stream) > BACKLOG_HIGH)
		bufferevent_disable(bev, EV_READ);
}

static void socket_drained(struct bufferevent *bev, void *arg)
{
	struct console *c = arg;

	(void)bev;
	http_stream_pause(c->stream, false);
}

static void socket_event(struct bufferevent *bev, short what, void *arg)
{
	struct console *c = arg;

	(void)bev;
	if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)))
		return;
	http_stream_end(c->stream);
	console_free(c);
}

/* Join the caller to @fd, which is taken. */
static void console_open(struct daemon *d, struct http_call *call, int fd)
{
	static const struct http_stream_ops ops = {client_data, client_drained, client_closed};
	struct console *c = xcalloc(1, sizeof(*c));

	evutil_make_socket_nonblocking(fd);
	c->socket = bufferevent_socket_new(loop_base(d->loop), fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (!c->socket)
		abort();
	c->stream = http_stream_raw(call, &ops, c);
	if (!c->stream) {
		console_free(c);
		return;
	}
	bufferevent_setcb(c->socket, socket_data, socket_drained, socket_event, c);
	bufferevent_setwatermark(c->socket, EV_READ, 0, BACKLOG_HIGH);
	bufferevent_enable(c->socket, EV_READ | EV_WRITE);
}

/* ---- another host ---- */

struct relay {
	struct daemon *d;
	struct http_call *call;
	struct loop *loop;
	char *vm, *address, *tls_dir, *target;
	int fd; /* the thread's end of the pair */
	int loop_fd;
	struct err e;
};

static void relay_free(struct relay *r)
{
	mem_closep(&r->fd);
	mem_closep(&r->loop_fd);
	free(r->vm);
	free(r->address);
	free(r->tls_dir);
	free(r->target);
	free(r);
}

static void on_relay_open(void *arg)
{
	struct relay *r = arg;

	if (r->e.code)
		api_refuse(r->call, &r->e, r->vm);
	else
		console_open(r->d, r->call, steal_fd(&r->loop_fd));
	relay_free(r);
}

/* Copy what one side has. False at an end. */
static bool from_peer(const struct terminal_peer *peer, int fd)
{
	char piece[PIECE];
	ssize_t n = peer->read(peer->arg, piece, sizeof(piece), NULL);

	return n > 0 && sock_write_full(fd, piece, (size_t)n, SOCK_FOREVER, NULL) == 0;
}

static bool to_peer(const struct terminal_peer *peer, int fd)
{
	char piece[PIECE];
	ssize_t n = recv(fd, piece, sizeof(piece), 0);

	return n > 0 && peer->write(peer->arg, piece, (size_t)n, NULL) == 0;
}

static void copy(const struct terminal_peer *peer, int fd)
{
	bool on = true;

	while (on) {
		bool pending = peer->pending && peer->pending(peer->arg);
		struct pollfd p[2] = {{.fd = peer->fd, .events = POLLIN}, {.fd = fd, .events = POLLIN}};

		if (poll(p, 2, pending ? 0 : -1) < 0)
			return;
		if (pending || p[0].revents)
			on = from_peer(peer, fd);
		if (on && p[1].revents)
			on = to_peer(peer, fd);
	}
}

static void *relay_run(void *arg)
{
	struct relay *r = arg;
	struct http_client_options o = {.address = r->address, .tls_dir = r->tls_dir};
	struct http_client *c = http_client_new(&o, &r->e);
	struct terminal_peer peer;
	int fd = -1;

	if (c && http_client_upgrade(c, r->target, PROTOCOL, clock_now_ns() + PATIENCE, &peer, &r->e) == 0)
		fd = steal_fd(&r->fd);
	else
		err_wrap(&r->e, "ask %s, where vm %s is", r->address, r->vm);
	loop_call(r->loop, on_relay_open, r); /* takes r */
	if (fd >= 0)
		copy(&peer, fd);
	mem_closep(&fd);
	http_client_free(c);
	return NULL;
}

static int relay_start(struct daemon *d, struct http_call *call, const char *vm, const char *owner, struct err *e)
{
	struct relay *r = xcalloc(1, sizeof(*r));
	int pair[2];
	pthread_t thread;
	int ok = 0;

	*r = (struct relay){.d = d, .call = call, .loop = d->loop, .vm = xstrdup(vm), .fd = -1, .loop_fd = -1};
	r->address = api_peer_address(d, owner, e);
	r->tls_dir = xasprintf("%s/pki", d->opt.config_dir);
	r->target = xasprintf("/v1/vms/%s/console", vm);
	if (!r->address)
		ok = -1;
	else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		ok = err_sys(e, "vm %s: a socket for its console", vm);
	if (ok == 0) {
		r->fd = pair[0];
		r->loop_fd = pair[1];
		if (pthread_create(&thread, NULL, relay_run, r) != 0)
			ok = err_set(e, ERR_UNAVAILABLE, "vm %s: no thread for its console; try again later", vm);
	}
	if (ok == 0)
		pthread_detach(thread);
	else
		relay_free(r);
	return ok;
}

/* ---- the route ---- */

static int console_here(struct daemon *d, struct http_call *call, const char *name, struct err *e)
{
	_free_ char *path = xasprintf("%s/%s/" VM_CONSOLE_SOCK, d->opt.run_dir, name);
	int fd = sock_unix_connect(path, e);

	if (fd < 0)
		return err_wrap(e, "vm %s: its console does not answer", name);
	console_open(d, call, fd);
	return 0;
}

static int console_find(struct daemon *d, struct http_call *call, const char *name, const json_t *vm, struct err *e)
{
	const char *owner = api_text(vm, "owner"), *status = api_text(vm, "status");

	if (strcmp(status, "running") != 0 && strcmp(status, "paused") != 0 && strcmp(status, "stopping") != 0)
		return err_set(e, ERR_CONFLICT, "vm %s: has no console while it is %s; start it first", name,
			       *status ? status : "not reported by its node");
	if (!strcmp(owner, d->identity.node))
		return console_here(d, call, name, e);
	if (!strncmp(http_call_identity(call)->name, "node ", 5))
		return err_set(e, ERR_CONFLICT, "vm %s: is on node %s by now; ask again", name, owner);
	return relay_start(d, call, name, owner, e);
}

static void on_vm_console(struct daemon *d, struct http_call *call)
{
	const char *name = http_call_param(call, "name");
	struct err e = ERR_INIT;
	json_t *vm = state_vm_get(replica_db(d->replica), name, &e);

	if (!vm || console_find(d, call, name, vm, &e) < 0)
		api_refuse(call, &e, name);
	json_decref(vm);
}

const struct api_handler api_console_handlers[] = {
	{.operation = "vm_console", .handle = on_vm_console, .object = "name"},
	{0},
};
