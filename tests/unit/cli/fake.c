/* SPDX-License-Identifier: Apache-2.0 */
/* A daemon for tests: a thread for each connection. */
#include "tests/unit/cli/fake.h"

#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/http-message.h"
#include "base/mem.h"
#include "base/sock.h"

#define ANSWERS_MAX 64
#define REQUESTS_MAX 512
#define CONNECTIONS_MAX 64
#define WORDS_MAX 64
#define WAIT_NS (5 * NS_PER_S)

struct answer {
	const char *method, *target, *body;
	int status;
	bool used;
};

struct connection {
	pthread_t thread;
	int fd;
};

struct cli_io fake_io;

static char root[64];
static char socket_path[96];

static struct {
	pthread_mutex_t lock;
	pthread_t thread;
	int fd;
	struct answer answers[ANSWERS_MAX];
	size_t n_answers;
	int age_ms;
	struct fake_request requests[REQUESTS_MAX];
	size_t n_requests;
	struct connection connections[CONNECTIONS_MAX];
	size_t n_connections;
} f = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

/* ---- answers ---- */

void fake_answer(const char *method, const char *target, int status, const char *body)
{
	pthread_mutex_lock(&f.lock);
	assert_true(f.n_answers < ANSWERS_MAX);
	f.answers[f.n_answers++] = (struct answer){method, target, body, status, false};
	pthread_mutex_unlock(&f.lock);
}

/* The next answer to this, or one that says there is none. */
static struct answer answer_find(const struct fake_request *r)
{
	static const char none[] = "{\"error\":{\"code\":\"notfound\",\"message\":\"nobody told me\"}}";
	struct answer a = {r->method, r->target, none, 404, false};

	for (size_t i = 0; i < f.n_answers; i++) {
		struct answer *one = &f.answers[i];

		if (strcmp(one->method, r->method) != 0 || strcmp(one->target, r->target) != 0)
			continue;
		a = *one;
		if (!one->used) {
			one->used = true;
			break;
		}
	}
	return a;
}

void fake_age(int ms)
{
	f.age_ms = ms;
}

static char *header(const struct http_head *h, const char *name)
{
	const char *value = http_head_get(h, name);

	return value ? xstrdup(value) : NULL;
}

static struct answer request_note(const struct http_head *h, const char *body)
{
	struct fake_request r = {.method = xstrdup(h->method),
				 .target = xstrdup(h->target),
				 .body = xstrdup(body),
				 .key = header(h, "Idempotency-Key"),
				 .upgrade = header(h, "Upgrade")};
	struct answer a;

	pthread_mutex_lock(&f.lock);
	a = answer_find(&r);
	if (f.n_requests == REQUESTS_MAX)
		abort();
	f.requests[f.n_requests++] = r;
	pthread_mutex_unlock(&f.lock);
	return a;
}

static void send_text(int fd, const char *text)
{
	sock_write_full(fd, text, strlen(text), SOCK_FOREVER, &(struct err){0});
}

