/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the QMP client, against a scripted fake and against a real QEMU. */
#include <errno.h>

#include "tests/unit/hv/fake-qemu.h"

#define STOP_EVENT "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"STOP\"}\r\n"
#define RTC_EVENT "{\"event\": \"RTC_CHANGE\", \"data\": {\"offset\": 1}}\r\n"

/* Open must fail with @code and a sentence that holds @part. */
static void refused(const struct fake_step *script, enum err_code code, const char *part)
{
	struct err e = ERR_INIT;
	struct qmp *q = NULL;
	struct fake f;

	assert_int_equal(qmp_open_fd(fake_start(&f, script), "fake", IN_MS(300), &q, &e), -1);
	assert_null(q);
	assert_int_equal(e.code, code);
	if (!strstr(e.text, part) || !strstr(e.text, "fake"))
		fail_msg("\"%s\" does not say \"%s\" and the name", e.text, part);
	fake_finish(&f, NULL);
}

/* One command against @script must kill the connection with @code and @part, and the next call must say the same. */
static void dies(const struct fake_step *script, enum err_code code, const char *part)
{
	struct err e = ERR_INIT, again = ERR_INIT;
	struct qmp_event ev;
	struct fake f;
	struct qmp *q = fake_open(&f, script);

	assert_int_equal(qmp_call(q, "query-status", NULL, IN_MS(300), NULL, &e), -1);
	assert_int_equal(e.code, code);
	if (!strstr(e.text, part))
		fail_msg("\"%s\" does not say \"%s\"", e.text, part);
	assert_int_equal(qmp_call(q, "query-name", NULL, IN_S(5), NULL, &again), -1);
	assert_string_equal(again.text, e.text);
	assert_int_equal(again.code, code);
	assert_int_equal(qmp_event_next(q, IN_S(5), &ev, NULL), -1);
	fake_finish(&f, q);
}

static void the_greeting_tells_the_version(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO, {FAKE_HOLD, NULL, 0}, {FAKE_END, NULL, 0}};
	struct fake f;
	struct qmp *q = fake_open(&f, script);

	(void)state;
	assert_int_equal(qmp_version(q), 70222);
	assert_int_equal(qmp_peer_pid(q), getpid());
	assert_true(fcntl(qmp_fd(q), F_GETFD) >= 0);
	fake_finish(&f, q);
}

static void an_old_qemu_is_refused_with_both_versions(void **state)
{
	static const struct fake_step script[] = {
		{FAKE_SAY, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 9, \"minor\": 1, \"major\": 7}}}}\r\n", 0},
		{FAKE_HOLD, NULL, 0},
		{FAKE_END, NULL, 0}};

	(void)state;
	refused(script, ERR_UNSUPPORTED, "QEMU 7.1.9, at least 7.2.0");
}

static void a_newer_qemu_is_welcome(void **state)
{
	static const struct fake_step script[] = {
		{FAKE_SAY, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 0, \"major\": 11}}}}\r\n", 0},
		{FAKE_HEAR, "qmp_capabilities", 0},
		{FAKE_ANSWER, "\"return\": {}", 0},
		{FAKE_HOLD, NULL, 0},
		{FAKE_END, NULL, 0}};
	struct fake f;
	struct qmp *q = fake_open(&f, script);

	(void)state;
	assert_int_equal(qmp_version(q), 110000);
	fake_finish(&f, q);
}

static void what_is_no_qmp_monitor_is_named(void **state)
{
	static const struct fake_step ssh[] = {
		{FAKE_SAY, "SSH-2.0-OpenSSH_9.2\r\n", 0}, {FAKE_HOLD, NULL, 0}, {FAKE_END, NULL, 0}};
	static const struct fake_step hmp[] = {
		{FAKE_SAY, "QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) ", 0},
		{FAKE_HOLD, NULL, 0},
		{FAKE_END, NULL, 0}};
	static const struct fake_step other[] = {
		{FAKE_SAY, "{\"hello\": 1}\r\n", 0}, {FAKE_HOLD, NULL, 0}, {FAKE_END, NULL, 0}};
	static const struct fake_step blank[] = {{FAKE_FLOOD, "\r\n", 5000}, {FAKE_HOLD, NULL, 0}, {FAKE_END, NULL, 0}};
	static const struct fake_step words[] = {
		{FAKE_SAY, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": \"2\", \"major\": 8}}}}\r\n",
		 0},
		{FAKE_HOLD, NULL, 0},
		{FAKE_END, NULL, 0}};

	(void)state;
	refused(ssh, ERR_PROTOCOL, "it says \"SSH-2.0-OpenSSH_9.2\"");
	refused(hmp, ERR_PROTOCOL, "human monitor");
	refused(other, ERR_PROTOCOL, "does not greet as a QMP monitor");
	refused(blank, ERR_PROTOCOL, "white space");
	refused(words, ERR_PROTOCOL, "does not greet as a QMP monitor");
}

