/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of the HTTP server: events for many readers, slow readers, readers that go away, and raw streams. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/sock.h"
#include "tests/unit/node/server.h"

#define SOON (5 * NS_PER_S)

static int start(void **state)
{
	struct http_limits l = {.alive_ns = 50 * NS_PER_MS, .stream_backlog = 300000};

	(void)state;
	server_start(&l);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	server_stop();
	return 0;
}

static struct http_client *listen_at(struct http_client *c, const char *target)
{
	struct err e = ERR_INIT;

	if (http_client_listen(c, target, clock_now_ns() + SOON, &e) < 0)
		fail_msg("%s: %s", target, e.text);
	return c;
}

/* The next event must be this one. */
static void expect_event(struct http_client *c, const char *id, const char *name, const char *data)
{
	struct http_event ev = {0};
	struct err e = ERR_INIT;
	bool ended = false;

	if (http_client_event(c, clock_now_ns() + SOON, &ev, &ended, &e) != 1)
		fail_msg("no event %s: ended %d, %s", name, ended, e.text);
	assert_string_equal(ev.id, id);
	assert_string_equal(ev.name, name);
	assert_non_null(strstr(ev.data, data));
	http_event_done(&ev);
}

static void every_reader_gets_every_event_in_order(void **state)
{
	struct http_client *a = listen_at(server_client_local(), "/events");
	struct http_client *b = listen_at(server_client_tls("client", NULL), "/events");

	(void)state;
	server_publish(1, "vm", "one");
	server_publish(0, "progress", "half");
	server_publish(2, "vm", "two\nlines");
	for (int i = 0; i < 2; i++) {
		expect_event(i ? b : a, "1", "vm", "one");
		expect_event(i ? b : a, "", "progress", "half");
		expect_event(i ? b : a, "2", "vm", "two\\nlines");
	}
	http_client_free(a);
	http_client_free(b);
}

static void a_reader_who_comes_back_misses_nothing_that_is_kept(void **state)
{
	struct http_client *c;

	(void)state;
	for (uint64_t i = 1; i <= 3; i++)
		server_publish(i, "vm", "old");
	c = listen_at(server_client_local(), "/events?since=1");
	expect_event(c, "2", "vm", "old");
	expect_event(c, "3", "vm", "old");
	server_publish(4, "vm", "new");
	expect_event(c, "4", "vm", "new");
	http_client_free(c);
}

static void a_reader_who_was_away_too_long_is_told_of_the_gap(void **state)
{
	struct http_client *c;

	(void)state;
	for (uint64_t i = 1; i <= 10; i++) /* the feed keeps 4 */
		server_publish(i, "vm", "old");
	c = listen_at(server_client_local(), "/events?since=3");
	expect_event(c, "", "gap", "\"since\":3");
	expect_event(c, "7", "vm", "old");
	http_client_free(c);
	c = listen_at(server_client_local(), "/events?since=6");
	expect_event(c, "7", "vm", "old");
	http_client_free(c);
}

static void comments_keep_a_silent_stream_alive(void **state)
{
	int fd = server_connect_raw();
	const char *request = "GET /events HTTP/1.1\r\nLast-Event-ID: 0\r\n\r\n";
	_free_ char *text = NULL;

	(void)state;
	assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
	text = server_read(fd, "3\r\n:\n\n\r\n3\r\n:\n\n\r\n", SOON);
	assert_non_null(strstr(text, "Content-Type: text/event-stream\r\n"));
	assert_non_null(strstr(text, "3\r\n:\n\n\r\n3\r\n:\n\n\r\n"));
	close(fd);
}

static void a_reader_who_goes_away_leaves_nothing_behind(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		struct http_client *c =
			listen_at(i % 2 ? server_client_tls("client", NULL) : server_client_local(), "/events");

		http_client_free(c); /* the address sanitizer counts what the server frees */
	}
	server_publish(1, "vm", "to nobody");
	usleep(100000);
	server_publish(2, "vm", "to nobody");
}

static void a_reader_who_does_not_keep_up_is_cut_off(void **state)
{
	int fd = server_connect_raw();
	struct http_client *other = server_client_local();
	struct http_answer a = {0};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(send(fd, "GET /flood HTTP/1.1\r\n\r\n", 23, 0), 23);
	assert_true(server_wait(&server_closed, 1));
	assert_true(server_closed_by(fd, SOON));
	close(fd);
	assert_int_equal(http_client_call(other, "GET", "/metrics", NULL, NULL, clock_now_ns() + SOON, &a, &e), 0);
	assert_non_null(strstr(a.text, "godwit_http_refused_total{reason=\"backlog\"} 1"));
	http_answer_done(&a);
	http_client_free(other);
}

static void the_end_of_the_server_ends_its_streams(void **state)
{
	struct http_client *c;
	struct http_event ev = {0};
	struct err e = ERR_INIT;
	bool ended = false;

	(void)state;
	server_start(NULL);
	c = listen_at(server_client_local(), "/events");
	server_stop();
	assert_true(http_client_event(c, clock_now_ns() + SOON, &ev, &ended, &e) <= 0);
	http_client_free(c);
}

