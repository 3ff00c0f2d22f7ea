/* SPDX-License-Identifier: Apache-2.0 */
/* Becoming the next version of this program, without a moment in which the device is closed.
 *
 * SIGHUP: the program that is now at our place is run with --version; only if that ends well do we exec it, as a
 * program that does not even start would cost the host. It inherits the device, the socket and the permit with its
 * lock, and finds the state in the permit's page, where it also is after a crash. Deadlines are absolute, so nothing is
 * lost meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "watchdog/serve-int.h"

#define LEGACY_ENV "GODWIT_WATCHDOG_LEGACY"

struct serve_legacy serve_legacy(void)
{
	const char *text = getenv(LEGACY_ENV);
	struct serve_legacy l = {-1, -1, -1};

	if (text && sscanf(text, "listen=%d permit=%d device=%d", &l.listen_fd, &l.permit_fd, &l.device_fd) != 3)
		l = (struct serve_legacy){-1, -1, -1};
	unsetenv(LEGACY_ENV);
	/* The variable may be anybody's: only descriptors that are open, and not 0 to 2, are taken. */
	for (int i = 0; i < 3; i++) {
		int *fd = i == 0 ? &l.listen_fd : i == 1 ? &l.permit_fd : &l.device_fd;

		if (*fd <= STDERR_FILENO || fcntl(*fd, F_SETFD, FD_CLOEXEC) < 0)
			*fd = -1;
	}
	return l;
}

void serve_upgrade_begin(struct serve *s)
{
	const char *argv[] = {s->exe, "--version", NULL};
	struct child_spec spec = {.argv = argv};
	struct err e = ERR_INIT;

	if (s->check.pidfd >= 0)
		return;
	if (child_spawn(&spec, &s->check, &e) < 0)
		log_error("event=upgrade_refused program=%s error=\"%s\"", s->exe, e.text);
}

void serve_upgrade_checked(struct serve *s)
{
	char words[128];
	int status = -1;

	child_wait(&s->check, clock_now_ns(), &status, NULL);
	child_done(&s->check);
	s->upgrade = status == 0;
	if (!s->upgrade)
		log_error("event=upgrade_refused program=%s error=\"%s --version %s; the old version goes on\"", s->exe,
			  s->exe, child_status_text(status, words, sizeof(words)));
}

static void inherit(int fd, bool yes)
{
	if (fd >= 0)
		(void)fcntl(fd, F_SETFD, yes ? 0 : FD_CLOEXEC);
}

void serve_exec(struct serve *s)
{
	char text[128];

	s->upgrade = false;
	snprintf(text, sizeof(text), "listen=%d permit=%d device=%d", s->listen_fd, s->permit.fd, s->dog.fd);
	setenv(LEGACY_ENV, text, 1);
	log_info("event=upgrade program=%s", s->exe);
	inherit(s->listen_fd, true);
	inherit(s->permit.fd, true);
	inherit(s->dog.fd, true);
	execv(s->exe, s->o->argv);
	log_error("event=upgrade_failed program=%s error=\"%s\"", s->exe, strerror(errno));
	unsetenv(LEGACY_ENV);
	inherit(s->listen_fd, false);
	inherit(s->permit.fd, false);
	inherit(s->dog.fd, false);
}
