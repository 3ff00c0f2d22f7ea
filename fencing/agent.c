/* SPDX-License-Identifier: Apache-2.0 */
/* One call of a fence agent: found, started, watched, ended with all that it has started.
 *
 * The agent is the leader of a session of its own. Its standard input is a pipe that holds all options before it
 * starts, so nobody waits for an agent that does not read. Its outputs are pipes that are emptied all the time and kept
 * within a bound. The call is over when the leader has ended, even if a process that it left behind holds an output
 * open: the leader is still a zombie then, which keeps its number ours, so the group can be killed without hitting
 * somebody else.
 */
#include "fencing/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/text.h"
#include "fencing/agent-int.h"

#define KILLED_WAIT (200 * NS_PER_MS) /* for the end of a killed agent before its call is reported */
#define REAP_WAIT (20 * NS_PER_MS)    /* the loop stands still that long at most when a call is forgotten */
#define DRAIN_MAX (1U << 20)          /* read from a pipe after the agent has ended */
#define WORDS_MAX 512                 /* bytes of the agent's last line in a sentence */

const char *const agent_action_names[AGENT_ACTION_MAX] = {
	[AGENT_ON] = "on",
	[AGENT_OFF] = "off",
	[AGENT_REBOOT] = "reboot",
	[AGENT_STATUS] = "status",
	[AGENT_MONITOR] = "monitor",
	[AGENT_LIST] = "list",
	[AGENT_METADATA] = "metadata",
	[AGENT_VALIDATE] = "validate-all",
};

const char *const agent_state_names[AGENT_STATE_MAX] = {"unknown", "on", "off"};

/* One output of the agent: its first bytes are kept, or its last ones. */
struct output {
	int fd;
	struct loop_io *io;
	char *buf; /* limit + 1 bytes */
	size_t used, limit;
	bool tail, cut;
};

struct agent_call {
	struct loop *loop;
	char *agent;
	enum agent_action action;
	int64_t timeout_ns;
	struct child child; /* pid -1: collected, or left to the kernel */
	struct loop_child *watch;
	struct loop_timer *timer;
	struct output out, err;
	json_t *hidden; /* values that must not be seen in what it prints */
	bool late, over;
	agent_end_fn *fn;
	void *arg;
	agent_metadata_fn *metadata_fn; /* agent_metadata_start(): fn and arg are ours, these the caller's */
	void *metadata_arg;
};

/* ---- where agents are ---- */

static bool name_ok(const char *name)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
	static const char prefix[] = "fence_";
	size_t n = strlen(name), start = sizeof(prefix) - 1;

	return !strncmp(name, prefix, start) && n > start && n < AGENT_NAME_MAX && strspn(name, letters) == n;
}

/* Nobody but root and ourselves may have written @path. */
static int trusted(const char *path, const struct stat *st, struct err *e)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return err_set(
			e, ERR_FORBIDDEN,
			"%s belongs to user %u: whoever owns it could run programs as this daemon; chown root it", path,
			(unsigned)st->st_uid);
	if ((st->st_mode & S_IWOTH) || ((st->st_mode & S_IWGRP) && st->st_gid != 0 && st->st_gid != getegid()))
		return err_set(e, ERR_FORBIDDEN, "%s can be written by others than its owner: chmod go-w it", path);
	return 0;
}

