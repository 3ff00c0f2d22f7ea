/* SPDX-License-Identifier: Apache-2.0 */
/* Programs that outlive the daemon.
 *
 * Without systemd the pid file holds pid and start time, so that a pid that somebody else wears is not taken for ours.
 * A child that ends is started again after START_AGAIN, for ever: what it lacks (corosync, a configuration) may come.
 */
#include "node/service.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#define START_AGAIN (2 * NS_PER_S)
#define SETTLED (30 * NS_PER_S) /* one that ran so long has started well, and its end is news again */

struct service {
	struct loop *loop;
	struct service_spec spec;
	char *run_dir, *unit, *pid_path, *log_path;
	bool wanted;
	bool told; /* that it ends, and nothing has changed about that since */
	int64_t since;

	struct child child; /* SERVICE_CHILD */
	struct loop_child *child_watch;
	struct child systemctl; /* SERVICE_SYSTEMD */
	struct loop_child *systemctl_watch;
	struct loop_timer *timer;
};

static void start(void *arg);

static void start_later(struct service *s)
{
	loop_timer_set(s->timer, START_AGAIN);
}

/* ---- a child ---- */

static void child_over(void *arg)
{
	struct service *s = arg;
	int status = -1;
	char words[64];

	child_wait(&s->child, 0, &status, NULL);
	if (clock_now_ns() >= s->since + SETTLED)
		s->told = false;
	if (s->wanted && !s->told)
		log_error("event=%s-ended status=\"%s\" log=%s text=\"started again every %d s\"", s->spec.name,
			  status < 0 ? "unknown" : child_status_text(status, words, sizeof(words)), s->log_path,
			  (int)(START_AGAIN / NS_PER_S));
	s->told = s->wanted;
	loop_child_free(steal_ptr(s->child_watch));
	child_done(&s->child);
	s->child = CHILD_INIT;
	if (s->wanted)
		start_later(s);
}

/* The one that an earlier daemon started. */
static bool child_find(struct service *s)
{
	_free_ char *text = file_read(s->pid_path, 64, NULL, NULL);
	uint64_t start_time;
	int pid;

	return text && sscanf(text, "%d %" SCNu64, &pid, &start_time) == 2 &&
	       child_adopt(pid, start_time, &s->child, NULL) == 0;
}

