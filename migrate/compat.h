/* SPDX-License-Identifier: Apache-2.0 */
/* Can this guest run in that QEMU? What each side is, and every reason why not at once. */
#ifndef GODWIT_MIGRATE_COMPAT_H
#define GODWIT_MIGRATE_COMPAT_H

#include <jansson.h>

#include "base/err.h"
#include "hv/qmp.h"

/* What the QEMU behind @q is: {qemu, machine, cpu, features, vcpus, memory}. New reference, or NULL with @e. */
json_t *compat_describe(struct qmp *q, int64_t deadline_ns, struct err *e);

/* Compare two descriptions. 0 when a guest of @src can run in @dst; -1 with all reasons in one sentence
 * (ERR_UNSUPPORTED). Pure. */
int compat_check(const json_t *src, const json_t *dst, struct err *e);

/* Refuse what cannot move at all: QEMU's own blockers (host devices and the like), another migration under way. */
int compat_check_movable(struct qmp *q, int64_t deadline_ns, struct err *e);

#endif
