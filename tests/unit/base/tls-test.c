/* SPDX-License-Identifier: Apache-2.0 */
/* TLS: who is let in, who is not and in which words, and what happens to bytes on the way. */
#include "base/tls.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/sock.h"
#include "tests/unit/base/certs.h"

#define TEST_TIMEOUT (20 * NS_PER_S)

static char root[] = "/tmp/godwit-tls-test.XXXXXX";
static struct certs_ca our_ca, other_ca;

static const char *path_in_root(const char *name)
{
	static char path[2][256];
	static int turn;

	turn ^= 1;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", root, name);
	return path[turn];
}

static const struct {
	const char *name;
	const struct certs_ca *trusted, *signer;
	const char *names;
	int flaws;
} sets[] = {
	{"good", &our_ca, &our_ca, "alpha.example,10.1.2.3,fd00::7", 0},
	{"wild", &our_ca, &our_ca, "*.wild.example", 0},
	{"nameless", &our_ca, &our_ca, "", 0},
	{"expired", &our_ca, &our_ca, "alpha.example", CERTS_EXPIRED},
	{"future", &our_ca, &our_ca, "alpha.example", CERTS_FUTURE},
	{"server-only", &our_ca, &our_ca, "alpha.example", CERTS_SERVER_ONLY},
	{"client-only", &our_ca, &our_ca, "alpha.example", CERTS_CLIENT_ONLY},
	{"no-usage", &our_ca, &our_ca, "alpha.example", CERTS_NO_USAGE},
	{"alien", &other_ca, &other_ca, "alpha.example", 0},
	{"trusts-us", &our_ca, &other_ca, "alpha.example", 0},
	{"spoilt", &our_ca, &our_ca, "alpha.example", 0},
};

static int make_sets(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(root));
	certs_ca_init(&our_ca, "our CA");
	certs_ca_init(&other_ca, "other CA");
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
		certs_write(path_in_root(sets[i].name), sets[i].trusted, sets[i].signer, sets[i].names, sets[i].flaws);
	return 0;
}

static int drop_sets(void **state)
{
	static const char *const files[] = {"ca.pem", "cert.pem", "key.pem"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		for (size_t f = 0; f < ARRAY_SIZE(files); f++) {
			char path[256];

			snprintf(path, sizeof(path), "%s/%s/%s", root, sets[i].name, files[f]);
			unlink(path);
		}
		rmdir(path_in_root(sets[i].name));
	}
	rmdir(root);
	certs_ca_done(&our_ca);
	certs_ca_done(&other_ca);
	return 0;
}

/* ---- two ends of one connection, the server's handshake in a thread ---- */

struct pair {
	struct tls_ctx *ctx_server, *ctx_client;
	int fd_server, fd_client;
	struct tls *server, *client;
	int server_result, client_result;
	struct err server_err, client_err;
};

static int64_t soon(void)
{
	return clock_now_ns() + TEST_TIMEOUT;
}

/* A real TCP connection over loopback. */
static void tcp_pair(int fds[2])
{
	struct sock_addr addr;
	struct err e = ERR_INIT;
	int listener;

	assert_int_equal(sock_addr_parse("127.0.0.1:0", &addr, &e), 0);
	listener = sock_tcp_listen(&addr, 1, &e);
	assert_true(listener >= 0);
	snprintf(addr.port, sizeof(addr.port), "%d", sock_tcp_port(listener));
	fds[0] = sock_tcp_connect(&addr, soon(), &e);
	assert_true(fds[0] >= 0);
	fds[1] = sock_accept(listener, soon(), &e);
	assert_true(fds[1] >= 0);
	close(listener);
}

static struct tls_ctx *load(const char *set)
{
	struct err e = ERR_INIT;
	struct tls_ctx *ctx = tls_ctx_load(path_in_root(set), &e);

	if (!ctx)
		fail_msg("%s: %s", set, e.text);
	return ctx;
}

static void *server_main(void *arg)
{
	struct pair *p = arg;

	p->server_result = tls_accept(p->ctx_server, p->fd_server, soon(), &p->server, &p->server_err);
	if (p->server_result < 0) {
		close(p->fd_server);
		p->fd_server = -1;
	}
	return NULL;
}

