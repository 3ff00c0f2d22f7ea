/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's migration stream: the incremental parser up to the end of RAM, and the encoder of RAM records. */
/*
 * Theory of operation
 * -------------------
 * What QEMU 7.2 to 10.x writes, in its migration/savevm.c and migration/ram.c, all fields big-endian:
 *
 *   "QEVM" version 3, [CONFIGURATION with its subsections], [COMMANDs],
 *   START of ram (the MEM_SIZE list), PART of ram ..., [COMMANDs between any two], END of ram,
 *   and then device state: FULL sections, EOF, VMDESCRIPTION.
 *
 * FULL sections carry no length, so nobody who does not know the device can step over one. The parser therefore ends
 * where the END section of ram ends and leaves everything behind it to be forwarded as it is. For the same reason an
 * iterable section other than ram, or a device that saves itself before ram, cannot be passed by and is refused with
 * its name, while the guest still runs.
 *
 * A ram section is a list of records. Each begins with a be64 whose low 12 bits are flags and whose other bits are the
 * byte offset in a RAM block; the block is named by a string, or is that of the record before (CONTINUE, which holds
 * across sections). One EOS record ends each section's list; then comes the footer, unless switched off.
 *
 * MEM_SIZE lists the blocks and has two optional fields per block that nothing announces: the page size (only with
 * postcopy-ram, and only for blocks whose page size is not the host's) and the address (with x-ignore-shared). Whether
 * the page size is there shows in what follows: block ids are never empty, so a byte 0 where an id's length would be is
 * the top of a page size; and behind the last block a record follows, whose flags are never all clear.
 *
 * The parser works on the caller's buffer. A state says what must come next; a step either uses up one whole record and
 * returns an item, or finds the record incomplete and changes nothing, or refuses. So it does not matter how the bytes
 * are cut into feeds. Once it refused, it goes on refusing with the same sentence.
 *
 * Nearly all bytes are page records with CONTINUE: stream_parser_next() handles those, and zero pages likewise, in a
 * few instructions before it looks at anything else. The number of pages of the current block is kept beside the state
 * (0 while there is none), so that one comparison there rejects a page outside of its block and a CONTINUE without a
 * block at once; the slow path then finds the reason.
 */
#include "hv/stream.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/byteorder.h"
#include "base/mem.h"

#define STREAM_MAGIC 0x5145564dU /* "QEVM" */
#define STREAM_VERSION 3U
#define RAM_VERSION 4U
#define PAGE_BITS 12
#define NAME_MAX_LEN (STREAM_BLOCK_NAME_MAX - 1)
#define CAPABILITIES_MAX 256U

static_assert(1U << PAGE_BITS == STREAM_PAGE_SIZE, "a record's flags are the bits below the page size");
static_assert(8 + STREAM_BLOCKS_MAX * (1 + NAME_MAX_LEN + 8 + 8 + 8) + 8 <= STREAM_RECORD_MAX,
	      "the longest MEM_SIZE list fits");

enum section_type {
	SECTION_EOF = 0x00,
	SECTION_START = 0x01,
	SECTION_PART = 0x02,
	SECTION_END = 0x03,
	SECTION_FULL = 0x04,
	SECTION_SUBSECTION = 0x05,
	SECTION_CONFIGURATION = 0x07,
	SECTION_COMMAND = 0x08,
	SECTION_FOOTER = 0x7e,
};

enum ram_flag {
	RAM_FULL = 0x01,
	RAM_ZERO = 0x02,
	RAM_MEM_SIZE = 0x04,
	RAM_PAGE = 0x08,
	RAM_EOS = 0x10,
	RAM_CONTINUE = 0x20,
	RAM_XBZRLE = 0x40,
	RAM_HOOK = 0x80,
	RAM_COMPRESS_PAGE = 0x100,
	RAM_MULTIFD_FLUSH = 0x200,
};

enum state {
	STATE_HEADER,  /* magic and version */
	STATE_SECTION, /* a section's first byte */
	STATE_RECORDS, /* inside a ram section */
	STATE_BLOCKS,  /* the MEM_SIZE record was returned, ITEM_BLOCKS was not yet */
	STATE_FOOTER,  /* behind a ram section's EOS */
	STATE_RAM_END, /* behind the END section, ITEM_RAM_END was not yet returned */
	STATE_ENDED,   /* device state, not ours */
	STATE_REFUSED,
};

