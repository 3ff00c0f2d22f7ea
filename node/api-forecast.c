/* SPDX-License-Identifier: Apache-2.0 */
/* What a move would cost: the guest's dirty rate, measured where it runs, and the series that follows from it.
 *
 * Measuring takes a second and asks QEMU, asking another host takes longer: both are done by a thread that knows
 * nothing of the daemon and hands its result to the loop. A host that does not have the guest asks the one that has, as
 * a client of its API; a host that is asked by another never asks further.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/http-client.h"
#include "base/mem.h"
#include "hv/dirtyrate.h"
#include "hv/vm.h"
#include "migrate/forecast.h"
#include "node/api-int.h"

#define MEASURE_S 1
#define AT_ONCE 16 /* each is a thread, and a second of one guest's monitor */
#define PATIENCE (15 * NS_PER_S)
#define FIXED_PAUSE (4 * NS_PER_MS) /* stop, device state, load, resume (docs/performance.md) */

struct job {
	struct api_write *w;
	struct loop *loop;
	bool alone;
	char *name, *to;
	char *run_dir;                    /* measured here */
	char *address, *tls_dir, *target; /* asked there */
	struct forecast_input in;
	struct dirtyrate rate;
	json_t *forecast; /* the result; NULL: e */
	struct err e;
};

static void job_free(struct job *j)
{
	free(j->name);
	free(j->to);
	free(j->run_dir);
	free(j->address);
	free(j->tls_dir);
	free(j->target);
	free(j);
}

static json_t *forecast_json(const struct job *j)
{
	struct forecast f = forecast_run(&j->in);
	json_t *o = json_pack("{s:s, s:b, s:i, s:I, s:f, s:I, s:I, s:[]}", "to", j->to, "converges", f.converges,
			      "passes", (int)f.passes, "bytes", (json_int_t)f.bytes, "pause_ms",
			      (double)f.pause_ns / NS_PER_MS, "dirty_bytes_per_s", (json_int_t)j->in.dirty_rate,
			      "wire_bytes_per_s", (json_int_t)j->in.wire_rate, "reasons");

	if (f.total_ns >= 0)
		json_object_set_new(o, "seconds", json_real((double)f.total_ns / NS_PER_S));
	if (f.why[0])
		json_array_append_new(json_object_get(o, "reasons"), json_string(f.why));
	if (j->rate.why[0])
		json_array_append_new(json_object_get(o, "reasons"), json_string(j->rate.why));
	return o;
}

static int measure(struct job *j)
{
	struct vm *vm = NULL;
	struct qmp *q = NULL;
	int r = -1;

	if (vm_open(j->run_dir, j->name, &vm, &j->e) == 0 &&
	    vm_monitor(vm, VM_ENGINE_SOCK, clock_now_ns() + 5 * NS_PER_S, &q, &j->e) == 0)
		r = dirtyrate_measure(q, DIRTYRATE_AUTO, MEASURE_S, &j->rate, &j->e);
	qmp_close(q);
	vm_close(vm);
	if (r < 0)
		return err_wrap(&j->e, "vm %s: measure how fast it writes", j->name);
	j->in.dirty_rate = (uint64_t)j->rate.bytes_per_s;
	j->in.dirty_period_ns = j->rate.seconds * NS_PER_S;
	j->forecast = forecast_json(j);
	return 0;
}

static int ask(struct job *j)
{
	struct http_client_options o = {.address = j->address, .tls_dir = j->tls_dir};
	struct http_client *c = http_client_new(&o, &j->e);
	struct http_answer a = {0};
	int r = c ? http_client_call(c, "GET", j->target, NULL, NULL, clock_now_ns() + PATIENCE, &a, &j->e) : -1;

	if (r == 0 && a.status != 200)
		r = http_answer_error(&a, &j->e);
	if (r == 0)
		j->forecast = json_incref(a.json);
	http_answer_done(&a);
	http_client_free(c);
	return r < 0 ? err_wrap(&j->e, "ask %s, where vm %s is", j->address, j->name) : 0;
}

/* Back in the loop. */
static void on_result(void *arg)
{
	struct job *j = arg;

	j->w->d->api->measuring--;
	if (!j->forecast) {
		api_reply_err(j->w, &j->e);
	} else if (j->alone) {
		api_reply(j->w, 200, j->forecast);
	} else {
		json_object_set_new(j->w->extra, "forecast", j->forecast);
		api_reply(j->w, 200, json_incref(j->w->extra));
	}
	job_free(j);
}

static void *run(void *arg)
{
	struct job *j = arg;

	if (j->run_dir)
		measure(j);
	else
		ask(j);
	loop_call(j->loop, on_result, j);
	return NULL;
}

/* Find out who measures: this host, or the one that has the guest. */
static int prepare(struct job *j, const char *owner, struct err *e)
{
	struct daemon *d = j->w->d;

	if (d->api->measuring >= AT_ONCE)
		return err_set(e, ERR_UNAVAILABLE, "vm %s: %u other forecasts are being made; try again in a second",
			       j->name, d->api->measuring);
	if (!strcmp(owner, d->identity.node)) {
		j->run_dir = xstrdup(d->opt.run_dir);
		return 0;
	}
	if (!strncmp(http_call_identity(j->w->call)->name, "node ", 5))
		return err_set(e, ERR_CONFLICT, "vm %s: is on node %s by now; ask again", j->name, owner);
	j->address = api_peer_address(d, owner, e);
	j->tls_dir = xasprintf("%s/pki", d->opt.config_dir);
	j->target = xasprintf("/v1/vms/%s/forecast?to=%s&max_pause_ms=%u&bandwidth=%" PRIu64, j->name, j->to,
			      j->in.max_pause_ms, j->in.wire_rate);
	return j->address ? 0 : -1;
}

void api_forecast(struct api_write *w, const json_t *vm, const struct api_move *m)
{
	struct job *j = xcalloc(1, sizeof(*j));
	struct err e = ERR_INIT;
	pthread_t thread;
	int r;

	*j = (struct job){
		.w = w, .loop = w->d->loop, .alone = m->alone, .name = xstrdup(w->object), .to = xstrdup(m->to)};
	j->in = (struct forecast_input){.ram_bytes = (uint64_t)json_integer_value(json_object_get(vm, "memory")),
					.wire_rate = m->wire_rate,
					.max_pause_ms = m->pause_ms,
					.fixed_pause_ns = FIXED_PAUSE};
	r = prepare(j, api_text(vm, "owner"), &e);
	if (r == 0 && pthread_create(&thread, NULL, run, j) != 0)
		r = err_set(&e, ERR_UNAVAILABLE, "vm %s: no thread for measuring; try again later", j->name);
	if (r == 0) {
		w->d->api->measuring++;
		pthread_detach(thread);
		return;
	}
	api_reply_err(w, &e);
	job_free(j);
}
