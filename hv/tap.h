/* SPDX-License-Identifier: Apache-2.0 */
/* A tap device on a bridge, made without scripts. */
#ifndef GODWIT_HV_TAP_H
#define GODWIT_HV_TAP_H

#include <net/if.h>

#include "base/err.h"

/* Create a tap (its name, chosen by the kernel, into @ret_name), join it to @bridge and set it up. It lives as long as
 * a descriptor of it is open. Needs CAP_NET_ADMIN. Returns the descriptor (close-on-exec, caller closes), -1 with @e.
 */
int tap_create(const char *bridge, char ret_name[IFNAMSIZ], struct err *e);

#endif
