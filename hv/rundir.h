/* SPDX-License-Identifier: Apache-2.0 */
/* The run directory: one private folder per guest, locked while somebody works on the guest. */
#ifndef GODWIT_HV_RUNDIR_H
#define GODWIT_HV_RUNDIR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* The default: /run/godwit for root, $XDG_RUNTIME_DIR/godwit, or /tmp/godwit-UID. Caller frees. */
char *rundir_default(void);

/* Make @dir (mode 0700) if it is missing; refuse one that belongs to somebody else or that others may write. */
int rundir_make(const char *dir, struct err *e);

/* Refuse @dir as rundir_make() does, without making it. Missing is ERR_INPUT. */
int rundir_check(const char *dir, struct err *e);

/* Make @dir/@name if missing and lock it. Returns the descriptor that holds the lock (caller
 * closes); -1 with @e, ERR_TIMEOUT when somebody else holds it. */
int rundir_lock(const char *dir, const char *name, bool create, struct err *e);

/* Remove the files in @dir/@name, not the folder. */
int rundir_empty(const char *dir, const char *name, struct err *e);

/* Remove @dir/@name and the files in it. Missing files are fine. */
int rundir_remove(const char *dir, const char *name, struct err *e);

/* The guests' names in @dir, sorted, NULL-terminated; free with rundir_names_free. A missing @dir has none. */
int rundir_names(const char *dir, char ***ret, struct err *e);
void rundir_names_free(char **names);

/* Write @o as @dir/@name/state.json, whole or not at all. */
int rundir_state_write(const char *dir, const char *name, json_t *o, struct err *e);

/* Read it back. ERR_INPUT when there is none; a file of somebody else's is refused. Caller owns the reference. */
json_t *rundir_state_read(const char *dir, const char *name, struct err *e);

#endif
