/* SPDX-License-Identifier: Apache-2.0 */
/* godwit-migrate receive: wait for one guest and take it into the QEMU that waits for it on this host. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "migrate/compat.h"
#include "migrate/dest.h"
#include "migrate/engine.h"
#include "migrate/guard.h"
#include "migrate/handover.h"
#include "migrate/mapping.h"
#include "migrate/qemu.h"
#include "migrate/sandbox.h"

/*
 * Theory of operation
 *
 * listen -> (dry runs come and go) -> prepare -> copy -> loaded -> GO -> running. A peer that does not prove the token
 * is dropped and the listening goes on. With --dry-run there is no QEMU and no guest: one dry run, and that was it.
 * Until GO this side promises nothing and may give up at any time: it ends its
 * QEMU, so that what was loaded can never run. After GO the guest is ours, and only a QEMU that is certainly gone gives
 * it back.
 */

#define HELLO_PATIENCE (5 * NS_PER_S)
#define CHANNEL_PATIENCE (10 * NS_PER_S)
#define PREALLOC_PATIENCE (300 * NS_PER_S)
#define TELL_PATIENCE (5 * NS_PER_S)
#define ASKED_AFTER NS_PER_S
#define TICK_MS 200

struct receive {
	const struct engine_options *opt;
	struct report *report;
	struct conn_secret secret;
	struct qmp *qmp;
	int pidfd, listen_fd, qemu_fd, wake_fd, signal_fd;
	struct mappings mappings;
	struct conn control;
	struct conn channels[WIRE_CHANNELS_MAX];
	unsigned n_channels;
	struct handover *handover;
	struct guard guard;
	struct settle_dst settle;
	char settle_why[400];
	struct dest *dest;
	bool failed_event;
	bool source_said; /* the source has ended the move, in its own words */
	int64_t start_ns, go_ns, running_ns, loaded_ns;
};

/* ---- who comes ---- */

/* Throw away a dry run's bytes and answer each of its rounds, until it hangs up. True when it had an answer. */
static bool probe_serve(struct conn *c)
{
	int64_t deadline = clock_now_ns() + 60 * NS_PER_S;
	bool answered = false;
	struct frame f;

	while (conn_recv(c, &f, deadline, NULL) == 0) {
		json_decref(f.json);
		if (f.type != WIRE_PROBE)
			break;
		if (!(f.flags & WIRE_FLAG_TAIL))
			continue;
		if (conn_send(c, WIRE_READY, 0, NULL, 0, deadline, NULL) < 0)
			break;
		answered = true;
	}
	return answered;
}

/* Wait for a connection of @role; others are served (a probe) or dropped. 0, or -1 with @e. */
static int accept_role(struct receive *r, enum wire_role role, int64_t deadline_ns, struct conn *ret,
		       struct wire_hello *hello, struct err *e)
{
	struct engine_wait w = {.wake_fd = r->wake_fd,
				.signal_fd = r->signal_fd,
				.qmp = r->qmp,
				.listen_fd = r->listen_fd,
				.control = r->control.fd >= 0 ? &r->control : NULL};

	while (deadline_ns < 0 || clock_now_ns() < deadline_ns) {
		unsigned ready = engine_wait(&w, TICK_MS);
		struct err why = ERR_INIT;
		struct conn c;
		int fd;

		r->handover->beat_ns = clock_now_ns();
		if (ready & ENGINE_SIGNAL)
			return err_set(e, ERR_CANCELLED, "cancelled");
		if (ready & ENGINE_QMP) {
			struct qmp_event ev;

			if (qmp_event_next(r->qmp, 0, &ev, e) < 0)
				return err_wrap(e, "the QEMU that waits for the guest ended");
			continue;
		}
		if (ready & ENGINE_CONTROL)
			return conn_expect(&r->control, WIRE_DONE, NULL, clock_now_ns() + HELLO_PATIENCE, e) < 0
				       ? -1
				       : err_set(e, ERR_PROTOCOL, "the source is done before it began");
		if (!(ready & ENGINE_LISTEN))
			continue;
		fd = sock_accept(r->listen_fd, clock_now_ns() + NS_PER_S, &why);
		if (fd < 0 || conn_accept(&c, fd, &r->secret, clock_now_ns() + HELLO_PATIENCE, hello, &why) < 0) {
			log_warning("event=peer-refused why=\"%s\"", why.text);
			continue;
		}
		if (hello->role == (uint8_t)role) {
			*ret = c;
			return 0;
		}
		if (hello->role == WIRE_ROLE_PROBE)
			probe_serve(&c);
		conn_close(&c);
	}
	return err_set(e, ERR_TIMEOUT, "no sender came in time");
}

