/* SPDX-License-Identifier: Apache-2.0 */
/* How many hosts may die: exact for the guests at hand, as far as the work is bounded.
 *
 * For k = 0, 1, 2, ...: may any k of the hosts that are up die at once? A glance (cluster/ha-room.c) says yes for most
 * clusters with room to spare. Otherwise every set of k hosts is looked at, those first that carry the most, as they
 * are the likeliest to be too much; one set without room is the answer. 32 hosts have 496 pairs and 4960 triples, so
 * this is soon as much work as may be done, and then what is said is "at least".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/ha-int.h"

struct bears {
	struct ha_room *room;
	size_t hosts[HA_NODES_MAX]; /* those that are up, the one with the largest demand first */
	uint64_t demand[HA_NODES_MAX];
	size_t n;
	uint64_t work;
	uint64_t worst; /* the set that is too much */
};

static void hosts_order(struct bears *b)
{
	uint64_t up = ha_room_up(b->room);

	for (size_t i = 0; i < HA_NODES_MAX; i++) {
		size_t at = b->n;
		uint64_t demand;

		if (!(up >> i & 1))
			continue;
		demand = ha_room_demand(b->room, i);
		for (; at > 0 && b->demand[at - 1] < demand; at--) {
			b->demand[at] = b->demand[at - 1];
			b->hosts[at] = b->hosts[at - 1];
		}
		b->demand[at] = demand;
		b->hosts[at] = i;
		b->n++;
	}
}

/* The next set of @k of @n places, in the order 012, 013, ..., 023, ... False: that was the last. */
static bool next_set(unsigned *set, unsigned k, size_t n)
{
	unsigned i = k;

	while (i > 0 && set[i - 1] == n - k + i - 1)
		i--;
	if (i == 0)
		return false;
	set[i - 1]++;
	for (; i < k; i++)
		set[i] = set[i - 1] + 1;
	return true;
}

static uint64_t hosts_of(const struct bears *b, const unsigned *set, unsigned k)
{
	uint64_t ret = 0;

	for (unsigned i = 0; i < k; i++)
		ret |= 1ULL << b->hosts[set[i]];
	return ret;
}

/* May any @k hosts die? */
static enum pack_answer any_may_die(struct bears *b, unsigned k)
{
	unsigned set[HA_NODES_MAX] = {0};
	enum pack_answer ret = PACK_FITS;

	if (ha_room_glance(b->room, k))
		return PACK_FITS;
	for (unsigned i = 0; i < k; i++)
		set[i] = i;
	do {
		uint64_t dead = hosts_of(b, set, k), part = b->work < HA_WORK / 8 ? b->work : HA_WORK / 8;
		uint64_t left = part;
		enum pack_answer a;

		if (b->work == 0)
			return PACK_UNKNOWN;
		/* A search that is too long must not take the work of all the others, which may say no at once. */
		a = ha_room_find(b->room, dead, &left, NULL);
		b->work -= part - left;
		b->work -= b->work > 0; /* for the set itself */
		if (a == PACK_NOT) {
			b->worst = dead;
			return PACK_NOT;
		}
		if (a == PACK_UNKNOWN)
			ret = PACK_UNKNOWN;
	} while (next_set(set, k, b->n));
	return ret;
}

/* PACK_NOT: *ret hosts may die and b->worst not. Otherwise at least *ret, and all up to @most for PACK_FITS. */
static enum pack_answer count(struct bears *b, unsigned most, unsigned *ret)
{
	enum pack_answer a = PACK_FITS;

	*ret = 0;
	for (unsigned k = 0; k <= most && k < b->n; k++) {
		a = any_may_die(b, k);
		if (a != PACK_FITS)
			break;
		*ret = k;
	}
	return a;
}

static void bears_begin(struct bears *b, const struct ha_input *in)
{
	*b = (struct bears){.room = ha_room_new(in), .work = in->limits.work ? in->limits.work : HA_WORK};
	hosts_order(b);
}

/* ---- which guest finds no place ---- */

/* The input after the hosts of @dead have been fenced, when nothing but room holds a guest up. Caller frees both. */
static struct ha_input after_death(const struct ha_input *in, uint64_t dead, struct ha_node **ret_nodes,
				   struct ha_guest **ret_guests)
{
	struct ha_input then = *in;
	struct ha_node *nodes = xcalloc(in->n_nodes + 1, sizeof(*nodes));
	struct ha_guest *guests = xcalloc(in->n_guests + 1, sizeof(*guests));

	memcpy(nodes, in->nodes, in->n_nodes * sizeof(*nodes));
	for (size_t i = 0; i < in->n_nodes; i++)
		if (dead >> i & 1 || nodes[i].life == HA_LOST)
			nodes[i].life = HA_FENCED;
	for (size_t g = 0; g < in->n_guests; g++) {
		size_t owner = ha_node_find(in, in->guests[g].place.owner);

		guests[g] = in->guests[g];
		guests[g].n_after = guests[g].n_restarts = 0;
		guests[g].max_restarts = 1;
		guests[g].moving = false;
		if (owner != HA_NONE && nodes[owner].life == HA_FENCED)
			guests[g].seen = HA_FAILED;
		else if (guests[g].seen == HA_FAILED)
			guests[g].seen = HA_RUNNING; /* it is not about this one */
	}
	then.nodes = *ret_nodes = nodes;
	then.guests = *ret_guests = guests;
	then.limits.starts = then.limits.starts_per_node = 0;
	return then;
}

