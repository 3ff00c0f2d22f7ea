/* SPDX-License-Identifier: Apache-2.0 */
/* Memory helpers. */
#include "base/mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void out_of_memory(void)
{
	static const char text[] = "<2>out of memory\n";

	(void)!write(STDERR_FILENO, text, sizeof(text) - 1);
	abort();
}

void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		out_of_memory();
	return p;
}

char *xstrdup(const char *s)
{
	char *p = strdup(s);

	if (!p)
		out_of_memory();
	return p;
}

char *xasprintf(const char *fmt, ...)
{
	char *p = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&p, fmt, ap);
	va_end(ap);
	if (n < 0)
		out_of_memory();
	return p;
}

void *mem_bounded(size_t size, size_t limit, const char *what, struct err *e)
{
	void *p;

	if (size > limit) {
		err_set(e, ERR_PROTOCOL, "%s of %zu bytes is larger than the limit of %zu", what, size, limit);
		return NULL;
	}
	p = calloc(1, size ? size : 1);
	if (!p)
		err_sys(e, "%zu bytes for %s", size, what);
	return p;
}

void mem_freep(void *p)
{
	free(*(void **)p);
}

void mem_closep(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

void mem_fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}
