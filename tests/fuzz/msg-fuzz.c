/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzer: any bytes as a message of a member; what is taken must come out of the encoder as it went in. */
#include <stdlib.h>
#include <string.h>

#include "cluster/msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct msg_buf b = {0};
	struct entry *e;
	struct msg m;

	if (msg_decode(data, size, &m, NULL) < 0)
		return 0;
	msg_begin(&b, &m);
	if (m.type == MSG_SNAP_DATA)
		memcpy(msg_room(&b, m.items_size), m.items, m.items_size);
	while ((e = msg_next(&m))) {
		msg_item(&b, e);
		entry_unref(e);
	}
	if (b.len != size || memcmp(b.data, data, size) != 0)
		abort();
	free(b.data);
	return 0;
}
