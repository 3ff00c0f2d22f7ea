/* SPDX-License-Identifier: Apache-2.0 */
/* The hand-over: how a move is brought to rest (its record: handover-record.c). */
#include "migrate/handover.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "hv/qmp.h"

#define QMP_PATIENCE (5 * NS_PER_S)
#define ASK_AGAIN (200 * NS_PER_MS)
#define ASK_PATIENCE (3 * NS_PER_S)     /* to connect and ask */
#define ANSWER_PATIENCE (13 * NS_PER_S) /* for the answer: the destination may have to start or end its QEMU first */
#define GIVE_UP_PATIENCE (2 * NS_PER_S) /* to tell a destination that is not needed any more */
#define DEAD_QEMU_PATIENCE                                                                                             \
	(8 * NS_PER_S) /* our QEMU is dead: may the destination, if it is complete, have the guest? */

static void nap(struct handover *h, int64_t ns)
{
	struct timespec t = {ns / NS_PER_S, ns % NS_PER_S};

	h->beat_ns = clock_now_ns();
	nanosleep(&t, NULL);
	h->beat_ns = clock_now_ns();
}

static bool process_gone(int pidfd, int64_t wait_ns)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return pidfd >= 0 && poll(&p, 1, (int)(wait_ns / NS_PER_MS)) == 1;
}

void handover_end_qemu(struct qmp *q, int qemu_pidfd)
{
	if (q)
		qmp_call(q, "quit", NULL, clock_now_ns() + NS_PER_S, NULL, NULL);
	if (qemu_pidfd < 0 || process_gone(qemu_pidfd, q ? 2 * NS_PER_S : 0))
		return;
	syscall(SYS_pidfd_send_signal, qemu_pidfd, SIGKILL, NULL, 0);
	process_gone(qemu_pidfd, 2 * NS_PER_S);
}

/* QEMU's run state into @ret ("" when it cannot be asked). */
static void run_state(struct handover *h, struct qmp *q, char *ret, size_t size)
{
	json_t *o = NULL;
	const char *s;

	handover_busy(h, QMP_PATIENCE);
	qmp_call(q, "query-status", NULL, clock_now_ns() + QMP_PATIENCE, &o, NULL);
	s = json_string_value(json_object_get(o, "status"));
	snprintf(ret, size, "%s", s ? s : "");
	json_decref(o);
}

/* The connection that was kept, or a new one to a QEMU whose former client may just have died. NULL when none can be
 * had by the deadline. */
static struct qmp *monitor_open(struct handover *h, struct qmp **kept, const char *path, int pidfd, int64_t deadline,
				struct err *e)
{
	struct qmp *q = steal_ptr(*kept);

	if (q)
		return q;
	while (qmp_open(path, clock_now_ns() + NS_PER_S, &q, e) < 0) {
		if (process_gone(pidfd, 0) || clock_now_ns() > deadline)
			return NULL;
		nap(h, 20 * NS_PER_MS);
	}
	return q;
}

/* One look at our QEMU: `cont` where it had completed. Returns true when the guest is at rest, its state in @state. */
static bool src_resumed(struct settle_src *s, struct qmp *q, char *state, size_t size)
{
	run_state(s->h, q, state, size);
	if (!strcmp(state, "postmigrate")) {
		if (!s->h->was_running)
			return true;
		handover_busy(s->h, QMP_PATIENCE);
		qmp_call(q, "cont", NULL, clock_now_ns() + QMP_PATIENCE, NULL, NULL);
		return false;
	}
	return !strcmp(state, "running") || (state[0] && !s->h->was_running && strcmp(state, "finish-migrate") != 0);
}

/* Let the source's guest run on: by itself while QEMU fails its migration, with `cont` where QEMU had completed it. A
 * QEMU that hangs is waited for: nobody else may have its guest. */
static enum settle_result src_keep(struct settle_src *s, char *why, size_t why_size)
{
	int64_t deadline = clock_now_ns() + (s->patience_ns > QMP_PATIENCE ? s->patience_ns : QMP_PATIENCE);
	struct err e = ERR_INIT;
	struct qmp *q = NULL;
	char state[32] = "";
	bool resumed = false;

