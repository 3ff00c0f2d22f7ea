/* SPDX-License-Identifier: Apache-2.0 */
/* What each host does for a migration, step by step (cluster/move.c says what the steps mean).
 *
 *   manager      queued -> checking, within the limits; failed, committed, cleaning or undecided where a side is
 *                confirmed dead, or out of reach for too long
 *   source       checking -> preparing; copying: sends; the engine asks -> agreed; agreed -> the engine may go on;
 *                it has sent GO and is done -> handed-over; committed -> cleaning -> done
 *   destination  preparing: starts QEMU and listens -> copying; the guest runs -> committed
 *
 * Each look goes over all migrations of the state that have not ended and over all that the mover still has, and does
 * what the step asks for and has not been done. So nothing here is remembered but what spares work: a proposal that was
 * refused or lost is made again by the next look or tick, and a daemon that was killed goes on where it was, as the
 * engines do by themselves (node/mover.h).
 *
 * Whoever ends a migration says so by a step; what that means for the two QEMUs follows from the step, in
 * mover_forget().
 */
#include "node/moves.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/move.h"
#include "cluster/state.h"
#include "node/daemon.h"

#define PER_NODE_DEFAULT 2
#define PER_LINK_DEFAULT 1
#define SETTING_PER_NODE "migration.per-node"
#define SETTING_PER_LINK "migration.per-link"
#define AWAY_LIMIT (30 * NS_PER_S)     /* a daemon that restarts is back by then */
#define PREPARE_LIMIT (120 * NS_PER_S) /* checking and preparing take seconds */
#define PROPOSE_AGAIN (2 * NS_PER_S)
#define PROGRESS_EVERY (1 * NS_PER_S)
#define ETA_MAX_MS 1e12
#define ASK_AGAIN (5 * NS_PER_S)

/* A migration that has not ended, or that the mover has not yet forgotten. */
struct entry {
	struct entry *next;
	char id[37];
	bool seen; /* in the look that goes on */

	enum move_step step; /* by the state */
	int64_t since_ns;    /* this host has known that step since then */
	int64_t epoch;
	int64_t src_seen_ns, dst_seen_ns; /* last a member */

	enum move_step proposed; /* by us, and when; MOVE_STEP_MAX: nothing */
	int64_t proposed_ns;

	bool engine;           /* the mover has it */
	char *address, *token; /* destination: it listens there; NULL: not yet */
	bool agree_wanted;     /* the engine asks */
	bool ended;
	enum mover_end end;
	int64_t asked_ns; /* mover_ask() */
	char *words;
	json_t *figures;
	int64_t progress_ns;
};

struct moves {
	struct daemon *d;
	struct entry *entries;
};

/* One row of the state. All borrowed. */
struct row {
	const json_t *o, *options, *detail;
	const char *id, *vm, *src, *dst;
	enum move_step step;
	int64_t epoch, number, priority;
	bool cancel;
	uint32_t src_id, dst_id;     /* of the nodes, 0: not known */
	bool src_fenced, dst_fenced; /* confirmed dead, and not back since */
};

/* ---- proposals ---- */

struct proposal {
	struct moves *m;
	char id[37];
	enum move_step step;
};

static struct entry *entry_find(const struct moves *m, const char *id)
{
	for (struct entry *e = m->entries; e; e = e->next)
		if (!strcmp(e->id, id))
			return e;
	return NULL;
}

static struct entry *entry_need(struct moves *m, const char *id)
{
	struct entry *e = entry_find(m, id);

	if (e)
		return e;
	e = xcalloc(1, sizeof(*e));
	snprintf(e->id, sizeof(e->id), "%s", id);
	e->step = e->proposed = MOVE_STEP_MAX;
	e->src_seen_ns = e->dst_seen_ns = clock_now_ns();
	e->next = m->entries;
	m->entries = e;
	return e;
}

