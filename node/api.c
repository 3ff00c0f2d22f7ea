/* SPDX-License-Identifier: Apache-2.0 */
/* What godwitd answers over HTTP: who asks, reading and writing the state, events, the ends of tasks.
 *
 * A read is answered by this host out of its own copy of the state, also while it is cut off; so every answer says how
 * old that copy is. A write becomes one or two commands for the log and is answered when a majority has them. Commands
 * have the id of the request, so a client that got no answer asks again with the same Idempotency-Key, here or at
 * another host, and gets the answer of the first time.
 *
 * Long actions are tasks. What is done about them is not driven by the task: the command that goes before it changes
 * what the state wants, agents and movers make it so, and node/tasks.c tells when that has happened.
 *
 * Events are the state's own, by their numbers, which are the same on every host: a reader who loses one host goes on
 * at another where it was.
 */
#include "node/api.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/uuid.h"
#include "cluster/sql.h"
#include "cluster/state.h"
#include "node/api-int.h"
#include "node/pki.h"
#include "node/tasks.h"

#define EVENTS_AT_ONCE 4096
#define TASKS_EVERY 30 /* ticks between two looks at all open tasks, for an end whose proposal was lost */

const char *api_text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

/* ---- refusals ---- */

/* Where to look for what is there instead of what was asked for; NULL: the text says it, or there is no such list. */
static const char *list_for(const struct err *e)
{
	static const char *const kinds[] = {"vm", "node", "network", "migration", "task", "user"};
	size_t n = strcspn(e->text, " ");

	if (e->code != ERR_NOTFOUND || strchr(e->text, '`'))
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strlen(kinds[i]) == n && !strncmp(e->text, kinds[i], n))
			return strncmp(e->text, "vm version ", 11) == 0 ? "vm versions" : kinds[i];
	return NULL;
}

void api_refuse(struct http_call *call, const struct err *e, const char *object)
{
	const char *list = list_for(e);
	struct err more = *e;

	if (list && !strcmp(list, "vm versions"))
		err_set(&more, e->code, "%s; `godwit vm versions` shows those that are kept", e->text);
	else if (list)
		err_set(&more, e->code, "%s; `godwit %s list` shows those that are there", e->text, list);
	http_reply_err(call, &more, object);
}

/* ---- who asks ---- */

static enum http_role role_find(const char *name)
{
	for (int i = 0; i < HTTP_ROLE_MAX; i++)
		if (!strcmp(http_role_names[i], name))
			return (enum http_role)i;
	return HTTP_ROLE_NONE;
}

/* Take name and role of a user of the state; takes @user. */
static int user_take(json_t *user, char *ret_name, enum http_role *ret_role)
{
	snprintf(ret_name, HTTP_NAME_MAX, "%s", api_text(user, "name"));
	*ret_role = role_find(api_text(user, "role"));
	json_decref(user);
	return 0;
}

static int identify_token(struct daemon *d, const char *digest, char *ret_name, enum http_role *ret_role, struct err *e)
{
	struct err why = ERR_INIT;
	json_t *user = state_user_by_token_hash(replica_db(d->replica), digest, &why);

	if (user)
		return user_take(user, ret_name, ret_role);
	if (why.code != ERR_NOTFOUND)
		return err_set(e, why.code, "%s", why.text);
	return err_set(e, ERR_AUTH, "nobody has this token; `godwit user create` makes one");
}

/* A node is known by its very certificate, so that one that was removed is a stranger; a user by name, as the CA
 * vouches for that. */
static int identify_certificate(struct daemon *d, const struct http_credential *c, const char *digest, char *ret_name,
				enum http_role *ret_role, struct err *e)
{
	struct sqlite3 *db = replica_db(d->replica);
	json_t *node = state_node_by_fingerprint(db, digest, NULL), *user = NULL;
	struct pki_info info;

	if (node) {
		snprintf(ret_name, HTTP_NAME_MAX, "node %s", api_text(node, "name"));
		*ret_role = HTTP_ROLE_ADMIN;
		json_decref(node);
		return 0;
	}
	if (pki_info_of(c->cert, &info, e) < 0)
		return -1;
	if (info.role != PKI_ROLE_NONE && info.role != PKI_ROLE_NODE)
		user = state_user_get(db, info.name, NULL);
	if (user)
		return user_take(user, ret_name, ret_role);
	return err_set(e, ERR_AUTH, "the certificate of %s is of this cluster, but there is no such node or user",
		       info.name);
}

