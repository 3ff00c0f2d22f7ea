/* SPDX-License-Identifier: Apache-2.0 */
/* The input of placement: nodes by their reports, guests by their rows, rules and limits by the settings.
 *
 * What a report leaves out is taken for good rather than bad, as the node itself refuses what it cannot do: a folder
 * of which it says nothing counts as reached (node/folders.c says why). Only a CPU is never guessed at: a guest that
 * met another one would die later, when nobody looks.
 */
#include "node/place.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "hv/baseline.h"

struct place {
	struct placement_input in;
	void **owned; /* memory and JSON that the input points to */
	size_t n_owned;
	json_t *kept;
};

/* Have @ptr freed with @p. */
static void *own(struct place *p, void *ptr)
{
	void **grown = realloc(p->owned, (p->n_owned + 1) * sizeof(*grown));

	if (!grown)
		abort();
	p->owned = grown;
	p->owned[p->n_owned++] = ptr;
	return ptr;
}

static const char *text_of(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

/* @key of @o as a number that is not negative. */
static uint64_t number_of(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return json_is_integer(v) && json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v) : 0;
}

/* The texts of @list, ending with NULL; @first in front when not NULL. Never NULL. */
static const char *const *texts_of(struct place *p, const char *first, const json_t *list)
{
	const char **texts = own(p, xcalloc(json_array_size(list) + 2, sizeof(*texts)));
	size_t n = 0;

	if (first)
		texts[n++] = first;
	for (size_t i = 0; i < json_array_size(list); i++)
		if (json_is_string(json_array_get(list, i)))
			texts[n++] = json_string_value(json_array_get(list, i));
	return texts;
}

/* ---- nodes ---- */

/* What "host" means on a node: two of a kind give a guest the same CPU. NULL: it has not said. */
static const char *cpu_kind(struct place *p, const json_t *cpu)
{
	const json_t *features = json_object_get(cpu, "features");
	const char *vendor = text_of(cpu, "vendor");
	uint64_t hash = 0;

	if (!vendor || !json_is_array(features))
		return NULL;
	for (size_t i = 0; i < json_array_size(features); i++) {
		const char *name = json_string_value(json_array_get(features, i));

		hash = name ? XXH64(name, strlen(name), hash) : hash;
	}
	return own(p, xasprintf("%s with %zu features, %08" PRIx32, vendor, json_array_size(features), (uint32_t)hash));
}

/* Whether a list of versioned models has @model, or what it stands for when it names no version. */
static bool names_model(const json_t *models, const char *model)
{
	_free_ char *first = xasprintf("%s-v1", model);
	size_t n = json_array_size(models);

	for (size_t i = 0; i < n; i++) {
		const char *name = json_string_value(json_array_get(models, i));

		if (name && (!strcmp(name, model) || !strcmp(name, first)))
			return true;
	}
	return false;
}

/* Every feature of @model must be there. Until this host knows the catalogue, seconds after its start, it is enough
 * that the node's QEMU knows the model. */
static bool runs_model(const struct place_facts *f, const char *model, const json_t *cpu)
{
	json_t *lacks = NULL;
	bool runs;

	runs = f->catalogue ? baseline_lacks(f->catalogue, model, cpu, &lacks, NULL) == 0 && !json_array_size(lacks)
			    : names_model(json_object_get(cpu, "models"), model);
	json_decref(lacks);
	return runs;
}

/* The models that a node runs, of those that guests ask for. */
static const char *const *models_of(struct place *p, const struct place_facts *f, const json_t *wants,
				    const json_t *cpu)
{
	const char **texts = own(p, xcalloc(json_array_size(wants) + 1, sizeof(*texts)));
	size_t n = 0;

	for (size_t i = 0; cpu && i < json_array_size(wants); i++) {
		const char *want = json_string_value(json_array_get(wants, i));
		char *model = want ? own(p, xasprintf("%.*s", (int)strcspn(want, ","), want)) : NULL;

		if (model && runs_model(f, model, cpu))
			texts[n++] = model;
	}
	return texts;
}

static const struct placement_unreached *unreached_of(struct place *p, const json_t *folders)
{
	struct placement_unreached *list = own(p, xcalloc(json_object_size(folders) + 1, sizeof(*list)));
	const char *folder;
	json_t *why;
	size_t n = 0;

	json_object_foreach ((json_t *)folders, folder, why)
		if (json_is_string(why))
			list[n++] = (struct placement_unreached){.folder = folder, .why = json_string_value(why)};
	return list;
}

