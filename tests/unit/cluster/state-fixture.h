/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the state: a database in memory, and commands as one would write them down. */
#ifndef GODWIT_TESTS_UNIT_CLUSTER_STATE_FIXTURE_H
#define GODWIT_TESTS_UNIT_CLUSTER_STATE_FIXTURE_H

#include <jansson.h>
#include <sqlite3.h>
#include <stdint.h>

#include "base/err.h"

#define MIB (1LL << 20)
#define GIB (1LL << 30)
#define UUID(n) "00000000-0000-4000-8000-00000000000" #n /* one digit */
#define HASH(two)                                                                                                      \
	two two two two two two two two two two two two two two two two two two two two two two two two two two two    \
		two two two two two

struct world {
	sqlite3 *db;
	uint64_t index;
	int64_t time;
	struct err e;   /* of the last refusal */
	json_t *result; /* of the last success */
	const char *by; /* "anna" */
};

struct world *world_new(void);
void world_free(struct world *w);

/* Apply one command as the replica does: in a savepoint, rolled back on -1. */
int world_apply(struct world *w, const json_t *command);

/* A command with a fresh id and the next time; takes @args. */
json_t *world_command(struct world *w, const char *op, json_t *args);

/* Make, apply and forget a command. Takes @args. */
int world_do(struct world *w, const char *op, json_t *args);
#define DO(w, op, ...) world_do(w, op, json_pack(__VA_ARGS__))

/* As world_do(), with arguments as JSON text in which ' stands for ". */
int world_say(struct world *w, const char *op, const char *args);

/* It must succeed; with @answer (as above) exactly so. */
void world_must(struct world *w, const char *op, const char *args, const char *answer);

/* What must be refused: the code, and the whole sentence. */
struct refusal {
	const char *op, *args;
	enum err_code code;
	const char *text;
};
void world_refuses(struct world *w, const struct refusal *rows, size_t n);

/* Whether the JSON @v, which is given back, is @want (as above). */
void world_is(json_t *v, const char *want);

/* A field of an object, an item of a list: a new reference, and the whole is given back. */
json_t *world_field(json_t *v, const char *field);
json_t *world_item(json_t *v, size_t i);

/* Text of a value of an object, which is given back: NULL for other types. In a static buffer. */
const char *world_text(json_t *v, const char *field);
int64_t world_int(json_t *v, const char *field);

/* A node with @memory bytes that has reported, id @id, address 10.0.0.@id. */
void world_node(struct world *w, const char *name, int id, int64_t memory);

/* A definition with the uuid UUID(@n); memory in MiB. */
json_t *world_definition(const char *name, int n, int mib);

/* A guest of @mib MiB that runs on @node. */
void world_guest(struct world *w, const char *name, int n, int mib, const char *node);

/* Its owner says that it is down, knowing its last change. */
void world_rests(struct world *w, const char *name, const char *node, int64_t epoch);
/* The same of one whose QEMU died. */
void world_fails(struct world *w, const char *name, const char *node, int64_t epoch);

/* A move of it; 0 or -1. The id is UUID(@n). */
int world_move(struct world *w, int n, const char *vm, const char *to);
int world_step(struct world *w, int n, const char *step, const char *role, const char *node, int64_t epoch);

/* Digest in hexadecimal, in a static buffer of which there are two. */
const char *world_digest(struct world *w);

#endif
