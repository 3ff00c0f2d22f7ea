/* SPDX-License-Identifier: Apache-2.0 */
/* Runs seeds of the simulated moves, stops at the first that breaks a promise, and replays one with a trace. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/moves-sim.h"

static struct msim world;

static const char *const rules[BREAK_MAX] = {"nothing", "go", "loaded", "agree", "owner", "fence"};

static int usage(void)
{
	fprintf(stderr,
		"usage: moves-sim [--seed N] [--count N] [--trace] [--break go|loaded|agree|owner|fence]\n"
		"  --seed N   the first seed (default 1)\n"
		"  --count N  so many seeds (default 1)\n"
		"  --trace    tell what happens\n"
		"  --break R  break a rule: go on after GO was sent; run what is complete when the source is silent;\n"
		"             GO without the agreement; start a guest that a move has in hand; who is lost is dead\n");
	return 2;
}

static int break_rule(struct msim_options *o, const char *rule)
{
	for (int i = 0; i < BREAK_MAX; i++)
		if (!strcmp(rule, rules[i])) {
			o->broken = (enum break_rule)i;
			return 0;
		}
	return -1;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seed", required_argument, NULL, 's'},
						{"count", required_argument, NULL, 'c'},
						{"trace", no_argument, NULL, 't'},
						{"break", required_argument, NULL, 'b'},
						{0}};
	struct msim_options o = {.seed = 1};
	uint64_t count = 1, events = 0, moved = 0, cancelled = 0, starts = 0, fencings = 0, places = 0;
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
	for (uint64_t i = 0; i < count; i++, o.seed++) {
		if (!msim_run(&world, &o)) {
			printf("seed %" PRIu64 ": %s\nreplay: %s --seed %" PRIu64 "%s%s --trace\n", o.seed,
			       world.failure, argv[0], o.seed, o.broken ? " --break " : "",
			       o.broken ? rules[o.broken] : "");
			return 1;
		}
		events += world.events;
		moved += world.moved;
		cancelled += world.cancelled;
		starts += world.starts;
		fencings += world.fencings;
		places += world.places;
	}
	printf("%" PRIu64 " seeds, %" PRIu64 " events, %" PRIu64 " moves, %" PRIu64 " cancelled, %" PRIu64
	       " starts, %" PRIu64 " hosts confirmed dead, %" PRIu64 " guests placed elsewhere\n",
	       count, events, moved, cancelled, starts, fencings, places);
	return 0;
}
