/* SPDX-License-Identifier: Apache-2.0 */
/* The times of fencing: their rules, each of which can fail alone, and docs/timing.md, which must say what the code
 * does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "fencing/timing.h"

#define PAGE "docs/timing.md" /* tests run at the top of the tree */
#define CELLS 8

static const struct {
	const char *name;
	size_t at;
} times[] = {
	{"token", offsetof(struct timing, token_ns)},         {"detect", offsetof(struct timing, detect_ns)},
	{"beat", offsetof(struct timing, beat_ns)},           {"lease", offsetof(struct timing, lease_ns)},
	{"stop", offsetof(struct timing, stop_ns)},           {"pet", offsetof(struct timing, pet_ns)},
	{"watchdog", offsetof(struct timing, watchdog_ns)},   {"latency", offsetof(struct timing, latency_ns)},
	{"margin", offsetof(struct timing, margin_ns)},       {"expire", offsetof(struct timing, expire_ns)},
	{"disk_poll", offsetof(struct timing, disk_poll_ns)},
};

/* -1: there is no such time. */
static int64_t time_named(const struct timing *t, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(times); i++)
		if (!strcmp(times[i].name, name))
			return *(const int64_t *)((const char *)t + times[i].at);
	return -1;
}

/* ---- rules ---- */

static void every_token_gives_times_that_fit_together(void **state)
{
	(void)state;
	for (unsigned ms = TIMING_TOKEN_MS_MIN; ms <= TIMING_TOKEN_MS_MAX; ms++) {
		struct timing t;
		struct err e = ERR_INIT;

		timing_make(ms, &t);
		if (timing_check(&t, &e) < 0)
			fail_msg("%u ms: %s", ms, e.text);
		assert_int_equal(t.token_ns, ms * NS_PER_MS);
	}
}

static void a_token_out_of_range_is_taken_for_the_nearest(void **state)
{
	struct timing t;

	(void)state;
	timing_make(0, &t);
	assert_int_equal(t.token_ns, TIMING_TOKEN_MS_MIN * NS_PER_MS);
	timing_make(UINT32_MAX, &t);
	assert_int_equal(t.token_ns, TIMING_TOKEN_MS_MAX * NS_PER_MS);
}

static void break_detect(struct timing *t)
{
	t->detect_ns = t->token_ns * 2;
}

static void break_ring(struct timing *t)
{
	t->detect_ns = t->lease_ns - t->beat_ns;
}

static void break_beats(struct timing *t)
{
	t->detect_ns = t->token_ns * 11 / 5;
	t->beat_ns = t->lease_ns / 8 + 1;
}

static void break_latency(struct timing *t)
{
	t->latency_ns = t->token_ns / 2 - 1;
}

static void break_stop(struct timing *t)
{
	t->stop_ns = t->watchdog_ns - t->pet_ns;
}

static void break_pets(struct timing *t)
{
	t->pet_ns = t->watchdog_ns / 4 + 1;
}

static void break_whole(struct timing *t)
{
	t->watchdog_ns += 1;
	t->expire_ns += 1;
}

static void break_margin(struct timing *t)
{
	t->margin_ns = t->latency_ns;
}

static void break_expiry(struct timing *t)
{
	t->expire_ns -= 1;
}

static void break_disk(struct timing *t)
{
	t->disk_poll_ns = t->expire_ns / 2;
}

static const struct {
	const char *rule;
	void (*change)(struct timing *t);
} mutations[] = {
	{"detect", break_detect}, {"ring", break_ring}, {"beats", break_beats}, {"latency", break_latency},
	{"stop", break_stop},     {"pets", break_pets}, {"whole", break_whole}, {"margin", break_margin},
	{"expiry", break_expiry}, {"disk", break_disk},
};

static void each_rule_is_broken_by_a_change_that_breaks_no_other(void **state)
{
	static const unsigned tokens[] = {TIMING_TOKEN_MS_MIN, 1000, 3000, TIMING_TOKEN_MS_MAX};
	size_t n;
	const struct timing_rule *rules = timing_rules(&n);

	(void)state;
	assert_int_equal(n, ARRAY_SIZE(mutations));
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < ARRAY_SIZE(tokens); k++) {
			struct timing t;
			struct err e = ERR_INIT;

			timing_make(tokens[k], &t);
			mutations[i].change(&t);
			for (size_t r = 0; r < n; r++)
				if (rules[r].holds(&t) != (strcmp(rules[r].name, mutations[i].rule) != 0))
					fail_msg("the change for %s at %u ms: rule %s %s", mutations[i].rule, tokens[k],
						 rules[r].name, rules[r].holds(&t) ? "holds" : "fails");
			assert_int_equal(timing_check(&t, &e), -1);
			assert_int_equal(e.code, ERR_INPUT);
			assert_non_null(strstr(e.text, mutations[i].rule));
		}
}

static void drift_is_a_thousandth_and_never_less(void **state)
{
	(void)state;
	assert_int_equal(timing_drift(0), 1);
	assert_int_equal(timing_drift(7 * NS_PER_S), 7 * NS_PER_MS + 1);
	assert_in_range(timing_drift(1999999), 1999, 2001);
	assert_true(timing_drift(INT64_MAX) > INT64_MAX / 1001);
}

/* ---- the page ---- */

