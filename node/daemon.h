/* SPDX-License-Identifier: Apache-2.0 */
/* godwitd: one host of the cluster. What its parts share, and how they ask each other for things. */
#ifndef GODWIT_NODE_DAEMON_H
#define GODWIT_NODE_DAEMON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "cluster/replica.h"
#include "hv/accel.h"
#include "node/agent.h"
#include "node/disks.h"
#include "node/fencing.h"
#include "node/ha.h"
#include "node/host-lease.h"
#include "node/host-watchdog.h"
#include "node/http.h"
#include "node/identity.h"
#include "node/metrics.h"
#include "node/mover.h"
#include "node/notify.h"
#include "node/ring.h"

/* Where things are. Borrowed from the command line; none is NULL once daemon_new() has run. */
struct daemon_options {
	char **argv;            /* for daemon_restart_soon() */
	const char *run_dir;    /* guests of this host, our unix socket */
	const char *state_dir;  /* state.db, node.json */
	const char *config_dir; /* pki/, corosync's configuration unless corosync_dir is given */
	const char *corosync_dir;
	enum ring_mode corosync;
	const char *listen; /* ADDRESS:PORT of the API; NULL: every address, DAEMON_PORT */
	const char *group;  /* members are admins on the unix socket; NULL: "godwit" where it exists */
	enum accel_want accel;
	const char *user, *qemu; /* NULL: godwit-vm's own */
	enum watchdog_mode watchdog;
	const char *watchdog_device; /* WATCHDOG_RUN; NULL: /dev/watchdog */
	const char *fence_agents;    /* folders of fence agents with ':' between; NULL: AGENT_DIRS */
};

#define DAEMON_PORT 7443

/* Loop thread only, like everything in this folder. Until the host belongs to a cluster (identity_is_set()) there is no
 * replica, no agent and no mover, and only /v1/cluster/init and /v1/cluster/join do something. */
struct daemon {
	struct daemon_options opt;
	struct loop *loop;
	struct identity identity; /* cluster, node, id, addresses: node.json */
	struct replica *replica;
	struct http_server *http;
	struct http_feed *feed;
	struct api *api; /* node/api.c's own */
	struct metrics *metrics;
	struct agent *agent;
	struct host_lease *lease;
	struct ha_manager *ha;
	struct fencing *fencing;
	struct disks *disks;
	struct mover *mover;
	struct ring *ring;
	struct moves *moves;
	struct notify notify;
	char *cluster_id;           /* marks our guests: from the CA's fingerprint */
	json_t *cpu, *catalogue;    /* hv/baseline.h; NULL until they are known */
	bool busy;                  /* a join is under way */
	struct daemon_parts *parts; /* timers and the like: daemon.c's own */
};

/* Run until a signal or an error ends it. 0, or -1 with @e. Returns after daemon_restart_soon() only when the new
 * program could not be started. */
int daemon_run(const struct daemon_options *o, struct err *e);

/* A command of this daemon itself: {"op", "v", "id", "time", "by": "node NAME", "from": "local", "args"}; takes @args.
 * The id is random, or @id where the same command may be proposed again. New reference. */
json_t *daemon_command(const struct daemon *d, const char *op, const char *id, json_t *args);

/* Propose @op; takes @args. Its fate is told to @done, once, or logged where that is NULL and it is refused. */
void daemon_propose(struct daemon *d, const char *op, const char *id, json_t *args, replica_done_fn *done, void *arg);

/* The same on behalf of who made @call: with its id, name and address. */
void daemon_propose_for(struct daemon *d, const struct http_call *call, const char *op, json_t *args,
			replica_done_fn *done, void *arg);

/* The newest definition of a guest as godwit-vm takes it: networks of the cluster are bridges of this host. New
 * reference; NULL with @e. */
json_t *daemon_vm_definition(struct daemon *d, const char *name, struct err *e);

/* Bring agent, mover and networks to what the state says now; cheap, coalesced: runs once, soon. */
void daemon_look_soon(struct daemon *d); /* at everything */

/* Replace this process by a fresh one of the same program and arguments: after init, join and an upgrade. Guests,
 * migrations and corosync do not notice. What was answered to clients goes out first. */
void daemon_restart_soon(struct daemon *d);

#endif
