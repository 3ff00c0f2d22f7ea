/* SPDX-License-Identifier: Apache-2.0 */
/* Fencing by shared disks: a slot per host on one to three small disks, in which it says that it lives, is told to die,
 * and says that it has.
 *
 * docs/fencing-disk.md has the bytes, and argues which answer proves what. */
#ifndef GODWIT_FENCING_DISK_H
#define GODWIT_FENCING_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "fencing/disk-format.h"
#include "fencing/disk-io.h"

/* All functions here: the loop's thread, none of them blocks (but disk_close(), 200 ms at most for each disk whose
 * storage hangs). Every disk has a thread of its own. */
struct disk;
struct disk_request;

#define DISK_PATHS_MAX 3

/* What is known about a disk. */
enum disk_link {
	DISK_LINK_OPENING, /* nothing yet, or no slot yet */
	DISK_LINK_WORKING, /* read and written */
	DISK_LINK_LOST,    /* the storage fails, or has not answered for 2 T; tried on */
	DISK_LINK_REFUSED, /* no fencing disk, not ours, wrong size or time-out, in use by others, no slot left; tried
			      on */
	DISK_LINK_MAX
};
const char *disk_link_name(enum disk_link link); /* "opening", ... */

struct disk_handlers {
	/* This host is told to die. Kill all guests of the cluster on this host, and start none before disk_renew();
	 * then call disk_ack() with @request. Once for each life, however many hosts ask. @from: the name of one of
	 * them, borrowed. */
	void (*pill)(void *arg, uint64_t request, uint32_t node, const char *from);
	/* The link to the disk of this index has changed; @why: a sentence, "" when it works. */
	void (*link)(void *arg, size_t index, enum disk_link link, const char *why);
};

/* Copied by disk_open(), but for the loop, the handlers and @sys. */
struct disk_config {
	const char *paths[DISK_PATHS_MAX];
	size_t n_paths;
	const char *cluster; /* the cluster's name or id, at most 63 plain characters */
	const char *name;    /* of this host, likewise */
	uint32_t node;
	uint32_t token_ms;          /* T */
	struct disk_life life;      /* ours; the incarnation is one that this boot has not had before */
	const struct disk_sys *sys; /* NULL: the real one */
};

/* Begin to beat. Never fails: what is wrong with a disk is told by handlers->link. */
struct disk *disk_open(struct loop *l, const struct disk_config *c, const struct disk_handlers *h, void *arg);
/* Not from one of its own callbacks. Requests end without a call; NULL is fine. */
void disk_close(struct disk *d);

/* This kernel's boot: for disk_life.boot. 0, or -1 with @e. */
int disk_boot_id(uint8_t ret[16], struct err *e);

/* The hosts of the cluster, this one among them: only slots of others are given to new hosts. At most DISK_SLOTS. */
void disk_members(struct disk *d, const uint32_t *nodes, size_t n);

/* ---- the victim ---- */

/* The guests that this host had in the life that was told @request are dead, and it starts none in that life. True: it
 * is being written. False: the host has a new life by now (disk_renew()), and nothing is said. */
bool disk_ack(struct disk *d, uint64_t request);

/* A new life: the daemon is back in the cluster, and has the state that says what became of its guests. Pills for an
 * earlier life are void from here on. @incarnation: one that this boot has not had before. */
void disk_renew(struct disk *d, uint64_t incarnation);

/* ---- the others ---- */

/* What the disks say about another host. */
struct disk_peer {
	int64_t age_ns;  /* since it was last seen to beat, on whichever disk that was latest */
	int64_t wall_ms; /* its own clock then */
	enum disk_state state;
	struct disk_life life;
	char name[DISK_TEXT];
};

/* False: it has not been seen to beat since disk_open(). Silence is no proof of anything: see docs/fencing-disk.md. */
bool disk_peer(const struct disk *d, uint32_t node, struct disk_peer *ret);

enum disk_result {
	DISK_ACKNOWLEDGED, /* proof: the guests of that life are dead */
	DISK_REBOOTED,     /* proof: another boot of that host beats; it began after that life was told to die */
	DISK_MOVED, /* no proof: the same boot beats with another incarnation; ask again with that, if it is still not
		       here */
	DISK_TIMED_OUT, /* no proof: it was told on at least one disk, and has not answered */
	DISK_NOT_TOLD,  /* no proof: it could not be told: no disk works here, or it has no slot on them */
	DISK_RESULT_MAX
};
const char *disk_result_name(enum disk_result r); /* "acknowledged", ... */
bool disk_result_is_proof(enum disk_result r);

/* @why: a sentence. The request is gone when this is called. */
typedef void disk_done_fn(void *arg, enum disk_result r, const char *why);

/* Tell a host to die, on all disks; the first proof on any of them counts. @life: the one that it had when it was last
 * in the view, as it said itself over the network: never what a disk says, which may be old. @within_ns: give up after
 * that. NULL with @e: ERR_CONFLICT, this host asks it already; ERR_INPUT: this host itself. Owned by @d until @fn. */
struct disk_request *disk_pill(struct disk *d, uint32_t node, const struct disk_life *life, int64_t within_ns,
			       disk_done_fn *fn, void *arg, struct err *e);

/* Withdraw it: no call. It may have been read already. */
void disk_pill_cancel(struct disk_request *r);

#endif
