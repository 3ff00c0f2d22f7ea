/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol's core: catching up with the leader, by entries or by a snapshot, and comparing digests. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/core-int.h"

#define READ_MAX 8192U          /* entries in one answer */
#define FETCH_WINDOW (4U << 20) /* bytes of a snapshot asked for and not yet on the disk */
#define SNAPSHOT_MAX (1ULL << 40)
#define ITEM_OVERHEAD 64U

/* ---- asking ---- */

void sync_need(struct core *c, int64_t now)
{
	struct msg m = {.type = MSG_NEED, .to = c->leader, .epoch = c->epoch};

	if (c->phase != PHASE_FOLLOWING || c->fetching || (c->need_ns && now < c->need_ns + CORE_NEED_AGAIN))
		return;
	m.index = c->matched > c->applied ? c->matched : c->applied;
	c->need_ns = now;
	core_send_msg(c, &m);
}

void sync_stash(struct core *c, uint32_t from, const uint8_t *data, size_t size)
{
	struct stashed *s;

	if (c->stash_bytes + size > CORE_STASH_BYTES)
		return; /* it will be asked for */
	s = xcalloc(1, sizeof(*s) + size);
	s->from = from;
	s->size = size;
	memcpy(s->data, data, size);
	c->stash_bytes += size;
	STAILQ_INSERT_TAIL(&c->stash, s, link);
}

static struct stashed *stash_pop(struct core *c)
{
	struct stashed *s = STAILQ_FIRST(&c->stash);

	if (s) {
		STAILQ_REMOVE_HEAD(&c->stash, link);
		c->stash_bytes -= s->size;
	}
	return s;
}

/* Take the live entries that have waited, as far as they fit now. True when that closed the gap. */
bool sync_unstash(struct core *c, int64_t now)
{
	struct stashed *s;
	bool took = false;

	while ((s = STAILQ_FIRST(&c->stash))) {
		struct msg m;

		if (msg_decode(s->data, s->size, &m, NULL) == 0 && m.last_index > log_last(c))
			return false;
		s = stash_pop(c);
		log_on_entries(c, now, s->from, &m, s->data, s->size);
		free(s);
		took = true;
	}
	return took;
}

void sync_abort(struct core *c)
{
	struct stashed *s;

	while ((s = stash_pop(c)))
		free(s);
	c->need_ns = 0;
	if (c->fetching && !c->fetch_installing) {
		c->io->fetch_drop(c->arg);
		c->fetching = false;
	}
	c->snapshot_for_n = 0;
}

/* ---- answering ---- */

static void entries_answer(struct core *c, uint32_t to, uint64_t index, struct entry **list, size_t n)
{
	struct msg m = {.type = MSG_ENTRIES,
			.flags = alone_flags(c),
			.history = c->history,
			.to = to,
			.epoch = c->epoch,
			.last_index = index,
			.commit = c->commit};
	size_t i = 0, bytes = 0;

	if (index && n && list[0]->index == index)
		m.last_epoch = list[i++]->epoch;
	else if (index)
		m.last_epoch = log_epoch_of(c, index);
	msg_begin(&c->buf, &m);
	for (; i < n && bytes < CORE_CHUNK_BYTES; i++, index++) {
		bytes += list[i]->size + ITEM_OVERHEAD;
		msg_item(&c->buf, list[i]);
	}
	for (struct entry *e; bytes < CORE_CHUNK_BYTES && (e = log_entry(c, index + 1)); index++) {
		bytes += e->size + ITEM_OVERHEAD;
		msg_item(&c->buf, e);
	}
	c->io->send(c->arg, c->buf.data, c->buf.len);
}

/* Read the applied entries from @index on, if the log goes back that far. */
static bool entries_read(struct core *c, uint64_t index, struct entry **list, size_t *ret_n)
{
	size_t n = c->io->read(c->arg, index ? index : 1, CORE_CHUNK_BYTES, list, READ_MAX);
	bool ok = n > 0 && list[0]->index == (index ? index : 1);

	while (n > 0 && list[n - 1]->index > c->applied)
		entry_unref(list[--n]);
	*ret_n = n;
	return ok;
}

