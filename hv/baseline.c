/* SPDX-License-Identifier: Apache-2.0 */
/* CPU baselines.
 *
 * QEMU has query-cpu-model-baseline and -comparison for s390 only, so on x86 it is done by features. One QEMU without a
 * machine tells everything: the expansion of "max" is what this host can give to a guest (under KVM: what CPU, kernel
 * and QEMU all support), the static expansion of a model is what the model wants, and a host can run a model when the
 * second is part of the first. QEMU's own "unavailable-features" says the same (a unit test holds the two together),
 * but only about the host it runs on, while this can be asked about hosts from far away.
 *
 * Only versioned models count: "EPYC" without a version means another CPU with another machine type. Of QEMU's names
 * the ones for 32 bit CPUs are left out, and what QEMU calls deprecated.
 *
 * Makes. Under KVM every guest sees the vendor of its host, whatever model it was given, and a model of one make has
 * features that hosts of the other never have. So a model of a make is offered only where all hosts are of that make;
 * between makes the neutral ones remain, the levels of the x86-64 psABI (hv/cmdline.c spells them out). TCG shows any
 * vendor. QEMU does not tell the make of a model under KVM (it has put the host's there), so it follows from the name.
 *
 * Better means: a higher psABI level, because that is what distributions and compilers ask for; within a level, more
 * features; then the neutral one, then the newer version.
 */
#include "hv/baseline.h"

#include <cpuid.h>
#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/mem.h"
#include "hv/cmdline.h"
#include "hv/qmp.h"

#define PROBE_PATIENCE (30 * NS_PER_S) /* for the whole conversation, on a loaded host */
#define VENDOR_ANY "any"
#define FEATURES_TEXT 200 /* bytes of a list of features in a sentence */

/* What the psABI asks for at each level above the first, by QEMU's names. */
static const char *const level_features[][10] = {
	{"cx16", "lahf-lm", "popcnt", "pni", "sse4.1", "sse4.2", "ssse3"},
	{"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"},
	{"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"},
};

/* Who makes the CPUs whose models begin like this; all others are Intel's. */
static const struct {
	const char *prefix;
	const char *vendor;
} makes[] = {
	{"EPYC", "AuthenticAMD"},   {"Opteron", "AuthenticAMD"}, {"phenom", "AuthenticAMD"},
	{"athlon", "AuthenticAMD"}, {"Dhyana", "HygonGenuine"},  {"YongFeng", "CentaurHauls"},
	{"qemu", VENDOR_ANY},       {"kvm", VENDOR_ANY},         {"x86-64-", VENDOR_ANY},
};

static const char *model_vendor(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(makes); i++)
		if (strncmp(name, makes[i].prefix, strlen(makes[i].prefix)) == 0)
			return makes[i].vendor;
	return "GenuineIntel";
}

/* ---- lists of names: as sorted JSON arrays outside, as JSON objects {name: true} inside ---- */

/* The set behind a list of names; NULL when @list is none. New reference. */
static json_t *set_of(const json_t *list)
{
	json_t *set = json_is_array(list) ? json_object() : NULL;

	for (size_t i = 0; set && i < json_array_size(list); i++) {
		const char *name = json_string_value(json_array_get(list, i));

		if (!name) {
			json_decref(set);
			return NULL;
		}
		json_object_set_new(set, name, json_true());
	}
	return set;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The sorted list of a set's names. New reference. */
static json_t *list_of(json_t *set)
{
	size_t n = 0;
	const char **names = xcalloc(json_object_size(set) + 1, sizeof(*names));
	json_t *list = json_array(), *value;
	const char *name;

	json_object_foreach (set, name, value)
		names[n++] = name;
	qsort(names, n, sizeof(*names), by_name);
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_string(names[i]));
	free(names);
	return list;
}

/* What is in @a and not in @b. New reference to a set. */
static json_t *set_minus(json_t *a, json_t *b)
{
	json_t *set = json_object(), *value;
	const char *name;

	json_object_foreach (a, name, value)
		if (!json_object_get(b, name))
			json_object_set(set, name, value);
	return set;
}

/* Is all of @a in @b? */
static bool set_within(json_t *a, json_t *b)
{
	const char *name;
	json_t *value;

	json_object_foreach (a, name, value)
		if (!json_object_get(b, name))
			return false;
	return true;
}

