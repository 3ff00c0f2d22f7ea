/* SPDX-License-Identifier: Apache-2.0 */
/* The permit: a page in the run directory that says until when this host may start guests of a cluster. */
#ifndef GODWIT_HV_PERMIT_H
#define GODWIT_HV_PERMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* The file in the run directory, under a name that no guest can have. It is in memory (/run), and so gone after a boot.
 */
#define PERMIT_FILE ".permit"
#define PERMIT_MARK_MAX 79 /* bytes of the text that the marks of the cluster's guests begin with */
#define PERMIT_KEPT_MAX 512

/* Instead of a time: nobody watches over this host's guests, and they may start. */
#define PERMIT_FREE INT64_MAX

/* The writer's hold of it: one process at a time. */
struct permit {
	int fd; /* locked; shared with whoever inherits it */
	struct permit_page *page;
};

#define PERMIT_INIT ((struct permit){.fd = -1})

/* Make the file in @run_dir if it is missing, and lock it. @fd: one that was inherited with its lock (taken), or -1. 0,
 * or -1 with @e: ERR_CONFLICT when another process has it. What an earlier writer wrote is kept; a page that no writer
 * of this version made starts as PERMIT_FREE for no mark. */
int permit_open(const char *run_dir, int fd, struct permit *ret, struct err *e);
void permit_close(struct permit *p); /* the page stays as it is */

/* Whose guests it is about: those whose mark begins with @mark ("": nobody's). */
void permit_set_mark(struct permit *p, const char *mark);

/* Until when guests with that mark may start: clock_boot_ns(), or PERMIT_FREE. Once this has returned, a start either
 * sees it or has its record in the run directory already. */
void permit_set_until(struct permit *p, int64_t until_ns);

/* At most PERMIT_KEPT_MAX bytes of the writer's own, for its successor: whole or not at all. permit_kept() returns how
 * many there are, 0 for none. */
void permit_keep(struct permit *p, const void *data, size_t n);
size_t permit_kept(const struct permit *p, void *buf, size_t max);

/* Whether a guest marked @mark (NULL: not a cluster's) may start at @now_ns. 0, or -1 with @e: ERR_UNAVAILABLE. A start
 * asks after its record is written and before QEMU runs; whoever ends all guests sets the permit first and reads the
 * records then. So one of the two sees the other. */
int permit_check(const char *run_dir, const char *mark, int64_t now_ns, struct err *e);

#endif
