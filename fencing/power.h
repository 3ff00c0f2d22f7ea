/* SPDX-License-Identifier: Apache-2.0 */
/* Power fencing: which devices switch a host's power, in which order they are tried, and when the host counts as off.
 */
#ifndef GODWIT_FENCING_POWER_H
#define GODWIT_FENCING_POWER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"

/*
 * A device is an agent with its options, and the hosts that it can switch with the plug of each. A host has levels:
 *level 1 is a list of devices that must all say that it is off (a host with two power supplies), else level 2 is tried,
 *and so on.
 *
 * A host counts as off, POWER_CONFIRMED, only when each device of one level has ended `off` with 0 and then answered
 *`status` with off. All else, late or lost or half, is not fenced.
 *
 * A device as JSON, in its normal form:
 *	{"name": "bmc-n1", "agent": "fence_ipmilan", "options": {"ip": "10.0.9.1", "password": "..."},
 *	 "nodes": {"n1": {"plug": null, "delay_ms": 0}}, "priority": 0, "timeout_ms": 20000, "attempts": 2,
 *	 "plug_option": "plug", "secrets": ["password", ...]}
 * Levels of a host: [["bmc-n1"], ["pdu-a", "pdu-b"]].
 */

#define POWER_LEVELS_MAX 8
#define POWER_LEVEL_DEVICES_MAX 8
#define POWER_TIMEOUT_MS 20000 /* of one call of an agent, when the device does not say */
#define POWER_ATTEMPTS 2

/* ---- configuration (pure) ---- */

/* Judge a device as a user gave it (a plug may be just "nodes": {"n1": "3"} or null, and "delay_ms" of the device is
 * that of all its nodes) by the agent's @metadata, and give its normal form; caller decrefs. NULL with @e, one
 * sentence. */
json_t *power_device_check(const json_t *given, const json_t *metadata, struct err *e);

/* A copy of a device with the secrets among its options masked; caller decrefs. */
json_t *power_device_mask(const json_t *device);

/* What to do to switch @node. @devices: array of devices in normal form. @levels: of this node; NULL or null: each
 * device that has the node is a level of its own, the highest priority first, then by name. NULL with @e: no device has
 * the node, a level names a device that does not exist or has not this node, ... Caller frees with power_plan_free(),
 * or hands it to a job. */
struct power_plan;
struct power_plan *power_plan_new(const json_t *devices, const json_t *levels, const char *node, struct err *e);
void power_plan_free(struct power_plan *p);

/* ---- switching (*loop*) ---- */

enum power_action { POWER_OFF, POWER_ON, POWER_REBOOT, POWER_ACTION_MAX };
extern const char *const power_action_names[POWER_ACTION_MAX];

enum power_result {
	POWER_CONFIRMED, /* proven: the host is off (POWER_ON: on) */
	POWER_FAILED,    /* not done: no level got so far that the host could be off */
	POWER_UNKNOWN,   /* it may be off: an `off` was accepted, or was running when its time was over, and nothing
			    proves it */
	POWER_RESULT_MAX
};
extern const char *const power_result_names[POWER_RESULT_MAX];

/* One thing that has happened, for the history; borrowed. */
struct power_event {
	const char *node;
	unsigned level;           /* from 1; 0: before the first (a delay) */
	const char *device;       /* NULL: the level as a whole */
	const char *agent;        /* NULL likewise */
	const char *action;       /* "off", "status", "on", "delay" */
	unsigned attempt;         /* from 1; 0 for a level */
	enum power_result result; /* of a device: confirmed: this call did what it should */
	const char *text;         /* one sentence, without secrets */
};

struct power_end {
	enum power_result result; /* POWER_OFF, POWER_REBOOT: is it off? POWER_ON: is it on? */
	unsigned level;           /* that confirmed it; 0: none */
	bool powered_on;          /* POWER_REBOOT: and it is on again */
	const char *text;         /* all reasons, one after the other */
};

/* May not free the job. The event {device NULL, action "off", POWER_CONFIRMED} is the proof: with POWER_OFF before the
 * end, with POWER_REBOOT before `on` begins. */
typedef void power_event_fn(void *arg, const struct power_event *event);
/* Exactly once, from the loop. May free the job. */
typedef void power_end_fn(void *arg, const struct power_end *end);

struct power_spec {
	enum power_action action;
	const char *dirs; /* of agents, as for agent_path(); borrowed as long as the job lives */
	int64_t delay_ns; /* wait so long first, beyond the static delay of the devices (the largest one of level 1) */
	int64_t timeout_ns;       /* for all levels together, after the delay */
	power_event_fn *on_event; /* may be NULL */
	power_end_fn *on_end;
	void *arg;
};

/* Begin. Takes @plan. Does not fail: what goes wrong is told at the end. */
struct power_job *power_start(struct loop *loop, struct power_plan *plan, const struct power_spec *spec);

/* Forget a job: its agents are killed, no callback any more. An `off` that was on its way may still happen. Takes NULL.
 */
void power_free(struct power_job *job);

/* ---- looking (*loop*) ---- */

/* {"device", "agent", "ok", "monitor": {"ok", "text"}, "nodes": [{"node", "plug", "state": "on|off|unknown", "text"}],
 *  "plugs": [{"plug", "alias"}] | null, "plugs_text"}: the device answers, the state of each plug, and the plugs it
 * lists if it was asked to. "ok": it answers and the state of each plug is known. Borrowed. */
typedef void power_look_fn(void *arg, const json_t *report);

/* Test @device (normal form, kept by reference); with @list ask for its plugs, too. Switches nothing. */
struct power_look *power_look_start(struct loop *loop, const json_t *device, const char *dirs, bool list,
				    power_look_fn *fn, void *arg);
void power_look_free(struct power_look *look);

#endif
