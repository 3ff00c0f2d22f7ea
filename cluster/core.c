/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol's core: views, rounds, claims and promises. The theory of operation is in cluster/core.h. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/core-int.h"

/* ---- members ---- */

/* NULL when the table is full of others: a message of such a member is dropped. */
struct peer *peer_get(struct core *c, uint32_t id)
{
	struct peer *p;

	for (size_t i = 0; i < c->n_peers; i++)
		if (c->peers[i].id == id)
			return &c->peers[i];
	if (c->n_peers < BUS_NODES_MAX)
		p = &c->peers[c->n_peers++];
	else {
		size_t i = 0;

		while (i < c->n_peers && c->peers[i].in_view)
			i++;
		if (i == c->n_peers)
			return NULL;
		p = &c->peers[i];
	}
	*p = (struct peer){.id = id};
	return p;
}

void alarm_set(struct core *c, enum core_alarm what, uint32_t node, bool on)
{
	if (c->alarms[what] == on)
		return;
	c->alarms[what] = on;
	c->io->alarm(c->arg, what, node, on);
}

static void msg_make(struct core *c, struct msg *m)
{
	m->history = c->history;
	m->flags |= alone_flags(c);
	m->flags |= (c->learner ? MSG_LEARNER : 0) | (c->failed ? MSG_FAILED : 0) | (c->diverged ? MSG_DIVERGED : 0);
	msg_begin(&c->buf, m);
}

void core_send_msg(struct core *c, struct msg *m)
{
	msg_make(c, m);
	c->io->send(c->arg, c->buf.data, c->buf.len);
}

bool core_send_msg_to(struct core *c, uint32_t to, struct msg *m)
{
	msg_make(c, m);
	return c->io->send_to && c->io->send_to(c->arg, to, c->buf.data, c->buf.len);
}

/* A majority of the configured hosts. */
static unsigned majority(const struct core *c)
{
	if (c->alone)
		return 1;
	if (c->o.break_minority)
		return (unsigned)c->view.n / 2 + 1;
	return c->view.expected / 2 + 1;
}

/* ---- rounds ---- */

static void sync_send(struct core *c)
{
	struct msg m = {.type = MSG_SYNC,
			.ring = c->view.ring,
			.round = c->round,
			.promised = c->promised,
			.last_epoch = log_last_epoch(c),
			.last_index = log_last(c),
			.version = c->o.version};

	core_send_msg(c, &m);
}

/* Begin to look for a leader; whoever led or followed stops. */
void round_begin(struct core *c, int64_t now, uint32_t round)
{
	c->round = round;
	c->synced = false;
	c->leader = 0;
	c->claimed = false;
	c->waiting_claim = false;
	c->round_deadline = 0;
	queue_clear(c);
	sync_abort(c);
	c->entries_inflight = 0;
	c->alone_closing = false;
	c->propose_inflight = false;
	c->inflight_ns = 0;
	for (size_t i = 0; i < c->n_peers; i++) {
		c->peers[i].heard = c->peers[i].stranger; /* nobody waits for one */
		c->peers[i].granted = false;
	}
	if (!alone_quorate(c)) {
		c->phase = PHASE_IDLE;
		propose_no_quorum(c);
		return;
	}
	c->phase = PHASE_SYNCING;
	c->round_deadline = now + CORE_SYNC_LIMIT;
	sync_send(c);
}

/* Is @a's log more advanced than @b's? */
static bool more_advanced(uint64_t a_epoch, uint64_t a_index, uint64_t b_epoch, uint64_t b_index)
{
	return a_epoch != b_epoch ? a_epoch > b_epoch : a_index > b_index;
}

/* May this member lead, as far as its SYNC says? */
static bool may_lead(const struct peer *p)
{
	return p->in_view && p->heard && !p->stranger && !p->doubted &&
	       !(p->flags & (MSG_LEARNER | MSG_FAILED | MSG_DIVERGED));
}

