/* SPDX-License-Identifier: Apache-2.0 */
/* The order of commands: the real state machine on one database, proposals on their way, hosts that hear late. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "tests/sim/move-sim.h"

#define MIGRATION "00000000-0000-4000-8000-000000000001"

sqlite3 *sim_db;

static void run(const char *text)
{
	if (sqlite3_exec(sim_db, text, NULL, NULL, NULL) != SQLITE_OK)
		abort();
}

static int apply(const json_t *command, struct err *e)
{
	json_t *result = NULL;
	int r;

	run("SAVEPOINT command");
	r = state_machine.apply(sim_db, ++sim->index, command, &result, e);
	run(r < 0 ? "ROLLBACK TO command; RELEASE command" : "RELEASE command");
	json_decref(result);
	return r;
}

static json_t *command_new(const char *op, const char *by, json_t *args)
{
	char id[40];

	snprintf(id, sizeof(id), "10000000-0000-4000-8000-%012" PRIu64, sim->order++);
	return json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:o}", "op", op, "v", 1, "id", id, "time",
			 (json_int_t)1700000000000 + sim->now, "by", by, "from", "10.0.0.1", "args", args);
}

static int node_number(const json_t *name)
{
	return json_string_value(name)[1] - '1';
}

/* What must hold between a row and the next: an end stays, the destination's stays its own, no epoch goes back. */
static void check_rows(const struct row *old, const struct row *now)
{
	if (move_step_ended(old->step) && now->step != old->step)
		sim_fail("an ended move went on: %s, %s", move_step_names[old->step], move_step_names[now->step]);
	if (move_step_dst_owns(old->step) && !move_step_dst_owns(now->step))
		sim_fail("a committed move was taken back: %s", move_step_names[now->step]);
	if (now->step == MOVE_COMMITTED && !sim->go_got)
		sim_fail("it is committed, and the destination has never received GO");
	if (now->step == MOVE_FAILED && !now->restart && sim->go_got)
		sim_fail("it is failed, and the destination has received GO");
	if (now->epoch < old->epoch)
		sim_fail("the epoch went back");
	if (now->owner != old->owner && now->epoch == old->epoch)
		sim_fail("another owner with the same epoch");
}

static void hear(struct event *ev);

static void row_add(void)
{
	json_t *m = state_migration_get(sim_db, MIGRATION, NULL), *vm = state_vm_get(sim_db, "web1", NULL);
	struct row r = {
		.step = move_step_find(json_string_value(json_object_get(m, "step"))),
		.cancel = json_is_true(json_object_get(m, "cancel")),
		.restart = json_is_true(json_object_get(m, "restart")),
		.owner = node_number(json_object_get(vm, "owner")),
		.epoch = json_integer_value(json_object_get(vm, "epoch")),
	};

	json_decref(m);
	json_decref(vm);
	if (sim->n_history == HISTORY_MAX)
		abort();
	if (sim->n_history)
		check_rows(row_now(), &r);
	if (!sim->n_history || row_now()->step != r.step)
		faults_step(r.step);
	sim->history[sim->n_history++] = r;
	for (int i = 0; i < HOSTS; i++)
		sim_at((int64_t)sim_below(sim_chance(90) ? 20 : 3000), hear, i, -1, (int64_t)sim->n_history, 0, NULL);
}

/* A host hears of the order up to row a; who is cut off hears it afterwards. */
static void hear(struct event *ev)
{
	struct host *h = &sim->hosts[ev->host];

	if (!h->up || !h->daemon)
		return; /* it catches up when it starts */
	if (!host_quorate(h)) {
		sim_at(1000, hear, ev->host, ev->life, ev->a, 0, NULL);
		return;
	}
	if ((size_t)ev->a <= h->seen)
		return;
	h->seen = (size_t)ev->a;
	daemon_look(h);
}

/* ---- proposals ---- */

static void acked(struct event *ev)
{
	struct host *h = &sim->hosts[ev->host];

	if (h->daemon && h->daemon_life == (int)(ev->a >> 8))
		daemon_acked(h, (enum move_step)(ev->a & 0xff), ev->b);
}

