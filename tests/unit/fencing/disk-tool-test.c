/* SPDX-License-Identifier: Apache-2.0 */
/* Making a fencing disk: what is refused, with force too, and what is on the disk afterwards. */
#include "fencing/disk-tool.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tests/unit/fencing/disk-world.h"

#define SIZE (8 << 20)

static char dir[64], path[96];

static void write_at(off_t at, const void *data, size_t size)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, size, at), size);
	close(fd);
}

static void blank(off_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

static int make_file(void **state)
{
	(void)state;
	mkdir("build", 0777);
	snprintf(dir, sizeof(dir), "build/disk-tool-test.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/disk", dir);
	blank(SIZE);
	return 0;
}

static int drop_file(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);
}

static struct disk_format want(void)
{
	return (struct disk_format){.path = path, .cluster = "prod", .token_ms = 50};
}

static void expect(struct disk_format f, enum err_code code, const char *words)
{
	struct disk_header h;
	struct err e = ERR_INIT;

	assert_int_equal(disk_format(&f, &h, &e), -1);
	if (!strstr(e.text, words))
		print_message("%s\n", e.text);
	assert_int_equal(e.code, code);
	assert_non_null(strstr(e.text, words));
}

static void expect_made(struct disk_format f)
{
	struct disk_header h;
	struct err e = ERR_INIT;

	if (disk_format(&f, &h, &e) < 0)
		print_message("%s\n", e.text);
	assert_int_equal(e.code, ERR_NONE);
}

static void an_empty_disk_becomes_a_fencing_disk(void **state)
{
	struct disk_format f = want();
	struct disk_header h;
	json_t *list;

	(void)state;
	assert_int_equal(disk_format(&f, &h, NULL), 0);
	assert_int_equal(h.sector_size, DISK_SECTOR_MAX);
	list = disk_list(path, NULL);
	assert_non_null(list);
	assert_string_equal(json_string_value(json_object_get(list, "cluster")), "prod");
	assert_int_equal(json_integer_value(json_object_get(list, "token-ms")), 50);
	assert_int_equal(json_integer_value(json_object_get(list, "sector-size")), 4096);
	assert_int_equal(strlen(json_string_value(json_object_get(list, "id"))), 36);
	assert_int_equal(json_array_size(json_object_get(list, "hosts")), 0);
	assert_int_equal(json_array_size(json_object_get(list, "unreadable")), 0);
	json_decref(list);
}

static void foreign_content_is_named_and_needs_force(void **state)
{
	static const struct {
		off_t at;
		const char *bytes;
		size_t n;
		const char *words;
	} rows[] = {
		{510, "\x55\xaa", 2, "partition table"},   {512, "EFI PART", 8, "GPT partition table"},
		{0x438, "\x53\xef", 2, "ext file system"}, {0, "XFSB", 4, "XFS"},
		{0x10040, "_BHRfS_M", 8, "btrfs"},         {0, "SBD_SBD_", 8, "SBD"},
		{777777, "x", 1, "there is data on it"},   {SIZE - 4096, "EFI PART", 8, "data at its end"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct disk_format f = want();

		blank(SIZE);
		write_at(rows[i].at, rows[i].bytes, rows[i].n);
		expect(f, ERR_CONFLICT, rows[i].words);
		f.force = true;
		expect_made(f);
	}
}

static void a_file_system_that_mkfs_made_is_named(void **state)
{
	_free_ char *command = xasprintf("mkfs.ext4 -q -F %s >/dev/null 2>&1", path);

	(void)state;
	if (system(command) != 0) { /* NOLINT(cert-env33-c): a file of our own */
		print_message("# skipped: no mkfs.ext4 here\n");
		skip();
	}
	expect(want(), ERR_CONFLICT, "ext file system");
}

static void sizes_that_cannot_be_are_refused_whatever_the_force(void **state)
{
	struct disk_format f = want();

	(void)state;
	f.force = true;
	f.sector_size = 1024;
	expect(f, ERR_INPUT, "512 or 4096");
	f.sector_size = 512;
	blank(DISK_SECTORS * 512 - 512);
	expect(f, ERR_INPUT, "make it larger");
	blank(DISK_SECTORS * 512);
	expect_made(f);
	f.sector_size = 0;
	blank(0);
	expect(f, ERR_INPUT, "make it larger");
}

static void what_is_no_disk_is_refused(void **state)
{
	struct disk_format f = want();
	_free_ char *none = xasprintf("%s/none", dir);

	(void)state;
	f.path = "/dev/null";
	expect(f, ERR_INPUT, "neither a block device nor a file");
	f.path = none;
	expect(f, ERR_SYSTEM, "No such file");
	f.path = path;
	f.cluster = "";
	expect(f, ERR_INPUT, "plain characters");
	f.cluster = "0123456789012345678901234567890123456789012345678901234567890123";
	expect(f, ERR_INPUT, "plain characters");
}

static void the_disk_of_another_cluster_needs_force_and_our_own_does_not(void **state)
{
	struct disk_format f = want();

	(void)state;
	expect_made(f);
	f.token_ms = 60;
	expect_made(f);
	f.cluster = "test";
	expect(f, ERR_CONFLICT, "another cluster, prod");
	f.force = true;
	expect_made(f);
}

static bool a_has_a_slot(struct world *w)
{
	struct disk_peer p;

	(void)w;
	return disk_peer(w->hosts[1].disk, 1, &p);
}

static void a_disk_on_which_hosts_beat_is_not_formatted_with_force_either(void **state)
{
	struct disk_format f = want();
	struct disk_header h;
	struct err e = ERR_INIT;
	struct world w;

	(void)state;
	world_init(&w, 1, DISK_SECTOR_MIN);
	world_open(&w, 0, 1, 1);
	world_open(&w, 1, 2, 2);
	world_until(&w, a_has_a_slot);
	f.path = w.paths[0];
	f.force = true;
	assert_int_equal(disk_format(&f, &h, &e), -1);
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_non_null(strstr(e.text, "beats on it"));
	world_close(&w.hosts[0]);
	world_close(&w.hosts[1]);
	assert_int_equal(disk_format(&f, &h, &e), 0);
	world_done(&w);
}

static void a_disk_with_a_file_system_that_is_mounted_is_in_use(void **state)
{
	_free_ char *make =
		xasprintf("mkfs.ext4 -q -F %s >/dev/null 2>&1 && losetup --show -f %s 2>/dev/null", path, path);
	char device[64] = "", command[256];
	struct disk_format f = want();
	FILE *p = popen(make, "r");

	(void)state;
	if (!p || !fgets(device, sizeof(device), p) || device[0] != '/') {
		if (p)
			pclose(p);
		print_message("# skipped: no loop device can be had here (root, losetup)\n");
		skip();
	}
	pclose(p);
	device[strcspn(device, "\n")] = 0;
	snprintf(command, sizeof(command), "mkdir %s/at && mount %s %s/at", dir, device, dir);
	assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c) */
	f.path = device;
	f.force = true;
	expect(f, ERR_CONFLICT, "in use");
	snprintf(command, sizeof(command), "umount %s/at && rmdir %s/at && losetup -d %s", dir, dir, device);
	assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c) */
}

