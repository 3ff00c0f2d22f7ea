/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes: fork and exec without a shell, held by pidfd, with nothing inherited that was not listed. */
#ifndef GODWIT_BASE_CHILD_H
#define GODWIT_BASE_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* One descriptor for the child: the caller's @from (which stays the caller's) appears there as @to. */
struct child_fd {
	int from;
	int to;
};

#define CHILD_FDS_MAX 128
#define CHILD_GROUPS_MAX 8

/* What to run. Everything is borrowed during child_spawn() only. */
struct child_spec {
	const char *const *argv;    /* argv[0]: absolute path, or a name looked up in CHILD_PATH; NULL-terminated */
	const char *const *envp;    /* NULL: only PATH=CHILD_PATH and LC_ALL=C */
	const struct child_fd *fds; /* 0, 1 and 2 are /dev/null unless listed; everything unlisted is closed */
	size_t n_fds;
	bool drop; /* become uid/gid with exactly @groups before exec (needs root) */
	uid_t uid;
	gid_t gid;
	gid_t groups[CHILD_GROUPS_MAX];
	size_t n_groups;
	bool session;          /* own session and working folder /: the child outlives terminal and caller */
	bool die_with_parent;  /* SIGKILL to the child when the calling thread ends */
	bool hold;             /* exec only after child_release(); if the caller dies before that, the child exits */
	const char *cgroup_fs; /* a cgroup v2 folder to enter, or NULL */
};

/* Where programs named without a slash are looked for; never the caller's PATH. */
#define CHILD_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* A process we may signal. Start as CHILD_INIT; close with child_done(), which neither kills nor waits. */
struct child {
	pid_t pid;
	int pidfd;
	uint64_t start_time; /* /proc/PID/stat field 22: with the pid it names one process until the host reboots */
	int hold_fd;         /* spec.hold: the gate, until child_release() */
	int exec_fd;         /* spec.hold: tells whether exec worked, read by child_release() */
};

#define CHILD_INIT ((struct child){.pid = -1, .pidfd = -1, .hold_fd = -1, .exec_fd = -1})

/* Start @spec. 0 once exec succeeded (or the child waits at the gate, with hold); -1 with @e naming the step that
 * failed, and then nothing is left running. Any thread. */
int child_spawn(const struct child_spec *spec, struct child *ret, struct err *e);

/* Open the gate of a held child: 0 once exec succeeded, -1 with @e (the child is gone then). */
int child_release(struct child *c, struct err *e);

/* Take hold of a process that is not (or no longer) our child: @pid, and only if its start time is @start_time.
 * -1 with @e (ERR_INPUT) when it is gone or somebody else wears the pid. */
int child_adopt(pid_t pid, uint64_t start_time, struct child *ret, struct err *e);

/* Whether the process has ended (a zombie has). */
bool child_ended(const struct child *c);

/* Wait for the end until @deadline_ns: 1 ended, 0 not by then, -1 with @e. @ret_status (may be NULL) gets the wait
 * status when it was our own child, -1 otherwise. */
int child_wait(struct child *c, int64_t deadline_ns, int *ret_status, struct err *e);

/* Signal through the pidfd: a reused pid cannot be hit. 0, or -1 with @e; a process already gone is success. */
int child_signal(const struct child *c, int sig, struct err *e);

void child_done(struct child *c);

/* Start time of @pid in clock ticks since boot, 0 when there is no such process. */
uint64_t child_start_time(pid_t pid);

/* A wait status as words: "exited with 1", "killed by signal 9 (Killed)". @buf is returned. */
const char *child_status_text(int status, char *buf, size_t size);

/* Run @argv to its end, stdin empty, and give what it printed (at most @limit bytes, NUL-terminated, caller frees)
 * in @ret_out (may be NULL). -1 with @e when it cannot start, prints too much, is late (then it is killed), or exits
 * other than 0: its own last line on stderr is in the sentence. */
int child_run(const char *const *argv, int64_t deadline_ns, size_t limit, char **ret_out, struct err *e);

/* The last line with letters in @text (modified), for messages; "" when there is none. */
const char *child_last_line(char *text);

#endif
