/* SPDX-License-Identifier: Apache-2.0 */
/* When a task has come to its end.
 *
 * A task says what somebody asked for; the state says what is. A task is judged when it is made and at every command
 * that concerns it, by the leader of the log, which proposes its end. Whoever leads next judges all open tasks again,
 * so a leader that dies leaves none behind. The judgement depends on the state alone, with one exception: whether the
 * last report of a failure was made after the task, for a guest that could not be started yesterday must not fail
 * today's attempt.
 */
#include "node/tasks.h"

#include <string.h>

#include "base/mem.h"

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static bool is(const json_t *o, const char *key, const char *value)
{
	return !strcmp(text_of(o, key), value);
}

bool task_touched(const json_t *task, const json_t *command)
{
	const json_t *args = json_object_get(command, "args");
	const char *op = text_of(command, "op"), *id = text_of(task, "id"), *object = text_of(task, "object");

	if (!strcmp(op, "task.create") || !strncmp(op, "migration.", 10))
		return is(args, "id", id);
	if (!strcmp(op, "vm.observed"))
		return is(args, "vm", object);
	return !strncmp(op, "vm.", 3) && is(args, "name", object);
}

/* ---- ends ---- */

static json_t *end(const json_t *task, const char *state)
{
	return json_pack("{s:s, s:s}", "id", text_of(task, "id"), "state", state);
}

static json_t *done(const json_t *task, json_t *result)
{
	json_t *o = end(task, "done");

	json_object_set_new(o, "result", result);
	return o;
}

static json_t *ended_badly(const json_t *task, const char *state, const char *before, const char *reason,
			   const char *after)
{
	_free_ char *error = xasprintf("%s%.800s%s", before, reason, after);
	json_t *o = end(task, state);

	json_object_set_new(o, "error", json_string(error));
	return o;
}

/* ---- kinds ---- */

static bool is_up(const json_t *vm)
{
	return is(vm, "status", "running") || is(vm, "status", "paused");
}

static bool is_down(const json_t *vm)
{
	return is(vm, "status", "stopped") || is(vm, "status", "failed");
}

static json_t *judge_start(const json_t *task, const json_t *vm, bool fresh)
{
	if (!vm)
		return ended_badly(task, "failed", "the guest was deleted", "", "");
	if (!is(vm, "intent", "running")) {
		if (is(task, "kind", TASK_VM_CREATE))
			return done(task, json_pack("{s:s}", "node", text_of(vm, "owner")));
		return ended_badly(task, "cancelled", "somebody asked meanwhile that it be ", text_of(vm, "intent"),
				   "");
	}
	if (is_up(vm))
		return done(task,
			    json_pack("{s:s, s:s}", "node", text_of(vm, "owner"), "status", text_of(vm, "status")));
	if (fresh && is_down(vm) && *text_of(vm, "note"))
		return ended_badly(task, "failed", "", text_of(vm, "note"),
				   "; where it is to start again says `vm show`");
	return NULL;
}

static json_t *judge_stop(const json_t *task, const json_t *vm)
{
	if (!vm)
		return done(task, json_object());
	if (is(vm, "intent", "running"))
		return ended_badly(task, "cancelled", "somebody asked meanwhile that it be running", "", "");
	if (is_down(vm))
		return done(task,
			    json_pack("{s:s, s:s}", "node", text_of(vm, "owner"), "status", text_of(vm, "status")));
	return NULL;
}

/* What the sides have told of a move, without the token that was for one of them. New reference. */
static json_t *detail_of(const json_t *migration)
{
	json_t *detail = json_copy(json_object_get(migration, "detail"));

	if (json_is_object(detail))
		json_object_del(detail, "token");
	return detail;
}

static json_t *judge_move(const json_t *task, const json_t *migration)
{
	const char *error = text_of(migration, "error"), *note = text_of(migration, "note");
	const char *reason = *error ? error : *note ? note : "no reason was given";
	json_t *result;

	if (!migration)
		return ended_badly(task, "failed", "the state does not remember this migration", "", "");
	if (is(migration, "step", "done")) {
		result = json_pack("{s:s, s:s}", "src", text_of(migration, "src"), "dst", text_of(migration, "dst"));
		json_object_set_new(result, "detail", detail_of(migration));
		return done(task, result);
	}
	if (is(migration, "step", "failed"))
		return ended_badly(task, "failed", "", reason, "");
	if (is(migration, "step", "cancelled"))
		return ended_badly(task, "cancelled", *error ? error : "somebody cancelled it", "", "");
	return NULL;
}

json_t *task_judge(const json_t *task, const json_t *vm, const json_t *migration, bool fresh)
{
	if (is(task, "kind", TASK_VM_CREATE) || is(task, "kind", TASK_VM_START))
		return judge_start(task, vm, fresh);
	if (is(task, "kind", TASK_VM_STOP) || is(task, "kind", TASK_VM_KILL))
		return judge_stop(task, vm);
	if (is(task, "kind", TASK_VM_MIGRATE))
		return judge_move(task, migration);
	return NULL;
}
