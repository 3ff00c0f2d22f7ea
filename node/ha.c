/* SPDX-License-Identifier: Apache-2.0 */
/* High availability at work.
 *
 *   state -> ha_input (here) -> ha_plan() (cluster/ha.c, pure) -> vm.place, vm.restart, migration.create -> state
 *
 * Only the host that writes the log proposes. It remembers nothing that matters: a plan made twice proposes twice, and
 * the second is refused by the epoch that both name; so a new manager goes on where the old one stopped. What has been
 * proposed lately is remembered only to be quiet.
 *
 * Reading all guests with their definitions costs; so the state is first asked whether any guest needs anything at all,
 * and definitions are kept from one reading to the next.
 */
#include "node/ha.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/uuid.h"
#include "cluster/ha.h"
#include "cluster/state.h"
#include "node/api-int.h"
#include "node/daemon-int.h"
#include "node/place.h"
#include "node/ports.h"

#define ASK_AGAIN (3 * NS_PER_S)
#define CALM_TICKS 10       /* between two looks at what is not urgent, in seconds */
#define STARTS_PER_NODE 8   /* at a time; more only make each other slow */
#define FAILURES_IN_PLACE 2 /* in an hour */
#define SETTLE_MS 600000
#define WISH_DEFAULT 1
#define BEARS_TEXT_MAX 1000
#define BEARS_WHY_MAX 700
#define BEARS_KEPT (5 * NS_PER_S) /* people may ask often */

struct ha_manager {
	struct daemon *d;
	struct ports *ports;
	json_t *asked; /* guest: until when (clock_now_ns()) its command is given time */
	unsigned ticks;
	json_t *read;  /* uuid: {version, definition} of the last reading */
	json_t *bears; /* the last answer, and when it was found (clock_now_ns()) */
	struct ha_counts counts;
	int64_t bears_ns;
};

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static bool is(const json_t *o, const char *key, const char *value)
{
	return !strcmp(text_of(o, key), value);
}

/* ---- what is known ---- */

/* One reading of the state, and what of it the plan borrows. */
struct known {
	struct place_facts facts;
	json_t *nodes, *vms, *migrations, *settings, *ha, *cpus;
	struct place *place;
	struct ha_input in;
	struct ha_node *ha_nodes;
	struct ha_guest *guests;
};

static void known_done(struct known *k)
{
	for (size_t i = 0; k->guests && i < k->in.n_guests; i++) {
		free((void *)k->guests[i].restarts);
		free((void *)k->guests[i].after);
	}
	place_free(k->place);
	json_decref(k->nodes);
	json_decref(k->vms);
	json_decref(k->migrations);
	json_decref(k->settings);
	json_decref(k->ha);
	json_decref(k->cpus);
	free(k->ha_nodes);
	free(k->guests);
}

static enum ha_seen seen_of(const json_t *vm)
{
	static const struct {
		const char *status;
		enum ha_seen seen;
	} words[] = {{"", HA_NOTHING}, {"starting", HA_STARTING}, {"stopped", HA_STOPPED}, {"failed", HA_FAILED}};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (is(vm, "status", words[i].status))
			return words[i].seen;
	return HA_RUNNING;
}

static const struct ha_restart *restarts_of(const json_t *ha, size_t *ret_n)
{
	const json_t *list = json_object_get(ha, "restarts");
	size_t n = json_array_size(list);
	struct ha_restart *r = xcalloc(n + 1, sizeof(*r));

	for (size_t i = 0; i < n; i++) {
		const json_t *o = json_array_get(list, i);

		r[i] = (struct ha_restart){
			.time_ms = json_integer_value(json_object_get(o, "time")),
			.kind = is(o, "kind", "host")     ? HA_HOST_DIED
				: is(o, "kind", "failed") ? HA_NOT_STARTED
							  : HA_CRASHED,
			.node = text_of(o, "node"),
		};
	}
	*ret_n = n;
	return r;
}