/* Handshake between the sets, the client wanting @name, the server wanting @client_name (NULL: any). */
static void shake(struct pair *p, const char *server_set, const char *client_set, const char *name,
		  const char *client_name)
{
	pthread_t thread;
	int fds[2];

	memset(p, 0, sizeof(*p));
	tcp_pair(fds);
	p->fd_client = fds[0];
	p->fd_server = fds[1];
	p->ctx_server = load(server_set);
	p->ctx_client = load(client_set);
	tls_ctx_expect_client(p->ctx_server, client_name);
	assert_int_equal(pthread_create(&thread, NULL, server_main, p), 0);
	p->client_result = tls_connect(p->ctx_client, p->fd_client, name, soon(), &p->client, &p->client_err);
	if (p->client_result < 0) {
		close(p->fd_client);
		p->fd_client = -1;
	}
	pthread_join(thread, NULL);
}

static void shake_well(struct pair *p)
{
	shake(p, "good", "good", "alpha.example", NULL);
	if (p->client_result || p->server_result)
		fail_msg("client: %s, server: %s", p->client_err.text, p->server_err.text);
}

static void part(struct pair *p)
{
	tls_close(p->client);
	tls_close(p->server);
	tls_ctx_free(p->ctx_client);
	tls_ctx_free(p->ctx_server);
	mem_closep(&p->fd_client);
	mem_closep(&p->fd_server);
}

static void assert_says(const struct err *e, enum err_code code, const char *words)
{
	if (e->code != code || !strstr(e->text, words))
		fail_msg("wanted %s \"%s\", got %s \"%s\"", err_code_name(code), words, err_code_name(e->code),
			 e->text);
}

/* ---- who is let in ---- */

static void both_sides_prove_who_they_are(void **state)
{
	struct pair p;

	(void)state;
	shake_well(&p);
	assert_string_equal(tls_peer_name(p.client), "alpha.example");
	assert_string_equal(tls_peer_name(p.server), "alpha.example");
	assert_string_equal(tls_cipher_name(p.client), "TLS_AES_128_GCM_SHA256");
	part(&p);
}

static void a_server_is_known_by_any_of_its_names_and_addresses(void **state)
{
	static const struct {
		const char *set, *name;
	} cases[] = {
		{"good", "10.1.2.3"}, {"good", "fd00::7"}, {"good", "ALPHA.example"}, {"wild", "beta.wild.example"}};
	struct pair p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		shake(&p, cases[i].set, "good", cases[i].name, NULL);
		assert_int_equal(p.client_result, 0);
		assert_int_equal(p.server_result, 0);
		part(&p);
	}
}

