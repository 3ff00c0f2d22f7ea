/* SPDX-License-Identifier: Apache-2.0 */
/* In the simulator of high availability: the agent, which looks and acts by the real plan; godwit-vm, which asks for
 * the permit; QEMU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/sql.h"
#include "cluster/state.h"
#include "tests/sim/ha-sim.h"

#define INTERVAL (3 * NS_PER_S)
#define SOON (20 * NS_PER_MS)
#define AGAIN (2 * NS_PER_S)

static const char uuids[] = "00000000-0000-4000-8000-00000000000";

static const char *name_of(unsigned g)
{
	static const char *const names[GUESTS_MAX] = {"g0", "g1", "g2", "g3", "g4", "g5"};

	return names[g];
}

/* ---- QEMU ---- */

unsigned ha_qemus(const struct host *h)
{
	unsigned n = 0;

	for (unsigned g = 0; g < ha->n_guests; g++)
		n += h->guests[g].alive;
	return n;
}

void ha_qemu_end(struct host *h, unsigned g, const char *how)
{
	ha_trace(h, "%s (epoch %lld) ends: %s", name_of(g), (long long)h->guests[g].epoch, how);
	h->guests[g].alive = false;
	if (h->up)
		ha_agent_look(h);
}

/* ---- godwit-vm: it does not end with the daemon ---- */

static void done(struct host *h, unsigned k, uint32_t life)
{
	struct hguest *g = &h->guests[k];

	if (life != h->life || !h->up)
		return;
	g->starting = g->killing = false;
	g->changed = true;
	ha_agent_look(h);
}

static void on_killed(struct event *ev)
{
	struct hguest *g = &ev->h->guests[ev->k];

	if (g->here && g->alive && !g->hung)
		ha_qemu_end(ev->h, ev->k, "godwit-vm kill");
	if (!g->alive)
		g->here = false;
	else
		g->again_ns = ha_clock(ev->h) + AGAIN;
	done(ev->h, ev->k, (uint32_t)ev->gen);
}

static void on_started(struct event *ev)
{
	done(ev->h, ev->k, (uint32_t)ev->gen);
}

/* Its record is written; the permit decides. */
static void on_start(struct event *ev)
{
	struct host *h = ev->h;
	struct hguest *g = &h->guests[ev->k];
	bool current = ev->gen == h->life && h->up;
	struct event *next;

	if (g->here && g->alive) {
		if (current)
			g->want.failure = "runs already";
	} else if (ha->o.broken != BREAK_PERMIT && ha_clock(h) >= keeper_permit(&h->keeper)) {
		ha_trace(h, "%s: there is no permit to start it", name_of(ev->k));
		g->again_ns = ha_clock(h) + AGAIN;
	} else if (ha_chance(ha->healing ? 0 : 20)) {
		/* Early, with what was there before untouched, or late. */
		g->here = g->here && ha_chance(500);
		if (current)
			g->want.failure = "cannot be started: QEMU ended at once";
	} else {
		g->here = g->alive = true;
		g->epoch = ev->value;
		g->stubborn = ha_chance(300);
		g->hung = (h->has_dog || ha->o.broken == BREAK_ARMED) && ha_chance(200); /* what the watchdog is for */
		ha->starts++;
		ha_trace(h, "%s starts (epoch %lld)", name_of(ev->k), (long long)g->epoch);
		if (g->epoch < EPOCHS_MAX) {
			char *owner = &ha->owner[ev->k][g->epoch];

			if (*owner && *owner != (char)h->n && !h->lied)
				ha_fail("%s starts on n%u under epoch %lld, which n%d had", name_of(ev->k), h->n,
					(long long)g->epoch, *owner);
			*owner = (char)h->n;
		}
	}
	next = ha_at(ha_between(20, 400), on_started, h, false);
	next->k = ev->k;
	next->gen = ev->gen;
}

