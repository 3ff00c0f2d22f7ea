/* SPDX-License-Identifier: Apache-2.0 */
/* Our configuration in real corosyncs: three hosts, each in its own network namespace, join and leave while they run.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "node/corosync.h"

#define HOSTS 3
#define SOON (clock_now_ns() + 30 * NS_PER_S)
#define STEP_NS (100 * NS_PER_MS)

/* A host: namespaces for network and mounts, held open by a process that waits in them. */
struct host {
	unsigned id;
	pid_t holder;
	int net_fd, mnt_fd;
	char dir[64]; /* its /etc/corosync, and its log */
	struct child corosync;
};

/* Namespaces of the test itself, to come back to. */
static int home_net_fd, home_mnt_fd;
static char root[] = "/tmp/godwit-corosync-XXXXXX";
static struct host hosts[HOSTS];
static uint8_t key[COROSYNC_KEY_SIZE];
static char *tree; /* where the test was started: entering a namespace of mounts leads to / */

static void run(const char *const *argv)
{
	struct err e = ERR_INIT;

	if (child_run(argv, SOON, 4096, NULL, &e) < 0)
		fail_msg("%s", e.text);
}

#define RUN(...) run((const char *const[]){__VA_ARGS__, NULL})

static void enter(int net_fd, int mnt_fd)
{
	assert_int_equal(setns(net_fd, CLONE_NEWNET), 0);
	assert_int_equal(setns(mnt_fd, CLONE_NEWNS), 0);
}

/* The host's own /run and /var/lib/corosync, where corosync keeps its lock and its ring. */
static _Noreturn void hold(int ready_fd)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("run", "/run", "tmpfs", 0, NULL) < 0 || mount("lib", "/var/lib/corosync", "tmpfs", 0, NULL) < 0)
		_exit(1);
	(void)!write(ready_fd, "r", 1);
	for (;;)
		pause();
}

