/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing the join exchange: request, answer, and the certificates and requests for them that it carries. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "node/join.h"
#include "node/pki.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_objects(const uint8_t *data, size_t size)
{
	json_t *o = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL), *again;
	struct join_request r = {0};
	struct join_answer a = {0};
	struct corosync_conf conf;
	struct err e = ERR_INIT;

	if (!o)
		return;
	if (join_request_parse(o, &r, &e) == 0) {
		again = join_request_json(&r);
		join_request_done(&r);
		if (join_request_parse(again, &r, NULL) < 0)
			abort();
		join_request_done(&r);
		json_decref(again);
	} else if (!e.code || !e.text[0]) {
		abort();
	}
	if (join_answer_parse(o, &a, NULL) == 0) {
		again = join_answer_json(&a);
		join_answer_check(&a, &r, &r.pass, "", a.clock_ms, &conf, NULL);
		join_answer_done(&a);
		if (join_answer_parse(again, &a, NULL) < 0)
			abort();
		join_answer_done(&a);
		json_decref(again);
	}
	json_decref(o);
}

static void check_pem(const char *text)
{
	struct pki_info info;
	struct err e = ERR_INIT;

	pki_request_check(text, "n1", NULL);
	pki_key_fits(text, text);
	pki_check(text, text, "n1", NULL, 1800000000, NULL);
	if (pki_info_read(text, &info, &e) < 0 && (!e.code || !e.text[0]))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_free_ char *text = xcalloc(size + 1, 1);

	memcpy(text, data, size);
	check_objects(data, size);
	check_pem(text);
	return 0;
}
