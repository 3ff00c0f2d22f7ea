/* SPDX-License-Identifier: Apache-2.0 */
/* In the simulator of high availability: what goes wrong, and fence devices, which may go wrong too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "tests/sim/ha-sim.h"

#define FAULTS_BEGIN_MS 2500
#define FAULTS_END_MS 10500
#define FAULTS_END_TWO_MS 15000

const char *const power_action_names[POWER_ACTION_MAX] = {"off", "on", "reboot"};
const char *const power_result_names[POWER_RESULT_MAX] = {"confirmed", "failed", "unknown"};

static struct host *any(void)
{
	return &ha->hosts[1 + ha_below(ha->n_hosts)];
}

/* ---- fence devices ---- */

static struct power_job *job_of(const struct event *ev)
{
	struct power_job *j = &ha->jobs[ev->k];

	return j->used && j->gen == ev->gen ? j : NULL;
}

static struct event *job_in(struct power_job *j, int64_t ns, void (*fn)(struct event *ev), bool daemon)
{
	struct event *ev = ha_at(ns, fn, &ha->hosts[j->host], daemon);

	ev->k = (unsigned)(j - ha->jobs);
	ev->gen = j->gen;
	return ev;
}

static void job_end(struct power_job *j, enum power_result result, const char *text)
{
	struct power_end end = {.result = result,
				.level = result == POWER_CONFIRMED,
				.powered_on = result == POWER_CONFIRMED && j->spec.action == POWER_REBOOT,
				.text = text};

	j->spec.on_end(j->spec.arg, &end);
}

static void on_on(struct event *ev)
{
	struct power_job *j = job_of(ev);
	struct host *target = j ? &ha->hosts[j->target] : NULL;

	if (!j)
		return;
	if (!target->power)
		ha_boot(target);
	job_end(j, POWER_CONFIRMED, "it was switched off and on again");
}

/* The device says that it is off. */
static void is_off(struct power_job *j)
{
	struct power_event e = {.node = ha->hosts[j->target].name,
				.level = 1,
				.action = "off",
				.result = POWER_CONFIRMED,
				.text = "is off"};

	j->spec.on_event(j->spec.arg, &e);
	if (j->spec.action == POWER_OFF)
		job_end(j, POWER_CONFIRMED, "is off");
	else
		job_in(j, ha_between(100, 800), on_on, true);
}

static void on_is_off(struct event *ev)
{
	struct power_job *j = job_of(ev);

	if (j)
		is_off(j);
}

static void on_gives_up(struct event *ev)
{
	struct power_job *j = job_of(ev);

	if (j && ha->o.broken == BREAK_FAILED)
		is_off(j);
	else if (j)
		job_end(j, ev->value ? POWER_UNKNOWN : POWER_FAILED, "the device did not do it");
}

/* The device switches it off, whether somebody still waits for that or not. */
static void on_off(struct event *ev)
{
	struct host *target = &ha->hosts[ev->value % 8];
	enum device_mode mode = (enum device_mode)(ev->value / 8);
	struct power_job *j = job_of(ev);

	if (mode == DEVICE_OK || mode == DEVICE_SLOW || (mode == DEVICE_HANGS && ha_chance(300)))
		ha_power_off(target, "is switched off by its fence device");
	if (mode == DEVICE_LIES && target->power) {
		ha_trace(target, "its fence device lies");
		target->lied = true;
	}
	if (!j)
		return;
	if (mode == DEVICE_OK || mode == DEVICE_LIES)
		job_in(j, ha_between(20, 500), on_is_off, true);
	else if (mode == DEVICE_SLOW)
		job_in(j, ha_between(500, 20000), on_is_off, true);
	else
		job_in(j, mode == DEVICE_HANGS ? 60 * NS_PER_S : ha_between(100, 3000), on_gives_up, true)->value =
			mode == DEVICE_HANGS;
}

static void shoot(struct power_job *j)
{
	enum device_mode mode = ha->device[j->target];

	/* A board that has its power from the host answers no more. */
	if (mode == DEVICE_DIES)
		mode = ha->hosts[j->target].power ? DEVICE_OK : DEVICE_FAILS;
	job_in(j, ha_between(100, 2500), on_off, false)->value = j->target + 8 * mode;
}

/* After the device's delay. */
static void on_shoot(struct event *ev)
{
	struct power_job *j = job_of(ev);

	if (j)
		shoot(j);
}

struct power_job *power_start(struct loop *loop, struct power_plan *plan, const struct power_spec *spec)
{
	const struct host *h = (void *)loop;
	struct power_job *j = ha->jobs;

