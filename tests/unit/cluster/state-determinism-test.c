/* SPDX-License-Identifier: Apache-2.0 */
/* Tests that members cannot drift apart: random commands, good and bad, on databases that differ in everything but
 * their rows, end with one digest; and the digest sees every table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/move.h"
#include "cluster/state.h"
#include "tests/unit/cluster/state-fixture.h"

/* ---- random commands ---- */

static uint64_t seed;
static int last_id; /* of a node; none is given twice */

static unsigned below(unsigned n)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (unsigned)(seed >> 33) % n;
}

#define PICK(list) (list)[below(ARRAY_SIZE(list))]

static json_t *random_definition(void)
{
	static const char *const names[] = {"a", "b", "c", "d", "e", "-bad"};
	static const char *const files[] = {"/d/1", "/d/2", "/d/3", "relative"};
	static const char *const macs[] = {"52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"};
	unsigned n = below(ARRAY_SIZE(names));
	json_t *d = world_definition(names[n], (int)(below(8) ? n : n + 1), (int)below(400) + 10);

	if (below(3) == 0)
		json_object_set_new(d, "disks",
				    json_pack("[{s:s, s:b}]", "file", PICK(files), "readonly", (int)below(2)));
	if (below(3) == 0)
		json_object_set_new(d, "nics",
				    json_pack("[{s:s, s:s}]", "mac", PICK(macs), "network", below(2) ? "lan" : "dmz"));
	return d;
}

static json_t *random_value(char kind)
{
	static const char *const vms[] = {"a", "b", "c", "d", "e", "none"};
	static const char *const nodes[] = {"n1", "n2", "n3", "n4", "none"};
	static const char *const words[] = {"lan", "dmz", "eve", "bob", "key.1", "key.2", "\xc3\xa4"};
	static const char *const intents[] = {"running", "running", "stopped", "killed"};
	static const char *const statuses[] = {"running", "running", "stopped", "paused", "failed"};
	static const char *const roles[] = {"viewer", "operator", "admin"};
	static const char *const kinds[] = {"power", "disk", "expiry", "manual"};
	static const char *const results[] = {"started", "confirmed", "failed", "unknown"};
	static const char *const modes[] = {"restart", "none", "default"};
	static const char *const failbacks[] = {"never", "when-idle"};
	static const char *const restarts[] = {"crash", "failed", "host", "asked"};
	static const char *const devices[] = {"ipmi", "outlet", "pdu"};
	static const char *const open[] = {"queued", "running"}, *const ended[] = {"done", "failed", "cancelled"};
	char text[80];

	switch (kind) {
	case 'v':
		return json_string(PICK(vms));
	case 'n':
		return json_string(PICK(nodes));
	case 'x': /* whom it happens to: others must go on */
		return json_string(below(4) ? "n3" : PICK(nodes));
	case 'w':
		return json_string(PICK(words));
	case 'I':
		return json_string(PICK(intents));
	case 'S':
		return json_string(PICK(statuses));
	case 'R':
		return json_string(PICK(roles));
	case 'q':
		return json_string(PICK(open));
	case 'e':
		return json_string(PICK(ended));
	case 'k':
		return json_string(PICK(kinds));
	case 'E':
		return json_string(PICK(results));
	case 'M':
		return json_string(PICK(modes));
	case 'F':
		return json_string(PICK(failbacks));
	case 'K':
		return json_string(PICK(restarts));
	case 'D':
		return json_string(PICK(devices));
	case 'W':
		return json_pack("{s:b}", "armed", (int)below(3));
	case 'U':
		return json_pack("{s:s, s:s}", below(5) ? "/z" : "z", "is gone", "/a", below(5) ? "is gone" : "");
	case 'A':
		return below(3) ? json_pack("[{s:s, s:s, s:i}]", "vm", PICK(vms), "until", "delay", "seconds",
					    (int)below(9))
				: json_pack("[{s:s, s:s}, {s:s, s:s, s:s}]", "vm", PICK(vms), "until", "running", "vm",
					    PICK(vms), "until", "port", "address", "[::1]:80");
	case 'Y':
		snprintf(text, sizeof(text), "b007:%u", below(2));
		return json_string(text);
	case 'O':
		return json_pack("{s:s, s:s?}", "ip", "10.0.0.1", "passwd", below(2) ? "geheim" : NULL);
	case 'N':
		return json_pack("{s:s, s:n}", PICK(nodes), "plug 1", PICK(nodes));
	case 'L':
		return below(3) ? json_pack("[s]", PICK(devices)) : json_pack("[s, s]", PICK(devices), PICK(devices));
	case 'p':
		return json_pack("{s:i, s:i}", "max_pause_ms", (int)below(9), "priority", (int)below(3));
	case 's':
		return json_string(move_step_names[below(MOVE_STEP_MAX)]);
	case 'r':
		return json_string(move_role_names[below(MOVE_ROLE_MAX)]);
	case 'u':
		snprintf(text, sizeof(text), "00000000-0000-4000-8000-%012u", below(40));
		return json_string(text);
	case 'h':
		snprintf(text, sizeof(text), "%064x", below(6));
		return json_string(text);
	case 'i':
		return json_integer(below(12) ? 1 + below(6) : 0);
	case 'T': /* long enough for somebody to come with it */
		return json_integer(below(12) ? 60 + below(600) : 0);
	case 'J':
		return json_integer(below(8) ? ++last_id : last_id);
	case 'b':
		return json_boolean(below(2));
	case 't':
		return json_true();
	case 'o':
		return json_false();
	case 'f':
		return json_real(below(1000) / 997.0);
	case 'm':
		return json_pack("{s:I, s:I}", "total", (json_int_t)(below(3) + 1) * 512 * MIB, "free",
				 (json_int_t)MIB);
	case 'l':
		return json_pack("[s]", PICK(words));
	case 'a':
		snprintf(text, sizeof(text), "10.0.0.%u", below(8));
		return json_pack("[s]", text);
	case 'd':
		return random_definition();
	default:
		return json_pack("{s:i, s:[s, n, f], s:{s:i, s:i}}", "z", (int)below(9), "a", "x\n", below(7) / 3.0,
				 "o", "b", 1, "a", 2);
	}
}

