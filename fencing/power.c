/* SPDX-License-Identifier: Apache-2.0 */
/* Switching a host: the levels one after the other, the devices of a level at once.
 *
 * A device of a level ("unit") is told off (or on) and then asked for its state; both are an attempt. It is confirmed
 * when the action ended with 0 and the state is the wished one, and has failed after its last attempt. The level is
 * confirmed when all its units are, and has failed when one has; the agents of the others are killed then, as the next
 * level may need the same device and the time is short. So no plug is switched on while another plug of the same host
 * still waits to go off.
 *
 * What ends is only written down by the callback that sees it; job_look() decides what follows, from the loop, so that
 * nothing is called from within itself.
 */
#include "fencing/power.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "fencing/power-int.h"

#define RETRY_PAUSE (300 * NS_PER_MS) /* a device that allows one session at a time gets time to close the last one */

const char *const power_action_names[POWER_ACTION_MAX] = {"off", "on", "reboot"};
const char *const power_result_names[POWER_RESULT_MAX] = {"confirmed", "failed", "unknown"};

enum unit_state { UNIT_ACTS, UNIT_ASKS, UNIT_PAUSES, UNIT_CONFIRMED, UNIT_FAILED };

struct unit {
	struct power_job *job;
	const struct power_switch *sw;
	enum unit_state state;
	unsigned attempt;
	bool maybe; /* the action was accepted, or may have been, and no state has contradicted it */
	char *why;  /* of the last attempt that failed */
	struct agent_call *call;
	struct loop_timer *pause;
};

struct power_job {
	struct loop *loop;
	struct power_plan *plan;
	struct power_spec spec;
	int64_t delay_ns; /* still to be waited for */
	bool begun;
	bool to_on;   /* being switched on, else off */
	size_t level; /* index */
	size_t n;
	struct unit units[POWER_LEVEL_DEVICES_MAX];
	bool maybe;         /* of a level that has failed: all its units may have done it */
	unsigned off_level; /* POWER_REBOOT: which one switched it off, from 1 */
	char *reasons;
	int64_t deadline_ns;
	struct loop_timer *look;
	struct loop_timer *limit;
};

/* ---- telling ---- */

static void tell(struct power_job *j, const struct unit *u, const char *action, enum power_result result,
		 const char *text)
{
	struct power_event event = {
		.node = j->plan->node,
		.level = j->begun ? (unsigned)j->level + 1 : 0,
		.device = u ? u->sw->name : NULL,
		.agent = u ? u->sw->agent : NULL,
		.action = action,
		.attempt = u ? u->attempt : 0,
		.result = result,
		.text = text,
	};

	if (j->spec.on_event)
		j->spec.on_event(j->spec.arg, &event);
}

static void reason_add(struct power_job *j, const char *text)
{
	char *longer = xasprintf("%s%s%s", j->reasons ? j->reasons : "", j->reasons ? "; " : "", text);

	free(j->reasons);
	j->reasons = longer;
}

static const char *wished(const struct power_job *j)
{
	return j->to_on ? "on" : "off";
}

/* A device that hangs is not waited for again where another level could be tried. */
static bool level_follows(const struct power_job *j)
{
	return j->off_level == 0 && j->level + 1 < j->plan->n;
}

/* ---- one device ---- */

static void unit_act(struct unit *u);

static void unit_quiet(struct unit *u)
{
	agent_call_free(steal_ptr(u->call));
	loop_timer_free(steal_ptr(u->pause));
}

static void units_done(struct power_job *j)
{
	for (size_t i = 0; i < j->n; i++) {
		unit_quiet(&j->units[i]);
		free(j->units[i].why);
		j->units[i] = (struct unit){0};
	}
	j->n = 0;
}

static void unit_pause_over(void *arg)
{
	struct unit *u = arg;

	loop_timer_free(steal_ptr(u->pause));
	unit_act(u);
}

/* The attempt has failed: another one, or none if this was the @last. */
static void unit_retry(struct unit *u, const char *action, const char *why, bool last)
{
	char *copy = xstrdup(why);

	free(u->why);
	u->why = copy;
	tell(u->job, u, action, u->maybe ? POWER_UNKNOWN : POWER_FAILED, why);
	if (last || u->attempt >= u->sw->attempts) {
		u->state = UNIT_FAILED;
		loop_timer_set(u->job->look, 0);
		return;
	}
	u->state = UNIT_PAUSES;
	u->pause = loop_timer_add(u->job->loop, RETRY_PAUSE, 0, unit_pause_over, u);
}

