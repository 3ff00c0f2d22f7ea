/* SPDX-License-Identifier: Apache-2.0 */
/* Join tokens as text, and who may join with one.
 *
 * The text form is
 *
 *	GODWIT1.<host:port>.<id>.<secret>.<fingerprint><check>
 *
 * id and secret are 16 random bytes each (26 characters), the fingerprint is the SHA-256 of the CA certificate (52),
 * check is 3 characters. All are in Crockford's base32: no letter looks like a digit there, and what people read wrong
 * all the same (O, I, L, small letters) is read as what it must have been. The host may hold dots, so the fields are
 * found from the end, where their lengths are known.
 *
 * check is a CRC of 15 bits over everything before it, in the form that is read back. CRC-15 (the polynomial of CAN)
 * sees every burst of up to 15 bits: any wrong character, and any two neighbours swapped, since characters have 7 bits.
 * So a typo is told apart from a token that has expired, before anybody is asked.
 *
 * The id is public. The secret proves the right to join; the cluster keeps a hash of id and secret. A plain SHA-256 is
 * enough: the secret is 128 random bits, not a password. The fingerprint works the other way: it proves the cluster to
 * the new host, which has no other reason to trust whoever answers at host:port.
 */
#include "node/token.h"

#include <ctype.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"

#define PREFIX "GODWIT1."
#define KEY_CHARS 26         /* 16 bytes */
#define FINGERPRINT_CHARS 52 /* 32 bytes */
#define CHECK_CHARS 3
#define TAIL_CHARS (1 + KEY_CHARS + 1 + KEY_CHARS + 1 + FINGERPRINT_CHARS + CHECK_CHARS)
#define HOST_MAX (sizeof(((struct sock_addr *)NULL)->host) + sizeof(((struct sock_addr *)NULL)->port) + 4)
#define TEXT_MAX (sizeof(PREFIX) + HOST_MAX + TAIL_CHARS)

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/* The value of one character, -1 when it is none of ours. */
static int digit_value(char c)
{
	const char *p;

	c = (char)toupper((unsigned char)c);
	if (c == 'O')
		c = '0';
	if (c == 'I' || c == 'L')
		c = '1';
	p = c ? strchr(alphabet, c) : NULL;
	return p ? (int)(p - alphabet) : -1;
}

/* @n bytes as (8n + 4) / 5 characters, the last one padded with zero bits, and a NUL. Returns where the NUL is. */
static char *base32_encode(const uint8_t *data, size_t n, char *out)
{
	unsigned bits = 0, held = 0;

	for (size_t i = 0; i < n; i++) {
		held = (held << 8 | data[i]) & 0xfff;
		for (bits += 8; bits >= 5; bits -= 5)
			*out++ = alphabet[held >> (bits - 5) & 31];
	}
	if (bits)
		*out++ = alphabet[held << (5 - bits) & 31];
	*out = 0;
	return out;
}

/* The other way: @n bytes from @text. -1 for a strange character or padding that is not zero. */
static int base32_decode(const char *text, uint8_t *data, size_t n)
{
	unsigned bits = 0, held = 0;

	for (size_t i = 0; i < n;) {
		int v = digit_value(*text++);

		if (v < 0)
			return -1;
		held = (held << 5 | (unsigned)v) & 0xfff;
		bits += 5;
		if (bits >= 8) {
			bits -= 8;
			data[i++] = (uint8_t)(held >> bits);
		}
	}
	return held & ((1U << bits) - 1) ? -1 : 0;
}

static uint16_t crc15(const char *data, size_t n)
{
	uint16_t crc = 0x7fff; /* not 0, or zeros in front would not count */

	for (size_t i = 0; i < n; i++) {
		crc ^= (uint16_t)((unsigned char)data[i] << 7);
		for (int bit = 0; bit < 8; bit++)
			crc = (uint16_t)((crc & 0x4000 ? crc << 1 ^ 0x4599 : crc << 1) & 0x7fff);
	}
	return crc;
}

static void check_chars(const char *text, size_t n, char ret[CHECK_CHARS + 1])
{
	uint16_t crc = crc15(text, n);

	for (int i = 0; i < CHECK_CHARS; i++)
		ret[i] = alphabet[crc >> (10 - 5 * i) & 31];
	ret[CHECK_CHARS] = 0;
}

