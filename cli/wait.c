/* SPDX-License-Identifier: Apache-2.0 */
/* Following a long action to its end.
 *
 * The daemon is asked for the task every second; what happens in between (the progress of a copy) comes as server-sent
 * events over a connection of its own. Events are only ever shown: what counts is what the daemon answers about the
 * task, so losing them, or not getting any, costs a jerky bar.
 *
 * Signals that would end us are blocked and read from a descriptor that also ends every wait on a socket.
 */
#include "cli/wait.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/http-client.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/text.h"
#include "cli/progress.h"
#include "cli/request.h"

#define ASK_NS NS_PER_S
#define ASK_ALONE_NS (NS_PER_S / 4) /* without events */
#define LISTEN_AGAIN_NS (3 * NS_PER_S)
#define LOST_NS (60 * NS_PER_S) /* a daemon that is not there for so long is given up */

struct wait {
	struct cli *c;
	char *task; /* its id */
	char *target;
	const char *moving;
	char *migration; /* its id, once it is known */
	struct http_client *events;
	int64_t listen_ns; /* not before that again */
	json_t *last;      /* the newest task */
	int64_t lost_ns;
	unsigned interrupts;
	sigset_t old_mask;
	int signal_fd;
	int64_t begun_ns;
	struct progress p;
	char *step;
	int drawn; /* columns of the bar on the terminal */
};

/* ---- showing ---- */

static void bar_wipe(struct wait *w)
{
	if (w->drawn)
		fprintf(w->c->io->err, "\r%*s\r", w->drawn, "");
	fflush(w->c->io->err);
	w->drawn = 0;
}

static void say(struct wait *w, const char *text)
{
	_free_ char *safe = text_clean(text);

	if (w->c->json)
		return;
	bar_wipe(w);
	fprintf(w->c->io->err, "%s\n", safe);
	fflush(w->c->io->err);
}

static void bar_draw(struct wait *w)
{
	char line[PROGRESS_LINE_MAX];
	int length;

	if (!w->c->io->err_tty || w->c->json)
		return;
	w->p.step = w->step ? w->step : "";
	w->p.elapsed_ns = clock_now_ns() - w->begun_ns;
	progress_line(line, &w->p, w->c->io->columns);
	length = (int)strlen(line);
	fprintf(w->c->io->err, "\r%s%*s", line, w->drawn > length ? w->drawn - length : 0, "");
	fflush(w->c->io->err);
	w->drawn = length > w->drawn ? length : w->drawn;
}

/* The step has a new name: a line of its own where there is no bar. */
static void step_set(struct wait *w, const char *step)
{
	_free_ char *line = NULL;

	if (!step || (w->step && strcmp(step, w->step) == 0))
		return;
	free(w->step);
	w->step = text_clean(step);
	line = xasprintf("%s: %s", w->p.what, w->step);
	if (!w->c->io->err_tty)
		say(w, line);
}

static double number_of(const json_t *o, const char *key, double otherwise)
{
	const json_t *v = json_object_get(o, key);

	return json_is_number(v) ? json_number_value(v) : otherwise;
}

/* Take over what @o says of how far it is: a task, a migration, or the data of an event. */
static void progress_take(struct wait *w, const json_t *o)
{
	double eta = number_of(o, "eta_ms", -1);

	w->p.done = number_of(o, "progress", w->p.done);
	if (!w->moving && w->p.done <= 0) /* a task that does not count its steps */
		w->p.done = -1;
	if (json_is_number(json_object_get(o, "eta_ms")))
		w->p.eta_ns = eta >= 0 && eta < 1e12 ? (int64_t)(eta * NS_PER_MS) : -1;
	w->p.wire_rate = number_of(o, "wire_rate", w->p.wire_rate);
	w->p.dirty_rate = number_of(o, "dirty_rate", w->p.dirty_rate);
	w->p.remaining = number_of(o, "remaining", w->p.remaining);
	if (json_is_string(json_object_get(o, "step")))
		step_set(w, json_string_value(json_object_get(o, "step")));
	else
		step_set(w, json_string_value(json_object_get(o, "note")));
}

/* ---- events ---- */

static bool is_ours(const struct wait *w, const json_t *o)
{
	static const char *const names[] = {"id", "task", "migration", "object"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *id = json_string_value(json_object_get(o, names[i]));

		if (id && (strcmp(id, w->task) == 0 || (w->migration && strcmp(id, w->migration) == 0)))
			return true;
	}
	if (w->moving && json_is_number(json_object_get(o, "progress"))) {
		const char *vm = json_string_value(json_object_get(o, "vm"));

		return vm && strcmp(vm, w->moving) == 0;
	}
	return false;
}