static void proposed(void *arg, const json_t *result, const struct err *e)
{
	struct proposal *p = arg;
	struct entry *en = entry_find(p->m, p->id);

	(void)result;
	if (e) {
		/* Somebody was faster, or there is no quorum: the next look sees what is so. */
		log_info("event=migration-step-refused migration=%s step=%s reason=\"%s\"", p->id,
			 move_step_names[p->step], e->text);
		if (en && p->step == MOVE_AGREED && (e->code == ERR_CANCELLED || e->code == ERR_CONFLICT) && en->engine)
			mover_agree(p->m->d->mover, p->id, false);
	}
	free(p);
}

/* Propose that the migration takes @step, unless that is on its way already. @words and @detail (taken) may be NULL.
 * @restart: what is left of the guest's memory must not be used. */
static void step_or_restart(struct moves *m, struct entry *en, const struct row *r, enum move_step to,
			    enum move_role role, const char *words, json_t *detail, bool restart)
{
	struct proposal *p;
	json_t *args;

	if ((en->proposed == to && clock_now_ns() - en->proposed_ns < PROPOSE_AGAIN) ||
	    !replica_synced(m->d->replica)) {
		json_decref(detail);
		return;
	}
	en->proposed = to;
	en->proposed_ns = clock_now_ns();
	args = json_pack("{s:s, s:s, s:s, s:s, s:I}", "id", r->id, "step", move_step_names[to], "role",
			 move_role_names[role], "node", m->d->identity.node, "epoch", (json_int_t)r->epoch);
	if (words && *words)
		json_object_set_new(args, move_step_ended(to) ? "error" : "note",
				    json_stringn(words, strnlen(words, 1000)));
	if (detail)
		json_object_set_new(args, "detail", detail);
	if (restart)
		json_object_set_new(args, "restart", json_true());
	/* What somebody did is so whatever else happened; a conclusion from silence is for this step only. */
	if (restart || role == MOVE_MANAGER)
		json_object_set_new(args, "from", json_string(move_step_names[r->step]));
	log_info("event=migration-step migration=%s vm=%s step=%s role=%s%s%s%s", r->id, r->vm, move_step_names[to],
		 move_role_names[role], words && *words ? " note=\"" : "", words ? words : "",
		 words && *words ? "\"" : "");
	p = xcalloc(1, sizeof(*p));
	*p = (struct proposal){.m = m, .step = to};
	snprintf(p->id, sizeof(p->id), "%s", r->id);
	daemon_propose(m->d, "migration.step", NULL, args, proposed, p);
}

static void step(struct moves *m, struct entry *en, const struct row *r, enum move_step to, enum move_role role,
		 const char *words, json_t *detail)
{
	step_or_restart(m, en, r, to, role, words, detail, false);
}

/* The migration has taken @ended, its last step or the one before: whether nothing of it is left on this host. The
 * engine that does not know what became of GO is told; one that still runs is ended; what is at rest is tidied away. */
static bool tidied(struct moves *m, struct entry *en, enum move_step ended, bool restart)
{
	bool moved = move_step_dst_owns(ended);
	struct err e = ERR_INIT;

	if (!en->engine)
		return true;
	if (en->ended && en->end == MOVER_UNDECIDED && ended != MOVE_STEP_MAX &&
	    mover_settle(m->d->mover, en->id, !moved && !restart, &e) < 0)
		log_warning("event=migration-settle migration=%s error=\"%s\"", en->id, e.text);
	else if (!en->ended && !moved)
		mover_cancel(m->d->mover, en->id);
	/* Not before we have heard how it ended: a guest that stands still there is to be settled first. */
	if (!en->ended || mover_forget(m->d->mover, en->id, NULL) < 0)
		return false; /* soon: ended() comes, and the next tick */
	en->engine = false;
	return true;
}

/* ---- the source ---- */

/* The destination starts what runs here, which may be an older version of the definition than the newest. */
static void src_check(struct moves *m, struct entry *en, const struct row *r)
{
	struct err e = ERR_INIT;
	json_t *definition = mover_definition(m->d->mover, r->vm, &e);

	if (definition)
		step(m, en, r, MOVE_PREPARING, MOVE_SRC, NULL, json_pack("{s:o}", "definition", definition));
	else
		step(m, en, r, MOVE_FAILED, MOVE_SRC, e.text, NULL);
}

