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
 *
 * Version 2, whose tables stay empty until the first command of version 2:
 * - node_life: no row: up, and nothing to say. fencing is the newest of the node; aside is why no guest goes there
 * - fencing: number is the index of node.lost; proof to fenced_by are of node.fenced, alive is when it was back
 * - fence_step: number is the index of the command, fencing the one it belongs to
 * - fence_device: options and secret (the names of those that nobody is told) are JSON
 * - vm_ha: mode NULL: as the setting ha.default says; vm_after: what must hold of `other` before vm is started
 * - vm_restart: starts that HA caused; vm_home: where a guest was before its host died
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

	"CREATE TABLE node_life (node TEXT PRIMARY KEY, life TEXT NOT NULL, since INTEGER NOT NULL, fencing INTEGER,"
	" frozen INTEGER NOT NULL, aside TEXT, aside_since INTEGER) STRICT, WITHOUT ROWID;"
	"CREATE TABLE fencing (number INTEGER PRIMARY KEY, node TEXT NOT NULL, incarnation TEXT, reason TEXT,"
	" by TEXT NOT NULL, began INTEGER NOT NULL, proof TEXT, device TEXT, text TEXT, fenced_by TEXT,"
	" fenced INTEGER, alive INTEGER) STRICT;"
	"CREATE TABLE fence_step (number INTEGER PRIMARY KEY, fencing INTEGER NOT NULL, kind TEXT NOT NULL, device "
	"TEXT,"
	" level INTEGER, result TEXT NOT NULL, text TEXT, by TEXT NOT NULL, time INTEGER NOT NULL) STRICT;"
	"CREATE INDEX fence_step_fencing ON fence_step (fencing, number);"
	"CREATE TABLE fence_device (name TEXT PRIMARY KEY, agent TEXT NOT NULL, options TEXT NOT NULL,"
	" secret TEXT NOT NULL, plug_option TEXT, priority INTEGER NOT NULL, timeout_ms INTEGER NOT NULL,"
	" attempts INTEGER NOT NULL, delay_ms INTEGER NOT NULL, by TEXT NOT NULL, changed INTEGER NOT NULL)"
	" STRICT, WITHOUT ROWID;"
	"CREATE TABLE fence_device_node (device TEXT NOT NULL, node TEXT NOT NULL, plug TEXT,"
	" PRIMARY KEY (device, node)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE fence_level (node TEXT NOT NULL, level INTEGER NOT NULL, place INTEGER NOT NULL,"
	" device TEXT NOT NULL, PRIMARY KEY (node, level, place)) STRICT, WITHOUT ROWID;"

	"CREATE TABLE vm_ha (vm TEXT PRIMARY KEY, mode TEXT, priority INTEGER NOT NULL, max_restarts INTEGER NOT NULL,"
	" failback TEXT NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE vm_after (vm TEXT NOT NULL, other TEXT NOT NULL, place INTEGER NOT NULL, until TEXT NOT NULL,"
	" seconds INTEGER, address TEXT, PRIMARY KEY (vm, other)) STRICT, WITHOUT ROWID;"
	"CREATE INDEX vm_after_other ON vm_after (other);"
	"CREATE TABLE vm_restart (vm TEXT NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL, node TEXT NOT NULL,"
	" reason TEXT, time INTEGER NOT NULL, PRIMARY KEY (vm, number)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE vm_home (vm TEXT PRIMARY KEY, node TEXT NOT NULL, since INTEGER NOT NULL) STRICT, WITHOUT ROWID;",
};

/* The tables of the newest version, each with the query that the digest reads it by. A test compares this list with
 * what the steps make. While hosts are upgraded one by one, members with and without the tables of a later step compare
 * their digests: an empty one of those adds nothing. */
static const struct {
	const char *name;
	const char *rows;
	bool later; /* made by a step after the first */
} tables[] = {
	{"event", "SELECT * FROM event ORDER BY seq", false},
	{"fence_device", "SELECT * FROM fence_device ORDER BY name", true},
	{"fence_device_node", "SELECT * FROM fence_device_node ORDER BY device, node", true},
	{"fence_level", "SELECT * FROM fence_level ORDER BY node, level, place", true},
	{"fence_step", "SELECT * FROM fence_step ORDER BY number", true},
	{"fencing", "SELECT * FROM fencing ORDER BY number", true},
	{"migration", "SELECT * FROM migration ORDER BY id", false},
	{"network", "SELECT * FROM network ORDER BY name", false},
	{"node", "SELECT * FROM node ORDER BY name", false},
	{"node_address", "SELECT * FROM node_address ORDER BY address", false},
	{"node_life", "SELECT * FROM node_life ORDER BY node", true},
	{"observed", "SELECT * FROM observed ORDER BY vm", false},
	{"setting", "SELECT * FROM setting ORDER BY key", false},
	{"task", "SELECT * FROM task ORDER BY id", false},
	{"token", "SELECT * FROM token ORDER BY hash", false},
	{"user", "SELECT * FROM user ORDER BY name", false},
	{"vm", "SELECT * FROM vm ORDER BY name", false},
	{"vm_after", "SELECT * FROM vm_after ORDER BY vm, other", true},
	{"vm_disk", "SELECT * FROM vm_disk ORDER BY file, vm", false},
	{"vm_ha", "SELECT * FROM vm_ha ORDER BY vm", true},
	{"vm_home", "SELECT * FROM vm_home ORDER BY vm", true},
	{"vm_nic", "SELECT * FROM vm_nic ORDER BY vm, place", false},
	{"vm_restart", "SELECT * FROM vm_restart ORDER BY vm, number", true},
	{"vm_version", "SELECT * FROM vm_version ORDER BY vm, version", false},
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

static int digest_table(sqlite3 *db, EVP_MD_CTX *md, size_t table, struct err *e)
{
	const char *name = tables[table].name;
	_sql_ sqlite3_stmt *s = sql_begin_n(db, e, tables[table].rows, NULL, 0);
	bool named = !tables[table].later;
	int r = -1;

	if (named)
		digest_bytes(md, 'T', name, strlen(name));
	while (s && (r = sql_next(s, e)) > 0) {
		if (!named)
			digest_bytes(md, 'T', name, strlen(name));
		named = true;
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
		r = digest_table(db, md, i, e);
	if (r == 0)
		EVP_DigestFinal_ex(md, out, NULL);
	EVP_MD_CTX_free(md);
	return r;
}
