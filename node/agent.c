/* SPDX-License-Identifier: Apache-2.0 */
/* The agent.
 *
 * Theory of operation
 *
 *   look (godwit-vm list) -> plan for each guest (agent-plan.c, pure) -> actions (godwit-vm start, stop, kill) -> look
 *
 * Everything that can take long is a child process, the look too: a monitor that does not answer costs godwit-vm a
 * second each. The children are not bound to us. If the daemon is killed they end what they began; hv/ keeps what they
 * do consistent (a start writes down its process before that process is anything; the folder of a guest is locked while
 * somebody works on it), so the next daemon's first look finds the truth. It may find a folder locked: then its own
 * action fails, and the look after that finds it done.
 *
 * Why not one monitor connection per guest: QEMU serves one client at a time on it, so a daemon that sits there would
 * keep godwit-vm and people out, and would have to be non-blocking where hv/qmp.h is not. A look every few seconds is
 * late by that much about a guest that powered itself off; but about a QEMU that dies nothing is late: its pidfd is
 * watched, and its end starts a look at once.
 *
 * A plan is made only from a look that began after the last action on that guest had ended: else the result of the
 * action would be planned again. (That would do no harm, as hv/ refuses a second start, but it would be reported as a
 * failure.)
 */
#include "node/agent.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/job.h"

#define INTERVAL_DEFAULT (3 * NS_PER_S)
#define INTERVAL_SOON (20 * NS_PER_MS) /* several changes at once make one look */
#define STOP_S_DEFAULT 90U
#define END_AGAIN_NS (2 * NS_PER_S) /* a guest that must not run is not waited for longer */
#define EXIT_NO_GUEST 4             /* man/godwit-vm.1.scd */
#define EXIT_NO_PERMIT 7            /* likewise */
#define ARGS_MAX 24

/* One name: what is wanted, what is here, what is being done. */
struct guest {
	struct guest *next;
	char *name;

	bool wanted; /* the cluster knows it */
	struct agent_want want;
	char *want_uuid;
	int stop_s; /* -1: as long as every guest */
	int64_t as_of;
	json_t *definition;

	bool here;
	struct agent_have have;
	char have_uuid[37];
	char have_cluster[AGENT_CLUSTER_MAX + 1];
	pid_t pid;
	uint64_t start_time;
	uint64_t memory;    /* promised, bytes */
	struct child watch; /* its QEMU */

	struct job job;
	enum agent_act doing;
	bool changed;  /* an action ended after the look began */
	char *failure; /* what the last failed action under this epoch said, NULL: none */

	int64_t again_ns; /* the last attempt to end it failed: not again before */

	bool told;
	const char *told_status;
	const char *told_cause;
	char *told_note;
	pid_t told_pid;
	int64_t told_as_of;
	int64_t told_epoch;
};

struct agent {
	struct agent_options opt; /* strings are ours */
	struct agent_calls calls;
	void *arg;
	struct guest *guests;
	int epoll_fd, timer_fd;
	struct job look;
	bool look_again;
	bool allowed;         /* guests may start */
	int64_t look_boot_ns; /* when the look under way began; CLOCK_BOOTTIME */
	int64_t seen_boot_ns; /* when the last one that has ended began; 0: none has */
};

/* ---- life ---- */

char *agent_program_beside(const char *name)
{
	char path[PATH_MAX + 1];
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
	char *slash;

	path[n > 0 ? n : 0] = 0;
	slash = strrchr(path, '/');
	return slash ? xasprintf("%.*s/%s", (int)(slash - path), path, name) : xstrdup(name);
}

static char *copy(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

static int watch_fd(struct agent *a, int fd, struct err *e)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

	return epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? err_sys(e, "epoll") : 0;
}

