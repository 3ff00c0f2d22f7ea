/* SPDX-License-Identifier: Apache-2.0 */
/* godwit-migrate save and restore: the same engine with a file as the wire (suspend, move, wake). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "migrate/compat.h"
#include "migrate/dest.h"
#include "migrate/engine.h"
#include "migrate/guard.h"
#include "migrate/handover.h"
#include "migrate/mapping.h"
#include "migrate/qemu.h"
#include "migrate/sandbox.h"
#include "migrate/source.h"

/*
 * Theory of operation
 *
 * A file holds what one data channel would carry: a FILE_HEAD frame (JSON: what the guest is), page, zero and stream
 * frames, END, device state, and a FILE_TAIL frame with the SHA-256 of every byte before it. The guest is stopped
 * first, so each page is there once; zero pages are runs of a few bytes. The file grows under FILE.part and gets its
 * name only when it is complete and on disk: a file with the name is a whole one, and the digest says so again at
 * restore, before the guest runs.
 *
 * save:    stop -> copy -> digest, fsync, rename -> the source's QEMU ends. A failure at any step: the guest runs on.
 * It was stopped by us and not by QEMU, so QEMU will not let it run on by itself: a guard does when we die. restore:
 * copy -> device state is held back -> digest -> device state -> the guest goes on as it was.
 */

#define TICK_MS 50
#define LOAD_PATIENCE (60 * NS_PER_S)

struct filing {
	const struct engine_options *opt;
	struct report *report;
	struct qmp *qmp;
	int pidfd, qemu_fd, wake_fd, signal_fd;
	struct mappings mappings;
	struct conn conn; /* the file */
	struct source *source;
	struct dest *dest;
	struct eta eta;
	struct qemu_settings settings;
	struct guard guard;        /* save */
	struct handover *handover; /* save: SRC_COPY until the guest is stopped, SRC_SHUT once the file has its name */
	char *part;                /* save: FILE.part while it is not complete */
	bool was_running;
	bool completed, failed_event;
	int64_t start_ns, end_ns;
	uint64_t total_bytes;
	char hex[2 * CONN_DIGEST_SIZE + 1];
};

static struct filing *filing_new(const struct engine_options *opt, struct report *r)
{
	struct filing *f = xcalloc(1, sizeof(*f));

	f->opt = opt;
	f->report = r;
	f->conn = CONN_INIT;
	f->pidfd = f->qemu_fd = -1;
	f->guard = GUARD_INIT;
	f->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	eta_init(&f->eta);
	return f;
}

static void filing_done(struct filing *f)
{
	guard_end(&f->guard, f->handover);
	source_join(f->source);
	dest_join(f->dest);
	conn_close(&f->conn);
	qmp_close(f->qmp);
	qemu_settings_done(&f->settings);
	mappings_done(&f->mappings);
	if (f->qemu_fd >= 0)
		close(f->qemu_fd);
	if (f->pidfd >= 0)
		close(f->pidfd);
	free(f->part);
	free(f);
}

static int events_take(struct filing *f, int64_t deadline_ns, struct err *e)
{
	struct qmp_event ev;
	int r;

	while ((r = qmp_event_next(f->qmp, deadline_ns, &ev, e)) > 0) {
		const char *status = json_string_value(json_object_get(ev.data, "status"));

		if (!strcmp(ev.name, "MIGRATION") && status) {
			f->completed |= !strcmp(status, "completed");
			f->failed_event |= !strcmp(status, "failed") || !strcmp(status, "cancelled");
		}
		qmp_event_done(&ev);
		if (deadline_ns && (f->completed || f->failed_event))
			return 0;
	}
	return r;
}

static void progress_show(struct filing *f, uint64_t bytes)
{
	struct report_progress p = {.pass = 1, .sent_bytes = bytes};
	struct eta_sample s = {
		.elapsed_ns = clock_now_ns() - f->start_ns,
		.pass = 1,
		.total_bytes = f->total_bytes,
		.sent_bytes = bytes,
		.remaining = bytes < f->total_bytes ? f->total_bytes - bytes : 0,
		.max_pause_ms = 1,
	};

	eta_update(&f->eta, &s, &p.progress, &p.eta_ns);
	p.remaining = s.remaining;
	report_progress(f->report, &p);
}