struct stream_parser {
	/* The hot part. */
	const uint8_t *at;
	const uint8_t *end;
	enum state state;
	uint16_t last_block;
	uint64_t last_pages; /* pages of last_block; 0 until a record named one */

	const uint8_t *begin;
	uint64_t base; /* stream offset of begin */
	struct stream_options opt;
	uint8_t section;        /* type of the ram section that we are in */
	uint32_t section_id;    /* of ram, valid once started */
	bool started;           /* ram START was seen */
	bool pass_returned;     /* ITEM_PASS of the section header in front of us */
	bool subsections;       /* a configuration subsection may come next */
	uint64_t seen_sections; /* sections and commands so far: CONFIGURATION comes first or not at all */
	struct stream_block *blocks;
	size_t n_blocks;
	struct err refusal;
};

/* A position in the input while a record is being read. */
struct cursor {
	const uint8_t *at;
	const uint8_t *end;
};

/* What a step did. */
enum { STEP_REFUSED = -1, STEP_SHORT = 0, STEP_ITEM = 1 };

/* A name from the stream, made harmless for a message. */
struct shown_name {
	char text[STREAM_BLOCK_NAME_MAX];
};

static struct shown_name show_name(const uint8_t *name, size_t len)
{
	struct shown_name s = {""};

	assert(len <= NAME_MAX_LEN);
	for (size_t i = 0; i < len; i++)
		s.text[i] = name[i] >= 0x20 && name[i] < 0x7f ? (char)name[i] : '?';
	return s;
}

/* Keep the sentence, with where in the stream it was found. Returns STEP_REFUSED. */
__attribute__((format(printf, 3, 4))) static int refuse(struct stream_parser *p, enum err_code code, const char *fmt,
							...)
{
	char text[ERR_TEXT_MAX - 80];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_set(&p->refusal, code, "QEMU's migration stream at byte %" PRIu64 ": %s",
		p->base + (uint64_t)(p->at - p->begin), text);
	p->state = STATE_REFUSED;
	return STEP_REFUSED;
}

static struct cursor cursor_at(const struct stream_parser *p)
{
	return (struct cursor){.at = p->at, .end = p->end};
}

/* Step over @n bytes, NULL when they are not all there yet. */
static const uint8_t *take(struct cursor *c, size_t n)
{
	const uint8_t *at = c->at;

	if ((size_t)(c->end - at) < n)
		return NULL;
	c->at += n;
	return at;
}

/* Step over a name: u8 length, bytes. NULL when it is not all there yet. */
static const uint8_t *take_name(struct cursor *c, size_t *ret_len)
{
	const uint8_t *len = take(c, 1);
	const uint8_t *name = len ? take(c, *len) : NULL;

	if (name)
		*ret_len = *len;
	return name;
}

/* Return the bytes up to @to as an item of @type and go on behind them. */
static int emit(struct stream_parser *p, struct stream_item *ret, enum stream_item_type type, const uint8_t *to)
{
	*ret = (struct stream_item){.type = type, .data = p->at, .size = (size_t)(to - p->at)};
	p->at = to;
	return STEP_ITEM;
}

static bool name_is(const uint8_t *name, size_t len, const char *s)
{
	return len == strlen(s) && memcmp(name, s, len) == 0;
}

static int step_header(struct stream_parser *p, struct stream_item *ret)
{
	struct cursor c = cursor_at(p);
	const uint8_t *h = take(&c, 8);

	if (!h)
		return STEP_SHORT;
	if (get_be32(h) != STREAM_MAGIC)
		return refuse(p, ERR_PROTOCOL,
			      "it does not begin with \"QEVM\": this is not a migration stream of QEMU");
	if (get_be32(h + 4) != STREAM_VERSION)
		return refuse(p, ERR_UNSUPPORTED, "version %" PRIu32 " is unknown, QEMU 7.2 to 10 write version 3",
			      get_be32(h + 4));
	p->state = STATE_SECTION;
	return emit(p, ret, STREAM_ITEM_SECTION, c.at);
}

