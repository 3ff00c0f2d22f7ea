/* SPDX-License-Identifier: Apache-2.0 */
/* Moves a guest between two real QEMUs through the parser and the encoder, main RAM placed beside the stream. */
/*
 * The source runs a boot sector that counts words of 64 KiB up, for ever, so that the stream has several passes.
 * What the parser gives goes to a second QEMU (-S -incoming): sections as they are, RAM records re-encoded. Where a row
 * says so, records of the main RAM are left out and written into the destination's RAM file instead, as the engine
 * does. Then both sides must say that they completed, both RAM files must be the same, and the guest must go on
 * counting at the destination.
 */
#include "hv/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/byteorder.h"
#include "base/clock.h"
#include "base/mem.h"
#include "hv/qmp.h"

#define QEMU "/usr/bin/qemu-system-x86_64"
#define RAM_SIZE (32U << 20)
#define WRITTEN (128U << 10)        /* below: the writer's words, the BIOS's clock and stack */
#define RP_SHUT_OK "\0\1\0\4\0\0\0" /* return path: SHUT, no error (the string's own 0 is the eighth byte) */

struct row {
	const char *machine;
	bool place;       /* main RAM goes into the destination's RAM file, not into its stream */
	bool shared;      /* RAM is a shared file */
	bool return_path; /* the source has return-path on: its commands are dropped, SHUT is sent at the end */
	bool boots;       /* the machine has a floppy drive to boot the writer from */
	bool paused;      /* the guest is stopped during the move */
};

struct qemu {
	pid_t pid;
	struct qmp *qmp;
	int ram; /* the RAM file, also without a shared row */
	uint8_t *map;
};

/* The stream between the two. */
struct tap {
	const struct row *row;
	struct qemu *src, *dst;
	int in, out;
	struct stream_parser *parser;
	struct stream_encoder enc;
	const struct stream_block *blocks;
	unsigned int placed, forwarded, passes;
	bool answered;
};

static void must(int r, const struct err *e)
{
	if (r)
		fail_msg("%s", e->text);
}

static int64_t soon(void)
{
	return clock_now_ns() + 30 * NS_PER_S;
}

static int ram_file(void)
{
	int fd = memfd_create("ram", 0);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, RAM_SIZE), 0);
	return fd;
}

/*
 * A boot sector: for ever, add one to every 32nd word of the 64 KiB at 0x10000. Before each word it flips CR4.PSE,
 * which makes TCG forget its translations: QEMU before 9.0 forgets to do that itself when it takes the dirty log (its
 * cpu_physical_memory_sync_dirty_bitmap), so that a TCG guest's write now and then goes unlogged and is lost in any
 * migration, plain QEMU's too.
 */
static int boot_file(void)
{
	static const char code[] = "\xb8\0\x10\x8e\xc0"               /* mov ax, 0x1000; mov es, ax */
				   "\x31\xff\xb9\0\x04"               /* again: xor di, di; mov cx, 1024 */
				   "\x0f\x20\xe0\x34\x10\x0f\x22\xe0" /* next: mov eax, cr4; xor al, 16; mov cr4, eax */
				   "\x26\xff\x05\x83\xc7\x40"         /* inc word [es:di]; add di, 64 */
				   "\xe2\xf0\xeb\xe9";                /* loop next; jmp again */
	int fd = memfd_create("boot", 0);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1474560), 0);
	assert_int_equal(pwrite(fd, code, sizeof(code) - 1, 0), sizeof(code) - 1);
	assert_int_equal(pwrite(fd, "\x55\xaa", 2, 510), 2);
	return fd;
}

