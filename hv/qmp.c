/* SPDX-License-Identifier: Apache-2.0 */
/* QMP client: one blocking connection to a QEMU monitor, with deadlines, events kept in order, descriptors passed. */

/* Theory of operation
 *
 * A QMP monitor (docs/interop/qmp-spec.txt of QEMU) speaks first: one greeting object. The client answers with
 * qmp_capabilities; from then on each command object gets exactly one answer ("return" or "error"), in the order asked
 * because out-of-band execution is never negotiated here, and "event" objects may stand between any two answers.
 *
 *     connect -> greeting -> qmp_capabilities -> { command -> event* -> answer | event }* -> dead
 *
 * One command is in flight at a time. Each carries a number as its id, and an answer with another id, or without one,
 * means that we and QEMU no longer agree on where we are: the connection is dead.
 *
 * Dead is a state without a way out. Every failure of the connection (end of file, bad JSON, a time-out whose late
 * answer would be taken for the next one's) fills q->dead, and every later call fails with the same sentence, so that
 * the cause is reported and not its consequence. Events read before the death are still handed out. An error that QEMU
 * answers to a command (ERR_QMP) is not a death.
 *
 * Framing. QEMU ends each object with CR LF. A monitor with pretty=on spreads an object over many lines, the first of
 * which is a brace alone. So an object ends where its braces balance outside of strings; a line end inside an object
 * that did not start with such a line means a torn object and is refused at once rather than waited upon. The scanner
 * looks at each byte once however the bytes are cut, and keeps at most QMP_LINE_MAX of them.
 *
 * Events wait in a queue bounded in number and in bytes, because a guest can cause some of them as fast as it likes
 * and an owner may look at them seldom. When the queue is full the oldest event that neither tells the guest's run
 * state nor a migration's progress is dropped (the oldest of all when there is no such one), counted and logged once.
 * Failing instead would let a guest break its own monitor, and those events are what a move is decided on.
 *
 * Latency. Answers and STOP/RESUME are waited for inside a guest's pause: the only wait is poll(2) on the socket, which
 * returns with the first byte.
 *
 * Thread: one thread at a time uses a struct qmp; nothing here locks. */
#include "hv/qmp.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"

#define QMP_VERSION_MIN 70200
#define EVENTS_MAX 4096
#define EVENT_BYTES_MAX (16U << 20)
#define READ_CHUNK 16384
/* White space between two objects, which QEMU ends with CR LF. */
#define BLANK_MAX 4096
/* An idle connection gives back what one large answer made the buffer grow to. */
#define BUF_KEEP (256U << 10)

struct queued_event {
	struct queued_event *next;
	struct qmp_event event;
	size_t bytes; /* length of its text, for EVENT_BYTES_MAX */
};

struct qmp {
	int fd;
	char *name; /* the path, for messages */
	int version;
	pid_t peer_pid;
	int64_t last_id;

	/* Input: bytes [start, len) of buf are not consumed; [start, scan) of them were looked at by the framing. */
	char *buf;
	size_t cap, start, scan, len;
	size_t blank;    /* bytes of white space since the last object */
	size_t depth;    /* braces and brackets open at scan; 0 between objects */
	bool in_string;  /* scan stands inside a string ... */
	bool escaped;    /* ... just behind a backslash */
	bool pretty;     /* the object at start began with a line of its own */
	int64_t read_ns; /* when the newest bytes were read */

	struct queued_event *events, **events_tail;
	size_t events_count, events_bytes;
	uint64_t events_dropped;

	struct err dead; /* code != ERR_NONE: the connection is dead, and why */
};

/* Copy the reason of death into the caller's error. Returns -1. */
static int dead_report(const struct qmp *q, struct err *e)
{
	if (e)
		*e = q->dead;
	return -1;
}

