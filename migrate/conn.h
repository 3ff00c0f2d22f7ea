/* SPDX-License-Identifier: Apache-2.0 */
/* One connection between two engines: a socket, TLS or not, a hello at the start and frames from then on. */
#ifndef GODWIT_MIGRATE_CONN_H
#define GODWIT_MIGRATE_CONN_H

#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/sock.h"
#include "base/tls.h"
#include "migrate/wire.h"

/* Owned by one thread at a time (base/tls.h). */
struct conn {
	int fd;
	struct tls *tls;         /* NULL: plaintext */
	void *file_digest;       /* a file instead of a socket: EVP_MD_CTX over every byte written or read so far */
	uint8_t before_tail[32]; /* reading a file: the digest before the newest header */
	uint64_t sent;           /* bytes given to the wire, TLS records not counted */
};

#define CONN_INIT ((struct conn){.fd = -1})

/* What both ends must agree on before a word is said. Borrowed for the whole move. */
struct conn_secret {
	struct tls_ctx *tls; /* NULL: plaintext */
	uint8_t token[WIRE_TOKEN_SIZE];
};

/* Connect to @to, do TLS, read the greeting, say @hello. 0 or -1 with @e; on failure nothing stays open. */
int conn_connect(struct conn *c, const struct sock_addr *to, const struct conn_secret *secret,
		 const struct wire_hello *hello, int64_t deadline_ns, struct err *e);

/* The other half, on a freshly accepted @fd (taken, closed on failure). */
int conn_accept(struct conn *c, int fd, const struct conn_secret *secret, int64_t deadline_ns,
		struct wire_hello *ret_hello, struct err *e);

/* Bound what a data channel may hold in kernel buffers, for both directions: what lies there when the guest stops is
 * pause. Sender: at most CONN_UNSENT_MAX wait behind what the network has in flight (TCP_NOTSENT_LOWAT). Receiver: on a
 * short path the receive buffer stays at CONN_RECEIVE_MAX, so that a destination slower than its wire is felt at the
 * source; a long path keeps the kernel's tuning. */
#define CONN_UNSENT_MAX (128U << 10)
#define CONN_RECEIVE_MAX (512U << 10)
#define CONN_SHORT_PATH_US 500U
void conn_bound_buffers(struct conn *c);
/* Sender: change the bound while the connection is in use, from any thread. */
void conn_bound_unsent(const struct conn *c, uint64_t bytes);

/* A file as the wire: takes @fd. Its bytes are digested (SHA-256) as they are written, or read. */
#define CONN_DIGEST_SIZE 32U
int conn_open_file(struct conn *c, int fd, bool writing, struct err *e);
/* The digest of all bytes so far. */
void conn_file_digest(struct conn *c, uint8_t out[CONN_DIGEST_SIZE]);
/* Reading: the header of WIRE_FILE_TAIL has just been read. Read its data, compare, and see that nothing follows. */
int conn_file_verify(struct conn *c, struct err *e);

/* Close politely / at once. Idempotent. */
void conn_close(struct conn *c);
void conn_abort(struct conn *c);

int conn_read_full(struct conn *c, void *buf, size_t n, int64_t deadline_ns, struct err *e);

/* Write all of @iov (modified). */
int conn_writev(struct conn *c, struct iovec *iov, int iovcnt, int64_t deadline_ns, struct err *e);

/* 1: something to read, 0: nothing by the deadline, -1. */
int conn_wait(struct conn *c, int64_t deadline_ns, struct err *e);

/* Send a control frame; @data may be NULL with @n 0. */
int conn_send(struct conn *c, uint8_t type, uint8_t flags, const void *data, size_t n, int64_t deadline_ns,
	      struct err *e);
/* As conn_send with a JSON object (borrowed) as its data. */
int conn_send_json(struct conn *c, uint8_t type, uint8_t flags, const json_t *object, int64_t deadline_ns,
		   struct err *e);

/* A control frame as received. @json is the parsed data where the type carries some, owned by the caller (json_decref).
 */
struct frame {
	uint8_t type;
	uint8_t flags;
	json_t *json;
};

/* Read one control frame (probe bytes are read and dropped). A WIRE_FAIL from the peer is returned as an error: its
 * text, code ERR_PEER (or ERR_CANCELLED, ERR_NOCONVERGE as the peer says). */
int conn_recv(struct conn *c, struct frame *ret, int64_t deadline_ns, struct err *e);

/* conn_recv, and anything else than @type is a protocol error. @ret_json may be NULL. */
int conn_expect(struct conn *c, uint8_t type, json_t **ret_json, int64_t deadline_ns, struct err *e);

/* Tell the other side that it is over, and why; failures to tell are ignored. */
void conn_send_fail(struct conn *c, const struct err *why);

#endif
