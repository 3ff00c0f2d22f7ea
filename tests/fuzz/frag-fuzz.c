/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the joining of pieces: the input is pieces of two senders, each after one byte of length. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "cluster/frag.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frag_joiner *j = frag_joiner_new(4096);
	unsigned sum = 0;

	while (size > 0) {
		size_t n = data[0] & 0x7f;
		uint32_t node = 1 + (data[0] >> 7);
		const uint8_t *whole;
		size_t whole_size;

		data++;
		size--;
		n = n < size ? n : size;
		if (frag_joiner_take(j, node, data, n, &whole, &whole_size, NULL) == 1) {
			if (whole_size > 4096)
				abort();
			for (size_t i = 0; i < whole_size; i++)
				sum += whole[i];
		}
		data += n;
		size -= n;
	}
	frag_joiner_free(j);
	return sum == UINT32_MAX;
}
