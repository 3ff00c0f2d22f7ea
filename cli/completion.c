/* SPDX-License-Identifier: Apache-2.0 */
/* godwit completion: scripts for shells, made of the table. */
#include <string.h>

#include "base/mem.h"
#include "cli/groups.h"

/*
 * Both scripts work alike. They walk over the words before the cursor, skipping options and their values, to find the
 * command and how many operands it has. Then a table says what may stand at the cursor: groups, verbs, the options of
 * the command, or a value of some kind. Names of objects are asked of the cluster (`godwit vm list --names`); a cluster
 * that does not answer completes nothing.
 */

/* What each kind of value is called in the scripts, and the command that lists its names. */
static const struct {
	const char *word;
	const char *list;
} kinds[CLI_KIND_MAX] = {
	[CLI_FILE] = {"file", NULL},
	[CLI_PATH] = {"file", NULL},
	[CLI_NODE] = {"node", "node list"},
	[CLI_VM] = {"vm", "vm list"},
	[CLI_NETWORK] = {"network", "network list"},
	[CLI_MIGRATION] = {"migration", "migration list --active"},
	[CLI_TASK] = {"task", "task list"},
	[CLI_USER] = {"user", "user list"},
	[CLI_SETTING] = {"setting", "setting list"},
	[CLI_FENCE] = {"fence", "fence list"},
};

/* "file", "vm", or "=viewer operator admin"; "" when nothing is known. @buf: 128 bytes. */
static const char *kind_text(const struct cli_param *p, char *buf)
{
	snprintf(buf, 128, "%s%s", p->kind == CLI_CHOICE ? "=" : "",
		 p->kind == CLI_CHOICE ? p->words
		 : kinds[p->kind].word ? kinds[p->kind].word
		 : strncmp(p->value ? p->value : "", "FILE", 4) == 0 ? "file"
								     : "");
	for (char *s = buf; (s = strchr(s, '|'));)
		*s = ' ';
	return buf;
}

static void print_options(FILE *out, const struct cli_param *list)
{
	for (const struct cli_param *p = list; p && p->name; p++)
		fprintf(out, " --%s", p->name);
}

/* Lines of a case statement: what an option's value is. */
static void print_value_cases(FILE *out, const char *words, const struct cli_param *list)
{
	char buf[128];

	for (const struct cli_param *p = list; p && p->name; p++)
		if (p->kind != CLI_FLAG)
			fprintf(out, "\t'%s --%s') kind='%s' ;;\n", words, p->name, kind_text(p, buf));
}

static void print_operand_cases(FILE *out, const char *words, const struct cli_param *list)
{
	char buf[128];
	int n = 0;

	for (const struct cli_param *p = list; p && p->name; p++, n++)
		fprintf(out, "\t'%s %d') kind='%s' ;;\n", words, n, kind_text(p, buf));
}

/* Call @print for each command with its words. */
static void each_command(FILE *out, void (*print)(FILE *out, const char *words, const struct cli_command *cmd))
{
	for (size_t i = 0; cli_groups[i]; i++)
		for (const struct cli_command *cmd = cli_groups[i]->commands; cmd->summary; cmd++)
			print(out, cli_command_words(cli_groups[i], cmd), cmd);
}

static void options_case(FILE *out, const char *words, const struct cli_command *cmd)
{
	fprintf(out, "\t'%s') options='", words);
	print_options(out, cmd->options);
	print_options(out, cli_common);
	fputs("' ;;\n", out);
}

static void values_case(FILE *out, const char *words, const struct cli_command *cmd)
{
	print_value_cases(out, words, cmd->options);
}

static void operands_case(FILE *out, const char *words, const struct cli_command *cmd)
{
	print_operand_cases(out, words, cmd->operands);
}

/* An option has a value or has none in every command alike, so the scripts can skip it before they know the command. */
static void with_value(FILE *out, const char *words, const struct cli_command *cmd)
{
	(void)words;
	for (const struct cli_param *p = cmd->options; p && p->name; p++)
		if (p->kind != CLI_FLAG)
			fprintf(out, "--%s|", p->name);
}

/* Functions that both shells read: what the table says. */
static void print_tables(FILE *out)
{
	fputs("_godwit_verbs() {\n\tcase \"$1\" in\n", out);
	for (size_t i = 0; cli_groups[i]; i++) {
		if (!cli_groups[i]->commands[0].verb)
			continue;
		fprintf(out, "\t%s) verbs='", cli_groups[i]->name);
		for (const struct cli_command *cmd = cli_groups[i]->commands; cmd->summary; cmd++)
			fprintf(out, "%s%s", cmd == cli_groups[i]->commands ? "" : " ", cmd->verb);
		fputs("' ;;\n", out);
	}
	fputs("\t*) verbs='' ;;\n\tesac\n}\n\n_godwit_options() {\n\tcase \"$1\" in\n", out);
	each_command(out, options_case);
	fputs("\t*) options='", out);
	print_options(out, cli_common);
	fputs("' ;;\n\tesac\n}\n\n_godwit_takes_value() {\n\tcase \"$1\" in\n\t", out);
	each_command(out, with_value);
	for (const struct cli_param *p = cli_common; p->name; p++)
		if (p->kind != CLI_FLAG)
			fprintf(out, "--%s%s", p->name, strcmp(p->name, "token-file") == 0 ? ")" : "|");
	fputs(" return 0 ;;\n\tesac\n\treturn 1\n}\n\n"
	      "# What stands behind an option ('vm create --near'), or at a place of an operand ('vm show 0').\n"
	      "_godwit_kind() {\n\tcase \"$1\" in\n",
	      out);
	each_command(out, values_case);
	each_command(out, operands_case);
	for (const struct cli_param *p = cli_common; p->name; p++)
		if (p->kind != CLI_FLAG)
			fprintf(out, "\t*' --%s') kind='%s' ;;\n", p->name, kinds[p->kind].word ? "file" : "");
	fputs("\t*) kind='' ;;\n\tesac\n}\n\n"
	      "# Words of a kind that are not files.\n"
	      "_godwit_words() {\n\tcase \"$1\" in\n\t'='*) echo \"${1#=}\" ;;\n",
	      out);
	for (size_t i = 0; i < CLI_KIND_MAX; i++)
		if (kinds[i].list)
			fprintf(out, "\t%s) godwit %s --names 2>/dev/null ;;\n", kinds[i].word, kinds[i].list);
	fputs("\tesac\n}\n\n", out);
}

