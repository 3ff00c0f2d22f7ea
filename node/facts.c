/* SPDX-License-Identifier: Apache-2.0 */
/* What this host reports about itself.
 *
 * Free memory. A guest's RAM is a memfd of which only the touched pages exist, so a host with ten fresh guests looks
 * empty and is not: the kernel's MemAvailable counts what those guests have not touched yet, and they may touch it at
 * any moment. It is taken off.
 */
#include "node/facts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

#define PROC_FILE_MAX 16384 /* bytes; what is looked for comes early in these files */

/* The number of kB behind "@key:" at the begin of a line. */
static bool kib_of(const char *text, const char *key, uint64_t *ret)
{
	size_t len = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		char *end;

		if (strncmp(line, key, len) != 0 || line[len] != ':')
			continue;
		errno = 0;
		*ret = strtoull(line + len + 1, &end, 10);
		return errno == 0 && strncmp(end, " kB", 3) == 0;
	}
	return false;
}

int facts_parse_meminfo(const char *text, struct facts_memory *ret, struct err *e)
{
	uint64_t total, available;

	if (!kib_of(text, "MemTotal", &total) || !kib_of(text, "MemAvailable", &available) ||
	    total > UINT64_MAX / 1024 || available > total)
		return err_set(e, ERR_PROTOCOL, "/proc/meminfo does not say MemTotal and MemAvailable");
	*ret = (struct facts_memory){.total = total * 1024, .available = available * 1024};
	return 0;
}

int facts_parse_loadavg(const char *text, double *ret, struct err *e)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end != ' ' || !(v >= 0))
		return err_set(e, ERR_PROTOCOL, "/proc/loadavg does not begin with a load");
	*ret = v;
	return 0;
}

uint64_t facts_parse_resident(const char *text)
{
	uint64_t kib;

	return kib_of(text, "RssShmem", &kib) && kib <= UINT64_MAX / 1024 ? kib * 1024 : 0;
}

uint64_t facts_free(const struct facts_memory *m, const struct facts_guest *guests, size_t n)
{
	uint64_t left = m->available;

	for (size_t i = 0; i < n; i++) {
		uint64_t untouched = guests[i].memory > guests[i].resident ? guests[i].memory - guests[i].resident : 0;

		left = left > untouched ? left - untouched : 0;
	}
	return left;
}

/* The beginning of a file of /proc. Caller frees; NULL with @e. */
static char *proc_read(const char *path, struct err *e)
{
	_closefd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	_free_ char *buf = xcalloc(PROC_FILE_MAX + 1, 1);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, PROC_FILE_MAX);

	if (n < 0) {
		err_sys(e, "%s", path);
		return NULL;
	}
	return steal_ptr(buf);
}

uint64_t facts_resident(pid_t pid)
{
	_free_ char *path = xasprintf("/proc/%d/status", (int)pid);
	_free_ char *text = proc_read(path, NULL);

	return text ? facts_parse_resident(text) : 0;
}

static json_t *clock_json(void)
{
	struct timex t = {.modes = 0};
	struct timespec now;
	int state = adjtimex(&t);

	clock_gettime(CLOCK_REALTIME, &now);
	return json_pack("{s:I, s:b, s:I}", "unix_ms", (json_int_t)now.tv_sec * 1000 + now.tv_nsec / 1000000,
			 "synchronized", state >= 0 && state != TIME_ERROR, "error_ms", (json_int_t)t.maxerror / 1000);
}

static json_t *versions_json(const struct facts_input *in)
{
	json_int_t qemu = json_integer_value(json_object_get(in->cpu, "qemu"));
	json_t *o = json_object();
	struct utsname u;

	uname(&u);
	json_object_set_new(o, "godwit", json_string(in->version));
	json_object_set_new(o, "kernel", json_string(u.release));
	json_object_set_new(
		o, "qemu",
		qemu > 0 ? json_sprintf("%d.%d.%d", (int)(qemu / 10000), (int)(qemu / 100 % 100), (int)(qemu % 100))
			 : json_null());
	return o;
}

static json_t *memory_json(const struct facts_memory *m, const struct facts_input *in)
{
	uint64_t promised = 0;

	for (size_t i = 0; i < in->n_guests; i++)
		promised += in->guests[i].memory;
	return json_pack("{s:I, s:I, s:I, s:I}", "total", (json_int_t)m->total, "available", (json_int_t)m->available,
			 "promised", (json_int_t)promised, "free", (json_int_t)facts_free(m, in->guests, in->n_guests));
}

json_t *facts_read(const struct facts_input *in, struct err *e)
{
	_free_ char *meminfo = proc_read("/proc/meminfo", e);
	_free_ char *loadavg = meminfo ? proc_read("/proc/loadavg", e) : NULL;
	_free_ char *boot = loadavg ? proc_read("/proc/sys/kernel/random/boot_id", e) : NULL;
	struct facts_memory m;
	double load = 0;

	if (!boot || facts_parse_meminfo(meminfo, &m, e) < 0 || facts_parse_loadavg(loadavg, &load, e) < 0)
		return NULL;
	boot[strcspn(boot, "\n")] = 0;
	return json_pack("{s:o, s:i, s:f, s:O, s:O?, s:o, s:s, s:o}", "memory", memory_json(&m, in), "cpus",
			 (int)sysconf(_SC_NPROCESSORS_ONLN), "load", load, "networks", in->networks, "cpu", in->cpu,
			 "versions", versions_json(in), "boot_id", boot, "clock", clock_json());
}
