/* SPDX-License-Identifier: Apache-2.0 */
/* The first process of a lab host: takes commands from the machine over virtio-serial ports and runs them as root. */
/*
 * Theory of operation
 *
 * QEMU gives the host a few virtio-serial ports; each is a unix socket on the machine. One process per port serves one
 * command at a time, so as many commands run at once as there are ports. `lab` claims a free port with a file lock
 * before it connects.
 *
 * Frames, both ways: type (1 byte), length (4 bytes, big-endian, at most FRAME_MAX), payload.
 *
 *	lab -> agent	'H' nonce[16]		hello; answered by 'H' with the same nonce
 *			'R' argv, NUL between	run this
 *			'I' bytes		standard input; an empty one is its end
 *	agent -> lab	'H' nonce[16]		from here on the session is clean
 *			'O' bytes, 'E' bytes	standard output and error
 *			'X' be32		the command ended: exit status, or 128 + signal
 *			'N'			idle; amid a command: the host was reset
 *
 * A serial port has no connections, so three things stand in for them. Whatever comes before the answer to one's own
 * hello is left over from the one before and is thrown away. A hello in the midst of a session ends that session. And a
 * port whose far end is closed reads as end of file and blocks a writer until somebody opens it again: that is how an
 * idle agent waits without polling.
 *
 * When the far end goes away, its command's process group gets SIGHUP, then SIGKILL. What a command leaves running in
 * the background in a session of its own goes on, and its open outputs keep nobody waiting.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	FRAME_MAX = 65536,
	HEADER_SIZE = 5,
	NONCE_SIZE = 16,
	ARGS_MAX = 512,
	PORTS_MAX = 32,
};

struct frame {
	char type;
	uint32_t len;
	unsigned char data[FRAME_MAX + 1];
};

/* One running command. A descriptor is -1 when it is closed or not wanted any more. */
struct command {
	pid_t pid;
	int pidfd;
	int in;
	int out;
	int err;
	uint32_t in_off; /* the part of the input frame at hand that the command has taken */
	bool in_pending;
};

static struct frame frame;
static int port = -1;

