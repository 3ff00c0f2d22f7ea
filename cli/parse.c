/* SPDX-License-Identifier: Apache-2.0 */
/* The command line, read by the table. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/http-client.h"
#include "base/mem.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/value.h"

#define VALUES_MAX 512

/* ERR_USAGE: there is no such @what; the nearest of @words, or where all of them are shown. */
static int unknown(const char *what, const char *typed, const char *const *words, const char *help, struct err *e)
{
	const char *near = text_nearest(typed, words);

	if (near)
		return err_set(e, ERR_USAGE, "there is no %s \"%.64s\"; did you mean \"%s\"?", what, typed, near);
	return err_set(e, ERR_USAGE, "there is no %s \"%.64s\"; `%s` lists them", what, typed, help);
}

/* ---- groups and verbs ---- */

static int find_group(struct cli *c, const char *word, struct err *e)
{
	const char *words[32] = {NULL};

	for (size_t i = 0; cli_groups[i]; i++) {
		assert(i + 1 < ARRAY_SIZE(words));
		words[i] = cli_groups[i]->name;
		if (strcmp(words[i], word) == 0)
			c->group = cli_groups[i];
	}
	if (!c->group)
		return unknown("command", word, words, "godwit --help", e);
	if (!c->group->commands[0].verb)
		c->command = &c->group->commands[0];
	return 0;
}

static int find_verb(struct cli *c, const char *word, struct err *e)
{
	_free_ char *help = xasprintf("godwit %s --help", c->group->name);
	_free_ char *what = xasprintf("command %s", c->group->name);
	const char *words[32] = {NULL};
	size_t n = 0;

	for (const struct cli_command *cmd = c->group->commands; cmd->summary; cmd++) {
		assert(n + 1 < ARRAY_SIZE(words));
		words[n++] = cmd->verb;
		if (strcmp(cmd->verb, word) == 0)
			c->command = cmd;
	}
	return c->command ? 0 : unknown(what, word, words, help, e);
}

const char *cli_command_words(const struct cli_group *g, const struct cli_command *cmd)
{
	static char words[64];

	snprintf(words, sizeof(words), "%s%s%s", g->name, cmd && cmd->verb ? " " : "",
		 cmd && cmd->verb ? cmd->verb : "");
	return words;
}

/* ---- values ---- */

static int value_add(struct cli *c, const struct cli_param *p, const char *text, struct err *e)
{
	struct cli_value v = {.param = p, .text = text};

	if (p->kind != CLI_FLAG && value_read(p, text, &v.number, e) < 0)
		return -1;
	if (c->n_values == VALUES_MAX)
		return err_set(e, ERR_USAGE, "more than %d values", VALUES_MAX);
	if (!c->values)
		c->values = xcalloc(VALUES_MAX, sizeof(*c->values));
	c->values[c->n_values++] = v;
	return 0;
}

static size_t count_given(const struct cli *c, const struct cli_param *p)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_values; i++)
		n += c->values[i].param == p;
	return n;
}

static const struct cli_param *param_find(const struct cli_param *list, const char *name, size_t n)
{
	for (; list && list->name; list++)
		if (strncmp(list->name, name, n) == 0 && !list->name[n])
			return list;
	return NULL;
}

static const struct cli_param *letter_find(const struct cli_param *list, char letter)
{
	for (; list && list->name; list++)
		if (list->letter && list->letter == letter)
			return list;
	return NULL;
}

static int unknown_option(const struct cli *c, const char *typed, struct err *e)
{
	const struct cli_param *lists[] = {c->command ? c->command->options : NULL, cli_common};
	_free_ char *help = xasprintf("godwit %s%s--help", c->group ? cli_command_words(c->group, c->command) : "",
				      c->group ? " " : "");
	_free_ char *name = xstrdup(typed + strspn(typed, "-"));
	const char *words[64] = {NULL};
	size_t n = 0;

	name[strcspn(name, "=")] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		for (const struct cli_param *p = lists[i]; p && p->name && n + 1 < ARRAY_SIZE(words); p++)
			words[n++] = p->name;
	return unknown("option", name, words, help, e);
}

/* The option at argv[*i], with its value. */
static int option_read(struct cli *c, int argc, char *const *argv, int *i, struct err *e)
{
	const char *arg = argv[*i], *name = arg + 2, *value = NULL;
	const struct cli_param *own = c->command ? c->command->options : NULL, *p;

	if (arg[1] != '-') {
		p = arg[1] && !arg[2] ? letter_find(own, arg[1]) : NULL;
		p = p || !arg[1] || arg[2] ? p : letter_find(cli_common, arg[1]);
	} else {
		size_t n = strcspn(name, "=");

		value = name[n] ? name + n + 1 : NULL;
		p = param_find(own, name, n);
		p = p ? p : param_find(cli_common, name, n);
	}
	if (!p)
		return unknown_option(c, arg, e);
	if (p->kind == CLI_FLAG && value)
		return err_set(e, ERR_USAGE, "--%s takes no value", p->name);
	if (p->kind != CLI_FLAG && !value && *i + 1 == argc)
		return err_set(e, ERR_USAGE, "--%s needs a value: --%s %s", p->name, p->name, p->value);
	if (p->kind != CLI_FLAG && !value)
		value = argv[++*i];
	if (!p->many && p->kind != CLI_FLAG && count_given(c, p))
		return err_set(e, ERR_USAGE, "--%s is given twice", p->name);
	if (value_add(c, p, value, e) < 0)
		return err_wrap(e, "--%s", p->name);
	return 0;
}

