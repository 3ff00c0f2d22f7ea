/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of placement: every reason against a node, all of them at once, what decides among those that fit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/placement.h"

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)
#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static const char *const models[] = {"qemu64", "EPYC", NULL};
static const char *const features[] = {"sse2", "avx2", NULL};
static const char *const lan[] = {"lan", NULL};
static const char *const web_files[] = {"/disks/web.img", NULL};
static const char *const together_vms[] = {"web", "db", NULL};

static const struct placement_unreached no_disks[] = {{"/disks", "No such file or directory"}, {NULL, NULL}};
#define NO_DISKS "does not reach its folder /disks: No such file or directory"
#define UNREACHED(...) ((const struct placement_unreached[]){__VA_ARGS__, {NULL, NULL}})

/* A node that fits everything below. */
static struct placement_node good_node(const char *name)
{
	return (struct placement_node){.name = name,
				       .up = true,
				       .memory_total = 8 * GIB,
				       .memory_free = 8 * GIB,
				       .cores = 4,
				       .cpu_kind = "EPYC-Milan",
				       .models = models,
				       .features = features,
				       .networks = lan};
}

static struct placement_guest good_guest(void)
{
	return (struct placement_guest){
		.name = "web", .memory = 1 * GIB, .vcpus = 2, .cpu = "EPYC,+avx2", .networks = lan, .files = web_files};
}

/* ---- reasons ---- */

struct row {
	const char *what;
	struct placement_node node; /* fields that are not 0 replace those of the good one */
	struct placement_guest guest;
	struct placement_vm vms[3];
	struct placement_limits limits;
	struct placement_rule rule;
	bool down, no_models, no_features, no_networks, no_disks;
	const char *reasons[4]; /* none: it fits */
};

static void row_node(const struct row *r, struct placement_node *n)
{
	*n = good_node("n1");
	n->up = !r->down;
	n->maintenance = r->node.maintenance;
	n->aside = r->node.aside;
	n->memory_total = r->node.memory_total ? r->node.memory_total : n->memory_total;
	n->memory_free = r->node.memory_free ? r->node.memory_free : n->memory_free;
	n->cores = r->node.cores ? r->node.cores : n->cores;
	n->models = r->no_models ? NULL : n->models;
	n->features = r->no_features ? NULL : n->features;
	n->networks = r->no_networks ? NULL : n->networks;
	n->unreached = r->node.unreached ? r->node.unreached : r->no_disks ? no_disks : NULL;
}

static void row_guest(const struct row *r, struct placement_guest *g)
{
	*g = good_guest();
	g->owner = r->guest.owner;
	g->owner_cpu_kind = r->guest.owner_cpu_kind;
	g->memory = r->guest.memory ? r->guest.memory : g->memory;
	g->vcpus = r->guest.vcpus ? r->guest.vcpus : g->vcpus;
	g->cpu = r->guest.cpu ? r->guest.cpu : g->cpu;
	g->networks = r->guest.networks ? r->guest.networks : g->networks;
	g->files = r->guest.files ? r->guest.files : g->files;
}

static void row_check(const struct row *r)
{
	struct placement_node node;
	struct placement_input in = {.nodes = &node, .n_nodes = 1, .vms = r->vms, .limits = r->limits};
	struct placement_result out;
	size_t n = 0;

	row_node(r, &node);
	row_guest(r, &in.guest);
	while (in.n_vms < ARRAY_SIZE(r->vms) && r->vms[in.n_vms].name)
		in.n_vms++;
	in.rules = &r->rule;
	in.n_rules = r->rule.name != NULL;
	placement_run(&in, &out);
	while (n < ARRAY_SIZE(r->reasons) && r->reasons[n])
		n++;
	if (out.nodes[0].n_reasons != n)
		fail_msg("%s: %zu reasons, the first is %s", r->what, out.nodes[0].n_reasons,
			 out.nodes[0].n_reasons ? out.nodes[0].reasons[0] : "none");
	for (size_t i = 0; i < n; i++)
		if (strcmp(out.nodes[0].reasons[i], r->reasons[i]) != 0)
			fail_msg("%s: %s", r->what, out.nodes[0].reasons[i]);
	assert_int_equal(out.nodes[0].fit, n == 0);
	assert_int_equal(out.choice, n ? -1 : 0);
	placement_done(&out);
}

