/* SPDX-License-Identifier: Apache-2.0 */
/* Switching hosts over the API: off, on, off and on again; and taking back one that was put aside. */
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "node/api-int.h"

static void on_switched(void *arg, const struct power_end *end)
{
	struct api_write *w = arg;
	struct err e = ERR_INIT;

	if (end->result == POWER_CONFIRMED) {
		api_reply(w, 200,
			  json_pack("{s:s, s:s, s:i, s:b, s:s}", "node", w->object, "result",
				    power_result_names[end->result], "level", (int)end->level, "powered_on",
				    end->powered_on, "text", end->text));
		return;
	}
	err_set(&e, ERR_PEER, "node %s: %s: %s", w->object,
		end->result == POWER_UNKNOWN ? "nothing proves what its power is now; look, or try again"
					     : "its power was not switched",
		end->text);
	api_reply_err(w, &e);
}

static enum power_action action_of(const char *name)
{
	for (int i = 0; i < POWER_ACTION_MAX; i++)
		if (!strcmp(name, power_action_names[i]))
			return (enum power_action)i;
	return POWER_REBOOT;
}

static void on_node_fence(struct daemon *d, struct http_call *call)
{
	const char *action = api_text(http_call_body(call), "action");
	struct api_write *w = api_write_new(d, call, http_call_param(call, "name"));
	struct err e = ERR_INIT;

	if (!d->fencing)
		err_set(&e, ERR_UNAVAILABLE, "this host does not work as a member yet; ask again in some seconds");
	if (!d->fencing || fencing_request(d->fencing, w->object, action_of(action), on_switched, w, &e) < 0)
		api_reply_err(w, &e);
}

static void answer_activated(struct api_write *w, const json_t *result)
{
	api_reply(w, 200, json_copy((json_t *)result));
}

static void on_node_activate(struct daemon *d, struct http_call *call)
{
	const char *name = http_call_param(call, "name");

	api_propose(api_write_new(d, call, name), "node.aside-clear", NULL, json_pack("{s:s}", "node", name),
		    answer_activated);
}

const struct api_handler api_power_handlers[] = {
	{.operation = "node_fence", .handle = on_node_fence, .object = "name"},
	{.operation = "node_activate", .handle = on_node_activate, .object = "name"},
	{0},
};