static bool is_up(const struct place_facts *f, const json_t *node)
{
	const json_t *reported = json_object_get(node, "reported");

	return json_is_integer(reported) && f->now_ms - json_integer_value(reported) < PLACE_REPORT_MS &&
	       f->present(f->present_arg, (uint32_t)number_of(node, "id"));
}

static void node_read(struct place *p, const struct place_facts *f, const json_t *cpus, const json_t *node,
		      struct placement_node *ret)
{
	const json_t *report = json_object_get(node, "report"), *memory = json_object_get(report, "memory");
	const json_t *host = json_object_get(report, "cpu");
	double load = json_number_value(json_object_get(report, "load"));

	*ret = (struct placement_node){
		.name = text_of(node, "name"),
		.up = is_up(f, node),
		.aside = text_of(node, "aside"),
		.memory_total = number_of(memory, "total"),
		.memory_free = number_of(memory, "free"),
		.cores = (unsigned)number_of(report, "cpus"),
		.cpu_kind = cpu_kind(p, host),
		.models = models_of(p, f, cpus, json_is_object(host) ? host : NULL),
		.features = texts_of(p, NULL, json_object_get(host, "features")),
		.networks = texts_of(p, NULL, json_object_get(report, "networks")),
		.unreached = unreached_of(p, json_object_get(report, "unreached")),
	};
	if (ret->cores && load > 0)
		ret->load_permille = (unsigned)(load * 1000 / ret->cores);
}

static void nodes_read(struct place *p, const struct place_facts *f, const json_t *cpus)
{
	size_t n = json_array_size(f->nodes);
	struct placement_node *nodes = own(p, xcalloc(n + 1, sizeof(*nodes)));

	for (size_t i = 0; i < n; i++)
		node_read(p, f, cpus, json_array_get(f->nodes, i), &nodes[i]);
	p->in.nodes = nodes;
	p->in.n_nodes = n;
}

/* ---- guests ---- */

/* Where a guest is on its way to; NULL. Once its new owner has it, it has arrived. */
static const char *destination_of(const json_t *migrations, const json_t *vm)
{
	const char *id = text_of(vm, "migration"), *owner = text_of(vm, "owner");

	for (size_t i = 0; id && i < json_array_size(migrations); i++) {
		const json_t *m = json_array_get(migrations, i);
		const char *dst = text_of(m, "dst"), *its = text_of(m, "id");

		if (its && dst && !strcmp(its, id))
			return owner && !strcmp(owner, dst) ? NULL : dst;
	}
	return NULL;
}

/* Runs, shall run, or is not known to be down. */
static bool is_running(const json_t *vm)
{
	const char *intent = text_of(vm, "intent"), *status = text_of(vm, "status");

	if (intent && !strcmp(intent, "running"))
		return true;
	return status && strcmp(status, "stopped") != 0 && strcmp(status, "failed") != 0;
}

static void vms_read(struct place *p, const struct place_facts *f)
{
	size_t n = json_array_size(f->vms);
	struct placement_vm *vms = own(p, xcalloc(n + 1, sizeof(*vms)));

	for (size_t i = 0; i < n; i++) {
		const json_t *vm = json_array_get(f->vms, i);

		vms[i] = (struct placement_vm){
			.name = text_of(vm, "name"),
			.owner = text_of(vm, "owner"),
			.to = destination_of(f->migrations, vm),
			.running = is_running(vm),
			.memory = number_of(vm, "memory"),
			.vcpus = (unsigned)number_of(vm, "vcpus"),
			.dirty_rate = number_of(json_object_get(vm, "detail"), "dirty_rate"),
		};
	}
	p->in.vms = vms;
	p->in.n_vms = n;
}

/* ---- the guest ---- */

static void guest_read(struct place *p, const json_t *d, const char *owner, struct placement_guest *ret)
{
	const json_t *nics = json_object_get(d, "nics"), *disks = json_object_get(d, "disks");
	const char **networks = own(p, xcalloc(json_array_size(nics) + 1, sizeof(*networks)));
	const char **files = own(p, xcalloc(json_array_size(disks) + 4, sizeof(*files)));
	static const char *const more[] = {"uefi-vars", "kernel", "initrd"};
	size_t n = 0;

	for (size_t i = 0; i < json_array_size(nics); i++)
		if ((networks[n] = text_of(json_array_get(nics, i), "network")))
			n++;
	n = 0;
	for (size_t i = 0; i < json_array_size(disks); i++)
		if ((files[n] = text_of(json_array_get(disks, i), "file")))
			n++;
	for (size_t i = 0; i < ARRAY_SIZE(more); i++)
		if ((files[n] = text_of(d, more[i])))
			n++;
	*ret = (struct placement_guest){
		.name = text_of(d, "name"),
		.owner = owner ? own(p, xstrdup(owner)) : NULL,
		.memory = number_of(d, "memory") << 20,
		.vcpus = (unsigned)number_of(d, "vcpus"),
		.cpu = text_of(d, "cpu"),
		.networks = networks,
		.files = files,
	};
	for (size_t i = 0; owner && i < p->in.n_nodes; i++)
		if (!strcmp(p->in.nodes[i].name, owner))
			ret->owner_cpu_kind = p->in.nodes[i].cpu_kind;
}

