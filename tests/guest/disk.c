/* SPDX-License-Identifier: Apache-2.0 */
/* The test guest's disk: numbered records, ten a second, so that a second writer of the same disk is seen in the data.
 */

/*
 * Theory of operation
 *
 * The disk is an array of slots of 512 bytes, filled from the start on. A record is
 *
 *	byte 0		"GWDISK1\n"
 *	byte 8		run: which boot of this disk wrote it, counted from 1
 *	byte 16		boot: 16 random bytes of that boot
 *	byte 32		sequence: counted from 0 in each run
 *	byte 40		uptime of the guest in ns
 *	byte 48		foreign: how often this boot has met what it had not written
 *	byte 56		FNV-1a (64 bits) of the 56 bytes before it
 *
 * with little-endian numbers, and zeros up to the end. A boot reads to the first slot without a record; its run is that
 *of the last record + 1. A record is on the disk when its write has returned (O_DIRECT, O_SYNC), and only then counts
 *as acknowledged.
 *
 * Before each record the guest looks: the slot before must hold, byte for byte, what it held when the guest last knew
 *it (its own last record), and the slot to be written must be empty. So a guest sees another boot that writes, and a
 *copy of itself too, as that has another uptime. It says so, counts it in `foreign`, and goes on behind what it has
 *found: stopping would make the data look as if its run had ended in order. So whoever reads the disk afterwards
 *(tests/tools/disk-check) sees two runs that interleave. Two that write one slot at the same moment are seen by the one
 *whose record is lost, at its next.
 */

#include "tests/guest/guest.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define SLOT_BYTES 512U
#define SUMMED_BYTES 56U
#define SCAN_SLOTS 2048U
#define INTERVAL_NS (NS_PER_S / 10)
#define BOOT_BYTES 16U
#define SAID_MAX 10U /* a guest beside its double must not fill the console */

static const char magic[8] = "GWDISK1\n";

struct record {
	uint64_t run;
	unsigned char boot[BOOT_BYTES];
	uint64_t sequence;
	uint64_t uptime_ns;
	uint64_t foreign;
};

/* Owned by the writer's thread, but for what stands under the lock. */
static struct {
	int fd;
	unsigned char *io;              /* SCAN_SLOTS slots, aligned for O_DIRECT */
	unsigned char last[SLOT_BYTES]; /* what the slot before the next one holds */
	uint64_t slots;

