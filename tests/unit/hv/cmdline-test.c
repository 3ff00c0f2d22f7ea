/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's command line, word by word, and the choice of machine and accelerator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "hv/accel.h"
#include "hv/cmdline.h"

#define HEAD "{\"name\":\"web1\",\"uuid\":\"6ba7b810-9dad-41d1-80b4-00c04fd430c8\",\"vcpus\":2,\"memory\":\"1G\""

static const char help[] = "Supported machines are:\n"
			   "pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)\n"
			   "pc-i440fx-7.2        Standard PC (i440FX + PIIX, 1996) (default)\n"
			   "q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)\n"
			   "pc-q35-7.2           Standard PC (Q35 + ICH9, 2009)\n"
			   "pc-q35-7.1           Standard PC (Q35 + ICH9, 2009)\n";

static struct cmdline_host tcg_host(void)
{
	return (struct cmdline_host){.qemu = "qemu-system-x86_64",
				     .machine = "pc-q35-7.2",
				     .accel = "tcg",
				     .uefi_code = "/ovmf,code.fd",
				     .fds = {.ram = 10, .qmp = 11, .engine = 12, .console = 13, .console_log = 14}};
}

static struct cmdline build(const char *text, const struct cmdline_host *h)
{
	struct def d = {0};
	struct cmdline c;
	struct err e = ERR_INIT;

	if (def_parse(text, strlen(text), "t", "/", &d, &e) < 0)
		fail_msg("%s", e.text);
	cmdline_build(&d, h, &c);
	def_done(&d);
	return c;
}

/* Whether @option is there with @value (NULL: alone). */
static bool has(const struct cmdline *c, const char *option, const char *value)
{
	for (size_t i = 0; i < c->n; i++)
		if (strcmp(c->words[i], option) == 0 &&
		    (!value || (c->words[i + 1] && !strcmp(c->words[i + 1], value))))
			return true;
	return false;
}

static void plain_guest_is_exactly_this(void **state)
{
	static const char *const want[] = {
		"qemu-system-x86_64",
		"-nodefaults",
		"-no-user-config",
		"-display",
		"none",
		"-sandbox",
		"on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-msg",
		"timestamp=on",
		"-name",
		"guest=web1,debug-threads=on",
		"-uuid",
		"6ba7b810-9dad-41d1-80b4-00c04fd430c8",
		"-machine",
		"pc-q35-7.2,memory-backend=ram0,suppress-vmdesc=on,usb=off,vmport=off,dump-guest-core=off",
		"-accel",
		"tcg,thread=multi",
		"-cpu",
		"qemu64,+cx16,+lahf-lm,+popcnt,+ssse3,+sse4.1,+sse4.2,-svm,enforce",
		"-smp",
		"2,sockets=1,cores=2,threads=1",
		"-m",
		"1048704K",
		"-object",
		"memory-backend-file,id=ram0,size=1073872896,mem-path=/proc/self/fd/10,share=on",
		"-no-shutdown",
		"-chardev",
		"socket,id=qmp,fd=11,server=on,wait=off",
		"-mon",
		"chardev=qmp,mode=control",
		"-chardev",
		"socket,id=engine,fd=12,server=on,wait=off",
		"-mon",
		"chardev=engine,mode=control",
		"-add-fd",
		"set=1,fd=14",
		"-chardev",
		"socket,id=console,fd=13,server=on,wait=off,logfile=/dev/fdset/1,logappend=on",
		"-serial",
		"chardev:console",
		"-object",
		"rng-random,id=rng,filename=/dev/urandom",
		"-device",
		"virtio-rng-pci,rng=rng,addr=0x2",
	};
	struct cmdline_host h = tcg_host();
	struct cmdline c = build(HEAD "}", &h);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(want) && i < c.n; i++)
		assert_string_equal(c.words[i], want[i]);
	assert_int_equal(c.n, ARRAY_SIZE(want));
	assert_null(c.words[c.n]);
	cmdline_done(&c);
}

static void incoming_guest_waits_and_is_the_same_otherwise(void **state)
{
	struct cmdline_host h = tcg_host();
	struct cmdline a = build(HEAD "}", &h), b;

	(void)state;
	h.incoming = true;
	b = build(HEAD "}", &h);
	assert_int_equal(b.n, a.n + 3);
	for (size_t i = 0; i < a.n; i++)
		assert_string_equal(a.words[i], b.words[i]);
	assert_true(has(&b, "-S", NULL));
	assert_true(has(&b, "-incoming", "defer"));
	cmdline_done(&a);
	cmdline_done(&b);
}