/* Does our log go on from entry @index? */
static bool log_reaches(struct core *c, uint64_t index)
{
	struct entry *e;
	bool ok = index >= c->applied;

	if (!ok && c->io->read(c->arg, index, 1, &e, 1) == 1) {
		ok = e->index == index;
		entry_unref(e);
	}
	return ok;
}

static void snapshot_offer(struct core *c, uint32_t to)
{
	struct msg m = {.type = MSG_SNAP_BEGIN,
			.to = to,
			.epoch = c->epoch,
			.snapshot = c->snapshot_id,
			.size = c->snapshot_size,
			.index = c->snapshot_index};

	core_send_msg(c, &m);
}

/* @to wants a snapshot: the one at hand if our log goes on from there, otherwise a new one. */
static void snapshot_want(struct core *c, int64_t now, uint32_t to)
{
	if (c->snapshot_ready && log_reaches(c, c->snapshot_index)) {
		c->snapshot_ns = now;
		snapshot_offer(c, to);
		return;
	}
	for (size_t i = 0; i < c->snapshot_for_n; i++)
		if (c->snapshot_for[i] == to)
			return;
	if (c->snapshot_for_n == BUS_NODES_MAX)
		return;
	c->snapshot_for[c->snapshot_for_n++] = to;
	if (c->snapshot_making)
		return;
	c->snapshot_making = true;
	c->snapshot_ready = false;
	c->io->snapshot_make(c->arg);
}

void core_snapshot_made(struct core *c, int64_t now, bool ok, uint64_t size, uint64_t index)
{
	if (ok && c->snapshot_wrong) {
		c->io->snapshot_drop(c->arg);
		ok = false;
	}
	c->snapshot_making = c->snapshot_wrong = false;
	c->snapshot_ready = ok;
	c->snapshot_id++;
	c->snapshot_size = size;
	c->snapshot_index = index;
	c->snapshot_ns = now;
	for (size_t i = 0; i < c->snapshot_for_n; i++)
		if (ok && c->phase == PHASE_LEADING)
			snapshot_offer(c, c->snapshot_for[i]);
	c->snapshot_for_n = 0;
}

void sync_on_need(struct core *c, int64_t now, uint32_t from, const struct msg *m)
{
	struct entry *list[READ_MAX];
	bool ok = true;
	size_t n = 0;

	if (m->to != c->o.self || c->phase != PHASE_LEADING || m->epoch != c->epoch || m->index > log_last(c))
		return;
	if (m->index < c->applied)
		ok = entries_read(c, m->index, list, &n);
	if (ok && !(m->flags & MSG_DIVERGED))
		entries_answer(c, from, m->index, list, n);
	else if (!c->diverged)
		snapshot_want(c, now, from);
	while (n > 0)
		entry_unref(list[--n]);
}

/* ---- snapshots on the wire ---- */

static void snapshot_get(struct core *c, int64_t now, uint32_t from, const struct msg *m)
{
	struct msg out = {.type = MSG_SNAP_DATA,
			  .flags = alone_flags(c),
			  .to = from,
			  .epoch = c->epoch,
			  .snapshot = m->snapshot,
			  .offset = m->offset,
			  .history = c->history};
	size_t head, n;

	if (!c->snapshot_ready || m->snapshot != c->snapshot_id || m->size > CORE_CHUNK_BYTES)
		return;
	c->snapshot_ns = now;
	msg_begin(&c->buf, &out);
	head = c->buf.len;
	msg_room(&c->buf, m->size);
	n = c->io->snapshot_read(c->arg, m->offset, c->buf.data + head, m->size);
	if (n > 0)
		c->io->send(c->arg, c->buf.data, head + n);
}

