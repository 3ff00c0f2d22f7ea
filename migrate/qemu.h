/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine asks of a QEMU over QMP: capabilities, parameters, starting either end, how far it is. */
#ifndef GODWIT_MIGRATE_QEMU_H
#define GODWIT_MIGRATE_QEMU_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "hv/qmp.h"

#define QEMU_PATIENCE (10LL * 1000000000LL)

/* What the engine changed in a QEMU, to be put back when the guest stays. */
struct qemu_settings {
	json_t *capabilities; /* as query-migrate-capabilities said before */
	json_t *parameters;   /* likewise */
};

/* Switch on what the tap needs (events, return-path), everything that would change the stream off, bandwidth unlimited,
 * downtime-limit 1 ms. @ret is filled before anything is changed. */
int qemu_setup_src(struct qmp *q, bool auto_converge, struct qemu_settings *ret, struct err *e);

/* Destination: events and late-block-activate on (disks stay inactive until `cont`), the rest off; never start by
 * itself. */
int qemu_setup_dst(struct qmp *q, struct err *e);

void qemu_settings_restore(struct qmp *q, struct qemu_settings *s);
void qemu_settings_done(struct qemu_settings *s);

int qemu_set_downtime_limit(struct qmp *q, unsigned ms, struct err *e);

/* Give QEMU one end of a socketpair and begin: the other end is returned (caller closes), or -1. What QEMU has written
 * and we have not read is sent in the pause when QEMU stops the guest: @bytes bounds it, between QEMU_SOCKET_MIN and
 * QEMU_SOCKET_MAX (more brings no speed). */
#define QEMU_SOCKET_MIN (64U << 10)
#define QEMU_SOCKET_MAX (208U << 10)
int qemu_start_src(struct qmp *q, uint64_t bytes, struct err *e);
int qemu_start_dst(struct qmp *q, struct err *e);

/* Answer the return path of a source QEMU with SHUT(0), on the end that qemu_start_src() returned: everything arrived,
 * it may complete. Until then it takes every end of ours for a failure and lets its guest run on. */
int qemu_let_complete(int fd, struct err *e);

struct qemu_progress {
	char status[24]; /* "setup", "active", "device", "completed", "failed", ... */
	unsigned pass;   /* dirty-sync-count */
	uint64_t remaining, total;
	uint64_t dirty_rate; /* bytes/s, of the last pass */
	unsigned throttle_percent;
	char error[300]; /* error-desc, "" when there is none */
};

int qemu_query(struct qmp *q, struct qemu_progress *ret, struct err *e);

/* The run state ("running", "paused", "inmigrate", ...). */
int qemu_run_state(struct qmp *q, char *ret, size_t size, struct err *e);

/* A pidfd of the QEMU behind @q, or -1 (then only its sockets tell of its death). */
int qemu_pidfd(struct qmp *q);

#endif
