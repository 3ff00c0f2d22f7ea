/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's migration stream: an incremental parser up to the end of RAM and the re-encoder of what travels on. */
#ifndef GODWIT_HV_STREAM_H
#define GODWIT_HV_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define STREAM_PAGE_SIZE 4096U
#define STREAM_BLOCK_NAME_MAX 256
#define STREAM_BLOCKS_MAX 256 /* RAM blocks of one guest that we accept */

/* One RAM block as the MEM_SIZE list names it. The RAM of `-object memory-backend-*,id=X` is "X", or "/objects/X" with
 * machine types before 4.0. */
struct stream_block {
	char name[STREAM_BLOCK_NAME_MAX];
	uint64_t used_length; /* bytes, a multiple of the page size */
};

enum stream_item_type {
	STREAM_ITEM_NONE,    /* more input is needed */
	STREAM_ITEM_PAGE,    /* block, page, data: STREAM_PAGE_SIZE bytes, borrowed until the next call */
	STREAM_ITEM_ZERO,    /* block, page: the page is all zero */
	STREAM_ITEM_BLOCKS,  /* (no bytes) the MEM_SIZE list was the item before: stream_parser_blocks() is valid */
	STREAM_ITEM_SECTION, /* raw bytes that travel unchanged: header, configuration, section START/PART/END headers,
				footers, the MEM_SIZE and EOS records, commands */
	STREAM_ITEM_COMMAND, /* a COMMAND: its number in command, the whole of it in data (payload at data + 5) */
	STREAM_ITEM_PASS,    /* (no bytes) a ram section of kind PART or END begins: section_type says which. Its header
				is the next item, a SECTION */
	STREAM_ITEM_RAM_END, /* (no bytes) the ram END section's footer is behind us: everything after is opaque device
				state, to be forwarded unparsed */
};

struct stream_item {
	enum stream_item_type type;
	uint16_t block; /* index into the block list */
	uint64_t page;  /* page number in the block (byte offset / 4096) */
	const uint8_t *data;
	size_t size;          /* bytes at data */
	uint16_t command;     /* STREAM_ITEM_COMMAND */
	uint8_t section_type; /* STREAM_ITEM_PASS: 0x02 or 0x03 */
};

struct stream_parser;

/* What the parser must know from QMP because the stream does not announce it (qemu migration/ram.c, ram_save_setup). */
struct stream_options {
	bool postcopy_ram;    /* MEM_SIZE carries page sizes of blocks whose page size differs from the host's */
	bool ignore_shared;   /* MEM_SIZE carries an address per block */
	bool section_footers; /* -global migration.send-section-footer, on unless told */
};

struct stream_parser *stream_parser_new(const struct stream_options *opt);
void stream_parser_free(struct stream_parser *p);

/* Give the parser input. It reads items straight out of @buf: parse with stream_parser_next() until ITEM_NONE, then
 * *ret_consumed says how many bytes of @buf were used; the caller keeps the rest and offers it again with more behind
 * it. No byte is copied. @buf stays untouched by others between feed and the last next(). A refusal (-1) is final:
 * every later next() says the same. After RAM_END next() says ITEM_NONE and consumes nothing. Thread: one per parser.
 */
void stream_parser_feed(struct stream_parser *p, const uint8_t *buf, size_t n);
int stream_parser_next(struct stream_parser *p, struct stream_item *ret, struct err *e);
size_t stream_parser_consumed(const struct stream_parser *p);

/* The list of the MEM_SIZE record; borrowed, valid from STREAM_ITEM_BLOCKS on. */
const struct stream_block *stream_parser_blocks(const struct stream_parser *p, size_t *ret_n);

/* True once RAM_END was returned: what follows is device state. */
bool stream_parser_ram_ended(const struct stream_parser *p);

/* The smallest input after which the parser always makes progress: the largest single record. */
#define STREAM_RECORD_MAX (128U << 10)

/* Re-encoder: RAM records for the destination's stream. Keeps the CONTINUE state of *its own* output, so that records
 * may be left out of the stream (they were placed directly) without the rest losing its block name (qemu-stream trap
 * 5). */
struct stream_encoder {
	const struct stream_block *blocks; /* borrowed */
	size_t n_blocks;
	int last_block; /* -1: the next record names its block */
};

void stream_encoder_init(struct stream_encoder *enc, const struct stream_block *blocks, size_t n_blocks);

/* Write the record header for a page (be64, and the block name unless CONTINUE) into @out; returns its length.
 * @out has room for STREAM_PAGE_HEADER_MAX. The 4096 bytes of the page follow, or for @zero the one byte 0 that this
 * writes too. */
#define STREAM_PAGE_HEADER_MAX (8 + 1 + STREAM_BLOCK_NAME_MAX + 1)
size_t stream_encode_page(struct stream_encoder *enc, uint16_t block, uint64_t page, bool zero, uint8_t *out);

#endif
