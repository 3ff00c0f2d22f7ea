/* SPDX-License-Identifier: Apache-2.0 */
/* One member of a replicated table of keys and values, told by lines on stdin what to do; for tests and benchmarks. */

/*
 * replica-member --db PATH [--history N] [--alone ID] [--acked FILE]
 *
 * A line is a verb and its words; each answer is one line of JSON with the verb in "answer".
 *
 *   status                 replica_status(), and `keys` and `digest_kv`: SHA-256 of the table; `lease_ms`: what is left
 * of this host's lease, and `lease_age_ms`: the oldest that it ever was since the last status put KEY VALUE {"ok":
 * true} or {"ok": false, "code", "error"}, and `ms`: how long it took load CALLERS SIZE COUNT SECONDS KEYS that many
 * callers, each with one command of SIZE bytes under way, until COUNT commands are answered or SECONDS are over (0: no
 * limit). KEYS: so many keys in turn, 0: never one twice. A caller that is refused tries again 5 ms later. Answers with
 * counts and latencies. stop                   ends the load now fill MIB               state: values of 256 KiB check
 * FILE             are all the keys that FILE names there? {"missing": N, "keys": N} quit                   likewise
 * the end of stdin
 *
 * With --acked every command of a load that is acknowledged is written to FILE, a line each, before anything else
 * happens: what it names must never be missing, whatever is killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <openssl/rand.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/lease.h"
#include "cluster/replica.h"
#include "tests/unit/cluster/kv-machine.h"

#define GROUP "replica-test"
#define LATENCIES_MAX 4000000
#define CALLERS_MAX 4096
#define REFUSED_AGAIN (5 * NS_PER_MS)
#define FILL_VALUE (256U << 10)
#define FILL_CALLERS 8
#define TOKEN_MS 1000 /* of corosync in tests/integration/replica */

struct member;

struct caller {
	struct member *m;
	struct loop_timer *again; /* after a refusal */
	int64_t since;
	char key[48];
};

struct load {
	bool running, filling;
	size_t callers, size;
	uint64_t count, keys;
	int64_t begin_ns, end_ns;
	uint64_t begun, acked, refused, unknown;
	size_t open; /* callers with a command under way */
	uint32_t *us;
	size_t n_us;
	struct caller *list;
	struct loop_timer *limit;
};

struct member {
	struct loop *loop;
	struct replica *r;
	struct loop_io *input;
	char line[4096];
	size_t have;
	int acked_fd;
	char prefix[20]; /* of ids: of this life */
	uint64_t number;
	struct load load;
	struct timing timing;
	struct lease *lease;
	struct loop_timer *beat;
	int64_t lease_age_ns; /* the oldest since the last status */
};

static void answer(const char *verb, json_t *o)
{
	char *text;

	json_object_set_new(o, "answer", json_string(verb));
	text = json_dumps(o, JSON_COMPACT);
	printf("%s\n", text);
	fflush(stdout);
	free(text);
	json_decref(o);
}

static json_t *failure(const struct err *e)
{
	return json_pack("{s:b, s:s, s:s}", "ok", 0, "code", err_code_name(e->code), "error", e->text);
}

/* ---- lease ---- */

/* How long ago the beat was sent that the lease counts from; kept if it is the oldest. */
static void lease_look(struct member *m)
{
	int64_t until = lease_until(m->lease), age = clock_boot_ns() - (until - m->timing.lease_ns);

	if (until > 0 && until != LEASE_FOREVER && age > m->lease_age_ns)
		m->lease_age_ns = age;
}

static void on_beat(void *arg)
{
	struct member *m = arg;
	uint8_t buf[BEAT_SIZE_MAX];
	size_t size = lease_beat(m->lease, clock_boot_ns(), buf);
	int64_t due, now;

	if (size)
		replica_say(m->r, buf, size);
	due = lease_due(m->lease);
	now = clock_boot_ns();
	loop_timer_set(m->beat, due < 0 ? -1 : due > now ? due - now : 0);
}

static void on_heard(void *arg, uint32_t node, const uint8_t *data, size_t size)
{
	struct member *m = arg;
	struct err e = ERR_INIT;

	if (!m->lease)
		return;
	lease_look(m);
	if (lease_heard(m->lease, clock_boot_ns(), node, data, size, &e) < 0)
		log_warning("event=beat node=%u error=\"%s\"", node, e.text);
}

