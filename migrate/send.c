/* SPDX-License-Identifier: Apache-2.0 */
/* godwit-migrate send: move a running guest from this host to a waiting receiver. */
#include <openssl/rand.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "hv/dirtyrate.h"
#include "migrate/agree.h"
#include "migrate/compat.h"
#include "migrate/engine.h"
#include "migrate/forecast.h"
#include "migrate/guard.h"
#include "migrate/handover.h"
#include "migrate/mapping.h"
#include "migrate/policy.h"
#include "migrate/qemu.h"
#include "migrate/sandbox.h"
#include "migrate/source.h"

/*
 * Theory of operation
 *
 * connect -> prepare -> copy -> switchover -> done. Everything that can fail slowly is over before QEMU is told to
 * migrate: the two QEMUs are compared, the destination has its memory mapped and populated, the channels stand. One
 * loop then waits for four things: QEMU's events, the destination's words, our own threads, the user. The steps of the
 * hand-over are in migrate/handover.h; every way out of the loop ends in settle(), which knows from the step who has
 * the guest.
 */

#define CONNECT_PATIENCE (10 * NS_PER_S)
#define PREPARE_PATIENCE (600 * NS_PER_S)
#define STALL_PATIENCE (30 * NS_PER_S)  /* nothing moved for so long: the wire is dead */
#define SWITCH_PATIENCE (10 * NS_PER_S) /* from the guest's stop to LOADED; beyond, the guest resumes here */
#define AGREE_PATIENCE (60 * NS_PER_S)
#define TICK_MS 20
#define PROBE_ROUNDS 32
#define WINDOW_PART 4000            /* near the end the window is what the wire carries in this part of a second */
#define HOLE_THREADS 1              /* beside a guest that runs */
#define FIXED_PAUSE (4 * NS_PER_MS) /* stop, device state, load, resume (docs/performance.md) */

struct send {
	const struct engine_options *opt;
	struct report *report;
	struct conn_secret secret;
	struct qmp *qmp;
	int pidfd;
	struct mappings mappings;
	uint64_t filled_bytes; /* of the mapped blocks, when the move was prepared */
	struct conn control;
	struct conn channels[WIRE_CHANNELS_MAX];
	unsigned n_channels;
	uint8_t session[WIRE_SESSION_SIZE];
	struct handover *handover;
	struct guard guard;
	struct settle_src settle;
	char settle_why[400];
	struct qemu_settings settings;
	struct source *source;
	int qemu_fd, wake_fd, signal_fd;
	struct policy policy;
	struct agree agree;
	struct eta eta;
	double shown_progress;
	int64_t shown_eta_ns;
	struct forecast forecast;
	bool have_forecast;
	int64_t asked_ns;      /* when QEMU was asked to sample */
	bool rate_known;       /* QEMU's page sampling has ended */
	uint64_t sampled_rate; /* bytes/s, 0 unknown */
	struct qemu_progress progress;
	uint64_t wire_rate; /* bytes/s, over the last tenths of a second */
	uint64_t rate_bytes;
	int64_t rate_ns;
	uint64_t seen_zeros, seen_pages;
	bool zeros; /* the last look found mostly zero pages */
	int64_t start_ns, prepared_ns, stop_ns, loaded_ns, go_ns, running_ns, end_ns;
	int64_t moved_ns; /* when a byte last moved */
	uint64_t moved_bytes;
	int64_t remote_load_ns, remote_resume_ns;
	unsigned limit_ms;
	unsigned passes;   /* dirty-sync-count when the guest last ran here */
	bool postmigrate;  /* QEMU said `completed` */
	bool failed_event; /* QEMU said `failed` or `cancelled` */
};

/* ---- connect and prepare ---- */

static json_t *extents_json(struct send *s)
{
	struct extent *ext = xcalloc(MAPPING_EXTENTS_MAX, sizeof(*ext));
	json_t *o = json_object();

	for (size_t i = 0; i < s->mappings.n; i++) {
		size_t n = mapping_extents(&s->mappings.list[i], ext, MAPPING_EXTENTS_MAX);
		json_t *list = json_array();

		for (size_t x = 0; x < n; x++)
			json_array_append_new(list,
					      json_pack("[I, I]", (json_int_t)ext[x].page, (json_int_t)ext[x].count));
		json_object_set_new(o, s->mappings.list[i].name, list);
	}
	free(ext);
	return o;
}

/* Bytes of the mapped blocks that have memory behind them. */
static uint64_t extents_bytes(struct send *s)
{
	struct extent *ext = xcalloc(MAPPING_EXTENTS_MAX, sizeof(*ext));
	uint64_t bytes = 0;

	for (size_t i = 0; i < s->mappings.n; i++) {
		size_t n = mapping_extents(&s->mappings.list[i], ext, MAPPING_EXTENTS_MAX);

		for (size_t x = 0; x < n; x++)
			bytes += ext[x].count * 4096;
	}
	free(ext);
	return bytes;
}

