/* SPDX-License-Identifier: Apache-2.0 */
/* godwit-watchdog: ends this host's guests when its lease is over, and has the hardware reset the host if it cannot. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "fencing/keeper-client.h"
#include "fencing/watchdog.h"
#include "hv/rundir.h"
#include "watchdog/serve.h"

#define HEAP_RESERVE (4U << 20) /* the records of some hundred guests, read one after the other */
#define STACK_RESERVE (256U << 10)
#define STATUS_SECONDS 2

static const char help_text[] = "godwit-watchdog: ends this host's guests when its lease is over, and has the\n"
				"hardware reset the host if they do not end.\n"
				"\n"
				"  --run-dir DIR   where guests are kept track of (default: /run/godwit for root,\n"
				"                  $XDG_RUNTIME_DIR/godwit or /tmp/godwit-UID for others)\n"
				"  --device PATH   the watchdog device (default /dev/watchdog), or none\n"
				"  --status        print what the one that runs is doing, and end\n"
				"  --help, --version\n"
				"\n"
				"Signals: TERM ends it as soon as no guest of the cluster is left here; HUP makes it\n"
				"the version that is now installed, the device staying open; USR1 prints its log.\n"
				"Exit: 0 done, 1 failed, 2 wrong command line, 7 it does not run (--status).\n";

/* What may be refused to us is told and not needed: the device resets a host where we are too late. */
static void refused(const char *what)
{
	log_warning("event=not_hardened what=\"%s\" error=\"%s\"", what, strerror(errno));
}

/* All memory that will be needed is there, and stays there, before anything goes wrong on this host. */
static void memory_lock(void)
{
	volatile char stack[STACK_RESERVE];
	char *heap;

	for (size_t i = 0; i < sizeof(stack); i += 4096)
		stack[i] = 0;
	/* free() keeps what it gets, malloc() does not go to the kernel for large pieces. */
	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	mallopt(M_MMAP_MAX, 0);
	heap = malloc(HEAP_RESERVE);
	for (size_t i = 0; heap && i < HEAP_RESERVE; i += 4096)
		((volatile char *)heap)[i] = 0;
	free(heap);
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		refused("locked memory");
}

/* The log must not stop us: neither a reader that is gone nor one that hangs, as journald does where its disk does.
 * Lines are lost then. The description of a pipe may be shared with whoever started us, so ours is a new one. */
static void log_never_waits(void)
{
	struct stat st;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	if (fstat(STDERR_FILENO, &st) < 0)
		return;
	if (S_ISSOCK(st.st_mode))
		(void)fcntl(STDERR_FILENO, F_SETFL, fcntl(STDERR_FILENO, F_GETFL) | O_NONBLOCK);
	if (!S_ISFIFO(st.st_mode))
		return;
	fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0)
		dup2(fd, STDERR_FILENO);
	mem_closep(&fd);
}

static void harden(void)
{
	struct sched_param p = {.sched_priority = sched_get_priority_min(SCHED_RR)};
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "-1000", 5) != 5)
		refused("spared by the OOM killer");
	mem_closep(&fd);
	if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &p) < 0)
		refused("real-time priority");
	memory_lock();
}

static void status_print(const struct keeper_status *s)
{
	int64_t now = clock_boot_ns();

	printf("%-10s %s%s\n", "state", keeper_state_names[s->state], s->leaving ? ", ends when no guest is left" : "");
	if (s->state == KEEPER_ARMED)
		printf("%-10s in %lld ms\n", "deadline", (long long)((s->until_ns - now) / NS_PER_MS));
	if (s->state == KEEPER_STOPPING)
		printf("%-10s %u\n", "alive", s->alive);
	if (s->device == KEEPER_DEVICE_ARMED)
		printf("%-10s armed, %u s (%s)%s\n", "device", s->watchdog_s, s->device_text,
		       s->forever ? ", cannot be disarmed" : "");
	else
		printf("%-10s %s%s%s\n", "device", keeper_device_names[s->device], s->device_text[0] ? ": " : "",
		       s->device_text);
	if (s->report.serial)
		printf("%-10s %u guests, %lld s ago, %s, within %lld ms%s\n", "stopped", s->report.guests,
		       (long long)((now - s->report.at_ns) / NS_PER_S), keeper_cause_names[s->report.cause],
		       (long long)(s->report.took_ns / NS_PER_MS), s->report.seen ? "" : ", not reported yet");
}

static int status_main(const char *run_dir)
{
	struct keeper_client k = KEEPER_CLIENT_INIT;
	struct keeper_status s;
	struct err e = ERR_INIT;

	if (keeper_connect(run_dir, clock_now_ns() + STATUS_SECONDS * NS_PER_S, &k, &s, &e) < 0) {
		fprintf(stderr, "godwit-watchdog: %s\n", e.text);
		return e.code == ERR_NOTFOUND ? 7 : 1;
	}
	status_print(&s);
	keeper_close(&k);
	return 0;
}

enum { OPT_RUN_DIR = 1, OPT_DEVICE, OPT_STATUS, OPT_HELP, OPT_VERSION };

static const struct option options[] = {
	{"run-dir", required_argument, NULL, OPT_RUN_DIR}, {"device", required_argument, NULL, OPT_DEVICE},
	{"status", no_argument, NULL, OPT_STATUS},         {"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, OPT_VERSION},       {0},
};

static int usage(const char *why, const char *value)
{
	if (why)
		fprintf(stderr, "godwit-watchdog: %s%s\n", value, why);
	fputs("try godwit-watchdog --help\n", stderr);
	return 2;
}

int main(int argc, char **argv)
{
	struct serve_legacy legacy = serve_legacy();
	_free_ char *run_dir = rundir_default();
	struct serve_options o = {.run_dir = run_dir, .device = WATCHDOG_DEVICE, .argv = argv};
	bool status = false;
	struct err e = ERR_INIT;
	int id;

	while ((id = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (id) {
		case OPT_RUN_DIR:
			o.run_dir = optarg;
			break;
		case OPT_DEVICE:
			o.device = strcmp(optarg, "none") == 0 ? NULL : optarg;
			break;
		case OPT_STATUS:
			status = true;
			break;
		case OPT_HELP:
			fputs(help_text, stdout);
			return 0;
		case OPT_VERSION:
			puts("godwit-watchdog " GODWIT_VERSION);
			return 0;
		default: /* getopt has said it */
			return usage(NULL, NULL);
		}
	}
	if (optind < argc)
		return usage(": no such argument", argv[optind]);
	if (o.run_dir[0] != '/' || (o.device && o.device[0] != '/'))
		return usage(": write the whole path, from /", o.run_dir[0] != '/' ? o.run_dir : o.device);
	if (status)
		return status_main(o.run_dir);
	umask(0077);
	log_never_waits();
	harden();
	if (serve_run(&o, &legacy, &e) == 0)
		return 0;
	log_error("event=end error=\"%s\"", e.text);
	return 1;
}
