/* SPDX-License-Identifier: Apache-2.0 */
/* The replicated state of a daemon: core, bus and store driven by the loop, answers to those who proposed. */
#include "cluster/replica.h"

#include <assert.h>
#include <inttypes.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/log.h"
#include "base/mem.h"
#include "cluster/core.h"
#include "cluster/msg.h"
#include "cluster/store.h"

#define TURNS_MAX 64 /* of a bus that always has something; then the loop's other work gets its turn */

/* A proposal from replica_propose() to its answer. */
struct request {
	STAILQ_ENTRY(request) link; /* in replica.refused */
	replica_done_fn *done;
	void *arg;
	struct err err;
};

/* What replica_options.changed tells about. */
struct facts {
	uint64_t epoch;
	uint64_t views; /* told by the bus so far */
	uint32_t state, leader;
	uint32_t alarms; /* bits */
	uint32_t alone;
};

struct poll {
	int fd;
	struct loop_io *io;
};

struct replica {
	struct replica_options o;
	struct loop *loop;
	struct bus *bus;
	struct store *store;
	struct core *core; /* NULL until the bus knows who we are */
	uint32_t self;
	struct core_disk disk;
	struct loop_io *store_io;
	struct poll polls[BUS_FDS_MAX];
	size_t n_polls;
	struct loop_timer *timer;
	bool busy; /* inside step(): what comes up meanwhile is done at its end */
	struct bus_view view;
	uint32_t views;
	STAILQ_HEAD(request_list, request) refused;
	struct facts facts;
	uint64_t index; /* applied, and the chain up to it */
	uint8_t chain[32];
	bool alarms[CORE_ALARM_MAX];
	uint32_t alarm_node[CORE_ALARM_MAX];
	struct err disk_err;
};

/* ---- what the core asks for ---- */

static void io_send(void *arg, const void *data, size_t size)
{
	struct replica *r = arg;
	struct err e = ERR_INIT;

	if (bus_send(r->bus, data, size, &e) < 0)
		log_debug("event=bus-send error=\"%s\"", e.text); /* lost, as on any bus */
}

static bool io_send_to(void *arg, uint32_t node, const void *data, size_t size)
{
	return bus_send_to(((struct replica *)arg)->bus, node, data, size);
}

static void io_write(void *arg, const struct core_write *w)
{
	store_write(((struct replica *)arg)->store, w);
}

static size_t io_read(void *arg, uint64_t index, size_t bytes, struct entry **ret, size_t max)
{
	return store_read(((struct replica *)arg)->store, index, bytes, ret, max);
}

static void io_snapshot_make(void *arg)
{
	store_snapshot_make(((struct replica *)arg)->store);
}

static size_t io_snapshot_read(void *arg, uint64_t offset, void *buf, size_t size)
{
	return store_snapshot_read(((struct replica *)arg)->store, offset, buf, size);
}

static void io_snapshot_drop(void *arg)
{
	store_snapshot_drop(((struct replica *)arg)->store);
}

static void io_fetch_begin(void *arg, uint64_t size)
{
	log_info("event=snapshot-fetch bytes=%" PRIu64, size);
	store_fetch_begin(((struct replica *)arg)->store, size);
}

static void io_fetch_data(void *arg, uint64_t offset, const void *data, size_t size)
{
	store_fetch_data(((struct replica *)arg)->store, offset, data, size);
}

static void io_fetch_install(void *arg)
{
	store_fetch_install(((struct replica *)arg)->store);
}

static void io_fetch_drop(void *arg)
{
	store_fetch_drop(((struct replica *)arg)->store);
}

/* What one of two that cannot write may hope for. */
static const char *alone_words(const struct replica *r)
{
	if (r->view.expected != 2 || !replica_by_itself(r))
		return "";
	if (replica_may_alone(r))
		return "; this host goes on alone once the other one's power is seen to be off, or somebody says that "
		       "it is (godwit node confirm-dead)";
	if (!r->view.service_quorate)
		return "; bring the other one back: corosync has no quorum here";
	return "; bring the other one back: this host has not been in step with it since its daemon started, so it "
	       "cannot go on alone";
}