/* Bytes of guest RAM that have memory behind them, where that can be seen; @total else. */
static uint64_t filled_bytes(const struct send *s, uint64_t total)
{
	return s->filled_bytes && s->filled_bytes < total ? s->filled_bytes : total;
}

static int connect_control(struct send *s, enum wire_role role, struct err *e)
{
	struct wire_hello hello = {.role = (uint8_t)role, .channels = (uint8_t)s->n_channels};

	memcpy(hello.session, s->session, sizeof(hello.session));
	return conn_connect(&s->control, &s->opt->addr, &s->secret, &hello, clock_now_ns() + CONNECT_PATIENCE, e);
}

static int connect_channels(struct send *s, struct err *e)
{
	for (unsigned i = 0; i < s->n_channels; i++) {
		struct wire_hello hello = {
			.role = WIRE_ROLE_DATA, .channel = (uint8_t)i, .channels = (uint8_t)s->n_channels};

		memcpy(hello.session, s->session, sizeof(hello.session));
		if (conn_connect(&s->channels[i], &s->opt->addr, &s->secret, &hello, clock_now_ns() + CONNECT_PATIENCE,
				 e) < 0)
			return err_wrap(e, "data channel %u", i);
		conn_bound_buffers(&s->channels[i]);
	}
	return 0;
}

/* @frames full probe frames and an empty last one. */
static int probe_send(struct send *s, int frames, int64_t deadline_ns, struct err *e)
{
	_free_ uint8_t *bytes = xcalloc(1, WIRE_DATA_MAX);

	for (int i = 0; i < frames; i++)
		if (conn_send(&s->control, WIRE_PROBE, 0, bytes, WIRE_DATA_MAX, deadline_ns, e) < 0)
			return -1;
	return conn_send(&s->control, WIRE_PROBE, WIRE_FLAG_TAIL, bytes, WIRE_DATA_MAX, deadline_ns, e);
}

/* QEMU samples the guest's pages for a second, beside the copy; the answer lies ready later. Page sampling only: the
 * other modes share the dirty log with the migration (hv/dirtyrate.h measures with them, before a move). */
static void dirty_rate_ask(struct send *s)
{
	s->asked_ns = clock_now_ns();
	qmp_callf(s->qmp, clock_now_ns() + QEMU_PATIENCE, NULL, NULL, "calc-dirty-rate", "{s:i, s:s}", "calc-time", 1,
		  "mode", "page-sampling");
}

/* @ready: its READY, or NULL when it is not. */
static void destination_answered(struct send *s, const json_t *ready)
{
	json_int_t rate = json_integer_value(json_object_get(ready, "wire_rate"));

	/* Guard and sandbox want a process with one thread; what is not filled by now is left to QEMU. */
	for (size_t i = 0; i < s->mappings.n; i++)
		mapping_populate_end(&s->mappings.list[i]);
	/* What the probe has shown counts until the copy itself has a rate. */
	if (rate > 0)
		s->wire_rate = (uint64_t)rate;
}

/* Tell the destination what is coming and wait until it is ready. */
static int prepare_destination(struct send *s, const json_t *guest, struct err *e)
{
	json_t *info = json_pack("{s:O, s:o, s:b}", "guest", guest, "extents", extents_json(s), "running",
				 s->handover->was_running ? 1 : 0);
	json_t *ready = NULL;
	int r;

	s->filled_bytes = extents_bytes(s);
	for (size_t i = 0; i < s->mappings.n; i++)
		mapping_fill_holes_start(&s->mappings.list[i], HOLE_THREADS);
	dirty_rate_ask(s);
	r = conn_send_json(&s->control, WIRE_INFO, 0, info, clock_now_ns() + CONNECT_PATIENCE, e);

	json_decref(info);
	if (r == 0)
		r = probe_send(s, ENGINE_PROBE_FRAMES - 1, clock_now_ns() + CONNECT_PATIENCE, e);
	/* Refused in the middle of our bytes: the reason is more useful than the broken pipe. */
	if (r == 0 || e->code == ERR_SYSTEM)
		r = conn_expect(&s->control, WIRE_READY, &ready, clock_now_ns() + PREPARE_PATIENCE, e);
	destination_answered(s, ready);
	json_decref(ready);
	return r;
}

static void guard_detach(void *arg)
{
	struct send *s = arg;

	for (unsigned i = 0; i < s->n_channels; i++)
		conn_abort(&s->channels[i]);
	conn_abort(&s->control);
	qmp_close(steal_ptr(s->qmp));
}

static const char *guard_settle(void *arg)
{
	static char text[600];
	struct send *s = arg;
	enum settle_result r;

	r = handover_src_settle(&s->settle, s->settle_why, sizeof(s->settle_why));
	if (r == SETTLE_THERE && !s->opt->keep_source)
		handover_end_qemu(NULL, s->pidfd);
	snprintf(text, sizeof(text), "event=settled side=source guest=%s why=\"%s\"",
		 r == SETTLE_HERE      ? "here"
		 : r == SETTLE_THERE   ? "destination"
		 : r == SETTLE_NOWHERE ? "nowhere"
				       : "undecided",
		 s->settle_why);
	return text;
}

