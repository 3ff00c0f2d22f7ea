/* SPDX-License-Identifier: Apache-2.0 */
/* What a fence agent says about itself: XML, read into JSON.
 *
 * The document is an OCF resource agent's: <resource-agent name= shortdesc=>, in it <parameters> with a <parameter
 * name= required= deprecated= obsoletes=> each, in that <content type= default=> with <option value=>, and <shortdesc>;
 * then <actions> with an <action name= automatic=> each. Other elements are passed over. There is no reason for a
 * document type in it, so one is refused, and with it every trick with entities.
 */
#include <expat.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "fencing/agent.h"

#define PARAMETERS_MAX 512
#define ACTIONS_MAX 64
#define VALUES_MAX 256
#define NAME_MAX_BYTES 64
#define TEXT_MAX_BYTES 1024 /* of a default, a value, a description */
#define DEPTH_MAX 32

struct reader {
	XML_Parser parser;
	struct err *e;
	bool failed;
	int depth;
	json_t *root, *parameters, *actions;
	json_t *parameter; /* the one that is open; borrowed */
	bool in_parameters, in_actions, in_text;
	char text[TEXT_MAX_BYTES + 1];
	size_t text_used;
};

static void refuse(struct reader *r, const char *why)
{
	if (!r->failed)
		err_set(r->e, ERR_PROTOCOL, "its metadata, line %lu: %s", XML_GetCurrentLineNumber(r->parser), why);
	r->failed = true;
	XML_StopParser(r->parser, XML_FALSE);
}

static const char *attribute(const XML_Char **attributes, const char *name)
{
	for (; attributes[0]; attributes += 2)
		if (!strcmp(attributes[0], name))
			return attributes[1];
	return NULL;
}

static bool is_one(const XML_Char **attributes, const char *name)
{
	const char *value = attribute(attributes, name);

	return value && (!strcmp(value, "1") || !strcmp(value, "true"));
}

/* A name that goes into key=value lines. */
static bool name_fits(const char *name)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
	size_t n = name ? strlen(name) : 0;

	return n > 0 && n <= NAME_MAX_BYTES && strspn(name, letters) == n;
}

static json_t *text_json(const char *text)
{
	return text && strlen(text) <= TEXT_MAX_BYTES ? json_string(text) : json_null();
}

static json_t *parameter_named(const json_t *parameters, const char *name)
{
	size_t i;
	json_t *p;

	json_array_foreach (parameters, i, p)
		if (!strcmp(json_string_value(json_object_get(p, "name")), name))
			return p;
	return NULL;
}

static void parameter_open(struct reader *r, const XML_Char **attributes)
{
	const char *name = attribute(attributes, "name"), *obsoletes = attribute(attributes, "obsoletes");

	if (!name_fits(name))
		refuse(r, "a parameter without a proper name");
	else if (parameter_named(r->parameters, name))
		refuse(r, "the same parameter twice");
	else if (json_array_size(r->parameters) == PARAMETERS_MAX)
		refuse(r, "too many parameters");
	if (r->failed)
		return;
	r->parameter =
		json_pack("{s:s, s:s, s:b, s:b, s:b, s:n, s:o, s:n, s:s}", "name", name, "type", "string", "required",
			  is_one(attributes, "required"), "secret", agent_name_is_secret(name), "deprecated",
			  is_one(attributes, "deprecated"), "default", "obsoletes",
			  name_fits(obsoletes) ? json_string(obsoletes) : json_null(), "values", "description", "");
	json_array_append_new(r->parameters, r->parameter);
}

static void content_open(struct reader *r, const XML_Char **attributes)
{
	static const char *const types[] = {"string", "boolean", "integer", "second", "select"};
	const char *type = attribute(attributes, "type"), *used = "string";

	for (size_t i = 0; type && i < ARRAY_SIZE(types); i++)
		if (!strcmp(types[i], type))
			used = types[i];
	if (type && !strcmp(type, "password"))
		json_object_set_new(r->parameter, "secret", json_true());
	json_object_set_new(r->parameter, "type", json_string(used));
	json_object_set_new(r->parameter, "default", text_json(attribute(attributes, "default")));
	if (!strcmp(used, "select"))
		json_object_set_new(r->parameter, "values", json_array());
}