/* A line of a table in cells, without spaces and code marks at their ends. 0: it is no line of a table. */
static size_t cells(char *line, char *ret[CELLS])
{
	size_t n = 0;
	char *p = line;

	if (*p++ != '|')
		return 0;
	for (char *end; n < CELLS && (end = strchr(p, '|')); p = end + 1) {
		char *last = end - 1;

		while (*p == ' ' || *p == '`')
			p++;
		while (last >= p && (*last == ' ' || *last == '`'))
			last--;
		last[1] = 0;
		ret[n++] = p;
	}
	return n;
}

/* Call @fn for every line of a table. */
static void page_read(void (*fn)(void *arg, char **cell, size_t n), void *arg)
{
	_closefile_ FILE *f = fopen(PAGE, "re");
	char line[2048];

	if (!f)
		fail_msg("%s cannot be read; run the test at the top of the tree", PAGE);
	while (fgets(line, sizeof(line), f)) {
		char *cell[CELLS];
		size_t n = cells(line, cell);

		if (n > 0)
			fn(arg, cell, n);
	}
}

static void check_seconds(const char *what, const char *text, int64_t ns)
{
	char right[32];

	snprintf(right, sizeof(right), "%.3f s", (double)ns / NS_PER_S);
	if (strcmp(text, right) != 0)
		fail_msg("%s: %s says %s, the code %s", what, PAGE, text, right);
}

struct table {
	unsigned tokens[3]; /* ms, of the columns from the third on; 0: not in this table */
	size_t found;
};

static void times_line(void *arg, char **cell, size_t n)
{
	struct table *t = arg;

	if (n == 6 && !strcmp(cell[0], "name")) {
		for (size_t i = 0; i < 3; i++)
			if (sscanf(cell[2 + i], "T = %u ms", &t->tokens[i]) != 1)
				fail_msg("no token: %s", cell[2 + i]);
		return;
	}
	if (n != 6 || !t->tokens[0] || strncmp(cell[0], "---", 3) == 0)
		return;
	for (size_t i = 0; i < 3; i++) {
		struct timing x;

		timing_make(t->tokens[i], &x);
		if (time_named(&x, cell[0]) < 0)
			fail_msg("there is no time named %s", cell[0]);
		check_seconds(cell[0], cell[2 + i], time_named(&x, cell[0]));
	}
	t->found++;
}

static void the_page_has_every_time_as_the_code_computes_it(void **state)
{
	struct table t = {0};

	(void)state;
	page_read(times_line, &t);
	assert_int_equal(t.found, ARRAY_SIZE(times));
}

/* The value of "`lease` + 2 `beat`" at a token of one second; of nothing, 0. */
static int64_t sum(const char *text)
{
	struct timing t;
	int64_t total = 0;
	char name[32];
	unsigned factor;
	int used;

	timing_make(1000, &t);
	while (*text) {
		factor = 1;
		text += strspn(text, " +`");
		if (sscanf(text, "%u%n", &factor, &used) == 1)
			text += used;
		text += strspn(text, " `");
		if (sscanf(text, "%31[a-z_]%n", name, &used) != 1 || time_named(&t, name) < 0)
			fail_msg("no sum of times: %s", text);
		total += factor * time_named(&t, name);
		text += used;
		text += strspn(text, " `");
	}
	return total;
}

struct line {
	size_t found;
	int64_t last; /* of this table */
};

static void moment_line(void *arg, char **cell, size_t n)
{
	struct line *l = arg;
	double seconds;

	if (n == 3 && !strcmp(cell[0], "time"))
		l->last = 0;
	if (n != 3 || sscanf(cell[0], "%lf s", &seconds) != 1)
		return;
	check_seconds(cell[2], cell[0], sum(cell[1]));
	if (sum(cell[1]) < l->last)
		fail_msg("%s comes before the line above it", cell[0]);
	l->last = sum(cell[1]);
	l->found++;
}

static void every_moment_of_the_page_is_the_sum_that_it_names_and_they_come_in_order(void **state)
{
	struct line l = {0};

	(void)state;
	page_read(moment_line, &l);
	assert_true(l.found >= 30);
}

static void rule_line(void *arg, char **cell, size_t n)
{
	size_t rules_n;
	const struct timing_rule *rules = timing_rules(&rules_n);

	for (size_t i = 0; n == 2 && i < rules_n; i++)
		if (!strcmp(cell[0], rules[i].name)) {
			assert_string_equal(cell[1], rules[i].text);
			(*(size_t *)arg)++;
		}
}

static void the_page_has_every_rule_in_the_words_of_the_code(void **state)
{
	size_t found = 0, n;

	(void)state;
	timing_rules(&n);
	page_read(rule_line, &found);
	assert_int_equal(found, n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_token_gives_times_that_fit_together),
		cmocka_unit_test(a_token_out_of_range_is_taken_for_the_nearest),
		cmocka_unit_test(each_rule_is_broken_by_a_change_that_breaks_no_other),
		cmocka_unit_test(drift_is_a_thousandth_and_never_less),
		cmocka_unit_test(the_page_has_every_time_as_the_code_computes_it),
		cmocka_unit_test(every_moment_of_the_page_is_the_sum_that_it_names_and_they_come_in_order),
		cmocka_unit_test(the_page_has_every_rule_in_the_words_of_the_code),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
