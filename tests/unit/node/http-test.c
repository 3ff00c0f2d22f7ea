/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server: requests, their checks and their answers; who is let in over which way. */
#include "node/http.h"

#include <grp.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/http-message.h"
#include "base/mem.h"
#include "base/sock.h"
#include "tests/unit/node/server.h"

#define SOON (5 * NS_PER_S)

static int start(void **state)
{
	(void)state;
	server_start(NULL);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	server_stop();
	return 0;
}

/* One call; the caller frees the answer. */
static struct http_answer call(struct http_client *c, const char *method, const char *target, const char *body)
{
	json_t *json = body ? json_loads(body, 0, NULL) : NULL;
	struct http_answer a = {0};
	struct err e = ERR_INIT;

	if (http_client_call(c, method, target, json, NULL, clock_now_ns() + SOON, &a, &e) < 0)
		fail_msg("%s %s: %s", method, target, e.text);
	json_decref(json);
	return a;
}

static const char *message(const struct http_answer *a)
{
	const char *s = json_string_value(json_object_get(json_object_get(a->json, "error"), "message"));

	return s ? s : "";
}

static void expect(struct http_client *c, const char *method, const char *target, const char *body, int status,
		   const char *words)
{
	struct http_answer a = call(c, method, target, body);

	if (a.status != status || (status >= 400 && !strstr(message(&a), words)))
		fail_msg("%s %s: %d %s", method, target, a.status, a.text);
	if (status < 400 && !strstr(a.text, words))
		fail_msg("%s %s: %s", method, target, a.text);
	http_answer_done(&a);
}

/* What a raw request over the unix socket gets. Caller frees. */
static char *raw(const char *request, size_t size)
{
	int fd = server_connect_raw();
	char *answer;

	assert_int_equal(send(fd, request, size, MSG_NOSIGNAL), size);
	answer = server_read(fd, NULL, SOON);
	close(fd);
	return answer;
}

static void expect_raw(const char *request, const char *begin, const char *words)
{
	_free_ char *answer = raw(request, strlen(request));

	if (strncmp(answer, begin, strlen(begin)) != 0 || !strstr(answer, words))
		fail_msg("%s\n=> %s", request, answer);
}

/* ---- requests ---- */

static void a_body_and_parameters_reach_the_handler_and_come_back(void **state)
{
	struct http_client *c = server_client_local();

	(void)state;
	expect(c, "POST", "/things/a%2Fb%20c?x=1%262", "{\"size\": 3}", 200, "\"thing\":\"a/b c\",\"x\":\"1&2\"");
	expect(c, "POST", "/things/t", "{\"size\": 3}", 200, "\"body\":{\"size\":3}");
	expect(c, "POST", "/things/t", NULL, 200, "\"body\":{}");
	http_client_free(c);
}

static void what_does_not_fit_the_table_is_refused_with_the_reason(void **state)
{
	struct http_client *c = server_client_local();

	(void)state;
	expect(c, "GET", "/nowhere", NULL, 404, "there is nothing at /nowhere");
	expect(c, "GET", "/things/", NULL, 404, "there is nothing");
	expect(c, "GET", "/hello/", NULL, 404, "there is nothing");
	expect(c, "PUT", "/things/t", NULL, 405, "DELETE is");
	expect(c, "GET", "/unbound", NULL, 501, "not built into");
	expect(c, "GET", "/hello?y=1", NULL, 400, "no query parameter \"y\"");
	expect(c, "POST", "/things/t?n=-1", NULL, 400, "query parameter n: must be of type integer");
	expect(c, "GET", "/hello", "{}", 400, "takes no body");
	expect(c, "DELETE", "/things/t", NULL, 422, "the thing cannot do that");
	expect(c, "POST", "/things/%00", NULL, 400, "damaged %-code");
	http_client_free(c);
}

