/* SPDX-License-Identifier: Apache-2.0 */
/* check: waits */
/* Fencing by shared disks: storage that hangs, fails or tears, disks that are not ours, slots, several disks. */
#include "fencing/disk.h"

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

static struct world w;
static struct host *const a = &w.hosts[0], *const b = &w.hosts[1];

static int make_world(void **state)
{
	(void)state;
	world_init(&w, 1, DISK_SECTOR_MIN);
	return 0;
}

static int make_world_4096(void **state)
{
	(void)state;
	world_init(&w, 1, DISK_SECTOR_MAX);
	return 0;
}

static int make_three_disks(void **state)
{
	(void)state;
	world_init(&w, 3, DISK_SECTOR_MAX);
	return 0;
}

static int drop_world(void **state)
{
	(void)state;
	world_done(&w);
	return 0;
}

static bool a_sees_b(struct world *world)
{
	(void)world;
	return sees(a, b);
}

/* ---- storage that fails ---- */

static bool b_has_lost(struct world *world)
{
	(void)world;
	return b->link[0] == DISK_LINK_LOST;
}

static bool b_works(struct world *world)
{
	(void)world;
	return b->link[0] == DISK_LINK_WORKING;
}

static bool a_works(struct world *world)
{
	(void)world;
	return a->link[0] == DISK_LINK_WORKING;
}

static bool b_works_on_all_disks(struct world *world)
{
	(void)world;
	return b->link[0] == DISK_LINK_WORKING && b->link[1] == DISK_LINK_WORKING && b->link[2] == DISK_LINK_WORKING;
}

static void storage_that_hangs_is_told_and_the_loop_goes_on(void **state)
{
	int64_t began;

	(void)state;
	two_hosts_up(&w);
	atomic_store(&b->storage->hang[0], true);
	world_until(&w, b_has_lost);
	assert_non_null(strstr(b->why[0], "does not answer"));
	w.ticks = 0;
	world_run(&w, ROUNDS(4));
	assert_true(w.ticks > 20); /* of 80 */
	/* Silence proves nothing, however long. */
	world_pill(a, b, ROUNDS(15));
	world_until(&w, a_is_answered);
	assert_int_equal(a->result, DISK_TIMED_OUT);
	/* Whose own storage hangs cannot tell anybody. */
	world_pill(b, a, ROUNDS(4));
	while (!b->answers)
		world_run(&w, ROUNDS(1));
	assert_int_equal(b->result, DISK_NOT_TOLD);
	atomic_store(&b->storage->hang[0], false);
	world_until(&w, b_works);
	atomic_store(&b->storage->hang[0], true);
	world_run(&w, ROUNDS(3));
	began = clock_now_ns();
	world_close(b);
	assert_true(clock_now_ns() - began < 5 * NS_PER_S);
}

static bool b_hangs(struct world *world)
{
	(void)world;
	return atomic_load(&b->storage->hanging) > 0;
}

static void a_thread_that_hung_writes_nothing_after_the_disk_was_closed(void **state)
{
	json_int_t last;

	(void)state;
	two_hosts_up(&w);
	atomic_store(&b->storage->hang_reads[0], true);
	world_run(&w, ROUNDS(3));
	world_until(&w, b_hangs);
	last = world_sequence(&w, 2);
	world_close(b);
	atomic_store(&b->storage->hang_reads[0], false);
	world_rounds(&w, a, 4);
	assert_int_equal(world_sequence(&w, 2), last);
}

static void storage_that_fails_is_told_and_comes_back(void **state)
{
	(void)state;
	two_hosts_up(&w);
	atomic_store(&b->storage->fail[0], true);
	world_until(&w, b_has_lost);
	assert_non_null(strstr(b->why[0], "Input/output error"));
	atomic_store(&b->storage->fail[0], false);
	world_until(&w, b_works);
	world_until(&w, a_sees_b);
}

static void torn_beats_are_silence_until_whole_ones_come(void **state)
{
	struct disk_peer p, later;

	(void)state;
	two_hosts_up(&w);
	atomic_store(&b->storage->tear[0], true);
	world_run(&w, ROUNDS(5));
	assert_true(disk_peer(a->disk, 2, &p));
	assert_true(p.age_ns > ROUNDS(2));
	atomic_store(&b->storage->tear[0], false);
	world_until(&w, a_sees_b);
	assert_true(disk_peer(a->disk, 2, &later));
	assert_true(later.wall_ms > p.wall_ms);
	world_pill(a, b, LONG);
	world_until(&w, b_is_told);
}

/* ---- disks that are not ours ---- */

static bool a_is_refused(struct world *world)
{
	(void)world;
	return a->link[0] == DISK_LINK_REFUSED;
}

static void expect_refusal(const char *word)
{
	world_open(&w, 0, 1, 11);
	world_until(&w, a_is_refused);
	if (!strstr(a->why[0], word))
		print_message("%s\n", a->why[0]);
	assert_non_null(strstr(a->why[0], word));
	world_close(a);
}

static void disks_that_are_not_right_are_refused_with_the_reason(void **state)
{
	uint8_t data[DISK_SECTOR_MIN];

	(void)state;
	w.cluster = "test";
	expect_refusal("is the fencing disk of the cluster prod, and this one is test");
	w.cluster = "prod";
	w.token_ms = 300;
	expect_refusal("was formatted for a token time-out of 200 ms, and the cluster has 300 ms");
	w.token_ms = WORLD_T_MS;
	assert_int_equal(truncate(w.paths[0], 100 * DISK_SECTOR_MAX), 0);
	expect_refusal("was cut off");
	assert_int_equal(truncate(w.paths[0], DISK_SECTOR_MIN), 0);
	expect_refusal("has only 512 bytes");
	assert_int_equal(truncate(w.paths[0], 8 << 20), 0);
	world_read(&w, 0, data, sizeof(data));
	data[50] ^= 1;
	world_write(&w, 0, data, sizeof(data));
	expect_refusal("the checksum is wrong");
	memset(data, 0, sizeof(data));
	world_write(&w, 0, data, sizeof(data));
	expect_refusal("is no fencing disk");
	unlink(w.paths[0]);
	assert_int_equal(mkfifo(w.paths[0], 0600), 0);
	expect_refusal("neither a block device nor a file");
}

