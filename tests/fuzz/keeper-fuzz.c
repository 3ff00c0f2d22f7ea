/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing the keeper's messages and its kept state: what is read must come back the same, and no state that is read may
 * lead the keeper to pet the device past a deadline while guests live. */
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fencing/keeper-msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_request(const uint8_t *data, size_t size)
{
	unsigned char buf[KEEPER_REQUEST_SIZE], again[KEEPER_REQUEST_SIZE];
	struct keeper_request r, back;
	struct err e = ERR_INIT;

	if (keeper_request_decode(data, size, &r, &e) < 0) {
		if (!e.code || !e.text[0])
			abort();
		return;
	}
	keeper_request_encode(&r, buf);
	if (keeper_request_decode(buf, sizeof(buf), &back, NULL) < 0)
		abort();
	keeper_request_encode(&back, again);
	if (memcmp(buf, again, sizeof(buf)) != 0)
		abort();
}

static void fuzz_status(const uint8_t *data, size_t size)
{
	unsigned char buf[KEEPER_STATUS_SIZE];
	struct keeper_status s, back;

	if (keeper_status_decode(data, size, &s, NULL) < 0)
		return;
	keeper_status_encode(&s, buf);
	if (keeper_status_decode(buf, sizeof(buf), &back, NULL) < 0)
		abort();
}

static void fuzz_saved(const uint8_t *data, size_t size)
{
	unsigned char buf[KEEPER_SAVED] = {0, 0, 0, 1}, again[KEEPER_SAVED];
	struct keeper k;
	struct keeper_act a;
	int64_t now;

	memcpy(buf + 4, data, size < sizeof(buf) - 4 ? size : sizeof(buf) - 4);
	if (keeper_load(&k, buf, sizeof(buf)) < 0)
		return;
	keeper_save(&k, again);
	if (keeper_load(&k, again, sizeof(again)) < 0)
		abort();
	now = k.until_ns < 0 || k.until_ns > INT64_MAX / 2 ? INT64_MAX / 2 : k.until_ns;
	if (k.state != KEEPER_ARMED || now < k.until_ns)
		return;
	keeper_advance(&k, now);
	a = keeper_next(&k, now, 1, 1);
	if (a.pet || !a.signal || keeper_permit(&k) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_request(data, size);
	fuzz_status(data, size);
	fuzz_saved(data, size);
	return 0;
}