static const struct ha_after *after_of(struct ports *ports, const json_t *ha, bool waits, size_t *ret_n)
{
	const json_t *list = json_object_get(ha, "after");
	size_t n = json_array_size(list);
	struct ha_after *a = xcalloc(n + 1, sizeof(*a));

	for (size_t i = 0; i < n; i++) {
		const json_t *o = json_array_get(list, i);

		a[i] = (struct ha_after){
			.vm = text_of(o, "vm"),
			.until = is(o, "until", "delay")  ? HA_UNTIL_DELAY
				 : is(o, "until", "port") ? HA_UNTIL_PORT
							  : HA_UNTIL_RUNNING,
			.seconds = json_integer_value(json_object_get(o, "seconds")),
			.address = json_string_value(json_object_get(o, "address")),
		};
	}
	/* Only for whoever waits; the others start no connections to anything. */
	for (size_t i = 0; waits && i < n; i++)
		if (a[i].until == HA_UNTIL_PORT && a[i].address)
			a[i].answers = ports_answers(ports, a[i].address);
	*ret_n = n;
	return a;
}

static void guest_known(struct ports *ports, const json_t *vm, const json_t *ha, const char *to, struct ha_guest *g)
{
	g->wanted = is(vm, "intent", "running");
	g->restart = is(ha, "mode", "restart");
	g->failback = is(ha, "failback", "when-idle");
	g->priority = (int)json_integer_value(json_object_get(ha, "priority"));
	g->max_restarts = (unsigned)json_integer_value(json_object_get(ha, "max_restarts"));
	g->home = json_string_value(json_object_get(ha, "home"));
	g->moving = json_is_string(json_object_get(vm, "migration"));
	g->seen = seen_of(vm);
	g->since_ms = json_integer_value(json_object_get(vm, "since"));
	g->to = to;
	g->restarts = restarts_of(ha, &g->n_restarts);
	g->after = after_of(ports, ha, g->wanted && g->seen != HA_RUNNING, &g->n_after);
}

static void nodes_known(struct known *k)
{
	const struct placement_input *in = place_input(k->place);

	k->ha_nodes = xcalloc(in->n_nodes + 1, sizeof(*k->ha_nodes));
	for (size_t i = 0; i < in->n_nodes && i < HA_NODES_MAX; i++) {
		const json_t *row = json_array_get(k->nodes, i);

		k->ha_nodes[i] = (struct ha_node){
			.place = in->nodes[i],
			.life = is(row, "life", "fenced") ? HA_FENCED
				: is(row, "life", "lost") ? HA_LOST
							  : HA_UP,
			.frozen = json_is_true(json_object_get(row, "frozen")),
			.since_ms = json_integer_value(json_object_get(row, "life_since")),
		};
		k->in.n_nodes = i + 1;
	}
	k->in.nodes = k->ha_nodes;
}

/* Nodes are asked about each CPU that guests want, once. */
static void cpu_known(struct known *k, json_t *cpu)
{
	json_t *c;
	size_t i;

	json_array_foreach (k->cpus, i, c)
		if (json_equal(c, cpu))
			return;
	if (cpu)
		json_array_append(k->cpus, cpu);
}

/* The definition of the guest of @row, from the last reading where it is the same version still. New reference; NULL
 * with @e. */
static json_t *definition_of(struct ha_manager *m, const json_t *row, struct err *e)
{
	const json_t *had = json_object_get(m->read, text_of(row, "uuid"));
	json_t *vm, *definition;

	if (had && json_equal(json_object_get(had, "version"), json_object_get(row, "version")))
		return json_incref(json_object_get(had, "definition"));
	vm = state_vm_get(replica_db(m->d->replica), text_of(row, "name"), e);
	definition = json_incref(json_object_get(vm, "definition"));
	json_decref(vm);
	return definition;
}

