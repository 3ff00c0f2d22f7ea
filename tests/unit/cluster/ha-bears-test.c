/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of how many hosts may die: against every death and every placement, on small clusters; admission; speed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "cluster/ha.h"

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)

static uint64_t seed;

static unsigned below(unsigned n)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (unsigned)(seed >> 33) % n;
}

/* ---- clusters ---- */

#define NODES 32
#define GUESTS 1001

struct cluster {
	struct ha_node nodes[NODES];
	struct ha_guest guests[GUESTS];
	char names[NODES + GUESTS][24];
	struct placement_rule rules[4];
	const char *members[4][8];
	struct ha_input in;
};

static void cluster_begin(struct cluster *c)
{
	memset(c, 0, sizeof(*c));
	c->in = (struct ha_input){.nodes = c->nodes, .guests = c->guests, .rules = c->rules, .now_ms = 1000000};
}

static void add_node(struct cluster *c, uint64_t memory)
{
	size_t i = c->in.n_nodes++;

	snprintf(c->names[i], sizeof(c->names[i]), "n%zu", i + 1);
	c->nodes[i].place = (struct placement_node){
		.name = c->names[i], .up = true, .memory_total = memory, .memory_free = memory, .cores = 4};
}

static struct ha_guest *add_guest(struct cluster *c, size_t node, uint64_t memory)
{
	size_t g = c->in.n_guests++;
	char *name = c->names[NODES + g];

	snprintf(name, sizeof(c->names[0]), "g%03zu", g + 1);
	c->guests[g] = (struct ha_guest){
		.place = {.name = name, .owner = c->names[node], .memory = memory, .vcpus = 1},
		.wanted = true,
		.restart = true,
		.priority = 100,
		.max_restarts = 3,
		.seen = HA_RUNNING,
	};
	return &c->guests[g];
}

/* ---- trying everything ---- */

/* Is each guest well placed where all of them are at last? Asked of placement itself, guest by guest. */
static bool all_well(const struct ha_input *in, const struct placement_node *nodes, struct placement_vm *vms,
		     const size_t *moved, size_t n_moved)
{
	for (size_t i = 0; i < n_moved; i++) {
		size_t g = moved[i], at = 0;
		struct placement_input pi = {.nodes = nodes,
					     .n_nodes = in->n_nodes,
					     .vms = vms,
					     .n_vms = in->n_guests,
					     .rules = in->rules,
					     .n_rules = in->n_rules,
					     .guest = in->guests[g].place,
					     .limits = in->limits.place};
		struct placement_result r;
		bool fit;

		pi.guest.owner = NULL;
		while (strcmp(in->nodes[at].place.name, vms[g].owner) != 0)
			at++;
		placement_run(&pi, &r);
		fit = r.nodes[at].fit;
		placement_done(&r);
		if (!fit)
			return false;
	}
	return true;
}

/* Every way to place the guests of dead hosts, one after the other. */
static bool can_place(const struct ha_input *in, const struct placement_node *nodes, struct placement_vm *vms,
		      const size_t *moved, size_t n_moved, size_t i)
{
	if (i == n_moved)
		return all_well(in, nodes, vms, moved, n_moved);
	for (size_t at = 0; at < in->n_nodes; at++) {
		if (!nodes[at].up)
			continue;
		vms[moved[i]].owner = nodes[at].name;
		if (can_place(in, nodes, vms, moved, n_moved, i + 1))
			return true;
	}
	return false;
}

static bool survives(const struct ha_input *in, unsigned dead)
{
	struct placement_node nodes[NODES] = {0};
	struct placement_vm vms[16];
	size_t moved[16], n_moved = 0;

	for (size_t i = 0; i < in->n_nodes; i++) {
		nodes[i] = in->nodes[i].place;
		nodes[i].up = in->nodes[i].life == HA_UP && !(dead >> i & 1);
	}
	for (size_t g = 0; g < in->n_guests; g++) {
		const struct ha_guest *guest = &in->guests[g];
		size_t at = 0;

		while (strcmp(in->nodes[at].place.name, guest->place.owner) != 0)
			at++;
		vms[g] = (struct placement_vm){.name = guest->place.name,
					       .owner = guest->place.owner,
					       .running = guest->wanted && (nodes[at].up || guest->restart),
					       .memory = guest->place.memory,
					       .vcpus = guest->place.vcpus};
		if (!nodes[at].up && guest->wanted && guest->restart)
			moved[n_moved++] = g;
	}
	return can_place(in, nodes, vms, moved, n_moved, 0);
}

