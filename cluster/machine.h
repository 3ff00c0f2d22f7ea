/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine that the log drives: what a command does to the tables. */
#ifndef GODWIT_CLUSTER_MACHINE_H
#define GODWIT_CLUSTER_MACHINE_H

#include <jansson.h>
#include <stdint.h>

#include "base/err.h"

struct sqlite3;

/*
 * Every member applies the same commands in the same order, so apply() may look at nothing but the tables and the
 * command: no clock, no random numbers, no file, no order of rows that a query does not ask for. All of it runs in the
 * writer thread of the store. The tables whose names begin with `replica_` are the store's own.
 */
struct machine {
	unsigned version; /* newest command version that this build can apply */

	/* Make or upgrade the tables; idempotent. */
	int (*schema)(struct sqlite3 *db, struct err *e);

	/* Apply the command at @index of the log. @ret_result: a new reference, a JSON object. -1 is a refusal: what it
	 * has changed is rolled back, and the refusal is as deterministic as a success and is remembered like one; but
	 * with ERR_SYSTEM it was the disk that failed, and the same command is applied again later. */
	int (*apply)(struct sqlite3 *db, uint64_t index, const json_t *command, json_t **ret_result, struct err *e);

	/* A SHA-256 of all replicated tables. */
	int (*digest)(struct sqlite3 *db, uint8_t out[32], struct err *e);

	/* How many hosts the cluster has by the tables (0: they cannot be read), and whether @command makes them more
	 * (1), fewer (-1) or neither (0). In the loop's thread, @db read-only. Both may be NULL: then no host of two
	 * ever goes on alone. */
	unsigned (*hosts)(struct sqlite3 *db);
	int (*hosts_change)(const json_t *command);
};

#endif
