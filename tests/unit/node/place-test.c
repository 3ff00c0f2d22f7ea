/* SPDX-License-Identifier: Apache-2.0 */
/* What placement is told: nodes, guests, rules and limits out of the state's JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/mem.h"
#include "node/place.h"

#define NOW 1700000100000LL

static json_t *parse(const char *text)
{
	json_error_t e;
	json_t *o = json_loads(text, 0, &e);

	if (!o)
		fail_msg("%s: %s", text, e.text);
	return o;
}

static bool all_but_9(const void *arg, uint32_t id)
{
	(void)arg;
	return id != 9;
}

#define CPU_A                                                                                                          \
	"{\"vendor\": \"GenuineIntel\", \"models\": [\"x86-64-v2\", \"x86-64-v3\"], \"features\": [\"aes\", "          \
	"\"avx2\"]}"
#define CPU_B                                                                                                          \
	"{\"vendor\": \"GenuineIntel\", \"models\": [\"qemu64-v1\", \"x86-64-v2\", \"x86-64-v3\"], \"features\": "     \
	"[\"aes\"]}"
#define MEM "\"memory\": {\"total\": 8589934592, \"free\": 4294967296}"

static const char nodes_text[] =
	"[{\"name\": \"n1\", \"id\": 1, \"reported\": 1700000099000, \"report\": {" MEM
	", \"cpus\": 4, \"load\": 1.0, \"networks\": [\"lan\"], \"unreached\": {\"/disks\": \"is gone\", \"/x\": 7}, "
	"\"cpu\": " CPU_A "}},"
	"{\"name\": \"n2\", \"id\": 2, \"reported\": 1700000000000, \"report\": {" MEM ", \"cpus\": 8, \"cpu\": " CPU_B
	"}},"
	"{\"name\": \"n9\", \"id\": 9, \"reported\": 1700000099000, \"report\": {" MEM ", \"cpus\": 8}},"
	"{\"name\": \"n4\", \"id\": 4, \"reported\": null, \"report\": null}]";

static const char vms_text[] = "[{\"name\": \"web1\", \"owner\": \"n1\", \"intent\": \"running\", \"status\": "
			       "\"running\", \"memory\": 1073741824, "
			       "\"vcpus\": 2, \"migration\": \"m1\", \"detail\": {\"dirty_rate\": 5000}},"
			       "{\"name\": \"db1\", \"owner\": \"n2\", \"intent\": \"stopped\", \"status\": "
			       "\"stopped\", \"memory\": 1, \"vcpus\": 1, "
			       "\"migration\": null, \"detail\": null},"
			       "{\"name\": \"db2\", \"owner\": \"n2\", \"intent\": \"stopped\", \"status\": "
			       "\"stopping\", \"memory\": 1, \"vcpus\": 1, "
			       "\"migration\": \"m2\"},"
			       "{\"name\": \"db3\", \"owner\": \"n2\", \"intent\": \"running\", \"status\": null, "
			       "\"memory\": 1, \"vcpus\": 1}]";

static const char migrations_text[] = "[{\"id\": \"m1\", \"src\": \"n1\", \"dst\": \"n2\"},"
				      "{\"id\": \"m2\", \"src\": \"n1\", \"dst\": \"n2\"}]";

static const char catalogue_text[] = "{\"x86-64-v2\": {\"vendor\": \"any\", \"features\": [\"aes\"]},"
				     "\"x86-64-v3\": {\"vendor\": \"any\", \"features\": [\"aes\", \"avx2\"]}}";

/* The facts above, for a guest. */
struct setup {
	json_t *kept; /* a list that owns all of it */
	struct place_facts f;
	struct place_guest g;
};

static json_t *add(struct setup *s, const char *text)
{
	json_t *o = parse(text);

	json_array_append_new(s->kept, o);
	return o;
}

static struct setup setup(const char *settings, const char *definition)
{
	struct setup s = {.kept = json_array()};

	s.f = (struct place_facts){.nodes = add(&s, nodes_text),
				   .vms = add(&s, vms_text),
				   .migrations = add(&s, migrations_text),
				   .settings = add(&s, settings),
				   .catalogue = add(&s, catalogue_text),
				   .present = all_but_9,
				   .now_ms = NOW};
	s.g = (struct place_guest){.definition = add(&s, definition)};
	return s;
}

#define GUEST "\"name\": \"new\", \"memory\": 512, \"vcpus\": 2"

static void a_node_is_up_when_it_is_here_and_has_reported_lately(void **state)
{
	struct setup s = setup("[]", "{" GUEST "}");
	struct place *p = place_new(&s.f, &s.g);
	const struct placement_input *in = place_input(p);

	(void)state;
	assert_int_equal(in->n_nodes, 4);
	assert_true(in->nodes[0].up);
	assert_false(in->nodes[1].up); /* long ago */
	assert_false(in->nodes[2].up); /* not a member */
	assert_false(in->nodes[3].up); /* never */
	assert_int_equal(in->nodes[0].memory_total, 8ULL << 30);
	assert_int_equal(in->nodes[0].memory_free, 4ULL << 30);
	assert_int_equal(in->nodes[0].load_permille, 250);
	assert_string_equal(in->nodes[0].networks[0], "lan");
	assert_string_equal(in->nodes[0].unreached[0].folder, "/disks");
	assert_string_equal(in->nodes[0].unreached[0].why, "is gone");
	assert_null(in->nodes[0].unreached[1].folder); /* that is no reason */
	assert_null(in->nodes[1].unreached[0].folder); /* it has not said, so it is not held against it */
	assert_int_equal(in->nodes[3].cores, 0);
	place_free(p);
	json_decref(s.kept);
}

