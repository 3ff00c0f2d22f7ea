/* SPDX-License-Identifier: Apache-2.0 */
/* The join exchange.
 *
 *	new host                                              member
 *	token in hand: host, pass, fingerprint of the CA
 *	key and certificate request made here
 *	TLS to host; the CA shown there has the fingerprint,
 *	or nothing is said
 *	POST /v1/join {name, addresses, request, pass, ...} -> token_check(), membership_add()
 *	                                                       node.join is applied by all, the token is used up
 *	                                                       every member writes corosync.conf, one reloads
 *	                            {certificate, CA, conf, <-
 *	                             keys, id}
 *	join_answer_check(), then files, then corosync
 *
 * The private key stays on the new host. The CA's key goes to every member: any of them can let others in and renew its
 * own certificate, whoever else is down; and as a node's certificate may do everything, it gives nothing away. Neither
 *side believes the other: the member takes nothing from the request but its public key, and the new host installs
 *nothing that is not from the owner of the token's CA and about itself. */
#include "node/join.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "node/pki.h"

#define KEY_BASE64 ((COROSYNC_KEY_SIZE + 2) / 3 * 4)
#define CLOCK_MAX_MS 253402300799000LL /* the year 9999 */

/* One object being read; @code and @what for messages. */
struct reader {
	const json_t *o;
	enum err_code code;
	const char *what;
	struct err *e;
};

static int field_error(const struct reader *r, const char *field, const char *why)
{
	return err_set(r->e, r->code, "%s: field \"%s\" %s", r->what, field, why);
}

/* Nothing but the fields of @names, which ends with NULL, and format JOIN_FORMAT. */
static int read_shape(const struct reader *r, const char *const *names)
{
	json_t *format, *value;
	const char *key;

	if (!json_is_object(r->o))
		return err_set(r->e, r->code, "%s is not a JSON object", r->what);
	format = json_object_get(r->o, "format");
	if (!json_is_integer(format))
		return field_error(r, "format", "is not a number");
	if (json_integer_value(format) != JOIN_FORMAT)
		return err_set(r->e, r->code,
			       "%s has format %lld and this side knows format %d: install the same "
			       "version of Godwit on both",
			       r->what, (long long)json_integer_value(format), JOIN_FORMAT);
	json_object_foreach ((json_t *)r->o, key, value) {
		size_t i = 0;

		while (names[i] && strcmp(names[i], key) != 0)
			i++;
		if (!names[i] && strcmp(key, "format") != 0)
			return err_set(r->e, r->code, "%s: there is no field \"%.32s\"", r->what, key);
	}
	return 0;
}

/* A string of 1 to @max - 1 bytes; plain, or with line breaks for PEM and configuration. Borrowed; NULL with error. */
static const char *read_string(const struct reader *r, const char *field, size_t max, bool lines)
{
	json_t *v = json_object_get(r->o, field);
	const char *s = json_string_value(v);

	if (!s) {
		field_error(r, field, v ? "is not a string" : "is missing");
		return NULL;
	}
	if (!*s || json_string_length(v) >= max || strlen(s) != json_string_length(v)) {
		field_error(r, field, "is empty, too long, or holds a NUL");
		return NULL;
	}
	for (const char *p = s; *p; p++) {
		if (((unsigned char)*p >= ' ' && (unsigned char)*p < 0x7f) || (lines && strchr("\n\r\t", *p)))
			continue;
		field_error(r, field, "holds characters that are not plain text");
		return NULL;
	}
	return s;
}

static int read_text(const struct reader *r, const char *field, char *ret, size_t size)
{
	const char *s = read_string(r, field, size, false);

	if (!s)
		return -1;
	memcpy(ret, s, strlen(s) + 1);
	return 0;
}

static int read_lines(const struct reader *r, const char *field, size_t limit, char **ret)
{
	const char *s = read_string(r, field, limit + 1, true);

	if (!s)
		return -1;
	*ret = xstrdup(s);
	return 0;
}

