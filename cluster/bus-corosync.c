/* SPDX-License-Identifier: Apache-2.0 */
/* The bus on this host's corosync: process group, quorum service and configuration, as they come and go. */

/*
 * Theory of operation
 *
 * Three connections to the corosync of this host: CPG carries messages, the quorum service says who is there and
 * whether they may go on, cmap says how many hosts are configured. cluster/bus-view.h makes one view of what they say.
 * While the quorum service has not yet named the ring that the process group is on, the group is not heard: what comes
 * next belongs to a view that cannot be told yet. That takes a moment; after HOLD_LIMIT the members are told that they
 * have no quorum, and the group is heard again. Words to one member go past corosync (cluster/bus-direct.h), to the
 * addresses that cmap has of its host.
 *
 * Traps (docs/cluster.md names their tests):
 *   - CS_ERR_TRY_AGAIN is flow control, and the answer while the ring changes: the message stays in the queue and
 *     is tried again after RETRY.
 *   - A large message keeps others waiting: what is larger than PIECE is split. A beat must not wait behind a snapshot
 *     at all, so urgent messages have a queue of their own, which goes first.
 *   - The connection ends with every restart of corosync. What was queued is lost, a view without members is told,
 *     and the connection is tried every RECONNECT.
 *   - During a reload of corosync.conf its list of nodes is taken down and built anew: it is read twice, and used
 *     when both times it was the same.
 *   - Members that come or go with their hosts are told just before the ring that they are on; should it ever be
 *     the other way round, that is over after MOVING_LIMIT.
 *   - A corosync that is stopped (SIGSTOP) blocks whoever calls it, because its IPC has no time-out. Nothing wrong is
 *     decided, but this host answers late.
 */
#include <corosync/cmap.h>
#include <corosync/cpg.h>
#include <corosync/quorum.h>
#include <errno.h>
#include <openssl/rand.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/bus-direct.h"
#include "cluster/bus-view.h"
#include "cluster/frag.h"

#define PIECE (256U << 10) /* bytes of a message in one message of CPG, which takes up to 1 MiB */
#define QUEUE_BYTES_MAX (64U << 20)
#define RETRY (1 * NS_PER_MS)
#define RECONNECT (250 * NS_PER_MS)
#define HOLD_LIMIT (2 * NS_PER_S)
#define MOVING_LIMIT (500 * NS_PER_MS)
#define MESSAGES_MAX 256 /* in one dispatch; then others get their turn */

enum { FD_GROUP, FD_QUORUM, FD_CMAP, FD_MAX };

struct queued {
	STAILQ_ENTRY(queued) link;
	size_t size, sent; /* bytes */
	uint32_t number;
	uint8_t data[];
};

struct bus_corosync {
	struct bus bus;
	struct cpg_name name;
	bool connected, broken; /* broken: some call failed; the next dispatch ends the connection */
	bool refused;           /* connecting failed, and that was logged */
	int64_t connect_at;
	cpg_handle_t cpg;
	quorum_handle_t quorum;
	cmap_handle_t cmap;
	int fds[FD_MAX];

	struct bus_group group;
	int64_t moving_since;
	struct bus_quorum hosts;
	struct bus_nodes nodes;
	bool nodes_stale;
	struct direct *direct; /* NULL: its port could not be had */
	bool hello_due;        /* somebody may not know how this member is reached */
	int64_t hold_since;    /* the group is not heard; 0: it is */
	bool hold_over;        /* for too long */
	struct bus_view view;

	STAILQ_HEAD(queue, queued) queue, urgent;
	size_t queue_bytes; /* of both */
	int64_t retry_at;
	uint32_t number;
	struct frag_joiner *joiner;
};

static struct bus_corosync *corosync_of(struct bus *b)
{
	return (struct bus_corosync *)b;
}

static bool failed(struct bus_corosync *c, const char *what, cs_error_t error)
{
	if (error == CS_OK || error == CS_ERR_TRY_AGAIN)
		return false;
	log_debug("event=corosync call=%s error=%d", what, (int)error);
	c->broken = true;
	return true;
}

/* ---- sending ---- */

static struct queued *queue_pop(struct bus_corosync *c, struct queue *from)
{
	struct queued *q = STAILQ_FIRST(from);

	if (q) {
		STAILQ_REMOVE_HEAD(from, link);
		c->queue_bytes -= q->size;
	}
	return q;
}

