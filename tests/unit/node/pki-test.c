/* SPDX-License-Identifier: Apache-2.0 */
/* The CA and its certificates: judged by us, by OpenSSL and by real TLS connections; renewing; files and crashes. */
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/tls.h"
#include "node/pki-dir.h"
#include "node/pki.h"

#define NOW 1800000000LL /* 2027-01-15 08:00:00 UTC */
#define SOON (clock_now_ns() + 20 * NS_PER_S)

/* One CA and one node of it, made once. */
struct fixture {
	char *ca_key, *ca;
	char *key, *request, *cert;
};

static const char *const addresses[] = {"10.0.0.1", "fd00::1"};

static void ok(int r, const struct err *e)
{
	if (r < 0)
		fail_msg("%s", e->text);
}

static void fixture_make(struct fixture *f, int64_t now_s)
{
	struct err e = ERR_INIT;

	*f = (struct fixture){0};
	ok(pki_ca_make("prod", now_s, &f->ca_key, &f->ca, &e), &e);
	ok(pki_request_make("n1", &f->key, &f->request, &e), &e);
	ok(pki_node_issue(f->ca_key, f->ca, f->request, "n1", addresses, 2, now_s, &f->cert, &e), &e);
}

static void fixture_done(struct fixture *f)
{
	pki_key_free(f->ca_key);
	pki_key_free(f->key);
	free(f->ca);
	free(f->request);
	free(f->cert);
}

static struct fixture at_now; /* everything at NOW */
static struct fixture other;  /* another cluster of the same name */

static X509 *parsed(const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);

	BIO_free(bio);
	assert_non_null(cert);
	return cert;
}

/* The text that OpenSSL prints of a certificate. Caller frees. */
static char *printed(const char *pem)
{
	BIO *bio = BIO_new(BIO_s_mem());
	X509 *cert = parsed(pem);
	char *data, *text;
	long n;

	X509_print(bio, cert);
	n = BIO_get_mem_data(bio, &data);
	text = xasprintf("%.*s", (int)n, data);
	BIO_free(bio);
	X509_free(cert);
	return text;
}

static void assert_says(const char *text, const char *expect)
{
	if (!strstr(text, expect))
		fail_msg("\"%s\" is not in:\n%s", expect, text);
}

static void ca_says_what_it_is_for_ten_years(void **state)
{
	_free_ char *text = printed(at_now.ca);
	struct pki_info info;
	struct err e = ERR_INIT;

	(void)state;
	assert_says(text, "Subject: CN=prod CA ");
	assert_says(text, "Issuer: CN=prod CA ");
	assert_says(text, "CA:TRUE, pathlen:0");
	assert_says(text, "Certificate Sign, CRL Sign");
	assert_says(text, "NIST CURVE: P-256");
	ok(pki_info_read(at_now.ca, &info, &e), &e);
	assert_int_equal(info.role, PKI_ROLE_NONE);
	assert_int_equal(info.from_s, NOW - 3600);
	assert_int_equal(info.until_s, NOW + 3653 * 86400LL);
	assert_int_equal(strlen(info.name), strlen("prod CA ") + 16);
}

static void node_certificate_names_the_node_and_its_addresses(void **state)
{
	_free_ char *text = printed(at_now.cert);
	struct pki_info info;
	struct err e = ERR_INIT;

	(void)state;
	assert_says(text, "DNS:n1, IP Address:10.0.0.1, IP Address:FD00:0:0:0:0:0:0:1");
	assert_says(text, "TLS Web Server Authentication, TLS Web Client Authentication");
	assert_says(text, "CA:FALSE");
	assert_says(text, "Subject: OU=node, CN=n1");
	ok(pki_info_read(at_now.cert, &info, &e), &e);
	assert_string_equal(info.name, "n1");
	assert_int_equal(info.role, PKI_ROLE_NODE);
	assert_int_equal(info.from_s, NOW - 3600);
	assert_int_equal(info.until_s, NOW + 365 * 86400LL);
	assert_int_equal(strlen(info.serial), 40);
}