static unsigned option(const struct row *r, const char *name)
{
	json_int_t v = json_integer_value(json_object_get(r->options, name));

	return v > 0 && v < UINT32_MAX ? (unsigned)v : 0;
}

static void src_copy(struct moves *m, struct entry *en, const struct row *r)
{
	json_int_t bandwidth = json_integer_value(json_object_get(r->options, "bandwidth"));
	struct mover_send_options o = {
		.id = r->id,
		.vm = r->vm,
		.to = json_string_value(json_object_get(r->detail, "address")),
		.token = json_string_value(json_object_get(r->detail, "token")),
		.max_pause_ms = option(r, "max_pause_ms"),
		.deadline_s = option(r, "deadline_s"),
		.bandwidth_mbs = bandwidth > 0 ? (unsigned)((bandwidth + 999999) / 1000000) : 0,
		.auto_converge = json_is_true(json_object_get(r->options, "auto_converge")),
	};
	struct err e = ERR_INIT;

	if (en->engine)
		return;
	if (!o.to || !o.token)
		err_set(&e, ERR_PROTOCOL, "the destination did not say where it listens");
	if (!o.to || !o.token || mover_send(m->d->mover, &o, &e) < 0)
		step(m, en, r, MOVE_FAILED, MOVE_SRC, e.text, NULL);
	else
		en->engine = true;
}

/* GO has left, and the destination is dead: the guest may have run and written there. */
static void src_restart(struct moves *m, struct entry *en, const struct row *r)
{
	step_or_restart(m, en, r, MOVE_FAILED, MOVE_SRC,
			"GO was sent, and the destination, which may have run the guest, is confirmed dead", NULL,
			true);
}

/* The engine of the source is at rest: the guest went, or stays, or nobody knows. */
static void src_ended(struct moves *m, struct entry *en, const struct row *r)
{
	if (r->dst_fenced && (en->end == MOVER_MOVED || en->end == MOVER_UNDECIDED)) {
		src_restart(m, en, r);
		return;
	}
	switch (en->end) {
	case MOVER_MOVED:
		if (r->step == MOVE_AGREED)
			step(m, en, r, MOVE_HANDED_OVER, MOVE_SRC, NULL, json_incref(en->figures));
		break;
	case MOVER_CANCELLED:
		step(m, en, r, move_step_cancels(r->step) ? MOVE_CANCELLED : MOVE_FAILED, MOVE_SRC, en->words, NULL);
		break;
	case MOVER_FAILED:
		step(m, en, r, MOVE_FAILED, MOVE_SRC, en->words, NULL);
		break;
	default:
		if (r->step != MOVE_UNDECIDED)
			step(m, en, r, MOVE_UNDECIDED, MOVE_SRC, en->words, NULL);
		break;
	}
}

static void src_cancel(struct moves *m, struct entry *en, const struct row *r)
{
	if (en->engine && !en->ended)
		mover_cancel(m->d->mover, r->id);
	else if (!en->ended)
		step(m, en, r, MOVE_CANCELLED, MOVE_SRC, "cancelled", NULL);
}

static void src_look(struct moves *m, struct entry *en, const struct row *r)
{
	bool cancel = r->cancel && move_step_cancels(r->step);

	if (cancel)
		src_cancel(m, en, r);
	else if (r->step == MOVE_CHECKING)
		src_check(m, en, r);
	else if (r->step == MOVE_COPYING)
		src_copy(m, en, r);
	else if (r->step == MOVE_AGREED && en->engine)
		mover_agree(m->d->mover, r->id, true);
	else if (r->step == MOVE_COMMITTED)
		step(m, en, r, MOVE_CLEANING, MOVE_SRC, NULL, NULL);
	else if (r->step == MOVE_CLEANING && tidied(m, en, r->step, false))
		step(m, en, r, MOVE_DONE, MOVE_SRC, NULL, json_incref(en->figures));
	if (r->step == MOVE_COPYING && !cancel && en->agree_wanted && !en->ended)
		step(m, en, r, MOVE_AGREED, MOVE_SRC, NULL, NULL);
	if (en->ended && (r->step == MOVE_COPYING || move_step_may_hang(r->step)))
		src_ended(m, en, r);
}

