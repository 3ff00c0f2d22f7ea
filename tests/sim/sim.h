/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator of the replicated log: one world of members, bus and disks under virtual time, from one seed. */
#ifndef GODWIT_TESTS_SIM_SIM_H
#define GODWIT_TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/core.h"

#define SIM_NODES_MAX 7
#define SIM_COMMANDS_MAX 4096
#define SIM_INDEX_MAX 16384
#define SIM_SNAPSHOTS_MAX 512

/* What this world is like, drawn from the seed. */
struct sim_options {
	uint64_t seed;
	bool trace;
	int64_t length_ns;    /* of the time with faults; then everything heals */
	bool break_ack_early; /* a rule that is broken on purpose: the simulator must notice */
	bool break_epoch_reuse;
	bool break_minority;
	bool break_proof, break_late, break_whole, break_alone_acks;
	bool duo; /* two hosts, and a quorum device that gives its vote to anybody */
};

/* A command of a client: what was promised about it. */
struct sim_command {
	uint32_t proposals; /* open ones */
	bool acked, maybe;  /* maybe: some proposal ended without a definite fate */
	bool refused;       /* some proposal was refused: with no other one it must never be applied */
	uint64_t index;     /* where it was applied; 0: nowhere yet */
};

/* What is on a disk; everything here survives a crash. */
struct sim_disk {
	uint64_t promised, history;
	uint32_t promised_to;
	bool learner, diverged, alone;
	uint64_t applied, applied_epoch, chain, state;
	struct {
		uint64_t applied, applied_epoch, chain, state;
	} synced;           /* a loss of power may take applying back up to here */
	struct entry **log; /* entries first .. first + n - 1 */
	uint64_t first;
	size_t n, cap;
	uint32_t done[SIM_COMMANDS_MAX]; /* index by command, 0: not applied */
	bool corrupt;                    /* a fault was injected */
};

struct sim_op;
struct sim_ring;

struct sim_node {
	uint32_t id;
	bool alive, started, stranger;
	uint32_t life; /* counts starts: events of an earlier life are dropped */
	int64_t paused_until, full_until;
	int component;
	uint64_t lost_upto; /* its disk had so much and was lost */
	uint32_t expected;  /* hosts configured, as it last heard */
	uint64_t commit_seen;
	struct core *core;
	struct sim_disk disk;
	struct sim_op *ops, **ops_tail; /* for the disk, the first one in work */
	bool disk_busy;
	int64_t tick_at;
	/* bus */
	struct sim_ring *ring, *ring_next; /* the one it is in, the one it will see */
	size_t delivered;
	int64_t last_send, last_deliver;
	/* snapshots */
	int snapshot; /* in world.snapshots, -1 none */
	uint64_t snapshot_size;
	int fetch;
	uint64_t fetch_size, fetch_got;
	/* checks */
	uint64_t epoch_seen;
	bool alarms[CORE_ALARM_MAX];
};

struct sim_event {
	int64_t at;
	uint64_t order;
	void (*fn)(struct sim_event *ev);
	uint32_t node, life; /* node 0: of the world */
	uint64_t a, b;
	void *p;
};

struct sim_world {
	struct sim_options o;
	uint64_t random;
	int64_t now;
	struct sim_event *heap;
	size_t heap_n, heap_cap;
	uint64_t order;
	struct sim_node nodes[SIM_NODES_MAX + 1]; /* by id */
	uint32_t n_nodes, configured;
	bool healing, chaos, corrupted;
	bool direct;             /* members can speak to one alone */
	uint32_t late_per_10000; /* of that, so much comes late */
	bool slow_disks;         /* a write takes long now and then */
	uint64_t ring_seq;
	struct sim_ring *rings;
	struct sim_disk *snapshots[SIM_SNAPSHOTS_MAX];
	int n_snapshots;
	size_t retention, snapshot_pad;
	uint32_t crash_per_10000, wipes;
	struct sim_command commands[SIM_COMMANDS_MAX];
	size_t n_commands;
	/* what was once committed */
	uint64_t entry_at[SIM_INDEX_MAX], chain_at[SIM_INDEX_MAX], highest;
	uint32_t leader_of[SIM_INDEX_MAX];
	uint32_t configured_at[SIM_INDEX_MAX]; /* hosts by whose majority an entry was committed */
	char failure[256];
	uint64_t events, acks, digest_alarms, alones, shots; /* alones: times that a member went on alone */
};

extern struct sim_world *sim; /* the one world */

/* sim-world.c: time, chance, members */
uint64_t sim_random(void);
uint64_t sim_below(uint64_t n);
bool sim_chance(uint32_t per_10000);
/* Call @fn in @delay_ns; @n NULL: an event of the world. @p is freed if the event is dropped. */
void sim_at(int64_t delay_ns, void (*fn)(struct sim_event *ev), const struct sim_node *n, uint64_t a, uint64_t b,
	    void *p);
void sim_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void sim_node_start(struct sim_node *n);
void sim_node_crash(struct sim_node *n, bool host);
void sim_after(struct sim_node *n); /* flush its core, watch its deadline and its rules */

/* One seed from its beginning to its end. False: see world.failure. */
bool sim_run(struct sim_world *w, const struct sim_options *o);
void sim_done(struct sim_world *w);

/* sim-bus.c */
void sim_bus_send(struct sim_node *n, const void *data, size_t size);
bool sim_bus_send_to(struct sim_node *n, uint32_t to, const void *data, size_t size);
void sim_bus_reform_soon(int64_t within_ns);
void sim_bus_leave(struct sim_node *n); /* its process ended, its host did not */
void sim_bus_join(struct sim_node *n);
void sim_bus_break(void); /* all rings end and form anew */
void sim_bus_done(void);

/* sim-disk.c */
extern const struct core_io sim_io;
void sim_disk_crash(struct sim_node *n, bool power); /* power: what was not synced may be lost */
void sim_disk_load(struct sim_node *n, struct core_disk *ret);
void sim_disk_copy(struct sim_disk *to, const struct sim_disk *from);
void sim_disk_free(struct sim_disk *d);
void sim_disk_bootstrap(struct sim_node *n, uint64_t history);

/* sim-client.c: clients and what they were promised */
void sim_client_begin(void);
void sim_client_acked(struct sim_node *n, size_t command, uint64_t index);
void sim_client_refused(struct sim_node *n, size_t command, enum core_refusal why);
void sim_client_applied(struct sim_node *n, const struct entry *e, uint64_t chain);
void sim_check_end(void);
bool sim_same_state(const struct sim_disk *a, const struct sim_disk *b);
/* A leader whose state had rotted gave it to others before anybody knew, so that no majority is right. An alarm stands
 * then, and no state is thrown away (cluster/core.h, "Checking"). */
bool sim_undecided(void);

/* sim-fault.c */
void sim_fault_begin(void);
void sim_fault_heal(void);
void sim_fault_duo(void); /* hosts that shoot each other, and are told late */

#endif
