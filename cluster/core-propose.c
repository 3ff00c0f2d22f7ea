/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol's core: proposals, ours from the caller to their answer, others' in the leader's queue. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/core-int.h"

#define QUEUE_MAX (CORE_PENDING_MAX * 4) /* entries that a leader keeps for others */
#define QUEUE_BYTES (128U << 20)

/* Versions in MSG_REFUSE that are none. */
#define REFUSE_BUSY 0
#define REFUSE_ALONE UINT32_MAX

/* ---- the leader's queue ---- */

void queue_push(struct core *c, struct entry *e)
{
	struct queued *q = xcalloc(1, sizeof(*q));

	q->entry = e;
	c->queue_n++;
	c->queue_bytes += e->size;
	STAILQ_INSERT_TAIL(&c->queue, q, link);
}

void queue_clear(struct core *c)
{
	struct queued *q;

	while ((q = STAILQ_FIRST(&c->queue))) {
		STAILQ_REMOVE_HEAD(&c->queue, link);
		entry_unref(q->entry);
		free(q);
	}
	c->queue_n = c->queue_bytes = 0;
}

/* The newest command version that every member heard in this round knows. */
uint32_t lowest_version(const struct core *c)
{
	uint32_t lowest = c->o.version;

	for (size_t i = 0; i < c->n_peers; i++)
		if (c->peers[i].in_view && c->peers[i].heard && !c->peers[i].stranger && c->peers[i].version < lowest)
			lowest = c->peers[i].version;
	return lowest;
}

/* @version: the newest one that all know, or a word for another reason. */
static void refuse_send(struct core *c, uint32_t to, uint64_t seq, uint32_t version)
{
	struct msg m = {.type = MSG_REFUSE, .to = to, .epoch = c->epoch, .seq = seq, .version = version};

	core_send_msg(c, &m);
}

void propose_on_propose(struct core *c, uint32_t from, struct msg *m)
{
	uint32_t lowest = lowest_version(c);
	struct entry *e;

	if (from == c->o.self && c->propose_inflight) {
		c->propose_inflight = false;
		c->inflight_ns = 0;
	}
	if (c->phase != PHASE_LEADING || m->epoch != c->epoch)
		return; /* a proposal of another epoch must never be taken: its fate is already decided */
	while ((e = msg_next(m))) {
		bool takes = alone_takes(c, e);

		e->node = from;
		if (e->kind == ENTRY_COMMAND && e->version <= lowest && takes && c->queue_n < QUEUE_MAX &&
		    c->queue_bytes < QUEUE_BYTES) {
			queue_push(c, e);
			continue;
		}
		refuse_send(c, from, e->seq, e->version > lowest ? lowest : takes ? REFUSE_BUSY : REFUSE_ALONE);
		entry_unref(e);
	}
}

/* ---- our own ---- */

void pending_remove(struct core *c, struct pending *p)
{
	if (p->unsent)
		TAILQ_REMOVE(&c->unsent, p, link);
	c->pending[p->seq % CORE_PENDING_MAX] = NULL;
	c->pending_n--;
	c->pending_bytes -= p->size;
	free(p);
	while (c->seq_oldest < c->seq && !c->pending[c->seq_oldest % CORE_PENDING_MAX])
		c->seq_oldest++;
}

static void pending_refuse(struct core *c, struct pending *p, enum core_refusal why, uint32_t version)
{
	void *user = p->user;

	if (p->doubtful)
		why = CORE_REFUSED_LOST;
	pending_remove(c, p);
	c->io->refused(c->arg, user, why, version);
}

static int refuse(enum core_refusal why, enum core_refusal *ret_why)
{
	*ret_why = why;
	return -1;
}

int core_propose(struct core *c, int64_t now, uint32_t version, const void *data, size_t size, void *user,
		 enum core_refusal *ret_why, uint32_t *ret_version)
{
	struct pending *p;

	assert(size <= ENTRY_DATA_MAX);
	*ret_version = lowest_version(c);
	if (c->failed)
		return refuse(CORE_REFUSED_DISK, ret_why);
	if (!c->has_view || c->phase == PHASE_IDLE)
		return refuse(CORE_REFUSED_NO_QUORUM, ret_why);
	/* While a new leader is found a proposal may wait; a member that has never been in sync, or is not, may not. */
	if (c->diverged || c->fetching || !c->was_synced)
		return refuse(CORE_REFUSED_NOT_SYNCED, ret_why);
	if (version > *ret_version)
		return refuse(CORE_REFUSED_VERSION, ret_why);
	if (c->seq - c->seq_oldest >= CORE_PENDING_MAX || c->pending_bytes + size > CORE_PENDING_BYTES)
		return refuse(CORE_REFUSED_BUSY, ret_why);
	p = xcalloc(1, sizeof(*p) + size);
	p->seq = c->seq++;
	p->version = version;
	p->user = user;
	p->since = now;
	p->size = size;
	memcpy(p->data, data, size);
	p->unsent = true;
	c->pending[p->seq % CORE_PENDING_MAX] = p;
	c->pending_n++;
	c->pending_bytes += size;
	TAILQ_INSERT_TAIL(&c->unsent, p, link);
	return 0;
}