	while (!resumed && clock_now_ns() < deadline && !process_gone(s->qemu_pidfd, 0)) {
		if (!q)
			q = monitor_open(s->h, &s->kept, s->qmp_path, s->qemu_pidfd, deadline, &e);
		resumed = q && src_resumed(s, q, state, sizeof(state));
		if (q && !state[0])
			qmp_close(steal_ptr(q));
		nap(s->h, 2 * NS_PER_MS);
	}
	if (!resumed) {
		qmp_close(q);
		if (process_gone(s->qemu_pidfd, 0) || s->qemu_pidfd < 0) {
			snprintf(why, why_size, "the source's QEMU is gone: %.300s", e.text);
			return SETTLE_NOWHERE;
		}
		snprintf(why, why_size, "the source's QEMU does not answer: %.300s", e.text);
		return SETTLE_UNDECIDED;
	}
	/* Switches may have learnt the destination's port from an early announcement. */
	handover_busy(s->h, NS_PER_S);
	qmp_callf(q, clock_now_ns() + NS_PER_S, NULL, NULL, "announce-self", "{s:i, s:i, s:i, s:i}", "initial", 50,
		  "max", 550, "rounds", 5, "step", 100);
	qmp_close(q);
	snprintf(why, why_size, "the guest is %s at the source", state);
	handover_src_move(s->h, SRC_KEPT);
	return SETTLE_HERE;
}

/* Ask the destination once: "GO stands" or "give up". The answer into @ret; -1 when nobody answered. */
static int resolve_ask(struct settle_src *s, bool go, char *ret, size_t size, struct err *e)
{
	struct wire_hello hello = {.role = WIRE_ROLE_RESOLVE, .channels = 1};
	int64_t deadline = clock_now_ns() + (go ? ASK_PATIENCE : GIVE_UP_PATIENCE);
	struct conn c = CONN_INIT;
	json_t *o = NULL;
	int r;

	memcpy(hello.session, s->session, sizeof(hello.session));
	handover_busy(s->h, ASK_PATIENCE + ANSWER_PATIENCE);
	if (conn_connect(&c, &s->to, s->secret, &hello, deadline, e) < 0)
		return -1;
	r = conn_send(&c, WIRE_RESOLVE, go ? WIRE_FLAG_GO : 0, NULL, 0, deadline, e);
	if (r == 0)
		r = conn_expect(&c, WIRE_RESOLVED, &o, deadline + (go ? ANSWER_PATIENCE : 0), e);
	if (r == 0)
		snprintf(ret, size, "%s", json_string_value(json_object_get(o, "state")) ?: "");
	json_decref(o);
	conn_close(&c);
	return r;
}

static enum settle_result src_resolve(struct settle_src *s, int64_t patience_ns, char *why, size_t why_size)
{
	int64_t deadline = clock_now_ns() + patience_ns;
	struct err e = ERR_INIT;
	enum settle_result r;
	char state[32];

	for (; clock_now_ns() < deadline; nap(s->h, ASK_AGAIN)) {
		if (resolve_ask(s, true, state, sizeof(state), &e) < 0)
			continue;
		if (!strcmp(state, "running")) {
			handover_src_move(s->h, SRC_MOVED);
			snprintf(why, why_size, "the destination says that the guest runs there");
			return SETTLE_THERE;
		}
		if (!strcmp(state, "never")) {
			r = src_keep(s, why, why_size);
			/* It has stayed to be asked again, in case we died before the guest ran here. */
			resolve_ask(s, false, state, sizeof(state), NULL);
			return r;
		}
	}
	snprintf(why, why_size, "GO was sent and the destination does not answer: %.300s", e.text);
	return SETTLE_UNDECIDED;
}

/* GO is not sent, so the destination will not run it: go on first, then tell it, so that it does not wait. Where our
 * QEMU has died, nobody here can run the guest any more, and a destination that is complete may: that is asked, unless
 * an agreement is needed for GO and was not given. */
static enum settle_result src_before_go(struct settle_src *s, char *why, size_t why_size)
{
	enum settle_result r;
	char answer[32];

