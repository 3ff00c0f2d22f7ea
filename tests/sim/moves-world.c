/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated world of moves: virtual time, chance, the ordered log that hosts apply late, faults, promises. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "cluster/machine.h"
#include "cluster/sql.h"
#include "cluster/state.h"
#include "tests/sim/moves-sim.h"

#define FAULT_TIME (40 * NS_PER_S) /* then everything heals */
#define HEAL_LIMIT (150 * NS_PER_S)
#define WALL_MS 1700000000000LL

struct msim *msim;

/* ---- chance (splitmix64) ---- */

uint64_t msim_random(void)
{
	uint64_t z = (msim->random += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

unsigned msim_below(unsigned n)
{
	return (unsigned)(msim_random() % n);
}

int64_t msim_between(int64_t lo_ms, int64_t hi_ms)
{
	return lo_ms * NS_PER_MS + (int64_t)(msim_random() % (uint64_t)((hi_ms - lo_ms) * NS_PER_MS + 1));
}

/* ---- time ---- */

/* All code under test reads this clock. */
int clock_gettime(clockid_t clock_id, struct timespec *tp)
{
	int64_t ns = (msim ? msim->now : 0) + (clock_id == CLOCK_REALTIME ? WALL_MS * NS_PER_MS : NS_PER_S);

	*tp = (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
	return 0;
}

static bool before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void heap_push(struct event ev)
{
	size_t i = msim->heap_n++;

	if (msim->heap_n > msim->heap_cap) {
		struct event *grown = xcalloc(msim->heap_cap + 1024, sizeof(ev));

		if (i)
			memcpy(grown, msim->heap, i * sizeof(ev));
		free(msim->heap);
		msim->heap = grown;
		msim->heap_cap += 1024;
	}
	for (; i > 0 && before(&ev, &msim->heap[(i - 1) / 2]); i = (i - 1) / 2)
		msim->heap[i] = msim->heap[(i - 1) / 2];
	msim->heap[i] = ev;
}

static struct event heap_pop(void)
{
	struct event top = msim->heap[0], last = msim->heap[--msim->heap_n];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < msim->heap_n) {
		if (child + 1 < msim->heap_n && before(&msim->heap[child + 1], &msim->heap[child]))
			child++;
		if (!before(&msim->heap[child], &last))
			break;
		msim->heap[i] = msim->heap[child];
		i = child;
	}
	msim->heap[i] = last;
	return top;
}

void msim_at(int64_t delay_ns, void (*fn)(struct event *ev), struct host *h, bool daemon, unsigned k, void *p)
{
	heap_push((struct event){.at = msim->now + delay_ns,
				 .order = msim->order++,
				 .fn = fn,
				 .h = h,
				 .boot = h ? h->boot : 0,
				 .life = h && daemon ? h->life : 0,
				 .k = k,
				 .p = p});
}

/* ---- telling ---- */

static void say(const struct host *h, const char *fmt, va_list ap)
{
	printf("%10.3f ms  %s  ", (double)msim->now / NS_PER_MS, h ? h->d.identity.node : "--");
	vprintf(fmt, ap);
	putchar('\n');
}

void msim_trace(const struct host *h, const char *fmt, ...)
{
	va_list ap;

	if (!msim->o.trace)
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
	if (!msim->o.trace)
		return;
	va_start(ap, fmt);
	say(NULL, fmt, ap);
	va_end(ap);
}

void msim_fail(const char *fmt, ...)
{
	va_list ap;

	if (msim->failure[0])
		return;
	va_start(ap, fmt);
	vsnprintf(msim->failure, sizeof(msim->failure), fmt, ap);
	va_end(ap);
	msim_trace(NULL, "FAILURE %s", msim->failure);
}

/* ---- the log ---- */

bool msim_present(const struct host *h)
{
	return h->power && h->up && !h->cut;
}

bool msim_quorate(const struct host *h)
{
	unsigned n = 0;

	for (unsigned i = 1; i <= HOSTS; i++)
		n += msim_present(&msim->hosts[i]);
	return msim_present(h) && n > HOSTS / 2;
}

struct sqlite3 *replica_db(struct replica *r)
{
	return ((struct host *)(void *)r)->db;
}

bool replica_synced(const struct replica *r)
{
	const struct host *h = (const void *)r;

	/* Who applies slowly is still synced; who has just come back is not before it has seen everything. */
	return msim_quorate(h) && h->applied + 3 >= msim->log_n;
}

bool replica_leads(const struct replica *r)
{
	const struct host *h = (const void *)r;

	return msim->leader == h->n && msim_quorate(h);
}

bool replica_member(const struct replica *r, uint32_t node)
{
	return msim_quorate((const void *)r) && node >= 1 && node <= HOSTS && msim_present(&msim->hosts[node]);
}

static void applied(struct host *h, const json_t *command, const json_t *result, const struct err *e)
{
	const char *id = json_string_value(json_object_get(command, "id"));

	for (size_t i = 0; i < PENDING_MAX; i++) {
		struct pending p = h->pending[i];

		if (!p.used || strcmp(p.id, id) != 0)
			continue;
		h->pending[i].used = false;
		if (p.done)
			p.done(p.arg, result, e);
	}
	if (!e)
		msim_look_soon(h);
}

static void script(sqlite3 *db, const char *text)
{
	if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
		abort();
}

/* Apply one command on one host. */
static json_t *apply(struct host *h, size_t index, const json_t *command, struct err *e)
{
	json_t *result = NULL;
	int r;

	script(h->db, "SAVEPOINT command");
	r = state_machine.apply(h->db, index, command, &result, e);
	script(h->db, r < 0 ? "ROLLBACK TO command; RELEASE command" : "RELEASE command");
	if (e->code == ERR_SYSTEM)
		msim_fail("a command fails on one host: %s", e->text);
	return r < 0 ? NULL : result;
}

static void apply_next(struct event *ev)
{
	struct host *h = ev->h;
	const json_t *command;
	struct err e = ERR_INIT;
	json_t *result;

	h->applying = false;
	if (!msim_quorate(h) || h->applied >= msim->log_n)
		return;
	command = msim->log[h->applied];
	result = apply(h, 100 + h->applied, command, &e);
	h->applied++;
	msim_trace(h, "applied %zu %s %s: %s", h->applied, json_string_value(json_object_get(command, "op")),
		   json_string_value(json_object_get(json_object_get(command, "args"), "step"))
			   ? json_string_value(json_object_get(json_object_get(command, "args"), "step"))
			   : "",
		   result ? "done" : e.text);
	msim_point();
	applied(h, command, result, result ? NULL : &e);
	json_decref(result);
	msim_log_wake();
}

void msim_log_wake(void)
{
	for (unsigned i = 1; i <= HOSTS; i++) {
		struct host *h = &msim->hosts[i];

		if (h->applying || !msim_quorate(h) || h->applied >= msim->log_n)
			continue;
		h->applying = true;
		msim_at(msim->now < h->slow_until ? msim_between(100, 1500) : msim_between(0, 5), apply_next, h, true,
			0, NULL);
	}
}

/* Who leads now; and everybody hears of the change. */
static void elect(struct event *ev)
{
	(void)ev;
	if (!msim->leader || !msim_quorate(&msim->hosts[msim->leader])) {
		msim->leader = 0;
		for (unsigned i = 1; i <= HOSTS && !msim->leader; i++)
			msim->leader = msim_quorate(&msim->hosts[i]) ? i : 0;
		if (msim->leader)
			msim_trace(&msim->hosts[msim->leader], "leads");
	}
	for (unsigned i = 1; i <= HOSTS; i++)
		msim_look_soon(&msim->hosts[i]);
}

/* Somebody came, went, was cut off. */
void msim_log_changed(void)
{
	msim_log_wake();
	msim_at(msim_between(50, 600), elect, NULL, false, 0, NULL);
}

static void append(struct event *ev)
{
	json_t *command = json_loads(ev->p, 0, NULL);

	/* What was sent in time is in the order even if its sender dies; what a minority sends is not. */
	if (command && (!ev->h->power || !ev->h->up || msim_quorate(ev->h)) && msim->log_n < LOG_MAX - 1) {
		msim->log[msim->log_n++] = json_incref(command);
		if (msim_below(100) < 3)
			msim->log[msim->log_n++] = json_incref(command);
		msim_log_wake();
	} else if (command) {
		const struct err e = {.code = ERR_UNAVAILABLE, .text = "no quorum"};

		applied(ev->h, command, NULL, &e);
	}
	json_decref(command);
}

static struct pending *pending_new(struct host *h)
{
	for (size_t i = 0; i < PENDING_MAX; i++)
		if (!h->pending[i].used)
			return &h->pending[i];
	msim_fail("%s has too many proposals under way", h->d.identity.node);
	return &h->pending[0];
}

void msim_propose(struct host *h, const json_t *command, replica_done_fn *done, void *arg)
{
	const struct err e = {.code = ERR_UNAVAILABLE, .text = "not synced"};
	struct pending *p;

	if (!replica_synced(h->d.replica)) {
		if (done)
			done(arg, NULL, &e);
		return;
	}
	p = pending_new(h);
	*p = (struct pending){.used = true, .done = done, .arg = arg};
	snprintf(p->id, sizeof(p->id), "%s", json_string_value(json_object_get(command, "id")));
	/* Not bound to its sender's life: it may be on its way already. */
	msim_at(msim_between(1, msim_below(20) ? 12 : 300), append, h, false, 0, json_dumps(command, 0));
}

/* The daemon ends: nobody hears what becomes of its proposals. */
void msim_pending_drop(struct host *h)
{
	const struct err e = {.code = ERR_UNAVAILABLE, .text = "the daemon ends"};

	for (size_t i = 0; i < PENDING_MAX; i++) {
		struct pending p = h->pending[i];

		h->pending[i].used = false;
		if (p.used && p.done)
			p.done(p.arg, NULL, &e);
	}
}

/* ---- faults ---- */

enum fault_kind {
	FAULT_DAEMON,
	FAULT_POWER,
	FAULT_CUT,   /* from the ring */
	FAULT_WIRE,  /* between two hosts, for data */
	FAULT_CABLE, /* both */
	FAULT_SLOW,
	FAULT_ENGINE,
	FAULT_GUARD,
	FAULT_QEMU,
	FAULT_BREAK,
	FAULT_MAX
};
static const char *const fault_names[FAULT_MAX] = {
	"daemon killed", "power",          "cut", "wire", "cable", "slow", "engine killed", "engine and guard killed",
	"QEMU killed",   "breaks for good"};

static void power_on(struct event *ev)
{
	if (ev->h->power || ev->h->broken)
		return;
	ev->h->power = true;
	msim_trace(ev->h, "boots");
	msim_daemon_start(ev->h);
}

/* With it goes what it ran, or, as far as anybody knows, may have run. */
static bool loses_a_guest(const struct host *h)
{
	bool loses = h->qemu.exists;

	for (size_t i = 0; i < SIDES; i++)
		loses |= h->sides[i].used && h->sides[i].role == MOVER_DST;
	return loses;
}

void msim_power_off(struct host *h)
{
	msim_daemon_kill(h);
	msim->losses += loses_a_guest(h);
	h->power = false;
	h->boot++;
	h->qemu = (struct qemu){0};
	for (size_t i = 0; i < SIDES; i++)
		h->sides[i].used = false;
	msim_wire_changed();
	msim_log_changed();
	msim_at(msim_between(300, 25000), power_on, h, false, 0, NULL);
}

/* One at most: the others have quorum. Without fencing a move could not end then. */
static void fault_break(struct host *h)
{
	for (unsigned i = 1; i <= HOSTS; i++)
		if (msim->hosts[i].broken || !msim->fences)
			return;
	h->broken = true;
	msim_power_off(h);
}

static void daemon_again(struct event *ev)
{
	if (ev->h->power && !ev->h->up)
		msim_daemon_start(ev->h);
}

static void wire(unsigned a, unsigned b, bool cut)
{
	msim->wire_cut[a][b] = msim->wire_cut[b][a] = cut;
	msim_wire_changed();
}

static void wire_heals(struct event *ev)
{
	wire(ev->k / 10, ev->k % 10, false);
}

static void ring_heals(struct event *ev)
{
	ev->h->cut = false;
	msim_log_changed();
}

static void fault_cut(struct host *h)
{
	h->cut = true;
	msim_log_changed();
	msim_at(msim_between(200, 25000), ring_heals, h, false, 0, NULL);
}

static void fault_wire(unsigned a, unsigned b)
{
	wire(a, b, true);
	msim_at(msim_between(100, 25000), wire_heals, NULL, false, a * 10 + b, NULL);
}

/* An engine of some side, if there is one. */
static void fault_engine(struct host *h, bool guard)
{
	for (size_t i = 0; i < SIDES; i++)
		if (h->sides[i].used && h->sides[i].engine)
			msim_engine_kill(h, &h->sides[i], guard);
}

static void fault_fire(struct event *ev)
{
	struct host *h = ev->h;
	unsigned other = 1 + (h->n + msim_below(HOSTS - 1)) % HOSTS;

	if (msim->healing || !h->power)
		return;
	msim_trace(h, "FAULT %s", fault_names[ev->k]);
	switch (ev->k) {
	case FAULT_DAEMON:
		msim_daemon_kill(h);
		msim_log_changed();
		msim_at(msim_between(50, msim_below(2) ? 3000 : 25000), daemon_again, h, false, 0, NULL);
		break;
	case FAULT_POWER:
		msim_power_off(h);
		break;
	case FAULT_BREAK:
		fault_break(h);
		break;
	case FAULT_CUT:
		fault_cut(h);
		break;
	case FAULT_WIRE:
		fault_wire(h->n, other);
		break;
	case FAULT_CABLE:
		fault_cut(h);
		fault_wire(h->n, h->n % HOSTS + 1);
		fault_wire(h->n, (h->n + 1) % HOSTS + 1);
		break;
	case FAULT_SLOW:
		h->slow_until = msim->now + msim_between(500, 8000);
		break;
	case FAULT_QEMU:
		msim_qemu_die(h);
		break;
	default:
		fault_engine(h, ev->k == FAULT_GUARD);
		break;
	}
}

void msim_point(void)
{
	msim->points++;
	for (unsigned i = 0; i < msim->n_faults; i++) {
		struct fault *f = &msim->faults[i];

		if (f->done || f->point > msim->points)
			continue;
		f->done = true;
		/* At this very moment, or in the middle of what follows. */
		msim_at(msim_below(2) ? 0 : msim_between(0, 30), fault_fire, &msim->hosts[1 + msim_below(HOSTS)], false,
			f->kind, NULL);
	}
}

static void faults_plan(void)
{
	msim->n_faults = msim_below(FAULTS_MAX);
	for (unsigned i = 0; i < msim->n_faults; i++)
		msim->faults[i] = (struct fault){.kind = msim_below(FAULT_MAX), .point = 12 + msim_below(90)};
}

static void heal(void)
{
	msim->healing = true;
	msim_trace(NULL, "everything heals");
	for (unsigned i = 1; i <= HOSTS; i++) {
		struct host *h = &msim->hosts[i];

		h->cut = false;
		h->slow_until = 0;
		for (unsigned k = 1; k <= HOSTS; k++)
			msim->wire_cut[i][k] = false;
		if (!h->power)
			power_on(&(struct event){.h = h});
		else if (!h->up)
			msim_daemon_start(h);
	}
	msim_wire_changed();
	msim_log_changed();
}

/* ---- what somebody asks for ---- */

static void client(struct event *ev)
{
	struct host *h = &msim->hosts[1 + msim_below(HOSTS)];
	json_t *active, *command;
	char id[40];

	(void)ev;
	if (msim->healing)
		return;
	msim_at(msim_between(500, 12000), client, NULL, false, 0, NULL);
	if (!h->up || !replica_synced(h->d.replica))
		return;
	active = state_migration_list(h->db, true, NULL);
	snprintf(id, sizeof(id), "00000000-0000-4000-8000-%012u", ++msim->moves);
	if (json_array_size(active) && msim_below(4) == 0) {
		command = msim_command(h, "migration.cancel",
				       json_pack("{s:O}", "id", json_object_get(json_array_get(active, 0), "id")));
	} else {
		command = msim_command(h, "migration.create",
				       json_pack("{s:s, s:s, s:s}", "id", id, "vm", "web", "to",
						 msim->hosts[1 + msim_below(HOSTS)].d.identity.node));
	}
	msim_propose(h, command, NULL, NULL);
	json_decref(command);
	json_decref(active);
}

/* ---- promises ---- */

/* S1, after every event. */
static void check_now(void)
{
	unsigned running = 0;

	for (unsigned i = 1; i <= HOSTS; i++)
		running += msim->hosts[i].qemu.runs;
	if (running > 1)
		msim_fail("S1: %u QEMUs run the guest", running);
}

/* The first of those that are to be at rest. */
static const struct host *witness(void)
{
	return &msim->hosts[msim->hosts[1].broken ? 2 : 1];
}

/* The move @o as it was written down on host @h. */
static void check_move(const struct host *h, const json_t *o)
{
	const char *step = json_string_value(json_object_get(o, "step"));

	if (json_is_null(json_object_get(o, "finished")))
		msim_fail("S4: move %s is %s for ever", json_string_value(json_object_get(o, "id")), step);
	if (!strcmp(step, "done") && json_is_true(json_object_get(o, "cancel")))
		msim_fail("S3: a cancel was acknowledged and the guest moved");
	if (h == witness()) {
		msim->moved += !strcmp(step, "done");
		msim->cancelled += !strcmp(step, "cancelled");
	}
}

/* What of host @h is not as it should be when everything is healed and quiet; NULL: nothing. */
static const char *unrest(const struct host *h)
{
	if (!h->up || h->applied < msim->log_n)
		return "is not up to date";
	for (size_t k = 0; k < SIDES; k++)
		if (h->sides[k].used)
			return "has a side of a move left";
	if (!h->known || h->want.intent == AGENT_MOVING)
		return "takes the guest for moving";
	if (h->want.intent == AGENT_RUNNING && (!h->qemu.runs || h->qemu.epoch != h->want.epoch))
		return "owns the guest, which does not run";
	return h->want.intent == AGENT_ELSEWHERE && h->qemu.exists ? "has a QEMU of a guest that is not its own" : NULL;
}

static bool at_rest(void)
{
	for (unsigned i = 1; i <= HOSTS; i++)
		if (!msim->hosts[i].broken && unrest(&msim->hosts[i]))
			return false;
	return true;
}

static bool moves_at_rest(void)
{
	int64_t n = -1;

	return sql_number(witness()->db, NULL, &n, "SELECT count(*) FROM migration WHERE finished IS NULL") > 0 &&
	       n == 0;
}

static void check_end(void)
{
	uint8_t digest[2][32];
	json_t *o;
	size_t k;

	for (unsigned i = 1; i <= HOSTS; i++) {
		const struct host *h = &msim->hosts[i];
		json_t *list = h->broken ? NULL : state_migration_list(h->db, false, NULL);

		if (h->broken)
			continue;
		json_array_foreach (list, k, o)
			check_move(h, o);
		json_decref(list);
		state_machine.digest(h->db, digest[h != witness()], NULL);
		if (memcmp(digest[0], digest[h != witness()], 32) != 0)
			msim_fail("S3: hosts %u and %u have different states", witness()->n, i);
		if (unrest(h))
			msim_fail("S4: n%u %s", i, unrest(h));
	}
	if (msim->starts > 1 + msim->losses)
		msim_fail("S4: the guest was started afresh %u times after %u deaths", msim->starts - 1, msim->losses);
}

/* ---- one seed ---- */

static sqlite3 *databases[HOSTS + 1];

static void command_on_all(const char *op, json_t *args)
{
	static unsigned number;
	json_t *c;
	char id[40];

	snprintf(id, sizeof(id), "20000000-0000-4000-8000-%012u", ++number);
	c = json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:o}", "op", op, "v", 1, "id", id, "time", (json_int_t)WALL_MS,
		      "by", "anna", "from", "local", "args", args);
	for (unsigned i = 1; i <= HOSTS; i++) {
		struct host h = {.db = databases[i]};
		struct err e = ERR_INIT;
		json_t *r = apply(&h, number, c, &e);

		if (!r)
			msim_fail("%s: %s", op, e.text);
		json_decref(r);
	}
	json_decref(c);
}

