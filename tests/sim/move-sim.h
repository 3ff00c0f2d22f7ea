/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator of moves: hosts, engines, QEMUs and the cluster's order under virtual time, from one seed. */
#ifndef GODWIT_TESTS_SIM_MOVE_SIM_H
#define GODWIT_TESTS_SIM_MOVE_SIM_H

#include <jansson.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/move.h"

/*
 * Real: the state machine (one database stands for the order), cluster/move.c. Modelled: what a daemon does
 * (move-daemon.c, after node/moves.c and node/mover.c), what engines, guards and QEMUs do (move-engine.c, after
 * migrate/handover.h and tests/model/handover.pml). One guest, three hosts, one move from host 0 to host 1.
 */

#define HOSTS 3
#define SRC 0
#define DST 1
#define HISTORY_MAX 512
#define EVENTS_MAX 512

enum rule { RULE_AGREE, RULE_PROMISE, RULE_RESTART, RULE_ANEW, RULE_FENCE, RULE_STALE, RULE_MAX };
extern const char *const rule_names[RULE_MAX];

struct options {
	uint64_t seed;
	bool trace;
	bool broken[RULE_MAX]; /* on purpose: it must be noticed */
};

/* What the cluster has written down after a command. */
struct row {
	enum move_step step;
	bool cancel, restart;
	int owner;
	int64_t epoch;
};

enum qemu { QEMU_NONE, QEMU_RUNS, QEMU_STOPPED, QEMU_INCOMING, QEMU_LOADED };
enum rec {
	REC_COPY,
	REC_STOPPED,
	REC_GO,
	REC_MOVED,
	REC_KEPT,
	REC_PREPARE,
	REC_LOADED,
	REC_GOT,
	REC_RUNNING,
	REC_NEVER
};
enum agreement { AGREE_NONE, AGREE_YES, AGREE_NO };
enum end { END_NONE, END_MOVED, END_FAILED, END_CANCELLED, END_UNDECIDED };

/* One side of the move in the run directory of its host: outlives the daemon, not the host. */
struct side {
	bool exists;
	enum rec rec;
	bool engine, guard; /* processes */
	enum end end;       /* its runner is at rest */
	enum agreement agree;
	bool cancel, wants; /* wants: the engine asks for the agreement */
	bool go_out, loaded_heard;
	int work, patience;
	int64_t conn;
};

struct host {
	bool up, cut, daemon;
	int life, daemon_life;
	size_t seen; /* rows of the history that it has heard of */
	enum qemu qemu;
	int64_t stamp; /* of its memory against the disks */
	int qemu_life; /* starts afresh and by moves */
	struct side side;
	/* of the daemon */
	enum move_step proposed;
	int64_t proposed_at, step_since, asked_at, asked_here_at;
	enum move_step step_seen;
	/* of the manager on it */
	bool leads;
	int64_t seen_at[HOSTS];
	enum move_answer answers[2];
	bool anew[HOSTS];
};

struct event {
	int64_t at;
	uint64_t order;
	void (*fn)(struct event *ev);
	int host, life; /* life -1: whatever becomes of the host */
	int64_t a, b;
	json_t *command;
};

struct world {
	struct options o;
	uint64_t random, order, index;
	int64_t now; /* ms */
	struct event events[EVENTS_MAX];
	size_t n_events;
	struct host hosts[HOSTS];
	struct row history[HISTORY_MAX];
	size_t n_history;
	int64_t conn; /* of the wire; 0: broken */
	bool wire;
	bool healed, fencing, fenced[HOSTS];
	bool src_harmed; /* its QEMU or host was killed */
	bool go_got;     /* the destination has received GO */
	bool cancelled;
	int work;             /* turns that the copy takes */
	enum move_step focus; /* faults come when the move takes this step, */
	enum rec focus_rec;   /* or when a side writes this down */
	int64_t disk;         /* a stamp that every running QEMU moves on */
	unsigned acked[MOVE_STEP_MAX];
	char failure[256];
	uint64_t n_handled;
};

extern struct world *sim;
extern sqlite3 *sim_db;

/* move-world.c */
uint64_t sim_below(uint64_t n);
bool sim_chance(unsigned percent);
void sim_at(int64_t delay, void (*fn)(struct event *ev), int host, int life, int64_t a, int64_t b, json_t *command);
void sim_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
const struct row *row_of(const struct host *h); /* the newest that it has heard of */
const struct row *row_now(void);
int host_number(const struct host *h);
bool host_reachable(const struct host *h); /* up, and not cut off */
bool host_quorate(const struct host *h);   /* and with a majority */
bool world_run(struct world *w, const struct options *o);

/* move-order.c: the order of commands */
void order_open(void);
void order_begin(void);
void order_end(void);
/* Propose a step: it is applied later, or refused, or lost. */
void order_propose(struct host *h, enum move_step step, enum move_role role, bool restart);
void order_cancel(void); /* somebody asks for it */

/* move-engine.c */
void qemu_set(struct host *h, enum qemu q, const char *why);
void qemu_start_afresh(struct host *h);
void engine_start(struct host *h, bool src);
void engine_lost(struct host *h); /* neither engine nor guard is left: by the record */
void wire_break(void);

/* move-daemon.c */
void daemon_start(struct host *h);
void daemon_look(struct host *h);
void daemon_acked(struct host *h, enum move_step step, bool refused);

/* move-fault.c */
void faults_begin(void);
void faults_step(enum move_step s); /* the move has taken it */
void faults_rec(enum rec r);        /* a side has written it down */
void host_down(struct host *h, const char *why);
void host_up(struct host *h);
void heal(void);

#endif
