/* SPDX-License-Identifier: Apache-2.0 */
/* The world of the simulated move: time, chance, the promises that are checked after every event, one seed. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tests/sim/move-sim.h"

#define FAULTS_UNTIL 45000 /* ms of virtual time */
#define END_AT 240000

struct world *sim;
const char *const rule_names[RULE_MAX] = {"agree", "promise", "restart", "anew", "fence", "stale"};

/* ---- chance (splitmix64) ---- */

uint64_t sim_below(uint64_t n)
{
	uint64_t z = (sim->random += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return n ? (z ^ (z >> 31)) % n : 0;
}

bool sim_chance(unsigned percent)
{
	return sim_below(100) < percent;
}

/* ---- telling ---- */

void sim_trace(const char *fmt, ...)
{
	va_list ap;

	if (!sim->o.trace)
		return;
	printf("%8.3f s  ", (double)sim->now / 1000);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void sim_fail(const char *fmt, ...)
{
	va_list ap;

	if (sim->failure[0])
		return;
	va_start(ap, fmt);
	vsnprintf(sim->failure, sizeof(sim->failure), fmt, ap);
	va_end(ap);
	sim_trace("FAILURE %s", sim->failure);
}

/* ---- time ---- */

void sim_at(int64_t delay, void (*fn)(struct event *ev), int host, int life, int64_t a, int64_t b, json_t *command)
{
	if (sim->n_events == EVENTS_MAX)
		abort();
	sim->events[sim->n_events++] = (struct event){.at = sim->now + delay,
						      .order = sim->order++,
						      .fn = fn,
						      .host = host,
						      .life = life,
						      .a = a,
						      .b = b,
						      .command = command};
}

static struct event event_next(void)
{
	size_t first = 0;
	struct event ev;

	for (size_t i = 1; i < sim->n_events; i++)
		if (sim->events[i].at < sim->events[first].at ||
		    (sim->events[i].at == sim->events[first].at && sim->events[i].order < sim->events[first].order))
			first = i;
	ev = sim->events[first];
	sim->events[first] = sim->events[--sim->n_events];
	return ev;
}

/* ---- hosts ---- */

const struct row *row_of(const struct host *h)
{
	return &sim->history[h->seen - 1];
}

const struct row *row_now(void)
{
	return &sim->history[sim->n_history - 1];
}

int host_number(const struct host *h)
{
	return (int)(h - sim->hosts);
}

bool host_reachable(const struct host *h)
{
	return h->up && !h->cut;
}

bool host_quorate(const struct host *h)
{
	int n = 0;

	for (int i = 0; i < HOSTS; i++)
		n += host_reachable(&sim->hosts[i]);
	return host_reachable(h) && n > HOSTS / 2;
}

/* ---- promises ---- */

static int running(void)
{
	int n = 0;

	for (int i = 0; i < HOSTS; i++)
		n += sim->hosts[i].qemu == QEMU_RUNS;
	return n;
}

/* S1. That no memory older than the disks is resumed is checked where a QEMU is told to go on. */
static void check_always(void)
{
	if (running() > 1)
		sim_fail("two QEMUs run the guest");
}

static bool was_taken(enum move_step s)
{
	for (size_t i = 0; i < sim->n_history; i++)
		if (sim->history[i].step == s)
			return true;
	return false;
}

/* S3 and S4, and that there is an end. */
static void check_end(void)
{
	const struct row *r = row_now();

	if (!move_step_ended(r->step))
		sim_fail("the move is %s for ever", move_step_names[r->step]);
	if (running() != 1)
		sim_fail("nobody runs the guest for ever; the move is %s", move_step_names[r->step]);
	else if (sim->hosts[r->owner].qemu != QEMU_RUNS)
		sim_fail("somebody else than the owner n%d runs the guest", r->owner + 1);
	for (int s = 0; s < MOVE_STEP_MAX; s++)
		if (sim->acked[s] && !was_taken((enum move_step)s))
			sim_fail("%s was acknowledged and is lost", move_step_names[s]);
	if ((r->step == MOVE_FAILED || r->step == MOVE_CANCELLED) && !r->restart && !sim->src_harmed &&
	    sim->hosts[SRC].qemu_life != 1)
		sim_fail("the move is %s, and the guest was started afresh", move_step_names[r->step]);
}

/* ---- one seed ---- */

static void heal_event(struct event *ev)
{
	(void)ev;
	heal();
}

static void world_begin(struct world *w, const struct options *o)
{
	memset(w, 0, sizeof(*w));
	sim = w;
	w->o = *o;
	w->random = o->seed * 0x2545f4914f6cdd1dULL;
	w->wire = true;
	w->fencing = sim_chance(50);
	w->work = (int)sim_below(sim_chance(50) ? 20 : 400);
	for (int i = 0; i < HOSTS; i++) {
		w->hosts[i].up = true;
		w->hosts[i].life = 1;
	}
	order_begin();
	for (int i = 0; i < HOSTS; i++)
		daemon_start(&w->hosts[i]);
	w->hosts[SRC].qemu = QEMU_RUNS;
	w->hosts[SRC].qemu_life = 1;
	w->hosts[sim_below(HOSTS)].leads = true;
	faults_begin();
	sim_at(FAULTS_UNTIL, heal_event, 0, -1, 0, 0, NULL);
}

bool world_run(struct world *w, const struct options *o)
{
	world_begin(w, o);
	while (!w->failure[0] && w->n_events && w->now < END_AT) {
		struct event ev = event_next();

		w->now = ev.at;
		w->n_handled++;
		if (ev.life < 0 || ev.life == w->hosts[ev.host].life)
			ev.fn(&ev);
		else
			json_decref(ev.command);
		check_always();
	}
	if (!w->failure[0])
		check_end();
	for (size_t i = 0; i < w->n_events; i++)
		json_decref(w->events[i].command);
	order_end();
	return !w->failure[0];
}
