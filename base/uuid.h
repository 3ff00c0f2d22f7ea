/* SPDX-License-Identifier: Apache-2.0 */
/* UUIDs (RFC 9562) as text: random ones, and ones made of a digest. */
#ifndef GODWIT_BASE_UUID_H
#define GODWIT_BASE_UUID_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define UUID_TEXT_SIZE 37 /* with its NUL */

/* @b with the bits of @version (4 random, 8 one's own) and of the variant set, as text. */
static inline void uuid_text(const uint8_t b[16], unsigned version, char ret[UUID_TEXT_SIZE])
{
	snprintf(ret, UUID_TEXT_SIZE, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
		 b[1], b[2], b[3], b[4], b[5], (b[6] & 0x0f) | version << 4, b[7], (b[8] & 0x3f) | 0x80, b[9], b[10],
		 b[11], b[12], b[13], b[14], b[15]);
}

/* A random one. Aborts where the kernel has no random numbers, which it always has after its start. */
static inline void uuid_random(char ret[UUID_TEXT_SIZE])
{
	uint8_t b[16];

	if (getrandom(b, sizeof(b), 0) != sizeof(b))
		abort();
	uuid_text(b, 4, ret);
}

#endif
