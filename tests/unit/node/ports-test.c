/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses that accept connections, stop to, and never did. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"
#include "node/ports.h"

static struct loop *loop;
static struct ports *ports;
static char address[32];
static bool wanted;
static int64_t deadline;

static int listen_somewhere(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &size), 0);
	snprintf(address, sizeof(address), "127.0.0.1:%d", ntohs(a.sin_port));
	return fd;
}

static void look(void *arg)
{
	(void)arg;
	if (ports_answers(ports, address) == wanted || clock_now_ns() > deadline)
		loop_stop(loop);
}

static void run_until(bool answers)
{
	wanted = answers;
	deadline = clock_now_ns() + 20 * NS_PER_S;
	loop_run(loop);
	assert_int_equal(ports_answers(ports, address), answers);
}

static void an_address_answers_while_somebody_listens(void **state)
{
	int fd = listen_somewhere();
	struct loop_timer *timer;

	(void)state;
	loop = loop_new();
	ports = ports_new(loop);
	timer = loop_timer_add(loop, 0, 50 * NS_PER_MS, look, NULL);
	assert_false(ports_answers(ports, address));
	run_until(true);
	close(fd);
	run_until(false);
	snprintf(address, sizeof(address), "[::1]:1");
	assert_false(ports_answers(ports, address));
	loop_timer_free(timer);
	ports_free(ports);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(an_address_answers_while_somebody_listens)};

	return cmocka_run_group_tests_name("node/ports", tests, NULL, NULL);
}
