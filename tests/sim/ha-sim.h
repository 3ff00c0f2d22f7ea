/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator of fencing and high availability: hosts that die, hang and are cut off, with guests that must run once,
 * and must run again. Virtual time, one seed. */
#ifndef GODWIT_TESTS_SIM_HA_SIM_H
#define GODWIT_TESTS_SIM_HA_SIM_H

#include <jansson.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/loop.h"
#include "fencing/keeper-msg.h"
#include "fencing/keeper.h"
#include "fencing/power.h"
#include "fencing/timing.h"
#include "node/agent-plan.h"
#include "node/api-int.h"
#include "node/daemon.h"

/*
 * What is real: node/host-lease.c, node/fencing.c and node/ha.c with all that they call (cluster/lease.c, cluster/ha.c,
 * node/place.c, ...), the state machine (one database for each host), fencing/keeper.c, node/agent-plan.c; of
 * node/api-fence.c what follows when a person says that a host is dead.
 * What is faked: the loop, the ring and the ordered log (one list; hosts apply it late, each at its own pace; who is
 * not with a majority neither adds to it nor sees what is new), fence devices, the watchdog's hardware, godwit-vm and
 * QEMU, what node/agent.c and node/daemon.c do around it all, clocks.
 */

#define HOSTS_MAX 5
#define GUESTS_MAX 6
#define EPOCHS_MAX 64
#define LOG_MAX 4096
#define PENDING_MAX 64
#define TIMERS_MAX 24
#define JOBS_MAX 16
#define ANSWERS_MAX 64
#define CLUSTER "c"
#define TOKEN_MS 1000

enum ha_break {
	BREAK_NOTHING,
	BREAK_PROOF,    /* who is lost counts as dead */
	BREAK_WATCHDOG, /* a lease that is over is a proof, whatever the watchdog still has to do */
	BREAK_ARMED,    /* a host whose watchdog is not armed says that it is */
	BREAK_PERMIT,   /* a host that was away starts its guests with what it knows, by the epochs that it knows */
	BREAK_EMPTY,    /* a host that was confirmed dead is back without having looked whether it is empty */
	BREAK_FROZEN,   /* a host whose daemon is stopped in order does not say so */
	BREAK_LEASE,    /* nobody looks whether the lease is over */
	BREAK_FAILED,   /* of two: a device that fails counts as one that says off */
	BREAK_LATE,     /* of two: a proof counts although the other one was here again since */
	BREAK_WHOLE,    /* of two: one goes on alone that was never in step with the other one */
	BREAK_MAX
};

struct ha_options {
	uint64_t seed;
	bool trace, two; /* two: worlds of two hosts (ha-pair.c) */
	enum ha_break broken;
};

/* One guest on one host: its QEMU, its entry in the run directory, and the agent's view of it. */
struct hguest {
	bool here, alive, stubborn; /* stubborn: it does not end by SIGTERM */
	int64_t epoch;
	bool hung; /* not even SIGKILL ends it */
	/* the agent */
	bool wanted, starting, killing, changed, seen, seen_gone;
	int64_t seen_epoch;
	struct agent_want want;
	int64_t as_of, again_ns;
	const char *told;
	int64_t told_epoch, told_as_of;
};

struct loop_timer {
	bool used;
	uint64_t gen;
	int64_t repeat_ns;
	loop_fn *fn;
	void *arg;
	unsigned host;
};

struct power_job {
	bool used;
	uint64_t gen;
	unsigned host; /* whose daemon switches */
	unsigned target;
	uint32_t life;
	struct power_spec spec;
};

struct pending {
	bool used;
	char id[40];
	replica_done_fn *done;
	void *arg;
};

