/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol's core: the log, its entries on the wire, acknowledgements and what follows from them. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/core-int.h"

#define APPLY_MAX 4096U /* entries in one write */
#define FEW 8U          /* entries that a follower takes first and applies afterwards */
#define INFLIGHT_MAX 2U /* messages of entries on the bus; meanwhile the next one fills up */

/* ---- the tail: entries behind `applied` ---- */

uint64_t log_last(const struct core *c)
{
	return c->applied + c->tail_n;
}

static struct entry **tail_slot(const struct core *c, size_t i)
{
	return &c->tail[(c->tail_head + i) % c->tail_cap];
}

struct entry *log_entry(const struct core *c, uint64_t index)
{
	return index > c->applied && index <= log_last(c) ? *tail_slot(c, index - c->applied - 1) : NULL;
}

uint64_t log_epoch_of(const struct core *c, uint64_t index)
{
	const struct entry *e = log_entry(c, index);

	return e ? e->epoch : c->applied_epoch;
}

uint64_t log_last_epoch(const struct core *c)
{
	return log_epoch_of(c, log_last(c));
}

static void tail_grow(struct core *c)
{
	size_t cap = c->tail_cap ? c->tail_cap * 2 : 64;
	struct entry **bigger = xcalloc(cap, sizeof(struct entry *));

	for (size_t i = 0; i < c->tail_n; i++)
		bigger[i] = *tail_slot(c, i);
	free(c->tail);
	c->tail = bigger;
	c->tail_cap = cap;
	c->tail_head = 0;
}

void log_append(struct core *c, struct entry *e)
{
	if (c->tail_n == c->tail_cap)
		tail_grow(c);
	e->index = log_last(c) + 1;
	c->tail_n++;
	*tail_slot(c, c->tail_n - 1) = e;
	c->tail_bytes += e->size;
}

/* Remove what is at @from and behind: a minority's tail. Committed entries never are. */
bool log_cut(struct core *c, uint64_t from)
{
	if (from <= c->apply_issued)
		return false;
	while (log_last(c) >= from) {
		struct entry *e = *tail_slot(c, --c->tail_n);

		c->tail_bytes -= e->size;
		entry_unref(e);
	}
	if (c->unwritten > from) {
		if (c->cut_from == 0 || from < c->cut_from)
			c->cut_from = from;
		c->unwritten = from;
	}
	if (c->durable >= from)
		c->durable = from - 1;
	if (c->matched >= from)
		c->matched = from - 1;
	return true;
}

static void tail_pop(struct core *c)
{
	struct entry *e = *tail_slot(c, 0);

	c->applied = e->index;
	c->applied_epoch = e->epoch;
	c->tail_head = (c->tail_head + 1) % c->tail_cap;
	c->tail_n--;
	c->tail_bytes -= e->size;
	entry_unref(e);
}

void log_reset(struct core *c, const struct core_disk *disk)
{
	while (c->tail_n)
		tail_pop(c);
	c->applied = c->apply_issued = disk->applied;
	c->applied_epoch = disk->applied_epoch;
	for (size_t i = 0; i < disk->n; i++) {
		uint64_t index = disk->tail[i]->index;

		log_append(c, disk->tail[i]);
		assert(disk->tail[i]->index == index);
	}
	c->durable = log_last(c);
	c->unwritten = log_last(c) + 1;
	c->cut_from = 0;
	c->matched = 0;
	if (c->commit < c->applied)
		c->commit = c->applied;
}

void log_free(struct core *c)
{
	while (c->tail_n)
		tail_pop(c);
	free(c->tail);
}

/* ---- epochs ---- */

void log_epoch_begin(struct core *c, uint64_t epoch, uint32_t leader, uint8_t flags, int64_t now)
{
	assert(epoch >= c->epoch);
	c->epoch_alone = flags & MSG_ALONE;
	c->epoch_two = (flags & MSG_TWO) && c->view.expected == 2;
	c->epoch = epoch;
	c->leader = leader;
	c->matched = 0;
	c->acked = c->ack_watched = 0;
	c->ack_again_ns = 0;
	c->commit_tell_ns = 0;
	c->synced = c->applied_epoch == epoch;
	c->heard_ns = now;
	c->need_ns = 0;
	for (size_t i = 0; i < c->n_peers; i++)
		c->peers[i].ack = 0;
}

static void entries_begin(struct core *c, uint32_t to, uint64_t before)
{
	struct msg m = {.type = MSG_ENTRIES,
			.flags = alone_flags(c),
			.history = c->history,
			.to = to,
			.epoch = c->epoch,
			.last_epoch = before ? log_epoch_of(c, before) : 0,
			.last_index = before,
			.commit = c->commit};

	msg_begin(&c->buf, &m);
}

