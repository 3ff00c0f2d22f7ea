/* SPDX-License-Identifier: Apache-2.0 */
/* In the simulator of high availability: which host a plan of fencing/power is about. A file of its own, as the names
 * of fence agents and of the agent of a host do not fit into one. */
#include <stdlib.h>

#include "fencing/power-int.h"

const char *ha_plan_node(const struct power_plan *p);

const char *ha_plan_node(const struct power_plan *p)
{
	return p->node;
}

/* Devices are there from the beginning: nobody tests one, no agent is asked what it can. */
struct power_look *power_look_start(struct loop *loop, const json_t *device, const char *dirs, bool list,
				    power_look_fn *fn, void *arg)
{
	(void)loop;
	(void)device;
	(void)dirs;
	(void)list;
	(void)fn;
	(void)arg;
	abort();
}

void power_look_free(struct power_look *look)
{
	(void)look;
	abort();
}

void agent_call_free(struct agent_call *c)
{
	(void)c;
	abort();
}

struct agent_call *agent_metadata_start(struct loop *loop, const char *dirs, const char *agent, int64_t timeout_ns,
					agent_metadata_fn *fn, void *arg, struct err *e)
{
	(void)loop;
	(void)dirs;
	(void)agent;
	(void)timeout_ns;
	(void)fn;
	(void)arg;
	(void)e;
	abort();
}

struct agent_call *agent_call_start(struct loop *loop, const struct agent_call_spec *spec, agent_end_fn *fn, void *arg,
				    struct err *e)
{
	(void)loop;
	(void)spec;
	(void)fn;
	(void)arg;
	(void)e;
	abort();
}
