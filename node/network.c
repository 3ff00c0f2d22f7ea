/* SPDX-License-Identifier: Apache-2.0 */
/* Named networks.
 *
 * A guest's NIC names a bridge, and a guest can move to every host where that bridge leads to the same wire. So a
 * network of the cluster has one bridge name for all hosts, and what is behind it is either the administrator's
 * business, or a VLAN of an uplink that is made here:
 *
 *     guest -- tap -- [bridge br-web] -- eth1.100 (802.1q) -- eth1 -- the switch
 *
 * Only VLANs are joined to bridges here, never an uplink itself: that would take the host's own address off the wire.
 *
 * What was made here carries the alias "godwit:NAME", so that only that is ever removed, by whichever daemon. The mark
 * is set before a link is up; a daemon that dies in between leaves a link without mark, down and without ports, which
 * the next create takes as it finds it and delete leaves alone.
 *
 * A new bridge forwards at once: Linux's default keeps a port silent for 15 seconds even without a spanning tree, and a
 * guest that has moved in three would be off the wire for the rest. The host itself gets no address on it (IPv6 makes
 * one by itself otherwise): guests' networks are not the host's.
 */
#include "node/network.h"

#include <ctype.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <netlink/route/link/vlan.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "hv/def.h"

#define ALIAS_PREFIX "godwit:"

/* One look at all links, and the socket to change them. */
struct links {
	struct nl_sock *sock;
	struct nl_cache *cache;
};

/* ---- looking ---- */

static void links_done(struct links *l)
{
	if (l->cache)
		nl_cache_free(l->cache);
	if (l->sock)
		nl_socket_free(l->sock);
	*l = (struct links){NULL, NULL};
}

/* Look (again). */
static int links_read(struct links *l, struct err *e)
{
	int r = 0;

	if (!l->sock) {
		l->sock = nl_socket_alloc();
		r = l->sock ? nl_connect(l->sock, NETLINK_ROUTE) : -NLE_NOMEM;
	}
	if (l->cache)
		nl_cache_free(l->cache);
	l->cache = NULL;
	if (r == 0)
		r = rtnl_link_alloc_cache(l->sock, AF_UNSPEC, &l->cache);
	if (r == 0)
		return 0;
	links_done(l);
	return err_set(e, ERR_SYSTEM, "the kernel does not list its network links: %s", nl_geterror(r));
}

/* The links below are borrowed from the cache. */
static struct rtnl_link *link_at(struct nl_object *o)
{
	return (struct rtnl_link *)o;
}

static struct rtnl_link *link_named(const struct links *l, const char *name)
{
	for (struct nl_object *o = nl_cache_get_first(l->cache); o; o = nl_cache_get_next(o))
		if (strcmp(rtnl_link_get_name(link_at(o)), name) == 0)
			return link_at(o);
	return NULL;
}

static struct rtnl_link *link_by_index(const struct links *l, int index)
{
	for (struct nl_object *o = nl_cache_get_first(l->cache); o; o = nl_cache_get_next(o))
		if (rtnl_link_get_ifindex(link_at(o)) == index)
			return link_at(o);
	return NULL;
}

/* The link that is VLAN @id of @uplink. */
static struct rtnl_link *link_of_vlan(const struct links *l, struct rtnl_link *uplink, unsigned id)
{
	for (struct nl_object *o = nl_cache_get_first(l->cache); o; o = nl_cache_get_next(o))
		if (rtnl_link_is_vlan(link_at(o)) && rtnl_link_vlan_get_id(link_at(o)) == (int)id &&
		    rtnl_link_get_link(link_at(o)) == rtnl_link_get_ifindex(uplink))
			return link_at(o);
	return NULL;
}

static const char *link_kind(struct rtnl_link *link)
{
	const char *kind = rtnl_link_get_type(link);

	return kind ? kind : "device";
}

