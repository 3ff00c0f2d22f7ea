/* SPDX-License-Identifier: Apache-2.0 */
/* Connections between engines: who is let in, what is said to whom is not, control messages whole and spoilt, files. */
#include "migrate/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/byteorder.h"
#include "base/clock.h"
#include "base/mem.h"
#include "tests/unit/base/certs.h"

#define IN_S(s) (clock_now_ns() + (s)*NS_PER_S)
#define IN_MS(ms) (clock_now_ns() + (ms)*NS_PER_MS)

static char root[] = "/tmp/godwit-conn-test.XXXXXX";
static struct conn_secret plain, server, client, stranger;
static const struct wire_hello hello = {
	.role = WIRE_ROLE_DATA, .channel = 1, .channels = 3, .session = "session of 15 b"};

/* ---- two ends ---- */

/* The receiver's half of one connection, in a thread of its own. */
struct acceptor {
	const struct conn_secret *secret;
	int listen_fd;
	int64_t patience_ns;
	struct sock_addr addr;
	pthread_t thread;
	struct conn conn;
	struct wire_hello hello;
	struct err e;
	int result;
};

static void *acceptor_run(void *arg)
{
	struct acceptor *a = arg;
	int fd = sock_accept(a->listen_fd, IN_S(10), &a->e);

	a->result =
		fd < 0 ? -1 : conn_accept(&a->conn, fd, a->secret, clock_now_ns() + a->patience_ns, &a->hello, &a->e);
	return NULL;
}

static void acceptor_start(struct acceptor *a, const struct conn_secret *secret, int64_t patience_ns)
{
	*a = (struct acceptor){.secret = secret, .patience_ns = patience_ns, .conn = CONN_INIT};
	assert_int_equal(sock_addr_parse("127.0.0.1:0", &a->addr, NULL), 0);
	a->listen_fd = sock_tcp_listen(&a->addr, 4, &a->e);
	assert_true(a->listen_fd >= 0);
	snprintf(a->addr.port, sizeof(a->addr.port), "%d", sock_tcp_port(a->listen_fd));
	pthread_create(&a->thread, NULL, acceptor_run, a);
}

static void acceptor_end(struct acceptor *a)
{
	pthread_join(a->thread, NULL);
	conn_abort(&a->conn);
	close(a->listen_fd);
}

/* Connect with one secret to a receiver with another. The sender's error, then the receiver's. */
static void refuse(const struct conn_secret *ours, const struct conn_secret *theirs, struct err *e, struct err *their_e)
{
	struct acceptor a;
	struct conn c;

	*e = ERR_INIT;
	acceptor_start(&a, theirs, NS_PER_S / 2);
	if (conn_connect(&c, &a.addr, ours, &hello, IN_S(5), e) == 0) {
		/* The hello is out; what the receiver thinks of it comes back instead of an answer. */
		assert_int_equal(conn_expect(&c, WIRE_READY, NULL, IN_S(5), e), -1);
		conn_abort(&c);
	}
	assert_int_equal(c.fd, -1);
	pthread_join(a.thread, NULL);
	assert_int_equal(a.result, -1);
	assert_int_equal(a.conn.fd, -1);
	*their_e = a.e;
	close(a.listen_fd);
}

/* A pair of connections without hello. */
static void pair(struct conn *a, struct conn *b)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	*a = *b = CONN_INIT;
	a->fd = fds[0];
	b->fd = fds[1];
}

/* ---- hello ---- */

