/* SPDX-License-Identifier: Apache-2.0 */
/* godwitd's parts, wired together.
 *
 * One thread, one loop. What happens:
 *
 *   the replica applies a command  ->  api (events, answers), manager and moves (the next step), and one look, soon
 *   a look                         ->  agent and moves are told what the state says about this host's guests, networks
 * are made, corosync's configuration follows the list of nodes the agent sees a guest change  ->  vm.observed is
 * proposed every ten seconds              ->  node.report: what this host is and has
 *
 * Nothing of this is remembered outside the state, the run directory and node.json. So a daemon that is killed is
 * replaced by one that looks and goes on; init, join and upgrades are done by exactly that (daemon_restart_soon()).
 */
#include "node/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/uuid.h"
#include "base/version.h"
#include "cluster/state.h"
#include "hv/baseline.h"
#include "node/api.h"
#include "node/daemon-int.h"
#include "node/facts.h"
#include "node/folders.h"
#include "node/http-api.h"
#include "node/members.h"
#include "node/moves.h"
#include "node/pki-dir.h"
#include "node/pki.h"

#define REPORT_EVERY (10 * NS_PER_S)
#define TICK_EVERY (1 * NS_PER_S)
#define RENEW_EVERY (24 * 3600 * NS_PER_S)
#define RESTART_AFTER (200 * NS_PER_MS) /* answers on their way go out first */
#define EVENTS_KEPT 4096
#define GUESTS_MAX 4096
/* A report goes without what older hosts do not know. report_less: 1 without folders that are not reached, 2 without
 * shared disks as well, 3 without the watchdog as well. */
#define REPORT_LEAST 3

/* Taken by notify_open(), and needed again by the next program. */
static const char *const notify_variables[DAEMON_ENV_KEPT] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"};

/* ---- commands ---- */

static json_t *command(const char *op, const char *id, const char *by, const char *from, json_t *args)
{
	char uuid[37];

	if (!id) {
		uuid_random(uuid);
		id = uuid;
	}
	return json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:o}", "op", op, "v", (int)state_command_version(op, args),
			 "id", id, "time", (json_int_t)clock_wall_ms(), "by", by, "from", from, "args", args);
}

json_t *daemon_command(const struct daemon *d, const char *op, const char *id, json_t *args)
{
	_free_ char *by = xasprintf("node %s", d->identity.node);

	return command(op, id, by, "local", args);
}

/* A proposal whose proposer does not wait for it. */
static void unwaited(void *arg, const json_t *result, const struct err *e)
{
	char *op = arg;

	(void)result;
	if (e)
		log_warning("event=refused op=%s error=\"%s\"", op, e->text);
	free(op);
}

static void propose(struct daemon *d, const char *op, json_t *c, replica_done_fn *done, void *arg)
{
	struct err e = ERR_INIT;

	if (!done) {
		done = unwaited;
		arg = xstrdup(op);
	}
	if (!d->replica)
		err_set(&e, ERR_UNAVAILABLE,
			"this host belongs to no cluster yet; make one (godwit cluster init) or join one (godwit "
			"cluster "
			"join)");
	if (!d->replica || replica_propose(d->replica, c, done, arg, &e) < 0)
		done(arg, NULL, &e);
	json_decref(c);
}

void daemon_propose(struct daemon *d, const char *op, const char *id, json_t *args, replica_done_fn *done, void *arg)
{
	propose(d, op, daemon_command(d, op, id, args), done, arg);
}

void daemon_propose_for(struct daemon *d, const struct http_call *call, const char *op, json_t *args,
			replica_done_fn *done, void *arg)
{
	const struct http_identity *who = http_call_identity(call);

	propose(d, op, command(op, http_call_id(call), who->name, who->from, args), done, arg);
}

/* ---- what the replica says ---- */

static void found(struct daemon *d)
{
	json_t *nodes = state_node_list(replica_db(d->replica), NULL);

	if (nodes && !json_array_size(nodes) && d->identity.history && !d->parts->founding &&
	    replica_synced(d->replica)) {
		d->parts->founding = true;
		members_found(d);
	}
	json_decref(nodes);
}

/* The founder is in the state: its database exists, and is never to be made again. */
static void founded(struct daemon *d)
{
	_free_ char *path = xasprintf("%s/node.json", d->opt.state_dir);
	struct identity id = d->identity;
	struct err e = ERR_INIT;

	id.history = 0;
	id.qdevice[0] = 0;
	if (identity_write(path, &id, &e) < 0)
		log_error("event=founded error=\"%s\"", e.text);
	else
		d->identity = id;
}

