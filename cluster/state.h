/* SPDX-License-Identifier: Apache-2.0 */
/* The state of the cluster: what commands change it (docs/state.md), and what can be asked of it. */
#ifndef GODWIT_CLUSTER_STATE_H
#define GODWIT_CLUSTER_STATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/machine.h"

/*
 * All changes are commands that `state_machine` (cluster/machine.h) applies on every member:
 *
 *   {"op": "vm.create", "v": 1, "id": "<uuid of the request>", "time": <ms since 1970>, "by": "<who>", "from":
 * "<address>", "args": {...}}
 *
 * The questions below read one connection, in its thread, and answer with a new reference; NULL with @e: ERR_NOTFOUND
 * when the object is not there, ERR_SYSTEM when the database fails. Fields that are not known are null. Who asks
 * several that must fit together opens a read transaction around them.
 */

extern const struct machine state_machine;

/* Version 2 brought fencing and high availability, version 3 the lives of hosts on shared disks, version 4
 * the folders that hosts do not reach. */
#define STATE_COMMAND_VERSION 4

/* The lowest version in which operation @op takes all of @args, for "v" of a command: hosts that are not upgraded yet
 * can still apply it then. The newest for what is in none. Pure. */
unsigned state_command_version(const char *op, const json_t *args);

/* A setting of the state's own: the highest id ever given to a node; its version grows with every change of the list of
 * nodes. */
#define STATE_SETTING_RING "node.ring"
#define STATE_SETTING_BASELINE "node.baseline." /* and a node: what its CPU was announced to cost */
#define STATE_SETTING_LIFE "node.incarnation."  /* and a node: its boot and incarnation, as its last node.alive said */

/* {name, id, addresses[], fingerprint, joined, reported, report{}, memory_promised, vms, life ("up", "lost", "fenced"),
 * life_since, fencing (number of the newest; null), frozen, aside (why; null), aside_since, incarnation (as its last
 * node.alive said; null)} */
json_t *state_node_get(struct sqlite3 *db, const char *name, struct err *e);
json_t *state_node_list(struct sqlite3 *db, struct err *e);
/* {name, id, life} of each: for what is asked at every look, as the rest of a node costs much more. */
json_t *state_node_lives(struct sqlite3 *db, struct err *e);
/* The node that has a certificate, by the SHA-256 of it. */
json_t *state_node_by_fingerprint(struct sqlite3 *db, const char *fingerprint, struct err *e);

/* {name, uuid, version, memory, vcpus, intent, stop_s, owner, epoch, created, changed, status, since, observed, pid,
 * note, detail, migration}; status is null while the owner has not reported. state_vm_get adds definition{}. */
json_t *state_vm_get(struct sqlite3 *db, const char *name, struct err *e);
json_t *state_vm_list(struct sqlite3 *db, struct err *e);
/* [{file, made}] by file, each once: what guests open; made: 1 if it is made where it is missing. */
json_t *state_vm_files(struct sqlite3 *db, struct err *e);
/* Those that a node owns: what its agent must care for. */
json_t *state_vm_list_of(struct sqlite3 *db, const char *node, struct err *e);
/* {version, time, by} newest first; {version, time, by, definition} of one (0: the newest). */
json_t *state_vm_versions(struct sqlite3 *db, const char *name, struct err *e);
json_t *state_vm_definition(struct sqlite3 *db, const char *name, int64_t version, struct err *e);

/* ---- fencing ---- */

/* {number, node, incarnation, reason, by, began, proof, device, text, fenced_by, fenced, alive, steps[{number, kind,
 * device, level, result, text, by, time}]}, newest first, steps in order; proof to alive are null until they are known.
 * @node NULL: of all. At most @limit. */
json_t *state_fencing_list(struct sqlite3 *db, const char *node, int64_t limit, struct err *e);

#define STATE_FENCE_TIMEOUT_MS 20000 /* of a device that does not say */
#define STATE_FENCE_ATTEMPTS 2

/* {name, agent, options{}, secret[names], plug_option (null: the agent takes no plug), priority, timeout_ms, attempts,
 * delay_ms, nodes{node: plug}, by, changed}. @secrets: with the values of secret options; otherwise they are null. */