static void a_wrong_body_is_refused_by_field_and_reason(void **state)
{
	struct http_client *c = server_client_local();

	(void)state;
	expect(c, "POST", "/things/t", "{\"size\": 0}", 400, "size: must be at least 1");
	expect(c, "POST", "/things/t", "{\"size\": \"big\"}", 400, "size: must be an integer");
	expect(c, "POST", "/things/t", "{\"weight\": 1}", 400, "body: there is no field \"weight\"");
	expect(c, "POST", "/things/t", "{\"color\": \"green\"}", 400, "color: must be one of red, blue");
	expect(c, "POST", "/things/t", "{\"parts\": [{\"id\": 1}, {}]}", 400, "parts[1]: id is missing");
	expect(c, "POST", "/things/t", "[]", 400, "body: must be an object");
	http_client_free(c);
	expect_raw("POST /things/t HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\nConnection: "
		   "close\r\n\r\n"
		   "{\"size\" 1",
		   "HTTP/1.1 400 ", "body: line 1, column 9");
	expect_raw("POST /things/t HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
		   "HTTP/1.1 415 ", "must be JSON");
	expect_raw("POST /things/t HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 24\r\n"
		   "Connection: close\r\n\r\n{\"size\": 1, \"size\": 2   }",
		   "HTTP/1.1 400 ", "duplicate");
}