struct host {
	unsigned n;
	char name[8];
	/* the machine */
	bool power, broken; /* broken: it never comes back */
	uint32_t boot;
	int64_t ppm, skew_ns, wall_ns; /* of CLOCK_BOOTTIME; wall_ns is added to real time for CLOCK_REALTIME */
	int64_t hung_until;
	bool dog_fitted, has_dog; /* a watchdog's device: in the machine; found in this boot */
	int64_t dog_ppm;
	uint64_t dog_gen;
	struct hguest guests[GUESTS_MAX];
	/* godwit-watchdog */
	struct keeper keeper;
	uint64_t keeper_gen;
	struct keeper_status told[ANSWERS_MAX]; /* not read yet */
	size_t told_n;
	bool dog_open, connected, woken;
	int64_t asked_at; /* when the last request arrives */
	unsigned found;   /* guests, since this stop began */
	loop_io_fn *keeper_fn;
	void *keeper_arg;
	int64_t until_max; /* the latest deadline that it was ever told in this boot */
	/* the daemon */
	bool up, stopping;
	uint32_t life;
	struct daemon d;
	struct api api;
	struct bus_view view;
	uint64_t view_ring;
	bool viewed, synced, leads;
	size_t sync_to;
	bool look_due;
	bool look_active, look_again, allowed;
	int64_t look_boot, seen_boot;
	uint64_t look_gen;
	struct pending pending[PENDING_MAX];
	/* its disk */
	sqlite3 *db;
	size_t applied;
	bool applying;
	int64_t slow_until, busy_until; /* its log: slow to apply; takes no more proposals */
	/* one of two */
	bool met;                /* its corosync has seen the other one since it started */
	bool whole, alone, due;  /* of its daemon. alone: its log is the cluster's; due: once the disk has that */
	uint32_t dead;           /* who is proven dead */
	uint64_t itself;         /* names the time since which nobody else is here */
	uint32_t whole_life;     /* of the other one, when it was in step with it */
	bool marked;             /* alone, on its disk */
	int64_t disk_at;         /* when that is written */
	unsigned writes;         /* of that, under way */
	size_t have;             /* entries on its disk */
	json_t *tail;            /* what it has, too, and nobody was told of */
	struct api_write person; /* what somebody has asked it */
	bool asked;
	/* what was done to it that is outside of the promise */
	bool lied;
};

struct event {
	int64_t at;
	uint64_t order;
	void (*fn)(struct event *ev);
	struct host *h;      /* NULL: of the world */
	uint32_t boot, life; /* 0: any. life: of its daemon */
	bool kernel;         /* it waits while the host hangs */
	unsigned k;
	uint64_t gen;
	int64_t value;
	void *p; /* given back with free() */
};

enum device_mode { DEVICE_NONE, DEVICE_OK, DEVICE_FAILS, DEVICE_HANGS, DEVICE_LIES, DEVICE_DIES, DEVICE_SLOW };

struct ha_world {
	struct ha_options o;
	uint64_t random, order;
	int64_t now;
	struct event *heap;
	size_t heap_n, heap_cap;
	struct host *at; /* whose code runs */
	struct timing timing;

	unsigned shape, n_hosts, n_guests;
	unsigned slots; /* guests that fit on a host */
	struct host hosts[HOSTS_MAX + 1];
	struct loop_timer timers[(HOSTS_MAX + 2) * TIMERS_MAX];
	struct power_job jobs[JOBS_MAX];
	bool cut[HOSTS_MAX + 1][HOSTS_MAX + 1]; /* from, to */
	unsigned group[HOSTS_MAX + 1];          /* of the ring; 0: none */
	uint64_t ring;                          /* grows with each change of it */
	bool ring_due;
	enum device_mode device[HOSTS_MAX + 1];
	int64_t delay[HOSTS_MAX + 1]; /* whoever shoots it waits so long */
	bool votes;                   /* of two: a quorum device decides */
	unsigned vote;                /* who has its vote */

	json_t *log[LOG_MAX];
	size_t log_n;
	uint64_t ids;

