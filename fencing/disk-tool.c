/* SPDX-License-Identifier: Apache-2.0 */
/* Making a fencing disk, and showing what is on one. */
#include "fencing/disk-tool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "base/hex.h"
#include "base/mem.h"
#include "fencing/disk-io.h"

#define HEAD_MIN (1024 * 1024) /* where all known file systems have said who they are */
#define TAIL (128 * 1024)      /* a copy of the partition table, RAID superblocks */

/* ---- what is on a disk already ---- */

/* Signs of what people put on disks: bytes at an offset. Only for the message; anything that is not zero is refused. */
struct sign {
	size_t at;
	const char *bytes;
	size_t n;
	const char *what;
};

static const struct sign signs[] = {
	{512, "EFI PART", 8, "a GPT partition table"},
	{4096, "EFI PART", 8, "a GPT partition table"},
	{0x438, "\x53\xef", 2, "an ext file system"},
	{0, "XFSB", 4, "an XFS file system"},
	{0x10040, "_BHRfS_M", 8, "a btrfs file system"},
	{512, "LABELONE", 8, "an LVM physical volume"},
	{0, "LUKS\xba\xbe", 6, "a LUKS encrypted volume"},
	{4086, "SWAPSPACE2", 10, "swap space"},
	{4096, "\xfc\x4e\x2b\xa9", 4, "a member of a Linux RAID"},
	{0, "QFI\xfb", 4, "a qcow2 image"},
	{0, "SBD_SBD_", 8, "a disk of SBD"},
	{510, "\x55\xaa", 2, "a partition table, or a boot sector"}, /* last: others have it, too */
};

static const char *content_name(const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < ARRAY_SIZE(signs); i++)
		if (signs[i].at + signs[i].n <= size && memcmp(data + signs[i].at, signs[i].bytes, signs[i].n) == 0)
			return signs[i].what;
	return "data";
}

