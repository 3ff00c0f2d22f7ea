/* SPDX-License-Identifier: Apache-2.0 */
/* check: waits */
/* The HTTP server's limits: too large, too slow, too many, and who still gets through meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/sock.h"
#include "tests/unit/node/server.h"

#define SOON (5 * NS_PER_S)
#define MANY 2000
#define CAP 500

/* The answer of a fresh client at the unix socket, which must come quickly. */
static void local_still_works(void)
{
	struct http_client *c = server_client_local();
	struct http_answer a = {0};
	struct err e = ERR_INIT;

	if (http_client_call(c, "GET", "/hello", NULL, NULL, clock_now_ns() + SOON, &a, &e) < 0 || a.status != 200)
		fail_msg("unix socket: %d %s", a.status, e.text);
	http_answer_done(&a);
	http_client_free(c);
}

/* The value of a line of /metrics, or 0. */
static int metric(const char *line)
{
	struct http_client *c = server_client_local();
	struct http_answer a = {0};
	struct err e = ERR_INIT;
	const char *found;
	int value = 0;

	assert_int_equal(http_client_call(c, "GET", "/metrics", NULL, NULL, clock_now_ns() + SOON, &a, &e), 0);
	found = strstr(a.text, line);
	if (found)
		value = atoi(found + strlen(line));
	http_answer_done(&a);
	http_client_free(c);
	return value;
}

static void a_head_that_is_too_large_is_refused(void **state)
{
	int fd;
	_free_ char *text = xasprintf("GET /hello HTTP/1.1\r\nA: %020000d", 0), *answer = NULL;

	(void)state;
	server_start(NULL);
	fd = server_connect_raw();
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
	answer = server_read(fd, NULL, SOON);
	assert_int_equal(strncmp(answer, "HTTP/1.1 431 ", 13), 0);
	close(fd);
	local_still_works();
	server_stop();
}

static void a_body_that_is_too_large_is_refused_and_the_client_reads_why(void **state)
{
	struct http_limits l = {.body = 100000};
	const char *ways[] = {"Content-Length: 4000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3d0900\r\n"};
	_free_ char *body = xcalloc(4000000, 1);

	(void)state;
	memset(body, ' ', 4000000);
	server_start(&l);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		_free_ char *head =
			xasprintf("POST /things/t HTTP/1.1\r\nContent-Type: application/json\r\n%s", ways[i]);
		_free_ char *answer = NULL;
		int fd = server_connect_raw();

		sock_write_full(fd, head, strlen(head), clock_now_ns() + SOON, NULL);
		sock_write_full(fd, body, 4000000, clock_now_ns() + SOON, NULL); /* it may be cut off while it writes */
		answer = server_read(fd, NULL, SOON);
		if (strncmp(answer, "HTTP/1.1 413 ", 13) != 0 || !strstr(answer, "100000 bytes"))
			fail_msg("%s => %s", ways[i], answer);
		close(fd);
	}
	server_stop();
}

static void a_request_that_never_ends_is_ended(void **state)
{
	struct http_limits l = {.first_ns = 200 * NS_PER_MS, .body_ns = 200 * NS_PER_MS, .idle_ns = 200 * NS_PER_MS};
	const char *body = "POST /things/t HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
	_free_ char *answer = NULL;
	int64_t begin;
	int fd;

	(void)state;
	server_start(&l);
	/* A byte now and then does not help. */
	fd = server_connect_raw();
	begin = clock_now_ns();
	for (int i = 0; i < 100 && send(fd, i ? "x" : "G", 1, MSG_NOSIGNAL) == 1; i++)
		usleep(20000);
	assert_true(clock_now_ns() - begin < 1500 * NS_PER_MS);
	assert_true(server_closed_by(fd, SOON));
	close(fd);
	/* Nothing at all, over TCP and in the middle of TLS. */
	fd = server_connect_tcp(NULL);
	assert_true(server_closed_by(fd, SOON));
	close(fd);
	/* Half a body is answered: the client may only be slow. */
	fd = server_connect_raw();
	assert_int_equal(send(fd, body, strlen(body), 0), strlen(body));
	answer = server_read(fd, NULL, SOON);
	assert_int_equal(strncmp(answer, "HTTP/1.1 408 ", 13), 0);
	close(fd);
	/* Idle after a request. */
	fd = server_connect_raw();
	assert_int_equal(send(fd, "GET /hello HTTP/1.1\r\n\r\n", 23, 0), 23);
	assert_true(server_closed_by(fd, SOON));
	close(fd);
	assert_true(metric("godwit_http_refused_total{reason=\"slow\"} ") >= 2);
	server_stop();
}

static void an_answer_that_nobody_reads_is_given_up(void **state)
{
	struct http_limits l = {.write_ns = 200 * NS_PER_MS};
	int fd;

	(void)state;
	server_start(&l);
	fd = server_connect_raw();
	assert_int_equal(send(fd, "GET /large HTTP/1.1\r\n\r\n", 23, 0), 23);
	usleep(400000);
	assert_int_equal(metric("godwit_http_connections{over=\"unix\"} "), 1); /* the one that asks */
	close(fd);
	server_stop();
}

