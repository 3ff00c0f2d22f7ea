/* SPDX-License-Identifier: Apache-2.0 */
/* State: named networks: the same name means the same bridge and VLAN on every host. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/mem.h"
#include "cluster/state-int.h"
#include "cluster/state.h"

#define INTERFACE_MAX 15 /* IFNAMSIZ - 1 */

static const struct arg network_create_args[] = {
	NEEDED("name", ARG_NAME),
	NEEDED_IN("bridge", ARG_TEXT, 1, INTERFACE_MAX),
	ALLOWED_IN("vlan", ARG_INT, 0, 4094), /* 0: untagged */
	ALLOWED_IN("uplink", ARG_TEXT, 1, INTERFACE_MAX),
	ALLOWED_IN("mtu", ARG_INT, 68, 65535),
	{0},
};

static int network_create(struct change *c)
{
	const char *bridge = arg_text(c, "bridge");
	int64_t vlan = arg_int(c, "vlan", 0), mtu = arg_int(c, "mtu", 0), there;
	_free_ char *other = NULL;
	int r = sql_number(c->db, c->e, &there, "SELECT 1 FROM network WHERE name = ?", sql_text(c->name));

	if (r > 0)
		return refuse(c, ERR_CONFLICT, "exists already; choose another name");
	if (r == 0)
		r = sql_string(c->db, c->e, &other,
			       "SELECT name FROM network WHERE bridge = ? AND vlan = ? ORDER BY name", sql_text(bridge),
			       sql_int(vlan));
	if (r > 0)
		return refuse(c, ERR_CONFLICT,
			      "bridge %s with vlan %" PRId64 " is network %s already; choose another bridge or vlan",
			      bridge, vlan, other);
	if (r < 0)
		return -1;
	json_object_set_new(c->result, "name", json_string(c->name));
	return sql_run(c->db, c->e,
		       "INSERT INTO network (name, bridge, vlan, uplink, mtu, created) VALUES (?, ?, ?, ?, ?, ?)",
		       sql_text(c->name), sql_text(bridge), sql_int(vlan), sql_text(arg_text(c, "uplink")),
		       mtu ? sql_int(mtu) : sql_null(), sql_int(c->time));
}

/* A guest's NIC names the network, or the bridge that the network is. */
#define USES "(n.network = w.name OR (n.network IS NULL AND n.bridge = w.bridge AND w.vlan = 0))"

static const struct arg network_delete_args[] = {NEEDED("name", ARG_NAME), {0}};

static int network_delete(struct change *c)
{
	_free_ char *other = NULL;
	int r = sql_string(c->db, c->e, &other,
			   "SELECT n.vm FROM network w JOIN vm_nic n ON " USES
			   " WHERE w.name = ? ORDER BY n.vm LIMIT 1",
			   sql_text(c->name));

	if (r > 0)
		return refuse(c, ERR_CONFLICT, "vm %s uses it; edit or delete the guests that do first", other);
	if (r < 0 || sql_run(c->db, c->e, "DELETE FROM network WHERE name = ?", sql_text(c->name)) < 0)
		return -1;
	if (sqlite3_changes(c->db) == 0)
		return refuse(c, ERR_NOTFOUND, "there is no such network; `network list` shows those that are there");
	json_object_set_new(c->result, "name", json_string(c->name));
	return 0;
}

#define NETWORK_COLUMNS "name bridge vlan uplink mtu created vms*"
#define NETWORK_SELECT                                                                                                 \
	"SELECT w.name, w.bridge, w.vlan, w.uplink, w.mtu, w.created, (SELECT json_group_array(vm) FROM "              \
	"(SELECT DISTINCT n.vm FROM vm_nic n WHERE " USES " ORDER BY n.vm)) FROM network w "

json_t *state_network_get(sqlite3 *db, const char *name, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, NETWORK_SELECT "WHERE w.name = ?", sql_text(name));

	return first_json(s, NETWORK_COLUMNS, "network", name, e);
}

json_t *state_network_list(sqlite3 *db, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, NETWORK_SELECT "ORDER BY w.name");

	return rows_json(s, NETWORK_COLUMNS, e);
}

const struct op network_ops[] = {
	{"network.create", "network", "name", network_create_args, network_create, EVENT_AUDIT, 1},
	{"network.delete", "network", "name", network_delete_args, network_delete, EVENT_AUDIT, 1},
	{0},
};
