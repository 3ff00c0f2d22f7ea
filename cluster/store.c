/* SPDX-License-Identifier: Apache-2.0 */
/* The store: steps to the writer thread, completions back to the loop, snapshots beside them. */
#include "cluster/store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "cluster/store-db.h"

#define BATCH_MAX 512 /* steps in one transaction */

enum step_kind { STEP_WRITE, STEP_FETCH_BEGIN, STEP_FETCH_DATA, STEP_FETCH_INSTALL, STEP_FETCH_DROP };

/* Something to do, in order. */
struct step {
	STAILQ_ENTRY(step) link;
	enum step_kind kind;
	struct core_write w;
	struct entry **entries; /* append, then apply: references of our own */
	struct store_outcome *outcomes;
	uint64_t offset;
	size_t size;
	uint8_t *data;
};
STAILQ_HEAD(step_list, step);

enum event_kind { EVENT_WRITE, EVENT_FAILED, EVENT_SNAPSHOT, EVENT_FETCHED, EVENT_INSTALLED };

/* Something to tell. */
struct event {
	STAILQ_ENTRY(event) link;
	enum event_kind kind;
	struct step *step; /* EVENT_WRITE */
	struct err err;
	bool ok;
	uint64_t n, index;
	struct core_disk disk;
};
STAILQ_HEAD(event_list, event);

struct store {
	/* constant */
	const struct store_handlers *handlers;
	void *arg;
	const struct machine *machine;
	char *path, *fetch_path, *snapshot_path;
	int lock_fd, event_fd;
	pthread_t writer;

	/* the writer thread's */
	struct store_db db;
	int fetch_fd;

	/* under lock */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct step_list steps;
	struct event_list events;
	bool stopping;

	/* the loop's */
	sqlite3 *reader, *log_reader;
	sqlite3_stmt *read_stmt;
	bool snapshot_running;
	pthread_t snapshot;
	int snapshot_fd; /* -1: none */
};

/* ---- between the threads ---- */

static void step_free(struct step *t)
{
	for (size_t i = 0; i < t->w.n_append + t->w.n_apply; i++)
		entry_unref(t->entries[i]);
	for (size_t i = 0; i < t->w.n_apply; i++)
		store_outcome_done(&t->outcomes[i]);
	free(t->entries);
	free(t->outcomes);
	free(t->data);
	free(t);
}

static struct step *step_new(enum step_kind kind)
{
	struct step *t = xcalloc(1, sizeof(*t));

	t->kind = kind;
	return t;
}

static void step_push(struct store *s, struct step *t)
{
	pthread_mutex_lock(&s->lock);
	STAILQ_INSERT_TAIL(&s->steps, t, link);
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
}

static struct event *event_new(enum event_kind kind)
{
	struct event *ev = xcalloc(1, sizeof(*ev));

	ev->kind = kind;
	return ev;
}

