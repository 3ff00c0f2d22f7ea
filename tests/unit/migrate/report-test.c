/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the report: what stands on stdout in each mode, and readers that went away or stand still. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <jansson.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "migrate/report.h"

static int saved_stdout = -1;

/* Put @fd (taken) in the place of stdout until restore(). */
static void replace_stdout(int fd)
{
	assert_true(fd >= 0);
	fflush(stdout);
	saved_stdout = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 10);
	assert_true(saved_stdout >= 0);
	assert_int_equal(dup2(fd, STDOUT_FILENO), STDOUT_FILENO);
	close(fd);
}

static void restore_stdout(void)
{
	dup2(saved_stdout, STDOUT_FILENO);
	close(saved_stdout);
	saved_stdout = -1;
}

/* From now on stdout goes to memory. */
static void capture(void)
{
	replace_stdout(memfd_create("stdout", MFD_CLOEXEC));
}

/* What was written since capture(). Caller frees. */
static char *captured(void)
{
	off_t size = lseek(STDOUT_FILENO, 0, SEEK_END);
	char *text = xcalloc((size_t)size + 1, 1);

	if (pread(STDOUT_FILENO, text, (size_t)size, 0) != size)
		text[0] = '\0';
	restore_stdout();
	return text;
}

static const struct forecast good = {.converges = true,
				     .passes = 4,
				     .bytes = 1210000000,
				     .total_ns = 9100 * NS_PER_MS,
				     .pause_ns = 43 * NS_PER_MS,
				     .dirty_rate = 30000000,
				     .wire_rate = 130000000};

static struct report_result moved(void)
{
	return (struct report_result){.result = "moved",
				      .total_ns = 9312345678,
				      .prepare_ns = 212 * NS_PER_MS,
				      .pause_ns = 12400000,
				      .stop_ns = 300000,
				      .last_pages_ns = 8100000,
				      .device_state_ns = 1000000,
				      .load_ns = 1500000,
				      .resume_ns = 500000,
				      .wire_bytes = 1190000000,
				      .pages = 262144,
				      .zero_pages = 1000,
				      .resent_pages = 4211,
				      .coalesced_pages = 812,
				      .device_bytes = 13000,
				      .passes = 5,
				      .channels = 2,
				      .peak_anon_kib = 11264,
				      .forecast = &good,
				      .guest = "the guest runs at the destination"};
}

static const struct report_progress halfway = {.progress = 0.634,
					       .eta_ns = 1800 * NS_PER_MS,
					       .pass = 2,
					       .sent_bytes = 700000000,
					       .wire_rate = 812000000,
					       .dirty_rate = 21000000,
					       .remaining = 380ULL << 20,
					       .downtime_limit_ms = 1};

/* The only line of @text as JSON. */
static json_t *one_line(const char *text)
{
	const char *end = strchr(text, '\n');
	json_t *o = json_loads(text, 0, NULL);

	assert_non_null(o);
	assert_non_null(end);
	assert_string_equal(end, "\n");
	assert_null(strchr(text, ' ')); /* compact: no blank outside of texts, and the callers' texts have none */
	return o;
}

static double number(json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key);

	if (!json_is_number(v))
		fail_msg("%s is not a number", key);
	return json_number_value(v);
}

static const char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	if (!s)
		fail_msg("%s is not a string", key);
	return s;
}

static void a_phase_is_one_json_object_on_a_line(void **state)
{
	struct report *r = report_new(REPORT_JSON, "send");
	_free_ char *out = NULL;
	json_t *o;

	(void)state;
	capture();
	report_phase(r, "copying");
	out = captured();
	report_free(r);
	o = one_line(out);
	assert_string_equal(text(o, "event"), "phase");
	assert_string_equal(text(o, "phase"), "copying");
	assert_true(number(o, "ms") >= 0 && number(o, "ms") < 60000);
	json_decref(o);
}

static void where_it_listens_is_told_with_the_token_only_where_there_is_one(void **state)
{
	struct report *r = report_new(REPORT_JSON, "receive"), *plain = report_new(REPORT_PLAIN, "receive");
	_free_ char *out = NULL, *with = NULL, *without = NULL;
	json_t *o;

	(void)state;
	capture();
	report_listening(r, 4711, "c0ffee");
	out = captured();
	capture();
	report_listening(plain, 4711, "c0ffee");
	with = captured();
	capture();
	report_listening(plain, 4711, NULL);
	without = captured();
	report_free(r);
	report_free(plain);
	o = one_line(out);
	assert_string_equal(text(o, "event"), "listening");
	assert_string_equal(text(o, "token"), "c0ffee");
	assert_true(number(o, "port") == 4711);
	assert_non_null(strstr(with, "4711"));
	assert_non_null(strstr(with, "c0ffee"));
	assert_non_null(strstr(without, "4711"));
	assert_null(strstr(without, "token"));
	json_decref(o);
}

