/* SPDX-License-Identifier: Apache-2.0 */
/* The replicated state as the rest of a daemon sees it: propose a command, be told what became of it, read tables. */
#ifndef GODWIT_CLUSTER_REPLICA_H
#define GODWIT_CLUSTER_REPLICA_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "cluster/bus.h"
#include "cluster/machine.h"

struct sqlite3;

/*
 * A replica is the protocol (cluster/core.h), a bus, a store and the loop that drives them, in the loop's thread. It is
 * never freed out of one of its own callbacks; everything else may be called there.
 *
 * A command is a JSON object; `id` (a string that its caller makes up) names it, so that asking again is safe for as
 * long as CORE_DONE_KEPT entries; `v` is the version of its meaning (1 when it has none).
 */

struct replica_options {
	struct bus *bus; /* takes, also on failure */
	const struct machine *machine;
	const char *path; /* of the database */
	uint64_t history; /* not 0: create the first database of a new cluster of this name */

	/* An entry is applied and on this host's disk. @result NULL: it was refused, @e says why; otherwise @e is NULL.
	 */
	void (*applied)(void *arg, uint64_t index, const json_t *command, const json_t *result, const struct err *e);

	/* View, quorum, leader, sync or alarms have changed. */
	void (*changed)(void *arg);

	/* A message of replica_say() has come from @node, which may be this host. */
	void (*heard)(void *arg, uint32_t node, const uint8_t *data, size_t size);

	/* The bus has told a view. */
	void (*view)(void *arg, const struct bus_view *view);
	void *arg; /* of all, each of which may be NULL */
};

struct replica;

/* Caller frees. -1 with @e, which says what to do: the database is damaged, newer than this program, or in use. */
int replica_new(struct loop *loop, const struct replica_options *o, struct replica **ret, struct err *e);

/* Proposals without an answer are answered: whether they were applied is not known. NULL is fine. */
void replica_free(struct replica *r);

/* The answer to a proposal: exactly one of @result and @e is not NULL. After a result, and after a refusal by the state
 * machine, the command is on the disks of a majority and its effect on this one. ERR_UNAVAILABLE: it was not applied.
 * ERR_TIMEOUT: it is not known whether it was. */
typedef void replica_done_fn(void *arg, const json_t *result, const struct err *e);

/* Propose a command (borrowed). 0: @done is called once, later. -1 with @e: refused at once, it is not applied:
 * ERR_UNAVAILABLE without quorum, without sync, with a full disk or queue; ERR_UNSUPPORTED while a member does not know
 * this version; ERR_INPUT when it is too large or no object. */
int replica_propose(struct replica *r, const json_t *command, replica_done_fn *done, void *arg, struct err *e);

/* Send a small message (BUS_URGENT_MAX bytes) to all members beside the log: not in its order, not kept, and ahead of
 * what it has to send. Its first byte is not MSG_MAGIC. Lost while the bus is away, like any. */
void replica_say(struct replica *r, const void *data, size_t size);

/* Read-only, as of the newest entry on this host's disk. */
struct sqlite3 *replica_db(struct replica *r);

/* One of two hosts can go on alone once the other one is proven dead. Read replica_by_itself() first: it names the time
 * since which nobody else is here (0: somebody is, there is nothing to prove). Then see the other host's daemon dead,
 * and say so with that number; one whose time is over has no effect. Its power read as off is a proof. That its guests
 * are gone is none, as its daemon may live: an expired lease, or a pill that has ended guests only. */
uint64_t replica_by_itself(const struct replica *r);
void replica_dead(struct replica *r, uint32_t node, uint64_t by_itself);

/* Would a proof have this host go on alone? Not when it has not been in step with the other one since its daemon
 * started, when corosync has no quorum here, or when it is alone already. And does it go on alone? */
bool replica_may_alone(const struct replica *r);
bool replica_alone(const struct replica *r);

/* {state, quorate, expected, needed, members[], leader, epoch, index, digest, age_ms, alarms[], pending}. members and
 * leader are ids of nodes (leader 0: none); digest is a chain over all commands and answers up to index: two members
 * with the same index have the same. alone: true while
 * this host goes on without the other one of two, else missing. age_ms: how old what this host knows may be; missing
 * while it has never been in sync. New reference. */
json_t *replica_status(struct replica *r);

/* Quorate and caught up: proposals are taken. */
bool replica_synced(const struct replica *r);

/* This host writes the log. It is also the one that manages the cluster: nothing unsafe follows if two believe so. */
bool replica_leads(const struct replica *r);

/* This host's id; 0 until the bus has told a view. */
uint32_t replica_self(const struct replica *r);

/* Is @node present, as this host sees it? */
bool replica_member(const struct replica *r, uint32_t node);

#endif
