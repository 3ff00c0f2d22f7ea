/* SPDX-License-Identifier: Apache-2.0 */
/* Guests over the API: create where they fit, edit, delete, start, stop, kill, move. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "node/api-int.h"
#include "node/define.h"
#include "node/place.h"
#include "node/tasks.h"

#define PLACE_TRIES 3    /* another guest may have taken the room meanwhile */
#define MAX_PAUSE_MS 300 /* allowed, where the request does not say: godwit-migrate's own */

/* ---- create ---- */

static void create_propose(struct api_write *w);

static json_t *define(struct daemon *d, const json_t *given, const char *uuid, struct err *e)
{
	json_t *networks = state_network_list(replica_db(d->replica), e);
	json_t *definition = networks ? define_guest(given, networks, uuid, e) : NULL;

	json_decref(networks);
	return definition;
}

static int create_place(struct api_write *w, struct api_choice *ret, struct err *e)
{
	const json_t *wish = json_object_get(http_call_body(w->call), "placement");
	struct place_guest g = {.definition = json_object_get(w->extra, "definition"),
				.near = json_object_get(wish, "near"),
				.apart = json_object_get(wish, "apart")};

	return api_choose(w->d, &g, json_string_value(json_object_get(wish, "node")), ret, e);
}

static void on_ha_made(struct api_write *w, const json_t *result)
{
	_free_ char *owner = xstrdup(api_text(w->extra, "owner"));

	(void)result;
	json_object_del(w->extra, "owner");
	api_start_task(w, TASK_VM_CREATE, owner);
}

static void on_created(struct api_write *w, const json_t *result)
{
	json_t *ha = json_object_get(http_call_body(w->call), "ha");

	json_object_del(w->extra, "definition");
	if (!ha) {
		api_start_task(w, TASK_VM_CREATE, api_text(result, "owner"));
		return;
	}
	json_object_set(w->extra, "owner", json_object_get(result, "owner"));
	api_propose(w, "vm.ha", "ha", json_pack("{s:s, s:O}", "name", w->object, "mode", ha), on_ha_made);
}

/* Whoever says so may start guests that the loss of a host would leave without a place. */
static bool is_forced(const struct http_call *call)
{
	return json_is_true(json_object_get(http_call_body(call), "force"));
}

static int create_admit(struct api_write *w, const char *node, struct err *e)
{
	const json_t *body = http_call_body(w->call);

	if (!w->d->ha || is_forced(w->call) || !json_is_true(json_object_get(body, "start")))
		return 0;
	return ha_manager_admit_new(w->d->ha, json_object_get(w->extra, "definition"), node,
				    json_string_value(json_object_get(body, "ha")), e);
}

static void create_propose(struct api_write *w)
{
	_free_ char *part = w->tries ? xasprintf("try %d", w->tries) : NULL;
	json_t *start = json_object_get(http_call_body(w->call), "start"), *args;
	struct err e = ERR_INIT;
	struct api_choice c;

	if (create_place(w, &c, &e) < 0 || create_admit(w, c.node, &e) < 0) {
		api_choice_done(&c);
		api_reply_err(w, &e);
		return;
	}
	args = json_pack("{s:O, s:s}", "definition", json_object_get(w->extra, "definition"), "node", c.node);
	if (start)
		json_object_set(args, "start", start);
	json_object_set(w->extra, "placement", c.explanation);
	api_choice_done(&c);
	api_propose(w, "vm.create", part, args, on_created);
}

/* Another guest took the room between our look and our command: look again. */
static bool create_again(struct api_write *w, const struct err *e)
{
	const json_t *before = json_object_get(json_object_get(w->extra, "placement"), "choice");
	struct api_choice c;
	bool other;

	if (w->then != on_created || e->code != ERR_CONFLICT || w->tries + 1 == PLACE_TRIES)
		return false;
	/* Unless another node is the best now, it was not about room, or nobody has any. */
	other = create_place(w, &c, NULL) == 0 && json_is_string(before) &&
		strcmp(c.node, json_string_value(before)) != 0;
	api_choice_done(&c);
	if (!other)
		return false;
	w->tries++;
	create_propose(w);
	return true;
}

