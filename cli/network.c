/* SPDX-License-Identifier: Apache-2.0 */
/* godwit network: bridges of the same name on every host. */
#include "cli/groups.h"
#include "cli/run.h"

static const struct view_column list_view[] = {
	{"NAME", "name", VIEW_TEXT},     {"BRIDGE", "bridge", VIEW_TEXT}, {"VLAN", "vlan", VIEW_TEXT},
	{"UPLINK", "uplink", VIEW_TEXT}, {"MTU", "mtu", VIEW_TEXT},       {"VMS", "vms", VIEW_LIST},
	{NULL, NULL, VIEW_TEXT},
};

static const struct view_column network_view[] = {
	{"name", "name", VIEW_TEXT},       {"bridge", "bridge", VIEW_TEXT}, {"vlan", "vlan", VIEW_TEXT},
	{"uplink", "uplink", VIEW_TEXT},   {"mtu", "mtu", VIEW_TEXT},       {"guests", "vms", VIEW_LIST},
	{"created", "created", VIEW_TIME}, {NULL, NULL, VIEW_TEXT},
};

#define OPERAND_NETWORK                                                                                                \
	{                                                                                                              \
		.name = "NAME", .kind = CLI_NETWORK, .help = "the network"                                             \
	}

const struct cli_group network_group = {
	"network",
	"networks for guests, the same on every host",
	(const struct cli_command[]){
		{.verb = "create",
		 .operands =
			 (const struct cli_param[]){
				 {.name = "NAME", .kind = CLI_TEXT, .field = "name", .help = "a name for it"}, {0}},
		 .options = (const struct cli_param[]){{.name = "bridge",
							.value = "NAME",
							.kind = CLI_TEXT,
							.field = "bridge",
							.help = "the bridge on every host; made where it is not there"},
						       {.name = "vlan",
							.value = "N",
							.kind = CLI_NUMBER,
							.min = 1,
							.max = 4094,
							.field = "vlan",
							.help = "the 802.1Q VLAN of the uplink that it carries"},
						       {.name = "uplink",
							.value = "DEVICE",
							.kind = CLI_TEXT,
							.field = "uplink",
							.help = "the device that leads out of every host"},
						       {.name = "mtu",
							.value = "BYTES",
							.kind = CLI_NUMBER,
							.min = 576,
							.max = 65520,
							.field = "mtu",
							.help = "the largest packet"},
						       {0}},
		 .summary = "Make a network on every host",
		 .method = "POST",
		 .path = "/v1/networks",
		 .done = "created"},
		{.verb = "list",
		 .options = (const struct cli_param[]){PARAM_NAMES, {0}},
		 .summary = "List the networks",
		 .method = "GET",
		 .path = "/v1/networks",
		 .view = list_view},
		{.verb = "show",
		 .operands = (const struct cli_param[]){OPERAND_NETWORK, {0}},
		 .summary = "Show one network",
		 .method = "GET",
		 .path = "/v1/networks/{NAME}",
		 .view = network_view},
		{.verb = "delete",
		 .operands = (const struct cli_param[]){OPERAND_NETWORK, {0}},
		 .summary = "Remove a network that no guest uses",
		 .method = "DELETE",
		 .path = "/v1/networks/{NAME}",
		 .done = "deleted"},
		{0},
	},
};
