/* SPDX-License-Identifier: Apache-2.0 */
/* Asking a daemon. */
#include "cli/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/http-message.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/uuid.h"
#include "cli/value.h"

#define SOCKET_DEFAULT "/run/godwit/godwitd.sock"
#define TOKEN_FILE_MAX 4096
#define QUESTION_NS (60 * NS_PER_S) /* until a question must be answered */
#define CHANGE_NS (300 * NS_PER_S)  /* joining a cluster includes a start of corosync */
#define RESTART_NS (10 * NS_PER_S)  /* a daemon that is being upgraded is back by then */
#define RESTART_EVERY_MS 200
#define AGE_TOLD_MS 10000 /* a host that is cut off knows how things were; up to here nobody minds */

/* ---- where ---- */

static const char *socket_path(const struct cli *c)
{
	const char *path = cli_text(c, "socket");

	return path ? path : SOCKET_DEFAULT;
}

static int check_options(const struct cli *c, struct err *e)
{
	const char *host = cli_text(c, "host");
	bool certificate = cli_given(c, "cert-dir"), ca = cli_given(c, "ca"), token = cli_given(c, "token-file");

	if (host && certificate == (ca && token))
		return err_set(e, ERR_USAGE,
			       "--host %s needs --cert-dir DIR, or both --ca FILE and --token-file FILE: who vouches "
			       "for that host, and who are you?",
			       host);
	return 0;
}

static int token_load(const struct cli *c, char **ret, struct err *e)
{
	const char *path = cli_text(c, "token-file");
	char *text;
	size_t n;

	if (!path)
		return 0;
	text = value_file(path, TOKEN_FILE_MAX, e);
	if (!text)
		return err_wrap(e, "--token-file");
	n = strcspn(text, " \t\r\n");
	text[n] = 0;
	*ret = text;
	return n ? 0 : err_set(e, ERR_INPUT, "--token-file %s: is empty", path);
}

int request_client(const struct cli *c, struct http_client **ret, struct err *e)
{
	const char *host = cli_text(c, "host");
	_free_ char *token = NULL;
	struct http_client_options o = {.unix_path = host ? NULL : socket_path(c), .address = host};

	if (host && (check_options(c, e) < 0 || token_load(c, &token, e) < 0))
		return -1;
	o.tls_dir = cli_text(c, "cert-dir");
	o.ca_path = o.tls_dir ? NULL : cli_text(c, "ca");
	o.token = token;
	*ret = http_client_new(&o, e);
	return *ret ? 0 : -1;
}

/* ---- failures ---- */

/* Nobody listens there (at the moment). */
static bool is_absent(const struct err *e)
{
	return e->code == ERR_SYSTEM && (e->errnum == ENOENT || e->errnum == ECONNREFUSED);
}

/* The connection ended before the answer did. */
static bool is_lost(const struct err *e)
{
	return e->code == ERR_PROTOCOL || (e->code == ERR_SYSTEM && (e->errnum == ECONNRESET || e->errnum == EPIPE));
}

int request_failed(const struct cli *c, struct err *e)
{
	const char *host = cli_text(c, "host");

	if (!host && is_absent(e))
		return err_set(e, ERR_UNAVAILABLE,
			       "no godwitd answers at %s: start it on this host (`systemctl start godwitd`), or name "
			       "another host with --host",
			       socket_path(c));
	if (!host && e->errnum == EACCES)
		return err_set(e, ERR_FORBIDDEN,
			       "you may not use %s: be root or in the group of the socket, or use --host with a token",
			       socket_path(c));
	if (host && e->code == ERR_SYSTEM && e->errnum) {
		e->code = ERR_UNAVAILABLE;
		return err_wrap(e, "no godwitd answers at %s", host);
	}
	return -1;
}

bool request_may_pass(const struct err *e)
{
	return e->code == ERR_SYSTEM || e->code == ERR_PROTOCOL || e->code == ERR_TIMEOUT || e->code == ERR_UNAVAILABLE;
}

const char *request_hint(const struct cli *c, const struct err *e)
{
	static char hint[128];

	if (strchr(e->text, '`') || !c->group)
		return NULL;
	switch (e->code) {
	case ERR_NOTFOUND:
		for (const struct cli_command *cmd = c->group->commands; cmd->summary; cmd++)
			if (cmd->verb && strcmp(cmd->verb, "list") == 0) {
				snprintf(hint, sizeof(hint), "`godwit %s list` shows what is there", c->group->name);
				return hint;
			}
		return NULL;
	case ERR_UNAVAILABLE:
		return "`godwit cluster status` says how the cluster is; the same command may succeed later";
	case ERR_AUTH:
	case ERR_FORBIDDEN:
		return cli_text(c, "host")
			       ? "is it the right token or certificate? An admin's `godwit user list` shows "
				 "who may do what"
			       : "root of a host may do everything; others use --host with a token";
	case ERR_TIMEOUT:
		return "`godwit task list --active` shows what is still being done";
	default:
		return NULL;
	}
}

/* ---- asking ---- */

static int call(struct cli *c, const char *method, const char *target, const json_t *body, const char *key,
		struct http_answer *ret, struct err *e)
{
	int64_t deadline = clock_now_ns() + (key ? CHANGE_NS : QUESTION_NS);

