/* SPDX-License-Identifier: Apache-2.0 */
/* Who may join the cluster and who may leave it: decisions without I/O. */
#ifndef GODWIT_NODE_MEMBERSHIP_H
#define GODWIT_NODE_MEMBERSHIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "node/corosync.h"
#include "node/join.h"

/* A node that is in the cluster now. */
struct member {
	unsigned id;
	const char *name;
	const char *const *addresses; /* membership.n_links of them */
	bool online;                  /* votes now */
	unsigned guests;              /* that it owns, running or not */
};

/* The cluster as the replicated state has it. Borrowed during a call. */
struct membership {
	const struct member *members;
	size_t n;
	size_t n_links;
	unsigned highest_id; /* ever given to a node, also to those that left */
	unsigned command;    /* newest version of commands that the cluster uses */
	bool qdevice;        /* one is configured */
	bool qdevice_online; /* and votes now */
};

/* May the host join, and as which id? @now_ms: the wall clock here. Refused with a sentence each: a name or an address
 * that is taken, another number of addresses than the cluster has links, IPv4 where the others have IPv6, a full
 * cluster, no id left, commands older than the cluster's, a clock too far off, and a join that would cost the cluster
 * its quorum until the new host is up. Ids are never reused: what is still around of a node that left (votes in
 * corosync, entries of the log, certificates) must not be taken for another's. Pure. */
int membership_add(const struct membership *m, const struct join_request *r, int64_t now_ms, unsigned *ret_id,
		   struct err *e);

/* May the node leave? Refused: unknown, the last one, owns guests, and, unless @force, when those of the others that
 * are online would not be quorate. Pure. */
int membership_remove(const struct membership *m, const char *name, bool force, struct err *e);

#endif