/* The next look is @after_ns from now. */
static void timer_set(struct agent *a, int64_t after_ns)
{
	struct itimerspec t = {0};

	if (after_ns < 1)
		after_ns = 1;
	t.it_value.tv_sec = after_ns / NS_PER_S;
	t.it_value.tv_nsec = after_ns % NS_PER_S;
	timerfd_settime(a->timer_fd, 0, &t, NULL);
}

static void look_soon(struct agent *a)
{
	a->look_again = true;
	if (!job_active(&a->look))
		timer_set(a, INTERVAL_SOON);
}

int agent_new(const struct agent_options *opt, const struct agent_calls *calls, void *arg, struct agent **ret,
	      struct err *e)
{
	struct agent *a = xcalloc(1, sizeof(*a));

	a->opt = (struct agent_options){
		.run_dir = xstrdup(opt->run_dir),
		.vm_program = opt->vm_program ? xstrdup(opt->vm_program) : agent_program_beside("godwit-vm"),
		.cluster = xstrdup(opt->cluster),
		.accel = copy(opt->accel),
		.user = copy(opt->user),
		.qemu = copy(opt->qemu),
		.stop_s = opt->stop_s ? opt->stop_s : STOP_S_DEFAULT,
		.interval_ns = opt->interval_ns ? opt->interval_ns : INTERVAL_DEFAULT,
	};
	a->calls = *calls;
	a->arg = arg;
	a->look = JOB_INIT;
	a->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	a->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (a->epoll_fd < 0 || a->timer_fd < 0 || watch_fd(a, a->timer_fd, NULL) < 0) {
		err_sys(e, "agent");
		agent_free(a);
		return -1;
	}
	timer_set(a, 0);
	*ret = a;
	return 0;
}

static void guest_unwant(struct guest *g)
{
	g->wanted = false;
	free(steal_ptr(g->want_uuid));
	json_decref(steal_ptr(g->definition));
}

static void guest_free(struct guest *g)
{
	guest_unwant(g);
	child_done(&g->watch);
	job_done(&g->job);
	free(g->failure);
	free(g->told_note);
	free(g->name);
	free(g);
}

void agent_free(struct agent *a)
{
	if (!a)
		return;
	while (a->guests) {
		struct guest *g = a->guests;

		a->guests = g->next;
		guest_free(g);
	}
	job_done(&a->look);
	mem_closep(&a->epoll_fd);
	mem_closep(&a->timer_fd);
	free((char *)a->opt.run_dir);
	free((char *)a->opt.vm_program);
	free((char *)a->opt.cluster);
	free((char *)a->opt.accel);
	free((char *)a->opt.user);
	free((char *)a->opt.qemu);
	free(a);
}

int agent_fd(const struct agent *a)
{
	return a->epoll_fd;
}

static struct guest *guest_find(struct agent *a, const char *name, bool make)
{
	struct guest *g = a->guests;

	while (g && strcmp(g->name, name) != 0)
		g = g->next;
	if (g || !make)
		return g;
	g = xcalloc(1, sizeof(*g));
	g->name = xstrdup(name);
	g->watch = CHILD_INIT;
	g->job = JOB_INIT;
	g->pid = -1;
	g->stop_s = -1;
	g->next = a->guests;
	a->guests = g;
	return g;
}

/* Forget names that nobody wants and that nothing is left of. */
static void guests_prune(struct agent *a)
{
	struct guest **p = &a->guests;

	while (*p) {
		struct guest *g = *p;

		if (g->wanted || g->here || job_active(&g->job)) {
			p = &g->next;
			continue;
		}
		*p = g->next;
		guest_free(g);
	}
}

static void guest_want(struct guest *g, const struct agent_guest *from)
{
	g->wanted = true;
	g->want_uuid = xstrdup(from->uuid);
	g->want.uuid = g->want_uuid;
	/* Wanted anew, or otherwise: a person may have repaired what made it fail. */
	if (from->epoch != g->want.epoch || from->intent != AGENT_RUNNING) {
		free(steal_ptr(g->failure));
		g->want.failure = NULL;
	}
	g->want.epoch = from->epoch;
	g->want.intent = from->intent;
	g->want.ran = from->ran;
	g->stop_s = from->stop_s;
	g->as_of = from->as_of;
	g->definition = json_incref(from->definition);
}

