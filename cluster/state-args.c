/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of commands: checked by a table before an operation sees them, so that no operation meets a wrong type. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state-int.h"

#define NAME_MAX_BYTES 63

int(refuse)(struct change *c, enum err_code code, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!c->name)
		return err_set(c->e, code, "%s: %s", c->kind, text);
	return err_set(c->e, code, "%s %s: %s", c->kind, c->name, text);
}

/* ---- texts ---- */

/* Not isalnum(): a locale must not make members differ. */
static bool is_alnum(char ch)
{
	return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
}

bool text_is_name(const char *s)
{
	size_t n = strlen(s);

	if (n == 0 || n > NAME_MAX_BYTES || !is_alnum(s[0]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_alnum(s[i]) && !strchr("_.-", s[i]))
			return false;
	return true;
}

static bool is_hex(char ch)
{
	return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'f');
}

bool text_is_uuid(const char *s)
{
	for (int i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? s[i] != '-' : !is_hex(s[i]))
			return false;
	}
	return s[36] == 0;
}

bool text_is_hash(const char *s)
{
	for (int i = 0; i < 64; i++)
		if (!is_hex(s[i]))
			return false;
	return s[64] == 0;
}

bool text_is_plain(const json_t *v, size_t min, size_t max)
{
	const char *s = json_string_value(v);
	size_t n = json_string_length(v);

	if (!s || n < min || n > max)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < ' ' || s[i] == 127)
			return false;
	return true;
}

/* ---- checking ---- */

static int arg_refuse(struct change *c, const struct arg *a, const char *want)
{
	return refuse(c, ERR_INPUT, "%s must be %s", a->name, want);
}

static int check_choice(struct change *c, const struct arg *a, const json_t *v)
{
	char known[256] = "one of";
	const char *s = json_string_value(v);

	for (const char *const *p = a->choices; *p; p++) {
		size_t used = strlen(known);

		if (s && strlen(s) == json_string_length(v) && !strcmp(s, *p))
			return 0;
		snprintf(known + used, sizeof(known) - used, "%s %s", p == a->choices ? "" : ",", *p);
	}
	return arg_refuse(c, a, known);
}

static int check_number(struct change *c, const struct arg *a, const json_t *v)
{
	char want[96];
	/* Written so that no number, not even a NaN, slips through. */
	bool good = json_is_integer(v)
			    ? json_integer_value(v) >= a->min && json_integer_value(v) <= a->max
			    : a->type == ARG_NUMBER && json_is_real(v) && json_real_value(v) >= (double)a->min &&
				      json_real_value(v) <= (double)a->max;

	if (good)
		return 0;
	snprintf(want, sizeof(want), "a %snumber from %lld to %lld", a->type == ARG_INT ? "whole " : "",
		 (long long)a->min, (long long)a->max);
	return arg_refuse(c, a, want);
}

static int check_texts(struct change *c, const struct arg *a, const json_t *v)
{
	char want[96];
	size_t n = json_array_size(v), i;
	json_t *item;

	snprintf(want, sizeof(want), "a list of %lld to %lld texts of 1 to 255 bytes", (long long)a->min,
		 (long long)a->max);
	if (!json_is_array(v) || n < (size_t)a->min || n > (size_t)a->max)
		return arg_refuse(c, a, want);
	json_array_foreach (v, i, item)
		if (!text_is_plain(item, 1, 255))
			return arg_refuse(c, a, want);
	return 0;
}

