/* SPDX-License-Identifier: Apache-2.0 */
/* Between the parts of the state machine: one change in the making, the table of operations, reading of arguments. */
#ifndef GODWIT_CLUSTER_STATE_INT_H
#define GODWIT_CLUSTER_STATE_INT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/sql.h"

/* What an event is for: only to know the request again, for `events` too, for the audit log too. */
enum event_level { EVENT_QUIET, EVENT_REPORT, EVENT_AUDIT };

struct recent;

/* One command while it is applied. Everything is borrowed from the command unless it says otherwise. */
struct change {
	sqlite3 *db;
	uint64_t index;   /* of the log */
	int64_t time;     /* ms since 1970, from the command */
	const char *by;   /* who asks */
	const char *from; /* address */
	const json_t *args;
	const char *kind; /* "vm": what the command is about, for messages */
	const char *name; /* which one; NULL until it is known */
	json_t *result;   /* an object that the operation fills; becomes the answer and the event's data */
	bool unchanged;   /* set by the operation: all is as asked already, which nobody needs to hear */
	struct recent *recent;
	struct err *e;
};

/* ---- arguments: a table per operation, checked before the operation runs ---- */

enum arg_type {
	ARG_NAME,   /* of a guest, node, network, user: letters, digits, '_', '.', '-'; at most 63 */
	ARG_UUID,   /* 8-4-4-4-12 hexadecimal digits, lower case */
	ARG_HASH,   /* 64 hexadecimal digits, lower case: a SHA-256 */
	ARG_TEXT,   /* without control characters; min and max bytes */
	ARG_INT,    /* min and max */
	ARG_NUMBER, /* with or without a fraction; min and max */
	ARG_BOOL,
	ARG_CHOICE, /* one of choices */
	ARG_OBJECT,
	ARG_TEXTS, /* a list of min to max non-empty texts */
	ARG_ANY
};

struct arg {
	const char *name; /* NULL ends a table */
	enum arg_type type;
	bool required;
	int64_t min, max;
	const char *const *choices; /* ends with NULL */
};

/* Rows of such tables; {0} ends one. */
#define NEEDED(n, t)                                                                                                   \
	{                                                                                                              \
		.name = (n), .type = (t), .required = true                                                             \
	}
#define NEEDED_IN(n, t, lo, hi)                                                                                        \
	{                                                                                                              \
		.name = (n), .type = (t), .required = true, .min = (lo), .max = (hi)                                   \
	}
#define NEEDED_OF(n, c)                                                                                                \
	{                                                                                                              \
		.name = (n), .type = ARG_CHOICE, .required = true, .choices = (c)                                      \
	}
#define ALLOWED(n, t)                                                                                                  \
	{                                                                                                              \
		.name = (n), .type = (t)                                                                               \
	}
#define ALLOWED_IN(n, t, lo, hi)                                                                                       \
	{                                                                                                              \
		.name = (n), .type = (t), .min = (lo), .max = (hi)                                                     \
	}
#define ALLOWED_OF(n, c)                                                                                               \
	{                                                                                                              \
		.name = (n), .type = ARG_CHOICE, .choices = (c)                                                        \
	}

/* Check @args against @table: every field known, typed, in range, every required one there. A JSON null counts as
 * absent. */
int args_check(struct change *c, const struct arg *table, const char *object);

/* Of checked arguments. NULL, @otherwise where absent. */
const char *arg_text(const struct change *c, const char *name);
int64_t arg_int(const struct change *c, const char *name, int64_t otherwise);
bool arg_true(const struct change *c, const char *name);
const json_t *arg_json(const struct change *c, const char *name);

/* Whether @s is a name / a UUID / a SHA-256 as above. Pure. */
bool text_is_name(const char *s);
bool text_is_uuid(const char *s);
bool text_is_hash(const char *s);
/* Whether the JSON string @v has @min to @max bytes, none of them a control character. Pure. */
bool text_is_plain(const json_t *v, size_t min, size_t max);

/* Compact JSON with sorted keys: the same text on every member. NULL with c->e when it is longer than @limit. Caller
 * frees.
 */
char *change_dump(struct change *c, const json_t *v, size_t limit, const char *what);

