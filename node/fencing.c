/* SPDX-License-Identifier: Apache-2.0 */
/* Fencing at work.
 *
 * The host that writes the log looks at each configured host that is not a member:
 *
 *   up      -> node.lost. At once when corosync does not reach it. When only its daemon is away, after the time of a
 *              lease: a daemon that is replaced is back before. Never when it was stopped in order (frozen).
 *   lost    -> the proofs race: its power is switched off and seen to be off; or a majority has not heard it for so
 *              long that its lease is over and its watchdog has bitten (cluster/lease.h); or it was told on a shared
 *              disk to die, in the life that it had last by its own node.alive, and answers there that its guests are
 *              dead (node/disks.h). The first writes node.fenced.
 *   fenced  -> nothing. cluster/ha.h starts its guests elsewhere.
 *
 * A host that comes back before there is a proof says node.alive itself, and the race ends. All that is known is in the
 * state; so a new manager goes on with the same fencing, and asks the power devices and the host again, which does no
 * harm: whoever was told to die by one acknowledges that to all.
 *
 * One of two hosts can write nothing without the other one, so there the order is another (docs/cluster.md, "How one of
 * two goes on alone"): first the other one's power is switched off and seen to be off, by what this host knows of the
 * state; then the log goes on alone; then follows the above, with that as its proof. Only a host that would go on alone
 * shoots. Of two that are cut off from each other both would: the device's delay decides whose shot comes first.
 */
#include "node/fencing.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/ha.h"
#include "cluster/state.h"
#include "node/daemon-int.h"
#include "node/fence-device.h"

#define POLL (100 * NS_PER_MS) /* while a host is lost */
#define ASK_AGAIN (2 * NS_PER_S)
#define POWER_MOST (60 * NS_PER_S)  /* for all levels of a host together */
#define POWER_AGAIN (10 * NS_PER_S) /* after all of them have failed */
#define PILL_MOST (30 * NS_PER_S)   /* on the disks, for one answer */
#define PILL_AGAIN (2 * NS_PER_S)
#define BOOT_GRACE (60 * NS_PER_S) /* for hosts that this daemon has never seen: all may be starting */
#define TEXT_MAX 1000U
#define FENCINGS_LOOKED_AT 16

/* One host that is lost, or whose power somebody has asked to be switched. */
struct power_case {
	struct power_case *next;
	struct fencing *f;
	char *node;
	int64_t number;   /* of the fencing in the state; 0: none */
	int64_t since_ns; /* when this host knew that it is lost: clock_boot_ns() */
	int64_t asked_ns; /* a command was proposed: not again before ASK_AGAIN later */
	int64_t power_ns; /* the next try of its power */
	bool no_power;
	bool keep_off; /* somebody wants it off, which could not be written yet */
	struct power_job *job;
	enum power_action action;
	fencing_done_fn *done; /* of a request */
	void *arg;
	struct disks_request *pill;
	int64_t pill_ns; /* the next one */
	uint64_t itself; /* replica_by_itself() when the job began */
	char *device;    /* that said last that it is off; NULL: none so far. Its level may have more */
	struct {
		uint64_t itself; /* likewise, when one of two was seen to be off; 0: it was not */
		unsigned level;
		char *text;
	} off;
	char told[DISKS_LIFE_TEXT]; /* the life that it names */
	enum disk_result said;      /* what came of the last one, as a step tells it; DISK_RESULT_MAX: none so far */
};

struct fencing {
	struct daemon *d;
	struct power_case *cases;
	int64_t start_ns;
	struct loop_timer *poll;
};

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static uint32_t id_of(const json_t *row)
{
	return (uint32_t)json_integer_value(json_object_get(row, "id"));
}

static json_t *short_text(const char *s)
{
	return json_stringn(s, strnlen(s, TEXT_MAX));
}

/* ---- cases ---- */

static struct power_case *case_find(struct fencing *f, const char *node, bool make)
{
	struct power_case *c = f->cases;

