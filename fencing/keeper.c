/* SPDX-License-Identifier: Apache-2.0 */
/* What godwit-watchdog decides.
 *
 *                 configure             until X                X passes, die
 *        FREE ----------------> WAITING --------> ARMED(X) ------------------> STOPPING
 *         ^                        |                ^  | until X' > X              | none of ours is left
 *         +------- release --------+----------------|--+ (stays)                   v
 *         +-------------------- release ------------|------------------------- STOPPED
 *                                                   +------- until X --------------+
 *
 * The promise: at X + W at the latest no guest of ours runs here. It is kept twice:
 *   - from X on each guest gets SIGTERM, and from X + K on SIGKILL; and nothing is started (the permit).
 *   - from X on the device is not petted while one of them lives. The last pet was before X, so the hardware resets the
 *     host before X + W. Between X and X + K a guest that ends in order costs nothing, as K + W/8 (a petting interval)
 *     is less than W, which keeper_configure() demands.
 * A host without guests is harmless, so in STOPPED it is petted again.
 * A petting that was begun before X and is done late, as this process was held up right there, is answered with
 * keeper_late(): the device's time-out is cut to what is left.
 *
 * Nothing brings a guest back: only godwit-vm runs QEMUs, and it needs the permit, for the destination of a move, too;
 * an engine, its guard and `godwit-vm resume` only tell a QEMU that lives to go on, and each of those is being ended.
 *
 * Once X has passed nothing saves the guests, not even a new deadline: others may have counted on it.
 * A connection to us that is lost changes nothing.
 */
#include "fencing/keeper.h"

#include <signal.h>
#include <string.h>

#include "base/clock.h"
#include "fencing/fields.h"

#define PETS_PER_TIMEOUT 8
#define LEASE_MAX (3600 * NS_PER_S)
#define WATCHDOG_MAX_S 3600U
#define RESCAN (20 * NS_PER_MS)   /* STOPPING: the run directory is read anew */
#define LEAVING (250 * NS_PER_MS) /* waiting for the last guest to end */
#define SAVED_VERSION 1U

const char *const keeper_state_names[KEEPER_STATE_MAX] = {"free", "waiting", "armed", "stopping", "stopped"};
const char *const keeper_cause_names[KEEPER_CAUSE_MAX] = {"none", "expired", "told"};

static int64_t pet_interval(const struct keeper *k)
{
	return k->config.watchdog_s * NS_PER_S / PETS_PER_TIMEOUT;
}

static bool configured(const struct keeper *k)
{
	return k->state != KEEPER_FREE;
}

void keeper_init(struct keeper *k)
{
	*k = (struct keeper){.state = KEEPER_FREE};
}

static int config_check(const struct keeper_config *c, struct err *e)
{
	size_t n = strnlen(c->mark, sizeof(c->mark));

	if (n == 0 || n > KEEPER_MARK_MAX)
		return err_set(e, ERR_INPUT, "the mark of the cluster's guests has %zu bytes; it must have 1 to %d", n,
			       KEEPER_MARK_MAX);
	if (c->lease_ns <= 0 || c->lease_ns > LEASE_MAX)
		return err_set(e, ERR_INPUT, "a lease of %lld ms is not possible; it must be 1 ms to an hour",
			       (long long)(c->lease_ns / NS_PER_MS));
	if (c->watchdog_s < 1 || c->watchdog_s > WATCHDOG_MAX_S)
		return err_set(e, ERR_INPUT, "a watchdog of %u seconds is not possible; it must be 1 to %u",
			       c->watchdog_s, WATCHDOG_MAX_S);
	if (c->budget_ns < 0 || c->budget_ns > LEASE_MAX ||
	    c->budget_ns + c->watchdog_s * NS_PER_S / PETS_PER_TIMEOUT >= c->watchdog_s * NS_PER_S)
		return err_set(
			e, ERR_INPUT,
			"%lld ms for stopping guests do not fit into a watchdog of %u seconds: the host would be "
			"reset before they have ended in order",
			(long long)(c->budget_ns / NS_PER_MS), c->watchdog_s);
	return 0;
}

