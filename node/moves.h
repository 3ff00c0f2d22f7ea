/* SPDX-License-Identifier: Apache-2.0 */
/* Migrations as this host sees them: its part as source, as destination, and as manager. */
#ifndef GODWIT_NODE_MOVES_H
#define GODWIT_NODE_MOVES_H

#include <stdbool.h>

#include "base/err.h"

struct daemon;
struct moves;

/* Finds the moves of an earlier daemon again. Loop thread. -1 with @e. Caller frees; moves go on. */
int moves_new(struct daemon *d, struct moves **ret, struct err *e);
void moves_free(struct moves *m);

/* Whether the guest of this migration (its id) is in its hands on this host, by the state: not the agent's business. */
bool moves_holds(const struct moves *m, const char *migration);

/* The state has changed: do the next step of every migration that is ours to do. */
void moves_look(struct moves *m);

/* Once a second: time-outs, the queue. */
void moves_tick(struct moves *m);

#endif