/* Operations and their arguments, each with the kind of its values; '?' may be left out. */
static const struct {
	const char *op;
	const char *args[9];
} shapes[] = {
	{"node.join", {"nname", "Jid", "aaddresses", "hfingerprint"}},
	{"node.join", {"nname", "Jid", "aaddresses", "hfingerprint", "?htoken"}},
	{"node.edit", {"nname", "?aaddresses", "?hfingerprint"}},
	{"node.remove", {"nname"}},
	{"node.report",
	 {"nnode", "mmemory", "icpus", "?fload", "?acpu", "?jversions", "?Wwatchdog", "?jdisks", "?Uunreached"}},
	{"node.baseline", {"nnode", "llost", "?wmodel", "?wwith", "wtext"}},
	{"network.create", {"wname", "wbridge", "?ivlan"}},
	{"network.delete", {"wname"}},
	{"vm.create", {"ddefinition", "nnode", "bstart"}},
	{"vm.create", {"ddefinition", "nnode", "bstart"}},
	{"vm.create", {"ddefinition", "nnode", "bstart"}},
	{"vm.create", {"ddefinition", "nnode", "bstart"}},
	{"vm.edit", {"vname", "ddefinition", "?iif-version"}},
	{"vm.delete", {"vname"}},
	{"vm.intent", {"vname", "Iintent", "?itimeout_s"}},
	{"vm.observed", {"vvm", "nnode", "iepoch", "Sstatus", "?ipid", "?wnote", "?jdetail"}},
	{"vm.observed", {"vvm", "nnode", "iepoch", "Sstatus"}},
	{"vm.observed", {"vvm", "nnode", "iepoch", "Sstatus", "ias_of"}},
	{"vm.observed", {"vvm", "nnode", "iepoch", "Sstatus", "ias_of"}},
	{"vm.place", {"vname", "nnode", "iepoch", "?bfenced", "?wreason"}},
	{"vm.place", {"vname", "nnode", "iepoch", "bfenced"}},
	{"vm.place", {"vname", "nnode", "iepoch", "bfenced"}},
	{"vm.restart", {"vname", "iepoch", "Kkind", "?wreason"}},
	{"vm.ha", {"vname", "?Mmode", "?ipriority", "?imax_restarts", "?Ffailback", "?Aafter"}},
	{"ha.bears", {"ibears", "iwish", "wtext"}},
	{"node.lost", {"xnode", "?wincarnation", "?wreason"}},
	{"fence.step", {"nnode", "inumber", "kkind", "Eresult", "?Ddevice", "?ilevel", "?wtext"}},
	{"node.fenced", {"xnode", "inumber", "kproof", "?Ddevice", "?ilevel", "?wtext"}},
	{"node.fenced", {"xnode", "inumber", "kproof", "?Yincarnation"}},
	{"node.alive", {"nnode", "inumber", "?bempty", "?Yincarnation"}},
	{"node.alive", {"nnode", "inumber", "tempty"}},
	{"node.alive", {"nnode", "inumber", "tempty"}},
	{"node.frozen", {"xnode", "bon"}},
	{"node.frozen", {"nnode", "oon"}},
	{"node.aside", {"xnode", "wreason"}},
	{"node.aside-clear", {"nnode"}},
	{"node.aside-clear", {"nnode"}},
	{"fence.device", {"Dname", "wagent", "?Ooptions", "Nnodes", "?wsecret", "?xplug_option", "?ipriority"}},
	{"fence.device-delete", {"Dname"}},
	{"fence.level", {"nnode", "ilevel", "Ldevices"}},
	{"migration.create", {"uid", "vvm", "nto", "?poptions"}},
	{"migration.create", {"uid", "vvm", "nto", "?poptions"}},
	{"migration.create", {"uid", "vvm", "nto", "?poptions"}},
	{"migration.step", {"uid", "sstep", "rrole", "nnode", "iepoch", "?sfrom", "?brestart", "?wnote"}},
	{"migration.step", {"uid", "sstep", "rrole", "nnode", "iepoch"}},
	{"migration.step", {"uid", "sstep", "rrole", "nnode", "iepoch"}},
	{"migration.step", {"uid", "sstep", "rrole", "nnode", "iepoch"}},
	{"migration.step", {"uid", "sstep", "rrole", "nnode", "iepoch"}},
	{"migration.cancel", {"uid"}},
	{"task.create", {"uid", "wkind", "?wobject", "?nnode", "?wnote"}},
	{"task.update", {"uid", "?qstate", "?fprogress", "?ieta_ms", "?wnote"}},
	{"task.finish", {"uid", "estate", "?werror", "?jresult"}},
	{"token.create", {"hhash", "Tttl_s"}},
	{"token.use", {"hhash", "nnode"}},
	{"token.revoke", {"hhash"}},
	{"user.create", {"wname", "Rrole", "?htoken_hash"}},
	{"user.delete", {"wname"}},
	{"setting.set", {"wkey", "jvalue"}},
	{"nobody.knows", {"wit"}},
};