static void a_silent_monitor_is_probably_taken_by_another_client(void **state)
{
	static const struct fake_step script[] = {{FAKE_HOLD, NULL, 0}, {FAKE_END, NULL, 0}};

	(void)state;
	refused(script, ERR_TIMEOUT, "another client is connected");
}

static void a_monitor_that_closes_instead_of_greeting_is_told(void **state)
{
	static const struct fake_step script[] = {{FAKE_END, NULL, 0}};

	(void)state;
	refused(script, ERR_PROTOCOL, "closed by QEMU");
}

static void refused_capabilities_are_qemus_own_words(void **state)
{
	static const struct fake_step script[] = {
		{FAKE_SAY, GREETING, 0},
		{FAKE_HEAR, "qmp_capabilities", 0},
		{FAKE_ANSWER, "\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}", 0},
		{FAKE_HOLD, NULL, 0},
		{FAKE_END, NULL, 0}};
	struct err e = ERR_INIT;
	struct qmp *q = NULL;
	struct fake f;

	(void)state;
	assert_int_equal(qmp_open_fd(fake_start(&f, script), "fake", IN_S(5), &q, &e), -1);
	assert_int_equal(e.code, ERR_QMP);
	assert_string_equal(e.text, "qmp_capabilities: no");
	fake_finish(&f, NULL);
}

static void a_command_carries_its_arguments_and_returns_its_value(void **state)
{
	static const struct fake_step script[] = {
		FAKE_HELLO,
		{FAKE_HEAR, "\"execute\":\"qom-get\",\"arguments\":{\"path\":\"/m\",\"n\":7}", 0},
		{FAKE_ANSWER, "\"return\": {\"v\": \"}{\\\\\\\"]\"}", 0},
		{FAKE_HEAR, "\"execute\":\"query-status\",\"id\"", 0},
		{FAKE_ANSWER, "\"return\": 5", 0},
		{FAKE_HOLD, NULL, 0},
		{FAKE_END, NULL, 0}};
	json_t *r = NULL;
	struct fake f;
	struct qmp *q = fake_open(&f, script);

	(void)state;
	assert_int_equal(qmp_callf(q, IN_S(5), &r, NULL, "qom-get", "{s:s,s:i}", "path", "/m", "n", 7), 0);
	assert_string_equal(json_string_value(json_object_get(r, "v")), "}{\\\"]");
	json_decref(r);
	assert_int_equal(qmp_callf(q, IN_S(5), &r, NULL, "query-status", NULL), 0);
	assert_int_equal(json_integer_value(r), 5);
	json_decref(r);
	fake_finish(&f, q);
}

static void an_error_answer_leaves_the_connection_alive(void **state)
{
	static const struct fake_step script[] = {
		FAKE_HELLO,
		{FAKE_HEAR, "cont", 0},
		{FAKE_ANSWER, "\"error\": {\"class\": \"GenericError\", \"desc\": \"Resetting the VM is required\"}",
		 0},
		{FAKE_HEAR, "query-status", 0},
		{FAKE_ANSWER, "\"return\": {}", 0},
		{FAKE_HOLD, NULL, 0},
		{FAKE_END, NULL, 0}};
	struct err e = ERR_INIT;
	struct fake f;
	struct qmp *q = fake_open(&f, script);

	(void)state;
	assert_int_equal(qmp_call(q, "cont", NULL, IN_S(5), NULL, &e), -1);
	assert_int_equal(e.code, ERR_QMP);
	assert_string_equal(e.text, "cont: Resetting the VM is required");
	assert_int_equal(qmp_call(q, "query-status", NULL, IN_S(5), NULL, &e), 0);
	fake_finish(&f, q);
}

