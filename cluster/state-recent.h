/* SPDX-License-Identifier: Apache-2.0 */
/* The newest events by the id of their request, so that a command that arrives twice is found without a search. */
#ifndef GODWIT_CLUSTER_STATE_RECENT_H
#define GODWIT_CLUSTER_STATE_RECENT_H

#include <stdint.h>

#include "cluster/sql.h"

#define RECENT_MAX 8192 /* events; those before may be forgotten */

/*
 * The ids are rows of the table event and nothing else; what is here is a copy in memory, one for each connection. An
 * index in the database would do the same, but its random inserts would be half of all the pages that a command writes.
 *
 * A copy can go stale: the caller may roll back, or put another member's state in place. Each event therefore carries
 * `chain`, a hash over the ids of all events so far. If number and chain of the newest row are those that the copy ends
 * with, the copy is that of the table; otherwise it is read anew.
 */
struct recent;

/* The copy of this connection, checked against the table, read anew when needed. NULL with @e. Borrowed. */
struct recent *recent_get(sqlite3 *db, struct err *e);

/* Number of the event of the request @id among the newest RECENT_MAX; 0: none. */
int64_t recent_find(const struct recent *r, const uint8_t id[16]);

/* Number and chain of the newest event; 0 when there is none. */
int64_t recent_newest(const struct recent *r);

/* The chain that the next event must carry. @id NULL: an event that is not of a request of its own. */
int64_t recent_chain(const struct recent *r, const uint8_t id[16]);

/* The event @seq of request @id was written: the newest now. */
void recent_add(struct recent *r, int64_t seq, const uint8_t id[16]);

#endif