/* 1 with *ret, 0 when @dir has no such agent, -1 with @e. */
static int path_in(const char *dir, const char *name, char **ret, struct err *e)
{
	_free_ char *path = xasprintf("%s/%s", dir, name);
	struct stat st, dir_st;

	if (stat(path, &st) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : err_sys(e, "fence agent %s", path);
	if (stat(dir, &dir_st) < 0)
		return err_sys(e, "folder %s", dir);
	if (trusted(dir, &dir_st, e) < 0 || trusted(path, &st, e) < 0)
		return err_wrap(e, "fence agent %s is not run", name);
	if (!S_ISREG(st.st_mode) || access(path, X_OK) < 0)
		return err_set(e, ERR_INPUT, "fence agent %s is not a program that can be run", path);
	*ret = steal_ptr(path);
	return 1;
}

char *agent_path(const char *dirs, const char *name, struct err *e)
{
	_free_ char *list = xstrdup(dirs ? dirs : AGENT_DIRS);
	char *save = NULL, *path = NULL;
	int r = 0;

	if (!name_ok(name)) {
		err_set(e, ERR_INPUT,
			"\"%.64s\" is no name of a fence agent: fence_ and then letters, digits and _, such as "
			"fence_ipmilan",
			name);
		return NULL;
	}
	for (char *d = strtok_r(list, ":", &save); d && r == 0; d = strtok_r(NULL, ":", &save))
		r = path_in(d, name, &path, e);
	if (r == 0)
		err_set(e, ERR_NOTFOUND,
			"fence agent %s is not installed on this host (looked in %s): install Debian's fence-agents, "
			"or the "
			"agent itself",
			name, dirs ? dirs : AGENT_DIRS);
	return r == 1 ? path : NULL;
}

/* ---- output ---- */

static void output_keep(struct output *o, const char *data, size_t n)
{
	if (o->used + n > o->limit)
		o->cut = true;
	if (o->tail && n > o->limit) {
		data += n - o->limit;
		n = o->limit;
	}
	if (o->tail && o->used + n > o->limit) {
		size_t drop = o->used + n - o->limit;

		memmove(o->buf, o->buf + drop, o->used - drop);
		o->used -= drop;
	}
	if (n > o->limit - o->used)
		n = o->limit - o->used;
	memcpy(o->buf + o->used, data, n);
	o->used += n;
	o->buf[o->used] = 0;
}

/* Take what is there. False: nothing now, or nothing more. */
static bool output_read(struct output *o)
{
	char data[4096];
	ssize_t n = o->fd < 0 ? 0 : read(o->fd, data, sizeof(data));

	if (n > 0)
		output_keep(o, data, (size_t)n);
	if (n == 0 && o->io)
		loop_io_set(o->io, 0);
	return n > 0 || (n < 0 && errno == EINTR);
}

static void output_ready(void *arg, unsigned ready)
{
	(void)ready;
	output_read(arg);
}

static void output_drain(struct output *o)
{
	for (size_t i = 0; i < DRAIN_MAX / 4096 && output_read(o); i++)
		;
}

/* A pipe whose other end, for the child, is *ret_write. */
static int output_open(struct output *o, struct loop *loop, size_t limit, bool tail, int *ret_write, struct err *e)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_sys(e, "pipe");
	*ret_write = p[1];
	*o = (struct output){.fd = p[0], .buf = xcalloc(limit + 1, 1), .limit = limit, .tail = tail};
	if (fcntl(p[0], F_SETFL, O_NONBLOCK) < 0)
		return err_sys(e, "pipe");
	o->io = loop_io_add(loop, p[0], LOOP_READ, output_ready, o);
	return 0;
}

static void output_close(struct output *o)
{
	loop_io_free(o->io);
	mem_closep(&o->fd);
	free(o->buf);
	*o = (struct output){.fd = -1};
}

/* What was cut through the middle of a line may hold half of a secret, which nobody would recognize: drop the rest of
 * that line. */
static void output_trim(struct output *o)
{
	char *end;

	if (!o->cut)
		return;
	if (o->tail) {
		end = strchr(o->buf, '\n');
		o->used -= end ? (size_t)(end + 1 - o->buf) : o->used;
		memmove(o->buf, end ? end + 1 : o->buf, o->used);
	} else {
		end = memrchr(o->buf, '\n', o->used);
		o->used = end ? (size_t)(end + 1 - o->buf) : 0;
	}
	o->buf[o->used] = 0;
}

/* ---- secrets ---- */

static bool is_secret(const char *name, const json_t *secrets)
{
	size_t i;
	json_t *s;

	json_array_foreach (secrets, i, s)
		if (!strcmp(json_string_value(s) ? json_string_value(s) : "", name))
			return true;
	return agent_name_is_secret(name);
}

/* The values of @options that are secret: an array, caller decrefs. */
static json_t *secret_values(const json_t *options, const json_t *secrets)
{
	json_t *values = json_array(), *value;
	const char *key;

	json_object_foreach ((json_t *)options, key, value)
		if (is_secret(key, secrets) && json_string_length(value) > 0)
			json_array_append(values, value);
	return values;
}

/* How many bytes at @text are one of @values: the longest that fits, 0 none. */
static size_t hidden_at(const char *text, size_t left, const json_t *values)
{
	size_t i, best = 0;
	json_t *v;

	json_array_foreach (values, i, v) {
		size_t n = json_string_length(v);

		if (n > best && n <= left && !memcmp(text, json_string_value(v), n))
			best = n;
	}
	return best;
}

/* @text without secrets; caller frees. */
static char *text_hide(const char *text, size_t size, const json_t *values, size_t *ret_size)
{
	size_t mask = strlen(AGENT_MASK), used = 0;
	char *copy = xcalloc(size + 1, mask);

	for (size_t i = 0; i < size;) {
		size_t n = hidden_at(text + i, size - i, values);

		if (n > 0)
			memcpy(copy + used, AGENT_MASK, mask);
		else
			copy[used] = text[i];
		used += n > 0 ? mask : 1;
		i += n > 0 ? n : 1;
	}
	copy[used] = 0;
	*ret_size = used;
	return copy;
}

/* ---- the end ---- */

