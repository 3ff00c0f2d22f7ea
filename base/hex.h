/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes as hexadecimal text. */
#ifndef GODWIT_BASE_HEX_H
#define GODWIT_BASE_HEX_H

#include <stddef.h>
#include <stdint.h>

/* @ret has room for 2 * @n characters and a NUL. Lower case. */
static inline void hex_text(const uint8_t *data, size_t n, char *ret)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		ret[2 * i] = digits[data[i] >> 4];
		ret[2 * i + 1] = digits[data[i] & 15];
	}
	ret[2 * n] = 0;
}

#endif