static void user_certificate_has_a_role_and_names_no_host(void **state)
{
	__attribute__((cleanup(pki_key_freep))) char *key = NULL;
	_free_ char *request = NULL;
	struct err e = ERR_INIT;

	(void)state;
	ok(pki_request_make("n1", &key, &request, &e), &e);
	for (int role = PKI_ROLE_NONE; role < PKI_ROLE_MAX; role++) {
		_free_ char *cert = NULL;
		_free_ char *text = NULL;
		struct pki_info info;
		X509 *x;

		if (role == PKI_ROLE_NONE || role == PKI_ROLE_NODE) {
			assert_int_equal(pki_user_issue(at_now.ca_key, at_now.ca, request, "n1", (enum pki_role)role,
							NOW, &cert, &e),
					 -1);
			continue;
		}
		ok(pki_user_issue(at_now.ca_key, at_now.ca, request, "n1", (enum pki_role)role, NOW, &cert, &e), &e);
		ok(pki_info_read(cert, &info, &e), &e);
		assert_int_equal(info.role, role);
		assert_int_equal(pki_role_parse(pki_role_names[role]), role);
		text = printed(cert);
		assert_null(strstr(text, "Subject Alternative Name"));
		assert_null(strstr(text, "TLS Web Server"));
		x = parsed(cert);
		assert_int_equal(X509_check_host(x, "n1", 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL), 0);
		X509_free(x);
	}
	assert_int_equal(pki_role_parse("root"), PKI_ROLE_NONE);
	assert_int_equal(pki_role_parse("none"), PKI_ROLE_NONE);
}

static void request_for_somebody_else_or_without_the_key_is_refused(void **state)
{
	_free_ char *broken = xstrdup(at_now.request);
	_free_ char *huge = xcalloc(1, PKI_PEM_MAX + 2);
	struct err e = ERR_INIT;
	char *body = strchr(broken, '\n');

	(void)state;
	assert_int_equal(pki_request_check(at_now.request, "n1", &e), 0);
	assert_int_equal(pki_request_check(at_now.request, "n2", &e), -1);
	assert_says(e.text, "is not for \"n2\"");
	assert_int_equal(pki_request_check("", "n1", &e), -1);
	assert_int_equal(pki_request_check(at_now.cert, "n1", &e), -1);
	assert_says(e.text, "-----BEGIN CERTIFICATE REQUEST-----");
	memset(huge, 'a', PKI_PEM_MAX + 1);
	assert_int_equal(pki_request_check(huge, "n1", &e), -1);
	assert_says(e.text, "larger than");
	/* The signature is at the end. */
	body = strstr(broken, "\n-----END") - 8;
	*body = *body == 'A' ? 'B' : 'A';
	assert_int_equal(pki_request_check(broken, "n1", &e), -1);
}

static void request_with_another_kind_of_key_is_refused(void **state)
{
	EVP_PKEY *keys[] = {EVP_EC_gen("P-384"), EVP_RSA_gen(2048), EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		X509_REQ *req = X509_REQ_new();
		BIO *bio = BIO_new(BIO_s_mem());
		struct err e = ERR_INIT;

		X509_REQ_set_pubkey(req, keys[i]);
		X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(req), "CN", MBSTRING_ASC,
					   (const unsigned char *)"n1", -1, -1, 0);
		assert_true(X509_REQ_sign(req, keys[i], i == 2 ? NULL : EVP_sha256()) > 0);
		PEM_write_bio_X509_REQ(bio, req);
		BIO_write(bio, "", 1);
		char *text;
		BIO_get_mem_data(bio, &text);
		assert_int_equal(pki_request_check(text, "n1", &e), -1);
		assert_says(e.text, "not EC P-256");
		BIO_free(bio);
		X509_REQ_free(req);
		EVP_PKEY_free(keys[i]);
	}
}