static void print_groups(FILE *out)
{
	for (size_t i = 0; cli_groups[i]; i++)
		fprintf(out, "%s%s", i ? " " : "", cli_groups[i]->name);
}

static void print_bash(FILE *out)
{
	fputs("# bash completion for godwit, made by `godwit completion bash`\n\n", out);
	print_tables(out);
	fputs("_godwit() {\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
	      "\tlocal i group='' command='' operands=0 verbs options kind='' words=''\n"
	      "\tCOMPREPLY=()\n"
	      "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	      "\t\tif _godwit_takes_value \"${COMP_WORDS[i]}\"; then ((i++)); continue; fi\n"
	      "\t\t[[ ${COMP_WORDS[i]} == -* ]] && continue\n"
	      "\t\tif [[ -n $command ]]; then ((operands++))\n"
	      "\t\telif [[ -n $group ]]; then command=\"$group ${COMP_WORDS[i]}\"\n"
	      "\t\telse\n"
	      "\t\t\tgroup=${COMP_WORDS[i]}\n"
	      "\t\t\t_godwit_verbs \"$group\"\n"
	      "\t\t\t[[ -z $verbs ]] && command=$group\n"
	      "\t\tfi\n"
	      "\tdone\n"
	      "\tif _godwit_takes_value \"$prev\"; then _godwit_kind \"$command $prev\"\n"
	      "\telif [[ $cur == -* ]]; then _godwit_options \"$command\"; words=$options\n"
	      "\telif [[ -z $group ]]; then words='",
	      out);
	print_groups(out);
	fputs("'\n"
	      "\telif [[ -z $command ]]; then words=$verbs\n"
	      "\telse _godwit_kind \"$command $operands\"\n"
	      "\tfi\n"
	      "\tif [[ $kind == file ]]; then\n"
	      "\t\tcompopt -o filenames 2>/dev/null\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
	      "\telse\n"
	      "\t\t[[ -n $kind ]] && words=$(_godwit_words \"$kind\")\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
	      "\tfi\n"
	      "}\n"
	      "complete -F _godwit godwit\n",
	      out);
}

static void print_zsh(FILE *out)
{
	fputs("#compdef godwit\n# zsh completion for godwit, made by `godwit completion zsh`\n\n", out);
	print_tables(out);
	fputs("_godwit() {\n"
	      "\tlocal cur=${words[CURRENT]} prev=${words[CURRENT-1]}\n"
	      "\tlocal i group='' command='' operands=0 verbs options kind='' list=''\n"
	      "\tfor ((i = 2; i < CURRENT; i++)); do\n"
	      "\t\tif _godwit_takes_value \"${words[i]}\"; then ((i++)); continue; fi\n"
	      "\t\t[[ ${words[i]} == -* ]] && continue\n"
	      "\t\tif [[ -n $command ]]; then ((operands++))\n"
	      "\t\telif [[ -n $group ]]; then command=\"$group ${words[i]}\"\n"
	      "\t\telse\n"
	      "\t\t\tgroup=${words[i]}\n"
	      "\t\t\t_godwit_verbs \"$group\"\n"
	      "\t\t\t[[ -z $verbs ]] && command=$group\n"
	      "\t\tfi\n"
	      "\tdone\n"
	      "\tif _godwit_takes_value \"$prev\"; then _godwit_kind \"$command $prev\"\n"
	      "\telif [[ $cur == -* ]]; then _godwit_options \"$command\"; list=$options\n"
	      "\telif [[ -z $group ]]; then list='",
	      out);
	print_groups(out);
	fputs("'\n"
	      "\telif [[ -z $command ]]; then list=$verbs\n"
	      "\telse _godwit_kind \"$command $operands\"\n"
	      "\tfi\n"
	      "\tif [[ $kind == file ]]; then\n"
	      "\t\t_files\n"
	      "\telse\n"
	      "\t\t[[ -n $kind ]] && list=$(_godwit_words \"$kind\")\n"
	      "\t\tcompadd -- ${=list}\n"
	      "\tfi\n"
	      "}\n\n"
	      "if [[ $funcstack[1] == _godwit ]]; then\n\t_godwit \"$@\"\nelse\n\tcompdef _godwit godwit\nfi\n",
	      out);
}

static int completion_run(struct cli *c, struct err *e)
{
	(void)e;
	if (strcmp(cli_text(c, "SHELL"), "bash") == 0)
		print_bash(c->io->out);
	else
		print_zsh(c->io->out);
	return 0;
}

const struct cli_group completion_group = {
	"completion",
	"completion for shells",
	(const struct cli_command[]){
		{.operands =
			 (const struct cli_param[]){
				 {.name = "SHELL", .kind = CLI_CHOICE, .words = "bash|zsh", .help = "bash or zsh"},
				 {0}},
		 .summary = "Print the completion for a shell: source <(godwit completion bash)",
		 .run = completion_run},
		{0},
	},
};
