/* SPDX-License-Identifier: Apache-2.0 */
/* What a move would cost: how fast the guest writes and what the wire carries, both measured, and the series that
 * follows from them.
 *
 * Who does what:
 *
 *   any host      that does not have the guest asks the one that has, as a client of its API; a host that is asked by
 *                 another never asks further
 *   source        asks the destination for a receiver, then has an engine measure wire and guest (node/mover.h). Where
 *                 that fails it measures the guest alone, takes the wire from the setting, and says so
 *   destination   starts a receiver that takes no guest, with the certificate and at the address of a real move; it
 *                 serves that one source and ends
 *
 * Whatever waits (for another host, for QEMU) is a child of the mover, or a thread that knows nothing of the daemon and
 * hands its result to the loop. Each has a limit, and PATIENCE is more than all of them.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/http-client.h"
#include "base/mem.h"
#include "cluster/state.h"
#include "hv/dirtyrate.h"
#include "hv/vm.h"
#include "migrate/forecast.h"
#include "node/api-int.h"
#include "node/mover.h"
#include "node/place.h"

#define MEASURE_S 1
#define AT_ONCE 16 /* each is a thread or a child, and a second of one guest's monitor */
#define ASK_LIMIT (5 * NS_PER_S)
#define ENGINE_LIMIT (12 * NS_PER_S) /* a wire of 200 KB/s is measured by then */
#define PATIENCE (30 * NS_PER_S)
#define RECEIVER_WAIT_S 10
#define FIXED_PAUSE (4 * NS_PER_MS) /* stop, device state, load, resume (docs/performance.md) */
#define PROBES "/v1/wire-probes"

struct job {
	struct api_write *w;
	struct loop *loop;
	bool alone;
	char *name, *to;
	char *run_dir;                    /* measured here */
	char *address, *tls_dir, *target; /* asked there */
	json_t *answer;                   /* what it said; NULL: e */
	struct forecast_input in;         /* wire_rate by the setting */
	uint64_t bandwidth;               /* bytes/s, 0: as much as there is */
	struct dirtyrate rate;
	char *wire_why;
	json_t *forecast; /* the result; NULL: e */
	struct err e;
	void (*work)(struct job *j); /* in a thread */
	void (*then)(struct job *j); /* in the loop */
};

static void job_free(struct job *j)
{
	json_decref(j->answer);
	free(j->name);
	free(j->to);
	free(j->run_dir);
	free(j->address);
	free(j->tls_dir);
	free(j->target);
	free(j->wire_why);
	free(j);
}

