/* SPDX-License-Identifier: Apache-2.0 */
/* Telling the service manager how the daemon is: sd_notify(3)'s protocol, without libsystemd. */
#ifndef GODWIT_NODE_NOTIFY_H
#define GODWIT_NODE_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* Start as NOTIFY_INIT. Without a service manager (fd < 0) every call succeeds and does nothing. Loop thread. */
struct notify {
	int fd;
	int64_t watchdog_ns; /* call notify_watchdog() at least this often: half of what the manager waits. 0: never */
};

#define NOTIFY_INIT ((struct notify){.fd = -1})

/* Take NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of the environment, so that no child inherits them, and open
 * the socket. 0, also when there is no manager; -1 with @e when what they say cannot be. */
int notify_open(struct notify *n, struct err *e);
void notify_close(struct notify *n);

/* The daemon answers requests (@status: one line for systemctl status), is on its way out, is alive, is at @status.
 * They never block: a manager that does not read is the manager's trouble, and the error is only worth a log line. */
int notify_ready(struct notify *n, const char *status, struct err *e);
int notify_stopping(struct notify *n, struct err *e);
int notify_watchdog(struct notify *n, struct err *e);
int notify_status(struct notify *n, struct err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
