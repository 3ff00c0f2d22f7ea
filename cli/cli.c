/* SPDX-License-Identifier: Apache-2.0 */
/* One run of godwit: parse, run, tell how it went. */
#include <stdlib.h>

#include "base/mem.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/help.h"
#include "cli/request.h"
#include "cli/run.h"

/* The last word about a failure. Returns the exit status. */
static int fail(const struct cli *c, const struct err *e)
{
	const char *hint = request_hint(c, e);
	_free_ char *text = text_clean(e->text);
	int status = err_exit_status(e->code);

	if (c->json) {
		json_t *o = json_pack("{s:{s:s, s:s, s:i}}", "error", "code", err_code_name(e->code), "message", text,
				      "exit", status);

		view_print_json(c->io->out, o);
		json_decref(o);
	}
	fprintf(c->io->err, "godwit: %s\n", text);
	if (hint)
		fprintf(c->io->err, "godwit: %s\n", hint);
	return status;
}

static int run(struct cli *c, struct err *e)
{
	return c->command->run ? c->command->run(c, e) : run_command(c, e);
}

int cli_main(int argc, char *const *argv, const struct cli_io *io)
{
	struct cli c = {.io = io};
	struct err e = ERR_INIT;
	int r = cli_parse(&c, argc, argv, &e), status = 0;

	if (r == 0 && c.help)
		help_print(io->out, c.group, c.command);
	else if (r == 0)
		r = run(&c, &e);
	if (r < 0)
		status = fail(&c, &e);
	cli_done(&c);
	if (fflush(io->out) == EOF && status == 0)
		status = 1;
	return status;
}
