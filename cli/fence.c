/* SPDX-License-Identifier: Apache-2.0 */
/* godwit fence: what can switch hosts off, in what order it is tried, and what was. */
#include <stdlib.h>
#include <string.h>

#include "base/http-message.h"
#include "base/mem.h"
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"

#define DEVICES "/v1/fence-devices"

/* ---- what people see ---- */

static const struct view_column list_view[] = {
	{"DEVICE", "name", VIEW_TEXT},     {"AGENT", "agent", VIEW_TEXT},
	{"PLUGS", "plugs", VIEW_LIST},     {"PRIORITY", "priority", VIEW_TEXT},
	{"CHANGED", "changed", VIEW_TIME}, {"BY", "by", VIEW_TEXT},
	{NULL, NULL, VIEW_TEXT},
};

static const struct view_column device_view[] = {
	{"device", "name", VIEW_TEXT},
	{"agent", "agent", VIEW_TEXT},
	{"plugs", "plugs", VIEW_LIST},
	{"options", "set", VIEW_LIST},
	{"priority", "priority", VIEW_TEXT},
	{"time-out of a call", "timeout_ms", VIEW_MS},
	{"attempts", "attempts", VIEW_TEXT},
	{"delay", "delay_ms", VIEW_MS},
	{"changed", "changed", VIEW_TIME},
	{"by", "by", VIEW_TEXT},
	{NULL, NULL, VIEW_TEXT},
};

static const struct view_column levels_view[] = {
	{"NODE", "node", VIEW_TEXT},
	{"LEVEL", "level", VIEW_TEXT},
	{"DEVICES", "devices", VIEW_LIST},
	{NULL, NULL, VIEW_TEXT},
};

static const struct view_column history_view[] = {
	{"NUMBER", "number", VIEW_TEXT},  {"NODE", "node", VIEW_TEXT},   {"LOST", "began", VIEW_TIME},
	{"BECAUSE", "reason", VIEW_TEXT}, {"PROOF", "proof", VIEW_TEXT}, {"DEVICE", "device", VIEW_TEXT},
	{"FENCED", "fenced", VIEW_TIME},  {"BACK", "alive", VIEW_TIME},  {NULL, NULL, VIEW_TEXT},
};

static const struct view_column steps_view[] = {
	{"FENCING", "fencing", VIEW_TEXT}, {"TIME", "time", VIEW_TIME},     {"TRIED", "kind", VIEW_TEXT},
	{"DEVICE", "device", VIEW_TEXT},   {"RESULT", "result", VIEW_TEXT}, {"TEXT", "text", VIEW_TEXT},
	{NULL, NULL, VIEW_TEXT},
};

/* ["n1=3", "n2"] out of {"n1": "3", "n2": null}. */
static json_t *pairs(const json_t *o)
{
	json_t *list = json_array(), *value;
	const char *key;

	json_object_foreach ((json_t *)o, key, value)
		json_array_append_new(list, json_is_string(value) ? json_sprintf("%s=%s", key, json_string_value(value))
								  : json_string(key));
	return list;
}

/* A device with texts of its plugs and options beside them. */
static json_t *device_shown(const json_t *device)
{
	json_t *shown = json_copy((json_t *)device);

	json_object_set_new(shown, "plugs", pairs(json_object_get(device, "nodes")));
	json_object_set_new(shown, "set", pairs(json_object_get(device, "options")));
	return shown;
}

static void print_devices(FILE *out, const json_t *devices)
{
	json_t *shown = json_array(), *d;
	size_t i;

	json_array_foreach (devices, i, d)
		json_array_append_new(shown, device_shown(d));
	view_print(out, shown, list_view);
	json_decref(shown);
}

static int show_run(struct cli *c, struct err *e)
{
	json_t *answer = NULL, *shown;
	int r = request_command(c, &answer, e);

	if (r == 0 && c->json) {
		view_print_json(c->io->out, answer);
	} else if (r == 0) {
		shown = device_shown(answer);
		view_print(c->io->out, shown, device_view);
		json_decref(shown);
	}
	json_decref(answer);
	return r;
}

