/* SPDX-License-Identifier: Apache-2.0 */
/* The store's database: its tables, and what a step does to them. Used by the writer thread only. */
#ifndef GODWIT_CLUSTER_STORE_DB_H
#define GODWIT_CLUSTER_STORE_DB_H

#include <openssl/evp.h>
#include <sqlite3.h>

#include "cluster/done.h"
#include "cluster/store.h"

enum store_sql {
	STORE_SQL_BEGIN,
	STORE_SQL_COMMIT,
	STORE_SQL_SAVEPOINT,
	STORE_SQL_RELEASE,
	STORE_SQL_UNDO,
	STORE_SQL_META,
	STORE_SQL_LOG_ADD,
	STORE_SQL_LOG_CUT,
	STORE_SQL_LOG_END,
	STORE_SQL_LOG_SIZE,
	STORE_SQL_LOG_TRIM,
	STORE_SQL_DONE_ADD,
	STORE_SQL_DONE_GET,
	STORE_SQL_DONE_TRIM,
	STORE_SQL_MAX
};

/* The row of replica_meta. */
struct store_meta {
	uint64_t history, promised;
	uint32_t promised_to;
	bool learner, diverged;
	bool alone; /* in the file: format FORMAT_ALONE */
	uint64_t applied, applied_epoch;
	uint8_t chain[32];
};

struct store_db {
	sqlite3 *db;
	const struct machine *machine;
	sqlite3_stmt *sql[STORE_SQL_MAX];
	struct store_meta meta, before; /* before: as it is on the disk while a transaction is open */
	bool durable;                   /* as the connection is set now */
	struct done *done;
	EVP_MD_CTX *md;                        /* ready for SHA-256 */
	uint64_t log_kept, log_bytes, trimmed; /* trimmed: applied entry at the last trimming */
};

/* What applying an entry gave. */
struct store_outcome {
	struct store_applied applied;
	bool checked; /* an entry at which members compare: applied.chain, and state at those of kind CHECK */
	uint8_t state[32];
};

/* Open @path for writing and check it. With a @history it is created as the first of a cluster if it is not there. */
int store_db_open(struct store_db *s, const char *path, const struct machine *machine, uint64_t history, struct err *e);
void store_db_close(struct store_db *s);

/* What the core starts from. ret->tail: an array that the caller frees. */
int store_db_disk(struct store_db *s, struct core_disk *ret, struct err *e);

/* @durable: what the transaction writes must be on the disk when it is committed. Without it a loss of power may take
 * the newest transactions back, in order, up to the last durable one. */
int store_db_begin(struct store_db *s, bool durable, struct err *e);
int store_db_commit(struct store_db *s, struct err *e);
void store_db_rollback(struct store_db *s);

/* One step inside a transaction. @ret has room for w->n_apply outcomes; those filled are the caller's even on -1, which
 * says that the disk took nothing. */
int store_db_write(struct store_db *s, const struct core_write *w, struct store_outcome *ret, struct err *e);
void store_outcome_done(struct store_outcome *o);

/* Take over the snapshot in file @from. 1: it was no good (@e says why), -1: the disk took nothing. */
int store_db_install(struct store_db *s, const char *from, struct err *e);

/* Write a snapshot of the database at @path to @to. Any thread. */
int store_db_snapshot(const char *path, const char *to, uint64_t *ret_index, struct err *e);

/* Read entries through @stmt, which belongs to the caller's connection and is made at the first call. */
size_t store_db_read(sqlite3 *db, sqlite3_stmt **stmt, uint64_t index, size_t bytes, struct entry **ret, size_t max);

#endif
