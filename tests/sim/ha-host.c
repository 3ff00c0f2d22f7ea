/* SPDX-License-Identifier: Apache-2.0 */
/* In the simulator of high availability: a machine with its watchdog, godwit-watchdog around fencing/keeper.c, the
 * loop, and what node/daemon.c does around lease, fencing and manager. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "fencing/keeper-client.h"
#include "node/daemon-int.h"
#include "node/ports.h"
#include "node/service.h"
#include "tests/sim/ha-sim.h"

#define TICK NS_PER_S
#define REPORT_TICKS 10

static struct host *host_of(const void *loop)
{
	return (struct host *)loop;
}

/* ---- the loop ---- */

static void on_timer(struct event *ev)
{
	struct loop_timer *t = &ha->timers[ev->k];

	if (!t->used || t->gen != ev->gen)
		return;
	if (t->repeat_ns)
		loop_timer_set(t, t->repeat_ns);
	t->fn(t->arg);
}

void loop_timer_set(struct loop_timer *t, int64_t after_ns)
{
	struct host *h = &ha->hosts[t->host];
	struct event *ev;

	t->gen = ++ha->gens;
	if (after_ns < 0)
		return;
	ev = ha_at(ha_real(h, after_ns) + ha_late(), on_timer, h, true);
	ev->k = (unsigned)(t - ha->timers);
	ev->gen = t->gen;
}

struct loop_timer *loop_timer_add(struct loop *l, int64_t after_ns, int64_t repeat_ns, loop_fn *fn, void *arg)
{
	const struct host *h = host_of(l);
	struct loop_timer *t = &ha->timers[(size_t)h->n * TIMERS_MAX];

	while (t->used)
		t++;
	if (t >= &ha->timers[(size_t)(h->n + 1) * TIMERS_MAX])
		abort();
	*t = (struct loop_timer){.used = true, .repeat_ns = repeat_ns, .fn = fn, .arg = arg, .host = h->n};
	loop_timer_set(t, after_ns);
	return t;
}

void loop_timer_free(struct loop_timer *t)
{
	if (t)
		t->used = false;
}

struct deferred {
	loop_fn *fn;
	void *arg;
};

static void on_deferred(struct event *ev)
{
	struct deferred *c = ev->p;

	c->fn(c->arg);
}

void loop_defer(struct loop *l, loop_fn *fn, void *arg)
{
	struct deferred *c = xcalloc(1, sizeof(*c));

	*c = (struct deferred){.fn = fn, .arg = arg};
	ha_at(0, on_deferred, host_of(l), true)->p = c;
}

struct loop_io *loop_io_add(struct loop *l, int fd, unsigned events, loop_io_fn *fn, void *arg)
{
	struct host *h = host_of(l);

	(void)fd;
	(void)events;
	h->keeper_fn = fn;
	h->keeper_arg = arg;
	return (void *)h;
}

void loop_io_free(struct loop_io *io)
{
	if (io)
		host_of(io)->keeper_fn = NULL;
}

/* ---- the watchdog's hardware: it does not care whether the host runs ---- */

static void on_bite(struct event *ev)
{
	struct host *h = ev->h;

	if (!h->power || !h->dog_open || ev->gen != h->dog_gen || !h->has_dog)
		return;
	ha->bites++;
	ha_power_off(h, "reset by its watchdog");
}

static void pet(struct host *h)
{
	unsigned cut_s = keeper_late(&h->keeper, ha_clock(h));
	int64_t after = cut_s ? cut_s * NS_PER_S : ha->timing.watchdog_ns;
	struct event *ev;

	if (!h->dog_open)
		return;
	h->dog_gen = ++ha->gens;
	ev = ha_at(after + after / 1000000 * h->dog_ppm, on_bite, h, false);
	ev->gen = h->dog_gen;
	ev->kernel = false;
}

static void on_pet(struct event *ev)
{
	pet(ev->h);
}

/* ---- godwit-watchdog ---- */

