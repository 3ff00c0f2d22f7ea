/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster's public key infrastructure, with OpenSSL's API.
 *
 * One CA per cluster, EC P-256, directly above every certificate: no intermediates, so judging one takes its issuer,
 *one signature and the clock. What a certificate may do is decided by who issues it, never by the request, of which
 *only the public key is used:
 *
 *	          subject             alternative names       purposes
 *	CA        CN=prod CA 3f..     -                       signs certificates, path length 0
 *	node      OU=node, CN=n1      DNS:n1, IP:10.0.0.1     TLS server and client
 *	user      OU=admin, CN=eve    -                       TLS client
 *
 * A user has no alternative name, so that no check of a host name can ever take a user called n1 for the node n1. The
 * role is in the OU and not in an extension of ours, because every tool can show it. */
#include "node/pki.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "node/name.h"

#define DATE_MAX 40
#define SERIAL_SIZE 20 /* RFC 5280, 4.1.2.2: at most 20 bytes */

const char *const pki_role_names[PKI_ROLE_MAX] = {
	[PKI_ROLE_NONE] = "none",   [PKI_ROLE_VIEWER] = "viewer", [PKI_ROLE_OPERATOR] = "operator",
	[PKI_ROLE_ADMIN] = "admin", [PKI_ROLE_NODE] = "node",
};

#define DEFINE_FREEP(name, type, free_fn)                                                                              \
	static void name(type **p)                                                                                     \
	{                                                                                                              \
		free_fn(*p);                                                                                           \
	}
DEFINE_FREEP(x509_freep, X509, X509_free)
DEFINE_FREEP(req_freep, X509_REQ, X509_REQ_free)
DEFINE_FREEP(pkey_freep, EVP_PKEY, EVP_PKEY_free)
DEFINE_FREEP(bio_freep, BIO, BIO_free_all)
DEFINE_FREEP(names_freep, GENERAL_NAMES, GENERAL_NAMES_free)
#define _x509_ __attribute__((cleanup(x509_freep)))
#define _req_ __attribute__((cleanup(req_freep)))
#define _pkey_ __attribute__((cleanup(pkey_freep)))
#define _bio_ __attribute__((cleanup(bio_freep)))

/* OpenSSL failed at something that only fails when memory or randomness is out. */
static int openssl_error(struct err *e, const char *doing)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	ERR_clear_error();
	return err_set(e, ERR_SYSTEM, "OpenSSL, %s: %s", doing, reason ? reason : "unknown reason");
}

/* ---- PEM ---- */

void pki_key_free(char *key)
{
	if (key)
		OPENSSL_cleanse(key, strlen(key));
	free(key);
}

void pki_key_freep(char **key)
{
	pki_key_free(*key);
}

static BIO *text_open(const char *text, const char *what, struct err *e)
{
	size_t n = strnlen(text, PKI_PEM_MAX + 1);
	BIO *bio;

	if (n > PKI_PEM_MAX) {
		err_set(e, ERR_INPUT, "the %s is larger than %u bytes", what, PKI_PEM_MAX);
		return NULL;
	}
	bio = BIO_new_mem_buf(text, (int)n);
	if (!bio)
		openssl_error(e, "reading PEM");
	return bio;
}

/* What was written to @bio, as a text of the caller's. */
static char *text_close(BIO *bio)
{
	const char *data = NULL;
	long n = BIO_get_mem_data(bio, &data);
	char *text = xcalloc((size_t)n + 1, 1);

	memcpy(text, data, (size_t)n);
	return text;
}

