/* SPDX-License-Identifier: Apache-2.0 */
/* High availability over the API: what is to be done for a guest when it or its host dies. */
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "node/api-int.h"

void api_vm_add_ha(struct daemon *d, json_t *vm)
{
	json_t *ha = state_ha_get(replica_db(d->replica), api_text(vm, "name"), NULL);

	if (ha) {
		json_object_del(ha, "vm");
		json_object_set_new(vm, "ha", ha);
	}
}

/* Both lists are by name; a guest that was made between two reads has none. */
void api_vms_add_ha(struct daemon *d, json_t *vms)
{
	json_t *list = state_ha_list(replica_db(d->replica), NULL), *vm, *ha;
	size_t i, k = 0;

	json_array_foreach (vms, i, vm) {
		while ((ha = json_array_get(list, k)) && strcmp(api_text(ha, "vm"), api_text(vm, "name")) < 0)
			k++;
		if (!ha || strcmp(api_text(ha, "vm"), api_text(vm, "name")) != 0)
			continue;
		json_object_del(ha, "vm");
		json_object_del(ha, "restarts"); /* of one guest they are in its own answer */
		json_object_set(vm, "ha", ha);
		k++;
	}
	json_decref(list);
}

void api_vms_add_waiting(struct daemon *d, json_t *vms)
{
	json_t *waiting = d->ha ? ha_manager_waiting(d->ha) : NULL, *vm, *why;
	size_t i;

	json_array_foreach (json_object_size(waiting) ? vms : NULL, i, vm) {
		why = json_object_get(waiting, api_text(vm, "name"));
		if (why)
			json_object_set(vm, "waiting", why);
	}
	json_decref(waiting);
}

static json_t *ha_get(struct daemon *d, const struct http_call *call, struct err *e)
{
	return state_ha_get(replica_db(d->replica), http_call_param(call, "name"), e);
}

static void answer_ha(struct api_write *w, const json_t *result)
{
	json_t *ha = state_ha_get(replica_db(w->d->replica), w->object, NULL);

	api_reply(w, 200, ha ? ha : json_copy((json_t *)result));
}

static void on_ha_set(struct daemon *d, struct http_call *call)
{
	const char *name = http_call_param(call, "name");
	json_t *args = json_copy(http_call_body(call));

	json_object_set_new(args, "name", json_string(name));
	api_propose(api_write_new(d, call, name), "vm.ha", NULL, args, answer_ha);
}

const struct api_handler api_ha_handlers[] = {
	{.operation = "vm_ha_get", .read = ha_get, .object = "name"},
	{.operation = "vm_ha_set", .handle = on_ha_set, .object = "name"},
	{0},
};