static void unit_call(struct unit *u, enum agent_action action, agent_end_fn *fn)
{
	struct err e = ERR_INIT;
	int64_t left = u->job->deadline_ns - clock_now_ns();

	u->call = power_switch_call(u->sw, u->job->loop, u->job->spec.dirs, action, left > 0 ? left : 0, fn, u, &e);
	if (!u->call)
		unit_retry(u, agent_action_names[action], e.text, true);
}

static void unit_asked(void *arg, const struct agent_end *end)
{
	struct unit *u = arg;
	enum agent_state want = u->job->to_on ? AGENT_STATE_ON : AGENT_STATE_OFF;

	agent_call_free(steal_ptr(u->call));
	if (end->state == want) {
		u->state = UNIT_CONFIRMED;
		tell(u->job, u, "status", POWER_CONFIRMED, end->words);
		loop_timer_set(u->job->look, 0);
		return;
	}
	_free_ char *why = xasprintf("%s succeeded, but %s", wished(u->job), end->words);

	if (end->state != AGENT_STATE_UNKNOWN)
		u->maybe = false;
	unit_retry(u, "status", why, end->late && level_follows(u->job));
}

static void unit_acted(void *arg, const struct agent_end *end)
{
	struct unit *u = arg;

	agent_call_free(steal_ptr(u->call));
	if (end->late || end->exit_status == 0)
		u->maybe = true;
	if (end->exit_status != 0) {
		unit_retry(u, wished(u->job), end->words, end->late && level_follows(u->job));
		return;
	}
	tell(u->job, u, wished(u->job), POWER_CONFIRMED, end->words);
	u->state = UNIT_ASKS;
	unit_call(u, AGENT_STATUS, unit_asked);
}

static void unit_act(struct unit *u)
{
	u->attempt++;
	u->state = UNIT_ACTS;
	unit_call(u, u->job->to_on ? AGENT_ON : AGENT_OFF, unit_acted);
}

/* ---- levels ---- */

static void level_begin(struct power_job *j)
{
	const struct power_level *level = &j->plan->levels[j->level];

	j->n = level->n;
	for (size_t i = 0; i < level->n; i++)
		j->units[i] = (struct unit){.job = j, .sw = &level->switches[i]};
	for (size_t i = 0; i < level->n; i++)
		unit_act(&j->units[i]);
}

static void job_end(struct power_job *j, enum power_result result, unsigned level, bool powered_on, const char *text)
{
	struct power_end end = {.result = result, .level = level, .powered_on = powered_on, .text = text};

	units_done(j);
	loop_timer_set(j->look, -1);
	loop_timer_set(j->limit, -1);
	j->spec.on_end(j->spec.arg, &end);
}

/* "n1 is off: bmc-n1 (fence_ipmilan) says so": caller frees. */
static char *level_words(const struct power_job *j)
{
	char *text = xasprintf("%s is %s: ", j->plan->node, wished(j));

	for (size_t i = 0; i < j->n; i++) {
		char *longer = xasprintf("%s%s%s (%s)", text,
					 i == 0          ? ""
					 : i + 1 == j->n ? " and "
							 : ", ",
					 j->units[i].sw->name, j->units[i].sw->agent);

		free(text);
		text = longer;
	}
	char *all = xasprintf("%s %s so", text, j->n == 1 ? "says" : "say");

	free(text);
	return all;
}

static void level_confirmed(struct power_job *j)
{
	_free_ char *text = level_words(j);
	unsigned level = (unsigned)j->level + 1;

	tell(j, NULL, wished(j), POWER_CONFIRMED, text);
	if (j->spec.action == POWER_REBOOT && !j->to_on) {
		units_done(j);
		j->off_level = level;
		j->to_on = true;
		j->deadline_ns = clock_now_ns() + j->spec.timeout_ns;
		loop_timer_set(j->limit, j->spec.timeout_ns);
		level_begin(j);
		return;
	}
	if (j->spec.action == POWER_REBOOT)
		job_end(j, POWER_CONFIRMED, j->off_level, true, text);
	else
		job_end(j, POWER_CONFIRMED, level, j->spec.action == POWER_ON, text);
}

