/* SPDX-License-Identifier: Apache-2.0 */
/* The store's database: open and check, the steps of the log, snapshots in and out. */
#include "cluster/store-db.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/byteorder.h"
#include "base/log.h"
#include "base/mem.h"

#define FORMAT 1
#define FORMAT_ALONE                                                                                                   \
	2 /* the same, of a member that goes on alone: a release that does not know that must not open it */
#define BUSY_MS 10000
#define TRIM_EVERY 1024U

static const char tables[] =
	"CREATE TABLE IF NOT EXISTS replica_meta (one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL,"
	" history INTEGER NOT NULL, promised INTEGER NOT NULL, promised_to INTEGER NOT NULL, learner INTEGER NOT NULL,"
	" diverged INTEGER NOT NULL, applied INTEGER NOT NULL, applied_epoch INTEGER NOT NULL, chain BLOB NOT NULL);"
	"CREATE TABLE IF NOT EXISTS replica_log (idx INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, kind INTEGER NOT "
	"NULL,"
	" node INTEGER NOT NULL, seq INTEGER NOT NULL, version INTEGER NOT NULL, data BLOB NOT NULL);"
	"CREATE TABLE IF NOT EXISTS replica_done (idx INTEGER PRIMARY KEY, key BLOB NOT NULL, code INTEGER NOT NULL,"
	" answer TEXT NOT NULL);";

static const char *const sql_text[STORE_SQL_MAX] = {
	[STORE_SQL_BEGIN] = "BEGIN IMMEDIATE",
	[STORE_SQL_COMMIT] = "COMMIT",
	[STORE_SQL_SAVEPOINT] = "SAVEPOINT command",
	[STORE_SQL_RELEASE] = "RELEASE command",
	[STORE_SQL_UNDO] = "ROLLBACK TO command",
	[STORE_SQL_META] =
		("UPDATE replica_meta SET history = ?1, promised = ?2, promised_to = ?3, learner = ?4, diverged = ?5,"
		 " applied = ?6, applied_epoch = ?7, chain = ?8, format = ?9"),
	[STORE_SQL_LOG_ADD] = "INSERT INTO replica_log VALUES (?, ?, ?, ?, ?, ?, ?)",
	[STORE_SQL_LOG_CUT] = "DELETE FROM replica_log WHERE idx >= ?",
	[STORE_SQL_LOG_END] = "SELECT max(idx), (SELECT epoch FROM replica_log WHERE idx = ?1) FROM replica_log",
	[STORE_SQL_LOG_SIZE] = "SELECT total(length(data)) FROM replica_log WHERE idx < ?",
	[STORE_SQL_LOG_TRIM] = "DELETE FROM replica_log WHERE idx < ?",
	[STORE_SQL_DONE_ADD] = "INSERT INTO replica_done VALUES (?, ?, ?, ?)",
	[STORE_SQL_DONE_GET] = "SELECT code, answer FROM replica_done WHERE idx = ?",
	[STORE_SQL_DONE_TRIM] = "DELETE FROM replica_done WHERE idx <= ?",
};

/* ---- SQLite with fewer words ---- */

static int db_err(sqlite3 *db, const char *what, struct err *e)
{
	return err_set(e, ERR_SYSTEM, "%s: %s", what, sqlite3_errmsg(db));
}

static int script(sqlite3 *db, const char *text, struct err *e)
{
	return sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK ? 0 : db_err(db, "state database", e);
}

static void bind_n(sqlite3_stmt *q, int at, uint64_t n)
{
	sqlite3_bind_int64(q, at, (int64_t)n);
}

static uint64_t column_n(sqlite3_stmt *q, int at)
{
	return (uint64_t)sqlite3_column_int64(q, at);
}

/* Run a bound statement that answers no rows that matter. */
static int run(struct store_db *s, enum store_sql what, struct err *e)
{
	sqlite3_stmt *q = s->sql[what];
	int r = sqlite3_step(q);

	sqlite3_reset(q);
	return r == SQLITE_DONE || r == SQLITE_ROW ? 0 : db_err(s->db, "state database", e);
}

/* ---- the meta row ---- */

