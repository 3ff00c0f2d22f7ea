/* SPDX-License-Identifier: Apache-2.0 */
/* Leases out of beats. */
#include "cluster/lease.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

#define SENT_MAX 128 /* beats whose time of sending is known: eight leases long, or less when views come in showers */

/* Something that is certain: its host has echoed no beat of another that it heard after begin, up to end. */
struct silence {
	int64_t begin_ns, end_ns; /* 0: nothing is known */
};

/* A host of the configuration. Its place in lease.hosts is its bit in a set. */
struct host {
	uint32_t id;
	bool present;         /* in the view */
	int64_t gone_ns;      /* else, since when */
	uint64_t incarnation; /* of its newest beat; 0: none since the start */
	uint64_t number;
	int64_t heard_ns; /* when that came; before the first one, since when we listen */

	/* What its newest beat said. */
	uint64_t list;                          /* the hosts that it counts with, those of them that we know */
	unsigned listed;                        /* all of them */
	bool same_list;                         /* they are ours */
	int64_t echoed_ns;                      /* when our newest beat was sent that it had heard; 0: none */
	struct silence silences[BUS_NODES_MAX]; /* of the host at that place */
};

struct lease {
	struct lease_options o;
	bool quorate, alone;
	struct host *hosts; /* ascending by id */
	unsigned n;
	unsigned self; /* our place; n: we are not configured */
	int64_t start_ns;
	uint64_t number; /* of our newest beat */
	int64_t sent_ns[SENT_MAX];
	int64_t last_beat_ns;
	bool hurry;      /* a beat is wanted before its time */
	int64_t base_ns; /* the lease counts from here; 0: none yet */
};

static uint64_t bit(unsigned place)
{
	return 1ULL << place;
}

static unsigned place_of(const struct lease *l, uint32_t id)
{
	for (unsigned i = 0; i < l->n; i++)
		if (l->hosts[i].id == id)
			return i;
	return l->n;
}

/* ---- majorities ---- */

/* The largest part of @set that is a majority for each of its members, by the list that the member counts with. Whoever
 * lacks a majority in a set lacks it in every smaller one. */
static uint64_t majority_in(const struct lease *l, uint64_t set)
{
	uint64_t before;

	if (l->o.break_majority)
		return set;
	do {
		before = set;
		for (unsigned i = 0; i < l->n; i++) {
			const struct host *h = &l->hosts[i];

			if ((set & bit(i)) && (unsigned)__builtin_popcountll(set & h->list) < h->listed / 2 + 1)
				set &= ~bit(i);
		}
	} while (set != before);
	return set;
}

/* ---- my own lease ---- */

static bool single(const struct lease *l)
{
	return l->quorate && l->n == 1 && l->self == 0;
}

static bool by_quorum(const struct lease *l)
{
	return l->quorate && l->n == 2 && l->alone;
}

/* The newest time at which a beat was sent that a majority has heard. */
static void base_update(struct lease *l)
{
	if (!l->quorate || l->self == l->n)
		return;
	for (unsigned i = 0; i < l->n; i++) {
		int64_t t = l->hosts[i].echoed_ns;
		uint64_t set = bit(l->self);

		if (i == l->self || t <= l->base_ns)
			continue;
		for (unsigned k = 0; k < l->n; k++)
			if (k != l->self && l->hosts[k].echoed_ns >= t)
				set |= bit(k);
		if (majority_in(l, set) & bit(l->self))
			l->base_ns = t;
	}
}

int64_t lease_until(const struct lease *l)
{
	if (single(l))
		return LEASE_FOREVER;
	return l->base_ns ? l->base_ns + l->o.timing.lease_ns : 0;
}

void lease_alone(struct lease *l, bool alone)
{
	l->alone = alone;
}

/* ---- views ---- */

static bool same_hosts(const struct lease *l, const struct bus_view *v)
{
	if (v->expected != l->n)
		return false;
	for (unsigned i = 0; i < l->n; i++)
		if (l->hosts[i].id != v->configured[i])
			return false;
	return true;
}

/* The list of hosts is another one: what was heard under the old one is forgotten, as if we had just started. */
static void hosts_take(struct lease *l, int64_t now, const struct bus_view *v)
{
	struct host *old = l->hosts;
	unsigned n_old = l->n;

	l->n = v->expected < BUS_NODES_MAX ? v->expected : BUS_NODES_MAX;
	l->hosts = xcalloc(l->n ? l->n : 1, sizeof(*l->hosts));
	l->self = l->n;
	for (unsigned i = 0; i < l->n; i++) {
		struct host *h = &l->hosts[i];

		*h = (struct host){.id = v->configured[i], .gone_ns = now, .heard_ns = now};
		for (unsigned k = 0; k < n_old; k++)
			if (old[k].id == h->id && !old[k].present)
				h->gone_ns = old[k].gone_ns;
		if (h->id == l->o.self)
			l->self = i;
	}
	if (l->self < l->n) {
		struct host *me = &l->hosts[l->self];

		me->list = l->n == BUS_NODES_MAX ? UINT64_MAX : bit(l->n) - 1;
		me->listed = l->n;
		me->same_list = true;
	}
	free(old);
}

