/* SPDX-License-Identifier: Apache-2.0 */
/* The guard: a second process beside each engine that settles the hand-over when the engine is killed or hangs. */
#ifndef GODWIT_MIGRATE_GUARD_H
#define GODWIT_MIGRATE_GUARD_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "migrate/handover.h"

struct guard {
	pid_t pid;
	int life_fd; /* closed when we end, however that happens */
};

#define GUARD_INIT ((struct guard){.pid = -1, .life_fd = -1})

/* An engine that gives no sign of life for this long while the guest is stopped for the hand-over is killed and its
 * move settled. */
#define GUARD_STALL (3 * NS_PER_S)

/* Settles the move; runs in the guard's process. Returns what it prints to stderr, or NULL for nothing. */
typedef const char *guard_settle_fn(void *arg);

/* Closes the guard's copies of everything that must be seen closed when the engine closes it: monitor and channels. */
typedef void guard_detach_fn(void *arg);

/* Fork the guard. Before any thread is started. @settle and @arg live in the guard's copy of our memory; @h is shared.
 * @critical_from..@critical_to: the steps in which a silent engine is a danger. */
int guard_start(struct guard *g, struct handover *h, int critical_from, int critical_to, guard_detach_fn *detach,
		guard_settle_fn *settle, void *arg, struct err *e);

/* Nothing is left to settle: let the guard go and wait for it. */
void guard_end(struct guard *g, struct handover *h);

#endif
