/* SPDX-License-Identifier: Apache-2.0 */
/* What a host that joins and the cluster say to each other: two JSON objects, checked field by field on both sides. */
#ifndef GODWIT_NODE_JOIN_H
#define GODWIT_NODE_JOIN_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "node/corosync.h"
#include "node/name.h"
#include "node/token.h"

#define JOIN_FORMAT 1       /* of the two objects; another one is refused */
#define JOIN_TEXT_MAX 64U   /* of a version, with its NUL */
#define JOIN_CLOCK_MS 30000 /* wall clocks further apart are refused */

/* From the host that wants in. Start zeroed; end with join_request_done(). */
struct join_request {
	struct token pass; /* id and secret only */
	char name[NAME_MAX_CHARS + 1];
	char addresses[COROSYNC_LINKS_MAX][ADDRESS_TEXT_MAX]; /* the first is link 0 */
	size_t n_addresses;
	char *request;              /* certificate request, PEM; owned */
	char godwit[JOIN_TEXT_MAX]; /* versions: they are shown to people, only @command decides */
	char corosync[JOIN_TEXT_MAX];
	char qemu[JOIN_TEXT_MAX];
	unsigned command; /* newest version of commands that it can apply */
	int64_t clock_ms; /* its wall clock when it asked, ms since 1970 */
};

/* From the cluster. Start zeroed; end with join_answer_done(). */
struct join_answer {
	char cluster[NAME_MAX_CHARS + 1];
	unsigned id;
	char *certificate; /* of the new node, PEM; owned, as the next three */
	char *ca;
	char *ca_key; /* so that every host can let others in and renew its certificate */
	char *corosync_conf;
	uint8_t corosync_key[COROSYNC_KEY_SIZE];
	int64_t clock_ms;
};

/* The object of POST /v1/join. New reference. */
json_t *join_request_json(const struct join_request *r);

/* Read it: every field is there, of the right type, length and form, and no other. The certificate request is one for
 * this name. ERR_INPUT with the field; nothing is owned then. Pure. */
int join_request_parse(const json_t *o, struct join_request *ret, struct err *e);
void join_request_done(struct join_request *r);

/* The answer to it. New reference; it holds the cluster's keys, so it goes over TLS and into no log. */
json_t *join_answer_json(const struct join_answer *a);

/* Read it, as above: ERR_PROTOCOL. What it says is judged by join_answer_check(). Pure. */
int join_answer_parse(const json_t *o, struct join_answer *ret, struct err *e);
void join_answer_done(struct join_answer *a);

/* On the new host: is the answer from the cluster that the token is of, and for us? The CA has the token's fingerprint;
 * the CA's key fits it; the certificate is of that
 * CA, for our name and our @key, and valid now; corosync.conf has us in that cluster, with
 * our id, name and addresses; the clocks agree. ERR_AUTH, ERR_PROTOCOL or ERR_INPUT. @ret_conf: what corosync.conf
 * says. Pure. */
int join_answer_check(const struct join_answer *a, const struct join_request *asked, const struct token *token,
		      const char *key, int64_t now_ms, struct corosync_conf *ret_conf, struct err *e);

/* ERR_INPUT when two wall clocks are more than JOIN_CLOCK_MS apart: by how much, and which is ahead. @theirs: "node
 * n3",
 * @ours: "the cluster". Pure. */
int join_clock_check(const char *theirs, int64_t theirs_ms, const char *ours, int64_t ours_ms, struct err *e);

#endif