void lease_view(struct lease *l, int64_t now_ns, const struct bus_view *v)
{
	/* Up to now the lease was for ever. Nobody counts on its end before a list of three hosts is taken, which comes
	 * after a majority of two, which is both, has taken that of two. */
	if (single(l))
		l->base_ns = now_ns;
	if (!same_hosts(l, v))
		hosts_take(l, now_ns, v);
	for (unsigned i = 0; i < l->n; i++) {
		bool present = false;

		for (size_t k = 0; k < v->n; k++)
			present |= v->members[k] == l->hosts[i].id;
		if (!present && l->hosts[i].present)
			l->hosts[i].gone_ns = now_ns;
		l->hosts[i].present = present;
	}
	/* One of two hosts goes on while corosync says so, although the log does not. */
	l->quorate = v->quorate || (v->expected == 2 && l->alone && v->service_quorate);
	l->hurry = true;
}

int64_t lease_gone_since(const struct lease *l, uint32_t node)
{
	unsigned i = place_of(l, node);

	if (i == l->n)
		return l->start_ns;
	return l->hosts[i].present ? -1 : l->hosts[i].gone_ns;
}

/* ---- sending ---- */

int64_t lease_due(const struct lease *l)
{
	int64_t rest = l->hurry ? l->o.timing.beat_ns / 8 : l->o.timing.beat_ns;

	if (!l->quorate || l->self == l->n || l->n == 1)
		return -1;
	return l->number ? l->last_beat_ns + rest : l->start_ns;
}

size_t lease_beat(struct lease *l, int64_t now_ns, uint8_t buf[BEAT_SIZE_MAX])
{
	struct beat b = {.incarnation = l->o.incarnation, .n = l->n};
	int64_t due = lease_due(l);

	if (due < 0 || now_ns < due)
		return 0;
	b.number = ++l->number;
	l->sent_ns[l->number % SENT_MAX] = now_ns;
	l->last_beat_ns = now_ns;
	l->hurry = false;
	if (by_quorum(l))
		l->base_ns = now_ns;
	for (unsigned i = 0; i < l->n; i++) {
		const struct host *h = &l->hosts[i];
		int64_t age = (now_ns - h->heard_ns) / NS_PER_MS;

		b.entries[i] = (struct beat_entry){h->id, h->incarnation, h->number,
						   (uint32_t)(age < 0            ? 0
							      : age > UINT32_MAX ? UINT32_MAX
										 : age)};
	}
	b.entries[l->self] = (struct beat_entry){l->o.self, l->o.incarnation, l->number, 0};
	return beat_encode(&b, buf);
}

/* ---- hearing ---- */

/* When our beat was sent that @e names; 0: it names none of this daemon, or one from so long ago that it is forgotten.
 */
static int64_t sent_at(const struct lease *l, const struct beat_entry *e)
{
	if (e->incarnation != l->o.incarnation || e->number > l->number || l->number - e->number >= SENT_MAX)
		return 0;
	return l->sent_ns[e->number % SENT_MAX];
}

/* Another list of hosts than in the beat before: what was known of its sender does not go on. */
static void list_take(struct lease *l, struct host *h, const struct beat *b)
{
	uint64_t list = 0;

	for (size_t i = 0; i < b->n; i++) {
		unsigned place = place_of(l, b->entries[i].node);

		if (place < l->n)
			list |= bit(place);
	}
	if (list != h->list || b->n != h->listed) {
		memset(h->silences, 0, sizeof(h->silences));
		h->echoed_ns = 0;
	}
	h->list = list;
	h->listed = (unsigned)b->n;
	h->same_list = b->n == l->n && (unsigned)__builtin_popcountll(list) == l->n;
}

/* @e: for its age the sender had heard nothing, when it had heard that beat of ours which was sent at @sent. Our clock
 * may be the slower one. Two statements that meet are one. */
