/* SPDX-License-Identifier: Apache-2.0 */
/* Blocking sockets with deadlines. */
#include "base/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

int sock_addr_parse(const char *text, struct sock_addr *ret, struct err *e)
{
	const char *colon = strrchr(text, ':');
	const char *host = text;
	size_t host_len;
	char *end;
	long port;

	if (!colon)
		return err_set(e, ERR_USAGE, "\"%s\" has no port: write HOST:PORT", text);
	host_len = (size_t)(colon - text);
	if (host_len >= 2 && text[0] == '[' && text[host_len - 1] == ']') {
		host++;
		host_len -= 2;
	} else if (memchr(text, ':', host_len)) {
		return err_set(e, ERR_USAGE, "\"%s\": write an IPv6 address in brackets, [ADDR]:PORT", text);
	}
	if (host_len >= sizeof(ret->host))
		return err_set(e, ERR_USAGE, "host name of %zu bytes is longer than %zu", host_len,
			       sizeof(ret->host) - 1);
	port = strtol(colon + 1, &end, 10);
	if (end == colon + 1 || *end || port < 0 || port > 65535)
		return err_set(e, ERR_USAGE, "\"%s\": port must be a number from 0 to 65535", text);
	memcpy(ret->host, host, host_len);
	ret->host[host_len] = 0;
	snprintf(ret->port, sizeof(ret->port), "%u", (unsigned)port);
	return 0;
}

static struct addrinfo *addr_resolve(const struct sock_addr *addr, int flags, struct err *e)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
	struct addrinfo *list = NULL;
	int r = getaddrinfo(addr->host[0] ? addr->host : NULL, addr->port, &hints, &list);

	if (r)
		err_set(e, ERR_INPUT, "address %s port %s: %s", addr->host, addr->port, gai_strerror(r));
	return r ? NULL : list;
}

/* Small messages leave at once, and a host that vanished without a word is found out: a probe every 5 s after 10 s of
 * silence, three unanswered, or 30 s without an acknowledgement, end the connection. */
void sock_tcp_tune(int fd)
{
	int on = 1, idle_s = 10, interval_s = 5, probes = 3, unacked_ms = 30000;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked_ms, sizeof(unacked_ms));
}

static _Thread_local int cancel_fd = -1;

void sock_set_cancel(int fd)
{
	cancel_fd = fd;
}

int sock_wait(int fd, short events, int64_t deadline_ns, struct err *e)
{
	for (;;) {
		struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = cancel_fd, .events = POLLIN}};
		int r = poll(p, 2, clock_poll_ms(deadline_ns));

		if (r > 0 && p[1].revents)
			return err_set(e, ERR_CANCELLED, "cancelled");
		if (r > 0)
			return 1;
		if (r == 0 && clock_poll_ms(deadline_ns) == 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return err_sys(e, "poll");
	}
}

/* Connect one address; the socket stays blocking afterwards. Returns the descriptor or -1 with @e. */
static int connect_one(const struct addrinfo *ai, int64_t deadline_ns, struct err *e)
{
	_closefd_ int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);
	socklen_t len = sizeof(int);
	int error = 0;
	int ready;

	if (fd < 0)
		return err_sys(e, "socket");
	if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0 && errno != EINPROGRESS)
		return err_sys(e, "connect");
	ready = sock_wait(fd, POLLOUT, deadline_ns, e);
	if (ready < 0)
		return -1;
	if (!ready)
		return err_set(e, ERR_TIMEOUT, "connect: no answer in time");
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error) {
		errno = error;
		return err_sys(e, "connect");
	}
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	sock_tcp_tune(fd);
	return steal_fd(&fd);
}

int sock_tcp_connect(const struct sock_addr *addr, int64_t deadline_ns, struct err *e)
{
	struct addrinfo *list = addr_resolve(addr, 0, e);
	int fd = -1;

	if (!list)
		return -1;
	for (struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next)
		fd = connect_one(ai, deadline_ns, e);
	freeaddrinfo(list);
	return fd < 0 ? err_wrap(e, "%s port %s", addr->host, addr->port) : fd;
}