int api_identify(void *arg, const struct http_credential *c, char *ret_name, enum http_role *ret_role, struct err *e)
{
	struct daemon *d = arg;
	char digest[2 * HTTP_DIGEST_SIZE + 1];

	if (c->kind == HTTP_CREDENTIAL_UNIX)
		return err_set(e, ERR_AUTH, "uid %u is neither root nor in the group of Godwit's admins; send a token",
			       (unsigned)c->uid);
	if (!d->replica)
		return err_set(e, ERR_AUTH, "this host belongs to no cluster yet and knows nobody but root");
	hex_text(c->digest, HTTP_DIGEST_SIZE, digest);
	if (c->kind == HTTP_CREDENTIAL_TOKEN)
		return identify_token(d, digest, ret_name, ret_role, e);
	return identify_certificate(d, c, digest, ret_name, ret_role, e);
}

/* ---- reading ---- */

void api_read_begin(struct daemon *d)
{
	if (sql_script(replica_db(d->replica), "BEGIN", NULL) < 0)
		log_debug("event=read-begin text=\"no transaction: each question is answered by itself\"");
}

void api_read_end(struct daemon *d)
{
	sql_script(replica_db(d->replica), "COMMIT", NULL);
}

/* Say how old the copy of the state is that the answer comes from. */
static void add_age(struct daemon *d, struct http_call *call)
{
	json_t *status = replica_status(d->replica);
	char text[32];

	if (json_object_get(status, "age_ms")) { /* it has been in sync */
		snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(json_object_get(status, "age_ms")));
		http_call_add_header(call, "Godwit-State-Age-Ms", text);
	}
	snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(json_object_get(status, "index")));
	http_call_add_header(call, "Godwit-State-Index", text);
	json_decref(status);
}

/* A handler and its daemon. */
struct api_bound {
	struct daemon *d;
	const struct api_handler *h;
};

static void on_call(struct http_call *call, void *arg)
{
	const struct api_bound *b = arg;
	const char *object = b->h->object ? http_call_param(call, b->h->object) : NULL;
	struct err e = ERR_INIT;
	json_t *answer;

	if (!b->d->replica) {
		err_set(&e, ERR_UNAVAILABLE,
			"this host belongs to no cluster yet; make one (`godwit cluster init`) or join one (`godwit "
			"cluster join`)");
		http_reply_err(call, &e, object);
		return;
	}
	add_age(b->d, call);
	if (b->h->handle) {
		b->h->handle(b->d, call);
		return;
	}
	api_read_begin(b->d);
	answer = b->h->read(b->d, call, &e);
	api_read_end(b->d);
	if (answer)
		http_reply(call, 200, answer);
	else
		api_refuse(call, &e, object);
}

/* ---- writing ---- */

struct api_write *api_write_new(struct daemon *d, struct http_call *call, const char *object)
{
	struct api_write *w = xcalloc(1, sizeof(*w));

	w->d = d;
	w->call = call;
	w->object = object ? xstrdup(object) : NULL;
	w->extra = json_object();
	return w;
}

static void write_free(struct api_write *w)
{
	free(w->object);
	json_decref(w->extra);
	free(w);
}

void api_reply(struct api_write *w, int status, json_t *body)
{
	http_reply(w->call, status, body);
	write_free(w);
}

void api_reply_err(struct api_write *w, const struct err *e)
{
	api_refuse(w->call, e, w->object);
	write_free(w);
}

void api_id_make(const char *id, const char *part, char ret[37])
{
	_free_ char *text = xasprintf("%s %s", id, part);
	uint8_t h[SHA256_DIGEST_LENGTH];

	SHA256((const uint8_t *)text, strlen(text), h);
	uuid_text(h, 8, ret);
}

/* A command of who makes the request; takes @args. */
static json_t *command_of(const struct api_write *w, const char *op, const char *part, json_t *args)
{
	const struct http_identity *who = http_call_identity(w->call);
	char id[37];

	if (part)
		api_id_make(http_call_id(w->call), part, id);
	else
		snprintf(id, sizeof(id), "%s", http_call_id(w->call));
	return json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:o}", "op", op, "v", (int)state_command_version(op, args),
			 "id", id, "time", (json_int_t)clock_wall_ms(), "by", who->name, "from", who->from, "args",
			 args);
}

