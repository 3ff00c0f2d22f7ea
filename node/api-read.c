/* SPDX-License-Identifier: Apache-2.0 */
/* What godwitd answers out of the state: cluster, nodes, guests, networks, migrations, tasks, users, audit, baseline.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cluster/state.h"
#include "hv/baseline.h"
#include "node/api-int.h"
#include "node/place.h"

#define AUDIT_DEFAULT 100
#define AUDIT_MOST 1000

static int64_t query_number(const struct http_call *call, const char *name, int64_t otherwise)
{
	const char *v = http_call_query(call, name);

	return v ? strtoll(v, NULL, 10) : otherwise;
}

static bool query_true(const struct http_call *call, const char *name)
{
	const char *v = http_call_query(call, name);

	return v && !strcmp(v, "true");
}

/* ---- cluster ---- */

static const char *name_of_id(const json_t *nodes, json_int_t id)
{
	for (size_t i = 0; i < json_array_size(nodes); i++) {
		const json_t *n = json_array_get(nodes, i);

		if (json_integer_value(json_object_get(n, "id")) == id)
			return api_text(n, "name");
	}
	return NULL;
}

/* The names of a list of ids; an id that the state does not know (a host that is joining) stays a number. */
static json_t *names_of_ids(const json_t *nodes, const json_t *ids)
{
	json_t *names = json_array();

	for (size_t i = 0; i < json_array_size(ids); i++) {
		json_int_t id = json_integer_value(json_array_get(ids, i));
		const char *name = name_of_id(nodes, id);

		json_array_append_new(names, name ? json_string(name) : json_sprintf("%lld", (long long)id));
	}
	return names;
}

static json_t *cluster_status(struct daemon *d, const struct http_call *call, struct err *e)
{
	json_t *nodes = state_node_list(replica_db(d->replica), e), *o, *bears;
	const char *manager;

	(void)call;
	if (!nodes)
		return NULL;
	o = replica_status(d->replica);
	json_object_set_new(o, "name", json_string(d->identity.cluster));
	json_object_set_new(o, "node", json_string(d->identity.node));
	if (d->cluster_id)
		json_object_set_new(o, "id", json_string(d->cluster_id));
	json_object_set_new(o, "members", names_of_ids(nodes, json_object_get(o, "members")));
	manager = name_of_id(nodes, json_integer_value(json_object_get(o, "leader")));
	json_object_set_new(o, "manager", manager ? json_string(manager) : json_null());
	json_object_del(o, "leader");
	if (d->lease)
		json_object_set_new(o, "lease", host_lease_json(d->lease));
	if (d->ha && (bears = ha_manager_bears(d->ha)))
		json_object_set_new(o, "ha", bears);
	json_decref(nodes);
	return o;
}

/* ---- nodes ---- */

/* A node in one word. What the state says of one that is away is worth more than that it is. */
static const char *node_state(const json_t *node, bool online, bool lately)
{
	const char *life = api_text(node, "life");

	if (!online)
		return !strcmp(life, "lost") || !strcmp(life, "fenced") ? life : "offline";
	if (!lately)
		return "silent";
	return *api_text(node, "aside") ? "aside" : "online";
}

/* Add to a row of the state what this host sees, and what clients would have to dig for. */
static json_t *node_complete(struct daemon *d, json_t *node)
{
	const json_t *report = json_object_get(node, "report"), *memory = json_object_get(report, "memory");
	const json_t *reported = json_object_get(node, "reported");
	bool online = d->api->present(d->replica, (uint32_t)json_integer_value(json_object_get(node, "id")));
	bool lately = json_is_integer(reported) && clock_wall_ms() - json_integer_value(reported) < PLACE_REPORT_MS;

	json_object_set_new(node, "online", json_boolean(online));
	json_object_set_new(node, "state", json_string(node_state(node, online, lately)));
	if (json_is_integer(json_object_get(memory, "total")))
		json_object_set(node, "memory", json_object_get(memory, "total"));
	if (json_is_integer(json_object_get(memory, "free")))
		json_object_set(node, "memory_free", json_object_get(memory, "free"));
	if (json_is_integer(json_object_get(report, "cpus")))
		json_object_set(node, "cpus", json_object_get(report, "cpus"));
	return node;
}

