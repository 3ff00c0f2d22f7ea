/* SPDX-License-Identifier: Apache-2.0 */
/* godwit vm: guests. */
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/terminal.h"
#include "base/text.h"
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"

#define CONSOLE_PROTOCOL "godwit-console"
#define CONSOLE_S 30 /* until the stream must be there */

static const struct view_column list_view[] = {
	{"NAME", "name", VIEW_TEXT},     {"STATUS", "status", VIEW_TEXT},  {"NODE", "owner", VIEW_TEXT},
	{"VCPUS", "vcpus", VIEW_TEXT},   {"MEMORY", "memory", VIEW_BYTES}, {"SINCE", "since", VIEW_TIME},
	{"WANTED", "intent", VIEW_TEXT}, {"HA", "ha.mode", VIEW_TEXT},     {"NOTE", "note", VIEW_TEXT},
	{NULL, NULL, VIEW_TEXT},
};

static const struct view_column vm_view[] = {
	{"name", "name", VIEW_TEXT},
	{"uuid", "uuid", VIEW_TEXT},
	{"status", "status", VIEW_TEXT},
	{"since", "since", VIEW_TIME},
	{"wanted", "intent", VIEW_TEXT},
	{"node", "owner", VIEW_TEXT},
	{"epoch", "epoch", VIEW_TEXT},
	{"migration", "migration", VIEW_TEXT},
	{"note", "note", VIEW_TEXT},
	{"waits", "waiting", VIEW_TEXT},
	{"when it dies", "ha.mode", VIEW_TEXT},
	{"priority", "ha.priority", VIEW_TEXT},
	{"vcpus", "vcpus", VIEW_TEXT},
	{"memory", "memory", VIEW_BYTES},
	{"version", "version", VIEW_TEXT},
	{"definition", "definition", VIEW_JSON},
	{NULL, NULL, VIEW_TEXT},
};

static const struct view_column versions_view[] = {
	{"VERSION", "version", VIEW_TEXT},
	{"TIME", "time", VIEW_TIME},
	{"BY", "by", VIEW_TEXT},
	{NULL, NULL, VIEW_TEXT},
};

/* ---- list ---- */

/* Sentences are too long for a table: those that wait say why below it, on standard error. */
static int list_run(struct cli *c, struct err *e)
{
	json_t *answer = NULL, *vm;
	int r = request_command(c, &answer, e);
	size_t i;

	if (r == 0)
		r = run_answer(c, answer, e);
	json_array_foreach (r == 0 && !c->json && !cli_given(c, "names") ? answer : NULL, i, vm) {
		const char *why = json_string_value(json_object_get(vm, "waiting"));
		_free_ char *safe = text_clean(why);

		if (why)
			fprintf(c->io->err, "waits: %s\n", safe);
	}
	json_decref(answer);
	return r;
}

/* ---- console ---- */

static int attach(struct cli *c, const struct terminal_peer *peer, struct err *e)
{
	const char *name = cli_text(c, "NAME");
	enum terminal_end end;

	if (c->io->in_tty)
		fprintf(c->io->err, "console of %s; Ctrl-] leaves\n", name);
	fflush(c->io->err);
	if (terminal_attach(peer, c->io->in_fd, c->io->out_fd, &end, e) < 0)
		return err_wrap(e, "console of vm %s", name);
	if (c->io->in_tty)
		fprintf(c->io->err, "\nconsole of %s: %s\n", name, terminal_end_words[end]);
	return 0;
}

static int console_run(struct cli *c, struct err *e)
{
	_free_ char *target = request_target(c, c->command->path);
	struct terminal_peer peer;

	if (request_client(c, &c->client, e) < 0)
		return -1;
	if (http_client_upgrade(c->client, target, CONSOLE_PROTOCOL, clock_now_ns() + CONSOLE_S * NS_PER_S, &peer, e) <
	    0)
		return request_failed(c, e);
	return attach(c, &peer, e);
}

/* ---- definition, forecast ---- */

