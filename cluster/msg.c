/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding and decoding the members' messages, by a table of their fields. */
#include "cluster/msg.h"

#include <stdlib.h>
#include <string.h>

#include "base/byteorder.h"
#include "base/mem.h"

#define HEADER_SIZE 12U
#define ITEM_SIZE 29U
#define FIELDS_MAX 9

enum field {
	F_END,
	F_RING_NODE,
	F_RING_SEQ,
	F_ROUND,
	F_TO,
	F_EPOCH,
	F_PROMISED,
	F_LAST_EPOCH,
	F_LAST_INDEX,
	F_INDEX,
	F_COMMIT,
	F_VERSION,
	F_SEQ,
	F_SNAPSHOT,
	F_OFFSET,
	F_SIZE,
	F_CHAIN,
	F_STATE,
	F_MAX
};

#define FIELD(member)                                                                                                  \
	{                                                                                                              \
		offsetof(struct msg, member), sizeof(((struct msg *)NULL)->member)                                     \
	}
static const struct {
	size_t at, size;
} fields[F_MAX] = {
	[F_RING_NODE] = FIELD(ring.node),
	[F_RING_SEQ] = FIELD(ring.seq),
	[F_ROUND] = FIELD(round),
	[F_TO] = FIELD(to),
	[F_EPOCH] = FIELD(epoch),
	[F_PROMISED] = FIELD(promised),
	[F_LAST_EPOCH] = FIELD(last_epoch),
	[F_LAST_INDEX] = FIELD(last_index),
	[F_INDEX] = FIELD(index),
	[F_COMMIT] = FIELD(commit),
	[F_VERSION] = FIELD(version),
	[F_SEQ] = FIELD(seq),
	[F_SNAPSHOT] = FIELD(snapshot),
	[F_OFFSET] = FIELD(offset),
	[F_SIZE] = FIELD(size),
	[F_CHAIN] = FIELD(chain),
	[F_STATE] = FIELD(state),
};

/* The table that is the format. */
static const struct {
	const char *name;
	bool items, bytes;
	uint8_t fields[FIELDS_MAX];
} types[MSG_TYPE_MAX] = {
	[MSG_SYNC] = {"sync",
		      .fields = {F_RING_NODE, F_RING_SEQ, F_ROUND, F_PROMISED, F_LAST_EPOCH, F_LAST_INDEX, F_VERSION}},
	[MSG_CLAIM] = {"claim", .fields = {F_RING_NODE, F_RING_SEQ, F_ROUND, F_EPOCH, F_LAST_EPOCH, F_LAST_INDEX}},
	[MSG_PROMISE] = {"promise", .fields = {F_TO, F_EPOCH, F_PROMISED}},
	[MSG_PROPOSE] = {"propose", true, .fields = {F_EPOCH}},
	[MSG_REFUSE] = {"refuse", .fields = {F_TO, F_EPOCH, F_SEQ, F_VERSION}},
	[MSG_ENTRIES] = {"entries", true, .fields = {F_TO, F_EPOCH, F_LAST_EPOCH, F_LAST_INDEX, F_COMMIT}},
	[MSG_ACK] = {"ack", .fields = {F_EPOCH, F_INDEX}},
	[MSG_NEED] = {"need", .fields = {F_TO, F_EPOCH, F_INDEX}},
	[MSG_SNAP_BEGIN] = {"snapshot begin", .fields = {F_TO, F_EPOCH, F_SNAPSHOT, F_SIZE, F_INDEX}},
	[MSG_SNAP_GET] = {"snapshot get", .fields = {F_TO, F_EPOCH, F_SNAPSHOT, F_OFFSET, F_SIZE}},
	[MSG_SNAP_DATA] = {"snapshot data", .bytes = true, .fields = {F_TO, F_EPOCH, F_SNAPSHOT, F_OFFSET}},
	[MSG_CHECK] = {"check", .fields = {F_EPOCH, F_INDEX, F_CHAIN, F_STATE}},
};

const char *msg_type_name(enum msg_type type)
{
	return type > 0 && type < MSG_TYPE_MAX ? types[type].name : "unknown";
}

uint8_t *msg_room(struct msg_buf *b, size_t size)
{
	uint8_t *room;

	if (b->len + size > b->cap) {
		b->cap = (b->len + size) * 2;
		b->data = realloc(b->data, b->cap);
		if (!b->data)
			abort();
	}
	room = b->data + b->len;
	b->len += size;
	return room;
}

static void field_put(struct msg_buf *b, const struct msg *m, uint8_t f)
{
	const uint8_t *from = (const uint8_t *)m + fields[f].at;
	uint8_t *room = msg_room(b, fields[f].size);

	if (fields[f].size == 4)
		put_be32(room, *(const uint32_t *)(const void *)from);
	else if (fields[f].size == 8)
		put_be64(room, *(const uint64_t *)(const void *)from);
	else
		memcpy(room, from, fields[f].size);
}

