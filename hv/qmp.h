/* SPDX-License-Identifier: Apache-2.0 */
/* QMP client: one blocking connection to a QEMU monitor, with deadlines, events kept in order, descriptors passed. */
#ifndef GODWIT_HV_QMP_H
#define GODWIT_HV_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Thread: one at a time uses a struct qmp; nothing in it is locked. Several connections are independent. */
struct qmp;

/* An event as QEMU sent it. Owned by whoever took it; qmp_event_done() drops it. */
struct qmp_event {
	char name[64];   /* "STOP", "RESUME", "MIGRATION", ... */
	json_t *data;    /* the "data" object; NULL when the event has none */
	int64_t seen_ns; /* clock_now_ns() when it was read from the socket */
	int64_t sent_ns; /* QEMU's own timestamp of it on our clock: QEMU may hold events back while it is busy (a STOP
			    until its device state is written); seen_ns where there is none */
};

/* Connect to the monitor at @path, read the greeting, negotiate capabilities; all by @deadline_ns (absolute).
 * Not a QMP socket, a silent one, a QEMU older than 7.2: -1 with a sentence. On success *ret is owned by the caller. */
int qmp_open(const char *path, int64_t deadline_ns, struct qmp **ret, struct err *e);

/* As qmp_open on an already connected descriptor; takes @fd. @name is used in messages. (Tests use a socketpair.) */
int qmp_open_fd(int fd, const char *name, int64_t deadline_ns, struct qmp **ret, struct err *e);

/* NULL is fine. */
void qmp_close(struct qmp *q);

/* QEMU's version from the greeting as major * 10000 + minor * 100 + micro, e.g. 70222. */
int qmp_version(const struct qmp *q);

/* The process behind the socket (SO_PEERCRED of the listener), or -1 where the kernel does not know. */
pid_t qmp_peer_pid(const struct qmp *q);

/* The descriptor, for poll(2): readable means that qmp_event_next() or a reply may be there. Borrowed. */
int qmp_fd(const struct qmp *q);

/* Run @command with @args (borrowed, may be NULL). Events that arrive in between are queued.
 * @ret (may be NULL) gets a new reference to the "return" value.
 * -1 with @e: ERR_QMP with QEMU's own words ("command: desc"), ERR_TIMEOUT, ERR_PROTOCOL (bad JSON, wrong id, an answer
 * over QMP_LINE_MAX, an integer jansson cannot hold), ERR_SYSTEM. After anything but ERR_QMP the connection is dead and
 * every later call fails with the same sentence. */
int qmp_call(struct qmp *q, const char *command, json_t *args, int64_t deadline_ns, json_t **ret, struct err *e);

/* As qmp_call with the arguments in jansson's json_pack format, e.g. qmp_callf(q, dl, &r, e, "getfd", "{s:s}",
 * "fdname", "mig"). */
int qmp_callf(struct qmp *q, int64_t deadline_ns, json_t **ret, struct err *e, const char *command, const char *fmt,
	      ...);

/* `getfd` with @fd attached; QEMU gets a duplicate, the caller keeps @fd. */
int qmp_send_fd(struct qmp *q, const char *fdname, int fd, int64_t deadline_ns, struct err *e);

/* Take the oldest queued event, reading from the socket until @deadline_ns when there is none (deadline 0: do not
 * wait). 1 with *ret filled, 0 nothing by then, -1 with @e. Events read before the connection died come first. At most
 * 4096 events and 16 MiB wait; then the oldest go, those that tell run state or migration last. */
int qmp_event_next(struct qmp *q, int64_t deadline_ns, struct qmp_event *ret, struct err *e);
void qmp_event_done(struct qmp_event *ev);

/* The longest reply or event accepted, in bytes. */
#define QMP_LINE_MAX (16U << 20)

#endif
