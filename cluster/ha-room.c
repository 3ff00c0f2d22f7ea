/* SPDX-License-Identifier: Apache-2.0 */
/* Is there room for the guests of hosts that died? The rules of placement, as items and bins.
 *
 * What cluster/placement.c asks of a node for one guest is asked here of an assignment of many: memory promised and
 * really free, vcpus, CPU, networks, files, and the hard rules. Guests that must be together are one item; where one of
 * them lives on, that is the only bin. Of guests that must be apart no two go to one bin, nor to one that has such a
 * guest already. A guest that is being moved has its memory on both hosts, as everywhere; if its source dies it is
 * counted as to be started, besides.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/ha-int.h"

#define NO_LIMIT (UINT64_MAX / HA_NODES_MAX) /* so that all of them can be summed up */

struct rule {
	bool apart;
	const size_t *guests; /* of the rule that are there */
	size_t n;
};

struct of_guest {
	size_t owner, at; /* nodes: who runs it, where it will be; HA_NONE */
	uint64_t suits;   /* nodes that have what it needs */
	bool runs;
	bool counts; /* needs a place if its owner dies */
	size_t item; /* of the search at hand; HA_NONE */
	unsigned *apart;
	size_t n_apart;
};

struct ha_room {
	const struct ha_input *in;
	struct of_guest *guests;
	struct rule *rules; /* the hard ones */
	size_t n_rules;
	size_t *members; /* what the rules point to */
	struct pack_bin bins[HA_NODES_MAX];
	uint64_t up, takes; /* nodes */
	/* of the search at hand */
	size_t *dead, n_dead; /* guests that need a place */
	size_t *leader;       /* of items that must be together; by place in dead[] */
	struct pack_item *items;
	unsigned *item_apart; /* what items point to */
	uint64_t *taken;
};

size_t ha_node_find(const struct ha_input *in, const char *name)
{
	for (size_t i = 0; name && i < in->n_nodes; i++)
		if (!strcmp(in->nodes[i].place.name, name))
			return i;
	return HA_NONE;
}

bool ha_node_takes(const struct ha_node *n)
{
	return n->life == HA_UP && n->place.up && !n->place.maintenance && !n->place.aside && !n->frozen;
}

bool ha_guest_runs(const struct ha_guest *g)
{
	return g->wanted || g->seen == HA_RUNNING || g->seen == HA_STARTING;
}

static bool has(uint64_t nodes, size_t i)
{
	return i != HA_NONE && (nodes >> i & 1);
}

static uint64_t take(uint64_t from, uint64_t what)
{
	return from > what ? from - what : 0;
}

uint64_t ha_node_free(const struct ha_input *in, size_t node)
{
	uint64_t ret = in->nodes[node].place.memory_free;

	for (size_t g = 0; g < in->n_guests; g++) {
		const struct ha_guest *guest = &in->guests[g];

		if (guest->wanted && guest->seen == HA_NOTHING && guest->place.owner &&
		    !strcmp(guest->place.owner, in->nodes[node].place.name))
			ret = take(ret, guest->place.memory);
	}
	return ret;
}

/* ---- made once ---- */

static void bins_make(struct ha_room *r)
{
	const struct ha_input *in = r->in;
	unsigned ratio = in->limits.place.vcpu_ratio;

	for (size_t i = 0; i < in->n_nodes; i++) {
		const struct ha_node *n = &in->nodes[i];

		r->bins[i].memory = take(n->place.memory_total, in->limits.place.memory_reserve);
		r->bins[i].vcpus = ratio ? (uint64_t)ratio * n->place.cores : NO_LIMIT;
		r->up |= n->life == HA_UP ? 1ULL << i : 0;
		r->takes |= ha_node_takes(n) ? 1ULL << i : 0;
	}
	for (size_t g = 0; g < in->n_guests; g++) {
		const struct placement_guest *p = &in->guests[g].place;
		size_t on[2] = {r->guests[g].owner, r->guests[g].at};

		for (int k = 0; r->guests[g].runs && k < 2; k++) {
			if (on[k] == HA_NONE || (k && on[1] == on[0]))
				continue;
			r->bins[on[k]].memory = take(r->bins[on[k]].memory, p->memory);
			if (ratio)
				r->bins[on[k]].vcpus = take(r->bins[on[k]].vcpus, p->vcpus);
		}
	}
	for (size_t i = 0; i < in->n_nodes; i++) {
		uint64_t left = ha_node_free(in, i);

		r->bins[i].memory = r->bins[i].memory < left ? r->bins[i].memory : left;
	}
}

