/* SPDX-License-Identifier: Apache-2.0 */
/* The mover: this host's side of migrations, by godwit-migrate processes that outlive the daemon. */
#ifndef GODWIT_NODE_MOVER_H
#define GODWIT_NODE_MOVER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "cluster/move.h"

/* Thread: the loop's. Nothing here waits. A migration is named by its id in the cluster's state; a host has one side of
 * it. The theory of operation is in mover.c. */
struct mover;

enum mover_role { MOVER_SRC, MOVER_DST, MOVER_ROLE_MAX };
extern const char *const mover_role_names[MOVER_ROLE_MAX]; /* "src", "dst" */

/* How this side of a migration ended. */
enum mover_end {
	MOVER_MOVED,     /* source: the guest runs at the destination. Destination: it is here */
	MOVER_FAILED,    /* source: it is here, as before. Destination: it is not here and will not be */
	MOVER_CANCELLED, /* likewise, because somebody asked for it */
	MOVER_UNDECIDED, /* source only: GO was sent, the destination did not answer; the guest is stopped here until
			    mover_settle() */
	MOVER_END_MAX
};
extern const char *const mover_end_names[MOVER_END_MAX]; /* "moved", "failed", "cancelled", "undecided" */

/* What the mover says. All from the loop, never from inside a call of a mover_*() function, and each may call any of
 * them but mover_free(). Everything may be said more than once: a new mover says again what the old one has said, so
 * whoever listens compares with the cluster's state. Arguments are borrowed during the call. Members may be NULL. */
struct mover_calls {
	/* Destination: the guest's QEMU waits, the receiver listens at @address ("10.0.0.2:40123"). */
	void (*listening)(void *arg, const char *id, const char *address, const char *token);
	/* Source: {"progress": 0..1, "eta_ms": -1 unknown, "pass", "sent_bytes", "wire_rate", "dirty_rate",
	 * "remaining", "downtime_limit_ms", "throttle_percent", ...}, at most ten times a second. */
	void (*progress)(void *arg, const char *id, const json_t *p);
	/* Source: {"converges", "passes", "bytes", "total_ms", "pause_ms", "why", ...}, of the move under way. */
	void (*forecast)(void *arg, const char *id, const json_t *forecast);
	/* Source: what is left fits the pause, soon; the guest runs on, and nothing is handed over before
	 * mover_agree(). */
	void (*agree)(void *arg, const char *id);
	/* The answer to mover_ask(): MOVE_NO or MOVE_YES as in cluster/move.h. */
	void (*answer)(void *arg, const char *id, enum mover_role role, enum move_answer answer);
	/* This side is at rest: no process of the engine is left. @words: one sentence. @figures: the engine's result
	 * (man/godwit-migrate.1.scd: pause_ms, total_ms, wire_bytes, ...), or NULL where it could not say it. */
	void (*ended)(void *arg, const char *id, enum mover_role role, enum mover_end end, const char *words,
		      const json_t *figures);
};

/* All strings are copied. */
struct mover_options {
	const char *run_dir;             /* of the guests; migrations are kept in its folder ".moves" */
	const char *cluster;             /* id, for the mark of an incoming guest */
	const char *tls_dir;             /* ca.pem, cert.pem, key.pem */
	bool plaintext;                  /* instead of tls_dir */
	const char *vm_program;          /* NULL: godwit-vm beside this program */
	const char *migrate_program;     /* NULL: godwit-migrate beside this program */
	const char *accel, *user, *qemu; /* NULL: godwit-vm's own default */
	unsigned settle_s;               /* godwit-migrate --settle; 0: its own default */
};

/* Takes over the migrations that an earlier mover of the run directory has begun, and goes on reporting about them. -1
 * with @e. */
int mover_new(struct loop *l, const struct mover_options *opt, const struct mover_calls *calls, void *arg,
	      struct mover **ret, struct err *e);

/* Migrations go on; the next mover finds them. NULL is fine. */
void mover_free(struct mover *m);

/* The destination's side. All borrowed. */
struct mover_receive_options {
	const char *id;
	const char *vm;
	json_t *definition;    /* the complete one that the source runs: mover_definition() there */
	int64_t epoch;         /* that the guest will have here: the source's and one */
	const char *listen;    /* address without port, "" for every address */
	const char *advertise; /* what listening() says instead of @listen; NULL: @listen */
	const char *peer;      /* name in the source's certificate; NULL: any of the CA's */
};

