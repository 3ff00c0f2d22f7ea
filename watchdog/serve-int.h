/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of godwit-watchdog's loop share. */
#ifndef GODWIT_WATCHDOG_SERVE_INT_H
#define GODWIT_WATCHDOG_SERVE_INT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/child.h"
#include "fencing/keeper-msg.h"
#include "fencing/keeper.h"
#include "fencing/watchdog.h"
#include "hv/permit.h"
#include "watchdog/guests.h"
#include "watchdog/serve.h"

#define SERVE_CLIENTS 8

struct serve {
	const struct serve_options *o;
	char exe[4096]; /* where our program is; a new version has the same place */

	struct keeper keeper;
	struct permit permit;
	struct guests guests;
	unsigned alive;

	struct watchdog dog;
	unsigned dog_asked; /* the time-out that was asked of it */
	bool dog_try;       /* it may be opened: somebody asked, or we have just begun */
	enum keeper_device device;
	char device_text[KEEPER_TEXT];

	int listen_fd, signal_fd, timer_fd;
	int clients[SERVE_CLIENTS];
	enum keeper_state told_state; /* what the clients know */
	enum keeper_device told_device;
	uint64_t told_serial;

	struct child check; /* the next version, asked whether it runs */
	bool upgrade;       /* it does */
};

/* serve-device.c: open, close, set and pet the device as the keeper's state wants it. */
void serve_device(struct serve *s);
void serve_pet(struct serve *s);

/* serve-clients.c */
int serve_listen(struct serve *s, int inherited_fd, struct err *e);
void serve_accept(struct serve *s);
void serve_client(struct serve *s, size_t i); /* something came from clients[i] */
void serve_tell(struct serve *s);             /* all of them, if the state has changed */

/* serve-upgrade.c: SIGHUP, and the end of the check; serve_exec() returns only when it failed. */
void serve_upgrade_begin(struct serve *s);
void serve_upgrade_checked(struct serve *s);
void serve_exec(struct serve *s);

#endif