static void say_hosts(const struct ha_input *in, const size_t *hosts, size_t n, char *text, size_t size)
{
	*text = 0;
	for (size_t i = 0; i < n; i++) {
		size_t used = strlen(text);

		snprintf(text + used, size - used, "%s%s",
			 i == 0       ? ""
			 : i + 1 == n ? " and "
				      : ", ",
			 in->nodes[hosts[i]].place.name);
	}
}

static void say_why(const struct ha_input *in, struct ha_bears *ret, uint64_t worst)
{
	struct ha_node *nodes;
	struct ha_guest *guests;
	struct ha_input then = after_death(in, worst, &nodes, &guests);
	struct ha_plan plan;
	char hosts[512];
	const char *why = "";

	ha_plan(&then, &plan);
	for (size_t i = 0; i < plan.n && ret->guest == HA_NONE; i++)
		if (plan.actions[i].no_room) {
			ret->guest = plan.actions[i].guest;
			why = plan.actions[i].why;
		}
	say_hosts(in, ret->worst, ret->n_worst, hosts, sizeof(hosts));
	if (!ret->n_worst)
		ret->why = xasprintf("guests wait for room already: %s", why);
	else
		ret->why = xasprintf("if node%s %s died, %s", ret->n_worst > 1 ? "s" : "", hosts,
				     *why ? why : "their guests would not all find a place");
	ha_plan_done(&plan);
	free(nodes);
	free(guests);
}

/* As ha_bears(), but for guest and why. PACK_NOT: the hosts of @worst are too many. */
static enum pack_answer bears_find(const struct ha_input *in, unsigned most, struct ha_bears *ret, uint64_t *worst)
{
	struct ha_bears r = {.guest = HA_NONE};
	enum pack_answer a;
	struct bears b;

	bears_begin(&b, in);
	a = count(&b, most ? most : HA_NODES_MAX, &r.bears);
	r.exact = a == PACK_NOT || (a == PACK_FITS && r.bears + 1 >= b.n);
	for (size_t i = 0; a == PACK_NOT && i < b.n; i++)
		if (b.worst >> b.hosts[i] & 1)
			r.worst[r.n_worst++] = b.hosts[i];
	ha_room_free(b.room);
	*ret = r;
	*worst = b.worst;
	return a;
}

void ha_bears(const struct ha_input *in, unsigned most, struct ha_bears *ret)
{
	uint64_t worst;

	if (bears_find(in, most, ret, &worst) == PACK_NOT)
		say_why(in, ret, worst);
}

void ha_bears_done(struct ha_bears *b)
{
	free(b->why);
	b->why = NULL;
}

json_t *ha_bears_json(const struct ha_input *in, const struct ha_bears *b)
{
	json_t *worst = json_array();

	for (size_t i = 0; i < b->n_worst; i++)
		json_array_append_new(worst, json_string(in->nodes[b->worst[i]].place.name));
	return json_pack("{s:i, s:b, s:o, s:s?, s:s?}", "bears", (int)b->bears, "exact", b->exact, "worst", worst, "vm",
			 b->guest == HA_NONE ? NULL : in->guests[b->guest].place.name, "why", b->why);
}

/* ---- admission ---- */

int ha_admit(const struct ha_input *in, size_t guest, size_t node, unsigned wish, struct err *e)
{
	struct ha_guest *guests;
	struct ha_input then = *in;
	struct ha_bears now, after;
	uint64_t worst, unused;
	int r = 0;

	if (wish == 0)
		return 0;
	guests = xcalloc(in->n_guests + 1, sizeof(*guests));
	memcpy(guests, in->guests, in->n_guests * sizeof(*guests));
	guests[guest].wanted = true;
	guests[guest].seen = HA_NOTHING;
	guests[guest].place.owner = in->nodes[node].place.name;
	then.guests = guests;
	/* The reason costs more than the answer, and is seldom asked for. */
	if (bears_find(&then, wish, &after, &worst) == PACK_NOT && after.bears < wish) {
		bears_find(in, wish, &now, &unused);
		if (now.bears >= wish) {
			say_why(&then, &after, worst);
			r = err_set(
				e, ERR_CONFLICT,
				"vm %s: with it on node %s the cluster would bear the loss of %u hosts instead of %u: "
				"%s; stop a guest, add memory, or start it all the same with --force",
				in->guests[guest].place.name, in->nodes[node].place.name, after.bears, now.bears,
				after.why);
			ha_bears_done(&after);
		}
	}
	free(guests);
	return r;
}
