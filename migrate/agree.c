/* SPDX-License-Identifier: Apache-2.0 */
/* The agreement: reading the answer, and the moments to ask and to hold. */
#include "migrate/agree.h"

#include <poll.h>
#include <unistd.h>

/* A third of a second of the wire is far more than a cluster's answer takes, and several looks of the engine. */
#define ASK_PER_SECOND 3
#define ASK_MIN (64ULL << 20)
/* Three looks of 20 ms; and more than the sockets and QEMU's buffers hold, or QEMU would not feel it. */
#define HOLD_PER_SECOND 16
#define HOLD_MIN (16ULL << 20)

bool agree_given(const struct agree *a)
{
	return a->fd < 0 || a->answer == AGREE_YES;
}

int agree_look(struct agree *a, struct err *e)
{
	struct pollfd p = {.fd = a->fd, .events = POLLIN};
	char byte;

	/* A regular file is always ready, and reads as its end while it is empty. */
	if (a->answer == AGREE_NOT_YET && a->fd >= 0 && poll(&p, 1, 0) == 1) {
		if (read(a->fd, &byte, 1) == 1)
			a->answer = byte == 'y' ? AGREE_YES : AGREE_NO;
		else if (p.revents & POLLHUP)
			a->answer = AGREE_NOBODY;
	}
	if (a->answer == AGREE_NO)
		return err_set(e, ERR_CANCELLED, "the hand-over was refused");
	if (a->answer == AGREE_NOBODY)
		return err_set(e, ERR_CANCELLED, "the hand-over was not agreed to: nobody is left who could");
	return 0;
}

static bool near_the_end(unsigned pass, uint64_t remaining, uint64_t bytes, uint64_t min)
{
	return pass > 1 || (pass == 1 && remaining < (bytes > min ? bytes : min));
}

bool agree_due(unsigned pass, uint64_t remaining, uint64_t wire_rate)
{
	return near_the_end(pass, remaining, wire_rate / ASK_PER_SECOND, ASK_MIN);
}

bool agree_must_hold(unsigned pass, uint64_t remaining, uint64_t wire_rate)
{
	return near_the_end(pass, remaining, wire_rate / HOLD_PER_SECOND, HOLD_MIN);
}