/* The definition alone: it can be changed and given back with `vm edit --file`. */
static int definition_run(struct cli *c, struct err *e)
{
	json_t *answer = NULL;
	int r = request_command(c, &answer, e);

	if (r == 0 && c->json) {
		view_print_json(c->io->out, answer);
	} else if (r == 0) {
		json_dumpf(json_object_get(answer, "definition"), c->io->out, JSON_INDENT(2) | JSON_ENCODE_ANY);
		fputc('\n', c->io->out);
	}
	json_decref(answer);
	return r;
}

static int forecast_run(struct cli *c, struct err *e)
{
	json_t *answer = NULL;
	int r = request_command(c, &answer, e);

	if (r == 0 && c->json)
		view_print_json(c->io->out, answer);
	else if (r == 0)
		run_forecast(c, answer);
	json_decref(answer);
	return r;
}

/* ---- the table ---- */

#define PARAM_TO                                                                                                       \
	{                                                                                                              \
		.name = "to", .value = "NODE", .kind = CLI_NODE, .field = "to",                                        \
		.help = "the destination (default: the best)"                                                          \
	}
#define PARAM_MAX_PAUSE                                                                                                \
	{                                                                                                              \
		.name = "max-pause", .value = "MS", .kind = CLI_NUMBER, .min = 1, .max = 60000,                        \
		.field = "max_pause_ms", .help = "the longest pause of the guest that is allowed, in milliseconds"     \
	}
#define PARAM_BANDWIDTH                                                                                                \
	{                                                                                                              \
		.name = "bandwidth", .value = "RATE", .kind = CLI_RATE, .min = 1, .field = "bandwidth",                \
		.help = "carry at most so many bytes a second: 500k, 100M, 1G"                                         \
	}

static const struct cli_param operand_vm[] = {OPERAND_VM, {0}};
static const struct cli_param only_no_wait[] = {PARAM_NO_WAIT, {0}};

static const struct cli_param start_options[] = {
	{.name = "node", .value = "NODE", .kind = CLI_NODE, .field = "node", .help = "on this host; it must be down"},
	PARAM_FORCE_START,
	PARAM_NO_WAIT,
	{0},
};

static const struct cli_param stop_options[] = {
	{.name = "timeout",
	 .value = "TIME",
	 .kind = CLI_SECONDS,
	 .max = 86400,
	 .field = "timeout_s",
	 .help = "how long the guest has for powering itself off"},
	PARAM_NO_WAIT,
	{0},
};

static const struct cli_param migrate_options[] = {
	PARAM_TO,
	PARAM_MAX_PAUSE,
	{.name = "deadline",
	 .value = "TIME",
	 .kind = CLI_SECONDS,
	 .min = 1,
	 .max = 604800,
	 .field = "deadline_s",
	 .help = "give up when the copy takes longer"},
	{.name = "auto-converge",
	 .kind = CLI_FLAG,
	 .field = "auto_converge",
	 .help = "slow the guest down when it writes faster than the wire carries"},
	PARAM_BANDWIDTH,
	{.name = "dry-run", .kind = CLI_FLAG, .field = "dry_run", .help = "only say where to and what it would cost"},
	PARAM_NO_WAIT,
	{0},
};

static const struct cli_param edit_options[] = {
	{.name = "file",
	 .value = "FILE",
	 .kind = CLI_FILE,
	 .help = "replace it by this one, without an editor; - reads standard input"},
	{.name = "if-version",
	 .value = "N",
	 .kind = CLI_NUMBER,
	 .min = 1,
	 .max = INT64_MAX,
	 .only_with = "file",
	 .help = "with --file: only if this is the newest version"},
	{0},
};

static const struct cli_param definition_options[] = {
	{.name = "version",
	 .value = "N",
	 .kind = CLI_NUMBER,
	 .min = 1,
	 .max = INT64_MAX,
	 .field = "version",
	 .help = "this version (default: the newest)"},
	{0},
};

