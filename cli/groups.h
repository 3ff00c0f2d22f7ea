/* SPDX-License-Identifier: Apache-2.0 */
/* The groups of commands, a file each. */
#ifndef GODWIT_CLI_GROUPS_H
#define GODWIT_CLI_GROUPS_H

#include "cli/command.h"

extern const struct cli_group cluster_group;
extern const struct cli_group node_group;
extern const struct cli_group fence_group;
extern const struct cli_group vm_group;
extern const struct cli_group network_group;
extern const struct cli_group migration_group;
extern const struct cli_group task_group;
extern const struct cli_group events_group;
extern const struct cli_group user_group;
extern const struct cli_group audit_group;
extern const struct cli_group baseline_group;
extern const struct cli_group setting_group;
extern const struct cli_group completion_group;

/* Commands of the fence group that have a file of their own, and one of the node group in fence.c. */
int fence_add_run(struct cli *c, struct err *e);
int fence_edit_run(struct cli *c, struct err *e);
int fence_disk_format_run(struct cli *c, struct err *e);
int fence_disk_list_run(struct cli *c, struct err *e);
extern const struct cli_param fence_add_options[], fence_edit_options[];
int node_confirm_dead_run(struct cli *c, struct err *e);

/* Commands of the vm group that have a file of their own. */
int vm_create_run(struct cli *c, struct err *e);
extern const struct cli_param vm_create_options[];
int vm_migrate_run(struct cli *c, struct err *e);
int vm_edit_run(struct cli *c, struct err *e);
int vm_ha_run(struct cli *c, struct err *e);
extern const struct cli_param vm_ha_options[];

#endif
