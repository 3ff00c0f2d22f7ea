/* SPDX-License-Identifier: Apache-2.0 */
/* godwit-vm: start, find, watch and stop guests on this host, without a daemon. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/terminal.h"
#include "hv/baseline.h"
#include "hv/def.h"
#include "hv/reach.h"
#include "hv/rundir.h"
#include "hv/vm.h"

/* Exit codes; man/godwit-vm.1.scd lists them. */
enum {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_DEFINITION = 3,
	EXIT_NO_GUEST = 4,
	EXIT_EXISTS = 5,
	EXIT_NOT_NOW = 7,
};

#define STOP_SECONDS_DEFAULT 30
#define STOP_SECONDS_MAX 86400

static const char help_text[] =
	"godwit-vm: start, find, watch and stop guests on this host.\n"
	"\n"
	"  godwit-vm start DEF.json   start the guest that the file describes\n"
	"  godwit-vm stop NAME        stop it: ACPI power button, then quit, then kill\n"
	"  godwit-vm kill NAME        end it at once\n"
	"  godwit-vm resume NAME      let it run: it is paused, or a migration left it stopped\n"
	"  godwit-vm list             all guests of the run directory\n"
	"  godwit-vm show NAME        everything known about one guest\n"
	"  godwit-vm console NAME     attach this terminal to its serial console; Ctrl-] leaves\n"
	"  godwit-vm check DEF.json   say whether the definition is right, start nothing\n"
	"  godwit-vm cpu              the CPU models that this host can run\n"
	"  godwit-vm reach FILE.json  which folders with files of guests this host reaches\n"
	"\n"
	"Options of every verb:\n"
	"  --run-dir DIR     where guests are kept track of (default: /run/godwit for root,\n"
	"                    $XDG_RUNTIME_DIR/godwit or /tmp/godwit-UID for others)\n"
	"  --json            print JSON\n"
	"  --help            this text\n"
	"Options of start:\n"
	"  --mark TEXT       remember TEXT with the guest (list and show print it)\n"
	"  --incoming        do not run the guest: wait for a migration into it\n"
	"  --accel WHICH     kvm, tcg, or auto (default): kvm where the hardware has it (also for cpu)\n"
	"  --dirty-ring HOW  on, off, or auto (default): kvm's dirty ring where the kernel has it\n"
	"  --user USER       run QEMU as this user (root only; default godwit-qemu, else nobody)\n"
	"  --qemu PROGRAM    the QEMU to run (default qemu-system-x86_64; also for cpu)\n"
	"Options of stop:\n"
	"  --timeout S       seconds the guest has for powering itself off (default 30)\n"
	"Options of show:\n"
	"  --definition      print only the definition, complete: start a destination with it\n"
	"\n"
	"Exit: 0 done, 1 failed, 2 wrong command line, 3 wrong definition, 4 no such guest, 5 it is there already,\n"
	"7 not now: this host may not run guests of its cluster.\n";

struct args {
	const char *verb;
	const char *object; /* definition file or guest name */
	bool json;
	bool definition;
	long timeout_s;
	struct vm_options vm;
	bool seen[128]; /* by the option's short name */
};