static bool all_zero(const uint8_t *data, size_t size)
{
	return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

/* Refuse foreign content at the beginning or at the end. */
static int content_refuse(const struct disk_io *io, uint64_t need, struct err *e)
{
	uint64_t align = DISK_SECTOR_MAX, head = need > HEAD_MIN ? need : HEAD_MIN, tail;
	_free_ uint8_t *data = NULL;

	head = head < io->size ? head : io->size / io->logical_size * io->logical_size;
	data = disk_io_buffer(head > TAIL ? head : TAIL);
	if (disk_io_read(io, 0, data, head, e) < 0)
		return -1;
	if (!all_zero(data, head))
		return err_set(
			e, ERR_CONFLICT,
			"%s is not empty: there is %s on it. Is it the right disk? With --force it is overwritten",
			io->path, content_name(data, head));
	if (io->size < head + TAIL)
		return 0;
	tail = (io->size - TAIL) / align * align;
	if (disk_io_read(io, tail, data, TAIL, e) < 0)
		return -1;
	if (!all_zero(data, TAIL))
		return err_set(
			e, ERR_CONFLICT,
			"%s is not empty: there is data at its end (a copy of a partition table, a RAID?). Is it "
			"the right disk? With --force it is overwritten",
			io->path);
	return 0;
}

/* ---- is somebody beating on it ---- */

/* All sectors of a disk with a good header; caller frees. NULL with @e. */
static uint8_t *sectors_read(const struct disk_io *io, uint32_t n, struct err *e)
{
	size_t size = (size_t)n * io->header.sector_size;
	uint8_t *data = disk_io_buffer(size);

	if (disk_io_read(io, 0, data, size, e) == 0)
		return data;
	free(data);
	return NULL;
}

static void wait_ms(uint32_t ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * NS_PER_MS};

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

/* A host that lives has beaten four times in 2 T. */
static int beats_refuse(const struct disk_io *io, struct err *e)
{
	const struct disk_header *h = &io->header;
	_free_ uint8_t *before = sectors_read(io, 1 + DISK_SLOTS, e), *after = NULL;

	if (!before)
		return -1;
	wait_ms(2 * h->token_ms);
	after = sectors_read(io, 1 + DISK_SLOTS, e);
	if (!after)
		return -1;
	for (unsigned i = 0; i < DISK_SLOTS; i++) {
		uint32_t sector = disk_beat_sector(i);
		size_t at = (size_t)sector * h->sector_size;
		struct disk_beat b;

		if (memcmp(before + at, after + at, h->sector_size) != 0 &&
		    disk_beat_decode(h, sector, after + at, &b, NULL) == 1)
			return err_set(e, ERR_CONFLICT,
				       "%s is in use: the host %s of the cluster %s beats on it. Take it out of that "
				       "cluster's settings first",
				       io->path, b.name, h->cluster);
	}
	return 0;
}

/* ---- format ---- */

static int format_check(const struct disk_format *f, struct disk_io *io, uint32_t sector_size, struct err *e)
{
	struct err found = ERR_INIT;
	uint64_t need = (uint64_t)DISK_SECTORS * sector_size;

	if (sector_size != DISK_SECTOR_MIN && sector_size != DISK_SECTOR_MAX)
		return err_set(e, ERR_INPUT, "sectors are of %u or %u bytes, not of %u", DISK_SECTOR_MIN,
			       DISK_SECTOR_MAX, sector_size);
	if (sector_size < io->logical_size)
		return err_set(e, ERR_INPUT, "%s writes %u bytes at once: sectors cannot be smaller than that", f->path,
			       io->logical_size);
	if (io->size < need)
		return err_set(e, ERR_INPUT,
			       "%s has %" PRIu64 " bytes, a fencing disk needs %" PRIu64
			       ": make it larger (8 MiB is enough for any)",
			       f->path, io->size, need);
	if (disk_io_header(io, &found) == 0) {
		if (beats_refuse(io, e) < 0)
			return -1;
		if (f->force || strcmp(io->header.cluster, f->cluster) == 0)
			return 0;
		return err_set(
			e, ERR_CONFLICT,
			"%s is the fencing disk of another cluster, %s. Is it the right disk? With --force it is "
			"overwritten",
			f->path, io->header.cluster);
	}
	if (found.code == ERR_SYSTEM) {
		*e = found;
		return -1;
	}
	return f->force ? 0 : content_refuse(io, need, e);
}

/* The header goes last, and the old one first: a disk that was formatted half is none. */
static int format_write(const struct disk_io *io, const struct disk_header *h, struct err *e)
{
	size_t size = (size_t)DISK_SECTORS * h->sector_size;
	_free_ uint8_t *data = disk_io_buffer(size);

	if (disk_io_write(io, 0, data, h->sector_size, e) < 0 ||
	    disk_io_write(io, h->sector_size, data, size - h->sector_size, e) < 0)
		return -1;
	disk_header_encode(h, data);
	return disk_io_write(io, 0, data, h->sector_size, e);
}

static bool text_plain(const char *s)
{
	size_t n = strnlen(s, DISK_TEXT);

	for (size_t i = 0; i < n; i++)
		if (s[i] < 0x20 || s[i] > 0x7e)
			return false;
	return n > 0 && n < DISK_TEXT;
}

static int format_open(const struct disk_format *f, struct disk_io *io, struct disk_header *ret, struct err *e)
{
	struct disk_header h = {.sector_size = f->sector_size, .token_ms = f->token_ms, .made_ms = clock_wall_ms()};

	if (h.sector_size == 0)
		h.sector_size = io->block ? io->logical_size : DISK_SECTOR_MAX;
	memcpy(h.cluster, f->cluster, strlen(f->cluster));
	if (getrandom(h.id, sizeof(h.id), 0) != sizeof(h.id))
		return err_sys(e, "making an id for the fencing disk");
	if (format_check(f, io, h.sector_size, e) < 0 || format_write(io, &h, e) < 0)
		return -1;
	*ret = h;
	return 0;
}

int disk_format(const struct disk_format *f, struct disk_header *ret, struct err *e)
{
	struct disk_io io = DISK_IO_INIT;
	int r;

	if (!text_plain(f->cluster))
		return err_set(e, ERR_INPUT, "the cluster's name must have 1 to %d plain characters", DISK_TEXT - 1);
	if (f->token_ms == 0)
		return err_set(e, ERR_INPUT, "the token time-out must be more than 0 ms");
	/* O_EXCL of a block device: the kernel refuses one that is mounted or part of another device. */
	if (disk_io_open(&io, &disk_sys_real, f->path, O_RDWR | O_EXCL, e) < 0)
		return -1;
	r = format_open(f, &io, ret, e);
	disk_io_close(&io);
	return r;
}

/* ---- list ---- */

static json_t *json_hex(uint64_t v)
{
	char text[17];

	snprintf(text, sizeof(text), "%016" PRIx64, v);
	return json_string(text);
}

static json_t *json_id(const uint8_t id[16])
{
	char text[33];

	hex_text(id, 16, text);
	return json_sprintf("%.8s-%.4s-%.4s-%.4s-%s", text, text + 8, text + 12, text + 16, text + 20);
}

static json_t *json_beat(unsigned slot, const struct disk_beat *b)
{
	static const char *const states[] = {NULL, "up", "dying", "dead"};
	json_t *acks = json_array();

	for (unsigned i = 0; i < DISK_SLOTS; i++)
		if (b->acks[i])
			json_array_append_new(
				acks, json_pack("{s:i,s:o}", "from-slot", (int)i, "request", json_hex(b->acks[i])));
	return json_pack("{s:i,s:I,s:s,s:o,s:o,s:I,s:I,s:s,s:o}", "slot", (int)slot, "node", (json_int_t)b->node,
			 "name", b->name, "boot", json_id(b->life.boot), "incarnation", json_hex(b->life.incarnation),
			 "sequence", (json_int_t)(b->sequence & INT64_MAX), "wall-ms", (json_int_t)b->wall_ms, "state",
			 states[b->state], "acks", acks);
}

static json_t *json_pill(const struct disk_pill *p)
{
	return json_pack("{s:I,s:s,s:I,s:o,s:o,s:o,s:I}", "from", (json_int_t)p->from, "from-name", p->name, "to",
			 (json_int_t)p->to, "boot", json_id(p->life.boot), "incarnation", json_hex(p->life.incarnation),
			 "request", json_hex(p->request), "wall-ms", (json_int_t)p->wall_ms);
}

/* Every sector that says something, or cannot be read. */
static void list_sectors(const struct disk_header *h, const uint8_t *data, json_t *hosts, json_t *pills, json_t *bad)
{
	for (uint32_t sector = 1; sector < DISK_SECTORS; sector++) {
		const uint8_t *at = data + (size_t)sector * h->sector_size;
		struct disk_beat b;
		struct disk_pill p;
		bool beat = sector <= DISK_SLOTS;
		int r = beat ? disk_beat_decode(h, sector, at, &b, NULL) : disk_pill_decode(h, sector, at, &p, NULL);

		if (r < 0)
			json_array_append_new(bad, json_integer(sector));
		else if (r > 0 && beat)
			json_array_append_new(hosts, json_beat(sector - 1, &b));
		else if (r > 0)
			json_array_append_new(pills, json_pill(&p));
	}
}

json_t *disk_list(const char *path, struct err *e)
{
	struct disk_io io = DISK_IO_INIT;
	const struct disk_header *h = &io.header;
	_free_ uint8_t *data = NULL;
	json_t *hosts, *pills, *bad;

	if (disk_io_open(&io, &disk_sys_real, path, O_RDONLY, e) < 0)
		return NULL;
	if (disk_io_header(&io, e) == 0)
		data = sectors_read(&io, DISK_SECTORS, e);
	disk_io_close(&io);
	if (!data)
		return NULL;
	hosts = json_array();
	pills = json_array();
	bad = json_array();
	list_sectors(h, data, hosts, pills, bad);
	return json_pack("{s:s,s:i,s:I,s:i,s:I,s:o,s:s,s:I,s:o,s:o,s:o}", "path", path, "version", DISK_VERSION,
			 "sector-size", (json_int_t)h->sector_size, "slots", (int)DISK_SLOTS, "token-ms",
			 (json_int_t)h->token_ms, "id", json_id(h->id), "cluster", h->cluster, "made-ms",
			 (json_int_t)h->made_ms, "hosts", hosts, "pills", pills, "unreadable", bad);
}
