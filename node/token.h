/* SPDX-License-Identifier: Apache-2.0 */
/* Join tokens: one string that tells a new host where the cluster is, which CA it has, and that it may join, once. */
#ifndef GODWIT_NODE_TOKEN_H
#define GODWIT_NODE_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sock.h"

#define TOKEN_ID_SIZE 16
#define TOKEN_SECRET_SIZE 16
#define TOKEN_HASH_SIZE 32
#define TOKEN_FINGERPRINT_SIZE 32
#define TOKEN_PASS_MAX 64 /* "<id>.<secret>" with its NUL */
#define TOKEN_ID_TEXT_MAX 32

struct token {
	struct sock_addr host;                   /* of a member that answers joins */
	uint8_t id[TOKEN_ID_SIZE];               /* public: names the token in lists and in the log */
	uint8_t secret[TOKEN_SECRET_SIZE];       /* never stored by the cluster, only its hash */
	uint8_t ca_hash[TOKEN_FINGERPRINT_SIZE]; /* SHA-256 of the CA certificate's DER */
};

/* What the cluster remembers of a token that it has handed out. */
struct token_record {
	uint8_t hash[TOKEN_HASH_SIZE];
	int64_t expires_s; /* seconds since 1970 */
	bool used;
	bool revoked;
};

/* A new random token for a cluster whose CA has the fingerprint @ca_hash. @host: HOST:PORT. 0 or -1 with @e. */
int token_make(const char *host, const uint8_t ca_hash[TOKEN_FINGERPRINT_SIZE], struct token *ret, struct err *e);

/* The whole token as text. Caller frees, and keeps it out of the log. Pure. */
char *token_encode(const struct token *t);

/* Read a token as a person pasted it: blanks around it and the case of letters do not matter, nor O for 0, I or L for 1
 * within the codes. ERR_USAGE with what is wrong: not a token, cut short, a newer kind, a typo. Pure. */
int token_decode(const char *text, struct token *ret, struct err *e);

/* The part that travels in a join request: "<id>.<secret>". Pure. */
void token_pass_encode(const struct token *t, char ret[TOKEN_PASS_MAX]);
/* Fills id and secret of @ret. ERR_PROTOCOL. Pure. */
int token_pass_decode(const char *text, struct token *ret, struct err *e);

/* The id as text. Pure. */
void token_id_text(const uint8_t id[TOKEN_ID_SIZE], char ret[TOKEN_ID_TEXT_MAX]);

/* What the cluster stores instead of the secret. Pure. */
void token_hash(const struct token *t, uint8_t ret[TOKEN_HASH_SIZE]);

/* May a host that shows @t join at @now_s? @record is the cluster's record with this id, NULL when there is none.
 * 0, or -1 with ERR_AUTH: unknown, wrong secret, used, revoked, expired since when. A wrong secret hears no more
 * than "unknown". Pure. */
int token_check(const struct token *t, const struct token_record *record, int64_t now_s, struct err *e);

#endif
