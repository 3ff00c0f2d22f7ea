/* SPDX-License-Identifier: Apache-2.0 */
/* The store: this host's copy of the log and of the state, in one SQLite database with a writer thread. */
#ifndef GODWIT_CLUSTER_STORE_H
#define GODWIT_CLUSTER_STORE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/core.h"
#include "cluster/machine.h"

/*
 * Theory of operation
 *
 * One file. The log, the promise, the state and the results of the newest commands are tables of one database, so a
 * transaction takes all of them from one step to the next: there is no order of files to get wrong in a crash. WAL; a
 * transaction that takes entries, a promise or a cut is synced (synchronous=FULL) before anything is told about it, if
 * the disk does what fsync asks. One that only applies is not: its entries are on the disk, so that a loss of power
 * that takes it back costs nothing but applying them again.
 *
 *   replica_meta  one row: format, history, promise, learner, diverged, applied entry, chain, trimmed log
 *   replica_log   the entries, applied ones too, as far back as members that were away may need them
 *   replica_done  for each command applied among the last CORE_DONE_KEPT entries: its key and what it answered
 *   others        the machine's
 *
 * Threads. The caller's thread (the loop) hands over steps and gets completions out of store_dispatch() when store_fd()
 * is readable. The writer thread owns the connection that writes; it takes all steps that wait and makes one
 * transaction of them, so the slower the disk, the larger the batches. A snapshot is written by a thread of its own
 * from a read transaction. The loop reads through its own connection, which sees committed transactions only.
 *
 * A disk that takes nothing (full, broken): the transaction is rolled back, the caller is told once for each attempt,
 * and the same steps are tried again every STORE_RETRY until they succeed. What a command does may fail for that reason
 * as well; the machine says so with ERR_SYSTEM, and then the attempt has failed, not the command.
 *
 * A snapshot is the database itself as of one transaction (VACUUM INTO). The other end puts its own promise into it,
 * and what its log holds behind it ("Catching up" in cluster/core.h), and lets SQLite copy it over its database in one
 * transaction: a crash leaves the old or the new state, whole.
 *
 * A damaged file is found when it is opened (SQLite's quick_check) and refused. It is never repaired from itself: the
 * others have the state.
 */

#define STORE_RETRY (200 * NS_PER_MS)
#define STORE_LOG_KEPT 32768U      /* applied entries kept for members that were away ... */
#define STORE_LOG_BYTES (8U << 20) /* ... unless they are larger than this together; twice that starts the trimming */

/* An entry that was applied. */
struct store_applied {
	struct entry *entry;
	json_t *command; /* NULL: none, or no JSON */
	json_t *result;  /* of a success; NULL otherwise */
	struct err err;  /* of a refusal; code ERR_NONE otherwise */
	bool repeated;   /* it had been applied before: result and err are those of that time */
	uint8_t chain[32];
};

/* Called out of store_dispatch(), in the order of the steps. */
struct store_handlers {
	void (*applied)(void *arg, const struct store_applied *a); /* all borrowed */
	void (*written)(void *arg, uint64_t serial);
	void (*failed)(void *arg, const struct err *e);
	void (*checked)(void *arg, uint64_t index, const uint8_t chain[32], const uint8_t state[32]);
	void (*snapshot_made)(void *arg, bool ok, uint64_t size, uint64_t index);
	void (*fetch_written)(void *arg, uint64_t upto);
	/* As core_fetch_installed(); disk->tail is freed by the store. */
	void (*fetch_installed)(void *arg, const struct core_disk *disk);
};

struct store_options {
	const char *path;
	const struct machine *machine;
	uint64_t history;                      /* not 0: a new database is the first of a new cluster of this name */
	uint64_t log_kept;                     /* 0: STORE_LOG_KEPT */
	const struct store_handlers *handlers; /* borrowed */
	void *arg;
};

struct store;

/* Open or create, check, and tell what is there: caller frees ret_disk->tail, the array; core_new() takes the entries.
 * -1 with @e, a sentence that says what to do, when the file is damaged, foreign, newer than this program, or in use.
 */
int store_open(const struct store_options *o, struct store **ret, struct core_disk *ret_disk, struct err *e);

/* Finishes what waits, unless the disk takes nothing. NULL is fine. */
void store_close(struct store *s);

int store_fd(const struct store *s); /* readable: call store_dispatch() */
void store_dispatch(struct store *s);

/* Read-only, of the caller's thread, as of the newest transaction. */
struct sqlite3 *store_db(struct store *s);

/* The operations of struct core_io. */
void store_write(struct store *s, const struct core_write *w);
size_t store_read(struct store *s, uint64_t index, size_t bytes, struct entry **ret, size_t max);
void store_snapshot_make(struct store *s);
size_t store_snapshot_read(struct store *s, uint64_t offset, void *buf, size_t size);
void store_snapshot_drop(struct store *s);
void store_fetch_begin(struct store *s, uint64_t size);
void store_fetch_data(struct store *s, uint64_t offset, const void *data, size_t size);
void store_fetch_install(struct store *s);
void store_fetch_drop(struct store *s);

#endif
