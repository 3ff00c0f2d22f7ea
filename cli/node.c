/* SPDX-License-Identifier: Apache-2.0 */
/* godwit node, godwit baseline: the hosts, and the CPU that all of them can be. */
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"

static const struct view_column list_view[] = {
	{"NAME", "name", VIEW_TEXT},           {"ID", "id", VIEW_TEXT},
	{"ONLINE", "online", VIEW_TEXT},       {"STATE", "state", VIEW_TEXT},
	{"CPUS", "cpus", VIEW_TEXT},           {"MEMORY", "memory", VIEW_BYTES},
	{"FREE", "memory_free", VIEW_BYTES},   {"VMS", "vms", VIEW_TEXT},
	{"ADDRESSES", "addresses", VIEW_LIST}, {NULL, NULL, VIEW_TEXT},
};

static const struct view_column node_view[] = {
	{"name", "name", VIEW_TEXT},
	{"id", "id", VIEW_TEXT},
	{"addresses", "addresses", VIEW_LIST},
	{"online", "online", VIEW_TEXT},
	{"state", "state", VIEW_TEXT},
	{"life", "life", VIEW_TEXT},
	{"since", "life_since", VIEW_TIME},
	{"fencing", "fencing", VIEW_TEXT},
	{"put aside", "aside", VIEW_TEXT},
	{"frozen", "frozen", VIEW_TEXT},
	{"cpus", "cpus", VIEW_TEXT},
	{"memory", "memory", VIEW_BYTES},
	{"memory free", "memory_free", VIEW_BYTES},
	{"promised to guests", "memory_promised", VIEW_BYTES},
	{"guests", "vms", VIEW_TEXT},
	{"folders not reached", "report.unreached", VIEW_JSON},
	{"joined", "joined", VIEW_TIME},
	{"last report", "reported", VIEW_TIME},
	{"certificate", "fingerprint", VIEW_TEXT},
	{"report", "report", VIEW_JSON},
	{NULL, NULL, VIEW_TEXT},
};

static const struct view_column fenced_view[] = {
	{"name", "node", VIEW_TEXT},           {"result", "result", VIEW_TEXT},      {"by level", "level", VIEW_TEXT},
	{"on again", "powered_on", VIEW_TEXT}, {"what was said", "text", VIEW_TEXT}, {NULL, NULL, VIEW_TEXT},
};

#define OPERAND_NODE                                                                                                   \
	{                                                                                                              \
		.name = "NAME", .kind = CLI_NODE, .help = "the host"                                                   \
	}

const struct cli_group node_group = {
	"node",
	"the hosts of the cluster",
	(const struct cli_command[]){
		{.verb = "list",
		 .options = (const struct cli_param[]){PARAM_NAMES, {0}},
		 .summary = "List the hosts",
		 .method = "GET",
		 .path = "/v1/nodes",
		 .view = list_view},
		{.verb = "show",
		 .operands = (const struct cli_param[]){OPERAND_NODE, {0}},
		 .summary = "Show one host",
		 .method = "GET",
		 .path = "/v1/nodes/{NAME}",
		 .view = node_view},
		{.verb = "remove",
		 .operands = (const struct cli_param[]){OPERAND_NODE, {0}},
		 .options = (const struct cli_param[]){{.name = "force",
							.kind = CLI_FLAG,
							.field = "force",
							.help = "even at the cost of quorum"},
						       {0}},
		 .summary = "Take a host without guests out of the cluster",
		 .method = "DELETE",
		 .path = "/v1/nodes/{NAME}",
		 .done = "removed"},
		{.verb = "fence",
		 .operands = (const struct cli_param[]){OPERAND_NODE, {0}},
		 .options = (const struct cli_param[]){{.name = "action",
							.value = "ACTION",
							.kind = CLI_CHOICE,
							.words = "off|on|reboot",
							.field = "action",
							.help = "off (and put aside), on, or reboot (the default)"},
						       {0}},
		 .summary = "Switch the power of a host by its fence devices",
		 .method = "POST",
		 .path = "/v1/nodes/{NAME}/fence",
		 .view = fenced_view},
		{.verb = "activate",
		 .operands = (const struct cli_param[]){OPERAND_NODE, {0}},
		 .summary = "Take back a host that was put aside",
		 .method = "POST",
		 .path = "/v1/nodes/{NAME}/activate",
		 .done = "is used again"},
		{.verb = "confirm-dead",
		 .operands = (const struct cli_param[]){OPERAND_NODE, {0}},
		 .options =
			 (const struct cli_param[]){
				 {.name = "yes-i-have-checked",
				  .kind = CLI_FLAG,
				  .help = "you have looked: the host is off and stays off; if it is not, "
					  "its guests run twice and destroy their disks"},
				 {0}},
		 .summary = "Say that a lost host is dead, so that its guests are started elsewhere",
		 .method = "POST",
		 .path = "/v1/nodes/{NAME}/confirm-dead",
		 .run = node_confirm_dead_run},
		{0},
	},
};

/* ---- baseline ---- */

static const struct view_column baseline_view[] = {
	{"best model of all", "model", VIEW_TEXT}, {"for a definition", "cpu", VIEW_TEXT},
	{"x86-64 level", "level", VIEW_TEXT},      {"all can run", "usable", VIEW_LIST},
	{"best of any", "best", VIEW_TEXT},        {NULL, NULL, VIEW_TEXT},
};

static const struct view_column baseline_hosts_view[] = {
	{"NODE", "name", VIEW_TEXT},
	{"ALONE", "own", VIEW_TEXT},
	{"LACKS FOR THE BEST OF ANY", "lacks", VIEW_LIST},
	{"BECAUSE", "reason", VIEW_TEXT},
	{NULL, NULL, VIEW_TEXT},
};

static int baseline_run(struct cli *c, struct err *e)
{
	json_t *answer = NULL;
	int r = request_command(c, &answer, e);

	if (r == 0)
		r = run_answer(c, answer, e);
	if (r == 0 && !c->json && json_array_size(json_object_get(answer, "hosts"))) {
		fputc('\n', c->io->out);
		view_print(c->io->out, json_object_get(answer, "hosts"), baseline_hosts_view);
	}
	json_decref(answer);
	return r;
}

const struct cli_group baseline_group = {
	"baseline",
	"the best CPU model that all hosts can run",
	(const struct cli_command[]){
		{.options = (const struct cli_param[]){{.name = "nodes",
							.value = "NAME,NAME...",
							.kind = CLI_TEXT,
							.field = "nodes",
							.help = "only these hosts"},
						       {0}},
		 .summary = "Show the best CPU model that all hosts can run",
		 .method = "GET",
		 .path = "/v1/baseline",
		 .view = baseline_view,
		 .run = baseline_run},
		{0},
	},
};