static int step_configuration(struct stream_parser *p, struct stream_item *ret)
{
	struct cursor c = cursor_at(p);
	const uint8_t *h = take(&c, 1 + 4);

	if (!h)
		return STEP_SHORT;
	if (p->seen_sections > 0)
		return refuse(p, ERR_PROTOCOL, "CONFIGURATION does not come first");
	if (get_be32(h + 1) == 0 || get_be32(h + 1) > NAME_MAX_LEN)
		return refuse(p, ERR_PROTOCOL, "a machine type's name of %" PRIu32 " bytes, 1 to %d are allowed",
			      get_be32(h + 1), NAME_MAX_LEN);
	if (!take(&c, get_be32(h + 1)))
		return STEP_SHORT;
	p->subsections = true;
	return emit(p, ret, STREAM_ITEM_SECTION, c.at);
}

/* configuration/capabilities names what changes the stream's format, of what the source has on. */
static int check_capability(struct stream_parser *p, const uint8_t *name, size_t len)
{
	if (name_is(name, len, "x-ignore-shared") && p->opt.ignore_shared)
		return STEP_ITEM;
	return refuse(p, ERR_UNSUPPORTED,
		      "the source has the capability %s on: switch it off with migrate-set-capabilities",
		      show_name(name, len).text);
}

static int read_capabilities(struct stream_parser *p, struct cursor *c)
{
	const uint8_t *n = take(c, 4);

	if (!n)
		return STEP_SHORT;
	if (get_be32(n) > CAPABILITIES_MAX)
		return refuse(p, ERR_PROTOCOL, "%" PRIu32 " capabilities in the configuration, at most %u are allowed",
			      get_be32(n), CAPABILITIES_MAX);
	for (uint32_t i = 0; i < get_be32(n); i++) {
		size_t len;
		const uint8_t *name = take_name(c, &len);

		if (!name)
			return STEP_SHORT;
		if (check_capability(p, name, len) < 0)
			return STEP_REFUSED;
	}
	return STEP_ITEM;
}

static int read_page_bits(struct stream_parser *p, struct cursor *c)
{
	const uint8_t *bits = take(c, 4);

	if (!bits)
		return STEP_SHORT;
	if (get_be32(bits) != PAGE_BITS)
		return refuse(p, ERR_UNSUPPORTED, "the guest's pages have %" PRIu32 " bits, only %d (4 KiB) is known",
			      get_be32(bits), PAGE_BITS);
	return STEP_ITEM;
}

static int read_uuid(struct stream_parser *p, struct cursor *c)
{
	(void)p;
	return take(c, 16) ? STEP_ITEM : STEP_SHORT;
}

static const struct {
	const char *name;
	int (*read)(struct stream_parser *p, struct cursor *c);
} config_subsections[] = {
	{"configuration/target-page-bits", read_page_bits},
	{"configuration/capabilities", read_capabilities},
	{"configuration/uuid", read_uuid},
};

static int step_subsection(struct stream_parser *p, struct stream_item *ret)
{
	struct cursor c = cursor_at(p);
	const uint8_t *name;
	const uint8_t *version;
	size_t len;

	if (!p->subsections)
		return refuse(p, ERR_PROTOCOL, "a subsection outside of the configuration");
	take(&c, 1);
	name = take_name(&c, &len);
	version = name ? take(&c, 4) : NULL;
	if (!version)
		return STEP_SHORT;
	for (size_t i = 0; i < ARRAY_SIZE(config_subsections); i++) {
		int r;

		if (!name_is(name, len, config_subsections[i].name))
			continue;
		if (get_be32(version) != 1)
			return refuse(p, ERR_UNSUPPORTED, "%s has version %" PRIu32 ", only 1 is known",
				      config_subsections[i].name, get_be32(version));
		r = config_subsections[i].read(p, &c);
		return r == STEP_ITEM ? emit(p, ret, STREAM_ITEM_SECTION, c.at) : r;
	}
	return refuse(p, ERR_UNSUPPORTED,
		      "the configuration subsection '%s' is unknown: this QEMU is too new or not QEMU",
		      show_name(name, len).text);
}

/* Commands of precopy with their lengths (QEMU migration/savevm.c, mig_cmd_args); the others need a capability that
 * must be off while the stream is read here. */