static bool link_is_bridge(struct rtnl_link *link)
{
	return strcmp(link_kind(link), "bridge") == 0;
}

static bool link_is_up(struct rtnl_link *link)
{
	return rtnl_link_get_flags(link) & IFF_UP;
}

/* The network that @link was made for, or NULL. */
static const char *link_network(struct rtnl_link *link)
{
	const char *alias = rtnl_link_get_ifalias(link);

	return alias && strncmp(alias, ALIAS_PREFIX, strlen(ALIAS_PREFIX)) == 0 ? alias + strlen(ALIAS_PREFIX) : NULL;
}

static bool link_made_for(struct rtnl_link *link, const struct network *n)
{
	const char *owner = link_network(link);

	return owner && strcmp(owner, n->name) == 0;
}

/* ---- judging ---- */

static bool interface_name_valid(const char *name)
{
	if (!name[0] || strlen(name) >= IFNAMSIZ || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return false;
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && !strchr("_.-", *name))
			return false;
	return true;
}

int network_valid(const struct network *n, struct err *e)
{
	if (!def_name_valid(n->name))
		return err_set(
			e, ERR_INPUT,
			"network \"%s\": a name is letters, digits, _ . -, at most %d, beginning with a letter or "
			"digit",
			n->name, NETWORK_NAME_MAX);
	if (!interface_name_valid(n->bridge))
		return err_set(e, ERR_INPUT, "network %s: bridge \"%s\": a name is letters, digits, _ . -, at most %d",
			       n->name, n->bridge, IFNAMSIZ - 1);
	if (n->vlan > NETWORK_VLAN_MAX)
		return err_set(e, ERR_INPUT, "network %s: vlan %u: must be from 1 to %d", n->name, n->vlan,
			       NETWORK_VLAN_MAX);
	if (n->vlan && !n->uplink[0])
		return err_set(e, ERR_INPUT, "network %s: vlan %u of which interface? Give an uplink", n->name,
			       n->vlan);
	if (n->uplink[0] && !n->vlan)
		return err_set(
			e, ERR_INPUT,
			"network %s: uplink %s needs a vlan; to join %s itself to bridge %s is left to you, because "
			"it takes the host's own address off that wire",
			n->name, n->uplink, n->uplink, n->bridge);
	if (n->uplink[0] && !interface_name_valid(n->uplink))
		return err_set(e, ERR_INPUT, "network %s: uplink \"%s\" is no interface name", n->name, n->uplink);
	if (strcmp(n->uplink, n->bridge) == 0)
		return err_set(e, ERR_INPUT, "network %s: uplink and bridge are both %s", n->name, n->bridge);
	return 0;
}

/* Is @link, of the name of our bridge, a bridge that we may use? */
static int bridge_fits(struct rtnl_link *link, const struct network *n, struct err *e)
{
	const char *owner = link_network(link);

	if (!link_is_bridge(link))
		return err_set(
			e, ERR_UNSUPPORTED,
			"network %s: %s is no bridge on this host but a %s; rename it, or give the network another "
			"bridge",
			n->name, n->bridge, link_kind(link));
	if (owner && strcmp(owner, n->name) != 0)
		return err_set(e, ERR_UNSUPPORTED,
			       "network %s: bridge %s belongs to network %s; give the network another bridge", n->name,
			       n->bridge, owner);
	return 0;
}

/* Is the VLAN @link of our uplink free for @bridge (NULL: not there yet), or on it already? */
static int vlan_fits(const struct links *l, struct rtnl_link *link, struct rtnl_link *bridge, const struct network *n,
		     struct err *e)
{
	int master = rtnl_link_get_master(link);
	struct rtnl_link *other = master ? link_by_index(l, master) : NULL;

