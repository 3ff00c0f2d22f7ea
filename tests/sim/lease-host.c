/* SPDX-License-Identifier: Apache-2.0 */
/* One simulated host: its clock, its daemon with a lease, its watchdog, hardware included, and its guest. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/lease-sim.h"

/* ---- clocks and timers ---- */

int64_t ls_clock(const struct ls_host *h)
{
	return h->skew_ns + ls->now + ls->now / 1000000 * h->ppm;
}

int64_t ls_real(const struct ls_host *h, int64_t time)
{
	int64_t t = time - h->skew_ns;

	t -= t / 1000000 * h->ppm;
	/* ppm is at most 500, so that a second round brings it to some nanoseconds. */
	return t - (t + t / 1000000 * h->ppm - (time - h->skew_ns));
}

static int64_t very_late(void)
{
	return (int64_t)ls_below((uint64_t)ls->timing.latency_ns);
}

/* How late a timer is: mostly little, now and then nearly as much as is allowed. */
static int64_t lateness(void)
{
	return ls_chance(950) ? (int64_t)ls_below(2 * NS_PER_MS) : very_late();
}

/* ---- guest ---- */

static void guest_end(struct ls_host *h, const char *how)
{
	if (!h->guest)
		return;
	ls_trace("n%u: the guest ends: %s", h->id, how);
	h->guest = false;
}

static void on_guest_start(struct ls_event *ev)
{
	struct ls_host *h = &ls->hosts[ev->host];

	/* The permit: what starts is looked at by the watchdog's rule. */
	if (h->guest || h->keeper != LS_ARMED || ls_clock(h) >= h->until_ns)
		return;
	h->guest = true;
	h->guest_since = ls->now;
	h->stubborn = ls_chance(300);
	h->immortal = ls_chance(400);
	ls_trace("n%u: the guest starts", h->id);
}

/* ---- watchdog ---- */

static void on_bite(struct ls_event *ev)
{
	struct ls_host *h = &ls->hosts[ev->from];
	int64_t petted;

	memcpy(&petted, ev->data, sizeof(petted));
	if (!h->up || h->petted != petted)
		return;
	ls->bites++;
	ls_power_off(h, "reset by its watchdog");
}

/* The hardware has a clock of its own, and does not care whether the host runs. */
static void pet(struct ls_host *h, int64_t watchdog_ns)
{
	h->petted = ls->now;
	h->pet_ns = ls_clock(h) + ls->timing.pet_ns;
	ls_at(ls->now + watchdog_ns + watchdog_ns / 1000000 * h->dog_ppm, on_bite, NULL, false, h->id, &h->petted,
	      sizeof(h->petted));
}

/* It comes late, perhaps after the deadline: then the time-out is cut, as fencing/keeper.c, keeper_late(), says. (There
 * nothing comes between the look at the clock and the petting; here the guests may be ending by now.) */
static void on_pet(struct ls_event *ev)
{
	struct ls_host *h = &ls->hosts[ev->host];
	int64_t clock = ls_clock(h), left = h->until_ns + ls->timing.watchdog_ns - clock;

	if (h->keeper == LS_STOPPED || clock < h->until_ns + ls->timing.pet_ns)
		left = ls->timing.watchdog_ns;
	else
		left = left > NS_PER_S ? left / NS_PER_S * NS_PER_S : NS_PER_S;
	pet(h, left);
}

static void keeper_wake(struct ls_host *h);

static void on_keeper(struct ls_event *ev)
{
	struct ls_host *h = &ls->hosts[ev->host];

	if (ls->now >= h->keeper_at)
		keeper_wake(h);
}

static void keeper_sleep(struct ls_host *h, int64_t until)
{
	h->keeper_at = ls_real(h, until) + lateness();
	if (h->keeper_at <= ls->now)
		h->keeper_at = ls->now + NS_PER_MS;
	ls_at(h->keeper_at, on_keeper, h, false, 0, NULL, 0);
}

static void keeper_stop(struct ls_host *h, int64_t clock)
{
	if (h->keeper == LS_ARMED && clock >= h->until_ns) {
		ls->expiries++;
		ls_trace("n%u: the lease has ended", h->id);
		h->keeper = LS_STOPPING;
		h->kill_ns = clock + ls->timing.stop_ns;
		h->guest_ends = h->stubborn ? INT64_MAX : ls->now + (int64_t)ls_below((uint64_t)ls->timing.stop_ns);
	}
	if (h->keeper != LS_STOPPING)
		return;
	if (ls->now >= h->guest_ends)
		guest_end(h, "SIGTERM");
	if (clock >= h->kill_ns && !h->immortal)
		guest_end(h, "SIGKILL");
	if (!h->guest)
		h->keeper = LS_STOPPED;
}

/* What godwit-watchdog does whenever it wakes up. */
static void keeper_wake(struct ls_host *h)
{
	int64_t clock = ls_clock(h);

	keeper_stop(h, clock);
	if (h->keeper == LS_STOPPING) {
		keeper_sleep(h, clock + 20 * NS_PER_MS);
		return;
	}
	/* Interrupted, it matters most just before the deadline. */
	if (clock >= h->pet_ns && ls_chance(clock + ls->timing.latency_ns < h->until_ns ? 800 : 200)) {
		pet(h, ls->timing.watchdog_ns);
	} else if (clock >= h->pet_ns) { /* between its look at the clock and the petting */
		h->pet_ns = clock + ls->timing.pet_ns;
		ls_at(ls->now + very_late(), on_pet, h, false, 0, NULL, 0);
	}
	keeper_sleep(h, h->keeper == LS_ARMED && h->until_ns < h->pet_ns ? h->until_ns : h->pet_ns);
}

