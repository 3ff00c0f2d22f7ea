/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol of the replicated log: pure, driven by events, acting through a table of operations. */
#ifndef GODWIT_CLUSTER_CORE_H
#define GODWIT_CLUSTER_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "cluster/bus.h"
#include "cluster/entry.h"

/*
 * Theory of operation (promise S3; the table of every step and every crash is in docs/cluster.md)
 *
 * What it does. Members keep the same log of commands on their disks and apply it, in order, to the same state. A
 * command is acknowledged once a majority of the configured hosts has it on disk, and from then on it is in every log
 * that the cluster goes on with. The rules are Raft's (Ongaro, "Consensus: Bridging Theory and Practice", sections 3.4
 * to 3.6, 3.8 and 5); what differs is that a view of the bus, not a time-out, starts an election, and that one
 * multicast reaches everybody.
 *
 * Why the bus's total order is not enough. Corosync delivers in AGREED order: a message may have been given to a host
 * that is cut off in the same instant and to nobody else. Worse, a host that is cut off gives its process, before the
 * new view, what it has of the old one *with gaps* (totem's transitional configuration, which CPG hides). A log made of
 * whatever the bus delivers could thus hold, at the same epoch and index, something else than the majority's, be longer
 * than it, and win against it. So one member, the leader, writes the log: it gives every command its epoch and index
 * and names the entry before it, and the others take it only where it fits. Order, completeness and uniqueness come
 * from that check; a bus that loses, repeats or reorders can slow the cluster down and can do nothing else.
 *
 * Epochs. An epoch has at most one leader, because a member promises an epoch to one member only and never again
 * accepts anything older, the promise is on its disk before it is given, and a leader needs the promises of a majority
 * of the *configured* hosts. Were the majority of the present enough, or the promise kept in memory, two short-lived
 * views could both use epoch 7 and both write index 100; whichever came back first with more entries would win,
 * although the other one's entry may have been acknowledged.
 *
 *   view          each member multicasts SYNC{where my log ends, what I promised, newest command version I know}
 *   all, or 1 s   the member with the most advanced log (epoch, then index; on ties turn() decides) among those heard
 *                 sends CLAIM{epoch = highest promise + 1}. A ghost, a member that the bus names and nobody hears, only
 *                 costs that second.
 *   promise       a member whose promise is older and whose log is not more advanced than the claimant's writes the
 *                 promise to its disk, then sends PROMISE. Otherwise it refuses; but whoever may not lead itself does
 *                 not look at the logs (below).
 *   lead          with promises of a majority, its own among them, the claimant leads: it writes an entry of kind
 *                 EPOCH into its log. The first entry of an epoch is counted like any other, and what older epochs left
 *                 behind counts only through it (Raft, section 3.6.2).
 *
 * Entries. PROPOSE goes to all and is taken by the leader; ENTRIES{epoch, entry before, commit, entries} goes to all. A
 * member that has the entry before cuts off what it has in its place (never anything committed), appends, syncs its
 * disk and tells the leader ACK{epoch, index}, which says: my disk holds the leader's log up to index, an entry of this
 * epoch; unless it knows that a majority has said so already, then it keeps quiet until the next one. An entry with the
 * ACKs of a majority of the configured is committed; the leader counts, and ENTRIES say how far it has come. Only
 * committed entries are applied, so a minority's tail is cut off without a trace in the state, and whoever reads the
 * state never sees what is taken back.
 *
 * An ACK goes to the leader alone, past the bus's order, if the bus has such a way: waiting for the token once more
 * costs a single command a quarter of its time, and many members spend theirs on hearing what one of them needs. It may
 * be lost, so whoever sees that the commit does not come says it over the bus, again and again. And it may come at any
 * time later, from a member that has promised another epoch since, was cut off or has died. What it said stays true of
 * the moment in which it was said, and more is not needed: whatever a majority had on their disks before they promised
 * a newer epoch is in the log of whoever they promise it to (Raft, section 3.6.3). Only an ACK of another epoch must
 * not be counted.
 *
 * Fate of a proposal. It carries the epoch in which it was sent, and only that epoch's leader may take it. When a
 * member has applied an entry of a newer epoch and the proposal has not gone by, it never will: it is proposed again. A
 * command that is in the log twice is applied once, because the store knows the ids of the last CORE_DONE_KEPT entries
 * and answers a repetition with the first result. A caller is told "not applied" only while the proposal was never
 * sent.
 *
 * Catching up is pulled. A member that misses the entry before asks NEED{what I have}; the leader answers with entries,
 * or, when its log does not go back that far, with a snapshot that is fetched piece by piece. Live entries that come
 * meanwhile wait in a bounded queue. What the member's own log holds behind the snapshot's last entry stays there if it
 * holds that entry: it may be committed. If it has another one in its place, nothing behind that was ever committed. If
 * its log begins later, or its state is known to be wrong, it is a learner from now on.
 *
 * A learner is a member whose disk does not vouch for what it has acknowledged: a new host, one whose database was
 * lost, one whose state was wrong and which took another one's. With V configured hosts and majorities of m = V/2 + 1,
 * a set of promises must hold m members, and V - m + 1 that vouch: those meet every majority that can have acknowledged
 * something. A learner that has appended an entry of an epoch that is younger than its process, and what it has
 * acknowledged in it, is one no more. A host alone grows to two and three by this rule, and a wiped host cannot help to
 * forget.
 *
 * A member that may not lead, because it is a learner or knows that its state is wrong, must not hinder others either:
 * its log may be the longest there is, and nobody would lead for ever. So it promises whatever its log is. A learner
 * never vouches; one whose state is wrong vouches if the claimant's log is no older than its own. Where V has just
 * changed and is even, the V/2 that vouch may miss a majority of the V before: two faults in the moment of such a
 * change, one of them a state or a disk that is lost, are not covered.
 *
 * Two-host clusters: m is 2, so both hosts must be up to write, unless one goes on alone: cluster/core-alone.c has the
 * rules, docs/cluster.md ("Two hosts") what they answer.
 *
 * Checking. Every member computes, while it applies, a chain of SHA-256 over commands and results, and at entries of
 * kind CHECK a digest of all tables. They are multicast and compared; whoever sees a difference raises an alarm. A
 * member that a majority of the configured contradicts writes down that its state is wrong and fetches a snapshot; if
 * it does not know, nobody who does lets it lead. Without a majority the alarm stands and no state is thrown away,
 * because a leader whose disk has rotted must not spread it; only in a cluster of two the leader is believed.
 *
 * Histories. The log of a cluster has a random number from its first day. A member with another one is left out, by
 * name: a host that comes from another cluster, however long its log.
 *
 * Purity: no clock (every event brings the time), no file, no thread. All calls come from one thread.
 */

