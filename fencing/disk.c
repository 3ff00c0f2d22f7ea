/* SPDX-License-Identifier: Apache-2.0 */
/* Fencing by shared disks, the loop's side: what reports of the disks' threads prove, and what they are to write. */
#include "fencing/disk.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "fencing/disk-lane.h"

#define BEATS_OF_PROOF 2 /* see change_note() */

/* What we have seen in a slot of a disk. */
struct sight {
	bool seen;
	struct disk_beat beat;
	int64_t changed_ns; /* -1: it has been so since we looked first */
};

/* One disk. */
struct side {
	struct disk *disk;
	size_t index;
	struct disk_lane *lane;
	enum disk_link link;
	char why[ERR_TEXT_MAX];
	int64_t done_ns; /* the newest round without an error, or the beginning */
	struct sight sights[DISK_SLOTS];
};

/* What has happened in a slot since a request. */
struct change {
	bool based;
	struct disk_life life;
	uint64_t sequence;
	uint32_t node;
	unsigned beats; /* in this life */
};

struct disk_request {
	struct disk *disk; /* NULL: free */
	uint32_t node;
	struct disk_life life;
	uint64_t id;
	int64_t asked_ns;
	bool told; /* it is, or was, on a disk */
	struct change changes[DISK_PATHS_MAX][DISK_SLOTS];
	struct loop_timer *timer;
	disk_done_fn *fn;
	void *arg;
};

struct disk {
	struct loop *loop;
	const struct disk_handlers *handlers;
	void *arg;
	uint32_t node;
	int64_t token_ns;
	size_t n_sides;
	struct side sides[DISK_PATHS_MAX];
	struct loop_timer *look;
	struct disk_orders orders; /* what all threads have been told */
	uint64_t told[DISK_SLOTS]; /* requests for us in this life */
	size_t n_told;
	struct disk_request requests[DISK_SLOTS];
};

const char *disk_link_name(enum disk_link link)
{
	static const char *const names[] = {"opening", "working", "lost", "refused"};

	_Static_assert(ARRAY_SIZE(names) == DISK_LINK_MAX, "a name for each");
	return names[link];
}

const char *disk_result_name(enum disk_result r)
{
	static const char *const names[] = {"acknowledged", "rebooted", "moved", "timed out", "not told"};

	_Static_assert(ARRAY_SIZE(names) == DISK_RESULT_MAX, "a name for each");
	return names[r];
}

bool disk_result_is_proof(enum disk_result r)
{
	return r == DISK_ACKNOWLEDGED || r == DISK_REBOOTED;
}

int disk_boot_id(uint8_t ret[16], struct err *e)
{
	static const char path[] = "/proc/sys/kernel/random/boot_id";
	_free_ char *text = file_read(path, 64, NULL, e);
	size_t n = 0;

	if (!text)
		return -1;
	for (const char *p = text; *p && *p != '\n' && n < 16; p++) {
		if (*p == '-')
			continue;
		if (sscanf(p, "%2hhx", &ret[n]) != 1 || !*++p)
			break;
		n++;
	}
	return n == 16 ? 0 : err_set(e, ERR_PROTOCOL, "%s says \"%s\", which is no UUID", path, text);
}

static void orders_tell(struct disk *d)
{
	d->orders.n_pills = 0;
	for (size_t i = 0; i < DISK_SLOTS; i++) {
		const struct disk_request *r = &d->requests[i];

		if (r->disk)
			d->orders.pills[d->orders.n_pills++] =
				(struct disk_order){.to = r->node, .life = r->life, .request = r->id};
	}
	for (size_t i = 0; i < d->n_sides; i++)
		disk_lane_order(d->sides[i].lane, &d->orders);
}

/* ---- the link ---- */

static void link_set(struct side *s, enum disk_link link, const char *why)
{
	if (s->link == link && (link == DISK_LINK_WORKING || strcmp(s->why, why) == 0))
		return;
	s->link = link;
	snprintf(s->why, sizeof(s->why), "%s", why);
	s->disk->handlers->link(s->disk->arg, s->index, link, s->why);
}

