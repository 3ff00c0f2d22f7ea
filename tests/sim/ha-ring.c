/* SPDX-License-Identifier: Apache-2.0 */
/* In the simulator of high availability: corosync's ring, which stands still while a member of it is away and forms
 * anew when that is noticed; the log, in one order; and what a replica is for the code of a daemon. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "node/corosync.h"
#include "node/daemon-int.h"
#include "tests/sim/ha-sim.h"

#define CATCH_UP 16 /* entries at a time */

/* ---- the ring ---- */

static bool hears(unsigned a, unsigned b)
{
	return !ha->cut[a][b] && !ha->cut[b][a];
}

static bool on_ring(const struct host *h)
{
	return h->power && h->hung_until <= ha->now;
}

bool ha_present(const struct host *h)
{
	return h->power && h->up;
}

bool ha_turns(unsigned group)
{
	for (unsigned a = 1; a <= ha->n_hosts; a++)
		for (unsigned b = a; b <= ha->n_hosts; b++)
			if (ha->group[a] == group && ha->group[b] == group && (!on_ring(&ha->hosts[a]) || !hears(a, b)))
				return false;
	return group != 0;
}

static unsigned needed(void)
{
	return ha->n_hosts / 2 + 1;
}

/* A majority of daemons is on the ring of @h, as is true now. */
static bool primary(const struct host *h)
{
	unsigned n = 0;

	for (unsigned i = 1; i <= ha->n_hosts; i++)
		n += ha->group[i] == ha->group[h->n] && ha_present(&ha->hosts[i]);
	return ha->group[h->n] && (n >= needed() || ha_pair_alone(h));
}

/* It may write, by what it knows. */
static bool quorate(const struct host *h)
{
	return h->view.quorate || ha_pair_alone(h);
}

static void view_of(const struct host *h, struct bus_view *v)
{
	*v = (struct bus_view){.ring = {.node = 1, .seq = ha->ring}, .needed = needed(), .expected = ha->n_hosts};
	for (unsigned i = 1; i <= ha->n_hosts; i++) {
		v->configured[i - 1] = i;
		if (ha->group[i] != ha->group[h->n])
			continue;
		v->reached[v->n_reached++] = i;
		if (ha_present(&ha->hosts[i]))
			v->members[v->n++] = i;
	}
	v->quorate = v->n >= v->needed;
	v->service_quorate = v->n_reached >= v->needed;
}

static void on_sync(struct event *ev)
{
	struct host *h = ev->h;

	if (ev->gen != h->view_ring)
		return;
	h->sync_to = ha->log_n;
	ha_log_wake();
	ha_look_soon(h);
}

void ha_sync_soon(struct host *h)
{
	h->synced = h->leads = false;
	h->sync_to = SIZE_MAX;
	ha_at(ha_between(10, 200), on_sync, h, true)->gen = h->view_ring;
}

static void on_view(struct event *ev)
{
	struct host *h = ev->h;
	const struct bus_view *v = ev->p;

	if (v->ring.seq < h->view_ring)
		return;
	h->view_ring = v->ring.seq;
	h->synced = h->leads = false;
	h->sync_to = SIZE_MAX;
	ha_view(h, v);
	ha_pair_viewed(h);
	if (quorate(h))
		ha_sync_soon(h);
	ha_look_soon(h);
	ha_log_wake();
}

/* Each host joins the first ring all of whose members it hears. */
static void groups_make(unsigned *ret)
{
	unsigned n = 0;

	for (unsigned i = 1; i <= ha->n_hosts; i++) {
		bool fits = false;

		ret[i] = 0;
		for (unsigned g = 1; g <= n && !fits && on_ring(&ha->hosts[i]); g++) {
			fits = true;
			for (unsigned k = 1; k < i; k++)
				fits &= ret[k] != g || hears(i, k);
			if (fits)
				ret[i] = g;
		}
		if (!fits && on_ring(&ha->hosts[i]))
			ret[i] = ++n;
	}
}

