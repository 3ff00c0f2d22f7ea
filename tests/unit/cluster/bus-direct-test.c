/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams between members on the loopback: who is heard, and who is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/byteorder.h"
#include "base/clock.h"
#include "cluster/bus-direct.h"

#define QUIET_MS 200 /* long enough for a datagram on the loopback that must not come */

struct member {
	struct direct *d;
	uint32_t id;
	int heard;
	uint32_t from;
	uint8_t data[BUS_DIRECT_MAX];
	size_t size;
};

static void on_heard(void *arg, uint32_t node, const uint8_t *data, size_t size)
{
	struct member *m = arg;

	m->heard++;
	m->from = node;
	m->size = size;
	memcpy(m->data, data, size);
}

static void begin(struct member *m, uint32_t id)
{
	struct err e = ERR_INIT;

	*m = (struct member){.id = id};
	m->d = direct_new(0, on_heard, m, &e);
	assert_non_null(m->d);
}

/* Both hosts, each at @address. */
static void hosts(struct member *m, const char *address)
{
	struct direct_host list[2] = {{.id = 1}, {.id = 2}};

	for (int i = 0; i < 2; i++)
		strcpy(list[i].addresses[0], address);
	direct_hosts(m->d, m->id, list, 2);
}

static void tell_hello(struct member *from, struct member *to)
{
	uint8_t hello[DIRECT_HELLO_SIZE];

	direct_hello(from->d, hello);
	assert_int_equal(direct_on_hello(to->d, from->id, hello, sizeof(hello), NULL), 1);
	assert_int_equal(direct_on_hello(to->d, from->id, hello, sizeof(hello), NULL), 0); /* known */
}

static void begin_two(struct member *a, struct member *b, const char *address)
{
	begin(a, 1);
	begin(b, 2);
	hosts(a, address);
	hosts(b, address);
	tell_hello(a, b);
	tell_hello(b, a);
}

/* Let both work until @a can speak to @b, or @ms are over. */
static bool reaches(struct member *a, struct member *b, int ms)
{
	int64_t end = clock_now_ns() + ms * NS_PER_MS;

	do {
		struct pollfd p[2] = {{.fd = direct_fd(a->d), .events = POLLIN},
				      {.fd = direct_fd(b->d), .events = POLLIN}};

		poll(p, 2, 1);
		direct_dispatch(a->d, clock_now_ns());
		direct_dispatch(b->d, clock_now_ns());
		if (direct_send(a->d, b->id, "x", 1))
			return true;
	} while (clock_now_ns() < end);
	return false;
}

static void listen_for(struct member *m, int ms)
{
	int64_t end = clock_now_ns() + ms * NS_PER_MS;
	int before = m->heard;

	while (m->heard == before && clock_now_ns() < end) {
		struct pollfd p = {.fd = direct_fd(m->d), .events = POLLIN};

		poll(&p, 1, 1);
		direct_dispatch(m->d, clock_now_ns());
	}
}

static void members_that_answer_are_reached(void **state)
{
	static const char *const addresses[] = {"127.0.0.1", "::1"};
	struct member a, b;

	(void)state;
	for (int i = 0; i < 2; i++) {
		if (i == 1 && access("/proc/net/if_inet6", F_OK) < 0)
			break; /* a host without IPv6 */
		begin_two(&a, &b, addresses[i]);
		assert_false(direct_send(a.d, 2, "x", 1)); /* it has not answered yet */
		assert_true(reaches(&a, &b, 5000));
		listen_for(&b, 5000);
		b.heard = 0;
		assert_true(direct_send(a.d, 2, "hello there", 11));
		listen_for(&b, 5000);
		assert_int_equal(b.heard, 1);
		assert_int_equal(b.from, 1);
		assert_int_equal(b.size, 11);
		assert_memory_equal(b.data, "hello there", 11);
		assert_false(direct_send(a.d, 3, "x", 1));
		assert_false(direct_send(a.d, 2, b.data, BUS_DIRECT_MAX + 1));
		direct_free(a.d);
		direct_free(b.d);
	}
}

static void a_member_that_answers_no_more_is_not_reached(void **state)
{
	struct member a, b, other;

	(void)state;
	begin_two(&a, &b, "127.0.0.1");
	begin(&other, 2); /* only to be waited for: it has another port */
	assert_true(reaches(&a, &b, 5000));
	direct_free(b.d);
	b = other;
	for (int64_t end = clock_now_ns() + 10 * NS_PER_S;; direct_dispatch(a.d, clock_now_ns())) {
		if (!direct_send(a.d, 2, "x", 1))
			break;
		assert_true(clock_now_ns() < end);
		poll(NULL, 0, 20);
	}
	/* Its next process is, once its HELLO has come. */
	hosts(&b, "127.0.0.1");
	tell_hello(&a, &b);
	assert_false(reaches(&a, &b, QUIET_MS));
	tell_hello(&b, &a);
	assert_true(reaches(&a, &b, 5000));
	direct_free(a.d);
	direct_free(b.d);
}