static int refusal_text(const struct replica *r, enum core_refusal why, uint32_t version, struct err *e)
{
	switch (why) {
	case CORE_REFUSED_NO_QUORUM:
		return err_set(e, ERR_UNAVAILABLE,
			       "no quorum: %zu of %u hosts are here and %u are needed; nothing was changed%s",
			       r->view.n, r->view.expected, r->view.needed, alone_words(r));
	case CORE_REFUSED_NOT_SYNCED:
		return err_set(e, ERR_UNAVAILABLE,
			       "this host has not caught up with the others yet; nothing was changed, try again");
	case CORE_REFUSED_DISK:
		return err_set(e, ERR_UNAVAILABLE,
			       "this host's disk takes nothing (%s); nothing was changed: make room in %s, or ask "
			       "another host",
			       r->disk_err.text, r->o.path);
	case CORE_REFUSED_BUSY:
		return err_set(e, ERR_UNAVAILABLE, "too many changes wait already; this one was not made, try again");
	case CORE_REFUSED_VERSION:
		return err_set(
			e, ERR_UNSUPPORTED,
			"some host knows commands up to version %u only; nothing was changed: bring all hosts to "
			"the same release",
			version);
	case CORE_REFUSED_ALONE:
		return err_set(e, ERR_CONFLICT,
			       "the cluster goes on with one of its two hosts: nobody can join before the other one "
			       "is back, or is removed; nothing was changed");
	case CORE_REFUSED_LOST:
	case CORE_REFUSED_MAX:
		break;
	}
	return err_set(e, ERR_TIMEOUT,
		       "this host lost touch before it heard what became of the change: look whether "
		       "it was made, then ask again");
}

/* Told at the end of the step: a core that calls out may not be called. */
static void io_refused(void *arg, void *user, enum core_refusal why, uint32_t version)
{
	struct replica *r = arg;
	struct request *q = user;

	refusal_text(r, why, version, &q->err);
	STAILQ_INSERT_TAIL(&r->refused, q, link);
}

static char *alarm_text(const struct replica *r, enum core_alarm what)
{
	switch (what) {
	case CORE_ALARM_DISK:
		return xasprintf("the disk of this host takes nothing: %s", r->disk_err.text);
	case CORE_ALARM_DIGEST:
		return xasprintf("the state of node %u differs from the others'; it is fetched anew",
				 r->alarm_node[what]);
	case CORE_ALARM_HISTORY:
		return xasprintf("node %u has the state of another cluster and is left out: remove its state to let it "
				 "join",
				 r->alarm_node[what]);
	case CORE_ALARM_ALONE:
		return xasprintf(
			"this host and node %u both went on alone: there are two logs, and nothing is written. "
			"Decide whose is right and remove the state of the other one, with its daemon ended",
			r->alarm_node[what]);
	case CORE_ALARM_VERSION:
	case CORE_ALARM_MAX:
		break;
	}
	return xstrdup("the log holds a command of a newer release: update this host");
}

static void io_alarm(void *arg, enum core_alarm what, uint32_t node, bool on)
{
	static const char *const names[CORE_ALARM_MAX] = {"disk", "digest", "history", "version", "alone"};
	struct replica *r = arg;
	_free_ char *text = NULL;

	assert(what < CORE_ALARM_MAX);
	r->alarms[what] = on;
	r->alarm_node[what] = node;
	text = alarm_text(r, what);
	if (on)
		log_error("event=alarm alarm=%s text=\"%s\"", names[what], text);
	else
		log_info("event=alarm-over alarm=%s", names[what]);
}

static unsigned io_hosts(void *arg)
{
	struct replica *r = arg;

	return r->o.machine->hosts ? r->o.machine->hosts(store_db(r->store)) : 0;
}

/* What cannot be read is taken for the worst. */
static int io_hosts_change(void *arg, const struct entry *e)
{
	struct replica *r = arg;
	json_t *command;
	int change;

	if (e->kind != ENTRY_COMMAND)
		return 0;
	command = json_loadb((const char *)e->data, e->size, 0, NULL);
	change = command && r->o.machine->hosts_change ? r->o.machine->hosts_change(command) : 1;
	json_decref(command);
	return change;
}

static const struct core_io core_io = {.send = io_send,
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
				       .hosts_change = io_hosts_change};

/* ---- what the bus tells ---- */

static void core_begin(struct replica *r)
{
	struct core_options o = {.self = r->bus->self, .version = r->o.machine->version, .io = &core_io, .arg = r};

	if (RAND_bytes((unsigned char *)&o.first_seq, sizeof(o.first_seq)) != 1)
		abort();
	o.first_seq >>= 1;
	r->self = r->bus->self;
	r->core = core_new(&o, &r->disk);
	free(steal_ptr(r->disk.tail));
	r->disk.n = 0;
}