static enum outcome finish(struct filing *f, const struct err *e, const char *done, const char *guest)
{
	struct report_result res = REPORT_RESULT_INIT;
	struct source_state st;
	struct dest_state dt;

	res.result = !e ? done : e->code == ERR_CANCELLED ? "cancelled" : "failed";
	res.error = e;
	res.guest = guest;
	res.channels = 1;
	res.peak_anon_kib = engine_peak_anon_kib();
	if (f->end_ns)
		res.total_ns = f->end_ns - f->start_ns;
	if (f->source) {
		source_get_state(f->source, &st);
		res.pages = st.pages;
		res.zero_pages = st.zero_pages;
		res.wire_bytes = f->conn.sent;
		res.device_bytes = st.device_bytes;
	} else if (f->dest) {
		dest_get_state(f->dest, &dt);
		res.pages = dt.pages;
		res.zero_pages = dt.zero_pages;
		res.wire_bytes = dt.wire_bytes;
	}
	report_result(f->report, &res);
	return !e ? OUTCOME_MOVED : e->code == ERR_CANCELLED ? OUTCOME_CANCELLED : OUTCOME_FAILED;
}

/* ---- save ---- */

static int file_create(struct filing *f, struct err *e)
{
	_closefd_ int fd = -1;

	if (access(f->opt->file, F_OK) == 0)
		return err_set(e, ERR_INPUT, "%s exists already: remove it or choose another name", f->opt->file);
	f->part = xasprintf("%s.part", f->opt->file);
	fd = open(f->part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EEXIST)
		return err_set(e, ERR_INPUT,
			       "%s is there from a save that did not end: remove it if no other save runs", f->part);
	if (fd < 0)
		return err_sys(e, "create %s", f->part);
	return conn_open_file(&f->conn, steal_fd(&fd), true, e);
}

static int save_prepare(struct filing *f, struct err *e)
{
	char state[32];
	json_t *guest, *head;
	int r;

	f->signal_fd = engine_signal_fd(e);
	if (f->signal_fd < 0 || qmp_open(f->opt->qmp_path, clock_now_ns() + 5 * NS_PER_S, &f->qmp, e) < 0 ||
	    compat_check_movable(f->qmp, clock_now_ns() + QEMU_PATIENCE, e) < 0 ||
	    qemu_run_state(f->qmp, state, sizeof(state), e) < 0)
		return -1;
	if (strcmp(state, "running") && strcmp(state, "paused"))
		return err_set(e, ERR_UNSUPPORTED,
			       "the guest is in state \"%s\": only a running or paused guest can be saved", state);
	f->was_running = !strcmp(state, "running");
	f->pidfd = qemu_pidfd(f->qmp);
	guest = compat_describe(f->qmp, clock_now_ns() + QEMU_PATIENCE, e);
	if (!guest || mappings_find(&f->mappings, f->qmp, false, clock_now_ns() + QEMU_PATIENCE, e) < 0 ||
	    file_create(f, e) < 0) {
		json_decref(guest);
		return -1;
	}
	f->total_bytes = (uint64_t)json_integer_value(json_object_get(guest, "memory"));
	head = json_pack("{s:o, s:b}", "guest", guest, "was_running", f->was_running);
	r = conn_send_json(&f->conn, WIRE_FILE_HEAD, 0, head, SOCK_FOREVER, e);
	json_decref(head);
	return r;
}

/* QEMU has given up its migration, or come to its end. */
static void migration_wait_end(struct qmp *q)
{
	for (int i = 0; i < 500; i++) {
		struct qemu_progress p;

		if (qemu_query(q, &p, NULL) < 0 || !strcmp(p.status, "failed") || !strcmp(p.status, "none") ||
		    !strcmp(p.status, "cancelled") || !strcmp(p.status, "completed"))
			return;
		usleep(2000);
	}
}

static void save_detach(void *arg)
{
	struct filing *f = arg;

	conn_abort(&f->conn);
	qmp_close(steal_ptr(f->qmp));
}