static int read_integer(const struct reader *r, const char *field, int64_t min, int64_t max, int64_t *ret)
{
	json_t *v = json_object_get(r->o, field);

	if (!json_is_integer(v))
		return field_error(r, field, v ? "is not a whole number" : "is missing");
	if (json_integer_value(v) < min || json_integer_value(v) > max)
		return field_error(r, field, "is out of range");
	*ret = json_integer_value(v);
	return 0;
}

static int read_unsigned(const struct reader *r, const char *field, unsigned min, unsigned max, unsigned *ret)
{
	int64_t v;

	if (read_integer(r, field, min, max, &v) < 0)
		return -1;
	*ret = (unsigned)v;
	return 0;
}

/* A name of node or cluster. */
static int read_name(const struct reader *r, const char *field, char ret[NAME_MAX_CHARS + 1])
{
	struct err why = ERR_INIT;

	if (read_text(r, field, ret, NAME_MAX_CHARS + 1) < 0)
		return -1;
	if (name_check(field, ret, &why) < 0)
		return err_set(r->e, r->code, "%s: %s", r->what, why.text);
	return 0;
}

/* ---- the request ---- */

static const char *const request_fields[] = {"token",    "name", "addresses", "request",  "godwit",
					     "corosync", "qemu", "command",   "clock_ms", NULL};

json_t *join_request_json(const struct join_request *r)
{
	char pass[TOKEN_PASS_MAX];
	json_t *addresses = json_array(), *o;

	for (size_t i = 0; i < r->n_addresses; i++)
		json_array_append_new(addresses, json_string(r->addresses[i]));
	token_pass_encode(&r->pass, pass);
	o = json_pack("{s:i, s:s, s:s, s:o, s:s, s:s, s:s, s:s, s:I, s:I}", "format", JOIN_FORMAT, "token", pass,
		      "name", r->name, "addresses", addresses, "request", r->request, "godwit", r->godwit, "corosync",
		      r->corosync, "qemu", r->qemu, "command", (json_int_t)r->command, "clock_ms",
		      (json_int_t)r->clock_ms);
	OPENSSL_cleanse(pass, sizeof(pass));
	if (!o)
		abort();
	return o;
}

static int read_addresses(const struct reader *r, struct join_request *ret)
{
	json_t *list = json_object_get(r->o, "addresses");
	struct err why = ERR_INIT;
	json_t *v;
	size_t i;

	if (!json_is_array(list))
		return field_error(r, "addresses", list ? "is not a list" : "is missing");
	if (json_array_size(list) < 1 || json_array_size(list) > COROSYNC_LINKS_MAX)
		return field_error(r, "addresses", "must have 1 to 8 entries, one for each link of the cluster");
	json_array_foreach (list, i, v) {
		const char *s = json_string_value(v);

		if (!s || strlen(s) != json_string_length(v))
			return field_error(r, "addresses", "must hold strings");
		if (address_parse(s, ret->addresses[i], &why) < 0)
			return field_error(r, "addresses", why.text);
		for (size_t k = 0; k < i; k++)
			if (strcmp(ret->addresses[k], ret->addresses[i]) == 0)
				return field_error(r, "addresses", "holds an address twice");
	}
	ret->n_addresses = i;
	return 0;
}

static int request_read(const struct reader *r, struct join_request *ret)
{
	const char *pass;
	int64_t clock_ms;

	if (read_shape(r, request_fields) < 0 || read_name(r, "name", ret->name) < 0 || read_addresses(r, ret) < 0 ||
	    read_text(r, "godwit", ret->godwit, sizeof(ret->godwit)) < 0 ||
	    read_text(r, "corosync", ret->corosync, sizeof(ret->corosync)) < 0 ||
	    read_text(r, "qemu", ret->qemu, sizeof(ret->qemu)) < 0 ||
	    read_unsigned(r, "command", 1, INT32_MAX, &ret->command) < 0 ||
	    read_integer(r, "clock_ms", 0, CLOCK_MAX_MS, &clock_ms) < 0 ||
	    read_lines(r, "request", PKI_PEM_MAX, &ret->request) < 0)
		return -1;
	ret->clock_ms = clock_ms;
	pass = read_string(r, "token", TOKEN_PASS_MAX, false);
	if (!pass)
		return -1;
	if (token_pass_decode(pass, &ret->pass, NULL) < 0)
		return field_error(r, "token", "is not <id>.<secret>");
	if (pki_request_check(ret->request, ret->name, r->e) < 0)
		return err_wrap(r->e, "%s: field \"request\"", r->what);
	return 0;
}

