/* SPDX-License-Identifier: Apache-2.0 */
/* Which guest fits into which QEMU, in words; and what a QEMU is asked to find out. */
#include "migrate/compat.h"

#include "tests/unit/hv/fake-qemu.h"

#define FEATURES(edx)                                                                                                  \
	"\"features\": [{\"cpuid-input-eax\": 1, \"cpuid-register\": \"EDX\", \"features\": " edx "}, "                \
	"{\"cpuid-input-eax\": 7, \"cpuid-input-ecx\": 0, \"cpuid-register\": \"EBX\", \"features\": 8}]"
#define GUEST(machine, cpu, vcpus, memory, ram, edx)                                                                   \
	"{\"qemu\": 70200, \"machine\": \"" machine "\", \"cpu\": \"" cpu "\", \"vcpus\": " vcpus                      \
	", \"memory\": " memory ", \"ram\": {" ram "}, " FEATURES(edx) "}"
#define USUAL GUEST("pc-q35-7.2-machine", "qemu64-x86_64-cpu", "2", "1073741824", "\"ram0\": 1073741824", "7")

/* The verdict on a guest of @src in @dst. */
static int verdict(const char *src, const char *dst, struct err *e)
{
	json_t *a = json_loads(src, 0, NULL), *b = json_loads(dst, 0, NULL);
	int r;

	assert_true(a && b);
	*e = ERR_INIT;
	r = compat_check(a, b, e);
	json_decref(a);
	json_decref(b);
	return r;
}

static const struct {
	const char *what, *dst;
	const char *words[4];
} others[] = {
	{"another machine type",
	 GUEST("pc-i440fx-7.2-machine", "qemu64-x86_64-cpu", "2", "1073741824", "\"ram0\": 1073741824", "7"),
	 {"machine type", "pc-q35-7.2", "pc-i440fx-7.2", "start the destination with the source's"}},
	{"another CPU",
	 GUEST("pc-q35-7.2-machine", "Nehalem-x86_64-cpu", "2", "1073741824", "\"ram0\": 1073741824", "7"),
	 {"CPU model", "qemu64", "Nehalem", "start the destination"}},
	{"fewer vCPUs",
	 GUEST("pc-q35-7.2-machine", "qemu64-x86_64-cpu", "1", "1073741824", "\"ram0\": 1073741824", "7"),
	 {"number of vCPUs", "2 here", "1 at the destination", ""}},
	{"less memory",
	 GUEST("pc-q35-7.2-machine", "qemu64-x86_64-cpu", "2", "536870912", "\"ram0\": 1073741824", "7"),
	 {"memory in bytes", "1073741824 here", "536870912 at", ""}},
	{"another memory backend",
	 GUEST("pc-q35-7.2-machine", "qemu64-x86_64-cpu", "2", "1073741824", "\"mem\": 1073741824", "7"),
	 {"memory backend \"ram0\"", "missing", "-object", ""}},
	{"a memory backend of another size",
	 GUEST("pc-q35-7.2-machine", "qemu64-x86_64-cpu", "2", "1073741824", "\"ram0\": 4096", "7"),
	 {"memory backend \"ram0\"", "another size", "", ""}},
	{"a CPU that lacks a feature",
	 GUEST("pc-q35-7.2-machine", "qemu64-x86_64-cpu", "2", "1073741824", "\"ram0\": 1073741824", "5"),
	 {"lacks features", "CPUID 1 EDX: 0x2", "", ""}},
};

static void a_guest_fits_into_its_like(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(verdict(USUAL, USUAL, &e), 0);
	assert_int_equal(e.code, ERR_NONE);
}

static void features_that_the_guest_does_not_have_are_no_hindrance(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(verdict(USUAL,
				 GUEST("pc-q35-7.2-machine", "qemu64-x86_64-cpu", "2", "1073741824",
				       "\"ram0\": 1073741824, \"more\": 1", "255"),
				 &e),
			 0);
}

static void every_difference_is_named_with_both_sides(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		struct err e;

		assert_int_equal(verdict(USUAL, others[i].dst, &e), -1);
		assert_int_equal(e.code, ERR_UNSUPPORTED);
		for (size_t w = 0; w < ARRAY_SIZE(others[i].words); w++)
			if (!strstr(e.text, others[i].words[w]))
				fail_msg("%s: \"%s\" does not say \"%s\"", others[i].what, e.text, others[i].words[w]);
		assert_null(strchr(e.text, ';'));
	}
}

static void several_differences_stand_in_one_sentence(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(verdict(USUAL, GUEST("pc-i440fx-7.2-machine", "Nehalem-x86_64-cpu", "4", "1", "", "0"), &e),
			 -1);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (i != 5 && !strstr(e.text, others[i].words[0]))
			fail_msg("\"%s\" does not say \"%s\"", e.text, others[i].words[0]);
	assert_null(strchr(e.text, '\n'));
}

