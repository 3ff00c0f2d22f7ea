/* SPDX-License-Identifier: Apache-2.0 */
/* The newest events by the id of their request: a ring of ids, and chains of a hash table through it. */
#include "cluster/state-recent.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"

#define HEADS 16384

struct recent {
	int64_t newest;
	int64_t chain;
	int64_t first; /* nothing before this is in the ring */
	struct {
		uint8_t id[16];
		int16_t next; /* place in the ring, -1 ends */
	} ring[RECENT_MAX];   /* event seq is at seq mod RECENT_MAX */
	int16_t heads[HEADS];
};

static size_t head_of(const uint8_t id[16])
{
	return XXH64(id, 16, 0) % HEADS;
}

static void recent_clear(struct recent *r)
{
	*r = (struct recent){.first = 1};
	memset(r->heads, -1, sizeof(r->heads));
}

int64_t recent_find(const struct recent *r, const uint8_t id[16])
{
	int at = r->heads[head_of(id)];

	while (at >= 0 && memcmp(r->ring[at].id, id, 16) != 0)
		at = r->ring[at].next;
	if (at < 0)
		return 0;
	return r->newest - ((r->newest - at) % RECENT_MAX + RECENT_MAX) % RECENT_MAX;
}

int64_t recent_newest(const struct recent *r)
{
	return r->newest;
}

int64_t recent_chain(const struct recent *r, const uint8_t id[16])
{
	return id ? (int64_t)XXH64(id, 16, (uint64_t)r->chain) : r->chain;
}

/* Take the oldest out of its chain, where the next one will be. */
static void recent_forget(struct recent *r, int16_t at)
{
	int16_t *p = &r->heads[head_of(r->ring[at].id)];

	while (*p >= 0 && *p != at)
		p = &r->ring[*p].next;
	if (*p == at)
		*p = r->ring[at].next;
}

void recent_add(struct recent *r, int64_t seq, const uint8_t id[16])
{
	int16_t at = (int16_t)(seq % RECENT_MAX);

	if (seq - r->first >= RECENT_MAX)
		recent_forget(r, at);
	r->chain = recent_chain(r, id);
	r->newest = seq;
	if (!id) {
		memset(&r->ring[at], 0, sizeof(r->ring[at]));
		return;
	}
	memcpy(r->ring[at].id, id, 16);
	r->ring[at].next = r->heads[head_of(id)];
	r->heads[head_of(id)] = at;
}

/* Read the ring out of the table. */
static int recent_load(struct recent *r, sqlite3 *db, int64_t newest, int64_t chain, struct err *e)
{
	_sql_ sqlite3_stmt *s =
		sql_begin(db, e, "SELECT seq, id FROM event WHERE seq > ? ORDER BY seq", sql_int(newest - RECENT_MAX));
	int rc = -1;

	recent_clear(r);
	if (newest > RECENT_MAX)
		r->first = newest - RECENT_MAX + 1;
	while (s && (rc = sql_next(s, e)) > 0) {
		const void *id = sqlite3_column_blob(s, 1);

		if (id && sqlite3_column_bytes(s, 1) != 16)
			return err_set(e, ERR_SYSTEM, "state database: event %lld has an id of the wrong size",
				       (long long)sqlite3_column_int64(s, 0));
		recent_add(r, sqlite3_column_int64(s, 0), id);
	}
	r->chain = chain;
	return rc;
}

struct recent *recent_get(sqlite3 *db, struct err *e)
{
	_sql_ sqlite3_stmt *s = sql_begin(db, e, "SELECT seq, chain FROM event ORDER BY seq DESC LIMIT 1");
	void **slot = sql_attachment(db);
	struct recent *r = *slot;
	int64_t newest = 0, chain = 0;
	int rc = s ? sql_next(s, e) : -1;

	if (rc < 0)
		return NULL;
	if (rc > 0) {
		newest = sqlite3_column_int64(s, 0);
		chain = sqlite3_column_int64(s, 1);
	}
	if (!r) {
		r = *slot = xcalloc(1, sizeof(*r));
		r->newest = -1;
	}
	if (r->newest == newest && r->chain == chain)
		return r;
	if (recent_load(r, db, newest, chain, e) < 0) {
		r->newest = -1;
		return NULL;
	}
	return r;
}
