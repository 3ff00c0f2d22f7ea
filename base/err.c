/* SPDX-License-Identifier: Apache-2.0 */
/* The error object. */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* One row for each kind of failure: how JSON, HTTP and a shell see it. */
static const struct {
	const char *name;
	int http;
	int exit;
} codes[ERR_CODE_MAX] = {
	[ERR_NONE] = {"none", 200, 0},
	[ERR_USAGE] = {"usage", 400, 2},
	[ERR_INPUT] = {"input", 400, 3},
	[ERR_SYSTEM] = {"system", 500, 1},
	[ERR_PROTOCOL] = {"protocol", 502, 1},
	[ERR_PEER] = {"peer", 502, 1},
	[ERR_TIMEOUT] = {"timeout", 504, 7},
	[ERR_AUTH] = {"auth", 401, 6},
	[ERR_QMP] = {"qmp", 502, 1},
	[ERR_UNSUPPORTED] = {"unsupported", 422, 1},
	[ERR_NOCONVERGE] = {"noconverge", 409, 1},
	[ERR_CANCELLED] = {"cancelled", 409, 8},
	[ERR_NOTFOUND] = {"notfound", 404, 4},
	[ERR_CONFLICT] = {"conflict", 409, 5},
	[ERR_FORBIDDEN] = {"forbidden", 403, 6},
	[ERR_UNAVAILABLE] = {"unavailable", 503, 7},
};

const char *err_code_name(enum err_code code)
{
	return code < ERR_CODE_MAX ? codes[code].name : "unknown";
}

int err_http_status(enum err_code code)
{
	return code < ERR_CODE_MAX ? codes[code].http : 500;
}

int err_exit_status(enum err_code code)
{
	return code < ERR_CODE_MAX ? codes[code].exit : 1;
}

int(err_set)(struct err *e, enum err_code code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return -1;
	e->code = code;
	e->errnum = 0;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	return -1;
}

int(err_sys)(struct err *e, const char *fmt, ...)
{
	int errnum = errno;
	size_t used;
	va_list ap;

	if (!e)
		return -1;
	e->code = ERR_SYSTEM;
	e->errnum = errnum;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	used = strlen(e->text);
	snprintf(e->text + used, sizeof(e->text) - used, ": %s", strerror(errnum));
	return -1;
}

int(err_wrap)(struct err *e, const char *fmt, ...)
{
	char old[ERR_TEXT_MAX];
	size_t used;
	va_list ap;

	if (!e)
		return -1;
	memcpy(old, e->text, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	used = strlen(e->text);
	snprintf(e->text + used, sizeof(e->text) - used, ": %.*s", (int)sizeof(old) - 1, old);
	return -1;
}