static void a_description_of_anything_is_no_crash(void **state)
{
	static const char *const odd[] = {
		"{}",
		"{\"machine\": 1, \"cpu\": [], \"vcpus\": \"x\", \"memory\": {}, \"ram\": 7, \"features\": {}}",
		"{\"features\": [1, null, [], {}, {\"features\": -1}], \"ram\": {\"a\": null}}",
		"[]",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
		struct err e;

		assert_int_equal(verdict(USUAL, odd[i], &e), -1);
		verdict(odd[i], USUAL, &e);
		verdict(odd[i], odd[i], &e);
	}
	/* What a hostile peer says is bounded on its way into our sentence. */
	for (size_t n = 0; n < 2; n++) {
		_free_ char *name = xcalloc(1, 5001);
		_free_ char *text = NULL;
		struct err e;

		memset(name, 'm', 5000);
		text = xasprintf("{\"machine\": \"%s\", \"cpu\": \"%s\", \"vcpus\": 1}", name, name);
		assert_int_equal(verdict(n ? USUAL : text, n ? text : USUAL, &e), -1);
		assert_true(strlen(e.text) < ERR_TEXT_MAX);
	}
}

static void a_peer_that_describes_nothing_is_refused(void **state)
{
	json_t *here = json_loads(USUAL, 0, NULL);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(compat_check(NULL, here, &e), -1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
	json_decref(here);
}

/* ---- what QEMU says ---- */

static int movable(const char *answer, struct err *e)
{
	const struct fake_step script[] = {
		FAKE_HELLO, {FAKE_HEAR, "query-migrate", 0}, {FAKE_ANSWER, answer, 0}, {FAKE_END, NULL, 0}};
	struct fake f;
	struct qmp *q = fake_open(&f, script);
	int r;

	*e = ERR_INIT;
	r = compat_check_movable(q, IN_S(5), e);
	fake_finish(&f, q);
	return r;
}

static void a_guest_that_nothing_holds_may_move(void **state)
{
	static const char *const answers[] = {
		"\"return\": {}", "\"return\": {\"status\": \"none\"}", "\"return\": {\"status\": \"failed\"}",
		"\"return\": {\"status\": \"cancelled\"}", "\"return\": {\"status\": \"completed\"}"};
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
		assert_int_equal(movable(answers[i], &e), 0);
}

static void qemus_own_blockers_are_all_named(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(
		movable("\"return\": {\"blocked-reasons\": [\"VFIO migration is not supported\", \"another\"]}", &e),
		-1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
	assert_string_equal(e.text, "this guest cannot be moved: VFIO migration is not supported; another");
}

static void a_migration_under_way_is_left_alone(void **state)
{
	static const char *const busy[] = {"active", "setup", "device", "pre-switchover", "cancelling"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(busy); i++) {
		_free_ char *answer = xasprintf("\"return\": {\"status\": \"%s\"}", busy[i]);
		struct err e;

		assert_int_equal(movable(answer, &e), -1);
		assert_non_null(strstr(e.text, busy[i]));
		assert_non_null(strstr(e.text, "wait for it or cancel it"));
	}
}

static void a_real_qemu_describes_itself_and_fits_itself(void **state)
{
	static const char *const extra[] = {"-object", "memory-backend-ram,id=more,size=1M", "-smp", "2", NULL};
	struct real_qemu r;
	struct err e = ERR_INIT;
	struct qmp *q;
	json_t *o;

	(void)state;
	real_start(&r, extra);
	if (qmp_open(r.path, IN_S(10), &q, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(compat_check_movable(q, IN_S(5), &e), 0);
	o = compat_describe(q, IN_S(5), &e);
	assert_non_null(o);
	assert_true(json_integer_value(json_object_get(o, "qemu")) >= 70200);
	assert_non_null(strstr(json_string_value(json_object_get(o, "machine")), "pc-i440fx-"));
	assert_non_null(strstr(json_string_value(json_object_get(o, "cpu")), "qemu64"));
	assert_int_equal(json_integer_value(json_object_get(o, "vcpus")), 2);
	assert_int_equal(json_integer_value(json_object_get(o, "memory")), 64 << 20);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(o, "ram"), "more")), 1 << 20);
	assert_true(json_array_size(json_object_get(o, "features")) > 5);
	if (compat_check(o, o, &e) < 0)
		fail_msg("%s", e.text);
	json_decref(o);
	qmp_close(q);
	real_stop(&r, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_guest_fits_into_its_like),
		cmocka_unit_test(features_that_the_guest_does_not_have_are_no_hindrance),
		cmocka_unit_test(every_difference_is_named_with_both_sides),
		cmocka_unit_test(several_differences_stand_in_one_sentence),
		cmocka_unit_test(a_description_of_anything_is_no_crash),
		cmocka_unit_test(a_peer_that_describes_nothing_is_refused),
		cmocka_unit_test(a_guest_that_nothing_holds_may_move),
		cmocka_unit_test(qemus_own_blockers_are_all_named),
		cmocka_unit_test(a_migration_under_way_is_left_alone),
		cmocka_unit_test(a_real_qemu_describes_itself_and_fits_itself),
	};

	return cmocka_run_group_tests_name("compat", tests, NULL, NULL);
}
