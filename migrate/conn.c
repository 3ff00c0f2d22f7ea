/* SPDX-License-Identifier: Apache-2.0 */
/* One connection between two engines. */
#include "migrate/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

void conn_bound_unsent(const struct conn *c, uint64_t bytes)
{
	int unsent = bytes < CONN_UNSENT_MAX ? (int)bytes : (int)CONN_UNSENT_MAX;

	setsockopt(c->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
}

void conn_bound_buffers(struct conn *c)
{
	int receive = CONN_RECEIVE_MAX / 2; /* the kernel doubles it */
	struct tcp_info info = {.tcpi_rtt = 0};
	socklen_t len = sizeof(info);

	conn_bound_unsent(c, CONN_UNSENT_MAX);
	if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 && info.tcpi_rtt < CONN_SHORT_PATH_US)
		setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof(receive));
}

int conn_open_file(struct conn *c, int fd, bool writing, struct err *e)
{
	*c = CONN_INIT;
	c->fd = fd;
	c->file_digest = EVP_MD_CTX_new();
	if (!c->file_digest || EVP_DigestInit_ex(c->file_digest, EVP_sha256(), NULL) != 1)
		return err_set(e, ERR_SYSTEM, "SHA-256 is not available");
	posix_fadvise(fd, 0, 0, writing ? POSIX_FADV_NORMAL : POSIX_FADV_SEQUENTIAL);
	return 0;
}

/* The digest as it stands; more may follow. */
void conn_file_digest(struct conn *c, uint8_t out[CONN_DIGEST_SIZE])
{
	EVP_MD_CTX *copy = EVP_MD_CTX_new();

	if (!copy || EVP_MD_CTX_copy_ex(copy, c->file_digest) != 1 || EVP_DigestFinal_ex(copy, out, NULL) != 1)
		abort();
	EVP_MD_CTX_free(copy);
}

int conn_file_verify(struct conn *c, struct err *e)
{
	uint8_t stored[CONN_DIGEST_SIZE], extra;

	if (sock_read_full(c->fd, stored, sizeof(stored), SOCK_FOREVER, e) < 0)
		return err_set(e, ERR_INPUT, "the file ends too early");
	if (CRYPTO_memcmp(stored, c->before_tail, sizeof(stored)) != 0)
		return err_set(e, ERR_INPUT, "its digest does not fit: the file was changed after it was written");
	if (read(c->fd, &extra, 1) != 0)
		return err_set(e, ERR_INPUT,
			       "there are bytes behind its end: the file was changed after it was written");
	return 0;
}

static int file_writev(struct conn *c, struct iovec *iov, int iovcnt, struct err *e)
{
	for (int i = 0; i < iovcnt; i++) {
		const char *p = iov[i].iov_base;
		size_t left = iov[i].iov_len;

		EVP_DigestUpdate(c->file_digest, p, left);
		while (left) {
			ssize_t n = write(c->fd, p, left);

			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return err_sys(e, "write");
			p += n;
			left -= (size_t)n;
		}
	}
	return 0;
}

void conn_close(struct conn *c)
{
	if (c->tls)
		tls_close(steal_ptr(c->tls));
	EVP_MD_CTX_free(steal_ptr(c->file_digest));
	if (c->fd >= 0)
		close(steal_fd(&c->fd));
}

void conn_abort(struct conn *c)
{
	if (c->tls)
		tls_abort(steal_ptr(c->tls));
	EVP_MD_CTX_free(steal_ptr(c->file_digest));
	if (c->fd >= 0)
		close(steal_fd(&c->fd));
}

int conn_read_full(struct conn *c, void *buf, size_t n, int64_t deadline_ns, struct err *e)
{
	int r = c->tls ? tls_read_full(c->tls, buf, n, deadline_ns, e) : sock_read_full(c->fd, buf, n, deadline_ns, e);

	if (r < 0 && c->file_digest && e && e->code == ERR_PROTOCOL)
		return err_set(e, ERR_INPUT, "the file ends too early");
	if (r == 0 && c->file_digest) {
		/* The trailer's own header is not part of what it covers: remember the digest before every read of its
		 * size. */
		if (n == WIRE_HEADER_SIZE)
			conn_file_digest(c, c->before_tail);
		EVP_DigestUpdate(c->file_digest, buf, n);
	}
	return r;
}

