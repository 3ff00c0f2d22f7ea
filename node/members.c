/* SPDX-License-Identifier: Apache-2.0 */
/* Founding a cluster, letting a host in, leaving.
 *
 * Each of them writes files in an order in which a crash at any point leaves either what was before or what was meant:
 * node.json, which makes a host a member, is always the last. Then the daemon starts afresh and does the rest from what
 * it finds.
 *
 *   init    CA, certificate, corosync's key and configuration, node.json (which asks for a new database). The next
 * start makes the database, leads, and writes itself into the state. join    on the new host, in a thread of its own,
 * as the other side may take seconds: request, answer, checks. Then certificate, corosync, node.json. The next start
 * finds corosync's ring and gets the state from the others. join    on the member: token, names and addresses are
 * judged here for a good sentence, and again by the command node.join, which uses the token up and in which two hosts
 * that join at once cannot both win. Then corosync.conf, by every member (node/ring.h); the answer waits for that.
 *   remove  node.remove, then corosync.conf likewise. The host that is out finds out by itself, or never comes back.
 */
#include "node/members.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hex.h"
#include "base/http-client.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "cluster/state.h"
#include "node/join.h"
#include "node/membership.h"
#include "node/pki-dir.h"
#include "node/pki.h"

#define JOIN_LIMIT (60 * NS_PER_S)
#define _key_ __attribute__((cleanup(pki_key_freep)))

static int64_t wall_s(void)
{
	return clock_wall_ms() / 1000;
}

static char *path_in(const char *dir, const char *name)
{
	return xasprintf("%s/%s", dir, name);
}

static char *pki_dir(const struct daemon *d)
{
	return path_in(d->opt.config_dir, "pki");
}

/* ---- what init and join have in common ---- */

/* A host that has been in a cluster, or is in one, must not become somebody else by accident. */
static int must_be_new(const struct daemon *d, struct err *e)
{
	_free_ char *db = path_in(d->opt.state_dir, "state.db");

	if (identity_is_set(&d->identity))
		return err_set(e, ERR_CONFLICT, "this host is node %s of cluster %s already", d->identity.node,
			       d->identity.cluster);
	if (access(db, F_OK) == 0)
		return err_set(e, ERR_CONFLICT,
			       "%s is the state of a cluster that this host was in; move it away first", db);
	return 0;
}

static int addresses_read(const json_t *list, struct identity *ret, struct err *e)
{
	json_t *v;
	size_t i;

	json_array_foreach (list, i, v) {
		if (address_parse(json_string_value(v), ret->addresses[i], e) < 0)
			return -1;
		for (size_t k = 0; k < i; k++)
			if (!strcmp(ret->addresses[i], ret->addresses[k]))
				return err_set(e, ERR_INPUT, "address %s is given twice", ret->addresses[i]);
	}
	ret->n_addresses = json_array_size(list);
	return 0;
}

static void address_list(const struct identity *id, const char *ret[COROSYNC_LINKS_MAX])
{
	for (size_t i = 0; i < id->n_addresses; i++)
		ret[i] = id->addresses[i];
}

/* The last file: this host is a member from now on. */
static int become(const struct daemon *d, const struct identity *id, struct err *e)
{
	_free_ char *path = path_in(d->opt.state_dir, "node.json");

	return identity_write(path, id, e);
}

/* ---- init ---- */

static int init_pki(const struct daemon *d, const struct identity *id, struct err *e)
{
	_free_ char *dir = pki_dir(d), *ca = NULL, *request = NULL, *cert = NULL;
	_key_ char *ca_key = NULL;
	_key_ char *key = NULL;
	const char *addresses[COROSYNC_LINKS_MAX];

	address_list(id, addresses);
	if (pki_ca_make(id->cluster, wall_s(), &ca_key, &ca, e) < 0 ||
	    pki_request_make(id->node, &key, &request, e) < 0 ||
	    pki_node_issue(ca_key, ca, request, id->node, addresses, id->n_addresses, wall_s(), &cert, e) < 0)
		return -1;
	return pki_ca_key_write(dir, ca_key, e) < 0 ? -1 : pki_dir_write(dir, ca, cert, key, (gid_t)-1, e);
}

