/* SPDX-License-Identifier: Apache-2.0 */
/* State: guests, between the parts that read and change them. */
#ifndef GODWIT_CLUSTER_STATE_VM_H
#define GODWIT_CLUSTER_STATE_VM_H

#include "cluster/state-int.h"

/* What operations decide by. */
struct vm_row {
	char uuid[37];
	char intent[16];
	char owner[64];
	char status[16]; /* "" while the owner has not reported */
	char cause[16];  /* why it failed, as its owner said; "": it did not say */
	int64_t version;
	int64_t memory; /* bytes */
	int64_t epoch;
	int64_t changed; /* ms, by the command that last changed it */
	int64_t as_of;   /* that the owner knew when it said that it is down; 0: it did not say */
};

/* 0, or -1: refused by name when there is no such guest. */
int vm_read(struct change *c, const char *name, struct vm_row *ret);

/* Give a guest to @node: what the former owner saw is forgotten; it is known to run there if @runs. */
int vm_own(struct change *c, const char *name, const char *node, int64_t epoch, bool runs);

/* Refuse while guest c->name is being moved: "cancel that, or WHAT afterwards". */
int refuse_while_moving(struct change *c, const char *what);

/* What the state needs of a definition (hv/def.h checks the rest before it is proposed). Borrowed from the command. */
struct vm_def {
	const json_t *json;
	const char *name;
	const char *uuid;
	int64_t memory; /* bytes */
	int64_t vcpus;
};

/* Read and check a definition by itself. Sets c->name as soon as it is known. */
int vm_def_read(struct change *c, const json_t *definition, struct vm_def *ret);

/* Make it version @version of the guest, which is there already: disks and NICs against those of the others too. */
int vm_def_write(struct change *c, const struct vm_def *d, int64_t version);

/* Forget every version of guest c->name, its disks and NICs. */
int vm_def_delete(struct change *c);

#endif