	r = src_keep(s, why, why_size);
	if (r == SETTLE_NOWHERE && s->h->step != SRC_COPY && !s->h->unagreed && process_gone(s->qemu_pidfd, 0)) {
		handover_src_move(s->h, SRC_GO);
		r = src_resolve(s, s->patience_ns < DEAD_QEMU_PATIENCE ? s->patience_ns : DEAD_QEMU_PATIENCE, why,
				why_size);
		return r == SETTLE_UNDECIDED ? SETTLE_NOWHERE : r;
	}
	if (r == SETTLE_HERE || r == SETTLE_NOWHERE)
		resolve_ask(s, false, answer, sizeof(answer), NULL);
	return r;
}

static enum settle_result src_settle(struct settle_src *s, char *why, size_t why_size)
{
	enum settle_result r;
	char answer[32];

	switch ((enum src_step)s->h->step) {
	case SRC_COPY:
	case SRC_STOPPED:
	case SRC_SHUT:
	case SRC_RELEASED:
		return src_before_go(s, why, why_size);
	case SRC_GO:
		if (!s->denied)
			return src_resolve(s, s->patience_ns, why, why_size);
		r = src_keep(s, why, why_size);
		/* It need not wait to be asked. */
		resolve_ask(s, false, answer, sizeof(answer), NULL);
		return r;
	case SRC_MOVED:
		/* The engine may have died before it told the destination that it knows. */
		resolve_ask(s, true, answer, sizeof(answer), NULL);
		return SETTLE_THERE;
	case SRC_KEPT:
	case SRC_STEP_MAX:
		break;
	}
	return SETTLE_HERE;
}

enum settle_result handover_src_settle(struct settle_src *s, char *why, size_t why_size)
{
	enum settle_result r;

	why[0] = 0;
	r = src_settle(s, why, why_size);
	qmp_close(steal_ptr(s->kept));
	return r;
}

/* ---- destination ---- */

/* Wait for RESUME, or for a state that says so. 0 runs, -1 it does not. */
static int wait_running(struct qmp *q, struct err *e)
{
	int64_t deadline = clock_now_ns() + QMP_PATIENCE;
	struct qmp_event ev;
	int r;

	while ((r = qmp_event_next(q, deadline, &ev, e)) > 0) {
		bool resumed = !strcmp(ev.name, "RESUME");

		qmp_event_done(&ev);
		if (resumed)
			return 0;
	}
	return r < 0 ? -1 : err_set(e, ERR_TIMEOUT, "QEMU took `cont` but did not resume the guest");
}

int handover_dst_run(struct handover *h, struct qmp *q, int qemu_pidfd, struct err *e)
{
	char state[32] = "";

	handover_busy(h, 2 * QMP_PATIENCE);
	if (h->was_running && qmp_call(q, "cont", NULL, clock_now_ns() + QMP_PATIENCE, NULL, e) == 0 &&
	    wait_running(q, e) == 0) {
		handover_dst_move(h, DST_RUNNING);
		return 0;
	}
	run_state(h, q, state, sizeof(state));
	if (!strcmp(state, "running") || (state[0] && !h->was_running)) {
		handover_dst_move(h, DST_RUNNING);
		return 0;
	}
	/* It did not start. Only once its QEMU is gone may the source be told so. */
	handover_busy(h, QMP_PATIENCE);
	handover_end_qemu(q, qemu_pidfd);
	handover_dst_move(h, DST_NEVER);
	return err_wrap(e, "start the guest at the destination");
}

/* Run the guest if it does not run already. */
static void dst_run_settled(struct settle_dst *s, char *why, size_t why_size)
{
	struct err e = ERR_INIT;
	int64_t deadline = clock_now_ns() + QMP_PATIENCE;
	bool was_kept = s->kept != NULL;
	struct qmp *q = monitor_open(s->h, &s->kept, s->qmp_path, s->qemu_pidfd, deadline, &e);
	char state[32] = "";

	if (q)
		run_state(s->h, q, state, sizeof(state));
	if (was_kept && !state[0]) {
		/* What was kept is dead. */
		qmp_close(q);
		q = monitor_open(s->h, &s->kept, s->qmp_path, s->qemu_pidfd, deadline, &e);
		if (q)
			run_state(s->h, q, state, sizeof(state));
	}
	if (!strcmp(state, "running"))
		handover_dst_move(s->h, DST_RUNNING);
	else if (q)
		handover_dst_run(s->h, q, s->qemu_pidfd, &e);
	else {
		handover_end_qemu(NULL, s->qemu_pidfd);
		handover_dst_move(s->h, DST_NEVER);
	}
	snprintf(why, why_size, "%s", s->h->step == DST_RUNNING ? "the guest runs here" : e.text);
	qmp_close(q);
}