	if (bridge && master == rtnl_link_get_ifindex(bridge))
		return 0;
	if (master)
		return err_set(
			e, ERR_UNSUPPORTED,
			"network %s: VLAN %u of %s (%s) is joined to %s already; one VLAN can be on one bridge only",
			n->name, n->vlan, n->uplink, rtnl_link_get_name(link),
			other ? rtnl_link_get_name(other) : "something else");
	if (!link_made_for(link, n))
		return err_set(
			e, ERR_UNSUPPORTED,
			"network %s: VLAN %u of %s is in use by this host (%s); join it to %s yourself (ip link set "
			"%s master %s), or remove it",
			n->name, n->vlan, n->uplink, rtnl_link_get_name(link), n->bridge, rtnl_link_get_name(link),
			n->bridge);
	return 0;
}

static int uplink_find(const struct links *l, const struct network *n, struct rtnl_link **ret, struct err *e)
{
	*ret = link_named(l, n->uplink);
	if (!*ret)
		return err_set(e, ERR_UNSUPPORTED, "network %s: uplink %s does not exist on this host", n->name,
			       n->uplink);
	if (!link_is_up(*ret))
		return err_set(e, ERR_UNSUPPORTED, "network %s: uplink %s is down; ip link set %s up", n->name,
			       n->uplink, n->uplink);
	return 0;
}

static int check_vlan(const struct links *l, struct rtnl_link *bridge, const struct network *n, struct err *e)
{
	struct rtnl_link *uplink, *vlan;

	if (uplink_find(l, n, &uplink, e) < 0)
		return -1;
	vlan = link_of_vlan(l, uplink, n->vlan);
	if (!vlan || !rtnl_link_get_master(vlan))
		return err_set(e, ERR_UNSUPPORTED,
			       "network %s: VLAN %u of %s is not on bridge %s; godwit network create joins it", n->name,
			       n->vlan, n->uplink, n->bridge);
	if (vlan_fits(l, vlan, bridge, n, e) < 0)
		return -1;
	if (!link_is_up(vlan))
		return err_set(e, ERR_UNSUPPORTED, "network %s: %s is down; ip link set %s up", n->name,
			       rtnl_link_get_name(vlan), rtnl_link_get_name(vlan));
	return 0;
}

static int check(const struct links *l, const struct network *n, struct err *e)
{
	struct rtnl_link *bridge = link_named(l, n->bridge);

	if (!bridge)
		return err_set(e, ERR_UNSUPPORTED,
			       "network %s: bridge %s does not exist on this host; godwit network create makes it",
			       n->name, n->bridge);
	if (bridge_fits(bridge, n, e) < 0)
		return -1;
	if (!link_is_up(bridge))
		return err_set(e, ERR_UNSUPPORTED, "network %s: bridge %s is down; ip link set %s up", n->name,
			       n->bridge, n->bridge);
	return n->vlan ? check_vlan(l, bridge, n, e) : 0;
}

int network_check(const struct network *n, struct err *e)
{
	struct links l = {NULL, NULL};
	int r;

	if (network_valid(n, e) < 0 || links_read(&l, e) < 0)
		return -1;
	r = check(&l, n, e);
	links_done(&l);
	return r;
}

/* ---- changing ---- */

/* Send @m (taken), wait for the kernel's word. @what, of interface @name, for the message. */
static int request(struct links *l, struct nl_msg *m, const char *what, const char *name, struct err *e)
{
	int r = nl_send_sync(l->sock, m);

	if (r >= 0)
		return 0;
	if (r == -NLE_PERM)
		return err_set(e, ERR_SYSTEM, "%s %s needs root or CAP_NET_ADMIN", what, name);
	if (r == -NLE_OPNOTSUPP)
		return err_set(e, ERR_UNSUPPORTED,
			       "%s %s: this kernel cannot; is the module missing (modprobe bridge 8021q)?", what, name);
	return err_set(e, ERR_SYSTEM, "%s %s: %s", what, name, nl_geterror(r));
}