static void on_keeper(struct event *ev)
{
	if (ev->gen == ev->h->keeper_gen)
		ha_keeper_wake(ev->h);
}

static void on_told(struct event *ev)
{
	struct host *h = ev->h;

	if (h->connected && h->keeper_fn)
		h->keeper_fn(h->keeper_arg, LOOP_READ);
}

/* How things are, as it says it now and the daemon reads it later. */
static void tell(struct host *h, enum keeper_type to, const struct err *e)
{
	struct keeper_status *s = &h->told[h->told_n];

	if (!h->connected)
		return;
	if (h->told_n++ == ANSWERS_MAX)
		abort();
	*s = (struct keeper_status){.answer_to = to, .code = e ? e->code : ERR_NONE, .state = h->keeper.state};
	snprintf(s->text, sizeof(s->text), "%.255s", e ? e->text : "");
	s->device = h->dog_open                       ? KEEPER_DEVICE_ARMED
		    : keeper_wants_device(&h->keeper) ? KEEPER_DEVICE_FAILED
						      : KEEPER_DEVICE_NONE;
	s->watchdog_s = h->dog_open ? (unsigned)(ha->timing.watchdog_ns / NS_PER_S) : 0;
	s->until_ns = h->keeper.until_ns;
	s->report = h->keeper.report;
	if (h->up)
		ha_at(ha_late(), on_told, h, true);
}

static void on_guest_signal(struct event *ev)
{
	struct hguest *g = &ev->h->guests[ev->k];

	if (g->alive && g->epoch == ev->value)
		ha_qemu_end(ev->h, ev->k, ev->gen == SIGKILL ? "SIGKILL" : "SIGTERM");
}

static void signal_one(struct host *h, unsigned k, int sig)
{
	const struct hguest *g = &h->guests[k];
	struct event *ev;

	if (!g->alive || g->hung || (sig == SIGTERM && g->stubborn))
		return;
	ev = ha_at(sig == SIGKILL ? ha_between(0, 5) : ha_between(1, 300), on_guest_signal, h, false);
	ev->k = k;
	ev->value = g->epoch;
	ev->gen = (uint64_t)sig;
}

static void signal_all(struct host *h, int sig)
{
	for (unsigned g = 0; g < ha->n_guests; g++)
		signal_one(h, g, sig);
}

/* Its device is open while it wants it. */
static void device_follow(struct host *h)
{
	bool want = keeper_wants_device(&h->keeper) && (h->has_dog || ha->o.broken == BREAK_ARMED);

	if (want == h->dog_open)
		return;
	h->dog_open = want;
	h->dog_gen = ++ha->gens;
	pet(h);
}

void ha_keeper_wake(struct host *h)
{
	int64_t now = ha_clock(h), wake;
	enum keeper_state was = h->keeper.state;
	struct keeper_act act;
	unsigned alive = 0;

	/* Broken: it never finds that the lease is over. */
	if (ha->o.broken == BREAK_LEASE && h->keeper.state == KEEPER_ARMED && now >= h->keeper.until_ns)
		h->keeper.until_ns = now + NS_PER_S;
	keeper_advance(&h->keeper, now);
	device_follow(h);
	if (h->keeper.state == KEEPER_STOPPING && was != KEEPER_STOPPING) {
		ha->expiries++;
		h->found = 0;
		ha_trace(h, "godwit-watchdog ends all guests");
	}
	if (keeper_counts(&h->keeper))
		alive = ha_qemus(h);
	if (alive > h->found)
		h->found = alive;
	act = keeper_next(&h->keeper, now, alive, h->found);
	if (act.signal)
		signal_all(h, act.signal);
	if (act.pet && ha_chance(900))
		pet(h);
	else if (act.pet) /* it was interrupted between its look at the clock and the petting */
		ha_at(ha_late(), on_pet, h, false);
	if (h->keeper.state != was)
		tell(h, KEEPER_STATUS, NULL);
	h->keeper_gen = ++ha->gens;
	if (act.wake_ns == INT64_MAX)
		return;
	wake = act.wake_ns > now ? ha_real(h, act.wake_ns - now) : 0;
	ha_at((wake < NS_PER_MS ? NS_PER_MS : wake) + ha_late(), on_keeper, h, false)->gen = h->keeper_gen;
}

