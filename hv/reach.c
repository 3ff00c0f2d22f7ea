/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at folders, each in a thread. */
#include "hv/reach.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"

#define STACK_SIZE (256U << 10) /* little more than statx() is called there */

struct looks {
	reach_fn *fn;
	void *arg;
	pthread_mutex_t lock;
};

struct look {
	struct looks *all;
	const char *folder;
	const json_t *files;
	pthread_t thread;
};

/* As it is on the server now: a client of network storage would know for a minute what was there once. */
static int stat_now(const char *path, struct statx *ret)
{
	return statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_TYPE, ret);
}

/* 0, or an errno: of the folder, or of the last of its files, if none of them is there. */
static int look_at(const char *folder, const json_t *files, char *why)
{
	size_t n = json_array_size(files);
	struct statx st;
	int last = 0;

	if (stat_now(folder, &st) < 0)
		last = errno;
	else if (!S_ISDIR(st.stx_mode))
		last = ENOTDIR;
	if (last) {
		snprintf(why, REACH_WHY_MAX, "%s", strerrordesc_np(last));
		return last;
	}
	for (size_t i = 0; i < n; i++) {
		if (stat_now(json_string_value(json_array_get(files, i)), &st) == 0)
			return 0;
		last = errno;
	}
	if (last == ENOENT)
		snprintf(why, REACH_WHY_MAX, "the folder is there, and none of the guests' files in it (%zu)", n);
	else if (last)
		snprintf(why, REACH_WHY_MAX, "%s", strerrordesc_np(last));
	return last;
}

static void *look_thread(void *arg)
{
	struct look *l = arg;
	char why[REACH_WHY_MAX];
	int r = look_at(l->folder, l->files, why);

	pthread_mutex_lock(&l->all->lock);
	l->all->fn(l->all->arg, l->folder, r ? why : NULL);
	pthread_mutex_unlock(&l->all->lock);
	return NULL;
}

static int folders_check(const json_t *folders, struct err *e)
{
	const char *folder;
	json_t *files, *file;
	size_t i;

	if (!json_is_object(folders) || json_object_size(folders) > REACH_FOLDERS_MAX)
		return err_set(e, ERR_INPUT, "the folders must be an object of at most %d folders with their files",
			       REACH_FOLDERS_MAX);
	json_object_foreach ((json_t *)folders, folder, files) {
		if (!json_is_array(files) || folder[0] != '/')
			return err_set(e, ERR_INPUT, "the folder %s must begin with / and have a list of files",
				       folder);
		json_array_foreach (files, i, file)
			if (!json_is_string(file))
				return err_set(e, ERR_INPUT, "the files of %s must be texts", folder);
	}
	return 0;
}

int reach_look(const json_t *folders, reach_fn *fn, void *arg, struct err *e)
{
	struct looks all = {.fn = fn, .arg = arg, .lock = PTHREAD_MUTEX_INITIALIZER};
	struct look *looks;
	pthread_attr_t attr;
	const char *folder;
	json_t *files;
	size_t n = 0;
	int failed = 0;

	if (folders_check(folders, e) < 0)
		return -1;
	looks = xcalloc(json_object_size(folders) + 1, sizeof(*looks));
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	json_object_foreach ((json_t *)folders, folder, files) {
		looks[n] = (struct look){.all = &all, .folder = folder, .files = files};
		failed = pthread_create(&looks[n].thread, &attr, look_thread, &looks[n]);
		if (failed)
			break;
		n++;
	}
	pthread_attr_destroy(&attr);
	for (size_t i = 0; i < n; i++)
		pthread_join(looks[i].thread, NULL);
	free(looks);
	pthread_mutex_destroy(&all.lock);
	if (failed) {
		errno = failed;
		return err_sys(e, "start a thread for the folder %s", folder);
	}
	return 0;
}