/* ---- settings ---- */

static const json_t *setting(const struct place_facts *f, const char *key)
{
	for (size_t i = 0; i < json_array_size(f->settings); i++) {
		const json_t *s = json_array_get(f->settings, i);

		if (text_of(s, "key") && !strcmp(text_of(s, "key"), key))
			return json_object_get(s, "value");
	}
	return NULL;
}

static uint64_t setting_number(const struct place_facts *f, const char *key, uint64_t otherwise)
{
	const json_t *v = setting(f, key);

	return json_is_integer(v) && json_integer_value(v) >= 0 ? (uint64_t)json_integer_value(v) : otherwise;
}

static void limits_read(struct place *p, const struct place_facts *f)
{
	p->in.limits = (struct placement_limits){
		.memory_reserve = setting_number(f, PLACE_SETTINGS "reserve-mib", PLACE_RESERVE_MIB) << 20,
		.vcpu_ratio = (unsigned)setting_number(f, PLACE_SETTINGS "vcpu-ratio", PLACE_VCPU_RATIO),
		.wire_rate = setting_number(f, PLACE_SETTING_WIRE, PLACE_WIRE_MBS) * 1000000,
	};
}

static void rules_read(struct place *p, const struct place_facts *f, const struct place_guest *g)
{
	const json_t *list = setting(f, PLACE_SETTINGS "rules");
	struct placement_rule *rules = own(p, xcalloc(json_array_size(list) + 2, sizeof(*rules)));
	size_t n = 0;

	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *r = json_array_get(list, i);

		rules[n++] = (struct placement_rule){
			.name = text_of(r, "name") ? text_of(r, "name") : "without a name",
			.apart = json_is_true(json_object_get(r, "apart")),
			.hard = json_is_true(json_object_get(r, "hard")),
			.vms = texts_of(p, NULL, json_object_get(r, "vms")),
		};
	}
	if (json_array_size(g->near))
		rules[n++] = (struct placement_rule){
			.name = "near", .hard = true, .vms = texts_of(p, p->in.guest.name, g->near)};
	if (json_array_size(g->apart))
		rules[n++] = (struct placement_rule){
			.name = "apart", .apart = true, .hard = true, .vms = texts_of(p, p->in.guest.name, g->apart)};
	p->in.rules = rules;
	p->in.n_rules = n;
}

/* ---- all of it ---- */

static void keep(struct place *p, const json_t *v)
{
	if (v)
		json_array_append(p->kept, (json_t *)v);
}

struct place *place_new(const struct place_facts *f, const struct place_guest *g)
{
	struct place *p = xcalloc(1, sizeof(*p));
	json_t *cpus;

	p->kept = json_array();
	keep(p, f->nodes);
	keep(p, f->vms);
	keep(p, f->migrations);
	keep(p, f->settings);
	keep(p, g->definition);
	keep(p, g->near);
	keep(p, g->apart);
	cpus = f->cpus ? json_incref((json_t *)f->cpus) : json_pack("[s*]", text_of(g->definition, "cpu"));
	nodes_read(p, f, cpus);
	json_decref(cpus);
	vms_read(p, f);
	if (g->definition)
		guest_read(p, g->definition, g->owner, &p->in.guest);
	p->in.guest.dirty_rate = g->dirty_rate;
	limits_read(p, f);
	rules_read(p, f, g);
	return p;
}

void place_free(struct place *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->n_owned; i++)
		free(p->owned[i]);
	free(p->owned);
	json_decref(p->kept);
	free(p);
}

void place_guest_read(struct place *p, json_t *definition, const char *owner, struct placement_guest *ret)
{
	keep(p, definition);
	guest_read(p, definition, owner, ret);
}

const struct placement_input *place_input(const struct place *p)
{
	return &p->in;
}

int place_find(const struct place *p, const char *node, size_t *ret, struct err *e)
{
	for (size_t i = 0; i < p->in.n_nodes; i++)
		if (!strcmp(p->in.nodes[i].name, node)) {
			*ret = i;
			return 0;
		}
	return err_set(e, ERR_NOTFOUND, "vm %s: there is no node %s; `godwit node list` shows those that are there",
		       p->in.guest.name, node);
}