static void create_dry_run(struct api_write *w)
{
	struct err e = ERR_INIT;
	struct api_choice c;

	create_place(w, &c, &e);
	if (c.explanation)
		api_reply(w, 200, json_pack("{s:O}", "placement", c.explanation));
	else
		api_reply_err(w, &e);
	api_choice_done(&c);
}

static void on_vm_create(struct daemon *d, struct http_call *call)
{
	const json_t *body = http_call_body(call), *given = json_object_get(body, "definition");
	struct api_write *w = api_write_new(d, call, api_text(given, "name"));
	bool dry_run = json_is_true(json_object_get(body, "dry_run"));
	struct err e = ERR_INIT;
	json_t *definition;

	if (!dry_run && api_answered_before(w, TASK_VM_CREATE))
		return;
	definition = define(d, given, NULL, &e);
	if (!definition) {
		api_reply_err(w, &e);
		return;
	}
	json_object_set_new(w->extra, "definition", definition);
	w->again = create_again;
	if (dry_run)
		create_dry_run(w);
	else
		create_propose(w);
}

/* ---- edit, delete ---- */

static void answer_vm(struct api_write *w, const json_t *result)
{
	json_t *vm = state_vm_get(replica_db(w->d->replica), w->object, NULL);

	api_reply(w, 200, vm ? vm : json_copy((json_t *)result));
}

static void on_vm_edit(struct daemon *d, struct http_call *call)
{
	const json_t *body = http_call_body(call), *if_version = json_object_get(body, "if_version");
	const char *name = http_call_param(call, "name");
	struct api_write *w = api_write_new(d, call, name);
	struct err e = ERR_INIT;
	json_t *vm = state_vm_get(replica_db(d->replica), name, &e), *definition = NULL, *args;

	if (vm)
		definition = define(d, json_object_get(body, "definition"), api_text(vm, "uuid"), &e);
	json_decref(vm);
	if (!definition) {
		api_reply_err(w, &e);
		return;
	}
	args = json_pack("{s:s, s:o}", "name", name, "definition", definition);
	if (if_version)
		json_object_set(args, "if-version", (json_t *)if_version);
	api_propose(w, "vm.edit", NULL, args, answer_vm);
}

static void answer_deleted(struct api_write *w, const json_t *result)
{
	api_reply(w, 200, json_copy((json_t *)result));
}

static void on_vm_delete(struct daemon *d, struct http_call *call)
{
	const char *name = http_call_param(call, "name");

	api_propose(api_write_new(d, call, name), "vm.delete", NULL, json_pack("{s:s}", "name", name), answer_deleted);
}

/* ---- start ---- */

/*
 * A guest starts where it is. One that is down, and whose owner is away or cannot take it, is given to the best other
 * node first, by vm.place, which the state refuses where the owner may run it; --node says which.
 */

static void on_started(struct api_write *w, const json_t *result)
{
	json_object_del(w->extra, "refused");
	api_start_task(w, TASK_VM_START, api_text(result, "owner"));
}

/* One that has failed where it is needs a new epoch, or its host's agent does not start it again. */
static void on_intent(struct api_write *w, const json_t *result)
{
	json_t *vm = state_vm_get(replica_db(w->d->replica), w->object, NULL);

	if (vm && !strcmp(api_text(vm, "status"), "failed"))
		api_propose(w, "vm.restart", "restart",
			    json_pack("{s:s, s:O, s:s}", "name", w->object, "epoch", json_object_get(vm, "epoch"),
				      "kind", "asked"),
			    on_started);
	else
		on_started(w, result);
	json_decref(vm);
}

