/* SPDX-License-Identifier: Apache-2.0 */
/* The thread of one fencing disk.
 *
 * A round is: read the header and all slots in one go, and refuse to write if the disk is not the one that was opened;
 * read the messages for our slot; write our slot; write or withdraw our messages where the orders have changed. Rounds
 * begin every P, every P/4 while a message of ours waits for its answer, and at once when there are new orders. Any
 * error closes the disk; it is opened anew at the next round, because a LUN that was lost comes back under the same
 * path, but not always behind the same descriptor.
 *
 * Slots. Ids of hosts are never given twice, so that they outgrow the slots: a host looks for its id, and takes a slot
 * if it has none, that of its id modulo the number of slots first. An untouched slot is taken at once. One that cannot
 * be read (a torn beat of a living host?) or belongs to a host that is no member any more must stay like that for 2 P.
 * Two hosts may take one slot at once: each waits for 2 P behind its first beat, and has the slot only if it still
 * finds itself there; and whoever finds another host in its slot later starts again. A mistake here costs time and
 * nothing else, because beats and messages name hosts, not slots. */
#include "fencing/disk-lane.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define FREE_WAIT_NS (200 * NS_PER_MS)

struct disk_lane {
	/* constant */
	char *path, *cluster, *name;
	uint32_t node, token_ms;
	int64_t poll_ns;
	const struct disk_sys *sys;
	int event_fd;
	pthread_t thread;

	/* the loop's */
	struct loop_io *io;
	loop_fn *fn;
	void *arg;

	/* under the lock */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct disk_orders orders;
	bool kicked, stopping, orphan;
	bool ended; /* the thread is about to end */
	struct disk_report *report;

	/* the thread's */
	struct disk_io disk;
	uint8_t *area, *row, *sector; /* header and slots; messages for us; what is to be written */
	int slot;                     /* ours; -1: none */
	int candidate;                /* a slot that we would like or have just written to; -1: none */
	bool claimed;                 /* we have written to it */
	int64_t candidate_ns;         /* since when */
	uint64_t sequence;
	uint64_t written[DISK_SLOTS]; /* as in the report */
};

static void lane_destroy(struct disk_lane *l)
{
	disk_io_close(&l->disk);
	close(l->event_fd);
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->wake);
	free(l->report);
	free(l->path);
	free(l->cluster);
	free(l->name);
	free(l->area);
	free(l->row);
	free(l->sector);
	free(l);
}

/* ---- slots (thread) ---- */

static bool id_is_member(const struct disk_orders *o, uint32_t node)
{
	for (size_t i = 0; i < o->n_members; i++)
		if (o->members[i] == node)
			return true;
	return o->n_members == 0;
}

static void slot_forget(struct disk_lane *l)
{
	l->slot = l->candidate = -1;
	l->claimed = false;
	memset(l->written, 0, sizeof(l->written));
}

/* Take over the slot @i, in which our beat is. Messages that an earlier daemon of this host has sent are withdrawn by
 * the caller: nobody waits for their answers any more. */
static void slot_own(struct disk_lane *l, const struct disk_report *r, int i)
{
	slot_forget(l);
	l->slot = i;
	l->sequence = r->beats[i].sequence;
}

/* Is the slot @i to be had: 2 at once, 1 if it stays like this, 0 not. */
static int slot_free(const struct disk_lane *l, const struct disk_orders *o, const struct disk_report *r, unsigned i)
{
	const uint8_t *data = l->area + (size_t)disk_beat_sector(i) * r->header.sector_size;

	if (r->beats_good[i])
		return !id_is_member(o, r->beats[i].node);
	return data[0] == 0 && memcmp(data, data + 1, r->header.sector_size - 1) == 0 ? 2 : 1;
}

/* Choose a slot. True: write to l->candidate now. */
static bool slot_choose(struct disk_lane *l, const struct disk_orders *o, const struct disk_report *r)
{
	for (unsigned i = 0; i < DISK_SLOTS; i++) {
		int slot = (int)((l->node - 1 + i) % DISK_SLOTS);
		int how = slot_free(l, o, r, slot);

		if (how == 0)
			continue;
		if (slot != l->candidate) {
			l->candidate = slot;
			l->candidate_ns = r->began_ns;
		}
		return how == 2 || r->began_ns - l->candidate_ns >= 2 * l->poll_ns;
	}
	l->candidate = -1;
	return false;
}