static void entries_send(struct core *c, int64_t now)
{
	c->io->send(c->arg, c->buf.data, c->buf.len);
	if (c->entries_inflight++ == 0)
		c->inflight_ns = now;
	c->heard_ns = now;
	c->commit_told = c->commit;
	c->commit_tell_ns = 0;
	c->commit_waited = false;
}

/* A sign of life, which also tells a member that missed something that it did. */
void log_beat(struct core *c, int64_t now)
{
	entries_begin(c, 0, log_last(c));
	entries_send(c, now);
}

/* The leader writes @e as the next entry of its log. Takes @e. */
static void lead_append(struct core *c, struct entry *e)
{
	e->epoch = c->epoch;
	log_append(c, e);
	c->matched = e->index;
	msg_item(&c->buf, e);
}

/* The first entry of an epoch. */
void log_lead(struct core *c, int64_t now)
{
	struct entry *e = entry_new(ENTRY_EPOCH, NULL, 0);

	e->node = c->o.self;
	c->check_ns = now;
	c->matched = log_last(c);
	entries_begin(c, 0, log_last(c));
	lead_append(c, e);
	entries_send(c, now);
}

/* From the queue into the log and onto the bus. */
static void lead_flush(struct core *c, int64_t now)
{
	while (!STAILQ_EMPTY(&c->queue) && !c->alone_closing && c->entries_inflight < INFLIGHT_MAX &&
	       c->tail_n < CORE_UNCOMMITTED_MAX && c->tail_bytes < CORE_UNCOMMITTED_BYTES) {
		size_t bytes = 0;

		entries_begin(c, 0, log_last(c));
		while (!STAILQ_EMPTY(&c->queue)) {
			struct queued *q = STAILQ_FIRST(&c->queue);

			if (bytes && bytes + q->entry->size > CORE_BATCH_BYTES)
				break;
			bytes += q->entry->size + 64;
			STAILQ_REMOVE_HEAD(&c->queue, link);
			c->queue_n--;
			c->queue_bytes -= q->entry->size;
			lead_append(c, q->entry);
			free(q);
		}
		c->lead_gap_ns = now - c->lead_ns;
		c->lead_ns = now;
		entries_send(c, now);
	}
}

/* Every now and then an entry at which all members digest their state. */
static void lead_check(struct core *c, int64_t now)
{
	if (now < c->check_ns + c->o.check_every_ns)
		return;
	c->check_ns = now;
	if (c->synced)
		queue_push(c, entry_new(ENTRY_CHECK, NULL, 0));
}

/* ---- following ---- */

/* May ENTRIES of @m change anything here? Begins to follow a leader that is new. */
static bool entries_acceptable(struct core *c, int64_t now, uint32_t from, const struct msg *m)
{
	if (m->epoch < c->promised || (m->to && m->to != c->o.self) || m->history == 0 || c->alone)
		return false;
	if (m->epoch > c->promised) {
		c->promised = m->epoch;
		c->promised_to = from;
		c->meta_dirty = !c->o.break_epoch_reuse;
		c->promise_due = false;
	}
	if (m->epoch == c->epoch)
		return c->phase == PHASE_FOLLOWING && from == c->leader;
	if (m->epoch < c->epoch || c->phase == PHASE_IDLE)
		return false;
	sync_abort(c);
	queue_clear(c);
	c->phase = PHASE_FOLLOWING;
	c->round_deadline = 0;
	c->entries_inflight = 0;
	c->propose_inflight = false;
	c->inflight_ns = 0;
	log_epoch_begin(c, m->epoch, from, m->flags, now);
	if (c->diverged)
		sync_need(c, now);
	return true;
}

/* Is the entry before the items in our log? Whatever is in its place, and was never committed, is cut off. */
static bool entries_fit(struct core *c, int64_t now, const struct msg *m)
{
	if (m->last_index > log_last(c))
		return false;
	if (m->last_index <= c->applied || log_epoch_of(c, m->last_index) == m->last_epoch)
		return true;
	if (!log_cut(c, m->last_index))
		sync_diverged(c, now);
	return false;
}

static void entries_take(struct core *c, int64_t now, struct msg *m)
{
	uint64_t index = m->last_index;
	struct entry *e;

	while ((e = msg_next(m))) {
		index++;
		if (index <= c->applied || (index <= log_last(c) && log_epoch_of(c, index) == e->epoch)) {
			entry_unref(e); /* we have it */
			continue;
		}
		if (index <= log_last(c) && !log_cut(c, index)) {
			entry_unref(e);
			sync_diverged(c, now);
			return;
		}
		log_append(c, e);
	}
	if (index > c->matched)
		c->matched = index;
}