int conn_writev(struct conn *c, struct iovec *iov, int iovcnt, int64_t deadline_ns, struct err *e)
{
	for (int i = 0; i < iovcnt; i++)
		c->sent += iov[i].iov_len;
	if (c->file_digest)
		return file_writev(c, iov, iovcnt, e);
	if (!c->tls)
		return sock_writev_full(c->fd, iov, iovcnt, deadline_ns, e);
	for (int i = 0; i < iovcnt; i++)
		if (iov[i].iov_len && tls_write_full(c->tls, iov[i].iov_base, iov[i].iov_len, deadline_ns, e) < 0)
			return -1;
	return 0;
}

int conn_wait(struct conn *c, int64_t deadline_ns, struct err *e)
{
	return c->tls ? tls_wait(c->tls, deadline_ns, e) : sock_wait(c->fd, POLLIN, deadline_ns, e);
}

int conn_send(struct conn *c, uint8_t type, uint8_t flags, const void *data, size_t n, int64_t deadline_ns,
	      struct err *e)
{
	struct wire_header h = {.type = type, .flags = flags | WIRE_FLAG_SUM, .length = (uint32_t)n};
	uint8_t header[WIRE_HEADER_SIZE];
	struct iovec iov[2] = {{header, sizeof(header)}, {(void *)data, n}};

	if (n > WIRE_DATA_MAX)
		return err_set(e, ERR_PROTOCOL, "%s message of %zu bytes is larger than %u", wire_type_name(type), n,
			       WIRE_DATA_MAX);
	h.sum = wire_sum(data, n);
	wire_encode_header(header, &h, NULL);
	return conn_writev(c, iov, n ? 2 : 1, deadline_ns, e);
}

int conn_send_json(struct conn *c, uint8_t type, uint8_t flags, const json_t *object, int64_t deadline_ns,
		   struct err *e)
{
	_free_ char *text = json_dumps(object, JSON_COMPACT);

	if (!text)
		return err_set(e, ERR_SYSTEM, "a message could not be written as JSON");
	return conn_send(c, type, flags, text, strlen(text), deadline_ns, e);
}

void conn_send_fail(struct conn *c, const struct err *why)
{
	json_t *o = json_pack("{s:i, s:s%}", "code", (int)why->code, "text", why->text, strnlen(why->text, 900));

	if (o && c->fd >= 0)
		conn_send_json(c, WIRE_FAIL, 0, o, clock_now_ns() + NS_PER_S, NULL);
	json_decref(o);
}

/* The peer's words become our error: its own reason, not "connection closed". */
static int fail_from_peer(const json_t *o, struct err *e)
{
	const char *text = json_string_value(json_object_get(o, "text"));
	json_int_t code = json_integer_value(json_object_get(o, "code"));

	if (code != ERR_CANCELLED && code != ERR_NOCONVERGE && code != ERR_AUTH && code != ERR_UNSUPPORTED)
		code = ERR_PEER;
	return err_set(e, (enum err_code)code, "the other side says: %s", text ? text : "failed, without a reason");
}

int conn_recv(struct conn *c, struct frame *ret, int64_t deadline_ns, struct err *e)
{
	uint8_t header[WIRE_HEADER_SIZE];
	_free_ uint8_t *data = NULL;
	struct wire_header h;
	json_error_t je;
	uint64_t pages;

	if (conn_read_full(c, header, sizeof(header), deadline_ns, e) < 0 || wire_decode_header(header, &h, e) < 0)
		return -1;
	/* First of all: frames of these types have no index. */
	if (h.type < WIRE_INFO || (h.type >= WIRE_FILE_HEAD && !c->file_digest))
		return err_set(e, ERR_PROTOCOL, "a %s frame on the control connection", wire_type_name(h.type));
	if (wire_check_index(header, &h, NULL, &pages, e) < 0)
		return -1;
	data = mem_bounded(h.length + 1, WIRE_DATA_MAX + 1, "control message", e);
	if (!data || conn_read_full(c, data, h.length, deadline_ns, e) < 0)
		return -1;
	if (h.flags & WIRE_FLAG_SUM && wire_sum(data, h.length) != h.sum)
		return err_set(e, ERR_PROTOCOL, "%s message was damaged on the way", wire_type_name(h.type));
	*ret = (struct frame){.type = h.type, .flags = h.flags};
	if (!h.length || h.type == WIRE_PROBE)
		return 0;
	ret->json = json_loadb((char *)data, h.length, JSON_REJECT_DUPLICATES, &je);
	if (!json_is_object(ret->json)) {
		json_decref(ret->json);
		return err_set(e, ERR_PROTOCOL, "%s message is not a JSON object", wire_type_name(h.type));
	}
	if (h.type != WIRE_FAIL)
		return 0;
	fail_from_peer(ret->json, e);
	json_decref(ret->json);
	return -1;
}

