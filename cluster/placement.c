/* SPDX-License-Identifier: Apache-2.0 */
/* Placement: which nodes fit a guest, and which of them is best.
 *
 * Theory of operation
 * -------------------
 * A node fits when it can keep every promise to the guest; all reasons against it are collected, not the first. Memory
 * is counted twice. What is promised to guests that run there or are on their way must fit the node's total minus the
 * reserve: guests touch their memory bit by bit, so memory that is free now may be spoken for. And what is really free
 * must hold the guest too: something else than guests may use the node.
 *
 * Among those that fit, the score decides, 1000 points at most:
 *
 *   memory  400  the part of the node's memory that stays unpromised
 *   cpu     150  the part of the allowed vcpus (or, without a limit, of four per core) that stays free
 *   load    150  the part of its cores that was idle lately
 *   moves   200  how fast the node could be emptied afterwards: the dirty-page log tells what each guest writes, and a
 * guest that writes nearly as fast as the wire carries takes long to move. 200 for nothing to move, 100 at MOVES_HALF_S
 * seconds rules   100  an equal part of it for each soft rule that holds
 *
 * Equal scores: fewer guests, then the name. All arithmetic is in whole numbers, so every host comes to the same
 * choice.
 */
#include "cluster/placement.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define POINTS_MEMORY 400
#define POINTS_CPU 150
#define POINTS_LOAD 150
#define POINTS_MOVES 200
#define POINTS_RULES 100
#define MOVES_HALF_S 120
#define VCPUS_PER_CORE 4 /* what counts as full where there is no limit */
#define WIRE_LEFT_PART                                                                                                 \
	10 /* a guest that writes faster than the wire still moves (throttled), at this part of the wire */

const char *const placement_part_names[PLACEMENT_PART_MAX] = {
	[PLACEMENT_MEMORY] = "memory", [PLACEMENT_CPU] = "cpu",     [PLACEMENT_LOAD] = "load",
	[PLACEMENT_MOVES] = "moves",   [PLACEMENT_RULES] = "rules",
};

/* ---- lists of texts ---- */

static void text_add(char ***list, size_t *n, const char *fmt, va_list ap)
{
	char text[512];
	char **grown = xcalloc(*n + 1, sizeof(*grown));

	vsnprintf(text, sizeof(text), fmt, ap);
	if (*n)
		memcpy(grown, *list, *n * sizeof(*grown));
	grown[(*n)++] = xstrdup(text);
	free(*list);
	*list = grown;
}

