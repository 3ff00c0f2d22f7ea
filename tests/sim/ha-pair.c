/* SPDX-License-Identifier: Apache-2.0 */
/* In the simulator of high availability, worlds of two hosts: corosync's quorum, and the log that one of them goes on
 * with alone (docs/cluster.md, "How one of two goes on alone"). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "node/daemon-int.h"
#include "node/http.h"
#include "tests/sim/ha-sim.h"

/*
 * The rules are those of cluster/core-alone.c, done once more and in short: replica-sim has the real ones, and here the
 * code around them is real, which finds the proofs, gives them and goes by what follows. An entry of the log is on the
 * disks of both, or on that of the one that is alone; `have` says how far each disk has the log.
 *
 * Quorum is corosync's: with two_node each side of a cut has it, once both have met since corosync started; with a
 * quorum device at most one side gets the vote, and the other one still shows the view before the cut for a while.
 */

#define BEHIND 3         /* entries that the other one may lack when no more are taken */
#define CATCH_UP 8       /* entries at a time */
#define DELAY_MS 5000    /* of the device of the favourite */
#define PERSON_MS 4000   /* somebody comes by */
#define VOTE_WON_MS 5000 /* the device's answer */
#define VOTE_LOST_MS 10000

static struct host *other_of(const struct host *h)
{
	return ha->o.two ? &ha->hosts[3 - h->n] : NULL;
}

/* Both daemons are on one ring. */
static bool together(const struct host *h)
{
	const struct host *o = other_of(h);

	return ha->group[h->n] && ha->group[h->n] == ha->group[o->n] && ha_present(h) && ha_present(o);
}

static bool by_itself(const struct host *h)
{
	return h->viewed && h->view.n == 1 && h->view.members[0] == h->n;
}

/* Whose log it is while both are together, or NULL: that of both. */
static struct host *owner(const struct host *h)
{
	struct host *o = other_of(h);

	return h->alone || h->marked ? &ha->hosts[h->n] : o->alone || o->marked ? o : NULL;
}

/* ---- quorum ---- */

static void vote(void)
{
	unsigned other = 3 - ha->vote;
	bool holds = ha->vote && ha->group[ha->vote];

	if (ha->group[1] && ha->group[1] == ha->group[2])
		return;
	if (!ha->vote)
		ha->vote = ha->group[1] && (!ha->group[2] || ha_chance(500)) ? 1 : ha->group[2] ? 2 : 0;
	else if (ha->group[other] && (!holds || ha_chance(100)))
		ha->vote = other; /* it has no memory */
	else if (!holds || (!ha->healing && ha_chance(50)))
		ha->vote = 0; /* it is away itself */
}

void ha_pair_formed(void)
{
	if (!ha->o.two)
		return;
	if (ha->group[1] && ha->group[1] == ha->group[2])
		ha->hosts[1].met = ha->hosts[2].met = true;
	vote();
}

int64_t ha_pair_view(const struct host *h, struct bus_view *v)
{
	bool won = ha->vote == h->n;

	if (!ha->o.two)
		return 0;
	v->service_quorate = v->n_reached == 2 || (ha->votes ? won : h->met);
	if (!ha->votes || v->n_reached == 2 || !h->viewed)
		return 0;
	return won ? ha_between(0, VOTE_WON_MS) : ha_between(500, VOTE_LOST_MS);
}

/* ---- the mark ---- */

static void append(struct host *h, json_t *command)
{
	if (ha->log_n < LOG_MAX)
		ha->log[ha->log_n++] = command;
	h->have = ha->log_n;
}

/* The last words of the other one, in its log: they count by the first entry that follows. */
static void tail_append(struct host *h)
{
	json_t *command;
	size_t i;

	json_array_foreach (h->tail, i, command)
		append(h, json_incref(command));
	json_decref(steal_ptr(h->tail));
}

