/* SPDX-License-Identifier: Apache-2.0 */
/* Which accelerator a guest gets on this host, and why. */
#ifndef GODWIT_HV_ACCEL_H
#define GODWIT_HV_ACCEL_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

enum accel_want { ACCEL_AUTO, ACCEL_KVM, ACCEL_TCG, ACCEL_WANT_MAX };
enum accel_ring { ACCEL_RING_AUTO, ACCEL_RING_ON, ACCEL_RING_OFF, ACCEL_RING_MAX };
extern const char *const accel_want_names[ACCEL_WANT_MAX];
extern const char *const accel_ring_names[ACCEL_RING_MAX];

/* Entries per vCPU of KVM's dirty ring: 64 KiB of memory each vCPU, full after 16 MiB of fresh writes. */
#define ACCEL_RING_ENTRIES 4096U

/* What this host offers; filled by accel_probe(), or by a test. */
struct accel_host {
	bool hardware;     /* kvm_intel or kvm_amd is loaded */
	int open_errno;    /* of opening /dev/kvm; 0: it opened */
	bool user_allowed; /* QEMU's user may open it too */
	bool ring;         /* KVM_CAP_DIRTY_LOG_RING */
	mode_t mode;       /* of /dev/kvm, for the message */
};

struct accel_choice {
	bool kvm;
	unsigned ring_entries; /* 0: dirty bitmap */
	char why[256];
};

/* Look at this host. @uid and @gid are QEMU's; @ret_kvm_gid gets the group to add for /dev/kvm, or -1. */
void accel_probe(uid_t uid, gid_t gid, struct accel_host *ret, gid_t *ret_kvm_gid);

/* Decide. -1 with @e (ERR_UNSUPPORTED) when what was asked for is not there. Pure. */
int accel_choose(enum accel_want want, enum accel_ring ring, const struct accel_host *host, struct accel_choice *ret,
		 struct err *e);

#endif
