/* SPDX-License-Identifier: Apache-2.0 */
/* Two hosts with their movers in one process: what the tests of the mover share. */
#include "tests/unit/node/movers.h"

#define FILL_MIB 32UL
#define FILL_AT (24 << 20)

struct host host_src, host_dst;
struct loop *host_loop;
char *vm_program, *migrate_program;
unsigned guest_mib;

/* ---- two hosts ---- */

static struct host *host_of(void *arg)
{
	return arg;
}

static void on_listening(void *arg, const char *id, const char *address, const char *token)
{
	assert_string_equal(id, ID);
	snprintf(host_of(arg)->address, sizeof(host_src.address), "%s", address);
	snprintf(host_of(arg)->token, sizeof(host_src.token), "%s", token);
	host_of(arg)->listened++;
}

static void on_progress(void *arg, const char *id, const json_t *p)
{
	assert_string_equal(id, ID);
	assert_in_range(json_number_value(json_object_get(p, "progress")) * 1000, 0, 1000);
	host_of(arg)->progressed++;
}

void on_forecast(void *arg, const json_t *f, const char *words)
{
	snprintf(host_of(arg)->words, sizeof(host_src.words), "%s", words);
	host_of(arg)->forecast_good = f && json_integer_value(json_object_get(f, "bytes")) > 0 &&
				      json_integer_value(json_object_get(f, "wire_rate")) > 0;
	host_of(arg)->forecasts++;
}

static void on_agree(void *arg, const char *id)
{
	assert_string_equal(id, ID);
	host_of(arg)->agrees++;
}

static void on_answer(void *arg, const char *id, enum mover_role role, enum move_answer answer)
{
	assert_string_equal(id, ID);
	assert_int_equal(role, arg == &host_src ? MOVER_SRC : MOVER_DST);
	host_of(arg)->answer = answer;
	host_of(arg)->answers++;
}

static void on_ended(void *arg, const char *id, enum mover_role role, enum mover_end end, const char *words,
		     const json_t *figures)
{
	assert_string_equal(id, ID);
	assert_int_equal(role, arg == &host_src ? MOVER_SRC : MOVER_DST);
	host_of(arg)->end = end;
	snprintf(host_of(arg)->words, sizeof(host_src.words), "%s", words);
	host_of(arg)->figures = figures != NULL;
	host_of(arg)->pause_ms = json_number_value(json_object_get(figures, "pause_ms"));
	host_of(arg)->ends++;
}

static const struct mover_calls calls = {
	.listening = on_listening, .progress = on_progress, .agree = on_agree, .answer = on_answer, .ended = on_ended};

/* A new mover on @h, as after the start of a daemon; @migrate NULL: the real engine; @tls NULL: plaintext. */
void mover_up_with(struct host *h, const char *migrate, const char *tls)
{
	struct mover_options o = {.run_dir = h->dir,
				  .cluster = HOST_CLUSTER,
				  .plaintext = !tls,
				  .tls_dir = tls,
				  .vm_program = vm_program,
				  .migrate_program = migrate ? migrate : migrate_program,
				  .accel = "tcg",
				  .settle_s = 2};
	struct err e = ERR_INIT;

	if (mover_new(host_loop, &o, &calls, h, &h->m, &e) < 0)
		fail_msg("%s", e.text);
}

void mover_up(struct host *h, const char *migrate)
{
	mover_up_with(h, migrate, NULL);
}

/* The daemon of @h dies and another starts: what was said is forgotten. */
void mover_again(struct host *h)
{
	char dir[sizeof(h->dir)];

	mover_free(h->m);
	memcpy(dir, h->dir, sizeof(dir));
	memset(h, 0, sizeof(*h));
	memcpy(h->dir, dir, sizeof(dir));
	mover_up(h, NULL);
}

static void host_up(struct host *h)
{
	memset(h, 0, sizeof(*h));
	snprintf(h->dir, sizeof(h->dir), "/tmp/mover-test-XXXXXX");
	assert_non_null(mkdtemp(h->dir));
	mover_up(h, NULL);
}