static int word_read(struct cli *c, const char *word, struct err *e)
{
	const struct cli_param *p;

	if (!c->group && strcmp(word, "help") == 0) {
		c->help = true;
		return 0;
	}
	if (!c->group)
		return find_group(c, word, e);
	if (!c->command)
		return find_verb(c, word, e);
	for (p = c->command->operands; p && p->name; p++)
		if (p->many || !count_given(c, p)) {
			if (value_add(c, p, word, e) < 0)
				return err_wrap(e, "%s", p->name);
			return 0;
		}
	return err_set(e, ERR_USAGE, "\"%.64s\" is one word too many; `godwit %s --help` shows how to write it", word,
		       cli_command_words(c->group, c->command));
}

/* ---- what must be there ---- */

static int check_needed(const struct cli *c, struct err *e)
{
	const char *words = cli_command_words(c->group, c->command);

	for (const struct cli_param *p = c->command->operands; p && p->name; p++)
		if (!p->optional && !count_given(c, p))
			return err_set(e, ERR_USAGE, "%s needs %s: %s; `godwit %s --help` shows how to write it", words,
				       p->name, p->help, words);
	for (const struct cli_param *p = c->command->options; p && p->name; p++)
		if (p->required && !count_given(c, p))
			return err_set(e, ERR_USAGE, "%s needs --%s %s: %s", words, p->name, p->value, p->help);
	return 0;
}

/* An option that was given and says otherwise than @p, or NULL. */
static const struct cli_param *otherwise(const struct cli *c, const struct cli_param *p)
{
	for (size_t i = 0; i < c->n_values && p->not_with; i++)
		if (value_is_word(p->not_with, c->values[i].param->name))
			return c->values[i].param;
	return NULL;
}

/* Options that exclude each other, and those that mean nothing without another. */
static int check_together(const struct cli *c, struct err *e)
{
	for (size_t i = 0; i < c->n_values; i++) {
		const struct cli_param *p = c->values[i].param, *other = otherwise(c, p);

		if (other)
			return err_set(e, ERR_USAGE, "--%s and --%s exclude each other", p->name, other->name);
		if (p->only_with && !cli_given(c, p->only_with))
			return err_set(e, ERR_USAGE, "--%s belongs to --%s", p->name, p->only_with);
	}
	return 0;
}

/* What the environment says where the command line does not say it, nor otherwise. */
static int read_environment(struct cli *c, struct err *e)
{
	for (const struct cli_param *p = cli_common; p->name; p++) {
		const char *text = p->env && !count_given(c, p) && !otherwise(c, p) ? getenv(p->env) : NULL;

		if (text && text[0] && (!p->only_with || cli_given(c, p->only_with)) && value_add(c, p, text, e) < 0)
			return err_wrap(e, "%s", p->env);
	}
	return 0;
}

int cli_parse(struct cli *c, int argc, char *const *argv, struct err *e)
{
	bool options = true;

	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];
		int r;

		if (options && strcmp(arg, "--") == 0) {
			options = false;
			continue;
		}
		r = options && arg[0] == '-' && arg[1] ? option_read(c, argc, argv, &i, e) : word_read(c, arg, e);
		if (r < 0)
			return -1;
	}
	c->help |= cli_given(c, "help");
	c->json = cli_given(c, "json");
	if (c->help)
		return 0;
	if (!c->group)
		return err_set(e, ERR_USAGE, "which command? `godwit --help` lists them");
	if (!c->command)
		return err_set(e, ERR_USAGE, "%s: and what of it? `godwit %s --help` lists the commands",
			       c->group->name, c->group->name);
	return check_needed(c, e) < 0 || read_environment(c, e) < 0 ? -1 : check_together(c, e);
}

void cli_done(struct cli *c)
{
	http_client_free(c->client);
	free(c->values);
	c->client = NULL;
	c->values = NULL;
	c->n_values = 0;
}

/* ---- what commands ask ---- */

/* The parameter of this command, or of all. */
static const struct cli_param *param_of(const struct cli *c, const char *name)
{
	const struct cli_param *lists[] = {c->command ? c->command->operands : NULL,
					   c->command ? c->command->options : NULL, cli_common};
	const struct cli_param *p = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(lists) && !p; i++)
		p = param_find(lists[i], name, strlen(name));
	assert(p);
	return p;
}

const char *cli_nth(const struct cli *c, const char *name, size_t i)
{
	const struct cli_param *p = param_of(c, name);

	for (size_t k = 0; k < c->n_values; k++)
		if (c->values[k].param == p && i-- == 0)
			return c->values[k].text;
	return NULL;
}

bool cli_given(const struct cli *c, const char *name)
{
	return count_given(c, param_of(c, name)) > 0;
}

const char *cli_text(const struct cli *c, const char *name)
{
	return cli_nth(c, name, 0);
}

int64_t cli_number(const struct cli *c, const char *name, int64_t when_not_given)
{
	const struct cli_param *p = param_of(c, name);

	for (size_t k = 0; k < c->n_values; k++)
		if (c->values[k].param == p)
			return c->values[k].number;
	return when_not_given;
}
