/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing the accelerator.
 *
 * That /dev/kvm is there does not mean that an ordinary guest runs: some clouds offer a paravirtual KVM on which a
 * stock kernel dies. So KVM is chosen by itself only where a hardware module (kvm_intel, kvm_amd) is loaded.
 */
#include "hv/accel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#define KVM_DEVICE "/dev/kvm"

const char *const accel_want_names[ACCEL_WANT_MAX] = {"auto", "kvm", "tcg"};
const char *const accel_ring_names[ACCEL_RING_MAX] = {"auto", "on", "off"};

void accel_probe(uid_t uid, gid_t gid, struct accel_host *ret, gid_t *ret_kvm_gid)
{
	_closefd_ int fd = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);
	struct stat st;

	*ret = (struct accel_host){.open_errno = fd < 0 ? errno : 0};
	*ret_kvm_gid = (gid_t)-1;
	ret->hardware = access("/sys/module/kvm_intel", F_OK) == 0 || access("/sys/module/kvm_amd", F_OK) == 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	ret->ring = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING) > 0;
	ret->mode = st.st_mode & 0777;
	if ((st.st_mode & 0060) == 0060 && st.st_gid != 0)
		*ret_kvm_gid = st.st_gid;
	ret->user_allowed = uid == geteuid() || (st.st_mode & 0006) == 0006 || *ret_kvm_gid != (gid_t)-1 ||
			    (st.st_uid == uid && (st.st_mode & 0600) == 0600) ||
			    (st.st_gid == gid && (st.st_mode & 0060) == 0060);
}

/* Why KVM cannot be used here, or NULL. */
static const char *kvm_obstacle(const struct accel_host *host, char *buf, size_t size)
{
	if (host->open_errno)
		snprintf(buf, size, KVM_DEVICE " cannot be opened: %s", strerror(host->open_errno));
	else if (!host->user_allowed)
		snprintf(buf, size,
			 KVM_DEVICE " (mode %04o) is closed to QEMU's user; chgrp kvm " KVM_DEVICE
				    " && chmod 0660 " KVM_DEVICE " opens it",
			 host->mode);
	else
		return NULL;
	return buf;
}

int accel_choose(enum accel_want want, enum accel_ring ring, const struct accel_host *host, struct accel_choice *ret,
		 struct err *e)
{
	struct accel_choice c = {0};
	char buf[200];
	const char *obstacle = kvm_obstacle(host, buf, sizeof(buf));

	if (want == ACCEL_KVM && obstacle)
		return err_set(e, ERR_UNSUPPORTED, "accelerator kvm: %s; or choose --accel tcg", obstacle);
	c.kvm = want == ACCEL_KVM || (want == ACCEL_AUTO && host->hardware && !obstacle);
	if (want != ACCEL_AUTO)
		snprintf(c.why, sizeof(c.why), "asked for");
	else if (c.kvm)
		snprintf(c.why, sizeof(c.why), "hardware virtualization is there");
	else if (!host->hardware)
		snprintf(c.why, sizeof(c.why), "neither kvm_intel nor kvm_amd is loaded");
	else
		snprintf(c.why, sizeof(c.why), "%s", obstacle);
	if (ring == ACCEL_RING_ON && !c.kvm)
		return err_set(e, ERR_UNSUPPORTED, "the dirty ring belongs to kvm, and tcg was chosen (%s)", c.why);
	if (ring == ACCEL_RING_ON && !host->ring)
		return err_set(e, ERR_UNSUPPORTED, "this kernel's kvm has no dirty ring; leave --dirty-ring on out");
	if (c.kvm && host->ring && ring != ACCEL_RING_OFF)
		c.ring_entries = ACCEL_RING_ENTRIES;
	*ret = c;
	return 0;
}