	while (c && strcmp(c->node, node) != 0)
		c = c->next;
	if (c || !make)
		return c;
	c = xcalloc(1, sizeof(*c));
	c->f = f;
	c->node = xstrdup(node);
	c->said = DISK_RESULT_MAX;
	c->next = f->cases;
	f->cases = c;
	return c;
}

static void case_free(struct power_case *c)
{
	power_free(c->job);
	disks_pill_cancel(c->pill);
	free(c->off.text);
	free(c->device);
	free(c->node);
	free(c);
}

/* The race is over for it. What somebody has asked for goes on; so does switching on again, unless @cancel. */
static void case_drop(struct fencing *f, const char *node, bool cancel)
{
	struct power_case **p = &f->cases, *c;

	while (*p && strcmp((*p)->node, node) != 0)
		p = &(*p)->next;
	c = *p;
	if (c)
		disks_pill_cancel(steal_ptr(c->pill));
	if (!c || c->done || (c->job && !cancel))
		return;
	if (c->job)
		log_info("event=fence-cancelled node=%s text=\"it is back, or another host manages the cluster now\"",
			 node);
	*p = c->next;
	case_free(c);
}

/* ---- what is written ---- */

static bool may_ask(struct power_case *c)
{
	int64_t now = clock_now_ns();

	if (c->asked_ns && now < c->asked_ns + ASK_AGAIN)
		return false;
	c->asked_ns = now;
	return true;
}

static void step(struct power_case *c, const char *kind, const char *device, unsigned level, const char *result,
		 const char *text)
{
	json_t *args;

	if (!c->number)
		return;
	args = json_pack("{s:s, s:I, s:s, s:s}", "node", c->node, "number", (json_int_t)c->number, "kind", kind,
			 "result", result);
	if (device)
		json_object_set_new(args, "device", json_string(device));
	if (level)
		json_object_set_new(args, "level", json_integer((json_int_t)level));
	if (text && *text)
		json_object_set_new(args, "text", short_text(text));
	daemon_propose(c->f->d, "fence.step", NULL, args, NULL, NULL);
}

/* @level: of a proof by power, or 0. @life: that was told to die, of a proof by disk; or NULL. */
static void proof(struct power_case *c, const char *kind, unsigned level, const char *life, const char *text)
{
	json_t *args;

	if (!c->number)
		return;
	args = json_pack("{s:s, s:I, s:s, s:o}", "node", c->node, "number", (json_int_t)c->number, "proof", kind,
			 "text", short_text(text));
	if (level && c->device)
		json_object_set_new(args, "device", json_string(c->device));
	if (level)
		json_object_set_new(args, "level", json_integer((json_int_t)level));
	if (life)
		json_object_set_new(args, "incarnation", json_string(life));
	log_warning("event=fenced node=%s fencing=%lld proof=%s text=\"%s\"", c->node, (long long)c->number, kind,
		    text);
	daemon_propose(c->f->d, "node.fenced", NULL, args, NULL, NULL);
}

/* ---- power ---- */

/* The moment at which it is known to be off: with a reboot it is on again at the end. One of two hosts goes on alone by
 * that, if nothing was heard of the other one since before the agent was asked. */
static void seen_off(struct power_case *c, unsigned level, const char *text)
{
	struct replica *r = c->f->d->replica;
	json_t *row;

	proof(c, "power", level, NULL, text);
	if (!c->itself || c->itself != replica_by_itself(r) || !(row = state_node_get(replica_db(r), c->node, NULL)))
		return;
	c->off.itself = c->itself;
	c->off.level = level;
	free(c->off.text);
	c->off.text = xstrdup(text);
	if (replica_may_alone(r)) {
		log_warning("event=alone node=%s text=\"it was seen to be off: this host goes on without it\"",
			    c->node);
		replica_dead(r, id_of(row), c->itself);
	}
	json_decref(row);
}

