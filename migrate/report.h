/* SPDX-License-Identifier: Apache-2.0 */
/* What the user of godwit-migrate sees: JSON lines, or on a terminal a progress bar and a table at the end. */
#ifndef GODWIT_MIGRATE_REPORT_H
#define GODWIT_MIGRATE_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "migrate/forecast.h"

enum report_mode {
	REPORT_PLAIN,    /* not a terminal, no --json: one line per phase and every ten seconds of it, and a table at
			    the end, to stdout */
	REPORT_TERMINAL, /* progress bar redrawn in place (width from TIOCGWINSZ, at most ten times a second), then the
			    table */
	REPORT_JSON,     /* one object per line on stdout, flushed; the last one has "event":"result" */
};

/* Main thread only. A reader of stdout that went away (EPIPE) or stands still (a stopped terminal, a full pipe) loses
 * lines, it never holds up the move: progress waits for nobody, another line at most 20 ms and only after the line
 * before got through, the result 5 s.
 * Units: rates and bytes on the wire are decimal (MB = 10^6), memory is binary (MiB = 2^20). JSON has plain numbers:
 * bytes, bytes/s, and milliseconds with a fraction, -1 where a duration is unknown or does not apply. Every line has
 * "event" and "ms" (since report_new()); all keys of an event are always there. Texts may hold what a peer said:
 * control characters and bytes that are no UTF-8 come out as '?'. */
struct report;

/* @verb is borrowed until report_free(). Never NULL. */
struct report *report_new(enum report_mode mode, const char *verb /* "send", ... */);

/* Ends a bar that still stands. NULL is fine. */
void report_free(struct report *r);

/* A phase begins: "connecting", "preparing", "copying", "switchover", "done". JSON:
 * {"event":"phase","phase":...,"ms":since start}.
 * @phase is copied. */
void report_phase(struct report *r, const char *phase);

/* receive: waiting at @port. @token: the one-time token when nobody else can tell it to the sender, or NULL.
 * JSON: {"event":"listening","port":...,"token":...}. */
void report_listening(struct report *r, int port, const char *token);

struct report_progress {
	double progress; /* 0..1 */
	int64_t eta_ns;  /* < 0 unknown */
	unsigned pass;
	uint64_t sent_bytes, wire_rate, dirty_rate, remaining;
	unsigned downtime_limit_ms, throttle_percent;
};

/* As often as the caller likes: shown at most ten times a second. JSON: {"event":"progress", the fields above with
 * eta_ms for eta_ns}. */
void report_progress(struct report *r, const struct report_progress *shown);

/* The source could hand over and waits for the agreement (migrate/agree.h). JSON: {"event":"ready","pass","remaining"}.
 */
void report_ready(struct report *r, unsigned pass, uint64_t remaining);

/* A sentence worth telling (a policy decision, the chosen accelerator, a warning). JSON: {"event":"note","text":...}.
 */
void report_note(struct report *r, const char *text);

/* A forecast (--dry-run, or before a real move). JSON: {"event":"forecast","converges","passes","bytes","total_ms",
 * "pause_ms","dirty_rate","wire_rate","why"}. */
void report_forecast(struct report *r, const struct forecast *f);

/* The end. Durations in ns, < 0 where it does not apply. JSON keys: result, total_ms, prepare_ms, pause_ms, wire_bytes,
 * passes, pages, zero_pages, resent_pages, coalesced_pages, stop_ms, last_pages_ms, device_state_ms, load_ms,
 * resume_ms, device_bytes, channels, engine_rss_kib, verb, guest, error {code, errno, text} or null, forecast {} as in
 * its event or null. */
struct report_result {
	const char *result; /* "moved", "failed", "cancelled", "undecided", "saved", "restored", "dry-run" */
	int64_t total_ns, prepare_ns, pause_ns;
	int64_t stop_ns, last_pages_ns, device_state_ns, load_ns, resume_ns; /* the parts of the pause */
	uint64_t wire_bytes, pages, zero_pages, resent_pages, coalesced_pages, device_bytes;
	unsigned passes, channels;
	uint64_t peak_anon_kib;          /* memory of the engine itself, without guest RAM */
	const struct forecast *forecast; /* NULL: none was made */
	const struct err *error;         /* NULL on success */
	const char *guest; /* where the guest runs now, a sentence: "the guest runs on here", "the guest runs at the
			      destination" */
};
/* Every duration "does not apply". */
#define REPORT_RESULT_INIT                                                                                             \
	((struct report_result){.total_ns = -1,                                                                        \
				.prepare_ns = -1,                                                                      \
				.pause_ns = -1,                                                                        \
				.stop_ns = -1,                                                                         \
				.last_pages_ns = -1,                                                                   \
				.device_state_ns = -1,                                                                 \
				.load_ns = -1,                                                                         \
				.resume_ns = -1})
void report_result(struct report *r, const struct report_result *res);

#endif