static void on_form(struct event *ev)
{
	(void)ev;
	groups_make(ha->group);
	ha->ring++;
	ha_pair_formed();
	for (unsigned i = 1; i <= ha->n_hosts; i++) {
		struct host *h = &ha->hosts[i];
		struct bus_view *v;
		int64_t later;

		if (!ha_present(h) || !ha->group[i])
			continue;
		v = xcalloc(1, sizeof(*v));
		view_of(h, v);
		later = ha_pair_view(h, v);
		ha_at(ha_between(0, 30) + later, on_view, h, true)->p = v;
	}
}

void ha_ring_changed(int64_t within_ms)
{
	ha_at(ha_between(within_ms / 2, within_ms), on_form, NULL, false);
}

/* ---- messages beside the log ---- */

static void on_heard(struct event *ev)
{
	host_lease_heard(ev->h->d.lease, ev->k, ev->p, (size_t)ev->value);
}

void replica_say(struct replica *r, const void *data, size_t size)
{
	const struct host *h = (void *)r;

	if (!ha_turns(ha->group[h->n]))
		return;
	for (unsigned i = 1; i <= ha->n_hosts; i++) {
		struct host *to = &ha->hosts[i];
		struct event *ev;
		void *copy;

		if (ha->group[i] != ha->group[h->n] || !ha_present(to))
			continue;
		copy = xcalloc(1, size);
		memcpy(copy, data, size);
		ev = ha_at(ha_chance(970) ? ha_between(0, 15) : ha_between(0, 400), on_heard, to, true);
		ev->p = copy;
		ev->k = h->n;
		ev->value = (int64_t)size;
	}
}

/* ---- the log ---- */

struct sqlite3 *replica_db(struct replica *r)
{
	return ((struct host *)(void *)r)->db;
}

bool replica_synced(const struct replica *r)
{
	return ((const struct host *)(const void *)r)->synced;
}

bool replica_leads(const struct replica *r)
{
	return ((const struct host *)(const void *)r)->leads;
}

bool replica_member(const struct replica *r, uint32_t node)
{
	const struct host *h = (const void *)r;

	for (size_t i = 0; i < h->view.n; i++)
		if (h->view.members[i] == node)
			return true;
	return false;
}

json_t *ha_command(const struct host *h, const char *op, json_t *args)
{
	char id[40], by[16];

	snprintf(id, sizeof(id), "30000000-0000-4000-8000-%012llx", (unsigned long long)++ha->ids);
	snprintf(by, sizeof(by), "node %s", h ? h->name : "n0");
	return json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:o}", "op", op, "v", (int)state_command_version(op, args),
			 "id", id, "time", (json_int_t)clock_wall_ms(), "by", by, "from", "local", "args", args);
}

static void script(sqlite3 *db, const char *text)
{
	if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
		abort();
}

json_t *ha_apply(struct host *h, size_t index, const json_t *command, struct err *e)
{
	json_t *result = NULL;
	int r;

	script(h->db, "SAVEPOINT command");
	r = state_machine.apply(h->db, index, command, &result, e);
	script(h->db, r < 0 ? "ROLLBACK TO command; RELEASE command" : "RELEASE command");
	if (e->code == ERR_SYSTEM)
		ha_fail("a command fails on one host: %s", e->text);
	return r < 0 ? NULL : result;
}

void ha_answer(struct host *h, const char *id, const json_t *result, const struct err *e)
{
	for (size_t i = 0; i < PENDING_MAX; i++) {
		struct pending p = h->pending[i];

		if (!p.used || strcmp(p.id, id) != 0)
			continue;
		h->pending[i].used = false;
		if (p.done)
			p.done(p.arg, result, e);
	}
}

static void apply_next(struct host *h)
{
	const json_t *command = ha->log[h->applied];
	const char *op = json_string_value(json_object_get(command, "op"));
	struct err e = ERR_INIT;
	json_t *result = ha_apply(h, 1000 + h->applied, command, &e);

	h->applied++;
	if (strcmp(op, "node.report") != 0)
		ha_trace(h, "applied %zu %s: %s", h->applied, op, result ? "done" : e.text);
	ha_check_applied(h, command, result);
	ha_answer(h, json_string_value(json_object_get(command, "id")), result, result ? NULL : &e);
	if (result && strcmp(op, "node.report") != 0)
		ha_look_soon(h);
	json_decref(result);
}