/* Start QEMU with a monitor on a socketpair; @incoming is the stream's descriptor or -1. */
static void qemu_start(struct qemu *q, const struct row *row, int boot, int incoming)
{
	_free_ char *machine = xasprintf("%s%s", row->machine, row->shared ? ",memory-backend=ram0" : "");
	_free_ char *chardev = NULL;
	_free_ char *ram = NULL;
	_free_ char *uri = xasprintf("fd:%d", incoming);
	_free_ char *drive = xasprintf("if=floppy,format=raw,readonly=on,file=/proc/self/fd/%d", boot);
	const char *argv[40] = {QEMU,       "-accel", "tcg", "-nodefaults", "-nographic", "-no-user-config",
				"-machine", machine,  "-m",  "32",          "-mon",       "chardev=mon,mode=control",
				"-chardev"};
	size_t n = 13;
	struct err e = ERR_INIT;
	int mon[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, mon), 0);
	assert_int_equal(fcntl(mon[0], F_SETFD, FD_CLOEXEC), 0);
	q->ram = ram_file();
	q->map = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, q->ram, 0);
	assert_ptr_not_equal(q->map, MAP_FAILED);
	chardev = xasprintf("socket,id=mon,fd=%d", mon[1]);
	ram = xasprintf("memory-backend-file,id=ram0,size=32M,share=on,mem-path=/proc/self/fd/%d", q->ram);
	argv[n++] = chardev;
	if (row->shared) {
		argv[n++] = "-object";
		argv[n++] = ram;
	}
	if (row->boots) {
		argv[n++] = "-drive";
		argv[n++] = drive;
	}
	if (incoming >= 0) {
		argv[n++] = "-S";
		argv[n++] = "-incoming";
		argv[n++] = uri;
	}
	q->pid = fork();
	assert_true(q->pid >= 0);
	if (q->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execv(QEMU, (char **)argv);
		_exit(127);
	}
	close(mon[1]);
	must(qmp_open_fd(mon[0], row->machine, soon(), &q->qmp, &e), &e);
}

static void qemu_stop(struct qemu *q)
{
	qmp_close(q->qmp);
	kill(q->pid, SIGKILL);
	waitpid(q->pid, NULL, 0);
	munmap(q->map, RAM_SIZE);
	close(q->ram);
}

/* query-migrate's status. Borrowed from @ret. */
static bool migration_is(struct qemu *q, const char *status)
{
	struct err e = ERR_INIT;
	json_t *r = NULL;
	const char *s;
	bool is;

	must(qmp_call(q->qmp, "query-migrate", NULL, soon(), &r, &e), &e);
	s = json_string_value(json_object_get(r, "status"));
	is = s && strcmp(s, status) == 0;
	if (s && strcmp(s, "failed") == 0)
		fail_msg("the migration failed");
	json_decref(r);
	return is;
}

static void wait_completed(struct qemu *q)
{
	int64_t end = soon();

	while (!migration_is(q, "completed")) {
		if (clock_now_ns() > end)
			fail_msg("the migration does not complete");
		usleep(10000);
	}
}

static void send_all(int fd, const void *data, size_t n)
{
	const uint8_t *at = data;

	while (n > 0) {
		ssize_t w = send(fd, at, n, MSG_NOSIGNAL);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			fail_msg("the destination closed the stream: %s", strerror(errno));
		at += w;
		n -= (size_t)w;
	}
}

static void tap_page(struct tap *t, const struct stream_item *item)
{
	const char *name = t->blocks[item->block].name;
	bool zero = item->type == STREAM_ITEM_ZERO;
	uint8_t head[STREAM_PAGE_HEADER_MAX];

	/* Machine types before 4.0 name the block "/objects/ram0". */
	if (t->row->place && (strcmp(name, "ram0") == 0 || strcmp(name, "/objects/ram0") == 0)) {
		uint8_t *to = t->dst->map + item->page * STREAM_PAGE_SIZE;

		t->placed++;
		if (zero)
			memset(to, 0, STREAM_PAGE_SIZE);
		else
			memcpy(to, item->data, STREAM_PAGE_SIZE);
		return;
	}
	t->forwarded++;
	send_all(t->out, head, stream_encode_page(&t->enc, item->block, item->page, zero, head));
	if (!zero)
		send_all(t->out, item->data, item->size);
}

