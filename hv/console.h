/* SPDX-License-Identifier: Apache-2.0 */
/* Attaching a terminal to a guest's serial console. */
#ifndef GODWIT_HV_CONSOLE_H
#define GODWIT_HV_CONSOLE_H

#include "base/err.h"

#define CONSOLE_ESCAPE 0x1d /* Ctrl-] */

enum console_end {
	CONSOLE_END_ESCAPE, /* the user pressed the escape key */
	CONSOLE_END_INPUT,  /* the input ended (a pipe) */
	CONSOLE_END_GUEST,  /* QEMU closed the console */
	CONSOLE_END_SIGNAL, /* we were asked to end */
	CONSOLE_END_MAX
};

/* Copy between @in_fd/@out_fd and the console socket @path until one of the ends above. A terminal at @in_fd is put in
 * raw mode and given back as it was, whatever ends us (short of SIGKILL). One console per process: signal handlers are
 * used. 0 and *ret, or -1 with @e. */
int console_attach(const char *path, int in_fd, int out_fd, enum console_end *ret, struct err *e);

#endif
