/* SPDX-License-Identifier: Apache-2.0 */
/* The cloud-init seed: its meta-data, and the volume that genisoimage makes. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/mem.h"
#include "hv/seed.h"

#define HEAD "{\"name\":\"web1\",\"uuid\":\"6ba7b810-9dad-41d1-80b4-00c04fd430c8\",\"vcpus\":2,\"memory\":\"1G\""

static struct def parse(const char *text)
{
	struct def d = {0};
	struct err e = ERR_INIT;

	if (def_parse(text, strlen(text), "t", "/", &d, &e) < 0)
		fail_msg("%s", e.text);
	return d;
}

static void meta_data_has_the_uuid_as_instance(void **state)
{
	struct def d = parse(HEAD ",\"seed\":{\"ssh-keys\":[\"ssh-ed25519 A me\"]}}");
	_free_ char *text = seed_meta_data(&d);

	(void)state;
	assert_string_equal(text,
			    "{\n  \"instance-id\": \"6ba7b810-9dad-41d1-80b4-00c04fd430c8\",\n"
			    "  \"local-hostname\": \"web1\",\n  \"public-keys\": [\n    \"ssh-ed25519 A me\"\n  ]\n}");
	def_done(&d);
}

static void own_meta_data_is_taken_as_it_is(void **state)
{
	struct def d = parse(HEAD ",\"seed\":{\"meta-data\":\"instance-id: i-7\\n\"}}");
	_free_ char *text = seed_meta_data(&d);

	(void)state;
	assert_string_equal(text, "instance-id: i-7\n");
	def_done(&d);
}

/* A file of the volume, with Rock Ridge names. */
static char *volume_file(const char *iso, const char *file)
{
	const char *argv[] = {"isoinfo", "-R", "-i", iso, "-x", file, NULL};
	struct err e = ERR_INIT;
	char *out = NULL;

	if (child_run(argv, clock_now_ns() + 20 * NS_PER_S, 65536, &out, &e) < 0)
		fail_msg("%s", e.text);
	return out;
}

static void volume_is_labelled_and_holds_the_three_files(void **state)
{
	char dir[] = "/tmp/seed-test-XXXXXX";
	struct def d = parse(HEAD ",\"seed\":{\"hostname\":\"h1\",\"user-data\":\"#cloud-config\\na: b\\n\","
				  "\"network-config\":\"version: 2\\n\"}}");
	struct err e = ERR_INIT;
	char label[7] = "";
	_free_ char *iso = NULL;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	if (seed_write(&d, dir, &e) < 0)
		fail_msg("%s", e.text);
	iso = xasprintf("%s/seed.iso", dir);
	fd = open(iso, O_RDONLY);
	assert_int_equal(pread(fd, label, 6, 32768 + 40), 6); /* primary volume descriptor, volume identifier */
	assert_string_equal(label, "cidata");
	close(fd);
	{
		_free_ char *user = volume_file(iso, "/user-data");
		_free_ char *meta = volume_file(iso, "/meta-data");
		_free_ char *net = volume_file(iso, "/network-config");

		assert_string_equal(user, "#cloud-config\na: b\n");
		assert_non_null(strstr(meta, "\"local-hostname\": \"h1\""));
		assert_string_equal(net, "version: 2\n");
	}
	unlink(iso);
	assert_int_equal(rmdir(dir), 0); /* nothing else was left in it */
	def_done(&d);
}

static void unwritable_folder_is_a_sentence(void **state)
{
	struct def d = parse(HEAD ",\"seed\":{}}");
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(seed_write(&d, "/no/such/folder", &e), -1);
	assert_string_equal(e.text, "folder /no/such/folder/seed: No such file or directory");
	def_done(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(meta_data_has_the_uuid_as_instance),
		cmocka_unit_test(own_meta_data_is_taken_as_it_is),
		cmocka_unit_test(volume_is_labelled_and_holds_the_three_files),
		cmocka_unit_test(unwritable_folder_is_a_sentence),
	};

	return cmocka_run_group_tests_name("hv/seed", tests, NULL, NULL);
}
