/* SPDX-License-Identifier: Apache-2.0 */
/* Runs seeds of the simulated cluster, stops at the first that breaks a promise, and replays one with a trace. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

static struct sim_world world;

static int usage(void)
{
	fprintf(stderr,
		"usage: replica-sim [--seed N] [--count N] [--seconds N] [--trace] [--break ack|epoch|minority]\n"
		"  --seed N     the first seed (default 1)\n"
		"  --count N    so many seeds (default 1)\n"
		"  --seconds N  virtual time with faults in each (default 20)\n"
		"  --trace      tell what happens\n"
		"  --break R    break a rule: acknowledge before the disk has it, forget promises, a majority of the "
		"present\n");
	return 2;
}

static int break_rule(struct sim_options *o, const char *rule)
{
	if (!strcmp(rule, "ack"))
		o->break_ack_early = true;
	else if (!strcmp(rule, "epoch"))
		o->break_epoch_reuse = true;
	else if (!strcmp(rule, "minority"))
		o->break_minority = true;
	else
		return -1;
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", required_argument, NULL, 's'},    {"count", required_argument, NULL, 'c'},
		{"seconds", required_argument, NULL, 'l'}, {"trace", no_argument, NULL, 't'},
		{"break", required_argument, NULL, 'b'},   {0}};
	struct sim_options o = {.seed = 1, .length_ns = 20 * NS_PER_S};
	uint64_t count = 1, events = 0, acks = 0, alarms = 0;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 's')
			o.seed = strtoull(optarg, NULL, 10);
		else if (opt == 'c')
			count = strtoull(optarg, NULL, 10);
		else if (opt == 'l')
			o.length_ns = (int64_t)strtoull(optarg, NULL, 10) * NS_PER_S;
		else if (opt == 't')
			o.trace = true;
		else if (opt != 'b' || break_rule(&o, optarg) < 0)
			return usage();
	}
	for (uint64_t i = 0; i < count; i++, o.seed++) {
		bool ok = sim_run(&world, &o);

		events += world.events;
		acks += world.acks;
		alarms += world.digest_alarms;
		sim_done(&world);
		if (!ok) {
			printf("seed %" PRIu64 ": %s\nreplay: %s --seed %" PRIu64 " --trace\n", o.seed, world.failure,
			       argv[0], o.seed);
			return 1;
		}
	}
	printf("%" PRIu64 " seeds, %" PRIu64 " events, %" PRIu64 " commands acknowledged, %" PRIu64
	       " rotten states reported\n",
	       count, events, acks, alarms);
	return 0;
}