/* The timer's: a thread that hangs tells nothing. */
static void look_at_silence(void *arg)
{
	struct disk *d = arg;

	for (size_t i = 0; i < d->n_sides; i++) {
		struct side *s = &d->sides[i];

		if (s->link != DISK_LINK_REFUSED && s->link != DISK_LINK_LOST &&
		    clock_now_ns() - s->done_ns > 2 * d->token_ns)
			link_set(s, DISK_LINK_LOST,
				 "the storage of the fencing disk does not answer: look at its path "
				 "and its target");
	}
}

static void link_judge(struct side *s, const struct disk_report *r)
{
	if (r->done) {
		s->done_ns = r->ended_ns;
		if (r->full)
			link_set(s, DISK_LINK_REFUSED,
				 "all slots of the fencing disk belong to other hosts: remove those from the cluster "
				 "that "
				 "are gone for good, or format the disk again");
		else if (r->slot >= 0)
			link_set(s, DISK_LINK_WORKING, "");
	} else {
		link_set(s, r->err.code == ERR_SYSTEM ? DISK_LINK_LOST : DISK_LINK_REFUSED, r->err.text);
	}
}

/* ---- the victim ---- */

/* New requests may be acknowledged at once when all guests are dead already. A host that was told more often than there
 * are slots has been told by senders that came and went: the oldest of them waits no more. */
static void told_add(struct disk *d, uint64_t request)
{
	if (d->n_told == DISK_SLOTS)
		memmove(d->told, d->told + 1, --d->n_told * sizeof(*d->told));
	d->told[d->n_told++] = request;
}

static bool told_has(const struct disk *d, uint64_t request)
{
	for (size_t i = 0; i < d->n_told; i++)
		if (d->told[i] == request)
			return true;
	return false;
}

static void acks_set(struct disk *d)
{
	if (d->orders.state == DISK_STATE_DEAD) {
		memcpy(d->orders.acks, d->told, sizeof(d->told));
		d->orders.n_acks = d->n_told;
	}
	orders_tell(d);
}

/* A pill is for this host in this life, or void. */
static void pills_take(struct disk *d, const struct disk_report *r)
{
	const struct disk_pill *first = NULL;
	bool any = false;

	for (unsigned i = 0; i < DISK_SLOTS; i++) {
		const struct disk_pill *p = &r->pills[i];

		if (!r->pills_good[i] || p->to != d->node || !disk_life_equal(&p->life, &d->orders.life) ||
		    told_has(d, p->request))
			continue;
		told_add(d, p->request);
		any = true;
		first = first ? first : p;
	}
	if (!any)
		return;
	if (d->orders.state != DISK_STATE_UP) {
		acks_set(d);
		return;
	}
	d->orders.state = DISK_STATE_DYING;
	acks_set(d);
	d->handlers->pill(d->arg, first->request, first->from, first->name);
}

bool disk_ack(struct disk *d, uint64_t request)
{
	if (!told_has(d, request))
		return false;
	d->orders.state = DISK_STATE_DEAD;
	acks_set(d);
	return true;
}

void disk_renew(struct disk *d, uint64_t incarnation)
{
	assert(incarnation != d->orders.life.incarnation);
	d->orders.life.incarnation = incarnation;
	d->orders.state = DISK_STATE_UP;
	d->orders.n_acks = 0;
	d->n_told = 0;
	orders_tell(d);
}

/* ---- the others ---- */

static void sights_note(struct side *s, const struct disk_report *r)
{
	for (unsigned i = 0; i < DISK_SLOTS; i++) {
		const struct disk_beat *b = &r->beats[i];
		struct sight *k = &s->sights[i];
		bool same = k->seen && k->beat.node == b->node && k->beat.sequence == b->sequence &&
			    disk_life_equal(&k->beat.life, &b->life);

		if (!r->beats_good[i] || same)
			continue;
		k->changed_ns = k->seen ? r->began_ns : -1;
		k->beat = *b;
		k->seen = true;
	}
}