/* We never ask for a passphrase: nobody may be there to type it. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	(void)arg;
	return -1;
}

static X509 *cert_read(const char *text, const char *what, struct err *e)
{
	_bio_ BIO *bio = text_open(text, what, e);
	X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;

	if (bio && !cert)
		err_set(e, ERR_INPUT, "the %s is not a certificate in PEM form (-----BEGIN CERTIFICATE-----)", what);
	ERR_clear_error();
	return cert;
}

static EVP_PKEY *key_read(const char *text, const char *what, struct err *e)
{
	_bio_ BIO *bio = text_open(text, what, e);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;

	if (bio && !key)
		err_set(e, ERR_INPUT, "the %s is not a private key in PEM form without a passphrase", what);
	ERR_clear_error();
	return key;
}

static X509_REQ *req_read(const char *text, struct err *e)
{
	_bio_ BIO *bio = text_open(text, "certificate request", e);
	X509_REQ *req = bio ? PEM_read_bio_X509_REQ(bio, NULL, no_passphrase, NULL) : NULL;

	if (bio && !req)
		err_set(e, ERR_INPUT,
			"the certificate request is not one in PEM form (-----BEGIN CERTIFICATE REQUEST-----)");
	ERR_clear_error();
	return req;
}

static int cert_write(X509 *cert, char **ret, struct err *e)
{
	_bio_ BIO *bio = BIO_new(BIO_s_mem());

	if (!bio || !PEM_write_bio_X509(bio, cert))
		return openssl_error(e, "writing a certificate");
	*ret = text_close(bio);
	return 0;
}

static int key_write(EVP_PKEY *key, char **ret, struct err *e)
{
	_bio_ BIO *bio = BIO_new(BIO_s_secmem());

	if (!bio || !PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL))
		return openssl_error(e, "writing a key");
	*ret = text_close(bio);
	return 0;
}

/* ---- certificates ---- */

static int add_extension(X509 *cert, const X509 *issuer, int nid, const char *value, struct err *e)
{
	X509_EXTENSION *ext;
	X509V3_CTX v3;
	int ok;

	X509V3_set_ctx(&v3, (X509 *)issuer, cert, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &v3, nid, value);
	ok = ext && X509_add_ext(cert, ext, -1);
	X509_EXTENSION_free(ext);
	return ok ? 0 : openssl_error(e, value);
}

static int name_add(X509_NAME *name, const char *field, const char *value)
{
	return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, (const unsigned char *)value, -1, -1, 0);
}

static int set_serial(X509 *cert)
{
	unsigned char serial[SERIAL_SIZE];

	if (RAND_bytes(serial, sizeof(serial)) != 1)
		return 0;
	serial[0] = 0x40 | (serial[0] & 0x3f); /* positive, and without a padding byte */
	return ASN1_STRING_set(X509_get_serialNumber(cert), serial, sizeof(serial));
}

/* The fields before the extensions. @role: NULL for a CA. */
static int cert_begin(X509 *cert, EVP_PKEY *key, const char *role, const char *cn, const X509_NAME *issuer,
		      int64_t from_s, int64_t until_s, struct err *e)
{
	X509_NAME *name = X509_get_subject_name(cert);

	if (!X509_set_version(cert, X509_VERSION_3) || !set_serial(cert) || !X509_set_pubkey(cert, key) ||
	    !ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)from_s) ||
	    !ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)until_s) || (role && !name_add(name, "OU", role)) ||
	    !name_add(name, "CN", cn) || !X509_set_issuer_name(cert, issuer ? issuer : name))
		return openssl_error(e, "making a certificate");
	return 0;
}

static int cert_sign(X509 *cert, EVP_PKEY *key, struct err *e)
{
	return X509_sign(cert, key, EVP_sha256()) > 0 ? 0 : openssl_error(e, "signing");
}

static bool key_is_p256(EVP_PKEY *key)
{
	char group[32];

	return key && EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
	       EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) && strcmp(group, SN_X9_62_prime256v1) == 0;
}