static void claim(struct core *c, int64_t now)
{
	struct msg m = {.type = MSG_CLAIM,
			.ring = c->view.ring,
			.round = c->round,
			.last_epoch = log_last_epoch(c),
			.last_index = log_last(c)};
	uint64_t highest = c->promised;

	for (size_t i = 0; i < c->n_peers; i++) {
		struct peer *p = &c->peers[i];

		if (p->heard && !p->stranger && p->promised > highest)
			highest = p->promised;
		p->granted = false;
	}
	c->claimed = true;
	c->claim_epoch = m.epoch = highest + 1;
	c->round_deadline = now + CORE_CLAIM_LIMIT;
	core_send_msg(c, &m);
}

/* Corosync's token rests at the lowest id, and when somebody has something to say it goes round from there: the second
 * one has it first, the lowest one last. The smaller, the sooner. */
static uint32_t turn(const struct core *c, const struct peer *p)
{
	return p->id == c->view.members[0] ? UINT32_MAX : p->id;
}

/* Is it time to claim, and for whom? The most advanced log among those heard wins, on ties whoever has the token first;
 * one that goes on alone wins against any. */
static void round_consider(struct core *c, int64_t now)
{
	const struct peer *best = NULL;
	unsigned heard = 0;
	bool all = true, other_alone = false;

	if (c->phase != PHASE_SYNCING || c->claimed || c->waiting_claim)
		return;
	for (size_t i = 0; i < c->n_peers; i++) {
		const struct peer *p = &c->peers[i];

		if (!p->in_view)
			continue;
		all = all && p->heard;
		heard += p->heard && !p->stranger;
		other_alone = other_alone || (p->heard && !p->stranger && p->id != c->o.self && (p->flags & MSG_ALONE));
		if (!may_lead(p) || (c->alone && p->id != c->o.self))
			continue;
		if (!best || more_advanced(p->last_epoch, p->last_index, best->last_epoch, best->last_index) ||
		    (!more_advanced(best->last_epoch, best->last_index, p->last_epoch, p->last_index) &&
		     turn(c, p) < turn(c, best)))
			best = p;
	}
	if (!all && now < c->round_deadline)
		return;
	if (best && heard >= majority(c) && best->id == c->o.self && (c->alone || !other_alone)) {
		claim(c, now);
		return;
	}
	c->waiting_claim = true;
	c->round_deadline = now + CORE_CLAIM_LIMIT;
}

static void on_sync(struct core *c, int64_t now, uint32_t from, const struct msg *m)
{
	struct peer *p = peer_get(c, from);
	bool stranger = m->history && c->history && m->history != c->history;

	if (!p || !bus_ring_equal(m->ring, c->view.ring))
		return;
	if (stranger)
		alarm_set(c, CORE_ALARM_HISTORY, from, true);
	else if (m->round > c->round)
		round_begin(c, now, m->round);
	if (m->round < c->round && !stranger)
		return;
	p->heard = true;
	p->stranger = stranger;
	p->flags = m->flags;
	p->promised = m->promised;
	p->last_epoch = m->last_epoch;
	p->last_index = m->last_index;
	p->version = m->version;
	if (c->phase == PHASE_LEADING)
		log_beat(c, now); /* it is late: let it see that there is a leader */
	round_consider(c, now);
}

/* ---- claims and promises ---- */

/* @flags: MSG_GRANTED, or why not. */
static void promise_send(struct core *c, uint32_t to, uint64_t epoch, uint8_t flags)
{
	struct msg m = {.type = MSG_PROMISE, .flags = flags, .to = to, .epoch = epoch, .promised = c->promised};

	core_send_msg(c, &m);
}

/* The promise is on the disk: give it. */
static void promise_give(struct core *c)
{
	c->promise_due = false;
	promise_send(c, c->promised_to, c->promised, MSG_GRANTED | (c->promise_vouches ? 0 : MSG_LEARNER));
}