bool disk_peer(const struct disk *d, uint32_t node, struct disk_peer *ret)
{
	const struct sight *best = NULL;

	for (size_t i = 0; i < d->n_sides * DISK_SLOTS; i++) {
		const struct sight *k = &d->sides[i / DISK_SLOTS].sights[i % DISK_SLOTS];

		if (k->seen && k->beat.node == node && k->changed_ns >= 0 &&
		    (!best || k->changed_ns > best->changed_ns))
			best = k;
	}
	if (!best)
		return false;
	*ret = (struct disk_peer){.age_ns = clock_now_ns() - best->changed_ns,
				  .wall_ms = best->beat.wall_ms,
				  .state = best->beat.state,
				  .life = best->beat.life};
	memcpy(ret->name, best->beat.name, sizeof(ret->name));
	return true;
}

/* ---- requests ---- */

void disk_pill_cancel(struct disk_request *r)
{
	struct disk *d = r->disk;

	loop_timer_free(r->timer);
	memset(r, 0, sizeof(*r));
	orders_tell(d);
}

static void request_end(struct disk_request *r, enum disk_result result, const char *why)
{
	struct disk_request copy = *r;

	disk_pill_cancel(r);
	log_info("event=disk-pill-end node=%u request=%016" PRIx64 " result=\"%s\"", copy.node, copy.id,
		 disk_result_name(result));
	copy.fn(copy.arg, result, why);
}

static void on_deadline(void *arg)
{
	struct disk_request *r = arg;

	if (r->told)
		request_end(r, DISK_TIMED_OUT,
			    "the host was told on a shared disk to die, and has not answered in time");
	else
		request_end(r, DISK_NOT_TOLD,
			    "the host could not be told to die: no shared disk works here, or the host has "
			    "no slot on those that do");
}

/* Look at a slot for beats that were written after the request: it takes a read that began after it to know what was
 * there before. Two beats of one life, because a single one may be a write of long ago that was delayed on its way: a
 * host has never more than one write to its slot under way. */
static void change_note(struct change *c, const struct disk_beat *b)
{
	bool same_life = c->node == b->node && disk_life_equal(&c->life, &b->life);

	if (c->based && same_life && c->sequence == b->sequence)
		return;
	if (c->based)
		c->beats = same_life ? c->beats + 1 : 1;
	*c = (struct change){
		.based = true, .life = b->life, .sequence = b->sequence, .node = b->node, .beats = c->beats};
}

/* What a report of one disk proves for a request. */
static void request_judge(struct disk_request *r, const struct side *s, const struct disk_report *p)
{
	for (unsigned i = 0; i < DISK_SLOTS; i++) {
		const struct disk_beat *b = &p->beats[i];
		struct change *c = &r->changes[s->index][i];

		if (p->written[i] == r->id)
			r->told = true;
		if (!p->beats_good[i])
			continue;
		if (p->slot >= 0 && b->node == r->node && disk_life_equal(&b->life, &r->life) &&
		    b->acks[p->slot] == r->id) {
			request_end(r, DISK_ACKNOWLEDGED,
				    "the host has read on a shared disk that it is to die, and says "
				    "that its guests are dead");
			return;
		}
		if (p->began_ns < r->asked_ns)
			continue;
		change_note(c, b);
		if (c->node != r->node || c->beats < BEATS_OF_PROOF || disk_life_equal(&c->life, &r->life))
			continue;
		if (memcmp(c->life.boot, r->life.boot, sizeof(c->life.boot)) != 0)
			request_end(r, DISK_REBOOTED, "the host has started anew: its guests ended with its last boot");
		else
			request_end(r, DISK_MOVED,
				    "the host's daemon has begun a new incarnation without a reboot: ask for that "
				    "one, if the host is still away");
		return;
	}
}

