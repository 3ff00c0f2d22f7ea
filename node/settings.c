/* SPDX-License-Identifier: Apache-2.0 */
/* The settings that people may set. Whoever reads one takes what is built in for a value that is not as here. */
#include "node/settings.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "node/corosync.h"
#include "node/disks.h"
#include "node/name.h"

#define RULES_MAX 256
#define RULE_VMS_MAX 256

static int rules_check(const json_t *value, struct err *e);
static int host_check(const json_t *value, struct err *e);
static int ha_default_check(const json_t *value, struct err *e);

/* A whole number from min to max, or what a function takes. */
static const struct {
	const char *key;
	json_int_t min, max;
	int (*check)(const json_t *value, struct err *e);
} settings[] = {
	{"placement.reserve-mib", 0, 1 << 30, NULL},
	{"placement.vcpu-ratio", 0, 1000, NULL},
	{"placement.wire-mbs", 1, 1000000, NULL},
	{"placement.rules", 0, 0, rules_check},
	{"migration.per-node", 1, 64, NULL},
	{"migration.per-link", 1, 64, NULL},
	{"cluster.token-ms", COROSYNC_TOKEN_MS_MIN, COROSYNC_TOKEN_MS_MAX, NULL},
	{"cluster.qdevice", 0, 0, host_check},
	{DISKS_SETTING, 0, 0, disks_check},
	{STATE_SETTING_HA_DEFAULT, 0, 0, ha_default_check},
	{STATE_SETTING_HA_WISH, 0, 31, NULL},
};

static int host_check(const json_t *value, struct err *e)
{
	const char *s = json_string_value(value);
	char address[ADDRESS_TEXT_MAX];

	if (s && (address_parse(s, address, NULL) == 0 || (*s && strlen(s) < 254 && !strpbrk(s, " \t\n{}:"))))
		return 0;
	return err_set(e, ERR_INPUT, "must be the name or address of a host");
}

static int ha_default_check(const json_t *value, struct err *e)
{
	const char *s = json_string_value(value);

	if (s && (!strcmp(s, "restart") || !strcmp(s, "none")))
		return 0;
	return err_set(e, ERR_INPUT, "must be restart or none");
}

static bool is_name(const json_t *v)
{
	return json_string_length(v) >= 1 && json_string_length(v) <= NAME_MAX_CHARS;
}

static int rule_check(const json_t *rule, size_t i, struct err *e)
{
	const json_t *vms = json_object_get(rule, "vms");
	const char *key;
	json_t *v;
	size_t k;

	if (!is_name(json_object_get(rule, "name")) || json_array_size(vms) < 2 || json_array_size(vms) > RULE_VMS_MAX)
		return err_set(e, ERR_INPUT, "[%zu] must have a name, and vms: a list of 2 to %d names", i,
			       RULE_VMS_MAX);
	json_array_foreach (vms, k, v)
		if (!is_name(v))
			return err_set(e, ERR_INPUT, "[%zu].vms[%zu] is no name of a guest", i, k);
	json_object_foreach ((json_t *)rule, key, v) {
		bool flag = !strcmp(key, "apart") || !strcmp(key, "hard");

		if (flag ? !json_is_boolean(v) : strcmp(key, "name") != 0 && strcmp(key, "vms") != 0)
			return err_set(
				e, ERR_INPUT,
				"[%zu].%.64s: the fields of a rule are name, vms, apart and hard (true or false)", i,
				key);
	}
	return 0;
}

static int rules_check(const json_t *value, struct err *e)
{
	json_t *rule;
	size_t i;

	if (!json_is_array(value) || json_array_size(value) > RULES_MAX)
		return err_set(e, ERR_INPUT, "must be a list of at most %d rules", RULES_MAX);
	json_array_foreach (value, i, rule)
		if (rule_check(rule, i, e) < 0)
			return -1;
	return 0;
}

static int unknown(const char *key, struct err *e)
{
	char known[512] = "";

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		size_t used = strlen(known);

		snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "", settings[i].key);
	}
	return err_set(e, ERR_INPUT, "setting %.128s: there is no such setting to set; there are %s", key, known);
}

int setting_check(const char *key, const json_t *value, struct err *e)
{
	size_t i = 0;

	while (i < ARRAY_SIZE(settings) && strcmp(settings[i].key, key) != 0)
		i++;
	if (i == ARRAY_SIZE(settings))
		return unknown(key, e);
	if (json_is_null(value))
		return 0;
	if (settings[i].check)
		return settings[i].check(value, e) < 0 ? err_wrap(e, "setting %s", key) : 0;
	if (json_is_integer(value) && json_integer_value(value) >= settings[i].min &&
	    json_integer_value(value) <= settings[i].max)
		return 0;
	return err_set(e, ERR_INPUT, "setting %s: must be a whole number from %lld to %lld", key,
		       (long long)settings[i].min, (long long)settings[i].max);
}