static void on_written(void *arg, const json_t *result, const struct err *e)
{
	struct api_write *w = arg;

	if (!e)
		w->then(w, result);
	else if (!w->again || !w->again(w, e))
		api_reply_err(w, e);
}

void api_propose(struct api_write *w, const char *op, const char *part, json_t *args,
		 void (*then)(struct api_write *w, const json_t *result))
{
	json_t *c = command_of(w, op, part, args);
	struct err e = ERR_INIT;

	w->then = then;
	if (replica_propose(w->d->replica, c, on_written, w, &e) < 0)
		api_reply_err(w, &e);
	json_decref(c);
}

/* ---- tasks ---- */

static void on_task_made(struct api_write *w, const json_t *result)
{
	const char *id = http_call_id(w->call);
	json_t *task = state_task_get(replica_db(w->d->replica), id, NULL);

	json_object_set_new(w->extra, "task", task ? task : json_copy((json_t *)result));
	api_reply(w, 202, json_incref(w->extra));
}

/* Whoever works on a task may be out of reach; then it can only wait. */
static bool is_away(struct daemon *d, const char *node)
{
	json_t *row = state_node_get(replica_db(d->replica), node, NULL);
	bool away = row && !d->api->present(d->replica, (uint32_t)json_integer_value(json_object_get(row, "id")));

	json_decref(row);
	return away;
}

void api_start_task(struct api_write *w, const char *kind, const char *node)
{
	json_t *args = json_pack("{s:s, s:s, s:s*, s:s*}", "id", http_call_id(w->call), "kind", kind, "object",
				 w->object, "node", node);

	if (node && is_away(w->d, node))
		json_object_set_new(args, "note",
				    json_sprintf("node %s is out of reach; this goes on when it is back", node));
	api_propose(w, "task.create", "task", args, on_task_made);
}

bool api_answered_before(struct api_write *w, const char *kind)
{
	json_t *task = state_task_get(replica_db(w->d->replica), http_call_id(w->call), NULL);

	if (!task || strcmp(api_text(task, "kind"), kind) != 0 || strcmp(api_text(task, "object"), w->object) != 0) {
		json_decref(task);
		return false;
	}
	api_reply(w, 202, json_pack("{s:o}", "task", task));
	return true;
}

static void unwaited(void *arg, const json_t *result, const struct err *e)
{
	(void)arg;
	(void)result;
	if (e) /* quorum is gone, or somebody else has ended it: the next tick of whoever leads judges it again */
		log_debug("event=task-finish error=\"%s\"", e->text);
}

/* Propose the end of a task; takes @args. The id follows from the task's, so that it is ended once. */
static void task_finish(struct daemon *d, json_t *args)
{
	_free_ char *by = xasprintf("node %s", d->identity.node);
	char id[37];
	struct err e = ERR_INIT;
	json_t *c;

	api_id_make(api_text(args, "id"), "finish", id);
	c = json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:O}", "op", "task.finish", "v",
		      (int)state_command_version("task.finish", args), "id", id, "time", (json_int_t)clock_wall_ms(),
		      "by", by, "from", "local", "args", args);
	log_info("event=task-finish task=%s state=%s%s%s%s", api_text(args, "id"), api_text(args, "state"),
		 *api_text(args, "error") ? " error=\"" : "", api_text(args, "error"),
		 *api_text(args, "error") ? "\"" : "");
	if (replica_propose(d->replica, c, unwaited, NULL, &e) < 0)
		unwaited(NULL, NULL, &e);
	json_decref(c);
	json_decref(args);
}

static void task_look(struct daemon *d, const json_t *task, bool fresh)
{
	struct sqlite3 *db = replica_db(d->replica);
	struct err why = ERR_INIT;
	json_t *vm = state_vm_get(db, api_text(task, "object"), &why), *migration, *args;

	if (!vm && why.code != ERR_NOTFOUND)
		return; /* the disk, not the state: another time */
	why = ERR_INIT;
	migration = state_migration_get(db, api_text(task, "id"), &why);
	if (migration || why.code == ERR_NOTFOUND) {
		args = task_judge(task, vm, migration, fresh);
		if (args)
			task_finish(d, args);
	}
	json_decref(vm);
	json_decref(migration);
}

