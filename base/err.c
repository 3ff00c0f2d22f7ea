/* SPDX-License-Identifier: Apache-2.0 */
/* The error object. */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const code_names[ERR_CODE_MAX] = {
	[ERR_NONE] = "none",
	[ERR_USAGE] = "usage",
	[ERR_INPUT] = "input",
	[ERR_SYSTEM] = "system",
	[ERR_PROTOCOL] = "protocol",
	[ERR_PEER] = "peer",
	[ERR_TIMEOUT] = "timeout",
	[ERR_AUTH] = "auth",
	[ERR_QMP] = "qmp",
	[ERR_UNSUPPORTED] = "unsupported",
	[ERR_NOCONVERGE] = "noconverge",
	[ERR_CANCELLED] = "cancelled",
};

const char *err_code_name(enum err_code code)
{
	return code < ERR_CODE_MAX ? code_names[code] : "unknown";
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
