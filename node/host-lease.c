/* SPDX-License-Identifier: Apache-2.0 */
/* The lease of this host.
 *
 * Beats go out and come in beside the log; cluster/lease.h makes a lease of them. Each extension is told to
 * godwit-watchdog, which ends the guests when the lease is over whether this process still lives or not. Where none
 * runs this process does it itself, and nothing does if it hangs then: such a host is never counted as dead because of
 * time.
 *
 * Guests start here only while four things hold: there is a lease; godwit-watchdog, if there is one, knows it; a
 * node.alive of this host, proposed since the lease began, is in the log as this host knows it; and the log does not
 * credit this host with a watchdog that it has not. The third makes whatever others have concluded from the silence
 * before known here first (docs/timing.md, step 7), the fourth keeps what they will conclude true (step 8). A host that
 * was confirmed dead ends all guests that it still has before it says so.
 *
 * A host that is told on a shared disk to die (node/disks.h) has godwit-watchdog end all guests, which lets none start
 * either until it is told a new time. It is told none before this host has said node.alive anew; and only what
 * godwit-watchdog says is taken for their death. Without one the guests are ended, and nothing is proved.
 *
 * A daemon that is stopped in order writes node.frozen first, so that nobody counts on the lease's end, and then has
 * godwit-watchdog release the guests. The next one arms it again, and only then says that it is frozen no more. One
 * that is replaced by execv() does nothing of this: the lease outlasts that.
 */
#include "node/host-lease.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/lease.h"
#include "cluster/state.h"
#include "node/corosync.h"
#include "node/daemon-int.h"
#include "node/host-watchdog.h"

#define FREEZE_MOST (3 * NS_PER_S) /* then the daemon ends all the same */
#define NODES_ALONE 2              /* hosts without a majority of their own */

struct host_lease {
	struct daemon *d;
	unsigned token_ms;
	struct timing timing;
	struct lease *lease;
	struct bus_view view;
	bool viewed;
	uint32_t seen[BUS_NODES_MAX]; /* ids of members, in the views since the start */
	size_t n_seen;
	int64_t start_ns; /* of this lease object: what was granted before ends by then and a lease */

	bool held, told_armed;
	bool cleared; /* node.alive is in the log, after the lease began */
	bool asking;
	bool fenced, frozen; /* as the state says of this host */
	int64_t ending_ns;   /* since when guests are being ended here; 0: they are not */
	unsigned nodes;      /* in the state */
	json_int_t said_s;   /* the state says that this host's watchdog bites after so long; 0: it has none */
	int64_t again_ns;    /* what was refused is not tried again before */

	struct host_watchdog *watchdog;

	void (*frozen_done)(void *arg);
	void *frozen_arg;
	bool freezing; /* node.frozen was proposed: nothing that follows may take it back */
	bool stopping;
	struct loop_timer *beat, *end, *freeze;
};

static void update(struct host_lease *h);

/* ---- what follows ---- */

/* As lease_until(); there is none before the first view. */
static int64_t until_of(const struct host_lease *h)
{
	return h->lease ? lease_until(h->lease) : 0;
}

static bool counted_on(const struct host_lease *h)
{
	return h->viewed && until_of(h) != LEASE_FOREVER;
}

/* Do others count on more of a watchdog than there is? */
static bool overstated(const struct host_lease *h)
{
	json_int_t bites_s = host_watchdog_bites_s(h->watchdog);

	return h->said_s && counted_on(h) && (!bites_s || h->said_s < bites_s);
}

static const char *why_not_held(const struct host_lease *h)
{
	bool quorate = h->view.quorate || (h->nodes == NODES_ALONE && h->view.service_quorate);

	if (!h->viewed)
		return "corosync has not told yet who is a member";
	if (!quorate)
		return "this host is not in the part of the cluster that has quorum";
	return until_of(h) ? "no majority has heard this host for the time of a lease"
			   : "no majority has heard this host since its daemon started";
}

