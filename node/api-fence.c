/* SPDX-License-Identifier: Apache-2.0 */
/* Fence devices and levels over the API, the history of fencing, and a person's word that a host is dead.
 *
 * A device is judged by what its agent says about itself, so before one is kept the agent is asked for its metadata, on
 * the host that was asked. Secrets go into the state and to the agent; all that is shown has AGENT_MASK in their place,
 * and what is sent back with the mask keeps the secret that was there.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/state.h"
#include "fencing/power.h"
#include "node/api-int.h"
#include "node/fence-device.h"

#define TEST_LIMIT (50 * NS_PER_S) /* of all calls of one test; a client waits for a minute */
#define HISTORY_DEFAULT 20
#define HISTORY_MOST 1000
#define ALONE_LOOK (50 * NS_PER_MS)
#define ALONE_LOOKS 200U /* ten seconds: a disk that slow does not go on */

/* ---- reading ---- */

static json_t *device_list(struct daemon *d, const struct http_call *call, struct err *e)
{
	json_t *rows = state_fence_device_list(replica_db(d->replica), false, e), *shown, *row;
	size_t i;

	(void)call;
	if (!rows)
		return NULL;
	shown = json_array();
	json_array_foreach (rows, i, row)
		json_array_append_new(shown, fence_device_shown(row));
	json_decref(rows);
	return shown;
}

static json_t *device_get(struct daemon *d, const struct http_call *call, struct err *e)
{
	json_t *row = state_fence_device_get(replica_db(d->replica), http_call_param(call, "name"), false, e);
	json_t *shown = row ? fence_device_shown(row) : NULL;

	json_decref(row);
	return shown;
}

static json_t *level_list(struct daemon *d, const struct http_call *call, struct err *e)
{
	(void)call;
	return state_fence_level_list(replica_db(d->replica), e);
}

static json_t *history(struct daemon *d, const struct http_call *call, struct err *e)
{
	const char *limit = http_call_query(call, "limit"), *node = http_call_query(call, "node");
	int64_t n = limit ? strtoll(limit, NULL, 10) : HISTORY_DEFAULT;

	return state_fencing_list(replica_db(d->replica), node, n < HISTORY_MOST ? n : HISTORY_MOST, e);
}

/* ---- keeping a device ---- */

static void answer_device(struct api_write *w, const json_t *result)
{
	json_t *row = state_fence_device_get(replica_db(w->d->replica), w->object, false, NULL);

	api_reply(w, json_is_true(json_object_get(w->extra, "new")) ? 201 : 200,
		  row ? fence_device_shown(row) : json_copy((json_t *)result));
	json_decref(row);
}

static void on_checked(void *arg, const json_t *device, const struct err *e)
{
	struct api_write *w = arg;
	json_t *args;

	if (!device) {
		api_reply_err(w, e);
		return;
	}
	args = fence_device_args(device);
	if (json_is_true(json_object_get(w->extra, "new")))
		json_object_set_new(args, "new", json_true());
	api_propose(w, "fence.device", NULL, args, answer_device);
}

/* Ask the agent, then keep the device; takes @given. */
static void keep(struct daemon *d, struct http_call *call, json_t *given, bool is_new)
{
	struct api_write *w = api_write_new(d, call, api_text(given, "name"));
	struct err e = ERR_INIT;

	json_object_set_new(w->extra, "new", json_boolean(is_new));
	if (!fence_check_start(d->loop, d->opt.fence_agents, given, on_checked, w, &e))
		api_reply_err(w, &e);
	json_decref(given);
}

static void on_device_create(struct daemon *d, struct http_call *call)
{
	keep(d, call, json_copy(http_call_body(call)), true);
}

static void on_device_edit(struct daemon *d, struct http_call *call)
{
	const char *name = http_call_param(call, "name");
	struct err e = ERR_INIT;
	json_t *row = state_fence_device_get(replica_db(d->replica), name, true, &e), *given;

	if (!row) {
		api_refuse(call, &e, name);
		return;
	}
	given = fence_device_unmask(http_call_body(call), row);
	json_object_set_new(given, "name", json_string(name));
	json_decref(row);
	keep(d, call, given, false);
}

