/* SPDX-License-Identifier: Apache-2.0 */
/* Corosync on this host.
 *
 * The list of nodes is part of the replicated state, so every member writes the same corosync.conf when it applies a
 * change of it. A member that has written its file asks all corosyncs to read theirs. It cannot know whether the others
 * have written theirs yet; but each of them asks as well once it has, so the last one to write makes all of them right.
 * In between some count with the old number of hosts and some with the new one. That is as safe as a change of one
 * member in Raft: of two numbers that differ by one, every two majorities meet (Ongaro, section 4.1).
 *
 * A host that was away while the list changed starts its corosync with an old file. The others refuse the packets of
 * hosts that are no longer in theirs and take those of hosts that are; it then gets the state, and with it the new
 * file.
 */
#include "node/ring.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/state.h"
#include "node/service.h"

#define CONF_MAX COROSYNC_TEXT_MAX
#define RELOAD_LIMIT (5 * NS_PER_S) /* a reload that hangs is ended and tried again */
#define RELOAD_AGAIN (1 * NS_PER_S)

const char *const ring_mode_names[RING_MODE_MAX + 1] = {
	[RING_SYSTEMD] = "systemd", [RING_RUN] = "run", [RING_NONE] = "none"};

static const enum service_mode service_modes[RING_MODE_MAX] = {
	[RING_SYSTEMD] = SERVICE_SYSTEMD, [RING_RUN] = SERVICE_CHILD, [RING_NONE] = SERVICE_NONE};

struct waiter {
	struct waiter *next;
	loop_fn *fn;
	void *arg;
};

struct ring {
	struct loop *loop;
	enum ring_mode mode;
	char *dir, *conf_path, *key_path, *tls_path;

	struct service *corosync, *qdevice;
	const char *corosync_argv[5];
	char *device; /* what corosync's configuration says of it, NULL: nothing */

	struct child reload;
	struct loop_child *reload_watch;
	struct loop_timer *reload_timer;
	bool reload_due;
	struct waiter *waiters;
};

/* corosync-qnetd talks TLS with those who have a certificate of its CA: whoever gave this host one wants that, and
 * nothing less. */
static struct corosync_local local(const struct ring *r)
{
	return (struct corosync_local){.key_path = r->key_path,
				       .to_syslog = r->mode == RING_SYSTEMD,
				       .to_stderr = r->mode == RING_RUN,
				       .qdevice_tls = access(r->tls_path, F_OK) == 0};
}

/* ---- running ---- */

/* What corosync.conf says of the quorum device, as we wrote it; NULL: nothing. Caller frees. */
static char *device_section(const struct ring *r)
{
	static const char end[] = "\n\t}\n";
	_free_ char *text = file_read(r->conf_path, CONF_MAX, NULL, NULL);
	const char *from = text ? strstr(text, "\tdevice {\n") : NULL, *to = from ? strstr(from, end) : NULL;

	return to ? xasprintf("%.*s", (int)(to - from), from) : NULL;
}

/* corosync-qdevice asks the third party for its vote. It runs while corosync's configuration names one, and reads that
 * only when it starts. */
static void device_follow(struct ring *r)
{
	char *device = device_section(r);

	if (device && r->device && strcmp(device, r->device) != 0)
		service_restart(r->qdevice);
	if (device)
		service_run(r->qdevice);
	else if (r->device)
		service_stop(r->qdevice);
	free(r->device);
	r->device = device;
}

void ring_run(struct ring *r)
{
	service_run(r->corosync);
	device_follow(r);
}

void ring_stop(struct ring *r)
{
	if (r->device)
		service_stop(r->qdevice);
	service_stop(r->corosync);
}

/* ---- changes ---- */

static void settle(struct ring *r)
{
	struct waiter *w = steal_ptr(r->waiters);

	while (w) {
		struct waiter *next = w->next;

		loop_defer(r->loop, w->fn, w->arg);
		free(w);
		w = next;
	}
}

static void reload_begin(struct ring *r);