int join_request_parse(const json_t *o, struct join_request *ret, struct err *e)
{
	struct reader r = {.o = o, .code = ERR_INPUT, .what = "the join request", .e = e};
	struct join_request got = {0};

	if (request_read(&r, &got) < 0) {
		join_request_done(&got);
		return -1;
	}
	*ret = got;
	return 0;
}

void join_request_done(struct join_request *r)
{
	free(r->request);
	OPENSSL_cleanse(r, sizeof(*r));
}

/* ---- the answer ---- */

static const char *const answer_fields[] = {"cluster",       "id",           "certificate", "ca", "ca_key",
					    "corosync_conf", "corosync_key", "clock_ms",    NULL};

json_t *join_answer_json(const struct join_answer *a)
{
	unsigned char key[KEY_BASE64 + 1];
	json_t *o;

	EVP_EncodeBlock(key, a->corosync_key, COROSYNC_KEY_SIZE);
	o = json_pack("{s:i, s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:I}", "format", JOIN_FORMAT, "cluster", a->cluster,
		      "id", (json_int_t)a->id, "certificate", a->certificate, "ca", a->ca, "ca_key", a->ca_key,
		      "corosync_conf", a->corosync_conf, "corosync_key", key, "clock_ms", (json_int_t)a->clock_ms);
	OPENSSL_cleanse(key, sizeof(key));
	if (!o)
		abort();
	return o;
}

static int read_key(const struct reader *r, uint8_t ret[COROSYNC_KEY_SIZE])
{
	const char *s = read_string(r, "corosync_key", KEY_BASE64 + 1, false);
	uint8_t raw[KEY_BASE64 / 4 * 3];
	size_t pad = KEY_BASE64 / 4 * 3 - COROSYNC_KEY_SIZE;

	if (!s)
		return -1;
	/* EVP_DecodeBlock() does not count the padding, and takes blanks at the ends. */
	if (strlen(s) != KEY_BASE64 || strcspn(s, " =") != KEY_BASE64 - pad ||
	    EVP_DecodeBlock(raw, (const unsigned char *)s, KEY_BASE64) != (int)sizeof(raw))
		return field_error(r, "corosync_key", "is not 128 bytes in base64");
	memcpy(ret, raw, COROSYNC_KEY_SIZE);
	OPENSSL_cleanse(raw, sizeof(raw));
	return 0;
}

static int answer_read(const struct reader *r, struct join_answer *ret)
{
	if (read_shape(r, answer_fields) < 0 || read_name(r, "cluster", ret->cluster) < 0 ||
	    read_unsigned(r, "id", 1, COROSYNC_ID_MAX, &ret->id) < 0 ||
	    read_lines(r, "certificate", PKI_PEM_MAX, &ret->certificate) < 0 ||
	    read_lines(r, "ca", PKI_PEM_MAX, &ret->ca) < 0 || read_lines(r, "ca_key", PKI_PEM_MAX, &ret->ca_key) < 0 ||
	    read_lines(r, "corosync_conf", COROSYNC_TEXT_MAX, &ret->corosync_conf) < 0 ||
	    read_key(r, ret->corosync_key) < 0 || read_integer(r, "clock_ms", 0, CLOCK_MAX_MS, &ret->clock_ms) < 0)
		return -1;
	return 0;
}

