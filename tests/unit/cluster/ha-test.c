/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the HA plan: tables of a cluster and what is to be done, in order; nothing depends on who plans, or when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/ha.h"

#define GIB (1ULL << 30)
#define NOW 100000000LL
#define AGO(s) (NOW - (s)*1000LL)
#define NODES 4
#define GUESTS 8

static const struct placement_unreached no_disks[] = {{"/disks", "is gone"}, {NULL, NULL}};
static const char *const web_files[] = {"/disks/web.img", NULL};

/* A row: hosts by letters ("u" up, "d" up without the folder /disks, "l" lost, "F" fenced, "z" frozen, "m" maintenance,
 * "a" aside up without a report) with 8 GiB each, guests, and the plan as "vm act node" lines. */
struct guest {
	const char *name, *owner;
	unsigned gib;
	int priority; /* 0: 100 */
	struct ha_guest more;
};

struct row {
	const char *what, *hosts;
	struct guest guests[GUESTS];
	struct placement_rule rule;
	struct ha_limits limits;
	const char *plan; /* "web place n2; db wait -" */
	const char *why;  /* of the first action that waits; NULL: not looked at */
};

static const char *const node_names[NODES] = {"n1", "n2", "n3", "n4"};

static void node_make(struct ha_node *n, const char *name, char kind)
{
	*n = (struct ha_node){
		.place = {.name = name,
			  .up = strchr("uzmad", kind) != NULL,
			  .unreached = kind == 'd' ? no_disks : NULL,
			  .maintenance = kind == 'm',
			  .aside = kind == 'a' ? "flaps" : NULL,
			  .memory_total = 8 * GIB,
			  .memory_free = 8 * GIB,
			  .cores = 4,
			  .cpu_kind = name}, /* all different */
		.life = kind == 'l'   ? HA_LOST
			: kind == 'F' ? HA_FENCED
				      : HA_UP,
		.frozen = kind == 'z',
	};
}

/* What a row says of a guest, over one that runs and is restarted. */
static void guest_make(struct ha_guest *g, const struct guest *from)
{
	*g = from->more;
	g->place.name = from->name;
	g->place.owner = from->owner;
	g->place.memory = (from->gib ? from->gib : 1) * GIB;
	g->place.vcpus = 1;
	g->wanted = !from->more.wanted;   /* wanted, restart: true says that it is not */
	g->restart = !from->more.restart; /* likewise */
	g->priority = from->priority ? from->priority : 100;
	g->max_restarts = from->more.max_restarts ? from->more.max_restarts : 3;
	g->seen = from->more.seen ? from->more.seen : HA_RUNNING;
}

#define NOTHING_SEEN ((enum ha_seen)99) /* HA_NOTHING, as 0 is not said */

struct cluster {
	struct ha_node nodes[NODES];
	struct ha_guest guests[GUESTS];
	struct ha_input in;
};

static void cluster_make(struct cluster *c, const struct row *r)
{
	memset(c, 0, sizeof(*c));
	c->in = (struct ha_input){
		.nodes = c->nodes, .guests = c->guests, .rules = &r->rule, .limits = r->limits, .now_ms = NOW};
	c->in.n_rules = r->rule.name != NULL;
	if (!c->in.limits.in_place)
		c->in.limits.in_place = 2;
	for (size_t i = 0; r->hosts[i]; i++)
		node_make(&c->nodes[c->in.n_nodes++], node_names[i], r->hosts[i]);
	for (size_t i = 0; i < GUESTS && r->guests[i].name; i++) {
		guest_make(&c->guests[c->in.n_guests++], &r->guests[i]);
		if (c->guests[i].seen == NOTHING_SEEN)
			c->guests[i].seen = HA_NOTHING;
	}
	/* What runs has its memory, and nothing else uses any. */
	for (size_t g = 0; g < c->in.n_guests; g++)
		for (size_t i = 0; i < c->in.n_nodes; i++)
			if (!strcmp(c->nodes[i].place.name, c->guests[g].place.owner) &&
			    c->guests[g].seen == HA_RUNNING)
				c->nodes[i].place.memory_free -= c->guests[g].place.memory;
}

static char *plan_text(const struct ha_input *in, const struct ha_plan *p)
{
	char text[1024] = "";

	for (size_t i = 0; i < p->n; i++) {
		const struct ha_action *a = &p->actions[i];
		size_t used = strlen(text);

		snprintf(text + used, sizeof(text) - used, "%s%s %s %s", i ? "; " : "", in->guests[a->guest].place.name,
			 ha_act_names[a->act], a->node == HA_NONE ? "-" : in->nodes[a->node].place.name);
	}
	return xstrdup(text);
}