static void start_propose(struct api_write *w)
{
	w->again = NULL;
	api_propose(w, "vm.intent", NULL, json_pack("{s:s, s:s}", "name", w->object, "intent", "running"), on_intent);
}

static void on_placed(struct api_write *w, const json_t *result)
{
	(void)result;
	start_propose(w);
}

/* It stays where it is: why it was to go, and why it may not. */
static bool place_refused(struct api_write *w, const struct err *e)
{
	const char *why = api_text(w->extra, "refused");
	struct err both = ERR_INIT;

	if (*why)
		err_set(&both, e->code, "%s; and it cannot start where it is: %s", e->text, why);
	else
		both = *e;
	api_reply_err(w, &both);
	return true;
}

static void place_propose(struct api_write *w, const json_t *vm, const char *node, const char *why)
{
	w->again = place_refused;
	if (why) {
		json_object_set_new(w->extra, "refused", json_string(why));
		json_object_set_new(w->extra, "placed",
				    json_sprintf("given to node %s, as node %s cannot start it: %s", node,
						 api_text(vm, "owner"), why));
	} else {
		json_object_set_new(
			w->extra, "placed",
			json_sprintf("given to node %s, as was asked; it was node %s's", node, api_text(vm, "owner")));
	}
	api_propose(
		w, "vm.place", "place",
		json_pack("{s:s, s:s, s:O}", "name", w->object, "node", node, "epoch", json_object_get(vm, "epoch")),
		on_placed);
}

static bool is_present(struct daemon *d, const char *node)
{
	json_t *row = state_node_get(replica_db(d->replica), node, NULL);
	bool here = row && d->api->present(d->replica, (uint32_t)json_integer_value(json_object_get(row, "id")));

	json_decref(row);
	return here;
}

/* Why @node is not fit, by an explanation of placement. Caller frees. */
static char *reasons_of(const json_t *explanation, const char *node)
{
	json_t *o, *reason;
	char *text = NULL;
	size_t i, k;

	json_array_foreach (json_object_get(explanation, "nodes"), i, o)
		json_array_foreach (strcmp(api_text(o, "node"), node) ? NULL : json_object_get(o, "reasons"), k,
				    reason) {
			char *longer =
				xasprintf("%s%s%s", text ? text : "", text ? ", " : "", json_string_value(reason));

			free(text);
			text = longer;
		}
	return text ? text : xstrdup("there is no such node any more");
}

/* Would the cluster bear the loss of hosts as before? Otherwise refused, and the end. */
static bool admitted(struct api_write *w, const json_t *vm, const char *node)
{
	struct err e = ERR_INIT;

	if (!w->d->ha || is_forced(w->call) || !strcmp(api_text(vm, "intent"), "running") ||
	    ha_manager_admit(w->d->ha, w->object, node, &e) == 0)
		return true;
	api_reply_err(w, &e);
	return false;
}

/* Nobody asked for a node: the owner if it can, else whoever can best, else the owner has the last word. */
static void start_somewhere(struct api_write *w, const json_t *vm)
{
	const char *owner = api_text(vm, "owner"), *status = api_text(vm, "status"), *intent = api_text(vm, "intent");
	bool down = !strcmp(status, "stopped") || !strcmp(status, "failed");
	struct place_guest g = {.definition = json_object_get(vm, "definition")};
	struct api_choice here = {0}, there = {0};
	struct err e = ERR_INIT;

	if (!down || !strcmp(intent, "running") || api_choose(w->d, &g, owner, &here, &e) == 0) {
		if (admitted(w, vm, owner))
			start_propose(w);
	} else if (api_choose(w->d, &g, NULL, &there, &e) == 0 && strcmp(there.node, owner) != 0) {
		_free_ char *why = reasons_of(here.explanation, owner);

		json_object_set(w->extra, "placement", there.explanation);
		if (admitted(w, vm, there.node))
			place_propose(w, vm, there.node, why);
	} else if (is_present(w->d, owner)) {
		if (admitted(w, vm, owner))
			start_propose(w);
	} else {
		api_reply_err(w, &e);
	}
	api_choice_done(&here);
	api_choice_done(&there);
}

