/* SPDX-License-Identifier: Apache-2.0 */
/* One side of a migration: its children one after another, what they say, and what its end asks for (theory: mover.c).
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "hv/vm.h"
#include "migrate/handover.h"
#include "node/agent-plan.h"
#include "node/mover-int.h"

#define VM_SAYS "godwit-vm: " /* before the words of a failure */
#define GUARD_SAYS " why=\""  /* in the line of a guard that has settled the move (migrate/guard.h) */
#define LINE_BYTES 65536
#define TOKEN_BYTES 256
#define CANCEL_PATIENCE (15 * NS_PER_S) /* an engine that has not taken its cancellation by then stands still */

const char *const side_step_names[SIDE_STEP_MAX] = {"starting", "opening", "copying", "ending", "ended"};
const char *const side_act_names[SIDE_ACT_MAX] = {"nothing", "kill", "resume"};

/* ---- command lines ---- */

void engine_word(struct engine_words *w, const char *option, const char *value)
{
	if (option)
		w->argv[w->n++] = option;
	if (value)
		w->argv[w->n++] = value;
}

void engine_number(struct engine_words *w, const char *option, unsigned long value)
{
	char *text = w->text[w->n_text++];

	snprintf(text, sizeof(w->text[0]), "%lu", value);
	engine_word(w, option, text);
}

void engine_words_common(struct engine_words *w, const struct mover *m, const char *verb, const char *qmp_path)
{
	engine_word(w, m->opt.migrate_program, verb);
	if (qmp_path)
		engine_word(w, "--qmp", qmp_path);
	engine_word(w, "--json", NULL);
	if (m->opt.plaintext)
		engine_word(w, "--plaintext", NULL);
	else
		engine_word(w, "--tls", m->opt.tls_dir);
}

void engine_words_send(struct engine_words *w, const struct mover *m, const char *qmp_path,
		       const struct mover_send_options *o, int token_fd)
{
	char *token = w->text[w->n_text++];

	engine_words_common(w, m, "send", qmp_path);
	snprintf(token, sizeof(w->text[0]), "/proc/self/fd/%d", token_fd);
	engine_word(w, "--token-file", token);
	engine_word(w, "--to", o->to);
	if (o->max_pause_ms)
		engine_number(w, "--max-pause", o->max_pause_ms);
	if (o->deadline_s)
		engine_number(w, "--deadline", o->deadline_s);
	if (o->bandwidth_mbs)
		engine_number(w, "--bandwidth", o->bandwidth_mbs);
	if (o->auto_converge)
		engine_word(w, "--auto-converge", NULL);
}

static void vm_words(struct engine_words *w, const struct mover *m, const char *verb, const char *object)
{
	engine_word(w, m->opt.vm_program, verb);
	engine_word(w, object, NULL);
	engine_word(w, "--run-dir", m->opt.run_dir);
	engine_word(w, "--json", NULL);
}

static char *engine_socket(const struct side *s)
{
	return xasprintf("%s/%s/" VM_ENGINE_SOCK, s->m->opt.run_dir, s->vm);
}

/* ---- children ---- */

static void side_child_over(struct side *s);

static void child_over(void *arg)
{
	side_child_over(arg);
}

static void side_watch(struct side *s)
{
	s->watch = loop_child_add(s->m->loop, s->child.pidfd, child_over, s);
}

/* Start @argv: it is written down, with the step, before it becomes anything. */
static int spawn(struct side *s, enum side_step step, const char *const *argv, const struct child_fd *fds, size_t n,
		 struct err *e)
{
	struct child_spec spec = {.argv = argv, .fds = fds, .n_fds = n, .session = true, .hold = true};
	enum side_step before = s->step;

	if (child_spawn(&spec, &s->child, e) < 0)
		return -1;
	s->step = step;
	if (side_save(s, e) == 0 && child_release(&s->child, e) == 0) {
		side_watch(s);
		return 0;
	}
	/* Not let go, or exec failed: nothing runs. */
	child_signal(&s->child, SIGKILL, NULL);
	child_wait(&s->child, clock_now_ns() + NS_PER_S, NULL, NULL);
	child_done(&s->child);
	s->step = before;
	return -1;
}

/* godwit-vm; @input_fd (-1: none) is its descriptor 3. */
static int spawn_vm(struct side *s, enum side_step step, const struct engine_words *w, int input_fd, struct err *e)
{
	_closefd_ int err = side_file(s, SIDE_VM_ERR, O_WRONLY | O_CREAT | O_TRUNC, e);
	struct child_fd fds[] = {{err, STDERR_FILENO}, {input_fd, 3}};

	return err < 0 ? -1 : spawn(s, step, w->argv, fds, input_fd < 0 ? 1 : 2, e);
}