/* It starts afresh, so it need not meet the CPU that it had. */
static uint64_t suits(const struct ha_input *in, const struct ha_guest *g, uint64_t nodes)
{
	struct placement_guest p = g->place;
	uint64_t ret = 0;

	p.owner = NULL;
	for (size_t i = 0; i < in->n_nodes; i++)
		if (has(nodes, i) && placement_suits(&p, &in->nodes[i].place))
			ret |= 1ULL << i;
	return ret;
}

static void guests_make(struct ha_room *r)
{
	for (size_t g = 0; g < r->in->n_guests; g++) {
		const struct ha_guest *guest = &r->in->guests[g];
		size_t to = ha_node_find(r->in, guest->to);

		r->guests[g] = (struct of_guest){
			.owner = ha_node_find(r->in, guest->place.owner),
			.runs = ha_guest_runs(guest),
			.counts = guest->wanted && guest->restart,
			.item = HA_NONE,
		};
		r->guests[g].at = to == HA_NONE ? r->guests[g].owner : to;
	}
}

struct name {
	const char *name;
	size_t guest;
};

static int name_order(const void *a, const void *b)
{
	return strcmp(((const struct name *)a)->name, ((const struct name *)b)->name);
}

static void rule_read(struct ha_room *r, const struct placement_rule *from, const struct name *names, size_t *n_members)
{
	struct rule *to = &r->rules[r->n_rules++];

	*to = (struct rule){.apart = from->apart, .guests = r->members + *n_members};
	for (const char *const *vm = from->vms; vm && *vm; vm++) {
		struct name key = {*vm, 0};
		const struct name *found = bsearch(&key, names, r->in->n_guests, sizeof(*names), name_order);
		size_t k = 0;

		while (found && k < to->n && to->guests[k] != found->guest)
			k++;
		if (!found || k < to->n)
			continue;
		r->members[(*n_members)++] = found->guest;
		to->n++;
		if (!to->apart)
			continue;
		struct of_guest *g = &r->guests[found->guest];

		g->apart = realloc(g->apart, (g->n_apart + 1) * sizeof(*g->apart));
		assert(g->apart);
		g->apart[g->n_apart++] = (unsigned)(r->n_rules - 1);
	}
}

static void rules_make(struct ha_room *r)
{
	const struct ha_input *in = r->in;
	struct name *names = xcalloc(in->n_guests + 1, sizeof(*names));
	size_t n = 0;

	for (size_t g = 0; g < in->n_guests; g++)
		names[g] = (struct name){in->guests[g].place.name, g};
	qsort(names, in->n_guests, sizeof(*names), name_order);
	for (size_t i = 0; i < in->n_rules; i++)
		for (const char *const *vm = in->rules[i].vms; vm && *vm; vm++)
			n++;
	r->members = xcalloc(n + 1, sizeof(*r->members));
	r->rules = xcalloc(in->n_rules + 1, sizeof(*r->rules));
	n = 0;
	for (size_t i = 0; i < in->n_rules; i++)
		if (in->rules[i].hard)
			rule_read(r, &in->rules[i], names, &n);
	free(names);
}

struct ha_room *ha_room_new(const struct ha_input *in)
{
	struct ha_room *r = xcalloc(1, sizeof(*r));
	size_t apart = 0;

	assert(in->n_nodes <= HA_NODES_MAX);
	r->in = in;
	r->guests = xcalloc(in->n_guests + 1, sizeof(*r->guests));
	guests_make(r);
	bins_make(r);
	rules_make(r);
	for (size_t g = 0; g < in->n_guests; g++) {
		if (r->guests[g].counts)
			r->guests[g].suits = suits(in, &in->guests[g], r->takes);
		apart += r->guests[g].n_apart;
	}
	r->dead = xcalloc(in->n_guests + 1, sizeof(*r->dead));
	r->leader = xcalloc(in->n_guests + 1, sizeof(*r->leader));
	r->items = xcalloc(in->n_guests + 1, sizeof(*r->items));
	r->item_apart = xcalloc(apart + 1, sizeof(*r->item_apart));
	r->taken = xcalloc(r->n_rules + 1, sizeof(*r->taken));
	return r;
}

