/* SPDX-License-Identifier: Apache-2.0 */
/* Whether addresses accept connections.
 *
 * Each address that somebody has asked about lately is tried every second: its name is looked up (getaddrinfo_a(3),
 * which does not wait), and a connection is begun and closed as soon as it is there. A try that has no answer when the
 * next one is due counts as none.
 */
#include "node/ports.h"

#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define TRY_EVERY NS_PER_S
#define FORGET_AFTER (10 * NS_PER_S)

struct port {
	struct port *next;
	char *address, *host, *service;
	int64_t asked_ns;
	bool answers;
	bool looking; /* the name is being looked up */
	struct gaicb lookup;
	struct addrinfo hints;
	int fd; /* being connected; -1 */
	struct loop_io *io;
};

struct ports {
	struct loop *loop;
	struct loop_timer *timer;
	struct port *first;
};

static void close_try(struct port *p)
{
	loop_io_free(steal_ptr(p->io));
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}

static void know(struct port *p, bool answers)
{
	if (answers != p->answers)
		log_info("event=port address=%s answers=%d", p->address, answers);
	p->answers = answers;
}

static void on_connected(void *arg, unsigned ready)
{
	struct port *p = arg;
	socklen_t size = sizeof(int);
	int error = 0;

	(void)ready;
	know(p, getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0);
	close_try(p);
}

static void begin_connect(struct ports *all, struct port *p, const struct addrinfo *to)
{
	p->fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (p->fd < 0)
		return;
	if (connect(p->fd, to->ai_addr, to->ai_addrlen) == 0) {
		know(p, true);
		close_try(p);
		return;
	}
	p->io = loop_io_add(all->loop, p->fd, LOOP_WRITE, on_connected, p);
}

static void look_up(struct port *p)
{
	struct gaicb *list[] = {&p->lookup};

	p->hints = (struct addrinfo){.ai_socktype = SOCK_STREAM};
	p->lookup = (struct gaicb){.ar_name = p->host, .ar_service = p->service, .ar_request = &p->hints};
	p->looking = getaddrinfo_a(GAI_NOWAIT, list, 1, NULL) == 0;
}

/* One turn: what is left of the last try counts as no answer. */
static void try(struct ports *all, struct port *p)
{
	int r = p->looking ? gai_error(&p->lookup) : EAI_AGAIN;

	if (p->fd >= 0) {
		close_try(p);
		know(p, false);
	}
	if (p->looking && r == EAI_INPROGRESS)
		return;
	if (p->looking && r == 0 && p->lookup.ar_result)
		begin_connect(all, p, p->lookup.ar_result);
	else if (p->looking)
		know(p, false);
	if (p->lookup.ar_result)
		freeaddrinfo(p->lookup.ar_result);
	look_up(p);
}

/* A look-up that cannot be called back keeps what it writes to. */
static void port_free(struct port *p)
{
	close_try(p);
	if (p->looking && gai_error(&p->lookup) == EAI_INPROGRESS && gai_cancel(&p->lookup) != EAI_CANCELED)
		return;
	if (p->lookup.ar_result)
		freeaddrinfo(p->lookup.ar_result);
	free(p->address);
	free(p->host);
	free(p->service);
	free(p);
}

static void turn(void *arg)
{
	struct ports *all = arg;
	struct port **at = &all->first;

	while (*at) {
		struct port *p = *at;

		if (clock_now_ns() > p->asked_ns + FORGET_AFTER) {
			*at = p->next;
			port_free(p);
			continue;
		}
		try(all, p);
		at = &p->next;
	}
	loop_timer_set(all->timer, all->first ? TRY_EVERY : -1);
}

/* "[fd00::5]:80" and "db:80"; the state has checked that it is one of them. */
static struct port *port_new(const char *address)
{
	struct port *p = xcalloc(1, sizeof(*p));
	const char *colon = strrchr(address, ':');
	bool brackets = address[0] == '[' && colon && colon > address + 1 && colon[-1] == ']';

	p->address = xstrdup(address);
	p->service = xstrdup(colon ? colon + 1 : "");
	p->host = !colon     ? xstrdup(address)
		  : brackets ? xasprintf("%.*s", (int)(colon - address - 2), address + 1)
			     : xasprintf("%.*s", (int)(colon - address), address);
	p->fd = -1;
	return p;
}

bool ports_answers(struct ports *all, const char *address)
{
	struct port *p = all->first;

	while (p && strcmp(p->address, address) != 0)
		p = p->next;
	if (!p) {
		p = port_new(address);
		p->next = all->first;
		all->first = p;
		look_up(p);
		loop_timer_set(all->timer, TRY_EVERY / 10);
	}
	p->asked_ns = clock_now_ns();
	return p->answers;
}

struct ports *ports_new(struct loop *loop)
{
	struct ports *all = xcalloc(1, sizeof(*all));

	all->loop = loop;
	all->timer = loop_timer_add(loop, -1, 0, turn, all);
	return all;
}

void ports_free(struct ports *all)
{
	if (!all)
		return;
	while (all->first) {
		struct port *p = all->first;

		all->first = p->next;
		port_free(p);
	}
	loop_timer_free(all->timer);
	free(all);
}