/* The daemon has told it a deadline. */
static void on_until(struct ls_event *ev)
{
	struct ls_host *h = &ls->hosts[ev->host];
	int64_t clock = ls_clock(h), until;

	memcpy(&until, ev->data, sizeof(until));
	keeper_stop(h, clock);
	if (h->keeper == LS_STOPPING || until <= clock)
		return;
	if (h->keeper == LS_STOPPED) {
		h->keeper = LS_ARMED;
		h->until_ns = until;
	} else if (until > h->until_ns) {
		h->until_ns = until;
	}
	if (!h->guest)
		ls_at(ls->now + (int64_t)ls_below(500 * NS_PER_MS), on_guest_start, h, false, 0, NULL, 0);
	keeper_wake(h);
}

/* ---- daemon ---- */

static void on_heard(struct ls_event *ev)
{
	struct ls_host *h = &ls->hosts[ev->host];
	int64_t before = lease_until(h->lease), until;
	struct err e = ERR_INIT;

	if (lease_heard(h->lease, ls_clock(h), ev->from, ev->data, ev->size, &e) < 0)
		ls_fail("%s", e.text);
	until = lease_until(h->lease);
	if (until > before)
		ls_at(ls->now + lateness(), on_until, h, false, 0, &until, sizeof(until));
}

static void beat_send(struct ls_host *h, const uint8_t *data, size_t size)
{
	for (uint32_t to = 1; to <= LS_HOSTS; to++) {
		struct ls_host *t = &ls->hosts[to];

		for (int copy = 0; copy < (ls_chance(20) ? 2 : 1); copy++) {
			int64_t takes = (int64_t)ls_below(20 * NS_PER_MS);

			if (ls_chance(30))
				takes += (int64_t)ls_below((uint64_t)ls->late_ns);
			if (t->up && t->lease && !ls->cut[h->id][to] && !ls_chance(ls->loss))
				ls_at(ls->now + takes, on_heard, t, true, h->id, data, size);
		}
	}
}

static void daemon_wake(struct ls_host *h);

static void on_beat(struct ls_event *ev)
{
	struct ls_host *h = &ls->hosts[ev->host];

	if (ls->now >= h->beat_at)
		daemon_wake(h);
}

static void on_send(struct ls_event *ev)
{
	beat_send(&ls->hosts[ev->host], ev->data, ev->size);
}

static void daemon_wake(struct ls_host *h)
{
	uint8_t buf[BEAT_SIZE_MAX];
	size_t size = lease_beat(h->lease, ls_clock(h), buf);
	int64_t due = lease_due(h->lease);

	if (size) /* the time was read; sending comes when it comes */
		ls_at(ls->now + lateness(), on_send, h, true, 0, buf, size);
	if (due < 0)
		return;
	h->beat_at = ls_real(h, due) + lateness();
	if (h->beat_at <= ls->now)
		h->beat_at = ls->now + NS_PER_MS;
	ls_at(h->beat_at, on_beat, h, true, 0, NULL, 0);
}

/* A view of those whom this host can reach; now and then a ghost is in it, or a member is missing. */
void ls_view(struct ls_host *h)
{
	const uint32_t *list = ls->lists[h->list];
	struct bus_view v = {0};

	if (!h->lease)
		return;
	for (size_t i = 0; list[i]; i++) {
		uint32_t id = list[i];
		bool here = id == h->id || (!ls->cut[h->id][id] && !ls->cut[id][h->id] && ls->hosts[id].up);

		v.configured[v.expected++] = id;
		if (here != ls_chance(20))
			v.members[v.n++] = id;
	}
	v.needed = v.expected / 2 + 1;
	v.quorate = v.n >= v.needed;
	lease_view(h->lease, ls_clock(h), &v);
	daemon_wake(h);
}

void ls_daemon_start(struct ls_host *h)
{
	struct lease_options o = {.self = h->id,
				  .timing = ls->timing,
				  .break_arrival = ls->o.break_arrival,
				  .break_majority = ls->o.break_majority};

	if (!h->up || h->lease)
		return;
	h->lives++;
	h->stopped_until = 0;
	o.incarnation = ls_below(UINT64_MAX - 1) + 1;
	h->lease = lease_new(&o, ls_clock(h));
	ls_view(h);
}

void ls_daemon_end(struct ls_host *h)
{
	lease_free(h->lease);
	h->lease = NULL;
}

/* ---- power ---- */

void ls_boot(struct ls_host *h)
{
	h->boots++;
	h->up = true;
	h->hung_until = 0;
	/* The clock begins at nearly nothing with each boot. */
	h->skew_ns = 0;
	h->skew_ns = NS_PER_S - ls_clock(h);
	h->keeper = LS_STOPPED;
	h->until_ns = 0;
	pet(h, ls->timing.watchdog_ns);
	keeper_wake(h);
	ls_daemon_start(h);
	ls_trace("n%u: up", h->id);
}

static void on_boot(struct ls_event *ev)
{
	if (!ls->hosts[ev->from].up)
		ls_boot(&ls->hosts[ev->from]);
}

void ls_power_off(struct ls_host *h, const char *why)
{
	if (!h->up)
		return;
	ls_trace("n%u: %s", h->id, why);
	guest_end(h, "its host is off");
	ls_daemon_end(h);
	h->up = false;
	ls_at(ls->now + NS_PER_S + (int64_t)ls_below(20 * NS_PER_S), on_boot, NULL, false, h->id, NULL, 0);
}
