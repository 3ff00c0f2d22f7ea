/* SPDX-License-Identifier: Apache-2.0 */
/* Guest definitions on their way to the cluster. */
#include "cli/definition.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/value.h"

json_t *definition_object(json_t *o, const char *field)
{
	if (!json_is_object(json_object_get(o, field)))
		json_object_set_new(o, field, json_object());
	return json_object_get(o, field);
}

json_t *definition_array(json_t *o, const char *field)
{
	if (!json_is_array(json_object_get(o, field)))
		json_object_set_new(o, field, json_array());
	return json_object_get(o, field);
}

/* @path as seen from @dir. Caller frees. */
static char *path_from(const char *dir, const char *path)
{
	return path[0] == '/' || !dir ? xstrdup(path) : xasprintf("%s/%s", dir, path);
}

/* Make the path in @field of @o absolute. */
static void make_absolute(json_t *o, const char *field, const char *dir)
{
	const char *path = json_string_value(json_object_get(o, field));
	_free_ char *full = path && path[0] && dir ? path_from(dir, path) : NULL;

	if (full)
		json_object_set_new(o, field, json_string(full));
}

int definition_seed_file(json_t *definition, const char *field, const char *path, struct err *e)
{
	_free_ char *text = value_file(path, DEFINITION_TEXT_MAX, e);
	json_t *value = text ? json_string(text) : NULL;

	if (!text)
		return -1;
	if (!value)
		return err_set(e, ERR_INPUT, "%s: is not UTF-8", path);
	json_object_set_new(definition_object(definition, "seed"), field, value);
	return 0;
}

/* Texts of files that the seed names: the daemon would look for them on its own host. */
static int seed_read(json_t *definition, const char *name, const char *dir, struct err *e)
{
	static const char *const fields[] = {"user-data", "meta-data", "network-config"};
	json_t *seed = json_object_get(definition, "seed");

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		_free_ char *key = xasprintf("%s-file", fields[i]);
		const char *file = json_string_value(json_object_get(seed, key));
		_free_ char *path = file ? path_from(dir, file) : NULL;

		if (!path)
			continue;
		if (json_object_get(seed, fields[i]))
			return err_set(e, ERR_INPUT, "%s: seed.%s says the same as seed.%s; give one of the two", name,
				       key, fields[i]);
		if (definition_seed_file(definition, fields[i], path, e) < 0)
			return err_wrap(e, "%s: seed.%s", name, key);
		json_object_del(seed, key);
	}
	return 0;
}

json_t *definition_parse(const char *text, const char *name, const char *dir, struct err *e)
{
	static const char *const paths[] = {"kernel", "initrd", "uefi-vars"};
	json_error_t error;
	json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, &error), *disk;
	size_t i;

	if (!json_is_object(o)) {
		json_decref(o);
		err_set(e, ERR_INPUT, "%s: line %d: %s", name, o ? 1 : error.line,
			o ? "a definition is an object {...}" : error.text);
		return NULL;
	}
	for (i = 0; i < ARRAY_SIZE(paths); i++)
		make_absolute(o, paths[i], dir);
	json_array_foreach (json_object_get(o, "disks"), i, disk)
		make_absolute(disk, "file", dir);
	if (seed_read(o, name, dir, e) == 0)
		return o;
	json_decref(o);
	return NULL;
}

/* The absolute folder of @path. Caller frees. */
static char *folder_of(const char *path)
{
	_free_ char *full = realpath(path, NULL);
	char *slash = full ? strrchr(full, '/') : NULL;

	if (!slash)
		return NULL;
	slash[slash == full] = 0;
	return steal_ptr(full);
}

/* All of @fd. Caller frees. */
static char *read_all(int fd, struct err *e)
{
	_free_ char *text = xcalloc(1, DEFINITION_FILE_MAX + 1);
	size_t used = 0;
	ssize_t n;

	while (used < DEFINITION_FILE_MAX && (n = read(fd, text + used, DEFINITION_FILE_MAX - used)) > 0)
		used += (size_t)n;
	if (used < DEFINITION_FILE_MAX)
		return steal_ptr(text);
	err_set(e, ERR_INPUT, "standard input: more than %u bytes", DEFINITION_FILE_MAX);
	return NULL;
}

json_t *definition_load(const char *path, int in_fd, struct err *e)
{
	bool is_input = strcmp(path, "-") == 0;
	_free_ char *text = is_input ? read_all(in_fd, e) : value_file(path, DEFINITION_FILE_MAX, e);
	_free_ char *dir = is_input ? getcwd(NULL, 0) : folder_of(path);

	return text ? definition_parse(text, is_input ? "standard input" : path, dir, e) : NULL;
}
