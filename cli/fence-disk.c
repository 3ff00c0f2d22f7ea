/* SPDX-License-Identifier: Apache-2.0 */
/* godwit fence disk-format, disk-list: fencing disks of this host. Read and written by this very program: it takes as
 * long as the storage does, which no daemon has, and the disk is made before the daemons use it. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"
#include "fencing/disk-tool.h"
#include "fencing/timing.h"

#define TOKEN_MS 1000 /* where the setting is not set */

static const struct view_column disk_view[] = {
	{"disk", "path", VIEW_TEXT},    {"cluster", "cluster", VIEW_TEXT}, {"id", "id", VIEW_TEXT},
	{"made", "made-ms", VIEW_TIME}, {"token", "token-ms", VIEW_MS},    {"sectors of", "sector-size", VIEW_TEXT},
	{"slots", "slots", VIEW_TEXT},  {"unreadable", "bad", VIEW_LIST},  {NULL, NULL, VIEW_TEXT},
};

static const struct view_column hosts_view[] = {
	{"SLOT", "slot", VIEW_TEXT},    {"NODE", "name", VIEW_TEXT},       {"STATE", "state", VIEW_TEXT},
	{"BEAT", "wall-ms", VIEW_TIME}, {"NUMBER", "sequence", VIEW_TEXT}, {NULL, NULL, VIEW_TEXT},
};

static const struct view_column pills_view[] = {
	{"TOLD TO DIE", "to", VIEW_TEXT},
	{"BY", "from-name", VIEW_TEXT},
	{"TIME", "wall-ms", VIEW_TIME},
	{NULL, NULL, VIEW_TEXT},
};

static void print_table(FILE *out, const json_t *list, const struct view_column *view)
{
	if (!json_array_size(list))
		return;
	fputc('\n', out);
	view_print(out, list, view);
}

int fence_disk_list_run(struct cli *c, struct err *e)
{
	json_t *disk = disk_list(cli_text(c, "PATH"), e), *bad;

	if (!disk)
		return -1;
	if (c->json) {
		view_print_json(c->io->out, disk);
	} else {
		bad = json_object_get(disk, "unreadable");
		if (json_array_size(bad))
			json_object_set(disk, "bad", bad);
		view_print(c->io->out, disk, disk_view);
		print_table(c->io->out, json_object_get(disk, "hosts"), hosts_view);
		print_table(c->io->out, json_object_get(disk, "pills"), pills_view);
	}
	json_decref(disk);
	return 0;
}

/* The cluster's token, which all time-outs of the disk come from. -1 with @e. */
static int token_ms(struct cli *c, uint32_t *ret, struct err *e)
{
	json_t *settings = NULL, *s;
	size_t i;

	*ret = TOKEN_MS;
	if (request(c, "GET", "/v1/settings", NULL, &settings, e) < 0)
		return -1;
	json_array_foreach (settings, i, s) {
		const char *key = json_string_value(json_object_get(s, "key"));
		json_int_t ms = json_integer_value(json_object_get(s, "value"));

		if (key && !strcmp(key, "cluster.token-ms") && ms >= TIMING_TOKEN_MS_MIN && ms <= TIMING_TOKEN_MS_MAX)
			*ret = (uint32_t)ms;
	}
	json_decref(settings);
	return 0;
}

int fence_disk_format_run(struct cli *c, struct err *e)
{
	struct disk_format f = {.path = cli_text(c, "PATH"), .force = cli_given(c, "force")};
	struct disk_header h;
	json_t *cluster = NULL;
	int r = request(c, "GET", "/v1/cluster", NULL, &cluster, e);

	f.cluster = json_string_value(json_object_get(cluster, "name"));
	if (r == 0 && !f.cluster)
		r = err_set(e, ERR_PROTOCOL, "the daemon did not say the name of the cluster");
	if (r == 0 && token_ms(c, &f.token_ms, e) == 0)
		r = disk_format(&f, &h, e);
	else
		r = -1;
	if (r == 0 && c->json) {
		json_t *o = json_pack("{s:s, s:s, s:I, s:I}", "path", f.path, "cluster", h.cluster, "token-ms",
				      (json_int_t)h.token_ms, "sector-size", (json_int_t)h.sector_size);

		view_print_json(c->io->out, o);
		json_decref(o);
	} else if (r == 0) {
		fprintf(c->io->out, "%s: is a fencing disk of cluster %s now, with sectors of %u bytes\n", f.path,
			h.cluster, h.sector_size);
	}
	json_decref(cluster);
	return r;
}