static void silence_take(struct silence *s, const struct beat_entry *e, int64_t now, int64_t sent)
{
	int64_t age = e->age_ms * NS_PER_MS;
	struct silence x = {now - (age - timing_drift(age)), sent};

	if (x.begin_ns > x.end_ns)
		return;
	if (s->end_ns && x.begin_ns <= s->end_ns && s->begin_ns <= x.end_ns) {
		s->begin_ns = x.begin_ns < s->begin_ns ? x.begin_ns : s->begin_ns;
		s->end_ns = x.end_ns > s->end_ns ? x.end_ns : s->end_ns;
	} else if (x.end_ns > s->end_ns) {
		*s = x;
	}
}

static void beat_take(struct lease *l, int64_t now, unsigned from, const struct beat *b)
{
	struct host *h = &l->hosts[from];
	int64_t sent = 0;

	if (b->incarnation == h->incarnation && b->number <= h->number)
		return; /* again, or late: the newer one said more */
	h->incarnation = b->incarnation;
	h->number = b->number;
	h->heard_ns = now;
	list_take(l, h, b);
	for (size_t i = 0; i < b->n; i++)
		if (b->entries[i].node == l->o.self)
			sent = sent_at(l, &b->entries[i]);
	if (!sent)
		return; /* it may be as old as it likes */
	if (l->o.break_arrival)
		h->echoed_ns = now;
	else if (sent > h->echoed_ns)
		h->echoed_ns = sent;
	for (size_t i = 0; i < b->n; i++) {
		unsigned place = place_of(l, b->entries[i].node);

		if (place < l->n && place != from)
			silence_take(&h->silences[place], &b->entries[i], now, sent);
	}
	base_update(l);
}

int lease_heard(struct lease *l, int64_t now_ns, uint32_t from, const void *data, size_t size, struct err *e)
{
	unsigned place = place_of(l, from);
	struct beat b;

	if (beat_decode(data, size, &b, e) < 0)
		return -1;
	if (place < l->n && place != l->self)
		beat_take(l, now_ns, place, &b);
	return 0;
}

/* ---- the death of others ---- */

/* What is known of the silence of the host at @of towards the one at @i. */
static struct silence silence_at(const struct lease *l, unsigned i, unsigned of, int64_t now)
{
	if (i == l->self)
		return (struct silence){l->hosts[of].heard_ns, now};
	return l->hosts[i].silences[of];
}

/* May this host say anything of the death of the one at @of? */
static bool judges(const struct lease *l, unsigned of)
{
	return of < l->n && of != l->self && l->self < l->n && l->n > 2;
}

/* Does a majority, this host among it, state a silence of the host at @of from @begin or before to @end or later? */
static bool silent(const struct lease *l, int64_t now, unsigned of, int64_t begin, int64_t end)
{
	uint64_t set = 0;

	for (unsigned i = 0; i < l->n; i++) {
		struct silence s = silence_at(l, i, of, now);

		if (i != of && s.end_ns && s.begin_ns <= begin && s.end_ns >= end)
			set |= bit(i);
	}
	return majority_in(l, set) & bit(l->self);
}

int64_t lease_dead_upto(const struct lease *l, int64_t now_ns, uint32_t node, const struct timing *t)
{
	unsigned of = place_of(l, node);
	int64_t upto = -1;

	for (unsigned i = 0; judges(l, of) && i < l->n; i++) {
		int64_t end = silence_at(l, i, of, now_ns).end_ns;

		if (i != of && end > upto && silent(l, now_ns, of, end - t->expire_ns, end))
			upto = end;
	}
	return upto;
}

int64_t lease_dead_at(const struct lease *l, uint32_t node, const struct timing *t)
{
	unsigned of = place_of(l, node);
	int64_t at = -1;

	for (unsigned i = 0; judges(l, of) && i < l->n; i++) {
		struct silence s = silence_at(l, i, of, INT64_MAX);

		if (i != of && s.end_ns && (at < 0 || s.begin_ns + t->expire_ns < at) &&
		    silent(l, INT64_MAX, of, s.begin_ns, INT64_MIN))
			at = s.begin_ns + t->expire_ns;
	}
	return at;
}

/* ---- life ---- */

bool lease_settled(const struct lease *l)
{
	unsigned same = 0;

	for (unsigned i = 0; i < l->n; i++)
		same += l->hosts[i].same_list;
	return l->self < l->n && same >= l->n / 2 + 1;
}

struct lease *lease_new(const struct lease_options *o, int64_t now_ns)
{
	struct lease *l = xcalloc(1, sizeof(*l));

	assert(o->incarnation != 0);
	l->o = *o;
	l->start_ns = now_ns;
	l->hosts = xcalloc(1, sizeof(*l->hosts));
	return l;
}

void lease_free(struct lease *l)
{
	if (!l)
		return;
	free(l->hosts);
	free(l);
}
