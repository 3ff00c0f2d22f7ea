/* SPDX-License-Identifier: Apache-2.0 */
/* A daemon that answers what a test has told it, remembers what it was asked, and a way to run godwit against it. */
#ifndef GODWIT_TESTS_CLI_FAKE_H
#define GODWIT_TESTS_CLI_FAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/command.h"

#define FAKE_CUT (-1)    /* instead of a status: the connection ends without an answer */
#define FAKE_STREAM (-2) /* events: the body is sent, and the stream stays */
#define FAKE_RAW (-3)    /* a stream of bytes: says "login: ", echoes letters as capitals, ends at a dot */
#define FAKE_ENDING (-4) /* events: the body is sent, then the stream ends */

/* For cmocka: a fresh daemon for each test. */
int fake_start(void **state);
int fake_stop(void **state);

const char *fake_socket(void);
/* A path in the daemon's folder, which is emptied at the end; some at a time. */
const char *fake_path(const char *name);
/* The same, with a file of @text there. */
const char *fake_file(const char *name, const char *text);

/* Answers to one request are given in the order in which they were said; the last one again and again. */
void fake_answer(const char *method, const char *target, int status, const char *body);

/* From now on answers say that the state is so old. */
void fake_age(int ms);

struct fake_request {
	char *method, *target, *body; /* "" without a body */
	char *key, *upgrade;          /* headers, or NULL */
};

size_t fake_count(void);
const struct fake_request *fake_request(size_t i);
size_t fake_count_of(const char *method, const char *target);
/* The first request of this kind; fails the test when there is none. */
const struct fake_request *fake_find(const char *method, const char *target);
/* Wait until so many of that kind have come, at most 5 s. */
void fake_wait(const char *method, const char *target, size_t n);

/* What the terminal is like: a test may change it before running. */
extern struct cli_io fake_io;

struct fake_run {
	int status;
	char *out, *err;
};

/* Run "godwit" with these words against the daemon. End with fake_run_done(). */
void fake_run(struct fake_run *r, const char *const *words);
void fake_run_done(struct fake_run *r);
#define FAKE_RUN(r, ...) fake_run((r), (const char *const[]){__VA_ARGS__, NULL})
/* The words of @line, separated by blanks. */
void fake_run_line(struct fake_run *r, const char *line);

/* Compare JSON texts, members in any order. */
void fake_assert_json(const char *text, const char *expected);

#endif