static char *last_words(struct output *o, const json_t *hidden)
{
	_free_ char *text = NULL, *clean = NULL;
	size_t size;

	output_trim(o);
	text = text_hide(o->buf, strlen(o->buf), hidden, &size);
	clean = text_clean(child_last_line(text));
	if (strlen(clean) > WORDS_MAX)
		memcpy(clean + WORDS_MAX - 3, "...", 4);
	return text_clean(clean); /* once more: a character may have been cut through */
}

static char *end_words(const struct agent_end *end, int status, int64_t timeout_ns, const char *last)
{
	const char *action = agent_action_names[end->action], *mark = last[0] ? ": " : "";
	char how[128], time[TEXT_CELL];

	if (end->late) {
		text_duration(time, timeout_ns);
		return xasprintf("%s did not end within %s and was killed%s%s", action, time, mark, last);
	}
	if (end->state != AGENT_STATE_UNKNOWN)
		return xasprintf("%s says %s", action, agent_state_names[end->state]);
	if (end->exit_status == 0)
		return xasprintf("%s succeeded", action);
	return xasprintf("%s %s%s%s", action, child_status_text(status, how, sizeof(how)), mark, last);
}

/* Exit status 2 of `status` is "off". It is also what an interpreter or an option parser ends with when it does not
 * understand its command line, so "off" counts only together with an `off` that succeeded with the same options
 * (fencing/power.c). */
static enum agent_state state_of(enum agent_action action, int exit_status)
{
	if (action != AGENT_STATUS)
		return AGENT_STATE_UNKNOWN;
	return exit_status == 0 ? AGENT_STATE_ON : exit_status == 2 ? AGENT_STATE_OFF : AGENT_STATE_UNKNOWN;
}

static void call_report(struct agent_call *c, int status)
{
	struct agent_end end = {.action = c->action, .exit_status = -1, .late = c->late};
	_free_ char *out = NULL, *last = NULL, *words = NULL;

	c->over = true;
	loop_timer_set(c->timer, -1);
	output_drain(&c->out);
	output_drain(&c->err);
	if (!c->late && status != -1 && WIFEXITED(status))
		end.exit_status = WEXITSTATUS(status);
	end.state = state_of(c->action, end.exit_status);
	end.out_cut = c->out.cut;
	output_trim(&c->out);
	out = text_hide(c->out.buf, c->out.used, c->hidden, &end.out_size);
	last = last_words(&c->err, c->hidden);
	words = end_words(&end, status, c->timeout_ns, last);
	end.out = out;
	end.words = words;
	c->fn(c->arg, &end);
}

static void call_ended(void *arg)
{
	struct agent_call *c = arg;
	int status = -1;

	kill(-c->child.pid, SIGKILL); /* what it left running; it is not reaped yet, so the number is its own */
	child_wait(&c->child, clock_now_ns(), &status, NULL);
	loop_child_free(steal_ptr(c->watch));
	child_done(&c->child);
	if (!c->over)
		call_report(c, status);
}

static void call_timer(void *arg)
{
	struct agent_call *c = arg;

	if (!c->late) {
		c->late = true;
		agent_family_kill(&c->child);
		loop_timer_set(c->timer, KILLED_WAIT);
		return;
	}
	/* The kernel holds it (a dead NFS server, a dead disk). Nobody waits for that. */
	call_report(c, -1);
}

/* ---- the start ---- */

/* All options, then what is ours: agents take the last of a name. A pipe's end to read, or -1 with @e. */
static int input_open(const struct agent_call_spec *spec, struct err *e)
{
	_closefd_ int r = -1, w = -1;
	char *text = NULL;
	size_t size = 0;
	const char *key;
	json_t *value;
	int p[2], done;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return err_sys(e, "memory for options");
	json_object_foreach ((json_t *)spec->options, key, value)
		fprintf(f, "%s=%s\n", key, json_string_value(value) ? json_string_value(value) : "");
	if (spec->plug && spec->plug_option)
		fprintf(f, "%s=%s\n", spec->plug_option, spec->plug);
	fprintf(f, "action=%s\n", agent_action_names[spec->action]);
	if (fclose(f) != 0 || size > AGENT_INPUT_MAX)
		done = err_set(e, ERR_INPUT, "the options are longer than %u bytes", AGENT_INPUT_MAX);
	else if (pipe2(p, O_CLOEXEC) < 0)
		done = err_sys(e, "pipe");
	else {
		r = p[0], w = p[1];
		/* A pipe has room for it: it is empty, and AGENT_INPUT_MAX is half of what it holds. */
		done = fcntl(w, F_SETFL, O_NONBLOCK) < 0 || write(w, text, size) != (ssize_t)size
			       ? err_sys(e, "options")
			       : 0;
	}
	if (text)
		explicit_bzero(text, size);
	free(text);
	return done < 0 ? -1 : steal_fd(&r);
}

