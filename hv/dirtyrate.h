/* SPDX-License-Identifier: Apache-2.0 */
/* How fast a running guest writes its memory, measured by QEMU in the best mode that this guest allows. */
#ifndef GODWIT_HV_DIRTYRATE_H
#define GODWIT_HV_DIRTYRATE_H

#include <stdint.h>

#include "base/err.h"
#include "hv/qmp.h"

enum dirtyrate_mode {
	DIRTYRATE_AUTO,          /* the best one that works */
	DIRTYRATE_PAGE_SAMPLING, /* hashes of a few thousand pages, before and after: an estimate; any accelerator */
	DIRTYRATE_DIRTY_BITMAP,  /* KVM's dirty bitmap: counts every page */
	DIRTYRATE_DIRTY_RING,    /* KVM's dirty ring: counts every page, per vCPU, without walking a bitmap */
	DIRTYRATE_MODE_MAX
};

#define DIRTYRATE_SECONDS_MIN 1
#define DIRTYRATE_SECONDS_MAX 60

struct dirtyrate {
	int64_t bytes_per_s;      /* of distinct 4096-byte pages written; QEMU counts in whole MiB/s */
	enum dirtyrate_mode mode; /* the one used, never DIRTYRATE_AUTO */
	int seconds;              /* measured over */
	char why[384]; /* why this mode was used, and what limits its answer: a sentence without a full stop */
};

/* Measure for @seconds; returns about 0.1 s later than that, at most a minute later. The guest runs on meanwhile
 * (in the two KVM modes its first write to each page is caught, as in a migration); not while a migration runs.
 * Events that arrive stay with @q. 0; -1 with @e: ERR_INPUT (@seconds out of range), ERR_UNSUPPORTED (this guest cannot
 * be measured in that mode; only AUTO falls back), ERR_TIMEOUT, or what qmp_call() said. Thread: the one that uses @q.
 */
int dirtyrate_measure(struct qmp *q, enum dirtyrate_mode mode, int seconds, struct dirtyrate *ret, struct err *e);

/* QEMU's and our word for a mode: "auto", "page-sampling", "dirty-bitmap", "dirty-ring". */
const char *dirtyrate_mode_name(enum dirtyrate_mode mode);

/* The mode called @name, or -1 with @e (ERR_USAGE) that lists them. */
int dirtyrate_mode_parse(const char *name, enum dirtyrate_mode *ret, struct err *e);

#endif