	pthread_mutex_t lock;
	struct record next;
	uint64_t position; /* of the next record */
} disk = {.fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

/* FNV-1a, 64 bits. Pure. */
static uint64_t checksum(const unsigned char *p, size_t n)
{
	uint64_t sum = 0xcbf29ce484222325ULL;

	for (size_t i = 0; i < n; i++)
		sum = (sum ^ p[i]) * 0x100000001b3ULL;
	return sum;
}

static void put(unsigned char *slot, size_t at, uint64_t value)
{
	value = htole64(value);
	memcpy(slot + at, &value, sizeof(value));
}

static uint64_t get(const unsigned char *slot, size_t at)
{
	uint64_t value;

	memcpy(&value, slot + at, sizeof(value));
	return le64toh(value);
}

/* Fill @slot with @r. Pure. */
static void record_encode(const struct record *r, unsigned char *slot)
{
	memset(slot, 0, SLOT_BYTES);
	memcpy(slot, magic, sizeof(magic));
	put(slot, 8, r->run);
	memcpy(slot + 16, r->boot, BOOT_BYTES);
	put(slot, 32, r->sequence);
	put(slot, 40, r->uptime_ns);
	put(slot, 48, r->foreign);
	put(slot, SUMMED_BYTES, checksum(slot, SUMMED_BYTES));
}

/* The record in @slot, if there is one. Pure. */
static bool record_decode(const unsigned char *slot, struct record *r)
{
	if (memcmp(slot, magic, sizeof(magic)) != 0 || get(slot, SUMMED_BYTES) != checksum(slot, SUMMED_BYTES))
		return false;
	*r = (struct record){
		.run = get(slot, 8), .sequence = get(slot, 32), .uptime_ns = get(slot, 40), .foreign = get(slot, 48)};
	memcpy(r->boot, slot + 16, BOOT_BYTES);
	return true;
}

static bool slot_is_empty(const unsigned char *slot)
{
	for (size_t i = 0; i < SLOT_BYTES; i++) {
		if (slot[i] != 0)
			return false;
	}
	return true;
}

/* Read @n slots from @first on into disk.io. False with errno. */
static bool slots_read(uint64_t first, uint64_t n)
{
	size_t bytes = (size_t)n * SLOT_BYTES;
	ssize_t got = pread(disk.fd, disk.io, bytes, (off_t)(first * SLOT_BYTES));

	if (got >= 0 && (size_t)got != bytes)
		errno = EIO;
	return got >= 0 && (size_t)got == bytes;
}

/* Go from disk.position on to the first slot for which @stop holds; disk.last becomes what stands before it. The run
 * after the newest one that was passed is put into @run. False with errno. */
static bool seek(bool (*stop)(const unsigned char *slot, struct record *r), uint64_t *run)
{
	struct record r;

	while (disk.position < disk.slots) {
		uint64_t left = disk.slots - disk.position;
		uint64_t n = left < SCAN_SLOTS ? left : SCAN_SLOTS;

		if (!slots_read(disk.position, n))
			return false;
		for (uint64_t i = 0; i < n; i++) {
			const unsigned char *slot = disk.io + i * SLOT_BYTES;

			if (stop(slot, &r))
				return true;
			if (run)
				*run = r.run + 1;
			memcpy(disk.last, slot, SLOT_BYTES);
			disk.position++;
		}
	}
	return true;
}

static bool no_record(const unsigned char *slot, struct record *r)
{
	return !record_decode(slot, r);
}

static bool is_empty(const unsigned char *slot, struct record *r)
{
	(void)r;
	return slot_is_empty(slot);
}

/* What stands in a slot, said in words. */
static void say_foreign(uint64_t position, const unsigned char *slot)
{
	struct record r;

	if (record_decode(slot, &r))
		say("disk BAD position=%llu holds run=%llu sequence=%llu of %s", (unsigned long long)position,
		    (unsigned long long)r.run, (unsigned long long)r.sequence,
		    memcmp(r.boot, disk.next.boot, BOOT_BYTES) == 0 ? "a copy of this guest" : "another boot");
	else
		say("disk BAD position=%llu holds %s", (unsigned long long)position,
		    slot_is_empty(slot) ? "nothing any more" : "no record");
}

/* Look whether the disk is as this boot knows it. If not: say so, count it, go on behind what is there. False with
 * errno. */
static bool look(void)
{
	uint64_t before = disk.position > 0 ? 1 : 0;
	const unsigned char *slot;
	bool kept;

	if (!slots_read(disk.position - before, before + 1))
		return false;
	slot = disk.io + (size_t)before * SLOT_BYTES;
	kept = !before || memcmp(disk.io, disk.last, SLOT_BYTES) == 0;
	if (kept && slot_is_empty(slot))
		return true;
	if (disk.next.foreign++ < SAID_MAX)
		say_foreign(kept ? disk.position : disk.position - 1, kept ? slot : disk.io);
	memcpy(disk.last, disk.io, SLOT_BYTES);
	return seek(is_empty, NULL);
}

/* Write the next record. False with errno. */
static bool append(void)
{
	struct timespec up;

	clock_gettime(CLOCK_BOOTTIME, &up);
	disk.next.uptime_ns = (uint64_t)(up.tv_sec * NS_PER_S + up.tv_nsec);
	record_encode(&disk.next, disk.last);
	memcpy(disk.io, disk.last, SLOT_BYTES);
	ssize_t put_bytes = pwrite(disk.fd, disk.io, SLOT_BYTES, (off_t)(disk.position * SLOT_BYTES));
	if (put_bytes != (ssize_t)SLOT_BYTES) {
		errno = put_bytes < 0 ? errno : EIO;
		return false;
	}
	disk.next.sequence++;
	disk.position++;
	return true;
}

/* Thread: one record per 100 ms, until the disk is full or fails. */
static void *writer(void *arg)
{
	bool good = true;

	(void)arg;
	for (int64_t next = now_ns(); good; next += INTERVAL_NS) {
		int64_t now = now_ns();

		next = now > next + INTERVAL_NS ? now : next; /* a vCPU that stood still does not catch up */
		sleep_until(next);
		pthread_mutex_lock(&disk.lock);
		good = disk.position < disk.slots && look() && disk.position < disk.slots && append();
		if (!good)
			say("disk: no more records: %s", disk.position < disk.slots ? strerror(errno) : "it is full");
		pthread_mutex_unlock(&disk.lock);
	}
	return NULL;
}

void disk_command(void)
{
	char boot[2 * BOOT_BYTES + 1] = "";

	pthread_mutex_lock(&disk.lock);
	for (size_t i = 0; i < BOOT_BYTES; i++) {
		boot[2 * i] = "0123456789abcdef"[disk.next.boot[i] >> 4];
		boot[2 * i + 1] = "0123456789abcdef"[disk.next.boot[i] & 15];
	}
	say("disk run=%llu boot=%s records=%llu position=%llu foreign=%llu", (unsigned long long)disk.next.run, boot,
	    (unsigned long long)disk.next.sequence, (unsigned long long)disk.position,
	    (unsigned long long)disk.next.foreign);
	pthread_mutex_unlock(&disk.lock);
}

void disk_start(void)
{
	int64_t give_up = now_ns() + 5 * NS_PER_S;
	off_t bytes;

	disk.next.run = 1;
	while ((disk.fd = open("/dev/vda", O_RDWR | O_DIRECT | O_SYNC | O_CLOEXEC)) < 0 && now_ns() < give_up)
		sleep_until(now_ns() + NS_PER_S / 100);
	bytes = disk.fd < 0 ? -1 : lseek(disk.fd, 0, SEEK_END);
	disk.io = aligned_alloc(4096, (size_t)SCAN_SLOTS * SLOT_BYTES);
	if (bytes < 0 || !disk.io || getrandom(disk.next.boot, BOOT_BYTES, 0) != (ssize_t)BOOT_BYTES) {
		say("guest: no disk: %s", strerror(errno));
		return;
	}
	disk.slots = (uint64_t)bytes / SLOT_BYTES;
	if (!seek(no_record, &disk.next.run)) {
		say("guest: cannot read the disk: %s", strerror(errno));
		return;
	}
	disk_command();
	thread_start(writer, NULL);
}
