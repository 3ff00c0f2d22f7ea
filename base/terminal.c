/* SPDX-License-Identifier: Apache-2.0 */
/* Attaching a terminal to a guest's serial console.
 *
 * While the terminal is raw, every signal that would end us is blocked except inside ppoll(2), where its handler only
 * notes it: so there is one way out, and it restores the terminal. A stop (Ctrl-Z) cannot come from a raw terminal.
 */
#include "base/terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sock.h"

const char *const terminal_end_words[TERMINAL_END_MAX] = {
	[TERMINAL_END_ESCAPE] = "left",
	[TERMINAL_END_INPUT] = "input ended",
	[TERMINAL_END_GUEST] = "closed by QEMU: the guest ended, or another terminal is attached",
	[TERMINAL_END_SIGNAL] = "ended by a signal",
};

static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU};
static volatile sig_atomic_t ending;

static void note_signal(int sig)
{
	ending = sig;
}

/* What terminal_attach() changes and gives back. */
struct terminal_guard {
	int fd;
	bool is_tty;
	struct termios old_mode;
	struct sigaction old_actions[ARRAY_SIZE(ending_signals)];
	sigset_t old_mask;
};

static int guard_enter(struct terminal_guard *g, int fd, struct err *e)
{
	struct sigaction note = {.sa_handler = note_signal};
	struct termios raw;
	sigset_t block;

	g->fd = fd;
	g->is_tty = isatty(fd);
	ending = 0;
	sigemptyset(&block);
	for (size_t i = 0; i < ARRAY_SIZE(ending_signals); i++)
		sigaddset(&block, ending_signals[i]);
	sigprocmask(SIG_BLOCK, &block, &g->old_mask);
	for (size_t i = 0; i < ARRAY_SIZE(ending_signals); i++)
		sigaction(ending_signals[i], &note, &g->old_actions[i]);
	if (!g->is_tty)
		return 0;
	if (tcgetattr(fd, &g->old_mode) < 0) {
		g->is_tty = false;
		return err_sys(e, "terminal");
	}
	raw = g->old_mode;
	cfmakeraw(&raw);
	return tcsetattr(fd, TCSAFLUSH, &raw) < 0 ? err_sys(e, "terminal") : 0;
}

static void guard_leave(struct terminal_guard *g)
{
	if (g->is_tty)
		tcsetattr(g->fd, TCSADRAIN, &g->old_mode);
	for (size_t i = 0; i < ARRAY_SIZE(ending_signals); i++)
		sigaction(ending_signals[i], &g->old_actions[i], NULL);
	sigprocmask(SIG_SETMASK, &g->old_mask, NULL);
}

static int write_all(int fd, const char *buf, size_t n)
{
	while (n > 0) {
		ssize_t w = write(fd, buf, n);

		if (w < 0 && errno != EINTR)
			return -1;
		if (w > 0)
			buf += w, n -= (size_t)w;
	}
	return 0;
}

/* One look at the keyboard. 1: ended, *ret says how; 0 go on; -1 with @e. */
static int copy_input(const struct terminal_peer *peer, int in_fd, enum terminal_end *ret, struct err *e)
{
	char buf[1024];
	ssize_t n = read(in_fd, buf, sizeof(buf));
	char *escape;

	if (n < 0)
		return errno == EINTR ? 0 : err_sys(e, "reading the terminal");
	escape = n > 0 ? memchr(buf, TERMINAL_ESCAPE, (size_t)n) : NULL;
	if (escape)
		n = escape - buf;
	if (n > 0 && peer->write(peer->arg, buf, (size_t)n, e) < 0)
		return -1;
	*ret = escape ? TERMINAL_END_ESCAPE : TERMINAL_END_INPUT;
	return escape || n == 0;
}

static int copy_output(const struct terminal_peer *peer, int out_fd, enum terminal_end *ret, struct err *e)
{
	char buf[4096];
	ssize_t n = peer->read(peer->arg, buf, sizeof(buf), e);

	if (n < 0)
		return -1;
	*ret = TERMINAL_END_GUEST;
	if (n == 0)
		return 1;
	return write_all(out_fd, buf, (size_t)n) < 0 ? err_sys(e, "writing to the terminal") : 0;
}

static int copy(const struct terminal_peer *peer, int in_fd, int out_fd, const sigset_t *open_mask,
		enum terminal_end *ret, struct err *e)
{
	static const struct timespec at_once = {0};

	for (;;) {
		struct pollfd p[2] = {{.fd = in_fd, .events = POLLIN}, {.fd = peer->fd, .events = POLLIN}};
		bool pending = peer->pending && peer->pending(peer->arg);
		int r = ppoll(p, 2, pending ? &at_once : NULL, open_mask);

		if (ending) {
			*ret = TERMINAL_END_SIGNAL;
			return 0;
		}
		if (r < 0 && errno != EINTR)
			return err_sys(e, "poll");
		if (r < 0)
			continue;
		/* The descriptor of a peer with a layer of its own (TLS) may be readable without there being input. */
		pending = peer->pending ? peer->pending(peer->arg) : p[1].revents != 0;
		r = pending ? copy_output(peer, out_fd, ret, e) : 0;
		if (r == 0 && p[0].revents)
			r = copy_input(peer, in_fd, ret, e);
		if (r)
			return r < 0 ? -1 : 0;
	}
}

int terminal_attach(const struct terminal_peer *peer, int in_fd, int out_fd, enum terminal_end *ret, struct err *e)
{
	struct terminal_guard g = {0};
	int r = guard_enter(&g, in_fd, e);

	if (r == 0)
		r = copy(peer, in_fd, out_fd, &g.old_mask, ret, e);
	guard_leave(&g);
	return r;
}

/* ---- a unix socket ---- */

static ssize_t socket_read(void *arg, void *buf, size_t n, struct err *e)
{
	ssize_t r;

	(void)e;
	do
		r = read(*(int *)arg, buf, n);
	while (r < 0 && errno == EINTR);
	return r < 0 ? 0 : r; /* QEMU went away: the same end as when it closes */
}

static int socket_write(void *arg, const void *buf, size_t n, struct err *e)
{
	return sock_write_full(*(int *)arg, buf, n, SOCK_FOREVER, e);
}

int terminal_attach_path(const char *path, int in_fd, int out_fd, enum terminal_end *ret, struct err *e)
{
	_closefd_ int sock = sock_unix_connect(path, e);
	struct terminal_peer peer = {.fd = sock, .read = socket_read, .write = socket_write, .arg = &sock};

	return sock < 0 ? -1 : terminal_attach(&peer, in_fd, out_fd, ret, e);
}