/* In the guard, for a dead engine: a file that has its name holds the guest, otherwise the guest runs on. */
static const char *save_settle(void *arg)
{
	struct filing *f = arg;
	int64_t deadline = clock_now_ns() + LOAD_PATIENCE;
	char state[32];

	if (f->handover->step == SRC_SHUT) {
		if (!f->opt->keep_source)
			handover_end_qemu(NULL, f->pidfd);
		return "event=settled side=save guest=file";
	}
	unlink(f->part);
	for (; clock_now_ns() < deadline; usleep(10000)) {
		if (!f->qmp && qmp_open(f->opt->qmp_path, clock_now_ns() + 5 * NS_PER_S, &f->qmp, NULL) < 0)
			continue;
		migration_wait_end(f->qmp);
		if (f->was_running)
			qmp_call(f->qmp, "cont", NULL, clock_now_ns() + QEMU_PATIENCE, NULL, NULL);
		if (qemu_run_state(f->qmp, state, sizeof(state), NULL) < 0)
			qmp_close(steal_ptr(f->qmp));
		else if (!f->was_running || !strcmp(state, "running"))
			return "event=settled side=save guest=here";
	}
	return "event=settled side=save guest=stopped";
}

static int save_begin(struct filing *f, struct err *e)
{
	struct sandbox_options box = {.qemu_pid = qmp_peer_pid(f->qmp), .rename_files = true};
	struct source_options so = {.channels = 1, .mappings = &f->mappings, .wake_fd = f->wake_fd};

	f->handover = handover_new(-1);
	if (guard_start(&f->guard, f->handover, SRC_STEP_MAX, SRC_STEP_MAX, save_detach, save_settle, f, e) < 0 ||
	    sandbox_enter(&box, e) < 0 || qemu_setup_src(f->qmp, false, &f->settings, e) < 0)
		return -1;
	f->start_ns = clock_now_ns();
	handover_src_move(f->handover, SRC_STOPPED);
	if (f->was_running && qmp_call(f->qmp, "stop", NULL, clock_now_ns() + QEMU_PATIENCE, NULL, e) < 0)
		return -1;
	f->qemu_fd = qemu_start_src(f->qmp, QEMU_SOCKET_MAX, e);
	if (f->qemu_fd < 0)
		return -1;
	so.qemu_fd = f->qemu_fd;
	f->source = source_start(&so, &f->conn);
	return 0;
}

/* Until QEMU waits for our answer with everything written: its state is "device" and its stream has nothing more for
 * us. */
static int save_copy(struct filing *f, struct err *e)
{
	struct engine_wait w = {.qmp = f->qmp, .wake_fd = f->wake_fd, .signal_fd = f->signal_fd, .listen_fd = -1};
	uint64_t last_bytes = 0;
	int quiet = 0;

	while (quiet < 3) {
		unsigned ready = engine_wait(&w, TICK_MS);
		struct source_state st;

		if (ready & ENGINE_QMP && events_take(f, 0, e) < 0)
			return -1;
		if (ready & ENGINE_SIGNAL)
			return err_set(e, ERR_CANCELLED, "cancelled");
		source_get_state(f->source, &st);
		progress_show(f, st.wire_bytes);
		if (st.failed) {
			source_get_error(f->source, e);
			return err_wrap(e, "%s", f->part);
		}
		if (f->failed_event)
			return err_set(e, ERR_QMP, "QEMU failed the migration");
		quiet = st.drained_ns && !st.unsent && st.device_bytes && st.wire_bytes == last_bytes ? quiet + 1 : 0;
		last_bytes = st.wire_bytes;
	}
	return 0;
}

static int file_complete(struct filing *f, struct err *e)
{
	uint8_t digest[CONN_DIGEST_SIZE];

	conn_file_digest(&f->conn, digest);
	if (conn_send(&f->conn, WIRE_FILE_TAIL, 0, digest, sizeof(digest), SOCK_FOREVER, e) < 0)
		return -1;
	if (fsync(f->conn.fd) < 0)
		return err_sys(e, "write %s to disk", f->part);
	if (rename(f->part, f->opt->file) < 0)
		return err_sys(e, "rename %s to %s", f->part, f->opt->file);
	handover_src_move(f->handover, SRC_SHUT);
	return 0;
}

