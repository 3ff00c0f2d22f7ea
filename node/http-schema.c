/* SPDX-License-Identifier: Apache-2.0 */
/* JSON Schema, the part of it that our tables use. */
#include "node/http-schema.h"

#include <assert.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

#define REF_PREFIX "#/components/schemas/"
#define FIELD_MAX 256
#define DEPTH_MAX 32

struct http_schemas {
	json_t *all;
};

/* Where in the value the checker is. */
struct place {
	const struct http_schemas *schemas;
	char field[FIELD_MAX];
	unsigned depth;
	struct err *e;
};

static int check(struct place *p, const json_t *schema, json_t *value);

static int refuse(struct place *p, const char *reason)
{
	return err_set(p->e, ERR_INPUT, "%s: %s", p->field[0] ? p->field : "body", reason);
}

static const json_t *resolve(const struct http_schemas *s, const json_t *schema)
{
	const char *ref = json_string_value(json_object_get(schema, "$ref"));

	while (ref) {
		schema = json_object_get(s->all, ref + strlen(REF_PREFIX));
		ref = json_string_value(json_object_get(schema, "$ref"));
	}
	return schema;
}

static bool is_type(const json_t *value, const char *type)
{
	if (strcmp(type, "object") == 0)
		return json_is_object(value);
	if (strcmp(type, "array") == 0)
		return json_is_array(value);
	if (strcmp(type, "string") == 0)
		return json_is_string(value);
	if (strcmp(type, "integer") == 0)
		return json_is_integer(value);
	if (strcmp(type, "number") == 0)
		return json_is_number(value);
	return strcmp(type, "boolean") == 0 && json_is_boolean(value);
}

static int check_type(struct place *p, const json_t *schema, const json_t *value)
{
	const char *type = json_string_value(json_object_get(schema, "type"));
	char reason[64];

	if (!type || is_type(value, type))
		return 0;
	snprintf(reason, sizeof(reason), "must be %s %s", strchr("aeio", type[0]) ? "an" : "a", type);
	return refuse(p, reason);
}

static int check_enum(struct place *p, const json_t *schema, json_t *value)
{
	json_t *choices = json_object_get(schema, "enum");
	char reason[FIELD_MAX] = "must be one of";
	size_t used = strlen(reason), i;
	json_t *choice;

	if (!choices)
		return 0;
	json_array_foreach (choices, i, choice) {
		if (json_equal(choice, value))
			return 0;
		if (json_is_string(choice) && used < sizeof(reason))
			used += (size_t)snprintf(reason + used, sizeof(reason) - used, "%s %s", i ? "," : "",
						 json_string_value(choice));
	}
	return refuse(p, reason);
}

/* @n (a length, a count, a value) against two keywords. */
static int check_bounds(struct place *p, const json_t *schema, double n, const char *min, const char *max,
			const char *unit)
{
	const json_t *low = json_object_get(schema, min), *high = json_object_get(schema, max);
	char reason[128];

	if (low && n < json_number_value(low))
		snprintf(reason, sizeof(reason), "must be at least %.15g%s", json_number_value(low), unit);
	else if (high && n > json_number_value(high))
		snprintf(reason, sizeof(reason), "must be at most %.15g%s", json_number_value(high), unit);
	else
		return 0;
	return refuse(p, reason);
}

static int check_pattern(struct place *p, const json_t *schema, const char *text)
{
	const char *pattern = json_string_value(json_object_get(schema, "pattern"));
	_free_ char *reason = NULL;
	regex_t re;
	int r;

	if (!pattern)
		return 0;
	if (regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB) != 0)
		abort();
	r = regexec(&re, text, 0, NULL, 0);
	regfree(&re);
	if (r == 0)
		return 0;
	reason = xasprintf("must look like %s", pattern);
	return refuse(p, reason);
}

/* Go into a member or an item and come back. */
static int check_inside(struct place *p, const json_t *schema, json_t *value, const char *key, size_t index)
{
	size_t used = strlen(p->field);
	int r;

	if (key)
		snprintf(p->field + used, sizeof(p->field) - used, "%s%s", used ? "." : "", key);
	else
		snprintf(p->field + used, sizeof(p->field) - used, "[%zu]", index);
	r = check(p, schema, value);
	p->field[used] = 0;
	return r;
}

static int check_required(struct place *p, const json_t *schema, const json_t *value)
{
	json_t *required = json_object_get(schema, "required");
	char reason[FIELD_MAX];
	json_t *name;
	size_t i;

	json_array_foreach (required, i, name) {
		if (json_object_get(value, json_string_value(name)))
			continue;
		snprintf(reason, sizeof(reason), "%s is missing", json_string_value(name));
		return refuse(p, reason);
	}
	return 0;
}

static int check_object(struct place *p, const json_t *schema, json_t *value)
{
	json_t *properties = json_object_get(schema, "properties");
	json_t *others = json_object_get(schema, "additionalProperties");
	const char *key;
	json_t *member;

	json_object_foreach (value, key, member) {
		json_t *sub = json_object_get(properties, key);

		if (!sub && json_is_false(others)) {
			char reason[FIELD_MAX];

			snprintf(reason, sizeof(reason), "there is no field \"%.100s\"", key);
			return refuse(p, reason);
		}
		if (!sub && json_is_object(others))
			sub = others;
		if (sub && check_inside(p, sub, member, key, 0) < 0)
			return -1;
	}
	return check_required(p, schema, value);
}

