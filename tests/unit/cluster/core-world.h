/* SPDX-License-Identifier: Apache-2.0 */
/* One member of the protocol's core, with a bus, a disk and other members that the test plays. */
#ifndef GODWIT_TESTS_UNIT_CLUSTER_CORE_WORLD_H
#define GODWIT_TESTS_UNIT_CLUSTER_CORE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cluster/core.h"
#include "cluster/msg.h"

#define HISTORY 77
#define SELF 2
#define SENT_MAX 64

struct sent {
	uint8_t *data;
	size_t size;
	struct msg m;
};

/* One member and what it has said and written since it was last looked at. */
struct member {
	struct core *core;
	int64_t now;
	struct sent sent[SENT_MAX];
	size_t n_sent;
	uint64_t serial;           /* newest write */
	struct core_write written; /* its numbers */
	struct entry *apply[SENT_MAX];
	size_t n_apply;
	int refused;
	enum core_refusal why;
	bool alarms[CORE_ALARM_MAX];
	unsigned hosts;   /* by the state */
	int hosts_change; /* what each command makes of them */
	bool has_direct;  /* there is a way to one member alone */
	uint32_t direct_to;
	struct msg direct; /* the newest of what went that way */
	int fetches, snapshot_drops;
};

/* A disk that holds nothing but the cluster's name. */
extern const struct core_disk fresh_disk;

/* Start the member, or end it and free what it holds. */
void member_begin(struct member *x, const struct core_disk *disk);
void member_end(struct member *x);

/* A view of hosts 1 to @present out of @expected. */
void member_view(struct member *x, uint64_t seq, size_t present, unsigned expected);

/* It hears @m of member @from, with one entry (NULL: none): over the bus, or past its order. */
void member_hear(struct member *x, uint32_t from, struct msg m, const struct entry *e);
void member_hear_direct(struct member *x, uint32_t from, struct msg m);

/* Host 1 leads epoch 5, and its first entry comes behind entry @before. */
void member_follow(struct member *x, uint64_t before, uint64_t before_epoch);

/* It leads epoch 1 of three, and its first entry, 10, is on its disk alone. Instead of member_begin(). */
void member_lead(struct member *x);

/* The leader, host 1, says that @index is committed. */
void member_committed(struct member *x, uint64_t index);

/* It is asked to propose a command of @version; what core_propose() says, x->why if that is a refusal. */
int member_propose(struct member *x, uint32_t version);

/* The end of a turn of its loop. The disk has done everything it was asked to. Everything that was sent comes back, as
 * it does on a bus. */
void member_flush(struct member *x);
void member_disk_done(struct member *x);
void member_echo(struct member *x);

/* The newest message of @type that was sent, NULL: none. */
const struct msg *member_said(const struct member *x, enum msg_type type);
void member_forget_sent(struct member *x);

/* An entry of host 1; a command has three bytes. Caller unrefs. */
struct entry *member_entry(uint64_t epoch, enum entry_kind kind);

#endif
