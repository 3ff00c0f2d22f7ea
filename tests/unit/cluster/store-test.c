/* SPDX-License-Identifier: Apache-2.0 */
/* The store: what it says it has written is there, after a restart, a kill, a full disk, a snapshot. */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cluster/store.h"
#include "tests/unit/cluster/kv-machine.h"

#define HISTORY 4711

/* A store and what it has told. */
struct box {
	char dir[64], path[128];
	struct store *store;
	struct core_disk disk;
	uint64_t serial, written, last, applied;
	int failures, repeats;
	enum err_code code; /* of the newest entry applied */
	json_t *result;
	uint64_t checked;
	uint8_t chain[32], state[32];
	bool made;
	uint64_t snapshot_size, snapshot_index, fetched;
	int installed, no_good;
	bool learner; /* as the installed snapshot says */
};

static void on_applied(void *arg, const struct store_applied *a)
{
	struct box *b = arg;

	assert_int_equal(a->entry->index, b->applied + 1);
	b->applied = a->entry->index;
	b->code = a->err.code;
	b->repeats += a->repeated;
	json_decref(b->result);
	b->result = json_incref(a->result);
}

static void on_written(void *arg, uint64_t serial)
{
	((struct box *)arg)->written = serial;
}

static void on_failed(void *arg, const struct err *e)
{
	assert_int_equal(e->code, ERR_SYSTEM);
	((struct box *)arg)->failures++;
}

static void on_checked(void *arg, uint64_t index, const uint8_t chain[32], const uint8_t state[32])
{
	struct box *b = arg;

	b->checked = index;
	memcpy(b->chain, chain, 32);
	memcpy(b->state, state, 32);
}

static void on_snapshot_made(void *arg, bool ok, uint64_t size, uint64_t index)
{
	struct box *b = arg;

	assert_true(ok);
	b->made = true;
	b->snapshot_size = size;
	b->snapshot_index = index;
}

static void on_fetch_written(void *arg, uint64_t upto)
{
	((struct box *)arg)->fetched = upto;
}

static void disk_free(struct core_disk *d)
{
	for (size_t i = 0; i < d->n; i++)
		entry_unref(d->tail[i]);
	free(d->tail);
	*d = (struct core_disk){0};
}

static void on_fetch_installed(void *arg, const struct core_disk *disk)
{
	struct box *b = arg;

	if (!disk) {
		b->no_good++;
		return;
	}
	b->installed++;
	b->applied = b->last = disk->applied;
	b->learner = disk->learner;
	for (size_t i = 0; i < disk->n; i++)
		entry_unref(disk->tail[i]);
}

static const struct store_handlers handlers = {.applied = on_applied,
					       .written = on_written,
					       .failed = on_failed,
					       .checked = on_checked,
					       .snapshot_made = on_snapshot_made,
					       .fetch_written = on_fetch_written,
					       .fetch_installed = on_fetch_installed};

static int try_open(struct box *b, uint64_t history, struct err *e)
{
	struct store_options o = {.path = b->path,
				  .machine = &kv_machine,
				  .history = history,
				  .log_kept = 100,
				  .handlers = &handlers,
				  .arg = b};

	if (store_open(&o, &b->store, &b->disk, e) < 0)
		return -1;
	b->applied = b->disk.applied;
	b->last = b->disk.applied + b->disk.n;
	return 0;
}

static void open_box(struct box *b)
{
	struct err e = ERR_INIT;

	if (try_open(b, HISTORY, &e) < 0)
		fail_msg("%s", e.text);
}