static int init_ring(const struct daemon *d, struct identity *id, const json_t *body, struct err *e)
{
	const char *qdevice = json_string_value(json_object_get(body, "qdevice"));
	json_int_t token_ms = json_integer_value(json_object_get(body, "token_ms"));
	struct corosync_conf c = {.version = 1,
				  .token_ms = token_ms ? (unsigned)token_ms : COROSYNC_TOKEN_MS,
				  .n_links = id->n_addresses,
				  .n_nodes = 1};
	uint8_t key[COROSYNC_KEY_SIZE];
	int r;

	if (!id->n_addresses)
		return qdevice ? err_set(e, ERR_INPUT, "a qdevice needs corosync: give this host's addresses as well")
			       : 0;
	snprintf(c.cluster, sizeof(c.cluster), "%s", id->cluster);
	snprintf(c.qdevice, sizeof(c.qdevice), "%s", qdevice ? qdevice : "");
	strcpy(id->qdevice, c.qdevice); /* corosync.conf names it once there are hosts for it to choose between */
	c.nodes[0].id = id->id;
	snprintf(c.nodes[0].name, sizeof(c.nodes[0].name), "%s", id->node);
	memcpy(c.nodes[0].addresses, id->addresses, sizeof(id->addresses));
	r = corosync_key_make(key, e) < 0 ? -1 : ring_write(d->ring, &c, key, e);
	explicit_bzero(key, sizeof(key));
	return r;
}

static int init(struct daemon *d, const json_t *body, struct identity *id, struct err *e)
{
	const char *cluster = json_string_value(json_object_get(body, "name"));
	const char *node = json_string_value(json_object_get(body, "node"));

	if (must_be_new(d, e) < 0 || name_check("cluster name", cluster, e) < 0 || name_check("node name", node, e) < 0)
		return -1;
	if (strlen(cluster) > PKI_CLUSTER_NAME_MAX)
		return err_set(e, ERR_INPUT, "cluster name %s is too long: at most %d characters", cluster,
			       PKI_CLUSTER_NAME_MAX);
	strcpy(id->cluster, cluster);
	strcpy(id->node, node);
	id->id = 1;
	do
		if (RAND_bytes((unsigned char *)&id->history, sizeof(id->history)) != 1)
			return err_set(e, ERR_SYSTEM, "no random numbers");
	while (!id->history);
	if (addresses_read(json_object_get(body, "addresses"), id, e) < 0 || init_pki(d, id, e) < 0 ||
	    init_ring(d, id, body, e) < 0)
		return -1;
	return become(d, id, e);
}

/* What /v1/cluster will say after the restart, as far as it is known. */
static json_t *starting_json(const struct identity *id)
{
	return json_pack("{s:s, s:s, s:s, s:b, s:[s]}", "name", id->cluster, "node", id->node, "state", "starting",
			 "quorate", 0, "members", id->node);
}

static void on_init(struct http_call *call, void *arg)
{
	struct daemon *d = arg;
	struct identity id = {0};
	struct err e = ERR_INIT;

	if (init(d, http_call_body(call), &id, &e) < 0) {
		http_reply_err(call, &e, NULL);
		return;
	}
	log_info("event=cluster-init cluster=%s node=%s links=%zu by=%s", id.cluster, id.node, id.n_addresses,
		 http_call_identity(call)->name);
	http_reply(call, 201, starting_json(&id));
	daemon_restart_soon(d);
}

