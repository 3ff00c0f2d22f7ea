/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzer of the QMP client: the input is all that a QEMU says, cut into pieces of a size that the input chooses. */

/* Byte 0: bit 0 puts a proper greeting and capabilities answer in front, so that what follows is reached cheaply.
 * Byte 1: the size of the pieces that the client reads. The rest: what QEMU says.
 * A SOCK_SEQPACKET pair keeps the pieces apart without a second thread: one recv(2) returns one packet. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "hv/qmp.h"

#define HELLO                                                                                                          \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}}}\r\n"                        \
	"{\"return\": {}, \"id\": 1}\r\n"
/* Each piece costs the socket's buffer a kernel structure; more pieces than this would not fit. */
#define PIECES_MAX 150

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_set_level(LOG_LEVEL_ERROR);
	return 0;
}

static void say(int fd, const uint8_t *data, size_t size, size_t piece)
{
	if (piece < size / PIECES_MAX + 1)
		piece = size / PIECES_MAX + 1;
	while (size) {
		size_t n = size < piece ? size : piece;

		if (send(fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			break;
		data += n;
		size -= n;
	}
	shutdown(fd, SHUT_WR);
}

/* What must hold whatever was said: a failure has a code and a sentence, and a dead connection repeats itself. */
static void check_failure(struct qmp *q, const struct err *e)
{
	struct err again = ERR_INIT;

	if (e->code == ERR_NONE || !e->text[0])
		abort();
	if (e->code == ERR_QMP)
		return;
	if (qmp_call(q, "query-status", NULL, 0, NULL, &again) == 0 || strcmp(again.text, e->text) != 0)
		abort();
}

static void use(struct qmp *q)
{
	struct err e = ERR_INIT;
	struct qmp_event ev;
	json_t *r = NULL;

	for (int i = 0; i < 4; i++) {
		if (qmp_callf(q, clock_now_ns() + NS_PER_S, &r, &e, "query-status", "{s:i}", "n", i) == 0) {
			if (!r)
				abort();
			json_decref(r);
			continue;
		}
		check_failure(q, &e);
		if (e.code != ERR_QMP)
			break;
	}
	e = ERR_INIT;
	for (;;) {
		int got = qmp_event_next(q, 0, &ev, &e);

		if (got < 0)
			check_failure(q, &e);
		if (got <= 0)
			break;
		if (!memchr(ev.name, 0, sizeof(ev.name)) || (ev.data && !json_is_object(ev.data)))
			abort();
		qmp_event_done(&ev);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e = ERR_INIT;
	struct qmp *q = NULL;
	int pair[2];

	if (size < 2)
		return 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	if (data[0] & 1)
		send(pair[1], HELLO, sizeof(HELLO) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	say(pair[1], data + 2, size - 2, data[1]);
	if (qmp_open_fd(pair[0], "fuzz", clock_now_ns() + NS_PER_S, &q, &e) == 0) {
		use(q);
		qmp_close(q);
	} else if (e.code == ERR_NONE || !e.text[0]) {
		abort();
	}
	close(pair[1]);
	return 0;
}
