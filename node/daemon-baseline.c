/* SPDX-License-Identifier: Apache-2.0 */
/* A new older host is announced with what it costs: the manager compares the CPU of each report with the others'. */
#include <string.h>

#include "base/log.h"
#include "cluster/state.h"
#include "hv/baseline.h"
#include "node/daemon-int.h"

#define LOST_MAX 1024 /* as node.baseline takes them */
#define TEXT_MAX 1000

static const char *text_of(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

/* The CPUs of all other nodes, as hv/baseline.h takes them. New reference. */
static json_t *others(struct daemon *d, const char *name)
{
	json_t *nodes = state_node_list(replica_db(d->replica), NULL), *node, *hosts = json_array();
	size_t i;

	json_array_foreach (nodes, i, node) {
		const char *other = text_of(node, "name");
		json_t *cpu = json_object_get(json_object_get(node, "report"), "cpu");

		if (other && strcmp(other, name) != 0 && json_is_object(cpu))
			json_array_append_new(hosts, json_pack("{s:s, s:O}", "name", other, "cpu", cpu));
	}
	json_decref(nodes);
	return hosts;
}

/* The same is announced once, whoever is manager: the command says so. */
static void announce(struct daemon *d, const char *name, const json_t *cost)
{
	const char *text = text_of(cost, "text");
	json_t *lost = json_object_get(cost, "lost"), *args;

	if (!text || !json_array_size(lost) || json_array_size(lost) > LOST_MAX)
		return;
	log_warning("event=baseline node=%s text=\"%s\"", name, text);
	args = json_pack("{s:s, s:O, s:o}", "node", name, "lost", lost, "text",
			 json_stringn(text, strnlen(text, TEXT_MAX)));
	if (text_of(cost, "model"))
		json_object_set(args, "model", json_object_get(cost, "model"));
	if (text_of(cost, "with"))
		json_object_set(args, "with", json_object_get(cost, "with"));
	daemon_propose(d, "node.baseline", NULL, args, NULL, NULL);
}

void daemon_tell_baseline(struct daemon *d, const json_t *report)
{
	const char *name = text_of(report, "node");
	json_t *cpu = json_object_get(report, "cpu"), *hosts, *host, *cost = NULL;

	if (!replica_leads(d->replica) || !d->catalogue || !cpu || !name ||
	    json_equal(json_object_get(d->parts->judged, name), cpu))
		return;
	hosts = others(d, name);
	host = json_pack("{s:s, s:O}", "name", name, "cpu", cpu);
	if (json_array_size(hosts) && baseline_cost(d->catalogue, hosts, host, &cost, NULL) == 0) {
		json_object_set(d->parts->judged, name, cpu);
		announce(d, name, cost);
	}
	json_decref(cost);
	json_decref(host);
	json_decref(hosts);
}
