/* SPDX-License-Identifier: Apache-2.0 */
/* Fencing by shared disks: hosts that tell each other to die, what they answer, and what proves nothing. */
#include "fencing/disk.h"

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
#include "fencing/disk-tool.h"
#include "tests/unit/fencing/disk-world.h"

#define LONG (15 * NS_PER_S) /* an answer comes before that */
#define ROUNDS(n) ((n)*WORLD_POLL_NS)

static struct world w;
static struct host *const a = &w.hosts[0], *const b = &w.hosts[1], *const c = &w.hosts[2];

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

static bool sees(const struct host *from, const struct host *to)
{
	struct disk_peer p;

	return disk_peer(from->disk, to->node, &p) && disk_life_equal(&p.life, &to->life) &&
	       p.age_ns < 3 * WORLD_POLL_NS;
}

static bool a_and_b_see_each_other(struct world *world)
{
	(void)world;
	return sees(a, b) && sees(b, a);
}

static bool a_sees_b(struct world *world)
{
	(void)world;
	return sees(a, b);
}

static bool all_see_b(struct world *world)
{
	(void)world;
	return sees(a, b) && sees(c, b) && sees(b, a) && sees(b, c);
}

static bool a_is_answered(struct world *world)
{
	(void)world;
	return a->answers > 0;
}

static bool b_is_told(struct world *world)
{
	(void)world;
	return b->pills > 0;
}

static bool a_sees_b_die(struct world *world)
{
	struct disk_peer p;

	(void)world;
	return disk_peer(a->disk, b->node, &p) && p.state == DISK_STATE_DYING;
}

static void two_hosts_up(void)
{
	world_open(&w, 0, 1, 11);
	world_open(&w, 1, 2, 21);
	world_until(&w, a_and_b_see_each_other);
}

/* ---- beats ---- */

static void hosts_see_each_other_beat(void **state)
{
	struct disk_peer p;

	(void)state;
	two_hosts_up();
	assert_true(disk_peer(a->disk, 2, &p));
	assert_string_equal(p.name, "n2");
	assert_int_equal(p.state, DISK_STATE_UP);
	assert_false(disk_peer(a->disk, 3, &p));
	world_close(b);
	world_run(&w, ROUNDS(6));
	assert_true(disk_peer(a->disk, 2, &p));
	assert_true(p.age_ns > ROUNDS(3));
}

static void a_slot_that_is_silent_since_we_came_is_no_peer(void **state)
{
	struct disk_peer p;

	(void)state;
	two_hosts_up();
	world_close(a);
	world_close(b);
	world_open(&w, 0, 1, 12);
	world_rounds(&w, a, 4);
	assert_false(disk_peer(a->disk, 2, &p));
}

/* ---- pills ---- */

static void tell_and_acknowledge(void)
{
	two_hosts_up();
	world_pill(a, b, LONG);
	world_until(&w, a_sees_b_die);
	assert_int_equal(b->pills, 1);
	assert_int_equal(b->pill_from, 1);
	world_rounds(&w, a, 6);
	assert_int_equal(a->answers, 0); /* its guests may live */
	assert_true(disk_ack(b->disk, b->request));
	world_until(&w, a_is_answered);
	assert_int_equal(a->result, DISK_ACKNOWLEDGED);
	assert_true(disk_result_is_proof(a->result));
	assert_int_equal(b->pills, 1);
	assert_int_equal(a->pills, 0);
}

static void the_proof_is_the_victims_acknowledgement_and_not_its_reading(void **state)
{
	(void)state;
	tell_and_acknowledge();
}

