/* SPDX-License-Identifier: Apache-2.0 */
/* Time: every deadline and every duration is in nanoseconds of CLOCK_MONOTONIC; stamps are wall time. */
#ifndef GODWIT_BASE_CLOCK_H
#define GODWIT_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_MS 1000000LL
#define NS_PER_S 1000000000LL

static inline int64_t clock_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* The same while the host sleeps, too (CLOCK_BOOTTIME): for what must be over when a suspended host wakes up. */
static inline int64_t clock_boot_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* Milliseconds since 1970 by the wall clock: for stamps that people and other hosts read, never for deadlines. */
static inline int64_t clock_wall_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / NS_PER_MS;
}

/* Milliseconds left until @deadline_ns for poll(2): -1 for "for ever" (deadline < 0), never below 0 otherwise, rounded
 * up. */
static inline int clock_poll_ms(int64_t deadline_ns)
{
	int64_t left;

	if (deadline_ns < 0)
		return -1;
	left = deadline_ns - clock_now_ns();
	if (left <= 0)
		return 0;
	left = (left + NS_PER_MS - 1) / NS_PER_MS;
	return left > 1000000 ? 1000000 : (int)left;
}

#endif
