/* SPDX-License-Identifier: Apache-2.0 */
/* The input of placement (cluster/placement.h), read out of what the state says about nodes and guests. */
#ifndef GODWIT_NODE_PLACE_H
#define GODWIT_NODE_PLACE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "cluster/placement.h"

/* Settings that placement goes by, and what counts where they are not set. */
#define PLACE_SETTINGS "placement." /* all of them begin so */
#define PLACE_SETTING_WIRE PLACE_SETTINGS "wire-mbs"
#define PLACE_RESERVE_MIB 512 /* placement.reserve-mib: of each node, not for guests */
#define PLACE_VCPU_RATIO 0    /* placement.vcpu-ratio: vcpus per core; 0: no limit */
#define PLACE_WIRE_MBS 117    /* placement.wire-mbs: 10^6 bytes/s between two nodes; what 1 Gbit/s carries */
/* placement.rules: [{"name", "vms": [names], "apart": bool, "hard": bool}] */

#define PLACE_REPORT_MS 60000 /* a node that has not reported for so long is not up */

/* All borrowed; what may be NULL says so. */
struct place_facts {
	const json_t *nodes;      /* state_node_list() */
	const json_t *vms;        /* state_vm_list() */
	const json_t *migrations; /* state_migration_list(), those that have not ended */
	const json_t *settings;   /* state_setting_list() of PLACE_SETTINGS */
	const json_t *cpus;       /* what guests ask for: texts; NULL: only what the one guest does */
	const json_t *catalogue;  /* of CPU models (hv/baseline.h); NULL: not known, then what a node names counts */
	bool (*present)(const void *arg, uint32_t id); /* whether a node is a member now */
	const void *present_arg;
	int64_t now_ms; /* wall clock */
};

/* The guest that wants a place. */
struct place_guest {
	const json_t *definition; /* complete; NULL: none, the other guests are what it is about */
	const char *owner;        /* NULL: a new guest */
	uint64_t dirty_rate;      /* bytes/s; 0: not known */
	const json_t *near;       /* names of guests that it must be with, or NULL */
	const json_t *apart;      /* names of guests that it must not be with, or NULL */
};

/* What placement_run() reads, and the texts that it borrows. */
struct place;

/* Pure. Never fails: what is not in the facts counts as unknown. Keeps the JSON that it needs. Caller frees. */
struct place *place_new(const struct place_facts *f, const struct place_guest *g);
void place_free(struct place *p);

/* Borrowed until place_free(). */
const struct placement_input *place_input(const struct place *p);

/* Another guest, by its complete definition, as its owner has it. Borrows texts of both and of @p, which keeps them. */
void place_guest_read(struct place *p, json_t *definition, const char *owner, struct placement_guest *ret);

/* Index of a node, or -1 with @e (ERR_NOTFOUND). */
int place_find(const struct place *p, const char *node, size_t *ret, struct err *e);

#endif