static int find_self(const struct disk_lane *l, const struct disk_report *r)
{
	for (unsigned i = 0; i < DISK_SLOTS; i++)
		if (r->beats_good[i] && r->beats[i].node == l->node)
			return (int)i;
	return -1;
}

/* Where our beat goes in this round: our slot, one that we claim, -1: nowhere. @ret_new: we have just got the slot. */
static int slot_decide(struct disk_lane *l, const struct disk_orders *o, const struct disk_report *r, bool *ret_new)
{
	int here = find_self(l, r);

	*ret_new = false;
	if (l->slot >= 0 && r->beats_good[l->slot] && r->beats[l->slot].node != l->node)
		slot_forget(l);
	if (l->slot >= 0)
		return l->slot;
	if (l->claimed && here == l->candidate && r->began_ns - l->candidate_ns < 2 * l->poll_ns)
		return -1;
	if (here >= 0) {
		slot_own(l, r, here);
		*ret_new = true;
		return here;
	}
	if (l->claimed)
		slot_forget(l); /* somebody else was there, too */
	if (!slot_choose(l, o, r))
		return -1;
	l->claimed = true;
	l->candidate_ns = r->began_ns;
	return l->candidate;
}

/* ---- a round (thread) ---- */

/* Write l->sector there. Not any more when the loop has let go of us while the storage hung: the daemon may have opened
 * the disk again by now, in another life. */
static int sector_write(struct disk_lane *l, uint32_t sector, uint32_t size, struct err *e)
{
	bool stopping;

	pthread_mutex_lock(&l->lock);
	stopping = l->stopping;
	pthread_mutex_unlock(&l->lock);
	if (stopping)
		return err_set(e, ERR_CANCELLED, "the fencing disk %s was closed", l->path);
	return disk_io_write(&l->disk, (uint64_t)sector * size, l->sector, size, e);
}

static void beats_decode(const struct disk_lane *l, struct disk_report *r)
{
	for (unsigned i = 0; i < DISK_SLOTS; i++) {
		uint32_t sector = disk_beat_sector(i);
		const uint8_t *data = l->area + (size_t)sector * r->header.sector_size;

		r->beats_good[i] = disk_beat_decode(&r->header, sector, data, &r->beats[i], NULL) == 1;
	}
}

/* The header and the slots. */
static int round_read(struct disk_lane *l, struct disk_report *r, struct err *e)
{
	uint32_t size = l->disk.header.sector_size;
	struct disk_header h;

	if (disk_io_read(&l->disk, 0, l->area, (size_t)(1 + DISK_SLOTS) * size, e) < 0)
		return -1;
	if (disk_header_decode(l->area, (size_t)(1 + DISK_SLOTS) * size, &h, NULL) != 1 ||
	    memcmp(h.id, l->disk.header.id, sizeof(h.id)) != 0)
		return err_set(e, ERR_CONFLICT,
			       "somebody has overwritten the fencing disk %s: look who uses it, then format "
			       "it again",
			       l->path);
	r->header = l->disk.header;
	beats_decode(l, r);
	return 0;
}

static int row_read(struct disk_lane *l, struct disk_report *r, struct err *e)
{
	uint32_t size = r->header.sector_size, first = disk_pill_sector(l->slot, 0);

	if (disk_io_read(&l->disk, (uint64_t)first * size, l->row, (size_t)DISK_SLOTS * size, e) < 0)
		return -1;
	for (unsigned i = 0; i < DISK_SLOTS; i++)
		r->pills_good[i] =
			disk_pill_decode(&r->header, first + i, l->row + (size_t)i * size, &r->pills[i], NULL) == 1;
	return 0;
}

/* The acknowledgement that goes to the slot @from: of the message that is there now, if its request may be
 * acknowledged. */
static uint64_t ack_for(const struct disk_orders *o, const struct disk_report *r, unsigned from)
{
	if (!r->pills_good[from])
		return 0;
	for (size_t i = 0; i < o->n_acks; i++)
		if (o->acks[i] == r->pills[from].request)
			return o->acks[i];
	return 0;
}