static void out_open(struct side *s)
{
	_free_ char *path = side_path(s, SIDE_OUT);

	s->out_fd = side_file(s, SIDE_OUT, O_RDONLY, NULL);
	s->out_watch = inotify_add_watch(s->m->inotify_fd, path, IN_MODIFY);
	/* What was written before is not announced. */
	loop_timer_set(s->m->tick, 0);
}

/* Why godwit-vm failed; NULL when it did not. @status: -1 when that was not ours to see. Caller frees. */
static char *vm_failure(const struct side *s, int status)
{
	_free_ char *words = side_last_words(s, SIDE_VM_ERR);

	if (status != 0 && !strncmp(words, VM_SAYS, strlen(VM_SAYS)))
		return xstrdup(words + strlen(VM_SAYS));
	return status == 0 || status == -1 ? NULL : xstrdup("godwit-vm died");
}

/* godwit-migrate; the record is its descriptor 3, @more_fds follow from 4 on. */
static int spawn_engine(struct side *s, enum side_step step, struct engine_words *w, const int *more_fds, size_t n_more,
			struct err *e)
{
	_closefd_ int out = side_file(s, SIDE_OUT, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, e);
	_closefd_ int err = out < 0 ? -1 : side_file_locked(s, SIDE_ERR, e);
	_closefd_ int record = err < 0 ? -1 : side_file(s, SIDE_RECORD, O_RDWR | O_CREAT, e);
	struct child_fd fds[8] = {{out, STDOUT_FILENO}, {err, STDERR_FILENO}, {record, 3}};

	if (record < 0)
		return -1;
	for (size_t i = 0; i < n_more; i++)
		fds[3 + i] = (struct child_fd){more_fds[i], 4 + (int)i};
	engine_word(w, "--record-fd", "3");
	if (s->m->opt.settle_s)
		engine_number(w, "--settle", s->m->opt.settle_s);
	if (spawn(s, step, w->argv, fds, 3 + n_more, e) < 0)
		return -1;
	out_open(s);
	return 0;
}

/* ---- the end ---- */

static void ended(struct side *s)
{
	struct err e = ERR_INIT;

	s->step = SIDE_ENDED;
	s->tell_ended = true;
	if (s->asked)
		side_consider(s);
	if (side_save(s, &e) < 0)
		log_error("event=migration_state id=%s error=\"%s\"", s->id, e.text);
	log_info("event=migration_ended id=%s role=%s vm=%s end=%s words=\"%s\"", s->id, mover_role_names[s->role],
		 s->vm, mover_end_names[s->end], s->words);
	mover_tell_soon(s->m);
}

/* What the end asks for, unless it needs nobody. */
static void act(struct side *s)
{
	struct engine_words w = {.n = 0};
	struct err e = ERR_INIT;

	vm_words(&w, s->m, s->act == SIDE_KILL ? "kill" : "resume", s->vm);
	if (s->act == SIDE_NOTHING || !side_qemu_is_ours(s)) {
		ended(s);
	} else if (spawn_vm(s, SIDE_ENDING, &w, -1, &e) < 0) {
		log_error("event=migration_%s_failed id=%s error=\"%s\"", side_act_names[s->act], s->id, e.text);
		ended(s);
	}
}

/* godwit-vm has done it, or has not. */
static void act_over(struct side *s, int status)
{
	_free_ char *why = vm_failure(s, status);

	if (why) {
		char *both = xasprintf(
			"%s; %s: %s", s->words,
			s->act == SIDE_KILL ? "what is left of it here stays" : "it could not be continued", why);

		log_error("event=migration_%s_failed id=%s error=\"%s\"", side_act_names[s->act], s->id, why);
		free(s->words);
		s->words = both;
	}
	ended(s);
}

void side_finish(struct side *s, enum side_act do_act, enum mover_end end, const char *words)
{
	free(s->words);
	s->words = xstrdup(words);
	s->act = do_act;
	s->end = end;
	act(s);
}

static const char *result_word(const struct side *s)
{
	const char *r = json_string_value(json_object_get(s->result, "result"));

	return r ? r : "";
}

/* What an engine that could say nothing more has left: the last line of its log, of which a guard's holds a sentence.
 */
