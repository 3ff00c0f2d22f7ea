/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated disk: steps take time, and a crash keeps what was synced and perhaps some more steps, in order. */
#include <stdlib.h>
#include <string.h>

#include "base/byteorder.h"
#include "base/mem.h"
#include "tests/sim/sim.h"

enum op_kind { OP_WRITE, OP_DATA, OP_INSTALL };

struct sim_op {
	struct sim_op *next;
	enum op_kind kind;
	struct core_write w; /* append and apply point to entries of our own */
	struct entry **entries;
	uint64_t upto;
};

/* ---- the log on a disk ---- */

static struct entry *disk_entry(const struct sim_disk *d, uint64_t index)
{
	return index >= d->first && index < d->first + d->n ? d->log[index - d->first] : NULL;
}

static void disk_append(struct sim_disk *d, struct entry *e)
{
	if (d->n == d->cap) {
		d->cap = d->cap ? d->cap * 2 : 64;
		d->log = realloc(d->log, d->cap * sizeof(struct entry *));
		if (!d->log)
			abort();
	}
	if (d->n == 0)
		d->first = e->index;
	if (e->index != d->first + d->n)
		sim_fail("entry %lu is written behind entry %lu", (unsigned long)e->index,
			 (unsigned long)(d->first + d->n - 1));
	d->log[d->n++] = entry_ref(e);
}

static void disk_cut(struct sim_disk *d, uint64_t from)
{
	if (from <= d->applied)
		sim_fail("entry %lu is cut off and was applied", (unsigned long)from);
	while (d->n && d->first + d->n > from)
		entry_unref(d->log[--d->n]);
}

static void disk_trim(struct sim_disk *d)
{
	size_t drop = 0;

	while (d->first + drop < d->applied && d->applied - d->first - drop > sim->retention)
		entry_unref(d->log[drop++]);
	if (drop == 0)
		return;
	memmove(d->log, d->log + drop, (d->n - drop) * sizeof(struct entry *));
	d->first += drop;
	d->n -= drop;
}

void sim_disk_copy(struct sim_disk *to, const struct sim_disk *from)
{
	*to = *from;
	to->log = xcalloc(from->n ? from->n : 1, sizeof(struct entry *));
	to->cap = from->n ? from->n : 1;
	for (size_t i = 0; i < from->n; i++)
		to->log[i] = entry_ref(from->log[i]);
}

void sim_disk_free(struct sim_disk *d)
{
	for (size_t i = 0; i < d->n; i++)
		entry_unref(d->log[i]);
	free(d->log);
	memset(d, 0, sizeof(*d));
}

/* An empty disk; with a history it is the first host's. */
void sim_disk_bootstrap(struct sim_node *n, uint64_t history)
{
	sim_disk_free(&n->disk);
	n->disk.first = 1;
	n->disk.history = history;
	n->disk.learner = history == 0;
}

/* What the core learns when it starts. Caller frees ret->tail. */
void sim_disk_load(struct sim_node *n, struct core_disk *ret)
{
	const struct sim_disk *d = &n->disk;

	*ret = (struct core_disk){.promised = d->promised,
				  .promised_to = d->promised_to,
				  .history = d->history,
				  .learner = d->learner,
				  .diverged = d->diverged,
				  .alone = d->alone,
				  .applied = d->applied,
				  .applied_epoch = d->applied_epoch,
				  .tail = xcalloc(d->n + 1, sizeof(struct entry *))};
	for (uint64_t i = d->applied + 1; i < d->first + d->n; i++) {
		struct entry *e = disk_entry(d, i), *copy = entry_new(e->kind, e->data, e->size);

		copy->epoch = e->epoch;
		copy->index = e->index;
		copy->node = e->node;
		copy->seq = e->seq;
		copy->version = e->version;
		ret->tail[ret->n++] = copy;
	}
}

/* ---- applying ---- */

static uint64_t mix(uint64_t a, uint64_t b)
{
	a ^= b + 0x9e3779b97f4a7c15ULL + (a << 6) + (a >> 2);
	return a * 0xff51afd7ed558ccdULL;
}

/* The machine: a hash over the commands, each applied once. The result is the state, so a wrong state shows in the
 * chain. */
