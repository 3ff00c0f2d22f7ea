/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of the replicated state, how they grew from version to version, and the digest over them. */
#include <openssl/evp.h>
#include <string.h>

#include "base/byteorder.h"
#include "base/mem.h"
#include "cluster/state-int.h"

/* Version n is what steps[0] to steps[n - 1] make. A step that was ever released is never changed: a new one is added.
 *
 * Times are milliseconds since 1970 by the clock of whoever proposed the command; memory is in bytes.
 *
 * - node: report is what its agent said last, JSON; memory the total in it, 0 before the first report
 * - vm: intent is what should be; owner and epoch are who may run it, the epoch grows by one at each change of owner
 * - vm: stop_s is how long it has to power itself off when it is to stop; NULL: as long as its node gives
 * - observed: what the owner's agent saw; no row: nothing since the owner changed
 * - vm_disk: files that guests open (uefi-vars too), so that no two write the same (promise S2)
 * - migration: number is the order of arrival; cancel, somebody asked for it; restart, it failed and what is left of
 * the guest's memory must not be used; finished is NULL while it goes on
 * - event: every applied command, oldest first: id of the request; data, the answer; chain, see cluster/state-recent.h;
 *   level, enum event_level
 */
static const char *const steps[] = {
	"CREATE TABLE node (name TEXT PRIMARY KEY, id INTEGER NOT NULL UNIQUE, fingerprint TEXT NOT NULL UNIQUE,"
	" joined INTEGER NOT NULL, memory INTEGER NOT NULL DEFAULT 0, report TEXT, reported INTEGER)"
	" STRICT, WITHOUT ROWID;"
	"CREATE TABLE node_address (address TEXT PRIMARY KEY, node TEXT NOT NULL, place INTEGER NOT NULL)"
	" STRICT, WITHOUT ROWID;"
	"CREATE INDEX node_address_node ON node_address (node, place);"

	"CREATE TABLE network (name TEXT PRIMARY KEY, bridge TEXT NOT NULL, vlan INTEGER NOT NULL, uplink TEXT,"
	" mtu INTEGER, created INTEGER NOT NULL) STRICT, WITHOUT ROWID;"

	"CREATE TABLE vm (name TEXT PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, version INTEGER NOT NULL,"
	" definition TEXT NOT NULL, memory INTEGER NOT NULL, vcpus INTEGER NOT NULL, intent TEXT NOT NULL,"
	" stop_s INTEGER, owner TEXT NOT NULL, epoch INTEGER NOT NULL, created INTEGER NOT NULL,"
	" changed INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE INDEX vm_owner ON vm (owner);"
	"CREATE TABLE vm_version (vm TEXT NOT NULL, version INTEGER NOT NULL, definition TEXT NOT NULL,"
	" time INTEGER NOT NULL, by TEXT NOT NULL, PRIMARY KEY (vm, version)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE vm_disk (file TEXT NOT NULL, vm TEXT NOT NULL, writable INTEGER NOT NULL, PRIMARY KEY (file, vm))"
	" STRICT, WITHOUT ROWID;"
	"CREATE INDEX vm_disk_vm ON vm_disk (vm);"
	"CREATE TABLE vm_nic (vm TEXT NOT NULL, place INTEGER NOT NULL, network TEXT, bridge TEXT, mac TEXT,"
	" PRIMARY KEY (vm, place)) STRICT, WITHOUT ROWID;"
	"CREATE INDEX vm_nic_mac ON vm_nic (mac);"
	"CREATE TABLE observed (vm TEXT PRIMARY KEY, node TEXT NOT NULL, epoch INTEGER NOT NULL, status TEXT NOT NULL,"
	" since INTEGER NOT NULL, time INTEGER NOT NULL, pid INTEGER, note TEXT, detail TEXT) STRICT, WITHOUT ROWID;"

	"CREATE TABLE migration (id TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, vm TEXT NOT NULL,"
	" src TEXT NOT NULL, dst TEXT NOT NULL, step TEXT NOT NULL, epoch INTEGER NOT NULL, options TEXT NOT NULL,"
	" cancel INTEGER NOT NULL, restart INTEGER NOT NULL, note TEXT, error TEXT, detail TEXT, by TEXT NOT NULL, "
	"created INTEGER NOT NULL,"
	" changed INTEGER NOT NULL, finished INTEGER) STRICT, WITHOUT ROWID;"
	"CREATE INDEX migration_vm ON migration (vm) WHERE finished IS NULL;"
	"CREATE INDEX migration_ended ON migration (number) WHERE finished IS NOT NULL;"

	"CREATE TABLE task (id TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, kind TEXT NOT NULL, object TEXT,"
	" node TEXT, state TEXT NOT NULL, progress REAL NOT NULL, eta_ms INTEGER, note TEXT, error TEXT, result TEXT,"
	" by TEXT NOT NULL, created INTEGER NOT NULL, changed INTEGER NOT NULL, finished INTEGER)"
	" STRICT, WITHOUT ROWID;"
	"CREATE INDEX task_ended ON task (number) WHERE finished IS NOT NULL;"

	"CREATE TABLE user (name TEXT PRIMARY KEY, role TEXT NOT NULL, token_hash TEXT UNIQUE, created INTEGER NOT "
	"NULL,"
	" by TEXT NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE token (hash TEXT PRIMARY KEY, created INTEGER NOT NULL, expires INTEGER NOT NULL,"
	" by TEXT NOT NULL, used INTEGER, used_by TEXT) STRICT, WITHOUT ROWID;"
	"CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL,"
	" changed INTEGER NOT NULL, by TEXT NOT NULL) STRICT, WITHOUT ROWID;"

	"CREATE TABLE event (seq INTEGER PRIMARY KEY, level INTEGER NOT NULL, id BLOB, chain INTEGER NOT NULL,"
	" time INTEGER NOT NULL, by TEXT NOT NULL, origin TEXT NOT NULL, op TEXT NOT NULL, object TEXT NOT NULL,"
	" data TEXT NOT NULL) STRICT;",
};

