/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop, on libevent. */
#include "base/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

struct call {
	loop_fn *fn;
	void *arg;
	struct call *next;
};

struct loop {
	struct event_base *base;
	struct event *calls_event;
	int calls_fd;          /* eventfd: there are calls */
	pthread_mutex_t mutex; /* guards the list */
	struct call *calls;
	struct call **calls_end;
};

struct loop_io {
	struct event *event;
	struct loop *loop;
	loop_io_fn *fn;
	void *arg;
};

struct loop_timer {
	struct event *event;
	int64_t repeat_ns;
	loop_fn *fn;
	void *arg;
};

struct loop_signal {
	struct event *event;
	loop_fn *fn;
	void *arg;
};

struct loop_child {
	struct event *event;
	loop_fn *fn;
	void *arg;
};

static struct timeval timeval_of(int64_t ns)
{
	ns = ns < 0 ? 0 : ns;
	return (struct timeval){.tv_sec = ns / NS_PER_S, .tv_usec = ns % NS_PER_S / 1000};
}

static struct event *event_make(struct loop *l, int fd, short what, event_callback_fn fn, void *arg)
{
	struct event *ev = event_new(l->base, fd, what, fn, arg);

	if (!ev)
		abort();
	return ev;
}

static void event_arm(struct event *ev, const struct timeval *after)
{
	if (event_add(ev, after) < 0)
		abort();
}

/* ---- calls ---- */

static struct call *calls_take(struct loop *l)
{
	struct call *list;

	pthread_mutex_lock(&l->mutex);
	list = steal_ptr(l->calls);
	l->calls_end = &l->calls;
	pthread_mutex_unlock(&l->mutex);
	return list;
}

/* Makes the calls that wait now. Those that they ask for wait for the next turn, so that descriptors get theirs. */
static void on_calls(int fd, short what, void *arg)
{
	struct loop *l = arg;
	uint64_t count;

	(void)what;
	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		abort();
	for (struct call *c = calls_take(l), *next; c; c = next) {
		next = c->next;
		c->fn(c->arg);
		free(c);
	}
}

void loop_call(struct loop *l, loop_fn *fn, void *arg)
{
	struct call *c = xcalloc(1, sizeof(*c));
	uint64_t one = 1;
	bool first;

	c->fn = fn;
	c->arg = arg;
	pthread_mutex_lock(&l->mutex);
	first = !l->calls;
	*l->calls_end = c;
	l->calls_end = &c->next;
	pthread_mutex_unlock(&l->mutex);
	if (first && write(l->calls_fd, &one, sizeof(one)) < 0)
		abort();
}

void loop_defer(struct loop *l, loop_fn *fn, void *arg)
{
	loop_call(l, fn, arg);
}

/* ---- the loop ---- */

struct loop *loop_new(void)
{
	struct loop *l = xcalloc(1, sizeof(*l));
	struct event_config *config = event_config_new();

	if (!config)
		abort();
	/* Coarse time would make every timer up to 4 ms late. */
	event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER | EVENT_BASE_FLAG_NOLOCK);
	l->base = event_base_new_with_config(config);
	event_config_free(config);
	l->calls_end = &l->calls;
	pthread_mutex_init(&l->mutex, NULL);
	l->calls_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!l->base || l->calls_fd < 0)
		abort();
	l->calls_event = event_make(l, l->calls_fd, EV_READ | EV_PERSIST, on_calls, l);
	event_arm(l->calls_event, NULL);
	return l;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	for (struct call *c = calls_take(l), *next; c; c = next) {
		next = c->next;
		free(c);
	}
	event_free(l->calls_event);
	event_base_loop(l->base, EVLOOP_NONBLOCK); /* bufferevents finish being freed in the loop */
	event_base_free(l->base);
	close(l->calls_fd);
	pthread_mutex_destroy(&l->mutex);
	free(l);
}

int loop_run(struct loop *l)
{
	return event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY) < 0 ? -1 : 0;
}

