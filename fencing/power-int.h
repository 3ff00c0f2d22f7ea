/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of fencing/power share: the plan, and calls of agents for a plug of a device. */
#ifndef GODWIT_FENCING_POWER_INT_H
#define GODWIT_FENCING_POWER_INT_H

#include "fencing/agent.h"
#include "fencing/power.h"

/* A device and the plug of the node in it. */
struct power_switch {
	json_t *device;   /* owned reference */
	const char *name; /* these are the device's */
	const char *agent;
	const char *plug; /* may be NULL */
	int64_t delay_ms;
	int64_t timeout_ms;
	unsigned attempts;
};

struct power_level {
	size_t n;
	struct power_switch switches[POWER_LEVEL_DEVICES_MAX];
};

struct power_plan {
	char *node;
	size_t n;
	struct power_level levels[POWER_LEVELS_MAX];
};

/* The switch of @node in @device, which must have it; takes a reference. */
struct power_switch power_switch_of(const json_t *device, const char *node);

/* agent_call_start() for it. */
struct agent_call *power_switch_call(const struct power_switch *s, struct loop *loop, const char *dirs,
				     enum agent_action action, int64_t timeout_ns, agent_end_fn *fn, void *arg,
				     struct err *e);

#endif