static int open_qemu(struct send *s, json_t **ret_guest, struct err *e)
{
	char state[32];

	if (qmp_open(s->opt->qmp_path, clock_now_ns() + 5 * NS_PER_S, &s->qmp, e) < 0 ||
	    compat_check_movable(s->qmp, clock_now_ns() + QEMU_PATIENCE, e) < 0 ||
	    qemu_run_state(s->qmp, state, sizeof(state), e) < 0)
		return -1;
	if (strcmp(state, "running") && strcmp(state, "paused"))
		return err_set(e, ERR_UNSUPPORTED,
			       "the guest is in state \"%s\": only a running or paused guest can be moved", state);
	s->handover->was_running = !strcmp(state, "running");
	s->pidfd = qemu_pidfd(s->qmp);
	*ret_guest = compat_describe(s->qmp, clock_now_ns() + QEMU_PATIENCE, e);
	if (!*ret_guest)
		return -1;
	return mappings_find(&s->mappings, s->qmp, false, clock_now_ns() + QEMU_PATIENCE, e);
}

static int begin(struct send *s, struct err *e)
{
	struct sandbox_options box = {.qemu_pid = qmp_peer_pid(s->qmp)};
	struct source_options so = {
		.channels = s->n_channels, .bandwidth = s->opt->bandwidth, .mappings = &s->mappings};

	s->settle = (struct settle_src){
		.h = s->handover,
		.qmp_path = s->opt->qmp_path,
		.qemu_pidfd = s->pidfd,
		.to = s->opt->addr,
		.secret = &s->secret,
		.patience_ns = s->opt->settle_s * NS_PER_S,
	};
	memcpy(s->settle.session, s->session, sizeof(s->session));
	if (guard_start(&s->guard, s->handover, SRC_STOPPED, SRC_GO, guard_detach, guard_settle, s, e) < 0 ||
	    sandbox_enter(&box, e) < 0 || qemu_setup_src(s->qmp, s->opt->auto_converge, &s->settings, e) < 0)
		return -1;
	s->start_ns = s->moved_ns = s->rate_ns = clock_now_ns();
	s->qemu_fd = qemu_start_src(s->qmp, s->wire_rate / WINDOW_PART, e);
	if (s->qemu_fd < 0)
		return -1;
	so.qemu_fd = s->qemu_fd;
	so.wake_fd = s->wake_fd;
	s->source = source_start(&so, s->channels);
	return 0;
}

/* ---- copy ---- */

/* True while most of what leaves are zero pages: then few bytes in much time say nothing about the wire. */
static bool mostly_zeros(struct send *s, const struct source_state *st)
{
	uint64_t zeros = st->zero_pages - s->seen_zeros, pages = st->pages - s->seen_pages;

	s->seen_zeros = st->zero_pages;
	s->seen_pages = st->pages;
	return zeros > pages;
}

static void rate_update(struct send *s, const struct source_state *st)
{
	int64_t now = clock_now_ns(), dt = now - s->rate_ns;

	if (st->wire_bytes != s->moved_bytes) {
		s->moved_bytes = st->wire_bytes;
		s->moved_ns = now;
	}
	s->zeros = mostly_zeros(s, st);
	if (s->zeros) {
		s->rate_bytes = st->wire_bytes;
		s->rate_ns = now;
	} else if (dt >= 100 * NS_PER_MS) {
		s->wire_rate = (uint64_t)((double)(st->wire_bytes - s->rate_bytes) * 1e9 / (double)dt);
		s->rate_bytes = st->wire_bytes;
		s->rate_ns = now;
	}
}

/* Near the end of a pass QEMU may stop the guest at any moment, so the window is what the wire carries in a quarter of
 * a millisecond; while more than fifty milliseconds of the pass are left it may be larger: an eighth of them. */
static void window_update(struct send *s)
{
	uint64_t left = s->progress.remaining;

	if (s->wire_rate)
		source_set_window(s->source, left > s->wire_rate / 20 ? left / 8 : s->wire_rate / WINDOW_PART);
}

/* True once the answer is there, or will never be. */
static bool dirty_rate_answered(struct send *s)
{
	const char *status;
	json_t *o = NULL;

	if (!s->rate_known && clock_now_ns() - s->asked_ns > 1100 * NS_PER_MS) {
		qmp_call(s->qmp, "query-dirty-rate", NULL, clock_now_ns() + QEMU_PATIENCE, &o, NULL);
		status = json_string_value(json_object_get(o, "status"));
		s->rate_known = !status || strcmp(status, "measuring") != 0;
		if (json_is_integer(json_object_get(o, "dirty-rate")))
			s->sampled_rate = (uint64_t)json_integer_value(json_object_get(o, "dirty-rate")) << 20;
		json_decref(o);
	}
	return s->rate_known;
}

/* The forecast is made once, from what the move itself has measured: a quarter of the first pass for the wire, the
 * guest's dirty rate. */