static int check_text(struct change *c, const struct arg *a, const json_t *v)
{
	char want[96];

	switch (a->type) {
	case ARG_NAME:
		if (text_is_plain(v, 1, NAME_MAX_BYTES) && text_is_name(json_string_value(v)))
			return 0;
		return arg_refuse(c, a,
				  "a name: letters, digits, '_', '.' and '-', at most 63, beginning with a letter or "
				  "digit");
	case ARG_UUID:
		if (text_is_plain(v, 36, 36) && text_is_uuid(json_string_value(v)))
			return 0;
		return arg_refuse(c, a, "a UUID in lower case such as 6ba7b810-9dad-41d1-80b4-00c04fd430c8");
	case ARG_HASH:
		if (text_is_plain(v, 64, 64) && text_is_hash(json_string_value(v)))
			return 0;
		return arg_refuse(c, a, "a SHA-256: 64 hexadecimal digits in lower case");
	default:
		if (text_is_plain(v, (size_t)a->min, (size_t)a->max))
			return 0;
		snprintf(want, sizeof(want), "a text of %lld to %lld bytes without control characters",
			 (long long)a->min, (long long)a->max);
		return arg_refuse(c, a, want);
	}
}

static int check_one(struct change *c, const struct arg *a, const json_t *v)
{
	switch (a->type) {
	case ARG_NAME:
	case ARG_UUID:
	case ARG_HASH:
	case ARG_TEXT:
		return check_text(c, a, v);
	case ARG_INT:
	case ARG_NUMBER:
		return check_number(c, a, v);
	case ARG_BOOL:
		return json_is_boolean(v) ? 0 : arg_refuse(c, a, "true or false");
	case ARG_CHOICE:
		return check_choice(c, a, v);
	case ARG_OBJECT:
		return json_is_object(v) ? 0 : arg_refuse(c, a, "an object {...}");
	case ARG_TEXTS:
		return check_texts(c, a, v);
	case ARG_ANY:
		break;
	}
	return 0;
}

static int unknown_field(struct change *c, const struct arg *table, const char *key)
{
	char known[512] = "";

	for (const struct arg *a = table; a->name; a++) {
		size_t used = strlen(known);

		snprintf(known + used, sizeof(known) - used, "%s%s", used ? ", " : "", a->name);
	}
	return refuse(c, ERR_INPUT, "there is no field \"%.64s\"; the fields are %s", key, known);
}

int args_check(struct change *c, const struct arg *table, const char *object)
{
	size_t known = 0;
	const char *key;
	json_t *v;

	/* In the order of the table: the object comes first there, so that later messages can name it. */
	for (const struct arg *a = table; a->name; a++) {
		v = json_object_get(c->args, a->name);
		known += v != NULL;
		if (!v || json_is_null(v)) {
			if (a->required && (!v || a->type != ARG_ANY))
				return refuse(c, ERR_INPUT, "%s is missing", a->name);
			continue;
		}
		if (check_one(c, a, v) < 0)
			return -1;
		if (object && !strcmp(a->name, object))
			c->name = json_string_value(v);
	}
	if (known == json_object_size(c->args))
		return 0;
	json_object_foreach ((json_t *)c->args, key, v) {
		const struct arg *a = table;

		while (a->name && strcmp(a->name, key) != 0)
			a++;
		if (!a->name)
			return unknown_field(c, table, key);
	}
	return 0;
}

/* ---- reading ---- */

const json_t *arg_json(const struct change *c, const char *name)
{
	const json_t *v = json_object_get(c->args, name);

	return json_is_null(v) ? NULL : v;
}

const char *arg_text(const struct change *c, const char *name)
{
	return json_string_value(json_object_get(c->args, name));
}

int64_t arg_int(const struct change *c, const char *name, int64_t otherwise)
{
	const json_t *v = json_object_get(c->args, name);

	return json_is_integer(v) ? json_integer_value(v) : otherwise;
}

bool arg_true(const struct change *c, const char *name)
{
	return json_is_true(json_object_get(c->args, name));
}

char *change_dump(struct change *c, const json_t *v, size_t limit, const char *what)
{
	char *text = json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);

	if (text && strlen(text) <= limit)
		return text;
	free(text);
	refuse(c, ERR_INPUT, "%s is longer than %zu bytes of JSON", what, limit);
	return NULL;
}