static void progress_in_json_is_numbers_and_an_unknown_eta_is_minus_one(void **state)
{
	struct report_progress p = halfway;
	struct report *r = report_new(REPORT_JSON, "send");
	_free_ char *out = NULL;
	json_t *o;

	(void)state;
	p.eta_ns = -1;
	capture();
	report_progress(r, &p);
	report_progress(r, &halfway); /* too soon to be shown */
	out = captured();
	report_free(r);
	o = one_line(out);
	assert_string_equal(text(o, "event"), "progress");
	assert_true(number(o, "progress") > 0.6339 && number(o, "progress") < 0.6341);
	assert_true(number(o, "eta_ms") == -1);
	assert_true(number(o, "pass") == 2);
	assert_true(number(o, "sent_bytes") == 700000000);
	assert_true(number(o, "wire_rate") == 812000000);
	assert_true(number(o, "dirty_rate") == 21000000);
	assert_true(number(o, "remaining") == 398458880);
	assert_true(number(o, "downtime_limit_ms") == 1);
	assert_true(number(o, "throttle_percent") == 0);
	json_decref(o);
}

static void the_result_in_json_has_every_key(void **state)
{
	struct report_result res = moved();
	struct report *r = report_new(REPORT_JSON, "send");
	_free_ char *out = NULL;
	json_t *o, *f;

	(void)state;
	res.guest = "there";
	res.resume_ns = -1;
	capture();
	report_result(r, &res);
	out = captured();
	report_free(r);
	o = one_line(out);
	assert_string_equal(text(o, "event"), "result");
	assert_string_equal(text(o, "verb"), "send");
	assert_string_equal(text(o, "result"), "moved");
	assert_string_equal(text(o, "guest"), "there");
	assert_true(number(o, "total_ms") == 9312.345);
	assert_true(number(o, "prepare_ms") == 212);
	assert_true(number(o, "pause_ms") == 12.4);
	assert_true(number(o, "stop_ms") == 0.3);
	assert_true(number(o, "last_pages_ms") == 8.1);
	assert_true(number(o, "device_state_ms") == 1);
	assert_true(number(o, "load_ms") == 1.5);
	assert_true(number(o, "resume_ms") == -1);
	assert_true(number(o, "wire_bytes") == 1190000000);
	assert_true(number(o, "device_bytes") == 13000);
	assert_true(number(o, "passes") == 5);
	assert_true(number(o, "pages") == 262144);
	assert_true(number(o, "zero_pages") == 1000);
	assert_true(number(o, "resent_pages") == 4211);
	assert_true(number(o, "coalesced_pages") == 812);
	assert_true(number(o, "channels") == 2);
	assert_true(number(o, "engine_rss_kib") == 11264);
	assert_true(json_is_null(json_object_get(o, "error")));
	f = json_object_get(o, "forecast");
	assert_true(json_is_true(json_object_get(f, "converges")));
	assert_true(number(f, "passes") == 4);
	assert_true(number(f, "bytes") == 1210000000);
	assert_true(number(f, "total_ms") == 9100);
	assert_true(number(f, "pause_ms") == 43);
	assert_true(number(f, "dirty_rate") == 30000000);
	assert_true(number(f, "wire_rate") == 130000000);
	assert_string_equal(text(f, "why"), "");
	json_decref(o);
}

static void an_error_in_json_has_code_errno_and_text(void **state)
{
	struct report_result res = {.result = "failed", .total_ns = -1, .pause_ns = -1};
	struct err e = ERR_INIT;
	struct report *r = report_new(REPORT_JSON, "send");
	_free_ char *out = NULL;
	json_t *o, *error;

	(void)state;
	err_set(&e, ERR_PEER, "refused:\x1b[2J\xff\n");
	e.errnum = 7;
	res.error = &e;
	capture();
	report_result(r, &res);
	out = captured();
	report_free(r);
	assert_null(strchr(out, '\x1b'));
	o = json_loads(out, 0, NULL);
	error = json_object_get(o, "error");
	assert_string_equal(text(error, "code"), "peer");
	assert_true(number(error, "errno") == 7);
	assert_string_equal(text(error, "text"), "refused:?[2J? ");
	assert_true(json_is_null(json_object_get(o, "forecast")));
	assert_true(number(o, "pause_ms") == -1);
	json_decref(o);
}