static void reload_done(struct ring *r, bool worked)
{
	loop_child_free(steal_ptr(r->reload_watch));
	child_done(&r->reload);
	loop_timer_set(r->reload_timer, -1);
	if (worked)
		device_follow(r);
	if (r->reload_due) { /* the file has changed meanwhile */
		reload_begin(r);
	} else if (worked) {
		settle(r);
	} else {
		r->reload_due = true;
		loop_timer_set(r->reload_timer, RELOAD_AGAIN);
	}
}

static void reload_ended(void *arg)
{
	struct ring *r = arg;
	int status = -1;

	child_wait(&r->reload, 0, &status, NULL);
	if (status != 0)
		log_warning("event=corosync-reload text=\"corosync did not take its new configuration; tried again\"");
	reload_done(r, status == 0);
}

static void reload_timer(void *arg)
{
	struct ring *r = arg;

	if (!r->reload_watch) {
		if (r->reload_due)
			reload_begin(r);
		return;
	}
	child_signal(&r->reload, SIGKILL, NULL); /* reload_ended() follows */
}

static void reload_begin(struct ring *r)
{
	struct err e = ERR_INIT;

	if (r->reload_watch) {
		r->reload_due = true;
		return;
	}
	r->reload_due = false;
	if (corosync_reload_start(&r->reload, &e) < 0) {
		log_warning("event=corosync-reload error=\"%s\"", e.text);
		r->reload_due = true;
		loop_timer_set(r->reload_timer, RELOAD_AGAIN);
		return;
	}
	r->reload_watch = loop_child_add(r->loop, r->reload.pidfd, reload_ended, r);
	loop_timer_set(r->reload_timer, RELOAD_LIMIT);
}

static void wait_settled(struct ring *r, loop_fn *fn, void *arg)
{
	struct waiter *w;

	if (!fn)
		return;
	w = xcalloc(1, sizeof(*w));
	*w = (struct waiter){.next = r->waiters, .fn = fn, .arg = arg};
	r->waiters = w;
}

void ring_follow(struct ring *r, const struct corosync_conf *want, loop_fn *settled, void *arg)
{
	_free_ char *have = file_read(r->conf_path, CONF_MAX, NULL, NULL);
	struct corosync_local mine = local(r);
	struct err e = ERR_INIT;
	_free_ char *text = corosync_conf_text(want, &mine, &e);

	wait_settled(r, settled, arg);
	if (text && have && !strcmp(text, have)) {
		if (!r->reload_watch && !r->reload_due)
			settle(r);
		return;
	}
	if (!text || file_write_atomic(r->conf_path, text, strlen(text), 0644, (gid_t)-1, &e) < 0) {
		log_error("event=corosync-configure error=\"%s\"", e.text);
		return;
	}
	log_info("event=corosync-configured nodes=%zu version=%" PRIu64, want->n_nodes, want->version);
	reload_begin(r);
}

static int conf_node(const json_t *node, struct corosync_conf *ret, struct err *e)
{
	struct corosync_node *n = &ret->nodes[ret->n_nodes];
	const json_t *addresses = json_object_get(node, "addresses");
	size_t links = json_array_size(addresses);

	if (links > COROSYNC_LINKS_MAX || ret->n_nodes >= COROSYNC_NODES_MAX)
		return err_set(e, ERR_SYSTEM, "the state holds more nodes or links than corosync can have");
	n->id = (unsigned)json_integer_value(json_object_get(node, "id"));
	snprintf(n->name, sizeof(n->name), "%s", json_string_value(json_object_get(node, "name")));
	for (size_t i = 0; i < links; i++)
		if (address_parse(json_string_value(json_array_get(addresses, i)), n->addresses[i], e) < 0)
			return err_wrap(e, "node %s", n->name);
	ret->n_links = links;
	ret->n_nodes++;
	return 0;
}

