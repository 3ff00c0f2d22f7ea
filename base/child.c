/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes without a shell.
 *
 * Between fork and exec only async-signal-safe calls are made, because the caller may have threads: every string, list
 * and descriptor is prepared before the fork. The child tells its parent over a close-on-exec pipe which step failed
 * and with what errno; end of file on that pipe means that exec worked.
 *
 * The gate (spec.hold) closes the hole between "the process exists" and "somebody has written down that it does": the
 * child waits before exec until the caller has recorded pid and start time. If the caller dies first, the gate's pipe
 * reads end of file and the child ends without having become anything.
 */
#include "base/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/sock.h"

#define PLACES_END 512 /* listed places are below; descriptors are parked above before they take their places */

enum spawn_step {
	STEP_FDS,
	STEP_CGROUP,
	STEP_SESSION,
	STEP_GROUPS,
	STEP_USER,
	STEP_PARENT,
	STEP_GATE,
	STEP_EXEC,
	STEP_MAX
};

static const char *const step_names[STEP_MAX] = {
	[STEP_FDS] = "placing its descriptors", [STEP_CGROUP] = "entering its cgroup",
	[STEP_SESSION] = "making its session",  [STEP_GROUPS] = "setting its groups",
	[STEP_USER] = "becoming its user",      [STEP_PARENT] = "binding its life to the parent's",
	[STEP_GATE] = "waiting at the gate",    [STEP_EXEC] = "exec",
};

struct spawn_report {
	int step;
	int errnum;
};

/* What the child needs after the fork, all prepared before it. */
struct spawn_plan {
	const struct child_spec *spec;
	char *path;
	const char *const *envp;
	int report_fd; /* write end */
	int gate_fd;   /* read end, -1 without hold */
	int cgroup_fd; /* cgroup.procs, -1 without cgroup */
	pid_t parent;
};

static void fd_close(int *fd)
{
	mem_closep(fd);
	*fd = -1;
}

uint64_t child_start_time(pid_t pid)
{
	char path[64];
	char buf[1024];
	_closefd_ int fd = -1;
	char *p;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);
	if (n <= 0)
		return 0;
	buf[n] = 0;
	p = strrchr(buf, ')'); /* the name before it may hold blanks and parentheses */
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p ? strtoull(p + 1, NULL, 10) : 0;
}

/* In the child: say what failed and end. */
static _Noreturn void child_fail(const struct spawn_plan *plan, enum spawn_step step)
{
	struct spawn_report r = {.step = (int)step, .errnum = errno};

	(void)!write(plan->report_fd, &r, sizeof(r));
	_exit(127);
}

/* Move *fd, if there is one, to where no listed place is. */
static int park_fd(int *fd)
{
	if (*fd < 0)
		return 0;
	*fd = fcntl(*fd, F_DUPFD_CLOEXEC, PLACES_END);
	return *fd < 0 ? -1 : 0;
}

/* Close everything but the listed places and our own three. Closing now, not at exec: a child at its gate must not hold
 * the other end of that gate (or of another child's) open. */
static int child_close_others(const struct spawn_plan *plan)
{
	const int own[] = {0, 1, 2, plan->report_fd, plan->gate_fd, plan->cgroup_fd};
	unsigned from = 0;

	for (;;) {
		unsigned next = ~0U;

		for (size_t i = 0; i < ARRAY_SIZE(own); i++)
			if (own[i] >= (int)from && (unsigned)own[i] < next)
				next = (unsigned)own[i];
		for (size_t i = 0; i < plan->spec->n_fds; i++)
			if (plan->spec->fds[i].to >= (int)from && (unsigned)plan->spec->fds[i].to < next)
				next = (unsigned)plan->spec->fds[i].to;
		if (next > from && close_range(from, next == ~0U ? next : next - 1, 0) < 0)
			return -1;
		if (next == ~0U)
			return 0;
		from = next + 1;
	}
}

static int child_place_fds(struct spawn_plan *plan)
{
	const struct child_spec *s = plan->spec;
	int parked[CHILD_FDS_MAX];
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null_fd < 0)
		return -1;
	if (park_fd(&null_fd) < 0 || park_fd(&plan->report_fd) < 0 || park_fd(&plan->gate_fd) < 0 ||
	    park_fd(&plan->cgroup_fd) < 0)
		return -1;
	for (size_t i = 0; i < s->n_fds; i++) {
		parked[i] = s->fds[i].from;
		if (park_fd(&parked[i]) < 0)
			return -1;
	}
	for (int fd = 0; fd < 3; fd++)
		if (dup2(null_fd, fd) < 0)
			return -1;
	for (size_t i = 0; i < s->n_fds; i++)
		if (dup2(parked[i], s->fds[i].to) < 0)
			return -1;
	return child_close_others(plan);
}

