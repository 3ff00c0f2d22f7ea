/* SPDX-License-Identifier: Apache-2.0 */
/* Time: every deadline and every duration is in nanoseconds of CLOCK_MONOTONIC, never wall time. */
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
