/* SPDX-License-Identifier: Apache-2.0 */
/* What the four verbs of godwit-migrate share: options, outcomes, the token, signals, waiting. */
#ifndef GODWIT_MIGRATE_ENGINE_H
#define GODWIT_MIGRATE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sock.h"
#include "hv/qmp.h"
#include "migrate/conn.h"
#include "migrate/report.h"

/* Exit codes, as documented in godwit-migrate(1). */
enum outcome {
	OUTCOME_MOVED =
		0, /* send: the guest runs at the destination; receive: it runs here; save, restore, dry run: done */
	OUTCOME_FAILED = 1,    /* the guest runs on where it was */
	OUTCOME_USAGE = 2,     /* wrong command line */
	OUTCOME_CANCELLED = 3, /* asked to stop; the guest runs on where it was */
	OUTCOME_UNDECIDED = 4, /* cut at the moment of the hand-over: the guest is stopped, a person must choose */
	OUTCOME_LOST = 5,      /* the guest's own QEMU died: it runs nowhere */
};

struct engine_options {
	const char *qmp_path;
	const char *addr_text;
	struct sock_addr addr;
	const char *file; /* save, restore */
	const char *token_file;
	const char *tls_dir;
	const char *peer_name; /* name that the other side's certificate must have; NULL: the host connected to / any */
	bool plaintext;
	bool dry_run, auto_converge, keep_source;
	int agree_fd;  /* send: where the agreement is read from (migrate/agree.h), -1: none is needed */
	int record_fd; /* send, receive: the file that holds the hand-over's record (migrate/handover.h), -1: none */
	unsigned max_pause_ms;
	unsigned channels; /* 0: from the core count */
	unsigned deadline_s;
	unsigned wait_s;   /* receive: how long to wait for a sender, 0 for ever */
	unsigned settle_s; /* after a cut at the hand-over: how long the other side is asked, or waited for */
	uint64_t bandwidth;
	enum report_mode mode;
};

/* Before each move the source sends so many probe frames of WIRE_DATA_MAX bytes, for the destination to know the wire.
 */
#define ENGINE_PROBE_FRAMES 8

enum outcome send_run(const struct engine_options *opt, struct report *r);
enum outcome receive_run(const struct engine_options *opt, struct report *r);
enum outcome save_run(const struct engine_options *opt, struct report *r);
enum outcome restore_run(const struct engine_options *opt, struct report *r);

/* TLS identity (or plaintext) and the token. @make_token: without --token-file, or when that file does not exist, a new
 * token is made (and the file written, mode 0600); otherwise it is read from the file, or from stdin. */
int engine_secret_load(const struct engine_options *opt, bool make_token, struct conn_secret *ret, struct err *e);
void engine_secret_done(struct conn_secret *s);
void engine_token_text(const struct conn_secret *s, char out[2 * WIRE_TOKEN_SIZE + 1]);

/* SIGINT and SIGTERM from now on only make this descriptor readable (blocked in every thread started later). */
int engine_signal_fd(struct err *e);

/* How many channels: the option, else by core count. TLS scales with cores, plaintext is bound by one copy. */
unsigned engine_channels(const struct engine_options *opt);

/* What a control loop waits for. */
struct engine_wait {
	struct conn *control; /* may be NULL */
	struct qmp *qmp;
	int wake_fd, signal_fd;
	int listen_fd; /* -1: none */
};
#define ENGINE_CONTROL 0x01
#define ENGINE_QMP 0x02
#define ENGINE_WAKE 0x04
#define ENGINE_SIGNAL 0x08
#define ENGINE_LISTEN 0x10
/* Which of them are ready, within @timeout_ms. Drains wake_fd. */
unsigned engine_wait(const struct engine_wait *w, int timeout_ms);

/* Peak of this process's own memory, in KiB, for the report. */
uint64_t engine_peak_anon_kib(void);

#endif