static void child_become_user(const struct spawn_plan *plan)
{
	const struct child_spec *s = plan->spec;

	if (!s->drop)
		return;
	if (setgroups(s->n_groups, s->groups) < 0)
		child_fail(plan, STEP_GROUPS);
	if (setresgid(s->gid, s->gid, s->gid) < 0 || setresuid(s->uid, s->uid, s->uid) < 0)
		child_fail(plan, STEP_USER);
}

static void child_reset_signals(void)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, &dfl, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void child_main(struct spawn_plan *plan)
{
	const struct child_spec *s = plan->spec;
	char go = 0;

	child_reset_signals();
	if (child_place_fds(plan) < 0)
		child_fail(plan, STEP_FDS);
	if (plan->cgroup_fd >= 0 && write(plan->cgroup_fd, "0", 1) != 1)
		child_fail(plan, STEP_CGROUP);
	if (s->session && (setsid() < 0 || chdir("/") < 0))
		child_fail(plan, STEP_SESSION);
	child_become_user(plan);
	/* After the change of user, which clears it. */
	if (s->die_with_parent && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != plan->parent))
		child_fail(plan, STEP_PARENT);
	if (plan->gate_fd >= 0) {
		ssize_t n;

		while ((n = read(plan->gate_fd, &go, 1)) < 0 && errno == EINTR)
			;
		if (n != 1)
			_exit(127);
	}
	execve(plan->path, (char *const *)s->argv, (char *const *)plan->envp);
	child_fail(plan, STEP_EXEC);
}

/* The program's full path (caller frees), or NULL with @e. */
static char *program_path(const char *name, struct err *e)
{
	_free_ char *dirs = xstrdup(CHILD_PATH);
	char *save = NULL;

	if (strchr(name, '/')) {
		if (access(name, X_OK) == 0)
			return xstrdup(name);
		err_sys(e, "program %s cannot be run", name);
		return NULL;
	}
	for (char *d = strtok_r(dirs, ":", &save); d; d = strtok_r(NULL, ":", &save)) {
		char *p = xasprintf("%s/%s", d, name);

		if (access(p, X_OK) == 0)
			return p;
		free(p);
	}
	err_set(e, ERR_INPUT, "program %s is not installed (looked in %s)", name, CHILD_PATH);
	return NULL;
}

static int cgroup_procs_open(const char *folder, struct err *e)
{
	_free_ char *path = xasprintf("%s/cgroup.procs", folder);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? err_sys(e, "cgroup %s", path) : fd;
}

/* Read the child's report: 0 when the pipe ended without one (exec worked), -1 with @e. Reaps a failed child. */
static int spawn_report_read(struct child *c, const char *program, struct err *e)
{
	struct spawn_report r = {0};
	ssize_t n;

	while ((n = read(c->exec_fd, &r, sizeof(r))) < 0 && errno == EINTR)
		;
	close(steal_fd(&c->exec_fd));
	if (n == 0)
		return 0;
	waitpid(c->pid, NULL, 0);
	if (n != sizeof(r) || r.step < 0 || r.step >= STEP_MAX)
		return err_set(e, ERR_SYSTEM, "program %s: ended before it began", program);
	errno = r.errnum;
	return err_sys(e, "program %s: %s", program, step_names[r.step]);
}

static int spawn_fork(struct spawn_plan *plan, struct child *ret, struct err *e)
{
	sigset_t all, old;
	pid_t pid;

	/* No signal handler of the caller's may run in the child. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0)
		child_main(plan);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (pid < 0)
		return err_sys(e, "fork");
	ret->pid = pid;
	ret->start_time = child_start_time(pid);
	ret->pidfd = pidfd_open(pid, 0);
	if (ret->pidfd < 0) {
		err_sys(e, "pidfd_open");
		kill(pid, SIGKILL); /* our own child, not yet waited for: the pid cannot have been reused */
		waitpid(pid, NULL, 0);
		return -1;
	}
	return 0;
}

