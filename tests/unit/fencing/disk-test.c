/* SPDX-License-Identifier: Apache-2.0 */
/* check: waits */
/* Fencing by shared disks: hosts that tell each other to die, what they answer, and what proves nothing. */
#include "fencing/disk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "fencing/disk-tool.h"
#include "tests/unit/fencing/disk-world.h"

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

static int drop_world(void **state)
{
	(void)state;
	world_done(&w);
	return 0;
}

static bool all_see_b(struct world *world)
{
	(void)world;
	return sees(a, b) && sees(c, b) && sees(b, a) && sees(b, c);
}

static bool a_sees_b_die(struct world *world)
{
	struct disk_peer p;

	(void)world;
	return disk_peer(a->disk, b->node, &p) && p.state == DISK_STATE_DYING;
}

/* ---- beats ---- */

static void hosts_see_each_other_beat(void **state)
{
	struct disk_peer p;

	(void)state;
	two_hosts_up(&w);
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
	two_hosts_up(&w);
	world_close(a);
	world_close(b);
	world_open(&w, 0, 1, 12);
	world_rounds(&w, a, 4);
	assert_false(disk_peer(a->disk, 2, &p));
}

/* ---- pills ---- */

static void tell_and_acknowledge(void)
{
	two_hosts_up(&w);
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
	two_hosts_up(&w);
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
	two_hosts_up(&w);
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
	two_hosts_up(&w);
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
	two_hosts_up(&w);
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
	two_hosts_up(&w);
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
	two_hosts_up(&w);
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
	two_hosts_up(&w);
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
	two_hosts_up(&w);
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

static void a_beat_that_was_there_before_the_request_does_not_count(void **state)
{
	(void)state;
	two_hosts_up(&w);
	world_close(b);
	beat_by_hand(500);
	world_rounds(&w, a, 3);
	world_pill(a, b, LONG);
	world_rounds(&w, a, 3);
	beat_by_hand(501);
	world_rounds(&w, a, 6);
	assert_int_equal(a->answers, 0);
	beat_by_hand(502);
	world_until(&w, a_is_answered);
	assert_int_equal(a->result, DISK_REBOOTED);
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
	two_hosts_up(&w);
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
		IN(make_world, a_beat_that_was_there_before_the_request_does_not_count),
		IN(make_world, a_host_tells_neither_itself_nor_anybody_twice),
		cmocka_unit_test(this_kernel_has_a_boot_id),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
