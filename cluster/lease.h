/* SPDX-License-Identifier: Apache-2.0 */
/* The lease: until when this host may run guests, and when another one certainly runs none any more. Pure. */
#ifndef GODWIT_CLUSTER_LEASE_H
#define GODWIT_CLUSTER_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/beat.h"
#include "cluster/bus.h"
#include "fencing/timing.h"

/*
 * Every host multicasts a beat every beat_ns. It names, for each configured host, the newest beat that its sender has
 * heard of that host, and how long ago that was. So a beat is an echo of those of others, and a statement: "for so long
 * I have heard nothing of this host, and have echoed nothing newer".
 *
 * My lease runs for lease_ns, counted from the sending of my newest beat that a majority has echoed (this host is one
 * of it). A host runs no guest any more at a time D when a majority states that from some t0 to D it heard nothing of
 * it, and D - t0 is expire_ns or more. The two majorities have a host Y in common. What Y echoed up to D was sent
 * before t0, so that no lease held up to D ends later than t0 + lease_ns; the watchdog does the rest within
 * watchdog_ns. The whole argument, with what it assumes about clocks and watchdogs, is in docs/timing.md. What it does
 * not need:
 *
 *   - Views. The bus may tell them late, to some only, or with ghosts: who is silent is silent. A view decides only
 *     whether this host's own lease is extended, which needs quorum, and wakes whoever waits.
 *   - An order, or that a message arrives, or once, or soon. A lease counts from the time when a beat was sent. A
 *     statement is stretched over the time for which it certainly holds: it begins its age before it has arrived, and
 *     ends when that beat of mine was sent that its sender had heard by then.
 *   - That daemons live long. Echoes of an earlier incarnation's beats are not mine: I do not know when they were sent.
 *     A host that has just started has heard nobody yet and says so from its start on: what its predecessor echoed, it
 *     echoed before. So silence is counted too short, never too long.
 *   - That the configuration is the same everywhere. With each beat comes the list of hosts that its sender counts
 *     with. A set of hosts is a majority when it is one of each member's own list. A host that takes a new list starts
 *     anew, as if its daemon had. Then majorities meet over any number of changes of one host each, provided that one
 *     is made only after a majority of the hosts of the list before has taken that (lease_settled()): Y takes it after
 *     its last echo under an older one, and nobody states a silence under the next list that began before.
 *
 * D lies in the past of whoever asks: a host that slept has old statements, and they prove nothing about what came
 * after. And the proof is about guests started before D. A host may come back with a new lease at any moment, so that
 * it must say so in the log before it starts any; an entry that it is dead is refused after that.
 *
 * Two hosts have no majority without each other. If the replicated state says so of this host (lease_alone()), its
 * lease is quorum: it lasts while corosync calls this side quorate. Silence proves nothing of such a host, nor for one.
 * One host alone needs no lease: it is for ever.
 *
 * All times are nanoseconds of CLOCK_BOOTTIME. All calls from one thread.
 */

#define LEASE_FOREVER INT64_MAX

struct lease_options {
	uint32_t self;
	uint64_t incarnation; /* random, not 0; never used before by this host */
	struct timing
		timing; /* of this host; other times need a new lease, and the state must say so before if longer */
	/* Rules broken on purpose: a simulator must notice. */
	bool break_arrival;  /* count from the arrival of the echo */
	bool break_majority; /* one echo is enough */
};

struct lease;

/* Caller frees. */
struct lease *lease_new(const struct lease_options *o, int64_t now_ns);
void lease_free(struct lease *l); /* NULL is fine */

/* The bus has told a view. */
void lease_view(struct lease *l, int64_t now_ns, const struct bus_view *v);

/* May the lease of this host, one of two, be quorum alone? Only once the replicated state says of it that it is. */
void lease_alone(struct lease *l, bool alone);

/* The beat to send, if one is due; its size, or 0. @now_ns must have been read before this call: the lease is counted
 * from it. The message is to be given to the bus ahead of others. */
size_t lease_beat(struct lease *l, int64_t now_ns, uint8_t buf[BEAT_SIZE_MAX]);

/* When lease_beat() has something next; -1: not before a view. */
int64_t lease_due(const struct lease *l);

/* A beat has come, also one of our own. -1 with @e when it is none. */
int lease_heard(struct lease *l, int64_t now_ns, uint32_t from, const void *data, size_t size, struct err *e);

/* Until when guests may run here; may be in the past. 0: there has been no lease since the start, so that what the
 * predecessor was granted still holds. LEASE_FOREVER: one host alone. */
int64_t lease_until(const struct lease *l);

/* Since when @node has been missing from the views of this host: -1 when it is present. For a host that was never seen,
 * since the first view, or since it was configured: later than the truth, never earlier. */
int64_t lease_gone_since(const struct lease *l, uint32_t node);

/* The newest time D for which it is proved that @node runs none of the guests that it had been given before D; -1:
 * there is no proof. @t: the times that the replicated state names for @node; the caller knows from there, too, that
 * @node has a watchdog that is armed with them and a lease that is more than quorum. The proof frees what is in the
 * state since before D: the caller compares D with the time at which the entry was applied here that says that @node is
 * lost. */
int64_t lease_dead_upto(const struct lease *l, int64_t now_ns, uint32_t node, const struct timing *t);

/* When the silence of @node, if it goes on, will have been long enough; the proof then needs one more beat of the
 * others. -1: never, or not known yet. For timers and for people. */
int64_t lease_dead_at(const struct lease *l, uint32_t node, const struct timing *t);

/* A majority counts with the same list of hosts as this one. Before that, no host may be added or removed. */
bool lease_settled(const struct lease *l);

#endif
