/* SPDX-License-Identifier: Apache-2.0 */
/* node.json: read whole and checked field by field, replaced whole. */
#include "node/identity.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

#define FORMAT 1
#define FILE_MAX (64U << 10)

static int damaged(const char *path, const char *what, struct err *e)
{
	return err_set(
		e, ERR_INPUT,
		"%s is damaged (%s); to make this host a new member, remove it from the cluster (godwit node remove, "
		"on another host), move the file away and join again",
		path, what);
}

static int addresses_parse(const json_t *list, struct identity *ret)
{
	size_t n = json_array_size(list);

	if (!json_is_array(list) || n > COROSYNC_LINKS_MAX)
		return -1;
	for (size_t i = 0; i < n; i++) {
		const char *text = json_string_value(json_array_get(list, i));

		if (!text || address_parse(text, ret->addresses[i], NULL) < 0)
			return -1;
	}
	ret->n_addresses = n;
	return 0;
}

static int history_parse(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 16);
	return errno || *end || !*text || !*ret ? -1 : 0;
}

static int identity_parse(const char *path, json_t *o, struct identity *ret, struct err *e)
{
	const char *cluster, *node, *history = NULL, *qdevice = "";
	const json_t *addresses;
	int format, id;

	if (json_unpack(o, "{s:i}", "format", &format) < 0)
		return damaged(path, "no format", e);
	if (format != FORMAT)
		return err_set(e, ERR_UNSUPPORTED,
			       "%s has format %d, this godwitd knows format %d: start the newer godwitd", path, format,
			       FORMAT);
	if (json_unpack(o, "{s:s, s:s, s:i, s:o, s?s, s?s}", "cluster", &cluster, "node", &node, "id", &id, "addresses",
			&addresses, "history", &history, "qdevice", &qdevice) < 0)
		return damaged(path, "a field is missing", e);
	if (name_check("cluster name", cluster, NULL) < 0 || name_check("node name", node, NULL) < 0 || id < 1 ||
	    (unsigned)id > COROSYNC_ID_MAX || addresses_parse(addresses, ret) < 0 ||
	    (history && history_parse(history, &ret->history) < 0) || strlen(qdevice) >= sizeof(ret->qdevice))
		return damaged(path, "a field has a wrong value", e);
	strcpy(ret->cluster, cluster);
	strcpy(ret->node, node);
	strcpy(ret->qdevice, qdevice);
	ret->id = (unsigned)id;
	return 0;
}

int identity_read(const char *path, struct identity *ret, struct err *e)
{
	_free_ char *text = NULL;
	struct identity id = {0};
	json_t *o;
	int r;

	*ret = id;
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	text = file_read(path, FILE_MAX, NULL, e);
	if (!text)
		return -1;
	o = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	r = o ? identity_parse(path, o, &id, e) : damaged(path, "not JSON", e);
	json_decref(o);
	if (r == 0)
		*ret = id;
	return r;
}

int identity_write(const char *path, const struct identity *id, struct err *e)
{
	json_t *addresses = json_array(), *o;
	_free_ char *text = NULL;
	char history[17];

	for (size_t i = 0; i < id->n_addresses; i++)
		json_array_append_new(addresses, json_string(id->addresses[i]));
	o = json_pack("{s:i, s:s, s:s, s:i, s:o}", "format", FORMAT, "cluster", id->cluster, "node", id->node, "id",
		      (int)id->id, "addresses", addresses);
	if (id->history) {
		snprintf(history, sizeof(history), "%016" PRIx64, id->history);
		json_object_set_new(o, "history", json_string(history));
	}
	if (id->qdevice[0])
		json_object_set_new(o, "qdevice", json_string(id->qdevice));
	text = json_dumps(o, JSON_INDENT(2));
	json_decref(o);
	return file_write_atomic(path, text, strlen(text), 0644, (gid_t)-1, e);
}
