/* SPDX-License-Identifier: Apache-2.0 */
/* Tables, records and the line of progress. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/progress.h"
#include "cli/view.h"

static const struct view_column columns[] = {
	{"NAME", "name", VIEW_TEXT}, {"SIZE", "size", VIEW_BYTES}, {"IN", "deep.er", VIEW_TEXT},
	{"LIST", "list", VIEW_LIST}, {NULL, NULL, VIEW_TEXT},
};

static char *print(const char *json, const struct view_column *c)
{
	json_t *v = json_loads(json, JSON_DECODE_ANY, NULL);
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);

	assert_non_null(v);
	view_print(out, v, c);
	fclose(out);
	json_decref(v);
	return text;
}

static void a_table_is_as_wide_as_what_is_in_it(void **state)
{
	_free_ char *text = print("[{\"name\":\"a-long-name\",\"size\":1024,\"list\":[\"x\",1,true]},"
				  "{\"name\":\"b\",\"size\":null,\"deep\":{\"er\":7}},"
				  "{\"name\":\"gr\\u00fcn\",\"size\":\"?\"}]",
				  columns);

	(void)state;
	assert_string_equal(text, "NAME             SIZE  IN  LIST\n"
				  "a-long-name  1.00 KiB  -   x, 1, yes\n"
				  "b                   -  7   -\n"
				  "gr\303\274n                ?  -   -\n");
}

static void an_empty_list_is_its_titles(void **state)
{
	_free_ char *text = print("[]", columns);

	(void)state;
	assert_string_equal(text, "NAME  SIZE  IN  LIST\n");
}

static void a_record_leaves_out_what_is_not_there(void **state)
{
	_free_ char *text = print("{\"name\":\"a\",\"size\":null,\"deep\":{\"er\":\"x\"},\"list\":[]}", columns);

	(void)state;
	assert_string_equal(text, "NAME  a\nIN    x\n");
}

static void values_of_the_wrong_type_and_of_others_are_shown_harmlessly(void **state)
{
	static const struct view_column all[] = {
		{"a", "a", VIEW_TEXT},    {"b", "b", VIEW_BYTES},   {"c", "c", VIEW_TIME},   {"d", "d", VIEW_MS},
		{"e", "e", VIEW_PERCENT}, {"f", "f", VIEW_LIST},    {"g", "g.h", VIEW_TEXT}, {"h", "h", VIEW_BYTES},
		{"i", "i", VIEW_MS},      {"j", "j", VIEW_PERCENT}, {NULL, NULL, VIEW_TEXT},
	};
	_free_ char *text = print(
		"{\"a\":\"\\u001b[2Jx\\ny\",\"b\":\"many\",\"c\":\"today\",\"d\":-1,\"e\":7.5,\"f\":\"x\",\"g\":1,"
		"\"h\":1e30,\"i\":1e17,\"j\":-0.5}",
		all);

	(void)state;
	assert_string_equal(
		text, "a  ?[2Jx y\nb  many\nc  today\nd  -1\ne  100 %\nf  x\nh  1e30\ni  2562047:47:17 h\nj  -0.5\n");
}

/* ---- progress ---- */

static void the_line_of_progress_has_what_the_terminal_holds(void **state)
{
	static const struct progress all = {.what = "web1",
					    .step = "copying",
					    .done = 0.345,
					    .eta_ns = 62 * NS_PER_S,
					    .wire_rate = 112e6,
					    .dirty_rate = 20e6,
					    .remaining = 512 << 20};
	static const struct {
		int columns;
		const char *line;
	} rows[] = {
		{200, "web1  [##########--------------------]   34 %  copying  sends 112 MB/s  writes 20.0 MB/s  left "
		      "512 MiB  ETA "
		      "1:02"},
		{80, "web1  [####-------]   34 %  copying  sends 112 MB/s  writes 20.0 MB/s  ETA 1:02"},
		{70, "web1  [#######------------]   34 %  copying  sends 112 MB/s  ETA 1:02"},
		{50, "web1  [#####----------]   34 %  copying  ETA 1:02"},
		{40, "web1  [#####----------]   34 %  copying"},
		{30, "web1  [#####---------]   34 %"},
		{20, "34 %"},
		{0, "34 %"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char line[PROGRESS_LINE_MAX];

		progress_line(line, &all, rows[i].columns);
		assert_string_equal(line, rows[i].line);
	}
}

static void less_room_never_shows_more(void **state)
{
	static const char *const parts[] = {"copying", "ETA", "MB/s", "left"};
	static const struct progress p = {
		.what = "web1", .step = "copying", .done = 0.5, .wire_rate = 1e8, .remaining = 1};
	bool gone[ARRAY_SIZE(parts)] = {false};

	(void)state;
	for (int width = 200; width > 0; width--) {
		char line[PROGRESS_LINE_MAX];

		progress_line(line, &p, width);
		if (width >= 6 && (int)strlen(line) >= width)
			fail_msg("%d columns: \"%s\"", width, line);
		for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
			if (gone[i] && strstr(line, parts[i]))
				fail_msg("%d columns: %s is back: \"%s\"", width, parts[i], line);
			gone[i] |= !strstr(line, parts[i]);
		}
	}
}

static void unknown_progress_and_nonsense_are_harmless(void **state)
{
	static const double done[] = {0, 0.999, 1, 7, 0.0 / 0.0, 1e300};
	static const char *const percent[] = {"  0 %", " 99 %", "100 %", "100 %", "  0 %", "100 %"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(done); i++) {
		struct progress p = {.what = "web1", .step = "", .done = done[i], .eta_ns = -1};
		char line[PROGRESS_LINE_MAX];

		progress_line(line, &p, 80);
		if (!strstr(line, percent[i]) || !strstr(line, "ETA -:--"))
			fail_msg("%f: %s", done[i], line);
	}
}

static void what_is_not_counted_shows_its_time(void **state)
{
	struct progress p = {.what = "web1", .step = "", .done = -1, .eta_ns = -1, .elapsed_ns = 61 * NS_PER_S};
	char line[PROGRESS_LINE_MAX];

	(void)state;
	progress_line(line, &p, 80);
	assert_string_equal(line, "web1  1:01");
	progress_line(line, &p, 13);
	assert_string_equal(line, "we  1:01");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_table_is_as_wide_as_what_is_in_it),
		cmocka_unit_test(an_empty_list_is_its_titles),
		cmocka_unit_test(a_record_leaves_out_what_is_not_there),
		cmocka_unit_test(values_of_the_wrong_type_and_of_others_are_shown_harmlessly),
		cmocka_unit_test(the_line_of_progress_has_what_the_terminal_holds),
		cmocka_unit_test(less_room_never_shows_more),
		cmocka_unit_test(what_is_not_counted_shows_its_time),
		cmocka_unit_test(unknown_progress_and_nonsense_are_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
