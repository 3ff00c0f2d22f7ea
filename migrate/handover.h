/* SPDX-License-Identifier: Apache-2.0 */
/* The hand-over: who may run the guest, what each side remembers, and how either side settles it after a death or a
 * cut. */
#ifndef GODWIT_MIGRATE_HANDOVER_H
#define GODWIT_MIGRATE_HANDOVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sock.h"
#include "migrate/conn.h"

/*
 * Theory of operation (promise S4; the table of every phase and every death is in docs/migration.md)
 *
 * The source's QEMU runs with a return path that ends in our engine. Until the engine answers SHUT(0) there, that QEMU
 * takes every end of the engine for a failed migration and lets its guest run on, without anybody's help. The steps of
 * the hand-over are:
 *
 *   destination: QEMU has loaded everything, vCPUs stopped, disks inactive        -> LOADED on the wire
 *   source:      SHUT(0) to its QEMU, which answers `completed`: it can no longer resume by itself
 *   source:      GO on the wire: from here on this side never resumes the guest unless the destination says it never
 * ran destination: `cont`, the guest runs                                           -> RUNNING on the wire
 *
 * Each side keeps its step in a record that its *guard* shares (migrate/guard.h): when an engine dies or hangs, the
 * guard ends what it began. A step is written to the record before it is taken, so a record is never behind the truth.
 * What is not known then is asked: the source connects to the destination's port with the move's token and says "GO
 * stands" or "give up", and the destination's answer is final ("running", or "never": it did not run the guest and
 * never will).
 */

enum src_step {
	SRC_COPY,     /* our QEMU owns the guest and runs it */
	SRC_STOPPED,  /* QEMU has stopped the guest for the switchover; it resumes it by itself if we vanish */
	SRC_SHUT,     /* SHUT(0) is about to leave: QEMU may be `completed` any moment; GO is not sent */
	SRC_RELEASED, /* QEMU is `completed`; GO is not sent */
	SRC_GO,       /* GO may be on the wire */
	SRC_MOVED,    /* final: the destination runs it */
	SRC_KEPT,     /* final: the guest is ours again */
	SRC_STEP_MAX
};

enum dst_step {
	DST_PREPARE, /* nothing that could run is here yet */
	DST_LOADED,  /* the guest is loaded and stopped; LOADED may be on the wire */
	DST_GO,      /* GO was received: the guest is ours, run it */
	DST_RUNNING, /* final: it runs here */
	DST_NEVER,   /* final: it did not run here and never will */
	DST_STEP_MAX
};

/* Shared with the guard, in anonymous memory or in a file that others may look at. Written by the engine; by the guard
 * only once the engine is gone. */
struct handover {
	atomic_uint version;     /* HANDOVER_VERSION: a daemon may be newer than the engine that it finds at work */
	atomic_int step;         /* enum src_step or enum dst_step */
	atomic_llong beat_ns;    /* clock_now_ns() of the engine's last sign of life; in the future: handover_busy() */
	atomic_bool settled;     /* nothing is left for the guard to do */
	atomic_bool unagreed;    /* source: GO must not be said yet, by nobody (migrate/agree.h) */
	atomic_bool was_running; /* the guest ran when the move began, so it must run on; a paused one stays paused */
};

#define HANDOVER_VERSION 1U

/* In the file behind @fd, which has room for it (handover_reserve()); -1: in memory. */
struct handover *handover_new(int fd);
int handover_reserve(int fd, struct err *e);

/* The step in the record in the file behind @fd: of an engine, or a guard, that lives or is gone; *ret_was_running as
 * in the record. -1: there is none, so nothing was begun. -2: it is of another version. */
int handover_look(int fd, bool *ret_was_running);

/* Move to a step; aborts when the table of allowed successors says no (our own mistake). Logs the move. */
void handover_src_move(struct handover *h, enum src_step next);
void handover_dst_move(struct handover *h, enum dst_step next);
const char *src_step_name(enum src_step s);
const char *dst_step_name(enum dst_step s);

/* About to wait for something that ends by itself within @ns: the guard does not take it for a hang. */
void handover_busy(struct handover *h, int64_t ns);

/* How a settlement ended. */
enum settle_result {
	SETTLE_HERE,      /* the guest runs (or, if it was paused, stays) on this side */
	SETTLE_THERE,     /* it is the other side's */
	SETTLE_NOWHERE,   /* its QEMU is gone: nobody can run it */
	SETTLE_UNDECIDED, /* the other side could not be asked in time; the guest is stopped on this side */
	SETTLE_RESULT_MAX
};

struct qmp;
struct settle_src {
	struct handover *h;
	const char *qmp_path;
	struct qmp *kept; /* the engine's own connection, used first: it may have given up the right to open another
			     (migrate/sandbox.h); taken. NULL: none */
	int qemu_pidfd;   /* -1 when unknown */
	struct sock_addr to;
	const struct conn_secret *secret;
	uint8_t session[WIRE_SESSION_SIZE];
	int64_t patience_ns; /* how long to ask before giving up undecided */
	bool denied;         /* the destination has said, after GO, that it did not run the guest and never will */
};

/* Source: bring the move to its end from whatever step the record is at. No other QMP connection of ours may be open.
 * @why: for the log. */
enum settle_result handover_src_settle(struct settle_src *s, char *why, size_t why_size);

struct settle_dst {
	struct handover *h;
	const char *qmp_path;
	struct qmp *kept; /* as above */
	int qemu_pidfd;
	int listen_fd;
	const struct conn_secret *secret;
	uint8_t session[WIRE_SESSION_SIZE];
	int64_t patience_ns;
};

/* Destination: likewise. Answers the source's questions on listen_fd, for as long as it takes or patience lasts. */
enum settle_result handover_dst_settle(struct settle_dst *s, char *why, size_t why_size);

/* Destination: run the guest, or leave it paused if it was. 0 once it runs (RESUME seen), -1 with @e and the certainty
 * that it did not and will not (its QEMU is ended). */
int handover_dst_run(struct handover *h, struct qmp *q, int qemu_pidfd, struct err *e);

/* End a QEMU for good: QMP quit where @q is usable (may be NULL), SIGKILL two seconds later, or at once. */
void handover_end_qemu(struct qmp *q, int qemu_pidfd);

#endif