/* The largest k for which all sets of at most k hosts that are up may die; at most all but one. */
static unsigned survives_any(const struct ha_input *in)
{
	unsigned up = 0, n_up = 0, least;

	for (size_t i = 0; i < in->n_nodes; i++)
		if (in->nodes[i].life == HA_UP) {
			up |= 1U << i;
			n_up++;
		}
	least = n_up;
	for (unsigned dead = 0; dead < 1U << in->n_nodes; dead++) {
		unsigned k = (unsigned)__builtin_popcount(dead);

		if ((dead & ~up) == 0 && k < least && k < n_up && !survives(in, dead))
			least = k;
	}
	return least ? least - 1 : 0;
}

static void random_cluster(struct cluster *c)
{
	cluster_begin(c);
	for (unsigned i = 2 + below(3); i > 0; i--)
		add_node(c, (2 + below(7)) * GIB);
	for (unsigned i = below(8); i > 0; i--) {
		struct ha_guest *g = add_guest(c, below((unsigned)c->in.n_nodes), (1 + below(3)) * GIB);

		g->restart = below(5) > 0;
		g->wanted = below(8) > 0;
		g->seen = g->wanted ? HA_RUNNING : HA_STOPPED;
	}
	if (below(4) == 0)
		c->nodes[0].life = HA_FENCED;
	if (below(4) == 0)
		c->in.limits.place.vcpu_ratio = 1;
	for (unsigned r = below(3); r > 0 && c->in.n_guests; r--) {
		struct placement_rule *rule = &c->rules[c->in.n_rules];
		const char **members = c->members[c->in.n_rules++];

		for (unsigned k = 0; k < 3; k++)
			members[k] = c->guests[below((unsigned)c->in.n_guests)].place.name;
		*rule = (struct placement_rule){.name = "r", .apart = below(2), .hard = below(4) > 0, .vms = members};
	}
}

static void small_clusters_bear_what_trying_everything_says(void **state)
{
	struct cluster *c = xcalloc(1, sizeof(*c));
	unsigned seen[5] = {0};

	(void)state;
	seed = 11;
	for (int n = 0; n < 1500; n++) {
		unsigned want;
		struct ha_bears b;

		random_cluster(c);
		want = survives_any(&c->in);
		ha_bears(&c->in, 0, &b);
		if (!b.exact || b.bears != want)
			fail_msg("cluster %d: bears %u, not %u (%s)", n, want, b.bears, b.why ? b.why : "exact");
		if (b.why) {
			unsigned dead = 0;

			for (size_t i = 0; i < b.n_worst; i++)
				dead |= 1U << b.worst[i];
			if (survives(&c->in, dead))
				fail_msg("cluster %d: %s", n, b.why);
			if (b.guest == HA_NONE)
				fail_msg("cluster %d: no guest is named: %s", n, b.why);
		}
		seen[b.bears]++;
		ha_bears_done(&b);
	}
	for (int k = 0; k < 3; k++)
		if (seen[k] < 50)
			fail_msg("only %u clusters bear %d", seen[k], k);
	free(c);
}

/* ---- by hand ---- */

