/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a fencing disk: field by field, big-endian, each sector with its kind, its version and its checksum. */
#include "fencing/disk-format.h"

#include <string.h>
#include <xxhash.h>

#include "base/byteorder.h"

#define SUM_SIZE 8

static const uint8_t magic[8] = {'G', 'D', 'W', 'T', 'f', 'n', 'c', '\n'};

enum kind { KIND_HEADER = 1, KIND_BEAT, KIND_PILL };

/* Offsets: docs/fencing-disk.md has them as tables. */
enum { AT_VERSION = 8, AT_KIND = 10 };
enum {
	HEADER_SECTOR = 12,
	HEADER_SLOTS = 16,
	HEADER_TOKEN = 20,
	HEADER_ID = 24,
	HEADER_CLUSTER = 40,
	HEADER_MADE = 104
};
enum {
	BEAT_NODE = 12,
	BEAT_BOOT = 16,
	BEAT_INCARNATION = 32,
	BEAT_SEQUENCE = 40,
	BEAT_WALL = 48,
	BEAT_STATE = 56,
	BEAT_NAME = 64,
	BEAT_ACKS = 128,
};
enum {
	PILL_FROM = 12,
	PILL_BOOT = 16,
	PILL_INCARNATION = 32,
	PILL_REQUEST = 40,
	PILL_WALL = 48,
	PILL_TO = 56,
	PILL_NAME = 64,
};

bool disk_life_equal(const struct disk_life *a, const struct disk_life *b)
{
	return memcmp(a->boot, b->boot, sizeof(a->boot)) == 0 && a->incarnation == b->incarnation;
}

/* The seed makes a sector good on its own disk and in its own place only: what an earlier format or another disk left
 * there, or what a controller put elsewhere, has a wrong sum. The header has to be readable before its id is known. */
static uint64_t seed_of(const struct disk_header *h, uint32_t sector)
{
	return get_be64(h->id) + sector;
}

static void sector_begin(uint8_t *ret, uint32_t size, enum kind kind)
{
	memset(ret, 0, size);
	memcpy(ret, magic, sizeof(magic));
	put_be16(ret + AT_VERSION, DISK_VERSION);
	put_be16(ret + AT_KIND, kind);
}

/* The sum is at the end and covers all of the sector, so that a sector of which a part was written is seen. */
static void sector_end(uint8_t *ret, uint32_t size, uint64_t seed)
{
	put_be64(ret + size - SUM_SIZE, XXH3_64bits_withSeed(ret, size - SUM_SIZE, seed));
}

static bool sum_right(const uint8_t *data, uint32_t size, uint64_t seed)
{
	return get_be64(data + size - SUM_SIZE) == XXH3_64bits_withSeed(data, size - SUM_SIZE, seed);
}

