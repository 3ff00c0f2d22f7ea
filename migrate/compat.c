/* SPDX-License-Identifier: Apache-2.0 */
/* Can this guest run in that QEMU? */
#include "migrate/compat.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

/* qom-get @path @property; NULL when it is not there. New reference. */
static json_t *qom_get(struct qmp *q, const char *path, const char *property, int64_t deadline_ns)
{
	json_t *value = NULL;

	qmp_callf(q, deadline_ns, &value, NULL, "qom-get", "{s:s, s:s}", "path", path, "property", property);
	return value;
}

/* The CPU's type and its CPUID words as QEMU shows them to the guest ("feature-words", target/i386/cpu.c). */
static void describe_cpu(json_t *o, struct qmp *q, int64_t deadline_ns)
{
	json_t *cpus = NULL;
	const char *path;

	qmp_call(q, "query-cpus-fast", NULL, deadline_ns, &cpus, NULL);
	json_object_set_new(o, "vcpus", json_integer((json_int_t)json_array_size(cpus)));
	path = json_string_value(json_object_get(json_array_get(cpus, 0), "qom-path"));
	if (path) {
		json_t *type = qom_get(q, path, "type", deadline_ns);
		json_t *words = qom_get(q, path, "feature-words", deadline_ns);

		if (type)
			json_object_set_new(o, "cpu", type);
		if (words)
			json_object_set_new(o, "features", words);
	}
	json_decref(cpus);
}

/* Names and sizes of the memory backends: their names are those of the RAM blocks in the stream. */
static void describe_ram(json_t *o, struct qmp *q, int64_t deadline_ns)
{
	json_t *objects = NULL, *ram = json_object(), *x;
	size_t i;

	qmp_callf(q, deadline_ns, &objects, NULL, "qom-list", "{s:s}", "path", "/objects");
	json_array_foreach (objects, i, x) {
		const char *name = json_string_value(json_object_get(x, "name"));
		const char *type = json_string_value(json_object_get(x, "type"));

		if (name && type && !strncmp(type, "child<memory-backend-", 21)) {
			_free_ char *path = xasprintf("/objects/%s", name);
			json_t *size = qom_get(q, path, "size", deadline_ns);

			json_object_set_new(ram, name, size ? size : json_null());
		}
	}
	json_decref(objects);
	json_object_set_new(o, "ram", ram);
}

json_t *compat_describe(struct qmp *q, int64_t deadline_ns, struct err *e)
{
	json_t *memory = NULL, *machine, *o;

	if (qmp_call(q, "query-memory-size-summary", NULL, deadline_ns, &memory, e) < 0)
		return NULL;
	machine = qom_get(q, "/machine", "type", deadline_ns);
	o = json_pack("{s:i, s:o?, s:o?}", "qemu", qmp_version(q), "machine", machine, "memory",
		      json_incref(json_object_get(memory, "base-memory")));
	json_decref(memory);
	if (!o)
		err_set(e, ERR_PROTOCOL, "QEMU did not say what machine it is");
	if (o) {
		describe_cpu(o, q, deadline_ns);
		describe_ram(o, q, deadline_ns);
	}
	return o;
}

struct reasons {
	char text[700];
	size_t used;
};

