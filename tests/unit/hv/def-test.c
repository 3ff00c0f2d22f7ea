/* SPDX-License-Identifier: Apache-2.0 */
/* The guest definition: what is accepted, and the sentence for everything that is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "hv/def.h"

#define HEAD "{\"name\":\"web1\",\"vcpus\":2,\"memory\":\"2G\""
#define UUID "6ba7b810-9dad-41d1-80b4-00c04fd430c8"

static struct def good(const char *text)
{
	struct def d = {0};
	struct err e = ERR_INIT;

	if (def_parse(text, strlen(text), "web1.json", "/here", &d, &e) < 0)
		fail_msg("%s", e.text);
	return d;
}

/* Every wrong field, and the whole sentence after "web1.json: ". */
static const struct {
	const char *text;
	const char *sentence;
} wrong[] = {
	{"[]", "(top): must be an object {...}, not a list"},
	{"{\"vcpus\":1,\"memory\":64}", "name: is missing"},
	{"{\"name\":\"a\",\"memory\":64}", "vcpus: is missing"},
	{"{\"name\":\"a\",\"vcpus\":1}", "memory: is missing"},
	{"{\"name\":\"\"}", "name: is empty; leave the field out instead"},
	{"{\"name\":7}", "name: must be a string, not a whole number"},
	{"{\"name\":\"../x\"}",
	 "name: \"../x\" is no guest name: letters, digits, '_', '.' and '-', beginning with a letter or digit"},
	{"{\"name\":\"a\\u0000b\"}",
	 "line 1 column 18: not JSON: \\u0000 is not allowed without JSON_ALLOW_NUL near '\"a\\u0000b\"'"},
	{"{\"name\":\"a\\nb\"}", "name: holds the control character 0x0a"},
	{HEAD ",\"uuid\":\"7\"}", "uuid: \"7\" is not a UUID of the form 6ba7b810-9dad-41d1-80b4-00c04fd430c8"},
	{"{\"name\":\"a\",\"vcpus\":0}", "vcpus: 0 is out of range; from 1 to 255 is possible"},
	{"{\"name\":\"a\",\"vcpus\":1.5}", "vcpus: must be a whole number, not a number with a fraction"},
	{"{\"memory\":\"2g\"}", "memory: \"2g\" is no size: write a number with M, G or T, such as \"2G\""},
	{"{\"memory\":\"-2G\"}", "memory: \"-2G\" is no size: write a number with M, G or T, such as \"2G\""},
	{"{\"memory\":\"99999999999999999999G\"}",
	 "memory: \"99999999999999999999G\" is no size: write a number with M, G or T, such as \"2G\""},
	{"{\"memory\":8}", "memory: is out of range; from 16M to 8T is possible"},
	{"{\"memory\":\"9T\"}", "memory: is out of range; from 16M to 8T is possible"},
	{"{\"memory\":true}", "memory: must be a size such as \"2G\" or a number of MiB, not true or false"},
	{"{\"name\":\"a\",\"vcpus\":1,\"memory\":17,\"hugepages\":true}",
	 "memory: must be a multiple of 2M with hugepages"},
	{HEAD ",\"hugepages\":1}", "hugepages: must be true or false, not a whole number"},
	{HEAD ",\"machine\":\"virt\"}",
	 "machine: \"virt\" is neither q35, pc nor a version of these such as pc-q35-7.2"},
	{HEAD ",\"machine\":\"pc,x=y\"}",
	 "machine: \"pc,x=y\" holds the character ','; letters, digits and _.- are possible"},
	{HEAD ",\"cpu\":\"a b\"}", "cpu: \"a b\" holds the character ' '; letters, digits and _.-+=, are possible"},
	{HEAD ",\"firmware\":\"efi\"}", "firmware: \"efi\" is not one of bios, uefi"},
	{HEAD ",\"uefi-vars\":\"v\"}", "uefi-vars: needs \"firmware\": \"uefi\""},
	{HEAD ",\"initrd\":\"i\"}", "initrd: needs a kernel"},
	{HEAD ",\"cmdline\":\"quiet\"}", "cmdline: needs a kernel"},
	{HEAD ",\"disk\":[]}", "disk: no such field; did you mean \"disks\"?"},
	{HEAD ",\"VCPUS\":[]}", "VCPUS: no such field; did you mean \"vcpus\"?"},
	{HEAD ",\"colour\":1}",
	 "colour: no such field; the fields here are name, uuid, vcpus, memory, hugepages, machine, "
	 "cpu, firmware, uefi-vars, kernel, initrd, cmdline, disks, nics, seed"},
	{HEAD ",\"disks\":{}}", "disks: must be a list [...], not an object"},
	{HEAD ",\"disks\":[3]}", "disks[0]: must be an object {...}, not a whole number"},
	{HEAD ",\"disks\":[{\"file\":\"a\",\"format\":\"raw\"},{\"file\":\"b\",\"format\":\"qcow3\"}]}",
	 "disks[1].format: \"qcow3\" is not one of raw, qcow2"},
	{HEAD ",\"disks\":[{\"file\":\"a\"}]}", "disks[0].format: is missing"},
	{HEAD ",\"disks\":[{\"format\":\"raw\"}]}", "disks[0].file: is missing"},
	{HEAD ",\"disks\":[{\"file\":\"a\",\"format\":\"raw\",\"read-only\":true}]}",
	 "disks[0].read-only: no such field; did you mean \"readonly\"?"},
	{HEAD ",\"disks\":[{\"file\":\"a\",\"format\":\"raw\"},{\"file\":\"/here/a\",\"format\":\"raw\"}]}",
	 "disks[1].file: /here/a is the file of disks[0] too"},
	{HEAD ",\"nics\":[{\"type\":\"tap\"}]}",
	 "nics[0].bridge: is missing; a NIC of type tap needs the bridge it joins"},
	{HEAD ",\"nics\":[{\"type\":\"user\",\"bridge\":\"br0\"}]}",
	 "nics[0].bridge: belongs to type tap; a NIC of type user joins no bridge"},
	{HEAD ",\"nics\":[{\"type\":\"tap\",\"bridge\":\"br0\",\"restrict\":true}]}",
	 "nics[0].restrict: belongs to type user; a NIC of type tap is ruled by its bridge"},
	{HEAD ",\"nics\":[{\"type\":\"tap\",\"bridge\":\"a-name-that-is-long\"}]}",
	 "nics[0].bridge: is 19 bytes long; at most 15 are possible"},
	{HEAD ",\"nics\":[{\"type\":\"vhost\"}]}", "nics[0].type: \"vhost\" is not one of tap, user"},
	{HEAD ",\"nics\":[{\"type\":\"user\",\"mac\":\"52:54:00:12:34\"}]}",
	 "nics[0].mac: \"52:54:00:12:34\" is not a MAC address of the form 52:54:00:12:34:56"},
	{HEAD ",\"nics\":[{\"type\":\"user\",\"mac\":\"53:54:00:12:34:56\"}]}",
	 "nics[0].mac: \"53:54:00:12:34:56\" is a multicast address; the first byte must be even"},
	{HEAD ",\"nics\":[{\"type\":\"user\",\"mac\":\"52:54:00:12:34:56\"},{\"type\":\"user\",\"mac\":"
	      "\"52:54:00:12:34:56\"}]}",
	 "nics[1].mac: 52:54:00:12:34:56 is the address of nics[0] too"},
	{HEAD ",\"nics\":[{\"type\":\"user\",\"forward\":[{\"host\":0,\"guest\":22}]}]}",
	 "nics[0].forward[0].host: 0 is out of range; from 1 to 65535 is possible"},
	{HEAD ",\"nics\":[{\"type\":\"user\",\"forward\":[{\"host\":1}]}]}", "nics[0].forward[0].guest: is missing"},
	{HEAD ",\"nics\":[{\"type\":\"user\",\"forward\":[{\"host\":1,\"guest\":1,\"protocol\":\"icmp\"}]}]}",
	 "nics[0].forward[0].protocol: \"icmp\" is not one of tcp, udp"},
	{HEAD ",\"seed\":true}", "seed: must be an object {...}, not true or false"},
	{HEAD ",\"seed\":{\"ssh-keys\":\"k\"}}", "seed.ssh-keys: must be a list of public keys, not a string"},
	{HEAD ",\"seed\":{\"ssh-keys\":[\"secret\"]}}",
	 "seed.ssh-keys[0]: is not a public key (\"ssh-ed25519 AAAA... comment\")"},
	{HEAD ",\"seed\":{\"user-data-file\":\"/no/such\"}}",
	 "seed.user-data-file: /no/such: No such file or directory"},
	{HEAD ",\"seed\":{\"meta-data\":\"a: b\",\"hostname\":\"h\"}}",
	 "seed.hostname: is part of meta-data; write it there"},
	{HEAD ",\"name\":\"twice\"}", "line 1 column 45: not JSON: duplicate object key near '\"name\"'"},
	{"{\"name\":", "line 1 column 8: not JSON: unexpected token near end of file"},
	{"", "line 1 column 0: not JSON: '[' or '{' expected near end of file"},
};