static void begin(struct box *b)
{
	memset(b, 0, sizeof(*b));
	strcpy(b->dir, "/tmp/godwit-store-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	snprintf(b->path, sizeof(b->path), "%s/state.db", b->dir);
}

static void close_box(struct box *b)
{
	store_close(b->store);
	b->store = NULL;
	disk_free(&b->disk);
}

static void end(struct box *b)
{
	_free_ char *command = xasprintf("rm -r %s", b->dir);

	close_box(b);
	json_decref(b->result);
	assert_int_equal(system(command), 0);
}

/* Dispatch until @done says so, at most 20 s. */
#define until(b, done)                                                                                                 \
	do {                                                                                                           \
		int64_t limit_ = clock_now_ns() + 20 * NS_PER_S;                                                       \
		while (!(done)) {                                                                                      \
			struct pollfd p_ = {store_fd((b)->store), POLLIN, 0};                                          \
			assert_true(clock_now_ns() < limit_);                                                          \
			poll(&p_, 1, 100);                                                                             \
			store_dispatch((b)->store);                                                                    \
		}                                                                                                      \
	} while (0)

static struct entry *entry_make(struct box *b, enum entry_kind kind, const char *text)
{
	struct entry *e = entry_new(kind, text, text ? strlen(text) : 0);

	e->epoch = 3;
	e->index = ++b->last;
	e->node = 1;
	e->seq = e->index;
	e->version = 1;
	return e;
}

/* Append @n entries and apply those that are wanted, in one step. Takes the references. */
static void put(struct box *b, struct entry **list, size_t n, size_t n_apply)
{
	struct core_write w = {.serial = ++b->serial, .append = list, .n_append = n, .apply = list, .n_apply = n_apply};

	store_write(b->store, &w);
	for (size_t i = 0; i < n; i++)
		entry_unref(list[i]);
}

static void put_text(struct box *b, enum entry_kind kind, const char *text)
{
	struct entry *e = entry_make(b, kind, text);

	put(b, &e, 1, 1);
	until(b, b->written == b->serial);
}

static void put_key(struct box *b, uint64_t i)
{
	_free_ char *text = xasprintf("{\"id\": \"c%lu\", \"key\": \"k%lu\", \"value\": \"v\"}", (unsigned long)i,
				      (unsigned long)i);
	struct entry *e = entry_make(b, ENTRY_COMMAND, text);

	put(b, &e, 1, 1);
}

/* A new store that has applied @n commands. */
static void begin_with(struct box *b, uint64_t n)
{
	begin(b);
	open_box(b);
	for (uint64_t i = 0; i < n; i++)
		put_key(b, i);
	until(b, b->written == b->serial);
}

static void what_was_written_is_there_after_a_restart(void **state)
{
	struct core_write promise = {.meta = true, .promised = 9, .promised_to = 2, .history = HISTORY, .alone = true};
	struct entry *list[3];
	struct box b;

	(void)state;
	begin(&b);
	open_box(&b);
	assert_int_equal(b.disk.history, HISTORY);
	assert_false(b.disk.learner);
	list[0] = entry_make(&b, ENTRY_EPOCH, NULL);
	list[1] = entry_make(&b, ENTRY_COMMAND, "{\"id\": \"a\", \"key\": \"k\", \"value\": \"v\"}");
	list[2] = entry_make(&b, ENTRY_COMMAND, "{\"id\": \"b\", \"key\": \"k\", \"value\": \"w\"}");
	put(&b, list, 3, 2);
	promise.serial = ++b.serial;
	store_write(b.store, &promise);
	until(&b, b.written == b.serial);
	assert_int_equal(json_integer_value(json_object_get(b.result, "index")), 2);
	close_box(&b);
	open_box(&b);
	assert_int_equal(b.disk.promised, 9);
	assert_int_equal(b.disk.promised_to, 2);
	assert_true(b.disk.alone);
	assert_int_equal(b.disk.applied, 2);
	assert_int_equal(b.disk.applied_epoch, 3);
	assert_int_equal(b.disk.n, 1);
	assert_int_equal(b.disk.tail[0]->index, 3);
	assert_memory_equal(b.disk.tail[0]->data, "{\"id\": \"b\"", 10);
	end(&b);
}

static void a_new_host_of_a_cluster_is_a_learner(void **state)
{
	struct err e = ERR_INIT;
	struct box b;

	(void)state;
	begin(&b);
	assert_int_equal(try_open(&b, 0, &e), 0);
	assert_true(b.disk.learner);
	assert_int_equal(b.disk.history, 0);
	end(&b);
}

static void a_command_that_comes_again_is_answered_as_the_first_time(void **state)
{
	_free_ char *value = NULL;
	struct box b;

	(void)state;
	begin(&b);
	open_box(&b);
	put_text(&b, ENTRY_COMMAND, "{\"id\": \"a\", \"key\": \"k\", \"value\": \"first\"}");
	put_text(&b, ENTRY_COMMAND, "{\"id\": \"x\", \"key\": \"k\", \"value\": \"second\"}");
	put_text(&b, ENTRY_COMMAND, "{\"id\": \"a\", \"key\": \"k\", \"value\": \"first\"}");
	assert_int_equal(b.repeats, 1);
	assert_int_equal(json_integer_value(json_object_get(b.result, "index")), 1);
	close_box(&b);
	open_box(&b);
	put_text(&b, ENTRY_COMMAND, "{\"id\": \"x\", \"key\": \"k\", \"value\": \"second\"}");
	assert_int_equal(b.repeats, 2);
	assert_string_equal(json_string_value(json_object_get(b.result, "old")), "first");
	value = kv_get(store_db(b.store), "k");
	assert_string_equal(value, "second");
	end(&b);
}

static void a_refusal_leaves_no_trace_and_is_remembered(void **state)
{
	struct box b;

	(void)state;
	begin(&b);
	open_box(&b);
	put_text(&b, ENTRY_COMMAND, "{\"id\": \"a\", \"key\": \"k\", \"value\": \"v\", \"refuse\": 1}");
	assert_int_equal(b.code, ERR_INPUT);
	put_text(&b, ENTRY_COMMAND, "{\"id\": \"a\", \"key\": \"k\", \"value\": \"v\"}");
	assert_int_equal(b.code, ERR_INPUT);
	assert_int_equal(b.repeats, 1);
	put_text(&b, ENTRY_COMMAND, "no JSON");
	assert_int_equal(b.code, ERR_INPUT);
	put_text(&b, ENTRY_COMMAND, "[1]");
	assert_int_equal(b.code, ERR_INPUT);
	assert_int_equal(kv_count(store_db(b.store)), 0);
	assert_int_equal(b.applied, 4);
	end(&b);
}

static void a_tail_is_cut_off_and_another_takes_its_place(void **state)
{
	struct core_write cut = {.cut_from = 2};
	struct entry *list[2];
	struct box b;

	(void)state;
	begin(&b);
	open_box(&b);
	list[0] = entry_make(&b, ENTRY_EPOCH, NULL);
	list[1] = entry_make(&b, ENTRY_COMMAND, "{\"id\": \"old\", \"key\": \"k\", \"value\": \"old\"}");
	put(&b, list, 2, 1);
	b.last = 1;
	list[0] = entry_make(&b, ENTRY_COMMAND, "{\"id\": \"new\", \"key\": \"k\", \"value\": \"new\"}");
	cut.serial = ++b.serial;
	cut.append = cut.apply = list;
	cut.n_append = cut.n_apply = 1;
	store_write(b.store, &cut);
	entry_unref(list[0]);
	until(&b, b.written == b.serial);
	assert_int_equal(store_read(b.store, 2, 1000, list, 2), 1);
	assert_non_null(strstr((char *)list[0]->data, "new"));
	entry_unref(list[0]);
	assert_int_equal(b.applied, 2);
	end(&b);
}

/* The child writes one command after the other and says which are on the disk. */
static void write_until_killed(struct box *b, int out)
{
	struct entry *list[8];

	open_box(b);
	for (;;) {
		for (size_t i = 0; i < 8; i++) {
			_free_ char *text = xasprintf("{\"id\": \"%lu\", \"key\": \"%lu\", \"value\": \"v\"}",
						      (unsigned long)b->last + 1, (unsigned long)b->last + 1);

			list[i] = entry_make(b, ENTRY_COMMAND, text);
		}
		put(b, list, 8, 8);
		until(b, b->serial < b->written + 4);
		if (write(out, &b->applied, sizeof(b->applied)) < 0)
			_exit(1);
	}
}

static void a_killed_process_leaves_whole_steps_and_all_it_told(void **state)
{
	struct box b;

	(void)state;
	begin(&b);
	for (int round = 0; round < 8; round++) {
		uint64_t told = 0, next;
		int fds[2];
		pid_t pid;

		assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
		pid = fork();
		if (pid == 0) {
			close(fds[0]);
			write_until_killed(&b, fds[1]);
		}
		close(fds[1]);
		assert_int_equal(read(fds[0], &told, sizeof(told)), sizeof(told));
		usleep(20000 + (useconds_t)round * 7000);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		while (read(fds[0], &next, sizeof(next)) == (ssize_t)sizeof(next))
			told = next;
		close(fds[0]);
		open_box(&b);
		assert_true(b.disk.applied >= told);
		assert_int_equal(b.disk.applied % 8, 0);
		assert_int_equal(kv_count(store_db(b.store)), b.disk.applied);
		close_box(&b);
	}
	end(&b);
}

static void write_at(const char *path, off_t at, const char *text, size_t size)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, text, size, at), size);
	close(fd);
}

