/* SPDX-License-Identifier: Apache-2.0 */
/* The ids of the newest commands: a ring by index whose slots are chained into buckets by key. */
#include "cluster/done.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/byteorder.h"
#include "base/mem.h"
#include "cluster/core.h"

#define BUCKETS 65536U

struct slot {
	uint64_t index; /* 0: free */
	uint8_t key[DONE_KEY_SIZE];
	uint32_t next; /* in its bucket: slot number + 1, 0 ends */
};

struct done {
	uint32_t buckets[BUCKETS];
	struct slot slots[CORE_DONE_KEPT];
};

struct done *done_new(void)
{
	return xcalloc(1, sizeof(struct done));
}

void done_free(struct done *d)
{
	free(d);
}

void done_clear(struct done *d)
{
	memset(d, 0, sizeof(*d));
}

void done_key(const char *id, const void *data, uint64_t size, uint8_t ret_key[DONE_KEY_SIZE])
{
	uint8_t hash[EVP_MAX_MD_SIZE];

	if (!EVP_Digest(id ? id : data, id ? strlen(id) : size, hash, NULL, EVP_sha256(), NULL))
		abort();
	memcpy(ret_key, hash, DONE_KEY_SIZE);
}

static uint32_t *bucket_of(const struct done *d, const uint8_t key[DONE_KEY_SIZE])
{
	return (uint32_t *)&d->buckets[get_be32(key) % BUCKETS];
}

/* The slot is needed for a newer entry. */
static void slot_unlink(struct done *d, struct slot *s)
{
	uint32_t number = (uint32_t)(s - d->slots) + 1;
	uint32_t *at = bucket_of(d, s->key);

	while (*at != number)
		at = &d->slots[*at - 1].next;
	*at = s->next;
}

void done_add(struct done *d, uint64_t index, const uint8_t key[DONE_KEY_SIZE])
{
	struct slot *s = &d->slots[index % CORE_DONE_KEPT];
	uint32_t *bucket = bucket_of(d, key);

	if (s->index)
		slot_unlink(d, s);
	s->index = index;
	memcpy(s->key, key, DONE_KEY_SIZE);
	s->next = *bucket;
	*bucket = (uint32_t)(s - d->slots) + 1;
}

uint64_t done_find(const struct done *d, uint64_t now, const uint8_t key[DONE_KEY_SIZE])
{
	for (uint32_t n = *bucket_of(d, key); n; n = d->slots[n - 1].next) {
		const struct slot *s = &d->slots[n - 1];

		if (!memcmp(s->key, key, DONE_KEY_SIZE) && s->index + CORE_DONE_KEPT > now)
			return s->index;
	}
	return 0;
}