static void answer_result(struct api_write *w, const json_t *result)
{
	api_reply(w, 200, json_copy((json_t *)result));
}

static void on_device_delete(struct daemon *d, struct http_call *call)
{
	const char *name = http_call_param(call, "name");

	api_propose(api_write_new(d, call, name), "fence.device-delete", NULL, json_pack("{s:s}", "name", name),
		    answer_result);
}

/* ---- levels ---- */

/* @devices is taken; none: no such level. */
static void level_set(struct daemon *d, struct http_call *call, json_t *devices)
{
	const char *node = http_call_param(call, "node");
	struct api_write *w = api_write_new(d, call, node);
	char *end;
	long level = strtol(http_call_param(call, "level"), &end, 10);
	struct err e = ERR_INIT;

	if (*end || level < 1 || level > 9) {
		err_set(&e, ERR_INPUT, "node %s: a level is a number from 1 to 9", node);
		api_reply_err(w, &e);
		json_decref(devices);
		return;
	}
	api_propose(w, "fence.level", NULL,
		    json_pack("{s:s, s:I, s:o}", "node", node, "level", (json_int_t)level, "devices", devices),
		    answer_result);
}

static void on_level_set(struct daemon *d, struct http_call *call)
{
	level_set(d, call, json_copy(json_object_get(http_call_body(call), "devices")));
}

static void on_level_delete(struct daemon *d, struct http_call *call)
{
	level_set(d, call, json_array());
}

/* ---- test ---- */

struct test {
	struct api_write *w;
	struct power_look *look;
	struct loop_timer *limit;
};

static void test_free(struct test *t)
{
	power_look_free(t->look);
	loop_timer_free(t->limit);
	free(t);
}

static void on_looked(void *arg, const json_t *report)
{
	struct test *t = arg;
	json_t *answer = json_copy((json_t *)report);

	json_object_set_new(answer, "from", json_string(t->w->d->identity.node));
	api_reply(t->w, 200, answer);
	test_free(t);
}

static void on_late(void *arg)
{
	struct test *t = arg;
	struct err e = ERR_INIT;

	err_set(&e, ERR_TIMEOUT,
		"fence device %s: the test has not ended within %d s and was given up; look whether the device can be "
		"reached from node %s, or give it a shorter time-out",
		t->w->object, (int)(TEST_LIMIT / NS_PER_S), t->w->d->identity.node);
	api_reply_err(t->w, &e);
	test_free(t);
}

static void on_device_test(struct daemon *d, struct http_call *call)
{
	const char *name = http_call_param(call, "device");
	struct err e = ERR_INIT;
	json_t *row = state_fence_device_get(replica_db(d->replica), name, true, &e), *device;
	struct test *t;

	if (!row) {
		api_refuse(call, &e, name);
		return;
	}
	device = fence_device_of_row(row);
	t = xcalloc(1, sizeof(*t));
	t->w = api_write_new(d, call, name);
	t->limit = loop_timer_add(d->loop, TEST_LIMIT, 0, on_late, t);
	t->look = power_look_start(d->loop, device, d->opt.fence_agents,
				   json_is_true(json_object_get(http_call_body(call), "list")), on_looked, t);
	json_decref(device);
	json_decref(row);
}

/* ---- a person's word ---- */

/* Why @node cannot be called dead; 0 when it can. */
static int dead_check(struct daemon *d, const char *node, const json_t *row, struct err *e)
{
	if (!strcmp(node, d->identity.node))
		return err_set(e, ERR_CONFLICT, "node %s: is the host that answers you, so it is alive", node);
	if (d->api->present(d->replica, (uint32_t)json_integer_value(json_object_get(row, "id"))))
		return err_set(
			e, ERR_CONFLICT,
			"node %s: is a member of the cluster now, so it is alive; to take it out of use, move its "
			"guests away and stop it",
			node);
	return 0;
}

static void answer_dead(struct api_write *w, const json_t *result)
{
	log_warning(
		"event=confirmed-dead node=%s by=\"%s\" text=\"guests of this host may be started elsewhere now; if "
		"it runs all the same, they run twice\"",
		w->object, http_call_identity(w->call)->name);
	api_reply(w, 200, json_copy((json_t *)result));
}