/* A learner vouches again, and a new member has a history, once an entry of the epoch is in the log (the same write).
 * An epoch of one alone makes nobody vouch: what counts there is on its leader's disk only. */
static void membership_begin(struct core *c, uint64_t history)
{
	bool vouch = c->learner && !c->epoch_alone && c->epoch > c->promised_before && log_last(c) >= c->acked;

	if (log_last_epoch(c) != c->epoch || (!vouch && c->history == history))
		return;
	c->history = history;
	if (vouch)
		c->learner = false;
	c->meta_dirty = true;
}

/* The commit has come as far as the ACK that is watched, perhaps: watch the newest one. */
static void ack_followed(struct core *c, int64_t now)
{
	if (c->commit < c->ack_watched)
		return;
	c->ack_watched = c->acked;
	c->ack_again_ns = c->commit < c->acked ? now + CORE_ACK_AGAIN : 0;
}

void log_on_entries(struct core *c, int64_t now, uint32_t from, struct msg *m, const uint8_t *data, size_t size)
{
	uint64_t history = m->history;
	bool some = m->count > 0;

	if (from == c->o.self) {
		if (c->entries_inflight)
			c->entries_inflight--;
		c->inflight_ns = c->entries_inflight ? now : 0;
		return;
	}
	if (!entries_acceptable(c, now, from, m))
		return;
	c->heard_ns = now;
	if (m->commit > c->commit)
		c->commit = m->commit;
	ack_followed(c, now);
	if (m->to == 0 && c->fresh_goal_ns == 0) {
		c->fresh_goal = m->commit;
		c->fresh_goal_ns = now;
	}
	if (c->failed)
		return;
	if (c->fetching || c->diverged || !entries_fit(c, now, m)) {
		if (some && m->to == 0)
			sync_stash(c, from, data, size);
		sync_need(c, now);
		return;
	}
	entries_take(c, now, m);
	membership_begin(c, history);
	if (m->to == c->o.self) {
		c->need_ns = 0;
		if (!sync_unstash(c, now) && some)
			sync_need(c, now); /* until the answer is empty */
	}
}

/* ---- acknowledgements ---- */

static int descending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? 1 : x > y ? -1 : 0;
}

/* What a majority of the configured has on disk. All ACKs of an epoch are for entries of that epoch. */
static void commit_advance(struct core *c)
{
	uint64_t acks[BUS_NODES_MAX] = {0};
	unsigned needed = c->o.break_minority ? (unsigned)c->view.n / 2 + 1 : c->view.expected / 2 + 1;

	if (c->epoch_alone)
		needed = 1;
	for (size_t i = 0; i < c->n_peers; i++)
		if (!c->epoch_alone || c->peers[i].id == c->leader || c->o.break_alone_acks)
			acks[i] = c->peers[i].ack;
	qsort(acks, c->n_peers, sizeof(acks[0]), descending);
	if (c->n_peers < needed)
		return;
	while (c->commit < acks[needed - 1]) {
		const struct entry *e = log_entry(c, ++c->commit);

		c->commit_waited |= e && e->kind == ENTRY_COMMAND && e->node != c->o.self;
	}
}

void log_on_ack(struct core *c, uint32_t from, const struct msg *m)
{
	struct peer *p = peer_get(c, from);

	if (!p || c->phase != PHASE_LEADING || m->epoch != c->epoch || m->index <= p->ack)
		return;
	p->ack = m->index;
	p->flags = m->flags;
	commit_advance(c);
}

/* To whom it matters: the leader. */
static void ack_send(struct core *c, int64_t now)
{
	struct msg m = {.type = MSG_ACK, .epoch = c->epoch, .index = c->acked};

	if (c->phase == PHASE_LEADING) {
		log_on_ack(c, c->o.self, &m);
	} else if (c->epoch_alone || !core_send_msg_to(c, c->leader, &m)) {
		core_send_msg(c, &m);
	} else if (c->ack_again_ns == 0) {
		c->ack_watched = c->acked;
		c->ack_again_ns = now + CORE_ACK_AGAIN;
	}
}

static void ack_flush(struct core *c, int64_t now)
{
	uint64_t upto = c->o.break_ack_early ? log_last(c) : c->durable;

	if (upto > c->matched)
		upto = c->matched;
	if (upto <= c->acked || (c->learner && !c->epoch_alone) ||
	    (c->phase != PHASE_LEADING && c->phase != PHASE_FOLLOWING) || log_epoch_of(c, upto) != c->epoch)
		return;
	c->acked = upto;
	if (upto > c->commit ||
	    c->epoch_alone) /* otherwise others have made the majority; the next one says this too */
		ack_send(c, now);
}

/* While entries come every now and then, the next ones will tell. */
static int64_t commit_lazy(const struct core *c)
{
	int64_t soon = 2 * c->lead_gap_ns;

	return soon > CORE_COMMIT_LAZY && soon <= CORE_COMMIT_LAZIEST ? soon : CORE_COMMIT_LAZY;
}