/* A message about the link @index (0: a new one) that sets @flags. */
static struct nl_msg *message(int type, int how, int index, unsigned flags)
{
	struct ifinfomsg head = {.ifi_index = index, .ifi_flags = flags, .ifi_change = flags};
	struct nl_msg *m = nlmsg_alloc_simple(type, how);

	if (!m || nlmsg_append(m, &head, sizeof(head), NLMSG_ALIGNTO) < 0)
		abort();
	return m;
}

static int link_add_bridge(struct links *l, const char *name, struct err *e)
{
	struct nl_msg *m = message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, 0);
	struct nlattr *info, *data;

	nla_put_string(m, IFLA_IFNAME, name);
	info = nla_nest_start(m, IFLA_LINKINFO);
	nla_put_string(m, IFLA_INFO_KIND, "bridge");
	data = nla_nest_start(m, IFLA_INFO_DATA);
	nla_put_u32(m, IFLA_BR_FORWARD_DELAY, 0);
	nla_nest_end(m, data);
	nla_nest_end(m, info);
	return request(l, m, "making bridge", name, e);
}

static int link_add_vlan(struct links *l, const char *name, int uplink, unsigned id, struct err *e)
{
	struct nl_msg *m = message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, 0);
	struct nlattr *info, *data;

	nla_put_string(m, IFLA_IFNAME, name);
	nla_put_u32(m, IFLA_LINK, (uint32_t)uplink);
	info = nla_nest_start(m, IFLA_LINKINFO);
	nla_put_string(m, IFLA_INFO_KIND, "vlan");
	data = nla_nest_start(m, IFLA_INFO_DATA);
	nla_put_u16(m, IFLA_VLAN_ID, (uint16_t)id);
	nla_nest_end(m, data);
	nla_nest_end(m, info);
	return request(l, m, "making VLAN", name, e);
}

static int link_mark(struct links *l, int index, const char *name, const struct network *n, struct err *e)
{
	_free_ char *alias = xasprintf(ALIAS_PREFIX "%s", n->name);
	struct nl_msg *m = message(RTM_NEWLINK, 0, index, 0);

	nla_put_string(m, IFLA_IFALIAS, alias);
	return request(l, m, "marking", name, e);
}

