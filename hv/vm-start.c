/* SPDX-License-Identifier: Apache-2.0 */
/* Starting a guest: everything QEMU needs is opened by us, then QEMU is run with nothing but that.
 *
 * Order, and why:
 *   1. lock the guest's folder; refuse if its QEMU lives, or if this host may not run the cluster's guests now.
 *   2. decide what depends on the host: machine version, accelerator, user.
 *   3. open disks, RAM, taps, logs, seed; bind the sockets (QEMU listens on them itself).
 *   4. fork QEMU, held at a gate; write state.json with its pid and start time; ask for the permit once more; open the
 *      gate. Whenever we die, either the state names the process or the process ends by itself; and whoever takes the
 *      permit away to end all guests finds this one in the records, or we find the permit gone (hv/permit.h).
 *   5. ask the monitor until QEMU answers as the process we started; its last line is our error when it does not.
 * A failure at any step kills what was started and removes the folder.
 */
#include "hv/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "hv/cmdline.h"
#include "hv/permit.h"
#include "hv/ram.h"
#include "hv/rundir.h"
#include "hv/seed.h"
#include "hv/tap.h"

#define DEFAULT_QEMU "qemu-system-x86_64"
#define OVMF_CODE "/usr/share/OVMF/OVMF_CODE_4M.fd"
#define OVMF_VARS "/usr/share/OVMF/OVMF_VARS_4M.fd"
#define OVMF_VARS_MAX (16U << 20)
#define MACHINE_HELP_SECONDS 20
#define MACHINE_HELP_MAX (1U << 20)
#define FIRST_ANSWER_SECONDS 60 /* QEMU's start, on a loaded host with a large initrd */
#define LAST_BREATH_SECONDS 10
#define FIRST_FD 10 /* the lowest descriptor QEMU gets beside 0, 1 and 2 */

/* Until QEMU 8.0 the thread that empties the dirty rings every second may look at a vCPU whose ring is not there yet,
 * and QEMU aborts in this function (QEMU commit 56adee407fc). It takes more than a second from the ring's creation to
 * the vCPU's, so a loaded host does it. The guest has not run then. */
#define RING_RACE "kvm_dirty_ring_reap_one"

/* A start under way. start_done() closes and frees what is still held. */
struct start {
	const struct def *d;
	const struct vm_options *opt;
	struct vm *vm; /* half built */
	struct cmdline_host host;
	struct child_spec spec;
	struct child_fd fds[CHILD_FDS_MAX];
	size_t n_fds;
	int lock;
	char *machine;
	char *cgroup;
	char *user;
	char taps[DEF_NICS_MAX][IFNAMSIZ];
	struct accel_choice accel;
	bool folder_made; /* ours to remove on failure; what a crashed guest left there is gone */
	bool ring_race;   /* QEMU has lost the race of RING_RACE */
};

/* What QEMU has inherited is its own: a socket that we kept open would hold a connection to a QEMU that has died. */
static void start_passed(struct start *s)
{
	for (size_t i = 0; i < s->n_fds; i++)
		close(s->fds[i].from);
	s->n_fds = 0;
}

static void start_done(struct start *s)
{
	start_passed(s);
	mem_closep(&s->lock);
	free(s->machine);
	free(s->cgroup);
	free(s->user);
}

/* Have QEMU inherit @fd (taken); returns its number there. */
static int start_pass(struct start *s, int fd)
{
	int to = FIRST_FD + (int)s->n_fds;

	s->fds[s->n_fds++] = (struct child_fd){.from = fd, .to = to};
	return to;
}

static char *start_path(const struct start *s, const char *file)
{
	return xasprintf("%s/%s", s->vm->dir, file);
}

/* ---- 1. the folder ---- */

static int start_permit(const struct start *s, struct err *e)
{
	if (permit_check(s->opt->run_dir, s->opt->mark, clock_boot_ns(), e) < 0)
		return err_wrap(e, "guest %s", s->d->name);
	return 0;
}

static int start_folder(struct start *s, struct err *e)
{
	struct vm *old = NULL;
	struct err none = ERR_INIT;

	if (rundir_make(s->opt->run_dir, e) < 0)
		return -1;
	s->lock = rundir_lock(s->opt->run_dir, s->d->name, true, e);
	if (s->lock < 0)
		return -1;
	if (vm_open(s->opt->run_dir, s->d->name, &old, &none) == 0) {
		bool alive = old->proc.pidfd >= 0 && !child_ended(&old->proc);
		int pid = (int)old->proc.pid;
		const char *cgroup = json_string_value(json_object_get(old->state, "cgroup"));

		if (!alive && cgroup)
			rmdir(cgroup);
		vm_close(old);
		if (alive)
			return err_set(e, ERR_INPUT,
				       "guest %s is there already (process %d); stop it first, or give another name",
				       s->d->name, pid);
	} else if (none.code != ERR_INPUT) {
		*e = none;
		return -1;
	}
	s->folder_made = true;
	return rundir_empty(s->opt->run_dir, s->d->name, e);
}