static void arguments_that_are_not_text_do_not_touch_the_connection(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO,
						  {FAKE_HEAR, "query-status", 0},
						  {FAKE_ANSWER, "\"return\": {}", 0},
						  {FAKE_HOLD, NULL, 0},
						  {FAKE_END, NULL, 0}};
	struct err e = ERR_INIT;
	struct fake f;
	struct qmp *q = fake_open(&f, script);

	(void)state;
	assert_int_equal(qmp_callf(q, IN_S(5), NULL, &e, "eject", "{s:s}", "id", "\xff\xfe"), -1);
	assert_int_equal(e.code, ERR_INPUT);
	assert_int_equal(qmp_send_fd(q, "\xff", 0, IN_S(5), &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	assert_int_equal(qmp_call(q, "query-status", NULL, IN_S(5), NULL, NULL), 0);
	fake_finish(&f, q);
}

static void expect_event(struct qmp *q, int64_t deadline_ns, const char *name)
{
	struct err e = ERR_INIT;
	struct qmp_event ev;
	int64_t now = clock_now_ns();

	if (qmp_event_next(q, deadline_ns, &ev, &e) != 1)
		fail_msg("no event %s: %s", name, e.text);
	assert_string_equal(ev.name, name);
	assert_true(ev.seen_ns > 0 && ev.seen_ns <= clock_now_ns() && ev.seen_ns > now - 60 * NS_PER_S);
	qmp_event_done(&ev);
}

static void events_between_answers_keep_their_order(void **state)
{
	static const struct fake_step script[] = {
		FAKE_HELLO,
		{FAKE_HEAR, "stop", 0},
		{FAKE_SAY, STOP_EVENT RTC_EVENT, 0},
		{FAKE_ANSWER, "\"return\": {}", 0},
		{FAKE_SAY, "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"active\"}}\r\n", 0},
		{FAKE_HEAR, "cont", 0},
		{FAKE_SAY, "{\"event\": \"RESUME\"}\r\n", 0},
		{FAKE_ANSWER, "\"return\": {}", 0},
		{FAKE_HOLD, NULL, 0},
		{FAKE_END, NULL, 0}};
	struct qmp_event ev;
	struct fake f;
	struct qmp *q = fake_open(&f, script);

	(void)state;
	assert_int_equal(qmp_call(q, "stop", NULL, IN_S(5), NULL, NULL), 0);
	assert_int_equal(qmp_call(q, "cont", NULL, IN_S(5), NULL, NULL), 0);
	expect_event(q, 0, "STOP");
	expect_event(q, 0, "RTC_CHANGE");
	assert_int_equal(qmp_event_next(q, 0, &ev, NULL), 1);
	assert_string_equal(ev.name, "MIGRATION");
	assert_string_equal(json_string_value(json_object_get(ev.data, "status")), "active");
	qmp_event_done(&ev);
	assert_null(ev.data);
	expect_event(q, 0, "RESUME");
	assert_int_equal(qmp_event_next(q, 0, &ev, NULL), 0);
	fake_finish(&f, q);
}

static void an_event_is_waited_for_until_the_deadline(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO,
						  {FAKE_WAIT_MS, NULL, 50},
						  {FAKE_SAY, STOP_EVENT, 0},
						  {FAKE_HOLD, NULL, 0},
						  {FAKE_END, NULL, 0}};
	struct qmp_event ev;
	struct fake f;
	struct qmp *q = fake_open(&f, script);
	int64_t start;

	(void)state;
	assert_int_equal(qmp_event_next(q, 0, &ev, NULL), 0);
	expect_event(q, IN_S(5), "STOP");
	start = clock_now_ns();
	assert_int_equal(qmp_event_next(q, IN_MS(40), &ev, NULL), 0);
	assert_true(clock_now_ns() - start >= 40 * NS_PER_MS);
	fake_finish(&f, q);
}

static void lines_cut_at_every_byte_are_joined(void **state)
{
	static const struct fake_step script[] = {
		{FAKE_DRIBBLE, GREETING, 0},
		{FAKE_HEAR, "qmp_capabilities", 0},
		{FAKE_DRIBBLE, "{\"return\": {}, \"id\": 1}\r\n", 0},
		{FAKE_HEAR, "query-status", 0},
		{FAKE_DRIBBLE, STOP_EVENT RTC_EVENT, 0},
		{FAKE_DRIBBLE, "{\"id\": 2, \"return\": {\"a\": \"\\\\\\\"}\"}}\r\n", 0},
		{FAKE_HOLD, NULL, 0},
		{FAKE_END, NULL, 0}};
	json_t *r = NULL;
	struct fake f;
	struct qmp *q = fake_open(&f, script);

	(void)state;
	assert_int_equal(qmp_call(q, "query-status", NULL, IN_S(5), &r, NULL), 0);
	assert_string_equal(json_string_value(json_object_get(r, "a")), "\\\"}");
	json_decref(r);
	expect_event(q, 0, "STOP");
	expect_event(q, 0, "RTC_CHANGE");
	fake_finish(&f, q);
}