/* The definitions of all guests, in the order of k->vms; what is deleted meanwhile cannot be, as this is one reading.
 * Reading and parsing them is most of what a look costs, and they seldom change. */
static json_t *definitions(struct ha_manager *m, struct known *k, struct err *e)
{
	json_t *list = json_array(), *read = json_object(), *row;
	size_t i;

	k->cpus = json_array();
	json_array_foreach (k->vms, i, row) {
		json_t *definition = definition_of(m, row, e);

		if (!definition) {
			json_decref(list);
			json_decref(read);
			return NULL;
		}
		json_array_append(list, definition);
		cpu_known(k, json_object_get(definition, "cpu"));
		json_object_set_new(
			read, text_of(row, "uuid"),
			json_pack("{s:O, s:o}", "version", json_object_get(row, "version"), "definition", definition));
	}
	json_decref(m->read);
	m->read = read;
	return list;
}

/* One guest more, as it would be once it is created on @node, down. */
static void new_known(struct daemon *d, struct known *k, json_t *list, json_t *definition, const char *node,
		      const char *mode)
{
	json_t *setting = state_setting_get(replica_db(d->replica), STATE_SETTING_HA_DEFAULT, NULL);
	bool restart = !mode || !strcmp(mode, "default") ? !is(setting, "value", "none") : !strcmp(mode, "restart");

	json_array_append_new(k->vms,
			      json_pack("{s:s, s:s, s:s, s:s, s:I, s:O}", "name", text_of(definition, "name"), "owner",
					node, "intent", "stopped", "status", "stopped", "memory",
					(json_int_t)json_integer_value(json_object_get(definition, "memory")) << 20,
					"vcpus", json_object_get(definition, "vcpus")));
	json_array_append_new(k->ha, json_pack("{s:s, s:i}", "mode", restart ? "restart" : "none", "priority", 100));
	json_array_append(list, definition);
	cpu_known(k, json_object_get(definition, "cpu"));
	json_decref(setting);
}

static void make(struct daemon *d, struct ports *ports, struct known *k, json_t *list)
{
	struct place_guest none = {0};
	const struct placement_input *in;
	size_t n = json_array_size(k->vms);

	k->facts = (struct place_facts){.nodes = k->nodes,
					.vms = k->vms,
					.migrations = k->migrations,
					.settings = k->settings,
					.cpus = k->cpus,
					.catalogue = d->catalogue,
					.present = d->api->present,
					.present_arg = d->replica,
					.now_ms = clock_wall_ms()};
	k->place = place_new(&k->facts, &none);
	nodes_known(k);
	in = place_input(k->place); /* its vms are in the order of ours */
	k->guests = xcalloc(n + 1, sizeof(*k->guests));
	for (size_t i = 0; i < n; i++) {
		const json_t *vm = json_array_get(k->vms, i);

		place_guest_read(k->place, json_array_get(list, i), text_of(vm, "owner"), &k->guests[i].place);
		guest_known(ports, vm, json_array_get(k->ha, i), in->vms[i].to, &k->guests[i]);
	}
	k->in.guests = k->guests;
	k->in.n_guests = n;
	k->in.rules = in->rules;
	k->in.n_rules = in->n_rules;
	k->in.limits = (struct ha_limits){.place = in->limits,
					  .starts_per_node = STARTS_PER_NODE,
					  .in_place = FAILURES_IN_PLACE,
					  .settle_ms = SETTLE_MS};
	k->in.now_ms = clock_wall_ms();
}

/* A guest that is not there yet. */
struct wanted {
	json_t *definition;
	const char *node, *mode; /* mode NULL: default */
};