void ha_room_free(struct ha_room *r)
{
	for (size_t g = 0; g < r->in->n_guests; g++)
		free(r->guests[g].apart);
	free(r->guests);
	free(r->rules);
	free(r->members);
	free(r->dead);
	free(r->leader);
	free(r->items);
	free(r->item_apart);
	free(r->taken);
	free(r);
}

uint64_t ha_room_up(const struct ha_room *r)
{
	return r->up;
}

void ha_room_count(struct ha_room *r, size_t guest, bool counts)
{
	const struct ha_guest *g = &r->in->guests[guest];

	r->guests[guest].counts = counts && g->wanted && g->restart;
}

uint64_t ha_room_demand(const struct ha_room *r, size_t node)
{
	uint64_t sum = 0;

	for (size_t g = 0; g < r->in->n_guests; g++)
		if (r->guests[g].counts && r->guests[g].owner == node)
			sum += r->in->guests[g].place.memory;
	return sum;
}

/* ---- one search ---- */

static size_t leader_of(struct ha_room *r, size_t d)
{
	while (r->leader[d] != d)
		d = r->leader[d] = r->leader[r->leader[d]];
	return d;
}

/* Guests that need a place: each an item at first, at its place in dead[]. */
static void items_begin(struct ha_room *r, uint64_t alive)
{
	r->n_dead = 0;
	for (size_t g = 0; g < r->in->n_guests; g++) {
		struct of_guest *o = &r->guests[g];

		o->item = HA_NONE;
		if (!o->counts || has(alive, o->owner))
			continue;
		o->item = r->n_dead;
		r->leader[r->n_dead] = r->n_dead;
		r->items[r->n_dead] = (struct pack_item){.memory = r->in->guests[g].place.memory,
							 .vcpus = r->in->guests[g].place.vcpus,
							 .bins = o->suits & alive};
		r->dead[r->n_dead++] = g;
	}
}

/* Where a guest is that lives on, as a bit; 0: it does not. */
static uint64_t lives_at(const struct ha_room *r, size_t g, uint64_t alive)
{
	const struct of_guest *o = &r->guests[g];

	return o->runs && o->item == HA_NONE && has(alive, o->owner) && o->at != HA_NONE ? 1ULL << o->at : 0;
}

static void together_apply(struct ha_room *r, const struct rule *rule, uint64_t alive)
{
	size_t first = HA_NONE;

	for (size_t i = 0; i < rule->n; i++) {
		size_t item = r->guests[rule->guests[i]].item;

		if (item == HA_NONE)
			continue;
		if (first != HA_NONE)
			r->leader[leader_of(r, item)] = leader_of(r, first);
		first = item;
		for (size_t k = 0; k < rule->n; k++) {
			uint64_t at = lives_at(r, rule->guests[k], alive);

			r->items[item].bins &= at ? at : UINT64_MAX;
		}
	}
}

/* Give an item a rule. One that has it already is of guests that must be together and apart at once. */
static void item_add_rule(struct pack_item *it, unsigned *apart, unsigned rule)
{
	for (size_t i = 0; i < it->n_apart; i++)
		if (apart[i] == rule)
			it->bins = 0;
	apart[it->n_apart++] = rule;
}

/* Sum up those that must be together in the item of their leader. */
static size_t items_join(struct ha_room *r)
{
	size_t n = 0, used = 0;
	size_t *first = xcalloc(r->n_dead + 1, sizeof(*first)); /* rule of an item, in item_apart */
	struct pack_item *items = xcalloc(r->n_dead + 1, sizeof(*items));

	for (size_t d = 0; d < r->n_dead; d++)
		if (leader_of(r, d) == d) {
			r->guests[r->dead[d]].item = n;
			items[n++] = (struct pack_item){.bins = UINT64_MAX};
		}
	for (size_t d = 0; d < r->n_dead; d++) {
		struct of_guest *o = &r->guests[r->dead[d]];

		o->item = r->guests[r->dead[leader_of(r, d)]].item;
		items[o->item].memory += r->items[d].memory;
		items[o->item].vcpus += r->items[d].vcpus;
		items[o->item].bins &= r->items[d].bins;
		first[o->item] += o->n_apart;
	}
	for (size_t i = 0; i < n; i++) {
		size_t rules = first[i];

		first[i] = used;
		items[i].apart = r->item_apart + used;
		used += rules;
	}
	for (size_t d = 0; d < r->n_dead; d++) {
		const struct of_guest *o = &r->guests[r->dead[d]];

		for (size_t k = 0; k < o->n_apart; k++)
			item_add_rule(&items[o->item], r->item_apart + first[o->item], o->apart[k]);
	}
	memcpy(r->items, items, n * sizeof(*items));
	free(items);
	free(first);
	return n;
}

