/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol's core, one member at a time: what it says, and what it keeps to itself until its disk has it. */

/* tests/sim attacks the rules all at once and by chance; here each has its name. The test plays the bus, the disk and
 * the other members. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cluster/core.h"
#include "cluster/msg.h"

#define HISTORY 77
#define SELF 2
#define SENT_MAX 64

struct sent {
	uint8_t *data;
	size_t size;
	struct msg m;
};

/* One member and what it has said and written since it was last looked at. */
struct member {
	struct core *core;
	int64_t now;
	struct sent sent[SENT_MAX];
	size_t n_sent;
	uint64_t serial;           /* newest write */
	struct core_write written; /* its numbers */
	struct entry *apply[SENT_MAX];
	size_t n_apply;
	int refused;
	enum core_refusal why;
	bool alarms[CORE_ALARM_MAX];
	unsigned hosts;   /* by the state */
	int hosts_change; /* what each command makes of them */
	bool has_direct;  /* there is a way to one member alone */
	uint32_t direct_to;
	struct msg direct; /* the newest of what went that way */
	int fetches;
};

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
				  .snapshot_drop = io_nothing,
				  .fetch_begin = io_fetch_begin,
				  .fetch_data = io_fetch_data,
				  .fetch_install = io_nothing,
				  .fetch_drop = io_nothing,
				  .refused = io_refused,
				  .alarm = io_alarm};

static void begin(struct member *x, const struct core_disk *disk)
{
	struct core_options o = {.self = SELF, .version = 3, .first_seq = 1000, .io = &io, .arg = x};

	memset(x, 0, sizeof(*x));
	x->now = NS_PER_S;
	x->hosts = 2;
	x->core = core_new(&o, disk);
}

static void forget_sent(struct member *x)
{
	while (x->n_sent)
		free(x->sent[--x->n_sent].data);
}

static void end(struct member *x)
{
	forget_sent(x);
	for (size_t i = 0; i < x->n_apply; i++)
		entry_unref(x->apply[i]);
	core_free(x->core);
}

static void flush(struct member *x)
{
	core_flush(x->core, x->now);
}

/* The disk has done everything it was asked to. */
static void disk_done(struct member *x)
{
	for (size_t i = 0; i < x->n_apply; i++) {
		core_applied(x->core, x->apply[i]);
		entry_unref(x->apply[i]);
	}
	x->n_apply = 0;
	core_written(x->core, x->serial);
	flush(x);
}

/* The newest message of @type that was sent, NULL: none. */
static const struct msg *said(const struct member *x, enum msg_type type)
{
	for (size_t i = x->n_sent; i > 0; i--)
		if (x->sent[i - 1].m.type == type)
			return &x->sent[i - 1].m;
	return NULL;
}

/* Everything that was sent comes back, as it does on a bus. */
static void echo(struct member *x)
{
	struct sent copy[SENT_MAX];
	size_t n = x->n_sent;

	memcpy(copy, x->sent, sizeof(copy));
	x->n_sent = 0;
	for (size_t i = 0; i < n; i++) {
		core_deliver(x->core, x->now, SELF, copy[i].data, copy[i].size);
		free(copy[i].data);
	}
	flush(x);
}

/* A view of hosts 1 to @present out of @expected. */
static void view(struct member *x, uint64_t seq, size_t present, unsigned expected)
{
	struct bus_view v = {.ring = {1, seq}, .n = present, .expected = expected, .needed = expected / 2 + 1};

	for (size_t i = 0; i < present; i++)
		v.members[i] = present == 1 ? SELF : (uint32_t)i + 1;
	v.quorate = present >= v.needed;
	core_view(x->core, x->now, &v);
	flush(x);
}

static void hear(struct member *x, uint32_t from, struct msg m, const struct entry *e)
{
	struct msg_buf b = {0};

	if (!m.history)
		m.history = HISTORY;
	msg_begin(&b, &m);
	if (e)
		msg_item(&b, e);
	core_deliver(x->core, x->now, from, b.data, b.len);
	free(b.data);
	flush(x);
}

static struct entry *entry_of(uint64_t epoch, enum entry_kind kind)
{
	struct entry *e = entry_new(kind, "cmd", kind == ENTRY_COMMAND ? 3 : 0);

	e->epoch = epoch;
	e->node = 1;
	e->version = kind == ENTRY_COMMAND;
	return e;
}

/* The same, past the order. */
static void hear_direct(struct member *x, uint32_t from, struct msg m)
{
	struct msg_buf b = {0};

	m.history = HISTORY;
	msg_begin(&b, &m);
	core_direct(x->core, x->now, from, b.data, b.len);
	free(b.data);
	flush(x);
}

/* Host 1 leads epoch 5, and its first entry is @index. */
static void follow(struct member *x, uint64_t before, uint64_t before_epoch)
{
	struct entry *e = entry_of(5, ENTRY_EPOCH);

	hear(x, 1, (struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = before, .last_epoch = before_epoch}, e);
	entry_unref(e);
}

