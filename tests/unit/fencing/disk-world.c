/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts on shared disks in one loop. */
#include "tests/unit/fencing/disk-world.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "fencing/disk-tool.h"

#define LIMIT_NS (20 * NS_PER_S)
#define FDS_MAX 1024

/* Which disk of the world a descriptor is of. */
static atomic_int disk_of_fd[FDS_MAX];

/* What happens to a call: 0, or an errno; waits while the storage hangs. */
static int storage_call(struct storage *h, int disk)
{
	atomic_fetch_add(&h->hanging, 1);
	while (atomic_load(&h->hang[disk]))
		usleep(2000);
	atomic_fetch_sub(&h->hanging, 1);
	return atomic_load(&h->fail[disk]) ? EIO : 0;
}

static int fake_open(void *arg, const char *path, int flags)
{
	const char *number = strrchr(path, '-');
	int disk = number ? atoi(number + 1) : 0, fd;

	errno = storage_call(arg, disk);
	if (errno)
		return -1;
	fd = open(path, flags);
	if (fd >= 0 && fd < FDS_MAX)
		atomic_store(&disk_of_fd[fd], disk);
	return fd;
}

static ssize_t fake_pread(void *arg, int fd, void *data, size_t size, off_t at)
{
	struct storage *h = arg;
	int disk = atomic_load(&disk_of_fd[fd]);

	atomic_fetch_add(&h->hanging, 1);
	while (atomic_load(&h->hang_reads[disk]))
		usleep(2000);
	atomic_fetch_sub(&h->hanging, 1);
	errno = storage_call(h, disk);
	return errno ? -1 : pread(fd, data, size, at);
}

/* A torn write says that it went well, as one does that a power cut of the storage tears behind its cache. */
static ssize_t fake_pwrite(void *arg, int fd, const void *data, size_t size, off_t at)
{
	struct storage *h = arg;
	int disk = atomic_load(&disk_of_fd[fd]);

	errno = storage_call(h, disk);
	if (errno)
		return -1;
	if (!atomic_load(&h->tear[disk]))
		return pwrite(fd, data, size, at);
	return pwrite(fd, data, size / 2, at) < 0 ? -1 : (ssize_t)size;
}

/* For ever, as the disk module wants it. */
static struct storage storages[WORLD_HOSTS];
static const struct disk_sys systems[WORLD_HOSTS] = {
	{fake_open, fake_pread, fake_pwrite, &storages[0]},
	{fake_open, fake_pread, fake_pwrite, &storages[1]},
	{fake_open, fake_pread, fake_pwrite, &storages[2]},
	{fake_open, fake_pread, fake_pwrite, &storages[3]},
};

static void on_pill(void *arg, uint64_t request, uint32_t node, const char *from)
{
	struct host *h = arg;

	assert_true(strlen(from) > 0);
	h->pills++;
	h->request = request;
	h->pill_from = node;
}

static void on_link(void *arg, size_t index, enum disk_link link, const char *why)
{
	struct host *h = arg;

	h->link[index] = link;
	snprintf(h->why[index], ERR_TEXT_MAX, "%s", why);
}

static const struct disk_handlers handlers = {.pill = on_pill, .link = on_link};

struct disk_life world_life(uint8_t boot, uint64_t incarnation)
{
	struct disk_life l = {.incarnation = incarnation};

	memset(l.boot, boot, sizeof(l.boot));
	return l;
}

