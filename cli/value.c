/* SPDX-License-Identifier: Apache-2.0 */
/* Values of the command line. */
#include "cli/value.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

/* Powers that a letter behind a number stands for. */
struct unit {
	const char *suffix;
	int64_t factor;
};

static const struct unit memory_units[] = {{"", 1}, {"M", 1}, {"G", 1LL << 10}, {"T", 1LL << 20}, {NULL, 0}};
static const struct unit rate_units[] = {{"", 1},        {"k", 1000},       {"K", 1000},
					 {"M", 1000000}, {"G", 1000000000}, {NULL, 0}};
static const struct unit time_units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}, {NULL, 0}};

/* A whole number, and the rest behind it. */
static int number_read(const char *text, int64_t *ret, const char **ret_rest)
{
	long long n;
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return -1;
	errno = 0;
	n = strtoll(text, &end, 10);
	if (errno)
		return -1;
	*ret = n;
	*ret_rest = end;
	return 0;
}

static int unit_read(const char *text, const struct unit *units, int64_t *ret)
{
	const char *rest;
	int64_t n;

	if (number_read(text, &n, &rest) < 0)
		return -1;
	for (const struct unit *u = units; u->suffix; u++)
		if (strcmp(u->suffix, rest) == 0 && n <= INT64_MAX / u->factor) {
			*ret = n * u->factor;
			return 0;
		}
	return -1;
}

bool value_is_word(const char *words, const char *text)
{
	size_t n = strlen(text);

	for (const char *w = words; *w; w += strcspn(w, "|"), w += *w == '|')
		if (n && strcspn(w, "|") == n && strncmp(w, text, n) == 0)
			return true;
	return false;
}

static int number_check(const struct cli_param *p, const char *text, int64_t *ret, struct err *e)
{
	const char *rest = "";
	int64_t n = 0;

	if (number_read(text, &n, &rest) < 0 || *rest || n < p->min || n > p->max)
		return err_set(e, ERR_USAGE, "\"%s\" must be a whole number from %lld to %lld", text, (long long)p->min,
			       (long long)p->max);
	*ret = n;
	return 0;
}

static int unit_check(const struct cli_param *p, const char *text, const struct unit *units, const char *how,
		      int64_t *ret, struct err *e)
{
	int64_t n = 0;

	if (unit_read(text, units, &n) < 0)
		return err_set(e, ERR_USAGE, "\"%s\" must be %s", text, how);
	if (n < p->min || (p->max && n > p->max))
		return err_set(e, ERR_USAGE, "\"%s\" is out of range; it must be %s", text, how);
	*ret = n;
	return 0;
}

int value_read(const struct cli_param *p, const char *text, int64_t *ret, struct err *e)
{
	switch (p->kind) {
	case CLI_NUMBER:
		return number_check(p, text, ret, e);
	case CLI_MEMORY:
		return unit_check(p, text, memory_units, "memory such as 512M or 2G, from 16M to 8T", ret, e);
	case CLI_RATE:
		return unit_check(p, text, rate_units, "bytes a second such as 500k, 100M or 1G", ret, e);
	case CLI_SECONDS:
		return unit_check(p, text, time_units, "a time such as 90s, 5m, 2h or 1d", ret, e);
	case CLI_CHOICE:
		if (value_is_word(p->words, text))
			return 0;
		return err_set(e, ERR_USAGE, "\"%s\" is not one of %s", text, p->words);
	default:
		return text[0] ? 0 : err_set(e, ERR_USAGE, "must not be empty");
	}
}

/* ---- into a request ---- */

int value_json(const struct cli_param *p, const char *text, int64_t number, json_t **ret, struct err *e)
{
	_free_ char *cwd = NULL;
	_free_ char *path = NULL;

	switch (p->kind) {
	case CLI_FLAG:
		*ret = json_true();
		return 0;
	case CLI_NUMBER:
	case CLI_MEMORY:
	case CLI_RATE:
	case CLI_SECONDS:
		*ret = json_integer(number);
		return 0;
	case CLI_PATH:
		if (text[0] != '/') {
			cwd = getcwd(NULL, 0);
			if (!cwd)
				return err_sys(e, "%s: the current folder", text);
			path = xasprintf("%s/%s", cwd, text);
			text = path;
		}
		break;
	default:
		break;
	}
	*ret = json_string(text);
	return *ret ? 0 : err_set(e, ERR_USAGE, "%s: is not UTF-8", p->name);
}

char *value_file(const char *path, size_t limit, struct err *e)
{
	char *text = file_read(path, limit, NULL, e);

	if (!text)
		e->code = ERR_INPUT;
	return text;
}

/* ---- specifications ---- */

void spec_done(struct spec *s)
{
	free(s->text);
	*s = (struct spec){0};
}

const char *spec_get(const struct spec *s, const char *key)
{
	for (size_t i = 0; i < s->n_parts; i++)
		if (strcmp(s->parts[i].key, key) == 0)
			return s->parts[i].value ? s->parts[i].value : "";
	return NULL;
}

/* Whether "key=" or "key" is among those possible. */
static bool key_known(const char *const *keys, const char *key, bool with_value)
{
	size_t n = strlen(key);

	for (; *keys; keys++)
		if (strncmp(*keys, key, n) == 0 && strcmp(*keys + n, with_value ? "=" : "") == 0)
			return true;
	return false;
}

static int spec_part(char *part, const char *const *keys, struct spec *s, struct err *e)
{
	char *value = strchr(part, '=');

	if (value)
		*value++ = 0;
	if (!key_known(keys, part, value != NULL)) {
		char all[256] = "";

		for (; *keys && strlen(all) + strlen(*keys) + 3 < sizeof(all); keys++) {
			strcat(all, all[0] ? ", " : "");
			strcat(all, *keys);
		}
		return err_set(e, ERR_USAGE, "\"%s%s\" is not possible here; these are: %s", part, value ? "=" : "",
			       all);
	}
	if (s->n_parts == SPEC_PARTS_MAX)
		return err_set(e, ERR_USAGE, "has more than %d parts", SPEC_PARTS_MAX);
	s->parts[s->n_parts].key = part;
	s->parts[s->n_parts++].value = value;
	return 0;
}

int spec_read(const char *text, const char *const *keys, struct spec *ret, struct err *e)
{
	struct spec s = {.text = xstrdup(text)};
	char *rest = s.text;

	s.first = strsep(&rest, ",");
	if (!s.first[0]) {
		spec_done(&s);
		return err_set(e, ERR_USAGE, "\"%s\" begins with nothing", text);
	}
	for (char *part; (part = strsep(&rest, ","));)
		if (spec_part(part, keys, &s, e) < 0) {
			spec_done(&s);
			return err_wrap(e, "\"%s\"", text);
		}
	*ret = s;
	return 0;
}
