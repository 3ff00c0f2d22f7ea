/* SPDX-License-Identifier: Apache-2.0 */
/* The OpenAPI 3.1 document, made of the same tables that the server routes and checks by. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/http-message.h"
#include "base/mem.h"
#include "node/http-schema.h"
#include "node/http.h"

static json_t *schema_ref(const char *name)
{
	return json_sprintf("#/components/schemas/%s", name);
}

static json_t *content(const char *type, json_t *schema)
{
	return json_pack("{s:{s:o}}", type, "schema", schema);
}

/* The parameters of the path, then those of the query. */
static json_t *parameters(const struct http_route *r)
{
	json_t *all = json_array();

	for (const char *p = strchr(r->path, '{'); p; p = strchr(p + 1, '{'))
		json_array_append_new(all, json_pack("{s:s%, s:s, s:b, s:{s:s}}", "name", p + 1, strcspn(p + 1, "}"),
						     "in", "path", "required", 1, "schema", "type", "string"));
	for (const struct http_query *q = r->queries; q && q->name; q++)
		json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:{s:s}}", "name", q->name, "in", "query",
						     "description", q->summary, "schema", "type", q->type));
	return all;
}

static json_t *success(const struct http_route *r)
{
	json_t *response = json_pack("{s:s}", "description", http_status_text(r->status));
	json_t *body = NULL;

	if (r->kind == HTTP_KIND_JSON)
		body = content("application/json", json_pack("{s:o}", "$ref", schema_ref(r->response)));
	else if (r->kind == HTTP_KIND_EVENTS)
		body = content("text/event-stream", json_pack("{s:o}", "$ref", schema_ref(r->response)));
	else if (r->kind == HTTP_KIND_TEXT)
		body = content(r->response, json_pack("{s:s}", "type", "string"));
	if (body)
		json_object_set_new(response, "content", body);
	else
		json_object_set_new(response, "description",
				    json_sprintf("the connection becomes a stream of %s", r->response));
	return response;
}

static json_t *operation(const struct http_route *r)
{
	_free_ char *status = xasprintf("%d", r->status);
	json_t *op = json_pack("{s:s, s:s, s:s, s:o, s:{s:o, s:{s:s}}}", "operationId", r->operation, "summary",
			       r->summary, "x-role", http_role_names[r->role], "parameters", parameters(r), "responses",
			       status, success(r), "default", "$ref", "#/components/responses/Error");

	if (r->role == HTTP_ROLE_NONE)
		json_object_set_new(op, "security", json_array());
	if (r->local)
		json_object_set_new(op, "x-local", json_true());
	if (r->request)
		json_object_set_new(
			op, "requestBody",
			json_pack("{s:o}", "content",
				  content("application/json", json_pack("{s:o}", "$ref", schema_ref(r->request)))));
	return op;
}

static json_t *paths(const struct http_options *o)
{
	json_t *all = json_object();

	for (size_t i = 0; i < o->n_routes; i++) {
		const struct http_route *r = &o->routes[i];
		json_t *path = json_object_get(all, r->path);
		char method[16] = "";

		for (size_t k = 0; r->method[k] && k + 1 < sizeof(method); k++)
			method[k] = (char)tolower((unsigned char)r->method[k]);
		if (!path) {
			path = json_object();
			json_object_set_new(all, r->path, path);
		}
		json_object_set_new(path, method, operation(r));
	}
	return all;
}

static json_t *components(const struct http_options *o)
{
	struct http_schemas *s = http_schemas_new(o->schemas, o->n_schemas);
	json_t *schemas = json_copy(http_schemas_all(s));
	json_t *error =
		json_loads("{\"type\": \"object\", \"required\": [\"error\"], \"properties\": {\"error\": {\"type\": "
			   "\"object\", \"required\": [\"code\", \"message\"], \"properties\": {\"code\": "
			   "{\"type\": \"string\"}, \"message\": {\"type\": \"string\"}, \"object\": "
			   "{\"type\": \"string\"}}}}}",
			   0, NULL);
	json_t *ret;

	json_object_set_new(schemas, "Error", error);
	ret = json_pack("{s:o, s:{s:{s:s, s:o}}, s:{s:{s:s, s:s}, s:{s:s}}}", "schemas", schemas, "responses", "Error",
			"description", "what went wrong, why, and what to do", "content",
			content("application/json", json_pack("{s:o}", "$ref", schema_ref("Error"))), "securitySchemes",
			"token", "type", "http", "scheme", "bearer", "certificate", "type", "mutualTLS");
	http_schemas_free(s);
	return ret;
}

json_t *http_openapi(const struct http_options *o)
{
	return json_pack("{s:s, s:{s:s, s:s}, s:o, s:o, s:[{s:[]}, {s:[]}]}", "openapi", "3.1.0", "info", "title",
			 o->title, "version", o->version, "paths", paths(o), "components", components(o), "security",
			 "token", "certificate");
}