static bool all_zero(const uint8_t *data, size_t size)
{
	return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

/* A name: not empty, ends inside its field, no bytes that disturb a terminal; the rest of the field is zero. */
static bool text_get(const uint8_t *data, char ret[DISK_TEXT])
{
	size_t n = strnlen((const char *)data, DISK_TEXT);

	if (n == 0 || n == DISK_TEXT || !all_zero(data + n, DISK_TEXT - n))
		return false;
	for (size_t i = 0; i < n; i++)
		if (data[i] < 0x20 || data[i] > 0x7e)
			return false;
	memcpy(ret, data, DISK_TEXT);
	return true;
}

static void text_put(uint8_t *ret, const char text[DISK_TEXT])
{
	for (size_t i = 0; i < DISK_TEXT - 1 && text[i]; i++)
		ret[i] = (uint8_t)text[i];
}

void disk_header_encode(const struct disk_header *h, uint8_t *ret)
{
	sector_begin(ret, h->sector_size, KIND_HEADER);
	put_be32(ret + HEADER_SECTOR, h->sector_size);
	put_be16(ret + HEADER_SLOTS, DISK_SLOTS);
	put_be32(ret + HEADER_TOKEN, h->token_ms);
	memcpy(ret + HEADER_ID, h->id, sizeof(h->id));
	text_put(ret + HEADER_CLUSTER, h->cluster);
	put_be64(ret + HEADER_MADE, (uint64_t)h->made_ms);
	sector_end(ret, h->sector_size, 0);
}

int disk_header_decode(const uint8_t *data, size_t size, struct disk_header *ret, struct err *e)
{
	struct disk_header h = {0};

	if (size < DISK_SECTOR_MIN || memcmp(data, magic, sizeof(magic)) != 0)
		return 0;
	if (get_be16(data + AT_VERSION) != DISK_VERSION)
		return err_set(e, ERR_UNSUPPORTED, "its format is version %u, and this program knows version %d",
			       get_be16(data + AT_VERSION), DISK_VERSION);
	h.sector_size = get_be32(data + HEADER_SECTOR);
	if ((h.sector_size != DISK_SECTOR_MIN && h.sector_size != DISK_SECTOR_MAX) || h.sector_size > size ||
	    !sum_right(data, h.sector_size, 0))
		return err_set(e, ERR_PROTOCOL, "its header is damaged (the checksum is wrong)");
	h.token_ms = get_be32(data + HEADER_TOKEN);
	memcpy(h.id, data + HEADER_ID, sizeof(h.id));
	h.made_ms = (int64_t)get_be64(data + HEADER_MADE);
	if (get_be16(data + AT_KIND) != KIND_HEADER || get_be16(data + HEADER_SLOTS) != DISK_SLOTS || h.token_ms == 0 ||
	    !text_get(data + HEADER_CLUSTER, h.cluster))
		return err_set(e, ERR_PROTOCOL, "its header says what no header of version %d says", DISK_VERSION);
	*ret = h;
	return 1;
}

/* What all sectors but the header have in common. As the decoders. */
static int sector_check(const struct disk_header *h, uint32_t sector, const uint8_t *data, enum kind kind,
			struct err *e)
{
	if (all_zero(data, h->sector_size))
		return 0;
	if (!sum_right(data, h->sector_size, seed_of(h, sector)))
		return err_set(e, ERR_PROTOCOL, "sector %u is torn or damaged (the checksum is wrong)", sector);
	if (memcmp(data, magic, sizeof(magic)) != 0 || get_be16(data + AT_VERSION) != DISK_VERSION ||
	    get_be16(data + AT_KIND) != kind)
		return err_set(e, ERR_PROTOCOL, "sector %u is of another kind", sector);
	return 1;
}

static void life_put(uint8_t *ret, const struct disk_life *l)
{
	memcpy(ret, l->boot, sizeof(l->boot));
	put_be64(ret + sizeof(l->boot), l->incarnation);
}

static struct disk_life life_get(const uint8_t *data)
{
	struct disk_life l;

	memcpy(l.boot, data, sizeof(l.boot));
	l.incarnation = get_be64(data + sizeof(l.boot));
	return l;
}

void disk_beat_encode(const struct disk_header *h, uint32_t sector, const struct disk_beat *b, uint8_t *ret)
{
	sector_begin(ret, h->sector_size, KIND_BEAT);
	put_be32(ret + BEAT_NODE, b->node);
	life_put(ret + BEAT_BOOT, &b->life);
	put_be64(ret + BEAT_SEQUENCE, b->sequence);
	put_be64(ret + BEAT_WALL, (uint64_t)b->wall_ms);
	put_be16(ret + BEAT_STATE, b->state);
	text_put(ret + BEAT_NAME, b->name);
	for (unsigned i = 0; i < DISK_SLOTS; i++)
		put_be64(ret + BEAT_ACKS + 8 * (size_t)i, b->acks[i]);
	sector_end(ret, h->sector_size, seed_of(h, sector));
}

int disk_beat_decode(const struct disk_header *h, uint32_t sector, const uint8_t *data, struct disk_beat *ret,
		     struct err *e)
{
	struct disk_beat b = {0};
	unsigned state = get_be16(data + BEAT_STATE);
	int r = sector_check(h, sector, data, KIND_BEAT, e);

	if (r <= 0)
		return r;
	b.node = get_be32(data + BEAT_NODE);
	b.life = life_get(data + BEAT_BOOT);
	b.sequence = get_be64(data + BEAT_SEQUENCE);
	b.wall_ms = (int64_t)get_be64(data + BEAT_WALL);
	if (b.node == 0 || state < DISK_STATE_UP || state > DISK_STATE_DEAD || !text_get(data + BEAT_NAME, b.name))
		return err_set(e, ERR_PROTOCOL, "sector %u says what no beat of version %d says", sector, DISK_VERSION);
	b.state = state;
	for (unsigned i = 0; i < DISK_SLOTS; i++)
		b.acks[i] = get_be64(data + BEAT_ACKS + 8 * (size_t)i);
	*ret = b;
	return 1;
}

void disk_pill_encode(const struct disk_header *h, uint32_t sector, const struct disk_pill *p, uint8_t *ret)
{
	sector_begin(ret, h->sector_size, KIND_PILL);
	put_be32(ret + PILL_FROM, p->from);
	life_put(ret + PILL_BOOT, &p->life);
	put_be64(ret + PILL_REQUEST, p->request);
	put_be64(ret + PILL_WALL, (uint64_t)p->wall_ms);
	put_be32(ret + PILL_TO, p->to);
	text_put(ret + PILL_NAME, p->name);
	sector_end(ret, h->sector_size, seed_of(h, sector));
}

int disk_pill_decode(const struct disk_header *h, uint32_t sector, const uint8_t *data, struct disk_pill *ret,
		     struct err *e)
{
	struct disk_pill p = {0};
	int r = sector_check(h, sector, data, KIND_PILL, e);

	if (r <= 0)
		return r;
	p.from = get_be32(data + PILL_FROM);
	p.life = life_get(data + PILL_BOOT);
	p.request = get_be64(data + PILL_REQUEST);
	p.wall_ms = (int64_t)get_be64(data + PILL_WALL);
	p.to = get_be32(data + PILL_TO);
	if (p.from == 0 || p.to == 0 || p.request == 0 || !text_get(data + PILL_NAME, p.name))
		return err_set(e, ERR_PROTOCOL, "sector %u says what no pill of version %d says", sector, DISK_VERSION);
	*ret = p;
	return 1;
}