/* Something that happened. True when the daemon had best be asked now. */
static bool event_take(struct wait *w, const struct http_event *ev)
{
	json_t *o = json_loads(ev->data, 0, NULL);
	json_t *data = json_object_get(o, "data");
	bool ours = is_ours(w, o) || is_ours(w, data);
	const char *state = json_string_value(json_object_get(json_is_object(data) ? data : o, "state"));
	bool ended = ours && state && strcmp(state, "queued") != 0 && strcmp(state, "running") != 0;

	if (ours)
		progress_take(w, json_is_object(data) ? data : o);
	json_decref(o);
	return ended;
}

static void events_end(struct wait *w)
{
	http_client_free(w->events);
	w->events = NULL;
}

/* Listen, where that was not tried in vain just now. */
static void events_begin(struct wait *w)
{
	struct err e = ERR_INIT;

	if (w->events || w->lost_ns || clock_now_ns() < w->listen_ns)
		return;
	w->listen_ns = clock_now_ns() + LISTEN_AGAIN_NS;
	if (request_client(w->c, &w->events, &e) == 0 &&
	    http_client_listen(w->events, "/v1/events", clock_now_ns() + ASK_NS, &e) < 0)
		events_end(w);
}

/* Events until @until_ns. 0; -1 when a signal came. */
static int events_wait(struct wait *w, int64_t until_ns)
{
	while (w->events) {
		struct err e = ERR_INIT;
		struct http_event ev;
		bool ended, ask;
		int r = http_client_event(w->events, until_ns, &ev, &ended, &e);

		if (r < 0 && e.code == ERR_CANCELLED)
			return -1;
		if (r < 0 || ended)
			events_end(w);
		if (r != 1)
			break;
		ask = event_take(w, &ev);
		http_event_done(&ev);
		bar_draw(w);
		if (ask)
			return 0;
	}
	return sock_wait(w->signal_fd, POLLIN, until_ns, &(struct err){0}) == 0 ? 0 : -1;
}

/* ---- signals ---- */

static void signals_begin(struct wait *w)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, &w->old_mask);
	w->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	sock_set_cancel(w->signal_fd);
}

static void signals_end(struct wait *w)
{
	sock_set_cancel(-1);
	close(w->signal_fd);
	pthread_sigmask(SIG_SETMASK, &w->old_mask, NULL);
}

static bool signal_came(struct wait *w)
{
	struct signalfd_siginfo info;

	return read(w->signal_fd, &info, sizeof(info)) == sizeof(info);
}

/* The migration of the guest that is moving. */
static int migration_find(struct wait *w, struct err *e)
{
	_free_ char *target = NULL;
	_free_ char *name = NULL;
	const char *id = json_string_value(json_object_get(w->last, "migration"));
	json_t *vm = NULL;

	if (!id && json_is_object(json_object_get(w->last, "result")))
		id = json_string_value(view_get(w->last, "result.migration"));
	if (!w->migration && id)
		w->migration = xstrdup(id);
	if (w->migration)
		return 0;
	target = request_target(w->c, "/v1/vms/{NAME}");
	if (request(w->c, "GET", target, NULL, &vm, e) < 0)
		return -1;
	id = json_string_value(json_object_get(vm, "migration"));
	if (id)
		w->migration = xstrdup(id);
	json_decref(vm);
	return id ? 0 : err_set(e, ERR_CONFLICT, "vm %s is not being moved", w->moving);
}

static void cancel_migration(struct wait *w)
{
	struct err e = ERR_INIT;
	json_t *answer = NULL, *nothing = json_object();
	_free_ char *target = NULL;
	int r = migration_find(w, &e);

	if (r == 0) {
		target = xasprintf("/v1/migrations/%s/cancel", w->migration);
		r = request(w->c, "POST", target, nothing, &answer, &e);
	}
	if (r == 0)
		say(w, "cancelling: the guest runs on where it is; Ctrl-C again leaves");
	else if (e.code != ERR_CANCELLED)
		say(w, e.text);
	json_decref(answer);
	json_decref(nothing);
}

/* What a signal means. 0 go on; -1 with @e. */
static int interrupted(struct wait *w, struct err *e)
{
	while (signal_came(w)) {
		if (!w->moving)
			return err_set(e, ERR_CANCELLED, "not waited for; it goes on: `godwit task show %s` follows it",
				       w->task);
		if (w->interrupts++)
			return err_set(e, ERR_CANCELLED,
				       "not waited for any longer; `godwit task show %s` says how it ends", w->task);
		cancel_migration(w);
	}
	return 0;
}

