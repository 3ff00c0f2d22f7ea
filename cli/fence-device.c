/* SPDX-License-Identifier: Apache-2.0 */
/* godwit fence add, godwit fence edit: a device out of options; secrets come out of files. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"
#include "cli/value.h"

#define SECRET_MAX 4096

#define PARAM_OPTION                                                                                                   \
	{                                                                                                              \
		.name = "option", .value = "NAME=VALUE", .kind = CLI_TEXT, .many = true,                               \
		.help = "an option of the agent, such as ip=10.0.9.1; not for passwords"                               \
	}
#define PARAM_SECRET_FILE                                                                                              \
	{                                                                                                              \
		.name = "secret-file", .value = "NAME=FILE", .kind = CLI_TEXT, .many = true,                           \
		.help = "an option of the agent whose value is the line in this file, such as password=bmc.txt"        \
	}
#define PARAM_NODE(needed)                                                                                             \
	{                                                                                                              \
		.name = "node", .value = "NODE[=PLUG]", .kind = CLI_TEXT, .many = true, .required = (needed),          \
		.help = "a host that it switches, and how the device calls that one's plug"                            \
	}
#define PARAM_HOW                                                                                                      \
	{.name = "priority",                                                                                           \
	 .value = "N",                                                                                                 \
	 .kind = CLI_NUMBER,                                                                                           \
	 .max = 1000,                                                                                                  \
	 .field = "priority",                                                                                          \
	 .help = "without levels the device with the highest is tried first (default 0)"},                             \
		{.name = "call-timeout",                                                                               \
		 .value = "TIME",                                                                                      \
		 .kind = CLI_SECONDS,                                                                                  \
		 .min = 1,                                                                                             \
		 .max = 120,                                                                                           \
		 .help = "how long one call of the agent may take (default 20s)"},                                     \
		{.name = "attempts",                                                                                   \
		 .value = "N",                                                                                         \
		 .kind = CLI_NUMBER,                                                                                   \
		 .min = 1,                                                                                             \
		 .max = 5,                                                                                             \
		 .field = "attempts",                                                                                  \
		 .help = "how often it is tried (default 2)"},                                                         \
	{                                                                                                              \
		.name = "delay", .value = "TIME", .kind = CLI_SECONDS, .max = 60,                                      \
		.help = "wait so long before its hosts are switched off (default 0)"                                   \
	}

const struct cli_param fence_add_options[] = {
	{.name = "agent",
	 .value = "AGENT",
	 .kind = CLI_TEXT,
	 .field = "agent",
	 .required = true,
	 .help = "the program that switches, such as fence_ipmilan"},
	PARAM_OPTION,
	PARAM_SECRET_FILE,
	PARAM_NODE(true),
	PARAM_HOW,
	{0},
};

const struct cli_param fence_edit_options[] = {
	{.name = "agent",
	 .value = "AGENT",
	 .kind = CLI_TEXT,
	 .field = "agent",
	 .help = "another program that switches"},
	PARAM_OPTION,
	PARAM_SECRET_FILE,
	{.name = "drop-option", .value = "NAME", .kind = CLI_TEXT, .many = true, .help = "take an option away"},
	PARAM_NODE(false),
	{.name = "drop-node", .value = "NODE", .kind = CLI_NODE, .many = true, .help = "it does not switch this host"},
	PARAM_HOW,
	{0},
};

/* ---- reading ---- */

/* KEY=VALUE of an option into @o; @node: a VALUE is not needed. */
static int pair_read(const char *option, const char *text, bool node, json_t *o, struct err *e)
{
	const char *equals = strchr(text, '=');
	_free_ char *key = xasprintf("%.*s", (int)strcspn(text, "="), text);

	if (!*key || (!equals && !node) || (node && equals && !equals[1]))
		return err_set(e, ERR_USAGE, "--%s: must look like %s", option,
			       node ? "NODE=PLUG, or NODE for an agent without plugs" : "NAME=VALUE");
	json_object_set_new(o, key, equals ? json_string(equals + 1) : json_null());
	return 0;
}