/* ---- the destination ---- */

static void dst_prepare(struct moves *m, struct entry *en, const struct row *r)
{
	struct mover_receive_options o = {
		.id = r->id,
		.vm = r->vm,
		.definition = json_object_get(r->detail, "definition"),
		.epoch = r->epoch + 1,
		.listen = m->d->identity.n_addresses ? m->d->identity.addresses[0] : "127.0.0.1",
		.peer = r->src,
	};
	struct err e = ERR_INIT;

	if (en->engine)
		return;
	if (!o.definition)
		err_set(&e, ERR_PROTOCOL, "the source did not say what it runs");
	if (!o.definition || mover_receive(m->d->mover, &o, &e) < 0)
		step(m, en, r, MOVE_FAILED, MOVE_DST, e.text, NULL);
	else
		en->engine = true;
}

/* It prepared, and the mover knows nothing of it: this host was started anew. GO may have come before that, and then
 * the guest ran here and wrote, so what the source still has of it is too old to run on. */
static void dst_lost(struct moves *m, struct entry *en, const struct row *r)
{
	step_or_restart(m, en, r, MOVE_FAILED, MOVE_DST, "the destination was started anew", NULL, true);
}

static void dst_look(struct moves *m, struct entry *en, const struct row *r)
{
	if (r->step == MOVE_PREPARING && !r->cancel)
		dst_prepare(m, en, r);
	if (r->step == MOVE_PREPARING && en->address && !en->ended)
		step(m, en, r, MOVE_COPYING, MOVE_DST, NULL,
		     json_pack("{s:s, s:s}", "address", en->address, "token", en->token));
	if (!en->engine && !en->ended && (r->step == MOVE_COPYING || move_step_may_hang(r->step)))
		dst_lost(m, en, r);
	if (!en->ended || r->step < MOVE_PREPARING || move_step_dst_owns(r->step))
		return;
	if (en->end == MOVER_MOVED)
		step(m, en, r, MOVE_COMMITTED, MOVE_DST, NULL, NULL);
	else
		step(m, en, r, MOVE_FAILED, MOVE_DST, en->words, NULL); /* it promised never to run the guest */
}

/* ---- the manager ---- */

static enum move_life life(const struct moves *m, uint32_t node, bool fenced, int64_t *seen_ns)
{
	int64_t now = clock_now_ns();

	if (fenced)
		return MOVE_FENCED;

	if (node && replica_member(m->d->replica, node))
		*seen_ns = now;
	return now - *seen_ns < AWAY_LIMIT ? MOVE_ALIVE : MOVE_UNKNOWN;
}

/* One of the sides, agreed, and the other one out of reach: what it knows of GO may settle it (on_answer()). */
static void ask(struct moves *m, struct entry *en, const struct row *r, enum mover_role role, enum move_life other)
{
	int64_t now = clock_now_ns();

	if (!move_step_may_hang(r->step) || other == MOVE_ALIVE || en->ended || now - en->asked_ns < ASK_AGAIN)
		return;
	en->asked_ns = now;
	mover_ask(m->d->mover, r->id, role);
}

