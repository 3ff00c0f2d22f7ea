/* SPDX-License-Identifier: Apache-2.0 */
/* node.json: what was written is read back, what is damaged is refused with a next step. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above it. */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "node/identity.h"

static char dir[] = "/tmp/godwit-identity-XXXXXX";
static char *path;

static int make(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(dir));
	path = xasprintf("%s/node.json", dir);
	return 0;
}

static int unmake(void **state)
{
	(void)state;
	unlink(path);
	free(path);
	return rmdir(dir);
}

static void write_text(const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void a_host_without_the_file_belongs_to_no_cluster(void **state)
{
	struct identity id;
	struct err e = ERR_INIT;

	(void)state;
	unlink(path);
	assert_int_equal(identity_read(path, &id, &e), 0);
	assert_false(identity_is_set(&id));
}

static void what_was_written_is_read_back(void **state)
{
	struct identity in = {.cluster = "prod",
			      .node = "n2",
			      .id = 2,
			      .addresses = {"10.0.0.2", "fd00::2"},
			      .n_addresses = 2,
			      .history = 0xfedcba9876543210,
			      .qdevice = "witness.example.com"};
	struct identity out;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(identity_write(path, &in, &e), 0);
	assert_int_equal(identity_read(path, &out, &e), 0);
	assert_memory_equal(&in, &out, sizeof(in));
	in.history = 0;
	memset(in.qdevice, 0, sizeof(in.qdevice));
	in.n_addresses = 0;
	memset(in.addresses, 0, sizeof(in.addresses));
	assert_int_equal(identity_write(path, &in, &e), 0);
	assert_int_equal(identity_read(path, &out, &e), 0);
	assert_memory_equal(&in, &out, sizeof(in));
}

static void a_file_that_is_wrong_is_refused_with_a_next_step(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{"", "not JSON"},
		{"[]", "no format"},
		{"{\"format\": 9}", "start the newer godwitd"},
		{"{\"format\": 1, \"cluster\": \"prod\"}", "a field is missing"},
		{"{\"format\": 1, \"cluster\": \"Prod!\", \"node\": \"n1\", \"id\": 1, \"addresses\": []}",
		 "wrong value"},
		{"{\"format\": 1, \"cluster\": \"prod\", \"node\": \"n1\", \"id\": 0, \"addresses\": []}",
		 "wrong value"},
		{"{\"format\": 1, \"cluster\": \"prod\", \"node\": \"n1\", \"id\": 1, \"addresses\": [\"here\"]}",
		 "wrong value"},
		{"{\"format\": 1, \"cluster\": \"prod\", \"node\": \"n1\", \"id\": 1, \"addresses\": [], \"history\": "
		 "\"x\"}",
		 "wrong value"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct identity id;
		struct err e = ERR_INIT;

		write_text(cases[i].text);
		assert_int_equal(identity_read(path, &id, &e), -1);
		if (!strstr(e.text, cases[i].says) || !strstr(e.text, path))
			fail_msg("%s: %s", cases[i].text, e.text);
		assert_false(identity_is_set(&id));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_host_without_the_file_belongs_to_no_cluster),
		cmocka_unit_test(what_was_written_is_read_back),
		cmocka_unit_test(a_file_that_is_wrong_is_refused_with_a_next_step),
	};

	return cmocka_run_group_tests(tests, make, unmake);
}
