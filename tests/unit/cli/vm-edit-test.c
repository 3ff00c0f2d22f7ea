/* SPDX-License-Identifier: Apache-2.0 */
/* godwit vm edit: in an editor, and from a file. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tests/unit/cli/fake.h"

#define VERSION3 "{\"version\":3,\"time\":1,\"definition\":{\"name\":\"web1\",\"memory\":512,\"vcpus\":1}}"

static int start(void **state)
{
	fake_start(state);
	setenv("TMPDIR", fake_path("."), 1);
	fake_answer("GET", "/v1/vms/web1/definition", 200, VERSION3);
	return 0;
}

static int stop(void **state)
{
	unsetenv("TMPDIR");
	return fake_stop(state);
}

/* An editor: a shell command that gets the name of the file. */
static void editor(const char *command)
{
	setenv("EDITOR", command, 1);
}

/* The file that an edit has left, or NULL. Caller frees. */
static char *left_file(void)
{
	DIR *d = opendir(fake_path("."));
	char *name = NULL;

	for (struct dirent *entry; d && (entry = readdir(d));)
		if (strncmp(entry->d_name, "godwit-", 7) == 0)
			name = xstrdup(fake_path(entry->d_name));
	closedir(d);
	return name;
}

static void what_the_editor_made_of_it_replaces_the_version_that_was_read(void **state)
{
	struct fake_run run;

	(void)state;
	editor("sed -i s/512/1024/");
	fake_answer("PUT", "/v1/vms/web1", 200, "{\"name\":\"web1\",\"version\":4}");
	FAKE_RUN(&run, "vm", "edit", "web1");
	assert_int_equal(run.status, 0);
	fake_assert_json(fake_find("PUT", "/v1/vms/web1")->body,
			 "{\"definition\":{\"name\":\"web1\",\"memory\":1024,\"vcpus\":1},\"if_version\":3}");
	assert_string_equal(run.out, "vm web1: version 4; it counts from the next start\n");
	assert_null(left_file());
	fake_run_done(&run);
}

static void visual_is_asked_before_editor(void **state)
{
	struct fake_run run;

	(void)state;
	editor("false");
	setenv("VISUAL", "sed -i s/512/256/", 1);
	fake_answer("PUT", "/v1/vms/web1", 200, "{\"name\":\"web1\",\"version\":4}");
	FAKE_RUN(&run, "vm", "edit", "web1", "--json");
	assert_int_equal(run.status, 0);
	fake_assert_json(run.out, "{\"name\":\"web1\",\"version\":4}");
	fake_run_done(&run);
}

static void nothing_is_sent_when_nothing_is_changed(void **state)
{
	struct fake_run run;

	(void)state;
	editor("touch");
	FAKE_RUN(&run, "vm", "edit", "web1");
	assert_int_equal(run.status, 0);
	assert_string_equal(run.err, "vm web1: nothing is changed\n");
	assert_int_equal(fake_count(), 1);
	assert_null(left_file());
	fake_run_done(&run);
}

static void an_editor_that_fails_changes_nothing(void **state)
{
	struct fake_run run;

	(void)state;
	editor("exit 1; :");
	FAKE_RUN(&run, "vm", "edit", "web1");
	assert_int_equal(run.status, 8);
	assert_int_equal(fake_count(), 1);
	assert_null(left_file());
	fake_run_done(&run);
}

static void a_text_that_is_wrong_or_refused_is_kept(void **state)
{
	static const char *const editors[] = {"sed -i s/512/,/", "sed -i s/512/1/"};
	static const int statuses[] = {3, 5};
	struct fake_run run;

	(void)state;
	fake_answer("PUT", "/v1/vms/web1", 409,
		    "{\"error\":{\"code\":\"conflict\",\"message\":\"vm web1 is at version 4, not 3\"}}");
	for (size_t i = 0; i < ARRAY_SIZE(editors); i++) {
		_free_ char *file = NULL;
		_free_ char *hint = NULL;
		struct stat st;

		editor(editors[i]);
		FAKE_RUN(&run, "vm", "edit", "web1");
		assert_int_equal(run.status, statuses[i]);
		file = left_file();
		assert_non_null(file);
		hint = xasprintf("`godwit vm edit web1 --file %s`", strrchr(file, '/') + 1);
		assert_non_null(strstr(run.err, "your text is kept: "));
		assert_non_null(strstr(run.err, strrchr(file, '/')));
		assert_int_equal(stat(file, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
		unlink(file);
		fake_run_done(&run);
	}
}

static void without_a_terminal_there_must_be_an_editor_or_a_file(void **state)
{
	struct fake_run run;

	(void)state;
	FAKE_RUN(&run, "vm", "edit", "web1");
	assert_int_equal(run.status, 2);
	assert_non_null(strstr(run.err, "vm edit without a terminal needs --file FILE, or an editor in $EDITOR"));
	fake_run_done(&run);
}

static void a_file_replaces_the_definition_without_an_editor(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("PUT", "/v1/vms/web1", 200, "{\"name\":\"web1\",\"version\":4}");
	FAKE_RUN(&run, "vm", "edit", "web1", "--file", fake_file("web1.json", "{\"name\":\"web1\"}"));
	assert_int_equal(run.status, 0);
	fake_assert_json(fake_find("PUT", "/v1/vms/web1")->body, "{\"definition\":{\"name\":\"web1\"}}");
	assert_int_equal(fake_count_of("GET", "/v1/vms/web1/definition"), 0);
	fake_run_done(&run);
}

static void a_file_from_standard_input_may_ask_for_a_version(void **state)
{
	FILE *in = fopen(fake_file("web1.json", "{\"name\":\"web1\"}"), "r");
	struct fake_run run;

	(void)state;
	assert_non_null(in);
	fake_io.in_fd = fileno(in);
	fake_answer("PUT", "/v1/vms/web1", 200, "{\"name\":\"web1\",\"version\":8}");
	FAKE_RUN(&run, "vm", "edit", "web1", "--file", "-", "--if-version", "7");
	assert_int_equal(run.status, 0);
	fake_assert_json(fake_find("PUT", "/v1/vms/web1")->body,
			 "{\"definition\":{\"name\":\"web1\"},\"if_version\":7}");
	fake_run_done(&run);
	fclose(in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_the_editor_made_of_it_replaces_the_version_that_was_read, start,
						stop),
		cmocka_unit_test_setup_teardown(visual_is_asked_before_editor, start, stop),
		cmocka_unit_test_setup_teardown(nothing_is_sent_when_nothing_is_changed, start, stop),
		cmocka_unit_test_setup_teardown(an_editor_that_fails_changes_nothing, start, stop),
		cmocka_unit_test_setup_teardown(a_text_that_is_wrong_or_refused_is_kept, start, stop),
		cmocka_unit_test_setup_teardown(without_a_terminal_there_must_be_an_editor_or_a_file, start, stop),
		cmocka_unit_test_setup_teardown(a_file_replaces_the_definition_without_an_editor, start, stop),
		cmocka_unit_test_setup_teardown(a_file_from_standard_input_may_ask_for_a_version, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