static int check_array(struct place *p, const json_t *schema, json_t *value)
{
	json_t *items = json_object_get(schema, "items");
	json_t *item;
	size_t i;

	if (check_bounds(p, schema, (double)json_array_size(value), "minItems", "maxItems", " items") < 0)
		return -1;
	json_array_foreach (value, i, item) {
		if (items && check_inside(p, items, item, NULL, i) < 0)
			return -1;
	}
	return 0;
}

/* One of several: the message is that of the alternative whose type it has. */
static int check_one_of(struct place *p, const json_t *schema, json_t *value)
{
	json_t *choices = json_object_get(schema, "oneOf");
	struct err *outer = p->e, told = ERR_INIT;
	json_t *choice;
	size_t i;

	if (!choices)
		return 0;
	json_array_foreach (choices, i, choice) {
		const json_t *sub = resolve(p->schemas, choice);
		const char *type = json_string_value(json_object_get(sub, "type"));
		struct err e = ERR_INIT;
		int r;

		p->e = &e;
		r = check(p, sub, value);
		p->e = outer;
		if (r == 0)
			return 0;
		if (!told.code || !type || is_type(value, type))
			told = e;
	}
	if (outer)
		*outer = told;
	return -1;
}

static int check(struct place *p, const json_t *schema, json_t *value)
{
	int r = 0;

	schema = resolve(p->schemas, schema);
	if (p->depth >= DEPTH_MAX)
		return refuse(p, "is nested too deep");
	p->depth++;
	if (check_type(p, schema, value) < 0 || check_enum(p, schema, value) < 0 || check_one_of(p, schema, value) < 0)
		r = -1;
	else if (json_is_object(value))
		r = check_object(p, schema, value);
	else if (json_is_array(value))
		r = check_array(p, schema, value);
	else if (json_is_number(value))
		r = check_bounds(p, schema, json_number_value(value), "minimum", "maximum", "");
	else if (json_is_string(value) &&
		 check_bounds(p, schema, (double)json_string_length(value), "minLength", "maxLength", " bytes") == 0)
		r = check_pattern(p, schema, json_string_value(value));
	else if (json_is_string(value))
		r = -1;
	p->depth--;
	return r;
}

int http_schema_check(const struct http_schemas *s, const char *name, json_t *value, struct err *e)
{
	struct place p = {.schemas = s, .e = e};
	json_t *schema = json_object_get(s->all, name);

	assert(schema);
	return check(&p, schema, value);
}

/* ---- the table itself ---- */

static bool is_known(const char *keyword)
{
	static const char *const known[] = {"type",      "enum",      "properties",  "required", "additionalProperties",
					    "items",     "minItems",  "maxItems",    "minimum",  "maximum",
					    "minLength", "maxLength", "pattern",     "oneOf",    "$ref",
					    "format",    "title",     "description", "default",  "example"};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(known[i], keyword) == 0)
			return true;
	return false;
}

static void die(const char *name, const char *why)
{
	log_error("event=schema_wrong schema=%s why=\"%s\"", name, why);
	abort();
}

/* Look through one schema for what the checker would pass over in silence. */
static void inspect(const struct http_schemas *s, const char *name, json_t *schema)
{
	const char *ref = json_string_value(json_object_get(schema, "$ref"));
	const char *key;
	json_t *sub;
	size_t i;

	if (!json_is_object(schema))
		die(name, "not an object");
	if (ref &&
	    (strncmp(ref, REF_PREFIX, strlen(REF_PREFIX)) != 0 || !json_object_get(s->all, ref + strlen(REF_PREFIX))))
		die(name, ref);
	json_object_foreach (schema, key, sub) {
		if (!is_known(key))
			die(name, key);
	}
	json_object_foreach (json_object_get(schema, "properties"), key, sub) {
		inspect(s, name, sub);
	}
	json_array_foreach (json_object_get(schema, "oneOf"), i, sub) {
		inspect(s, name, sub);
	}
	if (json_object_get(schema, "items"))
		inspect(s, name, json_object_get(schema, "items"));
	if (json_is_object(json_object_get(schema, "additionalProperties")))
		inspect(s, name, json_object_get(schema, "additionalProperties"));
}

static void load(struct http_schemas *s, const struct http_schema *row)
{
	const char *name = row->name ? row->name : "(several)";
	json_error_t error = {0};
	json_t *schema = json_loads(row->text, JSON_REJECT_DUPLICATES, &error);
	json_t *more = row->more ? json_loads(row->more, JSON_REJECT_DUPLICATES, &error) : json_object();

	if (!schema || !more || json_object_update_recursive(schema, more) < 0)
		die(name, error.text);
	json_decref(more);
	json_object_del(schema, "$schema");
	if (row->name) {
		json_object_set_new(s->all, row->name, schema);
		return;
	}
	json_object_update(s->all, schema);
	json_decref(schema);
}

struct http_schemas *http_schemas_new(const struct http_schema *table, size_t n)
{
	struct http_schemas *s = xcalloc(1, sizeof(*s));
	const char *name;
	json_t *schema;

	s->all = json_object();
	for (size_t i = 0; i < n; i++)
		load(s, &table[i]);
	json_object_foreach (s->all, name, schema) {
		inspect(s, name, schema);
	}
	return s;
}

void http_schemas_free(struct http_schemas *s)
{
	if (!s)
		return;
	json_decref(s->all);
	free(s);
}

json_t *http_schemas_all(const struct http_schemas *s)
{
	return s->all;
}