static void marked(struct host *h)
{
	const struct host *o = other_of(h);

	h->marked = true;
	ha->alones++;
	ha_trace(h, "goes on alone");
	if (o->marked)
		ha_fail("S3: %s goes on alone, and %s does", h->name, o->name);
	if (h->have < ha->log_n)
		ha_fail("S3: %s goes on alone with %zu of %zu entries that were acknowledged", h->name, h->have,
			ha->log_n);
	tail_append(h);
}

/* The disk has it. */
static void written(struct host *h, bool on)
{
	h->writes--;
	if (on)
		marked(h);
	else
		h->marked = false;
}

static void on_written(struct event *ev)
{
	struct host *h = ev->h;

	written(h, ev->value);
	h->due = false;
	ha_sync_soon(h);
	if (!h->alone && together(h)) { /* the next epoch is of both */
		ha_trace(h, "is one of two again");
		ha_sync_soon(other_of(h));
	}
}

static void mark(struct host *h, bool on)
{
	int64_t at = ha->now + (ha_chance(900) ? ha_between(1, 50) : ha_between(50, 2000));

	h->alone = h->due = on;
	h->disk_at = at > h->disk_at ? at : h->disk_at;
	h->writes++;
	ha_at(h->disk_at - ha->now, on_written, h, true)->value = on;
}

static void unmark_check(struct host *h)
{
	struct host *m = together(h) ? owner(h) : NULL;

	if (m && m->alone && m->marked && !m->due && m->synced && m->view.n == 2 && m->view_ring == ha->ring &&
	    m->have == ha->log_n && other_of(m)->have == ha->log_n)
		mark(m, false);
}

/* ---- what is heard ---- */

static void itself_over(struct host *h)
{
	h->itself++;
	if (ha->o.broken != BREAK_LATE)
		h->dead = 0;
}

static void go_on(struct host *h)
{
	const struct host *o = other_of(h);

	if (!h->dead || !replica_may_alone(h->d.replica))
		return;
	if (ha->o.broken != BREAK_WHOLE && o->up && o->life == h->whole_life)
		ha_fail("S2: %s goes on alone, and the daemon of %s that it was in step with lives", h->name, o->name);
	mark(h, true);
}

static void on_sync_message(struct event *ev)
{
	itself_over(ev->h);
	ev->h->whole &= !ev->value;
}

void ha_pair_viewed(struct host *h)
{
	struct host *o = other_of(h);

	if (!ha->o.two)
		return;
	if (!by_itself(h))
		itself_over(h);
	if (h->view.n == 2 && together(h) && ha_turns(ha->group[h->n]))
		ha_at(ha_between(0, 30), on_sync_message, o, true)->value = h->alone;
	go_on(h);
}

void ha_pair_synced(struct host *h)
{
	const struct host *o;

	if (!ha->o.two || h->view.n != 2 || !together(h))
		return;
	o = owner(h);
	if (o) {
		h->leads = o == h;
	} else {
		h->whole = true;
		h->whole_life = other_of(h)->life;
	}
	unmark_check(h);
}

uint64_t replica_by_itself(const struct replica *r)
{
	const struct host *h = (const void *)r;

	return ha->o.two && by_itself(h) ? h->itself : 0;
}

bool replica_may_alone(const struct replica *r)
{
	const struct host *h = (const void *)r;

	return ha->o.two && by_itself(h) && !h->alone && (h->whole || ha->o.broken == BREAK_WHOLE) &&
	       h->view.expected == 2 && h->view.service_quorate;
}

void replica_dead(struct replica *r, uint32_t node, uint64_t by_itself)
{
	struct host *h = (void *)r;

	if (!ha->o.two || !by_itself || node != other_of(h)->n)
		ha_fail("%s is told that %u is dead", h->name, node);
	if (by_itself == h->itself || ha->o.broken == BREAK_LATE)
		h->dead = node;
	go_on(h);
}

/* ---- the log ---- */

bool ha_pair_alone(const struct host *h)
{
	return ha->o.two && h->up && h->alone && h->marked && !h->due && h->viewed && h->view.service_quorate;
}