static void a_model_runs_where_all_its_features_are(void **state)
{
	struct setup s = setup("[]", "{" GUEST ", \"cpu\": \"x86-64-v3,+aes\"}");
	struct place *p = place_new(&s.f, &s.g);
	const struct placement_input *in = place_input(p);

	(void)state;
	assert_string_equal(in->nodes[0].models[0], "x86-64-v3");
	assert_null(in->nodes[1].models[0]); /* no avx2, though its QEMU knows the name */
	assert_null(in->nodes[2].models[0]); /* nothing known */
	assert_string_not_equal(in->nodes[0].cpu_kind, in->nodes[1].cpu_kind);
	place_free(p);
	s.f.catalogue = NULL;
	p = place_new(&s.f, &s.g);
	assert_string_equal(place_input(p)->nodes[1].models[0], "x86-64-v3"); /* the name counts */
	place_free(p);
	json_decref(s.kept);
	/* So does what a name without a version stands for. */
	s = setup("[]", "{" GUEST ", \"cpu\": \"qemu64\"}");
	s.f.catalogue = NULL;
	p = place_new(&s.f, &s.g);
	assert_string_equal(place_input(p)->nodes[1].models[0], "qemu64");
	assert_null(place_input(p)->nodes[0].models[0]);
	place_free(p);
	json_decref(s.kept);
}

static void guests_count_where_they_are_and_where_they_go(void **state)
{
	struct setup s = setup("[]", "{" GUEST "}");
	struct place *p = place_new(&s.f, &s.g);
	const struct placement_vm *vms = place_input(p)->vms;

	(void)state;
	assert_string_equal(vms[0].to, "n2");
	assert_int_equal(vms[0].dirty_rate, 5000);
	assert_true(vms[0].running);
	assert_false(vms[1].running);
	assert_true(vms[2].running); /* not down yet */
	assert_null(vms[2].to);      /* has arrived */
	assert_true(vms[3].running); /* shall run */
	place_free(p);
	json_decref(s.kept);
}

static void the_guest_is_read_out_of_its_definition(void **state)
{
	struct setup s =
		setup("[]", "{" GUEST ", \"cpu\": \"host\", \"uefi-vars\": \"/v\", \"kernel\": \"/k\", \"disks\": "
			    "[{\"file\": \"/d\"}], \"nics\": [{\"bridge\": \"br0\"}, {\"network\": \"lan\"}]}");
	const struct placement_guest *g;
	char owner[] = "n1";
	struct place *p;

	(void)state;
	s.g.owner = owner;
	p = place_new(&s.f, &s.g);
	owner[0] = 0; /* borrowed during the call only */
	g = &place_input(p)->guest;
	assert_int_equal(g->memory, 512 << 20);
	assert_string_equal(g->networks[0], "lan");
	assert_null(g->networks[1]);
	assert_string_equal(g->files[0], "/d");
	assert_string_equal(g->files[1], "/v");
	assert_string_equal(g->files[2], "/k");
	assert_null(g->files[3]);
	assert_string_equal(g->owner, "n1");
	assert_string_equal(g->owner_cpu_kind, place_input(p)->nodes[0].cpu_kind);
	place_free(p);
	json_decref(s.kept);
}

static void settings_are_limits_and_rules(void **state)
{
	struct setup s =
		setup("[{\"key\": \"placement.reserve-mib\", \"value\": 100}, {\"key\": \"placement.vcpu-ratio\", "
		      "\"value\": 3}, {\"key\": \"placement.wire-mbs\", \"value\": -5}, {\"key\": \"placement.rules\", "
		      "\"value\": [{\"name\": \"r\", \"vms\": [\"a\", 7, \"b\"], \"hard\": true}, 7]}]",
		      "{" GUEST "}");
	json_t *near = parse("[\"web1\"]");
	const struct placement_input *in;
	struct place *p;

	(void)state;
	s.g.near = near;
	p = place_new(&s.f, &s.g);
	json_decref(near); /* it is kept */
	in = place_input(p);
	assert_int_equal(in->limits.memory_reserve, 100 << 20);
	assert_int_equal(in->limits.vcpu_ratio, 3);
	assert_int_equal(in->limits.wire_rate, PLACE_WIRE_MBS * 1000000);
	assert_int_equal(in->n_rules, 3);
	assert_string_equal(in->rules[0].vms[1], "b");
	assert_true(in->rules[0].hard);
	assert_null(in->rules[1].vms[0]); /* what is no rule rules nobody */
	assert_string_equal(in->rules[2].vms[0], "new");
	assert_string_equal(in->rules[2].vms[1], "web1");
	assert_false(in->rules[2].apart);
	place_free(p);
	json_decref(s.kept);
}

static void a_node_is_found_by_name(void **state)
{
	struct setup s = setup("[]", "{" GUEST "}");
	struct place *p = place_new(&s.f, &s.g);
	struct err e = ERR_INIT;
	size_t i = 0;

	(void)state;
	assert_int_equal(place_find(p, "n9", &i, &e), 0);
	assert_int_equal(i, 2);
	assert_int_equal(place_find(p, "n7", &i, &e), -1);
	assert_int_equal(e.code, ERR_NOTFOUND);
	place_free(p);
	json_decref(s.kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_node_is_up_when_it_is_here_and_has_reported_lately),
		cmocka_unit_test(a_model_runs_where_all_its_features_are),
		cmocka_unit_test(guests_count_where_they_are_and_where_they_go),
		cmocka_unit_test(the_guest_is_read_out_of_its_definition),
		cmocka_unit_test(settings_are_limits_and_rules),
		cmocka_unit_test(a_node_is_found_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