static const struct {
	const char *name;
	const char *capability; /* NULL: known */
	int length;             /* -1: up to the command */
} commands[] = {
	[1] = {"OPEN_RETURN_PATH", NULL, 0},           [2] = {"PING", NULL, 4},
	[3] = {"POSTCOPY_ADVISE", NULL, -1},           [4] = {"POSTCOPY_LISTEN", "postcopy-ram", -1},
	[5] = {"POSTCOPY_RUN", "postcopy-ram", -1},    [6] = {"POSTCOPY_RAM_DISCARD", "postcopy-ram", -1},
	[7] = {"PACKAGED", "postcopy-ram", -1},        [8] = {"ENABLE_COLO", "x-colo", -1},
	[9] = {"POSTCOPY_RESUME", "postcopy-ram", -1}, [10] = {"RECV_BITMAP", "postcopy-ram", -1},
	[11] = {"SWITCHOVER_START", NULL, 0},
};

/* POSTCOPY_ADVISE holds the two page sizes, or nothing when postcopy-ram is off (sent for dirty bitmaps). */
static bool command_length_ok(uint16_t cmd, uint16_t len)
{
	if (commands[cmd].length >= 0)
		return len == commands[cmd].length;
	return len == 0 || len == 16;
}

static int step_command(struct stream_parser *p, struct stream_item *ret)
{
	struct cursor c = cursor_at(p);
	const uint8_t *h = take(&c, 1 + 2 + 2);
	uint16_t cmd;
	uint16_t len;

	if (!h)
		return STEP_SHORT;
	cmd = get_be16(h + 1);
	len = get_be16(h + 3);
	if (cmd == 0 || cmd >= ARRAY_SIZE(commands))
		return refuse(p, ERR_UNSUPPORTED, "command %u is unknown: this QEMU is too new or not QEMU", cmd);
	if (commands[cmd].capability)
		return refuse(p, ERR_UNSUPPORTED,
			      "command %s cannot be followed: switch the capability %s off on the source",
			      commands[cmd].name, commands[cmd].capability);
	if (!command_length_ok(cmd, len))
		return refuse(p, ERR_PROTOCOL, "command %s with %u bytes of payload", commands[cmd].name, len);
	if (!take(&c, len))
		return STEP_SHORT;
	p->subsections = false;
	p->seen_sections++;
	emit(p, ret, STREAM_ITEM_COMMAND, c.at);
	ret->command = cmd;
	return STEP_ITEM;
}

static int refuse_start(struct stream_parser *p, uint8_t type, const char *name)
{
	if (strcmp(name, "ram") == 0)
		return refuse(p, ERR_PROTOCOL, "a second START of ram");
	if (strcmp(name, "dirty-bitmap") == 0)
		return refuse(p, ERR_UNSUPPORTED,
			      "the section 'dirty-bitmap': switch the capability dirty-bitmaps off on the source");
	if (strcmp(name, "block") == 0)
		return refuse(p, ERR_UNSUPPORTED,
			      "the section 'block': switch the capability block off on the source and share the disks");
	if (type == SECTION_FULL)
		return refuse(p, ERR_UNSUPPORTED,
			      "the device '%s' saves its state before RAM ends, which carries no length to step over: "
			      "unplug it before the move",
			      name);
	return refuse(
		p, ERR_UNSUPPORTED,
		"'%s' sends its own data beside RAM, in a format that only its device knows: unplug it before the "
		"move",
		name);
}

/* START or FULL: section id, name, instance, version. Only the START of ram can be followed. */
static int step_start(struct stream_parser *p, struct stream_item *ret)
{
	struct cursor c = cursor_at(p);
	const uint8_t *h = take(&c, 1 + 4);
	const uint8_t *name = NULL;
	const uint8_t *tail = NULL;
	size_t len = 0;

	if (h)
		name = take_name(&c, &len);
	if (name)
		tail = take(&c, 4 + 4);
	if (!tail)
		return STEP_SHORT;
	if (*h != SECTION_START || !name_is(name, len, "ram") || p->started)
		return refuse_start(p, *h, show_name(name, len).text);
	if (get_be32(tail + 4) != RAM_VERSION)
		return refuse(p, ERR_UNSUPPORTED, "the ram section has version %" PRIu32 ", only %u is known",
			      get_be32(tail + 4), RAM_VERSION);
	p->started = true;
	p->section = SECTION_START;
	p->section_id = get_be32(h + 1);
	p->state = STATE_RECORDS;
	return emit(p, ret, STREAM_ITEM_SECTION, c.at);
}