static char *dead_words(const struct side *s)
{
	_free_ char *last = side_last_words(s, SIDE_ERR);
	const char *why = strstr(last, GUARD_SAYS), *end;

	if (!why)
		return xasprintf("godwit-migrate died%s%s", last[0] ? "; its last words: " : "", last);
	why += strlen(GUARD_SAYS);
	end = strrchr(why, '"');
	return xasprintf("godwit-migrate died; %.*s", (int)(end ? end - why : (ptrdiff_t)strlen(why)), why);
}

/* Why, in the engine's own words. */
static char *result_words(const struct side *s)
{
	const char *guest = json_string_value(json_object_get(s->result, "guest"));
	const char *why = json_string_value(json_object_get(json_object_get(s->result, "error"), "text"));

	/* What a destination says of its QEMU is not the last word: it is killed. */
	if (why && s->role == MOVER_DST)
		return xstrdup(why);
	if (why)
		return xasprintf("%s; %s", why, guest ? guest : "");
	return guest ? xstrdup(guest) : dead_words(s);
}

/* The engine and its guard are gone, and this is the truth: the result, or where the engine could not say it, the
 * record. */
static void conclude_src(struct side *s, int step, bool was_running, const char *words)
{
	const char *result = result_word(s);
	bool sent = step == SRC_GO || step == -2;

	if (!strcmp(result, "moved") || step == SRC_MOVED)
		side_finish(s, SIDE_KILL, MOVER_MOVED, words);
	else if (sent && (!s->result || !strcmp(result, "undecided") || !strcmp(result, "lost")))
		side_finish(s, SIDE_NOTHING, MOVER_UNDECIDED, words);
	else
		side_finish(s, was_running && (step == SRC_SHUT || step == SRC_RELEASED) ? SIDE_RESUME : SIDE_NOTHING,
			    !strcmp(result, "cancelled") || (!s->result && s->cancelled) ? MOVER_CANCELLED
											 : MOVER_FAILED,
			    words);
}

static void conclude_dst(struct side *s, int step, bool was_running, const char *words)
{
	const char *result = result_word(s);

	if (!strcmp(result, "moved") || step == DST_RUNNING)
		side_finish(s, SIDE_NOTHING, MOVER_MOVED, words);
	else if (!s->result && (step == DST_GO || step == -2))
		side_finish(s, was_running && step == DST_GO ? SIDE_RESUME : SIDE_NOTHING, MOVER_MOVED, words);
	else
		side_finish(s, SIDE_KILL,
			    !strcmp(result, "cancelled") || (!s->result && s->cancelled) ? MOVER_CANCELLED
											 : MOVER_FAILED,
			    words);
}

static void engine_over(struct side *s)
{
	_free_ char *words = NULL;
	bool was_running;
	int step;

	side_read(s);
	s->guarded = side_locked(s, SIDE_ERR);
	if (s->guarded) {
		loop_timer_set(s->m->tick, 0);
		return;
	}
	words = result_words(s);
	step = side_record(s, &was_running);
	s->cancel_ns = 0;
	if (s->role == MOVER_SRC)
		conclude_src(s, step, was_running, words);
	else
		conclude_dst(s, step, was_running, words);
}

/* ---- the destination's beginning ---- */

static int start_receive(struct side *s, struct err *e)
{
	_free_ char *qmp = engine_socket(s), *token = side_path(s, SIDE_TOKEN), *listen = NULL;
	struct engine_words w = {.n = 0};

	listen = xasprintf(strchr(s->listen, ':') ? "[%s]:0" : "%s:0", s->listen);
	engine_words_common(&w, s->m, "receive", qmp);
	engine_word(&w, "--listen", listen);
	engine_word(&w, "--token-file", token);
	if (s->peer)
		engine_word(&w, "--peer", s->peer);
	return spawn_engine(s, SIDE_OPENING, &w, NULL, 0, e);
}

/* The guest's QEMU as the run directory knows it, if it has the mark of this ownership. */
static int qemu_find(struct side *s, struct err *e)
{
	_free_ char *mark = agent_mark(s->m->opt.cluster, s->epoch);
	const char *found;
	struct vm *vm = NULL;

	if (vm_open(s->m->opt.run_dir, s->vm, &vm, e) < 0)
		return -1;
	found = json_string_value(json_object_get(vm->state, "mark"));
	if (found && !strcmp(found, mark)) {
		s->qemu_pid = (pid_t)json_integer_value(json_object_get(vm->state, "pid"));
		s->qemu_start = (uint64_t)json_integer_value(json_object_get(vm->state, "start_time"));
	}
	vm_close(vm);
	return s->qemu_pid > 0 ? 0 : err_set(e, ERR_CONFLICT, "there is another guest %s on this host", s->vm);
}

