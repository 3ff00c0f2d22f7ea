/* SPDX-License-Identifier: Apache-2.0 */
/* A watchdog device, by the kernel's interface (Documentation/watchdog/watchdog-api.rst): opening it arms it, an ioctl
 * pets it, and only a close after a written 'V' disarms it. */
#include "fencing/watchdog.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/mem.h"

/* Does one of the descriptors in @fd_dir lead to @path, or to the other name of the same device? The kernel has the
 * first watchdog twice: as /dev/watchdog and as /dev/watchdog0. */
static bool fd_dir_has(const char *fd_dir, const char *path)
{
	DIR *d = opendir(fd_dir);
	bool found = false;
	struct dirent *entry;
	char link[256];

	while (d && !found && (entry = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), entry->d_name, link, sizeof(link) - 1);

		if (n <= 0)
			continue;
		link[n] = 0;
		found = strcmp(link, path) == 0 ||
			(strcmp(path, WATCHDOG_DEVICE) == 0 && strcmp(link, WATCHDOG_DEVICE "0") == 0) ||
			(strcmp(path, WATCHDOG_DEVICE "0") == 0 && strcmp(link, WATCHDOG_DEVICE) == 0);
	}
	if (d)
		closedir(d);
	return found;
}

static void process_name(const char *pid, char *buf, size_t size)
{
	_free_ char *path = xasprintf("/proc/%s/comm", pid);
	_closefile_ FILE *f = fopen(path, "re");
	char name[64] = "";

	if (f && fgets(name, sizeof(name), f))
		name[strcspn(name, "\n")] = 0;
	snprintf(buf, size, "%s (process %s)", name[0] ? name : "a program", pid);
}

bool watchdog_holder(const char *path, char *buf, size_t size)
{
	DIR *proc = opendir("/proc");
	bool found = false;
	struct dirent *entry;

	buf[0] = 0;
	while (proc && !found && (entry = readdir(proc))) {
		_free_ char *fd_dir = NULL;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		fd_dir = xasprintf("/proc/%s/fd", entry->d_name);
		found = fd_dir_has(fd_dir, path);
		if (found)
			process_name(entry->d_name, buf, size);
	}
	if (proc)
		closedir(proc);
	return found;
}

/* Why the device could not be opened. */
static int open_error(const char *path, struct err *e)
{
	char who[128];

	if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
		return err_set(e, ERR_NOTFOUND,
			       "watchdog %s: there is none; load the driver of this host's hardware, or softdog "
			       "(modprobe softdog), or do without one (--device none)",
			       path);
	if (errno != EBUSY)
		return err_sys(e, "watchdog %s", path);
	watchdog_holder(path, who, sizeof(who));
	if (strncmp(who, "systemd (", strlen("systemd (")) == 0)
		return err_set(e, ERR_CONFLICT,
			       "watchdog %s is held by %s; set RuntimeWatchdogSec=off in /etc/systemd/system.conf and "
			       "run systemctl daemon-reexec, or give another device with --device",
			       path, who);
	return err_set(e, ERR_CONFLICT,
		       "watchdog %s is held by %s; stop that program for good, or give another device with --device",
		       path, who[0] ? who : "another program");
}

/* "nowayout" as sysfs tells it. A driver without magic close disarms at no close, or at any: the worse is assumed. */
static bool device_forever(const char *path, bool magic_close)
{
	const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	_free_ char *file =
		xasprintf("/sys/class/watchdog/%s/nowayout", strcmp(name, "watchdog") == 0 ? "watchdog0" : name);
	_closefile_ FILE *f = fopen(file, "re");
	int c = f ? fgetc(f) : EOF;

	return !magic_close || c == '1';
}

int watchdog_set(struct watchdog *w, const char *path, unsigned timeout_s, struct err *e)
{
	int set = (int)timeout_s, is = 0;

	if (ioctl(w->fd, WDIOC_SETTIMEOUT, &set) < 0)
		return err_set(e, ERR_UNSUPPORTED, "watchdog %s (%s) does not take %u seconds as its time-out: %s",
			       path, w->identity, timeout_s, strerror(errno));
	/* What the driver rounded to; some tell it in one of the two places only. */
	if (ioctl(w->fd, WDIOC_GETTIMEOUT, &is) < 0 || is <= 0)
		is = set;
	if (is < (int)timeout_s)
		return err_set(
			e, ERR_UNSUPPORTED,
			"watchdog %s (%s) made its time-out %d seconds instead of %u, which leaves no time to stop "
			"guests in order; make cluster.token-ms shorter, or give another device",
			path, w->identity, is, timeout_s);
	w->timeout_s = (unsigned)is;
	return 0;
}

/* Learn what the open device is. */
static int device_look(struct watchdog *w, const char *path, struct err *e)
{
	struct watchdog_info info = {0};

	if (ioctl(w->fd, WDIOC_GETSUPPORT, &info) < 0) {
		err_set(e, ERR_UNSUPPORTED, "%s is no watchdog device (%s)", path, strerror(errno));
		/* Nothing is written into what may be somebody's file. */
		close(steal_fd(&w->fd));
		return -1;
	}
	memcpy(w->identity, info.identity, sizeof(info.identity));
	w->identity[sizeof(info.identity)] = 0;
	if (!(info.options & WDIOF_SETTIMEOUT))
		return err_set(
			e, ERR_UNSUPPORTED,
			"watchdog %s (%s): its time-out cannot be set, so nothing can be said about when it resets "
			"the host; give another device with --device",
			path, w->identity);
	w->forever = device_forever(path, info.options & WDIOF_MAGICCLOSE);
	return 0;
}

int watchdog_take(int fd, const char *path, unsigned timeout_s, struct watchdog *ret, struct err *e)
{
	struct watchdog w = {.fd = fd};

	if (device_look(&w, path, e) < 0 || watchdog_set(&w, path, timeout_s, e) < 0) {
		watchdog_close(&w);
		return -1;
	}
	*ret = w;
	return 0;
}

int watchdog_open(const char *path, unsigned timeout_s, struct watchdog *ret, struct err *e)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return open_error(path, e);
	return watchdog_take(fd, path, timeout_s, ret, e);
}

int watchdog_pet(struct watchdog *w, struct err *e)
{
	int unused = 0;

	if (ioctl(w->fd, WDIOC_KEEPALIVE, &unused) < 0)
		return err_sys(e, "petting the watchdog (%s)", w->identity);
	return 0;
}

void watchdog_close(struct watchdog *w)
{
	if (w->fd >= 0) {
		(void)!write(w->fd, "V", 1);
		close(w->fd);
	}
	*w = WATCHDOG_INIT;
}