	while (j->used)
		j++;
	if (j == ha->jobs + JOBS_MAX)
		abort();
	*j = (struct power_job){.used = true, .gen = ++ha->gens, .host = h->n, .spec = *spec};
	for (unsigned i = 1; i <= ha->n_hosts; i++)
		if (!strcmp(ha->hosts[i].name, ha_plan_node(plan)))
			j->target = i;
	power_plan_free(plan);
	if (ha->delay[j->target])
		job_in(j, ha->delay[j->target], on_shoot, true);
	else
		shoot(j);
	return j;
}

void power_free(struct power_job *j)
{
	if (j)
		j->used = false;
}

/* ---- faults ---- */

enum fault {
	FAULT_POWER,
	FAULT_HANG,
	FAULT_CUT,
	FAULT_ONE_WAY,
	FAULT_FLAP,
	FAULT_KILL,
	FAULT_STOP,
	FAULT_QEMU,
	FAULT_ALL_OFF,
	FAULT_SLOW,
	FAULT_BUSY,
	FAULT_BREAK,
	FAULT_MANAGER,
	FAULT_MAX
};
static const unsigned often[FAULT_MAX] = {6, 4, 5, 2, 2, 3, 2, 4, 1, 1, 1, 2, 3};
static const char *const names[FAULT_MAX] = {"power cut",       "hangs",         "is cut off",     "one cable, one way",
					     "flaps",           "daemon killed", "daemon stopped", "QEMU dies",
					     "all lose power",  "is slow",       "is busy",        "breaks for good",
					     "the manager dies"};

static void on_daemon_again(struct event *ev)
{
	ha_daemon_start(ev->h);
}

static void on_mended(struct event *ev)
{
	memset(ha->cut, 0, sizeof(ha->cut));
	ha_trace(NULL, "the network is whole");
	ha_ring_changed(1500);
	(void)ev;
}

static int64_t long_or_short(void)
{
	return ha_chance(400) ? ha_between(100, 3000) : ha_between(3000, 20000);
}

static void cut(const struct host *h, bool one_way)
{
	unsigned with = 1 + ha_below(ha->n_hosts); /* perhaps not alone */

	for (unsigned i = 1; i <= ha->n_hosts; i++) {
		if (one_way && i != with)
			continue;
		if (i == h->n || (i == with && !one_way && ha_chance(300)))
			continue;
		ha->cut[h->n][i] = true;
		ha->cut[i][h->n] = !one_way;
	}
	ha_ring_changed(ha->timing.detect_ns / NS_PER_MS);
	ha_at(long_or_short(), on_mended, NULL, false);
}

static void hang(struct host *h)
{
	int64_t ns = long_or_short();

	h->hung_until = ha->now + ns;
	ha_trace(h, "hangs for %.3f s", (double)ns / NS_PER_S);
	ha_ring_changed(ha->timing.detect_ns / NS_PER_MS);
	ha_at(ns + NS_PER_MS, on_mended, NULL, false);
}

static void kill_daemon(struct host *h)
{
	ha_daemon_kill(h);
	ha_at(long_or_short(), on_daemon_again, h, false);
}

static void qemu_dies(struct host *h)
{
	for (unsigned g = 0; g < ha->n_guests; g++)
		if (h->guests[g].alive) {
			ha_qemu_end(h, g, "it crashes");
			return;
		}
}

static void fire(struct host *h, enum fault f)
{
	ha_trace(h, "FAULT %s", names[f]);
	switch (f) {
	case FAULT_POWER:
		ha_power_off(h, "loses power");
		break;
	case FAULT_HANG:
		hang(h);
		break;
	case FAULT_CUT:
	case FAULT_ONE_WAY:
		cut(h, f == FAULT_ONE_WAY);
		break;
	case FAULT_FLAP:
		ha_ring_changed(100);
		ha_ring_changed(700);
		break;
	case FAULT_KILL:
		kill_daemon(h);
		break;
	case FAULT_STOP:
		ha_daemon_stop(h);
		ha_at(5 * NS_PER_S + long_or_short(), on_daemon_again, h, false);
		break;
	case FAULT_QEMU:
		qemu_dies(h);
		break;
	case FAULT_ALL_OFF:
		for (unsigned i = 1; i <= ha->n_hosts; i++)
			ha_power_off(&ha->hosts[i], "loses power");
		break;
	case FAULT_SLOW:
		h->slow_until = ha->now + ha_between(500, 6000);
		break;
	case FAULT_BREAK: /* one of them: the others have quorum */
		for (unsigned i = 1; i <= ha->n_hosts; i++)
			if (ha->hosts[i].broken)
				return;
		h->broken = true;
		ha_power_off(h, "breaks");
		break;
	case FAULT_BUSY:
		h->busy_until = ha->now + ha_between(500, 6000);
		break;
	case FAULT_MANAGER:
	case FAULT_MAX:
		break;
	}
}

