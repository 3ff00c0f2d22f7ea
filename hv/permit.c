/* SPDX-License-Identifier: Apache-2.0 */
/* The permit. One page, mapped: its writer changes the time some times in a second and may need neither memory nor a
 * disk for it, and whoever reads it sees the old time or the new one. */
#include "hv/permit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define MAGIC "GODWITP1"
#define PAGE 4096U

struct permit_page {
	char magic[8];
	_Atomic int64_t until_ns;
	char mark[PERMIT_MARK_MAX + 1];
	_Atomic uint32_t kept_now; /* 0: none; else kept[kept_now - 1]. The other is the one to be written next */
	struct {
		uint32_t size;
		unsigned char bytes[PERMIT_KEPT_MAX];
	} kept[2];
};

_Static_assert(sizeof(struct permit_page) <= PAGE, "the permit is one page");

int permit_open(const char *run_dir, int fd, struct permit *ret, struct err *e)
{
	_free_ char *path = xasprintf("%s/" PERMIT_FILE, run_dir);
	_closefd_ int own = fd >= 0 ? fd : open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	struct permit_page *page;

	if (own < 0)
		return err_sys(e, "permit %s", path);
	if (flock(own, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? err_set(e, ERR_CONFLICT,
						      "another godwit-watchdog has %s; one is enough for a host", path)
					    : err_sys(e, "permit %s", path);
	if (ftruncate(own, PAGE) < 0)
		return err_sys(e, "permit %s", path);
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, own, 0);
	if (page == MAP_FAILED)
		return err_sys(e, "permit %s", path);
	/* A mapping holds the lock as a descriptor does: not in a child, which may outlive us. */
	madvise(page, PAGE, MADV_DONTFORK);
	if (memcmp(page->magic, MAGIC, sizeof(page->magic)) != 0) {
		memset(page, 0, PAGE);
		atomic_store(&page->until_ns, PERMIT_FREE);
		memcpy(page->magic, MAGIC, sizeof(page->magic));
	}
	*ret = (struct permit){.fd = steal_fd(&own), .page = page};
	return 0;
}

void permit_close(struct permit *p)
{
	if (p->page)
		munmap(p->page, PAGE);
	mem_closep(&p->fd);
	*p = PERMIT_INIT;
}

void permit_set_mark(struct permit *p, const char *mark)
{
	size_t n = strnlen(mark, PERMIT_MARK_MAX);

	if (strcmp(p->page->mark, mark) == 0)
		return;
	memset(p->page->mark, 0, sizeof(p->page->mark));
	memcpy(p->page->mark, mark, n);
}

void permit_set_until(struct permit *p, int64_t until_ns)
{
	atomic_store(&p->page->until_ns, until_ns);
}

void permit_keep(struct permit *p, const void *data, size_t n)
{
	uint32_t next = atomic_load(&p->page->kept_now) == 1 ? 2 : 1;

	p->page->kept[next - 1].size = (uint32_t)n;
	memcpy(p->page->kept[next - 1].bytes, data, n);
	atomic_store(&p->page->kept_now, next);
}

size_t permit_kept(const struct permit *p, void *buf, size_t max)
{
	uint32_t now = atomic_load(&p->page->kept_now);
	size_t n = now == 1 || now == 2 ? p->page->kept[now - 1].size : 0;

	if (n > PERMIT_KEPT_MAX || n > max)
		return 0;
	if (n)
		memcpy(buf, p->page->kept[now - 1].bytes, n);
	return n;
}

/* What the page says about @mark. */
static int page_check(const struct permit_page *page, const char *path, const char *mark, int64_t now_ns, struct err *e)
{
	char ours[PERMIT_MARK_MAX + 1];
	int64_t until = atomic_load(&page->until_ns);

	memcpy(ours, page->mark, sizeof(ours));
	ours[PERMIT_MARK_MAX] = 0;
	if (memcmp(page->magic, MAGIC, sizeof(page->magic)) != 0)
		return err_set(e, ERR_UNAVAILABLE,
			       "%s is of another version of godwit-watchdog; restart it, or remove the file", path);
	if (!ours[0] || strncmp(mark, ours, strlen(ours)) != 0 || now_ns < until)
		return 0;
	return err_set(e, ERR_UNAVAILABLE,
		       "this host may not run guests of its cluster now (%s): it is cut off from the others, "
		       "is being fenced, or godwit-watchdog is not running",
		       path);
}

int permit_check(const char *run_dir, const char *mark, int64_t now_ns, struct err *e)
{
	_free_ char *path = xasprintf("%s/" PERMIT_FILE, run_dir);
	_closefd_ int fd = -1;
	struct permit_page *page;
	struct stat st;
	int r;

	if (!mark)
		return 0;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, "permit %s", path);
	if (fstat(fd, &st) < 0)
		return err_sys(e, "permit %s", path);
	if (st.st_size == 0) /* being made at this moment: nobody counts on it yet */
		return 0;
	page = st.st_size < PAGE ? MAP_FAILED : mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return err_set(e, ERR_UNAVAILABLE, "permit %s cannot be read; restart godwit-watchdog", path);
	r = page_check(page, path, mark, now_ns, e);
	munmap(page, PAGE);
	return r;
}