static void queue_clear(struct bus_corosync *c)
{
	struct queued *q;

	while ((q = queue_pop(c, &c->urgent)) || (q = queue_pop(c, &c->queue)))
		free(q);
}

/* Send what is left of a message from @sent on. Returns how far it came. */
static size_t pieces_send(struct bus_corosync *c, uint32_t number, const uint8_t *data, size_t size, size_t sent)
{
	do {
		uint8_t header[FRAG_HEADER_SIZE];
		size_t n = size - sent < PIECE ? size - sent : PIECE;
		struct iovec iov[2] = {{header, sizeof(header)}, {(void *)(data + sent), n}};
		cs_error_t error;

		frag_header(header, number, (uint32_t)size, (uint32_t)sent);
		error = cpg_mcast_joined(c->cpg, CPG_TYPE_AGREED, iov, 2);
		if (failed(c, "cpg_mcast_joined", error))
			return sent;
		if (error == CS_ERR_TRY_AGAIN) {
			c->retry_at = clock_now_ns() + RETRY;
			return sent;
		}
		sent += n;
	} while (sent < size);
	return sent;
}

static void queue_send(struct bus_corosync *c, int64_t now)
{
	struct queued *q;

	if (now < c->retry_at)
		return;
	while (!c->broken) {
		struct queue *from = STAILQ_EMPTY(&c->urgent) ? &c->queue : &c->urgent;

		q = STAILQ_FIRST(from);
		if (!q)
			return;
		q->sent = pieces_send(c, q->number, q->data, q->size, q->sent);
		if (q->sent < q->size)
			return;
		free(queue_pop(c, from));
	}
}

static bool corosync_send_to(struct bus *b, uint32_t node, const void *data, size_t size)
{
	struct bus_corosync *c = corosync_of(b);

	return c->connected && c->direct && direct_send(c->direct, node, data, size);
}

static int corosync_send(struct bus *b, const void *data, size_t size, bool urgent, struct err *e)
{
	struct bus_corosync *c = corosync_of(b);
	size_t sent = 0, limit = urgent ? BUS_URGENT_MAX : BUS_MESSAGE_MAX;
	struct queue *to = urgent ? &c->urgent : &c->queue;
	struct queued *q;

	if (size == 0 || size > limit)
		return err_set(e, ERR_INPUT, "a message of %zu bytes, at most %zu are allowed", size, limit);
	if (!c->connected)
		return 0; /* lost */
	if (c->queue_bytes + size > QUEUE_BYTES_MAX)
		return err_set(e, ERR_UNSUPPORTED, "%zu bytes wait for the bus already", c->queue_bytes);
	c->number++;
	if (STAILQ_EMPTY(&c->urgent) && (urgent || STAILQ_EMPTY(&c->queue)))
		sent = pieces_send(c, c->number, data, size, 0);
	if (sent == size || c->broken)
		return 0;
	q = xcalloc(1, sizeof(*q) + size);
	q->size = size;
	q->sent = sent;
	q->number = c->number;
	memcpy(q->data, data, size);
	c->queue_bytes += size;
	STAILQ_INSERT_TAIL(to, q, link);
	return 0;
}

/* ---- what corosync tells ---- */

static struct bus_corosync *of_cpg(cpg_handle_t handle)
{
	void *context = NULL;

	if (cpg_context_get(handle, &context) != CS_OK)
		abort();
	return context;
}

static struct bus_corosync *of_quorum(quorum_handle_t handle)
{
	const void *context = NULL;

	if (quorum_context_get(handle, &context) != CS_OK)
		abort();
	return (struct bus_corosync *)context;
}

static void on_hello(struct bus_corosync *c, uint32_t node, const uint8_t *data, size_t size)
{
	struct err e = ERR_INIT;
	int r = direct_on_hello(c->direct, node, data, size, &e);

	if (r < 0)
		log_debug("event=bus-hello node=%u error=\"%s\"", node, e.text);
	c->hello_due = c->hello_due || r > 0;
}

static void on_deliver(cpg_handle_t handle, const struct cpg_name *group, uint32_t node, uint32_t pid, void *data,
		       size_t size)
{
	struct bus_corosync *c = of_cpg(handle);
	const uint8_t *whole;
	size_t whole_size;
	struct err e = ERR_INIT;
	int r = frag_joiner_take(c->joiner, node, data, size, &whole, &whole_size, &e);

	(void)group;
	(void)pid;
	if (r < 0)
		log_debug("event=bus-piece node=%u error=\"%s\"", node, e.text);
	if (r <= 0)
		return;
	if (whole[0] != DIRECT_MAGIC)
		c->bus.handlers.deliver(c->bus.arg, node, whole, whole_size);
	else if (c->direct)
		on_hello(c, node, whole, whole_size);
}