static void reason(struct placement_verdict *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void reason(struct placement_verdict *v, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	text_add(&v->reasons, &v->n_reasons, fmt, ap);
	va_end(ap);
}

static void remark(struct placement_verdict *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void remark(struct placement_verdict *v, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	text_add(&v->remarks, &v->n_remarks, fmt, ap);
	va_end(ap);
}

static bool list_has(const char *const *list, const char *s)
{
	for (; list && *list; list++)
		if (!strcmp(*list, s))
			return true;
	return false;
}

/* ---- sums ---- */

/* @a x @b / @c, @c > 0, without overflow. */
static uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 v = (unsigned __int128)a * b / c;

	return v > UINT64_MAX ? UINT64_MAX : (uint64_t)v;
}

static uint64_t add(uint64_t a, uint64_t b)
{
	return a + b < a ? UINT64_MAX : a + b;
}

/* Rounded up, for what is needed. */
static uint64_t mib(uint64_t bytes)
{
	return bytes / (1 << 20) + (bytes % (1 << 20) != 0);
}

/* What the guests of a node have of it. */
struct usage {
	uint64_t memory;
	uint64_t vcpus;
	uint64_t empty_s;
	size_t vms;
};

/* Seconds that a guest's move takes: its memory over what the wire carries beyond what it writes. */
static uint64_t move_s(uint64_t memory, uint64_t dirty_rate, uint64_t wire)
{
	uint64_t least = wire / WIRE_LEFT_PART;
	uint64_t left = wire > dirty_rate && wire - dirty_rate > least ? wire - dirty_rate : least;

	return left ? memory / left + (memory % left != 0) : 0;
}

static bool vm_counts(const struct placement_input *in, const struct placement_vm *vm, const char *node)
{
	if (!vm->running || !strcmp(vm->name, in->guest.name))
		return false;
	return (vm->owner && !strcmp(vm->owner, node)) || (vm->to && !strcmp(vm->to, node));
}

/* Of the guests there, with the candidate. */
static struct usage usage_with_guest(const struct placement_input *in, const char *node)
{
	const struct placement_guest *g = &in->guest;
	struct usage u = {.memory = g->memory,
			  .vcpus = g->vcpus,
			  .empty_s = move_s(g->memory, g->dirty_rate, in->limits.wire_rate)};

	for (size_t i = 0; i < in->n_vms; i++) {
		const struct placement_vm *vm = &in->vms[i];

		if (!vm_counts(in, vm, node))
			continue;
		u.memory = add(u.memory, vm->memory);
		u.vcpus += vm->vcpus;
		u.empty_s = add(u.empty_s, move_s(vm->memory, vm->dirty_rate, in->limits.wire_rate));
		u.vms++;
	}
	return u;
}

/* ---- reasons against a node ---- */

static void judge_memory(const struct placement_input *in, const struct placement_node *n, const struct usage *u,
			 struct placement_verdict *v)
{
	uint64_t need = in->guest.memory, reserve = in->limits.memory_reserve;
	uint64_t usable = n->memory_total > reserve ? n->memory_total - reserve : 0;

	if (u->memory > usable)
		reason(v,
		       "needs %" PRIu64 " MiB, and of %" PRIu64 " MiB for guests %" PRIu64
		       " MiB are promised to %zu others",
		       mib(need), usable >> 20, mib(u->memory - need), u->vms);
	if (need > n->memory_free)
		reason(v, "needs %" PRIu64 " MiB, and %" PRIu64 " MiB are really free", mib(need),
		       n->memory_free >> 20);
}

static void judge_vcpus(const struct placement_input *in, const struct placement_node *n, const struct usage *u,
			struct placement_verdict *v)
{
	uint64_t most = (uint64_t)in->limits.vcpu_ratio * n->cores;

	if (in->guest.vcpus > n->cores)
		remark(v, "has only %u cores for its %u vcpus", n->cores, in->guest.vcpus);
	if (in->limits.vcpu_ratio && u->vcpus > most)
		reason(v, "would carry %" PRIu64 " vcpus, and %u for each of %u cores are allowed", u->vcpus,
		       in->limits.vcpu_ratio, n->cores);
}

/* "MODEL,+feature,-feature,feature=on": the model must be one it runs, and what is added one of its features. */
static void judge_cpu(const struct placement_guest *g, const struct placement_node *n, struct placement_verdict *v)
{
	_free_ char *words = xstrdup(g->cpu ? g->cpu : "");
	char *rest = words, *word = strsep(&rest, ",");

	if (!*word)
		return;
	if (!strcmp(word, "host")) {
		if (g->owner && (!n->cpu_kind || !g->owner_cpu_kind || strcmp(n->cpu_kind, g->owner_cpu_kind) != 0))
			reason(v, "its cpu is \"host\", and this host's (%s) is not of the kind of node %s (%s)",
			       n->cpu_kind ? n->cpu_kind : "unknown", g->owner,
			       g->owner_cpu_kind ? g->owner_cpu_kind : "unknown");
	} else if (!list_has(n->models, word)) {
		reason(v, "cannot run cpu model %s", word);
	}
	while ((word = strsep(&rest, ","))) {
		char *value = strchr(word, '=');

		if (value)
			*value++ = 0;
		if (*word == '-' || (value && strcmp(value, "on") != 0))
			continue;
		word += *word == '+';
		if (*word && !list_has(n->features, word))
			reason(v, "its cpu lacks the feature %s", word);
	}
}

/* What is known of the folder that @file is in; NULL: it is reached, or nobody has looked at it. Folders below others
 * are looked at on their own. */
static const struct placement_unreached *unreached(const struct placement_node *n, const char *file)
{
	const char *slash = strrchr(file, '/');
	size_t len = slash == file ? 1 : slash ? (size_t)(slash - file) : 0;

	for (const struct placement_unreached *u = n->unreached; u && u->folder; u++)
		if (strlen(u->folder) == len && !strncmp(u->folder, file, len))
			return u;
	return NULL;
}

const struct placement_unreached *placement_unreached(const struct placement_guest *g, const struct placement_node *n)
{
	const struct placement_unreached *u = NULL;

	for (const char *const *p = g->files; p && *p && !u; p++)
		u = unreached(n, *p);
	return u;
}

/* Each folder once, however many of its files are the guest's. */
static void judge_files(const struct placement_guest *g, const struct placement_node *n, struct placement_verdict *v)
{
	for (const char *const *p = g->files; p && *p; p++) {
		const struct placement_unreached *u = unreached(n, *p);
		const char *const *before = g->files;

		while (u && before < p && unreached(n, *before) != u)
			before++;
		if (u && before == p)
			reason(v, "does not reach its folder %s: %s", u->folder, u->why);
	}
}

static void judge_reach(const struct placement_guest *g, const struct placement_node *n, struct placement_verdict *v)
{
	for (const char *const *p = g->networks; p && *p; p++)
		if (!list_has(n->networks, *p))
			reason(v, "has no network %s", *p);
	judge_files(g, n, v);
}

/* ---- rules ---- */

/* A guest of the rule, other than the candidate, that is (@there) or is not on @node; NULL. A guest that is on its way
 * is where it goes. */
static const struct placement_vm *rule_member(const struct placement_input *in, const struct placement_rule *r,
					      const char *node, bool there)
{
	for (size_t i = 0; i < in->n_vms; i++) {
		const struct placement_vm *vm = &in->vms[i];
		const char *at = vm->to ? vm->to : vm->owner;

		if (vm->running && at && strcmp(vm->name, in->guest.name) != 0 && list_has(r->vms, vm->name) &&
		    !strcmp(at, node) == there)
			return vm;
	}
	return NULL;
}

/* Judge all rules of the guest: reasons for hard ones, remarks for soft ones. Points for the latter. */
static unsigned judge_rules(const struct placement_input *in, const struct placement_node *n,
			    struct placement_verdict *v)
{
	unsigned soft = 0, kept = 0;

	for (size_t i = 0; i < in->n_rules; i++) {
		const struct placement_rule *r = &in->rules[i];
		const struct placement_vm *other;

		if (!list_has(r->vms, in->guest.name))
			continue;
		other = rule_member(in, r, n->name, r->apart);
		soft += !r->hard;
		kept += !r->hard && !other;
		if (!other)
			continue;
		if (r->apart)
			(r->hard ? reason : remark)(v, "rule %s keeps it apart from vm %s, which is here", r->name,
						    other->name);
		else
			(r->hard ? reason : remark)(v, "rule %s keeps it with vm %s, which is on node %s", r->name,
						    other->name, other->to ? other->to : other->owner);
	}
	return soft ? POINTS_RULES * kept / soft : POINTS_RULES;
}

/* ---- score ---- */

/* @points x the part of @whole that @used leaves. */
static unsigned part_left(unsigned points, uint64_t used, uint64_t whole)
{
	return used < whole ? (unsigned)mul_div(points, whole - used, whole) : 0;
}

static void score(const struct placement_input *in, const struct placement_node *n, const struct usage *u,
		  struct placement_verdict *v)
{
	uint64_t vcpus = (uint64_t)(in->limits.vcpu_ratio ? in->limits.vcpu_ratio : VCPUS_PER_CORE) * n->cores;

	v->parts[PLACEMENT_MEMORY] = part_left(POINTS_MEMORY, u->memory, n->memory_total);
	v->parts[PLACEMENT_CPU] = part_left(POINTS_CPU, u->vcpus, vcpus);
	v->parts[PLACEMENT_LOAD] = part_left(POINTS_LOAD, n->load_permille, 1000);
	v->parts[PLACEMENT_MOVES] = (unsigned)mul_div(POINTS_MOVES, MOVES_HALF_S, add(MOVES_HALF_S, u->empty_s));
	for (int i = 0; i < PLACEMENT_PART_MAX; i++)
		v->score += v->parts[i];
}

static void judge(const struct placement_input *in, const struct placement_node *n, struct placement_verdict *v)
{
	struct usage u = usage_with_guest(in, n->name);

	v->empty_s = u.empty_s;
	v->vms = u.vms;
	if (!n->up)
		reason(v, "is not up");
	if (n->maintenance)
		reason(v, "is in maintenance");
	if (n->aside)
		reason(v, "is put aside (%s)", n->aside);
	if (in->guest.owner && !strcmp(in->guest.owner, n->name))
		reason(v, "has it already");
	judge_memory(in, n, &u, v);
	judge_vcpus(in, n, &u, v);
	judge_cpu(&in->guest, n, v);
	judge_reach(&in->guest, n, v);
	v->parts[PLACEMENT_RULES] = judge_rules(in, n, v);
	v->fit = v->n_reasons == 0;
	score(in, n, &u, v);
}

static void texts_free(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

bool placement_suits(const struct placement_guest *g, const struct placement_node *n)
{
	struct placement_verdict v = {0};

	judge_cpu(g, n, &v);
	judge_reach(g, n, &v);
	texts_free(v.reasons, v.n_reasons);
	return v.n_reasons == 0;
}

static bool better(const struct placement_input *in, const struct placement_result *r, size_t a, size_t b)
{
	const struct placement_verdict *va = &r->nodes[a], *vb = &r->nodes[b];

	if (va->score != vb->score)
		return va->score > vb->score;
	if (va->vms != vb->vms)
		return va->vms < vb->vms;
	return strcmp(in->nodes[a].name, in->nodes[b].name) < 0;
}

void placement_run(const struct placement_input *in, struct placement_result *ret)
{
	struct placement_result r = {.n_nodes = in->n_nodes, .choice = -1};

	r.nodes = xcalloc(in->n_nodes, sizeof(*r.nodes));
	for (size_t i = 0; i < in->n_nodes; i++) {
		judge(in, &in->nodes[i], &r.nodes[i]);
		if (r.nodes[i].fit && (r.choice < 0 || better(in, &r, i, (size_t)r.choice)))
			r.choice = (int)i;
	}
	*ret = r;
}

void placement_done(struct placement_result *r)
{
	for (size_t i = 0; i < r->n_nodes; i++) {
		texts_free(r->nodes[i].reasons, r->nodes[i].n_reasons);
		texts_free(r->nodes[i].remarks, r->nodes[i].n_remarks);
	}
	free(r->nodes);
	*r = (struct placement_result){.choice = -1};
}

/* ---- saying it ---- */

/* "n1: a, b; " at the end of @text, as far as there is room. */
static void say_reasons(const char *node, const struct placement_verdict *v, char *text, size_t size)
{
	size_t used = strlen(text);

	snprintf(text + used, size - used, "%snode %s ", used ? "; " : "", node);
	for (size_t i = 0; i < v->n_reasons; i++) {
		used = strlen(text);
		snprintf(text + used, size - used, "%s%s", i ? ", " : "", v->reasons[i]);
	}
}

int placement_fits(const struct placement_input *in, const struct placement_result *r, size_t node, struct err *e)
{
	char text[ERR_TEXT_MAX / 2] = "";

	if (r->nodes[node].fit)
		return 0;
	say_reasons(in->nodes[node].name, &r->nodes[node], text, sizeof(text));
	return err_set(e, ERR_CONFLICT, "vm %s: %s; choose another node", in->guest.name, text);
}

int placement_chosen(const struct placement_input *in, const struct placement_result *r, size_t *ret, struct err *e)
{
	char text[ERR_TEXT_MAX - 128] = "";

	if (r->choice >= 0) {
		*ret = (size_t)r->choice;
		return 0;
	}
	for (size_t i = 0; i < r->n_nodes; i++)
		say_reasons(in->nodes[i].name, &r->nodes[i], text, sizeof(text));
	return err_set(e, ERR_CONFLICT, "vm %s: no node fits: %s", in->guest.name, *text ? text : "there is none");
}

static json_t *texts_json(char *const *list, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_string(list[i]));
	return a;
}

json_t *placement_json(const struct placement_input *in, const struct placement_result *r)
{
	json_t *nodes = json_array();

	for (size_t i = 0; i < r->n_nodes; i++) {
		const struct placement_verdict *v = &r->nodes[i];
		json_t *parts = json_object();

		for (int p = 0; p < PLACEMENT_PART_MAX; p++)
			json_object_set_new(parts, placement_part_names[p], json_integer(v->parts[p]));
		json_array_append_new(nodes, json_pack("{s:s, s:b, s:o, s:o, s:i, s:o, s:I}", "node", in->nodes[i].name,
						       "fits", v->fit, "reasons", texts_json(v->reasons, v->n_reasons),
						       "remarks", texts_json(v->remarks, v->n_remarks), "score",
						       (int)v->score, "parts", parts, "empty_s",
						       v->empty_s < INT64_MAX ? (json_int_t)v->empty_s : INT64_MAX));
	}
	return json_pack("{s:s?, s:o}", "choice", r->choice >= 0 ? in->nodes[r->choice].name : NULL, "nodes", nodes);
}
