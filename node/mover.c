/* SPDX-License-Identifier: Apache-2.0 */
/* The mover.
 *
 * Theory of operation
 *
 * One side of a migration is a chain of children, each of which ends by itself whatever becomes of us:
 *
 *   destination   starting: godwit-vm start --incoming -> opening, copying: godwit-migrate receive -> ending -> ended
 *   source                                                        copying: godwit-migrate send    -> ending -> ended
 *
 * "ending" is godwit-vm again, where the end asks for it: what is left of the guest on the side that does not have it
 * is killed, and its folder removed; and a guest that is ours is continued where whoever should have done so is dead.
 *
 * Everything that a new mover must know is in files of the folder .moves/ID in the run directory:
 *
 *   state.json  the step, and pid and start time of the child. Written before the child's gate opens (base/child.h), so
 *               there never is a child that nobody knows
 *   out, err    what the engine says: lines of JSON that we read as they come; so it never waits for us, and a new
 * mover reads them again. A lock on err is held as long as the engine or its guard has it open agree       empty, then
 * one byte: the answer to the agreement (migrate/agree.h). The first one stands record      the record of the hand-over
 * (migrate/handover.h): the truth about GO when nobody is left to ask token       the receiver's one-time token
 *
 * The end of a side is the engine's result. Where the engine could not say it, because somebody killed it, we wait for
 * its guard, and then the record says it:
 *
 *   source       copy, stopped    QEMU lets the guest run on by itself                                         failed
 *                shut, released   GO was not sent and nobody is left who could: continue the guest             failed
 *                go               the destination may run it: only the cluster knows                        undecided
 *                moved / kept                                                                        moved / failed
 *   destination  prepare, loaded  GO did not come and nobody is left who could take it: kill what was loaded   failed
 *                go               the guest is ours: continue it                                               moved
 *                running / never                                                                     moved / failed
 *
 * A destination that is complete and did not receive GO is never kept "in case the source is dead": cluster/move.c says
 * why its memory is worth nothing then.
 *
 * The question of cluster/move.h is answered from the same record. MOVE_NO is a promise about the future, so where the
 * record leaves it open the answer must be brought about first: at the source by the answer "no" to an agreement that
 * was not given yet (then no path to GO is left, and that is at once certain), and else by cancelling the engine and
 * waiting until the record, or its end, says what became of it. An engine that does not end although it is asked to
 * stands still and is killed, which is safe at any step and makes its guard settle.
 *
 * Nothing is told from inside a call: flags say what is to be told, and a timer tells it.
 */
#include "node/mover.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "hv/rundir.h"
#include "hv/vm.h"
#include "migrate/handover.h"
#include "node/agent.h"
#include "node/mover-int.h"

#define MOVES_FOLDER ".moves"
#define ID_MAX 64
#define TICK_NS (100 * NS_PER_MS)

const char *const mover_role_names[MOVER_ROLE_MAX] = {"src", "dst"};
const char *const mover_end_names[MOVER_END_MAX] = {"moved", "failed", "cancelled", "undecided"};

static struct side *find(const struct mover *m, const char *id)
{
	struct side *s = m->sides;

	while (s && strcmp(s->id, id) != 0)
		s = s->next;
	return s;
}

/* ---- telling ---- */

void mover_tell_soon(struct mover *m)
{
	loop_timer_set(m->soon, 0);
}

/* Whoever is told may forget the migration: nothing of it is passed on that could go with it. */
static void tell_listening(struct mover *m, struct side *s)
{
	_free_ char *id = xstrdup(s->id), *address = xstrdup(s->address), *token = xstrdup(s->token);

	if (m->calls.listening)
		m->calls.listening(m->arg, id, address, token);
}

static void tell_progress(struct mover *m, const char *id, json_t *progress)
{
	json_incref(progress);
	if (m->calls.progress)
		m->calls.progress(m->arg, id, progress);
	json_decref(progress);
}