static void on_claim(struct core *c, int64_t now, uint32_t from, const struct msg *m)
{
	bool newer = m->epoch > c->promised || (m->epoch == c->promised && from == c->promised_to);
	bool longer = more_advanced(log_last_epoch(c), log_last(c), m->last_epoch, m->last_index);
	const struct peer *p = peer_get(c, from);

	if (!bus_ring_equal(m->ring, c->view.ring) || c->failed || m->history == 0)
		return;
	if ((m->flags & MSG_ALONE) && from != c->o.self)
		return; /* it asks nobody: its entries say that it leads */
	if (c->alone && from != c->o.self) {
		promise_send(c, from, m->epoch, 0);
		return;
	}
	if (p && p->doubted) { /* first of all, as it would claim again and again */
		promise_send(c, from, m->epoch, MSG_DOUBTED);
		return;
	}
	if (!newer || (longer && !c->learner && !c->diverged)) {
		promise_send(c, from, m->epoch, 0);
		return;
	}
	c->promised = m->epoch;
	c->promised_to = from;
	c->promise_vouches = !longer;
	if (c->phase == PHASE_LEADING || c->phase == PHASE_FOLLOWING) {
		/* Whoever has promised a newer epoch acknowledges nothing of an older one. */
		c->phase = PHASE_SYNCING;
		c->synced = false;
		c->leader = 0;
		c->waiting_claim = true;
		c->round_deadline = now + CORE_CLAIM_LIMIT;
		queue_clear(c);
		sync_abort(c);
		c->inflight_ns = 0;
	}
	if (c->o.break_epoch_reuse) {
		promise_give(c);
		return;
	}
	c->meta_dirty = true;
	c->promise_due = true;
	c->promise_serial = 0;
}

/* Do those who have promised suffice? One of them is this member itself: else its disk may be about to put a state that
 * it fetched in the place of the log with which it claimed. See also "learner" in cluster/core.h. */
static bool elected(const struct core *c)
{
	unsigned all = 0, vouching = 0, m = majority(c);
	unsigned configured = c->o.break_minority ? (unsigned)c->view.n : c->view.expected;
	bool self = false;

	for (size_t i = 0; i < c->n_peers; i++) {
		self = self || (c->peers[i].id == c->o.self && c->peers[i].granted);
		all += c->peers[i].granted;
		vouching += c->peers[i].granted && !c->peers[i].granted_learner;
	}
	return self && (c->alone || (all >= m && vouching >= (configured > m ? configured - m + 1 : 1)));
}

static void on_promise(struct core *c, int64_t now, uint32_t from, const struct msg *m)
{
	struct peer *p = peer_get(c, from);

	if (!p || m->to != c->o.self || (c->alone && from != c->o.self) || c->phase != PHASE_SYNCING || !c->claimed ||
	    m->epoch != c->claim_epoch)
		return;
	if (m->flags & MSG_DOUBTED)
		sync_diverged(c, now);
	if (!(m->flags & MSG_GRANTED)) {
		round_begin(c, now, c->round + 1);
		return;
	}
	p->granted = true;
	p->granted_learner = m->flags & MSG_LEARNER;
	if (elected(c)) {
		c->phase = PHASE_LEADING;
		c->round_deadline = 0;
		log_epoch_begin(c, c->claim_epoch, c->o.self, alone_flags(c), now);
		log_lead(c, now);
	}
}

/* ---- events ---- */

void core_view(struct core *c, int64_t now, const struct bus_view *view)
{
	bool same_ring = c->has_view && bus_ring_equal(view->ring, c->view.ring);
	bool same = same_ring && view->n == c->view.n &&
		    !memcmp(view->members, c->view.members, view->n * sizeof(view->members[0]));
	bool quorate = alone_quorate(c), two_changed = (view->expected == 2) != (c->view.expected == 2);

	c->view = *view;
	c->has_view = true;
	alone_view(c, two_changed);
	if (same && quorate == alone_quorate(c) && !two_changed)
		return; /* only the number of configured hosts has changed */
	for (size_t i = 0; i < c->n_peers; i++)
		c->peers[i].in_view = false;
	for (size_t i = 0; i < view->n; i++) {
		struct peer *p = peer_get(c, view->members[i]);

		if (p)
			p->in_view = true;
	}
	alarm_set(c, CORE_ALARM_HISTORY, 0, false); /* raised again by their SYNC */
	round_begin(c, now, same_ring ? c->round + 1 : 1);
}

