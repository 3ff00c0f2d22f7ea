/* SPDX-License-Identifier: Apache-2.0 */
/* When to let QEMU stop the guest: raises downtime-limit no further than the smallest dirty set needs, or gives up.
 *
 * Theory of operation
 * -------------------
 * QEMU stops the guest after a sync of the dirty log when  pending < measured bandwidth x downtime-limit,  and computes
 * that threshold every 100 ms. The limit is thus no promise about the pause, it is the size of the remainder at which
 * QEMU stops trying: with 300 ms it leaves 300 ms of pages for the pause even though one more pass would have left
 * 3 ms. So the limit starts at 1 ms (0 would end the copy after one pass) and is raised only when the dirty sets have
 * stopped shrinking, and then only to what the smallest of them needs.
 *
 * What a look sees. The dirty set of a pass is what remains when it begins. Inside a pass the remainder only falls, so
 * the first look at a pass shows the largest value. Two regimes follow from looking every 50 ms:
 *
 *   slow wire   A pass takes longer than a look. Each pass is seen near its beginning, its set is known up to what the
 *               wire carried since (an estimate that is too small errs towards a short pause and is corrected by the
 *               next raise). A pass of over 200 ms is dear, so two that bring nothing are enough to act.
 *
 *   fast wire   A pass takes 5-10 ms, several go by between two looks, and the remainder shown is that of a random
 *               moment of the newest one. But each pass sends its dirty set, so the mean set of the passes that went by
 *               is  wire rate x time / passes:  the larger of the two is taken. Here the guest's writes come in bursts
 *               (a vCPU that is scheduled away for 5 ms leaves a tiny set behind), plain luck ends such a move at 1 ms
 *               within some 250 ms, and a raised limit would only make the pause longer. So nothing is raised before
 *               400 ms and 4 passes went by without shrinking.
 *
 * Shrinking is judged against a reference, the set of the last pass that shrank: a pass shrinks when it is below 0.8 of
 * it. Comparing with the pass just before would call a guest that writes 0.85 of what the wire carries stuck, although
 * its sets fall geometrically; against the reference it shrinks in every second pass. A geometric tail is cheap: from
 * 300 ms down to 1 ms it costs 300 ms / (1 - ratio) of copying and saves 299 ms of pause, so as long as it shrinks the
 * limit is (again) 1 ms. The reference only falls, by a fifth each time, so that happens at most some forty times.
 * With auto-converge the guest is already being slowed down: there a raised limit stays, the end is wanted soon.
 *
 * Raises are at least 200 ms and two passes apart, so that QEMU has seen the new limit before it is judged.
 *
 * Giving up. At max_pause_ms, when the smallest set does not fit, four more passes and three seconds without at least
 * 5 % less end it. If the smallest set does fit by our count and QEMU still has not stopped (sets jump, the wire
 * stutters) patience is four times that. With auto-converge QEMU raises the throttle by 10 % after two busy periods of
 * a second or more each, 20 % to 99 %: twenty passes and forty seconds without shrinking see all of its steps. */
#include "migrate/policy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define LIMIT_FIRST_MS 1
#define SHRINK_PERCENT 80 /* of the reference: below is shrinking */
#define LONG_PASS_NS (200 * NS_PER_MS)
#define LONG_STALL_PASSES 2
#define SHORT_STALL_PASSES 4
#define SHORT_STALL_NS (400 * NS_PER_MS)
#define RAISE_GAP_PASSES 2
#define RAISE_GAP_NS (200 * NS_PER_MS) /* QEMU's threshold is up to 100 ms old */
#define NEED_PERCENT 110               /* of the smallest set: what comes in while the last sync runs */

#define TOP_BETTER_PERCENT 95 /* at max_pause_ms: below is progress */
#define TOP_PASSES 4
#define TOP_NS (3 * NS_PER_S)
#define TOP_FITS_FACTOR 4
#define THROTTLED_PASSES 20
#define THROTTLED_NS (40 * NS_PER_S)

/* @a x @b / @c without overflow for any sizes and rates that occur (128 bits between). @c > 0. Pure. */
static uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 v = (unsigned __int128)a * b / c;

	return v > UINT64_MAX ? UINT64_MAX : (uint64_t)v;
}