void loop_stop(struct loop *l)
{
	event_base_loopbreak(l->base);
}

struct event_base *loop_base(struct loop *l)
{
	return l->base;
}

/* ---- descriptors ---- */

static void on_io(int fd, short what, void *arg)
{
	struct loop_io *io = arg;

	(void)fd;
	io->fn(io->arg, (what & EV_READ ? LOOP_READ : 0) | (what & EV_WRITE ? LOOP_WRITE : 0));
}

struct loop_io *loop_io_add(struct loop *l, int fd, unsigned events, loop_io_fn *fn, void *arg)
{
	struct loop_io *io = xcalloc(1, sizeof(*io));

	io->loop = l;
	io->fn = fn;
	io->arg = arg;
	io->event = event_make(l, fd, EV_READ | EV_PERSIST, on_io, io);
	loop_io_set(io, events);
	return io;
}

void loop_io_set(struct loop_io *io, unsigned events)
{
	short what = EV_PERSIST;
	int fd = event_get_fd(io->event);

	what |= events & LOOP_READ ? EV_READ : 0;
	what |= events & LOOP_WRITE ? EV_WRITE : 0;
	event_del(io->event);
	if (!(events & (LOOP_READ | LOOP_WRITE)))
		return;
	if (event_assign(io->event, io->loop->base, fd, what, on_io, io) < 0)
		abort();
	event_arm(io->event, NULL);
}

void loop_io_free(struct loop_io *io)
{
	if (!io)
		return;
	event_free(io->event);
	free(io);
}

/* ---- timers ---- */

static void on_timer(int fd, short what, void *arg)
{
	struct loop_timer *t = arg;

	(void)fd;
	(void)what;
	if (t->repeat_ns > 0)
		loop_timer_set(t, t->repeat_ns);
	t->fn(t->arg);
}

struct loop_timer *loop_timer_add(struct loop *l, int64_t after_ns, int64_t repeat_ns, loop_fn *fn, void *arg)
{
	struct loop_timer *t = xcalloc(1, sizeof(*t));

	t->repeat_ns = repeat_ns;
	t->fn = fn;
	t->arg = arg;
	t->event = event_make(l, -1, 0, on_timer, t);
	loop_timer_set(t, after_ns);
	return t;
}

void loop_timer_set(struct loop_timer *t, int64_t after_ns)
{
	struct timeval after = timeval_of(after_ns);

	event_del(t->event);
	if (after_ns >= 0)
		event_arm(t->event, &after);
}

void loop_timer_free(struct loop_timer *t)
{
	if (!t)
		return;
	event_free(t->event);
	free(t);
}

/* ---- signals and children ---- */

static void on_signal(int signum, short what, void *arg)
{
	struct loop_signal *s = arg;

	(void)signum;
	(void)what;
	s->fn(s->arg);
}

struct loop_signal *loop_signal_add(struct loop *l, int signum, loop_fn *fn, void *arg)
{
	struct loop_signal *s = xcalloc(1, sizeof(*s));

	s->fn = fn;
	s->arg = arg;
	s->event = event_make(l, signum, EV_SIGNAL | EV_PERSIST, on_signal, s);
	event_arm(s->event, NULL);
	return s;
}

void loop_signal_free(struct loop_signal *s)
{
	if (!s)
		return;
	event_free(s->event);
	free(s);
}

static void on_child(int fd, short what, void *arg)
{
	struct loop_child *c = arg;

	(void)fd;
	(void)what;
	c->fn(c->arg);
}

struct loop_child *loop_child_add(struct loop *l, int pidfd, loop_fn *fn, void *arg)
{
	struct loop_child *c = xcalloc(1, sizeof(*c));

	c->fn = fn;
	c->arg = arg;
	c->event = event_make(l, pidfd, EV_READ, on_child, c);
	event_arm(c->event, NULL);
	return c;
}

void loop_child_free(struct loop_child *c)
{
	if (!c)
		return;
	event_free(c->event);
	free(c);
}