static const struct cli_param forecast_options[] = {PARAM_TO, PARAM_MAX_PAUSE, PARAM_BANDWIDTH, {0}};

static const struct cli_param create_operands[] = {
	{.name = "NAME", .kind = CLI_TEXT, .help = "a name for the guest"},
	{0},
};

static const struct cli_param list_options[] = {PARAM_NAMES, {0}};

static const struct cli_command commands[] = {
	{.verb = "create",
	 .operands = create_operands,
	 .options = vm_create_options,
	 .summary = "Create a guest, and start it where it fits",
	 .method = "POST",
	 .path = "/v1/vms",
	 .done = "created",
	 .run = vm_create_run},
	{.verb = "list",
	 .options = list_options,
	 .summary = "List the guests",
	 .method = "GET",
	 .path = "/v1/vms",
	 .view = list_view,
	 .run = list_run},
	{.verb = "show",
	 .operands = operand_vm,
	 .summary = "Show one guest",
	 .method = "GET",
	 .path = "/v1/vms/{NAME}",
	 .view = vm_view},
	{.verb = "start",
	 .operands = operand_vm,
	 .options = start_options,
	 .summary = "Start a guest; elsewhere if it is down and its host is away or full",
	 .method = "POST",
	 .path = "/v1/vms/{NAME}/start",
	 .done = "started"},
	{.verb = "stop",
	 .operands = operand_vm,
	 .options = stop_options,
	 .summary = "Stop a guest: ACPI power button, then quit, then kill",
	 .method = "POST",
	 .path = "/v1/vms/{NAME}/stop",
	 .done = "stopped"},
	{.verb = "kill",
	 .operands = operand_vm,
	 .options = only_no_wait,
	 .summary = "End a guest at once",
	 .method = "POST",
	 .path = "/v1/vms/{NAME}/kill",
	 .done = "killed"},
	{.verb = "delete",
	 .operands = operand_vm,
	 .summary = "Forget a stopped guest; its disks stay",
	 .method = "DELETE",
	 .path = "/v1/vms/{NAME}",
	 .done = "deleted; its disks stay"},
	{.verb = "ha",
	 .operands = operand_vm,
	 .options = vm_ha_options,
	 .summary = "Show or say what is done for a guest when it or its host dies",
	 .method = "PUT",
	 .path = "/v1/vms/{NAME}/ha",
	 .run = vm_ha_run},
	{.verb = "console",
	 .operands = operand_vm,
	 .summary = "Attach this terminal to a guest's serial console; Ctrl-] leaves",
	 .method = "GET",
	 .path = "/v1/vms/{NAME}/console",
	 .run = console_run},
	{.verb = "migrate",
	 .operands = operand_vm,
	 .options = migrate_options,
	 .summary = "Move a running guest to another host; Ctrl-C cancels",
	 .method = "POST",
	 .path = "/v1/vms/{NAME}/migrate",
	 .done = "moved",
	 .run = vm_migrate_run},
	{.verb = "forecast",
	 .operands = operand_vm,
	 .options = forecast_options,
	 .summary = "Say what a move would cost",
	 .method = "GET",
	 .path = "/v1/vms/{NAME}/forecast",
	 .run = forecast_run},
	{.verb = "edit",
	 .operands = operand_vm,
	 .options = edit_options,
	 .summary = "Change a guest's definition in $VISUAL or $EDITOR; it counts from the next start",
	 .method = "PUT",
	 .path = "/v1/vms/{NAME}",
	 .run = vm_edit_run},
	{.verb = "definition",
	 .operands = operand_vm,
	 .options = definition_options,
	 .summary = "Print a version of a guest's definition",
	 .method = "GET",
	 .path = "/v1/vms/{NAME}/definition",
	 .run = definition_run},
	{.verb = "versions",
	 .operands = operand_vm,
	 .summary = "List the versions of a guest's definition",
	 .method = "GET",
	 .path = "/v1/vms/{NAME}/versions",
	 .view = versions_view},
	{0},
};

const struct cli_group vm_group = {"vm", "guests", commands};