/* Judge the open tasks that @command concerns; NULL: all of them. */
static void tasks_look(struct daemon *d, const json_t *command)
{
	json_t *tasks = state_task_list(replica_db(d->replica), true, NULL), *task;
	bool observed = command && !strcmp(api_text(command, "op"), "vm.observed");
	size_t i;

	json_array_foreach (tasks, i, task)
		if (!command || task_touched(task, command))
			task_look(d, task, observed);
	json_decref(tasks);
}

static bool may_touch_tasks(const json_t *command)
{
	const char *op = api_text(command, "op");

	return !strncmp(op, "vm.", 3) || !strncmp(op, "migration.", 10) || !strcmp(op, "task.create");
}

/* ---- events ---- */

/* Give the feed what the state has and it has not. */
static void publish(struct daemon *d)
{
	struct sqlite3 *db = replica_db(d->replica);
	int64_t newest = 0;
	json_t *events, *ev;
	size_t i;

	if (state_event_newest(db, &newest, NULL) < 0 || newest <= d->api->published)
		return;
	if (newest - d->api->published > EVENTS_AT_ONCE)
		d->api->published = newest - EVENTS_AT_ONCE;
	events = state_event_list(db, d->api->published, EVENTS_AT_ONCE, NULL);
	json_array_foreach (events, i, ev)
		http_feed_publish(d->feed, (uint64_t)json_integer_value(json_object_get(ev, "seq")), api_text(ev, "op"),
				  ev);
	if (events)
		d->api->published = newest;
	json_decref(events);
}

void api_applied(struct daemon *d, uint64_t index, const json_t *command, const json_t *result)
{
	(void)index;
	publish(d);
	if (result && replica_leads(d->replica) && may_touch_tasks(command))
		tasks_look(d, command);
}

void api_tick(struct daemon *d)
{
	bool leads = replica_leads(d->replica) && replica_synced(d->replica);

	publish(d);
	d->api->ticks = leads && d->api->led ? d->api->ticks + 1 : 0;
	if (leads && d->api->ticks % TASKS_EVERY == 0)
		tasks_look(d, NULL);
	d->api->led = leads;
}

/* ---- other hosts ---- */

int api_port(const struct daemon *d)
{
	const char *colon = d->opt.listen ? strrchr(d->opt.listen, ':') : NULL;

	return colon && atoi(colon + 1) > 0 ? atoi(colon + 1) : DAEMON_PORT;
}

char *api_peer_address(struct daemon *d, const char *node, struct err *e)
{
	json_t *row = state_node_get(replica_db(d->replica), node, e);
	const char *address = json_string_value(json_array_get(json_object_get(row, "addresses"), 0));
	char *text = NULL;

	if (address)
		text = xasprintf(strchr(address, ':') ? "[%s]:%d" : "%s:%d", address, api_port(d));
	else if (row)
		err_set(e, ERR_UNAVAILABLE, "node %s has no address", node);
	json_decref(row);
	return text;
}

/* ---- metrics ---- */

static void count_by_status(struct daemon *d)
{
	json_t *vms = state_vm_list(replica_db(d->replica), NULL), *vm;
	size_t i;

	metric_clear(d->api->vms);
	json_array_foreach (vms, i, vm) {
		const char *status = api_text(vm, "status");
		const char *const labels[] = {*status ? status : "unknown"};

		metric_add(metric_with(d->api->vms, labels), 1);
	}
	json_decref(vms);
}

static void set_count(struct metric *m, json_t *list)
{
	metric_set(metric_with(m, NULL), (double)json_array_size(list));
	json_decref(list);
}

/* Nothing is better than a 0 that nobody has counted. */
static void ha_metrics(struct api *a, struct ha_manager *ha)
{
	struct ha_counts n;

	metric_clear(a->ha_bears);
	metric_clear(a->ha_wish);
	metric_clear(a->ha_waiting);
	if (!ha || !ha_manager_counts(ha, &n))
		return;
	metric_set(metric_with(a->ha_bears, NULL), n.bears);
	metric_set(metric_with(a->ha_wish, NULL), n.wish);
	metric_set(metric_with(a->ha_waiting, (const char *const[]){"room"}), n.room);
	metric_set(metric_with(a->ha_waiting, (const char *const[]){"turn"}), n.turn);
}

