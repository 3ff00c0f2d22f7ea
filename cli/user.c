/* SPDX-License-Identifier: Apache-2.0 */
/* godwit user, godwit audit: who may do what, and who did. */
#include "base/mem.h"
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"

static const struct view_column list_view[] = {
	{"NAME", "name", VIEW_TEXT}, {"ROLE", "role", VIEW_TEXT}, {"CREATED", "created", VIEW_TIME},
	{"BY", "by", VIEW_TEXT},     {NULL, NULL, VIEW_TEXT},
};

/* The token alone goes to standard output, for scripts. */
static int create_run(struct cli *c, struct err *e)
{
	json_t *answer = NULL;
	int r = request_command(c, &answer, e);

	if (r == 0 && c->json) {
		view_print_json(c->io->out, answer);
	} else if (r == 0) {
		fprintf(c->io->out, "%s\n", json_string_value(json_object_get(answer, "token")));
		fprintf(c->io->err, "the token of %s; it is shown this once: keep it in a file, for --token-file\n",
			cli_text(c, "NAME"));
	}
	json_decref(answer);
	return r;
}

const struct cli_group user_group = {
	"user",
	"users of the API, and their tokens",
	(const struct cli_command[]){
		{.verb = "create",
		 .operands =
			 (const struct cli_param[]){
				 {.name = "NAME", .kind = CLI_TEXT, .field = "name", .help = "a name for the user"},
				 {0}},
		 .options =
			 (const struct cli_param[]){{.name = "role",
						     .value = "ROLE",
						     .kind = CLI_CHOICE,
						     .words = "viewer|operator|admin",
						     .field = "role",
						     .required = true,
						     .help = "viewer looks, operator cares for guests, admin does all"},
						    {0}},
		 .summary = "Make a user and print the token",
		 .method = "POST",
		 .path = "/v1/users",
		 .run = create_run},
		{.verb = "list",
		 .options = (const struct cli_param[]){PARAM_NAMES, {0}},
		 .summary = "List the users",
		 .method = "GET",
		 .path = "/v1/users",
		 .view = list_view},
		{.verb = "delete",
		 .operands = (const struct cli_param[]){{.name = "NAME", .kind = CLI_USER, .help = "the user"}, {0}},
		 .summary = "Remove a user; the token is good for nothing from then on",
		 .method = "DELETE",
		 .path = "/v1/users/{NAME}",
		 .done = "deleted"},
		{0},
	},
};

static const struct view_column audit_view[] = {
	{"NUMBER", "seq", VIEW_TEXT}, {"TIME", "time", VIEW_TIME}, {"BY", "by", VIEW_TEXT},
	{"FROM", "from", VIEW_TEXT},  {"WHAT", "op", VIEW_TEXT},   {"OBJECT", "object", VIEW_TEXT},
	{NULL, NULL, VIEW_TEXT},
};

const struct cli_group audit_group = {
	"audit",
	"who changed what",
	(const struct cli_command[]){
		{.options = (const struct cli_param[]){{.name = "limit",
							.value = "N",
							.kind = CLI_NUMBER,
							.min = 1,
							.max = 1000,
							.field = "limit",
							.help = "at most so many"},
						       {.name = "before",
							.value = "NUMBER",
							.kind = CLI_NUMBER,
							.min = 1,
							.max = INT64_MAX,
							.field = "before",
							.help = "only those with a smaller number"},
						       {0}},
		 .summary = "Show who changed what, newest first",
		 .method = "GET",
		 .path = "/v1/audit",
		 .view = audit_view},
		{0},
	},
};
