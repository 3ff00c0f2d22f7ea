/* SPDX-License-Identifier: Apache-2.0 */
/* From files of guests to folders, and how much of them a report says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "hv/reach.h"
#include "node/folders.h"

static void files_become_folders(void **state)
{
	json_t *files = json_pack("[{s:s, s:i}, {s:s, s:i}, {s:s, s:i}, {s:s, s:i}, {s:s, s:i}, {s:n, s:i}]", "file",
				  "/a/b/1", "made", 0, "file", "/a/b/2", "made", 0, "file", "/root", "made", 0, "file",
				  "/vars/x", "made", 1, "file", "relative/x", "made", 0, "file", "made", 0);
	json_t *want = json_pack("{s:[s, s], s:[s], s:[]}", "/a/b", "/a/b/1", "/a/b/2", "/", "/root", "/vars"),
	       *folders;
	bool full;

	(void)state;
	folders = folders_of(files, &full);
	assert_true(json_equal(folders, want));
	assert_false(full);
	json_decref(folders);
	json_decref(want);
	json_decref(files);
}

static void no_more_folders_than_can_be_looked_at(void **state)
{
	json_t *files = json_array(), *folders;
	char file[32];
	bool full;

	(void)state;
	for (int i = 0; i < REACH_FOLDERS_MAX; i++) {
		snprintf(file, sizeof(file), "/%d/x", i);
		json_array_append_new(files, json_pack("{s:s, s:i}", "file", file, "made", 0));
	}
	folders = folders_of(files, &full);
	assert_int_equal(json_object_size(folders), REACH_FOLDERS_MAX);
	assert_false(full);
	json_decref(folders);
	json_array_append_new(files, json_pack("{s:s, s:i}", "file", "/one/more", "made", 0));
	json_array_append_new(files, json_pack("{s:s, s:i}", "file", "/7/y", "made", 0));
	folders = folders_of(files, &full);
	assert_int_equal(json_object_size(folders), REACH_FOLDERS_MAX);
	assert_int_equal(json_array_size(json_object_get(folders, "/7")), 2);
	assert_null(json_object_get(folders, "/one"));
	assert_true(full);
	json_decref(folders);
	json_decref(files);
}

static void a_report_says_no_more_than_it_holds(void **state)
{
	json_t *all = json_object(), *said;
	char folder[256];

	(void)state;
	assert_null(folders_report(all));
	for (int i = 0; i < REACH_FOLDERS_MAX; i++) {
		memset(folder, '"', sizeof(folder) - 1); /* twice as long in JSON */
		folder[sizeof(folder) - 1] = 0;
		folder[snprintf(folder, sizeof(folder), "/%d", i)] = '/';
		json_object_set_new(all, folder, json_string("is gone"));
	}
	said = folders_report(all);
	assert_in_range(json_object_size(said), 50, REACH_FOLDERS_MAX / 2);
	assert_in_range(json_dumpb(said, NULL, 0, JSON_COMPACT), FOLDERS_REPORT_MAX * 9 / 10, FOLDERS_REPORT_MAX);
	json_decref(said);
	json_decref(all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_become_folders),
		cmocka_unit_test(no_more_folders_than_can_be_looked_at),
		cmocka_unit_test(a_report_says_no_more_than_it_holds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
