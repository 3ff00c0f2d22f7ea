/* SPDX-License-Identifier: Apache-2.0 */
/* Settings: what each may be, and that a wrong one is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/mem.h"
#include "node/settings.h"

static const struct {
	const char *key, *value;
	const char *words; /* NULL: it is taken */
} rows[] = {
	{"placement.reserve-mib", "0", NULL},
	{"placement.reserve-mib", "-1", "from 0 to"},
	{"placement.reserve-mib", "1.5", "whole number"},
	{"placement.vcpu-ratio", "null", NULL},
	{"placement.wire-mbs", "0", "from 1 to"},
	{"placement.wire-mbs", "\"117\"", "placement.wire-mbs: must be a whole number"},
	{"migration.per-node", "2", NULL},
	{"migration.per-link", "65", "from 1 to 64"},
	{"cluster.token-ms", "10", "from 300 to 30000"},
	{"cluster.qdevice", "\"q.example\"", NULL},
	{"cluster.qdevice", "\"10.0.0.9\"", NULL},
	{"cluster.qdevice", "\"fd00::9\"", NULL},
	{"cluster.qdevice", "\"a b\"", "name or address"},
	{"cluster.qdevice", "\"\"", "name or address"},
	{"cluster.qdevice", "7", "name or address"},
	{"placement.rules", "[]", NULL},
	{"placement.rules", "[{\"name\": \"r\", \"vms\": [\"a\", \"b\"], \"apart\": true, \"hard\": false}]", NULL},
	{"placement.rules", "{}", "list"},
	{"placement.rules", "[7]", "[0] must have a name"},
	{"placement.rules", "[{\"name\": \"r\", \"vms\": [\"a\"]}]", "2 to"},
	{"placement.rules", "[{\"name\": \"r\", \"vms\": [\"a\", 7]}]", "[0].vms[1]"},
	{"placement.rules", "[{\"name\": \"r\", \"vms\": [\"a\", \"b\"], \"apart\": 1}]", "[0].apart"},
	{"placement.rules", "[{\"name\": \"r\", \"vms\": [\"a\", \"b\"], \"soft\": true}]", "[0].soft"},
	{"ha.default", "\"none\"", NULL},
	{"ha.default", "\"restart\"", NULL},
	{"ha.default", "\"default\"", "ha.default: must be restart or none"},
	{"ha.default", "true", "restart or none"},
	{"fence.disks", "[\"/dev/disk/by-id/wwn-0x5000c500a1b2c3d4\", \"/srv/fence\"]", NULL},
	{"fence.disks", "null", NULL},
	{"fence.disks", "[]", "must be a list of 1 to 3 paths"},
	{"fence.disks", "\"/dev/sda\"", "must be a list of 1 to 3 paths"},
	{"fence.disks", "[\"/a\", \"/b\", \"/c\", \"/d\"]", "must be a list of 1 to 3 paths"},
	{"fence.disks", "[\"/a\", \"b\"]", "[1] must be a path from /"},
	{"fence.disks", "[\"/a b\"]", "[0] must be a path from /"},
	{"fence.disks", "[\"/a\", \"/a\"]", "[1]: /a is there twice"},
	{"ha.wish", "2", NULL},
	{"ha.wish", "32", "from 0 to 31"},
	{"node.ring", "1", "node.ring: there is no such setting to set; there are placement.reserve-mib, "},
	{"placement.", "1", "no such setting"},
};

static void every_setting_takes_what_makes_sense_and_nothing_else(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		json_t *value = json_loads(rows[i].value, JSON_DECODE_ANY, NULL);
		struct err e = ERR_INIT;
		int r = setting_check(rows[i].key, value, &e);

		assert_non_null(value);
		if ((r == 0) != !rows[i].words || (rows[i].words && !strstr(e.text, rows[i].words)))
			fail_msg("%s = %s: %s", rows[i].key, rows[i].value, r ? e.text : "taken");
		assert_int_equal(e.code, r ? ERR_INPUT : ERR_NONE);
		json_decref(value);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_setting_takes_what_makes_sense_and_nothing_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
