/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a migration in the run directory: what a new mover finds (theory: mover.c). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "hv/vm.h"
#include "migrate/handover.h"
#include "node/mover-int.h"

#define STATE_FILE "state.json"
#define STATE_VERSION 1
#define STATE_MAX (1U << 20)
#define LAST_WORDS 4096

char *side_path(const struct side *s, const char *name)
{
	return xasprintf("%s/%s", s->dir, name);
}

int side_file(const struct side *s, const char *name, int flags, struct err *e)
{
	_free_ char *path = side_path(s, name);
	int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? err_sys(e, "file %s", path) : fd;
}

int side_file_locked(const struct side *s, const char *name, struct err *e)
{
	_closefd_ int fd = side_file(s, name, O_RDWR | O_CREAT | O_APPEND, e);

	if (fd < 0)
		return -1;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, ERR_CONFLICT, "an engine of this migration is still at work");
	return steal_fd(&fd);
}

bool side_locked(const struct side *s, const char *name)
{
	_closefd_ int fd = side_file(s, name, O_RDONLY, NULL);

	return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0;
}

/* ---- the state ---- */

int side_make(struct side *s, struct err *e)
{
	return mkdir(s->dir, 0700) < 0 ? err_sys(e, "folder %s", s->dir) : 0;
}

static json_t *text_or_null(const char *s)
{
	return s ? json_string(s) : json_null();
}

static json_t *process_json(pid_t pid, uint64_t start_time)
{
	return json_pack("{s:I, s:I}", "pid", (json_int_t)pid, "start_time", (json_int_t)start_time);
}

int side_save(const struct side *s, struct err *e)
{
	json_t *o = json_pack(
		"{s:i, s:s, s:s, s:s, s:I, s:o, s:o, s:o, s:s, s:b, s:o, s:s, s:s, s:o, s:O?, s:o}", "v", STATE_VERSION,
		"id", s->id, "role", mover_role_names[s->role], "vm", s->vm, "epoch", (json_int_t)s->epoch, "listen",
		text_or_null(s->listen), "advertise", text_or_null(s->advertise), "peer", text_or_null(s->peer), "step",
		side_step_names[s->step], "cancelled", s->cancelled, "qemu", process_json(s->qemu_pid, s->qemu_start),
		"act", side_act_names[s->act], "end", mover_end_names[s->end], "words", text_or_null(s->words),
		"result", s->result, "child", process_json(s->child.pid, s->child.start_time));
	_free_ char *path = side_path(s, STATE_FILE);
	_free_ char *text = json_dumps(o, JSON_INDENT(1));

	json_decref(o);
	if (!text)
		return err_set(e, ERR_INPUT, "migration %s: its names are no UTF-8", s->id);
	return file_write_atomic(path, text, strlen(text), 0600, (gid_t)-1, e);
}

static int name_find(const char *const *names, int n, const json_t *o, const char *key)
{
	const char *name = json_string_value(json_object_get(o, key));

	for (int i = 0; name && i < n; i++)
		if (!strcmp(names[i], name))
			return i;
	return -1;
}

static char *text_copy(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? xstrdup(s) : NULL;
}

static pid_t process_read(const json_t *o, const char *key, uint64_t *ret_start)
{
	const json_t *p = json_object_get(o, key);

	*ret_start = (uint64_t)json_integer_value(json_object_get(p, "start_time"));
	return (pid_t)json_integer_value(json_object_get(p, "pid"));
}

/* Hold the child again. One that has ended meanwhile and was ours (the daemon has replaced itself) is reaped. */
static void child_find(struct side *s, pid_t pid, uint64_t start_time)
{
	if (pid <= 0 || child_adopt(pid, start_time, &s->child, NULL) == 0)
		return;
	if (child_start_time(pid) == start_time)
		waitpid(pid, NULL, WNOHANG);
}

static int side_parse(struct side *s, const json_t *o)
{
	int step = name_find(side_step_names, SIDE_STEP_MAX, o, "step");
	int act = name_find(side_act_names, SIDE_ACT_MAX, o, "act");
	int end = name_find(mover_end_names, MOVER_END_MAX, o, "end");
	int role = name_find(mover_role_names, MOVER_ROLE_MAX, o, "role");
	uint64_t start_time;
	pid_t pid;

	s->vm = text_copy(o, "vm");
	if (step < 0 || act < 0 || end < 0 || role < 0 || !s->vm ||
	    json_integer_value(json_object_get(o, "v")) != STATE_VERSION)
		return -1;
	s->role = (enum mover_role)role;
	s->step = (enum side_step)step;
	s->act = (enum side_act)act;
	s->end = (enum mover_end)end;
	s->epoch = json_integer_value(json_object_get(o, "epoch"));
	s->listen = text_copy(o, "listen");
	s->advertise = text_copy(o, "advertise");
	s->peer = text_copy(o, "peer");
	s->words = text_copy(o, "words");
	s->cancelled = json_is_true(json_object_get(o, "cancelled"));
	s->qemu_pid = process_read(o, "qemu", &s->qemu_start);
	if (json_is_object(json_object_get(o, "result")))
		s->result = json_incref(json_object_get(o, "result"));
	pid = process_read(o, "child", &start_time);
	child_find(s, pid, start_time);
	return 0;
}

