/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster's guests on this host. A guest counts as dead when its pidfd says so, and in no other way: a record that
 * is removed while we hold its process changes nothing, and one that cannot be read counts as alive, since it may be.
 */
#include "watchdog/guests.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "hv/rundir.h"
#include "hv/vm.h"

#define ROOM 256 /* at once, before any guest is there: a host that is out of memory can still stop its guests */

void guests_init(struct guests *g)
{
	*g = (struct guests){.room = ROOM};
	g->list = xcalloc(ROOM, sizeof(*g->list));
}

void guests_begin(struct guests *g)
{
	for (size_t i = 0; i < g->n; i++)
		child_done(&g->list[i].proc);
	g->n = 0;
	g->found = g->unreadable = 0;
}

void guests_done(struct guests *g)
{
	guests_begin(g);
	free(g->list);
	*g = (struct guests){0};
}

static void drop_ended(struct guests *g)
{
	size_t kept = 0;

	for (size_t i = 0; i < g->n; i++)
		if (child_ended(&g->list[i].proc))
			child_done(&g->list[i].proc);
		else
			g->list[kept++] = g->list[i];
	g->n = kept;
}

static bool known(const struct guests *g, const struct child *proc)
{
	for (size_t i = 0; i < g->n; i++)
		if (g->list[i].proc.pid == proc->pid && g->list[i].proc.start_time == proc->start_time)
			return true;
	return false;
}

/* @proc is handed over. */
static void add(struct guests *g, const char *name, struct child *proc)
{
	if (g->n == g->room) {
		struct guest *more = xcalloc(g->room * 2, sizeof(*more));

		memcpy(more, g->list, g->n * sizeof(*more));
		free(g->list);
		g->list = more;
		g->room *= 2;
	}
	g->list[g->n] = (struct guest){.proc = *proc};
	snprintf(g->list[g->n].name, sizeof(g->list[g->n].name), "%s", name);
	g->n++;
	g->found++;
	*proc = CHILD_INIT;
}

static void puzzle(struct guests *g, const struct err *e)
{
	g->unreadable++;
	if (strcmp(g->puzzle, e->text) != 0)
		log_error("event=record_unreadable counts_as=alive error=\"%s\"", e->text);
	snprintf(g->puzzle, sizeof(g->puzzle), "%.*s", (int)sizeof(g->puzzle) - 1, e->text);
}

static void look(struct guests *g, const char *run_dir, const char *name, const char *mark)
{
	struct err e = ERR_INIT;
	struct vm *vm = NULL;
	const char *theirs;

	if (vm_open(run_dir, name, &vm, &e) < 0) {
		/* ERR_INPUT: no guest of that name, or no more. */
		if (e.code != ERR_INPUT)
			puzzle(g, &e);
		return;
	}
	theirs = json_string_value(json_object_get(vm->state, "mark"));
	if (theirs && strncmp(theirs, mark, strlen(mark)) == 0 && vm->proc.pidfd >= 0 && !child_ended(&vm->proc) &&
	    !known(g, &vm->proc))
		add(g, name, &vm->proc);
	vm_close(vm);
}

unsigned guests_scan(struct guests *g, const char *run_dir, const char *mark)
{
	struct err e = ERR_INIT;
	char **names = NULL;

	drop_ended(g);
	g->unreadable = 0;
	if (rundir_names(run_dir, &names, &e) < 0)
		puzzle(g, &e);
	for (size_t i = 0; names && names[i]; i++)
		look(g, run_dir, names[i], mark);
	rundir_names_free(names);
	return (unsigned)g->n + g->unreadable;
}

void guests_signal(struct guests *g, int sig)
{
	const char *name = sig == SIGKILL ? "KILL" : "TERM";
	struct err e = ERR_INIT;

	/* First all of them, then the words about it. */
	for (size_t i = 0; i < g->n; i++)
		if (g->list[i].sent != sig)
			child_signal(&g->list[i].proc, sig, &e);
	for (size_t i = 0; i < g->n; i++)
		if (g->list[i].sent != sig) {
			g->list[i].sent = sig;
			log_warning("event=guest_ending name=%s pid=%d signal=%s", g->list[i].name,
				    (int)g->list[i].proc.pid, name);
		}
	if (e.code)
		log_error("event=guest_not_signalled error=\"%s\"", e.text);
}