/* Printable beginning of what the other side said, for a message. */
static const char *excerpt(const char *text, size_t len, char *buf, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n + 4 < size; i++) {
		if (text[i] == '\r' || text[i] == '\n')
			break;
		buf[n++] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
	}
	if (n + 4 >= size) {
		memcpy(buf + n, "...", 3);
		n += 3;
	}
	buf[n] = 0;
	return buf;
}

/* ---- events ---- */

/* Events that decide a move or tell whether the guest runs; never dropped while others can be. */
static bool event_is_essential(const char *name)
{
	static const char *const names[] = {"STOP",           "RESUME",   "MIGRATION",
					    "MIGRATION_PASS", "SHUTDOWN", "GUEST_PANICKED"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

static void event_unlink(struct qmp *q, struct queued_event **at, struct qmp_event *ret)
{
	struct queued_event *ev = *at;

	assert(ev);
	*at = ev->next;
	if (q->events_tail == &ev->next)
		q->events_tail = at;
	q->events_count--;
	q->events_bytes -= ev->bytes;
	*ret = ev->event;
	free(ev);
}

static void event_drop_one(struct qmp *q)
{
	struct queued_event **at = &q->events;
	struct qmp_event dropped;

	while (*at && event_is_essential((*at)->event.name))
		at = &(*at)->next;
	event_unlink(q, *at ? at : &q->events, &dropped);
	if (!q->events_dropped++)
		log_warning("event=qmp-events-dropped monitor=%s first=%s waiting=%zu", q->name, dropped.name,
			    q->events_count);
	qmp_event_done(&dropped);
}

/* QEMU stamps events with the wall clock; the two clocks are read here at one moment. Never later than @read_ns. */
static int64_t event_sent_ns(const json_t *msg, int64_t read_ns)
{
	const json_t *stamp = json_object_get(msg, "timestamp");
	int64_t s = json_integer_value(json_object_get(stamp, "seconds"));
	int64_t us = json_integer_value(json_object_get(stamp, "microseconds"));
	struct timespec now;
	int64_t age;

	clock_gettime(CLOCK_REALTIME, &now);
	/* Before anything is multiplied: whoever is at the other end may send any number. */
	if (!stamp || s < now.tv_sec - 60 || s > now.tv_sec || us < 0 || us >= 1000000)
		return read_ns;
	age = (now.tv_sec - s) * NS_PER_S + now.tv_nsec - us * 1000;
	if (age < 0 || clock_now_ns() - age > read_ns)
		return read_ns;
	return clock_now_ns() - age;
}

static int event_queue(struct qmp *q, json_t *msg, size_t bytes)
{
	json_t *name = json_object_get(msg, "event");
	json_t *data = json_object_get(msg, "data");
	struct queued_event *ev;

	if (!json_is_string(name) || json_string_length(name) >= sizeof(ev->event.name) ||
	    (data && !json_is_object(data)))
		return err_set(&q->dead, ERR_PROTOCOL, "monitor %s sent an event without a proper name or data",
			       q->name);
	while (q->events_count >= EVENTS_MAX || (q->events_count && q->events_bytes + bytes > EVENT_BYTES_MAX))
		event_drop_one(q);
	ev = xcalloc(1, sizeof(*ev));
	memcpy(ev->event.name, json_string_value(name), json_string_length(name) + 1);
	ev->event.data = json_incref(data);
	ev->event.seen_ns = q->read_ns;
	ev->event.sent_ns = event_sent_ns(msg, q->read_ns);
	ev->bytes = bytes;
	*q->events_tail = ev;
	q->events_tail = &ev->next;
	q->events_count++;
	q->events_bytes += bytes;
	return 0;
}

void qmp_event_done(struct qmp_event *ev)
{
	if (!ev)
		return;
	json_decref(ev->data);
	ev->data = NULL;
}

/* ---- input: bytes, objects ---- */

/* Make room for another chunk behind len. */
static int buf_reserve(struct qmp *q)
{
	size_t cap = q->cap;
	char *buf;

	if (q->start) {
		memmove(q->buf, q->buf + q->start, q->len - q->start);
		q->len -= q->start;
		q->scan -= q->start;
		q->start = 0;
	}
	if (!q->len && cap > BUF_KEEP) {
		free(q->buf);
		q->buf = NULL;
		q->cap = cap = 0;
	}
	if (q->len > QMP_LINE_MAX)
		return err_set(&q->dead, ERR_PROTOCOL, "monitor %s sent an answer or event longer than %u MiB", q->name,
			       QMP_LINE_MAX >> 20);
	if (cap - q->len >= READ_CHUNK)
		return 0;
	cap = (cap ? cap : READ_CHUNK) * 2;
	buf = realloc(q->buf, cap);
	if (!buf)
		return err_sys(&q->dead, "monitor %s: memory for an answer of more than %zu bytes", q->name, q->len);
	q->buf = buf;
	q->cap = cap;
	return 0;
}

/* Read what is there, without waiting. 1 got bytes, 0 nothing there, -1 dead. */
static int buf_read(struct qmp *q)
{
	ssize_t r;

	if (buf_reserve(q) < 0)
		return -1;
	do
		r = recv(q->fd, q->buf + q->len, q->cap - q->len, MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (r < 0 && errno != ECONNRESET)
		return err_sys(&q->dead, "read from monitor %s", q->name);
	if (r <= 0)
		return err_set(&q->dead, ERR_PROTOCOL,
			       "monitor %s was closed by QEMU%s: it has exited or was killed, see its log", q->name,
			       q->len > q->start ? " in the middle of an answer" : "");
	q->len += (size_t)r;
	q->read_ns = clock_now_ns();
	return 1;
}

/* The other side speaks, but not JSON objects. */
static int not_qmp(struct qmp *q, const char *text, size_t len)
{
	char said[80];

	excerpt(text, len, said, sizeof(said));
	if (strstr(said, "monitor - type 'help'"))
		return err_set(&q->dead, ERR_PROTOCOL,
			       "monitor %s is a human monitor (HMP): give QEMU a QMP socket, -qmp "
			       "unix:PATH,server=on,wait=off, and name that one",
			       q->name);
	return err_set(&q->dead, ERR_PROTOCOL, "%s does not speak QMP, it says \"%s\": name a -qmp socket of QEMU",
		       q->name, said);
}

/* One byte between objects. 0, -1 dead. */
static int frame_begin(struct qmp *q, char c)
{
	bool blank = c == '\r' || c == '\n' || c == ' ' || c == '\t';

	q->start = q->scan + blank;
	q->blank = blank ? q->blank + 1 : 0;
	if (q->blank > BLANK_MAX)
		return err_set(&q->dead, ERR_PROTOCOL, "%s sends nothing but white space: name a -qmp socket of QEMU",
			       q->name);
	if (blank)
		return 0;
	if (c != '{')
		return not_qmp(q, q->buf + q->start, q->len - q->start);
	q->depth = 1;
	q->pretty = false;
	return 0;
}

/* One byte inside an object. 1 the object ends with it, 0 go on, -1 no JSON. */
static int frame_byte(struct qmp *q, char c)
{
	if (c == '\n' && (q->in_string || !q->pretty))
		return -1;
	if (q->in_string) {
		if (q->escaped)
			q->escaped = false;
		else if (c == '\\')
			q->escaped = true;
		else if (c == '"')
			q->in_string = false;
		return 0;
	}
	if (c == '"')
		q->in_string = true;
	else if (c == '{' || c == '[')
		q->depth++;
	else if (c == '}' || c == ']')
		return --q->depth == 0;
	return 0;
}

/* Find the end of the object at start. 1 its bytes are [start, scan), 0 more are needed, -1 dead. */
static int frame_next(struct qmp *q)
{
	for (; q->scan < q->len; q->scan++) {
		char c = q->buf[q->scan];
		int r;

		if (!q->depth) {
			if (frame_begin(q, c) < 0)
				return -1;
			continue;
		}
		if (q->scan == q->start + 1)
			q->pretty = c == '\r' || c == '\n';
		r = frame_byte(q, c);
		if (r < 0)
			return err_set(&q->dead, ERR_PROTOCOL,
				       "monitor %s sent a torn object (a line end inside of it): it is not QMP, or two "
				       "clients share it",
				       q->name);
		if (r && q->scan + 1 - q->start > QMP_LINE_MAX)
			return err_set(&q->dead, ERR_PROTOCOL, "monitor %s sent an answer or event longer than %u MiB",
				       q->name, QMP_LINE_MAX >> 20);
		if (r) {
			q->scan++;
			return 1;
		}
	}
	return 0;
}

/* Parse the object at [start, scan) and consume it. */
static json_t *frame_take(struct qmp *q, size_t *ret_bytes)
{
	size_t bytes = q->scan - q->start;
	json_error_t why;
	json_t *msg = json_loadb(q->buf + q->start, bytes, 0, &why);
	char said[80];

	if (!msg)
		err_set(&q->dead, ERR_PROTOCOL, "monitor %s sent JSON that cannot be read (%s): \"%s\"", q->name,
			why.text, excerpt(q->buf + q->start, bytes, said, sizeof(said)));
	q->start = q->scan;
	*ret_bytes = bytes;
	return msg;
}

static bool deadline_passed(int64_t deadline_ns)
{
	return deadline_ns >= 0 && clock_now_ns() >= deadline_ns;
}

/* Next object, whatever it is, waiting until @deadline_ns. 1 with *ret (caller drops) and the length of its text, 0
 * none by then, -1 dead. The deadline is looked at after every read too, so a peer that always has another byte cannot
 * hold the caller; without waiting (deadline 0) one object is the most that is read. */
static int message_read(struct qmp *q, int64_t deadline_ns, json_t **ret, size_t *ret_bytes)
{
	bool late = false;

	for (;;) {
		int r = frame_next(q);

		if (r < 0)
			return -1;
		if (r) {
			*ret = frame_take(q, ret_bytes);
			return *ret ? 1 : -1;
		}
		if (late)
			return 0;
		r = buf_read(q);
		if (r < 0)
			return -1;
		if (r) {
			late = deadline_ns > 0 && deadline_passed(deadline_ns);
			continue;
		}
		r = sock_wait(q->fd, POLLIN, deadline_ns, &q->dead);
		if (r <= 0)
			return r;
	}
}

/* ---- commands ---- */

/* Queue the events that are there already, at most a queue full of them. */
static void events_drain(struct qmp *q)
{
	size_t bytes;
	json_t *msg;

	for (int i = 0; i < EVENTS_MAX && message_read(q, 0, &msg, &bytes) == 1; i++) {
		if (json_object_get(msg, "event"))
			event_queue(q, msg, bytes);
		json_decref(msg);
	}
}

/* The write failed: whatever QEMU said before it went (SHUTDOWN, say) is kept for qmp_event_next(). */
static void write_failed(struct qmp *q, const char *command)
{
	struct err why = q->dead;

	if (why.errnum == EPIPE || why.errnum == ECONNRESET)
		err_set(&why, ERR_PROTOCOL, "monitor %s was closed by QEMU: it has exited or was killed, see its log",
			q->name);
	else if (why.code == ERR_TIMEOUT)
		err_set(&why, ERR_TIMEOUT, "monitor %s did not take the command %s in time: QEMU hangs or is stopped",
			q->name, command);
	else
		err_wrap(&why, "monitor %s: %s", q->name, command);
	q->dead = ERR_INIT;
	events_drain(q);
	q->dead = why;
}

/* Write one command line, with @passed_fd attached unless it is -1. -1: dead. */
static int command_write(struct qmp *q, const char *command, const char *line, size_t len, int passed_fd,
			 int64_t deadline_ns)
{
	int r;

	if (passed_fd < 0) {
		r = sock_write_full(q->fd, line, len, deadline_ns, &q->dead);
	} else {
		/* A socket that polls writable takes a line of a few hundred bytes whole: the send does not block. */
		r = sock_wait(q->fd, POLLOUT, deadline_ns, &q->dead);
		if (r == 0)
			r = err_set(&q->dead, ERR_TIMEOUT, "no room");
		else if (r > 0)
			r = sock_send_fd(q->fd, line, len, passed_fd, &q->dead);
	}
	if (r < 0)
		write_failed(q, command);
	return r;
}

/* Write "command" with the next id. -1 with @e. */
static int command_send(struct qmp *q, const char *command, json_t *args, int passed_fd, int64_t deadline_ns,
			struct err *e)
{
	json_int_t id = ++q->last_id;
	json_t *msg = json_pack("{s:s, s:O*, s:I}", "execute", command, "arguments", args, "id", id);
	_free_ char *text = msg ? json_dumps(msg, JSON_COMPACT) : NULL;
	_free_ char *line = NULL;

	json_decref(msg);
	if (!text)
		return err_set(e, ERR_INPUT, "%s: the arguments are not valid JSON text", command);
	line = xasprintf("%s\n", text);
	if (command_write(q, command, line, strlen(line), passed_fd, deadline_ns) < 0)
		return dead_report(q, e);
	return 0;
}

/* The answer to the command in flight. 0, or -1 with @e (ERR_QMP, or dead). */
static int answer_take(struct qmp *q, const char *command, const json_t *msg, json_t **ret, struct err *e)
{
	json_t *id = json_object_get(msg, "id");
	json_t *value = json_object_get(msg, "return");
	json_t *error = json_object_get(msg, "error");
	const char *desc = json_string_value(json_object_get(error, "desc"));

	if (!value == !error || (error && !desc)) {
		err_set(&q->dead, ERR_PROTOCOL, "monitor %s: the answer to %s is neither a result nor an error",
			q->name, command);
		return dead_report(q, e);
	}
	if (!json_is_integer(id) || json_integer_value(id) != q->last_id) {
		err_set(&q->dead, ERR_PROTOCOL, "monitor %s: got an answer to something else than %s%s%.200s", q->name,
			command, desc ? ": " : "", desc ? desc : "");
		return dead_report(q, e);
	}
	if (error)
		return err_set(e, ERR_QMP, "%s: %.800s", command, desc);
	if (ret)
		*ret = json_incref(value);
	return 0;
}

/* Read until the answer is there, queueing events. */
static int answer_wait(struct qmp *q, const char *command, int64_t deadline_ns, json_t **ret, struct err *e)
{
	for (;;) {
		size_t bytes;
		json_t *msg;
		int r = message_read(q, deadline_ns, &msg, &bytes);

		if (r == 1 && !json_object_get(msg, "event")) {
			r = answer_take(q, command, msg, ret, e);
			json_decref(msg);
			return r;
		}
		if (r == 1) {
			r = event_queue(q, msg, bytes) < 0 ? -1 : 1;
			json_decref(msg);
		}
		if (r == 0 || (r == 1 && deadline_passed(deadline_ns)))
			r = err_set(&q->dead, ERR_TIMEOUT,
				    "monitor %s did not answer %s in time: QEMU hangs, is stopped or waits for storage",
				    q->name, command);
		if (r < 0)
			return dead_report(q, e);
	}
}

static int call_fd(struct qmp *q, const char *command, json_t *args, int passed_fd, int64_t deadline_ns, json_t **ret,
		   struct err *e)
{
	if (q->dead.code)
		return dead_report(q, e);
	if (command_send(q, command, args, passed_fd, deadline_ns, e) < 0)
		return -1;
	return answer_wait(q, command, deadline_ns, ret, e);
}

int qmp_call(struct qmp *q, const char *command, json_t *args, int64_t deadline_ns, json_t **ret, struct err *e)
{
	return call_fd(q, command, args, -1, deadline_ns, ret, e);
}

int qmp_callf(struct qmp *q, int64_t deadline_ns, json_t **ret, struct err *e, const char *command, const char *fmt,
	      ...)
{
	json_t *args = NULL;
	json_error_t why;
	va_list ap;
	int r;

	if (fmt) {
		va_start(ap, fmt);
		args = json_vpack_ex(&why, 0, fmt, ap);
		va_end(ap);
		/* Text that is not UTF-8 (a file name, say) ends here; the connection is not touched. */
		if (!args)
			return err_set(e, ERR_INPUT, "%s: the arguments cannot be written as JSON: %s", command,
				       why.text);
	}
	r = call_fd(q, command, args, -1, deadline_ns, ret, e);
	json_decref(args);
	return r;
}

int qmp_send_fd(struct qmp *q, const char *fdname, int fd, int64_t deadline_ns, struct err *e)
{
	json_t *args = json_pack("{s:s}", "fdname", fdname);
	int r;

	if (!args)
		return err_set(e, ERR_INPUT, "getfd: the name is not UTF-8");
	r = call_fd(q, "getfd", args, fd, deadline_ns, NULL, e);
	json_decref(args);
	return r;
}

int qmp_event_next(struct qmp *q, int64_t deadline_ns, struct qmp_event *ret, struct err *e)
{
	while (!q->events) {
		size_t bytes;
		json_t *msg;
		int r;

		if (q->dead.code)
			return dead_report(q, e);
		r = message_read(q, deadline_ns, &msg, &bytes);
		if (r == 0)
			return 0;
		if (r < 0)
			continue;
		if (json_object_get(msg, "event"))
			event_queue(q, msg, bytes);
		else
			err_set(&q->dead, ERR_PROTOCOL, "monitor %s sent an answer although nothing was asked",
				q->name);
		json_decref(msg);
	}
	event_unlink(q, &q->events, ret);
	return 1;
}

/* ---- connection ---- */

static int version_part(const json_t *version, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(version, key));

	return v >= 0 && v < 100 ? (int)v : 99;
}

/* Is @msg a greeting, and of a QEMU new enough? */
static int greeting_check(struct qmp *q, const json_t *msg)
{
	const json_t *version = json_object_get(json_object_get(json_object_get(msg, "QMP"), "version"), "qemu");
	int major = version_part(version, "major");
	int minor = version_part(version, "minor");
	int micro = version_part(version, "micro");

	if (!json_is_integer(json_object_get(version, "major")) || !json_is_integer(json_object_get(version, "minor")))
		return err_set(&q->dead, ERR_PROTOCOL,
			       "%s speaks JSON but does not greet as a QMP monitor: name a -qmp socket of QEMU",
			       q->name);
	q->version = major * 10000 + minor * 100 + micro;
	if (q->version < QMP_VERSION_MIN)
		return err_set(
			&q->dead, ERR_UNSUPPORTED,
			"monitor %s belongs to QEMU %d.%d.%d, at least 7.2.0 is needed: start the guest with a newer "
			"QEMU",
			q->name, major, minor, micro);
	return 0;
}

static int greeting_late(struct qmp *q)
{
	return err_set(&q->dead, ERR_TIMEOUT,
		       "monitor %s accepts but sends no greeting: most likely another client is connected to it (QEMU "
		       "serves one at a time): close that one or give QEMU a second -qmp socket; or QEMU hangs",
		       q->name);
}

static int greeting_read(struct qmp *q, int64_t deadline_ns)
{
	size_t bytes;
	json_t *msg;
	int r = message_read(q, deadline_ns, &msg, &bytes);

	if (r == 0)
		return greeting_late(q);
	if (r < 0)
		return -1;
	r = greeting_check(q, msg);
	json_decref(msg);
	return r;
}

/* The kernel keeps the pid of whoever called listen(2); 0 means a process of another pid namespace. */
static pid_t peer_pid(int fd)
{
	struct ucred cred = {.pid = -1};
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || cred.pid <= 0)
		return -1;
	return cred.pid;
}

int qmp_open_fd(int fd, const char *name, int64_t deadline_ns, struct qmp **ret, struct err *e)
{
	struct qmp *q = xcalloc(1, sizeof(*q));

	q->fd = fd;
	q->name = xstrdup(name);
	q->events_tail = &q->events;
	q->peer_pid = peer_pid(fd);
	if (greeting_read(q, deadline_ns) < 0) {
		dead_report(q, e);
	} else if (qmp_call(q, "qmp_capabilities", NULL, deadline_ns, NULL, e) == 0) {
		*ret = q;
		return 0;
	}
	qmp_close(q);
	return -1;
}

/* connect(2) of a unix socket waits while the listener's backlog is full, for as long as SO_SNDTIMEO says. */
static int connect_timeout_set(int fd, int64_t deadline_ns)
{
	int64_t left = deadline_ns - clock_now_ns();
	struct timeval tv;

	/* Zero means to wait for ever, so a deadline that has passed becomes a millisecond. */
	if (deadline_ns < 0)
		left = 0;
	else if (left < NS_PER_MS)
		left = NS_PER_MS;
	tv.tv_sec = left / NS_PER_S;
	tv.tv_usec = left % NS_PER_S / 1000;
	return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

static int connect_failed(const char *path, struct err *e)
{
	int errnum = errno;
	const char *hint = ": is it a socket of QEMU?";

	if (errnum == EAGAIN)
		return err_set(e, ERR_TIMEOUT,
			       "monitor %s takes no connection: another client is connected to it and more wait (QEMU "
			       "serves one at a time): close them or give QEMU a second -qmp socket",
			       path);
	if (errnum == ENOENT)
		hint = ": is the guest running, with -qmp unix:PATH,server=on,wait=off?";
	else if (errnum == ECONNREFUSED)
		hint = ": no QEMU listens there any more, or it is no socket; start the guest again";
	else if (errnum == EACCES || errnum == EPERM)
		hint = ": run this as the user of that QEMU, or give the socket's directory other rights";
	errno = errnum;
	err_sys(e, "connect to monitor %s", path);
	if (e)
		strncat(e->text, hint, sizeof(e->text) - strlen(e->text) - 1);
	return -1;
}

int qmp_open(const char *path, int64_t deadline_ns, struct qmp **ret, struct err *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	_closefd_ int fd = -1;
	int r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(e, ERR_INPUT,
			       "monitor %.200s: the path is longer than %zu bytes: use a shorter directory", path,
			       sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect_timeout_set(fd, deadline_ns) < 0)
		return err_sys(e, "socket for monitor %s", path);
	do
		r = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return connect_failed(path, e);
	if (connect_timeout_set(fd, SOCK_FOREVER) < 0)
		return err_sys(e, "socket for monitor %s", path);
	return qmp_open_fd(steal_fd(&fd), path, deadline_ns, ret, e);
}

void qmp_close(struct qmp *q)
{
	struct qmp_event ev;

	if (!q)
		return;
	while (q->events) {
		event_unlink(q, &q->events, &ev);
		qmp_event_done(&ev);
	}
	close(q->fd);
	free(q->buf);
	free(q->name);
	free(q);
}

int qmp_version(const struct qmp *q)
{
	return q->version;
}

pid_t qmp_peer_pid(const struct qmp *q)
{
	return q->peer_pid;
}

int qmp_fd(const struct qmp *q)
{
	return q->fd;
}
