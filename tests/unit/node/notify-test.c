/* SPDX-License-Identifier: Apache-2.0 */
/* What the service manager hears, through real datagram sockets. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "node/notify.h"

static char path[64];

/* The manager's socket at @name ("@..." is abstract). */
static int manager_listen(const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	memcpy(a.sun_path, name, strlen(name));
	if (name[0] == '@')
		a.sun_path[0] = 0;
	else
		len++;
	assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
	return fd;
}

static void assert_heard(int fd, const char *expect)
{
	char buf[2048];
	ssize_t n = recv(fd, buf, sizeof(buf) - 1, 0);

	assert_true(n > 0);
	buf[n] = 0;
	assert_string_equal(buf, expect);
}

static struct notify opened(const char *name)
{
	struct notify n = NOTIFY_INIT;
	struct err e = ERR_INIT;

	setenv("NOTIFY_SOCKET", name, 1);
	if (notify_open(&n, &e) < 0)
		fail_msg("%s", e.text);
	assert_null(getenv("NOTIFY_SOCKET"));
	assert_null(getenv("WATCHDOG_USEC"));
	assert_null(getenv("WATCHDOG_PID"));
	return n;
}

static void talk(const char *name)
{
	_closefd_ int fd = manager_listen(name);
	struct notify n = opened(name);
	struct err e = ERR_INIT;

	assert_int_equal(notify_ready(&n, "3 nodes\nMAINPID=1", &e), 0);
	assert_heard(fd, "READY=1\nSTATUS=3 nodes MAINPID=1");
	assert_int_equal(notify_watchdog(&n, &e), 0);
	assert_heard(fd, "WATCHDOG=1");
	assert_int_equal(notify_status(&n, &e, "%d guests", 7), 0);
	assert_heard(fd, "STATUS=7 guests");
	assert_int_equal(notify_stopping(&n, &e), 0);
	assert_heard(fd, "STOPPING=1");
	notify_close(&n);
	assert_int_equal(n.fd, -1);
}

static void manager_at_a_path_hears_everything(void **state)
{
	(void)state;
	talk(path);
	unlink(path);
}

static void manager_in_the_abstract_namespace_hears_everything(void **state)
{
	_free_ char *name = xasprintf("@godwit-notify-%d", (int)getpid());

	(void)state;
	talk(name);
}

static void without_a_manager_everything_succeeds(void **state)
{
	struct notify n = NOTIFY_INIT;
	struct err e = ERR_INIT;

	(void)state;
	unsetenv("NOTIFY_SOCKET");
	setenv("WATCHDOG_USEC", "1000000", 1);
	assert_int_equal(notify_open(&n, &e), 0);
	assert_int_equal(n.fd, -1);
	assert_int_equal(n.watchdog_ns, 0);
	assert_int_equal(notify_ready(&n, "up", &e), 0);
	assert_int_equal(notify_watchdog(&n, &e), 0);
	notify_close(&n);
}

static void watchdog_period_is_half_of_the_managers_patience(void **state)
{
	_closefd_ int fd = manager_listen(path);
	char pid[16];
	struct notify n;

	(void)state;
	setenv("WATCHDOG_USEC", "30000000", 1);
	n = opened(path);
	assert_int_equal(n.watchdog_ns, 15000000000LL);
	notify_close(&n);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("WATCHDOG_USEC", "30000000", 1);
	setenv("WATCHDOG_PID", pid, 1);
	n = opened(path);
	assert_int_equal(n.watchdog_ns, 15000000000LL);
	notify_close(&n);
	setenv("WATCHDOG_USEC", "30000000", 1);
	setenv("WATCHDOG_PID", "1", 1); /* somebody else is watched */
	n = opened(path);
	assert_int_equal(n.watchdog_ns, 0);
	notify_close(&n);
	unlink(path);
}

static void environment_that_cannot_be_is_refused(void **state)
{
	static const struct {
		const char *socket, *usec, *expect;
	} cases[] = {
		{"relative", NULL, "only a path or an abstract unix socket"},
		{"vsock:2:1", NULL, "only a path or an abstract unix socket"},
		{"/", NULL, "only a path"},
		{"/no/such/socket", NULL, "No such file"},
		{"/no/such/socket", "soon", "WATCHDOG_USEC=soon"},
		{"/no/such/socket", "-5", "WATCHDOG_USEC=-5"},
		{"/no/such/socket", "99999999999999999999999", "WATCHDOG_USEC"},
	};
	_free_ char *long_path = xasprintf("/%0200d", 1);
	struct notify n = NOTIFY_INIT;
	struct err e = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		setenv("NOTIFY_SOCKET", cases[i].socket, 1);
		if (cases[i].usec)
			setenv("WATCHDOG_USEC", cases[i].usec, 1);
		assert_int_equal(notify_open(&n, &e), -1);
		if (!strstr(e.text, cases[i].expect))
			fail_msg("%s", e.text);
	}
	setenv("NOTIFY_SOCKET", long_path, 1);
	assert_int_equal(notify_open(&n, &e), -1);
	assert_non_null(strstr(e.text, "longer than"));
	assert_int_equal(n.fd, -1);
}

static void manager_that_does_not_read_never_blocks_us(void **state)
{
	_closefd_ int fd = manager_listen(path);
	struct notify n = opened(path);
	struct err e = ERR_INIT;
	int r = 0;

	(void)state;
	for (int i = 0; i < 100000 && r == 0; i++)
		r = notify_watchdog(&n, &e);
	assert_int_equal(r, -1);
	assert_int_equal(e.errnum, EAGAIN);
	notify_close(&n);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(manager_at_a_path_hears_everything),
		cmocka_unit_test(manager_in_the_abstract_namespace_hears_everything),
		cmocka_unit_test(without_a_manager_everything_succeeds),
		cmocka_unit_test(watchdog_period_is_half_of_the_managers_patience),
		cmocka_unit_test(environment_that_cannot_be_is_refused),
		cmocka_unit_test(manager_that_does_not_read_never_blocks_us),
	};

	snprintf(path, sizeof(path), "/tmp/godwit-notify-%d", (int)getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
