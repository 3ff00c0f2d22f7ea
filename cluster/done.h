/* SPDX-License-Identifier: Apache-2.0 */
/* The ids of the newest commands: has a command been applied before, and at which entry? */
#ifndef GODWIT_CLUSTER_DONE_H
#define GODWIT_CLUSTER_DONE_H

#include <stdint.h>

#define DONE_KEY_SIZE 16

/* A table in memory of the commands among the last CORE_DONE_KEPT entries (cluster/core.h). One thread at a time. */
struct done;

struct done *done_new(void);
void done_free(struct done *d); /* NULL is fine */
void done_clear(struct done *d);

/* The key of a command: of its member `id`, or of all its bytes when it has none. */
void done_key(const char *id, const void *data, uint64_t size, uint8_t ret_key[DONE_KEY_SIZE]);

/* The command applied at entry @index; indexes only grow. */
void done_add(struct done *d, uint64_t index, const uint8_t key[DONE_KEY_SIZE]);

/* Where it was applied, if that is less than CORE_DONE_KEPT entries before @now; otherwise 0. */
uint64_t done_find(const struct done *d, uint64_t now, const uint8_t key[DONE_KEY_SIZE]);

#endif