static void rows_check(const struct row *rows, size_t n)
{
	unsigned wrong = 0;

	for (size_t i = 0; i < n; i++) {
		const char *why = NULL;
		struct cluster c;
		struct ha_plan p;
		char *text;

		cluster_make(&c, &rows[i]);
		ha_plan(&c.in, &p);
		text = plan_text(&c.in, &p);
		for (size_t k = 0; k < p.n && !why; k++)
			why = p.actions[k].act == HA_WAIT ? p.actions[k].why : NULL;
		if (strcmp(text, rows[i].plan) != 0 || (rows[i].why && (!why || strcmp(why, rows[i].why) != 0))) {
			print_error("%s: \"%s\", wanted \"%s\"; why: %s\n", rows[i].what, text, rows[i].plan, why);
			wrong++;
		}
		free(text);
		ha_plan_done(&p);
	}
	assert_int_equal(wrong, 0);
}

/* ---- who needs help ---- */

static void guests_of_dead_hosts_are_placed_and_failed_ones_are_restarted(void **state)
{
	const struct row rows[] = {
		{.what = "all is well", .hosts = "uu", .guests = {{"web", "n1"}}, .plan = ""},
		{.what = "fenced", .hosts = "Fu", .guests = {{"web", "n1"}}, .plan = "web place n2"},
		{.what = "lost",
		 .hosts = "lu",
		 .guests = {{"web", "n1"}},
		 .plan = "web wait -",
		 .why = "node n1 is lost, and not confirmed dead yet"},
		{.what = "frozen is not dead", .hosts = "zu", .guests = {{"web", "n1"}}, .plan = ""},
		{.what = "not wanted", .hosts = "Fu", .guests = {{"web", "n1", .more.wanted = true}}, .plan = ""},
		{.what = "mode none", .hosts = "Fu", .guests = {{"web", "n1", .more.restart = true}}, .plan = ""},
		{.what = "a move in flight",
		 .hosts = "Fu",
		 .guests = {{"web", "n1", .more = {.moving = true, .to = "n2"}}},
		 .plan = "web wait -",
		 .why = "node n1 is dead, and the move of it is not settled yet"},
		{.what = "failed where its disks are not",
		 .hosts = "du",
		 .guests = {{"web", "n1", .more = {.seen = HA_FAILED, .place.files = web_files}}},
		 .plan = "web place n2"},
		{.what = "failed, and no host has its disks",
		 .hosts = "dd",
		 .guests = {{"web", "n1", .more = {.seen = HA_FAILED, .place.files = web_files}}},
		 .plan = "web wait -",
		 .why = "vm web: no node fits: node n1 does not reach its folder /disks: is gone; node n2 does not "
			"reach its folder /disks: is gone"},
		{.what = "its host died, and the first of the others has not its disks",
		 .hosts = "Fdu",
		 .guests = {{"web", "n1", .more.place.files = web_files}},
		 .plan = "web place n3"},
		{.what = "runs on where its disks are not",
		 .hosts = "du",
		 .guests = {{"web", "n1", .more.place.files = web_files}},
		 .plan = ""},
		{.what = "failed",
		 .hosts = "uu",
		 .guests = {{"web", "n1", .more.seen = HA_FAILED}},
		 .plan = "web restart n1"},
		{.what = "stopped is for its agent",
		 .hosts = "uu",
		 .guests = {{"web", "n1", .more.seen = HA_STOPPED}},
		 .plan = ""},
		{.what = "failed, mode none",
		 .hosts = "uu",
		 .guests = {{"web", "n1", .more = {.seen = HA_FAILED, .restart = true}}},
		 .plan = ""},
		{.what = "failed on a host in maintenance",
		 .hosts = "mu",
		 .guests = {{"web", "n1", .more.seen = HA_FAILED}},
		 .plan = "web place n2"},
		{.what = "failed on a host that is put aside",
		 .hosts = "au",
		 .guests = {{"web", "n1", .more.seen = HA_FAILED}},
		 .plan = "web place n2"},
		{.what = "failed on a host that is put aside, and no other",
		 .hosts = "am",
		 .guests = {{"web", "n1", .more.seen = HA_FAILED}},
		 .plan = "web restart n1"},
		{.what = "failed while its daemon is stopped",
		 .hosts = "zu",
		 .guests = {{"web", "n1", .more.seen = HA_FAILED}},
		 .plan = "web wait n1",
		 .why = "the daemon of node n1 is being stopped"},
		{.what = "another CPU is good enough to start afresh",
		 .hosts = "Fu",
		 .guests = {{"web", "n1", .more.place = {.cpu = "host", .owner_cpu_kind = "n1"}}},
		 .plan = "web place n2"},
		{.what = "no host that takes guests",
		 .hosts = "Fzma",
		 .guests = {{"web", "n1"}},
		 .plan = "web wait -",
		 .why = "vm web: no node fits: node n1 is not up; node n2 is put aside (its daemon is being stopped); "
			"node n3 is in maintenance; node n4 is put aside (flaps)"},
	};

	(void)state;
	rows_check(rows, ARRAY_SIZE(rows));
}

