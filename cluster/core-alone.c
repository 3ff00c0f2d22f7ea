/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol's core: one of two hosts goes on alone, and is one of two again. */

/*
 * Theory of operation (the table of what may happen is in docs/cluster.md, "How one of two goes on alone")
 *
 * Alone is a mark on a member's disk: from now on my log is the cluster's. With it one promise and one acknowledgement
 * are enough, its own. A member takes it only if
 *
 *   - it is whole: since its process started it has applied an entry of an epoch that both counted as two hosts and
 * that nobody led alone, and the other one's SYNC of that round said that it counts two and is not alone;
 *   - the other one is proven dead, at a moment since which (and since some time before which) nobody else was in its
 *     views and nothing of anybody else was heard (core_dead());
 *   - its disk vouches and works, corosync calls it quorate, and the list of hosts is not about to change.
 *
 * Why not both. Say both have the mark. A's process lived from when it was whole until it took the mark, so the proof
 * of its death, which B needs, came after; and the other way round. And why nothing is lost: what both had acknowledged
 * is on A's disk, because nothing commits in an epoch of both without A; what A acknowledges alone cannot be missed by
 * B, because B's process that was whole is dead, and no other one of it is whole before an epoch of both, which is A's
 * log.
 *
 * B, back, is led by A whatever its own log says, and what it acknowledges commits nothing; it only tells how far it
 * is. When it has all but a few entries, A takes no more until it has these as well, and takes its mark away: at that
 * moment both disks have all that was acknowledged. A's next promise is written after that or with it, so an epoch of
 * both never begins while the mark is on the disk.
 *
 * Meanwhile nobody joins: B and a third one were a majority of three without A's log. B may be removed: no later
 * process of B is whole before an epoch of both, so B alone can do nothing; and A is then the only host there is,
 * which needs no mark.
 */
#include "cluster/core-int.h"

#define BEHIND_MAX 256U /* entries that the other one may lack when the leader stops taking more */

uint8_t alone_flags(const struct core *c)
{
	return (c->alone ? MSG_ALONE : 0) | (c->view.expected == 2 ? MSG_TWO : 0);
}

/* The mark counts once it is on the disk. With a rival nothing is right any more, so nothing is written. */
bool alone_quorate(const struct core *c)
{
	return c->alone ? c->view.n && c->view.service_quorate && !c->alone_due && !c->rival : c->view.quorate;
}

/* Somebody else is here, or may be. */
static void itself_over(struct core *c)
{
	c->itself++;
	c->dead = c->o.break_late ? c->dead : 0;
}

void alone_view(struct core *c, bool two_changed)
{
	c->rival = false;
	alarm_set(c, CORE_ALARM_ALONE, 0, false);
	if (c->view.n != 1 || c->view.members[0] != c->o.self)
		itself_over(c);
	if (c->view.expected != 2 || two_changed) {
		c->whole = 0;
		c->epoch_two = false;
	}
}

/* Anything of another member. */
bool alone_heard(struct core *c, int64_t now, uint32_t from, const struct msg *m)
{
	itself_over(c);
	if (!(m->flags & MSG_ALONE) || (m->history && c->history && m->history != c->history))
		return true;
	c->whole = 0;
	if (!c->alone)
		return true;
	alarm_set(c, CORE_ALARM_ALONE, from, true);
	if (!c->rival) {
		c->rival = true;
		round_begin(c, now, c->round + 1);
	}
	return false;
}

void core_dead(struct core *c, uint32_t node, uint64_t by_itself)
{
	if (node != c->o.self && (by_itself == c->itself || c->o.break_late))
		c->dead = node;
}

/* Has the cluster other hosts than these two, or will it have when what is in the log is applied? */
static bool hosts_change(const struct core *c)
{
	if (!c->io->hosts || !c->io->hosts_change || c->io->hosts(c->arg) != 2)
		return true;
	for (uint64_t i = c->applied + 1; i <= log_last(c); i++)
		if (c->io->hosts_change(c->arg, log_entry(c, i)))
			return true;
	return false;
}

bool alone_may(const struct core *c)
{
	return c->has_view && !c->alone && (c->whole || c->o.break_whole) && c->view.expected == 2 && c->view.n == 1 &&
	       c->view.members[0] == c->o.self && c->view.service_quorate && !c->failed && !c->learner &&
	       !c->diverged && !c->fetching && c->history && !hosts_change(c);
}

static bool proven(const struct core *c)
{
	return c->o.break_proof || (c->dead && (c->dead == c->whole || c->o.break_whole));
}

bool alone_takes(const struct core *c, const struct entry *e)
{
	return !c->alone || !c->io->hosts_change || c->io->hosts_change(c->arg, e) <= 0;
}

static void mark(struct core *c)
{
	c->alone = true;
	c->alone_due = true;
	c->alone_serial = 0;
	c->meta_dirty = true;
}

void alone_written(struct core *c, uint64_t serial)
{
	if (!c->alone_due || !c->alone_serial || serial < c->alone_serial)
		return;
	c->alone_due = false;
	c->alone_begin = true;
}

/* The other one, if exactly one other is here, was heard in this round, counts two hosts and is well. */
static const struct peer *other_here(const struct core *c)
{
	const struct peer *other = NULL;

	for (size_t i = 0; i < c->n_peers; i++) {
		const struct peer *p = &c->peers[i];

		if (!p->in_view || p->id == c->o.self)
			continue;
		if (other || !p->heard || p->stranger || !(p->flags & MSG_TWO) ||
		    (p->flags & (MSG_ALONE | MSG_FAILED | MSG_DIVERGED)))
			return NULL;
		other = p;
	}
	return c->view.expected == 2 ? other : NULL;
}

static void unmark(struct core *c, int64_t now)
{
	c->alone = false;
	c->meta_dirty = true;
	round_begin(c, now, c->round + 1);
}

/* The other one was removed: there is nobody left to be alone without. */
static bool only_host(const struct core *c)
{
	return c->alone && !c->alone_due && c->has_view && c->view.expected == 1 && c->io->hosts &&
	       c->io->hosts(c->arg) == 1 && c->applied == log_last(c);
}

/* Begin to be whole, or take the mark away. */
static void together(struct core *c, int64_t now)
{
	const struct peer *other;

	c->alone_closing = false; /* also when the other one's disk has failed meanwhile */
	if ((c->phase != PHASE_LEADING && c->phase != PHASE_FOLLOWING) || !c->synced || !(other = other_here(c)))
		return;
	if (!c->alone && !c->epoch_alone && c->epoch_two)
		c->whole = other->id;
	if (!c->alone || !other->ack)
		return;
	c->alone_closing = other->ack + BEHIND_MAX >= log_last(c);
	if (other->ack >= log_last(c))
		unmark(c, now);
}

void alone_flush(struct core *c, int64_t now)
{
	if (c->alone_begin) {
		c->alone_begin = false;
		round_begin(c, now, c->round + 1);
	}
	if (proven(c) && alone_may(c))
		mark(c);
	else if (only_host(c))
		unmark(c, now);
	else
		together(c, now);
}