static void synced_check(struct host *h)
{
	if (h->synced || !quorate(h) || h->applied < h->sync_to || h->view_ring != h->view.ring.seq)
		return;
	h->synced = true;
	h->leads = h->view.members[h->view.ring.seq % h->view.n] == h->n;
	ha_pair_synced(h);
	ha_trace(h, "synced%s", h->leads ? ", leads" : "");
	ha_agent_tell_all(h);
	daemon_report(&h->d);
	ha_look_soon(h);
}

static bool applies(const struct host *h)
{
	return ha_present(h) && h->viewed && quorate(h) && primary(h) && h->view_ring == ha->ring;
}

static void on_apply(struct event *ev)
{
	struct host *h = ev->h;
	size_t has = applies(h) ? ha_pair_has(h) : 0;

	h->applying = false;
	for (int i = 0; i < CATCH_UP && applies(h) && h->applied < has; i++)
		apply_next(h);
	if (applies(h))
		synced_check(h);
	ha_log_wake();
}

void ha_log_wake(void)
{
	for (unsigned i = 1; i <= ha->n_hosts; i++) {
		struct host *h = &ha->hosts[i];

		if (h->applying || !applies(h) || (h->applied >= ha->log_n && (h->synced || h->applied < h->sync_to)))
			continue;
		h->applying = true;
		ha_at(ha->now < h->slow_until ? ha_between(100, 1500) : ha_between(0, 5), on_apply, h, true);
	}
}

static void on_append(struct event *ev)
{
	const struct err gone = {.code = ERR_UNAVAILABLE, .text = "no quorum"};
	struct host *h = ev->h;
	json_t *command;

	if (!h->power || ev->value != h->boot) /* it was still in its queue */
		return;
	if ((primary(h) && (!ha_turns(ha->group[h->n]) || !ha_pair_takes(h))) || ha_pair_waits(h, ev->p)) {
		char *text = steal_ptr(ev->p);
		int64_t boot = ev->value;

		ev = ha_at(ha_between(20, 60), on_append, h, false);
		ev->p = text;
		ev->value = boot;
		return;
	}
	command = json_loads(ev->p, 0, NULL);
	if (primary(h) && ha->log_n < LOG_MAX) {
		ha->log[ha->log_n++] = json_incref(command);
		ha_pair_appended(h);
		ha_log_wake();
	} else {
		ha_answer(h, json_string_value(json_object_get(command, "id")), NULL, &gone);
	}
	json_decref(command);
}

void daemon_propose(struct daemon *d, const char *op, const char *id, json_t *args, replica_done_fn *done, void *arg)
{
	const struct err refused = {.code = ERR_UNAVAILABLE, .text = "not synced"};
	struct host *h = (void *)d->replica;
	struct pending *p = h->pending;
	struct event *ev;
	json_t *c;

	(void)id;
	if (!h->synced || ha->now < h->busy_until) {
		json_decref(args);
		if (done)
			done(arg, NULL, &refused);
		return;
	}
	while (p < h->pending + PENDING_MAX && p->used)
		p++;
	if (p == h->pending + PENDING_MAX) {
		ha_fail("%s has too many proposals under way", h->name);
		p = h->pending;
	}
	c = ha_command(h, op, args);
	*p = (struct pending){.used = true, .done = done, .arg = arg};
	snprintf(p->id, sizeof(p->id), "%s", json_string_value(json_object_get(c, "id")));
	ev = ha_at(ha_below(20) ? ha_between(1, 12) : ha_between(1, 300), on_append, h, false);
	ev->p = json_dumps(c, 0);
	ev->value = h->boot;
	json_decref(c);
}

/* The daemon ends: nobody hears what becomes of its proposals. */
void ha_pending_drop(struct host *h)
{
	const struct err e = {.code = ERR_UNAVAILABLE, .text = "the daemon ends"};

	for (size_t i = 0; i < PENDING_MAX; i++) {
		struct pending p = h->pending[i];

		h->pending[i].used = false;
		if (p.used && p.done)
			p.done(p.arg, NULL, &e);
	}
}

/* ---- what the state says of the ring: never changed here ---- */

int ring_conf(struct sqlite3 *db, const char *cluster, struct corosync_conf *ret, struct err *e)
{
	(void)db;
	(void)cluster;
	(void)e;
	ret->token_ms = TOKEN_MS;
	ret->n_nodes = ha->n_hosts;
	return 0;
}
