/* SPDX-License-Identifier: Apache-2.0 */
/* The world of one member of the protocol's core. */
#include "tests/unit/cluster/core-world.h"

const struct core_disk fresh_disk = {.history = HISTORY};

static void io_send(void *arg, const void *data, size_t size)
{
	struct member *x = arg;
	struct sent *s = &x->sent[x->n_sent++];

	assert_true(x->n_sent <= SENT_MAX);
	s->data = xcalloc(1, size);
	s->size = size;
	memcpy(s->data, data, size);
	assert_int_equal(msg_decode(s->data, size, &s->m, NULL), 0);
}

static bool io_send_to(void *arg, uint32_t node, const void *data, size_t size)
{
	struct member *x = arg;

	if (!x->has_direct)
		return false;
	x->direct_to = node;
	assert_int_equal(msg_decode(data, size, &x->direct, NULL), 0);
	return true;
}

static void io_write(void *arg, const struct core_write *w)
{
	struct member *x = arg;

	x->serial = w->serial;
	x->written = *w;
	for (size_t i = 0; i < w->n_apply; i++)
		x->apply[x->n_apply++] = entry_ref(w->apply[i]);
}

static size_t io_read(void *arg, uint64_t index, size_t bytes, struct entry **ret, size_t max)
{
	(void)arg;
	(void)index;
	(void)bytes;
	(void)ret;
	(void)max;
	return 0; /* the log goes back no further than what is applied */
}

static void io_nothing(void *arg)
{
	(void)arg;
}

static size_t io_snapshot_read(void *arg, uint64_t offset, void *buf, size_t size)
{
	(void)arg;
	(void)offset;
	memset(buf, 0, size);
	return size;
}

static void io_snapshot_drop(void *arg)
{
	((struct member *)arg)->snapshot_drops++;
}

static void io_fetch_begin(void *arg, uint64_t size)
{
	(void)size;
	((struct member *)arg)->fetches++;
}

static void io_fetch_data(void *arg, uint64_t offset, const void *data, size_t size)
{
	(void)arg;
	(void)offset;
	(void)data;
	(void)size;
}

static void io_refused(void *arg, void *user, enum core_refusal why, uint32_t version)
{
	struct member *x = arg;

	(void)user;
	(void)version;
	x->refused++;
	x->why = why;
}

static void io_alarm(void *arg, enum core_alarm what, uint32_t node, bool on)
{
	(void)node;
	((struct member *)arg)->alarms[what] = on;
}

static unsigned io_hosts(void *arg)
{
	return ((struct member *)arg)->hosts;
}

static int io_hosts_change(void *arg, const struct entry *e)
{
	return e->kind == ENTRY_COMMAND ? ((struct member *)arg)->hosts_change : 0;
}

static const struct core_io io = {.hosts = io_hosts,
				  .hosts_change = io_hosts_change,
				  .send = io_send,
				  .send_to = io_send_to,
				  .write = io_write,
				  .read = io_read,
				  .snapshot_make = io_nothing,
				  .snapshot_read = io_snapshot_read,
				  .snapshot_drop = io_snapshot_drop,
				  .fetch_begin = io_fetch_begin,
				  .fetch_data = io_fetch_data,
				  .fetch_install = io_nothing,
				  .fetch_drop = io_nothing,
				  .refused = io_refused,
				  .alarm = io_alarm};

void member_begin(struct member *x, const struct core_disk *disk)
{
	struct core_options o = {.self = SELF, .version = 3, .first_seq = 1000, .io = &io, .arg = x};

	memset(x, 0, sizeof(*x));
	x->now = NS_PER_S;
	x->hosts = 2;
	x->core = core_new(&o, disk);
}

void member_forget_sent(struct member *x)
{
	while (x->n_sent)
		free(x->sent[--x->n_sent].data);
}

void member_end(struct member *x)
{
	member_forget_sent(x);
	for (size_t i = 0; i < x->n_apply; i++)
		entry_unref(x->apply[i]);
	core_free(x->core);
}

