/* SPDX-License-Identifier: Apache-2.0 */
/* Sectors of one fencing disk, by O_DIRECT and O_DSYNC: reads see what other hosts wrote, writes are on the medium. */
#include "fencing/disk-io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

static int real_open(void *arg, const char *path, int flags)
{
	(void)arg;
	return open(path, flags);
}

static ssize_t real_pread(void *arg, int fd, void *data, size_t size, off_t at)
{
	(void)arg;
	return pread(fd, data, size, at);
}

static ssize_t real_pwrite(void *arg, int fd, const void *data, size_t size, off_t at)
{
	(void)arg;
	return pwrite(fd, data, size, at);
}

const struct disk_sys disk_sys_real = {.open = real_open, .pread = real_pread, .pwrite = real_pwrite};

void *disk_io_buffer(size_t size)
{
	void *p = aligned_alloc(DISK_SECTOR_MAX, (size + DISK_SECTOR_MAX - 1) / DISK_SECTOR_MAX * DISK_SECTOR_MAX);

	if (!p)
		abort();
	memset(p, 0, size);
	return p;
}

/* Of which kind it is, and how large. */
static int io_measure(struct disk_io *io, struct err *e)
{
	struct stat st;
	int logical = 0;

	if (fstat(io->fd, &st) < 0)
		return err_sys(e, "%s", io->path);
	io->block = S_ISBLK(st.st_mode);
	io->size = st.st_size;
	io->logical_size = DISK_SECTOR_MIN;
	if (!io->block)
		return 0;
	if (ioctl(io->fd, BLKGETSIZE64, &io->size) < 0 || ioctl(io->fd, BLKSSZGET, &logical) < 0)
		return err_sys(e, "asking %s for its size", io->path);
	if (logical != DISK_SECTOR_MIN && logical != DISK_SECTOR_MAX)
		return err_set(e, ERR_UNSUPPORTED, "%s has sectors of %d bytes: a fencing disk needs %u or %u",
			       io->path, logical, DISK_SECTOR_MIN, DISK_SECTOR_MAX);
	io->logical_size = logical;
	return 0;
}

int disk_io_open(struct disk_io *io, const struct disk_sys *sys, const char *path, int flags, struct err *e)
{
	struct stat st;

	*io = DISK_IO_INIT;
	io->sys = sys;
	io->path = path;
	/* Before it is opened: other things refuse O_DIRECT, and that would be the wrong reason. */
	if (stat(path, &st) == 0 && !S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
		return err_set(e, ERR_INPUT, "%s is neither a block device nor a file: name the shared disk", path);
	/* Without O_NONBLOCK a FIFO given by mistake would wait for a writer. It changes nothing for disks and files.
	 */
	io->fd = sys->open(sys->arg, path, flags | O_DIRECT | O_DSYNC | O_CLOEXEC);
	if (io->fd < 0 && errno == EINVAL)
		return err_set(e, ERR_INPUT,
			       "%s cannot be read past the cache (O_DIRECT): put the fencing disk on a "
			       "block device, or on a file system that can",
			       path);
	if (io->fd < 0 && errno == EBUSY)
		return err_set(e, ERR_CONFLICT,
			       "%s is in use (mounted, or part of another device): name a disk that is "
			       "free",
			       path);
	if (io->fd < 0)
		return err_sys(e, "opening the fencing disk %s", path);
	if (io_measure(io, e) < 0) {
		disk_io_close(io);
		return -1;
	}
	return 0;
}

void disk_io_close(struct disk_io *io)
{
	if (io->fd >= 0)
		close(io->fd);
	io->fd = -1;
}

int disk_io_read(const struct disk_io *io, uint64_t at, void *ret, size_t size, struct err *e)
{
	ssize_t n;

	do
		n = io->sys->pread(io->sys->arg, io->fd, ret, size, (off_t)at);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_sys(e, "reading the fencing disk %s at byte %" PRIu64, io->path, at);
	if ((size_t)n != size) {
		errno = EIO;
		return err_sys(e, "reading the fencing disk %s at byte %" PRIu64 ": %zd of %zu bytes", io->path, at, n,
			       size);
	}
	return 0;
}

int disk_io_write(const struct disk_io *io, uint64_t at, const void *data, size_t size, struct err *e)
{
	ssize_t n;

	do
		n = io->sys->pwrite(io->sys->arg, io->fd, data, size, (off_t)at);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_sys(e, "writing the fencing disk %s at byte %" PRIu64, io->path, at);
	if ((size_t)n != size) {
		errno = EIO;
		return err_sys(e, "writing the fencing disk %s at byte %" PRIu64 ": %zd of %zu bytes", io->path, at, n,
			       size);
	}
	return 0;
}

int disk_io_header(struct disk_io *io, struct err *e)
{
	_free_ uint8_t *head = disk_io_buffer(DISK_SECTOR_MAX);
	struct disk_header h;
	uint64_t need;
	int r;

	if (io->size < DISK_SECTOR_MAX)
		return err_set(e, ERR_INPUT, "%s has only %" PRIu64 " bytes: it is no fencing disk", io->path,
			       io->size);
	if (disk_io_read(io, 0, head, DISK_SECTOR_MAX, e) < 0)
		return -1;
	r = disk_header_decode(head, DISK_SECTOR_MAX, &h, e);
	if (r < 0)
		return err_wrap(e, "the fencing disk %s cannot be used; format it again, or name another", io->path);
	if (r == 0)
		return err_set(e, ERR_INPUT, "%s is no fencing disk: `godwit fence disk format` makes it one",
			       io->path);
	if (h.sector_size < io->logical_size)
		return err_set(e, ERR_INPUT,
			       "%s has sectors of %u bytes, and was formatted for %u (on another kind of disk, "
			       "then copied?): format it again",
			       io->path, io->logical_size, h.sector_size);
	need = (uint64_t)DISK_SECTORS * h.sector_size;
	if (io->size < need)
		return err_set(e, ERR_INPUT,
			       "%s has %" PRIu64 " bytes and needs %" PRIu64 ": it was cut off after it was "
			       "formatted",
			       io->path, io->size, need);
	io->header = h;
	return 0;
}

int disk_header_fits(const struct disk_header *h, const char *path, const char *cluster, uint32_t token_ms,
		     struct err *e)
{
	if (strcmp(h->cluster, cluster) != 0)
		return err_set(e, ERR_CONFLICT,
			       "%s is the fencing disk of the cluster %s, and this one is %s: name another "
			       "disk, or format it for this cluster",
			       path, h->cluster, cluster);
	if (h->token_ms != token_ms)
		return err_set(e, ERR_INPUT,
			       "%s was formatted for a token time-out of %u ms, and the cluster has %u ms: "
			       "format it again",
			       path, h->token_ms, token_ms);
	return 0;
}
