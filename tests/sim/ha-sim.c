/* SPDX-License-Identifier: Apache-2.0 */
/* Runs seeds of simulated fencing and high availability, stops at the first that breaks a promise. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/ha-sim.h"

static struct ha_world world;

static const char *const rules[BREAK_MAX] = {"nothing", "proof", "watchdog", "armed", "permit", "empty",
					     "frozen",  "lease", "failed",   "late",  "whole"};

static int usage(void)
{
	fprintf(stderr, "usage: ha-sim [--seed N] [--count N] [--trace] [--two] [--break RULE]\n"
			"  --seed N      the first seed (default 1)\n"
			"  --count N     so many seeds (default 1)\n"
			"  --trace       tell what happens\n"
			"  --two         worlds of two hosts, one of which may go on alone\n"
			"  --break RULE  proof: who is lost counts as dead; watchdog: the end of a lease is a proof, "
			"whatever the\n"
			"                watchdog still has to do; armed: hosts without a watchdog say that it is "
			"armed; permit:\n"
			"                guests start without lease and news; empty: who was confirmed dead is back "
			"without having\n"
			"                looked for its guests; frozen: a daemon is stopped in order and does not say "
			"so; lease:\n"
			"                nobody looks whether the lease is over\n"
			"                with --two: failed: a fence device that fails counts as one that says off; "
			"late: a proof\n"
			"                counts although the other one was here again since; whole: one goes on alone "
			"that was\n"
			"                never in step with the other one\n");
	return 2;
}

static int break_rule(struct ha_options *o, const char *rule)
{
	for (int i = 0; i < BREAK_MAX; i++)
		if (!strcmp(rule, rules[i])) {
			o->broken = (enum ha_break)i;
			return 0;
		}
	return -1;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", required_argument, NULL, 's'},  {"count", required_argument, NULL, 'c'},
		{"trace", no_argument, NULL, 't'},       {"two", no_argument, NULL, '2'},
		{"break", required_argument, NULL, 'b'}, {0}};
	struct ha_options o = {.seed = 1};
	uint64_t count = 1, events = 0, proofs[4] = {0}, starts = 0, places = 0, restarts = 0, bites = 0, waits = 0,
		 alones = 0;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 's')
			o.seed = strtoull(optarg, NULL, 10);
		else if (opt == 'c')
			count = strtoull(optarg, NULL, 10);
		else if (opt == 't')
			o.trace = true;
		else if (opt == '2')
			o.two = true;
		else if (opt != 'b' || break_rule(&o, optarg) < 0)
			return usage();
	}
	/* Databases in memory, one thread. */
	sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	for (uint64_t i = 0; i < count; i++, o.seed++) {
		if (!ha_run(&world, &o)) {
			printf("seed %" PRIu64 ": %s\nreplay: %s --seed %" PRIu64 "%s%s%s --trace\n", o.seed,
			       world.failure, argv[0], o.seed, o.two ? " --two" : "", o.broken ? " --break " : "",
			       o.broken ? rules[o.broken] : "");
			return 1;
		}
		events += world.events;
		starts += world.starts;
		places += world.places;
		restarts += world.restarts;
		bites += world.bites;
		waits += world.waits;
		alones += world.alones;
		for (int k = 0; k < 4; k++)
			proofs[k] += world.proofs[k];
	}
	printf("%" PRIu64 " seeds, %" PRIu64 " events; proofs: %" PRIu64 " by power, %" PRIu64 " by expiry, %" PRIu64
	       " by hand; %" PRIu64 " guests placed on other hosts, %" PRIu64 " restarted where they were, %" PRIu64
	       " started in all, %" PRIu64 " left waiting; %" PRIu64 " hosts reset by their watchdogs; %" PRIu64
	       " went on alone\n",
	       count, events, proofs[0], proofs[2], proofs[3], places, restarts, starts, waits, bites, alones);
	return 0;
}