static int propose(struct member *x, uint32_t version)
{
	uint32_t lowest;
	int r = core_propose(x->core, x->now, version, "cmd", 3, x, &x->why, &lowest);

	flush(x);
	return r;
}

static const struct core_disk fresh = {.history = HISTORY};

static void a_host_alone_acknowledges_what_its_disk_has(void **state)
{
	struct core_status s;
	struct member x;

	(void)state;
	begin(&x, &fresh);
	view(&x, 1, 1, 1);
	for (int i = 0; i < 6; i++) {
		echo(&x);
		disk_done(&x);
	}
	core_status(x.core, &s);
	assert_int_equal(s.state, CORE_SYNCED);
	assert_int_equal(s.applied, 1);
	assert_int_equal(propose(&x, 1), 0);
	for (int i = 0; i < 4; i++)
		echo(&x);
	core_status(x.core, &s);
	assert_int_equal(s.pending, 1); /* the disk has said nothing */
	for (int i = 0; i < 4; i++) {
		disk_done(&x);
		echo(&x);
	}
	core_status(x.core, &s);
	assert_int_equal(s.pending, 0);
	assert_int_equal(s.applied, 2);
	end(&x);
}

static void without_quorum_a_proposal_is_refused_at_once(void **state)
{
	struct member x;

	(void)state;
	begin(&x, &fresh);
	assert_int_equal(propose(&x, 1), -1);
	assert_int_equal(x.why, CORE_REFUSED_NO_QUORUM);
	view(&x, 1, 1, 3);
	assert_int_equal(propose(&x, 1), -1);
	assert_int_equal(x.why, CORE_REFUSED_NO_QUORUM);
	assert_null(said(&x, MSG_SYNC));
	end(&x);
}

static void a_ghost_costs_one_second(void **state)
{
	struct member x;

	(void)state;
	begin(&x, &fresh);
	view(&x, 1, 3, 3); /* host 1 is never heard */
	hear(&x, 3, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1}, NULL);
	echo(&x);
	assert_null(said(&x, MSG_CLAIM));
	assert_int_equal(core_deadline(x.core), x.now + CORE_SYNC_LIMIT);
	x.now = core_deadline(x.core);
	core_tick(x.core, x.now);
	flush(&x);
	assert_non_null(said(&x, MSG_CLAIM));
	assert_int_equal(said(&x, MSG_CLAIM)->epoch, 1);
	end(&x);
}

/* This member's log ends at entry 9 of epoch 3, those of 1 and 3 where @index says. */
static bool claims(uint64_t index1, uint64_t index3)
{
	struct core_disk disk = {.history = HISTORY, .applied = 9, .applied_epoch = 3};
	struct msg sync = {.type = MSG_SYNC, .ring = {1, 1}, .round = 1, .last_epoch = 3};
	struct member x;
	bool claimed;

	begin(&x, &disk);
	view(&x, 1, 3, 3);
	sync.last_index = index1;
	hear(&x, 1, sync, NULL);
	sync.last_index = index3;
	hear(&x, 3, sync, NULL);
	echo(&x);
	claimed = said(&x, MSG_CLAIM);
	end(&x);
	return claimed;
}

static void the_longest_log_claims_and_on_ties_whoever_has_the_token_first(void **state)
{
	(void)state;
	assert_true(claims(8, 8));
	assert_true(claims(9, 8)); /* the token rests at 1, and comes to 2 next */
	assert_true(claims(9, 9));
	assert_false(claims(10, 8));
	assert_false(claims(8, 10));
}

static void a_promise_is_given_once_the_disk_has_it(void **state)
{
	struct msg claim = {.type = MSG_CLAIM, .ring = {1, 1}, .round = 1, .epoch = 4};
	struct member x;

	(void)state;
	begin(&x, &fresh);
	view(&x, 1, 3, 3);
	hear(&x, 1, claim, NULL);
	assert_null(said(&x, MSG_PROMISE));
	assert_true(x.written.meta);
	assert_int_equal(x.written.promised, 4);
	assert_int_equal(x.written.promised_to, 1);
	disk_done(&x);
	assert_non_null(said(&x, MSG_PROMISE));
	assert_true(said(&x, MSG_PROMISE)->flags & MSG_GRANTED);
	forget_sent(&x);
	hear(&x, 3, claim, NULL); /* the same epoch for somebody else */
	assert_false(said(&x, MSG_PROMISE)->flags & MSG_GRANTED);
	end(&x);
}

static void a_claimant_with_an_older_log_is_refused(void **state)
{
	struct core_disk disk = {.history = HISTORY, .applied = 9, .applied_epoch = 3};
	struct member x;

	(void)state;
	begin(&x, &disk);
	view(&x, 1, 3, 3);
	hear(&x, 1,
	     (struct msg){.type = MSG_CLAIM, .ring = {1, 1}, .round = 1, .epoch = 4, .last_epoch = 2, .last_index = 50},
	     NULL);
	assert_false(said(&x, MSG_PROMISE)->flags & MSG_GRANTED);
	end(&x);
}