/* Times, all generous: they matter only when something is already wrong. */
#define CORE_SYNC_LIMIT (1 * NS_PER_S)    /* for every member's SYNC; then whoever is missing is left out */
#define CORE_CLAIM_LIMIT (1 * NS_PER_S)   /* for a claim, and for its promises; then a new round */
#define CORE_SILENT_LIMIT (3 * NS_PER_S)  /* without a sign of the leader's life; then a new round */
#define CORE_ECHO_LIMIT (3 * NS_PER_S)    /* until a message of ours comes back to us; then a new round */
#define CORE_BEAT_EVERY (500 * NS_PER_MS) /* the leader's sign of life */
#define CORE_ACK_AGAIN (250 * NS_PER_MS)  /* an ACK to the leader alone that no commit followed goes to all */
#define CORE_COMMIT_LAZY                                                                                               \
	(5 * NS_PER_MS) /* a commit that nobody else waits for goes with what comes next, or then; ... */
#define CORE_COMMIT_LAZIEST (100 * NS_PER_MS) /* ... later while entries come anyway, but not later than that */
#define CORE_NEED_AGAIN (1 * NS_PER_S)        /* repeat an unanswered NEED */
#define CORE_FETCH_LIMIT (5 * NS_PER_S)       /* a snapshot that stands still is asked for anew */
#define CORE_SNAPSHOT_KEPT (20 * NS_PER_S)    /* a snapshot that nobody fetches is dropped */
#define CORE_UNSENT_LIMIT (5 * NS_PER_S)      /* a proposal waits that long for a leader */
#define CORE_CHECK_EVERY (60 * NS_PER_S)

