/* SPDX-License-Identifier: Apache-2.0 */
/* In the simulator of moves: what node/daemon.c does around node/moves.c, and the agent: its plan is the real one, its
 * children take their time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "tests/sim/moves-sim.h"

#define TICK NS_PER_S
#define AGENT_INTERVAL (3 * NS_PER_S)
#define LOST_AFTER (2500 * NS_PER_MS)
#define CLUSTER "c"

/* ---- proposals ---- */

json_t *msim_command(const struct host *h, const char *op, json_t *args)
{
	static uint64_t number;
	char id[40];

	snprintf(id, sizeof(id), "30000000-0000-4000-8000-%012llx", (unsigned long long)++number & 0xffffffffffffULL);
	return json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:o}", "op", op, "v", (int)state_command_version(op, args),
			 "id", id, "time", (json_int_t)(1700000000000 + msim->now / NS_PER_MS), "by",
			 h->d.identity.node, "from", "local", "args", args);
}

void daemon_propose(struct daemon *d, const char *op, const char *id, json_t *args, replica_done_fn *done, void *arg)
{
	struct host *h = (void *)d->replica;
	json_t *c = msim_command(h, op, args);

	(void)id;
	msim_propose(h, c, done, arg);
	json_decref(c);
}

/* ---- looks ---- */

static enum agent_intent intent_of(const struct host *h, const json_t *vm)
{
	const char *owner = json_string_value(json_object_get(vm, "owner"));
	const char *migration = json_string_value(json_object_get(vm, "migration"));

	if (msim->o.broken != BREAK_OWNER &&
	    (!replica_synced(h->d.replica) || (migration && moves_holds(h->d.moves, migration))))
		return AGENT_MOVING;
	return owner && !strcmp(owner, h->d.identity.node) ? AGENT_RUNNING : AGENT_ELSEWHERE;
}

static void look(struct event *ev)
{
	struct host *h = ev->h;
	const char *status;
	json_t *vm;

	h->look_due = false;
	moves_look(h->d.moves);
	vm = state_vm_get(h->db, "web", NULL);
	status = json_string_value(json_object_get(vm, "status"));
	h->want =
		(struct agent_want){.uuid = "u",
				    .epoch = json_integer_value(json_object_get(vm, "epoch")),
				    .intent = intent_of(h, vm),
				    .ran = status && strcmp(status, "stopped") != 0 && strcmp(status, "starting") != 0};
	h->known = vm != NULL;
	json_decref(vm);
	msim_agent_soon(h);
}

void msim_look_soon(struct host *h)
{
	if (h->look_due || !h->up)
		return;
	h->look_due = true;
	msim_at(NS_PER_MS, look, h, true, 0, NULL);
}

static void restarted(void *arg, const json_t *result, const struct err *e)
{
	(void)arg;
	(void)result;
	(void)e; /* the next tick looks again */
}

/* "up", "lost" or "fenced", and the number of what ended it last, as @h knows it. */
static const char *life_of(const struct host *h, const char *node, json_int_t *ret_number)
{
	json_t *nodes = state_node_lives(h->db, NULL), *row;
	const char *known = "up";
	size_t i;

	json_array_foreach (nodes, i, row) {
		const char *life = json_string_value(json_object_get(row, "life"));

		if (!strcmp(json_string_value(json_object_get(row, "name")), node) && strcmp(life, "up") != 0)
			known = !strcmp(life, "fenced") ? "fenced" : "lost";
	}
	json_decref(nodes);
	if (ret_number && strcmp(known, "up") != 0) {
		row = state_node_get(h->db, node, NULL);
		*ret_number = json_integer_value(json_object_get(row, "fencing"));
		json_decref(row);
	}
	return known;
}

/* The manager's part of HA: what failed where it is starts there again, under a new epoch; elsewhere where its host is
 * confirmed dead. */
