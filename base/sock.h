/* SPDX-License-Identifier: Apache-2.0 */
/* Blocking sockets with deadlines: addresses, connect, listen, whole reads and writes, descriptor passing. */
#ifndef GODWIT_BASE_SOCK_H
#define GODWIT_BASE_SOCK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

/* A deadline is an absolute clock_now_ns() value; SOCK_FOREVER waits without end. */
#define SOCK_FOREVER (-1LL)

struct sock_addr {
	char host[256]; /* name or address; IPv6 without the brackets */
	char port[8];   /* decimal; "0" asks the kernel for a free one when listening */
};

/* Parse "HOST:PORT", "[V6]:PORT" or ":PORT" (any address). 0 or -1 with @e (ERR_USAGE). Pure. */
int sock_addr_parse(const char *text, struct sock_addr *ret, struct err *e);

/* Connected TCP socket (TCP_NODELAY, keepalive, close-on-exec), every address of the name tried in turn. Caller closes.
 * -1 with
 * @e. */
int sock_tcp_connect(const struct sock_addr *addr, int64_t deadline_ns, struct err *e);

/* Listening TCP socket (SO_REUSEADDR). Caller closes. -1 with @e. */
int sock_tcp_listen(const struct sock_addr *addr, int backlog, struct err *e);

/* The port a listening socket got. */
int sock_tcp_port(int fd);

/* Wait for one connection. Returns a connected descriptor (TCP_NODELAY, keepalive, close-on-exec) or -1 with @e. */
int sock_accept(int listen_fd, int64_t deadline_ns, struct err *e);

/* What sock_accept() and sock_tcp_connect() do with a socket: small messages leave at once, and a host that vanished is
 * found out within half a minute. */
void sock_tcp_tune(int fd);

/* Connected unix stream socket at @path. -1 with @e. A path longer than sun_path is an error with the limit named. */
int sock_unix_connect(const char *path, struct err *e);

/* From now on every wait of the calling thread also ends, with ERR_CANCELLED, when @fd is readable; -1: no more. */
void sock_set_cancel(int fd);

/* Wait until @fd is ready for @events (POLLIN, POLLOUT). 1 ready, 0 deadline passed, -1 with @e. */
int sock_wait(int fd, short events, int64_t deadline_ns, struct err *e);

/* Read exactly @n bytes. 0; -1 with @e: ERR_PROTOCOL "closed by the other side" at end of file, ERR_TIMEOUT,
 * ERR_SYSTEM. */
int sock_read_full(int fd, void *buf, size_t n, int64_t deadline_ns, struct err *e);

/* Write exactly @n bytes / the whole of @iov (which is modified). Never raises SIGPIPE. */
int sock_write_full(int fd, const void *buf, size_t n, int64_t deadline_ns, struct err *e);
int sock_writev_full(int fd, struct iovec *iov, int iovcnt, int64_t deadline_ns, struct err *e);

/* Write @n bytes with @passed_fd attached as SCM_RIGHTS to the first byte (unix sockets). */
int sock_send_fd(int fd, const void *buf, size_t n, int passed_fd, struct err *e);

#endif
