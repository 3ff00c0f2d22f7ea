/* SPDX-License-Identifier: Apache-2.0 */
/* All groups of commands, and the options that every command has. */
#include <stddef.h>

#include "cli/groups.h"

const struct cli_group *const cli_groups[] = {
	&cluster_group, &node_group, &fence_group, &vm_group,       &network_group, &migration_group,  &task_group,
	&events_group,  &user_group, &audit_group, &baseline_group, &setting_group, &completion_group, NULL,
};

const struct cli_param cli_common[] = {
	{.name = "json", .kind = CLI_FLAG, .help = "print JSON: what the daemon answered, one line"},
	{.name = "socket",
	 .value = "PATH",
	 .kind = CLI_FILE,
	 .env = "GODWIT_SOCKET",
	 .not_with = "host",
	 .help = "the daemon's unix socket (default /run/godwit/godwitd.sock)"},
	{.name = "host",
	 .value = "HOST:PORT",
	 .kind = CLI_TEXT,
	 .env = "GODWIT_HOST",
	 .not_with = "socket",
	 .help = "ask the daemon of this host, over HTTPS, as which these say:"},
	{.name = "cert-dir",
	 .value = "DIR",
	 .kind = CLI_FILE,
	 .env = "GODWIT_CERT_DIR",
	 .not_with = "ca|token-file",
	 .only_with = "host",
	 .help = "a folder with ca.pem, cert.pem and key.pem; or"},
	{.name = "ca",
	 .value = "FILE",
	 .kind = CLI_FILE,
	 .env = "GODWIT_CA",
	 .not_with = "cert-dir",
	 .only_with = "host",
	 .help = "the CA of the cluster, together with"},
	{.name = "token-file",
	 .value = "FILE",
	 .kind = CLI_FILE,
	 .env = "GODWIT_TOKEN_FILE",
	 .not_with = "cert-dir",
	 .only_with = "host",
	 .help = "a file with a user's token"},
	{.name = "help", .letter = 'h', .kind = CLI_FLAG, .help = "say how to write a command"},
	{0},
};