static int child_begin(struct service *s, struct err *e)
{
	_closefd_ int log_fd = open(s->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	struct child_fd fds[] = {{log_fd, 1}, {log_fd, 2}};
	struct child_spec spec = {.argv = s->spec.argv, .fds = fds, .n_fds = 2, .session = true};
	_free_ char *text = NULL;

	if (log_fd < 0)
		return err_sys(e, "%s", s->log_path);
	if (s->spec.folder && mkdir(s->spec.folder, 0770) < 0 && errno != EEXIST)
		return err_sys(e, "folder %s", s->spec.folder);
	if (child_spawn(&spec, &s->child, e) < 0)
		return -1;
	s->since = clock_now_ns();
	text = xasprintf("%d %" PRIu64 "\n", (int)s->child.pid, s->child.start_time);
	if (!s->told)
		log_info("event=%s-started pid=%d log=%s", s->spec.name, (int)s->child.pid, s->log_path);
	return file_write_atomic(s->pid_path, text, strlen(text), 0644, (gid_t)-1, e);
}

static void start_child(struct service *s)
{
	struct err e = ERR_INIT;

	if (s->child_watch)
		return;
	if (!child_find(s) && child_begin(s, &e) < 0)
		log_error("event=%s-start error=\"%s\"", s->spec.name, e.text);
	if (s->child.pid > 0)
		s->child_watch = loop_child_add(s->loop, s->child.pidfd, child_over, s);
	else
		start_later(s);
}

static void stop_child(struct service *s)
{
	if (!s->child_watch && child_find(s))
		s->child_watch = loop_child_add(s->loop, s->child.pidfd, child_over, s);
	if (s->child.pid > 0)
		child_signal(&s->child, SIGTERM, NULL);
}

/* ---- a unit ---- */

static void systemctl_over(void *arg)
{
	struct service *s = arg;
	int status = -1;
	char words[64];

	child_wait(&s->systemctl, 0, &status, NULL);
	loop_child_free(steal_ptr(s->systemctl_watch));
	child_done(&s->systemctl);
	if (status == 0)
		return;
	log_error("event=%s-systemctl status=\"%s\" text=\"systemctl could not do it: see journalctl -u %s%s\"",
		  s->spec.name, child_status_text(status, words, sizeof(words)), s->unit,
		  s->wanted ? "; tried again" : "");
	if (s->wanted)
		start_later(s);
}

static void systemctl(struct service *s, const char *const *argv)
{
	struct child_spec spec = {.argv = argv};
	struct err e = ERR_INIT;

	/* Of two that are under way the later one finds out how it ended: systemd does them in the order given. */
	loop_child_free(steal_ptr(s->systemctl_watch));
	child_done(&s->systemctl);
	s->systemctl = CHILD_INIT;
	if (child_spawn(&spec, &s->systemctl, &e) < 0) {
		log_error("event=%s-systemctl error=\"%s\"", s->spec.name, e.text);
		if (s->wanted)
			start_later(s);
		return;
	}
	s->systemctl_watch = loop_child_add(s->loop, s->systemctl.pidfd, systemctl_over, s);
}

/* Enabled as well: the hosts of a cluster come back by themselves. */
static void start_unit(struct service *s)
{
	const char *const argv[] = {"systemctl", "enable", "--now", "--quiet", s->unit, NULL};

	systemctl(s, argv);
}

static void stop_unit(struct service *s)
{
	const char *const argv[] = {"systemctl", "disable", "--now", "--quiet", s->unit, NULL};

	systemctl(s, argv);
}

static void restart_unit(struct service *s)
{
	const char *const argv[] = {"systemctl", "restart", "--quiet", s->unit, NULL};

	systemctl(s, argv);
}

/* ---- both ---- */

static void start(void *arg)
{
	struct service *s = arg;

	if (!s->wanted)
		return;
	if (s->spec.mode == SERVICE_SYSTEMD)
		start_unit(s);
	else if (s->spec.mode == SERVICE_CHILD)
		start_child(s);
}

void service_run(struct service *s)
{
	if (s->wanted)
		return;
	s->wanted = true;
	s->told = false;
	start(s);
}

void service_stop(struct service *s)
{
	s->wanted = false;
	loop_timer_set(s->timer, -1);
	if (s->spec.mode == SERVICE_SYSTEMD)
		stop_unit(s);
	else if (s->spec.mode == SERVICE_CHILD)
		stop_child(s);
}

void service_restart(struct service *s)
{
	if (!s->wanted)
		return;
	if (s->spec.mode == SERVICE_SYSTEMD)
		restart_unit(s);
	else if (s->spec.mode == SERVICE_CHILD && s->child.pid > 0)
		child_signal(&s->child, SIGTERM, NULL); /* child_over() follows, and starts it again */
}

/* ---- life ---- */

struct service *service_new(struct loop *loop, const struct service_spec *spec)
{
	struct service *s = xcalloc(1, sizeof(*s));

	s->loop = loop;
	s->spec = *spec;
	s->run_dir = xstrdup(spec->run_dir);
	s->unit = xasprintf("%s.service", spec->name);
	s->pid_path = xasprintf("%s/%s.pid", spec->run_dir, spec->name);
	s->log_path = xasprintf("%s/%s.log", spec->run_dir, spec->name);
	s->child = s->systemctl = CHILD_INIT;
	s->timer = loop_timer_add(loop, -1, 0, start, s);
	return s;
}

void service_free(struct service *s)
{
	if (!s)
		return;
	loop_child_free(s->child_watch);
	loop_child_free(s->systemctl_watch);
	loop_timer_free(s->timer);
	child_done(&s->child);
	child_done(&s->systemctl);
	free(s->run_dir);
	free(s->unit);
	free(s->pid_path);
	free(s->log_path);
	free(s);
}