void agent_set(struct agent *a, const struct agent_guest *guests, size_t n)
{
	for (struct guest *g = a->guests; g; g = g->next)
		guest_unwant(g);
	for (size_t i = 0; i < n; i++)
		guest_want(guest_find(a, guests[i].name, true), &guests[i]);
	look_soon(a);
}

static bool is_known(const struct guest *g, const struct agent_guest *from)
{
	return g->wanted && !strcmp(g->want_uuid, from->uuid) && g->want.epoch == from->epoch &&
	       g->want.intent == from->intent && g->want.ran == from->ran && g->stop_s == from->stop_s &&
	       g->as_of == from->as_of &&
	       (g->definition == from->definition || json_equal(g->definition, from->definition));
}

void agent_update(struct agent *a, const struct agent_guest *guest)
{
	struct guest *g = guest_find(a, guest->name, true);

	if (is_known(g, guest))
		return;
	guest_unwant(g);
	guest_want(g, guest);
	look_soon(a);
}

void agent_forget(struct agent *a, const char *name)
{
	struct guest *g = guest_find(a, name, false);

	if (!g || !g->wanted)
		return;
	guest_unwant(g);
	look_soon(a);
}

void agent_tell_all(struct agent *a)
{
	for (struct guest *g = a->guests; g; g = g->next)
		g->told = false;
	look_soon(a);
}

void agent_tell(struct agent *a, const char *name)
{
	struct guest *g = guest_find(a, name, false);

	if (!g)
		return;
	g->told = false;
	look_soon(a);
}

/* ---- leases ---- */

void agent_allow(struct agent *a, bool allowed)
{
	if (a->allowed == allowed)
		return;
	a->allowed = allowed;
	look_soon(a);
}

static bool ours_lives(const struct agent *a, const struct guest *g)
{
	return g->here && !strcmp(g->have_cluster, a->opt.cluster) && g->watch.pidfd >= 0 && !child_ended(&g->watch);
}

void agent_signal_all(struct agent *a, int sig)
{
	struct err e = ERR_INIT;

	for (struct guest *g = a->guests; g; g = g->next)
		if (ours_lives(a, g) && child_signal(&g->watch, sig, &e) < 0)
			log_debug("event=signal name=%s error=\"%s\"", g->name, e.text);
	look_soon(a);
}

/* By the last look, not by what we could get hold of: that a QEMU cannot be watched does not make it dead. */
static bool ours_seen(const struct agent *a, const struct guest *g)
{
	return g->here && !strcmp(g->have_cluster, a->opt.cluster) && g->have.status != VM_STATUS_GONE;
}

bool agent_empty(const struct agent *a, int64_t since_ns)
{
	for (const struct guest *g = a->guests; g; g = g->next)
		if (ours_seen(a, g) || (job_active(&g->job) && g->doing == AGENT_START))
			return false;
	return a->seen_boot_ns > since_ns;
}

size_t agent_memory(const struct agent *a, struct facts_guest *ret, size_t room)
{
	size_t n = 0;

	for (const struct guest *g = a->guests; g && n < room; g = g->next)
		if (g->here && g->watch.pidfd >= 0)
			ret[n++] = (struct facts_guest){.memory = g->memory, .resident = facts_resident(g->pid)};
	return n;
}

/* ---- telling ---- */