void world_init(struct world *w, size_t n, uint32_t sector_size)
{
	struct disk_header h;

	memset(w, 0, sizeof(*w));
	w->token_ms = WORLD_T_MS;
	w->cluster = "prod";
	/* Not in /tmp, which may be in memory and then know no direct I/O. */
	snprintf(w->dir, sizeof(w->dir), "build/disk-test.XXXXXX");
	mkdir("build", 0777);
	assert_non_null(mkdtemp(w->dir));
	w->loop = loop_new();
	for (size_t i = 0; i < WORLD_HOSTS; i++)
		w->hosts[i].storage = &storages[i];
	w->n_paths = n;
	for (size_t i = 0; i < n; i++) {
		struct disk_format f = {.path = w->paths[i],
					.cluster = w->cluster,
					.token_ms = w->token_ms,
					.sector_size = sector_size};
		int fd;

		snprintf(w->paths[i], sizeof(w->paths[i]), "%s/disk-%zu", w->dir, i);
		fd = open(w->paths[i], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		assert_true(fd >= 0);
		assert_int_equal(ftruncate(fd, 8 << 20), 0);
		close(fd);
		assert_int_equal(disk_format(&f, &h, NULL), 0);
	}
}

void world_close(struct host *h)
{
	disk_close(steal_ptr(h->disk));
	h->asked = NULL;
}

static void storage_heal(struct storage *s)
{
	for (size_t i = 0; i < DISK_PATHS_MAX; i++) {
		atomic_store(&s->hang[i], false);
		atomic_store(&s->hang_reads[i], false);
		atomic_store(&s->fail[i], false);
		atomic_store(&s->tear[i], false);
	}
	while (atomic_load(&s->hanging))
		usleep(1000);
}

void world_done(struct world *w)
{
	for (size_t i = 0; i < WORLD_HOSTS; i++) {
		world_close(&w->hosts[i]);
		storage_heal(w->hosts[i].storage);
	}
	usleep(20000); /* threads that hung free what is theirs */
	loop_free(w->loop);
	for (size_t i = 0; i < w->n_paths; i++)
		unlink(w->paths[i]);
	rmdir(w->dir);
}

struct host *world_open(struct world *w, unsigned i, uint8_t boot, uint64_t incarnation)
{
	struct host *h = &w->hosts[i];
	_free_ char *name = xasprintf("n%u", i + 1);
	struct disk_config c = {.n_paths = w->n_paths,
				.cluster = w->cluster,
				.name = name,
				.token_ms = w->token_ms,
				.sys = &systems[i]};

	assert_null(h->disk);
	h->node = h->node ? h->node : i + 1;
	h->life = c.life = world_life(boot, incarnation);
	h->pills = h->answers = 0;
	c.node = h->node;
	for (size_t k = 0; k < w->n_paths; k++) {
		c.paths[k] = w->paths[k];
		h->link[k] = DISK_LINK_OPENING;
	}
	h->disk = disk_open(w->loop, &c, &handlers, h);
	return h;
}

struct wait {
	struct world *world;
	bool (*done)(struct world *w);
	int64_t end_ns;
};

static void on_tick(void *arg)
{
	struct wait *t = arg;

	t->world->ticks++;
	if ((t->done && t->done(t->world)) || clock_now_ns() >= t->end_ns)
		loop_stop(t->world->loop);
}

static void wait_for(struct world *w, bool (*done)(struct world *w), int64_t ns)
{
	struct wait t = {.world = w, .done = done, .end_ns = clock_now_ns() + ns};
	struct loop_timer *timer = loop_timer_add(w->loop, 0, 5 * NS_PER_MS, on_tick, &t);

	assert_int_equal(loop_run(w->loop), 0);
	loop_timer_free(timer);
}

void world_until(struct world *w, bool (*done)(struct world *w))
{
	wait_for(w, done, LIMIT_NS);
	assert_true(done(w));
}

void world_run(struct world *w, int64_t ns)
{
	wait_for(w, NULL, ns);
}

json_int_t world_sequence(const struct world *w, uint32_t node)
{
	json_t *list = disk_list(w->paths[0], NULL), *host;
	json_int_t found = -1;
	size_t i;

	json_array_foreach (json_object_get(list, "hosts"), i, host) {
		if (json_integer_value(json_object_get(host, "node")) == node)
			found = json_integer_value(json_object_get(host, "sequence"));
	}
	json_decref(list);
	return found;
}

static bool sequence_reached(struct world *w)
{
	return world_sequence(w, w->watched->node) >= w->until_sequence;
}

void world_rounds(struct world *w, const struct host *h, unsigned n)
{
	w->watched = h;
	w->until_sequence = world_sequence(w, h->node) + n;
	world_until(w, sequence_reached);
}

static void on_done(void *arg, enum disk_result r, const char *why)
{
	struct host *h = arg;

	h->asked = NULL;
	h->answers++;
	h->result = r;
	snprintf(h->answer, sizeof(h->answer), "%s", why);
}

void world_pill(struct host *from, const struct host *to, int64_t within_ns)
{
	from->answers = 0;
	from->asked = disk_pill(from->disk, to->node, &to->life, within_ns, on_done, from, NULL);
	assert_non_null(from->asked);
}

void world_read(const struct world *w, uint32_t sector, uint8_t *ret, uint32_t size)
{
	int fd = open(w->paths[0], O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, ret, size, (off_t)sector * size), size);
	close(fd);
}

void world_write(const struct world *w, uint32_t sector, const uint8_t *data, uint32_t size)
{
	struct err e = ERR_INIT;
	struct disk_io io;
	_free_ uint8_t *copy = disk_io_buffer(size);

	memcpy(copy, data, size);
	assert_int_equal(disk_io_open(&io, &disk_sys_real, w->paths[0], O_RDWR, &e), 0);
	assert_int_equal(disk_io_write(&io, (uint64_t)sector * size, copy, size, &e), 0);
	disk_io_close(&io);
}

struct disk_header world_header(const struct world *w)
{
	struct disk_io io;

	assert_int_equal(disk_io_open(&io, &disk_sys_real, w->paths[0], O_RDONLY, NULL), 0);
	assert_int_equal(disk_io_header(&io, NULL), 0);
	disk_io_close(&io);
	return io.header;
}

/* ---- what most tests wait for ---- */

bool sees(const struct host *from, const struct host *to)
{
	struct disk_peer p;

	return disk_peer(from->disk, to->node, &p) && disk_life_equal(&p.life, &to->life) &&
	       p.age_ns < 3 * WORLD_POLL_NS;
}

bool a_and_b_see_each_other(struct world *w)
{
	return sees(&w->hosts[0], &w->hosts[1]) && sees(&w->hosts[1], &w->hosts[0]);
}

bool a_is_answered(struct world *w)
{
	return w->hosts[0].answers > 0;
}

bool b_is_told(struct world *w)
{
	return w->hosts[1].pills > 0;
}

void two_hosts_up(struct world *w)
{
	world_open(w, 0, 1, 11);
	world_open(w, 1, 2, 21);
	world_until(w, a_and_b_see_each_other);
}
