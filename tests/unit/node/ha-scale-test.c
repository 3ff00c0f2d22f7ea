/* SPDX-License-Identifier: Apache-2.0 */
/* What high availability costs the daemon's loop on 32 hosts: ten times the guests may cost about ten times as much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cluster/state.h"
#include "node/api-int.h"
#include "tests/unit/node/api-world.h"
#include "tests/unit/node/server.h"

#define NODES 32
#define FEW 100
#define MANY 1000
#define TIMES 3
#define TIGHT (72LL << 30) /* of each host: with 1000 guests none may die, which costs the most */
#define ROOM (80LL << 30)  /* some may */

/* CPU time of the loop's thread, the best of some: others use this machine too. Milliseconds. */
struct cost {
	double look;   /* all of it, as GET /v1/ha and /metrics ask */
	double second; /* and whenever something has changed, while nothing is to be done */
	double judge;  /* a second in which what is not urgent is looked at */
	double admit;  /* a start */
};

static double cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void less(double *best, double ms)
{
	*best = *best == 0 || ms < *best ? ms : *best;
}

static void measure(void *arg)
{
	struct cost *c = arg;
	struct ha_manager *m = api_world_daemon()->ha;

	for (int i = 0; i < TIMES; i++) {
		struct err e = ERR_INIT;
		double begin = cpu_ms();
		json_t *o = ha_manager_json(m, &e);

		less(&c->look, cpu_ms() - begin);
		assert_non_null(o);
		json_decref(o);
		for (int k = 0; k < 10; k++) {
			begin = cpu_ms();
			ha_manager_tick(m);
			less(k == 9 ? &c->judge : &c->second, cpu_ms() - begin);
		}
		begin = cpu_ms();
		if (ha_manager_admit(m, "g0000", "n1", &e) < 0)
			fail_msg("%s", e.text);
		less(&c->admit, cpu_ms() - begin);
	}
}

static void manage(void *arg)
{
	(void)arg;
	api_world_daemon()->ha = ha_manager_new(api_world_daemon());
}

static void manage_no_more(void *arg)
{
	(void)arg;
	ha_manager_free(api_world_daemon()->ha);
	api_world_daemon()->ha = NULL;
}

static void report(int id, json_int_t memory)
{
	static const char cpu[] = "{\"accel\": \"kvm\", \"vendor\": \"GenuineIntel\", \"qemu\": 70222, "
				  "\"features\": [], \"models\": [\"x86-64-v2\"]}";
	char name[16];

	snprintf(name, sizeof(name), "n%d", id);
	api_world_command("node.report",
			  json_pack("{s:s, s:{s:I, s:I}, s:i, s:[s], s:o}", "node", name, "memory", "total", memory,
				    "free", memory, "cpus", 32, "networks", "lan", "cpu", json_loads(cpu, 0, NULL)));
}

static void join(int id)
{
	char name[16], address[32], fingerprint[65];

	snprintf(name, sizeof(name), "n%d", id);
	snprintf(address, sizeof(address), "127.0.0.%d", id);
	snprintf(fingerprint, sizeof(fingerprint), "%064x", id);
	api_world_command("node.join", json_pack("{s:s, s:i, s:[s], s:s}", "name", name, "id", id, "addresses", address,
						 "fingerprint", fingerprint));
}

/* All but the first run. */
static void guest(int i)
{
	static const int gib[] = {1, 2, 2, 4};
	char name[16], node[16], uuid[40];
	json_t *d;

	snprintf(name, sizeof(name), "g%04d", i);
	snprintf(node, sizeof(node), "n%d", i % NODES + 1);
	snprintf(uuid, sizeof(uuid), "00000000-0000-4000-8000-%012d", i);
	d = api_world_definition(name, gib[i / NODES % 4] << 10);
	json_object_set_new(d, "uuid", json_string(uuid));
	json_object_del(d, "nics");
	api_world_command("vm.create", json_pack("{s:o, s:s, s:b}", "definition", d, "node", node, "start", i > 0));
	api_world_observe(name, node, 1, i ? "running" : "stopped", NULL);
}

static void say(int n, const struct cost *c)
{
	print_message("# %d hosts, %d guests, ms of CPU: a look %.1f, a second %.2f, the tenth %.1f, a start %.1f\n",
		      NODES, n, c->look, c->second, c->judge, c->admit);
}

static void ten_times_the_guests_cost_about_ten_times_as_much(void **state)
{
	struct cost few = {0}, many = {0}, room = {0};

	(void)state;
	for (int id = 3; id <= NODES; id++)
		join(id);
	for (int id = 1; id <= NODES; id++)
		report(id, TIGHT);
	for (int i = 0; i < FEW; i++)
		guest(i);
	api_world_do(manage, NULL);
	api_world_do(measure, &few);
	say(FEW, &few);
	for (int i = FEW; i < MANY; i++)
		guest(i);
	api_world_do(measure, &many);
	say(MANY, &many);
	for (int id = 1; id <= NODES; id++)
		report(id, ROOM);
	api_world_do(measure, &room);
	say(MANY, &room);
	api_world_do(manage_no_more, NULL);
	/* What grows with the square would be a hundred times. */
	assert_true(room.look < 40 * few.look);
	assert_true(room.second < 40 * few.second);
	assert_true(room.judge < 40 * few.judge);
	assert_true(room.admit < 40 * few.admit);
	/* And where there is no room, the searches end. */
	assert_true(many.judge < 10 * room.judge);
	assert_true(many.admit < 10 * room.admit);
}

static int set_up(void **state)
{
	server_make_certs(state);
	api_world_start();
	return 0;
}

static int tear_down(void **state)
{
	api_world_stop();
	return server_drop_certs(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(ten_times_the_guests_cost_about_ten_times_as_much)};

	return cmocka_run_group_tests_name("node/ha-scale", tests, set_up, tear_down);
}
