/* SPDX-License-Identifier: Apache-2.0 */
/* The agent: makes what runs on this host what the cluster wants to run here. */
#ifndef GODWIT_NODE_AGENT_H
#define GODWIT_NODE_AGENT_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "node/agent-plan.h"
#include "node/facts.h"

/* Thread: the loop's. agent_fd() is readable when agent_dispatch() has something to do; neither ever waits. */
struct agent;

/* One guest that the cluster knows. Borrowed during agent_set() and agent_update() only. */
struct agent_guest {
	const char *name;
	const char *uuid;
	int64_t epoch;
	enum agent_intent intent;
	bool ran;           /* the cluster knows that it has run, or failed, under this epoch */
	int stop_s;         /* seconds it has to power itself off; -1: agent_options.stop_s */
	int64_t as_of;      /* comes back with what is told of a guest that is down and shall be; 0: nothing does */
	json_t *definition; /* complete, as hv/def.h writes it; needed for AGENT_RUNNING only */
};

/* What is known about one guest of this host. Borrowed during the call. */
struct agent_status {
	const char *name;
	const char *uuid;
	int64_t epoch;
	const char *status; /* a name of vm_status_names, or "stopped"; "failed": shall run, and is not started here
			       again under this epoch */
	pid_t pid;          /* -1: none */
	const char *note;   /* why it is not as wanted, or the last failure; NULL: nothing to say */
	bool foreign;       /* not ours: never touched */
	const char *cause;  /* of a failure: one of agent_cause_names; NULL: nothing failed */
	int64_t as_of;      /* down, and not to be started by what was wanted as of then; else 0 */
};

/* How an action ended. Borrowed during the call. */
struct agent_result {
	const char *name;
	const char *uuid;
	int64_t epoch;
	enum agent_act act; /* AGENT_START, AGENT_STOP or AGENT_KILL */
	bool done;
	const char *text; /* what it said */
};

struct agent_calls {
	/* A guest's status, process, epoch or note is new. Neither this nor the next calls the agent. */
	void (*status)(void *arg, const struct agent_status *s);
	/* An action ended; NULL: not interested. */
	void (*result)(void *arg, const struct agent_result *r);
};

/* All strings are copied; NULL: godwit-vm's own default. */
struct agent_options {
	const char *run_dir;
	const char *vm_program; /* NULL: godwit-vm beside this program */
	const char *cluster;    /* id */
	const char *accel, *user, *qemu;
	unsigned stop_s;     /* how long a guest has to power itself off; 0: 90 */
	int64_t interval_ns; /* between two looks; 0: 3 s */
};

/* -1 with @e. @calls is copied. */
int agent_new(const struct agent_options *opt, const struct agent_calls *calls, void *arg, struct agent **ret,
	      struct err *e);

/* Guests and actions go on; the next agent finds them. NULL is fine. */
void agent_free(struct agent *a);

/* All guests that the cluster knows, this node's and others'; takes effect with the next look, which is soon. */
void agent_set(struct agent *a, const struct agent_guest *guests, size_t n);

/* One of them has changed, or is new; the others are as they were. One that is what the agent knows costs no look. */
void agent_update(struct agent *a, const struct agent_guest *guest);

/* The cluster knows @name no more. */
void agent_forget(struct agent *a, const char *name);

/* May guests start here (at first: no)? Those that run go on. */
void agent_allow(struct agent *a, bool allowed);

/* Send @sig to the QEMU of every guest of the cluster that the last look found here. */
void agent_signal_all(struct agent *a, int sig);

/* Has a look that began after @since_ns (clock_boot_ns()) found no guest of the cluster alive here, and is none being
 * started? */
bool agent_empty(const struct agent *a, int64_t since_ns);

int agent_fd(const struct agent *a);
void agent_dispatch(struct agent *a);

/* Say everything again, as if nothing had been said: after the cluster was out of reach. agent_tell(): of one guest. */
void agent_tell_all(struct agent *a);
void agent_tell(struct agent *a, const char *name);

/* Promised and resident memory of every guest here, ours or not, for facts_read(): at most @room, returns how many. */
size_t agent_memory(const struct agent *a, struct facts_guest *ret, size_t room);

/* The full path of @name in the folder of this program, or @name alone where that is not known. Caller frees. */
char *agent_program_beside(const char *name);

#endif
