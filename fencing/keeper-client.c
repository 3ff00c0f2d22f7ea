/* SPDX-License-Identifier: Apache-2.0 */
/* Speaking to godwit-watchdog. */
#include "fencing/keeper-client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sock.h"

int keeper_open(const char *run_dir, struct keeper_client *ret, struct err *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	_closefd_ int fd = -1;
	int n = snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/" KEEPER_SOCKET, run_dir);

	if (n < 0 || (size_t)n >= sizeof(addr.sun_path))
		return err_set(e, ERR_INPUT, "socket %s/" KEEPER_SOCKET ": the path is longer than %zu bytes", run_dir,
			       sizeof(addr.sun_path) - 1);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "socket");
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		if (errno == ENOENT || errno == ECONNREFUSED)
			return err_set(e, ERR_NOTFOUND, "godwit-watchdog is not running (nobody listens at %s)",
				       addr.sun_path);
		if (errno == EAGAIN)
			return err_set(e, ERR_TIMEOUT, "godwit-watchdog takes no more connections at %s; does it run?",
				       addr.sun_path);
		return err_sys(e, "godwit-watchdog at %s", addr.sun_path);
	}
	ret->fd = steal_fd(&fd);
	return 0;
}

int keeper_read(struct keeper_client *k, struct keeper_status *ret, struct err *e)
{
	unsigned char buf[KEEPER_STATUS_SIZE + 1];
	ssize_t n = recv(k->fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return err_set(e, ERR_UNAVAILABLE, "godwit-watchdog closed the connection");
	return keeper_status_decode(buf, (size_t)n, ret, e) < 0 ? -1 : 1;
}

int keeper_wait(struct keeper_client *k, int64_t deadline_ns, struct keeper_status *ret, struct err *e)
{
	for (;;) {
		int r = keeper_read(k, ret, e);

		if (r != 0)
			return r < 0 ? -1 : 0;
		r = sock_wait(k->fd, POLLIN, deadline_ns, e);
		if (r < 0)
			return -1;
		if (r == 0)
			return err_set(
				e, ERR_TIMEOUT,
				"godwit-watchdog runs and does not answer; is it stopped, or the host overloaded?");
	}
}

int keeper_connect(const char *run_dir, int64_t deadline_ns, struct keeper_client *ret,
		   struct keeper_status *ret_status, struct err *e)
{
	struct keeper_client k = KEEPER_CLIENT_INIT;

	if (keeper_open(run_dir, &k, e) < 0)
		return -1;
	if (keeper_wait(&k, deadline_ns, ret_status, e) < 0) {
		keeper_close(&k);
		return -1;
	}
	*ret = k;
	return 0;
}

static int ask(struct keeper_client *k, const struct keeper_request *r, struct err *e)
{
	unsigned char buf[KEEPER_REQUEST_SIZE];

	keeper_request_encode(r, buf);
	if (send(k->fd, buf, sizeof(buf), MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(buf))
		return 0;
	if (errno == EAGAIN)
		return err_set(e, ERR_TIMEOUT, "godwit-watchdog does not read what it is told; is it stopped?");
	return err_set(e, ERR_UNAVAILABLE, "godwit-watchdog cannot be told anything: %s", strerror(errno));
}

int keeper_ask_look(struct keeper_client *k, struct err *e)
{
	return ask(k, &(struct keeper_request){.type = KEEPER_LOOK}, e);
}

int keeper_ask_configure(struct keeper_client *k, const struct keeper_config *c, struct err *e)
{
	return ask(k, &(struct keeper_request){.type = KEEPER_CONFIGURE, .config = *c}, e);
}

int keeper_ask_until(struct keeper_client *k, int64_t until_ns, struct err *e)
{
	return ask(k, &(struct keeper_request){.type = KEEPER_UNTIL, .number = (uint64_t)until_ns}, e);
}

int keeper_ask_release(struct keeper_client *k, struct err *e)
{
	return ask(k, &(struct keeper_request){.type = KEEPER_RELEASE}, e);
}

int keeper_ask_die(struct keeper_client *k, struct err *e)
{
	return ask(k, &(struct keeper_request){.type = KEEPER_DIE}, e);
}

int keeper_ask_seen(struct keeper_client *k, uint64_t serial, struct err *e)
{
	return ask(k, &(struct keeper_request){.type = KEEPER_SEEN, .number = serial}, e);
}

void keeper_close(struct keeper_client *k)
{
	mem_closep(&k->fd);
	k->fd = -1;
}