/* The answer of a member whose log ends at entry 9 of epoch 3 to a claimant whose log ends at @index. */
static uint8_t promise_of(struct core_disk disk, uint64_t index)
{
	struct msg claim = {.type = MSG_CLAIM, .ring = {1, 1}, .round = 1, .epoch = 4, .last_epoch = 3};
	struct member x;
	uint8_t flags;

	disk.history = HISTORY;
	disk.applied = 9;
	disk.applied_epoch = 3;
	claim.last_index = index;
	begin(&x, &disk);
	view(&x, 1, 3, 3);
	hear(&x, 1, claim, NULL);
	disk_done(&x);
	flags = said(&x, MSG_PROMISE)->flags & (MSG_GRANTED | MSG_LEARNER);
	end(&x);
	return flags;
}

static void whoever_may_not_lead_stands_in_nobodys_way_and_vouches_for_what_the_claimant_has(void **state)
{
	(void)state;
	assert_int_equal(promise_of((struct core_disk){.diverged = false}, 8), 0);
	assert_int_equal(promise_of((struct core_disk){.diverged = true}, 9), MSG_GRANTED);
	assert_int_equal(promise_of((struct core_disk){.diverged = true}, 8), MSG_GRANTED | MSG_LEARNER);
	assert_int_equal(promise_of((struct core_disk){.learner = true}, 8), MSG_GRANTED | MSG_LEARNER);
}

/* Does this member lead with a majority of three, one of whose promises came with @flags? */
static bool leads_with(uint8_t flags)
{
	struct core_status s;
	struct member x;

	begin(&x, &fresh);
	view(&x, 1, 3, 3);
	hear(&x, 1, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1}, NULL);
	hear(&x, 3, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1}, NULL);
	for (int i = 0; i < 3; i++) {
		echo(&x);
		disk_done(&x);
	}
	hear(&x, 1, (struct msg){.type = MSG_PROMISE, .to = SELF, .epoch = 1, .flags = flags}, NULL);
	core_status(x.core, &s);
	end(&x);
	return s.leading;
}

static void nobody_leads_with_a_majority_that_does_not_vouch(void **state)
{
	(void)state;
	assert_true(leads_with(MSG_GRANTED));
	assert_false(leads_with(MSG_GRANTED | MSG_LEARNER));
	assert_false(leads_with(0));
}

/* Host 1 leads, and its first entry is on the disk of this member. */
static void followed(struct member *x, bool has_direct)
{
	begin(x, &fresh);
	x->has_direct = has_direct;
	view(x, 1, 3, 3);
	follow(x, 0, 0);
	disk_done(x);
}

/* An entry of host 1 behind entry @before. */
static void one_more(struct member *x, uint64_t before)
{
	struct entry *e = entry_of(5, ENTRY_COMMAND);

	hear(x, 1, (struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = before, .last_epoch = 5}, e);
	disk_done(x);
	entry_unref(e);
}

/* The leader, host 1, says that @index is committed. */
static void committed(struct member *x, uint64_t index)
{
	hear(x, 1, (struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = index, .last_epoch = 5, .commit = index},
	     NULL);
}

static void an_entry_is_acknowledged_once_the_disk_has_it(void **state)
{
	struct member x;

	(void)state;
	begin(&x, &fresh);
	view(&x, 1, 3, 3);
	follow(&x, 0, 0);
	assert_null(said(&x, MSG_ACK));
	assert_int_equal(x.written.n_append, 1);
	assert_int_equal(x.written.n_apply, 0);
	disk_done(&x);
	assert_int_equal(said(&x, MSG_ACK)->index, 1);
	hear(&x, 3, (struct msg){.type = MSG_ACK, .epoch = 5, .index = 1}, NULL);
	echo(&x);
	assert_int_equal(x.written.n_apply, 0); /* the leader counts, not this member */
	committed(&x, 1);
	assert_int_equal(x.written.n_apply, 1);
	end(&x);
}

static void an_acknowledgement_goes_to_the_leader_alone_and_to_all_if_that_is_lost(void **state)
{
	struct member x;

	(void)state;
	followed(&x, true);
	assert_int_equal(x.direct_to, 1);
	assert_int_equal(x.direct.type, MSG_ACK);
	assert_int_equal(x.direct.index, 1);
	assert_null(said(&x, MSG_ACK));
	assert_int_equal(core_deadline(x.core), x.now + CORE_ACK_AGAIN);
	x.now = core_deadline(x.core);
	core_tick(x.core, x.now);
	flush(&x);
	assert_int_equal(said(&x, MSG_ACK)->index, 1);
	forget_sent(&x);
	x.now += CORE_ACK_AGAIN;
	core_tick(x.core, x.now);
	flush(&x);
	assert_null(said(&x, MSG_ACK));
	assert_int_equal(core_deadline(x.core), x.now + CORE_NEED_AGAIN - CORE_ACK_AGAIN);
	x.now = core_deadline(x.core);
	core_tick(x.core, x.now); /* as long as there is no commit */
	assert_int_equal(said(&x, MSG_ACK)->index, 1);
	end(&x);
}