/* Milliseconds that @bytes need at @rate with our margin, rounded up, at least 1. @rate > 0. */
static uint64_t need_ms(uint64_t bytes, uint64_t rate)
{
	uint64_t us = mul_div(mul_div(bytes, NEED_PERCENT, 100), 1000000, rate);

	return us / 1000 + 1;
}

/* Does the allowed pause hold the smallest dirty set seen? */
static bool smallest_fits(const struct policy *p)
{
	return need_ms(p->smallest, p->wire) <= p->opt.max_pause_ms;
}

void policy_init(struct policy *p, const struct policy_options *opt)
{
	*p = (struct policy){.opt = *opt, .limit_ms = LIMIT_FIRST_MS};
	if (p->opt.max_pause_ms == 0)
		p->opt.max_pause_ms = 1;
}

/* The dirty set with which the newest pass began, as well as it can be told @jump passes after the last look. */
static uint64_t dirty_set_seen(const struct policy *p, const struct policy_sample *s, unsigned jump)
{
	uint64_t mean;

	if (jump < 2 || p->wire == 0 || s->elapsed_ns <= p->sampled_ns)
		return s->remaining;
	mean = mul_div(p->wire, (uint64_t)(s->elapsed_ns - p->sampled_ns), NS_PER_S) / jump;
	return mean > s->remaining ? mean : s->remaining;
}

/* The sets shrink: a fresh start from here. */
static void shrank(struct policy *p, uint64_t set, int64_t now_ns)
{
	p->reference = set;
	p->stall_ns = now_ns;
	p->stalled = 0;
	p->raised_at = 0;
	if (!p->opt.auto_converge)
		p->limit_ms = LIMIT_FIRST_MS;
}

/* Account for the passes that began since the last look. */
static void passes_went_by(struct policy *p, const struct policy_sample *s)
{
	unsigned jump = s->pass - p->pass;
	int64_t length_ns = (s->elapsed_ns - p->pass_ns) / jump;
	uint64_t set = dirty_set_seen(p, s, jump);
	bool first = p->smallest == 0;

	p->pass = s->pass;
	p->pass_ns = s->elapsed_ns;
	if (s->pass < 2)
		return; /* the first pass sends everything: its size says nothing about the guest */
	if (s->dirty_rate > 0)
		p->writes = s->dirty_rate;
	else if (length_ns > 0)
		p->writes = mul_div(set, NS_PER_S, (uint64_t)length_ns);
	if (set == 0)
		set = 1; /* 0 means unknown */
	if (first || set < p->smallest)
		p->smallest = set;
	if (first || set < mul_div(p->reference, SHRINK_PERCENT, 100)) {
		shrank(p, set, s->elapsed_ns);
	} else {
		p->stalled += jump;
		p->top_stalled += jump;
	}
}

/* Is the stall proven, in the regime that the wire puts us in? */
static bool stall_proven(const struct policy *p, int64_t now_ns)
{
	int64_t stall = now_ns - p->stall_ns;

	if (p->stalled >= LONG_STALL_PASSES && stall / p->stalled > LONG_PASS_NS)
		return true;
	return p->stalled >= SHORT_STALL_PASSES && stall >= SHORT_STALL_NS;
}

/* Raise the limit if it is time to. True when it was raised. */
static bool raise_limit(struct policy *p, int64_t now_ns)
{
	uint64_t want = need_ms(p->smallest, p->wire);

	if (p->limit_ms >= p->opt.max_pause_ms || !stall_proven(p, now_ns))
		return false;
	if (p->raised_at > 0) {
		if (p->stalled - p->raised_at < RAISE_GAP_PASSES || now_ns - p->raised_ns < RAISE_GAP_NS)
			return false;
		want = p->limit_ms + (p->limit_ms + 1) / 2;
	}
	if (want <= p->limit_ms)
		want = p->limit_ms + 1;
	p->limit_ms = want < p->opt.max_pause_ms ? (unsigned)want : p->opt.max_pause_ms;
	p->raised_at = p->stalled;
	p->raised_ns = now_ns;
	return true;
}

