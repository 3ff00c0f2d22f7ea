/* SPDX-License-Identifier: Apache-2.0 */
/* Sectors of one fencing disk: opened and checked, read and written past all caches. Blocks as long as the storage
 * does. */
#ifndef GODWIT_FENCING_DISK_IO_H
#define GODWIT_FENCING_DISK_IO_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "fencing/disk-format.h"

/* The system calls below a disk, so that a test can let storage hang, fail or tear; each as the one of its name. */
struct disk_sys {
	int (*open)(void *arg, const char *path, int flags);
	ssize_t (*pread)(void *arg, int fd, void *data, size_t size, off_t at);
	ssize_t (*pwrite)(void *arg, int fd, const void *data, size_t size, off_t at);
	void *arg;
};

/* The real ones. */
extern const struct disk_sys disk_sys_real;

/* An open disk. One thread; start as DISK_IO_INIT. */
struct disk_io {
	const struct disk_sys *sys; /* borrowed */
	const char *path;           /* borrowed */
	int fd;
	uint64_t size;         /* bytes */
	uint32_t logical_size; /* of a block device: what it reads and writes at once; of a file DISK_SECTOR_MIN */
	bool block;
	struct disk_header header; /* disk_io_header() */
};

#define DISK_IO_INIT ((struct disk_io){.fd = -1})

/* Memory for @size bytes as direct I/O wants it; zeroed. Caller frees with free(). */
void *disk_io_buffer(size_t size);

/* Open @path with @flags (O_RDWR or O_RDONLY, O_EXCL) for direct and synchronous I/O, whatever is on it. 0; -1 with @e
 * (ERR_SYSTEM; ERR_INPUT: neither a block device nor a file, or one that knows no direct I/O). */
int disk_io_open(struct disk_io *io, const struct disk_sys *sys, const char *path, int flags, struct err *e);
void disk_io_close(struct disk_io *io);

/* Read the header into io->header. 0; -1 with @e (ERR_SYSTEM: the storage fails; any other code: this disk cannot be
 * used as it is, and the sentence says what to do). */
int disk_io_header(struct disk_io *io, struct err *e);

/* Refuse a header of another cluster (ERR_CONFLICT) or of another token time-out (ERR_INPUT). */
int disk_header_fits(const struct disk_header *h, const char *path, const char *cluster, uint32_t token_ms,
		     struct err *e);

/* Bytes at any place of the disk, aligned to its sectors, memory of disk_io_buffer(). 0, or -1 with @e (ERR_SYSTEM). A
 * write that returned 0 is on the medium. */
int disk_io_read(const struct disk_io *io, uint64_t at, void *ret, size_t size, struct err *e);
int disk_io_write(const struct disk_io *io, uint64_t at, const void *data, size_t size, struct err *e);

#endif