static void forecast_once(struct send *s, const struct source_state *st)
{
	struct forecast_input in = {
		.ram_bytes = filled_bytes(s, st->ram_bytes),
		.dirty_period_ns = NS_PER_S,
		.wire_rate = s->wire_rate,
		.max_pause_ms = s->opt->max_pause_ms,
		.fixed_pause_ns = FIXED_PAUSE,
	};
	bool quarter = st->ram_bytes && st->wire_bytes >= in.ram_bytes / 4;

	if (s->have_forecast || !s->wire_rate || !st->ram_bytes)
		return;
	/* A move that is over before a second has passed is forecast without the rate. */
	if (!quarter || (!dirty_rate_answered(s) && st->wire_bytes < in.ram_bytes / 2))
		return;
	in.dirty_rate = s->sampled_rate ? s->sampled_rate : s->progress.dirty_rate;
	in.zero_bytes = st->ram_bytes - in.ram_bytes;
	s->forecast = forecast_run(&in);
	s->have_forecast = true;
	eta_hint(&s->eta, &in);
	report_forecast(s->report, &s->forecast);
}

static void progress_show(struct send *s, const struct source_state *st, int64_t elapsed_ns)
{
	struct report_progress p = {
		.pass = s->progress.pass,
		.sent_bytes = st->wire_bytes,
		.wire_rate = s->wire_rate,
		/* QEMU's own is known from the second pass on. */
		.dirty_rate = s->progress.dirty_rate ? s->progress.dirty_rate : s->sampled_rate,
		.remaining = s->progress.remaining,
		.downtime_limit_ms = s->limit_ms,
		.throttle_percent = s->progress.throttle_percent,
	};
	struct eta_sample es = {
		.elapsed_ns = elapsed_ns,
		.pass = s->progress.pass,
		.total_bytes = s->progress.total,
		.sent_bytes = st->wire_bytes,
		.remaining = s->progress.remaining,
		.dirty_rate = s->progress.dirty_rate,
		.max_pause_ms = s->opt->max_pause_ms,
	};

	/* QEMU counts pages of the first pass that are zero; they take no time on the wire. */
	if (s->progress.pass <= 1) {
		es.total_bytes = filled_bytes(s, s->progress.total);
		es.remaining = es.total_bytes > st->wire_bytes ? es.total_bytes - st->wire_bytes : 0;
		p.remaining = es.remaining;
	}
	if (!s->zeros)
		eta_update(&s->eta, &es, &s->shown_progress, &s->shown_eta_ns);
	p.progress = s->shown_progress;
	p.eta_ns = s->shown_eta_ns;
	report_progress(s->report, &p);
}

static void agree_ask(struct send *s)
{
	if (s->agree.asked_ns)
		return;
	s->agree.asked_ns = clock_now_ns();
	report_ready(s->report, s->progress.pass, s->progress.remaining);
}

/* Every TICK_MS until it is given: ask, hold, give up. 0, or -1 with @e. */
static int agree_tick(struct send *s, const struct source_state *st, struct err *e)
{
	const struct qemu_progress *p = &s->progress;
	/* Before the copy has a rate of its own, what the probe has shown may be far above what we may use. */
	uint64_t rate = s->opt->bandwidth && s->opt->bandwidth < s->wire_rate ? s->opt->bandwidth : s->wire_rate;
	bool hold = false;

	if (agree_given(&s->agree) && !s->agree.held)
		return 0;
	if (agree_look(&s->agree, e) < 0)
		return -1;
	s->handover->unagreed = !agree_given(&s->agree);
	if (!agree_given(&s->agree)) {
		if (agree_due(p->pass, p->remaining, rate))
			agree_ask(s);
		hold = agree_must_hold(p->pass, p->remaining, rate);
	}
	if (hold != s->agree.held)
		source_hold(s->source, hold);
	s->agree.held = hold;
	if (!hold)
		return 0;
	/* A wire that we keep still is not a dead one, and its rate is not zero. */
	s->moved_ns = s->rate_ns = clock_now_ns();
	s->rate_bytes = st->wire_bytes;
	if (clock_now_ns() - s->agree.asked_ns > AGREE_PATIENCE)
		return err_set(e, ERR_TIMEOUT, "nobody agreed to the hand-over within %lld s",
			       AGREE_PATIENCE / NS_PER_S);
	if (s->opt->deadline_s && clock_now_ns() - s->start_ns > s->opt->deadline_s * NS_PER_S)
		return err_set(e, ERR_TIMEOUT, "nobody agreed to the hand-over before the deadline of %u s",
			       s->opt->deadline_s);
	return 0;
}

