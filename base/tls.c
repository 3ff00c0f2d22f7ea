/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS 1.3 over a connected socket, certificates verified by both sides.
 *
 * Theory of operation
 *
 * OpenSSL never touches the socket itself. It reads and writes through a BIO of ours (wire_*), which uses recv and send
 * with MSG_DONTWAIT, so every OpenSSL call returns at once, whatever the flags of the descriptor are; with
 * MSG_NOSIGNAL, so a dead peer is an error and not a signal; and which gathers records on their way out. One loop,
 * tls_run(), does all the waiting: it repeats an operation until it succeeds, polling for what OpenSSL asks for, until
 * the deadline.
 *
 * Records are at most 16 KiB. Each as a send() of its own would cost a system call and a short TCP segment per record,
 * so the BIO collects WIRE_OUT_SIZE bytes and tls_write_full() flushes at its end. On the way in, OpenSSL's read-ahead
 * with a large buffer does the same: one recv() brings many records.
 *
 * In TLS 1.3 the client has finished before the server has seen the client's certificate, so a refusal would surface at
 * some later read. The server therefore sends one byte (TLS_WELCOME) once it is content, and tls_connect() waits for
 * it. When either handshake returns 0, both sides have accepted each other.
 *
 * There are no session tickets and no resumption: a move makes a handful of connections that live for its whole length,
 * and every one of them proves both certificates.
 *
 * The first failure of a connection is kept in t->failure and told again by every later call: OpenSSL's own state
 * after a fatal error is not something to build on.
 */
#include "base/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/tls-cert.h"

#define WIRE_OUT_SIZE (128U << 10)
#define WIRE_IN_SIZE (128U << 10)
#define TLS_WELCOME 0x06 /* ACK */

/* Fastest first where the processor has AES instructions, which any host with virtualization has. */
#define TLS_CIPHERS "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

struct tls_ctx {
	SSL_CTX *ssl_ctx;
	char *dir;           /* for messages */
	char *expect_client; /* or NULL: any */
	bool https;          /* no welcome */
	bool pinned;         /* the CA is known by its digest alone */
	uint8_t ca_digest[CERT_DIGEST_SIZE];
};

struct tls {
	SSL *ssl;
	int fd; /* borrowed */
	bool server;
	bool https;               /* no welcome */
	const uint8_t *ca_digest; /* the CA that is trusted by its digest, or NULL; until the handshake is done */
	char *dir;                /* our certificates, for messages */
	char *expect_name;        /* the name the other side must have, or NULL */
	char peer_name[CERT_NAME_MAX];
	struct err verdict; /* why the other side's certificate was refused, when it was */
	struct err failure; /* the first failure: the connection is dead */
	int wire_errno;     /* errno of the last failed send or recv */
	uint64_t rekey_every;
	uint64_t since_rekey; /* bytes written under the present key */
	size_t out_used;
	uint8_t out[WIRE_OUT_SIZE];
};

/* ---- the BIO between OpenSSL and the socket ---- */

/* Send what has been gathered. True when nothing is left, false with errno. */
static bool wire_flush(struct tls *t)
{
	size_t done = 0;

	while (done < t->out_used) {
		ssize_t r = send(t->fd, t->out + done, t->out_used - done, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0) {
			t->wire_errno = errno;
			break;
		}
		done += (size_t)r;
	}
	if (done)
		memmove(t->out, t->out + done, t->out_used - done);
	t->out_used -= done;
	return t->out_used == 0;
}

static int wire_write(BIO *bio, const char *buf, size_t n, size_t *ret)
{
	struct tls *t = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (t->out_used + n > sizeof(t->out))
		wire_flush(t);
	if (t->out_used + n > sizeof(t->out)) {
		if (t->wire_errno == EAGAIN)
			BIO_set_retry_write(bio);
		return 0;
	}
	memcpy(t->out + t->out_used, buf, n);
	t->out_used += n;
	*ret = n;
	return 1;
}

static int wire_read(BIO *bio, char *buf, size_t n, size_t *ret)
{
	struct tls *t = BIO_get_data(bio);
	ssize_t r;

	BIO_clear_retry_flags(bio);
	do
		r = recv(t->fd, buf, n, MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	t->wire_errno = r < 0 ? errno : 0;
	if (r < 0 && errno == EAGAIN)
		BIO_set_retry_read(bio);
	if (r <= 0)
		return 0;
	*ret = (size_t)r;
	return 1;
}

static long wire_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	struct tls *t = BIO_get_data(bio);

	(void)num;
	(void)ptr;
	if (cmd != BIO_CTRL_FLUSH)
		return 0;
	BIO_clear_retry_flags(bio);
	if (wire_flush(t))
		return 1;
	if (t->wire_errno == EAGAIN)
		BIO_set_retry_write(bio);
	return -1;
}