/* Refuse: "vm web1: ..." with the object in front. Returns -1. */
int refuse(struct change *c, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__
#define refuse(...) ((refuse)(__VA_ARGS__), -1)
#endif

/* Write down a second event of this change, about another object. Takes @data. */
int change_event(struct change *c, const char *op, const char *object, json_t *data);

/* ---- operations ---- */

struct op {
	const char *name;   /* "vm.create" */
	const char *kind;   /* "vm" */
	const char *object; /* the argument that names it; NULL: the operation finds out */
	const struct arg *args;
	int (*apply)(struct change *c);
	enum event_level level; /* EVENT_AUDIT: what somebody decided; EVENT_REPORT: what an agent saw or did */
	unsigned since;         /* the command version that brought it, or these arguments of it */
};

/* Each part's operations; a NULL name ends the table. */
extern const struct op node_ops[], vm_ops[], network_ops[], migration_ops[], task_ops[], access_ops[];
extern const struct op life_ops[], fence_ops[], ha_ops[];

/* Make or upgrade the tables; the digest over them (cluster/state-schema.c). */
int state_schema(sqlite3 *db, struct err *e);
int state_digest(sqlite3 *db, uint8_t out[32], struct err *e);

/* ---- what parts ask of each other ---- */

#define DEFINITION_MAX (1U << 20) /* bytes of JSON */

/* 1 there is such a node, 0 there is none: then refused by name; -1. */
int node_need(struct change *c, const char *name);

/* Refuse unless guests may be given to node @name, which is there: it is not lost, not confirmed dead, not put aside,
 * and its daemon is not being stopped. */
int node_takes(struct change *c, const char *name);

/* Refuse what node @name says while it is confirmed dead. @what: "what it saw". */
int node_speaks(struct change *c, const char *name, const char *what);

/* 1 node @name is confirmed dead; 0 it is not, and *ret_life says what it is instead (static); -1. */
int node_is_fenced(struct change *c, const char *name, const char **ret_life);

/* Node @name is removed: forget its life, its places at fence devices, its levels, and that it was anybody's home. */
int node_forget_life(struct change *c, const char *name);
int node_forget_fencing(struct change *c, const char *name);

/* Guest @name was started again: remember it, with @kind "crash", "failed" or "host". */
/* Refuse, unless the command comes from a member, by its certificate: "@what is said by a node of the cluster". 1, or
 * -1.
 */
int said_by_member(struct change *c, const char *what);

/* The kind of a restart after a failure for which its owner gave @cause (may be NULL). */
const char *failure_kind(const char *cause);

int restart_write(struct change *c, const char *name, const char *kind, const char *node, const char *reason);
int restarts_forget(struct change *c, const char *name);

/* Node @node is where guest @name goes back to; NULL: it is at home wherever it is. */
int home_write(struct change *c, const char *name, const char *node);

/* Guest c->name is deleted: refused while another one waits for it. */
int vm_forget_ha(struct change *c);

/* Refuse if node @name cannot promise @need more bytes of memory, beside what it has promised already. */
int node_memory_check(struct change *c, const char *name, int64_t need);

/* The id of the unfinished migration of a guest: 1 (caller frees *ret), 0 none, -1. */
int migration_of(struct change *c, const char *vm, char **ret);

/* Use up a join token. */
int token_take(struct change *c, const char *hash, const char *node);

/* ---- JSON out of rows ---- */

/* Column @i as JSON: parsed text for columns that hold JSON, NULL as null. */
json_t *column_json(sqlite3_stmt *s, int i);
json_t *column_text(sqlite3_stmt *s, int i);
json_t *column_int(sqlite3_stmt *s, int i);

/* One object with the columns of the current row: @names is a space-separated list in order; a name that ends with
 * '*' holds JSON, with '?' a truth value. */
json_t *row_json(sqlite3_stmt *s, const char *names);

/* All rows of a statement as a list, or the first one (NULL with ERR_NOTFOUND "kind name: there is no such kind"). */
json_t *rows_json(sqlite3_stmt *s, const char *names, struct err *e);
json_t *first_json(sqlite3_stmt *s, const char *names, const char *kind, const char *name, struct err *e);

#endif
