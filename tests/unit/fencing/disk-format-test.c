/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a fencing disk: golden sectors of both sizes, and what a reader refuses. */
#include "fencing/disk-format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

static const uint32_t sizes[] = {DISK_SECTOR_MIN, DISK_SECTOR_MAX};

static struct disk_header header_of(uint32_t size)
{
	struct disk_header h = {.sector_size = size, .token_ms = 1000, .cluster = "prod", .made_ms = 1700000000000};

	for (unsigned i = 0; i < 16; i++)
		h.id[i] = 0xa0 + i;
	return h;
}

static struct disk_life life_of(uint64_t incarnation)
{
	struct disk_life l = {.incarnation = incarnation};

	for (unsigned i = 0; i < 16; i++)
		l.boot[i] = 0x10 + i;
	return l;
}

static struct disk_beat beat_of(void)
{
	struct disk_beat b = {.node = 3,
			      .life = life_of(0x1122334455667788),
			      .sequence = 42,
			      .wall_ms = 1700000001234,
			      .state = DISK_STATE_DEAD,
			      .name = "n3"};

	b.acks[0] = 0x0102030405060708;
	b.acks[31] = 0xfffefdfcfbfaf9f8;
	return b;
}

static struct disk_pill pill_of(void)
{
	return (struct disk_pill){.from = 1,
				  .to = 3,
				  .life = life_of(0x1122334455667788),
				  .request = 0x0102030405060708,
				  .wall_ms = 1700000002345,
				  .name = "n1"};
}

/* A header, the beat in slot 2 and the pill from slot 0 to it, one behind the other. */
static void sectors_make(uint32_t size, uint8_t *ret)
{
	struct disk_header h = header_of(size);
	struct disk_beat b = beat_of();
	struct disk_pill p = pill_of();

	disk_header_encode(&h, ret);
	disk_beat_encode(&h, disk_beat_sector(2), &b, ret + size);
	disk_pill_encode(&h, disk_pill_sector(2, 0), &p, ret + 2 * (size_t)size);
}

static void sectors_of_both_sizes_are_the_golden_ones(void **state)
{
	uint8_t now[3 * DISK_SECTOR_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_free_ char *path = xasprintf("tests/golden/disk/v1-%u.bin", sizes[i]), *golden = NULL;
		size_t size = 0;

		sectors_make(sizes[i], now);
		golden = file_read(path, sizeof(now), &size, NULL);
		assert_non_null(golden);
		assert_int_equal(size, 3 * sizes[i]);
		assert_memory_equal(golden, now, size);
	}
}

static void golden_header_is(const uint8_t *data, uint32_t size)
{
	struct disk_header h, want = header_of(size);

	assert_int_equal(disk_header_decode(data, size, &h, NULL), 1);
	assert_int_equal(h.sector_size, size);
	assert_int_equal(h.token_ms, 1000);
	assert_int_equal(h.made_ms, want.made_ms);
	assert_memory_equal(h.id, want.id, sizeof(h.id));
	assert_string_equal(h.cluster, "prod");
}

static void golden_beat_is(const struct disk_header *h, const uint8_t *data)
{
	struct disk_beat b, want = beat_of();

	assert_int_equal(disk_beat_decode(h, disk_beat_sector(2), data, &b, NULL), 1);
	assert_int_equal(b.node, 3);
	assert_true(disk_life_equal(&b.life, &want.life));
	assert_int_equal(b.sequence, 42);
	assert_int_equal(b.wall_ms, want.wall_ms);
	assert_int_equal(b.state, DISK_STATE_DEAD);
	assert_string_equal(b.name, "n3");
	assert_memory_equal(b.acks, want.acks, sizeof(b.acks));
}

static void golden_pill_is(const struct disk_header *h, const uint8_t *data)
{
	struct disk_pill p, want = pill_of();

	assert_int_equal(disk_pill_decode(h, disk_pill_sector(2, 0), data, &p, NULL), 1);
	assert_int_equal(p.from, 1);
	assert_int_equal(p.to, 3);
	assert_true(disk_life_equal(&p.life, &want.life));
	assert_int_equal(p.request, want.request);
	assert_int_equal(p.wall_ms, want.wall_ms);
	assert_string_equal(p.name, "n1");
}