json_t *state_fence_device_get(struct sqlite3 *db, const char *name, bool secrets, struct err *e);
json_t *state_fence_device_list(struct sqlite3 *db, bool secrets, struct err *e);
/* {node, level, devices[]}: those that somebody has set, in order. */
json_t *state_fence_level_list(struct sqlite3 *db, struct err *e);
/* How to fence @node: [{level, devices[{name, agent, options{}, plug}]}] in order, secrets included. Without levels of
 * its own each device that knows the node is a level of its own, by name. Never in an answer to a user. */
json_t *state_fence_plan(struct sqlite3 *db, const char *node, struct err *e);

/* ---- high availability ---- */

#define STATE_SETTING_HA_DEFAULT "ha.default" /* "restart" or "none": of guests without a mode of their own */
#define STATE_SETTING_HA_BEARS "ha.bears"     /* what was last said about that: {bears, wish, text} of ha.bears */
#define STATE_SETTING_HA_WISH "ha.wish"       /* host failures that the cluster shall bear; 1 where it is not set */

#define STATE_RESTARTS_MAX 32 /* remembered for each guest */

/* {vm, mode ("restart", "none"), own_mode (it has one of its own), priority, max_restarts, failback ("never",
 * "when-idle"), home (node; null: where it is), after[{vm, until ("running", "delay", "port"), seconds, address}],
 * restarts[{time, kind, node, reason}] newest first}; the list has every guest, by name. */
json_t *state_ha_get(struct sqlite3 *db, const char *vm, struct err *e);
json_t *state_ha_list(struct sqlite3 *db, struct err *e);

/* Does any guest that shall run need HA: it has failed, or its node is not up? 1, 0, or -1 with @e. Cheap. */
int state_ha_needed(struct sqlite3 *db, struct err *e);

/* What vm.restart calls the failure that @detail of a guest tells of ("cause": "crash", "failed", "host"): whether it
 * was its own fault decides how long it is left alone. "failed" where nobody has said. Static. */
const char *state_failure_kind(const json_t *detail);

/* {name, bridge, vlan (0: none), uplink, mtu, created, vms} */
json_t *state_network_get(struct sqlite3 *db, const char *name, struct err *e);
json_t *state_network_list(struct sqlite3 *db, struct err *e);

/* {id, number, vm, src, dst, step, epoch, options{}, cancel, restart, note, error, detail{}, by, created, changed,
 * finished}, in order of arrival; @active: only those that have not ended. */
json_t *state_migration_get(struct sqlite3 *db, const char *id, struct err *e);
json_t *state_migration_list(struct sqlite3 *db, bool active, struct err *e);

/* {id, number, kind, object, node, state, progress, eta_ms, note, error, result, by, created, changed, finished} */
json_t *state_task_get(struct sqlite3 *db, const char *id, struct err *e);
json_t *state_task_list(struct sqlite3 *db, bool active, struct err *e);

/* {name, role, created, by}; never a hash. */
json_t *state_user_get(struct sqlite3 *db, const char *name, struct err *e);
json_t *state_user_by_token_hash(struct sqlite3 *db, const char *hash, struct err *e);
json_t *state_user_list(struct sqlite3 *db, struct err *e);
/* {created, expires, by, used, used_by} */
json_t *state_token_get(struct sqlite3 *db, const char *hash, struct err *e);

/* {key, value, version, changed, by}; the list is of keys that begin with @prefix. */
json_t *state_setting_get(struct sqlite3 *db, const char *key, struct err *e);
json_t *state_setting_list(struct sqlite3 *db, const char *prefix, struct err *e);

/* {seq, time, by, from, op, object, data}. Events: those after @since, oldest first. Audit: those before @before (0:
 * the newest), newest first. */
json_t *state_event_list(struct sqlite3 *db, int64_t since, int64_t limit, struct err *e);
int state_event_newest(struct sqlite3 *db, int64_t *ret, struct err *e);
json_t *state_audit_list(struct sqlite3 *db, int64_t before, int64_t limit, struct err *e);

#endif