static void errors_name_their_object(void **state)
{
	struct http_client *c = server_client_local();
	struct http_answer a = call(c, "DELETE", "/things/web1", NULL);
	struct err e = ERR_INIT;

	(void)state;
	assert_string_equal(json_string_value(json_object_get(json_object_get(a.json, "error"), "object")), "web1");
	assert_int_equal(http_answer_error(&a, &e), -1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
	http_answer_done(&a);
	http_client_free(c);
}

static void a_chunked_body_is_read_whole(void **state)
{
	(void)state;
	expect_raw("POST /things/t HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
		   "Connection: close\r\n\r\n5;ext=1\r\n{\"siz\r\n00006\r\ne\": 7}\r\n0\r\nTrailer: x\r\n\r\n",
		   "HTTP/1.1 200 OK\r\n", "\"body\":{\"size\":7}");
}

static void a_request_may_come_byte_by_byte(void **state)
{
	const char *request =
		"POST /things/t HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
		"Connection: close\r\n\r\n3\r\n{ }\r\n0\r\n\r\n";
	int fd = server_connect_raw();
	_free_ char *answer = NULL;

	(void)state;
	for (const char *p = request; *p; p++) {
		assert_int_equal(send(fd, p, 1, MSG_NOSIGNAL), 1);
		usleep(200);
	}
	answer = server_read(fd, NULL, SOON);
	assert_non_null(strstr(answer, "\"body\":{}"));
	close(fd);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
	char request[4096] = "", *p;
	_free_ char *answer = NULL;

	(void)state;
	for (int i = 0; i < 20; i++)
		sprintf(request + strlen(request), "%s%s HTTP/1.1\r\n%s\r\n",
			i % 5 == 2 ? "GET /later?ms=5" : "POST /things/",
			i % 5 == 2 ? ""
			: i % 2    ? "odd"
				   : "even",
			i == 19 ? "Connection: close\r\n" : "");
	answer = raw(request, strlen(request));
	p = answer;
	for (int i = 0; i < 20; i++) {
		char *next = strstr(p + 1, "HTTP/1.1 200");
		const char *words = i % 5 == 2 ? "\"late\":true" : i % 2 ? "\"odd\"" : "\"even\"";
		char *found = strstr(p, words);

		if (!found || (next && found > next))
			fail_msg("answer %d: %s", i, p);
		p = next;
	}
}

static void who_has_said_all_still_gets_the_answer(void **state)
{
	int fd = server_connect_raw();
	_free_ char *answer = NULL;

	(void)state;
	assert_int_equal(send(fd, "GET /hello HTTP/1.1\r\n\r\n", 23, 0), 23);
	shutdown(fd, SHUT_WR);
	answer = server_read(fd, NULL, SOON);
	assert_non_null(strstr(answer, "\"role\":\"admin\""));
	close(fd);
}

static void an_expectation_is_met_before_the_body(void **state)
{
	int fd = server_connect_raw();
	_free_ char *first = NULL, *second = NULL;
	const char *head = "POST /things/t HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
			   "Expect: 100-continue\r\nConnection: close\r\n\r\n";

	(void)state;
	assert_int_equal(send(fd, head, strlen(head), 0), strlen(head));
	first = server_read(fd, "\r\n\r\n", SOON);
	assert_string_equal(first, "HTTP/1.1 100 Continue\r\n\r\n");
	assert_int_equal(send(fd, "{}", 2, 0), 2);
	second = server_read(fd, NULL, SOON);
	assert_non_null(strstr(second, "HTTP/1.1 200 OK"));
	close(fd);
}

static void what_two_readers_could_read_differently_is_refused(void **state)
{
	static const char *const requests[] = {
		"POST /things/t HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /things/t HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
		"POST /things/t HTTP/1.1\r\nContent-Length: +4\r\n\r\nabcd",
		"POST /things/t HTTP/1.1\r\nContent-Length : 4\r\n\r\nabcd",
		"POST /things/t HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"GET /hello HTTP/1.1\nHost: x\n\r\n\r\n",
		"GET /hello HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
		"GET /hello HTTP/2.0\r\n\r\n",
		"GET  /hello HTTP/1.1\r\n\r\n",
		"\r\nGET /hello HTTP/1.1\r\n\r\n",
		"GET /hello\r\n\r\n",
		"nonsense\r\n\r\n",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
		expect_raw(requests[i], "HTTP/1.1 400 ", "Connection: close");
}

static void an_old_client_gets_one_answer_and_the_end(void **state)
{
	(void)state;
	expect_raw("GET /hello HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK", "Connection: close");
}

static void an_answer_may_come_later_and_its_client_may_be_gone(void **state)
{
	struct http_client *c = server_client_local();
	int fd = server_connect_raw();

	(void)state;
	expect(c, "GET", "/later", NULL, 200, "\"late\":true");
	assert_int_equal(send(fd, "GET /later?ms=200 HTTP/1.1\r\n\r\n", 30, 0), 30);
	usleep(50000);
	close(fd);
	assert_true(server_wait(&server_gone, 1));
	expect(c, "GET", "/later?ms=300", NULL, 200, "\"late\":true");
	http_client_free(c);
}

static void the_id_of_a_request_is_the_clients_or_a_new_one(void **state)
{
	static const char key[] = "0f9a4d5c-1111-4222-8333-444455556666";
	struct http_client *c = server_client_local();
	struct http_answer a = {0};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(http_client_call(c, "POST", "/things/t", NULL, key, clock_now_ns() + SOON, &a, &e), 0);
	assert_string_equal(json_string_value(json_object_get(a.json, "id")), key);
	http_answer_done(&a);
	a = call(c, "POST", "/things/t", NULL);
	assert_int_equal(strlen(json_string_value(json_object_get(a.json, "id"))), 36);
	http_answer_done(&a);
	assert_int_equal(http_client_call(c, "POST", "/things/t", NULL, "mine", clock_now_ns() + SOON, &a, &e), 0);
	assert_int_equal(a.status, 400);
	http_answer_done(&a);
	http_client_free(c);
}

/* ---- who asks ---- */

static void root_at_the_unix_socket_is_admin(void **state)
{
	struct http_client *c = server_client_local();

	(void)state;
	if (getuid() != 0)
		skip();
	expect(c, "GET", "/hello", NULL, 200, "{\"name\":\"root\",\"role\":\"admin\",\"from\":\"unix\"}");
	expect(c, "POST", "/local", "{}", 200, "\"admin\"");
	http_client_free(c);
}

/* The answer to GET /hello of a process with this user and these groups. Caller frees. */
static char *hello_as(uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups)
{
	const char *request = "GET /hello HTTP/1.1\r\nConnection: close\r\n\r\n";
	int pair[2];
	char *answer;
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	pid = fork();
	if (pid == 0) {
		int fd;

		if (setgroups(n_groups, groups) < 0 || setgid(gid) < 0 || setuid(uid) < 0)
			_exit(1);
		fd = sock_unix_connect(server_path("sock"), NULL);
		if (fd < 0 || sock_write_full(fd, request, strlen(request), SOCK_FOREVER, NULL) < 0)
			_exit(1);
		answer = server_read(fd, NULL, SOON);
		sock_write_full(pair[1], answer, strlen(answer), SOCK_FOREVER, NULL);
		_exit(0);
	}
	close(pair[1]);
	answer = server_read(pair[0], NULL, SOON);
	close(pair[0]);
	waitpid(pid, NULL, 0);
	return answer;
}

static void others_at_the_unix_socket_are_who_the_configuration_says(void **state)
{
	_free_ char *known = NULL, *unknown = NULL;

	(void)state;
	if (getuid() != 0)
		skip();
	known = hello_as(65534, 65534, NULL, 0);
	unknown = hello_as(65533, 65533, NULL, 0);
	assert_non_null(strstr(known, "{\"name\":\"nobody\",\"role\":\"viewer\""));
	assert_non_null(strstr(unknown, "HTTP/1.1 401 "));
}

static int start_with_group(void **state)
{
	((struct http_options *)server_options())->admin_gid = 4242;
	return start(state);
}

static int stop_with_group(void **state)
{
	((struct http_options *)server_options())->admin_gid = 0;
	return stop(state);
}

static void members_of_the_group_are_admins(void **state)
{
	const gid_t groups[] = {100, 4242, 200};
	_free_ char *primary = NULL, *further = NULL, *neither = NULL;

	(void)state;
	if (getuid() != 0)
		skip();
	primary = hello_as(1234, 4242, NULL, 0);
	further = hello_as(1234, 1234, groups, 3);
	neither = hello_as(1234, 1234, groups, 1);
	assert_non_null(strstr(primary, "{\"name\":\"uid 1234\",\"role\":\"admin\""));
	assert_non_null(strstr(further, "\"admin\""));
	assert_non_null(strstr(neither, "HTTP/1.1 401 "));
}

static void over_tls_a_certificate_or_a_token_says_who_asks(void **state)
{
	struct http_client *carol = server_client_tls("client", NULL);
	struct http_client *alice = server_client_tls(NULL, SERVER_TOKEN_ALICE);
	struct http_client *both = server_client_tls("client", SERVER_TOKEN_BOB);

	(void)state;
	expect(carol, "GET", "/hello", NULL, 200, "{\"name\":\"carol\",\"role\":\"admin\",\"from\":\"127.0.0.1\"}");
	expect(alice, "GET", "/hello", NULL, 200, "\"alice\",\"role\":\"viewer\"");
	expect(both, "GET", "/hello", NULL, 200, "\"bob\",\"role\":\"operator\"");
	http_client_free(carol);
	http_client_free(alice);
	http_client_free(both);
}

static void without_certificate_and_token_nothing_is_told(void **state)
{
	struct http_client *c = server_client_tls(NULL, NULL);
	struct http_client *wrong = server_client_tls(NULL, "guess");

	(void)state;
	expect(c, "GET", "/hello", NULL, 401, "who are you?");
	expect(c, "POST", "/things/t", "{\"size\": \"wrong\"}", 401, "who are you?");
	expect(c, "GET", "/public", NULL, 200, "\"role\":\"none\"");
	expect(wrong, "GET", "/hello", NULL, 401, "nobody here knows you");
	http_client_free(c);
	http_client_free(wrong);
}

static void a_role_too_low_is_refused_by_name(void **state)
{
	struct http_client *c = server_client_tls(NULL, SERVER_TOKEN_ALICE);
	struct http_client *bob = server_client_tls(NULL, SERVER_TOKEN_BOB);

	(void)state;
	expect(c, "POST", "/things/t", "{}", 403,
	       "POST /things/{thing} needs the role operator, and alice has the role viewer");
	expect(bob, "POST", "/things/t", "{}", 200, "\"thing\":\"t\"");
	expect(bob, "DELETE", "/things/t", NULL, 403, "needs the role admin, and bob has the role operator");
	http_client_free(c);
	http_client_free(bob);
}

static void what_is_for_the_host_itself_is_refused_over_tls(void **state)
{
	struct http_client *c = server_client_tls("client", NULL);

	(void)state;
	expect(c, "POST", "/local", "{}", 403, "is for the unix socket");
	http_client_free(c);
}

static void a_page_of_another_site_may_not_ask(void **state)
{
	(void)state;
	expect_raw("POST /things/t HTTP/1.1\r\nHost: here\r\nOrigin: https://there\r\nConnection: close\r\n\r\n",
		   "HTTP/1.1 403 ", "another site");
	expect_raw("POST /things/t HTTP/1.1\r\nHost: here\r\nSec-Fetch-Site: cross-site\r\nConnection: close\r\n\r\n",
		   "HTTP/1.1 403 ", "another site");
	expect_raw("POST /things/t HTTP/1.1\r\nHost: here\r\nOrigin: https://here\r\nConnection: close\r\n\r\n",
		   "HTTP/1.1 200 ", "\"thing\"");
}

/* ---- TLS ---- */

/* A handshake, and one request, as a client with the certificates of @dir, which base/tls.h may refuse to load. True
 * when an answer comes. */
static bool asks_with(const char *dir, int max_version)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	int fd = server_connect_tcp(NULL);
	char buf[64];
	bool answered = false;
	SSL *ssl;

	SSL_CTX_set_max_proto_version(ctx, max_version);
	if (dir) {
		_free_ char *cert = xasprintf("%s/cert.pem", server_path(dir)),
			    *key = xasprintf("%s/key.pem", server_path(dir));

		assert_int_equal(SSL_CTX_use_certificate_file(ctx, cert, SSL_FILETYPE_PEM), 1);
		assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM), 1);
	}
	ssl = SSL_new(ctx);
	SSL_set_fd(ssl, fd);
	if (SSL_connect(ssl) == 1 && SSL_write(ssl, "GET /public HTTP/1.1\r\n\r\n", 24) == 24)
		answered = SSL_read(ssl, buf, sizeof(buf)) > 0;
	ERR_clear_error();
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close(fd);
	return answered;
}

