/* SPDX-License-Identifier: Apache-2.0 */
/* The shared fencing disks of this daemon.
 *
 * docs/fencing-disk.md says what proves what, and what the daemon must keep to. Its rules, and where they are kept:
 *
 *   1  disks_dead() is called when godwit-watchdog has ended all guests and lets none start (node/host-lease.c)
 *   2  from the pill until disks_live() host-lease.c lets nothing start and tells godwit-watchdog no new time
 *   3  a life is taken anew when disks are opened and with each node.alive that is proposed. The log has it before the
 *      disks do: what a pill names is what the log has, and until the disks have it too that pill is void
 *   4  node.fenced names the life that was told, and cluster/state-life.c compares
 *
 * A life that is only on the disks is in no pill, as the log does not have it: then there is no proof, and no harm.
 */
#include "node/disks.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/state.h"
#include "node/corosync.h"
#include "node/daemon-int.h"

#define PATH_TEXT_MAX 255
#define SAY_AGAIN (60 * NS_PER_S) /* after a member did not know lives */

struct disks_request {
	struct disks_request *next;
	struct disks *s;
	struct disk_request *request;
	disks_done_fn *fn;
	void *arg;
};

struct disks {
	struct daemon *d;
	struct disk *disk; /* NULL: there are no disks */
	json_t *paths;     /* of those that are open */
	uint32_t token_ms; /* likewise */
	enum disk_link links[DISK_PATHS_MAX];
	char *whys[DISK_PATHS_MAX];
	struct disk_life life; /* on the disks */
	uint64_t next;         /* incarnation of the newest node.alive; 0: it had none */
	uint64_t newest;       /* that was ever taken here */
	char next_text[DISKS_LIFE_TEXT];
	int64_t say_ns; /* none is said before */
	bool told, dead;
	uint64_t request; /* told */
	struct disks_request *requests;
	uint32_t members[DISK_SLOTS]; /* as the disks were told */
	size_t n_members;
};

/* ---- lives ---- */

static void life_text(const struct disk_life *life, char ret[DISKS_LIFE_TEXT])
{
	hex_text(life->boot, sizeof(life->boot), ret);
	snprintf(ret + 32, DISKS_LIFE_TEXT - 32, ":%016" PRIx64, life->incarnation);
}

static int life_parse(const char *text, struct disk_life *ret, struct err *e)
{
	char again[DISKS_LIFE_TEXT];
	int used = 0;

	*ret = (struct disk_life){0};
	for (size_t i = 0; i < sizeof(ret->boot); i++)
		if (strnlen(text, 49) != 49 || sscanf(text + 2 * i, "%2hhx", &ret->boot[i]) != 1)
			return err_set(e, ERR_INPUT, "\"%.63s\" is not the life of a host", text);
	if (sscanf(text + 32, ":%16" SCNx64 "%n", &ret->incarnation, &used) != 1 || used != 17)
		return err_set(e, ERR_INPUT, "\"%.63s\" is not the life of a host", text);
	life_text(ret, again);
	return strcmp(text, again) ? err_set(e, ERR_INPUT, "\"%.63s\" is not the life of a host", text) : 0;
}

/* The clock of this boot stands at no time twice. */
static uint64_t incarnation_new(struct disks *s)
{
	uint64_t now = (uint64_t)clock_boot_ns();

	s->newest = now > s->newest ? now : s->newest + 1;
	return s->newest;
}

const char *disks_next_life(struct disks *s)
{
	struct disk_life life = s->life;

	s->next = 0;
	if (!s->disk || (s->say_ns && clock_now_ns() < s->say_ns))
		return NULL;
	s->next = life.incarnation = incarnation_new(s);
	life_text(&life, s->next_text);
	return s->next_text;
}

bool disks_refused(struct disks *s)
{
	if (!s->next)
		return false;
	s->next = 0;
	s->say_ns = clock_now_ns() + SAY_AGAIN;
	log_info("event=fencing-disks text=\"a member does not know lives yet: until all are upgraded the shared "
		 "disks prove nothing about this host\"");
	return true;
}

bool disks_unsaid(const struct disks *s, const char *said)
{
	char text[DISKS_LIFE_TEXT];

	if (!s->disk || (s->say_ns && clock_now_ns() < s->say_ns))
		return false;
	life_text(&s->life, text);
	return !said || strcmp(said, text) != 0;
}

