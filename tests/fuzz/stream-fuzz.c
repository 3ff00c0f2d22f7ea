/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the stream parser: byte 0 of the input chooses the options and how the rest is cut into feeds. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hv/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Each item must lie in the feed, and each page in its block. */
static void check_item(const struct stream_parser *p, const struct stream_item *item, const uint8_t *feed, size_t n)
{
	size_t n_blocks;
	const struct stream_block *blocks = stream_parser_blocks(p, &n_blocks);

	if (item->size > 0 && (item->data < feed || item->data + item->size > feed + n))
		abort();
	if (item->type != STREAM_ITEM_PAGE && item->type != STREAM_ITEM_ZERO)
		return;
	if (item->block >= n_blocks || item->page >= blocks[item->block].used_length / STREAM_PAGE_SIZE)
		abort();
}

/* Parse one feed, a copy of its own so that a read behind it is found. Returns what was used, -1 on a refusal. */
static long parse_feed(struct stream_parser *p, const uint8_t *data, size_t n)
{
	uint8_t *feed = malloc(n + 1);
	struct stream_item item = {0};
	struct err e = ERR_INIT;
	long used = -1;
	int r;

	memcpy(feed + 1, data, n);
	stream_parser_feed(p, feed + 1, n);
	while ((r = stream_parser_next(p, &item, &e)) == 0 && item.type != STREAM_ITEM_NONE)
		check_item(p, &item, feed + 1, n);
	if (r == 0)
		used = (long)stream_parser_consumed(p);
	else if (e.code == ERR_NONE || e.text[0] == '\0')
		abort();
	free(feed);
	return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stream_options opt;
	struct stream_parser *p;
	size_t used = 0;
	size_t step;

	if (size == 0)
		return 0;
	opt = (struct stream_options){
		.postcopy_ram = data[0] & 1,
		.ignore_shared = data[0] & 2,
		.section_footers = !(data[0] & 4),
	};
	step = data[0] & 0xf8 ? (size_t)(data[0] >> 3) * 53 : size;
	data++;
	size--;
	p = stream_parser_new(&opt);
	for (size_t have = 0; have < size;) {
		long n;

		have = have + step < size ? have + step : size;
		n = parse_feed(p, data + used, have - used);
		if (n < 0)
			break;
		used += (size_t)n;
	}
	stream_parser_free(p);
	return 0;
}
