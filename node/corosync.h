/* SPDX-License-Identifier: Apache-2.0 */
/* corosync's configuration: written from what the cluster knows, read back, its key, and telling corosync of a change.
 */
#ifndef GODWIT_NODE_COROSYNC_H
#define GODWIT_NODE_COROSYNC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/child.h"
#include "base/err.h"
#include "node/name.h"

#define COROSYNC_NODES_MAX 32U
#define COROSYNC_LINKS_MAX 8U
#define COROSYNC_ID_MAX 65535U /* knet_node_id_t has 16 bits */
#define COROSYNC_KEY_SIZE 128U /* what corosync-keygen calls 1024 bits: raw bytes, the least that corosync takes */
#define COROSYNC_TEXT_MAX (64U << 10)

/* A host is given up after about 2.2 x this. 300 gives false alarms on a loaded host. */
#define COROSYNC_TOKEN_MS 1000U
#define COROSYNC_TOKEN_MS_MIN 300U
#define COROSYNC_TOKEN_MS_MAX 30000U

struct corosync_node {
	unsigned id;
	char name[NAME_MAX_CHARS + 1];
	char addresses[COROSYNC_LINKS_MAX][ADDRESS_TEXT_MAX]; /* one per link, as address_parse() spells them */
};

/* What is the same on every host. */
struct corosync_conf {
	char cluster[NAME_MAX_CHARS + 1];
	uint64_t version; /* grows with every change; a starting host with an old file is sent away by the others */
	unsigned token_ms;
	char qdevice[256]; /* host of corosync-qnetd, "" without one */
	size_t n_links;
	size_t n_nodes;
	struct corosync_node nodes[COROSYNC_NODES_MAX];
};

/* What each host decides for itself. */
struct corosync_local {
	const char *key_path;
	bool to_syslog;
	bool to_stderr;
	bool qdevice_tls; /* speak TLS with the qdevice, or not at all; false: without TLS */
};

/* Could corosync run with this? ERR_INPUT with the node and the reason. Pure. */
int corosync_conf_check(const struct corosync_conf *c, struct err *e);

/* The text of corosync.conf; caller frees. NULL with @e when corosync_conf_check() refuses. Pure. */
char *corosync_conf_text(const struct corosync_conf *c, const struct corosync_local *local, struct err *e);

/* Read back what we wrote, comments and fields that are not ours skipped. ERR_INPUT when it is not a file of ours: no
 * knet, no encryption, or anything that corosync_conf_check() refuses. The qdevice comes back only where it counts (see
 * corosync_votes()). Pure. */
int corosync_conf_parse(const char *text, struct corosync_conf *ret, struct err *e);

/* The node with this name or id, NULL when there is none. */
const struct corosync_node *corosync_node_find(const struct corosync_conf *c, const char *name, unsigned id);

/* The rules of votes. Pure. */
struct corosync_votes {
	unsigned expected; /* all votes, the qdevice's included */
	unsigned quorum;   /* how many of them are needed */
	bool two_node;     /* two hosts without a qdevice: one is enough, after both have met once since their start */
	bool device;       /* the qdevice votes: with an even number of hosts, where it breaks the tie */
};
struct corosync_votes corosync_votes(size_t n_nodes, bool qdevice);

/* A random key. 0 or -1 with @e. */
int corosync_key_make(uint8_t ret[COROSYNC_KEY_SIZE], struct err *e);

/* Replace @dir/corosync.conf (0644) and, unless @key is NULL, the key at @local->key_path (0400), each durably and
 * whole. @dir is made when it is not there. corosync goes on as it is until it is told. */
int corosync_write(const char *dir, const struct corosync_conf *c, const struct corosync_local *local,
		   const uint8_t *key, struct err *e);

/* Have every running corosync of the cluster read its own file again: all files must have been written before. The
 * first waits until @deadline_ns; the second returns at once with a child to wait for (exit status 0: done). */
int corosync_reload(int64_t deadline_ns, struct err *e);
int corosync_reload_start(struct child *ret, struct err *e);

#endif