static void on_view(void *arg, const struct bus_view *view)
{
	struct member *m = arg;

	if (!m->lease && replica_self(m->r)) {
		struct lease_options o = {.self = replica_self(m->r), .timing = m->timing};

		if (RAND_bytes((unsigned char *)&o.incarnation, sizeof(o.incarnation)) != 1)
			abort();
		o.incarnation |= 1;
		m->lease = lease_new(&o, clock_boot_ns());
	}
	if (!m->lease)
		return;
	lease_view(m->lease, clock_boot_ns(), view);
	on_beat(m);
}

/* ---- status, put, check ---- */

static void status(struct member *m)
{
	json_t *o = replica_status(m->r);
	uint8_t digest[32];
	char hex[65];

	if (kv_machine.digest(replica_db(m->r), digest, NULL) < 0)
		memset(digest, 0, sizeof(digest));
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	json_object_set_new(o, "digest_kv", json_string(hex));
	json_object_set_new(o, "keys", json_integer(kv_count(replica_db(m->r))));
	json_object_set_new(o, "synced", json_boolean(replica_synced(m->r)));
	json_object_set_new(o, "leads", json_boolean(replica_leads(m->r)));
	if (m->lease) {
		lease_look(m);
		json_object_set_new(o, "lease_ms", json_integer((lease_until(m->lease) - clock_boot_ns()) / NS_PER_MS));
		json_object_set_new(o, "lease_age_ms", json_integer(m->lease_age_ns / NS_PER_MS));
		m->lease_age_ns = 0;
	}
	answer("status", o);
}

struct put {
	int64_t since;
};

static void put_done(void *arg, const json_t *result, const struct err *e)
{
	struct put *p = arg;
	json_t *o = result ? json_pack("{s:b}", "ok", 1) : failure(e);

	json_object_set_new(o, "ms", json_real((double)(clock_now_ns() - p->since) / NS_PER_MS));
	answer("put", o);
	free(p);
}

static json_t *command(struct member *m, const char *key, const char *value)
{
	char id[64];

	snprintf(id, sizeof(id), "%s-%" PRIu64, m->prefix, m->number++);
	return json_pack("{s:s, s:i, s:s, s:s}", "id", id, "v", 1, "key", key, "value", value);
}

static void put(struct member *m, const char *key, const char *value)
{
	struct put *p = xcalloc(1, sizeof(*p));
	json_t *c = command(m, key, value);
	struct err e = ERR_INIT;

	p->since = clock_now_ns();
	if (replica_propose(m->r, c, put_done, p, &e) < 0)
		put_done(p, NULL, &e);
	json_decref(c);
}

static void check(struct member *m, const char *path)
{
	_closefile_ FILE *f = fopen(path, "re");
	uint64_t missing = 0, keys = 0;
	char first[64] = "", key[64];

	while (f && fgets(key, sizeof(key), f)) {
		_free_ char *value = NULL;

		if (!strchr(key, '\n'))
			break; /* killed in the middle of a line */
		key[strcspn(key, "\n")] = 0;
		value = kv_get(replica_db(m->r), key);
		keys++;
		if (!*value && missing++ == 0)
			snprintf(first, sizeof(first), "%s", key);
	}
	answer("check",
	       json_pack("{s:I, s:I, s:s}", "keys", (json_int_t)keys, "missing", (json_int_t)missing, "first", first));
}

/* ---- load ---- */

static void caller_ask(struct caller *c);

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static double quantile_ms(const struct load *l, double q)
{
	return l->n_us ? l->us[(size_t)((double)(l->n_us - 1) * q)] / 1000.0 : 0;
}

static void load_end(struct member *m)
{
	struct load *l = &m->load;
	double seconds = (double)(clock_now_ns() - l->begin_ns) / NS_PER_S;
	json_t *o;

	qsort(l->us, l->n_us, sizeof(l->us[0]), by_size);
	o = json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "acked", (json_int_t)l->acked, "refused",
		      (json_int_t)l->refused, "unknown", (json_int_t)l->unknown, "seconds", seconds, "per_s",
		      (double)l->acked / seconds, "p50_ms", quantile_ms(l, 0.5), "p99_ms", quantile_ms(l, 0.99),
		      "max_ms", quantile_ms(l, 1));
	for (size_t i = 0; i < l->callers; i++)
		loop_timer_free(l->list[i].again);
	loop_timer_free(l->limit);
	free(l->list);
	free(l->us);
	answer(l->filling ? "fill" : "load", o);
	*l = (struct load){0};
}

