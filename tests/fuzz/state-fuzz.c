/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing the commands of the replicated state: every one is applied or refused with a sentence, never half, never as
 * a failure of this host alone, and two members come to the same rows. */
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define COMMANDS_MAX 64

/* Two members, in memory. Each input begins at the same state and is taken back afterwards. */
static sqlite3 *members[2];
static uint8_t empty[32];

static void script(sqlite3 *db, const char *text)
{
	if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
		abort();
}

static void digest(sqlite3 *db, uint8_t out[32])
{
	if (state_machine.digest(db, out, NULL) < 0)
		abort();
}

static void begin(void)
{
	for (int i = 0; i < 2; i++) {
		if (sqlite3_open(":memory:", &members[i]) != SQLITE_OK)
			abort();
		script(members[i], i ? "PRAGMA page_size = 512" : "PRAGMA page_size = 65536");
		if (state_machine.schema(members[i], NULL) < 0)
			abort();
	}
	digest(members[0], empty);
}

/* A whole command, or "OP ARGS", which gets an envelope. NULL for other bytes. */
static json_t *command_of(const char *line, size_t size, size_t number)
{
	const char *space = memchr(line, ' ', size);
	char id[48], op[65];
	json_t *args;

	if (size && *line == '{')
		return json_loadb(line, size, JSON_ALLOW_NUL, NULL);
	if (!space)
		return NULL;
	args = json_loadb(space, size - (size_t)(space - line), JSON_ALLOW_NUL, NULL);
	if (!args)
		return NULL;
	snprintf(id, sizeof(id), "00000000-0000-4000-9000-%012zx", number);
	snprintf(op, sizeof(op), "%.*s", (int)(space - line), line);
	return json_pack("{s:s%, s:i, s:s, s:I, s:s, s:s, s:o}", "op", line, (size_t)(space - line), "v",
			 (int)state_command_version(op, args), "id", id, "time",
			 (json_int_t)1700000000000 + (json_int_t)number, "by", "fuzz", "from", "::1", "args", args);
}

static int apply(sqlite3 *db, size_t number, const json_t *command, json_t **ret, struct err *e)
{
	int r;

	script(db, "SAVEPOINT command");
	r = state_machine.apply(db, number, command, ret, e);
	script(db, r < 0 ? "ROLLBACK TO command; RELEASE command" : "RELEASE command");
	if (r == 0 ? !json_is_object(*ret) || e->code != ERR_NONE : e->code == ERR_NONE || !e->text[0])
		abort();
	if (e->code == ERR_SYSTEM)
		abort();
	return r;
}

static void apply_on_both(const json_t *command, size_t number)
{
	json_t *results[2] = {NULL, NULL};
	struct err e[2] = {ERR_INIT, ERR_INIT};
	int r = apply(members[0], number, command, &results[0], &e[0]);

	if (apply(members[1], number, command, &results[1], &e[1]) != r || e[0].code != e[1].code ||
	    strcmp(e[0].text, e[1].text) != 0 || (r == 0 && !json_equal(results[0], results[1])))
		abort();
	json_decref(results[0]);
	json_decref(results[1]);
}

/* What the API asks for must be there in every state that commands can make. */
static void ask(sqlite3 *db)
{
	json_t *answers[] = {state_node_list(db, NULL),
			     state_vm_list(db, NULL),
			     state_network_list(db, NULL),
			     state_migration_list(db, false, NULL),
			     state_task_list(db, false, NULL),
			     state_user_list(db, NULL),
			     state_setting_list(db, "", NULL),
			     state_event_list(db, 0, 1000, NULL),
			     state_audit_list(db, 0, 1000, NULL),
			     state_fencing_list(db, NULL, 1000, NULL),
			     state_fence_device_list(db, true, NULL),
			     state_fence_level_list(db, NULL),
			     state_fence_plan(db, "n1", NULL),
			     state_ha_list(db, NULL)};

	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		if (!json_is_array(answers[i]))
			abort();
		json_decref(answers[i]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *p = (const char *)data, *end = p + size;
	uint8_t digests[2][32];
	size_t number = 0;

	if (!members[0])
		begin();
	script(members[0], "SAVEPOINT input");
	script(members[1], "SAVEPOINT input");
	while (p < end && number < COMMANDS_MAX) {
		const char *line = p, *eol = memchr(p, '\n', (size_t)(end - p));
		json_t *command;

		p = eol ? eol + 1 : end;
		command = command_of(line, (size_t)((eol ? eol : end) - line), ++number);
		if (command)
			apply_on_both(command, number);
		json_decref(command);
	}
	ask(members[0]);
	for (int i = 0; i < 2; i++) {
		digest(members[i], digests[i]);
		script(members[i], "ROLLBACK TO input; RELEASE input");
	}
	if (memcmp(digests[0], digests[1], 32) != 0)
		abort();
	digest(members[0], digests[0]);
	if (memcmp(digests[0], empty, 32) != 0)
		abort();
	return 0;
}
