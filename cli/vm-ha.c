/* SPDX-License-Identifier: Apache-2.0 */
/* godwit vm ha: what is done for a guest when it or its host dies. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"

#define SECONDS_MAX 86400

const struct cli_param vm_ha_options[] = {
	{.name = "mode",
	 .value = "MODE",
	 .kind = CLI_CHOICE,
	 .words = "restart|none|default",
	 .field = "mode",
	 .help = "restart it, or let it be; default: as the setting ha.default says"},
	{.name = "priority",
	 .value = "N",
	 .kind = CLI_NUMBER,
	 .max = 1000,
	 .field = "priority",
	 .help = "who gets room and a turn first: 0 to 1000, the higher (default 100)"},
	{.name = "max-restarts",
	 .value = "N",
	 .kind = CLI_NUMBER,
	 .max = 32,
	 .field = "max_restarts",
	 .help = "in an hour; then it stays down until somebody starts it (default 3)"},
	{.name = "failback",
	 .value = "WHEN",
	 .kind = CLI_CHOICE,
	 .words = "never|when-idle",
	 .field = "failback",
	 .help = "whether it moves back to where it was before its host died (default never)"},
	{.name = "after",
	 .value = "VM[:running|:delay=TIME|:port=ADDRESS:PORT]",
	 .kind = CLI_TEXT,
	 .many = true,
	 .not_with = "after-nothing",
	 .help = "it starts when this guest runs, has run for so long, or answers there; replaces what was said "
		 "before"},
	{.name = "after-nothing", .kind = CLI_FLAG, .not_with = "after", .help = "it waits for no other guest"},
	{0},
};

static const struct view_column ha_view[] = {
	{"guest", "vm", VIEW_TEXT},
	{"when it dies", "mode", VIEW_TEXT},
	{"said for it alone", "own_mode", VIEW_TEXT},
	{"priority", "priority", VIEW_TEXT},
	{"restarts in an hour", "max_restarts", VIEW_TEXT},
	{"failback", "failback", VIEW_TEXT},
	{"home", "home", VIEW_TEXT},
	{"starts after", "waits", VIEW_LIST},
	{NULL, NULL, VIEW_TEXT},
};

static const struct view_column restarts_view[] = {
	{"RESTARTED", "time", VIEW_TIME}, {"WHY", "kind", VIEW_TEXT}, {"ON", "node", VIEW_TEXT},
	{"BECAUSE", "reason", VIEW_TEXT}, {NULL, NULL, VIEW_TEXT},
};

static int wrong(const char *text, struct err *e)
{
	return err_set(e, ERR_USAGE, "--after %.128s: must be VM, VM:running, VM:delay=SECONDS or VM:port=ADDRESS:PORT",
		       text);
}

/* One condition of the command line, as the API takes it, into @list. */
static int after_read(const char *text, json_t *list, struct err *e)
{
	size_t n = strcspn(text, ":");
	const char *until = text[n] ? text + n + 1 : "running";
	json_t *item;
	char *end;

	if (!n)
		return wrong(text, e);
	item = json_pack("{s:s%}", "vm", text, n);
	if (!item)
		return wrong(text, e);
	json_array_append_new(list, item);
	if (!strcmp(until, "running")) {
		json_object_set_new(item, "until", json_string("running"));
	} else if (!strncmp(until, "delay=", 6)) {
		long seconds = strtol(until + 6, &end, 10);

		if (seconds < 1 || seconds > SECONDS_MAX || (*end && strcmp(end, "s") != 0))
			return err_set(e, ERR_USAGE, "--after %.128s: the delay must be 1 to %d seconds", text,
				       SECONDS_MAX);
		json_object_set_new(item, "until", json_string("delay"));
		json_object_set_new(item, "seconds", json_integer(seconds));
	} else if (!strncmp(until, "port=", 5) && until[5]) {
		json_object_set_new(item, "until", json_string("port"));
		json_object_set_new(item, "address", json_string(until + 5));
	} else {
		return wrong(text, e);
	}
	return 0;
}

/* ["db1", "db2 for 30 s", "web at 10.0.0.5:80"] */
static json_t *waits(const json_t *after)
{
	json_t *list = json_array(), *a;
	size_t i;

	json_array_foreach (after, i, a) {
		const char *vm = json_string_value(json_object_get(a, "vm"));
		const char *address = json_string_value(json_object_get(a, "address"));
		const json_t *seconds = json_object_get(a, "seconds");

		json_array_append_new(list, address ? json_sprintf("%s answers at %s", vm, address)
					    : json_is_integer(seconds)
						    ? json_sprintf("%s has run for %lld s", vm,
								   (long long)json_integer_value(seconds))
						    : json_sprintf("%s runs", vm));
	}
	return list;
}

static void show(struct cli *c, const json_t *ha)
{
	json_t *shown = json_copy((json_t *)ha), *list = waits(json_object_get(ha, "after"));

	if (json_array_size(list))
		json_object_set(shown, "waits", list);
	view_print(c->io->out, shown, ha_view);
	if (json_array_size(json_object_get(ha, "restarts"))) {
		fputc('\n', c->io->out);
		view_print(c->io->out, json_object_get(ha, "restarts"), restarts_view);
	}
	json_decref(list);
	json_decref(shown);
}

/* What was given, as the API takes it. New reference; NULL with @e. */
static json_t *body_make(const struct cli *c, struct err *e)
{
	json_t *body = json_object(), *after = json_array();
	const char *text;
	int r = request_fields(c, body, e);

	for (size_t i = 0; r == 0 && (text = cli_nth(c, "after", i)); i++)
		r = after_read(text, after, e);
	if (json_array_size(after) || cli_given(c, "after-nothing"))
		json_object_set(body, "after", after);
	json_decref(after);
	if (r == 0)
		return body;
	json_decref(body);
	return NULL;
}

int vm_ha_run(struct cli *c, struct err *e)
{
	_free_ char *target = request_target(c, c->command->path);
	json_t *body = body_make(c, e), *answer = NULL;
	int r;

	if (!body)
		return -1;
	if (json_object_size(body))
		r = request(c, "PUT", target, body, &answer, e);
	else
		r = request(c, "GET", target, NULL, &answer, e);
	if (r == 0 && c->json)
		view_print_json(c->io->out, answer);
	else if (r == 0)
		show(c, answer);
	json_decref(answer);
	json_decref(body);
	return r;
}