	*e = ERR_INIT;
	return http_client_call(c->client, method, target, body, key, deadline, ret, e);
}

/* The second time: the daemon may just be restarting. */
static int call_again(struct cli *c, const char *method, const char *target, const json_t *body, const char *key,
		      struct http_answer *ret, struct err *e)
{
	int64_t until = key ? clock_now_ns() + RESTART_NS : 0;
	int r;

	for (;;) {
		r = call(c, method, target, body, key, ret, e);
		if (r == 0 || !is_absent(e) || clock_now_ns() > until)
			break;
		nanosleep(&(struct timespec){.tv_nsec = RESTART_EVERY_MS * NS_PER_MS}, NULL);
	}
	if (r < 0 && key)
		err_wrap(e, "the connection was lost before the answer, so it may or may not be done");
	return r;
}

/* The object of a refusal stands in front of it, unless the sentence has it already. */
static int refused(const struct http_answer *a, struct err *e)
{
	const char *object = json_string_value(view_get(a->json, "error.object"));

	http_answer_error(a, e);
	if (object && !strstr(e->text, object))
		err_wrap(e, "%s", object);
	return -1;
}

/* A host that is cut off still answers: then say so, once. */
static void tell_age(struct cli *c, const struct http_answer *a)
{
	char text[TEXT_CELL];

	if (a->age_ms < AGE_TOLD_MS || c->told_age)
		return;
	c->told_age = true;
	text_duration(text, a->age_ms * NS_PER_MS);
	fprintf(c->io->err, "godwit: this host is cut off; what it knows of the cluster is %s old\n", text);
}

int request(struct cli *c, const char *method, const char *target, const json_t *body, json_t **ret, struct err *e)
{
	struct http_answer a = {0};
	char key[37];
	bool change = strcmp(method, "GET") != 0;
	int r;

	if (!c->client && request_client(c, &c->client, e) < 0)
		return -1;
	if (change)
		uuid_random(key);
	r = call(c, method, target, body, change ? key : NULL, &a, e);
	if (r < 0 && is_lost(e))
		r = call_again(c, method, target, body, change ? key : NULL, &a, e);
	if (r < 0)
		return request_failed(c, e);
	tell_age(c, &a);
	if (a.status >= 400)
		r = refused(&a, e);
	else if (!a.json)
		r = err_set(e, ERR_PROTOCOL, "%s %s: the answer is not JSON", method, target);
	else
		*ret = json_incref(a.json);
	http_answer_done(&a);
	return r;
}

/* ---- what the table says ---- */

char *request_target(const struct cli *c, const char *path)
{
	char *target = xstrdup("");

	while (*path) {
		size_t n = strcspn(path, "{"), len = strcspn(path + n, "}");
		_free_ char *name = path[n] ? xasprintf("%.*s", (int)len - 1, path + n + 1) : NULL;
		_free_ char *value = name ? http_percent_encode(cli_text(c, name)) : xstrdup("");
		char *longer = xasprintf("%s%.*s%s", target, (int)n, path, value);

		free(target);
		target = longer;
		path += n + len + (name != NULL);
	}
	return target;
}

static int field_add(const struct cli *c, const struct cli_value *v, json_t *o, struct err *e)
{
	const struct cli_param *p = v->param;
	json_t *value = NULL;

	if (p->kind == CLI_PATH && v->text[0] != '/' && cli_text(c, "host"))
		return err_set(e, ERR_USAGE, "%s: with --host, write the whole path that the file has on the hosts",
			       v->text);
	if (value_json(p, v->text, v->number, &value, e) < 0)
		return -1;
	if (!p->many) {
		json_object_set_new(o, p->field, value);
		return 0;
	}
	if (!json_object_get(o, p->field))
		json_object_set_new(o, p->field, json_array());
	json_array_append_new(json_object_get(o, p->field), value);
	return 0;
}

int request_fields(const struct cli *c, json_t *o, struct err *e)
{
	for (size_t i = 0; i < c->n_values; i++)
		if (c->values[i].param->field && field_add(c, &c->values[i], o, e) < 0)
			return -1;
	return 0;
}

/* The fields as a query behind @target. Caller frees. */
static char *query_add(const char *target, const json_t *fields)
{
	char *text = xstrdup(target), mark = '?';
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)fields, key, value) {
		_free_ char *dump =
			json_is_string(value) ? xstrdup(json_string_value(value)) : json_dumps(value, JSON_ENCODE_ANY);
		_free_ char *encoded = http_percent_encode(dump);
		char *longer = xasprintf("%s%c%s=%s", text, mark, key, encoded);

		free(text);
		text = longer;
		mark = '&';
	}
	return text;
}

int request_command(struct cli *c, json_t **ret, struct err *e)
{
	const struct cli_command *cmd = c->command;
	bool has_body = cmd->method[0] == 'P'; /* POST, PUT */
	_free_ char *path = request_target(c, cmd->path);
	_free_ char *target = NULL;
	json_t *fields = json_object();
	int r = request_fields(c, fields, e);

	if (r == 0) {
		target = has_body ? xstrdup(path) : query_add(path, fields);
		r = request(c, cmd->method, target, has_body ? fields : NULL, ret, e);
	}
	json_decref(fields);
	return r;
}