int child_spawn(const struct child_spec *spec, struct child *ret, struct err *e)
{
	static const char *const bare_env[] = {"PATH=" CHILD_PATH, "LC_ALL=C", NULL};
	_free_ char *path = NULL;
	_closefd_ int report_r = -1, report_w = -1, gate_r = -1, gate_w = -1, cgroup_fd = -1;
	struct spawn_plan plan = {.spec = spec, .envp = spec->envp ? spec->envp : bare_env, .parent = getpid()};
	struct child c = CHILD_INIT;
	int p[2];

	if (spec->n_fds > CHILD_FDS_MAX || spec->n_groups > CHILD_GROUPS_MAX)
		return err_set(e, ERR_UNSUPPORTED, "program %s: more than %d descriptors to pass", spec->argv[0],
			       CHILD_FDS_MAX);
	for (size_t i = 0; i < spec->n_fds; i++)
		if (spec->fds[i].to < 0 || spec->fds[i].to >= PLACES_END)
			return err_set(e, ERR_UNSUPPORTED, "program %s: no descriptor can be placed at %d",
				       spec->argv[0], spec->fds[i].to);
	path = program_path(spec->argv[0], e);
	if (!path)
		return -1;
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_sys(e, "pipe");
	report_r = p[0], report_w = p[1];
	if (spec->hold) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) < 0)
			return err_sys(e, "socketpair");
		gate_r = p[0], gate_w = p[1];
	}
	if (spec->cgroup_fs && (cgroup_fd = cgroup_procs_open(spec->cgroup_fs, e)) < 0)
		return -1;
	plan.path = path;
	plan.report_fd = report_w;
	plan.gate_fd = gate_r;
	plan.cgroup_fd = cgroup_fd;
	if (spawn_fork(&plan, &c, e) < 0)
		return -1;
	close(steal_fd(&report_w));
	c.exec_fd = steal_fd(&report_r);
	c.hold_fd = steal_fd(&gate_w);
	if (!spec->hold && spawn_report_read(&c, spec->argv[0], e) < 0) {
		child_done(&c);
		return -1;
	}
	*ret = c;
	return 0;
}

int child_release(struct child *c, struct err *e)
{
	if (sock_write_full(c->hold_fd, "g", 1, SOCK_FOREVER, e) < 0)
		return err_wrap(e, "process %d at its gate", (int)c->pid);
	close(steal_fd(&c->hold_fd));
	return spawn_report_read(c, "held at its gate", e);
}

int child_adopt(pid_t pid, uint64_t start_time, struct child *ret, struct err *e)
{
	struct child c = CHILD_INIT;

	if (pid <= 0)
		return err_set(e, ERR_INPUT, "%d is not a process id", (int)pid);
	c.pid = pid;
	c.start_time = start_time;
	c.pidfd = pidfd_open(pid, 0);
	if (c.pidfd < 0 && errno == ESRCH)
		return err_set(e, ERR_INPUT, "process %d is gone", (int)pid);
	if (c.pidfd < 0)
		return err_sys(e, "pidfd_open %d", (int)pid);
	/* The order matters: the pidfd first, so that the start time read now is the one of the process it holds, or
	 * the process has ended in between, which the pidfd shows. */
	if (child_start_time(pid) != start_time || child_ended(&c)) {
		child_done(&c);
		return err_set(e, ERR_INPUT, "process %d is gone (its number may belong to another program now)",
			       (int)pid);
	}
	*ret = c;
	return 0;
}

bool child_ended(const struct child *c)
{
	struct pollfd p = {.fd = c->pidfd, .events = POLLIN};

	return c->pidfd < 0 || poll(&p, 1, 0) == 1;
}

int child_wait(struct child *c, int64_t deadline_ns, int *ret_status, struct err *e)
{
	int status;
	int r = sock_wait(c->pidfd, POLLIN, deadline_ns, e);

	if (r <= 0)
		return r;
	r = waitpid(c->pid, &status, WNOHANG) == c->pid;
	if (ret_status)
		*ret_status = r ? status : -1;
	return 1;
}

int child_signal(const struct child *c, int sig, struct err *e)
{
	if (pidfd_send_signal(c->pidfd, sig, NULL, 0) < 0 && errno != ESRCH)
		return err_sys(e, "signal %d to process %d", sig, (int)c->pid);
	return 0;
}

void child_done(struct child *c)
{
	fd_close(&c->pidfd);
	fd_close(&c->hold_fd);
	fd_close(&c->exec_fd);
	*c = CHILD_INIT;
}