/* NAME=FILE: the text of the file, one line, is the value. */
static int secret_read(const char *text, json_t *options, struct err *e)
{
	const char *equals = strchr(text, '=');
	_free_ char *key = xasprintf("%.*s", (int)strcspn(text, "="), text), *value = NULL;
	size_t n;

	if (!*key || !equals || !equals[1])
		return err_set(e, ERR_USAGE, "--secret-file: must look like NAME=FILE");
	value = value_file(equals + 1, SECRET_MAX, e);
	if (!value)
		return err_wrap(e, "--secret-file %s", key);
	n = strcspn(value, "\r\n");
	if (!n || strspn(value + n, "\r\n") != strlen(value + n))
		return err_set(e, ERR_INPUT, "--secret-file %s: %s must hold the value, in one line", key, equals + 1);
	value[n] = 0;
	json_object_set_new(options, key, json_string(value));
	return 0;
}

/* What was given, into a device as the API takes it. */
static int device_read(struct cli *c, json_t *device, struct err *e)
{
	json_t *options = json_object_get(device, "options"), *nodes = json_object_get(device, "nodes");
	const char *text;

	for (size_t i = 0; (text = cli_nth(c, "option", i)); i++)
		if (pair_read("option", text, false, options, e) < 0)
			return -1;
	for (size_t i = 0; (text = cli_nth(c, "secret-file", i)); i++)
		if (secret_read(text, options, e) < 0)
			return -1;
	for (size_t i = 0; (text = cli_nth(c, "node", i)); i++)
		if (pair_read("node", text, true, nodes, e) < 0)
			return -1;
	if (cli_given(c, "call-timeout"))
		json_object_set_new(device, "timeout_ms", json_integer(cli_number(c, "call-timeout", 0) * 1000));
	if (cli_given(c, "delay"))
		json_object_set_new(device, "delay_ms", json_integer(cli_number(c, "delay", 0) * 1000));
	return request_fields(c, device, e);
}

/* A secret in the arguments was seen by everybody on this host. */
static void tell_seen(struct cli *c, const json_t *answer)
{
	json_t *name;
	size_t i;

	json_array_foreach (json_object_get(answer, "secret"), i, name) {
		const char *text, *secret = json_string_value(name);
		size_t n = strlen(secret);

		for (size_t k = 0; (text = cli_nth(c, "option", k)); k++)
			if (!strncmp(text, secret, n) && text[n] == '=')
				fprintf(c->io->err,
					"warning: %s was on the command line, where everybody on this host can read "
					"it; change it "
					"at the device, and give it with --secret-file %s=FILE\n",
					secret, secret);
	}
}

static int device_send(struct cli *c, const json_t *device, struct err *e)
{
	_free_ char *target = request_target(c, c->command->path);
	json_t *answer = NULL;
	int r = request(c, c->command->method, target, device, &answer, e);

	if (r == 0) {
		tell_seen(c, answer);
		r = run_answer(c, answer, e);
	}
	json_decref(answer);
	return r;
}

int fence_add_run(struct cli *c, struct err *e)
{
	json_t *device = json_pack("{s:{}, s:{}}", "options", "nodes");
	int r = device_read(c, device, e);

	if (r == 0)
		r = device_send(c, device, e);
	json_decref(device);
	return r;
}

/* The device as it is, without what is not for us to send. */
static json_t *device_now(struct cli *c, struct err *e)
{
	static const char *const kept[] = {"agent",      "options",  "nodes",   "priority",
					   "timeout_ms", "attempts", "delay_ms"};
	_free_ char *target = request_target(c, c->command->path);
	json_t *answer = NULL, *device = json_object();

	if (request(c, "GET", target, NULL, &answer, e) < 0) {
		json_decref(device);
		return NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (json_object_get(answer, kept[i]))
			json_object_set(device, kept[i], json_object_get(answer, kept[i]));
	json_decref(answer);
	return device;
}

static int drop(struct cli *c, const char *option, json_t *from, struct err *e)
{
	const char *text;

	for (size_t i = 0; (text = cli_nth(c, option, i)); i++)
		if (json_object_del(from, text) < 0)
			return err_set(e, ERR_NOTFOUND, "--%s %s: fence device %s has none of that name", option, text,
				       cli_text(c, "NAME"));
	return 0;
}

int fence_edit_run(struct cli *c, struct err *e)
{
	json_t *device = device_now(c, e);
	int r = device && drop(c, "drop-option", json_object_get(device, "options"), e) == 0 &&
				drop(c, "drop-node", json_object_get(device, "nodes"), e) == 0 &&
				device_read(c, device, e) == 0
			? 0
			: -1;

	if (r == 0)
		r = device_send(c, device, e);
	json_decref(device);
	return r;
}
