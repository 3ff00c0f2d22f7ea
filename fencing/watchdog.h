/* SPDX-License-Identifier: Apache-2.0 */
/* A watchdog device of the kernel: it resets the host when it was not petted for its time-out. */
#ifndef GODWIT_FENCING_WATCHDOG_H
#define GODWIT_FENCING_WATCHDOG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define WATCHDOG_DEVICE "/dev/watchdog"

/* An armed device. Owned by its opener; one thread. */
struct watchdog {
	int fd;
	unsigned timeout_s; /* what the driver really set */
	bool forever;      /* "nowayout": once opened, nothing but petting keeps the host up, not even a proper close */
	char identity[33]; /* the driver's name for it */
};

#define WATCHDOG_INIT ((struct watchdog){.fd = -1})

/* Open the device at @path, which arms it, and set its time-out to @timeout_s seconds; the driver may make that longer.
 * 0; -1 with @e and the device closed again, properly: ERR_CONFLICT when somebody else has it (the sentence says who,
 * if that can be found out), ERR_NOTFOUND when there is none, ERR_UNSUPPORTED when it is no watchdog, or its time-out
 * cannot be set or not be that long. */
int watchdog_open(const char *path, unsigned timeout_s, struct watchdog *ret, struct err *e);

/* Take over @fd (taken), which an earlier program of ours armed and handed over. As watchdog_open(), and it is petted.
 */
int watchdog_take(int fd, const char *path, unsigned timeout_s, struct watchdog *ret, struct err *e);

/* Another time-out; the device is petted by that. As watchdog_open(), but the device stays open and armed on failure.
 */
int watchdog_set(struct watchdog *w, const char *path, unsigned timeout_s, struct err *e);

/* Not before timeout_s from now. -1 with @e when the driver fails. */
int watchdog_pet(struct watchdog *w, struct err *e);

/* Disarm and close (the "magic close" of the kernel's watchdog API). A device that is `forever` resets the host all the
 * same. */
void watchdog_close(struct watchdog *w);

/* Whether somebody holds @path; his name and process id in @buf ("systemd (process 1)"), "" when that is not to be
 * seen. */
bool watchdog_holder(const char *path, char *buf, size_t size);

#endif
