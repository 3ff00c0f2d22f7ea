/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the readers of a fencing disk's sectors: the first byte says which, and whether the checksum is made right
 * first. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/byteorder.h"
#include "fencing/disk-format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A checksum is no wall: most inputs get a right one, so that what is behind it is reached. */
static void sum_make(uint8_t *sector, uint32_t size, uint64_t seed)
{
	put_be64(sector + size - 8, XXH3_64bits_withSeed(sector, size - 8, seed));
}

static void again(int same)
{
	if (!same)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t sector[DISK_SECTOR_MAX], out[DISK_SECTOR_MAX];
	struct disk_header h = {.sector_size = DISK_SECTOR_MIN};
	struct disk_beat b;
	struct disk_pill p;
	unsigned how;

	if (size == 0)
		return 0;
	how = *data++;
	size = size - 1 < sizeof(sector) ? size - 1 : sizeof(sector);
	memset(sector, 0, sizeof(sector));
	memcpy(sector, data, size);
	if (how & 8)
		h.sector_size = DISK_SECTOR_MAX;
	if (how & 4)
		sum_make(sector, h.sector_size, (how & 3) == 0 ? 0 : 1);
	/* What was accepted is written, read and written again: the bytes must stay. */
	switch (how & 3) {
	case 0:
		if (disk_header_decode(sector, h.sector_size, &h, NULL) != 1)
			break;
		disk_header_encode(&h, out);
		again(disk_header_decode(out, h.sector_size, &h, NULL) == 1);
		disk_header_encode(&h, sector);
		again(memcmp(sector, out, h.sector_size) == 0);
		break;
	case 1:
		if (disk_beat_decode(&h, 1, sector, &b, NULL) != 1)
			break;
		disk_beat_encode(&h, 1, &b, out);
		again(disk_beat_decode(&h, 1, out, &b, NULL) == 1);
		disk_beat_encode(&h, 1, &b, sector);
		again(memcmp(sector, out, h.sector_size) == 0);
		break;
	default:
		if (disk_pill_decode(&h, 1, sector, &p, NULL) != 1)
			break;
		disk_pill_encode(&h, 1, &p, out);
		again(disk_pill_decode(&h, 1, out, &p, NULL) == 1);
		disk_pill_encode(&h, 1, &p, sector);
		again(memcmp(sector, out, h.sector_size) == 0);
		break;
	}
	return 0;
}