static void disk_apply(struct sim_disk *d, const struct entry *e)
{
	if (e->kind == ENTRY_COMMAND) {
		uint32_t command = get_be32(e->data);

		if (!d->done[command]) {
			d->done[command] = (uint32_t)e->index;
			d->state = mix(d->state, command);
		}
	}
	d->chain = mix(mix(d->chain, e->epoch), mix(e->index, d->state));
	d->applied = e->index;
	d->applied_epoch = e->epoch;
}

static void disk_sync(struct sim_disk *d)
{
	d->synced.applied = d->applied;
	d->synced.applied_epoch = d->applied_epoch;
	d->synced.chain = d->chain;
	d->synced.state = d->state;
}

/* The power goes: writes that only apply are not synced (cluster/store.h). */
static void disk_unsync(struct sim_disk *d)
{
	for (size_t i = 0; i < sim->n_commands; i++)
		if (d->done[i] > d->synced.applied)
			d->done[i] = 0;
	d->applied = d->synced.applied;
	d->applied_epoch = d->synced.applied_epoch;
	d->chain = d->synced.chain;
	d->state = d->synced.state;
}

/* The mark of a member that goes on alone: never on both disks. */
static void alone_set(struct sim_node *n, bool alone)
{
	if (n->disk.alone == alone)
		return;
	n->disk.alone = alone;
	sim->alones += alone;
	sim_trace("node %u %s", n->id, alone ? "goes on alone" : "is one of two again");
	for (uint32_t id = 1; id <= sim->n_nodes; id++)
		if (alone && id != n->id && sim->nodes[id].disk.alone)
			sim_fail("node %u and node %u both go on alone", id, n->id);
}

static void op_write_done(struct sim_node *n, const struct core_write *w)
{
	struct sim_disk *d = &n->disk;

	if (w->meta) {
		if (w->promised < d->promised)
			sim_fail("node %u forgets its promise of %lu", n->id, (unsigned long)d->promised);
		d->promised = w->promised;
		d->promised_to = w->promised_to;
		d->history = w->history;
		d->learner = w->learner;
		d->diverged = w->diverged;
		alone_set(n, w->alone);
	}
	if (w->cut_from)
		disk_cut(d, w->cut_from);
	for (size_t i = 0; i < w->n_append; i++)
		disk_append(d, w->append[i]);
	for (size_t i = 0; i < w->n_apply; i++) {
		const struct entry *e = disk_entry(d, d->applied + 1);

		if (!e || e->epoch != w->apply[i]->epoch || e->index != w->apply[i]->index) {
			sim_fail("node %u applies entry %lu, which is not in its log", n->id,
				 (unsigned long)w->apply[i]->index);
			return;
		}
		disk_apply(d, e);
		sim_client_applied(n, e, d->chain);
	}
	if (w->meta || w->cut_from || w->n_append) {
		disk_sync(d);
		disk_trim(d);
	}
}

/* What becomes of a log is as in cluster/store-db.c, log_keep(). */
static void install_durable(struct sim_node *n)
{
	struct sim_disk *d = &n->disk, old = *d;
	uint64_t end = old.first + old.n - 1;
	const struct entry *same;

	d->log = NULL;
	sim_disk_copy(d, sim->snapshots[n->fetch]);
	same = disk_entry(&old, d->applied);
	if (old.diverged && end > n->lost_upto)
		n->lost_upto = end; /* a rotten state is a lost one, with what is behind it in the log */
	d->promised = old.promised;
	d->promised_to = old.promised_to;
	d->learner = old.learner || old.diverged || (d->applied < end && !same);
	d->diverged = false;
	d->alone = false;
	if (old.alone)
		sim_fail("node %u goes on alone and fetches a state", n->id);
	if (!old.diverged && same && same->epoch == d->applied_epoch)
		for (uint64_t i = d->applied + 1; i <= end; i++)
			disk_append(d, disk_entry(&old, i));
	disk_sync(d);
	for (size_t i = 0; i < old.n; i++)
		entry_unref(old.log[i]);
	free(old.log);
}

/* ---- steps ---- */

static void op_free(struct sim_op *op)
{
	for (size_t i = 0; i < op->w.n_append + op->w.n_apply; i++)
		entry_unref(op->entries[i]);
	free(op->entries);
	free(op);
}

static void op_pop(struct sim_node *n)
{
	struct sim_op *op = n->ops;

	n->ops = op->next;
	if (!n->ops)
		n->ops_tail = &n->ops;
	op_free(op);
}

