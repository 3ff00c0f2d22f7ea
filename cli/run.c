/* SPDX-License-Identifier: Apache-2.0 */
/* What commands have in common: ask, follow the task, show. */
#include "cli/run.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "cli/request.h"
#include "cli/wait.h"

bool cli_takes(const struct cli *c, const char *name)
{
	const struct cli_param *lists[] = {c->command->operands, c->command->options};

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		for (const struct cli_param *p = lists[i]; p && p->name; p++)
			if (strcmp(p->name, name) == 0)
				return true;
	return false;
}

char *run_words(const struct cli *c)
{
	const struct cli_param *operands = c->command->operands;
	_free_ char *object = text_clean(operands ? cli_text(c, operands[0].name) : NULL);

	return xasprintf("%s%s%s", c->group->name, object[0] ? " " : "", object);
}

int run_task(struct cli *c, const json_t *answer, const char *moving, json_t **ret_task, struct err *e)
{
	_free_ char *words = run_words(c);
	json_t *task = json_object_get(answer, "task"), *end = NULL;

	if (cli_takes(c, "no-wait") && cli_given(c, "no-wait")) {
		if (c->json)
			view_print_json(c->io->out, answer);
		else
			fprintf(c->io->out, "%s: task %s; `godwit task show %s` follows it\n", words,
				json_string_value(json_object_get(task, "id")),
				json_string_value(json_object_get(task, "id")));
		return 0;
	}
	if (wait_task(c, task, moving, &end, e) < 0)
		return -1;
	if (wait_outcome(end, words, e) < 0) {
		json_decref(end);
		return -1;
	}
	*ret_task = end;
	return 1;
}

/* "vm web1: started on n2" */
static void print_done(struct cli *c, const json_t *task)
{
	_free_ char *words = run_words(c);
	const char *node = json_string_value(json_object_get(task, "node"));
	_free_ char *safe = text_clean(node);

	fprintf(c->io->out, "%s: %s%s%s\n", words, c->command->done ? c->command->done : "done", node ? " on " : "",
		safe);
}

/* What was decided on the way: not what was asked for, so it is said at once. */
static void tell_placed(struct cli *c, const json_t *answer)
{
	const char *placed = json_string_value(json_object_get(answer, "placed"));
	_free_ char *safe = text_clean(placed), *words = run_words(c);

	if (placed && !c->json)
		fprintf(c->io->err, "%s: %s\n", words, safe);
}

int run_answer(struct cli *c, json_t *answer, struct err *e)
{
	json_t *task = NULL;

	if (json_is_object(json_object_get(answer, "task"))) {
		int r;

		tell_placed(c, answer);
		r = run_task(c, answer, NULL, &task, e);

		if (r <= 0)
			return r;
		if (c->json)
			view_print_json(c->io->out, task);
		else
			print_done(c, task);
		json_decref(task);
	} else if (c->json) {
		view_print_json(c->io->out, answer);
	} else if (cli_takes(c, "names") && cli_given(c, "names")) {
		view_print_field(c->io->out, answer, c->command->view[0].field);
	} else if (c->command->view) {
		view_print(c->io->out, answer, c->command->view);
	} else {
		print_done(c, NULL);
	}
	return 0;
}

int run_command(struct cli *c, struct err *e)
{
	json_t *answer = NULL;
	int r = request_command(c, &answer, e);

	if (r == 0)
		r = run_answer(c, answer, e);
	json_decref(answer);
	return r;
}

/* ---- placement ---- */

static void print_sentences(FILE *out, const json_t *list, const char *mark)
{
	json_t *s;
	size_t i;

	json_array_foreach (list, i, s) {
		_free_ char *text = text_clean(json_string_value(s));

		fprintf(out, "    %s %s\n", mark, text);
	}
}

int run_placement(struct cli *c, const json_t *placement, struct err *e)
{
	const char *choice = json_string_value(json_object_get(placement, "choice"));
	json_t *node;
	size_t i;

	json_array_foreach (json_object_get(placement, "nodes"), i, node) {
		_free_ char *name = text_clean(json_string_value(json_object_get(node, "node")));
		bool fits = json_is_true(json_object_get(node, "fits"));

		if (c->json)
			break;
		if (fits)
			fprintf(c->io->out, "%s: fits, score %.0f%s\n", name,
				json_number_value(json_object_get(node, "score")),
				choice && strcmp(choice, name) == 0 ? ", the best" : "");
		else
			fprintf(c->io->out, "%s: does not fit\n", name);
		print_sentences(c->io->out, json_object_get(node, "reasons"), "-");
		print_sentences(c->io->out, json_object_get(node, "remarks"), "~");
	}
	if (choice)
		return 0;
	return err_set(e, ERR_CONFLICT, "no host fits; `godwit node list` shows what they have");
}

/* ---- forecast ---- */

void run_forecast(struct cli *c, const json_t *f)
{
	static const struct view_column columns[] = {
		{"destination", "to", VIEW_TEXT},
		{"converges", "converges", VIEW_TEXT},
		{"time", "ms", VIEW_MS},
		{"on the wire", "sent", VIEW_TEXT},
		{"passes", "passes", VIEW_TEXT},
		{"pause", "pause_ms", VIEW_MS},
		{"guest writes", "dirty", VIEW_TEXT},
		{"wire carries", "rate", VIEW_TEXT},
		{"that is", "wire_why", VIEW_TEXT},
		{"because", "reasons", VIEW_LIST},
		{NULL, NULL, VIEW_TEXT},
	};
	static const struct {
		const char *from, *to, *behind;
	} rates[] = {{"bytes", "sent", ""}, {"dirty_bytes_per_s", "dirty", "/s"}, {"wire_bytes_per_s", "rate", "/s"}};
	json_t *shown = json_copy((json_t *)f), *seconds = json_object_get(f, "seconds");

	if (json_is_number(seconds))
		json_object_set_new(shown, "ms", json_real(json_number_value(seconds) * 1000));
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		json_t *v = json_object_get(f, rates[i].from);
		char text[TEXT_CELL];
		_free_ char *rate = NULL;

		if (!json_is_number(v) || json_number_value(v) < 0)
			continue;
		text_wire(text, (uint64_t)json_number_value(v));
		rate = xasprintf("%s%s", text, rates[i].behind);
		json_object_set_new(shown, rates[i].to, json_string(rate));
	}
	view_print(c->io->out, shown, columns);
	json_decref(shown);
}
