/* SPDX-License-Identifier: Apache-2.0 */
/* godwit task: long actions. */
#include "cli/groups.h"
#include "cli/run.h"

static const struct view_column list_view[] = {
	{"ID", "id", VIEW_TEXT},       {"KIND", "kind", VIEW_TEXT},       {"OBJECT", "object", VIEW_TEXT},
	{"NODE", "node", VIEW_TEXT},   {"STATE", "state", VIEW_TEXT},     {"DONE", "progress", VIEW_PERCENT},
	{"LEFT", "eta_ms", VIEW_MS},   {"CREATED", "created", VIEW_TIME}, {"FINISHED", "finished", VIEW_TIME},
	{"ERROR", "error", VIEW_TEXT}, {NULL, NULL, VIEW_TEXT},
};

static const struct view_column task_view[] = {
	{"id", "id", VIEW_TEXT},         {"kind", "kind", VIEW_TEXT},       {"object", "object", VIEW_TEXT},
	{"node", "node", VIEW_TEXT},     {"state", "state", VIEW_TEXT},     {"done", "progress", VIEW_PERCENT},
	{"left", "eta_ms", VIEW_MS},     {"note", "note", VIEW_TEXT},       {"error", "error", VIEW_TEXT},
	{"by", "by", VIEW_TEXT},         {"created", "created", VIEW_TIME}, {"finished", "finished", VIEW_TIME},
	{"result", "result", VIEW_JSON}, {NULL, NULL, VIEW_TEXT},
};

const struct cli_group task_group = {
	"task",
	"long actions, and how far they are",
	(const struct cli_command[]){
		{.verb = "list",
		 .options = (const struct cli_param[]){{.name = "active",
							.kind = CLI_FLAG,
							.field = "active",
							.help = "only those that have not ended"},
						       PARAM_NAMES,
						       {0}},
		 .summary = "List the long actions, oldest first",
		 .method = "GET",
		 .path = "/v1/tasks",
		 .view = list_view},
		{.verb = "show",
		 .operands = (const struct cli_param[]){{.name = "ID", .kind = CLI_TASK, .help = "the task"}, {0}},
		 .summary = "Show one long action",
		 .method = "GET",
		 .path = "/v1/tasks/{ID}",
		 .view = task_view},
		{0},
	},
};