int pki_ca_make(const char *cluster, int64_t now_s, char **ret_key, char **ret_cert, struct err *e)
{
	_pkey_ EVP_PKEY *key = EVP_EC_gen("P-256");
	_x509_ X509 *cert = X509_new();
	__attribute__((cleanup(pki_key_freep))) char *key_text = NULL;
	_free_ char *cn = NULL;
	uint8_t id[8];

	if (name_check("cluster name", cluster, e) < 0)
		return -1;
	if (strlen(cluster) > PKI_CLUSTER_NAME_MAX)
		return err_set(e, ERR_INPUT, "the cluster name may have at most %d characters", PKI_CLUSTER_NAME_MAX);
	if (!key || !cert || RAND_bytes(id, sizeof(id)) != 1)
		return openssl_error(e, "making a CA");
	cn = xasprintf("%s CA %02x%02x%02x%02x%02x%02x%02x%02x", cluster, id[0], id[1], id[2], id[3], id[4], id[5],
		       id[6], id[7]);
	if (cert_begin(cert, key, NULL, cn, NULL, now_s - PKI_BACKDATE_S, now_s + PKI_CA_DAYS * PKI_DAY_S, e) < 0 ||
	    add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0", e) < 0 ||
	    add_extension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign", e) < 0 ||
	    add_extension(cert, cert, NID_subject_key_identifier, "hash", e) < 0 || cert_sign(cert, key, e) < 0 ||
	    key_write(key, &key_text, e) < 0 || cert_write(cert, ret_cert, e) < 0)
		return -1;
	*ret_key = steal_ptr(key_text);
	return 0;
}

int pki_request_make(const char *name, char **ret_key, char **ret_request, struct err *e)
{
	_pkey_ EVP_PKEY *key = EVP_EC_gen("P-256");
	_req_ X509_REQ *req = X509_REQ_new();
	_bio_ BIO *bio = BIO_new(BIO_s_mem());

	if (name_check("name", name, e) < 0)
		return -1;
	if (!key || !req || !bio || !X509_REQ_set_version(req, X509_REQ_VERSION_1) || !X509_REQ_set_pubkey(req, key) ||
	    !name_add(X509_REQ_get_subject_name(req), "CN", name) || X509_REQ_sign(req, key, EVP_sha256()) <= 0 ||
	    !PEM_write_bio_X509_REQ(bio, req))
		return openssl_error(e, "making a certificate request");
	if (key_write(key, ret_key, e) < 0)
		return -1;
	*ret_request = text_close(bio);
	return 0;
}

/* The only entry of kind @nid in @name as text; false when there is none, several, or an odd one. */
static bool name_get(const X509_NAME *name, int nid, char ret[PKI_NAME_MAX])
{
	int at = X509_NAME_get_index_by_NID(name, nid, -1);
	const ASN1_STRING *s;
	int n;

	if (at < 0 || X509_NAME_get_index_by_NID(name, nid, at) >= 0)
		return false;
	s = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
	n = ASN1_STRING_length(s);
	if (n <= 0 || n >= PKI_NAME_MAX || memchr(ASN1_STRING_get0_data(s), 0, (size_t)n))
		return false;
	memcpy(ret, ASN1_STRING_get0_data(s), (size_t)n);
	ret[n] = 0;
	return true;
}

/* The request, checked as pki_request_check() says; NULL with @e. */
static X509_REQ *req_checked(const char *request, const char *name, struct err *e)
{
	_req_ X509_REQ *req = req_read(request, e);
	char cn[PKI_NAME_MAX];

	if (!req)
		return NULL;
	if (!name_get(X509_REQ_get_subject_name(req), NID_commonName, cn) || strcmp(cn, name) != 0) {
		err_set(e, ERR_INPUT, "the certificate request is not for \"%s\"", name);
		return NULL;
	}
	if (!key_is_p256(X509_REQ_get0_pubkey(req))) {
		err_set(e, ERR_INPUT, "the certificate request of \"%s\" has a key that is not EC P-256", name);
		ERR_clear_error();
		return NULL;
	}
	if (X509_REQ_verify(req, X509_REQ_get0_pubkey(req)) != 1) {
		err_set(e, ERR_INPUT, "the certificate request of \"%s\" is not signed with its own key", name);
		ERR_clear_error();
		return NULL;
	}
	return steal_ptr(req);
}

int pki_request_check(const char *request, const char *name, struct err *e)
{
	_req_ X509_REQ *req = req_checked(request, name, e);

	return req ? 0 : -1;
}

