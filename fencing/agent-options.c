/* SPDX-License-Identifier: Apache-2.0 */
/* The options of a fence device: judged by the agent's metadata; secrets masked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "fencing/agent.h"

#define VALUE_MAX 4096 /* bytes of one value */
#define PARAMETERS_MAX 512

/* ---- secrets ---- */

bool agent_name_is_secret(const char *name)
{
	/* An SNMP community is the password of SNMP 1 and 2c, kg the key of IPMI 2.0. Rather one too many than one too
	 * few. */
	static const char *const parts[] = {"passw", "passphrase", "secret",     "token",
					    "key",   "community",  "credential", "_kg"};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (strcasestr(name, parts[i]))
			return true;
	return false;
}

json_t *agent_options_mask(const json_t *options, const json_t *secrets)
{
	json_t *copy = json_copy((json_t *)options), *value, *name;
	const char *key;
	size_t i;

	json_object_foreach ((json_t *)options, key, value)
		if (agent_name_is_secret(key))
			json_object_set_new(copy, key, json_string(AGENT_MASK));
	json_array_foreach (secrets, i, name)
		if (json_is_string(name) && json_object_get(copy, json_string_value(name)))
			json_object_set_new(copy, json_string_value(name), json_string(AGENT_MASK));
	return copy;
}

json_t *agent_options_unmask(const json_t *options, const json_t *old)
{
	json_t *copy = json_copy((json_t *)options), *value;
	const char *key;

	json_object_foreach ((json_t *)options, key, value) {
		json_t *before = json_object_get(old, key);

		if (before && json_is_string(value) && !strcmp(json_string_value(value), AGENT_MASK))
			json_object_set(copy, key, before);
	}
	return copy;
}

/* ---- options that are not the user's ---- */

static const struct {
	const char *name, *why;
} refused[] = {
	{"action", "the action is chosen for each call"},
	{"option", "the action is chosen for each call"},
	{"plug", "give it as the plug of a node"},
	{"port", "give it as the plug of a node"},
	{"delay", "give the device a delay instead, which counts for the time-outs"},
	{"missing_as_off", "it would count a plug that does not exist as a host that is off"},
	{"version", "the agent would say its version, succeed, and switch nothing"},
	{"help", "the agent would explain itself, succeed, and switch nothing"},
	{"usage", "the agent would explain itself, succeed, and switch nothing"},
	{"verbose", "the agent would print what it says to the device, passwords among it"},
	{"verbose_level", "the agent would print what it says to the device, passwords among it"},
	{"debug", "the agent would write what it says to the device into a file, passwords among it"},
	{"debug_file", "the agent would write what it says to the device into a file, passwords among it"},
};

static int ours(const char *name, const char *agent, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if (!strcmp(name, refused[i].name))
			return err_set(e, ERR_INPUT, "option %s of %s cannot be set here: %s", name, agent,
				       refused[i].why);
	return 0;
}

/* ---- names ---- */

static json_t *parameter_find(const json_t *parameters, const char *name)
{
	size_t i;
	json_t *p;

	json_array_foreach (parameters, i, p)
		if (!strcmp(json_string_value(json_object_get(p, "name")), name))
			return p;
	return NULL;
}

static int unknown(const json_t *parameters, const char *name, const char *agent, struct err *e)
{
	const char *names[PARAMETERS_MAX + 1] = {NULL}, *near;
	size_t i, n = 0;
	json_t *p;

	json_array_foreach (parameters, i, p) {
		const char *known = json_string_value(json_object_get(p, "name"));

		if (n < PARAMETERS_MAX && ours(known, agent, NULL) == 0)
			names[n++] = known;
	}
	near = text_nearest(name, names);
	if (near)
		return err_set(e, ERR_INPUT, "%s has no option \"%.64s\"; did you mean \"%s\"?", agent, name, near);
	return err_set(e, ERR_INPUT, "%s has no option \"%.64s\"; its metadata lists them", agent, name);
}

/* ---- values ---- */

/* Whole numbers; seconds may not be negative. */
static bool number_ok(const char *text, bool negative)
{
	const char *digits = text + (negative && *text == '-');
	size_t n = strspn(digits, "0123456789");

	return n > 0 && n < 19 && !digits[n];
}

/* "1", "0", or NULL. */
static const char *boolean_text(const char *text)
{
	static const char *const yes[] = {"1", "true", "yes", "on"}, *const no[] = {"0", "false", "no", "off"};

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (!strcasecmp(text, yes[i]))
			return "1";
		if (!strcasecmp(text, no[i]))
			return "0";
	}
	return NULL;
}

static bool among(const json_t *values, const char *text)
{
	size_t i;
	json_t *v;

	json_array_foreach (values, i, v)
		if (!strcmp(json_string_value(v), text))
			return true;
	return json_array_size(values) == 0;
}

/* "a, b or c"; caller frees. */
static char *values_text(const json_t *values)
{
	char *text = xstrdup(""), *longer;
	size_t i, n = json_array_size(values);
	json_t *v;

	json_array_foreach (values, i, v) {
		longer = xasprintf("%s%s%s", text, i == 0 ? "" : i + 1 == n ? " or " : ", ", json_string_value(v));
		free(text);
		text = longer;
	}
	return text;
}

