/* SPDX-License-Identifier: Apache-2.0 */
/* godwit migration: moves, and ending them. */
#include <string.h>

#include "base/mem.h"
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"
#include "cli/wait.h"

#define CANCEL_S 120

static const struct view_column list_view[] = {
	{"ID", "id", VIEW_TEXT},       {"VM", "vm", VIEW_TEXT},           {"FROM", "src", VIEW_TEXT},
	{"TO", "dst", VIEW_TEXT},      {"STEP", "step", VIEW_TEXT},       {"DONE", "progress", VIEW_PERCENT},
	{"LEFT", "eta_ms", VIEW_MS},   {"CREATED", "created", VIEW_TIME}, {"FINISHED", "finished", VIEW_TIME},
	{"ERROR", "error", VIEW_TEXT}, {NULL, NULL, VIEW_TEXT},
};

static const struct view_column migration_view[] = {
	{"id", "id", VIEW_TEXT},           {"vm", "vm", VIEW_TEXT},           {"from", "src", VIEW_TEXT},
	{"to", "dst", VIEW_TEXT},          {"step", "step", VIEW_TEXT},       {"done", "progress", VIEW_PERCENT},
	{"left", "eta_ms", VIEW_MS},       {"note", "note", VIEW_TEXT},       {"error", "error", VIEW_TEXT},
	{"by", "by", VIEW_TEXT},           {"created", "created", VIEW_TIME}, {"finished", "finished", VIEW_TIME},
	{"options", "options", VIEW_JSON}, {"detail", "detail", VIEW_JSON},   {NULL, NULL, VIEW_TEXT},
};

/* People name a move by its guest: the id of the move that @text means. Caller frees. NULL with @e. */
static char *migration_id(struct cli *c, struct err *e)
{
	const char *text = cli_text(c, "ID");
	_free_ char *target = request_target(c, "/v1/vms/{ID}");
	json_t *vm = NULL;
	char *id = NULL;

	if (strlen(text) == 36 && strspn(text, "0123456789abcdefABCDEF-") == 36)
		return xstrdup(text);
	if (request(c, "GET", target, NULL, &vm, e) < 0)
		return NULL;
	if (json_is_string(json_object_get(vm, "migration")))
		id = xstrdup(json_string_value(json_object_get(vm, "migration")));
	else
		err_set(e, ERR_NOTFOUND, "vm %s is not being moved; `godwit migration list` shows the moves", text);
	json_decref(vm);
	return id;
}

static int show_run(struct cli *c, struct err *e)
{
	_free_ char *id = migration_id(c, e);
	_free_ char *target = NULL;
	json_t *answer = NULL;
	int r;

	if (!id)
		return -1;
	target = xasprintf("/v1/migrations/%s", id);
	r = request(c, "GET", target, NULL, &answer, e);
	if (r == 0)
		r = run_answer(c, answer, e);
	json_decref(answer);
	return r;
}

static bool is_over(const json_t *migration)
{
	return json_is_integer(json_object_get(migration, "finished"));
}

/* Wait for the end: the guest is where it was, or the cancel came too late. */
static int cancel_wait(struct cli *c, const char *target, json_t **answer, struct err *e)
{
	json_t *end = NULL;
	const char *step;

	if (wait_until(c, target, is_over, CANCEL_S, &end, e) < 0)
		return err_wrap(e, "the move shall end, but has not yet");
	json_decref(*answer);
	*answer = end;
	step = json_string_value(json_object_get(end, "step"));
	if (step && strcmp(step, "cancelled") == 0)
		return 0;
	return err_set(e, ERR_CONFLICT, "too late to cancel: the move ended as %s", step ? step : "unknown");
}

/* What was asked for is under way, or has ended as asked. */
static int cancel_show(struct cli *c, json_t *answer, struct err *e)
{
	if (c->json || !cli_given(c, "no-wait"))
		return run_answer(c, answer, e);
	fprintf(c->io->out, "migration %s: is being cancelled; `godwit migration show %s` says how it ends\n",
		cli_text(c, "ID"), cli_text(c, "ID"));
	return 0;
}

static int cancel_run(struct cli *c, struct err *e)
{
	_free_ char *id = migration_id(c, e);
	_free_ char *target = NULL;
	_free_ char *cancel = NULL;
	json_t *answer = NULL, *nothing = json_object();
	int r = id ? 0 : -1;

	if (r == 0) {
		target = xasprintf("/v1/migrations/%s", id);
		cancel = xasprintf("%s/cancel", target);
		r = request(c, "POST", cancel, nothing, &answer, e);
	}
	if (r == 0 && !cli_given(c, "no-wait"))
		r = cancel_wait(c, target, &answer, e);
	if (r == 0)
		r = cancel_show(c, answer, e);
	json_decref(nothing);
	json_decref(answer);
	return r;
}

static const struct cli_param operand_id[] = {
	{.name = "ID", .kind = CLI_MIGRATION, .help = "the move, or the guest that is moving"},
	{0},
};

const struct cli_group migration_group = {
	"migration",
	"moves of guests",
	(const struct cli_command[]){
		{.verb = "list",
		 .options = (const struct cli_param[]){{.name = "active",
							.kind = CLI_FLAG,
							.field = "active",
							.help = "only those that have not ended"},
						       PARAM_NAMES,
						       {0}},
		 .summary = "List the moves, oldest first",
		 .method = "GET",
		 .path = "/v1/migrations",
		 .view = list_view},
		{.verb = "show",
		 .operands = operand_id,
		 .summary = "Show one move",
		 .method = "GET",
		 .path = "/v1/migrations/{ID}",
		 .view = migration_view,
		 .run = show_run},
		{.verb = "cancel",
		 .operands = operand_id,
		 .options = (const struct cli_param[]){PARAM_NO_WAIT, {0}},
		 .summary = "Cancel a move: the guest runs on where it is",
		 .method = "POST",
		 .path = "/v1/migrations/{ID}/cancel",
		 .done = "cancelled; the guest runs on where it was",
		 .run = cancel_run},
		{0},
	},
};