static void golden_sectors_are_read_as_they_were_meant(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_free_ char *path = xasprintf("tests/golden/disk/v1-%u.bin", sizes[i]), *golden = NULL;
		struct disk_header h = header_of(sizes[i]);
		const uint8_t *data;

		golden = file_read(path, 3 * DISK_SECTOR_MAX, NULL, NULL);
		assert_non_null(golden);
		data = (const uint8_t *)golden;
		golden_header_is(data, sizes[i]);
		golden_beat_is(&h, data + sizes[i]);
		golden_pill_is(&h, data + 2 * (size_t)sizes[i]);
	}
}

static void no_two_sectors_have_the_same_place(void **state)
{
	bool used[DISK_SECTORS] = {true};

	(void)state;
	for (unsigned i = 0; i < DISK_SLOTS; i++) {
		assert_false(used[disk_beat_sector(i)]);
		used[disk_beat_sector(i)] = true;
	}
	for (unsigned i = 0; i < DISK_SLOTS * DISK_SLOTS; i++) {
		uint32_t s = disk_pill_sector(i / DISK_SLOTS, i % DISK_SLOTS);

		assert_true(s < DISK_SECTORS && !used[s]);
		used[s] = true;
	}
}

static void a_bit_that_is_wrong_anywhere_is_seen(void **state)
{
	uint8_t data[3 * DISK_SECTOR_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct disk_header h = header_of(sizes[i]), h2;
		struct disk_beat b;
		struct disk_pill p;
		uint8_t *beat = data + sizes[i], *pill = beat + sizes[i];

		sectors_make(sizes[i], data);
		for (size_t at = 0; at < sizes[i]; at++) {
			data[at] ^= 1;
			assert_int_not_equal(disk_header_decode(data, sizes[i], &h2, NULL), 1);
			data[at] ^= 1;
			beat[at] ^= 0x80;
			assert_int_equal(disk_beat_decode(&h, disk_beat_sector(2), beat, &b, NULL), -1);
			pill[at] ^= 4;
			assert_int_equal(disk_pill_decode(&h, disk_pill_sector(2, 0), pill, &p, NULL), -1);
			beat[at] ^= 0x80;
			pill[at] ^= 4;
		}
	}
}

static void a_sector_is_good_in_its_place_on_its_disk_only(void **state)
{
	uint8_t data[3 * DISK_SECTOR_MIN];
	struct disk_header h = header_of(DISK_SECTOR_MIN), other = h;
	struct disk_beat b;
	struct err e = ERR_INIT;

	(void)state;
	sectors_make(DISK_SECTOR_MIN, data);
	assert_int_equal(disk_beat_decode(&h, disk_beat_sector(3), data + DISK_SECTOR_MIN, &b, &e), -1);
	assert_int_equal(e.code, ERR_PROTOCOL);
	other.id[0] ^= 1;
	assert_int_equal(disk_beat_decode(&other, disk_beat_sector(2), data + DISK_SECTOR_MIN, &b, NULL), -1);
	/* A pill where a beat should be, with the right sum for that place. */
	struct disk_pill p = pill_of();
	disk_pill_encode(&h, disk_beat_sector(2), &p, data);
	assert_int_equal(disk_beat_decode(&h, disk_beat_sector(2), data, &b, NULL), -1);
}

