/* SPDX-License-Identifier: Apache-2.0 */
/* Fence devices: from the state to the agents, and to people, who are told no secret. */
#include "node/fence-device.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "fencing/agent.h"
#include "fencing/power.h"

/* Fields that are the same in the state and in power's normal form. */
static const char *const same[] = {"name", "agent", "priority", "timeout_ms", "attempts", "plug_option"};

static void copy_same(json_t *to, const json_t *from)
{
	for (size_t i = 0; i < ARRAY_SIZE(same); i++)
		if (json_object_get(from, same[i]))
			json_object_set(to, same[i], json_object_get(from, same[i]));
}

json_t *fence_device_of_row(const json_t *row)
{
	json_t *device = json_object(), *nodes = json_object(), *plug;
	const char *node;

	copy_same(device, row);
	json_object_foreach (json_object_get(row, "nodes"), node, plug)
		json_object_set_new(
			nodes, node,
			json_pack("{s:O, s:O}", "plug", plug, "delay_ms", json_object_get(row, "delay_ms")));
	json_object_set_new(device, "nodes", nodes);
	json_object_set_new(device, "options", json_copy(json_object_get(row, "options")));
	json_object_set_new(device, "secrets", json_copy(json_object_get(row, "secret")));
	return device;
}

/* Names of options that nobody is to be told. */
static json_t *secret_names(const json_t *options, const json_t *secrets)
{
	json_t *names = json_array(), *value, *name;
	const char *key;
	size_t i;

	json_object_foreach ((json_t *)options, key, value) {
		bool secret = agent_name_is_secret(key);

		json_array_foreach (secrets, i, name)
			secret |= json_is_string(name) && !strcmp(json_string_value(name), key);
		if (secret)
			json_array_append_new(names, json_string(key));
	}
	return names;
}

json_t *fence_device_args(const json_t *device)
{
	json_t *args = json_object(), *nodes = json_object(), *options = json_object_get(device, "options"), *outlet;
	const json_t *delay = NULL;
	const char *node;

	copy_same(args, device);
	if (json_is_null(json_object_get(args, "plug_option")))
		json_object_del(args, "plug_option");
	json_object_foreach (json_object_get(device, "nodes"), node, outlet) {
		json_object_set(nodes, node, json_object_get(outlet, "plug"));
		delay = json_object_get(outlet, "delay_ms");
	}
	if (delay)
		json_object_set(args, "delay_ms", (json_t *)delay);
	json_object_set_new(args, "nodes", nodes);
	json_object_set(args, "options", options);
	json_object_set_new(args, "secret", secret_names(options, json_object_get(device, "secrets")));
	return args;
}

json_t *fence_device_shown(const json_t *row)
{
	json_t *shown = json_copy((json_t *)row);

	json_object_set_new(shown, "options",
			    agent_options_mask(json_object_get(row, "options"), json_object_get(row, "secret")));
	return shown;
}

json_t *fence_device_unmask(const json_t *given, const json_t *row)
{
	json_t *ret = json_copy((json_t *)given);
	const json_t *options = json_object_get(given, "options");

	if (options)
		json_object_set_new(ret, "options", agent_options_unmask(options, json_object_get(row, "options")));
	return ret;
}

/* ---- judging ---- */

struct fence_check {
	json_t *given;
	struct agent_call *call;
	fence_check_fn *fn;
	void *arg;
};

static void check_free(struct fence_check *k)
{
	agent_call_free(k->call);
	json_decref(k->given);
	free(k);
}

static void on_metadata(void *arg, json_t *metadata, const struct err *e)
{
	struct fence_check *k = arg;
	struct err why = ERR_INIT;
	json_t *device = NULL;

	if (metadata)
		device = power_device_check(k->given, metadata, &why);
	else
		err_set(&why, e->code, "fence device %s: %s", json_string_value(json_object_get(k->given, "name")),
			e->text);
	k->fn(k->arg, device, device ? NULL : &why);
	json_decref(device);
	check_free(k);
}

struct fence_check *fence_check_start(struct loop *loop, const char *dirs, json_t *given, fence_check_fn *fn, void *arg,
				      struct err *e)
{
	struct fence_check *k = xcalloc(1, sizeof(*k));

	*k = (struct fence_check){.given = json_incref(given), .fn = fn, .arg = arg};
	k->call = agent_metadata_start(loop, dirs, json_string_value(json_object_get(given, "agent")),
				       FENCE_METADATA_MS * NS_PER_MS, on_metadata, k, e);
	if (k->call)
		return k;
	err_wrap(e, "fence device %s", json_string_value(json_object_get(given, "name")));
	check_free(k);
	return NULL;
}
