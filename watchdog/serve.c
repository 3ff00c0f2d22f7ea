/* SPDX-License-Identifier: Apache-2.0 */
/* godwit-watchdog's loop. It waits for nobody: sockets do not block, guests are seen through their pidfds, and what the
 * keeper (fencing/keeper.h) decides is done at each turn. The next turn's time is kept by a timer of CLOCK_BOOTTIME,
 * which goes off at once when a suspended host wakes up after a deadline. */
#include "watchdog/serve.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "hv/rundir.h"
#include "watchdog/serve-int.h"

#define POLL_GUESTS 256 /* more than these are seen by looking again, a moment later */
#define POLL_FIXED 4

static void state_log(struct serve *s, enum keeper_state was)
{
	const struct keeper *k = &s->keeper;

	if (k->state == was)
		return;
	if (k->state == KEEPER_STOPPING)
		log_error("event=stopping cause=%s mark=%s consequence=\"all guests of the cluster on this host are "
			  "ended\"",
			  keeper_cause_names[k->cause], k->config.mark);
	else if (was == KEEPER_STOPPING)
		log_warning("event=stopped cause=%s guests=%u milliseconds=%lld", keeper_cause_names[k->cause],
			    s->guests.found, (long long)((clock_boot_ns() - k->stop_ns) / NS_PER_MS));
	else
		log_info("event=state state=%s was=%s", keeper_state_names[k->state], keeper_state_names[was]);
}

/* What a successor finds. */
static void state_keep(struct serve *s)
{
	unsigned char saved[KEEPER_SAVED], old[KEEPER_SAVED];

	keeper_save(&s->keeper, saved);
	if (permit_kept(&s->permit, old, sizeof(old)) != sizeof(old) || memcmp(saved, old, sizeof(saved)) != 0)
		permit_keep(&s->permit, saved, sizeof(saved));
}

/* What there is to do now. Returns false when nothing is left to do at all; *ret_wake is when to come back. */
static bool turn(struct serve *s, enum keeper_state *was, int64_t *ret_wake)
{
	struct keeper *k = &s->keeper;
	struct keeper_act a;

	keeper_advance(k, clock_boot_ns());
	/* Before anybody is counted: a guest that is being started finds the permit gone, or is found. */
	permit_set_until(&s->permit, keeper_permit(k));
	if (k->state == KEEPER_STOPPING && *was != KEEPER_STOPPING)
		guests_begin(&s->guests);
	serve_device(s);
	s->alive = keeper_counts(k) ? guests_scan(&s->guests, s->o->run_dir, k->config.mark) : 0;
	/* The time is read anew: nothing slow lies between it and the petting. */
	a = keeper_next(k, clock_boot_ns(), s->alive, s->guests.found);
	if (a.pet)
		serve_pet(s);
	if (a.signal)
		guests_signal(&s->guests, a.signal);
	state_log(s, *was);
	*was = k->state;
	state_keep(s);
	serve_tell(s);
	*ret_wake = a.wake_ns;
	return !a.end;
}

static void timer_set(struct serve *s, int64_t wake_ns)
{
	struct itimerspec t = {0};

	if (wake_ns != INT64_MAX) {
		t.it_value.tv_sec = wake_ns / NS_PER_S;
		t.it_value.tv_nsec = wake_ns % NS_PER_S;
	}
	timerfd_settime(s->timer_fd, TFD_TIMER_ABSTIME, &t, NULL);
}

static void signal_take(struct serve *s)
{
	struct signalfd_siginfo si;

	if (read(s->signal_fd, &si, sizeof(si)) != sizeof(si))
		return;
	if (si.ssi_signo == SIGHUP) {
		serve_upgrade_begin(s);
		return;
	}
	if (si.ssi_signo == SIGUSR1) {
		log_dump_ring(STDERR_FILENO);
		return;
	}
	keeper_leave(&s->keeper);
	if (s->keeper.state != KEEPER_FREE)
		log_warning("event=leaving state=%s note=\"it ends when no guest of the cluster is left here, or when "
			    "godwitd "
			    "releases them; until then it guards them\"",
			    keeper_state_names[s->keeper.state]);
}

