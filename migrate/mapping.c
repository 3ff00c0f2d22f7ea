/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM seen from the engine. */
#include "migrate/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "hv/stream.h"

#define PREFAULT_STEP (2UL << 20)

/* True when process @pid has the first byte of the file @st mapped shared, for at least @size bytes in a row. */
static bool mapped_by(pid_t pid, const struct stat *st, uint64_t size)
{
	char path[64], line[512];
	_closefile_ FILE *f = NULL;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		unsigned long long start, end, offset, ino;
		unsigned maj, min;
		char perms[8];

		if (sscanf(line, "%llx-%llx %7s %llx %x:%x %llu", &start, &end, perms, &offset, &maj, &min, &ino) != 7)
			continue;
		if (ino == st->st_ino && makedev(maj, min) == st->st_dev && perms[3] == 's' && !offset &&
		    end - start >= size)
			return true;
	}
	return false;
}

/* Open the memory file as QEMU knows it. Its own descriptor paths are read through its /proc entry. */
static int open_mem_path(pid_t pid, const char *mem_path, bool writable)
{
	char path[512];
	int n;

	if (sscanf(mem_path, "/proc/self/fd/%d", &n) == 1)
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, n);
	else
		snprintf(path, sizeof(path), "/proc/%d/root%s", (int)pid, mem_path);
	return open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
}

/* qom-get @property of /objects/@name; NULL when it is not there. */
static json_t *object_get(struct qmp *q, const char *name, const char *property, int64_t deadline_ns)
{
	_free_ char *path = xasprintf("/objects/%s", name);
	json_t *value = NULL;

	qmp_callf(q, deadline_ns, &value, NULL, "qom-get", "{s:s, s:s}", "path", path, "property", property);
	return value;
}

/* Map the backend @name, or leave it out with a debug line that says why. */
static void map_backend(struct mappings *m, struct qmp *q, const char *name, bool writable, int64_t deadline_ns)
{
	json_t *share = object_get(q, name, "share", deadline_ns);
	json_t *size = object_get(q, name, "size", deadline_ns);
	json_t *path = object_get(q, name, "mem-path", deadline_ns);
	struct mapping *map = &m->list[m->n];
	_closefd_ int fd = -1;
	const char *why = NULL;
	struct stat st;

	*map = (struct mapping){.fd = -1, .size = (uint64_t)json_integer_value(size)};
	snprintf(map->name, sizeof(map->name), "%s", name);
	if (!json_is_true(share) || !json_is_string(path) || !map->size)
		why = "not shared memory";
	else if ((fd = open_mem_path(qmp_peer_pid(q), json_string_value(path), writable)) < 0)
		why = strerror(errno);
	else if (fstat(fd, &st) < 0 || !mapped_by(qmp_peer_pid(q), &st, map->size))
		why = "its QEMU does not have this file mapped";
	else if ((map->mem = mmap(NULL, map->size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED | MAP_NORESERVE,
				  fd, 0)) == MAP_FAILED)
		why = strerror(errno);
	if (why) {
		log_debug("event=ram-not-mapped backend=%s why=\"%s\"", name, why);
	} else {
		map->fd = steal_fd(&fd);
		m->n++;
	}
	json_decref(share);
	json_decref(size);
	json_decref(path);
}

int mappings_find(struct mappings *m, struct qmp *q, bool writable, int64_t deadline_ns, struct err *e)
{
	json_t *objects = NULL, *o;
	size_t i;

	*m = (struct mappings){0};
	if (qmp_callf(q, deadline_ns, &objects, e, "qom-list", "{s:s}", "path", "/objects") < 0)
		return -1;
	json_array_foreach (objects, i, o) {
		const char *type = json_string_value(json_object_get(o, "type"));
		const char *name = json_string_value(json_object_get(o, "name"));

		if (type && name && !strcmp(type, "child<memory-backend-file>") && m->n < MAPPINGS_MAX)
			map_backend(m, q, name, writable, deadline_ns);
	}
	json_decref(objects);
	return 0;
}

struct mapping *mappings_get(struct mappings *m, const char *name)
{
	static const char prefix[] = "/objects/";

	if (!strncmp(name, prefix, sizeof(prefix) - 1))
		name += sizeof(prefix) - 1;
	for (size_t i = 0; i < m->n; i++)
		if (!strcmp(m->list[i].name, name))
			return &m->list[i];
	return NULL;
}

/* One walk with SEEK_DATA / SEEK_HOLE, holes below @min_hole pages swallowed. More extents than @max: returns max + 1.
 */
static size_t extents_walk(const struct mapping *m, struct extent *ret, size_t max, uint64_t min_hole)
{
	size_t n = 0;
	off_t at = 0;

	while (at < (off_t)m->size) {
		off_t data = lseek(m->fd, at, SEEK_DATA);
		off_t hole = data < 0 ? -1 : lseek(m->fd, data, SEEK_HOLE);
		uint64_t page, count;

		if (data < 0 && errno == ENXIO)
			break;
		if (data < 0 || hole < 0) {
			ret[0] = (struct extent){0, m->size / STREAM_PAGE_SIZE};
			return 1;
		}
		page = (uint64_t)data / STREAM_PAGE_SIZE;
		count = (uint64_t)(hole - data) / STREAM_PAGE_SIZE;
		if (n && page - (ret[n - 1].page + ret[n - 1].count) < min_hole) {
			ret[n - 1].count = page + count - ret[n - 1].page;
		} else {
			if (n == max)
				return max + 1;
			ret[n++] = (struct extent){page, count};
		}
		at = hole;
	}
	return n;
}