/* Everything of the token but the check, in the one form that the check is taken of. */
static void canonical_text(const struct token *t, char ret[TEXT_MAX])
{
	bool v6 = strchr(t->host.host, ':');
	char *p = ret + snprintf(ret, TEXT_MAX, PREFIX "%s%s%s:%s.", v6 ? "[" : "", t->host.host, v6 ? "]" : "",
				 t->host.port);

	p = base32_encode(t->id, sizeof(t->id), p);
	*p++ = '.';
	p = base32_encode(t->secret, sizeof(t->secret), p);
	*p++ = '.';
	base32_encode(t->ca_hash, sizeof(t->ca_hash), p);
}

/* Host names and addresses are written small, and hold nothing that a terminal or a shell would take differently. */
static int host_parse(const char *text, struct sock_addr *ret, struct err *e)
{
	struct sock_addr a;
	char *end;
	long port;

	if (sock_addr_parse(text, &a, e) < 0)
		return -1;
	port = strtol(a.port, &end, 10);
	if (!a.host[0] || *end || !isdigit((unsigned char)a.port[0]) || port < 1 || port > 65535)
		return err_set(e, ERR_USAGE, "\"%.64s\" is not HOST:PORT", text);
	for (char *p = a.host; *p; p++) {
		*p = (char)tolower((unsigned char)*p);
		if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789.-:%_", *p))
			return err_set(e, ERR_USAGE, "\"%.64s\" is not a host name or an address", text);
	}
	snprintf(a.port, sizeof(a.port), "%ld", port);
	*ret = a;
	return 0;
}

int token_make(const char *host, const uint8_t ca_hash[TOKEN_FINGERPRINT_SIZE], struct token *ret, struct err *e)
{
	struct token t = {0};

	if (host_parse(host, &t.host, e) < 0)
		return -1;
	if (RAND_bytes(t.id, sizeof(t.id)) != 1 || RAND_bytes(t.secret, sizeof(t.secret)) != 1)
		return err_set(e, ERR_SYSTEM, "OpenSSL has no random bytes");
	memcpy(t.ca_hash, ca_hash, sizeof(t.ca_hash));
	*ret = t;
	return 0;
}

char *token_encode(const struct token *t)
{
	char text[TEXT_MAX], check[CHECK_CHARS + 1];

	canonical_text(t, text);
	check_chars(text, strlen(text), check);
	return xasprintf("%s%s", text, check);
}

/* The codes at @tail, which has TAIL_CHARS characters, into @t and @ret_check. -1 for a strange character or a dot in
 * the wrong place. */
static int tail_parse(const char *tail, struct token *t, char ret_check[CHECK_CHARS + 1])
{
	const char *secret = tail + 1 + KEY_CHARS, *fingerprint = secret + 1 + KEY_CHARS;
	const char *check = fingerprint + 1 + FINGERPRINT_CHARS;

	if (tail[0] != '.' || secret[0] != '.' || fingerprint[0] != '.')
		return -1;
	if (base32_decode(tail + 1, t->id, sizeof(t->id)) < 0 ||
	    base32_decode(secret + 1, t->secret, sizeof(t->secret)) < 0 ||
	    base32_decode(fingerprint + 1, t->ca_hash, sizeof(t->ca_hash)) < 0)
		return -1;
	for (int i = 0; i < CHECK_CHARS; i++) {
		if (digit_value(check[i]) < 0)
			return -1;
		ret_check[i] = alphabet[digit_value(check[i])];
	}
	ret_check[CHECK_CHARS] = 0;
	return 0;
}

static int typo(struct err *e)
{
	return err_set(e, ERR_USAGE,
		       "the join token has a typo (its check characters do not match): copy it again, whole");
}

