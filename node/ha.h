/* SPDX-License-Identifier: Apache-2.0 */
/* High availability at work: the leading daemon does what the plan of cluster/ha.h says. */
#ifndef GODWIT_NODE_HA_H
#define GODWIT_NODE_HA_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

struct daemon;

/* Loop thread, all of them. */
struct ha_manager;

struct ha_manager *ha_manager_new(struct daemon *d);
void ha_manager_free(struct ha_manager *m);

/* The state has changed: on the leading host, propose what the plan says. */
void ha_manager_look(struct ha_manager *m);

/* Once a second: what waits for a time, guests that go back home, whether the cluster bears what it shall:
 * ha.bears says so when that changes. */
void ha_manager_tick(struct ha_manager *m);

/* {"plan": ha_plan_json(), "bears": ha_bears_json(), "wish"} by what this host knows. New reference; NULL with @e. */
json_t *ha_manager_json(struct ha_manager *m, struct err *e);

/* {ha_bears_json(), "wish"}, at most seconds old. New reference; NULL when the state cannot be read. */
json_t *ha_manager_bears(struct ha_manager *m);

/* Numbers for those who watch, as old as that of ha_manager_bears(). */
struct ha_counts {
	unsigned bears, wish;
	unsigned room, turn; /* guests that wait for room, and for anything else */
};

/* False: the state cannot be read. */
bool ha_manager_counts(struct ha_manager *m, struct ha_counts *ret);

/* {guest: why it is not started again yet}, of those that wait. Reads all guests only if there can be any. New
 * reference.
 */
json_t *ha_manager_waiting(struct ha_manager *m);

/* May guest @vm, which does not run, be started on @node? -1 with ERR_CONFLICT where the cluster bears the loss of as
 * many hosts as it shall (ha.wish) and could not any more. The other is about a guest that is not created yet, by its
 * complete definition and HA mode (NULL: default). Both read all guests. */
int ha_manager_admit(struct ha_manager *m, const char *vm, const char *node, struct err *e);
int ha_manager_admit_new(struct ha_manager *m, json_t *definition, const char *node, const char *mode, struct err *e);

#endif
