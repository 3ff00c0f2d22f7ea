/* SPDX-License-Identifier: Apache-2.0 */
/* How fast a running guest writes its memory, measured by QEMU in the best mode that this guest allows. */

/* Theory of operation
 *
 * QEMU measures by itself: calc-dirty-rate starts a thread, query-dirty-rate tells when it is done and the result in
 * whole MiB/s (migration/dirtyrate.c of QEMU). What differs is how it counts:
 *
 *     mode           needs                 counts
 *     dirty-ring     KVM with a ring       each page written, from KVM's per-vCPU rings
 *     dirty-bitmap   KVM without a ring    each page written, from KVM's bitmap
 *     page-sampling  nothing               sampled pages whose hash changed; RAM blocks under 128 MiB are not looked at
 *
 * Which of the two KVM modes works is decided by how QEMU was started, and 7.2 shows that nowhere (the accelerator is
 * not in the object tree), but refuses the other one. So the choice is a ladder: with KVM ask for the ring, when that
 * is refused for the bitmap, when that is refused sample pages.
 *
 * Without KVM the ladder must not be tried. On QEMU 7.2.22 with TCG, calc-dirty-rate in mode dirty-bitmap or dirty-ring
 * was seen to kill QEMU with SIGSEGV, guest and all, whether the guest ran or was stopped. So unless query-kvm says
 * that KVM is in use, both modes are refused here, also to somebody who asks for them by name.
 *
 * A second measurement while one runs is refused by QEMU; ours waits for the first to end. */
#include "hv/dirtyrate.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

/* For each answer, and for QEMU's own work around the measured time (hashing samples of a very large guest). */
#define ANSWER_NS (10 * NS_PER_S)
#define SLACK_NS (60 * NS_PER_S)
#define POLL_MS 20

/* QEMU's limits in page-sampling mode: MIN_RAMBLOCK_SIZE, and sample-pages per GiB. */
#define SAMPLED_BLOCK_MIN (128LL << 20)
#define SAMPLES_PER_GIB_MIN 128
#define SAMPLES_PER_GIB_MAX 4096
/* Hashed before and after: 256 MiB of memory traffic each, where the guest is so large that this is the limit. */
#define SAMPLES_TOTAL 65536

static const char *const mode_names[DIRTYRATE_MODE_MAX] = {
	[DIRTYRATE_AUTO] = "auto",
	[DIRTYRATE_PAGE_SAMPLING] = "page-sampling",
	[DIRTYRATE_DIRTY_BITMAP] = "dirty-bitmap",
	[DIRTYRATE_DIRTY_RING] = "dirty-ring",
};

const char *dirtyrate_mode_name(enum dirtyrate_mode mode)
{
	return mode < DIRTYRATE_MODE_MAX ? mode_names[mode] : "unknown";
}

int dirtyrate_mode_parse(const char *name, enum dirtyrate_mode *ret, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(mode_names); i++) {
		if (strcmp(name, mode_names[i]) == 0) {
			*ret = (enum dirtyrate_mode)i;
			return 0;
		}
	}
	return err_set(e, ERR_USAGE,
		       "\"%.64s\" is no way to measure: use auto, page-sampling, dirty-bitmap or dirty-ring", name);
}

/* Does KVM run this guest? 1, 0, or -1 with @e. */
static int kvm_enabled(struct qmp *q, struct err *e)
{
	json_t *r = NULL;
	int enabled;

	if (qmp_call(q, "query-kvm", NULL, clock_now_ns() + ANSWER_NS, &r, e) < 0)
		return -1;
	enabled = json_is_true(json_object_get(r, "enabled"));
	json_decref(r);
	return enabled;
}

/* Bytes of RAM the guest was started with, or -1 with @e. */
static int64_t base_memory(struct qmp *q, struct err *e)
{
	json_t *r = NULL;
	int64_t bytes;

	if (qmp_call(q, "query-memory-size-summary", NULL, clock_now_ns() + ANSWER_NS, &r, e) < 0)
		return -1;
	bytes = json_integer_value(json_object_get(r, "base-memory"));
	json_decref(r);
	return bytes > 0 ? bytes : err_set(e, ERR_PROTOCOL, "query-memory-size-summary: no base-memory in the answer");
}