static void tap_item(struct tap *t, const struct stream_item *item)
{
	size_t n;

	switch (item->type) {
	case STREAM_ITEM_PAGE:
	case STREAM_ITEM_ZERO:
		tap_page(t, item);
		return;
	case STREAM_ITEM_BLOCKS:
		t->blocks = stream_parser_blocks(t->parser, &n);
		stream_encoder_init(&t->enc, t->blocks, n);
		return;
	case STREAM_ITEM_PASS:
		t->passes++;
		return;
	case STREAM_ITEM_COMMAND:
		if (t->row->return_path) /* OPEN_RETURN_PATH and PING are answered here, not by the destination */
			return;
		break;
	default:
		break;
	}
	send_all(t->out, item->data, item->size);
}

/* Parse what is in @buf, forward it, and move the rest to its front. Returns how much that is. */
static size_t tap_parse(struct tap *t, uint8_t *buf, size_t n)
{
	struct stream_item item = {0};
	struct err e = ERR_INIT;
	size_t used;

	stream_parser_feed(t->parser, buf, n);
	do {
		must(stream_parser_next(t->parser, &item, &e), &e);
		tap_item(t, &item);
	} while (item.type != STREAM_ITEM_NONE);
	used = stream_parser_consumed(t->parser);
	if (stream_parser_ram_ended(t->parser)) {
		send_all(t->out, buf + used, n - used);
		return 0;
	}
	memmove(buf, buf + used, n - used);
	return n - used;
}

/* Nothing comes: with a return path the source waits until it hears that the destination is done. */
static void tap_idle(struct tap *t)
{
	if (!t->row->return_path || t->answered || !migration_is(t->dst, "completed"))
		return;
	send_all(t->in, RP_SHUT_OK, 8);
	t->answered = true;
	wait_completed(t->src);
	shutdown(t->in, SHUT_RDWR);
}

static void tap_run(struct tap *t)
{
	static uint8_t buf[2 * STREAM_RECORD_MAX];
	int64_t end = soon();
	size_t have = 0;

	while (clock_now_ns() < end) {
		struct pollfd pfd = {.fd = t->in, .events = POLLIN};
		ssize_t n;

		if (poll(&pfd, 1, 50) == 0) {
			tap_idle(t);
			continue;
		}
		n = read(t->in, buf + have, sizeof(buf) - have);
		if (n == 0)
			return;
		assert_true(n > 0);
		have = tap_parse(t, buf, have + (size_t)n);
	}
	fail_msg("the source's stream does not end");
}

static void start_migration(struct qemu *src, const struct row *row, int out)
{
	struct err e = ERR_INIT;

	must(qmp_callf(src->qmp, soon(), NULL, &e, "migrate-set-parameters", "{s:i,s:i}", "downtime-limit", 1,
		       "max-bandwidth", 0),
	     &e);
	must(qmp_callf(src->qmp, soon(), NULL, &e, "migrate-set-capabilities", "{s:[{s:s,s:b}]}", "capabilities",
		       "capability", "return-path", "state", row->return_path),
	     &e);
	must(qmp_send_fd(src->qmp, "out", out, soon(), &e), &e);
	must(qmp_callf(src->qmp, soon(), NULL, &e, "migrate", "{s:s}", "uri", "fd:out"), &e);
}

/* The counter at guest address 0x10000, once the boot sector runs. */
static uint16_t counter(const struct qemu *q)
{
	uint16_t v;

	memcpy(&v, __builtin_assume_aligned(q->map + 0x10000, 2), sizeof(v));
	return le16toh(v);
}

static void wait_counting(struct qemu *q, uint16_t from)
{
	int64_t end = soon();

	while (counter(q) == from) {
		if (clock_now_ns() > end)
			fail_msg("the guest does not count");
		usleep(10000);
	}
}

/* What a running guest writes is not compared: see boot_file() about QEMU before 9.0. */
static void check_guest(struct tap *t)
{
	struct err e = ERR_INIT;
	uint16_t before = counter(t->dst);
	size_t from = t->row->paused ? 0 : WRITTEN;

	if (t->row->shared)
		assert_memory_equal(t->src->map + from, t->dst->map + from, RAM_SIZE - from);
	must(qmp_call(t->dst->qmp, "cont", NULL, soon(), NULL, &e), &e);
	if (t->row->shared && t->row->boots)
		wait_counting(t->dst, before);
}

