/* SPDX-License-Identifier: Apache-2.0 */
/* Faults of the simulated move: everything that can die or be cut, at any time and thickest at one step; then healing.
 */
#include <string.h>

#include "tests/sim/move-sim.h"

void host_down(struct host *h, const char *why)
{
	if (!h->up)
		return;
	sim_trace("n%d: is down (%s)", host_number(h) + 1, why);
	sim->src_harmed |= host_number(h) == SRC;
	h->up = h->daemon = h->leads = false;
	h->life++;
	qemu_set(h, QEMU_NONE, "with its host");
	h->side = (struct side){0};
	if (host_number(h) <= DST)
		wire_break();
}

void host_up(struct host *h)
{
	if (h->up)
		return;
	sim_trace("n%d: is up again", host_number(h) + 1);
	h->up = true;
	daemon_start(h);
}

/* ---- what heals by itself ---- */

static void up_again(struct event *ev)
{
	host_up(&sim->hosts[ev->host]);
}

static void daemon_again(struct event *ev)
{
	struct host *h = &sim->hosts[ev->host];

	if (h->up && !h->daemon)
		daemon_start(h);
}

static void uncut(struct event *ev)
{
	sim->hosts[ev->host].cut = false;
}

static void wire_again(struct event *ev)
{
	(void)ev;
	sim->wire = true;
}

/* ---- faults ---- */

static void kill_daemon(struct host *h)
{
	if (!h->daemon)
		return;
	sim_trace("n%d: its daemon is killed", host_number(h) + 1);
	h->daemon = false;
	sim_at(100 + (int64_t)sim_below(sim_chance(50) ? 10000 : 40000), daemon_again, host_number(h), h->life, 0, 0,
	       NULL);
}

static void kill_host(struct host *h)
{
	host_down(h, "crash");
	sim_at(2000 + (int64_t)sim_below(50000), up_again, host_number(h), -1, 0, 0, NULL);
}

static void kill_process(struct host *h, bool engine, bool guard)
{
	if (!h->side.exists)
		return;
	sim_trace("n%d: killed:%s%s", host_number(h) + 1, engine ? " engine" : "", guard ? " guard" : "");
	h->side.engine &= !engine;
	h->side.guard &= !guard;
}

static void kill_qemu(struct host *h)
{
	sim->src_harmed |= host_number(h) == SRC;
	qemu_set(h, QEMU_NONE, "killed");
}

static void cut_wire(void)
{
	sim_trace("the wire is cut");
	sim->wire = false;
	if (sim_chance(50))
		wire_break();
	sim_at((int64_t)sim_below(sim_chance(50) ? 500 : 40000), wire_again, 0, -1, 0, 0, NULL);
}

static void cut_host(struct host *h)
{
	sim_trace("n%d: is cut off", host_number(h) + 1);
	h->cut = true;
	if (host_number(h) <= DST && sim_chance(50)) /* one network for both */
		cut_wire();
	sim_at((int64_t)sim_below(sim_chance(50) ? 3000 : 60000), uncut, host_number(h), -1, 0, 0, NULL);
}

static void lead_anew(void)
{
	for (int i = 0; i < HOSTS; i++)
		sim->hosts[i].leads = false;
	sim->hosts[sim_below(HOSTS)].leads = true;
	if (sim_chance(30)) /* the old one does not know yet */
		sim->hosts[sim_below(HOSTS)].leads = true;
}

static void fault(struct event *ev)
{
	struct host *any = &sim->hosts[sim_below(HOSTS)], *side = &sim->hosts[sim_below(2)];

	(void)ev;
	if (sim->healed)
		return;
	switch (sim_below(12)) {
	case 0:
	case 1:
		kill_daemon(any);
		break;
	case 2:
		kill_host(any);
		break;
	case 3:
		kill_host(side);
		break;
	case 4:
		kill_process(side, true, false);
		break;
	case 5:
		kill_process(side, true, true);
		break;
	case 6:
		kill_process(side, false, true);
		break;
	case 7:
		if (sim_chance(50))
			kill_qemu(side);
		break;
	case 8:
		cut_host(any);
		break;
	case 9:
		cut_wire();
		if (sim_chance(40))
			kill_daemon(side);
		break;
	case 10:
		lead_anew();
		break;
	default:
		if (!sim->cancelled && sim_chance(30))
			order_cancel();
		sim->cancelled = true;
		break;
	}
}

static void fault_now_and_then(struct event *ev)
{
	fault(ev);
	if (!sim->healed)
		sim_at((int64_t)sim_below((uint64_t)ev->a), fault_now_and_then, 0, -1, ev->a, 0, NULL);
}

static void burst(void)
{
	if (sim->healed)
		return;
	for (uint64_t n = sim_below(5); n > 0; n--)
		sim_at((int64_t)sim_below(sim_chance(70) ? 150 : 2000), fault, 0, -1, 0, 0, NULL);
}

void faults_step(enum move_step s)
{
	if (s == sim->focus)
		burst();
}

void faults_rec(enum rec r)
{
	if (r == sim->focus_rec)
		burst();
}

void faults_begin(void)
{
	static const int64_t every[] = {3000, 12000, 60000, 1000000};
	int64_t e = every[sim_below(4)];

	sim->focus = (enum move_step)sim_below(MOVE_STEP_MAX);
	sim->focus_rec = (enum rec)sim_below(REC_NEVER + 1);
	sim_at((int64_t)sim_below((uint64_t)e), fault_now_and_then, 0, -1, e, 0, NULL);
}

void heal(void)
{
	sim_trace("everything heals");
	sim->healed = true;
	sim->wire = true;
	for (int i = 0; i < HOSTS; i++) {
		struct host *h = &sim->hosts[i];

		h->cut = h->leads = false;
		host_up(h);
		if (!h->daemon)
			daemon_start(h);
	}
	sim->hosts[sim_below(HOSTS)].leads = true;
}
