/* SPDX-License-Identifier: Apache-2.0 */
/* A migration as the cluster sees it: its steps, who may take them, what follows from every death, which may start.
 * Pure. */
#ifndef GODWIT_CLUSTER_MOVE_H
#define GODWIT_CLUSTER_MOVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* The steps, in the order in which a good move takes them. The essay of move.c says what each means. */
enum move_step {
	MOVE_QUEUED,      /* waits for a place under the limits */
	MOVE_CHECKING,    /* the source checks and forecasts */
	MOVE_PREPARING,   /* the destination makes ready */
	MOVE_COPYING,     /* memory is copied, the guest runs at the source */
	MOVE_AGREED,      /* the source may stop the guest and send GO */
	MOVE_HANDED_OVER, /* GO was sent */
	MOVE_COMMITTED,   /* the destination owns and runs the guest */
	MOVE_CLEANING,    /* the source tidies up */
	MOVE_DONE,        /* end: moved */
	MOVE_FAILED,      /* end: the guest stayed where it was */
	MOVE_CANCELLED,   /* end: likewise, because somebody asked */
	MOVE_UNDECIDED,   /* agreed, and then whoever may have the guest went out of reach */
	MOVE_STEP_MAX
};
extern const char *const move_step_names[MOVE_STEP_MAX + 1]; /* ends with NULL */

/* MOVE_STEP_MAX for a name that is none. */
enum move_step move_step_find(const char *name);

bool move_step_ended(enum move_step s);    /* no step follows */
bool move_step_cancels(enum move_step s);  /* can still be cancelled */
bool move_step_dst_owns(enum move_step s); /* the guest belongs to the destination */
bool move_step_may_hang(enum move_step s); /* between the agreement and its outcome: move_resolve() is for these */

/* Who takes a step. */
enum move_role { MOVE_MANAGER, MOVE_SRC, MOVE_DST, MOVE_ROLE_MAX };
extern const char *const move_role_names[MOVE_ROLE_MAX + 1];
enum move_role move_role_find(const char *name);

/* May @role take the move from @from to @to? -1 with ERR_CONFLICT (no such successor) or ERR_FORBIDDEN (not its step).
 */
int move_step_check(enum move_step from, enum move_step to, enum move_role role, struct err *e);

/* What must hold at every step: the owner and the epoch of the guest against those of the move. */
struct move_facts {
	enum move_step step;
	bool owner_is_src, owner_is_dst;
	int64_t epoch_then; /* the guest's when the move was created */
	int64_t epoch_now;
};
int move_invariant(const struct move_facts *f, struct err *e);

/* ---- deaths ---- */

/* UNKNOWN: not a member at the moment and not confirmed dead. */
enum move_life { MOVE_ALIVE, MOVE_FENCED, MOVE_UNKNOWN, MOVE_LIFE_MAX };
extern const char *const move_life_names[MOVE_LIFE_MAX];

/* What a side answered when it was asked. A NO is a promise: the source will not send GO, and goes on; the destination
 * will never run the guest by this move, even if GO still arrives. */
enum move_answer { MOVE_NO, MOVE_YES, MOVE_NOT_ASKED, MOVE_ANSWER_MAX };
extern const char *const move_answer_names[MOVE_ANSWER_MAX];

enum move_decision {
	MOVE_WAIT,        /* it goes on by itself, or a side must be asked first (move_resolution.ask) */
	MOVE_SRC_GOES_ON, /* the source keeps the guest: the move failed */
	MOVE_DST_RUNS,    /* the destination owns it: committed */
	MOVE_HA_RESTARTS, /* its memory is gone or too old: it is started afresh by its disks; a living source does so
			     itself, as it must end its QEMU first */
	MOVE_NOBODY,      /* whoever may have it is out of reach and not fenced: nobody may run it until that changes */
	MOVE_DECISION_MAX
};
extern const char *const move_decision_names[MOVE_DECISION_MAX];

enum { MOVE_ASK_SRC = 1, MOVE_ASK_DST = 2 };

struct move_view {
	enum move_step step;
	enum move_life src, dst;
	enum move_answer go_sent;     /* source: GO may have left it */
	enum move_answer go_received; /* destination */
	bool stuck;  /* one of the processes died, or the step takes longer than it may: do not wait for it to end well
		      */
	bool cancel; /* somebody asked for it */
};

struct move_resolution {
	enum move_decision decision;
	unsigned ask;    /* MOVE_ASK_*: answers that are missing for a decision */
	const char *why; /* a sentence, static */
};

/* Who may run the guest. */
struct move_resolution move_resolve(const struct move_view *v);

/* What the manager proposes next for a migration that it finds in the state; the same for an old and for a new manager.
 */
struct move_plan {
	enum move_step propose; /* MOVE_STEP_MAX: nothing */
	bool restart;           /* what is left of the guest's memory must not be used: it is to be started afresh */
	unsigned ask;
	const char *why;
};
struct move_plan move_next(const struct move_view *v);

/* ---- the queue ---- */

struct move_limits {
	unsigned per_node; /* moves that one host takes part in, either way */
	unsigned per_link; /* from one host to another */
};

struct move_item {
	const char *src, *dst;
	enum move_step step;
	int priority;    /* higher first */
	uint64_t number; /* order of arrival */
};

/* Mark in ret_start[] which of the queued may start now, beside those that are under way. */
void move_queue(const struct move_item *items, size_t n, const struct move_limits *limits, bool *ret_start);

#endif
