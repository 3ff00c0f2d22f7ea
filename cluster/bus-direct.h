/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams to one member, past corosync. */
#ifndef GODWIT_CLUSTER_BUS_DIRECT_H
#define GODWIT_CLUSTER_BUS_DIRECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/bus.h"

/*
 * Theory of operation
 *
 * Each process draws a key and says it, with its UDP port, to the whole group by a HELLO over corosync, which
 * authenticates and encrypts it; it does so again in each view and when it hears somebody new. A datagram to that
 * process is
 *
 *   0  'D'   1  version of the format   2  type   3  0   4  sender (4 bytes, big-endian)   8  what is said
 *   ...  the first 16 bytes of HMAC-SHA256 over all that, by the receiver's key
 *
 * and goes to every address that corosync.conf has of the receiver's host, so that it comes twice where there are two
 * links. The key ends with the process: what was recorded of an earlier life is not taken. What is said is not secret
 * (an index of the log); it is not encrypted.
 *
 * Whether datagrams arrive is asked of each member every PING_EVERY: PING carries eight random bytes and PONG gives
 * them back. A member whose last answer is older than PONG_LIMIT has no such way (a packet filter, a broken link), and
 * direct_send() says so.
 *
 * One thread; no call blocks.
 */

#define DIRECT_MAGIC 'D'
#define DIRECT_KEY_SIZE 32U
#define DIRECT_HELLO_SIZE (4U + DIRECT_KEY_SIZE)
#define DIRECT_LINKS_MAX 2U

struct direct;

/* The host of a member, as corosync.conf has it. */
struct direct_host {
	uint32_t id;
	char addresses[DIRECT_LINKS_MAX][46]; /* numeric, IPv4 or IPv6; empty: none */
};

/* @heard gets what others say, out of direct_dispatch(). Listens on @port of all addresses, 0: any port. NULL with @e
 * (ERR_SYSTEM). Caller frees. */
struct direct *direct_new(uint16_t port, void (*heard)(void *arg, uint32_t node, const uint8_t *data, size_t size),
			  void *arg, struct err *e);
void direct_free(struct direct *d); /* @d may be NULL */

int direct_fd(const struct direct *d);

/* What the group is to be told of this process. */
void direct_hello(const struct direct *d, uint8_t ret[DIRECT_HELLO_SIZE]);

/* A member's HELLO. 1: it is a process that was not known, so it may not know this one; 0: it was known. -1 with @e
 * (ERR_PROTOCOL): it is none of this format. */
int direct_on_hello(struct direct *d, uint32_t node, const uint8_t *data, size_t size, struct err *e);

/* Who this is, and all hosts. */
void direct_hosts(struct direct *d, uint32_t self, const struct direct_host *hosts, size_t n);

/* False: there is no way to @node now. */
bool direct_send(struct direct *d, uint32_t node, const void *data, size_t size);

int64_t direct_deadline(const struct direct *d);
void direct_dispatch(struct direct *d, int64_t now_ns);

#endif
