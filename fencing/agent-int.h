/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of fencing/agent share. */
#ifndef GODWIT_FENCING_AGENT_INT_H
#define GODWIT_FENCING_AGENT_INT_H

#include "base/child.h"

/* Kill the agent @c, leader of its session and not reaped yet, and all processes below it. */
void agent_family_kill(const struct child *c);

#endif