/* The number of the fencing of the node that it is about. */
static void aim_fencing(struct world *w, json_t *args)
{
	const char *node = json_string_value(json_object_get(args, "node"));
	json_t *o = node && json_object_get(args, "number") ? state_node_get(w->db, node, NULL) : NULL;

	if (json_is_integer(json_object_get(o, "fencing")))
		json_object_set(args, "number", json_object_get(o, "fencing"));
	json_decref(o);
}

/* How often each shape of a command was applied. */
static unsigned applied[ARRAY_SIZE(shapes)];
static unsigned newest_shape;

/* Random arguments seldom fit each other: take some from what is there. */
static void aim(struct world *w, const char *op, json_t *args)
{
	bool step = !strncmp(op, "migration.", 10) && strcmp(op, "migration.create") != 0;
	json_t *list = step ? state_migration_list(w->db, true, NULL) : state_vm_list(w->db, NULL);
	size_t n = json_array_size(list);
	json_t *o = n ? json_array_get(list, below((unsigned)n)) : NULL;

	if (o && step) {
		unsigned role = below(MOVE_ROLE_MAX);
		unsigned at = move_step_find(json_string_value(json_object_get(o, "step")));

		json_object_set(args, "id", json_object_get(o, "id"));
		if (!strcmp(op, "migration.step")) {
			json_object_set(args, "epoch", json_object_get(o, "epoch"));
			json_object_set(args, "from", json_object_get(o, "step"));
			json_object_set_new(args, "role", json_string(move_role_names[role]));
			json_object_set(args, "node", json_object_get(o, role == MOVE_SRC ? "src" : "dst"));
			json_object_set_new(args, "step",
					    json_string(move_step_names[(at + below(2) + 1) % MOVE_STEP_MAX]));
		}
	} else if (o && !strncmp(op, "vm.", 3) && strcmp(op, "vm.create") != 0) {
		json_object_set(args, strcmp(op, "vm.observed") ? "name" : "vm", json_object_get(o, "name"));
		if (json_object_get(args, "epoch"))
			json_object_set(args, "epoch", json_object_get(o, "epoch"));
		if (!strcmp(op, "vm.observed"))
			json_object_set(args, "node", json_object_get(o, "owner"));
		if (json_object_get(args, "as_of"))
			json_object_set(args, "as_of", json_object_get(o, "changed"));
	}
	json_decref(list);
	aim_fencing(w, args);
}