static void rules_apply(struct ha_room *r, uint64_t alive)
{
	for (size_t i = 0; i < r->n_rules; i++) {
		const struct rule *rule = &r->rules[i];

		r->taken[i] = 0;
		if (!rule->apart)
			together_apply(r, rule, alive);
		for (size_t k = 0; rule->apart && k < rule->n; k++)
			r->taken[i] |= lives_at(r, rule->guests[k], alive);
	}
}

enum pack_answer ha_room_find(struct ha_room *r, uint64_t dead, uint64_t *work, size_t *ret_node)
{
	uint64_t alive = r->up & ~dead;
	struct pack p = {
		.bins = r->bins, .n_bins = r->in->n_nodes, .items = r->items, .taken = r->taken, .n_rules = r->n_rules};
	_free_ unsigned *bins = NULL;
	enum pack_answer a;

	items_begin(r, alive);
	rules_apply(r, alive);
	p.n_items = r->n_rules ? items_join(r) : r->n_dead;
	bins = xcalloc(p.n_items + 1, sizeof(*bins));
	a = pack_run(&p, work, bins);
	for (size_t g = 0; a == PACK_FITS && ret_node && g < r->in->n_guests; g++)
		ret_node[g] = r->guests[g].item == HA_NONE ? HA_NONE : bins[r->guests[g].item];
	return a;
}

/* ---- a glance ---- */

/* The sum of the @k largest. */
static uint64_t largest(uint64_t *values, size_t n, unsigned k)
{
	uint64_t sum = 0;

	for (; k > 0; k--) {
		size_t best = 0;

		for (size_t i = 1; i < n; i++)
			if (values[i] > values[best])
				best = i;
		if (n) {
			sum += values[best];
			values[best] = 0;
		}
	}
	return sum;
}

/*
 * Put the guests down one after the other, each on any host that takes it. A host refuses one of at most m bytes only
 * when less than m bytes are free on it, so when it has got more than its free - m. If a guest finds no place, all
 * hosts that suit it are as full as that, with nothing but guests of the dead hosts. So there is room for sure when
 * what those have is at most the sum of (free - m + 1) over the hosts left that suit it. The worst k hosts are those
 * with the largest sum of what they have and what they could take.
 */
static bool glance_at(const struct ha_room *r, uint64_t suits_it, uint64_t largest_guest, uint64_t waiting, unsigned k)
{
	uint64_t values[HA_NODES_MAX] = {0}, room = 0;

	for (size_t i = 0; i < r->in->n_nodes; i++) {
		uint64_t could = has(suits_it, i) ? take(r->bins[i].memory + 1, largest_guest) : 0;

		room += could;
		values[i] = has(r->up, i) ? ha_room_demand(r, i) + could : 0;
	}
	return waiting + largest(values, r->in->n_nodes, k) <= room;
}

bool ha_room_glance(const struct ha_room *r, unsigned k)
{
	uint64_t most = 0, waiting = 0, seen[8];
	size_t n_seen = 0;

	if (r->in->limits.place.vcpu_ratio || r->n_rules)
		return false;
	for (size_t g = 0; g < r->in->n_guests; g++) {
		if (!r->guests[g].counts)
			continue;
		if (r->in->guests[g].place.memory > most)
			most = r->in->guests[g].place.memory;
		if (!has(r->up, r->guests[g].owner))
			waiting += r->in->guests[g].place.memory;
	}
	for (size_t g = 0; g < r->in->n_guests; g++) {
		size_t i = 0;

		if (!r->guests[g].counts)
			continue;
		while (i < n_seen && seen[i] != r->guests[g].suits)
			i++;
		if (i < n_seen)
			continue;
		if (n_seen == ARRAY_SIZE(seen) || !glance_at(r, r->guests[g].suits, most, waiting, k))
			return false;
		seen[n_seen++] = r->guests[g].suits;
	}
	return true;
}
