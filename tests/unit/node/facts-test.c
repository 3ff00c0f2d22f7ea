/* SPDX-License-Identifier: Apache-2.0 */
/* What a host reports: the parsers by tables, the arithmetic of free memory, and this machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "node/facts.h"

#define GIB (1ULL << 30)

static void meminfo_is_read_in_bytes(void **state)
{
	static const char text[] = "MemTotal:       24683896 kB\nMemFree:         3482512 kB\n"
				   "MemAvailable:   22545012 kB\nBuffers:            1024 kB\n";
	struct facts_memory m;

	(void)state;
	assert_int_equal(facts_parse_meminfo(text, &m, NULL), 0);
	assert_int_equal(m.total, 24683896ULL * 1024);
	assert_int_equal(m.available, 22545012ULL * 1024);
}

static void broken_files_are_refused(void **state)
{
	static const char *const meminfo[] = {
		"",
		"MemTotal: 100 kB\n",
		"MemTotal: 100 kB\nMemAvailable: lots kB\n",
		"MemTotal: 100\nMemAvailable: 50\n",
		"MemTotal: 100 kB\nMemAvailable: 200 kB\n",
		"XMemTotal: 100 kB\nMemAvailable: 50 kB\n",
		"MemTotal: 99999999999999999999 kB\nMemAvailable: 50 kB\n",
	};
	static const char *const loadavg[] = {"", "load", "-1 0 0", "nan 0 0", "0.5"};
	struct facts_memory m;
	struct err e = ERR_INIT;
	double load;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(meminfo); i++)
		assert_int_equal(facts_parse_meminfo(meminfo[i], &m, &e), -1);
	for (size_t i = 0; i < ARRAY_SIZE(loadavg); i++)
		assert_int_equal(facts_parse_loadavg(loadavg[i], &load, &e), -1);
	assert_int_equal(facts_parse_loadavg("1.25 0.50 0.10 2/345 6789\n", &load, &e), 0);
	assert_true(load > 1.24 && load < 1.26);
	assert_int_equal(facts_parse_resident("VmRSS:\t 100 kB\nRssShmem:\t    2048 kB\n"), 2048 * 1024);
	assert_int_equal(facts_parse_resident("Name:\tkthread\n"), 0);
}

static void untouched_memory_of_guests_is_not_free(void **state)
{
	static const struct {
		uint64_t available;
		struct facts_guest guests[2];
		uint64_t left;
	} rows[] = {
		{8 * GIB, {{0, 0}, {0, 0}}, 8 * GIB},
		{8 * GIB, {{4 * GIB, 0}, {0, 0}}, 4 * GIB},
		{8 * GIB, {{4 * GIB, 3 * GIB}, {2 * GIB, 2 * GIB}}, 7 * GIB},
		{8 * GIB, {{4 * GIB, 0}, {5 * GIB, 0}}, 0},
		{8 * GIB, {{1 * GIB, 2 * GIB}, {0, 0}}, 8 * GIB}, /* video memory and the like on top of RAM */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_int_equal(facts_free(&(struct facts_memory){16 * GIB, rows[i].available}, rows[i].guests, 2),
				 rows[i].left);
}

static void resident_memory_grows_with_touched_pages(void **state)
{
	const size_t size = 32U << 20;
	int fd = memfd_create("facts-test", MFD_CLOEXEC);
	uint64_t before = facts_resident(getpid());
	char *p;

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_true(facts_resident(getpid()) - before < size / 4);
	memset(p, 1, size);
	assert_true(facts_resident(getpid()) - before > size / 2);
	munmap(p, size);
	close(fd);
	assert_int_equal(facts_resident(1 << 30), 0);
}

static void this_machine_reports_everything(void **state)
{
	static const char *const keys[] = {"memory", "cpus", "load", "networks", "cpu", "versions", "boot_id", "clock"};
	json_t *networks = json_pack("[s]", "web"), *cpu = json_pack("{s:i}", "qemu", 70222);
	struct facts_guest guest = {1ULL << 60, 0};
	struct facts_input in = {.guests = &guest, .n_guests = 1, .networks = networks, .cpu = cpu, .version = "1.2.3"};
	struct err e = ERR_INIT;
	json_t *o = facts_read(&in, &e), *versions;

	(void)state;
	assert_non_null(o);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		assert_non_null(json_object_get(o, keys[i]));
	versions = json_object_get(o, "versions");
	assert_string_equal(json_string_value(json_object_get(versions, "qemu")), "7.2.22");
	assert_string_equal(json_string_value(json_object_get(versions, "godwit")), "1.2.3");
	assert_int_equal(strlen(json_string_value(json_object_get(o, "boot_id"))), 36);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(o, "memory"), "free")), 0);
	assert_true(json_integer_value(json_object_get(json_object_get(o, "memory"), "available")) > 0);
	assert_true(json_integer_value(json_object_get(json_object_get(o, "clock"), "unix_ms")) > 1700000000000LL);
	json_decref(o);
	json_decref(networks);
	json_decref(cpu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(meminfo_is_read_in_bytes),
		cmocka_unit_test(broken_files_are_refused),
		cmocka_unit_test(untouched_memory_of_guests_is_not_free),
		cmocka_unit_test(resident_memory_grows_with_touched_pages),
		cmocka_unit_test(this_machine_reports_everything),
	};

	return cmocka_run_group_tests_name("node/facts", tests, NULL, NULL);
}
