/* SPDX-License-Identifier: Apache-2.0 */
/* A fence device in its three forms: a row of the state, what fencing/power.h works with, what people are shown.
 * It also keeps fencing/agent.h away from node/agent.h, which is about another kind of agent. */
#ifndef GODWIT_NODE_FENCE_DEVICE_H
#define GODWIT_NODE_FENCE_DEVICE_H

#include <jansson.h>

#include "base/err.h"
#include "base/loop.h"

#define FENCE_METADATA_MS 10000 /* an agent has so long to describe itself */

/* ---- forms (pure) ---- */

/* The normal form of fencing/power.h out of a row of state_fence_device_get() with secrets. New reference. */
json_t *fence_device_of_row(const json_t *row);

/* The arguments of the command fence.device, out of the normal form. They hold the secrets. New reference. */
json_t *fence_device_args(const json_t *device);

/* A row of the state (with secrets or without) as it is shown: secrets are AGENT_MASK. New reference. */
json_t *fence_device_shown(const json_t *row);

/* @given, in which options that are AGENT_MASK get the value that @row (with secrets) has. New reference. */
json_t *fence_device_unmask(const json_t *given, const json_t *row);

/* ---- judging (*loop*) ---- */

struct fence_check;

/* @device: the normal form, borrowed; or NULL, and @e has a sentence that begins with "fence device NAME". Exactly
 * once, from the loop. Afterwards the check is no more. */
typedef void fence_check_fn(void *arg, const json_t *device, const struct err *e);

/* Judge @given (as for power_device_check(), kept by reference) by what its agent says about itself; @dirs as for
 * agent_path(). NULL with @e: the agent cannot be asked; @fn is not called then. Owned by itself. */
struct fence_check *fence_check_start(struct loop *loop, const char *dirs, json_t *given, fence_check_fn *fn, void *arg,
				      struct err *e);

#endif
