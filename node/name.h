/* SPDX-License-Identifier: Apache-2.0 */
/* What a node, a user, a cluster and an address may look like: checked the same by everybody who reads one. */
#ifndef GODWIT_NODE_NAME_H
#define GODWIT_NODE_NAME_H

#include <stdbool.h>

#include "base/err.h"

#define NAME_MAX_CHARS 63    /* RFC 1035 label */
#define ADDRESS_TEXT_MAX 46U /* INET6_ADDRSTRLEN */

/* Is @name a label of small letters, digits and inner hyphens? @what ("node name") for the message. 0 or -1 with @e
 * (ERR_INPUT). Pure. */
int name_check(const char *what, const char *name, struct err *e);

/* @text as the one spelling that its address has, in @ret. Refused (ERR_INPUT): no address, or one that does not name
 * one host everywhere (any, multicast, link-local). Pure. */
int address_parse(const char *text, char ret[ADDRESS_TEXT_MAX], struct err *e);

/* Of addresses that address_parse() has spelled. */
bool address_is_v6(const char *address);
bool address_is_loopback(const char *address);

#endif