static void every_wrong_field_has_its_sentence(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct def d = {.vcpus = 77};
		struct err e = ERR_INIT;
		char want[ERR_TEXT_MAX];

		snprintf(want, sizeof(want), "web1.json: %s", wrong[i].sentence);
		assert_int_equal(def_parse(wrong[i].text, strlen(wrong[i].text), "web1.json", "/here", &d, &e), -1);
		assert_string_equal(e.text, want);
		assert_int_equal(e.code, ERR_INPUT);
		assert_int_equal(d.vcpus, 77); /* untouched */
	}
}

static void smallest_definition_gets_the_defaults(void **state)
{
	struct def d = good(HEAD "}");

	(void)state;
	assert_string_equal(d.name, "web1");
	assert_int_equal(strlen(d.uuid), 36);
	assert_int_equal(d.uuid[14], '4');
	assert_int_equal(d.memory, 2ULL << 30);
	assert_string_equal(d.machine, "q35");
	assert_string_equal(d.cpu, "x86-64-v2");
	assert_int_equal(d.firmware, DEF_FIRMWARE_BIOS);
	assert_int_equal(d.n_disks + d.n_nics, 0);
	def_done(&d);
}

static void memory_is_read_in_every_unit(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} sizes[] = {{"64", 64ULL << 20}, {"\"64M\"", 64ULL << 20}, {"\"3G\"", 3ULL << 30}, {"\"8T\"", 8ULL << 40}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_free_ char *text = xasprintf("{\"name\":\"a\",\"vcpus\":1,\"memory\":%s}", sizes[i].text);
		struct def d = good(text);

		assert_int_equal(d.memory, sizes[i].bytes);
		def_done(&d);
	}
}