static void on_applied(void *arg, uint64_t index, const json_t *c, const json_t *result, const struct err *e)
{
	struct daemon *d = arg;
	const char *op = json_string_value(json_object_get(c, "op"));

	api_applied(d, index, c, result);
	if (!e && op && !strcmp(op, "node.report"))
		daemon_tell_baseline(d, json_object_get(c, "args"));
	if (e || !op || !strcmp(op, "node.report"))
		return;
	if (!strcmp(op, "node.join") && d->identity.history) {
		founded(d);
		daemon_report(d);
	}
	if (!strcmp(op, "network.delete"))
		daemon_network_gone(c);
	if (!strcmp(op, "network.create"))
		daemon_report(d);
	daemon_look_changed(d, op, result);
}

static void on_changed(void *arg)
{
	struct daemon *d = arg;
	bool synced = replica_synced(d->replica);

	if (synced && !d->parts->was_synced) {
		log_info("event=synced node=%s leads=%d", d->identity.node, replica_leads(d->replica));
		agent_tell_all(d->agent);
		found(d);
		daemon_report(d);
	} else if (!synced && d->parts->was_synced) {
		log_warning("event=unsynced node=%s text=\"changes are refused until a majority is here again\"",
			    d->identity.node);
	}
	d->parts->was_synced = synced;
	notify_status(&d->notify, NULL, "node %s of cluster %s: %s", d->identity.node, d->identity.cluster,
		      synced ? "synced" : "not synced");
	daemon_look_soon(d);
}

/* ---- what the agent says ---- */

/* Words of the state for what godwit-vm sees. */
static const struct {
	const char *seen, *status, *note;
} statuses[] = {
	{"running", "running", NULL},
	{"paused", "paused", NULL},
	{"incoming", "starting", NULL},
	{"migrated", "paused", "its memory went elsewhere"},
	{"shutdown", "stopping", NULL},
	{"failed", "failed", "QEMU reports an internal error"},
	{"silent", "running", "QEMU does not answer on its monitor"},
	{"gone", "failed", "QEMU has ended"},
	{"stopped", "stopped", NULL},
};

static void observed(void *arg, const json_t *result, const struct err *e)
{
	(void)arg;
	(void)result;
	if (e) /* an older epoch, a host without quorum: told again when there is something to tell */
		log_debug("event=observed-refused error=\"%s\"", e->text);
}

static bool same_text(const json_t *o, const char *key, const char *text)
{
	const char *have = json_string_value(json_object_get(o, key));

	return have && text ? !strcmp(have, text) : !have && !text;
}

/* Is what the agent saw news for the state? Not when the guest is another host's, by its epoch, nor while it is being
 * moved: then the steps of the move say where it is. */
static bool is_news(const struct daemon *d, const struct agent_status *s, const char *status, const char *note)
{
	json_t *vm = state_vm_get(replica_db(d->replica), s->name, NULL);
	const char *owner = json_string_value(json_object_get(vm, "owner"));
	const char *migration = json_string_value(json_object_get(vm, "migration"));
	const json_t *detail = json_object_get(vm, "detail");
	bool ours = owner && !strcmp(owner, d->identity.node) &&
		    json_integer_value(json_object_get(vm, "epoch")) == s->epoch &&
		    !(migration && moves_holds(d->moves, migration));
	bool known = same_text(vm, "status", status) && same_text(vm, "note", note) &&
		     same_text(detail, "cause", s->cause) &&
		     json_integer_value(json_object_get(vm, "pid")) == (s->pid > 0 ? s->pid : 0) &&
		     (!s->as_of || json_integer_value(json_object_get(detail, "as_of")) == s->as_of);

	json_decref(vm);
	return ours && !known;
}

