/* SPDX-License-Identifier: Apache-2.0 */
/* In the simulator of high availability: virtual time with clocks that run differently, chance, telling, one seed. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "cluster/state.h"
#include "tests/sim/ha-sim.h"

#define FAULT_TIME (17 * NS_PER_S) /* then everything heals */
#define FAULT_TIME_TWO (21 * NS_PER_S)
#define HEAL_LIMIT (150 * NS_PER_S) /* and must be at rest by then */
#define WALL_MS 1700000000000LL
#define SHAPES 4
#define SHAPES_TWO 2 /* behind them */
#define GUEST_MIB 1024
#define HOST_MIB 512 /* that placement leaves to the host */

struct ha_world *ha;

/* ---- chance (splitmix64) ---- */

uint64_t ha_random(void)
{
	uint64_t z = (ha->random += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

unsigned ha_below(unsigned n)
{
	return (unsigned)(ha_random() % n);
}

bool ha_chance(unsigned per_1000)
{
	return ha_below(1000) < per_1000;
}

int64_t ha_between(int64_t lo_ms, int64_t hi_ms)
{
	return lo_ms * NS_PER_MS + (int64_t)(ha_random() % (uint64_t)((hi_ms - lo_ms) * NS_PER_MS + 1));
}

int64_t ha_late(void)
{
	return ha_chance(970) ? ha_between(0, 2) : (int64_t)(ha_random() % (uint64_t)ha->timing.latency_ns);
}

/* The times that the code under test goes by: linked in place of timing_make(). */
void __wrap_timing_make(unsigned token_ms, struct timing *ret);
void __real_timing_make(unsigned token_ms, struct timing *ret);

void __wrap_timing_make(unsigned token_ms, struct timing *ret)
{
	__real_timing_make(token_ms, ret);
	if (ha->o.broken == BREAK_WATCHDOG)
		ret->expire_ns = ret->lease_ns;
}

/* What the code under test takes for chance. */
ssize_t getrandom(void *buffer, size_t length, unsigned flags)
{
	(void)flags;
	for (size_t i = 0; i < length; i++)
		((unsigned char *)buffer)[i] = (unsigned char)ha_random();
	return (ssize_t)length;
}

/* ---- time ---- */

int64_t ha_clock(const struct host *h)
{
	return h->skew_ns + ha->now + ha->now / 1000000 * h->ppm;
}

int64_t ha_real(const struct host *h, int64_t ns)
{
	return ns - ns / 1000000 * h->ppm;
}

/* All code under test reads the clock of the host that it runs on. */
int clock_gettime(clockid_t clock_id, struct timespec *tp)
{
	const struct host *h = ha ? ha->at : NULL;
	int64_t ns = ha ? ha->now : 0;

	if (clock_id == CLOCK_REALTIME)
		ns += WALL_MS * NS_PER_MS + (h ? h->wall_ns : 0);
	else if (h)
		ns = ha_clock(h);
	*tp = (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
	return 0;
}

static bool before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static size_t heap_push(struct event ev)
{
	size_t i = ha->heap_n++;

	if (ha->heap_n > ha->heap_cap) {
		struct event *grown = xcalloc(ha->heap_cap + 1024, sizeof(ev));

		if (i)
			memcpy(grown, ha->heap, i * sizeof(ev));
		free(ha->heap);
		ha->heap = grown;
		ha->heap_cap += 1024;
	}
	for (; i > 0 && before(&ev, &ha->heap[(i - 1) / 2]); i = (i - 1) / 2)
		ha->heap[i] = ha->heap[(i - 1) / 2];
	ha->heap[i] = ev;
	return i;
}

static struct event heap_pop(void)
{
	struct event top = ha->heap[0], last = ha->heap[--ha->heap_n];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < ha->heap_n) {
		if (child + 1 < ha->heap_n && before(&ha->heap[child + 1], &ha->heap[child]))
			child++;
		if (!before(&ha->heap[child], &last))
			break;
		ha->heap[i] = ha->heap[child];
		i = child;
	}
	ha->heap[i] = last;
	return top;
}

struct event *ha_at(int64_t delay_ns, void (*fn)(struct event *ev), struct host *h, bool daemon)
{
	size_t i = heap_push((struct event){.at = ha->now + (delay_ns > 0 ? delay_ns : 0),
					    .order = ha->order++,
					    .fn = fn,
					    .h = h,
					    .boot = h ? h->boot : 0,
					    .life = h && daemon ? h->life : 0,
					    .kernel = h != NULL});

	return &ha->heap[i];
}

/* ---- telling ---- */

static void say(const struct host *h, const char *fmt, va_list ap)
{
	printf("%9.4f  %s  ", (double)ha->now / NS_PER_S, h ? h->name : "--");
	vprintf(fmt, ap);
	putchar('\n');
}

void ha_trace(const struct host *h, const char *fmt, ...)
{
	va_list ap;

	if (!ha->o.trace)
		return;
	va_start(ap, fmt);
	say(h, fmt, ap);
	va_end(ap);
}

/* What the code under test logs. */
void log_line(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	(void)level;
	if (!ha->o.trace)
		return;
	va_start(ap, fmt);
	say(ha->at, fmt, ap);
	va_end(ap);
}

void ha_fail(const char *fmt, ...)
{
	va_list ap;

	if (ha->failure[0])
		return;
	va_start(ap, fmt);
	vsnprintf(ha->failure, sizeof(ha->failure), fmt, ap);
	va_end(ap);
	ha_trace(NULL, "FAILURE %s", ha->failure);
}

/* ---- where seeds begin: a few shapes of clusters, made once ---- */

static const struct shape {
	unsigned hosts, guests;
	unsigned memory;  /* MiB of each host; a guest has GUEST_MIB */
	bool devices;     /* fence devices */
	unsigned dogless; /* hosts without a watchdog, from the last one on */
} shapes[SHAPES + SHAPES_TWO] = {
	{3, 3, 8192, true, 0},  {3, 3, 8192, false, 0}, {3, 5, 2700, true, 1},
	{5, 5, 8192, false, 1}, {2, 3, 8192, true, 0},  {2, 3, 8192, false, 1},
};

static sqlite3 *databases[SHAPES + SHAPES_TWO][HOSTS_MAX + 1];

static void command_on_all(const struct shape *s, sqlite3 **db, const char *op, json_t *args)
{
	static unsigned number;
	char id[40];
	json_t *c;

	snprintf(id, sizeof(id), "20000000-0000-4000-8000-%012u", ++number);
	c = json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:o}", "op", op, "v", 2, "id", id, "time", (json_int_t)WALL_MS,
		      "by", "anna", "from", "local", "args", args);
	for (unsigned i = 1; i <= s->hosts; i++) {
		struct host h = {.db = db[i]};
		struct err e = ERR_INIT;
		json_t *r = ha_apply(&h, number, c, &e);

		if (!r)
			ha_fail("%s: %s", op, e.text);
		json_decref(r);
	}
	json_decref(c);
}