static int accept_channels(struct receive *r, struct err *e)
{
	int64_t deadline = clock_now_ns() + CHANNEL_PATIENCE;

	for (unsigned i = 0; i < r->n_channels; i++) {
		struct wire_hello hello;
		struct conn c;

		if (accept_role(r, WIRE_ROLE_DATA, deadline, &c, &hello, e) < 0)
			return err_wrap(e, "data channel %u of %u", i, r->n_channels);
		if (hello.channels != r->n_channels || r->channels[hello.channel].fd >= 0 ||
		    memcmp(hello.session, r->settle.session, sizeof(hello.session)) != 0) {
			conn_abort(&c);
			return err_set(e, ERR_PROTOCOL, "a data channel that does not belong to this move");
		}
		conn_bound_buffers(&c);
		r->channels[hello.channel] = c;
	}
	return 0;
}

/* ---- prepare ---- */

static int open_qemu(struct receive *r, struct err *e)
{
	char state[32];

	if (qmp_open(r->opt->qmp_path, clock_now_ns() + 5 * NS_PER_S, &r->qmp, e) < 0 ||
	    qemu_run_state(r->qmp, state, sizeof(state), e) < 0)
		return -1;
	if (strcmp(state, "inmigrate"))
		return err_set(
			e, ERR_UNSUPPORTED,
			"the QEMU behind %s is in state \"%s\" and waits for no guest: start it with -incoming defer",
			r->opt->qmp_path, state);
	r->pidfd = qemu_pidfd(r->qmp);
	if (qemu_setup_dst(r->qmp, e) < 0)
		return -1;
	return mappings_find(&r->mappings, r->qmp, true, clock_now_ns() + QEMU_PATIENCE, e);
}

/*
 * Let QEMU populate its own page tables, so that the guest does not take a fault for every page it touches after the
 * switchover: `prealloc` of a backend works at run time too (QEMU backends/hostmem.c). It knows only all or nothing, so
 * it is for guests that fill most of their memory; what turns out to be zero is given back while it is copied.
 */
static void preallocate(struct receive *r, struct mapping *m, const struct extent *ext, size_t n)
{
	_free_ char *path = xasprintf("/objects/%s", m->name);
	struct err why = ERR_INIT;
	uint64_t filled = 0;

	for (size_t i = 0; i < n; i++)
		filled += ext[i].count * 4096;
	if (filled < m->size / 2)
		return;
	m->preallocated = qmp_callf(r->qmp, clock_now_ns() + PREALLOC_PATIENCE, NULL, &why, "qom-set",
				    "{s:s, s:s, s:b}", "path", path, "property", "prealloc", "value", 1) == 0;
	if (!m->preallocated)
		log_warning("event=prealloc-refused backend=%s why=\"%s\"", m->name, why.text);
}

/* Begin to populate what the source has populated. */
static void prefault_start(struct receive *r, const json_t *extents)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	for (size_t i = 0; i < r->mappings.n; i++) {
		struct mapping *m = &r->mappings.list[i];
		const json_t *list = json_object_get(extents, m->name), *x;
		size_t n = json_array_size(list), k, kept = 0;
		struct extent was, *ext;

		m->was_empty = mapping_extents(m, &was, 1) == 0;
		if (!n || n > MAPPING_EXTENTS_MAX)
			continue;
		ext = xcalloc(n, sizeof(*ext));
		json_array_foreach (list, k, x) {
			uint64_t page = (uint64_t)json_integer_value(json_array_get(x, 0));
			uint64_t count = (uint64_t)json_integer_value(json_array_get(x, 1));

			if (page < m->size / 4096 && count <= m->size / 4096 - page)
				ext[kept++] = (struct extent){page, count};
		}
		if (m->was_empty)
			preallocate(r, m, ext, kept);
		mapping_prefault_start(m, ext, kept, cores > 0 ? (unsigned)cores : 1);
		free(ext);
	}
}

/* The wire's rate in bytes/s, from the bytes that the source sends for this: the second half of them, when the window
 * is open. */
