/* SPDX-License-Identifier: Apache-2.0 */
/* In the simulator of high availability: what is promised, checked after every event with the eyes of the world. */
#include <inttypes.h>
#include <string.h>

#include "cluster/state.h"
#include "tests/sim/ha-sim.h"

static size_t checked; /* entries of the log */

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

/* ---- after every event ---- */

/* S1. A host whose fence device has lied is outside of the promise: its guests may run twice, no others. */
static void check_once(unsigned g)
{
	unsigned running = 0, other = 0;

	for (unsigned i = 1; i <= ha->n_hosts; i++) {
		const struct host *h = &ha->hosts[i];

		running += h->guests[g].alive && !h->lied;
		other = h->guests[g].alive && !h->lied ? i : other;
	}
	if (running > 1)
		ha_fail("S1: g%u runs %u times, on n%u too", g, running, other);
}

/* S5. The latest deadline that this host was given, its watchdog, and how late both may be. */
static void check_lease(const struct host *h)
{
	int64_t last = h->until_max + ha->timing.watchdog_ns + ha->timing.margin_ns;

	if (h->power && h->has_dog && h->keeper.state != KEEPER_FREE && h->until_max && ha_clock(h) > last &&
	    ha_qemus(h))
		ha_fail("S5: guests of n%u run %.3f s after its lease, although it has a watchdog", h->n,
			(double)(ha_clock(h) - h->until_max) / NS_PER_S);
}

void ha_check_now(void)
{
	for (unsigned g = 0; g < ha->n_guests; g++)
		check_once(g);
	for (unsigned i = 1; i <= ha->n_hosts; i++)
		check_lease(&ha->hosts[i]);
}

/* ---- after every entry of the log, when the first host applies it ---- */

/* S2: a proof is true. What runs on it at this moment was its own, and is to be started elsewhere from now on. */
static void check_fenced(const struct host *by, const json_t *args)
{
	const char *node = text_of(args, "node"), *proof = text_of(args, "proof");

	ha->proofs[!strcmp(proof, "power") ? 0 : !strcmp(proof, "expiry") ? 2 : 3]++;
	for (unsigned i = 1; i <= ha->n_hosts; i++) {
		const struct host *h = &ha->hosts[i];

		if (!strcmp(h->name, node) && ha_qemus(h) && !h->lied)
			ha_fail("S2: n%u is confirmed dead by %s, as %s applies it, and runs %u guests", i, proof,
				by->name, ha_qemus(h));
	}
}

/* Who was confirmed dead comes back empty, a host whose fence device has lied too. */
static void check_empty(const json_t *args)
{
	for (unsigned i = 1; i <= ha->n_hosts; i++)
		if (!strcmp(ha->hosts[i].name, text_of(args, "node")) && ha_qemus(&ha->hosts[i]))
			ha_fail("n%u was confirmed dead, says that it is empty, and runs %u guests", i,
				ha_qemus(&ha->hosts[i]));
}

void ha_check_applied(const struct host *h, const json_t *command, const json_t *result)
{
	const char *op = text_of(command, "op");
	const json_t *args = json_object_get(command, "args");

	if (h->applied <= checked && checked <= ha->log_n)
		return;
	checked = h->applied;
	if (!result)
		return;
	ha->places += !strcmp(op, "vm.place");
	ha->restarts += !strcmp(op, "vm.restart");
	ha->aside += !strcmp(op, "node.aside");
	if (!strcmp(op, "node.fenced"))
		check_fenced(h, args);
	if (!strcmp(op, "node.alive") && json_is_true(json_object_get(args, "empty")) &&
	    json_object_get(result, "number"))
		check_empty(args);
}

/* ---- at the end ---- */

static const struct host *leader(void)
{
	for (unsigned i = 1; i <= ha->n_hosts; i++)
		if (ha->hosts[i].up && ha->hosts[i].synced && ha->hosts[i].leads)
			return &ha->hosts[i];
	return NULL;
}

/* The guest runs where its owner is, by the state of @h, and nowhere else. */
static bool runs(const struct host *h, unsigned g, const json_t *vm)
{
	for (unsigned i = 1; i <= ha->n_hosts; i++)
		if (!strcmp(ha->hosts[i].name, text_of(vm, "owner")) && ha->hosts[i].guests[g].alive)
			return ha->hosts[i].guests[g].epoch == json_integer_value(json_object_get(vm, "epoch")) &&
			       !strcmp(text_of(vm, "status"), "running");
	(void)h;
	return false;
}

/* It waits, and the plan says why. */
static bool waits(const json_t *plan, const char *name)
{
	json_t *a;
	size_t i;

	json_array_foreach (plan, i, a)
		if (!strcmp(text_of(a, "vm"), name) && !strcmp(text_of(a, "action"), "wait"))
			return text_of(a, "why")[0] && json_is_null(json_object_get(a, "until"));
	return false;
}

/* How many guests must wait: all are of one size. */
static unsigned without_room(void)
{
	unsigned slots = 0;

	for (unsigned i = 1; i <= ha->n_hosts; i++)
		slots += ha->hosts[i].broken ? 0 : ha->slots;
	return slots < ha->n_guests ? ha->n_guests - slots : 0;
}

/* What is not as it should be; NULL: nothing. */
static const char *unrest(unsigned *ret_guest, unsigned *ret_waits)
{
	const struct host *h = leader();
	const char *why = NULL;
	json_t *nodes, *vms, *plan, *o;
	size_t i;

	*ret_guest = GUESTS_MAX;
	*ret_waits = 0;
	if (!h)
		return "nobody manages the cluster";
	for (unsigned k = 1; k <= ha->n_hosts; k++)
		if (ha->hosts[k].broken)
			continue;
		else if (!ha->hosts[k].up || !ha->hosts[k].synced || ha->hosts[k].applied < ha->log_n)
			return "a host is not up to date";
	ha->at = (struct host *)h;
	nodes = state_node_list(h->db, NULL);
	vms = state_vm_list(h->db, NULL);
	plan = ha_manager_json(h->d.ha, NULL);
	ha->at = NULL;
	json_array_foreach (nodes, i, o)
		if (strcmp(text_of(o, "life"), ha->hosts[i + 1].broken ? "fenced" : "up") != 0 ||
		    (!ha->hosts[i + 1].broken && json_is_true(json_object_get(o, "frozen"))))
			why = "a host is not up";
	json_array_foreach (vms, i, o) {
		if (runs(h, (unsigned)i, o))
			continue;
		if (*ret_waits < without_room() && waits(json_object_get(plan, "plan"), text_of(o, "name"))) {
			(*ret_waits)++;
			continue;
		}
		why = why ? why : "a guest does not run";
		*ret_guest = (unsigned)i;
	}
	json_decref(nodes);
	json_decref(vms);
	json_decref(plan);
	return why;
}

bool ha_at_rest(void)
{
	unsigned guest, waiting;

	return !unrest(&guest, &waiting);
}

void ha_check_end(void)
{
	unsigned guest;
	const char *why = unrest(&guest, &ha->waits);

	checked = 0;
	if (why && guest < GUESTS_MAX)
		ha_fail("S4: %s: g%u", why, guest);
	else if (why)
		ha_fail("S4: %s", why);
}