static void move(const struct row *row)
{
	struct qemu src = {0};
	struct qemu dst = {0};
	struct tap t = {.row = row, .src = &src, .dst = &dst};
	struct err e = ERR_INIT;
	int boot = boot_file();
	int from[2];
	int to[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, from), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, to), 0);
	qemu_start(&src, row, boot, -1);
	assert_int_equal(fcntl(to[1], F_SETFD, 0), 0);
	qemu_start(&dst, row, boot, to[1]);
	close(to[1]);
	close(boot);
	if (row->shared && row->boots)
		wait_counting(&src, 0);
	if (row->paused)
		must(qmp_call(src.qmp, "stop", NULL, soon(), NULL, &e), &e);
	start_migration(&src, row, from[1]);
	close(from[1]);
	t.in = from[0];
	t.out = to[0];
	t.parser = stream_parser_new(&(struct stream_options){.section_footers = true});
	tap_run(&t);
	wait_completed(&dst);
	wait_completed(&src);
	print_message("%s: %u pages placed, %u in the stream, %u ram sections\n", row->machine, t.placed, t.forwarded,
		      t.passes);
	assert_true(stream_parser_ram_ended(t.parser));
	assert_true(t.forwarded > 0);
	assert_true(!row->place || t.placed >= RAM_SIZE / STREAM_PAGE_SIZE);
	check_guest(&t);
	stream_parser_free(t.parser);
	close(t.in);
	close(t.out);
	qemu_stop(&src);
	qemu_stop(&dst);
}

static void need_qemu(void)
{
	if (access(QEMU, X_OK) == 0)
		return;
	print_message("skipped: %s is missing (apt-get install qemu-system-x86)\n", QEMU);
	skip();
}

static void a_destination_takes_a_stream_without_its_main_ram(void **state)
{
	(void)state;
	need_qemu();
	move(&(struct row){.machine = "pc", .place = true, .shared = true, .boots = true});
}

static void a_paused_guests_ram_is_the_same_to_the_byte(void **state)
{
	(void)state;
	need_qemu();
	move(&(struct row){.machine = "pc", .place = true, .shared = true, .boots = true, .paused = true});
}

static void a_q35_guest_moves_with_its_main_ram_placed(void **state)
{
	(void)state;
	need_qemu();
	move(&(struct row){.machine = "q35", .place = true, .shared = true, .paused = true});
}

static void an_old_machine_type_moves_with_its_main_ram_placed(void **state)
{
	(void)state;
	need_qemu();
	move(&(struct row){.machine = "pc-i440fx-2.12", .place = true, .shared = true, .boots = true});
}

static void a_microvm_moves_with_its_main_ram_placed(void **state)
{
	(void)state;
	need_qemu();
	move(&(struct row){.machine = "microvm", .place = true, .shared = true, .paused = true});
}

static void a_stream_with_everything_reencoded_is_taken(void **state)
{
	(void)state;
	need_qemu();
	move(&(struct row){.machine = "pc", .shared = true, .boots = true, .paused = true});
}

static void private_ram_moves_in_the_stream(void **state)
{
	(void)state;
	need_qemu();
	move(&(struct row){.machine = "pc", .boots = true});
}

static void a_source_with_a_return_path_is_answered_by_us(void **state)
{
	(void)state;
	need_qemu();
	move(&(struct row){.machine = "pc", .place = true, .shared = true, .return_path = true, .boots = true});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_destination_takes_a_stream_without_its_main_ram),
		cmocka_unit_test(a_paused_guests_ram_is_the_same_to_the_byte),
		cmocka_unit_test(a_q35_guest_moves_with_its_main_ram_placed),
		cmocka_unit_test(an_old_machine_type_moves_with_its_main_ram_placed),
		cmocka_unit_test(a_microvm_moves_with_its_main_ram_placed),
		cmocka_unit_test(a_stream_with_everything_reencoded_is_taken),
		cmocka_unit_test(private_ram_moves_in_the_stream),
		cmocka_unit_test(a_source_with_a_return_path_is_answered_by_us),
	};

	return cmocka_run_group_tests_name("hv/stream with QEMU", tests, NULL, NULL);
}
