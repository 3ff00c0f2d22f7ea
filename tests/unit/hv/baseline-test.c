/* SPDX-License-Identifier: Apache-2.0 */
/* CPU baselines: tables of hosts from Nehalem to EPYC against QEMU 7.2's own models, and the real QEMU of this machine.
 */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "hv/baseline.h"
#include "hv/cmdline.h"
#include "hv/vm.h"
#include "tests/unit/hv/fake-qemu.h"

static json_t *catalogue;

static int read_catalogue(void **state)
{
	json_error_t je;

	(void)state;
	catalogue = json_load_file("tests/golden/cpu/qemu-7.2.json", 0, &je);
	if (!catalogue)
		print_message("%s: %s\n", je.source, je.text);
	return catalogue ? 0 : -1;
}

static int drop_catalogue(void **state)
{
	(void)state;
	json_decref(catalogue);
	return 0;
}

/* A host: everything that one of QEMU's models has, and the changes that firmware, microcode or kernel made. */
struct machine {
	const char *name;
	const char *model;
	const char *vendor;
	const char *changes; /* "-hle,-rtm,+invtsc" */
	bool old_qemu;       /* knows no Icelake-Server-v6 */
};

static const struct machine nehalem = {"nehalem", "Nehalem-v1", "GenuineIntel", "+dca,+ds", false};
static const struct machine westmere = {"westmere", "Westmere-v2", "GenuineIntel", "", false};
static const struct machine haswell = {"haswell", "Haswell-v4", "GenuineIntel", "+arat,+tsc-adjust", false};
static const struct machine broadwell = {"broadwell", "Broadwell-v3", "GenuineIntel", "+ssbd,+md-clear", false};
static const struct machine no_tsx = {"no-tsx", "Skylake-Server-v5", "GenuineIntel", "+ssbd,-mpx", false};
static const struct machine icelake = {"icelake", "Icelake-Server-v6", "GenuineIntel", "+invtsc", false};
static const struct machine icelake_old = {"icelake-old-qemu", "Icelake-Server-v6", "GenuineIntel", "", true};
static const struct machine opteron = {"opteron", "Opteron_G5-v1", "AuthenticAMD", "", false};
static const struct machine epyc = {"epyc", "EPYC-v2", "AuthenticAMD", "+clzero", false};
static const struct machine milan = {"milan", "EPYC-Milan-v1", "AuthenticAMD", "", false};
static const struct machine tcg = {"tcg", "x86-64-v3", "any", "", false};

static json_t *host_of(const struct machine *m)
{
	json_t *features = json_deep_copy(json_object_get(json_object_get(catalogue, m->model), "features"));
	json_t *models = json_array(), *value;
	_free_ char *words = xstrdup(m->changes);
	char *save = NULL;
	const char *name;

	assert_non_null(features);
	for (char *w = strtok_r(words, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		for (size_t i = json_array_size(features); i-- > 0;)
			if (strcmp(json_string_value(json_array_get(features, i)), w + 1) == 0)
				json_array_remove(features, i);
		if (w[0] == '+')
			json_array_append_new(features, json_string(w + 1));
	}
	json_object_foreach (catalogue, name, value)
		if (!m->old_qemu || strcmp(name, "Icelake-Server-v6") != 0)
			json_array_append_new(models, json_string(name));
	return json_pack("{s:s, s:{s:s, s:s, s:i, s:o, s:o}}", "name", m->name, "cpu", "accel", "kvm", "vendor",
			 m->vendor, "qemu", 70222, "features", features, "models", models);
}

static json_t *hosts_of(const struct machine *const *list, size_t n)
{
	json_t *hosts = json_array();

	for (size_t i = 0; i < n && list[i]; i++)
		json_array_append_new(hosts, host_of(list[i]));
	return hosts;
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "(none)";
}

static bool list_has(const json_t *list, const char *name)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (strcmp(json_string_value(json_array_get(list, i)), name) == 0)
			return true;
	return false;
}

