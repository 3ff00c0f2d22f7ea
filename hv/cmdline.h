/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's command line for a definition: pure, so that every word of it can be tested. */
#ifndef GODWIT_HV_CMDLINE_H
#define GODWIT_HV_CMDLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "hv/def.h"

/* The descriptors that QEMU inherits, by the numbers they have there; -1: there is none. */
struct cmdline_fds {
	int ram;
	int qmp;    /* bound unix socket, QEMU listens */
	int engine; /* the same, for the migration engine's monitor */
	int console;
	int console_log; /* opened for appending */
	int seed;
	int uefi_vars;
	int disks[DEF_DISKS_MAX];
	int taps[DEF_NICS_MAX];
};

/* What the host adds to the definition. All borrowed. */
struct cmdline_host {
	const char *qemu;           /* program */
	const char *machine;        /* versioned machine type */
	const char *accel;          /* "kvm" or "tcg" */
	unsigned dirty_ring;        /* entries per vCPU, 0: dirty bitmap; kvm only */
	bool incoming;              /* wait, stopped, for a migration */
	bool direct[DEF_DISKS_MAX]; /* the disk's file system takes O_DIRECT */
	const char *uefi_code;      /* firmware file, for uefi */
	struct cmdline_fds fds;
};

/* A NULL-terminated list of words that grows. */
struct cmdline {
	char **words;
	size_t n, room;
};

/* Build the command line into *ret (free with cmdline_done). */
void cmdline_build(const struct def *d, const struct cmdline_host *h, struct cmdline *ret);
void cmdline_done(struct cmdline *c);

/* A CPU model of our own, and what it is in QEMU's words. */
struct cmdline_cpu_model {
	const char *name;
	const char *cpu;
};

/* All of them, weakest first. */
const struct cmdline_cpu_model *cmdline_cpu_models(size_t *ret_n);

/* Bytes of RAM that QEMU and the memfd get for the definition's memory. Under TCG a little more than was asked for:
 * with RAM that is a multiple of 256 KiB, QEMU's clearing of the dirty log does not reach TCG's software TLB, and a
 * guest that moves loses writes (docs/guest.md). Pure. */
uint64_t cmdline_ram_size(const struct def *d, const char *accel);

/* What "-cpu" gets for the definition's cpu: our own model names spelled out, others as they are. */
const char *cmdline_cpu(const char *cpu);

/* The versioned machine type behind @machine in QEMU's answer to "-machine help": the alias resolved, a versioned name
 * checked. Caller frees; NULL with @e when this QEMU has no such machine. Pure. */
char *cmdline_machine_pin(const char *help, const char *machine, struct err *e);

#endif