static void guests_make(const struct shape *s, sqlite3 **db)
{
	char name[16], uuid[40], node[16];

	for (unsigned g = 0, n = 0; g < s->guests; g++, n = n + 1 < s->hosts ? n + 1 : 0) {
		snprintf(name, sizeof(name), "g%u", g);
		snprintf(uuid, sizeof(uuid), "00000000-0000-4000-8000-%012u", g);
		snprintf(node, sizeof(node), "n%u", 1 + n);
		command_on_all(s, db, "vm.create",
			       json_pack("{s:{s:s, s:s, s:i, s:i}, s:s, s:b}", "definition", "name", name, "uuid", uuid,
					 "memory", GUEST_MIB, "vcpus", 1, "node", node, "start", 1));
		command_on_all(s, db, "vm.ha",
			       json_pack("{s:s, s:s, s:i, s:i}", "name", name, "mode", "restart", "priority",
					 100 + (int)g * 10, "max_restarts", 30));
	}
}

static void databases_make(const struct shape *s, sqlite3 **db)
{
	char name[16], device[16], print[65];

	for (unsigned i = 1; i <= s->hosts; i++)
		if (sqlite3_open(":memory:", &db[i]) != SQLITE_OK || state_machine.schema(db[i], NULL) < 0)
			abort();
	for (unsigned i = 1; i <= s->hosts; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		snprintf(device, sizeof(device), "bmc%u", i);
		snprintf(print, sizeof(print), "%064x", i);
		command_on_all(s, db, "node.join",
			       json_pack("{s:s, s:i, s:[], s:s}", "name", name, "id", (int)i, "addresses",
					 "fingerprint", print));
		command_on_all(s, db, "node.report",
			       json_pack("{s:s, s:{s:I, s:I}, s:i, s:{s:b}}", "node", name, "memory", "total",
					 (json_int_t)s->memory << 20, "free", (json_int_t)s->memory << 20, "cpus", 8,
					 "watchdog", "armed", 0));
		if (s->devices)
			command_on_all(
				s, db, "fence.device",
				json_pack("{s:s, s:s, s:{s:n}}", "name", device, "agent", "fence_lab", "nodes", name));
	}
	guests_make(s, db);
}

