/* SPDX-License-Identifier: Apache-2.0 */
/* Devices and levels: judged when they are configured, and made into a plan for one host. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "fencing/power-int.h"

#define NAME_BYTES 64
#define PLUG_BYTES 256
#define NODES_MAX 64
#define DELAY_MAX_MS 60000
#define TIMEOUT_MIN_MS 500
#define TIMEOUT_MAX_MS 120000
#define ATTEMPTS_MAX 5
#define PRIORITY_MAX 1000
#define NAMES "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"

static const char *text_at(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

static bool name_ok(const char *name)
{
	size_t n = name ? strlen(name) : 0;

	return n > 0 && n <= NAME_BYTES && strspn(name, NAMES) == n;
}

/* ---- a device ---- */

static int keys_known(const json_t *o, const char *const *keys, const char *what, struct err *e)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)o, key, value) {
		const char *near;
		size_t i = 0;

		while (keys[i] && strcmp(keys[i], key) != 0)
			i++;
		if (keys[i])
			continue;
		near = text_nearest(key, keys);
		return err_set(e, ERR_INPUT, "%s has no field \"%.64s\"%s%s%s", what, key,
			       near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
	}
	return 0;
}

/* A whole number at @key, @fallback when there is none. */
static int number_at(const json_t *o, const char *key, json_int_t min, json_int_t max, json_int_t fallback,
		     json_int_t *ret, struct err *e)
{
	const json_t *v = json_object_get(o, key);

	*ret = v ? json_integer_value(v) : fallback;
	if (v && (!json_is_integer(v) || *ret < min || *ret > max))
		return err_set(e, ERR_INPUT,
			       "%s must be a whole number from %" JSON_INTEGER_FORMAT " to %" JSON_INTEGER_FORMAT, key,
			       min, max);
	return 0;
}

static int plug_check(const char *plug, const char *node, const char *agent, const json_t *metadata, struct err *e)
{
	bool required;
	const char *option = agent_metadata_plug(metadata, &required);

	if (plug && !option)
		return err_set(e, ERR_INPUT, "%s has no plugs, so node %.64s must have none: give null", agent, node);
	if (!plug && required)
		return err_set(e, ERR_INPUT, "%s must be told which plug is that of node %.64s", agent, node);
	if (plug && (!plug[0] || strlen(plug) > PLUG_BYTES || strpbrk(plug, "\r\n") || strchr(" \t", plug[0]) ||
		     strchr(" \t", plug[strlen(plug) - 1])))
		return err_set(e, ERR_INPUT,
			       "the plug of node %.64s must be 1 to %d bytes in one line, without blanks at its ends",
			       node, PLUG_BYTES);
	return 0;
}

/* The normal form of one entry of "nodes"; NULL with @e. */
static json_t *outlet_check(const char *node, const json_t *given, json_int_t delay_ms, const char *agent,
			    const json_t *metadata, struct err *e)
{
	static const char *const keys[] = {"plug", "delay_ms", NULL};
	const json_t *plug = json_is_object(given) ? json_object_get(given, "plug") : given;

	if (!name_ok(node)) {
		err_set(e, ERR_INPUT, "\"%.64s\" is no name of a node", node);
		return NULL;
	}
	if (json_is_object(given) && (keys_known(given, keys, "a node of a device", e) < 0 ||
				      number_at(given, "delay_ms", 0, DELAY_MAX_MS, delay_ms, &delay_ms, e) < 0)) {
		err_wrap(e, "node %s", node);
		return NULL;
	}
	if (plug && !json_is_null(plug) &&
	    (!json_is_string(plug) || json_string_length(plug) != strlen(json_string_value(plug)))) {
		err_set(e, ERR_INPUT, "the plug of node %s must be text, or null for an agent that needs none", node);
		return NULL;
	}
	if (plug_check(json_string_value(plug), node, agent, metadata, e) < 0)
		return NULL;
	return json_pack("{s:s?, s:I}", "plug", json_string_value(plug), "delay_ms", delay_ms);
}

/* Two nodes at one plug would both go off. */
static int outlets_apart(const json_t *nodes, struct err *e)
{
	const char *a, *b;
	json_t *va, *vb;

	json_object_foreach ((json_t *)nodes, a, va)
		json_object_foreach ((json_t *)nodes, b, vb) {
			const char *pa = text_at(va, "plug"), *pb = text_at(vb, "plug");

			if (strcmp(a, b) >= 0)
				continue;
			if (pa && pb && !strcmp(pa, pb))
				return err_set(
					e, ERR_INPUT,
					"plug %.64s is that of %s and of %s: to switch one off would switch off both",
					pa, a, b);
			if (!pa || !pb)
				return err_set(e, ERR_INPUT,
					       "without plugs this device switches one node, not both %s and %s: make "
					       "a device of each",
					       a, b);
		}
	return 0;
}