/* "login: ", then capitals until a dot. */
static void serve_raw(int fd)
{
	char c;

	send_text(fd,
		  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: godwit-console\r\n\r\nlogin: ");
	while (read(fd, &c, 1) == 1 && c != '.') {
		c = (char)(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
		if (write(fd, &c, 1) != 1)
			break;
	}
}

/* False when the connection ends with this. */
static bool answer_send(int fd, const struct answer *a)
{
	_free_ char *text = NULL;
	char c;

	switch (a->status) {
	case FAKE_CUT:
		return false;
	case FAKE_RAW:
		serve_raw(fd);
		return false;
	case FAKE_STREAM:
	case FAKE_ENDING:
		send_text(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
		send_text(fd, a->body);
		while (a->status == FAKE_STREAM && read(fd, &c, 1) == 1)
			;
		return false;
	default:
		text = xasprintf("HTTP/1.1 %d Whatever\r\nContent-Type: application/json\r\nGodwit-State-Age-Ms: "
				 "%d\r\nContent-Length: %zu\r\n\r\n%s",
				 a->status, f.age_ms, strlen(a->body), a->body);
		send_text(fd, text);
		return true;
	}
}

/* ---- connections ---- */

/* One request. False at the end. */
static bool serve_one(int fd)
{
	char in[65536];
	size_t size = 0, scanned = 0, n;
	struct http_head head;
	struct answer a;
	bool more;

	while (!(n = http_head_length(in, size, &scanned))) {
		ssize_t r = read(fd, in + size, sizeof(in) - 1 - size);

		if (r <= 0)
			return false;
		size += (size_t)r;
	}
	if (http_head_parse_request(in, n, &head, NULL) < 0)
		return false;
	while (size < n + head.length) {
		ssize_t r = read(fd, in + size, sizeof(in) - 1 - size);

		if (r <= 0)
			break;
		size += (size_t)r;
	}
	in[size] = 0;
	a = request_note(&head, in + n);
	more = answer_send(fd, &a);
	http_head_done(&head);
	return more;
}

static void *serve(void *arg)
{
	int fd = (int)(intptr_t)arg;

	while (serve_one(fd))
		;
	shutdown(fd, SHUT_RDWR);
	return NULL;
}

static void *accept_all(void *arg)
{
	int fd;

	(void)arg;
	while ((fd = accept(f.fd, NULL, NULL)) >= 0) {
		struct connection *c = &f.connections[f.n_connections++];

		if (f.n_connections > CONNECTIONS_MAX)
			abort();
		c->fd = fd;
		if (pthread_create(&c->thread, NULL, serve, (void *)(intptr_t)fd) != 0)
			abort();
	}
	return NULL;
}

/* Threads with every signal blocked: they are for whom the test is about. */
static void thread_start(pthread_t *t, void *(*fn)(void *))
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	if (pthread_create(t, NULL, fn, NULL) != 0)
		abort();
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int fake_start(void **state)
{
	static const char *const variables[] = {"GODWIT_SOCKET",     "GODWIT_HOST", "GODWIT_CERT_DIR", "GODWIT_CA",
						"GODWIT_TOKEN_FILE", "VISUAL",      "EDITOR"};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
		unsetenv(variables[i]);
	setenv("TZ", "UTC", 1);
	strcpy(root, "/tmp/godwit-cli-test.XXXXXX");
	if (!mkdtemp(root))
		abort();
	snprintf(socket_path, sizeof(socket_path), "%s/sock", root);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", socket_path);
	f.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (f.fd < 0 || bind(f.fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(f.fd, 16) < 0)
		abort();
	fake_io = (struct cli_io){.in_fd = -1, .out_fd = -1, .columns = 80};
	thread_start(&f.thread, accept_all);
	return 0;
}

static void folder_drop(void)
{
	DIR *d = opendir(root);

	for (struct dirent *entry; d && (entry = readdir(d));) {
		_free_ char *path = xasprintf("%s/%s", root, entry->d_name);

		unlink(path);
	}
	if (d)
		closedir(d);
	rmdir(root);
}

int fake_stop(void **state)
{
	(void)state;
	shutdown(f.fd, SHUT_RDWR);
	pthread_join(f.thread, NULL);
	close(f.fd);
	for (size_t i = 0; i < f.n_connections; i++) {
		shutdown(f.connections[i].fd, SHUT_RDWR);
		pthread_join(f.connections[i].thread, NULL);
		close(f.connections[i].fd);
	}
	for (size_t i = 0; i < f.n_requests; i++) {
		struct fake_request *r = &f.requests[i];

		free(r->method);
		free(r->target);
		free(r->body);
		free(r->key);
		free(r->upgrade);
	}
	f.n_answers = f.n_requests = f.n_connections = 0;
	f.age_ms = 0;
	folder_drop();
	return 0;
}

const char *fake_socket(void)
{
	return socket_path;
}

const char *fake_path(const char *name)
{
	static char path[4][128];
	static unsigned turn;

	turn++;
	snprintf(path[turn % 4], sizeof(path[0]), "%s/%s", root, name);
	return path[turn % 4];
}

const char *fake_file(const char *name, const char *text)
{
	const char *path = fake_path(name);

	assert_int_equal(file_write_atomic(path, text, strlen(text), 0600, (gid_t)-1, NULL), 0);
	return path;
}

/* ---- what came ---- */

size_t fake_count(void)
{
	size_t n;

	pthread_mutex_lock(&f.lock);
	n = f.n_requests;
	pthread_mutex_unlock(&f.lock);
	return n;
}

const struct fake_request *fake_request(size_t i)
{
	assert_true(i < fake_count());
	return &f.requests[i];
}

size_t fake_count_of(const char *method, const char *target)
{
	size_t n = 0, all = fake_count();

	for (size_t i = 0; i < all; i++)
		n += strcmp(f.requests[i].method, method) == 0 && strcmp(f.requests[i].target, target) == 0;
	return n;
}

const struct fake_request *fake_find(const char *method, const char *target)
{
	size_t all = fake_count();

	for (size_t i = 0; i < all; i++)
		if (strcmp(f.requests[i].method, method) == 0 && strcmp(f.requests[i].target, target) == 0)
			return &f.requests[i];
	fail_msg("there was no %s %s", method, target);
	return NULL;
}

void fake_wait(const char *method, const char *target, size_t n)
{
	int64_t until = clock_now_ns() + WAIT_NS;

	while (fake_count_of(method, target) < n && clock_now_ns() < until)
		nanosleep(&(struct timespec){.tv_nsec = NS_PER_MS}, NULL);
}

/* ---- running ---- */

void fake_run(struct fake_run *r, const char *const *words)
{
	char *argv[WORDS_MAX] = {"godwit"};
	size_t n_out = 0, n_err = 0;
	int argc = 1;

	setenv("GODWIT_SOCKET", socket_path, 1);
	for (; words[argc - 1]; argc++) {
		assert_true(argc + 1 < WORDS_MAX);
		argv[argc] = (char *)words[argc - 1];
	}
	*r = (struct fake_run){0};
	fake_io.out = open_memstream(&r->out, &n_out);
	fake_io.err = open_memstream(&r->err, &n_err);
	r->status = cli_main(argc, argv, &fake_io);
	fclose(fake_io.out);
	fclose(fake_io.err);
}

void fake_run_line(struct fake_run *r, const char *line)
{
	_free_ char *copy = xstrdup(line);
	const char *words[WORDS_MAX] = {NULL};
	char *rest = copy;
	size_t n = 0;

	for (char *word; (word = strsep(&rest, " "));)
		words[n++] = word;
	fake_run(r, words);
}

void fake_run_done(struct fake_run *r)
{
	free(r->out);
	free(r->err);
	*r = (struct fake_run){0};
}

void fake_assert_json(const char *text, const char *expected)
{
	json_t *a = json_loads(text, JSON_DECODE_ANY, NULL), *b = json_loads(expected, JSON_DECODE_ANY, NULL);

	assert_non_null(b);
	if (!a || !json_equal(a, b))
		fail_msg("%s\nis not\n%s", text, expected);
	json_decref(a);
	json_decref(b);
}