static void issuing_with_a_foreign_key_or_a_dead_ca_is_refused(void **state)
{
	_free_ char *cert = NULL;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(pki_node_issue(other.ca_key, at_now.ca, at_now.request, "n1", addresses, 2, NOW, &cert, &e),
			 -1);
	assert_says(e.text, "certificate for node \"n1\": the CA key does not belong to the CA certificate");
	assert_int_equal(pki_node_issue(at_now.ca_key, at_now.ca, at_now.request, "n1", addresses, 2,
					NOW + 3654 * PKI_DAY_S, &cert, &e),
			 -1);
	assert_says(e.text, "CA has expired");
	assert_int_equal(pki_node_issue("", at_now.ca, at_now.request, "n1", addresses, 2, NOW, &cert, &e), -1);
	assert_says(e.text, "the CA key is not a private key");
	assert_int_equal(pki_node_issue(at_now.ca_key, at_now.ca, at_now.request, "n1",
					(const char *const[]){"10.0.0.1,DNS:evil"}, 1, NOW, &cert, &e),
			 -1);
	assert_says(e.text, "is not an address");
	assert_null(cert);
}

static void certificate_never_outlives_its_ca(void **state)
{
	_free_ char *cert = NULL;
	struct err e = ERR_INIT;
	struct pki_info info;

	(void)state;
	ok(pki_node_issue(at_now.ca_key, at_now.ca, at_now.request, "n1", addresses, 2, NOW + 3600 * PKI_DAY_S, &cert,
			  &e),
	   &e);
	ok(pki_info_read(cert, &info, &e), &e);
	assert_int_equal(info.until_s, NOW + PKI_CA_DAYS * PKI_DAY_S);
}

static void assert_check(const char *ca, const char *cert, const char *name, const char *key, int64_t now_s,
			 const char *expect)
{
	struct err e = ERR_INIT;
	int r = pki_check(ca, cert, name, key, now_s, &e);

	if (!expect) {
		ok(r, &e);
		return;
	}
	assert_int_equal(r, -1);
	assert_int_equal(e.code, ERR_AUTH);
	assert_says(e.text, expect);
}

static void good_certificate_passes(void **state)
{
	(void)state;
	assert_check(at_now.ca, at_now.cert, "n1", at_now.key, NOW, NULL);
	assert_check(at_now.ca, at_now.cert, NULL, NULL, NOW - 3600, NULL);
}

static void another_clusters_certificate_is_told_with_both_names(void **state)
{
	(void)state;
	assert_check(at_now.ca, other.cert, "n1", NULL, NOW,
		     "the certificate of \"n1\" is of another cluster: it was issued by \"prod CA ");
	assert_check(other.ca, at_now.cert, "n1", NULL, NOW, "and this cluster's CA is \"prod CA ");
	/* A certificate is no CA. */
	assert_check(at_now.cert, at_now.cert, "n1", NULL, NOW, "is not one of a CA");
}

static void forged_issuer_is_refused(void **state)
{
	X509 *ca = parsed(at_now.ca), *cert = parsed(other.cert);
	BIO *bio = BIO_new_mem_buf(other.ca_key, -1), *out = BIO_new(BIO_s_mem());
	EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
	char *text;

	(void)state;
	X509_set_issuer_name(cert, X509_get_subject_name(ca));
	assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
	PEM_write_bio_X509(out, cert);
	BIO_write(out, "", 1);
	BIO_get_mem_data(out, &text);
	assert_check(at_now.ca, text, "n1", NULL, NOW, "claims to be issued by this cluster's CA");
	X509_free(ca);
	X509_free(cert);
	EVP_PKEY_free(key);
	BIO_free(bio);
	BIO_free(out);
}

static void wrong_name_and_wrong_key_are_refused(void **state)
{
	(void)state;
	assert_check(at_now.ca, at_now.cert, "n2", NULL, NOW, "the certificate of \"n1\" is not for \"n2\"");
	assert_check(at_now.ca, at_now.cert, "n1", other.key, NOW, "belongs to another private key");
	assert_check(at_now.ca, at_now.cert, "n1", "no key", NOW, "belongs to another private key");
	assert_true(pki_key_fits(at_now.cert, at_now.key));
	assert_false(pki_key_fits("", at_now.key));
}