/* DNS:@name and the addresses. */
static int add_alt_names(X509 *cert, const char *name, const char *const *addresses, size_t n, struct err *e)
{
	__attribute__((cleanup(names_freep))) GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();

	for (size_t i = 0; names && i < n + 1; i++) {
		GENERAL_NAME *one = GENERAL_NAME_new();
		ASN1_STRING *s = i ? a2i_IPADDRESS(addresses[i - 1]) : ASN1_IA5STRING_new();

		if (one && s && (i || ASN1_STRING_set(s, name, -1)) && sk_GENERAL_NAME_push(names, one)) {
			GENERAL_NAME_set0_value(one, i ? GEN_IPADD : GEN_DNS, s);
			continue;
		}
		GENERAL_NAME_free(one);
		ASN1_STRING_free(s);
		return i ? err_set(e, ERR_INPUT, "\"%s\" is not an address for a certificate", addresses[i - 1])
			 : openssl_error(e, "alternative names");
	}
	if (!names || X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0) != 1)
		return openssl_error(e, "alternative names");
	return 0;
}

static int64_t time_of(const ASN1_TIME *t)
{
	struct tm tm;

	return ASN1_TIME_to_tm(t, &tm) ? (int64_t)timegm(&tm) : 0;
}

/* What a new certificate is to say. */
struct pki_order {
	const char *request;
	const char *name;
	enum pki_role role;
	const char *const *addresses;
	size_t n_addresses;
	int64_t now_s;
};

static int issue(const char *ca_key, const char *ca_cert, const struct pki_order *o, char **ret_cert, struct err *e)
{
	_x509_ X509 *ca = cert_read(ca_cert, "CA certificate", e);
	_pkey_ EVP_PKEY *key = ca ? key_read(ca_key, "CA key", e) : NULL;
	_req_ X509_REQ *req = key ? req_checked(o->request, o->name, e) : NULL;
	_x509_ X509 *cert = X509_new();
	bool node = o->role == PKI_ROLE_NODE;
	int64_t until_s = o->now_s + PKI_CERT_DAYS * PKI_DAY_S;

	if (!req)
		return -1;
	if (!cert)
		return openssl_error(e, "making a certificate");
	if (!X509_check_private_key(ca, key)) {
		ERR_clear_error();
		return err_set(e, ERR_INPUT, "the CA key does not belong to the CA certificate");
	}
	if (time_of(X509_get0_notAfter(ca)) <= o->now_s)
		return err_set(e, ERR_INPUT, "the cluster's CA has expired: no certificate can be issued");
	if (until_s > time_of(X509_get0_notAfter(ca)))
		until_s = time_of(X509_get0_notAfter(ca));
	if (cert_begin(cert, X509_REQ_get0_pubkey(req), pki_role_names[o->role], o->name, X509_get_subject_name(ca),
		       o->now_s - PKI_BACKDATE_S, until_s, e) < 0 ||
	    add_extension(cert, ca, NID_basic_constraints, "critical,CA:FALSE", e) < 0 ||
	    add_extension(cert, ca, NID_key_usage, "critical,digitalSignature", e) < 0 ||
	    add_extension(cert, ca, NID_ext_key_usage, node ? "serverAuth,clientAuth" : "clientAuth", e) < 0 ||
	    add_extension(cert, ca, NID_subject_key_identifier, "hash", e) < 0 ||
	    add_extension(cert, ca, NID_authority_key_identifier, "keyid:always", e) < 0 ||
	    (node && add_alt_names(cert, o->name, o->addresses, o->n_addresses, e) < 0) || cert_sign(cert, key, e) < 0)
		return -1;
	return cert_write(cert, ret_cert, e);
}

int pki_node_issue(const char *ca_key, const char *ca_cert, const char *request, const char *name,
		   const char *const *addresses, size_t n_addresses, int64_t now_s, char **ret_cert, struct err *e)
{
	struct pki_order o = {
		.request = request,
		.name = name,
		.role = PKI_ROLE_NODE,
		.addresses = addresses,
		.n_addresses = n_addresses,
		.now_s = now_s,
	};

	if (issue(ca_key, ca_cert, &o, ret_cert, e) < 0)
		return err_wrap(e, "certificate for node \"%s\"", name);
	return 0;
}