static void manage(struct moves *m, struct entry *en, const struct row *r, enum move_life src, enum move_life dst)
{
	struct move_view v = {
		.step = r->step,
		.src = src,
		.dst = dst,
		.go_sent = MOVE_NOT_ASKED,
		.go_received = MOVE_NOT_ASKED,
		.cancel = r->cancel,
	};
	bool slow = r->step == MOVE_CHECKING || r->step == MOVE_PREPARING;
	const char *words = NULL;
	struct move_plan p;

	v.stuck = v.src != MOVE_ALIVE || v.dst != MOVE_ALIVE || (slow && clock_now_ns() - en->since_ns > PREPARE_LIMIT);
	p = move_next(&v);
	if (p.propose == MOVE_STEP_MAX || p.propose == r->step || r->step == MOVE_QUEUED)
		return;
	if (dst != MOVE_ALIVE)
		words = dst == MOVE_FENCED ? "the destination is confirmed dead" : "the destination is out of reach";
	else if (src != MOVE_ALIVE)
		words = src == MOVE_FENCED ? "the source is confirmed dead" : "the source is out of reach";
	else
		words = slow ? "it was not ready in time" : p.why;
	step_or_restart(m, en, r, p.propose, MOVE_MANAGER, words, NULL, p.restart && p.propose == MOVE_FAILED);
}

static unsigned limit_read(const struct moves *m, const char *key, unsigned otherwise)
{
	json_t *s = state_setting_get(replica_db(m->d->replica), key, NULL);
	json_int_t v = json_integer_value(json_object_get(s, "value"));

	json_decref(s);
	return v > 0 && v < 1000 ? (unsigned)v : otherwise;
}

static void start_queued(struct moves *m, const struct row *rows, size_t n)
{
	struct move_limits limits = {.per_node = limit_read(m, SETTING_PER_NODE, PER_NODE_DEFAULT),
				     .per_link = limit_read(m, SETTING_PER_LINK, PER_LINK_DEFAULT)};
	struct move_item *items = xcalloc(n + 1, sizeof(*items));
	bool *start = xcalloc(n + 1, sizeof(*start));

	for (size_t i = 0; i < n; i++)
		items[i] = (struct move_item){.src = rows[i].src,
					      .dst = rows[i].dst,
					      .step = rows[i].step,
					      .priority = (int)rows[i].priority,
					      .number = (uint64_t)rows[i].number};
	move_queue(items, n, &limits, start);
	for (size_t i = 0; i < n; i++)
		if (start[i])
			step(m, entry_need(m, rows[i].id), &rows[i], MOVE_CHECKING, MOVE_MANAGER, NULL, NULL);
	free(items);
	free(start);
}

/* ---- looks ---- */

static bool row_read(const json_t *o, const json_t *nodes, struct row *r)
{
	json_t *node;
	size_t i;

	*r = (struct row){
		.o = o,
		.options = json_object_get(o, "options"),
		.detail = json_object_get(o, "detail"),
		.id = json_string_value(json_object_get(o, "id")),
		.vm = json_string_value(json_object_get(o, "vm")),
		.src = json_string_value(json_object_get(o, "src")),
		.dst = json_string_value(json_object_get(o, "dst")),
		.epoch = json_integer_value(json_object_get(o, "epoch")),
		.number = json_integer_value(json_object_get(o, "number")),
		.cancel = json_is_true(json_object_get(o, "cancel")),
	};
	r->priority = json_integer_value(json_object_get(r->options, "priority"));
	if (!r->id || !r->vm || !r->src || !r->dst || !json_is_string(json_object_get(o, "step")))
		return false;
	r->step = move_step_find(json_string_value(json_object_get(o, "step")));
	json_array_foreach (nodes, i, node) {
		const char *name = json_string_value(json_object_get(node, "name"));

		const char *said = json_string_value(json_object_get(node, "life"));
		uint32_t id = (uint32_t)json_integer_value(json_object_get(node, "id"));
		bool fenced = said && !strcmp(said, "fenced");

		if (name && !strcmp(name, r->src)) {
			r->src_id = id;
			r->src_fenced = fenced;
		}
		if (name && !strcmp(name, r->dst)) {
			r->dst_id = id;
			r->dst_fenced = fenced;
		}
	}
	return r->step != MOVE_STEP_MAX;
}