/* ---- room ---- */

static const char *const web_db[] = {"web", "db", NULL};

static void room_is_given_by_priority_and_found_if_there_is_any(void **state)
{
	const struct row rows[] = {
		{.what = "by priority, then by name",
		 .hosts = "Fu",
		 .guests = {{"c", "n1"}, {"b", "n1", .priority = 200}, {"a", "n1"}},
		 .plan = "b place n2; a place n2; c place n2"},
		{.what = "spread",
		 .hosts = "Fuu",
		 .guests = {{"a", "n1", 3}, {"b", "n1", 3}},
		 .plan = "a place n2; b place n3"},
		{.what = "the highest priority first, the rest waits",
		 .hosts = "Fu",
		 .guests = {{"a", "n1", 5}, {"b", "n1", 5, 200}},
		 .plan = "b place n2; a wait -",
		 .why = "vm a: no node fits: node n1 is not up; node n2 needs 5120 MiB, and of 8192 MiB for guests "
			"5120 MiB "
			"are promised to 1 others, needs 5120 MiB, and 3072 MiB are really free"},
		{.what = "a smaller one goes where the large one does not fit",
		 .hosts = "Fu",
		 .guests = {{"a", "n1", 9, 200}, {"b", "n1", 5}},
		 .plan = "a wait -; b place n2"},
		{.what = "the best place for the first leaves none for the second, and another is found",
		 .hosts = "Fuu",
		 .guests = {{"a", "n1", 3, 200}, {"b", "n1", 8}, {"y", "n2", 1}},
		 .plan = "a place n2; b place n3"},
		{.what = "hosts that run guests have less",
		 .hosts = "Fuu",
		 .guests = {{"a", "n1", 3}, {"y", "n2", 6}},
		 .plan = "a place n3"},
		{.what = "what was given to a host and has not begun to start is not free any more",
		 .hosts = "Fu",
		 .guests = {{"a", "n1", 3}, {"y", "n2", 6, .more.seen = NOTHING_SEEN}},
		 .plan = "a wait -",
		 .why = "vm a: no node fits: node n1 is not up; node n2 needs 3072 MiB, and of 8192 MiB for guests "
			"6144 MiB "
			"are promised to 1 others, needs 3072 MiB, and 2048 MiB are really free"},
		{.what = "apart from one that lives",
		 .hosts = "Fuu",
		 .guests = {{"web", "n1"}, {"db", "n3", 1}},
		 .rule = {"pair", .apart = true, .hard = true, .vms = web_db},
		 .plan = "web place n2"},
		{.what = "apart from one that is placed with it",
		 .hosts = "Fuu",
		 .guests = {{"web", "n1"}, {"db", "n1"}},
		 .rule = {"pair", .apart = true, .hard = true, .vms = web_db},
		 .plan = "db place n2; web place n3"},
		{.what = "apart, and only one host is left",
		 .hosts = "Fu",
		 .guests = {{"web", "n1"}, {"db", "n1"}},
		 .rule = {"pair", .apart = true, .hard = true, .vms = web_db},
		 .plan = "db place n2; web wait -",
		 .why = "vm web: no node fits: node n1 is not up; node n2 rule pair keeps it apart from vm db, which "
			"is "
			"here"},
		{.what = "together",
		 .hosts = "Fuu",
		 .guests = {{"db", "n1"}, {"web", "n1", 6}, {"y", "n2", 2}, {"z", "n3"}},
		 .rule = {"pair", .hard = true, .vms = web_db},
		 .plan = "db place n3; web place n3"},
		{.what = "a guest that has a place and waits for something else keeps it",
		 .hosts = "Fu",
		 .guests = {{"a", "n1", 5, 200,
			     .more = {.after = (const struct ha_after[]){{.vm = "z"}}, .n_after = 1}},
			    {"b", "n1", 5},
			    {"z", "n2", .more.seen = HA_STARTING}},
		 .plan = "a wait n2; b wait -",
		 .why = "waits for vm z, which does not run yet"},
		{.what = "one that may not start any more keeps none",
		 .hosts = "Fu",
		 .guests = {{"a", "n1", 5, 200,
			     .more = {.max_restarts = 1,
				      .restarts = (const struct ha_restart[]){{AGO(60), HA_HOST_DIED, "n1"}},
				      .n_restarts = 1}},
			    {"b", "n1", 5}},
		 .plan = "a wait -; b place n2"},
	};

	(void)state;
	rows_check(rows, ARRAY_SIZE(rows));
}

