/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at real folders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "hv/reach.h"

static char dir[] = "/tmp/hv-reach-test-XXXXXX";

static void note(void *arg, const char *folder, const char *why)
{
	json_object_set_new(arg, folder, why ? json_string(why) : json_null());
}

static void each_folder_is_told_with_the_reason(void **state)
{
	_free_ char *file = xasprintf("%s/file", dir), *other = xasprintf("%s/other", dir);
	_free_ char *below = xasprintf("%s/below", file), *gone = xasprintf("%s/gone", dir);
	_free_ char *empty = xasprintf("%s/empty", dir), *odd = xasprintf("%s/odd", dir);
	_free_ char *odd_file = xasprintf("%s/x", odd), *empty_file = xasprintf("%s/x", empty);
	json_t *folders = json_pack("{s:[s, s], s:[s], s:[], s:[], s:[s, s], s:[]}", dir, other, file, empty,
				    empty_file, odd, file, gone, gone, below, below);
	json_t *told = json_object(), *want;
	struct err e = ERR_INIT;
	FILE *f = fopen(file, "w");

	(void)state;
	assert_non_null(f);
	fclose(f);
	assert_int_equal(mkdir(empty, 0700), 0);
	assert_int_equal(mkdir(odd, 0700), 0);
	json_object_set_new(folders, odd, json_array()); /* without files the folder is enough */
	json_object_set_new(folders, odd_file, json_array());
	json_object_set_new(folders, gone, json_pack("[s]", file));
	assert_int_equal(reach_look(folders, note, told, &e), 0);
	want = json_pack("{s:n, s:s, s:n, s:s, s:s, s:s, s:s}", dir, empty,
			 "the folder is there, and none of the guests' files in it (1)", odd, file, "Not a directory",
			 gone, "No such file or directory", below, "Not a directory", odd_file,
			 "No such file or directory");
	if (!json_equal(told, want)) {
		_free_ char *text = json_dumps(told, 0);

		fail_msg("%s", text);
	}
	json_decref(want);
	json_decref(told);
	json_decref(folders);
	rmdir(empty);
	rmdir(odd);
	unlink(file);
	rmdir(dir);
}

static void other_json_is_refused(void **state)
{
	static const char *const rows[] = {"[]", "{\"a\": []}", "{\"/a\": {}}", "{\"/a\": [7]}", "{\"\": []}"};
	json_t *many = json_object();
	struct err e = ERR_INIT;
	char name[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		json_t *o = json_loads(rows[i], 0, NULL);

		assert_int_equal(reach_look(o, note, NULL, &e), -1);
		assert_int_equal(e.code, ERR_INPUT);
		json_decref(o);
	}
	for (int i = 0; i <= REACH_FOLDERS_MAX; i++) {
		snprintf(name, sizeof(name), "/%d", i);
		json_object_set_new(many, name, json_array());
	}
	assert_int_equal(reach_look(many, note, NULL, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	json_decref(many);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_folder_is_told_with_the_reason),
		cmocka_unit_test(other_json_is_refused),
	};

	if (!mkdtemp(dir))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
