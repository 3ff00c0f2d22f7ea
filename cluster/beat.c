/* SPDX-License-Identifier: Apache-2.0 */
/* Beats as bytes. */
#include "cluster/beat.h"

#include <assert.h>
#include <string.h>

#include "base/byteorder.h"

size_t beat_encode(const struct beat *b, uint8_t buf[BEAT_SIZE_MAX])
{
	uint8_t *p = buf + BEAT_HEADER_SIZE;

	assert(b->n <= BUS_NODES_MAX);
	buf[0] = BEAT_MAGIC;
	buf[1] = BEAT_VERSION;
	put_be16(buf + 2, (uint16_t)b->n);
	put_be64(buf + 4, b->incarnation);
	put_be64(buf + 12, b->number);
	for (size_t i = 0; i < b->n; i++, p += BEAT_ENTRY_SIZE) {
		put_be32(p, b->entries[i].node);
		put_be64(p + 4, b->entries[i].incarnation);
		put_be64(p + 12, b->entries[i].number);
		put_be32(p + 20, b->entries[i].age_ms);
	}
	return (size_t)(p - buf);
}

int beat_decode(const void *data, size_t size, struct beat *ret, struct err *e)
{
	const uint8_t *h = data, *p = h + BEAT_HEADER_SIZE;
	struct beat b = {0};

	if (size < BEAT_HEADER_SIZE || h[0] != BEAT_MAGIC)
		return err_set(e, ERR_PROTOCOL, "%zu bytes that are no beat", size);
	if (h[1] != BEAT_VERSION)
		return err_set(e, ERR_UNSUPPORTED, "a beat in format %u, this program knows %d", h[1], BEAT_VERSION);
	b.n = get_be16(h + 2);
	b.incarnation = get_be64(h + 4);
	b.number = get_be64(h + 12);
	if (b.n == 0 || b.n > BUS_NODES_MAX || size != BEAT_HEADER_SIZE + b.n * BEAT_ENTRY_SIZE)
		return err_set(e, ERR_PROTOCOL, "a beat of %zu bytes with %zu entries", size, b.n);
	if (b.incarnation == 0 || b.number == 0)
		return err_set(e, ERR_PROTOCOL, "a beat without a number");
	for (size_t i = 0; i < b.n; i++, p += BEAT_ENTRY_SIZE) {
		b.entries[i] = (struct beat_entry){get_be32(p), get_be64(p + 4), get_be64(p + 12), get_be32(p + 20)};
		if (b.entries[i].node <= (i ? b.entries[i - 1].node : 0))
			return err_set(e, ERR_PROTOCOL, "the entries of a beat are out of order");
		if ((b.entries[i].incarnation == 0) != (b.entries[i].number == 0))
			return err_set(e, ERR_PROTOCOL, "half an entry in a beat");
	}
	*ret = b;
	return 0;
}