/* ---- 2. decisions ---- */

static int start_user(struct start *s, struct err *e)
{
	const char *name = s->opt->user;
	struct passwd *pw;

	s->spec.uid = geteuid();
	s->spec.gid = getegid();
	if (!name && geteuid() == 0)
		name = getpwnam("godwit-qemu") ? "godwit-qemu" : "nobody";
	if (!name)
		return 0;
	pw = getpwnam(name);
	if (!pw)
		return err_set(e, ERR_UNSUPPORTED, "user %s does not exist; give another with --user", name);
	if (geteuid() != 0 && pw->pw_uid != geteuid())
		return err_set(e, ERR_UNSUPPORTED, "only root can run a guest as user %s; leave --user out", name);
	if (pw->pw_uid == 0)
		return err_set(e, ERR_UNSUPPORTED, "a guest is not run as root; give another user with --user");
	s->user = xstrdup(name);
	if (geteuid() != 0)
		return 0;
	s->spec.drop = true;
	s->spec.uid = pw->pw_uid;
	s->spec.gid = pw->pw_gid;
	return 0;
}

static int start_accel(struct start *s, struct err *e)
{
	struct accel_host host;
	gid_t kvm_gid;

	accel_probe(s->spec.uid, s->spec.gid, &host, &kvm_gid);
	if (accel_choose(s->opt->accel, s->opt->ring, &host, &s->accel, e) < 0)
		return -1;
	if (s->accel.kvm && kvm_gid != (gid_t)-1)
		s->spec.groups[s->spec.n_groups++] = kvm_gid;
	s->host.accel = s->accel.kvm ? "kvm" : "tcg";
	s->host.dirty_ring = s->accel.ring_entries;
	log_info("event=accel_chosen name=%s accel=%s dirty_ring=%u why=\"%s\"", s->d->name, s->host.accel,
		 s->host.dirty_ring, s->accel.why);
	return 0;
}

static int start_machine(struct start *s, struct err *e)
{
	const char *argv[] = {s->host.qemu, "-machine", "help", NULL};
	_free_ char *help = NULL;

	if (child_run(argv, clock_now_ns() + MACHINE_HELP_SECONDS * NS_PER_S, MACHINE_HELP_MAX, &help, e) < 0)
		return err_wrap(e, "QEMU (package qemu-system-x86)");
	s->machine = cmdline_machine_pin(help, s->d->machine, e);
	s->host.machine = s->machine;
	return s->machine ? 0 : -1;
}

/* ---- 3. what QEMU inherits ---- */

/* Bind, do not listen: QEMU does, so that SO_PEERCRED of a client names QEMU. */
static int start_socket(struct start *s, const char *file, int *ret, struct err *e)
{
	_free_ char *path = start_path(s, file);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	_closefd_ int fd = -1;

	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(e, ERR_UNSUPPORTED,
			       "socket %s: the path is longer than %zu bytes; choose a shorter --run-dir", path,
			       sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(e, "socket");
	unlink(path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || chmod(path, 0600) < 0)
		return err_sys(e, "socket %s", path);
	*ret = start_pass(s, steal_fd(&fd));
	return 0;
}

static int start_log(struct start *s, const char *file, struct err *e)
{
	_free_ char *path = start_path(s, file);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);

	return fd < 0 ? err_sys(e, "log file %s", path) : fd;
}

