/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics: their text is what Prometheus reads, and what labels can make large stays bounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/mem.h"
#include "node/metrics.h"

#define PROMTOOL "/usr/bin/promtool"

static struct metrics *one_of_each(void)
{
	static const double buckets[] = {0.001, 0.1, 10};
	const char *const odd[] = {"a \"b\"\\c\nd", "200"}, *const plain[] = {"vm_get", "404"};
	struct metrics *m = metrics_new();
	struct metric *requests = metrics_counter(m, "godwit_test_requests_total", "Requests by kind", "op,code");
	struct metric *vms = metrics_gauge(m, "godwit_test_vms", "Guests", "");
	struct metric *seconds = metrics_histogram(m, "godwit_test_seconds", "Time taken", "", buckets, 3);

	metric_add(metric_with(requests, odd), 3);
	metric_add(metric_with(requests, plain), 1e15 + 1);
	metric_set(metric_with(vms, NULL), -1.5);
	metric_observe(metric_with(seconds, NULL), 0.05);
	metric_observe(metric_with(seconds, NULL), 100);
	return m;
}

static void every_kind_is_written_as_the_format_wants_it(void **state)
{
	struct metrics *m = one_of_each();
	_free_ char *text = metrics_text(m);

	(void)state;
	assert_non_null(strstr(text, "# HELP godwit_test_requests_total Requests by kind\n"
				     "# TYPE godwit_test_requests_total counter\n"));
	assert_non_null(strstr(text, "godwit_test_requests_total{op=\"a \\\"b\\\"\\\\c\\nd\",code=\"200\"} 3\n"));
	assert_non_null(strstr(text, "godwit_test_requests_total{op=\"vm_get\",code=\"404\"} 1000000000000001\n"));
	assert_non_null(strstr(text, "godwit_test_vms -1.5\n"));
	assert_non_null(strstr(text, "godwit_test_seconds_bucket{le=\"0.1\"} 1\n"));
	assert_non_null(strstr(text, "godwit_test_seconds_bucket{le=\"+Inf\"} 2\n"));
	assert_non_null(strstr(text, "godwit_test_seconds_count 2\n"));
	metrics_free(m);
}

static void set_seven(void *arg)
{
	struct metric *mt = arg;

	metric_clear(mt);
	metric_set(metric_with(mt, NULL), 7);
}

static void a_collector_sets_what_is_only_looked_up_when_somebody_asks(void **state)
{
	struct metrics *m = metrics_new();
	struct metric *mt = metrics_gauge(m, "godwit_test_now", "Now", "");
	_free_ char *text = NULL;

	(void)state;
	metrics_collect(m, set_seven, mt);
	text = metrics_text(m);
	assert_non_null(strstr(text, "\ngodwit_test_now 7\n"));
	metrics_free(m);
}

static void beyond_the_bound_all_new_values_share_one(void **state)
{
	struct metrics *m = metrics_new();
	struct metric *mt = metrics_counter(m, "godwit_test_many_total", "Many", "name");
	_free_ char *text = NULL;
	size_t lines = 0;

	(void)state;
	for (int i = 0; i < METRIC_VALUES_MAX + 100; i++) {
		char name[16];
		const char *labels[] = {name};

		snprintf(name, sizeof(name), "n%d", i);
		metric_add(metric_with(mt, labels), 1);
	}
	text = metrics_text(m);
	for (const char *p = text; (p = strstr(p, "\ngodwit_test_many_total{")); p++)
		lines++;
	assert_in_range(lines, METRIC_VALUES_MAX, METRIC_VALUES_MAX + 1);
	assert_non_null(strstr(text, "godwit_test_many_total{name=\"other\"} 10"));
	metrics_free(m);
}

/* `promtool check metrics` with @text as its input: its exit status, and what it said in @ret. */
static int promtool(const char *text, char *ret, size_t size)
{
	static const char *const argv[] = {PROMTOOL, "check", "metrics", NULL};
	struct child_fd fds[3] = {{-1, 0}, {-1, 1}, {-1, 2}};
	struct child_spec spec = {.argv = argv, .fds = fds, .n_fds = 3};
	struct child c = CHILD_INIT;
	struct err e = ERR_INIT;
	FILE *in = tmpfile(), *out = tmpfile();
	int status = -1;

	fputs(text, in);
	fflush(in);
	rewind(in);
	fds[0].from = fileno(in);
	fds[1].from = fds[2].from = fileno(out);
	if (child_spawn(&spec, &c, &e) < 0 || child_wait(&c, clock_now_ns() + 30 * NS_PER_S, &status, &e) != 1)
		fail_msg("promtool: %s", e.text);
	rewind(out);
	ret[fread(ret, 1, size - 1, out)] = 0;
	fclose(in);
	fclose(out);
	child_done(&c);
	return status;
}

static void promtool_finds_nothing_wrong(void **state)
{
	char said[4096];
	struct metrics *m;
	_free_ char *text = NULL;

	(void)state;
	if (access(PROMTOOL, X_OK) < 0) {
		print_message("# skipped: " PROMTOOL " is missing (package prometheus)\n");
		skip();
	}
	m = one_of_each();
	text = metrics_text(m);
	if (promtool(text, said, sizeof(said)) != 0 || said[0])
		fail_msg("%s", said);
	/* It does find something where there is something. */
	assert_int_not_equal(promtool("godwit_test 1\ngodwit_test 1\n", said, sizeof(said)), 0);
	metrics_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_is_written_as_the_format_wants_it),
		cmocka_unit_test(a_collector_sets_what_is_only_looked_up_when_somebody_asks),
		cmocka_unit_test(beyond_the_bound_all_new_values_share_one),
		cmocka_unit_test(promtool_finds_nothing_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
