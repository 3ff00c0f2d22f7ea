/* SPDX-License-Identifier: Apache-2.0 */
/* The wire format between two engines. */
#include "migrate/wire.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <xxh_x86dispatch.h>

#include "base/byteorder.h"
#include "hv/stream.h"

static const uint8_t greeting_magic[6] = {'G', 'D', 'W', 'T', 'd', '\n'};
static const uint8_t hello_magic[6] = {'G', 'D', 'W', 'T', 's', '\n'};

static const char *const type_names[WIRE_TYPE_MAX] = {
	[WIRE_PAGES] = "pages",
	[WIRE_ZEROS] = "zeros",
	[WIRE_STREAM] = "stream",
	[WIRE_END] = "end",
	[WIRE_INFO] = "info",
	[WIRE_READY] = "ready",
	[WIRE_LOADED] = "loaded",
	[WIRE_GO] = "go",
	[WIRE_RUNNING] = "running",
	[WIRE_FAIL] = "fail",
	[WIRE_PROBE] = "probe",
	[WIRE_RESOLVE] = "resolve",
	[WIRE_RESOLVED] = "resolved",
	[WIRE_DONE] = "done",
	[WIRE_FILE_HEAD] = "file header",
	[WIRE_FILE_TAIL] = "file trailer",
};

const char *wire_type_name(uint8_t type)
{
	return type < WIRE_TYPE_MAX && type_names[type] ? type_names[type] : "unknown";
}

uint64_t wire_sum(const void *data, size_t n)
{
	return XXH3_64bits(data, n);
}

void wire_encode_run(uint8_t *out, struct wire_run run)
{
	put_be16(out, run.first);
	put_be16(out + 2, run.count);
}

struct wire_run wire_decode_run(const uint8_t *in)
{
	return (struct wire_run){.first = get_be16(in), .count = get_be16(in + 2)};
}

/* The low 32 bits of XXH3-64 over the header without its check field, seeded with the hash of the index. */
static uint32_t header_check(const uint8_t *header, const uint8_t *index, size_t index_size)
{
	uint8_t covered[WIRE_HEADER_SIZE - 4];

	memcpy(covered, header, 12);
	memcpy(covered + 12, header + 16, 16);
	return (uint32_t)XXH3_64bits_withSeed(covered, sizeof(covered),
					      index_size ? XXH3_64bits(index, index_size) : 0);
}

void wire_encode_header(uint8_t *out, const struct wire_header *h, const uint8_t *index)
{
	out[0] = h->type;
	out[1] = h->flags;
	put_be16(out + 2, h->block);
	put_be32(out + 4, h->runs);
	put_be32(out + 8, h->length);
	put_be64(out + 16, h->base);
	put_be64(out + 24, h->sum);
	put_be32(out + 12, header_check(out, index, h->runs * WIRE_RUN_SIZE));
}

int wire_decode_header(const uint8_t *in, struct wire_header *ret, struct err *e)
{
	struct wire_header h = {
		.type = in[0],
		.flags = in[1],
		.block = get_be16(in + 2),
		.runs = get_be32(in + 4),
		.length = get_be32(in + 8),
		.base = get_be64(in + 16),
		.sum = get_be64(in + 24),
	};

	if (h.type >= WIRE_TYPE_MAX || !type_names[h.type])
		return err_set(e, ERR_PROTOCOL, "frame of unknown type %u", h.type);
	if (h.length > WIRE_DATA_MAX)
		return err_set(e, ERR_PROTOCOL, "%s frame of %u bytes is larger than %u", wire_type_name(h.type),
			       h.length, WIRE_DATA_MAX);
	if (h.runs > (h.type == WIRE_PAGES ? WIRE_PAGES_MAX : h.type == WIRE_ZEROS ? WIRE_RUNS_MAX : 0))
		return err_set(e, ERR_PROTOCOL, "%s frame with %u index entries is not allowed", wire_type_name(h.type),
			       h.runs);
	*ret = h;
	return 0;
}

int wire_check_index(const uint8_t *header, const struct wire_header *h, const uint8_t *index, uint64_t *ret_pages,
		     struct err *e)
{
	uint64_t pages = 0;
	uint32_t next = 0;

