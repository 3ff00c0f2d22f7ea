/* SPDX-License-Identifier: Apache-2.0 */
/* The join exchange: a whole one, and every field wrong on either side. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "node/join.h"
#include "node/pki.h"

#define NOW_S 1800000000LL
#define NOW (NOW_S * 1000)

static const struct corosync_local local = {.key_path = "/etc/corosync/authkey"};

/* Host n2 joins the cluster of n1. */
static char *ca_key, *ca, *other_ca_key, *other_ca;
static char *key;
static struct token token;
static struct join_request request;
static struct join_answer answer;

static void ok(int r, const struct err *e)
{
	if (r < 0)
		fail_msg("%s", e->text);
}

static void assert_says(const struct err *e, enum err_code code, const char *expect)
{
	assert_int_equal(e->code, code);
	if (!strstr(e->text, expect))
		fail_msg("\"%s\" is not in: %s", expect, e->text);
}

static struct corosync_conf conf_of_two(void)
{
	struct corosync_conf c = {
		.cluster = "prod", .version = 2, .token_ms = COROSYNC_TOKEN_MS, .n_links = 2, .n_nodes = 2};

	for (int i = 0; i < 2; i++) {
		c.nodes[i].id = (unsigned)i + 1;
		strcpy(c.nodes[i].name, i ? "n2" : "n1");
		strcpy(c.nodes[i].addresses[0], i ? "10.0.0.2" : "10.0.0.1");
		strcpy(c.nodes[i].addresses[1], i ? "fd00::2" : "fd00::1");
	}
	return c;
}

static int make(void **state)
{
	const char *const addresses[] = {"10.0.0.2", "fd00::2"};
	struct corosync_conf conf = conf_of_two();
	uint8_t fingerprint[PKI_FINGERPRINT_SIZE];
	struct err e = ERR_INIT;

	(void)state;
	ok(pki_ca_make("prod", NOW_S, &ca_key, &ca, &e), &e);
	ok(pki_ca_make("prod", NOW_S, &other_ca_key, &other_ca, &e), &e);
	ok(pki_fingerprint(ca, fingerprint, &e), &e);
	ok(token_make("10.0.0.1:8443", fingerprint, &token, &e), &e);

	request = (struct join_request){.pass = token, .name = "n2", .n_addresses = 2, .command = 1, .clock_ms = NOW};
	strcpy(request.addresses[0], "10.0.0.2");
	strcpy(request.addresses[1], "fd00::2");
	strcpy(request.godwit, "0.3.0");
	strcpy(request.corosync, "3.1.7");
	strcpy(request.qemu, "7.2.22");
	ok(pki_request_make("n2", &key, &request.request, &e), &e);

	answer = (struct join_answer){
		.cluster = "prod", .id = 2, .ca = ca, .ca_key = xstrdup(ca_key), .clock_ms = NOW + 500};
	ok(pki_node_issue(ca_key, ca, request.request, "n2", addresses, 2, NOW_S, &answer.certificate, &e), &e);
	ok(corosync_key_make(answer.corosync_key, &e), &e);
	answer.corosync_conf = corosync_conf_text(&conf, &local, &e);
	assert_non_null(answer.corosync_conf);
	return 0;
}

static int unmake(void **state)
{
	(void)state;
	pki_key_free(ca_key);
	pki_key_free(other_ca_key);
	pki_key_free(key);
	free(other_ca);
	join_request_done(&request);
	join_answer_done(&answer);
	return 0;
}

static void whole_exchange_ends_with_what_the_new_host_needs(void **state)
{
	json_t *o = join_request_json(&request);
	_free_ char *sent = json_dumps(o, JSON_COMPACT);
	json_t *got = json_loads(sent, JSON_REJECT_DUPLICATES, NULL), *back;
	struct join_request r = {0};
	struct join_answer a = {0};
	struct corosync_conf conf;
	struct err e = ERR_INIT;

	(void)state;
	/* The private key and the host of the token stay here. */
	assert_null(strstr(sent, "PRIVATE"));
	assert_null(strstr(sent, "8443"));
	ok(join_request_parse(got, &r, &e), &e);
	assert_string_equal(r.name, "n2");
	assert_int_equal(r.n_addresses, 2);
	assert_string_equal(r.addresses[1], "fd00::2");
	assert_string_equal(r.request, request.request);
	assert_string_equal(r.qemu, "7.2.22");
	assert_int_equal(r.command, 1);
	assert_int_equal(r.clock_ms, NOW);
	assert_memory_equal(r.pass.secret, token.secret, sizeof(token.secret));
	assert_memory_equal(r.pass.id, token.id, sizeof(token.id));

	back = join_answer_json(&answer);
	ok(join_answer_parse(back, &a, &e), &e);
	assert_memory_equal(a.corosync_key, answer.corosync_key, COROSYNC_KEY_SIZE);
	ok(join_answer_check(&a, &request, &token, key, NOW + 1000, &conf, &e), &e);
	assert_int_equal(conf.n_nodes, 2);
	assert_string_equal(corosync_node_find(&conf, NULL, a.id)->name, "n2");
	join_request_done(&r);
	join_answer_done(&a);
	json_decref(o);
	json_decref(got);
	json_decref(back);
}