static void on_power_event(void *arg, const struct power_event *event)
{
	struct power_case *c = arg;

	if (event->device && strcmp(event->action, "delay") != 0)
		step(c, "power", event->device, event->level, power_result_names[event->result], event->text);
	if (event->device && event->result == POWER_CONFIRMED) {
		free(c->device);
		c->device = xstrdup(event->device);
	}
	if (!event->device && !strcmp(event->action, "off") && event->result == POWER_CONFIRMED)
		seen_off(c, event->level, event->text);
}

static void on_power_end(void *arg, const struct power_end *end)
{
	struct power_case *c = arg;
	fencing_done_fn *done = c->done;

	log_info("event=power node=%s action=%s result=%s text=\"%s\"", c->node, power_action_names[c->action],
		 power_result_names[end->result], end->text);
	power_free(steal_ptr(c->job));
	c->power_ns = clock_now_ns() + POWER_AGAIN;
	c->done = NULL;
	if (done)
		done(c->arg, end);
	fencing_look(c->f);
}

static json_t *devices_of(struct sqlite3 *db, struct err *e)
{
	json_t *rows = state_fence_device_list(db, true, e), *row, *devices = rows ? json_array() : NULL;
	size_t i;

	json_array_foreach (rows, i, row)
		json_array_append_new(devices, fence_device_of_row(row));
	json_decref(rows);
	return devices;
}

/* [[devices of level 1], ...], or NULL where nobody has set levels for @node. */
static json_t *levels_of(struct sqlite3 *db, const char *node)
{
	json_t *rows = state_fence_level_list(db, NULL), *row, *levels = json_array();
	size_t i;

	json_array_foreach (rows, i, row)
		if (!strcmp(text_of(row, "node"), node))
			json_array_append(levels, json_object_get(row, "devices"));
	json_decref(rows);
	if (json_array_size(levels))
		return levels;
	json_decref(levels);
	return NULL;
}

static int power_begin(struct power_case *c, enum power_action action, struct err *e)
{
	struct daemon *d = c->f->d;
	struct sqlite3 *db = replica_db(d->replica);
	json_t *devices = devices_of(db, e), *levels = levels_of(db, c->node);
	struct power_plan *plan = devices ? power_plan_new(devices, levels, c->node, e) : NULL;
	struct power_spec spec = {.action = action,
				  .dirs = d->opt.fence_agents,
				  .timeout_ns = POWER_MOST,
				  .on_event = on_power_event,
				  .on_end = on_power_end,
				  .arg = c};

	json_decref(devices);
	json_decref(levels);
	if (!plan)
		return -1;
	c->action = action;
	c->itself = replica_by_itself(d->replica);
	c->job = power_start(d->loop, plan, &spec);
	return 0;
}

static void race_power(struct power_case *c, bool aside)
{
	struct err e = ERR_INIT;

	if (c->job || clock_now_ns() < c->power_ns)
		return;
	/* Off, the proof, and on again, so that a host that can work comes back by itself. One that was put aside,
	 * because it does not, or because somebody wants it off, stays off. */
	if (power_begin(c, aside ? POWER_OFF : POWER_REBOOT, &e) == 0) {
		step(c, "power", NULL, 0, "started", "its power is being switched off");
		return;
	}
	if (!c->no_power)
		log_warning("event=fence node=%s text=\"its power cannot be switched: %s\"", c->node, e.text);
	c->no_power = true;
	c->power_ns = clock_now_ns() + POWER_AGAIN;
}

/* ---- shared disks ---- */

static const char *step_result(enum disk_result r)
{
	return r == DISK_NOT_TOLD ? "failed" : disk_result_is_proof(r) ? "confirmed" : "unknown";
}