static int ns_open(pid_t pid, const char *kind)
{
	_free_ char *path = xasprintf("/proc/%d/ns/%s", (int)pid, kind);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void host_make(struct host *h, unsigned id)
{
	char link[16], pid[16], address[32], byte;
	int p[2];

	h->id = id;
	h->corosync = CHILD_INIT;
	snprintf(h->dir, sizeof(h->dir), "%s/n%u", root, id);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	h->holder = fork();
	if (h->holder == 0)
		hold(p[1]);
	close(p[1]);
	assert_int_equal(read(p[0], &byte, 1), 1);
	close(p[0]);
	h->net_fd = ns_open(h->holder, "net");
	h->mnt_fd = ns_open(h->holder, "mnt");
	snprintf(link, sizeof(link), "h%u", id);
	snprintf(pid, sizeof(pid), "%d", (int)h->holder);
	snprintf(address, sizeof(address), "10.77.0.%u/24", id);
	RUN("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pid);
	RUN("ip", "link", "set", link, "master", "br0", "up");
	enter(h->net_fd, h->mnt_fd);
	RUN("ip", "link", "set", "lo", "up");
	RUN("ip", "address", "add", address, "dev", "eth0");
	RUN("ip", "link", "set", "eth0", "up");
	enter(home_net_fd, home_mnt_fd);
}

/* A cluster of hosts 1 to @n. */
static struct corosync_conf conf_of(unsigned n, uint64_t version)
{
	struct corosync_conf c = {
		.cluster = "live", .version = version, .token_ms = COROSYNC_TOKEN_MS, .n_links = 1, .n_nodes = n};

	for (unsigned i = 0; i < n; i++) {
		c.nodes[i].id = i + 1;
		snprintf(c.nodes[i].name, sizeof(c.nodes[i].name), "n%u", i + 1);
		snprintf(c.nodes[i].addresses[0], ADDRESS_TEXT_MAX, "10.77.0.%u", i + 1);
	}
	return c;
}

static void host_write(struct host *h, const struct corosync_conf *c)
{
	_free_ char *key_path = xasprintf("%s/authkey", h->dir);
	struct corosync_local local = {.key_path = key_path, .to_stderr = true};
	struct err e = ERR_INIT;

	if (corosync_write(h->dir, c, &local, key, &e) < 0)
		fail_msg("%s", e.text);
}

static void host_start(struct host *h)
{
	_free_ char *conf = xasprintf("%s/corosync.conf", h->dir);
	_free_ char *log = xasprintf("%s/log", h->dir);
	const char *argv[] = {"corosync", "-f", "-c", conf, NULL};
	const char *check[] = {"corosync", "-t", "-c", conf, NULL};
	_closefd_ int log_fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	struct child_fd fds[] = {{log_fd, STDERR_FILENO}};
	struct child_spec spec = {.argv = argv, .fds = fds, .n_fds = 1, .die_with_parent = true};
	struct err e = ERR_INIT;

	enter(h->net_fd, h->mnt_fd);
	if (child_run(check, SOON, 4096, NULL, &e) < 0 || child_spawn(&spec, &h->corosync, &e) < 0)
		fail_msg("%s", e.text);
	enter(home_net_fd, home_mnt_fd);
}

static void host_kill(struct host *h, int sig)
{
	assert_int_equal(child_signal(&h->corosync, sig, NULL), 0);
	assert_int_equal(child_wait(&h->corosync, SOON, NULL, NULL), 1);
	child_done(&h->corosync);
}

static int host_reload(struct host *h, int64_t deadline_ns, struct err *e)
{
	int r;

	enter(h->net_fd, h->mnt_fd);
	r = corosync_reload(deadline_ns, e);
	enter(home_net_fd, home_mnt_fd);
	return r;
}

/* What corosync-quorumtool says on the host; "" while it does not answer. Caller frees. */
static char *host_quorum(struct host *h)
{
	const char *argv[] = {"corosync-quorumtool", "-s", NULL};
	char *out = NULL;

	enter(h->net_fd, h->mnt_fd);
	/* It exits with 2 when the host is not quorate: nobody asks for more than that then. */
	child_run(argv, SOON, 8192, &out, NULL);
	enter(home_net_fd, home_mnt_fd);
	return out ? out : xstrdup("");
}

static bool quorum_shows(struct host *h, const char *field, const char *value)
{
	_free_ char *out = host_quorum(h);
	const char *p = strstr(out, field);

	if (!p)
		return false;
	p += strlen(field);
	p += strspn(p, " ");
	return strncmp(p, value, strlen(value)) == 0;
}

static void wait_until_shows(struct host *h, const char *field, const char *value)
{
	int64_t deadline = SOON;

	while (!quorum_shows(h, field, value)) {
		if (clock_now_ns() > deadline) {
			_free_ char *log_path = xasprintf("%s/log", h->dir);
			_free_ char *log = file_read(log_path, 1 << 20, NULL, NULL);
			_free_ char *out = host_quorum(h);

			fail_msg("n%u never showed %s %s, but:\n%s\n%s", h->id, field, value, out, log ? log : "");
		}
		nanosleep(&(struct timespec){.tv_nsec = STEP_NS}, NULL);
	}
}

static void assert_never_lost_quorum(struct host *h)
{
	_free_ char *path = xasprintf("%s/log", h->dir);
	_free_ char *log = file_read(path, 1 << 20, NULL, NULL);

	assert_non_null(log);
	assert_non_null(strstr(log, "within the primary component"));
	if (strstr(log, "non-primary"))
		fail_msg("n%u lost quorum:\n%s", h->id, log);
}

static void grow_to(unsigned n, uint64_t version)
{
	struct corosync_conf c = conf_of(n, version);
	struct err e = ERR_INIT;
	char count[8];

	for (unsigned i = 0; i + 1 < n; i++)
		host_write(&hosts[i], &c);
	if (host_reload(&hosts[0], SOON, &e) < 0)
		fail_msg("%s", e.text);
	snprintf(count, sizeof(count), "%u\n", n);
	wait_until_shows(&hosts[0], "Expected votes:", count);
	assert_true(quorum_shows(&hosts[0], "Quorate:", "Yes"));
	host_write(&hosts[n - 1], &c);
	host_start(&hosts[n - 1]);
	for (unsigned i = 0; i < n; i++)
		wait_until_shows(&hosts[i], "Total votes:", count);
}

static void hosts_are_added_and_removed_live_and_the_first_never_loses_quorum(void **state)
{
	struct corosync_conf one = conf_of(1, 1), two = conf_of(2, 4);
	struct err e = ERR_INIT;

	(void)state;
	host_write(&hosts[0], &one);
	host_start(&hosts[0]);
	wait_until_shows(&hosts[0], "Quorate:", "Yes");
	grow_to(2, 2);
	/* Waiting for all is for hosts that start: the second has; the first will when it starts again. */
	assert_true(quorum_shows(&hosts[0], "Flags:", "2Node Quorate \n"));
	assert_true(quorum_shows(&hosts[1], "Flags:", "2Node Quorate WaitForAll"));
	assert_true(quorum_shows(&hosts[0], "Quorum:", "1"));
	grow_to(3, 3);
	assert_true(quorum_shows(&hosts[0], "Flags:", "Quorate \n"));
	assert_true(quorum_shows(&hosts[0], "Quorum:", "2"));

	host_kill(&hosts[2], SIGTERM);
	wait_until_shows(&hosts[0], "Total votes:", "2\n");
	host_write(&hosts[0], &two);
	host_write(&hosts[1], &two);
	assert_int_equal(host_reload(&hosts[1], SOON, &e), 0);
	wait_until_shows(&hosts[0], "Expected votes:", "2\n");
	assert_true(quorum_shows(&hosts[0], "Quorum:", "1"));
	host_kill(&hosts[1], SIGKILL);
	wait_until_shows(&hosts[0], "Total votes:", "1\n");
	assert_true(quorum_shows(&hosts[0], "Quorate:", "Yes"));
	assert_never_lost_quorum(&hosts[0]);
}

static void reload_of_a_broken_file_fails_and_corosync_goes_on(void **state)
{
	_free_ char *path = xasprintf("%s/corosync.conf", hosts[0].dir);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(file_write_atomic(path, "totem {\n", 8, 0644, (gid_t)-1, &e), 0);
	assert_int_equal(host_reload(&hosts[0], SOON, &e), -1);
	assert_non_null(strstr(e.text, "corosync did not take the new configuration"));
	assert_true(quorum_shows(&hosts[0], "Quorate:", "Yes"));
}

static void reload_ends_at_its_deadline_when_corosync_stands_still(void **state)
{
	struct err e = ERR_INIT;
	int64_t start = clock_now_ns();

	(void)state;
	assert_int_equal(child_signal(&hosts[0].corosync, SIGSTOP, NULL), 0);
	assert_int_equal(host_reload(&hosts[0], clock_now_ns() + 500 * NS_PER_MS, &e), -1);
	assert_int_equal(e.code, ERR_TIMEOUT);
	assert_true(clock_now_ns() - start < 10 * NS_PER_S);
	assert_int_equal(child_signal(&hosts[0].corosync, SIGCONT, NULL), 0);
}

static void corosync_accepts_every_golden_configuration(void **state)
{
	static const char *const files[] = {"one.conf",       "two.conf",         "three.conf",
					    "two-rings.conf", "two-qdevice.conf", "three-qdevice.conf"};
	struct host *h = &hosts[2];
	_free_ char *conf_path = xasprintf("%s/corosync.conf", h->dir);
	const char *check[] = {"corosync", "-t", "-c", conf_path, NULL};
	struct err e = ERR_INIT;

	(void)state;
	enter(h->net_fd, h->mnt_fd);
	/* It wants one of its addresses to be here. */
	RUN("ip", "address", "add", "10.0.0.1/24", "dev", "lo");
	RUN("ip", "address", "add", "fd00::1/64", "dev", "lo", "nodad");
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_free_ char *path = xasprintf("%s/tests/golden/corosync/%s", tree, files[i]);
		_free_ char *text = file_read(path, COROSYNC_TEXT_MAX, NULL, &e);
		struct corosync_conf c;

		if (!text || corosync_conf_parse(text, &c, &e) < 0)
			fail_msg("%s: %s", files[i], e.text);
		host_write(h, &c);
		if (child_run(check, SOON, 4096, NULL, &e) < 0)
			fail_msg("%s: %s", files[i], e.text);
	}
	enter(home_net_fd, home_mnt_fd);
}

static int make_hosts(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	tree = getcwd(NULL, 0);
	if (!tree || !mkdtemp(root) || unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || corosync_key_make(key, &e) < 0)
		return -1;
	home_net_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	home_mnt_fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	RUN("ip", "link", "add", "br0", "type", "bridge");
	RUN("ip", "link", "set", "br0", "up");
	for (unsigned i = 0; i < HOSTS; i++)
		host_make(&hosts[i], i + 1);
	return 0;
}

static int end_hosts(void **state)
{
	(void)state;
	for (unsigned i = 0; i < HOSTS; i++) {
		if (hosts[i].corosync.pidfd >= 0)
			host_kill(&hosts[i], SIGKILL);
		kill(hosts[i].holder, SIGKILL);
		waitpid(hosts[i].holder, NULL, 0);
		close(hosts[i].net_fd);
		close(hosts[i].mnt_fd);
	}
	RUN("rm", "-rf", root);
	free(tree);
	return 0;
}

/* Why this machine cannot; NULL when it can. */
static const char *missing(void)
{
	pid_t pid;
	int status;

	if (access("/usr/sbin/corosync", X_OK) < 0)
		return "corosync is not installed";
	pid = fork();
	if (pid == 0)
		_exit(unshare(CLONE_NEWNET | CLONE_NEWNS) < 0);
	waitpid(pid, &status, 0);
	return status == 0 ? NULL : "making network namespaces needs root";
}

static void skipped(void **state)
{
	print_message("%s\n", missing());
	(void)state;
	skip();
}

int main(void)
{
	const struct CMUnitTest skips[] = {cmocka_unit_test(skipped)};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hosts_are_added_and_removed_live_and_the_first_never_loses_quorum),
		cmocka_unit_test(reload_of_a_broken_file_fails_and_corosync_goes_on),
		cmocka_unit_test(reload_ends_at_its_deadline_when_corosync_stands_still),
		cmocka_unit_test(corosync_accepts_every_golden_configuration),
	};

	if (missing())
		return cmocka_run_group_tests(skips, NULL, NULL);
	return cmocka_run_group_tests(tests, make_hosts, end_hosts);
}