/* No level is left, or no time. */
static void job_give_up(struct power_job *j)
{
	_free_ char *text = NULL;

	if (j->off_level > 0) {
		text = xasprintf("%s is off, and could not be switched on again: %s", j->plan->node, j->reasons);
		job_end(j, POWER_CONFIRMED, j->off_level, false, text);
		return;
	}
	text = xasprintf("nothing proves that %s is %s: %s", j->plan->node, wished(j), j->reasons);
	job_end(j, j->maybe ? POWER_UNKNOWN : POWER_FAILED, 0, false, text);
}

/* What a unit is worth once its level is given up: may it have done what it was told? */
static bool unit_maybe(const struct unit *u)
{
	return u->maybe || u->state == UNIT_CONFIRMED || u->state == UNIT_ACTS;
}

static void level_note(struct power_job *j)
{
	bool all = j->n > 0;

	for (size_t i = 0; i < j->n; i++)
		all = all && unit_maybe(&j->units[i]);
	j->maybe = j->maybe || all;
}

static void level_failed(struct power_job *j, const struct unit *u)
{
	_free_ char *text = xasprintf("level %zu: %s (%s): %s", j->level + 1, u->sw->name, u->sw->agent, u->why);

	level_note(j);
	reason_add(j, text);
	tell(j, NULL, wished(j), POWER_FAILED, text);
	units_done(j);
	/* What one level has switched off only the same one is known to switch on. */
	if (!level_follows(j)) {
		job_give_up(j);
		return;
	}
	j->level++;
	level_begin(j);
}

static void job_begin(struct power_job *j)
{
	char time[TEXT_CELL];
	_free_ char *text = NULL;

	if (j->delay_ns > 0) {
		text_duration(time, j->delay_ns);
		text = xasprintf("waits for %s first, so that two hosts do not switch each other off", time);
		tell(j, NULL, "delay", POWER_UNKNOWN, text);
		loop_timer_set(j->look, j->delay_ns);
		j->delay_ns = 0;
		return;
	}
	j->begun = true;
	j->deadline_ns = clock_now_ns() + j->spec.timeout_ns;
	loop_timer_set(j->limit, j->spec.timeout_ns);
	level_begin(j);
}

static void job_look(void *arg)
{
	struct power_job *j = arg;
	size_t confirmed = 0;

	if (!j->begun) {
		job_begin(j);
		return;
	}
	for (size_t i = 0; i < j->n; i++) {
		if (j->units[i].state == UNIT_FAILED) {
			level_failed(j, &j->units[i]);
			return;
		}
		confirmed += j->units[i].state == UNIT_CONFIRMED;
	}
	if (confirmed == j->n)
		level_confirmed(j);
}

static void job_late(void *arg)
{
	struct power_job *j = arg;
	char time[TEXT_CELL];
	_free_ char *text = NULL;

	text_duration(time, j->spec.timeout_ns);
	text = xasprintf("level %zu: it was not over within %s", j->level + 1, time);
	for (size_t i = 0; i < j->n; i++)
		if (j->units[i].why) {
			_free_ char *why = xasprintf("level %zu: %s (%s): %s", j->level + 1, j->units[i].sw->name,
						     j->units[i].sw->agent, j->units[i].why);
			reason_add(j, why);
		}
	reason_add(j, text);
	level_note(j);
	tell(j, NULL, wished(j), j->maybe ? POWER_UNKNOWN : POWER_FAILED, text);
	job_give_up(j);
}

/* ---- jobs ---- */

/* The caller's delay and the largest static one of level 1. Who could shoot back has done so before a second level
 * begins. */
static int64_t job_delay(const struct power_job *j)
{
	const struct power_level *level = &j->plan->levels[0];
	int64_t most = 0;

	if (j->spec.action == POWER_ON)
		return 0;
	for (size_t i = 0; i < level->n; i++)
		if (level->switches[i].delay_ms > most)
			most = level->switches[i].delay_ms;
	return j->spec.delay_ns + most * NS_PER_MS;
}

struct power_job *power_start(struct loop *loop, struct power_plan *plan, const struct power_spec *spec)
{
	struct power_job *j = xcalloc(1, sizeof(*j));

	*j = (struct power_job){.loop = loop, .plan = plan, .spec = *spec, .to_on = spec->action == POWER_ON};
	j->delay_ns = job_delay(j);
	j->look = loop_timer_add(loop, 0, 0, job_look, j);
	j->limit = loop_timer_add(loop, -1, 0, job_late, j);
	return j;
}

void power_free(struct power_job *j)
{
	if (!j)
		return;
	units_done(j);
	loop_timer_free(j->look);
	loop_timer_free(j->limit);
	power_plan_free(j->plan);
	free(j->reasons);
	free(j);
}