/* "a, b, c and 12 more" */
static const char *list_text(const json_t *list, char buf[FEATURES_TEXT])
{
	size_t n = json_array_size(list), used = 0;

	buf[0] = 0;
	for (size_t i = 0; i < n; i++) {
		const char *name = json_string_value(json_array_get(list, i));
		size_t len = strlen(name);

		if (used + len + sizeof(" and 65535 more") > FEATURES_TEXT) {
			snprintf(buf + used, FEATURES_TEXT - used, " and %zu more", n - i);
			break;
		}
		used += (size_t)snprintf(buf + used, FEATURES_TEXT - used, "%s%s", i ? ", " : "", name);
	}
	return buf;
}

/* ---- asking QEMU ---- */

static int qemu_spawn(const char *qemu, enum accel_want want, struct child *ret, int *ret_fd, bool *ret_kvm,
		      struct err *e)
{
	const char *argv[] = {qemu,          "-M",
			      "none",        "-S",
			      "-nodefaults", "-no-user-config",
			      "-display",    "none",
			      "-accel",      NULL,
			      "-chardev",    "socket,id=qmp,fd=3",
			      "-mon",        "chardev=qmp,mode=control",
			      "-sandbox",    "on,spawn=deny,elevateprivileges=deny",
			      NULL};
	struct child_fd fds[1] = {{-1, 3}};
	struct child_spec spec = {.argv = argv, .fds = fds, .n_fds = 1, .die_with_parent = true};
	struct accel_choice choice;
	struct accel_host host;
	gid_t kvm_gid;
	int pair[2], r;

	accel_probe(geteuid(), getegid(), &host, &kvm_gid);
	if (accel_choose(want, ACCEL_RING_OFF, &host, &choice, e) < 0)
		return -1;
	*ret_kvm = choice.kvm;
	argv[9] = choice.kvm ? "kvm" : "tcg";
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, "socketpair");
	fds[0].from = pair[1];
	r = child_spawn(&spec, ret, e);
	close(pair[1]);
	if (r < 0)
		close(pair[0]);
	else
		*ret_fd = pair[0];
	return r;
}

/* Whether QEMU's @name is a model that a guest may be given and keep: versioned, and 64 bit. */
static bool model_offered(const char *name, const json_t *definition)
{
	static const char *const old[] = {"486-",   "pentium", "coreduo-",  "n270-",  "qemu32-",
					  "kvm32-", "athlon-", "core2duo-", "phenom-"};
	const char *dash = strrchr(name, '-');

	if (!dash || dash[1] != 'v' || !isdigit((unsigned char)dash[2]) ||
	    json_is_true(json_object_get(definition, "deprecated")))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(old); i++)
		if (strncmp(name, old[i], strlen(old[i])) == 0)
			return false;
	return true;
}

/* The features of @model (a name, or a name with changes as -cpu takes them) in full. New reference to a list. */
static json_t *expand(struct qmp *q, const char *model, int64_t deadline_ns, struct err *e)
{
	_free_ char *words = xstrdup(model);
	json_t *props = json_object(), *set = json_object(), *reply = NULL, *list = NULL, *value;
	char *save = NULL, *name = strtok_r(words, ",", &save);
	const char *key;

	for (char *w = strtok_r(NULL, ",", &save); w; w = strtok_r(NULL, ",", &save))
		if (w[0] == '+' || w[0] == '-')
			json_object_set_new(props, w + 1, json_boolean(w[0] == '+'));
	if (qmp_callf(q, deadline_ns, &reply, e, "query-cpu-model-expansion", "{s:s, s:{s:s, s:O}}", "type", "static",
		      "model", "name", name, "props", props) == 0) {
		json_object_foreach (json_object_get(json_object_get(reply, "model"), "props"), key, value)
			if (json_is_true(value))
				json_object_set(set, key, value);
		list = list_of(set);
	}
	json_decref(props);
	json_decref(set);
	json_decref(reply);
	return list;
}

static int catalogue_add(struct qmp *q, json_t *catalogue, const char *name, const char *model, int64_t deadline_ns,
			 struct err *e)
{
	json_t *features = expand(q, model, deadline_ns, e);

	if (!features)
		return err_wrap(e, "CPU model %s", name);
	json_object_set_new(catalogue, name,
			    json_pack("{s:s, s:o}", "vendor", model_vendor(name), "features", features));
	return 0;
}

static int catalogue_read(struct qmp *q, json_t *catalogue, int64_t deadline_ns, struct err *e)
{
	size_t n, i;
	const struct cmdline_cpu_model *own = cmdline_cpu_models(&n);
	json_t *definitions = NULL, *d;
	int r = qmp_call(q, "query-cpu-definitions", NULL, deadline_ns, &definitions, e);

	for (size_t k = 0; r == 0 && k < n; k++)
		r = catalogue_add(q, catalogue, own[k].name, own[k].cpu, deadline_ns, e);
	json_array_foreach (definitions, i, d) {
		const char *name = json_string_value(json_object_get(d, "name"));

		if (r == 0 && name && model_offered(name, d))
			r = catalogue_add(q, catalogue, name, name, deadline_ns, e);
	}
	json_decref(definitions);
	return r;
}

