/* SPDX-License-Identifier: Apache-2.0 */
/* The record of a hand-over: its steps, and where it is kept. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrate/handover.h"

static const char *const src_names[SRC_STEP_MAX] = {
	[SRC_COPY] = "copy", [SRC_STOPPED] = "stopped", [SRC_SHUT] = "shut", [SRC_RELEASED] = "released",
	[SRC_GO] = "go",     [SRC_MOVED] = "moved",     [SRC_KEPT] = "kept",
};
static const char *const dst_names[DST_STEP_MAX] = {
	[DST_PREPARE] = "prepare", [DST_LOADED] = "loaded", [DST_GO] = "go",
	[DST_RUNNING] = "running", [DST_NEVER] = "never",
};

#define BIT(n) (1U << (n))
static const unsigned src_next[SRC_STEP_MAX] = {
	[SRC_COPY] = BIT(SRC_STOPPED) | BIT(SRC_KEPT),
	[SRC_STOPPED] = BIT(SRC_SHUT) | BIT(SRC_KEPT) |
			BIT(SRC_GO), /* GO at once: our QEMU is dead and the destination loaded */
	[SRC_SHUT] = BIT(SRC_RELEASED) | BIT(SRC_KEPT) | BIT(SRC_GO),
	[SRC_RELEASED] = BIT(SRC_GO) | BIT(SRC_KEPT),
	[SRC_GO] = BIT(SRC_MOVED) | BIT(SRC_KEPT),
};
static const unsigned dst_next[DST_STEP_MAX] = {
	[DST_PREPARE] = BIT(DST_LOADED) | BIT(DST_NEVER),
	[DST_LOADED] = BIT(DST_GO) | BIT(DST_NEVER),
	[DST_GO] = BIT(DST_RUNNING) | BIT(DST_NEVER),
};

const char *src_step_name(enum src_step s)
{
	return s < SRC_STEP_MAX ? src_names[s] : "unknown";
}

const char *dst_step_name(enum dst_step s)
{
	return s < DST_STEP_MAX ? dst_names[s] : "unknown";
}

/* For the fault table of the tests: the step after whose entry this process stops itself, as in docs/testing.md. */
static const char *fault_step = "";

int handover_reserve(int fd, struct err *e)
{
	errno = posix_fallocate(fd, 0, sizeof(struct handover));
	return errno ? err_sys(e, "a file for the record of the hand-over") : 0;
}

int handover_look(int fd, bool *ret_was_running)
{
	struct handover h;

	if (pread(fd, &h, sizeof(h), 0) != sizeof(h) || h.version == 0)
		return -1;
	*ret_was_running = h.was_running;
	return h.version == HANDOVER_VERSION ? h.step : -2;
}

struct handover *handover_new(int fd)
{
	struct handover *h =
		mmap(NULL, sizeof(*h), PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);

	if (h == MAP_FAILED)
		abort();
	h->beat_ns = clock_now_ns();
	h->was_running = true;
	h->version = HANDOVER_VERSION;
	fault_step = getenv("GODWIT_FAULT_STEP") ?: "";
	return h;
}

static void step_move(struct handover *h, int next, unsigned allowed, const char *side, const char *from,
		      const char *to)
{
	if (!(allowed & BIT(next))) {
		log_error("event=handover-bug side=%s from=%s to=%s", side, from, to);
		abort();
	}
	h->step = next;
	h->beat_ns = clock_now_ns();
	log_debug("event=handover side=%s from=%s to=%s", side, from, to);
	if (!strcmp(fault_step, to))
		raise(SIGSTOP);
}

void handover_src_move(struct handover *h, enum src_step next)
{
	enum src_step now = (enum src_step)h->step;

	step_move(h, (int)next, src_next[now], "source", src_names[now], src_names[next]);
}

void handover_dst_move(struct handover *h, enum dst_step next)
{
	enum dst_step now = (enum dst_step)h->step;

	step_move(h, (int)next, dst_next[now], "destination", dst_names[now], dst_names[next]);
}

void handover_busy(struct handover *h, int64_t ns)
{
	h->beat_ns = clock_now_ns() + ns;
}