static void a_pretty_monitor_is_understood(void **state)
{
	static const struct fake_step script[] = {
		{FAKE_SAY,
		 "{\r\n    \"QMP\": {\r\n        \"version\": {\r\n            \"qemu\": {\r\n                "
		 "\"micro\": 0,"
		 "\r\n                \"minor\": 1,\r\n                \"major\": 8\r\n            }\r\n        }\r\n"
		 "    }\r\n}\r\n",
		 0},
		{FAKE_HEAR, "qmp_capabilities", 0},
		{FAKE_SAY, "{\r\n    \"return\": {\r\n    },\r\n    \"id\": 1\r\n}\r\n", 0},
		{FAKE_HOLD, NULL, 0},
		{FAKE_END, NULL, 0}};
	struct fake f;
	struct qmp *q = fake_open(&f, script);

	(void)state;
	assert_int_equal(qmp_version(q), 80100);
	fake_finish(&f, q);
}

static void an_answer_of_many_megabytes_is_taken(void **state)
{
	static char text[3 << 20];
	static const struct fake_step script[] = {FAKE_HELLO,
						  {FAKE_HEAR, "query-qmp-schema", 0},
						  {FAKE_SAY, text, 0},
						  {FAKE_HEAR, "query-status", 0},
						  {FAKE_ANSWER, "\"return\": {}", 0},
						  {FAKE_HOLD, NULL, 0},
						  {FAKE_END, NULL, 0}};
	static const char head[] = "{\"id\": 2, \"return\": \"", tail[] = "\"}\r\n";
	json_t *r = NULL;
	struct fake f;
	struct qmp *q;

	(void)state;
	memset(text, 'x', sizeof(text));
	memcpy(text, head, sizeof(head) - 1);
	memcpy(text + sizeof(text) - sizeof(tail), tail, sizeof(tail));
	q = fake_open(&f, script);
	assert_int_equal(qmp_call(q, "query-qmp-schema", NULL, IN_S(10), &r, NULL), 0);
	assert_int_equal(json_string_length(r), sizeof(text) - sizeof(head) + 1 - sizeof(tail));
	json_decref(r);
	assert_int_equal(qmp_call(q, "query-status", NULL, IN_S(5), NULL, NULL), 0);
	fake_finish(&f, q);
}

static void an_oversized_line_is_refused(void **state)
{
	static char chunk[65537];
	static const struct fake_step script[] = {FAKE_HELLO,
						  {FAKE_HEAR, "query-status", 0},
						  {FAKE_SAY, "{\"return\": \"", 0},
						  {FAKE_FLOOD, chunk, 300},
						  {FAKE_END, NULL, 0}};
	struct err e = ERR_INIT;
	struct fake f;
	struct qmp *q;

	(void)state;
	memset(chunk, 'x', sizeof(chunk) - 1);
	q = fake_open(&f, script);
	assert_int_equal(qmp_call(q, "query-status", NULL, IN_S(20), NULL, &e), -1);
	assert_int_equal(e.code, ERR_PROTOCOL);
	assert_non_null(strstr(e.text, "longer than 16 MiB"));
	fake_finish(&f, q);
}

static void bad_answers_kill_the_connection_with_one_sentence(void **state)
{
	static const struct {
		const char *says;
		const char *part;
	} rows[] = {
		{"{\"return\": {\"a\": }, \"id\": 2}\r\n", "JSON that cannot be read"},
		{"{\"return\": 18446744073709551615, \"id\": 2}\r\n", "too big integer"},
		{"{\"return\": \"\xff\xfe\", \"id\": 2}\r\n", "JSON that cannot be read"},
		{"{\"return\": \"\\u0000\", \"id\": 2}\r\n", "JSON that cannot be read"},
		{"{\"return\": {]}\r\n", "JSON that cannot be read"},
		{"{\"return\": {}\r\n{\"event\": \"STOP\"}\r\n", "torn object"},
		{"{\"return\": \"a\r\nb\", \"id\": 2}\r\n", "torn object"},
		{"{\"return\": {}, \"id\": 3}\r\n", "something else than query-status"},
		{"{\"return\": {}, \"id\": \"2\"}\r\n", "something else than query-status"},
		{"{\"return\": {}}\r\n", "something else than query-status"},
		{"{\"error\": {\"class\": \"GenericError\", \"desc\": \"Parse error\"}}\r\n", "Parse error"},
		{"{\"id\": 2}\r\n", "neither a result nor an error"},
		{"{\"return\": {}, \"error\": {\"desc\": \"x\"}, \"id\": 2}\r\n", "neither a result nor an error"},
		{"{\"error\": {\"class\": \"x\"}, \"id\": 2}\r\n", "neither a result nor an error"},
		{"{\"error\": 3, \"id\": 2}\r\n", "neither a result nor an error"},
		{"{\"event\": 3}\r\n", "an event without a proper name"},
		{"{\"event\": \"X\", \"data\": []}\r\n", "an event without a proper name"},
		{"{\"event\": \"0123456789012345678901234567890123456789012345678901234567890123\"}\r\n",
		 "an event without a proper name"},
		{"[1]\r\n", "does not speak QMP"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct fake_step script[] = {
			FAKE_HELLO, {FAKE_HEAR, "query-status", 0}, {FAKE_SAY, rows[i].says, 0}, {FAKE_END, NULL, 0}};

		dies(script, ERR_PROTOCOL, rows[i].part);
	}
}

static void nesting_without_end_is_refused(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO,
						  {FAKE_HEAR, "query-status", 0},
						  {FAKE_SAY, "{\"return\": ", 0},
						  {FAKE_FLOOD, "[", 100000},
						  {FAKE_FLOOD, "]", 100000},
						  {FAKE_SAY, "}\r\n", 0},
						  {FAKE_END, NULL, 0}};
	struct err e = ERR_INIT;
	struct fake f;
	struct qmp *q = fake_open(&f, script);

	(void)state;
	assert_int_equal(qmp_call(q, "query-status", NULL, IN_S(20), NULL, &e), -1);
	assert_int_equal(e.code, ERR_PROTOCOL);
	assert_non_null(strstr(e.text, "maximum parsing depth"));
	fake_finish(&f, q);
}