/* The value as text, by its JSON type; caller frees. NULL: an array, an object, null, a broken number. */
static char *value_text(const json_t *value)
{
	if (json_is_string(value))
		return xstrdup(json_string_value(value));
	if (json_is_integer(value))
		return xasprintf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
	if (json_is_boolean(value))
		return xstrdup(json_is_true(value) ? "1" : "0");
	return NULL;
}

/* What a key=value line can carry. Agents strip blanks at both ends. */
static const char *line_fault(const json_t *value, const char *text)
{
	size_t n = strlen(text);

	if (json_is_string(value) && json_string_length(value) != n)
		return "has a zero byte in it";
	if (n > VALUE_MAX)
		return "is longer than 4096 bytes";
	if (strpbrk(text, "\r\n"))
		return "has a line end in it, which the agent would take for the end of the value";
	if (n > 0 && (strchr(" \t\v\f", text[0]) || strchr(" \t\v\f", text[n - 1])))
		return "begins or ends with a blank, which the agent would strip";
	return NULL;
}

/* The normal form of @value, caller frees; NULL with @e. The value itself is not in the sentence when it is secret. */
static char *value_check(const json_t *parameter, const json_t *value, const char *agent, struct err *e)
{
	const char *name = json_string_value(json_object_get(parameter, "name"));
	const char *type = json_string_value(json_object_get(parameter, "type"));
	const json_t *values = json_object_get(parameter, "values");
	_free_ char *text = value_text(value);
	_free_ char *choice = values_text(values);
	const char *fault = text ? line_fault(value, text) : "is neither text nor a whole number nor true or false";
	bool secret = json_is_true(json_object_get(parameter, "secret"));
	const char *shown = secret ? AGENT_MASK : text;

	if (fault)
		err_set(e, ERR_INPUT, "option %s of %s %s", name, agent, fault);
	else if (secret && !strcmp(text, AGENT_MASK))
		err_set(e, ERR_INPUT, "option %s of %s is the mask that is shown for secrets: give the secret itself",
			name, agent);
	else if (!strcmp(type, "boolean") && !boolean_text(text))
		err_set(e, ERR_INPUT, "option %s of %s must be true or false, not \"%.64s\"", name, agent, shown);
	else if (!strcmp(type, "integer") && !number_ok(text, true))
		err_set(e, ERR_INPUT, "option %s of %s must be a whole number, not \"%.64s\"", name, agent, shown);
	else if (!strcmp(type, "second") && !number_ok(text, false))
		err_set(e, ERR_INPUT, "option %s of %s must be a whole number of seconds, not \"%.64s\"", name, agent,
			shown);
	else if (!strcmp(type, "select") && !among(values, text))
		err_set(e, ERR_INPUT, "option %s of %s must be %.256s, not \"%.64s\"", name, agent, choice, shown);
	else
		return !strcmp(type, "boolean") ? xstrdup(boolean_text(text)) : steal_ptr(text);
	return NULL;
}

/* ---- what is missing, what is there twice ---- */

static bool is_given(const json_t *options, const char *name)
{
	return name && json_object_get(options, name);
}

/* Set by us, or not needed: with port_as_ip the plug of a node is the address. */
static bool is_ours_to_give(const char *name, const json_t *options)
{
	const char *as_ip = json_string_value(json_object_get(options, "port_as_ip"));

	if (as_ip && !strcmp(as_ip, "1") && (!strcmp(name, "ip") || !strcmp(name, "ipaddr")))
		return true;
	return ours(name, "", NULL) < 0;
}

static int complete(const json_t *parameters, const json_t *options, const char *agent, struct err *e)
{
	size_t i;
	json_t *p;

	json_array_foreach (parameters, i, p) {
		const char *name = json_string_value(json_object_get(p, "name"));
		const char *old = json_string_value(json_object_get(p, "obsoletes"));

		if (is_given(options, name) && is_given(options, old))
			return err_set(e, ERR_INPUT, "options %s and %s of %s are the same thing: give %s only", name,
				       old, agent, name);
		if (!json_is_true(json_object_get(p, "required")) || json_is_true(json_object_get(p, "deprecated")) ||
		    json_is_string(json_object_get(p, "default")) || is_ours_to_give(name, options))
			continue;
		if (!is_given(options, name) && !is_given(options, old))
			return err_set(e, ERR_INPUT, "%s needs the option %s (%.128s)", agent, name,
				       json_string_value(json_object_get(p, "description")));
	}
	return 0;
}

json_t *agent_options_check(const json_t *metadata, const json_t *options, struct err *e)
{
	const char *agent = json_string_value(json_object_get(metadata, "name"));
	json_t *parameters = json_object_get(metadata, "parameters"), *normal = json_object(), *value;
	const char *key;
	int r = 0;

	if (options && !json_is_object(options))
		r = err_set(e, ERR_INPUT, "the options of %s must be an object of names and values", agent);
	json_object_foreach ((json_t *)options, key, value) {
		json_t *p = parameter_find(parameters, key);
		_free_ char *text = NULL;

		if (r < 0)
			break;
		if (ours(key, agent, e) < 0 || (!p && unknown(parameters, key, agent, e) < 0) ||
		    !(text = value_check(p, value, agent, e)))
			r = -1;
		else
			json_object_set_new(normal, key, json_string(text));
	}
	if (r == 0)
		r = complete(parameters, normal, agent, e);
	if (r == 0)
		return normal;
	json_decref(normal);
	return NULL;
}