static void on_direct(void *arg, uint32_t node, const uint8_t *data, size_t size)
{
	struct bus_corosync *c = arg;

	c->bus.handlers.direct(c->bus.arg, node, data, size);
}

/* Members that come or go together with their hosts are followed by the ring that says so. */
static bool with_host(const struct cpg_address *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].reason == CPG_REASON_NODEUP || list[i].reason == CPG_REASON_NODEDOWN)
			return true;
	return false;
}

static void on_confchg(cpg_handle_t handle, const struct cpg_name *group, const struct cpg_address *members, size_t n,
		       const struct cpg_address *left, size_t n_left, const struct cpg_address *joined, size_t n_joined)
{
	struct bus_corosync *c = of_cpg(handle);

	(void)group;
	c->group.n = 0;
	for (size_t i = 0; i < n && c->group.n < BUS_NODES_MAX; i++)
		c->group.members[c->group.n++] = members[i].nodeid;
	for (size_t i = 0; i < n_left; i++)
		frag_joiner_forget(c->joiner, left[i].nodeid);
	if (with_host(left, n_left) || with_host(joined, n_joined)) {
		c->group.moving = true;
		c->moving_since = clock_now_ns();
	}
}

static void on_totem_confchg(cpg_handle_t handle, struct cpg_ring_id ring, uint32_t n, const uint32_t *members)
{
	struct bus_corosync *c = of_cpg(handle);

	(void)n;
	(void)members;
	c->group.ring = (struct bus_ring){ring.nodeid, ring.seq};
	c->group.moving = false;
}

static void on_quorum(quorum_handle_t handle, uint32_t quorate, struct quorum_ring_id ring, uint32_t n,
		      const uint32_t *members)
{
	struct bus_corosync *c = of_quorum(handle);

	c->hosts = (struct bus_quorum){.ring = {ring.nodeid, ring.seq}, .quorate = quorate};
	for (uint32_t i = 0; i < n && c->hosts.n < BUS_NODES_MAX; i++)
		c->hosts.members[c->hosts.n++] = members[i];
}

static void on_nodelist(quorum_handle_t handle, struct quorum_ring_id ring, uint32_t n, const uint32_t *members,
			uint32_t n_joined, const uint32_t *joined, uint32_t n_left, const uint32_t *left)
{
	/* The notification of quorum that follows says the same and more; libquorum wants the function. */
	(void)handle;
	(void)ring;
	(void)n;
	(void)members;
	(void)n_joined;
	(void)joined;
	(void)n_left;
	(void)left;
}

static void on_cmap(cmap_handle_t handle, cmap_track_handle_t track, int32_t event, const char *key,
		    struct cmap_notify_value new_value, struct cmap_notify_value old_value, void *arg)
{
	struct bus_corosync *c = arg;

	(void)handle;
	(void)track;
	(void)event;
	(void)key;
	(void)new_value;
	(void)old_value;
	c->nodes_stale = true;
}

/* ---- the list of nodes ---- */

static bool nodes_read_once(struct bus_corosync *c, struct bus_nodes *ret)
{
	char key[CMAP_KEYNAME_MAXLEN + 1];
	cmap_iter_handle_t iter;
	cs_error_t error;
	uint32_t id;

	ret->n = 0;
	if (cmap_iter_init(c->cmap, "nodelist.node.", &iter) != CS_OK)
		return false;
	while ((error = cmap_iter_next(c->cmap, iter, key, NULL, NULL)) == CS_OK) {
		const char *last = strrchr(key, '.');

		if (!strcmp(last, ".nodeid") && cmap_get_uint32(c->cmap, key, &id) == CS_OK && ret->n < BUS_NODES_MAX)
			ret->ids[ret->n++] = id;
	}
	cmap_iter_finalize(c->cmap, iter);
	return error == CS_ERR_NO_SECTIONS;
}

static bool nodes_read(struct bus_corosync *c)
{
	struct bus_nodes once, again;

	if (!nodes_read_once(c, &once) || !nodes_read_once(c, &again) || once.n != again.n ||
	    memcmp(once.ids, again.ids, once.n * sizeof(once.ids[0])) != 0)
		return false;
	c->nodes = again;
	return true;
}

