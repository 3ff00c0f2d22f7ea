/* SPDX-License-Identifier: Apache-2.0 */
/* Small files that must survive a crash: read whole with a bound, replaced whole or not at all. */
#ifndef GODWIT_BASE_FILE_H
#define GODWIT_BASE_FILE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* The whole file, at most @limit bytes, with a NUL after it; caller frees. @ret_size may be NULL. NULL with @e. */
char *file_read(const char *path, size_t limit, size_t *ret_size, struct err *e);

/* Replace @path by these bytes: whoever opens it, also after a power cut at any moment, finds the old bytes or the new
 * ones. When it returns 0 the new ones are on disk. @mode is the exact mode (no umask); @gid its group, or (gid_t)-1 to
 * leave that to the kernel. 0, or -1 with @e, and then the old file is untouched. */
int file_write_atomic(const char *path, const void *data, size_t size, mode_t mode, gid_t gid, struct err *e);

/* Rename within one folder and make the new name durable. */
int file_rename(const char *from, const char *to, struct err *e);

#endif
