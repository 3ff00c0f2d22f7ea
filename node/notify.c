/* SPDX-License-Identifier: Apache-2.0 */
/* sd_notify: datagrams of VARIABLE=value lines to the socket that NOTIFY_SOCKET names. */
#include "node/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"

#define STATUS_MAX 512

/* A variable of the environment, removed from it. Caller frees; NULL when it is not there. */
static char *env_take(const char *name)
{
	const char *value = getenv(name);
	char *copy = value ? xstrdup(value) : NULL;

	unsetenv(name);
	return copy;
}

/* A path, or "@name" for the abstract namespace, which has a NUL in front and no NUL at its end. */
static int address_of(const char *text, struct sockaddr_un *ret, socklen_t *ret_len, struct err *e)
{
	size_t n = strlen(text);

	if ((text[0] != '/' && text[0] != '@') || !text[1])
		return err_set(e, ERR_INPUT, "NOTIFY_SOCKET=%s: only a path or an abstract unix socket is possible",
			       text);
	if (n >= sizeof(ret->sun_path))
		return err_set(e, ERR_INPUT, "NOTIFY_SOCKET=%s: longer than %zu bytes", text,
			       sizeof(ret->sun_path) - 1);
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(ret->sun_path, text, n);
	*ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	if (text[0] == '@')
		ret->sun_path[0] = 0;
	else
		*ret_len += 1;
	return 0;
}

/* Half of the manager's patience, so that one late turn of the loop is no death. 0: it does not watch us. */
static int watchdog_period(const char *usec, const char *pid, int64_t *ret_ns, struct err *e)
{
	unsigned long long us;
	char *end;

	*ret_ns = 0;
	if (!usec || (pid && strtoll(pid, NULL, 10) != (long long)getpid()))
		return 0;
	errno = 0;
	us = strtoull(usec, &end, 10);
	if (errno || *end || end == usec || usec[0] == '-' || us == 0 || us > INT64_MAX / 1000)
		return err_set(e, ERR_INPUT, "WATCHDOG_USEC=%s is not a number of microseconds", usec);
	*ret_ns = (int64_t)us * 1000 / 2;
	return 0;
}

int notify_open(struct notify *n, struct err *e)
{
	_free_ char *path = env_take("NOTIFY_SOCKET");
	_free_ char *usec = env_take("WATCHDOG_USEC");
	_free_ char *pid = env_take("WATCHDOG_PID");
	struct notify opened = NOTIFY_INIT;
	struct sockaddr_un addr;
	socklen_t len = 0;

	if (!path) {
		*n = opened;
		return 0;
	}
	if (address_of(path, &addr, &len, e) < 0 || watchdog_period(usec, pid, &opened.watchdog_ns, e) < 0)
		return -1;
	opened.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (opened.fd < 0)
		return err_sys(e, "notify socket");
	if (connect(opened.fd, (struct sockaddr *)&addr, len) < 0) {
		err_sys(e, "NOTIFY_SOCKET=%s", path);
		close(opened.fd);
		return -1;
	}
	*n = opened;
	return 0;
}

void notify_close(struct notify *n)
{
	mem_closep(&n->fd);
	*n = NOTIFY_INIT;
}

static int notify_send(struct notify *n, const char *text, struct err *e)
{
	if (n->fd < 0)
		return 0;
	if (send(n->fd, text, strlen(text), MSG_NOSIGNAL) < 0)
		return err_sys(e, "telling the service manager \"%.*s\"", (int)strcspn(text, "\n"), text);
	return 0;
}

/* "STATUS=..." in @ret: a line break would begin another variable. */
static void status_line(char ret[STATUS_MAX + 8], const char *status)
{
	snprintf(ret, STATUS_MAX + 8, "STATUS=%s", status);
	for (char *p = ret; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
}

int notify_ready(struct notify *n, const char *status, struct err *e)
{
	char line[STATUS_MAX + 8];
	_free_ char *text = NULL;

	status_line(line, status);
	text = xasprintf("READY=1\n%s", line);
	return notify_send(n, text, e);
}

int notify_stopping(struct notify *n, struct err *e)
{
	return notify_send(n, "STOPPING=1", e);
}

int notify_watchdog(struct notify *n, struct err *e)
{
	return notify_send(n, "WATCHDOG=1", e);
}

int notify_status(struct notify *n, struct err *e, const char *fmt, ...)
{
	char line[STATUS_MAX + 8], status[STATUS_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(status, sizeof(status), fmt, ap);
	va_end(ap);
	status_line(line, status);
	return notify_send(n, line, e);
}