	char owner[GUESTS_MAX][EPOCHS_MAX]; /* who has started it under that epoch */
	bool healing;
	char failure[512];
	uint64_t events, gens;
	unsigned proofs[4], restarts, places, starts, bites, expiries, leases, aside, waits, alones;
	int64_t rest_at;
};

extern struct ha_world *ha;

/* ha-world.c: chance, time, telling */
uint64_t ha_random(void);
unsigned ha_below(unsigned n);
bool ha_chance(unsigned per_1000);
int64_t ha_between(int64_t lo_ms, int64_t hi_ms); /* ns */
void ha_trace(const struct host *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ha_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Call @fn in @delay_ns of real time unless the host boots anew before (or, with @daemon, its daemon starts anew). */
struct event *ha_at(int64_t delay_ns, void (*fn)(struct event *ev), struct host *h, bool daemon);
int64_t ha_clock(const struct host *h);            /* CLOCK_BOOTTIME of it, now */
int64_t ha_real(const struct host *h, int64_t ns); /* so much of its time, in real time */
int64_t ha_late(void);                             /* how late a timer or a thread is */
bool ha_run(struct ha_world *w, const struct ha_options *o);

/* ha-ring.c: the ring and the log */
void ha_ring_changed(int64_t within_ms); /* somebody came, went, was cut off */
void ha_log_wake(void);
void ha_pending_drop(struct host *h);
json_t *ha_apply(struct host *h, size_t index, const json_t *command, struct err *e);
json_t *ha_command(const struct host *h, const char *op, json_t *args); /* takes @args; new reference */
bool ha_present(const struct host *h);                                  /* its daemon is there for corosync */
bool ha_turns(unsigned group);                                          /* does the token go round? */
void ha_answer(struct host *h, const char *id, const json_t *result, const struct err *e);
void ha_sync_soon(struct host *h); /* a round has begun */

/* ha-pair.c: one of two hosts goes on alone, and is one of two again. Each does nothing where there are more. */
void ha_pair_begin(void);
void ha_pair_formed(void);                                      /* the ring */
int64_t ha_pair_view(const struct host *h, struct bus_view *v); /* how much later it is told, ns */
void ha_pair_viewed(struct host *h);
bool ha_pair_alone(const struct host *h);                /* it writes the log by itself */
bool ha_pair_takes(struct host *h);                      /* the log takes a command, by way of it */
bool ha_pair_waits(struct host *h, const char *command); /* the log does not, but may later */
void ha_pair_appended(struct host *h);
size_t ha_pair_has(struct host *h);  /* entries that its disk has, after it was given some more */
void ha_pair_synced(struct host *h); /* and has applied all of them */
void ha_pair_start(struct host *h);
void ha_pair_stop(struct host *h);
void ha_pair_person(void);
void ha_pair_end(void);

/* ha-host.c: the machine, godwit-watchdog, the daemon */
void ha_boot(struct host *h);
void ha_power_off(struct host *h, const char *why);
void ha_daemon_start(struct host *h);
void ha_daemon_kill(struct host *h);
void ha_daemon_stop(struct host *h); /* in order */
void ha_look_soon(struct host *h);
void ha_keeper_wake(struct host *h);
void ha_view(struct host *h, const struct bus_view *v); /* the bus tells it */

/* ha-agent.c: the agent, godwit-vm, QEMU */
void ha_agent_look(struct host *h); /* soon */
void ha_agent_wants(struct host *h);
void ha_agent_tell_all(struct host *h);
void ha_qemu_end(struct host *h, unsigned g, const char *how);
unsigned ha_qemus(const struct host *h);

/* ha-plan.c: the host that it is about; borrowed */
const char *ha_plan_node(const struct power_plan *p);

/* ha-fault.c: what goes wrong, power switches */
void ha_faults_begin(void);
void ha_heal(void);

/* ha-check.c: the promises */
void ha_check_now(void);
void ha_check_applied(const struct host *h, const json_t *command, const json_t *result);
bool ha_at_rest(void);
void ha_check_end(void);

#endif