void disks_live(struct disks *s)
{
	if (s->disk) {
		/* Without a life of its own in the log, too: what was told is over, and pills for it are void. */
		s->life.incarnation = s->next ? s->next : incarnation_new(s);
		s->next = 0;
		disk_renew(s->disk, s->life.incarnation);
	}
	if (s->told)
		log_info("event=fencing-disks text=\"this host may start guests again\"");
	s->told = s->dead = false;
}

/* ---- told to die ---- */

static void on_pill(void *arg, uint64_t request, uint32_t node, const char *from)
{
	struct disks *s = arg;

	log_error("event=told-to-die from=%s node=%" PRIu32 " text=\"this host was told on a shared disk to end its "
		  "guests, as the others do not hear it\"",
		  from, node);
	s->told = true;
	s->dead = false;
	s->request = request;
	host_lease_told(s->d->lease);
}

bool disks_told(const struct disks *s)
{
	return s && s->told;
}

bool disks_are_dead(const struct disks *s)
{
	return s->dead;
}

void disks_dead(struct disks *s)
{
	if (!s->told || s->dead)
		return;
	s->dead = true;
	if (s->disk && disk_ack(s->disk, s->request))
		log_warning("event=told-that-dead text=\"all guests of this host are dead, and a shared disk says "
			    "so\"");
}

/* ---- links ---- */

static void on_link(void *arg, size_t index, enum disk_link link, const char *why)
{
	struct disks *s = arg;
	const char *path = json_string_value(json_array_get(s->paths, index));
	bool other = link != s->links[index];

	if (link == DISK_LINK_WORKING)
		log_info("event=fencing-disk path=%s link=%s", path, disk_link_name(link));
	else
		log_warning("event=fencing-disk path=%s link=%s error=\"%s\"", path, disk_link_name(link), why);
	s->links[index] = link;
	free(s->whys[index]);
	s->whys[index] = xstrdup(why);
	if (other)
		daemon_report(s->d);
}

json_t *disks_json(const struct disks *s)
{
	json_t *o = s->disk ? json_object() : NULL;

	for (size_t i = 0; o && i < json_array_size(s->paths); i++)
		json_object_set_new(o, json_string_value(json_array_get(s->paths, i)),
				    json_pack("{s:s, s:s}", "link", disk_link_name(s->links[i]), "why",
					      s->whys[i] ? s->whys[i] : ""));
	return o;
}

bool disks_open_here(const struct disks *s)
{
	return s->disk != NULL;
}

/* ---- following the setting ---- */

int disks_check(const json_t *value, struct err *e)
{
	size_t n = json_array_size(value), i;
	json_t *v;

	if (n < 1 || n > DISK_PATHS_MAX)
		return err_set(e, ERR_INPUT, "must be a list of 1 to %d paths", DISK_PATHS_MAX);
	json_array_foreach (value, i, v) {
		const char *path = json_string_value(v);
		bool good = path && path[0] == '/' && strlen(path) <= PATH_TEXT_MAX;

		for (const char *p = path; good && *p; p++)
			good = (unsigned char)*p > ' ' && *p != '"' && *p != 127;
		if (!good)
			return err_set(e, ERR_INPUT, "[%zu] must be a path from /, without spaces", i);
		for (size_t k = 0; k < i; k++)
			if (json_equal(v, json_array_get(value, k)))
				return err_set(e, ERR_INPUT, "[%zu]: %s is there twice", i, path);
	}
	return 0;
}

static void close_all(struct disks *s)
{
	struct disks_request *list = steal_ptr(s->requests);

	disk_close(steal_ptr(s->disk));
	json_decref(steal_ptr(s->paths));
	for (size_t i = 0; i < DISK_PATHS_MAX; i++)
		free(steal_ptr(s->whys[i]));
	while (list) {
		struct disks_request r = *list;

		free(list);
		list = r.next;
		r.fn(r.arg, DISK_NOT_TOLD, "the shared disks of the cluster are others now");
	}
}