/* godwit-vm has started the QEMU, or has not. @status: -1 when that was not ours to see. */
static void start_over(struct side *s, int status)
{
	_free_ char *why = vm_failure(s, status);
	struct err e = ERR_INIT;

	if (why)
		err_set(&e, ERR_PEER, "%s", why);
	else if (qemu_find(s, &e) == 0 && !s->cancelled && start_receive(s, &e) == 0)
		return;
	if (s->cancelled)
		side_finish(s, SIDE_KILL, MOVER_CANCELLED, "cancelled before anything was copied");
	else
		side_finish(s, SIDE_KILL, MOVER_FAILED, e.text);
}

int side_begin_receive(struct side *s, json_t *definition, struct err *e)
{
	_free_ char *mark = agent_mark(s->m->opt.cluster, s->epoch);
	_free_ char *text = json_dumps(definition, JSON_COMPACT);
	const struct mover_options *o = &s->m->opt;
	struct engine_words w = {.n = 0};
	_closefd_ int input = -1;

	if (!text)
		return err_set(e, ERR_INPUT, "guest %s: there is no definition of it", s->vm);
	input = job_input(text, e);
	vm_words(&w, s->m, "start", "/proc/self/fd/3");
	engine_word(&w, "--incoming", NULL);
	engine_word(&w, "--mark", mark);
	if (o->accel)
		engine_word(&w, "--accel", o->accel);
	if (o->user)
		engine_word(&w, "--user", o->user);
	if (o->qemu)
		engine_word(&w, "--qemu", o->qemu);
	return input < 0 ? -1 : spawn_vm(s, SIDE_STARTING, &w, input, e);
}

/* ---- the source's beginning ---- */

int side_begin_send(struct side *s, const struct mover_send_options *o, struct err *e)
{
	_free_ char *qmp = engine_socket(s);
	struct engine_words w = {.n = 0};
	_closefd_ int agree = side_file(s, SIDE_AGREE, O_RDONLY | O_CREAT, e);
	_closefd_ int token = agree < 0 ? -1 : job_input(o->token, e);

	if (token < 0)
		return -1;
	engine_words_send(&w, s->m, qmp, o, 5);
	engine_word(&w, "--agree-fd", "4");
	return spawn_engine(s, SIDE_COPYING, &w, (int[]){agree, token}, 2, e);
}

/* ---- what the engine says ---- */

static void heard_listening(struct side *s, const json_t *o)
{
	const char *host = s->advertise ? s->advertise : s->listen;
	_free_ char *path = side_path(s, SIDE_TOKEN);
	_free_ char *token = file_read(path, TOKEN_BYTES, NULL, NULL);

	if (s->address || !token)
		return;
	s->address = xasprintf(strchr(host, ':') ? "[%s]:%d" : "%s:%d", host,
			       (int)json_integer_value(json_object_get(o, "port")));
	snprintf(s->token, sizeof(s->token), "%.*s", (int)strcspn(token, "\r\n"), token);
	s->step = s->step == SIDE_OPENING ? SIDE_COPYING : s->step;
	s->tell_listening = true;
}

/* Only the newest is told. */
static void heard_news(json_t **keep, bool *tell, const json_t *o)
{
	json_decref(*keep);
	*keep = json_deep_copy(o);
	*tell = true;
}

static void heard(struct side *s, const json_t *o)
{
	const char *event = json_string_value(json_object_get(o, "event"));

	if (!event)
		return;
	if (!strcmp(event, "listening"))
		heard_listening(s, o);
	else if (!strcmp(event, "ready"))
		s->tell_agree = !side_agreed(s);
	else if (!strcmp(event, "progress"))
		heard_news(&s->progress, &s->tell_progress, o);
	else if (!strcmp(event, "forecast"))
		heard_news(&s->forecast, &s->tell_forecast, o);
	else if (!strcmp(event, "result") && !s->result)
		s->result = json_deep_copy(o);
	mover_tell_soon(s->m);
}

void side_read(struct side *s)
{
	_free_ char *buf = xcalloc(1, LINE_BYTES + 1);
	ssize_t n;

	while (s->out_fd >= 0 && (n = pread(s->out_fd, buf, LINE_BYTES, s->out_at)) > 0) {
		char *line = buf, *end;

		buf[n] = 0;
		for (; (end = strchr(line, '\n')); line = end + 1) {
			json_t *o = json_loadb(line, (size_t)(end - line), 0, NULL);

			heard(s, o);
			json_decref(o);
		}
		/* The rest of a line comes later; one that long is none of ours. */
		s->out_at += line > buf ? line - buf : n == LINE_BYTES ? n : 0;
		if (line == buf && n < LINE_BYTES)
			break;
	}
}