static void two_guests_without_uuid_differ(void **state)
{
	struct def a = good(HEAD "}"), b = good(HEAD "}");

	(void)state;
	assert_string_not_equal(a.uuid, b.uuid);
	def_done(&a);
	def_done(&b);
}

static void mac_follows_from_the_uuid(void **state)
{
	static const char text[] = HEAD ",\"uuid\":\"" UUID "\",\"nics\":[{\"type\":\"user\"},{\"type\":\"user\"}]}";
	struct def a = good(text), b = good(text);

	(void)state;
	assert_string_equal(a.nics[0].mac, b.nics[0].mac);
	assert_string_not_equal(a.nics[0].mac, a.nics[1].mac);
	assert_memory_equal(a.nics[0].mac, "52:54:00:", 9);
	def_done(&a);
	def_done(&b);
}

static void relative_paths_start_at_the_definition(void **state)
{
	struct def d = good(HEAD ",\"kernel\":\"vmlinuz\",\"disks\":[{\"file\":\"/abs/d\",\"format\":\"raw\"}]}");

	(void)state;
	assert_string_equal(d.kernel, "/here/vmlinuz");
	assert_string_equal(d.disks[0].file, "/abs/d");
	def_done(&d);
}

static void what_is_written_reads_back_the_same(void **state)
{
	struct def d = good(
		HEAD ",\"firmware\":\"uefi\",\"uefi-vars\":\"v.fd\",\"kernel\":\"k\",\"initrd\":\"i\","
		     "\"cmdline\":\"console=ttyS0 \\\"a b\\\"\",\"hugepages\":true,"
		     "\"disks\":[{\"file\":\"a,b\",\"format\":\"qcow2\",\"readonly\":true}],"
		     "\"nics\":[{\"type\":\"tap\",\"bridge\":\"br0\"},{\"type\":\"user\",\"restrict\":true,"
		     "\"forward\":[{\"protocol\":\"udp\",\"host\":53,\"guest\":5353}]}],"
		     "\"seed\":{\"hostname\":\"h\",\"user-data\":\"#cloud-config\\n\",\"ssh-keys\":[\"ssh-rsa A\"],"
		     "\"network-config\":\"version: 2\\n\"}}");
	json_t *first = def_to_json(&d), *second;
	_free_ char *text = json_dumps(first, 0);
	struct def again = good(text);

	(void)state;
	second = def_to_json(&again);
	assert_true(json_equal(first, second));
	assert_string_equal(again.seed.ssh_keys[0], "ssh-rsa A");
	assert_int_equal(again.nics[1].forwards[0].guest, 5353);
	json_decref(first);
	json_decref(second);
	def_done(&d);
	def_done(&again);
}