/* A field replaced by @value (NULL: removed), and what is said. */
struct wrong {
	const char *field;
	const char *value; /* JSON */
	const char *expect;
};

static json_t *changed(json_t *o, const struct wrong *w)
{
	json_t *copy = json_deep_copy(o);

	if (w->value) {
		json_t *v = json_loads(w->value, JSON_DECODE_ANY, NULL);

		assert_non_null(v);
		json_object_set_new(copy, w->field, v);
	} else {
		json_object_del(copy, w->field);
	}
	return copy;
}

static void every_wrong_field_of_a_request_is_named(void **state)
{
	static const struct wrong cases[] = {
		{"format", NULL, "field \"format\" is not a number"},
		{"format", "2", "has format 2 and this side knows format 1"},
		{"surprise", "1", "there is no field \"surprise\""},
		{"token", NULL, "field \"token\" is missing"},
		{"token", "\"abc\"", "field \"token\" is not <id>.<secret>"},
		{"name", NULL, "field \"name\" is missing"},
		{"name", "7", "field \"name\" is not a string"},
		{"name", "\"\"", "field \"name\" is empty"},
		{"name", "\"N2\"", "small letters"},
		{"name", "\"a\\u0000b\"", NULL}, /* refused by the loader already */
		{"name", "\"n3\"", "the certificate request is not for \"n3\""},
		{"addresses", NULL, "field \"addresses\" is missing"},
		{"addresses", "\"10.0.0.2\"", "field \"addresses\" is not a list"},
		{"addresses", "[]", "1 to 8 entries"},
		{"addresses", "[1]", "must hold strings"},
		{"addresses", "[\"n2\"]", "must be an IPv4 or IPv6 address"},
		{"addresses", "[\"0.0.0.0\"]", "not the address of a host"},
		{"addresses", "[\"10.0.0.2\",\"10.0.0.2\"]", "an address twice"},
		{"addresses", "[\"fd00::2\",\"fd00:0:0::2\"]", "an address twice"},
		{"addresses", "[\"::ffff:10.0.0.2\"]", "write it as 1.2.3.4"},
		{"request", NULL, "field \"request\" is missing"},
		{"request", "\"hello\"", "field \"request\": the certificate request is not one in PEM form"},
		{"godwit", "\"0.3\\u001b[2J\"", "characters that are not plain text"},
		{"godwit", NULL, "field \"godwit\" is missing"},
		{"corosync", "\"\"", "field \"corosync\" is empty"},
		{"qemu", "[]", "field \"qemu\" is not a string"},
		{"command", "0", "field \"command\" is out of range"},
		{"command", "1.5", "field \"command\" is not a whole number"},
		{"command", "4294967297", "field \"command\" is out of range"},
		{"clock_ms", NULL, "field \"clock_ms\" is missing"},
		{"clock_ms", "-1", "field \"clock_ms\" is out of range"},
		{"clock_ms", "9223372036854775807", "field \"clock_ms\" is out of range"},
	};
	json_t *o = join_request_json(&request);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct join_request r = {0};
		struct err e = ERR_INIT;
		json_t *copy;

		if (!cases[i].expect) {
			assert_null(json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
			continue;
		}
		copy = changed(o, &cases[i]);
		assert_int_equal(join_request_parse(copy, &r, &e), -1);
		assert_says(&e, ERR_INPUT, cases[i].expect);
		assert_null(r.request);
		json_decref(copy);
	}
	json_decref(o);
}

static void every_wrong_field_of_an_answer_is_named(void **state)
{
	static const struct wrong cases[] = {
		{"format", "3", "format 3"},
		{"surprise", "1", "there is no field \"surprise\""},
		{"cluster", NULL, "field \"cluster\" is missing"},
		{"cluster", "\"a b\"", "cluster"},
		{"id", "0", "field \"id\" is out of range"},
		{"id", "65536", "field \"id\" is out of range"},
		{"id", "\"2\"", "field \"id\" is not a whole number"},
		{"certificate", NULL, "field \"certificate\" is missing"},
		{"ca", "\"\"", "field \"ca\" is empty"},
		{"ca_key", NULL, "field \"ca_key\" is missing"},
		{"corosync_conf", "{}", "field \"corosync_conf\" is not a string"},
		{"corosync_key", "\"AAAA\"", "field \"corosync_key\" is not 128 bytes"},
		{"corosync_key", "\"!\"", "field \"corosync_key\" is not 128 bytes"},
		{"clock_ms", "null", "field \"clock_ms\" is not a whole number"},
	};
	json_t *o = join_answer_json(&answer);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *copy = changed(o, &cases[i]);
		struct join_answer a = {0};
		struct err e = ERR_INIT;

		assert_int_equal(join_answer_parse(copy, &a, &e), -1);
		assert_says(&e, ERR_PROTOCOL, cases[i].expect);
		assert_null(a.ca);
		json_decref(copy);
	}
	json_decref(o);
}