static json_t *random_command(struct world *w)
{
	unsigned k = newest_shape = below(ARRAY_SIZE(shapes));
	json_t *args = json_object(), *c;
	static const char *const who[] = {"anna", "b\xc3\xb6rje", "node n1", "node n4"};
	char id[48];

	for (size_t i = 0; i < ARRAY_SIZE(shapes[k].args) && shapes[k].args[i]; i++) {
		const char *a = shapes[k].args[i];
		bool maybe = *a == '?';

		a += maybe;
		if (below(100) == 0 || (maybe && below(2)))
			continue;
		json_object_set_new(args, a + 1, random_value(below(100) == 0 ? 'j' : *a));
	}
	if (below(2))
		aim(w, shapes[k].op, args);
	w->time += below(5000);
	/* Now and then the id of an earlier request. */
	snprintf(id, sizeof(id), "10000000-0000-4000-8000-%012llx",
		 (unsigned long long)(below(50) ? w->index : below((unsigned)w->index + 1)));
	c = json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:o}", "op", shapes[k].op, "v", below(20) ? 2 : 1, "id", id,
		      "time", (json_int_t)w->time, "by", PICK(who), "from", "10.0.0.9", "args", args);
	if (below(200) == 0)
		json_object_del(c, below(2) ? "v" : "time");
	return c;
}

/* ---- other databases ---- */

/* One with small pages, and with holes where other tables were. */
static struct world *world_new_odd(void)
{
	struct world *w = xcalloc(1, sizeof(*w));

	assert_int_equal(sqlite3_open(":memory:", &w->db), SQLITE_OK);
	assert_int_equal(
		sqlite3_exec(w->db,
			     "PRAGMA page_size = 1024; CREATE TABLE junk (a TEXT); INSERT INTO junk WITH RECURSIVE "
			     "c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 500) SELECT hex(zeroblob(n)) "
			     "FROM c; DELETE FROM junk WHERE rowid % 3 = 0; DROP TABLE junk; PRAGMA "
			     "reverse_unordered_selects = 1",
			     NULL, NULL, NULL),
		SQLITE_OK);
	assert_int_equal(state_machine.schema(w->db, &w->e), 0);
	w->time = 1700000000000;
	w->by = "anna";
	return w;
}