static void on_fault(struct event *ev)
{
	struct host *h = any();
	enum fault f = (enum fault)ev->k;

	if (ha->healing)
		return;
	if (f == FAULT_MANAGER) { /* some seconds after something, so likely in the middle of it */
		for (unsigned i = 1; i <= ha->n_hosts; i++)
			if (ha->hosts[i].leads)
				h = &ha->hosts[i];
		f = ha_chance(400) ? FAULT_KILL : ha_chance(500) ? FAULT_POWER : FAULT_HANG;
	}
	if (h->power && h->hung_until <= ha->now)
		fire(h, f);
}

static enum fault draw(void)
{
	unsigned sum = 0, n;

	for (unsigned i = 0; i < FAULT_MAX; i++)
		sum += often[i];
	n = ha_below(sum);
	for (unsigned i = 0;; i++) {
		if (n < often[i])
			return (enum fault)i;
		n -= often[i];
	}
}

void ha_faults_begin(void)
{
	unsigned n = 1 + ha_below(ha->o.two ? 6 : 4);

	for (unsigned i = 0; i < n; i++)
		ha_at(ha_between(FAULTS_BEGIN_MS, ha->o.two ? FAULTS_END_TWO_MS : FAULTS_END_MS), on_fault, NULL, false)
			->k = draw();
	for (unsigned i = 1; i <= ha->n_hosts; i++)
		if (ha->device[i] != DEVICE_NONE && ha_chance(350))
			ha->device[i] = (enum device_mode)(DEVICE_FAILS + (int)ha_below(4));
	/* When the device of one of two lies no rule helps: it has two logs then. */
	for (unsigned i = 1; i <= ha->n_hosts && ha->o.two; i++)
		if (ha->device[i] == DEVICE_LIES)
			ha->device[i] = DEVICE_SLOW;
}

/* ---- at the end ---- */

/* Nothing else can prove it of a host that was stopped in order, or whose watchdog was not armed. */
static void confirm(struct host *h, const json_t *row)
{
	if (!strcmp(json_string_value(json_object_get(row, "life")), "up") &&
	    json_is_true(json_object_get(row, "frozen")))
		daemon_propose(
			&h->d, "node.lost", NULL,
			json_pack("{s:O, s:s}", "node", json_object_get(row, "name"), "reason", "somebody says so"),
			NULL, NULL);
	else if (!strcmp(json_string_value(json_object_get(row, "life")), "lost") && ha_chance(100))
		daemon_propose(&h->d, "node.fenced", NULL,
			       json_pack("{s:O, s:O, s:s, s:s}", "node", json_object_get(row, "name"), "number",
					 json_object_get(row, "fencing"), "proof", "manual", "text", "it is broken"),
			       NULL, NULL);
}

/* A person looks after hosts that were put aside, and after what no proof could be found for. */
static void on_person(struct event *ev)
{
	struct host *h = NULL;
	json_t *nodes, *row;
	size_t i;

	(void)ev;
	ha_pair_person();
	for (unsigned k = 1; k <= ha->n_hosts && !h; k++)
		if (ha->hosts[k].up && ha->hosts[k].synced)
			h = &ha->hosts[k];
	ha_at(NS_PER_S, on_person, NULL, false);
	if (!h)
		return;
	ha->at = h;
	nodes = state_node_list(h->db, NULL);
	json_array_foreach (nodes, i, row) {
		if (ha->hosts[i + 1].broken) {
			confirm(h, row);
			continue;
		}
		if (!json_is_null(json_object_get(row, "aside")))
			daemon_propose(&h->d, "node.aside-clear", NULL,
				       json_pack("{s:O}", "node", json_object_get(row, "name")), NULL, NULL);
	}
	json_decref(nodes);
	ha->at = NULL;
}

void ha_heal(void)
{
	ha->healing = true;
	ha_trace(NULL, "everything heals");
	memset(ha->cut, 0, sizeof(ha->cut));
	for (unsigned i = 1; i <= ha->n_hosts; i++) {
		struct host *h = &ha->hosts[i];

		if (h->hung_until > ha->now)
			h->hung_until = ha->now;
		h->slow_until = h->busy_until = 0;
		for (unsigned g = 0; g < ha->n_guests; g++)
			h->guests[g].hung = false;
		if (ha->device[i] != DEVICE_NONE)
			ha->device[i] = DEVICE_OK;
		if (!h->power)
			ha_boot(h);
		else if (!h->up)
			ha_daemon_start(h);
	}
	ha_ring_changed(1500);
	on_person(&(struct event){0});
}
