/* SPDX-License-Identifier: Apache-2.0 */
/* A host for tests of node/: a run directory of its own, guests of a few MiB under TCG, and what runs of them. */
#ifndef GODWIT_TESTS_UNIT_NODE_HOST_H
#define GODWIT_TESTS_UNIT_NODE_HOST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above it. */
#include <cmocka.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "hv/rundir.h"
#include "hv/vm.h"
#include "node/agent.h"

#define HOST_CLUSTER "11111111-2222-4333-8444-555555555555"
#define IN_S(seconds) (clock_now_ns() + (seconds)*NS_PER_S)

/* The guest of this program's tests, also of processes that it forks; another run of the test has another. */
static char host_uuid[37];

static inline void host_init(void)
{
	snprintf(host_uuid, sizeof(host_uuid), "6ba7b810-9dad-41d1-80b4-%012x", (unsigned)getpid());
}

/* The folder of the programs, beside that of the unit tests. Caller frees. */
static inline char *host_program(const char *name)
{
	_free_ char *self = agent_program_beside("");
	_free_ char *path = xasprintf("%s/../../%s", self, name);
	char *real = realpath(path, NULL);

	if (!real || access("/usr/bin/qemu-system-x86_64", X_OK) < 0) {
		free(real);
		print_message("# skipped: needs %s and /usr/bin/qemu-system-x86_64\n", path);
		skip();
	}
	return real;
}

static inline json_t *host_definition(const char *name, const char *uuid, const char *more)
{
	_free_ char *text =
		xasprintf("{\"name\":\"%s\",\"uuid\":\"%s\",\"vcpus\":1,\"memory\":64%s}", name, uuid, more);
	struct def d = {0};
	struct err e = ERR_INIT;
	json_t *o;

	if (def_parse(text, strlen(text), name, "/", &d, &e) < 0)
		fail_msg("%s", e.text);
	o = def_to_json(&d);
	def_done(&d);
	return o;
}

/* QEMUs of guest @uuid, anywhere on this machine, that run out of @run_dir. */
static inline int host_qemus(const char *uuid)
{
	DIR *d = opendir("/proc");
	struct dirent *entry;
	int n = 0;

	while ((entry = readdir(d))) {
		_free_ char *path = xasprintf("/proc/%s/cmdline", entry->d_name);
		char line[4096];
		ssize_t size;
		_closefd_ int fd = isdigit((unsigned char)entry->d_name[0]) ? open(path, O_RDONLY | O_CLOEXEC) : -1;

		size = fd < 0 ? -1 : read(fd, line, sizeof(line));
		n += size > 0 && strncmp(line, "qemu-system-x86_64", 18) == 0 &&
		     memmem(line, (size_t)size, uuid, strlen(uuid)) != NULL;
	}
	closedir(d);
	return n;
}

/* The process of guest @name and its status; -1 when there is none. */
static inline pid_t host_pid(const char *run_dir, const char *name, enum vm_status *ret_status)
{
	struct vm *vm = NULL;
	pid_t pid;

	if (vm_open(run_dir, name, &vm, NULL) < 0)
		return -1;
	pid = vm->proc.pid;
	if (ret_status)
		*ret_status = vm_status(vm);
	vm_close(vm);
	return pid;
}

/* Whatever a failed test left. */
static inline void host_clean(const char *run_dir)
{
	char **names = NULL;

	if (rundir_names(run_dir, &names, NULL) < 0)
		return;
	for (size_t i = 0; names[i]; i++) {
		struct vm *vm = NULL;

		if (vm_open(run_dir, names[i], &vm, NULL) == 0)
			vm_kill(vm, NULL);
		vm_close(vm);
		rundir_remove(run_dir, names[i], NULL);
	}
	rundir_names_free(names);
}

#endif