static void the_answer_names_the_hosts_and_the_guest_that_finds_no_place(void **state)
{
	struct cluster *c = xcalloc(1, sizeof(*c));
	struct ha_bears b;
	json_t *o;

	(void)state;
	cluster_begin(c);
	for (int i = 0; i < 3; i++)
		add_node(c, 8 * GIB);
	add_guest(c, 0, 3 * GIB)->priority = 500;
	add_guest(c, 0, 3 * GIB);
	add_guest(c, 1, 3 * GIB);
	add_guest(c, 2, 3 * GIB);
	ha_bears(&c->in, 0, &b);
	assert_int_equal(b.bears, 1);
	assert_true(b.exact);
	assert_int_equal(b.n_worst, 2);
	assert_string_equal(b.why,
			    "if nodes n1 and n2 died, vm g002: no node fits: node n1 is not up; node n2 is not up; "
			    "node n3 needs 3072 MiB, and of 8192 MiB for guests 6144 MiB are promised to 2 others");
	o = ha_bears_json(&c->in, &b);
	assert_string_equal(json_string_value(json_object_get(o, "vm")), "g002");
	assert_int_equal(json_integer_value(json_object_get(o, "bears")), 1);
	assert_int_equal(json_array_size(json_object_get(o, "worst")), 2);
	json_decref(o);
	ha_bears_done(&b);
	/* One that nobody restarts needs no place. */
	for (size_t g = 0; g < 4; g++)
		c->guests[g].restart = false;
	ha_bears(&c->in, 0, &b);
	assert_int_equal(b.bears, 2);
	assert_true(b.exact);
	assert_null(b.why);
	ha_bears_done(&b);
	free(c);
}

static void guests_that_wait_already_are_no_failure_to_spare(void **state)
{
	struct cluster *c = xcalloc(1, sizeof(*c));
	struct ha_bears b;

	(void)state;
	cluster_begin(c);
	add_node(c, 8 * GIB);
	add_node(c, 8 * GIB);
	add_guest(c, 0, 9 * GIB);
	c->nodes[0].life = HA_FENCED;
	ha_bears(&c->in, 0, &b);
	assert_int_equal(b.bears, 0);
	assert_int_equal(b.n_worst, 0);
	assert_int_equal(b.guest, 0);
	assert_non_null(strstr(b.why, "guests wait for room already: vm g001: no node fits"));
	ha_bears_done(&b);
	free(c);
}

static void a_host_that_takes_no_guests_is_no_room(void **state)
{
	struct cluster *c = xcalloc(1, sizeof(*c));

	(void)state;
	for (int k = 0; k < 5; k++) {
		struct ha_bears b;

		cluster_begin(c);
		add_node(c, 8 * GIB);
		add_node(c, 8 * GIB);
		add_guest(c, 0, GIB);
		c->nodes[1].frozen = k == 1;
		c->nodes[1].place.aside = k == 2 ? "flaps" : NULL;
		c->nodes[1].place.maintenance = k == 3;
		c->nodes[1].place.up = k != 4;
		ha_bears(&c->in, 0, &b);
		assert_int_equal(b.bears, k == 0);
		ha_bears_done(&b);
	}
	free(c);
}

static void a_start_that_breaks_the_wish_is_refused_with_the_reason(void **state)
{
	struct cluster *c = xcalloc(1, sizeof(*c));
	struct err e = ERR_INIT;
	struct ha_guest *g;

	(void)state;
	cluster_begin(c);
	add_node(c, 8 * GIB);
	add_node(c, 8 * GIB);
	add_guest(c, 0, 4 * GIB);
	g = add_guest(c, 0, 4 * GIB);
	g->wanted = false;
	g->seen = HA_STOPPED;
	assert_int_equal(ha_admit(&c->in, 1, 1, 1, &e), 0);
	g->place.memory = 5 * GIB;
	assert_int_equal(ha_admit(&c->in, 1, 1, 1, &e), -1);
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_non_null(strstr(e.text,
			       "vm g002: with it on node n2 the cluster would bear the loss of 0 hosts instead of "
			       "1: if node n2 died, vm g002: no node fits: node n1 needs 5120 MiB"));
	assert_non_null(strstr(e.text, "stop a guest, add memory, or start it all the same with --force"));
	/* No wish, or one that does not hold anyway, refuses nothing. */
	assert_int_equal(ha_admit(&c->in, 1, 1, 0, &e), 0);
	assert_int_equal(ha_admit(&c->in, 1, 1, 2, &e), 0);
	c->guests[0].place.memory = 7 * GIB;
	c->nodes[1].place.memory_total = c->nodes[1].place.memory_free = 6 * GIB;
	assert_int_equal(ha_admit(&c->in, 1, 1, 1, &e), 0);
	/* One that nobody restarts takes the room of others. */
	c->guests[0].place.memory = 4 * GIB;
	c->nodes[1].place.memory_total = c->nodes[1].place.memory_free = 8 * GIB;
	g->restart = false;
	assert_int_equal(ha_admit(&c->in, 1, 1, 1, &e), -1);
	assert_non_null(strstr(e.text, "if node n1 died, vm g001"));
	free(c);
}