static void newer_acknowledgements_do_not_put_off_the_word_to_all(void **state)
{
	struct member x;
	int64_t began;

	(void)state;
	followed(&x, true);
	began = x.now;
	x.now += CORE_ACK_AGAIN - 1;
	one_more(&x, 1);
	assert_int_equal(x.direct.index, 2);
	assert_int_equal(core_deadline(x.core), began + CORE_ACK_AGAIN);
	x.now = core_deadline(x.core);
	core_tick(x.core, x.now);
	assert_int_equal(said(&x, MSG_ACK)->index, 2);
	end(&x);
}

static void a_commit_of_older_entries_is_followed_by_a_wait_for_newer_ones(void **state)
{
	struct member x;

	(void)state;
	followed(&x, true);
	one_more(&x, 1);
	x.now += CORE_ACK_AGAIN / 2;
	committed(&x, 1);
	assert_int_equal(core_deadline(x.core), x.now + CORE_ACK_AGAIN);
	end(&x);
}

static void a_commit_ends_the_wait_of_an_acknowledgement(void **state)
{
	struct member x;

	(void)state;
	followed(&x, true);
	committed(&x, 1);
	disk_done(&x);
	assert_true(core_deadline(x.core) > x.now + CORE_ACK_AGAIN);
	x.now += CORE_ACK_AGAIN;
	core_tick(x.core, x.now);
	flush(&x);
	assert_null(said(&x, MSG_ACK));
	end(&x);
}

static void a_learner_vouches_once_it_has_all_again_that_it_acknowledged(void **state)
{
	struct core_disk disk = {
		.history = HISTORY, .promised = 5, .promised_to = 1, .learner = true, .applied = 1, .applied_epoch = 5};
	struct member x;

	(void)state;
	followed(&x, true);
	one_more(&x, 1);
	one_more(&x, 2);
	assert_int_equal(x.direct.index, 3);
	committed(&x, 1); /* from now on the ACK of entry 3 is watched */
	disk_done(&x);
	core_fetch_installed(x.core, x.now, &disk);
	x.now += CORE_ACK_AGAIN;
	core_tick(x.core, x.now);
	assert_null(said(&x, MSG_ACK)); /* it is true no more, and not repeated */
	one_more(&x, 1);
	assert_false(x.written.meta);
	one_more(&x, 2);
	assert_true(x.written.meta);
	assert_false(x.written.learner);
	end(&x);
}

static void a_follower_takes_a_few_entries_before_it_applies_older_ones(void **state)
{
	struct entry *e = entry_of(5, ENTRY_COMMAND);
	struct member x;

	(void)state;
	followed(&x, false);
	hear(&x, 1, (struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = 1, .last_epoch = 5, .commit = 1}, e);
	assert_int_equal(x.written.n_append, 1);
	assert_int_equal(x.written.n_apply, 0);
	disk_done(&x);
	assert_int_equal(x.written.n_append, 0);
	assert_int_equal(x.written.n_apply, 1);
	/* But not for ever: the disk is busy, entries come one by one, and what may be applied grows. */
	for (uint64_t i = 2; i < 20 && x.n_apply < 2; i++)
		hear(&x, 1,
		     (struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = i, .last_epoch = 5, .commit = i}, e);
	assert_true(x.n_apply > 1);
	entry_unref(e);
	end(&x);
}

/* This member leads epoch 1 of three, and its first entry, 10, is on its disk alone. */
static void lead(struct member *x)
{
	struct core_disk disk = {.history = HISTORY, .applied = 9};

	begin(x, &disk);
	x->has_direct = true;
	view(x, 1, 3, 3);
	hear(x, 1, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1, .version = 3}, NULL);
	hear(x, 3, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1, .version = 3}, NULL);
	echo(x); /* SYNC */
	echo(x); /* CLAIM */
	disk_done(x);
	echo(x); /* PROMISE */
	hear(x, 1, (struct msg){.type = MSG_PROMISE, .flags = MSG_GRANTED, .to = SELF, .epoch = 1}, NULL);
	assert_int_equal(said(x, MSG_ENTRIES)->count, 1);
	echo(x);
	disk_done(x);
	assert_null(said(x, MSG_ACK)); /* nobody else counts it */
}

static uint64_t commit_of(const struct member *x)
{
	struct core_status s;

	core_status(x->core, &s);
	return s.commit;
}