static void value_open(struct reader *r, const XML_Char **attributes)
{
	json_t *values = json_object_get(r->parameter, "values");
	const char *value = attribute(attributes, "value");

	if (!json_is_array(values) || !value)
		return;
	if (json_array_size(values) == VALUES_MAX || strlen(value) > TEXT_MAX_BYTES)
		refuse(r, "too many values, or too long ones");
	else
		json_array_append_new(values, json_string(value));
}

static void action_open(struct reader *r, const XML_Char **attributes)
{
	const char *name = attribute(attributes, "name");

	if (!name_fits(name) || json_array_size(r->actions) == ACTIONS_MAX) {
		refuse(r, "too many actions, or one without a proper name");
		return;
	}
	json_array_append_new(r->actions, json_string(name));
	if (!strcmp(name, "on") && is_one(attributes, "automatic"))
		json_object_set_new(r->root, "fabric", json_true());
}

static void root_open(struct reader *r, const char *element, const XML_Char **attributes)
{
	const char *name = attribute(attributes, "name");

	if (strcmp(element, "resource-agent") != 0) {
		refuse(r, "the first element is not resource-agent, so this is not what a fence agent says of itself");
		return;
	}
	json_object_set_new(r->root, "name", json_string(name && strlen(name) < AGENT_NAME_MAX ? name : ""));
	json_object_set_new(r->root, "description",
			    json_string(attribute(attributes, "shortdesc") ? attribute(attributes, "shortdesc") : ""));
}

static void XMLCALL element_open(void *arg, const XML_Char *element, const XML_Char **attributes)
{
	struct reader *r = arg;
	int depth = ++r->depth;

	if (r->failed)
		return;
	if (depth == 1)
		root_open(r, element, attributes);
	else if (depth > DEPTH_MAX)
		refuse(r, "elements within elements without end");
	else if (depth == 2) {
		r->in_parameters = !strcmp(element, "parameters");
		r->in_actions = !strcmp(element, "actions");
	} else if (depth == 3 && r->in_parameters && !strcmp(element, "parameter"))
		parameter_open(r, attributes);
	else if (depth == 3 && r->in_actions && !strcmp(element, "action"))
		action_open(r, attributes);
	else if (depth == 4 && r->parameter && !strcmp(element, "content"))
		content_open(r, attributes);
	else if (depth == 4 && r->parameter && !strcmp(element, "shortdesc")) {
		r->in_text = true;
		r->text_used = 0;
	} else if (depth == 5 && r->parameter && !strcmp(element, "option"))
		value_open(r, attributes);
}

static void text_close(struct reader *r)
{
	_free_ char *clean = NULL;

	r->in_text = false;
	r->text[r->text_used] = 0;
	clean = text_clean(r->text);
	json_object_set_new(r->parameter, "description", json_string(clean));
}

static void XMLCALL element_close(void *arg, const XML_Char *element)
{
	struct reader *r = arg;
	int depth = r->depth--;

	(void)element;
	if (r->failed)
		return;
	if (depth == 4 && r->in_text)
		text_close(r);
	if (depth == 3)
		r->parameter = NULL;
	if (depth == 2)
		r->in_parameters = r->in_actions = false;
}

static void XMLCALL element_text(void *arg, const XML_Char *text, int size)
{
	struct reader *r = arg;
	size_t n = (size_t)size;

	if (!r->in_text)
		return;
	if (n > TEXT_MAX_BYTES - r->text_used)
		n = TEXT_MAX_BYTES - r->text_used;
	memcpy(r->text + r->text_used, text, n);
	r->text_used += n;
}

static void XMLCALL doctype_open(void *arg, const XML_Char *name, const XML_Char *system_id, const XML_Char *public_id,
				 int internal)
{
	(void)name, (void)system_id, (void)public_id, (void)internal;
	refuse(arg, "it has a document type, which is not allowed here");
}

/* A parameter is as secret as the one that it obsoletes, and the other way round. */
static void secrets_spread(json_t *parameters)
{
	size_t i;
	json_t *p;

	json_array_foreach (parameters, i, p) {
		const char *old = json_string_value(json_object_get(p, "obsoletes"));
		json_t *other = old ? parameter_named(parameters, old) : NULL;

		if (!other)
			continue;
		if (json_is_true(json_object_get(other, "secret")))
			json_object_set_new(p, "secret", json_true());
		else if (json_is_true(json_object_get(p, "secret")))
			json_object_set_new(other, "secret", json_true());
	}
}

