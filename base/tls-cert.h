/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates for base/tls.c: loading our own with readable errors, describing and judging the other side's. */
#ifndef GODWIT_BASE_TLS_CERT_H
#define GODWIT_BASE_TLS_CERT_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define CERT_NAME_MAX 256

/* Load ca.pem, cert.pem and key.pem of @dir into @ssl_ctx: the rules are those of tls_ctx_load(). 0 or -1 with @e. */
int cert_load_dir(SSL_CTX *ssl_ctx, const char *dir, struct err *e);

/* Load only the CA certificates of the PEM file at @path. 0 or -1 with @e. */
int cert_load_ca(SSL_CTX *ssl_ctx, const char *path, struct err *e);

#define CERT_DIGEST_SIZE 32

/* SHA-256 of the whole certificate (DER). Pure. */
void cert_digest(const X509 *cert, uint8_t ret[CERT_DIGEST_SIZE]);

/* The name people know the certificate by: its first subject alternative name, else its CN, else "(no name)".
 * Writes at most CERT_NAME_MAX bytes to @ret. Control characters become '?'. Pure. */
void cert_name(const X509 *cert, char *ret);

/* Does the certificate say that it is meant for TLS servers (@server) or clients? One that says nothing is not. Pure.
 */
bool cert_has_usage(X509 *cert, bool server);

/* Fill @e (ERR_AUTH) for a certificate of the other side that verification refused with @verify_error (X509_V_ERR_*).
 * @expect_name is the name that was asked for, or NULL. @server: the certificate is a server's. */
void cert_explain(X509 *cert, int verify_error, bool server, const char *expect_name, struct err *e);

#endif
