/* SPDX-License-Identifier: Apache-2.0 */
/* Join tokens: text and back, every typo found, and who may join with one. */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "node/token.h"

#define NOW 1800000000LL

static const uint8_t ca_hash[TOKEN_FINGERPRINT_SIZE] = {0xff, 1, 2, 3, 4, 5, 6, 7};

static struct token fixed(const char *host, const char *port)
{
	struct token t = {0};

	strcpy(t.host.host, host);
	strcpy(t.host.port, port);
	for (int i = 0; i < 16; i++) {
		t.id[i] = (uint8_t)i;
		t.secret[i] = (uint8_t)(0xf0 + i);
	}
	memcpy(t.ca_hash, ca_hash, sizeof(ca_hash));
	return t;
}

static void assert_same(const struct token *a, const struct token *b)
{
	assert_string_equal(a->host.host, b->host.host);
	assert_string_equal(a->host.port, b->host.port);
	assert_memory_equal(a->id, b->id, sizeof(a->id));
	assert_memory_equal(a->secret, b->secret, sizeof(a->secret));
	assert_memory_equal(a->ca_hash, b->ca_hash, sizeof(a->ca_hash));
}

static void text_form_is_the_one_written_down(void **state)
{
	struct token t = fixed("10.0.0.1", "8443");
	_free_ char *text = token_encode(&t);

	(void)state;
	assert_string_equal(text, "GODWIT1.10.0.0.1:8443.000G40R40M30E209185GR38E1W.Y3RZ5WZMYQVFFY7SZBXZSZFYZW."
				  "ZW0G40R40M30E0000000000000000000000000000000000000007DN");
}

