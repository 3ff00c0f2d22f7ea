/* SPDX-License-Identifier: Apache-2.0 */
/* godwit events: what happens in the cluster. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/text.h"
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"

#define CONNECT_NS (30 * NS_PER_S)
#define QUIET_NS (NS_PER_S / 2) /* without -f: what is remembered has been told when nothing came for so long */
#define LOST_NS (60 * NS_PER_S) /* with -f: a daemon that is not there for so long is given up */
#define AGAIN_MS 500

/* ---- showing ---- */

/* Whether a line about @object says this member already, or has no room for it. */
static bool is_left_out(const char *object, const json_t *value)
{
	const char *text = json_string_value(value);

	return json_is_null(value) || json_is_object(value) || (text && strcmp(text, object) == 0);
}

/* " key=value key=\"more words\"": the members of @data that are not said already. */
static char *data_text(const json_t *data, const char *object)
{
	char *text = xstrdup("");
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)data, key, value) {
		const struct view_column column = {key, key, json_is_array(value) ? VIEW_LIST : VIEW_TEXT};
		_free_ char *name = text_clean(key);
		_free_ char *cell = NULL;
		const char *quote;
		char *longer;

		if (is_left_out(object, value) || strchr(key, '.'))
			continue;
		cell = view_cell(data, &column);
		quote = strchr(cell, ' ') || !cell[0] ? "\"" : "";
		longer = xasprintf("%s %s=%s%s%s", text, name, quote, cell, quote);
		free(text);
		text = longer;
	}
	return text;
}

static void print_line(FILE *out, const char *name, const json_t *o)
{
	static const struct view_column columns[] = {
		{"", "time", VIEW_TIME}, {"", "op", VIEW_TEXT}, {"", "object", VIEW_TEXT}, {"", "by", VIEW_TEXT}};
	const json_t *inner = json_object_get(o, "data");
	_free_ char *time = view_cell(o, &columns[0]);
	_free_ char *op = view_get(o, "op") ? view_cell(o, &columns[1]) : text_clean(name);
	_free_ char *object = view_get(o, "object") ? view_cell(o, &columns[2]) : xstrdup("");
	_free_ char *by = view_get(o, "by") ? view_cell(o, &columns[3]) : NULL;
	_free_ char *rest = data_text(view_get(o, "op") ? inner : o, object);

	fprintf(out, "%s  %s%s%s%s%s%s\n", time, op, object[0] ? " " : "", object, rest, by ? "  by " : "",
		by ? by : "");
}

/* Whether this is about the moment only: how far something is. */
static bool is_progress(const struct http_event *ev, const json_t *o)
{
	const char *op = json_string_value(json_object_get(o, "op"));

	return !ev->id[0] || (op && strcmp(op, "task.update") == 0);
}

static void print_event(struct cli *c, const struct http_event *ev)
{
	json_t *o = json_loads(ev->data, JSON_DECODE_ANY, NULL);

	if (strcmp(ev->name, "gap") == 0) {
		fprintf(c->io->err, "godwit: events are missing here: they are not remembered for so long\n");
	} else if (!is_progress(ev, o) || cli_given(c, "progress")) {
		if (c->json && json_is_object(o))
			json_object_set_new(o, "event", json_string(ev->name));
		if (c->json)
			view_print_json(c->io->out, o);
		else
			print_line(c->io->out, ev->name, o);
		fflush(c->io->out);
	}
	json_decref(o);
}

/* ---- listening ---- */

/* Everything until the stream ends (0), nothing came for a while and nobody wants to follow (1), or -1 with @e.
 * *last: the id of the newest, or "". */
static int read_events(struct cli *c, bool follow, char **last, struct err *e)
{
	for (;;) {
		int64_t deadline = follow ? SOCK_FOREVER : clock_now_ns() + QUIET_NS;
		struct http_event ev;
		bool ended;
		int r = http_client_event(c->client, deadline, &ev, &ended, e);

		if (r <= 0)
			return r < 0 ? -1 : !ended;
		print_event(c, &ev);
		if (ev.id[0]) {
			free(*last);
			*last = xstrdup(ev.id);
		}
		http_event_done(&ev);
		if (ferror(c->io->out))
			return err_set(e, ERR_SYSTEM, "nobody reads the events any more");
	}
}

static int listen_since(struct cli *c, const char *since, struct err *e)
{
	_free_ char *target = since ? xasprintf("%s?since=%s", c->command->path, since) : xstrdup(c->command->path);

	if (!c->client && request_client(c, &c->client, e) < 0)
		return -1;
	return http_client_listen(c->client, target, clock_now_ns() + CONNECT_NS, e);
}

static bool may_go_on(const struct cli *c, const struct err *e)
{
	return !ferror(c->io->out) && request_may_pass(e);
}

/* Go on where we were for as long as the daemon comes back in time. */
static int follow(struct cli *c, char **last, struct err *e)
{
	int64_t lost_ns;
	int r;

	do {
		r = read_events(c, true, last, e);
		lost_ns = clock_now_ns();
		if (r < 0 && !may_go_on(c, e))
			return -1;
		do {
			nanosleep(&(struct timespec){.tv_nsec = AGAIN_MS * NS_PER_MS}, NULL);
			r = listen_since(c, *last, e);
		} while (r < 0 && may_go_on(c, e) && clock_now_ns() - lost_ns < LOST_NS);
	} while (r == 0);
	return request_failed(c, e);
}

static int events_run(struct cli *c, struct err *e)
{
	bool following = cli_given(c, "follow");
	const char *since = cli_given(c, "since") ? cli_text(c, "since") : following ? NULL : "0";
	_free_ char *last = since ? xstrdup(since) : NULL;

	if (listen_since(c, since, e) < 0)
		return request_failed(c, e);
	if (following)
		return follow(c, &last, e);
	return read_events(c, false, &last, e) < 0 ? request_failed(c, e) : 0;
}

const struct cli_group events_group = {
	"events",
	"what happens in the cluster",
	(const struct cli_command[]){
		{.options =
			 (const struct cli_param[]){
				 {.name = "follow",
				  .letter = 'f',
				  .kind = CLI_FLAG,
				  .help = "go on with what happens from now on"},
				 {.name = "since",
				  .value = "N",
				  .kind = CLI_NUMBER,
				  .max = INT64_MAX,
				  .help = "begin after the event with this number"},
				 {.name = "progress", .kind = CLI_FLAG, .help = "also how far tasks and moves are"},
				 {0}},
		 .summary = "Show what happened in the cluster lately, or what happens",
		 .method = "GET",
		 .path = "/v1/events",
		 .run = events_run},
		{0},
	},
};
