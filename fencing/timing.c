/* SPDX-License-Identifier: Apache-2.0 */
/* The times of fencing and leases out of corosync's token, and the rules between them. */
#include "fencing/timing.h"

#include "base/clock.h"
#include "base/mem.h"

#define WATCHDOG_MIN (2 * NS_PER_S) /* drivers take whole seconds, and some refuse 1 */
#define PETS 8                      /* in one time-out of the watchdog */

static int64_t whole_seconds(int64_t ns)
{
	return (ns + NS_PER_S - 1) / NS_PER_S * NS_PER_S;
}

int64_t timing_drift(int64_t ns)
{
	return ns / 1000000 * TIMING_RATE_PPM + ns % 1000000 * TIMING_RATE_PPM / 1000000 + 1;
}

void timing_make(unsigned token_ms, struct timing *ret)
{
	unsigned in_range = token_ms < TIMING_TOKEN_MS_MIN   ? TIMING_TOKEN_MS_MIN
			    : token_ms > TIMING_TOKEN_MS_MAX ? TIMING_TOKEN_MS_MAX
							     : token_ms;
	int64_t t = in_range * NS_PER_MS;
	struct timing r = {
		.token_ns = t,
		.detect_ns = t * 5 / 2, /* measured: up to 2.4 t */
		.beat_ns = t / 4,
		.lease_ns = t * 4,
		.stop_ns = t,
		.watchdog_ns = whole_seconds(3 * t),
		.latency_ns = t / 2,
		.disk_poll_ns = t / 2,
	};

	if (r.watchdog_ns < WATCHDOG_MIN)
		r.watchdog_ns = WATCHDOG_MIN;
	r.pet_ns = r.watchdog_ns / PETS;
	r.margin_ns = r.latency_ns + timing_drift(r.lease_ns + r.watchdog_ns);
	r.expire_ns = r.lease_ns + r.watchdog_ns + r.margin_ns;
	*ret = r;
}

/* ---- the rules ---- */

static int holds_detect(const struct timing *t)
{
	/* Corosync's consensus is 1.2 x token here (node/corosync.c). */
	return t->detect_ns >= t->token_ns + t->token_ns * 6 / 5;
}

static int holds_ring(const struct timing *t)
{
	return t->lease_ns >= t->detect_ns + 2 * t->beat_ns + t->latency_ns;
}

static int holds_beats(const struct timing *t)
{
	return t->lease_ns >= 8 * t->beat_ns;
}

static int holds_latency(const struct timing *t)
{
	return 2 * t->latency_ns >= t->token_ns;
}

static int holds_stop(const struct timing *t)
{
	return t->watchdog_ns >= t->stop_ns + t->pet_ns + t->latency_ns;
}

static int holds_pets(const struct timing *t)
{
	return t->pet_ns > 0 && t->watchdog_ns >= 4 * t->pet_ns;
}

static int holds_whole(const struct timing *t)
{
	return t->watchdog_ns >= WATCHDOG_MIN && t->watchdog_ns % NS_PER_S == 0;
}

static int holds_margin(const struct timing *t)
{
	return t->margin_ns >= t->latency_ns + timing_drift(t->lease_ns + t->watchdog_ns);
}

static int holds_expiry(const struct timing *t)
{
	return t->expire_ns >= t->lease_ns + t->watchdog_ns + t->margin_ns;
}

static int holds_disk(const struct timing *t)
{
	return t->disk_poll_ns > 0 && t->expire_ns >= t->detect_ns + 2 * t->disk_poll_ns + t->stop_ns + t->latency_ns;
}

static const struct timing_rule rules[] = {
	{"detect", "detection takes a token and a consensus: a shorter time would be no upper bound", holds_detect},
	{"ring",
	 "a lease outlasts the time in which the ring forms anew, plus two beats: otherwise one host's death stops the "
	 "guests of all",
	 holds_ring},
	{"beats", "a lease lasts for eight beats: otherwise a few lost messages stop guests", holds_beats},
	{"latency",
	 "timers may be late by half a token: a host on which they are later loses corosync's token, too, and nothing "
	 "promises that its clock was looked at in time",
	 holds_latency},
	{"stop",
	 "the watchdog leaves time for stopping guests, counted from the last petting before the end of the lease: "
	 "otherwise it resets hosts whose guests were ending in order",
	 holds_stop},
	{"pets", "the watchdog is petted four times or more in its time-out: otherwise a late timer resets the host",
	 holds_pets},
	{"whole", "the watchdog's time-out is whole seconds, at least 2: its driver would round it by itself",
	 holds_whole},
	{"margin", "the margin covers late timers and clocks of different rates: otherwise a guest may run twice",
	 holds_margin},
	{"expiry",
	 "the proof by expiry waits for the lease, the watchdog and the margin: otherwise a guest may run twice",
	 holds_expiry},
	{"disk", "a pill on the disk works sooner than the proof by expiry: otherwise it is of no use", holds_disk},
};

const struct timing_rule *timing_rules(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(rules);
	return rules;
}

int timing_check(const struct timing *t, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (!rules[i].holds(t))
			return err_set(e, ERR_INPUT,
				       "these times do not fit together (%s): %s; derive all of them from the token",
				       rules[i].name, rules[i].text);
	return 0;
}