static void meet(const struct conn_secret *ours, const struct conn_secret *theirs)
{
	struct err e = ERR_INIT;
	json_t *in = NULL, *out = json_pack("{s:i, s:s}", "answer", 42, "text", "grüß");
	struct acceptor a;
	struct conn c;

	acceptor_start(&a, theirs, 5 * NS_PER_S);
	if (conn_connect(&c, &a.addr, ours, &hello, IN_S(5), &e) < 0)
		fail_msg("%s", e.text);
	pthread_join(a.thread, NULL);
	assert_int_equal(a.result, 0);
	assert_int_equal(a.hello.role, WIRE_ROLE_DATA);
	assert_int_equal(a.hello.channel, 1);
	assert_int_equal(a.hello.channels, 3);
	assert_memory_equal(a.hello.session, hello.session, WIRE_SESSION_SIZE);
	assert_int_equal(c.tls != NULL, ours->tls != NULL);

	assert_int_equal(conn_wait(&c, IN_MS(10), &e), 0);
	assert_int_equal(conn_send_json(&a.conn, WIRE_READY, 0, out, IN_S(5), &e), 0);
	assert_int_equal(conn_wait(&c, IN_S(5), &e), 1);
	assert_int_equal(conn_expect(&c, WIRE_READY, &in, IN_S(5), &e), 0);
	assert_true(json_equal(in, out));
	assert_int_equal(conn_send(&c, WIRE_GO, 0, NULL, 0, IN_S(5), &e), 0);
	assert_int_equal(conn_expect(&a.conn, WIRE_GO, NULL, IN_S(5), &e), 0);
	json_decref(in);
	json_decref(out);
	conn_close(&c);
	conn_close(&c);
	assert_int_equal(conn_expect(&a.conn, WIRE_GO, NULL, IN_S(5), &e), -1);
	assert_non_null(strstr(e.text, "closed by the other side"));
	conn_abort(&a.conn);
	close(a.listen_fd);
}

static void two_engines_meet_in_plaintext(void **state)
{
	(void)state;
	meet(&plain, &plain);
}

static void two_engines_meet_under_tls(void **state)
{
	(void)state;
	meet(&client, &server);
}

static void a_wrong_token_is_told_to_both_sides(void **state)
{
	const struct conn_secret *const rights[] = {&plain, &server};

	(void)state;
	for (unsigned tls = 0; tls < 2; tls++) {
		struct conn_secret wrong = tls ? client : plain;
		struct err e, theirs;

		wrong.token[5] ^= 0x80;
		refuse(&wrong, rights[tls], &e, &theirs);
		assert_int_equal(e.code, ERR_AUTH);
		assert_non_null(strstr(e.text, "the other side says: "));
		assert_non_null(strstr(e.text, "--token-file"));
		assert_int_equal(theirs.code, ERR_AUTH);
	}
}

static void a_certificate_of_another_ca_is_refused(void **state)
{
	struct err e, theirs;

	(void)state;
	refuse(&stranger, &server, &e, &theirs);
	assert_int_equal(e.code, ERR_AUTH);
	assert_non_null(strstr(e.text, "certificate"));
}

static void tls_on_one_side_only_is_named(void **state)
{
	struct err e, theirs;

	(void)state;
	refuse(&client, &plain, &e, &theirs);
	assert_non_null(strstr(e.text, "does not speak TLS: use TLS on both sides or on none"));
	assert_non_null(strstr(theirs.text, "the other side uses TLS"));
	refuse(&plain, &server, &e, &theirs);
	assert_non_null(strstr(e.text, "the other side uses TLS and this one does not"));
}

static void nobody_listening_names_host_and_port(void **state)
{
	struct sock_addr addr;
	struct err e = ERR_INIT;
	struct conn c;
	char port[64];
	int fd;

	(void)state;
	assert_int_equal(sock_addr_parse("127.0.0.1:0", &addr, NULL), 0);
	fd = sock_tcp_listen(&addr, 1, NULL);
	snprintf(addr.port, sizeof(addr.port), "%d", sock_tcp_port(fd));
	close(fd);
	assert_int_equal(conn_connect(&c, &addr, &plain, &hello, IN_S(5), &e), -1);
	snprintf(port, sizeof(port), "%s", addr.port);
	assert_non_null(strstr(e.text, "127.0.0.1"));
	assert_non_null(strstr(e.text, port));
}

/* Something that listens, says @text to whoever comes, and waits until they go. */
struct foreign {
	struct acceptor a;
	const char *text;
	size_t n;
};

static void *foreign_run(void *arg)
{
	struct foreign *f = arg;
	int fd = sock_accept(f->a.listen_fd, IN_S(10), NULL);
	char drop[256];

	sock_write_full(fd, f->text, f->n, IN_S(5), NULL);
	if (f->n > WIRE_GREETING_SIZE / 2)
		while (read(fd, drop, sizeof(drop)) > 0)
			;
	else
		sock_wait(fd, POLLIN, IN_S(2), NULL);
	close(fd);
	return NULL;
}

