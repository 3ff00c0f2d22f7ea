/* SPDX-License-Identifier: Apache-2.0 */
/* All times of fencing and leases, derived from one number: corosync's token. Pure. */
#ifndef GODWIT_FENCING_TIMING_H
#define GODWIT_FENCING_TIMING_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * docs/timing.md has these times as a table, says what happens when, and argues with them that no guest runs twice. Its
 * numbers are checked against this code by timing-test.
 *
 * All are nanoseconds. A host uses longer times only once the replicated state says so of it, and shorter ones before:
 * others count it as dead by the times that the state names.
 */
struct timing {
	int64_t token_ns;     /* what corosync waits for its token */
	int64_t detect_ns;    /* from a cut to the view that says so */
	int64_t beat_ns;      /* between two beats of a host */
	int64_t lease_ns;     /* from the sending of a beat that a majority has heard, guests may run for so long */
	int64_t stop_ns;      /* from SIGTERM to SIGKILL for the guests of a lease that has ended */
	int64_t pet_ns;       /* between two pettings of the watchdog */
	int64_t watchdog_ns;  /* from the last petting to the reset of the host; whole seconds */
	int64_t latency_ns;   /* how late a timer, a thread or the watchdog itself may be */
	int64_t margin_ns;    /* latency, and what two clocks may differ by during a lease and a watchdog's time-out */
	int64_t expire_ns;    /* a host that no majority has heard for so long runs no guest any more */
	int64_t disk_poll_ns; /* between two looks at the shared disk */
};

/* The rates of the clocks of two hosts differ by no more than this, in millionths. The kernel slews by 500 at most. */
#define TIMING_RATE_PPM 1000

#define TIMING_TOKEN_MS_MIN 300U
#define TIMING_TOKEN_MS_MAX 30000U

/* @token_ms out of range: the nearest that is in it. */
void timing_make(unsigned token_ms, struct timing *ret);

/* What must hold between the times so that what docs/timing.md says is true. */
struct timing_rule {
	const char *name;
	const char *text; /* a sentence, which also says what goes wrong otherwise */
	int (*holds)(const struct timing *t);
};

/* All rules; their number in *ret_n. */
const struct timing_rule *timing_rules(size_t *ret_n);

/* 0, or -1 with @e (ERR_INPUT): the name and the sentence of the first rule that does not hold. */
int timing_check(const struct timing *t, struct err *e);

/* May clocks of different rates differ by so much after @ns? */
int64_t timing_drift(int64_t ns);

#endif