/* PART or END: first ITEM_PASS, then, at the next call, the header's bytes. */
static int step_part(struct stream_parser *p, struct stream_item *ret)
{
	struct cursor c = cursor_at(p);
	const uint8_t *h = take(&c, 1 + 4);

	if (!h)
		return STEP_SHORT;
	if (!p->started || get_be32(h + 1) != p->section_id)
		return refuse(p, ERR_PROTOCOL, "a PART or END of section %" PRIu32 ", which was not started",
			      get_be32(h + 1));
	if (!p->pass_returned) {
		p->pass_returned = true;
		*ret = (struct stream_item){.type = STREAM_ITEM_PASS, .section_type = *h};
		return STEP_ITEM;
	}
	p->pass_returned = false;
	p->section = *h;
	p->state = STATE_RECORDS;
	return emit(p, ret, STREAM_ITEM_SECTION, c.at);
}

static int step_section(struct stream_parser *p, struct stream_item *ret)
{
	int r;

	if (p->at == p->end)
		return STEP_SHORT;
	switch (*p->at) {
	case SECTION_SUBSECTION:
		return step_subsection(p, ret);
	case SECTION_CONFIGURATION:
		r = step_configuration(p, ret);
		p->seen_sections += r == STEP_ITEM;
		return r;
	case SECTION_COMMAND:
		return step_command(p, ret);
	case SECTION_START:
	case SECTION_FULL:
		r = step_start(p, ret);
		break;
	case SECTION_PART:
	case SECTION_END:
		r = step_part(p, ret);
		break;
	case SECTION_EOF:
		return refuse(p, ERR_PROTOCOL, "it ends before RAM does: the source gave up, its log says why");
	case SECTION_FOOTER:
		return refuse(p, ERR_PROTOCOL,
			      "a footer where none was expected: the source runs with send-section-footer on");
	default:
		return refuse(p, ERR_PROTOCOL, "the section type 0x%02x is unknown", *p->at);
	}
	if (r == STEP_ITEM) {
		p->subsections = false;
		p->seen_sections++;
	}
	return r;
}

static void section_done(struct stream_parser *p)
{
	p->state = p->section == SECTION_END ? STATE_RAM_END : STATE_SECTION;
}

static int step_footer(struct stream_parser *p, struct stream_item *ret)
{
	struct cursor c = cursor_at(p);
	const uint8_t *f = take(&c, 1 + 4);

	if (!f)
		return STEP_SHORT;
	if (*f != SECTION_FOOTER)
		return refuse(
			p, ERR_PROTOCOL,
			"0x%02x where the ram section's footer must be: is the source run with send-section-footer "
			"off?",
			*f);
	if (get_be32(f + 1) != p->section_id)
		return refuse(p, ERR_PROTOCOL, "the footer of section %" PRIu32 " ends section %" PRIu32,
			      get_be32(f + 1), p->section_id);
	section_done(p);
	return emit(p, ret, STREAM_ITEM_SECTION, c.at);
}

static int check_page_size(struct stream_parser *p, const struct stream_block *b, uint64_t size)
{
	if (size < STREAM_PAGE_SIZE || (size & (size - 1)))
		return refuse(p, ERR_PROTOCOL, "RAM block '%s' with pages of %" PRIu64 " bytes", b->name, size);
	return STEP_ITEM;
}

/* The optional fields behind a block: see the essay. @last: no block follows. */
static int read_block_options(struct stream_parser *p, struct cursor *c, const struct stream_block *b, bool last)
{
	const uint8_t *first = NULL;
	const uint8_t *second;
	struct cursor ahead;

	if (p->opt.ignore_shared) {
		first = take(c, 8);
		if (!first)
			return STEP_SHORT;
	}
	if (!p->opt.postcopy_ram)
		return STEP_ITEM;
	ahead = *c;
	second = take(&ahead, last ? 8 : 1);
	if (!second)
		return STEP_SHORT;
	if (last ? (get_be64(second) & (STREAM_PAGE_SIZE - 1)) != 0 : *second != 0)
		return STEP_ITEM;
	second = take(c, 8);
	if (!second)
		return STEP_SHORT;
	return check_page_size(p, b, get_be64(first ? first : second));
}