/* Three hosts and a guest that shall run on the first: where every seed begins. */
static void databases_make(void)
{
	char name[8], print[65];

	for (unsigned i = 1; i <= HOSTS; i++)
		if (sqlite3_open(":memory:", &databases[i]) != SQLITE_OK ||
		    state_machine.schema(databases[i], NULL) < 0)
			abort();
	for (unsigned i = 1; i <= HOSTS; i++) {
		snprintf(name, sizeof(name), "n%c", (char)('0' + i));
		snprintf(print, sizeof(print), "%064x", i);
		command_on_all("node.join", json_pack("{s:s, s:i, s:[], s:s}", "name", name, "id", (int)i, "addresses",
						      "fingerprint", print));
		command_on_all("node.report", json_pack("{s:s, s:{s:I, s:I}, s:i}", "node", name, "memory", "total",
							(json_int_t)1 << 32, "free", (json_int_t)1 << 31, "cpus", 4));
	}
	command_on_all("vm.create", json_pack("{s:{s:s, s:s, s:i, s:i}, s:s, s:b}", "definition", "name", "web", "uuid",
					      "00000000-0000-4000-8000-000000000000", "memory", 64, "vcpus", 1, "node",
					      "n1", "start", 1));
}

static void begin(void)
{
	if (!databases[1])
		databases_make();
	for (unsigned i = 1; i <= HOSTS; i++) {
		struct host *h = &msim->hosts[i];

		snprintf(h->d.identity.node, sizeof(h->d.identity.node), "n%c", (char)('0' + i));
		h->d.identity.id = i;
		h->n = i;
		h->power = true;
		h->boot = h->life = 1;
		h->db = databases[i];
		h->d.replica = (void *)h;
		script(h->db, "SAVEPOINT seed");
		msim_daemon_start(h);
	}
	msim->fences = msim_below(2);
	faults_plan();
	msim_at(msim_between(300, 3000), client, NULL, false, 0, NULL);
	msim_log_changed();
}

