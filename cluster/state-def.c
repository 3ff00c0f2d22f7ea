/* SPDX-License-Identifier: Apache-2.0 */
/* State: the definitions of guests, their versions, and what of them must not clash: disks, MAC addresses, networks. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state-vm.h"
#include "cluster/state.h"

#define VERSIONS_MAX 64 /* kept for each guest */
#define DISKS_MAX 16
#define NICS_MAX 8
#define MEMORY_MIN_MIB 16
#define MEMORY_MAX_MIB (8 << 20)
#define VCPUS_MAX 255
#define PATH_MAX_BYTES 4095

/* ---- reading ---- */

static const char *def_text(const json_t *o, const char *field, size_t max)
{
	const json_t *v = json_object_get(o, field);

	return text_is_plain(v, 1, max) ? json_string_value(v) : NULL;
}

int vm_def_read(struct change *c, const json_t *definition, struct vm_def *ret)
{
	const json_t *memory = json_object_get(definition, "memory"), *vcpus = json_object_get(definition, "vcpus");
	const json_t *disks = json_object_get(definition, "disks"), *nics = json_object_get(definition, "nics");
	struct vm_def d = {
		.json = definition, .name = def_text(definition, "name", 63), .uuid = def_text(definition, "uuid", 36)};

	if (!d.name || !text_is_name(d.name))
		return refuse(c, ERR_INPUT,
			      "definition.name must be letters, digits, '_', '.' and '-', at most 63, beginning with a "
			      "letter or digit");
	c->name = d.name;
	if (!d.uuid || !text_is_uuid(d.uuid))
		return refuse(c, ERR_INPUT, "definition.uuid must be a UUID in lower case");
	if (!json_is_integer(memory) || json_integer_value(memory) < MEMORY_MIN_MIB ||
	    json_integer_value(memory) > MEMORY_MAX_MIB)
		return refuse(c, ERR_INPUT, "definition.memory must be a whole number of MiB from %d to %d",
			      MEMORY_MIN_MIB, MEMORY_MAX_MIB);
	if (!json_is_integer(vcpus) || json_integer_value(vcpus) < 1 || json_integer_value(vcpus) > VCPUS_MAX)
		return refuse(c, ERR_INPUT, "definition.vcpus must be a whole number from 1 to %d", VCPUS_MAX);
	if ((disks && !json_is_array(disks)) || json_array_size(disks) > DISKS_MAX)
		return refuse(c, ERR_INPUT, "definition.disks must be a list of at most %d", DISKS_MAX);
	if ((nics && !json_is_array(nics)) || json_array_size(nics) > NICS_MAX)
		return refuse(c, ERR_INPUT, "definition.nics must be a list of at most %d", NICS_MAX);
	d.memory = json_integer_value(memory) << 20;
	d.vcpus = json_integer_value(vcpus);
	*ret = d;
	return 0;
}

/* ---- disks ---- */

static int disk_add(struct change *c, const char *what, const char *file, bool writable)
{
	_free_ char *other = NULL;
	int r;

	if (!file || file[0] != '/')
		return refuse(c, ERR_INPUT, "definition.%s must be an absolute path of at most %d bytes", what,
			      PATH_MAX_BYTES);
	r = sql_string(c->db, c->e, &other,
		       "SELECT vm FROM vm_disk WHERE file = ? AND (writable OR ?) ORDER BY vm LIMIT 1", sql_text(file),
		       sql_int(writable));
	if (r > 0)
		return refuse(c, ERR_CONFLICT,
			      "definition.%s: %s is a disk of vm %s already; use another file, or make both read-only",
			      what, file, other);
	if (r < 0)
		return -1;
	return sql_run(c->db, c->e, "INSERT OR IGNORE INTO vm_disk (file, vm, writable) VALUES (?, ?, ?)",
		       sql_text(file), sql_text(c->name), sql_int(writable));
}

static int disks_write(struct change *c, const json_t *definition)
{
	const json_t *vars = json_object_get(definition, "uefi-vars");
	char what[64];
	json_t *disk;
	size_t i;

	if (sql_run(c->db, c->e, "DELETE FROM vm_disk WHERE vm = ?", sql_text(c->name)) < 0)
		return -1;
	json_array_foreach (json_object_get(definition, "disks"), i, disk) {
		snprintf(what, sizeof(what), "disks[%zu].file", i);
		if (disk_add(c, what, def_text(disk, "file", PATH_MAX_BYTES),
			     !json_is_true(json_object_get(disk, "readonly"))) < 0)
			return -1;
	}
	return vars ? disk_add(c, "uefi-vars", def_text(definition, "uefi-vars", PATH_MAX_BYTES), true) : 0;
}

/* ---- NICs ---- */

