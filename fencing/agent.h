/* SPDX-License-Identifier: Apache-2.0 */
/* Fence agents: programs that switch the power of other machines, run by the standard interface of Debian's
 * fence-agents.
 */
#ifndef GODWIT_FENCING_AGENT_H
#define GODWIT_FENCING_AGENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"

/*
 * The interface (the FenceAgentAPI of ClusterLabs' fence-agents): options are key=value lines on standard input,
 * `action` among them; the exit status is 0 for done, and for `status` 0 on, 2 off, anything else unknown.
 *
 * What this module promises:
 * - Secrets go through that pipe and nowhere else: they are in no argument list, no environment, no log and no error.
 * They are struck out of what the agent prints. (What an agent passes on to programs of its own is the agent's matter.)
 * - A call ends: when it is late, or forgotten by its owner, the agent and all processes that it has started are
 * killed. When the agent ends, what it left running in its process group is killed too: nothing may switch a power
 * outlet later.
 * - The agent dies with the daemon: an action that nobody would write down does not go on.
 */

/* ---- what an agent can be told ---- */

enum agent_action {
	AGENT_ON,
	AGENT_OFF,
	AGENT_REBOOT,
	AGENT_STATUS,
	AGENT_MONITOR,
	AGENT_LIST,
	AGENT_METADATA,
	AGENT_VALIDATE,
	AGENT_ACTION_MAX
};
extern const char *const agent_action_names[AGENT_ACTION_MAX];

/* What `status` says about a plug. */
enum agent_state { AGENT_STATE_UNKNOWN, AGENT_STATE_ON, AGENT_STATE_OFF, AGENT_STATE_MAX };
extern const char *const agent_state_names[AGENT_STATE_MAX];

#define AGENT_DIRS "/usr/sbin" /* where agents are looked for by default */
#define AGENT_NAME_MAX 64
#define AGENT_OUT_MAX (256U << 10) /* bytes kept of standard output; the rest is read and dropped */
#define AGENT_ERR_MAX (16U << 10)  /* bytes kept of standard error: the last ones */
#define AGENT_INPUT_MAX (32U << 10)
#define AGENT_MASK "********"

/* Where agent @name (fence_...) is: the first of @dirs (folders with ':' between, NULL: AGENT_DIRS) that has it. Folder
 * and file must belong to root, or to the user that this program runs as, and nobody else may be able to write to them.
 * Caller frees. NULL with @e. Blocks for a few stat(2). */
char *agent_path(const char *dirs, const char *name, struct err *e);

/* ---- one call ---- */

struct agent_call_spec {
	const char *dirs; /* as for agent_path() */
	const char *agent;
	enum agent_action action;
	const json_t *options;   /* object of strings, as agent_options_check() gives them; NULL: none */
	const json_t *secrets;   /* names of options that are secret beyond agent_name_is_secret(); may be NULL */
	const char *plug_option; /* "plug", "port", or NULL: the agent has none */
	const char *plug;        /* NULL: none */
	int64_t timeout_ns;
};

/* How a call ended; borrowed during the callback. */
struct agent_end {
	enum agent_action action;
	int exit_status;        /* -1: late, or ended by a signal */
	bool late;              /* it was killed at its time-out */
	bool out_cut;           /* it printed more than AGENT_OUT_MAX */
	enum agent_state state; /* of `status`: by the exit status; unknown for other actions */
	const char *out;        /* standard output, NUL-terminated, without secrets */
	size_t out_size;
	const char *words; /* what happened, without the agent's name: "off exited with status 1: cannot log in" */
};

/* Exactly once, from the loop. May free the call. */
typedef void agent_end_fn(void *arg, const struct agent_end *end);

struct agent_call;

/* Start a call; @spec is borrowed during this call only. NULL with @e: there is no such agent, or it cannot be run.
 * *loop* */
struct agent_call *agent_call_start(struct loop *loop, const struct agent_call_spec *spec, agent_end_fn *fn, void *arg,
				    struct err *e);

/* Forget a call: what still runs is killed, and the callback is not called any more. Takes NULL. */
void agent_call_free(struct agent_call *c);

/* ---- metadata ---- */

/*
 * Metadata as JSON:
 *	{"name": "fence_x", "description": "...", "fabric": false, "actions": ["on", "off", ...],
 *	 "parameters": [{"name", "type": "string|boolean|integer|second|select", "required": false, "secret": false,
 *			 "deprecated": false, "default": "..."|null, "obsoletes": "..."|null, "values": [...]|null,
 *			 "description": "..."}]}
 * "fabric": `on` is to be called by a host that starts (attribute automatic="1"), as agents want that cut a host off
 *its storage or network, and leave it running.
 */

/* Read the XML that action metadata prints (caller decrefs); NULL with @e. Pure. */
json_t *agent_metadata_parse(const char *xml, size_t size, struct err *e);

/* 0 when the agent can prove that a host is off; -1 with @e saying why it cannot (no `off`, no `status`, cuts storage
 * only, ...). Pure. */
int agent_metadata_usable(const json_t *metadata, struct err *e);

/* The option that takes the plug: "plug", "port", or NULL. *ret_required: must be given. Static. Pure. */
const char *agent_metadata_plug(const json_t *metadata, bool *ret_required);

/* Names of secret parameters: array of strings, caller decrefs. Pure. */
json_t *agent_metadata_secrets(const json_t *metadata);

/* @metadata is NULL when it could not be had, and @e says why. Borrowed. */
typedef void agent_metadata_fn(void *arg, json_t *metadata, const struct err *e);

/* Ask @agent for its metadata. NULL with @e, or a call to be freed with agent_call_free(). The sentence of each failure
 * has the agent's name. *loop* */
struct agent_call *agent_metadata_start(struct loop *loop, const char *dirs, const char *agent, int64_t timeout_ns,
					agent_metadata_fn *fn, void *arg, struct err *e);

/* ---- options ---- */

/* Judge the options of a device by the agent's metadata, and give them as an object of strings (caller decrefs):
 * booleans as "1" and "0", numbers in decimal. Plug and action are not among them. NULL with @e, one sentence: an
 * unknown option (with the nearest that exists), a wrong value, a missing one, one that is ours to set or that would
 * let a failure look like success. Pure. */
json_t *agent_options_check(const json_t *metadata, const json_t *options, struct err *e);

/* Whether the name alone says so: password, passwd_script, snmp_priv_passwd, api key, token, community, ... Pure. */
bool agent_name_is_secret(const char *name);

/* A copy of @options with secrets replaced by AGENT_MASK (caller decrefs). @secrets as in agent_call_spec. Pure. */
json_t *agent_options_mask(const json_t *options, const json_t *secrets);

/* A copy of @options in which each value AGENT_MASK is the one that @old has: for a client that sends back what it was
 * shown. Caller decrefs. @old may be NULL. Pure. */
json_t *agent_options_unmask(const json_t *options, const json_t *old);

#endif
