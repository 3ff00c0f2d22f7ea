/* SPDX-License-Identifier: Apache-2.0 */
/* A child process whose end is awaited and whose words are read afterwards, without a pipe that could break. */
#ifndef GODWIT_NODE_JOB_H
#define GODWIT_NODE_JOB_H

#include <stdbool.h>
#include <stddef.h>

#include "base/child.h"
#include "base/err.h"

/*
 * The child writes to memory files of fixed size that it shares with us. So it never waits for us, is never hit by
 * SIGPIPE when we are gone, and ends on its own what it began; and whatever it does, it cannot fill our memory.
 */
struct job {
	struct child child;
	int out_fd, err_fd;
};

#define JOB_INIT ((struct job){.child = CHILD_INIT, .out_fd = -1, .err_fd = -1})
#define JOB_OUT_MAX (64U << 20) /* bytes of standard output */
#define JOB_ERR_MAX (64U << 10)

/* How a job ended. Starts zeroed; job_end_done() frees. */
struct job_end {
	int exit_code; /* -1: a signal ended it, or its end was not ours to see */
	char *out;     /* all of standard output, NUL-terminated */
	size_t out_size;
	char *words; /* one sentence: the last line of standard error, else how it ended */
};

/* Start @argv; @input_fd (-1: none) is the child's descriptor 3. It outlives us. -1 with @e. */
int job_start(const char *const *argv, int input_fd, struct job *ret, struct err *e);

/* Runs, or has ended and was not collected. */
bool job_active(const struct job *j);

/* Has it ended? (Its pidfd is readable then.) If so collect it: true, *ret filled, @j is JOB_INIT again. */
bool job_collect(struct job *j, struct job_end *ret);

void job_end_done(struct job_end *end);

/* What an active job has written to standard output so far, NUL-terminated; caller frees. */
char *job_output(const struct job *j, size_t *ret_size);

/* Forget a job, which goes on. */
void job_done(struct job *j);

/* A memory file that holds @text, for @input_fd. -1 with @e. */
int job_input(const char *text, struct err *e);

#endif