static void an_end_in_the_middle_of_an_answer_is_told_as_such(void **state)
{
	static const struct fake_step torn[] = {
		FAKE_HELLO, {FAKE_HEAR, "query-status", 0}, {FAKE_SAY, "{\"return\": {", 0}, {FAKE_END, NULL, 0}};
	static const struct fake_step clean[] = {FAKE_HELLO, {FAKE_HEAR, "query-status", 0}, {FAKE_END, NULL, 0}};

	(void)state;
	dies(torn, ERR_PROTOCOL, "in the middle of an answer");
	dies(clean, ERR_PROTOCOL, "closed by QEMU: it has exited");
}

static void a_late_answer_ends_the_connection(void **state)
{
	static const struct fake_step silent[] = {
		FAKE_HELLO, {FAKE_HEAR, "query-status", 0}, {FAKE_HOLD, NULL, 0}, {FAKE_END, NULL, 0}};
	static const struct fake_step half[] = {FAKE_HELLO,
						{FAKE_HEAR, "query-status", 0},
						{FAKE_SAY, "{\"return\":", 0},
						{FAKE_HOLD, NULL, 0},
						{FAKE_END, NULL, 0}};

	(void)state;
	dies(silent, ERR_TIMEOUT, "did not answer query-status in time");
	dies(half, ERR_TIMEOUT, "did not answer query-status in time");
}

static void a_flood_of_events_does_not_outlast_the_deadline(void **state)
{
	static const struct fake_step script[] = {
		FAKE_HELLO, {FAKE_HEAR, "query-status", 0}, {FAKE_FLOOD, RTC_EVENT, 100000000}, {FAKE_END, NULL, 0}};
	struct err e = ERR_INIT;
	struct fake f;
	struct qmp *q = fake_open(&f, script);
	int64_t start = clock_now_ns();

	(void)state;
	assert_int_equal(qmp_call(q, "query-status", NULL, IN_MS(200), NULL, &e), -1);
	assert_int_equal(e.code, ERR_TIMEOUT);
	assert_true(clock_now_ns() - start < 5 * NS_PER_S);
	fake_finish(&f, q);
}

static void a_full_queue_keeps_what_decides_a_move(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO,
						  {FAKE_HEAR, "query-status", 0},
						  {FAKE_SAY, STOP_EVENT, 0},
						  {FAKE_FLOOD, RTC_EVENT, 6000},
						  {FAKE_SAY, "{\"event\": \"RESUME\"}\r\n", 0},
						  {FAKE_ANSWER, "\"return\": {}", 0},
						  {FAKE_HOLD, NULL, 0},
						  {FAKE_END, NULL, 0}};
	struct qmp_event ev;
	struct fake f;
	struct qmp *q = fake_open(&f, script);
	char last[64] = "";
	size_t n = 0;

	(void)state;
	assert_int_equal(qmp_call(q, "query-status", NULL, IN_S(20), NULL, NULL), 0);
	expect_event(q, 0, "STOP");
	while (qmp_event_next(q, 0, &ev, NULL) == 1) {
		memcpy(last, ev.name, sizeof(last));
		qmp_event_done(&ev);
		n++;
	}
	assert_string_equal(last, "RESUME");
	assert_int_equal(n, 4095);
	fake_finish(&f, q);
}

