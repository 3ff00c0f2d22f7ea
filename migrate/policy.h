/* SPDX-License-Identifier: Apache-2.0 */
/* When to let QEMU stop the guest: the allowed pause is an upper bound, the moment is the smallest dirty set seen.
 * Pure. */
#ifndef GODWIT_MIGRATE_POLICY_H
#define GODWIT_MIGRATE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* What the user allows. */
struct policy_options {
	unsigned max_pause_ms; /* upper bound of the pause, >= 1 */
	bool auto_converge;    /* QEMU slows the guest down when it must */
	int64_t deadline_ns;   /* 0: none; else the longest the copy may take, from its start */
};

/* One look at the move, taken by the engine about every 50 ms (QMP query-migrate and its own counters). */
struct policy_sample {
	int64_t elapsed_ns;  /* since the copy began */
	unsigned pass;       /* dirty-sync-count: 1 during the first pass */
	uint64_t remaining;  /* bytes QEMU still counts as dirty in this pass */
	uint64_t dirty_rate; /* bytes/s the guest dirties, QEMU's measure of the last pass; 0 unknown */
	uint64_t wire_rate;  /* bytes/s the channels carried lately; 0 unknown */
};

enum policy_verdict {
	POLICY_GO_ON,       /* keep copying, with downtime_limit_ms */
	POLICY_NO_CONVERGE, /* it will never fit max_pause_ms: end the move, the guest runs on */
	POLICY_DEADLINE,    /* the deadline passed */
	POLICY_VERDICT_MAX
};

struct policy_decision {
	enum policy_verdict verdict;
	unsigned downtime_limit_ms; /* what QEMU's downtime-limit should be now: starts at 1, never 0, never above
				       max_pause_ms */
	char why[240]; /* set whenever the limit changes or the move ends: one sentence for the log and, on an end, for
			  the user: "does not converge: writes 140 MB/s, wire carries 110 MB/s; ..." */
};

/* What the policy remembers. Fields are its own business; the engine only keeps the struct. One thread. */
struct policy {
	struct policy_options opt;
	unsigned limit_ms;
	unsigned pass;      /* newest pass seen */
	int64_t sampled_ns; /* when it was last looked */
	int64_t pass_ns;    /* when the newest pass was first seen */
	uint64_t smallest;  /* smallest dirty set of passes >= 2, 0 while unknown */
	uint64_t reference; /* the dirty set that a later pass must clearly undercut to count as shrinking */
	int64_t stall_ns;   /* when the pass with that set began: since then nothing shrank */
	unsigned stalled;   /* passes since then */
	unsigned raised_at; /* @stalled when the limit was last raised; 0: not in this stall */
	int64_t raised_ns;
	uint64_t top_mark;    /* smallest set when waiting at max_pause_ms began; 0: not waiting there */
	unsigned top_stalled; /* passes since then */
	int64_t top_ns;
	uint64_t writes; /* bytes/s the guest dirties: QEMU's measure, else ours from set and length of the last pass */
	uint64_t wire;   /* bytes/s, the last one known */
};

/* Start: the first look comes after the first policy_step(). @opt is copied; max_pause_ms 0 counts as 1. */
void policy_init(struct policy *p, const struct policy_options *opt);

/* Judge one look. Looks come in the order of elapsed_ns; a pass number that went back is taken as the same pass. */
struct policy_decision policy_step(struct policy *p, const struct policy_sample *s);

#endif