static void a_certificate_that_is_wrong_is_refused(void **state)
{
	(void)state;
	assert_true(asks_with(NULL, TLS1_3_VERSION));
	assert_true(asks_with("client", TLS1_3_VERSION));
	assert_false(asks_with("expired", TLS1_3_VERSION));
	assert_false(asks_with("alien-client", TLS1_3_VERSION));
	assert_false(asks_with("forged", TLS1_3_VERSION));
}

static void older_tls_is_refused(void **state)
{
	(void)state;
	assert_false(asks_with("client", TLS1_2_VERSION));
}

static void the_client_refuses_a_server_that_is_not_ours(void **state)
{
	_free_ char *address = xasprintf("127.0.0.1:%d", server_port()),
		    *named = xasprintf("127.0.0.2:%d", server_port());
	uint8_t digest[HTTP_DIGEST_SIZE];
	struct http_client_options wrong_ca = {.address = address, .tls_dir = server_path("alien")};
	struct http_client_options pinned = {.address = address, .ca_digest = server_ca_digest()};
	struct http_client_options wrong_pin = {.address = address, .ca_digest = digest};
	struct http_client_options *refused[] = {&wrong_ca, &wrong_pin};
	struct http_client_options no_trust = {.address = named};
	struct http_answer a = {0};
	struct err e = ERR_INIT;
	struct http_client *c;

	(void)state;
	memset(digest, 7, sizeof(digest));
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		c = http_client_new(refused[i], &e);
		assert_non_null(c);
		assert_int_equal(http_client_call(c, "GET", "/public", NULL, NULL, clock_now_ns() + SOON, &a, &e), -1);
		assert_int_equal(e.code, ERR_AUTH);
		http_client_free(c);
		e = ERR_INIT;
	}
	c = http_client_new(&pinned, &e);
	assert_non_null(c);
	expect(c, "GET", "/public", NULL, 200, "\"from\":\"127.0.0.1\"");
	http_client_free(c);
	assert_null(http_client_new(&no_trust, &e));
}