static void on_request(struct event *ev)
{
	struct host *h = ev->h;
	int64_t now = ha_clock(h);
	struct err e = ERR_INIT;
	int r = 0;

	if (ev->k == KEEPER_CONFIGURE)
		r = keeper_configure(&h->keeper, ev->p, now, &e);
	else if (ev->k == KEEPER_UNTIL)
		r = keeper_until(&h->keeper, ev->value, now, &e);
	else if (ev->k == KEEPER_RELEASE)
		r = keeper_release(&h->keeper, now, &e);
	else if (ev->k == KEEPER_DIE)
		r = keeper_die(&h->keeper, now, &e);
	else
		keeper_seen(&h->keeper, (uint64_t)ev->value);
	if (r == 0 && ev->k == KEEPER_UNTIL && ev->value > h->until_max)
		h->until_max = ev->value;
	if (h->keeper.state == KEEPER_FREE)
		h->until_max = 0;
	device_follow(h);
	tell(h, ev->k, r < 0 ? &e : NULL);
	ha_keeper_wake(h);
}

static int ask(const struct keeper_client *k, enum keeper_type type, int64_t value, const struct keeper_config *c)
{
	struct host *h = &ha->hosts[k->fd];
	int64_t at = ha->now + ha_late();
	struct event *ev;

	/* One after the other. */
	h->asked_at = at > h->asked_at ? at : h->asked_at;
	ev = ha_at(h->asked_at - ha->now, on_request, h, false);
	ev->k = type;
	ev->value = value;
	if (c) {
		ev->p = xcalloc(1, sizeof(*c));
		memcpy(ev->p, c, sizeof(*c));
	}
	return 0;
}

int keeper_open(const char *run_dir, struct keeper_client *ret, struct err *e)
{
	(void)run_dir;
	(void)e;
	ret->fd = (int)ha->at->n;
	ha->at->connected = true;
	ha->at->told_n = 0;
	tell(ha->at, KEEPER_STATUS, NULL);
	return 0;
}

void keeper_close(struct keeper_client *k)
{
	if (k->fd > 0)
		ha->hosts[k->fd].connected = false;
	k->fd = -1;
}

int keeper_ask_configure(struct keeper_client *k, const struct keeper_config *c, struct err *e)
{
	(void)e;
	return ask(k, KEEPER_CONFIGURE, 0, c);
}

int keeper_ask_until(struct keeper_client *k, int64_t until_ns, struct err *e)
{
	(void)e;
	return ask(k, KEEPER_UNTIL, until_ns, NULL);
}

int keeper_ask_release(struct keeper_client *k, struct err *e)
{
	(void)e;
	return ask(k, KEEPER_RELEASE, 0, NULL);
}

int keeper_ask_die(struct keeper_client *k, struct err *e)
{
	(void)e;
	return ask(k, KEEPER_DIE, 0, NULL);
}

int keeper_ask_seen(struct keeper_client *k, uint64_t serial, struct err *e)
{
	(void)e;
	return ask(k, KEEPER_SEEN, (int64_t)serial, NULL);
}

int keeper_read(struct keeper_client *k, struct keeper_status *ret, struct err *e)
{
	struct host *h = &ha->hosts[k->fd];

	(void)e;
	if (!h->told_n)
		return 0;
	*ret = h->told[0];
	memmove(h->told, h->told + 1, --h->told_n * sizeof(h->told[0]));
	return 1;
}

/* ---- what the daemon's other parts would be ---- */

void agent_signal_all(struct agent *a, int sig)
{
	signal_all((struct host *)(void *)a, sig);
}

void agent_allow(struct agent *a, bool allowed)
{
	struct host *h = (void *)a;

	if (h->allowed == allowed)
		return;
	h->allowed = allowed;
	ha_agent_look(h);
}