	if (header_check(header, index, h->runs * WIRE_RUN_SIZE) != get_be32(header + 12))
		return err_set(e, ERR_PROTOCOL, "%s frame was damaged on the way (its check does not fit)",
			       wire_type_name(h->type));
	if (h->base > UINT64_MAX / STREAM_PAGE_SIZE - WIRE_REACH)
		return err_set(e, ERR_PROTOCOL, "%s frame names page %llu", wire_type_name(h->type),
			       (unsigned long long)h->base);
	for (uint32_t i = 0; i < h->runs; i++) {
		struct wire_run run = wire_decode_run(index + i * WIRE_RUN_SIZE);

		if (!run.count || run.first < next || (uint32_t)run.first + run.count > WIRE_REACH)
			return err_set(e, ERR_PROTOCOL, "%s frame whose runs overlap or reach too far",
				       wire_type_name(h->type));
		next = (uint32_t)run.first + run.count;
		pages += run.count;
	}
	if ((h->type == WIRE_PAGES && (pages * STREAM_PAGE_SIZE != h->length || !pages)) ||
	    (h->type == WIRE_ZEROS && (h->length || !pages)))
		return err_set(e, ERR_PROTOCOL, "%s frame of %llu pages with %u bytes", wire_type_name(h->type),
			       (unsigned long long)pages, h->length);
	*ret_pages = pages;
	return 0;
}

void wire_encode_greeting(uint8_t *out, const uint8_t nonce[WIRE_NONCE_SIZE])
{
	memcpy(out, greeting_magic, sizeof(greeting_magic));
	put_be16(out + 6, WIRE_VERSION);
	memcpy(out + 8, nonce, WIRE_NONCE_SIZE);
}

/* Both ends state their version first, so that each can say in words what the other is. */
static int check_magic(const uint8_t *in, const uint8_t magic[6], const char *who, struct err *e)
{
	unsigned version = get_be16(in + 6);

	/* What a TLS client says first, and what a TLS server says last when it has waited for that (a TLS alert, or
	 * our WIRE_FAIL, which has the same number). */
	if (in[0] == 0x16 || in[0] == 0x15)
		return err_set(e, ERR_PROTOCOL,
			       "the other side uses TLS and this one does not: use --tls on both sides, or --plaintext "
			       "on both sides");
	if (memcmp(in, magic, 6) != 0)
		return err_set(e, ERR_PROTOCOL, "the other side is not a godwit-migrate %s", who);
	if (version != WIRE_VERSION)
		return err_set(e, ERR_PROTOCOL,
			       "the godwit-migrate %s speaks wire version %u and this one %u: install the same version "
			       "on both hosts",
			       who, version, WIRE_VERSION);
	return 0;
}

int wire_decode_greeting(const uint8_t *in, uint8_t ret_nonce[WIRE_NONCE_SIZE], struct err *e)
{
	if (check_magic(in, greeting_magic, "receiver", e) < 0)
		return -1;
	memcpy(ret_nonce, in + 8, WIRE_NONCE_SIZE);
	return 0;
}

static void hello_proof(const uint8_t *hello, const uint8_t *token, const uint8_t *nonce, uint8_t *out)
{
	uint8_t message[WIRE_NONCE_SIZE + 4 + WIRE_SESSION_SIZE];
	unsigned len = WIRE_PROOF_SIZE;

	memcpy(message, nonce, WIRE_NONCE_SIZE);
	memcpy(message + WIRE_NONCE_SIZE, hello + 8, 4 + WIRE_SESSION_SIZE);
	HMAC(EVP_sha256(), token, WIRE_TOKEN_SIZE, message, sizeof(message), out, &len);
}

void wire_encode_hello(uint8_t *out, const struct wire_hello *h, const uint8_t token[WIRE_TOKEN_SIZE],
		       const uint8_t nonce[WIRE_NONCE_SIZE])
{
	memcpy(out, hello_magic, sizeof(hello_magic));
	put_be16(out + 6, WIRE_VERSION);
	out[8] = h->role;
	out[9] = h->channel;
	out[10] = h->channels;
	out[11] = 0;
	memcpy(out + 12, h->session, WIRE_SESSION_SIZE);
	hello_proof(out, token, nonce, out + 12 + WIRE_SESSION_SIZE);
}

int wire_decode_hello(const uint8_t *in, const uint8_t token[WIRE_TOKEN_SIZE], const uint8_t nonce[WIRE_NONCE_SIZE],
		      struct wire_hello *ret, struct err *e)
{
	uint8_t proof[WIRE_PROOF_SIZE];
	struct wire_hello h = {.role = in[8], .channel = in[9], .channels = in[10]};

	if (check_magic(in, hello_magic, "sender", e) < 0)
		return -1;
	hello_proof(in, token, nonce, proof);
	if (CRYPTO_memcmp(proof, in + 12 + WIRE_SESSION_SIZE, sizeof(proof)) != 0)
		return err_set(e, ERR_AUTH,
			       "the sender does not know this receiver's token: give both sides the same --token-file");
	if (!h.role || h.role >= WIRE_ROLE_MAX || !h.channels || h.channels > WIRE_CHANNELS_MAX ||
	    h.channel >= h.channels)
		return err_set(e, ERR_PROTOCOL, "hello with role %u, channel %u of %u", h.role, h.channel, h.channels);
	memcpy(h.session, in + 12, WIRE_SESSION_SIZE);
	*ret = h;
	return 0;
}