static void every_reason_against_a_node_is_said(void **state)
{
	const struct row rows[] = {
		{.what = "nothing is against it"},
		{.what = "down", .down = true, .reasons = {"is not up"}},
		{.what = "maintenance", .node = {.maintenance = true}, .reasons = {"is in maintenance"}},
		{.what = "aside",
		 .node = {.aside = "lost 3 times in an hour"},
		 .reasons = {"is put aside (lost 3 times in an hour)"}},
		{.what = "owner", .guest = {.owner = "n1", .cpu = "EPYC"}, .reasons = {"has it already"}},
		{.what = "promised memory",
		 .vms = {{.name = "a", .owner = "n1", .running = true, .memory = 7 * GIB + MIB}},
		 .reasons = {"needs 1024 MiB, and of 8192 MiB for guests 7169 MiB are promised to 1 others"}},
		{.what = "memory to the byte",
		 .vms = {{.name = "a", .owner = "n1", .running = true, .memory = 7 * GIB}}},
		{.what = "what is on its way counts",
		 .vms = {{.name = "a", .owner = "n2", .to = "n1", .running = true, .memory = 8 * GIB}},
		 .reasons = {"needs 1024 MiB, and of 8192 MiB for guests 8192 MiB are promised to 1 others"}},
		{.what = "what does not run or is elsewhere does not",
		 .vms = {{.name = "a", .owner = "n1", .memory = 8 * GIB},
			 {.name = "b", .owner = "n2", .running = true, .memory = 8 * GIB},
			 {.name = "web", .owner = "n1", .running = true, .memory = 8 * GIB}}},
		{.what = "the reserve is not for guests",
		 .limits = {.memory_reserve = 7 * GIB + 1},
		 .reasons = {"needs 1024 MiB, and of 1023 MiB for guests 0 MiB are promised to 0 others"}},
		{.what = "a reserve above all",
		 .limits = {.memory_reserve = 99 * GIB},
		 .reasons = {"needs 1024 MiB, and of 0 MiB for guests 0 MiB are promised to 0 others"}},
		{.what = "really free memory",
		 .node = {.memory_free = 1023 * MIB},
		 .reasons = {"needs 1024 MiB, and 1023 MiB are really free"}},
		{.what = "vcpus",
		 .limits = {.vcpu_ratio = 1},
		 .vms = {{.name = "a", .owner = "n1", .running = true, .vcpus = 3}},
		 .reasons = {"would carry 5 vcpus, and 1 for each of 4 cores are allowed"}},
		{.what = "vcpus without a limit", .vms = {{.name = "a", .owner = "n1", .running = true, .vcpus = 300}}},
		{.what = "cpu model", .no_models = true, .reasons = {"cannot run cpu model EPYC"}},
		{.what = "cpu feature", .no_features = true, .reasons = {"its cpu lacks the feature avx2"}},
		{.what = "features that are off are not asked for",
		 .guest = {.cpu = "EPYC,-avx512,pcid=off,x2apic=on,sse2=on"},
		 .reasons = {"its cpu lacks the feature x2apic"}},
		{.what = "host, a new guest", .guest = {.cpu = "host"}},
		{.what = "host, of the same kind",
		 .guest = {.cpu = "host", .owner = "n2", .owner_cpu_kind = "EPYC-Milan"}},
		{.what = "host, of another kind",
		 .guest = {.cpu = "host", .owner = "n2", .owner_cpu_kind = "Skylake"},
		 .reasons =
			 {"its cpu is \"host\", and this host's (EPYC-Milan) is not of the kind of node n2 (Skylake)"}},
		{.what = "host, of an unknown kind",
		 .guest = {.cpu = "host", .owner = "n2"},
		 .reasons =
			 {"its cpu is \"host\", and this host's (EPYC-Milan) is not of the kind of node n2 (unknown)"}},
		{.what = "network", .no_networks = true, .reasons = {"has no network lan"}},
		{.what = "disk", .no_disks = true, .reasons = {NO_DISKS}},
		{.what = "folders whose names begin alike, above and below",
		 .node = {.unreached = UNREACHED({"/disk", "x"}, {"/disks/web", "x"}, {"/", "x"})}},
		{.what = "each folder once",
		 .no_disks = true,
		 .guest = {.files = LIST("/disks/a", "/b", "/disks/c")},
		 .reasons = {NO_DISKS}},
		{.what = "every folder",
		 .node = {.unreached = UNREACHED({"/", "does not answer within 5 s"}, {"/disks", "x"})},
		 .guest = {.files = LIST("/disks/a", "/b")},
		 .reasons = {"does not reach its folder /disks: x",
			     "does not reach its folder /: does not answer within 5 s"}},
		{.what = "kept apart",
		 .rule = {"pair", .apart = true, .hard = true, together_vms},
		 .vms = {{.name = "db", .owner = "n1", .running = true}},
		 .reasons = {"rule pair keeps it apart from vm db, which is here"}},
		{.what = "kept apart, and it is leaving",
		 .rule = {"pair", .apart = true, .hard = true, together_vms},
		 .vms = {{.name = "db", .owner = "n1", .to = "n2", .running = true}}},
		{.what = "kept together",
		 .rule = {"pair", .apart = false, .hard = true, together_vms},
		 .vms = {{.name = "db", .owner = "n2", .running = true}},
		 .reasons = {"rule pair keeps it with vm db, which is on node n2"}},
		{.what = "kept together, and it comes",
		 .rule = {"pair", .apart = false, .hard = true, together_vms},
		 .vms = {{.name = "db", .owner = "n2", .to = "n1", .running = true}}},
		{.what = "a rule of others",
		 .rule = {"pair", .apart = true, .hard = true, LIST("a", "db")},
		 .vms = {{.name = "db", .owner = "n1", .running = true}}},
		{.what = "a soft rule",
		 .rule = {"pair", .apart = true, .hard = false, together_vms},
		 .vms = {{.name = "db", .owner = "n1", .running = true}}},
		{.what = "all at once, in order",
		 .down = true,
		 .no_networks = true,
		 .no_disks = true,
		 .node = {.maintenance = true},
		 .reasons = {"is not up", "is in maintenance", "has no network lan", NO_DISKS}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		row_check(&rows[i]);
}

/* ---- the choice ---- */

static void the_better_node_is_chosen(void **state)
{
	static const struct {
		const char *what;
		size_t worse; /* index of the node that something is done to; both have what else is said */
		struct placement_node node;
		struct placement_vm vm;
		int want;
	} rows[] = {
		{"equal: the name decides", 1, {0}, {0}, 0},
		{"more unpromised memory", 0, {0}, {.name = "a", .owner = "n1", .running = true, .memory = GIB}, 1},
		{"more idle cores", 0, {.load_permille = 500}, {0}, 1},
		{"fewer vcpus", 0, {0}, {.name = "a", .owner = "n1", .running = true, .vcpus = 4}, 1},
		{"one that can be emptied sooner",
		 0,
		 {0},
		 {.name = "a", .owner = "n1", .running = true, .memory = MIB, .dirty_rate = GIB},
		 1},
		{"one that fits at all", 0, {.maintenance = true}, {0}, 1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct placement_node nodes[2] = {good_node("n1"), good_node("n2")};
		struct placement_input in = {.nodes = nodes,
					     .n_nodes = 2,
					     .vms = &rows[i].vm,
					     .n_vms = rows[i].vm.name != NULL,
					     .guest = good_guest(),
					     .limits = {.wire_rate = GIB / 8}};
		struct placement_result out;

		nodes[rows[i].worse].load_permille = rows[i].node.load_permille;
		nodes[rows[i].worse].maintenance = rows[i].node.maintenance;
		placement_run(&in, &out);
		if (out.choice != rows[i].want)
			fail_msg("%s: chose %d (%u, %u)", rows[i].what, out.choice, out.nodes[0].score,
				 out.nodes[1].score);
		placement_done(&out);
	}
}

static void a_soft_rule_costs_points_and_a_remark(void **state)
{
	struct placement_node nodes[2] = {good_node("n1"), good_node("n2")};
	struct placement_vm vm = {.name = "db", .owner = "n2", .running = true};
	struct placement_rule rule = {"pair", .apart = false, .hard = false, together_vms};
	struct placement_input in = {.nodes = nodes,
				     .n_nodes = 2,
				     .vms = &vm,
				     .n_vms = 1,
				     .rules = &rule,
				     .n_rules = 1,
				     .guest = good_guest()};
	struct placement_result out;

	(void)state;
	placement_run(&in, &out);
	assert_int_equal(out.choice, 1);
	assert_string_equal(out.nodes[0].remarks[0], "rule pair keeps it with vm db, which is on node n2");
	assert_int_equal(out.nodes[0].parts[PLACEMENT_RULES], 0);
	assert_int_equal(out.nodes[1].parts[PLACEMENT_RULES], 100);
	placement_done(&out);
}

/* Numbers that a report may carry must not overflow into a good score. */
static void absurd_numbers_give_no_absurd_choice(void **state)
{
	struct placement_node nodes[2] = {good_node("n1"), good_node("n2")};
	struct placement_vm vms[2] = {
		{.name = "a", .owner = "n1", .running = true, .memory = UINT64_MAX, .dirty_rate = UINT64_MAX},
		{.name = "b", .owner = "n1", .running = true, .memory = UINT64_MAX},
	};
	struct placement_input in = {.nodes = nodes,
				     .n_nodes = 2,
				     .vms = vms,
				     .n_vms = 2,
				     .guest = good_guest(),
				     .limits = {.wire_rate = 1}};
	struct placement_result out;

	(void)state;
	nodes[0].load_permille = UINT32_MAX;
	placement_run(&in, &out);
	assert_int_equal(out.choice, 1);
	assert_false(out.nodes[0].fit);
	assert_int_equal(out.nodes[0].parts[PLACEMENT_LOAD], 0);
	for (size_t i = 0; i < 2; i++)
		assert_true(out.nodes[i].score <= 1000);
	placement_done(&out);
}

/* ---- saying it ---- */

static void nodes_that_do_not_fit_are_named_with_all_their_reasons(void **state)
{
	struct placement_node nodes[2] = {good_node("n1"), good_node("n2")};
	struct placement_input in = {.nodes = nodes, .n_nodes = 2, .guest = good_guest()};
	struct placement_result out;
	struct err e = ERR_INIT;
	size_t chosen = 7;

	(void)state;
	nodes[0].up = false;
	nodes[0].maintenance = true;
	nodes[1].networks = NULL;
	placement_run(&in, &out);
	assert_int_equal(placement_fits(&in, &out, 0, &e), -1);
	assert_string_equal(e.text, "vm web: node n1 is not up, is in maintenance; choose another node");
	assert_int_equal(placement_chosen(&in, &out, &chosen, &e), -1);
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_string_equal(e.text,
			    "vm web: no node fits: node n1 is not up, is in maintenance; node n2 has no network lan");
	assert_int_equal(chosen, 7);
	placement_done(&out);
	in.n_nodes = 0;
	placement_run(&in, &out);
	assert_int_equal(placement_chosen(&in, &out, &chosen, &e), -1);
	assert_string_equal(e.text, "vm web: no node fits: there is none");
	placement_done(&out);
}

static void thirty_nodes_with_long_reasons_fit_into_one_sentence(void **state)
{
	struct placement_node nodes[32];
	struct placement_input in = {.nodes = nodes, .n_nodes = 32, .guest = good_guest()};
	struct placement_result out;
	struct err e = ERR_INIT;
	size_t chosen;

	(void)state;
	for (int i = 0; i < 32; i++) {
		nodes[i] = good_node("a-node-with-a-rather-long-name");
		nodes[i].unreached = no_disks;
		nodes[i].networks = NULL;
	}
	placement_run(&in, &out);
	assert_int_equal(placement_chosen(&in, &out, &chosen, &e), -1);
	assert_true(strlen(e.text) < sizeof(e.text));
	placement_done(&out);
}

static void the_dry_run_shows_every_node(void **state)
{
	struct placement_node nodes[2] = {good_node("n1"), good_node("n2")};
	struct placement_input in = {.nodes = nodes, .n_nodes = 2, .guest = good_guest()};
	struct placement_result out;
	size_t chosen = 7;
	json_t *o, *first;

	(void)state;
	nodes[0].maintenance = true;
	nodes[1].cores = 1;
	placement_run(&in, &out);
	assert_int_equal(placement_chosen(&in, &out, &chosen, NULL), 0);
	assert_int_equal(chosen, 1);
	assert_int_equal(placement_fits(&in, &out, 1, NULL), 0);
	o = placement_json(&in, &out);
	assert_string_equal(json_string_value(json_object_get(o, "choice")), "n2");
	first = json_array_get(json_object_get(o, "nodes"), 0);
	assert_string_equal(json_string_value(json_object_get(first, "node")), "n1");
	assert_true(json_is_false(json_object_get(first, "fits")));
	assert_string_equal(json_string_value(json_array_get(json_object_get(first, "reasons"), 0)),
			    "is in maintenance");
	assert_string_equal(json_string_value(json_array_get(
				    json_object_get(json_array_get(json_object_get(o, "nodes"), 1), "remarks"), 0)),
			    "has only 1 cores for its 2 vcpus");
	json_decref(o);
	placement_done(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_reason_against_a_node_is_said),
		cmocka_unit_test(the_better_node_is_chosen),
		cmocka_unit_test(a_soft_rule_costs_points_and_a_remark),
		cmocka_unit_test(absurd_numbers_give_no_absurd_choice),
		cmocka_unit_test(nodes_that_do_not_fit_are_named_with_all_their_reasons),
		cmocka_unit_test(thirty_nodes_with_long_reasons_fit_into_one_sentence),
		cmocka_unit_test(the_dry_run_shows_every_node),
	};

	return cmocka_run_group_tests_name("cluster/placement", tests, NULL, NULL);
}