/* No IPv6 address of the host's own. A kernel without IPv6 needs no telling. */
static void link_quiet(struct links *l, int index, const char *name)
{
	struct nl_msg *m = message(RTM_NEWLINK, 0, index, 0);
	struct nlattr *spec = nla_nest_start(m, IFLA_AF_SPEC), *inet6 = nla_nest_start(m, AF_INET6);

	nla_put_u8(m, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	nla_nest_end(m, inet6);
	nla_nest_end(m, spec);
	request(l, m, "quieting", name, NULL);
}

static int link_join(struct links *l, int index, const char *name, int bridge, struct err *e)
{
	struct nl_msg *m = message(RTM_NEWLINK, 0, index, 0);

	nla_put_u32(m, IFLA_MASTER, (uint32_t)bridge);
	return request(l, m, "joining to the bridge:", name, e);
}

static int link_up(struct links *l, int index, const char *name, struct err *e)
{
	return request(l, message(RTM_NEWLINK, 0, index, IFF_UP), "setting up", name, e);
}

static int link_remove(struct links *l, int index, const char *name, struct err *e)
{
	return request(l, message(RTM_DELLINK, 0, index, 0), "removing", name, e);
}

/* Look again for @name, which was just made, and mark it; it goes again when that fails. */
static int link_adopt(struct links *l, const char *name, const struct network *n, struct err *e)
{
	struct rtnl_link *link;
	int index;

	if (links_read(l, e) < 0)
		return -1;
	link = link_named(l, name);
	if (!link)
		return err_set(e, ERR_SYSTEM, "%s was made and is gone; does another program manage it?", name);
	index = rtnl_link_get_ifindex(link);
	if (link_mark(l, index, name, n, e) < 0) {
		link_remove(l, index, name, NULL);
		return -1;
	}
	link_quiet(l, index, name);
	return 0;
}

/* The bridge, made if it is missing; *ret_index is its interface. */
static int create_bridge(struct links *l, const struct network *n, int *ret_index, bool *ret_made, struct err *e)
{
	struct rtnl_link *link = link_named(l, n->bridge);

	if (!link) {
		if (link_add_bridge(l, n->bridge, e) < 0 || link_adopt(l, n->bridge, n, e) < 0)
			return -1;
		*ret_made = true;
		if (links_read(l, e) < 0)
			return -1;
		link = link_named(l, n->bridge);
	}
	if (!link)
		return err_set(e, ERR_SYSTEM, "bridge %s is gone; does another program manage it?", n->bridge);
	if (bridge_fits(link, n, e) < 0)
		return -1;
	*ret_index = rtnl_link_get_ifindex(link);
	return link_is_up(link) ? 0 : link_up(l, *ret_index, n->bridge, e);
}

/* "eth1.100", or where that is too long for a name, "vlan100-7" with the uplink's number. */
static void vlan_name(const struct network *n, struct rtnl_link *uplink, char ret[IFNAMSIZ])
{
	if (snprintf(ret, IFNAMSIZ, "%s.%u", n->uplink, n->vlan) >= IFNAMSIZ)
		snprintf(ret, IFNAMSIZ, "vlan%u-%d", n->vlan % 10000, rtnl_link_get_ifindex(uplink) % 100000);
}

static int create_vlan(struct links *l, const struct network *n, int bridge, struct err *e)
{
	struct rtnl_link *uplink, *vlan;
	char name[IFNAMSIZ];
	bool made = false;
	int index, r;

	if (uplink_find(l, n, &uplink, e) < 0)
		return -1;
	vlan = link_of_vlan(l, uplink, n->vlan);
	if (!vlan) {
		vlan_name(n, uplink, name);
		if (link_add_vlan(l, name, rtnl_link_get_ifindex(uplink), n->vlan, e) < 0 ||
		    link_adopt(l, name, n, e) < 0 || links_read(l, e) < 0)
			return -1;
		made = true;
		vlan = link_named(l, name);
	}
	if (!vlan)
		return err_set(e, ERR_SYSTEM, "VLAN %u of %s is gone; does another program manage it?", n->vlan,
			       n->uplink);
	snprintf(name, sizeof(name), "%s", rtnl_link_get_name(vlan));
	index = rtnl_link_get_ifindex(vlan);
	r = vlan_fits(l, vlan, link_by_index(l, bridge), n, e);
	if (r == 0 && rtnl_link_get_master(vlan) != bridge)
		r = link_join(l, index, name, bridge, e);
	if (r == 0 && !link_is_up(vlan))
		r = link_up(l, index, name, e);
	if (r < 0 && made)
		link_remove(l, index, name, NULL);
	return r;
}

int network_create(const struct network *n, struct err *e)
{
	struct links l = {NULL, NULL};
	struct err inner = ERR_INIT;
	bool made = false;
	int bridge = 0, r;

	if (network_valid(n, e) < 0 || links_read(&l, e) < 0)
		return -1;
	r = create_bridge(&l, n, &bridge, &made, &inner);
	if (r == 0 && n->vlan)
		r = create_vlan(&l, n, bridge, &inner);
	if (r < 0) {
		if (made && bridge)
			link_remove(&l, bridge, n->bridge, NULL);
		*e = inner;
		if (strncmp(inner.text, "network ", 8) != 0)
			err_wrap(e, "network %s", n->name);
	}
	links_done(&l);
	return r;
}

/* Ports of @bridge that were not made for @n, as words in @buf; their number. */
static unsigned foreign_ports(const struct links *l, int bridge, const struct network *n, char *buf, size_t size)
{
	unsigned count = 0;
	size_t used = 0;

	buf[0] = 0;
	for (struct nl_object *o = nl_cache_get_first(l->cache); o; o = nl_cache_get_next(o)) {
		if (rtnl_link_get_master(link_at(o)) != bridge || link_made_for(link_at(o), n))
			continue;
		if (used < size)
			used += (size_t)snprintf(buf + used, size - used, "%s%s", count ? ", " : "",
						 rtnl_link_get_name(link_at(o)));
		count++;
	}
	return count;
}

/* Remove every VLAN that was made for @n. */
static int delete_vlans(struct links *l, const struct network *n, struct err *e)
{
	for (struct nl_object *o = nl_cache_get_first(l->cache); o; o = nl_cache_get_next(o))
		if (rtnl_link_is_vlan(link_at(o)) && link_made_for(link_at(o), n) &&
		    link_remove(l, rtnl_link_get_ifindex(link_at(o)), rtnl_link_get_name(link_at(o)), e) < 0)
			return -1;
	return 0;
}

static int delete_links(struct links *l, const struct network *n, struct err *e)
{
	struct rtnl_link *bridge = link_named(l, n->bridge);
	bool ours = bridge && link_is_bridge(bridge) && link_made_for(bridge, n);
	char ports[160];
	unsigned count = ours ? foreign_ports(l, rtnl_link_get_ifindex(bridge), n, ports, sizeof(ports)) : 0;

	if (count)
		return err_set(e, ERR_UNSUPPORTED,
			       "bridge %s still has %u ports (%s); stop or move the guests that use it", n->bridge,
			       count, ports);
	if (delete_vlans(l, n, e) < 0)
		return -1;
	return ours ? link_remove(l, rtnl_link_get_ifindex(bridge), n->bridge, e) : 0;
}

int network_delete(const struct network *n, struct err *e)
{
	struct links l = {NULL, NULL};
	int r;

	if (network_valid(n, e) < 0 || links_read(&l, e) < 0)
		return -1;
	r = delete_links(&l, n, e);
	links_done(&l);
	return r < 0 ? err_wrap(e, "network %s", n->name) : 0;
}

/* ---- listing ---- */

static json_t *text_or_null(const char *s)
{
	return s ? json_string(s) : json_null();
}

static json_t *bridge_json(const struct links *l, struct rtnl_link *bridge)
{
	json_t *ports = json_array(), *uplink = NULL, *vlan = NULL;

	for (struct nl_object *o = nl_cache_get_first(l->cache); o; o = nl_cache_get_next(o)) {
		struct rtnl_link *port = link_at(o), *parent;

		if (rtnl_link_get_master(port) != rtnl_link_get_ifindex(bridge))
			continue;
		json_array_append_new(ports, json_string(rtnl_link_get_name(port)));
		if (uplink || !rtnl_link_is_vlan(port))
			continue;
		parent = link_by_index(l, rtnl_link_get_link(port));
		uplink = text_or_null(parent ? rtnl_link_get_name(parent) : NULL);
		vlan = json_integer(rtnl_link_vlan_get_id(port));
	}
	return json_pack("{s:s, s:b, s:o, s:o, s:o, s:o}", "bridge", rtnl_link_get_name(bridge), "up",
			 link_is_up(bridge), "ports", ports, "network", text_or_null(link_network(bridge)), "uplink",
			 uplink ? uplink : json_null(), "vlan", vlan ? vlan : json_null());
}

int network_list(json_t **ret, struct err *e)
{
	struct links l = {NULL, NULL};
	json_t *list;

	if (links_read(&l, e) < 0)
		return -1;
	list = json_array();
	for (struct nl_object *o = nl_cache_get_first(l.cache); o; o = nl_cache_get_next(o))
		if (link_is_bridge(link_at(o)))
			json_array_append_new(list, bridge_json(&l, link_at(o)));
	links_done(&l);
	*ret = list;
	return 0;
}