/* The vendor that guests see here. Under KVM it is the CPU's own; QEMU says it only in full expansions, which hold
 * numbers that jansson does not take ("lbr-fmt" is above INT64_MAX). @buf: 13 bytes. */
static const char *host_vendor(bool kvm, char *buf)
{
	unsigned eax = 0, id[3] = {0};

	if (!kvm)
		return VENDOR_ANY;
	__cpuid(0, eax, id[0], id[2], id[1]);
	memcpy(buf, id, 12);
	buf[12] = 0;
	return buf;
}

static int probe_talk(struct qmp *q, bool kvm, json_t **ret_cpu, json_t **ret_catalogue, struct err *e)
{
	int64_t deadline = clock_now_ns() + PROBE_PATIENCE;
	json_t *features = expand(q, "max", deadline, e);
	json_t *catalogue = json_object();
	char vendor[13];

	if (!features || catalogue_read(q, catalogue, deadline, e) < 0) {
		json_decref(features);
		json_decref(catalogue);
		return -1;
	}
	*ret_cpu =
		json_pack("{s:s, s:s, s:i, s:o, s:o}", "accel", kvm ? "kvm" : "tcg", "vendor", host_vendor(kvm, vendor),
			  "qemu", qmp_version(q), "features", features, "models", list_of(catalogue));
	*ret_catalogue = catalogue;
	return 0;
}

int baseline_probe(const char *qemu, enum accel_want accel, json_t **ret_cpu, json_t **ret_catalogue, struct err *e)
{
	struct child c = CHILD_INIT;
	struct qmp *q = NULL;
	bool kvm = false;
	int fd = -1, r;

	if (qemu_spawn(qemu ? qemu : "qemu-system-x86_64", accel, &c, &fd, &kvm, e) < 0)
		return err_wrap(e, "CPU of this host");
	r = qmp_open_fd(fd, "QEMU", clock_now_ns() + PROBE_PATIENCE, &q, e);
	if (r == 0)
		r = probe_talk(q, kvm, ret_cpu, ret_catalogue, e);
	qmp_close(q);
	child_signal(&c, SIGKILL, NULL);
	child_wait(&c, clock_now_ns() + PROBE_PATIENCE, NULL, NULL);
	child_done(&c);
	return r < 0 ? err_wrap(e, "CPU of this host") : 0;
}

/* ---- the pure part ---- */

struct model {
	const char *name; /* borrowed from the catalogue */
	const char *vendor;
	json_t *features; /* set */
	unsigned level;
};

struct host {
	const char *name; /* borrowed */
	const char *vendor;
	json_t *features; /* set */
	json_t *models;   /* set */
};

struct models {
	struct model *list; /* best first */
	size_t n;
};

static unsigned level_of(json_t *features)
{
	unsigned level = 1;

	for (size_t i = 0; i < ARRAY_SIZE(level_features); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(level_features[i]) && level_features[i][k]; k++)
			if (!json_object_get(features, level_features[i][k]))
				return level;
		level++;
	}
	return level;
}

static int by_merit(const void *x, const void *y)
{
	const struct model *a = x, *b = y;
	size_t na = json_object_size(a->features), nb = json_object_size(b->features);

	if (a->level != b->level)
		return a->level > b->level ? -1 : 1;
	if (na != nb)
		return na > nb ? -1 : 1;
	if (strcmp(a->vendor, b->vendor) != 0 &&
	    (strcmp(a->vendor, VENDOR_ANY) == 0 || strcmp(b->vendor, VENDOR_ANY) == 0))
		return strcmp(a->vendor, VENDOR_ANY) == 0 ? -1 : 1;
	return -strverscmp(a->name, b->name);
}

static void models_done(struct models *m)
{
	for (size_t i = 0; i < m->n; i++)
		json_decref(m->list[i].features);
	free(m->list);
}

static int models_read(const json_t *catalogue, struct models *ret, struct err *e)
{
	struct models m = {.list = xcalloc(json_object_size(catalogue) + 1, sizeof(*m.list))};
	const char *name;
	json_t *o;

	json_object_foreach ((json_t *)catalogue, name, o) {
		struct model *x = &m.list[m.n];

		*x = (struct model){.name = name,
				    .vendor = json_string_value(json_object_get(o, "vendor")),
				    .features = set_of(json_object_get(o, "features"))};
		if (!x->vendor || !x->features) {
			json_decref(x->features);
			models_done(&m);
			return err_set(e, ERR_PROTOCOL, "catalogue of CPU models: %s has no vendor or features", name);
		}
		x->level = level_of(x->features);
		m.n++;
	}
	qsort(m.list, m.n, sizeof(*m.list), by_merit);
	*ret = m;
	return 0;
}

