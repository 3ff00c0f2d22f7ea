/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a fencing disk (docs/fencing-disk.md), version 1: where each sector is, and what is in it. Pure. */
#ifndef GODWIT_FENCING_DISK_FORMAT_H
#define GODWIT_FENCING_DISK_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define DISK_VERSION 1
#define DISK_SLOTS 32U /* hosts that a cluster may have */
#define DISK_TEXT 64   /* bytes of a name on the disk, its NUL included */
#define DISK_SECTOR_MIN 512U
#define DISK_SECTOR_MAX 4096U

/* Sector 0: written by the tool that formats the disk, and by nobody else. */
struct disk_header {
	uint32_t sector_size; /* 512 or 4096 */
	uint32_t token_ms;    /* the one number that every time-out comes from */
	uint8_t id[16];       /* of this disk, random */
	char cluster[DISK_TEXT];
	int64_t made_ms; /* wall time, for people */
};

enum disk_state {
	DISK_STATE_UP = 1, /* may have guests */
	DISK_STATE_DYING,  /* has read a pill, is killing its guests */
	DISK_STATE_DEAD,   /* they are dead, and this incarnation will start none */
};

/* What a host is in one life: guests of a host end with its boot, and it gets a new incarnation with each start of its
 * daemon and each return into the cluster. */
struct disk_life {
	uint8_t boot[16];
	uint64_t incarnation;
};

/* A slot: written by the host that has it, and by nobody else. */
struct disk_beat {
	uint32_t node;
	struct disk_life life;
	uint64_t sequence; /* one more with each beat */
	int64_t wall_ms;   /* for people */
	enum disk_state state;
	char name[DISK_TEXT];
	/* By the slot of the host that told it: the request for which this host, in this life, says: my guests are
	 * dead. 0: none */
	uint64_t acks[DISK_SLOTS];
};

/* A message: written by the host that sends it, and by nobody else. */
struct disk_pill {
	uint32_t from, to;     /* nodes */
	struct disk_life life; /* of the receiver: who is told to die */
	uint64_t request;      /* random, never 0; a pill that is withdrawn is overwritten with zeros */
	int64_t wall_ms;       /* for people */
	char name[DISK_TEXT];  /* of the sender */
};

/* Sectors. The slots are side by side, and so are the messages for one host: one read each. */
#define DISK_SECTORS (1 + DISK_SLOTS + DISK_SLOTS * DISK_SLOTS)

static inline uint32_t disk_beat_sector(unsigned slot)
{
	return 1 + slot;
}

static inline uint32_t disk_pill_sector(unsigned to_slot, unsigned from_slot)
{
	return 1 + DISK_SLOTS + to_slot * DISK_SLOTS + from_slot;
}

bool disk_life_equal(const struct disk_life *a, const struct disk_life *b);

/* One sector, of @h->sector_size bytes at @ret. */
void disk_header_encode(const struct disk_header *h, uint8_t *ret);
void disk_beat_encode(const struct disk_header *h, uint32_t sector, const struct disk_beat *b, uint8_t *ret);
void disk_pill_encode(const struct disk_header *h, uint32_t sector, const struct disk_pill *p, uint8_t *ret);

/* The header in the first @size bytes of a disk (at least DISK_SECTOR_MIN). 1; 0: no fencing disk; -1 with @e
 * (ERR_PROTOCOL: damaged; ERR_UNSUPPORTED: another version): it is one, but cannot be used. */
int disk_header_decode(const uint8_t *data, size_t size, struct disk_header *ret, struct err *e);

/* A sector of h->sector_size bytes. 1; 0: nobody has written it since the disk was formatted; -1 with @e
 * (ERR_PROTOCOL): torn, of another disk, of another place, or damaged. */
int disk_beat_decode(const struct disk_header *h, uint32_t sector, const uint8_t *data, struct disk_beat *ret,
		     struct err *e);
int disk_pill_decode(const struct disk_header *h, uint32_t sector, const uint8_t *data, struct disk_pill *ret,
		     struct err *e);

#endif
