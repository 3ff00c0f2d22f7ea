/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzer of the wire's decoder: frames, hello, greeting and control messages, raw or with a check that fits. */

/* Byte 0 says what the rest is: 0 frames as they are; 1 frames whose check is made to fit, so that what lies behind it
 * is reached; 2 a greeting; 3 a hello; 4 what a peer says on a control connection; 5 a whole control message made from
 * a type, flags and JSON; 6 a file, verified. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/byteorder.h"
#include "base/clock.h"
#include "hv/stream.h"
#include "migrate/conn.h"
#include "migrate/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

/* A failure has a code and a sentence. */
static void check_failure(const struct err *e)
{
	must(e->code != ERR_NONE && e->text[0]);
}

/* What must hold for a frame that was taken. */
static void check_frame(const uint8_t *header, const struct wire_header *h, const uint8_t *index, uint64_t pages)
{
	uint8_t again[WIRE_HEADER_SIZE];
	uint64_t sum = 0;

	must(h->length <= WIRE_DATA_MAX && h->runs <= WIRE_RUNS_MAX);
	for (uint32_t i = 0; i < h->runs; i++) {
		struct wire_run run = wire_decode_run(index + i * WIRE_RUN_SIZE);

		must(run.count && (uint32_t)run.first + run.count <= WIRE_REACH);
		must((h->base + run.first + run.count) <= UINT64_MAX / STREAM_PAGE_SIZE);
		sum += run.count;
	}
	must(sum == pages);
	must(h->type != WIRE_PAGES || (pages >= 1 && pages <= WIRE_PAGES_MAX && pages * 4096 == h->length));
	must(h->type != WIRE_ZEROS || (pages && !h->length));
	wire_encode_header(again, h, index);
	must(memcmp(again, header, sizeof(again)) == 0);
}

/* The check that a peer which knows the format would write. */
static void fit_check(uint8_t *header, const uint8_t *index, size_t size)
{
	uint32_t runs = get_be32(header + 4);
	size_t n = runs <= WIRE_RUNS_MAX && runs * WIRE_RUN_SIZE <= size ? runs * WIRE_RUN_SIZE : 0;
	uint8_t covered[WIRE_HEADER_SIZE - 4];

	memcpy(covered, header, 12);
	memcpy(covered + 12, header + 16, 16);
	put_be32(header + 12, (uint32_t)XXH3_64bits_withSeed(covered, sizeof(covered), n ? XXH3_64bits(index, n) : 0));
}

static void frames(const uint8_t *data, size_t size, bool fit)
{
	while (size >= WIRE_HEADER_SIZE) {
		uint8_t header[WIRE_HEADER_SIZE], index[WIRE_INDEX_MAX];
		struct err e = ERR_INIT;
		struct wire_header h;
		uint64_t pages = 0;
		size_t n;

		memcpy(header, data, sizeof(header));
		data += sizeof(header);
		size -= sizeof(header);
		if (fit)
			fit_check(header, data, size);
		if (wire_decode_header(header, &h, &e) < 0) {
			check_failure(&e);
			continue;
		}
		must(h.runs <= WIRE_RUNS_MAX);
		n = h.runs * WIRE_RUN_SIZE;
		if (n > size)
			return;
		memcpy(index, data, n);
		data += n;
		size -= n;
		if (wire_check_index(header, &h, index, &pages, &e) < 0)
			check_failure(&e);
		else
			check_frame(header, &h, index, pages);
		n = h.length < size ? h.length : size;
		data += n;
		size -= n;
	}
}

static void greeting(const uint8_t *data, size_t size)
{
	uint8_t in[WIRE_GREETING_SIZE] = {0}, nonce[WIRE_NONCE_SIZE];
	struct err e = ERR_INIT;

	memcpy(in, data, size < sizeof(in) ? size : sizeof(in));
	if (wire_decode_greeting(in, nonce, &e) < 0)
		check_failure(&e);
}

/* Bytes 8 to 27 are the input's, the rest a right hello of the one who knows the token. */
static void hello(const uint8_t *data, size_t size)
{
	static const uint8_t token[WIRE_TOKEN_SIZE] = {1}, nonce[WIRE_NONCE_SIZE] = {2};
	uint8_t raw[WIRE_HELLO_SIZE];
	struct wire_hello h = {.role = 0}, back;
	struct err e = ERR_INIT;

	if (size >= 3)
		h = (struct wire_hello){.role = data[0], .channel = data[1], .channels = data[2]};
	wire_encode_hello(raw, &h, token, nonce);
	if (wire_decode_hello(raw, token, nonce, &back, &e) < 0)
		check_failure(&e);
	else
		must(back.role >= 1 && back.role < WIRE_ROLE_MAX && back.channels <= WIRE_CHANNELS_MAX &&
		     back.channel < back.channels);
	memcpy(raw, data, size < sizeof(raw) ? size : sizeof(raw));
	e = ERR_INIT;
	if (wire_decode_hello(raw, token, nonce, &back, &e) < 0)
		check_failure(&e);
}

/* Read control messages until the peer, who has closed, has no more. */
static void control(int fds[2])
{
	struct conn c = CONN_INIT;
	struct err e = ERR_INIT;
	struct frame f;

	shutdown(fds[1], SHUT_WR);
	c.fd = fds[0];
	while (conn_recv(&c, &f, clock_now_ns() + NS_PER_S, &e) == 0) {
		must(!f.json || json_is_object(f.json));
		json_decref(f.json);
	}
	check_failure(&e);
	conn_abort(&c);
	close(fds[1]);
}

static void control_raw(const uint8_t *data, size_t size)
{
	int fds[2];

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	(void)!send(fds[1], data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	control(fds);
}

static void control_message(const uint8_t *data, size_t size)
{
	struct conn peer = CONN_INIT;
	int fds[2];

	if (size < 2 || size > 32768)
		return;
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	peer.fd = fds[1];
	conn_send(&peer, data[0], data[1], data + 2, size - 2, clock_now_ns() + NS_PER_S, NULL);
	control(fds);
}

static void file(const uint8_t *data, size_t size)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);
	uint8_t header[WIRE_HEADER_SIZE];
	struct conn c = CONN_INIT;
	struct err e = ERR_INIT;
	json_t *head = NULL;

	must(fd >= 0 && write(fd, data, size) == (ssize_t)size && lseek(fd, 0, SEEK_SET) == 0);
	must(conn_open_file(&c, fd, false, &e) == 0);
	/* Nobody finds a SHA-256 by chance: a file that is taken was written so. */
	if (conn_expect(&c, WIRE_FILE_HEAD, &head, SOCK_FOREVER, &e) < 0 ||
	    conn_read_full(&c, header, sizeof(header), SOCK_FOREVER, &e) < 0 || conn_file_verify(&c, &e) < 0)
		check_failure(&e);
	json_decref(head);
	conn_abort(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t what;

	if (!size)
		return 0;
	what = data[0];
	data++;
	size--;
	if (what < 2)
		frames(data, size, what);
	else if (what == 2)
		greeting(data, size);
	else if (what == 3)
		hello(data, size);
	else if (what == 4)
		control_raw(data, size);
	else if (what == 5)
		control_message(data, size);
	else if (what == 6)
		file(data, size);
	return 0;
}
