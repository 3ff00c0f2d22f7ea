/* SPDX-License-Identifier: Apache-2.0 */
/* Speaking to godwit-watchdog: what godwitd uses. */
#ifndef GODWIT_FENCING_KEEPER_CLIENT_H
#define GODWIT_FENCING_KEEPER_CLIENT_H

#include <stdint.h>

#include "base/err.h"
#include "fencing/keeper-msg.h"

/* One connection; of one thread. Losing it changes nothing for the guests before their deadline: connect again. */
struct keeper_client {
	int fd; /* to be watched for reading; keeper_read() then. -1: none */
};

#define KEEPER_CLIENT_INIT ((struct keeper_client){.fd = -1})

/* Connect to the godwit-watchdog of @run_dir. Never waits: the first status comes by itself, and what is asked
 * meanwhile is answered after it. 0; -1 with @e: ERR_NOTFOUND when none runs. */
int keeper_open(const char *run_dir, struct keeper_client *ret, struct err *e);

/* Whether one runs that speaks our version: connect, and wait for its first status until @deadline_ns (clock_now_ns()).
 * 0 with both results, or -1 with @e: ERR_NOTFOUND none runs; ERR_UNSUPPORTED it speaks another version; ERR_TIMEOUT it
 * does not answer: it is there, and what it is (stopped? the host overloaded?) is to be found out before another is
 * started. */
int keeper_connect(const char *run_dir, int64_t deadline_ns, struct keeper_client *ret,
		   struct keeper_status *ret_status, struct err *e);

/* Requests. None waits, each is answered by a status. 0; -1 with @e when the connection is lost or full (it does not
 * read): close it and connect again.
 *   configure  whose guests, and the times. First on each connection. The status tells the device's true time-out
 *              (watchdog_s), which proofs must count with, or why there is none; asking again tries the device again.
 *   until      guests may run until then: clock_boot_ns(). The first one after configure starts the deadline, and
 * permits starts of guests (hv/permit.h); so not before the lease has been granted. release    nobody counts on this
 * host any more: guests go on without a deadline, the device is disarmed. Only after the cluster's state says so. die
 * end all guests at once. The status whose report has a new serial and the cause KEEPER_TOLD says that all are dead.
 *   seen       a report was logged and told to the cluster; it comes back until then, also to another connection.
 */
int keeper_ask_look(struct keeper_client *k, struct err *e);
int keeper_ask_configure(struct keeper_client *k, const struct keeper_config *c, struct err *e);
int keeper_ask_until(struct keeper_client *k, int64_t until_ns, struct err *e);
int keeper_ask_release(struct keeper_client *k, struct err *e);
int keeper_ask_die(struct keeper_client *k, struct err *e);
int keeper_ask_seen(struct keeper_client *k, uint64_t serial, struct err *e);

/* The next status that has come: 1 and *ret, 0 none, -1 with @e when the connection is lost (ERR_UNAVAILABLE) or cannot
 * be understood. Never waits. */
int keeper_read(struct keeper_client *k, struct keeper_status *ret, struct err *e);

/* Wait for the next status until @deadline_ns (clock_now_ns()). 0, or -1 with @e. For programs that may wait. */
int keeper_wait(struct keeper_client *k, int64_t deadline_ns, struct keeper_status *ret, struct err *e);

void keeper_close(struct keeper_client *k);

#endif
