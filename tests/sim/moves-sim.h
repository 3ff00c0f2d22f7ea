/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator of moves: three hosts with their daemons' own code for moves, a guest, and everything else faked, under
 * virtual time and from one seed. */
#ifndef GODWIT_TESTS_SIM_MOVES_SIM_H
#define GODWIT_TESTS_SIM_MOVES_SIM_H

#include <jansson.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "migrate/handover.h"
#include "node/agent-plan.h"
#include "node/daemon.h"
#include "node/moves.h"

/*
 * What is real: the state machine (one database for each host), cluster/move.c, node/moves.c, node/agent-plan.c.
 * What is faked: the ordered log (one list; hosts apply it late, each at its own pace; who is not with a majority
 * neither adds to it nor sees what is new), the mover with both engines and their guards by the tables of
 * docs/migration.md, QEMU, the agent's children, time.
 */

#define HOSTS 3
#define SIDES 8
#define LOG_MAX 1024
#define PENDING_MAX 64
#define FAULTS_MAX 6

enum break_rule {
	BREAK_NOTHING,
	BREAK_GO,     /* a source that has sent GO goes on without asking */
	BREAK_LOADED, /* a destination that is complete runs the guest when it hears nothing more */
	BREAK_AGREE,  /* GO without the agreement */
	BREAK_OWNER,  /* the agent starts a guest that a move has in hand */
	BREAK_FENCE,  /* who is lost counts as dead, though nobody has switched it off */
	BREAK_MAX
};

struct msim_options {
	uint64_t seed;
	bool trace;
	enum break_rule broken;
};

/* The guest's QEMU on one host, and what is in its run directory. */
struct qemu {
	bool exists;
	bool runs; /* its vCPUs */
	enum vm_status status;
	int64_t epoch; /* of the mark */
	unsigned pid;
	uint64_t seen; /* how often the guest had begun to run anywhere when this memory was last current */
};

enum msim_step { STARTING, OPENING, COPYING, ENDING, ENDED };

/* One side of a move on one host: the mover's folder, the engine, its guard. */
struct side {
	bool used;
	uint32_t gen; /* events for an earlier one are dropped */
	char id[37];
	enum mover_role role;
	unsigned peer, pid; /* of its QEMU */
	int64_t epoch;
	enum msim_step step;
	enum mover_end end;
	bool kill, resume; /* what the end asks for */
	int record;        /* enum src_step, dst_step */
	bool engine, guard, connected, settling, ready, listening, cancelled, asked;
	char agree;
	int64_t patience;
	char result; /* what the engine said last: m)oved, f)ailed, c)ancelled, u)ndecided, 0 nothing */
	enum move_answer answer;
	bool tell_listening, tell_agree, tell_answer, tell_ended;
};

struct pending {
	bool used;
	char id[37];
	replica_done_fn *done;
	void *arg;
};

struct host {
	unsigned n;
	bool power, broken;  /* broken: it never comes back */
	uint32_t boot, life; /* of the host, of its daemon */
	bool up;             /* the daemon */
	bool cut;            /* from the other two, as the ring sees it */
	int64_t slow_until;
	sqlite3 *db;
	size_t applied;
	bool applying;
	struct daemon d;
	struct qemu qemu;
	struct side sides[SIDES];
	struct pending pending[PENDING_MAX];
	/* agent */
	struct agent_want want;
	bool known, look_due, acting, was_synced;
	bool cleared;       /* the log has a node.alive of this daemon's: guests may start */
	int64_t away_since; /* 0: it is present */
	const char *told;
	int64_t told_epoch;
};

struct event {
	int64_t at;
	uint64_t order;
	void (*fn)(struct event *ev);
	struct host *h;
	uint32_t boot, life, gen; /* 0: any */
	unsigned k;               /* index of a side, or whatever the function wants */
	void *p;                  /* given back with free() */
};

struct fault {
	unsigned kind;
	unsigned point; /* fires at that one */
	bool done;
};

struct msim {
	struct msim_options o;
	uint64_t random;
	int64_t now;
	uint64_t order;
	struct event *heap;
	size_t heap_n, heap_cap;
	struct host hosts[HOSTS + 1]; /* from 1 on */
	bool wire_cut[HOSTS + 1][HOSTS + 1];
	json_t *log[LOG_MAX];
	size_t log_n;
	unsigned leader;
	unsigned pids;
	uint64_t ran;                     /* how often the guest has begun to run */
	unsigned starts, losses;          /* of the guest from its disks; deaths that may be a reason for one */
	unsigned moves, moved, cancelled; /* asked for; ended so */
	bool fences;                      /* there is a switch for the power of each host */
	unsigned fencings, places;
	unsigned points;
	struct fault faults[FAULTS_MAX];
	unsigned n_faults;
	bool healing;
	char failure[256];
	uint64_t events;
};

extern struct msim *msim;

/* moves-world.c: time, chance, the log */
uint64_t msim_random(void);
unsigned msim_below(unsigned n);
int64_t msim_between(int64_t lo_ms, int64_t hi_ms); /* ns */
void msim_trace(const struct host *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void msim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Call @fn in @delay_ns unless the host is booted anew before then (or, with @daemon, its daemon started anew). */
void msim_at(int64_t delay_ns, void (*fn)(struct event *ev), struct host *h, bool daemon, unsigned k, void *p);
bool msim_present(const struct host *h); /* as the ring sees it */
bool msim_quorate(const struct host *h);
void msim_power_off(struct host *h);
void msim_log_wake(void); /* whoever can goes on applying */
void msim_log_changed(void);
/* A command of host @h; takes @args. New reference. */
json_t *msim_command(const struct host *h, const char *op, json_t *args);
/* Propose for host @h, as its replica does. Takes nothing. */
void msim_propose(struct host *h, const json_t *command, replica_done_fn *done, void *arg);
void msim_pending_drop(struct host *h);
bool msim_run(struct msim *m, const struct msim_options *o);
void msim_point(void); /* something has changed: a fault may be due */

/* moves-daemon.c: the daemon around moves.c, the agent */
void msim_daemon_start(struct host *h);
void msim_daemon_kill(struct host *h);
void msim_look_soon(struct host *h);
void msim_agent_soon(struct host *h);

/* moves-mover.c: mover, engines, QEMU */
void msim_mover_look(struct host *h); /* the mover concludes what it can */
void msim_qemu_start(struct host *h, int64_t epoch);
void msim_qemu_die(struct host *h);
void msim_qemu_remove(struct host *h);
void msim_engine_kill(struct host *h, struct side *s, bool guard);
void msim_wire_changed(void);

#endif
