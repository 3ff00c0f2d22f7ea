/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates: loading ours, explaining what is wrong with theirs. */
#include "base/tls-cert.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/mem.h"

#define DATE_MAX 32
#define KEY_MODE_REFUSED 037 /* group may read, nobody else may do anything */

static void pkey_freep(EVP_PKEY **p)
{
	EVP_PKEY_free(*p);
}

static void store_ctx_freep(X509_STORE_CTX **p)
{
	X509_STORE_CTX_free(*p);
}

static void names_freep(GENERAL_NAMES **p)
{
	GENERAL_NAMES_free(*p);
}

/* Keep what a peer chose from playing with the terminal. */
static void make_printable(char *s)
{
	for (; *s; s++) {
		if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f)
			*s = '?';
	}
}

static void format_date(const ASN1_TIME *t, char ret[DATE_MAX])
{
	struct tm tm;

	if (!ASN1_TIME_to_tm(t, &tm) || !strftime(ret, DATE_MAX, "%Y-%m-%d %H:%M UTC", &tm))
		snprintf(ret, DATE_MAX, "(no date)");
}

/* One subject alternative name as text; false for the kinds that are not host names. */
static bool format_general_name(const GENERAL_NAME *gn, char *ret)
{
	int type = 0;
	const ASN1_STRING *s = GENERAL_NAME_get0_value(gn, &type);

	if (type == GEN_DNS) {
		snprintf(ret, CERT_NAME_MAX, "%.*s", ASN1_STRING_length(s), (const char *)ASN1_STRING_get0_data(s));
		return true;
	}
	if (type != GEN_IPADD)
		return false;
	return inet_ntop(ASN1_STRING_length(s) == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(s), ret,
			 CERT_NAME_MAX) != NULL;
}

/* All host names of the certificate, separated by ", ", cut where @size ends. */
static void format_alt_names(const X509 *cert, char *ret, size_t size)
{
	__attribute__((cleanup(names_freep))) GENERAL_NAMES *names =
		X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	size_t used = 0;

	ret[0] = 0;
	for (int i = 0; names && i < sk_GENERAL_NAME_num(names) && used < size; i++) {
		char one[CERT_NAME_MAX];

		if (format_general_name(sk_GENERAL_NAME_value(names, i), one))
			used += (size_t)snprintf(ret + used, size - used, "%s%s", used ? ", " : "", one);
	}
	if (!ret[0])
		snprintf(ret, size, "no host");
	make_printable(ret);
}

void cert_name(const X509 *cert, char *ret)
{
	__attribute__((cleanup(names_freep))) GENERAL_NAMES *names =
		X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	bool found = false;

	for (int i = 0; names && !found && i < sk_GENERAL_NAME_num(names); i++)
		found = format_general_name(sk_GENERAL_NAME_value(names, i), ret);
	if (!found && X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, ret, CERT_NAME_MAX) <= 0)
		snprintf(ret, CERT_NAME_MAX, "(no name)");
	make_printable(ret);
}

bool cert_has_usage(X509 *cert, bool server)
{
	if (!(X509_get_extension_flags(cert) & EXFLAG_XKUSAGE))
		return false;
	return X509_get_extended_key_usage(cert) & (server ? XKU_SSL_SERVER : XKU_SSL_CLIENT);
}

void cert_explain(X509 *cert, int verify_error, bool server, const char *expect_name, struct err *e)
{
	const char *side = server ? "server" : "client";
	char name[CERT_NAME_MAX] = "(none)";
	char alt[512];
	char date[DATE_MAX];

	if (cert)
		cert_name(cert, name);
	switch (verify_error) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		format_date(X509_get0_notAfter(cert), date);
		err_set(e, ERR_AUTH, "the %s's certificate \"%s\" expired on %s: renew it there", side, name, date);
		break;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		format_date(X509_get0_notBefore(cert), date);
		err_set(e, ERR_AUTH, "the %s's certificate \"%s\" is not valid before %s: check the clocks", side, name,
			date);
		break;
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		format_alt_names(cert, alt, sizeof(alt));
		err_set(e, ERR_AUTH,
			"the %s's certificate is for %s, but %s is \"%s\": give it a certificate with that "
			"name",
			side, alt, server ? "the host connected to" : "the client expected", expect_name);
		break;
	case X509_V_ERR_INVALID_PURPOSE:
		err_set(e, ERR_AUTH,
			"the %s's certificate \"%s\" is not meant for TLS %ss: its extended key usage lacks %sAuth",
			side, name, side, side);
		break;
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
		err_set(e, ERR_AUTH,
			"the %s's certificate \"%s\" is signed by an unknown CA: both sides need the same ca.pem", side,
			name);
		break;
	default:
		err_set(e, ERR_AUTH, "the %s's certificate \"%s\" is refused: %s", side, name,
			X509_verify_cert_error_string(verify_error));
	}
}

/* The reason of OpenSSL's newest error, which is then forgotten. */
static const char *openssl_reason(void)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	ERR_clear_error();
	return reason ? reason : "unknown reason";
}

/* A whole-file PEM object must be valid now; @path for the message. */
static int check_dates(const X509 *cert, const char *path, struct err *e)
{
	char date[DATE_MAX];

	if (X509_cmp_current_time(X509_get0_notAfter(cert)) < 0) {
		format_date(X509_get0_notAfter(cert), date);
		return err_set(e, ERR_INPUT, "%s: the certificate expired on %s: renew it", path, date);
	}
	if (X509_cmp_current_time(X509_get0_notBefore(cert)) > 0) {
		format_date(X509_get0_notBefore(cert), date);
		return err_set(e, ERR_INPUT, "%s: the certificate is not valid before %s: check the clock", path, date);
	}
	return 0;
}