struct side *side_load(struct mover *m, const char *id)
{
	struct side *s = side_new(m, id, MOVER_SRC);
	_free_ char *path = side_path(s, STATE_FILE);
	struct err e = ERR_INIT;
	_free_ char *text = file_read(path, STATE_MAX, NULL, &e);
	json_t *o = text ? json_loads(text, 0, NULL) : NULL;

	/* Without a state nothing was let go yet: the state is written before the first child's gate opens. */
	if (!text && e.errnum == ENOENT)
		side_remove(s);
	else if (!o || side_parse(s, o) < 0)
		log_error("event=migration_unreadable path=%s error=\"%s\"", path,
			  text ? "not as we write it" : e.text);
	else {
		json_decref(o);
		return s;
	}
	json_decref(o);
	side_free(s);
	return NULL;
}

void side_remove(const struct side *s)
{
	DIR *d = opendir(s->dir);
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			unlinkat(dirfd(d), entry->d_name, 0);
	if (d)
		closedir(d);
	if (rmdir(s->dir) < 0 && errno != ENOENT)
		log_warning("event=migration_folder path=%s errno=%d", s->dir, errno);
}

struct side *side_new(struct mover *m, const char *id, enum mover_role role)
{
	struct side *s = xcalloc(1, sizeof(*s));

	s->m = m;
	s->id = xstrdup(id);
	s->dir = xasprintf("%s/%s", m->dir, id);
	s->role = role;
	s->child = CHILD_INIT;
	s->qemu_pid = s->out_fd = s->out_watch = -1;
	return s;
}

void side_free(struct side *s)
{
	loop_child_free(s->watch);
	child_done(&s->child);
	mem_closep(&s->out_fd);
	json_decref(s->result);
	json_decref(s->progress);
	json_decref(s->forecast);
	free(s->address);
	free(s->words);
	free(s->listen);
	free(s->advertise);
	free(s->peer);
	free(s->vm);
	free(s->id);
	free(s->dir);
	free(s);
}

/* ---- the hand-over ---- */

int side_record(const struct side *s, bool *ret_was_running)
{
	_closefd_ int fd = side_file(s, SIDE_RECORD, O_RDONLY, NULL);

	*ret_was_running = true;
	return fd < 0 ? -1 : handover_look(fd, ret_was_running);
}

char side_agreed(const struct side *s)
{
	_closefd_ int fd = side_file(s, SIDE_AGREE, O_RDONLY, NULL);
	char answer = 0;

	return fd >= 0 && read(fd, &answer, 1) == 1 ? answer : 0;
}

void side_agree(const struct side *s, bool yes)
{
	_closefd_ int fd = side_agreed(s) ? -1 : side_file(s, SIDE_AGREE, O_WRONLY | O_APPEND, NULL);

	if (fd >= 0 && write(fd, yes ? "y" : "n", 1) != 1)
		log_error("event=migration_answer id=%s errno=%d", s->id, errno);
}

/* ---- words, and whose the guest is ---- */

char *side_last_words(const struct side *s, const char *name)
{
	_closefd_ int fd = side_file(s, name, O_RDONLY, NULL);
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	char buf[LAST_WORDS + 1];
	ssize_t n = size < 0 ? -1 : pread(fd, buf, LAST_WORDS, size > LAST_WORDS ? size - LAST_WORDS : 0);
	const char *line;

	buf[n < 0 ? 0 : n] = 0;
	line = child_last_line(buf);
	if (line[0] == '<' && line[1] && line[2] == '>')
		line += 3;
	return xstrdup(line);
}

bool side_qemu_is_ours(const struct side *s)
{
	struct vm *vm = NULL;
	bool ours;

	if (s->qemu_pid <= 0 || vm_open(s->m->opt.run_dir, s->vm, &vm, NULL) < 0)
		return false;
	ours = json_integer_value(json_object_get(vm->state, "pid")) == s->qemu_pid &&
	       (uint64_t)json_integer_value(json_object_get(vm->state, "start_time")) == s->qemu_start;
	vm_close(vm);
	return ours;
}