/* Why guests may not start here, NULL: they may. */
static const char *why_not(const struct host_lease *h)
{
	const char *why;

	if (h->stopping || h->freezing)
		return "the daemon of this host is being stopped";
	if (disks_told(h->d->disks))
		return "this host was told on a shared disk to end its guests";
	if (!h->held)
		return why_not_held(h);
	if (h->fenced)
		return "this host was confirmed dead, and ends what it still has before it says that it is back";
	if (!h->cleared)
		return "the log has no node.alive of this host yet that is newer than its lease";
	why = counted_on(h) ? host_watchdog_why_not(h->watchdog) : NULL;
	if (why)
		return why;
	return overstated(h) ? "the log still says that a watchdog guards this host, and none does: a report that says "
			       "so is on its way"
			     : NULL;
}

static bool may_start(const struct host_lease *h)
{
	return !why_not(h);
}

/* The lease is over, or it was told to die, and nobody else ends the guests; or this host was confirmed dead. */
static bool must_end(const struct host_lease *h, int64_t now)
{
	int64_t until = until_of(h);

	if (h->stopping)
		return false;
	if (h->fenced || (disks_told(h->d->disks) && !host_watchdog_guards(h->watchdog)))
		return true;
	if (!counted_on(h) || host_watchdog_guards(h->watchdog) || h->held)
		return false;
	return now >= (until ? until : h->start_ns + h->timing.lease_ns);
}

static void end_guests(struct host_lease *h, int64_t now)
{
	bool must = must_end(h, now);

	if (!must) {
		h->ending_ns = 0;
		return;
	}
	if (!h->ending_ns) {
		h->ending_ns = now;
		log_warning(
			"event=guests-end text=\"%s\"",
			h->fenced ? "this host was confirmed dead: what it still runs may run elsewhere, and is killed"
			: disks_told(h->d->disks)
				? "this host was told to die, and no godwit-watchdog ends its guests: godwitd does"
				: "the lease of this host is over, and no godwit-watchdog ends its guests: godwitd "
				  "does");
	}
	if (h->fenced || now >= h->ending_ns + h->timing.stop_ns)
		agent_signal_all(h->d->agent, SIGKILL);
	else
		agent_signal_all(h->d->agent, SIGTERM);
}

static void update_timer(void *arg)
{
	update(arg);
}

/* ---- alive ---- */

static void unfrozen(void *arg, const json_t *result, const struct err *e)
{
	struct host_lease *h = arg;

	(void)result;
	if (e) /* perhaps at once, out of the call that asked: daemon.c looks again within a second */
		log_debug("event=unfreeze error=\"%s\"", e->text);
	else
		host_lease_look(h);
}

/* Whether it was not told to die, or what it was told is done. */
static bool may_live(const struct host_lease *h)
{
	const struct disks *s = h->d->disks;

	return !disks_told(s) || disks_are_dead(s) ||
	       (!host_watchdog_guards(h->watchdog) && h->ending_ns && agent_empty(h->d->agent, h->ending_ns));
}

static void alive(void *arg, const json_t *result, const struct err *e)
{
	struct host_lease *h = arg;

	(void)result;
	h->asking = false;
	if (e && e->code == ERR_UNSUPPORTED && disks_refused(h->d->disks)) {
		host_lease_look(h); /* once more, without */
		return;
	}
	/* Told to die since it was asked: that comes first, and then it is asked again. */
	if (!e && h->held && may_live(h))
		disks_live(h->d->disks);
	/* Hosts that do not know the command fence nobody. */
	if ((!e || e->code == ERR_UNSUPPORTED) && h->held && !h->cleared) {
		h->cleared = true;
		log_info("event=lease-cleared text=\"guests may start here\"");
	} else if (e) {
		log_debug("event=alive error=\"%s\"", e->text);
		return; /* asked again by the next look: a refusal may have come at once, from within this one */
	}
	/* Not taken: that may have been said at once, out of the call that asked. The next tick asks again. */
	if (!e || e->code != ERR_UNAVAILABLE)
		host_lease_look(h);
}

static void ask_alive(struct host_lease *h, const json_t *row)
{
	const char *life = json_string_value(json_object_get(row, "life"));
	json_t *args = json_pack("{s:s}", "node", h->d->identity.node);
	const char *incarnation;

	if (life && strcmp(life, "up") != 0)
		json_object_set(args, "number", json_object_get(row, "fencing"));
	if (h->fenced)
		json_object_set_new(args, "empty", json_true());
	incarnation = disks_next_life(h->d->disks);
	if (incarnation)
		json_object_set_new(args, "incarnation", json_string(incarnation));
	h->asking = true;
	daemon_propose(h->d, "node.alive", NULL, args, alive, h);
}