static void row_look(struct moves *m, const struct row *r)
{
	struct entry *en = entry_need(m, r->id);
	enum move_life src, dst;

	en->seen = true;
	en->epoch = r->epoch;
	if (en->step != r->step) {
		en->step = r->step;
		en->since_ns = clock_now_ns();
	}
	src = life(m, r->src_id, r->src_fenced, &en->src_seen_ns);
	dst = life(m, r->dst_id, r->dst_fenced, &en->dst_seen_ns);
	if (!strcmp(r->src, m->d->identity.node)) {
		src_look(m, en, r);
		ask(m, en, r, MOVER_SRC, dst);
	}
	if (!strcmp(r->dst, m->d->identity.node)) {
		dst_look(m, en, r);
		ask(m, en, r, MOVER_DST, src);
	}
	if (replica_leads(m->d->replica))
		manage(m, en, r, src, dst);
}

static void entry_free(struct entry *en)
{
	free(en->address);
	free(en->token);
	free(en->words);
	json_decref(en->figures);
	free(en);
}

/* What the state lists no more has ended, and is forgotten here once it is tidied up after. */
static void entries_prune(struct moves *m)
{
	struct entry **p = &m->entries;

	while (*p) {
		struct entry *en = *p;
		json_t *o = en->seen ? NULL : state_migration_get(replica_db(m->d->replica), en->id, NULL);
		const char *name = json_string_value(json_object_get(o, "step"));
		/* One that is not even remembered ended long ago, and whose it is the owner says; the engine at rest
		 * says the same. */
		bool gone = !en->seen && tidied(m, en, name ? move_step_find(name) : MOVE_STEP_MAX,
						json_is_true(json_object_get(o, "restart")));

		json_decref(o);
		en->seen = false;
		if (gone) {
			*p = en->next;
			entry_free(en);
		} else {
			p = &en->next;
		}
	}
}

/* What the mover has, by its own word: after a restart of this daemon it is the only one who knows. */
static void entries_from_mover(struct moves *m)
{
	json_t *list = mover_list(m->d->mover), *o;
	size_t i;

	json_array_foreach (list, i, o)
		entry_need(m, json_string_value(json_object_get(o, "id")))->engine = true;
	json_decref(list);
}

void moves_look(struct moves *m)
{
	struct sqlite3 *db = replica_db(m->d->replica);
	json_t *list = state_migration_list(db, true, NULL), *o;
	size_t n = json_array_size(list), used = 0, i;
	json_t *nodes = n ? state_node_lives(db, NULL) : json_array();
	struct row *rows = xcalloc(n + 1, sizeof(*rows));

	if (list && nodes && replica_synced(m->d->replica)) {
		entries_from_mover(m);
		json_array_foreach (list, i, o)
			used += row_read(o, nodes, &rows[used]);
		for (i = 0; i < used; i++)
			row_look(m, &rows[i]);
		if (replica_leads(m->d->replica))
			start_queued(m, rows, used);
		entries_prune(m);
	}
	free(rows);
	json_decref(list);
	json_decref(nodes);
}

void moves_tick(struct moves *m)
{
	if (m->entries && m->d->replica)
		moves_look(m);
}

bool moves_holds(const struct moves *m, const char *migration)
{
	json_t *o = state_migration_get(replica_db(m->d->replica), migration, NULL);
	const char *us = m->d->identity.node;
	struct row r;
	/* Before the destination prepares nothing has happened to the guest. */
	bool holds = o && row_read(o, NULL, &r) && r.step >= MOVE_PREPARING && !move_step_ended(r.step) &&
		     (!strcmp(r.src, us) || !strcmp(r.dst, us));

	json_decref(o);
	return holds;
}

/* ---- what the mover says ---- */

static void on_listening(void *arg, const char *id, const char *address, const char *token)
{
	struct moves *m = arg;
	struct entry *en = entry_need(m, id);

	free(en->address);
	free(en->token);
	en->address = xstrdup(address);
	en->token = xstrdup(token);
	moves_look(m);
}

