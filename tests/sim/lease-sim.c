/* SPDX-License-Identifier: Apache-2.0 */
/* Runs seeds of the simulated leases, stops at the first in which a host counts as dead whose guest may run. */
#include <assert.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tests/sim/lease-sim.h"

static struct ls_world world;
struct ls_world *ls = &world;

/* ---- chance ---- */

/* splitmix64 */
static uint64_t random_next(void)
{
	uint64_t z = (ls->random += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

uint64_t ls_below(uint64_t n)
{
	return n ? random_next() % n : 0;
}

bool ls_chance(unsigned per_1000)
{
	return ls_below(1000) < per_1000;
}

/* ---- telling ---- */

void ls_trace(const char *fmt, ...)
{
	va_list ap;

	if (!ls->o.trace)
		return;
	printf("%9.4f ", (double)ls->now / NS_PER_S);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

void ls_fail(const char *fmt, ...)
{
	va_list ap;

	if (ls->failure[0])
		return;
	va_start(ap, fmt);
	vsnprintf(ls->failure, sizeof(ls->failure), fmt, ap);
	va_end(ap);
}

/* ---- time ---- */

static bool before(const struct ls_event *a, const struct ls_event *b)
{
	return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void swap(size_t a, size_t b)
{
	struct ls_event t = ls->heap[a];

	ls->heap[a] = ls->heap[b];
	ls->heap[b] = t;
}

static void push(struct ls_event ev)
{
	size_t i = ls->heap_n++;

	if (ls->heap_n > ls->heap_cap) {
		ls->heap_cap = 2 * ls->heap_n;
		ls->heap = realloc(ls->heap, ls->heap_cap * sizeof(*ls->heap));
		if (!ls->heap)
			abort();
	}
	ev.order = ls->order++;
	ls->heap[i] = ev;
	for (; i > 0 && before(&ls->heap[i], &ls->heap[(i - 1) / 2]); i = (i - 1) / 2)
		swap(i, (i - 1) / 2);
}

static struct ls_event pop(void)
{
	struct ls_event ev = ls->heap[0];
	size_t i = 0;

	ls->heap[0] = ls->heap[--ls->heap_n];
	for (;;) {
		size_t least = i;

		for (size_t k = 2 * i + 1; k <= 2 * i + 2; k++)
			if (k < ls->heap_n && before(&ls->heap[k], &ls->heap[least]))
				least = k;
		if (least == i)
			return ev;
		swap(i, least);
		i = least;
	}
}

void ls_at(int64_t at, void (*fn)(struct ls_event *ev), const struct ls_host *h, bool daemon, uint32_t from,
	   const void *data, size_t size)
{
	struct ls_event ev = {.at = at < ls->now ? ls->now : at, .fn = fn, .from = from, .size = size};

	if (h) {
		ev.host = h->id;
		ev.boot = h->boots;
		ev.life = daemon ? h->lives : 0;
	}
	if (data) {
		ev.data = xcalloc(1, size);
		memcpy(ev.data, data, size);
	}
	push(ev);
}

/* ---- the promise ---- */

/* Whatever @x can prove must be true: no guest of the dead that was started before the proof's time runs. */
static void check(const struct ls_host *x)
{
	for (uint32_t id = 1; id <= LS_HOSTS; id++) {
		const struct ls_host *v = &ls->hosts[id];
		int64_t upto = lease_dead_upto(x->lease, ls_clock(x), id, &ls->timing);

		if (upto < 0)
			continue;
		ls->proofs++;
		if (v->guest && v->guest_since < ls_real(x, upto))
			ls_fail("host %u counts host %u as dead up to %.4f s, whose guest runs since %.4f s", x->id, id,
				(double)ls_real(x, upto) / NS_PER_S, (double)v->guest_since / NS_PER_S);
	}
}

/* ---- a seed ---- */

static void step(struct ls_event *ev)
{
	struct ls_host *h = ev->host ? &ls->hosts[ev->host] : NULL;
	int64_t wait = 0;

	ls->now = ev->at;
	if (h) {
		if (!h->up || ev->boot != h->boots || (ev->life && (ev->life != h->lives || !h->lease)))
			return;
		wait = h->hung_until;
		if (ev->life && h->stopped_until > wait)
			wait = h->stopped_until;
		if (wait > ls->now) { /* it comes to its turn when the host, or the daemon, goes on */
			struct ls_event later = *ev;

			later.at = wait;
			ev->data = NULL;
			push(later);
			return;
		}
	}
	ls->events++;
	ev->fn(ev);
	if (h && h->up && h->lease)
		check(h);
}

static bool run(const struct ls_options *o)
{
	*ls = (struct ls_world){.o = *o, .random = o->seed, .now = NS_PER_S};
	timing_make(1000, &ls->timing);
	ls_fault_begin();
	while (ls->heap_n && !ls->failure[0] && ls->heap[0].at < o->length_ns) {
		struct ls_event ev = pop();

		step(&ev);
		free(ev.data);
	}
	for (size_t i = 0; i < ls->heap_n; i++)
		free(ls->heap[i].data);
	free(ls->heap);
	for (int i = 1; i <= LS_HOSTS; i++)
		lease_free(ls->hosts[i].lease);
	return !ls->failure[0];
}

static int usage(void)
{
	fprintf(stderr,
		"usage: lease-sim [--seed N] [--count N] [--seconds N] [--trace] [--break RULE]\n"
		"  --seed N      the first seed (default 1)\n"
		"  --count N     so many seeds (default 1)\n"
		"  --seconds N   virtual time of each (default 60)\n"
		"  --trace       tell what happens\n"
		"  --break RULE  arrival: a lease counts from the echo's arrival; majority: one echo is enough;\n"
		"                margin: proofs have none; settled: hosts are added and removed at any time\n");
	return 2;
}

static int break_rule(struct ls_options *o, const char *rule)
{
	if (!strcmp(rule, "arrival"))
		o->break_arrival = true;
	else if (!strcmp(rule, "majority"))
		o->break_majority = true;
	else if (!strcmp(rule, "margin"))
		o->break_margin = true;
	else if (!strcmp(rule, "settled"))
		o->break_settled = true;
	else
		return -1;
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", required_argument, NULL, 's'},    {"count", required_argument, NULL, 'c'},
		{"seconds", required_argument, NULL, 'l'}, {"trace", no_argument, NULL, 't'},
		{"break", required_argument, NULL, 'b'},   {0}};
	struct ls_options o = {.seed = 1, .length_ns = 60 * NS_PER_S};
	uint64_t count = 1, events = 0, proofs = 0, expiries = 0, bites = 0, changes = 0;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 's')
			o.seed = strtoull(optarg, NULL, 10);
		else if (opt == 'c')
			count = strtoull(optarg, NULL, 10);
		else if (opt == 'l')
			o.length_ns = (int64_t)strtoull(optarg, NULL, 10) * NS_PER_S;
		else if (opt == 't')
			o.trace = true;
		else if (opt != 'b' || break_rule(&o, optarg) < 0)
			return usage();
	}
	for (uint64_t i = 0; i < count; i++, o.seed++) {
		bool ok = run(&o);

		events += ls->events;
		proofs += ls->proofs > 0;
		expiries += ls->expiries;
		bites += ls->bites;
		changes += ls->changes;
		if (!ok) {
			printf("seed %" PRIu64 ": %s\nreplay: %s --seed %" PRIu64 " --trace\n", o.seed, ls->failure,
			       argv[0], o.seed);
			return 1;
		}
	}
	printf("%" PRIu64 " seeds, %" PRIu64 " events; proofs in %" PRIu64 " of them; %" PRIu64
	       " leases ended, %" PRIu64 " hosts reset by their watchdogs, %" PRIu64 " changes of the list of hosts\n",
	       count, events, proofs, expiries, bites, changes);
	return 0;
}