static void on_view(void *arg, const struct bus_view *view)
{
	struct replica *r = arg;

	if (!r->core && r->bus->self)
		core_begin(r);
	if (r->bus->self != r->self) {
		log_error("event=node-id text=\"corosync calls this host node %u now, it was node %u: restart the "
			  "daemon\"",
			  r->bus->self, r->self);
		return;
	}
	r->view = *view;
	r->views++;
	log_info("event=view ring=%u.%" PRIu64 " members=%zu expected=%u quorate=%d", view->ring.node, view->ring.seq,
		 view->n, view->expected, view->quorate);
	if (r->core)
		core_view(r->core, clock_now_ns(), view);
	if (r->o.view)
		r->o.view(r->o.arg, view);
}

static void on_deliver(void *arg, uint32_t node, const uint8_t *data, size_t size)
{
	struct replica *r = arg;

	if (size > 0 && data[0] != MSG_MAGIC) {
		if (r->o.heard)
			r->o.heard(r->o.arg, node, data, size);
	} else if (r->core) {
		core_deliver(r->core, clock_now_ns(), node, data, size);
	}
}

static void on_direct(void *arg, uint32_t node, const uint8_t *data, size_t size)
{
	struct replica *r = arg;

	if (r->core)
		core_direct(r->core, clock_now_ns(), node, data, size);
}

static const struct bus_handlers bus_handlers = {.deliver = on_deliver, .view = on_view, .direct = on_direct};

/* ---- what the store tells ---- */

static void on_applied(void *arg, const struct store_applied *a)
{
	struct replica *r = arg;
	struct request *q = core_applied(r->core, a->entry);
	const struct err *e = a->err.code == ERR_NONE ? NULL : &a->err;
	json_t *empty = e || a->result ? NULL : json_object();
	const json_t *result = e ? NULL : a->result ? a->result : empty;

	r->index = a->entry->index;
	memcpy(r->chain, a->chain, sizeof(r->chain));
	if (r->o.applied && a->entry->kind == ENTRY_COMMAND && !a->repeated)
		r->o.applied(r->o.arg, a->entry->index, a->command, result, e);
	if (q) {
		q->done(q->arg, result, e);
		free(q);
	}
	json_decref(empty);
}

static void on_written(void *arg, uint64_t serial)
{
	core_written(((struct replica *)arg)->core, serial);
}

static void on_failed(void *arg, const struct err *e)
{
	struct replica *r = arg;

	r->disk_err = *e;
	core_write_failed(r->core, clock_now_ns());
}

static void on_checked(void *arg, uint64_t index, const uint8_t chain[32], const uint8_t state[32])
{
	core_checked(((struct replica *)arg)->core, index, chain, state);
}

static void on_snapshot_made(void *arg, bool ok, uint64_t size, uint64_t index)
{
	core_snapshot_made(((struct replica *)arg)->core, clock_now_ns(), ok, size, index);
}

static void on_fetch_written(void *arg, uint64_t upto)
{
	core_fetch_written(((struct replica *)arg)->core, clock_now_ns(), upto);
}

static void on_fetch_installed(void *arg, const struct core_disk *disk)
{
	struct replica *r = arg;

	if (disk) {
		r->index = disk->applied;
		memcpy(r->chain, disk->chain, sizeof(r->chain));
		log_info("event=snapshot-installed index=%" PRIu64, disk->applied);
	}
	core_fetch_installed(r->core, clock_now_ns(), disk);
}

static const struct store_handlers store_handlers = {.applied = on_applied,
						     .written = on_written,
						     .failed = on_failed,
						     .checked = on_checked,
						     .snapshot_made = on_snapshot_made,
						     .fetch_written = on_fetch_written,
						     .fetch_installed = on_fetch_installed};

/* ---- the loop ---- */

static void on_bus_fd(void *arg, unsigned ready);

/* Poll what the bus has open now. */
static void polls_update(struct replica *r)
{
	int fds[BUS_FDS_MAX];
	size_t n = bus_fds(r->bus, fds);
	bool same = n == r->n_polls;

	for (size_t i = 0; same && i < n; i++)
		same = r->polls[i].fd == fds[i];
	if (same)
		return;
	for (size_t i = 0; i < r->n_polls; i++)
		loop_io_free(r->polls[i].io);
	for (size_t i = 0; i < n; i++)
		r->polls[i] = (struct poll){fds[i], loop_io_add(r->loop, fds[i], LOOP_READ, on_bus_fd, r)};
	r->n_polls = n;
}

static void timer_update(struct replica *r, int64_t now)
{
	int64_t bus = bus_deadline(r->bus), core = r->core ? core_deadline(r->core) : -1, at = bus;

	if (at < 0 || (core >= 0 && core < at))
		at = core;
	loop_timer_set(r->timer, at < 0 ? -1 : at > now ? at - now : 0);
}