static void on_progress(void *arg, const char *id, const json_t *p)
{
	struct moves *m = arg;
	struct entry *en = entry_need(m, id);
	const json_t *eta = json_object_get(p, "eta_ms");
	double eta_ms = json_is_number(eta) ? json_number_value(eta) : -1;
	static const char *const numbers[] = {"wire_rate", "dirty_rate", "remaining"};
	json_t *args;

	if (clock_now_ns() - en->progress_ns < PROGRESS_EVERY || !replica_synced(m->d->replica))
		return;
	en->progress_ns = clock_now_ns();
	args = json_pack("{s:s, s:s, s:f}", "id", id, "state", "running", "progress",
			 json_number_value(json_object_get(p, "progress")));
	/* The engine's has a fraction, and is below 0 while it is unknown. */
	if (eta_ms >= 0 && eta_ms < ETA_MAX_MS)
		json_object_set_new(args, "eta_ms", json_integer((json_int_t)eta_ms));
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		json_t *v = json_object_get(p, numbers[i]);

		if (json_is_integer(v) && json_integer_value(v) >= 0)
			json_object_set(args, numbers[i], v);
	}
	daemon_propose(m->d, "task.update", NULL, args, NULL, NULL);
}

static void on_agree(void *arg, const char *id)
{
	struct moves *m = arg;

	entry_need(m, id)->agree_wanted = true;
	moves_look(m);
}

/* A NO is a promise, and settles it; a YES leaves it to the other side, if there is one. */
static void on_answer(void *arg, const char *id, enum mover_role role, enum move_answer answer)
{
	struct moves *m = arg;
	json_t *o = state_migration_get(replica_db(m->d->replica), id, NULL);
	json_t *nodes = o ? state_node_lives(replica_db(m->d->replica), NULL) : NULL;
	struct row r;
	bool hangs = nodes && row_read(o, nodes, &r) && move_step_may_hang(r.step);

	if (hangs && answer == MOVE_NO)
		step(m, entry_need(m, id), &r, MOVE_FAILED, role == MOVER_SRC ? MOVE_SRC : MOVE_DST,
		     role == MOVER_SRC ? "GO was not sent, and the destination is out of reach"
				       : "GO was not received, and the source is out of reach",
		     NULL);
	else if (hangs && role == MOVER_SRC && r.dst_fenced)
		src_restart(m, entry_need(m, id), &r);
	json_decref(nodes);
	json_decref(o);
}

static void on_ended(void *arg, const char *id, enum mover_role role, enum mover_end end, const char *words,
		     const json_t *figures)
{
	struct moves *m = arg;
	struct entry *en = entry_need(m, id);

	(void)role;
	en->engine = en->ended = true;
	en->end = end;
	free(en->words);
	en->words = xstrdup(words ? words : "");
	json_decref(en->figures);
	en->figures = figures ? json_deep_copy(figures) : NULL;
	moves_look(m);
}

int moves_new(struct daemon *d, struct moves **ret, struct err *e)
{
	struct mover_calls calls = {.listening = on_listening,
				    .progress = on_progress,
				    .agree = on_agree,
				    .answer = on_answer,
				    .ended = on_ended};
	_free_ char *tls = xasprintf("%s/pki", d->opt.config_dir);
	struct mover_options o = {.run_dir = d->opt.run_dir,
				  .tls_dir = tls,
				  .cluster = d->cluster_id,
				  .accel = accel_want_names[d->opt.accel],
				  .user = d->opt.user,
				  .qemu = d->opt.qemu};
	struct moves *m = xcalloc(1, sizeof(*m));

	m->d = d;
	if (mover_new(d->loop, &o, &calls, m, &d->mover, e) < 0) {
		free(m);
		return -1;
	}
	*ret = m;
	return 0;
}

void moves_free(struct moves *m)
{
	if (!m)
		return;
	mover_free(m->d->mover);
	m->d->mover = NULL;
	while (m->entries) {
		struct entry *next = m->entries->next;

		entry_free(m->entries);
		m->entries = next;
	}
	free(m);
}
