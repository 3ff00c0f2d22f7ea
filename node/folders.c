/* SPDX-License-Identifier: Apache-2.0 */
/* The folders with files of the cluster's guests.
 *
 * Every host looks at those of all guests, also of guests that never were here: placement asks before a guest comes. A
 * folder that nobody has looked at counts as reached. If it did not, the first guest of a new folder would find no
 * host, and after a start of all hosts none would take a guest before it has looked; if it is wrong, a start fails, and
 * the manager tries another host (docs/ha.md).
 */
#include "node/folders.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "cluster/state.h"
#include "hv/reach.h"
#include "node/agent.h"
#include "node/daemon-int.h"
#include "node/reach.h"

struct folders {
	struct daemon *d;
	struct reach *reach;
	bool changed;
	bool full; /* and that was said */
};

/* ---- pure ---- */

json_t *folders_of(const json_t *files, bool *ret_full)
{
	json_t *ret = json_object(), *row;
	size_t i;

	*ret_full = false;
	json_array_foreach (files, i, row) {
		const char *file = json_string_value(json_object_get(row, "file"));
		const char *slash = file && file[0] == '/' ? strrchr(file, '/') : NULL;
		_free_ char *folder = NULL;
		json_t *list;

		if (!slash)
			continue;
		folder = slash == file ? xstrdup("/") : xasprintf("%.*s", (int)(slash - file), file);
		list = json_object_get(ret, folder);
		if (!list && json_object_size(ret) == REACH_FOLDERS_MAX) {
			*ret_full = true;
			continue;
		}
		if (!list) {
			list = json_array();
			json_object_set_new(ret, folder, list);
		}
		if (json_integer_value(json_object_get(row, "made")) == 0)
			json_array_append(list, json_object_get(row, "file"));
	}
	return ret;
}

json_t *folders_report(const json_t *unreached)
{
	json_t *ret = json_object(), *why;
	const char *folder;
	size_t size = 0;

	json_object_foreach ((json_t *)unreached, folder, why) {
		json_t *one = json_pack("{s:O}", folder, why);
		size_t more = json_dumpb(one, NULL, 0, JSON_COMPACT); /* a quote is two bytes there */

		json_decref(one);
		if (size + more > FOLDERS_REPORT_MAX)
			continue;
		size += more;
		json_object_set(ret, folder, why);
	}
	if (json_object_size(ret))
		return ret;
	json_decref(ret);
	return NULL;
}

/* ---- from outside ---- */

struct folders *folders_new(struct daemon *d)
{
	struct folders *f = xcalloc(1, sizeof(*f));
	_free_ char *program = agent_program_beside("godwit-vm");
	struct reach_config c = {
		.program = program, .every_ns = REACH_EVERY, .late_ns = REACH_LATE, .changed = daemon_report, .arg = d};

	f->d = d;
	f->changed = true;
	f->reach = reach_new(d->loop, &c);
	return f;
}

void folders_free(struct folders *f)
{
	if (!f)
		return;
	reach_free(f->reach);
	free(f);
}

void folders_changed(struct folders *f)
{
	f->changed = true;
}

void folders_tick(struct folders *f)
{
	json_t *files, *folders;
	bool full;

	if (!f->changed)
		return;
	files = state_vm_files(replica_db(f->d->replica), NULL);
	if (!files) /* the disk; once more in a second */
		return;
	f->changed = false;
	folders = folders_of(files, &full);
	if (full && !f->full)
		log_warning("event=folders text=\"guests have files in more than %d folders, which are looked at: "
			    "placement counts the others as reached\"",
			    REACH_FOLDERS_MAX);
	f->full = full;
	reach_set(f->reach, folders);
	json_decref(folders);
	json_decref(files);
}

json_t *folders_json(const struct folders *f)
{
	json_t *all = reach_json(f->reach), *ret = folders_report(all);

	json_decref(all);
	return ret;
}
