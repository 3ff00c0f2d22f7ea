/* SPDX-License-Identifier: Apache-2.0 */
/* Who speaks to godwit-watchdog: godwitd, and a person who asks for the status. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "watchdog/serve-int.h"

int serve_listen(struct serve *s, int inherited_fd, struct err *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	_closefd_ int fd = -1;
	int n = snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/" KEEPER_SOCKET, s->o->run_dir);

	if (inherited_fd >= 0) {
		s->listen_fd = inherited_fd;
		return 0;
	}
	if (n < 0 || (size_t)n >= sizeof(addr.sun_path))
		return err_set(e, ERR_INPUT,
			       "socket %s/" KEEPER_SOCKET
			       ": the path is longer than %zu bytes; choose a shorter --run-dir",
			       s->o->run_dir, sizeof(addr.sun_path) - 1);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "socket");
	/* We have the permit's lock, so whoever made it is gone. */
	unlink(addr.sun_path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || chmod(addr.sun_path, 0600) < 0 ||
	    listen(fd, SERVE_CLIENTS) < 0)
		return err_sys(e, "socket %s", addr.sun_path);
	s->listen_fd = steal_fd(&fd);
	return 0;
}

static void client_close(struct serve *s, size_t i)
{
	close(s->clients[i]);
	s->clients[i] = -1;
}

/* Nobody is waited for: a client that does not read loses its connection. */
static void client_tell(struct serve *s, size_t i, enum keeper_type answer_to, const struct err *e)
{
	unsigned char buf[KEEPER_STATUS_SIZE];
	struct keeper_status st = {
		.answer_to = answer_to,
		.code = e ? e->code : ERR_NONE,
		.state = s->keeper.state,
		.leaving = s->keeper.leaving,
		.device = s->device,
		.forever = s->dog.fd >= 0 && s->dog.forever,
		.watchdog_s = s->device == KEEPER_DEVICE_ARMED ? s->dog.timeout_s : 0,
		.until_ns = s->keeper.state == KEEPER_ARMED ? s->keeper.until_ns : 0,
		.alive = s->keeper.state == KEEPER_STOPPING ? s->alive : 0,
		.report = s->keeper.report,
	};

	snprintf(st.text, sizeof(st.text), "%.*s", (int)sizeof(st.text) - 1, e ? e->text : "");
	snprintf(st.device_text, sizeof(st.device_text), "%s", s->device_text);
	keeper_status_encode(&st, buf);
	if (send(s->clients[i], buf, sizeof(buf), MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)sizeof(buf))
		client_close(s, i);
}

void serve_tell(struct serve *s)
{
	if (s->told_state == s->keeper.state && s->told_device == s->device &&
	    s->told_serial == s->keeper.report.serial)
		return;
	s->told_state = s->keeper.state;
	s->told_device = s->device;
	s->told_serial = s->keeper.report.serial;
	for (size_t i = 0; i < SERVE_CLIENTS; i++)
		if (s->clients[i] >= 0)
			client_tell(s, i, KEEPER_STATUS, NULL);
}

void serve_accept(struct serve *s)
{
	_closefd_ int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred who = {.uid = (uid_t)-1};
	socklen_t len = sizeof(who);

	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 || (who.uid != 0 && who.uid != geteuid())) {
		log_warning("event=client_refused uid=%d", (int)who.uid);
		return;
	}
	for (size_t i = 0; i < SERVE_CLIENTS; i++)
		if (s->clients[i] < 0) {
			s->clients[i] = steal_fd(&fd);
			client_tell(s, i, KEEPER_STATUS, NULL);
			return;
		}
	log_warning("event=client_refused reason=\"%d connections are open\"", SERVE_CLIENTS);
}

static int obey(struct serve *s, const struct keeper_request *r, int64_t now_ns, struct err *e)
{
	switch (r->type) {
	case KEEPER_CONFIGURE:
		if (keeper_configure(&s->keeper, &r->config, now_ns, e) < 0)
			return -1;
		/* The mark before the first time for it. */
		permit_set_until(&s->permit, keeper_permit(&s->keeper));
		permit_set_mark(&s->permit, s->keeper.config.mark);
		s->dog_try = true;
		serve_device(s);
		return 0;
	case KEEPER_UNTIL:
		return keeper_until(&s->keeper, (int64_t)r->number, now_ns, e);
	case KEEPER_RELEASE:
		if (keeper_release(&s->keeper, now_ns, e) < 0)
			return -1;
		log_info("event=released");
		/* So that the answer tells of a device that is closed. */
		serve_device(s);
		return 0;
	case KEEPER_DIE:
		return keeper_die(&s->keeper, now_ns, e);
	case KEEPER_SEEN:
		keeper_seen(&s->keeper, r->number);
		return 0;
	case KEEPER_LOOK:
	case KEEPER_STATUS:
	case KEEPER_TYPE_MAX:
		break;
	}
	return 0;
}

void serve_client(struct serve *s, size_t i)
{
	unsigned char buf[KEEPER_REQUEST_SIZE + 1];
	ssize_t n = recv(s->clients[i], buf, sizeof(buf), MSG_DONTWAIT);
	struct keeper_request r;
	struct err e = ERR_INIT;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_close(s, i);
		return;
	}
	if (keeper_request_decode(buf, (size_t)n, &r, &e) < 0) {
		log_warning("event=request_refused error=\"%s\"", e.text);
		client_tell(s, i, KEEPER_STATUS, &e);
		if (s->clients[i] >= 0)
			client_close(s, i);
		return;
	}
	if (obey(s, &r, clock_boot_ns(), &e) < 0)
		log_warning("event=request_refused request=%s error=\"%s\"", keeper_type_names[r.type], e.text);
	client_tell(s, i, r.type, e.code ? &e : NULL);
}