int pki_user_issue(const char *ca_key, const char *ca_cert, const char *request, const char *name, enum pki_role role,
		   int64_t now_s, char **ret_cert, struct err *e)
{
	struct pki_order o = {.request = request, .name = name, .role = role, .now_s = now_s};

	if (role < PKI_ROLE_VIEWER || role > PKI_ROLE_ADMIN)
		return err_set(e, ERR_INPUT, "a user's role is viewer, operator or admin");
	if (issue(ca_key, ca_cert, &o, ret_cert, e) < 0)
		return err_wrap(e, "certificate for user \"%s\"", name);
	return 0;
}

/* ---- reading and judging ---- */

enum pki_role pki_role_parse(const char *name)
{
	for (int r = PKI_ROLE_NONE + 1; r < PKI_ROLE_MAX; r++)
		if (strcmp(name, pki_role_names[r]) == 0)
			return (enum pki_role)r;
	return PKI_ROLE_NONE;
}

static int fingerprint_of(const X509 *cert, uint8_t ret[PKI_FINGERPRINT_SIZE], struct err *e)
{
	return X509_digest(cert, EVP_sha256(), ret, NULL) ? 0 : openssl_error(e, "hashing a certificate");
}

int pki_info_of(X509 *cert, struct pki_info *ret, struct err *e)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);
	struct pki_info info = {0};
	char role[PKI_NAME_MAX];
	char *p = info.serial;

	if (!name_get(X509_get_subject_name(cert), NID_commonName, info.name))
		return err_set(e, ERR_INPUT, "the certificate has not exactly one name (CN) of 1 to %d characters",
			       PKI_NAME_MAX - 1);
	for (char *c = info.name; *c; c++)
		if ((unsigned char)*c < ' ' || (unsigned char)*c >= 0x7f)
			return err_set(e, ERR_INPUT, "the certificate has a name (CN) that is not plain text");
	if (name_get(X509_get_subject_name(cert), NID_organizationalUnitName, role))
		info.role = pki_role_parse(role);
	info.from_s = time_of(X509_get0_notBefore(cert));
	info.until_s = time_of(X509_get0_notAfter(cert));
	for (int i = 0; i < ASN1_STRING_length(serial) && i < SERIAL_SIZE; i++)
		p += sprintf(p, "%02x", ASN1_STRING_get0_data(serial)[i]);
	if (fingerprint_of(cert, info.fingerprint, e) < 0)
		return -1;
	*ret = info;
	return 0;
}

int pki_info_read(const char *cert, struct pki_info *ret, struct err *e)
{
	_x509_ X509 *x = cert_read(cert, "certificate", e);

	return x ? pki_info_of(x, ret, e) : -1;
}

int pki_fingerprint(const char *cert, uint8_t ret[PKI_FINGERPRINT_SIZE], struct err *e)
{
	_x509_ X509 *x = cert_read(cert, "certificate", e);

	return x ? fingerprint_of(x, ret, e) : -1;
}

void pki_fingerprint_text(const uint8_t fingerprint[PKI_FINGERPRINT_SIZE], char *ret)
{
	for (int i = 0; i < PKI_FINGERPRINT_SIZE; i++)
		sprintf(ret + 3L * i, "%02X%s", fingerprint[i], i + 1 < PKI_FINGERPRINT_SIZE ? ":" : "");
}

