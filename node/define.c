/* SPDX-License-Identifier: Apache-2.0 */
/* A guest's definition as it comes over the API.
 *
 * hv/def.h describes a guest of one host: its NICs join bridges, its paths may be relative, and texts for cloud-init
 * may be in files beside the definition. In a cluster a NIC joins a network by name, which stands for the same bridge
 * on every host; while a definition is checked, the bridge takes its place.
 */
#include "node/define.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "hv/def.h"

/* Paths of the definition itself; those of disks come with the disks. */
static const char *const path_fields[] = {"uefi-vars", "kernel", "initrd"};

static const char *text_of(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

static int path_check(const json_t *o, const char *key, const char *where, struct err *e)
{
	const char *path = text_of(o, key);

	if (!path || path[0] == '/')
		return 0;
	return err_set(e, ERR_INPUT,
		       "definition: %s%s: \"%.200s\" is not absolute; a guest of a cluster may start on any host",
		       where, key, path);
}

static int paths_check(const json_t *d, struct err *e)
{
	json_t *disk;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(path_fields); i++)
		if (path_check(d, path_fields[i], "", e) < 0)
			return -1;
	json_array_foreach (json_object_get(d, "disks"), i, disk) {
		char where[32];

		snprintf(where, sizeof(where), "disks[%zu].", i);
		if (path_check(disk, "file", where, e) < 0)
			return -1;
	}
	return 0;
}

/* Files of the sender are not here, and files that are here are not the sender's to read. */
static int seed_check(const json_t *d, struct err *e)
{
	const char *key;
	json_t *v;

	json_object_foreach (json_object_get(d, "seed"), key, v) {
		size_t n = strlen(key);

		if (n > 5 && !strcmp(key + n - 5, "-file"))
			return err_set(e, ERR_INPUT,
				       "definition: seed.%.64s: files are not read here; give the text as %.*s", key,
				       (int)(n - 5 < 64 ? n - 5 : 64), key);
	}
	return 0;
}

static const json_t *network_find(const json_t *networks, const char *name)
{
	for (size_t i = 0; i < json_array_size(networks); i++) {
		const json_t *n = json_array_get(networks, i);

		if (text_of(n, "name") && !strcmp(text_of(n, "name"), name))
			return n;
	}
	return NULL;
}

/* Put the bridge in the place of the network. */
static int nic_resolve(json_t *nic, size_t i, const json_t *networks, struct err *e)
{
	const char *name = text_of(nic, "network"), *type = text_of(nic, "type");
	const json_t *network;

	if (!json_object_get(nic, "network"))
		return 0;
	if (!name || !type || strcmp(type, "tap") != 0 || json_object_get(nic, "bridge"))
		return err_set(e, ERR_INPUT,
			       "definition: nics[%zu].network: goes with type tap, and in the place of a bridge", i);
	network = network_find(networks, name);
	if (!network)
		return err_set(
			e, ERR_NOTFOUND,
			"definition: nics[%zu].network: there is no network %.64s; create it first, or choose one "
			"of `godwit network list`",
			i, name);
	json_object_set(nic, "bridge", json_object_get(network, "bridge"));
	json_object_del(nic, "network");
	return 0;
}

static int nics_resolve(json_t *d, const json_t *networks, struct err *e)
{
	json_t *nic;
	size_t i;

	json_array_foreach (json_object_get(d, "nics"), i, nic)
		if (nic_resolve(nic, i, networks, e) < 0)
			return -1;
	return 0;
}

/* Put the networks back that @given names. */
static void nics_restore(json_t *d, const json_t *given)
{
	const json_t *was = json_object_get(given, "nics");
	json_t *nic;
	size_t i;

	json_array_foreach (json_object_get(d, "nics"), i, nic) {
		json_t *network = json_object_get(json_array_get(was, i), "network");

		if (!network)
			continue;
		json_object_del(nic, "bridge");
		json_object_set(nic, "network", network);
	}
}

/* hv's reading of it, and its complete form. */
static json_t *complete(const json_t *resolved, struct err *e)
{
	_free_ char *text = json_dumps(resolved, JSON_COMPACT);
	struct def d = {0};
	json_t *ret;

	if (!text || def_parse(text, strlen(text), "definition", "/", &d, e) < 0)
		return NULL;
	ret = def_to_json(&d);
	def_done(&d);
	return ret;
}

json_t *define_guest(const json_t *given, const json_t *networks, const char *uuid, struct err *e)
{
	json_t *resolved, *ret = NULL;

	if (paths_check(given, e) < 0 || seed_check(given, e) < 0)
		return NULL;
	resolved = json_deep_copy(given);
	if (uuid && !json_object_get(resolved, "uuid"))
		json_object_set_new(resolved, "uuid", json_string(uuid));
	if (nics_resolve(resolved, networks, e) == 0)
		ret = complete(resolved, e);
	if (ret)
		nics_restore(ret, given);
	json_decref(resolved);
	return ret;
}