static int beat_write(struct disk_lane *l, const struct disk_orders *o, const struct disk_report *r, int slot,
		      struct err *e)
{
	uint32_t sector = disk_beat_sector(slot), size = r->header.sector_size;
	struct disk_beat b = {.node = l->node,
			      .life = o->life,
			      .sequence = ++l->sequence,
			      .wall_ms = clock_wall_ms(),
			      .state = o->state};

	memcpy(b.name, l->name, strnlen(l->name, DISK_TEXT - 1));
	for (unsigned i = 0; i < DISK_SLOTS; i++)
		b.acks[i] = ack_for(o, r, i);
	disk_beat_encode(&r->header, sector, &b, l->sector);
	return sector_write(l, sector, size, e);
}

/* What we have to say to the host in the slot @slot. */
static const struct disk_order *order_for(const struct disk_orders *o, const struct disk_report *r, unsigned slot)
{
	for (size_t i = 0; i < o->n_pills; i++)
		if (r->beats_good[slot] && r->beats[slot].node == o->pills[i].to)
			return &o->pills[i];
	return NULL;
}

/* Write the message for the host in the slot @to, or none (@p NULL). */
static int pill_write(struct disk_lane *l, const struct disk_report *r, unsigned to, const struct disk_order *p,
		      struct err *e)
{
	uint32_t sector = disk_pill_sector(to, l->slot), size = r->header.sector_size;
	struct disk_pill pill = {.from = l->node, .wall_ms = clock_wall_ms()};

	memset(l->sector, 0, size);
	if (p) {
		pill.to = p->to;
		pill.life = p->life;
		pill.request = p->request;
		memcpy(pill.name, l->name, strnlen(l->name, DISK_TEXT - 1));
		disk_pill_encode(&r->header, sector, &pill, l->sector);
	}
	if (sector_write(l, sector, size, e) < 0)
		return -1;
	l->written[to] = p ? p->request : 0;
	return 0;
}

/* @all: whatever is there, because another daemon may have written it. */
static int pills_write(struct disk_lane *l, const struct disk_orders *o, const struct disk_report *r, bool all,
		       struct err *e)
{
	for (unsigned i = 0; i < DISK_SLOTS; i++) {
		const struct disk_order *p = order_for(o, r, i);

		if ((all || l->written[i] != (p ? p->request : 0)) && pill_write(l, r, i, p, e) < 0)
			return -1;
	}
	return 0;
}

static int lane_open(struct disk_lane *l, struct err *e)
{
	if (l->disk.fd >= 0)
		return 0;
	slot_forget(l);
	if (disk_io_open(&l->disk, l->sys, l->path, O_RDWR, e) < 0 || disk_io_header(&l->disk, e) < 0)
		return -1;
	return disk_header_fits(&l->disk.header, l->path, l->cluster, l->token_ms, e);
}

static int lane_round(struct disk_lane *l, const struct disk_orders *o, struct disk_report *r, struct err *e)
{
	bool got;
	int to;

	if (lane_open(l, e) < 0 || round_read(l, r, e) < 0)
		return -1;
	to = slot_decide(l, o, r, &got);
	if (l->slot >= 0 && row_read(l, r, e) < 0)
		return -1;
	r->read = true;
	r->slot = l->slot;
	r->full = l->slot < 0 && l->candidate < 0;
	if (to >= 0 && beat_write(l, o, r, to, e) < 0)
		return -1;
	if (l->slot >= 0 && pills_write(l, o, r, got, e) < 0)
		return -1;
	return 0;
}

/* ---- the thread ---- */

/* Wait for the time of the next round, or an order. False: end. */
static bool lane_wait(struct disk_lane *l, int64_t until_ns, struct disk_orders *ret)
{
	struct timespec t = {.tv_sec = until_ns / NS_PER_S, .tv_nsec = until_ns % NS_PER_S};
	int r = 0;
	bool on;

	pthread_mutex_lock(&l->lock);
	while (!l->stopping && !l->kicked && r == 0)
		r = pthread_cond_timedwait(&l->wake, &l->lock, &t);
	l->kicked = false;
	*ret = l->orders;
	on = !l->stopping;
	pthread_mutex_unlock(&l->lock);
	return on;
}

