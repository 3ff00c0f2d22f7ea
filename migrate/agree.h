/* SPDX-License-Identifier: Apache-2.0 */
/* The agreement: somebody outside (a cluster) must say yes before the guest may be handed over. */
#ifndef GODWIT_MIGRATE_AGREE_H
#define GODWIT_MIGRATE_AGREE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/*
 * Theory of operation (`send --agree-fd`)
 *
 * A cluster must know that a guest may be running at the destination before it can be: then, and only then, it looks
 * there first when the source dies. So GO needs a yes. The yes takes a cluster some milliseconds (a majority's disks),
 * which must not be milliseconds of the pause; but QEMU alone decides when it stops the guest, at the end of any pass,
 * and cannot be asked to wait: `pause-before-switchover` waits with the guest stopped. Hence three parts:
 *
 * Ask: as soon as the first pass nears its end; before that QEMU never stops the guest. {"event": "ready"}.
 *
 * Hold: without an answer by the last stretch of that pass, the engine reads no more of QEMU's stream. QEMU blocks in
 * the middle of the pass, the guest runs on, nothing is lost but time.
 *
 * Gate: without a yes no GO. That alone is the safety; the two above only keep the wait out of the pause. It is closed
 * where QEMU stops the guest before it could be held (so little memory that the first pass is over at once, or a pass
 * so small that it fits into the sockets): then the guest waits, stopped, until the yes or the end of the allowed
 * pause, and in the latter case goes on at the source.
 *
 * The yes may stand for a long time before the guest stops, if many passes follow. That is safe: it says that GO may be
 * sent, not that it will be. Until GO the source goes on whatever happens, and a destination without GO never runs it.
 *
 * The answer is one byte that can be read from the descriptor: 'y', or anything else, which ends the move, as does the
 * end of a pipe that nobody can write to any more. It may be a file, too, empty until somebody appends to it: then who
 * answers need not be who asked, and a daemon can be replaced in between.
 */

enum agree_answer { AGREE_NOT_YET, AGREE_YES, AGREE_NO, AGREE_NOBODY, AGREE_ANSWER_MAX };

struct agree {
	int fd;           /* -1: nobody is asked */
	int64_t asked_ns; /* 0: not yet */
	enum agree_answer answer;
	bool held;
};

/* No agreement is needed, or it is there. */
bool agree_given(const struct agree *a);

/* Read the answer if it has come; never waits. -1 with @e (ERR_CANCELLED) when it is no, or can never come. */
int agree_look(struct agree *a, struct err *e);

/* Is it time to ask, and to hold, with @remaining bytes of pass @pass left and @wire_rate bytes/s
 * (0: unknown)? Pure. */
bool agree_due(unsigned pass, uint64_t remaining, uint64_t wire_rate);
bool agree_must_hold(unsigned pass, uint64_t remaining, uint64_t wire_rate);

#endif
