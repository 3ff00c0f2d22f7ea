/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's command line.
 *
 * Both sides of a migration must build the same machine, so everything the guest can see is spelled out: the versioned
 * machine type, a CPU model without "whatever this host has", a PCI slot for each device by its place in the
 * definition. What the guest cannot see (descriptors, accelerator, cache mode) may differ.
 *
 * QEMU opens no file of the guest by name, apart from kernel and initrd: disks, seed, UEFI variables and the console's
 * log come as descriptors in "fd sets", sockets are bound before QEMU exists. So QEMU's user needs no right to any of
 * them, and QEMU listens itself (listen(2) is what SO_PEERCRED of a monitor names, and that must be QEMU).
 */
#include "hv/cmdline.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "hv/ram.h"

#define FIRST_SLOT 2 /* 0 is the host bridge, 1 the pc machine's south bridge; q35 has its own at 31 */
#define TCG_RAM_MORE (128U << 10)

/* Fd sets by number; a set's number is arbitrary but must be unique. */
enum { SET_CONSOLE_LOG = 1, SET_SEED, SET_VARS, SET_DISKS };

/* The levels of the x86-64 psABI out of QEMU's vendor-neutral model, which has no names for them. v2 runs on every host
 * since 2009 of either make, and today's distributions ask for it; "host" would tie the guest to hosts of one kind,
 * plain qemu64 is too little for them. Without svm: a guest that runs guests cannot be moved between makes. "enforce":
 * a host that lacks a feature says so at start instead of showing the guest another CPU. v3 and v4 have AES as well,
 * which the psABI leaves open: every CPU of these levels has it, and TLS in the guest is slow without. */
#define CPU_V2 "qemu64,+cx16,+lahf-lm,+popcnt,+ssse3,+sse4.1,+sse4.2,-svm"
#define CPU_V3 CPU_V2 ",+abm,+aes,+avx,+avx2,+bmi1,+bmi2,+f16c,+fma,+movbe,+pclmulqdq,+xsave"
#define CPU_V4 CPU_V3 ",+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"

static const struct cmdline_cpu_model own_models[] = {
	{"x86-64-v2", CPU_V2 ",enforce"},
	{"x86-64-v3", CPU_V3 ",enforce"},
	{"x86-64-v4", CPU_V4 ",enforce"},
};

const struct cmdline_cpu_model *cmdline_cpu_models(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(own_models);
	return own_models;
}

const char *cmdline_cpu(const char *cpu)
{
	for (size_t i = 0; i < ARRAY_SIZE(own_models); i++)
		if (strcmp(cpu, own_models[i].name) == 0)
			return own_models[i].cpu;
	return cpu;
}

static void take(struct cmdline *c, char *word)
{
	if (c->n + 2 > c->room) {
		char **more = xcalloc(c->room * 2 + 64, sizeof(*more));

		if (c->n)
			memcpy(more, c->words, c->n * sizeof(*more));
		free(c->words);
		c->words = more;
		c->room = c->room * 2 + 64;
	}
	c->words[c->n++] = word;
	c->words[c->n] = NULL;
}

static void add(struct cmdline *c, const char *option)
{
	take(c, xstrdup(option));
}

static void addf(struct cmdline *c, const char *option, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void addf(struct cmdline *c, const char *option, const char *fmt, ...)
{
	char *word = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&word, fmt, ap) < 0)
		abort();
	va_end(ap);
	add(c, option);
	take(c, word);
}

/* @s as the value of a QEMU option: commas doubled. Caller frees. */
static char *value(const char *s)
{
	char *out = xcalloc(strlen(s) * 2 + 1, 1);
	char *p = out;

	for (; *s; s++) {
		if (*s == ',')
			*p++ = ',';
		*p++ = *s;
	}
	return out;
}