static void fetch_ask(struct core *c)
{
	while (c->fetch_asked < c->fetch_size && c->fetch_asked - c->fetch_written < FETCH_WINDOW) {
		struct msg m = {.type = MSG_SNAP_GET,
				.to = c->leader,
				.epoch = c->epoch,
				.snapshot = c->fetch_id,
				.offset = c->fetch_asked,
				.size = c->fetch_size - c->fetch_asked};

		if (m.size > CORE_CHUNK_BYTES)
			m.size = CORE_CHUNK_BYTES;
		c->fetch_asked += m.size;
		core_send_msg(c, &m);
	}
}

static void fetch_begin(struct core *c, int64_t now, const struct msg *m)
{
	if (c->fetching || !c->need_ns || m->size == 0 || m->size > SNAPSHOT_MAX)
		return;
	c->need_ns = 0;
	c->fetching = true;
	c->fetch_id = m->snapshot;
	c->fetch_size = m->size;
	c->fetch_asked = c->fetch_got = c->fetch_written = 0;
	c->fetch_ns = now;
	c->io->fetch_begin(c->arg, m->size);
	fetch_ask(c);
}

static void fetch_data(struct core *c, int64_t now, const struct msg *m)
{
	if (!c->fetching || c->fetch_installing || m->snapshot != c->fetch_id || m->offset != c->fetch_got ||
	    m->items_size > c->fetch_size - c->fetch_got)
		return;
	c->fetch_ns = now;
	c->fetch_got += m->items_size;
	c->io->fetch_data(c->arg, m->offset, m->items, m->items_size);
}

void core_fetch_written(struct core *c, int64_t now, uint64_t upto)
{
	disk_works(c);
	if (!c->fetching || c->fetch_installing || upto > c->fetch_got || upto < c->fetch_written)
		return; /* of one that was given up */
	c->fetch_ns = now;
	c->fetch_written = upto;
	if (upto < c->fetch_size) {
		fetch_ask(c);
		return;
	}
	c->fetch_installing = true;
	c->io->fetch_install(c->arg);
}

void core_fetch_installed(struct core *c, int64_t now, const struct core_disk *disk)
{
	disk_works(c);
	c->fetching = c->fetch_installing = false;
	if (disk) {
		c->history = disk->history;
		c->learner = disk->learner;
		c->diverged = disk->diverged;
		log_reset(c, disk);
		propose_after_snapshot(c);
		c->synced = c->leader && c->epoch && c->applied_epoch == c->epoch;
		if (c->synced)
			propose_synced(c);
	}
	c->need_ns = 0;
	sync_need(c, now);
}

void sync_on_snapshot(struct core *c, int64_t now, uint32_t from, const struct msg *m)
{
	if (m->to != c->o.self || m->epoch != c->epoch)
		return;
	if (m->type == MSG_SNAP_GET) {
		if (c->phase == PHASE_LEADING)
			snapshot_get(c, now, from, m);
		return;
	}
	if (c->phase != PHASE_FOLLOWING || from != c->leader)
		return;
	if (m->type == MSG_SNAP_BEGIN)
		fetch_begin(c, now, m);
	else
		fetch_data(c, now, m);
}

void sync_tick(struct core *c, int64_t now)
{
	if (c->fetching && !c->fetch_installing && now >= c->fetch_ns + CORE_FETCH_LIMIT) {
		c->io->fetch_drop(c->arg);
		c->fetching = false;
		c->need_ns = 0;
		sync_need(c, now);
	}
	if (c->need_ns && now >= c->need_ns + CORE_NEED_AGAIN) {
		c->need_ns = 0;
		sync_need(c, now);
	}
	if (c->snapshot_ready && now >= c->snapshot_ns + CORE_SNAPSHOT_KEPT) {
		c->snapshot_ready = false;
		c->io->snapshot_drop(c->arg);
	}
}

/* ---- digests ---- */

void core_checked(struct core *c, uint64_t index, const uint8_t chain[32], const uint8_t state[32])
{
	c->check_index = index;
	memcpy(c->chain, chain, sizeof(c->chain));
	memcpy(c->state, state, sizeof(c->state));
	c->check_due = true;
}

