/* SPDX-License-Identifier: Apache-2.0 */
/* What --help prints, made of the table. */
#ifndef GODWIT_CLI_HELP_H
#define GODWIT_CLI_HELP_H

#include <stdio.h>

#include "cli/command.h"

/* All commands with all their options; those of one group; one command. NULL: not said. */
void help_print(FILE *out, const struct cli_group *g, const struct cli_command *cmd);

#endif
