/* SPDX-License-Identifier: Apache-2.0 */
/* What a move will cost and how far it is: the pre-copy series over a model of the guest's dirty set.
 *
 * Theory of operation
 * -------------------
 * Iterative pre-copy (Clark et al., NSDI 2005): pass 1 sends the memory, pass k+1 sends what was dirtied while pass k
 * was on the wire. With D(t) for the distinct bytes dirtied within t:
 *
 *	set(1) = memory      time(k) = set(k) / wire rate      set(k+1) = D(time(k))
 *
 * until a set fits the pause. Everything hangs on D. Any stationary guest's D is concave: it rises at most as fast as
 * it began, because a page written twice counts once. calc-dirty-rate measures one or two points of it:
 *
 *	  D ^          one point  (t1, d1):  linear, up to the size of the memory. Right for a guest that walks through
 *	    |    ...                         its memory, an over-estimate of later passes for one with a hot set.
 *	 d2 |   o      two points (t1, d1), (t2, d2):  the straight lines through them, the last one going on. Concave
 *	 d1 |  o       like D itself; below D between the points, above it beyond the last.
 *	    | /        two points with d2 hardly above d1: a hot set of d1 bytes, complete within t1. When within t1 it
 *was
 *	    |/         complete is unknown; we take t1/10, because hot pages are written many times in a second, and a
 *	    +------->  forecast that says "hot" too early is the safe side: it foretells the longer pause.
 *	      t1 t2
 *
 * The end of the series follows migrate/policy.c: while sets shrink the limit is 1 ms; two passes that do not shrink
 * raise it to what the set needs, within max_pause_ms; a set that neither shrinks nor fits does not converge.
 *
 * The ETA of a running move is the same series from where the move stands: what is left of this pass at the smoothed
 * rate of the wire, then the passes to come. Each pass of the move itself measures D exactly, at the one point that
 * counts: its length and the set that the next one begins with. A new point is trusted more than older ones, which are
 * moved where the two together would not be a rising concave curve: so a guest that calms down or wakes up is followed.
 * Progress is elapsed / (elapsed + ETA), held when the truth turns out worse: a bar that goes back tells nobody
 * anything. While no end is in sight it creeps to a half with the first pass and stays there. */
#include "migrate/forecast.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"

#define SHRINK_RATIO 0.8              /* as in policy.c: a set above this part of the one before does not shrink */
#define STALL_PASSES 2                /* as in policy.c: passes that do not shrink before the limit is raised */
#define PASSES_MAX 1000               /* of a series: one that shrinks by a fifth each time ends long before */
#define FIRST_PAUSE_S 0.001           /* the limit that policy.c starts with */
#define ZERO_SCAN_RATE 4e9            /* bytes/s at which QEMU finds out that pages are zero */
#define HOT_SLOPE_RATIO 0.2           /* D rises this much slower beyond t1 than up to it: a hot set */
#define HOT_KNEE 10                   /* and it was complete after t1 / HOT_KNEE */
#define SMOOTH_S 1.0                  /* time constant of the smoothed rate */
#define RATE_STEP_NS (20 * NS_PER_MS) /* shorter steps say little about a rate */
#define POINTS_APART 1.25             /* points of D closer than this factor in t are one, the newer */
#define PROGRESS_MAX 0.999            /* the last step is the caller's to declare */
#define UNKNOWN_SHARE 0.5             /* of the bar for a first pass after which no end is in sight */

static double min_of(double a, double b)
{
	return a < b ? a : b;
}

static double max_of(double a, double b)
{
	return a > b ? a : b;
}

/* Distinct bytes dirtied within @t seconds. Pure. */
static double curve_at(const struct dirty_curve *c, double t)
{
	double t0 = 0, d0 = 0, slope = 0;

	for (unsigned i = 0; i < c->n; i++) {
		slope = (c->points[i].d - d0) / (c->points[i].t - t0);
		if (t <= c->points[i].t)
			break;
		if (i + 1 < c->n) {
			t0 = c->points[i].t;
			d0 = c->points[i].d;
		}
	}
	return min_of(d0 + slope * (t - t0), c->cap);
}

static void curve_remove(struct dirty_curve *c, unsigned i)
{
	for (c->n--; i < c->n; i++)
		c->points[i] = c->points[i + 1];
}

