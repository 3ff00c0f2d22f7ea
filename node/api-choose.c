/* SPDX-License-Identifier: Apache-2.0 */
/* Where a guest goes, for a request that asks for it: placement by what the state has now. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cluster/state.h"
#include "node/api-int.h"
#include "node/place.h"

/* Everything placement looks at, as the state has it now. Free with facts_done(). -1 with @e. */
static int facts_take(struct daemon *d, struct place_facts *ret, struct err *e)
{
	struct sqlite3 *db = replica_db(d->replica);

	api_read_begin(d);
	*ret = (struct place_facts){
		.nodes = state_node_list(db, e),
		.vms = state_vm_list(db, e),
		.migrations = state_migration_list(db, true, e),
		.settings = state_setting_list(db, PLACE_SETTINGS, e),
		.catalogue = d->catalogue,
		.present = d->api->present,
		.present_arg = d->replica,
		.now_ms = clock_wall_ms(),
	};
	api_read_end(d);
	return ret->nodes && ret->vms && ret->migrations && ret->settings ? 0 : -1;
}

static void facts_done(struct place_facts *f)
{
	json_decref((json_t *)f->nodes);
	json_decref((json_t *)f->vms);
	json_decref((json_t *)f->migrations);
	json_decref((json_t *)f->settings);
}

void api_choice_done(struct api_choice *c)
{
	free(c->node);
	json_decref(c->explanation);
}

/* The node that was asked for, if it fits, or else the best one. -1 with @e; @ret may explain all the same. */
static int choose(const struct place *p, const char *asked, struct api_choice *ret, struct err *e)
{
	const struct placement_input *in = place_input(p);
	struct placement_result result;
	size_t chosen = 0;
	int r;

	if (asked && place_find(p, asked, &chosen, e) < 0)
		return -1;
	placement_run(in, &result);
	ret->explanation = placement_json(in, &result);
	ret->wire_rate = in->limits.wire_rate;
	r = asked ? placement_fits(in, &result, chosen, e) : placement_chosen(in, &result, &chosen, e);
	if (r == 0)
		ret->node = xstrdup(in->nodes[chosen].name);
	if (asked)
		json_object_set_new(ret->explanation, "choice", r == 0 ? json_string(asked) : json_null());
	placement_done(&result);
	return r;
}

int api_choose(struct daemon *d, const struct place_guest *g, const char *asked, struct api_choice *ret, struct err *e)
{
	struct place_facts f;
	struct place *p;
	int r;

	*ret = (struct api_choice){0};
	if (facts_take(d, &f, e) < 0) {
		facts_done(&f);
		return -1;
	}
	p = place_new(&f, g);
	r = choose(p, asked, ret, e);
	place_free(p);
	facts_done(&f);
	return r;
}