/* Each row: who meets whom, and what both say about it. */
static void a_wrong_certificate_is_refused_on_both_sides_with_the_reason(void **state)
{
	static const struct {
		const char *server, *client, *name, *client_name;
		const char *client_says, *server_says;
	} rows[] = {
		{"good", "good", "beta.example", NULL,
		 "is for alpha.example, 10.1.2.3, fd00::7, but the host connected", "refused our certificate"},
		{"good", "good", "10.1.2.4", NULL, "\"10.1.2.4\"", "names another host"},
		{"nameless", "good", "the CN does not count", NULL, "is for no host", "refused our certificate"},
		{"alien", "good", "alpha.example", NULL,
		 "the server's certificate \"alpha.example\" is signed by an "
		 "unknown CA",
		 "its CA is unknown there"},
		{"good", "alien", "alpha.example", NULL, "signed by an unknown CA", "its CA is unknown there"},
		{"client-only", "good", "alpha.example", NULL, "lacks serverAuth", "extended key usage"},
		{"good", "server-only", "alpha.example", NULL, "extended key usage", "lacks clientAuth"},
		{"no-usage", "good", "alpha.example", NULL, "lacks serverAuth", "extended key usage"},
		{"good", "no-usage", "alpha.example", NULL, "extended key usage", "lacks clientAuth"},
		{"good", "good", "alpha.example", "gamma.example", "names another host",
		 "the client expected is \"gamma"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct pair p;

		shake(&p, rows[i].server, rows[i].client, rows[i].name, rows[i].client_name);
		assert_int_equal(p.client_result, -1);
		assert_int_equal(p.server_result, -1);
		assert_says(&p.client_err, ERR_AUTH, rows[i].client_says);
		assert_says(&p.server_err, ERR_AUTH, rows[i].server_says);
		part(&p);
	}
}

static void a_certificate_out_of_its_time_is_refused_with_the_date(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_null(tls_ctx_load(path_in_root("expired"), &e));
	assert_says(&e, ERR_INPUT, "cert.pem: the certificate expired on 20");
	assert_null(tls_ctx_load(path_in_root("future"), &e));
	assert_says(&e, ERR_INPUT, "cert.pem: the certificate is not valid before 20");
}

static void a_client_of_another_ca_that_trusts_ours_is_stopped_at_its_own_files(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_null(tls_ctx_load(path_in_root("trusts-us"), &e));
	assert_says(&e, ERR_INPUT, "does not vouch for this certificate");
}

/* ---- our own files ---- */

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void assert_load_says(const char *words)
{
	struct err e = ERR_INIT;

	assert_null(tls_ctx_load(path_in_root("spoilt"), &e));
	if (!strstr(e.text, words))
		fail_msg("wanted \"%s\", got \"%s\"", words, e.text);
}

static void every_spoilt_file_is_named_with_the_reason(void **state)
{
	const char *spoilt = "spoilt";
	char key[256], cert[256], ca[256];

	(void)state;
	snprintf(key, sizeof(key), "%s/%s/key.pem", root, spoilt);
	snprintf(cert, sizeof(cert), "%s/%s/cert.pem", root, spoilt);
	snprintf(ca, sizeof(ca), "%s/%s/ca.pem", root, spoilt);

	chmod(key, 0644);
	assert_load_says("key.pem: the private key is open to others (mode 0644)");
	chmod(key, 0620);
	assert_load_says("mode 0620");
	chmod(key, 0600);
	write_file(key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
			"MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjtP8gDKRIkJgICCAAw\n"
			"-----END ENCRYPTED PRIVATE KEY-----\n");
	assert_load_says("key.pem: ");
	write_file(key, "nothing here\n");
	assert_load_says("key.pem: holds no private key");
	unlink(key);
	assert_load_says("key.pem: No such file");

	certs_write(path_in_root(spoilt), &our_ca, &our_ca, "a", 0);
	rename(key, path_in_root("kept"));
	certs_write(path_in_root(spoilt), &our_ca, &our_ca, "a", 0);
	rename(path_in_root("kept"), key);
	assert_load_says("key.pem: the private key does not belong to");

	write_file(cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
	assert_load_says("cert.pem: damaged certificate");
	write_file(cert, "");
	assert_load_says("cert.pem: holds no certificate");
	write_file(ca, "hello");
	assert_load_says("ca.pem: holds no certificate");
	unlink(ca);
	assert_load_says("ca.pem: No such file");
}

static void a_key_that_the_group_may_read_is_accepted(void **state)
{
	char key[256];
	struct tls_ctx *ctx;

	(void)state;
	certs_write(path_in_root("spoilt"), &our_ca, &our_ca, "a", 0);
	snprintf(key, sizeof(key), "%s/spoilt/key.pem", root);
	chmod(key, 0640);
	ctx = load("spoilt");
	tls_ctx_free(ctx);
}

/* ---- bytes ---- */

struct transfer {
	struct tls *to;
	size_t n;
	int result;
	struct err e;
	uint8_t *bytes;
};

static void *write_main(void *arg)
{
	struct transfer *x = arg;

	x->result = tls_write_full(x->to, x->bytes, x->n, soon(), &x->e);
	return NULL;
}

static void fill(uint8_t *p, size_t n)
{
	uint32_t x = 1;

	for (size_t i = 0; i < n; i++) {
		x = x * 1664525U + 1013904223U;
		p[i] = (uint8_t)(x >> 24);
	}
}

/* Send @n bytes from client to server, read in pieces of at most @piece, and compare. */
static void carry(struct pair *p, size_t n, size_t piece)
{
	struct transfer x = {.to = p->client, .n = n, .bytes = malloc(n)};
	uint8_t *got = malloc(n);
	size_t done = 0;
	struct err e = ERR_INIT;
	pthread_t thread;

	fill(x.bytes, n);
	assert_int_equal(pthread_create(&thread, NULL, write_main, &x), 0);
	while (done < n) {
		ssize_t r = tls_read_some(p->server, got + done, n - done < piece ? n - done : piece, soon(), &e);

		if (r <= 0)
			fail_msg("read: %s", e.text);
		done += (size_t)r;
	}
	pthread_join(thread, NULL);
	assert_int_equal(x.result, 0);
	assert_memory_equal(x.bytes, got, n);
	free(got);
	free(x.bytes);
}

static void bytes_of_every_size_arrive_as_they_were(void **state)
{
	static const size_t sizes[] = {1, 2, 4096, 16384, 16385, 131072, 131073, 5000000};
	struct pair p;

	(void)state;
	shake_well(&p);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		carry(&p, sizes[i], 1 << 20);
		carry(&p, sizes[i], 1000);
	}
	part(&p);
}

static void the_sending_key_changes_while_bytes_flow(void **state)
{
	struct pair p;

	(void)state;
	shake_well(&p);
	tls_set_rekey(p.client, 100000);
	carry(&p, 3000000, 4096);
	part(&p);
}

static void a_goodbye_is_an_end_and_a_cut_is_an_error(void **state)
{
	struct pair p;
	struct err e = ERR_INIT;
	char c;

	(void)state;
	shake_well(&p);
	tls_close(p.client);
	p.client = NULL;
	assert_true(tls_pending(p.server) || tls_wait(p.server, soon(), &e) == 1);
	assert_int_equal(tls_read_some(p.server, &c, 1, soon(), &e), 0);
	assert_int_equal(tls_read_full(p.server, &c, 1, soon(), &e), -1);
	assert_says(&e, ERR_PROTOCOL, "closed by the other side");
	part(&p);

	shake_well(&p);
	tls_abort(p.client);
	p.client = NULL;
	close(p.fd_client);
	p.fd_client = -1;
	assert_int_equal(tls_read_some(p.server, &c, 1, soon(), &e), -1);
	assert_says(&e, ERR_PROTOCOL, "cut");
	part(&p);
}

static void a_dead_connection_repeats_its_first_sentence(void **state)
{
	struct pair p;
	struct err e1 = ERR_INIT, e2 = ERR_INIT;
	char c = 0;

	(void)state;
	shake_well(&p);
	close(p.fd_client);
	p.fd_client = -1;
	assert_int_equal(tls_read_some(p.server, &c, 1, soon(), &e1), -1);
	assert_int_equal(tls_write_full(p.server, &c, 1, soon(), &e2), -1);
	assert_string_equal(e1.text, e2.text);
	assert_true(tls_pending(p.server));
	tls_abort(p.client);
	p.client = NULL;
	part(&p);
}

static void a_changed_record_is_noticed(void **state)
{
	/* Application data record of 32 bytes that no key of this connection made. */
	static const uint8_t forged[5 + 32] = {23, 3, 3, 0, 32, 1, 2, 3};
	struct pair p;
	struct err e = ERR_INIT;
	char c;

	(void)state;
	shake_well(&p);
	assert_int_equal(sock_write_full(p.fd_client, forged, sizeof(forged), soon(), &e), 0);
	assert_int_equal(tls_read_some(p.server, &c, 1, soon(), &e), -1);
	assert_says(&e, ERR_PROTOCOL, "changed on the way");
	part(&p);
}

static void a_silent_peer_times_out(void **state)
{
	struct pair p;
	struct err e = ERR_INIT;
	struct tls *t = NULL;
	struct tls_ctx *ctx = load("good");
	int64_t start = clock_now_ns();
	int fds[2];
	char c;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(tls_connect(ctx, fds[0], "alpha.example", start + 50 * NS_PER_MS, &t, &e), -1);
	assert_says(&e, ERR_TIMEOUT, "did not answer in time");
	assert_null(t);
	assert_true(clock_now_ns() - start >= 50 * NS_PER_MS);
	close(fds[0]);
	close(fds[1]);
	tls_ctx_free(ctx);

	shake_well(&p);
	assert_int_equal(tls_wait(p.client, clock_now_ns() + 20 * NS_PER_MS, &e), 0);
	carry(&p, 100, 100); /* a passed tls_wait() has broken nothing */
	assert_int_equal(tls_read_some(p.client, &c, 1, clock_now_ns() + 20 * NS_PER_MS, &e), -1);
	assert_says(&e, ERR_TIMEOUT, "did not answer in time");
	part(&p);
}

static void a_peer_that_does_not_read_times_out(void **state)
{
	struct pair p;
	struct err e = ERR_INIT;
	size_t n = 64U << 20;
	uint8_t *bytes = calloc(1, n);

	(void)state;
	shake_well(&p);
	assert_int_equal(tls_write_full(p.client, bytes, n, clock_now_ns() + 100 * NS_PER_MS, &e), -1);
	assert_says(&e, ERR_TIMEOUT, "did not read in time");
	free(bytes);
	part(&p);
}

static void a_peer_without_tls_gets_a_clear_sentence(void **state)
{
	static const char plain[] = "GODWIT/1 hello, I am plaintext, and long enough to look like a record\n";
	struct tls_ctx *ctx = load("good");
	struct err e = ERR_INIT;
	struct tls *t = NULL;
	int fds[2];

	(void)state;
	for (int server = 0; server < 2; server++) {
		int r;

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		assert_int_equal(sock_write_full(fds[1], plain, sizeof(plain), soon(), &e), 0);
		r = server ? tls_accept(ctx, fds[0], soon(), &t, &e)
			   : tls_connect(ctx, fds[0], "alpha.example", soon(), &t, &e);
		assert_int_equal(r, -1);
		assert_says(&e, ERR_PROTOCOL, "does not speak TLS");
		close(fds[0]);
		close(fds[1]);
	}
	tls_ctx_free(ctx);
}

static void pending_sees_bytes_that_poll_does_not(void **state)
{
	struct pair p;
	struct err e = ERR_INIT;
	char text[2] = "ab", c;
	struct pollfd pfd;

	(void)state;
	shake_well(&p);
	assert_false(tls_pending(p.server));
	assert_int_equal(tls_write_full(p.client, text, 1, soon(), &e), 0);
	assert_int_equal(tls_write_full(p.client, text + 1, 1, soon(), &e), 0);
	pfd = (struct pollfd){.fd = p.fd_server, .events = POLLIN};
	assert_int_equal(poll(&pfd, 1, 5000), 1);
	usleep(20000);
	assert_int_equal(tls_read_full(p.server, &c, 1, soon(), &e), 0);
	assert_int_equal(poll(&pfd, 1, 0), 0);
	assert_true(tls_pending(p.server));
	assert_int_equal(tls_read_full(p.server, &c, 1, soon(), &e), 0);
	assert_int_equal(c, 'b');
	assert_false(tls_pending(p.server));
	part(&p);
}

#define FIGURE_CHUNK (1U << 20)
#define FIGURE_CHUNKS 512U

static void *write_chunks_main(void *arg)
{
	struct transfer *x = arg;

	for (unsigned i = 0; i < FIGURE_CHUNKS && !x->result; i++)
		x->result = tls_write_full(x->to, x->bytes, x->n, soon(), &x->e);
	return NULL;
}

/* Prints a figure; asserts only that it all arrives. */
static void throughput_over_loopback_is_told(void **state)
{
	struct pair p;
	struct err e = ERR_INIT;
	struct transfer x;
	pthread_t thread;
	int64_t start;
	uint8_t *buf = malloc(FIGURE_CHUNK);

	(void)state;
	shake_well(&p);
	x = (struct transfer){.to = p.client, .n = FIGURE_CHUNK, .bytes = malloc(FIGURE_CHUNK)};
	fill(x.bytes, x.n);
	start = clock_now_ns();
	assert_int_equal(pthread_create(&thread, NULL, write_chunks_main, &x), 0);
	for (unsigned i = 0; i < FIGURE_CHUNKS; i++)
		assert_int_equal(tls_read_full(p.server, buf, FIGURE_CHUNK, soon(), &e), 0);
	pthread_join(thread, NULL);
	print_message("# %u MiB over loopback TCP with %s: %.0f MB/s\n", FIGURE_CHUNKS, tls_cipher_name(p.client),
		      (double)FIGURE_CHUNK * FIGURE_CHUNKS * 1e3 / (double)(clock_now_ns() - start));
	assert_int_equal(x.result, 0);
	assert_memory_equal(buf, x.bytes, FIGURE_CHUNK);
	free(x.bytes);
	free(buf);
	part(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_sides_prove_who_they_are),
		cmocka_unit_test(a_server_is_known_by_any_of_its_names_and_addresses),
		cmocka_unit_test(a_wrong_certificate_is_refused_on_both_sides_with_the_reason),
		cmocka_unit_test(a_certificate_out_of_its_time_is_refused_with_the_date),
		cmocka_unit_test(a_client_of_another_ca_that_trusts_ours_is_stopped_at_its_own_files),
		cmocka_unit_test(every_spoilt_file_is_named_with_the_reason),
		cmocka_unit_test(a_key_that_the_group_may_read_is_accepted),
		cmocka_unit_test(bytes_of_every_size_arrive_as_they_were),
		cmocka_unit_test(the_sending_key_changes_while_bytes_flow),
		cmocka_unit_test(a_goodbye_is_an_end_and_a_cut_is_an_error),
		cmocka_unit_test(a_dead_connection_repeats_its_first_sentence),
		cmocka_unit_test(a_changed_record_is_noticed),
		cmocka_unit_test(a_silent_peer_times_out),
		cmocka_unit_test(a_peer_that_does_not_read_times_out),
		cmocka_unit_test(a_peer_without_tls_gets_a_clear_sentence),
		cmocka_unit_test(pending_sees_bytes_that_poll_does_not),
		cmocka_unit_test(throughput_over_loopback_is_told),
	};

	return cmocka_run_group_tests_name("base/tls", tests, make_sets, drop_sets);
}
