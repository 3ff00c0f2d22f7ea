/* SPDX-License-Identifier: Apache-2.0 */
/* Definitions that come over the API: completed, networks kept by name, and nothing of one host let in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/mem.h"
#include "node/define.h"

#define UUID "6ba7b810-9dad-41d1-80b4-00c04fd430c8"

static json_t *parse(const char *text)
{
	json_error_t e;
	json_t *o = json_loads(text, 0, &e);

	if (!o)
		fail_msg("%s: %s", text, e.text);
	return o;
}

static json_t *define(const char *text, const char *uuid, struct err *e)
{
	json_t *networks = parse("[{\"name\": \"lan\", \"bridge\": \"br0\", \"vlan\": 0}]"), *given = parse(text);
	json_t *ret = define_guest(given, networks, uuid, e);

	json_decref(given);
	json_decref(networks);
	return ret;
}

static void what_is_left_out_is_written_out(void **state)
{
	struct err e = ERR_INIT;
	json_t *d = define("{\"name\": \"a\", \"vcpus\": 2, \"memory\": \"1G\"}", NULL, &e);

	(void)state;
	assert_non_null(d);
	assert_int_equal(json_integer_value(json_object_get(d, "memory")), 1024);
	assert_int_equal(json_string_length(json_object_get(d, "uuid")), 36);
	assert_string_equal(json_string_value(json_object_get(d, "machine")), "q35");
	json_decref(d);
}

static void a_guest_keeps_its_uuid(void **state)
{
	struct err e = ERR_INIT;
	json_t *d = define("{\"name\": \"a\", \"vcpus\": 2, \"memory\": 64}", UUID, &e);

	(void)state;
	assert_string_equal(json_string_value(json_object_get(d, "uuid")), UUID);
	json_decref(d);
}

static void a_network_stays_a_name(void **state)
{
	struct err e = ERR_INIT;
	json_t *d = define("{\"name\": \"a\", \"vcpus\": 1, \"memory\": 64, \"nics\": [{\"type\": \"tap\", \"bridge\": "
			   "\"br9\"}, {\"type\": \"tap\", \"network\": \"lan\"}]}",
			   UUID, &e),
	       *nics = json_object_get(d, "nics");

	(void)state;
	assert_string_equal(json_string_value(json_object_get(json_array_get(nics, 0), "bridge")), "br9");
	assert_string_equal(json_string_value(json_object_get(json_array_get(nics, 1), "network")), "lan");
	assert_null(json_object_get(json_array_get(nics, 1), "bridge"));
	assert_int_equal(json_string_length(json_object_get(json_array_get(nics, 1), "mac")), 17);
	json_decref(d);
}

static const struct {
	const char *more; /* behind name, vcpus, memory */
	enum err_code code;
	const char *words;
} wrong[] = {
	{"\"nics\": [{\"type\": \"tap\", \"network\": \"wan\"}]", ERR_NOTFOUND,
	 "nics[0].network: there is no network wan"},
	{"\"nics\": [{\"type\": \"user\", \"network\": \"lan\"}]", ERR_INPUT, "nics[0].network: goes with type tap"},
	{"\"nics\": [{\"type\": \"tap\", \"network\": \"lan\", \"bridge\": \"br0\"}]", ERR_INPUT,
	 "in the place of a bridge"},
	{"\"nics\": [{\"type\": \"tap\", \"network\": 7}]", ERR_INPUT, "nics[0].network"},
	{"\"nics\": [{\"type\": \"tap\"}]", ERR_INPUT, "nics[0].bridge: is missing"},
	{"\"kernel\": \"vmlinuz\"", ERR_INPUT, "kernel: \"vmlinuz\" is not absolute"},
	{"\"disks\": [{\"file\": \"../etc/shadow\", \"format\": \"raw\"}]", ERR_INPUT, "disks[0].file"},
	{"\"seed\": {\"user-data-file\": \"/etc/shadow\"}", ERR_INPUT, "give the text as user-data"},
	{"\"seed\": {\"network-config-file\": \"/etc/shadow\"}", ERR_INPUT, "give the text as network-config"},
	{"\"cores\": 4", ERR_INPUT, "cores"},
	{"\"firmware\": \"efi\"", ERR_INPUT, "firmware"},
};

static void what_is_wrong_is_named(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		_free_ char *text = xasprintf("{\"name\": \"a\", \"vcpus\": 1, \"memory\": 64, %s}", wrong[i].more);
		struct err e = ERR_INIT;

		assert_null(define(text, NULL, &e));
		assert_int_equal(e.code, wrong[i].code);
		if (!strstr(e.text, wrong[i].words))
			fail_msg("%s: %s", text, e.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_left_out_is_written_out),
		cmocka_unit_test(a_guest_keeps_its_uuid),
		cmocka_unit_test(a_network_stays_a_name),
		cmocka_unit_test(what_is_wrong_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
