/* SPDX-License-Identifier: Apache-2.0 */
/* Looks: what the state says about this host becomes wishes of its agent, bridges, corosync's configuration.
 *
 * A look is cheap and changes nothing that is right already, so it follows every command that could matter, several
 * commands at once. It looks at the guests that those commands were about; at all of them only where more may have
 * changed: at the start, when this host gets in or out of sync, when networks change. What this host knows may be old:
 * while it is not in sync, all guests are somebody else's business.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/state.h"
#include "node/daemon-int.h"
#include "node/folders.h"
#include "node/moves.h"
#include "node/network.h"

#define LOOK_AFTER (20 * NS_PER_MS) /* several commands make one look */

static void look_soon(struct daemon *d)
{
	if (d->parts->look_due)
		return;
	d->parts->look_due = true;
	loop_timer_set(d->parts->look, LOOK_AFTER);
}

/* ---- the agent's wishes ---- */

/* A definition as godwit-vm takes it: networks of the cluster become bridges of this host. New reference; NULL with @e.
 */
static json_t *definition_here(struct sqlite3 *db, const json_t *definition, struct err *e)
{
	json_t *copy = json_deep_copy(definition), *nic;
	size_t i;

	json_array_foreach (json_object_get(copy, "nics"), i, nic) {
		const char *name = json_string_value(json_object_get(nic, "network"));
		json_t *network = name ? state_network_get(db, name, e) : NULL;

		if (!name)
			continue;
		if (!network) {
			json_decref(copy);
			return NULL;
		}
		json_object_del(nic, "network");
		json_object_set(nic, "bridge", json_object_get(network, "bridge"));
		json_object_set_new(nic, "type", json_string("tap"));
		json_decref(network);
	}
	return copy;
}

json_t *daemon_vm_definition(struct daemon *d, const char *name, struct err *e)
{
	struct sqlite3 *db = replica_db(d->replica);
	json_t *vm = state_vm_get(db, name, e);
	json_t *o = vm ? definition_here(db, json_object_get(vm, "definition"), e) : NULL;

	json_decref(vm);
	return o;
}

static enum agent_intent intent_of(const struct daemon *d, const json_t *vm)
{
	const char *owner = json_string_value(json_object_get(vm, "owner"));
	const char *intent = json_string_value(json_object_get(vm, "intent"));
	const char *migration = json_string_value(json_object_get(vm, "migration"));

	/* What this host knows may be old: then nothing is started, stopped or taken for somebody else's. */
	if (!replica_synced(d->replica) || (migration && moves_holds(d->moves, migration)))
		return AGENT_MOVING;
	if (!owner || strcmp(owner, d->identity.node) != 0)
		return AGENT_ELSEWHERE;
	return !intent || !strcmp(intent, "running") ? AGENT_RUNNING
	       : !strcmp(intent, "killed")           ? AGENT_KILLED
						     : AGENT_STOPPED;
}

/* Has it run under the epoch that it is at, or failed? Then only a new epoch has it started again. */
static bool has_run(const json_t *vm)
{
	const char *status = json_string_value(json_object_get(vm, "status"));

	return status && strcmp(status, "stopped") != 0 && strcmp(status, "starting") != 0;
}

/* What the row @vm of the state makes this host's agent want. g->definition is a new reference, the rest is @vm's. */
static void guest_of(struct daemon *d, const json_t *vm, struct agent_guest *g)
{
	const json_t *stop_s = json_object_get(vm, "stop_s");
	struct err e = ERR_INIT;

	*g = (struct agent_guest){
		.name = json_string_value(json_object_get(vm, "name")),
		.uuid = json_string_value(json_object_get(vm, "uuid")),
		.epoch = json_integer_value(json_object_get(vm, "epoch")),
		.intent = intent_of(d, vm),
		.ran = has_run(vm),
		.as_of = json_integer_value(json_object_get(vm, "changed")),
		.stop_s = json_is_integer(stop_s) ? (int)json_integer_value(stop_s) : -1,
	};
	if (g->intent != AGENT_ELSEWHERE && g->intent != AGENT_MOVING && !json_is_string(json_object_get(vm, "status")))
		json_object_set_new(d->parts->untold, g->name, json_true());
	if (g->intent == AGENT_RUNNING)
		g->definition = daemon_vm_definition(d, g->name, &e);
	if (g->intent == AGENT_RUNNING && !g->definition) {
		log_error("event=look vm=%s error=\"%s\"", g->name, e.text);
		g->intent = AGENT_MOVING; /* hands off */
	}
}

