/* SPDX-License-Identifier: Apache-2.0 */
/* Decisions about the list of nodes. */
#include "node/membership.h"

#include <stdio.h>
#include <string.h>

/* The votes that are there without node @without (NULL: all), where the qdevice counts if @device. */
static unsigned votes_online(const struct membership *m, const struct member *without, bool device)
{
	unsigned votes = device && m->qdevice_online;

	for (size_t i = 0; i < m->n; i++)
		votes += m->members[i].online && &m->members[i] != without;
	return votes;
}

static int check_names(const struct membership *m, const struct join_request *r, struct err *e)
{
	for (size_t i = 0; i < m->n; i++) {
		const struct member *n = &m->members[i];

		if (strcmp(n->name, r->name) == 0)
			return err_set(e, ERR_INPUT,
				       "node \"%s\" is in the cluster already, with id %u: choose another name, or "
				       "remove it first (godwit node remove %s)",
				       n->name, n->id, n->name);
	}
	return 0;
}

static int check_address(const struct membership *m, const char *name, const char *address, size_t link, struct err *e)
{
	const char *theirs;

	for (size_t i = 0; i < m->n; i++) {
		const struct member *n = &m->members[i];

		for (size_t k = 0; k < m->n_links; k++)
			if (strcmp(n->addresses[k], address) == 0)
				return err_set(e, ERR_INPUT,
					       "node \"%s\" cannot join with the address %s: node \"%s\" has it", name,
					       address, n->name);
	}
	if (!m->n)
		return 0;
	theirs = m->members[0].addresses[link];
	if (address_is_v6(theirs) != address_is_v6(address))
		return err_set(e, ERR_INPUT,
			       "node \"%s\" cannot join with the address %s: the cluster's link %zu uses %s", name,
			       address, link, address_is_v6(theirs) ? "IPv6" : "IPv4");
	/* All of them on loopback is a test on one machine; one of them is a line of /etc/hosts. */
	if (address_is_loopback(theirs) != address_is_loopback(address))
		return err_set(
			e, ERR_INPUT,
			"node \"%s\" cannot join with the address %s: it and node \"%s\" at %s cannot reach each "
			"other; give the address of the network between the hosts",
			name, address, m->members[0].name, theirs);
	return 0;
}

static int check_addresses(const struct membership *m, const struct join_request *r, struct err *e)
{
	if (r->n_addresses != m->n_links)
		return err_set(
			e, ERR_INPUT,
			"node \"%s\" cannot join with %zu address(es): the cluster has %zu link(s), and every node "
			"needs an address on each",
			r->name, r->n_addresses, m->n_links);
	for (size_t i = 0; i < r->n_addresses; i++)
		if (check_address(m, r->name, r->addresses[i], i, e) < 0)
			return -1;
	return 0;
}

/* With the new host on the list and not yet running, are those that run enough? */
static int check_quorum_add(const struct membership *m, const char *name, struct err *e)
{
	struct corosync_votes after = corosync_votes(m->n + 1, m->qdevice);
	unsigned online = votes_online(m, NULL, after.device);

	if (online >= after.quorum)
		return 0;
	return err_set(
		e, ERR_INPUT,
		"node \"%s\" cannot join now: with it the cluster needs %u of %u votes, and until it is up only %u "
		"would be there%s",
		name, after.quorum, after.expected, online,
		after.device && !m->qdevice_online
			? ": join without the qdevice and set it afterwards, or get it to vote first"
			: ": bring the nodes that are down back, or remove them");
}

int membership_add(const struct membership *m, const struct join_request *r, int64_t now_ms, unsigned *ret_id,
		   struct err *e)
{
	char whose[sizeof(r->name) + sizeof("node \"\"")];

	snprintf(whose, sizeof(whose), "node \"%s\"", r->name);
	if (check_names(m, r, e) < 0 || check_addresses(m, r, e) < 0 ||
	    join_clock_check(whose, r->clock_ms, "the cluster", now_ms, e) < 0)
		return -1;
	if (r->command < m->command)
		return err_set(
			e, ERR_UNSUPPORTED,
			"node \"%s\" runs Godwit %s, which knows the cluster's commands up to version %u, and the "
			"cluster uses version %u: install a newer Godwit there",
			r->name, r->godwit, r->command, m->command);
	if (m->n >= COROSYNC_NODES_MAX)
		return err_set(e, ERR_UNSUPPORTED,
			       "node \"%s\" cannot join: the cluster has %zu nodes, and %u is the limit", r->name, m->n,
			       COROSYNC_NODES_MAX);
	if (m->highest_id >= COROSYNC_ID_MAX)
		return err_set(e, ERR_UNSUPPORTED, "node \"%s\" cannot join: all %u ids have been used", r->name,
			       COROSYNC_ID_MAX);
	if (check_quorum_add(m, r->name, e) < 0)
		return -1;
	*ret_id = m->highest_id + 1;
	return 0;
}

static const struct member *member_find(const struct membership *m, const char *name)
{
	for (size_t i = 0; i < m->n; i++)
		if (strcmp(m->members[i].name, name) == 0)
			return &m->members[i];
	return NULL;
}

int membership_remove(const struct membership *m, const char *name, bool force, struct err *e)
{
	const struct member *n = member_find(m, name);
	struct corosync_votes after;
	unsigned online;

	if (!n)
		return err_set(e, ERR_INPUT, "there is no node \"%.63s\" in the cluster", name);
	if (m->n == 1)
		return err_set(e, ERR_INPUT, "node \"%s\" is the last one: a cluster without nodes is none", name);
	if (n->guests)
		return err_set(
			e, ERR_INPUT,
			"node \"%s\" cannot be removed: it still has %u guest(s); move them away first (godwit node "
			"evacuate %s)",
			name, n->guests, name);
	after = corosync_votes(m->n - 1, m->qdevice);
	online = votes_online(m, n, after.device);
	if (online < after.quorum && !force)
		return err_set(
			e, ERR_INPUT,
			"node \"%s\" cannot be removed: %u of %u votes would be needed then, and only %u would be "
			"there; bring the others back first, or insist with --force",
			name, after.quorum, after.expected, online);
	return 0;
}