#define CORE_PENDING_MAX 16384U            /* own proposals without an answer */
#define CORE_PENDING_BYTES (64U << 20)     /* and their bytes */
#define CORE_BATCH_BYTES (128U << 10)      /* of entries in one message, unless one alone is larger */
#define CORE_CHUNK_BYTES (512U << 10)      /* of the log or of a snapshot, sent on demand */
#define CORE_UNCOMMITTED_MAX 16384U        /* entries that a leader lets run ahead of the disks ... */
#define CORE_UNCOMMITTED_BYTES (64U << 20) /* ... and their bytes */
#define CORE_DONE_KEPT 32768U              /* a command that comes again within so many entries is known again */
#define CORE_STASH_BYTES (16U << 20)       /* live entries kept while catching up */

/* What is on this member's disk when it starts, or after a snapshot was installed. */
struct core_disk {
	uint64_t promised;    /* newest epoch promised ... */
	uint32_t promised_to; /* ... and to whom */
	uint64_t history;     /* 0: none yet */
	bool learner, diverged;
	bool alone; /* one of two that goes on without the other */
	uint64_t applied, applied_epoch;
	uint8_t chain[32];   /* over everything applied; of no use to the core itself */
	struct entry **tail; /* the log behind applied, without a gap; core_new() takes the references */
	size_t n;
};

/* One step for the disk. Steps are done in the order given, each wholly or not at all. */
struct core_write {
	uint64_t serial;
	bool meta; /* write the fields of this block */
	uint64_t promised;
	uint32_t promised_to;
	uint64_t history;
	bool learner, diverged, alone;
	uint64_t cut_from;           /* first remove entries from this index on; 0: none */
	struct entry *const *append; /* borrowed during the call, like those below */
	size_t n_append;
	struct entry *const *apply; /* committed, in order, each once */
	size_t n_apply;
};

/* Why a proposal is refused. */
enum core_refusal {
	CORE_REFUSED_NO_QUORUM, /* this side of the cluster may not write */
	CORE_REFUSED_NOT_SYNCED,
	CORE_REFUSED_DISK,    /* this host's disk takes nothing */
	CORE_REFUSED_BUSY,    /* too many are waiting */
	CORE_REFUSED_VERSION, /* some member does not know this version of the command */
	CORE_REFUSED_LOST,    /* this host was away so long that nobody remembers whether it was applied */
	CORE_REFUSED_ALONE,   /* one of two goes on alone: nobody joins before the other one is back or is removed */
	CORE_REFUSED_MAX
};

enum core_alarm {
	CORE_ALARM_DISK,    /* this host's disk takes nothing */
	CORE_ALARM_DIGEST,  /* the state of `node` differs from the others' */
	CORE_ALARM_HISTORY, /* `node` has the log of another cluster */
	CORE_ALARM_VERSION, /* the log holds a command that this build does not know */
	CORE_ALARM_ALONE,   /* `node` says that it goes on alone, and so does this host: there are two logs */
	CORE_ALARM_MAX
};

/* What the core asks for. None of these may call back into the core. */
struct core_io {
	void (*send)(void *arg, const void *data, size_t size);
	/* bus_send_to() */
	bool (*send_to)(void *arg, uint32_t node, const void *data, size_t size);
	/* Ends in core_written() or core_write_failed(). */
	void (*write)(void *arg, const struct core_write *w);
	/* Entries from @index on, as far as the disk has them, at most @max and about @bytes. Caller unrefs. */
	size_t (*read)(void *arg, uint64_t index, size_t bytes, struct entry **ret, size_t max);
	/* Make a snapshot of the state as it is: ends in core_snapshot_made(). */
	void (*snapshot_make)(void *arg);
	size_t (*snapshot_read)(void *arg, uint64_t offset, void *buf, size_t size);
	void (*snapshot_drop)(void *arg);
	/* The other end: take a snapshot of @size bytes, its pieces in order (each ends in core_fetch_written()),
	 * install it (ends in core_fetch_installed()), or forget it. */
	void (*fetch_begin)(void *arg, uint64_t size);
	void (*fetch_data)(void *arg, uint64_t offset, const void *data, size_t size);
	void (*fetch_install)(void *arg);
	void (*fetch_drop)(void *arg);
	/* A proposal got its answer without being applied. @version: for CORE_REFUSED_VERSION, the newest that all
	 * know. */
	void (*refused)(void *arg, void *user, enum core_refusal why, uint32_t version);
	/* An alarm begins (@on) or ends; told once. */
	void (*alarm)(void *arg, enum core_alarm what, uint32_t node, bool on);
	/* Both for going on alone, which nobody does without them. How many hosts has the cluster by the state as it is
	 * applied, and does @e make them more (1) or fewer (-1)? */
	unsigned (*hosts)(void *arg);
	int (*hosts_change)(void *arg, const struct entry *e);
};