static void date_text(int64_t time_s, char ret[DATE_MAX])
{
	time_t t = (time_t)time_s;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(ret, DATE_MAX, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(ret, DATE_MAX, "(no date)");
}

/* "3 days 4 hours": two units are enough to see whether it is the time zone, the battery or the year. */
static void span_text(int64_t s, char ret[DATE_MAX])
{
	long long days = s / PKI_DAY_S, hours = s / 3600 % 24, minutes = s / 60 % 60, seconds = s % 60;

	if (days)
		snprintf(ret, DATE_MAX, "%lld d %lld h", days, hours);
	else if (hours)
		snprintf(ret, DATE_MAX, "%lld h %lld min", hours, minutes);
	else
		snprintf(ret, DATE_MAX, "%lld min %lld s", minutes, seconds);
}

static int check_dates(const X509 *cert, const char *whose, int64_t now_s, struct err *e)
{
	int64_t from_s = time_of(X509_get0_notBefore(cert)), until_s = time_of(X509_get0_notAfter(cert));
	char date[DATE_MAX], now[DATE_MAX], span[DATE_MAX];

	date_text(now_s, now);
	if (now_s < from_s) {
		date_text(from_s, date);
		span_text(from_s - now_s, span);
		return err_set(e, ERR_AUTH,
			       "%s is valid only from %s, and the clock here says %s, %s earlier: set the clocks",
			       whose, date, now, span);
	}
	if (now_s >= until_s) {
		date_text(until_s, date);
		span_text(now_s - until_s, span);
		return err_set(e, ERR_AUTH, "%s expired on %s, and the clock here says %s, %s later: %s", whose, date,
			       now, span, "renew it, or set the clock");
	}
	return 0;
}

/* The CN for a message; what a stranger chose is made harmless. */
static void name_text(const X509_NAME *name, char ret[PKI_NAME_MAX])
{
	if (!name_get(name, NID_commonName, ret))
		snprintf(ret, PKI_NAME_MAX, "(no name)");
	for (char *p = ret; *p; p++)
		if ((unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f)
			*p = '?';
}

static int check_issuer(X509 *ca, X509 *cert, const char *whose, struct err *e)
{
	char ours[PKI_NAME_MAX], theirs[PKI_NAME_MAX];

	if (X509_check_ca(ca) != 1)
		return err_set(e, ERR_AUTH, "the CA certificate is not one of a CA");
	name_text(X509_get_subject_name(ca), ours);
	name_text(X509_get_issuer_name(cert), theirs);
	if (X509_NAME_cmp(X509_get_subject_name(ca), X509_get_issuer_name(cert)) != 0)
		return err_set(e, ERR_AUTH,
			       "%s is of another cluster: it was issued by \"%s\", and this cluster's CA is \"%s\"",
			       whose, theirs, ours);
	if (X509_check_issued(ca, cert) != X509_V_OK || X509_verify(cert, X509_get0_pubkey(ca)) != 1) {
		ERR_clear_error();
		return err_set(e, ERR_AUTH, "%s claims to be issued by this cluster's CA \"%s\", and is not", whose,
			       ours);
	}
	return 0;
}

bool pki_key_fits(const char *cert, const char *key)
{
	_x509_ X509 *x = cert_read(cert, "certificate", NULL);
	_pkey_ EVP_PKEY *k = key_read(key, "key", NULL);
	bool fits = x && k && X509_check_private_key(x, k) == 1;

	ERR_clear_error();
	return fits;
}

int pki_check(const char *ca_cert, const char *cert, const char *name, const char *key, int64_t now_s, struct err *e)
{
	_x509_ X509 *ca = cert_read(ca_cert, "CA certificate", e);
	_x509_ X509 *x = ca ? cert_read(cert, "certificate", e) : NULL;
	char cn[PKI_NAME_MAX];
	_free_ char *whose = NULL;

	if (!x)
		return -1;
	name_text(X509_get_subject_name(x), cn);
	whose = xasprintf("the certificate of \"%s\"", cn);
	if (check_issuer(ca, x, whose, e) < 0 || check_dates(ca, "the cluster's CA", now_s, e) < 0 ||
	    check_dates(x, whose, now_s, e) < 0)
		return -1;
	if (name && strcmp(name, cn) != 0)
		return err_set(e, ERR_AUTH, "%s is not for \"%s\"", whose, name);
	if (key && !pki_key_fits(cert, key))
		return err_set(e, ERR_AUTH, "%s belongs to another private key", whose);
	return 0;
}

int64_t pki_renew_at(int64_t from_s, int64_t until_s, unsigned node_id)
{
	int64_t life_s = until_s > from_s ? until_s - from_s : 0;
	/* Fibonacci hashing spreads small neighbouring ids evenly over 16 bits. */
	int64_t spread = (node_id * 2654435769U) >> 16;

	return from_s + life_s / 3 * 2 + (life_s / 20 * spread >> 16);
}

bool pki_renew_due(const struct pki_info *cert, int64_t ca_until_s, int64_t now_s, unsigned node_id)
{
	return cert->until_s < ca_until_s && now_s >= pki_renew_at(cert->from_s, cert->until_s, node_id);
}
