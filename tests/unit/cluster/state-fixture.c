/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the state: a database in memory, and commands as one would write them down. */
#include "tests/unit/cluster/state-fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cluster/state.h"

/* A fixture that cannot be built is a broken test. */
static void must(int r, const struct world *w, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, w->e.text);
	abort();
}

struct world *world_new(void)
{
	struct world *w = xcalloc(1, sizeof(*w));

	w->time = 1700000000000;
	w->by = "anna";
	must(sqlite3_open(":memory:", &w->db) == SQLITE_OK ? 0 : -1, w, "open");
	must(state_machine.schema(w->db, &w->e), w, "schema");
	return w;
}

void world_free(struct world *w)
{
	if (sqlite3_close(w->db) != SQLITE_OK)
		abort();
	json_decref(w->result);
	free(w);
}

int world_apply(struct world *w, const json_t *command)
{
	json_t *result = NULL;
	int r;

	w->index++;
	w->e = ERR_INIT;
	json_decref(w->result);
	w->result = NULL;
	sqlite3_exec(w->db, "SAVEPOINT command", NULL, NULL, NULL);
	r = state_machine.apply(w->db, w->index, command, &result, &w->e);
	sqlite3_exec(w->db, r < 0 ? "ROLLBACK TO command; RELEASE command" : "RELEASE command", NULL, NULL, NULL);
	if (r == 0)
		w->result = result;
	return r;
}

json_t *world_command(struct world *w, const char *op, json_t *args)
{
	char id[48];

	w->time += 1000;
	snprintf(id, sizeof(id), "10000000-0000-4000-8000-%012llx", (unsigned long long)w->index);
	return json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:o}", "op", op, "v", (int)state_command_version(op, args),
			 "id", id, "time", (json_int_t)w->time, "by", w->by, "from", "10.0.0.9", "args", args);
}

int world_do(struct world *w, const char *op, json_t *args)
{
	json_t *command = world_command(w, op, args);
	int r = world_apply(w, command);

	json_decref(command);
	return r;
}