static int set_block_name(struct stream_parser *p, struct stream_block *b, const uint8_t *name, size_t len)
{
	struct shown_name shown = show_name(name, len);

	if (len == 0)
		return refuse(p, ERR_PROTOCOL, "a RAM block without a name");
	if (memcmp(shown.text, name, len) != 0)
		return refuse(p, ERR_PROTOCOL, "the RAM block '%s' has unprintable bytes in its name", shown.text);
	memcpy(b->name, shown.text, sizeof(b->name));
	return STEP_ITEM;
}

static int read_block(struct stream_parser *p, struct cursor *c, struct stream_block *b, uint64_t *left)
{
	size_t len;
	const uint8_t *name = take_name(c, &len);
	const uint8_t *used = name ? take(c, 8) : NULL;

	if (!used)
		return STEP_SHORT;
	if (set_block_name(p, b, name, len) < 0)
		return STEP_REFUSED;
	b->used_length = get_be64(used);
	if (b->used_length % STREAM_PAGE_SIZE != 0)
		return refuse(p, ERR_PROTOCOL, "RAM block '%s' has %" PRIu64 " bytes, not a multiple of %u", b->name,
			      b->used_length, STREAM_PAGE_SIZE);
	if (b->used_length > *left)
		return refuse(p, ERR_PROTOCOL,
			      "RAM block '%s' has %" PRIu64 " bytes, but only %" PRIu64 " are left of the total",
			      b->name, b->used_length, *left);
	*left -= b->used_length;
	return read_block_options(p, c, b, *left == 0);
}

static int check_duplicates(struct stream_parser *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < i; j++)
			if (strcmp(p->blocks[i].name, p->blocks[j].name) == 0)
				return refuse(p, ERR_PROTOCOL, "two RAM blocks are named '%s'", p->blocks[i].name);
	return STEP_ITEM;
}

/* MEM_SIZE: the total, then blocks until their lengths add up to it (as QEMU reads it, ram_load_precopy). */
static int step_mem_size(struct stream_parser *p, struct stream_item *ret, uint64_t total)
{
	struct cursor c = cursor_at(p);
	uint64_t left = total;
	size_t n = 0;

	if (p->section != SECTION_START || p->n_blocks > 0)
		return refuse(p, ERR_PROTOCOL, "a second list of RAM blocks");
	if (total == 0)
		return refuse(p, ERR_PROTOCOL, "the list of RAM blocks is empty");
	take(&c, 8);
	while (left > 0) {
		int r;

		if (n == STREAM_BLOCKS_MAX)
			return refuse(p, ERR_UNSUPPORTED, "the guest has more than %d RAM blocks", STREAM_BLOCKS_MAX);
		r = read_block(p, &c, &p->blocks[n++], &left);
		if (r != STEP_ITEM)
			return r;
	}
	if (check_duplicates(p, n) < 0)
		return STEP_REFUSED;
	p->n_blocks = n;
	p->state = STATE_BLOCKS;
	return emit(p, ret, STREAM_ITEM_SECTION, c.at);
}

static int step_eos(struct stream_parser *p, struct stream_item *ret)
{
	if (p->n_blocks == 0)
		return refuse(p, ERR_PROTOCOL, "the START section of ram ends without a list of RAM blocks");
	if (p->opt.section_footers)
		p->state = STATE_FOOTER;
	else
		section_done(p);
	return emit(p, ret, STREAM_ITEM_SECTION, p->at + 8);
}

/* Make @name the current block. */
static int select_block(struct stream_parser *p, const uint8_t *name, size_t len)
{
	for (size_t i = 0; i < p->n_blocks; i++) {
		if (!name_is(name, len, p->blocks[i].name))
			continue;
		p->last_block = (uint16_t)i;
		p->last_pages = p->blocks[i].used_length >> PAGE_BITS;
		return STEP_ITEM;
	}
	return refuse(p, ERR_PROTOCOL, "a page of RAM block '%s', which is not in the list", show_name(name, len).text);
}

