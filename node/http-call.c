/* SPDX-License-Identifier: Apache-2.0 */
/* One request: its route, its parameters, its body, its answer. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/uuid.h"
#include "node/http-int.h"

#define UUID_LENGTH 36

/* ---- answers ---- */

/* The code of errors that the server itself answers with. */
static const char *code_of_status(int status)
{
	switch (status) {
	case 401:
		return err_code_name(ERR_AUTH);
	case 403:
		return err_code_name(ERR_FORBIDDEN);
	case 404:
		return err_code_name(ERR_NOTFOUND);
	case 408:
		return err_code_name(ERR_TIMEOUT);
	case 429:
	case 503:
		return err_code_name(ERR_UNAVAILABLE);
	case 501:
		return err_code_name(ERR_UNSUPPORTED);
	default:
		return err_code_name(ERR_INPUT);
	}
}

json_t *error_json(const char *code, const char *message, const char *object)
{
	json_t *error = json_pack("{s:s, s:s}", "code", code, "message", message);

	/* A message may quote bytes of the client that are no UTF-8. */
	if (!error)
		error = json_pack("{s:s, s:s}", "code", code, "message", "the request has text that is no UTF-8");
	if (object)
		json_object_set_new(error, "object", json_string(object));
	return json_pack("{s:o}", "error", error);
}

static const char *operation_of(const struct http_call *call)
{
	return call->route ? call->route->operation : "none";
}

struct http_conn *call_end(struct http_call *call, int status)
{
	struct http_conn *c = call->conn;
	struct http_server *s = call->server;
	double seconds = (double)(clock_now_ns() - call->begun_ns) / NS_PER_S;
	char status_text[8];

	if (c) {
		const char *const labels[] = {operation_of(call), status_text};

		snprintf(status_text, sizeof(status_text), "%d", status);
		log_debug("event=http_request operation=%s status=%d user=\"%s\" from=%s seconds=%.6f", labels[0],
			  status, call->identity.name, c->from, seconds);
		if (s->requests)
			metric_add(metric_with(s->requests, labels), 1);
		if (s->seconds)
			metric_observe(metric_with(s->seconds, labels), seconds);
		c->call = NULL;
	}
	http_head_done(&call->head);
	http_target_done(&call->target);
	json_decref(call->body);
	free(call->path);
	free(call->headers);
	free(call);
	return c;
}

static void answer_json(struct http_call *call, int status, const char *headers, json_t *body)
{
	_free_ char *text = body ? json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
	const char *operation = operation_of(call);
	_free_ char *more = steal_ptr(call->headers);
	struct http_conn *c;

	json_decref(body);
	if (!text) { /* json_pack() refuses what is no UTF-8 */
		log_error("event=http_no_answer operation=%s", operation);
		status = 500;
		text = xstrdup(
			"{\"error\":{\"code\":\"system\",\"message\":\"the answer cannot be written as JSON\"}}");
	}
	c = call_end(call, status);
	if (c)
		http_conn_answer(c, status, "application/json", headers ? headers : more, text, strlen(text));
}

void http_reply(struct http_call *call, int status, json_t *body)
{
	answer_json(call, status, NULL, body);
}

void http_reply_text(struct http_call *call, int status, const char *type, const char *text)
{
	_free_ char *headers = steal_ptr(call->headers);
	struct http_conn *c = call_end(call, status);

	if (c)
		http_conn_answer(c, status, type, headers, text, strlen(text));
}

void http_reply_err(struct http_call *call, const struct err *e, const char *object)
{
	answer_json(call, err_http_status(e->code), NULL, error_json(err_code_name(e->code), e->text, object));
}

void call_refuse(struct http_call *call, int status, const char *headers, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	answer_json(call, status, headers, error_json(code_of_status(status), text, NULL));
}

/* ---- routing ---- */

/* Does @path (percent-encoded) fit the route's? Then call->params point to its parameters, not yet cut apart. */
static bool path_fits(struct http_call *call, const char *pattern, char *path)
{
	call->n_params = 0;
	while (*pattern == '/' && *path == '/') {
		size_t n = strcspn(++pattern, "/"), len = strcspn(++path, "/");

		if (*pattern == '{') {
			if (!len || call->n_params == ROUTE_PARAMS_MAX)
				return false;
			call->params[call->n_params].name = pattern + 1; /* up to its brace */
			call->params[call->n_params++].value = path;
		} else if (n != len || strncmp(pattern, path, n) != 0) {
			return false;
		}
		pattern += n;
		path += len;
	}
	return !*pattern && !*path;
}