void members_found(struct daemon *d)
{
	_free_ char *dir = pki_dir(d), *cert_path = path_in(dir, "cert.pem"), *cert = NULL, *conf_path = NULL,
		    *conf = NULL;
	json_t *addresses = json_array();
	char fingerprint[2 * PKI_FINGERPRINT_SIZE + 1];
	struct corosync_conf c;
	struct pki_info info;
	struct err e = ERR_INIT;

	cert = file_read(cert_path, PKI_PEM_MAX, NULL, &e);
	if (!cert || pki_info_read(cert, &info, &e) < 0) {
		log_error("event=cluster-found error=\"%s\"", e.text);
		json_decref(addresses);
		return;
	}
	hex_text(info.fingerprint, sizeof(info.fingerprint), fingerprint);
	for (size_t i = 0; i < d->identity.n_addresses; i++)
		json_array_append_new(addresses, json_string(d->identity.addresses[i]));
	conf_path = path_in(d->opt.corosync_dir, "corosync.conf");
	conf = d->identity.n_addresses ? file_read(conf_path, COROSYNC_TEXT_MAX, NULL, NULL) : NULL;
	if (!conf || corosync_conf_parse(conf, &c, NULL) < 0)
		c = (struct corosync_conf){.token_ms = COROSYNC_TOKEN_MS};
	if (c.token_ms != COROSYNC_TOKEN_MS)
		daemon_propose(d, "setting.set", NULL,
			       json_pack("{s:s, s:i}", "key", RING_SETTING_TOKEN_MS, "value", (int)c.token_ms), NULL,
			       NULL);
	if (d->identity.qdevice[0])
		daemon_propose(d, "setting.set", NULL,
			       json_pack("{s:s, s:s}", "key", RING_SETTING_QDEVICE, "value", d->identity.qdevice), NULL,
			       NULL);
	daemon_propose(d, "node.join", NULL,
		       json_pack("{s:s, s:i, s:o, s:s}", "name", d->identity.node, "id", (int)d->identity.id,
				 "addresses", addresses, "fingerprint", fingerprint),
		       NULL, NULL);
}

/* ---- join, on the new host ---- */

struct asking {
	struct daemon *d;
	struct http_call *call;
	struct token token;
	char *host; /* where to ask, if not where the token says */
	struct identity id;
	char *key;
	struct join_request request;
	struct join_answer answer;
	struct corosync_conf conf;
	bool failed;
	struct err e;
};

static void asking_free(struct asking *a)
{
	free(a->host);
	pki_key_free(a->key);
	join_request_done(&a->request);
	join_answer_done(&a->answer);
	explicit_bzero(&a->token, sizeof(a->token));
	free(a);
}

/* The address of ours from which @host is reached: what a person would have given. */
static int address_towards(const struct sock_addr *host, char ret[ADDRESS_TEXT_MAX], struct err *e)
{
	_closefd_ int fd = sock_tcp_connect(host, clock_now_ns() + 10 * NS_PER_S, e);
	struct sockaddr_storage ours = {0};
	socklen_t n = sizeof(ours);
	char text[ADDRESS_TEXT_MAX] = "";

	if (fd < 0)
		return -1;
	if (getsockname(fd, (struct sockaddr *)&ours, &n) < 0)
		return err_sys(e, "getsockname");
	if (ours.ss_family == AF_INET)
		inet_ntop(AF_INET, &((struct sockaddr_in *)&ours)->sin_addr, text, sizeof(text));
	else
		inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&ours)->sin6_addr, text, sizeof(text));
	return address_parse(text, ret, e);
}

/* The first line of what a program prints, cut to fit. */
static void version_of(const char *const *argv, char *ret, size_t size)
{
	_free_ char *out = NULL;

	snprintf(ret, size, "unknown");
	if (child_run(argv, clock_now_ns() + 5 * NS_PER_S, 4096, &out, NULL) < 0 || !out)
		return;
	out[strcspn(out, "\n")] = 0;
	if (*out)
		snprintf(ret, size, "%s", out);
}

static int request_fill(struct asking *a, struct err *e)
{
	static const char *const corosync[] = {"corosync", "-v", NULL};
	static const char *const qemu[] = {"qemu-system-x86_64", "--version", NULL};
	struct join_request *r = &a->request;

	if (!a->id.n_addresses) {
		if (address_towards(&a->token.host, a->id.addresses[0], e) < 0)
			return -1;
		a->id.n_addresses = 1;
	}
	r->pass = a->token;
	strcpy(r->name, a->id.node);
	memcpy(r->addresses, a->id.addresses, sizeof(r->addresses));
	r->n_addresses = a->id.n_addresses;
	snprintf(r->godwit, sizeof(r->godwit), "%s", GODWIT_VERSION);
	version_of(corosync, r->corosync, sizeof(r->corosync));
	version_of(qemu, r->qemu, sizeof(r->qemu));
	r->command = STATE_COMMAND_VERSION;
	r->clock_ms = clock_wall_ms();
	return pki_request_make(a->id.node, &a->key, &r->request, e);
}

