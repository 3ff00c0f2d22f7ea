/* SPDX-License-Identifier: Apache-2.0 */
/* A small model of a guest that writes and of QEMU's pre-copy loop, in virtual time, for tests of policy and forecast.
 */
#ifndef GODWIT_TESTS_SIM_GUEST_H
#define GODWIT_TESTS_SIM_GUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "migrate/policy.h"

#define SIM_PAGE 16384ULL /* coarser than 4 KiB for speed; what is tested does not depend on it */
#define SIM_MIB 1048576ULL
#define SIM_LOOK_NS (50 * NS_PER_MS)

/* The guest, the wire and what the user allows. */
struct sim_setup {
	uint64_t ram;             /* bytes, all filled with what is not zero */
	uint64_t hot;             /* the guest writes in the first @hot bytes only */
	uint64_t rate;            /* bytes/s that it writes */
	bool sweep;               /* one page after the other, else at random */
	int64_t busy_ns, away_ns; /* its vCPU writes for about busy_ns, then is scheduled away for away_ns; 0: never */
	int64_t calm_from, calm_for; /* it writes nothing in this time */
	uint64_t wire;               /* bytes/s */
	int64_t tick_ns;
	struct policy_options opt;
};

/* One look, for whoever wants to see more than the policy does. */
struct sim_look {
	struct policy_sample s;
	uint64_t sent;
	unsigned limit_ms;
};

struct sim_end {
	bool stopped; /* QEMU stopped the guest: the move succeeds */
	struct policy_decision last;
	int64_t time_ns, pause_ns; /* time_ns without the pause */
	unsigned passes, max_limit_ms, limits_set;
	uint64_t sent;
	struct sim_look *looks; /* caller frees */
	size_t n_looks;
};

struct sim {
	const struct sim_setup *set;
	uint8_t *to_send, *dirtied; /* QEMU's bitmap; the log since the last sync */
	uint64_t pages, hot_pages, remaining, in_log;
	uint64_t cursor, sweep_at, random;
	double write_credit, send_credit;
	int64_t now, busy_until, away_until, threshold_at, period_at;
	uint64_t threshold, sent, period_sent, period_dirty, dirty_rate;
	unsigned limit_ms, pass, throttle, throttle_votes;
};

static inline uint64_t sim_random(struct sim *m)
{
	m->random = m->random * 6364136223846793005ULL + 1442695040888963407ULL;
	return m->random >> 33;
}

/* Is the guest's vCPU on a CPU now? */
static inline bool sim_runs(struct sim *m)
{
	if (m->set->calm_for > 0 && m->now >= m->set->calm_from && m->now < m->set->calm_from + m->set->calm_for)
		return false;
	if (m->set->busy_ns == 0)
		return true;
	if (m->now >= m->busy_until && m->now >= m->away_until) {
		m->away_until = m->now + m->set->away_ns;
		m->busy_until =
			m->away_until + m->set->busy_ns / 2 + (int64_t)(sim_random(m) % (uint64_t)m->set->busy_ns);
	}
	return m->now >= m->away_until;
}

static inline void sim_guest(struct sim *m)
{
	if (m->set->hot == 0 || !sim_runs(m))
		return;
	m->write_credit += (double)m->set->rate * (100 - m->throttle) / 100 * (double)m->set->tick_ns / NS_PER_S;
	while (m->write_credit >= SIM_PAGE) {
		uint64_t p = m->set->sweep ? m->sweep_at++ % m->hot_pages : sim_random(m) % m->hot_pages;

		m->write_credit -= SIM_PAGE;
		m->in_log += !m->dirtied[p];
		m->dirtied[p] = 1;
	}
}

/* migration_trigger_throttle(): twice more than half as much dirtied as sent in a period raises the throttle. */
static inline void sim_period(struct sim *m)
{
	if (m->now - m->period_at < NS_PER_S)
		return;
	m->dirty_rate = (uint64_t)((double)m->period_dirty * NS_PER_S / (double)(m->now - m->period_at));
	if (m->set->opt.auto_converge && m->period_dirty > m->period_sent / 2 && ++m->throttle_votes >= 2) {
		m->throttle_votes = 0;
		m->throttle = m->throttle == 0 ? 20 : m->throttle + 10 > 99 ? 99 : m->throttle + 10;
	}
	m->period_at = m->now;
	m->period_dirty = m->period_sent = 0;
}

