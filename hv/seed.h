/* SPDX-License-Identifier: Apache-2.0 */
/* The cloud-init NoCloud seed: a small ISO volume "cidata" made from the definition. */
#ifndef GODWIT_HV_SEED_H
#define GODWIT_HV_SEED_H

#include "base/err.h"
#include "hv/def.h"

/* The meta-data of @d: as given, or instance-id (the uuid), local-hostname and public-keys. Caller frees. Pure. */
char *seed_meta_data(const struct def *d);

/* Write the seed of @d as @dir/seed.iso with genisoimage, which needs Debian's package of that name. The files it is
 * made from do not stay. The same definition gives the same files, so a migration's destination can make its own.
 * 0, or -1 with @e. */
int seed_write(const struct def *d, const char *dir, struct err *e);

#endif
