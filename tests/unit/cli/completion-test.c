/* SPDX-License-Identifier: Apache-2.0 */
/* Completion: the script for bash is run by bash against a godwit that knows some names; that for zsh is read by zsh.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/mem.h"
#include "tests/unit/cli/fake.h"

#define PATIENCE_NS (20 * NS_PER_S)
#define OUTPUT_MAX 65536

/* A godwit that lists names, for the script to ask. */
static const char names[] = "godwit() {\n"
			    "\tcase $* in\n"
			    "\t'vm list --names') echo web1; echo web2; echo db1 ;;\n"
			    "\t'node list --names') echo n1; echo n2 ;;\n"
			    "\t'network list --names') echo lan ;;\n"
			    "\t'migration list --active --names') echo m-1 ;;\n"
			    "\tesac\n"
			    "}\n";

/* How each shell is asked what it offers for the last of some words. */
static const struct shell {
	const char *name, *flag;
	const char *before; /* what the shell has when it completes */
	const char *ask;
} shells[] = {
	{"bash", "--norc", "",
	 "read -r -a COMP_WORDS <<<\"$line\"\n"
	 "[[ $line == *' ' ]] && COMP_WORDS+=('')\n"
	 "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_godwit\nprintf '%s\\n' \"${COMPREPLY[@]}\""},
	{"zsh", "-f",
	 "compdef() { :; }\n"
	 "compadd() { shift; for w in \"$@\"; do [[ $w == ${words[CURRENT]}* ]] && print -r -- $w; done; }\n"
	 "_files() { print -l ${words[CURRENT]}*(N); }\n",
	 "words=(${=line})\n[[ $line == *' ' ]] && words+=('')\nCURRENT=$#words\n_godwit"},
};

static bool is_there(const struct shell *sh)
{
	_free_ char *path = xasprintf("/bin/%s", sh->name);

	return access(path, X_OK) == 0;
}

/* What @sh offers for the last word of @line, sorted, separated by blanks. Caller frees. */
static char *complete(const struct shell *sh, const char *line)
{
	struct err e = ERR_INIT;
	struct fake_run run;
	_free_ char *script = NULL;
	const char *file;
	char *out = NULL;

	FAKE_RUN(&run, "completion", sh->name);
	assert_int_equal(run.status, 0);
	script = xasprintf("%s%s%s\nline='%s'\n{ %s\n} | sort | tr '\\n' ' '\n", sh->before, run.out, names, line,
			   sh->ask);
	fake_run_done(&run);
	file = fake_file("script", script);
	if (child_run((const char *const[]){sh->name, sh->flag, file, NULL}, clock_now_ns() + PATIENCE_NS, OUTPUT_MAX,
		      &out, &e) < 0)
		fail_msg("%s", e.text);
	if (out[0])
		out[strlen(out) - 1] = 0;
	return out;
}

static void check_offers(const struct shell *sh)
{
	static const struct {
		const char *line, *offers;
	} rows[] = {
		{"godwit ",
		 "audit baseline cluster completion events fence migration network node setting task user vm"},
		{"godwit n", "network node"},
		{"godwit vm st", "start stop"},
		{"godwit cluster ", "ha init join status token"},
		{"godwit vm start ", "db1 web1 web2"},
		{"godwit vm start we", "web1 web2"},
		{"godwit vm start web1 ", ""},
		{"godwit --json vm start we", "web1 web2"},
		{"godwit --socket /s vm start we", "web1 web2"},
		{"godwit vm migrate web1 --to ", "n1 n2"},
		{"godwit vm migrate --to n1 w", "web1 web2"},
		{"godwit vm migrate web1 --m", "--max-pause"},
		{"godwit vm migrate web1 --d", "--deadline --dry-run"},
		{"godwit vm create x --near d", "db1"},
		{"godwit vm create x --firmware ", "bios uefi"},
		{"godwit vm create x --memory ", ""},
		{"godwit network show ", "lan"},
		{"godwit migration cancel ", "m-1"},
		{"godwit user create amy --role ", "admin operator viewer"},
		{"godwit completion ", "bash zsh"},
		{"godwit events --",
		 "--ca --cert-dir --follow --help --host --json --progress --since --socket --token-file"},
		{"godwit vm list --token-file /etc/host", "/etc/host.conf /etc/hostname /etc/hosts"},
		{"godwit nonsense ", ""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		_free_ char *offers = complete(sh, rows[i].line);

		/* The files of /etc differ a little between machines. */
		if (strstr(rows[i].line, "/etc/") ? !strstr(offers, "/etc/host") : strcmp(offers, rows[i].offers) != 0)
			fail_msg("%s: %s: %s", sh->name, rows[i].line, offers);
	}
}

static void bash_completes_groups_verbs_options_values_and_names(void **state)
{
	(void)state;
	assert_true(is_there(&shells[0]));
	check_offers(&shells[0]);
}

static void zsh_completes_the_same(void **state)
{
	(void)state;
	if (!is_there(&shells[1])) {
		print_message("# skipped: there is no zsh here\n");
		skip();
	}
	check_offers(&shells[1]);
}

static void every_command_and_option_is_in_both_scripts(void **state)
{
	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(shells); s++) {
		struct fake_run run;

		FAKE_RUN(&run, "completion", shells[s].name);
		for (size_t i = 0; cli_groups[i]; i++)
			for (const struct cli_command *cmd = cli_groups[i]->commands; cmd->summary; cmd++) {
				_free_ char *words = xasprintf("'%s')", cli_command_words(cli_groups[i], cmd));
				const char *line = strstr(run.out, words);

				assert_non_null(line);
				for (const struct cli_param *p = cmd->options; p && p->name; p++) {
					_free_ char *option = xasprintf(" --%s ", p->name);
					const char *at = strstr(line, option);

					assert_true(at && at < strchr(line, '\n'));
				}
			}
		fake_run_done(&run);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bash_completes_groups_verbs_options_values_and_names, fake_start,
						fake_stop),
		cmocka_unit_test_setup_teardown(every_command_and_option_is_in_both_scripts, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(zsh_completes_the_same, fake_start, fake_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
