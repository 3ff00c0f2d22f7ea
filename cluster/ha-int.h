/* SPDX-License-Identifier: Apache-2.0 */
/* Between the parts of HA: finding room for guests that have none. */
#ifndef GODWIT_CLUSTER_HA_INT_H
#define GODWIT_CLUSTER_HA_INT_H

#include "cluster/ha-pack.h"
#include "cluster/ha.h"

/* Everything that a search for room needs, made once for an input. */
struct ha_room;

struct ha_room *ha_room_new(const struct ha_input *in);
void ha_room_free(struct ha_room *r);

/* Bits of the nodes that are up. */
uint64_t ha_room_up(const struct ha_room *r);

/* If the nodes of @dead die too: does each guest to be restarted find a place on the others? Those whose owner is not
 * up any more always count. @ret_node (per guest; HA_NONE for those that need none) may be NULL. */
enum pack_answer ha_room_find(struct ha_room *r, uint64_t dead, uint64_t *work, size_t *ret_node);

/* Leave a guest out, or count it again, if it is one that needs a place. */
void ha_room_count(struct ha_room *r, size_t guest, bool counts);

/* Whether any @k hosts may die as far as a glance tells: yes, or unknown. */
bool ha_room_glance(const struct ha_room *r, unsigned k);

/* Bytes of the guests to be restarted if @node dies. */
uint64_t ha_room_demand(const struct ha_room *r, size_t node);

/* Index of a node by name; HA_NONE. */
size_t ha_node_find(const struct ha_input *in, const char *name);

/* Whether guests may be given to it now. */
bool ha_node_takes(const struct ha_node *n);

/* Bytes that are really free on it, less what guests will take that were given to it and have not begun to start. */
uint64_t ha_node_free(const struct ha_input *in, size_t node);

/* Whether it has its memory where it is. */
bool ha_guest_runs(const struct ha_guest *g);

#endif
