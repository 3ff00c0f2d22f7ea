/* SPDX-License-Identifier: Apache-2.0 */
/* The wires between the hosts of a lab: a learning Ethernet switch over unix sockets whose every pair of ports can be
 * cut or slowed. */
/*
 * Theory of operation
 *
 * QEMU's `-netdev stream` connects to wire-nI.sock and then each way is a run of frames: length (4 bytes, big-endian),
 * Ethernet frame. One thread, one poll loop. A frame for a known address goes to the port where that address was last
 * seen, everything else to all.
 *
 * Faults belong to an ordered pair (from, to), so a cluster can be split in ways that are not transitive: n1-n2 cut
 * while both reach n3. A cut pair drops. A slow pair keeps a queue: each frame leaves when those before it have had
 * their time at the given rate, and a queue that holds more than QUEUE_MS of wire time drops its newest, as a switch
 * does. What QEMU does not read is kept up to OUT_MAX bytes, then dropped: a host that hangs stalls nobody else.
 *
 * Control: one line per connection on wire.ctl, answered by lines, then closed:
 *	cut A B | heal A B | heal | slow A B BYTES_PER_SECOND | status
 * A and B are port numbers from 1. Everything works both ways.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	PORTS_MAX = 32,
	FRAME_MAX = 65550, /* the largest frame that an emulated NIC hands over, with its Ethernet header */
	IN_SIZE = 4 + FRAME_MAX,
	OUT_MAX = 1 << 20,
	MACS_MAX = 1024,
	MAC_SIZE = 6,
	QUEUE_MS = 200,
};

/* A frame on its way over a slow pair. */
struct packet {
	struct packet *next;
	uint64_t due_ns;
	uint32_t len; /* with the length prefix */
	unsigned char data[];
};

struct pair {
	bool cut;
	uint64_t rate; /* bytes per second, 0 = as fast as it goes */
	uint64_t free_ns;
	struct packet *head;
	struct packet **tail;
	uint64_t dropped;
};

struct port {
	int listen_fd;
	int fd; /* -1 while no host is plugged in */
	unsigned char in[IN_SIZE];
	uint32_t in_len;
	unsigned char out[OUT_MAX];
	uint32_t out_len;
	uint64_t frames;
	uint64_t bytes;
};

struct mac {
	unsigned char addr[MAC_SIZE];
	int port;
};

static struct port ports[PORTS_MAX];
static struct pair pairs[PORTS_MAX][PORTS_MAX];
static struct mac macs[MACS_MAX];
static int n_ports;
static int n_macs;
static int control_fd = -1;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what, const char *name)
{
	fprintf(stderr, "wire: %s %s: %s\n", what, name, strerror(errno));
	exit(1);
}

static int unix_listen(const char *dir, const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s", dir, name) >= (int)sizeof(a.sun_path)) {
		errno = ENAMETOOLONG;
		die("the folder's name is too long for a socket:", dir);
	}
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 8) < 0)
		die("cannot listen on", a.sun_path);
	return fd;
}

static void port_unplug(struct port *p)
{
	close(p->fd);
	p->fd = -1;
	p->in_len = 0;
	p->out_len = 0;
}