int keeper_configure(struct keeper *k, const struct keeper_config *c, int64_t now_ns, struct err *e)
{
	if (config_check(c, e) < 0)
		return -1;
	if (configured(k) && strcmp(k->config.mark, c->mark) != 0)
		return err_set(
			e, ERR_CONFLICT,
			"godwit-watchdog guards the guests marked %s; they must be released before those marked %s "
			"can be guarded",
			k->config.mark, c->mark);
	k->config = *c;
	k->next_pet_ns = now_ns;
	if (!configured(k))
		k->state = KEEPER_WAITING;
	return 0;
}

int keeper_until(struct keeper *k, int64_t until_ns, int64_t now_ns, struct err *e)
{
	keeper_advance(k, now_ns);
	if (!configured(k))
		return err_set(e, ERR_CONFLICT, "godwit-watchdog has not been told whose guests it guards");
	if (k->state == KEEPER_STOPPING)
		return err_set(e, ERR_CONFLICT,
			       "the lease was over before this extension; all guests of the cluster on this host are "
			       "being stopped");
	if (until_ns <= now_ns)
		return err_set(e, ERR_INPUT, "the extension of the lease was over %lld ms before it came",
			       (long long)((now_ns - until_ns) / NS_PER_MS));
	if (until_ns - now_ns > k->config.lease_ns)
		return err_set(
			e, ERR_INPUT, "an extension of the lease by %lld ms is refused: the longest lease is %lld ms",
			(long long)((until_ns - now_ns) / NS_PER_MS), (long long)(k->config.lease_ns / NS_PER_MS));
	if (k->state != KEEPER_ARMED || until_ns > k->until_ns)
		k->until_ns = until_ns;
	k->state = KEEPER_ARMED;
	return 0;
}

int keeper_release(struct keeper *k, int64_t now_ns, struct err *e)
{
	keeper_advance(k, now_ns);
	if (k->state == KEEPER_STOPPING)
		return err_set(e, ERR_CONFLICT, "guests are being stopped; none of them can be released now");
	k->state = KEEPER_FREE;
	return 0;
}

static void stop_begin(struct keeper *k, enum keeper_cause cause, int64_t now_ns)
{
	k->state = KEEPER_STOPPING;
	k->cause = cause;
	k->stop_ns = now_ns;
	k->kill_ns = now_ns + k->config.budget_ns;
}

int keeper_die(struct keeper *k, int64_t now_ns, struct err *e)
{
	keeper_advance(k, now_ns);
	if (!configured(k))
		return err_set(e, ERR_CONFLICT, "godwit-watchdog has not been told whose guests it guards");
	if (k->state != KEEPER_STOPPING)
		stop_begin(k, KEEPER_TOLD, now_ns);
	return 0;
}

void keeper_seen(struct keeper *k, uint64_t serial)
{
	if (k->report.serial == serial)
		k->report.seen = true;
}

void keeper_leave(struct keeper *k)
{
	k->leaving = true;
}

void keeper_advance(struct keeper *k, int64_t now_ns)
{
	/* From the deadline on, however late we come to see it: K is counted from there. */
	if (k->state == KEEPER_ARMED && now_ns >= k->until_ns)
		stop_begin(k, KEEPER_EXPIRED, k->until_ns);
}

int64_t keeper_permit(const struct keeper *k)
{
	if (k->state == KEEPER_FREE)
		return INT64_MAX;
	return k->state == KEEPER_ARMED && !k->leaving ? k->until_ns : 0;
}

bool keeper_counts(const struct keeper *k)
{
	return k->state == KEEPER_STOPPING || (k->leaving && configured(k));
}

bool keeper_wants_device(const struct keeper *k)
{
	return configured(k);
}

