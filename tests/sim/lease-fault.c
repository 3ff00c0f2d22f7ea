/* SPDX-License-Identifier: Apache-2.0 */
/* What goes wrong around simulated leases: cuts, loss in one direction, hangs, ends of daemons, and changes of the
 * hosts. */
#include <string.h>

#include "tests/sim/lease-sim.h"

static struct ls_host *any_host(void)
{
	return &ls->hosts[1 + ls_below(LS_HOSTS)];
}

static int64_t within(int64_t ns)
{
	return ls->now + (int64_t)ls_below((uint64_t)ns);
}

/* ---- views ---- */

static void on_view(struct ls_event *ev)
{
	ls_view(&ls->hosts[ev->host]);
}

/* Something has changed: everybody hears of it, some much later than others. */
static void views_soon(void)
{
	for (int i = 1; i <= LS_HOSTS; i++)
		if (ls->hosts[i].up && ls->hosts[i].lease)
			ls_at(within(ls->timing.detect_ns), on_view, &ls->hosts[i], true, 0, NULL, 0);
}

/* ---- the list of hosts ---- */

static size_t list_size(size_t list)
{
	size_t n = 0;

	while (ls->lists[list][n])
		n++;
	return n;
}

static bool listed(size_t list, uint32_t id)
{
	for (size_t i = 0; ls->lists[list][i]; i++)
		if (ls->lists[list][i] == id)
			return true;
	return false;
}

/* Can @h hear of the next list from somebody who has taken it? */
static bool told(const struct ls_host *h)
{
	for (uint32_t i = 1; i <= LS_HOSTS; i++)
		if (ls->hosts[i].list > h->list && ls->hosts[i].up && !ls->cut[i][h->id] && !ls->cut[h->id][i])
			return true;
	return false;
}

static void take(struct ls_host *h)
{
	h->list++;
	ls_trace("n%u: takes list %zu of %zu hosts", h->id, h->list, list_size(h->list));
	ls_view(h);
}

/* A host reads its new corosync.conf: some do so late. */
static void on_take(struct ls_event *ev)
{
	struct ls_host *h = &ls->hosts[ev->from];

	if (h->list + 1 >= ls->n_lists)
		return;
	if (h->up && h->lease && h->hung_until <= ls->now && h->stopped_until <= ls->now && told(h))
		take(h);
	else
		ls_at(within(2 * NS_PER_S), on_take, NULL, false, h->id, NULL, 0);
}

/* May @h make the next list? It has taken the newest, and so has a majority: the rule that lease_settled() is for. */
static bool may_change(const struct ls_host *h)
{
	return h->up && h->lease && h->hung_until <= ls->now && h->stopped_until <= ls->now &&
	       h->list + 1 == ls->n_lists && listed(h->list, h->id) && (ls->o.break_settled || lease_settled(h->lease));
}

/* One host more or one less. */
static void list_change(struct ls_host *h)
{
	size_t n = list_size(ls->n_lists - 1), k = 0;
	uint32_t id = any_host()->id;
	bool had = listed(ls->n_lists - 1, id);

	if (ls->n_lists == LS_LISTS || !may_change(h) || (had && n == 3) || id == h->id)
		return;
	for (uint32_t i = 1; i <= LS_HOSTS; i++)
		if (i == id ? !had : listed(ls->n_lists - 1, i))
			ls->lists[ls->n_lists][k++] = i;
	ls->n_lists++;
	ls->changes++;
	ls_trace("n%u: host %u is %s: list %zu", h->id, id, had ? "removed" : "added", ls->n_lists - 1);
	take(h);
	for (uint32_t i = 1; i <= LS_HOSTS; i++)
		ls_at(ls_chance(700) ? within(300 * NS_PER_MS) : within(20 * NS_PER_S), on_take, NULL, false, i, NULL,
		      0);
}

/* ---- faults ---- */

static void on_daemon_start(struct ls_event *ev)
{
	if (ls->hosts[ev->from].up)
		ls_daemon_start(&ls->hosts[ev->from]);
}