static void the_leader_counts_its_own_disk_and_what_comes_to_it_alone(void **state)
{
	struct member x;

	(void)state;
	lead(&x);
	assert_int_equal(commit_of(&x), 9);
	hear_direct(&x, 1, (struct msg){.type = MSG_ACK, .epoch = 1, .index = 10});
	assert_int_equal(commit_of(&x), 10);
	end(&x);
}

static void an_acknowledgement_of_an_older_epoch_is_not_counted(void **state)
{
	struct member x;

	(void)state;
	lead(&x);
	hear_direct(&x, 1, (struct msg){.type = MSG_ACK, .epoch = 0, .index = 10});
	hear(&x, 3, (struct msg){.type = MSG_ACK, .epoch = 0, .index = 10}, NULL);
	assert_int_equal(commit_of(&x), 9);
	end(&x);
}

static void past_the_order_nothing_but_acknowledgements_is_taken(void **state)
{
	struct core_status s;
	struct member x;

	(void)state;
	lead(&x);
	hear_direct(&x, 3, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 9});
	core_direct(x.core, x.now, 1, (const uint8_t *)"G", 1);
	core_status(x.core, &s);
	assert_true(s.leading);
	assert_int_equal(s.commit, 9);
	end(&x);
}

/* A command of host @node goes through the leader; host 1 acknowledges it. */
static void through_the_leader(struct member *x, uint32_t node)
{
	struct entry *e = entry_of(1, ENTRY_COMMAND);

	hear_direct(x, 1, (struct msg){.type = MSG_ACK, .epoch = 1, .index = 10});
	x->now += CORE_COMMIT_LAZY;
	core_tick(x->core, x->now);
	disk_done(x);
	echo(x);
	x->now += NS_PER_S;
	if (node == SELF)
		assert_int_equal(propose(x, 1), 0);
	else
		hear(x, node, (struct msg){.type = MSG_PROPOSE, .epoch = 1}, e);
	echo(x);
	disk_done(x);
	forget_sent(x);
	hear_direct(x, 1, (struct msg){.type = MSG_ACK, .epoch = 1, .index = 11});
	assert_int_equal(commit_of(x), 11);
	entry_unref(e);
}

static void a_commit_that_another_host_waits_for_is_told_at_once(void **state)
{
	struct member x;

	(void)state;
	lead(&x);
	through_the_leader(&x, 3);
	assert_int_equal(said(&x, MSG_ENTRIES)->commit, 11);
	end(&x);
}

static void a_commit_that_nobody_else_waits_for_is_told_soon_after(void **state)
{
	struct member x;

	(void)state;
	lead(&x);
	through_the_leader(&x, SELF);
	assert_null(said(&x, MSG_ENTRIES));
	assert_int_equal(core_deadline(x.core), x.now + CORE_COMMIT_LAZY);
	x.now = core_deadline(x.core);
	core_tick(x.core, x.now);
	assert_int_equal(said(&x, MSG_ENTRIES)->commit, 11);
	assert_int_equal(said(&x, MSG_ENTRIES)->count, 0);
	end(&x);
}

static void a_commit_waits_for_the_next_entries_while_they_come_anyway(void **state)
{
	struct member x;

	(void)state;
	lead(&x);
	through_the_leader(&x, SELF);
	x.now += 10 * NS_PER_MS;
	assert_int_equal(propose(&x, 1), 0);
	echo(&x);
	disk_done(&x);
	hear_direct(&x, 1, (struct msg){.type = MSG_ACK, .epoch = 1, .index = 12});
	assert_int_equal(commit_of(&x), 12);
	assert_int_equal(core_deadline(x.core), x.now + 20 * NS_PER_MS);
	end(&x);
}

static void a_minoritys_tail_is_cut_off(void **state)
{
	struct entry **tail = xcalloc(2, sizeof(struct entry *));
	struct core_disk disk = {.history = HISTORY,
				 .promised = 3,
				 .promised_to = 2,
				 .applied = 4,
				 .applied_epoch = 2,
				 .tail = tail,
				 .n = 2};
	struct core_status s;
	struct member x;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		tail[i] = entry_of(3, ENTRY_COMMAND);
		tail[i]->index = 5 + i;
	}
	begin(&x, &disk);
	free(tail);
	view(&x, 1, 3, 3);
	follow(&x, 4, 2); /* in the place of entry 5 */
	core_status(x.core, &s);
	assert_int_equal(s.last, 5);
	assert_int_equal(x.written.cut_from, 5);
	assert_int_equal(x.written.n_append, 1);
	end(&x);
}

static void a_member_that_missed_entries_asks_for_them(void **state)
{
	struct member x;

	(void)state;
	begin(&x, &fresh);
	view(&x, 1, 3, 3);
	follow(&x, 30, 4);
	assert_int_equal(said(&x, MSG_NEED)->to, 1);
	assert_int_equal(said(&x, MSG_NEED)->index, 0);
	hear(&x, 1,
	     (struct msg){.type = MSG_SNAP_BEGIN, .to = SELF, .epoch = 5, .snapshot = 1, .size = 100, .index = 30},
	     NULL);
	assert_int_equal(x.fetches, 1);
	assert_int_equal(said(&x, MSG_SNAP_GET)->size, 100);
	end(&x);
}

