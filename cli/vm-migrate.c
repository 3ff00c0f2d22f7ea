/* SPDX-License-Identifier: Apache-2.0 */
/* godwit vm migrate: move a guest, watch it move. */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"

/* What a dry run answered. */
static int show_plan(struct cli *c, const json_t *answer, struct err *e)
{
	const json_t *forecast = json_object_get(answer, "forecast"), *placement = json_object_get(answer, "placement");

	if (c->json)
		view_print_json(c->io->out, answer);
	else if (json_is_object(forecast))
		run_forecast(c, forecast);
	return json_is_object(placement) ? run_placement(c, placement, e) : 0;
}

/* A number of the task's result, or of the migration's detail in it. */
static double result_number(const json_t *task, const char *key)
{
	const char *const places[] = {"result.%s", "result.detail.%s"};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		char field[64];
		json_t *v;

		snprintf(field, sizeof(field), places[i], key);
		v = view_get(task, field);
		if (json_is_number(v) && json_number_value(v) >= 0 && json_number_value(v) < 1e15)
			return json_number_value(v);
	}
	return -1;
}

/* Append ", pause 12 ms" to @line. */
static void add_duration(char *line, size_t size, const char *words, double ms)
{
	char text[TEXT_CELL];
	size_t used = strlen(line);

	if (ms < 0)
		return;
	text_duration(text, (int64_t)(ms * NS_PER_MS));
	snprintf(line + used, size - used, ", %s%s", words, text);
}

/* "vm web1: moved to n2, pause 12.3 ms, 8.93 s in all, 1.07 GB on the wire" */
static void print_moved(struct cli *c, const json_t *task)
{
	const char *to = json_string_value(view_get(task, "result.dst"));
	double bytes = result_number(task, "wire_bytes"), total = result_number(task, "total_ms");
	_free_ char *words = run_words(c);
	_free_ char *safe = text_clean(to ? to : cli_text(c, "to"));
	char line[256] = "", wire[TEXT_CELL];

	if (total < 0 && json_is_integer(json_object_get(task, "finished")))
		total = json_number_value(json_object_get(task, "finished")) -
			json_number_value(json_object_get(task, "created"));
	add_duration(line, sizeof(line), "pause ", result_number(task, "pause_ms"));
	add_duration(line, sizeof(line), "after ", total);
	if (bytes >= 0) {
		size_t used = strlen(line);

		text_wire(wire, (uint64_t)bytes);
		snprintf(line + used, sizeof(line) - used, ", %s on the wire", wire);
	}
	fprintf(c->io->out, "%s: moved%s%s%s\n", words, safe[0] ? " to " : "", safe, line);
}

int vm_migrate_run(struct cli *c, struct err *e)
{
	json_t *answer = NULL, *task = NULL;
	int r = request_command(c, &answer, e);

	if (r == 0 && cli_given(c, "dry-run")) {
		r = show_plan(c, answer, e);
	} else if (r == 0) {
		r = run_task(c, answer, cli_text(c, "NAME"), &task, e);
		if (r > 0 && c->json)
			view_print_json(c->io->out, task);
		else if (r > 0)
			print_moved(c, task);
		r = r < 0 ? -1 : 0;
	}
	json_decref(task);
	json_decref(answer);
	return r;
}