/* ---- the lease ---- */

static void held_changed(struct host_lease *h, bool held, int64_t until)
{
	h->held = held;
	h->cleared = false;
	if (!held)
		log_warning("event=lease-over text=\"no majority has heard this host for %lld ms: its guests end\"",
			    (long long)(h->timing.lease_ns / NS_PER_MS));
	else
		log_info("event=lease text=\"%s\"",
			 until == LEASE_FOREVER ? "for ever: this host is alone" : "a majority hears this host");
}

static void update(struct host_lease *h)
{
	int64_t now = clock_boot_ns(), until = until_of(h);
	bool held = h->viewed && until > now, armed;

	if (!h->lease)
		return;
	if (held != h->held) {
		held_changed(h, held, until);
		loop_defer(h->d->loop, (loop_fn *)host_lease_look, h);
	}
	if (h->viewed && !h->stopping)
		host_watchdog_feed(h->watchdog, until);
	armed = host_watchdog_bites_s(h->watchdog) > 0;
	if (armed != h->told_armed) { /* others must not go by what is true no more */
		h->told_armed = armed;
		daemon_report(h->d);
	}
	end_guests(h, now);
	agent_allow(h->d->agent, may_start(h));
	if (held && until != LEASE_FOREVER)
		loop_timer_set(h->end, until - now + NS_PER_MS);
	else if (h->ending_ns)
		loop_timer_set(h->end, 200 * NS_PER_MS);
	else if (counted_on(h) && !until && h->start_ns + h->timing.lease_ns > now)
		loop_timer_set(h->end, h->start_ns + h->timing.lease_ns - now + NS_PER_MS);
}

static void beat_later(struct host_lease *h)
{
	int64_t due = lease_due(h->lease), now = clock_boot_ns();

	loop_timer_set(h->beat, due < 0 ? -1 : due > now ? due - now : 0);
}

static void on_beat(void *arg)
{
	struct host_lease *h = arg;
	uint8_t buf[BEAT_SIZE_MAX];
	int64_t now = clock_boot_ns();
	size_t n = h->stopping ? 0 : lease_beat(h->lease, now, buf);

	if (n)
		replica_say(h->d->replica, buf, n);
	update(h);
	beat_later(h);
}

void host_lease_heard(struct host_lease *h, uint32_t node, const uint8_t *data, size_t size)
{
	struct err e = ERR_INIT;

	if (!size || data[0] != BEAT_MAGIC || !h->lease)
		return;
	if (lease_heard(h->lease, clock_boot_ns(), node, data, size, &e) < 0)
		log_debug("event=beat node=%" PRIu32 " error=\"%s\"", node, e.text);
	update(h);
}

static void lease_begin(struct host_lease *h, unsigned token_ms)
{
	struct lease_options o = {.self = h->d->identity.id};

	timing_make(token_ms, &h->timing);
	h->token_ms = token_ms;
	o.timing = h->timing;
	while (!o.incarnation)
		if (getrandom(&o.incarnation, sizeof(o.incarnation), 0) != sizeof(o.incarnation))
			abort();
	lease_free(h->lease);
	h->start_ns = clock_boot_ns();
	h->lease = lease_new(&o, h->start_ns);
	lease_alone(h->lease, h->nodes == NODES_ALONE);
	host_watchdog_times(h->watchdog, &h->timing);
	if (h->viewed)
		lease_view(h->lease, h->start_ns, &h->view);
}

void host_lease_told(struct host_lease *h)
{
	h->cleared = false;
	update(h);
}

/* ---- what the state says ---- */

/* Others count with the longer of the times that the state names and that this host has reported last. So it may go by
 * what it knows of the state, however old that is. */
static void look_ring(struct host_lease *h)
{
	struct corosync_conf conf = {0};
	bool known = ring_conf(replica_db(h->d->replica), h->d->identity.cluster, &conf, NULL) == 0 && conf.n_nodes;
	unsigned token_ms = known ? conf.token_ms : h->lease ? h->token_ms : COROSYNC_TOKEN_MS;
	bool other = h->lease && token_ms != h->token_ms;

	h->nodes = (unsigned)conf.n_nodes;
	if (!h->lease || other)
		lease_begin(h, token_ms);
	lease_alone(h->lease, h->nodes == NODES_ALONE);
	if (other)
		daemon_report(h->d);
}