size_t mapping_extents(const struct mapping *m, struct extent *ret, size_t max)
{
	size_t n;

	for (uint64_t min_hole = 16;; min_hole *= 4) {
		n = extents_walk(m, ret, max, min_hole);
		if (n <= max)
			return n;
	}
}

struct prefault {
	struct mapping *m;
	struct extent *ext;
	size_t n;
	int advice; /* MADV_POPULATE_... */
	pthread_t threads[16];
	unsigned n_threads;
	atomic_size_t next_step; /* steps are numbered through all extents */
	atomic_ullong done_bytes;
	atomic_uint ended; /* threads that found nothing more to do */
	atomic_int errnum;
	atomic_bool stop;
};

static uint64_t extent_steps(const struct extent *x)
{
	return (x->count * STREAM_PAGE_SIZE + PREFAULT_STEP - 1) / PREFAULT_STEP;
}

/* Find step number @step; false when there are no more. */
static bool prefault_step(const struct prefault *p, size_t step, uint8_t **ret_at, size_t *ret_len)
{
	for (size_t i = 0; i < p->n; i++) {
		uint64_t steps = extent_steps(&p->ext[i]);
		uint64_t offset, length;

		if (step >= steps) {
			step -= steps;
			continue;
		}
		offset = p->ext[i].page * STREAM_PAGE_SIZE + step * PREFAULT_STEP;
		length = (p->ext[i].page + p->ext[i].count) * STREAM_PAGE_SIZE - offset;
		*ret_at = p->m->mem + offset;
		*ret_len = length < PREFAULT_STEP ? length : PREFAULT_STEP;
		return true;
	}
	return false;
}

static void *prefault_run(void *arg)
{
	struct prefault *p = arg;
	uint8_t *at;
	size_t len;

	while (!p->errnum && !p->stop && prefault_step(p, p->next_step++, &at, &len)) {
		if (madvise(at, len, p->advice) < 0 && errno != EINVAL)
			p->errnum = errno;
		p->done_bytes += len;
	}
	p->ended++;
	return NULL;
}

/* Takes @ext. */
static void populate_start(struct mapping *m, struct extent *ext, size_t n, int advice, unsigned threads)
{
	struct prefault *p = xcalloc(1, sizeof(*p));

	p->m = m;
	p->n = n;
	p->ext = ext;
	p->advice = advice;
	m->prefault = p;
	while (p->n_threads < threads && p->n_threads < ARRAY_SIZE(p->threads) &&
	       pthread_create(&p->threads[p->n_threads], NULL, prefault_run, p) == 0)
		p->n_threads++;
}

void mapping_prefault_start(struct mapping *m, const struct extent *ext, size_t n, unsigned threads)
{
	struct extent *copy = xcalloc(n, sizeof(*copy));

	memcpy(copy, ext, n * sizeof(*copy));
	populate_start(m, copy, n, MADV_POPULATE_WRITE, threads);
}

void mapping_fill_holes_start(struct mapping *m, unsigned threads)
{
	struct extent *data = xcalloc(MAPPING_EXTENTS_MAX, sizeof(*data));
	struct extent *holes = xcalloc(MAPPING_EXTENTS_MAX + 1, sizeof(*holes));
	size_t n_data = mapping_extents(m, data, MAPPING_EXTENTS_MAX), n = 0;
	uint64_t at = 0, end = m->size / STREAM_PAGE_SIZE;

	for (size_t i = 0; i <= n_data; i++) {
		uint64_t next = i < n_data ? data[i].page : end;

		if (next > at)
			holes[n++] = (struct extent){at, next - at};
		if (i < n_data)
			at = data[i].page + data[i].count;
	}
	free(data);
	populate_start(m, holes, n, MADV_POPULATE_READ, threads);
}

bool mapping_prefault_done(const struct mapping *m)
{
	return m->prefault && m->prefault->n_threads && m->prefault->ended == m->prefault->n_threads;
}

int mapping_prefault_progress(const struct mapping *m, uint64_t *ret_done, uint64_t *ret_total, struct err *e)
{
	struct prefault *p = m->prefault;

	*ret_done = *ret_total = 0;
	if (!p)
		return 0;
	if (p->errnum) {
		errno = p->errnum;
		return err_sys(e, "populate the memory of %s: this host has too little free memory", m->name);
	}
	for (size_t i = 0; i < p->n; i++)
		*ret_total += p->ext[i].count * STREAM_PAGE_SIZE;
	*ret_done = p->done_bytes < *ret_total ? p->done_bytes : *ret_total;
	return 0;
}

void mapping_populate_end(struct mapping *m)
{
	struct prefault *p = steal_ptr(m->prefault);

	if (!p)
		return;
	p->stop = true;
	while (p->n_threads)
		pthread_join(p->threads[--p->n_threads], NULL);
	free(p->ext);
	free(p);
}

void mappings_done(struct mappings *m)
{
	for (size_t i = 0; i < m->n; i++) {
		mapping_populate_end(&m->list[i]);
		munmap(m->list[i].mem, m->list[i].size);
		close(m->list[i].fd);
	}
	m->n = 0;
}
