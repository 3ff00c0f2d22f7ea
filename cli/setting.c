/* SPDX-License-Identifier: Apache-2.0 */
/* godwit setting: what placement and migrations go by. */
#include "base/mem.h"
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"

static const struct view_column list_view[] = {
	{"KEY", "key", VIEW_TEXT}, {"VALUE", "value", VIEW_TEXT}, {"CHANGED", "changed", VIEW_TIME},
	{"BY", "by", VIEW_TEXT},   {NULL, NULL, VIEW_TEXT},
};

/* Send @value (taken). */
static int put(struct cli *c, json_t *value, struct err *e)
{
	_free_ char *target = request_target(c, c->command->path);
	json_t *body = json_pack("{s:o}", "value", value), *answer = NULL;
	int r = request(c, c->command->method, target, body, &answer, e);

	if (r == 0)
		r = run_answer(c, answer, e);
	json_decref(body);
	json_decref(answer);
	return r;
}

/* A value is JSON, or else a text. */
static int set_run(struct cli *c, struct err *e)
{
	json_t *value = json_loads(cli_text(c, "VALUE"), JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);

	if (!value)
		value = json_string(cli_text(c, "VALUE"));
	return value ? put(c, value, e) : err_set(e, ERR_USAGE, "the value is not UTF-8");
}

static int unset_run(struct cli *c, struct err *e)
{
	return put(c, json_null(), e);
}

#define OPERAND_KEY                                                                                                    \
	{                                                                                                              \
		.name = "KEY", .kind = CLI_SETTING, .help = "the setting, such as placement.vcpu-ratio"                \
	}

const struct cli_group setting_group = {
	"setting",
	"what placement and moves go by",
	(const struct cli_command[]){
		{.verb = "list",
		 .options = (const struct cli_param[]){PARAM_NAMES, {0}},
		 .summary = "List the settings that were set",
		 .method = "GET",
		 .path = "/v1/settings",
		 .view = list_view},
		{.verb = "set",
		 .operands =
			 (const struct cli_param[]){OPERAND_KEY,
						    {.name = "VALUE",
						     .kind = CLI_TEXT,
						     .help = "a number, true, false, another JSON value, or a text"},
						    {0}},
		 .summary = "Set one",
		 .method = "PUT",
		 .path = "/v1/settings/{KEY}",
		 .done = "set",
		 .run = set_run},
		{.verb = "unset",
		 .operands = (const struct cli_param[]){OPERAND_KEY, {0}},
		 .summary = "Take one away: what is built in counts again",
		 .method = "PUT",
		 .path = "/v1/settings/{KEY}",
		 .done = "unset",
		 .run = unset_run},
		{0},
	},
};