/* Make room beside @t: points close to it go, and of a full curve the first, which is of the shortest time. */
static void curve_clear(struct dirty_curve *c, double t)
{
	for (unsigned i = c->n; i-- > 0;)
		if (c->points[i].t < t * POINTS_APART && t < c->points[i].t * POINTS_APART)
			curve_remove(c, i);
	if (c->n == DIRTY_POINTS_MAX)
		curve_remove(c, 0);
}

/* Add the newest truth, @d bytes within @t seconds, and bend the older points so that the curve rises and is concave
 * seen from it. @t > 0. */
static void curve_add(struct dirty_curve *c, double t, double d)
{
	unsigned at = 0;

	curve_clear(c, t);
	for (unsigned i = 0; i < c->n; i++) {
		double straight = d * c->points[i].t / t;

		if (c->points[i].t < t) {
			at = i + 1;
			c->points[i].d = min_of(max_of(c->points[i].d, straight), d);
		} else {
			c->points[i].d = max_of(min_of(c->points[i].d, straight), d);
		}
	}
	for (unsigned i = c->n++; i > at; i--)
		c->points[i] = c->points[i - 1];
	c->points[at].t = t;
	c->points[at].d = d;
}

/* Put what was measured before a move on the curve. */
static void curve_measured(struct dirty_curve *c, const struct forecast_input *in)
{
	double t1 = (double)in->dirty_period_ns / NS_PER_S, t2 = (double)in->long_period_ns / NS_PER_S;
	double d1, d2;

	if (t1 <= 0)
		t1 = 1;
	d1 = (double)in->dirty_rate * t1;
	d2 = (double)in->long_rate * t2;
	if (t2 < t1 * POINTS_APART) {
		curve_add(c, t1, d1);
		return;
	}
	d2 = min_of(max_of(d2, d1), d1 / t1 * t2); /* else the guest changed between the two measurements */
	if ((d2 - d1) / (t2 - t1) < HOT_SLOPE_RATIO * d1 / t1)
		t1 /= HOT_KNEE;
	curve_add(c, t1, d1);
	curve_add(c, t2, d2);
}

/* The outcome of a series. */
struct series {
	bool converges;
	unsigned passes;    /* sent while the guest runs */
	double bytes, time; /* of those */
	double last;        /* the set left for the pause */
};

/* Run the series from a set of @set bytes that is sent while the guest runs, dirtying along @c. The pass began @since
 * seconds ago: what was dirtied then counts. Pure. */
static struct series series_run(const struct dirty_curve *c, double set, double since, double rate, double max_pause)
{
	struct series r = {0};
	double reference = 0;
	unsigned stalled = 0;

	while (r.passes < PASSES_MAX) {
		double t = set / rate, next = curve_at(c, since + t);

		r.passes++;
		r.bytes += set;
		r.time += t;
		r.last = set = next;
		since = 0;
		stalled = reference > 0 && set >= SHRINK_RATIO * reference ? stalled + 1 : 0;
		if (stalled == 0)
			reference = set;
		r.converges = set / rate <= (stalled >= STALL_PASSES ? max_pause : FIRST_PAUSE_S);
		if (r.converges || stalled > STALL_PASSES)
			return r;
	}
	return r;
}

/* Bytes or bytes/s as whole millions, rounded. */
static uint64_t mega(double v)
{
	return (uint64_t)(v / 1e6 + 0.5);
}

/* Bytes of memory as whole MiB, rounded up. */
static uint64_t mebi(double v)
{
	return ((uint64_t)v >> 20) + (((uint64_t)v & 0xfffff) != 0);
}

struct forecast forecast_run(const struct forecast_input *in)
{
	struct dirty_curve c = {.cap = (double)in->ram_bytes + (double)in->zero_bytes};
	double rate = (double)in->wire_rate, max_pause = in->max_pause_ms / 1e3;
	struct forecast f = {.dirty_rate = in->dirty_rate, .wire_rate = in->wire_rate};
	struct series s;