int token_decode(const char *text, struct token *ret, struct err *e)
{
	char canonical[TEXT_MAX], check[CHECK_CHARS + 1], expect[CHECK_CHARS + 1], host[HOST_MAX];
	struct token t = {0};
	size_t n, host_len;

	text += strspn(text, " \t\r\n");
	n = strlen(text);
	while (n && strchr(" \t\r\n", text[n - 1]))
		n--;
	if (strncasecmp(text, "GODWIT", 6) != 0)
		return err_set(e, ERR_USAGE,
			       "that is not a join token: one begins with " PREFIX
			       " and is printed by \"godwit cluster token\"");
	if (strncasecmp(text, PREFIX, strlen(PREFIX)) != 0 && isdigit((unsigned char)text[6]) &&
	    strcspn(text, ".") < 12)
		return err_set(e, ERR_USAGE,
			       "the join token is of a kind (%.*s) that this version does not know: it reads GODWIT1",
			       (int)strcspn(text, "."), text);
	if (strncasecmp(text, PREFIX, strlen(PREFIX)) != 0)
		return typo(e);
	if (n < strlen(PREFIX) + strlen("h:1") + TAIL_CHARS)
		return err_set(e, ERR_USAGE, "the join token is cut short: copy all of it, up to the last character");
	host_len = n - strlen(PREFIX) - TAIL_CHARS;
	if (host_len >= sizeof(host) || tail_parse(text + n - TAIL_CHARS, &t, check) < 0)
		return typo(e);
	snprintf(host, sizeof(host), "%.*s", (int)host_len, text + strlen(PREFIX));
	if (host_parse(host, &t.host, NULL) < 0)
		return typo(e);
	canonical_text(&t, canonical);
	check_chars(canonical, strlen(canonical), expect);
	if (strcmp(check, expect) != 0)
		return typo(e);
	*ret = t;
	return 0;
}

void token_pass_encode(const struct token *t, char ret[TOKEN_PASS_MAX])
{
	char *p = base32_encode(t->id, sizeof(t->id), ret);

	*p++ = '.';
	base32_encode(t->secret, sizeof(t->secret), p);
}

int token_pass_decode(const char *text, struct token *ret, struct err *e)
{
	struct token t = *ret;

	if (strlen(text) != 2 * KEY_CHARS + 1 || text[KEY_CHARS] != '.' ||
	    base32_decode(text, t.id, sizeof(t.id)) < 0 ||
	    base32_decode(text + KEY_CHARS + 1, t.secret, sizeof(t.secret)) < 0)
		return err_set(e, ERR_PROTOCOL, "the token of the join request is not <id>.<secret>");
	*ret = t;
	return 0;
}

void token_id_text(const uint8_t id[TOKEN_ID_SIZE], char ret[TOKEN_ID_TEXT_MAX])
{
	base32_encode(id, TOKEN_ID_SIZE, ret);
}

void token_hash(const struct token *t, uint8_t ret[TOKEN_HASH_SIZE])
{
	static const char use[] = "godwit join token 1"; /* with its NUL: no other hash of ours begins like this */
	uint8_t data[sizeof(use) + TOKEN_ID_SIZE + TOKEN_SECRET_SIZE];

	memcpy(data, use, sizeof(use));
	memcpy(data + sizeof(use), t->id, TOKEN_ID_SIZE);
	memcpy(data + sizeof(use) + TOKEN_ID_SIZE, t->secret, TOKEN_SECRET_SIZE);
	if (!EVP_Digest(data, sizeof(data), ret, NULL, EVP_sha256(), NULL))
		abort();
	OPENSSL_cleanse(data, sizeof(data));
}

int token_check(const struct token *t, const struct token_record *record, int64_t now_s, struct err *e)
{
	uint8_t hash[TOKEN_HASH_SIZE];
	char date[32];
	struct tm tm;
	time_t expires;

	token_hash(t, hash);
	if (!record || CRYPTO_memcmp(hash, record->hash, sizeof(hash)) != 0)
		return err_set(e, ERR_AUTH,
			       "the join token is unknown to this cluster: make one with \"godwit cluster token\"");
	if (record->revoked)
		return err_set(e, ERR_AUTH, "the join token was revoked: make another with \"godwit cluster token\"");
	if (record->used)
		return err_set(e, ERR_AUTH,
			       "the join token was used already, and counts once: make another with \"godwit cluster "
			       "token\"");
	if (now_s < record->expires_s)
		return 0;
	expires = (time_t)record->expires_s;
	if (!gmtime_r(&expires, &tm) || !strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(date, sizeof(date), "some time ago");
	return err_set(e, ERR_AUTH, "the join token expired on %s: make another with \"godwit cluster token\"", date);
}