/* Everything, as of one moment, and @more where it is not NULL. Free with known_done(), also on failure. */
static int known_take_with(struct ha_manager *m, struct known *k, const struct wanted *more, struct err *e)
{
	struct daemon *d = m->d;
	struct sqlite3 *db = replica_db(d->replica);
	bool begin = sqlite3_get_autocommit(db); /* otherwise the caller has */
	json_t *list = NULL;

	*k = (struct known){0};
	if (begin)
		api_read_begin(d);
	k->nodes = state_node_list(db, e);
	k->vms = state_vm_list(db, e);
	k->migrations = state_migration_list(db, true, e);
	k->settings = state_setting_list(db, PLACE_SETTINGS, e);
	k->ha = state_ha_list(db, e);
	if (k->nodes && k->vms && k->migrations && k->settings && k->ha)
		list = definitions(m, k, e);
	if (begin)
		api_read_end(d);
	if (!list)
		return -1;
	if (more)
		new_known(d, k, list, more->definition, more->node, more->mode);
	make(d, m->ports, k, list);
	json_decref(list);
	return 0;
}

static int known_take(struct ha_manager *m, struct known *k, struct err *e)
{
	return known_take_with(m, k, NULL, e);
}

/* ---- doing ---- */

static void answered(void *arg, const json_t *result, const struct err *e)
{
	char *what = arg;

	if (e) /* somebody was faster, or quorum is gone: the next plan sees it */
		log_info("event=ha-refused what=\"%s\" error=\"%s\"", what, e->text);
	(void)result;
	free(what);
}

static bool asked_lately(const struct ha_manager *m, const char *vm)
{
	return clock_now_ns() < json_integer_value(json_object_get(m->asked, vm));
}

static void ask(struct ha_manager *m, const char *op, const char *vm, json_t *args, const char *why)
{
	log_info("event=ha op=%s vm=%s why=\"%s\"", op, vm, why);
	json_object_set_new(m->asked, vm, json_integer(clock_now_ns() + ASK_AGAIN));
	daemon_propose(m->d, op, NULL, args, answered, xasprintf("%s %s", op, vm));
}

/* As much of @s as @max bytes hold, and no part of a character. */
static int cut(const char *s, size_t max)
{
	size_t n = strnlen(s, max);

	while (n && ((unsigned char)s[n] & 0xc0) == 0x80)
		n--;
	return (int)n;
}

/* A reason as commands take it. New reference. */
static json_t *reason(const char *why)
{
	return json_stringn(why, (size_t)cut(why, 255));
}

static void act(struct ha_manager *m, const struct known *k, const struct ha_action *a)
{
	const json_t *vm = json_array_get(k->vms, a->guest);
	const char *name = text_of(vm, "name");
	json_t *epoch = json_object_get(vm, "epoch");
	char id[37];

	if (asked_lately(m, name))
		return;
	if (a->act == HA_PLACE) {
		bool fenced = false;

		for (size_t i = 0; i < k->in.n_nodes; i++)
			fenced |= is(vm, "owner", k->in.nodes[i].place.name) && k->in.nodes[i].life == HA_FENCED;
		ask(m, "vm.place", name,
		    json_pack("{s:s, s:s, s:O, s:b, s:o}", "name", name, "node", k->in.nodes[a->node].place.name,
			      "epoch", epoch, "fenced", fenced, "reason", reason(a->why)),
		    a->why);
	} else if (a->act == HA_RESTART) {
		ask(m, "vm.restart", name,
		    json_pack("{s:s, s:O, s:s, s:o}", "name", name, "epoch", epoch, "kind",
			      state_failure_kind(json_object_get(vm, "detail")), "reason", reason(a->why)),
		    a->why);
	} else if (a->act == HA_FAILBACK) {
		uuid_random(id);
		ask(m, "migration.create", name,
		    json_pack("{s:s, s:s, s:s, s:{}}", "id", id, "vm", name, "to", k->in.nodes[a->node].place.name,
			      "options"),
		    a->why);
	}
}

static bool is_needed(struct daemon *d)
{
	return state_ha_needed(replica_db(d->replica), NULL) != 0;
}

