/* SPDX-License-Identifier: Apache-2.0 */
/* Following a long action to its end: a bar on a terminal, lines elsewhere, Ctrl-C. */
#ifndef GODWIT_CLI_WAIT_H
#define GODWIT_CLI_WAIT_H

#include <jansson.h>

#include "base/err.h"
#include "cli/command.h"

/* Follow @task (of an answer 202) until it has ended, in whatever way: 0 and *ret is the task then (new reference).
 * @moving: the guest when this is a migration, or NULL. Ctrl-C (SIGINT, SIGTERM) asks for the migration's end and goes
 * on waiting; a second one, or the first for any other task, leaves: -1 with ERR_CANCELLED. A daemon that is not there
 * for a while is waited for. */
int wait_task(struct cli *c, const json_t *task, const char *moving, json_t **ret, struct err *e);

/* 0 when the task is done; -1 with what it failed of. @words: what it was, "vm web1". */
int wait_outcome(const json_t *task, const char *words, struct err *e);

/* Ask for @target every now and then until @done says so, or @patience_s have passed (-1, ERR_TIMEOUT). *ret: the last
 * answer (new reference). */
int wait_until(struct cli *c, const char *target, bool (*done)(const json_t *answer), int patience_s, json_t **ret,
	       struct err *e);

#endif
