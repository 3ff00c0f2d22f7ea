/* SPDX-License-Identifier: Apache-2.0 */
/* What the four verbs of godwit-migrate share. */
#include "migrate/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/tls.h"

#define TOKEN_TEXT (2 * WIRE_TOKEN_SIZE)

void engine_token_text(const struct conn_secret *s, char out[TOKEN_TEXT + 1])
{
	for (unsigned i = 0; i < WIRE_TOKEN_SIZE; i++)
		snprintf(out + 2 * i, 3, "%02x", s->token[i]);
}

static int token_parse(const char *text, struct conn_secret *s, struct err *e)
{
	size_t n = strspn(text, "0123456789abcdefABCDEF");

	if (n != TOKEN_TEXT || (text[n] && !strchr("\r\n \t", text[n])))
		return err_set(e, ERR_INPUT, "the token must be %u hexadecimal digits", TOKEN_TEXT);
	for (unsigned i = 0; i < WIRE_TOKEN_SIZE; i++) {
		unsigned byte = 0;

		sscanf(text + 2 * i, "%2x", &byte);
		s->token[i] = (uint8_t)byte;
	}
	return 0;
}

static int token_make(const char *file, struct conn_secret *s, struct err *e)
{
	char text[TOKEN_TEXT + 2];
	_closefd_ int fd = -1;

	if (RAND_bytes(s->token, sizeof(s->token)) != 1)
		return err_set(e, ERR_SYSTEM, "no random bytes for a token");
	if (!file)
		return 0;
	fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, "create token file %s", file);
	engine_token_text(s, text);
	strcat(text, "\n");
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		return err_sys(e, "write token file %s", file);
	return 0;
}

static int token_read(const char *file, struct conn_secret *s, struct err *e)
{
	_closefile_ FILE *f = file ? fopen(file, "re") : NULL;
	char line[256] = "";

	if (file && !f)
		return err_sys(e, "token file %s", file);
	if (!file && isatty(STDIN_FILENO))
		fputs("token (as the receiver printed it): ", stderr);
	if (!fgets(line, sizeof(line), f ? f : stdin))
		return err_set(e, ERR_INPUT,
			       "no token: give --token-file FILE, or write the receiver's token to standard input");
	return token_parse(line, s, e);
}

int engine_secret_load(const struct engine_options *opt, bool make_token, struct conn_secret *ret, struct err *e)
{
	bool make = make_token && (!opt->token_file || access(opt->token_file, F_OK) < 0);

	memset(ret, 0, sizeof(*ret));
	if ((make ? token_make(opt->token_file, ret, e) : token_read(opt->token_file, ret, e)) < 0)
		return -1;
	if (opt->plaintext)
		return 0;
	ret->tls = tls_ctx_load(opt->tls_dir, e);
	if (ret->tls && opt->peer_name)
		tls_ctx_expect_client(ret->tls, opt->peer_name);
	return ret->tls ? 0 : -1;
}

void engine_secret_done(struct conn_secret *s)
{
	tls_ctx_free(s->tls);
	OPENSSL_cleanse(s, sizeof(*s));
}

int engine_signal_fd(struct err *e)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of write(2), not our end */
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? err_sys(e, "signalfd") : fd;
}

unsigned engine_channels(const struct engine_options *opt)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	long n = opt->plaintext ? cores / 4 : cores / 2;

	if (opt->channels)
		return opt->channels;
	return n < 1 ? 1 : n > 8 ? 8 : (unsigned)n;
}

unsigned engine_wait(const struct engine_wait *w, int timeout_ms)
{
	struct pollfd p[5] = {
		{.fd = w->control ? w->control->fd : -1, .events = POLLIN},
		{.fd = w->qmp ? qmp_fd(w->qmp) : -1, .events = POLLIN},
		{.fd = w->wake_fd, .events = POLLIN},
		{.fd = w->signal_fd, .events = POLLIN},
		{.fd = w->listen_fd, .events = POLLIN},
	};
	unsigned ready = 0;
	uint64_t drop;

	/* TLS may hold bytes that poll(2) does not know of. */
	if (w->control && w->control->tls && tls_pending(w->control->tls))
		ready |= ENGINE_CONTROL;
	if (poll(p, 5, ready ? 0 : timeout_ms) <= 0)
		return ready;
	ready |= (p[0].revents ? ENGINE_CONTROL : 0) | (p[1].revents ? ENGINE_QMP : 0) |
		 (p[2].revents ? ENGINE_WAKE : 0) | (p[3].revents ? ENGINE_SIGNAL : 0) |
		 (p[4].revents ? ENGINE_LISTEN : 0);
	if (ready & ENGINE_WAKE)
		(void)!read(w->wake_fd, &drop, sizeof(drop));
	if (ready & ENGINE_CONTROL && w->control && w->control->tls && !tls_pending(w->control->tls))
		ready &= ~(unsigned)ENGINE_CONTROL;
	return ready;
}

uint64_t engine_peak_anon_kib(void)
{
	_closefile_ FILE *f = fopen("/proc/self/status", "re");
	unsigned long long kib = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "RssAnon: %llu kB", &kib) == 1)
			break;
	return kib;
}