static void a_loop_device_with_sectors_of_4096_bytes_works_the_same(void **state)
{
	_free_ char *make = NULL, *drop = NULL;
	struct disk_header h;
	struct disk_format f = {.path = w.paths[0], .cluster = "prod", .token_ms = WORLD_T_MS};
	char backing[192];
	FILE *p;

	(void)state;
	memcpy(backing, w.paths[0], sizeof(backing));
	assert_int_equal(truncate(backing, 0), 0);
	assert_int_equal(truncate(backing, 8 << 20), 0);
	make = xasprintf("losetup --show -f --sector-size 4096 %s 2>/dev/null", backing);
	p = popen(make, "r");
	if (!p || !fgets(w.paths[0], sizeof(w.paths[0]), p) || w.paths[0][0] != '/') {
		if (p)
			pclose(p);
		memcpy(w.paths[0], backing, sizeof(backing));
		print_message("# skipped: no loop device can be had here (root, losetup)\n");
		skip();
	}
	pclose(p);
	w.paths[0][strcspn(w.paths[0], "\n")] = 0;
	assert_int_equal(disk_format(&f, &h, NULL), 0);
	assert_int_equal(h.sector_size, DISK_SECTOR_MAX);
	f.sector_size = DISK_SECTOR_MIN;
	assert_int_equal(disk_format(&f, &h, NULL), -1);
	tell_and_acknowledge();
	world_close(a);
	world_close(b);
	drop = xasprintf("losetup -d %s", w.paths[0]);
	assert_int_equal(system(drop), 0); /* NOLINT(cert-env33-c): a device of our own */
	memcpy(w.paths[0], backing, sizeof(backing));
}

static bool a_and_c_are_answered(struct world *world)
{
	(void)world;
	return a->answers > 0 && c->answers > 0;
}

static void two_who_tell_at_once_are_both_answered_by_one_death(void **state)
{
	(void)state;
	world_open(&w, 0, 1, 11);
	world_open(&w, 1, 2, 21);
	world_open(&w, 2, 3, 31);
	world_until(&w, all_see_b);
	world_pill(a, b, LONG);
	world_pill(c, b, LONG);
	world_until(&w, b_is_told);
	assert_true(disk_ack(b->disk, b->request));
	world_until(&w, a_and_c_are_answered);
	assert_int_equal(a->result, DISK_ACKNOWLEDGED);
	assert_int_equal(c->result, DISK_ACKNOWLEDGED);
	assert_int_equal(b->pills, 1);
	/* Dead is dead: who asks later is answered without asking the daemon. */
	world_pill(c, b, LONG);
	world_until(&w, a_and_c_are_answered);
	assert_int_equal(c->result, DISK_ACKNOWLEDGED);
	assert_int_equal(b->pills, 1);
}

static void two_who_tell_each_other_both_die(void **state)
{
	(void)state;
	two_hosts_up();
	world_pill(a, b, LONG);
	world_pill(b, a, LONG);
	world_until(&w, b_is_told);
	disk_ack(b->disk, b->request);
	while (!a->pills)
		world_run(&w, ROUNDS(1));
	disk_ack(a->disk, a->request);
	world_until(&w, a_is_answered);
	assert_int_equal(a->result, DISK_ACKNOWLEDGED);
}

static json_int_t pills_on_disk(void)
{
	json_t *list = disk_list(w.paths[0], NULL);
	json_int_t n = (json_int_t)json_array_size(json_object_get(list, "pills"));

	assert_non_null(list);
	json_decref(list);
	return n;
}

static bool a_pill_is_on_the_disk(struct world *world)
{
	(void)world;
	return pills_on_disk() == 1;
}

static bool no_pill_is_on_the_disk(struct world *world)
{
	(void)world;
	return pills_on_disk() == 0;
}

/* The fencer's process dies, and its pill stays on the disk. */
static void leave_a_pill(void)
{
	two_hosts_up();
	atomic_store(&b->storage->hang[0], true);
	world_pill(a, b, LONG);
	world_until(&w, a_pill_is_on_the_disk);
	assert_int_equal(b->pills, 0);
	world_close(a);
}

static void a_pill_reaches_a_host_whose_storage_comes_back(void **state)
{
	(void)state;
	leave_a_pill();
	assert_int_equal(pills_on_disk(), 1);
	atomic_store(&b->storage->hang[0], false);
	world_until(&w, b_is_told);
}

static void a_stale_pill_does_not_kill_a_host_that_has_rejoined(void **state)
{
	(void)state;
	leave_a_pill();
	disk_renew(b->disk, 22); /* it is back in the cluster, its storage is not */
	atomic_store(&b->storage->hang[0], false);
	world_rounds(&w, b, 6);
	assert_int_equal(pills_on_disk(), 1);
	assert_int_equal(b->pills, 0);
}

static void a_stale_pill_does_not_kill_a_host_that_has_rebooted(void **state)
{
	(void)state;
	leave_a_pill();
	world_close(b);
	atomic_store(&b->storage->hang[0], false);
	world_open(&w, 1, 3, 21);
	world_rounds(&w, b, 6);
	assert_int_equal(pills_on_disk(), 1);
	assert_int_equal(b->pills, 0);
}