struct core_options {
	uint32_t self;
	uint32_t version;       /* newest command version that this build can apply */
	uint64_t first_seq;     /* random: proposals of an earlier life of this process must not look like ours */
	int64_t check_every_ns; /* 0: CORE_CHECK_EVERY */
	bool break_ack_early;   /* tests only: acknowledge before the disk has it */
	bool break_epoch_reuse; /* tests only: promise without writing it down */
	bool break_minority;    /* tests only: be content with a majority of the present */
	bool break_proof;       /* tests only: go on alone without a proof that the other one is dead */
	bool break_late;        /* tests only: take a proof from before the other one was here again */
	bool break_whole;       /* tests only: go on alone without having been whole */
	bool break_alone_acks;  /* tests only: count the other one's acknowledgements while alone */
	const struct core_io *io;
	void *arg;
};

enum core_state { CORE_STARTING, CORE_NO_QUORUM, CORE_SYNCING, CORE_SYNCED, CORE_STATE_MAX };

struct core_status {
	enum core_state state;
	bool quorate, leading;
	uint32_t leader; /* 0: none */
	uint64_t epoch;  /* that of the leader, 0: none yet */
	uint64_t promised, applied, applied_epoch, last, commit, history;
	unsigned expected, needed;
	uint32_t lowest_version; /* newest command version that every member heard knows */
	int64_t fresh_ns;        /* when the applied state was last known to be the newest; 0: never */
	bool fetching;
	uint64_t fetched, fetch_size;
	size_t pending;
	bool alone;         /* goes on alone, and its disk says so */
	bool may_alone;     /* one of two: would go on alone if the other one were proven dead now */
	uint32_t whole;     /* one of two: with whom it has been in step since its process started, 0: with nobody */
	uint64_t by_itself; /* names the time since which nobody else was here or was heard, 0: somebody is */
};

struct core;

/* Caller frees. Borrows @o->io and what it points to. */
struct core *core_new(const struct core_options *o, const struct core_disk *disk);
void core_free(struct core *c);

/* Events. After one or several of them call core_flush(), which sends and writes what has gathered. */
void core_view(struct core *c, int64_t now, const struct bus_view *view);
void core_deliver(struct core *c, int64_t now, uint32_t from, const uint8_t *data, size_t size);
/* What came past the order. */
void core_direct(struct core *c, int64_t now, uint32_t from, const uint8_t *data, size_t size);
/* Everything up to @serial is on the disk, in order. Entries applied were told by core_applied() before. */
void core_written(struct core *c, uint64_t serial);
/* The disk took nothing; the step is tried again until it does, and core_written() says when. */
void core_write_failed(struct core *c, int64_t now);
/* @e is applied and on the disk. Returns the @user of the proposal if it is one of ours that still waits. */
void *core_applied(struct core *c, const struct entry *e);
/* Digests of the state behind entry @index; @state is zero where none was computed. */
void core_checked(struct core *c, uint64_t index, const uint8_t chain[32], const uint8_t state[32]);
void core_snapshot_made(struct core *c, int64_t now, bool ok, uint64_t size, uint64_t index);
void core_fetch_written(struct core *c, int64_t now, uint64_t upto);
/* @disk NULL: it was no good. */
void core_fetch_installed(struct core *c, int64_t now, const struct core_disk *disk);
/* The other one of two, @node, was dead at some moment after the time that core_status.by_itself names began: its
 * process of that moment is gone. Without effect once that time is over. What counts as a proof is in docs/cluster.md.
 */
void core_dead(struct core *c, uint32_t node, uint64_t by_itself);
void core_tick(struct core *c, int64_t now);
void core_flush(struct core *c, int64_t now);

/* When core_tick() is due. */
int64_t core_deadline(const struct core *c);

/* Propose a command of @version. 0: it ends in core_applied() or io.refused(), exactly once; -1: refused at once,
 * @ret_why and @ret_version say why. */
int core_propose(struct core *c, int64_t now, uint32_t version, const void *data, size_t size, void *user,
		 enum core_refusal *ret_why, uint32_t *ret_version);

void core_status(const struct core *c, struct core_status *ret);
const char *core_state_name(enum core_state state); /* "starting", "no-quorum", "syncing", "synced" */

/* May commands be proposed right now? */
bool core_writable(const struct core *c);

#endif
