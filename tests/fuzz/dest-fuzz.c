/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzer of the destination's data path: hostile frames, on two channels, into memory between guard pages. */

/* Byte 0: bit 0 sends the stream's setup first, so that pages have blocks to go to; bit 1 maps the guest's RAM. Then
 * operations: a byte for the channel (bit 0; bit 7: what follows is not a frame but raw bytes), type, flags, block, the
 * base in pages (2 bytes, bit 15: close to 2^52), the number of runs, that many runs (first and count, a byte each),
 * the length of the data in units of 64 bytes (0xff: as the runs say). Check and sum are made to fit; data is a
 * pattern. */
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/byteorder.h"
#include "base/clock.h"
#include "base/log.h"
#include "hv/stream.h"
#include "migrate/dest.h"

#define CHANNELS 2
#define RAM_PAGES 1024U
#define GUARD (64UL << 20) /* a run reaches 65535 pages at most; the first of them would be hit */
#define FRAMES_MAX 48

static struct mappings maps;
static uint8_t setup[256];
static size_t setup_size;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void setup_put(const void *data, size_t n)
{
	memcpy(setup + setup_size, data, n);
	setup_size += n;
}

static void setup_put64(uint64_t v)
{
	put_be64(setup + setup_size, v);
	setup_size += 8;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct mapping *m = &maps.list[0];
	uint8_t *area;

	(void)argc;
	(void)argv;
	log_set_level(LOG_LEVEL_ERROR);
	m->fd = memfd_create("ram", MFD_CLOEXEC);
	m->size = RAM_PAGES * STREAM_PAGE_SIZE;
	strcpy(m->name, "ram0");
	must(ftruncate(m->fd, (off_t)m->size) == 0);
	area = mmap(NULL, m->size + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(area != MAP_FAILED);
	m->mem = mmap(area + GUARD, m->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, m->fd, 0);
	must(m->mem != MAP_FAILED);

	setup_put("QEVM\0\0\0\3\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4", 25);
	setup_put64((RAM_PAGES + 16) * STREAM_PAGE_SIZE | 0x04);
	setup_put("\4ram0", 5);
	setup_put64(RAM_PAGES * STREAM_PAGE_SIZE);
	setup_put("\3rom", 4);
	setup_put64(16 * STREAM_PAGE_SIZE);
	setup_put64(0x10);
	setup_put("\x7e\0\0\0\2", 5);
	return 0;
}

static void say(int fd, const void *data, size_t n)
{
	(void)!send(fd, data, n, MSG_NOSIGNAL);
}

static void frame_say(int fd, struct wire_header *h, const uint8_t *index, const uint8_t *data)
{
	uint8_t header[WIRE_HEADER_SIZE];

	h->sum = wire_sum(data, h->length);
	wire_encode_header(header, h, index);
	say(fd, header, sizeof(header));
	say(fd, index, h->runs * WIRE_RUN_SIZE);
	say(fd, data, h->length);
}

/* Take one operation off the input and say it. The bytes used, 0 at the end. */
static size_t operation(int *fds, const uint8_t *in, size_t size)
{
	static uint8_t pattern[WIRE_DATA_MAX];
	uint8_t index[256 * WIRE_RUN_SIZE];
	struct wire_header h = {.type = 0};
	size_t pages = 0, used = 7;

	if (size < 8)
		return 0;
	if (in[0] & 0x80) {
		used = 1 + (size_t)in[1] % (size - 1);
		say(fds[in[0] & 1], in + 1, used - 1);
		return used;
	}
	h.type = in[1];
	h.flags = in[2] ^ WIRE_FLAG_SUM;
	h.block = in[3];
	h.base = get_be16(in + 4) & 0x7fff;
	if (in[4] & 0x80)
		h.base = UINT64_MAX / STREAM_PAGE_SIZE - WIRE_REACH - h.base;
	h.runs = in[6];
	for (uint32_t i = 0; i < h.runs; i++, used += 2) {
		if (used + 2 >= size)
			return 0;
		wire_encode_run(index + i * WIRE_RUN_SIZE, (struct wire_run){in[used], in[used + 1]});
		pages += in[used + 1];
	}
	h.length = in[used] == 0xff ? (uint32_t)(pages * STREAM_PAGE_SIZE) : in[used] * 64U;
	if (h.length > WIRE_DATA_MAX)
		h.length = WIRE_DATA_MAX;
	frame_say(fds[in[0] & 1], &h, index, pattern);
	return used + 1;
}

static void *drain(void *arg)
{
	uint8_t buf[65536];

	while (read(*(int *)arg, buf, sizeof(buf)) > 0)
		;
	return NULL;
}

/* Wait until every channel has been read to its end: the receivers then fail, or have nothing more to do. */
static void settle(struct dest *d, int wake_fd)
{
	for (int i = 0; i < 200; i++) {
		struct pollfd p = {.fd = wake_fd, .events = POLLIN};
		struct dest_state st;
		struct err e = ERR_INIT;

		poll(&p, 1, 5);
		dest_get_state(d, &st);
		if (!st.failed)
			continue;
		dest_get_error(d, &e);
		must(e.code != ERR_NONE && e.text[0]);
		return;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mappings none = {.n = 0};
	struct wire_header h = {.type = WIRE_STREAM, .flags = WIRE_FLAG_SUM};
	struct dest_options o = {.channels = CHANNELS};
	struct conn conns[CHANNELS];
	int qemu[2], fds[CHANNELS], pair[2], room = 4 << 20;
	struct dest *d;
	pthread_t drainer;
	size_t n;

	if (!size)
		return 0;
	maps.n = data[0] & 2 ? 1 : 0;
	o.mappings = maps.n ? &maps : &none;
	o.wake_fd = eventfd(0, EFD_NONBLOCK);
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, qemu) == 0);
	o.qemu_fd = qemu[1];
	for (int i = 0; i < CHANNELS; i++) {
		must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
		setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
		fds[i] = pair[0];
		conns[i] = CONN_INIT;
		conns[i].fd = pair[1];
	}
	pthread_create(&drainer, NULL, drain, &qemu[0]);
	d = dest_start(&o, conns);
	if (data[0] & 1) {
		h.length = (uint32_t)setup_size;
		frame_say(fds[0], &h, NULL, setup);
	}
	data++;
	size--;
	for (int i = 0; i < FRAMES_MAX && (n = operation(fds, data, size)); i++) {
		data += n;
		size -= n;
	}
	for (int i = 0; i < CHANNELS; i++)
		shutdown(fds[i], SHUT_WR);
	settle(d, o.wake_fd);
	dest_join(d);
	pthread_join(drainer, NULL);
	for (int i = 0; i < CHANNELS; i++) {
		conn_abort(&conns[i]);
		close(fds[i]);
	}
	close(qemu[0]);
	close(qemu[1]);
	close(o.wake_fd);
	return 0;
}
