/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the daemon itself share. */
#ifndef GODWIT_NODE_DAEMON_INT_H
#define GODWIT_NODE_DAEMON_INT_H

#include "node/daemon.h"

#define DAEMON_ENV_KEPT 3 /* variables of the service manager that the next program needs */

struct daemon_parts {
	char *notify_values[DAEMON_ENV_KEPT];
	struct loop_timer *look, *report, *tick, *renew, *watchdog, *restart;
	struct loop_signal *term, *interrupt, *hup, *usr1;
	struct loop_io *agent_io;
	bool look_due;
	bool was_synced;
	bool untold;        /* the state lacks what the agent has said about a guest of ours */
	bool founding;      /* the founder's first commands are on their way */
	json_t *judged;     /* nodes whose CPU the manager has judged */
	bool restarting;    /* the loop ends for that */
	bool lost_identity; /* the cluster has removed this host */
};

/* ---- daemon-look.c: what the state says becomes what this host does ---- */

/* The timer's; @arg is the daemon: ring, moves, agent. */
void daemon_look(void *arg);

/* The agent alone. */
void daemon_look_agent(struct daemon *d);

/* The networks that this host has, of those of the cluster, made if they were missing: their names. New reference. */
json_t *daemon_networks(struct daemon *d);

/* A network that the cluster has no more, by the command that removed it: take away what was made for it. */
void daemon_network_gone(const json_t *command);

#endif
