/* SPDX-License-Identifier: Apache-2.0 */
/* Which host of which cluster this is: the file node.json. */
#ifndef GODWIT_NODE_IDENTITY_H
#define GODWIT_NODE_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "node/corosync.h"
#include "node/name.h"

struct identity {
	char cluster[NAME_MAX_CHARS + 1]; /* "": this host belongs to no cluster yet */
	char node[NAME_MAX_CHARS + 1];
	unsigned id;
	char addresses[COROSYNC_LINKS_MAX][ADDRESS_TEXT_MAX]; /* one per link; none: one host alone, without corosync */
	size_t n_addresses;
	uint64_t history;  /* not 0: the first host of a new cluster, whose database is still to be made under this name
			    */
	char qdevice[256]; /* with a history: what the cluster is to be given as its quorum device; "": none */
};

/* Read @path; a file that is not there is no error and gives an empty identity. -1 with @e: damaged, or of a newer
 * godwitd. */
int identity_read(const char *path, struct identity *ret, struct err *e);

/* Replace @path, durably. */
int identity_write(const char *path, const struct identity *id, struct err *e);

static inline bool identity_is_set(const struct identity *id)
{
	return id->cluster[0] != 0;
}

#endif