static void refused_tell(struct replica *r)
{
	struct request *q;

	while ((q = STAILQ_FIRST(&r->refused))) {
		STAILQ_REMOVE_HEAD(&r->refused, link);
		q->done(q->arg, NULL, &q->err);
		free(q);
	}
}

static struct facts facts_now(const struct replica *r)
{
	struct facts f = {.views = r->views};
	struct core_status s;

	if (!r->core)
		return f;
	core_status(r->core, &s);
	f.epoch = s.epoch;
	f.state = s.state;
	f.leader = s.leader;
	f.alone = s.alone;
	for (unsigned i = 0; i < CORE_ALARM_MAX; i++)
		f.alarms |= r->alarms[i] ? 1U << i : 0;
	return f;
}

static void changes_tell(struct replica *r)
{
	struct facts now = facts_now(r);

	if (!memcmp(&now, &r->facts, sizeof(now)))
		return;
	if (now.state != r->facts.state || now.leader != r->facts.leader)
		log_info("event=replica state=%s leader=%u epoch=%" PRIu64 " index=%" PRIu64,
			 core_state_name((enum core_state)now.state), now.leader, now.epoch, r->index);
	if (now.alone && !r->facts.alone)
		log_warning(
			"event=alone text=\"this host goes on without the other one of two: what is written now is on "
			"its disk alone until that one is back\"");
	else if (r->facts.alone && !now.alone)
		log_info("event=alone-over text=\"what was written is on both disks again\"");
	r->facts = now;
	if (r->o.changed)
		r->o.changed(r->o.arg);
}

/* Everything that is due: what the store and the bus have, the core's deadlines, what follows from them, and then the
 * answers. A local bus is due again at once; it gets a few turns before the loop's other work does. */
static void step(struct replica *r)
{
	int64_t now;

	r->busy = true;
	store_dispatch(r->store);
	for (int turn = 0; turn < TURNS_MAX; turn++) {
		now = clock_now_ns();
		bus_dispatch(r->bus, now);
		if (r->core) {
			core_tick(r->core, now);
			core_flush(r->core, now);
		}
		refused_tell(r);
		if (bus_deadline(r->bus) != 0)
			break;
	}
	changes_tell(r);
	r->busy = false;
	polls_update(r);
	timer_update(r, clock_now_ns());
}

static void on_bus_fd(void *arg, unsigned ready)
{
	(void)ready;
	step(arg);
}

static void on_store_fd(void *arg, unsigned ready)
{
	(void)ready;
	step(arg);
}

static void on_timer(void *arg)
{
	step(arg);
}

/* Many proposals in one turn of the loop become one message. */
static void step_soon(struct replica *r)
{
	if (!r->busy)
		loop_timer_set(r->timer, 0);
}

/* ---- for the daemon ---- */

int replica_propose(struct replica *r, const json_t *command, replica_done_fn *done, void *arg, struct err *e)
{
	json_int_t version =
		json_is_integer(json_object_get(command, "v")) ? json_integer_value(json_object_get(command, "v")) : 1;
	_free_ char *text = json_is_object(command) ? json_dumps(command, JSON_COMPACT) : NULL;
	size_t size = text ? strlen(text) : 0;
	enum core_refusal why;
	struct request *q;
	uint32_t known;

	if (!text || version < 0 || version > UINT32_MAX)
		return err_set(e, ERR_INPUT, "a command must be a JSON object");
	if (size > ENTRY_DATA_MAX)
		return err_set(e, ERR_INPUT, "a command of %zu bytes is too large, at most %u are allowed", size,
			       ENTRY_DATA_MAX);
	if (!r->core)
		return err_set(e, ERR_UNAVAILABLE,
			       "this host's corosync is not running or has no quorum yet; nothing was changed");
	q = xcalloc(1, sizeof(*q));
	q->done = done;
	q->arg = arg;
	if (core_propose(r->core, clock_now_ns(), (uint32_t)version, text, size, q, &why, &known) < 0) {
		free(q);
		return refusal_text(r, why, known, e);
	}
	step_soon(r);
	return 0;
}

uint64_t replica_by_itself(const struct replica *r)
{
	struct core_status s = {0};

	if (r->core)
		core_status(r->core, &s);
	return s.by_itself;
}

bool replica_may_alone(const struct replica *r)
{
	struct core_status s = {0};

	if (r->core)
		core_status(r->core, &s);
	return s.may_alone;
}