static void large_events_are_bounded_in_bytes(void **state)
{
	static char text[(1 << 20) + 1];
	static const char head[] = "{\"event\": \"BIG\", \"data\": {\"x\": \"", tail[] = "\"}}\r\n";
	static const struct fake_step script[] = {FAKE_HELLO,
						  {FAKE_HEAR, "query-status", 0},
						  {FAKE_FLOOD, text, 40},
						  {FAKE_ANSWER, "\"return\": {}", 0},
						  {FAKE_HOLD, NULL, 0},
						  {FAKE_END, NULL, 0}};
	struct qmp_event ev;
	struct fake f;
	struct qmp *q;
	size_t n = 0;

	(void)state;
	memset(text, 'y', sizeof(text));
	memcpy(text, head, sizeof(head) - 1);
	memcpy(text + sizeof(text) - sizeof(tail), tail, sizeof(tail));
	q = fake_open(&f, script);
	assert_int_equal(qmp_call(q, "query-status", NULL, IN_S(30), NULL, NULL), 0);
	for (; qmp_event_next(q, 0, &ev, NULL) == 1; n++)
		qmp_event_done(&ev);
	assert_int_equal(n, 16);
	fake_finish(&f, q);
}

static void events_read_before_the_end_are_still_handed_out(void **state)
{
	static const struct fake_step script[] = {
		FAKE_HELLO,
		{FAKE_HEAR, "quit", 0},
		{FAKE_ANSWER, "\"return\": {}", 0},
		{FAKE_SAY, "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": false}}\r\n", 0},
		{FAKE_END, NULL, 0}};
	struct err e = ERR_INIT;
	struct qmp_event ev;
	struct fake f;
	struct qmp *q = fake_open(&f, script);

	(void)state;
	assert_int_equal(qmp_call(q, "quit", NULL, IN_S(5), NULL, NULL), 0);
	pthread_join(f.thread, NULL);
	assert_int_equal(qmp_call(q, "query-status", NULL, IN_S(5), NULL, &e), -1);
	assert_int_equal(e.code, ERR_PROTOCOL);
	assert_non_null(strstr(e.text, "closed by QEMU"));
	expect_event(q, IN_S(5), "SHUTDOWN");
	assert_int_equal(qmp_event_next(q, IN_S(5), &ev, &e), -1);
	assert_string_equal(f.wrong, "");
	qmp_close(q);
}

static void an_answer_that_nobody_asked_for_ends_the_connection(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO,
						  {FAKE_SAY, "{\"return\": {}, \"id\": 2}\r\n", 0},
						  {FAKE_HOLD, NULL, 0},
						  {FAKE_END, NULL, 0}};
	struct err e = ERR_INIT;
	struct qmp_event ev;
	struct fake f;
	struct qmp *q = fake_open(&f, script);

	(void)state;
	assert_int_equal(qmp_event_next(q, IN_S(5), &ev, &e), -1);
	assert_int_equal(e.code, ERR_PROTOCOL);
	assert_non_null(strstr(e.text, "nothing was asked"));
	fake_finish(&f, q);
}

static void a_descriptor_arrives_with_getfd(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO,
						  {FAKE_HEAR_FD, "\"getfd\",\"arguments\":{\"fdname\":\"mig\"}", 0},
						  {FAKE_ANSWER, "\"return\": {}", 0},
						  {FAKE_HOLD, NULL, 0},
						  {FAKE_END, NULL, 0}};
	char buf[8] = "";
	struct fake f;
	struct qmp *q = fake_open(&f, script);
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	assert_int_equal(qmp_send_fd(q, "mig", p[1], IN_S(5), NULL), 0);
	assert_int_equal(close(p[1]), 0);
	assert_int_equal(read(p[0], buf, sizeof(buf)), 4);
	assert_memory_equal(buf, "mark", 4);
	close(p[0]);
	fake_finish(&f, q);
}

static void a_monitor_that_takes_no_bytes_times_out(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO, {FAKE_WAIT_MS, NULL, 1500}, {FAKE_END, NULL, 0}};
	_free_ char *big = xcalloc(1, (4 << 20) + 1);
	struct err e = ERR_INIT;
	struct fake f;
	struct qmp *q = fake_open(&f, script);
	int64_t start = clock_now_ns();

	(void)state;
	memset(big, 'z', 4 << 20);
	assert_int_equal(qmp_callf(q, IN_MS(100), NULL, &e, "x", "{s:s}", "y", big), -1);
	assert_int_equal(e.code, ERR_TIMEOUT);
	assert_non_null(strstr(e.text, "did not take the command x in time"));
	assert_true(clock_now_ns() - start < NS_PER_S);
	fake_finish(&f, q);
}