/* The file is whole: our QEMU may complete, and end. */
static int save_release(struct filing *f, struct err *e)
{
	if (qemu_let_complete(f->qemu_fd, e) < 0 || events_take(f, clock_now_ns() + 5 * NS_PER_S, e) < 0)
		return -1;
	return f->completed ? 0 : err_set(e, ERR_QMP, "QEMU did not complete its migration");
}

/* A save that failed: no file, and the guest runs on. */
static void save_undo(struct filing *f)
{
	if (f->source)
		source_abort(f->source);
	if (f->part && f->conn.fd >= 0)
		unlink(f->part);
	if (f->handover && f->handover->step == SRC_SHUT) {
		handover_src_move(f->handover, SRC_KEPT);
		unlink(f->opt->file);
	}
	if (!f->qmp || !f->start_ns)
		return;
	migration_wait_end(f->qmp);
	qemu_settings_restore(f->qmp, &f->settings);
	if (f->was_running)
		qmp_call(f->qmp, "cont", NULL, clock_now_ns() + QEMU_PATIENCE, NULL, NULL);
}

enum outcome save_run(const struct engine_options *opt, struct report *r)
{
	struct filing *f = filing_new(opt, r);
	struct err e = ERR_INIT;
	enum outcome o;

	report_phase(r, "preparing");
	if (save_prepare(f, &e) == 0 && save_begin(f, &e) == 0) {
		report_phase(r, "copying");
		if (save_copy(f, &e) == 0 && file_complete(f, &e) == 0)
			save_release(f, &e);
	}
	if (e.code) {
		save_undo(f);
		o = finish(f, &e, "saved",
			   !f->start_ns     ? "nothing was changed here"
			   : f->was_running ? "the guest runs on here; there is no file"
					    : "the guest is here, paused as it was; there is no file");
	} else {
		f->end_ns = clock_now_ns();
		if (!opt->keep_source)
			handover_end_qemu(f->qmp, f->pidfd);
		o = finish(f, NULL, "saved", "the guest sleeps in the file");
	}
	filing_done(f);
	return o;
}

/* ---- restore ---- */

static int file_open(struct filing *f, json_t **ret_head, struct err *e)
{
	struct wire_header h;
	uint8_t header[WIRE_HEADER_SIZE];
	struct stat st;
	int fd = open(f->opt->file, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a FIFO must not make us wait */

	if (fd < 0)
		return err_sys(e, "open %s", f->opt->file);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return err_set(e, ERR_INPUT, "%s is not a file", f->opt->file);
	}
	f->total_bytes = (uint64_t)st.st_size;
	if (pread(fd, header, sizeof(header), 0) != sizeof(header) || wire_decode_header(header, &h, NULL) < 0 ||
	    h.type != WIRE_FILE_HEAD) {
		close(fd);
		return err_set(e, ERR_INPUT, "%s is not a guest that godwit-migrate saved", f->opt->file);
	}
	if (conn_open_file(&f->conn, fd, false, e) < 0)
		return -1;
	if (conn_expect(&f->conn, WIRE_FILE_HEAD, ret_head, SOCK_FOREVER, e) < 0)
		return err_wrap(e, "%s is damaged or not whole", f->opt->file);
	return 0;
}

static int restore_prepare(struct filing *f, struct err *e)
{
	json_t *head = NULL, *here = NULL;
	char state[32];
	int r = -1;

	f->signal_fd = engine_signal_fd(e);
	if (f->signal_fd < 0 || file_open(f, &head, e) < 0)
		return -1;
	f->was_running = json_is_true(json_object_get(head, "was_running"));
	if (qmp_open(f->opt->qmp_path, clock_now_ns() + 5 * NS_PER_S, &f->qmp, e) < 0 ||
	    qemu_run_state(f->qmp, state, sizeof(state), e) < 0)
		goto out;
	if (strcmp(state, "inmigrate")) {
		err_set(e, ERR_UNSUPPORTED,
			"the QEMU behind %s is in state \"%s\" and waits for no guest: start it with -incoming defer",
			f->opt->qmp_path, state);
		goto out;
	}
	f->pidfd = qemu_pidfd(f->qmp);
	if (qemu_setup_dst(f->qmp, e) < 0)
		goto out;
	here = compat_describe(f->qmp, clock_now_ns() + QEMU_PATIENCE, e);
	if (here && compat_check(json_object_get(head, "guest"), here, e) == 0)
		r = mappings_find(&f->mappings, f->qmp, true, clock_now_ns() + QEMU_PATIENCE, e);
out:
	json_decref(head);
	json_decref(here);
	return r;
}