static void arrive(struct event *ev)
{
	struct host *h = &sim->hosts[ev->host];
	const char *step = json_string_value(json_object_get(json_object_get(ev->command, "args"), "step"));
	enum move_step s = step ? move_step_find(step) : MOVE_STEP_MAX;
	struct err e = ERR_INIT;
	int r;

	if (!host_quorate(h)) {
		if (sim_chance(50)) /* it waits, or is lost */
			sim_at(1000, arrive, ev->host, ev->life, ev->a, ev->b, ev->command);
		else
			json_decref(ev->command);
		return;
	}
	if (sim->o.broken[RULE_STALE])
		json_object_set_new(json_object_get(ev->command, "args"), "from",
				    json_string(move_step_names[row_now()->step]));
	r = apply(ev->command, &e);
	sim_trace("n%d: %s%s%s: %s", ev->host + 1, json_string_value(json_object_get(ev->command, "op")),
		  step ? " " : "", step ? step : "", r < 0 ? e.text : "applied");
	if (r < 0 && e.code == ERR_SYSTEM)
		abort();
	if (r == 0)
		row_add();
	if (sim_chance(5) && apply(ev->command, NULL) != r)
		sim_fail("the same command was answered otherwise the second time");
	if (r == 0 && s != MOVE_STEP_MAX)
		sim->acked[s]++;
	if (s != MOVE_STEP_MAX)
		sim_at((int64_t)sim_below(50), acked, ev->host, h->life, ((int64_t)ev->b << 8) | (int64_t)s, r < 0,
		       NULL);
	json_decref(ev->command);
}

void order_propose(struct host *h, enum move_step step, enum move_role role, bool restart)
{
	char name[3] = {'n', (char)('1' + host_number(h)), 0};
	json_t *args = json_pack("{s:s, s:s, s:s, s:s, s:i}", "id", MIGRATION, "step", move_step_names[step], "role",
				 move_role_names[role], "node", name, "epoch", 1);

	json_object_set_new(args, "from", json_string(move_step_names[row_of(h)->step]));
	if (restart)
		json_object_set_new(args, "restart", json_true());
	/* What was sent is on its way, whatever becomes of the host. */
	sim_at((int64_t)sim_below(sim_chance(90) ? 30 : 2000), arrive, host_number(h), -1, 0, h->daemon_life,
	       command_new("migration.step", name, args));
}

void order_cancel(void)
{
	json_t *command = command_new("migration.cancel", "anna", json_pack("{s:s}", "id", MIGRATION));
	struct err e = ERR_INIT;

	if (apply(command, &e) == 0)
		row_add();
	sim_trace("anna: migration.cancel: %s", e.code ? e.text : "applied");
	json_decref(command);
}

/* ---- the scene ---- */

static void scene(const char *op, json_t *args)
{
	json_t *command = command_new(op, "anna", args);
	struct err e = ERR_INIT;

	if (apply(command, &e) < 0) {
		fprintf(stderr, "%s: %s\n", op, e.text);
		abort();
	}
	json_decref(command);
}

static void scene_node(int i)
{
	char name[3] = {'n', (char)('1' + i), 0}, fingerprint[65];

	snprintf(fingerprint, sizeof(fingerprint), "%064x", (unsigned)i + 1);
	scene("node.join", json_pack("{s:s, s:i, s:[s], s:s}", "name", name, "id", i + 1, "addresses", name,
				     "fingerprint", fingerprint));
	scene("node.report", json_pack("{s:s, s:{s:I, s:I}, s:i}", "node", name, "memory", "total", (json_int_t)1 << 33,
				       "free", (json_int_t)1 << 33, "cpus", 8));
}

/* The database is made once; each seed is rolled back. */
void order_open(void)
{
	struct world w = {.o.seed = 0};

	sim = &w;
	if (sqlite3_open(":memory:", &sim_db) != SQLITE_OK || state_machine.schema(sim_db, NULL) < 0)
		abort();
	for (int i = 0; i < HOSTS; i++)
		scene_node(i);
	scene("vm.create",
	      json_pack("{s:{s:s, s:s, s:i, s:i}, s:s, s:b}", "definition", "name", "web1", "uuid",
			"00000000-0000-4000-8000-000000000009", "memory", 1024, "vcpus", 2, "node", "n1", "start", 1));
	scene("vm.observed",
	      json_pack("{s:s, s:s, s:i, s:s}", "vm", "web1", "node", "n1", "epoch", 1, "status", "running"));
	scene("migration.create", json_pack("{s:s, s:s, s:s}", "id", MIGRATION, "vm", "web1", "to", "n2"));
}

void order_begin(void)
{
	run("SAVEPOINT seed");
	sim->order = sim->index = 1000;
	row_add();
}

void order_end(void)
{
	run("ROLLBACK TO seed; RELEASE seed");
}