static bool load_over(const struct load *l)
{
	return (l->count && l->begun >= l->count) || clock_now_ns() >= l->end_ns;
}

static void caller_done(void *arg, const json_t *result, const struct err *e)
{
	struct caller *c = arg;
	struct member *m = c->m;
	struct load *l = &m->load;

	l->open--;
	if (result) {
		int64_t us = (clock_now_ns() - c->since) / 1000;

		l->acked++;
		if (l->n_us < LATENCIES_MAX)
			l->us[l->n_us++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
		if (m->acked_fd >= 0 && !l->filling) {
			char line[64];
			int n = snprintf(line, sizeof(line), "%s\n", c->key);

			if (write(m->acked_fd, line, (size_t)n) != n)
				abort();
		}
	} else if (e->code == ERR_TIMEOUT) {
		l->unknown++;
	} else {
		l->refused++;
	}
	if (!l->running)
		return;
	if (load_over(l)) {
		if (l->open == 0)
			load_end(m);
	} else if (result) {
		caller_ask(c);
	} else {
		loop_timer_set(c->again, REFUSED_AGAIN);
	}
}

/* A value that makes the whole command @size bytes. */
static json_t *sized(struct member *m, struct caller *c)
{
	struct load *l = &m->load;
	size_t overhead =
		strlen("{\"id\":\"\",\"v\":1,\"key\":\"\",\"value\":\"\"}") + strlen(m->prefix) + 8 + strlen(c->key);
	size_t n = l->size > overhead ? l->size - overhead : 1;
	_free_ char *value = xcalloc(1, n + 1);

	memset(value, 'x', n);
	return command(m, c->key, value);
}

static void caller_ask(struct caller *c)
{
	struct member *m = c->m;
	struct load *l = &m->load;
	struct err e = ERR_INIT;
	json_t *o;

	if (l->filling)
		snprintf(c->key, sizeof(c->key), "fill-%" PRIu64, l->begun);
	else if (l->keys)
		snprintf(c->key, sizeof(c->key), "key-%" PRIu64, l->begun % l->keys);
	else
		snprintf(c->key, sizeof(c->key), "%s-%" PRIu64, m->prefix, l->begun);
	o = sized(m, c);
	l->open++;
	c->since = clock_now_ns();
	if (replica_propose(m->r, o, caller_done, c, &e) == 0) {
		l->begun++;
	} else {
		l->open--;
		l->refused++;
		loop_timer_set(c->again, REFUSED_AGAIN);
	}
	json_decref(o);
}

static void on_again(void *arg)
{
	struct caller *c = arg;

	if (!load_over(&c->m->load))
		caller_ask(c);
}

static void on_limit(void *arg)
{
	struct member *m = arg;

	if (m->load.open == 0)
		load_end(m);
	else
		loop_timer_set(m->load.limit, NS_PER_MS);
}

static void load(struct member *m, size_t callers, size_t size, uint64_t count, double seconds, uint64_t keys,
		 bool filling)
{
	struct load *l = &m->load;

	if (l->running || callers == 0 || callers > CALLERS_MAX) {
		answer("load", json_pack("{s:s}", "error", "no such load, or one is running"));
		return;
	}
	*l = (struct load){
		.running = true, .filling = filling, .callers = callers, .size = size, .count = count, .keys = keys};
	l->begin_ns = clock_now_ns();
	l->end_ns = seconds > 0 ? l->begin_ns + (int64_t)(seconds * NS_PER_S) : INT64_MAX;
	l->us = xcalloc(LATENCIES_MAX, sizeof(l->us[0]));
	l->list = xcalloc(callers, sizeof(l->list[0]));
	if (seconds > 0)
		l->limit = loop_timer_add(m->loop, (int64_t)(seconds * NS_PER_S), 0, on_limit, m);
	for (size_t i = 0; i < callers; i++) {
		l->list[i].m = m;
		l->list[i].again = loop_timer_add(m->loop, -1, 0, on_again, &l->list[i]);
	}
	for (size_t i = 0; i < callers && !load_over(l); i++)
		caller_ask(&l->list[i]);
}

static void stop(struct member *m)
{
	m->load.end_ns = 0;
	if (m->load.running && !m->load.limit)
		m->load.limit = loop_timer_add(m->loop, 0, 0, on_limit, m);
	else if (m->load.running)
		loop_timer_set(m->load.limit, 0);
}

/* ---- lines ---- */

static void on_line(struct member *m, char *line)
{
	char *save = NULL, *words[6] = {NULL};
	size_t n = 0;

	for (char *w = strtok_r(line, " ", &save); w && n < ARRAY_SIZE(words); w = strtok_r(NULL, " ", &save))
		words[n++] = w;
	if (n == 1 && !strcmp(words[0], "status"))
		status(m);
	else if (n == 3 && !strcmp(words[0], "put"))
		put(m, words[1], words[2]);
	else if (n == 6 && !strcmp(words[0], "load"))
		load(m, strtoul(words[1], NULL, 10), strtoul(words[2], NULL, 10), strtoull(words[3], NULL, 10),
		     strtod(words[4], NULL), strtoull(words[5], NULL, 10), false);
	else if (n == 2 && !strcmp(words[0], "fill"))
		load(m, FILL_CALLERS, FILL_VALUE, strtoull(words[1], NULL, 10) * ((1U << 20) / FILL_VALUE), 0, 0, true);
	else if (n == 1 && !strcmp(words[0], "stop"))
		stop(m);
	else if (n == 2 && !strcmp(words[0], "check"))
		check(m, words[1]);
	else if (n == 1 && !strcmp(words[0], "quit"))
		loop_stop(m->loop);
	else
		answer("error", json_pack("{s:s}", "error", "no such verb"));
}

static void on_input(void *arg, unsigned ready)
{
	struct member *m = arg;
	ssize_t n = read(STDIN_FILENO, m->line + m->have, sizeof(m->line) - 1 - m->have);
	char *end;

	(void)ready;
	if (n <= 0) {
		loop_stop(m->loop);
		return;
	}
	m->have += (size_t)n;
	m->line[m->have] = 0;
	while ((end = strchr(m->line, '\n'))) {
		*end = 0;
		on_line(m, m->line);
		m->have -= (size_t)(end + 1 - m->line);
		memmove(m->line, end + 1, m->have + 1);
	}
}

static int usage(void)
{
	fprintf(stderr, "usage: replica-member --db PATH [--history N] [--alone ID] [--acked FILE]\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"db", required_argument, NULL, 'd'},
						{"history", required_argument, NULL, 'h'},
						{"alone", required_argument, NULL, 'a'},
						{"acked", required_argument, NULL, 'k'},
						{0}};
	struct member m = {.acked_fd = -1};
	struct replica_options o = {.machine = &kv_machine, .heard = on_heard, .view = on_view, .arg = &m};
	uint32_t alone = 0, random = 0;
	struct err e = ERR_INIT;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'd')
			o.path = optarg;
		else if (opt == 'h')
			o.history = strtoull(optarg, NULL, 10);
		else if (opt == 'a')
			alone = (uint32_t)strtoul(optarg, NULL, 10);
		else if (opt == 'k')
			m.acked_fd = open(optarg, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		else
			return usage();
	}
	if (!o.path || RAND_bytes((unsigned char *)&random, sizeof(random)) != 1)
		return usage();
	snprintf(m.prefix, sizeof(m.prefix), "%08x", random);
	signal(SIGPIPE, SIG_IGN);
	m.loop = loop_new();
	timing_make(TOKEN_MS, &m.timing);
	m.beat = loop_timer_add(m.loop, -1, 0, on_beat, &m);
	o.bus = alone ? bus_local_new(alone) : bus_corosync_new(GROUP, 0);
	if (replica_new(m.loop, &o, &m.r, &e) < 0) {
		answer("start", failure(&e));
		return 1;
	}
	answer("start", json_pack("{s:b}", "ok", 1));
	m.input = loop_io_add(m.loop, STDIN_FILENO, LOOP_READ, on_input, &m);
	loop_run(m.loop);
	loop_io_free(m.input);
	loop_timer_free(m.beat);
	m.load.running = false;
	replica_free(m.r);
	lease_free(m.lease);
	for (size_t i = 0; i < m.load.callers; i++)
		loop_timer_free(m.load.list[i].again);
	loop_timer_free(m.load.limit);
	free(m.load.list);
	free(m.load.us);
	loop_free(m.loop);
	return 0;
}