static void manage_guest(struct host *h)
{
	json_t *vm = state_vm_get(h->db, "web", NULL), *epoch = json_object_get(vm, "epoch");
	const char *status = json_string_value(json_object_get(vm, "status"));
	const char *owner = json_string_value(json_object_get(vm, "owner"));
	const char *life = owner ? life_of(h, owner, NULL) : "up";
	const struct host *to = &msim->hosts[1 + msim_below(HOSTS)];

	if (!owner || json_is_string(json_object_get(vm, "migration"))) {
		json_decref(vm);
		return;
	}
	if (!strcmp(life, "fenced") && msim_present(to)) {
		msim->places++;
		daemon_propose(&h->d, "vm.place", NULL,
			       json_pack("{s:s, s:s, s:O, s:b}", "name", "web", "node", to->d.identity.node, "epoch",
					 epoch, "fenced", 1),
			       restarted, h);
	} else if (!strcmp(life, "up") && status && !strcmp(status, "failed")) {
		daemon_propose(&h->d, "vm.restart", NULL,
			       json_pack("{s:s, s:O, s:s}", "name", "web", "epoch", epoch, "kind", "crash"), restarted,
			       h);
	}
	json_decref(vm);
}

/* Of a host that the ring has lost: it is said to be, switched off, and confirmed dead once it is seen to be off. */
static void fence(struct host *h, struct host *victim)
{
	json_int_t number = 0;
	const char *life = life_of(h, victim->d.identity.node, &number);

	if (!strcmp(life, "up")) {
		daemon_propose(&h->d, "node.lost", NULL, json_pack("{s:s}", "node", victim->d.identity.node), restarted,
			       h);
	} else if (!strcmp(life, "lost")) {
		if (victim->power && msim->o.broken != BREAK_FENCE) {
			msim_trace(victim, "is switched off");
			msim_power_off(victim);
		}
		msim->fencings++;
		daemon_propose(&h->d, "node.fenced", NULL,
			       json_pack("{s:s, s:I, s:s}", "node", victim->d.identity.node, "number", number, "proof",
					 "power"),
			       restarted, h);
	}
}

static void manage(struct host *h)
{
	if (!replica_leads(h->d.replica) || !replica_synced(h->d.replica))
		return;
	manage_guest(h);
	for (unsigned i = 1; i <= HOSTS && msim->fences; i++) {
		struct host *other = &msim->hosts[i];

		if (msim_present(other))
			other->away_since = 0;
		else if (!other->away_since)
			other->away_since = msim->now;
		else if (msim->now >= other->away_since + LOST_AFTER)
			fence(h, other);
	}
}

/* ---- what node/host-lease.c says of this host ---- */

static void alive(void *arg, const json_t *result, const struct err *e)
{
	struct host *h = arg;

	(void)result;
	h->cleared = !e && !strcmp(life_of(h, h->d.identity.node, NULL), "up");
	msim_agent_soon(h);
}

/* Guests start once the log has a word of this daemon's; one that was confirmed dead says it when it is empty. */
static void speak(struct host *h)
{
	json_int_t number = 0;
	const char *life = life_of(h, h->d.identity.node, &number);
	json_t *args;

	if (strcmp(life, "up") != 0)
		h->cleared = false;
	if (h->cleared || !replica_synced(h->d.replica))
		return;
	if (!strcmp(life, "fenced") && h->qemu.exists && h->qemu.status != VM_STATUS_GONE) {
		msim_qemu_die(h);
		return;
	}
	args = json_pack("{s:s}", "node", h->d.identity.node);
	if (strcmp(life, "up") != 0)
		json_object_set_new(args, "number", json_integer(number));
	if (!strcmp(life, "fenced"))
		json_object_set_new(args, "empty", json_true());
	daemon_propose(&h->d, "node.alive", NULL, args, alive, h);
}

static void tick(struct event *ev)
{
	bool synced = replica_synced(ev->h->d.replica);

	if (synced != ev->h->was_synced) {
		ev->h->was_synced = synced;
		ev->h->told = NULL;
		msim_look_soon(ev->h);
	}
	msim_mover_look(ev->h);
	moves_tick(ev->h->d.moves);
	speak(ev->h);
	manage(ev->h);
	msim_at(TICK, tick, ev->h, true, 0, NULL);
}

/* ---- the agent ---- */

static const char *status_of(const struct host *h)
{
	const struct qemu *q = &h->qemu;

	if (!q->exists)
		return h->want.ran ? "failed" : "stopped";
	return q->status == VM_STATUS_RUNNING    ? "running"
	       : q->status == VM_STATUS_GONE     ? "failed"
	       : q->status == VM_STATUS_INCOMING ? "starting"
						 : "paused";
}