static void plaintext_on_the_port_of_tls_gets_no_http(void **state)
{
	int fd = server_connect_tcp(NULL);
	_free_ char *answer = NULL;

	(void)state;
	assert_int_equal(send(fd, "GET /public HTTP/1.1\r\n\r\n", 24, MSG_NOSIGNAL), 24);
	answer = server_read(fd, NULL, SOON);
	assert_null(strstr(answer, "HTTP/"));
	assert_true(server_closed_by(fd, SOON));
	close(fd);
}

static atomic_bool tls_memory_gone;

static void *tls_malloc(size_t n, const char *file, int line)
{
	(void)file;
	(void)line;
	return tls_memory_gone ? NULL : malloc(n);
}

static void *tls_realloc(void *p, size_t n, const char *file, int line)
{
	(void)file;
	(void)line;
	return tls_memory_gone ? NULL : realloc(p, n);
}

static void tls_free(void *p, const char *file, int line)
{
	(void)file;
	(void)line;
	free(p);
}

static void a_connection_that_cannot_have_tls_is_closed_and_never_served_in_plaintext(void **state)
{
	struct http_client *c = server_client_local();
	_free_ char *answer = NULL;
	int fd;

	(void)state;
	expect(c, "GET", "/hello", NULL, 200, "");
	tls_memory_gone = true;
	fd = server_connect_tcp(NULL);
	send(fd, "GET /public HTTP/1.1\r\n\r\n", 24, MSG_NOSIGNAL);
	answer = server_read(fd, NULL, SOON);
	tls_memory_gone = false;
	assert_string_equal(answer, "");
	close(fd);
	expect(c, "GET", "/metrics", NULL, 200, "godwit_http_refused_total{reason=\"memory\"} 1");
	http_client_free(c);
}

static struct http_server *fresh_server(struct loop *l)
{
	struct http_options o = *server_options();

	o.loop = l;
	o.metrics = NULL;
	return http_server_new(&o);
}