static struct entry *pending_sent(struct core *c, struct pending *p)
{
	struct entry *e = entry_new(ENTRY_COMMAND, p->data, p->size);

	e->node = c->o.self;
	e->seq = p->seq;
	e->version = p->version;
	p->epoch = c->epoch;
	p->sent_index = log_last(c);
	p->unsent = false;
	TAILQ_REMOVE(&c->unsent, p, link);
	return e;
}

/* One message for all that wait; while it is on its way the next ones gather. */
static void propose_send(struct core *c, int64_t now)
{
	struct msg m = {.type = MSG_PROPOSE, .flags = alone_flags(c), .history = c->history, .epoch = c->epoch};
	struct pending *p;
	size_t bytes = 0;

	msg_begin(&c->buf, &m);
	while ((p = TAILQ_FIRST(&c->unsent)) && (bytes == 0 || bytes + p->size <= CORE_BATCH_BYTES)) {
		struct entry *e = pending_sent(c, p);

		bytes += e->size + 64;
		msg_item(&c->buf, e);
		entry_unref(e);
	}
	c->propose_inflight = true;
	c->inflight_ns = now;
	c->io->send(c->arg, c->buf.data, c->buf.len);
}

void propose_flush(struct core *c, int64_t now)
{
	struct pending *p;

	if (!c->synced || TAILQ_EMPTY(&c->unsent))
		return;
	while (c->phase == PHASE_LEADING && (p = TAILQ_FIRST(&c->unsent))) {
		struct entry *e = pending_sent(c, p);

		if (alone_takes(c, e)) {
			queue_push(c, e);
		} else {
			entry_unref(e);
			pending_refuse(c, p, CORE_REFUSED_ALONE, 0);
		}
	}
	if (c->phase == PHASE_FOLLOWING && !c->propose_inflight)
		propose_send(c, now);
}

void propose_on_refuse(struct core *c, const struct msg *m)
{
	struct pending *p = c->pending[m->seq % CORE_PENDING_MAX];

	if (m->to != c->o.self || !p || p->seq != m->seq || p->unsent || p->epoch != m->epoch)
		return;
	pending_refuse(c, p,
		       m->version == REFUSE_ALONE  ? CORE_REFUSED_ALONE
		       : m->version == REFUSE_BUSY ? CORE_REFUSED_BUSY
						   : CORE_REFUSED_VERSION,
		       m->version);
}

/* An entry of this epoch is applied: what was sent in an older one and has not gone by was never taken and never will
 * be. Propose it again. */
void propose_synced(struct core *c)
{
	for (uint64_t seq = c->seq_oldest; seq < c->seq; seq++) {
		struct pending *p = c->pending[seq % CORE_PENDING_MAX];

		if (!p || p->unsent || (p->epoch == c->epoch && !p->doubtful))
			continue;
		p->unsent = true;
		TAILQ_INSERT_TAIL(&c->unsent, p, link);
	}
	c->was_synced = true;
}

/* Entries went by unseen, inside a snapshot: what was sent will be proposed again, which is safe as long as the store
 * remembers the ids. */
void propose_after_snapshot(struct core *c)
{
	for (uint64_t seq = c->seq_oldest; seq < c->seq; seq++) {
		struct pending *p = c->pending[seq % CORE_PENDING_MAX];

		if (!p || p->unsent)
			continue;
		p->doubtful = true;
		if (p->sent_index + CORE_DONE_KEPT / 2 < c->applied)
			pending_refuse(c, p, CORE_REFUSED_LOST, 0);
	}
}

static void refuse_unsent(struct core *c, int64_t before, enum core_refusal why)
{
	struct pending *p, *next;

	for (p = TAILQ_FIRST(&c->unsent); p; p = next) {
		next = TAILQ_NEXT(p, link);
		if (p->since <= before)
			pending_refuse(c, p, why, 0);
	}
}

void propose_no_quorum(struct core *c)
{
	refuse_unsent(c, INT64_MAX, CORE_REFUSED_NO_QUORUM);
}

void propose_tick(struct core *c, int64_t now)
{
	if (!c->synced)
		refuse_unsent(c, now - CORE_UNSENT_LIMIT, CORE_REFUSED_NOT_SYNCED);
}

void propose_free(struct core *c)
{
	for (uint64_t seq = c->seq_oldest; seq < c->seq; seq++) {
		struct pending *p = c->pending[seq % CORE_PENDING_MAX];

		if (p)
			pending_refuse(c, p, CORE_REFUSED_LOST, 0);
	}
	free(c->pending);
}
