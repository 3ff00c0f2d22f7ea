/* SPDX-License-Identifier: Apache-2.0 */
/* What a move will cost, from the dirty log and the wire: passes, seconds, bytes, pause; and the ETA while it runs.
 * Pure. */
#ifndef GODWIT_MIGRATE_FORECAST_H
#define GODWIT_MIGRATE_FORECAST_H

#include <stdbool.h>
#include <stdint.h>

struct forecast_input {
	uint64_t ram_bytes;      /* guest RAM that holds something (zero pages already taken off where known) */
	uint64_t zero_bytes;     /* guest RAM known to be zero: costs next to nothing */
	uint64_t dirty_rate;     /* bytes/s of distinct pages that the guest dirties, measured over dirty_period_ns */
	int64_t dirty_period_ns; /* a page written twice in it counts once, so the dirty set saturates; 0: unknown */
	uint64_t long_rate;      /* the same measured over a longer period: tells a hot set, written again and again */
	int64_t long_period_ns;  /* (lower rate), from one that grows all the time (equal rate). 0: not measured */
	uint64_t wire_rate;      /* bytes/s measured between the two engines */
	unsigned max_pause_ms;
	int64_t fixed_pause_ns; /* stop, device state, load, resume: what every move pays */
};

struct forecast {
	bool converges;
	unsigned passes;
	uint64_t bytes;                 /* on the wire; when it does not converge: until that is plain */
	int64_t total_ns;               /* the pause included; -1 when it does not converge */
	int64_t pause_ns;               /* when it does not converge: the one that would be needed */
	uint64_t dirty_rate, wire_rate; /* bytes/s that it was made for */
	char why[240];                  /* when it does not converge: one sentence with both rates */
};

/* The iterative pre-copy series (Clark et al., NSDI 2005): each pass sends what the one before left dirty. */
struct forecast forecast_run(const struct forecast_input *in);

/* The distinct bytes that the guest dirties within t seconds: straight lines through known points, from (0, 0) on, the
 * last one going on, never above cap. Points are sorted by t. */
#define DIRTY_POINTS_MAX 16
struct dirty_curve {
	unsigned n;
	struct {
		double t, d;
	} points[DIRTY_POINTS_MAX];
	double cap;
};

/* Progress and ETA of a running move. progress in 0..1 never goes back and reaches 1 only by the caller's own word;
 * eta_ns < 0 while unknown: before the rate is known, and while the sets neither shrink nor fit the allowed pause.
 * What is predicted (elapsed + ETA) is within 20 % of the truth from a quarter of the way on where the first pass can
 * know how much the guest dirties in it: give eta_hint() what was measured before the move. Without any measure the
 * first pass foretells only its own end. Fields are nobody else's business. */
struct eta {
	double shown;             /* the progress last returned */
	double rate;              /* smoothed wire rate, bytes/s */
	struct dirty_curve dirty; /* what was measured before, and each pass since: its length and the set it left */
	int64_t last_ns;          /* of the look that last moved the smoothed rate */
	uint64_t last_sent;       /* at last_ns */
	unsigned pass;            /* newest pass seen */
	int64_t pass_ns;          /* when it was first seen */
};

struct eta_sample {
	int64_t elapsed_ns; /* since the copy began */
	unsigned pass;
	uint64_t total_bytes; /* guest RAM */
	uint64_t sent_bytes;  /* on the wire so far */
	uint64_t remaining;   /* in this pass */
	uint64_t dirty_rate;  /* bytes/s over about a second, 0 unknown; used only until something better is known */
	unsigned max_pause_ms;
};

void eta_init(struct eta *t);

/* What was measured before the move: dirty_rate, long_rate and their periods are used. Once, after eta_init(). */
void eta_hint(struct eta *t, const struct forecast_input *in);

void eta_update(struct eta *t, const struct eta_sample *s, double *ret_progress, int64_t *ret_eta_ns);

#endif