static void tell(struct agent *a, struct guest *g, const struct agent_action *action)
{
	bool foreign = action->act == AGENT_REFUSE;
	bool gone = !g->here || g->have.status == VM_STATUS_GONE, same;
	/* It shall run, does not, and nothing is started here: the manager's turn. */
	bool failed = g->want.intent == AGENT_RUNNING && action->act == AGENT_REPORT && gone;
	/* What ended under an earlier epoch lies there still: it is the start under this one that failed. */
	bool older = failed && g->here && g->have.epoch < g->want.epoch;
	struct agent_status s = {
		.name = g->name,
		.uuid = g->here ? g->have.uuid : g->want_uuid,
		.epoch = g->here && !foreign && !older ? g->have.epoch : g->want.epoch,
		.status = failed    ? "failed"
			  : g->here ? vm_status_names[g->have.status]
				    : "stopped",
		.pid = g->here && !failed ? g->pid : -1,
		.foreign = foreign,
		.cause = agent_cause_names[action->cause],
		.as_of = failed || (!g->here && g->want.intent != AGENT_RUNNING) ? g->as_of : 0,
	};

	if (action->act == AGENT_REPORT || foreign)
		s.note = action->why;
	else if (action->act == AGENT_WAIT)
		s.note = g->failure;
	if (!g->here && g->want.intent == AGENT_ELSEWHERE)
		return;
	same = g->told_note && s.status == g->told_status && s.pid == g->told_pid && s.epoch == g->told_epoch &&
	       s.as_of == g->told_as_of && s.cause == g->told_cause && strcmp(s.note ? s.note : "", g->told_note) == 0;
	if (g->told && same)
		return;
	g->told = true;
	g->told_status = s.status;
	g->told_cause = s.cause;
	g->told_pid = s.pid;
	g->told_epoch = s.epoch;
	g->told_as_of = s.as_of;
	free(g->told_note);
	g->told_note = xstrdup(s.note ? s.note : "");
	if (!same)
		log_info("event=vm_status name=%s uuid=%s epoch=%" PRId64 " status=%s pid=%d note=\"%s\"", s.name,
			 s.uuid, s.epoch, s.status, (int)s.pid, s.note ? s.note : "");
	a->calls.status(a->arg, &s);
}

/* ---- acting ---- */

static void failed(struct guest *g, const char *text)
{
	free(g->failure);
	g->failure = xstrdup(text);
	g->want.failure = g->doing == AGENT_START ? g->failure : NULL;
}

static void ended(struct agent *a, struct guest *g, bool done, const char *text)
{
	struct agent_result r = {.name = g->name,
				 .uuid = g->want_uuid ? g->want_uuid : g->have.uuid,
				 .epoch = g->want.epoch,
				 .act = g->doing,
				 .done = done,
				 .text = text};

	if (!done)
		log_warning("event=vm_%s_failed name=%s error=\"%s\"", agent_act_names[g->doing], g->name, text);
	if (a->calls.result)
		a->calls.result(a->arg, &r);
}

/* Begin an action on @g; @words are the arguments of godwit-vm before those that all share, NULL-terminated. */
static void spawn(struct agent *a, struct guest *g, enum agent_act act, const char *const *words, int input_fd)
{
	const char *argv[ARGS_MAX] = {a->opt.vm_program};
	struct err e = ERR_INIT;
	size_t n = 1;

	while (*words)
		argv[n++] = *words++;
	argv[n++] = "--run-dir";
	argv[n++] = a->opt.run_dir;
	argv[n++] = "--json";
	g->doing = act;
	if (job_start(argv, input_fd, &g->job, &e) == 0 && watch_fd(a, g->job.child.pidfd, &e) == 0)
		return;
	job_done(&g->job);
	failed(g, e.text);
	ended(a, g, false, e.text);
}