static void the_list_shows_hosts_pills_and_what_cannot_be_read(void **state)
{
	struct disk_format f = want();
	struct disk_beat b = {
		.node = 7, .life = {.incarnation = 0xabc}, .sequence = 5, .state = DISK_STATE_DEAD, .name = "n7"};
	struct disk_pill p = {.from = 1, .to = 7, .request = 0xdef, .name = "n1"};
	uint8_t data[DISK_SECTOR_MAX];
	struct disk_header h;
	json_t *list, *host;

	(void)state;
	assert_int_equal(disk_format(&f, &h, NULL), 0);
	b.acks[3] = 0xdef;
	disk_beat_encode(&h, disk_beat_sector(6), &b, data);
	write_at((off_t)disk_beat_sector(6) * 4096, data, 4096);
	disk_pill_encode(&h, disk_pill_sector(6, 3), &p, data);
	write_at((off_t)disk_pill_sector(6, 3) * 4096, data, 4096);
	write_at((off_t)disk_beat_sector(9) * 4096, "torn", 4);
	list = disk_list(path, NULL);
	assert_non_null(list);
	host = json_array_get(json_object_get(list, "hosts"), 0);
	assert_string_equal(json_string_value(json_object_get(host, "name")), "n7");
	assert_string_equal(json_string_value(json_object_get(host, "state")), "dead");
	assert_string_equal(json_string_value(json_object_get(host, "incarnation")), "0000000000000abc");
	assert_int_equal(json_array_size(json_object_get(host, "acks")), 1);
	assert_int_equal(json_array_size(json_object_get(list, "pills")), 1);
	assert_int_equal(json_integer_value(json_array_get(json_object_get(list, "unreadable"), 0)),
			 disk_beat_sector(9));
	json_decref(list);
}

static void a_list_of_what_is_no_fencing_disk_says_so(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_null(disk_list(path, &e));
	assert_int_equal(e.code, ERR_INPUT);
	assert_non_null(strstr(e.text, "is no fencing disk"));
}

#define ON_A_FILE(test) cmocka_unit_test_setup_teardown(test, make_file, drop_file)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_A_FILE(an_empty_disk_becomes_a_fencing_disk),
		ON_A_FILE(foreign_content_is_named_and_needs_force),
		ON_A_FILE(a_file_system_that_mkfs_made_is_named),
		ON_A_FILE(sizes_that_cannot_be_are_refused_whatever_the_force),
		ON_A_FILE(what_is_no_disk_is_refused),
		ON_A_FILE(the_disk_of_another_cluster_needs_force_and_our_own_does_not),
		ON_A_FILE(a_disk_on_which_hosts_beat_is_not_formatted_with_force_either),
		ON_A_FILE(a_disk_with_a_file_system_that_is_mounted_is_in_use),
		ON_A_FILE(the_list_shows_hosts_pills_and_what_cannot_be_read),
		ON_A_FILE(a_list_of_what_is_no_fencing_disk_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
