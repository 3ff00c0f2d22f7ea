/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands: from it come parsing, --help, the completion of shells, requests and tables for people. */
#ifndef GODWIT_CLI_COMMAND_H
#define GODWIT_CLI_COMMAND_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "cli/view.h"

/* What a value is: how it is read, what it becomes in a request, how a shell completes it. */
enum cli_kind {
	CLI_FLAG, /* an option without a value */
	CLI_TEXT,
	CLI_NUMBER,  /* a whole number from @min to @max */
	CLI_MEMORY,  /* "2G", "512M", or MiB: a whole number of MiB */
	CLI_RATE,    /* "100M": bytes/s, decimal */
	CLI_SECONDS, /* "90", "5m", "2h", "1d" */
	CLI_CHOICE,  /* one of @words */
	CLI_FILE,    /* read by this program */
	CLI_PATH,    /* of a file on the hosts: made absolute */
	CLI_NODE,
	CLI_VM,
	CLI_NETWORK,
	CLI_MIGRATION,
	CLI_TASK,
	CLI_USER,
	CLI_SETTING,
	CLI_FENCE,
	CLI_KIND_MAX
};

/* An operand or an option. A list of them ends with one without a name. */
struct cli_param {
	const char *name;  /* of an option without its dashes; of an operand as --help shows it */
	const char *value; /* of an option: what --help calls its value */
	enum cli_kind kind;
	int64_t min, max;
	const char *words;     /* of a CLI_CHOICE: "viewer|operator|admin" */
	const char *field;     /* where it goes in a request: the body's, or the query's for GET and DELETE */
	const char *env;       /* a variable that gives it when the command line does not */
	const char *not_with;  /* "ca|token-file": options that say otherwise */
	const char *only_with; /* an option without which it means nothing */
	bool required;         /* of an option */
	bool optional;         /* of the last operand */
	bool many;
	char letter; /* a short name of an option, or 0 */
	const char *help;
};

struct cli;

struct cli_command {
	const char *verb; /* NULL: the group's name is the whole command */
	const struct cli_param *operands;
	const struct cli_param *options;
	const char *summary;
	/* The route of the API. {NAME} in @path is an operand. */
	const char *method, *path;
	const struct view_column *view; /* how people see the answer; or: */
	const char *done;               /* "deleted": what people are told instead */
	/* Instead of run_command(), which asks for that and shows it. */
	int (*run)(struct cli *c, struct err *e);
};

/* Its commands end with one without a summary. */
struct cli_group {
	const char *name;
	const char *summary;
	const struct cli_command *commands;
};

extern const struct cli_group *const cli_groups[]; /* ends with NULL */
extern const struct cli_param cli_common[];        /* options of every command */

/* Who we talk to: in tests not the terminal. */
struct cli_io {
	int in_fd, out_fd;
	FILE *out, *err;
	bool in_tty, err_tty;
	int columns; /* of the terminal behind @err */
};

struct cli_value {
	const struct cli_param *param;
	const char *text;
	int64_t number; /* of the kinds that are numbers */
};

/* One run. */
struct cli {
	const struct cli_io *io;
	const struct cli_group *group;
	const struct cli_command *command;
	struct cli_value *values;
	size_t n_values;
	bool help, json;
	bool told_age;              /* that this host is cut off */
	struct http_client *client; /* made when first needed */
};

/* Read the command line into @c, which starts zeroed with its io. 0; -1 with @e (ERR_USAGE). Pure but for the
 * environment. Free with cli_done(). */
int cli_parse(struct cli *c, int argc, char *const *argv, struct err *e);
void cli_done(struct cli *c);

/* What was given for an operand or option of this command; asking for any other aborts. */
bool cli_given(const struct cli *c, const char *name);
const char *cli_text(const struct cli *c, const char *name);          /* the first one, or NULL */
const char *cli_nth(const struct cli *c, const char *name, size_t i); /* or NULL */
int64_t cli_number(const struct cli *c, const char *name, int64_t when_not_given);

/* The words by which this command goes: "vm create". Static until the next call. */
const char *cli_command_words(const struct cli_group *g, const struct cli_command *cmd);

/* Parse, run, tell. Returns the exit status. */
int cli_main(int argc, char *const *argv, const struct cli_io *io);

#endif
