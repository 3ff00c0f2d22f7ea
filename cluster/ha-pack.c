/* SPDX-License-Identifier: Apache-2.0 */
/* Do all of these fit into those? A search that tries the item with the fewest bins first, the larger of two, and the
 * fullest bin that takes it.
 *
 * It is exact: it says "not" only when nothing is left to try. What makes that short:
 *
 * - what is free on a bin is worth only what multiples of the items' common divisor (guests have round sizes, hosts
 * have not) and the number of the smallest items fill of it. If that is less than what is still to be packed, this
 * branch has no solution, which ends most cases that do not fit at once
 * - bins that no item can tell apart, with the same free and the same rules, are one: the second is not tried
 * - of equal items the later is not put where the earlier one was tried in vain, as they could be exchanged
 *
 * Guests come in few sizes and hosts are much alike, so what remains is small; but the problem is what it is (bin
 * packing is NP-hard), hence the bound of work and the third answer.
 */
#include "cluster/ha-pack.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct place {
	const struct pack_item *item;
	unsigned choices; /* bins that take it when all is empty */
};

struct search {
	const struct pack *p;
	struct place *order;
	uint64_t *left; /* of the items from this one of the order on: memory */
	uint64_t *vcpus;
	uint64_t *least;   /* the smallest memory */
	uint64_t *divisor; /* of all their memory */
	struct pack_bin bins[PACK_BINS_MAX];
	unsigned kind[PACK_BINS_MAX]; /* equal for bins that no item can tell apart */
	uint64_t *taken;
	unsigned *at; /* by place in the order */
	uint64_t *work;
	bool stuck; /* an item found no bin */
};

static int order_of(const void *a, const void *b)
{
	const struct place *pa = a, *pb = b;
	const struct pack_item *x = pa->item, *y = pb->item;

	if (pa->choices != pb->choices)
		return pa->choices < pb->choices ? -1 : 1;
	if (x->memory != y->memory)
		return x->memory > y->memory ? -1 : 1;
	if (x->vcpus != y->vcpus)
		return x->vcpus > y->vcpus ? -1 : 1;
	if (x->bins != y->bins)
		return x->bins < y->bins ? -1 : 1;
	return x < y ? -1 : x > y;
}

/* Could they change places in any packing? */
static bool items_equal(const struct pack_item *a, const struct pack_item *b)
{
	return a->memory == b->memory && a->vcpus == b->vcpus && a->bins == b->bins && a->n_apart == b->n_apart &&
	       (a->n_apart == 0 || !memcmp(a->apart, b->apart, a->n_apart * sizeof(*a->apart)));
}

static bool bins_alike(const struct pack *p, unsigned a, unsigned b)
{
	for (size_t i = 0; i < p->n_items; i++)
		if ((p->items[i].bins >> a & 1) != (p->items[i].bins >> b & 1))
			return false;
	return true;
}

static void kinds_find(struct search *s)
{
	for (unsigned b = 0; b < s->p->n_bins; b++) {
		s->kind[b] = b;
		for (unsigned a = 0; a < b && s->kind[b] == b; a++)
			if (s->kind[a] == a && bins_alike(s->p, a, b))
				s->kind[b] = a;
	}
}

/* The same to every item that is still to come. */
static bool bins_equal(const struct search *s, unsigned a, unsigned b)
{
	if (s->kind[a] != s->kind[b] || s->bins[a].memory != s->bins[b].memory || s->bins[a].vcpus != s->bins[b].vcpus)
		return false;
	for (size_t r = 0; r < s->p->n_rules; r++)
		if ((s->taken[r] >> a & 1) != (s->taken[r] >> b & 1))
			return false;
	return true;
}

/* The bins that take @it now. */
static uint64_t bins_for(const struct search *s, const struct pack_item *it)
{
	uint64_t ret = 0, may = it->bins;

	for (size_t i = 0; i < it->n_apart; i++)
		may &= ~s->taken[it->apart[i]];
	for (unsigned b = 0; b < s->p->n_bins; b++)
		if (may >> b & 1 && s->bins[b].memory >= it->memory && s->bins[b].vcpus >= it->vcpus)
			ret |= 1ULL << b;
	return ret;
}

