/* SPDX-License-Identifier: Apache-2.0 */
/* Reading small files whole, and replacing them whole. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

char *file_read(const char *path, size_t limit, size_t *ret_size, struct err *e)
{
	_closefd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	_free_ char *buf = NULL;
	size_t used = 0;
	ssize_t n;

	if (fd < 0) {
		err_sys(e, "%s", path);
		return NULL;
	}
	/* One byte more than allowed shows that there is more. */
	buf = mem_bounded(limit + 2, (size_t)1 << 30, path, e);
	if (!buf)
		return NULL;
	while ((n = read(fd, buf + used, limit + 1 - used)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			err_sys(e, "%s", path);
			return NULL;
		}
		used += (size_t)n;
		if (used > limit) {
			err_set(e, ERR_INPUT, "%s is larger than %zu bytes", path, limit);
			return NULL;
		}
	}
	if (ret_size)
		*ret_size = used;
	return steal_ptr(buf);
}

/* The folder that @path is in; caller frees. */
static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return xstrdup(".");
	if (slash == path)
		return xstrdup("/");
	return xasprintf("%.*s", (int)(slash - path), path);
}

/* A rename is on disk only when its folder is. */
static int folder_sync(const char *path, struct err *e)
{
	_free_ char *folder = folder_of(path);
	_closefd_ int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return err_sys(e, "folder %s", folder);
	return 0;
}

static int write_all(int fd, const char *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		data += n;
		size -= (size_t)n;
	}
	return 0;
}

int file_rename(const char *from, const char *to, struct err *e)
{
	if (rename(from, to) < 0)
		return err_sys(e, "%s: renaming it to %s", from, to);
	return folder_sync(to, e);
}

int file_write_atomic(const char *path, const void *data, size_t size, mode_t mode, gid_t gid, struct err *e)
{
	_free_ char *part = xasprintf("%s.XXXXXX", path);
	_closefd_ int fd = mkostemp(part, O_CLOEXEC); /* mode 0600: nobody reads it before its mode is right */
	int r = 0;

	if (fd < 0)
		return err_sys(e, "%s", part);
	if (gid != (gid_t)-1 && fchown(fd, (uid_t)-1, gid) < 0)
		r = err_sys(e, "%s: giving it to group %u", path, (unsigned)gid);
	else if (write_all(fd, data, size) < 0 || fchmod(fd, mode) < 0 || fsync(fd) < 0)
		r = err_sys(e, "%s: writing it", path);
	else
		r = file_rename(part, path, e);
	if (r < 0)
		unlink(part);
	return r;
}