void member_flush(struct member *x)
{
	core_flush(x->core, x->now);
}

void member_disk_done(struct member *x)
{
	for (size_t i = 0; i < x->n_apply; i++) {
		core_applied(x->core, x->apply[i]);
		entry_unref(x->apply[i]);
	}
	x->n_apply = 0;
	core_written(x->core, x->serial);
	member_flush(x);
}

const struct msg *member_said(const struct member *x, enum msg_type type)
{
	for (size_t i = x->n_sent; i > 0; i--)
		if (x->sent[i - 1].m.type == type)
			return &x->sent[i - 1].m;
	return NULL;
}

void member_echo(struct member *x)
{
	struct sent copy[SENT_MAX];
	size_t n = x->n_sent;

	memcpy(copy, x->sent, sizeof(copy));
	x->n_sent = 0;
	for (size_t i = 0; i < n; i++) {
		core_deliver(x->core, x->now, SELF, copy[i].data, copy[i].size);
		free(copy[i].data);
	}
	member_flush(x);
}

void member_view(struct member *x, uint64_t seq, size_t present, unsigned expected)
{
	struct bus_view v = {.ring = {1, seq}, .n = present, .expected = expected, .needed = expected / 2 + 1};

	for (size_t i = 0; i < present; i++)
		v.members[i] = present == 1 ? SELF : (uint32_t)i + 1;
	v.quorate = present >= v.needed;
	core_view(x->core, x->now, &v);
	member_flush(x);
}

void member_hear(struct member *x, uint32_t from, struct msg m, const struct entry *e)
{
	struct msg_buf b = {0};

	if (!m.history)
		m.history = HISTORY;
	msg_begin(&b, &m);
	if (e)
		msg_item(&b, e);
	core_deliver(x->core, x->now, from, b.data, b.len);
	free(b.data);
	member_flush(x);
}

struct entry *member_entry(uint64_t epoch, enum entry_kind kind)
{
	struct entry *e = entry_new(kind, "cmd", kind == ENTRY_COMMAND ? 3 : 0);

	e->epoch = epoch;
	e->node = 1;
	e->version = kind == ENTRY_COMMAND;
	return e;
}

void member_hear_direct(struct member *x, uint32_t from, struct msg m)
{
	struct msg_buf b = {0};

	m.history = HISTORY;
	msg_begin(&b, &m);
	core_direct(x->core, x->now, from, b.data, b.len);
	free(b.data);
	member_flush(x);
}

void member_follow(struct member *x, uint64_t before, uint64_t before_epoch)
{
	struct entry *e = member_entry(5, ENTRY_EPOCH);

	member_hear(x, 1,
		    (struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = before, .last_epoch = before_epoch}, e);
	entry_unref(e);
}

int member_propose(struct member *x, uint32_t version)
{
	uint32_t lowest;
	int r = core_propose(x->core, x->now, version, "cmd", 3, x, &x->why, &lowest);

	member_flush(x);
	return r;
}

void member_committed(struct member *x, uint64_t index)
{
	member_hear(
		x, 1,
		(struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = index, .last_epoch = 5, .commit = index},
		NULL);
}

void member_lead(struct member *x)
{
	struct core_disk disk = {.history = HISTORY, .applied = 9};

	member_begin(x, &disk);
	x->has_direct = true;
	member_view(x, 1, 3, 3);
	member_hear(x, 1, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1, .version = 3}, NULL);
	member_hear(x, 3, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1, .version = 3}, NULL);
	member_echo(x); /* SYNC */
	member_echo(x); /* CLAIM */
	member_disk_done(x);
	member_echo(x); /* PROMISE */
	member_hear(x, 1, (struct msg){.type = MSG_PROMISE, .flags = MSG_GRANTED, .to = SELF, .epoch = 1}, NULL);
	assert_int_equal(member_said(x, MSG_ENTRIES)->count, 1);
	member_echo(x);
	member_disk_done(x);
	assert_null(member_said(x, MSG_ACK)); /* nobody else counts it */
}