static void plan_and_act(struct ha_manager *m, const struct known *k)
{
	struct ha_plan plan;

	ha_plan(&k->in, &plan);
	for (size_t i = 0; i < plan.n; i++)
		act(m, k, &plan.actions[i]);
	ha_plan_done(&plan);
}

static void bears_judge(struct ha_manager *m, const struct known *k);

/* One reading for all that there is to look at: what is urgent, and in a @calm second the rest. */
static void look(struct ha_manager *m, bool calm)
{
	struct err e = ERR_INIT;
	struct known k;

	if (known_take(m, &k, &e) < 0) {
		log_error("event=ha error=\"%s\"", e.text);
	} else {
		plan_and_act(m, &k);
		if (calm)
			bears_judge(m, &k);
	}
	known_done(&k);
}

static bool leads(const struct ha_manager *m)
{
	return m->d->replica && replica_synced(m->d->replica) && replica_leads(m->d->replica);
}

void ha_manager_look(struct ha_manager *m)
{
	if (leads(m) && is_needed(m->d))
		look(m, false);
}

/* ---- how many hosts may die ---- */

static unsigned wish(struct daemon *d)
{
	json_t *s = state_setting_get(replica_db(d->replica), STATE_SETTING_HA_WISH, NULL);
	const json_t *v = json_object_get(s, "value");
	unsigned n = json_is_integer(v) ? (unsigned)json_integer_value(v) : WISH_DEFAULT;

	json_decref(s);
	return n;
}

static void bears_told(void *arg, const json_t *result, const struct err *e)
{
	(void)arg;
	if (e) /* the next look says it again */
		log_debug("event=ha-bears-refused error=\"%s\"", e->text);
	else
		log_warning("event=ha-bears text=\"%s\"", text_of(result, "text"));
}

static void bears_tell(struct ha_manager *m, unsigned bears, unsigned want, const char *why)
{
	char text[BEARS_TEXT_MAX];

	why = why ? why : "their guests would not all find a place";

	if (bears < want)
		snprintf(text, sizeof(text),
			 "the cluster bears the loss of %u host%s, and shall bear %u: %.*s; stop a guest, add memory "
			 "or a host, or set ha.wish to %u",
			 bears, bears == 1 ? "" : "s", want, cut(why, BEARS_WHY_MAX), why, bears);
	else
		snprintf(text, sizeof(text), "the cluster bears the loss of %u host%s, as it shall", want,
			 want == 1 ? "" : "s");
	daemon_propose(m->d, "ha.bears", NULL,
		       json_pack("{s:i, s:i, s:s}", "bears", (int)bears, "wish", (int)want, "text", text), bears_told,
		       NULL);
}

/* Is what the state has told last still so? A cluster of one host, or without guests, bears what it bears. */
static void bears_judge(struct ha_manager *m, const struct known *k)
{
	json_t *told = state_setting_get(replica_db(m->d->replica), STATE_SETTING_HA_BEARS, NULL);
	struct ha_bears b = {.exact = true};
	unsigned want = wish(m->d);

	if (want && k->in.n_nodes > 1 && k->in.n_guests)
		ha_bears(&k->in, want, &b);
	else
		b.bears = want;
	/* Not found out with the work that it may cost is not too little. */
	if ((b.bears >= want || b.exact) && (b.bears < want) != (told != NULL))
		bears_tell(m, b.bears, want, b.why);
	ha_bears_done(&b);
	json_decref(told);
}

void ha_manager_tick(struct ha_manager *m)
{
	const char *vm;
	json_t *v;
	void *next;

	json_object_foreach_safe(m->asked, next, vm, v) if (!asked_lately(m, vm)) json_object_del(m->asked, vm);
	if (!leads(m))
		return;
	if (++m->ticks % CALM_TICKS == 0)
		look(m, true);
	else
		ha_manager_look(m);
}

/* ---- telling ---- */