static void dispatch(struct core *c, int64_t now, uint32_t from, struct msg *m, const uint8_t *data, size_t size)
{
	switch (m->type) {
	case MSG_SYNC:
		on_sync(c, now, from, m);
		break;
	case MSG_CLAIM:
		on_claim(c, now, from, m);
		break;
	case MSG_PROMISE:
		on_promise(c, now, from, m);
		break;
	case MSG_PROPOSE:
		propose_on_propose(c, from, m);
		break;
	case MSG_REFUSE:
		propose_on_refuse(c, m);
		break;
	case MSG_ENTRIES:
		log_on_entries(c, now, from, m, data, size);
		break;
	case MSG_ACK:
		log_on_ack(c, from, m);
		break;
	case MSG_NEED:
		sync_on_need(c, now, from, m);
		break;
	case MSG_SNAP_BEGIN:
	case MSG_SNAP_GET:
	case MSG_SNAP_DATA:
		sync_on_snapshot(c, now, from, m);
		break;
	case MSG_CHECK:
		sync_on_check(c, now, from, m);
		break;
	case MSG_TYPE_MAX:
		break;
	}
}

void core_deliver(struct core *c, int64_t now, uint32_t from, const uint8_t *data, size_t size)
{
	struct peer *p;
	struct msg m;

	if (!c->has_view || msg_decode(data, size, &m, NULL) < 0)
		return;
	if (m.type != MSG_SYNC && m.history && c->history && m.history != c->history)
		return;
	if (from != c->o.self && !alone_heard(c, now, from, &m))
		return;
	p = m.flags & (MSG_LEARNER | MSG_DIVERGED) ? peer_get(c, from) : NULL;
	if (p)
		p->doubted = false; /* it knows, and does not claim before it is repaired */
	dispatch(c, now, from, &m, data, size);
}

void core_direct(struct core *c, int64_t now, uint32_t from, const uint8_t *data, size_t size)
{
	struct msg m;

	if (msg_decode(data, size, &m, NULL) < 0 || m.type != MSG_ACK || from == c->o.self || m.history != c->history)
		return;
	/* One that comes late, or is sent again by a stranger who recorded it, is no sign that its member lives. */
	if (c->phase == PHASE_LEADING && m.epoch == c->epoch && alone_heard(c, now, from, &m))
		log_on_ack(c, from, &m);
}

void disk_works(struct core *c)
{
	c->failed = false;
	alarm_set(c, CORE_ALARM_DISK, 0, false);
}

void core_written(struct core *c, uint64_t serial)
{
	disk_works(c);
	while (c->durable < log_last(c)) {
		const struct entry *e = log_entry(c, c->durable + 1);

		if (e && (e->serial == 0 || e->serial > serial))
			break;
		c->durable++;
	}
	alone_written(c, serial);
	if (c->promise_due && c->promise_serial && serial >= c->promise_serial)
		promise_give(c);
}

void core_write_failed(struct core *c, int64_t now)
{
	bool first = !c->failed;

	c->failed = true;
	alarm_set(c, CORE_ALARM_DISK, 0, true);
	if (first && c->phase == PHASE_LEADING)
		round_begin(c, now, c->round + 1); /* somebody whose disk works should lead */
}

void core_tick(struct core *c, int64_t now)
{
	if (c->phase == PHASE_SYNCING && c->round_deadline && now >= c->round_deadline) {
		if (c->claimed || c->waiting_claim)
			round_begin(c, now, c->round + 1);
		else
			round_consider(c, now);
	}
	if (c->phase == PHASE_FOLLOWING && now >= c->heard_ns + CORE_SILENT_LIMIT)
		round_begin(c, now, c->round + 1);
	if (c->inflight_ns && now >= c->inflight_ns + CORE_ECHO_LIMIT)
		round_begin(c, now,
			    c->round + 1); /* the bus has lost something; a new epoch settles what became of it */
	if (c->phase == PHASE_LEADING && now >= c->heard_ns + CORE_BEAT_EVERY)
		log_beat(c, now);
	log_tick(c, now);
	propose_tick(c, now);
	sync_tick(c, now);
}

static void deadline_min(int64_t *d, int64_t at)
{
	if (at > 0 && at < *d)
		*d = at;
}

