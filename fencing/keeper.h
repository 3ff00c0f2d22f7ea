/* SPDX-License-Identifier: Apache-2.0 */
/* What godwit-watchdog decides: until when guests may run, when they are stopped, when the device is petted. Pure. */
#ifndef GODWIT_FENCING_KEEPER_H
#define GODWIT_FENCING_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* All times are nanoseconds of CLOCK_BOOTTIME. keeper.c opens with the states and the rules. */

#define KEEPER_MARK_MAX 79

enum keeper_state {
	KEEPER_FREE,     /* not configured, or released: nobody counts on this host */
	KEEPER_WAITING,  /* configured; no deadline yet: what runs goes on, nothing is started */
	KEEPER_ARMED,    /* guests may run until the deadline */
	KEEPER_STOPPING, /* all guests are being ended */
	KEEPER_STOPPED,  /* none is left; nothing is started until there is a new deadline */
	KEEPER_STATE_MAX
};
extern const char *const keeper_state_names[KEEPER_STATE_MAX];

enum keeper_cause {
	KEEPER_NO_CAUSE,
	KEEPER_EXPIRED, /* the deadline passed without a new one */
	KEEPER_TOLD,    /* "die now" */
	KEEPER_CAUSE_MAX
};
extern const char *const keeper_cause_names[KEEPER_CAUSE_MAX];

struct keeper_config {
	char mark[KEEPER_MARK_MAX + 1]; /* guests whose mark begins with it are ours */
	int64_t lease_ns;               /* L: no deadline is further ahead than this */
	int64_t budget_ns;              /* K: from SIGTERM to SIGKILL */
	unsigned watchdog_s;            /* W, as asked for */
};

/* What was done to the guests, until somebody has taken note of it. */
struct keeper_report {
	uint64_t serial; /* 0: nothing yet; else one more for each time that guests were stopped */
	enum keeper_cause cause;
	unsigned guests;
	int64_t at_ns;
	int64_t took_ns;
	bool seen;
};

struct keeper {
	enum keeper_state state;
	bool leaving; /* told to end: ends once no guest of ours runs */
	struct keeper_config config;
	int64_t until_ns; /* ARMED; afterwards, the last one */
	int64_t stop_ns;  /* STOPPING: since when */
	int64_t kill_ns;  /* STOPPING: SIGKILL from then on */
	int64_t next_pet_ns;
	enum keeper_cause cause;
	struct keeper_report report;
};

/* What is to be done now. */
struct keeper_act {
	bool pet;
	bool end;        /* leaving, and nothing is left to guard */
	int signal;      /* 0, SIGTERM or SIGKILL: for each of our guests that has not had it yet */
	int64_t wake_ns; /* to be asked again then at the latest; INT64_MAX: when something happens */
};

void keeper_init(struct keeper *k);

/* The cluster and its times. While ARMED the deadline stays; a change while STOPPING counts from the next time on. 0;
 * -1 with @e: ERR_INPUT for times that cannot work together, ERR_CONFLICT when it guards another cluster's guests. */
int keeper_configure(struct keeper *k, const struct keeper_config *c, int64_t now_ns, struct err *e);

/* Guests may run until @until_ns; an earlier one than the last changes nothing. 0; -1 with @e and nothing changed:
 * ERR_CONFLICT when there is no configuration or guests are being stopped, ERR_INPUT when it is over already or further
 * ahead than the lease. */
int keeper_until(struct keeper *k, int64_t until_ns, int64_t now_ns, struct err *e);

/* Nobody counts on this host any more: guests run without a deadline. ERR_CONFLICT while they are being stopped. */
int keeper_release(struct keeper *k, int64_t now_ns, struct err *e);

/* End all guests at once. ERR_CONFLICT without a configuration: whose guests is not known. */
int keeper_die(struct keeper *k, int64_t now_ns, struct err *e);

/* Somebody has taken note of the report with that serial number. */
void keeper_seen(struct keeper *k, uint64_t serial);

/* Told to end (SIGTERM). */
void keeper_leave(struct keeper *k);

/* In this order, whenever something happened and at wake_ns at the latest:
 *   keeper_advance()   a deadline may have passed
 *   keeper_permit()    to be told to starting guests (hv/permit.h), before guests are counted
 *   keeper_counts()    whether the guests' number is needed
 *   keeper_next()      what to do; @alive: our guests that live (0 if not asked for), @found: how many were found since
 *                      this stop began, the dead ones too */
void keeper_advance(struct keeper *k, int64_t now_ns);
int64_t keeper_permit(const struct keeper *k);
bool keeper_counts(const struct keeper *k);
struct keeper_act keeper_next(struct keeper *k, int64_t now_ns, unsigned alive, unsigned found);

/* After a petting that ended at @now_ns: 0 when it was in time, or else the seconds that the device's time-out must be
 * cut to, so that the host is reset when it would have been without it. */
unsigned keeper_late(const struct keeper *k, int64_t now_ns);

/* Whether the device is to be open: while configured. */
bool keeper_wants_device(const struct keeper *k);

/* The state for a program that takes over: the next version, or the next one after a crash. keeper_load(): -1 when
 * these bytes are not such a state. */
#define KEEPER_SAVED 256
void keeper_save(const struct keeper *k, unsigned char buf[KEEPER_SAVED]);
int keeper_load(struct keeper *k, const unsigned char *buf, size_t n);

#endif