/* A page or zero record in full generality: with a name, or with anything wrong. */
static int step_page(struct stream_parser *p, struct stream_item *ret, uint64_t record)
{
	struct cursor c = cursor_at(p);
	bool zero = record & RAM_ZERO;
	const uint8_t *name = NULL;
	const uint8_t *data;
	size_t len = 0;

	if (p->section == SECTION_START)
		return refuse(p, ERR_PROTOCOL, "a page in the START section of ram");
	take(&c, 8);
	if (!(record & RAM_CONTINUE)) {
		name = take_name(&c, &len);
		if (!name)
			return STEP_SHORT;
	}
	data = take(&c, zero ? 1 : STREAM_PAGE_SIZE);
	if (!data)
		return STEP_SHORT;
	if (name && select_block(p, name, len) < 0)
		return STEP_REFUSED;
	if (!name && p->last_pages == 0)
		return refuse(p, ERR_PROTOCOL, "a page that continues a RAM block, but none was named yet");
	if (record >> PAGE_BITS >= p->last_pages)
		return refuse(p, ERR_PROTOCOL, "page %" PRIu64 " of RAM block '%s', which has %" PRIu64 " pages",
			      record >> PAGE_BITS, p->blocks[p->last_block].name, p->last_pages);
	if (zero && *data != 0)
		return refuse(p, ERR_PROTOCOL, "a page filled with 0x%02x, only zero pages are sent this way", *data);
	p->at = c.at;
	*ret = (struct stream_item){
		.type = zero ? STREAM_ITEM_ZERO : STREAM_ITEM_PAGE,
		.block = p->last_block,
		.page = record >> PAGE_BITS,
		.data = zero ? NULL : data,
		.size = zero ? 0 : STREAM_PAGE_SIZE,
	};
	return STEP_ITEM;
}

