/* SPDX-License-Identifier: Apache-2.0 */
/* The bench's outside observer: one process that times the guest's ticks and QEMU's events on both sides of a move. */

/*
 * Theory of operation
 *
 *	bench-observe SRC.tick SRC.qmp DST.tick DST.qmp
 *
 * connects to four unix sockets and says `ready`. From then on it prints `event SIDE NAME NS` as QEMU's events arrive,
 * and keeps every tick in memory. At the end of its standard input it prints one line per tick, `tick SIDE SEQ NS`, and
 * ends. NS is CLOCK_MONOTONIC, which all processes of the host share. One process and one clock for both sides: nothing
 * has to be synchronised, and what the guest's own clock does while it stands still does not matter.
 *
 * It runs at real-time priority where that is allowed, because a busy host must not delay the stamps, and prints
 * nothing per tick while the move runs, because a full pipe must not either. A record of a tick is four bytes
 * (tests/guest/init.c); the bytes of both sides go through one decoder, since a record may begin at the source and end
 *at the destination. The source's sockets are read first for the same reason.
 */

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define TICKS_MAX (4U << 20) /* over an hour */
#define LINE_BYTES 65536

enum source { SRC_TICK, SRC_QMP, DST_TICK, DST_QMP, CONTROL, SOURCE_MAX };

struct tick {
	int64_t ns;
	uint32_t seq;
	bool dst;
};

/* The part of a QMP line that has come so far. */
struct qmp_line {
	char text[LINE_BYTES];
	size_t len;
};

static struct tick *ticks;
static size_t tick_count;
static uint32_t tick_bits;
static int tick_bytes = -1; /* bytes of the record so far; -1: no first byte seen yet */
static struct qmp_line lines[2];

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* End with a sentence: the bench shows it. */
static void __attribute__((noreturn)) die(const char *what, const char *path)
{
	fprintf(stderr, "bench-observe: %s %s: %s\n", what, path, strerror(errno));
	exit(1);
}

/* Connect to the unix socket @path. */
static int socket_open(const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0)
		die("cannot connect to", path);
	return fd;
}

/* Put one byte of the tick stream, which arrived at @ns, through the decoder. */
static void tick_byte(uint8_t b, bool dst, int64_t ns)
{
	if (b & 0x80) {
		tick_bits = 0;
		tick_bytes = 0;
	} else if (tick_bytes < 0) {
		return;
	}
	tick_bits = tick_bits << 7 | (b & 0x7f);
	if (++tick_bytes < 4)
		return;
	tick_bytes = -1;
	if (tick_count < TICKS_MAX)
		ticks[tick_count++] = (struct tick){.ns = ns, .seq = tick_bits, .dst = dst};
}

/* A whole line of QMP: print it when it is an event. */
static void qmp_line(const char *text, bool dst, int64_t ns)
{
	const char *p = strstr(text, "\"event\": \"");
	int len = p ? (int)strcspn(p + 10, "\"") : 0;

	if (len > 0)
		printf("event %s %.*s %lld\n", dst ? "dst" : "src", len, p + 10, (long long)ns);
}

/* Read what a monitor said. False: it is gone. */
static bool qmp_read(int fd, bool dst)
{
	struct qmp_line *l = &lines[dst];
	ssize_t n = read(fd, l->text + l->len, sizeof(l->text) - 1 - l->len);
	int64_t ns = now_ns();
	char *nl;

	if (n <= 0)
		return false;
	l->len += (size_t)n;
	l->text[l->len] = '\0';
	while ((nl = memchr(l->text, '\n', l->len))) {
		*nl = '\0';
		qmp_line(l->text, dst, ns);
		l->len -= (size_t)(nl + 1 - l->text);
		memmove(l->text, nl + 1, l->len + 1);
	}
	if (l->len == sizeof(l->text) - 1)
		l->len = 0;
	return true;
}

/* Read ticks. False: that side is gone. */
static bool tick_read(int fd, bool dst)
{
	uint8_t buf[4096];
	ssize_t n = read(fd, buf, sizeof(buf));
	int64_t ns = now_ns();

	for (ssize_t i = 0; i < n; i++)
		tick_byte(buf[i], dst, ns);
	return n > 0;
}

/* Serve until standard input ends. */
static void observe(struct pollfd *fds)
{
	char c[64];

	for (;;) {
		if (poll(fds, SOURCE_MAX, -1) < 0)
			continue;
		for (int i = 0; i < CONTROL; i++) {
			bool dst = i == DST_TICK || i == DST_QMP;
			bool qmp = i == SRC_QMP || i == DST_QMP;
			if (fds[i].revents && !(qmp ? qmp_read(fds[i].fd, dst) : tick_read(fds[i].fd, dst)))
				fds[i].fd = -1;
		}
		fflush(stdout);
		if (fds[CONTROL].revents && read(fds[CONTROL].fd, c, sizeof(c)) <= 0)
			return;
	}
}

int main(int argc, char **argv)
{
	struct pollfd fds[SOURCE_MAX];
	struct sched_param param = {.sched_priority = 20};
	static const char hello[] = "{\"execute\":\"qmp_capabilities\"}\n";

	if (argc != 5) {
		fprintf(stderr, "usage: bench-observe SRC.tick SRC.qmp DST.tick DST.qmp\n");
		return 2;
	}
	ticks = calloc(TICKS_MAX, sizeof(*ticks));
	if (!ticks)
		die("no memory for", "ticks");
	for (int i = 0; i < CONTROL; i++)
		fds[i] = (struct pollfd){.fd = socket_open(argv[1 + i]), .events = POLLIN};
	fds[CONTROL] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
	if (write(fds[SRC_QMP].fd, hello, sizeof(hello) - 1) < 0 ||
	    write(fds[DST_QMP].fd, hello, sizeof(hello) - 1) < 0)
		die("cannot write to", argv[2]);
	/* Refused without privilege: the stamps are then as good as the host is idle. */
	sched_setscheduler(0, SCHED_FIFO, &param);
	puts("ready");
	fflush(stdout);
	observe(fds);
	for (size_t i = 0; i < tick_count; i++)
		printf("tick %s %u %lld\n", ticks[i].dst ? "dst" : "src", ticks[i].seq, (long long)ticks[i].ns);
	return 0;
}