static void host_done(struct host *h)
{
	json_decref(h->features);
	json_decref(h->models);
}

static int host_read(const json_t *o, const char *name, struct host *ret, struct err *e)
{
	*ret = (struct host){.name = name,
			     .vendor = json_string_value(json_object_get(o, "vendor")),
			     .features = set_of(json_object_get(o, "features")),
			     .models = set_of(json_object_get(o, "models"))};
	if (ret->vendor && ret->features && ret->models)
		return 0;
	host_done(ret);
	return err_set(e, ERR_PROTOCOL, "host %s has not said what its CPU is", name ? name : "?");
}

struct hosts {
	struct host *list;
	size_t n;
};

static void hosts_done(struct hosts *h)
{
	for (size_t i = 0; i < h->n; i++)
		host_done(&h->list[i]);
	free(h->list);
}

/* @more (may be NULL) is one host beside those of @list. */
static int hosts_read(const json_t *list, const json_t *more, struct hosts *ret, struct err *e)
{
	size_t n = json_array_size(list);
	struct hosts h = {.list = xcalloc(n + 1, sizeof(*h.list))};

	for (size_t i = 0; i < n + (more ? 1 : 0); i++) {
		const json_t *o = i < n ? json_array_get(list, i) : more;
		const char *name = json_string_value(json_object_get(o, "name"));

		if (host_read(json_object_get(o, "cpu"), name, &h.list[i], e) < 0) {
			hosts_done(&h);
			return -1;
		}
		h.n++;
	}
	*ret = h;
	return 0;
}

static bool vendor_fits(const struct model *m, const struct host *h)
{
	return strcmp(m->vendor, VENDOR_ANY) == 0 || strcmp(h->vendor, VENDOR_ANY) == 0 ||
	       strcmp(m->vendor, h->vendor) == 0;
}

static bool host_runs(const struct host *h, const struct model *m)
{
	return vendor_fits(m, h) && json_object_get(h->models, m->name) && set_within(m->features, h->features);
}

/* The best model that all of @n hosts run, or NULL. */
static const struct model *best_of(const struct models *m, const struct host *hosts, size_t n)
{
	for (size_t i = 0; n > 0 && i < m->n; i++) {
		size_t k = 0;

		while (k < n && host_runs(&hosts[k], &m->list[i]))
			k++;
		if (k == n)
			return &m->list[i];
	}
	return NULL;
}

static json_t *name_of(const struct model *m)
{
	return m ? json_string(m->name) : json_null();
}

/* What a definition says for @m: named models do not insist on their features by themselves. New reference. */
static json_t *cpu_of(const struct model *m)
{
	if (!m)
		return json_null();
	return cmdline_cpu(m->name) == m->name ? json_sprintf("%s,enforce", m->name) : json_string(m->name);
}

/* What of @m host @h has not. New reference to a list. */
static json_t *lacks_of(const struct host *h, const struct model *m)
{
	json_t *set = m ? set_minus(m->features, h->features) : json_object();
	json_t *list = list_of(set);

	json_decref(set);
	return list;
}

/* Why @h cannot run @m although it has all its features; NULL when that is not so. New reference. */
static json_t *reason_of(const struct host *h, const struct model *m)
{
	if (!m || host_runs(h, m))
		return NULL;
	if (!vendor_fits(m, h))
		return json_sprintf("its CPU is of another make (%s) than %s (%s)", h->vendor, m->name, m->vendor);
	if (!json_object_get(h->models, m->name))
		return json_sprintf("its QEMU is too old to know %s", m->name);
	return NULL;
}

static json_t *host_result(const struct models *m, const struct host *h, const struct model *best)
{
	json_t *o = json_pack("{s:s?, s:o, s:o}", "name", h->name, "own", name_of(best_of(m, h, 1)), "lacks",
			      lacks_of(h, best));
	json_t *reason = reason_of(h, best);

	if (reason)
		json_object_set_new(o, "reason", reason);
	return o;
}

