/* SPDX-License-Identifier: Apache-2.0 */
/* Attaching a terminal to a guest's serial console, over whatever leads there. */
#ifndef GODWIT_BASE_TERMINAL_H
#define GODWIT_BASE_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

#define TERMINAL_ESCAPE 0x1d /* Ctrl-] */

enum terminal_end {
	TERMINAL_END_ESCAPE, /* the user pressed the escape key */
	TERMINAL_END_INPUT,  /* the input ended (a pipe) */
	TERMINAL_END_GUEST,  /* the other side closed the console */
	TERMINAL_END_SIGNAL, /* we were asked to end */
	TERMINAL_END_MAX
};

/* What each end is called for people. */
extern const char *const terminal_end_words[TERMINAL_END_MAX];

/* The way to the console. */
struct terminal_peer {
	int fd;                     /* polled for input */
	bool (*pending)(void *arg); /* is there input that @fd does not show? NULL: never */
	ssize_t (*read)(void *arg, void *buf, size_t n, struct err *e); /* bytes, 0 at the end, -1 with @e */
	int (*write)(void *arg, const void *buf, size_t n, struct err *e);
	void *arg;
};

/* Copy between @in_fd/@out_fd and @peer until one of the ends above. A terminal at @in_fd is put in raw mode and given
 * back as it was, whatever ends us (short of SIGKILL). One per process: signal handlers are used. 0 and *ret, or -1
 * with @e. */
int terminal_attach(const struct terminal_peer *peer, int in_fd, int out_fd, enum terminal_end *ret, struct err *e);

/* The same over the unix socket at @path. */
int terminal_attach_path(const char *path, int in_fd, int out_fd, enum terminal_end *ret, struct err *e);

#endif
