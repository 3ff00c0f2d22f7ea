/* SPDX-License-Identifier: Apache-2.0 */
/* Attaching a terminal to a guest's serial console.
 *
 * While the terminal is raw, every signal that would end us is blocked except inside ppoll(2), where its handler only
 * notes it: so there is one way out, and it restores the terminal. A stop (Ctrl-Z) cannot come from a raw terminal.
 */
#include "hv/console.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sock.h"

static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU};
static volatile sig_atomic_t ending;

static void note_signal(int sig)
{
	ending = sig;
}

/* What console_attach() changes and gives back. */
struct console_guard {
	int fd;
	bool is_tty;
	struct termios old_mode;
	struct sigaction old_actions[ARRAY_SIZE(ending_signals)];
	sigset_t old_mask;
};

static int guard_enter(struct console_guard *g, int fd, struct err *e)
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

static void guard_leave(struct console_guard *g)
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
static int copy_input(int in_fd, int sock, enum console_end *ret, struct err *e)
{
	char buf[1024];
	ssize_t n = read(in_fd, buf, sizeof(buf));
	char *escape;

	if (n < 0)
		return errno == EINTR ? 0 : err_sys(e, "reading the terminal");
	escape = n > 0 ? memchr(buf, CONSOLE_ESCAPE, (size_t)n) : NULL;
	if (escape)
		n = escape - buf;
	if (n > 0 && sock_write_full(sock, buf, (size_t)n, SOCK_FOREVER, e) < 0)
		return -1;
	*ret = escape ? CONSOLE_END_ESCAPE : CONSOLE_END_INPUT;
	return escape || n == 0;
}

static int copy_output(int sock, int out_fd, enum console_end *ret, struct err *e)
{
	char buf[4096];
	ssize_t n = read(sock, buf, sizeof(buf));

	if (n < 0 && errno == EINTR)
		return 0;
	*ret = CONSOLE_END_GUEST;
	if (n <= 0)
		return 1;
	return write_all(out_fd, buf, (size_t)n) < 0 ? err_sys(e, "writing to the terminal") : 0;
}

static int console_copy(int sock, int in_fd, int out_fd, const sigset_t *open_mask, enum console_end *ret,
			struct err *e)
{
	for (;;) {
		struct pollfd p[2] = {{.fd = in_fd, .events = POLLIN}, {.fd = sock, .events = POLLIN}};
		int r = ppoll(p, 2, NULL, open_mask);

		if (ending) {
			*ret = CONSOLE_END_SIGNAL;
			return 0;
		}
		if (r < 0 && errno != EINTR)
			return err_sys(e, "poll");
		if (r < 0)
			continue;
		r = p[1].revents ? copy_output(sock, out_fd, ret, e) : 0;
		if (r == 0 && p[0].revents)
			r = copy_input(in_fd, sock, ret, e);
		if (r)
			return r < 0 ? -1 : 0;
	}
}

int console_attach(const char *path, int in_fd, int out_fd, enum console_end *ret, struct err *e)
{
	_closefd_ int sock = sock_unix_connect(path, e);
	struct console_guard g = {0};
	int r;

	if (sock < 0)
		return -1;
	r = guard_enter(&g, in_fd, e);
	if (r == 0)
		r = console_copy(sock, in_fd, out_fd, &g.old_mask, ret, e);
	guard_leave(&g);
	return r;
}
