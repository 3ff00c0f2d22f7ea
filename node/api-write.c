/* SPDX-License-Identifier: Apache-2.0 */
/* Short changes over the API: networks, users, join tokens, settings, cancelling a migration. */
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hex.h"
#include "base/mem.h"
#include "cluster/state.h"
#include "node/api-int.h"
#include "node/network.h"
#include "node/pki-dir.h"
#include "node/pki.h"
#include "node/settings.h"
#include "node/token.h"

#define USER_TOKEN_BYTES 24
#define USER_TOKEN_PREFIX "gwu_" /* so that people and scanners know one when they see it */
#define JOIN_TTL_S 3600

/* The answer is what the command answered. */
static void answer_result(struct api_write *w, const json_t *result)
{
	api_reply(w, 200, json_copy((json_t *)result));
}

/* ---- networks ---- */

static void answer_network(struct api_write *w, const json_t *result)
{
	json_t *network = state_network_get(replica_db(w->d->replica), w->object, NULL);

	api_reply(w, 201, network ? network : json_copy((json_t *)result));
}

/* What every host would refuse is refused at once. */
static int network_judge(const json_t *body, struct err *e)
{
	struct network n = {.vlan = (unsigned)json_integer_value(json_object_get(body, "vlan"))};

	snprintf(n.name, sizeof(n.name), "%s", api_text(body, "name"));
	snprintf(n.bridge, sizeof(n.bridge), "%s", api_text(body, "bridge"));
	snprintf(n.uplink, sizeof(n.uplink), "%s", api_text(body, "uplink"));
	return network_valid(&n, e);
}

static void on_network_create(struct daemon *d, struct http_call *call)
{
	json_t *args = json_copy(http_call_body(call));
	struct api_write *w = api_write_new(d, call, api_text(args, "name"));
	struct err e = ERR_INIT;

	if (!json_object_get(args, "bridge")) /* an interface's name has room for 15 characters */
		json_object_set_new(args, "bridge", json_sprintf("gw-%.12s", api_text(args, "name")));
	if (network_judge(args, &e) < 0) {
		api_reply_err(w, &e);
		json_decref(args);
		return;
	}
	api_propose(w, "network.create", NULL, args, answer_network);
}

static void on_network_delete(struct daemon *d, struct http_call *call)
{
	const char *name = http_call_param(call, "name");

	api_propose(api_write_new(d, call, name), "network.delete", NULL, json_pack("{s:s}", "name", name),
		    answer_result);
}

/* ---- users ---- */

/* Fill @ret with the secret of a request: random to everybody else, but the same on every host and each time the
 * request comes, so that a client whose answer was lost gets the token that was meant. All hosts have the CA's key. */
static void secret_make(const struct daemon *d, const struct http_call *call, const char *what, uint8_t *ret,
			size_t size)
{
	_free_ char *dir = xasprintf("%s/pki", d->opt.config_dir);
	_free_ char *text = xasprintf("%s %s", what, http_call_id(call));
	__attribute__((cleanup(pki_key_freep))) char *key = pki_ca_key_read(dir, NULL);
	uint8_t mac[SHA256_DIGEST_LENGTH];
	unsigned n = sizeof(mac);

	if (key ? !HMAC(EVP_sha256(), key, (int)strlen(key), (const uint8_t *)text, strlen(text), mac, &n)
		: RAND_bytes(mac, sizeof(mac)) != 1)
		abort();
	memcpy(ret, mac, size);
}

/* The token that would be shown must be the one that the state knows: it is not where a key of another request was used
 * again. */
static int is_known(json_t *known, struct err *e)
{
	bool is_this = known != NULL;

	json_decref(known);
	if (is_this)
		return 0;
	return err_set(
		e, ERR_CONFLICT,
		"this Idempotency-Key was that of another request, whose token was shown then; use a new one for each");
}

static void answer_user(struct api_write *w, const json_t *result)
{
	const char *token = api_text(w->extra, "token"), *hash = api_text(w->extra, "hash");
	struct err e = ERR_INIT;

	if (is_known(state_user_by_token_hash(replica_db(w->d->replica), hash, NULL), &e) < 0) {
		api_reply_err(w, &e);
		return;
	}
	api_reply(w, 201,
		  json_pack("{s:s, s:s, s:s}", "name", api_text(result, "name"), "role", api_text(result, "role"),
			    "token", token));
}

static void on_user_create(struct daemon *d, struct http_call *call)
{
	json_t *args = json_copy(http_call_body(call));
	struct api_write *w = api_write_new(d, call, api_text(args, "name"));
	char token[sizeof(USER_TOKEN_PREFIX) + 2 * USER_TOKEN_BYTES] = USER_TOKEN_PREFIX;
	uint8_t secret[USER_TOKEN_BYTES], digest[SHA256_DIGEST_LENGTH];
	char hash[2 * SHA256_DIGEST_LENGTH + 1];

	secret_make(d, call, api_text(args, "name"), secret, sizeof(secret));
	hex_text(secret, sizeof(secret), token + strlen(USER_TOKEN_PREFIX));
	SHA256((const uint8_t *)token, strlen(token), digest);
	hex_text(digest, sizeof(digest), hash);
	json_object_set_new(args, "token_hash", json_string(hash));
	json_object_set_new(w->extra, "token", json_string(token));
	json_object_set_new(w->extra, "hash", json_string(hash));
	api_propose(w, "user.create", NULL, args, answer_user);
}