static void dst_give_up(struct settle_dst *s)
{
	struct err e = ERR_INIT;
	struct qmp *q = monitor_open(s->h, &s->kept, s->qmp_path, s->qemu_pidfd, clock_now_ns() + QMP_PATIENCE, &e);

	handover_busy(s->h, QMP_PATIENCE);
	handover_end_qemu(q, s->qemu_pidfd);
	qmp_close(q);
	handover_dst_move(s->h, DST_NEVER);
}

/* One question of the source. Returns true when there will be no other that matters. "Never" is not the last word until
 * the source says that it goes on: whoever asked may be killed before the answer has done its work, and then its guard
 * asks. */
static bool resolve_answer(struct settle_dst *s, int fd, char *why, size_t why_size)
{
	int64_t deadline = clock_now_ns() + 3 * NS_PER_S;
	struct wire_hello hello;
	struct err e = ERR_INIT;
	struct conn c;
	struct frame f;
	json_t *o;
	bool go, ok;

	if (conn_accept(&c, fd, s->secret, deadline, &hello, &e) < 0) {
		log_warning("event=peer-refused why=\"%s\"", e.text);
		return false;
	}
	if (hello.role != WIRE_ROLE_RESOLVE || memcmp(hello.session, s->session, sizeof(hello.session)) != 0 ||
	    conn_recv(&c, &f, deadline, NULL) < 0) {
		conn_abort(&c);
		return false;
	}
	json_decref(f.json);
	go = f.flags & WIRE_FLAG_GO;
	if (s->h->step == DST_LOADED) {
		if (go) {
			handover_dst_move(s->h, DST_GO);
			dst_run_settled(s, why, why_size);
		} else {
			dst_give_up(s);
			snprintf(why, why_size, "the source keeps the guest");
		}
	}
	o = json_pack("{s:s}", "state", s->h->step == DST_RUNNING ? "running" : "never");
	ok = conn_send_json(&c, WIRE_RESOLVED, 0, o, clock_now_ns() + 3 * NS_PER_S, NULL) == 0;
	json_decref(o);
	conn_close(&c);
	return ok && (!go || s->h->step == DST_RUNNING);
}

static enum settle_result dst_settle(struct settle_dst *s, char *why, size_t why_size)
{
	int64_t deadline = clock_now_ns() + s->patience_ns;

	if (s->h->step == DST_PREPARE) {
		dst_give_up(s);
		snprintf(why, why_size, "the guest was not complete here");
		return SETTLE_THERE;
	}
	if (s->h->step == DST_GO)
		dst_run_settled(s, why, why_size);
	while (clock_now_ns() < deadline) {
		int ready = sock_wait(s->listen_fd, POLLIN, clock_now_ns() + 500 * NS_PER_MS, NULL);
		int fd = ready > 0 ? sock_accept(s->listen_fd, clock_now_ns(), NULL) : -1;

		s->h->beat_ns = clock_now_ns();
		if (fd >= 0 && resolve_answer(s, fd, why, why_size))
			break;
		if (process_gone(s->qemu_pidfd, 0) && s->h->step == DST_LOADED)
			handover_dst_move(s->h, DST_NEVER);
	}
	if (s->h->step == DST_LOADED) {
		snprintf(why, why_size,
			 "the source did not say whether it goes on; the guest is loaded here and stopped");
		return SETTLE_UNDECIDED;
	}
	return s->h->step == DST_RUNNING ? SETTLE_HERE : SETTLE_THERE;
}

enum settle_result handover_dst_settle(struct settle_dst *s, char *why, size_t why_size)
{
	enum settle_result r;

	why[0] = 0;
	r = dst_settle(s, why, why_size);
	qmp_close(steal_ptr(s->kept));
	return r;
}