bool ha_pair_takes(struct host *h)
{
	struct host *m, *o = other_of(h);

	if (!ha->o.two || !together(h))
		return true;
	m = owner(h);
	if (m)
		return ha_pair_alone(m) && m->synced && ha->log_n > other_of(m)->have + BEHIND;
	if (h->have < ha->log_n && o->have < ha->log_n)
		ha_fail("S3: both go on with %zu and %zu of %zu entries that were acknowledged", h->have, o->have,
			ha->log_n);
	if (h->have < ha->log_n || o->have < ha->log_n)
		return false;
	for (unsigned i = 1; i <= 2; i++) /* of which the leader's counts, and the other one's is cut off */
		if (ha->hosts[i].tail && ha_chance(500))
			tail_append(&ha->hosts[i]);
		else
			json_decref(steal_ptr(ha->hosts[i].tail));
	h->have = o->have = ha->log_n;
	return true;
}

static bool asked_by(const struct host *h, const char *id)
{
	for (size_t i = 0; i < PENDING_MAX; i++)
		if (h->pending[i].used && !strcmp(h->pending[i].id, id))
			return true;
	return false;
}

/* Its daemon asks again when it may; the last words of one that is gone may be on the other one's disk. */
bool ha_pair_waits(struct host *h, const char *command)
{
	struct host *o = other_of(h);
	json_t *c;
	bool asked;

	if (!ha->o.two || together(h) || ha_pair_alone(h) || ha_chance(20))
		return false;
	c = json_loads(command, 0, NULL);
	asked = asked_by(h, json_string_value(json_object_get(c, "id")));
	if (!asked && o->power && o->have == ha->log_n && !o->alone && !o->marked && !h->marked) {
		o->tail = o->tail ? o->tail : json_array();
		json_array_append(o->tail, c);
	}
	json_decref(c);
	return asked;
}

void ha_pair_appended(struct host *h)
{
	struct host *m;

	if (!ha->o.two)
		return;
	m = together(h) ? owner(h) : h;
	if (m && m->have + 1 < ha->log_n)
		ha_fail("S3: %s goes on alone with %zu of %zu entries", m->name, m->have, ha->log_n - 1);
	if (m)
		m->have = ha->log_n;
	else
		h->have = other_of(h)->have = ha->log_n;
}

size_t ha_pair_has(struct host *h)
{
	const struct host *o = other_of(h);

	if (!ha->o.two)
		return ha->log_n;
	if (together(h) && owner(h) != h && h->have < o->have) {
		h->have = o->have < h->have + CATCH_UP ? o->have : h->have + CATCH_UP;
		if (h->have == o->have)
			json_decref(steal_ptr(h->tail)); /* it was cut off */
	}
	unmark_check(h);
	return h->have;
}

/* ---- a person, by way of node/api-fence.c ---- */

struct http_call {
	const char *node;
};

static struct http_call call;

const char *http_call_param(const struct http_call *c, const char *name)
{
	(void)name;
	return c->node;
}

const struct http_identity *http_call_identity(const struct http_call *c)
{
	static const struct http_identity anna = {.name = "anna"};

	(void)c;
	return &anna;
}

json_t *http_call_body(const struct http_call *c)
{
	(void)c;
	abort(); /* it has none */
}

const char *http_call_query(const struct http_call *c, const char *name)
{
	(void)c;
	(void)name;
	return NULL;
}

const char *api_text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

struct api_write *api_write_new(struct daemon *d, struct http_call *c, const char *object)
{
	struct host *h = (void *)d->replica;

	h->asked = true;
	h->person = (struct api_write){.d = d, .call = c, .object = (char *)object};
	return &h->person;
}

static void answered(void *arg, const json_t *result, const struct err *e)
{
	struct api_write *w = arg;

	if (e)
		api_reply_err(w, e);
	else
		w->then(w, result);
}