static int ask(struct asking *a, struct err *e)
{
	char host[300];
	struct http_client_options o = {.address = a->host ? a->host : host, .ca_digest = a->token.ca_hash};
	bool v6 = strchr(a->token.host.host, ':');
	struct http_client *client;
	struct http_answer answer = {0};
	json_t *body;
	int r;

	snprintf(host, sizeof(host), v6 ? "[%s]:%s" : "%s:%s", a->token.host.host, a->token.host.port);
	if (request_fill(a, e) < 0)
		return -1;
	client = http_client_new(&o, e);
	if (!client)
		return -1;
	body = join_request_json(&a->request);
	r = http_client_call(client, "POST", "/v1/join", body, NULL, clock_now_ns() + JOIN_LIMIT, &answer, e);
	json_decref(body);
	if (r == 0 && answer.status >= 400)
		r = http_answer_error(&answer, e);
	if (r == 0)
		r = join_answer_parse(answer.json, &a->answer, e);
	if (r == 0)
		r = join_answer_check(&a->answer, &a->request, &a->token, a->key, clock_wall_ms(), &a->conf, e);
	http_answer_done(&answer);
	http_client_free(client);
	return r < 0 ? err_wrap(e, "ask %s to let us in", o.address) : 0;
}

static int asked(struct asking *a, struct err *e)
{
	struct daemon *d = a->d;
	_free_ char *dir = pki_dir(d);

	if (a->failed) {
		*e = a->e;
		return -1;
	}
	strcpy(a->id.cluster, a->answer.cluster);
	a->id.id = a->answer.id;
	if (must_be_new(d, e) < 0 || pki_ca_key_write(dir, a->answer.ca_key, e) < 0 ||
	    pki_dir_write(dir, a->answer.ca, a->answer.certificate, a->key, (gid_t)-1, e) < 0 ||
	    ring_write(d->ring, &a->conf, a->answer.corosync_key, e) < 0)
		return -1;
	return become(d, &a->id, e);
}

static void on_asked(void *arg)
{
	struct asking *a = arg;
	struct daemon *d = a->d;
	struct err e = ERR_INIT;

	d->busy = false;
	if (asked(a, &e) < 0) {
		log_error("event=cluster-join error=\"%s\"", e.text);
		http_reply_err(a->call, &e, NULL);
	} else {
		log_info("event=cluster-join cluster=%s node=%s id=%u", a->id.cluster, a->id.node, a->id.id);
		http_reply(a->call, 200, starting_json(&a->id));
		daemon_restart_soon(d);
	}
	asking_free(a);
}

static void *ask_thread(void *arg)
{
	struct asking *a = arg;

	a->failed = ask(a, &a->e) < 0;
	loop_call(a->d->loop, on_asked, a);
	return NULL;
}

static int ask_begin(struct asking *a, const json_t *body, struct err *e)
{
	const char *node = json_string_value(json_object_get(body, "node"));
	const char *host = json_string_value(json_object_get(body, "host"));
	pthread_t thread;

	if (a->d->busy)
		return err_set(e, ERR_UNAVAILABLE, "this host is being joined to a cluster already; wait for that");
	if (must_be_new(a->d, e) < 0 || name_check("node name", node, e) < 0 ||
	    token_decode(json_string_value(json_object_get(body, "token")), &a->token, e) < 0 ||
	    addresses_read(json_object_get(body, "addresses"), &a->id, e) < 0)
		return -1;
	strcpy(a->id.node, node);
	if (host) {
		a->host = xstrdup(host);
		if (sock_addr_parse(host, &a->token.host, e) < 0)
			return -1;
	}
	errno = pthread_create(&thread, NULL, ask_thread, a);
	if (errno)
		return err_sys(e, "start a thread");
	pthread_detach(thread);
	a->d->busy = true;
	return 0;
}

static void on_cluster_join(struct http_call *call, void *arg)
{
	struct asking *a = xcalloc(1, sizeof(*a));
	struct err e = ERR_INIT;

	a->d = arg;
	a->call = call;
	if (ask_begin(a, http_call_body(call), &e) == 0)
		return;
	http_reply_err(call, &e, NULL);
	asking_free(a);
}

/* ---- join, on a member ---- */

/* The cluster for membership.h; the json_t keeps what it points to alive. */
struct snapshot {
	json_t *nodes;
	struct member members[COROSYNC_NODES_MAX];
	const char *addresses[COROSYNC_NODES_MAX][COROSYNC_LINKS_MAX];
	struct membership m;
};

