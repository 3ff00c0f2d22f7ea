/* SPDX-License-Identifier: Apache-2.0 */
/* High availability: what is started again where and when, how many hosts may die, which host is put aside. Pure. */
#ifndef GODWIT_CLUSTER_HA_H
#define GODWIT_CLUSTER_HA_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/placement.h"

#define HA_NODES_MAX 64
#define HA_NONE SIZE_MAX /* no such index */

/* ---- what is known: all texts and lists are borrowed by the input ---- */

enum ha_life { HA_UP, HA_LOST, HA_FENCED };

struct ha_node {
	struct placement_node place; /* its models are those that any of the guests asks for */
	enum ha_life life;
	bool frozen;      /* its daemon is being stopped */
	int64_t since_ms; /* of life; 0: always so */
};

enum ha_seen {
	HA_NOTHING, /* its owner has not reported since it became the owner: it will start it, or is at it */
	HA_STARTING,
	HA_RUNNING, /* or paused, or on its way down */
	HA_STOPPED,
	HA_FAILED,
};

enum ha_kind { HA_CRASHED, HA_NOT_STARTED, HA_HOST_DIED };

/* A start that HA caused. */
struct ha_restart {
	int64_t time_ms;
	enum ha_kind kind;
	const char *node;
};

enum ha_until { HA_UNTIL_RUNNING, HA_UNTIL_DELAY, HA_UNTIL_PORT };

struct ha_after {
	const char *vm;
	enum ha_until until;
	int64_t seconds;     /* HA_UNTIL_DELAY: it has run for so long */
	const char *address; /* HA_UNTIL_PORT */
	bool answers;        /* whether the address accepts connections, as the caller has tried */
};

struct ha_guest {
	struct placement_guest place; /* with its owner */
	bool wanted;                  /* shall run */
	bool restart;                 /* mode */
	bool failback;                /* when idle */
	int priority;
	unsigned max_restarts; /* in an hour */
	const char *home;      /* NULL: it is at home where it is */
	bool moving;           /* a migration of it has not ended */
	const char *to;        /* where to, while that is not its owner; NULL */
	enum ha_seen seen;     /* of its owner */
	int64_t since_ms;      /* of seen */
	const struct ha_restart *restarts;
	size_t n_restarts;
	const struct ha_after *after;
	size_t n_after;
};

struct ha_limits {
	struct placement_limits place;
	unsigned starts_per_node; /* guests that start on one host at a time; 0: no limit */
	unsigned starts;          /* in all; 0: no limit */
	unsigned in_place;        /* times that a guest may fail on a host in an hour before another one is tried */
	int64_t settle_ms;        /* a host must be back for so long before guests go back to it */
	uint64_t work;            /* of the searches for room; 0: HA_WORK */
};

#define HA_WORK 200000 /* tens of milliseconds */

struct ha_input {
	const struct ha_node *nodes; /* at most HA_NODES_MAX */
	size_t n_nodes;
	const struct ha_guest *guests; /* all of them */
	size_t n_guests;
	const struct placement_rule *rules;
	size_t n_rules;
	struct ha_limits limits;
	int64_t now_ms; /* the clock of the times above */
};

/* ---- what to do ---- */

enum ha_act {
	HA_PLACE,    /* vm.place on node, which starts it; fenced if its owner's life is HA_FENCED */
	HA_RESTART,  /* vm.restart where it is */
	HA_WAIT,     /* not now, and why */
	HA_FAILBACK, /* migrate it to node */
	HA_ACT_MAX
};
extern const char *const ha_act_names[HA_ACT_MAX];

struct ha_action {
	enum ha_act act;
	size_t guest;
	size_t node;      /* where to; of HA_WAIT the place that is kept for it, or HA_NONE */
	int64_t until_ms; /* of HA_WAIT: look again then; 0: when something changes */
	bool no_room;     /* of HA_WAIT: no node fits */
	char *why;        /* a sentence */
};

struct ha_plan {
	struct ha_action *actions; /* in the order in which they are to be done */
	size_t n;
};

/* The same input gets the same plan; what is done of it is seen in the next input. Free with ha_plan_done(). */
void ha_plan(const struct ha_input *in, struct ha_plan *ret);
void ha_plan_done(struct ha_plan *p);

/* [{"vm", "action" (place, restart, wait, failback), "node", "until", "why"}], with what to do where there is no room.
 * New reference. */
json_t *ha_plan_json(const struct ha_input *in, const struct ha_plan *p);

/* ---- how many hosts may die ---- */

struct ha_bears {
	unsigned bears;             /* any so many hosts that are up may die at once, and each guest that is to be
				       restarted finds a place */
	bool exact;                 /* one more is too many; otherwise it may bear more */
	size_t worst[HA_NODES_MAX]; /* exact: hosts whose death is too much */
	size_t n_worst;             /* 0: guests wait for room already, or nothing could make it worse */
	size_t guest;               /* the first that finds no place then; HA_NONE */
	char *why;                  /* exact: a sentence; NULL when all but one may die */
};

/* @most: how far to look; 0: as far as there are hosts. Free with ha_bears_done(). */
void ha_bears(const struct ha_input *in, unsigned most, struct ha_bears *ret);
void ha_bears_done(struct ha_bears *b);

/* {"bears", "exact", "worst": [nodes], "vm", "why"}. New reference. */
json_t *ha_bears_json(const struct ha_input *in, const struct ha_bears *b);

/* May guests[@guest], which does not run, be started on nodes[@node]? -1 with ERR_CONFLICT if the cluster can bear the
 * death of any @wish hosts now, and could not any more. Where it cannot now, nothing is refused: there is nothing to
 * keep. */
int ha_admit(const struct ha_input *in, size_t guest, size_t node, unsigned wish, struct err *e);

/* ---- hosts that come and go ---- */

#define HA_HOUR_MS 3600000
#define HA_FLAPS 3 /* times that a host may be lost in an hour; then it is put aside */

/* @lost_ms: when the host was lost, in any order. True: it is to be put aside, and @why says so. */
bool ha_flaps(const int64_t *lost_ms, size_t n, int64_t now_ms, char *why, size_t size);

#endif
