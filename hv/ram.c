/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM in a memfd.
 *
 * The size is sealed because two processes map the file: whoever could shrink it would make the other die of SIGBUS.
 * Nothing is allocated here; a page costs memory from the first write on, by the guest or by the migration engine.
 */
#include "hv/ram.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#define RAM_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define HUGEPAGE_SIZE (2ULL << 20)
#define HUGEPAGES_FREE "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"

/* Huge pages are not overcommitted by QEMU or us: too few of them would be a SIGBUS inside the guest's run. */
static int hugepages_check(uint64_t size, struct err *e)
{
	_closefile_ FILE *f = fopen(HUGEPAGES_FREE, "re");
	unsigned long long free_pages = 0;

	if (!f || fscanf(f, "%llu", &free_pages) != 1)
		return err_set(e, ERR_UNSUPPORTED, "this kernel has no 2 MiB huge pages; leave \"hugepages\" out");
	if (free_pages >= size / HUGEPAGE_SIZE)
		return 0;
	return err_set(e, ERR_SYSTEM,
		       "%llu huge pages of 2 MiB are needed and %llu are free; raise vm.nr_hugepages or leave "
		       "\"hugepages\" out",
		       (unsigned long long)(size / HUGEPAGE_SIZE), free_pages);
}

int ram_create(const char *name, uint64_t size, bool hugepages, struct err *e)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (hugepages ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
	_free_ char *label = xasprintf("godwit-ram-%.200s", name);
	_closefd_ int fd = -1;

	if (hugepages && hugepages_check(size, e) < 0)
		return -1;
	fd = memfd_create(label, flags);
	if (fd < 0)
		return err_sys(e, "guest RAM: memfd_create");
	if (ftruncate(fd, (off_t)size) < 0)
		return err_sys(e, "guest RAM: a size of %llu bytes", (unsigned long long)size);
	if (fcntl(fd, F_ADD_SEALS, RAM_SEALS) < 0)
		return err_sys(e, "guest RAM: sealing its size");
	return steal_fd(&fd);
}

int ram_open(int pid, const char *mem_path, uint64_t *ret_size, struct err *e)
{
	static const char prefix[] = "/proc/self/fd/";
	_closefd_ int fd = -1;
	_free_ char *path = NULL;
	struct stat st;
	char *end = NULL;
	long n = -1;
	int seals;

	if (strncmp(mem_path, prefix, strlen(prefix)) == 0)
		n = strtol(mem_path + strlen(prefix), &end, 10);
	if (n < 0 || !end || end == mem_path + strlen(prefix) || *end)
		return err_set(e, ERR_UNSUPPORTED, "guest RAM at %s was not given to QEMU by Godwit", mem_path);
	path = xasprintf("/proc/%d/fd/%ld", pid, n);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "guest RAM %s", path);
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW))
		return err_set(e, ERR_UNSUPPORTED, "guest RAM %s can change its size under us; it is not Godwit's",
			       path);
	if (fstat(fd, &st) < 0)
		return err_sys(e, "guest RAM %s", path);
	*ret_size = (uint64_t)st.st_size;
	return steal_fd(&fd);
}
