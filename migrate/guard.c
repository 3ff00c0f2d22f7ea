/* SPDX-License-Identifier: Apache-2.0 */
/* The guard. */
#include "migrate/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define LOOK_EVERY_MS 100

/* The engine hangs in a step in which its guest stands still everywhere: end it, so that we may act in its place. */
static void kill_if_stalled(const struct handover *h, int from, int to, int engine_pidfd)
{
	int step = h->step;

	if (step < from || step > to || clock_now_ns() - h->beat_ns < GUARD_STALL)
		return;
	log_error("event=engine-stalled step=%d seconds=%lld action=kill", step, GUARD_STALL / NS_PER_S);
	syscall(SYS_pidfd_send_signal, engine_pidfd, SIGKILL, NULL, 0);
}

static void guard_run(struct handover *h, int from, int to, guard_detach_fn *detach, guard_settle_fn *settle, void *arg,
		      int life_fd, int engine_pidfd)
{
	struct pollfd p[2] = {{.fd = life_fd, .events = POLLIN}, {.fd = engine_pidfd, .events = POLLIN}};
	const char *text;

	/* The terminal's signals are for the engine; the guard outlives both. */
	detach(arg);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_NAME, "godwit-guard");
	while (poll(p, 2, LOOK_EVERY_MS) == 0 || !(p[0].revents || p[1].revents))
		kill_if_stalled(h, from, to, engine_pidfd);
	/* The pipe closes a moment before the process is gone; act only in place of a dead engine. */
	while (!h->settled && poll(&p[1], 1, 5000) == 0)
		;
	if (h->settled)
		_exit(0);
	log_error("event=engine-died action=settle");
	text = settle(arg);
	/* Above the engine's usual level: whoever started it learns from this line what became of the guest. */
	if (text)
		log_warning("%s", text);
	_exit(0);
}

int guard_start(struct guard *g, struct handover *h, int critical_from, int critical_to, guard_detach_fn *detach,
		guard_settle_fn *settle, void *arg, struct err *e)
{
	int engine_pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	int pipe_fds[2];

	*g = GUARD_INIT;
	if (engine_pidfd < 0 || pipe2(pipe_fds, O_CLOEXEC) < 0)
		return err_sys(e, "start the guard");
	g->pid = fork();
	if (g->pid < 0) {
		close(pipe_fds[0]);
		close(pipe_fds[1]);
		close(engine_pidfd);
		return err_sys(e, "start the guard");
	}
	if (g->pid == 0) {
		close(pipe_fds[1]);
		guard_run(h, critical_from, critical_to, detach, settle, arg, pipe_fds[0], engine_pidfd);
	}
	close(pipe_fds[0]);
	close(engine_pidfd);
	g->life_fd = pipe_fds[1];
	return 0;
}

void guard_end(struct guard *g, struct handover *h)
{
	if (g->pid < 0)
		return;
	h->settled = true;
	close(steal_fd(&g->life_fd));
	while (waitpid(g->pid, NULL, 0) < 0 && errno == EINTR)
		;
	g->pid = -1;
}