static void script(sqlite3 *db, const char *text)
{
	if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
		abort();
}

static void begin(void)
{
	const struct shape *s;

	if (ha->o.two)
		ha->shape = SHAPES + ha_chance(150);
	else
		ha->shape = ha_below(2 * SHAPES - 1) / 2; /* the largest costs most */
	s = &shapes[ha->shape];
	ha->n_hosts = s->hosts;
	ha->n_guests = s->guests;
	ha->slots = (s->memory - HOST_MIB) / GUEST_MIB;
	__real_timing_make(TOKEN_MS, &ha->timing);
	if (!databases[ha->shape][1])
		databases_make(s, databases[ha->shape]);
	for (unsigned i = 1; i <= ha->n_hosts; i++) {
		struct host *h = &ha->hosts[i];
		int64_t most = TIMING_RATE_PPM / 2;

		h->n = i;
		snprintf(h->name, sizeof(h->name), "n%u", i);
		snprintf(h->d.identity.node, sizeof(h->d.identity.node), "n%u", i);
		h->d.identity.id = i;
		h->ppm = ha_chance(500) ? most : -most;
		h->dog_ppm = ha_chance(500) ? most : -most;
		h->wall_ns = ha_between(-50, 50);
		h->dog_fitted = i + s->dogless <= ha->n_hosts;
		h->db = databases[ha->shape][i];
		script(h->db, "SAVEPOINT seed");
		ha_boot(h);
		ha->device[i] = s->devices ? DEVICE_OK : DEVICE_NONE;
	}
	ha_faults_begin();
	ha_pair_begin();
}

static void end(void)
{
	for (unsigned i = 1; i <= ha->n_hosts; i++) {
		struct host *h = &ha->hosts[i];

		ha->at = h;
		ha_daemon_kill(h);
		script(h->db, "ROLLBACK TO seed; RELEASE seed");
	}
	ha->at = NULL;
	ha_pair_end();
	while (ha->heap_n)
		free(heap_pop().p);
	free(ha->heap);
	for (size_t i = 0; i < ha->log_n; i++)
		json_decref(ha->log[i]);
}

static void event_run(void)
{
	struct event ev = heap_pop();
	const struct host *h = ev.h;

	ha->now = ev.at;
	if (h && ((ev.boot && ev.boot != h->boot) || (ev.life && (ev.life != h->life || !h->up)))) {
		free(ev.p);
		return;
	}
	if (h && ev.kernel && h->hung_until > ha->now) { /* its turn comes when the host goes on */
		ev.at = h->hung_until;
		heap_push(ev);
		return;
	}
	ha->at = ev.h;
	ev.fn(&ev);
	ha->at = NULL;
	free(ev.p);
	ha->events++;
	ha_check_now();
}

bool ha_run(struct ha_world *w, const struct ha_options *o)
{
	int64_t faults = o->two ? FAULT_TIME_TWO : FAULT_TIME;

	*w = (struct ha_world){.o = *o, .random = o->seed, .now = NS_PER_S};
	ha = w;
	begin();
	while (w->heap_n && !w->failure[0]) {
		if (!w->healing && w->heap[0].at > faults) {
			w->now = faults;
			ha_heal();
		}
		if (w->heap[0].at > faults + HEAL_LIMIT)
			break;
		event_run();
		if (w->healing && w->now > w->rest_at) {
			w->rest_at = w->now + NS_PER_S / 2;
			if (w->now > faults + 2 * NS_PER_S && ha_at_rest())
				break;
		}
	}
	if (!w->failure[0])
		ha_check_end();
	end();
	return !w->failure[0];
}
