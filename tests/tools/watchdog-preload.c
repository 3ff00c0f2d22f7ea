/* SPDX-License-Identifier: Apache-2.0 */
/* A watchdog device for hosts that have none, by LD_PRELOAD: an ordinary file that behaves like /dev/watchdog.
 *
 *   WATCHDOG_DOUBLE=FILE           opening FILE arms it. One opener at a time (EBUSY), ioctls as the kernel's, 'V' and
 * close disarm it; any other end leaves it armed, and closing so pets it once more, as the kernel does
 *   WATCHDOG_DOUBLE_EXPIRED=CMD    run by a shell, once, when it was not petted in time
 *   WATCHDOG_DOUBLE_MIN, _MAX=S    the shortest and longest time-out that the driver takes (default 1, 65535)
 *   WATCHDOG_DOUBLE_FIXED=1        a driver whose time-out cannot be set
 *
 * The timer is a process of its own, so it goes on when its opener is stopped, killed or replaced. FILE.log gets a line
 * per open, set, pet, close and expiry, with the time (ns of CLOCK_BOOTTIME). FILE.stall, if it is there, holds
 * milliseconds that the next petting is late by. FILE.broken makes petting fail.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* In FILE; shared by the opener, its successor and the timer. */
struct device {
	volatile int64_t petted_ns;
	volatile int32_t timeout_s;
	volatile int32_t armed;
	volatile int32_t magic; /* 'V' was the last write */
	volatile int32_t timer; /* the timer's process */
};

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static const char *device_path(void)
{
	return getenv("WATCHDOG_DOUBLE");
}

static int (*real_open)(const char *path, int flags, ...);
static int (*real_close)(int fd);
static int (*real_ioctl)(int fd, unsigned long request, ...);
static ssize_t (*real_write)(int fd, const void *buf, size_t n);

static void __attribute__((constructor)) find_real(void)
{
	real_open = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
	real_close = (int (*)(int))dlsym(RTLD_NEXT, "close");
	real_ioctl = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
	real_write = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
}

static void note(const char *what, int64_t number)
{
	char path[512], line[128];
	int n = snprintf(line, sizeof(line), "%lld %s %lld\n", (long long)now_ns(), what, (long long)number);
	int fd;

	snprintf(path, sizeof(path), "%s.log", device_path());
	fd = real_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	(void)!real_write(fd, line, (size_t)n);
	real_close(fd);
}