static void field_get(const uint8_t *p, struct msg *m, uint8_t f)
{
	uint8_t *to = (uint8_t *)m + fields[f].at;

	if (fields[f].size == 4)
		*(uint32_t *)(void *)to = get_be32(p);
	else if (fields[f].size == 8)
		*(uint64_t *)(void *)to = get_be64(p);
	else
		memcpy(to, p, fields[f].size);
}

void msg_begin(struct msg_buf *b, const struct msg *m)
{
	uint8_t *room;

	b->len = 0;
	room = msg_room(b, HEADER_SIZE);
	room[0] = MSG_MAGIC;
	room[1] = MSG_VERSION;
	room[2] = (uint8_t)m->type;
	room[3] = m->flags;
	put_be64(room + 4, m->history);
	for (const uint8_t *f = types[m->type].fields; *f; f++)
		field_put(b, m, *f);
	b->count_at = b->len;
	if (types[m->type].items)
		memset(msg_room(b, 4), 0, 4);
}

void msg_item(struct msg_buf *b, const struct entry *e)
{
	uint8_t *room = msg_room(b, ITEM_SIZE + e->size);

	room[0] = (uint8_t)e->kind;
	put_be64(room + 1, e->epoch);
	put_be32(room + 9, e->node);
	put_be64(room + 13, e->seq);
	put_be32(room + 21, e->version);
	put_be32(room + 25, (uint32_t)e->size);
	if (e->size)
		memcpy(room + ITEM_SIZE, e->data, e->size);
	put_be32(b->data + b->count_at, get_be32(b->data + b->count_at) + 1);
}

/* Are there exactly @count whole items in [@p, @p + @size)? */
static int items_check(const uint8_t *p, size_t size, uint32_t count, struct err *e)
{
	if (count > MSG_ITEMS_MAX)
		return err_set(e, ERR_PROTOCOL, "a message with %u items, at most %u are allowed", count,
			       MSG_ITEMS_MAX);
	for (uint32_t i = 0; i < count; i++) {
		size_t item;

		if (size < ITEM_SIZE)
			return err_set(e, ERR_PROTOCOL, "a message ends inside item %u", i);
		item = ITEM_SIZE + (size_t)get_be32(p + 25);
		if (p[0] >= ENTRY_KIND_MAX || item - ITEM_SIZE > ENTRY_DATA_MAX || item > size)
			return err_set(e, ERR_PROTOCOL, "item %u of a message is of kind %u and %zu bytes long", i,
				       p[0], item);
		p += item;
		size -= item;
	}
	if (size)
		return err_set(e, ERR_PROTOCOL, "a message has %zu bytes behind its end", size);
	return 0;
}

/* The fields of @m->type and what comes behind them. */
static int body_decode(const uint8_t *p, size_t size, struct msg *m, struct err *e)
{
	for (const uint8_t *f = types[m->type].fields; *f; f++) {
		if (size < fields[*f].size)
			return err_set(e, ERR_PROTOCOL, "a %s message is too short", msg_type_name(m->type));
		field_get(p, m, *f);
		p += fields[*f].size;
		size -= fields[*f].size;
	}
	if (types[m->type].items) {
		if (size < 4)
			return err_set(e, ERR_PROTOCOL, "a %s message is too short", msg_type_name(m->type));
		m->count = get_be32(p);
		p += 4;
		size -= 4;
	}
	m->items = p;
	m->items_size = size;
	return types[m->type].bytes ? 0 : items_check(p, size, m->count, e);
}

int msg_decode(const void *data, size_t size, struct msg *ret, struct err *e)
{
	const uint8_t *p = data;
	struct msg m = {0};

	if (size < HEADER_SIZE || p[0] != MSG_MAGIC)
		return err_set(e, ERR_PROTOCOL, "%zu bytes that are no message of a Godwit cluster", size);
	if (p[1] != MSG_VERSION)
		return err_set(e, ERR_PROTOCOL,
			       "a message in format %u, this program knows %d: use the same release on all hosts", p[1],
			       MSG_VERSION);
	if (p[2] == 0 || p[2] >= MSG_TYPE_MAX)
		return err_set(e, ERR_PROTOCOL, "a message of the unknown type %u", p[2]);
	m.type = p[2];
	m.flags = p[3];
	m.history = get_be64(p + 4);
	if (body_decode(p + HEADER_SIZE, size - HEADER_SIZE, &m, e) < 0)
		return -1;
	*ret = m;
	return 0;
}

struct entry *msg_next(struct msg *m)
{
	const uint8_t *p = m->items;
	struct entry *e;
	size_t size;

	if (m->count == 0)
		return NULL;
	size = get_be32(p + 25);
	e = entry_new(p[0], p + ITEM_SIZE, size);
	e->epoch = get_be64(p + 1);
	e->node = get_be32(p + 9);
	e->seq = get_be64(p + 13);
	e->version = get_be32(p + 21);
	m->items += ITEM_SIZE + size;
	m->items_size -= ITEM_SIZE + size;
	m->count--;
	return e;
}