static void stop_end(struct keeper *k, int64_t now_ns, unsigned found)
{
	k->state = KEEPER_STOPPED;
	k->next_pet_ns = now_ns;
	/* A deadline that passes where nothing runs is no news; "die now" is answered in any case. */
	if (found == 0 && k->cause != KEEPER_TOLD)
		return;
	k->report = (struct keeper_report){.serial = k->report.serial + 1,
					   .cause = k->cause,
					   .guests = found,
					   .at_ns = k->stop_ns,
					   .took_ns = now_ns - k->stop_ns};
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

struct keeper_act keeper_next(struct keeper *k, int64_t now_ns, unsigned alive, unsigned found)
{
	struct keeper_act a = {.wake_ns = INT64_MAX};

	if (k->state == KEEPER_STOPPING && alive == 0)
		stop_end(k, now_ns, found);
	if (k->state == KEEPER_STOPPING) {
		a.signal = now_ns >= k->kill_ns ? SIGKILL : SIGTERM;
		a.wake_ns = now_ns + RESCAN;
		if (a.signal == SIGTERM)
			a.wake_ns = earlier(a.wake_ns, k->kill_ns);
		return a;
	}
	a.end = k->leaving && alive == 0;
	if (k->leaving)
		a.wake_ns = now_ns + LEAVING;
	if (!configured(k))
		return a;
	/* A deadline that has passed since keeper_advance() is seen in the next turn; the device must not be petted in
	 * this one. */
	if (now_ns >= k->next_pet_ns && !(k->state == KEEPER_ARMED && now_ns >= k->until_ns)) {
		a.pet = true;
		k->next_pet_ns = now_ns + pet_interval(k);
	}
	a.wake_ns = earlier(a.wake_ns, k->next_pet_ns);
	if (k->state == KEEPER_ARMED)
		a.wake_ns = earlier(a.wake_ns, k->until_ns);
	return a;
}

unsigned keeper_late(const struct keeper *k, int64_t now_ns)
{
	int64_t left = k->until_ns + k->config.watchdog_s * NS_PER_S - now_ns;

	if (k->state != KEEPER_ARMED || now_ns < k->until_ns + pet_interval(k))
		return 0;
	return left > NS_PER_S ? (unsigned)(left / NS_PER_S) : 1;
}

/* ---- the state for a successor ----
 *
 * version 4 | state 1 | leaving 1 | cause 1 | report: cause 1, guests 4, serial 8, at 8, took 8, seen 1 | lease 8 |
 * budget 8 | watchdog 4 | until 8 | stop 8 | kill 8 | mark 80; then zeros. Big-endian. next_pet_ns is not kept: a
 * successor pets at once, if it may. */

void keeper_save(const struct keeper *k, unsigned char buf[KEEPER_SAVED])
{
	unsigned char *p = buf;

	memset(buf, 0, KEEPER_SAVED);
	put32(&p, SAVED_VERSION);
	put8(&p, k->state);
	put8(&p, k->leaving);
	put8(&p, k->cause);
	put8(&p, k->report.cause);
	put32(&p, k->report.guests);
	put64(&p, (int64_t)k->report.serial);
	put64(&p, k->report.at_ns);
	put64(&p, k->report.took_ns);
	put8(&p, k->report.seen);
	put64(&p, k->config.lease_ns);
	put64(&p, k->config.budget_ns);
	put32(&p, k->config.watchdog_s);
	put64(&p, k->until_ns);
	put64(&p, k->stop_ns);
	put64(&p, k->kill_ns);
	put_text(&p, k->config.mark, sizeof(k->config.mark));
}

int keeper_load(struct keeper *k, const unsigned char *buf, size_t n)
{
	const unsigned char *p = buf;
	struct keeper r = {0};
	unsigned cause, reported;

	if (n != KEEPER_SAVED || take32(&p) != SAVED_VERSION)
		return -1;
	r.state = take8(&p);
	r.leaving = take8(&p) != 0;
	cause = take8(&p);
	reported = take8(&p);
	r.report.guests = take32(&p);
	r.report.serial = (uint64_t)take64(&p);
	r.report.at_ns = take64(&p);
	r.report.took_ns = take64(&p);
	r.report.seen = take8(&p) != 0;
	r.config.lease_ns = take64(&p);
	r.config.budget_ns = take64(&p);
	r.config.watchdog_s = take32(&p);
	r.until_ns = take64(&p);
	r.stop_ns = take64(&p);
	r.kill_ns = take64(&p);
	if (take_text(&p, r.config.mark, sizeof(r.config.mark)) < 0 || r.state >= KEEPER_STATE_MAX ||
	    cause >= KEEPER_CAUSE_MAX || reported >= KEEPER_CAUSE_MAX ||
	    (configured(&r) && config_check(&r.config, NULL) < 0))
		return -1;
	r.cause = cause;
	r.report.cause = reported;
	*k = r;
	return 0;
}