static void token_comes_back_from_its_text(void **state)
{
	const char *hosts[][2] = {{"10.0.0.1", "8443"}, {"fd00::1", "1"}, {"n1.example.com", "65535"}, {"a", "80"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		struct token t = fixed(hosts[i][0], hosts[i][1]), back;
		_free_ char *text = token_encode(&t);
		struct err e = ERR_INIT;

		assert_int_equal(token_decode(text, &back, &e), 0);
		assert_same(&t, &back);
	}
}

static void two_tokens_are_never_the_same(void **state)
{
	struct token a, b;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(token_make("n1:8443", ca_hash, &a, &e), 0);
	assert_int_equal(token_make("n1:8443", ca_hash, &b, &e), 0);
	assert_memory_not_equal(a.id, b.id, sizeof(a.id));
	assert_memory_not_equal(a.secret, b.secret, sizeof(a.secret));
	assert_memory_equal(a.ca_hash, ca_hash, sizeof(ca_hash));
	assert_int_equal(token_make("n1", ca_hash, &a, &e), -1);
	assert_int_equal(token_make(":8443", ca_hash, &a, &e), -1);
	assert_int_equal(token_make("n1;reboot:8443", ca_hash, &a, &e), -1);
}

static void case_blanks_and_confusable_letters_do_not_matter(void **state)
{
	struct token t = fixed("n1.example.com", "8443"), back;
	_free_ char *text = token_encode(&t);
	_free_ char *pasted = xasprintf(" \t%s\r\n\n", text);
	struct err e = ERR_INIT;
	char *codes = strstr(pasted, ":8443.");

	(void)state;
	for (char *p = pasted; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	for (char *p = codes + 6; *p; p++) {
		if (*p == '0')
			*p = 'o';
		else if (*p == '1')
			*p = 'l';
	}
	assert_int_equal(token_decode(pasted, &back, &e), 0);
	assert_same(&t, &back);
}

static void every_wrong_character_is_told_as_a_typo(void **state)
{
	struct token t = fixed("n1.example.com", "8443"), back;
	_free_ char *text = token_encode(&t);
	const char others[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ.:-";
	const char *prefix_end = strchr(text, '.');

	(void)state;
	for (char *p = text; *p; p++) {
		char right = *p;

		for (const char *o = others; *o; o++) {
			struct err e = ERR_INIT;

			if (toupper((unsigned char)right) == *o)
				continue;
			*p = *o;
			if (token_decode(text, &back, &e) == 0)
				fail_msg("%c instead of %c at %td was not seen", *o, right, p - text);
			assert_int_equal(e.code, ERR_USAGE);
			if (p > prefix_end)
				assert_non_null(strstr(e.text, "typo"));
		}
		*p = right;
	}
}

static void any_two_neighbours_swapped_are_told_as_a_typo(void **state)
{
	struct token t, back;
	struct err e = ERR_INIT;

	(void)state;
	for (int round = 0; round < 50; round++) {
		_free_ char *text = NULL;

		assert_int_equal(token_make("n1.example.com:8443", ca_hash, &t, &e), 0);
		text = token_encode(&t);
		for (char *p = text; p[1]; p++) {
			char a = p[0], b = p[1];

			if (a == b)
				continue;
			p[0] = b, p[1] = a;
			if (token_decode(text, &back, NULL) == 0)
				fail_msg("%c%c swapped at %td was not seen", a, b, p - text);
			p[0] = a, p[1] = b;
		}
	}
}

static void wrong_text_is_refused_with_what_it_is(void **state)
{
	static const struct {
		const char *text, *expect;
	} cases[] = {
		{"", "that is not a join token"},
		{"hello", "that is not a join token"},
		{"GODWIT2.n1:1.AAAA", "of a kind (GODWIT2) that this version does not know"},
		{"GODWIT1.", "cut short"},
		{"GODWIT1.n1:8443.000G40R40M30E209185GR38E1W", "cut short"},
		{"GODWITX.n1:8443", "typo"},
	};
	struct token t;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err e = ERR_INIT;

		assert_int_equal(token_decode(cases[i].text, &t, &e), -1);
		assert_int_equal(e.code, ERR_USAGE);
		if (!strstr(e.text, cases[i].expect))
			fail_msg("\"%s\": %s", cases[i].text, e.text);
	}
}

static void every_token_that_lost_its_end_is_refused(void **state)
{
	struct token t = fixed("a-host-with-a-long-name.a-domain-with-a-long-name-too.example.com", "8443"), back;
	_free_ char *text = token_encode(&t);

	(void)state;
	for (size_t n = strlen(text) - 1; n > 0; n--) {
		struct err e = ERR_INIT;

		text[n] = 0;
		assert_int_equal(token_decode(text, &back, &e), -1);
	}
}

static void pass_carries_id_and_secret_alone(void **state)
{
	struct token t = fixed("n1", "8443"), back = {0};
	char pass[TOKEN_PASS_MAX], id[TOKEN_ID_TEXT_MAX];
	struct err e = ERR_INIT;

	(void)state;
	token_pass_encode(&t, pass);
	token_id_text(t.id, id);
	assert_int_equal(strncmp(pass, id, strlen(id)), 0);
	assert_int_equal(token_pass_decode(pass, &back, &e), 0);
	assert_memory_equal(t.id, back.id, sizeof(t.id));
	assert_memory_equal(t.secret, back.secret, sizeof(t.secret));
	pass[3] = '!';
	assert_int_equal(token_pass_decode(pass, &back, &e), -1);
	assert_int_equal(token_pass_decode("", &back, &e), -1);
	assert_int_equal(e.code, ERR_PROTOCOL);
}

static struct token_record record_of(const struct token *t)
{
	struct token_record r = {.expires_s = NOW + 60};

	token_hash(t, r.hash);
	return r;
}

static void assert_refused(const struct token *t, const struct token_record *r, const char *expect)
{
	struct err e = ERR_INIT;

	assert_int_equal(token_check(t, r, NOW, &e), -1);
	assert_int_equal(e.code, ERR_AUTH);
	if (!strstr(e.text, expect))
		fail_msg("%s", e.text);
}

static void token_admits_once_and_until_it_expires(void **state)
{
	struct token t = fixed("n1", "8443"), wrong = t;
	struct token_record r = record_of(&t);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(token_check(&t, &r, NOW, &e), 0);
	assert_refused(&t, NULL, "unknown to this cluster");
	wrong.secret[15] ^= 1;
	assert_refused(&wrong, &r, "unknown to this cluster");
	r.expires_s = NOW;
	assert_refused(&t, &r, "expired on 2027-01-15 08:00:00 UTC");
	r.used = true;
	assert_refused(&t, &r, "used already");
	r.revoked = true;
	assert_refused(&t, &r, "revoked");
	assert_refused(&wrong, &r, "unknown to this cluster");
}

static void hash_is_of_id_and_secret(void **state)
{
	struct token a = fixed("n1", "8443"), b = fixed("n2", "1"), c = a, d = a;
	uint8_t ha[TOKEN_HASH_SIZE], hb[TOKEN_HASH_SIZE], hc[TOKEN_HASH_SIZE], hd[TOKEN_HASH_SIZE];

	(void)state;
	c.id[0] ^= 1;
	d.secret[0] ^= 1;
	token_hash(&a, ha);
	token_hash(&b, hb);
	token_hash(&c, hc);
	token_hash(&d, hd);
	assert_memory_equal(ha, hb, sizeof(ha));
	assert_memory_not_equal(ha, hc, sizeof(ha));
	assert_memory_not_equal(ha, hd, sizeof(ha));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_form_is_the_one_written_down),
		cmocka_unit_test(token_comes_back_from_its_text),
		cmocka_unit_test(two_tokens_are_never_the_same),
		cmocka_unit_test(case_blanks_and_confusable_letters_do_not_matter),
		cmocka_unit_test(every_wrong_character_is_told_as_a_typo),
		cmocka_unit_test(any_two_neighbours_swapped_are_told_as_a_typo),
		cmocka_unit_test(wrong_text_is_refused_with_what_it_is),
		cmocka_unit_test(every_token_that_lost_its_end_is_refused),
		cmocka_unit_test(pass_carries_id_and_secret_alone),
		cmocka_unit_test(token_admits_once_and_until_it_expires),
		cmocka_unit_test(hash_is_of_id_and_secret),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