static void act_start(struct agent *a, struct guest *g)
{
	_free_ char *mark = agent_mark(a->opt.cluster, g->want.epoch);
	_free_ char *text = json_dumps(g->definition, JSON_COMPACT);
	const char *words[ARGS_MAX] = {"start", "/proc/self/fd/3", "--mark", mark};
	const struct {
		const char *option, *value;
	} more[] = {{"--accel", a->opt.accel}, {"--user", a->opt.user}, {"--qemu", a->opt.qemu}};
	struct err e = ERR_INIT;
	_closefd_ int fd = -1;
	size_t n = 4;

	if (!text)
		err_set(&e, ERR_INPUT, "guest %s: there is no definition of it", g->name);
	else
		fd = job_input(text, &e);
	for (size_t i = 0; i < ARRAY_SIZE(more); i++)
		if (more[i].value) {
			words[n++] = more[i].option;
			words[n++] = more[i].value;
		}
	g->doing = AGENT_START;
	if (fd >= 0) {
		spawn(a, g, AGENT_START, words, fd);
	} else {
		failed(g, e.text);
		ended(a, g, false, e.text);
	}
}

static void act_end(struct agent *a, struct guest *g, enum agent_act act)
{
	char seconds[16];
	const char *stop[] = {"stop", g->name, "--timeout", seconds, NULL}, *kill[] = {"kill", g->name, NULL};

	snprintf(seconds, sizeof(seconds), "%u", g->stop_s < 0 ? a->opt.stop_s : (unsigned)g->stop_s);
	spawn(a, g, act, act == AGENT_STOP ? stop : kill, -1);
}

static void act_on(struct agent *a, struct guest *g, const struct agent_action *action)
{
	if (action->act != AGENT_START && action->act != AGENT_STOP && action->act != AGENT_KILL)
		return;
	log_info("event=vm_action name=%s act=%s epoch=%" PRId64 " why=\"%s\"", g->name, agent_act_names[action->act],
		 g->want.epoch, action->why);
	if (action->act == AGENT_START)
		act_start(a, g);
	else
		act_end(a, g, action->act);
}

/* An action's child has ended. */
static void collect(struct agent *a, struct guest *g, const struct job_end *end)
{
	bool stop = g->doing != AGENT_START;
	bool done = end->exit_code == 0 || (stop && end->exit_code == EXIT_NO_GUEST);

	g->changed = true;
	if (done) {
		free(steal_ptr(g->failure));
		g->want.failure = NULL;
	} else if (stop || end->exit_code != EXIT_NO_PERMIT) { /* the lease ended meanwhile: no failure of the guest */
		failed(g, end->words);
	}
	if (!done && (stop || end->exit_code == EXIT_NO_PERMIT))
		g->again_ns = clock_now_ns() + END_AGAIN_NS;
	ended(a, g, done, done ? "" : end->words);
	look_soon(a);
}

/* ---- looking ---- */

static void look_start(struct agent *a)
{
	const char *argv[] = {a->opt.vm_program, "list", "--run-dir", a->opt.run_dir, "--json", NULL};
	struct err e = ERR_INIT;

	a->look_again = false;
	a->look_boot_ns = clock_boot_ns();
	for (struct guest *g = a->guests; g; g = g->next)
		g->changed = false;
	if (job_start(argv, -1, &a->look, &e) < 0 || watch_fd(a, a->look.child.pidfd, &e) < 0) {
		job_done(&a->look);
		log_error("event=look_failed error=\"%s\"", e.text);
		timer_set(a, a->opt.interval_ns);
	}
}

static enum vm_status status_find(const char *name)
{
	for (int i = 0; name && i < VM_STATUS_MAX; i++)
		if (strcmp(name, vm_status_names[i]) == 0)
			return (enum vm_status)i;
	return VM_STATUS_SILENT;
}

/* Keep hold of @g's QEMU, to hear of its death. */
static void watch_qemu(struct agent *a, struct guest *g, pid_t pid, uint64_t start_time)
{
	if (g->watch.pidfd >= 0 && g->watch.pid == pid && g->watch.start_time == start_time && !child_ended(&g->watch))
		return;
	child_done(&g->watch);
	if (g->have.status == VM_STATUS_GONE || child_adopt(pid, start_time, &g->watch, NULL) < 0)
		return;
	if (watch_fd(a, g->watch.pidfd, NULL) < 0)
		child_done(&g->watch);
}