static int snapshot_take(const struct daemon *d, struct snapshot *s, struct err *e)
{
	struct sqlite3 *db = replica_db(d->replica);
	json_t *ring, *qdevice, *node, *address;
	size_t i, k;

	*s = (struct snapshot){.nodes = state_node_list(db, e)};
	ring = s->nodes ? state_setting_get(db, STATE_SETTING_RING, e) : NULL;
	if (!ring || json_array_size(s->nodes) > COROSYNC_NODES_MAX)
		return -1;
	qdevice = state_setting_get(db, RING_SETTING_QDEVICE, NULL);
	json_array_foreach (s->nodes, i, node) {
		struct member *m = &s->members[i];

		m->id = (unsigned)json_integer_value(json_object_get(node, "id"));
		m->name = json_string_value(json_object_get(node, "name"));
		m->addresses = s->addresses[i];
		m->online = replica_member(d->replica, m->id);
		m->guests = (unsigned)json_integer_value(json_object_get(node, "vms"));
		json_array_foreach (json_object_get(node, "addresses"), k, address)
			s->addresses[i][k] = json_string_value(address);
		s->m.n_links = json_array_size(json_object_get(node, "addresses"));
	}
	s->m.members = s->members;
	s->m.n = json_array_size(s->nodes);
	s->m.highest_id = (unsigned)json_integer_value(json_object_get(ring, "value"));
	s->m.command = STATE_COMMAND_VERSION;
	s->m.qdevice = qdevice != NULL;
	s->m.qdevice_online = qdevice != NULL;
	json_decref(ring);
	json_decref(qdevice);
	return 0;
}

/* A host that is let in. */
struct letting {
	struct daemon *d;
	struct http_call *call;
	struct join_request request;
	unsigned id;
	char *certificate;
};

static void letting_free(struct letting *l)
{
	join_request_done(&l->request);
	free(l->certificate);
	free(l);
}

static void letting_fail(struct letting *l, const struct err *e)
{
	log_warning("event=join-refused node=%s from=%s error=\"%s\"", l->request.name,
		    http_call_identity(l->call)->from, e->text);
	http_reply_err(l->call, e, l->request.name);
	letting_free(l);
}

/* The last part: corosync knows the new host, so it may come. */
static void let_in(void *arg)
{
	struct letting *l = arg;
	struct daemon *d = l->d;
	struct join_answer a = {.id = l->id, .certificate = l->certificate, .clock_ms = clock_wall_ms()};
	_free_ char *dir = pki_dir(d), *ca_path = path_in(dir, "ca.pem");
	struct corosync_local local = {.key_path = "/etc/corosync/authkey", .to_syslog = true};
	struct corosync_conf conf;
	struct err e = ERR_INIT;
	json_t *answer = NULL;

	strcpy(a.cluster, d->identity.cluster);
	a.ca = file_read(ca_path, PKI_PEM_MAX, NULL, &e);
	a.ca_key = a.ca ? pki_ca_key_read(dir, &e) : NULL;
	if (a.ca_key && ring_key_read(d->ring, a.corosync_key, &e) == 0 &&
	    ring_conf(replica_db(d->replica), d->identity.cluster, &conf, &e) == 0)
		a.corosync_conf = corosync_conf_text(&conf, &local, &e);
	if (a.corosync_conf)
		answer = join_answer_json(&a);
	a.certificate = NULL; /* the letting's */
	join_answer_done(&a);
	if (!answer) {
		letting_fail(l, &e);
		return;
	}
	log_info("event=node-joined node=%s id=%u", l->request.name, l->id);
	http_reply(l->call, 200, answer);
	letting_free(l);
}

static void on_joined(void *arg, const json_t *result, const struct err *e)
{
	struct letting *l = arg;
	struct daemon *d = l->d;
	struct corosync_conf conf;
	struct err why = ERR_INIT;

	(void)result;
	if (e) {
		letting_fail(l, e);
		return;
	}
	if (ring_conf(replica_db(d->replica), d->identity.cluster, &conf, &why) < 0)
		letting_fail(l, &why);
	else
		ring_follow(d->ring, &conf, let_in, l);
}

static int token_judge(const struct daemon *d, const struct token *t, char ret_hash[2 * TOKEN_HASH_SIZE + 1],
		       struct err *e)
{
	struct token_record record = {0};
	json_t *o;
	int r;