/* A member that comes with a copy of another's database. */
static struct world *world_copy(const struct world *from)
{
	struct world *w = xcalloc(1, sizeof(*w));
	sqlite3_backup *b;

	assert_int_equal(sqlite3_open(":memory:", &w->db), SQLITE_OK);
	b = sqlite3_backup_init(w->db, "main", from->db, "main");
	assert_non_null(b);
	assert_int_equal(sqlite3_backup_step(b, -1), SQLITE_DONE);
	assert_int_equal(sqlite3_backup_finish(b), SQLITE_OK);
	assert_int_equal(state_machine.schema(w->db, &w->e), 0);
	w->index = from->index;
	return w;
}

/* Apply it and take it back, as a member does whose disk failed at the end of the transaction. */
static void apply_in_vain(struct world *w, const json_t *command)
{
	const char *before = world_digest(w);
	json_t *result = NULL;

	sqlite3_exec(w->db, "SAVEPOINT vain", NULL, NULL, NULL);
	if (state_machine.apply(w->db, w->index + 1, command, &result, &w->e) == 0)
		json_decref(result);
	sqlite3_exec(w->db, "ROLLBACK TO vain; RELEASE vain", NULL, NULL, NULL);
	assert_string_equal(before, world_digest(w));
}

/* Both said the same. */
static void same_answer(const struct world *a, const struct world *b)
{
	assert_int_equal(a->e.code, b->e.code);
	assert_string_equal(a->e.text, b->e.text);
	assert_true(a->result ? json_equal(a->result, b->result) : !b->result);
}

#define LOOK_EVERY 100

static void same_digest(struct world *const *w, int n)
{
	for (int k = 1; k < n; k++)
		if (w[k])
			assert_string_equal(world_digest(w[0]), world_digest(w[k]));
}

/* Three members: one as it comes, an odd one that also does things in vain, one that joins in the middle. @plain
 * commands that are good come first. Returns how many of the others were. */
static unsigned random_sequence(uint64_t number, unsigned plain, unsigned commands)
{
	struct world *w[3] = {world_new(), world_new_odd(), NULL};
	unsigned good = 0;

	seed = number;
	last_id = 3;
	for (int k = 0; k < 2; k++) {
		world_node(w[k], "n1", 1, GIB);
		world_node(w[k], "n2", 2, GIB);
		world_node(w[k], "n3", 3, GIB);
		for (unsigned i = 0; i < plain; i++)
			assert_int_equal(DO(w[k], "setting.set", "{s:s, s:i}", "key", "x", "value", (int)i), 0);
	}
	for (unsigned i = 0; i < commands; i++) {
		json_t *c = random_command(w[0]);
		int r;

		if (i == commands / 2)
			w[2] = world_copy(w[0]);
		if (i % LOOK_EVERY == 0)
			apply_in_vain(w[1], c);
		r = world_apply(w[0], c);
		good += r == 0;
		applied[newest_shape] += r == 0;
		assert_int_not_equal(w[0]->e.code, ERR_SYSTEM);
		for (int k = 1; k < 3; k++) {
			if (!w[k])
				continue;
			assert_int_equal(world_apply(w[k], c), r);
			same_answer(w[0], w[k]);
		}
		if (i % LOOK_EVERY == 1)
			same_digest(w, 3);
		json_decref(c);
	}
	same_digest(w, 3);
	for (int k = 0; k < 3; k++)
		world_free(w[k]);
	return good;
}

static unsigned op_applied(const char *op)
{
	unsigned n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		n += strcmp(shapes[i].op, op) ? 0 : applied[i];
	return n;
}