static int metadata_read(struct reader *r, const char *xml, size_t size)
{
	XML_SetUserData(r->parser, r);
	XML_SetElementHandler(r->parser, element_open, element_close);
	XML_SetCharacterDataHandler(r->parser, element_text);
	XML_SetStartDoctypeDeclHandler(r->parser, doctype_open);
	if (XML_Parse(r->parser, xml, (int)size, XML_TRUE) != XML_STATUS_OK && !r->failed)
		return err_set(r->e, ERR_PROTOCOL, "what it prints as its metadata is not XML: line %lu: %s",
			       XML_GetCurrentLineNumber(r->parser), XML_ErrorString(XML_GetErrorCode(r->parser)));
	if (r->failed)
		return -1;
	if (json_array_size(r->actions) == 0)
		return err_set(r->e, ERR_PROTOCOL, "its metadata has no actions");
	return 0;
}

json_t *agent_metadata_parse(const char *xml, size_t size, struct err *e)
{
	struct reader *r;
	json_t *root = NULL;

	if (size > AGENT_OUT_MAX) {
		err_set(e, ERR_PROTOCOL, "its metadata is longer than %u bytes", AGENT_OUT_MAX);
		return NULL;
	}
	r = xcalloc(1, sizeof(*r));
	r->e = e;
	r->parser = XML_ParserCreate(NULL);
	if (!r->parser)
		abort();
	r->parameters = json_array();
	r->actions = json_array();
	r->root = json_pack("{s:s, s:s, s:b, s:o, s:o}", "name", "", "description", "", "fabric", 0, "actions",
			    r->actions, "parameters", r->parameters);
	if (metadata_read(r, xml, size) == 0) {
		secrets_spread(r->parameters);
		root = json_incref(r->root);
	}
	json_decref(r->root);
	XML_ParserFree(r->parser);
	free(r);
	return root;
}

static bool has_action(const json_t *metadata, const char *name)
{
	size_t i;
	json_t *a;

	json_array_foreach (json_object_get(metadata, "actions"), i, a)
		if (!strcmp(json_string_value(a), name))
			return true;
	return false;
}

/* Agents that have `off` and `status` and are no proof all the same. */
static const struct {
	const char *name, *why;
} no_proof[] = {
	{"fence_sbd",
	 "its status reads the message that was left on the disk, not whether the host has died of it; use the "
	 "cluster's own slots on a shared disk instead"},
	{"fence_compute", "it tells a cloud to move guests, and leaves the host running"},
	{"fence_evacuate", "it tells a cloud to move guests, and leaves the host running"},
	{"fence_crosslink", "it looks at a cable, and leaves the host running"},
	{"fence_heuristics_ping", "it asks whether this host reaches others, and leaves the host running"},
	{"fence_ack_manual",
	 "it only hears what a person says; confirm by hand with the cluster's own command instead"},
	{"fence_kdump", "it hears that the other kernel has crashed, and cannot make it crash"},
};

int agent_metadata_usable(const json_t *metadata, struct err *e)
{
	const char *name = json_string_value(json_object_get(metadata, "name"));

	for (size_t i = 0; i < ARRAY_SIZE(no_proof); i++)
		if (!strcmp(name, no_proof[i].name))
			return err_set(e, ERR_UNSUPPORTED, "%s cannot prove that a host is off: %s", name,
				       no_proof[i].why);
	if (!has_action(metadata, "off"))
		return err_set(e, ERR_UNSUPPORTED, "%s has no action off, so it cannot keep a host off", name);
	if (!has_action(metadata, "status"))
		return err_set(e, ERR_UNSUPPORTED, "%s has no action status, so nobody can check that a host is off",
			       name);
	if (json_is_true(json_object_get(metadata, "fabric")))
		return err_set(e, ERR_UNSUPPORTED,
			       "%s cuts a host off storage or network and leaves it running, with its guests: use an "
			       "agent that "
			       "switches power",
			       name);
	return 0;
}

const char *agent_metadata_plug(const json_t *metadata, bool *ret_required)
{
	static const char *const names[] = {"plug", "port"};

	*ret_required = false;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		json_t *p = parameter_named(json_object_get(metadata, "parameters"), names[i]);

		if (!p)
			continue;
		*ret_required = json_is_true(json_object_get(p, "required"));
		return names[i];
	}
	return NULL;
}

json_t *agent_metadata_secrets(const json_t *metadata)
{
	json_t *names = json_array(), *p;
	size_t i;

	json_array_foreach (json_object_get(metadata, "parameters"), i, p)
		if (json_is_true(json_object_get(p, "secret")))
			json_array_append(names, json_object_get(p, "name"));
	return names;
}
