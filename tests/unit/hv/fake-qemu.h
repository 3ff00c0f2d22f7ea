/* SPDX-License-Identifier: Apache-2.0 */
/* A fake QEMU for unit tests: a thread at the other end of a socketpair that plays a script; and a real one. */
#ifndef GODWIT_TESTS_UNIT_HV_FAKE_QEMU_H
#define GODWIT_TESTS_UNIT_HV_FAKE_QEMU_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above it. */
#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "hv/qmp.h"

#define GREETING                                                                                                       \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \"package\": \"\"}, "         \
	"\"capabilities\": [\"oob\"]}}\r\n"
#define IN_S(seconds) (clock_now_ns() + (seconds)*NS_PER_S)
#define IN_MS(ms) (clock_now_ns() + (ms)*NS_PER_MS)

enum fake_act {
	FAKE_END,     /* close the socket */
	FAKE_SAY,     /* send text as it is */
	FAKE_DRIBBLE, /* send text byte by byte, each in a segment of its own */
	FAKE_HEAR,    /* read one line, which must contain text */
	FAKE_HEAR_FD, /* as FAKE_HEAR; a descriptor must come with it, "mark" is written into it */
	FAKE_ANSWER,  /* send {text, "id": the id of the line heard last} */
	FAKE_FLOOD,   /* send text number times */
	FAKE_HOLD,    /* read until the client closes */
	FAKE_WAIT_MS, /* let number milliseconds pass */
};

struct fake_step {
	enum fake_act act;
	const char *text;
	size_t number;
};

/* What every script begins with. */
#define FAKE_HELLO                                                                                                     \
	{FAKE_SAY, GREETING, 0}, {FAKE_HEAR, "qmp_capabilities", 0},                                                   \
	{                                                                                                              \
		FAKE_ANSWER, "\"return\": {}", 0                                                                       \
	}

struct fake {
	pthread_t thread;
	int fd;
	const struct fake_step *script;
	long id;
	char wrong[4200]; /* what did not go as scripted, empty when all did */
};

static inline bool fake_say(struct fake *f, const char *text, size_t n)
{
	while (n) {
		ssize_t r = send(f->fd, text, n, MSG_NOSIGNAL);

		if (r <= 0)
			return false; /* the client closed first: its own asserts tell whether that was right */
		text += r;
		n -= (size_t)r;
	}
	return true;
}

/* Read one line byte by byte, taking a descriptor when one comes. Returns it or -1. */
static inline int fake_read_line(struct fake *f, char *line, size_t size)
{
	size_t n = 0;
	int got = -1;

	while (n + 1 < size) {
		char ctl[CMSG_SPACE(sizeof(int))];
		struct iovec iov = {.iov_base = line + n, .iov_len = 1};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof(ctl)};

		if (recvmsg(f->fd, &m, MSG_CMSG_CLOEXEC) <= 0)
			break;
		if (CMSG_FIRSTHDR(&m))
			memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(got));
		if (line[n++] == '\n')
			break;
	}
	line[n] = 0;
	return got;
}

static inline void fake_hear(struct fake *f, const struct fake_step *step)
{
	char line[4096];
	int got = fake_read_line(f, line, sizeof(line));
	const char *id = strstr(line, "\"id\":");

	if (!strstr(line, step->text) || !id)
		snprintf(f->wrong, sizeof(f->wrong), "wanted %s, heard \"%s\"", step->text, line);
	f->id = id ? strtol(id + 5, NULL, 10) : -1;
	if (step->act != FAKE_HEAR_FD)
		return;
	if (got < 0 || write(got, "mark", 4) != 4)
		snprintf(f->wrong, sizeof(f->wrong), "no usable descriptor came with \"%s\"", line);
	close(got);
}

static inline void fake_step_run(struct fake *f, const struct fake_step *step)
{
	char text[4096];
	int n;

	switch (step->act) {
	case FAKE_SAY:
		fake_say(f, step->text, strlen(step->text));
		break;
	case FAKE_DRIBBLE:
		for (const char *p = step->text; *p; p++) {
			fake_say(f, p, 1);
			sched_yield();
		}
		break;
	case FAKE_HEAR:
	case FAKE_HEAR_FD:
		fake_hear(f, step);
		break;
	case FAKE_ANSWER:
		n = snprintf(text, sizeof(text), "{%s, \"id\": %ld}\r\n", step->text, f->id);
		fake_say(f, text, (size_t)n);
		break;
	case FAKE_FLOOD:
		for (size_t i = 0; i < step->number && fake_say(f, step->text, strlen(step->text)); i++)
			;
		break;
	case FAKE_HOLD:
		while (recv(f->fd, text, sizeof(text), 0) > 0)
			;
		break;
	case FAKE_WAIT_MS:
		poll(NULL, 0, (int)step->number);
		break;
	case FAKE_END:
		break;
	}
}

