/* SPDX-License-Identifier: Apache-2.0 */
/* One guest on this host: starting its QEMU, finding it again, stopping it. */
#ifndef GODWIT_HV_VM_H
#define GODWIT_HV_VM_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/child.h"
#include "base/err.h"
#include "hv/accel.h"
#include "hv/def.h"
#include "hv/qmp.h"

/* Files in a guest's folder of the run directory. */
#define VM_QMP_SOCK "qmp.sock"         /* monitor for whoever manages the guest */
#define VM_ENGINE_SOCK "engine.sock"   /* monitor for the migration engine */
#define VM_CONSOLE_SOCK "console.sock" /* serial console */
#define VM_CONSOLE_LOG "console.log"
#define VM_QEMU_LOG "qemu.log" /* QEMU's stderr */

enum vm_status {
	VM_STATUS_RUNNING,
	VM_STATUS_PAUSED,
	VM_STATUS_INCOMING, /* waits for a migration */
	VM_STATUS_MIGRATED, /* source after a migration */
	VM_STATUS_SHUTDOWN, /* the guest powered itself off */
	VM_STATUS_FAILED,   /* QEMU stopped it: internal or I/O error, panic */
	VM_STATUS_SILENT,   /* QEMU lives; its monitor does not answer (or is in use) */
	VM_STATUS_GONE,     /* QEMU ended without being told: a crash */
	VM_STATUS_MAX
};
extern const char *const vm_status_names[VM_STATUS_MAX];

enum vm_stop_step {
	VM_STOP_GONE, /* nothing to stop: QEMU was gone already */
	VM_STOP_ACPI, /* the guest powered itself off when asked */
	VM_STOP_QUIT, /* QEMU ended when asked */
	VM_STOP_KILL, /* QEMU was killed */
	VM_STOP_MAX
};
extern const char *const vm_stop_names[VM_STOP_MAX];

/* How to start. All borrowed. */
struct vm_options {
	const char *run_dir;
	const char *qemu; /* NULL: qemu-system-x86_64 */
	const char *mark; /* NULL, or a text of the caller's own that is kept with the guest */
	const char *user; /* NULL: as root "godwit-qemu" if there is such a user, else "nobody"; otherwise ourselves */
	enum accel_want accel;
	enum accel_ring ring;
	bool incoming;
};

/* A guest that was started. Owned by its opener. */
struct vm {
	char *run_dir;
	char *dir; /* run_dir/name */
	char name[DEF_NAME_MAX + 1];
	char uuid[37];
	struct child proc; /* pidfd -1: gone */
	json_t *state;     /* state.json; docs/guest.md lists its fields */
};

/* Start a guest from @d. With options.incoming it waits, stopped, for a migration; else it runs. QEMU outlives the
 * caller. 0 with *ret owned by the caller, or -1 with @e and nothing left behind: ERR_INPUT when a guest of that name
 * is there already. */
int vm_start(const struct def *d, const struct vm_options *opt, struct vm **ret, struct err *e);

/* Find guest @name: its process by pidfd, pid and start time. ERR_INPUT: no such guest. A guest whose QEMU is gone
 * opens too. */
int vm_open(const char *run_dir, const char *name, struct vm **ret, struct err *e);
void vm_close(struct vm *vm);

/* A monitor connection to the guest's QEMU, checked to be the recorded process. @sock: VM_QMP_SOCK or VM_ENGINE_SOCK.
 */
int vm_monitor(const struct vm *vm, const char *sock, int64_t deadline_ns, struct qmp **ret, struct err *e);

/* What the guest is doing; asks QEMU, for at most one second. */
enum vm_status vm_status(const struct vm *vm);

/* The last line QEMU wrote to its log, or "". Caller frees. */
char *vm_last_words(const struct vm *vm);

/* Stop the guest by the ladder: ACPI power button, and @timeout_ms later QMP quit, and then SIGKILL. Its folder and
 * cgroup are removed. 0 and the step that did it in *ret, or -1 with @e. */
int vm_stop(struct vm *vm, int64_t timeout_ms, enum vm_stop_step *ret, struct err *e);

/* Let a guest run that is paused, or that a migration left stopped: only where it is certain that it runs nowhere else.
 * 0 once it runs, or did already; -1 with @e. Takes at most ten seconds. */
int vm_resume(struct vm *vm, struct err *e);

/* SIGKILL at once; the folder and cgroup are removed. */
int vm_kill(struct vm *vm, struct err *e);

#endif
