/* SPDX-License-Identifier: Apache-2.0 */
/* The folders with files of the cluster's guests, and which of them this host does not reach. */
#ifndef GODWIT_NODE_FOLDERS_H
#define GODWIT_NODE_FOLDERS_H

#include <jansson.h>
#include <stdbool.h>

struct daemon;

#define FOLDERS_REPORT_MAX (32 << 10) /* bytes of JSON that a report has for them; what exceeds is not said */

/* The folders of @files, rows of state_vm_files(): {"/folder": ["/folder/file", ...]}, at most REACH_FOLDERS_MAX
 * (hv/reach.h), those that come first; *ret_full: there were more. Of files that are made when they are missing only
 * the folder counts. New reference. Pure. */
json_t *folders_of(const json_t *files, bool *ret_full);

/* What a report says of @unreached, {"/folder": "why"}: as much as FOLDERS_REPORT_MAX holds; NULL for nothing. New
 * reference. Pure. */
json_t *folders_report(const json_t *unreached);

/* Loop thread, all of it. */
struct folders;

struct folders *folders_new(struct daemon *d);
void folders_free(struct folders *f); /* NULL is fine */

/* Definitions may have changed. */
void folders_changed(struct folders *f);

/* Once a second, so that many commands make one reading. */
void folders_tick(struct folders *f);

/* For node.report: those that were looked at and are not reached. NULL: all are, as far as is known. New reference. */
json_t *folders_json(const struct folders *f);

#endif