static void host_down(struct host *h)
{
	_free_ char *moves = xasprintf("%s/.moves", h->dir);

	mover_free(steal_ptr(h->m));
	host_clean(h->dir);
	rundir_remove(moves, ID, NULL);
	rmdir(moves);
	rmdir(h->dir);
}

int movers_set_up(void **state)
{
	(void)state;
	log_set_level(getenv("MOVER_TEST_LOG") ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR);
	host_init();
	guest_mib = 128;
	host_loop = loop_new();
	vm_program = host_program("godwit-vm");
	migrate_program = host_program("godwit-migrate");
	host_up(&host_src);
	host_up(&host_dst);
	return 0;
}

int movers_tear_down(void **state)
{
	(void)state;
	host_down(&host_src);
	host_down(&host_dst);
	loop_free(host_loop);
	free(steal_ptr(vm_program));
	free(steal_ptr(migrate_program));
	return host_qemus(host_uuid) ? -1 : 0;
}

/* ---- the loop ---- */

struct until {
	bool (*done)(void);
	int64_t deadline;
};

static void until_look(void *arg)
{
	struct until *u = arg;

	if (u->done() || clock_now_ns() > u->deadline)
		loop_stop(host_loop);
}

void run_until_fn(bool (*done)(void), const char *what)
{
	struct until u = {.done = done, .deadline = IN_S(40)};
	struct loop_timer *t = loop_timer_add(host_loop, 0, 5 * NS_PER_MS, until_look, &u);

	loop_run(host_loop);
	loop_timer_free(t);
	if (!done())
		fail_msg("not so after 40 s: %s; source: ended %d \"%s\", destination: ended %d \"%s\"", what,
			 host_src.ends, host_src.words, host_dst.ends, host_dst.words);
}

static int64_t run_end_ns;
static bool time_over(void)
{
	return clock_now_ns() > run_end_ns;
}
void run_ms(int ms)
{
	run_end_ns = clock_now_ns() + ms * NS_PER_MS;
	run_until_fn(time_over, "time");
}

bool dst_listens(void)
{
	return host_dst.listened > 0;
}

bool src_asks(void)
{
	return host_src.agrees > 0;
}

bool src_progresses(void)
{
	return host_src.progressed > 1;
}

bool src_ended(void)
{
	return host_src.ends > 0;
}

bool dst_ended(void)
{
	return host_dst.ends > 0;
}

bool both_ended(void)
{
	return host_src.ends > 0 && host_dst.ends > 0;
}

bool src_answered(void)
{
	return host_src.answers > 0;
}

bool dst_answered(void)
{
	return host_dst.answers > 0;
}

bool src_forecast(void)
{
	return host_src.forecasts > 0;
}

/* ---- the guest ---- */

enum vm_status status_on(const struct host *h)
{
	enum vm_status s;
	struct vm *vm = NULL;

	if (vm_open(h->dir, "t1", &vm, NULL) < 0)
		return VM_STATUS_MAX;
	s = vm_status(vm);
	vm_close(vm);
	return s;
}

/* With as much memory as QEMU wants for measuring how fast the guest writes. */
json_t *definition_of(const char *more)
{
	json_t *o = host_definition("t1", host_uuid, more);

	json_object_set_new(o, "memory", json_integer(guest_mib));
	return o;
}

