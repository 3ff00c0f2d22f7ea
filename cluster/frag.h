/* SPDX-License-Identifier: Apache-2.0 */
/* Messages in pieces: what is larger than one message of the bus below is split by its sender and joined again. */
#ifndef GODWIT_CLUSTER_FRAG_H
#define GODWIT_CLUSTER_FRAG_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* A piece begins with
 *
 *   0  'F'   1  version of the format   2  zero (2 bytes)   4  number of the message (4 bytes, big-endian like all)
 *   8  size of the whole message   12  where in it the bytes of this piece belong
 *
 * Pieces of a sender come in order, so that a piece that does not go on where the one before ended says that something
 * was lost: then the rest of that message is dropped. A message in one piece may come between them. */

#define FRAG_VERSION 1
#define FRAG_HEADER_SIZE 16U

void frag_header(uint8_t ret[FRAG_HEADER_SIZE], uint32_t number, uint32_t total, uint32_t offset);

/* Messages of all senders of which the end has not come yet. */
struct frag_joiner;

/* @limit: bytes of the largest message. Caller frees. */
struct frag_joiner *frag_joiner_new(size_t limit);
void frag_joiner_free(struct frag_joiner *j); /* NULL is fine */

/* A piece from @node has come. 1: with it a message is whole, @ret_data is borrowed until the next call. 0: not yet.
 * -1: it was dropped, @e (ERR_PROTOCOL) says why. */
int frag_joiner_take(struct frag_joiner *j, uint32_t node, const void *data, size_t size, const uint8_t **ret_data,
		     size_t *ret_size, struct err *e);

/* @node is gone: no more of its message will come. */
void frag_joiner_forget(struct frag_joiner *j, uint32_t node);

#endif