static void meet_foreign(const char *text, size_t n, int64_t patience_ns, struct err *e)
{
	struct foreign f = {.text = text, .n = n};
	struct conn c;

	*e = ERR_INIT;
	assert_int_equal(sock_addr_parse("127.0.0.1:0", &f.a.addr, NULL), 0);
	f.a.listen_fd = sock_tcp_listen(&f.a.addr, 4, NULL);
	snprintf(f.a.addr.port, sizeof(f.a.addr.port), "%d", sock_tcp_port(f.a.listen_fd));
	pthread_create(&f.a.thread, NULL, foreign_run, &f);
	assert_int_equal(conn_connect(&c, &f.a.addr, &plain, &hello, clock_now_ns() + patience_ns, e), -1);
	assert_int_equal(c.fd, -1);
	pthread_join(f.a.thread, NULL);
	close(f.a.listen_fd);
}

static void another_version_is_named(void **state)
{
	char greeting[WIRE_GREETING_SIZE] = "GDWTd\n\0\2";
	struct err e;

	(void)state;
	meet_foreign(greeting, sizeof(greeting), 5 * NS_PER_S, &e);
	assert_int_equal(e.code, ERR_PROTOCOL);
	assert_non_null(strstr(e.text, "wire version 2 and this one 1: install the same version"));
}

static void a_foreign_program_is_named(void **state)
{
	static const char banner[] = "220 mail.example ESMTP ready and waiting for you\r\n";
	struct err e;

	(void)state;
	meet_foreign(banner, sizeof(banner), 5 * NS_PER_S, &e);
	assert_non_null(strstr(e.text, "not a godwit-migrate receiver"));
}

static void a_silent_peer_is_waited_for_as_long_as_told(void **state)
{
	int64_t start = clock_now_ns();
	struct err e;

	(void)state;
	meet_foreign("", 0, NS_PER_S / 5, &e);
	assert_int_equal(e.code, ERR_TIMEOUT);
	assert_non_null(strstr(e.text, "waiting for the receiver's greeting"));
	assert_in_range(clock_now_ns() - start, NS_PER_S / 5, 5 * NS_PER_S);
}

static void a_silent_sender_is_waited_for_as_long_as_told(void **state)
{
	struct acceptor a;
	struct err e = ERR_INIT;
	int fd;

	(void)state;
	acceptor_start(&a, &plain, NS_PER_S / 5);
	fd = sock_tcp_connect(&a.addr, IN_S(5), &e);
	assert_true(fd >= 0);
	pthread_join(a.thread, NULL);
	assert_int_equal(a.result, -1);
	assert_int_equal(a.e.code, ERR_TIMEOUT);
	assert_non_null(strstr(a.e.text, "waiting for the sender's hello"));
	close(fd);
	close(a.listen_fd);
}

static void a_hello_cannot_be_used_twice(void **state)
{
	uint8_t greeting[WIRE_GREETING_SIZE], nonce[WIRE_NONCE_SIZE], out[WIRE_HELLO_SIZE];
	struct acceptor a;
	int fd;

	(void)state;
	/* Record the hello of an honest sender... */
	acceptor_start(&a, &plain, 5 * NS_PER_S);
	fd = sock_tcp_connect(&a.addr, IN_S(5), NULL);
	assert_int_equal(sock_read_full(fd, greeting, sizeof(greeting), IN_S(5), NULL), 0);
	assert_int_equal(wire_decode_greeting(greeting, nonce, NULL), 0);
	wire_encode_hello(out, &hello, plain.token, nonce);
	sock_write_full(fd, out, sizeof(out), IN_S(5), NULL);
	acceptor_end(&a);
	assert_int_equal(a.result, 0);
	close(fd);
	/* ... and say it again: the nonce is another one. */
	acceptor_start(&a, &plain, 5 * NS_PER_S);
	fd = sock_tcp_connect(&a.addr, IN_S(5), NULL);
	sock_write_full(fd, out, sizeof(out), IN_S(5), NULL);
	acceptor_end(&a);
	assert_int_equal(a.result, -1);
	assert_int_equal(a.e.code, ERR_AUTH);
	close(fd);
}

/* ---- control messages ---- */

static void a_failure_arrives_as_the_other_sides_words(void **state)
{
	static const struct {
		enum err_code said, heard;
	} codes[] = {
		{ERR_CANCELLED, ERR_CANCELLED},     {ERR_NOCONVERGE, ERR_NOCONVERGE}, {ERR_AUTH, ERR_AUTH},
		{ERR_UNSUPPORTED, ERR_UNSUPPORTED}, {ERR_SYSTEM, ERR_PEER},           {ERR_QMP, ERR_PEER},
		{ERR_PROTOCOL, ERR_PEER},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		struct err why = ERR_INIT, e = ERR_INIT;
		struct conn a, b;
		struct frame f;

		pair(&a, &b);
		err_set(&why, codes[i].said, "the reason");
		conn_send_fail(&a, &why);
		assert_int_equal(conn_recv(&b, &f, IN_S(5), &e), -1);
		assert_int_equal(e.code, codes[i].heard);
		assert_string_equal(e.text, "the other side says: the reason");
		conn_abort(&a);
		conn_abort(&b);
	}
}

