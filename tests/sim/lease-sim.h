/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator of leases: hosts with clocks of their own, daemons, watchdogs, guests and a network, from one seed. */
#ifndef GODWIT_TESTS_SIM_LEASE_SIM_H
#define GODWIT_TESTS_SIM_LEASE_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "cluster/lease.h"

#define LS_HOSTS 6
#define LS_LISTS 16

struct ls_options {
	uint64_t seed;
	bool trace;
	int64_t length_ns;
	bool break_arrival, break_majority, break_margin, break_settled;
};

enum ls_keeper { LS_ARMED, LS_STOPPING, LS_STOPPED };

/* What happens on one host, as its kernel, watchdog, daemon and one guest do it. */
struct ls_host {
	uint32_t id;
	/* CLOCK_BOOTTIME: skew_ns + real time x (1 + ppm / 10^6). */
	int64_t skew_ns, ppm;
	int64_t hung_until; /* real: nothing of it runs */
	bool up;
	uint32_t boots; /* events of an earlier boot are dropped */

	/* The daemon. */
	struct lease *lease; /* NULL: it does not run */
	uint32_t lives;
	int64_t stopped_until; /* real: SIGSTOP */
	int64_t beat_at;       /* real: its timer */
	size_t list;           /* of hosts: how many changes it has taken */

	/* godwit-watchdog, with times of the host's clock. */
	enum ls_keeper keeper;
	int64_t until_ns, kill_ns, pet_ns;
	int64_t keeper_at;       /* real: its timer */
	int64_t dog_ppm, petted; /* the hardware; real */

	/* The guest. */
	bool guest, stubborn, immortal; /* ends with SIGKILL only; not even then */
	int64_t guest_since;            /* real */
	int64_t guest_ends;             /* real: it has got SIGTERM */
};

struct ls_event {
	int64_t at;
	uint64_t order;
	void (*fn)(struct ls_event *ev);
	uint32_t host, boot; /* host 0: of the world */
	uint32_t life;       /* not 0: of this life of the daemon, and waits while that is stopped */
	uint32_t from;
	size_t size;
	uint8_t *data; /* freed with the event */
};

struct ls_world {
	struct ls_options o;
	struct timing timing;
	uint64_t random;
	int64_t now; /* real time */
	struct ls_event *heap;
	size_t heap_n, heap_cap;
	uint64_t order;
	struct ls_host hosts[LS_HOSTS + 1];     /* by id */
	bool cut[LS_HOSTS + 1][LS_HOSTS + 1];   /* from, to */
	unsigned loss;                          /* in 1000 messages */
	int64_t late_ns;                        /* a message may take so long */
	uint32_t lists[LS_LISTS][LS_HOSTS + 1]; /* of configured hosts, ended by 0 */
	size_t n_lists;
	char failure[256];
	uint64_t events, proofs, expiries, bites, changes;
};

extern struct ls_world *ls; /* the one world */

/* lease-sim.c: time, chance */
uint64_t ls_below(uint64_t n);
bool ls_chance(unsigned per_1000);
void ls_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void ls_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Call @fn at @at (real). @h NULL: an event of the world. @data: a copy is kept. */
void ls_at(int64_t at, void (*fn)(struct ls_event *ev), const struct ls_host *h, bool daemon, uint32_t from,
	   const void *data, size_t size);

/* lease-host.c */
int64_t ls_clock(const struct ls_host *h);              /* now */
int64_t ls_real(const struct ls_host *h, int64_t time); /* when its clock shows @time */
void ls_boot(struct ls_host *h);
void ls_power_off(struct ls_host *h, const char *why);
void ls_daemon_start(struct ls_host *h);
void ls_daemon_end(struct ls_host *h);
void ls_view(struct ls_host *h); /* the bus tells it a view of now */

/* lease-fault.c: what goes wrong, and the list of hosts that changes */
void ls_fault_begin(void);

#endif
