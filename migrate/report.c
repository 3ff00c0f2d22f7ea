/* SPDX-License-Identifier: Apache-2.0 */
/* What the user sees of a move: JSON lines, plain lines, or a bar on a terminal, and the table at the end.
 *
 * The report runs in the thread that also looks after the move, so it must not be able to hold it up: whatever reads
 * stdout (a pipe, a terminal stopped by ^S) is asked with poll(2) before each piece, and a piece is at most PIPE_BUF,
 * which a writable pipe takes without blocking. SIGPIPE is held off for the moment of the write and taken back, so that
 * the process's own choice about that signal stays as it is. */
#include "migrate/report.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"

#define REDRAW_NS (100 * NS_PER_MS)
#define PLAIN_EVERY_NS (10 * NS_PER_S)
#define LINE_PATIENCE_MS 20
#define RESULT_PATIENCE_MS 5000
#define LINE_MAX_BYTES 512
#define COLUMNS_DEFAULT 80
#define BAR_MIN 10
#define BAR_MAX 30
#define BAR_DETAIL_MAX 4

struct report {
	enum report_mode mode;
	const char *verb;
	int64_t start_ns;
	int64_t shown_ns; /* when progress was last shown; 0: not yet in this phase */
	char phase[32];
	int drawn; /* columns of the bar that stands on the terminal now */
	bool forecast_told;
	bool stuck; /* the reader was not ready for the last line */
	bool dead;  /* nobody reads us any more, or half a line stands there */
};

/* Output --------------------------------------------------------------------------------------------------------- */

/* write(2) of at most PIPE_BUF bytes to stdout without SIGPIPE: a signal that we caused is taken back. */
static ssize_t write_quietly(const char *p, size_t n)
{
	sigset_t sigpipe, before, pending;
	bool was_pending;
	ssize_t done;
	int errnum;

	sigemptyset(&sigpipe);
	sigaddset(&sigpipe, SIGPIPE);
	sigpending(&pending);
	was_pending = sigismember(&pending, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
	done = write(STDOUT_FILENO, p, n);
	errnum = errno;
	if (done < 0 && errnum == EPIPE && !was_pending)
		sigtimedwait(&sigpipe, NULL, &(struct timespec){0});
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = errnum;
	return done;
}

/* Wait until stdout takes something: true, or false when @deadline_ns passed or stdout is gone. */
static bool stdout_ready(int64_t deadline_ns)
{
	struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};
	int n;

	do
		n = poll(&p, 1, clock_poll_ms(deadline_ns));
	while (n < 0 && errno == EINTR && clock_now_ns() < deadline_ns);
	return n > 0 && (p.revents & POLLOUT);
}

/* Write @text if the reader takes it within @patience_ms, else drop it. */
static void emit(struct report *r, const char *text, int patience_ms)
{
	int64_t deadline = clock_now_ns() + patience_ms * NS_PER_MS;
	size_t left = strlen(text);
	bool begun = false;

	while (left > 0 && !r->dead) {
		ssize_t n;

		if (!stdout_ready(deadline)) {
			r->stuck = true;
			r->dead = begun;
			return;
		}
		n = write_quietly(text, left < PIPE_BUF ? left : PIPE_BUF);
		if (n < 0 && errno != EINTR && (errno != EAGAIN || clock_now_ns() >= deadline))
			r->dead = true;
		if (n > 0) {
			text += n;
			left -= (size_t)n;
			begun = true;
		}
	}
	r->stuck = false;
}

/* How long an ordinary line may wait: a reader that stood still at the last one is not waited for again. */
static int line_patience(const struct report *r)
{
	return r->stuck ? 0 : LINE_PATIENCE_MS;
}

/* Take the bar off the terminal, so that a line can stand there. */
static void wipe_bar(struct report *r)
{
	_free_ char *blank = NULL;

	if (r->drawn == 0)
		return;
	blank = xasprintf("\r%*s\r", r->drawn, "");
	r->drawn = 0;
	emit(r, blank, line_patience(r));
}

