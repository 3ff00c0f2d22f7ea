/* SPDX-License-Identifier: Apache-2.0 */
/* Forecasts: engines that measure guest and wire and move nothing, on either side.
 *
 * The source's is a job whose last line counts. The destination's is read while it runs, as it says where it listens;
 * its output is a pipe and it dies with us, because nobody else would know what it is for.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "hv/vm.h"
#include "node/mover-int.h"

#define RECEIVERS_MAX 8
#define LINES_MAX 8192 /* bytes that a receiver may say; it says a few hundred */

/* One engine at work. */
struct probe {
	struct probe *next;
	struct mover *m;
	void *arg;
	struct loop_child *watch;

	/* source */
	mover_forecast_fn *measured;
	struct job job;
	struct loop_timer *late;
	char *vm;
	const char *ended_by_us; /* why; NULL: it was not */

	/* destination */
	mover_forecast_listening_fn *listening; /* NULL: it has been called */
	struct child child;
	int out_fd;
	struct loop_io *out;
	char *listen;
	char *said;
	size_t n_said;
};

static struct probe *probe_new(struct mover *m, void *arg)
{
	struct probe *p = xcalloc(1, sizeof(*p));

	p->m = m;
	p->arg = arg;
	p->job = JOB_INIT;
	p->child = CHILD_INIT;
	p->out_fd = -1;
	p->next = m->probes;
	m->probes = p;
	return p;
}

static void probe_free(struct probe *p)
{
	struct probe **at = &p->m->probes;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	loop_child_free(p->watch);
	loop_timer_free(p->late);
	loop_io_free(p->out);
	mem_closep(&p->out_fd);
	job_done(&p->job);
	child_done(&p->child);
	free(p->vm);
	free(p->listen);
	free(p->said);
	free(p);
}

void mover_forecasts_free(struct mover *m)
{
	while (m->probes)
		probe_free(m->probes);
}

unsigned mover_forecasts(const struct mover *m)
{
	unsigned n = 0;

	for (const struct probe *p = m->probes; p; p = p->next)
		n++;
	return n;
}

/* ---- what engines say ---- */

/* The first line of @out with this event; the texts of its notes go to @notes (NULL: nowhere). New reference, or NULL.
 */
static json_t *line_of(const char *out, const char *event, json_t *notes)
{
	json_t *found = NULL;

	for (const char *line = out, *end; (end = strchr(line, '\n')); line = end + 1) {
		json_t *o = json_loadb(line, (size_t)(end - line), 0, NULL), *text = json_object_get(o, "text");
		const char *its = json_string_value(json_object_get(o, "event"));

		if (its && !strcmp(its, event) && !found)
			found = json_incref(o);
		if (notes && its && !strcmp(its, "note") && json_string_length(text))
			json_array_append(notes, text);
		json_decref(o);
	}
	return found;
}

static const char *error_of(const json_t *result)
{
	return json_string_value(json_object_get(json_object_get(result, "error"), "text"));
}

/* ---- the source ---- */

static void source_end(struct probe *p, const char *why)
{
	p->ended_by_us = why;
	child_signal(&p->job.child, SIGKILL, NULL);
}

static void on_late(void *arg)
{
	source_end(arg, "it was not measured within the time for that");
}

void mover_forecasts_end(struct mover *m, const char *vm)
{
	for (struct probe *p = m->probes; p; p = p->next)
		if (p->vm && !strcmp(p->vm, vm))
			source_end(p, "a move of the guest has begun");
}

static void on_measured(void *arg)
{
	struct probe *p = arg;
	mover_forecast_fn *fn = p->measured;
	void *fn_arg = p->arg;
	struct job_end end = {0};
	json_t *result, *forecast, *notes = json_array();
	const char *words = "";
	bool good;

	job_collect(&p->job, &end);
	result = line_of(end.out, "result", notes);
	forecast = json_object_get(result, "forecast");
	good = end.exit_code == 0 && json_is_object(forecast);
	if (good)
		json_object_set(forecast, "notes", notes);
	else if (p->ended_by_us)
		words = p->ended_by_us;
	else
		words = error_of(result) ? error_of(result) : end.words;
	probe_free(p);
	fn(fn_arg, good ? forecast : NULL, words);
	json_decref(notes);
	json_decref(result);
	job_end_done(&end);
}

