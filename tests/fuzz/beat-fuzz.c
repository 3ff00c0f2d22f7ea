/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzer: any bytes as a beat; what is taken must come out of the encoder as it went in, and a lease must bear it. */
#include <stdlib.h>
#include <string.h>

#include "cluster/lease.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct bus_view view = {
		.members = {1, 2, 3}, .n = 3, .quorate = true, .needed = 2, .expected = 3, .configured = {1, 2, 3}};
	struct lease_options o = {.self = 1, .incarnation = 1};
	uint8_t buf[BEAT_SIZE_MAX];
	struct lease *l;
	struct beat b;

	if (beat_decode(data, size, &b, NULL) < 0)
		return 0;
	if (beat_encode(&b, buf) != size || memcmp(buf, data, size) != 0)
		abort();
	timing_make(1000, &o.timing);
	l = lease_new(&o, 1);
	lease_view(l, 1, &view);
	lease_beat(l, 1, buf);
	if (lease_heard(l, 10, 2, data, size, NULL) < 0 || lease_heard(l, 11, 3, data, size, NULL) < 0)
		abort();
	if (lease_until(l) > 1 + o.timing.lease_ns) /* of the one beat that was sent */
		abort();
	if (lease_dead_upto(l, 12, 3, &o.timing) > 12)
		abort();
	lease_free(l);
	return 0;
}
