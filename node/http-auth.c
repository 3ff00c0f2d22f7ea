/* SPDX-License-Identifier: Apache-2.0 */
/* Who asks, and whether that is enough for the route. */
#include <errno.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/tls-cert.h"
#include "node/http-int.h"

#define TOKEN_MAX 512
#define WRONG_TOKEN_COST 20 /* requests: guessing is slow */

/* ---- the unix socket ---- */

static bool in_group(int fd, gid_t primary, gid_t group)
{
	socklen_t size = 0;
	_free_ gid_t *groups = NULL;
	bool found = primary == group;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) == 0 || errno != ERANGE)
		return found;
	groups = xcalloc(size, 1);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
		return found;
	for (size_t i = 0; !found && i < size / sizeof(*groups); i++)
		found = groups[i] == group;
	return found;
}

void auth_read_peer(struct http_conn *c, int fd)
{
	socklen_t size = sizeof(c->cred);
	gid_t admins = c->server->o.admin_gid;

	snprintf(c->from, sizeof(c->from), "unix");
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c->cred, &size) < 0)
		c->cred = (struct ucred){.uid = (uid_t)-1, .gid = (gid_t)-1};
	c->in_admin_group = admins && in_group(fd, c->cred.gid, admins);
}

/* ---- credentials ---- */

static int ask(struct http_call *call, const struct http_credential *cred, struct err *e)
{
	const struct http_options *o = &call->server->o;

	if (!o->identify)
		return err_set(e, ERR_AUTH, "nobody is known here");
	return o->identify(o->identify_arg, cred, call->identity.name, &call->identity.role, e);
}

static int ask_token(struct http_call *call, const char *token, struct err *e)
{
	struct http_credential cred = {.kind = HTTP_CREDENTIAL_TOKEN};
	size_t n = strlen(token);

	if (!n || n > TOKEN_MAX)
		return err_set(e, ERR_AUTH, "this is no token");
	SHA256((const unsigned char *)token, n, cred.digest);
	return ask(call, &cred, e);
}

static int ask_certificate(struct http_call *call, X509 *cert, struct err *e)
{
	char name[CERT_NAME_MAX];
	struct http_credential cred = {.kind = HTTP_CREDENTIAL_CERTIFICATE, .name = name, .cert = cert};

	cert_name(cert, name);
	if (!cert_has_usage(cert, false))
		return err_set(e, ERR_AUTH, "the certificate \"%s\" is not meant for TLS clients", name);
	cert_digest(cert, cred.digest);
	return ask(call, &cred, e);
}

static int ask_local(struct http_call *call, struct err *e)
{
	const struct http_conn *c = call->conn;
	struct http_credential cred = {.kind = HTTP_CREDENTIAL_UNIX, .uid = c->cred.uid};

	if (c->cred.uid != 0 && !c->in_admin_group)
		return ask(call, &cred, e);
	if (c->cred.uid == 0)
		snprintf(call->identity.name, sizeof(call->identity.name), "root");
	else
		snprintf(call->identity.name, sizeof(call->identity.name), "uid %u", c->cred.uid);
	call->identity.role = HTTP_ROLE_ADMIN;
	return 0;
}

/* The certificate that the client has proven, borrowed; or NULL. */
static X509 *certificate_of(const struct http_conn *c)
{
	SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
	X509 *cert = ssl ? SSL_get0_peer_certificate(ssl) : NULL;

	return cert && SSL_get_verify_result(ssl) == X509_V_OK ? cert : NULL;
}

/* What is said explicitly, a token, counts before what the connection shows by itself. */
static int identify(struct http_call *call, struct err *e)
{
	const char *auth = http_head_get(&call->head, "Authorization");
	X509 *cert = call->conn->local ? NULL : certificate_of(call->conn);

	if (auth && strncasecmp(auth, "Bearer ", 7) == 0)
		return ask_token(call, auth + 7, e);
	if (auth)
		return err_set(e, ERR_AUTH, "only \"Authorization: Bearer TOKEN\" is understood");
	if (call->conn->local)
		return ask_local(call, e);
	if (cert)
		return ask_certificate(call, cert, e);
	return err_set(e, ERR_AUTH, "who are you? Show a client certificate of this cluster, or send a token");
}

/* A web page of somebody else must not use the certificate of a user's browser. */
static bool is_cross_site(const struct http_call *call)
{
	const char *site = http_head_get(&call->head, "Sec-Fetch-Site");
	const char *origin = http_head_get(&call->head, "Origin");
	const char *host = http_head_get(&call->head, "Host");
	const char *authority = origin ? strstr(origin, "://") : NULL;

	if (site && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0)
		return true;
	return origin && (!authority || !host || strcasecmp(authority + 3, host) != 0);
}

int auth_check(struct http_call *call, int *ret_status, struct err *e)
{
	struct http_conn *c = call->conn;
	const struct http_route *r = call->route;

	snprintf(call->identity.from, sizeof(call->identity.from), "%s", c->from);
	*ret_status = 403;
	if (r->local && !c->local)
		return err_set(e, ERR_AUTH, "%s %s is for the unix socket of the host itself", r->method, r->path);
	if (is_cross_site(call))
		return err_set(e, ERR_AUTH, "a page of another site may not ask this");
	if (r->role == HTTP_ROLE_NONE)
		return 0;
	if (identify(call, e) < 0) {
		if (c->peer)
			http_peers_spend(call->server->peers, c->peer, WRONG_TOKEN_COST, clock_now_ns());
		*ret_status = 401;
		return -1;
	}
	if (call->identity.role < r->role)
		return err_set(e, ERR_AUTH, "%s %s needs the role %s, and %s has the role %s", r->method, r->path,
			       http_role_names[r->role], call->identity.name, http_role_names[call->identity.role]);
	http_conn_proven(c);
	return 0;
}