/* Devices, levels, and how the last losses of hosts went. */
static int list_run(struct cli *c, struct err *e)
{
	json_t *devices = NULL, *levels = NULL, *fencings = NULL;
	int r = request(c, "GET", DEVICES, NULL, &devices, e);
	bool names = cli_given(c, "names");

	if (r == 0 && !names)
		r = request(c, "GET", "/v1/fence-levels", NULL, &levels, e) < 0 ||
				    request(c, "GET", "/v1/fencings?limit=5", NULL, &fencings, e) < 0
			    ? -1
			    : 0;
	if (r == 0 && names) {
		view_print_field(c->io->out, devices, "name");
	} else if (r == 0 && c->json) {
		json_t *all = json_pack("{s:O, s:O, s:O}", "devices", devices, "levels", levels, "history", fencings);

		view_print_json(c->io->out, all);
		json_decref(all);
	} else if (r == 0) {
		print_devices(c->io->out, devices);
		if (json_array_size(levels)) {
			fputc('\n', c->io->out);
			view_print(c->io->out, levels, levels_view);
		}
		if (json_array_size(fencings)) {
			fputc('\n', c->io->out);
			view_print(c->io->out, fencings, history_view);
		}
	}
	json_decref(devices);
	json_decref(levels);
	json_decref(fencings);
	return r;
}

/* The losses, then what was tried, the latest last. */
static int history_run(struct cli *c, struct err *e)
{
	json_t *answer = NULL, *steps = json_array(), *f, *s;
	int r = request_command(c, &answer, e);
	size_t i, k;

	for (i = json_array_size(answer); i-- > 0;) {
		f = json_array_get(answer, i);
		json_array_foreach (json_object_get(f, "steps"), k, s) {
			json_t *row = json_copy(s);

			json_object_set(row, "fencing", json_object_get(f, "number"));
			json_array_append_new(steps, row);
		}
	}
	if (r == 0 && c->json) {
		view_print_json(c->io->out, answer);
	} else if (r == 0) {
		view_print(c->io->out, answer, history_view);
		if (json_array_size(steps)) {
			fputc('\n', c->io->out);
			view_print(c->io->out, steps, steps_view);
		}
	}
	json_decref(steps);
	json_decref(answer);
	return r;
}

/* ---- levels ---- */

static int level_run(struct cli *c, struct err *e)
{
	_free_ char *target = request_target(c, c->command->path);
	json_t *body = json_pack("{s:[]}", "devices"), *answer = NULL;
	const char *name;
	int r;

	for (size_t i = 0; (name = cli_nth(c, "DEVICE", i)); i++)
		json_array_append_new(json_object_get(body, "devices"), json_string(name));
	r = request(c, c->command->method, target, body, &answer, e);
	if (r == 0)
		r = run_answer(c, answer, e);
	json_decref(body);
	json_decref(answer);
	return r;
}

/* ---- test ---- */

static const struct view_column test_view[] = {
	{"DEVICE", "device", VIEW_TEXT}, {"NODE", "node", VIEW_TEXT}, {"PLUG", "plug", VIEW_TEXT},
	{"STATE", "state", VIEW_TEXT},   {"TEXT", "text", VIEW_TEXT}, {NULL, NULL, VIEW_TEXT},
};

/* The lines of one report: the device, then its plugs. */
static void report_rows(const json_t *report, json_t *rows)
{
	const json_t *monitor = json_object_get(report, "monitor");
	json_t *name = json_object_get(report, "device"), *n, *row;
	size_t i;

	json_array_append_new(rows, json_pack("{s:O, s:s, s:O}", "device", name, "state",
					      json_is_true(json_object_get(monitor, "ok")) ? "answers" : "does not",
					      "text", json_object_get(monitor, "text")));
	json_array_foreach (json_object_get(report, "nodes"), i, n) {
		row = json_copy(n);
		json_object_set(row, "device", name);
		json_array_append_new(rows, row);
	}
	json_array_foreach (json_object_get(report, "plugs"), i, n)
		json_array_append_new(rows, json_pack("{s:O, s:O, s:s, s:O}", "device", name, "plug",
						      json_object_get(n, "plug"), "state", "listed", "text",
						      json_object_get(n, "alias")));
}

