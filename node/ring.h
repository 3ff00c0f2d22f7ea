/* SPDX-License-Identifier: Apache-2.0 */
/* The corosync of this host: configured as the state says, running, told of changes. */
#ifndef GODWIT_NODE_RING_H
#define GODWIT_NODE_RING_H

#include <stdbool.h>

#include "base/err.h"
#include "base/loop.h"
#include "node/corosync.h"

struct ring;
struct sqlite3;

enum ring_mode {
	RING_SYSTEMD, /* corosync.service and corosync-qdevice.service */
	RING_RUN,     /* children of ours that outlive us: where there is no systemd */
	RING_NONE,    /* somebody else starts it */
	RING_MODE_MAX
};
extern const char *const ring_mode_names[RING_MODE_MAX + 1]; /* ends with NULL */

/* Settings of the cluster that are corosync's. */
#define RING_SETTING_TOKEN_MS "cluster.token-ms"
#define RING_SETTING_QDEVICE "cluster.qdevice"

struct ring_options {
	enum ring_mode mode;
	const char *dir;     /* of corosync.conf and authkey; borrowed, as the next */
	const char *run_dir; /* RING_RUN: their pids and logs */
};

/* Loop thread. Caller frees; corosync goes on. */
struct ring *ring_new(struct loop *loop, const struct ring_options *o);
void ring_free(struct ring *r);

/* Write the first configuration of this host, and the key. 0 or -1 with @e. */
int ring_write(struct ring *r, const struct corosync_conf *c, const uint8_t key[COROSYNC_KEY_SIZE], struct err *e);

/* The key that all members have. -1 with @e. */
int ring_key_read(const struct ring *r, uint8_t ret[COROSYNC_KEY_SIZE], struct err *e);

/* See to it that corosync runs, now and whenever it has ended, and corosync-qdevice where the configuration names a
 * quorum device. */
void ring_run(struct ring *r);

/* End them: this host is no member any more. */
void ring_stop(struct ring *r);

/* The configuration that the state asks for; @cluster is the cluster's name. -1 with @e. */
int ring_conf(struct sqlite3 *db, const char *cluster, struct corosync_conf *ret, struct err *e);

/* If the file is not like @want (or older than it), replace it and tell every corosync of the cluster; this may take a
 * second, and is tried again until it works. @settled (may be NULL) is called once it has, soon, also when there was
 * nothing to do. */
void ring_follow(struct ring *r, const struct corosync_conf *want, loop_fn *settled, void *arg);

#endif