int join_answer_parse(const json_t *o, struct join_answer *ret, struct err *e)
{
	struct reader r = {.o = o, .code = ERR_PROTOCOL, .what = "the answer to the join request", .e = e};
	struct join_answer got = {0};

	if (answer_read(&r, &got) < 0) {
		join_answer_done(&got);
		return -1;
	}
	*ret = got;
	return 0;
}

void join_answer_done(struct join_answer *a)
{
	free(a->certificate);
	free(a->ca);
	pki_key_free(a->ca_key);
	free(a->corosync_conf);
	OPENSSL_cleanse(a, sizeof(*a));
}

int join_clock_check(const char *theirs, int64_t theirs_ms, const char *ours, int64_t ours_ms, struct err *e)
{
	int64_t ahead_ms = theirs_ms - ours_ms;
	int64_t apart_ms = ahead_ms < 0 ? -ahead_ms : ahead_ms;

	if (apart_ms <= JOIN_CLOCK_MS)
		return 0;
	return err_set(e, ERR_INPUT,
		       "the clock of %s is %lld s %s that of %s, and at most %d s are allowed: set it (chrony or "
		       "systemd-timesyncd keeps it right) and try again",
		       theirs, (long long)(apart_ms / 1000), ahead_ms < 0 ? "behind" : "ahead of", ours,
		       JOIN_CLOCK_MS / 1000);
}

/* Is our entry of corosync.conf what we asked for? */
static int check_conf(const struct join_answer *a, const struct join_request *asked, const struct corosync_conf *c,
		      struct err *e)
{
	const struct corosync_node *n = corosync_node_find(c, NULL, a->id);

	if (strcmp(c->cluster, a->cluster) != 0)
		return err_set(e, ERR_PROTOCOL, "the corosync.conf in the answer is of cluster \"%s\", not \"%s\"",
			       c->cluster, a->cluster);
	if (!n || strcmp(n->name, asked->name) != 0)
		return err_set(e, ERR_PROTOCOL, "the corosync.conf in the answer has no node \"%s\" with id %u",
			       asked->name, a->id);
	if (c->n_links != asked->n_addresses)
		return err_set(e, ERR_PROTOCOL, "the corosync.conf in the answer has %zu links, and %zu were asked for",
			       c->n_links, asked->n_addresses);
	for (size_t i = 0; i < c->n_links; i++)
		if (strcmp(n->addresses[i], asked->addresses[i]) != 0)
			return err_set(e, ERR_PROTOCOL,
				       "the corosync.conf in the answer gives us the address %s, and we have %s",
				       n->addresses[i], asked->addresses[i]);
	return 0;
}

int join_answer_check(const struct join_answer *a, const struct join_request *asked, const struct token *token,
		      const char *key, int64_t now_ms, struct corosync_conf *ret_conf, struct err *e)
{
	uint8_t fingerprint[PKI_FINGERPRINT_SIZE];
	struct corosync_conf conf;

	if (pki_fingerprint(a->ca, fingerprint, e) < 0)
		return err_wrap(e, "the answer to the join request");
	if (memcmp(fingerprint, token->ca_hash, sizeof(fingerprint)) != 0)
		return err_set(e, ERR_AUTH,
			       "the cluster that answered is not the one that the join token is of: its CA has another "
			       "fingerprint");
	if (!pki_key_fits(a->ca, a->ca_key))
		return err_set(e, ERR_AUTH,
			       "the answer to the join request: the key of the CA does not fit its certificate");
	if (join_clock_check("the cluster", a->clock_ms, "this host", now_ms, e) < 0 ||
	    pki_check(a->ca, a->certificate, asked->name, key, now_ms / 1000, e) < 0)
		return -1;
	if (corosync_conf_parse(a->corosync_conf, &conf, e) < 0)
		return err_wrap(e, "the answer to the join request");
	if (check_conf(a, asked, &conf, e) < 0)
		return -1;
	*ret_conf = conf;
	return 0;
}