/* The addresses of the host whose id stands at @key, "nodelist.node.N.nodeid". */
static void addresses_read(struct bus_corosync *c, const char *key, struct direct_host *ret)
{
	int prefix = (int)(strrchr(key, '.') - key);

	for (unsigned i = 0; i < DIRECT_LINKS_MAX; i++) {
		char name[CMAP_KEYNAME_MAXLEN + 1], *address;

		snprintf(name, sizeof(name), "%.*s.ring%u_addr", prefix, key, i);
		if (cmap_get_string(c->cmap, name, &address) != CS_OK)
			continue;
		snprintf(ret->addresses[i], sizeof(ret->addresses[i]), "%s", address);
		free(address);
	}
}

/* Where the hosts are, for words to one of them. False: the list was being built anew. */
static bool hosts_read(struct bus_corosync *c)
{
	struct direct_host hosts[BUS_NODES_MAX] = {0};
	char key[CMAP_KEYNAME_MAXLEN + 1];
	cmap_iter_handle_t iter;
	size_t n = 0;

	if (!c->direct)
		return true;
	if (cmap_iter_init(c->cmap, "nodelist.node.", &iter) != CS_OK)
		return false;
	while (n < c->nodes.n && cmap_iter_next(c->cmap, iter, key, NULL, NULL) == CS_OK)
		if (!strcmp(strrchr(key, '.'), ".nodeid") && cmap_get_uint32(c->cmap, key, &hosts[n].id) == CS_OK &&
		    hosts[n].id == c->nodes.ids[n])
			addresses_read(c, key, &hosts[n++]);
	cmap_iter_finalize(c->cmap, iter);
	if (n < c->nodes.n)
		return false;
	direct_hosts(c->direct, c->bus.self, hosts, n);
	c->hello_due = c->view.n > 1;
	return true;
}

/* ---- the connection ---- */

static void disconnect(struct bus_corosync *c, int64_t now)
{
	if (c->cpg)
		cpg_finalize(c->cpg);
	if (c->quorum)
		quorum_finalize(c->quorum);
	if (c->cmap)
		cmap_finalize(c->cmap);
	c->cpg = 0;
	c->quorum = 0;
	c->cmap = 0;
	c->connected = c->broken = false;
	c->connect_at = now + RECONNECT;
	c->hold_since = 0;
	c->hold_over = false;
	c->group = (struct bus_group){0};
	c->hosts = (struct bus_quorum){0};
	queue_clear(c);
	frag_joiner_free(c->joiner);
	c->joiner = frag_joiner_new(BUS_MESSAGE_MAX);
}

static void view_tell(struct bus_corosync *c, const struct bus_view *v)
{
	if (bus_view_equal(v, &c->view))
		return;
	c->view = *v;
	c->bus.handlers.view(c->bus.arg, v);
	c->hello_due = v->n > 1;
}

/* @service_quorate: corosync is there, and says so. */
static void view_tell_nobody(struct bus_corosync *c, bool service_quorate)
{
	struct bus_view v = {.ring = c->view.ring,
			     .service_quorate = service_quorate,
			     .needed = c->view.needed,
			     .expected = c->view.expected};

	memcpy(v.configured, c->view.configured, sizeof(v.configured));
	view_tell(c, &v);
}

static int refuse(const char **ret_what, const char *what)
{
	*ret_what = what;
	return -1;
}

static int open_group(struct bus_corosync *c, const char **ret_what)
{
	cpg_model_v1_data_t model = {.model = CPG_MODEL_V1,
				     .cpg_deliver_fn = on_deliver,
				     .cpg_confchg_fn = on_confchg,
				     .cpg_totem_confchg_fn = on_totem_confchg,
				     .flags = CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF};
	unsigned int self = 0;

	if (cpg_model_initialize(&c->cpg, CPG_MODEL_V1, (cpg_model_data_t *)&model, c) != CS_OK) {
		c->cpg = 0;
		return refuse(ret_what, "corosync does not run, or is just starting");
	}
	if (cpg_local_get(c->cpg, &self) != CS_OK || self == 0 || cpg_fd_get(c->cpg, &c->fds[FD_GROUP]) != CS_OK)
		return refuse(ret_what, "corosync does not say which node this is");
	c->bus.self = self;
	if (cpg_join(c->cpg, &c->name) != CS_OK)
		return refuse(ret_what, "corosync is busy with its members");
	return 0;
}