/* Every TICK_MS while the guest runs: look, show, decide. */
static int copy_tick(struct send *s, struct err *e)
{
	struct policy_sample ps = {.elapsed_ns = clock_now_ns() - s->start_ns};
	struct policy_decision d;
	struct source_state st;

	if (qemu_query(s->qmp, &s->progress, e) < 0)
		return -1;
	s->passes = s->progress.pass;
	source_get_state(s->source, &st);
	if (agree_tick(s, &st, e) < 0)
		return -1;
	if (s->agree.held)
		return 0;
	rate_update(s, &st);
	window_update(s);
	forecast_once(s, &st);
	progress_show(s, &st, ps.elapsed_ns);
	ps.pass = s->progress.pass;
	ps.remaining = s->progress.remaining;
	ps.dirty_rate = s->progress.dirty_rate;
	ps.wire_rate = s->wire_rate;
	d = policy_step(&s->policy, &ps);
	if (d.verdict == POLICY_DEADLINE)
		return err_set(e, ERR_NOCONVERGE, "%s", d.why);
	if (d.verdict != POLICY_GO_ON)
		return err_set(e, ERR_NOCONVERGE, "%s; --max-pause allows a longer pause%s", d.why,
			       s->opt->auto_converge ? "" : ", --auto-converge slows the guest down");
	if (d.downtime_limit_ms != s->limit_ms) {
		s->limit_ms = d.downtime_limit_ms;
		report_note(s->report, d.why);
		if (qemu_set_downtime_limit(s->qmp, s->limit_ms, e) < 0)
			return -1;
	}
	if (clock_now_ns() - s->moved_ns > STALL_PATIENCE)
		return err_set(e, ERR_TIMEOUT, "nothing moved for %lld s: the wire to %s is dead",
			       STALL_PATIENCE / NS_PER_S, s->opt->addr_text);
	return 0;
}

/* ---- switchover ---- */

static void step_stopped(struct send *s, int64_t when_ns)
{
	if (s->handover->step != SRC_COPY)
		return;
	handover_src_move(s->handover, SRC_STOPPED);
	s->stop_ns = when_ns;
	report_phase(s->report, "switchover");
	/* QEMU was faster than the answer: what is left must flow meanwhile. */
	if (!agree_given(&s->agree)) {
		agree_ask(s);
		source_hold(s->source, false);
	}
}

/* Take the events that are there. 0, or -1 when QEMU is gone. */
static int events_take(struct send *s, int64_t deadline_ns, struct err *e)
{
	struct qmp_event ev;
	int r;

	while ((r = qmp_event_next(s->qmp, deadline_ns, &ev, e)) > 0) {
		const char *status = json_string_value(json_object_get(ev.data, "status"));

		if (!strcmp(ev.name, "STOP")) {
			step_stopped(s, ev.sent_ns);
			s->stop_ns = ev.sent_ns;
		}
		if (!strcmp(ev.name, "MIGRATION") && status) {
			s->postmigrate |= !strcmp(status, "completed");
			s->failed_event |= !strcmp(status, "failed") || !strcmp(status, "cancelled");
		}
		qmp_event_done(&ev);
		if (deadline_ns && (s->postmigrate || s->failed_event))
			return 0;
	}
	return r;
}

/* Our QEMU's process is gone for certain. */
static bool qemu_dead(struct send *s)
{
	struct err ignored;

	return s->pidfd >= 0 && sock_wait(s->pidfd, POLLIN, clock_now_ns() + 200 * NS_PER_MS, &ignored) == 1;
}

static int say_go(struct send *s, struct err *e)
{
	handover_src_move(s->handover, SRC_GO);
	handover_busy(s->handover, 5 * NS_PER_S);
	s->go_ns = clock_now_ns();
	return conn_send(&s->control, WIRE_GO, 0, NULL, 0, clock_now_ns() + 5 * NS_PER_S, e);
}

/* The guest is stopped and complete at the destination, and nobody has agreed yet: wait for that, as long as the guest
 * may pause. 0, or -1 with @e: it goes on here. */
static int agree_gate(struct send *s, struct err *e)
{
	int64_t deadline = s->stop_ns + s->opt->max_pause_ms * NS_PER_MS;

	if (agree_given(&s->agree))
		return 0;
	agree_ask(s);
	while (agree_look(&s->agree, e) == 0 && !agree_given(&s->agree)) {
		if (clock_now_ns() > deadline)
			return err_set(e, ERR_TIMEOUT,
				       "nobody agreed to the hand-over within the allowed pause of %u ms",
				       s->opt->max_pause_ms);
		s->handover->beat_ns = clock_now_ns();
		usleep(500);
	}
	s->handover->unagreed = !agree_given(&s->agree);
	return agree_given(&s->agree) ? 0 : -1;
}

