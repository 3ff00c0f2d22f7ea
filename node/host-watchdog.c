/* SPDX-License-Identifier: Apache-2.0 */
/* The talk with the godwit-watchdog of this host.
 *
 * It is asked to guard the guests (configure), told each new end of the lease (until), and let go where there is no
 * lease to end (release). It guards once it has taken the first and has a deadline by the second: before, or when it
 * refuses, nobody may count on it.
 */
#include "node/host-watchdog.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/lease.h"
#include "fencing/keeper-client.h"
#include "hv/permit.h"
#include "node/daemon-int.h"
#include "node/service.h"

#define CONNECT_AGAIN (250 * NS_PER_MS)

const char *const watchdog_mode_names[WATCHDOG_MODE_MAX] = {"auto", "run", "none"};

struct host_watchdog {
	struct daemon *d;
	void (*changed)(void *arg);
	void *arg;
	struct timing timing;

	struct service *service; /* WATCHDOG_RUN */
	char *program;
	const char *argv[6];

	struct keeper_client keeper;
	struct loop_io *io;
	struct loop_timer *connect;
	struct keeper_status status; /* valid while known */
	bool known;
	bool configured, taken, refused; /* it was asked to guard the guests; its answer */
	bool released;
	int64_t told_until;
	bool die_asked, die_taken; /* on this connection, and answered */
	uint64_t reported;
	bool told_unguarded;
};

/* ---- asking ---- */

static void lost(struct host_watchdog *w, const struct err *e)
{
	if (w->known)
		log_warning("event=watchdog-lost error=\"%s\"", e->text);
	loop_io_free(steal_ptr(w->io));
	keeper_close(&w->keeper);
	w->keeper = KEEPER_CLIENT_INIT;
	w->known = w->configured = w->taken = w->refused = w->released = w->die_asked = w->die_taken = false;
	w->told_until = 0;
	loop_timer_set(w->connect, CONNECT_AGAIN);
}

static int configure(struct host_watchdog *w, struct err *e)
{
	struct keeper_config c = {.lease_ns = w->timing.lease_ns,
				  .budget_ns = w->timing.stop_ns,
				  .watchdog_s = (unsigned)(w->timing.watchdog_ns / NS_PER_S)};

	snprintf(c.mark, sizeof(c.mark), "godwit:%s:", w->d->cluster_id);
	w->configured = true;
	w->taken = w->refused = w->released = false;
	w->told_until = 0;
	return keeper_ask_configure(&w->keeper, &c, e);
}

/* Told to die: no new time, and all guests are to be ended now. */
static int feed_death(struct host_watchdog *w, struct err *e)
{
	int r = w->configured ? 0 : configure(w, e);

	if (r == 0 && !w->die_asked)
		r = keeper_ask_die(&w->keeper, e);
	w->die_asked = true;
	return r;
}

static int feed_release(struct host_watchdog *w, struct err *e)
{
	bool due = !w->released && w->status.state != KEEPER_FREE;

	w->released = true;
	w->configured = w->taken = w->refused = false;
	return due ? keeper_ask_release(&w->keeper, e) : 0;
}

static int feed_until(struct host_watchdog *w, int64_t until, struct err *e)
{
	if (!w->configured)
		return configure(w, e);
	if (!w->taken || until <= clock_boot_ns() || until <= w->told_until)
		return 0;
	w->told_until = until;
	return keeper_ask_until(&w->keeper, until, e);
}

void host_watchdog_feed(struct host_watchdog *w, int64_t until)
{
	struct err e = ERR_INIT;
	int r;

	if (!w->known)
		return;
	if (disks_told(w->d->disks)) {
		r = feed_death(w, &e);
	} else {
		w->die_asked = w->die_taken = false;
		r = until == LEASE_FOREVER ? feed_release(w, &e) : feed_until(w, until, &e);
	}
	if (r < 0)
		lost(w, &e);
}

void host_watchdog_times(struct host_watchdog *w, const struct timing *t)
{
	w->timing = *t;
	w->configured = w->taken = w->refused = false;
}

int host_watchdog_release(struct host_watchdog *w, struct err *e)
{
	return w->keeper.fd < 0 ? 0 : keeper_ask_release(&w->keeper, e);
}

void host_watchdog_ask_again(struct host_watchdog *w)
{
	if (w->refused)
		w->configured = w->refused = false;
}

/* ---- hearing ---- */

static void take_report(struct host_watchdog *w, const struct keeper_report *report)
{
	struct err e = ERR_INIT;

	if (!report->serial || report->seen || report->serial == w->reported)
		return;
	log_error("event=guests-ended guests=%u took_ms=%lld"
		  " text=\"godwit-watchdog has ended the guests of this host: %s\"",
		  report->guests, (long long)(report->took_ns / NS_PER_MS),
		  report->cause == KEEPER_EXPIRED ? "its lease was over" : "it was told to");
	w->reported = report->serial;
	if (keeper_ask_seen(&w->keeper, report->serial, &e) < 0)
		log_debug("event=watchdog-seen error=\"%s\"", e.text);
}