static json_t *compute(const struct models *m, const struct hosts *h)
{
	const struct model *model = best_of(m, h->list, h->n), *best = NULL;
	json_t *usable = json_array(), *hosts = json_array();

	for (size_t i = 0; i < m->n; i++) {
		struct models one = {&m->list[i], 1};

		if (best_of(&one, h->list, h->n))
			json_array_append_new(usable, json_string(m->list[i].name));
		for (size_t k = 0; !best && k < h->n; k++)
			if (host_runs(&h->list[k], &m->list[i]))
				best = &m->list[i];
	}
	for (size_t i = 0; i < h->n; i++)
		json_array_append_new(hosts, host_result(m, &h->list[i], best));
	return json_pack("{s:o, s:o, s:i, s:o, s:o, s:o}", "model", name_of(model), "cpu", cpu_of(model), "level",
			 model ? (int)model->level : 0, "usable", usable, "best", name_of(best), "hosts", hosts);
}

int baseline_compute(const json_t *catalogue, const json_t *hosts, json_t **ret, struct err *e)
{
	struct models m;
	struct hosts h;
	int r;

	if (models_read(catalogue, &m, e) < 0)
		return -1;
	r = hosts_read(hosts, NULL, &h, e);
	if (r == 0) {
		*ret = compute(&m, &h);
		hosts_done(&h);
	}
	models_done(&m);
	return r;
}

static json_t *cost_text(const char *name, const struct model *now, const struct model *with, const json_t *lost,
			 const json_t *lacks)
{
	char a[FEATURES_TEXT], b[FEATURES_TEXT];

	if (!now)
		return json_sprintf("host %s costs nothing: there is no CPU model that all hosts run now", name);
	if (now == with)
		return json_sprintf("host %s costs nothing: it can run %s too", name, now->name);
	if (!with)
		return json_sprintf("with host %s no CPU model is left that all hosts can run; %s has not: %s", name,
				    name, list_text(lacks, a));
	return json_sprintf(
		"with host %s new guests get %s instead of %s and lose: %s; those that run with %s cannot move "
		"to %s, which has not: %s",
		name, with->name, now->name, list_text(lost, a), now->name, name, list_text(lacks, b));
}

int baseline_cost(const json_t *catalogue, const json_t *hosts, const json_t *host, json_t **ret, struct err *e)
{
	const struct model *now, *with;
	json_t *lost, *set, *lacks;
	struct models m;
	struct hosts h;
	struct host *new;

	if (models_read(catalogue, &m, e) < 0)
		return -1;
	if (hosts_read(hosts, host, &h, e) < 0) {
		models_done(&m);
		return -1;
	}
	new = &h.list[h.n - 1];
	now = best_of(&m, h.list, h.n - 1);
	with = best_of(&m, h.list, h.n);
	set = now && with ? set_minus(now->features, with->features) : json_object();
	lost = list_of(set);
	lacks = lacks_of(new, now);
	json_decref(set);
	*ret = json_pack("{s:o, s:o, s:o, s:o, s:o}", "model", name_of(now), "with", name_of(with), "lost", lost,
			 "lacks", lacks, "text", cost_text(new->name ? new->name : "?", now, with, lost, lacks));
	hosts_done(&h);
	models_done(&m);
	return 0;
}

/* The catalogue's entry for the model part of a -cpu option: a name without a version is its first one, as every
 * machine type since QEMU 4.1 has it. */
static const json_t *catalogue_find(const json_t *catalogue, const char *name)
{
	_free_ char *first = xasprintf("%s-v1", name);
	const json_t *o = json_object_get(catalogue, name);

	return o ? o : json_object_get(catalogue, first);
}

int baseline_lacks(const json_t *catalogue, const char *cpu, const json_t *host_cpu, json_t **ret, struct err *e)
{
	_free_ char *words = xstrdup(cpu);
	char *save = NULL, *name = strtok_r(words, ",", &save);
	json_t *want, *missing;
	const json_t *model;
	struct host h;

	if (!name || strcmp(name, "host") == 0 || strcmp(name, "max") == 0)
		return err_set(e, ERR_UNSUPPORTED,
			       "cpu \"%s\" is whatever its host has: such a guest runs on no other; choose a model",
			       cpu);
	model = catalogue_find(catalogue, name);
	want = model ? set_of(json_object_get(model, "features")) : NULL;
	if (!want)
		return err_set(e, ERR_INPUT, "cpu \"%s\": there is no such model; godwit-vm cpu lists them", cpu);
	for (char *w = strtok_r(NULL, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		if (w[0] == '+')
			json_object_set_new(want, w + 1, json_true());
		else if (w[0] == '-')
			json_object_del(want, w + 1);
	}
	if (host_read(host_cpu, NULL, &h, e) < 0) {
		json_decref(want);
		return -1;
	}
	missing = set_minus(want, h.features);
	*ret = list_of(missing);
	json_decref(missing);
	json_decref(want);
	host_done(&h);
	return 0;
}