int sock_tcp_listen(const struct sock_addr *addr, int backlog, struct err *e)
{
	struct addrinfo *list = addr_resolve(addr, AI_PASSIVE, e);
	_closefd_ int fd = -1;
	int on = 1;

	if (!list)
		return -1;
	fd = socket(list->ai_family, list->ai_socktype | SOCK_CLOEXEC, list->ai_protocol);
	if (fd < 0) {
		freeaddrinfo(list);
		return err_sys(e, "socket");
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, backlog) < 0) {
		freeaddrinfo(list);
		return err_sys(e, "listen on %s port %s", addr->host, addr->port);
	}
	freeaddrinfo(list);
	return steal_fd(&fd);
}

int sock_tcp_port(int fd)
{
	union {
		struct sockaddr sa;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} a = {.v6 = {0}};
	socklen_t len = sizeof(a);

	if (getsockname(fd, &a.sa, &len) < 0)
		return -1;
	return ntohs(a.sa.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
}

int sock_accept(int listen_fd, int64_t deadline_ns, struct err *e)
{
	int ready = sock_wait(listen_fd, POLLIN, deadline_ns, e);
	int fd;

	if (ready < 0)
		return -1;
	if (!ready)
		return err_set(e, ERR_TIMEOUT, "nobody connected in time");
	fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "accept");
	sock_tcp_tune(fd);
	return fd;
}

int sock_unix_connect(const char *path, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_closefd_ int fd = -1;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, ERR_INPUT, "socket path \"%s\" is longer than %zu bytes: use a shorter directory",
			       path, sizeof(a.sun_path) - 1);
	memcpy(a.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(e, "socket");
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return err_sys(e, "connect to %s", path);
	return steal_fd(&fd);
}

/* Blocking I/O needs a poll first only where a deadline was asked for. */
static int wait_or_timeout(int fd, short events, int64_t deadline_ns, struct err *e)
{
	int ready;

	if (deadline_ns < 0)
		return 0;
	ready = sock_wait(fd, events, deadline_ns, e);
	if (ready == 0)
		return err_set(e, ERR_TIMEOUT, "the other side did not %s in time",
			       events == POLLIN ? "answer" : "read");
	return ready < 0 ? -1 : 0;
}

int sock_read_full(int fd, void *buf, size_t n, int64_t deadline_ns, struct err *e)
{
	char *p = buf;

	while (n) {
		ssize_t r;

		if (wait_or_timeout(fd, POLLIN, deadline_ns, e) < 0)
			return -1;
		r = read(fd, p, n);
		if (r == 0)
			return err_set(e, ERR_PROTOCOL, "closed by the other side");
		if (r < 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			return err_sys(e, "read");
		}
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

int sock_write_full(int fd, const void *buf, size_t n, int64_t deadline_ns, struct err *e)
{
	struct iovec iov = {.iov_base = (void *)buf, .iov_len = n};

	return sock_writev_full(fd, &iov, 1, deadline_ns, e);
}

int sock_writev_full(int fd, struct iovec *iov, int iovcnt, int64_t deadline_ns, struct err *e)
{
	while (iovcnt) {
		struct msghdr m = {.msg_iov = iov, .msg_iovlen = (size_t)iovcnt};
		int flags = MSG_NOSIGNAL | (deadline_ns < 0 ? 0 : MSG_DONTWAIT);
		ssize_t r;

		if (!iov->iov_len) {
			iov++;
			iovcnt--;
			continue;
		}
		if (wait_or_timeout(fd, POLLOUT, deadline_ns, e) < 0)
			return -1;
		r = sendmsg(fd, &m, flags);
		if (r < 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			return err_sys(e, "write");
		}
		while (iovcnt && (size_t)r >= iov->iov_len) {
			r -= (ssize_t)iov->iov_len;
			iov++;
			iovcnt--;
		}
		if (iovcnt) {
			iov->iov_base = (char *)iov->iov_base + r;
			iov->iov_len -= (size_t)r;
		}
	}
	return 0;
}

int sock_send_fd(int fd, const void *buf, size_t n, int passed_fd, struct err *e)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} ctl = {{0}};
	struct iovec iov = {.iov_base = (void *)buf, .iov_len = n};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.buf, .msg_controllen = sizeof(ctl.buf)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	ssize_t r;

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &passed_fd, sizeof(int));
	do
		r = sendmsg(fd, &m, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return err_sys(e, "send a descriptor");
	return sock_write_full(fd, (const char *)buf + r, n - (size_t)r, SOCK_FOREVER, e);
}
