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
	bool look_all;   /* everything may have changed: look at all of it */
	bool look_ring;  /* so may the list of nodes */
	json_t *changed; /* names of guests that commands were about since the last look */
	json_t *untold;  /* names of guests of ours of which the state lacks what the agent has said */
	bool was_synced;
	bool founding;        /* the founder's first commands are on their way */
	json_t *judged;       /* nodes whose CPU the manager has judged: that CPU */
	unsigned report_less; /* as REPORT_LEAST says */
	struct folders *folders;
	bool restarting;    /* the loop ends for that */
	bool lost_identity; /* the cluster has removed this host */
};

/* ---- daemon-look.c: what the state says becomes what this host does ---- */

/* The timer's; @arg is the daemon: ring, moves, agent. */
void daemon_look(void *arg);

/* The agent alone, all guests. */
void daemon_look_agent(struct daemon *d);

/* A command was applied: what it may have changed is looked at by the next look, which is soon. */
void daemon_look_changed(struct daemon *d, const char *op, const json_t *result);

/* Have the agent say again what the state lacks. */
void daemon_look_untold(struct daemon *d);

/* The networks that this host has, of those of the cluster, made if they were missing: their names. New reference. */
json_t *daemon_networks(struct daemon *d);

/* A network that the cluster has no more, by the command that removed it: take away what was made for it. */
void daemon_network_gone(const json_t *command);

/* ---- daemon.c ---- */

/* Report what this host is and has, now. */
void daemon_report(void *arg);

/* ---- daemon-baseline.c ---- */

/* The manager tells when the CPU in a report (the arguments of node.report) takes something from what guests can have
 * on all hosts. */
void daemon_tell_baseline(struct daemon *d, const json_t *report);

#endif