static void a_sector_of_which_half_was_written_is_seen(void **state)
{
	_free_ uint8_t *old = xcalloc(3, DISK_SECTOR_MAX), *new = xcalloc(3, DISK_SECTOR_MAX);
	struct disk_header h = header_of(DISK_SECTOR_MAX);
	struct disk_beat b = beat_of(), got;

	(void)state;
	disk_beat_encode(&h, disk_beat_sector(2), &b, old);
	b.sequence++;
	disk_beat_encode(&h, disk_beat_sector(2), &b, new);
	for (size_t cut = DISK_SECTOR_MIN; cut < DISK_SECTOR_MAX; cut += DISK_SECTOR_MIN) {
		uint8_t torn[DISK_SECTOR_MAX];

		memcpy(torn, new, cut);
		memcpy(torn + cut, old + cut, DISK_SECTOR_MAX - cut);
		assert_int_equal(disk_beat_decode(&h, disk_beat_sector(2), torn, &got, NULL), -1);
	}
}

static void sectors_that_nobody_wrote_say_nothing(void **state)
{
	uint8_t zero[DISK_SECTOR_MIN] = {0};
	struct disk_header h = header_of(DISK_SECTOR_MIN);
	struct disk_beat b;
	struct disk_pill p;

	(void)state;
	assert_int_equal(disk_header_decode(zero, sizeof(zero), &h, NULL), 0);
	assert_int_equal(disk_beat_decode(&h, 1, zero, &b, NULL), 0);
	assert_int_equal(disk_pill_decode(&h, 33, zero, &p, NULL), 0);
}

static void another_version_is_named(void **state)
{
	uint8_t data[DISK_SECTOR_MIN];
	struct disk_header h = header_of(DISK_SECTOR_MIN);
	struct err e = ERR_INIT;

	(void)state;
	disk_header_encode(&h, data);
	data[9] = 2;
	assert_int_equal(disk_header_decode(data, sizeof(data), &h, &e), -1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "version 2"));
}

static void fields_that_no_writer_writes_are_refused(void **state)
{
	uint8_t data[DISK_SECTOR_MIN];
	struct disk_header h = header_of(DISK_SECTOR_MIN), h2;
	struct disk_beat b, got;
	struct disk_pill p, got_pill;

	(void)state;
	b = beat_of();
	b.node = 0;
	disk_beat_encode(&h, 1, &b, data);
	assert_int_equal(disk_beat_decode(&h, 1, data, &got, NULL), -1);
	b = beat_of();
	b.state = (enum disk_state)4;
	disk_beat_encode(&h, 1, &b, data);
	assert_int_equal(disk_beat_decode(&h, 1, data, &got, NULL), -1);
	b = beat_of();
	b.name[0] = '\033';
	disk_beat_encode(&h, 1, &b, data);
	assert_int_equal(disk_beat_decode(&h, 1, data, &got, NULL), -1);
	p = pill_of();
	p.request = 0;
	disk_pill_encode(&h, 33, &p, data);
	assert_int_equal(disk_pill_decode(&h, 33, data, &got_pill, NULL), -1);
	h.token_ms = 0;
	disk_header_encode(&h, data);
	assert_int_equal(disk_header_decode(data, sizeof(data), &h2, NULL), -1);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sectors_of_both_sizes_are_the_golden_ones),
		cmocka_unit_test(golden_sectors_are_read_as_they_were_meant),
		cmocka_unit_test(no_two_sectors_have_the_same_place),
		cmocka_unit_test(a_bit_that_is_wrong_anywhere_is_seen),
		cmocka_unit_test(a_sector_is_good_in_its_place_on_its_disk_only),
		cmocka_unit_test(a_sector_of_which_half_was_written_is_seen),
		cmocka_unit_test(sectors_that_nobody_wrote_say_nothing),
		cmocka_unit_test(another_version_is_named),
		cmocka_unit_test(fields_that_no_writer_writes_are_refused),
	};

	/* --golden: write the golden files anew, for a new version of the format. */
	if (argc == 2 && strcmp(argv[1], "--golden") == 0) {
		uint8_t data[3 * DISK_SECTOR_MAX];

		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			_free_ char *path = xasprintf("tests/golden/disk/v1-%u.bin", sizes[i]);

			sectors_make(sizes[i], data);
			if (file_write_atomic(path, data, 3 * sizes[i], 0644, -1, NULL) < 0)
				return 1;
		}
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
