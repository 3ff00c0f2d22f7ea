/* SPDX-License-Identifier: Apache-2.0 */
/* The run directory. What it says decides which processes are signalled, so nothing in it is believed that somebody
 * else could have written. */
#include "hv/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "hv/def.h"

#define STATE_FILE "state.json"
#define STATE_MAX (8U << 20) /* bytes */

char *rundir_default(void)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");

	if (geteuid() == 0)
		return xstrdup("/run/godwit");
	if (xdg && xdg[0] == '/')
		return xasprintf("%s/godwit", xdg);
	return xasprintf("/tmp/godwit-%u", (unsigned)geteuid());
}

int rundir_check(const char *dir, struct err *e)
{
	struct stat st;

	if (lstat(dir, &st) < 0) {
		if (errno == ENOENT)
			return err_set(e, ERR_INPUT, "run directory %s does not exist: no guest was started there",
				       dir);
		return err_sys(e, "run directory %s", dir);
	}
	if (!S_ISDIR(st.st_mode))
		return err_set(e, ERR_UNSUPPORTED, "run directory %s is not a folder", dir);
	if (st.st_uid != geteuid())
		return err_set(e, ERR_UNSUPPORTED,
			       "run directory %s belongs to user %u, not to you; choose another with --run-dir", dir,
			       (unsigned)st.st_uid);
	if (st.st_mode & 0022)
		return err_set(e, ERR_UNSUPPORTED, "run directory %s can be written by others; chmod go-w %s", dir,
			       dir);
	return 0;
}

int rundir_make(const char *dir, struct err *e)
{
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return err_sys(e, "run directory %s", dir);
	return rundir_check(dir, e);
}

int rundir_lock(const char *dir, const char *name, bool create, struct err *e)
{
	_free_ char *path = xasprintf("%s/%s", dir, name);
	struct stat st;

	for (int tries = 0; tries < 10; tries++) {
		_closefd_ int fd = -1;

		if (create && mkdir(path, 0700) < 0 && errno != EEXIST)
			return err_sys(e, "folder %s", path);
		fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT && !create)
			return err_set(e, ERR_INPUT, "there is no guest %s in %s", name, dir);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0)
			return err_sys(e, "folder %s", path);
		if (flock(fd, LOCK_EX | LOCK_NB) < 0)
			return err_set(e, ERR_TIMEOUT,
				       "somebody else is starting or stopping guest %s right now; try again", name);
		/* Removed between open and lock: the lock is on a folder that no longer has a name. */
		if (fstat(fd, &st) == 0 && st.st_nlink > 0)
			return steal_fd(&fd);
	}
	return err_set(e, ERR_TIMEOUT, "folder %s keeps disappearing; is another program removing it?", path);
}

int rundir_empty(const char *dir, const char *name, struct err *e)
{
	_free_ char *path = xasprintf("%s/%s", dir, name);
	DIR *d = opendir(path);
	struct dirent *entry;

	if (!d)
		return errno == ENOENT ? 0 : err_sys(e, "folder %s", path);
	while ((entry = readdir(d)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			unlinkat(dirfd(d), entry->d_name, 0);
	closedir(d);
	return 0;
}

int rundir_remove(const char *dir, const char *name, struct err *e)
{
	_free_ char *path = xasprintf("%s/%s", dir, name);

	if (rundir_empty(dir, name, e) < 0)
		return -1;
	if (rmdir(path) < 0 && errno != ENOENT)
		return err_sys(e, "folder %s", path);
	return 0;
}

static int name_filter(const struct dirent *entry)
{
	return def_name_valid(entry->d_name);
}

int rundir_names(const char *dir, char ***ret, struct err *e)
{
	struct dirent **entries = NULL;
	int n = scandir(dir, &entries, name_filter, alphasort);
	char **names;

	if (n < 0 && errno != ENOENT)
		return err_sys(e, "run directory %s", dir);
	names = xcalloc((size_t)(n < 0 ? 0 : n) + 1, sizeof(*names));
	for (int i = 0; i < n; i++) {
		names[i] = xstrdup(entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	*ret = names;
	return 0;
}

void rundir_names_free(char **names)
{
	for (size_t i = 0; names && names[i]; i++)
		free(names[i]);
	free(names);
}

int rundir_state_write(const char *dir, const char *name, json_t *o, struct err *e)
{
	_free_ char *path = xasprintf("%s/%s/" STATE_FILE, dir, name);
	_free_ char *fresh = xasprintf("%s.new", path);
	_free_ char *text = json_dumps(o, JSON_INDENT(2));
	_closefile_ FILE *f = fopen(fresh, "we");

	if (!f || !text || fputs(text, f) == EOF || fputc('\n', f) == EOF || fflush(f) == EOF)
		return err_sys(e, "state file %s", fresh);
	if (rename(fresh, path) < 0)
		return err_sys(e, "state file %s", path);
	return 0;
}

json_t *rundir_state_read(const char *dir, const char *name, struct err *e)
{
	_free_ char *path = xasprintf("%s/%s/" STATE_FILE, dir, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_closefile_ FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
	struct stat st;
	json_error_t je;
	json_t *o;

	if (!f) {
		if (errno == ENOENT || errno == ENOTDIR)
			err_set(e, ERR_INPUT, "there is no guest %s in %s", name, dir);
		else
			err_sys(e, "state file %s", path);
		return NULL;
	}
	if (fstat(fd, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 0022) || st.st_size > STATE_MAX) {
		err_set(e, ERR_UNSUPPORTED, "state file %s was not written by you; it is not believed", path);
		return NULL;
	}
	o = json_loadf(f, 0, &je);
	if (!o)
		err_set(e, ERR_PROTOCOL, "state file %s: line %d: %s", path, je.line, je.text);
	return o;
}
