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
		"usage: replica-sim [--seed N] [--count N] [--seconds N] [--trace] [--two] [--break RULE]\n"
		"  --seed N     the first seed (default 1)\n"
		"  --count N    so many seeds (default 1)\n"
		"  --seconds N  virtual time with faults in each (default 20)\n"
		"  --trace      tell what happens\n"
		"  --two        two hosts, of which one may go on alone\n"
		"  --break R    break a rule: acknowledge before the disk has it (ack), forget promises (epoch), a "
		"majority of the present (minority); with --two: go on alone without a proof (proof), with one of an "
		"earlier time (late), without having been whole (whole), count the other one's acknowledgements "
		"(alone-acks)\n");
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
	else if (!strcmp(rule, "proof"))
		o->break_proof = true;
	else if (!strcmp(rule, "late"))
		o->break_late = true;
	else if (!strcmp(rule, "whole"))
		o->break_whole = true;
	else if (!strcmp(rule, "alone-acks"))
		o->break_alone_acks = true;
	else
		return -1;
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seed", required_argument, NULL, 's'},
						{"count", required_argument, NULL, 'c'},
						{"seconds", required_argument, NULL, 'l'},
						{"trace", no_argument, NULL, 't'},
						{"two", no_argument, NULL, '2'},
						{"break", required_argument, NULL, 'b'},
						{0}};
	struct sim_options o = {.seed = 1, .length_ns = 20 * NS_PER_S};
	uint64_t count = 1, events = 0, acks = 0, alarms = 0, alones = 0, shots = 0;
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
		else if (opt == '2')
			o.duo = true;
		else if (opt != 'b' || break_rule(&o, optarg) < 0)
			return usage();
	}
	for (uint64_t i = 0; i < count; i++, o.seed++) {
		bool ok = sim_run(&world, &o);

		events += world.events;
		acks += world.acks;
		alarms += world.digest_alarms;
		alones += world.alones;
		shots += world.shots;
		sim_done(&world);
		if (!ok) {
			printf("seed %" PRIu64 ": %s\nreplay: %s%s --seed %" PRIu64 " --trace\n", o.seed, world.failure,
			       argv[0], o.duo ? " --two" : "", o.seed);
			return 1;
		}
	}
	printf("%" PRIu64 " seeds, %" PRIu64 " events, %" PRIu64 " commands acknowledged, %" PRIu64
	       " rotten states reported, %" PRIu64 " shots, %" PRIu64 " times one went on alone\n",
	       count, events, acks, alarms, shots, alones);
	return 0;
}