static struct terminal_peer raw_at(struct http_client *c)
{
	struct terminal_peer peer = {0};
	struct err e = ERR_INIT;

	if (http_client_upgrade(c, "/things/web1/raw", "echo", clock_now_ns() + SOON, &peer, &e) < 0)
		fail_msg("%s", e.text);
	return peer;
}

static void read_exactly(const struct terminal_peer *p, char *buf, size_t n)
{
	struct err e = ERR_INIT;

	while (n) {
		ssize_t r = p->read(p->arg, buf, n, &e);

		if (r <= 0)
			fail_msg("read: %zd %s", r, e.text);
		buf += r;
		n -= (size_t)r;
	}
}

static void a_raw_stream_carries_bytes_both_ways_until_it_is_ended(void **state)
{
	char buf[64];

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct http_client *c = i ? server_client_tls("client", NULL) : server_client_local();
		struct terminal_peer p = raw_at(c);
		struct err e = ERR_INIT;

		assert_int_equal(p.write(p.arg, "hello\0there", 11, &e), 0);
		read_exactly(&p, buf, 11);
		assert_memory_equal(buf, "hello\0there", 11);
		assert_int_equal(p.write(p.arg, "bye", 3, &e), 0);
		assert_int_equal(p.read(p.arg, buf, sizeof(buf), &e), 0);
		http_client_free(c);
	}
	assert_int_equal(server_closed, 0); /* it was the owner who ended them */
}

/* Writes 8 MB in a child while we read: what the server holds for us stays below its bound, because it pauses. */
static void a_raw_stream_can_hold_its_sender_back(void **state)
{
	const size_t total = 8U << 20, piece = 32U << 10;
	struct http_client *c = server_client_local();
	struct terminal_peer p = raw_at(c);
	char *buf = xcalloc(piece, 1);
	struct err e = ERR_INIT;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		for (size_t i = 0; i < total; i += piece)
			if (p.write(p.arg, buf, piece, NULL) < 0)
				_exit(1);
		_exit(0);
	}
	usleep(300000);
	for (size_t i = 0; i < total; i += piece)
		read_exactly(&p, buf, piece);
	assert_int_equal(p.write(p.arg, "bye", 3, &e), 0);
	assert_int_equal(p.read(p.arg, buf, piece, &e), 0);
	free(buf);
	http_client_free(c);
}

static void a_raw_stream_tells_when_its_client_goes(void **state)
{
	struct http_client *c = server_client_tls("client", NULL);

	(void)state;
	raw_at(c);
	http_client_free(c);
	assert_true(server_wait(&server_closed, 1));
}

static void a_raw_stream_must_be_asked_for(void **state)
{
	struct http_client *c = server_client_local();
	struct terminal_peer peer;
	struct http_answer a = {0};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(http_client_call(c, "GET", "/things/t/raw", NULL, NULL, clock_now_ns() + SOON, &a, &e), 0);
	assert_int_equal(a.status, 426);
	http_answer_done(&a);
	assert_int_equal(http_client_upgrade(c, "/things/t/raw", "other", clock_now_ns() + SOON, &peer, &e), -1);
	assert_non_null(strstr(e.text, "Upgrade: echo"));
	e = ERR_INIT;
	assert_int_equal(http_client_upgrade(c, "/hello", "echo", clock_now_ns() + SOON, &peer, &e), -1);
	e = ERR_INIT;
	assert_int_equal(http_client_listen(c, "/hello", clock_now_ns() + SOON, &e), -1);
	assert_non_null(strstr(e.text, "sends no events"));
	e = ERR_INIT;
	assert_int_equal(http_client_listen(c, "/nowhere", clock_now_ns() + SOON, &e), -1);
	assert_non_null(strstr(e.text, "there is nothing at /nowhere"));
	http_client_free(c);
}

#define STREAM_TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		STREAM_TEST(every_reader_gets_every_event_in_order),
		STREAM_TEST(a_reader_who_comes_back_misses_nothing_that_is_kept),
		STREAM_TEST(a_reader_who_was_away_too_long_is_told_of_the_gap),
		STREAM_TEST(comments_keep_a_silent_stream_alive),
		STREAM_TEST(a_reader_who_goes_away_leaves_nothing_behind),
		STREAM_TEST(a_reader_who_does_not_keep_up_is_cut_off),
		cmocka_unit_test(the_end_of_the_server_ends_its_streams),
		STREAM_TEST(a_raw_stream_carries_bytes_both_ways_until_it_is_ended),
		STREAM_TEST(a_raw_stream_can_hold_its_sender_back),
		STREAM_TEST(a_raw_stream_tells_when_its_client_goes),
		STREAM_TEST(a_raw_stream_must_be_asked_for),
	};

	return cmocka_run_group_tests(tests, server_make_certs, server_drop_certs);
}
