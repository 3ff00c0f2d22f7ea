/* SPDX-License-Identifier: Apache-2.0 */
/* corosync.conf: golden files, reading back, and what is refused. (corosync-live-test gives them to corosync.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "node/corosync.h"

#define GOLDEN "tests/golden/corosync"

static const struct corosync_local local = {.key_path = "/etc/corosync/authkey", .to_syslog = true};

/* Nodes n1.. with ids 1.., addresses 10.LINK.0.ID. */
static struct corosync_conf conf_of(size_t n, size_t links)
{
	struct corosync_conf c = {
		.cluster = "prod", .version = n, .token_ms = COROSYNC_TOKEN_MS, .n_nodes = n, .n_links = links};

	for (unsigned i = 0; i < n; i++) {
		c.nodes[i].id = i + 1;
		snprintf(c.nodes[i].name, sizeof(c.nodes[i].name), "n%u", i + 1);
		for (unsigned l = 0; l < links; l++)
			snprintf(c.nodes[i].addresses[l], ADDRESS_TEXT_MAX, "10.%u.0.%u", l, i + 1);
	}
	return c;
}

static struct corosync_conf with_qdevice(struct corosync_conf c)
{
	strcpy(c.qdevice, "witness.example.com");
	return c;
}

static struct corosync_conf mixed_rings(void)
{
	struct corosync_conf c = conf_of(3, 2);

	c.token_ms = 3001;
	for (unsigned i = 0; i < 3; i++)
		snprintf(c.nodes[i].addresses[1], ADDRESS_TEXT_MAX, "fd00::%u", i + 1);
	return c;
}

/* The golden files and what they are of. */
struct golden {
	const char *file;
	struct corosync_conf conf;
};

static size_t goldens(struct golden ret[6])
{
	size_t n = 0;

	ret[n++] = (struct golden){"one.conf", conf_of(1, 1)};
	ret[n++] = (struct golden){"two.conf", conf_of(2, 1)};
	ret[n++] = (struct golden){"three.conf", conf_of(3, 1)};
	ret[n++] = (struct golden){"two-rings.conf", mixed_rings()};
	ret[n++] = (struct golden){"two-qdevice.conf", with_qdevice(conf_of(2, 1))};
	ret[n++] = (struct golden){"three-qdevice.conf", with_qdevice(conf_of(3, 1))};
	return n;
}

static char *text_of(const struct corosync_conf *c, const struct corosync_local *where)
{
	struct err e = ERR_INIT;
	char *text = corosync_conf_text(c, where, &e);

	if (!text)
		fail_msg("%s", e.text);
	return text;
}

static void generated_files_are_the_golden_ones(void **state)
{
	struct golden g[6];
	size_t n = goldens(g);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		_free_ char *path = xasprintf(GOLDEN "/%s", g[i].file);
		_free_ char *text = text_of(&g[i].conf, &local);
		_free_ char *want = file_read(path, COROSYNC_TEXT_MAX, NULL, NULL);

		assert_string_equal(text, want ? want : "(no such file)");
	}
}

static void file_is_read_back_as_it_was_written(void **state)
{
	struct golden g[6];
	size_t n = goldens(g);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		_free_ char *text = text_of(&g[i].conf, &local);
		struct corosync_conf back;
		struct err e = ERR_INIT;
		_free_ char *again = NULL;

		if (corosync_conf_parse(text, &back, &e) < 0)
			fail_msg("%s: %s", g[i].file, e.text);
		again = text_of(&back, &local);
		assert_string_equal(text, again);
	}
}

static void what_is_not_ours_in_the_file_is_skipped(void **state)
{
	struct corosync_conf c = conf_of(2, 1), back;
	_free_ char *text = text_of(&c, &local);
	_free_ char *more =
		xasprintf("# a comment\n\nsystem {\n\tsched_rr: no\n}\n%s\r\n  resources   {\n  x : y:z\n }\n", text);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(corosync_conf_parse(more, &back, &e), 0);
	assert_memory_equal(&c, &back, sizeof(c));
	assert_string_equal(corosync_node_find(&back, NULL, 2)->name, "n2");
	assert_int_equal(corosync_node_find(&back, "n1", 0)->id, 1);
	assert_null(corosync_node_find(&back, "n3", 3));
}

