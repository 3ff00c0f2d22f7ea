/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM seen from outside: found at a real QEMU, extents of sparse memory, populated where it is asked for. */
#include "migrate/mapping.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "hv/stream.h"
#include "tests/unit/hv/fake-qemu.h"

#define PAGES 4096U /* 16 MiB */
#define PAGE STREAM_PAGE_SIZE

static void map_new(struct mapping *m)
{
	*m = (struct mapping){.size = PAGES * PAGE, .fd = memfd_create("test-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
	strcpy(m->name, "ram0");
	assert_int_equal(ftruncate(m->fd, (off_t)m->size), 0);
	m->mem = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	assert_ptr_not_equal(m->mem, MAP_FAILED);
}

static void map_done(struct mapping *m)
{
	struct mappings all = {.n = 1, .list = {*m}};

	mappings_done(&all);
}

static void touch(struct mapping *m, uint64_t page, uint64_t count)
{
	for (uint64_t p = page; p < page + count; p++)
		m->mem[p * PAGE] = 1;
}

static uint64_t populated(const struct mapping *m)
{
	struct stat st;

	assert_int_equal(fstat(m->fd, &st), 0);
	return (uint64_t)st.st_blocks * 512 / PAGE;
}

/* ---- extents ---- */

static void untouched_memory_has_no_extents(void **state)
{
	struct extent ext[4];
	struct mapping m;

	(void)state;
	map_new(&m);
	assert_int_equal(mapping_extents(&m, ext, 4), 0);
	map_done(&m);
}

static void extents_cover_what_was_touched_and_little_more(void **state)
{
	struct extent ext[8];
	struct mapping m;

	(void)state;
	map_new(&m);
	touch(&m, 0, 1);
	touch(&m, 100, 50);
	touch(&m, 155, 5); /* a hole of five pages is not worth an extent */
	touch(&m, PAGES - 1, 1);
	assert_int_equal(mapping_extents(&m, ext, 8), 3);
	assert_int_equal(ext[0].page, 0);
	assert_int_equal(ext[0].count, 1);
	assert_int_equal(ext[1].page, 100);
	assert_int_equal(ext[1].count, 60);
	assert_int_equal(ext[2].page, PAGES - 1);
	assert_int_equal(ext[2].count, 1);
	map_done(&m);
}

static void too_many_extents_become_fewer_and_cover_all(void **state)
{
	struct extent ext[7];
	struct mapping m;
	size_t n;

	(void)state;
	map_new(&m);
	for (uint64_t p = 0; p < PAGES; p += 64)
		touch(&m, p, 1);
	n = mapping_extents(&m, ext, 7);
	assert_in_range(n, 1, 7);
	for (uint64_t p = 0; p < PAGES; p += 64) {
		bool covered = false;

		for (size_t i = 0; i < n; i++)
			covered |= p >= ext[i].page && p < ext[i].page + ext[i].count;
		assert_true(covered);
	}
	for (size_t i = 0; i < n; i++)
		assert_true(ext[i].page + ext[i].count <= PAGES);
	map_done(&m);
}

/* ---- populating ---- */

/* Populate, and wait for the end. 0, or -1 with @e. */
static int populate(struct mapping *m, const struct extent *ext, size_t n, unsigned threads, struct err *e)
{
	int64_t deadline = IN_S(20);
	uint64_t done, total, last = 0;
	int r = 0;

	mapping_prefault_start(m, ext, n, threads);
	while (r == 0 && !mapping_prefault_done(m) && clock_now_ns() < deadline) {
		r = mapping_prefault_progress(m, &done, &total, e);
		assert_true(r < 0 || (done >= last && done <= total));
		last = done;
		usleep(100);
	}
	return r < 0 ? -1 : mapping_prefault_progress(m, &done, &total, e);
}

static void populating_fills_the_extents_and_nothing_else(void **state)
{
	struct extent ext[] = {{0, 1}, {512, 700}, {PAGES - 3, 3}};
	struct err e = ERR_INIT;

	(void)state;
	for (unsigned threads = 1; threads < 40; threads += 13) {
		uint64_t done, total;
		struct mapping m;

		map_new(&m);
		assert_false(mapping_prefault_done(&m));
		assert_int_equal(mapping_prefault_progress(&m, &done, &total, &e), 0);
		assert_int_equal(total, 0);
		assert_int_equal(populate(&m, ext, ARRAY_SIZE(ext), threads, &e), 0);
		assert_true(mapping_prefault_done(&m));
		assert_int_equal(mapping_prefault_progress(&m, &done, &total, &e), 0);
		assert_int_equal(total, 704 * PAGE);
		assert_int_equal(done, total);
		assert_int_equal(populated(&m), 704);
		for (uint64_t i = 0; i < m.size; i += PAGE)
			assert_int_equal(m.mem[i], 0);
		map_done(&m);
	}
}

static void populating_leaves_what_is_there(void **state)
{
	struct extent all = {0, PAGES};
	struct err e = ERR_INIT;
	struct mapping m;

	(void)state;
	map_new(&m);
	touch(&m, 77, 1);
	assert_int_equal(populate(&m, &all, 1, 2, &e), 0);
	assert_int_equal(m.mem[77 * PAGE], 1);
	assert_int_equal(populated(&m), PAGES);
	map_done(&m);
}

static void the_holes_of_a_source_are_filled_and_nothing_is_written(void **state)
{
	int64_t deadline = IN_S(20);
	uint64_t done, total;
	struct err e = ERR_INIT;
	struct mapping m;

	(void)state;
	map_new(&m);
	touch(&m, 0, 3);
	touch(&m, 700, 1);
	mapping_fill_holes_start(&m, 2);
	while (!mapping_prefault_done(&m) && clock_now_ns() < deadline)
		usleep(100);
	assert_int_equal(mapping_prefault_progress(&m, &done, &total, &e), 0);
	assert_int_equal(done, total);
	assert_int_equal(total, (PAGES - 4) * PAGE);
	assert_int_equal(populated(&m), PAGES);
	assert_int_equal(m.mem[700 * PAGE], 1);
	assert_int_equal(m.mem[701 * PAGE], 0);
	mapping_populate_end(&m);
	assert_null(m.prefault);
	map_done(&m);
}

static void populating_may_be_given_up_at_any_moment(void **state)
{
	struct extent all = {0, PAGES};

	(void)state;
	for (int i = 0; i < 20; i++) {
		struct mapping m;

		map_new(&m);
		mapping_prefault_start(&m, &all, 1, 2);
		usleep((useconds_t)i * 50);
		map_done(&m);
	}
}

static void memory_that_cannot_be_had_is_an_error_with_the_way_out(void **state)
{
	struct extent all = {0, PAGES};
	struct err e = ERR_INIT;
	struct mapping m;

	(void)state;
	map_new(&m);
	/* What lies behind the end of the file cannot be populated: the kernel answers as it does without memory. */
	assert_int_equal(ftruncate(m.fd, PAGE), 0);
	assert_int_equal(populate(&m, &all, 1, 2, &e), -1);
	assert_int_equal(e.code, ERR_SYSTEM);
	assert_non_null(strstr(e.text, "ram0"));
	assert_non_null(strstr(e.text, "too little free memory"));
	map_done(&m);
}

/* ---- real QEMUs ---- */

static void mapping_of(struct real_qemu *r, struct mappings *ret)
{
	struct err e = ERR_INIT;
	struct qmp *q = NULL;

	*ret = (struct mappings){.n = 0};
	if (qmp_open(r->path, IN_S(10), &q, &e) < 0 || mappings_find(ret, q, true, IN_S(5), &e) < 0)
		fail_msg("%s", e.text);
	qmp_close(q);
}

/* The descriptor of the guest's RAM as the real QEMU inherits it. */
#define RAM_FD 47

static void the_sealed_memory_of_a_running_qemu_is_found(void **state)
{
	static const char *const extra[] = {"-object",
					    "memory-backend-file,id=ram0,share=on,mem-path=/proc/self/fd/47,size=64M",
					    "-machine", "memory-backend=ram0", NULL};
	struct mappings m = {.n = 0};
	struct real_qemu r;
	struct mapping *ram;
	uint8_t *ours;
	int fd;

	(void)state;
	fd = memfd_create("guest-ram", MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fd, 64 << 20), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	ours = mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(ours, MAP_FAILED);
	assert_int_equal(dup2(fd, RAM_FD), RAM_FD);
	real_start(&r, extra);
	close(RAM_FD);
	mapping_of(&r, &m);
	assert_int_equal(m.n, 1);
	ram = mappings_get(&m, "ram0");
	assert_non_null(ram);
	assert_ptr_equal(mappings_get(&m, "/objects/ram0"), ram);
	assert_null(mappings_get(&m, "ram1"));
	assert_null(mappings_get(&m, "/objects/"));
	assert_int_equal(ram->size, 64 << 20);
	/* It is the guest's own memory, both ways. */
	ram->mem[12345678] = 0x5a;
	assert_int_equal(ours[12345678], 0x5a);
	ours[23456789] = 0xa5;
	assert_int_equal(ram->mem[23456789], 0xa5);
	mappings_done(&m);
	mappings_done(&m);
	munmap(ours, 64 << 20);
	close(fd);
	real_stop(&r, true);
}

static void memory_that_is_not_shared_is_left_alone(void **state)
{
	static const char *const private_file[] = {"-object",
						   "memory-backend-file,id=ram0,share=off,mem-path=disk,size=64M",
						   "-machine", "memory-backend=ram0", NULL};
	static const char *const private_ram[] = {"-object", "memory-backend-ram,id=ram0,size=64M", "-machine",
						  "memory-backend=ram0", NULL};
	static const char *const none[] = {NULL};
	const char *const *const cases[] = {private_file, private_ram, none};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct real_qemu r;
		struct mappings m = {.n = 0};

		real_start(&r, cases[i]);
		mapping_of(&r, &m);
		assert_int_equal(m.n, 0);
		mappings_done(&m);
		real_stop(&r, true);
	}
}

/* A file of the right name that QEMU does not have mapped any more: somebody put another one in its place. */
static void a_file_is_taken_only_while_it_is_the_one_that_qemu_has(void **state)
{
	char path[] = "/tmp/godwit-mapping-test.XXXXXX";
	_free_ char *object = NULL;
	const char *extra[] = {"-object", NULL, "-machine", "memory-backend=ram0", NULL};
	struct real_qemu r;
	struct mappings m = {.n = 0};
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	object = xasprintf("memory-backend-file,id=ram0,share=on,mem-path=%s,size=64M", path);
	extra[1] = object;
	real_start(&r, extra);
	mapping_of(&r, &m);
	assert_int_equal(m.n, 1);
	mappings_done(&m);
	assert_int_equal(unlink(path), 0);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, 64 << 20), 0);
	close(fd);
	mapping_of(&r, &m);
	assert_int_equal(m.n, 0);
	mappings_done(&m);
	real_stop(&r, true);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(untouched_memory_has_no_extents),
		cmocka_unit_test(extents_cover_what_was_touched_and_little_more),
		cmocka_unit_test(too_many_extents_become_fewer_and_cover_all),
		cmocka_unit_test(populating_fills_the_extents_and_nothing_else),
		cmocka_unit_test(populating_leaves_what_is_there),
		cmocka_unit_test(the_holes_of_a_source_are_filled_and_nothing_is_written),
		cmocka_unit_test(populating_may_be_given_up_at_any_moment),
		cmocka_unit_test(memory_that_cannot_be_had_is_an_error_with_the_way_out),
		cmocka_unit_test(the_sealed_memory_of_a_running_qemu_is_found),
		cmocka_unit_test(memory_that_is_not_shared_is_left_alone),
		cmocka_unit_test(a_file_is_taken_only_while_it_is_the_one_that_qemu_has),
	};

	return cmocka_run_group_tests_name("mapping", tests, NULL, NULL);
}