static void counters_beyond_the_range_of_json_stay_numbers(void **state)
{
	struct report_progress p = halfway;
	struct report *r = report_new(REPORT_JSON, "send");
	_free_ char *out = NULL;
	json_t *o;

	(void)state;
	p.dirty_rate = UINT64_MAX;
	p.progress = 0.0 / (p.downtime_limit_ms - 1.0); /* not a number */
	capture();
	report_progress(r, &p);
	out = captured();
	report_free(r);
	o = one_line(out);
	assert_true(number(o, "dirty_rate") > 9e18);
	assert_true(number(o, "progress") == 0);
	json_decref(o);
}

static void plain_mode_prints_phases_notes_and_a_table_with_both_columns(void **state)
{
	struct report_result res = moved();
	struct report *r = report_new(REPORT_PLAIN, "send");
	_free_ char *out = NULL;

	(void)state;
	capture();
	report_phase(r, "copying");
	report_note(r, "downtime limit 2 ms");
	report_forecast(r, &good);
	report_progress(r, &halfway); /* within ten seconds of the phase: not shown */
	report_result(r, &res);
	out = captured();
	report_free(r);
	assert_non_null(strstr(out, " s  copying\n"));
	assert_null(strstr(out, "63 %"));
	assert_non_null(strstr(out, " s  downtime limit 2 ms\n"));
	assert_non_null(strstr(out, "forecast: 9.10 s, 1.21 GB on the wire, 4 passes, pause about 43.0 ms\n"));
	assert_non_null(strstr(out, "                         forecast         result\n"
				    "  total                    9.10 s         9.31 s\n"
				    "  pause                   43.0 ms        12.4 ms\n"
				    "  passes                        4              5\n"
				    "  on the wire             1.21 GB        1.19 GB\n"
				    "  of the pause:\n"
				    "    stop                                 0.30 ms\n"
				    "    last pages                           8.10 ms\n"));
	assert_non_null(strstr(out, "    in between                           1.00 ms\n"));
	assert_non_null(strstr(out, "  engine memory                         11.0 MiB\n"));
	assert_non_null(strstr(out, "\nmoved; the guest runs at the destination\n"));
}

static void a_failure_says_why_and_where_the_guest_runs(void **state)
{
	struct report_result res = {.result = "failed",
				    .total_ns = 100 * NS_PER_MS,
				    .prepare_ns = -1,
				    .pause_ns = -1,
				    .guest = "the guest runs on here"};
	struct err e = ERR_INIT;
	struct report *r = report_new(REPORT_PLAIN, "send");
	_free_ char *out = NULL;

	(void)state;
	err_set(&e, ERR_TIMEOUT, "no answer from the destination");
	res.error = &e;
	capture();
	report_result(r, &res);
	out = captured();
	report_free(r);
	assert_non_null(strstr(out, "failed: no answer from the destination; the guest runs on here\n"));
	assert_null(strstr(out, "pause"));
	assert_null(strstr(out, "forecast"));
}

static void a_dry_run_tells_its_forecast_once(void **state)
{
	struct report_result res = {.result = "dry-run", .forecast = &good, .guest = "the guest runs on here"};
	struct report *r = report_new(REPORT_PLAIN, "send");
	_free_ char *out = NULL;
	char *first;

	(void)state;
	capture();
	report_forecast(r, &good);
	report_result(r, &res);
	out = captured();
	report_free(r);
	first = strstr(out, "forecast: 9.10 s");
	assert_non_null(first);
	assert_null(strstr(first + 1, "forecast"));
	assert_non_null(strstr(out, "dry-run; the guest runs on here\n"));
}

static void a_forecast_that_does_not_converge_gives_the_reason(void **state)
{
	struct forecast f = {.converges = false, .total_ns = -1, .why = "does not converge: writes 140 MB/s"};
	struct report *r = report_new(REPORT_PLAIN, "send");
	_free_ char *out = NULL;

	(void)state;
	capture();
	report_forecast(r, &f);
	out = captured();
	report_free(r);
	assert_string_equal(out, "forecast: does not converge: writes 140 MB/s\n");
}

/* Show @p on a terminal of @columns and give what arrived there. Caller frees. */
static char *on_terminal(int columns, const struct report_progress *p, const char *note)
{
	struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)columns};
	struct report *r = report_new(REPORT_TERMINAL, "send");
	char *got = xcalloc(4096, 1);
	int master, slave;
	size_t used = 0;
	ssize_t n;

	assert_int_equal(openpty(&master, &slave, NULL, NULL, &size), 0);
	replace_stdout(slave);
	report_phase(r, "copying");
	report_progress(r, p);
	if (note)
		report_note(r, note);
	report_free(r);
	restore_stdout();
	/* The line discipline hands over in pieces; behind the last one is EIO, because the other end is closed. */
	while (used < 4095 && (n = read(master, got + used, 4095 - used)) > 0)
		used += (size_t)n;
	close(master);
	assert_true(used > 0);
	return got;
}