static int probe_measure(struct receive *r, double *ret_rate, struct err *e)
{
	int64_t deadline = clock_now_ns() + HELLO_PATIENCE * 2, start = clock_now_ns();
	struct frame f = {.flags = 0};
	int frames = 0;

	while (!(f.flags & WIRE_FLAG_TAIL)) {
		if (conn_recv(&r->control, &f, deadline, e) < 0)
			return -1;
		json_decref(f.json);
		if (f.type != WIRE_PROBE)
			return err_set(e, ERR_PROTOCOL, "the source said \"%s\" out of turn", wire_type_name(f.type));
		if (++frames == ENGINE_PROBE_FRAMES / 2)
			start = clock_now_ns();
	}
	*ret_rate = (double)(ENGINE_PROBE_FRAMES / 2) * WIRE_DATA_MAX * 1e9 / (double)(clock_now_ns() - start + 1);
	return 0;
}

/*
 * Wait until the memory is populated, or so far that what is left will be done within half the time the copy takes:
 * then the copy never catches up with it. A slow wire starts at once; a fast one, which zeroing pages would hold up,
 * starts with everything in place.
 */
static int prefault_wait(struct receive *r, double wire_rate, struct err *e)
{
	int64_t start = clock_now_ns();

	for (;;) {
		uint64_t done = 0, total = 0;
		double populate_rate;

		for (size_t i = 0; i < r->mappings.n; i++) {
			uint64_t d, t;

			if (mapping_prefault_progress(&r->mappings.list[i], &d, &t, e) < 0)
				return -1;
			done += d;
			total += t;
		}
		if (done >= total)
			return 0;
		usleep(2000);
		r->handover->beat_ns = clock_now_ns();
		populate_rate = (double)done * 1e9 / (double)(clock_now_ns() - start);
		if (populate_rate > 0 && (double)(total - done) / populate_rate < (double)total / wire_rate / 2)
			return 0;
	}
}

static int say_ready(struct receive *r, double wire_rate, struct err *e)
{
	json_t *o = json_pack("{s:I}", "wire_rate", (json_int_t)wire_rate);
	int result = conn_send_json(&r->control, WIRE_READY, 0, o, clock_now_ns() + TELL_PATIENCE, e);

	json_decref(o);
	return result;
}

static int prepare(struct receive *r, struct err *e)
{
	json_t *info = NULL, *guest = NULL;
	double wire_rate = 0;
	int result = -1;

	if (conn_expect(&r->control, WIRE_INFO, &info, clock_now_ns() + HELLO_PATIENCE, e) < 0)
		return -1;
	r->handover->was_running = json_is_true(json_object_get(info, "running"));
	guest = compat_describe(r->qmp, clock_now_ns() + QEMU_PATIENCE, e);
	if (guest && compat_check(json_object_get(info, "guest"), guest, e) == 0) {
		prefault_start(r, json_object_get(info, "extents"));
		if (probe_measure(r, &wire_rate, e) == 0)
			result = prefault_wait(r, wire_rate, e);
	}
	json_decref(info);
	json_decref(guest);
	return result < 0 ? -1 : say_ready(r, wire_rate, e);
}

/* ---- copy and hand-over ---- */

static int events_take(struct receive *r, struct err *e)
{
	struct qmp_event ev;
	int n;

	while ((n = qmp_event_next(r->qmp, 0, &ev, e)) > 0) {
		const char *status = json_string_value(json_object_get(ev.data, "status"));
		bool migration = !strcmp(ev.name, "MIGRATION") && status;
		bool completed = migration && !strcmp(status, "completed");

		r->failed_event |= migration && !strcmp(status, "failed");
		qmp_event_done(&ev);
		if (completed && r->handover->step == DST_PREPARE) {
			handover_dst_move(r->handover, DST_LOADED);
			r->loaded_ns = clock_now_ns();
			if (conn_send(&r->control, WIRE_LOADED, 0, NULL, 0, clock_now_ns() + TELL_PATIENCE, e) < 0)
				return -1;
		}
	}
	return n;
}

