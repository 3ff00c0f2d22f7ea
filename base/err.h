/* SPDX-License-Identifier: Apache-2.0 */
/* The error object: a code, an errno and a sentence, filled by the function that fails and wrapped on the way up. */
#ifndef GODWIT_BASE_ERR_H
#define GODWIT_BASE_ERR_H

#include <stdarg.h>

/* What kind of failure this is. */
enum err_code {
	ERR_NONE,
	ERR_USAGE,       /* the command line is wrong */
	ERR_INPUT,       /* a file, a definition or a value the user gave is wrong */
	ERR_SYSTEM,      /* a system call failed (errnum says which way) */
	ERR_PROTOCOL,    /* a peer, a QEMU or a file said something that its protocol does not allow */
	ERR_PEER,        /* the other side refused or failed, in its own words */
	ERR_TIMEOUT,     /* nothing came in time */
	ERR_AUTH,        /* certificate, name or token refused */
	ERR_QMP,         /* QEMU answered a command with an error */
	ERR_UNSUPPORTED, /* understood, but cannot be done with this guest, QEMU or host */
	ERR_NOCONVERGE,  /* the guest writes faster than the wire carries */
	ERR_CANCELLED,   /* the user asked to stop */
	ERR_NOTFOUND,    /* what was named does not exist */
	ERR_CONFLICT,    /* right in itself, but not with what is there now */
	ERR_FORBIDDEN,   /* known who asks, but may not do this */
	ERR_UNAVAILABLE, /* not now: no quorum, still starting; the same request may succeed later */
	ERR_CODE_MAX
};

#define ERR_TEXT_MAX 1024

/* Owned by the caller, usually on its stack, starting as ERR_INIT. Untouched on success. */
struct err {
	enum err_code code;
	int errnum; /* errno at the failure, 0 when none */
	char text[ERR_TEXT_MAX];
};

#define ERR_INIT ((struct err){0})

/* Fill @e with a kind and a sentence. Returns -1, so that callers can `return err_set(...)`. @e may be NULL. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As err_set with ERR_SYSTEM, and append ": " and the text of errno. */
int err_sys(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Put context in front of what is already in @e: "context: text". Returns -1. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__
/* An analyser that looks at one file at a time must know what these return, or it follows paths on which a function has
 * failed and gone on. */
#define err_set(...) ((err_set)(__VA_ARGS__), -1)
#define err_sys(...) ((err_sys)(__VA_ARGS__), -1)
#define err_wrap(...) ((err_wrap)(__VA_ARGS__), -1)
#endif

/* The name of a kind, for JSON output: "timeout", "auth", ... Never NULL. */
const char *err_code_name(enum err_code code);

/* The HTTP status of a reply that carries this kind of failure, and the exit status of a program that ends with it:
 * 0 done, 1 failed, 2 wrong command line, 3 wrong input, 4 no such object, 5 conflict, 6 not allowed, 7 not now,
 * 8 cancelled. */
int err_http_status(enum err_code code);
int err_exit_status(enum err_code code);

#endif
