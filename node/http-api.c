/* SPDX-License-Identifier: Apache-2.0 */
/* The REST API of godwitd: what there is, who may use it, what goes in and what comes out.
 *
 * Bodies are checked against these schemas before a handler sees them, and the OpenAPI document is made of them.
 * Answers may have more members than their schema says: a client must not mind. Times are milliseconds since 1970,
 * memory of hosts and guests is in bytes; in a guest's definition it is in MiB.
 */
#include "node/http-api.h"

#include "base/mem.h"

/* Schemas are taken in when this file is assembled: that of a guest's definition from where it belongs, the others from
 * beside this file. */
#define INCLUDE_TEXT(symbol, file)                                                                                     \
	__asm__(".pushsection .rodata\n" #symbol ":\n.incbin \"" file "\"\n.byte 0\n.popsection\n");                   \
	extern const char symbol[] __attribute__((visibility("hidden")))

INCLUDE_TEXT(http_api_guest_text, "hv/guest.schema.json");
INCLUDE_TEXT(http_api_schemas_text, "node/http-api.schemas.json");

const struct http_schema http_api_schemas[] = {
	{NULL, http_api_schemas_text, NULL},
	/* In a cluster a guest is plugged into a network by its name. */
	{"Guest", http_api_guest_text,
	 "{\"properties\": {\"nics\": {\"items\": {\"properties\": {\"network\": {\"type\": \"string\", \"pattern\": "
	 "\"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$\"}}}}}}"},
};
const size_t http_api_n_schemas = ARRAY_SIZE(http_api_schemas);

#define JSON HTTP_KIND_JSON
#define NONE HTTP_ROLE_NONE
#define VIEWER HTTP_ROLE_VIEWER
#define OPERATOR HTTP_ROLE_OPERATOR
#define ADMIN HTTP_ROLE_ADMIN

#define QUERIES(...) ((const struct http_query[]){__VA_ARGS__, {0}})

const struct http_route http_api_routes[] = {
	{"GET", "/openapi.json", "openapi", VIEWER, false, JSON, 200, NULL, "OpenAPI", "This document", NULL},
	{"GET", "/metrics", "metrics", VIEWER, false, HTTP_KIND_TEXT, 200, NULL, METRICS_TEXT_TYPE,
	 "Metrics of this host, for Prometheus", NULL},

	{"GET", "/v1/cluster", "cluster_status", VIEWER, false, JSON, 200, NULL, "Cluster",
	 "The cluster as this host sees it", NULL},
	{"POST", "/v1/cluster/init", "cluster_init", ADMIN, true, JSON, 201, "ClusterInit", "Cluster",
	 "Make this host the first of a new cluster", NULL},
	{"POST", "/v1/cluster/join", "cluster_join", ADMIN, true, JSON, 200, "ClusterJoin", "Cluster",
	 "Make this host a member of the cluster that the token is of", NULL},
	{"POST", "/v1/cluster/tokens", "token_create", ADMIN, false, JSON, 201, "TokenRequest", "Token",
	 "A token with which one host may join", NULL},
	{"POST", "/v1/join", "join", NONE, false, JSON, 200, "JoinRequest", "JoinAnswer",
	 "What a host that joins asks a member; the token is its proof", NULL},

	{"GET", "/v1/nodes", "node_list", VIEWER, false, JSON, 200, NULL, "Nodes", "All hosts", NULL},
	{"GET", "/v1/nodes/{name}", "node_get", VIEWER, false, JSON, 200, NULL, "Node", "One host", NULL},
	{"DELETE", "/v1/nodes/{name}", "node_remove", ADMIN, false, JSON, 200, NULL, "Result",
	 "Take a host without guests out of the cluster", QUERIES({"force", "boolean", "even at the cost of quorum"})},

	{"POST", "/v1/nodes/{name}/fence", "node_fence", ADMIN, false, JSON, 200, "NodeFence", "NodeFenced",
	 "Switch a host off, on, or off and on again, by its fence devices; answers when it is proved", NULL},
	{"POST", "/v1/nodes/{name}/activate", "node_activate", ADMIN, false, JSON, 200, "Empty", "Result",
	 "Take back a host that was put aside", NULL},
	{"POST", "/v1/nodes/{name}/confirm-dead", "node_confirm_dead", ADMIN, false, JSON, 200, "ConfirmDead", "Result",
	 "A person's word that a host is off: its guests are started elsewhere; if it runs all the same, they run "
	 "twice",
	 NULL},

	{"GET", "/v1/fence-devices", "fence_device_list", VIEWER, false, JSON, 200, NULL, "FenceDevices",
	 "What can switch hosts off; secrets are masked", NULL},
	{"POST", "/v1/fence-devices", "fence_device_create", ADMIN, false, JSON, 201, "FenceDeviceCreate",
	 "FenceDevice", "Add a device; its agent is asked what it can do", NULL},
	{"GET", "/v1/fence-devices/{name}", "fence_device_get", VIEWER, false, JSON, 200, NULL, "FenceDevice",
	 "One device; secrets are masked", NULL},
	{"PUT", "/v1/fence-devices/{name}", "fence_device_edit", ADMIN, false, JSON, 200, "FenceDeviceEdit",
	 "FenceDevice", "Replace a device; an option that is the mask keeps its value", NULL},
	{"DELETE", "/v1/fence-devices/{name}", "fence_device_delete", ADMIN, false, JSON, 200, NULL, "Result",
	 "Forget a device that no level uses", NULL},
	{"POST", "/v1/fence-devices/{device}/test", "fence_device_test", OPERATOR, false, JSON, 200, "FenceTest",
	 "FenceReport", "Whether the device answers, and the state of each plug; switches nothing", NULL},
	{"GET", "/v1/fence-levels", "fence_level_list", VIEWER, false, JSON, 200, NULL, "FenceLevels",
	 "In what order devices are tried, where somebody has said it", NULL},
	{"PUT", "/v1/fence-levels/{node}/{level}", "fence_level_set", ADMIN, false, JSON, 200, "FenceLevelSet",
	 "Result", "The devices that must all say that the host is off; level 1 is tried first", NULL},
	{"DELETE", "/v1/fence-levels/{node}/{level}", "fence_level_delete", ADMIN, false, JSON, 200, NULL, "Result",
	 "Take a level away", NULL},
	{"GET", "/v1/fencings", "fencing_list", VIEWER, false, JSON, 200, NULL, "Fencings",
	 "Hosts that were lost, what was tried, and what proved that they were dead; newest first",
	 QUERIES({"node", "string", "of this host only"}, {"limit", "integer", "at most so many (20)"})},

	{"GET", "/v1/vms", "vm_list", VIEWER, false, JSON, 200, NULL, "VMs", "All guests", NULL},
	{"POST", "/v1/vms", "vm_create", OPERATOR, false, JSON, 202, "VMCreate", "TaskStarted",
	 "Create a guest, and start it where it fits", NULL},
	{"GET", "/v1/vms/{name}", "vm_get", VIEWER, false, JSON, 200, NULL, "VM", "One guest", NULL},
	{"PUT", "/v1/vms/{name}", "vm_edit", OPERATOR, false, JSON, 200, "VMEdit", "VM",
	 "Replace a guest's definition; it counts from the next start", NULL},
	{"DELETE", "/v1/vms/{name}", "vm_delete", OPERATOR, false, JSON, 200, NULL, "Result",
	 "Forget a stopped guest; its disks stay", NULL},
	{"GET", "/v1/vms/{name}/definition", "vm_definition", VIEWER, false, JSON, 200, NULL, "VMVersion",
	 "A version of a guest's definition", QUERIES({"version", "integer", "the newest when not given"})},
	{"GET", "/v1/vms/{name}/versions", "vm_versions", VIEWER, false, JSON, 200, NULL, "VMVersions",
	 "The versions of a guest's definition, newest first", NULL},
	{"GET", "/v1/vms/{name}/ha", "vm_ha_get", VIEWER, false, JSON, 200, NULL, "VMHA",
	 "What is done for a guest when it or its host dies", NULL},
	{"PUT", "/v1/vms/{name}/ha", "vm_ha_set", OPERATOR, false, JSON, 200, "VMHASet", "VMHA",
	 "Say that; what is left out stays as it is", NULL},
	{"POST", "/v1/vms/{name}/start", "vm_start", OPERATOR, false, JSON, 202, "VMStart", "TaskStarted",
	 "Start a guest; elsewhere where it is down and its host is away or full", NULL},
	{"POST", "/v1/vms/{name}/stop", "vm_stop", OPERATOR, false, JSON, 202, "VMStop", "TaskStarted",
	 "Stop a guest: ACPI power button, then quit, then kill", NULL},
	{"POST", "/v1/vms/{name}/kill", "vm_kill", OPERATOR, false, JSON, 202, "Empty", "TaskStarted",
	 "End a guest at once", NULL},
	{"POST", "/v1/vms/{name}/migrate", "vm_migrate", OPERATOR, false, JSON, 202, "VMMigrate", "TaskStarted",
	 "Move a running guest to another host", NULL},
	{"GET", "/v1/vms/{name}/forecast", "vm_forecast", VIEWER, false, JSON, 200, NULL, "Forecast",
	 "What a move would cost; measures guest and wire for some two seconds",
	 QUERIES({"to", "string", "destination; the best one when not given"},
		 {"max_pause_ms", "integer", "the longest pause that is allowed"},
		 {"bandwidth", "integer", "at most so many bytes/s"})},
	{"GET", "/v1/vms/{name}/console", "vm_console", OPERATOR, false, HTTP_KIND_RAW, 101, NULL, "godwit-console",
	 "The guest's serial console", NULL},

	{"POST", "/v1/wire-probes", "wire_probe", ADMIN, false, JSON, 201, "Empty", "WireProbe",
	 "What a host asks another to measure the wire to it: where to", NULL},

	{"GET", "/v1/ha", "ha_status", VIEWER, false, JSON, 200, NULL, "HA",
	 "What is started again, what waits and why, and how many hosts may die", NULL},

	{"GET", "/v1/networks", "network_list", VIEWER, false, JSON, 200, NULL, "Networks", "All networks", NULL},
	{"POST", "/v1/networks", "network_create", ADMIN, false, JSON, 201, "NetworkCreate", "Network",
	 "Make a network on every host", NULL},
	{"GET", "/v1/networks/{name}", "network_get", VIEWER, false, JSON, 200, NULL, "Network", "One network", NULL},
	{"DELETE", "/v1/networks/{name}", "network_delete", ADMIN, false, JSON, 200, NULL, "Result",
	 "Remove a network that no guest uses", NULL},

	{"GET", "/v1/migrations", "migration_list", VIEWER, false, JSON, 200, NULL, "Migrations", "Moves, oldest first",
	 QUERIES({"active", "boolean", "only those that have not ended"})},
	{"GET", "/v1/migrations/{id}", "migration_get", VIEWER, false, JSON, 200, NULL, "Migration", "One move", NULL},
	{"POST", "/v1/migrations/{id}/cancel", "migration_cancel", OPERATOR, false, JSON, 202, "Empty", "Migration",
	 "Cancel a move: the guest runs on where it is", NULL},

	{"GET", "/v1/tasks", "task_list", VIEWER, false, JSON, 200, NULL, "Tasks", "Long actions, oldest first",
	 QUERIES({"active", "boolean", "only those that have not ended"})},
	{"GET", "/v1/tasks/{id}", "task_get", VIEWER, false, JSON, 200, NULL, "Task", "One long action", NULL},

	{"GET", "/v1/events", "events", VIEWER, false, HTTP_KIND_EVENTS, 200, NULL, "Event",
	 "What happens, as server-sent events", QUERIES({"since", "integer", "begin after the event with this id"})},

	{"GET", "/v1/users", "user_list", ADMIN, false, JSON, 200, NULL, "Users", "All users", NULL},
	{"POST", "/v1/users", "user_create", ADMIN, false, JSON, 201, "UserCreate", "UserCreated",
	 "Make a user; the answer has the token", NULL},
	{"DELETE", "/v1/users/{name}", "user_delete", ADMIN, false, JSON, 200, NULL, "Result", "Remove a user", NULL},

	{"GET", "/v1/settings", "setting_list", VIEWER, false, JSON, 200, NULL, "Settings",
	 "What placement and migrations go by, where it was set", NULL},
	{"PUT", "/v1/settings/{key}", "setting_set", ADMIN, false, JSON, 200, "SettingSet", "Result",
	 "Set it; null takes it away", NULL},

	{"GET", "/v1/audit", "audit", ADMIN, false, JSON, 200, NULL, "Events", "Who changed what, newest first",
	 QUERIES({"before", "integer", "only those with a smaller number"}, {"limit", "integer", "at most so many"})},
	{"GET", "/v1/baseline", "baseline", VIEWER, false, JSON, 200, NULL, "Baseline",
	 "The best CPU model that all hosts can run",
	 QUERIES({"nodes", "string", "names, comma-separated; all when not given"})},
};
const size_t http_api_n_routes = ARRAY_SIZE(http_api_routes);
