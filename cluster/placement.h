/* SPDX-License-Identifier: Apache-2.0 */
/* Where a guest may run and where it had best run, with every reason. Pure. */
#ifndef GODWIT_CLUSTER_PLACEMENT_H
#define GODWIT_CLUSTER_PLACEMENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct placement_unreached {
	const char *folder; /* without a slash at its end, or "/" */
	const char *why;
};

/* All texts are borrowed by the input; a list ends with NULL, and a NULL list is empty. */
struct placement_node {
	const char *name;
	bool up;               /* a member, and its agent has reported lately */
	bool maintenance;      /* nothing new may go there */
	const char *aside;     /* why it was put aside: nothing new may go there either; NULL */
	uint64_t memory_total; /* bytes */
	uint64_t memory_free;  /* bytes that new guests could really have now */
	unsigned cores;
	unsigned load_permille;      /* of all cores, averaged over a minute; may be above 1000 */
	const char *cpu_kind;        /* what `host` means there; NULL unknown */
	const char *const *models;   /* CPU models that QEMU runs there with everything they promise */
	const char *const *features; /* of the host's CPU */
	const char *const *networks; /* networks and bridges that are up there */
	/* Folders that it has looked at and does not reach; the last one's folder is NULL. NULL: none. */
	const struct placement_unreached *unreached;
};

struct placement_vm {
	const char *name;
	const char *owner;
	const char *to;  /* where it is moving to: counts on both; NULL */
	bool running;    /* runs or shall run: has its memory and vcpus */
	uint64_t memory; /* bytes */
	unsigned vcpus;
	uint64_t dirty_rate; /* bytes/s; 0 unknown or idle */
};

struct placement_rule {
	const char *name;
	bool apart; /* not on the same node; otherwise on the same node */
	bool hard;  /* a node that breaks it is unfit; otherwise it costs points */
	const char *const *vms;
};

struct placement_guest {
	const char *name;
	const char *owner;          /* where it is now: unfit as a destination; NULL for a new one */
	const char *owner_cpu_kind; /* of that node; NULL */
	uint64_t memory;
	unsigned vcpus;
	uint64_t dirty_rate;
	const char *cpu; /* the definition's: "x86-64-v2", "EPYC,+x2apic,-foo", "host" */
	const char *const *networks;
	const char *const *files; /* disks and firmware, absolute */
};

struct placement_limits {
	uint64_t memory_reserve; /* bytes of each node that are not for guests */
	unsigned vcpu_ratio;     /* vcpus per core, at most; 0: no limit */
	uint64_t wire_rate;      /* bytes/s between two nodes, for the cost of later moves */
};

struct placement_input {
	const struct placement_node *nodes;
	size_t n_nodes;
	const struct placement_vm *vms;
	size_t n_vms;
	const struct placement_rule *rules;
	size_t n_rules;
	struct placement_guest guest;
	struct placement_limits limits;
};

/* What the score of a node is made of, each from 0 to its maximum in points. */
enum placement_part {
	PLACEMENT_MEMORY,
	PLACEMENT_CPU,
	PLACEMENT_LOAD,
	PLACEMENT_MOVES,
	PLACEMENT_RULES,
	PLACEMENT_PART_MAX
};
extern const char *const placement_part_names[PLACEMENT_PART_MAX];

struct placement_verdict {
	bool fit;
	char **reasons; /* sentences, why it is not fit: all of them */
	size_t n_reasons;
	char **remarks; /* sentences about what speaks against it without making it unfit */
	size_t n_remarks;
	unsigned score;
	unsigned parts[PLACEMENT_PART_MAX];
	uint64_t empty_s; /* seconds that emptying the node would take with this guest on it */
	size_t vms;       /* running ones that it has or awaits */
};

struct placement_result {
	struct placement_verdict *nodes; /* as the input's */
	size_t n_nodes;
	int choice; /* index, -1 where no node fits */
};

/* Judge every node. Free with placement_done(). */
void placement_run(const struct placement_input *in, struct placement_result *ret);
void placement_done(struct placement_result *r);

/* Whether node @n has what the guest needs whatever else runs there: its CPU, networks and files. */
bool placement_suits(const struct placement_guest *g, const struct placement_node *n);

/* The first of the guest's folders that node @n does not reach; NULL: it reaches all that it has looked at. */
const struct placement_unreached *placement_unreached(const struct placement_guest *g, const struct placement_node *n);

/* Judge one node: the reasons why it is not fit, as above. The index is of a node that the user asked for. -1 with
 * ERR_CONFLICT, all reasons in the sentence. */
int placement_fits(const struct placement_input *in, const struct placement_result *r, size_t node, struct err *e);

/* The choice, or -1 with ERR_CONFLICT and every node's reasons in the sentence. */
int placement_chosen(const struct placement_input *in, const struct placement_result *r, size_t *ret, struct err *e);

/* What --dry-run prints: {"choice", "nodes": [{"node", "fits", "reasons", "remarks", "score", "parts", "empty_s"}]}.
 * New reference. */
json_t *placement_json(const struct placement_input *in, const struct placement_result *r);

#endif