static void clock_far_off_is_told_with_the_distance(void **state)
{
	(void)state;
	assert_check(at_now.ca, at_now.cert, "n1", NULL, NOW - 3600 - 2 * PKI_DAY_S - 3 * 3600,
		     "valid only from 2027-01-15 07:00:00 UTC, and the clock here says 2027-01-13 04:00:00 UTC, "
		     "2 d 3 h earlier: set the clocks");
	assert_check(at_now.ca, at_now.cert, "n1", NULL, NOW + 365 * PKI_DAY_S + 90,
		     "the certificate of \"n1\" expired on 2028-01-15 08:00:00 UTC, and the clock here says 2028-01-15 "
		     "08:01:30 UTC, 1 min 30 s later: renew it, or set the clock");
	assert_check(at_now.ca, at_now.cert, "n1", NULL, NOW + 365 * PKI_DAY_S - 1, NULL);
	assert_check(at_now.ca, at_now.cert, "n1", NULL, NOW + 365 * PKI_DAY_S, "0 min 0 s later");
	assert_check(at_now.ca, at_now.cert, "n1", NULL, NOW + 4000 * PKI_DAY_S, "the cluster's CA expired on");
}

static void fingerprint_is_the_one_of_openssl(void **state)
{
	uint8_t mine[PKI_FINGERPRINT_SIZE], theirs[EVP_MAX_MD_SIZE];
	char text[3 * PKI_FINGERPRINT_SIZE];
	X509 *cert = parsed(at_now.ca);
	struct err e = ERR_INIT;
	unsigned n;

	(void)state;
	ok(pki_fingerprint(at_now.ca, mine, &e), &e);
	X509_digest(cert, EVP_sha256(), theirs, &n);
	assert_memory_equal(mine, theirs, sizeof(mine));
	X509_free(cert);
	for (int i = 0; i < PKI_FINGERPRINT_SIZE; i++)
		mine[i] = (uint8_t)(i * 8);
	pki_fingerprint_text(mine, text);
	assert_string_equal(text, "00:08:10:18:20:28:30:38:40:48:50:58:60:68:70:78:80:88:90:98:A0:A8:B0:B8:C0:C8:D0:D8:"
				  "E0:E8:F0:F8");
	assert_int_equal(pki_fingerprint("nonsense", mine, &e), -1);
}

static void two_clusters_of_one_name_have_different_cas(void **state)
{
	struct pki_info a, b;
	struct err e = ERR_INIT;

	(void)state;
	ok(pki_info_read(at_now.ca, &a, &e), &e);
	ok(pki_info_read(other.ca, &b, &e), &e);
	assert_string_not_equal(a.name, b.name);
	assert_string_not_equal(a.serial, b.serial);
	assert_memory_not_equal(a.fingerprint, b.fingerprint, PKI_FINGERPRINT_SIZE);
}

static void names_that_cannot_be_are_refused(void **state)
{
	static const char *const names[] = {"", "N1", "n1.example.com", "-n1", "n1-", "n 1", "n\n1", "n1,CN=x"};
	_free_ char *a = NULL;
	_free_ char *b = NULL;
	struct err e = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(pki_request_make(names[i], &a, &b, &e), -1);
		assert_int_equal(pki_ca_make(names[i], NOW, &a, &b, &e), -1);
	}
	assert_int_equal(pki_ca_make("a-name-of-a-cluster-that-has-41-characters", NOW, &a, &b, &e), -1);
	assert_null(a);
	assert_null(b);
}

static void renewal_is_due_in_the_last_third_and_not_for_all_at_once(void **state)
{
	struct pki_info info = {.from_s = NOW, .until_s = NOW + 365 * PKI_DAY_S};
	int64_t ca_until_s = NOW + PKI_CA_DAYS * PKI_DAY_S;
	int64_t third = NOW + (info.until_s - NOW) / 3 * 2, last = third + (info.until_s - NOW) / 20;
	int64_t first_at = INT64_MAX, last_at = 0;

	(void)state;
	for (unsigned id = 1; id <= 32; id++) {
		int64_t at = pki_renew_at(info.from_s, info.until_s, id);

		assert_in_range(at, third, last);
		assert_false(pki_renew_due(&info, ca_until_s, at - 1, id));
		assert_true(pki_renew_due(&info, ca_until_s, at, id));
		assert_int_not_equal(at, pki_renew_at(info.from_s, info.until_s, id + 1));
		first_at = at < first_at ? at : first_at;
		last_at = at > last_at ? at : last_at;
	}
	/* 32 nodes are spread over most of what there is. */
	assert_true(last_at - first_at > (last - third) / 2);
	/* Nothing to win: it ends with its CA. */
	assert_false(pki_renew_due(&info, info.until_s, info.until_s - 1, 1));
	assert_int_equal(pki_renew_at(NOW, NOW, 5), NOW);
}