static void a_path_that_leads_nowhere_is_told_with_the_way_out(void **state)
{
	char longer[200];
	struct err e = ERR_INIT;
	struct qmp *q;

	(void)state;
	assert_int_equal(qmp_open("/nonexistent/qmp", IN_S(1), &q, &e), -1);
	assert_int_equal(e.errnum, ENOENT);
	assert_non_null(strstr(e.text, "is the guest running"));
	assert_int_equal(qmp_open("/etc/passwd", IN_S(1), &q, &e), -1);
	assert_non_null(strstr(e.text, "/etc/passwd"));
	assert_int_equal(e.code, ERR_SYSTEM);
	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	assert_int_equal(qmp_open(longer, IN_S(1), &q, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
}

/* ---- a real QEMU ---- */

static struct qmp *real_open(const struct real_qemu *r)
{
	struct err e = ERR_INIT;
	struct qmp *q = NULL;

	if (qmp_open(r->path, IN_S(20), &q, &e) < 0)
		fail_msg("%s", e.text);
	return q;
}

static void expect_status(struct qmp *q, const char *status)
{
	json_t *r = NULL;

	assert_int_equal(qmp_call(q, "query-status", NULL, IN_S(10), &r, NULL), 0);
	assert_string_equal(json_string_value(json_object_get(r, "status")), status);
	json_decref(r);
}

static void a_real_qemu_runs_stops_and_quits(void **state)
{
	struct err e = ERR_INIT;
	struct real_qemu r;
	struct qmp_event ev;
	struct qmp *q;
	int p[2];

	(void)state;
	real_start(&r, NULL);
	q = real_open(&r);
	assert_true(qmp_version(q) >= 70200);
	assert_int_equal(qmp_peer_pid(q), r.pid);
	expect_status(q, "prelaunch");
	assert_int_equal(pipe(p), 0);
	assert_int_equal(qmp_send_fd(q, "pipe", p[1], IN_S(10), NULL), 0);
	assert_int_equal(close(p[1]), 0);
	/* QEMU holds the only write end: the pipe is not at its end until it lets go. */
	assert_int_equal(poll(&(struct pollfd){.fd = p[0]}, 1, 0), 0);
	assert_int_equal(qmp_callf(q, IN_S(10), NULL, &e, "closefd", "{s:s}", "fdname", "pipe"), 0);
	assert_int_equal(poll(&(struct pollfd){.fd = p[0]}, 1, 5000), 1);
	close(p[0]);
	assert_int_equal(qmp_call(q, "cont", NULL, IN_S(10), NULL, &e), 0);
	expect_event(q, IN_S(10), "RESUME");
	expect_status(q, "running");
	assert_int_equal(qmp_call(q, "stop", NULL, IN_S(10), NULL, &e), 0);
	expect_event(q, IN_S(10), "STOP");
	expect_status(q, "paused");
	assert_int_equal(qmp_call(q, "no-such-command", NULL, IN_S(10), NULL, &e), -1);
	assert_int_equal(e.code, ERR_QMP);
	assert_string_equal(e.text, "no-such-command: The command no-such-command has not been found");
	assert_int_equal(qmp_call(q, "quit", NULL, IN_S(10), NULL, &e), 0);
	expect_event(q, IN_S(10), "SHUTDOWN");
	assert_int_equal(qmp_event_next(q, IN_S(10), &ev, &e), -1);
	assert_int_equal(e.code, ERR_PROTOCOL);
	qmp_close(q);
	assert_int_equal(real_stop(&r, false), 0);
}

static void a_real_qemu_serves_one_client_and_hides_the_others(void **state)
{
	struct err e = ERR_INIT;
	struct qmp *q, *second = NULL;
	struct real_qemu r;

	(void)state;
	real_start(&r, NULL);
	q = real_open(&r);
	assert_int_equal(qmp_open(r.path, IN_MS(200), &second, &e), -1);
	assert_int_equal(e.code, ERR_TIMEOUT);
	assert_non_null(strstr(e.text, "another client is connected"));
	expect_status(q, "prelaunch");
	qmp_close(q);
	q = real_open(&r);
	expect_status(q, "prelaunch");
	qmp_close(q);
	real_stop(&r, true);
}

static void a_stopped_real_qemu_times_out_and_a_full_backlog_too(void **state)
{
	struct err e = ERR_INIT;
	struct qmp *q, *other = NULL;
	struct real_qemu r;
	int64_t start;

	(void)state;
	real_start(&r, NULL);
	q = real_open(&r);
	kill(r.pid, SIGSTOP);
	assert_int_equal(qmp_call(q, "query-status", NULL, IN_MS(200), NULL, &e), -1);
	assert_int_equal(e.code, ERR_TIMEOUT);
	/* The clients that gave up stay in the backlog of a QEMU that does not accept. */
	start = clock_now_ns();
	for (int i = 0; i < 8; i++) {
		assert_int_equal(qmp_open(r.path, IN_MS(100), &other, &e), -1);
		assert_int_equal(e.code, ERR_TIMEOUT);
		assert_non_null(strstr(e.text, "another client is connected"));
	}
	assert_true(clock_now_ns() - start < 5 * NS_PER_S);
	assert_non_null(strstr(e.text, "takes no connection"));
	qmp_close(q);
	real_stop(&r, true);
}

static void a_killed_real_qemu_is_told(void **state)
{
	struct err e = ERR_INIT;
	struct real_qemu r;
	struct qmp *q;
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)state;
	real_start(&r, NULL);
	q = real_open(&r);
	real_stop(&r, true);
	assert_int_equal(qmp_send_fd(q, "null", fd, IN_S(5), &e), -1);
	assert_int_equal(e.code, ERR_PROTOCOL);
	assert_non_null(strstr(e.text, "was closed by QEMU"));
	close(fd);
	qmp_close(q);
}

static void a_real_pretty_monitor_and_a_real_human_one(void **state)
{
	static const char *const extra[] = {"-chardev", "socket,id=p,path=qmp2,server=on,wait=off",
					    "-mon",     "chardev=p,mode=control,pretty=on",
					    "-monitor", "unix:hmp,server=on,wait=off",
					    NULL};
	struct err e = ERR_INIT;
	struct qmp *q, *human = NULL;
	struct real_qemu r, pretty, hmp;

	(void)state;
	real_start(&r, extra);
	q = real_open(&r);
	qmp_close(q);
	pretty = hmp = r;
	snprintf(pretty.path, sizeof(pretty.path), "%s/qmp2", r.dir);
	q = real_open(&pretty);
	expect_status(q, "prelaunch");
	qmp_close(q);
	snprintf(hmp.path, sizeof(hmp.path), "%s/hmp", r.dir);
	assert_int_equal(qmp_open(hmp.path, IN_S(5), &human, &e), -1);
	assert_int_equal(e.code, ERR_PROTOCOL);
	if (!strstr(e.text, "human monitor"))
		fail_msg("%s", e.text);
	real_stop(&r, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_greeting_tells_the_version),
		cmocka_unit_test(an_old_qemu_is_refused_with_both_versions),
		cmocka_unit_test(a_newer_qemu_is_welcome),
		cmocka_unit_test(what_is_no_qmp_monitor_is_named),
		cmocka_unit_test(a_silent_monitor_is_probably_taken_by_another_client),
		cmocka_unit_test(a_monitor_that_closes_instead_of_greeting_is_told),
		cmocka_unit_test(refused_capabilities_are_qemus_own_words),
		cmocka_unit_test(a_command_carries_its_arguments_and_returns_its_value),
		cmocka_unit_test(an_error_answer_leaves_the_connection_alive),
		cmocka_unit_test(arguments_that_are_not_text_do_not_touch_the_connection),
		cmocka_unit_test(events_between_answers_keep_their_order),
		cmocka_unit_test(an_event_is_waited_for_until_the_deadline),
		cmocka_unit_test(lines_cut_at_every_byte_are_joined),
		cmocka_unit_test(a_pretty_monitor_is_understood),
		cmocka_unit_test(an_answer_of_many_megabytes_is_taken),
		cmocka_unit_test(an_oversized_line_is_refused),
		cmocka_unit_test(bad_answers_kill_the_connection_with_one_sentence),
		cmocka_unit_test(nesting_without_end_is_refused),
		cmocka_unit_test(an_end_in_the_middle_of_an_answer_is_told_as_such),
		cmocka_unit_test(a_late_answer_ends_the_connection),
		cmocka_unit_test(a_flood_of_events_does_not_outlast_the_deadline),
		cmocka_unit_test(a_full_queue_keeps_what_decides_a_move),
		cmocka_unit_test(large_events_are_bounded_in_bytes),
		cmocka_unit_test(events_read_before_the_end_are_still_handed_out),
		cmocka_unit_test(an_answer_that_nobody_asked_for_ends_the_connection),
		cmocka_unit_test(a_descriptor_arrives_with_getfd),
		cmocka_unit_test(a_monitor_that_takes_no_bytes_times_out),
		cmocka_unit_test(a_path_that_leads_nowhere_is_told_with_the_way_out),
		cmocka_unit_test(a_real_qemu_runs_stops_and_quits),
		cmocka_unit_test(a_real_qemu_serves_one_client_and_hides_the_others),
		cmocka_unit_test(a_stopped_real_qemu_times_out_and_a_full_backlog_too),
		cmocka_unit_test(a_killed_real_qemu_is_told),
		cmocka_unit_test(a_real_pretty_monitor_and_a_real_human_one),
	};

	return cmocka_run_group_tests_name("hv/qmp", tests, NULL, NULL);
}