static void a_damaged_file_is_refused_with_what_to_do(void **state)
{
	static const char junk[8192] = "junk";
	struct err e = ERR_INIT;
	struct stat st;
	struct box b;

	(void)state;
	begin(&b);
	open_box(&b);
	for (uint64_t i = 0; i < 500; i++)
		put_key(&b, i);
	until(&b, b.written == b.serial);
	close_box(&b);
	stat(b.path, &st);
	write_at(b.path, st.st_size / 2 / 4096 * 4096, junk, sizeof(junk));
	assert_int_equal(try_open(&b, 0, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	assert_non_null(strstr(e.text, b.path));
	assert_non_null(strstr(e.text, "damaged"));
	assert_non_null(strstr(e.text, "fetches the state from the others"));

	write_at(b.path, 0, junk, 4096);
	assert_int_equal(try_open(&b, 0, &e), -1);
	assert_non_null(strstr(e.text, "damaged"));
	end(&b);
}

static void a_file_of_a_newer_release_is_refused(void **state)
{
	struct err e = ERR_INIT;
	sqlite3 *db = NULL;
	struct box b;

	(void)state;
	begin(&b);
	open_box(&b);
	close_box(&b);
	assert_int_equal(sqlite3_open(b.path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "UPDATE replica_meta SET format = 3", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	assert_int_equal(try_open(&b, 0, &e), -1);
	assert_non_null(strstr(e.text, "format 3"));
	end(&b);
}

static void a_state_in_use_is_refused(void **state)
{
	struct err e = ERR_INIT;
	struct box b, other;

	(void)state;
	begin(&b);
	open_box(&b);
	other = b;
	assert_int_equal(try_open(&other, 0, &e), -1);
	assert_non_null(strstr(e.text, "in use"));
	end(&b);
}

static void a_full_disk_is_tried_again_until_there_is_room(void **state)
{
	struct rlimit small = {0}, before;
	struct box b;
	struct stat st;

	(void)state;
	begin(&b);
	signal(SIGXFSZ, SIG_IGN);
	open_box(&b);
	put_key(&b, 1);
	until(&b, b.written == b.serial);
	stat(b.path, &st);
	getrlimit(RLIMIT_FSIZE, &before);
	small = before;
	small.rlim_cur = 4096;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (uint64_t i = 2; i <= 200; i++)
		put_key(&b, i);
	until(&b, b.failures >= 3);
	assert_int_equal(b.written, 1);
	assert_int_equal(kv_count(store_db(b.store)), 1);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	until(&b, b.written == b.serial);
	assert_int_equal(b.applied, 200);
	assert_int_equal(kv_count(store_db(b.store)), 200);
	assert_int_equal(b.repeats, 0);
	end(&b);
}

static void a_disk_that_fails_inside_a_command_is_not_the_commands_fault(void **state)
{
	struct box b;

	(void)state;
	begin(&b);
	open_box(&b);
	kv_disk_failures = 2;
	put_text(&b, ENTRY_COMMAND, "{\"id\": \"a\", \"key\": \"k\", \"value\": \"v\"}");
	assert_int_equal(b.failures, 2);
	assert_int_equal(b.code, ERR_NONE);
	assert_int_equal(b.repeats, 0);
	assert_string_equal(json_string_value(json_object_get(b.result, "old")), "");
	end(&b);
}

/* Hand the snapshot of @from to @to; @spoil: break some bytes on the way. */
static void send_snapshot(struct box *from, struct box *to, bool spoil)
{
	uint8_t *buf;

	from->made = false;
	store_snapshot_make(from->store);
	until(from, from->made);
	buf = xcalloc(1, from->snapshot_size);
	assert_int_equal(store_snapshot_read(from->store, 1, buf, from->snapshot_size), 0);
	assert_int_equal(store_snapshot_read(from->store, 0, buf, from->snapshot_size), from->snapshot_size);
	if (spoil)
		memset(buf + from->snapshot_size / 2 / 4096 * 4096, 0x55, 4096);
	to->fetched = 0;
	store_fetch_begin(to->store, from->snapshot_size);
	for (uint64_t at = 0, n; at < from->snapshot_size; at += n) {
		n = from->snapshot_size - at < 50000 ? from->snapshot_size - at : 50000;
		store_fetch_data(to->store, at, buf + at, n);
	}
	store_fetch_install(to->store);
	free(buf);
	until(to, to->installed + to->no_good > 0);
	assert_int_equal(to->fetched, from->snapshot_size);
	store_snapshot_drop(from->store);
}

static void a_snapshot_makes_another_host_equal(void **state)
{
	struct core_write promise = {.serial = 1, .meta = true, .promised = 12, .promised_to = 3, .learner = true};
	struct err e = ERR_INIT;
	struct box a, b;

	(void)state;
	begin(&a);
	open_box(&a);
	begin(&b);
	assert_int_equal(try_open(&b, 0, &e), 0);
	for (uint64_t i = 0; i < 3000; i++)
		put_key(&a, i);
	until(&a, a.written == a.serial);
	b.serial = 1;
	store_write(b.store, &promise);
	send_snapshot(&a, &b, false);
	assert_int_equal(a.snapshot_index, 3000);
	assert_int_equal(b.installed, 1);
	assert_true(b.learner); /* it was one before */
	assert_int_equal(b.applied, 3000);
	assert_int_equal(kv_count(store_db(b.store)), 3000);
	put_text(&a, ENTRY_CHECK, NULL);
	put_text(&b, ENTRY_CHECK, NULL);
	assert_int_equal(a.checked, 3001);
	assert_memory_equal(a.chain, b.chain, 32);
	assert_memory_equal(a.state, b.state, 32);
	put_text(&b, ENTRY_COMMAND, "{\"id\": \"c2999\", \"key\": \"k2999\", \"value\": \"v\"}");
	assert_int_equal(b.repeats, 1); /* the ids came along */
	close_box(&b);
	assert_int_equal(try_open(&b, 0, &e), 0);
	assert_int_equal(b.disk.promised, 12);
	assert_int_equal(b.disk.history, HISTORY);
	assert_true(b.disk.learner);
	end(&a);
	end(&b);
}

/* What a member may have acknowledged is in its log. What is behind the snapshot's last entry stays if that entry is in
 * it; if another one is in its place, none of it was ever committed. The snapshot ends at entry 100 of epoch 3. */
static void a_snapshot_makes_a_learner_of_whom_it_takes_acknowledged_entries_from(void **state)
{
	static const struct {
		uint64_t applied, log, other_from; /* other_from: the log from there on is of another epoch */
		bool diverged, learner;
		size_t stays;
	} rows[] = {
		{50, 50, 0, false, false, 0},    {50, 100, 0, false, false, 0},   {50, 105, 0, false, false, 5},
		{50, 105, 101, false, false, 5}, {50, 105, 100, false, false, 0}, {0, 0, 0, false, false, 0},
		{1300, 1300, 0, false, true, 0}, {50, 50, 0, true, true, 0},      {50, 105, 0, true, true, 0},
	};
	struct box a, b;

	(void)state;
	begin_with(&a, 100);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		begin(&b);
		open_box(&b);
		for (uint64_t k = 0; k < rows[i].applied; k++)
			put_key(&b, k);
		while (b.last < rows[i].log) {
			struct entry *e = entry_make(&b, ENTRY_COMMAND, "{}");

			e->epoch += rows[i].other_from && e->index >= rows[i].other_from;
			put(&b, &e, 1, 0);
		}
		if (rows[i].diverged) {
			struct core_write w = {
				.serial = ++b.serial, .meta = true, .history = HISTORY, .diverged = true};

			store_write(b.store, &w);
		}
		send_snapshot(&a, &b, false);
		assert_int_equal(b.installed, 1);
		assert_int_equal(b.applied, 100);
		assert_int_equal(b.learner, rows[i].learner);
		close_box(&b);
		open_box(&b);
		assert_int_equal(b.disk.learner, rows[i].learner);
		assert_int_equal(b.disk.n, rows[i].stays);
		assert_true(!b.disk.n || b.disk.tail[0]->index == 101);
		assert_int_equal(kv_count(store_db(b.store)), 100);
		end(&b);
	}
	end(&a);
}

/* Overwrite the page of the file at @path that holds @text. */
static void spoil_page(const char *path, const char *text)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat st = {0};
	uint8_t *file, *at, page[4096];

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	file = xcalloc(1, (size_t)st.st_size);
	assert_int_equal(pread(fd, file, (size_t)st.st_size, 0), st.st_size);
	at = memmem(file, (size_t)st.st_size, text, strlen(text));
	assert_non_null(at);
	memset(page, 0x55, sizeof(page));
	assert_int_equal(pwrite(fd, page, sizeof(page), (at - file) / 4096 * 4096), sizeof(page));
	free(file);
	close(fd);
}

static void a_rotten_page_of_the_log_costs_what_is_behind_the_snapshot_and_not_the_snapshot(void **state)
{
	struct box a, b;

	(void)state;
	begin_with(&a, 100);
	begin(&b);
	open_box(&b);
	while (b.last < 1000) {
		_free_ char *text = xasprintf("{\"id\": \"tail%lu\"}", (unsigned long)b.last);
		struct entry *e = entry_make(&b, ENTRY_COMMAND, text);

		put(&b, &e, 1, 0);
	}
	until(&b, b.written == b.serial);
	close_box(&b);
	open_box(&b);
	spoil_page(b.path, "\"tail700\"");
	send_snapshot(&a, &b, false);
	assert_int_equal(b.installed, 1);
	assert_true(b.learner);
	close_box(&b);
	open_box(&b);
	assert_int_equal(b.disk.applied, 100);
	assert_int_equal(b.disk.n, 0);
	end(&a);
	end(&b);
}

static void a_damaged_snapshot_is_no_good_and_changes_nothing(void **state)
{
	struct box a, b;

	(void)state;
	begin(&a);
	open_box(&a);
	begin(&b);
	open_box(&b);
	for (uint64_t i = 0; i < 1000; i++)
		put_key(&a, i);
	put_key(&b, 5);
	until(&a, a.written == a.serial);
	until(&b, b.written == b.serial);
	send_snapshot(&a, &b, true);
	assert_int_equal(b.no_good, 1);
	assert_int_equal(kv_count(store_db(b.store)), 1);
	put_key(&b, 6);
	until(&b, b.written == b.serial);
	assert_int_equal(b.applied, 2);
	end(&a);
	end(&b);
}

static void an_old_log_is_forgotten_and_the_newest_of_it_kept(void **state)
{
	struct entry *list[200];
	struct box b;
	size_t n;

	(void)state;
	begin(&b);
	open_box(&b);
	for (uint64_t i = 0; i < 3000; i++)
		put_key(&b, i);
	until(&b, b.written == b.serial);
	assert_int_equal(store_read(b.store, 1, 1 << 20, list, 200), 0);
	n = store_read(b.store, 2950, 1 << 20, list, 200);
	assert_int_equal(n, 51);
	assert_int_equal(list[0]->index, 2950);
	while (n > 0)
		entry_unref(list[--n]);
	end(&b);
}

static void a_log_of_large_entries_is_kept_short_by_its_bytes(void **state)
{
	_free_ char *value = xcalloc(1, 400001), *text = NULL;
	struct entry *list[100];
	size_t n, bytes = 0;
	struct box b;

	(void)state;
	memset(value, 'x', 400000);
	begin(&b);
	open_box(&b);
	for (int i = 0; i < 60; i++) {
		free(text);
		text = xasprintf("{\"id\": \"c%d\", \"key\": \"k\", \"value\": \"%s\"}", i, value);
		put_text(&b, ENTRY_COMMAND, text);
	}
	assert_int_equal(store_read(b.store, 1, SIZE_MAX, list, 100), 0);
	n = store_read(b.store, 55, SIZE_MAX, list, 100);
	assert_int_equal(n, 6);
	for (uint64_t i = 54; n < 60 && store_read(b.store, i, 1, list + n, 1) == 1; i--)
		n++;
	for (size_t i = 0; i < n; i++) {
		bytes += list[i]->size;
		entry_unref(list[i]);
	}
	assert_in_range(bytes, STORE_LOG_BYTES / 4, 2 * STORE_LOG_BYTES);
	end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_written_is_there_after_a_restart),
		cmocka_unit_test(a_new_host_of_a_cluster_is_a_learner),
		cmocka_unit_test(a_command_that_comes_again_is_answered_as_the_first_time),
		cmocka_unit_test(a_refusal_leaves_no_trace_and_is_remembered),
		cmocka_unit_test(a_tail_is_cut_off_and_another_takes_its_place),
		cmocka_unit_test(a_killed_process_leaves_whole_steps_and_all_it_told),
		cmocka_unit_test(a_damaged_file_is_refused_with_what_to_do),
		cmocka_unit_test(a_file_of_a_newer_release_is_refused),
		cmocka_unit_test(a_state_in_use_is_refused),
		cmocka_unit_test(a_full_disk_is_tried_again_until_there_is_room),
		cmocka_unit_test(a_disk_that_fails_inside_a_command_is_not_the_commands_fault),
		cmocka_unit_test(a_snapshot_makes_another_host_equal),
		cmocka_unit_test(a_snapshot_makes_a_learner_of_whom_it_takes_acknowledged_entries_from),
		cmocka_unit_test(a_rotten_page_of_the_log_costs_what_is_behind_the_snapshot_and_not_the_snapshot),
		cmocka_unit_test(a_damaged_snapshot_is_no_good_and_changes_nothing),
		cmocka_unit_test(an_old_log_is_forgotten_and_the_newest_of_it_kept),
		cmocka_unit_test(a_log_of_large_entries_is_kept_short_by_its_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