static json_t *outlets_check(const json_t *given, json_int_t delay_ms, const char *agent, const json_t *metadata,
			     struct err *e)
{
	json_t *nodes = json_object(), *value;
	const char *node;
	int r = 0;

	if (!json_is_object(given) || json_object_size(given) == 0 || json_object_size(given) > NODES_MAX)
		r = err_set(e, ERR_INPUT,
			    "nodes must be an object of the nodes that it switches and their plugs, such as {\"n1\": "
			    "\"3\"}");
	json_object_foreach ((json_t *)given, node, value) {
		json_t *outlet = r < 0 ? NULL : outlet_check(node, value, delay_ms, agent, metadata, e);

		if (!outlet) {
			r = -1;
			break;
		}
		json_object_set_new(nodes, node, outlet);
	}
	if (r == 0 && outlets_apart(nodes, e) == 0)
		return nodes;
	json_decref(nodes);
	return NULL;
}

static int device_check(const json_t *given, const json_t *metadata, json_t **ret, struct err *e)
{
	static const char *const keys[] = {"name",     "agent",    "options",     "nodes",   "priority", "timeout_ms",
					   "attempts", "delay_ms", "plug_option", "secrets", NULL};
	const char *agent = text_at(metadata, "name");
	json_int_t priority, timeout_ms, attempts, delay_ms;
	json_t *options, *nodes;
	bool required;

	if (keys_known(given, keys, "a fence device", e) < 0 ||
	    number_at(given, "priority", 0, PRIORITY_MAX, 0, &priority, e) < 0 ||
	    number_at(given, "timeout_ms", TIMEOUT_MIN_MS, TIMEOUT_MAX_MS, POWER_TIMEOUT_MS, &timeout_ms, e) < 0 ||
	    number_at(given, "attempts", 1, ATTEMPTS_MAX, POWER_ATTEMPTS, &attempts, e) < 0 ||
	    number_at(given, "delay_ms", 0, DELAY_MAX_MS, 0, &delay_ms, e) < 0 ||
	    agent_metadata_usable(metadata, e) < 0)
		return -1;
	nodes = outlets_check(json_object_get(given, "nodes"), delay_ms, agent, metadata, e);
	options = nodes ? agent_options_check(metadata, json_object_get(given, "options"), e) : NULL;
	if (!options) {
		json_decref(nodes);
		return -1;
	}
	*ret = json_pack("{s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:s?, s:o}", "name", text_at(given, "name"), "agent",
			 agent, "options", options, "nodes", nodes, "priority", priority, "timeout_ms", timeout_ms,
			 "attempts", attempts, "plug_option", agent_metadata_plug(metadata, &required), "secrets",
			 agent_metadata_secrets(metadata));
	return 0;
}

json_t *power_device_check(const json_t *given, const json_t *metadata, struct err *e)
{
	const char *name = text_at(given, "name");
	json_t *device = NULL;

	if (!json_is_object(given) || !name_ok(name)) {
		err_set(e, ERR_INPUT, "a fence device needs a name: 1 to %d letters, digits, '-', '_' and '.'",
			NAME_BYTES);
		return NULL;
	}
	if (device_check(given, metadata, &device, e) < 0)
		err_wrap(e, "fence device %s", name);
	return device;
}

json_t *power_device_mask(const json_t *device)
{
	json_t *copy = json_copy((json_t *)device);
	const json_t *options = json_object_get(device, "options");

	if (json_is_object(options))
		json_object_set_new(copy, "options", agent_options_mask(options, json_object_get(device, "secrets")));
	return copy;
}

/* ---- a plan ---- */

struct power_switch power_switch_of(const json_t *device, const char *node)
{
	const json_t *outlet = json_object_get(json_object_get(device, "nodes"), node);

	return (struct power_switch){
		.device = json_incref((json_t *)device),
		.name = text_at(device, "name"),
		.agent = text_at(device, "agent"),
		.plug = text_at(outlet, "plug"),
		.delay_ms = json_integer_value(json_object_get(outlet, "delay_ms")),
		.timeout_ms = json_integer_value(json_object_get(device, "timeout_ms")),
		.attempts = (unsigned)json_integer_value(json_object_get(device, "attempts")),
	};
}

