/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the protocol's core share. */
#ifndef GODWIT_CLUSTER_CORE_INT_H
#define GODWIT_CLUSTER_CORE_INT_H

#include <sys/queue.h>

#include "cluster/core.h"
#include "cluster/msg.h"

enum core_phase {
	PHASE_IDLE,    /* no view, or one without quorum */
	PHASE_SYNCING, /* a round is on: SYNCs, a claim, promises */
	PHASE_FOLLOWING,
	PHASE_LEADING,
};

/* A member that was heard of. */
struct peer {
	uint32_t id;
	bool in_view;
	/* of the current round */
	bool heard;
	uint8_t flags; /* MSG_LEARNER, MSG_FAILED, MSG_DIVERGED */
	bool stranger; /* its history is another one */
	uint64_t promised, last_epoch, last_index;
	uint32_t version;
	bool granted, granted_learner;
	/* of the current epoch */
	uint64_t ack;
	/* the newest digests it told */
	uint64_t check_index;
	uint8_t chain[32], state[32];
	bool check_alarm;
	bool doubted; /* a majority contradicted its digests, and it does not say that it knows */
};

/* A proposal of ours without an answer. */
struct pending {
	TAILQ_ENTRY(pending) link; /* in core.unsent while it is there */
	bool unsent;
	bool doubtful; /* it may be in a part of the log that went by inside a snapshot */
	uint64_t seq;
	uint64_t epoch;      /* in which it was sent */
	uint64_t sent_index; /* how far the log went then */
	int64_t since;
	uint32_t version;
	void *user;
	size_t size;
	uint8_t data[];
};

struct stashed {
	STAILQ_ENTRY(stashed) link;
	uint32_t from;
	size_t size;
	uint8_t data[];
};

struct queued {
	STAILQ_ENTRY(queued) link;
	struct entry *entry;
};

struct core {
	struct core_options o;
	const struct core_io *io;
	void *arg;

	struct bus_view view;
	bool has_view;
	enum core_phase phase;
	struct peer peers[BUS_NODES_MAX];
	size_t n_peers;

	/* the round */
	uint32_t round;
	int64_t round_deadline; /* 0: none */
	bool waiting_claim;     /* somebody else should claim */
	bool claimed;
	uint64_t claim_epoch;

	/* promise and flags, as they will be on the disk when what is queued is written */
	uint64_t promised;
	uint32_t promised_to;
	uint64_t history;
	bool learner, diverged, alone;
	bool meta_dirty;
	uint64_t promise_serial;  /* the write after which PROMISE is sent ... */
	bool promise_due;         /* ... once one has taken it */
	bool promise_vouches;     /* the log of the one it goes to is no older than ours */
	uint64_t promised_before; /* when this process began: what it acknowledged until then, it does not know */

	/* one of two (core-alone.c) */
	uint64_t alone_serial; /* the write after which the mark counts ... */
	bool alone_due;        /* ... which has not come back */
	bool alone_begin;      /* it has: begin a round */
	bool alone_closing;    /* the other one has nearly all: nothing more is taken until it has */
	bool rival;            /* the other one says that it is alone as well */
	uint32_t whole;        /* with whom, 0: not */
	uint64_t itself;       /* counts the times without anybody else */
	uint32_t dead;         /* proven in this one, 0: nobody */

	/* the log: `tail` holds the entries behind `applied` */
	uint64_t applied, applied_epoch;
	struct entry **tail;
	size_t tail_cap, tail_head, tail_n;
	size_t tail_bytes;
	uint64_t unwritten; /* first index that no write has taken yet */
	uint64_t cut_from;  /* for the next write */
	uint64_t durable;   /* on the disk up to here */
	uint64_t apply_issued;
	uint64_t serial;

	/* the epoch that is followed or led */
	uint64_t epoch;
	uint32_t leader;
	bool epoch_alone; /* its leader goes on alone: no other disk counts */
	bool epoch_two;   /* its leader and this member counted two hosts when it began */
	uint64_t matched; /* the log is the leader's up to here */
	uint64_t commit;
	uint64_t acked;       /* last ACK sent */
	uint64_t ack_watched; /* one that went to the leader alone and is not committed yet */
	int64_t ack_again_ns; /* when the last one goes to all because of that; 0: all is committed, or went to all */
	bool synced, was_synced;
	int64_t heard_ns; /* last sign of the leader's life, or of our own as the leader */
	int64_t fresh_ns;
	uint64_t fresh_goal; /* applied up to here is the newest that was known at ... */
	int64_t fresh_goal_ns;
	bool failed; /* the disk takes nothing */

	/* leading */
	STAILQ_HEAD(queued_list, queued) queue;
	size_t queue_n, queue_bytes;
	unsigned entries_inflight;    /* ENTRIES sent that have not come back */
	uint64_t commit_told;         /* by the newest ENTRIES */
	int64_t commit_tell_ns;       /* when a newer one is told at the latest, 0: there is none */
	int64_t lead_ns, lead_gap_ns; /* when the newest entries were sent, and how long after those before */
	bool commit_waited;           /* a caller on another host waits for it */
	int64_t check_ns;