/* ---- speed ---- */

#define LIMIT_MS 1000 /* ten times what it shall take: a loaded machine is no failure, a search without a bound is */

/* Of this thread: others use this machine too. */
static double cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double ms_of(const struct ha_input *in, struct ha_bears *b)
{
	double best = 1e9;

	/* The best of three. */
	for (int i = 0; i < 3; i++) {
		double begin = cpu_ms();
		double ms;

		if (i)
			ha_bears_done(b);
		ha_bears(in, 0, b);
		ms = cpu_ms() - begin;
		best = ms < best ? ms : best;
	}
	return best;
}

static void big_cluster(struct cluster *c, unsigned spare_gib)
{
	static const unsigned sizes[] = {1, 2, 2, 4, 4, 8, 16};
	uint64_t used[NODES] = {0};

	cluster_begin(c);
	for (int i = 0; i < NODES; i++)
		add_node(c, 0);
	for (int i = 0; i < 1000; i++) {
		uint64_t memory = sizes[below(ARRAY_SIZE(sizes))] * GIB;

		add_guest(c, (size_t)i % NODES, memory);
		used[i % NODES] += memory;
	}
	for (int i = 0; i < NODES; i++) {
		uint64_t total = used[i] + spare_gib * GIB + 300 * MIB;

		c->nodes[i].place.memory_total = total;
		c->nodes[i].place.memory_free = total - used[i];
	}
}

static void thirty_two_hosts_and_a_thousand_guests_are_counted_in_no_time(void **state)
{
	static const struct {
		const char *what;
		unsigned spare;
		bool rules;
	} rows[] = {
		{"no room", 1, false},         {"room for one host", 7, false},     {"room for a few", 20, false},
		{"room for many", 200, false}, {"room for a few, rules", 20, true}, {"room for many, rules", 200, true},
	};
	struct cluster *c = xcalloc(1, sizeof(*c));

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct ha_bears b;
		double ms;

		seed = i;
		big_cluster(c, rows[i].spare);
		for (int r = 0; rows[i].rules && r < 4; r++) {
			for (int k = 0; k < 6; k++)
				c->members[r][k] = c->guests[r < 3 ? (r * 6 + k) * 33 : k * NODES].place.name;
			c->rules[r] = (struct placement_rule){
				.name = "r", .apart = r < 3, .hard = true, .vms = c->members[r]};
			c->in.n_rules++;
		}
		ms = ms_of(&c->in, &b);
		print_message("%-24s bears %s%u of 32 hosts in %.1f ms\n", rows[i].what, b.exact ? "" : "at least ",
			      b.bears, ms);
		assert_true(ms < LIMIT_MS);
		ha_bears_done(&b);
	}
	free(c);
}

static void work_that_is_too_much_ends_with_at_least(void **state)
{
	struct cluster *c = xcalloc(1, sizeof(*c));
	struct ha_bears all, little;

	(void)state;
	seed = 3;
	big_cluster(c, 20);
	c->in.limits.place.vcpu_ratio = 1000; /* not to be seen at a glance */
	ha_bears(&c->in, 1, &all);
	c->in.limits.work = 100;
	ha_bears(&c->in, 0, &little);
	assert_int_equal(all.bears, 1);
	assert_false(all.exact);
	assert_int_equal(little.bears, 0);
	assert_false(little.exact);
	assert_null(little.why);
	ha_bears_done(&all);
	ha_bears_done(&little);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_clusters_bear_what_trying_everything_says),
		cmocka_unit_test(the_answer_names_the_hosts_and_the_guest_that_finds_no_place),
		cmocka_unit_test(guests_that_wait_already_are_no_failure_to_spare),
		cmocka_unit_test(a_host_that_takes_no_guests_is_no_room),
		cmocka_unit_test(a_start_that_breaks_the_wish_is_refused_with_the_reason),
		cmocka_unit_test(thirty_two_hosts_and_a_thousand_guests_are_counted_in_no_time),
		cmocka_unit_test(work_that_is_too_much_ends_with_at_least),
	};

	return cmocka_run_group_tests_name("cluster/ha-bears", tests, NULL, NULL);
}