/* The destination has everything: let our QEMU complete, which ends its power to resume by itself, then say GO. */
static int step_loaded(struct send *s, struct err *e)
{
	struct pollfd wire = {.fd = s->control.fd, .events = POLLRDHUP};

	s->loaded_ns = clock_now_ns();
	if (s->handover->step == SRC_COPY)
		step_stopped(s, s->loaded_ns);
	if (s->handover->step != SRC_STOPPED)
		return err_set(e, ERR_PROTOCOL, "the destination says \"loaded\" twice");
	if (agree_gate(s, e) < 0)
		return -1;
	handover_src_move(s->handover, SRC_SHUT);
	handover_busy(s->handover, 5 * NS_PER_S);
	if (qemu_let_complete(s->qemu_fd, e) < 0 || events_take(s, clock_now_ns() + 5 * NS_PER_S, e) < 0) {
		/* A dead QEMU will never run the guest: the destination, which has all of it, may. */
		return qemu_dead(s) ? say_go(s, e) : -1;
	}
	if (s->failed_event || !s->postmigrate)
		return err_set(e, ERR_QMP, "QEMU did not complete its migration");
	handover_src_move(s->handover, SRC_RELEASED);
	/* LOADED may have been the last word of a wire that is cut by now. Before GO that is a failure like any other;
	 * after it, a question. */
	if (poll(&wire, 1, 0) == 1)
		return err_set(e, ERR_PROTOCOL, "the destination hung up before it was told to go");
	return say_go(s, e);
}

static void step_running(struct send *s, const json_t *o)
{
	s->running_ns = clock_now_ns();
	s->remote_load_ns = json_integer_value(json_object_get(o, "load_ns"));
	s->remote_resume_ns = json_integer_value(json_object_get(o, "resume_ns"));
	handover_src_move(s->handover, SRC_MOVED);
	conn_send(&s->control, WIRE_DONE, 0, NULL, 0, clock_now_ns() + NS_PER_S, NULL);
}

/* One word of the destination. */
static int control_take(struct send *s, struct err *e)
{
	struct frame f;
	int r = 0;

	if (conn_recv(&s->control, &f, clock_now_ns() + 5 * NS_PER_S, e) < 0) {
		/* After GO, "failed" from the destination means: it did not run the guest and never will. */
		if (s->handover->step == SRC_GO && e->code == ERR_PEER)
			s->settle.denied = true;
		return -1;
	}
	if (f.type == WIRE_LOADED)
		r = step_loaded(s, e);
	else if (f.type == WIRE_RUNNING && s->handover->step == SRC_GO)
		step_running(s, f.json);
	else
		r = err_set(e, ERR_PROTOCOL, "the destination said \"%s\" out of turn", wire_type_name(f.type));
	json_decref(f.json);
	return r;
}

/* Why QEMU's stream ended: its own words are better than ours. */
static void explain(struct send *s, struct err *e)
{
	struct qemu_progress p;

	if (e->code == ERR_QMP && qemu_query(s->qmp, &p, NULL) == 0 && p.error[0])
		err_set(e, ERR_QMP, "QEMU failed the migration: %s", p.error);
	else if (qemu_dead(s))
		err_set(e, ERR_QMP, "the guest's QEMU on this host ended during the move");
}

/* The loop. 0 when the guest runs at the destination, -1 with @e for every other end. */
static int copy_run(struct send *s, struct err *e)
{
	struct engine_wait w = {.control = &s->control,
				.qmp = s->qmp,
				.wake_fd = s->wake_fd,
				.signal_fd = s->signal_fd,
				.listen_fd = -1};
	struct source_state st;

	while (s->handover->step != SRC_MOVED) {
		unsigned ready = engine_wait(&w, TICK_MS);
		bool stopped = s->handover->step != SRC_COPY;

		s->handover->beat_ns = clock_now_ns();
		if (ready & ENGINE_QMP && events_take(s, 0, e) < 0) {
			w.qmp = NULL;
			/* QEMU is gone. Complete at the destination means that it may live on there; LOADED tells. */
			source_get_state(s->source, &st);
			if (!st.ram_end_ns || !qemu_dead(s))
				return -1;
			step_stopped(s, clock_now_ns());
		}
		if (ready & ENGINE_CONTROL && control_take(s, e) < 0)
			return -1;
		if (ready & ENGINE_SIGNAL && s->handover->step < SRC_SHUT)
			return err_set(e, ERR_CANCELLED, "cancelled");
		source_get_state(s->source, &st);
		if (st.failed && s->handover->step < SRC_SHUT) {
			source_get_error(s->source, e);
			explain(s, e);
			return -1;
		}
		if (s->failed_event && s->handover->step < SRC_SHUT) {
			err_set(e, ERR_QMP, "QEMU failed the migration");
			explain(s, e);
			return -1;
		}
		if (!stopped && s->handover->step == SRC_COPY && copy_tick(s, e) < 0)
			return -1;
		if (stopped && s->handover->step < SRC_GO && clock_now_ns() - s->stop_ns > SWITCH_PATIENCE)
			return err_set(e, ERR_TIMEOUT, "the destination did not load the guest within %lld s",
				       SWITCH_PATIENCE / NS_PER_S);
		if (s->handover->step == SRC_GO && clock_now_ns() - s->go_ns > 5 * NS_PER_S)
			return err_set(e, ERR_TIMEOUT, "the destination does not say whether the guest runs there");
	}
	return 0;
}

/* ---- the end ---- */

/* Whatever went wrong: bring guest and records to rest. */
static enum settle_result settle(struct send *s, const struct err *why)
{
	enum settle_result r;

