/* SPDX-License-Identifier: Apache-2.0 */
/* Which folders this host reaches.
 *
 * A look is a child process, `godwit-vm reach`, that says of each folder what it found as soon as it knows. A thread of
 * this process would not do: one that waits for storage in the kernel keeps the whole process from ending, and from
 * starting itself afresh. When a look is late, the folders that it has not told of are not reached, and it is killed.
 * Some storage does not even let it die. Then what it has not told of is left out of the looks that follow until it
 * is gone, so nothing piles up behind a folder; and after LOOKS_MAX such children nothing is looked at any more, so
 * nothing piles up at all.
 *
 *   look    begins with all folders of the set that no living look is stuck at
 *   told    a line: reached, or not and why
 *   late    the others: not reached, "does not answer"; the child is killed, its folders are stuck
 *   ended   the folders of a child that was killed are free for the next look. One that ended by itself without telling
 *           of all (no memory, no program) leaves the others as they were known
 */
#include "node/reach.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "hv/reach.h"
#include "node/job.h"

#define LOOKS_MAX 4
#define END_WAIT (100 * NS_PER_MS) /* for a child that was killed, so that it is no zombie beside our next program */

struct look {
	struct reach *r;
	struct job job;
	struct loop_child *child;
	json_t *folders; /* not told yet: {folder: files}; NULL: this look is unused */
	bool killed;
};

struct reach {
	struct loop *loop;
	struct reach_config c;
	char *program;
	json_t *set;   /* {folder: files} */
	json_t *known; /* {folder: why}, null: reached */
	struct look looks[LOOKS_MAX];
	struct look *now; /* the one that is not late; NULL */
	struct loop_timer *next, *late;
	bool again; /* the set has changed since it began */
};

static void begin(struct reach *r);

/* ---- what is known ---- */

static void say(const char *folder, const json_t *why)
{
	if (json_is_string(why))
		log_warning("event=folder folder=\"%s\" text=\"is not reached: %s; guests with files there are not "
			    "placed here\"",
			    folder, json_string_value(why));
	else
		log_info("event=folder folder=\"%s\" text=\"is reached\"", folder);
}

/* True: that is news for others. A folder that is reached at the first look is none. */
static bool know(struct reach *r, const char *folder, json_t *why)
{
	const json_t *before = json_object_get(r->known, folder);
	bool news = before ? !json_equal(before, why) : json_is_string(why);

	if (!json_object_get(r->set, folder))
		news = false;
	else
		json_object_set(r->known, folder, why);
	if (news)
		say(folder, why);
	json_decref(why);
	return news;
}

/* A report with other reasons would be refused as a whole. */
static bool is_reason(const json_t *why)
{
	const char *text = json_string_value(why);
	_free_ char *clean = text_clean(text);

	return text && text[0] && strlen(text) < REACH_WHY_MAX && !strcmp(text, clean);
}

/* What @text tells of the folders of @l. True: there is news. */
static bool told(struct look *l, const char *text, size_t size)
{
	const char *end;
	bool news = false;

	for (; (end = memchr(text, '\n', size)); size -= (size_t)(end + 1 - text), text = end + 1) {
		json_t *line = json_loadb(text, (size_t)(end - text), 0, NULL), *why = json_object_get(line, "why");
		const char *folder = json_string_value(json_object_get(line, "folder"));

		if (folder && (!why || is_reason(why)) && json_object_del(l->folders, folder) == 0)
			news |= know(l->r, folder, why ? json_incref(why) : json_null());
		json_decref(line);
	}
	return news;
}

/* ---- looks ---- */

static void look_end(struct look *l)
{
	loop_child_free(l->child);
	job_done(&l->job);
	json_decref(l->folders);
	if (l->r->now == l)
		l->r->now = NULL;
	*l = (struct look){.r = l->r, .job = JOB_INIT};
}

static void on_end(void *arg)
{
	struct look *l = arg;
	struct reach *r = l->r;
	struct job_end end;
	bool news = false;

	if (!job_collect(&l->job, &end))
		return;
	if (!l->killed) {
		news = told(l, end.out, end.out_size);
		loop_timer_set(r->late, -1);
		if (json_object_size(l->folders))
			log_warning("event=folder-look text=\"%zu folders were not looked at: %s\"",
				    json_object_size(l->folders), end.words);
	}
	job_end_done(&end);
	look_end(l);
	if (r->again && !r->now)
		begin(r);
	if (news)
		r->c.changed(r->c.arg);
}