static void nothing_is_written_to_a_disk_that_somebody_has_overwritten(void **state)
{
	_free_ uint8_t *zero = xcalloc(DISK_SECTORS, DISK_SECTOR_MIN), *now = xcalloc(DISK_SECTORS, DISK_SECTOR_MIN);

	(void)state;
	two_hosts_up(&w);
	world_write(&w, 0, zero, DISK_SECTORS * DISK_SECTOR_MIN);
	world_until(&w, a_is_refused);
	world_run(&w, ROUNDS(2));
	world_write(&w, 0, zero, DISK_SECTORS * DISK_SECTOR_MIN); /* a beat may have been on its way */
	world_run(&w, ROUNDS(5));
	world_read(&w, 0, now, DISK_SECTORS * DISK_SECTOR_MIN);
	assert_memory_equal(now, zero, DISK_SECTORS * DISK_SECTOR_MIN);
}

static void a_disk_that_was_formatted_again_is_begun_anew(void **state)
{
	struct disk_header h = world_header(&w);
	uint8_t data[DISK_SECTOR_MIN];

	(void)state;
	two_hosts_up(&w);
	h.id[3] ^= 1;
	disk_header_encode(&h, data);
	world_write(&w, 0, data, sizeof(data));
	world_until(&w, a_is_refused);
	assert_non_null(strstr(a->why[0], "somebody has overwritten"));
	world_until(&w, a_works);
	world_pill(a, b, LONG);
	world_until(&w, b_is_told);
}

/* ---- slots ---- */

static void hosts_whose_ids_want_the_same_slot_get_two(void **state)
{
	(void)state;
	a->node = 1;
	b->node = 33;
	two_hosts_up(&w);
	world_pill(a, b, LONG);
	world_until(&w, b_is_told);
	disk_ack(b->disk, b->request);
	world_until(&w, a_is_answered);
	assert_int_equal(a->result, DISK_ACKNOWLEDGED);
	a->node = b->node = 0;
}

static bool slot_of_node_5_is_taken(struct world *world)
{
	struct disk_header h = world_header(world);
	uint8_t data[DISK_SECTOR_MIN];
	struct disk_beat beat;

	world_read(world, disk_beat_sector(4), data, sizeof(data));
	return disk_beat_decode(&h, disk_beat_sector(4), data, &beat, NULL) == 1 && beat.node == 40;
}

static void only_the_slot_of_a_host_that_was_removed_is_given_away(void **state)
{
	struct disk_header h = world_header(&w);
	uint8_t data[DISK_SECTOR_MIN];
	uint32_t members[DISK_SLOTS];

	(void)state;
	for (unsigned i = 0; i < DISK_SLOTS; i++) {
		struct disk_beat beat = {.node = i + 1, .state = DISK_STATE_UP, .name = "x"};

		members[i] = i + 1 == 5 ? 40 : i + 1;
		disk_beat_encode(&h, disk_beat_sector(i), &beat, data);
		world_write(&w, disk_beat_sector(i), data, sizeof(data));
	}
	a->node = 40;
	world_open(&w, 0, 1, 11);
	world_until(&w, a_is_refused);
	assert_non_null(strstr(a->why[0], "all slots"));
	world_run(&w, ROUNDS(6));
	assert_false(slot_of_node_5_is_taken(&w));
	disk_members(a->disk, members, DISK_SLOTS);
	world_until(&w, slot_of_node_5_is_taken);
	world_until(&w, a_works);
	a->node = 0;
}

/* ---- several disks ---- */

static void an_acknowledgement_on_one_disk_of_three_is_a_proof(void **state)
{
	(void)state;
	world_open(&w, 0, 1, 11);
	world_open(&w, 1, 2, 21);
	world_until(&w, a_and_b_see_each_other);
	world_until(&w, b_works_on_all_disks);
	world_rounds(&w, b, 5); /* it has its slots */
	atomic_store(&b->storage->hang[0], true);
	atomic_store(&b->storage->fail[1], true);
	world_pill(a, b, LONG);
	world_until(&w, b_is_told);
	disk_ack(b->disk, b->request);
	world_until(&w, a_is_answered);
	assert_int_equal(a->result, DISK_ACKNOWLEDGED);
	assert_int_equal(b->pills, 1);
}

#define IN(world, test) cmocka_unit_test_setup_teardown(test, world, drop_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN(make_world, storage_that_hangs_is_told_and_the_loop_goes_on),
		IN(make_world, a_thread_that_hung_writes_nothing_after_the_disk_was_closed),
		IN(make_world, storage_that_fails_is_told_and_comes_back),
		IN(make_world_4096, torn_beats_are_silence_until_whole_ones_come),
		IN(make_world, disks_that_are_not_right_are_refused_with_the_reason),
		IN(make_world, nothing_is_written_to_a_disk_that_somebody_has_overwritten),
		IN(make_world, a_disk_that_was_formatted_again_is_begun_anew),
		IN(make_world, hosts_whose_ids_want_the_same_slot_get_two),
		IN(make_world, only_the_slot_of_a_host_that_was_removed_is_given_away),
		IN(make_three_disks, an_acknowledgement_on_one_disk_of_three_is_a_proof),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
