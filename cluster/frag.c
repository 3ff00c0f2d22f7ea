/* SPDX-License-Identifier: Apache-2.0 */
/* Splitting messages into pieces, and joining them. */
#include "cluster/frag.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/byteorder.h"
#include "base/mem.h"
#include "cluster/bus.h"

#define MAGIC 'F'

/* A message of which a part has come. */
struct part {
	bool used;
	uint32_t node, number;
	size_t total, have, cap;
	uint8_t *data;
};

struct frag_joiner {
	size_t limit;
	struct part parts[BUS_NODES_MAX];
	uint8_t *whole; /* what the last call has handed out */
};

void frag_header(uint8_t ret[FRAG_HEADER_SIZE], uint32_t number, uint32_t total, uint32_t offset)
{
	memset(ret, 0, FRAG_HEADER_SIZE);
	ret[0] = MAGIC;
	ret[1] = FRAG_VERSION;
	put_be32(ret + 4, number);
	put_be32(ret + 8, total);
	put_be32(ret + 12, offset);
}

struct frag_joiner *frag_joiner_new(size_t limit)
{
	struct frag_joiner *j = xcalloc(1, sizeof(*j));

	j->limit = limit;
	return j;
}

static void part_clear(struct part *p)
{
	free(p->data);
	*p = (struct part){0};
}

void frag_joiner_free(struct frag_joiner *j)
{
	if (!j)
		return;
	for (size_t i = 0; i < BUS_NODES_MAX; i++)
		part_clear(&j->parts[i]);
	free(j->whole);
	free(j);
}

static struct part *part_find(struct frag_joiner *j, uint32_t node)
{
	for (size_t i = 0; i < BUS_NODES_MAX; i++)
		if (j->parts[i].used && j->parts[i].node == node)
			return &j->parts[i];
	return NULL;
}

static struct part *part_new(struct frag_joiner *j)
{
	for (size_t i = 0; i < BUS_NODES_MAX; i++)
		if (!j->parts[i].used)
			return &j->parts[i];
	return NULL;
}

void frag_joiner_forget(struct frag_joiner *j, uint32_t node)
{
	struct part *p = part_find(j, node);

	if (p)
		part_clear(p);
}

/* Room as it is needed: a size that was only claimed costs nothing. */
static void part_append(struct part *p, const void *data, size_t size)
{
	assert(size > 0);
	if (!p->data || p->have + size > p->cap) {
		p->cap = 2 * (p->have + size);
		p->data = realloc(p->data, p->cap);
		if (!p->data)
			abort();
	}
	memcpy(p->data + p->have, data, size);
	p->have += size;
}

static int header_check(const struct frag_joiner *j, const uint8_t *h, size_t size, struct err *e)
{
	size_t total, offset;

	if (size < FRAG_HEADER_SIZE || h[0] != MAGIC)
		return err_set(e, ERR_PROTOCOL, "%zu bytes that are no piece of a message", size);
	if (h[1] != FRAG_VERSION)
		return err_set(e, ERR_PROTOCOL, "a piece of a message in format %u, this program knows %d", h[1],
			       FRAG_VERSION);
	total = get_be32(h + 8);
	offset = get_be32(h + 12);
	size -= FRAG_HEADER_SIZE;
	if (total > j->limit || offset > total || size > total - offset || (size == 0 && total != 0))
		return err_set(e, ERR_PROTOCOL, "a piece of %zu bytes at %zu of a message of %zu", size, offset, total);
	return 0;
}

int frag_joiner_take(struct frag_joiner *j, uint32_t node, const void *data, size_t size, const uint8_t **ret_data,
		     size_t *ret_size, struct err *e)
{
	const uint8_t *h = data, *body = h + FRAG_HEADER_SIZE;
	struct part *p = part_find(j, node);
	size_t total, offset, n;

	free(steal_ptr(j->whole));
	if (header_check(j, h, size, e) < 0)
		return -1;
	n = size - FRAG_HEADER_SIZE;
	total = get_be32(h + 8);
	offset = get_be32(h + 12);
	if (n == total) { /* nothing lost, and nothing is said about what is not whole yet */
		*ret_data = body;
		*ret_size = n;
		return 1;
	}
	if (p && offset == 0)
		part_clear(steal_ptr(p)); /* its end was lost */
	if (!p && offset == 0) {
		p = part_new(j);
		if (!p)
			return err_set(e, ERR_PROTOCOL, "messages of %d nodes are incomplete already", BUS_NODES_MAX);
		*p = (struct part){.used = true, .node = node, .number = get_be32(h + 4), .total = total};
	}
	if (!p || p->number != get_be32(h + 4) || p->total != total || p->have != offset) {
		if (p)
			part_clear(p);
		return err_set(e, ERR_PROTOCOL, "a piece of a message whose beginning was lost");
	}
	part_append(p, body, n);
	if (p->have < total)
		return 0;
	*ret_data = j->whole = steal_ptr(p->data);
	*ret_size = total;
	part_clear(p);
	return 1;
}