/* The tables of the newest version, each with the query that the digest reads it by. A test compares this list with
 * what the steps make. */
static const struct {
	const char *name;
	const char *rows;
} tables[] = {
	{"event", "SELECT * FROM event ORDER BY seq"},
	{"migration", "SELECT * FROM migration ORDER BY id"},
	{"network", "SELECT * FROM network ORDER BY name"},
	{"node", "SELECT * FROM node ORDER BY name"},
	{"node_address", "SELECT * FROM node_address ORDER BY address"},
	{"observed", "SELECT * FROM observed ORDER BY vm"},
	{"setting", "SELECT * FROM setting ORDER BY key"},
	{"task", "SELECT * FROM task ORDER BY id"},
	{"token", "SELECT * FROM token ORDER BY hash"},
	{"user", "SELECT * FROM user ORDER BY name"},
	{"vm", "SELECT * FROM vm ORDER BY name"},
	{"vm_disk", "SELECT * FROM vm_disk ORDER BY file, vm"},
	{"vm_nic", "SELECT * FROM vm_nic ORDER BY vm, place"},
	{"vm_version", "SELECT * FROM vm_version ORDER BY vm, version"},
};

static int schema_steps(sqlite3 *db, struct err *e)
{
	int64_t have = 0;

	if (sql_script(db, "CREATE TABLE IF NOT EXISTS state_schema (version INTEGER NOT NULL) STRICT", e) < 0 ||
	    sql_number(db, e, &have, "SELECT max(version) FROM state_schema") < 0)
		return -1;
	if (have > (int64_t)ARRAY_SIZE(steps))
		return err_set(
			e, ERR_UNSUPPORTED,
			"the state has schema version %lld, this godwitd knows up to %zu; start the newer godwitd",
			(long long)have, ARRAY_SIZE(steps));
	for (; have < (int64_t)ARRAY_SIZE(steps); have++)
		if (sql_script(db, steps[have], e) < 0 ||
		    sql_run(db, e, "INSERT INTO state_schema (version) VALUES (?)", sql_int(have + 1)) < 0)
			return -1;
	return 0;
}

int state_schema(sqlite3 *db, struct err *e)
{
	if (sql_script(db, "SAVEPOINT state_schema", e) < 0)
		return -1;
	if (schema_steps(db, e) < 0) {
		sql_script(db, "ROLLBACK TO state_schema; RELEASE state_schema", NULL);
		return err_wrap(e, "make the tables of the state");
	}
	return sql_script(db, "RELEASE state_schema", e);
}

/* ---- digest ---- */

static void digest_bytes(EVP_MD_CTX *md, char mark, const void *data, size_t size)
{
	uint8_t head[9] = {(uint8_t)mark};

	put_be64(head + 1, size);
	EVP_DigestUpdate(md, head, sizeof(head));
	EVP_DigestUpdate(md, data, size);
}

static void digest_column(EVP_MD_CTX *md, sqlite3_stmt *s, int i)
{
	const void *data;
	uint8_t eight[8];
	double real;

	switch (sqlite3_column_type(s, i)) {
	case SQLITE_INTEGER:
		put_be64(eight, (uint64_t)sqlite3_column_int64(s, i));
		digest_bytes(md, 'i', eight, 8);
		break;
	case SQLITE_FLOAT:
		real = sqlite3_column_double(s, i);
		memcpy(eight, &real, 8);
		digest_bytes(md, 'r', eight, 8);
		break;
	case SQLITE_NULL:
		digest_bytes(md, 'n', "", 0);
		break;
	default: /* text and blobs; the pointer first, then its size, as SQLite wants it */
		data = sqlite3_column_blob(s, i);
		digest_bytes(md, 't', data, (size_t)sqlite3_column_bytes(s, i));
		break;
	}
}

static int digest_table(sqlite3 *db, EVP_MD_CTX *md, const char *name, const char *rows, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin_n(db, e, rows, NULL, 0);
	int r = -1;

	digest_bytes(md, 'T', name, strlen(name));
	while (s && (r = sql_next(s, e)) > 0) {
		digest_bytes(md, 'R', "", 0);
		for (int i = 0; i < sqlite3_column_count(s); i++)
			digest_column(md, s, i);
	}
	return r;
}

int state_digest(sqlite3 *db, uint8_t out[32], struct err *e)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	int r = 0;

	if (!md || !EVP_DigestInit_ex(md, EVP_sha256(), NULL)) {
		EVP_MD_CTX_free(md);
		return err_set(e, ERR_SYSTEM, "digest of the state: SHA-256 is not available");
	}
	for (size_t i = 0; i < ARRAY_SIZE(tables) && r == 0; i++)
		r = digest_table(db, md, tables[i].name, tables[i].rows, e);
	if (r == 0)
		EVP_DigestFinal_ex(md, out, NULL);
	EVP_MD_CTX_free(md);
	return r;
}