/* The callback of one that ends may end others and begin new ones. */
static void requests_judge(struct side *s, const struct disk_report *p)
{
	for (size_t i = 0; i < DISK_SLOTS; i++)
		if (s->disk->requests[i].disk)
			request_judge(&s->disk->requests[i], s, p);
}

struct disk_request *disk_pill(struct disk *d, uint32_t node, const struct disk_life *life, int64_t within_ns,
			       disk_done_fn *fn, void *arg, struct err *e)
{
	struct disk_request *r = NULL;

	if (node == d->node) {
		err_set(e, ERR_INPUT, "a host does not tell itself to die");
		return NULL;
	}
	for (size_t i = 0; i < DISK_SLOTS; i++) {
		if (!d->requests[i].disk) {
			r = &d->requests[i];
		} else if (d->requests[i].node == node) {
			err_set(e, ERR_CONFLICT,
				"node %u is being told to die by the shared disk already: wait for that", node);
			return NULL;
		}
	}
	if (!r) {
		err_set(e, ERR_CONFLICT, "%u hosts are being told to die: wait for one of them", DISK_SLOTS);
		return NULL;
	}
	*r = (struct disk_request){
		.disk = d, .node = node, .life = *life, .fn = fn, .arg = arg, .asked_ns = clock_now_ns()};
	do
		if (getrandom(&r->id, sizeof(r->id), 0) != sizeof(r->id))
			abort();
	while (r->id == 0);
	r->timer = loop_timer_add(d->loop, within_ns, 0, on_deadline, r);
	log_info("event=disk-pill node=%u request=%016" PRIx64, node, r->id);
	orders_tell(d);
	return r;
}

/* ---- all of it ---- */

static void on_report(void *arg)
{
	struct side *s = arg;
	_free_ struct disk_report *r = xcalloc(1, sizeof(*r));

	if (!disk_lane_take(s->lane, r))
		return;
	link_judge(s, r);
	if (!r->read)
		return;
	sights_note(s, r);
	pills_take(s->disk, r);
	requests_judge(s, r);
}

void disk_members(struct disk *d, const uint32_t *nodes, size_t n)
{
	assert(n <= DISK_SLOTS);
	memcpy(d->orders.members, nodes, n * sizeof(*nodes));
	d->orders.n_members = n;
	orders_tell(d);
}

struct disk *disk_open(struct loop *l, const struct disk_config *c, const struct disk_handlers *h, void *arg)
{
	struct disk *d = xcalloc(1, sizeof(*d));
	struct disk_lane_config lane = {.cluster = c->cluster,
					.name = c->name,
					.node = c->node,
					.token_ms = c->token_ms,
					.poll_ns = c->token_ms * NS_PER_MS / 2,
					.sys = c->sys ? c->sys : &disk_sys_real};

	assert(c->n_paths >= 1 && c->n_paths <= DISK_PATHS_MAX && c->node > 0 && c->token_ms > 0);
	d->loop = l;
	d->handlers = h;
	d->arg = arg;
	d->node = c->node;
	d->token_ns = c->token_ms * NS_PER_MS;
	d->orders.life = c->life;
	d->orders.state = DISK_STATE_UP;
	d->n_sides = c->n_paths;
	for (size_t i = 0; i < d->n_sides; i++) {
		struct side *s = &d->sides[i];

		lane.path = c->paths[i];
		*s = (struct side){.disk = d, .index = i, .done_ns = clock_now_ns()};
		s->lane = disk_lane_new(l, &lane, &d->orders, on_report, s);
	}
	d->look = loop_timer_add(l, d->token_ns / 2, d->token_ns / 2, look_at_silence, d);
	return d;
}

void disk_close(struct disk *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < DISK_SLOTS; i++)
		loop_timer_free(d->requests[i].timer);
	loop_timer_free(d->look);
	for (size_t i = 0; i < d->n_sides; i++)
		disk_lane_free(d->sides[i].lane);
	free(d);
}