/* Keep the number of hashed pages bounded whatever the size, and as fine as QEMU allows below that. */
static int samples_per_gib(int64_t ram_bytes)
{
	int64_t gib = (ram_bytes + (1LL << 30) - 1) >> 30;
	int64_t n = SAMPLES_TOTAL / gib;

	if (n < SAMPLES_PER_GIB_MIN)
		return SAMPLES_PER_GIB_MIN;
	return n > SAMPLES_PER_GIB_MAX ? SAMPLES_PER_GIB_MAX : (int)n;
}

/* Start a measurement. -1 with @e; ERR_QMP means that QEMU refuses. */
static int calc_start(struct qmp *q, enum dirtyrate_mode mode, int seconds, struct err *e)
{
	int64_t deadline = clock_now_ns() + ANSWER_NS;
	int64_t ram;

	if (mode != DIRTYRATE_PAGE_SAMPLING)
		return qmp_callf(q, deadline, NULL, e, "calc-dirty-rate", "{s:i,s:s}", "calc-time", seconds, "mode",
				 dirtyrate_mode_name(mode));
	ram = base_memory(q, e);
	if (ram < 0)
		return -1;
	if (ram < SAMPLED_BLOCK_MIN)
		return err_set(
			e, ERR_UNSUPPORTED,
			"QEMU samples pages only in memory of at least 128 MiB and this guest has %lld MiB: its dirty "
			"rate can be measured with KVM only",
			(long long)(ram >> 20));
	return qmp_callf(q, deadline, NULL, e, "calc-dirty-rate", "{s:i,s:s,s:i}", "calc-time", seconds, "mode",
			 dirtyrate_mode_name(mode), "sample-pages", samples_per_gib(ram));
}

/* Let up to @ms pass, less when QEMU goes away: its monitor hangs up and the next call tells. */
static void pause_ms(struct qmp *q, int ms)
{
	struct pollfd p = {.fd = qmp_fd(q), .events = POLLRDHUP};

	poll(&p, 1, ms);
}

/* Wait until no measurement runs. 0 with *ret the last answer of query-dirty-rate (caller drops), -1 with @e. */
static int calc_wait(struct qmp *q, int64_t deadline_ns, json_t **ret, struct err *e)
{
	for (;;) {
		json_t *r = NULL;
		const char *status;

		if (qmp_call(q, "query-dirty-rate", NULL, clock_now_ns() + ANSWER_NS, &r, e) < 0)
			return -1;
		status = json_string_value(json_object_get(r, "status"));
		if (status && strcmp(status, "measuring") != 0) {
			*ret = r;
			return 0;
		}
		json_decref(r);
		if (!status)
			return err_set(e, ERR_PROTOCOL, "query-dirty-rate: no status in the answer");
		if (clock_now_ns() >= deadline_ns)
			return err_set(
				e, ERR_TIMEOUT,
				"query-dirty-rate: QEMU still measures a minute after the time asked for: its host is "
				"overloaded, try again later");
		pause_ms(q, POLL_MS);
	}
}

/* Somebody else's measurement may run already; it ends by itself. */
static int calc_idle(struct qmp *q, struct err *e)
{
	json_t *r = NULL;

	if (calc_wait(q, clock_now_ns() + DIRTYRATE_SECONDS_MAX * NS_PER_S + SLACK_NS, &r, e) < 0)
		return -1;
	json_decref(r);
	return 0;
}

/* The rate in bytes per second from the answer @r to a measurement in @mode, or -1 with @e. */
static int64_t rate_take(const json_t *r, enum dirtyrate_mode mode, struct err *e)
{
	const char *status = json_string_value(json_object_get(r, "status"));
	const char *used = json_string_value(json_object_get(r, "mode"));
	const json_t *rate = json_object_get(r, "dirty-rate");
	json_int_t mib = json_integer_value(rate);

	if (!status || strcmp(status, "measured") != 0 || !json_is_integer(rate) || mib < 0 || mib > INT64_MAX >> 20)
		return err_set(e, ERR_PROTOCOL, "query-dirty-rate: the measurement ended without a rate");
	if (!used || strcmp(used, dirtyrate_mode_name(mode)) != 0)
		return err_set(e, ERR_PROTOCOL,
			       "query-dirty-rate: asked for mode %s, measured in %s: does somebody else "
			       "measure this guest too?",
			       dirtyrate_mode_name(mode), used ? used : "none");
	return mib << 20;
}

/* One whole measurement in @mode. -1 with @e; *ret_refused: QEMU did not start it (ERR_QMP). */
static int measure_in(struct qmp *q, enum dirtyrate_mode mode, int seconds, int64_t *ret, bool *ret_refused,
		      struct err *e)
{
	int64_t end;
	json_t *r = NULL;