/* One line (or several) of text, never in the middle of the bar. */
static void say(struct report *r, int patience_ms, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void say(struct report *r, int patience_ms, const char *fmt, ...)
{
	_free_ char *text = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		abort();
	wipe_bar(r);
	emit(r, text, patience_ms);
}

/* JSON ----------------------------------------------------------------------------------------------------------- */

/* Milliseconds with microseconds as fraction; -1 for none. New reference. */
static json_t *json_ms(int64_t ns)
{
	return json_real(ns < 0 ? -1 : (double)(ns / 1000) / 1000);
}

/* Counters beyond INT64_MAX do not occur; JSON integers of jansson end there. New reference. */
static json_t *json_count(uint64_t v)
{
	return json_integer(v > INT64_MAX ? INT64_MAX : (json_int_t)v);
}

static void set_text(json_t *o, const char *key, const char *text)
{
	_free_ char *c = text_clean(text);

	json_object_set_new(o, key, json_string(c));
}

/* A new event with its first keys. */
static json_t *json_event(const struct report *r, const char *event)
{
	json_t *o = json_object();

	json_object_set_new(o, "event", json_string(event));
	json_object_set_new(o, "ms", json_ms(clock_now_ns() - r->start_ns));
	return o;
}

/* Print @o (taken) on a line of its own. */
static void json_emit(struct report *r, json_t *o, int patience_ms)
{
	_free_ char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(15));
	_free_ char *line = text ? xasprintf("%s\n", text) : NULL;

	json_decref(o);
	if (line)
		emit(r, line, patience_ms);
}

static void forecast_keys(json_t *o, const struct forecast *f)
{
	json_object_set_new(o, "converges", json_boolean(f->converges));
	json_object_set_new(o, "passes", json_count(f->passes));
	json_object_set_new(o, "bytes", json_count(f->bytes));
	json_object_set_new(o, "total_ms", json_ms(f->total_ns));
	json_object_set_new(o, "pause_ms", json_ms(f->pause_ns));
	json_object_set_new(o, "dirty_rate", json_count(f->dirty_rate));
	json_object_set_new(o, "wire_rate", json_count(f->wire_rate));
	set_text(o, "why", f->why);
}

static json_t *json_forecast(const struct forecast *f)
{
	json_t *o;

	if (!f)
		return json_null();
	o = json_object();
	forecast_keys(o, f);
	return o;
}

static json_t *json_error(const struct err *e)
{
	json_t *o;

	if (!e)
		return json_null();
	o = json_object();
	set_text(o, "code", err_code_name(e->code));
	json_object_set_new(o, "errno", json_integer(e->errnum));
	set_text(o, "text", e->text);
	return o;
}

static void result_json(struct report *r, const struct report_result *res)
{
	json_t *o = json_event(r, "result");

	set_text(o, "verb", r->verb);
	set_text(o, "result", res->result);
	json_object_set_new(o, "total_ms", json_ms(res->total_ns));
	json_object_set_new(o, "prepare_ms", json_ms(res->prepare_ns));
	json_object_set_new(o, "pause_ms", json_ms(res->pause_ns));
	json_object_set_new(o, "stop_ms", json_ms(res->stop_ns));
	json_object_set_new(o, "last_pages_ms", json_ms(res->last_pages_ns));
	json_object_set_new(o, "device_state_ms", json_ms(res->device_state_ns));
	json_object_set_new(o, "load_ms", json_ms(res->load_ns));
	json_object_set_new(o, "resume_ms", json_ms(res->resume_ns));
	json_object_set_new(o, "wire_bytes", json_count(res->wire_bytes));
	json_object_set_new(o, "device_bytes", json_count(res->device_bytes));
	json_object_set_new(o, "passes", json_count(res->passes));
	json_object_set_new(o, "pages", json_count(res->pages));
	json_object_set_new(o, "zero_pages", json_count(res->zero_pages));
	json_object_set_new(o, "resent_pages", json_count(res->resent_pages));
	json_object_set_new(o, "coalesced_pages", json_count(res->coalesced_pages));
	json_object_set_new(o, "channels", json_count(res->channels));
	json_object_set_new(o, "engine_rss_kib", json_count(res->peak_anon_kib));
	set_text(o, "guest", res->guest);
	json_object_set_new(o, "error", json_error(res->error));
	json_object_set_new(o, "forecast", json_forecast(res->forecast));
	json_emit(r, o, RESULT_PATIENCE_MS);
}

/* The bar -------------------------------------------------------------------------------------------------------- */

