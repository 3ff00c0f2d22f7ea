/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the API share: reading and writing the state for one request. */
#ifndef GODWIT_NODE_API_INT_H
#define GODWIT_NODE_API_INT_H

#include "node/api.h"

struct api_bound;

/* Of one daemon. */
struct api {
	struct daemon *d;
	struct api_bound *bound;
	size_t n_bound;
	int64_t published;  /* newest event that the feed was given; -1: none yet */
	bool led;           /* at the last tick */
	unsigned ticks;     /* as leader */
	unsigned measuring; /* forecasts that are being made */
	/* Is a node a member now? The replica's answer; tests on one host have their own. */
	bool (*present)(const void *replica, uint32_t node);
	struct metric *index, *age, *synced, *leads, *alone, *members, *vms, *migrations, *tasks;
	struct metric *ha_bears, *ha_wish, *ha_waiting;
};

/* A row of the table of handlers: exactly one of the functions. */
struct api_handler {
	const char *operation;
	/* Answer out of the state: a new reference, or NULL with @e. Runs in one read transaction. */
	json_t *(*read)(struct daemon *d, const struct http_call *call, struct err *e);
	/* Anything else. The daemon has a replica. */
	void (*handle)(struct daemon *d, struct http_call *call);
	const char *object; /* parameter of the path that names what it is about; NULL: none */
};

/* Tables end with {0}. */
extern const struct api_handler api_read_handlers[], api_write_handlers[], api_vm_handlers[], api_console_handlers[],
	api_forecast_handlers[], api_fence_handlers[], api_ha_handlers[], api_power_handlers[];

/* ---- writing ---- */

/* A change that a request asks for: one command after the other, then the answer. */
struct api_write {
	struct daemon *d;
	struct http_call *call;
	char *object;  /* of error answers */
	json_t *extra; /* what the next step needs; an object */
	void (*then)(struct api_write *w, const json_t *result);
	/* A refusal: true when it has proposed anew. NULL: every refusal is final. */
	bool (*again)(struct api_write *w, const struct err *e);
	int tries; /* of that */
};

/* Begin; @object may be NULL. */
struct api_write *api_write_new(struct daemon *d, struct http_call *call, const char *object);

/* Propose @op on behalf of who asks; takes @args. Its id is the request's (@part NULL), or is made of that and @part: a
 * request that comes twice makes the same commands, which are applied once. A refusal is the answer, and the end; after
 * a success @then goes on: with another api_propose(), or with api_reply(). */
void api_propose(struct api_write *w, const char *op, const char *part, json_t *args,
		 void (*then)(struct api_write *w, const json_t *result));

/* Answer, takes @body, and end. */
void api_reply(struct api_write *w, int status, json_t *body);
void api_reply_err(struct api_write *w, const struct err *e);

/* The task of this request is there: it came before. Answer with it, and end. */
bool api_answered_before(struct api_write *w, const char *kind);

/* Make a task of @kind about w->object, answer 202 with it and w->extra, and end. @node: who works on it, or NULL. */
void api_start_task(struct api_write *w, const char *kind, const char *node);

/* ---- high availability ---- */

/* Add "ha" to a row of state_vm_get(), or to each of state_vm_list(): what is done when the guest or its host dies. */
void api_vm_add_ha(struct daemon *d, json_t *vm);
void api_vms_add_ha(struct daemon *d, json_t *vms);
void api_vms_add_waiting(struct daemon *d, json_t *vms); /* "waiting": why one is not started yet */

/* ---- forecasts ---- */

/* A move that is forecast. */
struct api_move {
	const char *to;     /* destination */
	uint64_t wire_rate; /* bytes/s by the setting, for when it cannot be measured */
	uint64_t bandwidth; /* bytes/s that the move may take, 0: all there is */
	unsigned pause_ms;  /* allowed */
	bool alone;         /* answer with the forecast itself, not with w->extra and it */
};

/* Measure how fast guest @vm (state_vm_get()) writes, on the host that has it, and what the wire from there carries;
 * answer, and end. Takes about two seconds. */
void api_forecast(struct api_write *w, const json_t *vm, const struct api_move *m);

/* ---- other hosts ---- */

/* HOST:PORT of a node's API; NULL with @e. Caller frees. */
char *api_peer_address(struct daemon *d, const char *node, struct err *e);

/* ---- small things ---- */

/* http_reply_err(), and where to look when something is not there. */
void api_refuse(struct http_call *call, const struct err *e, const char *object);

/* A uuid that follows from the uuid @id and @part. */
void api_id_make(const char *id, const char *part, char ret[37]);

/* One read transaction around several questions. */
void api_read_begin(struct daemon *d);
void api_read_end(struct daemon *d);

const char *api_text(const json_t *o, const char *key); /* "" when it is not there */

/* Where a guest goes, and why. */
struct place_guest;

struct api_choice {
	char *node;
	json_t *explanation; /* NULL where there is no such node */
	uint64_t wire_rate;  /* bytes/s */
};

/* The node @asked for, if @g fits there, or else (NULL) the best one. -1 with @e (may be NULL); @ret may explain all
 * the same. Free with api_choice_done(), also on failure. */
int api_choose(struct daemon *d, const struct place_guest *g, const char *asked, struct api_choice *ret, struct err *e);
void api_choice_done(struct api_choice *c);

#endif
