/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing the guest definition: whatever is accepted must come back the same from its own writing, and fit QEMU's
 * words. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "hv/cmdline.h"
#include "hv/def.h"
#include "hv/seed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_accepted(const struct def *d)
{
	struct cmdline_host host = {.qemu = "q", .machine = "m", .accel = "tcg", .uefi_code = "c"};
	json_t *first = def_to_json(d), *second;
	_free_ char *text = json_dumps(first, 0);
	_free_ char *meta = seed_meta_data(d);
	struct def again = {0};
	struct err e = ERR_INIT;
	struct cmdline c;

	if (!text || !meta || def_parse(text, strlen(text), "again", "/", &again, &e) < 0)
		abort();
	second = def_to_json(&again);
	if (!json_equal(first, second))
		abort();
	cmdline_build(d, &host, &c);
	cmdline_done(&c);
	json_decref(first);
	json_decref(second);
	def_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct def d = {0};
	struct err e = ERR_INIT;

	/* The seed's files are somebody's real files: not here. */
	if (memmem(data, size, "-file", 5) || memmem(data, size, "\\u", 2))
		return 0;
	if (def_parse((const char *)data, size, "fuzz", "/", &d, &e) < 0) {
		if (!e.code || !e.text[0])
			abort();
		return 0;
	}
	check_accepted(&d);
	def_done(&d);
	return 0;
}