/* Start a QEMU that waits for the guest and a receiver: listening() or ended() follows. -1 with @e when the migration
 * is known here already (ERR_CONFLICT) or nothing could be begun. */
int mover_receive(struct mover *m, const struct mover_receive_options *o, struct err *e);

/* The source's side. All borrowed. */
struct mover_send_options {
	const char *id;
	const char *vm;
	const char *to; /* the address and token of listening() */
	const char *token;
	unsigned max_pause_ms; /* 0: godwit-migrate's own default, as below */
	unsigned deadline_s;
	unsigned bandwidth_mbs; /* 10^6 bytes/s */
	bool auto_converge;
};

/* Copy the guest to a receiver that listens; nothing is handed over before mover_agree(). -1 as above, and with
 * ERR_NOTFOUND where the guest is not here. */
int mover_send(struct mover *m, const struct mover_send_options *o, struct err *e);

/* The answer to agree(), or before it is asked for. The first one stands. An unknown id is none of our business. */
void mover_agree(struct mover *m, const char *id, bool yes);

/* End the migration while that is possible; ended() follows in any case. */
void mover_cancel(struct mover *m, const char *id);

/* The question of cluster/move.h: was GO sent (source), or received (destination)? MOVE_NO is a promise, so asking for
 * it ends a migration that is under way where it still can be. answer() follows; for an id that is not known here,
 * because this host was started anew since, with MOVE_YES: it may have been. */
void mover_ask(struct mover *m, const char *id, enum mover_role role);

/* Source, MOVER_UNDECIDED: the cluster has decided. @here: the guest runs on here, and ended() says MOVER_FAILED; else
 * its QEMU here is killed, and ended() says MOVER_MOVED. -1 with ERR_CONFLICT when it is not undecided. */
int mover_settle(struct mover *m, const char *id, bool here, struct err *e);

/* The cluster has written the end down: tidy up what is left of the guest on the side that does not have it, and forget
 * the migration. -1 with ERR_CONFLICT when it has not ended; an unknown id is forgotten already. */
int mover_forget(struct mover *m, const char *id, struct err *e);

/* ---- forecasts (mover-forecast.c) ---- */

/* A forecast was made: {"converges", "passes", "bytes", "total_ms", "pause_ms", "dirty_rate", "wire_rate", "why",
 * "notes": [sentences]}. NULL: it was not, @words say why. Borrowed. */
typedef void mover_forecast_fn(void *arg, const json_t *forecast, const char *words);

/* Measure guest and wire, move nothing; the id of @o is not used. @fn follows once, at the latest after @limit_ns. -1
 * with @e where nothing could be begun. Not taken over by a new mover; a move of the guest that begins ends it. */
int mover_forecast(struct mover *m, const struct mover_send_options *o, int64_t limit_ns, mover_forecast_fn *fn,
		   void *arg, struct err *e);

/* All borrowed. */
struct mover_forecast_receive_options {
	const char *listen; /* address without port */
	const char *peer;   /* name in the source's certificate; NULL: any of the CA's */
	unsigned wait_s;    /* for a source that measures */
};

/* It listens at @address with @token. @address NULL: it does not, @words say why. Borrowed. */
typedef void mover_forecast_listening_fn(void *arg, const char *address, const char *token, const char *words);

/* The destination's side of a forecast: a receiver that takes no guest and touches none. @fn follows once. It serves
 * one source that measures and ends; it ends with this process, too. -1 with @e (ERR_UNAVAILABLE: too many). */
int mover_forecast_receive(struct mover *m, const struct mover_forecast_receive_options *o,
			   mover_forecast_listening_fn *fn, void *arg, struct err *e);

/* How many forecasts have an engine here, of either side. */
unsigned mover_forecasts(const struct mover *m);

/* All migrations known here: [{"id", "role", "vm", "epoch", "step": "starting" | "opening" | "copying" | "ending" |
 * "ended", "end": name or null}]. New reference. */
json_t *mover_list(const struct mover *m);

/* The definition that guest @vm runs with here, complete, with the version of its machine: what a destination must be
 * given. New reference, or NULL with @e (ERR_NOTFOUND). */
json_t *mover_definition(const struct mover *m, const char *vm, struct err *e);

#endif