static void told_written(struct sim_node *n, const struct core_write *w)
{
	for (size_t i = 0; i < w->n_apply; i++) {
		const struct entry *e = w->apply[i];
		void *user = core_applied(n->core, e);

		if (user)
			sim_client_acked(n, (size_t)(uintptr_t)user - 1, e->index);
		if (e->kind != ENTRY_COMMAND && i + 1 == w->n_apply) {
			uint8_t chain[32] = {0}, state[32] = {0};

			put_be64(chain, n->disk.chain);
			put_be64(state, n->disk.state);
			core_checked(n->core, e->index, chain, state);
		}
	}
	core_written(n->core, w->serial);
}

static void op_begin(const struct sim_node *n);

static void on_disk(struct sim_event *ev)
{
	struct sim_node *n = &sim->nodes[ev->node];
	struct sim_op *op = n->ops;
	struct core_disk disk;

	if (n->full_until > sim->now) {
		core_write_failed(n->core, sim->now);
		sim_at(200 * NS_PER_MS, on_disk, n, 0, 0, NULL);
		sim_after(n);
		return;
	}
	if (op->kind == OP_WRITE) {
		op_write_done(n, &op->w);
		told_written(n, &op->w);
	} else if (op->kind == OP_DATA) {
		core_fetch_written(n->core, sim->now, op->upto);
	} else {
		install_durable(n);
		sim_disk_load(n, &disk);
		sim_trace("node %u has installed a snapshot of %lu entries", n->id, (unsigned long)n->disk.applied);
		core_fetch_installed(n->core, sim->now, &disk);
		free(disk.tail);
	}
	op_pop(n);
	if (n->ops)
		op_begin(n);
	else
		n->disk_busy = false;
	sim_after(n);
}

/* The first step will be done after some time. To put a state in the place of another one takes longer than an
 * election now and then. */
static void op_begin(const struct sim_node *n)
{
	int64_t most = 2 * NS_PER_MS;

	if (n->ops->kind == OP_INSTALL && sim_chance(3000))
		most = 2 * NS_PER_S;
	else if (sim_chance(sim->slow_disks ? 1000 : 50))
		most = 800 * NS_PER_MS;
	sim_at(100000 + (int64_t)sim_below((uint64_t)most), on_disk, n, 0, 0, NULL);
}

static struct sim_op *op_push(struct sim_node *n, enum op_kind kind)
{
	struct sim_op *op = xcalloc(1, sizeof(*op));

	op->kind = kind;
	*n->ops_tail = op;
	n->ops_tail = &op->next;
	if (!n->disk_busy)
		op_begin(n);
	n->disk_busy = true;
	return op;
}

/* Of the steps that were under way some are on the disk, in order; nobody has been told. */
void sim_disk_crash(struct sim_node *n, bool power)
{
	bool kept = sim_chance(5000);

	if (power && sim_chance(7000)) {
		disk_unsync(&n->disk);
		kept = false;
	}
	while (n->ops) {
		if (kept && n->ops->kind == OP_WRITE && n->full_until <= sim->now)
			op_write_done(n, &n->ops->w);
		else
			kept = false;
		kept = kept && sim_chance(6000);
		op_pop(n);
	}
	n->disk_busy = false;
}

/* ---- the core's operations ---- */

static void io_send(void *arg, const void *data, size_t size)
{
	sim_bus_send(arg, data, size);
}

static bool io_send_to(void *arg, uint32_t node, const void *data, size_t size)
{
	return sim_bus_send_to(arg, node, data, size);
}

static void io_write(void *arg, const struct core_write *w)
{
	struct sim_op *op = op_push(arg, OP_WRITE);
	size_t n = w->n_append + w->n_apply;

	op->w = *w;
	op->entries = xcalloc(n ? n : 1, sizeof(struct entry *));
	for (size_t i = 0; i < n; i++)
		op->entries[i] = entry_ref(i < w->n_append ? w->append[i] : w->apply[i - w->n_append]);
	op->w.append = op->entries;
	op->w.apply = op->entries + w->n_append;
}