const char *child_status_text(int status, char *buf, size_t size)
{
	if (status == -1)
		snprintf(buf, size, "ended");
	else if (WIFSIGNALED(status))
		snprintf(buf, size, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(buf, size, "exited with status %d", WEXITSTATUS(status));
	return buf;
}

const char *child_last_line(char *text)
{
	char *end = text + strlen(text);

	while (end > text && (end[-1] == '\n' || end[-1] == '\r' || end[-1] == ' '))
		*--end = 0;
	while (end > text && end[-1] != '\n')
		end--;
	return end;
}

/* One of the two pipes that child_run() reads. */
struct drain {
	int fd;
	char *buf;
	size_t used, limit;
	bool keep_tail; /* over the limit: forget the beginning instead of failing */
};

static int drain_read(struct drain *d, const char *program, struct err *e)
{
	ssize_t n;

	if (d->used == d->limit && d->keep_tail) {
		memmove(d->buf, d->buf + d->limit / 2, d->limit - d->limit / 2);
		d->used = d->limit - d->limit / 2;
	}
	if (d->used == d->limit)
		return err_set(e, ERR_PROTOCOL, "program %s printed more than %zu bytes", program, d->limit);
	n = read(d->fd, d->buf + d->used, d->limit - d->used);
	if (n < 0 && errno != EINTR)
		return err_sys(e, "reading from program %s", program);
	if (n == 0)
		fd_close(&d->fd);
	if (n > 0)
		d->used += (size_t)n;
	d->buf[d->used] = 0;
	return 0;
}

static int drain_both(struct drain d[2], const char *program, int64_t deadline_ns, struct err *e)
{
	while (d[0].fd >= 0 || d[1].fd >= 0) {
		struct pollfd p[2] = {{.fd = d[0].fd, .events = POLLIN}, {.fd = d[1].fd, .events = POLLIN}};
		int r = poll(p, 2, clock_poll_ms(deadline_ns));

		if (r == 0 && clock_poll_ms(deadline_ns) == 0)
			return err_set(e, ERR_TIMEOUT, "program %s did not end in time", program);
		if (r < 0 && errno != EINTR)
			return err_sys(e, "poll");
		for (int i = 0; r > 0 && i < 2; i++)
			if (p[i].revents && drain_read(&d[i], program, e) < 0)
				return -1;
	}
	return 0;
}

/* Collect output and the end of @c; on failure @c is killed and reaped. */
static int run_collect(struct child *c, struct drain d[2], const char *program, int64_t deadline_ns, struct err *e)
{
	char words[128];
	int status = -1;
	int r = drain_both(d, program, deadline_ns, e);

	if (r == 0) {
		r = child_wait(c, deadline_ns, &status, e);
		if (r == 0)
			r = err_set(e, ERR_TIMEOUT, "program %s closed its output but did not end in time", program);
	}
	if (r < 0) {
		child_signal(c, SIGKILL, NULL);
		child_wait(c, SOCK_FOREVER, NULL, NULL);
		return -1;
	}
	if (status == 0)
		return 0;
	return err_set(e, ERR_SYSTEM, "program %s %s: %s", program, child_status_text(status, words, sizeof(words)),
		       child_last_line(d[1].buf));
}

int child_run(const char *const *argv, int64_t deadline_ns, size_t limit, char **ret_out, struct err *e)
{
	_free_ char *out = mem_bounded(limit + 1, 64U << 20, "program output", e);
	_free_ char *errs = xcalloc(4097, 1);
	_closefd_ int out_w = -1, err_w = -1;
	struct drain d[2] = {{.fd = -1, .buf = out, .limit = limit},
			     {.fd = -1, .buf = errs, .limit = 4096, .keep_tail = true}};
	struct child c = CHILD_INIT;
	int po[2], pe[2], r;

	if (!out)
		return -1;
	if (pipe2(po, O_CLOEXEC) < 0)
		return err_sys(e, "pipe");
	d[0].fd = po[0], out_w = po[1];
	if (pipe2(pe, O_CLOEXEC) < 0) {
		fd_close(&d[0].fd);
		return err_sys(e, "pipe");
	}
	d[1].fd = pe[0], err_w = pe[1];
	struct child_fd fds[] = {{out_w, STDOUT_FILENO}, {err_w, STDERR_FILENO}};
	struct child_spec spec = {.argv = argv, .fds = fds, .n_fds = 2, .die_with_parent = true};

	r = child_spawn(&spec, &c, e);
	close(steal_fd(&out_w));
	close(steal_fd(&err_w));
	if (r == 0)
		r = run_collect(&c, d, argv[0], deadline_ns, e);
	fd_close(&d[0].fd);
	fd_close(&d[1].fd);
	child_done(&c);
	if (r == 0 && ret_out)
		*ret_out = steal_ptr(out);
	return r;
}
