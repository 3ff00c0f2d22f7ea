/* SPDX-License-Identifier: Apache-2.0 */
/* When a task has come to its end, and how: one rule for each kind. Pure. */
#ifndef GODWIT_NODE_TASKS_H
#define GODWIT_NODE_TASKS_H

#include <jansson.h>
#include <stdbool.h>

/* The kinds of tasks that these rules know; a task of another kind is finished by whoever made it. */
#define TASK_VM_CREATE "vm.create"
#define TASK_VM_START "vm.start"
#define TASK_VM_STOP "vm.stop"
#define TASK_VM_KILL "vm.kill"
#define TASK_VM_MIGRATE "vm.migrate" /* has the id of the migration */

/* Does @command (as applied) concern @task, so that it is to be judged? */
bool task_touched(const json_t *task, const json_t *command);

/* The arguments of the task.finish that is due, a new reference; NULL: it goes on.
 * @task: state_task_get(). @vm: state_vm_get() of its object, @migration: state_migration_get() of its id; NULL: there
 * is none. @fresh: what the owner has last reported about the guest, it has reported after the task was made. */
json_t *task_judge(const json_t *task, const json_t *vm, const json_t *migration, bool fresh);

#endif
