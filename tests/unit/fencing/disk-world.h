/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts on shared disks in one loop, each with storage that can hang, fail or tear. */
#ifndef GODWIT_TESTS_DISK_WORLD_H
#define GODWIT_TESTS_DISK_WORLD_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fencing/disk.h"

#define WORLD_HOSTS 4
#define WORLD_T_MS 200U
#define WORLD_POLL_NS (100 * NS_PER_MS)

/* What the storage of a host does, per disk of the world. A thread that hung may look at it after its test. */
struct storage {
	atomic_bool hang[DISK_PATHS_MAX], hang_reads[DISK_PATHS_MAX], fail[DISK_PATHS_MAX], tear[DISK_PATHS_MAX];
	atomic_int hanging;
};

/* A host, and what its disk module has told it. */
struct host {
	uint32_t node;
	struct disk_life life;
	struct disk *disk;
	struct storage *storage;
	/* what it was told */
	int pills;
	uint64_t request;
	uint32_t pill_from;
	enum disk_link link[DISK_PATHS_MAX];
	char why[DISK_PATHS_MAX][ERR_TEXT_MAX];
	/* what became of its request */
	struct disk_request *asked;
	int answers;
	enum disk_result result;
	char answer[ERR_TEXT_MAX];
};

struct world {
	struct loop *loop;
	char dir[128], paths[DISK_PATHS_MAX][192];
	size_t n_paths;
	uint32_t token_ms;
	const char *cluster;
	struct host hosts[WORLD_HOSTS]; /* nodes 1, 2, ... */
	int ticks;
	const struct host *watched; /* world_rounds() */
	json_int_t until_sequence;
};

/* A folder with @n formatted disks that are files of this sector size. Asserts that all goes well, as everything here.
 */
void world_init(struct world *w, size_t n, uint32_t sector_size);
void world_done(struct world *w);

/* Host @i comes up with this boot and incarnation. Its pill is not acknowledged by itself. */
struct host *world_open(struct world *w, unsigned i, uint8_t boot, uint64_t incarnation);
void world_close(struct host *h); /* its process is gone; what it wrote stays */

/* Run the loop until @done says so (fails after 20 s), or for a time. */
void world_until(struct world *w, bool (*done)(struct world *w));
void world_run(struct world *w, int64_t ns);

/* The newest sequence of a host in disk 0; -1: none. */
json_int_t world_sequence(const struct world *w, uint32_t node);

/* Until @h has done @n rounds more. */
void world_rounds(struct world *w, const struct host *h, unsigned n);

/* @from tells @to to die. */
void world_pill(struct host *from, const struct host *to, int64_t within_ns);

/* Raw bytes of disk 0. */
void world_read(const struct world *w, uint32_t sector, uint8_t *ret, uint32_t size);
void world_write(const struct world *w, uint32_t sector, const uint8_t *data, uint32_t size);
struct disk_header world_header(const struct world *w);

struct disk_life world_life(uint8_t boot, uint64_t incarnation);

/* ---- what most tests wait for; a is host 0, b host 1 ---- */

#define LONG (15 * NS_PER_S) /* an answer comes before that */
#define ROUNDS(n) ((n)*WORLD_POLL_NS)

bool sees(const struct host *from, const struct host *to); /* it has beaten lately */
bool a_and_b_see_each_other(struct world *w);
bool a_is_answered(struct world *w);
bool b_is_told(struct world *w);

/* Open a (boot 1, incarnation 11) and b (boot 2, incarnation 21); returns when they see each other. */
void two_hosts_up(struct world *w);

#endif