/* Read every certificate of the PEM file into @store (@store given) or as our chain into @ssl_ctx. */
static int load_certs(SSL_CTX *ssl_ctx, X509_STORE *store, const char *path, struct err *e)
{
	_closefile_ FILE *f = fopen(path, "re");
	int n = 0;

	if (!f)
		return err_sys(e, "%s", path);
	for (X509 *cert; (cert = PEM_read_X509(f, NULL, NULL, NULL)); n++) {
		int r = check_dates(cert, path, e);

		if (!r && !(store ? X509_STORE_add_cert(store, cert)
			    : n   ? SSL_CTX_add1_chain_cert(ssl_ctx, cert)
				  : SSL_CTX_use_certificate(ssl_ctx, cert)))
			r = err_set(e, ERR_INPUT, "%s: %s", path, openssl_reason());
		X509_free(cert);
		if (r < 0)
			return -1;
	}
	if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		return err_set(e, ERR_INPUT, "%s: damaged certificate: %s", path, openssl_reason());
	ERR_clear_error();
	return n ? 0
		 : err_set(e, ERR_INPUT, "%s: holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", path);
}

/* We never ask for a passphrase: nobody may be there to type it. */
static int refuse_passphrase(char *buf, int size, int rwflag, void *asked)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	*(bool *)asked = true;
	return -1;
}

static int load_key(SSL_CTX *ssl_ctx, const char *path, const char *cert_path, struct err *e)
{
	_closefile_ FILE *f = fopen(path, "re");
	__attribute__((cleanup(pkey_freep))) EVP_PKEY *key = NULL;
	bool asked = false;
	struct stat st;

	if (!f)
		return err_sys(e, "%s", path);
	if (fstat(fileno(f), &st) < 0)
		return err_sys(e, "%s", path);
	if (S_ISREG(st.st_mode) && (st.st_mode & KEY_MODE_REFUSED))
		return err_set(e, ERR_INPUT, "%s: the private key is open to others (mode %04o): chmod 600 it", path,
			       (unsigned)st.st_mode & 07777);
	key = PEM_read_PrivateKey(f, NULL, refuse_passphrase, &asked);
	if (!key && asked) {
		ERR_clear_error();
		return err_set(e, ERR_INPUT, "%s: the private key has a passphrase: store it without one", path);
	}
	if (!key)
		return err_set(e, ERR_INPUT, "%s: holds no private key in PEM form: %s", path, openssl_reason());
	if (!X509_check_private_key(SSL_CTX_get0_certificate(ssl_ctx), key)) {
		ERR_clear_error();
		return err_set(e, ERR_INPUT, "%s: the private key does not belong to %s", path, cert_path);
	}
	if (SSL_CTX_use_PrivateKey(ssl_ctx, key) != 1)
		return err_set(e, ERR_INPUT, "%s: %s", path, openssl_reason());
	return 0;
}

/* What the other side will do with our certificate, done here first: the message is better on this side. */
static int check_own_chain(SSL_CTX *ssl_ctx, const char *cert_path, const char *ca_path, struct err *e)
{
	__attribute__((cleanup(store_ctx_freep))) X509_STORE_CTX *sc = X509_STORE_CTX_new();
	STACK_OF(X509) *chain = NULL;

	SSL_CTX_get0_chain_certs(ssl_ctx, &chain);
	if (!sc || !X509_STORE_CTX_init(sc, SSL_CTX_get_cert_store(ssl_ctx), SSL_CTX_get0_certificate(ssl_ctx), chain))
		return err_set(e, ERR_SYSTEM, "%s: %s", cert_path, openssl_reason());
	if (X509_verify_cert(sc) == 1)
		return 0;
	err_set(e, ERR_INPUT, "%s: the CA in %s does not vouch for this certificate: %s", cert_path, ca_path,
		X509_verify_cert_error_string(X509_STORE_CTX_get_error(sc)));
	ERR_clear_error();
	return -1;
}

int cert_load_ca(SSL_CTX *ssl_ctx, const char *path, struct err *e)
{
	ERR_clear_error();
	return load_certs(ssl_ctx, SSL_CTX_get_cert_store(ssl_ctx), path, e);
}

void cert_digest(const X509 *cert, uint8_t ret[CERT_DIGEST_SIZE])
{
	unsigned size = CERT_DIGEST_SIZE;

	if (X509_digest(cert, EVP_sha256(), ret, &size) != 1 || size != CERT_DIGEST_SIZE)
		abort();
}

int cert_load_dir(SSL_CTX *ssl_ctx, const char *dir, struct err *e)
{
	_free_ char *ca = xasprintf("%s/ca.pem", dir);
	_free_ char *cert = xasprintf("%s/cert.pem", dir);
	_free_ char *key = xasprintf("%s/key.pem", dir);

	ERR_clear_error();
	if (load_certs(ssl_ctx, SSL_CTX_get_cert_store(ssl_ctx), ca, e) < 0)
		return -1;
	if (load_certs(ssl_ctx, NULL, cert, e) < 0)
		return -1;
	if (load_key(ssl_ctx, key, cert, e) < 0)
		return -1;
	return check_own_chain(ssl_ctx, cert, ca, e);
}
