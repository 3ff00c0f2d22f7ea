/* SPDX-License-Identifier: Apache-2.0 */
/* The command line, and the table that it is read by. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/help.h"
#include "cli/value.h"
#include "tests/unit/cli/fake.h"

#define PAGE_MAX (1U << 20)

static void what_is_mistyped_is_said_with_what_was_meant(void **state)
{
	static const struct {
		const char *line, *err;
	} rows[] = {
		{"", "which command? `godwit --help` lists them"},
		{"vn list", "there is no command \"vn\"; did you mean \"vm\"?"},
		{"volume list", "there is no command \"volume\"; `godwit --help` lists them"},
		{"vm", "vm: and what of it? `godwit vm --help` lists the commands"},
		{"vm strat web1", "there is no command vm \"strat\"; did you mean \"start\"?"},
		{"vm frobnicate", "there is no command vm \"frobnicate\"; `godwit vm --help` lists them"},
		{"vm start", "vm start needs NAME: the guest; `godwit vm start --help` shows how to write it"},
		{"vm start web1 web2", "\"web2\" is one word too many; `godwit vm start --help` shows how to write it"},
		{"vm migrate web1 --too n2", "there is no option \"too\"; did you mean \"to\"?"},
		{"vm migrate web1 --frobnicate",
		 "there is no option \"frobnicate\"; `godwit vm migrate --help` lists them"},
		{"--to n2 vm migrate web1", "there is no option \"to\"; `godwit --help` lists them"},
		{"vm migrate web1 --to", "--to needs a value: --to NODE"},
		{"vm migrate web1 --to n1 --to n2", "--to is given twice"},
		{"vm migrate web1 --to=", "--to: must not be empty"},
		{"vm migrate web1 --dry-run=yes", "--dry-run takes no value"},
		{"vm migrate web1 --max-pause 0", "--max-pause: \"0\" must be a whole number from 1 to 60000"},
		{"vm migrate web1 --max-pause 5ms", "--max-pause: \"5ms\" must be a whole number from 1 to 60000"},
		{"vm migrate web1 --max-pause -5", "--max-pause: \"-5\" must be a whole number from 1 to 60000"},
		{"vm migrate web1 --bandwidth fast",
		 "--bandwidth: \"fast\" must be bytes a second such as 500k, 100M or 1G"},
		{"vm migrate web1 --deadline 2w", "--deadline: \"2w\" must be a time such as 90s, 5m, 2h or 1d"},
		{"vm stop web1 --timeout 2d", "--timeout: \"2d\" is out of range"},
		{"cluster token --ttl 5s", "--ttl: \"5s\" is out of range"},
		{"user create amy", "user create needs --role ROLE: viewer looks"},
		{"user create amy --role root", "--role: \"root\" is not one of viewer|operator|admin"},
		{"vm edit web1 --if-version 3", "--if-version belongs to --file"},
		{"completion fish", "SHELL: \"fish\" is not one of bash|zsh"},
		{"events -x", "there is no option \"x\""},
		{"events -fx", "there is no option \"fx\""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		_free_ char *expected = xasprintf("godwit: %s", rows[i].err);
		struct fake_run run;

		if (rows[i].line[0])
			fake_run_line(&run, rows[i].line);
		else
			FAKE_RUN(&run, NULL);
		if (strncmp(run.err, expected, strlen(expected)) != 0)
			fail_msg("%s: %s", rows[i].line, run.err);
		assert_int_equal(run.status, 2);
		assert_string_equal(run.out, "");
		fake_run_done(&run);
	}
	assert_int_equal(fake_count(), 0);
}

static void parse(struct cli *c, struct cli_io *io, const char *const *words)
{
	char *argv[32] = {"godwit"};
	struct err e = ERR_INIT;
	int argc = 1;

	for (; words[argc - 1]; argc++)
		argv[argc] = (char *)words[argc - 1];
	*c = (struct cli){.io = io};
	if (cli_parse(c, argc, argv, &e) < 0)
		fail_msg("%s", e.text);
}
#define PARSE(c, ...) parse((c), &fake_io, (const char *const[]){__VA_ARGS__, NULL})

static void options_may_stand_anywhere_and_have_their_value_behind_or_after_an_equals_sign(void **state)
{
	struct cli c;

	(void)state;
	PARSE(&c, "--json", "vm", "--socket", "/s", "migrate", "--to=n2", "web1", "--max-pause", "50");
	assert_true(c.json);
	assert_string_equal(cli_text(&c, "socket"), "/s");
	assert_string_equal(cli_text(&c, "NAME"), "web1");
	assert_string_equal(cli_text(&c, "to"), "n2");
	assert_int_equal(cli_number(&c, "max-pause", 0), 50);
	assert_int_equal(cli_number(&c, "deadline", 7), 7);
	assert_false(cli_given(&c, "dry-run"));
	assert_string_equal(cli_command_words(c.group, c.command), "vm migrate");
	cli_done(&c);
}

static void after_two_dashes_nothing_is_an_option(void **state)
{
	struct cli c;

	(void)state;
	PARSE(&c, "vm", "show", "--", "--json");
	assert_false(c.json);
	assert_string_equal(cli_text(&c, "NAME"), "--json");
	cli_done(&c);
	PARSE(&c, "cluster", "join", "-");
	assert_string_equal(cli_text(&c, "TOKEN"), "-");
	cli_done(&c);
}

static void an_option_of_many_keeps_their_order(void **state)
{
	struct cli c;

	(void)state;
	PARSE(&c, "vm", "create", "web1", "--near", "a", "--apart", "x", "--near", "b");
	assert_string_equal(cli_nth(&c, "near", 0), "a");
	assert_string_equal(cli_nth(&c, "near", 1), "b");
	assert_null(cli_nth(&c, "near", 2));
	assert_string_equal(cli_nth(&c, "apart", 0), "x");
	cli_done(&c);
}

static void the_environment_speaks_where_the_command_line_is_silent(void **state)
{
	struct cli c;

	(void)state;
	setenv("GODWIT_HOST", "n1:7443", 1);
	setenv("GODWIT_CA", "/ca", 1);
	setenv("GODWIT_TOKEN_FILE", "/token", 1);
	PARSE(&c, "vm", "list");
	assert_string_equal(cli_text(&c, "host"), "n1:7443");
	assert_string_equal(cli_text(&c, "ca"), "/ca");
	assert_string_equal(cli_text(&c, "token-file"), "/token");
	cli_done(&c);
	PARSE(&c, "vm", "list", "--token-file", "/other");
	assert_string_equal(cli_text(&c, "token-file"), "/other");
	cli_done(&c);
	/* Another way to the daemon, or another proof, puts those of the environment aside. */
	PARSE(&c, "vm", "list", "--cert-dir", "/certs");
	assert_null(cli_text(&c, "ca"));
	assert_null(cli_text(&c, "token-file"));
	cli_done(&c);
	PARSE(&c, "vm", "list", "--socket", "/s");
	assert_null(cli_text(&c, "host"));
	assert_null(cli_text(&c, "ca"));
	cli_done(&c);
	unsetenv("GODWIT_HOST");
	PARSE(&c, "vm", "list");
	assert_null(cli_text(&c, "ca"));
	cli_done(&c);
}