void sync_check_flush(struct core *c)
{
	struct msg m = {.type = MSG_CHECK, .epoch = c->epoch, .index = c->check_index};

	if (!c->check_due || c->diverged)
		return;
	c->check_due = false;
	memcpy(m.chain, c->chain, sizeof(m.chain));
	memcpy(m.state, c->state, sizeof(m.state));
	core_send_msg(c, &m);
}

/* Our state is wrong. Remember it, let others lead, fetch theirs. */
void sync_diverged(struct core *c, int64_t now)
{
	if (c->diverged)
		return;
	c->diverged = true;
	c->meta_dirty = true;
	c->snapshot_wrong = c->snapshot_making;
	if (c->snapshot_ready)
		c->io->snapshot_drop(c->arg);
	c->snapshot_ready = false;
	alarm_set(c, CORE_ALARM_DIGEST, c->o.self, true);
	if (c->phase == PHASE_LEADING)
		round_begin(c, now, c->round + 1);
	c->need_ns = 0;
	sync_need(c, now);
}

static bool digests_equal(const struct peer *a, const struct peer *b)
{
	return !memcmp(a->chain, b->chain, sizeof(a->chain)) && !memcmp(a->state, b->state, sizeof(a->state));
}

/* How many members told the same digests of @index as @p? */
static unsigned agreeing(const struct core *c, const struct peer *p, uint64_t index)
{
	unsigned n = 0;

	for (size_t i = 0; i < c->n_peers; i++)
		n += c->peers[i].check_index == index && digests_equal(&c->peers[i], p);
	return n;
}

/* A majority of the configured that told the same digests of @index is right. NULL: there is none yet. */
static const struct peer *check_majority(const struct core *c, uint64_t index)
{
	for (size_t i = 0; i < c->n_peers; i++) {
		const struct peer *p = &c->peers[i];

		if (p->check_index == index && agreeing(c, p, index) > c->view.expected / 2)
			return p;
	}
	return NULL;
}

/* Have all who are here told their digests of @index? */
static bool check_complete(const struct core *c, uint64_t index)
{
	for (size_t i = 0; i < c->n_peers; i++) {
		const struct peer *p = &c->peers[i];

		if (p->in_view && p->heard && p->check_index < index)
			return false;
	}
	return true;
}

/* Everybody's digests of @index against the right ones, which `right` told. True: none that is known differs. */
static bool check_compare(struct core *c, uint64_t index, const struct peer *right, bool majority)
{
	bool same = true;

	for (size_t i = 0; i < c->n_peers; i++) {
		struct peer *q = &c->peers[i];

		if (q->check_index != index)
			continue;
		q->check_alarm = !digests_equal(q, right);
		q->doubted = q->check_alarm && majority;
		same = same && !q->check_alarm;
		if (q->check_alarm)
			alarm_set(c, CORE_ALARM_DIGEST, q->id, true);
	}
	return same;
}

/* Without a majority, and when all here have told theirs, the leader counts as right: enough for an alarm, but a state
 * is thrown away for it only where there never is a majority, in a cluster of two. */
void sync_on_check(struct core *c, int64_t now, uint32_t from, const struct msg *m)
{
	struct peer *p = peer_get(c, from), *self = peer_get(c, c->o.self);
	const struct peer *right, *leader = c->leader ? peer_get(c, c->leader) : NULL;
	bool majority, complete, same;

	if (!p || !self || m->index < p->check_index)
		return;
	p->check_index = m->index;
	memcpy(p->chain, m->chain, sizeof(p->chain));
	memcpy(p->state, m->state, sizeof(p->state));
	complete = check_complete(c, m->index);
	right = check_majority(c, m->index);
	majority = right;
	if (!right && complete && leader && leader->check_index == m->index)
		right = leader;
	if (!right || self->check_index != m->index)
		return;
	same = check_compare(c, m->index, right, majority);
	if (self->check_alarm && (majority || c->view.expected <= 2))
		sync_diverged(c, now);
	else if (same && complete)
		alarm_set(c, CORE_ALARM_DIGEST, 0, false);
}
