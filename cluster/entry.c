/* SPDX-License-Identifier: Apache-2.0 */
/* Entries of the log: made, shared, released. */
#include "cluster/entry.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct entry *entry_new(enum entry_kind kind, const void *data, size_t size)
{
	struct entry *e;

	assert(size <= ENTRY_DATA_MAX);
	e = xcalloc(1, sizeof(*e) + size);
	atomic_init(&e->refs, 1);
	e->kind = kind;
	e->size = size;
	if (size)
		memcpy(e->data, data, size);
	return e;
}

struct entry *entry_ref(struct entry *e)
{
	atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
	return e;
}

void entry_unref(struct entry *e)
{
	if (e && atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) == 1)
		free(e);
}