void api_propose(struct api_write *w, const char *op, const char *part, json_t *args,
		 void (*then)(struct api_write *w, const json_t *result))
{
	(void)part;
	w->then = then;
	daemon_propose(w->d, op, NULL, args, answered, w);
}

static void asked_end(struct api_write *w)
{
	((struct host *)(void *)w->d->replica)->asked = false;
}

void api_reply(struct api_write *w, int status, json_t *body)
{
	(void)status;
	json_decref(body);
	asked_end(w);
}

void api_reply_err(struct api_write *w, const struct err *e)
{
	ha_trace((struct host *)(void *)w->d->replica, "a person is told: %s", e->text);
	asked_end(w);
}

void api_refuse(struct http_call *c, const struct err *e, const char *object)
{
	(void)c;
	(void)e;
	(void)object;
	abort();
}

/* Somebody who stands before @o, which is off, says so to @h. */
static void confirm(struct host *h, const struct host *o)
{
	const struct api_handler *p = api_fence_handlers;
	bool might;

	if (!h->up || !h->viewed || h->asked || o->power || ha->now < h->hung_until)
		return;
	while (strcmp(p->operation, "node_confirm_dead") != 0)
		p++;
	might = replica_may_alone(h->d.replica);
	call.node = o->name;
	ha->at = h;
	ha_trace(h, "a person says that %s is off", o->name);
	p->handle(&h->d, &call);
	ha->at = NULL;
	if (might && !h->alone)
		ha_fail("S4: a person says that %s is off, and %s does not go on without it", o->name, h->name);
}

static void on_comes_by(struct event *ev)
{
	(void)ev;
	if (ha->healing)
		return;
	for (unsigned i = 1; i <= 2; i++)
		confirm(&ha->hosts[i], other_of(&ha->hosts[i]));
	ha_at(ha_between(0, 2 * PERSON_MS), on_comes_by, NULL, false);
}

/* When all else is well: a host that is broken is missed, or it is needed and is mended. */
void ha_pair_person(void)
{
	for (unsigned i = 1; i <= 2 && ha->o.two; i++) {
		struct host *o = &ha->hosts[i], *h = other_of(o);

		if (!o->broken)
			continue;
		if (!h->alone && !h->whole) {
			o->broken = false;
			ha_trace(o, "is mended, as %s cannot go on without it", h->name);
			ha_boot(o);
			continue;
		}
		if (!h->met && !o->power) { /* corosync-cmapctl -s quorum.cancel_wait_for_all u8 1 */
			h->met = true;
			ha_ring_changed(100);
		}
		if (ha_chance(100))
			confirm(h, o);
	}
}

/* ---- life ---- */

void ha_pair_start(struct host *h)
{
	h->whole = h->due = h->asked = false;
	h->dead = 0;
	h->itself = 1;
	h->alone = h->marked;
}

void ha_pair_stop(struct host *h)
{
	for (unsigned i = 0; i < TIMERS_MAX; i++) {
		struct loop_timer *t = &ha->timers[h->n * TIMERS_MAX + i];

		if (t->used && t->repeat_ns) /* what a person has asked ends with the daemon */
			free(t->arg);
		t->used = false;
	}
	/* Its last write may be on the disk or not. */
	if (h->writes == 1 && ha_chance(500))
		written(h, h->alone);
	h->writes = 0;
	h->whole = h->alone = h->due = h->asked = false;
}

void ha_pair_begin(void)
{
	unsigned favourite;

	if (!ha->o.two)
		return;
	favourite = ha_below(3);
	ha->votes = ha_chance(400);
	if (favourite)
		ha->delay[favourite] = DELAY_MS * NS_PER_MS;
	if (ha->device[1] == DEVICE_NONE || ha_chance(150))
		ha_at(ha_between(0, 2 * PERSON_MS), on_comes_by, NULL, false);
}

void ha_pair_end(void)
{
	for (unsigned i = 1; i <= ha->n_hosts; i++)
		json_decref(steal_ptr(ha->hosts[i].tail));
}
