/* SPDX-License-Identifier: Apache-2.0 */
/* godwit-migrate: the data plane of one migration, one process on each side. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "migrate/engine.h"
#include "migrate/handover.h"

#define MAX_PAUSE_DEFAULT 300
#define MAX_PAUSE_MAX 60000
#define SETTLE_DEFAULT 120

static const char help_text[] =
	"Usage: godwit-migrate send    --qmp SOCKET --to HOST:PORT     (--tls DIR | --plaintext) [OPTIONS]\n"
	"       godwit-migrate receive --qmp SOCKET --listen ADDR:PORT (--tls DIR | --plaintext) [OPTIONS]\n"
	"       godwit-migrate receive --dry-run    --listen ADDR:PORT (--tls DIR | --plaintext) [OPTIONS]\n"
	"       godwit-migrate save    --qmp SOCKET FILE [OPTIONS]\n"
	"       godwit-migrate restore --qmp SOCKET FILE [OPTIONS]\n"
	"\n"
	"Moves a running guest between two QEMUs, each named by a QMP socket of its own that no other client uses.\n"
	"\n"
	"  --qmp SOCKET         the QEMU on this host; for receive and restore it must run with -incoming defer\n"
	"  --to HOST:PORT       send: where the receiver listens\n"
	"  --listen ADDR:PORT   receive: where to listen (port 0: any free one, printed)\n"
	"  --tls DIR            TLS 1.3 with ca.pem, cert.pem and key.pem in DIR; both sides are verified\n"
	"  --plaintext          no encryption: for networks that nobody else can reach\n"
	"  --peer NAME          receive: the name that the sender's certificate must have\n"
	"  --token-file FILE    the one-time token; receive writes it there when the file does not exist\n"
	"  --max-pause MS       send: the longest pause of the guest that is allowed (default 300)\n"
	"  --channels N         send: connections for pages, 1 to 16 (default from the number of cores)\n"
	"  --bandwidth MB/S     send: carry at most so many megabytes (10^6 bytes) a second\n"
	"  --auto-converge      send: let QEMU slow the guest down when it writes faster than the wire carries\n"
	"  --deadline S         send: give up when the copy takes longer\n"
	"  --dry-run            send: measure and print the forecast, move nothing; receive: serve one such\n"
	"                       measurement, take no guest\n"
	"  --keep-source        send, save: leave the old QEMU stopped instead of ending it\n"
	"  --wait S             receive: how long to wait for a sender (default: for ever)\n"
	"  --settle S           after a cut at the hand-over: how long to ask or wait for the other side (default "
	"120)\n"
	"  --agree-fd N         send: hand over only once a 'y' can be read from descriptor N\n"
	"  --record-fd N        send, receive: keep the step of the hand-over in the file that is open as N\n"
	"  --json               one JSON object per line on standard output\n"
	"  --help               this text\n"
	"\n"
	"Exit codes: 0 done; 1 failed, the guest runs on where it was; 2 wrong usage; 3 cancelled, the guest runs on\n"
	"where it was; 4 undecided, the guest is stopped and the last line says what to do; 5 the guest's QEMU died.\n";

enum option_id {
	OPT_QMP = 256,
	OPT_TO,
	OPT_LISTEN,
	OPT_TLS,
	OPT_PLAINTEXT,
	OPT_PEER,
	OPT_TOKEN,
	OPT_PAUSE,
	OPT_CHANNELS,
	OPT_BANDWIDTH,
	OPT_CONVERGE,
	OPT_DEADLINE,
	OPT_DRY,
	OPT_KEEP,
	OPT_WAIT,
	OPT_SETTLE,
	OPT_AGREE,
	OPT_RECORD,
	OPT_JSON,
	OPT_HELP
};

#define SEND 0x1
#define RECEIVE 0x2
#define SAVE 0x4
#define RESTORE 0x8
#define ALL (SEND | RECEIVE | SAVE | RESTORE)

static const struct option options[] = {
	{"qmp", required_argument, NULL, OPT_QMP},
	{"to", required_argument, NULL, OPT_TO},
	{"listen", required_argument, NULL, OPT_LISTEN},
	{"tls", required_argument, NULL, OPT_TLS},
	{"plaintext", no_argument, NULL, OPT_PLAINTEXT},
	{"peer", required_argument, NULL, OPT_PEER},
	{"token-file", required_argument, NULL, OPT_TOKEN},
	{"max-pause", required_argument, NULL, OPT_PAUSE},
	{"channels", required_argument, NULL, OPT_CHANNELS},
	{"bandwidth", required_argument, NULL, OPT_BANDWIDTH},
	{"auto-converge", no_argument, NULL, OPT_CONVERGE},
	{"deadline", required_argument, NULL, OPT_DEADLINE},
	{"dry-run", no_argument, NULL, OPT_DRY},
	{"keep-source", no_argument, NULL, OPT_KEEP},
	{"wait", required_argument, NULL, OPT_WAIT},
	{"settle", required_argument, NULL, OPT_SETTLE},
	{"agree-fd", required_argument, NULL, OPT_AGREE},
	{"record-fd", required_argument, NULL, OPT_RECORD},
	{"json", no_argument, NULL, OPT_JSON},
	{"help", no_argument, NULL, OPT_HELP},
	{NULL, 0, NULL, 0},
};

/* Which verbs take which option, in the order of enum option_id. */
static const unsigned option_verbs[] = {
	ALL,  SEND, RECEIVE, SEND | RECEIVE, SEND | RECEIVE, RECEIVE, SEND | RECEIVE, SEND, SEND,
	SEND, SEND, SEND,    SEND | RECEIVE, SEND | SAVE,    RECEIVE, SEND | RECEIVE, SEND, SEND | RECEIVE,
	ALL,  ALL,
};

