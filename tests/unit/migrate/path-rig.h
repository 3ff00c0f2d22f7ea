/* SPDX-License-Identifier: Apache-2.0 */
/* Both data paths in one process: a QEMU stream in the making, what a stream says about memory, and the rig: fake QEMU,
 * source, channels, destination, fake QEMU. */
#ifndef GODWIT_TESTS_UNIT_MIGRATE_PATH_RIG_H
#define GODWIT_TESTS_UNIT_MIGRATE_PATH_RIG_H

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/byteorder.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/tls.h"
#include "hv/stream.h"
#include "migrate/dest.h"
#include "migrate/source.h"
#include "tests/unit/base/certs.h"

#define PATIENCE (20 * NS_PER_S)
#define STREAM_MAX (32U << 20)
#define RAM "ram0"
#define ROM "pc.bios"
#define RAM_PAGES 8192U /* 32 MiB: sixteen regions */
#define ROM_PAGES 16U
#define DEVICE_STATE "\4device state of a guest, opaque to the engine, up to its end"

/* A QEMU stream in the making, or what came out: at most STREAM_MAX bytes. */
struct bytes {
	uint8_t *at;
	size_t n;
};

void bytes_init(struct bytes *b);
void bytes_done(struct bytes *b);
void bytes_put(struct bytes *b, const void *data, size_t n);
/* What a page holds: it says where it belongs and which version it is. */
void page_fill(uint8_t *out, uint64_t page, unsigned version);
/* The record of a page. */
void put_page(struct bytes *b, const char *block, uint64_t page, unsigned version);
void put_zero(struct bytes *b, const char *block, uint64_t page);
/* Header, and RAM's START section with two blocks. */
void put_setup(struct bytes *b);
/* The head of a section of RAM of @kind, and what ends its records; the device state that ends the stream. */
void put_section(struct bytes *b, uint8_t kind);
void put_section_end(struct bytes *b);
void put_end(struct bytes *b);
#define _bytes_ __attribute__((cleanup(bytes_done))) struct bytes

#define BLOCKS 16

/* The newest bytes of every page of a stream; one zero byte stands for a zero page. */
struct image {
	size_t n_blocks;
	struct stream_block blocks[BLOCKS];
	uint8_t *mem[BLOCKS];
	uint8_t *named[BLOCKS]; /* per page: 1 the stream has it */
	struct bytes device;
	unsigned pages, zeros;
};

void image_done(struct image *m);
/* Read a whole stream; everything behind RAM's end is device state. */
void image_read(struct image *m, const struct bytes *b);
#define _image_ __attribute__((cleanup(image_done))) struct image

/* Which sides have the guest's memory mapped, and the channels between them. */
struct rig_options {
	bool src_mapped, dst_mapped, tls;
	unsigned channels;
};

struct rig {
	struct rig_options o;
	int src_qemu[2], dst_qemu[2]; /* ours, the engine's */
	int pairs[WIRE_CHANNELS_MAX][2];
	struct conn src_conns[WIRE_CHANNELS_MAX], dst_conns[WIRE_CHANNELS_MAX];
	struct mappings src_maps, dst_maps;
	int src_wake, dst_wake;
	struct source *source;
	struct dest *dest;
	pthread_t reader;
	pthread_mutex_t lock;
	struct bytes out; /* what the destination's QEMU was given; under lock */
};

/* The deadline of whatever begins now. */
int64_t rig_patience(void);

/* How much the destination's QEMU has been given. */
size_t rig_out_size(struct rig *r);
/* Everything but the source: the destination stands and waits for frames. */
void rig_init(struct rig *r, struct rig_options o, const char *ram, uint64_t size);

/* Start the source. End and free everything. */
void rig_source(struct rig *r);
void rig_done(struct rig *r);

/* QEMU at the source writes @n bytes of its stream. */
void rig_feed(struct rig *r, const struct bytes *b, size_t from, size_t n);
/* Wait until the destination's QEMU has the @device state that ends the stream. */
void rig_wait(struct rig *r, const struct bytes *device);
/* The guest's memory at the source as it is in the end, for what is read late. */
void rig_src_memory(struct rig *r, const struct image *want);
/* Every page of @want is in the destination: placed in memory, or in its QEMU's stream. */
void rig_check_arrived(struct rig *r, const struct image *want);

/* Set-up and tear-down of a group of tests that uses TLS. */
int rig_certs_make(void **state);
int rig_certs_remove(void **state);

#endif
