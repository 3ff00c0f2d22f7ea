/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates for tests, made with the OpenSSL API. */
#include "tests/unit/base/certs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#define DAY 86400L

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "certs: cannot %s: %s\n", what, strerror(errno));
	abort();
}

/* A certificate with everything but its extensions and its signature. */
static X509 *cert_new(EVP_PKEY *key, const char *cn, long from, long until)
{
	X509 *cert = X509_new();
	X509_NAME *name;
	unsigned char serial[8];

	must(cert && RAND_bytes(serial, sizeof(serial)) == 1, "start a certificate");
	serial[0] = 0x40 | (serial[0] & 0x3f); /* positive, and no padding */
	X509_set_version(cert, X509_VERSION_3);
	ASN1_STRING_set(X509_get_serialNumber(cert), serial, sizeof(serial));
	X509_gmtime_adj(X509_getm_notBefore(cert), from);
	X509_gmtime_adj(X509_getm_notAfter(cert), until);
	X509_set_pubkey(cert, key);
	name = X509_get_subject_name(cert);
	must(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0), "set a CN");
	return cert;
}

static void add_extension(X509 *cert, const X509 *issuer, int nid, const char *value)
{
	X509V3_CTX v3;
	X509_EXTENSION *ext;

	X509V3_set_ctx(&v3, (X509 *)issuer, cert, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &v3, nid, value);
	must(ext && X509_add_ext(cert, ext, -1), value);
	X509_EXTENSION_free(ext);
}

void certs_ca_init(struct certs_ca *ca, const char *name)
{
	ca->key = EVP_EC_gen("P-256");
	must(ca->key, "make a key");
	ca->cert = cert_new(ca->key, name, -2 * DAY, 30 * DAY);
	X509_set_issuer_name(ca->cert, X509_get_subject_name(ca->cert));
	add_extension(ca->cert, ca->cert, NID_basic_constraints, "critical,CA:TRUE");
	add_extension(ca->cert, ca->cert, NID_key_usage, "critical,keyCertSign,cRLSign");
	add_extension(ca->cert, ca->cert, NID_subject_key_identifier, "hash");
	must(X509_sign(ca->cert, ca->key, EVP_sha256()) > 0, "sign");
}

void certs_ca_done(struct certs_ca *ca)
{
	X509_free(ca->cert);
	EVP_PKEY_free(ca->key);
}

/* "a,10.0.0.1" to "DNS:a,IP:10.0.0.1". Caller frees. */
static char *alt_names(const char *names)
{
	_free_ char *copy = xstrdup(names);
	char *result = xstrdup("");
	char *save = NULL;

	for (char *n = strtok_r(copy, ",", &save); n; n = strtok_r(NULL, ",", &save)) {
		struct in6_addr a;
		bool ip = inet_pton(AF_INET, n, &a) == 1 || inet_pton(AF_INET6, n, &a) == 1;
		char *longer = xasprintf("%s%s%s:%s", result, *result ? "," : "", ip ? "IP" : "DNS", n);

		free(result);
		result = longer;
	}
	return result;
}

static X509 *leaf_new(EVP_PKEY *key, const struct certs_ca *signer, const char *names, int flaws)
{
	X509 *cert = cert_new(key, "the CN does not count", flaws & CERTS_FUTURE ? DAY : -2 * DAY,
			      flaws & CERTS_EXPIRED ? -DAY : 20 * DAY);
	_free_ char *alt = alt_names(names);

	X509_set_issuer_name(cert, X509_get_subject_name(signer->cert));
	add_extension(cert, signer->cert, NID_basic_constraints, "critical,CA:FALSE");
	if (*alt)
		add_extension(cert, signer->cert, NID_subject_alt_name, alt);
	if (!(flaws & CERTS_NO_USAGE))
		add_extension(cert, signer->cert, NID_ext_key_usage,
			      flaws & CERTS_SERVER_ONLY   ? "serverAuth"
			      : flaws & CERTS_CLIENT_ONLY ? "clientAuth"
							  : "serverAuth,clientAuth");
	must(X509_sign(cert, signer->key, EVP_sha256()) > 0, "sign");
	return cert;
}

/* Open DIR/NAME for writing with @mode. */
static FILE *create(const char *dir, const char *name, mode_t mode)
{
	_free_ char *path = xasprintf("%s/%s", dir, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "w");

	must(f, path);
	return f;
}

void certs_write(const char *dir, const struct certs_ca *trusted, const struct certs_ca *signer, const char *names,
		 int flaws)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert;
	FILE *f;

	must(key, "make a key");
	cert = leaf_new(key, signer, names, flaws);
	must(mkdir(dir, 0755) == 0 || errno == EEXIST, "make the directory");
	f = create(dir, "ca.pem", 0644);
	must(PEM_write_X509(f, trusted->cert) && fclose(f) == 0, "write ca.pem");
	f = create(dir, "cert.pem", 0644);
	must(PEM_write_X509(f, cert) && fclose(f) == 0, "write cert.pem");
	f = create(dir, "key.pem", 0600);
	must(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) && fclose(f) == 0, "write key.pem");
	X509_free(cert);
	EVP_PKEY_free(key);
}