/* The leader tells how far the commit has come: with the next entries if it can, at once if somebody waits for it. */
static void commit_flush(struct core *c, int64_t now)
{
	if (c->commit <= c->commit_told || c->view.n < 2)
		return;
	if (c->commit_waited && c->entries_inflight < INFLIGHT_MAX)
		log_beat(c, now);
	else if (c->commit_tell_ns == 0)
		c->commit_tell_ns = now + commit_lazy(c);
}

void log_tick(struct core *c, int64_t now)
{
	struct msg m = {.type = MSG_ACK, .epoch = c->epoch, .index = c->acked};

	if (c->phase == PHASE_LEADING && c->commit_tell_ns && now >= c->commit_tell_ns)
		log_beat(c, now);
	if (!c->ack_again_ns || now < c->ack_again_ns)
		return;
	c->ack_again_ns = 0;
	if (c->phase != PHASE_FOLLOWING || c->durable < c->acked)
		return; /* it was diverged, and has not got back what it acknowledged */
	core_send_msg(c, &m);
	c->ack_again_ns = now + CORE_NEED_AGAIN;
}

/* ---- the disk ---- */

/* How many entries behind apply_issued may be applied with the next write. */
static size_t applicable(struct core *c)
{
	uint64_t upto = c->commit < c->matched ? c->commit : c->matched;
	uint64_t i = c->apply_issued;

	if (c->fetching || c->diverged)
		return 0;
	while (i < upto && i - c->apply_issued < APPLY_MAX && log_entry(c, i + 1)->version <= c->o.version)
		i++;
	alarm_set(c, CORE_ALARM_VERSION, c->o.self, i < upto && log_entry(c, i + 1)->version > c->o.version);
	return i - c->apply_issued;
}

/* One write for everything that has gathered. */
static void disk_flush(struct core *c)
{
	struct core_write w = {.cut_from = c->cut_from,
			       .meta = c->meta_dirty,
			       .promised = c->promised,
			       .promised_to = c->promised_to,
			       .history = c->history,
			       .learner = c->learner,
			       .diverged = c->diverged,
			       .alone = c->alone};
	size_t n_apply = applicable(c), n_append = log_last(c) + 1 - c->unwritten;
	struct entry **list;

	if (c->phase == PHASE_FOLLOWING && n_append && n_append + n_apply <= FEW)
		n_apply = 0; /* a majority waits for this disk, at most a caller of this host for what is applied */
	if (c->fetch_installing || (!w.meta && !w.cut_from && !n_append && !n_apply))
		return;
	list = xcalloc(n_append + n_apply, sizeof(struct entry *));
	w.serial = ++c->serial;
	for (size_t i = 0; i < n_append; i++) {
		list[i] = log_entry(c, c->unwritten + i);
		list[i]->serial = w.serial;
	}
	for (size_t i = 0; i < n_apply; i++)
		list[n_append + i] = log_entry(c, c->apply_issued + 1 + i);
	w.append = list;
	w.n_append = n_append;
	w.apply = list + n_append;
	w.n_apply = n_apply;
	if (w.meta && c->alone_due && !c->alone_serial)
		c->alone_serial = w.serial;
	if (w.meta && c->promise_due)
		c->promise_serial = w.serial;
	c->unwritten += n_append;
	c->apply_issued += n_apply;
	c->cut_from = 0;
	c->meta_dirty = false;
	c->io->write(c->arg, &w);
	free(list);
}

void *core_applied(struct core *c, const struct entry *e)
{
	struct pending *p = NULL;
	void *user = NULL;

	assert(c->tail_n && e->index == c->applied + 1);
	if (e->kind == ENTRY_COMMAND && e->node == c->o.self)
		p = c->pending[e->seq % CORE_PENDING_MAX];
	if (p && p->seq == e->seq) {
		user = p->user;
		pending_remove(c, p);
	}
	if (c->durable < e->index)
		c->durable = e->index;
	tail_pop(c);
	if (!c->synced && c->epoch && c->applied_epoch == c->epoch && c->leader) {
		c->synced = true;
		propose_synced(c);
	}
	return user;
}

void log_flush(struct core *c, int64_t now)
{
	if (c->phase == PHASE_LEADING) {
		if (c->fresh_goal_ns == 0) {
			c->fresh_goal = c->commit;
			c->fresh_goal_ns = now;
		}
		membership_begin(c, c->history);
	}
	ack_flush(c, now);
	if (c->phase == PHASE_LEADING) {
		lead_check(c, now);
		lead_flush(c, now);
		commit_flush(c, now);
	}
	disk_flush(c);
}
