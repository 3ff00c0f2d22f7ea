/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster's CA: making it, issuing, judging and renewing the certificates of nodes and users; PEM in, PEM out. */
#ifndef GODWIT_NODE_PKI_H
#define GODWIT_NODE_PKI_H

#include <openssl/x509.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define PKI_DAY_S 86400LL
#define PKI_CA_DAYS 3653 /* ten years */
#define PKI_CERT_DAYS 365
#define PKI_BACKDATE_S 3600LL /* certificates are valid an hour before they are made: clocks differ */
#define PKI_PEM_MAX 16384U    /* no PEM text of ours comes near */
#define PKI_NAME_MAX 64       /* of a node or a user, with its NUL: the limit of a CN (RFC 5280, ub-common-name) */
#define PKI_FINGERPRINT_SIZE 32
#define PKI_CLUSTER_NAME_MAX 40 /* leaves room for " CA " and 16 digits in a CN */

/* Who a certificate is for: its subject's OU. Users ordered by what they may do. */
enum pki_role {
	PKI_ROLE_NONE, /* not one of ours */
	PKI_ROLE_VIEWER,
	PKI_ROLE_OPERATOR,
	PKI_ROLE_ADMIN,
	PKI_ROLE_NODE,
	PKI_ROLE_MAX
};
extern const char *const pki_role_names[PKI_ROLE_MAX];

/* The role with this name; PKI_ROLE_NONE when there is none. */
enum pki_role pki_role_parse(const char *name);

/* Times are seconds since 1970, given by the caller. Texts that come back are the caller's to free; keys with
 * pki_key_free(), which wipes them. Nothing here has a side effect unless it says so. */

/* A CA with a certificate of its own for cluster @cluster: EC P-256, PKI_CA_DAYS. Its name is "@cluster CA " and 16
 * random hexadecimal digits, so that two clusters of the same name are told apart. */
int pki_ca_make(const char *cluster, int64_t now_s, char **ret_key, char **ret_cert, struct err *e);

/* A fresh key, and a request for a certificate that @name signs with it. The key need never leave the host. */
int pki_request_make(const char *name, char **ret_key, char **ret_request, struct err *e);
void pki_key_free(char *key);
void pki_key_freep(char **key);

/* Is @request a request for @name whose key is EC P-256 and which proves that its sender has that key? ERR_INPUT. */
int pki_request_check(const char *request, const char *name, struct err *e);

/* Issue what @request asks for, for PKI_CERT_DAYS, but never beyond the end of the CA. What the request wants is not
 * asked: names, role and purpose are those of the caller.
 * A node gets its name and @addresses as alternative names and is both TLS server and client; a user with @role is a
 * client, and its certificate names no host. */
int pki_node_issue(const char *ca_key, const char *ca_cert, const char *request, const char *name,
		   const char *const *addresses, size_t n_addresses, int64_t now_s, char **ret_cert, struct err *e);
int pki_user_issue(const char *ca_key, const char *ca_cert, const char *request, const char *name, enum pki_role role,
		   int64_t now_s, char **ret_cert, struct err *e);

struct pki_info {
	char name[PKI_NAME_MAX]; /* CN */
	enum pki_role role;
	int64_t from_s, until_s;
	uint8_t fingerprint[PKI_FINGERPRINT_SIZE];
	char serial[48]; /* hexadecimal */
};

/* What a certificate says. ERR_INPUT when it is not one, or has no CN that could be a node's or user's. The second form
 * is for a certificate that TLS has verified already. */
int pki_info_read(const char *cert, struct pki_info *ret, struct err *e);
int pki_info_of(X509 *cert, struct pki_info *ret, struct err *e);

/* SHA-256 of the DER of the first certificate in @cert. */
int pki_fingerprint(const char *cert, uint8_t ret[PKI_FINGERPRINT_SIZE], struct err *e);
/* As people compare it: "AB:CD:...". @ret: 3 * PKI_FINGERPRINT_SIZE bytes. */
void pki_fingerprint_text(const uint8_t fingerprint[PKI_FINGERPRINT_SIZE], char *ret);

/* Is @cert one of the CA @ca_cert, for @name (NULL: anybody), with a key that is @key's (NULL: not asked), valid at
 * @now_s? ERR_AUTH with a sentence for each: another cluster's (both CAs named), not yet valid or expired (with how far
 * this host's clock is from it), another name, another key. */
int pki_check(const char *ca_cert, const char *cert, const char *name, const char *key, int64_t now_s, struct err *e);

/* Does the private key belong to the certificate? */
bool pki_key_fits(const char *cert, const char *key);

/* When a certificate is to be renewed: when a third of its lifetime is left, or up to a twentieth of it later, by
 * @node_id, so that a cluster made in one minute does not renew in one minute. */
int64_t pki_renew_at(int64_t from_s, int64_t until_s, unsigned node_id);

/* Is it time? Not when a new certificate would end no later: it would be cut at the CA's end, @ca_until_s. */
bool pki_renew_due(const struct pki_info *cert, int64_t ca_until_s, int64_t now_s, unsigned node_id);

#endif