/* What stands right of the bar, more of it the higher @detail (0..BAR_DETAIL_MAX). @buf: LINE_MAX_BYTES. */
static void bar_tail(char *buf, const struct report_progress *p, int detail)
{
	char rate[TEXT_CELL], dirty[TEXT_CELL], left[TEXT_CELL], eta[TEXT_CELL],
		parts[3][2 * TEXT_CELL + 16] = {"", "", ""};

	text_wire(rate, p->wire_rate);
	text_wire(dirty, p->dirty_rate);
	text_memory(left, p->remaining);
	text_clock(eta, p->eta_ns);
	if (detail >= 2)
		snprintf(parts[0], sizeof(parts[0]), "  pass %u  %s/s", p->pass, rate);
	if (detail >= 3)
		snprintf(parts[1], sizeof(parts[1]), "  dirty %s/s  left %s", dirty, left);
	if (detail >= 4 && p->throttle_percent > 0)
		snprintf(parts[2], sizeof(parts[2]), "  guest slowed %u %%", p->throttle_percent);
	snprintf(buf, LINE_MAX_BYTES, "  %3d %%%s%s%s%s%s", (int)(p->progress * 100), parts[0], parts[1], parts[2],
		 detail >= 1 ? "  ETA " : "", detail >= 1 ? eta : "");
}

/* "[#####-----]" with @width marks between the brackets. @buf: BAR_MAX + 3 bytes. */
static void bar_marks(char *buf, double progress, int width)
{
	int done = (int)(progress * width + 0.5);

	buf[0] = '[';
	for (int i = 0; i < width; i++)
		buf[1 + i] = i < done ? '#' : '-';
	buf[1 + width] = ']';
	buf[2 + width] = '\0';
}

static int terminal_columns(void)
{
	struct winsize w;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) < 0 || w.ws_col == 0)
		return COLUMNS_DEFAULT;
	return w.ws_col;
}

/* The bar with as much detail as @columns hold, its last column left free (a full line would wrap). */
static void bar_line(char *buf, const char *phase, const struct report_progress *p, int columns)
{
	char tail[LINE_MAX_BYTES], marks[BAR_MAX + 3];
	int detail = BAR_DETAIL_MAX, room;

	do {
		bar_tail(tail, p, detail);
		room = columns - 1 - (int)strlen(phase) - 2 - (int)strlen(tail) - 2;
	} while (room < BAR_MIN && --detail >= 0);
	if (room < BAR_MIN) {
		snprintf(buf, LINE_MAX_BYTES, "%d %%", (int)(p->progress * 100));
		return;
	}
	bar_marks(marks, p->progress, room < BAR_MAX ? room : BAR_MAX);
	snprintf(buf, LINE_MAX_BYTES, "%s  %s%.300s", phase, marks, tail);
}

/* Draw over what stands there; blanks cover the rest of a longer line. */
static void bar_draw(struct report *r, const struct report_progress *p)
{
	char line[LINE_MAX_BYTES];
	_free_ char *out = NULL;
	int length;

	bar_line(line, r->phase, p, terminal_columns());
	length = (int)strlen(line);
	out = xasprintf("\r%s%*s", line, r->drawn > length ? r->drawn - length : 0, "");
	r->drawn = length > r->drawn ? length : r->drawn;
	emit(r, out, 0);
}

/* Events --------------------------------------------------------------------------------------------------------- */

struct report *report_new(enum report_mode mode, const char *verb)
{
	struct report *r = xcalloc(1, sizeof(*r));

	r->mode = mode;
	r->verb = verb;
	r->start_ns = clock_now_ns();
	return r;
}

void report_free(struct report *r)
{
	if (!r)
		return;
	wipe_bar(r);
	free(r);
}

/* Seconds since the start, for the left edge of plain lines. */
static double since_start(const struct report *r)
{
	return (double)(clock_now_ns() - r->start_ns) / NS_PER_S;
}

void report_phase(struct report *r, const char *phase)
{
	snprintf(r->phase, sizeof(r->phase), "%s", phase);
	r->shown_ns = 0;
	if (r->mode == REPORT_JSON) {
		json_t *o = json_event(r, "phase");

		set_text(o, "phase", phase);
		json_emit(r, o, line_patience(r));
	} else if (r->mode == REPORT_PLAIN) {
		r->shown_ns = clock_now_ns();
		say(r, line_patience(r), "%8.3f s  %s\n", since_start(r), r->phase);
	} else {
		wipe_bar(r);
	}
}

