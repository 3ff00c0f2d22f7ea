/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of packing: against trying everything, on small cases; what it finds is a packing; the bound of work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/ha-pack.h"

static uint64_t seed;

static unsigned below(unsigned n)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (unsigned)(seed >> 33) % n;
}

#define BINS 4
#define ITEMS 7
#define RULES 2

struct puzzle {
	struct pack_bin bins[BINS];
	struct pack_item items[ITEMS];
	unsigned apart[ITEMS][RULES];
	uint64_t taken[RULES];
	struct pack p;
};

static void puzzle_make(struct puzzle *z)
{
	memset(z, 0, sizeof(*z));
	z->p = (struct pack){.bins = z->bins, .items = z->items, .taken = z->taken};
	z->p.n_bins = 1 + below(BINS);
	z->p.n_items = below(ITEMS + 1);
	z->p.n_rules = below(3) ? 0 : RULES;
	for (size_t b = 0; b < z->p.n_bins; b++)
		z->bins[b] = (struct pack_bin){below(12), below(4) ? 100 : below(8)};
	for (size_t r = 0; r < z->p.n_rules; r++)
		z->taken[r] = below(3) ? 0 : below(1U << BINS);
	for (size_t i = 0; i < z->p.n_items; i++) {
		struct pack_item *it = &z->items[i];

		*it = (struct pack_item){.memory = 1 + below(6),
					 .vcpus = below(3),
					 .bins = below(3) ? UINT64_MAX : below(1U << BINS),
					 .apart = z->apart[i]};
		for (unsigned r = 0; r < z->p.n_rules; r++)
			if (below(2))
				z->apart[i][it->n_apart++] = r;
	}
}

/* Is @at, a bin for each item, a packing? */
static bool is_packing(const struct pack *p, const unsigned *at)
{
	uint64_t memory[BINS] = {0}, vcpus[BINS] = {0}, taken[RULES] = {0};

	for (size_t r = 0; r < p->n_rules; r++)
		taken[r] = p->taken[r];
	for (size_t i = 0; i < p->n_items; i++) {
		const struct pack_item *it = &p->items[i];

		if (!(it->bins >> at[i] & 1))
			return false;
		memory[at[i]] += it->memory;
		vcpus[at[i]] += it->vcpus;
		for (size_t k = 0; k < it->n_apart; k++) {
			if (taken[it->apart[k]] >> at[i] & 1)
				return false;
			taken[it->apart[k]] |= 1ULL << at[i];
		}
	}
	for (size_t b = 0; b < p->n_bins; b++)
		if (memory[b] > p->bins[b].memory || vcpus[b] > p->bins[b].vcpus)
			return false;
	return true;
}

static bool any_packing(const struct pack *p)
{
	unsigned at[ITEMS] = {0};
	size_t i;

	do {
		if (is_packing(p, at))
			return true;
		for (i = 0; i < p->n_items && ++at[i] == p->n_bins; i++)
			at[i] = 0;
	} while (i < p->n_items);
	return false;
}

static void small_puzzles_get_the_answer_of_trying_everything(void **state)
{
	unsigned fits = 0;

	(void)state;
	seed = 4;
	for (int n = 0; n < 20000; n++) {
		struct puzzle z;
		uint64_t work = 1000000;
		unsigned at[ITEMS];
		enum pack_answer a;

		puzzle_make(&z);
		a = pack_run(&z.p, &work, at);
		if (a != (any_packing(&z.p) ? PACK_FITS : PACK_NOT))
			fail_msg("puzzle %d: %d", n, a);
		if (a == PACK_FITS && !is_packing(&z.p, at))
			fail_msg("puzzle %d: what was found is none", n);
		fits += a == PACK_FITS;
	}
	/* Both answers were to be found. */
	assert_in_range(fits, 4000, 16000);
}

static void a_tight_case_is_found_where_the_fullest_bin_first_is_wrong(void **state)
{
	/* 6 + 4 and 5 + 5: largest first puts 6, 5, and 5 on one, and must come back. */
	const struct pack_bin bins[] = {{10, 9}, {10, 9}};
	const struct pack_item items[] = {
		{5, 0, 3, NULL, 0}, {6, 0, 3, NULL, 0}, {5, 0, 3, NULL, 0}, {4, 0, 3, NULL, 0}};
	const struct pack p = {bins, 2, items, 4, NULL, 0};
	uint64_t work = 100;
	unsigned at[4];

	(void)state;
	assert_int_equal(pack_run(&p, &work, at), PACK_FITS);
	assert_int_equal(at[0], at[2]);
	assert_int_equal(at[1], at[3]);
	assert_int_not_equal(at[0], at[1]);
}

static void without_work_nothing_is_claimed(void **state)
{
	const struct pack_bin bin = {10, 10};
	const struct pack_item small = {5, 1, 1, NULL, 0}, large = {11, 1, 1, NULL, 0};
	const struct pack fits = {&bin, 1, &small, 1, NULL, 0}, not = {&bin, 1, &large, 1, NULL, 0};
	const struct pack nothing = {&bin, 1, NULL, 0, NULL, 0};
	uint64_t work = 0;

	(void)state;
	assert_int_equal(pack_run(&fits, &work, NULL), PACK_UNKNOWN);
	/* What needs no search is known. */
	assert_int_equal(pack_run(&not, &work, NULL), PACK_NOT);
	assert_int_equal(pack_run(&nothing, &work, NULL), PACK_FITS);
	work = 1;
	assert_int_equal(pack_run(&fits, &work, NULL), PACK_FITS);
	assert_int_equal(work, 0);
}

/* 200 equal guests for 32 equal hosts that hold 6 each: 192. Without seeing that they are equal this takes for ever. */
static void equal_guests_and_hosts_are_no_puzzle(void **state)
{
	struct pack_bin bins[32];
	struct pack_item items[200];
	const struct pack p = {bins, 32, items, 193, NULL, 0};
	struct pack q = p;
	uint64_t work = 1000;

	(void)state;
	for (size_t i = 0; i < 32; i++)
		bins[i] = (struct pack_bin){6 * 7 + 3, 100};
	for (size_t i = 0; i < 200; i++)
		items[i] = (struct pack_item){7, 1, UINT64_MAX, NULL, 0};
	assert_int_equal(pack_run(&p, &work, NULL), PACK_NOT);
	q.n_items = 192;
	assert_int_equal(pack_run(&q, &work, NULL), PACK_FITS);
}

static void the_same_input_gets_the_same_packing(void **state)
{
	(void)state;
	seed = 9;
	for (int n = 0; n < 200; n++) {
		unsigned a[ITEMS] = {0}, b[ITEMS] = {0};
		uint64_t work_a = 1000000, work_b = 1000000;
		struct puzzle z;

		puzzle_make(&z);
		pack_run(&z.p, &work_a, a);
		pack_run(&z.p, &work_b, b);
		assert_memory_equal(a, b, sizeof(a));
		assert_int_equal(work_a, work_b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_puzzles_get_the_answer_of_trying_everything),
		cmocka_unit_test(a_tight_case_is_found_where_the_fullest_bin_first_is_wrong),
		cmocka_unit_test(without_work_nothing_is_claimed),
		cmocka_unit_test(equal_guests_and_hosts_are_no_puzzle),
		cmocka_unit_test(the_same_input_gets_the_same_packing),
	};

	return cmocka_run_group_tests_name("cluster/ha-pack", tests, NULL, NULL);
}
