/* SPDX-License-Identifier: Apache-2.0 */
/* TLS 1.3 over a connected socket, certificates verified by both sides, whole reads and writes with deadlines. */
#ifndef GODWIT_BASE_TLS_H
#define GODWIT_BASE_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Our side's identity: the three files of one directory. Shared by any number of connections, any thread. */
struct tls_ctx;

/* One connection. Not thread-safe, reading and writing neither: one thread at a time owns it, and asks tls_wait() (or
 * poll(2) on the socket after tls_pending() said no) when it must not block. Deadlines as in base/sock.h. */
struct tls;

/* Read ca.pem (one or more CA certificates), cert.pem (ours, then intermediates) and key.pem from @dir.
 * Refused, each with a sentence that names the file: missing, unreadable, not PEM, expired or not yet valid, key that
 * does not belong to the certificate, certificate that its own ca.pem does not vouch for, key with a passphrase, and a
 * key that others than its owner and its group may read, or that its group may write (mode & 037).
 * NULL with @e (ERR_INPUT, ERR_SYSTEM). Caller frees; connections keep what they need. */
struct tls_ctx *tls_ctx_load(const char *dir, struct err *e);

/* For a client that shows no certificate: the server must be signed by a CA of the file @ca_path, or, with @ca_path
 * NULL, send along a CA certificate whose SHA-256 is @ca_digest (32 bytes: that is how a new host trusts its cluster).
 * NULL with @e. Caller frees. */
struct tls_ctx *tls_ctx_new_client(const char *ca_path, const uint8_t *ca_digest, struct err *e);

/* From now on tls_connect() expects a server of HTTPS, which does not send our byte. That such a server refuses our
 * certificate shows at the first read. */
void tls_ctx_set_https(struct tls_ctx *ctx);

/* NULL is fine. */
void tls_ctx_free(struct tls_ctx *ctx);

/* Connections accepted from now on must come with a certificate for @name (DNS name or address). NULL: any client
 * certificate of our CA. */
void tls_ctx_expect_client(struct tls_ctx *ctx, const char *name);

/* Handshake as client on the connected socket @fd (borrowed: outlives the tls, caller closes). The server's certificate
 * must be signed by our CA, be meant for servers (extended key usage) and name @expect_name, the host that was
 * connected to: a DNS name or an address among its subject alternative names; the subject's CN does not count.
 * Returns only after the server has accepted our certificate as well (it says so with one byte inside TLS, because in
 * TLS 1.3 the client is done before the server has looked).
 * 0 with *ret owned by the caller, or -1: ERR_AUTH with which certificate and why, ERR_PROTOCOL, ERR_TIMEOUT. */
int tls_connect(struct tls_ctx *ctx, int fd, const char *expect_name, int64_t deadline_ns, struct tls **ret,
		struct err *e);

/* The server's half: the client must show a certificate signed by our CA, meant for clients (extended key usage). */
int tls_accept(struct tls_ctx *ctx, int fd, int64_t deadline_ns, struct tls **ret, struct err *e);

/* Say goodbye (close_notify, not waited for) and free. The socket stays open. NULL is fine. */
void tls_close(struct tls *t);

/* Free without goodbye: the other side sees a cut. NULL is fine. */
void tls_abort(struct tls *t);

/* After a failure of any of these the connection is dead and every later call fails with the same sentence.
 * An end of file without close_notify is an error (ERR_PROTOCOL): somebody cut the wire. */

/* Read exactly @n bytes. 0 or -1. An end before, even a proper one, is an error. */
int tls_read_full(struct tls *t, void *buf, size_t n, int64_t deadline_ns, struct err *e);

/* Read what is there, at least one byte and at most @n. The count; 0 when the other side said goodbye; -1. */
ssize_t tls_read_some(struct tls *t, void *buf, size_t n, int64_t deadline_ns, struct err *e);

/* Write @n bytes and hand them to the kernel. 0 or -1. Large writes are fast, small ones cost a record each. */
int tls_write_full(struct tls *t, const void *buf, size_t n, int64_t deadline_ns, struct err *e);

/* True when tls_read_some() would return at once (with data, end or error). Looks at the socket without blocking. */
bool tls_pending(struct tls *t);

/* Wait until tls_pending(). 1 yes, 0 the deadline passed (not a failure: the connection goes on), -1 with @e. */
int tls_wait(struct tls *t, int64_t deadline_ns, struct err *e);

/* The other side's first subject alternative name, or its CN. Borrowed until the tls is freed. */
const char *tls_peer_name(const struct tls *t);

/* "TLS_AES_128_GCM_SHA256", ... Static. */
const char *tls_cipher_name(const struct tls *t);

/* Change our sending key every @bytes written instead of every TLS_REKEY_BYTES. (Tests use small values.) */
void tls_set_rekey(struct tls *t, uint64_t bytes);

/* RFC 8446 section 5.5 allows 2^24.5 full records under one AES-GCM key, 388 GiB: stay well below. */
#define TLS_REKEY_BYTES (128ULL << 30)

#endif
