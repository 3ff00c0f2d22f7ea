/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent does about one guest: from what the cluster wants and what runs here. Pure. */
#ifndef GODWIT_NODE_AGENT_PLAN_H
#define GODWIT_NODE_AGENT_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "hv/vm.h"

enum agent_intent {
	AGENT_ELSEWHERE, /* the cluster knows it; another node owns it */
	AGENT_RUNNING,
	AGENT_STOPPED,
	AGENT_KILLED,
	AGENT_MOVING, /* a move has this guest in hand, from here or to here: not the agent's business */
	AGENT_INTENT_MAX
};

/* What the cluster says about a guest. */
struct agent_want {
	const char *uuid;
	int64_t epoch; /* of its ownership; grows by one at every change of host */
	enum agent_intent intent;
	bool ran;            /* the cluster knows that it has run, or failed, under this epoch */
	const char *failure; /* why it could not be started under this epoch; NULL: that was not tried */
};

/* What is in the run directory under its name. */
struct agent_have {
	const char *uuid;
	const char *cluster; /* from the mark; "": started by somebody else */
	int64_t epoch;       /* likewise */
	enum vm_status status;
};

enum agent_act {
	AGENT_NOTHING,
	AGENT_WAIT, /* to be done, not before until_ns */
	AGENT_START,
	AGENT_STOP,   /* by the ladder */
	AGENT_KILL,   /* at once; tidies up after a guest that is gone */
	AGENT_REPORT, /* not as it should be, and not for the agent to repair */
	AGENT_REFUSE, /* not ours: never touched */
	AGENT_ACT_MAX
};
extern const char *const agent_act_names[AGENT_ACT_MAX];

/* Why a guest that shall run does not, as far as the agent can know. */
enum agent_cause {
	AGENT_CAUSE_NONE,
	AGENT_CAUSE_CRASH,  /* its QEMU ended or broke under this daemon's eyes */
	AGENT_CAUSE_FAILED, /* it could not be started */
	AGENT_CAUSE_HOST,   /* it ended while this host or its daemon was away: not the guest's own fault */
	AGENT_CAUSE_MAX
};
extern const char *const agent_cause_names[AGENT_CAUSE_MAX]; /* kinds of vm.restart (cluster/state.h); NULL: none */

struct agent_action {
	enum agent_act act;
	const char *why;        /* static, or want.failure; "" with AGENT_NOTHING */
	int64_t until_ns;       /* AGENT_WAIT */
	enum agent_cause cause; /* AGENT_REPORT of a guest that shall run */
};

/* @cluster: our id. @want NULL: the cluster does not know the name; @have NULL: nothing here; not both. */
struct agent_action agent_plan(const char *cluster, const struct agent_want *want, const struct agent_have *have);

/* The mark of our guests in the run directory, and back: false when it is not one of ours. */
#define AGENT_CLUSTER_MAX 63
char *agent_mark(const char *cluster, int64_t epoch); /* caller frees */
bool agent_mark_parse(const char *mark, char ret_cluster[AGENT_CLUSTER_MAX + 1], int64_t *ret_epoch);

#endif