static void tell_forecast(struct mover *m, const char *id, json_t *forecast)
{
	json_incref(forecast);
	if (m->calls.forecast)
		m->calls.forecast(m->arg, id, forecast);
	json_decref(forecast);
}

static void tell_ended(struct mover *m, struct side *s)
{
	_free_ char *id = xstrdup(s->id), *words = xstrdup(s->words ? s->words : "");
	json_t *result = json_incref(s->result);

	if (m->calls.ended)
		m->calls.ended(m->arg, id, s->role, s->end, words, result);
	json_decref(result);
}

/* Tell one thing about @s. False: there is nothing to be told. */
static bool tell(struct mover *m, struct side *s)
{
	_free_ char *id = xstrdup(s->id);

	if (s->tell_listening) {
		s->tell_listening = false;
		tell_listening(m, s);
	} else if (s->tell_forecast) {
		s->tell_forecast = false;
		tell_forecast(m, id, s->forecast);
	} else if (s->tell_progress) {
		s->tell_progress = false;
		tell_progress(m, id, s->progress);
	} else if (s->tell_agree) {
		s->tell_agree = false;
		if (m->calls.agree)
			m->calls.agree(m->arg, id);
	} else if (s->tell_answer) {
		s->tell_answer = false;
		if (m->calls.answer)
			m->calls.answer(m->arg, id, s->role, s->answer);
	} else if (s->tell_ended) {
		s->tell_ended = false;
		tell_ended(m, s);
	} else {
		return false;
	}
	return true;
}

static void on_soon(void *arg)
{
	struct mover *m = arg;
	struct side *s = m->sides;

	while (m->unknown) {
		struct unknown *u = m->unknown;

		m->unknown = u->next;
		if (m->calls.answer)
			m->calls.answer(m->arg, u->id, u->role, MOVE_YES);
		free(u);
	}
	/* Whoever is told may change the list. */
	while (s)
		s = tell(m, s) ? m->sides : s->next;
}

static void on_tick(void *arg)
{
	struct mover *m = arg;
	bool again = false;

	for (struct side *s = m->sides; s; s = s->next)
		again |= side_tick(s);
	if (again)
		loop_timer_set(m->tick, TICK_NS);
}

/* Some engine has said something; reading them all costs a system call each. */
static void on_output(void *arg, unsigned ready)
{
	struct mover *m = arg;
	char events[4096];

	(void)ready;
	while (read(m->inotify_fd, events, sizeof(events)) > 0)
		;
	for (struct side *s = m->sides; s; s = s->next)
		side_read(s);
}

/* ---- life ---- */