	token_hash(t, record.hash);
	hex_text(record.hash, sizeof(record.hash), ret_hash);
	o = state_token_get(replica_db(d->replica), ret_hash, NULL);
	record.expires_s = json_integer_value(json_object_get(o, "expires")) / 1000;
	record.used = json_is_integer(json_object_get(o, "used"));
	r = token_check(t, o ? &record : NULL, wall_s(), e);
	json_decref(o);
	return r;
}

static int let_begin(struct letting *l, struct err *e)
{
	struct daemon *d = l->d;
	_free_ char *dir = pki_dir(d), *ca_path = path_in(dir, "ca.pem"), *ca = NULL;
	_key_ char *ca_key = NULL;
	char hash[2 * TOKEN_HASH_SIZE + 1], fingerprint[2 * PKI_FINGERPRINT_SIZE + 1];
	struct pki_info info;
	struct snapshot s;
	const char *addresses[COROSYNC_LINKS_MAX];
	json_t *list = json_array();
	int r;

	for (size_t i = 0; i < l->request.n_addresses; i++) {
		addresses[i] = l->request.addresses[i];
		json_array_append_new(list, json_string(addresses[i]));
	}
	ca = file_read(ca_path, PKI_PEM_MAX, NULL, e);
	ca_key = ca ? pki_ca_key_read(dir, e) : NULL;
	r = ca_key ? token_judge(d, &l->request.pass, hash, e) : -1;
	if (r == 0) {
		r = snapshot_take(d, &s, e);
		if (r == 0)
			r = membership_add(&s.m, &l->request, clock_wall_ms(), &l->id, e);
		json_decref(s.nodes);
	}
	if (r == 0)
		r = pki_node_issue(ca_key, ca, l->request.request, l->request.name, addresses, l->request.n_addresses,
				   wall_s(), &l->certificate, e);
	if (r < 0 || pki_info_read(l->certificate, &info, e) < 0) {
		json_decref(list);
		return -1;
	}
	hex_text(info.fingerprint, sizeof(info.fingerprint), fingerprint);
	daemon_propose(d, "node.join", http_call_id(l->call),
		       json_pack("{s:s, s:i, s:o, s:s, s:s}", "name", l->request.name, "id", (int)l->id, "addresses",
				 list, "fingerprint", fingerprint, "token", hash),
		       on_joined, l);
	return 0;
}

static void on_join(struct http_call *call, void *arg)
{
	struct daemon *d = arg;
	struct letting *l = xcalloc(1, sizeof(*l));
	struct err e = ERR_INIT;
	int r = 0;

	l->d = d;
	l->call = call;
	if (!d->replica || !replica_synced(d->replica))
		r = err_set(&e, ERR_UNAVAILABLE,
			    "node %s is not in the quorate part of its cluster now; ask another member, "
			    "or later",
			    d->identity.node);
	else if (!d->identity.n_addresses)
		r = err_set(&e, ERR_CONFLICT,
			    "cluster %s was made without addresses, for one host alone, and cannot take "
			    "others in: make it again with --address",
			    d->identity.cluster);
	if (r < 0 || join_request_parse(http_call_body(call), &l->request, &e) < 0 || let_begin(l, &e) < 0)
		letting_fail(l, &e);
}

/* ---- remove ---- */

struct removal {
	struct daemon *d;
	struct http_call *call;
	char *name;
};

static void removed(void *arg)
{
	struct removal *r = arg;

	log_info("event=node-removed node=%s by=%s", r->name, http_call_identity(r->call)->name);
	http_reply(r->call, 200, json_pack("{s:s}", "removed", r->name));
	free(r->name);
	free(r);
}

static void on_remove_applied(void *arg, const json_t *result, const struct err *e)
{
	struct removal *r = arg;
	struct corosync_conf conf;
	struct err why = ERR_INIT;

	(void)result;
	if (!e && ring_conf(replica_db(r->d->replica), r->d->identity.cluster, &conf, &why) < 0)
		e = &why;
	if (!e) {
		ring_follow(r->d->ring, &conf, removed, r);
		return;
	}
	http_reply_err(r->call, e, r->name);
	free(r->name);
	free(r);
}