/* ---- what holds a start up ---- */

#define AFTER(...) .after = (const struct ha_after[]){{__VA_ARGS__}}, .n_after = 1
#define RESTARTS(...)                                                                                                  \
	.restarts = (const struct ha_restart[]){__VA_ARGS__},                                                          \
	.n_restarts = sizeof((const struct ha_restart[]){__VA_ARGS__}) / sizeof(struct ha_restart)

static void a_guest_waits_for_those_that_it_needs(void **state)
{
	const struct row rows[] = {
		{.what = "running",
		 .hosts = "Fu",
		 .guests = {{"web", "n1", .more = {AFTER(.vm = "db")}}, {"db", "n2"}},
		 .plan = "web place n2"},
		{.what = "not running yet; what others wait for comes first",
		 .hosts = "Fu",
		 .guests = {{"a-web", "n1", 0, 900, .more = {AFTER(.vm = "db")}}, {"db", "n1"}, {"b", "n1", 0, 500}},
		 .plan = "a-web wait n2; db place n2; b place n2",
		 .why = "waits for vm db, which does not run yet"},
		{.what = "its host is lost",
		 .hosts = "Flu",
		 .guests = {{"web", "n1", .more = {AFTER(.vm = "db")}}, {"db", "n2"}},
		 .plan = "db wait -; web wait n3",
		 .why = "node n2 is lost, and not confirmed dead yet"},
		{.what = "shall not run",
		 .hosts = "Fu",
		 .guests = {{"web", "n1", .more = {AFTER(.vm = "db")}},
			    {"db", "n2", .more = {.wanted = true, .seen = HA_STOPPED}}},
		 .plan = "web wait n2",
		 .why = "waits for vm db, which shall not run; start it"},
		{.what = "deleted",
		 .hosts = "Fu",
		 .guests = {{"web", "n1", .more = {AFTER(.vm = "db")}}},
		 .plan = "web place n2"},
		{.what = "delay",
		 .hosts = "Fu",
		 .guests = {{"web", "n1", .more = {AFTER(.vm = "db", .until = HA_UNTIL_DELAY, .seconds = 30)}},
			    {"db", "n2", .more.since_ms = AGO(29)}},
		 .plan = "web wait n2",
		 .why = "waits until vm db has run for 30 s"},
		{.what = "delay is over",
		 .hosts = "Fu",
		 .guests = {{"web", "n1", .more = {AFTER(.vm = "db", .until = HA_UNTIL_DELAY, .seconds = 30)}},
			    {"db", "n2", .more.since_ms = AGO(30)}},
		 .plan = "web place n2"},
		{.what = "port",
		 .hosts = "Fu",
		 .guests = {{"web", "n1",
			     .more = {AFTER(.vm = "db", .until = HA_UNTIL_PORT, .address = "10.0.0.5:5432")}},
			    {"db", "n2"}},
		 .plan = "web wait n2",
		 .why = "waits until 10.0.0.5:5432 of vm db answers"},
		{.what = "port answers",
		 .hosts = "Fu",
		 .guests = {{"web", "n1", .more = {AFTER(.vm = "db", .until = HA_UNTIL_PORT, .answers = true)}},
			    {"db", "n2"}},
		 .plan = "web place n2"},
		{.what = "port answers, but another has the address",
		 .hosts = "Fu",
		 .guests = {{"web", "n1", .more = {AFTER(.vm = "db", .until = HA_UNTIL_PORT, .answers = true)}},
			    {"db", "n2", .more.seen = HA_FAILED}},
		 .plan = "db restart n2; web wait n2"},
	};

	(void)state;
	rows_check(rows, ARRAY_SIZE(rows));
}