int mover_forecast(struct mover *m, const struct mover_send_options *o, int64_t limit_ns, mover_forecast_fn *fn,
		   void *arg, struct err *e)
{
	struct engine_words w = {.n = 0};
	_closefd_ int token = -1;
	_free_ char *qmp = NULL;
	struct vm *vm = NULL;
	struct probe *p;

	if (mover_qemu_open(m, o->vm, &vm, e) < 0)
		return -1;
	qmp = xasprintf("%s/" VM_ENGINE_SOCK, vm->dir);
	vm_close(vm);
	token = job_input(o->token, e);
	if (token < 0)
		return -1;
	engine_words_send(&w, m, qmp, o, 3);
	engine_word(&w, "--dry-run", NULL);
	p = probe_new(m, arg);
	if (job_start(w.argv, token, &p->job, e) < 0) {
		probe_free(p);
		return -1;
	}
	p->measured = fn;
	p->vm = xstrdup(o->vm);
	p->watch = loop_child_add(m->loop, p->job.child.pidfd, on_measured, p);
	p->late = loop_timer_add(m->loop, limit_ns, 0, on_late, p);
	return 0;
}

/* ---- the destination ---- */

/* Say once what became of it. */
static void told(struct probe *p, const char *address, const char *token, const char *words)
{
	mover_forecast_listening_fn *fn = p->listening;

	p->listening = NULL;
	if (fn)
		fn(p->arg, address, token, words);
}

static void said_read(struct probe *p)
{
	ssize_t n;

	while ((n = read(p->out_fd, p->said + p->n_said, LINES_MAX - p->n_said)) > 0)
		p->n_said += (size_t)n;
	/* The end, or more than it has to say: nothing more is read; a full pipe does not hold it up. */
	if (n == 0 || p->n_said == LINES_MAX)
		loop_io_free(steal_ptr(p->out));
}

static void on_said(void *arg, unsigned ready)
{
	struct probe *p = arg;
	json_t *o;

	(void)ready;
	said_read(p);
	o = p->listening ? line_of(p->said, "listening", NULL) : NULL;
	if (o) {
		_free_ char *address = xasprintf(strchr(p->listen, ':') ? "[%s]:%d" : "%s:%d", p->listen,
						 (int)json_integer_value(json_object_get(o, "port")));

		told(p, address, json_string_value(json_object_get(o, "token")), "");
	}
	json_decref(o);
}

static void on_receiver_over(void *arg)
{
	struct probe *p = arg;
	json_t *result;

	child_wait(&p->child, clock_now_ns(), NULL, NULL);
	said_read(p);
	result = line_of(p->said, "result", NULL);
	told(p, NULL, NULL, error_of(result) ? error_of(result) : "godwit-migrate died");
	json_decref(result);
	probe_free(p);
}

static int receiver_spawn(struct probe *p, const char *const *argv, struct err *e)
{
	_closefd_ int out = -1;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_sys(e, "pipe");
	p->out_fd = ends[0];
	out = ends[1];
	return child_spawn(&(struct child_spec){.argv = argv,
						.fds = &(struct child_fd){out, STDOUT_FILENO},
						.n_fds = 1,
						.session = true,
						.die_with_parent = true},
			   &p->child, e);
}

int mover_forecast_receive(struct mover *m, const struct mover_forecast_receive_options *o,
			   mover_forecast_listening_fn *fn, void *arg, struct err *e)
{
	_free_ char *listen = xasprintf(strchr(o->listen, ':') ? "[%s]:0" : "%s:0", o->listen);
	struct engine_words w = {.n = 0};
	struct probe *p;
	unsigned n = 0;

	for (p = m->probes; p; p = p->next)
		n += p->said != NULL;
	if (n >= RECEIVERS_MAX)
		return err_set(e, ERR_UNAVAILABLE, "%u others measure the wire to this host; try again in a second", n);
	engine_words_common(&w, m, "receive", NULL);
	engine_word(&w, "--dry-run", NULL);
	engine_word(&w, "--listen", listen);
	engine_number(&w, "--wait", o->wait_s);
	if (o->peer)
		engine_word(&w, "--peer", o->peer);
	p = probe_new(m, arg);
	p->listen = xstrdup(o->listen);
	p->said = xcalloc(LINES_MAX + 1, 1);
	if (receiver_spawn(p, w.argv, e) < 0) {
		probe_free(p);
		return -1;
	}
	p->listening = fn;
	p->out = loop_io_add(m->loop, p->out_fd, LOOP_READ, on_said, p);
	p->watch = loop_child_add(m->loop, p->child.pidfd, on_receiver_over, p);
	return 0;
}