int64_t core_deadline(const struct core *c)
{
	int64_t d = INT64_MAX;
	const struct pending *p = TAILQ_FIRST(&c->unsent);

	if (c->phase == PHASE_SYNCING)
		deadline_min(&d, c->round_deadline);
	if (c->phase == PHASE_FOLLOWING)
		deadline_min(&d, c->heard_ns + CORE_SILENT_LIMIT);
	if (c->inflight_ns)
		deadline_min(&d, c->inflight_ns + CORE_ECHO_LIMIT);
	if (c->phase == PHASE_LEADING) {
		deadline_min(&d, c->heard_ns + CORE_BEAT_EVERY);
		deadline_min(&d, c->check_ns + c->o.check_every_ns);
		deadline_min(&d, c->commit_tell_ns);
	}
	deadline_min(&d, c->ack_again_ns);
	if (p && !c->synced)
		deadline_min(&d, p->since + CORE_UNSENT_LIMIT);
	if (c->need_ns)
		deadline_min(&d, c->need_ns + CORE_NEED_AGAIN);
	if (c->fetching && !c->fetch_installing)
		deadline_min(&d, c->fetch_ns + CORE_FETCH_LIMIT);
	if (c->snapshot_ready)
		deadline_min(&d, c->snapshot_ns + CORE_SNAPSHOT_KEPT);
	return d == INT64_MAX ? -1 : d;
}

void core_flush(struct core *c, int64_t now)
{
	alone_flush(c, now);
	propose_flush(c, now);
	log_flush(c, now);
	sync_check_flush(c);
	if (c->fresh_goal_ns && c->synced && c->applied >= c->fresh_goal) {
		c->fresh_ns = c->fresh_goal_ns;
		c->fresh_goal_ns = 0;
	}
}

/* ---- life ---- */

struct core *core_new(const struct core_options *o, const struct core_disk *disk)
{
	struct core *c = xcalloc(1, sizeof(*c));

	c->o = *o;
	if (c->o.check_every_ns == 0)
		c->o.check_every_ns = CORE_CHECK_EVERY;
	c->io = o->io;
	c->arg = o->arg;
	c->seq = c->seq_oldest = o->first_seq;
	c->pending = xcalloc(CORE_PENDING_MAX, sizeof(struct pending *));
	TAILQ_INIT(&c->unsent);
	STAILQ_INIT(&c->queue);
	STAILQ_INIT(&c->stash);
	c->promised = c->promised_before = disk->promised;
	c->promised_to = disk->promised_to;
	c->history = disk->history;
	c->learner = disk->learner;
	c->diverged = disk->diverged;
	c->alone = disk->alone;
	c->itself = 1;
	log_reset(c, disk);
	return c;
}

void core_free(struct core *c)
{
	if (!c)
		return;
	queue_clear(c);
	propose_free(c);
	sync_abort(c);
	log_free(c);
	free(c->buf.data);
	free(c);
}

bool core_writable(const struct core *c)
{
	return (c->phase == PHASE_LEADING || c->phase == PHASE_FOLLOWING) && c->synced && !c->failed;
}

static enum core_state state_of(const struct core *c)
{
	if (!c->has_view)
		return CORE_STARTING;
	if (c->phase == PHASE_IDLE)
		return CORE_NO_QUORUM;
	return c->synced && !c->failed && !c->diverged ? CORE_SYNCED : CORE_SYNCING;
}

const char *core_state_name(enum core_state state)
{
	static const char *const names[CORE_STATE_MAX] = {"starting", "no-quorum", "syncing", "synced"};

	return names[state];
}

void core_status(const struct core *c, struct core_status *ret)
{
	*ret = (struct core_status){.state = state_of(c),
				    .quorate = c->has_view && alone_quorate(c),
				    .leading = c->phase == PHASE_LEADING,
				    .leader = c->leader,
				    .epoch = c->epoch,
				    .promised = c->promised,
				    .applied = c->applied,
				    .applied_epoch = c->applied_epoch,
				    .last = log_last(c),
				    .commit = c->commit,
				    .history = c->history,
				    .expected = c->view.expected,
				    .needed = majority(c),
				    .lowest_version = lowest_version(c),
				    .fresh_ns = c->fresh_ns,
				    .fetching = c->fetching,
				    .fetched = c->fetch_written,
				    .fetch_size = c->fetch_size,
				    .pending = c->pending_n,
				    .alone = c->alone && !c->alone_due,
				    .may_alone = alone_may(c),
				    .whole = c->whole,
				    .by_itself = c->view.n == 1 && c->view.members[0] == c->o.self ? c->itself : 0};
}
