/* SPDX-License-Identifier: Apache-2.0 */
/* Runs seeds of the simulated move, stops at the first that breaks a promise, and replays one with a trace. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/move-sim.h"

static struct world world;

static int usage(void)
{
	fprintf(stderr,
		"usage: move-sim [--seed N] [--count N] [--trace] [--break agree|promise|restart|anew|fence|stale]\n"
		"  --seed N   the first seed (default 1)\n"
		"  --count N  so many seeds (default 1)\n"
		"  --trace    tell what happens\n"
		"  --break R  break a rule: hand over unasked, promise and not keep it, ignore restart,\n"
		"             believe a host that was started anew, take a host for dead that is not,\n"
		"             step from whatever step it is by now\n");
	return 2;
}

static int break_rule(struct options *o, const char *rule)
{
	for (int i = 0; i < RULE_MAX; i++)
		if (!strcmp(rule, rule_names[i])) {
			o->broken[i] = true;
			return 0;
		}
	return -1;
}

/* The seed that failed again, this time with a trace. */
static void replay(const struct options *o, const char *program)
{
	struct options again = *o;

	printf("seed %" PRIu64 ": %s\nreplay: %s --seed %" PRIu64 " --trace\n", o->seed, world.failure, program,
	       o->seed);
	if (o->trace)
		return;
	again.trace = true;
	world_run(&world, &again);
}

static void summary(uint64_t count, uint64_t events, const uint64_t *ends)
{
	printf("%" PRIu64 " seeds, %" PRIu64 " events; moves:", count, events);
	for (int s = 0; s < MOVE_STEP_MAX; s++)
		if (ends[s])
			printf(" %s %" PRIu64, move_step_names[s], ends[s]);
	printf(", restarted %" PRIu64 ", were undecided %" PRIu64 "\n", ends[MOVE_STEP_MAX], ends[MOVE_STEP_MAX + 1]);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seed", required_argument, NULL, 's'},
						{"count", required_argument, NULL, 'c'},
						{"trace", no_argument, NULL, 't'},
						{"break", required_argument, NULL, 'b'},
						{0}};
	struct options o = {.seed = 1};
	uint64_t count = 1, events = 0, ends[MOVE_STEP_MAX + 2] = {0};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 's')
			o.seed = strtoull(optarg, NULL, 10);
		else if (opt == 'c')
			count = strtoull(optarg, NULL, 10);
		else if (opt == 't')
			o.trace = true;
		else if (opt != 'b' || break_rule(&o, optarg) < 0)
			return usage();
	}
	/* Databases in memory, one thread. */
	sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	order_open();
	for (uint64_t i = 0; i < count; i++, o.seed++) {
		if (!world_run(&world, &o)) {
			replay(&o, argv[0]);
			return 1;
		}
		events += world.n_handled;
		ends[row_now()->step]++;
		ends[MOVE_STEP_MAX] += row_now()->restart;
		ends[MOVE_STEP_MAX + 1] += world.acked[MOVE_UNDECIDED] > 0;
	}
	summary(count, events, ends);
	sqlite3_close(sim_db);
	return 0;
}