static void kvm_takes_the_dirty_ring_or_the_bitmap(void **state)
{
	struct cmdline_host h = tcg_host();
	struct cmdline c;

	(void)state;
	h.accel = "kvm";
	h.dirty_ring = 4096;
	c = build(HEAD "}", &h);
	assert_true(has(&c, "-accel", "kvm,dirty-ring-size=4096"));
	assert_true(has(&c, "-m", "1048576K")); /* only TCG wants more than was asked for */
	cmdline_done(&c);
	h.dirty_ring = 0;
	c = build(HEAD "}", &h);
	assert_true(has(&c, "-accel", "kvm"));
	cmdline_done(&c);
}

static void files_are_passed_as_descriptors_not_names(void **state)
{
	struct cmdline_host h = tcg_host();
	struct cmdline c;

	(void)state;
	h.fds.disks[0] = 20;
	h.fds.disks[1] = 21;
	h.fds.seed = 22;
	h.fds.uefi_vars = 23;
	h.direct[1] = true;
	c = build(HEAD
		  ",\"firmware\":\"uefi\",\"disks\":[{\"file\":\"/secret/a\",\"format\":\"raw\",\"readonly\":true},"
		  "{\"file\":\"/secret/b\",\"format\":\"qcow2\"}],\"seed\":{\"hostname\":\"h\"}}",
		  &h);
	for (size_t i = 0; i < c.n; i++)
		assert_null(strstr(c.words[i], "/secret"));
	assert_true(has(&c, "-add-fd", "set=4,fd=20"));
	assert_true(has(&c, "-add-fd", "set=5,fd=21"));
	assert_true(has(&c, "-add-fd", "set=2,fd=22"));
	assert_true(has(&c, "-add-fd", "set=3,fd=23"));
	assert_true(has(
		&c, "-blockdev",
		"driver=file,node-name=disk0-file,filename=/dev/fdset/4,read-only=on,cache.direct=off,discard=unmap"));
	assert_true(has(
		&c, "-blockdev",
		"driver=file,node-name=disk1-file,filename=/dev/fdset/5,read-only=off,cache.direct=on,discard=unmap"));
	assert_true(has(&c, "-blockdev", "driver=qcow2,node-name=disk1,file=disk1-file,read-only=off,discard=unmap"));
	assert_true(has(&c, "-device", "virtio-blk-pci,id=vd1,drive=disk1,addr=0x4,bootindex=2"));
	assert_true(has(&c, "-device", "virtio-blk-pci,id=seed-disk,drive=seed,addr=0x5"));
	assert_true(has(&c, "-blockdev", "driver=file,node-name=uefi-code-file,read-only=on,filename=/ovmf,,code.fd"));
	cmdline_done(&c);
}

static void forwards_are_bound_to_loopback(void **state)
{
	struct cmdline_host h = tcg_host();
	struct cmdline c;

	(void)state;
	h.fds.taps[1] = 30;
	c = build(HEAD ",\"nics\":[{\"type\":\"user\",\"restrict\":true,\"mac\":\"52:54:00:00:00:01\",\"forward\":["
		       "{\"host\":2222,\"guest\":22},{\"protocol\":\"udp\",\"host\":53,\"guest\":53}]},"
		       "{\"type\":\"tap\",\"bridge\":\"br0\",\"mac\":\"52:54:00:00:00:02\"}]}",
		  &h);
	assert_true(has(&c, "-netdev",
			"user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp:127.0.0.1:53-:53"));
	assert_true(has(&c, "-netdev", "tap,id=net1,fd=30"));
	assert_true(has(&c, "-device", "virtio-net-pci,id=nic1,netdev=net1,mac=52:54:00:00:00:02,addr=0x4,romfile="));
	cmdline_done(&c);
}

static void largest_definition_fits_the_bus(void **state)
{
	struct cmdline_host h = tcg_host();
	struct def d = {.n_disks = DEF_DISKS_MAX, .n_nics = DEF_NICS_MAX, .vcpus = 1, .seed = {.present = true}};
	char cpu[] = "qemu64", file[] = "/f";
	struct cmdline c;

	(void)state;
	d.cpu = cpu;
	for (size_t i = 0; i < DEF_DISKS_MAX; i++)
		d.disks[i].file = file;
	for (size_t i = 0; i < DEF_NICS_MAX; i++)
		d.nics[i].type = DEF_NIC_USER;
	cmdline_build(&d, &h, &c);
	for (size_t i = 0; i < c.n; i++) {
		const char *at = strstr(c.words[i], ",addr=0x");

		/* slot 31 is q35's own */
		if (at)
			assert_in_range(strtoul(at + 6, NULL, 16), 2, 30);
	}
	cmdline_done(&c);
}