static void take(struct host_watchdog *w, const struct keeper_status *s)
{
	if (!w->known || s->state != w->status.state || s->device != w->status.device)
		log_info("event=watchdog state=%s device=%s text=\"%s\"", keeper_state_names[s->state],
			 keeper_device_names[s->device], s->device_text);
	w->status = *s;
	w->known = true;
	if (s->code != ERR_NONE) {
		log_warning("event=watchdog-refused request=%s error=\"%s\"", keeper_type_names[s->answer_to], s->text);
		if (s->answer_to == KEEPER_UNTIL)
			w->told_until = 0;
	}
	if (s->answer_to == KEEPER_CONFIGURE && w->configured) {
		w->taken = s->code == ERR_NONE;
		w->refused = !w->taken;
	}
	take_report(w, &s->report);
	if (s->answer_to == KEEPER_DIE && w->die_asked) {
		w->die_taken = s->code == ERR_NONE;
		w->die_asked = w->die_taken; /* refused: asked again */
	}
	/* Nothing that it was told since lets it go from there: whatever ended them, no guest is left, and none starts.
	 */
	if (w->die_taken && s->state == KEEPER_STOPPED)
		disks_dead(w->d->disks);
}

static void on_keeper(void *arg, unsigned ready)
{
	struct host_watchdog *w = arg;
	struct keeper_status s;
	struct err e = ERR_INIT;
	int r;

	(void)ready;
	while ((r = keeper_read(&w->keeper, &s, &e)) > 0)
		take(w, &s);
	if (r < 0)
		lost(w, &e);
	w->changed(w->arg);
}

static void connect_now(void *arg)
{
	struct host_watchdog *w = arg;
	struct err e = ERR_INIT;

	if (keeper_open(w->d->opt.run_dir, &w->keeper, &e) < 0) {
		if (!w->told_unguarded && w->d->opt.watchdog == WATCHDOG_AUTO)
			log_warning("event=unguarded text=\"no godwit-watchdog runs on this host: godwitd ends its "
				    "guests at "
				    "the end of its lease, but nothing does if godwitd hangs\"");
		w->told_unguarded = true;
		log_debug("event=watchdog-connect error=\"%s\"", e.text);
		loop_timer_set(w->connect, CONNECT_AGAIN);
		return;
	}
	w->told_unguarded = false;
	w->io = loop_io_add(w->d->loop, w->keeper.fd, LOOP_READ, on_keeper, w);
}

/* ---- what follows ---- */

bool host_watchdog_refuses(const struct host_watchdog *w)
{
	return w->refused;
}

bool host_watchdog_guards(const struct host_watchdog *w)
{
	return w->taken && w->status.state >= KEEPER_ARMED;
}

unsigned host_watchdog_bites_s(const struct host_watchdog *w)
{
	return host_watchdog_guards(w) && w->status.device == KEEPER_DEVICE_ARMED ? w->status.watchdog_s : 0;
}

const char *host_watchdog_why_not(const struct host_watchdog *w)
{
	if (w->keeper.fd < 0)
		return w->d->opt.watchdog == WATCHDOG_RUN ? "godwit-watchdog is not connected" : NULL;
	if (!w->known)
		return "godwit-watchdog has not answered yet";
	if (w->refused)
		return "godwit-watchdog refuses to guard the guests of this host; the daemon's log has its reason";
	if (w->status.state == KEEPER_STOPPING)
		return "godwit-watchdog is ending the guests of this host";
	return w->taken && w->status.state == KEEPER_ARMED ? NULL : "godwit-watchdog has no deadline yet";
}

json_t *host_watchdog_json(const struct host_watchdog *w)
{
	const struct keeper_status *s = w->known ? &w->status : NULL;

	return json_pack("{s:s, s:s?, s:s?, s:o, s:s?}", "mode", watchdog_mode_names[w->d->opt.watchdog], "state",
			 s ? keeper_state_names[s->state] : NULL, "device", s ? keeper_device_names[s->device] : NULL,
			 "timeout_s",
			 s && s->device == KEEPER_DEVICE_ARMED ? json_integer((json_int_t)s->watchdog_s) : json_null(),
			 "text", s && *s->device_text ? s->device_text : NULL);
}

/* ---- life ---- */

static void start(struct host_watchdog *w)
{
	struct daemon *d = w->d;
	const char *device = d->opt.watchdog_device ? d->opt.watchdog_device : "/dev/watchdog";
	struct service_spec spec = {
		.mode = SERVICE_CHILD, .name = "godwit-watchdog", .run_dir = d->opt.run_dir, .argv = w->argv};

	w->program = agent_program_beside("godwit-watchdog");
	w->argv[0] = w->program;
	w->argv[1] = "--run-dir";
	w->argv[2] = d->opt.run_dir;
	w->argv[3] = "--device";
	w->argv[4] = device;
	w->service = service_new(d->loop, &spec);
	service_run(w->service);
}

/* A page that an earlier godwit-watchdog left would forbid starts for ever. */
static void forget_permit(const struct daemon *d)
{
	_free_ char *path = xasprintf("%s/%s", d->opt.run_dir, PERMIT_FILE);

	if (unlink(path) < 0 && errno != ENOENT)
		log_error("event=watchdog file=%s error=\"%m\"", path);
}

struct host_watchdog *host_watchdog_new(struct daemon *d, void (*changed)(void *arg), void *arg)
{
	struct host_watchdog *w = xcalloc(1, sizeof(*w));

	w->d = d;
	w->changed = changed;
	w->arg = arg;
	w->keeper = KEEPER_CLIENT_INIT;
	w->connect = loop_timer_add(d->loop, -1, 0, connect_now, w);
	if (d->opt.watchdog == WATCHDOG_NONE)
		forget_permit(d);
	if (d->opt.watchdog == WATCHDOG_RUN)
		start(w);
	if (d->opt.watchdog != WATCHDOG_NONE)
		connect_now(w);
	return w;
}

void host_watchdog_free(struct host_watchdog *w)
{
	if (!w)
		return;
	loop_io_free(w->io);
	keeper_close(&w->keeper);
	loop_timer_free(w->connect);
	service_free(w->service);
	free(w->program);
	free(w);
}