/* Wait until something happens, and take it in. */
static void wait_and_take(struct serve *s)
{
	struct pollfd p[POLL_FIXED + SERVE_CLIENTS + POLL_GUESTS];
	size_t n = POLL_FIXED + SERVE_CLIENTS;
	uint64_t ticks;

	p[0] = (struct pollfd){.fd = s->timer_fd, .events = POLLIN};
	p[1] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
	p[2] = (struct pollfd){.fd = s->listen_fd, .events = POLLIN};
	p[3] = (struct pollfd){.fd = s->check.pidfd, .events = POLLIN};
	for (size_t i = 0; i < SERVE_CLIENTS; i++)
		p[POLL_FIXED + i] = (struct pollfd){.fd = s->clients[i], .events = POLLIN};
	for (size_t i = 0; i < s->guests.n && i < POLL_GUESTS && s->keeper.state == KEEPER_STOPPING; i++)
		p[n++] = (struct pollfd){.fd = s->guests.list[i].proc.pidfd, .events = POLLIN};
	if (poll(p, n, -1) <= 0)
		return;
	if (p[0].revents)
		(void)!read(s->timer_fd, &ticks, sizeof(ticks));
	if (p[1].revents)
		signal_take(s);
	for (size_t i = 0; i < SERVE_CLIENTS; i++)
		if (p[POLL_FIXED + i].revents)
			serve_client(s, i);
	if (p[2].revents)
		serve_accept(s);
	if (p[3].revents)
		serve_upgrade_checked(s);
}

static int signals_open(struct serve *s, struct err *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return err_sys(e, "signals");
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signal_fd < 0)
		return err_sys(e, "signals");
	s->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	return s->timer_fd < 0 ? err_sys(e, "timer") : 0;
}

/* What an earlier one of us, upgraded or crashed, was doing. */
static void resume(struct serve *s, struct serve_legacy *legacy)
{
	unsigned char saved[KEEPER_SAVED];
	size_t n = permit_kept(&s->permit, saved, sizeof(saved));
	struct err e = ERR_INIT;
	int fd = legacy->device_fd;

	legacy->device_fd = -1;
	if (n && keeper_load(&s->keeper, saved, n) < 0)
		log_error("event=state_unreadable consequence=\"guests run unguarded until godwitd configures us\"");
	s->keeper.leaving = false;
	if (s->keeper.state != KEEPER_FREE)
		log_info("event=resumed state=%s mark=%s device=%s", keeper_state_names[s->keeper.state],
			 s->keeper.config.mark, fd >= 0 ? "inherited" : "to be opened");
	if (fd >= 0 && !(s->o->device && keeper_wants_device(&s->keeper))) {
		s->dog.fd = fd;
		watchdog_close(&s->dog);
	} else if (fd >= 0) {
		s->dog_asked = s->keeper.config.watchdog_s;
		if (watchdog_take(fd, s->o->device, s->dog_asked, &s->dog, &e) < 0) {
			log_error("event=device_failed error=\"%s\"", e.text);
		} else {
			s->device = KEEPER_DEVICE_ARMED;
			snprintf(s->device_text, sizeof(s->device_text), "%s", s->dog.identity);
		}
	}
}

static int begin(struct serve *s, struct serve_legacy *legacy, struct err *e)
{
	ssize_t n = readlink("/proc/self/exe", s->exe, sizeof(s->exe) - 1);

	if (n <= 0)
		return err_sys(e, "/proc/self/exe");
	s->exe[n] = 0;
	if (signals_open(s, e) < 0 || rundir_make(s->o->run_dir, e) < 0 ||
	    permit_open(s->o->run_dir, steal_fd(&legacy->permit_fd), &s->permit, e) < 0 ||
	    serve_listen(s, steal_fd(&legacy->listen_fd), e) < 0)
		return -1;
	resume(s, legacy);
	return 0;
}

static void end(struct serve *s)
{
	/* Only a `nowayout` device is not closed by that. */
	watchdog_close(&s->dog);
	for (size_t i = 0; i < SERVE_CLIENTS; i++)
		mem_closep(&s->clients[i]);
	mem_closep(&s->listen_fd);
	mem_closep(&s->signal_fd);
	mem_closep(&s->timer_fd);
	child_done(&s->check);
	permit_close(&s->permit);
	guests_done(&s->guests);
}

int serve_run(const struct serve_options *o, struct serve_legacy *legacy, struct err *e)
{
	/* Static: the loop needs no memory that it has not had from the start. */
	static struct serve s;
	enum keeper_state was;
	int64_t wake;
	int r;

	s = (struct serve){.o = o, .permit = PERMIT_INIT, .dog = WATCHDOG_INIT, .check = CHILD_INIT};
	s.listen_fd = s.signal_fd = s.timer_fd = -1;
	s.dog_try = true;
	for (size_t i = 0; i < SERVE_CLIENTS; i++)
		s.clients[i] = -1;
	keeper_init(&s.keeper);
	guests_init(&s.guests);
	r = begin(&s, legacy, e);
	was = KEEPER_FREE;
	if (r == 0)
		log_info("event=serving run_dir=%s device=%s", o->run_dir, o->device ? o->device : "none");
	while (r == 0 && turn(&s, &was, &wake)) {
		/* Not while guests are being stopped: the next version's first act is to pet the device. */
		if (s.upgrade && s.keeper.state != KEEPER_STOPPING)
			serve_exec(&s);
		timer_set(&s, wake);
		wait_and_take(&s);
	}
	if (r == 0)
		log_info("event=end");
	end(&s);
	return r;
}