static void on_lost(struct api_write *w, const json_t *result);

static void confirm_lost(struct api_write *w)
{
	api_propose(w, "node.lost", "lost",
		    json_pack("{s:s, s:o}", "node", w->object, "reason",
			      json_sprintf("%s says that it is dead", http_call_identity(w->call)->name)),
		    on_lost);
}

static void on_lost(struct api_write *w, const json_t *result)
{
	struct err e = ERR_INIT;
	json_t *row = state_node_get(replica_db(w->d->replica), w->object, &e);
	int r = row ? dead_check(w->d, w->object, row, &e) : -1; /* it may have come back meanwhile */

	json_decref(row);
	if (r < 0) {
		api_reply_err(w, &e);
		return;
	}
	api_propose(w, "node.fenced", NULL,
		    json_pack("{s:s, s:O, s:s, s:o}", "node", w->object, "number", json_object_get(result, "number"),
			      "proof", "manual", "text",
			      json_sprintf("%s has looked and says that it is off", http_call_identity(w->call)->name)),
		    answer_dead);
}

/* The state may say so already. */
static void confirm(struct api_write *w, const json_t *row)
{
	if (strcmp(api_text(row, "life"), "fenced") != 0)
		confirm_lost(w);
	else
		api_reply(w, 200,
			  json_pack("{s:s, s:s, s:O}", "node", w->object, "life", "fenced", "number",
				    json_object_get(row, "fencing")));
}

/* One of two hosts cannot write that the other one is dead before it goes on alone, and that it does by the same word.
 */
struct aloneness {
	struct api_write *w;
	struct loop_timer *look;
	unsigned looks;
};

static void on_alone(void *arg)
{
	struct aloneness *a = arg;
	struct replica *r = a->w->d->replica;
	json_t *row;

	if (!replica_synced(r) && ++a->looks < ALONE_LOOKS)
		return;
	row = replica_synced(r) ? state_node_get(replica_db(r), a->w->object, NULL) : NULL;
	confirm(a->w, row); /* refused with the reason if it does not go on */
	json_decref(row);
	loop_timer_free(a->look);
	free(a);
}

static void go_alone(struct api_write *w, uint32_t node)
{
	struct replica *r = w->d->replica;
	struct aloneness *a = xcalloc(1, sizeof(*a));

	log_warning("event=alone node=%s by=\"%s\" text=\"somebody says that it is off: this host goes on without it\"",
		    w->object, http_call_identity(w->call)->name);
	replica_dead(r, node, replica_by_itself(r));
	a->w = w;
	a->look = loop_timer_add(w->d->loop, ALONE_LOOK, ALONE_LOOK, on_alone, a);
}

static void on_confirm_dead(struct daemon *d, struct http_call *call)
{
	const char *node = http_call_param(call, "name");
	struct api_write *w = api_write_new(d, call, node);
	struct err e = ERR_INIT;
	json_t *row = state_node_get(replica_db(d->replica), node, &e);

	if (!row || dead_check(d, node, row, &e) < 0)
		api_reply_err(w, &e);
	else if (!replica_synced(d->replica) && replica_may_alone(d->replica))
		go_alone(w, (uint32_t)json_integer_value(json_object_get(row, "id"))); /* whatever the state says */
	else
		confirm(w, row);
	json_decref(row);
}

const struct api_handler api_fence_handlers[] = {
	{.operation = "fence_device_list", .read = device_list},
	{.operation = "fence_device_get", .read = device_get, .object = "name"},
	{.operation = "fence_device_create", .handle = on_device_create},
	{.operation = "fence_device_edit", .handle = on_device_edit, .object = "name"},
	{.operation = "fence_device_delete", .handle = on_device_delete, .object = "name"},
	{.operation = "fence_device_test", .handle = on_device_test, .object = "device"},
	{.operation = "fence_level_list", .read = level_list},
	{.operation = "fence_level_set", .handle = on_level_set, .object = "node"},
	{.operation = "fence_level_delete", .handle = on_level_delete, .object = "node"},
	{.operation = "fencing_list", .read = history},
	{.operation = "node_confirm_dead", .handle = on_confirm_dead, .object = "name"},
	{0},
};