static json_t *node_list(struct daemon *d, const struct http_call *call, struct err *e)
{
	json_t *nodes = state_node_list(replica_db(d->replica), e), *node;
	size_t i;

	(void)call;
	json_array_foreach (nodes, i, node)
		node_complete(d, node);
	return nodes;
}

static json_t *node_get(struct daemon *d, const struct http_call *call, struct err *e)
{
	json_t *node = state_node_get(replica_db(d->replica), http_call_param(call, "name"), e);

	return node ? node_complete(d, node) : NULL;
}

/* ---- guests ---- */

static json_t *vm_list(struct daemon *d, const struct http_call *call, struct err *e)
{
	json_t *vms = state_vm_list(replica_db(d->replica), e);

	(void)call;
	api_vms_add_ha(d, vms);
	api_vms_add_waiting(d, vms);
	return vms;
}

static json_t *vm_get(struct daemon *d, const struct http_call *call, struct err *e)
{
	json_t *vm = state_vm_get(replica_db(d->replica), http_call_param(call, "name"), e);

	if (vm)
		api_vm_add_ha(d, vm);
	if (vm && !strcmp(api_text(vm, "intent"), "running") && strcmp(api_text(vm, "status"), "running") != 0) {
		json_t *one = json_pack("[O]", vm);

		api_vms_add_waiting(d, one);
		json_decref(one);
	}
	return vm;
}

static json_t *vm_definition(struct daemon *d, const struct http_call *call, struct err *e)
{
	return state_vm_definition(replica_db(d->replica), http_call_param(call, "name"),
				   query_number(call, "version", 0), e);
}

static json_t *vm_versions(struct daemon *d, const struct http_call *call, struct err *e)
{
	return state_vm_versions(replica_db(d->replica), http_call_param(call, "name"), e);
}

/* ---- high availability ---- */

static json_t *ha_status(struct daemon *d, const struct http_call *call, struct err *e)
{
	(void)call;
	if (d->ha)
		return ha_manager_json(d->ha, e);
	err_set(e, ERR_UNAVAILABLE, "this host does not work as a member yet; ask again in some seconds");
	return NULL;
}

/* ---- networks ---- */

static json_t *network_list(struct daemon *d, const struct http_call *call, struct err *e)
{
	(void)call;
	return state_network_list(replica_db(d->replica), e);
}

static json_t *network_get(struct daemon *d, const struct http_call *call, struct err *e)
{
	return state_network_get(replica_db(d->replica), http_call_param(call, "name"), e);
}

/* ---- migrations and tasks ---- */

/* The token in the detail is for the source alone. */
static json_t *migration_redact(json_t *m)
{
	json_t *detail = json_object_get(m, "detail");

	if (json_is_object(detail))
		json_object_del(detail, "token");
	return m;
}

static json_t *migration_list(struct daemon *d, const struct http_call *call, struct err *e)
{
	json_t *list = state_migration_list(replica_db(d->replica), query_true(call, "active"), e), *m;
	size_t i;

	json_array_foreach (list, i, m)
		migration_redact(m);
	return list;
}

static json_t *migration_get(struct daemon *d, const struct http_call *call, struct err *e)
{
	json_t *m = state_migration_get(replica_db(d->replica), http_call_param(call, "id"), e);

	return m ? migration_redact(m) : NULL;
}

static json_t *task_list(struct daemon *d, const struct http_call *call, struct err *e)
{
	return state_task_list(replica_db(d->replica), query_true(call, "active"), e);
}

static json_t *task_get(struct daemon *d, const struct http_call *call, struct err *e)
{
	return state_task_get(replica_db(d->replica), http_call_param(call, "id"), e);
}

