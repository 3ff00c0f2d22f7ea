/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster's guests on this host, found by the run directory's records and held by pidfd. */
#ifndef GODWIT_WATCHDOG_GUESTS_H
#define GODWIT_WATCHDOG_GUESTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/child.h"
#include "hv/def.h"

struct guest {
	char name[DEF_NAME_MAX + 1];
	struct child proc;
	int sent; /* the last signal it got from us, 0 none */
};

/* Those that live, whatever they do: running, paused, waiting for a migration, just being started. */
struct guests {
	struct guest *list;
	size_t n, room;
	unsigned found;      /* since guests_begin(), the dead ones too */
	unsigned unreadable; /* records that cannot be read: each counts as a guest that lives */
	char puzzle[256];    /* why, for the last of them */
};

void guests_init(struct guests *g);
void guests_done(struct guests *g);

/* Forget all, and count anew. */
void guests_begin(struct guests *g);

/* Look through @run_dir for guests whose mark begins with @mark; drop those that have ended. Returns how many live, and
 * counts what cannot be decided as living. */
unsigned guests_scan(struct guests *g, const char *run_dir, const char *mark);

/* Send @sig to each that has not had it. */
void guests_signal(struct guests *g, int sig);

#endif