int conn_expect(struct conn *c, uint8_t type, json_t **ret_json, int64_t deadline_ns, struct err *e)
{
	struct frame f;

	if (conn_recv(c, &f, deadline_ns, e) < 0)
		return -1;
	if (f.type != type) {
		json_decref(f.json);
		return err_set(e, ERR_PROTOCOL, "the other side sent \"%s\" where \"%s\" was due",
			       wire_type_name(f.type), wire_type_name(type));
	}
	if (ret_json)
		*ret_json = f.json;
	else
		json_decref(f.json);
	return 0;
}

static int hello_say(struct conn *c, const struct conn_secret *secret, const struct wire_hello *hello,
		     int64_t deadline_ns, struct err *e)
{
	uint8_t greeting[WIRE_GREETING_SIZE], nonce[WIRE_NONCE_SIZE], out[WIRE_HELLO_SIZE];
	struct iovec iov = {out, sizeof(out)};

	if (conn_read_full(c, greeting, sizeof(greeting), deadline_ns, e) < 0)
		return err_wrap(e, "waiting for the receiver's greeting");
	if (wire_decode_greeting(greeting, nonce, e) < 0)
		return -1;
	wire_encode_hello(out, hello, secret->token, nonce);
	return conn_writev(c, &iov, 1, deadline_ns, e);
}

int conn_connect(struct conn *c, const struct sock_addr *to, const struct conn_secret *secret,
		 const struct wire_hello *hello, int64_t deadline_ns, struct err *e)
{
	*c = CONN_INIT;
	c->fd = sock_tcp_connect(to, deadline_ns, e);
	if (c->fd < 0)
		return -1;
	if ((secret->tls && tls_connect(secret->tls, c->fd, to->host, deadline_ns, &c->tls, e) < 0) ||
	    hello_say(c, secret, hello, deadline_ns, e) < 0) {
		conn_abort(c);
		return err_wrap(e, "%s port %s", to->host, to->port);
	}
	return 0;
}

static int hello_hear(struct conn *c, const struct conn_secret *secret, int64_t deadline_ns,
		      struct wire_hello *ret_hello, struct err *e)
{
	uint8_t greeting[WIRE_GREETING_SIZE], nonce[WIRE_NONCE_SIZE], in[WIRE_HELLO_SIZE];
	struct iovec iov = {greeting, sizeof(greeting)};

	if (RAND_bytes(nonce, sizeof(nonce)) != 1)
		return err_set(e, ERR_SYSTEM, "no random bytes for a nonce");
	wire_encode_greeting(greeting, nonce);
	if (conn_writev(c, &iov, 1, deadline_ns, e) < 0 || conn_read_full(c, in, sizeof(in), deadline_ns, e) < 0)
		return err_wrap(e, "waiting for the sender's hello");
	return wire_decode_hello(in, secret->token, nonce, ret_hello, e);
}

int conn_accept(struct conn *c, int fd, const struct conn_secret *secret, int64_t deadline_ns,
		struct wire_hello *ret_hello, struct err *e)
{
	*c = CONN_INIT;
	c->fd = fd;
	if ((secret->tls && tls_accept(secret->tls, fd, deadline_ns, &c->tls, e) < 0) ||
	    hello_hear(c, secret, deadline_ns, ret_hello, e) < 0) {
		conn_send_fail(c, e);
		conn_abort(c);
		return -1;
	}
	return 0;
}
