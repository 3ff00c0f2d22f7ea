/* SPDX-License-Identifier: Apache-2.0 */
/* Tap devices.
 *
 * The tap is up from the start, also for a guest that waits for a migration: a stopped QEMU does not read it, so what
 * the bridge floods to it waits in the tap's queue (and is dropped when that is full) until the guest runs.
 */
#include "hv/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"

static int tap_join(const char *name, const char *bridge, struct err *e)
{
	_closefd_ int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq req = {0};

	if (s < 0)
		return err_sys(e, "socket");
	if (!if_nametoindex(bridge))
		return err_set(e, ERR_SYSTEM, "bridge %s does not exist; \"ip link add %s type bridge\" makes one",
			       bridge, bridge);
	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", bridge);
	req.ifr_ifindex = (int)if_nametoindex(name);
	if (ioctl(s, SIOCBRADDIF, &req) < 0)
		return err_sys(e, "bridge %s: adding %s", bridge, name);
	req = (struct ifreq){0};
	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", name);
	if (ioctl(s, SIOCGIFFLAGS, &req) < 0)
		return err_sys(e, "interface %s", name);
	req.ifr_flags = (short)(req.ifr_flags | IFF_UP);
	if (ioctl(s, SIOCSIFFLAGS, &req) < 0)
		return err_sys(e, "interface %s: setting it up", name);
	return 0;
}

int tap_create(const char *bridge, char ret_name[IFNAMSIZ], struct err *e)
{
	_closefd_ int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};

	if (fd < 0 && errno != EACCES)
		return err_sys(e, "/dev/net/tun");
	snprintf(req.ifr_name, sizeof(req.ifr_name), "gw%%d");
	if (fd < 0 || ioctl(fd, TUNSETIFF, &req) < 0) {
		if (fd < 0 || errno == EPERM)
			return err_set(
				e, ERR_SYSTEM,
				"a tap on bridge %s needs root or CAP_NET_ADMIN; a NIC of type user needs neither",
				bridge);
		return err_sys(e, "a tap on bridge %s", bridge);
	}
	if (tap_join(req.ifr_name, bridge, e) < 0)
		return -1;
	memcpy(ret_name, req.ifr_name, IFNAMSIZ);
	return steal_fd(&fd);
}