static void a_guest_that_fails_again_waits_longer_then_goes_elsewhere_then_stays_down(void **state)
{
	const struct row rows[] = {
		{.what = "once: 10 s",
		 .hosts = "uu",
		 .guests = {{"web", "n1", .more = {.seen = HA_FAILED, RESTARTS({AGO(9), HA_CRASHED, "n1"})}}},
		 .plan = "web wait n1",
		 .why = "failed before, and is left alone for a while"},
		{.what = "and then again in place",
		 .hosts = "uu",
		 .guests = {{"web", "n1", .more = {.seen = HA_FAILED, RESTARTS({AGO(10), HA_CRASHED, "n1"})}}},
		 .plan = "web restart n1"},
		{.what = "twice: 20 s, then elsewhere",
		 .hosts = "uu",
		 .guests = {{"web", "n1",
			     .more = {.seen = HA_FAILED,
				      RESTARTS({AGO(19), HA_NOT_STARTED, "n1"}, {AGO(99), HA_CRASHED, "n1"})}}},
		 .plan = "web wait n2"},
		{.what = "elsewhere",
		 .hosts = "uu",
		 .guests = {{"web", "n1",
			     .more = {.seen = HA_FAILED,
				      RESTARTS({AGO(20), HA_NOT_STARTED, "n1"}, {AGO(99), HA_CRASHED, "n1"})}}},
		 .plan = "web place n2"},
		{.what = "in place where there is no room elsewhere",
		 .hosts = "uu",
		 .guests = {{"web", "n1",
			     .more = {.seen = HA_FAILED,
				      RESTARTS({AGO(20), HA_CRASHED, "n1"}, {AGO(99), HA_CRASHED, "n1"})}},
			    {"y", "n2", 8}},
		 .plan = "web restart n1"},
		{.what = "failures on another host do not count against this one",
		 .hosts = "uu",
		 .guests = {{"web", "n1",
			     .more = {.seen = HA_FAILED,
				      RESTARTS({AGO(20), HA_CRASHED, "n2"}, {AGO(99), HA_CRASHED, "n2"})}}},
		 .plan = "web restart n1"},
		{.what = "the last restart goes elsewhere, as its host may be the reason: it was placed there lately",
		 .hosts = "uu",
		 .guests = {{"web", "n1",
			     .more = {.seen = HA_FAILED,
				      RESTARTS({AGO(20), HA_NOT_STARTED, "n1"}, {AGO(30), HA_HOST_DIED, "n3"})}}},
		 .plan = "web place n2"},
		{.what = "the only restart is in place: it has failed once",
		 .hosts = "uu",
		 .guests = {{"web", "n1", .more = {.seen = HA_FAILED, .max_restarts = 1}}},
		 .plan = "web restart n1"},
		{.what = "a host's death is not its failure",
		 .hosts = "Fu",
		 .guests = {{"web", "n1",
			     .more = {RESTARTS({AGO(1), HA_HOST_DIED, "n1"}, {AGO(2), HA_CRASHED, "n1"})}}},
		 .plan = "web place n2"},
		{.what = "too often",
		 .hosts = "uu",
		 .guests = {{"web", "n1",
			     .more = {.seen = HA_FAILED,
				      RESTARTS({AGO(600), HA_CRASHED, "n1"}, {AGO(700), HA_HOST_DIED, "n1"},
					       {AGO(3599), HA_CRASHED, "n2"})}}},
		 .plan = "web wait -",
		 .why = "was started again 3 times in the last hour, and it may 3 times; look at it, then start it by "
			"hand"},
		{.what = "an hour later",
		 .hosts = "uu",
		 .guests = {{"web", "n1",
			     .more = {.seen = HA_FAILED,
				      RESTARTS({AGO(600), HA_CRASHED, "n1"}, {AGO(700), HA_HOST_DIED, "n1"},
					       {AGO(3600), HA_CRASHED, "n2"})}}},
		 .plan = "web place n2"},
	};

	(void)state;
	rows_check(rows, ARRAY_SIZE(rows));
}