static BIO_METHOD *wire_method;

static void wire_method_init(void)
{
	wire_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "godwit wire");
	if (!wire_method)
		abort();
	BIO_meth_set_write_ex(wire_method, wire_write);
	BIO_meth_set_read_ex(wire_method, wire_read);
	BIO_meth_set_ctrl(wire_method, wire_ctrl);
}

static BIO *wire_new(struct tls *t)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	BIO *bio;

	pthread_once(&once, wire_method_init);
	bio = BIO_new(wire_method);
	if (!bio)
		abort();
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	return bio;
}

/* ---- what went wrong, in words ---- */

/* The other side's alert about our certificate, or NULL when the alert is about something else. */
static const char *certificate_alert(int alert)
{
	switch (alert) {
	case SSL_AD_BAD_CERTIFICATE:
		return "it is damaged or names another host";
	case SSL_AD_UNSUPPORTED_CERTIFICATE:
		return "it is not meant for this side (extended key usage)";
	case SSL_AD_CERTIFICATE_REVOKED:
		return "it is revoked";
	case SSL_AD_CERTIFICATE_EXPIRED:
		return "it has expired or is not valid yet by the clock there";
	case SSL_AD_CERTIFICATE_UNKNOWN:
		return "it is not acceptable there";
	case SSL_AD_UNKNOWN_CA:
		return "its CA is unknown there: both sides need the same ca.pem";
	case SSL_AD_CERTIFICATE_REQUIRED:
		return "none was sent";
	default:
		return NULL;
	}
}

static int explain_ssl_error(struct tls *t, struct err *e)
{
	unsigned long code = ERR_peek_error();
	int reason = ERR_GET_REASON(code);
	const char *why;

	if (t->verdict.code) {
		*e = t->verdict;
		return -1;
	}
	if (reason > SSL_AD_REASON_OFFSET) {
		why = certificate_alert(reason - SSL_AD_REASON_OFFSET);
		if (why)
			return err_set(e, ERR_AUTH, "the other side refused our certificate %s/cert.pem: %s", t->dir,
				       why);
		return err_set(e, ERR_PEER, "the other side ended TLS: %s", ERR_reason_error_string(code));
	}
	if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		return err_set(e, ERR_PROTOCOL, "TLS: the connection was cut by the other side or on the way");
	if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST || reason == SSL_R_BAD_RECORD_TYPE ||
	    reason == SSL_R_UNEXPECTED_MESSAGE || reason == SSL_R_PACKET_LENGTH_TOO_LONG)
		return err_set(e, ERR_PROTOCOL, "the other side does not speak TLS: use TLS on both sides or on none");
	if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
		return err_set(e, ERR_AUTH, "the client sent no certificate: start it with its certificates");
	if (reason == SSL_R_UNSUPPORTED_PROTOCOL)
		return err_set(e, ERR_PROTOCOL, "the other side does not speak TLS 1.3");
	if (reason == SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC)
		return err_set(e, ERR_PROTOCOL, "TLS: a record was changed on the way");
	return err_set(e, ERR_PROTOCOL, "TLS: %s", code ? ERR_reason_error_string(code) : "unknown error");
}

/* Turn OpenSSL's @ssl_error into t->failure and @e. Returns -1. */
static int fail(struct tls *t, int ssl_error, struct err *e)
{
	if (ssl_error == SSL_ERROR_ZERO_RETURN) {
		err_set(&t->failure, ERR_PROTOCOL, "closed by the other side");
	} else if (ssl_error == SSL_ERROR_SYSCALL && t->wire_errno && t->wire_errno != EAGAIN) {
		errno = t->wire_errno;
		err_sys(&t->failure, "TLS connection");
	} else if (ssl_error == SSL_ERROR_SYSCALL && !ERR_peek_error()) {
		err_set(&t->failure, ERR_PROTOCOL, "TLS: the connection was cut by the other side or on the way");
	} else {
		explain_ssl_error(t, &t->failure);
	}
	ERR_clear_error();
	if (e)
		*e = t->failure;
	return -1;
}

/* The chain ends in a CA that no file of ours names, but its digest is the one that we were told. OpenSSL goes on and
 * checks the signatures below it. */