	/* proposing */
	uint64_t seq, seq_oldest;
	struct pending **pending; /* CORE_PENDING_MAX slots by seq */
	size_t pending_n, pending_bytes;
	TAILQ_HEAD(pending_list, pending) unsent;
	bool propose_inflight;
	int64_t inflight_ns; /* since when something of ours is on the bus, 0: nothing is */

	/* catching up */
	int64_t need_ns; /* last NEED, 0: none is out */
	STAILQ_HEAD(stash_list, stashed) stash;
	size_t stash_bytes;
	bool fetching, fetch_installing;
	uint64_t fetch_id, fetch_size, fetch_asked, fetch_got, fetch_written;
	int64_t fetch_ns;

	/* giving */
	bool snapshot_making, snapshot_ready;
	bool snapshot_wrong; /* the one being made: of a state that is known to be wrong since */
	uint64_t snapshot_id, snapshot_size, snapshot_index;
	uint32_t snapshot_for[BUS_NODES_MAX];
	size_t snapshot_for_n;
	int64_t snapshot_ns;

	/* own digests */
	uint64_t check_index;
	bool check_due;
	uint8_t chain[32], state[32];
	bool alarms[CORE_ALARM_MAX];

	struct msg_buf buf;
};

/* core.c */
struct peer *peer_get(struct core *c, uint32_t id);
void round_begin(struct core *c, int64_t now, uint32_t round);
void core_send_msg(struct core *c, struct msg *m);
bool core_send_msg_to(struct core *c, uint32_t to, struct msg *m); /* false: not sent */
void alarm_set(struct core *c, enum core_alarm what, uint32_t node, bool on);
void disk_works(struct core *c);

/* core-log.c */
uint64_t log_last(const struct core *c);
uint64_t log_last_epoch(const struct core *c);
struct entry *log_entry(const struct core *c, uint64_t index); /* NULL: not in the tail */
uint64_t log_epoch_of(const struct core *c, uint64_t index);   /* of applied and everything behind it */
void log_append(struct core *c, struct entry *e);              /* takes @e */
bool log_cut(struct core *c, uint64_t from);                   /* false: it would take back what is committed */
void log_reset(struct core *c, const struct core_disk *disk);
void log_free(struct core *c);
void log_lead(struct core *c, int64_t now);
/* @flags: what its leader says of itself, MSG_ALONE and MSG_TWO. */
void log_epoch_begin(struct core *c, uint64_t epoch, uint32_t leader, uint8_t flags, int64_t now);
void log_beat(struct core *c, int64_t now);
void log_on_entries(struct core *c, int64_t now, uint32_t from, struct msg *m, const uint8_t *data, size_t size);
void log_on_ack(struct core *c, uint32_t from, const struct msg *m);
void log_tick(struct core *c, int64_t now);
void log_flush(struct core *c, int64_t now);

/* core-alone.c */
uint8_t alone_flags(const struct core *c); /* of every message */
bool alone_quorate(const struct core *c);  /* may this member take part in rounds? */
void alone_view(struct core *c, bool two_changed);
bool alone_heard(struct core *c, int64_t now, uint32_t from, const struct msg *m); /* false: not to be heard */
bool alone_may(const struct core *c);                                              /* would a proof do? */
bool alone_takes(const struct core *c, const struct entry *e); /* false: not while this member is alone */
void alone_written(struct core *c, uint64_t serial);
void alone_flush(struct core *c, int64_t now);

/* core-propose.c */
void propose_on_propose(struct core *c, uint32_t from, struct msg *m);
uint32_t lowest_version(const struct core *c);
void propose_on_refuse(struct core *c, const struct msg *m);
void propose_synced(struct core *c);
void propose_no_quorum(struct core *c);
void propose_tick(struct core *c, int64_t now);
void propose_flush(struct core *c, int64_t now);
void propose_after_snapshot(struct core *c);
void propose_free(struct core *c);
void pending_remove(struct core *c, struct pending *p);
void queue_clear(struct core *c);
void queue_push(struct core *c, struct entry *e); /* takes @e */

/* core-sync.c */
void sync_need(struct core *c, int64_t now);
void sync_stash(struct core *c, uint32_t from, const uint8_t *data, size_t size);
bool sync_unstash(struct core *c, int64_t now);
void sync_abort(struct core *c);
void sync_on_need(struct core *c, int64_t now, uint32_t from, const struct msg *m);
void sync_on_snapshot(struct core *c, int64_t now, uint32_t from, const struct msg *m);
void sync_on_check(struct core *c, int64_t now, uint32_t from, const struct msg *m);
void sync_check_flush(struct core *c);
void sync_tick(struct core *c, int64_t now);
void sync_diverged(struct core *c, int64_t now);

#endif