static void progress_json(struct report *r, const struct report_progress *p)
{
	json_t *o = json_event(r, "progress");

	json_object_set_new(o, "progress", json_real((double)(int64_t)(p->progress * 10000 + 0.5) / 10000));
	json_object_set_new(o, "eta_ms", json_ms(p->eta_ns));
	json_object_set_new(o, "pass", json_count(p->pass));
	json_object_set_new(o, "sent_bytes", json_count(p->sent_bytes));
	json_object_set_new(o, "wire_rate", json_count(p->wire_rate));
	json_object_set_new(o, "dirty_rate", json_count(p->dirty_rate));
	json_object_set_new(o, "remaining", json_count(p->remaining));
	json_object_set_new(o, "downtime_limit_ms", json_count(p->downtime_limit_ms));
	json_object_set_new(o, "throttle_percent", json_count(p->throttle_percent));
	json_emit(r, o, 0);
}

void report_progress(struct report *r, const struct report_progress *shown)
{
	struct report_progress p = *shown;
	int64_t now = clock_now_ns();
	char tail[LINE_MAX_BYTES];

	if (r->shown_ns > 0 && now - r->shown_ns < (r->mode == REPORT_PLAIN ? PLAIN_EVERY_NS : REDRAW_NS))
		return;
	r->shown_ns = now;
	p.progress = p.progress > 0 ? p.progress < 1 ? p.progress : 1 : 0; /* NaN too */
	if (r->mode == REPORT_JSON) {
		progress_json(r, &p);
	} else if (r->mode == REPORT_TERMINAL) {
		bar_draw(r, &p);
	} else {
		bar_tail(tail, &p, BAR_DETAIL_MAX);
		say(r, line_patience(r), "%8.3f s  %s%s\n", since_start(r), r->phase, tail);
	}
}

void report_note(struct report *r, const char *text)
{
	if (r->mode == REPORT_JSON) {
		json_t *o = json_event(r, "note");

		set_text(o, "text", text);
		json_emit(r, o, line_patience(r));
	} else {
		_free_ char *c = text_clean(text);

		say(r, line_patience(r), "%8.3f s  %s\n", since_start(r), c);
	}
}

void report_ready(struct report *r, unsigned pass, uint64_t remaining)
{
	if (r->mode == REPORT_JSON) {
		json_t *o = json_event(r, "ready");

		json_object_set_new(o, "pass", json_count(pass));
		json_object_set_new(o, "remaining", json_count(remaining));
		json_emit(r, o, RESULT_PATIENCE_MS);
	} else {
		say(r, line_patience(r), "%8.3f s  ready to hand over\n", since_start(r));
	}
}

static void forecast_text(struct report *r, const struct forecast *f)
{
	char bytes[TEXT_CELL], total[TEXT_CELL], pause[TEXT_CELL];
	_free_ char *why = text_clean(f->why);

	r->forecast_told = true;
	if (!f->converges) {
		say(r, line_patience(r), "forecast: %s\n", *why ? why : "does not converge");
		return;
	}
	text_wire(bytes, f->bytes);
	text_duration(total, f->total_ns);
	text_duration(pause, f->pause_ns);
	say(r, line_patience(r), "forecast: %s, %s on the wire, %u %s, pause about %s\n", total, bytes, f->passes,
	    f->passes == 1 ? "pass" : "passes", pause);
}

void report_forecast(struct report *r, const struct forecast *f)
{
	if (r->mode == REPORT_JSON) {
		json_t *o = json_event(r, "forecast");

		forecast_keys(o, f);
		json_emit(r, o, line_patience(r));
	} else {
		forecast_text(r, f);
	}
}

/* The table ------------------------------------------------------------------------------------------------------ */

/* One row: name, forecast, result. An empty cell where there is nothing to say. */
static void row(FILE *t, const char *name, const char *forecast, const char *result)
{
	if (forecast)
		fprintf(t, "  %-16s %14s %14s\n", name, forecast, result);
	else
		fprintf(t, "  %-16s %14s\n", name, result);
}

/* A row of a duration, left out when it does not apply. @f: an unforecast row in a table with two columns has "". */
static void row_duration(FILE *t, const char *name, const char *f, int64_t ns)
{
	char cell[TEXT_CELL];

	if (ns < 0)
		return;
	text_duration(cell, ns);
	row(t, name, f, cell);
}