static void add_isolation(struct cmdline *c)
{
	add(c, "-nodefaults");
	add(c, "-no-user-config");
	addf(c, "-display", "none");
	addf(c, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	addf(c, "-msg", "timestamp=on");
}

uint64_t cmdline_ram_size(const struct def *d, const char *accel)
{
	return d->memory + (strcmp(accel, "tcg") == 0 && !d->hugepages ? TCG_RAM_MORE : 0);
}

static void add_machine(struct cmdline *c, const struct def *d, const struct cmdline_host *h)
{
	bool uefi = d->firmware == DEF_FIRMWARE_UEFI;
	unsigned long long ram = cmdline_ram_size(d, h->accel);

	addf(c, "-name", "guest=%s,debug-threads=on", d->name);
	addf(c, "-uuid", "%s", d->uuid);
	addf(c, "-machine",
	     "%s,memory-backend=" RAM_OBJECT_ID ",suppress-vmdesc=on,usb=off,vmport=off,dump-guest-core=off%s",
	     h->machine, uefi ? ",pflash0=uefi-code,pflash1=uefi-vars" : "");
	if (strcmp(h->accel, "kvm") == 0 && h->dirty_ring)
		addf(c, "-accel", "kvm,dirty-ring-size=%u", h->dirty_ring);
	else
		addf(c, "-accel", "%s", strcmp(h->accel, "tcg") == 0 ? "tcg,thread=multi" : h->accel);
	addf(c, "-cpu", "%s", cmdline_cpu(d->cpu));
	addf(c, "-smp", "%u,sockets=1,cores=%u,threads=1", d->vcpus, d->vcpus);
	addf(c, "-m", "%lluK", ram >> 10);
	addf(c, "-object", "memory-backend-file,id=" RAM_OBJECT_ID ",size=%llu,mem-path=/proc/self/fd/%d,share=on", ram,
	     h->fds.ram);
	/* A guest that powers itself off stays as a stopped process until it is collected: so "QEMU is gone" always
	 * means a crash or our own doing. */
	add(c, "-no-shutdown");
}

static void add_fdset(struct cmdline *c, int set, int fd)
{
	addf(c, "-add-fd", "set=%d,fd=%d", set, fd);
}

static void add_firmware(struct cmdline *c, const struct def *d, const struct cmdline_host *h)
{
	_free_ char *code = NULL;

	if (d->firmware != DEF_FIRMWARE_UEFI)
		return;
	code = value(h->uefi_code);
	addf(c, "-blockdev", "driver=file,node-name=uefi-code-file,read-only=on,filename=%s", code);
	addf(c, "-blockdev", "driver=raw,node-name=uefi-code,read-only=on,file=uefi-code-file");
	add_fdset(c, SET_VARS, h->fds.uefi_vars);
	addf(c, "-blockdev", "driver=file,node-name=uefi-vars-file,filename=/dev/fdset/%d", SET_VARS);
	addf(c, "-blockdev", "driver=raw,node-name=uefi-vars,file=uefi-vars-file");
}

static void add_boot(struct cmdline *c, const struct def *d)
{
	if (!d->kernel)
		return;
	addf(c, "-kernel", "%s", d->kernel);
	if (d->initrd)
		addf(c, "-initrd", "%s", d->initrd);
	if (d->cmdline)
		addf(c, "-append", "%s", d->cmdline);
}

static void add_socket(struct cmdline *c, const char *id, int fd, const char *more)
{
	addf(c, "-chardev", "socket,id=%s,fd=%d,server=on,wait=off%s", id, fd, more);
}

static void add_monitors(struct cmdline *c, const struct cmdline_host *h)
{
	char log[64];

	add_socket(c, "qmp", h->fds.qmp, "");
	addf(c, "-mon", "chardev=qmp,mode=control");
	add_socket(c, "engine", h->fds.engine, "");
	addf(c, "-mon", "chardev=engine,mode=control");
	add_fdset(c, SET_CONSOLE_LOG, h->fds.console_log);
	snprintf(log, sizeof(log), ",logfile=/dev/fdset/%d,logappend=on", SET_CONSOLE_LOG);
	add_socket(c, "console", h->fds.console, log);
	addf(c, "-serial", "chardev:console");
}

static void add_disks(struct cmdline *c, const struct def *d, const struct cmdline_host *h, unsigned *slot)
{
	for (size_t i = 0; i < d->n_disks; i++) {
		const struct def_disk *k = &d->disks[i];
		const char *ro = k->readonly ? "on" : "off";

		add_fdset(c, SET_DISKS + (int)i, h->fds.disks[i]);
		addf(c, "-blockdev",
		     "driver=file,node-name=disk%zu-file,filename=/dev/fdset/"
		     "%d,read-only=%s,cache.direct=%s,discard=unmap",
		     i, SET_DISKS + (int)i, ro, h->direct[i] ? "on" : "off");
		addf(c, "-blockdev", "driver=%s,node-name=disk%zu,file=disk%zu-file,read-only=%s,discard=unmap",
		     def_format_names[k->format], i, i, ro);
		addf(c, "-device", "virtio-blk-pci,id=vd%zu,drive=disk%zu,addr=0x%x,bootindex=%zu", i, i, (*slot)++,
		     i + 1);
	}
	if (!d->seed.present)
		return;
	add_fdset(c, SET_SEED, h->fds.seed);
	addf(c, "-blockdev", "driver=file,node-name=seed-file,read-only=on,filename=/dev/fdset/%d", SET_SEED);
	addf(c, "-blockdev", "driver=raw,node-name=seed,read-only=on,file=seed-file");
	addf(c, "-device", "virtio-blk-pci,id=seed-disk,drive=seed,addr=0x%x", (*slot)++);
}

static void add_nics(struct cmdline *c, const struct def *d, const struct cmdline_host *h, unsigned *slot)
{
	for (size_t i = 0; i < d->n_nics; i++) {
		const struct def_nic *nic = &d->nics[i];
		char forwards[DEF_FORWARDS_MAX * 48] = "";

		for (size_t j = 0; j < nic->n_forwards; j++) {
			size_t used = strlen(forwards);

			snprintf(forwards + used, sizeof(forwards) - used, ",hostfwd=%s:127.0.0.1:%u-:%u",
				 def_protocol_names[nic->forwards[j].protocol], nic->forwards[j].host,
				 nic->forwards[j].guest);
		}
		if (nic->type == DEF_NIC_TAP)
			addf(c, "-netdev", "tap,id=net%zu,fd=%d", i, h->fds.taps[i]);
		else
			addf(c, "-netdev", "user,id=net%zu,restrict=%s%s", i, nic->restricted ? "on" : "off", forwards);
		addf(c, "-device", "virtio-net-pci,id=nic%zu,netdev=net%zu,mac=%s,addr=0x%x,romfile=", i, i, nic->mac,
		     (*slot)++);
	}
}

void cmdline_build(const struct def *d, const struct cmdline_host *h, struct cmdline *ret)
{
	unsigned slot = FIRST_SLOT;

	*ret = (struct cmdline){0};
	add(ret, h->qemu);
	add_isolation(ret);
	add_machine(ret, d, h);
	add_firmware(ret, d, h);
	add_boot(ret, d);
	add_monitors(ret, h);
	addf(ret, "-object", "rng-random,id=rng,filename=/dev/urandom");
	addf(ret, "-device", "virtio-rng-pci,rng=rng,addr=0x%x", slot++);
	add_disks(ret, d, h, &slot);
	add_nics(ret, d, h, &slot);
	if (h->incoming) {
		add(ret, "-S");
		addf(ret, "-incoming", "defer");
	}
}

void cmdline_done(struct cmdline *c)
{
	for (size_t i = 0; i < c->n; i++)
		free(c->words[i]);
	free(c->words);
	*c = (struct cmdline){0};
}

char *cmdline_machine_pin(const char *help, const char *machine, struct err *e)
{
	size_t n = strlen(machine);

	for (const char *line = help; line && *line; line = strchr(line, '\n'), line += line != NULL) {
		static const char alias[] = "(alias of ";
		const char *end = strchr(line, '\n');
		const char *at, *stop;

		if (strncmp(line, machine, n) != 0 || line[n] != ' ')
			continue;
		at = strstr(line, alias);
		if (!at || (end && at > end))
			return xstrdup(machine);
		at += strlen(alias);
		stop = strchr(at, ')');
		if (stop && (!end || stop < end))
			return xasprintf("%.*s", (int)(stop - at), at);
	}
	err_set(e, ERR_UNSUPPORTED, "this QEMU has no machine type %s; \"-machine help\" lists what it has", machine);
	return NULL;
}
