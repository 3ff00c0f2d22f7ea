/* SPDX-License-Identifier: Apache-2.0 */
/* The guest definition: what a JSON file may say about a guest, checked field by field. */
#ifndef GODWIT_HV_DEF_H
#define GODWIT_HV_DEF_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define DEF_NAME_MAX 63
#define DEF_DISKS_MAX 16
#define DEF_NICS_MAX 8
#define DEF_FORWARDS_MAX 16
#define DEF_SSH_KEYS_MAX 32
#define DEF_FILE_MAX (1U << 20)      /* bytes of JSON accepted */
#define DEF_MEMORY_MIN (16ULL << 20) /* bytes */
#define DEF_MEMORY_MAX (8ULL << 40)  /* bytes */
#define DEF_HUGEPAGE_SIZE (2U << 20) /* bytes */
#define DEF_VCPUS_MAX 255
#define DEF_SEED_TEXT_MAX (256U << 10) /* bytes of one seed file */

enum def_format { DEF_FORMAT_RAW, DEF_FORMAT_QCOW2, DEF_FORMAT_MAX };
enum def_nic_type { DEF_NIC_TAP, DEF_NIC_USER, DEF_NIC_MAX };
enum def_firmware { DEF_FIRMWARE_BIOS, DEF_FIRMWARE_UEFI, DEF_FIRMWARE_MAX };
enum def_protocol { DEF_PROTOCOL_TCP, DEF_PROTOCOL_UDP, DEF_PROTOCOL_MAX };
extern const char *const def_format_names[DEF_FORMAT_MAX];
extern const char *const def_nic_names[DEF_NIC_MAX];
extern const char *const def_firmware_names[DEF_FIRMWARE_MAX];
extern const char *const def_protocol_names[DEF_PROTOCOL_MAX];

struct def_disk {
	char *file; /* absolute */
	enum def_format format;
	bool readonly;
};

/* A port of the host's 127.0.0.1 that leads into the guest. */
struct def_forward {
	enum def_protocol protocol;
	uint16_t host;
	uint16_t guest;
};

struct def_nic {
	enum def_nic_type type;
	char *bridge;    /* tap only */
	char mac[18];    /* "52:54:00:xx:xx:xx" */
	bool restricted; /* user only: nothing but the forwards */
	struct def_forward forwards[DEF_FORWARDS_MAX];
	size_t n_forwards;
};

/* cloud-init's NoCloud data; texts as given or read from the files named, NULL where the definition says nothing. */
struct def_seed {
	bool present;
	char *hostname;
	char *user_data;
	char *meta_data;
	char *network_config;
	char *ssh_keys[DEF_SSH_KEYS_MAX];
	size_t n_ssh_keys;
};

/* One guest. Start as (struct def){0}; def_done() frees what it holds. */
struct def {
	char name[DEF_NAME_MAX + 1];
	char uuid[37];
	unsigned vcpus;
	uint64_t memory; /* bytes, a multiple of 1 MiB (2 MiB with hugepages) */
	bool hugepages;
	char *machine; /* "q35", "pc" or a versioned type such as "pc-q35-7.2" */
	char *cpu;
	enum def_firmware firmware;
	char *uefi_vars; /* absolute, or NULL: a fresh copy at each start */
	char *kernel;    /* absolute, or NULL: boot from disk */
	char *initrd;    /* absolute or NULL */
	char *cmdline;   /* or NULL */
	struct def_disk disks[DEF_DISKS_MAX];
	size_t n_disks;
	struct def_nic nics[DEF_NICS_MAX];
	size_t n_nics;
	struct def_seed seed;
};

/* Read a definition out of @text. @file is the name for messages; relative paths inside are taken from folder @dir
 * (NULL: the current one). A missing uuid is made up (random), missing MAC addresses follow from the uuid.
 * -1 with @e: "file: field: reason", *ret untouched. */
int def_parse(const char *text, size_t size, const char *file, const char *dir, struct def *ret, struct err *e);

/* As def_parse on the file at @path. */
int def_load(const char *path, struct def *ret, struct err *e);

void def_done(struct def *d);

/* The definition in full: every field written out, absolute paths, seed texts inline. Reading it back gives the same
 * guest, on this host or another. Caller owns the reference. */
json_t *def_to_json(const struct def *d);

/* Whether @name may name a guest (and so a folder of the run directory). Pure. */
bool def_name_valid(const char *name);

/* The MAC address of NIC @index of the guest with @uuid into @ret: the same on every host. Pure. */
void def_mac(const char *uuid, unsigned index, char ret[18]);

#endif
