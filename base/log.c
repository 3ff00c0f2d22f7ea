/* SPDX-License-Identifier: Apache-2.0 */
/* The log and its ring of the newest lines. */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024
#define RING_LINES 256

static atomic_int shown_level = LOG_LEVEL_INFO;
static atomic_uint ring_next;
static char ring[RING_LINES][LINE_MAX_BYTES];

static const char prio_char[LOG_LEVEL_MAX] = {'3', '4', '6', '7'};

void log_set_level(enum log_level level)
{
	shown_level = (int)level;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char line[LINE_MAX_BYTES];
	va_list ap;
	size_t n;

	snprintf(line, sizeof(line), "<%c>", prio_char[level]);
	va_start(ap, fmt);
	vsnprintf(line + 3, sizeof(line) - 4, fmt, ap);
	va_end(ap);
	for (char *p = line; *p; p++)
		if (*p == '\n' || *p == '\r')
			*p = ' ';
	n = strlen(line);
	line[n++] = '\n';
	memcpy(ring[ring_next++ % RING_LINES], line, n < LINE_MAX_BYTES ? n + 1 : n);
	if ((int)level <= shown_level)
		(void)!write(STDERR_FILENO, line, n);
}

void log_dump_ring(int fd)
{
	unsigned next = ring_next;

	for (unsigned i = 0; i < RING_LINES; i++) {
		const char *line = ring[(next + i) % RING_LINES];

		if (line[0])
			(void)!write(fd, line, strnlen(line, LINE_MAX_BYTES));
	}
}