static void act(struct host *h, unsigned k, enum agent_act a)
{
	struct hguest *g = &h->guests[k];
	struct event *ev;

	if (a == AGENT_START)
		g->starting = true;
	else
		g->killing = true;
	ev = a == AGENT_START ? ha_at(ha_between(20, 300), on_start, h, false)
			      : ha_at(ha_between(20, 200), on_killed, h, false);
	ev->k = k;
	ev->gen = h->life;
	ev->value = g->want.epoch;
}

/* ---- telling ---- */

/* As node/daemon.c: is it news for the state? */
static bool is_news(const struct host *h, unsigned k, int64_t epoch, const char *status, int64_t as_of)
{
	json_t *vm = state_vm_get(h->db, name_of(k), NULL);
	const char *have = json_string_value(json_object_get(vm, "status"));
	const char *owner = json_string_value(json_object_get(vm, "owner"));
	bool ours = owner && !strcmp(owner, h->name) && json_integer_value(json_object_get(vm, "epoch")) == epoch;
	bool known = have && !strcmp(have, status) &&
		     (!as_of || json_integer_value(json_object_get(json_object_get(vm, "detail"), "as_of")) == as_of);

	json_decref(vm);
	return ours && !known;
}

static void tell(struct host *h, unsigned k, const struct agent_action *a)
{
	struct hguest *g = &h->guests[k];
	bool gone = !g->seen || g->seen_gone,
	     failed = g->want.intent == AGENT_RUNNING && a->act == AGENT_REPORT && gone;
	const char *status = failed ? "failed" : !g->seen ? "stopped" : g->seen_gone ? "failed" : "running";
	int64_t epoch = g->seen && !(failed && g->seen_epoch < g->want.epoch) ? g->seen_epoch : g->want.epoch;
	int64_t as_of = failed ? g->as_of : 0;
	json_t *args;

	if (!g->seen && g->want.intent == AGENT_ELSEWHERE)
		return;
	if (g->told == status && g->told_epoch == epoch && g->told_as_of == as_of)
		return;
	g->told = status;
	g->told_epoch = epoch;
	g->told_as_of = as_of;
	if (!h->synced || !is_news(h, k, epoch, status, as_of))
		return;
	args = json_pack("{s:s, s:s, s:I, s:s}", "vm", name_of(k), "node", h->name, "epoch", (json_int_t)epoch,
			 "status", status);
	if (as_of > 0)
		json_object_set_new(args, "as_of", json_integer(as_of));
	if (a->act == AGENT_REPORT && a->why[0])
		json_object_set_new(args, "note", json_string(a->why));
	daemon_propose(&h->d, "vm.observed", NULL, args, NULL, NULL);
}

void ha_agent_tell_all(struct host *h)
{
	for (unsigned g = 0; g < ha->n_guests; g++)
		h->guests[g].told = NULL;
	ha_agent_look(h);
}

/* ---- looking ---- */

static void plan(struct host *h, unsigned k, int64_t now, int64_t *wake)
{
	struct hguest *g = &h->guests[k];
	struct agent_have have = {.uuid = g->want.uuid,
				  .cluster = CLUSTER,
				  .epoch = g->seen_epoch,
				  .status = g->seen_gone ? VM_STATUS_GONE : VM_STATUS_RUNNING};
	struct agent_action a;

	if (g->starting || g->killing || g->changed || !g->wanted)
		return;
	a = agent_plan(CLUSTER, &g->want, g->seen ? &have : NULL);
	if ((a.act == AGENT_KILL || a.act == AGENT_STOP || a.act == AGENT_START) && now < g->again_ns)
		a = (struct agent_action){.act = AGENT_WAIT, .why = a.why, .until_ns = g->again_ns};
	if (a.act == AGENT_START && !h->allowed && ha->o.broken != BREAK_PERMIT)
		a = (struct agent_action){.act = AGENT_WAIT, .why = "this host has no lease", .until_ns = g->again_ns};
	tell(h, k, &a);
	if (a.act == AGENT_START || a.act == AGENT_STOP || a.act == AGENT_KILL) {
		ha_trace(h, "agent: %s %s, %s", agent_act_names[a.act], name_of(k), a.why);
		act(h, k, a.act);
	}
	if (a.act == AGENT_WAIT && a.until_ns > now && a.until_ns < *wake)
		*wake = a.until_ns;
}