static bool is_pinned_ca(const struct tls *t, X509_STORE_CTX *sc, const X509 *cert)
{
	uint8_t digest[CERT_DIGEST_SIZE];

	if (X509_STORE_CTX_get_error(sc) != X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN)
		return false;
	cert_digest(cert, digest);
	return CRYPTO_memcmp(digest, t->ca_digest, sizeof(digest)) == 0;
}

/* A certificate of the other side has been looked at by OpenSSL: add our own rule, and remember why it was refused. */
static int judge_certificate(int ok, X509_STORE_CTX *sc)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(sc, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls *t = SSL_get_app_data(ssl);
	X509 *cert = X509_STORE_CTX_get_current_cert(sc);

	if (!ok && t->ca_digest && is_pinned_ca(t, sc, cert)) {
		X509_STORE_CTX_set_error(sc, X509_V_OK);
		ok = 1;
	}
	if (ok && X509_STORE_CTX_get_error_depth(sc) == 0 && !cert_has_usage(cert, !t->server)) {
		X509_STORE_CTX_set_error(sc, X509_V_ERR_INVALID_PURPOSE);
		ok = 0;
	}
	/* A stranger's CA sent along: it is the certificate below it that people know by name. */
	if (X509_STORE_CTX_get_error(sc) == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN)
		cert = X509_STORE_CTX_get0_cert(sc);
	if (!ok && !t->verdict.code)
		cert_explain(cert, X509_STORE_CTX_get_error(sc), !t->server, t->expect_name, &t->verdict);
	return ok;
}

/* ---- contexts ---- */

/* Everything but certificates. NULL with @e. */
static struct tls_ctx *ctx_new(const char *dir, struct err *e)
{
	struct tls_ctx *ctx = xcalloc(1, sizeof(*ctx));