/* The last word about a failure, in the form asked for. Returns @exit_code. */
static int fail(const struct args *a, int exit_code, const struct err *e)
{
	if (a->json) {
		json_t *o = json_pack("{s:s, s:s, s:s, s:i}", "result", "failed", "error", e->text, "kind",
				      err_code_name(e->code), "exit", exit_code);

		json_dumpf(o, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(o);
	}
	fprintf(stderr, "godwit-vm: %s\n", e->text);
	return exit_code;
}

static void print_json(json_t *o)
{
	json_dumpf(o, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(o);
}

/* Open the guest the command line names; on failure *ret_exit is the exit code. */
static struct vm *open_guest(const struct args *a, int *ret_exit)
{
	struct err e = ERR_INIT;
	struct vm *vm = NULL;

	if (vm_open(a->vm.run_dir, a->object, &vm, &e) < 0)
		*ret_exit = fail(a, e.code == ERR_INPUT ? EXIT_NO_GUEST : EXIT_FAILED, &e);
	return vm;
}

static int verb_start(const struct args *a)
{
	struct err e = ERR_INIT;
	struct def d = {0};
	struct vm *vm = NULL;
	int r;

	if (def_load(a->object, &d, &e) < 0)
		return fail(a, EXIT_DEFINITION, &e);
	r = vm_start(&d, &a->vm, &vm, &e);
	def_done(&d);
	if (r < 0)
		return fail(a,
			    e.code == ERR_INPUT         ? EXIT_EXISTS
			    : e.code == ERR_UNAVAILABLE ? EXIT_NOT_NOW
							: EXIT_FAILED,
			    &e);
	if (a->json) {
		json_t *o = json_deep_copy(vm->state);

		json_object_set_new(o, "result", json_string("started"));
		json_object_set_new(o, "dir", json_string(vm->dir));
		print_json(o);
	} else {
		printf("guest %s %s: process %d, %s, sockets in %s\n", vm->name,
		       a->vm.incoming ? "waits for a migration" : "started", (int)vm->proc.pid,
		       json_string_value(json_object_get(vm->state, "accel")), vm->dir);
	}
	vm_close(vm);
	return EXIT_DONE;
}

static int verb_stop(const struct args *a)
{
	static const char *const words[VM_STOP_MAX] = {
		[VM_STOP_GONE] = "QEMU was gone already; tidied up after it",
		[VM_STOP_ACPI] = "powered itself off (ACPI)",
		[VM_STOP_QUIT] = "did not power off in time or was not running; QEMU quit when asked",
		[VM_STOP_KILL] = "did not power off, and QEMU did not quit when asked; killed",
	};
	struct err e = ERR_INIT;
	enum vm_stop_step step;
	int code = EXIT_DONE;
	struct vm *vm = open_guest(a, &code);

	if (!vm)
		return code;
	if (vm_stop(vm, a->timeout_s * 1000, &step, &e) < 0)
		code = fail(a, EXIT_FAILED, &e);
	else if (a->json)
		print_json(json_pack("{s:s, s:s, s:s}", "result", "stopped", "name", vm->name, "step",
				     vm_stop_names[step]));
	else
		printf("guest %s: %s\n", vm->name, words[step]);
	vm_close(vm);
	return code;
}

static int verb_kill(const struct args *a)
{
	struct err e = ERR_INIT;
	int code = EXIT_DONE;
	struct vm *vm = open_guest(a, &code);

	if (!vm)
		return code;
	if (vm_kill(vm, &e) < 0)
		code = fail(a, EXIT_FAILED, &e);
	else if (a->json)
		print_json(json_pack("{s:s, s:s}", "result", "killed", "name", vm->name));
	else
		printf("guest %s: killed\n", vm->name);
	vm_close(vm);
	return code;
}

static int verb_resume(const struct args *a)
{
	struct err e = ERR_INIT;
	int code = EXIT_DONE;
	struct vm *vm = open_guest(a, &code);

	if (!vm)
		return code;
	if (vm_resume(vm, &e) < 0)
		code = fail(a, EXIT_FAILED, &e);
	else if (a->json)
		print_json(json_pack("{s:s, s:s}", "result", "running", "name", vm->name));
	else
		printf("guest %s: running\n", vm->name);
	vm_close(vm);
	return code;
}

/* What list and show print of one guest. */
static json_t *guest_json(const struct vm *vm)
{
	enum vm_status s = vm_status(vm);
	json_t *o = json_deep_copy(vm->state);

	json_object_set_new(o, "status", json_string(vm_status_names[s]));
	json_object_set_new(o, "dir", json_string(vm->dir));
	if (s == VM_STATUS_GONE) {
		_free_ char *words = vm_last_words(vm);

		json_object_set_new(o, "last_words", json_string(words));
	}
	return o;
}

static const char *member(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "-";
}

static long long number(json_t *o, const char *key)
{
	return (long long)json_integer_value(json_object_get(o, key));
}

static void list_line(json_t *o)
{
	json_t *d = json_object_get(o, "definition");

	printf("%-20s %-9s %8lld %5lld %7lldM  %-4s %s\n", member(o, "name"), member(o, "status"), number(o, "pid"),
	       number(d, "vcpus"), number(d, "memory"), member(o, "accel"), member(o, "machine"));
}

static int verb_list(const struct args *a)
{
	struct err e = ERR_INIT;
	char **names = NULL;
	json_t *all = json_array();

	/* No run directory yet is no guests, not an error; somebody else's directory is one. */
	if ((rundir_check(a->vm.run_dir, &e) < 0 && e.code != ERR_INPUT) ||
	    rundir_names(a->vm.run_dir, &names, &e) < 0) {
		json_decref(all);
		return fail(a, EXIT_FAILED, &e);
	}
	for (size_t i = 0; names[i]; i++) {
		struct vm *vm = NULL;

		e = ERR_INIT;
		if (vm_open(a->vm.run_dir, names[i], &vm, &e) == 0)
			json_array_append_new(all, guest_json(vm));
		else if (e.code != ERR_INPUT)
			log_warning("event=guest_unreadable name=%s error=\"%s\"", names[i], e.text);
		vm_close(vm);
	}
	rundir_names_free(names);
	if (a->json) {
		print_json(all);
		return EXIT_DONE;
	}
	printf("%-20s %-9s %8s %5s %8s  %-4s %s\n", "NAME", "STATUS", "PID", "VCPUS", "MEMORY", "ACC", "MACHINE");
	for (size_t i = 0; i < json_array_size(all); i++)
		list_line(json_array_get(all, i));
	json_decref(all);
	return EXIT_DONE;
}

static void show_text(json_t *o)
{
	static const char *const lines[] = {"name",  "uuid",      "status", "last_words", "machine",
					    "accel", "accel_why", "user",   "cgroup",     "dir"};
	json_t *d = json_object_get(o, "definition");
	time_t started = (time_t)number(o, "started");
	char when[64];

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		if (json_is_string(json_object_get(o, lines[i])))
			printf("%-13s %s\n", lines[i], member(o, lines[i]));
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", localtime(&started));
	printf("%-13s %lld\n%-13s %s\n", "pid", number(o, "pid"), "started", when);
	printf("%-13s %lld.%lld.%lld\n", "qemu", number(o, "qemu_version") / 10000,
	       number(o, "qemu_version") / 100 % 100, number(o, "qemu_version") % 100);
	printf("%-13s %s\n", "dirty log", number(o, "dirty_ring") ? "ring" : "bitmap");
	printf("%-13s ", "definition");
	json_dumpf(d, stdout, JSON_INDENT(2));
	putchar('\n');
}

static int verb_show(const struct args *a)
{
	int code = EXIT_DONE;
	struct vm *vm = open_guest(a, &code);
	json_t *o;

	if (!vm)
		return code;
	if (a->definition) {
		json_dumpf(json_object_get(vm->state, "definition"), stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		o = guest_json(vm);
		if (a->json) {
			print_json(o);
		} else {
			show_text(o);
			json_decref(o);
		}
	}
	vm_close(vm);
	return code;
}

static int verb_console(const struct args *a)
{
	struct err e = ERR_INIT;
	enum terminal_end end;
	int code = EXIT_DONE;
	struct vm *vm = open_guest(a, &code);
	_free_ char *path = NULL;

	if (!vm)
		return code;
	path = xasprintf("%s/" VM_CONSOLE_SOCK, vm->dir);
	if (isatty(STDIN_FILENO))
		fprintf(stderr, "console of %s; Ctrl-] leaves\n", vm->name);
	if (vm->proc.pidfd < 0)
		err_set(&e, ERR_INPUT, "guest %s: its QEMU is gone; what its console said is in %s/" VM_CONSOLE_LOG,
			vm->name, vm->dir);
	if (e.code || terminal_attach_path(path, STDIN_FILENO, STDOUT_FILENO, &end, &e) < 0)
		code = fail(a, EXIT_FAILED, &e);
	else if (isatty(STDIN_FILENO))
		fprintf(stderr, "\nconsole of %s: %s\n", vm->name, terminal_end_words[end]);
	vm_close(vm);
	return code;
}

static int verb_check(const struct args *a)
{
	struct err e = ERR_INIT;
	struct def d = {0};

	if (def_load(a->object, &d, &e) < 0)
		return fail(a, EXIT_DEFINITION, &e);
	if (a->json)
		print_json(json_pack("{s:s, s:o}", "result", "valid", "definition", def_to_json(&d)));
	else
		printf("%s: guest %s: %u vcpus, %llu MiB, %zu disks, %zu nics: valid\n", a->object, d.name, d.vcpus,
		       (unsigned long long)(d.memory >> 20), d.n_disks, d.n_nics);
	def_done(&d);
	return EXIT_DONE;
}

/* One line: the best model of this host, and those below. */
static void cpu_text(const json_t *cpu, const json_t *best)
{
	json_t *usable = json_object_get(best, "usable");

	printf("%s, %s, %zu features\n", json_string_value(json_object_get(cpu, "accel")),
	       json_string_value(json_object_get(cpu, "vendor")), json_array_size(json_object_get(cpu, "features")));
	for (size_t i = 0; i < json_array_size(usable); i++)
		printf("%s\n", json_string_value(json_array_get(usable, i)));
}

static int verb_cpu(const struct args *a)
{
	json_t *cpu = NULL, *catalogue = NULL, *hosts = NULL, *best = NULL;
	struct err e = ERR_INIT;
	int r = baseline_probe(a->vm.qemu, a->vm.accel, &cpu, &catalogue, &e);

	if (r == 0) {
		hosts = json_pack("[{s:s, s:O}]", "name", "this host", "cpu", cpu);
		r = baseline_compute(catalogue, hosts, &best, &e);
	}
	if (r == 0 && a->json)
		print_json(json_pack("{s:O, s:O, s:O}", "cpu", cpu, "usable", json_object_get(best, "usable"),
				     "catalogue", catalogue));
	else if (r == 0)
		cpu_text(cpu, best);
	json_decref(cpu);
	json_decref(catalogue);
	json_decref(hosts);
	json_decref(best);
	return r < 0 ? fail(a, EXIT_FAILED, &e) : EXIT_DONE;
}

/* A line for each folder as soon as it is known, since another one may hang: whoever reads along has it by then. */
static void reach_line(void *arg, const char *folder, const char *why)
{
	const struct args *a = arg;

	if (a->json)
		print_json(json_pack("{s:s, s:s*}", "folder", folder, "why", why));
	else
		printf("%s: %s\n", folder, why ? why : "reached");
	fflush(stdout);
}

static int verb_reach(const struct args *a)
{
	struct err e = ERR_INIT;
	json_error_t why;
	json_t *folders = json_load_file(a->object, JSON_REJECT_DUPLICATES, &why);
	int r;

	if (!folders)
		err_set(&e, ERR_INPUT, "%s: %s", a->object, why.text);
	r = folders ? reach_look(folders, reach_line, (void *)a, &e) : -1;
	json_decref(folders);
	return r < 0 ? fail(a, EXIT_FAILED, &e) : EXIT_DONE;
}

/* A verb, what it works on, and the options it knows beside those of every verb. */
static const struct verb {
	const char *name;
	int (*run)(const struct args *a);
	const char *object; /* NULL: none */
	const char *options;
} verbs[] = {
	{"start", verb_start, "DEF.json", "iaduqm"},
	{"stop", verb_stop, "NAME", "t"},
	{"kill", verb_kill, "NAME", ""},
	{"resume", verb_resume, "NAME", ""},
	{"list", verb_list, NULL, ""},
	{"show", verb_show, "NAME", "D"},
	{"console", verb_console, "NAME", ""},
	{"check", verb_check, "DEF.json", ""},
	{"cpu", verb_cpu, NULL, "aq"},
	{"reach", verb_reach, "FILE.json", ""},
};

static const struct option options[] = {
	{"run-dir", required_argument, NULL, 'r'},
	{"json", no_argument, NULL, 'j'},
	{"help", no_argument, NULL, 'h'},
	{"mark", required_argument, NULL, 'm'},
	{"incoming", no_argument, NULL, 'i'},
	{"accel", required_argument, NULL, 'a'},
	{"dirty-ring", required_argument, NULL, 'd'},
	{"user", required_argument, NULL, 'u'},
	{"qemu", required_argument, NULL, 'q'},
	{"timeout", required_argument, NULL, 't'},
	{"definition", no_argument, NULL, 'D'},
	{0},
};

static int choose(const char *option, const char *const *names, int n, int *ret, struct err *e)
{
	for (int i = 0; i < n; i++)
		if (strcmp(optarg, names[i]) == 0) {
			*ret = i;
			return 0;
		}
	return err_set(e, ERR_USAGE, "--%s %s: choose one of %s, %s, %s", option, optarg, names[0], names[1], names[2]);
}

static int option_read(struct args *a, int c, struct err *e)
{
	char *end;
	int n = 0;

	switch (c) {
	case 'r':
		a->vm.run_dir = optarg;
		return optarg[0] == '/' ? 0
					: err_set(e, ERR_USAGE, "--run-dir %s: write the whole path, from /", optarg);
	case 'j':
		a->json = true;
		return 0;
	case 'm':
		a->vm.mark = optarg;
		return 0;
	case 'i':
		a->vm.incoming = true;
		return 0;
	case 'a':
		if (choose("accel", accel_want_names, ACCEL_WANT_MAX, &n, e) < 0)
			return -1;
		a->vm.accel = (enum accel_want)n;
		return 0;
	case 'd':
		if (choose("dirty-ring", accel_ring_names, ACCEL_RING_MAX, &n, e) < 0)
			return -1;
		a->vm.ring = (enum accel_ring)n;
		return 0;
	case 'u':
		a->vm.user = optarg;
		return 0;
	case 'q':
		a->vm.qemu = optarg;
		return 0;
	case 't':
		a->timeout_s = strtol(optarg, &end, 10);
		if (end == optarg || *end || a->timeout_s < 0 || a->timeout_s > STOP_SECONDS_MAX)
			return err_set(e, ERR_USAGE, "--timeout %s: give seconds, from 0 to %d", optarg,
				       STOP_SECONDS_MAX);
		return 0;
	case 'D':
		a->definition = true;
		return 0;
	default:
		return err_set(e, ERR_USAGE, "no such option, or its value is missing; godwit-vm --help lists them");
	}
}

static const struct verb *verb_find(const struct args *a, int n_left, struct err *e)
{
	const struct verb *v = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i].name, a->verb) == 0)
			v = &verbs[i];
	if (!v) {
		err_set(e, ERR_USAGE, "\"%s\" is no verb; godwit-vm --help lists them", a->verb);
		return NULL;
	}
	if (n_left != (v->object ? 1 : 0)) {
		err_set(e, ERR_USAGE, "write: godwit-vm %s %s[options]", v->name, v->object ? v->object : "");
		return NULL;
	}
	for (const struct option *o = options; o->name; o++)
		if (a->seen[o->val] && !strchr("rjh", o->val) && !strchr(v->options, o->val)) {
			err_set(e, ERR_USAGE, "--%s does not belong to %s; godwit-vm --help says where it does",
				o->name, v->name);
			return NULL;
		}
	return v;
}

int main(int argc, char **argv)
{
	struct args a = {.timeout_s = STOP_SECONDS_DEFAULT};
	_free_ char *run_dir = rundir_default();
	struct err e = ERR_INIT;
	const struct verb *v;
	int c;

	a.vm.run_dir = run_dir;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'h') {
			fputs(help_text, stdout);
			return EXIT_DONE;
		}
		if (option_read(&a, c, &e) < 0)
			return fail(&a, EXIT_USAGE, &e);
		a.seen[c & 127] = true;
	}
	if (optind >= argc) {
		fputs(help_text, stderr);
		return EXIT_USAGE;
	}
	a.verb = argv[optind];
	a.object = argv[optind + 1];
	v = verb_find(&a, argc - optind - 1, &e);
	if (!v)
		return fail(&a, EXIT_USAGE, &e);
	return v->run(&a);
}