static void on_pill_end(void *arg, enum disk_result r, const char *why)
{
	struct power_case *c = arg;

	c->pill = NULL;
	/* The log may refuse the proof, as the host has come back: then its life is another one, or there is no race.
	 */
	c->pill_ns = clock_now_ns() + PILL_AGAIN;
	log_info("event=pill-end node=%s life=%s result=\"%s\" text=\"%s\"", c->node, c->told, disk_result_name(r),
		 why);
	if (disk_result_is_proof(r)) {
		_free_ char *text = xasprintf("%s (life %s)", why, c->told);

		proof(c, "disk", 0, c->told, text);
	} else if (r != c->said) {
		step(c, "disk", NULL, 0, step_result(r), why);
	}
	c->said = r;
}

static void race_disk(struct power_case *c, const json_t *row)
{
	struct disks *disks = c->f->d->disks;
	const char *life = text_of(row, "incarnation");
	struct err e = ERR_INIT;

	if (c->pill || clock_now_ns() < c->pill_ns || !disks_open_here(disks))
		return;
	c->pill_ns = clock_now_ns() + PILL_AGAIN;
	snprintf(c->told, sizeof(c->told), "%s", life);
	if (*life)
		c->pill = disks_pill(disks, id_of(row), life, PILL_MOST, on_pill_end, c, &e);
	else
		err_set(&e, ERR_UNAVAILABLE, "it has not said which life it has: it has no shared disk, or is older");
	if (c->pill && c->said == DISK_RESULT_MAX)
		step(c, "disk", NULL, 0, "started", "it is told on the shared disks to end its guests");
	else if (!c->pill && c->said != DISK_NOT_TOLD)
		step(c, "disk", NULL, 0, "failed", e.text);
	if (!c->pill)
		c->said = DISK_NOT_TOLD;
}

/* ---- time ---- */

static void race_expiry(struct power_case *c, const json_t *row)
{
	const json_t *said = json_object_get(json_object_get(row, "report"), "watchdog");
	int64_t upto = host_lease_dead_upto(c->f->d->lease, id_of(row), said);

	if (upto <= c->since_ns || json_is_true(json_object_get(row, "frozen")) || !may_ask(c))
		return;
	proof(c, "expiry", 0, NULL,
	      "a majority has not heard it for so long that its lease is over and its watchdog has ended what it ran");
}

/* ---- each host ---- */

/* One that flaps is put aside. Whether it does. */
static bool put_aside(struct fencing *f, const char *node)
{
	json_t *list = state_fencing_list(replica_db(f->d->replica), node, FENCINGS_LOOKED_AT, NULL), *o;
	int64_t lost_ms[FENCINGS_LOOKED_AT];
	char why[256];
	size_t n = 0, i;

	json_array_foreach (list, i, o)
		if (n < FENCINGS_LOOKED_AT)
			lost_ms[n++] = json_integer_value(json_object_get(o, "began"));
	json_decref(list);
	if (!ha_flaps(lost_ms, n, clock_wall_ms(), why, sizeof(why)))
		return false;
	daemon_propose(f->d, "node.aside", NULL, json_pack("{s:s, s:s}", "node", node, "reason", why), NULL, NULL);
	return true;
}

static void keep_off(struct power_case *c)
{
	struct daemon *d = c->f->d;

	if (!c->keep_off || !replica_synced(d->replica))
		return;
	daemon_propose(d, "node.aside", NULL,
		       json_pack("{s:s, s:s}", "node", c->node, "reason", "somebody has switched it off"), NULL, NULL);
	c->keep_off = false;
}

/* Is it time to say that a host which is not a member is lost? The sentence why, or NULL. */
static const char *lost_why(struct fencing *f, const json_t *row)
{
	int64_t gone = host_lease_gone_since(f->d->lease, id_of(row)), now = clock_boot_ns();

	if (json_is_true(json_object_get(row, "frozen")) || json_is_null(json_object_get(row, "reported")))
		return NULL; /* stopped in order; or it has joined, and never was here */
	if (!host_lease_seen(f->d->lease, id_of(row)) && now < f->start_ns + BOOT_GRACE)
		return NULL;
	if (!host_lease_reaches(f->d->lease, id_of(row)))
		return "corosync reaches it no more";
	if (gone >= 0 && now >= gone + host_lease_timing(f->d->lease)->lease_ns)
		return "its daemon is away, and its lease is over";
	return NULL;
}

