/* SPDX-License-Identifier: Apache-2.0 */
/* What --help prints. */
#include "cli/help.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define WIDTH 80
#define OPTION_WIDTH 24

/* A line that is broken between words at WIDTH. */
struct flow {
	FILE *out;
	int column;
	int indent; /* of the lines after the first */
};

static void flow_word(struct flow *f, const char *word)
{
	int n = (int)strlen(word);

	if (f->column + 1 + n > WIDTH && f->column > f->indent) {
		fprintf(f->out, "\n%*s", f->indent, "");
		f->column = f->indent;
	} else if (f->column > 0 && f->column != f->indent) {
		fputc(' ', f->out);
		f->column++;
	}
	fputs(word, f->out);
	f->column += n;
}

/* Words of a sentence. */
static void flow_text(struct flow *f, const char *text)
{
	_free_ char *copy = xstrdup(text);
	char *rest = copy;

	for (char *word; (word = strsep(&rest, " "));)
		flow_word(f, word);
}

/* "[--near VM]..." */
static void flow_option(struct flow *f, const struct cli_param *p)
{
	_free_ char *dashes = p->letter ? xasprintf("-%c|--%s", p->letter, p->name) : xasprintf("--%s", p->name);
	_free_ char *word =
		xasprintf("%s%s%s%s%s%s", p->required ? "" : "[", dashes, p->kind == CLI_FLAG ? "" : " ",
			  p->kind == CLI_FLAG ? "" : p->value, p->required ? "" : "]", p->many ? "..." : "");

	flow_word(f, word);
}

/* "NAME", "DEVICE...", "[DEVICE]..." */
static void flow_operand(struct flow *f, const struct cli_param *p)
{
	_free_ char *word =
		xasprintf("%s%s%s%s", p->optional ? "[" : "", p->name, p->optional ? "]" : "", p->many ? "..." : "");

	flow_word(f, word);
}

/* "vm start NAME [--no-wait]" */
static void print_synopsis(FILE *out, const struct cli_group *g, const struct cli_command *cmd, const char *before)
{
	struct flow f = {.out = out, .indent = 6};

	fputs(before, out);
	f.column = (int)strlen(before);
	fputs(cli_command_words(g, cmd), out);
	f.column += (int)strlen(cli_command_words(g, cmd));
	for (const struct cli_param *p = cmd->operands; p && p->name; p++)
		flow_operand(&f, p);
	for (const struct cli_param *p = cmd->options; p && p->name; p++)
		flow_option(&f, p);
	fputc('\n', out);
}

static void print_param(FILE *out, const char *name, const char *help, const char *env)
{
	struct flow f = {.out = out, .indent = OPTION_WIDTH + 4};
	int n = fprintf(out, "  %s", name);

	if (n < f.indent - 1) {
		fprintf(out, "%*s", f.indent - n, "");
	} else {
		fprintf(out, "\n%*s", f.indent, "");
	}
	f.column = f.indent;
	flow_text(&f, help);
	if (env) {
		_free_ char *note = xasprintf("[$%s]", env);

		flow_word(&f, note);
	}
	fputc('\n', out);
}

static void print_options(FILE *out, const struct cli_param *list)
{
	for (const struct cli_param *p = list; p && p->name; p++) {
		_free_ char *dashes =
			p->letter ? xasprintf("-%c, --%s", p->letter, p->name) : xasprintf("--%s", p->name);
		_free_ char *name = xasprintf("%s%s%s", dashes, p->value ? " " : "", p->value ? p->value : "");

		print_param(out, name, p->help, p->env);
	}
}

static void print_command(FILE *out, const struct cli_group *g, const struct cli_command *cmd)
{
	print_synopsis(out, g, cmd, "godwit ");
	fprintf(out, "\n%s.\n\n", cmd->summary);
	for (const struct cli_param *p = cmd->operands; p && p->name; p++)
		print_param(out, p->name, p->help, NULL);
	print_options(out, cmd->options);
	fputs("\nOptions of every command:\n", out);
	print_options(out, cli_common);
}

static void print_group(FILE *out, const struct cli_group *g, bool whole)
{
	if (whole)
		fprintf(out, "%s: %s\n", g->name, g->summary);
	for (const struct cli_command *cmd = g->commands; cmd->summary; cmd++) {
		print_synopsis(out, g, cmd, "  ");
		fprintf(out, "      %s\n", cmd->summary);
	}
	fputc('\n', out);
}

static void print_all(FILE *out)
{
	fputs("godwit: guests on a cluster of hosts, and moving them while they run.\n\n", out);
	for (size_t i = 0; cli_groups[i]; i++)
		print_group(out, cli_groups[i], true);
	fputs("Options of every command:\n", out);
	print_options(out, cli_common);
	fputs("\n`godwit vm create --help` says more about one command.\n"
	      "\n"
	      "Exit: 0 done, 1 failed, 2 wrong command line, 3 wrong input, 4 no such object, 5 conflict,\n"
	      "6 not allowed, 7 not now, 8 cancelled.\n",
	      out);
}

void help_print(FILE *out, const struct cli_group *g, const struct cli_command *cmd)
{
	if (cmd) {
		print_command(out, g, cmd);
	} else if (g) {
		fprintf(out, "godwit %s: %s\n\n", g->name, g->summary);
		print_group(out, g, false);
		fprintf(out, "`godwit %s %s --help` says more about one command.\n", g->name, g->commands[0].verb);
	} else {
		print_all(out);
	}
}
