/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers and foreign words as people read them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"

static void sizes_have_three_digits_and_the_unit_that_fits(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *wire, *memory;
	} rows[] = {
		{0, "0 B", "0 B"},
		{999, "999 B", "999 B"},
		{1000, "1.00 kB", "1000 B"},
		{1024, "1.02 kB", "1.00 KiB"},
		{812000000, "812 MB", "774 MiB"},
		{1ULL << 31, "2.15 GB", "2.00 GiB"},
		{12345678, "12.3 MB", "11.8 MiB"},
		{UINT64_MAX, "18447 PB", "16384 PiB"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char buf[TEXT_CELL];

		text_wire(buf, rows[i].bytes);
		assert_string_equal(buf, rows[i].wire);
		text_memory(buf, rows[i].bytes);
		assert_string_equal(buf, rows[i].memory);
	}
}

static void durations_and_clocks_say_when_nothing_is_known(void **state)
{
	static const struct {
		int64_t ns;
		const char *duration, *clock;
	} rows[] = {
		{-1, "-", "-:--"},
		{0, "0.00 ms", "0:00"},
		{1, "0.00 ms", "0:01"},
		{2910000, "2.91 ms", "0:01"},
		{412 * NS_PER_MS, "412 ms", "0:01"},
		{8930 * NS_PER_MS, "8.93 s", "0:09"},
		{125 * NS_PER_S, "2:05 min", "2:05"},
		{3723 * NS_PER_S, "1:02:03 h", "1:02:03"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char buf[TEXT_CELL];

		text_duration(buf, rows[i].ns);
		assert_string_equal(buf, rows[i].duration);
		text_clock(buf, rows[i].ns);
		assert_string_equal(buf, rows[i].clock);
	}
}

static void text_of_others_cannot_disturb_a_terminal(void **state)
{
	static const struct {
		const char *text, *clean;
	} rows[] = {
		{NULL, ""},
		{"plain", "plain"},
		{"two\nlines\tand \033[31mred\177", "two lines and ?[31mred?"},
		{"gr\303\274n", "gr\303\274n"},
		{"\302\23331m", "??31m"}, /* U+009B begins a control sequence, too */
		{"\302\240", "\302\240"},
		{"no \377 UTF-8 \303\274", "no ? UTF-8 ??"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		_free_ char *clean = text_clean(rows[i].text);

		assert_string_equal(clean, rows[i].clean);
	}
}

static void a_mistyped_word_is_near_when_two_letters_are_wrong_at_most(void **state)
{
	static const char *const words[] = {"start", "stop", "show", "migrate", "to", NULL};
	_free_ char *longest = xcalloc(1, 4096);

	(void)state;
	memset(longest, 'a', 4095);
	assert_string_equal(text_nearest("strat", words), "start");
	assert_string_equal(text_nearest("migarte", words), "migrate");
	assert_string_equal(text_nearest("sotp", words), "stop");
	assert_null(text_nearest("console", words));
	assert_null(text_nearest("xy", words));
	assert_null(text_nearest("", words));
	assert_null(text_nearest(longest, words));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_have_three_digits_and_the_unit_that_fits),
		cmocka_unit_test(durations_and_clocks_say_when_nothing_is_known),
		cmocka_unit_test(text_of_others_cannot_disturb_a_terminal),
		cmocka_unit_test(a_mistyped_word_is_near_when_two_letters_are_wrong_at_most),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