static void a_daemon_withdraws_the_pills_that_the_one_before_has_left(void **state)
{
	(void)state;
	leave_a_pill();
	world_open(&w, 0, 1, 12);
	world_until(&w, no_pill_is_on_the_disk);
}

static void a_pill_that_is_cancelled_is_taken_from_the_disk(void **state)
{
	(void)state;
	two_hosts_up();
	atomic_store(&b->storage->hang[0], true);
	world_pill(a, b, LONG);
	world_until(&w, a_pill_is_on_the_disk);
	disk_pill_cancel(a->asked);
	world_until(&w, no_pill_is_on_the_disk);
	assert_int_equal(a->answers, 0);
}

static void the_dead_of_a_former_life_say_nothing_about_the_new_one(void **state)
{
	uint64_t former;

	(void)state;
	two_hosts_up();
	world_pill(a, b, LONG);
	world_until(&w, b_is_told);
	former = b->request;
	disk_renew(b->disk, 22);
	assert_false(disk_ack(b->disk, former));
	world_until(&w, a_is_answered);
	assert_int_equal(a->result, DISK_MOVED);
	assert_false(disk_result_is_proof(a->result));
	/* With the new incarnation it is reached. */
	b->life.incarnation = 22;
	b->pills = 0;
	world_pill(a, b, LONG);
	world_until(&w, b_is_told);
	assert_true(disk_ack(b->disk, b->request));
	world_until(&w, a_is_answered);
	assert_int_equal(a->result, DISK_ACKNOWLEDGED);
}

static void a_daemon_that_was_restarted_is_no_proof(void **state)
{
	struct host old;

	(void)state;
	two_hosts_up();
	old.node = b->node;
	old.life = b->life;
	world_close(b);
	world_pill(a, &old, LONG);
	world_open(&w, 1, 2, 22);
	world_until(&w, a_is_answered);
	assert_int_equal(a->result, DISK_MOVED);
	assert_int_equal(b->pills, 0);
}

/* ---- reboots ---- */

static void a_host_that_has_rebooted_is_a_proof(void **state)
{
	struct host old;

	(void)state;
	two_hosts_up();
	old.node = b->node;
	old.life = b->life;
	world_close(b);
	world_pill(a, &old, LONG);
	world_rounds(&w, a, 6);
	assert_int_equal(a->answers, 0);
	world_open(&w, 1, 3, 31);
	world_until(&w, a_is_answered);
	assert_int_equal(a->result, DISK_REBOOTED);
	assert_true(disk_result_is_proof(a->result));
}

static void what_an_earlier_boot_has_left_is_no_proof(void **state)
{
	struct host now;

	(void)state;
	two_hosts_up();
	world_close(b); /* its storage is lost, it reboots, joins, and is lost: it never wrote again */
	now.node = b->node;
	now.life = world_life(3, 31);
	world_pill(a, &now, ROUNDS(15));
	world_until(&w, a_is_answered);
	assert_int_equal(a->result, DISK_TIMED_OUT);
	assert_false(disk_result_is_proof(a->result));
}

/* A beat of another boot in the slot of b. */
static void beat_by_hand(uint64_t sequence)
{
	struct disk_header h = world_header(&w);
	struct disk_beat beat = {
		.node = 2, .life = world_life(9, 91), .sequence = sequence, .state = DISK_STATE_UP, .name = "n2"};
	uint8_t data[DISK_SECTOR_MIN];

	disk_beat_encode(&h, disk_beat_sector(1), &beat, data);
	world_write(&w, disk_beat_sector(1), data, sizeof(data));
}