static void kernel_words_are_not_split(void **state)
{
	struct cmdline_host h = tcg_host();
	struct cmdline c = build(HEAD ",\"kernel\":\"/k,1\",\"initrd\":\"/i\",\"cmdline\":\"a=1, b 'c'\"}", &h);

	(void)state;
	assert_true(has(&c, "-kernel", "/k,1"));
	assert_true(has(&c, "-initrd", "/i"));
	assert_true(has(&c, "-append", "a=1, b 'c'"));
	cmdline_done(&c);
}

static void machine_is_pinned_to_a_version(void **state)
{
	_free_ char *q35 = cmdline_machine_pin(help, "q35", NULL);
	_free_ char *pc = cmdline_machine_pin(help, "pc", NULL);
	_free_ char *old = cmdline_machine_pin(help, "pc-q35-7.1", NULL);
	struct err e = ERR_INIT;

	(void)state;
	assert_string_equal(q35, "pc-q35-7.2");
	assert_string_equal(pc, "pc-i440fx-7.2");
	assert_string_equal(old, "pc-q35-7.1");
	assert_null(cmdline_machine_pin(help, "pc-q35-9.2", &e));
	assert_string_equal(e.text, "this QEMU has no machine type pc-q35-9.2; \"-machine help\" lists what it has");
	assert_null(cmdline_machine_pin("", "q35", &e));
}

/* Rows: the host, the wish, and what comes out. */
static void accelerator_follows_hardware_and_wish(void **state)
{
	static const struct accel_host bare = {.hardware = true, .user_allowed = true, .ring = true};
	static const struct accel_host old = {.hardware = true, .user_allowed = true};
	static const struct accel_host para = {.user_allowed = true, .ring = true};
	static const struct accel_host none = {.open_errno = 2};
	static const struct accel_host shut = {.hardware = true, .ring = true, .mode = 0600};
	static const struct {
		const struct accel_host *host;
		enum accel_want want;
		enum accel_ring ring;
		int rc;
		bool kvm;
		unsigned entries;
		const char *words;
	} rows[] = {
		{&bare, ACCEL_AUTO, ACCEL_RING_AUTO, 0, true, 4096, "hardware virtualization is there"},
		{&bare, ACCEL_AUTO, ACCEL_RING_OFF, 0, true, 0, "hardware"},
		{&bare, ACCEL_TCG, ACCEL_RING_AUTO, 0, false, 0, "asked for"},
		{&bare, ACCEL_TCG, ACCEL_RING_ON, -1, false, 0, "belongs to kvm"},
		{&old, ACCEL_KVM, ACCEL_RING_AUTO, 0, true, 0, "asked for"},
		{&old, ACCEL_KVM, ACCEL_RING_ON, -1, false, 0, "no dirty ring"},
		{&para, ACCEL_AUTO, ACCEL_RING_AUTO, 0, false, 0, "neither kvm_intel nor kvm_amd"},
		{&para, ACCEL_KVM, ACCEL_RING_AUTO, 0, true, 4096, "asked for"},
		{&none, ACCEL_AUTO, ACCEL_RING_AUTO, 0, false, 0, "neither"},
		{&none, ACCEL_KVM, ACCEL_RING_AUTO, -1, false, 0, "cannot be opened: No such file"},
		{&shut, ACCEL_AUTO, ACCEL_RING_AUTO, 0, false, 0, "closed to QEMU's user"},
		{&shut, ACCEL_KVM, ACCEL_RING_AUTO, -1, false, 0, "chmod 0660 /dev/kvm"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct accel_choice c = {0};
		struct err e = ERR_INIT;

		assert_int_equal(accel_choose(rows[i].want, rows[i].ring, rows[i].host, &c, &e), rows[i].rc);
		assert_int_equal(c.kvm, rows[i].kvm);
		assert_int_equal(c.ring_entries, rows[i].entries);
		assert_non_null(strstr(rows[i].rc < 0 ? e.text : c.why, rows[i].words));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_guest_is_exactly_this),
		cmocka_unit_test(incoming_guest_waits_and_is_the_same_otherwise),
		cmocka_unit_test(kvm_takes_the_dirty_ring_or_the_bitmap),
		cmocka_unit_test(files_are_passed_as_descriptors_not_names),
		cmocka_unit_test(forwards_are_bound_to_loopback),
		cmocka_unit_test(largest_definition_fits_the_bus),
		cmocka_unit_test(kernel_words_are_not_split),
		cmocka_unit_test(machine_is_pinned_to_a_version),
		cmocka_unit_test(accelerator_follows_hardware_and_wish),
	};

	return cmocka_run_group_tests_name("hv/cmdline", tests, NULL, NULL);
}
