/* SPDX-License-Identifier: Apache-2.0 */
/* Fields one after the other, big-endian: what the keeper's messages and its kept state are written with. */
#ifndef GODWIT_FENCING_FIELDS_H
#define GODWIT_FENCING_FIELDS_H

#include <stdint.h>
#include <string.h>

#include "base/byteorder.h"

/* Each writes or reads at *p and moves it on; the caller knows that there is room. */
static inline void put8(unsigned char **p, unsigned v)
{
	*(*p)++ = (unsigned char)v;
}

static inline void put32(unsigned char **p, uint32_t v)
{
	put_be32(*p, v);
	*p += 4;
}

static inline void put64(unsigned char **p, int64_t v)
{
	put_be64(*p, (uint64_t)v);
	*p += 8;
}

/* A text in a field of @n bytes: cut if it is longer than that, zeros after it. */
static inline void put_text(unsigned char **p, const char *s, size_t n)
{
	size_t len = strnlen(s, n - 1);

	memset(*p, 0, n);
	memcpy(*p, s, len);
	*p += n;
}

static inline unsigned take8(const unsigned char **p)
{
	return *(*p)++;
}

static inline uint32_t take32(const unsigned char **p)
{
	*p += 4;
	return get_be32(*p - 4);
}

static inline int64_t take64(const unsigned char **p)
{
	*p += 8;
	return (int64_t)get_be64(*p - 8);
}

/* @s has room for @n bytes. -1 when the field does not end with a NUL. */
static inline int take_text(const unsigned char **p, char *s, size_t n)
{
	memcpy(s, *p, n);
	*p += n;
	return s[n - 1] ? -1 : 0;
}

#endif
