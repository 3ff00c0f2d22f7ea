/* SPDX-License-Identifier: Apache-2.0 */
/* A host for tests of godwit-watchdog: a run directory, the program with a device that is a double, and guests. */
#ifndef GODWIT_TESTS_UNIT_WATCHDOG_HOST_H
#define GODWIT_TESTS_UNIT_WATCHDOG_HOST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above it. */
#include <cmocka.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/mem.h"
#include "fencing/keeper-client.h"

#define MARK "godwit:c1:"
#define LEASE (2 * NS_PER_S)
#define BUDGET (600 * NS_PER_MS)
#define IN_S(seconds) (clock_now_ns() + (seconds)*NS_PER_S)

extern char host_dir[64];    /* everything is below it */
extern char host_device[96]; /* the double */
extern char host_log[96];    /* what the program says */
extern int host_stderr;      /* where else it says it; -1: host_log */

int host_setup(void **state);
int host_teardown(void **state); /* ends what the test started; fails when the program died of a signal */

/* The folder of the programs. */
const char *host_build(void);

/* Start godwit-watchdog with @device (NULL: the double) out of @program (NULL: the one that was built), and wait until
 * it serves. */
void host_watchdog(const char *program, const char *device);
extern struct child host_dog;

/* Connect and configure with the times above and a watchdog of two seconds. */
struct keeper_client host_client(struct keeper_status *ret);

/* The answer to the last request: statuses that come by themselves are skipped. */
struct keeper_status host_answer(struct keeper_client *k);

/* Wait for a status in @state, ten seconds at most. */
struct keeper_status host_state(struct keeper_client *k, enum keeper_state state);

/* A process with a record as godwit-vm writes it, that ends on SIGTERM, or notes it and goes on (@stubborn). When it
 * got SIGTERM is in a file, see host_term_ns(). Caller: child_done(). */
struct child host_guest(const char *name, const char *mark, bool stubborn);
void host_record(const char *name, const char *mark, const struct child *c);
int64_t host_term_ns(const char *name); /* clock_boot_ns(), 0: not yet */

/* A process that SIGKILL does not end until host_unstick(): the first one of a process namespace, whose child is held
 * by a tracer, is not gone before that child is. */
struct child host_stuck_guest(const char *name);
void host_unstick(void);

/* When @c ended (clock_boot_ns()); fails the test after @seconds. */
int64_t host_end_ns(struct child *c, int seconds);

bool host_file(const char *name, int seconds); /* in host_dir: there, or comes within so long */
bool host_said(const char *text);              /* the program, in its log */
unsigned host_device_did(const char *what, int64_t since_ns);

#endif