/* Cut and decode the parameters. */
static int params_decode(struct http_call *call)
{
	for (size_t i = 0; i < call->n_params; i++) {
		char *value = (char *)call->params[i].value;

		value[strcspn(value, "/")] = 0;
		if (http_percent_decode(value) < 0)
			return -1;
	}
	return 0;
}

/* Find call->route. 0, or -1 after refusing, which ends the call. */
static int find_route(struct http_call *call)
{
	const struct http_options *o = &call->server->o;
	char allowed[64] = "";

	call->path = xstrdup(call->target.path);
	for (size_t i = 0; i < o->n_routes; i++) {
		const struct http_route *r = &o->routes[i];

		if (!path_fits(call, r->path, call->path))
			continue;
		if (strcmp(r->method, call->head.method) == 0) {
			call->route = r;
			return 0;
		}
		if (strlen(allowed) + strlen(r->method) + 3 < sizeof(allowed)) {
			strcat(allowed, allowed[0] ? ", " : "");
			strcat(allowed, r->method);
		}
	}
	if (allowed[0]) {
		_free_ char *header = xasprintf("Allow: %s\r\n", allowed);

		call_refuse(call, 405, header, "%s is not possible here, but %s is", call->head.method, allowed);
	} else {
		call_refuse(call, 404, NULL, "there is nothing at %.200s; GET /openapi.json lists what there is",
			    call->target.path);
	}
	return -1;
}

/* ---- checks before the body ---- */

static bool value_fits(const char *type, const char *value)
{
	size_t n = strlen(value);

	if (strcmp(type, "integer") == 0)
		return n && n <= 18 && strspn(value, "0123456789") == n;
	if (strcmp(type, "boolean") == 0)
		return strcmp(value, "true") == 0 || strcmp(value, "false") == 0;
	return true;
}

static const struct http_query *query_of(const struct http_route *r, const char *name)
{
	for (const struct http_query *q = r->queries; q && q->name; q++)
		if (strcmp(q->name, name) == 0)
			return q;
	return NULL;
}

/* Each of these: 0, or -1 after refusing, which ends the call. */

static int check_queries(struct http_call *call)
{
	for (size_t i = 0; i < call->target.n_query; i++) {
		const struct http_header *given = &call->target.query[i];
		const struct http_query *q = query_of(call->route, given->name);

		if (q && value_fits(q->type, given->value))
			continue;
		if (q)
			call_refuse(call, 400, NULL, "query parameter %s: must be of type %s", q->name, q->type);
		else
			call_refuse(call, 400, NULL, "there is no query parameter \"%.60s\" here", given->name);
		return -1;
	}
	return 0;
}

static bool is_json(const char *type)
{
	return type && strncasecmp(type, "application/json", 16) == 0 && (!type[16] || strchr("; \t", type[16]));
}

static int check_body(struct http_call *call)
{
	const struct http_head *h = &call->head;
	size_t limit = call->server->o.limits.body;

	if (h->framing == HTTP_FRAMING_NONE)
		return 0;
	if (!call->route->request)
		call_refuse(call, 400, NULL, "%s %s takes no body", call->route->method, call->route->path);
	else if (!is_json(http_head_get(h, "Content-Type")))
		call_refuse(call, 415, NULL, "the body must be JSON, with Content-Type: application/json");
	else if (h->length > limit)
		call_refuse(call, 413, NULL, "the body is larger than %zu bytes", limit);
	else
		return 0;
	return -1;
}