bool replica_alone(const struct replica *r)
{
	struct core_status s = {0};

	if (r->core)
		core_status(r->core, &s);
	return s.alone;
}

void replica_dead(struct replica *r, uint32_t node, uint64_t by_itself)
{
	if (!r->core || by_itself == 0)
		return;
	core_dead(r->core, node, by_itself);
	step_soon(r);
}

void replica_say(struct replica *r, const void *data, size_t size)
{
	struct err e = ERR_INIT;

	assert(size > 0 && *(const uint8_t *)data != MSG_MAGIC);
	if (bus_send_urgent(r->bus, data, size, &e) < 0)
		log_debug("event=bus-send error=\"%s\"", e.text);
	step_soon(r);
}

struct sqlite3 *replica_db(struct replica *r)
{
	return store_db(r->store);
}

json_t *replica_status(struct replica *r)
{
	char digest[2 * sizeof(r->chain) + 1];
	json_t *members = json_array(), *alarms = json_array(), *o;
	struct core_status s = {0};

	if (r->core)
		core_status(r->core, &s);
	for (size_t i = 0; i < sizeof(r->chain); i++)
		snprintf(digest + 2 * i, 3, "%02x", r->chain[i]);
	for (size_t i = 0; i < r->view.n; i++)
		json_array_append_new(members, json_integer(r->view.members[i]));
	for (int i = 0; i < CORE_ALARM_MAX; i++) {
		_free_ char *text = r->alarms[i] ? alarm_text(r, (enum core_alarm)i) : NULL;

		if (text)
			json_array_append_new(alarms, json_string(text));
	}
	o = json_pack("{s:s, s:b, s:i, s:i, s:o, s:i, s:I, s:I, s:s, s:o, s:i}", "state", core_state_name(s.state),
		      "quorate", s.quorate, "expected", (int)r->view.expected, "needed", (int)r->view.needed, "members",
		      members, "leader", (int)s.leader, "epoch", (json_int_t)s.epoch, "index", (json_int_t)r->index,
		      "digest", digest, "alarms", alarms, "pending", (int)s.pending);
	if (s.alone)
		json_object_set_new(o, "alone", json_true());
	if (s.fresh_ns)
		json_object_set_new(o, "age_ms", json_integer((clock_now_ns() - s.fresh_ns) / NS_PER_MS));
	return o;
}

bool replica_synced(const struct replica *r)
{
	return r->core && core_writable(r->core);
}

bool replica_leads(const struct replica *r)
{
	struct core_status s;

	if (!replica_synced(r))
		return false;
	core_status(r->core, &s);
	return s.leading;
}

uint32_t replica_self(const struct replica *r)
{
	return r->self;
}

bool replica_member(const struct replica *r, uint32_t node)
{
	for (size_t i = 0; i < r->view.n; i++)
		if (r->view.members[i] == node)
			return true;
	return false;
}

/* ---- life ---- */

int replica_new(struct loop *loop, const struct replica_options *o, struct replica **ret, struct err *e)
{
	struct replica *r = xcalloc(1, sizeof(*r));
	struct store_options so = {
		.path = o->path, .machine = o->machine, .history = o->history, .handlers = &store_handlers, .arg = r};

	r->o = *o;
	r->o.path = xstrdup(o->path);
	r->loop = loop;
	r->bus = o->bus;
	STAILQ_INIT(&r->refused);
	if (store_open(&so, &r->store, &r->disk, e) < 0) {
		bus_free(r->bus);
		free((char *)r->o.path);
		free(r);
		return -1;
	}
	r->index = r->disk.applied;
	memcpy(r->chain, r->disk.chain, sizeof(r->chain));
	bus_listen(r->bus, &bus_handlers, r);
	r->store_io = loop_io_add(loop, store_fd(r->store), LOOP_READ, on_store_fd, r);
	r->timer = loop_timer_add(loop, 0, 0, on_timer, r);
	*ret = r;
	return 0;
}

void replica_free(struct replica *r)
{
	if (!r)
		return;
	core_free(r->core);
	r->core = NULL;
	refused_tell(r);
	for (size_t i = 0; i < r->n_polls; i++)
		loop_io_free(r->polls[i].io);
	loop_io_free(r->store_io);
	loop_timer_free(r->timer);
	bus_free(r->bus);
	store_close(r->store);
	for (size_t i = 0; i < r->disk.n; i++)
		entry_unref(r->disk.tail[i]);
	free(r->disk.tail);
	free((char *)r->o.path);
	free(r);
}