/* One after the other: two tests at once of one switch would disturb each other. */
static int test_devices(struct cli *c, const json_t *names, json_t *reports, struct err *e)
{
	json_t *body = json_pack("{s:b}", "list", cli_given(c, "list")), *name;
	int r = 0;
	size_t i;

	json_array_foreach (names, i, name) {
		_free_ char *encoded = http_percent_encode(json_string_value(name));
		_free_ char *target = xasprintf(DEVICES "/%s/test", encoded);
		json_t *report = NULL;

		r = request(c, "POST", target, body, &report, e);
		if (r < 0)
			break;
		json_array_append_new(reports, report);
	}
	json_decref(body);
	return r;
}

static int verdict(const json_t *reports, struct err *e)
{
	json_t *report;
	size_t i;

	json_array_foreach (reports, i, report)
		if (!json_is_true(json_object_get(report, "ok")))
			return err_set(e, ERR_PEER, "fence device %s: would not fence now; its lines above say why",
				       json_string_value(json_object_get(report, "device")));
	return 0;
}

/* The names that were given, or those of all devices. New reference, or NULL. */
static json_t *test_names(struct cli *c, struct err *e)
{
	json_t *names = json_array(), *devices = NULL, *d;
	const char *name;
	size_t i;

	for (i = 0; (name = cli_nth(c, "DEVICE", i)); i++)
		json_array_append_new(names, json_string(name));
	if (json_array_size(names) == 0 && request(c, "GET", DEVICES, NULL, &devices, e) < 0) {
		json_decref(names);
		return NULL;
	}
	json_array_foreach (devices, i, d)
		json_array_append(names, json_object_get(d, "name"));
	json_decref(devices);
	return names;
}

static int test_run(struct cli *c, struct err *e)
{
	json_t *names = test_names(c, e), *reports = json_array(), *rows = json_array(), *report;
	int r = names ? test_devices(c, names, reports, e) : -1;
	size_t i;

	json_array_foreach (reports, i, report)
		report_rows(report, rows);
	if (names && c->json)
		view_print_json(c->io->out, reports);
	else if (names)
		view_print(c->io->out, rows, test_view);
	if (r == 0)
		r = verdict(reports, e);
	json_decref(names);
	json_decref(reports);
	json_decref(rows);
	return r;
}

/* ---- a person's word ---- */

int node_confirm_dead_run(struct cli *c, struct err *e)
{
	_free_ char *target = request_target(c, c->command->path);
	const char *name = cli_text(c, "NAME");
	json_t *body, *answer = NULL;
	int r;

	if (!cli_given(c, "yes-i-have-checked"))
		return err_set(
			e, ERR_USAGE,
			"this says that you have seen with your own eyes that host %s is off, or cut from its power "
			"and its disks. Its guests are started elsewhere; if it runs all the same, they run twice "
			"and destroy their disks. Say --yes-i-have-checked if it is so",
			name);
	body = json_pack("{s:b}", "i_have_checked", 1);
	r = request(c, c->command->method, target, body, &answer, e);
	if (r == 0 && c->json)
		view_print_json(c->io->out, answer);
	else if (r == 0)
		fprintf(c->io->out, "node %s: counts as dead, on your word; its guests are started elsewhere\n", name);
	json_decref(body);
	json_decref(answer);
	return r;
}

/* ---- the table ---- */

#define OPERAND_DEVICE                                                                                                 \
	{                                                                                                              \
		.name = "NAME", .kind = CLI_FENCE, .help = "the device"                                                \
	}
static const struct cli_param history_options[] = {
	{.name = "node", .value = "NODE", .kind = CLI_NODE, .field = "node", .help = "of this host only"},
	{.name = "limit",
	 .value = "N",
	 .kind = CLI_NUMBER,
	 .min = 1,
	 .max = 1000,
	 .field = "limit",
	 .help = "at most so many losses (default 20)"},
	{0},
};

#define OPERAND_OF_LEVEL                                                                                               \
	{.name = "NODE", .kind = CLI_NODE, .help = "the host"},                                                        \
	{                                                                                                              \
		.name = "LEVEL", .kind = CLI_NUMBER, .min = 1, .max = 9, .help = "1 is tried first, then 2, ..."       \
	}

