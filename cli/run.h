/* SPDX-License-Identifier: Apache-2.0 */
/* What commands have in common: ask, follow the task, show. */
#ifndef GODWIT_CLI_RUN_H
#define GODWIT_CLI_RUN_H

#include <jansson.h>

#include "base/err.h"
#include "cli/command.h"

/* Parameters that several commands have. */
#define PARAM_NO_WAIT                                                                                                  \
	{                                                                                                              \
		.name = "no-wait", .kind = CLI_FLAG, .help = "do not wait for the end; print the task"                 \
	}
#define PARAM_FORCE_START                                                                                              \
	{                                                                                                              \
		.name = "force", .kind = CLI_FLAG, .field = "force",                                                   \
		.help = "even if the cluster could then bear the loss of fewer hosts than ha.wish says"                \
	}
#define PARAM_NAMES                                                                                                    \
	{                                                                                                              \
		.name = "names", .kind = CLI_FLAG, .help = "print the names alone, one a line"                         \
	}
#define OPERAND_VM                                                                                                     \
	{                                                                                                              \
		.name = "NAME", .kind = CLI_VM, .help = "the guest"                                                    \
	}

/* Whether this command has such an operand or option at all. */
bool cli_takes(const struct cli *c, const char *name);

/* The command as its row of the table says: ask, follow, show. */
int run_command(struct cli *c, struct err *e);

/* Show an answer as the row says; follow its task first, where it has one. */
int run_answer(struct cli *c, json_t *answer, struct err *e);

/* Follow the task of @answer to its end, unless --no-wait: 1 and *ret_task (new reference) is done; 0: it is not waited
 * for, which has been said; -1 with @e. @moving as in wait_task(). */
int run_task(struct cli *c, const json_t *answer, const char *moving, json_t **ret_task, struct err *e);

/* "vm web1", for sentences. Caller frees. */
char *run_words(const struct cli *c);

/* For each host whether the guest fits there, and why not. 0; -1 with @e when it fits nowhere. */
int run_placement(struct cli *c, const json_t *placement, struct err *e);

/* What a move would cost. */
void run_forecast(struct cli *c, const json_t *forecast);

#endif