	if (s->handover->step < SRC_SHUT) {
		conn_send_fail(&s->control, why);
		if (why->code == ERR_CANCELLED && s->qmp)
			qmp_call(s->qmp, "migrate_cancel", NULL, clock_now_ns() + NS_PER_S, NULL, NULL);
	}
	if (s->source)
		source_abort(s->source);
	conn_abort(&s->control);
	if (s->qmp && s->settings.capabilities && s->handover->step < SRC_SHUT) {
		for (int i = 0; i < 500 && qemu_query(s->qmp, &s->progress, NULL) == 0 &&
				(!strcmp(s->progress.status, "active") || !strcmp(s->progress.status, "device") ||
				 !strcmp(s->progress.status, "cancelling") || !strcmp(s->progress.status, "setup"));
		     i++)
			usleep(2000);
		qemu_settings_restore(s->qmp, &s->settings);
	}
	s->settle.kept = steal_ptr(s->qmp);
	r = handover_src_settle(&s->settle, s->settle_why, sizeof(s->settle_why));
	report_note(s->report, s->settle_why);
	return r;
}

static void result_fill(struct send *s, struct report_result *res)
{
	struct source_state st = {.pages = 0};

	if (s->source)
		source_get_state(s->source, &st);
	res->pages = st.pages;
	res->zero_pages = st.zero_pages;
	res->resent_pages = st.resent_pages;
	res->coalesced_pages = st.coalesced;
	res->wire_bytes = st.wire_bytes + s->control.sent;
	res->device_bytes = st.device_bytes;
	res->passes = s->passes;
	res->channels = s->n_channels;
	res->peak_anon_kib = engine_peak_anon_kib();
	res->forecast = s->have_forecast ? &s->forecast : NULL;
	if (s->start_ns)
		res->prepare_ns = s->start_ns - s->prepared_ns;
	if (!s->running_ns)
		return;
	res->total_ns = s->running_ns - s->start_ns;
	if (!s->handover->was_running)
		return;
	res->pause_ns = s->running_ns - s->stop_ns;
	res->last_pages_ns = st.drained_ns > s->stop_ns ? st.drained_ns - s->stop_ns : 0;
	res->device_state_ns = s->loaded_ns - (st.drained_ns > s->stop_ns ? st.drained_ns : s->stop_ns);
	res->load_ns = s->remote_load_ns;
	res->stop_ns = s->go_ns - s->loaded_ns;
	res->resume_ns = s->running_ns - s->go_ns;
}

static enum outcome finish(struct send *s, const struct err *e, enum settle_result where)
{
	struct report_result res = REPORT_RESULT_INIT;
	enum outcome o = OUTCOME_MOVED;

	result_fill(s, &res);
	res.result = "moved";
	res.guest = s->handover->was_running ? "the guest runs at the destination"
					     : "the guest is at the destination, paused as it was";
	if (where == SETTLE_HERE) {
		o = e->code == ERR_CANCELLED ? OUTCOME_CANCELLED : OUTCOME_FAILED;
		res.result = o == OUTCOME_CANCELLED ? "cancelled" : "failed";
		res.guest = s->handover->was_running ? "the guest runs on here"
			    : s->prepared_ns         ? "the guest is here, paused as it was"
						     : "nothing was changed here";
	} else if (where == SETTLE_NOWHERE) {
		o = OUTCOME_LOST;
		res.result = "lost";
		res.guest = "the guest's QEMU on this host is gone and the destination had not all of it: start the "
			    "guest again";
	} else if (where == SETTLE_UNDECIDED) {
		o = OUTCOME_UNDECIDED;
		res.result = "undecided";
		res.guest = "the guest is stopped here: see whether it runs at the destination; only if it does not "
			    "and its QEMU there "
			    "has been ended, resume it here with the monitor command `cont`";
	}
	if (o != OUTCOME_MOVED)
		res.error = e;
	report_result(s->report, &res);
	return o;
}

/* The guest has gone: our QEMU is an empty shell that must never run again. */
static void tidy(struct send *s)
{
	if (s->opt->keep_source)
		return;
	handover_end_qemu(s->qmp, s->pidfd);
}

/* ---- dry run ---- */

/* How much the wire carries: for a second, or PROBE_ROUNDS. */
static int probe(struct send *s, uint64_t *ret_rate, struct err *e)
{
	int64_t start, deadline;
	int rounds = 0;

	if (connect_control(s, WIRE_ROLE_PROBE, e) < 0)
		return -1;
	start = clock_now_ns();
	deadline = start + 60 * NS_PER_S;
	do {
		if (probe_send(s, ENGINE_PROBE_FRAMES - 1, deadline, e) < 0 ||
		    conn_expect(&s->control, WIRE_READY, NULL, deadline, e) < 0)
			return -1;
	} while (++rounds < PROBE_ROUNDS && clock_now_ns() - start < NS_PER_S);
	*ret_rate = (uint64_t)((double)rounds * ENGINE_PROBE_FRAMES * WIRE_DATA_MAX * 1e9 /
			       (double)(clock_now_ns() - start));
	conn_close(&s->control);
	return 0;
}