static int call_spawn(struct agent_call *c, const struct agent_call_spec *spec, struct err *e)
{
	_free_ char *path = agent_path(spec->dirs, spec->agent, e);
	_closefd_ int in = -1, out = -1, err = -1;

	if (!path)
		return -1;
	in = input_open(spec, e);
	if (in < 0 || output_open(&c->out, c->loop, AGENT_OUT_MAX, false, &out, e) < 0 ||
	    output_open(&c->err, c->loop, AGENT_ERR_MAX, true, &err, e) < 0)
		return err_wrap(e, "fence agent %s", spec->agent);

	const char *const argv[] = {path, NULL};
	struct child_fd fds[] = {{in, STDIN_FILENO}, {out, STDOUT_FILENO}, {err, STDERR_FILENO}};
	struct child_spec child = {.argv = argv, .fds = fds, .n_fds = 3, .session = true, .die_with_parent = true};

	return child_spawn(&child, &c->child, e) < 0 ? err_wrap(e, "fence agent %s", spec->agent) : 0;
}

struct agent_call *agent_call_start(struct loop *loop, const struct agent_call_spec *spec, agent_end_fn *fn, void *arg,
				    struct err *e)
{
	struct agent_call *c = xcalloc(1, sizeof(*c));

	*c = (struct agent_call){
		.loop = loop, .action = spec->action, .timeout_ns = spec->timeout_ns, .fn = fn, .arg = arg};
	c->child = CHILD_INIT;
	c->out.fd = c->err.fd = -1;
	c->agent = xstrdup(spec->agent);
	c->hidden = secret_values(spec->options, spec->secrets);
	if (call_spawn(c, spec, e) < 0) {
		agent_call_free(c);
		return NULL;
	}
	c->watch = loop_child_add(loop, c->child.pidfd, call_ended, c);
	c->timer = loop_timer_add(loop, spec->timeout_ns, 0, call_timer, c);
	return c;
}

static void *reap_later(void *arg)
{
	struct child *c = arg;

	child_wait(c, SOCK_FOREVER, NULL, NULL);
	child_done(c);
	free(c);
	return NULL;
}

/* A killed process ends soon, or when the kernel lets go of it (a dead disk, a dead server); the loop does not wait for
 * that. */
static void child_reap(struct child *c)
{
	struct child *later;
	pthread_t thread;

	if (child_wait(c, clock_now_ns() + REAP_WAIT, NULL, NULL) > 0) {
		child_done(c);
		return;
	}
	later = xcalloc(1, sizeof(*later));
	*later = *c;
	*c = CHILD_INIT;
	if (pthread_create(&thread, NULL, reap_later, later) == 0)
		pthread_detach(thread);
	else
		reap_later(later);
}

void agent_call_free(struct agent_call *c)
{
	if (!c)
		return;
	loop_child_free(c->watch);
	loop_timer_free(c->timer);
	if (c->child.pid > 0) {
		agent_family_kill(&c->child);
		child_reap(&c->child);
	}
	output_close(&c->out);
	output_close(&c->err);
	json_decref(c->hidden);
	free(c->agent);
	free(c);
}

/* ---- metadata ---- */

static void metadata_ended(void *arg, const struct agent_end *end)
{
	struct agent_call *c = arg;
	struct err e = ERR_INIT;
	json_t *metadata = NULL;

	if (end->late)
		err_set(&e, ERR_TIMEOUT, "%s", end->words);
	else if (end->exit_status != 0)
		err_set(&e, ERR_PEER, "%s", end->words);
	else if (end->out_cut)
		err_set(&e, ERR_PROTOCOL, "its metadata is longer than %u bytes", AGENT_OUT_MAX);
	else
		metadata = agent_metadata_parse(end->out, end->out_size, &e);
	if (metadata) /* it may go by several names, and is called what the user calls it */
		json_object_set_new(metadata, "name", json_string(c->agent));
	else
		err_wrap(&e, "fence agent %s", c->agent);
	c->metadata_fn(c->metadata_arg, metadata, &e);
	json_decref(metadata);
}

struct agent_call *agent_metadata_start(struct loop *loop, const char *dirs, const char *agent, int64_t timeout_ns,
					agent_metadata_fn *fn, void *arg, struct err *e)
{
	struct agent_call_spec spec = {
		.dirs = dirs, .agent = agent, .action = AGENT_METADATA, .timeout_ns = timeout_ns};
	struct agent_call *c = agent_call_start(loop, &spec, metadata_ended, NULL, e);

	if (!c)
		return NULL;
	c->arg = c;
	c->metadata_fn = fn;
	c->metadata_arg = arg;
	return c;
}