static void start_on(struct api_write *w, const json_t *vm, const char *node)
{
	struct place_guest g = {.definition = json_object_get(vm, "definition")};
	struct api_choice c = {0};
	struct err e = ERR_INIT;

	if (!strcmp(node, api_text(vm, "owner"))) {
		if (admitted(w, vm, node))
			start_propose(w);
	} else if (api_choose(w->d, &g, node, &c, &e) < 0) {
		api_reply_err(w, &e);
	} else {
		json_object_set(w->extra, "placement", c.explanation);
		if (admitted(w, vm, node))
			place_propose(w, vm, node, NULL);
	}
	api_choice_done(&c);
}

static void on_vm_start(struct daemon *d, struct http_call *call)
{
	const char *name = http_call_param(call, "name");
	const char *node = json_string_value(json_object_get(http_call_body(call), "node"));
	struct api_write *w = api_write_new(d, call, name);
	struct err e = ERR_INIT;
	json_t *vm;

	if (api_answered_before(w, TASK_VM_START))
		return;
	vm = state_vm_get(replica_db(d->replica), name, &e);
	if (!vm)
		api_reply_err(w, &e);
	else if (node)
		start_on(w, vm, node);
	else
		start_somewhere(w, vm);
	json_decref(vm);
}

/* ---- stop, kill ---- */

static void on_intended(struct api_write *w, const json_t *result)
{
	_free_ char *kind = xstrdup(api_text(w->extra, "kind"));

	json_object_clear(w->extra);
	api_start_task(w, kind, api_text(result, "owner"));
}

static void intend(struct daemon *d, struct http_call *call, const char *intent, const char *kind)
{
	const char *name = http_call_param(call, "name");
	json_t *args = json_pack("{s:s, s:s}", "name", name, "intent", intent);
	json_t *timeout = json_object_get(http_call_body(call), "timeout_s");
	struct api_write *w = api_write_new(d, call, name);

	if (timeout)
		json_object_set(args, "timeout_s", timeout);
	json_object_set_new(w->extra, "kind", json_string(kind));
	api_propose(w, "vm.intent", NULL, args, on_intended);
}

static void on_vm_stop(struct daemon *d, struct http_call *call)
{
	intend(d, call, "stopped", TASK_VM_STOP);
}

static void on_vm_kill(struct daemon *d, struct http_call *call)
{
	intend(d, call, "killed", TASK_VM_KILL);
}

/* ---- move ---- */

/* May a move of it begin? One that this very request has begun before may. */
static int move_check(const struct http_call *call, const json_t *vm, struct err *e)
{
	const char *name = api_text(vm, "name"), *status = api_text(vm, "status"), *id = api_text(vm, "migration");

	if (*id && strcmp(id, http_call_id(call)) != 0)
		return err_set(e, ERR_CONFLICT,
			       "vm %s: is being moved already (migration %s); cancel that, or wait for it", name, id);
	if (!*id && strcmp(status, "running") != 0 && strcmp(status, "paused") != 0)
		return err_set(e, ERR_CONFLICT, "vm %s: is not known to run on node %s (%s); start it first", name,
			       api_text(vm, "owner"), *status ? status : "no report yet");
	return 0;
}

static int move_place(struct daemon *d, const json_t *vm, const char *to, struct api_choice *ret, struct err *e)
{
	const json_t *detail = json_object_get(vm, "detail");
	struct place_guest g = {
		.definition = json_object_get(vm, "definition"),
		.owner = api_text(vm, "owner"),
		.dirty_rate = (uint64_t)json_integer_value(json_object_get(detail, "dirty_rate")),
	};

	return api_choose(d, &g, to, ret, e);
}

static void on_move_made(struct api_write *w, const json_t *result)
{
	api_start_task(w, TASK_VM_MIGRATE, api_text(result, "src"));
}