static void lost(struct fencing *f, const json_t *row)
{
	const char *node = text_of(row, "name"), *why = lost_why(f, row);
	struct power_case *c;

	if (!why)
		return;
	c = case_find(f, node, true);
	if (may_ask(c))
		daemon_propose(f->d, "node.lost", NULL, json_pack("{s:s, s:s}", "node", node, "reason", why), NULL,
			       NULL);
}

static void race(struct fencing *f, const json_t *row)
{
	const char *node = text_of(row, "name");
	struct power_case *c = case_find(f, node, true);
	int64_t number = json_integer_value(json_object_get(row, "fencing"));
	bool aside = !json_is_null(json_object_get(row, "aside"));

	if (c->number != number) {
		if (c->job && !c->done)
			power_free(steal_ptr(c->job)); /* what it sees may be from before */
		c->number = number;
		c->since_ns = clock_boot_ns();
		disks_pill_cancel(steal_ptr(c->pill));
		c->said = DISK_RESULT_MAX;
		c->asked_ns = c->power_ns = c->pill_ns = 0;
		c->no_power = false;
		aside |= c->keep_off || put_aside(f, node); /* the log has it a moment later */
		keep_off(c);
		if (c->off.itself && c->off.itself == replica_by_itself(f->d->replica))
			proof(c, "power", c->off.level, NULL, c->off.text);
	}
	race_disk(c, row);
	race_power(c, aside);
	race_expiry(c, row);
}

static void judge(struct fencing *f, const json_t *row)
{
	const char *life = text_of(row, "life"), *node = text_of(row, "name");
	bool here = replica_member(f->d->replica, id_of(row));

	if (!strcmp(node, f->d->identity.node))
		return;
	if (!strcmp(life, "fenced"))
		case_drop(f, node, false);
	else if (here)
		case_drop(f, node, true);
	else if (!strcmp(life, "lost"))
		race(f, row);
	else
		lost(f, row);
}

/* Hosts that the cluster has no more. */
static void forget_removed(struct fencing *f, const json_t *nodes)
{
	for (struct power_case *c = f->cases, *next; c; c = next) {
		bool there = false;

		next = c->next;
		for (size_t i = 0; i < json_array_size(nodes); i++)
			there |= !strcmp(text_of(json_array_get(nodes, i), "name"), c->node);
		if (!there)
			case_drop(f, c->node, true);
	}
}

/* ---- one of two ---- */

static void alone_race(struct fencing *f, const json_t *row)
{
	struct power_case *c = case_find(f, text_of(row, "name"), true);
	struct err e = ERR_INIT;

	if (c->job || clock_now_ns() < c->power_ns)
		return;
	/* Off: what becomes of it is for the log, as soon as that goes on. */
	if (power_begin(c, POWER_OFF, &e) == 0) {
		log_warning(
			"event=fence node=%s text=\"the other one of two hosts is gone: its power is being switched "
			"off, and this host goes on alone once it is seen to be off\"",
			c->node);
		return;
	}
	if (!c->no_power)
		log_warning("event=fence node=%s text=\"the other one of two hosts is gone, and nothing can be written "
			    "before it is proven dead; its power cannot be switched: %s; if it is off, say so (godwit "
			    "node confirm-dead %s)\"",
			    c->node, e.text, c->node);
	c->no_power = true;
	c->power_ns = clock_now_ns() + POWER_AGAIN;
}