/* Writes as much of the port's backlog as its host takes. */
static void port_flush(struct port *p)
{
	ssize_t n = send(p->fd, p->out, p->out_len, MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		port_unplug(p);
	if (n <= 0)
		return;
	p->out_len -= (uint32_t)n;
	memmove(p->out, p->out + n, p->out_len);
}

/* Puts one frame (with its length) on the way to a host. Never half of one. */
static void port_send(struct port *p, const unsigned char *data, uint32_t len)
{
	if (p->fd < 0 || p->out_len + len > OUT_MAX)
		return;
	memcpy(p->out + p->out_len, data, len);
	p->out_len += len;
	if (p->out_len == len)
		port_flush(p);
}

static void pair_queue(struct pair *q, const unsigned char *data, uint32_t len)
{
	uint64_t now = now_ns();
	uint64_t start = q->free_ns > now ? q->free_ns : now;
	struct packet *k;

	if (start - now > QUEUE_MS * 1000000ull || !(k = malloc(sizeof(*k) + len))) {
		q->dropped++;
		return;
	}
	q->free_ns = start + (q->rate ? len * 1000000000ull / q->rate : 0);
	k->due_ns = q->free_ns;
	k->next = NULL;
	k->len = len;
	memcpy(k->data, data, len);
	*q->tail = k;
	q->tail = &k->next;
}

/* A pair that was slow keeps its order: it goes on through the queue until that is empty. */
static void pair_send(int from, int to, const unsigned char *data, uint32_t len)
{
	struct pair *q = &pairs[from][to];

	if (q->cut)
		q->dropped++;
	else if (q->rate || q->head)
		pair_queue(q, data, len);
	else
		port_send(&ports[to], data, len);
}

/* Sends what is due; with cut wires in between nothing arrives any more. Returns when the next one is due, or
 * UINT64_MAX. */
static uint64_t pair_release(int from, int to, uint64_t now)
{
	struct pair *q = &pairs[from][to];

	while (q->head && (q->head->due_ns <= now || q->cut || !q->rate)) {
		struct packet *k = q->head;

		q->head = k->next;
		if (!q->head)
			q->tail = &q->head;
		if (!q->cut)
			port_send(&ports[to], k->data, k->len);
		free(k);
	}
	return q->head ? q->head->due_ns : UINT64_MAX;
}

static struct mac *mac_find(const unsigned char *addr)
{
	for (int i = 0; i < n_macs; i++) {
		if (memcmp(macs[i].addr, addr, MAC_SIZE) == 0)
			return &macs[i];
	}
	return NULL;
}

/* The latest port wins: that is how a guest that moved is found again. A full table learns no more and floods instead.
 */
static void mac_learn(const unsigned char *addr, int port)
{
	struct mac *m = mac_find(addr);

	if (!m && n_macs < MACS_MAX) {
		m = &macs[n_macs++];
		memcpy(m->addr, addr, MAC_SIZE);
	}
	if (m)
		m->port = port;
}

static void frame_switch(int from, const unsigned char *data, uint32_t len)
{
	const unsigned char *dst = data + 4;
	const unsigned char *src = dst + MAC_SIZE;
	struct mac *to;

	if (len < 4 + 2 * MAC_SIZE)
		return;
	if (!(src[0] & 1))
		mac_learn(src, from);
	to = dst[0] & 1 ? NULL : mac_find(dst);
	if (to) {
		if (to->port != from)
			pair_send(from, to->port, data, len);
		return;
	}
	for (int i = 0; i < n_ports; i++) {
		if (i != from && ports[i].fd >= 0)
			pair_send(from, i, data, len);
	}
}

/* Reads what a host has sent and switches each whole frame. */
static void port_input(int index)
{
	struct port *p = &ports[index];
	ssize_t n = read(p->fd, p->in + p->in_len, sizeof(p->in) - p->in_len);
	uint32_t at = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		port_unplug(p);
		return;
	}
	p->in_len += (uint32_t)n;
	while (p->in_len - at >= 4) {
		const unsigned char *b = p->in + at;
		uint32_t len = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];

		if (len > FRAME_MAX) {
			fprintf(stderr, "wire: n%d sends a frame of %u bytes; unplugged\n", index + 1, len);
			port_unplug(p);
			return;
		}
		if (p->in_len - at < 4 + len)
			break;
		frame_switch(index, b, 4 + len);
		p->frames++;
		p->bytes += len;
		at += 4 + len;
	}
	p->in_len -= at;
	memmove(p->in, p->in + at, p->in_len);
}

/* A host that comes back (power on after a power cut) takes the place of its old connection. */
static void port_accept(struct port *p)
{
	int fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (p->fd >= 0)
		port_unplug(p);
	p->fd = fd;
}

static void pair_set(int a, int b, bool cut, uint64_t rate)
{
	pairs[a][b].cut = cut;
	pairs[a][b].rate = rate;
	pairs[a][b].free_ns = 0;
}

static void status_print(int reply)
{
	for (int i = 0; i < n_ports; i++)
		dprintf(reply, "port %d %s frames %llu bytes %llu\n", i + 1, ports[i].fd >= 0 ? "plugged" : "empty",
			(unsigned long long)ports[i].frames, (unsigned long long)ports[i].bytes);
	for (int i = 0; i < n_ports; i++) {
		for (int j = i + 1; j < n_ports; j++) {
			if (pairs[i][j].cut)
				dprintf(reply, "cut %d %d\n", i + 1, j + 1);
			else if (pairs[i][j].rate)
				dprintf(reply, "slow %d %d %llu\n", i + 1, j + 1, (unsigned long long)pairs[i][j].rate);
		}
	}
}

