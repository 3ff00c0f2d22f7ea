/* SPDX-License-Identifier: Apache-2.0 */
/* Making a fencing disk, and showing what is on one. For the command line: these block as long as the storage does. */
#ifndef GODWIT_FENCING_DISK_TOOL_H
#define GODWIT_FENCING_DISK_TOOL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "fencing/disk-format.h"

/* What disk_format() is to make. */
struct disk_format {
	const char *path;
	const char *cluster; /* at most 63 plain characters */
	uint32_t token_ms;
	uint32_t sector_size; /* 512, 4096; 0: what the device has, 4096 for a file */
	bool force;           /* whatever is on it, but for a disk that is mounted or beaten on */
};

/* Make @f->path a fencing disk. It is refused, with @e saying what was found and what to do:
 *   ERR_INPUT     too small, no disk, no direct I/O, sectors of the wrong size, a cluster's name that is too long
 *   ERR_CONFLICT  it is in use: mounted, or hosts are beating on it (looking takes 2 T, and --force does not help)
 *   ERR_CONFLICT  without force: there is a file system, a partition table, another cluster's fencing disk, or any
 * other data where the slots would be or at the end of the disk. The own cluster's disk is formatted again without it.
 *   ERR_SYSTEM    the storage fails
 * 0: @ret is what the header says now. */
int disk_format(const struct disk_format *f, struct disk_header *ret, struct err *e);

/* What is on the disk: {"path", "version", "sector-size", "slots", "token-ms", "id", "cluster", "made-ms", "hosts":
 * [{"slot", "node", "name", "boot", "incarnation", "sequence", "wall-ms", "state", "acks": [{"from-slot",
 * "request"}]}], "pills": [{"from", "from-name", "to", "boot", "incarnation", "request", "wall-ms"}], "unreadable":
 * [sector, ...]}. Numbers of 64 random bits are text, as hexadecimal digits. New reference; NULL with @e as
 * disk_io_header(). */
json_t *disk_list(const char *path, struct err *e);

#endif