json_t *ha_manager_json(struct ha_manager *m, struct err *e)
{
	struct ha_plan plan;
	struct ha_bears b;
	struct known k;
	json_t *ret = NULL;

	if (known_take(m, &k, e) == 0) {
		ha_plan(&k.in, &plan);
		ha_bears(&k.in, 0, &b);
		ret = json_pack("{s:o, s:o, s:i}", "plan", ha_plan_json(&k.in, &plan), "bears",
				ha_bears_json(&k.in, &b), "wish", (int)wish(m->d));
		m->counts = (struct ha_counts){.bears = b.bears, .wish = wish(m->d)};
		for (size_t i = 0; i < plan.n; i++)
			if (plan.actions[i].act == HA_WAIT)
				(*(plan.actions[i].no_room ? &m->counts.room : &m->counts.turn))++;
		ha_plan_done(&plan);
		ha_bears_done(&b);
	}
	known_done(&k);
	return ret;
}

json_t *ha_manager_bears(struct ha_manager *m)
{
	json_t *all;

	if (!m->bears || clock_now_ns() >= m->bears_ns + BEARS_KEPT) {
		all = ha_manager_json(m, NULL);
		json_decref(m->bears);
		m->bears = json_incref(json_object_get(all, "bears"));
		if (m->bears)
			json_object_set(m->bears, "wish", json_object_get(all, "wish"));
		m->bears_ns = clock_now_ns();
		json_decref(all);
	}
	return json_incref(m->bears);
}

bool ha_manager_counts(struct ha_manager *m, struct ha_counts *ret)
{
	json_t *bears = ha_manager_bears(m);
	bool known = bears != NULL;

	*ret = m->counts;
	json_decref(bears);
	return known;
}

json_t *ha_manager_waiting(struct ha_manager *m)
{
	json_t *ret = json_object(), *list, *o;
	struct ha_plan plan;
	struct known k;
	size_t i;

	if (!is_needed(m->d))
		return ret;
	if (known_take(m, &k, NULL) == 0) {
		ha_plan(&k.in, &plan);
		list = ha_plan_json(&k.in, &plan);
		json_array_foreach (list, i, o)
			if (is(o, "action", ha_act_names[HA_WAIT]))
				json_object_set(ret, text_of(o, "vm"), json_object_get(o, "why"));
		json_decref(list);
		ha_plan_done(&plan);
	}
	known_done(&k);
	return ret;
}

/* ---- admission ---- */

static int admit(struct ha_manager *m, const char *vm, const char *node, const struct wanted *more, struct err *e)
{
	struct known k;
	size_t g = 0, n = 0;
	int r = known_take_with(m, &k, more, e);

	while (r == 0 && g < k.in.n_guests && !is(json_array_get(k.vms, g), "name", vm))
		g++;
	while (r == 0 && n < k.in.n_nodes && strcmp(k.in.nodes[n].place.name, node) != 0)
		n++;
	if (r == 0 && g < k.in.n_guests && n < k.in.n_nodes)
		r = ha_admit(&k.in, g, n, wish(m->d), e);
	known_done(&k);
	return r;
}

int ha_manager_admit(struct ha_manager *m, const char *vm, const char *node, struct err *e)
{
	return admit(m, vm, node, NULL, e);
}

int ha_manager_admit_new(struct ha_manager *m, json_t *definition, const char *node, const char *mode, struct err *e)
{
	struct wanted more = {.definition = definition, .node = node, .mode = mode};

	return admit(m, text_of(definition, "name"), node, &more, e);
}

/* ---- life ---- */

struct ha_manager *ha_manager_new(struct daemon *d)
{
	struct ha_manager *m = xcalloc(1, sizeof(*m));

	m->d = d;
	m->ports = ports_new(d->loop);
	m->asked = json_object();
	return m;
}

void ha_manager_free(struct ha_manager *m)
{
	if (!m)
		return;
	ports_free(m->ports);
	json_decref(m->asked);
	json_decref(m->bears);
	json_decref(m->read);
	free(m);
}