static int open_quorum(struct bus_corosync *c, const char **ret_what)
{
	quorum_model_v1_data_t model = {
		.model = QUORUM_MODEL_V1, .quorum_notify_fn = on_quorum, .nodelist_notify_fn = on_nodelist};
	uint32_t type = QUORUM_FREE;

	if (quorum_model_initialize(&c->quorum, QUORUM_MODEL_V1, (quorum_model_data_t *)&model, &type, c) != CS_OK) {
		c->quorum = 0;
		return refuse(ret_what, "the quorum service of corosync does not answer");
	}
	if (type != QUORUM_SET)
		return refuse(ret_what, "corosync.conf names no quorum provider: corosync_votequorum is needed");
	if (quorum_fd_get(c->quorum, &c->fds[FD_QUORUM]) != CS_OK ||
	    quorum_trackstart(c->quorum, CS_TRACK_CHANGES | CS_TRACK_CURRENT) != CS_OK)
		return refuse(ret_what, "the quorum service of corosync does not answer");
	return 0;
}

static int open_cmap(struct bus_corosync *c, const char **ret_what)
{
	cmap_track_handle_t track;

	if (cmap_initialize(&c->cmap) != CS_OK) {
		c->cmap = 0;
		return refuse(ret_what, "the configuration of corosync cannot be read");
	}
	if (cmap_fd_get(c->cmap, &c->fds[FD_CMAP]) != CS_OK ||
	    cmap_track_add(c->cmap, "nodelist.",
			   CMAP_TRACK_PREFIX | CMAP_TRACK_ADD | CMAP_TRACK_DELETE | CMAP_TRACK_MODIFY, on_cmap, c,
			   &track) != CS_OK)
		return refuse(ret_what, "the configuration of corosync cannot be read");
	c->nodes_stale = true;
	return 0;
}

static void connect_corosync(struct bus_corosync *c, int64_t now)
{
	const char *what = NULL;

	if (open_cmap(c, &what) < 0 || open_quorum(c, &what) < 0 || open_group(c, &what) < 0) {
		if (!c->refused)
			log_warning("event=corosync-away text=\"%s; tried again until it works\"", what);
		c->refused = true;
		disconnect(c, now);
		return;
	}
	c->refused = false;
	c->connected = true;
	c->retry_at = 0;
	log_info("event=corosync-connected node=%u", c->bus.self);
}

/* ---- dispatching ---- */

/* Tell the view if it can be made. False: the group must not be heard now. */
static bool view_update(struct bus_corosync *c, int64_t now)
{
	struct bus_view v;
	enum bus_view_verdict verdict;

	if (!c->hosts.ring.node && !c->group.ring.node)
		return true; /* nothing has been said yet */
	if (c->group.moving && now >= c->moving_since + MOVING_LIMIT)
		c->group.moving = false; /* the ring had been told before its members */
	verdict = bus_view_make(&c->group, &c->hosts, &c->nodes, c->bus.self, &v);
	if (verdict == BUS_VIEW_READY) {
		c->hold_since = 0;
		c->hold_over = false;
		view_tell(c, &v);
		return true;
	}
	if (verdict == BUS_VIEW_GROUP_BEHIND)
		return true;
	/* With a quorum device it takes its time: up to ten tokens, in which one of two hosts is not to end its guests.
	 */
	if (c->hold_over) {
		if (c->view.service_quorate != c->hosts.quorate)
			view_tell_nobody(c, c->hosts.quorate);
		return true;
	}
	if (c->hold_since == 0)
		c->hold_since = now;
	if (now < c->hold_since + HOLD_LIMIT)
		return false;
	c->hold_over = true;
	log_warning("event=quorum-service-behind text=\"it does not name the ring that the members are on\"");
	view_tell_nobody(c, c->hosts.quorate);
	return true;
}

static void group_dispatch(struct bus_corosync *c, int64_t now)
{
	for (int i = 0; i < MESSAGES_MAX && view_update(c, now); i++) {
		cs_error_t error = cpg_dispatch(c->cpg, CS_DISPATCH_ONE_NONBLOCKING);

		if (failed(c, "cpg_dispatch", error) || error == CS_ERR_TRY_AGAIN)
			return;
	}
}

static void hello_send(struct bus_corosync *c)
{
	uint8_t hello[DIRECT_HELLO_SIZE];

	if (!c->direct || !c->hello_due)
		return;
	direct_hello(c->direct, hello);
	c->hello_due = bus_send_urgent(&c->bus, hello, sizeof(hello), NULL) < 0;
}