static void on_heal(struct ls_event *ev)
{
	(void)ev;
	memset(ls->cut, 0, sizeof(ls->cut));
	ls->loss = 0;
	ls->late_ns = 500 * NS_PER_MS;
	ls_trace("the network is whole");
	views_soon();
}

/* Sides that do not hear each other, or one of which does not hear the other. */
static void cut(void)
{
	unsigned side = (unsigned)ls_below(1U << (LS_HOSTS + 1));
	bool one_way = ls_chance(500);

	for (unsigned a = 1; a <= LS_HOSTS; a++)
		for (unsigned b = 1; b <= LS_HOSTS; b++)
			if ((side >> a & 1) != (side >> b & 1) && (!one_way || (side >> a & 1)))
				ls->cut[a][b] = true;
	ls_trace("cut %x%s", side, one_way ? ", one way" : "");
	views_soon();
	ls_at(ls->now + (int64_t)ls_below(30 * NS_PER_S), on_heal, NULL, false, 0, NULL, 0);
}

static void one_cable(void)
{
	uint32_t a = any_host()->id, b = any_host()->id;

	if (a == b)
		return;
	ls->cut[a][b] = true;
	ls_trace("n%u does not reach n%u", a, b);
	views_soon();
}

static void hang(struct ls_host *h)
{
	int64_t ns = (int64_t)ls_below((uint64_t)(ls_chance(500) ? ls->timing.watchdog_ns : 4 * ls->timing.lease_ns));

	if (h->up && h->hung_until < ls->now + ns)
		h->hung_until = ls->now + ns;
	ls_trace("n%u hangs for %.3f s", h->id, (double)ns / NS_PER_S);
	views_soon();
}

static void fault(void)
{
	struct ls_host *h = any_host();

	switch (ls_below(10)) {
	case 0:
	case 1:
		cut();
		break;
	case 2:
		one_cable();
		break;
	case 3:
		hang(h);
		break;
	case 4:
		h->stopped_until = within(2 * ls->timing.expire_ns);
		ls_trace("n%u: the daemon stops until %.3f s", h->id, (double)h->stopped_until / NS_PER_S);
		break;
	case 5:
		ls_trace("n%u: the daemon ends", h->id);
		ls_daemon_end(h);
		ls_at(within(6 * NS_PER_S), on_daemon_start, NULL, false, h->id, NULL, 0);
		break;
	case 6:
		ls_power_off(h, "loses power");
		views_soon();
		break;
	case 7:
		ls->loss = (unsigned)ls_below(500);
		ls->late_ns = (int64_t)ls_below(5 * NS_PER_S) + NS_PER_MS;
		ls_trace("%u of 1000 messages are lost, others are up to %.3f s late", ls->loss,
			 (double)ls->late_ns / NS_PER_S);
		break;
	default:
		for (uint64_t i = 1 + ls_below(3); i > 0; i--)
			list_change(h);
		break;
	}
}

static void on_fault(struct ls_event *ev)
{
	(void)ev;
	fault();
	ls_at(ls->now + (int64_t)ls_below(6 * NS_PER_S), on_fault, NULL, false, 0, NULL, 0);
}

void ls_fault_begin(void)
{
	size_t n = 3 + ls_below(3);

	ls->n_lists = 1;
	ls->late_ns = 500 * NS_PER_MS;
	for (uint32_t i = 1; i <= n; i++)
		ls->lists[0][i - 1] = i;
	for (uint32_t i = 1; i <= LS_HOSTS; i++) {
		/* All of what two clocks may differ by, half of it each. */
		int64_t most = TIMING_RATE_PPM / 2;

		ls->hosts[i] = (struct ls_host){.id = i, .ppm = ls_chance(500) ? most : -most};
		ls->hosts[i].dog_ppm = ls_chance(500) ? most : -most;
		ls_boot(&ls->hosts[i]);
	}
	if (ls->o.break_margin)
		ls->timing.expire_ns -= ls->timing.margin_ns;
	ls_at(ls->now + (int64_t)ls_below(4 * NS_PER_S), on_fault, NULL, false, 0, NULL, 0);
}