/* Give the guest 32 MiB that are no zeros, in memory that its firmware does not use. */
static void memory_fill(pid_t qemu)
{
	_free_ char *folder = xasprintf("/proc/%d/fd", (int)qemu);
	_free_ char *bytes = xcalloc(1, FILL_MIB << 20);
	DIR *d = opendir(folder);
	struct dirent *entry;
	uint32_t x = 1;
	bool filled = false;

	for (size_t i = 0; i < FILL_MIB << 20; i++) {
		x = x * 1664525 + 1013904223;
		bytes[i] = (char)(x >> 24);
	}
	while (!filled && (entry = readdir(d))) {
		_free_ char *path = xasprintf("%s/%s", folder, entry->d_name);
		char target[256] = "";
		_closefd_ int fd = -1;

		if (readlink(path, target, sizeof(target) - 1) < 0 || strncmp(target, "/memfd:", 7) != 0)
			continue;
		fd = open(path, O_RDWR | O_CLOEXEC);
		assert_int_equal(pwrite(fd, bytes, FILL_MIB << 20, FILL_AT), FILL_MIB << 20);
		filled = true;
	}
	closedir(d);
	assert_true(filled);
}

void guest_start(struct host *h)
{
	json_t *definition = definition_of("");
	_free_ char *text = json_dumps(definition, 0);
	struct vm_options opt = {.run_dir = h->dir, .accel = ACCEL_TCG, .mark = "godwit:" HOST_CLUSTER ":4"};
	struct def d = {0};
	struct vm *vm = NULL;
	struct err e = ERR_INIT;

	json_decref(definition);
	assert_int_equal(def_parse(text, strlen(text), "t", "/", &d, &e), 0);
	if (vm_start(&d, &opt, &vm, &e) < 0)
		fail_msg("%s", e.text);
	def_done(&d);
	if (guest_mib > FILL_MIB)
		memory_fill(vm->proc.pid);
	vm_close(vm);
}

void receive_from(const char *peer)
{
	struct err e = ERR_INIT;
	json_t *definition = mover_definition(host_src.m, "t1", &e);
	struct mover_receive_options o = {
		.id = ID, .vm = "t1", .definition = definition, .epoch = 5, .listen = "127.0.0.1", .peer = peer};

	if (!definition || mover_receive(host_dst.m, &o, &e) < 0)
		fail_msg("%s", e.text);
	json_decref(definition);
}

void receive_now(void)
{
	receive_from(NULL);
}

/* The pause may be long: on a machine that stands still for seconds, nobody having agreed yet is no reason to go back.
 */
struct mover_send_options send_options(void)
{
	return (struct mover_send_options){
		.id = ID, .vm = "t1", .to = host_dst.address, .token = host_dst.token, .max_pause_ms = 20000};
}

void send_now(unsigned bandwidth_mbs)
{
	struct mover_send_options o = send_options();
	struct err e = ERR_INIT;

	o.bandwidth_mbs = bandwidth_mbs;
	if (mover_send(host_src.m, &o, &e) < 0)
		fail_msg("%s", e.text);
}

/* Guest here, both sides ready, the copy begun. */
void move_begin(unsigned bandwidth_mbs)
{
	guest_start(&host_src);
	receive_now();
	run_until(dst_listens);
	send_now(bandwidth_mbs);
}

/* Where the guest is, and that nothing else of it is anywhere. */
void assert_guest_on(struct host *h)
{
	struct host *other = h == &host_src ? &host_dst : &host_src;
	int64_t deadline = IN_S(10);

	/* Its guard may be resuming it. */
	while (status_on(h) != VM_STATUS_RUNNING && clock_now_ns() < deadline)
		usleep(10000);
	assert_int_equal(status_on(h), VM_STATUS_RUNNING);
	assert_int_equal(status_on(other), VM_STATUS_MAX);
	assert_int_equal(host_qemus(host_uuid), 1);
}

void forget_both(void)
{
	struct host *hosts[] = {&host_src, &host_dst};

	for (size_t i = 0; i < 2; i++) {
		_free_ char *path = xasprintf("%s/.moves/" ID, hosts[i]->dir);
		json_t *list;

		assert_int_equal(mover_forget(hosts[i]->m, ID, NULL), 0);
		assert_int_equal(mover_forget(hosts[i]->m, ID, NULL), 0);
		assert_int_equal(access(path, F_OK), -1);
		list = mover_list(hosts[i]->m);
		assert_int_equal(json_array_size(list), 0);
		json_decref(list);
	}
}