static void best_model_of_each_mix_of_hosts(void **state)
{
	static const struct {
		const struct machine *hosts[4];
		const char *model, *cpu, *best;
	} rows[] = {
		{{&nehalem}, "x86-64-v2", "x86-64-v2", "x86-64-v2"},
		{{&nehalem, &westmere}, "x86-64-v2", "x86-64-v2", "Westmere-v2"},
		{{&westmere, &icelake}, "Westmere-v2", "Westmere-v2,enforce", "Icelake-Server-v6"},
		{{&haswell, &broadwell}, "Haswell-v4", "Haswell-v4,enforce", "Broadwell-v3"},
		{{&broadwell, &no_tsx}, "Broadwell-v4", "Broadwell-v4,enforce", "Skylake-Server-v5"},
		{{&icelake, &icelake_old}, "Icelake-Server-v5", "Icelake-Server-v5,enforce", "Icelake-Server-v6"},
		{{&epyc}, "EPYC-v2", "EPYC-v2,enforce", "EPYC-v2"},
		{{&epyc, &milan}, "EPYC-v2", "EPYC-v2,enforce", "EPYC-Milan-v1"},
		{{&opteron, &milan}, "x86-64-v2", "x86-64-v2", "EPYC-Milan-v1"},
		/* Two makes: only the neutral ones. */
		{{&icelake, &milan}, "x86-64-v3", "x86-64-v3", "Icelake-Server-v6"},
		{{&haswell, &epyc}, "x86-64-v3", "x86-64-v3", "EPYC-v2"},
		{{&nehalem, &epyc}, "x86-64-v2", "x86-64-v2", "EPYC-v2"},
		{{&westmere, &opteron, &milan}, "x86-64-v2", "x86-64-v2", "EPYC-Milan-v1"},
		{{&tcg}, "x86-64-v3", "x86-64-v3", "x86-64-v3"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		json_t *hosts = hosts_of(rows[i].hosts, 4), *r = NULL;
		struct err e = ERR_INIT;

		if (baseline_compute(catalogue, hosts, &r, &e) < 0)
			fail_msg("row %zu: %s", i, e.text);
		if (strcmp(text_of(r, "model"), rows[i].model) || strcmp(text_of(r, "best"), rows[i].best) ||
		    strcmp(text_of(r, "cpu"), rows[i].cpu))
			fail_msg("row %zu: model %s cpu %s best %s", i, text_of(r, "model"), text_of(r, "cpu"),
				 text_of(r, "best"));
		/* The list that it was taken from begins with it. */
		assert_string_equal(json_string_value(json_array_get(json_object_get(r, "usable"), 0)), rows[i].model);
		json_decref(hosts);
		json_decref(r);
	}
}

static void each_host_says_what_keeps_it_from_the_best(void **state)
{
	const struct machine *list[] = {&westmere, &icelake, &icelake_old, &milan};
	json_t *hosts = hosts_of(list, 4), *r = NULL, *h;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(baseline_compute(catalogue, hosts, &r, &e), 0);
	assert_string_equal(text_of(r, "best"), "Icelake-Server-v6");
	assert_int_equal(json_integer_value(json_object_get(r, "level")), 2);
	h = json_array_get(json_object_get(r, "hosts"), 0);
	assert_string_equal(text_of(h, "own"), "Westmere-v2");
	assert_true(list_has(json_object_get(h, "lacks"), "avx2"));
	assert_true(list_has(json_object_get(h, "lacks"), "avx512f"));
	assert_false(list_has(json_object_get(h, "lacks"), "aes"));
	h = json_array_get(json_object_get(r, "hosts"), 1);
	assert_int_equal(json_array_size(json_object_get(h, "lacks")), 0);
	assert_null(json_object_get(h, "reason"));
	h = json_array_get(json_object_get(r, "hosts"), 2);
	assert_int_equal(json_array_size(json_object_get(h, "lacks")), 0);
	assert_string_equal(text_of(h, "reason"), "its QEMU is too old to know Icelake-Server-v6");
	h = json_array_get(json_object_get(r, "hosts"), 3);
	assert_string_equal(text_of(h, "reason"),
			    "its CPU is of another make (AuthenticAMD) than Icelake-Server-v6 (GenuineIntel)");
	json_decref(hosts);
	json_decref(r);
}

static void no_host_has_no_model(void **state)
{
	json_t *hosts = json_array(), *r = NULL;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(baseline_compute(catalogue, hosts, &r, &e), 0);
	assert_true(json_is_null(json_object_get(r, "model")));
	json_decref(r);
	json_decref(hosts);
}

static void older_host_is_announced_with_its_cost(void **state)
{
	const struct machine *list[] = {&icelake, &icelake};
	json_t *hosts = hosts_of(list, 2), *old = host_of(&westmere), *same = host_of(&icelake), *amd = host_of(&milan);
	json_t *r = NULL;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(baseline_cost(catalogue, hosts, old, &r, &e), 0);
	assert_string_equal(text_of(r, "model"), "Icelake-Server-v6");
	assert_string_equal(text_of(r, "with"), "Westmere-v2");
	assert_true(list_has(json_object_get(r, "lost"), "avx2"));
	assert_false(list_has(json_object_get(r, "lost"), "aes"));
	assert_true(list_has(json_object_get(r, "lacks"), "avx2"));
	assert_non_null(strstr(text_of(r, "text"), "with host westmere new guests get Westmere-v2 instead of"));
	json_decref(r);
	assert_int_equal(baseline_cost(catalogue, hosts, same, &r, &e), 0);
	assert_int_equal(json_array_size(json_object_get(r, "lost")), 0);
	assert_string_equal(text_of(r, "text"), "host icelake costs nothing: it can run Icelake-Server-v6 too");
	json_decref(r);
	assert_int_equal(baseline_cost(catalogue, hosts, amd, &r, &e), 0);
	assert_string_equal(text_of(r, "with"), "x86-64-v3");
	json_decref(r);
	json_decref(hosts);
	json_decref(old);
	json_decref(same);
	json_decref(amd);
}

static void definition_is_checked_against_a_host(void **state)
{
	static const struct {
		const char *cpu;
		const struct machine *host;
		const char *lacks; /* the first one, NULL: none */
	} rows[] = {
		{"x86-64-v2", &nehalem, NULL},         {"x86-64-v2", &milan, NULL},
		{"x86-64-v3", &nehalem, "abm"},        {"x86-64-v4", &haswell, "avx512bw"},
		{"Nehalem", &westmere, NULL},          {"Nehalem,+aes,enforce", &nehalem, "aes"},
		{"Haswell-v1", &haswell, "hle"},       {"Haswell-v1,-hle,-rtm", &haswell, NULL},
		{"EPYC,+clzero", &epyc, NULL},         {"EPYC-Rome-v2", &epyc, "amd-ssbd"},
		{"Icelake-Server-v6", &icelake, NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		json_t *host = host_of(rows[i].host), *r = NULL;
		const char *first;
		struct err e = ERR_INIT;

		if (baseline_lacks(catalogue, rows[i].cpu, json_object_get(host, "cpu"), &r, &e) < 0)
			fail_msg("%s: %s", rows[i].cpu, e.text);
		first = json_string_value(json_array_get(r, 0));
		if ((first != NULL) != (rows[i].lacks != NULL) || (first && strcmp(first, rows[i].lacks)))
			fail_msg("%s on %s lacks %s", rows[i].cpu, rows[i].host->name, first ? first : "nothing");
		json_decref(host);
		json_decref(r);
	}
}

static void unknown_models_and_those_of_one_host_are_refused(void **state)
{
	json_t *host = host_of(&haswell), *r = NULL;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(baseline_lacks(catalogue, "Haswel", json_object_get(host, "cpu"), &r, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	assert_int_equal(baseline_lacks(catalogue, "host,+aes", json_object_get(host, "cpu"), &r, &e), -1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
	assert_int_equal(baseline_lacks(catalogue, "", json_object_get(host, "cpu"), &r, &e), -1);
	json_decref(host);
}

static void nonsense_from_a_host_is_refused(void **state)
{
	static const char *const bad[] = {
		"[{}]", "[7]", "[{\"name\":\"n1\",\"cpu\":{\"vendor\":\"x\",\"features\":[1],\"models\":[]}}]",
		"[{\"name\":\"n1\",\"cpu\":{\"vendor\":\"x\",\"features\":[]}}]"};
	struct err e = ERR_INIT;
	json_t *r = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *hosts = json_loads(bad[i], 0, NULL);

		assert_int_equal(baseline_compute(catalogue, hosts, &r, &e), -1);
		assert_int_equal(e.code, ERR_PROTOCOL);
		json_decref(hosts);
	}
}

static void probe(json_t **ret_cpu, json_t **ret_catalogue)
{
	struct err e = ERR_INIT;

	if (access("/usr/bin/qemu-system-x86_64", X_OK) < 0) {
		print_message("skipped: /usr/bin/qemu-system-x86_64 is not there (apt-get install qemu-system-x86)\n");
		skip();
	}
	if (baseline_probe(NULL, ACCEL_TCG, ret_cpu, ret_catalogue, &e) < 0)
		fail_msg("%s", e.text);
}

/* Our arithmetic and QEMU's own "unavailable-features" agree about every model. */
static void real_qemu_says_the_same_about_every_model(void **state)
{
	const char *const extra[] = {NULL};
	json_t *cpu = NULL, *models = NULL, *definitions = NULL, *d;
	struct real_qemu real;
	struct err e = ERR_INIT;
	struct qmp *q = NULL;
	size_t i, compared = 0;

	(void)state;
	probe(&cpu, &models);
	real_start(&real, extra);
	assert_int_equal(qmp_open(real.path, IN_S(10), &q, &e), 0);
	assert_int_equal(qmp_call(q, "query-cpu-definitions", NULL, IN_S(10), &definitions, &e), 0);
	json_array_foreach (definitions, i, d) {
		const char *name = text_of(d, "name");
		json_t *lacks = NULL;

		if (!json_object_get(models, name))
			continue;
		assert_int_equal(baseline_lacks(models, name, cpu, &lacks, &e), 0);
		if (json_array_size(lacks) != json_array_size(json_object_get(d, "unavailable-features")))
			fail_msg("%s: we miss %zu features, QEMU %zu", name, json_array_size(lacks),
				 json_array_size(json_object_get(d, "unavailable-features")));
		for (size_t k = 0; k < json_array_size(lacks); k++)
			assert_true(list_has(json_object_get(d, "unavailable-features"),
					     json_string_value(json_array_get(lacks, k))));
		json_decref(lacks);
		compared++;
	}
	assert_true(compared > 50);
	json_decref(definitions);
	qmp_close(q);
	real_stop(&real, true);
	json_decref(cpu);
	json_decref(models);
}

/* What is chosen starts, with every feature insisted on; the next better one does not. */
static void guest_starts_with_the_model_that_was_chosen(void **state)
{
	json_t *cpu = NULL, *models = NULL, *r = NULL, *hosts;
	char dir[] = "/tmp/baseline-test-XXXXXX";
	struct vm_options opt = {.run_dir = dir, .accel = ACCEL_TCG, .incoming = true, .mark = "of the test"};
	struct err e = ERR_INIT;

	(void)state;
	probe(&cpu, &models);
	assert_non_null(mkdtemp(dir));
	hosts = json_pack("[{s:s, s:O}]", "name", "here", "cpu", cpu);
	assert_int_equal(baseline_compute(models, hosts, &r, &e), 0);
	assert_int_equal(json_integer_value(json_object_get(r, "level")), 3);
	for (int better = 0; better < 2; better++) {
		_free_ char *text = xasprintf("{\"name\":\"b1\",\"vcpus\":1,\"memory\":64,\"cpu\":\"%s\"}",
					      better ? "x86-64-v4" : text_of(r, "cpu"));
		struct def d = {0};
		struct vm *vm = NULL;

		assert_int_equal(def_parse(text, strlen(text), "b1", "/", &d, &e), 0);
		if (better) {
			assert_int_equal(vm_start(&d, &opt, &vm, &e), -1);
			assert_int_equal(e.code, ERR_PEER);
		} else {
			if (vm_start(&d, &opt, &vm, &e) < 0)
				fail_msg("%s", e.text);
			assert_string_equal(text_of(vm->state, "mark"), "of the test");
			assert_int_equal(vm_kill(vm, &e), 0);
			vm_close(vm);
		}
		def_done(&d);
	}
	rmdir(dir);
	json_decref(hosts);
	json_decref(r);
	json_decref(cpu);
	json_decref(models);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(best_model_of_each_mix_of_hosts),
		cmocka_unit_test(each_host_says_what_keeps_it_from_the_best),
		cmocka_unit_test(no_host_has_no_model),
		cmocka_unit_test(older_host_is_announced_with_its_cost),
		cmocka_unit_test(definition_is_checked_against_a_host),
		cmocka_unit_test(unknown_models_and_those_of_one_host_are_refused),
		cmocka_unit_test(nonsense_from_a_host_is_refused),
		cmocka_unit_test(real_qemu_says_the_same_about_every_model),
		cmocka_unit_test(guest_starts_with_the_model_that_was_chosen),
	};

	return cmocka_run_group_tests_name("hv/baseline", tests, read_catalogue, drop_catalogue);
}
