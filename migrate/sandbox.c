/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's sandbox.
 *
 * godwit-migrate parses what two peers say that it does not trust, a QEMU whose guest may have taken it over and an
 * engine on another host, while it holds the memory of a guest. So before it reads from the network it becomes a
 * process that can do little: the user of the QEMU that it serves (whose memory and monitor it holds anyway), no
 * capability, and an allow-list of system calls.
 *
 * Order matters: the bounding set can only be emptied while CAP_SETPCAP is held, so it goes before the user changes;
 * capabilities go after, since changing the user needs them; the filter goes last, because the steps before it use
 * calls that it forbids. capset(2) and the filter work on one thread, which is why there must be only one.
 *
 * The list is what blocking sockets, threads, malloc, OpenSSL, getaddrinfo and the engine's own files need. What is
 * checked by argument: open (reading only), clone (threads only; clone3 keeps its flags in memory where a filter
 * cannot look, so it answers ENOSYS and glibc falls back to clone), socket (families), prlimit64 (asking only), ioctl,
 * prctl, kill (ourselves only), and PROT_EXEC.
 */
#include "migrate/sandbox.h"

#include <asm/termbits.h>
#include <cap-ng.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define S(name) SCMP_SYS(name)

#define NOBODY 65534 /* user and group, the kernel's overflow id: owns no file */

/* Allowed whatever the arguments are. */
static const int allowed[] = {
	/* bytes in and out of what is open */
	S(read),
	S(write),
	S(readv),
	S(writev),
	S(pread64),
	S(pwrite64),
	S(preadv),
	S(pwritev),
	S(preadv2),
	S(pwritev2),
	S(recvfrom),
	S(recvmsg),
	S(recvmmsg),
	S(sendto),
	S(sendmsg),
	S(sendmmsg),
	S(splice),
	S(tee),
	S(vmsplice),
	S(sendfile),
	S(copy_file_range),
	S(lseek),
	S(fallocate),
	S(ftruncate),
	S(fsync),
	S(fdatasync),
	S(sync_file_range),
	S(fadvise64),
	S(flock),
	S(fcntl),
	S(close),
	S(close_range),
	S(dup),
	S(dup2),
	S(dup3),
	S(pipe),
	S(pipe2),
	/* sockets and waiting */
	S(socketpair),
	S(connect),
	S(bind),
	S(listen),
	S(accept),
	S(accept4),
	S(shutdown),
	S(getsockname),
	S(getpeername),
	S(getsockopt),
	S(setsockopt),
	S(poll),
	S(ppoll),
	S(select),
	S(pselect6),
	S(epoll_create1),
	S(epoll_ctl),
	S(epoll_wait),
	S(epoll_pwait),
	S(eventfd2),
	S(timerfd_create),
	S(timerfd_settime),
	S(timerfd_gettime),
	S(signalfd4),
	S(pidfd_open),
	S(wait4),
	S(waitid),
	/* memory */
	S(munmap),
	S(mremap),
	S(madvise),
	S(mincore),
	S(msync),
	S(mlock),
	S(mlock2),
	S(munlock),
	S(brk),
	/* threads, signals, time */
	S(futex),
	S(set_robust_list),
	S(get_robust_list),
	S(rseq),
	S(set_tid_address),
	S(membarrier),
	S(sched_yield),
	S(sched_getaffinity),
	S(sched_setaffinity),
	S(getcpu),
	S(tgkill),
	S(pidfd_send_signal), /* a QEMU that must never run again and does not quit */
	S(rt_sigaction),
	S(rt_sigprocmask),
	S(rt_sigreturn),
	S(rt_sigtimedwait),
	S(rt_sigpending),
	S(rt_sigsuspend),
	S(sigaltstack),
	S(restart_syscall),
	S(clock_gettime),
	S(clock_getres),
	S(clock_nanosleep),
	S(nanosleep),
	S(gettimeofday),
	S(time),
	S(setitimer),
	S(exit),
	S(exit_group),
	/* questions */
	S(fstat),
	S(newfstatat),
	S(stat),
	S(lstat),
	S(statx),
	S(fstatfs),
	S(statfs),
	S(access),
	S(faccessat),
	S(faccessat2),
	S(readlink),
	S(readlinkat),
	S(getdents64),
	S(getcwd),
	S(getrandom),
	S(getpid),
	S(gettid),
	S(getppid),
	S(getuid),
	S(geteuid),
	S(getgid),
	S(getegid),
	S(getresuid),
	S(getresgid),
	S(getgroups),
	S(uname),
	S(sysinfo),
	S(getrusage),
	S(times),
	S(capget),
};

