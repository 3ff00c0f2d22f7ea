/* SPDX-License-Identifier: Apache-2.0 */
/* What this host reports about itself: memory that new guests could really have, cores, load, versions, clock. */
#ifndef GODWIT_NODE_FACTS_H
#define GODWIT_NODE_FACTS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct facts_memory {
	uint64_t total;     /* bytes */
	uint64_t available; /* the kernel's estimate of what can be had without swapping */
};

/* What a guest of this host was promised, and what it has of that by now. */
struct facts_guest {
	uint64_t memory;   /* bytes */
	uint64_t resident; /* bytes */
};

/* Parsers of /proc/meminfo, /proc/loadavg (one minute) and /proc/PID/status (shared memory that is mapped and there: a
 * guest's RAM; 0 when there is none). Pure. */
int facts_parse_meminfo(const char *text, struct facts_memory *ret, struct err *e);
int facts_parse_loadavg(const char *text, double *ret, struct err *e);
uint64_t facts_parse_resident(const char *text);

/* Bytes of its RAM that the guest behind @pid has touched; 0 when the process is gone. */
uint64_t facts_resident(pid_t pid);

/* Memory for new guests: what is available, less what guests that are here were promised and have not touched. Pure. */
uint64_t facts_free(const struct facts_memory *m, const struct facts_guest *guests, size_t n);

/* What facts_read() does not find out by itself; all borrowed. */
struct facts_input {
	const struct facts_guest *guests;
	size_t n_guests;
	json_t *networks; /* names of the networks that this host has */
	json_t *cpu;      /* as hv/baseline.h has it, NULL: not known yet */
	const char *version;
};

/* {"memory": {"total", "available", "promised", "free"} in bytes, "cpus", "load", "networks": [names], "cpu": {...} or
 * null, "versions": {"godwit", "qemu", "kernel"}, "boot_id", "clock": {"unix_ms", "synchronized", "error_ms"}}. Reads a
 * few files of /proc: quick. New reference, or NULL with @e. */
json_t *facts_read(const struct facts_input *in, struct err *e);

#endif