static void on_look_begin(struct event *ev);

static void look_in(struct host *h, int64_t ns)
{
	struct event *ev = ha_at(ns, on_look_begin, h, true);

	ev->gen = ++ha->gens;
	h->look_gen = ev->gen;
}

static void on_look_end(struct event *ev)
{
	struct host *h = ev->h;
	int64_t now = ha_clock(h), wake = now + INTERVAL;

	h->look_active = false;
	h->seen_boot = h->look_boot;
	for (unsigned g = 0; g < ha->n_guests; g++) {
		plan(h, g, now, &wake);
		h->look_again |= h->guests[g].changed;
	}
	look_in(h, h->look_again ? SOON : wake - now);
}

/* godwit-vm list: it sees what is there when it looks, and says so later. */
static void on_look_begin(struct event *ev)
{
	struct host *h = ev->h;

	if (ev->gen != h->look_gen || h->look_active)
		return;
	h->look_again = false;
	h->look_active = true;
	h->look_boot = ha_clock(h);
	for (unsigned k = 0; k < ha->n_guests; k++) {
		struct hguest *g = &h->guests[k];

		g->changed = false;
		g->seen = g->here;
		g->seen_epoch = g->epoch;
		g->seen_gone = g->here && !g->alive;
	}
	ha_at(ha_between(5, 80), on_look_end, h, true);
}

void ha_agent_look(struct host *h)
{
	if (!h->up)
		return;
	h->look_again = true;
	if (!h->look_active)
		look_in(h, SOON);
}

bool agent_empty(const struct agent *a, int64_t since_ns)
{
	const struct host *h = (const void *)a;

	if (ha->o.broken == BREAK_EMPTY)
		return true;
	for (unsigned g = 0; g < ha->n_guests; g++)
		if ((h->guests[g].seen && h->guests[g].alive) || h->guests[g].starting)
			return false;
	return h->seen_boot > since_ns;
}

/* ---- what the state wants here ---- */

static void want(struct host *h, unsigned k, sqlite3_stmt *vm)
{
	const char *owner = sql_column_text(vm, 0), *status = sql_column_text(vm, 1);
	int64_t epoch = sqlite3_column_int64(vm, 2);
	struct hguest *g = &h->guests[k];

	g->wanted = true;
	if (epoch != g->want.epoch)
		g->want.failure = NULL;
	g->want.uuid = uuids;
	g->want.epoch = epoch;
	g->want.intent = !h->synced && ha->o.broken != BREAK_PERMIT ? AGENT_MOVING
			 : !strcmp(owner, h->name)                  ? AGENT_RUNNING
								    : AGENT_ELSEWHERE;
	g->want.ran = *status && strcmp(status, "stopped") != 0 && strcmp(status, "starting") != 0 &&
		      ha->o.broken != BREAK_PERMIT;
	g->as_of = sqlite3_column_int64(vm, 3);
}

void ha_agent_wants(struct host *h)
{
	/* No more columns than these: as JSON with all of them, this took a sixth of the simulator's time. */
	_sql_ sqlite3_stmt *s = sql_begin(h->db, NULL,
					  "SELECT v.owner, o.status, v.epoch, v.changed FROM vm v "
					  "LEFT JOIN observed o ON o.vm = v.name ORDER BY v.name");

	for (unsigned k = 0; s && sql_next(s, NULL) > 0; k++)
		want(h, k, s);
	ha_agent_look(h);
}
