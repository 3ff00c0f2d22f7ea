/* SPDX-License-Identifier: Apache-2.0 */
/* The bus of one host alone: what is sent comes back. */
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/mem.h"
#include "cluster/bus.h"

#define QUEUE_BYTES_MAX (64U << 20)

struct queued {
	STAILQ_ENTRY(queued) link;
	size_t size;
	uint8_t data[];
};

struct bus_local {
	struct bus bus;
	bool viewed; /* the view was told */
	STAILQ_HEAD(, queued) queue;
	size_t queue_n, queue_bytes;
};

static struct bus_local *local_of(struct bus *b)
{
	return (struct bus_local *)b;
}

static int local_send(struct bus *b, const void *data, size_t size, bool urgent, struct err *e)
{
	struct bus_local *l = local_of(b);
	struct queued *q;

	size_t limit = urgent ? BUS_URGENT_MAX : BUS_MESSAGE_MAX;

	if (size > limit)
		return err_set(e, ERR_INPUT, "a message of %zu bytes, at most %zu are allowed", size, limit);
	if (l->queue_bytes + size > QUEUE_BYTES_MAX)
		return err_set(e, ERR_UNSUPPORTED, "%zu bytes wait for the bus already", l->queue_bytes);
	q = xcalloc(1, sizeof(*q) + size);
	q->size = size;
	memcpy(q->data, data, size);
	l->queue_n++;
	l->queue_bytes += size;
	STAILQ_INSERT_TAIL(&l->queue, q, link); /* the next dispatch hands out everything: nothing waits */
	return 0;
}

static size_t local_fds(struct bus *b, int ret[BUS_FDS_MAX])
{
	(void)b;
	(void)ret;
	return 0;
}

static int64_t local_deadline(struct bus *b)
{
	struct bus_local *l = local_of(b);

	return l->viewed && STAILQ_EMPTY(&l->queue) ? -1 : 0;
}

static struct queued *queue_pop(struct bus_local *l)
{
	struct queued *q = STAILQ_FIRST(&l->queue);

	if (q) {
		STAILQ_REMOVE_HEAD(&l->queue, link);
		l->queue_n--;
		l->queue_bytes -= q->size;
	}
	return q;
}

/* What is sent meanwhile waits for the next dispatch. */
static void local_dispatch(struct bus *b, int64_t now_ns)
{
	struct bus_local *l = local_of(b);
	struct bus_view v = {.ring = {b->self, 1}, .members = {b->self}, .n = 1, .quorate = true, .needed = 1};
	size_t n = l->queue_n;

	(void)now_ns;
	v.expected = 1;
	v.configured[0] = b->self;
	if (!l->viewed) {
		l->viewed = true;
		b->handlers.view(b->arg, &v);
	}
	while (n-- > 0) {
		struct queued *q = queue_pop(l);

		b->handlers.deliver(b->arg, b->self, q->data, q->size);
		free(q);
	}
}

static void local_free(struct bus *b)
{
	struct bus_local *l = local_of(b);
	struct queued *q;

	while ((q = queue_pop(l)))
		free(q);
	free(l);
}

struct bus *bus_local_new(uint32_t self)
{
	static const struct bus_ops ops = {.send = local_send,
					   .fds = local_fds,
					   .deadline = local_deadline,
					   .dispatch = local_dispatch,
					   .free = local_free};
	struct bus_local *l = xcalloc(1, sizeof(*l));

	l->bus.ops = &ops;
	l->bus.self = self;
	STAILQ_INIT(&l->queue);
	return &l->bus;
}
