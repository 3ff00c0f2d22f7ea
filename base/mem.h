/* SPDX-License-Identifier: Apache-2.0 */
/* Memory: small internal allocations abort, sizes chosen by others are bounded and fail; scopes clean up after
 * themselves. */
#ifndef GODWIT_BASE_MEM_H
#define GODWIT_BASE_MEM_H

#include <stddef.h>
#include <stdio.h>

#include "base/err.h"

/* For sizes that we choose ourselves: zeroed, never NULL (aborts when memory is out). Caller frees with free(). */
void *xcalloc(size_t n, size_t size);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* For sizes that a peer, a guest, a file or a user chose: NULL with @e filled when @size exceeds @limit or memory is
 * out.
 * @what names the thing for the message. Zeroed. Caller frees with free(). */
void *mem_bounded(size_t size, size_t limit, const char *what, struct err *e);

/* Scope clean-up: `_free_ char *s`, `_closefd_ int fd = -1`, `_closefile_ FILE *f`. */
void mem_freep(void *p);
void mem_closep(int *fd);
void mem_fclosep(FILE **f);
#define _free_ __attribute__((cleanup(mem_freep)))
#define _closefd_ __attribute__((cleanup(mem_closep)))
#define _closefile_ __attribute__((cleanup(mem_fclosep)))

/* Hand a pointer or a descriptor over to somebody else: returns it and leaves NULL / -1 behind. */
#define steal_ptr(p)                                                                                                   \
	({                                                                                                             \
		__auto_type stolen_ = (p);                                                                             \
		(p) = NULL;                                                                                            \
		stolen_;                                                                                               \
	})
static inline int steal_fd(int *fd)
{
	int f = *fd;

	*fd = -1;
	return f;
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