struct verb {
	const char *name;
	unsigned bit;
	enum outcome (*run)(const struct engine_options *opt, struct report *r);
};

static const struct verb verbs[] = {
	{"send", SEND, send_run},
	{"receive", RECEIVE, receive_run},
	{"save", SAVE, save_run},
	{"restore", RESTORE, restore_run},
};

static int parse_number(const char *name, const char *text, unsigned long min, unsigned long max, unsigned long *ret,
			struct err *e)
{
	char *end;

	errno = 0;
	*ret = strtoul(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || *ret < min || *ret > max)
		return err_set(e, ERR_USAGE, "--%s %s: must be a whole number from %lu to %lu", name, text, min, max);
	return 0;
}

/* @text, of option @name, is the open descriptor @fd, and not one that is only for @useless. */
static int check_fd(const char *name, const char *text, int fd, int useless, struct err *e)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return err_set(e, ERR_USAGE, "--%s %s: is not open", name, text);
	if ((flags & O_ACCMODE) == useless)
		return err_set(e, ERR_USAGE, "--%s %s: is open for %s only", name, text,
			       useless == O_WRONLY ? "writing" : "reading");
	return 0;
}

static int parse_option(struct engine_options *o, int id, const char *arg, struct err *e)
{
	unsigned long n = 0;

	switch (id) {
	case OPT_QMP:
		o->qmp_path = arg;
		return 0;
	case OPT_TO:
	case OPT_LISTEN:
		o->addr_text = arg;
		return sock_addr_parse(arg, &o->addr, e);
	case OPT_TLS:
		o->tls_dir = arg;
		return 0;
	case OPT_PLAINTEXT:
		o->plaintext = true;
		return 0;
	case OPT_PEER:
		o->peer_name = arg;
		return 0;
	case OPT_TOKEN:
		o->token_file = arg;
		return 0;
	case OPT_PAUSE:
		if (parse_number("max-pause", arg, 1, MAX_PAUSE_MAX, &n, e) < 0)
			return -1;
		o->max_pause_ms = (unsigned)n;
		return 0;
	case OPT_CHANNELS:
		if (parse_number("channels", arg, 1, WIRE_CHANNELS_MAX, &n, e) < 0)
			return -1;
		o->channels = (unsigned)n;
		return 0;
	case OPT_BANDWIDTH:
		if (parse_number("bandwidth", arg, 1, 1000000, &n, e) < 0)
			return -1;
		o->bandwidth = n * 1000000;
		return 0;
	case OPT_CONVERGE:
		o->auto_converge = true;
		return 0;
	case OPT_DEADLINE:
		if (parse_number("deadline", arg, 1, 1000000, &n, e) < 0)
			return -1;
		o->deadline_s = (unsigned)n;
		return 0;
	case OPT_DRY:
		o->dry_run = true;
		return 0;
	case OPT_KEEP:
		o->keep_source = true;
		return 0;
	case OPT_WAIT:
		if (parse_number("wait", arg, 1, 1000000, &n, e) < 0)
			return -1;
		o->wait_s = (unsigned)n;
		return 0;
	case OPT_SETTLE:
		if (parse_number("settle", arg, 1, 1000000, &n, e) < 0)
			return -1;
		o->settle_s = (unsigned)n;
		return 0;
	case OPT_AGREE:
		if (parse_number("agree-fd", arg, 3, INT_MAX, &n, e) < 0)
			return -1;
		o->agree_fd = (int)n;
		return check_fd("agree-fd", arg, o->agree_fd, O_WRONLY, e);
	case OPT_RECORD:
		if (parse_number("record-fd", arg, 3, INT_MAX, &n, e) < 0)
			return -1;
		o->record_fd = (int)n;
		return check_fd("record-fd", arg, o->record_fd, O_RDONLY, e) < 0 ||
				       handover_reserve(o->record_fd, e) < 0
			       ? -1
			       : 0;
	case OPT_JSON:
		o->mode = REPORT_JSON;
		return 0;
	default:
		return err_set(e, ERR_USAGE, "unknown option: godwit-migrate --help lists them all");
	}
}