	*ret_refused = false;
	if (calc_start(q, mode, seconds, e) < 0) {
		*ret_refused = e->code == ERR_QMP;
		return -1;
	}
	end = clock_now_ns() + seconds * NS_PER_S;
	pause_ms(q, clock_poll_ms(end));
	if (calc_wait(q, end + SLACK_NS, &r, e) < 0)
		return -1;
	*ret = rate_take(r, mode, e);
	json_decref(r);
	return *ret < 0 ? -1 : 0;
}

static const char *mode_limits(enum dirtyrate_mode mode)
{
	return mode == DIRTYRATE_PAGE_SAMPLING ? "an estimate from samples" : "counts every page written";
}

/* Down the ladder from @first; @why is what made it start there. */
static int measure_ladder(struct qmp *q, enum dirtyrate_mode first, const char *why, int seconds, struct dirtyrate *ret,
			  struct err *e)
{
	struct dirtyrate d = {.seconds = seconds};
	char refusals[256] = "";

	for (enum dirtyrate_mode m = first; m >= DIRTYRATE_PAGE_SAMPLING; m--) {
		struct err err = ERR_INIT;
		size_t used = strlen(refusals);
		bool refused;

		if (measure_in(q, m, seconds, &d.bytes_per_s, &refused, &err) == 0) {
			d.mode = m;
			snprintf(d.why, sizeof(d.why), "%s: %s%s; %s", dirtyrate_mode_name(m), why, refusals,
				 mode_limits(m));
			*ret = d;
			return 0;
		}
		if (!refused || m == DIRTYRATE_PAGE_SAMPLING) {
			if (e)
				*e = err;
			return err_wrap(e, "measure the dirty rate in mode %s", dirtyrate_mode_name(m));
		}
		snprintf(refusals + used, sizeof(refusals) - used, "; %s refused (%.90s)", dirtyrate_mode_name(m),
			 err.text);
	}
	return err_set(e, ERR_UNSUPPORTED, "no way to measure the dirty rate is left");
}

/* @mode was asked for by name: it or an error. */
static int measure_named(struct qmp *q, enum dirtyrate_mode mode, bool kvm, int seconds, struct dirtyrate *ret,
			 struct err *e)
{
	struct err err = ERR_INIT;
	bool refused;
	int64_t rate;

	if (mode != DIRTYRATE_PAGE_SAMPLING && !kvm)
		return err_set(
			e, ERR_UNSUPPORTED,
			"mode %s needs KVM, which this guest does not use (asking QEMU for it would kill the guest): "
			"use page-sampling or auto",
			dirtyrate_mode_name(mode));
	if (measure_in(q, mode, seconds, &rate, &refused, &err) < 0) {
		if (refused)
			err.code = ERR_UNSUPPORTED;
		if (e)
			*e = err;
		return err_wrap(e, "measure the dirty rate in mode %s", dirtyrate_mode_name(mode));
	}
	*ret = (struct dirtyrate){.bytes_per_s = rate, .mode = mode, .seconds = seconds};
	snprintf(ret->why, sizeof(ret->why), "%s: asked for by name; %s", dirtyrate_mode_name(mode), mode_limits(mode));
	return 0;
}

int dirtyrate_measure(struct qmp *q, enum dirtyrate_mode mode, int seconds, struct dirtyrate *ret, struct err *e)
{
	int kvm;

	if (seconds < DIRTYRATE_SECONDS_MIN || seconds > DIRTYRATE_SECONDS_MAX)
		return err_set(e, ERR_INPUT, "the dirty rate can be measured over %d to %d seconds, not %d",
			       DIRTYRATE_SECONDS_MIN, DIRTYRATE_SECONDS_MAX, seconds);
	kvm = kvm_enabled(q, e);
	if (kvm < 0 || calc_idle(q, e) < 0)
		return err_wrap(e, "measure the dirty rate");
	if (mode != DIRTYRATE_AUTO)
		return measure_named(q, mode, kvm, seconds, ret, e);
	if (kvm)
		return measure_ladder(q, DIRTYRATE_DIRTY_RING, "the guest runs with KVM", seconds, ret, e);
	return measure_ladder(q, DIRTYRATE_PAGE_SAMPLING,
			      "the guest runs without KVM, whose dirty log the other modes need", seconds, ret, e);
}
