/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets: addresses, deadlines, whole reads and writes, ends and dead peers, descriptors passed. */
#include "base/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"

static int64_t in_ms(int ms)
{
	return clock_now_ns() + ms * NS_PER_MS;
}

static void assert_error(const struct err *e, enum err_code code, const char *words)
{
	if (e->code != code || !strstr(e->text, words))
		fail_msg("wanted %s \"%s\", got %s \"%s\"", err_code_name(code), words, err_code_name(e->code),
			 e->text);
}

static void addresses_are_taken_apart(void **state)
{
	static const struct {
		const char *text, *host, *port;
	} rows[] = {
		{"n2:4444", "n2", "4444"}, {"10.0.0.1:0", "10.0.0.1", "0"}, {"[fd00::7]:65535", "fd00::7", "65535"},
		{":7000", "", "7000"},     {"n2:007", "n2", "7"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct err e = ERR_INIT;
		struct sock_addr a;

		assert_int_equal(sock_addr_parse(rows[i].text, &a, &e), 0);
		assert_string_equal(a.host, rows[i].host);
		assert_string_equal(a.port, rows[i].port);
	}
}

static void wrong_addresses_are_refused_with_the_reason(void **state)
{
	static const struct {
		const char *text, *words;
	} rows[] = {
		{"n2", "has no port"},
		{"n2:", "from 0 to 65535"},
		{"n2:65536", "from 0 to 65535"},
		{"n2:12x", "from 0 to 65535"},
		{"n2:-1", "from 0 to 65535"},
		{"fd00::7:44", "in brackets"},
		{"n2:99999999999999999999", "from 0 to 65535"},
	};
	char host[400];
	struct sock_addr a;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct err e = ERR_INIT;

		assert_int_equal(sock_addr_parse(rows[i].text, &a, &e), -1);
		assert_error(&e, ERR_USAGE, rows[i].words);
	}
	struct err e = ERR_INIT;

	memset(host, 'h', sizeof(host));
	memcpy(host + sizeof(host) - 3, ":1", 3);
	assert_int_equal(sock_addr_parse(host, &a, &e), -1);
	assert_error(&e, ERR_USAGE, "longer than 255");
}

/* A listener on a free loopback port; its address in @ret. */
static int listen_somewhere(struct sock_addr *ret)
{
	struct err e = ERR_INIT;
	int fd;

	assert_int_equal(sock_addr_parse("127.0.0.1:0", ret, &e), 0);
	fd = sock_tcp_listen(ret, 4, &e);
	assert_true(fd >= 0);
	snprintf(ret->port, sizeof(ret->port), "%d", sock_tcp_port(fd));
	return fd;
}