void daemon_look_agent(struct daemon *d)
{
	struct err e = ERR_INIT;
	json_t *vms = state_vm_list(replica_db(d->replica), &e), *vm;
	size_t n = json_array_size(vms), i;
	struct agent_guest *guests = xcalloc(n + 1, sizeof(*guests));

	if (!vms) { /* the disk: the agent goes on with what it knows */
		log_error("event=look error=\"%s\"", e.text);
		free(guests);
		return;
	}
	json_array_foreach (vms, i, vm)
		guest_of(d, vm, &guests[i]);
	agent_set(d->agent, guests, n);
	for (i = 0; i < n; i++)
		json_decref(guests[i].definition);
	free(guests);
	json_decref(vms);
}

/* One guest, of which some command was. */
static void look_guest(struct daemon *d, const char *name)
{
	struct err e = ERR_INIT;
	json_t *vm = state_vm_get(replica_db(d->replica), name, &e);
	struct agent_guest g;

	if (vm) {
		guest_of(d, vm, &g);
		agent_update(d->agent, &g);
		json_decref(g.definition);
	} else if (e.code == ERR_NOTFOUND) {
		agent_forget(d->agent, name);
	} else {
		log_error("event=look vm=%s error=\"%s\"", name, e.text);
		d->parts->look_all = true;
	}
	json_decref(vm);
}

static void look_guests(struct daemon *d)
{
	json_t *changed = d->parts->changed, *v;
	const char *name;

	d->parts->changed = json_object();
	if (d->parts->look_all) {
		d->parts->look_all = false;
		daemon_look_agent(d);
	} else {
		json_object_foreach (changed, name, v)
			look_guest(d, name);
	}
	json_decref(changed);
}

void daemon_look_untold(struct daemon *d)
{
	json_t *untold = d->parts->untold, *v;
	const char *name;

	if (!json_object_size(untold))
		return;
	d->parts->untold = json_object();
	json_object_foreach (untold, name, v) {
		agent_tell(d->agent, name);
		json_object_set_new(d->parts->changed, name, json_true()); /* and again, until it is told */
	}
	json_decref(untold);
	look_soon(d);
}

/* ---- networks ---- */

static bool network_read(const json_t *o, struct network *ret)
{
	const char *name = json_string_value(json_object_get(o, "name"));
	const char *bridge = json_string_value(json_object_get(o, "bridge"));
	const char *uplink = json_string_value(json_object_get(o, "uplink"));

	if (!name || !bridge)
		return false;
	*ret = (struct network){.vlan = (unsigned)json_integer_value(json_object_get(o, "vlan"))};
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	snprintf(ret->bridge, sizeof(ret->bridge), "%s", bridge);
	snprintf(ret->uplink, sizeof(ret->uplink), "%s", uplink ? uplink : "");
	return network_valid(ret, NULL) == 0;
}

json_t *daemon_networks(struct daemon *d)
{
	json_t *list = state_network_list(replica_db(d->replica), NULL), *o, *here = json_array();
	struct network n;
	size_t i;

	json_array_foreach (list, i, o) {
		struct err e = ERR_INIT;

		if (!network_read(o, &n))
			continue;
		if (network_check(&n, NULL) < 0 && network_create(&n, &e) < 0) {
			log_warning("event=network network=%s error=\"%s\"", n.name, e.text);
			continue;
		}
		json_array_append_new(here, json_string(n.name));
	}
	json_decref(list);
	return here;
}