static void a_host_that_is_removed_is_forgotten(void **state)
{
	struct direct_host self = {.id = 1};
	struct member a, b;

	(void)state;
	begin_two(&a, &b, "127.0.0.1");
	assert_true(reaches(&a, &b, 5000));
	direct_hosts(a.d, 1, &self, 1);
	assert_false(direct_send(a.d, 2, "x", 1));
	direct_free(a.d);
	direct_free(b.d);
}

static void a_hello_of_another_format_is_refused(void **state)
{
	uint8_t hello[DIRECT_HELLO_SIZE];
	struct err e = ERR_INIT;
	struct member a;

	(void)state;
	begin(&a, 1);
	hosts(&a, "127.0.0.1");
	direct_hello(a.d, hello);
	assert_int_equal(direct_on_hello(a.d, 2, hello, sizeof(hello) - 1, &e), -1);
	hello[1]++;
	assert_int_equal(direct_on_hello(a.d, 2, hello, sizeof(hello), &e), -1);
	assert_int_equal(e.code, ERR_PROTOCOL);
	direct_free(a.d);
}

/* ---- what strangers send ---- */

/* A socket that takes what is meant for member 2, and can send it to anybody. */
struct stranger {
	int fd;
	struct sockaddr_in to; /* member 1 */
	uint8_t data[2048];
	size_t size;
};

static void stranger_begin(struct stranger *s, struct member *a, uint8_t key)
{
	uint8_t hello[DIRECT_HELLO_SIZE] = {DIRECT_MAGIC, 1};
	struct sockaddr_in me = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(me);

	s->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&me, size), 0);
	assert_int_equal(getsockname(s->fd, (struct sockaddr *)&me, &size), 0);
	memcpy(hello + 2, &me.sin_port, 2);
	memset(hello + 4, key, DIRECT_KEY_SIZE);
	assert_int_equal(direct_on_hello(a->d, 2, hello, sizeof(hello), NULL), 1);
	direct_hello(a->d, hello);
	s->to = me;
	memcpy(&s->to.sin_port, hello + 2, 2);
}

static void stranger_take(struct stranger *s, struct member *a)
{
	struct pollfd p = {.fd = s->fd, .events = POLLIN};

	direct_dispatch(a->d, clock_now_ns());
	assert_int_equal(poll(&p, 1, 5000), 1);
	s->size = (size_t)recv(s->fd, s->data, sizeof(s->data), 0);
}

static void stranger_send(struct stranger *s, struct member *a)
{
	struct pollfd p = {.fd = direct_fd(a->d), .events = POLLIN};

	assert_int_equal(sendto(s->fd, s->data, s->size, 0, (struct sockaddr *)&s->to, sizeof(s->to)), s->size);
	assert_int_equal(poll(&p, 1, 5000), 1);
	direct_dispatch(a->d, clock_now_ns());
}

static void the_bytes_of_a_ping_are_these(void **state)
{
	/* HMAC-SHA256 of the first 16 bytes, which hold eight random ones, is not golden: its length is. */
	static const uint8_t head[8] = {'D', 1, 1, 0, 0, 0, 0, 1};
	struct stranger s;
	struct member a;

	(void)state;
	begin(&a, 1);
	hosts(&a, "127.0.0.1");
	stranger_begin(&s, &a, 7);
	stranger_take(&s, &a);
	assert_int_equal(s.size, 8 + 8 + 16);
	assert_memory_equal(s.data, head, 8);
	close(s.fd);
	direct_free(a.d);
}

static void without_the_key_nobody_is_heard(void **state)
{
	struct stranger s;
	struct member a;

	(void)state;
	begin(&a, 1);
	hosts(&a, "127.0.0.1");
	stranger_begin(&s, &a, 7);
	stranger_take(&s, &a);
	put_be32(s.data + 4,
		 2); /* its own PING as a PONG of member 2: authenticated by member 2's key, not by its own */
	s.data[2] = 2;
	stranger_send(&s, &a);
	assert_false(direct_send(a.d, 2, "x", 1));
	s.data[2] = 3;
	stranger_send(&s, &a);
	for (s.size = 0; s.size < 40; s.size++) /* and everything that is too short */
		stranger_send(&s, &a);
	s.size = sizeof(s.data);
	stranger_send(&s, &a);
	assert_int_equal(a.heard, 0);
	close(s.fd);
	direct_free(a.d);
}

static void a_port_that_is_taken_is_refused_by_its_number(void **state)
{
	uint8_t hello[DIRECT_HELLO_SIZE];
	struct err e = ERR_INIT;
	struct member a;
	uint16_t port;

	(void)state;
	begin(&a, 1);
	direct_hello(a.d, hello);
	port = get_be16(hello + 2);
	assert_null(direct_new(port, on_heard, &a, &e));
	assert_int_equal(e.code, ERR_SYSTEM);
	assert_non_null(strstr(e.text, "UDP port"));
	direct_free(a.d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(members_that_answer_are_reached),
		cmocka_unit_test(a_member_that_answers_no_more_is_not_reached),
		cmocka_unit_test(a_host_that_is_removed_is_forgotten),
		cmocka_unit_test(a_hello_of_another_format_is_refused),
		cmocka_unit_test(the_bytes_of_a_ping_are_these),
		cmocka_unit_test(without_the_key_nobody_is_heard),
		cmocka_unit_test(a_port_that_is_taken_is_refused_by_its_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