static void seed_text_comes_from_a_file(void **state)
{
	char path[] = "/tmp/def-test-XXXXXX";
	int fd = mkstemp(path);
	_free_ char *text = xasprintf(HEAD ",\"seed\":{\"user-data-file\":\"%s\"}}", path);
	struct def d;

	(void)state;
	assert_int_equal(write(fd, "#cloud-config\n", 14), 14);
	close(fd);
	d = good(text);
	assert_string_equal(d.seed.user_data, "#cloud-config\n");
	def_done(&d);
	unlink(path);
}

static void folder_and_missing_file_are_refused(void **state)
{
	struct def d = {0};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(def_load("/no/such.json", &d, &e), -1);
	assert_string_equal(e.text, "definition /no/such.json: No such file or directory");
	assert_int_equal(def_load("/tmp", &d, &e), -1);
	assert_string_equal(e.text, "definition /tmp: is a folder, not a file");
}

static void names_are_folder_names(void **state)
{
	static const char *const bad[] = {"", ".", "..", ".a", "-a", "a/b", "a b", "_a", "\xc3\xa4"};
	char longest[66];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(def_name_valid(bad[i]));
	assert_true(def_name_valid("a"));
	assert_true(def_name_valid("Web-1.example_x"));
	memset(longest, 'a', sizeof(longest));
	longest[63] = 0;
	assert_true(def_name_valid(longest));
	longest[63] = 'a';
	longest[64] = 0;
	assert_false(def_name_valid(longest));
}

/* Each property of @schema must be a field that def.c knows at the place that @fmt builds. */
static void check_properties(json_t *schema, const char *fmt_before, const char *fmt_after, const char *path)
{
	const char *key;
	json_t *v;

	json_object_foreach (json_object_get(schema, "properties"), key, v) {
		_free_ char *text = xasprintf("%s\"%s\":null%s", fmt_before, key, fmt_after);
		_free_ char *want = xasprintf("web1.json: %s%s: ", path, key);
		struct def d = {0};
		struct err e = ERR_INIT;

		assert_int_equal(def_parse(text, strlen(text), "web1.json", "/", &d, &e), -1);
		assert_memory_equal(e.text, want, strlen(want));
		assert_null(strstr(e.text, "no such field"));
	}
}

/* Each member of what def_to_json() writes must be a property of @schema. */
static void check_members(json_t *value, json_t *schema)
{
	const char *key;
	json_t *v;
	size_t i;

	json_object_foreach (value, key, v) {
		json_t *sub = json_object_get(json_object_get(schema, "properties"), key);

		assert_non_null(sub);
		check_members(v, sub);
	}
	json_array_foreach (value, i, v)
		check_members(v, json_object_get(schema, "items"));
}

static void schema_and_reader_know_the_same_fields(void **state)
{
	json_t *schema = json_load_file("hv/guest.schema.json", 0, NULL);
	json_t *p = json_object_get(schema, "properties");
	json_t *nic = json_object_get(json_object_get(p, "nics"), "items");
	json_t *forward = json_object_get(json_object_get(json_object_get(nic, "properties"), "forward"), "items");
	struct def d = good(HEAD ",\"disks\":[{\"file\":\"a\",\"format\":\"raw\"}],\"nics\":[{\"type\":\"user\","
				 "\"forward\":[{\"host\":1,\"guest\":1}]}],\"seed\":{\"hostname\":\"h\"}}");
	json_t *o = def_to_json(&d);

	(void)state;
	assert_non_null(schema);
	check_properties(schema, "{", "}", "");
	check_properties(json_object_get(json_object_get(p, "disks"), "items"), "{\"disks\":[{", "}]}", "disks[0].");
	check_properties(nic, "{\"nics\":[{", "}]}", "nics[0].");
	check_properties(forward, "{\"nics\":[{\"forward\":[{", "}]}]}", "nics[0].forward[0].");
	check_properties(json_object_get(p, "seed"), "{\"seed\":{", "}}", "seed.");
	check_members(o, schema);
	json_decref(o);
	json_decref(schema);
	def_done(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_wrong_field_has_its_sentence),
		cmocka_unit_test(smallest_definition_gets_the_defaults),
		cmocka_unit_test(memory_is_read_in_every_unit),
		cmocka_unit_test(two_guests_without_uuid_differ),
		cmocka_unit_test(mac_follows_from_the_uuid),
		cmocka_unit_test(relative_paths_start_at_the_definition),
		cmocka_unit_test(what_is_written_reads_back_the_same),
		cmocka_unit_test(seed_text_comes_from_a_file),
		cmocka_unit_test(folder_and_missing_file_are_refused),
		cmocka_unit_test(names_are_folder_names),
		cmocka_unit_test(schema_and_reader_know_the_same_fields),
	};

	return cmocka_run_group_tests_name("hv/def", tests, NULL, NULL);
}