static void observed(void *arg, const json_t *result, const struct err *e)
{
	struct host *h = arg;

	(void)result;
	if (e) /* told again by the next look */
		h->told = NULL;
}

static void tell(struct host *h)
{
	const char *status = status_of(h);

	if (h->want.intent != AGENT_RUNNING || (h->told == status && h->told_epoch == h->want.epoch) ||
	    !replica_synced(h->d.replica) || (h->qemu.exists && h->qemu.epoch != h->want.epoch))
		return;
	h->told = status;
	h->told_epoch = h->want.epoch;
	daemon_propose(&h->d, "vm.observed", NULL,
		       json_pack("{s:s, s:s, s:I, s:s}", "vm", "web", "node", h->d.identity.node, "epoch",
				 (json_int_t)h->want.epoch, "status", status),
		       observed, h);
}

/* godwit-vm, started by the agent a moment ago, does it; it does not end with the daemon. */
static void act(struct event *ev)
{
	struct host *h = ev->h;
	int64_t epoch = *(int64_t *)ev->p;

	h->acting = false;
	if (ev->k == AGENT_START && (!h->qemu.exists || h->qemu.status == VM_STATUS_GONE))
		msim_qemu_start(h, epoch);
	else if (ev->k == AGENT_KILL && h->qemu.exists)
		msim_qemu_remove(h);
	msim_agent_soon(h);
}

static void agent_look(struct event *ev)
{
	struct host *h = ev->h;
	struct agent_have have = {.uuid = "u", .cluster = CLUSTER, .epoch = h->qemu.epoch, .status = h->qemu.status};
	struct agent_action a;
	int64_t *epoch;

	if (!h->known || h->acting)
		return;
	a = agent_plan(CLUSTER, &h->want, h->qemu.exists ? &have : NULL);
	tell(h);
	if (a.act != AGENT_KILL && (a.act != AGENT_START || !h->cleared))
		return;
	msim_trace(h, "agent: %s, %s", agent_act_names[a.act], a.why);
	h->acting = true;
	epoch = xcalloc(1, sizeof(*epoch));
	*epoch = h->want.epoch;
	msim_at(msim_between(20, 200), act, h, false, a.act, epoch);
}

void msim_agent_soon(struct host *h)
{
	if (h->up)
		msim_at(20 * NS_PER_MS, agent_look, h, true, 0, NULL);
}

/* As the daemon's report does: what the state has otherwise is told again. Reports may overtake each other. */
static void tell_again(struct host *h)
{
	json_t *vm = state_vm_get(h->db, "web", NULL);
	const char *status = json_string_value(json_object_get(vm, "status"));

	if (h->told && (!status || strcmp(status, h->told) != 0))
		h->told = NULL;
	json_decref(vm);
}

static void agent_interval(struct event *ev)
{
	tell_again(ev->h);
	agent_look(ev);
	msim_at(AGENT_INTERVAL, agent_interval, ev->h, true, 0, NULL);
}

/* ---- life ---- */

void msim_daemon_start(struct host *h)
{
	struct err e = ERR_INIT;

	h->up = true;
	h->life++;
	h->known = h->look_due = h->applying = h->was_synced = h->cleared = false;
	h->acting = false;
	h->told = NULL;
	h->d.loop = (void *)h;
	h->d.cluster_id = (char *)CLUSTER;
	h->d.opt.run_dir = h->d.opt.config_dir = "/";
	msim_trace(h, "daemon starts");
	if (moves_new(&h->d, &h->d.moves, &e) < 0)
		msim_fail("moves: %s", e.text);
	msim_at(msim_between(0, 1000), tick, h, true, 0, NULL);
	msim_at(msim_between(0, 1000), agent_interval, h, true, 0, NULL);
	msim_look_soon(h);
	msim_log_changed();
}

void msim_daemon_kill(struct host *h)
{
	if (!h->up)
		return;
	msim_pending_drop(h);
	moves_free(h->d.moves);
	h->d.moves = NULL;
	h->up = false;
	h->life++;
}