static void end(void)
{
	for (unsigned i = 1; i <= HOSTS; i++) {
		struct host *h = &msim->hosts[i];

		if (h->up)
			msim_daemon_kill(h);
		script(h->db, "ROLLBACK TO seed; RELEASE seed");
	}
	while (msim->heap_n)
		free(heap_pop().p);
	free(msim->heap);
	for (size_t i = 0; i < msim->log_n; i++)
		json_decref(msim->log[i]);
}

static void event_run(void)
{
	struct event ev = heap_pop();

	msim->now = ev.at;
	if (!ev.h || (ev.boot == ev.h->boot && (!ev.life || (ev.life == ev.h->life && ev.h->up))) ||
	    ev.fn == power_on || ev.fn == append || ev.fn == ring_heals)
		ev.fn(&ev);
	free(ev.p);
	msim->events++;
	check_now();
}

bool msim_run(struct msim *m, const struct msim_options *o)
{
	*m = (struct msim){.o = *o, .random = o->seed};
	msim = m;
	begin();
	while (m->heap_n && !m->failure[0]) {
		if (!m->healing && m->heap[0].at > FAULT_TIME)
			heal();
		if (m->heap[0].at > FAULT_TIME + HEAL_LIMIT)
			break;
		event_run();
		if (m->healing && m->heap_n && m->heap[0].at > FAULT_TIME + 2 * NS_PER_S && at_rest() &&
		    moves_at_rest())
			break;
	}
	if (!m->failure[0])
		check_end();
	end();
	return !m->failure[0];
}