static void wrong_certificates_are_refused_at_the_start_and_at_a_reload(void **state)
{
	struct loop *l = loop_new();
	struct http_server *s = fresh_server(l);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(http_listen_tls(s, "127.0.0.1:0", server_path("expired"), &e), -1);
	assert_non_null(strstr(e.text, "expired"));
	assert_int_equal(http_listen_tls(s, "127.0.0.1", server_path("good"), &e), -1);
	assert_true(http_listen_tls(s, "127.0.0.1:0", server_path("good"), &e) > 0);
	assert_int_equal(http_reload_tls(s, server_path("nothing"), &e), -1);
	assert_int_equal(http_reload_tls(s, server_path("good"), &e), 0);
	http_server_free(s);
	loop_free(l);
}

static void a_unix_socket_left_behind_is_replaced_and_a_live_one_is_not(void **state)
{
	struct loop *l = loop_new();
	struct http_server *s = fresh_server(l), *other = fresh_server(l);
	const char *path = server_path("other-sock");
	struct err e = ERR_INIT;
	struct stat st;

	(void)state;
	assert_int_equal(http_listen_unix(s, path, 0660, 0, &e), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	assert_int_equal(http_listen_unix(other, path, 0660, 0, &e), -1);
	assert_non_null(strstr(e.text, "another daemon listens"));
	http_server_free(s);
	assert_int_equal(access(path, F_OK), -1);
	/* A socket that its daemon had no time to unlink. */
	{
		struct sockaddr_un_path {
			sa_family_t family;
			char path[108];
		} a = {.family = AF_UNIX};
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);

		strcpy(a.path, path);
		assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
		close(fd);
	}
	assert_int_equal(http_listen_unix(other, path, 0600, 0, &e), 0);
	assert_int_equal(http_listen_unix(other, server_path("good/ca.pem"), 0600, 0, &e), -1);
	http_server_free(other);
	loop_free(l);
}

#define HTTP_TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		HTTP_TEST(a_body_and_parameters_reach_the_handler_and_come_back),
		HTTP_TEST(what_does_not_fit_the_table_is_refused_with_the_reason),
		HTTP_TEST(a_wrong_body_is_refused_by_field_and_reason),
		HTTP_TEST(errors_name_their_object),
		HTTP_TEST(a_chunked_body_is_read_whole),
		HTTP_TEST(a_request_may_come_byte_by_byte),
		HTTP_TEST(pipelined_requests_are_answered_in_order),
		HTTP_TEST(who_has_said_all_still_gets_the_answer),
		HTTP_TEST(an_expectation_is_met_before_the_body),
		HTTP_TEST(what_two_readers_could_read_differently_is_refused),
		HTTP_TEST(an_old_client_gets_one_answer_and_the_end),
		HTTP_TEST(an_answer_may_come_later_and_its_client_may_be_gone),
		HTTP_TEST(the_id_of_a_request_is_the_clients_or_a_new_one),
		HTTP_TEST(root_at_the_unix_socket_is_admin),
		HTTP_TEST(others_at_the_unix_socket_are_who_the_configuration_says),
		cmocka_unit_test_setup_teardown(members_of_the_group_are_admins, start_with_group, stop_with_group),
		HTTP_TEST(over_tls_a_certificate_or_a_token_says_who_asks),
		HTTP_TEST(without_certificate_and_token_nothing_is_told),
		HTTP_TEST(a_role_too_low_is_refused_by_name),
		HTTP_TEST(what_is_for_the_host_itself_is_refused_over_tls),
		HTTP_TEST(a_page_of_another_site_may_not_ask),
		HTTP_TEST(a_certificate_that_is_wrong_is_refused),
		HTTP_TEST(older_tls_is_refused),
		HTTP_TEST(the_client_refuses_a_server_that_is_not_ours),
		HTTP_TEST(plaintext_on_the_port_of_tls_gets_no_http),
		HTTP_TEST(a_connection_that_cannot_have_tls_is_closed_and_never_served_in_plaintext),
		cmocka_unit_test(wrong_certificates_are_refused_at_the_start_and_at_a_reload),
		cmocka_unit_test(a_unix_socket_left_behind_is_replaced_and_a_live_one_is_not),
	};

	if (CRYPTO_set_mem_functions(tls_malloc, tls_realloc, tls_free) != 1)
		abort();
	return cmocka_run_group_tests(tests, server_make_certs, server_drop_certs);
}