static void pipelined_answers_that_nobody_reads_do_not_pile_up(void **state)
{
	_free_ char *request = xcalloc(100, 60);
	int fd, sent = 0;
	struct rusage before, after;

	(void)state;
	server_start(NULL);
	local_still_works();
	getrusage(RUSAGE_SELF, &before);
	for (int i = 0; i < 100; i++)
		strcat(request, "GET /large HTTP/1.1\r\n\r\n");
	fd = server_connect_raw();
	while (sent < (int)strlen(request)) {
		ssize_t r = send(fd, request + sent, strlen(request) - (size_t)sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (r <= 0)
			break;
		sent += (int)r;
	}
	local_still_works();
	getrusage(RUSAGE_SELF, &after);
	/* One answer of 8 MiB and its copies, not a hundred. */
	assert_true(after.ru_maxrss - before.ru_maxrss < 200 << 10);
	close(fd);
	server_stop();
}

static void more_connections_than_the_cap_lock_nobody_out(void **state)
{
	struct http_limits l = {.connections = CAP, .per_address = 50, .burst = 100000, .rate = 100000};
	struct rlimit files = {8192, 8192};
	struct http_client *c;
	struct http_answer a = {0};
	struct err e = ERR_INIT;
	int *fds = xcalloc(MANY, sizeof(*fds));

	(void)state;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		skip();
	server_start(&l);
	for (int i = 0; i < MANY; i++) {
		char from[32];

		snprintf(from, sizeof(from), "127.0.%d.%d", 1 + i / 40 / 200, 1 + i / 40 % 200);
		fds[i] = server_connect_tcp(from);
		if (i % 3 == 0) /* half a handshake */
			send(fds[i], "\x16\x03\x01\x02\x00\x01\x00", 7, MSG_NOSIGNAL);
	}
	local_still_works();
	assert_true(metric("godwit_http_connections{over=\"tls\"} ") <= CAP);
	assert_int_equal(metric("godwit_http_refused_total{reason=\"evicted\"} "), MANY - CAP);
	/* Somebody with a right to be here gets in, and stays although others push. */
	c = server_client_tls("client", NULL);
	assert_int_equal(http_client_call(c, "GET", "/hello", NULL, NULL, clock_now_ns() + SOON, &a, &e), 0);
	http_answer_done(&a);
	for (int i = 0; i < MANY; i++)
		close(fds[i]);
	for (int i = 0; i < CAP + 100; i++) {
		char from[32];

		snprintf(from, sizeof(from), "127.0.9.%d", 1 + i / 40);
		fds[i] = server_connect_tcp(from);
	}
	assert_int_equal(http_client_call(c, "GET", "/hello", NULL, NULL, clock_now_ns() + SOON, &a, &e), 0);
	assert_int_equal(a.status, 200);
	http_answer_done(&a);
	for (int i = 0; i < CAP + 100; i++)
		close(fds[i]);
	http_client_free(c);
	free(fds);
	server_stop();
}

static void one_address_has_its_share_and_no_more(void **state)
{
	struct http_limits l = {.per_address = 10};
	int fds[30];

	(void)state;
	server_start(&l);
	for (int i = 0; i < 30; i++)
		fds[i] = server_connect_tcp("127.0.0.77");
	assert_int_equal(metric("godwit_http_refused_total{reason=\"address\"} "), 20);
	local_still_works();
	for (int i = 0; i < 30; i++)
		close(fds[i]);
	server_stop();
}

static void the_unix_socket_has_a_cap_of_its_own(void **state)
{
	struct http_limits l = {.local = 5, .idle_ns = 100 * NS_PER_MS, .first_ns = 100 * NS_PER_MS};
	int fds[10];

	(void)state;
	server_start(&l);
	for (int i = 0; i < 10; i++)
		fds[i] = server_connect_raw();
	for (int i = 5; i < 10; i++)
		assert_true(server_closed_by(fds[i], SOON));
	usleep(200000);
	local_still_works();
	for (int i = 0; i < 10; i++)
		close(fds[i]);
	server_stop();
}

static void who_asks_too_often_is_told_to_wait(void **state)
{
	struct http_limits l = {.rate = 1, .burst = 10};
	struct http_client *c;
	struct err e = ERR_INIT;
	int status = 0, calls = 0;

	(void)state;
	server_start(&l);
	c = server_client_tls("client", NULL);
	while (status != 429 && calls < 30) {
		struct http_answer a = {0};

		assert_int_equal(http_client_call(c, "GET", "/hello", NULL, NULL, clock_now_ns() + SOON, &a, &e), 0);
		status = a.status;
		calls++;
		http_answer_done(&a);
	}
	assert_int_equal(status, 429);
	assert_in_range(calls, 8, 12);
	for (int i = 0; i < 50; i++)
		local_still_works();
	http_client_free(c);
	server_stop();
}

static void guessing_tokens_uses_up_the_allowance_fast(void **state)
{
	struct http_limits l = {.rate = 1, .burst = 100};
	struct http_client *c;
	struct err e = ERR_INIT;
	int guesses = 0;

	(void)state;
	server_start(&l);
	c = server_client_tls(NULL, "guess");
	for (int status = 0; status != 429 && guesses < 100; guesses++) {
		struct http_answer a = {0};

		assert_int_equal(http_client_call(c, "GET", "/hello", NULL, NULL, clock_now_ns() + SOON, &a, &e), 0);
		status = a.status;
		http_answer_done(&a);
	}
	assert_true(guesses <= 20);
	http_client_free(c);
	server_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_head_that_is_too_large_is_refused),
		cmocka_unit_test(a_body_that_is_too_large_is_refused_and_the_client_reads_why),
		cmocka_unit_test(a_request_that_never_ends_is_ended),
		cmocka_unit_test(an_answer_that_nobody_reads_is_given_up),
		cmocka_unit_test(pipelined_answers_that_nobody_reads_do_not_pile_up),
		cmocka_unit_test(more_connections_than_the_cap_lock_nobody_out),
		cmocka_unit_test(one_address_has_its_share_and_no_more),
		cmocka_unit_test(the_unix_socket_has_a_cap_of_its_own),
		cmocka_unit_test(who_asks_too_often_is_told_to_wait),
		cmocka_unit_test(guessing_tokens_uses_up_the_allowance_fast),
	};

	return cmocka_run_group_tests(tests, server_make_certs, server_drop_certs);
}