/* The rows that a forecast has too. */
static void table_compared(FILE *t, const struct report_result *res)
{
	const struct forecast *f = res->forecast;
	char a[TEXT_CELL], b[TEXT_CELL];

	if (f)
		row(t, "", "forecast", "result");
	text_duration(a, f ? f->total_ns : -1);
	row_duration(t, "total", f ? a : NULL, res->total_ns);
	text_duration(a, f && f->converges ? f->pause_ns : -1);
	row_duration(t, "pause", f ? a : NULL, res->pause_ns);
	snprintf(a, sizeof(a), "%u", f ? f->passes : 0);
	snprintf(b, sizeof(b), "%u", res->passes);
	if (res->passes > 0)
		row(t, "passes", f ? a : NULL, b);
	text_wire(a, f ? f->bytes : 0);
	text_wire(b, res->wire_bytes);
	if (f || res->wire_bytes)
		row(t, "on the wire", f ? a : NULL, b);
}

/* What the pause was made of; the part that nothing accounts for is named too. */
static void table_pause(FILE *t, const struct report_result *res)
{
	const char *f = res->forecast ? "" : NULL;
	const int64_t parts[] = {res->stop_ns, res->last_pages_ns, res->device_state_ns, res->load_ns, res->resume_ns};
	const char *const names[] = {"  stop", "  last pages", "  device state", "  load", "  resume"};
	int64_t rest = res->pause_ns;
	bool any = false;

	if (res->pause_ns < 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		any = any || parts[i] >= 0;
	if (!any)
		return;
	fprintf(t, "  of the pause:\n");
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		row_duration(t, names[i], f, parts[i]);
		rest -= parts[i] > 0 ? parts[i] : 0;
	}
	if (rest > NS_PER_MS / 10)
		row_duration(t, "  in between", f, rest);
}

static void row_count(FILE *t, const char *name, const char *f, uint64_t n)
{
	char cell[TEXT_CELL];

	if (n == 0)
		return;
	snprintf(cell, sizeof(cell), "%" PRIu64, n);
	row(t, name, f, cell);
}

/* The rows that only a result has. */
static void table_rest(FILE *t, const struct report_result *res)
{
	const char *f = res->forecast ? "" : NULL;
	char cell[TEXT_CELL];

	row_duration(t, "prepare", f, res->prepare_ns);
	row_count(t, "pages", f, res->pages);
	row_count(t, "  zero", f, res->zero_pages);
	row_count(t, "  sent again", f, res->resent_pages);
	row_count(t, "  spared", f, res->coalesced_pages);
	if (res->device_bytes > 0) {
		text_wire(cell, res->device_bytes);
		row(t, "device state", f, cell);
	}
	if (res->wire_bytes == 0)
		return;
	row_count(t, "channels", f, res->channels);
	if (res->peak_anon_kib > 0) {
		text_memory(cell, res->peak_anon_kib * 1024);
		row(t, "engine memory", f, cell);
	}
}

static void result_text(struct report *r, const struct report_result *res)
{
	_free_ char *guest = text_clean(res->guest), *error = text_clean(res->error ? res->error->text : NULL),
		    *table = NULL;
	bool dry = strcmp(res->result, "dry-run") == 0;
	size_t size = 0;
	FILE *t;

	if (dry) {
		if (res->forecast && !r->forecast_told)
			forecast_text(r, res->forecast);
	} else {
		t = open_memstream(&table, &size);
		if (!t)
			abort();
		table_compared(t, res);
		table_pause(t, res);
		table_rest(t, res);
		fclose(t);
		say(r, RESULT_PATIENCE_MS, "\n%s\n", table);
	}
	say(r, RESULT_PATIENCE_MS, "%s%s%s%s%s\n", res->result, *error ? ": " : "", error, *guest ? "; " : "", guest);
}

void report_result(struct report *r, const struct report_result *res)
{
	if (r->mode == REPORT_JSON)
		result_json(r, res);
	else
		result_text(r, res);
}

void report_listening(struct report *r, int port, const char *token)
{
	if (r->mode == REPORT_JSON) {
		json_t *o = json_event(r, "listening");

		json_object_set_new(o, "port", json_integer(port));
		set_text(o, "token", token ? token : "");
		json_emit(r, o, RESULT_PATIENCE_MS);
		return;
	}
	say(r, RESULT_PATIENCE_MS, "waiting for a sender on port %d\n", port);
	if (token)
		say(r, RESULT_PATIENCE_MS, "token: %s\n", token);
}
