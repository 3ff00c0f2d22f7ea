/* SPDX-License-Identifier: Apache-2.0 */
/* A small state machine for tests: a table of keys and values, and commands that fail in every way. */
#ifndef GODWIT_TESTS_UNIT_CLUSTER_KV_MACHINE_H
#define GODWIT_TESTS_UNIT_CLUSTER_KV_MACHINE_H

#include "cluster/machine.h"

/* {"id": ..., "key": K, "value": V} sets K and answers {"index": N, "old": V}, at most 16 bytes of what K was
 * before; with "refuse" it then refuses. */
extern const struct machine kv_machine;

/* As if the disk failed in the middle of the next so many commands. */
extern int kv_disk_failures;

/* The value of @key, "" when it is not set. Caller frees. */
char *kv_get(struct sqlite3 *db, const char *key);
int64_t kv_count(struct sqlite3 *db);

#endif