char *agent_program_beside(const char *name)
{
	(void)name;
	abort(); /* godwit-watchdog runs already */
}

struct service *service_new(struct loop *loop, const struct service_spec *s)
{
	(void)loop;
	(void)s;
	abort();
}

void service_run(struct service *s)
{
	(void)s;
	abort();
}

void service_free(struct service *s)
{
	(void)s;
}

struct ports *ports_new(struct loop *loop)
{
	return (void *)loop;
}

void ports_free(struct ports *all)
{
	(void)all;
}

bool ports_answers(struct ports *all, const char *address)
{
	(void)all;
	(void)address;
	return true;
}

/* The state of a seed is read in one transaction already. */
void api_read_begin(struct daemon *d)
{
	(void)d;
}

void api_read_end(struct daemon *d)
{
	(void)d;
}

static bool is_present(const void *replica, uint32_t node)
{
	return replica_member(replica, node);
}

void daemon_report(void *arg)
{
	struct daemon *d = arg;
	const struct host *h = (void *)d->replica;
	json_t *args, *node, *report, *memory;

	if (!h->synced || !d->lease)
		return;
	node = state_node_get(h->db, h->name, NULL);
	report = json_object_get(node, "report");
	memory = json_object_get(json_object_get(report, "memory"), "total");
	args = json_pack("{s:s, s:{s:O, s:O}, s:i, s:o}", "node", h->name, "memory", "total", memory, "free", memory,
			 "cpus", 8, "watchdog", host_lease_report(d->lease));
	json_decref(node);
	daemon_propose(d, "node.report", NULL, args, NULL, NULL);
}

/* ---- the daemon ---- */

/* Broken: lost is dead. */
static void shoot_from_the_hip(struct host *h)
{
	json_t *nodes = state_node_list(h->db, NULL), *row;
	size_t i;

	json_array_foreach (nodes, i, row)
		if (h->leads && !strcmp(json_string_value(json_object_get(row, "life")), "lost"))
			daemon_propose(&h->d, "node.fenced", NULL,
				       json_pack("{s:O, s:O, s:s}", "node", json_object_get(row, "name"), "number",
						 json_object_get(row, "fencing"), "proof", "manual"),
				       NULL, NULL);
	json_decref(nodes);
}

static void on_look(struct event *ev)
{
	struct host *h = ev->h;

	h->look_due = false;
	ha_agent_wants(h);
	host_lease_look(h->d.lease);
	fencing_look(h->d.fencing);
	ha_manager_look(h->d.ha);
	if (ha->o.broken == BREAK_PROOF)
		shoot_from_the_hip(h);
}

void ha_look_soon(struct host *h)
{
	if (h->look_due || !h->up)
		return;
	h->look_due = true;
	ha_at(NS_PER_MS, on_look, h, true);
}

static void on_tick(struct event *ev)
{
	struct host *h = ev->h;
	unsigned ticks = ev->k;

	host_lease_look(h->d.lease);
	fencing_look(h->d.fencing);
	ha_manager_tick(h->d.ha);
	if (ticks % REPORT_TICKS == 0) {
		daemon_report(&h->d);
		ha_agent_tell_all(h);
	}
	ha_at(TICK, on_tick, h, true)->k = ticks + 1;
}

void ha_view(struct host *h, const struct bus_view *v)
{
	h->view = *v;
	h->viewed = true;
	host_lease_view(h->d.lease, v);
}