/* Whether @fd is the device, in the program that opened it or in the one that it has become. */
static bool is_device(int fd)
{
	struct stat a, b;

	return device_path() && fstat(fd, &a) == 0 && S_ISREG(a.st_mode) && stat(device_path(), &b) == 0 &&
	       a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

static struct device *map(int fd)
{
	void *p = mmap(NULL, sizeof(struct device), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

static int env_int(const char *name, int otherwise)
{
	return getenv(name) ? atoi(getenv(name)) : otherwise;
}

/* The hardware. */
static _Noreturn void timer_main(struct device *of_opener)
{
	const char *command = getenv("WATCHDOG_DOUBLE_EXPIRED");
	int own = real_open(device_path(), O_RDWR | O_CLOEXEC);
	struct device *d = map(own);

	/* The mapping that was inherited holds the opener's lock, as a descriptor would. */
	munmap((void *)of_opener, sizeof(*of_opener));
	setsid();
	for (int fd = 0; fd < 1024; fd++)
		real_close(fd);
	unsetenv("LD_PRELOAD");
	while (d->armed) {
		if (now_ns() - d->petted_ns >= d->timeout_s * 1000000000LL) {
			note("expired", d->timeout_s);
			d->armed = 0;
			if (command)
				execl("/bin/sh", "sh", "-c", command, NULL);
			_exit(0);
		}
		usleep(5000);
	}
	_exit(0);
}

/* The timer is a grandchild: its opener must not find a child that it did not start. It is waited for until it has
 * closed what it got of its opener's, locks and sockets among them: then the pipe ends. */
static void timer_start(struct device *d)
{
	int ends[2];
	char none;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		abort();
	pid = fork();
	if (pid == 0) {
		pid = fork();
		if (pid == 0)
			timer_main(d);
		d->timer = pid;
		_exit(0);
	}
	real_close(ends[1]);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	(void)!read(ends[0], &none, 1);
	real_close(ends[0]);
}

static int device_open(const char *path)
{
	int fd = real_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct device *d;

	if (fd < 0)
		return -1;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		real_close(fd);
		errno = EBUSY;
		return -1;
	}
	if (ftruncate(fd, sizeof(struct device)) < 0)
		return -1;
	d = map(fd);
	d->magic = 0;
	d->petted_ns = now_ns();
	if (!d->timeout_s)
		d->timeout_s = 60;
	note("open", d->timeout_s);
	if (!d->armed) {
		d->armed = 1;
		timer_start(d);
	}
	munmap((void *)d, sizeof(*d));
	return fd;
}

static int open_any(const char *path, int flags, mode_t mode)
{
	if (device_path() && strcmp(path, device_path()) == 0)
		return device_open(path);
	return real_open(path, flags, mode);
}

int open(const char *file, int oflag, ...);
int open64(const char *file, int oflag, ...);
int __open_2(const char *file, int oflag);
int __open64_2(const char *file, int oflag);
int ioctl(int fd, unsigned long request, ...);

int open(const char *file, int oflag, ...)
{
	mode_t mode;
	va_list ap;

	va_start(ap, oflag);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	return open_any(file, oflag, mode);
}

int open64(const char *file, int oflag, ...)
{
	mode_t mode;
	va_list ap;

	va_start(ap, oflag);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	return open_any(file, oflag, mode);
}

/* What a fortified program calls. */
int __open_2(const char *file, int oflag)
{
	return open_any(file, oflag, 0);
}

int __open64_2(const char *file, int oflag)
{
	return open_any(file, oflag, 0);
}

static bool file_beside(const char *suffix, int *ret)
{
	char path[512], text[32] = "";
	int fd;

	snprintf(path, sizeof(path), "%s.%s", device_path(), suffix);
	fd = real_open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	*ret = read(fd, text, sizeof(text) - 1) > 0 ? atoi(text) : 0;
	real_close(fd);
	if (strcmp(suffix, "stall") == 0)
		unlink(path);
	return true;
}

static int device_ioctl(struct device *d, unsigned long request, void *arg)
{
	int min = env_int("WATCHDOG_DOUBLE_MIN", 1), max = env_int("WATCHDOG_DOUBLE_MAX", 65535);
	bool fixed = env_int("WATCHDOG_DOUBLE_FIXED", 0) != 0;
	struct watchdog_info *info = arg;
	int n;

	switch (request) {
	case WDIOC_GETSUPPORT:
		*info = (struct watchdog_info){.options = WDIOF_KEEPALIVEPING | WDIOF_MAGICCLOSE};
		info->options |= fixed ? 0U : WDIOF_SETTIMEOUT;
		memcpy(info->identity, "watchdog double", sizeof("watchdog double"));
		return 0;
	case WDIOC_SETTIMEOUT:
		n = *(int *)arg;
		if (fixed || n < 1) {
			errno = EINVAL;
			return -1;
		}
		d->timeout_s = n < min ? min : n > max ? max : n;
		d->petted_ns = now_ns();
		*(int *)arg = d->timeout_s;
		note("set", d->timeout_s);
		return 0;
	case WDIOC_GETTIMEOUT:
		*(int *)arg = d->timeout_s;
		return 0;
	case WDIOC_KEEPALIVE:
		if (file_beside("broken", &n)) {
			errno = EIO;
			return -1;
		}
		if (file_beside("stall", &n))
			usleep((useconds_t)n * 1000);
		d->petted_ns = now_ns();
		note("pet", 0);
		return 0;
	default:
		errno = ENOTTY;
		return -1;
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	struct device *d;
	va_list ap;
	void *arg;
	int r;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (!is_device(fd))
		return real_ioctl(fd, request, arg);
	d = map(fd);
	r = device_ioctl(d, request, arg);
	munmap((void *)d, sizeof(*d));
	return r;
}

ssize_t write(int fd, const void *buf, size_t n)
{
	struct device *d;

	if (!is_device(fd))
		return real_write(fd, buf, n);
	d = map(fd);
	d->magic = memchr(buf, 'V', n) != NULL;
	d->petted_ns = now_ns();
	munmap((void *)d, sizeof(*d));
	return (ssize_t)n;
}

int close(int fd)
{
	struct device *d;

	if (!is_device(fd))
		return real_close(fd);
	d = map(fd);
	note("close", d->magic);
	if (d->magic)
		d->armed = 0;
	else
		d->petted_ns = now_ns();
	munmap((void *)d, sizeof(*d));
	/* A timer that has just been forked may not have closed its copy yet. */
	flock(fd, LOCK_UN);
	return real_close(fd);
}