/* The options of the move in a request, as migration.create takes them. New reference. */
static json_t *options_of(const json_t *body)
{
	static const char *const names[] = {"max_pause_ms", "deadline_s", "auto_converge", "bandwidth"};
	json_t *o = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (json_object_get(body, names[i]))
			json_object_set(o, names[i], json_object_get(body, names[i]));
	return o;
}

static void move_propose(struct api_write *w, const char *to)
{
	const json_t *body = http_call_body(w->call);

	api_propose(w, "migration.create", NULL,
		    json_pack("{s:s, s:s, s:s, s:o}", "id", http_call_id(w->call), "vm", w->object, "to", to, "options",
			      options_of(body)),
		    on_move_made);
}

/* A number of the request, in its body or its query; 0 when it is not there. */
static int64_t wish_of(const struct http_call *call, const char *name)
{
	const char *query = http_call_query(call, name);

	return query ? strtoll(query, NULL, 10) : json_integer_value(json_object_get(http_call_body(call), name));
}

static void forecast(struct api_write *w, const json_t *vm, const struct api_choice *c, bool alone)
{
	int64_t bandwidth = wish_of(w->call, "bandwidth"), pause_ms = wish_of(w->call, "max_pause_ms");
	struct api_move m = {.to = c->node,
			     .wire_rate = c->wire_rate,
			     .bandwidth = bandwidth > 0 ? (uint64_t)bandwidth : 0,
			     .pause_ms = pause_ms > 0 ? (unsigned)pause_ms : MAX_PAUSE_MS,
			     .alone = alone};

	api_forecast(w, vm, &m);
}

static void on_vm_migrate(struct daemon *d, struct http_call *call)
{
	const char *name = http_call_param(call, "name");
	const json_t *body = http_call_body(call);
	struct api_write *w = api_write_new(d, call, name);
	bool dry_run = json_is_true(json_object_get(body, "dry_run"));
	struct api_choice c = {0};
	struct err e = ERR_INIT;
	json_t *vm;

	if (!dry_run && api_answered_before(w, TASK_VM_MIGRATE))
		return;
	vm = state_vm_get(replica_db(d->replica), name, &e);
	if (!vm || move_check(call, vm, &e) < 0 ||
	    move_place(d, vm, json_string_value(json_object_get(body, "to")), &c, &e) < 0) {
		api_reply_err(w, &e);
	} else {
		json_object_set(w->extra, "placement", c.explanation);
		if (dry_run)
			forecast(w, vm, &c, false);
		else
			move_propose(w, c.node);
	}
	api_choice_done(&c);
	json_decref(vm);
}

static void on_vm_forecast(struct daemon *d, struct http_call *call)
{
	const char *name = http_call_param(call, "name");
	struct api_write *w = api_write_new(d, call, name);
	struct api_choice c = {0};
	struct err e = ERR_INIT;
	json_t *vm = state_vm_get(replica_db(d->replica), name, &e);

	if (!vm || move_check(call, vm, &e) < 0 || move_place(d, vm, http_call_query(call, "to"), &c, &e) < 0)
		api_reply_err(w, &e);
	else
		forecast(w, vm, &c, true);
	api_choice_done(&c);
	json_decref(vm);
}

const struct api_handler api_vm_handlers[] = {
	{.operation = "vm_create", .handle = on_vm_create},
	{.operation = "vm_edit", .handle = on_vm_edit, .object = "name"},
	{.operation = "vm_delete", .handle = on_vm_delete, .object = "name"},
	{.operation = "vm_start", .handle = on_vm_start, .object = "name"},
	{.operation = "vm_stop", .handle = on_vm_stop, .object = "name"},
	{.operation = "vm_kill", .handle = on_vm_kill, .object = "name"},
	{.operation = "vm_migrate", .handle = on_vm_migrate, .object = "name"},
	{.operation = "vm_forecast", .handle = on_vm_forecast, .object = "name"},
	{0},
};
