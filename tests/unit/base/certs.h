/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates made on the spot for tests: a CA and sets of ca.pem, cert.pem and key.pem, right ones and wrong ones. */
#ifndef GODWIT_TESTS_CERTS_H
#define GODWIT_TESTS_CERTS_H

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdbool.h>

/* What is wrong with a certificate: bits, 0 for nothing. */
enum certs_flaw {
	CERTS_EXPIRED = 1 << 0,     /* ended yesterday */
	CERTS_FUTURE = 1 << 1,      /* begins tomorrow */
	CERTS_SERVER_ONLY = 1 << 2, /* extended key usage: serverAuth alone */
	CERTS_CLIENT_ONLY = 1 << 3, /* extended key usage: clientAuth alone */
	CERTS_NO_USAGE = 1 << 4,    /* no extended key usage at all */
};

struct certs_ca {
	X509 *cert;
	EVP_PKEY *key;
};

/* A fresh self-signed P-256 CA. Aborts on failure, as everything here: tests cannot go on without. Free with
 * certs_ca_done(). */
void certs_ca_init(struct certs_ca *ca, const char *name);
void certs_ca_done(struct certs_ca *ca);

/* Make the directory @dir with ca.pem (@trusted), cert.pem and key.pem (signed by @signer). @names are the
 * alternative names separated by commas, DNS names and addresses; "" for none. @flaws: enum certs_flaw bits. */
void certs_write(const char *dir, const struct certs_ca *trusted, const struct certs_ca *signer, const char *names,
		 int flaws);

#endif