static enum outcome dry_run(struct send *s, struct err *e)
{
	struct report_result res = REPORT_RESULT_INIT;
	struct forecast_input in = {
		.max_pause_ms = s->opt->max_pause_ms, .fixed_pause_ns = FIXED_PAUSE, .dirty_period_ns = NS_PER_S};
	struct dirtyrate rate;
	json_t *memory = NULL;
	uint64_t total;

	if (probe(s, &in.wire_rate, e) < 0 || dirtyrate_measure(s->qmp, DIRTYRATE_AUTO, 1, &rate, e) < 0 ||
	    qmp_call(s->qmp, "query-memory-size-summary", NULL, clock_now_ns() + QEMU_PATIENCE, &memory, e) < 0)
		return OUTCOME_FAILED;
	total = (uint64_t)json_integer_value(json_object_get(memory, "base-memory"));
	json_decref(memory);
	s->filled_bytes = extents_bytes(s);
	if (s->opt->bandwidth && s->opt->bandwidth < in.wire_rate)
		in.wire_rate = s->opt->bandwidth;
	in.dirty_rate = (uint64_t)rate.bytes_per_s;
	in.ram_bytes = filled_bytes(s, total);
	in.zero_bytes = total - in.ram_bytes;
	s->forecast = forecast_run(&in);
	report_note(s->report, rate.why);
	report_forecast(s->report, &s->forecast);
	res.result = "dry-run";
	res.guest = "the guest runs on here; nothing was moved";
	res.forecast = &s->forecast;
	report_result(s->report, &res);
	return OUTCOME_MOVED;
}

/* ---- */

static int prepare(struct send *s, struct err *e)
{
	json_t *guest = NULL;
	int r;

	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->signal_fd = engine_signal_fd(e);
	if (s->signal_fd < 0 || engine_secret_load(s->opt, false, &s->secret, e) < 0)
		return -1;
	if (RAND_bytes(s->session, sizeof(s->session)) != 1)
		return err_set(e, ERR_SYSTEM, "no random bytes for a session");
	report_phase(s->report, "connecting");
	/* Nothing has begun: the user's signal may end any wait. */
	sock_set_cancel(s->signal_fd);
	r = open_qemu(s, &guest, e);
	if (r == 0 && !s->opt->dry_run) {
		r = connect_control(s, WIRE_ROLE_CONTROL, e);
		s->prepared_ns = clock_now_ns();
		report_phase(s->report, "preparing");
		if (r == 0)
			r = prepare_destination(s, guest, e);
		if (r == 0)
			r = connect_channels(s, e);
	}
	sock_set_cancel(-1);
	json_decref(guest);
	return r;
}

static void send_done(struct send *s)
{
	guard_end(&s->guard, s->handover);
	source_join(s->source);
	for (unsigned i = 0; i < s->n_channels; i++)
		conn_close(&s->channels[i]);
	conn_close(&s->control);
	qmp_close(s->qmp);
	qemu_settings_done(&s->settings);
	mappings_done(&s->mappings);
	engine_secret_done(&s->secret);
	if (s->qemu_fd >= 0)
		close(s->qemu_fd);
	if (s->pidfd >= 0)
		close(s->pidfd);
	free(s);
}

enum outcome send_run(const struct engine_options *opt, struct report *r)
{
	struct send *s = xcalloc(1, sizeof(*s));
	struct policy_options po = {
		.max_pause_ms = opt->max_pause_ms,
		.auto_converge = opt->auto_converge,
		.deadline_ns = (int64_t)opt->deadline_s * NS_PER_S,
	};
	enum settle_result where = SETTLE_HERE;
	struct err e = ERR_INIT;
	enum outcome o;

	s->opt = opt;
	s->report = r;
	s->n_channels = engine_channels(opt);
	s->control = CONN_INIT;
	for (unsigned i = 0; i < WIRE_CHANNELS_MAX; i++)
		s->channels[i] = CONN_INIT;
	s->pidfd = s->qemu_fd = -1;
	s->guard = GUARD_INIT;
	s->handover = handover_new(opt->record_fd);
	s->limit_ms = 1;
	s->agree.fd = opt->agree_fd;
	s->handover->unagreed = opt->agree_fd >= 0;
	policy_init(&s->policy, &po);
	eta_init(&s->eta);
	s->shown_eta_ns = -1;
	if (prepare(s, &e) < 0) {
		conn_send_fail(&s->control, &e);
		o = finish(s, &e, SETTLE_HERE);
	} else if (opt->dry_run) {
		o = dry_run(s, &e);
		if (o != OUTCOME_MOVED)
			o = finish(s, &e, SETTLE_HERE);
	} else {
		if (begin(s, &e) == 0) {
			report_phase(r, "copying");
			if (copy_run(s, &e) == 0) {
				where = SETTLE_THERE;
				tidy(s);
			} else {
				where = settle(s, &e);
				if (where == SETTLE_THERE)
					tidy(s);
			}
		} else {
			where = settle(s, &e);
		}
		o = finish(s, &e, where);
	}
	send_done(s);
	return o;
}