/* The answer, and the end. */
static void finish(struct job *j)
{
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

/* ---- threads ---- */

static void on_worked(void *arg)
{
	struct job *j = arg;

	j->then(j);
}

static void *run(void *arg)
{
	struct job *j = arg;

	j->work(j);
	loop_call(j->loop, on_worked, j);
	return NULL;
}

/* Have @work done, then @then. */
static void begin(struct job *j, void (*work)(struct job *j), void (*then)(struct job *j))
{
	pthread_t thread;

	j->work = work;
	j->then = then;
	if (pthread_create(&thread, NULL, run, j) == 0) {
		pthread_detach(thread);
		return;
	}
	err_set(&j->e, ERR_UNAVAILABLE, "vm %s: no thread for measuring; try again later", j->name);
	finish(j);
}

/* Ask the API at j->address: j->answer, or -1 with j->e. */
static int ask(struct job *j, const char *method, json_t *body, int64_t patience_ns)
{
	struct http_client_options o = {.address = j->address, .tls_dir = j->tls_dir};
	struct http_client *c = http_client_new(&o, &j->e);
	struct http_answer a = {0};
	int r = c ? http_client_call(c, method, j->target, body, NULL, clock_now_ns() + patience_ns, &a, &j->e) : -1;

	if (r == 0 && a.status >= 300)
		r = http_answer_error(&a, &j->e);
	if (r == 0)
		j->answer = json_incref(a.json);
	http_answer_done(&a);
	http_client_free(c);
	json_decref(body);
	return r;
}

/* ---- the source, alone: the wire by the setting ---- */

static void measure(struct job *j)
{
	struct vm *vm = NULL;
	struct qmp *q = NULL;
	struct forecast f;
	int r = -1;

	if (vm_open(j->run_dir, j->name, &vm, &j->e) == 0 &&
	    vm_monitor(vm, VM_ENGINE_SOCK, clock_now_ns() + 5 * NS_PER_S, &q, &j->e) == 0)
		r = dirtyrate_measure(q, DIRTYRATE_AUTO, MEASURE_S, &j->rate, &j->e);
	qmp_close(q);
	vm_close(vm);
	if (r < 0) {
		err_wrap(&j->e, "vm %s: measure how fast it writes", j->name);
		return;
	}
	j->in.dirty_rate = (uint64_t)j->rate.bytes_per_s;
	j->in.dirty_period_ns = j->rate.seconds * NS_PER_S;
	f = forecast_run(&j->in);
	j->forecast = json_pack("{s:s, s:b, s:i, s:I, s:f, s:I, s:I, s:s, s:s, s:[]}", "to", j->to, "converges",
				f.converges, "passes", (int)f.passes, "bytes", (json_int_t)f.bytes, "pause_ms",
				(double)f.pause_ns / NS_PER_MS, "dirty_bytes_per_s", (json_int_t)f.dirty_rate,
				"wire_bytes_per_s", (json_int_t)f.wire_rate, "wire", "setting", "wire_why", j->wire_why,
				"reasons");
	if (f.total_ns >= 0)
		json_object_set_new(j->forecast, "seconds", json_real((double)f.total_ns / NS_PER_S));
	if (f.why[0])
		json_array_append_new(json_object_get(j->forecast, "reasons"), json_string(f.why));
	if (j->rate.why[0])
		json_array_append_new(json_object_get(j->forecast, "reasons"), json_string(j->rate.why));
}

/* The wire was not measured, @words say why. */
static void measure_alone(struct job *j, const char *words)
{
	json_t *vm = state_vm_get(replica_db(j->w->d->replica), j->name, NULL);
	bool moves = json_is_string(json_object_get(vm, "migration"));

	json_decref(vm);
	if (moves) { /* whose engine has the guest's monitor now */
		err_set(&j->e, ERR_CONFLICT,
			"vm %s: a move of it began meanwhile; `godwit migration list` shows what that costs", j->name);
		finish(j);
		return;
	}
	j->wire_why = xasprintf("the setting " PLACE_SETTING_WIRE ", as the wire to node %s was not measured: %s",
				j->to, words);
	begin(j, measure, finish);
}

/* ---- the source, with the destination ---- */

static void on_measured(void *arg, const json_t *f, const char *words)
{
	struct job *j = arg;
	double total_ms = json_number_value(json_object_get(f, "total_ms"));
	const char *why = json_string_value(json_object_get(f, "why"));

	if (!f) {
		measure_alone(j, words);
		return;
	}
	j->wire_why = xasprintf("measured just now, from node %s to node %s", j->w->d->identity.node, j->to);
	j->forecast =
		json_pack("{s:s, s:O, s:O, s:O, s:O, s:O, s:O, s:s, s:s, s:[]}", "to", j->to, "converges",
			  json_object_get(f, "converges"), "passes", json_object_get(f, "passes"), "bytes",
			  json_object_get(f, "bytes"), "pause_ms", json_object_get(f, "pause_ms"), "dirty_bytes_per_s",
			  json_object_get(f, "dirty_rate"), "wire_bytes_per_s", json_object_get(f, "wire_rate"), "wire",
			  "measured", "wire_why", j->wire_why, "reasons");
	if (!j->forecast) {
		measure_alone(j, "the engine's forecast is not as this godwitd knows it");
		return;
	}
	if (total_ms >= 0)
		json_object_set_new(j->forecast, "seconds", json_real(total_ms / 1000));
	if (why && *why)
		json_array_append_new(json_object_get(j->forecast, "reasons"), json_string(why));
	json_array_extend(json_object_get(j->forecast, "reasons"), json_object_get(f, "notes"));
	finish(j);
}

static void ask_dst(struct job *j)
{
	if (!j->address || ask(j, "POST", json_object(), ASK_LIMIT) < 0)
		json_decref(steal_ptr(j->answer));
}

static void on_dst_answered(struct job *j)
{
	struct mover_send_options o = {
		.vm = j->name,
		.to = json_string_value(json_object_get(j->answer, "address")),
		.token = json_string_value(json_object_get(j->answer, "token")),
		.max_pause_ms = j->in.max_pause_ms,
		.bandwidth_mbs = (unsigned)((j->bandwidth + 999999) / 1000000),
	};
	struct err e = j->e;

	j->e = ERR_INIT;
	if (j->answer && (!o.to || !o.token))
		err_set(&e, ERR_PROTOCOL, "it did not say where it listens");
	if (!o.to || !o.token || mover_forecast(j->w->d->mover, &o, ENGINE_LIMIT, on_measured, j, &e) < 0)
		measure_alone(j, e.text);
}

/* ---- any host ---- */

static void ask_owner(struct job *j)
{
	if (ask(j, "GET", NULL, PATIENCE) < 0)
		err_wrap(&j->e, "ask %s, where vm %s is", j->address, j->name);
	else
		j->forecast = json_incref(j->answer);
}

/* Find out who measures: this host, or the one that has the guest. */
static int prepare(struct job *j, const char *owner, struct err *e)
{
	struct daemon *d = j->w->d;

	if (d->api->measuring >= AT_ONCE)
		return err_set(e, ERR_UNAVAILABLE, "vm %s: %u other forecasts are being made; try again in a second",
			       j->name, d->api->measuring);
	j->tls_dir = xasprintf("%s/pki", d->opt.config_dir);
	if (!strcmp(owner, d->identity.node)) {
		j->run_dir = xstrdup(d->opt.run_dir);
		j->target = xstrdup(PROBES);
		j->address = api_peer_address(d, j->to, &j->e);
		return 0;
	}
	if (!strncmp(http_call_identity(j->w->call)->name, "node ", 5))
		return err_set(e, ERR_CONFLICT, "vm %s: is on node %s by now; ask again", j->name, owner);
	j->address = api_peer_address(d, owner, e);
	j->target = xasprintf("/v1/vms/%s/forecast?to=%s&max_pause_ms=%u", j->name, j->to, j->in.max_pause_ms);
	if (j->bandwidth) {
		char *more = xasprintf("%s&bandwidth=%" PRIu64, j->target, j->bandwidth);

		free(j->target);
		j->target = more;
	}
	return j->address ? 0 : -1;
}

void api_forecast(struct api_write *w, const json_t *vm, const struct api_move *m)
{
	struct job *j = xcalloc(1, sizeof(*j));
	struct err e = ERR_INIT;

	*j = (struct job){.w = w,
			  .loop = w->d->loop,
			  .alone = m->alone,
			  .name = xstrdup(w->object),
			  .to = xstrdup(m->to),
			  .bandwidth = m->bandwidth};
	j->in = (struct forecast_input){.ram_bytes = (uint64_t)json_integer_value(json_object_get(vm, "memory")),
					.wire_rate = m->wire_rate,
					.max_pause_ms = m->pause_ms,
					.fixed_pause_ns = FIXED_PAUSE};
	if (m->bandwidth && m->bandwidth < m->wire_rate)
		j->in.wire_rate = m->bandwidth;
	if (prepare(j, api_text(vm, "owner"), &e) < 0) {
		api_reply_err(w, &e);
		job_free(j);
		return;
	}
	w->d->api->measuring++;
	if (j->run_dir)
		begin(j, ask_dst, on_dst_answered);
	else
		begin(j, ask_owner, finish);
}

/* ---- the destination ---- */

static void on_listening(void *arg, const char *address, const char *token, const char *words)
{
	struct api_write *w = arg;
	struct err e = ERR_INIT;

	if (address && token) {
		api_reply(w, 201, json_pack("{s:s, s:s}", "address", address, "token", token));
		return;
	}
	err_set(&e, ERR_UNAVAILABLE, "no receiver for measuring: %s", words);
	api_reply_err(w, &e);
}

static void on_wire_probe(struct daemon *d, struct http_call *call)
{
	const char *who = http_call_identity(call)->name;
	struct mover_forecast_receive_options o = {
		.listen = d->identity.n_addresses ? d->identity.addresses[0] : "127.0.0.1",
		.peer = who + strlen("node "),
		.wait_s = RECEIVER_WAIT_S,
	};
	struct api_write *w = api_write_new(d, call, NULL);
	struct err e = ERR_INIT;

	if (strncmp(who, "node ", 5) != 0)
		err_set(&e, ERR_FORBIDDEN,
			"this is what a host of the cluster asks another; ask for a guest's forecast instead");
	else if (mover_forecast_receive(d->mover, &o, on_listening, w, &e) == 0)
		return;
	api_reply_err(w, &e);
}

const struct api_handler api_forecast_handlers[] = {
	{.operation = "wire_probe", .handle = on_wire_probe},
	{0},
};