static int meta_load(sqlite3 *db, struct store_meta *m, int *ret_format, struct err *e)
{
	sqlite3_stmt *q = NULL;
	int r = -1;

	if (sqlite3_prepare_v2(
		    db,
		    "SELECT format, history, promised, promised_to, learner, diverged, applied, applied_epoch, chain"
		    " FROM replica_meta",
		    -1, &q, NULL) != SQLITE_OK)
		return db_err(db, "state database", e);
	if (sqlite3_step(q) == SQLITE_ROW && sqlite3_column_bytes(q, 8) == (int)sizeof(m->chain)) {
		*ret_format = sqlite3_column_int(q, 0);
		m->alone = *ret_format == FORMAT_ALONE;
		m->history = column_n(q, 1);
		m->promised = column_n(q, 2);
		m->promised_to = (uint32_t)column_n(q, 3);
		m->learner = column_n(q, 4);
		m->diverged = column_n(q, 5);
		m->applied = column_n(q, 6);
		m->applied_epoch = column_n(q, 7);
		memcpy(m->chain, sqlite3_column_blob(q, 8), sizeof(m->chain));
		r = 0;
	} else {
		err_set(e, ERR_INPUT, "the table replica_meta has no row");
	}
	sqlite3_finalize(q);
	return r;
}

static void meta_bind(sqlite3_stmt *q, const struct store_meta *m)
{
	bind_n(q, 1, m->history);
	bind_n(q, 2, m->promised);
	bind_n(q, 3, m->promised_to);
	bind_n(q, 4, m->learner);
	bind_n(q, 5, m->diverged);
	bind_n(q, 6, m->applied);
	bind_n(q, 7, m->applied_epoch);
	sqlite3_bind_blob(q, 8, m->chain, sizeof(m->chain), SQLITE_STATIC);
	sqlite3_bind_int(q, 9, m->alone ? FORMAT_ALONE : FORMAT);
}

static int meta_save(struct store_db *s, struct err *e)
{
	meta_bind(s->sql[STORE_SQL_META], &s->meta);
	return run(s, STORE_SQL_META, e);
}

/* ---- opening ---- */

/* What to do about a file that cannot be used. */
static int damaged(const char *path, const char *why, struct err *e)
{
	return err_set(e, ERR_INPUT,
		       "the state in %s is damaged (%s) and was left alone: move it and its -wal file away and start "
		       "again; this "
		       "host then fetches the state from the others, or, if it is the only one, restore a backup",
		       path, why);
}

/* SQLite's own check of the file. 1: damaged, told in @e. */
static int file_check(sqlite3 *db, const char *path, struct err *e)
{
	sqlite3_stmt *q = NULL;
	const char *text;
	int r = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &q, NULL);

	if (r == SQLITE_OK)
		r = sqlite3_step(q);
	text = r == SQLITE_ROW ? (const char *)sqlite3_column_text(q, 0) : NULL;
	if (text && !strcmp(text, "ok"))
		r = 0;
	else if (text || r == SQLITE_CORRUPT || r == SQLITE_NOTADB)
		r = damaged(path, text ? text : sqlite3_errmsg(db), e) + 2;
	else
		r = err_set(e, ERR_SYSTEM, "check the state in %s: %s", path, sqlite3_errmsg(db));
	sqlite3_finalize(q);
	return r;
}