/* GO: the guest is ours. 0 once it runs and the source knows. */
static int step_go(struct receive *r, struct err *e)
{
	struct dest_state st;
	json_t *o;

	r->go_ns = clock_now_ns();
	handover_dst_move(r->handover, DST_GO);
	if (handover_dst_run(r->handover, r->qmp, r->pidfd, e) < 0)
		return -1;
	r->running_ns = clock_now_ns();
	dest_get_state(r->dest, &st);
	o = json_pack("{s:I, s:I}", "load_ns", (json_int_t)(r->loaded_ns - st.drained_ns), "resume_ns",
		      (json_int_t)(r->running_ns - r->go_ns));
	if (conn_send_json(&r->control, WIRE_RUNNING, 0, o, clock_now_ns() + TELL_PATIENCE, e) < 0)
		err_wrap(e, "tell the source");
	json_decref(o);
	/* Again, now that the guest really is here: QEMU's own announcement left when the state was loaded. */
	qmp_callf(r->qmp, clock_now_ns() + NS_PER_S, NULL, NULL, "announce-self", "{s:i, s:i, s:i, s:i}", "initial", 50,
		  "max", 550, "rounds", 5, "step", 100);
	/* The source may not have heard it; until it says that it has, this side stays to be asked. */
	return e->code ? -1 : conn_expect(&r->control, WIRE_DONE, NULL, clock_now_ns() + TELL_PATIENCE, e);
}

static int copy_run(struct receive *r, struct err *e)
{
	struct engine_wait w = {.control = &r->control,
				.qmp = r->qmp,
				.wake_fd = r->wake_fd,
				.signal_fd = r->signal_fd,
				.listen_fd = -1};
	struct dest_state st;

	for (;;) {
		unsigned ready;
		struct frame f;

		/* No GO for so long: the source may ask on a connection of its own, because this one is dead. */
		if (r->handover->step == DST_LOADED && clock_now_ns() - r->loaded_ns > ASKED_AFTER)
			w.listen_fd = r->listen_fd;
		ready = engine_wait(&w, TICK_MS);
		r->handover->beat_ns = clock_now_ns();
		if (ready & ENGINE_QMP && events_take(r, e) < 0) {
			/* A QEMU whose stream we have ended exits: why we did is the reason. */
			dest_get_state(r->dest, &st);
			if (st.failed && r->handover->step == DST_PREPARE) {
				dest_get_error(r->dest, e);
				return -1;
			}
			return err_wrap(e, "the destination's QEMU");
		}
		if (ready & ENGINE_CONTROL) {
			if (conn_recv(&r->control, &f, clock_now_ns() + TELL_PATIENCE, e) < 0) {
				r->source_said =
					e->code != ERR_PROTOCOL && e->code != ERR_SYSTEM && e->code != ERR_TIMEOUT;
				return -1;
			}
			json_decref(f.json);
			if (f.type == WIRE_GO && r->handover->step == DST_LOADED)
				return step_go(r, e);
			return err_set(e, ERR_PROTOCOL, "the source said \"%s\" out of turn", wire_type_name(f.type));
		}
		if (ready & ENGINE_LISTEN)
			return err_set(e, ERR_TIMEOUT, "the source asks anew instead of saying GO");
		if (ready & ENGINE_SIGNAL && r->handover->step < DST_GO)
			return err_set(e, ERR_CANCELLED, "cancelled at the destination");
		dest_get_state(r->dest, &st);
		if (st.failed && r->handover->step == DST_PREPARE) {
			dest_get_error(r->dest, e);
			return -1;
		}
		if (r->failed_event)
			return err_set(e, ERR_QMP, "the destination's QEMU could not load the guest: its log says why");
	}
}

static const char *settle_name(enum settle_result x)
{
	return x == SETTLE_HERE ? "here" : x == SETTLE_UNDECIDED ? "undecided" : "source";
}

static void guard_detach(void *arg)
{
	struct receive *r = arg;

	conn_abort(&r->control);
	qmp_close(steal_ptr(r->qmp));
}

static const char *guard_settle(void *arg)
{
	static char text[600];
	struct receive *r = arg;
	enum settle_result x;

	x = handover_dst_settle(&r->settle, r->settle_why, sizeof(r->settle_why));
	snprintf(text, sizeof(text), "event=settled side=destination guest=%s why=\"%s\"", settle_name(x),
		 r->settle_why);
	return text;
}

/* ---- */