static void a_command_that_some_member_does_not_know_is_refused(void **state)
{
	struct entry *e = entry_of(5, ENTRY_COMMAND);
	struct member x;

	(void)state;
	begin(&x, &fresh);
	view(&x, 1, 3, 3);
	hear(&x, 3, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1, .version = 2}, NULL);
	follow(&x, 0, 0);
	disk_done(&x);
	committed(&x, 1);
	disk_done(&x);
	assert_true(core_writable(x.core));
	assert_int_equal(propose(&x, 3), -1);
	assert_int_equal(x.why, CORE_REFUSED_VERSION);
	assert_int_equal(propose(&x, 2), 0);

	e->version = 4; /* all knew it when it was written, this build does not */
	hear(&x, 1, (struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = 1, .last_epoch = 5, .commit = 2}, e);
	assert_int_equal(x.written.n_append, 1);
	assert_int_equal(x.written.n_apply, 0);
	assert_true(x.alarms[CORE_ALARM_VERSION]);
	entry_unref(e);
	end(&x);
}

static void a_member_of_another_cluster_is_left_out_by_name(void **state)
{
	struct member x;

	(void)state;
	begin(&x, &fresh);
	view(&x, 1, 2, 3);
	hear(&x, 1,
	     (struct msg){
		     .type = MSG_SYNC, .ring = {1, 1}, .round = 1, .history = 78, .last_epoch = 9, .last_index = 900},
	     NULL);
	assert_true(x.alarms[CORE_ALARM_HISTORY]);
	hear(&x, 1,
	     (struct msg){.type = MSG_CLAIM, .ring = {1, 1}, .round = 1, .history = 78, .epoch = 10, .last_epoch = 9},
	     NULL);
	assert_null(said(&x, MSG_PROMISE));
	assert_int_equal(x.written.promised, 0);
	end(&x);
}

static void a_digest_that_a_majority_contradicts_makes_a_member_fetch_the_state(void **state)
{
	struct msg check = {.type = MSG_CHECK, .epoch = 5, .index = 1, .chain = {1}};
	static const uint8_t mine[32] = {2}, none[32] = {0};
	struct core_status s;
	struct member x;

	(void)state;
	begin(&x, &fresh);
	view(&x, 1, 3, 3);
	hear(&x, 3, (struct msg){.type = MSG_SYNC, .ring = {1, 1}, .round = 1, .version = 3}, NULL);
	follow(&x, 0, 0);
	disk_done(&x);
	committed(&x, 1);
	disk_done(&x);
	core_checked(x.core, 1, mine, none);
	flush(&x);
	echo(&x);
	hear(&x, 1, check, NULL);
	assert_false(x.alarms[CORE_ALARM_DIGEST]);
	hear(&x, 3, check, NULL);
	assert_true(x.alarms[CORE_ALARM_DIGEST]);
	assert_true(x.written.diverged);
	assert_true(said(&x, MSG_NEED)->flags & MSG_DIVERGED);
	core_status(x.core, &s);
	assert_int_equal(s.state, CORE_SYNCING);
	end(&x);
}

static void a_leader_whose_disk_is_full_steps_down(void **state)
{
	struct core_status s;
	struct member x;

	(void)state;
	begin(&x, &fresh);
	view(&x, 1, 1, 1);
	for (int i = 0; i < 6; i++) {
		echo(&x);
		disk_done(&x);
	}
	assert_true(core_writable(x.core));
	core_write_failed(x.core, x.now);
	flush(&x);
	assert_true(x.alarms[CORE_ALARM_DISK]);
	assert_int_equal(propose(&x, 1), -1);
	assert_int_equal(x.why, CORE_REFUSED_DISK);
	core_status(x.core, &s);
	assert_false(s.leading);
	end(&x);
}

/* ---- one of two ---- */

/* Host 1 leads epoch 5 of both, and its first entry is applied. @flags: what it says of itself. */
static void whole_with_host_1(struct member *x, uint8_t flags)
{
	struct entry *e = entry_of(5, ENTRY_EPOCH);

	begin(x, &fresh);
	view(x, 1, 2, 2);
	hear(x, 1, (struct msg){.type = MSG_SYNC, .flags = flags, .ring = {1, 1}, .round = 1, .last_index = 1}, NULL);
	hear(x, 1, (struct msg){.type = MSG_ENTRIES, .flags = flags, .epoch = 5}, e);
	disk_done(x);
	hear(x, 1,
	     (struct msg){
		     .type = MSG_ENTRIES, .flags = flags, .epoch = 5, .last_index = 1, .last_epoch = 5, .commit = 1},
	     NULL);
	disk_done(x);
	entry_unref(e);
}