static void on_user_delete(struct daemon *d, struct http_call *call)
{
	const char *name = http_call_param(call, "name");

	api_propose(api_write_new(d, call, name), "user.delete", NULL, json_pack("{s:s}", "name", name), answer_result);
}

/* ---- join tokens ---- */

/* Where the new host finds this one. Caller frees; NULL with @e. */
static char *join_host(const struct daemon *d, const char *asked, struct err *e)
{
	const char *address = d->identity.n_addresses ? d->identity.addresses[0] : NULL;

	if (!address) {
		err_set(e, ERR_CONFLICT,
			"cluster %s was made without addresses, for one host alone, and cannot take others in: make it "
			"again with --address",
			d->identity.cluster);
		return NULL;
	}
	if (asked)
		return xstrdup(asked);
	return strchr(address, ':') ? xasprintf("[%s]:%d", address, api_port(d))
				    : xasprintf("%s:%d", address, api_port(d));
}

static int join_token_make(const struct daemon *d, const char *asked, struct token *ret, struct err *e)
{
	_free_ char *path = xasprintf("%s/pki/ca.pem", d->opt.config_dir), *host = join_host(d, asked, e), *ca = NULL;
	uint8_t fingerprint[PKI_FINGERPRINT_SIZE];

	if (!host || !(ca = file_read(path, PKI_PEM_MAX, NULL, e)) || pki_fingerprint(ca, fingerprint, e) < 0)
		return -1;
	return token_make(host, fingerprint, ret, e);
}

static void answer_token(struct api_write *w, const json_t *result)
{
	struct err e = ERR_INIT;

	if (is_known(state_token_get(replica_db(w->d->replica), api_text(w->extra, "hash"), NULL), &e) < 0) {
		api_reply_err(w, &e);
		return;
	}
	api_reply(w, 201,
		  json_pack("{s:O, s:O}", "token", json_object_get(w->extra, "token"), "expires",
			    json_object_get(result, "expires")));
}

static void on_token_create(struct daemon *d, struct http_call *call)
{
	const json_t *body = http_call_body(call), *ttl = json_object_get(body, "ttl_s");
	const char *asked = json_string_value(json_object_get(body, "host"));
	struct api_write *w = api_write_new(d, call, NULL);
	uint8_t secret[TOKEN_ID_SIZE + TOKEN_SECRET_SIZE], digest[TOKEN_HASH_SIZE];
	char hash[2 * TOKEN_HASH_SIZE + 1];
	struct err e = ERR_INIT;
	_free_ char *text = NULL;
	struct token t;

	if (join_token_make(d, asked, &t, &e) < 0) {
		api_reply_err(w, &e);
		return;
	}
	secret_make(d, call, "join token", secret, sizeof(secret));
	memcpy(t.id, secret, sizeof(t.id));
	memcpy(t.secret, secret + sizeof(t.id), sizeof(t.secret));
	token_hash(&t, digest);
	hex_text(digest, sizeof(digest), hash);
	json_object_set_new(w->extra, "hash", json_string(hash));
	text = token_encode(&t);
	json_object_set_new(w->extra, "token", json_string(text));
	api_propose(w, "token.create", NULL,
		    json_pack("{s:s, s:I}", "hash", hash, "ttl_s",
			      json_is_integer(ttl) ? json_integer_value(ttl) : (json_int_t)JOIN_TTL_S),
		    answer_token);
}

/* ---- settings ---- */

static void on_setting_set(struct daemon *d, struct http_call *call)
{
	const char *key = http_call_param(call, "key");
	struct api_write *w = api_write_new(d, call, key);
	struct err e = ERR_INIT;

	if (setting_check(key, json_object_get(http_call_body(call), "value"), &e) < 0) {
		api_reply_err(w, &e);
		return;
	}
	api_propose(w, "setting.set", NULL,
		    json_pack("{s:s, s:O}", "key", key, "value", json_object_get(http_call_body(call), "value")),
		    answer_result);
}

/* ---- migrations ---- */

static void answer_migration(struct api_write *w, const json_t *result)
{
	json_t *m = state_migration_get(replica_db(w->d->replica), w->object, NULL), *detail;

	detail = json_object_get(m, "detail");
	if (json_is_object(detail))
		json_object_del(detail, "token");
	api_reply(w, 202, m ? m : json_copy((json_t *)result));
}

static void on_migration_cancel(struct daemon *d, struct http_call *call)
{
	const char *id = http_call_param(call, "id");

	api_propose(api_write_new(d, call, id), "migration.cancel", NULL, json_pack("{s:s}", "id", id),
		    answer_migration);
}

const struct api_handler api_write_handlers[] = {
	{.operation = "network_create", .handle = on_network_create},
	{.operation = "network_delete", .handle = on_network_delete, .object = "name"},
	{.operation = "user_create", .handle = on_user_create},
	{.operation = "user_delete", .handle = on_user_delete, .object = "name"},
	{.operation = "token_create", .handle = on_token_create},
	{.operation = "setting_set", .handle = on_setting_set, .object = "key"},
	{.operation = "migration_cancel", .handle = on_migration_cancel, .object = "id"},
	{0},
};
