/* SPDX-License-Identifier: Apache-2.0 */
/* Named networks on this host: a Linux bridge each, and the VLAN of an uplink that feeds it. */
#ifndef GODWIT_NODE_NETWORK_H
#define GODWIT_NODE_NETWORK_H

#include <jansson.h>
#include <net/if.h>

#include "base/err.h"

#define NETWORK_NAME_MAX 63
#define NETWORK_VLAN_MAX 4094

/* A network as the cluster knows it: the same on every host. */
struct network {
	char name[NETWORK_NAME_MAX + 1];
	char bridge[IFNAMSIZ];
	char uplink[IFNAMSIZ]; /* "": the bridge leads nowhere, or somebody else has joined a port to it */
	unsigned vlan;         /* 802.1q id on the uplink, 1 to 4094; 0 without an uplink */
};

/* Whether the fields make sense: 0, or -1 with @e (ERR_INPUT). Pure. */
int network_valid(const struct network *n, struct err *e);

/* Whether this host has the network: the bridge is there, is a bridge, is up and is not another network's; the VLAN is
 * on it. -1 with @e (ERR_UNSUPPORTED): what is not so, and what to do. Needs no right. A few milliseconds. */
int network_check(const struct network *n, struct err *e);

/* Make what is missing; what is there and fits stays as it is. Needs CAP_NET_ADMIN. -1 with @e, and then what this call
 * made is gone again. */
int network_create(const struct network *n, struct err *e);

/* Remove what network_create() made (it is marked: alias "godwit:NAME"); a bridge somebody else made stays. -1 with @e
 * when guests are still joined to it. Nothing there is success. */
int network_delete(const struct network *n, struct err *e);

/* Every bridge of this host: [{"bridge", "up", "ports": [names], "network": who it is marked for or null, "uplink" and
 * "vlan": of the VLAN that is joined to it, or null}]. New reference. */
int network_list(json_t **ret, struct err *e);

#endif