static void fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Writes all of it, or returns -1 when the far end is gone. */
static int port_write(const void *data, size_t len)
{
	const char *at = data;

	while (len > 0) {
		ssize_t n = write(port, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int frame_send(char type, const void *data, uint32_t len)
{
	static unsigned char buf[HEADER_SIZE + FRAME_MAX];

	buf[0] = (unsigned char)type;
	for (int i = 0; i < 4; i++)
		buf[1 + i] = (unsigned char)(len >> (24 - 8 * i));
	if (len > 0)
		memcpy(buf + HEADER_SIZE, data, len);
	return port_write(buf, HEADER_SIZE + len);
}

/* Returns 0, or -1 at the end of file (the far end is closed). */
static int port_read(void *data, size_t len)
{
	char *at = data;

	while (len > 0) {
		ssize_t n = read(port, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Reads one frame into the global one. Returns -1 at the end of file and for a length that no frame may have. */
static int frame_read(void)
{
	unsigned char header[HEADER_SIZE];

	if (port_read(header, sizeof(header)) < 0)
		return -1;
	frame.type = (char)header[0];
	frame.len = (uint32_t)header[1] << 24 | (uint32_t)header[2] << 16 | (uint32_t)header[3] << 8 | header[4];
	if (frame.len > FRAME_MAX || port_read(frame.data, frame.len) < 0)
		return -1;
	frame.data[frame.len] = '\0';
	return 0;
}

/* Takes a hello apart from leftovers: slides over the bytes until the header of a hello shows. Returns -1 at the end of
 * file. */
static int hello_wait(void)
{
	static const unsigned char want[HEADER_SIZE] = {'H', 0, 0, 0, NONCE_SIZE};
	unsigned char seen[HEADER_SIZE] = {0};

	while (memcmp(seen, want, sizeof(want)) != 0) {
		memmove(seen, seen + 1, sizeof(seen) - 1);
		if (port_read(seen + sizeof(seen) - 1, 1) < 0)
			return -1;
	}
	frame.type = 'H';
	frame.len = NONCE_SIZE;
	return port_read(frame.data, NONCE_SIZE);
}

static void child_exec(char **argv, int in, int out, int err)
{
	setsid();
	dup2(in, 0);
	dup2(out, 1);
	dup2(err, 2);
	signal(SIGPIPE, SIG_DFL);
	execvp(argv[0], argv);
	dprintf(2, "lab: cannot run %s: %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* Starts what the frame at hand asks for. All pipes are close-on-exec, so only its own three ends reach the command. */
static int command_start(struct command *c)
{
	char *argv[ARGS_MAX + 1];
	int argc = 0;
	int in[2], out[2], err[2];

	for (uint32_t at = 0; at < frame.len && argc < ARGS_MAX; at += (uint32_t)strlen((char *)frame.data + at) + 1)
		argv[argc++] = (char *)frame.data + at;
	argv[argc] = NULL;
	if (argc == 0 || pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
		return -1;
	c->pid = fork();
	if (c->pid < 0)
		return -1;
	if (c->pid == 0)
		child_exec(argv, in[0], out[1], err[1]);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	c->in = in[1];
	c->out = out[0];
	c->err = err[0];
	c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
	fcntl(c->in, F_SETFL, O_NONBLOCK);
	fcntl(c->out, F_SETFL, O_NONBLOCK);
	fcntl(c->err, F_SETFL, O_NONBLOCK);
	return c->pidfd < 0 ? -1 : 0;
}

/* Hands the rest of the input frame at hand to the command; a command that reads no more loses it, as on a pipe. */
static void command_feed(struct command *c)
{
	while (c->in_off < frame.len) {
		ssize_t n = write(c->in, frame.data + c->in_off, frame.len - c->in_off);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			fd_close(&c->in);
			break;
		}
		c->in_off += (uint32_t)n;
	}
	c->in_pending = false;
}

/* Reads a frame for the running command. Returns -1 when the far end is gone or has become somebody else. */
static int command_frame(struct command *c)
{
	if (frame_read() < 0 || frame.type != 'I')
		return -1;
	if (frame.len == 0) {
		fd_close(&c->in);
		return 0;
	}
	if (c->in < 0)
		return 0;
	c->in_off = 0;
	c->in_pending = true;
	command_feed(c);
	return 0;
}

/* Passes on what one output holds. Sets it to -1 at its end. Returns -1 when the far end is gone, 0 when there is
 * nothing now, 1 else. */
static int command_drain(int *fd, char type)
{
	static char buf[FRAME_MAX / 2];
	ssize_t n = *fd < 0 ? 0 : read(*fd, buf, sizeof(buf));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		fd_close(fd);
		return 0;
	}
	return frame_send(type, buf, (uint32_t)n) < 0 ? -1 : 1;
}

/* Sends what is left in the outputs and the exit status. What a background child may still write is not waited for. */
static int command_finish(struct command *c)
{
	unsigned char code[4] = {0};
	int status;
	int more;

	while ((more = command_drain(&c->out, 'O')) > 0)
		;
	while (more == 0 && (more = command_drain(&c->err, 'E')) > 0)
		more = 0;
	if (waitpid(c->pid, &status, 0) != c->pid)
		return -1;
	c->pid = 0;
	code[3] = (unsigned char)(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return more < 0 ? -1 : frame_send('X', code, sizeof(code));
}

/* Carries bytes to and fro until the command ends (0) or the far end is gone (-1). */
static int command_serve(struct command *c)
{
	for (;;) {
		struct pollfd p[] = {
			{.fd = c->in_pending ? -1 : port, .events = POLLIN},
			{.fd = c->in_pending ? c->in : -1, .events = POLLOUT},
			{.fd = c->out, .events = POLLIN},
			{.fd = c->err, .events = POLLIN},
			{.fd = c->pidfd, .events = POLLIN},
		};

		if (poll(p, sizeof(p) / sizeof(p[0]), -1) < 0 && errno != EINTR)
			return -1;
		if (p[1].revents)
			command_feed(c);
		if (p[2].revents && command_drain(&c->out, 'O') < 0)
			return -1;
		if (p[3].revents && command_drain(&c->err, 'E') < 0)
			return -1;
		if (p[4].revents)
			return command_finish(c);
		if (p[0].revents && command_frame(c) < 0)
			return -1;
	}
}

/* Ends a command whose far end is gone, and frees what it held. */
static void command_end(struct command *c)
{
	if (c->pid > 0) {
		kill(-c->pid, SIGHUP);
		for (int i = 0; i < 20 && waitpid(c->pid, NULL, WNOHANG) == 0; i++)
			usleep(50000);
		kill(-c->pid, SIGKILL);
		waitpid(c->pid, NULL, 0);
	}
	fd_close(&c->in);
	fd_close(&c->out);
	fd_close(&c->err);
	fd_close(&c->pidfd);
}

/* One session. Returns true when the frame at hand is the next session's hello. */
static bool session_serve(void)
{
	struct command c = {.pidfd = -1, .in = -1, .out = -1, .err = -1};
	bool next_hello;

	if (frame_send('H', frame.data, NONCE_SIZE) < 0 || frame_read() < 0)
		return false;
	if (frame.type == 'R' && (command_start(&c) < 0 || command_serve(&c) < 0)) {
		next_hello = frame.type == 'H' && frame.len == NONCE_SIZE;
		command_end(&c);
		return next_hello;
	}
	command_end(&c);
	return frame.type == 'H' && frame.len == NONCE_SIZE;
}

/* Serves one port for ever. */
static void port_serve(const char *name)
{
	char path[300];

	snprintf(path, sizeof(path), "/dev/%s", name);
	port = open(path, O_RDWR | O_CLOEXEC);
	if (port < 0) {
		dprintf(2, "agent: cannot open %s: %s\n", path, strerror(errno));
		_exit(1);
	}
	for (;;) {
		/* Blocks while the far end is closed. */
		if (frame_send('N', NULL, 0) < 0 || hello_wait() < 0)
			continue;
		while (session_serve())
			;
	}
}

/* Starts one process per port. Returns how many. */
static int ports_start(void)
{
	DIR *dir = opendir("/sys/class/virtio-ports");
	int n = 0;

	for (struct dirent *d; dir && (d = readdir(dir));) {
		if (d->d_name[0] == '.')
			continue;
		if (fork() == 0)
			port_serve(d->d_name);
		n++;
	}
	if (dir)
		closedir(dir);
	return n;
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	setenv("LANG", "C.UTF-8", 1);
	if (ports_start() == 0) {
		dprintf(2, "agent: this host has no virtio-serial port\n");
		return 1;
	}
	/* As the first process this one inherits every orphan of the host. */
	for (;;) {
		if (wait(NULL) < 0 && errno == ECHILD)
			pause();
	}
}