static const int rename_calls[] = {S(rename), S(renameat), S(renameat2), S(unlink), S(unlinkat)};

static const int socket_families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};

static const unsigned long ioctls[] = {FIONREAD, FIONBIO, TIOCGWINSZ, TCGETS, SIOCOUTQ};

static const int prctls[] = {PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE};

#define SYSCALL_NAMES_MAX 512
static char *syscall_names[SYSCALL_NAMES_MAX]; /* filled by log_violations() */

/* SIGSYS, GODWIT_SANDBOX=log: say which call it was, then die of it. Async-signal-safe. */
static void on_violation(int sig, siginfo_t *info, void *context)
{
	const char *name = "?";
	char text[128];
	int n;

	(void)context;
	if (info->si_syscall >= 0 && info->si_syscall < SYSCALL_NAMES_MAX && syscall_names[info->si_syscall])
		name = syscall_names[info->si_syscall];
	n = snprintf(text, sizeof(text), "<3>event=sandbox.violation syscall=%d name=%s\n", info->si_syscall, name);
	(void)!write(STDERR_FILENO, text, (size_t)n);
	signal(sig, SIG_DFL);
	raise(sig);
	_exit(128 + SIGSYS);
}

static void log_violations(void)
{
	struct sigaction sa = {.sa_sigaction = on_violation, .sa_flags = SA_SIGINFO | SA_NODEFER};

	for (int i = 0; i < SYSCALL_NAMES_MAX; i++)
		syscall_names[i] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);
	sigaction(SIGSYS, &sa, NULL);
}

static int allow(scmp_filter_ctx f, int call)
{
	return seccomp_rule_add(f, SCMP_ACT_ALLOW, call, 0);
}

/* Allow @call where argument @arg & @mask == @value. */
static int allow_masked(scmp_filter_ctx f, int call, unsigned arg, uint64_t mask, uint64_t value)
{
	struct scmp_arg_cmp cmp = {.arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};

	return seccomp_rule_add_array(f, SCMP_ACT_ALLOW, call, 1, &cmp);
}

/* The calls whose arguments decide. */
static int add_checked_calls(scmp_filter_ctx f)
{
	const uint64_t writing = O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND;
	struct scmp_arg_cmp exec = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC);
	int r = 0;

	r |= allow_masked(f, S(open), 1, writing, O_RDONLY);
	r |= allow_masked(f, S(openat), 2, writing, O_RDONLY);
	r |= allow_masked(f, S(mmap), 2, PROT_EXEC, 0);
	r |= allow_masked(f, S(mprotect), 2, PROT_EXEC, 0);
	r |= seccomp_rule_add_array(f, SCMP_ACT_ERRNO(EPERM), S(mmap), 1, &exec);
	r |= seccomp_rule_add_array(f, SCMP_ACT_ERRNO(EPERM), S(mprotect), 1, &exec);
	r |= allow_masked(f, S(clone), 0, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM);
	r |= seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), S(clone3), 0);
	r |= allow_masked(f, S(prlimit64), 2, UINT64_MAX, 0);
	r |= allow_masked(f, S(kill), 0, UINT32_MAX, (uint32_t)getpid());
	for (size_t i = 0; i < ARRAY_SIZE(socket_families); i++)
		r |= allow_masked(f, S(socket), 0, UINT32_MAX, (uint64_t)socket_families[i]);
	for (size_t i = 0; i < ARRAY_SIZE(ioctls); i++)
		r |= allow_masked(f, S(ioctl), 1, UINT32_MAX, ioctls[i]);
	for (size_t i = 0; i < ARRAY_SIZE(prctls); i++)
		r |= allow_masked(f, S(prctl), 0, UINT32_MAX, (uint64_t)prctls[i]);
	return r;
}

