/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at a device without switching anything: does it answer, what state has each plug, which plugs has it. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "fencing/power-int.h"

#define PLUGS_MAX 1024
#define FOREVER INT64_MAX /* the device's own time-out counts */

struct power_look {
	struct loop *loop;
	json_t *device;
	char *dirs;
	bool list, ok;
	json_t *nodes; /* names that are still to be asked for */
	json_t *report;
	struct power_switch sw;
	struct agent_call *call;
	struct loop_timer *next;
	power_look_fn *fn;
	void *arg;
};

/* Every step ends with this: the next one begins from the loop. */
static void look_next(struct power_look *k)
{
	agent_call_free(steal_ptr(k->call));
	loop_timer_set(k->next, 0);
}

static void switch_to(struct power_look *k, const char *node)
{
	json_decref(k->sw.device);
	k->sw = power_switch_of(k->device, node);
}

/* ---- the plugs that it lists ---- */

/* One line: plug, a comma, an alias. */
static void plug_add(json_t *plugs, const char *line, size_t size)
{
	const char *comma = memchr(line, ',', size);
	size_t n = comma ? (size_t)(comma - line) : size;
	json_t *plug = json_stringn(line, n), *alias = comma ? json_stringn(comma + 1, size - n - 1) : json_string("");

	if (plug && alias && n > 0 && json_array_size(plugs) < PLUGS_MAX)
		json_array_append_new(plugs, json_pack("{s:O, s:O}", "plug", plug, "alias", alias));
	json_decref(plug);
	json_decref(alias);
}

static void on_list(void *arg, const struct agent_end *end)
{
	struct power_look *k = arg;
	json_t *plugs = json_array();
	const char *p = end->out, *line_end;

	for (; *p; p = line_end + (*line_end == '\n')) {
		line_end = strchrnul(p, '\n');
		plug_add(plugs, p, (size_t)(line_end - p));
	}
	if (end->exit_status == 0)
		json_object_set(k->report, "plugs", plugs);
	json_object_set_new(k->report, "plugs_text", json_string(end->words));
	json_decref(plugs);
	look_next(k);
}

/* ---- answers and states ---- */

static void on_monitor(void *arg, const struct agent_end *end)
{
	struct power_look *k = arg;

	k->ok = end->exit_status == 0;
	json_object_set_new(k->report, "monitor", json_pack("{s:b, s:s}", "ok", k->ok, "text", end->words));
	look_next(k);
}

static void state_add(struct power_look *k, enum agent_state state, const char *text)
{
	k->ok = k->ok && state != AGENT_STATE_UNKNOWN;
	json_array_append_new(json_object_get(k->report, "nodes"),
			      json_pack("{s:O, s:s?, s:s, s:s}", "node", json_array_get(k->nodes, 0), "plug",
					k->sw.plug, "state", agent_state_names[state], "text", text));
	json_array_remove(k->nodes, 0);
}

static void on_status(void *arg, const struct agent_end *end)
{
	struct power_look *k = arg;

	state_add(k, end->state, end->words);
	look_next(k);
}

/* ---- in this order ---- */

static void call(struct power_look *k, enum agent_action action, agent_end_fn *fn)
{
	struct power_switch sw = k->sw;
	struct err e = ERR_INIT;
	struct agent_end end = {.action = action, .exit_status = -1, .out = "", .words = e.text};

	sw.plug = action == AGENT_STATUS ? sw.plug : NULL;
	k->call = power_switch_call(&sw, k->loop, k->dirs, action, FOREVER, fn, k, &e);
	if (!k->call)
		fn(k, &end);
}

static void look_step(void *arg)
{
	struct power_look *k = arg;
	const char *node = json_string_value(json_array_get(k->nodes, 0));

	if (node)
		switch_to(k, node);
	if (!json_object_get(k->report, "monitor"))
		call(k, AGENT_MONITOR, on_monitor);
	else if (k->list && !json_object_get(k->report, "plugs_text"))
		call(k, AGENT_LIST, on_list);
	else if (node)
		call(k, AGENT_STATUS, on_status);
	else {
		json_object_set_new(k->report, "ok", json_boolean(k->ok));
		k->fn(k->arg, k->report);
	}
}

struct power_look *power_look_start(struct loop *loop, const json_t *device, const char *dirs, bool list,
				    power_look_fn *fn, void *arg)
{
	struct power_look *k = xcalloc(1, sizeof(*k));
	const char *node;
	json_t *value;

	*k = (struct power_look){
		.loop = loop, .device = json_incref((json_t *)device), .list = list, .fn = fn, .arg = arg};
	k->dirs = dirs ? xstrdup(dirs) : NULL;
	k->nodes = json_array();
	json_object_foreach (json_object_get(device, "nodes"), node, value)
		json_array_append_new(k->nodes, json_string(node));
	k->report = json_pack("{s:O, s:O, s:b, s:n, s:[]}", "device", json_object_get(device, "name"), "agent",
			      json_object_get(device, "agent"), "ok", 0, "plugs", "nodes");
	k->next = loop_timer_add(loop, 0, 0, look_step, k);
	return k;
}

void power_look_free(struct power_look *k)
{
	if (!k)
		return;
	agent_call_free(k->call);
	loop_timer_free(k->next);
	json_decref(k->sw.device);
	json_decref(k->device);
	json_decref(k->nodes);
	json_decref(k->report);
	free(k->dirs);
	free(k);
}