void host_lease_view(struct host_lease *h, const struct bus_view *v)
{
	h->view = *v;
	h->viewed = true;
	for (size_t i = 0; i < v->n; i++)
		if (!host_lease_seen(h, v->members[i]) && h->n_seen < BUS_NODES_MAX)
			h->seen[h->n_seen++] = v->members[i];
	if (!h->lease)
		look_ring(h);
	lease_view(h->lease, clock_boot_ns(), v);
	update(h);
	beat_later(h);
}

static json_int_t said_s(const json_t *watchdog)
{
	return json_is_true(json_object_get(watchdog, "armed"))
		       ? json_integer_value(json_object_get(watchdog, "timeout_s"))
		       : 0;
}

/* A report may have been dropped, or refused while this host was fenced; godwit-watchdog may be free of others' guests
 * now. */
static void try_again(struct host_lease *h)
{
	int64_t now = clock_boot_ns();

	if (now < h->again_ns || !(host_watchdog_refuses(h->watchdog) || overstated(h)))
		return;
	h->again_ns = now + NS_PER_S;
	host_watchdog_ask_again(h->watchdog);
	if (overstated(h) && !h->fenced)
		daemon_report(h->d);
}

void host_lease_look(struct host_lease *h)
{
	json_t *row;
	const char *life;

	if (!h->d->replica || !h->lease || !replica_synced(h->d->replica))
		return;
	look_ring(h);
	row = state_node_get(replica_db(h->d->replica), h->d->identity.node, NULL);
	if (!row)
		return;
	life = json_string_value(json_object_get(row, "life"));
	h->fenced = life && !strcmp(life, "fenced");
	h->frozen = json_is_true(json_object_get(row, "frozen"));
	h->said_s = said_s(json_object_get(json_object_get(row, "report"), "watchdog"));
	try_again(h);
	if (life && strcmp(life, "up") != 0)
		h->cleared = false;
	update(h);
	if (h->held && !h->asking && !h->stopping && may_live(h) &&
	    (!h->cleared || disks_told(h->d->disks) ||
	     disks_unsaid(h->d->disks, json_string_value(json_object_get(row, "incarnation")))) &&
	    (!h->fenced || (h->ending_ns && agent_empty(h->d->agent, h->ending_ns))))
		ask_alive(h, row);
	else if (may_start(h) && h->frozen && !h->asking)
		daemon_propose(h->d, "node.frozen", NULL, json_pack("{s:s, s:b}", "node", h->d->identity.node, "on", 0),
			       unfrozen, h);
	json_decref(row);
}

/* ---- stopping ---- */

static void freeze_over(struct host_lease *h)
{
	void (*done)(void *arg) = h->frozen_done;

	h->frozen_done = NULL;
	loop_timer_set(h->freeze, -1);
	if (done)
		done(h->frozen_arg);
}

static void freeze_late(void *arg)
{
	struct host_lease *h = arg;

	log_error("event=freeze text=\"the cluster did not take it that this daemon stops: the guests of this host end "
		  "with "
		  "its lease unless another daemon starts before\"");
	freeze_over(h);
}

static void froze(void *arg, const json_t *result, const struct err *e)
{
	struct host_lease *h = arg;
	struct err lost = ERR_INIT;

	(void)result;
	if (!h->frozen_done)
		return;
	if (e && e->code != ERR_UNSUPPORTED) {
		log_error("event=freeze error=\"%s\" text=\"the guests of this host end with its lease unless another "
			  "daemon starts before\"",
			  e->text);
	} else if (host_watchdog_release(h->watchdog, &lost) < 0) {
		log_error("event=release error=\"%s\"", lost.text);
	}
	freeze_over(h);
}

void host_lease_freeze(struct host_lease *h, void (*done)(void *arg), void *arg)
{
	if (h->stopping || h->freezing)
		return;
	h->frozen_done = done;
	h->frozen_arg = arg;
	if (!counted_on(h)) {
		h->stopping = true;
		freeze_over(h);
		return;
	}
	/* Beats go on until the state has it. Where an earlier daemon's freeze has just been taken back, and the log is
	 * slow, that must not be asked for again behind this one: others would count on a lease that nobody guards. */
	h->freezing = true;
	agent_allow(h->d->agent, false);
	loop_timer_set(h->freeze, FREEZE_MOST);
	daemon_propose(h->d, "node.frozen", NULL, json_pack("{s:s, s:b}", "node", h->d->identity.node, "on", 1), froze,
		       h);
}