static const struct verb *verb_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (name && !strcmp(name, verbs[i].name))
			return &verbs[i];
	return NULL;
}

/* What must be there, and what cannot be together. */
static int check_options(const struct verb *v, const struct engine_options *o, struct err *e)
{
	if (v->bit == RECEIVE && o->dry_run && o->qmp_path)
		return err_set(e, ERR_USAGE, "receive --dry-run takes no guest: leave --qmp out");
	if (!o->qmp_path && !(v->bit == RECEIVE && o->dry_run))
		return err_set(e, ERR_USAGE, "%s needs --qmp SOCKET, the QMP socket of the QEMU on this host", v->name);
	if (v->bit & (SAVE | RESTORE))
		return o->file ? 0 : err_set(e, ERR_USAGE, "%s needs the name of a file", v->name);
	if (!o->addr_text)
		return err_set(e, ERR_USAGE, "%s needs %s", v->name,
			       v->bit == SEND ? "--to HOST:PORT" : "--listen ADDR:PORT");
	if (o->plaintext == (o->tls_dir != NULL))
		return err_set(e, ERR_USAGE, "%s needs exactly one of --tls DIR and --plaintext", v->name);
	if (o->peer_name && o->plaintext)
		return err_set(e, ERR_USAGE, "--peer names a certificate: it needs --tls DIR");
	return 0;
}

/* Options and at most one file after the verb. 0, 1 help was asked for, -1. */
static int parse(const struct verb *v, int argc, char **argv, struct engine_options *o, struct err *e)
{
	int id, which = 0;

	opterr = 0;
	while ((id = getopt_long(argc, argv, "", options, &which)) != -1) {
		if (id == '?')
			return err_set(e, ERR_USAGE,
				       "%s: unknown option or missing value: godwit-migrate --help lists them all",
				       argv[optind - 1]);
		if (id == OPT_HELP)
			return 1;
		if (!(option_verbs[id - OPT_QMP] & v->bit))
			return err_set(e, ERR_USAGE, "%s takes no --%s", v->name, options[which].name);
		if (parse_option(o, id, optarg, e) < 0)
			return -1;
	}
	if (optind < argc && v->bit & (SAVE | RESTORE))
		o->file = argv[optind++];
	if (optind < argc)
		return err_set(e, ERR_USAGE, "%s: unexpected \"%s\"", v->name, argv[optind]);
	return check_options(v, o, e);
}

/* One of our own asserts: what led to it is in the ring. abort(3) goes on to end the process when this returns. */
static void dump_on_abort(int sig)
{
	(void)sig;
	log_dump_ring(STDERR_FILENO);
}

int main(int argc, char **argv)
{
	struct engine_options o = {.max_pause_ms = MAX_PAUSE_DEFAULT,
				   .settle_s = SETTLE_DEFAULT,
				   .agree_fd = -1,
				   .record_fd = -1,
				   .mode = REPORT_PLAIN};
	const struct verb *v = verb_find(argc > 1 ? argv[1] : NULL);
	struct err e = ERR_INIT;
	struct report *r;
	enum outcome out;
	int p;

	if (argc > 1 && !strcmp(argv[1], "--help")) {
		fputs(help_text, stdout);
		return OUTCOME_MOVED;
	}
	if (!v) {
		fputs(help_text, stderr);
		return OUTCOME_USAGE;
	}
	if (isatty(STDOUT_FILENO))
		o.mode = REPORT_TERMINAL;
	p = parse(v, argc - 1, argv + 1, &o, &e);
	if (p > 0) {
		fputs(help_text, stdout);
		return OUTCOME_MOVED;
	}
	if (p < 0) {
		fprintf(stderr, "godwit-migrate: %s\n", e.text);
		return OUTCOME_USAGE;
	}
	/* The report speaks to the person; the log is for what it does not say. */
	log_set_level(LOG_LEVEL_WARNING);
	sigaction(SIGABRT, &(struct sigaction){.sa_handler = dump_on_abort, .sa_flags = (int)SA_RESETHAND}, NULL);
	r = report_new(o.mode, v->name);
	out = v->run(&o, r);
	report_free(r);
	return out;
}