static int connect_to(const char *path, int flags, sqlite3 **ret, struct err *e)
{
	sqlite3 *db = NULL;

	if (sqlite3_open_v2(path, &db, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
		err_set(e, ERR_SYSTEM, "open the state in %s: %s", path, db ? sqlite3_errmsg(db) : "out of memory");
		sqlite3_close(db);
		return -1;
	}
	sqlite3_busy_timeout(db, BUSY_MS);
	*ret = db;
	return 0;
}

static int tables_make(struct store_db *s, uint64_t history, struct err *e)
{
	static const uint8_t zero[32] = {0};
	sqlite3_stmt *q = NULL;
	int r;

	if (script(s->db, tables, e) < 0)
		return -1;
	if (sqlite3_prepare_v2(s->db, "INSERT OR IGNORE INTO replica_meta VALUES (1, ?, ?, 0, 0, ?, 0, 0, 0, ?)", -1,
			       &q, NULL) != SQLITE_OK)
		return db_err(s->db, "state database", e);
	sqlite3_bind_int(q, 1, FORMAT);
	bind_n(q, 2, history);
	bind_n(q, 3, history == 0); /* a host that knows nothing is a learner */
	sqlite3_bind_blob(q, 4, zero, sizeof(zero), SQLITE_STATIC);
	r = sqlite3_step(q);
	sqlite3_finalize(q);
	return r == SQLITE_DONE ? 0 : db_err(s->db, "state database", e);
}

static int format_check(int format, struct err *e)
{
	if (format == FORMAT || format == FORMAT_ALONE)
		return 0;
	return err_set(e, ERR_INPUT,
		       "the state has format %d and this program knows %d: install the release that wrote it", format,
		       FORMAT);
}

/* The ids of the newest commands, and the size of the log. */
static int memory_load(struct store_db *s, struct err *e)
{
	sqlite3_stmt *q = NULL;
	int r;

	done_clear(s->done);
	if (sqlite3_prepare_v2(s->db, "SELECT idx, key FROM replica_done ORDER BY idx", -1, &q, NULL) != SQLITE_OK)
		return db_err(s->db, "state database", e);
	while ((r = sqlite3_step(q)) == SQLITE_ROW)
		if (sqlite3_column_bytes(q, 1) == DONE_KEY_SIZE)
			done_add(s->done, column_n(q, 0), sqlite3_column_blob(q, 1));
	sqlite3_finalize(q);
	if (r != SQLITE_DONE)
		return db_err(s->db, "state database", e);
	bind_n(s->sql[STORE_SQL_LOG_SIZE], 1, INT64_MAX);
	if (sqlite3_step(s->sql[STORE_SQL_LOG_SIZE]) == SQLITE_ROW)
		s->log_bytes = column_n(s->sql[STORE_SQL_LOG_SIZE], 0);
	sqlite3_reset(s->sql[STORE_SQL_LOG_SIZE]);
	return 0;
}

/* Tables of this build, statements, what is kept in memory. */
static int setup(struct store_db *s, uint64_t history, struct err *e)
{
	int format = 0;

	if (script(s->db, "BEGIN IMMEDIATE", e) < 0 || tables_make(s, history, e) < 0 ||
	    meta_load(s->db, &s->meta, &format, e) < 0 || format_check(format, e) < 0 ||
	    s->machine->schema(s->db, e) < 0 || script(s->db, "COMMIT", e) < 0)
		return -1;
	for (int i = 0; i < STORE_SQL_MAX; i++)
		if (sqlite3_prepare_v3(s->db, sql_text[i], -1, SQLITE_PREPARE_PERSISTENT, &s->sql[i], NULL) !=
		    SQLITE_OK)
			return db_err(s->db, "state database", e);
	s->done = done_new();
	s->md = EVP_MD_CTX_new();
	if (!s->md || !EVP_DigestInit_ex(s->md, EVP_sha256(), NULL))
		abort();
	s->before = s->meta;
	s->trimmed = s->meta.applied;
	s->durable = true;
	return memory_load(s, e);
}

int store_db_open(struct store_db *s, const char *path, const struct machine *machine, uint64_t history, struct err *e)
{
	*s = (struct store_db){.machine = machine, .log_kept = STORE_LOG_KEPT};
	if (connect_to(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &s->db, e) < 0)
		return -1;
	if (file_check(s->db, path, e) != 0 ||
	    script(s->db,
		   "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864;"
		   "PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY",
		   e) < 0 ||
	    setup(s, history, e) < 0) {
		store_db_close(s);
		return -1;
	}
	return 0;
}

void store_db_close(struct store_db *s)
{
	for (int i = 0; i < STORE_SQL_MAX; i++)
		sqlite3_finalize(s->sql[i]);
	done_free(s->done);
	EVP_MD_CTX_free(s->md);
	sqlite3_close(s->db);
	*s = (struct store_db){0};
}

/* ---- the log ---- */

static struct entry *entry_of_row(sqlite3_stmt *q)
{
	int size = sqlite3_column_bytes(q, 6);
	uint64_t kind = column_n(q, 2);
	struct entry *e;

	if (kind >= ENTRY_KIND_MAX || size < 0 || (size_t)size > ENTRY_DATA_MAX)
		return NULL;
	e = entry_new((enum entry_kind)kind, sqlite3_column_blob(q, 6), (size_t)size);
	e->index = column_n(q, 0);
	e->epoch = column_n(q, 1);
	e->node = (uint32_t)column_n(q, 3);
	e->seq = column_n(q, 4);
	e->version = (uint32_t)column_n(q, 5);
	return e;
}

size_t store_db_read(sqlite3 *db, sqlite3_stmt **stmt, uint64_t index, size_t bytes, struct entry **ret, size_t max)
{
	size_t n = 0, got = 0;
	struct entry *e;

	if (!*stmt &&
	    sqlite3_prepare_v3(db,
			       "SELECT idx, epoch, kind, node, seq, version, data FROM replica_log WHERE idx >= ?"
			       " ORDER BY idx",
			       -1, SQLITE_PREPARE_PERSISTENT, stmt, NULL) != SQLITE_OK)
		return 0;
	bind_n(*stmt, 1, index);
	while (n < max && got < bytes && sqlite3_step(*stmt) == SQLITE_ROW) {
		e = entry_of_row(*stmt);
		if (!e || e->index != index + n) { /* a gap: the log does not go back that far */
			entry_unref(e);
			break;
		}
		got += e->size;
		ret[n++] = e;
	}
	sqlite3_reset(*stmt);
	return n;
}

int store_db_disk(struct store_db *s, struct core_disk *ret, struct err *e)
{
	sqlite3_stmt *q = NULL;
	size_t cap = 0, n;
	struct entry **tail = NULL;

	*ret = (struct core_disk){.promised = s->meta.promised,
				  .promised_to = s->meta.promised_to,
				  .history = s->meta.history,
				  .learner = s->meta.learner,
				  .diverged = s->meta.diverged,
				  .alone = s->meta.alone,
				  .applied = s->meta.applied,
				  .applied_epoch = s->meta.applied_epoch};
	memcpy(ret->chain, s->meta.chain, sizeof(ret->chain));
	do {
		cap += 1024;
		tail = realloc(tail, cap * sizeof(struct entry *));
		if (!tail)
			abort();
		n = store_db_read(s->db, &q, s->meta.applied + 1 + ret->n, SIZE_MAX, tail + ret->n, cap - ret->n);
		ret->n += n;
	} while (ret->n == cap);
	if (!q) {
		free(tail);
		return db_err(s->db, "state database", e);
	}
	sqlite3_finalize(q);
	ret->tail = tail;
	return 0;
}

static int log_add(struct store_db *s, const struct entry *en, struct err *e)
{
	sqlite3_stmt *q = s->sql[STORE_SQL_LOG_ADD];

	bind_n(q, 1, en->index);
	bind_n(q, 2, en->epoch);
	bind_n(q, 3, en->kind);
	bind_n(q, 4, en->node);
	bind_n(q, 5, en->seq);
	bind_n(q, 6, en->version);
	sqlite3_bind_blob(q, 7, en->data, (int)en->size, SQLITE_STATIC);
	s->log_bytes += en->size;
	return run(s, STORE_SQL_LOG_ADD, e);
}

static int log_trim_below(struct store_db *s, uint64_t index, struct err *e)
{
	sqlite3_stmt *q = s->sql[STORE_SQL_LOG_SIZE];
	uint64_t bytes = 0;

	bind_n(q, 1, index);
	if (sqlite3_step(q) == SQLITE_ROW)
		bytes = column_n(q, 0);
	sqlite3_reset(q);
	bind_n(s->sql[STORE_SQL_LOG_TRIM], 1, index);
	if (run(s, STORE_SQL_LOG_TRIM, e) < 0)
		return -1;
	s->log_bytes -= bytes < s->log_bytes ? bytes : s->log_bytes;
	return 0;
}

/* Now and then: forget what nobody needs any more. */
static int trim(struct store_db *s, struct err *e)
{
	uint64_t applied = s->meta.applied, kept = s->log_kept;

	if (applied < s->trimmed + TRIM_EVERY && s->log_bytes < 2ULL * STORE_LOG_BYTES)
		return 0;
	s->trimmed = applied;
	if (applied > CORE_DONE_KEPT) {
		bind_n(s->sql[STORE_SQL_DONE_TRIM], 1, applied - CORE_DONE_KEPT);
		if (run(s, STORE_SQL_DONE_TRIM, e) < 0)
			return -1;
	}
	do { /* half as many until they are small enough */
		if (applied > kept && log_trim_below(s, applied - kept, e) < 0)
			return -1;
		kept = (kept < applied ? kept : applied) / 2;
	} while (s->log_bytes > STORE_LOG_BYTES && kept > 0);
	return 0;
}

/* ---- applying ---- */

static int done_add_row(struct store_db *s, uint64_t index, const uint8_t *key, enum err_code code, const char *answer,
			struct err *e)
{
	sqlite3_stmt *q = s->sql[STORE_SQL_DONE_ADD];

	bind_n(q, 1, index);
	sqlite3_bind_blob(q, 2, key, DONE_KEY_SIZE, SQLITE_STATIC);
	bind_n(q, 3, code);
	sqlite3_bind_text(q, 4, answer, -1, SQLITE_STATIC);
	if (run(s, STORE_SQL_DONE_ADD, e) < 0)
		return -1;
	done_add(s->done, index, key);
	return 0;
}

/* The answer of the first time. */
static int done_repeat(struct store_db *s, uint64_t index, struct store_applied *a, char **ret_answer, struct err *e)
{
	sqlite3_stmt *q = s->sql[STORE_SQL_DONE_GET];
	int r = -1;

	bind_n(q, 1, index);
	if (sqlite3_step(q) == SQLITE_ROW) {
		*ret_answer = xstrdup((const char *)sqlite3_column_text(q, 1));
		a->repeated = true;
		if (column_n(q, 0) == ERR_NONE)
			a->result = json_loads(*ret_answer, 0, NULL);
		else
			err_set(&a->err, (enum err_code)column_n(q, 0), "%s", *ret_answer);
		r = 0;
	} else {
		db_err(s->db, "state database", e);
	}
	sqlite3_reset(q);
	return r;
}

/* Let the machine apply it, inside a savepoint. -1: the disk took nothing. */
static int machine_apply(struct store_db *s, uint64_t index, struct store_applied *a, struct err *e)
{
	if (!json_is_object(a->command)) {
		err_set(&a->err, ERR_INPUT, "a command must be a JSON object");
		return 0;
	}
	if (run(s, STORE_SQL_SAVEPOINT, e) < 0)
		return -1;
	if (s->machine->apply(s->db, index, a->command, &a->result, &a->err) < 0) {
		json_decref(a->result);
		a->result = NULL;
		if (a->err.code == ERR_SYSTEM) { /* not the command's fault: the attempt has failed */
			if (e)
				*e = a->err;
			return -1;
		}
		if (run(s, STORE_SQL_UNDO, e) < 0)
			return -1;
	}
	return run(s, STORE_SQL_RELEASE, e);
}

/* @ret_answer: the result as text, or the words of the refusal. Caller frees. */
static int command_apply(struct store_db *s, const struct entry *en, struct store_applied *a, char **ret_answer,
			 struct err *e)
{
	uint8_t key[DONE_KEY_SIZE];
	uint64_t first;

	a->command = json_loadb((const char *)en->data, en->size, 0, NULL);
	done_key(json_string_value(json_object_get(a->command, "id")), en->data, en->size, key);
	first = done_find(s->done, en->index, key);
	if (first)
		return done_repeat(s, first, a, ret_answer, e);
	if (machine_apply(s, en->index, a, e) < 0)
		return -1;
	*ret_answer = a->err.code == ERR_NONE ? json_dumps(a->result, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY)
					      : xstrdup(a->err.text);
	if (!*ret_answer)
		*ret_answer = xstrdup("{}"); /* a success without a result */
	return done_add_row(s, en->index, key, a->err.code, *ret_answer, e);
}

/* The chain over entries and answers. Of a refusal only its kind counts: its words may change with a release. */
static void chain_add(struct store_db *s, const struct entry *en, enum err_code code, const char *answer)
{
	struct store_meta *m = &s->meta;
	EVP_MD_CTX *md = s->md;
	uint8_t head[32];

	put_be64(head, en->epoch);
	put_be64(head + 8, en->index);
	put_be32(head + 16, (uint32_t)en->kind);
	put_be32(head + 20, (uint32_t)code);
	put_be64(head + 24, en->size);
	if (!EVP_DigestInit_ex(md, NULL, NULL) || !EVP_DigestUpdate(md, m->chain, sizeof(m->chain)) ||
	    !EVP_DigestUpdate(md, head, sizeof(head)) || !EVP_DigestUpdate(md, en->data, en->size) ||
	    (answer && code == ERR_NONE && !EVP_DigestUpdate(md, answer, strlen(answer))) ||
	    !EVP_DigestFinal_ex(md, m->chain, NULL))
		abort();
}

static int entry_apply(struct store_db *s, struct entry *en, struct store_outcome *o, struct err *e)
{
	_free_ char *answer = NULL;

	o->applied.entry = entry_ref(en);
	if (en->kind == ENTRY_COMMAND && command_apply(s, en, &o->applied, &answer, e) < 0)
		return -1;
	chain_add(s, en, o->applied.err.code, answer);
	s->meta.applied = en->index;
	s->meta.applied_epoch = en->epoch;
	if (en->kind == ENTRY_CHECK && s->machine->digest(s->db, o->state, e) < 0)
		return -1;
	o->checked = en->kind != ENTRY_COMMAND;
	memcpy(o->applied.chain, s->meta.chain, sizeof(o->applied.chain));
	return 0;
}

void store_outcome_done(struct store_outcome *o)
{
	entry_unref(o->applied.entry);
	json_decref(o->applied.command);
	json_decref(o->applied.result);
	*o = (struct store_outcome){0};
}

/* ---- transactions ---- */

int store_db_begin(struct store_db *s, bool durable, struct err *e)
{
	s->before = s->meta;
	if (durable != s->durable &&
	    script(s->db, durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", e) < 0)
		return -1;
	s->durable = durable;
	return run(s, STORE_SQL_BEGIN, e);
}

int store_db_commit(struct store_db *s, struct err *e)
{
	return trim(s, e) < 0 || meta_save(s, e) < 0 || run(s, STORE_SQL_COMMIT, e) < 0 ? -1 : 0;
}

void store_db_rollback(struct store_db *s)
{
	if (!sqlite3_get_autocommit(s->db))
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	s->meta = s->before;
	memory_load(s, NULL);
}

int store_db_write(struct store_db *s, const struct core_write *w, struct store_outcome *ret, struct err *e)
{
	if (w->meta) {
		s->meta.promised = w->promised;
		s->meta.promised_to = w->promised_to;
		s->meta.history = w->history;
		s->meta.learner = w->learner;
		s->meta.diverged = w->diverged;
		s->meta.alone = w->alone;
	}
	if (w->cut_from) {
		bind_n(s->sql[STORE_SQL_LOG_CUT], 1, w->cut_from);
		if (run(s, STORE_SQL_LOG_CUT, e) < 0)
			return -1;
	}
	for (size_t i = 0; i < w->n_append; i++)
		if (log_add(s, w->append[i], e) < 0)
			return -1;
	for (size_t i = 0; i < w->n_apply; i++)
		if (entry_apply(s, w->apply[i], &ret[i], e) < 0)
			return -1;
	return 0;
}

/* ---- snapshots ---- */

int store_db_snapshot(const char *path, const char *to, uint64_t *ret_index, struct err *e)
{
	struct store_meta m;
	sqlite3 *db = NULL;
	_free_ char *text = NULL;
	char *quoted = sqlite3_mprintf("VACUUM INTO %Q", to);
	int format, r;

	text = xstrdup(quoted ? quoted : "");
	sqlite3_free(quoted);
	unlink(to);
	if (connect_to(path, SQLITE_OPEN_READWRITE, &db, e) < 0)
		return -1;
	r = script(db, text, e);
	sqlite3_close(db);
	if (r < 0 || connect_to(to, SQLITE_OPEN_READONLY, &db, e) < 0)
		return -1;
	r = meta_load(db, &m, &format, e);
	sqlite3_close(db);
	if (r == 0)
		*ret_index = m.applied;
	return r;
}

static bool is_rotten(sqlite3 *db)
{
	return (sqlite3_extended_errcode(db) & 0xff) == SQLITE_CORRUPT;
}

/* Our log behind entry @last is that of @db as well. */
static int log_tail_copy(struct store_db *s, sqlite3 *db, uint64_t last, struct err *e)
{
	char *text = sqlite3_mprintf("ATTACH %Q AS own; INSERT INTO main.replica_log SELECT * FROM own.replica_log"
				     " WHERE idx > %lld; DETACH own",
				     sqlite3_db_filename(s->db, "main"), (long long)last);
	int r = text ? script(db, text, e) : err_set(e, ERR_SYSTEM, "take over a snapshot: out of memory");

	sqlite3_free(text);
	return r;
}

/* What our log holds behind the last entry of the snapshot in @db stays if it holds that entry, too (Ongaro,
 * "Consensus: Bridging Theory and Practice", figure 5.3, step 6). If it has another one in its place, nothing behind
 * that was ever committed. @ret_lost: something may be committed and is lost: the log begins later, its state is wrong,
 * or its file is rotten. */
static int log_keep(struct store_db *s, sqlite3 *db, const struct store_meta *snapshot, bool *ret_lost, struct err *e)
{
	sqlite3_stmt *q = s->sql[STORE_SQL_LOG_END];
	uint64_t end, epoch;
	bool goes_on;
	int r = 0;

	bind_n(q, 1, snapshot->applied);
	if (sqlite3_step(q) != SQLITE_ROW)
		r = db_err(s->db, "state database", e);
	end = column_n(q, 0) > s->meta.applied ? column_n(q, 0) : s->meta.applied;
	epoch = column_n(q, 1);
	sqlite3_reset(q);
	goes_on = end > snapshot->applied;
	*ret_lost = s->meta.diverged || (goes_on && !epoch);
	if (r == 0 && goes_on && !s->meta.diverged && epoch == snapshot->applied_epoch)
		r = log_tail_copy(s, db, snapshot->applied, e);
	if (r == 0 || (!is_rotten(s->db) && !is_rotten(db)))
		return r;
	log_warning("event=log-rotten file=%s reason=\"%s\"", sqlite3_db_filename(s->db, "main"), e ? e->text : "");
	*ret_lost = true;
	return 0;
}

/* Make the state in @db ours, with our promise. Who loses entries that may be committed is a learner. */
static int adopt(struct store_db *s, sqlite3 *db, struct err *e)
{
	struct store_meta m;
	sqlite3_stmt *q = NULL;
	_free_ char *cut = NULL;
	int format = 0, r;
	bool lost;

	if (meta_load(db, &m, &format, e) < 0 || format_check(format, e) < 0)
		return 1;
	cut = xasprintf("PRAGMA synchronous = OFF; DELETE FROM replica_log WHERE idx > %lld", (long long)m.applied);
	if (script(db, cut, e) < 0 || log_keep(s, db, &m, &lost, e) < 0 || script(db, "BEGIN", e) < 0 ||
	    s->machine->schema(db, e) < 0)
		return -1;
	m.promised = s->meta.promised;
	m.promised_to = s->meta.promised_to;
	m.learner = s->meta.learner || lost;
	m.diverged = false;
	m.alone = false;
	if (sqlite3_prepare_v2(db, sql_text[STORE_SQL_META], -1, &q, NULL) != SQLITE_OK)
		return db_err(db, "snapshot", e);
	meta_bind(q, &m);
	r = sqlite3_step(q);
	sqlite3_finalize(q);
	return r == SQLITE_DONE ? script(db, "COMMIT", e) : db_err(db, "snapshot", e);
}

/* One transaction puts all pages of @from in the place of ours. */
static int copy_over(struct store_db *s, sqlite3 *from, struct err *e)
{
	sqlite3_backup *b = sqlite3_backup_init(s->db, "main", from, "main");
	int r;

	if (!b)
		return db_err(s->db, "take over a snapshot", e);
	r = sqlite3_backup_step(b, -1);
	if (sqlite3_backup_finish(b) != SQLITE_OK || r != SQLITE_DONE)
		return db_err(s->db, "take over a snapshot", e);
	(void)script(s->db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL); /* only to have a small file again */
	return 0;
}

int store_db_install(struct store_db *s, const char *from, struct err *e)
{
	sqlite3 *db = NULL;
	int r, format;

	if (connect_to(from, SQLITE_OPEN_READWRITE, &db, e) < 0 || script(s->db, "PRAGMA synchronous = FULL", e) < 0)
		return -1;
	s->durable = true;
	r = file_check(db, from, e);
	if (r == 0)
		r = adopt(s, db, e);
	if (r == 0)
		r = copy_over(s, db, e);
	sqlite3_close(db);
	if (r == 0 && (meta_load(s->db, &s->meta, &format, e) < 0 || memory_load(s, e) < 0))
		r = -1;
	s->before = s->meta;
	s->trimmed = s->meta.applied;
	return r;
}