static void lane_tell(struct disk_lane *l, struct disk_report *r)
{
	uint64_t one = 1;

	pthread_mutex_lock(&l->lock);
	free(l->report);
	l->report = r;
	pthread_mutex_unlock(&l->lock);
	if (write(l->event_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		abort();
}

static void *lane_main(void *arg)
{
	struct disk_lane *l = arg;
	int64_t next_ns = clock_now_ns();
	struct disk_orders o;
	bool orphan;

	while (lane_wait(l, next_ns, &o)) {
		struct disk_report *r = xcalloc(1, sizeof(*r));

		r->slot = -1;
		r->began_ns = clock_now_ns();
		r->done = lane_round(l, &o, r, &r->err) == 0;
		if (!r->done)
			disk_io_close(&l->disk);
		r->ended_ns = clock_now_ns();
		memcpy(r->written, l->written, sizeof(r->written));
		next_ns = r->began_ns + (o.n_pills ? l->poll_ns / 4 : l->poll_ns);
		lane_tell(l, r);
	}
	pthread_mutex_lock(&l->lock);
	orphan = l->orphan;
	l->ended = true;
	pthread_cond_broadcast(&l->wake);
	pthread_mutex_unlock(&l->lock);
	if (orphan)
		lane_destroy(l);
	return NULL;
}

/* ---- the loop's side ---- */

static void on_event(void *arg, unsigned ready)
{
	struct disk_lane *l = arg;
	uint64_t n;

	(void)ready;
	if (read(l->event_fd, &n, sizeof(n)) == sizeof(n))
		l->fn(l->arg);
}

/* With all signals blocked: they are the loop's. */
static void thread_start(struct disk_lane *l)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&l->thread, NULL, lane_main, l) != 0)
		abort();
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

struct disk_lane *disk_lane_new(struct loop *loop, const struct disk_lane_config *c, const struct disk_orders *o,
				loop_fn *fn, void *arg)
{
	struct disk_lane *l = xcalloc(1, sizeof(*l));
	pthread_condattr_t monotonic;

	l->path = xstrdup(c->path);
	l->cluster = xstrdup(c->cluster);
	l->name = xstrdup(c->name);
	l->node = c->node;
	l->token_ms = c->token_ms;
	l->poll_ns = c->poll_ns;
	l->sys = c->sys;
	l->orders = *o;
	l->fn = fn;
	l->arg = arg;
	l->disk = DISK_IO_INIT;
	l->area = disk_io_buffer((size_t)(1 + DISK_SLOTS) * DISK_SECTOR_MAX);
	l->row = disk_io_buffer((size_t)DISK_SLOTS * DISK_SECTOR_MAX);
	l->sector = disk_io_buffer(DISK_SECTOR_MAX);
	slot_forget(l);
	l->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->event_fd < 0)
		abort();
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	l->io = loop_io_add(loop, l->event_fd, LOOP_READ, on_event, l);
	thread_start(l);
	return l;
}

void disk_lane_free(struct disk_lane *l)
{
	int64_t until_ns = clock_now_ns() + FREE_WAIT_NS;
	struct timespec t = {.tv_sec = until_ns / NS_PER_S, .tv_nsec = until_ns % NS_PER_S};
	bool ended;
	int r = 0;

	if (!l)
		return;
	loop_io_free(l->io);
	pthread_mutex_lock(&l->lock);
	l->stopping = true;
	pthread_cond_broadcast(&l->wake);
	while (!l->ended && r == 0)
		r = pthread_cond_timedwait(&l->wake, &l->lock, &t);
	ended = l->ended;
	l->orphan = !ended;
	if (!ended)
		pthread_detach(l->thread); /* it may be gone as soon as it gets the lock */
	pthread_mutex_unlock(&l->lock);
	if (!ended)
		return;
	pthread_join(l->thread, NULL);
	lane_destroy(l);
}

void disk_lane_order(struct disk_lane *l, const struct disk_orders *o)
{
	pthread_mutex_lock(&l->lock);
	l->orders = *o;
	l->kicked = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
}

bool disk_lane_take(struct disk_lane *l, struct disk_report *ret)
{
	struct disk_report *r;

	pthread_mutex_lock(&l->lock);
	r = steal_ptr(l->report);
	pthread_mutex_unlock(&l->lock);
	if (!r)
		return false;
	*ret = *r;
	free(r);
	return true;
}
