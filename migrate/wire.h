/* SPDX-License-Identifier: Apache-2.0 */
/* The wire format between two engines, and of a saved guest: frames, encoded and decoded field by field (docs/wire.md).
 * Pure. */
#ifndef GODWIT_MIGRATE_WIRE_H
#define GODWIT_MIGRATE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define WIRE_VERSION 1

/*
 * Theory of operation
 *
 * A move uses one control connection and N data channels, all to the port that `receive` listens on. Each begins with a
 * hello (below); everything after it is frames: a header of 32 bytes, an index of `runs` entries, `length` bytes of
 * data. All fields are big-endian. `check` covers header and index, `sum` covers the data: TCP's own 16-bit sum lets
 * one error in some ten thousand damaged segments through, and a page put in the wrong place is worse than a wrong
 * page. Under TLS the records are authenticated already and `sum` is left out (WIRE_FLAG_SUM not set).
 *
 * Every size is bounded before anything is allocated or read.
 */

enum wire_type {
	/* data channels, source to destination only */
	WIRE_PAGES = 1, /* runs of pages of one block, then their bytes */
	WIRE_ZEROS,     /* runs of zero pages of one block, no bytes */
	WIRE_STREAM, /* bytes for the destination's QEMU, channel 0 only; WIRE_FLAG_TAIL: what follows the end of RAM */
	WIRE_END,    /* the last page frame of a channel: no bytes */
	/* control connection */
	WIRE_INFO = 16, /* source: what the guest needs (JSON) */
	WIRE_READY,     /* destination: prepared, memory mapped; or the answer to a round of probes */
	WIRE_LOADED,    /* destination: QEMU has loaded everything and waits */
	WIRE_GO,        /* source: its QEMU will never run this guest again */
	WIRE_RUNNING,   /* destination: the guest runs here (JSON: how long each step took) */
	WIRE_FAIL,      /* either: it is over, and why (JSON: code, text) */
	WIRE_PROBE, /* source: bytes to be thrown away to measure the wire; with WIRE_FLAG_TAIL: answer with WIRE_READY
		     */
	WIRE_RESOLVE,  /* source, on a connection of its own after a break: WIRE_FLAG_GO set: "GO stands", else: "give
			  up" */
	WIRE_RESOLVED, /* destination's answer (JSON: state) */
	WIRE_DONE,     /* source: it knows that the guest runs at the destination, nobody will ask */
	/* files only */
	WIRE_FILE_HEAD = 32, /* what the file holds (JSON) */
	WIRE_FILE_TAIL,      /* SHA-256 of every byte before this frame */
	WIRE_TYPE_MAX
};

#define WIRE_FLAG_SUM 0x01 /* `sum` holds XXH3-64 of the data */
#define WIRE_FLAG_TAIL 0x02
#define WIRE_FLAG_GO 0x04

#define WIRE_HEADER_SIZE 32U
#define WIRE_RUN_SIZE 4U
#define WIRE_PAGES_MAX 64U         /* pages in one frame */
#define WIRE_RUNS_MAX 1024U        /* index entries of one frame (zero runs); WIRE_PAGES has at most WIRE_PAGES_MAX */
#define WIRE_DATA_MAX (256U << 10) /* data bytes of one frame */
#define WIRE_INDEX_MAX (WIRE_RUNS_MAX * WIRE_RUN_SIZE)

struct wire_header {
	uint8_t type;
	uint8_t flags;
	uint16_t block;  /* index into the guest's block list; 0 where there is none */
	uint32_t runs;   /* index entries */
	uint32_t length; /* data bytes */
	uint64_t base;   /* page number that the runs count from */
	uint64_t sum;    /* XXH3-64 of the data when WIRE_FLAG_SUM */
};

/* @count pages from page base + @first on. */
struct wire_run {
	uint16_t first;
	uint16_t count;
};

/* The highest page that one frame reaches is base + 65535. */
#define WIRE_REACH 65536U

void wire_encode_run(uint8_t *out, struct wire_run run);
struct wire_run wire_decode_run(const uint8_t *in);

/* Encode @h into @out (WIRE_HEADER_SIZE bytes); @index is the encoded index (h->runs * WIRE_RUN_SIZE bytes) that
 * `check` covers. */
void wire_encode_header(uint8_t *out, const struct wire_header *h, const uint8_t *index);

/* Decode and bound @in. Says nothing of the index yet: read h->runs * WIRE_RUN_SIZE more bytes and call
 * wire_check_index. */
int wire_decode_header(const uint8_t *in, struct wire_header *ret, struct err *e);

/* Verify `check` over header and index, and that runs ascend, do not overlap, and add up to `length` (WIRE_PAGES). */
int wire_check_index(const uint8_t *header, const struct wire_header *h, const uint8_t *index, uint64_t *ret_pages,
		     struct err *e);

uint64_t wire_sum(const void *data, size_t n);

/* The name of a type for messages; never NULL. */
const char *wire_type_name(uint8_t type);

/* ---- hello: the first bytes of every connection ---- */

enum wire_role { WIRE_ROLE_CONTROL = 1, WIRE_ROLE_DATA, WIRE_ROLE_RESOLVE, WIRE_ROLE_PROBE, WIRE_ROLE_MAX };

#define WIRE_TOKEN_SIZE 32U
#define WIRE_NONCE_SIZE 32U
#define WIRE_SESSION_SIZE 16U
#define WIRE_PROOF_SIZE 32U
#define WIRE_GREETING_SIZE (8U + WIRE_NONCE_SIZE)
#define WIRE_HELLO_SIZE (8U + 4U + WIRE_SESSION_SIZE + WIRE_PROOF_SIZE)

/* The destination speaks first: magic, version, a fresh nonce. */
void wire_encode_greeting(uint8_t *out, const uint8_t nonce[WIRE_NONCE_SIZE]);
int wire_decode_greeting(const uint8_t *in, uint8_t ret_nonce[WIRE_NONCE_SIZE], struct err *e);

/* The source answers: magic, version, role, channel, session, and HMAC-SHA-256(token, nonce | role | channel |
 * session): the one-time token itself never travels. */
struct wire_hello {
	uint8_t role;
	uint8_t channel;  /* index of a data channel */
	uint8_t channels; /* how many there will be */
	uint8_t session[WIRE_SESSION_SIZE];
};
void wire_encode_hello(uint8_t *out, const struct wire_hello *h, const uint8_t token[WIRE_TOKEN_SIZE],
		       const uint8_t nonce[WIRE_NONCE_SIZE]);
/* ERR_AUTH when the proof does not fit the token. */
int wire_decode_hello(const uint8_t *in, const uint8_t token[WIRE_TOKEN_SIZE], const uint8_t nonce[WIRE_NONCE_SIZE],
		      struct wire_hello *ret, struct err *e);

#define WIRE_CHANNELS_MAX 16U

/* Which channel a page travels on: 2 MiB regions in turn, so that one page is always on one channel and never overtakes
 * itself. */
#define WIRE_REGION_PAGES 512U
static inline unsigned wire_channel_of(uint64_t page, unsigned channels)
{
	return (unsigned)(page / WIRE_REGION_PAGES % channels);
}

#endif