static void random_commands_end_with_the_same_digest_on_every_member(void **state)
{
	unsigned good = 0;

	(void)state;
	for (uint64_t number = 1; number <= 14; number++)
		good += random_sequence(number, 0, 2000);
	/* The generator is worth its name: neither all refused nor all taken. */
	assert_in_range(good, 4200, 22400);
	for (size_t i = 0; i + 1 < ARRAY_SIZE(shapes); i++)
		if (op_applied(shapes[i].op) < 2)
			fail_msg("%s was applied %u times", shapes[i].op, op_applied(shapes[i].op));
}

/* Long enough that events are forgotten on the way. */
static void a_long_life_ends_with_the_same_digest_too(void **state)
{
	(void)state;
	assert_true(random_sequence(77, 17000, 2000) > 300);
}

/* ---- the digest and the tables ---- */

/* Rows in every table of the first version. */
static struct world *world_of_version_1(void)
{
	struct world *w = world_new();

	world_node(w, "n1", 1, GIB);
	world_node(w, "n2", 2, GIB);
	world_must(w, "network.create", "{'name': 'lan', 'bridge': 'br0'}", NULL);
	world_must(w, "vm.create",
		   "{'node': 'n1', 'start': true, 'definition': {'name': 'web', 'uuid': '" UUID(
			   1) "', 'memory': 64, "
			      "'vcpus': 1, 'disks': [{'file': '/d/1'}], 'nics': [{'network': 'lan'}]}}",
		   NULL);
	world_must(w, "vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 1, 'status': 'running'}", NULL);
	assert_int_equal(world_move(w, 5, "web", "n2"), 0);
	world_must(w, "task.create", "{'id': '" UUID(6) "', 'kind': 'k'}", NULL);
	world_must(w, "user.create", "{'name': 'eve', 'role': 'viewer'}", NULL);
	world_must(w, "token.create", "{'hash': '" HASH("77") "', 'ttl_s': 60}", NULL);
	world_must(w, "setting.set", "{'key': 'x', 'value': 1}", NULL);
	return w;
}

/* Rows in every table. */
static struct world *world_with_everything(void)
{
	struct world *w = world_of_version_1();

	world_must(w, "vm.create",
		   "{'node': 'n2', 'definition': {'name': 'db', 'uuid': '" UUID(7) "', 'memory': 64, 'vcpus': 1}}",
		   NULL);
	world_must(w, "vm.ha", "{'name': 'db', 'after': [{'vm': 'web', 'until': 'running'}]}", NULL);
	world_must(w, "fence.device", "{'name': 'ipmi', 'agent': 'fence_ipmilan', 'nodes': {'n1': null}}", NULL);
	world_must(w, "fence.level", "{'node': 'n1', 'level': 1, 'devices': ['ipmi']}", NULL);
	world_node(w, "n3", 3, GIB);
	world_guest(w, "app", 8, 64, "n3");
	assert_int_equal(DO(w, "node.lost", "{s:s}", "node", "n3"), 0);
	assert_int_equal(DO(w, "node.fenced", "{s:s, s:I, s:s}", "node", "n3", "number", (json_int_t)w->index, "proof",
			    "manual"),
			 0);
	world_must(w, "vm.place", "{'name': 'app', 'node': 'n2', 'epoch': 1, 'fenced': true}", NULL);
	return w;
}

static json_t *query(struct world *w, const char *text)
{
	json_t *list = json_array();
	sqlite3_stmt *s = NULL;

	assert_int_equal(sqlite3_prepare_v2(w->db, text, -1, &s, NULL), SQLITE_OK);
	while (sqlite3_step(s) == SQLITE_ROW)
		json_array_append_new(list, json_string((const char *)sqlite3_column_text(s, 0)));
	sqlite3_finalize(s);
	return list;
}