static void open_all(struct disks *s, json_t *paths, uint32_t token_ms)
{
	static const struct disk_handlers handlers = {.pill = on_pill, .link = on_link};
	struct disk_config c = {.cluster = s->d->identity.cluster,
				.name = s->d->identity.node,
				.node = s->d->identity.id,
				.token_ms = token_ms};
	struct err e = ERR_INIT;

	if (disk_boot_id(s->life.boot, &e) < 0) {
		log_error("event=fencing-disks error=\"%s\"", e.text);
		return;
	}
	s->life.incarnation = incarnation_new(s);
	s->say_ns = 0;
	s->paths = json_incref(paths);
	s->token_ms = token_ms;
	s->n_members = 0;
	c.life = s->life;
	for (c.n_paths = 0; c.n_paths < json_array_size(paths); c.n_paths++) {
		c.paths[c.n_paths] = json_string_value(json_array_get(paths, c.n_paths));
		s->links[c.n_paths] = DISK_LINK_OPENING;
	}
	s->disk = disk_open(s->d->loop, &c, &handlers, s);
}

static void members_tell(struct disks *s, const struct corosync_conf *conf)
{
	uint32_t ids[DISK_SLOTS];
	size_t n = 0;

	for (size_t i = 0; i < conf->n_nodes && n < DISK_SLOTS; i++)
		ids[n++] = conf->nodes[i].id;
	if (n == s->n_members && !memcmp(ids, s->members, n * sizeof(*ids)))
		return; /* each telling is a round of every disk */
	memcpy(s->members, ids, n * sizeof(*ids));
	s->n_members = n;
	disk_members(s->disk, ids, n);
}

void disks_look(struct disks *s)
{
	struct sqlite3 *db = replica_db(s->d->replica);
	struct corosync_conf conf = {0};
	json_t *row, *paths;
	struct err e = ERR_INIT;
	bool same;

	if (ring_conf(db, s->d->identity.cluster, &conf, &e) < 0 || !conf.n_nodes)
		return;
	row = state_setting_get(db, DISKS_SETTING, &e);
	if (!row && e.code != ERR_NOTFOUND)
		return;
	paths = json_object_get(row, "value");
	if (!row || disks_check(paths, NULL) < 0)
		paths = NULL;
	/* What was told is first brought to its end, in the life that was told. */
	same = paths ? s->disk && json_equal(paths, s->paths) && conf.token_ms == s->token_ms : !s->disk;
	if (!s->told && !same) {
		if (s->disk)
			close_all(s);
		if (paths)
			open_all(s, paths, conf.token_ms);
		daemon_report(s->d);
	}
	if (s->disk)
		members_tell(s, &conf);
	json_decref(row);
}

/* ---- others ---- */

static void unlink_request(struct disks_request *r)
{
	struct disks_request **p = &r->s->requests;

	while (*p != r)
		p = &(*p)->next;
	*p = r->next;
}

static void on_done(void *arg, enum disk_result result, const char *why)
{
	struct disks_request *r = arg, copy = *r;

	unlink_request(r);
	free(r);
	copy.fn(copy.arg, result, why);
}

struct disks_request *disks_pill(struct disks *s, uint32_t node, const char *life, int64_t within_ns, disks_done_fn *fn,
				 void *arg, struct err *e)
{
	struct disks_request *r;
	struct disk_life told;

	if (!s->disk) {
		err_set(e, ERR_UNAVAILABLE, "the cluster has no shared disks for fencing; set %s", DISKS_SETTING);
		return NULL;
	}
	if (life_parse(life, &told, e) < 0)
		return NULL;
	r = xcalloc(1, sizeof(*r));
	*r = (struct disks_request){.next = s->requests, .s = s, .fn = fn, .arg = arg};
	r->request = disk_pill(s->disk, node, &told, within_ns, on_done, r, e);
	if (!r->request) {
		free(r);
		return NULL;
	}
	s->requests = r;
	return r;
}

void disks_pill_cancel(struct disks_request *r)
{
	if (!r)
		return;
	disk_pill_cancel(r->request);
	unlink_request(r);
	free(r);
}

/* ---- life ---- */

struct disks *disks_new(struct daemon *d)
{
	struct disks *s = xcalloc(1, sizeof(*s));

	s->d = d;
	return s;
}

void disks_free(struct disks *s)
{
	if (!s)
		return;
	for (struct disks_request *r = steal_ptr(s->requests), *next; r; r = next) {
		next = r->next;
		disk_pill_cancel(r->request);
		free(r);
	}
	if (s->disk)
		close_all(s);
	free(s);
}
