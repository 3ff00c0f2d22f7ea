/* SPDX-License-Identifier: Apache-2.0 */
/* Whether addresses accept connections: what guests that start after others may wait for. */
#ifndef GODWIT_NODE_PORTS_H
#define GODWIT_NODE_PORTS_H

#include <stdbool.h>

#include "base/loop.h"

/* Loop thread, all of them; nothing waits. */
struct ports;

struct ports *ports_new(struct loop *loop);
void ports_free(struct ports *all);

/* Has @address ("10.0.0.5:80", "[fd00::5]:80", "db.example:80") accepted a connection at the last try? The first
 * question begins to try, every second for as long as somebody asks; false until an answer is there. */
bool ports_answers(struct ports *all, const char *address);

#endif