void daemon_network_gone(const json_t *command)
{
	const char *name = json_string_value(json_object_get(json_object_get(command, "args"), "name"));
	json_t *bridges = NULL, *b;
	struct network n = {0};
	struct err e = ERR_INIT;
	size_t i;

	if (!name || network_list(&bridges, &e) < 0)
		return;
	json_array_foreach (bridges, i, b) {
		const char *mark = json_string_value(json_object_get(b, "network"));

		if (!mark || strcmp(mark, name) != 0)
			continue;
		snprintf(n.name, sizeof(n.name), "%s", name);
		snprintf(n.bridge, sizeof(n.bridge), "%s", json_string_value(json_object_get(b, "bridge")));
		n.vlan = (unsigned)json_integer_value(json_object_get(b, "vlan"));
		snprintf(n.uplink, sizeof(n.uplink), "%s",
			 json_string_value(json_object_get(b, "uplink"))
				 ? json_string_value(json_object_get(b, "uplink"))
				 : "");
		if (network_delete(&n, &e) < 0)
			log_warning("event=network network=%s error=\"%s\"", name, e.text);
	}
	json_decref(bridges);
}

/* ---- looks ---- */

/* This host is in the list of nodes no more: it must not act as a member, and may join again later. */
static void removed_from_cluster(struct daemon *d)
{
	static const char *const names[] = {"node.json", "state.db", "state.db-wal", "state.db-shm"};

	log_error("event=removed cluster=%s node=%s text=\"the cluster has removed this host; what it knew is kept as "
		  "*.removed in %s\"",
		  d->identity.cluster, d->identity.node, d->opt.state_dir);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_free_ char *from = xasprintf("%s/%s", d->opt.state_dir, names[i]), *to = xasprintf("%s.removed", from);

		if (rename(from, to) < 0 && errno != ENOENT)
			log_error("event=removed file=%s error=\"%m\"", from);
	}
	ring_stop(d->ring);
	d->parts->lost_identity = true;
	daemon_restart_soon(d);
}

static void look_ring(struct daemon *d)
{
	struct corosync_conf conf;
	struct err e = ERR_INIT;

	if (ring_conf(replica_db(d->replica), d->identity.cluster, &conf, &e) < 0) {
		log_debug("event=ring text=\"%s\"", e.text); /* no nodes yet */
		return;
	}
	if (!corosync_node_find(&conf, d->identity.node, 0)) {
		if (conf.n_nodes && replica_synced(d->replica))
			removed_from_cluster(d);
		return;
	}
	if (d->identity.n_addresses)
		ring_follow(d->ring, &conf, NULL, NULL);
}

void daemon_look(void *arg)
{
	struct daemon *d = arg;

	d->parts->look_due = false;
	if (!d->replica || d->parts->lost_identity)
		return;
	if (d->parts->look_ring) {
		d->parts->look_ring = false;
		look_ring(d);
	}
	if (d->parts->lost_identity)
		return;
	moves_look(d->moves);
	disks_look(d->disks);
	host_lease_look(d->lease);
	look_guests(d);
	fencing_look(d->fencing);
	ha_manager_look(d->ha);
}

void daemon_look_soon(struct daemon *d)
{
	d->parts->look_all = d->parts->look_ring = true;
	folders_changed(d->parts->folders);
	look_soon(d);
}

static bool begins(const char *op, const char *with)
{
	return !strncmp(op, with, strlen(with));
}

/* Which rows a command writes, by its operation (docs/state.md). Its answer names the guest. */
void daemon_look_changed(struct daemon *d, const char *op, const json_t *result)
{
	bool of_move = begins(op, "migration.");
	const char *vm = json_string_value(json_object_get(result, "vm"));

	if (!vm && begins(op, "vm."))
		vm = json_string_value(json_object_get(result, "name"));
	if (vm)
		json_object_set_new(d->parts->changed, vm, json_true());
	else if (begins(op, "vm.") || of_move || begins(op, "network."))
		d->parts->look_all = true;
	/* Where it is now it is known to run, but not as which process. */
	if (vm && !strcmp(op, "migration.step"))
		json_object_set_new(d->parts->untold, vm, json_true());
	if (!strcmp(op, "vm.create") || !strcmp(op, "vm.edit") || !strcmp(op, "vm.delete"))
		folders_changed(d->parts->folders);
	if (begins(op, "node.") || begins(op, "setting."))
		d->parts->look_ring = true;
	look_soon(d);
}