/* Carries out one line of control. */
static void control_run(const char *line, int reply)
{
	char verb[16] = "";
	int a = 0, b = 0;
	unsigned long long rate = 0;
	int n = sscanf(line, "%15s %d %d %llu", verb, &a, &b, &rate);
	bool ports_ok = n >= 3 && a != b && a >= 1 && a <= n_ports && b >= 1 && b <= n_ports;

	if (strcmp(verb, "status") == 0 && n == 1) {
		status_print(reply);
	} else if (strcmp(verb, "heal") == 0 && n == 1) {
		for (int i = 0; i < n_ports; i++) {
			for (int j = 0; j < n_ports; j++)
				pair_set(i, j, false, 0);
		}
	} else if (ports_ok && strcmp(verb, "cut") == 0 && n == 3) {
		pair_set(a - 1, b - 1, true, 0);
		pair_set(b - 1, a - 1, true, 0);
	} else if (ports_ok && strcmp(verb, "heal") == 0 && n == 3) {
		pair_set(a - 1, b - 1, false, 0);
		pair_set(b - 1, a - 1, false, 0);
	} else if (ports_ok && strcmp(verb, "slow") == 0 && n == 4 && rate > 0) {
		pair_set(a - 1, b - 1, false, rate);
		pair_set(b - 1, a - 1, false, rate);
	} else {
		dprintf(reply, "error: '%s' is no order of these wires\n", line);
		return;
	}
	dprintf(reply, "ok\n");
}

/* The one who asks is our own user and gets a second, so the wires may wait for it. */
static void control_accept(void)
{
	struct timeval second = {.tv_sec = 1};
	char line[200] = "";
	int fd = accept4(control_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof(second));
	if (recv(fd, line, sizeof(line) - 1, 0) > 0) {
		line[strcspn(line, "\n")] = '\0';
		control_run(line, fd);
	}
	close(fd);
}

/* Returns for how many nanoseconds poll may sleep, at most a second. */
static uint64_t pairs_release(void)
{
	uint64_t now = now_ns();
	uint64_t next = now + 1000000000u;

	for (int i = 0; i < n_ports; i++) {
		for (int j = 0; j < n_ports; j++) {
			uint64_t due = pairs[i][j].head ? pair_release(i, j, now) : UINT64_MAX;

			if (due < next)
				next = due;
		}
	}
	return next - now;
}

static void wires_serve(void)
{
	for (;;) {
		struct pollfd p[2 * PORTS_MAX + 1];
		uint64_t sleep_ns = pairs_release();
		struct timespec sleep = {.tv_sec = (time_t)(sleep_ns / 1000000000u),
					 .tv_nsec = (long)(sleep_ns % 1000000000u)};

		for (int i = 0; i < n_ports; i++) {
			short events = POLLIN | (ports[i].out_len > 0 ? POLLOUT : 0);

			p[2 * i] = (struct pollfd){.fd = ports[i].fd, .events = events};
			p[2 * i + 1] = (struct pollfd){.fd = ports[i].listen_fd, .events = POLLIN};
		}
		p[2 * n_ports] = (struct pollfd){.fd = control_fd, .events = POLLIN};
		if (ppoll(p, (nfds_t)(2 * n_ports + 1), &sleep, NULL) <= 0)
			continue;
		for (int i = 0; i < n_ports; i++) {
			if (p[2 * i].revents & POLLOUT)
				port_flush(&ports[i]);
			if ((p[2 * i].revents & (POLLIN | POLLHUP | POLLERR)) && ports[i].fd >= 0)
				port_input(i);
			if (p[2 * i + 1].revents)
				port_accept(&ports[i]);
		}
		if (p[2 * n_ports].revents)
			control_accept();
	}
}

int main(int argc, char **argv)
{
	n_ports = argc == 3 ? atoi(argv[2]) : 0;
	if (n_ports < 1 || n_ports > PORTS_MAX) {
		fprintf(stderr, "usage: wire FOLDER PORTS (1 to %d); `lab up` starts it\n", PORTS_MAX);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < n_ports; i++) {
		char name[32];

		snprintf(name, sizeof(name), "wire-n%d.sock", i + 1);
		ports[i].listen_fd = unix_listen(argv[1], name);
		ports[i].fd = -1;
		for (int j = 0; j < n_ports; j++)
			pairs[i][j].tail = &pairs[i][j].head;
	}
	/* Last, so that whoever can reach the control socket finds every wire in place. */
	control_fd = unix_listen(argv[1], "wire.ctl");
	wires_serve();
}