/* ---- files ---- */

static char dir[] = "/tmp/godwit-pki-XXXXXX";

static char *in_dir(const char *name)
{
	return xasprintf("%s/%s", dir, name);
}

static unsigned mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static void folder_is_written_with_the_right_modes(void **state)
{
	_free_ char *set = in_dir("modes");
	_free_ char *key = in_dir("modes/key.pem");
	_free_ char *cert = in_dir("modes/cert.pem");
	_free_ char *ca_key = in_dir("modes/ca-key.pem");
	__attribute__((cleanup(pki_key_freep))) char *back = NULL;
	struct err e = ERR_INIT;

	(void)state;
	umask(0);
	ok(pki_dir_write(set, at_now.ca, at_now.cert, at_now.key, (gid_t)-1, &e), &e);
	assert_int_equal(mode_of(key), 0600);
	assert_int_equal(mode_of(cert), 0644);
	ok(pki_dir_write(set, at_now.ca, at_now.cert, at_now.key, getgid(), &e), &e);
	assert_int_equal(mode_of(key), 0640);
	ok(pki_ca_key_write(set, at_now.ca_key, &e), &e);
	assert_int_equal(mode_of(ca_key), 0600);
	back = pki_ca_key_read(set, &e);
	assert_string_equal(back, at_now.ca_key);
}

static void assert_key(const char *set, const char *expect)
{
	_free_ char *path = xasprintf("%s/key.pem", set);
	_free_ char *next = xasprintf("%s/key.pem.next", set);
	_free_ char *text = file_read(path, PKI_PEM_MAX, NULL, NULL);

	assert_string_equal(text, expect);
	assert_int_equal(access(next, F_OK), -1);
}

static void crash_between_certificate_and_key_is_repaired_either_way(void **state)
{
	_free_ char *set = in_dir("crash");
	_free_ char *next = in_dir("crash/key.pem.next");
	_free_ char *cert = in_dir("crash/cert.pem");
	struct err e = ERR_INIT;

	(void)state;
	ok(pki_dir_write(set, at_now.ca, at_now.cert, at_now.key, (gid_t)-1, &e), &e);
	ok(pki_dir_recover(set, &e), &e);
	assert_key(set, at_now.key);
	/* The new key is there, the certificate is still the old one: forget it. */
	ok(file_write_atomic(next, other.key, strlen(other.key), 0600, (gid_t)-1, &e), &e);
	ok(pki_dir_recover(set, &e), &e);
	assert_key(set, at_now.key);
	/* The certificate is the new one too: go on. */
	ok(file_write_atomic(next, other.key, strlen(other.key), 0600, (gid_t)-1, &e), &e);
	ok(file_write_atomic(cert, other.cert, strlen(other.cert), 0644, (gid_t)-1, &e), &e);
	ok(pki_dir_recover(set, &e), &e);
	assert_key(set, other.key);
	assert_int_equal(mode_of(cert), 0644);
	ok(pki_dir_recover("/no/such/folder", &e), &e);
}

/* ---- real TLS ---- */

/* A node and a user of one cluster, valid now, and a node of another cluster, as folders for base/tls.h. */
static void make_set(const char *name, const struct fixture *f, const char *ca)
{
	_free_ char *set = in_dir(name);
	struct err e = ERR_INIT;

	ok(pki_dir_write(set, ca, f->cert, f->key, (gid_t)-1, &e), &e);
}