static int restore_begin(struct filing *f, struct err *e)
{
	struct sandbox_options box = {.qemu_pid = qmp_peer_pid(f->qmp)};
	struct dest_options o = {.channels = 1, .mappings = &f->mappings, .wake_fd = f->wake_fd, .hold_tail = true};

	if (sandbox_enter(&box, e) < 0)
		return -1;
	f->start_ns = clock_now_ns();
	f->qemu_fd = qemu_start_dst(f->qmp, e);
	if (f->qemu_fd < 0)
		return -1;
	o.qemu_fd = f->qemu_fd;
	f->dest = dest_start(&o, &f->conn);
	return 0;
}

/* Why the data path ended: the file, or (a failed system call) the disk under it or the QEMU behind it. */
static int restore_explain(struct filing *f, struct err *e)
{
	dest_get_error(f->dest, e);
	return err_wrap(e, "%s%s", f->opt->file, e->code == ERR_SYSTEM ? "" : " is damaged or not whole");
}

static int restore_wait(struct filing *f, bool *done, struct err *e)
{
	struct engine_wait w = {.qmp = f->qmp, .wake_fd = f->wake_fd, .signal_fd = f->signal_fd, .listen_fd = -1};
	struct dest_state st = {.pages = 0};

	while (!*done) {
		unsigned ready = engine_wait(&w, TICK_MS);

		bool qemu_gone = ready & ENGINE_QMP && events_take(f, 0, e) < 0;

		/* A QEMU whose stream we have ended exits: why we did is the reason. */
		dest_get_state(f->dest, &st);
		if (st.failed)
			return restore_explain(f, e);
		if (qemu_gone)
			return err_wrap(e, "the QEMU that takes the guest");
		if (ready & ENGINE_SIGNAL)
			return err_set(e, ERR_CANCELLED, "cancelled");
		progress_show(f, st.wire_bytes);
		if (f->failed_event)
			return err_set(e, ERR_QMP, "QEMU could not load the guest: its log says why");
		*done = done == &f->completed ? f->completed : st.file_end;
	}
	return 0;
}

static int restore_copy(struct filing *f, struct err *e)
{
	bool end = false;

	if (restore_wait(f, &end, e) < 0)
		return -1;
	if (conn_file_verify(&f->conn, e) < 0)
		return err_wrap(e, "%s", f->opt->file);
	if (dest_release_tail(f->dest, e) < 0 || restore_wait(f, &f->completed, e) < 0)
		return -1;
	return f->was_running ? qmp_call(f->qmp, "cont", NULL, clock_now_ns() + QEMU_PATIENCE, NULL, e) : 0;
}

enum outcome restore_run(const struct engine_options *opt, struct report *r)
{
	struct filing *f = filing_new(opt, r);
	struct err e = ERR_INIT;
	enum outcome o;

	report_phase(r, "preparing");
	if (restore_prepare(f, &e) == 0 && restore_begin(f, &e) == 0) {
		report_phase(r, "copying");
		restore_copy(f, &e);
	}
	if (e.code) {
		/* What was half loaded must never run. */
		if (f->start_ns)
			handover_end_qemu(f->qmp, f->pidfd);
		o = finish(f, &e, "restored",
			   f->start_ns ? "the guest is still in the file; the QEMU that was to take it has been ended"
				       : "the guest is still in the file");
	} else {
		f->end_ns = clock_now_ns();
		o = finish(f, NULL, "restored",
			   f->was_running ? "the guest runs here" : "the guest is here, paused as it was saved");
	}
	filing_done(f);
	return o;
}