static void collect(void *arg)
{
	struct api *a = arg;
	struct daemon *d = a->d;
	json_t *status;

	if (!d->replica)
		return;
	status = replica_status(d->replica);
	metric_set(metric_with(a->index, NULL), json_number_value(json_object_get(status, "index")));
	metric_set(metric_with(a->age, NULL), json_number_value(json_object_get(status, "age_ms")) / 1000);
	metric_set(metric_with(a->synced, NULL), replica_synced(d->replica));
	metric_set(metric_with(a->leads, NULL), replica_leads(d->replica));
	metric_set(metric_with(a->alone, NULL), replica_alone(d->replica));
	metric_set(metric_with(a->members, NULL), (double)json_array_size(json_object_get(status, "members")));
	json_decref(status);
	count_by_status(d);
	set_count(a->migrations, state_migration_list(replica_db(d->replica), true, NULL));
	set_count(a->tasks, state_task_list(replica_db(d->replica), true, NULL));
	ha_metrics(a, d->ha);
}

static void metrics_make(struct api *a, struct metrics *m)
{
	a->index = metrics_gauge(m, "godwit_state_index", "The newest command that is on this host's disk", "");
	a->age = metrics_gauge(m, "godwit_state_age_seconds", "How old this host's copy of the state is", "");
	a->synced = metrics_gauge(m, "godwit_state_synced", "1: in the quorate part, and caught up", "");
	a->leads = metrics_gauge(m, "godwit_state_leads", "1: this host leads the log", "");
	a->alone = metrics_gauge(m, "godwit_state_alone", "1: goes on without the other one of two hosts", "");
	a->members = metrics_gauge(m, "godwit_members", "Hosts that this one sees, itself included", "");
	a->vms = metrics_gauge(m, "godwit_vms", "Guests of the cluster by what their owner has reported", "status");
	a->migrations = metrics_gauge(m, "godwit_migrations_active", "Migrations that have not ended", "");
	a->tasks = metrics_gauge(m, "godwit_tasks_active", "Tasks that have not ended", "");
	a->ha_bears = metrics_gauge(m, "godwit_ha_bears", "Deaths of hosts that the cluster can bear at once", "");
	a->ha_wish = metrics_gauge(m, "godwit_ha_wish", "Deaths of hosts that it shall bear at once", "");
	a->ha_waiting = metrics_gauge(m, "godwit_ha_waiting",
				      "Guests that shall run, do not, and wait for room, or for their turn", "for");
	metrics_collect(m, collect, a);
}

/* ---- binding ---- */

static void bind_table(struct api *a, const struct api_handler *table)
{
	for (; table->operation; table++) {
		struct api_bound *b = &a->bound[a->n_bound++];

		*b = (struct api_bound){a->d, table};
		http_bind(a->d->http, table->operation, on_call, b);
	}
}

static size_t table_size(const struct api_handler *table)
{
	size_t n = 0;

	while (table[n].operation)
		n++;
	return n;
}

static void on_events(struct http_call *call, void *arg)
{
	struct daemon *d = arg;

	http_feed_subscribe(d->feed, call);
}

static bool is_present(const void *replica, uint32_t node)
{
	return replica_member(replica, node);
}

void api_bind(struct daemon *d)
{
	static const struct api_handler *const tables[] = {
		api_read_handlers,     api_write_handlers, api_vm_handlers, api_console_handlers,
		api_forecast_handlers, api_fence_handlers, api_ha_handlers, api_power_handlers};
	struct api *a = xcalloc(1, sizeof(*a));
	size_t n = 0;

	a->d = d;
	a->published = -1;
	a->present = is_present;
	d->api = a;
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
		n += table_size(tables[i]);
	a->bound = xcalloc(n, sizeof(*a->bound));
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
		bind_table(a, tables[i]);
	http_bind(d->http, "events", on_events, d);
	if (d->metrics)
		metrics_make(a, d->metrics);
}

void api_done(struct daemon *d)
{
	if (d->api)
		free(d->api->bound);
	free(d->api);
	d->api = NULL;
}