static void reason_add(struct reasons *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void reason_add(struct reasons *r, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (r->used)
		r->used += (size_t)snprintf(r->text + r->used, sizeof(r->text) - r->used, "; ");
	va_start(ap, fmt);
	n = vsnprintf(r->text + r->used, sizeof(r->text) - r->used, fmt, ap);
	va_end(ap);
	r->used = r->used + (size_t)n < sizeof(r->text) - 3 ? r->used + (size_t)n : sizeof(r->text) - 3;
}

/* The machine type without the suffix of its QOM class: "pc-q35-7.2-machine" -> "pc-q35-7.2". */
static void check_name(struct reasons *r, const json_t *src, const json_t *dst, const char *key, const char *what,
		       const char *remedy)
{
	const char *a = json_string_value(json_object_get(src, key));
	const char *b = json_string_value(json_object_get(dst, key));

	if (a && b && strcmp(a, b) != 0)
		reason_add(r, "%s is %s here and %s at the destination (%s)", what, a, b, remedy);
}

static void check_number(struct reasons *r, const json_t *src, const json_t *dst, const char *key, const char *what)
{
	json_int_t a = json_integer_value(json_object_get(src, key));
	json_int_t b = json_integer_value(json_object_get(dst, key));

	if (a != b)
		reason_add(r, "%s is %lld here and %lld at the destination", what, (long long)a, (long long)b);
}

/* The features of the CPUID leaf in @word on the other side, 0 when it has no such leaf. */
static json_int_t word_features(const json_t *words, const json_t *word)
{
	static const char *const keys[] = {"cpuid-input-eax", "cpuid-input-ecx", "cpuid-register"};
	const json_t *w;
	size_t i;

	json_array_foreach (words, i, w) {
		size_t same = 0;

		for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
			same += json_equal(json_object_get(w, keys[k]), json_object_get(word, keys[k])) ||
				(!json_object_get(w, keys[k]) && !json_object_get(word, keys[k]));
		if (same == ARRAY_SIZE(keys))
			return json_integer_value(json_object_get(w, "features"));
	}
	return 0;
}

/* Every feature that the guest sees now must be there afterwards. */
static void check_features(struct reasons *r, const json_t *src, const json_t *dst)
{
	const json_t *words = json_object_get(src, "features"), *w;
	size_t i;

	json_array_foreach (words, i, w) {
		json_int_t have = json_integer_value(json_object_get(w, "features"));
		json_int_t missing = have & ~word_features(json_object_get(dst, "features"), w);

		if (missing)
			reason_add(r, "the destination's CPU lacks features (CPUID %llx %s: %#llx)",
				   (long long)json_integer_value(json_object_get(w, "cpuid-input-eax")),
				   json_string_value(json_object_get(w, "cpuid-register")), (long long)missing);
	}
}

static void check_ram(struct reasons *r, const json_t *src, const json_t *dst)
{
	json_t *there = json_object_get(dst, "ram"), *size;
	const char *name;

	json_object_foreach (json_object_get(src, "ram"), name, size) {
		if (!json_object_get(there, name))
			reason_add(
				r,
				"the memory backend \"%s\" is missing there (give the destination's -object the id %s)",
				name, name);
		else if (!json_equal(size, json_object_get(there, name)))
			reason_add(r, "the memory backend \"%s\" has another size there", name);
	}
}

int compat_check(const json_t *src, const json_t *dst, struct err *e)
{
	struct reasons r = {.used = 0};

	check_name(&r, src, dst, "machine", "the machine type", "start the destination with the source's");
	check_name(&r, src, dst, "cpu", "the CPU model", "start the destination with the source's");
	check_number(&r, src, dst, "vcpus", "the number of vCPUs");
	check_number(&r, src, dst, "memory", "the memory in bytes");
	check_ram(&r, src, dst);
	check_features(&r, src, dst);
	return r.used ? err_set(e, ERR_UNSUPPORTED, "the guest cannot run at the destination: %s", r.text) : 0;
}

int compat_check_movable(struct qmp *q, int64_t deadline_ns, struct err *e)
{
	json_t *info = NULL, *blocked, *reason;
	struct reasons r = {.used = 0};
	const char *status;
	size_t i;

	if (qmp_call(q, "query-migrate", NULL, deadline_ns, &info, e) < 0)
		return -1;
	blocked = json_object_get(info, "blocked-reasons");
	json_array_foreach (blocked, i, reason)
		reason_add(&r, "%s", json_string_value(reason));
	status = json_string_value(json_object_get(info, "status"));
	if (!r.used && status &&
	    (!strcmp(status, "active") || !strcmp(status, "setup") || !strcmp(status, "device") ||
	     !strcmp(status, "pre-switchover") || !strcmp(status, "cancelling")))
		reason_add(&r, "a migration of this guest is under way (status %s): wait for it or cancel it", status);
	json_decref(info);
	return r.used ? err_set(e, ERR_UNSUPPORTED, "this guest cannot be moved: %s", r.text) : 0;
}