/* ---- users, settings, audit ---- */

static json_t *user_list(struct daemon *d, const struct http_call *call, struct err *e)
{
	(void)call;
	return state_user_list(replica_db(d->replica), e);
}

static json_t *setting_list(struct daemon *d, const struct http_call *call, struct err *e)
{
	(void)call;
	return state_setting_list(replica_db(d->replica), "", e);
}

static json_t *audit(struct daemon *d, const struct http_call *call, struct err *e)
{
	int64_t limit = query_number(call, "limit", AUDIT_DEFAULT);

	if (limit < 1 || limit > AUDIT_MOST) {
		err_set(e, ERR_INPUT, "limit: from 1 to %d is possible; use before= to go on from there", AUDIT_MOST);
		return NULL;
	}
	return state_audit_list(replica_db(d->replica), query_number(call, "before", 0), limit, e);
}

/* ---- CPU baseline ---- */

/* Is @name in the comma-separated @list? NULL lists all. */
static bool list_names(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (!strncmp(p, name, n) && (!p[n] || p[n] == ','))
			return true;
	return !list;
}

static json_t *hosts_of(const json_t *nodes, const char *list, struct err *e)
{
	json_t *hosts = json_array();

	for (size_t i = 0; i < json_array_size(nodes); i++) {
		const json_t *n = json_array_get(nodes, i);
		json_t *cpu = json_object_get(json_object_get(n, "report"), "cpu");

		if (!list_names(list, api_text(n, "name")))
			continue;
		if (!json_is_object(cpu)) {
			err_set(e, ERR_UNAVAILABLE,
				"node %s has not reported its CPU yet; ask again in some seconds, or leave it out with "
				"nodes=",
				api_text(n, "name"));
			json_decref(hosts);
			return NULL;
		}
		json_array_append_new(hosts, json_pack("{s:s, s:O}", "name", api_text(n, "name"), "cpu", cpu));
	}
	if (json_array_size(hosts))
		return hosts;
	json_decref(hosts);
	err_set(e, ERR_NOTFOUND, "none of the nodes %s is there; `godwit node list` shows those that are",
		list ? list : "");
	return NULL;
}

static json_t *baseline(struct daemon *d, const struct http_call *call, struct err *e)
{
	json_t *nodes = state_node_list(replica_db(d->replica), e), *hosts, *ret = NULL;

	if (!nodes)
		return NULL;
	hosts = hosts_of(nodes, http_call_query(call, "nodes"), e);
	json_decref(nodes);
	if (!hosts)
		return NULL;
	if (!d->catalogue)
		err_set(e, ERR_UNAVAILABLE,
			"this host does not know QEMU's CPU models yet; ask again in some seconds, or see its log");
	else if (baseline_compute(d->catalogue, hosts, &ret, e) < 0)
		ret = NULL;
	json_decref(hosts);
	return ret;
}

const struct api_handler api_read_handlers[] = {
	{.operation = "cluster_status", .read = cluster_status},
	{.operation = "node_list", .read = node_list},
	{.operation = "node_get", .read = node_get, .object = "name"},
	{.operation = "vm_list", .read = vm_list},
	{.operation = "vm_get", .read = vm_get, .object = "name"},
	{.operation = "vm_definition", .read = vm_definition, .object = "name"},
	{.operation = "vm_versions", .read = vm_versions, .object = "name"},
	{.operation = "ha_status", .read = ha_status},
	{.operation = "network_list", .read = network_list},
	{.operation = "network_get", .read = network_get, .object = "name"},
	{.operation = "migration_list", .read = migration_list},
	{.operation = "migration_get", .read = migration_get, .object = "id"},
	{.operation = "task_list", .read = task_list},
	{.operation = "task_get", .read = task_get, .object = "id"},
	{.operation = "user_list", .read = user_list},
	{.operation = "setting_list", .read = setting_list},
	{.operation = "audit", .read = audit},
	{.operation = "baseline", .read = baseline},
	{0},
};