void ha_daemon_start(struct host *h)
{
	struct host *was = ha->at;

	if (!h->power || h->up)
		return;
	ha->at = h;
	h->up = true;
	h->life++;
	h->stopping = h->viewed = h->synced = h->leads = h->applying = h->look_due = h->look_active = h->allowed =
		false;
	h->seen_boot = 0;
	h->view = (struct bus_view){0};
	h->view_ring = 0;
	for (unsigned g = 0; g < ha->n_guests; g++) {
		h->guests[g].wanted = h->guests[g].starting = h->guests[g].killing = h->guests[g].seen = false;
		h->guests[g].want.failure = h->guests[g].told = NULL;
	}
	h->d.loop = (void *)h;
	h->d.replica = (void *)h;
	h->d.agent = (void *)h;
	h->d.cluster_id = (char *)CLUSTER;
	h->d.opt.run_dir = "/";
	h->d.opt.watchdog = WATCHDOG_AUTO;
	h->d.api = &h->api;
	h->api.d = &h->d;
	h->api.present = is_present;
	ha_pair_start(h);
	ha_trace(h, "the daemon starts");
	h->d.disks = disks_new(&h->d); /* no setting names any */
	h->d.fencing = fencing_new(&h->d);
	h->d.ha = ha_manager_new(&h->d);
	h->d.lease = host_lease_new(&h->d);
	ha->at = was;
	ha_at(ha_between(0, 1000), on_tick, h, true)->k = 1;
	ha_agent_look(h);
	ha_ring_changed(60);
}

void ha_daemon_kill(struct host *h)
{
	struct host *was = ha->at;

	if (!h->up)
		return;
	ha->at = h;
	h->synced = h->leads = false; /* as of a replica that is gone */
	ha_pending_drop(h);
	host_lease_free(h->d.lease);
	fencing_free(h->d.fencing);
	ha_manager_free(h->d.ha);
	disks_free(h->d.disks);
	h->d.lease = NULL;
	ha_pair_stop(h);
	ha->at = was;
	h->up = h->connected = false;
	h->life++;
	ha_ring_changed(60);
}

static void on_stopped(struct event *ev)
{
	ha_trace(ev->h, "the daemon has ended in order");
	ha_daemon_kill(ev->h);
}

static void frozen(void *arg)
{
	ha_at(NS_PER_MS, on_stopped, arg, true);
}

void ha_daemon_stop(struct host *h)
{
	struct err e = ERR_INIT;

	if (!h->up || h->stopping)
		return;
	h->stopping = true;
	if (ha->o.broken != BREAK_FROZEN) {
		host_lease_freeze(h->d.lease, frozen, h);
		return;
	}
	/* Broken: its guests go on without a lease, and nobody is told. */
	keeper_release(&h->keeper, ha_clock(h), &e);
	ha_keeper_wake(h);
	frozen(h);
}

/* ---- the machine ---- */

static void on_daemon(struct event *ev)
{
	ha_daemon_start(ev->h);
}

void ha_boot(struct host *h)
{
	if (h->broken)
		return;
	h->boot++;
	h->power = true;
	h->hung_until = 0;
	/* The clock begins at nearly nothing with each boot. */
	h->skew_ns = 0;
	h->skew_ns = NS_PER_S - ha_clock(h);
	h->until_max = 0;
	h->dog_open = h->connected = h->met = false;
	/* Its module may not have been loaded. */
	h->has_dog = h->dog_fitted && !ha_chance(ha->now > NS_PER_S ? 200 : 0);
	keeper_init(&h->keeper);
	ha_trace(h, "boots");
	ha_at(ha->now > NS_PER_S ? ha_between(200, 2000) : ha_between(0, 200), on_daemon, h, false);
}

static void on_boot(struct event *ev)
{
	if (!ev->h->power)
		ha_boot(ev->h);
}

void ha_power_off(struct host *h, const char *why)
{
	struct event *ev;

	if (!h->power)
		return;
	ha_trace(h, "%s", why);
	for (unsigned g = 0; g < ha->n_guests; g++)
		if (h->guests[g].alive)
			ha_qemu_end(h, g, "its host is off");
	memset(h->guests, 0, sizeof(h->guests));
	ha_daemon_kill(h);
	h->power = false;
	h->dog_open = false;
	h->hung_until = 0;
	h->boot++;
	ha_ring_changed(ha->timing.detect_ns / NS_PER_MS);
	ev = ha_at(ha_chance(500) ? ha_between(2000, 6000) : ha_between(6000, 60000), on_boot, h, false);
	ev->kernel = false;
}
