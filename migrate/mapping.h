/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM seen from the engine: which RAM blocks of a QEMU are shared memory that we can map beside it. */
#ifndef GODWIT_MIGRATE_MAPPING_H
#define GODWIT_MIGRATE_MAPPING_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "hv/qmp.h"

#define MAPPINGS_MAX 16
#define MAPPING_EXTENTS_MAX 2048

struct prefault;

/* One memory backend of the guest, mapped whole. */
struct mapping {
	char name[256]; /* the RAM block's name in the migration stream */
	uint8_t *mem;
	uint64_t size;     /* bytes */
	int fd;            /* the memory file; ours */
	bool was_empty;    /* it held nothing before we populated it: a page that nobody wrote is zero */
	bool preallocated; /* its QEMU has populated all of it, holes too: pages known to be zero are given back */
	struct prefault *prefault; /* NULL: none was started */
};

struct mappings {
	struct mapping list[MAPPINGS_MAX];
	size_t n;
};

/*
 * Find every `memory-backend-file,share=on` of the QEMU behind @q (QOM) and map it: its mem-path is /proc/self/fd/N for
 * guests that godwit-vm started (a sealed memfd), any file otherwise. A file is taken only if /proc/PID/maps shows that
 * this very inode is mapped shared by that QEMU; whatever cannot be proven so is left out, and its pages travel in the
 * stream. Backends whose memory belongs to a NUMA node or a DIMM are found as well: the block has the backend's name.
 * 0, also when there is none; -1 with @e only when QEMU itself fails. Caller frees with mappings_done().
 */
int mappings_find(struct mappings *m, struct qmp *q, bool writable, int64_t deadline_ns, struct err *e);
void mappings_done(struct mappings *m);

/* The mapping of the block @name, or NULL. Old machine types write "/objects/NAME". */
struct mapping *mappings_get(struct mappings *m, const char *name);

/* A run of pages. */
struct extent {
	uint64_t page;
	uint64_t count;
};

/* The parts of @m that have memory behind them (SEEK_DATA), at most @max extents: small holes are swallowed until they
 * fit. The number of extents; the whole of @m where the file system cannot tell. */
size_t mapping_extents(const struct mapping *m, struct extent *ret, size_t max);

/* Populate extents of a mapping for writing (MADV_POPULATE_WRITE) in the background, by @threads threads in 2 MiB
 * steps, in order. @ext is copied. One per mapping; mappings_done() ends it. */
void mapping_prefault_start(struct mapping *m, const struct extent *ext, size_t n, unsigned threads);

/* The same for reading (MADV_POPULATE_READ) and for what has no memory behind it. A source's QEMU looks at every page,
 * and a look into a hole of shared memory costs it a fault and a fresh page each: its first pass is much shorter when
 * they are there. What cannot be populated is left to QEMU. */
void mapping_fill_holes_start(struct mapping *m, unsigned threads);

/* End the populating of @m where it is, and its threads. Nothing to do where none was started. */
void mapping_populate_end(struct mapping *m);

/* How far it is, in bytes. 0; -1 with @e when this host has not the memory. */
int mapping_prefault_progress(const struct mapping *m, uint64_t *ret_done, uint64_t *ret_total, struct err *e);

/* True when every page of the extents is populated. Any thread. */
bool mapping_prefault_done(const struct mapping *m);

#endif