static int load_filter(const struct sandbox_options *opt, struct err *e)
{
	const char *mode = getenv("GODWIT_SANDBOX");
	bool log = mode && !strcmp(mode, "log");
	scmp_filter_ctx f = seccomp_init(log ? SCMP_ACT_TRAP : SCMP_ACT_KILL_PROCESS);
	int r = 0;

	if (!f)
		return err_set(e, ERR_SYSTEM, "sandbox: libseccomp cannot start a filter");
	if (log)
		log_violations();
	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		r |= allow(f, allowed[i]);
	for (size_t i = 0; opt->rename_files && i < ARRAY_SIZE(rename_calls); i++)
		r |= allow(f, rename_calls[i]);
	r |= add_checked_calls(f);
	if (!r)
		r = seccomp_load(f);
	seccomp_release(f);
	if (!r)
		return 0;
	return err_set(e, ERR_SYSTEM,
		       "sandbox: the system call filter was not accepted: does this kernel have seccomp?");
}

/* Number of threads of this process. */
static int count_threads(void)
{
	DIR *d = opendir("/proc/self/task");
	int n = 0;

	for (struct dirent *entry; d && (entry = readdir(d));)
		n += entry->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

/* Effective user and group of @pid: the second number of each line. */
static int read_owner(pid_t pid, uid_t *ret_uid, gid_t *ret_gid, struct err *e)
{
	_free_ char *path = xasprintf("/proc/%d/status", (int)pid);
	_closefile_ FILE *f = fopen(path, "re");
	bool have_uid = false, have_gid = false;
	char line[256];

	if (!f)
		return err_sys(e, "sandbox: QEMU's process %d: %s", (int)pid, path);
	while (fgets(line, sizeof(line), f)) {
		have_uid = have_uid || sscanf(line, "Uid: %*u %u", ret_uid) == 1;
		have_gid = have_gid || sscanf(line, "Gid: %*u %u", ret_gid) == 1;
	}
	if (have_uid && have_gid)
		return 0;
	return err_set(e, ERR_SYSTEM, "sandbox: %s does not say who runs QEMU", path);
}

static int become(const struct sandbox_options *opt, struct err *e)
{
	uid_t uid = NOBODY;
	gid_t gid = NOBODY;

	if ((!opt->qemu_pid && !opt->nobody) || geteuid() != 0)
		return 0;
	if (opt->qemu_pid && read_owner(opt->qemu_pid, &uid, &gid, e) < 0)
		return -1;
	if (uid == 0)
		return 0;
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return err_sys(e, "sandbox: become user %u group %u", uid, gid);
	return 0;
}

static int drop_bounding_set(struct err *e)
{
	if (!capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP))
		return 0;
	capng_clear(CAPNG_SELECT_BOUNDS);
	if (capng_apply(CAPNG_SELECT_BOUNDS) != 0)
		return err_set(e, ERR_SYSTEM, "sandbox: the capability bounding set cannot be emptied");
	return 0;
}

static int drop_capabilities(struct err *e)
{
	capng_clear(CAPNG_SELECT_CAPS);
	if (capng_apply(CAPNG_SELECT_CAPS) != 0)
		return err_set(e, ERR_SYSTEM, "sandbox: capabilities cannot be dropped");
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return err_sys(e, "sandbox: drop ambient capabilities");
	return 0;
}

int sandbox_enter(const struct sandbox_options *opt, struct err *e)
{
	const struct rlimit no_core = {0, 0};

	if (!SANITIZED && count_threads() != 1)
		return err_set(e, ERR_SYSTEM, "sandbox: entered with %d threads, must be one", count_threads());
	if (setrlimit(RLIMIT_CORE, &no_core) < 0)
		return err_sys(e, "sandbox: forbid core dumps");
	if (drop_bounding_set(e) < 0 || become(opt, e) < 0 || drop_capabilities(e) < 0)
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_sys(e, "sandbox: no new privileges");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_sys(e, "sandbox: not traceable");
	return SANITIZED ? 0 : load_filter(opt, e);
}