static int listen_start(struct receive *r, struct err *e)
{
	char token[2 * WIRE_TOKEN_SIZE + 1];

	r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->signal_fd = engine_signal_fd(e);
	if (r->signal_fd < 0 || engine_secret_load(r->opt, true, &r->secret, e) < 0)
		return -1;
	if (!r->opt->dry_run && open_qemu(r, e) < 0)
		return -1;
	r->listen_fd = sock_tcp_listen(&r->opt->addr, 64, e);
	if (r->listen_fd < 0)
		return -1;
	engine_token_text(&r->secret, token);
	report_listening(r->report, sock_tcp_port(r->listen_fd), r->opt->token_file ? NULL : token);
	return 0;
}

static int64_t wait_deadline(const struct receive *r)
{
	return r->opt->wait_s ? clock_now_ns() + r->opt->wait_s * NS_PER_S : -1;
}

/* The sender that proved the token; from here on the move has an identity. */
static int accept_sender(struct receive *r, struct err *e)
{
	struct wire_hello hello;

	if (accept_role(r, WIRE_ROLE_CONTROL, wait_deadline(r), &r->control, &hello, e) < 0)
		return -1;
	r->n_channels = hello.channels;
	memcpy(r->settle.session, hello.session, sizeof(hello.session));
	return 0;
}

static int begin(struct receive *r, struct err *e)
{
	struct sandbox_options box = {.qemu_pid = qmp_peer_pid(r->qmp)};
	struct dest_options o = {.channels = r->n_channels, .mappings = &r->mappings, .wake_fd = r->wake_fd};
	bool ready;

	r->settle.h = r->handover;
	r->settle.qmp_path = r->opt->qmp_path;
	r->settle.qemu_pidfd = r->pidfd;
	r->settle.listen_fd = r->listen_fd;
	r->settle.secret = &r->secret;
	r->settle.patience_ns = r->opt->settle_s * NS_PER_S;
	if (guard_start(&r->guard, r->handover, DST_GO, DST_GO, guard_detach, guard_settle, r, e) < 0 ||
	    sandbox_enter(&box, e) < 0)
		return -1;
	report_phase(r->report, "preparing");
	/* Nothing has come yet: the user's signal may end any wait. */
	sock_set_cancel(r->signal_fd);
	ready = prepare(r, e) == 0 && accept_channels(r, e) == 0;
	sock_set_cancel(-1);
	if (!ready)
		return -1;
	r->qemu_fd = qemu_start_dst(r->qmp, e);
	if (r->qemu_fd < 0)
		return -1;
	r->start_ns = clock_now_ns();
	report_phase(r->report, "copying");
	o.qemu_fd = r->qemu_fd;
	r->dest = dest_start(&o, r->channels);
	return 0;
}

static enum settle_result settle(struct receive *r, const struct err *why)
{
	enum settle_result x;

	/* A failure before GO: end our QEMU first, so that "failed" tells the source a certainty. */
	if (r->handover->step == DST_LOADED && why->code != ERR_PROTOCOL && why->code != ERR_SYSTEM &&
	    why->code != ERR_TIMEOUT) {
		handover_end_qemu(r->qmp, r->pidfd);
		handover_dst_move(r->handover, DST_NEVER);
	}
	if (r->handover->step == DST_PREPARE || r->handover->step == DST_NEVER)
		conn_send_fail(&r->control, why);
	if (r->dest)
		dest_abort(r->dest);
	r->settle.kept = steal_ptr(r->qmp);
	/* It has been told, or has told us: then it asks at once or not at all. */
	if (r->handover->step == DST_NEVER && r->source_said)
		r->settle.patience_ns = 3 * NS_PER_S;
	/* The source sees that it must ask. */
	conn_abort(&r->control);
	x = handover_dst_settle(&r->settle, r->settle_why, sizeof(r->settle_why));
	return x;
}

static enum outcome finish(struct receive *r, const struct err *e, enum settle_result where)
{
	struct report_result res = REPORT_RESULT_INIT;
	enum outcome o = OUTCOME_MOVED;
	struct dest_state st = {.pages = 0};

	res.result = "moved";
	res.guest = r->handover->was_running ? "the guest runs here" : "the guest is here, paused as it was";