static void key_of_any_other_length_is_refused(void **state)
{
	json_t *o = join_answer_json(&answer);
	_free_ char *text = xstrdup(json_string_value(json_object_get(o, "corosync_key")));
	size_t n = strlen(text);
	struct join_answer a = {0};
	struct err e = ERR_INIT;

	(void)state;
	/* 127 bytes, 128 with a stray end, blanks inside: all as long as the right one. */
	for (int i = 0; i < 3; i++) {
		char *bad = xstrdup(text);

		if (i == 0)
			bad[n - 2] = bad[n - 1] = '=';
		else if (i == 1)
			bad[n - 1] = 'A';
		else
			bad[0] = ' ';
		json_object_set_new(o, "corosync_key", json_string(bad));
		free(bad);
		assert_int_equal(join_answer_parse(o, &a, &e), -1);
		assert_says(&e, ERR_PROTOCOL, "field \"corosync_key\" is not 128 bytes");
	}
	json_decref(o);
}

static void what_is_not_an_object_is_refused(void **state)
{
	json_t *list = json_array();
	struct join_request r = {0};
	struct join_answer a = {0};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(join_request_parse(list, &r, &e), -1);
	assert_int_equal(join_answer_parse(list, &a, &e), -1);
	assert_int_equal(join_request_parse(NULL, &r, &e), -1);
	json_decref(list);
}

static void assert_check(const struct join_answer *a, const char *with_key, int64_t now_ms, enum err_code code,
			 const char *expect)
{
	struct corosync_conf conf;
	struct err e = ERR_INIT;

	assert_int_equal(join_answer_check(a, &request, &token, with_key, now_ms, &conf, &e), -1);
	assert_says(&e, code, expect);
}

static void answer_of_another_cluster_is_refused(void **state)
{
	struct join_answer a = answer;

	(void)state;
	a.ca = other_ca;
	assert_check(&a, key, NOW, ERR_AUTH, "its CA has another fingerprint");
	a = answer;
	a.ca_key = other_ca_key;
	assert_check(&a, key, NOW, ERR_AUTH, "the key of the CA does not fit its certificate");
	a = answer;
	a.ca = "nonsense";
	assert_check(&a, key, NOW, ERR_INPUT, "not a certificate in PEM form");
	a = answer;
	a.certificate = NULL;
	struct err e = ERR_INIT;
	ok(pki_node_issue(other_ca_key, other_ca, request.request, "n2", NULL, 0, NOW_S, &a.certificate, &e), &e);
	assert_check(&a, key, NOW, ERR_AUTH, "is of another cluster");
	free(a.certificate);
}

static void answer_for_another_key_or_another_time_is_refused(void **state)
{
	struct join_answer a = answer;

	(void)state;
	assert_check(&a, ca_key, NOW, ERR_AUTH, "belongs to another private key");
	assert_check(&a, key, NOW + 31000, ERR_INPUT, "the clock of the cluster is 30 s behind that of this host");
	a.clock_ms = NOW + 400 * PKI_DAY_S * 1000;
	assert_check(&a, key, a.clock_ms, ERR_AUTH, "expired on");
}

static void answer_whose_corosync_conf_is_not_about_us_is_refused(void **state)
{
	static const char *const expect[] = {
		"is of cluster \"test\", not \"prod\"",
		"has no node \"n2\" with id 2",
		"has no node \"n2\" with id 2",
		"has 1 links, and 2 were asked for",
		"gives us the address 10.0.0.3, and we have 10.0.0.2",
	};
	struct join_answer a = answer;
	struct corosync_conf c;
	struct err e = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(expect); i++) {
		c = conf_of_two();
		if (i == 0)
			strcpy(c.cluster, "test");
		else if (i == 1)
			c.nodes[1].id = 3;
		else if (i == 2)
			strcpy(c.nodes[1].name, "n3");
		else if (i == 3)
			c.n_links = 1;
		else
			strcpy(c.nodes[1].addresses[0], "10.0.0.3");
		a.corosync_conf = corosync_conf_text(&c, &local, &e);
		assert_check(&a, key, NOW, ERR_PROTOCOL, expect[i]);
		free(a.corosync_conf);
	}
	a.corosync_conf = "totem {";
	assert_check(&a, key, NOW, ERR_INPUT, "corosync.conf ends inside a section");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_exchange_ends_with_what_the_new_host_needs),
		cmocka_unit_test(every_wrong_field_of_a_request_is_named),
		cmocka_unit_test(every_wrong_field_of_an_answer_is_named),
		cmocka_unit_test(key_of_any_other_length_is_refused),
		cmocka_unit_test(what_is_not_an_object_is_refused),
		cmocka_unit_test(answer_of_another_cluster_is_refused),
		cmocka_unit_test(answer_for_another_key_or_another_time_is_refused),
		cmocka_unit_test(answer_whose_corosync_conf_is_not_about_us_is_refused),
	};

	return cmocka_run_group_tests(tests, make, unmake);
}