/* Connect from folder @client to a server with folder @server as @host; what the client says, "" when it is content. */
static struct err connect_sets(const char *server, const char *client, const char *host)
{
	_free_ char *server_dir = in_dir(server);
	_free_ char *client_dir = in_dir(client);
	struct err e = ERR_INIT;
	struct tls_ctx *ctx;
	struct tls *t = NULL;
	int p[2];
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p), 0);
	pid = fork();
	if (pid == 0) {
		close(p[1]);
		ctx = tls_ctx_load(server_dir, NULL);
		if (ctx && tls_accept(ctx, p[0], SOON, &t, NULL) == 0)
			tls_close(t);
		tls_ctx_free(ctx);
		_exit(0);
	}
	close(p[0]);
	ctx = tls_ctx_load(client_dir, &e);
	if (ctx && tls_connect(ctx, p[1], host, SOON, &t, &e) == 0)
		tls_close(t);
	tls_ctx_free(ctx);
	close(p[1]);
	waitpid(pid, NULL, 0);
	return e;
}

static void certificates_work_in_real_tls_connections(void **state)
{
	struct fixture us, them, user = {0};
	struct err e = ERR_INIT;

	(void)state;
	fixture_make(&us, time(NULL));
	fixture_make(&them, time(NULL));
	ok(pki_request_make("eve", &user.key, &user.request, &e), &e);
	ok(pki_user_issue(us.ca_key, us.ca, user.request, "eve", PKI_ROLE_ADMIN, time(NULL), &user.cert, &e), &e);
	make_set("us", &us, us.ca);
	make_set("them", &them, them.ca);
	make_set("user", &user, us.ca);

	assert_string_equal(connect_sets("us", "us", "n1").text, "");
	assert_string_equal(connect_sets("us", "us", "10.0.0.1").text, "");
	assert_string_equal(connect_sets("us", "us", "fd00::1").text, "");
	assert_string_equal(connect_sets("us", "user", "n1").text, "");
	e = connect_sets("us", "us", "n2");
	assert_says(e.text, "the host connected to is \"n2\"");
	e = connect_sets("them", "us", "n1");
	assert_says(e.text, "signed by an unknown CA");
	e = connect_sets("user", "us", "n1"); /* a user's certificate cannot stand for a server */
	assert_int_equal(e.code, ERR_AUTH);
	fixture_done(&us);
	fixture_done(&them);
	fixture_done(&user);
}

static int group_setup(void **state)
{
	(void)state;
	fixture_make(&at_now, NOW);
	fixture_make(&other, NOW);
	return mkdtemp(dir) ? 0 : -1;
}

static int group_teardown(void **state)
{
	_free_ char *command = xasprintf("rm -rf %s", dir);

	(void)state;
	fixture_done(&at_now);
	fixture_done(&other);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ca_says_what_it_is_for_ten_years),
		cmocka_unit_test(node_certificate_names_the_node_and_its_addresses),
		cmocka_unit_test(user_certificate_has_a_role_and_names_no_host),
		cmocka_unit_test(request_for_somebody_else_or_without_the_key_is_refused),
		cmocka_unit_test(request_with_another_kind_of_key_is_refused),
		cmocka_unit_test(issuing_with_a_foreign_key_or_a_dead_ca_is_refused),
		cmocka_unit_test(certificate_never_outlives_its_ca),
		cmocka_unit_test(good_certificate_passes),
		cmocka_unit_test(another_clusters_certificate_is_told_with_both_names),
		cmocka_unit_test(forged_issuer_is_refused),
		cmocka_unit_test(wrong_name_and_wrong_key_are_refused),
		cmocka_unit_test(clock_far_off_is_told_with_the_distance),
		cmocka_unit_test(fingerprint_is_the_one_of_openssl),
		cmocka_unit_test(two_clusters_of_one_name_have_different_cas),
		cmocka_unit_test(names_that_cannot_be_are_refused),
		cmocka_unit_test(renewal_is_due_in_the_last_third_and_not_for_all_at_once),
		cmocka_unit_test(folder_is_written_with_the_right_modes),
		cmocka_unit_test(crash_between_certificate_and_key_is_repaired_either_way),
		cmocka_unit_test(certificates_work_in_real_tls_connections),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