/* Waiting at the upper bound: start the count, or start it again when the sets still get smaller. */
static void top_watch(struct policy *p, int64_t now_ns)
{
	if (p->limit_ms < p->opt.max_pause_ms || p->smallest == 0) {
		p->top_mark = 0;
		return;
	}
	if (p->top_mark != 0 && p->smallest >= mul_div(p->top_mark, TOP_BETTER_PERCENT, 100))
		return;
	p->top_mark = p->smallest;
	p->top_stalled = 0;
	p->top_ns = now_ns;
}

/* Has it been proven that this never ends? */
static bool top_hopeless(const struct policy *p, int64_t now_ns)
{
	unsigned factor = smallest_fits(p) ? TOP_FITS_FACTOR : 1;
	int64_t waited = now_ns - p->top_ns;

	if (p->top_mark == 0 || !stall_proven(p, now_ns))
		return false;
	if (p->opt.auto_converge)
		return p->top_stalled >= THROTTLED_PASSES && waited >= THROTTLED_NS;
	return p->top_stalled >= TOP_PASSES * factor && waited >= TOP_NS * factor;
}

/* Bytes or bytes/s as whole millions, rounded. */
static uint64_t mega(uint64_t v)
{
	return v / 1000000 + (v % 1000000 >= 500000);
}

/* Bytes of memory as whole MiB, rounded up. */
static uint64_t mebi(uint64_t v)
{
	return (v >> 20) + ((v & 0xfffff) != 0);
}

static void say_no_converge(const struct policy *p, char *why, size_t size)
{
	int n = snprintf(why, size, "does not converge: writes %" PRIu64 " MB/s, wire carries %" PRIu64 " MB/s",
			 mega(p->writes), mega(p->wire));

	if (n < 0 || (size_t)n >= size)
		return;
	if (!smallest_fits(p))
		snprintf(why + n, size - (size_t)n,
			 "; %" PRIu64 " MiB are left after each pass and need a pause of %" PRIu64
			 " ms, allowed are %u ms%s",
			 mebi(p->smallest), need_ms(p->smallest, p->wire), p->opt.max_pause_ms,
			 p->opt.auto_converge ? ", even with the guest slowed down" : "");
	else
		snprintf(why + n, size - (size_t)n, "; what a pass leaves varies and never fitted a pause of %u ms%s",
			 p->opt.max_pause_ms, p->opt.auto_converge ? ", even with the guest slowed down" : "");
}

/* The end, if this is one: fills @d and returns true. */
static bool decide_end(const struct policy *p, int64_t now_ns, struct policy_decision *d)
{
	if (p->opt.deadline_ns > 0 && now_ns >= p->opt.deadline_ns) {
		d->verdict = POLICY_DEADLINE;
		snprintf(d->why, sizeof(d->why),
			 "not done within %" PRId64 " s: writes %" PRIu64 " MB/s, wire carries %" PRIu64 " MB/s",
			 (int64_t)(p->opt.deadline_ns / NS_PER_S), mega(p->writes), mega(p->wire));
		return true;
	}
	if (p->wire == 0 || !top_hopeless(p, now_ns))
		return false;
	d->verdict = POLICY_NO_CONVERGE;
	say_no_converge(p, d->why, sizeof(d->why));
	return true;
}

struct policy_decision policy_step(struct policy *p, const struct policy_sample *s)
{
	struct policy_decision d = {.verdict = POLICY_GO_ON};
	unsigned limit_before = p->limit_ms;

	if (s->wire_rate > 0)
		p->wire = s->wire_rate;
	if (s->pass > p->pass)
		passes_went_by(p, s);
	if (p->limit_ms < limit_before)
		snprintf(d.why, sizeof(d.why), "the dirty sets shrink again (%" PRIu64 " MiB): downtime limit %u ms",
			 mebi(p->reference), p->limit_ms);
	else if (p->wire > 0 && p->smallest > 0 && raise_limit(p, s->elapsed_ns))
		snprintf(d.why, sizeof(d.why),
			 "%u passes did not shrink (smallest %" PRIu64 " MiB, wire %" PRIu64
			 " MB/s): downtime limit %u ms",
			 p->stalled, mebi(p->smallest), mega(p->wire), p->limit_ms);
	top_watch(p, s->elapsed_ns);
	d.downtime_limit_ms = p->limit_ms;
	if (!decide_end(p, s->elapsed_ns, &d))
		d.verdict = POLICY_GO_ON;
	p->sampled_ns = s->elapsed_ns;
	return d;
}