static int start_disk(struct start *s, size_t i, struct err *e)
{
	const struct def_disk *k = &s->d->disks[i];
	int mode = (k->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	_closefd_ int fd = open(k->file, mode | O_DIRECT);
	struct stat st;

	/* Past the page cache where the file system can: another host must see what the guest has written. */
	s->host.direct[i] = fd >= 0;
	if (fd < 0 && errno == EINVAL)
		fd = open(k->file, mode);
	if (fd < 0)
		return err_sys(e, "disks[%zu].file %s", i, k->file);
	if (fstat(fd, &st) < 0)
		return err_sys(e, "disks[%zu].file %s", i, k->file);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(e, ERR_UNSUPPORTED, "disks[%zu].file %s is neither a file nor a block device", i,
			       k->file);
	s->host.fds.disks[i] = start_pass(s, steal_fd(&fd));
	return 0;
}

/* Copy OVMF's empty variables to @path. */
static int vars_copy(const char *path, struct err *e)
{
	_closefd_ int from = open(OVMF_VARS, O_RDONLY | O_CLOEXEC);
	_closefd_ int to = -1;
	_free_ char *buf = NULL;
	ssize_t n;

	if (from < 0)
		return err_sys(e, "firmware uefi needs %s (package ovmf)", OVMF_VARS);
	buf = xcalloc(OVMF_VARS_MAX, 1);
	n = read(from, buf, OVMF_VARS_MAX);
	to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0)
		return err_sys(e, "UEFI variables %s", path);
	if (n <= 0 || write(to, buf, (size_t)n) != n) {
		err_sys(e, "UEFI variables %s", path);
		unlink(path);
		return -1;
	}
	return 0;
}

static int start_uefi(struct start *s, struct err *e)
{
	_free_ char *own = start_path(s, "uefi-vars.fd");
	const char *path = s->d->uefi_vars ? s->d->uefi_vars : own;
	int fd;

	if (access(OVMF_CODE, R_OK) < 0)
		return err_sys(e, "firmware uefi needs %s (package ovmf)", OVMF_CODE);
	s->host.uefi_code = OVMF_CODE;
	if (access(path, F_OK) < 0 && vars_copy(path, e) < 0)
		return -1;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "UEFI variables %s", path);
	s->host.fds.uefi_vars = start_pass(s, fd);
	return 0;
}

static int start_seed(struct start *s, struct err *e)
{
	_free_ char *iso = start_path(s, "seed.iso");
	int fd;

	if (seed_write(s->d, s->vm->dir, e) < 0)
		return -1;
	fd = open(iso, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_sys(e, "cloud-init seed %s", iso);
	s->host.fds.seed = start_pass(s, fd);
	return 0;
}

static int start_nics(struct start *s, struct err *e)
{
	for (size_t i = 0; i < s->d->n_nics; i++) {
		int fd;

		if (s->d->nics[i].type != DEF_NIC_TAP)
			continue;
		fd = tap_create(s->d->nics[i].bridge, s->taps[i], e);
		if (fd < 0)
			return err_wrap(e, "nics[%zu]", i);
		s->host.fds.taps[i] = start_pass(s, fd);
	}
	return 0;
}

static int start_open(struct start *s, struct err *e)
{
	int fd;

	for (size_t i = 0; i < s->d->n_disks; i++)
		if (start_disk(s, i, e) < 0)
			return -1;
	if (start_nics(s, e) < 0)
		return -1;
	if (s->d->firmware == DEF_FIRMWARE_UEFI && start_uefi(s, e) < 0)
		return -1;
	if (s->d->seed.present && start_seed(s, e) < 0)
		return -1;
	fd = ram_create(s->d->name, cmdline_ram_size(s->d, s->host.accel), s->d->hugepages, e);
	if (fd < 0)
		return -1;
	s->host.fds.ram = start_pass(s, fd);
	fd = start_log(s, VM_CONSOLE_LOG, e);
	if (fd < 0)
		return -1;
	s->host.fds.console_log = start_pass(s, fd);
	fd = start_log(s, VM_QEMU_LOG, e);
	if (fd < 0)
		return -1;
	s->fds[s->n_fds++] = (struct child_fd){.from = fd, .to = STDERR_FILENO};
	return start_socket(s, VM_QMP_SOCK, &s->host.fds.qmp, e) < 0 ||
			       start_socket(s, VM_ENGINE_SOCK, &s->host.fds.engine, e) < 0 ||
			       start_socket(s, VM_CONSOLE_SOCK, &s->host.fds.console, e) < 0
		       ? -1
		       : 0;
}

/* Where cgroup v2 is mounted, "" when it is not. Caller frees. */
static char *cgroup_mount(void)
{
	_closefile_ FILE *f = fopen("/proc/self/mounts", "re");
	char line[4096], dir[4096], type[64];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %4095s %63s", dir, type) == 2 && strcmp(type, "cgroup2") == 0)
			return xstrdup(dir);
	return xstrdup("");
}

/* Our own cgroup inside the mount ("/user.slice/..."). Caller frees. */
static char *cgroup_self(void)
{
	_closefile_ FILE *f = fopen("/proc/self/cgroup", "re");
	char line[4096];

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "0::", 3) == 0) {
			line[strcspn(line, "\n")] = 0;
			return xstrdup(line + 3);
		}
	return xstrdup("/");
}