static char *copy(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

static void options_copy(struct mover *m, const struct mover_options *o)
{
	m->opt = *o;
	m->opt.run_dir = xstrdup(o->run_dir);
	m->opt.cluster = xstrdup(o->cluster);
	m->opt.tls_dir = copy(o->tls_dir);
	m->opt.vm_program = o->vm_program ? xstrdup(o->vm_program) : agent_program_beside("godwit-vm");
	m->opt.migrate_program =
		o->migrate_program ? xstrdup(o->migrate_program) : agent_program_beside("godwit-migrate");
	m->opt.accel = copy(o->accel);
	m->opt.user = copy(o->user);
	m->opt.qemu = copy(o->qemu);
	m->dir = xasprintf("%s/" MOVES_FOLDER, o->run_dir);
}

static void side_add(struct mover *m, struct side *s)
{
	s->next = m->sides;
	m->sides = s;
}

static void side_drop(struct mover *m, struct side *s)
{
	for (struct side **p = &m->sides; *p; p = &(*p)->next)
		if (*p == s) {
			*p = s->next;
			break;
		}
	side_free(s);
}

/* Take over what is in the folder. */
static int load(struct mover *m, struct err *e)
{
	DIR *d = opendir(m->dir);
	struct dirent *entry;

	if (!d)
		return err_sys(e, "folder %s", m->dir);
	while ((entry = readdir(d))) {
		struct side *s = entry->d_name[0] == '.' ? NULL : side_load(m, entry->d_name);

		if (!s)
			continue;
		side_add(m, s);
		log_info("event=migration_taken_over id=%s role=%s vm=%s step=%s", s->id, mover_role_names[s->role],
			 s->vm, side_step_names[s->step]);
		side_take_over(s);
	}
	closedir(d);
	return 0;
}

static int folder_make(struct mover *m, struct err *e)
{
	if (rundir_make(m->opt.run_dir, e) < 0)
		return -1;
	return rundir_make(m->dir, e);
}

int mover_new(struct loop *l, const struct mover_options *opt, const struct mover_calls *calls, void *arg,
	      struct mover **ret, struct err *e)
{
	struct mover *m = xcalloc(1, sizeof(*m));
	int r;

	options_copy(m, opt);
	m->loop = l;
	m->calls = *calls;
	m->arg = arg;
	m->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	m->soon = loop_timer_add(l, -1, 0, on_soon, m);
	m->tick = loop_timer_add(l, -1, 0, on_tick, m);
	if (m->inotify_fd >= 0)
		m->inotify = loop_io_add(l, m->inotify_fd, LOOP_READ, on_output, m);
	r = m->inotify_fd < 0 ? err_sys(e, "inotify") : folder_make(m, e);
	if (r == 0)
		r = load(m, e);
	if (r < 0)
		mover_free(m);
	else
		*ret = m;
	return r;
}

void mover_free(struct mover *m)
{
	if (!m)
		return;
	while (m->sides)
		side_drop(m, m->sides);
	mover_forecasts_free(m);
	while (m->unknown) {
		struct unknown *u = m->unknown;

		m->unknown = u->next;
		free(u);
	}
	loop_timer_free(m->soon);
	loop_timer_free(m->tick);
	loop_io_free(m->inotify);
	mem_closep(&m->inotify_fd);
	free((char *)m->opt.run_dir);
	free((char *)m->opt.cluster);
	free((char *)m->opt.tls_dir);
	free((char *)m->opt.vm_program);
	free((char *)m->opt.migrate_program);
	free((char *)m->opt.accel);
	free((char *)m->opt.user);
	free((char *)m->opt.qemu);
	free(m->dir);
	free(m);
}

/* ---- beginning ---- */

/* A name that can be a folder's. */
static bool id_valid(const char *id)
{
	size_t n = strlen(id);

	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)id[i]) && id[i] != '-')
			return false;
	return n > 0 && n <= ID_MAX && id[0] != '-';
}

/* A new side with its folder. NULL with @e. */
static struct side *begin(struct mover *m, const char *id, enum mover_role role, const char *vm, struct err *e)
{
	struct side *s;

	if (!id_valid(id) || !def_name_valid(vm)) {
		err_set(e, ERR_INPUT, "\"%s\" of \"%s\" is no migration", id, vm);
		return NULL;
	}
	if (find(m, id)) {
		err_set(e, ERR_CONFLICT, "migration %s is known here already", id);
		return NULL;
	}
	s = side_new(m, id, role);
	s->vm = xstrdup(vm);
	if (side_make(s, e) == 0)
		return s;
	side_free(s);
	return NULL;
}

/* It was begun, or it is gone without a trace. */
static int begun(struct mover *m, struct side *s, int r, struct err *e)
{
	if (r == 0) {
		side_add(m, s);
		log_info("event=migration_begun id=%s role=%s vm=%s", s->id, mover_role_names[s->role], s->vm);
		return 0;
	}
	err_wrap(e, "migration %s of %s", s->id, s->vm);
	side_remove(s);
	side_free(s);
	return -1;
}

int mover_receive(struct mover *m, const struct mover_receive_options *o, struct err *e)
{
	struct side *s = begin(m, o->id, MOVER_DST, o->vm, e);

	if (!s)
		return -1;
	s->epoch = o->epoch;
	s->listen = xstrdup(o->listen);
	s->advertise = copy(o->advertise);
	s->peer = copy(o->peer);
	return begun(m, s, side_begin_receive(s, o->definition, e), e);
}

