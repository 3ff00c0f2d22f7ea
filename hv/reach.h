/* SPDX-License-Identifier: Apache-2.0 */
/* Which folders with files of guests this host reaches. */
#ifndef GODWIT_HV_REACH_H
#define GODWIT_HV_REACH_H

#include <jansson.h>

#include "base/err.h"

#define REACH_FOLDERS_MAX 256 /* of one call */
#define REACH_WHY_MAX 128     /* bytes of a reason, with its end */

/* One folder: @why NULL, it is reached; otherwise the reason, without the folder's name. Called in threads of
 * reach_look(), one at a time. */
typedef void reach_fn(void *arg, const char *folder, const char *why);

/* Look at all of @folders: {"/folder": ["/folder/file", ...]}. A folder is reached when it is there and, of the files
 * that are named, one at least: the mount point of a storage that is not mounted is there, and empty. Each is looked at
 * in a thread of its own and told as soon as it is known, so that storage which hangs holds up nothing but itself, and
 * the return of this function: storage may hang for ever, and only the end of the process helps. -1 with @e (ERR_INPUT
 * for other JSON; ERR_SYSTEM when there is no room for a thread: what was told is right, and the rest is not told). */
int reach_look(const json_t *folders, reach_fn *fn, void *arg, struct err *e);

#endif