/* Nobody else is here, and the third party has given its vote. The number for a proof. */
static uint64_t by_itself(struct member *x, uint64_t seq)
{
	struct bus_view v = {
		.ring = {2, seq}, .members = {SELF}, .n = 1, .expected = 2, .needed = 2, .service_quorate = true};
	struct core_status s;

	forget_sent(x);
	core_view(x->core, x->now, &v);
	flush(x);
	core_status(x->core, &s);
	return s.by_itself;
}

static void dead(struct member *x, uint64_t number)
{
	core_dead(x->core, 1, number);
	flush(x);
}

static void one_of_two_goes_on_alone_once_its_disk_says_so(void **state)
{
	struct core_status s;
	struct member x;

	(void)state;
	whole_with_host_1(&x, MSG_TWO);
	core_status(x.core, &s);
	assert_int_equal(s.whole, 1);
	dead(&x, by_itself(&x, 2));
	assert_true(x.written.alone);
	core_status(x.core, &s);
	assert_false(s.alone);
	assert_null(said(&x, MSG_CLAIM));
	for (int i = 0; i < 8; i++) {
		disk_done(&x);
		echo(&x);
	}
	core_status(x.core, &s);
	assert_true(s.alone && s.leading && core_writable(x.core));
	assert_int_equal(propose(&x, 1), 0);
	end(&x);
}

/* Whatever is missing, the mark is not taken. */
static void without_each_of_its_grounds_nobody_goes_on_alone(void **state)
{
	struct entry *e = entry_of(5, ENTRY_COMMAND);
	struct member x;
	uint64_t number;

	(void)state;
	whole_with_host_1(&x, MSG_TWO); /* no proof */
	by_itself(&x, 2);
	assert_false(x.written.alone);
	number = by_itself(&x, 3); /* one of before the other one was here again */
	view(&x, 4, 2, 2);
	by_itself(&x, 5);
	dead(&x, number);
	assert_false(x.written.alone);
	end(&x);
	whole_with_host_1(&x, 0); /* the other one does not count two hosts */
	dead(&x, by_itself(&x, 2));
	assert_false(x.written.alone);
	end(&x);
	whole_with_host_1(&x, MSG_TWO | MSG_ALONE); /* or is alone */
	dead(&x, by_itself(&x, 2));
	assert_false(x.written.alone);
	end(&x);
	whole_with_host_1(&x, MSG_TWO); /* the state has a third host that corosync does not know yet */
	x.hosts = 3;
	dead(&x, by_itself(&x, 2));
	assert_false(x.written.alone);
	end(&x);
	whole_with_host_1(&x, MSG_TWO); /* the log brings one */
	hear(&x, 1, (struct msg){.type = MSG_ENTRIES, .epoch = 5, .last_index = 1, .last_epoch = 5}, e);
	x.hosts_change = 1;
	dead(&x, by_itself(&x, 2));
	assert_false(x.written.alone);
	end(&x);
	begin(&x, &fresh); /* its process is a new one */
	dead(&x, by_itself(&x, 2));
	assert_false(x.written.alone);
	end(&x);
	entry_unref(e);
}

/* Its mark is on the disk, and it leads. */
static void alone(struct member *x)
{
	whole_with_host_1(x, MSG_TWO);
	dead(x, by_itself(x, 2));
	for (int i = 0; i < 8; i++) {
		disk_done(x);
		echo(x);
	}
	assert_true(core_writable(x->core));
}

static void what_comes_late_past_the_order_is_no_sign_of_life(void **state)
{
	struct core_status s;
	struct member x;
	uint64_t number;

	(void)state;
	whole_with_host_1(&x, MSG_TWO);
	number = by_itself(&x, 2);
	assert_true(number > 0);
	hear_direct(&x, 1, (struct msg){.type = MSG_ACK, .epoch = 5, .index = 1});
	core_status(x.core, &s);
	assert_int_equal(s.by_itself, number);
	end(&x);
}

static void while_one_of_two_is_alone_nobody_joins(void **state)
{
	struct entry *e = entry_of(0, ENTRY_COMMAND);
	struct core_status s;
	struct member x;

	(void)state;
	alone(&x);
	core_status(x.core, &s);
	x.hosts_change = 1;
	assert_int_equal(propose(&x, 1), 0);
	assert_int_equal(x.refused, 1);
	assert_int_equal(x.why, CORE_REFUSED_ALONE);
	hear(&x, 1, (struct msg){.type = MSG_PROPOSE, .epoch = s.epoch}, e);
	assert_non_null(said(&x, MSG_REFUSE));
	assert_int_equal(said(&x, MSG_REFUSE)->to, 1);
	x.hosts_change = -1; /* the other one may be removed */
	forget_sent(&x);
	assert_int_equal(propose(&x, 1), 0);
	assert_int_equal(x.refused, 1);
	assert_non_null(said(&x, MSG_ENTRIES));
	end(&x);
	entry_unref(e);
}

