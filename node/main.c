/* SPDX-License-Identifier: Apache-2.0 */
/* godwitd: the command line. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "hv/accel.h"
#include "node/daemon.h"

static const char usage_text[] =
	"usage: godwitd [OPTIONS]\n"
	"\n"
	"The daemon of one Godwit host: guests, membership, moves, API. Stopping or restarting it never touches a "
	"guest.\n"
	"\n"
	"  --run-dir DIR         guests and the unix socket of this host (/run/godwit)\n"
	"  --state-dir DIR       node.json and state.db (/var/lib/godwit)\n"
	"  --config-dir DIR      certificates, in DIR/pki (/etc/godwit)\n"
	"  --corosync-dir DIR    corosync.conf and authkey (/etc/corosync)\n"
	"  --corosync MODE       who starts corosync: systemd, run (godwitd itself), none\n"
	"                        (systemd where it runs, otherwise run)\n"
	"  --listen ADDR:PORT    the API, once this host is in a cluster ([::]:7443)\n"
	"  --group NAME          its members are admins on the unix socket (godwit, where it exists)\n"
	"  --accel ACCEL         for guests: auto, kvm, tcg (auto)\n"
	"  --user NAME           QEMU runs as this user (godwit-qemu where it exists, otherwise nobody)\n"
	"  --qemu PATH           QEMU (qemu-system-x86_64)\n"
	"  --watchdog MODE       godwit-watchdog: auto (used if it runs), run (godwitd starts it), none (auto)\n"
	"  --watchdog-device DEV what it arms when godwitd starts it: a device, or none (/dev/watchdog)\n"
	"  --fence-agents DIRS   folders of fence agents, with ':' between them (/usr/sbin)\n"
	"  --debug               log more\n"
	"  --help, --version     print this, or the version\n"
	"\n"
	"Signals: TERM ends it, HUP reads the certificates again, USR1 prints the last log lines, debug ones too.\n"
	"Exit: 0 ended by a signal, 1 failed, 2 wrong command line, 3 wrong or damaged files (it says what to do).\n";

enum option_id {
	OPT_RUN_DIR = 256,
	OPT_STATE_DIR,
	OPT_CONFIG_DIR,
	OPT_COROSYNC_DIR,
	OPT_COROSYNC,
	OPT_LISTEN,
	OPT_GROUP,
	OPT_ACCEL,
	OPT_USER,
	OPT_QEMU,
	OPT_WATCHDOG,
	OPT_WATCHDOG_DEVICE,
	OPT_FENCE_AGENTS,
	OPT_DEBUG,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option options[] = {
	{"run-dir", required_argument, NULL, OPT_RUN_DIR},
	{"state-dir", required_argument, NULL, OPT_STATE_DIR},
	{"config-dir", required_argument, NULL, OPT_CONFIG_DIR},
	{"corosync-dir", required_argument, NULL, OPT_COROSYNC_DIR},
	{"corosync", required_argument, NULL, OPT_COROSYNC},
	{"listen", required_argument, NULL, OPT_LISTEN},
	{"group", required_argument, NULL, OPT_GROUP},
	{"accel", required_argument, NULL, OPT_ACCEL},
	{"user", required_argument, NULL, OPT_USER},
	{"qemu", required_argument, NULL, OPT_QEMU},
	{"watchdog", required_argument, NULL, OPT_WATCHDOG},
	{"watchdog-device", required_argument, NULL, OPT_WATCHDOG_DEVICE},
	{"fence-agents", required_argument, NULL, OPT_FENCE_AGENTS},
	{"debug", no_argument, NULL, OPT_DEBUG},
	{"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, OPT_VERSION},
	{0},
};

/* The place of @text in @names, which ends with NULL or after @n. @n: none. */
static int word_find(const char *text, const char *const *names, int n)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(names[i], text))
			return i;
	return n;
}

/* One option. -1: wrong, and said so; 1: done, nothing to run. */
static int option_take(int id, struct daemon_options *o)
{
	int word;

	switch (id) {
	case OPT_RUN_DIR:
		o->run_dir = optarg;
		return 0;
	case OPT_STATE_DIR:
		o->state_dir = optarg;
		return 0;
	case OPT_CONFIG_DIR:
		o->config_dir = optarg;
		return 0;
	case OPT_COROSYNC_DIR:
		o->corosync_dir = optarg;
		return 0;
	case OPT_COROSYNC:
		word = word_find(optarg, ring_mode_names, RING_MODE_MAX);
		if (word == RING_MODE_MAX) {
			fprintf(stderr, "godwitd: --corosync %s: must be systemd, run or none\n", optarg);
			return -1;
		}
		o->corosync = (enum ring_mode)word;
		return 0;
	case OPT_LISTEN:
		o->listen = optarg;
		return 0;
	case OPT_GROUP:
		o->group = optarg;
		return 0;
	case OPT_ACCEL:
		word = word_find(optarg, accel_want_names, ACCEL_WANT_MAX);
		if (word == ACCEL_WANT_MAX) {
			fprintf(stderr, "godwitd: --accel %s: must be auto, kvm or tcg\n", optarg);
			return -1;
		}
		o->accel = (enum accel_want)word;
		return 0;
	case OPT_USER:
		o->user = optarg;
		return 0;
	case OPT_QEMU:
		o->qemu = optarg;
		return 0;
	case OPT_WATCHDOG:
		word = word_find(optarg, watchdog_mode_names, WATCHDOG_MODE_MAX);
		if (word == WATCHDOG_MODE_MAX) {
			fprintf(stderr, "godwitd: --watchdog %s: must be auto, run or none\n", optarg);
			return -1;
		}
		o->watchdog = (enum watchdog_mode)word;
		return 0;
	case OPT_WATCHDOG_DEVICE:
		o->watchdog_device = optarg;
		return 0;
	case OPT_FENCE_AGENTS:
		o->fence_agents = optarg;
		return 0;
	case OPT_DEBUG:
		log_set_level(LOG_LEVEL_DEBUG);
		return 0;
	case OPT_HELP:
		fputs(usage_text, stdout);
		return 1;
	case OPT_VERSION:
		puts("godwitd " GODWIT_VERSION);
		return 1;
	default: /* getopt has said it */
		return -1;
	}
}

int main(int argc, char **argv)
{
	struct daemon_options o = {
		.argv = argv,
		.run_dir = "/run/godwit",
		.state_dir = "/var/lib/godwit",
		.config_dir = "/etc/godwit",
		.corosync_dir = "/etc/corosync",
		.corosync = access("/run/systemd/system", F_OK) == 0 ? RING_SYSTEMD : RING_RUN,
		.accel = ACCEL_AUTO,
	};
	struct err e = ERR_INIT;
	int id, r = 0;

	while (r == 0 && (id = getopt_long(argc, argv, "", options, NULL)) != -1)
		r = option_take(id, &o);
	if (r == 0 && optind < argc) {
		fprintf(stderr, "godwitd: %s: no such argument\n", argv[optind]);
		r = -1;
	}
	if (r < 0) {
		fputs("try godwitd --help\n", stderr);
		return 2;
	}
	if (r > 0)
		return 0;
	if (daemon_run(&o, &e) == 0)
		return 0;
	log_error("event=end error=\"%s\"", e.text);
	return e.code == ERR_INPUT || e.code == ERR_USAGE ? 3 : 1;
}