static const struct cli_param operand_disk[] = {
	{.name = "PATH", .kind = CLI_FILE, .help = "the disk on this host, such as /dev/disk/by-id/..."},
	{0},
};

static const struct cli_command commands[] = {
	{.verb = "add",
	 .operands =
		 (const struct cli_param[]){
			 {.name = "NAME", .kind = CLI_TEXT, .field = "name", .help = "a name for the device"}, {0}},
	 .options = fence_add_options,
	 .summary = "Add a device that can switch hosts off",
	 .method = "POST",
	 .path = DEVICES,
	 .done = "added; `godwit fence test` tries it",
	 .run = fence_add_run},
	{.verb = "list",
	 .options = (const struct cli_param[]){PARAM_NAMES, {0}},
	 .summary = "List the devices, the levels, and the hosts that were lost lately",
	 .method = "GET",
	 .path = DEVICES,
	 .run = list_run},
	{.verb = "show",
	 .operands = (const struct cli_param[]){OPERAND_DEVICE, {0}},
	 .summary = "Show one device; secrets are masked",
	 .method = "GET",
	 .path = DEVICES "/{NAME}",
	 .run = show_run},
	{.verb = "edit",
	 .operands = (const struct cli_param[]){OPERAND_DEVICE, {0}},
	 .options = fence_edit_options,
	 .summary = "Change a device; what is not given stays",
	 .method = "PUT",
	 .path = DEVICES "/{NAME}",
	 .done = "changed; `godwit fence test` tries it",
	 .run = fence_edit_run},
	{.verb = "delete",
	 .operands = (const struct cli_param[]){OPERAND_DEVICE, {0}},
	 .summary = "Forget a device that no level uses",
	 .method = "DELETE",
	 .path = DEVICES "/{NAME}",
	 .done = "deleted"},
	{.verb = "test",
	 .operands = (const struct cli_param[]){{.name = "DEVICE",
						 .kind = CLI_FENCE,
						 .optional = true,
						 .many = true,
						 .help = "the devices (default: all)"},
						{0}},
	 .options =
		 (const struct cli_param[]){
			 {.name = "list", .kind = CLI_FLAG, .help = "also the plugs that the device says it has"}, {0}},
	 .summary = "Ask devices whether they answer, and for the state of each plug; switches nothing",
	 .method = "POST",
	 .path = DEVICES "/{DEVICE}/test",
	 .run = test_run},
	{.verb = "level",
	 .operands = (const struct cli_param[]){OPERAND_OF_LEVEL,
						{.name = "DEVICE",
						 .kind = CLI_FENCE,
						 .many = true,
						 .help = "all of these must say that the host is off"},
						{0}},
	 .summary = "Say which devices switch a host off, and in which order they are tried",
	 .method = "PUT",
	 .path = "/v1/fence-levels/{NODE}/{LEVEL}",
	 .done = "level set",
	 .run = level_run},
	{.verb = "drop-level",
	 .operands = (const struct cli_param[]){OPERAND_OF_LEVEL, {0}},
	 .summary = "Take a level away",
	 .method = "DELETE",
	 .path = "/v1/fence-levels/{NODE}/{LEVEL}",
	 .done = "level taken away"},
	{.verb = "history",
	 .options = history_options,
	 .summary = "Show which hosts were lost, what was tried, and what proved that they were dead",
	 .method = "GET",
	 .path = "/v1/fencings",
	 .run = history_run},
	{.verb = "disk-format",
	 .operands = operand_disk,
	 .options =
		 (const struct cli_param[]){{.name = "force",
					     .kind = CLI_FLAG,
					     .help = "even if there is something else on it; never one that is in use"},
					    {0}},
	 .summary = "Make a shared disk a fencing disk of this cluster: root, on one host that sees it",
	 .run = fence_disk_format_run},
	{.verb = "disk-list",
	 .operands = operand_disk,
	 .summary = "Show what is on a fencing disk: root, on a host that sees it",
	 .run = fence_disk_list_run},
	{0},
};

const struct cli_group fence_group = {"fence", "switching off hosts that are lost", commands};