/* An own cgroup for QEMU where cgroup v2 is mounted and we may; without it the guest runs in ours. */
static void start_cgroup(struct start *s)
{
	_free_ char *mount = cgroup_mount();
	_free_ char *self = cgroup_self();
	_free_ char *parent = NULL;
	_free_ char *path = NULL;

	if (!mount[0])
		return;
	/* Root keeps guests in one place; anybody else has only what was delegated to them. */
	parent = geteuid() == 0 ? xasprintf("%s/godwit", mount) : xasprintf("%s%s", mount, self);
	if (geteuid() == 0 && mkdir(parent, 0755) < 0 && errno != EEXIST)
		return;
	path = xasprintf("%s/vm-%s-%d", parent, s->d->name, (int)getpid());
	if (mkdir(path, 0755) < 0 && errno != EEXIST) {
		log_debug("event=no_cgroup name=%s path=%s errno=%d", s->d->name, path, errno);
		return;
	}
	s->cgroup = steal_ptr(path);
	s->spec.cgroup_fs = s->cgroup;
}

/* ---- 4. the process ---- */

static json_t *start_definition(const struct start *s)
{
	json_t *o = def_to_json(s->d);

	/* What a destination must use: this version, not what "q35" means there. */
	json_object_set_new(o, "machine", json_string(s->machine));
	return o;
}

static void start_state(struct start *s)
{
	json_t *o = json_object();
	json_t *taps = json_array();

	for (size_t i = 0; i < s->d->n_nics; i++)
		json_array_append_new(taps, s->taps[i][0] ? json_string(s->taps[i]) : json_null());
	json_object_set_new(o, "name", json_string(s->d->name));
	json_object_set_new(o, "uuid", json_string(s->d->uuid));
	json_object_set_new(o, "pid", json_integer(s->vm->proc.pid));
	json_object_set_new(o, "start_time", json_integer((json_int_t)s->vm->proc.start_time));
	json_object_set_new(o, "started", json_integer((json_int_t)time(NULL)));
	json_object_set_new(o, "incoming", json_boolean(s->opt->incoming));
	json_object_set_new(o, "mark", s->opt->mark ? json_string(s->opt->mark) : json_null());
	json_object_set_new(o, "machine", json_string(s->machine));
	json_object_set_new(o, "accel", json_string(s->host.accel));
	json_object_set_new(o, "accel_why", json_string(s->accel.why));
	json_object_set_new(o, "dirty_ring", json_integer(s->host.dirty_ring));
	json_object_set_new(o, "user", s->user ? json_string(s->user) : json_null());
	json_object_set_new(o, "cgroup", s->cgroup ? json_string(s->cgroup) : json_null());
	json_object_set_new(o, "taps", taps);
	json_object_set_new(o, "definition", start_definition(s));
	json_decref(s->vm->state);
	s->vm->state = o;
}

static int start_spawn(struct start *s, struct err *e)
{
	struct cmdline c;
	int r;

	cmdline_build(s->d, &s->host, &c);
	s->spec.argv = (const char *const *)c.words;
	s->spec.fds = s->fds;
	s->spec.n_fds = s->n_fds;
	s->spec.session = true;
	s->spec.hold = true;
	r = child_spawn(&s->spec, &s->vm->proc, e);
	if (r == 0) {
		start_state(s);
		r = rundir_state_write(s->opt->run_dir, s->d->name, s->vm->state, e);
	}
	if (r == 0)
		r = start_permit(s, e);
	if (r == 0)
		r = child_release(&s->vm->proc, e);
	start_passed(s);
	cmdline_done(&c);
	return r;
}

/* ---- 5. the first answer ---- */

/* QEMU ended during its start: what it said is the error. */
static int start_ended(struct start *s, struct err *e)
{
	_free_ char *words = vm_last_words(s->vm);
	char how[128];
	int status = -1;

	child_wait(&s->vm->proc, clock_now_ns(), &status, NULL);
	child_status_text(status, how, sizeof(how));
	s->ring_race = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strstr(words, RING_RACE);
	return err_set(e, ERR_PEER, "guest %s: QEMU %s: %s", s->d->name, how,
		       words[0] ? words : "it said nothing; is there enough memory on this host?");
}