/* Hand events to the loop and wake it. */
static void events_push(struct store *s, struct event_list *list)
{
	uint64_t one = 1;

	pthread_mutex_lock(&s->lock);
	STAILQ_CONCAT(&s->events, list);
	pthread_mutex_unlock(&s->lock);
	while (write(s->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void event_push(struct store *s, struct event *ev)
{
	struct event_list list = STAILQ_HEAD_INITIALIZER(list);

	STAILQ_INSERT_TAIL(&list, ev, link);
	events_push(s, &list);
}

/* ---- the writer thread ---- */

/* Does a step write something that no other host may have? Applying does not: its entries are on the disk already, and
 * are applied again if that is lost. */
static bool step_durable(const struct step *t)
{
	return t->w.meta || t->w.cut_from || t->w.n_append;
}

/* One attempt at all steps of @batch in one transaction. */
static int batch_write(struct store *s, const struct step_list *batch, struct err *e)
{
	bool durable = false;
	struct step *t;

	STAILQ_FOREACH(t, batch, link)
	durable = durable || step_durable(t);
	if (store_db_begin(&s->db, durable, e) < 0)
		return -1;
	STAILQ_FOREACH(t, batch, link)
	if (store_db_write(&s->db, &t->w, t->outcomes, e) < 0)
		return -1;
	return store_db_commit(&s->db, e);
}

static void batch_undo(struct store *s, const struct step_list *batch)
{
	struct step *t;

	store_db_rollback(&s->db);
	STAILQ_FOREACH(t, batch, link)
	for (size_t i = 0; i < t->w.n_apply; i++)
		store_outcome_done(&t->outcomes[i]);
}

static void batch_tell(struct store *s, struct step_list *batch)
{
	struct event_list list = STAILQ_HEAD_INITIALIZER(list);
	struct step *t;

	while ((t = STAILQ_FIRST(batch))) {
		struct event *ev = event_new(EVENT_WRITE);

		STAILQ_REMOVE_HEAD(batch, link);
		ev->step = t;
		STAILQ_INSERT_TAIL(&list, ev, link);
	}
	events_push(s, &list);
}

static void fetch_close(struct store *s)
{
	if (s->fetch_fd >= 0)
		close(s->fetch_fd);
	s->fetch_fd = -1;
}

static int fetch_data(struct store *s, const struct step *t, struct err *e)
{
	struct event *ev;

	if (s->fetch_fd < 0)
		s->fetch_fd = open(s->fetch_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (s->fetch_fd < 0)
		return err_sys(e, "create %s", s->fetch_path);
	for (size_t done = 0; done < t->size;) {
		ssize_t n = pwrite(s->fetch_fd, t->data + done, t->size - done, (off_t)(t->offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_sys(e, "write %s", s->fetch_path);
		done += (size_t)n;
	}
	ev = event_new(EVENT_FETCHED);
	ev->n = t->offset + t->size;
	event_push(s, ev);
	return 0;
}

static int fetch_install(struct store *s, struct err *e)
{
	struct event *ev;
	struct core_disk disk = {0};
	int r;

	fetch_close(s);
	r = store_db_install(&s->db, s->fetch_path, e);
	if (r < 0 || (r == 0 && store_db_disk(&s->db, &disk, e) < 0))
		return -1;
	unlink(s->fetch_path);
	ev = event_new(EVENT_INSTALLED);
	if (r != 0)
		log_warning("event=snapshot-refused reason=\"%s\"", e->text);
	ev->ok = r == 0;
	ev->disk = disk;
	event_push(s, ev);
	return 0;
}

static int step_run(struct store *s, const struct step *t, struct err *e)
{
	if (t->kind == STEP_FETCH_DATA)
		return fetch_data(s, t, e);
	if (t->kind == STEP_FETCH_INSTALL)
		return fetch_install(s, e);
	fetch_close(s);
	unlink(s->fetch_path);
	return 0;
}

/* One attempt at @batch: writes, or one other step. True: done, and told. */
static bool batch_try(struct store *s, struct step_list *batch)
{
	struct event *ev = event_new(EVENT_FAILED);
	bool writes = STAILQ_FIRST(batch)->kind == STEP_WRITE;
	int r = writes ? batch_write(s, batch, &ev->err) : step_run(s, STAILQ_FIRST(batch), &ev->err);

	if (r < 0) {
		if (writes)
			batch_undo(s, batch);
		event_push(s, ev);
		return false;
	}
	free(ev);
	if (writes)
		batch_tell(s, batch);
	else
		step_free(STAILQ_FIRST(batch));
	return true;
}

/* Wait for steps; take all writes that stand in a row, or one other step. False: the end. Called with the lock. */
static bool batch_take(struct store *s, struct step_list *batch)
{
	struct step *t;
	int n = 0;

	STAILQ_INIT(batch);
	while (STAILQ_EMPTY(&s->steps) && !s->stopping)
		pthread_cond_wait(&s->wake, &s->lock);
	while ((t = STAILQ_FIRST(&s->steps)) && n < BATCH_MAX && (n == 0 || t->kind == STEP_WRITE)) {
		STAILQ_REMOVE_HEAD(&s->steps, link);
		STAILQ_INSERT_TAIL(batch, t, link);
		n++;
		if (t->kind != STEP_WRITE)
			break;
	}
	return n > 0;
}

/* Before the next attempt. True: give up, the store is closed. Called with the lock. */
static bool retry_wait(struct store *s)
{
	struct timespec until;
	int64_t at = clock_now_ns() + STORE_RETRY;

	until.tv_sec = at / NS_PER_S;
	until.tv_nsec = at % NS_PER_S;
	while (!s->stopping && pthread_cond_timedwait(&s->wake, &s->lock, &until) != ETIMEDOUT)
		;
	return s->stopping;
}

static void steps_free(struct step_list *list)
{
	struct step *t;

	while ((t = STAILQ_FIRST(list))) {
		STAILQ_REMOVE_HEAD(list, link);
		step_free(t);
	}
}

static void *writer_main(void *arg)
{
	struct store *s = arg;
	struct step_list batch;
	bool over = false;

	pthread_mutex_lock(&s->lock);
	while (!over && batch_take(s, &batch)) {
		bool done;

		do {
			pthread_mutex_unlock(&s->lock);
			done = batch_try(s, &batch);
			pthread_mutex_lock(&s->lock);
			over = !done && retry_wait(s);
		} while (!done && !over);
		if (!done)
			steps_free(&batch);
	}
	steps_free(&s->steps);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- completions ---- */

static void tell_write(struct store *s, const struct step *t)
{
	for (size_t i = 0; i < t->w.n_apply; i++) {
		const struct store_outcome *o = &t->outcomes[i];

		s->handlers->applied(s->arg, &o->applied);
		if (o->checked)
			s->handlers->checked(s->arg, o->applied.entry->index, o->applied.chain, o->state);
	}
	s->handlers->written(s->arg, t->w.serial);
}

static void tell_snapshot(struct store *s, const struct event *ev)
{
	pthread_join(s->snapshot, NULL);
	s->snapshot_running = false;
	store_snapshot_drop(s);
	if (ev->ok)
		s->snapshot_fd = open(s->snapshot_path, O_RDONLY | O_CLOEXEC);
	unlink(s->snapshot_path);
	s->handlers->snapshot_made(s->arg, s->snapshot_fd >= 0, ev->n, ev->index);
}

static void tell(struct store *s, struct event *ev)
{
	switch (ev->kind) {
	case EVENT_WRITE:
		tell_write(s, ev->step);
		break;
	case EVENT_FAILED:
		s->handlers->failed(s->arg, &ev->err);
		break;
	case EVENT_SNAPSHOT:
		tell_snapshot(s, ev);
		break;
	case EVENT_FETCHED:
		s->handlers->fetch_written(s->arg, ev->n);
		break;
	case EVENT_INSTALLED:
		s->handlers->fetch_installed(s->arg, ev->ok ? &ev->disk : NULL);
		ev->disk.n = 0; /* taken */
		break;
	}
}

static void event_free(struct event *ev)
{
	if (ev->step)
		step_free(ev->step);
	for (size_t i = 0; i < ev->disk.n; i++)
		entry_unref(ev->disk.tail[i]);
	free(ev->disk.tail);
	free(ev);
}

int store_fd(const struct store *s)
{
	return s->event_fd;
}

void store_dispatch(struct store *s)
{
	struct event_list list = STAILQ_HEAD_INITIALIZER(list);
	struct event *ev;
	uint64_t count;

	if (read(s->event_fd, &count, sizeof(count)) < 0)
		return; /* nothing has come */
	pthread_mutex_lock(&s->lock);
	STAILQ_CONCAT(&list, &s->events);
	pthread_mutex_unlock(&s->lock);
	while ((ev = STAILQ_FIRST(&list))) {
		STAILQ_REMOVE_HEAD(&list, link);
		tell(s, ev);
		event_free(ev);
	}
}

/* ---- the core's operations ---- */

void store_write(struct store *s, const struct core_write *w)
{
	struct step *t = step_new(STEP_WRITE);
	size_t n = w->n_append + w->n_apply;

	t->w = *w;
	t->entries = xcalloc(n ? n : 1, sizeof(struct entry *));
	t->outcomes = xcalloc(w->n_apply ? w->n_apply : 1, sizeof(*t->outcomes));
	for (size_t i = 0; i < n; i++)
		t->entries[i] = entry_ref(i < w->n_append ? w->append[i] : w->apply[i - w->n_append]);
	t->w.append = t->entries;
	t->w.apply = t->entries + w->n_append;
	step_push(s, t);
}

size_t store_read(struct store *s, uint64_t index, size_t bytes, struct entry **ret, size_t max)
{
	return store_db_read(s->log_reader, &s->read_stmt, index, bytes, ret, max);
}

static void *snapshot_main(void *arg)
{
	struct store *s = arg;
	struct event *ev = event_new(EVENT_SNAPSHOT);
	struct stat st;

	ev->ok = store_db_snapshot(s->path, s->snapshot_path, &ev->index, &ev->err) == 0 &&
		 stat(s->snapshot_path, &st) == 0;
	ev->n = ev->ok ? (uint64_t)st.st_size : 0;
	event_push(s, ev);
	return NULL;
}

void store_snapshot_make(struct store *s)
{
	if (s->snapshot_running)
		return; /* the core asks for one at a time */
	s->snapshot_running = true;
	if (pthread_create(&s->snapshot, NULL, snapshot_main, s) != 0)
		abort();
}

size_t store_snapshot_read(struct store *s, uint64_t offset, void *buf, size_t size)
{
	ssize_t n = s->snapshot_fd < 0 ? 0 : pread(s->snapshot_fd, buf, size, (off_t)offset);

	return n == (ssize_t)size ? size : 0;
}

void store_snapshot_drop(struct store *s)
{
	if (s->snapshot_fd >= 0)
		close(s->snapshot_fd);
	s->snapshot_fd = -1;
}

void store_fetch_begin(struct store *s, uint64_t size)
{
	(void)size;
	step_push(s, step_new(STEP_FETCH_BEGIN));
}

void store_fetch_data(struct store *s, uint64_t offset, const void *data, size_t size)
{
	struct step *t = step_new(STEP_FETCH_DATA);

	t->offset = offset;
	t->size = size;
	t->data = xcalloc(1, size);
	memcpy(t->data, data, size);
	step_push(s, t);
}

void store_fetch_install(struct store *s)
{
	step_push(s, step_new(STEP_FETCH_INSTALL));
}

void store_fetch_drop(struct store *s)
{
	step_push(s, step_new(STEP_FETCH_DROP));
}

struct sqlite3 *store_db(struct store *s)
{
	return s->reader;
}

/* ---- life ---- */

static int lock_take(struct store *s, struct err *e)
{
	_free_ char *path = xasprintf("%s.lock", s->path);
	_closefd_ int db_fd = -1;

	s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock_fd < 0)
		return err_sys(e, "open %s", path);
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, ERR_INPUT, "the state in %s is in use by another process", s->path);
	/* SQLite gives its other files the mode of the first: hashes of tokens are nobody else's business. */
	db_fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (db_fd < 0)
		return err_sys(e, "open %s", s->path);
	return 0;
}

static int reader_open(const char *path, sqlite3 **ret, struct err *e)
{
	if (sqlite3_open_v2(path, ret, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK ||
	    sqlite3_exec(*ret, "PRAGMA query_only = ON", NULL, NULL, NULL) != SQLITE_OK)
		return err_set(e, ERR_SYSTEM, "open the state in %s: %s", path, sqlite3_errmsg(*ret));
	sqlite3_busy_timeout(*ret, 5000);
	return 0;
}

static int store_start(struct store *s, const struct store_options *o, struct core_disk *ret_disk, struct err *e)
{
	pthread_condattr_t attr;

	if (lock_take(s, e) < 0 || store_db_open(&s->db, s->path, o->machine, o->history, e) < 0)
		return -1;
	if (o->log_kept)
		s->db.log_kept = o->log_kept;
	unlink(s->fetch_path); /* of an earlier life */
	unlink(s->snapshot_path);
	if (reader_open(s->path, &s->reader, e) < 0 || reader_open(s->path, &s->log_reader, e) < 0)
		return -1;
	s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->event_fd < 0)
		return err_sys(e, "eventfd");
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &attr);
	pthread_condattr_destroy(&attr);
	if (store_db_disk(&s->db, ret_disk, e) < 0)
		return -1;
	if (pthread_create(&s->writer, NULL, writer_main, s) != 0)
		abort();
	return 0;
}

static void store_free(struct store *s)
{
	struct event *ev;

	while ((ev = STAILQ_FIRST(&s->events))) {
		STAILQ_REMOVE_HEAD(&s->events, link);
		event_free(ev);
	}
	store_snapshot_drop(s);
	fetch_close(s);
	sqlite3_finalize(s->read_stmt);
	sqlite3_close(s->reader);
	sqlite3_close(s->log_reader);
	store_db_close(&s->db);
	if (s->event_fd >= 0)
		close(s->event_fd);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	pthread_mutex_destroy(&s->lock);
	free(s->path);
	free(s->fetch_path);
	free(s->snapshot_path);
	free(s);
}

/* SQLite counts its memory under a lock that all connections share; nobody asks for the number. */
static void sqlite_configure(void)
{
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

int store_open(const struct store_options *o, struct store **ret, struct core_disk *ret_disk, struct err *e)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct store *s = xcalloc(1, sizeof(*s));

	pthread_once(&once, sqlite_configure);
	s->handlers = o->handlers;
	s->arg = o->arg;
	s->path = xstrdup(o->path);
	s->fetch_path = xasprintf("%s.fetch", o->path);
	s->snapshot_path = xasprintf("%s.snapshot", o->path);
	s->lock_fd = s->event_fd = s->fetch_fd = s->snapshot_fd = -1;
	STAILQ_INIT(&s->steps);
	STAILQ_INIT(&s->events);
	pthread_mutex_init(&s->lock, NULL);
	if (store_start(s, o, ret_disk, e) < 0) {
		store_free(s);
		return -1;
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->writer, NULL);
	if (s->snapshot_running)
		pthread_join(s->snapshot, NULL);
	store_free(s);
}