/* ---- going on ---- */

static void side_child_over(struct side *s)
{
	int status = -1;

	loop_child_free(steal_ptr(s->watch));
	if (s->child.pidfd >= 0)
		child_wait(&s->child, clock_now_ns(), &status, NULL);
	child_done(&s->child);
	switch (s->step) {
	case SIDE_STARTING:
		start_over(s, status);
		break;
	case SIDE_OPENING:
	case SIDE_COPYING:
		engine_over(s);
		break;
	case SIDE_ENDING:
		act_over(s, status);
		break;
	case SIDE_ENDED:
	case SIDE_STEP_MAX:
		break;
	}
}

void side_take_over(struct side *s)
{
	if (s->step == SIDE_OPENING || s->step == SIDE_COPYING) {
		out_open(s);
		side_read(s);
	}
	if (s->step == SIDE_ENDED) {
		s->tell_ended = true;
		mover_tell_soon(s->m);
	} else if (s->child.pidfd >= 0) {
		side_watch(s);
		/* It was asked to end; whether it has been told, nobody knows. */
		if (s->cancelled) {
			s->cancelled = false;
			side_cancel(s);
		}
	} else if (s->step == SIDE_ENDING) {
		act(s);
	} else {
		side_child_over(s);
	}
}

void side_cancel(struct side *s)
{
	struct err e = ERR_INIT;

	if (s->step > SIDE_COPYING || s->cancel_ns)
		return;
	s->cancelled = true;
	s->cancel_ns = clock_now_ns();
	if (side_save(s, &e) < 0)
		log_error("event=migration_state id=%s error=\"%s\"", s->id, e.text);
	if (s->step != SIDE_STARTING && s->child.pidfd >= 0)
		child_signal(&s->child, SIGINT, NULL);
	loop_timer_set(s->m->tick, 0);
}

/* What an ended side answers to the question of cluster/move.h. */
static enum move_answer answer_ended(const struct side *s)
{
	return s->end == MOVER_MOVED || s->end == MOVER_UNDECIDED ? MOVE_YES : MOVE_NO;
}

/* What the record answers; MOVE_NOT_ASKED where it can still become the one or the other. */
static enum move_answer answer_record(const struct side *s)
{
	bool was_running;
	int step = side_record(s, &was_running);

	if (s->role == MOVER_SRC)
		return step == SRC_GO || step == SRC_MOVED ? MOVE_YES : step == SRC_KEPT ? MOVE_NO : MOVE_NOT_ASKED;
	return step == DST_GO || step == DST_RUNNING ? MOVE_YES : step == DST_NEVER ? MOVE_NO : MOVE_NOT_ASKED;
}

void side_consider(struct side *s)
{
	enum move_answer a;

	/* No agreement, and no other can be given any more: no GO. */
	if (s->role == MOVER_SRC && s->step == SIDE_COPYING)
		side_agree(s, false);
	if (s->step == SIDE_ENDED)
		a = answer_ended(s);
	else if (s->step == SIDE_STARTING || (s->role == MOVER_SRC && side_agreed(s) == 'n'))
		a = MOVE_NO;
	else
		a = answer_record(s);
	if (a != MOVE_YES)
		side_cancel(s);
	if (a == MOVE_NOT_ASKED) {
		loop_timer_set(s->m->tick, 0);
		return;
	}
	s->asked = false;
	s->answer = a;
	s->tell_answer = true;
	mover_tell_soon(s->m);
}

bool side_tick(struct side *s)
{
	bool unannounced = s->out_fd >= 0 && s->out_watch < 0;

	side_read(s);
	if (s->guarded) {
		s->guarded = side_locked(s, SIDE_ERR);
		if (!s->guarded)
			engine_over(s);
	}
	if (s->asked)
		side_consider(s);
	if (s->cancel_ns && clock_now_ns() - s->cancel_ns > CANCEL_PATIENCE && s->child.pidfd >= 0 &&
	    s->step != SIDE_STARTING && answer_record(s) == MOVE_NOT_ASKED) {
		log_error("event=migration_stands_still id=%s action=kill", s->id);
		child_signal(&s->child, SIGKILL, NULL);
		s->cancel_ns = 0;
	}
	return s->step < SIDE_ENDED && (s->guarded || s->asked || s->cancel_ns || unannounced);
}