static void telling_a_connection_that_is_gone_is_harmless(void **state)
{
	struct err why = ERR_INIT;
	struct conn c = CONN_INIT;

	(void)state;
	err_set(&why, ERR_SYSTEM, "anything");
	conn_send_fail(&c, &why);
	conn_close(&c);
	conn_abort(&c);
}

static void a_message_that_is_too_large_is_not_sent(void **state)
{
	_free_ char *data = xcalloc(1, WIRE_DATA_MAX + 1);
	struct err e = ERR_INIT;
	struct conn a, b;

	(void)state;
	pair(&a, &b);
	assert_int_equal(conn_send(&a, WIRE_INFO, 0, data, WIRE_DATA_MAX + 1, IN_S(1), &e), -1);
	assert_int_equal(e.code, ERR_PROTOCOL);
	assert_int_equal(conn_wait(&b, IN_MS(10), NULL), 0);
	conn_abort(&a);
	conn_abort(&b);
}

/* One frame as it is on the wire, spoilt or not; @length and @type as claimed in the header. */
struct message {
	const char *what;
	uint8_t type, flags;
	const char *data;
	uint32_t length;
	bool damage; /* change a byte of the data after the sum was made */
	size_t cut;  /* leave so many bytes away and close */
	const char *words;
};

static const struct message messages[] = {
	{"an array", WIRE_INFO, WIRE_FLAG_SUM, "[1]", 3, false, 0, "not a JSON object"},
	{"half an object", WIRE_INFO, WIRE_FLAG_SUM, "{\"a\":", 5, false, 0, "not a JSON object"},
	{"a key twice", WIRE_INFO, WIRE_FLAG_SUM, "{\"a\":1,\"a\":2}", 13, false, 0, "not a JSON object"},
	{"no UTF-8", WIRE_INFO, WIRE_FLAG_SUM, "{\"a\":\"\xff\"}", 9, false, 0, "not a JSON object"},
	{"a number beyond 64 bits", WIRE_INFO, WIRE_FLAG_SUM, "{\"a\":99999999999999999999}", 26, false, 0, "JSON"},
	{"a changed byte", WIRE_READY, WIRE_FLAG_SUM, "{\"a\":1}", 7, true, 0, "damaged on the way"},
	{"a cut in the data", WIRE_READY, WIRE_FLAG_SUM, "{\"a\":1}", 7, false, 3, "closed by the other side"},
	{"a cut in the header", WIRE_READY, WIRE_FLAG_SUM, "{}", 2, false, 20, "closed by the other side"},
	{"pages on the control connection", WIRE_END, 0, "", 0, false, 0, "end frame on the control connection"},
	{"a file's header on a socket", WIRE_FILE_HEAD, WIRE_FLAG_SUM, "{}", 2, false, 0, "control connection"},
	{"a failure without words", WIRE_FAIL, WIRE_FLAG_SUM, "{}", 2, false, 0, "failed, without a reason"},
	{"another message than was due", WIRE_GO, 0, "", 0, false, 0, "\"go\" where \"running\" was due"},
};

static void spoilt_messages_are_refused_with_a_reason(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
		const struct message *m = &messages[i];
		struct wire_header h = {.type = m->type, .flags = m->flags, .length = m->length};
		uint8_t raw[WIRE_HEADER_SIZE + 64];
		struct err e = ERR_INIT;
		struct conn a, b;

		pair(&a, &b);
		h.sum = wire_sum(m->data, m->length);
		wire_encode_header(raw, &h, NULL);
		memcpy(raw + WIRE_HEADER_SIZE, m->data, m->length);
		raw[WIRE_HEADER_SIZE] ^= m->damage ? 1 : 0;
		sock_write_full(a.fd, raw, WIRE_HEADER_SIZE + m->length - m->cut, IN_S(1), NULL);
		if (m->cut)
			conn_abort(&a);
		assert_int_equal(conn_expect(&b, WIRE_RUNNING, NULL, IN_S(5), &e), -1);
		if (!strstr(e.text, m->words))
			fail_msg("%s: \"%s\"", m->what, e.text);
		conn_abort(&a);
		conn_abort(&b);
	}
}