/* 10/3 and 10 of it, as corosync's own defaults are, within what corosync-qnetd takes. */
static void times_of_the_quorum_device_follow_the_token(void **state)
{
	static const struct {
		unsigned token_ms, timeout, sync_timeout;
	} rows[] = {{300, 1250, 3000},    {375, 1250, 3750},      {376, 1253, 3760},      {1000, 3333, 10000},
		    {3000, 10000, 30000}, {15000, 50000, 150000}, {30000, 100000, 150000}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct corosync_conf c = with_qdevice(conf_of(2, 1));
		_free_ char *text = NULL, *want = xasprintf("\t\ttimeout: %u\n\t\tsync_timeout: %u\n", rows[i].timeout,
							    rows[i].sync_timeout);

		c.token_ms = rows[i].token_ms;
		text = text_of(&c, &local);
		if (!strstr(text, want))
			fail_msg("token %u: not%sin\n%s", c.token_ms, want, text);
	}
}

static void votes_follow_the_number_of_hosts(void **state)
{
	static const struct {
		size_t n;
		bool qdevice;
		struct corosync_votes expect;
	} cases[] = {
		{1, false, {.expected = 1, .quorum = 1}},
		{1, true, {.expected = 1, .quorum = 1}},
		{2, false, {.expected = 2, .quorum = 1, .two_node = true}},
		{2, true, {.expected = 3, .quorum = 2, .device = true}},
		{3, false, {.expected = 3, .quorum = 2}},
		{3, true, {.expected = 3, .quorum = 2}},
		{4, false, {.expected = 4, .quorum = 3}},
		{4, true, {.expected = 5, .quorum = 3, .device = true}},
		{32, false, {.expected = 32, .quorum = 17}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct corosync_votes v = corosync_votes(cases[i].n, cases[i].qdevice);

		assert_int_equal(v.expected, cases[i].expect.expected);
		assert_int_equal(v.quorum, cases[i].expect.quorum);
		assert_int_equal(v.two_node, cases[i].expect.two_node);
		assert_int_equal(v.device, cases[i].expect.device);
	}
}

/* One field of a good configuration made wrong, and the words of the refusal. */
static void assert_refused(struct corosync_conf c, const char *expect)
{
	struct err e = ERR_INIT;

	assert_null(corosync_conf_text(&c, &local, &e));
	assert_int_equal(e.code, ERR_INPUT);
	if (!strstr(e.text, expect))
		fail_msg("\"%s\" is not in: %s", expect, e.text);
}

#define REFUSED(expect, ...)                                                                                           \
	do {                                                                                                           \
		struct corosync_conf c = conf_of(3, 2);                                                                \
		__VA_ARGS__;                                                                                           \
		assert_refused(c, expect);                                                                             \
	} while (0)

static void configuration_that_cannot_run_is_refused_with_the_reason(void **state)
{
	(void)state;
	REFUSED("cluster name", c.cluster[0] = 0);
	REFUSED("cluster name", strcpy(c.cluster, "a\nb"));
	REFUSED("version", c.version = 0);
	REFUSED("token time of 100 ms", c.token_ms = 100);
	REFUSED("token time of 30001 ms", c.token_ms = 30001);
	REFUSED("1 to 8 links", c.n_links = 0);
	REFUSED("1 to 8 links", c.n_links = 9);
	REFUSED("1 to 32 nodes", c.n_nodes = 0);
	REFUSED("1 to 32 nodes", c.n_nodes = 33);
	REFUSED("node name", strcpy(c.nodes[1].name, "N2"));
	REFUSED("node \"n1\" is there twice", strcpy(c.nodes[2].name, "n1"));
	REFUSED("node \"n1\" and node \"n3\" have the same id 1", c.nodes[2].id = 1);
	REFUSED("id from 1 to 65535", c.nodes[2].id = 0);
	REFUSED("id from 1 to 65535", c.nodes[2].id = 65536);
	REFUSED("no address for link 1", c.nodes[2].addresses[1][0] = 0);
	REFUSED("10.0.0.1 is there twice: node \"n1\" and node \"n3\"", strcpy(c.nodes[2].addresses[1], "10.0.0.1"));
	REFUSED("10.0.0.3 is there twice: node \"n3\" and node \"n3\"", strcpy(c.nodes[2].addresses[1], "10.0.0.3"));
	REFUSED("IPv4 and IPv6 do not meet", strcpy(c.nodes[2].addresses[1], "fd00::1"));
	REFUSED("must be written fd00::1", strcpy(c.nodes[0].addresses[1], "fd00:0::1"));
	REFUSED("must be an IPv4 or IPv6 address", strcpy(c.nodes[0].addresses[1], "n1.example.com"));
	REFUSED("not the address of one host", strcpy(c.nodes[0].addresses[0], "224.0.0.1"));
	REFUSED("link-local", strcpy(c.nodes[0].addresses[0], "fe80::1"));
	REFUSED("qdevice", strcpy(c.qdevice, "a b"));
}

static void damaged_file_is_refused_with_the_line(void **state)
{
	static const struct {
		const char *text, *expect;
	} cases[] = {
		{"", "not one of Godwit's"},
		{"totem {", "cut short"},
		{"totem {\n}\n}\n", "line 3: there is no section to close"},
		{"hello\n", "line 1: that is neither"},
		{"a {\nb {\nc {\nd {\ne {\n", "line 5: sections are nested too deeply"},
		{"a/b {\n}\n", "line 1: that is not the name of a section"},
		{" {\n}\n", "line 1: that is not the name of a section"},
		{"totem {\n\ttoken: soon\n}\n", "line 2: the value is not a number"},
		{"totem {\n\ttoken: -1\n}\n", "line 2: the value is not a number"},
		{"totem {\n\ttoken: 99999999999\n}\n", "line 2: the value is not a number"},
		{"nodelist {\nnode {\nring0_addr: 1234567890123456789012345678901234567890123456789\n}\n}\n",
		 "line 3: the value is too long"},
		{"totem {\ntransport: udpu\ncrypto_cipher: aes256\ncrypto_hash: sha256\n}\n", "not one of Godwit's"},
		{"totem {\ntransport: knet\ncrypto_cipher: none\ncrypto_hash: sha256\n}\n", "not one of Godwit's"},
		{"totem {\ntransport: knet\ncrypto_cipher: aes256\ncrypto_hash: sha256\n}\n", "cluster name"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct corosync_conf c;
		struct err e = ERR_INIT;

		assert_int_equal(corosync_conf_parse(cases[i].text, &c, &e), -1);
		assert_int_equal(e.code, ERR_INPUT);
		if (!strstr(e.text, cases[i].expect))
			fail_msg("\"%s\": %s", cases[i].text, e.text);
	}
}

static void too_many_nodes_in_a_file_are_refused(void **state)
{
	_free_ char *text = xcalloc(1, 4096);
	struct corosync_conf c;
	struct err e = ERR_INIT;

	(void)state;
	strcpy(text, "nodelist {\n");
	for (unsigned i = 0; i <= COROSYNC_NODES_MAX; i++)
		strcat(text, "node {\n}\n");
	assert_int_equal(corosync_conf_parse(text, &c, &e), -1);
	assert_non_null(strstr(e.text, "too many nodes"));
}

static void key_and_file_are_written_for_root_alone_and_for_all(void **state)
{
	char dir[] = "/tmp/godwit-conf-XXXXXX";
	struct corosync_conf c = conf_of(1, 1);
	uint8_t key[COROSYNC_KEY_SIZE], other[COROSYNC_KEY_SIZE];
	struct err e = ERR_INIT;
	struct stat st;
	size_t size;

	(void)state;
	assert_non_null(mkdtemp(dir));
	_free_ char *conf = xasprintf("%s/sub/corosync.conf", dir);
	_free_ char *sub = xasprintf("%s/sub", dir);
	_free_ char *key_path = xasprintf("%s/sub/authkey", dir);
	struct corosync_local here = {.key_path = key_path};

	assert_int_equal(corosync_key_make(key, &e), 0);
	assert_int_equal(corosync_key_make(other, &e), 0);
	assert_memory_not_equal(key, other, sizeof(key));
	assert_int_equal(corosync_write(sub, &c, &here, key, &e), 0);
	assert_int_equal(stat(key_path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0400);
	assert_int_equal(st.st_size, 128);
	assert_int_equal(stat(conf, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	/* Without a key the one that is there stays. */
	assert_int_equal(corosync_write(sub, &c, &here, NULL, &e), 0);
	_free_ char *kept = file_read(key_path, 1000, &size, &e);
	assert_memory_equal(kept, key, sizeof(key));
	unlink(conf);
	unlink(key_path);
	rmdir(sub);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(generated_files_are_the_golden_ones),
		cmocka_unit_test(file_is_read_back_as_it_was_written),
		cmocka_unit_test(what_is_not_ours_in_the_file_is_skipped),
		cmocka_unit_test(times_of_the_quorum_device_follow_the_token),
		cmocka_unit_test(votes_follow_the_number_of_hosts),
		cmocka_unit_test(configuration_that_cannot_run_is_refused_with_the_reason),
		cmocka_unit_test(damaged_file_is_refused_with_the_line),
		cmocka_unit_test(too_many_nodes_in_a_file_are_refused),
		cmocka_unit_test(key_and_file_are_written_for_root_alone_and_for_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
