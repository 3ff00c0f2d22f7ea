/* SPDX-License-Identifier: Apache-2.0 */
/* The messages between godwitd and godwit-watchdog: one per packet of a unix SEQPACKET socket. */
#ifndef GODWIT_FENCING_KEEPER_MSG_H
#define GODWIT_FENCING_KEEPER_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "fencing/keeper.h"

/* The socket in the run directory. */
#define KEEPER_SOCKET "watchdog.sock"

/* Whoever speaks another one is told so and not served. */
#define KEEPER_VERSION 1U

/* Every request is answered by one status, in order; a status also comes by itself at the start of a connection, and
 * whenever the state changes. */
enum keeper_type {
	KEEPER_STATUS,    /* from the watchdog */
	KEEPER_LOOK,      /* how are things? */
	KEEPER_CONFIGURE, /* config */
	KEEPER_UNTIL,     /* number: ns of CLOCK_BOOTTIME */
	KEEPER_RELEASE,
	KEEPER_DIE,
	KEEPER_SEEN, /* number: the serial of a report */
	KEEPER_TYPE_MAX
};
extern const char *const keeper_type_names[KEEPER_TYPE_MAX];

struct keeper_request {
	enum keeper_type type;
	struct keeper_config config; /* KEEPER_CONFIGURE */
	uint64_t number;             /* KEEPER_UNTIL, KEEPER_SEEN */
};

enum keeper_device {
	KEEPER_DEVICE_NONE,   /* not configured, or --device none */
	KEEPER_DEVICE_ARMED,  /* it resets the host watchdog_s after the last petting */
	KEEPER_DEVICE_FAILED, /* it was to be opened or petted; device_text says why that failed */
	KEEPER_DEVICE_MAX
};
extern const char *const keeper_device_names[KEEPER_DEVICE_MAX];

#define KEEPER_TEXT 256

struct keeper_status {
	enum keeper_type answer_to; /* KEEPER_STATUS: to nothing, it comes by itself */
	enum err_code code;         /* ERR_NONE, or why the request was refused; `text` is the sentence */
	enum keeper_state state;
	bool leaving; /* told to end; does so when no guest of the cluster is left, or when it is released */
	enum keeper_device device;
	bool forever;        /* nothing disarms the device once it is armed (nowayout) */
	unsigned watchdog_s; /* DEVICE_ARMED: the true time-out, at least the one asked for */
	int64_t until_ns;    /* ARMED */
	unsigned alive;      /* STOPPING: guests not dead yet */
	struct keeper_report report;
	char text[KEEPER_TEXT];
	char device_text[KEEPER_TEXT]; /* ARMED: the driver's name; FAILED: why */
};

#define KEEPER_REQUEST_SIZE 128
#define KEEPER_STATUS_SIZE 576

void keeper_request_encode(const struct keeper_request *r, unsigned char buf[KEEPER_REQUEST_SIZE]);
void keeper_status_encode(const struct keeper_status *s, unsigned char buf[KEEPER_STATUS_SIZE]);

/* 0, or -1 with @e: ERR_UNSUPPORTED for another version of the protocol, ERR_PROTOCOL for anything else. */
int keeper_request_decode(const void *buf, size_t n, struct keeper_request *ret, struct err *e);
int keeper_status_decode(const void *buf, size_t n, struct keeper_status *ret, struct err *e);

#endif