/* Found by the fuzzer: its index was looked for where there is none. */
static void pages_with_an_index_on_the_control_connection_are_refused(void **state)
{
	struct wire_header h = {.type = WIRE_ZEROS, .runs = 2};
	uint8_t raw[WIRE_HEADER_SIZE + 2 * WIRE_RUN_SIZE] = {0};
	struct err e = ERR_INIT;
	struct conn a, b;
	struct frame f;

	(void)state;
	pair(&a, &b);
	wire_encode_header(raw, &h, raw + WIRE_HEADER_SIZE);
	sock_write_full(a.fd, raw, sizeof(raw), IN_S(1), NULL);
	assert_int_equal(conn_recv(&b, &f, IN_S(5), &e), -1);
	assert_non_null(strstr(e.text, "zeros frame on the control connection"));
	conn_abort(&a);
	conn_abort(&b);
}

static void an_oversized_message_is_refused_before_it_is_read(void **state)
{
	struct wire_header h = {.type = WIRE_INFO};
	uint8_t raw[WIRE_HEADER_SIZE];
	struct err e = ERR_INIT;
	struct conn a, b;
	struct frame f;

	(void)state;
	pair(&a, &b);
	wire_encode_header(raw, &h, NULL);
	put_be32(raw + 8, UINT32_MAX);
	sock_write_full(a.fd, raw, sizeof(raw), IN_S(1), NULL);
	assert_int_equal(conn_recv(&b, &f, IN_S(5), &e), -1);
	assert_non_null(strstr(e.text, "larger than"));
	conn_abort(&a);
	conn_abort(&b);
}

static void a_message_that_does_not_come_times_out(void **state)
{
	struct err e = ERR_INIT;
	struct conn a, b;

	(void)state;
	pair(&a, &b);
	assert_int_equal(conn_expect(&b, WIRE_READY, NULL, IN_MS(50), &e), -1);
	assert_int_equal(e.code, ERR_TIMEOUT);
	conn_abort(&a);
	conn_abort(&b);
}

/* ---- files ---- */

static int file_fd(int flags)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/guest", root);
	fd = open(path, flags | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	return fd;
}

/* A file of a header and a trailer. */
static void file_write(void)
{
	uint8_t digest[CONN_DIGEST_SIZE];
	json_t *o = json_pack("{s:s}", "guest", "web1");
	struct err e = ERR_INIT;
	struct conn c;

	assert_int_equal(conn_open_file(&c, file_fd(O_WRONLY | O_CREAT | O_TRUNC), true, &e), 0);
	assert_int_equal(conn_send_json(&c, WIRE_FILE_HEAD, 0, o, SOCK_FOREVER, &e), 0);
	conn_file_digest(&c, digest);
	assert_int_equal(conn_send(&c, WIRE_FILE_TAIL, 0, digest, sizeof(digest), SOCK_FOREVER, &e), 0);
	conn_close(&c);
	json_decref(o);
}

/* Read the file to its end and verify it. */
static int file_read(struct err *e)
{
	uint8_t header[WIRE_HEADER_SIZE];
	json_t *o = NULL;
	struct conn c;
	int r;

	*e = ERR_INIT;
	assert_int_equal(conn_open_file(&c, file_fd(O_RDONLY), false, e), 0);
	r = conn_expect(&c, WIRE_FILE_HEAD, &o, SOCK_FOREVER, e);
	if (r == 0)
		r = conn_read_full(&c, header, sizeof(header), SOCK_FOREVER, e);
	if (r == 0)
		r = conn_file_verify(&c, e);
	json_decref(o);
	conn_close(&c);
	return r;
}