static inline void sim_sync(struct sim *m)
{
	m->pass++;
	m->period_dirty += m->in_log * SIM_PAGE;
	for (uint64_t p = 0; p < m->hot_pages; p++)
		if (m->dirtied[p]) {
			m->remaining += !m->to_send[p];
			m->to_send[p] = 1;
			m->dirtied[p] = 0;
		}
	m->in_log = 0;
	m->cursor = 0;
	sim_period(m);
}

/* QEMU for one tick. True when it stops the guest. */
static inline bool sim_qemu(struct sim *m)
{
	if (m->now >= m->threshold_at) {
		m->threshold = m->set->wire / 1000 * m->limit_ms;
		m->threshold_at = m->now + 100 * NS_PER_MS;
	}
	m->send_credit += (double)m->set->wire * (double)m->set->tick_ns / NS_PER_S;
	while (m->send_credit >= SIM_PAGE) {
		if (m->remaining * SIM_PAGE < m->threshold || m->remaining == 0) {
			sim_sync(m);
			if (m->remaining * SIM_PAGE < m->threshold || m->remaining == 0)
				return true;
		}
		while (!m->to_send[m->cursor])
			m->cursor = (m->cursor + 1) % m->pages;
		m->to_send[m->cursor] = 0;
		m->remaining--;
		m->sent += SIM_PAGE;
		m->period_sent += SIM_PAGE;
		m->send_credit -= SIM_PAGE;
	}
	return false;
}

/* One look of the engine. False: the policy ends the move. */
static inline bool sim_look(struct sim *m, struct policy *p, struct sim_end *end)
{
	struct policy_sample s = {.elapsed_ns = m->now,
				  .pass = m->pass,
				  .remaining = m->remaining * SIM_PAGE,
				  .dirty_rate = m->dirty_rate,
				  .wire_rate = m->now > 0 ? m->set->wire : 0};

	end->last = policy_step(p, &s);
	end->limits_set += end->last.downtime_limit_ms != m->limit_ms;
	m->limit_ms = end->last.downtime_limit_ms;
	if (m->limit_ms > end->max_limit_ms)
		end->max_limit_ms = m->limit_ms;
	end->looks = realloc(end->looks, (end->n_looks + 1) * sizeof(*end->looks));
	end->looks[end->n_looks++] = (struct sim_look){.s = s, .sent = m->sent, .limit_ms = m->limit_ms};
	return end->last.verdict == POLICY_GO_ON;
}

/* What calc-dirty-rate would say: distinct bytes per second over @period_ns. */
static inline uint64_t sim_measure(const struct sim_setup *set, int64_t period_ns)
{
	struct sim m = {.set = set, .hot_pages = set->hot / SIM_PAGE, .random = 99};

	m.dirtied = xcalloc(m.hot_pages + 1, 1);
	for (; m.now < period_ns; m.now += set->tick_ns)
		sim_guest(&m);
	free(m.dirtied);
	return (uint64_t)((double)(m.in_log * SIM_PAGE) * NS_PER_S / (double)period_ns);
}

/* Run a move until QEMU stops the guest, the policy ends it, or @give_up_ns of virtual time went by. */
static inline struct sim_end sim_run(const struct sim_setup *set, uint64_t seed, int64_t give_up_ns)
{
	struct sim m = {.set = set,
			.pages = set->ram / SIM_PAGE,
			.hot_pages = set->hot / SIM_PAGE,
			.random = seed,
			.pass = 1,
			.limit_ms = 1,
			.threshold_at = 100 * NS_PER_MS};
	struct sim_end end = {0};
	struct policy p;

	policy_init(&p, &set->opt);
	m.to_send = xcalloc(m.pages, 1);
	m.dirtied = xcalloc(m.pages, 1);
	for (uint64_t i = 0; i < m.pages; i++)
		m.to_send[i] = 1;
	m.remaining = m.pages;
	m.threshold = set->wire / 1000;
	for (; m.now < give_up_ns && !end.stopped; m.now += set->tick_ns) {
		if (m.now % SIM_LOOK_NS == 0 && !sim_look(&m, &p, &end))
			break;
		sim_guest(&m);
		end.stopped = sim_qemu(&m);
	}
	end.time_ns = m.now;
	end.passes = m.pass;
	end.sent = m.sent + (end.stopped ? m.remaining * SIM_PAGE : 0);
	end.pause_ns = (int64_t)((double)m.remaining * SIM_PAGE / (double)set->wire * NS_PER_S);
	free(m.to_send);
	free(m.dirtied);
	return end;
}

#endif
