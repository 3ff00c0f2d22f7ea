/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing what fence agents say of themselves, and the options and devices that are judged by it. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fencing/agent.h"
#include "fencing/power.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was refused has a sentence; what was accepted is in a normal form. */
static void check_options(const json_t *metadata, const json_t *options)
{
	struct err e = ERR_INIT;
	json_t *normal = agent_options_check(metadata, options, &e), *again, *masked, *secrets;

	if (!normal) {
		if (!e.code || !e.text[0])
			abort();
		return;
	}
	again = agent_options_check(metadata, normal, NULL);
	if (!again || !json_equal(normal, again))
		abort();
	secrets = agent_metadata_secrets(metadata);
	masked = agent_options_mask(normal, secrets);
	json_decref(again);
	again = agent_options_unmask(masked, normal);
	if (!json_equal(normal, again))
		abort();
	json_decref(again);
	json_decref(masked);
	json_decref(secrets);
	json_decref(normal);
}

static void check_device(const json_t *metadata, const json_t *given)
{
	struct err e = ERR_INIT;
	json_t *device = power_device_check(given, metadata, &e), *again, *devices;

	if (!device) {
		if (!e.code || !e.text[0])
			abort();
		return;
	}
	again = power_device_check(device, metadata, NULL);
	if (!again || !json_equal(device, again))
		abort();
	json_decref(again);
	devices = json_pack("[o]", device);
	power_plan_free(power_plan_new(devices, json_object_get(given, "levels"), "n1", NULL));
	json_decref(devices);
}

/* Metadata, then after a zero byte the JSON of options or of a device. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *zero = memchr(data, 0, size);
	size_t n = zero ? (size_t)(zero - data) : size;
	struct err e = ERR_INIT;
	json_t *metadata = agent_metadata_parse((const char *)data, n, &e), *o = NULL;
	bool required;

	if (!metadata) {
		if (!e.code || !e.text[0])
			abort();
		return 0;
	}
	agent_metadata_usable(metadata, NULL);
	agent_metadata_plug(metadata, &required);
	if (zero)
		o = json_loadb((const char *)zero + 1, size - n - 1, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
	if (o) {
		check_options(metadata, o);
		check_device(metadata, o);
	}
	json_decref(o);
	json_decref(metadata);
	return 0;
}