static void when_to_look_again_is_said(void **state)
{
	const struct {
		struct row row;
		int64_t until;
	} rows[] = {
		{{.hosts = "uu",
		  .guests = {{"web", "n1", .more = {.seen = HA_FAILED, RESTARTS({AGO(9), HA_CRASHED, "n1"})}}}},
		 AGO(-1)},
		{{.hosts = "uu",
		  .guests = {{"web", "n1",
			      .more = {.seen = HA_FAILED,
				       .max_restarts = 9,
				       RESTARTS({AGO(1), HA_CRASHED, "n1"}, {AGO(1), HA_CRASHED, "n1"},
						{AGO(1), HA_CRASHED, "n1"}, {AGO(1), HA_CRASHED, "n1"},
						{AGO(1), HA_CRASHED, "n1"}, {AGO(1), HA_CRASHED, "n1"},
						{AGO(1), HA_CRASHED, "n1"})}}}},
		 AGO(-299)},
		{{.hosts = "uu",
		  .guests = {{"web", "n1",
			      .more = {.seen = HA_FAILED,
				       .max_restarts = 2,
				       RESTARTS({AGO(600), HA_CRASHED, "n1"}, {AGO(700), HA_CRASHED, "n1"},
						{AGO(800), HA_CRASHED, "n2"})}}}},
		 AGO(700) + HA_HOUR_MS},
		{{.hosts = "Fu",
		  .guests = {{"web", "n1", .more = {AFTER(.vm = "db", .until = HA_UNTIL_DELAY, .seconds = 30)}},
			     {"db", "n2", .more.since_ms = AGO(29)}}},
		 AGO(-1)},
		{{.hosts = "lu", .guests = {{"web", "n1"}}}, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct cluster c;
		struct ha_plan p;

		cluster_make(&c, &rows[i].row);
		ha_plan(&c.in, &p);
		assert_int_equal(p.n, 1);
		assert_int_equal(p.actions[0].act, HA_WAIT);
		if (p.actions[0].until_ms != rows[i].until)
			fail_msg("row %zu: %lld ms from the time wanted", i,
				 (long long)(p.actions[0].until_ms - rows[i].until));
		ha_plan_done(&p);
	}
}

static void not_too_many_start_at_a_time(void **state)
{
	const struct row rows[] = {
		{.what = "on one host",
		 .hosts = "Fu",
		 .guests = {{"a", "n1"}, {"b", "n1"}, {"c", "n1"}},
		 .limits = {.starts_per_node = 2},
		 .plan = "a place n2; b place n2; c wait n2",
		 .why = "waits for its turn: 2 guests start on node n2 already"},
		{.what = "those that start already count",
		 .hosts = "Fu",
		 .guests = {{"a", "n1"}, {"b", "n2", .more.seen = HA_STARTING}, {"c", "n2", .more.seen = NOTHING_SEEN}},
		 .limits = {.starts_per_node = 2},
		 .plan = "a wait n2"},
		{.what = "in all",
		 .hosts = "Fuu",
		 .guests = {{"a", "n1", 2}, {"b", "n1", 2}, {"c", "n1", 2}},
		 .limits = {.starts = 2},
		 .plan = "a place n2; b place n3; c wait n2",
		 .why = "waits for its turn: 2 guests start already"},
		{.what = "what waits for something else takes no turn",
		 .hosts = "Fu",
		 .guests = {{"a", "n1", .more = {AFTER(.vm = "z")}}, {"b", "n1"}, {"z", "n2", .more.seen = HA_STOPPED}},
		 .limits = {.starts_per_node = 1},
		 .plan = "a wait n2; b place n2"},
	};

	(void)state;
	rows_check(rows, ARRAY_SIZE(rows));
}

/* ---- going home ---- */

static void guests_go_home_one_by_one_when_all_is_quiet(void **state)
{
	const struct row rows[] = {
		{.what = "one of two, the higher priority first",
		 .hosts = "uu",
		 .guests = {{"a", "n2", .more = {.home = "n1", .failback = true}},
			    {"b", "n2", 0, 200, .more = {.home = "n1", .failback = true}}},
		 .plan = "b failback n1"},
		{.what = "never", .hosts = "uu", .guests = {{"a", "n2", .more.home = "n1"}}, .plan = ""},
		{.what = "at home",
		 .hosts = "uu",
		 .guests = {{"a", "n1", .more = {.home = "n1", .failback = true}}},
		 .plan = ""},
		{.what = "home is put aside",
		 .hosts = "au",
		 .guests = {{"a", "n2", .more = {.home = "n1", .failback = true}}},
		 .plan = ""},
		{.what = "somebody moves",
		 .hosts = "uu",
		 .guests = {{"a", "n2", .more = {.home = "n1", .failback = true}}, {"b", "n2", .more.moving = true}},
		 .plan = ""},
		{.what = "somebody starts",
		 .hosts = "uu",
		 .guests = {{"a", "n2", .more = {.home = "n1", .failback = true}},
			    {"b", "n2", .more.seen = HA_STARTING}},
		 .plan = ""},
		{.what = "somebody is placed",
		 .hosts = "uuF",
		 .guests = {{"a", "n2", .more = {.home = "n1", .failback = true}}, {"b", "n3"}},
		 .plan = "b place n1"},
		{.what = "a host is lost",
		 .hosts = "uul",
		 .guests = {{"a", "n2", .more = {.home = "n1", .failback = true}}},
		 .plan = ""},
		{.what = "no room at home: the next one",
		 .hosts = "uu",
		 .guests = {{"a", "n2", 5, 200, .more = {.home = "n1", .failback = true}},
			    {"b", "n2", 1, .more = {.home = "n1", .failback = true}},
			    {"y", "n1", 4}},
		 .plan = "b failback n1"},
		{.what = "a move needs the same CPU",
		 .hosts = "uu",
		 .guests =
			 {{"a", "n2",
			   .more = {.home = "n1", .failback = true, .place = {.cpu = "host", .owner_cpu_kind = "n2"}}}},
		 .plan = ""},
	};

	(void)state;
	rows_check(rows, ARRAY_SIZE(rows));
}

static void a_host_must_be_back_for_a_while_and_idle(void **state)
{
	static const struct row row = {.hosts = "uu",
				       .guests = {{"a", "n2", .more = {.home = "n1", .failback = true}}},
				       .limits = {.settle_ms = 600000}};
	struct cluster c;

	(void)state;
	for (int k = 0; k < 4; k++) {
		struct ha_plan p;

		cluster_make(&c, &row);
		c.nodes[0].since_ms = AGO(k == 0 ? 599 : 600);
		c.nodes[0].place.load_permille = k == 1 ? 500 : 499;
		if (k == 3)
			c.nodes[0].since_ms = 0;
		ha_plan(&c.in, &p);
		assert_int_equal(p.n, k >= 2);
		ha_plan_done(&p);
	}
}

/* ---- the whole of it ---- */

/* Twenty guests of a dead host, four starts at a time: each plan goes on from what the last one did, in order, whoever
 * made it, and the places that were kept are those that are taken. */
static void plan_after_plan_all_guests_of_a_dead_host_come_back_in_order(void **state)
{
	struct ha_node nodes[3];
	struct ha_guest guests[20];
	char names[20][16];
	struct ha_input in = {.nodes = nodes,
			      .n_nodes = 3,
			      .guests = guests,
			      .n_guests = 20,
			      .limits = {.starts_per_node = 2, .in_place = 2},
			      .now_ms = NOW};
	int last = 1000, rounds = 0;

	(void)state;
	for (int i = 0; i < 3; i++)
		node_make(&nodes[i], node_names[i], i ? 'u' : 'F');
	for (int i = 0; i < 20; i++) {
		snprintf(names[i], sizeof(names[i]), "g%02d", i);
		guest_make(&guests[i], &(struct guest){names[i], "n1", 0, 100 + (i * 7) % 20, .more.seen = HA_FAILED});
		guests[i].place.memory = GIB / 2 + (unsigned)i * GIB / 40;
	}
	for (;; rounds++) {
		struct ha_plan p, again;
		unsigned placed = 0;

		ha_plan(&in, &p);
		ha_plan(&in, &again);
		assert_int_equal(p.n, again.n);
		for (size_t i = 0; i < p.n; i++) {
			assert_int_equal(p.actions[i].guest, again.actions[i].guest);
			assert_int_equal(p.actions[i].node, again.actions[i].node);
			assert_string_equal(p.actions[i].why, again.actions[i].why);
			assert_false(p.actions[i].no_room);
			if (p.actions[i].act != HA_PLACE)
				continue;
			placed++;
			assert_true(guests[p.actions[i].guest].priority <= last);
			last = guests[p.actions[i].guest].priority;
			guests[p.actions[i].guest].place.owner = node_names[p.actions[i].node];
			guests[p.actions[i].guest].seen = HA_NOTHING;
		}
		assert_true(placed <= 4);
		/* They run by the next time. */
		for (size_t g = 0; g < 20; g++)
			if (guests[g].seen == HA_NOTHING)
				guests[g].seen = HA_RUNNING;
		ha_plan_done(&again);
		if (p.n == 0) {
			ha_plan_done(&p);
			break;
		}
		ha_plan_done(&p);
		assert_true(rounds < 20);
	}
	/* 2 hosts x 2 at a time: 5 rounds, or a few more where one host is full. */
	assert_in_range(rounds, 5, 8);
	for (size_t g = 0; g < 20; g++)
		assert_string_not_equal(guests[g].place.owner, "n1");
}

static void the_plan_is_told_as_json(void **state)
{
	static const struct row row = {.hosts = "Fl", .guests = {{"a", "n2"}, {"b", "n1", 9}}};
	struct cluster c;
	struct ha_plan p;
	json_t *list;

	(void)state;
	cluster_make(&c, &row);
	ha_plan(&c.in, &p);
	list = ha_plan_json(&c.in, &p);
	assert_int_equal(json_array_size(list), 2);
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "vm")), "a");
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "action")), "wait");
	assert_true(json_is_null(json_object_get(json_array_get(list, 0), "node")));
	assert_true(json_is_null(json_object_get(json_array_get(list, 0), "until")));
	assert_true(p.actions[1].no_room);
	json_decref(list);
	ha_plan_done(&p);
}