static void the_bar_shows_everything_where_there_is_room(void **state)
{
	_free_ char *out = on_terminal(120, &halfway, NULL);
	const char *line = "\rcopying  [###################-----------]   63 %  pass 2  812 MB/s  dirty 21.0 MB/s  "
			   "left 380 MiB  ETA 0:02";

	(void)state;
	assert_memory_equal(out, line, strlen(line));
}

static void the_bar_drops_detail_and_never_fills_a_narrow_terminal(void **state)
{
	struct report_progress p = halfway;

	(void)state;
	p.throttle_percent = 20;
	for (int columns = 8; columns <= 140; columns++) {
		_free_ char *out = on_terminal(columns, &p, NULL);
		size_t length = strcspn(out + 1, "\r");

		assert_int_equal(out[0], '\r');
		assert_true(length > 0 && length < (size_t)columns);
		assert_non_null(strstr(out, "63 %"));
	}
}

static void a_note_takes_the_place_of_the_bar(void **state)
{
	_free_ char *out = on_terminal(100, &halfway, "the wire got slower");
	const char *wipe = strstr(out, "\r   "), *note = strstr(out, " s  the wire got slower\r\n");

	(void)state;
	assert_non_null(wipe);
	assert_non_null(note);
	assert_true(wipe < note);
}

static void a_reader_that_went_away_is_no_failure(void **state)
{
	struct report_result res = moved();
	struct report *r = report_new(REPORT_JSON, "send");
	sigset_t before, after, pending;
	int fds[2];

	(void)state;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	close(fds[0]);
	signal(SIGPIPE, SIG_DFL); /* would kill us */
	sigprocmask(SIG_SETMASK, NULL, &before);
	replace_stdout(fds[1]);
	report_phase(r, "copying");
	report_progress(r, &halfway);
	report_result(r, &res);
	restore_stdout();
	report_free(r);
	sigpending(&pending);
	assert_false(sigismember(&pending, SIGPIPE));
	sigprocmask(SIG_SETMASK, NULL, &after);
	assert_int_equal(sigismember(&after, SIGPIPE), sigismember(&before, SIGPIPE));
}

static void a_reader_that_stands_still_does_not_hold_up_the_move(void **state)
{
	struct report *r = report_new(REPORT_JSON, "send");
	char filler[4096] = {0};
	int64_t start, spent;
	int fds[2];

	(void)state;
	assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	while (write(fds[1], filler, sizeof(filler)) > 0)
		;
	fcntl(fds[1], F_SETFL, 0); /* a blocking stdout, as usual */
	replace_stdout(fds[1]);
	start = clock_now_ns();
	for (int i = 0; i < 50; i++) {
		report_phase(r, "copying");
		report_progress(r, &halfway);
		report_note(r, "still there?");
	}
	spent = clock_now_ns() - start;
	/* Once it reads again, it gets whole lines again. */
	while (read(fds[0], filler, sizeof(filler)) > 0)
		;
	report_phase(r, "switchover");
	restore_stdout();
	report_free(r);
	memset(filler, 0, sizeof(filler));
	assert_true(read(fds[0], filler, sizeof(filler) - 1) > 0);
	close(fds[0]);
	assert_true(spent < 500 * NS_PER_MS);
	assert_memory_equal(filler, "{\"event\":\"phase\"", 16);
	assert_non_null(strstr(filler, "switchover"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_phase_is_one_json_object_on_a_line),
		cmocka_unit_test(where_it_listens_is_told_with_the_token_only_where_there_is_one),
		cmocka_unit_test(progress_in_json_is_numbers_and_an_unknown_eta_is_minus_one),
		cmocka_unit_test(the_result_in_json_has_every_key),
		cmocka_unit_test(an_error_in_json_has_code_errno_and_text),
		cmocka_unit_test(counters_beyond_the_range_of_json_stay_numbers),
		cmocka_unit_test(plain_mode_prints_phases_notes_and_a_table_with_both_columns),
		cmocka_unit_test(a_failure_says_why_and_where_the_guest_runs),
		cmocka_unit_test(a_dry_run_tells_its_forecast_once),
		cmocka_unit_test(a_forecast_that_does_not_converge_gives_the_reason),
		cmocka_unit_test(the_bar_shows_everything_where_there_is_room),
		cmocka_unit_test(the_bar_drops_detail_and_never_fills_a_narrow_terminal),
		cmocka_unit_test(a_note_takes_the_place_of_the_bar),
		cmocka_unit_test(a_reader_that_went_away_is_no_failure),
		cmocka_unit_test(a_reader_that_stands_still_does_not_hold_up_the_move),
	};

	return cmocka_run_group_tests_name("migrate/report", tests, NULL, NULL);
}