static void a_file_is_verified_by_its_digest(void **state)
{
	struct err e;
	uint8_t byte;
	off_t size;
	int fd;

	(void)state;
	file_write();
	assert_int_equal(file_read(&e), 0);
	fd = file_fd(O_RDWR);
	size = lseek(fd, 0, SEEK_END);
	/* Any byte up to the trailer's header, and any of the digest. */
	for (off_t at = 0; at < size; at++) {
		if (at >= size - (off_t)CONN_DIGEST_SIZE - (off_t)WIRE_HEADER_SIZE &&
		    at < size - (off_t)CONN_DIGEST_SIZE)
			continue;
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 4;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		if (file_read(&e) == 0)
			fail_msg("byte %lld may be changed", (long long)at);
		byte ^= 4;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	}
	assert_int_equal(file_read(&e), 0);
	assert_int_equal(pwrite(fd, &byte, 1, size), 1);
	assert_int_equal(file_read(&e), -1);
	assert_non_null(strstr(e.text, "bytes behind its end"));
	for (off_t n = 0; n < size; n += 7) {
		assert_int_equal(ftruncate(fd, n), 0);
		assert_int_equal(file_read(&e), -1);
		assert_int_equal(e.code, ERR_INPUT);
		file_write();
	}
	close(fd);
}

static void a_full_disk_is_an_error_of_the_file(void **state)
{
	struct err e = ERR_INIT;
	struct conn c;

	(void)state;
	assert_int_equal(conn_open_file(&c, open("/dev/full", O_WRONLY | O_CLOEXEC), true, &e), 0);
	assert_int_equal(conn_send(&c, WIRE_FILE_HEAD, 0, "{}", 2, SOCK_FOREVER, &e), -1);
	assert_int_equal(e.code, ERR_SYSTEM);
	assert_int_equal(e.errnum, ENOSPC);
	conn_close(&c);
}

/* ---- */

static struct tls_ctx *make_set(const char *name, const struct certs_ca *ca)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", root, name);
	certs_write(path, ca, ca, "127.0.0.1", 0);
	return tls_ctx_load(path, NULL);
}

static int setup(void **state)
{
	struct certs_ca ours, other;

	(void)state;
	if (!mkdtemp(root))
		return -1;
	certs_ca_init(&ours, "our CA");
	certs_ca_init(&other, "other CA");
	memcpy(plain.token, "0123456789abcdef0123456789ABCDEF", WIRE_TOKEN_SIZE);
	server = client = stranger = plain;
	server.tls = make_set("server", &ours);
	client.tls = make_set("client", &ours);
	stranger.tls = make_set("stranger", &other);
	certs_ca_done(&ours);
	certs_ca_done(&other);
	return server.tls && client.tls && stranger.tls ? 0 : -1;
}

static int teardown(void **state)
{
	static const char *const sets[] = {"server", "client", "stranger"};
	static const char *const names[] = {"/ca.pem", "/cert.pem", "/key.pem", ""};
	char path[256];

	(void)state;
	tls_ctx_free(server.tls);
	tls_ctx_free(client.tls);
	tls_ctx_free(stranger.tls);
	for (size_t s = 0; s < ARRAY_SIZE(sets); s++)
		for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
			snprintf(path, sizeof(path), "%s/%s%s", root, sets[s], names[i]);
			if (remove(path) < 0)
				return -1;
		}
	snprintf(path, sizeof(path), "%s/guest", root);
	remove(path);
	return remove(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_engines_meet_in_plaintext),
		cmocka_unit_test(two_engines_meet_under_tls),
		cmocka_unit_test(a_wrong_token_is_told_to_both_sides),
		cmocka_unit_test(a_certificate_of_another_ca_is_refused),
		cmocka_unit_test(tls_on_one_side_only_is_named),
		cmocka_unit_test(nobody_listening_names_host_and_port),
		cmocka_unit_test(another_version_is_named),
		cmocka_unit_test(a_foreign_program_is_named),
		cmocka_unit_test(a_silent_peer_is_waited_for_as_long_as_told),
		cmocka_unit_test(a_silent_sender_is_waited_for_as_long_as_told),
		cmocka_unit_test(a_hello_cannot_be_used_twice),
		cmocka_unit_test(a_failure_arrives_as_the_other_sides_words),
		cmocka_unit_test(telling_a_connection_that_is_gone_is_harmless),
		cmocka_unit_test(a_message_that_is_too_large_is_not_sent),
		cmocka_unit_test(spoilt_messages_are_refused_with_a_reason),
		cmocka_unit_test(pages_with_an_index_on_the_control_connection_are_refused),
		cmocka_unit_test(an_oversized_message_is_refused_before_it_is_read),
		cmocka_unit_test(a_message_that_does_not_come_times_out),
		cmocka_unit_test(a_file_is_verified_by_its_digest),
		cmocka_unit_test(a_full_disk_is_an_error_of_the_file),
	};

	return cmocka_run_group_tests_name("conn", tests, setup, teardown);
}