/* ---- telling ---- */

json_t *host_lease_json(const struct host_lease *h)
{
	int64_t until = until_of(h), left = until - clock_boot_ns();
	const char *why = why_not(h);

	return json_pack("{s:b, s:o, s:b, s:s*, s:o}", "held", h->held, "left_ms",
			 until == LEASE_FOREVER ? json_null() : json_integer(left > 0 ? left / NS_PER_MS : 0), "starts",
			 !why, "why", why, "watchdog", host_watchdog_json(h->watchdog));
}

json_t *host_lease_report(const struct host_lease *h)
{
	unsigned bites_s = host_watchdog_bites_s(h->watchdog);

	return json_pack("{s:b, s:i, s:i}", "armed", bites_s > 0, "timeout_s", (int)bites_s, "token_ms",
			 (int)h->token_ms);
}

/* The times by which @node ends its guests: the longer ones of the state's and its own. */
static bool timing_of(const struct host_lease *h, const json_t *said, struct timing *ret)
{
	json_int_t token = json_integer_value(json_object_get(said, "token_ms"));
	json_int_t timeout = json_integer_value(json_object_get(said, "timeout_s"));

	if (!json_is_true(json_object_get(said, "armed")) || timeout < 1 || timeout > 3600 || h->nodes <= NODES_ALONE)
		return false;
	timing_make(token > (json_int_t)h->token_ms ? (unsigned)token : h->token_ms, ret);
	if (timeout * NS_PER_S > ret->watchdog_ns) {
		int64_t more = timeout * NS_PER_S - ret->watchdog_ns;

		ret->watchdog_ns += more;
		ret->expire_ns += more + timing_drift(more);
	}
	return true;
}

int64_t host_lease_dead_upto(const struct host_lease *h, uint32_t node, const json_t *said)
{
	struct timing t;

	return h->lease && timing_of(h, said, &t) ? lease_dead_upto(h->lease, clock_boot_ns(), node, &t) : -1;
}

int64_t host_lease_dead_at(const struct host_lease *h, uint32_t node, const json_t *said)
{
	struct timing t;

	return h->lease && timing_of(h, said, &t) ? lease_dead_at(h->lease, node, &t) : -1;
}

int64_t host_lease_gone_since(const struct host_lease *h, uint32_t node)
{
	return h->lease ? lease_gone_since(h->lease, node) : clock_boot_ns();
}

bool host_lease_reaches(const struct host_lease *h, uint32_t node)
{
	for (size_t i = 0; i < h->view.n_reached; i++)
		if (h->view.reached[i] == node)
			return true;
	return false;
}

bool host_lease_seen(const struct host_lease *h, uint32_t node)
{
	for (size_t i = 0; i < h->n_seen; i++)
		if (h->seen[i] == node)
			return true;
	return false;
}

bool host_lease_all_here(const struct host_lease *h)
{
	return h->view.n == h->view.expected;
}

unsigned host_lease_spare(const struct host_lease *h)
{
	return h->view.n > h->view.needed ? (unsigned)(h->view.n - h->view.needed) : 0;
}

bool host_lease_goes_on(const struct host_lease *h)
{
	return h->nodes == NODES_ALONE && h->view.service_quorate;
}

const struct timing *host_lease_timing(const struct host_lease *h)
{
	return &h->timing;
}

/* ---- life ---- */

struct host_lease *host_lease_new(struct daemon *d)
{
	struct host_lease *h = xcalloc(1, sizeof(*h));

	h->d = d;
	h->beat = loop_timer_add(d->loop, -1, 0, on_beat, h);
	h->end = loop_timer_add(d->loop, -1, 0, update_timer, h);
	h->freeze = loop_timer_add(d->loop, -1, 0, freeze_late, h);
	h->watchdog = host_watchdog_new(d, update_timer, h);
	return h;
}

void host_lease_free(struct host_lease *h)
{
	if (!h)
		return;
	loop_timer_free(h->beat);
	loop_timer_free(h->end);
	loop_timer_free(h->freeze);
	host_watchdog_free(h->watchdog);
	lease_free(h->lease);
	free(h);
}
