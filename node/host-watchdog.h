/* SPDX-License-Identifier: Apache-2.0 */
/* What godwitd says to the godwit-watchdog of its host, and hears from it: whose guests it is to end, and when. */
#ifndef GODWIT_NODE_HOST_WATCHDOG_H
#define GODWIT_NODE_HOST_WATCHDOG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "fencing/timing.h"

struct daemon;

/* Who starts godwit-watchdog. */
enum watchdog_mode {
	WATCHDOG_AUTO, /* somebody else, if at all */
	WATCHDOG_RUN,  /* godwitd, as a program that outlives it */
	WATCHDOG_NONE, /* nobody, and one that runs is not spoken to */
	WATCHDOG_MODE_MAX
};
extern const char *const watchdog_mode_names[WATCHDOG_MODE_MAX];

/* Loop thread, all of them. */
struct host_watchdog;

/* Starts one, or connects to it, as the daemon's options say, and again whenever it is lost. @changed follows whatever
 * it says, from the loop. Caller frees; what it was told stays. */
struct host_watchdog *host_watchdog_new(struct daemon *d, void (*changed)(void *arg), void *arg);
void host_watchdog_free(struct host_watchdog *w);

/* Its times are others from the next feed on: until it has taken them it guards nothing. */
void host_watchdog_times(struct host_watchdog *w, const struct timing *t);

/* What it is to know now. @until: of the lease (clock_boot_ns()), 0: there is none yet, LEASE_FOREVER: the guests are
 * to be released. Where this host was told on a shared disk to die it is to end all guests, and hears of no lease. */
void host_watchdog_feed(struct host_watchdog *w, int64_t until);

/* The guests are to run on without a lease: this daemon ends in order. 0, or -1 with @e. */
int host_watchdog_release(struct host_watchdog *w, struct err *e);

/* What it has refused is asked of it again. Whether there is such a thing. */
bool host_watchdog_refuses(const struct host_watchdog *w);
void host_watchdog_ask_again(struct host_watchdog *w);

/* Does it end the guests? Not yet while it waits for the first time: it would pet the device for ever. */
bool host_watchdog_guards(const struct host_watchdog *w);

/* After how many seconds the hardware behind it resets this host; 0: others may not count on that. */
unsigned host_watchdog_bites_s(const struct host_watchdog *w);

/* Why guests that are under a lease may not start by it: a sentence. NULL: it knows the lease, or there is none to ask
 * and none is needed. */
const char *host_watchdog_why_not(const struct host_watchdog *w);

/* {"mode", "state" (null: none is spoken to), "device", "timeout_s", "text"}. New reference. */
json_t *host_watchdog_json(const struct host_watchdog *w);

#endif
