/* SPDX-License-Identifier: Apache-2.0 */
/* Killing an agent with all processes below it.
 *
 * Programs that an agent runs on a terminal of their own (ssh, telnet) have a session of their own, too, which a signal
 * to the agent's group does not reach. So the processes below the agent are looked up in /proc while it lives, and then
 * killed.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "fencing/agent-int.h"

#define KILL_ROUNDS 4  /* a process may fork while its family is looked up */
#define FAMILY_MAX 256 /* processes killed in one round */

struct process {
	pid_t pid, parent, group, session;
	uint64_t start;
	bool ours;
};

static bool process_read(pid_t pid, struct process *ret)
{
	char path[64], buf[1024];
	_closefd_ int fd = -1;
	char *p;
	ssize_t n;
	int parent, group, session;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);
	if (n <= 0)
		return false;
	buf[n] = 0;
	p = strrchr(buf, ')'); /* the name before it may hold anything */
	/* NOLINTNEXTLINE(cert-err34-c): the kernel writes these numbers */
	if (!p || sscanf(p + 1, " %*c %d %d %d", &parent, &group, &session) != 3)
		return false;
	*ret = (struct process){.pid = pid, .parent = parent, .group = group, .session = session};
	ret->start = child_start_time(pid);
	return true;
}

/* All processes of this machine (caller frees), *ret_n of them. */
static struct process *processes_read(size_t *ret_n)
{
	struct process *all = NULL;
	size_t n = 0, room = 0;
	DIR *dir = opendir("/proc");
	struct dirent *d;

	while (dir && (d = readdir(dir))) {
		pid_t pid = (pid_t)strtol(d->d_name, NULL, 10);

		if (n == room) {
			room = room ? 2 * room : 256;
			all = realloc(all, room * sizeof(*all));
			if (!all)
				abort();
		}
		if (pid > 0 && process_read(pid, &all[n]))
			n++;
	}
	if (dir)
		closedir(dir);
	*ret_n = n;
	return all;
}

static bool is_ours(const struct process *p, pid_t leader, const struct process *all, size_t n)
{
	if (p->group == leader || p->session == leader || p->parent == leader)
		return true;
	for (size_t i = 0; i < n; i++)
		if (all[i].ours && all[i].pid == p->parent)
			return true;
	return false;
}

/* Kill what descends from @leader, apart from itself. How many that were. */
static size_t descendants_kill(pid_t leader)
{
	size_t n, found = 0, before;
	struct process *all = processes_read(&n);

	do {
		before = found;
		for (size_t i = 0; i < n && found < FAMILY_MAX; i++) {
			if (all[i].ours || all[i].pid == leader || !is_ours(&all[i], leader, all, n))
				continue;
			all[i].ours = true;
			found++;
		}
	} while (found != before);
	for (size_t i = 0; i < n; i++) {
		struct child c = CHILD_INIT;

		if (!all[i].ours || child_adopt(all[i].pid, all[i].start, &c, NULL) < 0)
			continue;
		child_signal(&c, SIGKILL, NULL);
		child_done(&c);
	}
	free(all);
	return found;
}

void agent_family_kill(const struct child *c)
{
	kill(-c->pid, SIGSTOP); /* what is stopped does not fork */
	for (int i = 0; i < KILL_ROUNDS && descendants_kill(c->pid) > 0; i++)
		;
	kill(-c->pid, SIGKILL);
	child_signal(c, SIGKILL, NULL);
}