static int nic_mac_check(struct change *c, size_t i, const char *mac)
{
	_free_ char *other = NULL;
	int r = sql_string(c->db, c->e, &other, "SELECT vm FROM vm_nic WHERE mac = ? ORDER BY vm LIMIT 1",
			   sql_text(mac));

	if (r > 0)
		return refuse(c, ERR_CONFLICT,
			      "definition.nics[%zu].mac: %s is that of vm %s already; give another, or another uuid", i,
			      mac, other);
	return r;
}

static int nic_network_check(struct change *c, size_t i, const char *network)
{
	int64_t there;
	int r = sql_number(c->db, c->e, &there, "SELECT 1 FROM network WHERE name = ?", sql_text(network));

	if (r == 0)
		return refuse(c, ERR_NOTFOUND, "definition.nics[%zu].network: there is no network %s; create it first",
			      i, network);
	return r < 0 ? -1 : 0;
}

static int nic_add(struct change *c, size_t i, const json_t *nic)
{
	static const char *const fields[] = {"mac", "network", "bridge"};
	const char *mac = def_text(nic, "mac", 17), *network = def_text(nic, "network", 63);
	const char *bridge = def_text(nic, "bridge", 15);

	if (!json_is_object(nic))
		return refuse(c, ERR_INPUT, "definition.nics[%zu] must be an object {...}", i);
	for (size_t f = 0; f < ARRAY_SIZE(fields); f++)
		if (json_object_get(nic, fields[f]) && !def_text(nic, fields[f], 63))
			return refuse(c, ERR_INPUT, "definition.nics[%zu].%s must be a short text", i, fields[f]);
	if ((mac && nic_mac_check(c, i, mac) < 0) || (network && nic_network_check(c, i, network) < 0))
		return -1;
	return sql_run(c->db, c->e, "INSERT INTO vm_nic (vm, place, network, bridge, mac) VALUES (?, ?, ?, ?, ?)",
		       sql_text(c->name), sql_int((int64_t)i), sql_text(network), sql_text(bridge), sql_text(mac));
}

static int nics_write(struct change *c, const json_t *nics)
{
	json_t *nic;
	size_t i;

	if (sql_run(c->db, c->e, "DELETE FROM vm_nic WHERE vm = ?", sql_text(c->name)) < 0)
		return -1;
	json_array_foreach (nics, i, nic)
		if (nic_add(c, i, nic) < 0)
			return -1;
	return 0;
}

/* ---- versions ---- */

int vm_def_write(struct change *c, const struct vm_def *d, int64_t version)
{
	_free_ char *text = change_dump(c, d->json, DEFINITION_MAX, "the definition");

	if (!text || disks_write(c, d->json) < 0 || nics_write(c, json_object_get(d->json, "nics")) < 0)
		return -1;
	if (sql_run(c->db, c->e,
		    "UPDATE vm SET version = ?, definition = ?, memory = ?, vcpus = ?, changed = ? WHERE name = ?",
		    sql_int(version), sql_text(text), sql_int(d->memory), sql_int(d->vcpus), sql_int(c->time),
		    sql_text(c->name)) < 0 ||
	    sql_run(c->db, c->e, "INSERT INTO vm_version (vm, version, definition, time, by) VALUES (?, ?, ?, ?, ?)",
		    sql_text(c->name), sql_int(version), sql_text(text), sql_int(c->time), sql_text(c->by)) < 0)
		return -1;
	return sql_run(c->db, c->e, "DELETE FROM vm_version WHERE vm = ? AND version <= ?", sql_text(c->name),
		       sql_int(version - VERSIONS_MAX));
}

int vm_def_delete(struct change *c)
{
	if (sql_run(c->db, c->e, "DELETE FROM vm_version WHERE vm = ?", sql_text(c->name)) < 0 ||
	    sql_run(c->db, c->e, "DELETE FROM vm_nic WHERE vm = ?", sql_text(c->name)) < 0)
		return -1;
	return sql_run(c->db, c->e, "DELETE FROM vm_disk WHERE vm = ?", sql_text(c->name));
}

/* ---- questions ---- */

json_t *state_vm_versions(sqlite3 *db, const char *name, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(
		db, e, "SELECT version, time, by FROM vm_version WHERE vm = ? ORDER BY version DESC", sql_text(name));
	json_t *list = rows_json(s, "version time by", e);

	if (!list || json_array_size(list))
		return list;
	json_decref(list);
	err_set(e, ERR_NOTFOUND, "vm %s: there is no such vm", name);
	return NULL;
}

json_t *state_vm_definition(sqlite3 *db, const char *name, int64_t version, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e,
					  "SELECT version, time, by, definition FROM vm_version WHERE vm = ?1 AND "
					  "(version = ?2 OR ?2 = 0) ORDER BY version DESC LIMIT 1",
					  sql_text(name), sql_int(version));

	return first_json(s, "version time by definition*", version ? "vm version" : "vm", name, e);
}