static void one_write_that_was_long_on_its_way_is_no_proof(void **state)
{
	(void)state;
	two_hosts_up();
	world_close(b);
	world_pill(a, b, LONG);
	world_rounds(&w, a, 3);
	beat_by_hand(500);
	world_rounds(&w, a, 6);
	assert_int_equal(a->answers, 0);
	beat_by_hand(501);
	world_until(&w, a_is_answered);
	assert_int_equal(a->result, DISK_REBOOTED);
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
	two_hosts_up();
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

static void storage_that_fails_is_told_and_comes_back(void **state)
{
	(void)state;
	two_hosts_up();
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
	two_hosts_up();
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
	two_hosts_up();
	world_write(&w, 0, zero, DISK_SECTORS * DISK_SECTOR_MIN);
	world_until(&w, a_is_refused);
	world_run(&w, ROUNDS(2));
	world_write(&w, 0, zero, DISK_SECTORS * DISK_SECTOR_MIN); /* a beat may have been on its way */
	world_run(&w, ROUNDS(5));
	world_read(&w, 0, now, DISK_SECTORS * DISK_SECTOR_MIN);
	assert_memory_equal(now, zero, DISK_SECTORS * DISK_SECTOR_MIN);
}

/* ---- slots ---- */

static void hosts_whose_ids_want_the_same_slot_get_two(void **state)
{
	(void)state;
	a->node = 1;
	b->node = 33;
	two_hosts_up();
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
	world_until(&w, a_works);
	world_run(&w, ROUNDS(6));
	assert_false(slot_of_node_5_is_taken(&w));
	disk_members(a->disk, members, DISK_SLOTS);
	world_until(&w, slot_of_node_5_is_taken);
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

/* ---- what is refused ---- */

static void never_done(void *arg, enum disk_result r, const char *why)
{
	(void)arg;
	(void)r;
	(void)why;
	fail();
}

static void a_host_tells_neither_itself_nor_anybody_twice(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	two_hosts_up();
	assert_null(disk_pill(a->disk, 1, &a->life, LONG, never_done, NULL, &e));
	assert_int_equal(e.code, ERR_INPUT);
	assert_non_null(disk_pill(a->disk, 2, &b->life, LONG, never_done, NULL, &e));
	assert_null(disk_pill(a->disk, 2, &b->life, LONG, never_done, NULL, &e));
	assert_int_equal(e.code, ERR_CONFLICT);
}

static void this_kernel_has_a_boot_id(void **state)
{
	uint8_t one[16] = {0}, two[16] = {0}, zero[16] = {0};

	(void)state;
	assert_int_equal(disk_boot_id(one, NULL), 0);
	assert_int_equal(disk_boot_id(two, NULL), 0);
	assert_memory_equal(one, two, 16);
	assert_memory_not_equal(one, zero, 16);
}

#define IN(world, test) cmocka_unit_test_setup_teardown(test, world, drop_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN(make_world, hosts_see_each_other_beat),
		IN(make_world, a_slot_that_is_silent_since_we_came_is_no_peer),
		IN(make_world, the_proof_is_the_victims_acknowledgement_and_not_its_reading),
		IN(make_world, a_loop_device_with_sectors_of_4096_bytes_works_the_same),
		IN(make_world, two_who_tell_at_once_are_both_answered_by_one_death),
		IN(make_world_4096, two_who_tell_each_other_both_die),
		IN(make_world, a_pill_reaches_a_host_whose_storage_comes_back),
		IN(make_world, a_stale_pill_does_not_kill_a_host_that_has_rejoined),
		IN(make_world, a_stale_pill_does_not_kill_a_host_that_has_rebooted),
		IN(make_world, a_daemon_withdraws_the_pills_that_the_one_before_has_left),
		IN(make_world, a_pill_that_is_cancelled_is_taken_from_the_disk),
		IN(make_world, the_dead_of_a_former_life_say_nothing_about_the_new_one),
		IN(make_world, a_daemon_that_was_restarted_is_no_proof),
		IN(make_world, a_host_that_has_rebooted_is_a_proof),
		IN(make_world, what_an_earlier_boot_has_left_is_no_proof),
		IN(make_world, one_write_that_was_long_on_its_way_is_no_proof),
		IN(make_world, storage_that_hangs_is_told_and_the_loop_goes_on),
		IN(make_world, storage_that_fails_is_told_and_comes_back),
		IN(make_world_4096, torn_beats_are_silence_until_whole_ones_come),
		IN(make_world, disks_that_are_not_right_are_refused_with_the_reason),
		IN(make_world, nothing_is_written_to_a_disk_that_somebody_has_overwritten),
		IN(make_world, hosts_whose_ids_want_the_same_slot_get_two),
		IN(make_world, only_the_slot_of_a_host_that_was_removed_is_given_away),
		IN(make_three_disks, an_acknowledgement_on_one_disk_of_three_is_a_proof),
		IN(make_world, a_host_tells_neither_itself_nor_anybody_twice),
		cmocka_unit_test(this_kernel_has_a_boot_id),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
