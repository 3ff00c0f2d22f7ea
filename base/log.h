/* SPDX-License-Identifier: Apache-2.0 */
/* The log: key=value lines on stderr with a priority prefix (sd-daemon(3)); debug lines stay in a ring in memory. */
#ifndef GODWIT_BASE_LOG_H
#define GODWIT_BASE_LOG_H

enum log_level {
	LOG_LEVEL_ERROR,   /* someone must act */
	LOG_LEVEL_WARNING, /* degraded, goes on */
	LOG_LEVEL_INFO,    /* one line per life-cycle event */
	LOG_LEVEL_DEBUG,   /* kept in the ring, printed only when asked */
	LOG_LEVEL_MAX
};

/* Lines up to @level go to stderr; the default is LOG_LEVEL_INFO. Any thread. */
void log_set_level(enum log_level level);

/* One line "<prio>event=... key=value ...": @fmt is the whole text after the prefix. Any thread, one write(2) per line.
 */
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Write the ring of the newest lines (debug ones too) to @fd. Async-signal-safe enough for an abort handler. */
void log_dump_ring(int fd);

#endif