static void look_take(struct agent *a, const json_t *o)
{
	const char *name = json_string_value(json_object_get(o, "name"));
	const char *uuid = json_string_value(json_object_get(o, "uuid"));
	struct guest *g;

	if (!name || !uuid)
		return;
	g = guest_find(a, name, true);
	snprintf(g->have_uuid, sizeof(g->have_uuid), "%s", uuid);
	g->have = (struct agent_have){.uuid = g->have_uuid,
				      .cluster = g->have_cluster,
				      .status = status_find(json_string_value(json_object_get(o, "status")))};
	if (!agent_mark_parse(json_string_value(json_object_get(o, "mark")), g->have_cluster, &g->have.epoch))
		g->have_cluster[0] = 0;
	g->here = true;
	g->pid = (pid_t)json_integer_value(json_object_get(o, "pid"));
	g->start_time = (uint64_t)json_integer_value(json_object_get(o, "start_time"));
	g->memory = (uint64_t)json_integer_value(json_object_get(json_object_get(o, "definition"), "memory")) << 20;
	watch_qemu(a, g, g->pid, g->start_time);
}

static void plan(struct agent *a, struct guest *g, int64_t now_ns, int64_t *wake_ns)
{
	struct agent_action action;

	if (job_active(&g->job) || g->changed || (!g->wanted && !g->here))
		return;
	action = agent_plan(a->opt.cluster, g->wanted ? &g->want : NULL, g->here ? &g->have : NULL);
	if ((action.act == AGENT_STOP || action.act == AGENT_KILL) && now_ns < g->again_ns)
		action = (struct agent_action){.act = AGENT_WAIT, .why = action.why, .until_ns = g->again_ns};
	if (action.act == AGENT_START && (!a->allowed || now_ns < g->again_ns))
		action = (struct agent_action){
			.act = AGENT_WAIT, .why = "this host has no lease", .until_ns = g->again_ns};
	tell(a, g, &action);
	act_on(a, g, &action);
	if (action.act == AGENT_WAIT && action.until_ns > now_ns && action.until_ns < *wake_ns)
		*wake_ns = action.until_ns;
}

/* A look has ended: believe it, then plan. */
static void look_end(struct agent *a, const struct job_end *end)
{
	json_error_t je;
	json_t *list = end->exit_code == 0 ? json_loads(end->out, 0, &je) : NULL, *o;
	int64_t now = clock_now_ns(), wake = now + a->opt.interval_ns;
	size_t i;

	if (!json_is_array(list)) {
		log_error("event=look_failed error=\"%s\"", end->exit_code == 0 ? je.text : end->words);
		json_decref(list);
		timer_set(a, a->opt.interval_ns);
		return;
	}
	for (struct guest *g = a->guests; g; g = g->next)
		g->here = false;
	json_array_foreach (list, i, o)
		look_take(a, o);
	a->seen_boot_ns = a->look_boot_ns;
	json_decref(list);
	for (struct guest *g = a->guests; g; g = g->next) {
		if (!g->here) {
			child_done(&g->watch);
		}
		plan(a, g, now, &wake);
		a->look_again |= g->changed;
	}
	guests_prune(a);
	timer_set(a, a->look_again ? INTERVAL_SOON : wake - now);
}

void agent_dispatch(struct agent *a)
{
	struct job_end end = {0};
	uint64_t ticks = 0;

	for (struct guest *g = a->guests; g; g = g->next) {
		if (job_collect(&g->job, &end)) {
			collect(a, g, &end);
			job_end_done(&end);
		}
		if (g->watch.pidfd >= 0 && child_ended(&g->watch)) {
			child_done(&g->watch);
			look_soon(a);
		}
	}
	if (job_collect(&a->look, &end)) {
		look_end(a, &end);
		job_end_done(&end);
	}
	if (read(a->timer_fd, &ticks, sizeof(ticks)) == sizeof(ticks) && !job_active(&a->look))
		look_start(a);
}