struct agent_call *power_switch_call(const struct power_switch *s, struct loop *loop, const char *dirs,
				     enum agent_action action, int64_t timeout_ns, agent_end_fn *fn, void *arg,
				     struct err *e)
{
	struct agent_call_spec spec = {
		.dirs = dirs,
		.agent = s->agent,
		.action = action,
		.options = json_object_get(s->device, "options"),
		.secrets = json_object_get(s->device, "secrets"),
		.plug_option = text_at(s->device, "plug_option"),
		.plug = s->plug,
		.timeout_ns = s->timeout_ms * NS_PER_MS < timeout_ns ? s->timeout_ms * NS_PER_MS : timeout_ns,
	};

	return agent_call_start(loop, &spec, fn, arg, e);
}

static bool device_has(const json_t *device, const char *node)
{
	return json_object_get(json_object_get(device, "nodes"), node) != NULL;
}

static const json_t *device_find(const json_t *devices, const char *name)
{
	size_t i;
	json_t *d;

	json_array_foreach (devices, i, d)
		if (!strcmp(text_at(d, "name"), name))
			return d;
	return NULL;
}

static int level_add(struct power_plan *p, const json_t *names, const json_t *devices, struct err *e)
{
	struct power_level *level = &p->levels[p->n];
	size_t i;
	json_t *n;

	if (!json_is_array(names) || json_array_size(names) == 0 || json_array_size(names) > POWER_LEVEL_DEVICES_MAX)
		return err_set(e, ERR_INPUT, "must be a list of 1 to %d devices", POWER_LEVEL_DEVICES_MAX);
	p->n++;
	json_array_foreach (names, i, n) {
		const char *name = json_string_value(n);
		const json_t *d = name ? device_find(devices, name) : NULL;

		if (!d)
			return err_set(e, ERR_INPUT, "there is no fence device \"%.64s\"", name ? name : "");
		if (!device_has(d, p->node))
			return err_set(e, ERR_INPUT, "fence device %s does not switch it: add it to the device's nodes",
				       name);
		for (size_t k = 0; k < level->n; k++)
			if (!strcmp(level->switches[k].name, name))
				return err_set(e, ERR_INPUT, "fence device %s is there twice", name);
		level->switches[level->n++] = power_switch_of(d, p->node);
	}
	return 0;
}

static int plan_by_levels(struct power_plan *p, const json_t *levels, const json_t *devices, struct err *e)
{
	size_t i;
	json_t *names;

	if (!json_is_array(levels) || json_array_size(levels) == 0 || json_array_size(levels) > POWER_LEVELS_MAX)
		return err_set(e, ERR_INPUT, "node %s: there must be 1 to %d levels", p->node, POWER_LEVELS_MAX);
	json_array_foreach (levels, i, names)
		if (level_add(p, names, devices, e) < 0)
			return err_wrap(e, "node %s, level %zu", p->node, i + 1);
	return 0;
}

/* The highest priority first, then by name. */
static int before(const void *a, const void *b)
{
	const json_t *da = *(json_t *const *)a, *db = *(json_t *const *)b;
	json_int_t pa = json_integer_value(json_object_get(da, "priority"));
	json_int_t pb = json_integer_value(json_object_get(db, "priority"));

	return pa != pb ? (pa < pb) - (pa > pb) : strcmp(text_at(da, "name"), text_at(db, "name"));
}

static int plan_by_priority(struct power_plan *p, const json_t *devices, struct err *e)
{
	size_t i, n = 0;
	_free_ json_t **mine = xcalloc(json_array_size(devices) + 1, sizeof(json_t *));
	json_t *d;

	json_array_foreach (devices, i, d)
		if (device_has(d, p->node))
			mine[n++] = d;
	if (n == 0)
		return err_set(e, ERR_NOTFOUND, "no fence device switches node %s: add one, or add the node to one",
			       p->node);
	qsort(mine, n, sizeof(json_t *), before); /* NOLINT(bugprone-sizeof-expression): of pointers, it is */
	for (i = 0; i < n && i < POWER_LEVELS_MAX; i++) {
		p->levels[p->n].switches[0] = power_switch_of(mine[i], p->node);
		p->levels[p->n++].n = 1;
	}
	return 0;
}

struct power_plan *power_plan_new(const json_t *devices, const json_t *levels, const char *node, struct err *e)
{
	struct power_plan *p = xcalloc(1, sizeof(*p));
	int r;

	p->node = xstrdup(node);
	r = levels && !json_is_null(levels) ? plan_by_levels(p, levels, devices, e) : plan_by_priority(p, devices, e);
	if (r == 0)
		return p;
	power_plan_free(p);
	return NULL;
}

void power_plan_free(struct power_plan *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->n; i++)
		for (size_t k = 0; k < p->levels[i].n; k++)
			json_decref(p->levels[i].switches[k].device);
	free(p->node);
	free(p);
}