int mover_qemu_open(const struct mover *m, const char *name, struct vm **ret, struct err *e)
{
	struct err inner = ERR_INIT;

	if (vm_open(m->opt.run_dir, name, ret, &inner) == 0)
		return 0;
	return err_set(e, inner.code == ERR_INPUT ? ERR_NOTFOUND : inner.code, "%s", inner.text);
}

int mover_send(struct mover *m, const struct mover_send_options *o, struct err *e)
{
	struct vm *vm = NULL;
	struct side *s;

	if (mover_qemu_open(m, o->vm, &vm, e) < 0)
		return -1;
	mover_forecasts_end(m, o->vm);
	s = begin(m, o->id, MOVER_SRC, o->vm, e);
	if (s) {
		s->qemu_pid = (pid_t)json_integer_value(json_object_get(vm->state, "pid"));
		s->qemu_start = (uint64_t)json_integer_value(json_object_get(vm->state, "start_time"));
	}
	vm_close(vm);
	return s ? begun(m, s, side_begin_send(s, o, e), e) : -1;
}

/* ---- being told and asked ---- */

void mover_agree(struct mover *m, const char *id, bool yes)
{
	struct side *s = find(m, id);

	if (s && s->role == MOVER_SRC && s->step == SIDE_COPYING)
		side_agree(s, yes);
}

void mover_cancel(struct mover *m, const char *id)
{
	struct side *s = find(m, id);

	if (s)
		side_cancel(s);
}

void mover_ask(struct mover *m, const char *id, enum mover_role role)
{
	struct side *s = find(m, id);
	struct unknown *u;

	if (s && s->role == role) {
		s->asked = true;
		side_consider(s);
		return;
	}
	u = xcalloc(1, sizeof(*u) + strlen(id) + 1);
	memcpy(u->id, id, strlen(id));
	u->role = role;
	u->next = m->unknown;
	m->unknown = u;
	mover_tell_soon(m);
}

int mover_settle(struct mover *m, const char *id, bool here, struct err *e)
{
	struct side *s = find(m, id);
	bool was_running;

	if (!s || s->step != SIDE_ENDED || s->end != MOVER_UNDECIDED)
		return err_set(e, ERR_CONFLICT, "migration %s is not undecided here", id);
	side_record(s, &was_running);
	if (here)
		side_finish(s, was_running ? SIDE_RESUME : SIDE_NOTHING, MOVER_FAILED,
			    "the cluster has decided that the guest runs on here");
	else
		side_finish(s, SIDE_KILL, MOVER_MOVED, "the cluster has decided that the guest is not here any more");
	return 0;
}

int mover_forget(struct mover *m, const char *id, struct err *e)
{
	struct side *s = find(m, id);

	if (!s)
		return 0;
	if (s->step != SIDE_ENDED)
		return err_set(e, ERR_CONFLICT, "migration %s has not ended here", id);
	side_remove(s);
	side_drop(m, s);
	return 0;
}

/* ---- looking ---- */

json_t *mover_list(const struct mover *m)
{
	json_t *list = json_array();

	for (const struct side *s = m->sides; s; s = s->next)
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I, s:s, s:s?}", "id", s->id, "role",
						      mover_role_names[s->role], "vm", s->vm, "epoch",
						      (json_int_t)s->epoch, "step", side_step_names[s->step], "end",
						      s->step == SIDE_ENDED ? mover_end_names[s->end] : NULL));
	return list;
}

json_t *mover_definition(const struct mover *m, const char *vm, struct err *e)
{
	struct vm *v = NULL;
	json_t *definition;

	if (mover_qemu_open(m, vm, &v, e) < 0)
		return NULL;
	definition = json_incref(json_object_get(v->state, "definition"));
	vm_close(v);
	if (!definition)
		err_set(e, ERR_PROTOCOL, "guest %s: its state here has no definition", vm);
	return definition;
}