static void connection_dispatch(struct bus_corosync *c, int64_t now)
{
	struct pollfd p[FD_MAX];

	for (int i = 0; i < FD_MAX; i++)
		p[i] = (struct pollfd){.fd = c->fds[i], .events = POLLIN};
	if (poll(p, FD_MAX, 0) < 0)
		return;
	if (p[FD_CMAP].revents)
		failed(c, "cmap_dispatch", cmap_dispatch(c->cmap, CS_DISPATCH_ALL));
	if (c->nodes_stale && nodes_read(c))
		c->nodes_stale = !hosts_read(c);
	if (c->direct)
		direct_dispatch(c->direct, now);
	if (p[FD_QUORUM].revents)
		failed(c, "quorum_dispatch", quorum_dispatch(c->quorum, CS_DISPATCH_ALL));
	if (p[FD_GROUP].revents)
		group_dispatch(c, now);
	view_update(c, now);
	hello_send(c);
	queue_send(c, now);
}

static void corosync_dispatch(struct bus *b, int64_t now_ns)
{
	struct bus_corosync *c = corosync_of(b);

	if (!c->connected) {
		if (now_ns >= c->connect_at)
			connect_corosync(c, now_ns);
		return; /* its descriptors are new: they are polled before they are read */
	}
	if (!c->broken)
		connection_dispatch(c, now_ns);
	if (!c->broken)
		return;
	log_warning("event=corosync-away text=\"the connection to corosync ended; tried again until it works\"");
	c->refused = true;
	disconnect(c, now_ns);
	view_tell_nobody(c, false);
}

static size_t corosync_fds(struct bus *b, int ret[BUS_FDS_MAX])
{
	struct bus_corosync *c = corosync_of(b);
	size_t n = 0;

	if (!c->connected)
		return 0;
	ret[n++] = c->fds[FD_QUORUM];
	ret[n++] = c->fds[FD_CMAP];
	if (c->hold_since == 0 || c->hold_over)
		ret[n++] = c->fds[FD_GROUP];
	if (c->direct)
		ret[n++] = direct_fd(c->direct);
	return n;
}

static int64_t corosync_deadline(struct bus *b)
{
	struct bus_corosync *c = corosync_of(b);
	int64_t at = -1;

	if (!c->connected)
		return c->connect_at > 0 ? c->connect_at : 1;
	if (c->broken)
		return 1;
	if (!STAILQ_EMPTY(&c->queue) || !STAILQ_EMPTY(&c->urgent))
		at = c->retry_at > 0 ? c->retry_at : 1;
	if (c->nodes_stale) { /* it changed while it was read */
		int64_t soon = clock_now_ns() + RETRY;

		at = at < 0 || soon < at ? soon : at;
	}
	if (c->hold_since && !c->hold_over && (at < 0 || c->hold_since + HOLD_LIMIT < at))
		at = c->hold_since + HOLD_LIMIT;
	if (c->group.moving && (at < 0 || c->moving_since + MOVING_LIMIT < at))
		at = c->moving_since + MOVING_LIMIT;
	if (c->direct && direct_deadline(c->direct) > 0 && (at < 0 || direct_deadline(c->direct) < at))
		at = direct_deadline(c->direct);
	return at;
}

static void corosync_free(struct bus *b)
{
	struct bus_corosync *c = corosync_of(b);

	disconnect(c, 0);
	frag_joiner_free(c->joiner);
	direct_free(c->direct);
	free(c);
}

struct bus *bus_corosync_new(const char *group, uint16_t port)
{
	static const struct bus_ops ops = {.send = corosync_send,
					   .send_to = corosync_send_to,
					   .fds = corosync_fds,
					   .deadline = corosync_deadline,
					   .dispatch = corosync_dispatch,
					   .free = corosync_free};
	struct bus_corosync *c = xcalloc(1, sizeof(*c));
	struct err e = ERR_INIT;

	c->bus.ops = &ops;
	c->name.length = (uint32_t)snprintf(c->name.value, sizeof(c->name.value), "%s", group);
	STAILQ_INIT(&c->queue);
	STAILQ_INIT(&c->urgent);
	if (RAND_bytes((unsigned char *)&c->number, sizeof(c->number)) != 1)
		abort();
	c->direct = direct_new(port, on_direct, c, &e);
	if (!c->direct)
		log_warning(
			"event=bus-direct error=\"%s\" text=\"members answer this host over corosync alone, which is "
			"slower\"",
			e.text);
	disconnect(c, -RECONNECT);
	return &c->bus;
}