static inline void *fake_main(void *arg)
{
	struct fake *f = arg;

	for (const struct fake_step *step = f->script; step->act != FAKE_END && !f->wrong[0]; step++)
		fake_step_run(f, step);
	close(f->fd);
	return NULL;
}

/* Start playing @script (ends with a FAKE_END step); returns the client's end. */
static inline int fake_start(struct fake *f, const struct fake_step *script)
{
	int pair[2];

	memset(f, 0, sizeof(*f));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	f->fd = pair[1];
	f->script = script;
	assert_int_equal(pthread_create(&f->thread, NULL, fake_main, f), 0);
	return pair[0];
}

/* Close the client (NULL is fine) and check that the script went as written. */
static inline void fake_finish(struct fake *f, struct qmp *q)
{
	qmp_close(q);
	pthread_join(f->thread, NULL);
	assert_string_equal(f->wrong, "");
}

/* Start @script and open a client on it, which must work. */
static inline struct qmp *fake_open(struct fake *f, const struct fake_step *script)
{
	struct err e = ERR_INIT;
	struct qmp *q = NULL;

	if (qmp_open_fd(fake_start(f, script), "fake", IN_S(5), &q, &e) < 0)
		fail_msg("%s", e.text);
	return q;
}

/* A real QEMU in a directory of its own. */
struct real_qemu {
	char dir[64];
	char path[96]; /* its -qmp socket */
	pid_t pid;
};

#define REAL_ARGS_MAX 32

/* Does somebody accept connections at @path? Its file is there a moment before. */
static inline bool real_listens(const char *path)
{
	FILE *f = fopen("/proc/net/unix", "re");
	char line[512];
	bool found = false;

	assert_non_null(f);
	while (!found && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		found = strstr(line, " 00010000 ") && strlen(line) > strlen(path) &&
			!strcmp(line + strlen(line) - strlen(path), path); /* the flags of a socket that listens */
	}
	fclose(f);
	return found;
}

/* Start qemu-system-x86_64 (TCG, no devices, 64 MiB, stopped) with @extra arguments (NULL-terminated; relative paths
 * are in its directory). Skips the test with a reason where there is no such program. */
static inline void real_start(struct real_qemu *r, const char *const *extra)
{
	const char *args[REAL_ARGS_MAX] = {
		"qemu-system-x86_64", "-S", "-nodefaults", "-display", "none", "-accel", "tcg",
		"-machine",           "pc", "-m",          "64"};
	char qmp[128];
	size_t n = 11;

	if (access("/usr/bin/qemu-system-x86_64", X_OK) < 0) {
		print_message("skipped: /usr/bin/qemu-system-x86_64 is not there (apt-get install qemu-system-x86)\n");
		skip();
	}
	strcpy(r->dir, "/tmp/godwit-qmp-XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	snprintf(r->path, sizeof(r->path), "%s/qmp", r->dir);
	snprintf(qmp, sizeof(qmp), "unix:%s,server=on,wait=off", r->path);
	args[n++] = "-qmp";
	args[n++] = qmp;
	while (extra && *extra && n + 1 < REAL_ARGS_MAX)
		args[n++] = *extra++;
	args[n] = NULL;
	r->pid = fork();
	assert_true(r->pid >= 0);
	if (!r->pid) {
		/* A test that fails leaves its QEMU behind; it must not outlive the program. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (chdir(r->dir) == 0)
			execv("/usr/bin/qemu-system-x86_64", (char *const *)args);
		_exit(127);
	}
	for (int i = 0; i < 1500 && !real_listens(r->path); i++)
		poll(NULL, 0, 20);
}

/* Kill it where it still runs, reap it, remove its directory. Returns its wait status. */
static inline int real_stop(struct real_qemu *r, bool kill_it)
{
	static const char *const files[] = {"qmp", "qmp2", "hmp", "disk"};
	int status = -1;

	if (kill_it)
		kill(r->pid, SIGKILL);
	waitpid(r->pid, &status, 0);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		char path[96];

		snprintf(path, sizeof(path), "%s/%s", r->dir, files[i]);
		unlink(path);
	}
	rmdir(r->dir);
	return status;
}

#endif