/* ---- asking ---- */

static bool is_ended(const json_t *task)
{
	const char *state = json_string_value(json_object_get(task, "state"));

	return state && strcmp(state, "queued") != 0 && strcmp(state, "running") != 0;
}

/* 1: it has ended; 0 not yet; -1 with @e. */
static int ask(struct wait *w, struct err *e)
{
	json_t *task = NULL;
	struct err local = ERR_INIT;
	int64_t now = clock_now_ns();
	int r = request(w->c, "GET", w->target, NULL, &task, &local);

	if (r == 0) {
		json_decref(w->last);
		w->last = task;
		w->lost_ns = 0;
		if (is_ended(task))
			return 1;
		progress_take(w, task);
		bar_draw(w);
		return 0;
	}
	if (local.code == ERR_CANCELLED)
		return 0;
	if (!w->lost_ns)
		w->lost_ns = now;
	/* A daemon that has just started may not have heard of the task yet. */
	if ((local.code != ERR_NOTFOUND && !request_may_pass(&local)) || now - w->lost_ns > LOST_NS) {
		*e = local;
		return err_wrap(e, "task %s goes on, but cannot be asked for", w->task);
	}
	return 0;
}

static int follow(struct wait *w, struct err *e)
{
	while (!is_ended(w->last)) {
		int r;

		/* First listen, then ask: what happens in between is an event. */
		events_begin(w);
		r = ask(w, e);
		if (r > 0)
			return 0;
		if (r < 0 || interrupted(w, e) < 0)
			return -1;
		if (events_wait(w, clock_now_ns() + (w->events ? ASK_NS : ASK_ALONE_NS)) < 0 && interrupted(w, e) < 0)
			return -1;
	}
	return 0;
}

int wait_task(struct cli *c, const json_t *task, const char *moving, json_t **ret, struct err *e)
{
	const char *id = json_string_value(json_object_get(task, "id"));
	const char *object = json_string_value(json_object_get(task, "object"));
	struct wait w = {
		.c = c, .moving = moving, .last = json_incref((json_t *)task), .p = {.done = -1, .eta_ns = -1}};
	_free_ char *what = text_clean(moving ? moving : object ? object : "it");
	int r;

	if (!id) {
		json_decref(w.last);
		return err_set(e, ERR_PROTOCOL, "the daemon began a task without an id");
	}
	w.p.what = what;
	w.task = xstrdup(id);
	w.target = xasprintf("/v1/tasks/%s", id);
	w.begun_ns = clock_now_ns();
	signals_begin(&w);
	r = follow(&w, e);
	bar_wipe(&w);
	signals_end(&w);
	events_end(&w);
	if (r == 0)
		*ret = w.last;
	else
		json_decref(w.last);
	free(w.task);
	free(w.target);
	free(w.migration);
	free(w.step);
	return r;
}

int wait_outcome(const json_t *task, const char *words, struct err *e)
{
	const char *state = json_string_value(json_object_get(task, "state"));
	const char *error = json_string_value(json_object_get(task, "error"));

	if (state && strcmp(state, "done") == 0)
		return 0;
	if (state && strcmp(state, "cancelled") == 0) {
		bool why = error && strcmp(error, state) != 0;

		return err_set(e, ERR_CANCELLED, "%s: cancelled%s%s", words, why ? ": " : "", why ? error : "");
	}
	if (error && strncmp(error, words, strlen(words)) == 0)
		return err_set(e, ERR_PEER, "%s", error);
	return err_set(e, ERR_PEER, "%s: %s", words, error ? error : "failed, and nobody said why");
}

int wait_until(struct cli *c, const char *target, bool (*done)(const json_t *answer), int patience_s, json_t **ret,
	       struct err *e)
{
	int64_t until = clock_now_ns() + patience_s * NS_PER_S;

	for (;;) {
		json_t *answer = NULL;
		int r = request(c, "GET", target, NULL, &answer, e);

		if (r == 0 && done(answer)) {
			*ret = answer;
			return 0;
		}
		json_decref(answer);
		if (r < 0 && !request_may_pass(e))
			return -1;
		if (clock_now_ns() > until)
			return r < 0 ? -1 : err_set(e, ERR_TIMEOUT, "not so far after %d s", patience_s);
		nanosleep(&(struct timespec){.tv_nsec = ASK_ALONE_NS}, NULL);
	}
}