static bool uuid_valid(const char *s)
{
	for (size_t i = 0; i < UUID_LENGTH; i++)
		if (i == 8 || i == 13 || i == 18 || i == 23 ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
			return false;
	return !s[UUID_LENGTH];
}

static int read_id(struct http_call *call)
{
	const char *key = http_head_get(&call->head, "Idempotency-Key");

	if (key && !uuid_valid(key)) {
		call_refuse(call, 400, NULL, "Idempotency-Key must be a uuid");
		return -1;
	}
	if (key) { /* in lower case, as the state spells it */
		for (size_t i = 0; i < UUID_LENGTH; i++)
			call->id[i] = (char)tolower((unsigned char)key[i]);
		return 0;
	}
	uuid_random(call->id);
	return 0;
}

static int check_rate(struct http_call *call)
{
	struct http_peer *peer = call->conn->peer;

	if (!peer || http_peers_spend(call->server->peers, peer, 1, clock_now_ns()))
		return 0;
	server_refused(call->server, "rate");
	call->conn->keep = false;
	call_refuse(call, 429, "Retry-After: 1\r\n", "too many requests from %s: wait a second", call->conn->from);
	return -1;
}

static int check_target(struct http_call *call)
{
	struct err e = ERR_INIT;

	if (http_target_parse(call->head.target, &call->target, &e) < 0) {
		call_refuse(call, 400, NULL, "%s", e.text);
		return -1;
	}
	if (find_route(call) < 0)
		return -1;
	if (params_decode(call) == 0)
		return 0;
	call_refuse(call, 400, NULL, "the path has a damaged %%-code");
	return -1;
}

static int check_identity(struct http_call *call)
{
	struct err e = ERR_INIT;
	int status = 0;

	if (auth_check(call, &status, &e) == 0)
		return 0;
	call_refuse(call, status, status == 401 ? "WWW-Authenticate: Bearer realm=\"godwit\"\r\n" : NULL, "%s", e.text);
	return -1;
}

void call_begin(struct http_conn *c, struct http_head *head)
{
	struct http_call *call = xcalloc(1, sizeof(*call));

	call->conn = c;
	call->server = c->server;
	call->head = *head;
	call->begun_ns = clock_now_ns();
	c->call = call;
	c->state = CONN_BODY;
	if (check_rate(call) < 0 || check_target(call) < 0 || check_identity(call) < 0 || check_queries(call) < 0 ||
	    check_body(call) < 0 || read_id(call) < 0)
		return;
	http_conn_deadline(c, c->server->o.limits.body_ns);
	if (call->head.framing != HTTP_FRAMING_NONE && http_head_get(&call->head, "Expect"))
		http_conn_output(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

/* ---- the handler ---- */

static int read_body(struct http_call *call, const char *text, size_t size)
{
	json_error_t error = {.line = 0};
	struct err e = ERR_INIT;

	if (!call->route->request)
		return 0;
	call->body = size ? json_loadb(text, size, JSON_REJECT_DUPLICATES, &error) : json_object();
	if (!call->body) {
		call_refuse(call, 400, NULL, "body: line %d, column %d: %s", error.line, error.column, error.text);
		return -1;
	}
	if (http_schema_check(call->server->schemas, call->route->request, call->body, &e) == 0)
		return 0;
	call_refuse(call, 400, NULL, "%s", e.text);
	return -1;
}

void call_dispatch(struct http_call *call, const char *text, size_t size)
{
	const struct http_server *s = call->server;
	const struct http_binding *b = &s->bindings[call->route - s->o.routes];

	if (read_body(call, text, size) < 0)
		return;
	if (b->fn)
		b->fn(call, b->arg);
	else
		call_refuse(call, 501, NULL, "%s is not built into this daemon", call->route->operation);
}

void call_detach(struct http_call *call)
{
	bool handled = call->conn->state == CONN_HANDLER;

	if (!handled) {
		call->conn->call = NULL;
		call->conn = NULL;
		call_end(call, 0);
		return;
	}
	call->conn = NULL;
	if (call->gone)
		call->gone(call->gone_arg);
}

/* ---- what handlers ask ---- */

const struct http_identity *http_call_identity(const struct http_call *c)
{
	return &c->identity;
}

const char *http_call_param(const struct http_call *c, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < c->n_params; i++)
		if (strncmp(c->params[i].name, name, n) == 0 && c->params[i].name[n] == '}')
			return c->params[i].value;
	return NULL;
}

const char *http_call_query(const struct http_call *c, const char *name)
{
	for (size_t i = 0; i < c->target.n_query; i++)
		if (strcmp(c->target.query[i].name, name) == 0)
			return c->target.query[i].value;
	return NULL;
}

json_t *http_call_body(const struct http_call *c)
{
	return c->body;
}

const char *http_call_header(const struct http_call *c, const char *name)
{
	return http_head_get(&c->head, name);
}

const char *http_call_id(const struct http_call *c)
{
	return c->id;
}

uint64_t http_call_since(const struct http_call *c)
{
	const char *since = http_call_header(c, "Last-Event-ID");

	if (!since || !value_fits("integer", since))
		since = http_call_query(c, "since");
	return since ? strtoull(since, NULL, 10) : 0;
}

void http_call_add_header(struct http_call *c, const char *name, const char *value)
{
	_free_ char *before = steal_ptr(c->headers);

	c->headers = xasprintf("%s%s: %s\r\n", before ? before : "", name, value);
}

void http_call_on_gone(struct http_call *c, loop_fn *fn, void *arg)
{
	c->gone = fn;
	c->gone_arg = arg;
}