/* Say which capability or version writes a record that cannot be followed. */
static int refuse_record(struct stream_parser *p, unsigned int flags)
{
	static const struct {
		unsigned int flag;
		const char *text;
	} known[] = {
		{RAM_XBZRLE, "an XBZRLE page: switch the capability xbzrle off on the source"},
		{RAM_COMPRESS_PAGE, "a compressed page: switch the capability compress off on the source"},
		{RAM_MULTIFD_FLUSH, "a multifd record: switch the capability multifd off on the source"},
		{RAM_HOOK, "an RDMA record: switch the capability rdma-pin-all off and migrate to a descriptor"},
		{RAM_FULL, "the flag FULL, which no QEMU since 7.2 sends"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (flags & known[i].flag)
			return refuse(p, ERR_UNSUPPORTED, "%s", known[i].text);
	return refuse(p, ERR_PROTOCOL, "the RAM record flags 0x%03x are unknown", flags);
}

static int step_record(struct stream_parser *p, struct stream_item *ret)
{
	uint64_t record;
	unsigned int flags;

	if (p->end - p->at < 8)
		return STEP_SHORT;
	record = get_be64(p->at);
	flags = record & (STREAM_PAGE_SIZE - 1);
	switch (flags) {
	case RAM_PAGE:
	case RAM_PAGE | RAM_CONTINUE:
	case RAM_ZERO:
	case RAM_ZERO | RAM_CONTINUE:
		return step_page(p, ret, record);
	case RAM_EOS:
		return step_eos(p, ret);
	case RAM_MEM_SIZE:
		return step_mem_size(p, ret, record - flags);
	default:
		return refuse_record(p, flags);
	}
}

static int step_blocks(struct stream_parser *p, struct stream_item *ret)
{
	*ret = (struct stream_item){.type = STREAM_ITEM_BLOCKS};
	p->state = STATE_RECORDS;
	return STEP_ITEM;
}

static int step_ram_end(struct stream_parser *p, struct stream_item *ret)
{
	*ret = (struct stream_item){.type = STREAM_ITEM_RAM_END};
	p->state = STATE_ENDED;
	return STEP_ITEM;
}

static int step(struct stream_parser *p, struct stream_item *ret)
{
	switch (p->state) {
	case STATE_HEADER:
		return step_header(p, ret);
	case STATE_SECTION:
		return step_section(p, ret);
	case STATE_RECORDS:
		return step_record(p, ret);
	case STATE_BLOCKS:
		return step_blocks(p, ret);
	case STATE_FOOTER:
		return step_footer(p, ret);
	case STATE_RAM_END:
		return step_ram_end(p, ret);
	case STATE_ENDED:
		return STEP_SHORT;
	case STATE_REFUSED:
		return STEP_REFUSED;
	}
	return STEP_REFUSED;
}

static __attribute__((noinline)) int next_slow(struct stream_parser *p, struct stream_item *ret, struct err *e)
{
	switch (step(p, ret)) {
	case STEP_ITEM:
		return 0;
	case STEP_SHORT:
		*ret = (struct stream_item){.type = STREAM_ITEM_NONE};
		return 0;
	default:
		return err_set(e, p->refusal.code, "%s", p->refusal.text);
	}
}

struct stream_parser *stream_parser_new(const struct stream_options *opt)
{
	static const uint8_t nothing[1];
	struct stream_parser *p = xcalloc(1, sizeof(*p));

	p->opt = *opt;
	p->blocks = xcalloc(STREAM_BLOCKS_MAX, sizeof(*p->blocks));
	p->begin = p->at = p->end = nothing;
	return p;
}

void stream_parser_free(struct stream_parser *p)
{
	if (!p)
		return;
	free(p->blocks);
	free(p);
}

void stream_parser_feed(struct stream_parser *p, const uint8_t *buf, size_t n)
{
	p->base += (uint64_t)(p->at - p->begin);
	p->begin = buf;
	p->at = buf;
	p->end = buf + n;
}

int stream_parser_next(struct stream_parser *p, struct stream_item *ret, struct err *e)
{
	const uint8_t *at = p->at;

	if (p->state == STATE_RECORDS && p->end - at >= (ptrdiff_t)(8 + STREAM_PAGE_SIZE)) {
		uint64_t record = get_be64(at);
		unsigned int flags = record & (STREAM_PAGE_SIZE - 1);
		uint64_t page = record >> PAGE_BITS;

		if (flags == (RAM_PAGE | RAM_CONTINUE) && page < p->last_pages) {
			*ret = (struct stream_item){.type = STREAM_ITEM_PAGE,
						    .block = p->last_block,
						    .page = page,
						    .data = at + 8,
						    .size = STREAM_PAGE_SIZE};
			p->at = at + 8 + STREAM_PAGE_SIZE;
			return 0;
		}
		if (flags == (RAM_ZERO | RAM_CONTINUE) && page < p->last_pages && at[8] == 0) {
			*ret = (struct stream_item){.type = STREAM_ITEM_ZERO, .block = p->last_block, .page = page};
			p->at = at + 8 + 1;
			return 0;
		}
	}
	return next_slow(p, ret, e);
}

size_t stream_parser_consumed(const struct stream_parser *p)
{
	return (size_t)(p->at - p->begin);
}

const struct stream_block *stream_parser_blocks(const struct stream_parser *p, size_t *ret_n)
{
	*ret_n = p->n_blocks;
	return p->blocks;
}

bool stream_parser_ram_ended(const struct stream_parser *p)
{
	return p->state == STATE_ENDED;
}

void stream_encoder_init(struct stream_encoder *enc, const struct stream_block *blocks, size_t n_blocks)
{
	*enc = (struct stream_encoder){.blocks = blocks, .n_blocks = n_blocks, .last_block = -1};
}

size_t stream_encode_page(struct stream_encoder *enc, uint16_t block, uint64_t page, bool zero, uint8_t *out)
{
	uint64_t record = page << PAGE_BITS | (zero ? RAM_ZERO : RAM_PAGE);
	size_t n = 8;

	assert(block < enc->n_blocks && page < enc->blocks[block].used_length >> PAGE_BITS);
	if (enc->last_block == block) {
		record |= RAM_CONTINUE;
	} else {
		size_t len = strlen(enc->blocks[block].name);

		out[n++] = (uint8_t)len;
		memcpy(out + n, enc->blocks[block].name, len);
		n += len;
		enc->last_block = block;
	}
	put_be64(out, record);
	if (zero)
		out[n++] = 0;
	return n;
}
