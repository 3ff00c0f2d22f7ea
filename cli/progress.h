/* SPDX-License-Identifier: Apache-2.0 */
/* One line that shows how far something is. Pure. */
#ifndef GODWIT_CLI_PROGRESS_H
#define GODWIT_CLI_PROGRESS_H

#include <stdint.h>

#define PROGRESS_LINE_MAX 512

struct progress {
	const char *what;   /* "web1" */
	const char *step;   /* "copying", or "" */
	double done;        /* 0 to 1; < 0 unknown */
	int64_t eta_ns;     /* < 0 unknown */
	double wire_rate;   /* bytes/s; 0 unknown */
	double dirty_rate;  /* bytes/s that the guest writes; 0 unknown */
	double remaining;   /* bytes; 0 unknown */
	int64_t elapsed_ns; /* shown where @done is unknown */
};

/* As much of it as @columns hold, the last one left free (a full line would wrap). @buf: PROGRESS_LINE_MAX bytes. */
void progress_line(char *buf, const struct progress *p, int columns);

#endif
