/* SPDX-License-Identifier: Apache-2.0 */
/* Do all of these fit into those? Exactly, within a bound of work. Pure. */
#ifndef GODWIT_CLUSTER_HA_PACK_H
#define GODWIT_CLUSTER_HA_PACK_H

#include <stddef.h>
#include <stdint.h>

#define PACK_BINS_MAX 64

/* What is free on a host. */
struct pack_bin {
	uint64_t memory; /* bytes */
	uint64_t vcpus;
};

/* A guest, or guests that must be together. */
struct pack_item {
	uint64_t memory;
	uint64_t vcpus;
	uint64_t bins;         /* a bit for each that may have it */
	const unsigned *apart; /* rules of which a bin may have one item only; indices into pack.taken. Borrowed */
	size_t n_apart;
};

struct pack {
	const struct pack_bin *bins;
	size_t n_bins; /* at most PACK_BINS_MAX */
	const struct pack_item *items;
	size_t n_items;
	const uint64_t *taken; /* for each rule the bins that have one of it already */
	size_t n_rules;
};

enum pack_answer { PACK_FITS, PACK_NOT, PACK_UNKNOWN };

/* *work: how many items may be tried on a bin; what was used is taken off, and PACK_UNKNOWN is said when it is not
 * enough. ret_bins (n_items, may be NULL) is filled for PACK_FITS. The same input gets the same answer. */
enum pack_answer pack_run(const struct pack *p, uint64_t *work, unsigned *ret_bins);

#endif