/* Is this host one of two that cannot write, with nobody else here? */
static bool alone_look(struct fencing *f)
{
	struct replica *r = f->d->replica;
	json_t *nodes, *row;
	size_t i;

	if (!r || !f->d->lease || !replica_by_itself(r) || !host_lease_goes_on(f->d->lease))
		return false;
	loop_timer_set(f->poll, POLL);
	if (!replica_may_alone(r))
		return true; /* it has its proof, and the log will go on in a moment; or none would help */
	nodes = state_node_list(replica_db(r), NULL);
	json_array_foreach (nodes, i, row)
		if (strcmp(text_of(row, "name"), f->d->identity.node) != 0 && lost_why(f, row))
			alone_race(f, row);
	json_decref(nodes);
	return true;
}

static bool leads(const struct fencing *f)
{
	return f->d->replica && replica_synced(f->d->replica) && replica_leads(f->d->replica);
}

void fencing_look(struct fencing *f)
{
	json_t *nodes, *row;
	size_t i;

	loop_timer_set(f->poll, -1);
	if (!leads(f) && alone_look(f))
		return;
	if (!leads(f) || !f->d->lease) {
		for (struct power_case *c = f->cases, *next; c; c = next) {
			next = c->next;
			case_drop(f, c->node, true);
		}
		return;
	}
	if (!f->cases && host_lease_all_here(f->d->lease))
		return;
	nodes = state_node_list(replica_db(f->d->replica), NULL);
	json_array_foreach (nodes, i, row)
		judge(f, row);
	if (nodes)
		forget_removed(f, nodes);
	json_decref(nodes);
	if (f->cases || !host_lease_all_here(f->d->lease))
		loop_timer_set(f->poll, POLL);
}

static void poll(void *arg)
{
	fencing_look(arg);
}

/* ---- requests ---- */

int fencing_request(struct fencing *f, const char *node, enum power_action action, fencing_done_fn *done, void *arg,
		    struct err *e)
{
	json_t *row = state_node_get(replica_db(f->d->replica), node, e);
	struct power_case *c;
	uint32_t id;
	bool lost;

	if (!row)
		return -1;
	id = id_of(row);
	lost = !strcmp(text_of(row, "life"), "lost");
	if (action != POWER_ON && !strcmp(node, f->d->identity.node)) {
		json_decref(row);
		return err_set(e, ERR_CONFLICT,
			       "node %s: a host cannot switch itself off and see that it is off; ask another host",
			       node);
	}
	if (action != POWER_ON && replica_member(f->d->replica, id) && host_lease_spare(f->d->lease) < 1 &&
	    !host_lease_goes_on(f->d->lease)) {
		json_decref(row);
		return err_set(e, ERR_CONFLICT,
			       "node %s: without it the hosts that are left have no quorum, and all guests would end; "
			       "bring another host back first",
			       node);
	}
	c = case_find(f, node, true);
	if (c->job) {
		json_decref(row);
		return err_set(e, ERR_CONFLICT,
			       "node %s: its power is being switched already; see `godwit fence history`", node);
	}
	if (lost && !c->number) {
		c->number = json_integer_value(json_object_get(row, "fencing"));
		c->since_ns = clock_boot_ns();
	}
	json_decref(row);
	if (power_begin(c, action, e) < 0) {
		case_drop(f, node, true);
		return -1;
	}
	c->done = done;
	c->arg = arg;
	c->keep_off = action == POWER_OFF; /* or it would be switched on again */
	keep_off(c);
	return 0;
}

/* ---- life ---- */

struct fencing *fencing_new(struct daemon *d)
{
	struct fencing *f = xcalloc(1, sizeof(*f));

	f->d = d;
	f->start_ns = clock_boot_ns();
	f->poll = loop_timer_add(d->loop, -1, 0, poll, f);
	return f;
}

void fencing_free(struct fencing *f)
{
	if (!f)
		return;
	while (f->cases) {
		struct power_case *c = f->cases;

		f->cases = c->next;
		case_free(c);
	}
	loop_timer_free(f->poll);
	free(f);
}