	if (in->wire_rate == 0) {
		snprintf(f.why, sizeof(f.why), "no forecast: the rate of the wire is not known");
		return f;
	}
	curve_measured(&c, in);
	s = series_run(&c, (double)in->ram_bytes, 0, rate, max_pause);
	f.converges = s.converges;
	f.passes = s.passes;
	f.bytes = (uint64_t)(s.bytes + (s.converges ? s.last : 0));
	f.pause_ns = in->fixed_pause_ns + (int64_t)(s.last / rate * NS_PER_S);
	f.total_ns = f.pause_ns + (int64_t)((s.time + (double)in->zero_bytes / ZERO_SCAN_RATE) * NS_PER_S);
	if (f.converges)
		return f;
	f.total_ns = -1;
	snprintf(f.why, sizeof(f.why),
		 "does not converge: writes %" PRIu64 " MB/s, wire carries %" PRIu64 " MB/s; %" PRIu64
		 " MiB are left after each pass and need a pause of %" PRIu64 " ms, allowed are %u ms",
		 mega((double)in->dirty_rate), mega(rate), mebi(s.last), (uint64_t)(s.last / rate * 1000) + 1,
		 in->max_pause_ms);
	return f;
}

void eta_init(struct eta *t)
{
	*t = (struct eta){0};
}

void eta_hint(struct eta *t, const struct forecast_input *in)
{
	curve_measured(&t->dirty, in);
}

/* New passes began since the last look: their mean length and the set that the newest began with are a point of D. */
static void eta_pass(struct eta *t, const struct eta_sample *s)
{
	unsigned jump = s->pass - t->pass;
	double length = (double)(s->elapsed_ns - t->pass_ns) / NS_PER_S / jump, set = (double)s->remaining;

	if (jump > 1)
		set = max_of(set, t->rate * length); /* the newest may be half done; each sent the set of the last */
	if (t->pass > 0 && length > 0)
		curve_add(&t->dirty, length, set);
	t->pass = s->pass;
	t->pass_ns = s->elapsed_ns;
}

/* Take a look into the rate: exponential smoothing without libm. */
static void eta_rate(struct eta *t, const struct eta_sample *s)
{
	double step = (double)(s->elapsed_ns - t->last_ns) / NS_PER_S, now;

	if (s->elapsed_ns - t->last_ns < RATE_STEP_NS || s->sent_bytes <= t->last_sent)
		return;
	now = (double)(s->sent_bytes - t->last_sent) / step;
	t->rate = t->rate > 0 ? t->rate + (now - t->rate) * step / (step + SMOOTH_S) : now;
	t->last_ns = s->elapsed_ns;
	t->last_sent = s->sent_bytes;
}

/* Bytes that what remains of this pass puts on the wire: in the first pass as much of it is zero as was so far. */
static double eta_left(const struct eta_sample *s)
{
	double left = (double)s->remaining, done = (double)s->total_bytes - left;

	if (s->pass > 1 || done <= 0 || (double)s->sent_bytes >= done)
		return left;
	return left * (double)s->sent_bytes / done;
}

/* Seconds to the end, < 0 when none is in sight. The rate is known. */
static double eta_seconds(struct eta *t, const struct eta_sample *s)
{
	double since = (double)(s->elapsed_ns - t->pass_ns) / NS_PER_S;
	struct series r;

	t->dirty.cap = (double)s->total_bytes;
	if (t->dirty.n == 0 && s->dirty_rate > 0)
		curve_add(&t->dirty, 1, (double)s->dirty_rate);
	r = series_run(&t->dirty, eta_left(s), since, t->rate, s->max_pause_ms / 1e3);
	return r.converges ? r.time + r.last / t->rate : -1;
}

/* What the bar may show with @eta seconds to go, or with none known. */
static double eta_progress(const struct eta *t, const struct eta_sample *s, double eta)
{
	double elapsed = (double)s->elapsed_ns / NS_PER_S, share = 1;

	if (eta < 0) {
		share = UNKNOWN_SHARE;
		eta = s->pass > 1 ? 0 : eta_left(s) / t->rate;
	}
	return elapsed > 0 ? min_of(share * elapsed / (elapsed + eta), PROGRESS_MAX) : 0;
}

void eta_update(struct eta *t, const struct eta_sample *s, double *ret_progress, int64_t *ret_eta_ns)
{
	double eta = -1;

	*ret_progress = t->shown;
	*ret_eta_ns = -1;
	/* Before the first pass QEMU knows of nothing to send, which looks like the end. */
	if (s->pass == 0 || s->total_bytes == 0)
		return;
	if (s->pass > t->pass)
		eta_pass(t, s);
	eta_rate(t, s);
	if (t->rate > 0) {
		eta = eta_seconds(t, s);
		t->shown = max_of(t->shown, eta_progress(t, s, eta));
	}
	*ret_progress = t->shown;
	*ret_eta_ns = eta < 0 ? -1 : (int64_t)(eta * NS_PER_S);
}