static unsigned fullest(const struct search *s, uint64_t bins)
{
	unsigned best = PACK_BINS_MAX;

	for (unsigned b = 0; b < s->p->n_bins; b++)
		if (bins >> b & 1 && (best == PACK_BINS_MAX || s->bins[b].memory < s->bins[best].memory))
			best = b;
	return best;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

static bool too_little(const struct search *s, size_t i)
{
	uint64_t room = 0, items = 0, vcpus = 0, least = s->least[i], divisor = s->divisor[i];

	for (unsigned b = 0; b < s->p->n_bins; b++) {
		uint64_t here = s->bins[b].memory;

		if (here < least)
			continue;
		room += divisor ? here - here % divisor : here;
		items += least ? here / least : s->p->n_items;
		vcpus += s->bins[b].vcpus;
	}
	return room < s->left[i] || items < s->p->n_items - i || vcpus < s->vcpus[i];
}

static void put(struct search *s, size_t i, unsigned b)
{
	const struct pack_item *it = s->order[i].item;

	assert(b < PACK_BINS_MAX);
	s->at[i] = b;
	s->bins[b].memory -= it->memory;
	s->bins[b].vcpus -= it->vcpus;
	for (size_t r = 0; r < it->n_apart; r++)
		s->taken[it->apart[r]] |= 1ULL << b;
}

/* No rule had its bit for @b before: bins_for() leaves such bins out. */
static void take_back(struct search *s, size_t i)
{
	const struct pack_item *it = s->order[i].item;
	unsigned b = s->at[i];

	s->bins[b].memory += it->memory;
	s->bins[b].vcpus += it->vcpus;
	for (size_t r = 0; r < it->n_apart; r++)
		s->taken[it->apart[r]] &= ~(1ULL << b);
}

/* Items from @i of the order on. @vain: bins on which the item before was tried in vain. */
static enum pack_answer search(struct search *s, size_t i, uint64_t vain)
{
	uint64_t may, tried = 0;

	if (i == s->p->n_items)
		return PACK_FITS;
	/* As long as nothing had to be taken back it mostly goes straight down: no need to look at every step. */
	if ((i == 0 || s->stuck) && too_little(s, i))
		return PACK_NOT;
	may = bins_for(s, s->order[i].item);
	if (i > 0 && items_equal(s->order[i - 1].item, s->order[i].item)) {
		may &= ~vain;
		tried = vain;
	}
	while (may) {
		unsigned b = fullest(s, may);
		uint64_t same = 0;
		enum pack_answer a;

		if (*s->work == 0)
			return PACK_UNKNOWN;
		--*s->work;
		put(s, i, b);
		a = search(s, i + 1, tried);
		if (a != PACK_NOT)
			return a;
		take_back(s, i);
		for (unsigned other = 0; other < s->p->n_bins; other++)
			if (may >> other & 1 && bins_equal(s, b, other))
				same |= 1ULL << other;
		may &= ~same;
		tried |= same;
	}
	s->stuck = true;
	return PACK_NOT;
}

static void search_begin(struct search *s, const struct pack *p)
{
	size_t n = p->n_items;

	s->order = xcalloc(n + 1, sizeof(*s->order));
	s->left = xcalloc(n + 1, sizeof(*s->left));
	s->vcpus = xcalloc(n + 1, sizeof(*s->vcpus));
	s->least = xcalloc(n + 1, sizeof(*s->least));
	s->divisor = xcalloc(n + 1, sizeof(*s->divisor));
	s->at = xcalloc(n + 1, sizeof(*s->at));
	s->taken = xcalloc(p->n_rules + 1, sizeof(*s->taken));
	if (p->n_bins)
		memcpy(s->bins, p->bins, p->n_bins * sizeof(*p->bins));
	if (p->n_rules)
		memcpy(s->taken, p->taken, p->n_rules * sizeof(*p->taken));
	for (size_t i = 0; i < n; i++)
		s->order[i] = (struct place){&p->items[i], (unsigned)__builtin_popcountll(bins_for(s, &p->items[i]))};
	qsort(s->order, n, sizeof(*s->order), order_of);
	s->least[n] = UINT64_MAX;
	for (size_t i = n; i-- > 0;) {
		uint64_t memory = s->order[i].item->memory;

		s->left[i] = s->left[i + 1] + memory;
		s->vcpus[i] = s->vcpus[i + 1] + s->order[i].item->vcpus;
		s->divisor[i] = common_divisor(memory, s->divisor[i + 1]);
		s->least[i] = memory < s->least[i + 1] ? memory : s->least[i + 1];
	}
	kinds_find(s);
}

enum pack_answer pack_run(const struct pack *p, uint64_t *work, unsigned *ret_bins)
{
	struct search s = {.p = p, .work = work};
	enum pack_answer a;

	assert(p->n_bins <= PACK_BINS_MAX);
	search_begin(&s, p);
	a = search(&s, 0, 0);
	for (size_t i = 0; a == PACK_FITS && ret_bins && i < p->n_items; i++)
		ret_bins[s.order[i].item - p->items] = s.at[i];
	free(s.order);
	free(s.left);
	free(s.vcpus);
	free(s.least);
	free(s.divisor);
	free(s.at);
	free(s.taken);
	return a;
}