/* JSON out of a text with ' for ". */
static json_t *json_of(const char *text)
{
	_free_ char *copy = xstrdup(text);
	json_error_t where;
	json_t *v;

	for (char *p = copy; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	v = json_loads(copy, JSON_DECODE_ANY | JSON_ALLOW_NUL, &where);
	if (!v)
		fail_msg("%s in %s", where.text, copy);
	return v;
}

int world_say(struct world *w, const char *op, const char *args)
{
	return world_do(w, op, json_of(args));
}

void world_is(json_t *v, const char *want)
{
	_free_ char *got = v ? json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;
	json_t *wanted = json_of(want);

	if (!v || !json_equal(v, wanted))
		fail_msg("got %s, want %s", got, want);
	json_decref(wanted);
	json_decref(v);
}

void world_must(struct world *w, const char *op, const char *args, const char *answer)
{
	if (world_say(w, op, args) < 0)
		fail_msg("%s %s: %s", op, args, w->e.text);
	if (answer)
		world_is(json_incref(w->result), answer);
}

void world_refuses(struct world *w, const struct refusal *rows, size_t n)
{
	unsigned wrong = 0;

	for (size_t i = 0; i < n; i++) {
		const char *before = world_digest(w), *after;
		int r = world_say(w, rows[i].op, rows[i].args);

		after = world_digest(w);
		if (r < 0 && w->e.code == rows[i].code && !strcmp(w->e.text, rows[i].text) && !strcmp(before, after))
			continue;
		wrong++;
		print_error("row %zu, %s %s: %s: \"%s\" wanted \"%s\"%s\n", i, rows[i].op, rows[i].args,
			    r < 0 ? err_code_name(w->e.code) : "done", w->e.text, rows[i].text,
			    strcmp(before, after) != 0 ? " and the state has changed" : "");
	}
	assert_int_equal(wrong, 0);
}

json_t *world_field(json_t *v, const char *field)
{
	json_t *f = json_incref(json_object_get(v, field));

	json_decref(v);
	return f;
}

json_t *world_item(json_t *v, size_t i)
{
	json_t *item = json_incref(json_array_get(v, i));

	json_decref(v);
	return item;
}

const char *world_text(json_t *v, const char *field)
{
	static char text[1024];
	const json_t *f = json_object_get(v, field);
	bool there = json_is_string(f);

	if (there)
		snprintf(text, sizeof(text), "%s", json_string_value(f));
	json_decref(v);
	return there ? text : NULL;
}

int64_t world_int(json_t *v, const char *field)
{
	const json_t *f = json_object_get(v, field);
	int64_t n;

	assert_true(json_is_integer(f));
	n = json_integer_value(f);
	json_decref(v);
	return n;
}

void world_node(struct world *w, const char *name, int id, int64_t memory)
{
	char address[32], fingerprint[65];

	snprintf(address, sizeof(address), "10.0.0.%d", id);
	snprintf(fingerprint, sizeof(fingerprint), "%064x", (unsigned)id);
	must(DO(w, "node.join", "{s:s, s:i, s:[s], s:s}", "name", name, "id", id, "addresses", address, "fingerprint",
		fingerprint),
	     w, "join");
	must(DO(w, "node.report", "{s:s, s:{s:I, s:I}, s:i}", "node", name, "memory", "total", (json_int_t)memory,
		"free", (json_int_t)memory / 2, "cpus", 8),
	     w, "report");
}

json_t *world_definition(const char *name, int n, int mib)
{
	char uuid[48];

	snprintf(uuid, sizeof(uuid), "00000000-0000-4000-8000-%012d", n);
	return json_pack("{s:s, s:s, s:i, s:i}", "name", name, "uuid", uuid, "memory", mib, "vcpus", 2);
}

void world_guest(struct world *w, const char *name, int n, int mib, const char *node)
{
	must(DO(w, "vm.create", "{s:o, s:s, s:b}", "definition", world_definition(name, n, mib), "node", node, "start",
		1),
	     w, "create");
	must(DO(w, "vm.observed", "{s:s, s:s, s:i, s:s}", "vm", name, "node", node, "epoch", 1, "status", "running"), w,
	     "observed");
}

static void down(struct world *w, const char *name, const char *node, int64_t epoch, const char *status)
{
	int64_t changed = world_int(state_vm_get(w->db, name, &w->e), "changed");

	assert_int_equal(DO(w, "vm.observed", "{s:s, s:s, s:I, s:s, s:I}", "vm", name, "node", node, "epoch",
			    (json_int_t)epoch, "status", status, "as_of", (json_int_t)changed),
			 0);
}

void world_rests(struct world *w, const char *name, const char *node, int64_t epoch)
{
	down(w, name, node, epoch, "stopped");
}

void world_fails(struct world *w, const char *name, const char *node, int64_t epoch)
{
	down(w, name, node, epoch, "failed");
}

int world_move(struct world *w, int n, const char *vm, const char *to)
{
	char id[48];

	snprintf(id, sizeof(id), "00000000-0000-4000-8000-%012d", n);
	return DO(w, "migration.create", "{s:s, s:s, s:s}", "id", id, "vm", vm, "to", to);
}

int world_step(struct world *w, int n, const char *step, const char *role, const char *node, int64_t epoch)
{
	json_t *args, *o;
	char id[48];

	snprintf(id, sizeof(id), "00000000-0000-4000-8000-%012d", n);
	o = state_migration_get(w->db, id, &w->e);
	args = json_pack("{s:s, s:s, s:s, s:s, s:I}", "id", id, "step", step, "role", role, "node", node, "epoch",
			 (json_int_t)epoch);
	json_object_set(args, "from", json_object_get(o, "step"));
	json_decref(o);
	return world_do(w, "migration.step", args);
}

const char *world_digest(struct world *w)
{
	static char buffers[2][65];
	static int turn;
	char *text = buffers[turn ^= 1];
	uint8_t d[32];

	must(state_machine.digest(w->db, d, &w->e), w, "digest");
	for (int i = 0; i < 32; i++)
		snprintf(text + i * 2, 3, "%02x", d[i]);
	return text;
}