static void on_remove(struct http_call *call, void *arg)
{
	struct daemon *d = arg;
	const char *name = http_call_param(call, "name"), *force = http_call_query(call, "force");
	struct err e = ERR_INIT;
	struct removal *r;
	struct snapshot s = {0};
	int ok;

	if (!d->replica) {
		err_set(&e, ERR_UNAVAILABLE, "this host belongs to no cluster");
		http_reply_err(call, &e, name);
		return;
	}
	ok = snapshot_take(d, &s, &e);
	if (ok == 0)
		ok = membership_remove(&s.m, name, force && !strcmp(force, "true"), &e);
	json_decref(s.nodes);
	if (ok < 0) {
		http_reply_err(call, &e, name);
		return;
	}
	r = xcalloc(1, sizeof(*r));
	*r = (struct removal){.d = d, .call = call, .name = xstrdup(name)};
	daemon_propose_for(d, call, "node.remove", json_pack("{s:s}", "name", name), on_remove_applied, r);
}

/* ---- renewal ---- */

struct renewal {
	struct daemon *d;
	char *ca, *cert, *key;
};

static void renewal_free(struct renewal *r)
{
	free(r->ca);
	free(r->cert);
	pki_key_free(r->key);
	free(r);
}

/* The state knows the new certificate: use it. */
static void on_renewed(void *arg, const json_t *result, const struct err *e)
{
	struct renewal *r = arg;
	_free_ char *dir = pki_dir(r->d);
	struct err why = ERR_INIT;

	(void)result;
	if (!e && (pki_dir_write(dir, r->ca, r->cert, r->key, (gid_t)-1, &why) < 0 ||
		   http_reload_tls(r->d->http, dir, &why) < 0))
		e = &why;
	if (e)
		log_error("event=certificate-renewal error=\"%s\" text=\"tried again tomorrow\"", e->text);
	else
		log_info("event=certificate-renewed node=%s", r->d->identity.node);
	renewal_free(r);
}

static int renew_begin(struct renewal *r, struct err *e)
{
	struct daemon *d = r->d;
	_free_ char *dir = pki_dir(d), *ca_path = path_in(dir, "ca.pem"), *cert_path = path_in(dir, "cert.pem");
	_free_ char *old = file_read(cert_path, PKI_PEM_MAX, NULL, e), *request = NULL;
	_key_ char *ca_key = NULL;
	char fingerprint[2 * PKI_FINGERPRINT_SIZE + 1];
	const char *addresses[COROSYNC_LINKS_MAX];
	struct pki_info ca, mine;

	r->ca = old ? file_read(ca_path, PKI_PEM_MAX, NULL, e) : NULL;
	if (!r->ca || pki_info_read(old, &mine, e) < 0 || pki_info_read(r->ca, &ca, e) < 0)
		return -1;
	if (!pki_renew_due(&mine, ca.until_s, wall_s(), d->identity.id))
		return 0;
	address_list(&d->identity, addresses);
	ca_key = pki_ca_key_read(dir, e);
	if (!ca_key || pki_request_make(d->identity.node, &r->key, &request, e) < 0 ||
	    pki_node_issue(ca_key, r->ca, request, d->identity.node, addresses, d->identity.n_addresses, wall_s(),
			   &r->cert, e) < 0 ||
	    pki_info_read(r->cert, &mine, e) < 0)
		return -1;
	hex_text(mine.fingerprint, sizeof(mine.fingerprint), fingerprint);
	daemon_propose(d, "node.edit", NULL,
		       json_pack("{s:s, s:s}", "name", d->identity.node, "fingerprint", fingerprint), on_renewed, r);
	return 1;
}

void members_renew(struct daemon *d)
{
	struct renewal *r = xcalloc(1, sizeof(*r));
	struct err e = ERR_INIT;
	int begun;

	r->d = d;
	begun = renew_begin(r, &e);
	if (begun < 0)
		log_error("event=certificate-renewal error=\"%s\" text=\"tried again tomorrow\"", e.text);
	if (begun <= 0)
		renewal_free(r);
}

void members_bind(struct daemon *d)
{
	http_bind(d->http, "cluster_init", on_init, d);
	http_bind(d->http, "cluster_join", on_cluster_join, d);
	http_bind(d->http, "join", on_join, d);
	http_bind(d->http, "node_remove", on_remove, d);
}
