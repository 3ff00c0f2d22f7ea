/* SPDX-License-Identifier: Apache-2.0 */
/* A guest's definition as it comes over the API: checked, completed, and the same on every host. */
#ifndef GODWIT_NODE_DEFINE_H
#define GODWIT_NODE_DEFINE_H

#include <jansson.h>

#include "base/err.h"

/* @given, checked as hv/def.h does it and with every field written out: what the state keeps. @networks:
 * state_network_list(). @uuid: that of the guest, which it gets when @given has none; NULL: a new one is made up. New
 * reference; NULL with @e, ERR_INPUT or (a network) ERR_NOTFOUND: "definition: field: reason". No file is read: what
 * would be read here need not be what the sender meant, or what the sender may read. */
json_t *define_guest(const json_t *given, const json_t *networks, const char *uuid, struct err *e);

#endif