/* Connect once QEMU listens; it has not yet when it is still reading its command line. */
static int start_connect(struct start *s, int64_t deadline_ns, struct err *e)
{
	_free_ char *path = start_path(s, VM_QMP_SOCK);

	for (;;) {
		int fd = sock_unix_connect(path, e);

		if (fd >= 0)
			return fd;
		if (e->errnum != ECONNREFUSED)
			return -1;
		if (child_ended(&s->vm->proc))
			return start_ended(s, e);
		if (clock_now_ns() > deadline_ns)
			return err_set(e, ERR_TIMEOUT, "guest %s: QEMU does not listen on its monitor after %d seconds",
				       s->d->name, FIRST_ANSWER_SECONDS);
		usleep(2000);
	}
}

static int start_first_answer(struct start *s, struct err *e)
{
	int64_t deadline = clock_now_ns() + FIRST_ANSWER_SECONDS * NS_PER_S;
	struct err inner = ERR_INIT;
	struct qmp *q;
	int fd = start_connect(s, deadline, &inner);

	if (fd < 0) {
		*e = inner;
		return -1;
	}
	if (qmp_open_fd(fd, s->d->name, deadline, &q, &inner) < 0) {
		/* The connection closed: the process has ended, once its core is written. */
		if (inner.code != ERR_TIMEOUT &&
		    sock_wait(s->vm->proc.pidfd, POLLIN, clock_now_ns() + LAST_BREATH_SECONDS * NS_PER_S, NULL) == 1)
			return start_ended(s, e);
		*e = inner;
		return err_wrap(e, "guest %s", s->d->name);
	}
	json_object_set_new(s->vm->state, "qemu_version", json_integer(qmp_version(q)));
	qmp_close(q);
	return rundir_state_write(s->opt->run_dir, s->d->name, s->vm->state, e);
}

static int start_run(struct start *s, struct err *e)
{
	if (start_permit(s, e) < 0 || start_folder(s, e) < 0 || start_user(s, e) < 0 || start_accel(s, e) < 0 ||
	    start_machine(s, e) < 0 || start_open(s, e) < 0)
		return -1;
	start_cgroup(s);
	if (start_spawn(s, e) < 0)
		return -1;
	return start_first_answer(s, e);
}

/* Undo: nothing of a failed start stays. */
static void start_undo(struct start *s)
{
	if (s->vm->proc.pidfd >= 0) {
		child_signal(&s->vm->proc, SIGKILL, NULL);
		child_wait(&s->vm->proc, clock_now_ns() + 10 * NS_PER_S, NULL, NULL);
	}
	if (s->cgroup)
		for (int i = 0; rmdir(s->cgroup) < 0 && errno == EBUSY && i < 50; i++)
			usleep(10000);
	if (s->folder_made)
		rundir_remove(s->opt->run_dir, s->d->name, NULL);
}

/* One start. @ret_ring_race says on failure whether it was that. */
static int start_once(const struct def *d, const struct vm_options *opt, struct vm **ret, bool *ret_ring_race,
		      struct err *e)
{
	struct start s = {.d = d, .opt = opt, .lock = -1};
	int r;

	s.host.qemu = opt->qemu ? opt->qemu : DEFAULT_QEMU;
	s.host.incoming = opt->incoming;
	s.vm = xcalloc(1, sizeof(*s.vm));
	s.vm->proc = CHILD_INIT;
	s.vm->run_dir = xstrdup(opt->run_dir);
	s.vm->dir = xasprintf("%s/%s", opt->run_dir, d->name);
	snprintf(s.vm->name, sizeof(s.vm->name), "%s", d->name);
	snprintf(s.vm->uuid, sizeof(s.vm->uuid), "%s", d->uuid);
	r = start_run(&s, e);
	if (r < 0) {
		start_undo(&s);
		vm_close(s.vm);
	} else {
		log_info("event=vm_started name=%s uuid=%s pid=%d machine=%s accel=%s incoming=%d", d->name, d->uuid,
			 (int)s.vm->proc.pid, s.machine, s.host.accel, opt->incoming);
		*ret = s.vm;
	}
	*ret_ring_race = s.ring_race;
	start_done(&s);
	return r;
}

int vm_start(const struct def *d, const struct vm_options *opt, struct vm **ret, struct err *e)
{
	struct vm_options bitmap = *opt;
	struct err inner = ERR_INIT;
	bool ring_race = false;

	if (start_once(d, opt, ret, &ring_race, &inner) == 0)
		return 0;
	if (!ring_race || opt->ring != ACCEL_RING_AUTO) {
		*e = inner;
		return -1;
	}
	/* Not once more with a ring: on a host that is so slow it could happen every time. */
	log_warning("event=ring_race name=%s next=\"start with a dirty bitmap\" error=\"%s\"", d->name, inner.text);
	bitmap.ring = ACCEL_RING_OFF;
	return start_once(d, &bitmap, ret, &ring_race, e);
}