/* Whatever is missing on the only host left, the guest waits with that reason, and is placed when it is there. */
static void a_guest_waits_for_whatever_is_missing_and_starts_when_it_is_there(void **state)
{
	static const char *const lan[] = {"lan", NULL}, *const v2[] = {"x86-64-v2", NULL}, *const none[] = {NULL};
	static const struct {
		const char *what, *why;
	} rows[] = {
		{"memory", "node n2 needs 9216 MiB"},
		{"model", "x86-64-v2"},
		{"network", "lan"},
		{"apart", "node n2 rule pair keeps it apart from vm db"},
		{"maintenance", "node n2 is in maintenance"},
		{"aside", "node n2 is put aside (flaps)"},
	};
	static const struct row row = {.hosts = "Fu",
				       .guests = {{"web", "n1"}, {"db", "n2"}},
				       .rule = {"pair", .apart = true, .hard = true, .vms = web_db}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		for (int there = 0; there < 2; there++) {
			const char *what = rows[i].what, *why;
			struct cluster c;
			struct ha_plan p;
			json_t *list;

			cluster_make(&c, &row);
			c.in.n_rules = !strcmp(what, "apart") && !there;
			c.guests[0].place.memory = !strcmp(what, "memory") ? 9 * GIB : GIB;
			c.guests[0].place.cpu = !strcmp(what, "model") ? "x86-64-v2" : NULL;
			c.guests[0].place.networks = !strcmp(what, "network") ? lan : none;
			c.nodes[1].place.models = there ? v2 : none;
			c.nodes[1].place.networks = there ? lan : none;
			c.nodes[1].place.maintenance = !strcmp(what, "maintenance") && !there;
			c.nodes[1].place.aside = !strcmp(what, "aside") && !there ? "flaps" : NULL;
			if (there)
				c.nodes[1].place.memory_total = c.nodes[1].place.memory_free = 16 * GIB;
			ha_plan(&c.in, &p);
			assert_int_equal(p.n, 1);
			if (p.actions[0].act != (there ? HA_PLACE : HA_WAIT) || p.actions[0].no_room == there)
				fail_msg("%s, there %d: %s: %s", what, there, ha_act_names[p.actions[0].act],
					 p.actions[0].why);
			list = ha_plan_json(&c.in, &p);
			why = json_string_value(json_object_get(json_array_get(list, 0), "why"));
			/* Object, reason, next step. */
			if (!there && (strncmp(why, "vm web: no node fits: ", 22) != 0 || !strstr(why, rows[i].why) ||
				       !strstr(why, "; it starts as soon as one fits: ")))
				fail_msg("%s: %s", what, why);
			json_decref(list);
			ha_plan_done(&p);
		}
}

/* ---- hosts that come and go ---- */

static void a_host_that_was_lost_three_times_in_an_hour_is_put_aside(void **state)
{
	static const struct {
		int64_t lost[4];
		bool aside;
	} rows[] = {
		{{AGO(1), AGO(2), AGO(3), AGO(4)}, true},
		{{AGO(1), AGO(3599), AGO(100), AGO(90000)}, true},
		{{AGO(1), AGO(3600), AGO(100), AGO(90000)}, false},
		{{AGO(1), AGO(2), AGO(-5), AGO(90000)}, false},
		{{0}, false},
	};
	char why[128] = "";

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_int_equal(ha_flaps(rows[i].lost, 4, NOW, why, sizeof(why)), rows[i].aside);
	assert_string_equal(why, "was lost 3 times in the last hour; find out why, then take it back");
	assert_false(ha_flaps(NULL, 0, NOW, why, sizeof(why)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(guests_of_dead_hosts_are_placed_and_failed_ones_are_restarted),
		cmocka_unit_test(room_is_given_by_priority_and_found_if_there_is_any),
		cmocka_unit_test(a_guest_waits_for_those_that_it_needs),
		cmocka_unit_test(a_guest_that_fails_again_waits_longer_then_goes_elsewhere_then_stays_down),
		cmocka_unit_test(when_to_look_again_is_said),
		cmocka_unit_test(not_too_many_start_at_a_time),
		cmocka_unit_test(guests_go_home_one_by_one_when_all_is_quiet),
		cmocka_unit_test(a_host_must_be_back_for_a_while_and_idle),
		cmocka_unit_test(plan_after_plan_all_guests_of_a_dead_host_come_back_in_order),
		cmocka_unit_test(the_plan_is_told_as_json),
		cmocka_unit_test(a_guest_waits_for_whatever_is_missing_and_starts_when_it_is_there),
		cmocka_unit_test(a_host_that_was_lost_three_times_in_an_hour_is_put_aside),
	};

	return cmocka_run_group_tests_name("cluster/ha", tests, NULL, NULL);
}
