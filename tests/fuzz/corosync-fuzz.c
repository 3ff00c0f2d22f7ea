/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing corosync.conf: what is accepted must come back the same from its own writing. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "node/corosync.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct corosync_local local = {.key_path = "/etc/corosync/authkey", .to_stderr = true};
	_free_ char *text = xcalloc(size + 1, 1);
	struct corosync_conf c, back;
	struct err e = ERR_INIT;

	memcpy(text, data, size);
	if (corosync_conf_parse(text, &c, &e) < 0) {
		if (!e.code || !e.text[0])
			abort();
		return 0;
	}
	_free_ char *first = corosync_conf_text(&c, &local, NULL);
	if (!first || corosync_conf_parse(first, &back, NULL) < 0)
		abort();
	_free_ char *second = corosync_conf_text(&back, &local, NULL);
	if (!second || strcmp(first, second) != 0)
		abort();
	return 0;
}
