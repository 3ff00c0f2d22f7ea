/* SPDX-License-Identifier: Apache-2.0 */
/* The settings that people may set, and what each may be. */
#ifndef GODWIT_NODE_SETTINGS_H
#define GODWIT_NODE_SETTINGS_H

#include <jansson.h>

#include "base/err.h"

/* May @key be set to @value (null: taken away)? 0; -1 with @e (ERR_INPUT), which names the keys or what is wrong. Pure.
 */
int setting_check(const char *key, const json_t *value, struct err *e);

#endif