	ctx->dir = xstrdup(dir);
	ctx->ssl_ctx = SSL_CTX_new(TLS_method());
	if (!ctx->ssl_ctx || !SSL_CTX_set_min_proto_version(ctx->ssl_ctx, TLS1_3_VERSION) ||
	    !SSL_CTX_set_ciphersuites(ctx->ssl_ctx, TLS_CIPHERS) || !SSL_CTX_set_num_tickets(ctx->ssl_ctx, 0)) {
		err_set(e, ERR_SYSTEM, "OpenSSL cannot set up TLS 1.3: %s",
			ERR_reason_error_string(ERR_peek_last_error()));
		ERR_clear_error();
		tls_ctx_free(ctx);
		return NULL;
	}
	SSL_CTX_set_session_cache_mode(ctx->ssl_ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(ctx->ssl_ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_mode(ctx->ssl_ctx,
			 SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_clear_mode(ctx->ssl_ctx, SSL_MODE_AUTO_RETRY);
	SSL_CTX_set_read_ahead(ctx->ssl_ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ctx->ssl_ctx, WIRE_IN_SIZE);
	SSL_CTX_set_verify(ctx->ssl_ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, judge_certificate);
	return ctx;
}

struct tls_ctx *tls_ctx_load(const char *dir, struct err *e)
{
	struct tls_ctx *ctx = ctx_new(dir, e);

	if (ctx && cert_load_dir(ctx->ssl_ctx, dir, e) < 0) {
		tls_ctx_free(ctx);
		return NULL;
	}
	return ctx;
}

struct tls_ctx *tls_ctx_new_client(const char *ca_path, const uint8_t *ca_digest, struct err *e)
{
	struct tls_ctx *ctx = ctx_new("(none)", e);

	if (ctx && ca_path && cert_load_ca(ctx->ssl_ctx, ca_path, e) < 0) {
		tls_ctx_free(ctx);
		return NULL;
	}
	if (ctx && !ca_path) {
		ctx->pinned = true;
		memcpy(ctx->ca_digest, ca_digest, sizeof(ctx->ca_digest));
	}
	return ctx;
}

void tls_ctx_set_https(struct tls_ctx *ctx)
{
	ctx->https = true;
}

void tls_ctx_free(struct tls_ctx *ctx)
{
	if (!ctx)
		return;
	SSL_CTX_free(ctx->ssl_ctx);
	free(ctx->dir);
	free(ctx->expect_client);
	free(ctx);
}

void tls_ctx_expect_client(struct tls_ctx *ctx, const char *name)
{
	free(ctx->expect_client);
	ctx->expect_client = name ? xstrdup(name) : NULL;
}

/* ---- connections ---- */

static bool is_address(const char *name)
{
	struct in6_addr a;

	return inet_pton(AF_INET, name, &a) == 1 || inet_pton(AF_INET6, name, &a) == 1;
}

/* Ask OpenSSL to check that the other side's certificate carries t->expect_name as an alternative name. */
static void expect_name(struct tls *t)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(t->ssl);
	int ok;

	X509_VERIFY_PARAM_set_hostflags(param,
					X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (is_address(t->expect_name))
		ok = X509_VERIFY_PARAM_set1_ip_asc(param, t->expect_name);
	else
		ok = X509_VERIFY_PARAM_set1_host(param, t->expect_name, 0) &&
		     SSL_set_tlsext_host_name(t->ssl, t->expect_name);
	if (!ok)
		abort();
}

/* @name is borrowed; "fe80::1%eth0" loses its scope, which no certificate carries. */
static struct tls *tls_new(struct tls_ctx *ctx, int fd, bool server, const char *name)
{
	struct tls *t = xcalloc(1, sizeof(*t));
	BIO *bio;

	t->fd = fd;
	t->server = server;
	t->https = ctx->https;
	t->ca_digest = ctx->pinned ? ctx->ca_digest : NULL;
	t->dir = xstrdup(ctx->dir);
	t->rekey_every = TLS_REKEY_BYTES;
	t->ssl = SSL_new(ctx->ssl_ctx);
	if (!t->ssl)
		abort();
	SSL_set_app_data(t->ssl, t);
	if (name) {
		t->expect_name = xstrdup(name);
		t->expect_name[strcspn(t->expect_name, "%")] = 0;
		expect_name(t);
	}
	bio = wire_new(t);
	SSL_set_bio(t->ssl, bio, bio);
	return t;
}

void tls_abort(struct tls *t)
{
	if (!t)
		return;
	SSL_free(t->ssl);
	free(t->dir);
	free(t->expect_name);
	free(t);
}

void tls_close(struct tls *t)
{
	if (t && !t->failure.code) {
		SSL_shutdown(t->ssl);
		wire_flush(t);
		ERR_clear_error();
	}
	tls_abort(t);
}

/* One attempt at an operation: > 0 done, otherwise OpenSSL's way to say no (see SSL_get_error). */
typedef int tls_step(struct tls *t, void *arg);

/* Repeat @step until it is done, waiting for the socket as OpenSSL asks, until @deadline_ns. 0, or -1 with @e. */
static int tls_run(struct tls *t, tls_step *step, void *arg, int64_t deadline_ns, struct err *e)
{
	if (t->failure.code) {
		if (e)
			*e = t->failure;
		return -1;
	}
	for (;;) {
		int r, error, ready;

		ERR_clear_error();
		t->wire_errno = 0;
		r = step(t, arg);
		if (r > 0)
			return 0;
		error = SSL_get_error(t->ssl, r);
		if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
			return fail(t, error, e);
		ready = sock_wait(t->fd, error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline_ns, &t->failure);
		if (ready == 0)
			err_set(&t->failure, ERR_TIMEOUT, "TLS: the other side did not %s in time",
				error == SSL_ERROR_WANT_READ ? "answer" : "read");
		if (ready <= 0) {
			if (e)
				*e = t->failure;
			return -1;
		}
	}
}

static int step_handshake(struct tls *t, void *arg)
{
	(void)arg;
	return SSL_do_handshake(t->ssl);
}

static int handshake(struct tls *t, int64_t deadline_ns, struct err *e)
{
	uint8_t welcome = TLS_WELCOME;
	X509 *cert;

	if (tls_run(t, step_handshake, NULL, deadline_ns, e) < 0)
		return -1;
	cert = SSL_get0_peer_certificate(t->ssl);
	if (!cert || SSL_get_verify_result(t->ssl) != X509_V_OK)
		return err_set(e, ERR_AUTH, "the other side did not prove who it is");
	cert_name(cert, t->peer_name);
	if (t->server)
		return tls_write_full(t, &welcome, 1, deadline_ns, e);
	t->ca_digest = NULL;
	if (t->https)
		return 0;
	if (tls_read_full(t, &welcome, 1, deadline_ns, e) < 0)
		return -1;
	if (welcome != TLS_WELCOME)
		return err_set(e, ERR_PROTOCOL, "the other side speaks TLS, but is not Godwit");
	return 0;
}

/* Takes @t. */
static int start(struct tls *t, int64_t deadline_ns, struct tls **ret, struct err *e)
{
	if (handshake(t, deadline_ns, e) < 0) {
		wire_flush(t); /* the alert that tells the other side why */
		tls_abort(t);
		return -1;
	}
	*ret = t;
	return 0;
}

int tls_connect(struct tls_ctx *ctx, int fd, const char *name, int64_t deadline_ns, struct tls **ret, struct err *e)
{
	struct tls *t = tls_new(ctx, fd, false, name);

	SSL_set_connect_state(t->ssl);
	return start(t, deadline_ns, ret, e);
}

int tls_accept(struct tls_ctx *ctx, int fd, int64_t deadline_ns, struct tls **ret, struct err *e)
{
	struct tls *t = tls_new(ctx, fd, true, ctx->expect_client);

	SSL_set_accept_state(t->ssl);
	return start(t, deadline_ns, ret, e);
}

/* ---- reading and writing ---- */

struct chunk {
	uint8_t *buf;
	size_t n;
	size_t done;
	bool ended; /* reading: the other side said goodbye */
};

static int step_read(struct tls *t, void *arg)
{
	struct chunk *c = arg;
	int r = SSL_read_ex(t->ssl, c->buf, c->n, &c->done);

	if (r <= 0 && SSL_get_error(t->ssl, r) == SSL_ERROR_ZERO_RETURN) {
		c->ended = true;
		return 1;
	}
	return r;
}

ssize_t tls_read_some(struct tls *t, void *buf, size_t n, int64_t deadline_ns, struct err *e)
{
	struct chunk c = {.buf = buf, .n = n};

	if (!n)
		return 0;
	if (tls_run(t, step_read, &c, deadline_ns, e) < 0)
		return -1;
	return c.ended ? 0 : (ssize_t)c.done;
}

int tls_read_full(struct tls *t, void *buf, size_t n, int64_t deadline_ns, struct err *e)
{
	uint8_t *p = buf;

	while (n) {
		ssize_t r = tls_read_some(t, p, n, deadline_ns, e);

		if (r < 0)
			return -1;
		if (r == 0)
			return fail(t, SSL_ERROR_ZERO_RETURN, e);
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

static int step_write(struct tls *t, void *arg)
{
	struct chunk *c = arg;

	return SSL_write_ex(t->ssl, c->buf, c->n, &c->done);
}

/* Everything gathered goes to the kernel. */
static int flush(struct tls *t, int64_t deadline_ns, struct err *e)
{
	while (!wire_flush(t)) {
		int ready;

		if (t->wire_errno != EAGAIN)
			return fail(t, SSL_ERROR_SYSCALL, e);
		ready = sock_wait(t->fd, POLLOUT, deadline_ns, &t->failure);
		if (ready == 0)
			err_set(&t->failure, ERR_TIMEOUT, "TLS: the other side did not read in time");
		if (ready <= 0) {
			if (e)
				*e = t->failure;
			return -1;
		}
	}
	return 0;
}

int tls_write_full(struct tls *t, const void *buf, size_t n, int64_t deadline_ns, struct err *e)
{
	struct chunk c = {.buf = (uint8_t *)buf, .n = n};

	for (; c.n; c.buf += c.done, c.n -= c.done) {
		if (t->since_rekey >= t->rekey_every && !t->failure.code) {
			if (!SSL_key_update(t->ssl, SSL_KEY_UPDATE_NOT_REQUESTED))
				return fail(t, SSL_ERROR_SSL, e);
			t->since_rekey = 0;
		}
		if (tls_run(t, step_write, &c, deadline_ns, e) < 0)
			return -1;
		t->since_rekey += c.done;
	}
	return flush(t, deadline_ns, e);
}

bool tls_pending(struct tls *t)
{
	uint8_t byte;
	size_t got;
	int r;

	if (t->failure.code || SSL_pending(t->ssl) > 0)
		return true;
	ERR_clear_error();
	t->wire_errno = 0;
	r = SSL_peek_ex(t->ssl, &byte, 1, &got);
	if (r > 0)
		return true;
	r = SSL_get_error(t->ssl, r);
	if (r == SSL_ERROR_WANT_READ || r == SSL_ERROR_WANT_WRITE)
		return false;
	if (r != SSL_ERROR_ZERO_RETURN)
		fail(t, r, NULL);
	return true;
}

int tls_wait(struct tls *t, int64_t deadline_ns, struct err *e)
{
	while (!tls_pending(t)) {
		int ready = sock_wait(t->fd, POLLIN, deadline_ns, e);

		if (ready <= 0)
			return ready;
	}
	return 1;
}

const char *tls_peer_name(const struct tls *t)
{
	return t->peer_name;
}

const char *tls_cipher_name(const struct tls *t)
{
	return SSL_CIPHER_get_name(SSL_get_current_cipher(t->ssl));
}

void tls_set_rekey(struct tls *t, uint64_t bytes)
{
	t->rekey_every = bytes;
}