	if (r->dest) {
		dest_get_state(r->dest, &st);
		res.pages = st.pages;
		res.zero_pages = st.zero_pages;
		res.wire_bytes = st.wire_bytes;
	}
	res.channels = r->n_channels;
	res.peak_anon_kib = engine_peak_anon_kib();
	if (where == SETTLE_HERE) {
		if (r->running_ns) {
			res.total_ns = r->running_ns - r->start_ns;
			res.load_ns = r->loaded_ns - st.drained_ns;
			res.resume_ns = r->running_ns - r->go_ns;
		}
	} else if (where == SETTLE_UNDECIDED) {
		o = OUTCOME_UNDECIDED;
		res.result = "undecided";
		res.guest = "the guest is loaded here and stopped: if it does not run at the source and its QEMU there "
			    "has been ended, "
			    "run it with the monitor command `cont`; otherwise end this QEMU";
	} else {
		o = e->code == ERR_CANCELLED ? OUTCOME_CANCELLED : OUTCOME_FAILED;
		res.result = o == OUTCOME_CANCELLED ? "cancelled" : "failed";
		res.guest = "the guest is not here; its QEMU here has been ended";
	}
	if (o != OUTCOME_MOVED)
		res.error = e;
	report_result(r->report, &res);
	return o;
}

/* Nothing of a guest was loaded: the QEMU that waits is left as it is, for the next try. */
static enum outcome finish_empty(struct receive *r, const struct err *e)
{
	struct report_result res = REPORT_RESULT_INIT;

	handover_dst_move(r->handover, DST_NEVER);
	conn_send_fail(&r->control, e);
	res.result = e->code == ERR_CANCELLED ? "cancelled" : "failed";
	res.error = e;
	res.guest = "no guest came; the QEMU here still waits for one";
	report_result(r->report, &res);
	return e->code == ERR_CANCELLED ? OUTCOME_CANCELLED : OUTCOME_FAILED;
}

static void receive_done(struct receive *r)
{
	guard_end(&r->guard, r->handover);
	dest_join(r->dest);
	for (unsigned i = 0; i < WIRE_CHANNELS_MAX; i++)
		conn_close(&r->channels[i]);
	conn_close(&r->control);
	qmp_close(r->qmp);
	mappings_done(&r->mappings);
	engine_secret_done(&r->secret);
	if (r->qemu_fd >= 0)
		close(r->qemu_fd);
	if (r->listen_fd >= 0)
		close(r->listen_fd);
	if (r->pidfd >= 0)
		close(r->pidfd);
	free(r);
}

/* Without a guest: serve one dry run, so that a sender can measure the wire before anything is prepared for it. A
 * sender that wants more is dropped. */
static enum outcome dry_run(struct receive *r, struct err *e)
{
	const struct sandbox_options box = {.nobody = true};
	struct report_result res = REPORT_RESULT_INIT;
	int64_t deadline = wait_deadline(r);
	struct wire_hello hello;
	bool served = false;
	struct conn c;

	res.guest = "no guest was taken; a sender measured the wire";
	res.result = "dry-run";
	if (listen_start(r, e) == 0 && sandbox_enter(&box, e) == 0) {
		sock_set_cancel(r->signal_fd);
		while (!served && accept_role(r, WIRE_ROLE_PROBE, deadline, &c, &hello, e) == 0) {
			served = probe_serve(&c);
			conn_close(&c);
		}
		sock_set_cancel(-1);
	}
	if (!served) {
		res.result = e->code == ERR_CANCELLED ? "cancelled" : "failed";
		res.error = e;
		res.guest = "no guest was taken, and nothing was measured";
	}
	report_result(r->report, &res);
	return served ? OUTCOME_MOVED : e->code == ERR_CANCELLED ? OUTCOME_CANCELLED : OUTCOME_FAILED;
}

enum outcome receive_run(const struct engine_options *opt, struct report *report)
{
	struct receive *r = xcalloc(1, sizeof(*r));
	enum settle_result where = SETTLE_HERE;
	struct err e = ERR_INIT;
	enum outcome o;

	r->opt = opt;
	r->report = report;
	r->pidfd = r->listen_fd = r->qemu_fd = -1;
	r->control = CONN_INIT;
	for (unsigned i = 0; i < WIRE_CHANNELS_MAX; i++)
		r->channels[i] = CONN_INIT;
	r->guard = GUARD_INIT;
	r->handover = handover_new(opt->record_fd);
	if (opt->dry_run) {
		o = dry_run(r, &e);
	} else if (listen_start(r, &e) < 0 || accept_sender(r, &e) < 0 || begin(r, &e) < 0) {
		o = finish_empty(r, &e);
	} else {
		if (copy_run(r, &e) < 0)
			where = settle(r, &e);
		o = finish(r, &e, where);
	}
	receive_done(r);
	return o;
}
