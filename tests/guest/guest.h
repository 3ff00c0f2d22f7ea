/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the test guest's init share: its console, its clock, its threads. */
#ifndef GUEST_GUEST_H
#define GUEST_GUEST_H

#include <stdint.h>

#define NS_PER_S 1000000000LL

/* One line to the console, whole. Any thread. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* CLOCK_MONOTONIC in nanoseconds: the guest's own time, which a move does not see. Any thread. */
int64_t now_ns(void);

/* Sleep until @ns of CLOCK_MONOTONIC. Any thread. */
void sleep_until(int64_t ns);

/* Start @run in a thread that is never joined; a failure is said on the console. */
void thread_start(void *(*run)(void *), void *arg);

/* Find the newest record of /dev/vda and go on from there, in a thread: ten records a second (disk.c). Says on the
 * console where it begins, or why it cannot. */
void disk_start(void);

/* The console's `disk`: what was written last, in one line. Console thread. */
void disk_command(void);

#endif