static void on_late(void *arg)
{
	struct reach *r = arg;
	struct look *l = r->now;
	_free_ char *text = NULL;
	const char *folder;
	json_t *files;
	size_t size;
	bool news;

	if (!l)
		return;
	text = job_output(&l->job, &size);
	news = told(l, text, size);
	json_object_foreach (l->folders, folder, files)
		news |= know(r, folder, json_sprintf("does not answer within %d s", (int)(r->c.late_ns / NS_PER_S)));
	child_signal(&l->job.child, SIGKILL, NULL);
	l->killed = true;
	r->now = NULL;
	if (r->again)
		begin(r);
	if (news)
		r->c.changed(r->c.arg);
}

/* Whether a child that does not die is at it. */
static bool stuck(const struct reach *r, const char *folder)
{
	for (size_t i = 0; i < LOOKS_MAX; i++)
		if (r->looks[i].killed && json_object_get(r->looks[i].folders, folder))
			return true;
	return false;
}

static struct look *look_unused(struct reach *r)
{
	for (size_t i = 0; i < LOOKS_MAX; i++)
		if (!r->looks[i].folders)
			return &r->looks[i];
	return NULL;
}

static int look_start(struct reach *r, struct look *l, struct err *e)
{
	const char *argv[] = {r->program, "reach", "/proc/self/fd/3", "--json", NULL};
	_free_ char *text = json_dumps(l->folders, JSON_COMPACT);
	_closefd_ int input = job_input(text, e);

	if (input < 0 || job_start(argv, input, &l->job, e) < 0)
		return -1;
	l->child = loop_child_add(r->loop, l->job.child.pidfd, on_end, l);
	return 0;
}

static void begin(struct reach *r)
{
	struct look *l = look_unused(r);
	struct err e = ERR_INIT;
	const char *folder;
	json_t *files;

	if (r->now || !l)
		return;
	loop_timer_set(r->next, r->c.every_ns);
	r->again = false;
	l->folders = json_object();
	json_object_foreach (r->set, folder, files)
		if (!stuck(r, folder))
			json_object_set(l->folders, folder, files);
	if (!json_object_size(l->folders)) {
		look_end(l);
	} else if (look_start(r, l, &e) < 0) {
		log_warning("event=folder-look error=\"%s\"", e.text);
		look_end(l);
	} else {
		r->now = l;
		loop_timer_set(r->late, r->c.late_ns);
	}
}

static void on_next(void *arg)
{
	struct reach *r = arg;

	loop_timer_set(r->next, r->c.every_ns); /* also if nothing can begin now */
	begin(r);
}

/* ---- from outside ---- */

struct reach *reach_new(struct loop *loop, const struct reach_config *c)
{
	struct reach *r = xcalloc(1, sizeof(*r));

	*r = (struct reach){.loop = loop, .c = *c, .program = xstrdup(c->program), .set = json_object()};
	r->known = json_object();
	for (size_t i = 0; i < LOOKS_MAX; i++)
		r->looks[i] = (struct look){.r = r, .job = JOB_INIT};
	r->next = loop_timer_add(loop, c->every_ns, 0, on_next, r);
	r->late = loop_timer_add(loop, -1, 0, on_late, r);
	return r;
}

void reach_free(struct reach *r)
{
	if (!r)
		return;
	loop_timer_free(r->next);
	loop_timer_free(r->late);
	for (size_t i = 0; i < LOOKS_MAX; i++) {
		struct look *l = &r->looks[i];

		if (!l->folders)
			continue;
		child_signal(&l->job.child, SIGKILL, NULL);
		if (!l->killed)
			child_wait(&l->job.child, clock_now_ns() + END_WAIT, NULL, NULL);
		look_end(l);
	}
	json_decref(r->set);
	json_decref(r->known);
	free(r->program);
	free(r);
}

void reach_set(struct reach *r, json_t *folders)
{
	json_t *known, *why;
	const char *folder;
	bool news = false;

	if (json_equal(r->set, folders))
		return;
	json_decref(r->set);
	r->set = json_incref(folders);
	known = json_object();
	json_object_foreach (r->known, folder, why)
		if (json_object_get(r->set, folder))
			json_object_set(known, folder, why);
		else
			news |= json_is_string(why);
	json_decref(r->known);
	r->known = known;
	r->again = true;
	begin(r);
	if (news)
		r->c.changed(r->c.arg);
}

json_t *reach_json(const struct reach *r)
{
	json_t *ret = json_object(), *why;
	const char *folder;

	json_object_foreach (r->known, folder, why)
		if (json_is_string(why))
			json_object_set(ret, folder, why);
	return ret;
}