static int node_order(const void *a, const void *b)
{
	const struct corosync_node *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/* A setting's value, borrowed from *ret_setting; NULL where it is not set. */
static const json_t *setting(struct sqlite3 *db, const char *key, json_t **ret_setting)
{
	*ret_setting = state_setting_get(db, key, NULL);
	return json_object_get(*ret_setting, "value");
}

int ring_conf(struct sqlite3 *db, const char *cluster, struct corosync_conf *ret, struct err *e)
{
	json_t *nodes = state_node_list(db, e), *ring = state_setting_get(db, STATE_SETTING_RING, e), *node, *s = NULL;
	struct corosync_conf c = {.token_ms = COROSYNC_TOKEN_MS};
	const json_t *v;
	int r = nodes && ring ? 0 : -1;
	size_t i;

	snprintf(c.cluster, sizeof(c.cluster), "%s", cluster);
	c.version = (uint64_t)json_integer_value(json_object_get(ring, "version"));
	v = setting(db, RING_SETTING_TOKEN_MS, &s);
	if (json_is_integer(v))
		c.token_ms = (unsigned)json_integer_value(v);
	json_decref(s);
	v = setting(db, RING_SETTING_QDEVICE, &s);
	if (json_is_string(v))
		snprintf(c.qdevice, sizeof(c.qdevice), "%s", json_string_value(v));
	json_decref(s);
	json_array_foreach (nodes, i, node)
		if (r == 0)
			r = conf_node(node, &c, e);
	qsort(c.nodes, c.n_nodes, sizeof(c.nodes[0]), node_order);
	json_decref(nodes);
	json_decref(ring);
	if (r == 0)
		*ret = c;
	return r;
}

/* ---- life ---- */

struct ring *ring_new(struct loop *loop, const struct ring_options *o)
{
	struct ring *r = xcalloc(1, sizeof(*r));
	static const char *const qdevice_argv[] = {"corosync-qdevice", "-f", NULL};
	struct service_spec corosync = {.mode = service_modes[o->mode], .name = "corosync", .run_dir = o->run_dir};
	struct service_spec qdevice = {.mode = service_modes[o->mode],
				       .name = "corosync-qdevice",
				       .run_dir = o->run_dir,
				       .argv = qdevice_argv,
				       .folder = "/run/corosync-qdevice"};

	r->loop = loop;
	r->mode = o->mode;
	r->dir = xstrdup(o->dir);
	r->conf_path = xasprintf("%s/corosync.conf", o->dir);
	r->key_path = xasprintf("%s/authkey", o->dir);
	r->tls_path = xasprintf("%s/qdevice/net/nssdb", o->dir);
	r->corosync_argv[0] = "corosync";
	r->corosync_argv[1] = "-f";
	r->corosync_argv[2] = "-c";
	r->corosync_argv[3] = r->conf_path;
	corosync.argv = r->corosync_argv;
	r->corosync = service_new(loop, &corosync);
	r->qdevice = service_new(loop, &qdevice);
	r->reload = CHILD_INIT;
	r->reload_timer = loop_timer_add(loop, -1, 0, reload_timer, r);
	return r;
}

void ring_free(struct ring *r)
{
	if (!r)
		return;
	service_free(r->corosync);
	service_free(r->qdevice);
	loop_child_free(r->reload_watch);
	loop_timer_free(r->reload_timer);
	child_done(&r->reload);
	while (r->waiters) {
		struct waiter *next = r->waiters->next;

		free(r->waiters);
		r->waiters = next;
	}
	free(r->dir);
	free(r->conf_path);
	free(r->key_path);
	free(r->tls_path);
	free(r->device);
	free(r);
}

int ring_write(struct ring *r, const struct corosync_conf *c, const uint8_t key[COROSYNC_KEY_SIZE], struct err *e)
{
	struct corosync_local mine = local(r);

	return corosync_write(r->dir, c, &mine, key, e);
}

int ring_key_read(const struct ring *r, uint8_t ret[COROSYNC_KEY_SIZE], struct err *e)
{
	size_t size = 0;
	_free_ char *key = file_read(r->key_path, COROSYNC_KEY_SIZE, &size, e);

	if (!key)
		return -1;
	if (size != COROSYNC_KEY_SIZE)
		return err_set(e, ERR_INPUT, "%s has %zu bytes instead of %u", r->key_path, size, COROSYNC_KEY_SIZE);
	memcpy(ret, key, COROSYNC_KEY_SIZE);
	explicit_bzero(key, size);
	return 0;
}
