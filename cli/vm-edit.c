/* SPDX-License-Identifier: Apache-2.0 */
/* godwit vm edit: change a definition in an editor, or replace it by a file. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/definition.h"
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"
#include "cli/value.h"

/* Replace the definition; @version: only if that is the newest (0: whatever it is). */
static int put(struct cli *c, json_t *definition, int64_t version, struct err *e)
{
	_free_ char *target = request_target(c, c->command->path);
	json_t *body = json_pack("{s:O}", "definition", definition), *answer = NULL;
	int r;

	if (version)
		json_object_set_new(body, "if_version", json_integer(version));
	r = request(c, c->command->method, target, body, &answer, e);
	if (r == 0 && c->json)
		view_print_json(c->io->out, answer);
	else if (r == 0)
		fprintf(c->io->out, "vm %s: version %lld; it counts from the next start\n", cli_text(c, "NAME"),
			(long long)json_integer_value(json_object_get(answer, "version")));
	json_decref(body);
	json_decref(answer);
	return r;
}

static int edit_file(struct cli *c, struct err *e)
{
	json_t *definition = definition_load(cli_text(c, "file"), c->io->in_fd, e);
	int r = definition ? put(c, definition, cli_number(c, "if-version", 0), e) : -1;

	json_decref(definition);
	return r;
}

/* ---- an editor ---- */

static const char *editor(const struct cli *c, struct err *e)
{
	static const char *const names[] = {"VISUAL", "EDITOR"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *command = getenv(names[i]);

		if (command && command[0])
			return command;
	}
	if (c->io->in_tty)
		return "vi";
	err_set(e, ERR_USAGE, "vm edit without a terminal needs --file FILE, or an editor in $EDITOR");
	return NULL;
}

/* Let the user's editor have the file; its command may hold options, so a shell reads it. Ctrl-C is the editor's. */
static int editor_run(const char *command, const char *path, struct err *e)
{
	_free_ char *script = xasprintf("%s \"$1\"", command);
	struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
	int status = -1;
	pid_t pid;

	pid = fork();
	if (pid == 0) {
		execl("/bin/sh", "sh", "-c", script, "sh", path, (char *)NULL);
		_exit(127);
	}
	if (pid < 0)
		return err_sys(e, "starting %s", command);
	sigaction(SIGINT, &ignore, &before);
	while (waitpid(pid, &status, 0) < 0)
		;
	sigaction(SIGINT, &before, NULL);
	return status == 0 ? 0 : err_set(e, ERR_CANCELLED, "the editor %s failed; nothing is changed", command);
}

/* A file of our own that holds @text; its name in @path, which ends in XXXXXX.json. */
static int file_make(char *path, const char *text, struct err *e)
{
	_closefd_ int fd = mkostemps(path, 5, O_CLOEXEC);
	size_t n = strlen(text);

	if (fd < 0)
		return err_sys(e, "%s", path);
	if (write(fd, text, n) == (ssize_t)n)
		return 0;
	err_sys(e, "%s", path);
	unlink(path);
	return -1;
}

/* Have @definition changed in the file at @path, and sent. */
static int edit_at(struct cli *c, const char *command, const char *path, const json_t *definition, int64_t version,
		   struct err *e)
{
	_free_ char *after = NULL;
	json_t *changed;
	int r;

	if (editor_run(command, path, e) < 0)
		return -1;
	after = value_file(path, DEFINITION_FILE_MAX, e);
	changed = after ? definition_parse(after, path, NULL, e) : NULL;
	if (changed && json_equal(changed, definition)) {
		fprintf(c->io->err, "vm %s: nothing is changed\n", cli_text(c, "NAME"));
		json_decref(changed);
		return 0;
	}
	r = changed ? put(c, changed, version, e) : -1;
	json_decref(changed);
	return r;
}

static int edit_text(struct cli *c, const json_t *definition, int64_t version, struct err *e)
{
	const char *tmp = getenv("TMPDIR"), *command = editor(c, e);
	_free_ char *text = json_dumps(definition, JSON_INDENT(2));
	_free_ char *with_newline = xasprintf("%s\n", text);
	_free_ char *path = xasprintf("%s/godwit-XXXXXX.json", tmp && tmp[0] ? tmp : "/tmp");
	int r;

	if (!command || file_make(path, with_newline, e) < 0)
		return -1;
	r = edit_at(c, command, path, definition, version, e);
	if (r == 0 || e->code == ERR_CANCELLED)
		unlink(path);
	else
		err_wrap(e, "your text is kept: put it right and give it with `godwit vm edit %s --file %s`",
			 cli_text(c, "NAME"), path);
	return r;
}

int vm_edit_run(struct cli *c, struct err *e)
{
	_free_ char *target = request_target(c, "/v1/vms/{NAME}/definition");
	json_t *answer = NULL;
	int r;

	if (cli_text(c, "file"))
		return edit_file(c, e);
	if (request(c, "GET", target, NULL, &answer, e) < 0)
		return -1;
	r = edit_text(c, json_object_get(answer, "definition"), json_integer_value(json_object_get(answer, "version")),
		      e);
	json_decref(answer);
	return r;
}