/* ---- values ---- */

static void sizes_rates_and_times_have_units(void **state)
{
	static const struct {
		enum cli_kind kind;
		const char *text;
		int64_t number; /* -1: refused */
	} rows[] = {
		{CLI_MEMORY, "512", 512},
		{CLI_MEMORY, "512M", 512},
		{CLI_MEMORY, "2G", 2048},
		{CLI_MEMORY, "1T", 1 << 20},
		{CLI_MEMORY, "2g", -1},
		{CLI_MEMORY, "2GB", -1},
		{CLI_MEMORY, "1.5G", -1},
		{CLI_MEMORY, "", -1},
		{CLI_MEMORY, " 2G", -1},
		{CLI_MEMORY, "+2G", -1},
		{CLI_MEMORY, "9223372036854775807T", -1},
		{CLI_MEMORY, "99999999999999999999", -1},
		{CLI_RATE, "1", 1},
		{CLI_RATE, "500k", 500000},
		{CLI_RATE, "100M", 100000000},
		{CLI_RATE, "1G", 1000000000},
		{CLI_RATE, "1T", -1},
		{CLI_SECONDS, "90", 90},
		{CLI_SECONDS, "90s", 90},
		{CLI_SECONDS, "5m", 300},
		{CLI_SECONDS, "2h", 7200},
		{CLI_SECONDS, "1d", 86400},
		{CLI_SECONDS, "1M", -1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct cli_param p = {.name = "x", .kind = rows[i].kind, .min = 1};
		struct err e = ERR_INIT;
		int64_t n = -1;
		int r = value_read(&p, rows[i].text, &n, &e);

		if (r != (rows[i].number < 0 ? -1 : 0) || n != rows[i].number)
			fail_msg("%s: %lld", rows[i].text, (long long)n);
		if (r < 0)
			assert_int_equal(e.code, ERR_USAGE);
	}
}

/* ---- the table ---- */

/* Call @check for each command. */
static void each_command(void (*check)(const char *words, const struct cli_command *cmd))
{
	for (size_t i = 0; cli_groups[i]; i++)
		for (const struct cli_command *cmd = cli_groups[i]->commands; cmd->summary; cmd++)
			check(cli_command_words(cli_groups[i], cmd), cmd);
}

static void check_row(const char *words, const struct cli_command *cmd)
{
	const struct cli_param *lists[] = {cmd->operands, cmd->options, cli_common};

	if (!cmd->run && !(cmd->method && cmd->path))
		fail_msg("%s: does nothing", words);
	for (size_t k = 0; k < ARRAY_SIZE(lists); k++)
		for (const struct cli_param *p = lists[k]; p && p->name; p++) {
			if (!p->help || (k && (p->kind == CLI_FLAG) != !p->value) ||
			    (p->kind == CLI_CHOICE) != !!p->words)
				fail_msg("%s: %s is not complete", words, p->name);
			if (p->kind == CLI_NUMBER && p->max <= p->min)
				fail_msg("%s: %s has no range", words, p->name);
		}
	for (const struct cli_param *p = cmd->options; p && p->name; p++)
		for (const struct cli_param *q = cli_common; q->name; q++)
			if (strcmp(p->name, q->name) == 0)
				fail_msg("%s: --%s is an option of every command", words, p->name);
}

static void every_row_of_the_table_is_complete(void **state)
{
	(void)state;
	each_command(check_row);
}

static bool option_has_value(const char *words, const char *name, bool *ret)
{
	for (size_t i = 0; cli_groups[i]; i++)
		for (const struct cli_command *cmd = cli_groups[i]->commands; cmd->summary; cmd++)
			for (const struct cli_param *p = cmd->options; p && p->name; p++)
				if (strcmp(p->name, name) == 0 &&
				    strcmp(words, cli_command_words(cli_groups[i], cmd)) != 0) {
					*ret = p->kind != CLI_FLAG;
					return true;
				}
	return false;
}

/* The completion of shells rests on this. */
static void check_alike(const char *words, const struct cli_command *cmd)
{
	_free_ char *copy = xstrdup(words);

	for (const struct cli_param *p = cmd->options; p && p->name; p++) {
		bool other;

		if (option_has_value(copy, p->name, &other) && other != (p->kind != CLI_FLAG))
			fail_msg("%s: --%s has a value here, and none elsewhere, or the other way round", copy,
				 p->name);
	}
}

static void an_option_takes_a_value_in_every_command_or_in_none(void **state)
{
	(void)state;
	each_command(check_alike);
}

static char *page;

/* The page is scdoc: "*vm start* _NAME_". */
static void check_page(const char *words, const struct cli_command *cmd)
{
	_free_ char *name = xasprintf("*%s*", words);

	(void)cmd;
	if (!strstr(page, name))
		fail_msg("man/godwit.1.scd does not explain %s", name);
}

static void the_manual_page_has_every_command(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	page = file_read("man/godwit.1.scd", PAGE_MAX, NULL, &e);
	assert_non_null(page);
	each_command(check_page);
	free(page);
}

/* Whether a line of a page, "godwit vm show web1   # a comment", is a command that exists. Quotes are dropped. */
static void check_line(const char *file, const char *line)
{
	_free_ char *copy = xstrdup(line);
	char *argv[64], *rest = copy, *word;
	struct cli c = {.io = &(struct cli_io){.out = stdout, .err = stderr}};
	struct err e = ERR_INIT;
	int argc = 0;

	copy[strcspn(copy, "#")] = 0;
	while ((word = strsep(&rest, " \t\\\n'")) && argc < 63)
		if (*word)
			argv[argc++] = word;
	argv[argc] = NULL;
	if (cli_parse(&c, argc, argv, &e) < 0)
		fail_msg("%s: %s: %s", file, line, e.text);
	cli_done(&c);
}

/* Each command in a page: a line that begins with it and goes on behind a backslash, or `godwit ...` in a text. Returns
 * how many there are. */
static size_t check_commands(const char *file)
{
	struct err e = ERR_INIT;
	_free_ char *text = file_read(file, PAGE_MAX, NULL, &e);
	size_t n = 0;

	if (!text)
		fail_msg("%s", e.text);
	for (char *at = text; (at = strstr(at, "godwit ")); at++) {
		bool in_text = at > text && at[-1] == '`', in_block = at > text && strchr("\n ", at[-1]);
		const char *end = at;
		_free_ char *line = NULL;

		if (in_block) { /* only behind blanks from the beginning of a line */
			const char *begin = at;

			while (begin > text && begin[-1] == ' ')
				begin--;
			in_block = begin == text || begin[-1] == '\n';
		}
		if (!in_text && !in_block)
			continue;
		do
			end += strcspn(end + 1, in_text ? "`" : "\n") + 1;
		while (in_block && end[-1] == '\\');
		line = xasprintf("%.*s", (int)(end - at), at);
		check_line(file, line);
		n++;
	}
	return n;
}

static void the_page_of_fencing_has_only_commands_that_exist(void **state)
{
	(void)state;
	assert_true(check_commands("docs/fencing.md") > 20);
	assert_true(check_commands("docs/ha.md") > 2);
}

/* ---- the table and the API ---- */

/* Whether a route's path is a command's: "/v1/vms/{name}" is "/v1/vms/{NAME}". */
static bool is_route_of(const struct cli_command *cmd, const char *method, const char *path)
{
	return cmd->method && strcmp(cmd->method, method) == 0 && strcasecmp(cmd->path, path) == 0;
}

static size_t count_commands(const char *method, const char *path)
{
	size_t n = 0;

	for (size_t i = 0; cli_groups[i]; i++)
		for (const struct cli_command *cmd = cli_groups[i]->commands; cmd->summary; cmd++)
			n += is_route_of(cmd, method, path);
	return n;
}

/* What hosts ask each other, and what a command asks for beside its own route. */
static bool is_no_commands(const char *path)
{
	static const char *const paths[] = {"/v1/join", "/v1/wire-probes", "/v1/fence-levels", "/v1/vms/{name}/ha"};

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		if (strcmp(path, paths[i]) == 0)
			return true;
	return false;
}

/* Go through the rows {"GET", "/v1/..." of the daemon's table; returns how many commands have one. */
static size_t check_routes(char *text)
{
	size_t n = 0;

	for (char *at = text; (at = strstr(at, "\t{\"")); at++) {
		char method[8], path[96];

		if (sscanf(at, "\t{\"%7[A-Z]\", \"%95[^\"]\"", method, path) != 2 || strncmp(path, "/v1/", 4) != 0)
			continue;
		n += count_commands(method, path);
		if (!count_commands(method, path) && !is_no_commands(path))
			fail_msg("no command asks for %s %s", method, path);
	}
	return n;
}

static void every_route_of_the_api_has_a_command_and_every_command_a_route(void **state)
{
	struct err e = ERR_INIT;
	char *text = file_read("node/http-api.c", PAGE_MAX, NULL, &e);
	size_t commands = 0;

	(void)state;
	assert_non_null(text);
	for (size_t i = 0; cli_groups[i]; i++)
		for (const struct cli_command *cmd = cli_groups[i]->commands; cmd->summary; cmd++)
			commands += cmd->method != NULL;
	assert_int_equal(check_routes(text), commands);
	free(text);
}

/* ---- help ---- */

static void check_help(const char *words, const struct cli_command *cmd)
{
	_free_ char *line = xasprintf("%s --help", words);
	struct fake_run run;

	fake_run_line(&run, line);
	assert_int_equal(run.status, 0);
	assert_string_equal(run.err, "");
	assert_int_equal(strncmp(run.out, "godwit ", 7), 0);
	assert_non_null(strstr(run.out, cmd->summary));
	for (const struct cli_param *p = cmd->options; p && p->name; p++)
		if (!strstr(run.out, p->help) && strlen(p->help) < 40)
			fail_msg("%s: --%s is not explained", line, p->name);
	for (const char *l = run.out; *l; l += strcspn(l, "\n") + 1)
		if (strcspn(l, "\n") > 90)
			fail_msg("%s: a line of more than 90 characters", line);
	fake_run_done(&run);
}

static void every_command_explains_itself(void **state)
{
	(void)state;
	each_command(check_help);
	assert_int_equal(fake_count(), 0);
}

static void help_is_there_for_all_and_for_a_group(void **state)
{
	static const char *const ways[] = {"--help", "-h", "help"};
	struct fake_run run;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		FAKE_RUN(&run, ways[i]);
		assert_int_equal(run.status, 0);
		assert_non_null(strstr(run.out, "  vm migrate NAME [--to NODE]"));
		assert_non_null(strstr(run.out, "Options of every command:"));
		fake_run_done(&run);
	}
	FAKE_RUN(&run, "help", "network");
	assert_int_equal(run.status, 0);
	assert_non_null(strstr(run.out, "  network create NAME"));
	assert_null(strstr(run.out, "vm migrate"));
	fake_run_done(&run);
	FAKE_RUN(&run, "help", "events");
	assert_int_equal(strncmp(run.out, "godwit events [-f|--follow]", 27), 0);
	fake_run_done(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_mistyped_is_said_with_what_was_meant, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(
			options_may_stand_anywhere_and_have_their_value_behind_or_after_an_equals_sign, fake_start,
			fake_stop),
		cmocka_unit_test_setup_teardown(after_two_dashes_nothing_is_an_option, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(an_option_of_many_keeps_their_order, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(the_environment_speaks_where_the_command_line_is_silent, fake_start,
						fake_stop),
		cmocka_unit_test(sizes_rates_and_times_have_units),
		cmocka_unit_test(every_row_of_the_table_is_complete),
		cmocka_unit_test(an_option_takes_a_value_in_every_command_or_in_none),
		cmocka_unit_test(the_manual_page_has_every_command),
		cmocka_unit_test(the_page_of_fencing_has_only_commands_that_exist),
		cmocka_unit_test(every_route_of_the_api_has_a_command_and_every_command_a_route),
		cmocka_unit_test_setup_teardown(every_command_explains_itself, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(help_is_there_for_all_and_for_a_group, fake_start, fake_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
