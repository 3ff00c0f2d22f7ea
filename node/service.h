/* SPDX-License-Identifier: Apache-2.0 */
/* A program beside the daemon that outlives it: a unit of systemd, or a child that the next daemon finds again. */
#ifndef GODWIT_NODE_SERVICE_H
#define GODWIT_NODE_SERVICE_H

#include "base/loop.h"

enum service_mode {
	SERVICE_SYSTEMD, /* NAME.service, enabled and started; restarts are systemd's business */
	SERVICE_CHILD,   /* run_dir/NAME.pid and run_dir/NAME.log; started again when it ends */
	SERVICE_NONE     /* somebody else's business */
};

struct service_spec {
	enum service_mode mode;
	const char *name;        /* borrowed, as the next two */
	const char *run_dir;     /* copied */
	const char *const *argv; /* SERVICE_CHILD: in the foreground, words on stderr */
	const char *folder;      /* SERVICE_CHILD: made (0770) before it starts; NULL: none. Borrowed */
};

struct service;

/* Loop thread, all of them. Caller frees; the program goes on. */
struct service *service_new(struct loop *loop, const struct service_spec *spec);
void service_free(struct service *s);

/* See to it that it runs, now and whenever it has ended. Nothing happens when that is so already. */
void service_run(struct service *s);

/* See to it that it does not, and does not come back with the next boot. */
void service_stop(struct service *s);

/* It is to read its configuration anew: ends it and starts it again, if it was to run. */
void service_restart(struct service *s);

#endif