static void the_digest_sees_every_table(void **state)
{
	struct world *w = world_with_everything();
	json_t *tables = query(w, "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'state_schema'"), *t;
	size_t i;

	(void)state;
	assert_int_equal(json_array_size(tables), 24);
	json_array_foreach (tables, i, t) {
		_free_ char *text = xasprintf("SAVEPOINT x; DELETE FROM %s", json_string_value(t));
		const char *before = world_digest(w);

		assert_int_equal(sqlite3_exec(w->db, text, NULL, NULL, NULL), SQLITE_OK);
		if (sqlite3_changes(w->db) == 0 || !strcmp(before, world_digest(w)))
			fail_msg("%s", json_string_value(t));
		sqlite3_exec(w->db, "ROLLBACK TO x; RELEASE x", NULL, NULL, NULL);
		assert_string_equal(before, world_digest(w));
	}
	json_decref(tables);
	world_free(w);
}

static void a_value_that_moves_to_the_next_column_changes_the_digest(void **state)
{
	struct world *w = world_with_everything();
	const char *before = world_digest(w);

	(void)state;
	sqlite3_exec(w->db, "UPDATE network SET name = 'la', bridge = 'nbr0'", NULL, NULL, NULL);
	assert_string_not_equal(before, world_digest(w));
	world_free(w);
}

static void making_the_tables_twice_changes_nothing_and_a_newer_schema_is_refused(void **state)
{
	struct world *w = world_with_everything();
	const char *before = world_digest(w);

	(void)state;
	assert_int_equal(state_machine.schema(w->db, &w->e), 0);
	assert_string_equal(before, world_digest(w));
	sqlite3_exec(w->db, "INSERT INTO state_schema (version) VALUES (99)", NULL, NULL, NULL);
	assert_int_equal(state_machine.schema(w->db, &w->e), -1);
	assert_int_equal(w->e.code, ERR_UNSUPPORTED);
	assert_string_equal(w->e.text,
			    "make the tables of the state: the state has schema version 99, this godwitd knows "
			    "up to 2; start the newer godwitd");
	world_free(w);
}

/* Hosts are upgraded one by one: until the first command of version 2 they must not take each other for damaged. */
static void a_state_of_version_1_is_upgraded_and_keeps_its_digest(void **state)
{
	struct world *w = world_of_version_1();
	json_t *later =
		query(w, "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('node_life', "
			 "'fencing', 'fence_step', 'fence_device', 'fence_device_node', 'fence_level', 'vm_ha', "
			 "'vm_after', 'vm_restart', 'vm_home')");
	json_t *t;
	size_t i;

	(void)state;
	assert_int_equal(json_array_size(later), 10);
	/* What a godwitd of version 1 says of this state. */
	assert_string_equal(world_digest(w), "6f98bfa2142ccfb08928c56902e93135639d4e0b38e3384611251fc39bbfc9a0");
	json_array_foreach (later, i, t) {
		_free_ char *text = xasprintf("DROP TABLE %s", json_string_value(t));

		assert_int_equal(sqlite3_exec(w->db, text, NULL, NULL, NULL), SQLITE_OK);
	}
	sqlite3_exec(w->db, "DELETE FROM state_schema WHERE version = 2", NULL, NULL, NULL);
	assert_int_equal(state_machine.schema(w->db, &w->e), 0);
	assert_string_equal(world_digest(w), "6f98bfa2142ccfb08928c56902e93135639d4e0b38e3384611251fc39bbfc9a0");
	world_must(w, "vm.ha", "{'name': 'web', 'priority': 5}", NULL);
	json_decref(later);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_commands_end_with_the_same_digest_on_every_member),
		cmocka_unit_test(a_long_life_ends_with_the_same_digest_too),
		cmocka_unit_test(the_digest_sees_every_table),
		cmocka_unit_test(a_value_that_moves_to_the_next_column_changes_the_digest),
		cmocka_unit_test(a_state_of_version_1_is_upgraded_and_keeps_its_digest),
		cmocka_unit_test(making_the_tables_twice_changes_nothing_and_a_newer_schema_is_refused),
	};

	return cmocka_run_group_tests_name("cluster/state-determinism", tests, NULL, NULL);
}