static void one_whose_other_was_removed_is_alone_no_more(void **state)
{
	struct core_status s;
	struct member x;

	(void)state;
	alone(&x);
	view(&x, 3, 1, 1); /* corosync knows it before the state does */
	disk_done(&x);
	core_status(x.core, &s);
	assert_true(s.alone);
	x.hosts = 1;
	for (int i = 0; i < 8; i++) {
		disk_done(&x);
		echo(&x);
	}
	core_status(x.core, &s);
	assert_false(s.alone);
	assert_false(x.written.alone);
	assert_true(core_writable(x.core));
	end(&x);
}

static void two_that_are_alone_refuse_each_other(void **state)
{
	struct core_disk disk = {.history = HISTORY, .alone = true};
	struct member x;

	(void)state;
	begin(&x, &disk);
	by_itself(&x, 1);
	for (int i = 0; i < 8; i++) {
		echo(&x);
		disk_done(&x);
	}
	assert_true(core_writable(x.core)); /* a restart asks nobody */
	hear(&x, 1, (struct msg){.type = MSG_CLAIM, .flags = MSG_ALONE, .ring = {2, 1}, .round = 1, .epoch = 9}, NULL);
	assert_true(x.alarms[CORE_ALARM_ALONE]);
	assert_false(core_writable(x.core));
	end(&x);
}

static void bytes_that_are_no_message_change_nothing(void **state)
{
	struct member x;

	(void)state;
	begin(&x, &fresh);
	view(&x, 1, 3, 3);
	forget_sent(&x);
	core_deliver(x.core, x.now, 1, (const uint8_t *)"not a message", 13);
	flush(&x);
	assert_int_equal(x.n_sent, 0);
	end(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_host_alone_acknowledges_what_its_disk_has),
		cmocka_unit_test(without_quorum_a_proposal_is_refused_at_once),
		cmocka_unit_test(a_ghost_costs_one_second),
		cmocka_unit_test(the_longest_log_claims_and_on_ties_whoever_has_the_token_first),
		cmocka_unit_test(a_promise_is_given_once_the_disk_has_it),
		cmocka_unit_test(a_claimant_with_an_older_log_is_refused),
		cmocka_unit_test(whoever_may_not_lead_stands_in_nobodys_way_and_vouches_for_what_the_claimant_has),
		cmocka_unit_test(nobody_leads_with_a_majority_that_does_not_vouch),
		cmocka_unit_test(an_entry_is_acknowledged_once_the_disk_has_it),
		cmocka_unit_test(an_acknowledgement_goes_to_the_leader_alone_and_to_all_if_that_is_lost),
		cmocka_unit_test(a_commit_ends_the_wait_of_an_acknowledgement),
		cmocka_unit_test(a_follower_takes_a_few_entries_before_it_applies_older_ones),
		cmocka_unit_test(a_learner_vouches_once_it_has_all_again_that_it_acknowledged),
		cmocka_unit_test(the_leader_counts_its_own_disk_and_what_comes_to_it_alone),
		cmocka_unit_test(an_acknowledgement_of_an_older_epoch_is_not_counted),
		cmocka_unit_test(past_the_order_nothing_but_acknowledgements_is_taken),
		cmocka_unit_test(a_commit_that_another_host_waits_for_is_told_at_once),
		cmocka_unit_test(a_commit_that_nobody_else_waits_for_is_told_soon_after),
		cmocka_unit_test(a_commit_waits_for_the_next_entries_while_they_come_anyway),
		cmocka_unit_test(newer_acknowledgements_do_not_put_off_the_word_to_all),
		cmocka_unit_test(a_commit_of_older_entries_is_followed_by_a_wait_for_newer_ones),
		cmocka_unit_test(a_minoritys_tail_is_cut_off),
		cmocka_unit_test(a_member_that_missed_entries_asks_for_them),
		cmocka_unit_test(a_command_that_some_member_does_not_know_is_refused),
		cmocka_unit_test(a_member_of_another_cluster_is_left_out_by_name),
		cmocka_unit_test(a_digest_that_a_majority_contradicts_makes_a_member_fetch_the_state),
		cmocka_unit_test(a_leader_whose_disk_is_full_steps_down),
		cmocka_unit_test(one_of_two_goes_on_alone_once_its_disk_says_so),
		cmocka_unit_test(without_each_of_its_grounds_nobody_goes_on_alone),
		cmocka_unit_test(what_comes_late_past_the_order_is_no_sign_of_life),
		cmocka_unit_test(while_one_of_two_is_alone_nobody_joins),
		cmocka_unit_test(one_whose_other_was_removed_is_alone_no_more),
		cmocka_unit_test(two_that_are_alone_refuse_each_other),
		cmocka_unit_test(bytes_that_are_no_message_change_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
