/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing join tokens: what is read must come back the same from its own writing. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "node/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same(const struct token *a, const struct token *b)
{
	return !strcmp(a->host.host, b->host.host) && !strcmp(a->host.port, b->host.port) &&
	       !memcmp(a->id, b->id, sizeof(a->id)) && !memcmp(a->secret, b->secret, sizeof(a->secret)) &&
	       !memcmp(a->ca_hash, b->ca_hash, sizeof(a->ca_hash));
}

/* The check characters keep a fuzzer out: so the input is also taken as a token's fields, and spoilt in one place. */
static void check_fields(const uint8_t *data, size_t size)
{
	struct token t, back;
	_free_ char *text = NULL;
	size_t at;

	if (size < sizeof(t.id) + sizeof(t.secret) + sizeof(t.ca_hash) + 2)
		return;
	if (token_make("n1.example.com:8443", data, &t, NULL) < 0)
		abort();
	memcpy(t.id, data + 32, sizeof(t.id));
	memcpy(t.secret, data + 48, sizeof(t.secret));
	text = token_encode(&t);
	if (token_decode(text, &back, NULL) < 0 || !same(&t, &back))
		abort();
	at = strlen("GODWIT1.n1.example.com:8443.") +
	     data[64] % (strlen(text) - strlen("GODWIT1.n1.example.com:8443."));
	text[at] = (char)data[65];
	if (data[65] && token_decode(text, &back, NULL) == 0 && !same(&t, &back))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_free_ char *text = xcalloc(size + 1, 1);
	struct err e = ERR_INIT;
	struct token t = {0}, back;

	memcpy(text, data, size);
	if (token_decode(text, &t, &e) == 0) {
		_free_ char *again = token_encode(&t);

		if (token_decode(again, &back, NULL) < 0 || !same(&t, &back))
			abort();
	} else if (!e.code || !e.text[0]) {
		abort();
	}
	token_pass_decode(text, &t, NULL);
	check_fields(data, size);
	return 0;
}