static size_t io_read(void *arg, uint64_t index, size_t bytes, struct entry **ret, size_t max)
{
	const struct sim_node *n = arg;
	size_t count = 0;

	if (max > 1 + bytes / 4096)
		max = 1 + sim_below(20); /* short answers are allowed, and make more rounds */
	for (struct entry *e; count < max && (e = disk_entry(&n->disk, index + count));)
		ret[count++] = entry_ref(e);
	return count;
}

static void on_snapshot_made(struct sim_event *ev)
{
	struct sim_node *n = &sim->nodes[ev->node];

	if (sim->n_snapshots == SIM_SNAPSHOTS_MAX) {
		core_snapshot_made(n->core, sim->now, false, 0, 0);
		sim_after(n);
		return;
	}
	n->snapshot = sim->n_snapshots++;
	n->snapshot_size = 8 + sim->snapshot_pad;
	sim->snapshots[n->snapshot] = xcalloc(1, sizeof(struct sim_disk));
	sim_disk_copy(sim->snapshots[n->snapshot], &n->disk);
	disk_cut(sim->snapshots[n->snapshot], n->disk.applied + 1);
	core_snapshot_made(n->core, sim->now, true, n->snapshot_size, n->disk.applied);
	sim_after(n);
}

static void io_snapshot_make(void *arg)
{
	sim_at((int64_t)sim_below(100 * NS_PER_MS), on_snapshot_made, arg, 0, 0, NULL);
}

static size_t io_snapshot_read(void *arg, uint64_t offset, void *buf, size_t size)
{
	const struct sim_node *n = arg;

	if (n->snapshot < 0 || offset + size > n->snapshot_size)
		return 0;
	memset(buf, 0, size);
	if (offset == 0)
		put_be64(buf, (uint64_t)n->snapshot);
	return size;
}

static void io_snapshot_drop(void *arg)
{
	((struct sim_node *)arg)->snapshot = -1;
}

static void io_fetch_begin(void *arg, uint64_t size)
{
	struct sim_node *n = arg;

	n->fetch_size = size;
	n->fetch_got = 0;
}

static void io_fetch_data(void *arg, uint64_t offset, const void *data, size_t size)
{
	struct sim_node *n = arg;

	if (offset != n->fetch_got)
		sim_fail("node %u gets a snapshot out of order", n->id);
	if (offset == 0)
		n->fetch = (int)get_be64(data);
	n->fetch_got += size;
	op_push(n, OP_DATA)->upto = n->fetch_got;
}

static void io_fetch_install(void *arg)
{
	struct sim_node *n = arg;

	if (n->fetch_got != n->fetch_size)
		sim_fail("node %u installs %lu of %lu bytes", n->id, (unsigned long)n->fetch_got,
			 (unsigned long)n->fetch_size);
	op_push(n, OP_INSTALL);
}

static void io_fetch_drop(void *arg)
{
	(void)arg;
}

static void io_refused(void *arg, void *user, enum core_refusal why, uint32_t version)
{
	(void)version;
	sim_client_refused(arg, (size_t)(uintptr_t)user - 1, why);
}

static void io_alarm(void *arg, enum core_alarm what, uint32_t node, bool on)
{
	struct sim_node *n = arg;

	sim_trace("node %u: alarm %d about node %u %s", n->id, what, node, on ? "begins" : "ends");
	n->alarms[what] = on;
	if (on && what == CORE_ALARM_DIGEST && !sim->corrupted)
		sim_fail("node %u reports that the state of node %u differs", n->id, node);
	if (on && what == CORE_ALARM_DIGEST)
		sim->digest_alarms++;
}

static unsigned io_hosts(void *arg)
{
	(void)arg;
	return sim->configured;
}

static int io_hosts_change(void *arg, const struct entry *e)
{
	(void)arg;
	(void)e;
	return 0; /* the simulated clusters grow without a command */
}

const struct core_io sim_io = {
	.send = io_send,
	.send_to = io_send_to,
	.write = io_write,
	.read = io_read,
	.snapshot_make = io_snapshot_make,
	.snapshot_read = io_snapshot_read,
	.snapshot_drop = io_snapshot_drop,
	.fetch_begin = io_fetch_begin,
	.fetch_data = io_fetch_data,
	.fetch_install = io_fetch_install,
	.fetch_drop = io_fetch_drop,
	.refused = io_refused,
	.alarm = io_alarm,
	.hosts = io_hosts,
	.hosts_change = io_hosts_change,
};