static void on_status(void *arg, const struct agent_status *s)
{
	struct daemon *d = arg;
	const char *note = s->note, *status = s->status;
	json_t *args;

	if (s->foreign) {
		log_warning(
			"event=foreign-guest vm=%s uuid=%s text=\"runs here and is not this cluster's: left alone\"",
			s->name, s->uuid);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
		if (!strcmp(statuses[i].seen, s->status)) {
			status = statuses[i].status;
			note = note ? note : statuses[i].note;
		}
	if (!replica_synced(d->replica) || !is_news(d, s, status, note))
		return; /* agent_tell_all() when that changes */
	args = json_pack("{s:s, s:s, s:I, s:s}", "vm", s->name, "node", d->identity.node, "epoch", (json_int_t)s->epoch,
			 "status", status);
	if (s->pid > 0)
		json_object_set_new(args, "pid", json_integer(s->pid));
	if (s->as_of > 0)
		json_object_set_new(args, "as_of", json_integer(s->as_of));
	if (s->cause)
		json_object_set_new(args, "detail", json_pack("{s:s}", "cause", s->cause));
	if (note)
		json_object_set_new(args, "note", json_stringn(note, strnlen(note, 1000)));
	daemon_propose(d, "vm.observed", NULL, args, observed, NULL);
}

static void on_result(void *arg, const struct agent_result *r)
{
	(void)arg;
	if (r->done)
		log_info("event=%s vm=%s", agent_act_names[r->act], r->name);
	else
		log_warning("event=%s vm=%s error=\"%s\"", agent_act_names[r->act], r->name, r->text);
}

static void on_agent_fd(void *arg, unsigned ready)
{
	struct daemon *d = arg;

	(void)ready;
	agent_dispatch(d->agent);
}

/* ---- reports ---- */

/* A host that is not upgraded yet does not take all of it: then the report goes without. */
static void reported(void *arg, const json_t *result, const struct err *e)
{
	struct daemon *d = arg;
	unsigned less = d->parts->report_less;

	(void)result;
	if (e && e->code == ERR_UNSUPPORTED && less < REPORT_LEAST) {
		d->parts->report_less = less + 1;
		daemon_report(d);
		d->parts->report_less = less;
	} else if (e)
		log_debug("event=report-refused error=\"%s\"", e->text);
}

/* What is known of this host's CPU: as long as QEMU has not been asked by this process, what an earlier one said, or
 * guests would find no place here for the seconds that it takes. New reference; NULL: nothing. */
static json_t *cpu_known(const struct daemon *d, const json_t *node)
{
	return json_incref(d->cpu ? d->cpu : json_object_get(json_object_get(node, "report"), "cpu"));
}

void daemon_report(void *arg)
{
	struct daemon *d = arg;
	struct facts_guest *guests;
	struct facts_input in = {.version = GODWIT_VERSION};
	struct err e = ERR_INIT;
	json_t *facts, *node, *disks, *unreached;

	if (!d->replica || !replica_synced(d->replica))
		return;
	node = state_node_get(replica_db(d->replica), d->identity.node, NULL);
	if (!node) /* not in the list yet, or a snapshot that is being taken: soon again */
		return;
	guests = xcalloc(GUESTS_MAX, sizeof(*guests));
	in.guests = guests;
	in.n_guests = agent_memory(d->agent, guests, GUESTS_MAX);
	in.networks = daemon_networks(d);
	in.cpu = cpu_known(d, node);
	json_decref(node);
	facts = facts_read(&in, &e);
	free(guests);
	json_decref(in.networks);
	json_decref(in.cpu);
	if (!facts) {
		log_error("event=report error=\"%s\"", e.text);
		return;
	}
	json_object_set_new(facts, "node", json_string(d->identity.node));
	unreached = d->parts->report_less ? NULL : folders_json(d->parts->folders);
	if (unreached)
		json_object_set_new(facts, "unreached", unreached);
	disks = d->parts->report_less > 1 ? NULL : disks_json(d->disks);
	if (disks)
		json_object_set_new(facts, "disks", disks);
	if (d->parts->report_less < REPORT_LEAST)
		json_object_set_new(facts, "watchdog", host_lease_report(d->lease));
	if (json_is_null(json_object_get(facts, "cpu")))
		json_object_del(facts, "cpu");
	daemon_propose(d, "node.report", NULL, facts, reported, d);
}

/* Guests too are told again, where the state has them otherwise: of two reports on their way the older one may have
 * come last, and the manager goes by what the state says. */
static void on_report(void *arg)
{
	struct daemon *d = arg;

	daemon_report(d);
	agent_tell_all(d->agent);
}

/* The CPU of this host: QEMU is asked in a thread, it takes a fifth of a second. */
struct probe {
	struct daemon *d;
	char *qemu;
	enum accel_want accel;
	json_t *cpu, *catalogue;
	struct err e;
};

static void probed(void *arg)
{
	struct probe *p = arg;

	if (!p->cpu) {
		log_warning("event=cpu-probe error=\"%s\"", p->e.text);
	} else {
		p->d->cpu = p->cpu;
		p->d->catalogue = p->catalogue;
		daemon_report(p->d);
	}
	free(p->qemu);
	free(p);
}

static void *probe_thread(void *arg)
{
	struct probe *p = arg;

	baseline_probe(p->qemu, p->accel, &p->cpu, &p->catalogue, &p->e);
	loop_call(p->d->loop, probed, p);
	return NULL;
}

static void probe(struct daemon *d)
{
	struct probe *p = xcalloc(1, sizeof(*p));
	pthread_t thread;

	p->d = d;
	p->qemu = d->opt.qemu ? xstrdup(d->opt.qemu) : NULL;
	p->accel = d->opt.accel;
	if (pthread_create(&thread, NULL, probe_thread, p) == 0)
		pthread_detach(thread);
}

/* ---- timers and signals ---- */

static void tick(void *arg)
{
	struct daemon *d = arg;

	if (!d->replica)
		return;
	api_tick(d);
	moves_tick(d->moves);
	disks_look(d->disks);
	host_lease_look(d->lease);
	fencing_look(d->fencing);
	ha_manager_tick(d->ha);
	folders_tick(d->parts->folders);
	if (replica_synced(d->replica))
		daemon_look_untold(d);
}

static void on_renew(void *arg)
{
	struct daemon *d = arg;

	if (d->replica && replica_synced(d->replica))
		members_renew(d);
}

static void on_watchdog(void *arg)
{
	struct daemon *d = arg;

	notify_watchdog(&d->notify, NULL);
}

static void end(void *arg)
{
	struct daemon *d = arg;

	loop_stop(d->loop);
}

static void on_term(void *arg)
{
	struct daemon *d = arg;

	log_info("event=stop text=\"guests and moves go on\"");
	notify_stopping(&d->notify, NULL);
	if (d->lease)
		host_lease_freeze(d->lease, end, d);
	else
		end(d);
}

/* New certificates on disk. */
static void on_hup(void *arg)
{
	struct daemon *d = arg;
	_free_ char *dir = xasprintf("%s/pki", d->opt.config_dir);
	struct err e = ERR_INIT;

	if (!d->replica)
		return;
	if (http_reload_tls(d->http, dir, &e) < 0)
		log_error("event=reload error=\"%s\"", e.text);
	else
		log_info("event=reload");
}

static void on_usr1(void *arg)
{
	(void)arg;
	log_dump_ring(STDERR_FILENO);
}

static void on_restart(void *arg)
{
	struct daemon *d = arg;

	d->parts->restarting = true;
	loop_stop(d->loop);
}

void daemon_restart_soon(struct daemon *d)
{
	loop_timer_set(d->parts->restart, RESTART_AFTER);
}

/* ---- life ---- */

static int folder(const char *path, mode_t mode, struct err *e)
{
	_free_ char *part = xstrdup(path);

	for (char *p = part + 1; *p; p++)
		if (*p == '/') {
			*p = 0;
			if (mkdir(part, 0755) < 0 && errno != EEXIST)
				return err_sys(e, "folder %s", part);
			*p = '/';
		}
	if (mkdir(path, mode) < 0 && errno != EEXIST)
		return err_sys(e, "folder %s", path);
	return 0;
}

/* One daemon per run directory: the lock ends with the process, however that ends. */
static int lock(const struct daemon *d, struct err *e)
{
	_free_ char *path = xasprintf("%s/godwitd.lock", d->opt.run_dir);
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_sys(e, "%s", path);
	if (fcntl(fd, F_OFD_SETLK, &l) < 0)
		return errno == EAGAIN || errno == EACCES
			       ? err_set(e, ERR_CONFLICT,
					 "another godwitd runs with %s: stop it first, or give this one its own "
					 "--run-dir",
					 d->opt.run_dir)
			       : err_sys(e, "lock %s", path);
	return 0; /* held until the process ends */
}

static gid_t admin_group(const struct daemon *d, struct err *e)
{
	const struct group *g = getgrnam(d->opt.group ? d->opt.group : "godwit");

	if (!g && d->opt.group)
		err_set(e, ERR_INPUT, "--group %s: there is no such group", d->opt.group);
	return g ? g->gr_gid : 0;
}

static int start_http(struct daemon *d, struct err *e)
{
	_free_ char *path = xasprintf("%s/godwitd.sock", d->opt.run_dir);
	struct http_options o = {
		.loop = d->loop,
		.routes = http_api_routes,
		.n_routes = http_api_n_routes,
		.schemas = http_api_schemas,
		.n_schemas = http_api_n_schemas,
		.title = "Godwit",
		.version = GODWIT_VERSION,
		.identify = api_identify,
		.identify_arg = d,
		.metrics = d->metrics,
	};
	const char *unbound;
	gid_t gid;

	e->code = ERR_NONE;
	gid = admin_group(d, e);
	if (e->code)
		return -1;
	o.admin_gid = gid;
	d->http = http_server_new(&o);
	d->feed = http_feed_new(EVENTS_KEPT);
	api_bind(d);
	members_bind(d);
	unbound = http_unbound(d->http);
	if (unbound) {
		log_error("event=unbound operation=%s", unbound);
		abort();
	}
	return http_listen_unix(d->http, path, 0660, gid, e);
}

static int start_tls(struct daemon *d, struct err *e)
{
	_free_ char *dir = xasprintf("%s/pki", d->opt.config_dir), *any = xasprintf("[::]:%d", DAEMON_PORT);

	if (pki_dir_recover(dir, e) < 0)
		return -1;
	return http_listen_tls(d->http, d->opt.listen ? d->opt.listen : any, dir, e) < 0 ? -1 : 0;
}

static int cluster_id_make(struct daemon *d, struct err *e)
{
	_free_ char *path = xasprintf("%s/pki/ca.pem", d->opt.config_dir), *ca = file_read(path, PKI_PEM_MAX, NULL, e);
	uint8_t fingerprint[PKI_FINGERPRINT_SIZE];

	if (!ca || pki_fingerprint(ca, fingerprint, e) < 0)
		return -1;
	d->cluster_id = xcalloc(33, 1);
	hex_text(fingerprint, 16, d->cluster_id);
	return 0;
}

static void on_heard(void *arg, uint32_t node, const uint8_t *data, size_t size)
{
	struct daemon *d = arg;

	host_lease_heard(d->lease, node, data, size);
}

static void on_view(void *arg, const struct bus_view *view)
{
	struct daemon *d = arg;

	host_lease_view(d->lease, view);
}

static int start_replica(struct daemon *d, struct err *e)
{
	_free_ char *path = xasprintf("%s/state.db", d->opt.state_dir);
	struct replica_options o = {
		.bus = d->identity.n_addresses ? bus_corosync_new("godwit", (uint16_t)api_port(d))
					       : bus_local_new(d->identity.id),
		.machine = &state_machine,
		.path = path,
		.history = d->identity.history,
		.applied = on_applied,
		.changed = on_changed,
		.heard = on_heard,
		.view = on_view,
		.arg = d,
	};

	return replica_new(d->loop, &o, &d->replica, e);
}

static int start_agent(struct daemon *d, struct err *e)
{
	struct agent_calls calls = {.status = on_status, .result = on_result};
	struct agent_options o = {.run_dir = d->opt.run_dir,
				  .cluster = d->cluster_id,
				  .accel = accel_want_names[d->opt.accel],
				  .user = d->opt.user,
				  .qemu = d->opt.qemu};

	if (agent_new(&o, &calls, d, &d->agent, e) < 0)
		return -1;
	d->parts->agent_io = loop_io_add(d->loop, agent_fd(d->agent), LOOP_READ, on_agent_fd, d);
	return 0;
}

/* What a member does beyond answering. */
static int start_member(struct daemon *d, struct err *e)
{
	struct daemon_parts *p = d->parts;

	if (cluster_id_make(d, e) < 0 || start_tls(d, e) < 0)
		return -1;
	if (d->identity.n_addresses)
		ring_run(d->ring);
	if (start_agent(d, e) < 0 || moves_new(d, &d->moves, e) < 0)
		return -1;
	d->disks = disks_new(d);
	d->lease = host_lease_new(d);
	d->ha = ha_manager_new(d);
	d->fencing = fencing_new(d);
	d->parts->folders = folders_new(d);
	if (start_replica(d, e) < 0)
		return -1;
	daemon_look_agent(d); /* before its first look: our own guests are not foreign to it */
	probe(d);
	p->report = loop_timer_add(d->loop, REPORT_EVERY, REPORT_EVERY, on_report, d);
	p->renew = loop_timer_add(d->loop, 60 * NS_PER_S, RENEW_EVERY, on_renew, d);
	return 0;
}

static int start(struct daemon *d, struct err *e)
{
	_free_ char *identity = xasprintf("%s/node.json", d->opt.state_dir);
	struct ring_options ring = {.mode = d->opt.corosync, .dir = d->opt.corosync_dir, .run_dir = d->opt.run_dir};
	struct daemon_parts *p = d->parts;

	if (folder(d->opt.run_dir, 0755, e) < 0 || folder(d->opt.state_dir, 0700, e) < 0 ||
	    folder(d->opt.config_dir, 0755, e) < 0 || folder(d->opt.corosync_dir, 0755, e) < 0 || lock(d, e) < 0 ||
	    identity_read(identity, &d->identity, e) < 0 || notify_open(&d->notify, e) < 0)
		return -1;
	d->loop = loop_new();
	d->metrics = metrics_new();
	d->ring = ring_new(d->loop, &ring);
	p->look = loop_timer_add(d->loop, -1, 0, daemon_look, d);
	p->restart = loop_timer_add(d->loop, -1, 0, on_restart, d);
	p->tick = loop_timer_add(d->loop, TICK_EVERY, TICK_EVERY, tick, d);
	p->term = loop_signal_add(d->loop, SIGTERM, on_term, d);
	p->interrupt = loop_signal_add(d->loop, SIGINT, on_term, d);
	p->hup = loop_signal_add(d->loop, SIGHUP, on_hup, d);
	p->usr1 = loop_signal_add(d->loop, SIGUSR1, on_usr1, d);
	if (d->notify.watchdog_ns > 0)
		p->watchdog = loop_timer_add(d->loop, 0, d->notify.watchdog_ns, on_watchdog, d);
	if (start_http(d, e) < 0)
		return -1;
	return identity_is_set(&d->identity) ? start_member(d, e) : 0;
}

static void stop(struct daemon *d)
{
	struct daemon_parts *p = d->parts;

	loop_io_free(p->agent_io);
	replica_free(steal_ptr(d->replica)); /* answers what waits, so what is to be told must still be there */
	http_server_free(d->http);
	api_done(d);
	http_feed_free(d->feed);
	moves_free(d->moves);
	host_lease_free(d->lease);
	fencing_free(d->fencing);
	disks_free(d->disks);
	folders_free(p->folders);
	ha_manager_free(d->ha);
	agent_free(d->agent);
	ring_free(d->ring);
	loop_timer_free(p->look);
	loop_timer_free(p->report);
	loop_timer_free(p->tick);
	loop_timer_free(p->renew);
	loop_timer_free(p->watchdog);
	loop_timer_free(p->restart);
	loop_signal_free(p->term);
	loop_signal_free(p->interrupt);
	loop_signal_free(p->hup);
	loop_signal_free(p->usr1);
	notify_close(&d->notify);
	metrics_free(d->metrics);
	json_decref(p->judged);
	json_decref(p->changed);
	json_decref(p->untold);
	json_decref(d->cpu);
	json_decref(d->catalogue);
	free(d->cluster_id);
	if (d->loop)
		loop_free(d->loop);
}

int daemon_run(const struct daemon_options *o, struct err *e)
{
	struct daemon_parts parts = {.judged = json_object(), .changed = json_object(), .untold = json_object()};
	struct daemon d = {.opt = *o, .notify = NOTIFY_INIT, .parts = &parts};
	int r;

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < ARRAY_SIZE(notify_variables); i++)
		parts.notify_values[i] = getenv(notify_variables[i]) ? xstrdup(getenv(notify_variables[i])) : NULL;
	r = start(&d, e);
	if (r == 0) {
		log_info("event=start version=%s node=%s cluster=%s", GODWIT_VERSION,
			 identity_is_set(&d.identity) ? d.identity.node : "-",
			 identity_is_set(&d.identity) ? d.identity.cluster : "-");
		notify_ready(&d.notify, "ready", NULL);
		r = loop_run(d.loop) < 0 ? err_sys(e, "event loop") : 0;
	}
	stop(&d);
	for (size_t i = 0; i < ARRAY_SIZE(notify_variables); i++) {
		if (parts.notify_values[i])
			setenv(notify_variables[i], parts.notify_values[i], 1);
		free(parts.notify_values[i]);
	}
	if (r == 0 && parts.restarting) {
		_free_ char *self =
			agent_program_beside("godwitd"); /* by its path: after an upgrade that is the new one */

		execv(self, o->argv);
		return err_sys(e, "start %s afresh", self);
	}
	return r;
}
