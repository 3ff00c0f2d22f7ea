/* SPDX-License-Identifier: Apache-2.0 */
/* godwit-watchdog's loop: one thread that waits for messages, deadlines, signals and the ends of guests. */
#ifndef GODWIT_WATCHDOG_SERVE_H
#define GODWIT_WATCHDOG_SERVE_H

#include "base/err.h"

struct serve_options {
	const char *run_dir;
	const char *device; /* NULL: none */
	char *const *argv;  /* to become the program's next version with (SIGHUP) */
};

/* Descriptors that an earlier version left us across its exec; -1: none. */
struct serve_legacy {
	int listen_fd;
	int permit_fd;
	int device_fd;
};

/* Reads what an earlier version left in the environment, and takes it out of there. */
struct serve_legacy serve_legacy(void);

/* Serve until told to end. Before it is called, signals are at their defaults. 0 ended in order: nothing was left to
 * guard, the device is disarmed. -1 with @e: it could not begin. */
int serve_run(const struct serve_options *o, struct serve_legacy *legacy, struct err *e);

#endif