static void a_connection_carries_bytes_both_ways(void **state)
{
	struct err e = ERR_INIT;
	struct sock_addr addr;
	_closefd_ int listener = listen_somewhere(&addr);
	_closefd_ int a = sock_tcp_connect(&addr, in_ms(5000), &e);
	_closefd_ int b = sock_accept(listener, in_ms(5000), &e);
	char text[6] = "";

	(void)state;
	assert_true(a >= 0 && b >= 0);
	assert_true(fcntl(a, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(b, F_GETFD) & FD_CLOEXEC);
	assert_false(fcntl(a, F_GETFL) & O_NONBLOCK);
	assert_int_equal(sock_write_full(a, "hello", 6, SOCK_FOREVER, &e), 0);
	assert_int_equal(sock_read_full(b, text, 6, in_ms(5000), &e), 0);
	assert_string_equal(text, "hello");
	assert_int_equal(sock_write_full(b, "again", 6, in_ms(5000), &e), 0);
	assert_int_equal(sock_read_full(a, text, 6, SOCK_FOREVER, &e), 0);
	assert_string_equal(text, "again");
}

static void a_closed_port_is_refused_by_name(void **state)
{
	struct err e = ERR_INIT;
	struct sock_addr addr;
	int listener = listen_somewhere(&addr);

	(void)state;
	close(listener);
	assert_int_equal(sock_tcp_connect(&addr, in_ms(5000), &e), -1);
	assert_error(&e, ERR_SYSTEM, addr.port);
	assert_int_equal(e.errnum, ECONNREFUSED);
}

static void a_port_in_use_is_an_error_with_its_number(void **state)
{
	struct err e = ERR_INIT;
	struct sock_addr addr;
	_closefd_ int listener = listen_somewhere(&addr);

	(void)state;
	assert_true(listener >= 0);
	assert_int_equal(sock_tcp_listen(&addr, 1, &e), -1);
	assert_int_equal(e.errnum, EADDRINUSE);
	assert_error(&e, ERR_SYSTEM, addr.port);
}

static void waiting_ends_at_the_deadline(void **state)
{
	struct err e = ERR_INIT;
	struct sock_addr addr;
	_closefd_ int listener = listen_somewhere(&addr);
	int64_t start = clock_now_ns();
	int pair[2];
	char c;

	(void)state;
	assert_int_equal(sock_accept(listener, in_ms(30), &e), -1);
	assert_error(&e, ERR_TIMEOUT, "nobody connected");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(sock_wait(pair[0], POLLIN, in_ms(30), &e), 0);
	assert_int_equal(sock_read_full(pair[0], &c, 1, in_ms(30), &e), -1);
	assert_error(&e, ERR_TIMEOUT, "did not answer");
	assert_true(clock_now_ns() - start >= 90 * NS_PER_MS);
	close(pair[0]);
	close(pair[1]);
}

static void a_peer_that_does_not_read_stops_a_write_at_the_deadline(void **state)
{
	struct err e = ERR_INIT;
	size_t n = 16U << 20;
	_free_ char *bytes = xcalloc(1, n);
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(sock_write_full(pair[0], bytes, n, in_ms(50), &e), -1);
	assert_error(&e, ERR_TIMEOUT, "did not read");
	close(pair[0]);
	close(pair[1]);
}

static void a_peer_that_is_gone_is_an_error_and_not_a_signal(void **state)
{
	struct err e = ERR_INIT;
	int pair[2];
	char c;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	close(pair[1]);
	assert_int_equal(sock_read_full(pair[0], &c, 1, SOCK_FOREVER, &e), -1);
	assert_error(&e, ERR_PROTOCOL, "closed by the other side");
	assert_int_equal(sock_write_full(pair[0], "x", 1, SOCK_FOREVER, &e), -1);
	assert_int_equal(e.errnum, EPIPE);
	close(pair[0]);
}

struct sink {
	int fd;
	size_t n;
	unsigned char *bytes;
};

static void *read_main(void *arg)
{
	struct sink *s = arg;
	struct err e = ERR_INIT;

	return sock_read_full(s->fd, s->bytes, s->n, in_ms(10000), &e) < 0 ? s : NULL;
}

static void pieces_of_every_size_arrive_as_one(void **state)
{
	static unsigned char bytes[3000000];
	struct iovec iov[] = {{bytes, 1}, {bytes + 1, 0}, {bytes + 1, 1999999}, {bytes + 2000000, 1000000}};
	struct sink sink = {.n = sizeof(bytes), .bytes = xcalloc(1, sizeof(bytes))};
	struct err e = ERR_INIT;
	pthread_t thread;
	void *failed;
	int pair[2];

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i * 7 + i / 251);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	sink.fd = pair[1];
	assert_int_equal(pthread_create(&thread, NULL, read_main, &sink), 0);
	assert_int_equal(sock_writev_full(pair[0], iov, ARRAY_SIZE(iov), in_ms(10000), &e), 0);
	pthread_join(thread, &failed);
	assert_null(failed);
	assert_memory_equal(sink.bytes, bytes, sizeof(bytes));
	free(sink.bytes);
	close(pair[0]);
	close(pair[1]);
}

static void a_descriptor_travels_with_the_bytes(void **state)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} ctl;
	struct err e = ERR_INIT;
	char text[4] = "", c = 0;
	struct iovec iov = {text, 3};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.buf, .msg_controllen = sizeof(ctl.buf)};
	int pair[2], pipe_fds[2], got = -1;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(sock_send_fd(pair[0], "abc", 3, pipe_fds[1], &e), 0);
	assert_int_equal(recvmsg(pair[1], &m, MSG_WAITALL), 3);
	assert_non_null(CMSG_FIRSTHDR(&m));
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(got));
	assert_int_equal(write(got, "z", 1), 1);
	assert_int_equal(read(pipe_fds[0], &c, 1), 1);
	assert_int_equal(c, 'z');
	assert_string_equal(text, "abc");
	close(got);
	for (int i = 0; i < 2; i++) {
		close(pair[i]);
		close(pipe_fds[i]);
	}
}

static void a_unix_path_that_is_wrong_is_named(void **state)
{
	struct err e = ERR_INIT;
	char path[200];

	(void)state;
	assert_int_equal(sock_unix_connect("/nonexistent/qmp.sock", &e), -1);
	assert_error(&e, ERR_SYSTEM, "/nonexistent/qmp.sock");
	memset(path, 'p', sizeof(path));
	path[sizeof(path) - 1] = 0;
	assert_int_equal(sock_unix_connect(path, &e), -1);
	assert_error(&e, ERR_INPUT, "longer than 107 bytes");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_taken_apart),
		cmocka_unit_test(wrong_addresses_are_refused_with_the_reason),
		cmocka_unit_test(a_connection_carries_bytes_both_ways),
		cmocka_unit_test(a_closed_port_is_refused_by_name),
		cmocka_unit_test(a_port_in_use_is_an_error_with_its_number),
		cmocka_unit_test(waiting_ends_at_the_deadline),
		cmocka_unit_test(a_peer_that_does_not_read_stops_a_write_at_the_deadline),
		cmocka_unit_test(a_peer_that_is_gone_is_an_error_and_not_a_signal),
		cmocka_unit_test(pieces_of_every_size_arrive_as_one),
		cmocka_unit_test(a_descriptor_travels_with_the_bytes),
		cmocka_unit_test(a_unix_path_that_is_wrong_is_named),
	};

	return cmocka_run_group_tests_name("base/sock", tests, NULL, NULL);
}
