/* SPDX-License-Identifier: Apache-2.0 */
/* What godwit-migrate gives up before it reads the first byte of a peer: identity, capabilities, system calls. */
#ifndef GODWIT_MIGRATE_SANDBOX_H
#define GODWIT_MIGRATE_SANDBOX_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

struct sandbox_options {
	pid_t qemu_pid;    /* started as root, go on as this process's user and group; 0: stay who we are */
	bool nobody;       /* started as root, there is no QEMU: go on as nobody */
	bool rename_files; /* `save` puts its finished file in place: allow rename and unlink */
};

/* Enter the sandbox; there is no way back. Call it once, while this process has a single thread (an error otherwise),
 * after whatever must be opened for writing is open and the guard process is forked. From then on:
 *  - no new privileges, no capabilities, no core dump, not traceable by others (PR_SET_DUMPABLE 0, so /proc/self/fd/N
 *    cannot be opened any more);
 *  - files are opened for reading only; threads can be started (return from them, never pthread_exit(): it would load
 *    a library), processes cannot; no memory becomes executable (EPERM);
 *  - any system call that is not on the list in sandbox.c kills the process with SIGSYS. With GODWIT_SANDBOX=log in the
 *    environment its name is written to stderr first.
 * Builds with a sanitizer do without the filter of system calls, which their runtimes break; the rest holds.
 * 0, or -1 with @e (the process is then somewhere in between: exit). */
int sandbox_enter(const struct sandbox_options *opt, struct err *e);

#endif
