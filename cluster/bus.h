/* SPDX-License-Identifier: Apache-2.0 */
/* The bus: messages to all members in one total order, and views that say who the members are. */
#ifndef GODWIT_CLUSTER_BUS_H
#define GODWIT_CLUSTER_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * A bus has two implementations for hosts (bus-local.c, one host alone; bus-corosync.c) and one for tests (tests/sim).
 * It promises little, because nothing that must never go wrong rests on it (cluster/core.h says why):
 *
 *   - inside a view, members get messages in one order, their own included, and a sender's messages in the order sent,
 *     urgent ones apart;
 *   - messages of a view come after the view itself;
 *   - a message may be lost when the view changes. Around such a change members may see different views for a while,
 *     and a member that was cut off may have been given messages with gaps before it learns that it was.
 *
 * Beside that order a bus may have a way to one member alone, which promises nothing: bus_send_to().
 *
 * A bus has no loop and no thread: whoever owns it polls its descriptors and calls bus_dispatch() when one is readable
 * or when the deadline has come.
 */

#define BUS_NODES_MAX 64
#define BUS_FDS_MAX 4
#define BUS_DIRECT_MAX 1024U
#define BUS_MESSAGE_MAX (8U << 20)
#define BUS_URGENT_MAX (16U << 10)

/* Names a view: no two views of a cluster have the same ring and different members, apart from members whose process
 * joins or leaves while its host stays. */
struct bus_ring {
	uint32_t node;
	uint64_t seq;
};

struct bus_view {
	struct bus_ring ring;
	uint32_t members[BUS_NODES_MAX]; /* ascending */
	size_t n;
	bool quorate;         /* the quorum service says that this side may go on */
	bool service_quorate; /* so it says, with votes of a quorum device, or one of two hosts; the log needs more */
	unsigned needed;      /* hosts that are a majority of the configured */
	unsigned expected;    /* hosts configured, each with one vote */
	uint32_t configured[BUS_NODES_MAX]; /* their ids, ascending */
	uint32_t reached[BUS_NODES_MAX];    /* of those, whose host answers, whether its member does or not; no order */
	size_t n_reached;
};

/* Called out of bus_dispatch() only. */
struct bus_handlers {
	void (*deliver)(void *arg, uint32_t node, const uint8_t *data, size_t size);
	void (*view)(void *arg, const struct bus_view *view);
	void (*direct)(void *arg, uint32_t node, const uint8_t *data, size_t size); /* what bus_send_to() sent */
};

struct bus;

/* What an implementation fills in; struct bus is the first member of its own struct. */
struct bus_ops {
	int (*send)(struct bus *b, const void *data, size_t size, bool urgent, struct err *e);
	bool (*send_to)(struct bus *b, uint32_t node, const void *data, size_t size); /* NULL: no such way */
	size_t (*fds)(struct bus *b, int ret[BUS_FDS_MAX]);
	int64_t (*deadline)(struct bus *b);
	void (*dispatch)(struct bus *b, int64_t now_ns);
	void (*free)(struct bus *b);
};

struct bus {
	const struct bus_ops *ops;
	struct bus_handlers handlers;
	void *arg;
	uint32_t self; /* this host's id, 0 while it is not known */
};

/* Who gets messages and views; before the first dispatch. */
static inline void bus_listen(struct bus *b, const struct bus_handlers *handlers, void *arg)
{
	b->handlers = *handlers;
	b->arg = arg;
}

/* Queue a message of at most BUS_MESSAGE_MAX bytes to all members, this one too. Flow control and a bus that is away
 * are the bus's own business: it queues and retries, and what a lost connection takes along is lost as if the view had
 * changed. -1 with @e when the queue is full (ERR_UNSUPPORTED) or the message too large (ERR_INPUT). */
static inline int bus_send(struct bus *b, const void *data, size_t size, struct err *e)
{
	return b->ops->send(b, data, size, false, e);
}

/* The same for a small message (BUS_URGENT_MAX bytes) that does not wait for those that are queued: it comes before
 * them, and between the pieces of a large one. The order among urgent messages is kept. */
static inline int bus_send_urgent(struct bus *b, const void *data, size_t size, struct err *e)
{
	return b->ops->send(b, data, size, true, e);
}

/* Send at most BUS_DIRECT_MAX bytes to @node alone, past the order and at once. They may be lost, come late, twice,
 * before or after anything else, and out of a view that is over; but they are that member's. False: there is no such
 * way now, tell everybody. */
static inline bool bus_send_to(struct bus *b, uint32_t node, const void *data, size_t size)
{
	return b->ops->send_to && b->ops->send_to(b, node, data, size);
}

/* The descriptors to poll for reading. They may change with every dispatch; one that was closed is missing for at least
 * one of them, so that its number can come again. */
static inline size_t bus_fds(struct bus *b, int ret[BUS_FDS_MAX])
{
	return b->ops->fds(b, ret);
}

/* When to dispatch although no descriptor is readable: clock_now_ns(), or -1 for never. */
static inline int64_t bus_deadline(struct bus *b)
{
	return b->ops->deadline(b);
}

/* Hand out what has come. Never blocks. */
static inline void bus_dispatch(struct bus *b, int64_t now_ns)
{
	b->ops->dispatch(b, now_ns);
}

/* @b may be NULL. */
static inline void bus_free(struct bus *b)
{
	if (b)
		b->ops->free(b);
}

static inline bool bus_ring_equal(struct bus_ring a, struct bus_ring b)
{
	return a.node == b.node && a.seq == b.seq;
}

/* One host alone: what is sent comes back. Quorate from the first dispatch on. Caller frees. */
struct bus *bus_local_new(uint32_t self);

/* The corosync of this host, which may come and go; @group names the process group, @port is that of the datagrams that
 * go past it (0: any). Caller frees. */
struct bus *bus_corosync_new(const char *group, uint16_t port);

#endif
